/* SPDX-License-Identifier: MIT */
#include "src/io/safetensors.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct dm_err e;
    struct dm_safetensors s = {0};
    if (!dm_safetensors_open(&s, fuzz_file(data, n), &e))
        fuzz_tensors(s.tensor, s.n);
    dm_safetensors_close(&s);
    return 0;
}
