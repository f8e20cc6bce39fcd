/* SPDX-License-Identifier: MIT */
#include "src/base/hash.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

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

/* Read, not mapped: pages of a map count as memory of the process. */
enum dm_status dm_sha256_file(const char *path, char hex[DM_HASH_LEN + 1], struct dm_err *e)
{
    uint8_t buf[32768];
    struct dm_sha256 h;
    struct stat s;
    enum dm_status st = DM_OK;
    FILE *f = fopen(path, "rbe");
    if (!f)
        return dm_fail_errno(e, "%s: cannot open", path);
    if (fstat(fileno(f), &s) || !S_ISREG(s.st_mode))
        st = dm_fail(e, DM_EIO, "%s: not a regular file", path);
    dm_sha256_init(&h);
    for (size_t n = 1; n && !st;) {
        n = fread(buf, 1, sizeof(buf), f);
        dm_sha256_update(&h, buf, n);
        if (ferror(f))
            st = dm_fail_errno(e, "%s: cannot read", path);
    }
    dm_sha256_hex(&h, hex);
    fclose(f);
    return st;
}
