/* SPDX-License-Identifier: MIT */
/* torch_zip.h - the entries of a zip archive whose entries are all STORED, as torch.save() writes
 * it. Sizes come from the central directory, zip64 included. Checksums are not verified: PyTorch
 * can leave them out, and does not verify them either. */
#ifndef DM_IO_TORCH_ZIP_H
#define DM_IO_TORCH_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/file.h"

struct dm_zip_entry {
    const char *name; /* not NUL-terminated; borrowed from the map, as data */
    size_t n_name;
    const uint8_t *data;
    size_t n;
};

/* Entries sorted by name. Release with dm_zip_release(). */
struct dm_zip {
    struct dm_zip_entry *entry;
    size_t n;
};

/* DM_EFORMAT: no zip, truncated, entries outside of the file or named twice; DM_EUNSUPPORTED:
 * compressed, encrypted or in several volumes. Nothing to release after a failure. */
enum dm_status dm_zip_read(struct dm_zip *z, const struct dm_map *m, const char *path,
                           struct dm_err *e);
void dm_zip_release(struct dm_zip *z);
const struct dm_zip_entry *dm_zip_find(const struct dm_zip *z, const char *name, size_t n_name);

#endif
