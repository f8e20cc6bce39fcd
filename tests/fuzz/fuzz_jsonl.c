/* SPDX-License-Identifier: MIT */
#include "data/reader.h"
#include "tests/fuzz/fuzz.h"

/* JSONL, plain, gzip or zstd: document by document, and in blocks. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct dm_reader_opt opt = {.format = DM_READER_JSONL, .max_line = 1 << 16};
    const char *path = fuzz_file(data, n), *text;
    struct dm_err e;
    struct dm_reader *r;
    struct dm_block b = {0};
    size_t len;
    bool more = true, end;
    if (!dm_reader_open(&r, path, &opt, &e)) {
        while (!dm_reader_next(r, &text, &len, &e) && text)
            fuzz_touch(text, len);
        dm_reader_close(r);
    }
    if (dm_reader_open(&r, path, &opt, &e))
        return 0;
    while (more && !dm_reader_block(r, NULL, NULL, 100, &b, &more, &e) && more)
        while (!dm_block_next(&b, &text, &len, &end, &e) && text)
            fuzz_touch(text, len);
    dm_block_release(&b);
    dm_reader_close(r);
    return 0;
}
