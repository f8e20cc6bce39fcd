/* SPDX-License-Identifier: MIT */
/* Tables that lie: whatever a file says, loading ends with a status and a sentence. */
#include "tests/util.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/par.h"
#include "src/base/rng.h"
#include "src/io/cooc.h"
#include "src/io/cooc_pack.h"
#include "src/io/h5.h"
#include "tests/tablet.h"

static const char HASH[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/* A table of our own making, right as it stands: documents 1 2 1 2 3 | 2 1. */
struct raw {
    uint64_t V, order, N[3];
    uint64_t c1[4], row[5], sub[4];
    uint32_t x2[3], c2[3], x3[3], c3[3];
    size_t n_c1, n_row, n_sub, n_x2, n_c2, n_x3, n_c3; /* items written */
    const char *format, *hash, *without;
    size_t version;
    bool wide_x2;
};

static struct raw good(void)
{
    return (struct raw){.V = 4,
                        .order = 3,
                        .N = {7, 5, 3},
                        .c1 = {0, 3, 3, 1},
                        .row = {0, 0, 1, 3, 3},
                        .sub = {0, 2, 3, 3},
                        .x2 = {2, 1, 3},
                        .c2 = {2, 2, 1},
                        .x3 = {1, 3, 2},
                        .c3 = {1, 1, 1},
                        .n_c1 = 4,
                        .n_row = 5,
                        .n_sub = 4,
                        .n_x2 = 3,
                        .n_c2 = 3,
                        .n_x3 = 3,
                        .n_c3 = 3,
                        .format = DM_COOC_FORMAT,
                        .hash = HASH,
                        .without = "",
                        .version = 1};
}

static void write_set(struct dm_h5 *f, const struct raw *r, const char *name, enum dm_h5_type type,
                      const void *buf, size_t n)
{
    struct dm_err e;
    if (strcmp(name, r->without))
        assert_ok(dm_h5_append(f, name, type, buf, n, &e), e);
}

static void write_raw(const char *path, const struct raw *r)
{
    const struct {
        const char *name;
        uint64_t value;
    } attr[] = {{"vocab", r->V}, {"order", r->order}, {"n1", r->N[0]},  {"n2", r->N[1]},
                {"n3", r->N[2]}, {"min_count2", 1},   {"min_count3", 1}};
    struct dm_h5 *f;
    struct dm_err e;
    assert_ok(dm_h5_create(&f, path, r->format, r->version, &e), e);
    for (size_t i = 0; i < sizeof(attr) / sizeof(attr[0]); i++)
        if (strcmp(attr[i].name, r->without))
            assert_ok(dm_h5_set_u64(f, "/", attr[i].name, attr[i].value, &e), e);
    if (strcmp("tokenizer_hash", r->without))
        assert_ok(dm_h5_set_string(f, "/", "tokenizer_hash", r->hash, &e), e);
    assert_ok(dm_h5_set_string(f, "/", "provenance", "{}", &e), e);
    write_set(f, r, "c1", DM_H5_U64, r->c1, r->n_c1);
    write_set(f, r, "row", DM_H5_U64, r->row, r->n_row);
    write_set(f, r, "sub", DM_H5_U64, r->sub, r->n_sub);
    write_set(f, r, "x2", r->wide_x2 ? DM_H5_I32 : DM_H5_U32, r->x2, r->n_x2);
    write_set(f, r, "c2", DM_H5_U32, r->c2, r->n_c2);
    write_set(f, r, "x3", DM_H5_U32, r->x3, r->n_x3);
    write_set(f, r, "c3", DM_H5_U32, r->c3, r->n_c3);
    assert_ok(dm_h5_commit(f, &e), e);
}

static void assert_same_bytes(const struct dm_cooc *a, const struct dm_cooc *b)
{
    assert_int_equal(a->n_pairs, b->n_pairs);
    assert_int_equal(a->n_triplets, b->n_triplets);
    for (size_t x = 0; x <= a->V; x++) {
        assert_int_equal(a->rows[x].pair, b->rows[x].pair);
        assert_int_equal(a->rows[x].triplet, b->rows[x].triplet);
        assert_int_equal(a->rows[x].map, b->rows[x].map);
    }
    assert_memory_equal(a->pair, b->pair, (a->n_pairs + 1) * sizeof(*a->pair));
    assert_memory_equal(a->x2_ids, b->x2_ids, a->n_pairs * a->id_bytes);
    assert_memory_equal(a->next, b->next, a->n_triplets * (a->id_bytes + sizeof(uint16_t)));
}

/* Both loaders give the same ratios. */
static void assert_same_index(const char *path)
{
    struct dm_cooc a, b;
    struct dm_err e;
    assert_ok(dm_cooc_load(&a, path, &e), e);
    assert_ok(dm_cooc_index(&a, &e), e);
    assert_ok(dm_cooc_load_ratios(&b, path, &e), e);
    assert_same_bytes(&a, &b);
    for (uint32_t x = 0; x < a.V; x++)
        for (uint32_t y = 0; y < a.V; y++) {
            assert_true(stored_r2(&b, x, y) == tablet_r2(&a, (int32_t)x, (int32_t)y));
            for (uint32_t z = 0; z < a.V; z++)
                assert_true(stored_r3(&b, x, y, z) ==
                            tablet_r3(&a, (int32_t)x, (int32_t)y, (int32_t)z));
        }
    dm_cooc_release(&a);
    dm_cooc_release(&b);
}

/* Both loaders agree, and say `words` where they refuse; what they accept can be used. */
static enum dm_status load(const char *path, const char *words, struct dm_err *e)
{
    struct dm_cooc t;
    const enum dm_status st = dm_cooc_load(&t, path, e);
    dm_cooc_release(&t);
    for (int ratios = 0; st && ratios < 2; ratios++) {
        if (ratios)
            assert_int_equal(dm_cooc_load_ratios(&t, path, e), st);
        if (words && (!strstr(e->msg, words) || !strstr(e->msg, path)))
            fail_msg("\"%s\", want %s", e->msg, words);
        if (ratios)
            dm_cooc_release(&t);
    }
    if (!st)
        assert_same_index(path);
    return st;
}

static enum dm_status load_raw(const struct raw *r, const char *words, struct dm_err *e)
{
    char *path = strdup(tmp_path("raw.h5"));
    write_raw(path, r);
    const enum dm_status st = load(path, words, e);
    free(path);
    return st;
}

/* Each line breaks one thing: the assignment, the status, words of the sentence. */
#define BAD_TABLES(X)                                                       \
    X(format = "dynamo-shard", DM_EFORMAT, "want dynamo-cooc")              \
    X(version = DM_COOC_VERSION + 1, DM_EUNSUPPORTED, "version")            \
    X(without = "vocab", DM_EFORMAT, "vocab")                               \
    X(without = "tokenizer_hash", DM_EFORMAT, "tokenizer_hash")             \
    X(without = "x3", DM_EFORMAT, "x3")                                     \
    X(without = "row", DM_EFORMAT, "row")                                   \
    X(hash = "00", DM_EFORMAT, "tokenizer_hash has 2 digits")               \
    X(V = 0, DM_EFORMAT, "vocab is 0")                                      \
    X(V = UINT64_MAX, DM_EFORMAT, "vocab is 18446744073709551615")          \
    X(V = 5, DM_ESHAPE, "c1 has 4 rows, want 5")                            \
    X(order = 4, DM_EFORMAT, "order is 4")                                  \
    X(order = 2, DM_EFORMAT, "triplets in a table of order 2")              \
    X(wide_x2 = true, DM_ESHAPE, "x2 is not a list of u32")                 \
    X(n_c1 = 3, DM_ESHAPE, "c1 has 3 rows, want 4")                         \
    X(n_row = 4, DM_ESHAPE, "row has 4 rows, want 5")                       \
    X(n_sub = 3, DM_ESHAPE, "sub has 3 rows, want 4")                       \
    X(n_c2 = 2, DM_ESHAPE, "c2 has 2 rows, want 3")                         \
    X(n_c3 = 0, DM_ESHAPE, "c3 has 0 rows, want 3")                         \
    X(c1[1] = 4, DM_EFORMAT, "add up to 8, want n1 = 7")                    \
    X(c1[1] = UINT64_MAX, DM_EFORMAT, "and more")                           \
    X(N[0] = 8, DM_EFORMAT, "want n1 = 8")                                  \
    X(N[1] = 8, DM_EFORMAT, "higher than of a lower order")                 \
    X(N[2] = 6, DM_EFORMAT, "higher than of a lower order")                 \
    X(N[2] = 2, DM_EFORMAT, "x3 is counted 3 times in all, want at most 2") \
    X(row[0] = 1, DM_EFORMAT, "row runs from 1")                            \
    X(row[4] = 4, DM_EFORMAT, "row runs from 0 to 4")                       \
    X(row[2] = 4, DM_EFORMAT, "row[3] is smaller")                          \
    X(row[1] = UINT64_MAX, DM_EFORMAT, "row[2] is smaller")                 \
    X(sub[3] = 2, DM_EFORMAT, "sub runs from 0 to 2")                       \
    X(sub[1] = 1000, DM_EFORMAT, "sub[2] is smaller")                       \
    X(x2[0] = 4, DM_EFORMAT, "x2[0] is 4, want less than 4")                \
    X(x2[2] = 1, DM_EFORMAT, "x2[2] is 1 after 1")                          \
    X(x2[0] = 0, DM_EFORMAT, "x2[0] is counted 2 times")                    \
    X(c2[1] = 0, DM_EFORMAT, "x2[1] is counted 0 times")                    \
    X(c2[2] = 2, DM_EFORMAT, "x2[2] is counted 2 times, want 1 to 1")       \
    X(c2[1] = 3, DM_EFORMAT, "list x2[1..] add up to 4, want at most 3")    \
    X(x3[0] = UINT32_MAX, DM_EFORMAT, "x3[0] is 4294967295")                \
    X(x3[1] = 1, DM_EFORMAT, "x3[1] is 1 after 1")                          \
    X(c3[2] = 0, DM_EFORMAT, "x3[2] is counted 0 times")                    \
    X(c3[0] = 2, DM_EFORMAT, "list x3[0..] add up to 3, want at most 2")

static void test_every_kind_of_bad_table_is_refused(void **state)
{
    (void)state;
    struct dm_err e;
    struct raw r = good();
    assert_ok(load_raw(&r, NULL, &e), e);
#define X(change, status, words)             \
    r = good();                              \
    r.change;                                \
    if (load_raw(&r, words, &e) != (status)) \
        fail_msg("%s: \"%s\"", #change, e.msg);
    BAD_TABLES(X)
#undef X
    r = good();
    r.c1[0] = 1;
    r.N[0] = 8;
    assert_int_equal(load_raw(&r, "separator", &e), DM_EFORMAT);
}

/* The same table as version 2 has it (data/FORMAT.md). */
struct packed {
    uint64_t V, order, N[3], base[2], complete, ones, c1[4], index[12];
    uint8_t data[32], data1[8];
    size_t n_index, n_data, n_data1; /* without n_data1 there is one block */
    const char *without;
};

static struct packed good_packed(void)
{
    return (struct packed){.V = 4,
                           .order = 3,
                           .N = {7, 5, 3},
                           .base = {1, 1},
                           .complete = 1,
                           .c1 = {0, 3, 3, 1},
                           .index = {1 << 1, 0, 0, 0, 3 << 1, 3, 3, 0},
                           .data = {0, 5, 0, 2, 4, 0, 0, 1, 3, 0, 4, 0, 4, 0, 0},
                           .n_index = 8,
                           .n_data = 15,
                           .without = ""};
}

static void write_packed_of(const char *path, const struct packed *r, const uint64_t *c1,
                            const uint8_t *data, size_t n_data)
{
    const struct {
        const char *name;
        uint64_t value;
    } attr[] = {
        {"vocab", r->V},   {"order", r->order},   {"n1", r->N[0]},       {"n2", r->N[1]},
        {"n3", r->N[2]},   {"base2", r->base[0]}, {"base3", r->base[1]}, {"min_count2", 1},
        {"min_count3", 1}, {"ones1", r->ones},    {"ones2", 1},          {"ones3", 3},
        {"twos1", 0},      {"twos2", 2},          {"twos3", 0},          {"complete", r->complete}};
    struct dm_h5 *f;
    struct dm_err e;
    assert_ok(dm_h5_create(&f, path, DM_COOC_FORMAT, 2, &e), e);
    for (size_t i = 0; i < sizeof(attr) / sizeof(attr[0]); i++)
        if (strcmp(attr[i].name, r->without))
            assert_ok(dm_h5_set_u64(f, "/", attr[i].name, attr[i].value, &e), e);
    assert_ok(dm_h5_set_string(f, "/", "tokenizer_hash", HASH, &e), e);
    assert_ok(dm_h5_set_string(f, "/", "provenance", "{}", &e), e);
    if (c1)
        assert_ok(dm_h5_write(f, "c1", DM_H5_U64, c1, c1 == r->c1 ? 4 : r->V, 0, 4, &e), e);
    assert_ok(dm_h5_append(f, "index", DM_H5_U64, r->index, r->n_index, &e), e);
    if (strcmp("data/000000", r->without))
        assert_ok(dm_h5_write(f, "data/000000", DM_H5_U8, data, n_data, 0, 0, &e), e);
    if (r->n_data1)
        assert_ok(dm_h5_write(f, "data/000001", DM_H5_U8, r->data1, r->n_data1, 0, 0, &e), e);
    assert_ok(dm_h5_commit(f, &e), e);
}

static void write_packed(const char *path, const struct packed *r)
{
    write_packed_of(path, r, strcmp("c1", r->without) ? r->c1 : NULL, r->data, r->n_data);
}

static enum dm_status load_packed(const struct packed *r, const char *words, struct dm_err *e)
{
    char *path = strdup(tmp_path("packed.h5"));
    write_packed(path, r);
    const enum dm_status st = load(path, words, e);
    free(path);
    return st;
}

#define BAD_PACKED(X)                                                       \
    X(without = "c1", DM_EFORMAT, "c1")                                     \
    X(without = "data/000000", DM_EFORMAT, "data/000000")                   \
    X(without = "base3", DM_EFORMAT, "base3")                               \
    X(without = "ones2", DM_EFORMAT, "ones2")                               \
    X(without = "complete", DM_EFORMAT, "complete")                         \
    X(V = 0, DM_EFORMAT, "vocab is 0")                                      \
    X(V = 5, DM_ESHAPE, "c1 is (4,0), want (5,0)")                          \
    X(order = 5, DM_EFORMAT, "order is 5")                                  \
    X(order = 2, DM_EFORMAT, "n-grams of order 3")                          \
    X(base[0] = 0, DM_EFORMAT, "base2 is 0")                                \
    X(base[1] = (uint64_t)1 << 32, DM_EFORMAT, "base3 is 4294967296")       \
    X(base[0] = 2, DM_EFORMAT, "x2[2] is counted 2 times, want 1 to 1")     \
    X(base[1] = UINT32_MAX, DM_EFORMAT, "is counted 4294967295 times")      \
    X(n_index = 0, DM_ESHAPE, "index has 0 items")                          \
    X(n_index = 7, DM_ESHAPE, "index has 7 items")                          \
    X(index[0] = 9 << 1, DM_EFORMAT, "block 0 begins at row 9")             \
    X(index[4] = 0, DM_EFORMAT, "block 1 begins at row 0")                  \
    X(index[4] = 1 << 1, DM_EFORMAT, "block 0 of data is malformed")        \
    X(index[1] = 1, DM_EFORMAT, "order 2 from 1")                           \
    X(index[5] = 16, DM_EFORMAT, "order 2 from 0 to 16 in 15 bytes")        \
    X(index[5] = UINT64_MAX, DM_EFORMAT, "in 15 bytes")                     \
    X(index[5] = 2, DM_EFORMAT, "block 0 of data is malformed")             \
    X(index[6] = 4, DM_EFORMAT, "block 0 of data is malformed")             \
    X(index[7] = 1, DM_EFORMAT, "n-grams of order 4")                       \
    X(n_data = 14, DM_EFORMAT, "block 0 of data is malformed")              \
    X(n_data = 16, DM_EFORMAT, "block 0 of data is malformed")              \
    X(data[0] = 1, DM_EFORMAT, "block 0 of data is malformed")              \
    X(data[1] = 255, DM_EFORMAT, "block 0 of data is malformed")            \
    X(data[3] = 1, DM_EFORMAT, "block 0 of data is malformed")              \
    X(data[3] = 8, DM_EFORMAT, "block 0 of data is malformed")              \
    X(data[7] = 2, DM_EFORMAT, "add up to")                                 \
    X(data[7] = 3, DM_EFORMAT, "block 0 of data is malformed")              \
    X(N[1] = 4, DM_EFORMAT, "x2 is counted 5 times in all, want at most 4") \
    X(c1[1] = 4, DM_EFORMAT, "add up to 8, want n1 = 7")

static void test_every_kind_of_bad_packed_table_is_refused(void **state)
{
    (void)state;
    struct dm_err e;
    struct packed r = good_packed();
    assert_ok(load_packed(&r, NULL, &e), e);
#define X(change, status, words)                \
    r = good_packed();                          \
    r.change;                                   \
    if (load_packed(&r, words, &e) != (status)) \
        fail_msg("%s: \"%s\"", #change, e.msg);
    BAD_PACKED(X)
#undef X
}

/* The same table in two blocks that cut row 2. */
static struct packed cut_packed(void)
{
    struct packed r = good_packed();
    const uint64_t index[] = {1 << 1, 0, 0, 0, 2 << 1 | 1, 2, 3, 0, 3 << 1, 3, 3, 0};
    const uint8_t data[] = {0, 5, 0, 2, 4, 0, 0, 1, 3, 0, 4, 0, 0}, data1[] = {0, 6, 0, 0};
    memcpy(r.index, index, sizeof(index));
    memcpy(r.data, data, sizeof(data));
    memcpy(r.data1, data1, sizeof(data1));
    r.n_index = 12;
    r.n_data = sizeof(data);
    r.n_data1 = sizeof(data1);
    return r;
}

static void test_a_row_may_go_on_in_the_next_block_but_must_fit(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_cooc t;
    char *path = strdup(tmp_path("cut2.h5"));
    struct packed r = cut_packed();
    for (size_t threads = 1; threads <= 3; threads++) {
        dm_par_set_threads(threads);
        assert_ok(load_packed(&r, NULL, &e), e);
    }
#define X(change, words)                                                          \
    r = cut_packed();                                                             \
    r.change;                                                                     \
    write_packed(path, &r);                                                       \
    if (dm_cooc_load_ratios(&t, path, &e) != DM_EFORMAT || !strstr(e.msg, words)) \
        fail_msg("%s: \"%s\"", #change, e.msg);                                   \
    dm_cooc_release(&t);
    X(data1[1] = 2, "begins with x2 = 1 after 1")
    X(data[8] = 3 << 1 | 0, "block 0 of data is malformed")
    X(index[4] = 2 << 1, "block 0 of data is malformed")
    X(index[0] = 1 << 1 | 1, "block 0 does not go on")
    X(c1[1] = 4; r.c1[2] = 2, "add up to 3, want at most 2")
#undef X
    free(path);
}

static void test_any_byte_of_a_packed_table_may_lie(void **state)
{
    (void)state;
    static const uint8_t lie[] = {0, 1, 2, 3, 6, 127, 128, 255};
    struct dm_err e;
    for (size_t at = 0; at < good_packed().n_data; at++)
        for (size_t i = 0; i < sizeof(lie); i++) {
            struct packed r = good_packed();
            r.data[at] = lie[i];
            const enum dm_status st = load_packed(&r, NULL, &e);
            assert_true(st == DM_OK || st == DM_EFORMAT);
        }
}

/* A list of triplets: n of them, ids up to V, counts up to `most`. Their sum comes back. */
static uint64_t put_triplets(uint8_t **p, size_t n, size_t V, uint32_t most, struct dm_rng *r)
{
    uint64_t sum = 0, last = 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t count = 1 + dm_rng_below(r, most),
                       id = last + 1 + dm_rng_below(r, (V - 1 - last) / (n - i) - 1);
        *p += dm_cooc_put_number(*p, (id - last) << 1 | (count > 1));
        if (count > 1)
            *p += dm_cooc_put_number(*p, count - 2);
        sum += count;
        last = id;
    }
    *(*p)++ = 0;
    return sum;
}

/* Rows of 300 pairs with none to 11 triplets, so that every kind of number and of list is there;
 * with `huge`, one count that takes five bytes. */
static void write_random(const char *path, size_t V, bool huge)
{
    enum { ROWS = 20, PAIRS = 300 };
    struct packed head = {.V = V, .order = 3, .base = {1, 1}, .complete = 1, .without = ""};
    uint64_t *c1 = calloc(V, sizeof(*c1)), triplets = 0;
    uint8_t *data = malloc(ROWS * PAIRS * 16 * 8), list[256], *p = data;
    struct dm_rng r;
    dm_rng_init(&r, 5, 1);
    for (size_t x = 0; x < V; x++)
        head.N[0] += c1[x] = x ? (uint64_t)1 << 36 : 0;
    head.N[1] = head.N[2] = head.N[0];
    for (size_t row = 0; row < ROWS; row++) {
        p += dm_cooc_put_number(p, row > 0); // rows 1 to ROWS
        for (size_t i = 0; i < PAIRS; i++) {
            uint8_t *end = list;
            const uint32_t most = (uint32_t)1 << dm_rng_below(&r, 24);
            const size_t n = dm_rng_below(&r, 12);
            const uint64_t sum = put_triplets(&end, n, V, most, &r);
            const uint64_t count = huge && row == 7 && i == 70 ? UINT32_MAX : sum + 1;
            p += dm_cooc_put_number(p, (1 + (i % 2) * (V / PAIRS * 2 - 3)) << 1 | (count > 1));
            if (count > 1)
                p += dm_cooc_put_number(p, count - 2);
            memcpy(p, list, (size_t)(end - list));
            p += end - list;
            triplets += n;
        }
        *p++ = 0;
    }
    const uint64_t index[] = {1 << 1, 0, 0, 0, (V - 1) << 1, ROWS * PAIRS, triplets, 0};
    memcpy(head.index, index, sizeof(index));
    head.n_index = 8;
    write_packed_of(path, &head, c1, data, (size_t)(p - data));
    free(c1);
    free(data);
}

static void test_one_pass_makes_the_ratios_of_the_counts(void **state)
{
    (void)state;
    char *path = strdup(tmp_path("random.h5"));
    for (int kind = 0; kind < 8; kind++) {
        const size_t V = kind & 1 ? 70000 : 60000; // ids of four bytes, of two
        const bool discounting = kind & 2;
        struct dm_cooc a, b;
        struct dm_err e;
        write_random(path, V, kind & 4);
        assert_ok(dm_cooc_load(&a, path, &e), e);
        a.discounting = discounting;
        assert_ok(dm_cooc_index(&a, &e), e);
        assert_ok(dm_cooc_load_for(&b, path, !discounting, discounting, &e), e);
        assert_true(b.n_triplets > 20000);
        assert_same_bytes(&a, &b);
        if (discounting)
            assert_memory_equal(a.left2, b.left2, a.n_pairs * sizeof(*a.left2));
        dm_cooc_release(&a);
        dm_cooc_release(&b);
    }
    free(path);
}

static void test_both_versions_are_the_same_table(void **state)
{
    (void)state;
    struct raw old = good();
    struct packed new = good_packed();
    struct dm_cooc a, b;
    struct dm_err e;
    char *path[2] = {strdup(tmp_path("v1.h5")), strdup(tmp_path("v2.h5"))};
    write_raw(path[0], &old);
    write_packed(path[1], &new);
    assert_ok(dm_cooc_load(&a, path[0], &e), e);
    assert_ok(dm_cooc_load(&b, path[1], &e), e);
    assert_int_equal(b.n_pairs, 3);
    assert_int_equal(b.n_triplets, 3);
    assert_memory_equal(a.N, b.N, sizeof(a.N));
    assert_memory_equal(a.row, b.row, 5 * sizeof(*a.row));
    assert_memory_equal(a.x2, b.x2, 3 * sizeof(*a.x2));
    assert_memory_equal(a.c2, b.c2, 3 * sizeof(*a.c2));
    assert_memory_equal(a.sub, b.sub, 4 * sizeof(*a.sub));
    assert_memory_equal(a.x3, b.x3, 3 * sizeof(*a.x3));
    assert_memory_equal(a.c3, b.c3, 3 * sizeof(*a.c3));
    assert_true(a.complete && b.complete);
    assert_int_equal(a.ones[1], b.ones[1]); // version 1 counts them on loading
    assert_int_equal(a.twos[1], b.twos[1]);
    assert_int_equal(a.ones[2], b.ones[2]);
    for (size_t i = 0; i < 2; i++)
        free(path[i]);
    dm_cooc_release(&a);
    dm_cooc_release(&b);
}

static void test_a_table_cut_off_or_missing_is_refused(void **state)
{
    (void)state;
    struct raw r = good();
    struct dm_cooc t;
    struct dm_err e;
    char *path = strdup(tmp_path("cut.h5")), *data;
    size_t n;
    write_raw(path, &r);
    assert_ok(dm_file_read(path, 1 << 20, &data, &n, &e), e);
    for (size_t keep = 0; keep < n; keep += 1 + n / 41) {
        assert_ok(dm_file_write(path, data, keep, &e), e);
        assert_int_equal(dm_cooc_load(&t, path, &e), DM_EFORMAT);
        dm_cooc_release(&t);
    }
    unlink(path);
    assert_int_equal(dm_cooc_load(&t, path, &e), DM_EIO);
    dm_cooc_release(&t);
    free(data);
    free(path);
}

static void test_every_failing_allocation_is_reported(void **state)
{
    (void)state;
    struct raw r = good();
    struct packed p = cut_packed();
    struct dm_cooc t;
    struct dm_err e;
    char *path[2] = {strdup(tmp_path("mem1.h5")), strdup(tmp_path("mem2.h5"))};
    write_raw(path[0], &r);
    write_packed(path[1], &p);
    for (int version = 1; version <= 2; version++) {
        bool reached = true;
        size_t failures = 0;
        for (size_t at = 1; reached; at++) {
            dm_alloc_fail_at(at);
            const enum dm_status st = dm_cooc_load_ratios(&t, path[version - 1], &e);
            reached = dm_alloc_fail_at(0) == 0;
            assert_int_equal(st, reached ? DM_ENOMEM : DM_OK);
            dm_cooc_release(&t);
            failures += reached;
        }
        assert_true(failures >= 9); // seven arrays and the ratios at least
        free(path[version - 1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_bad_table_is_refused),
        cmocka_unit_test(test_every_kind_of_bad_packed_table_is_refused),
        cmocka_unit_test(test_a_row_may_go_on_in_the_next_block_but_must_fit),
        cmocka_unit_test(test_any_byte_of_a_packed_table_may_lie),
        cmocka_unit_test(test_one_pass_makes_the_ratios_of_the_counts),
        cmocka_unit_test(test_both_versions_are_the_same_table),
        cmocka_unit_test(test_a_table_cut_off_or_missing_is_refused),
        cmocka_unit_test(test_every_failing_allocation_is_reported),
    };
    return cmocka_run_group_tests_name("cooc_load", tests, NULL, NULL);
}
