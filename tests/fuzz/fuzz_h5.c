/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "src/io/cooc.h"
#include "src/io/shard.h"
#include "src/model/file.h"
#include "tests/fuzz/fuzz.h"

enum { MOST = 1 << 22 };

/* Every attribute by each getter, every dataset as what it says it is. */
static void read_all(struct dm_h5 *f)
{
    struct dm_err e;
    char **names, *text;
    size_t n, rows, cols;
    double d;
    uint64_t u;
    if (!dm_h5_attr_names(f, &names, &n, &e)) {
        for (size_t i = 0; i < n; i++) {
            if (!dm_h5_get_string(f, "/", names[i], &text, &e))
                free(text);
            dm_h5_get_f64(f, "/", names[i], &d, &e);
            dm_h5_get_u64(f, "/", names[i], &u, &e);
        }
        dm_h5_free_names(names);
    }
    if (dm_h5_names(f, "", &names, &n, &e))
        return;
    for (size_t i = 0; i < n; i++) {
        enum dm_h5_type t;
        enum dm_dtype dtype;
        struct dm_h5_extent x;
        void *buf = malloc(MOST);
        if (!dm_h5_shape(f, names[i], &t, &rows, &cols, &e) && rows <= 1 << 9 && cols <= 1 << 9)
            dm_h5_read(f, names[i], t, buf, rows, cols, &e); // elements of at most 8 bytes
        if (!dm_h5_tensor_shape(f, names[i], &dtype, &rows, &cols, &e) && rows <= 1 << 9 &&
            cols <= 1 << 9)
            dm_h5_read_tensor(f, names[i], buf, rows, cols, &e);
        dm_h5_tensor_extent(f, names[i], &x, &e);
        free(buf);
    }
    dm_h5_free_names(names);
}

/* Any file of ours through the wrapper, then as model, shard and table. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *path = fuzz_file(data, n);
    struct dm_err e;
    struct dm_h5 *f;
    struct dm_config cfg;
    struct dm_model_meta meta;
    struct dm_shard *s;
    struct dm_cooc c;
    int32_t ids[64];
    if (!dm_h5_open(&f, path, NULL, 99, &e)) {
        read_all(f);
        dm_h5_close(f);
    }
    if (!dm_model_peek(path, &cfg, &meta, &e))
        dm_model_meta_release(&meta);
    if (!dm_shard_open(&s, path, &e)) {
        for (size_t at = 0; at < dm_shard_tokens(s) && at < 1000; at += 64)
            dm_shard_read(s, ids, at, dm_shard_tokens(s) - at < 64 ? dm_shard_tokens(s) - at : 64,
                          &e);
        dm_shard_close(s);
    }
    dm_cooc_load(&c, path, &e);
    dm_cooc_release(&c);
    return 0;
}
