/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdlib.h>
#include <string.h>

#include "data/cooc_build.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/io/cooc.h"
#include "src/io/shard.h"

enum { FEW = 9 }; /* ids */

static void write_shard(const char *path, const int32_t *ids, size_t n)
{
    static const char hash[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    struct dm_shard_writer *w;
    struct dm_err e;
    assert_ok(dm_shard_create(&w, path, FEW, NULL, hash, "{}", &e), e);
    assert_ok(dm_shard_append(w, ids, n, &e), e);
    assert_ok(dm_shard_commit(w, &e), e);
}

/* Threads count parts of a shard; what begins in one and ends in the next is counted, too, however
 * few ids the last part has. */
static void test_ngrams_across_parts_of_a_shard_are_counted(void **state)
{
    (void)state;
    const size_t part = DM_SHARD_PART, most = 2 * part + 3;
    int32_t *ids = malloc(most * sizeof(*ids));
    struct dm_rng r;
    dm_rng_init(&r, 7, 2);
    for (size_t i = 0; i < most; i++)
        ids[i] = (int32_t)dm_rng_below(&r, FEW);
    uint32_t(*c4)[FEW][FEW][FEW] = calloc(FEW, sizeof(*c4));
    char *out = strdup(tmp_path("out.h5")), *path = strdup(tmp_path("shard.h5"));
    for (size_t n = 2 * part - 1; n <= most; n++) {
        write_shard(path, ids, n);
        uint64_t total = 0, sum = 0;
        memset(c4, 0, FEW * sizeof(*c4));
        for (size_t i = 0; i + 3 < n; i++) {
            const int32_t *x = ids + i;
            if (!x[0] || !x[1] || !x[2] || !x[3])
                continue;
            c4[x[0]][x[1]][x[2]][x[3]]++;
            total++;
        }
        const struct dm_cooc_opt o = {.inputs = (const char *const *)&path,
                                      .n_inputs = 1,
                                      .out = out,
                                      .order = 4,
                                      .rule = {.min_count = {1, 1, 1}},
                                      .memory = DM_COOC_MIN_MEMORY};
        struct dm_cooc_stats s;
        struct dm_cooc t;
        struct dm_err e;
        dm_par_set_threads(1 + n % 3);
        assert_ok(dm_cooc_build(&o, NULL, &s, &e), e);
        assert_ok(dm_cooc_load(&t, out, &e), e);
        assert_int_equal(t.N[3], total);
        for (uint32_t x = 0; x < FEW; x++)
            for (size_t p = t.row[x]; p < t.row[x + 1]; p++)
                for (size_t q = t.sub[p]; q < t.sub[p + 1]; q++)
                    for (size_t i = t.sub3[q]; i < t.sub3[q + 1]; i++) {
                        assert_int_equal(t.c4[i], c4[x][t.x2[p]][t.x3[q]][t.x4[i]]);
                        sum += t.c4[i];
                    }
        assert_int_equal(sum, total);
        dm_cooc_release(&t);
    }
    dm_par_set_threads(0);
    free(out);
    free(path);
    free(c4);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ngrams_across_parts_of_a_shard_are_counted),
    };
    return cmocka_run_group_tests_name("cooc_parts", tests, NULL, NULL);
}
