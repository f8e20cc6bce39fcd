/* SPDX-License-Identifier: MIT */
/* --memory is that of the whole process, as the system sees it. */
#include "tests/util.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/cooc_build.h"
#include "src/base/rng.h"
#include "src/io/shard.h"

static const char HASH[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* 12 million tokens of which almost every triplet is another one: 100 MB of counts. */
static void write_shard(const char *path)
{
    enum { V = 50000, PIECE = 50000, PIECES = 240 };
    static int32_t ids[PIECE];
    struct dm_shard_writer *w;
    struct dm_err e;
    struct dm_rng r;
    dm_rng_init(&r, 1, 1);
    assert_ok(dm_shard_create(&w, path, V, NULL, HASH, "{}", &e), e);
    for (size_t i = 0; i < PIECES; i++) {
        for (size_t k = 0; k < PIECE; k++)
            ids[k] = 1 + (int32_t)dm_rng_below(&r, V - 1);
        assert_ok(dm_shard_append(w, ids, PIECE, &e), e);
    }
    assert_ok(dm_shard_commit(w, &e), e);
}

static void test_the_process_takes_no_more_than_the_memory_given(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    skip(); // the sanitizer's own memory
#endif
    char *shard = strdup(tmp_path("shard.h5")), *out = strdup(tmp_path("out.h5"));
    write_shard(shard);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (!child) { // 0: done, and files were needed
        const struct dm_cooc_opt o = {.inputs = (const char *const *)&shard,
                                      .n_inputs = 1,
                                      .out = out,
                                      .order = 3,
                                      .rule = {.min_count = {1, 1, 1}},
                                      .memory = DM_COOC_MIN_MEMORY};
        struct dm_cooc_stats s;
        struct dm_err e;
        _exit(dm_cooc_build(&o, NULL, &s, &e) ? 1 : s.spilled ? 0 : 2);
    }
    struct rusage used;
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &used), 0);
    assert_in_range((size_t)used.ru_maxrss * 1024, (size_t)40 << 20, DM_COOC_MIN_MEMORY);
    free(shard);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_process_takes_no_more_than_the_memory_given),
    };
    return cmocka_run_group_tests_name("cooc_memory", tests, NULL, NULL);
}
