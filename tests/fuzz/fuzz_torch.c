/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "src/io/torch.h"
#include "src/io/torch_pickle.h"
#include "tests/fuzz/fuzz.h"

/* The input as a whole checkpoint, and as a pickle alone, which mutations reach more easily. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct dm_err e;
    struct dm_torch t = {0};
    struct dm_pickle_tensor *p;
    size_t n_p;
    if (!dm_torch_open(&t, fuzz_file(data, n), &e))
        fuzz_tensors(t.tensor, t.n);
    dm_torch_close(&t);
    if (!dm_pickle_read(&p, &n_p, data, n, "pickle", &e))
        for (size_t i = 0; i < n_p; i++) {
            fuzz_touch(p[i].name.s, p[i].name.n);
            fuzz_touch(p[i].key.s, p[i].key.n);
        }
    free(p);
    return 0;
}
