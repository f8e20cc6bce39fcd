/* SPDX-License-Identifier: MIT */
#include "src/base/hash.h"

#include "src/base/file.h"

void dm_sha256_init(struct dm_sha256 *h)
{
    sha256_init(&h->ctx);
}

void dm_sha256_update(struct dm_sha256 *h, const void *data, size_t n)
{
    sha256_update(&h->ctx, n, data);
}

void dm_sha256_hex(struct dm_sha256 *h, char hex[DM_HASH_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t d[SHA256_DIGEST_SIZE];
    sha256_digest(&h->ctx, sizeof(d), d);
    for (size_t i = 0; i < sizeof(d); i++) {
        hex[2 * i] = digits[d[i] >> 4];
        hex[2 * i + 1] = digits[d[i] & 15];
    }
    hex[DM_HASH_LEN] = '\0';
}

void dm_sha256(const void *data, size_t n, char hex[DM_HASH_LEN + 1])
{
    struct dm_sha256 h;
    dm_sha256_init(&h);
    dm_sha256_update(&h, data, n);
    dm_sha256_hex(&h, hex);
}

enum dm_status dm_sha256_file(const char *path, char hex[DM_HASH_LEN + 1], struct dm_err *e)
{
    struct dm_map m;
    DM_TRY(dm_map_open(&m, path, e));
    dm_sha256(m.data, m.n, hex);
    dm_map_close(&m);
    return DM_OK;
}
