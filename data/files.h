/* SPDX-License-Identifier: MIT */
/* files.h - the text files that a command's arguments mean: folders stand for what is in them. */
#ifndef DM_DATA_FILES_H
#define DM_DATA_FILES_H

#include <stddef.h>

#include "src/base/status.h"

/* Growing list of paths, each a heap string; zero it first, release with dm_files_release(). */
struct dm_files {
    char **path;
    size_t n, cap;
};
void dm_files_release(struct dm_files *f);

/* Appends `arg` itself, or for a folder every .txt and .jsonl below it (.gz and .zst of them, too)
 * in the byte order of their paths. Names that begin with a dot are passed over; links to files are
 * followed, links to folders are not. DM_EFORMAT for a folder without any. */
enum dm_status dm_files_add(struct dm_files *f, const char *arg, struct dm_err *e);

#endif
