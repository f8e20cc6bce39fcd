/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "src/io/tokenizer.h"
#include "tests/fuzz/fuzz.h"

/* A tokenizer that parses must encode anything, here its own text, and decode what it said. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct dm_err e;
    struct dm_tokenizer *t;
    struct dm_ids ids = {0};
    const char *json = (const char *)data;
    char *text = NULL;
    size_t len = 0;
    if (dm_tokenizer_parse(&t, json, n, "tokenizer.json", &e))
        return 0;
    const size_t n_text = n < 2000 ? n : 2000;
    if (!dm_tokenizer_encode(t, json, n_text, &ids, &e)) {
        for (size_t i = 0; i < ids.n; i++)
            if (ids.id[i] < 0 || (size_t)ids.id[i] >= dm_tokenizer_size(t))
                abort();
        if (!dm_tokenizer_decode(t, ids.id, ids.n, &text, &len, &e))
            fuzz_touch(text, len);
        if (dm_tokenizer_cut(t, json, n_text) >= n_text)
            abort();
    }
    free(text);
    dm_ids_release(&ids);
    dm_tokenizer_free(t);
    return 0;
}
