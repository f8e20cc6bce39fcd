/* SPDX-License-Identifier: MIT */
/* cmd_text.h - the arguments that commands which read text have in common: files and folders,
 * --field, --format and --json, as a child of the command's own argp. */
#ifndef DM_DATA_CMD_TEXT_H
#define DM_DATA_CMD_TEXT_H

#include <argp.h>

#include "data/files.h"
#include "data/reader.h"

struct dm_text_args {
    char **args; /* (n_args) files and folders as given */
    size_t n_args;
    struct dm_reader_opt reader;
    bool json;
    struct dm_files files; /* of dm_text_files() */
};

/* For struct argp's `children`; the command's parser passes its input on at ARGP_KEY_INIT:
 * s->child_inputs[0] = &args. */
extern const struct argp_child dm_text_children[];

/* Every file that the arguments stand for; release files with dm_files_release(). DM_EMISMATCH if
 * `out` (NULL: none), which is to be written, is one of them. */
enum dm_status dm_text_files(struct dm_text_args *a, const char *out, struct dm_err *e);

#endif
