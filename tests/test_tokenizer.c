/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "src/base/arena.h"
#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/io/tokenizer.h"
#include "src/io/tokenizer_text.h"

/* The published tokenizer, or NULL; the check is then skipped in plain view. */
static struct dm_tokenizer *published(void)
{
    struct dm_tokenizer *t = NULL;
    struct dm_err e;
    const char *path = shared_path("tokenizer/20B_tokenizer.json");
    if (!path)
        skip();
    assert_ok(dm_tokenizer_load(&t, path, &e), e);
    return t;
}

static void assert_ids(const struct dm_tokenizer *t, const char *text, size_t n, const json_t *want)
{
    struct dm_ids ids = {0};
    struct dm_err e;
    assert_ok(dm_tokenizer_encode(t, text, n, &ids, &e), e);
    for (size_t i = 0; i < ids.n && i < json_array_size(want); i++)
        if (ids.id[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("id %zu of \"%s\" is %d, want %lld", i, text, ids.id[i],
                     (long long)json_integer_value(json_array_get(want, i)));
    assert_int_equal(ids.n, json_array_size(want));
    dm_ids_release(&ids);
}

static void test_published_vectors(void **state)
{
    (void)state;
    struct dm_tokenizer *t = published();
    struct dm_err e;
    json_t *cases, *c;
    size_t i;
    assert_ok(dm_json_read(shared_path("tokenizer/vectors.json"), 1 << 20, &cases, &e), e);
    assert_true(json_array_size(cases) >= 30);
    json_array_foreach(cases, i, c)
    {
        const json_t *text = json_object_get(c, "text");
        assert_ids(t, json_string_value(text), json_string_length(text), json_object_get(c, "ids"));
    }
    json_decref(cases);
    dm_tokenizer_free(t);
}

static char *gunzip(const char *path, size_t *n)
{
    gzFile f = gzopen(path, "rb");
    size_t cap = 1 << 22;
    char *text = malloc(cap);
    assert_non_null(f);
    assert_non_null(text);
    *n = 0;
    for (int k; (k = gzread(f, text + *n, (unsigned)(cap - *n))) > 0;) {
        *n += (size_t)k;
        if (*n == cap)
            assert_non_null(text = realloc(text, cap *= 2));
    }
    gzclose(f);
    return text;
}

static void test_published_hashes_of_the_corpus(void **state)
{
    (void)state;
    struct dm_tokenizer *t = published();
    FILE *f = fopen(shared_path("tokenizer/expected_ids.tsv"), "r");
    char line[512], name[256], want[65], got[65], dir[512];
    size_t bytes, tokens, files = 0;
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f)); // the heading
    while (fgets(line, sizeof(line), f)) {
        struct dm_encoder *c;
        struct dm_ids ids = {0};
        struct dm_err e;
        size_t n;
        assert_int_equal(sscanf(line, "%255s %zu %zu %*s %64s", name, &bytes, &tokens, want), 4);
        snprintf(dir, sizeof(dir), "%s", name);
        assert_non_null(shared_path(dir));
        char *text = gunzip(shared_path(dir), &n);
        assert_int_equal(n, bytes);
        assert_ok(dm_encoder_new(&c, t, &e), e);
        assert_ok(dm_encoder_encode(c, text, n, &ids, &e), e);
        assert_int_equal(ids.n, tokens);
        uint8_t *le = malloc(2 * ids.n);
        assert_non_null(le);
        for (size_t i = 0; i < ids.n; i++) {
            le[2 * i] = (uint8_t)ids.id[i];
            le[2 * i + 1] = (uint8_t)(ids.id[i] >> 8);
        }
        dm_sha256(le, 2 * ids.n, got);
        assert_string_equal(got, want);
        free(le);
        free(text);
        dm_ids_release(&ids);
        dm_encoder_free(c);
        files++;
    }
    fclose(f);
    assert_int_equal(files, 28);
    dm_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_vectors),
        cmocka_unit_test(test_published_hashes_of_the_corpus),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
