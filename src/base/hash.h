/* SPDX-License-Identifier: MIT */
/* hash.h - SHA-256 (nettle) as lower-case hex, for tensors, files and manifests. */
#ifndef DM_BASE_HASH_H
#define DM_BASE_HASH_H

#include <nettle/sha2.h>
#include <stddef.h>

#include "src/base/status.h"

#define DM_HASH_LEN 64 /* hex digits, without the NUL */

/* Piece by piece: init, update..., hex. */
struct dm_sha256 {
    struct sha256_ctx ctx;
};
void dm_sha256_init(struct dm_sha256 *h);
void dm_sha256_update(struct dm_sha256 *h, const void *data, size_t n);
void dm_sha256_hex(struct dm_sha256 *h, char hex[DM_HASH_LEN + 1]);

void dm_sha256(const void *data, size_t n, char hex[DM_HASH_LEN + 1]);

/* SHA-256 of a whole file. */
enum dm_status dm_sha256_file(const char *path, char hex[DM_HASH_LEN + 1], struct dm_err *e);

#endif
