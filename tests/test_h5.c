/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <hdf5.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/rng.h"
#include "src/io/h5.h"

enum { LONG_TEXT = 40000, GROWN = 300001 };

static char *long_text(void)
{
    char *s = malloc(LONG_TEXT + 1);
    assert_non_null(s);
    for (size_t i = 0; i < LONG_TEXT; i++)
        s[i] = (char)('a' + dm_mix64(i) % 26);
    s[LONG_TEXT] = '\0';
    return s;
}

/* One file with everything that the module writes. `cut`: how many elements an append gets. */
static void write_sample(const char *path, size_t cut)
{
    struct dm_err e;
    struct dm_h5 *f;
    float x[6] = {1.0f, -2.0f, 3.5f, 0.0f, 1e-30f, 7.0f};
    uint32_t u[1000];
    uint16_t *g = malloc(GROWN * sizeof(*g));
    char *text = long_text();
    assert_non_null(g);
    for (size_t i = 0; i < 1000; i++)
        u[i] = (uint32_t)(i * i);
    for (size_t i = 0; i < GROWN; i++)
        g[i] = (uint16_t)(dm_mix64(i) % 500);
    assert_ok(dm_h5_create(&f, path, "dynamo-test", 3, &e), e);
    assert_ok(dm_h5_set_string(f, "/", "provenance", "{\"x\": \"\xc3\xa9\"}", &e), e);
    assert_ok(dm_h5_set_string(f, "/", "empty", "", &e), e);
    assert_ok(dm_h5_set_string(f, "/", "long", text, &e), e);
    assert_ok(dm_h5_set_f64(f, "/", "pi", 3.25, &e), e);
    assert_ok(dm_h5_set_u64(f, "/", "big", UINT64_MAX, &e), e);
    assert_ok(dm_h5_write(f, "b/x", DM_H5_F32, x, 2, 3, 0, &e), e);
    assert_ok(dm_h5_write(f, "b/none", DM_H5_F32, x, 0, 0, 4, &e), e);
    assert_ok(dm_h5_write(f, "a/deep/u", DM_H5_U32, u, 1000, 0, 4, &e), e);
    assert_ok(dm_h5_write(f, "a/deep/u2", DM_H5_U32, u, 100, 10, 4, &e), e);
    assert_ok(dm_h5_write_tensor(f, "t/h", DM_BF16, g, 20, 30, &e), e);
    assert_ok(dm_h5_set_string(f, "t/h", "note", "on a dataset", &e), e);
    for (size_t at = 0; at < GROWN; at += cut)
        assert_ok(
            dm_h5_append(f, "grown", DM_H5_U16, g + at, GROWN - at < cut ? GROWN - at : cut, &e),
            e);
    assert_ok(dm_h5_commit(f, &e), e);
    free(g);
    free(text);
}

static void assert_string_attr(struct dm_h5 *f, const char *obj, const char *name, const char *want)
{
    struct dm_err e;
    char *text;
    assert_ok(dm_h5_get_string(f, obj, name, &text, &e), e);
    assert_string_equal(text, want);
    free(text);
}

static void test_everything_written_reads_back(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_h5 *f;
    float x[6];
    uint32_t u[1000];
    uint16_t g[5000];
    double pi;
    uint64_t big;
    char *text = long_text();
    write_sample(tmp_path("all.h5"), 70000);
    assert_ok(dm_h5_open(&f, tmp_path("all.h5"), "dynamo-test", 3, &e), e);
    assert_string_equal(dm_h5_format(f), "dynamo-test");
    assert_string_attr(f, "/", "made_by", "dynamo " DM_VERSION);
    assert_string_attr(f, "/", "provenance", "{\"x\": \"\xc3\xa9\"}");
    assert_string_attr(f, "/", "empty", "");
    assert_string_attr(f, "/", "long", text);
    assert_string_attr(f, "t/h", "note", "on a dataset");
    assert_ok(dm_h5_get_f64(f, "/", "pi", &pi, &e), e);
    assert_ok(dm_h5_get_u64(f, "/", "big", &big, &e), e);
    assert_true(pi == 3.25 && big == UINT64_MAX);
    assert_ok(dm_h5_read(f, "b/x", DM_H5_F32, x, 2, 3, &e), e);
    assert_true(x[1] == -2.0f && x[4] == 1e-30f);
    assert_ok(dm_h5_read(f, "b/none", DM_H5_F32, x, 0, 0, &e), e);
    assert_ok(dm_h5_read(f, "a/deep/u2", DM_H5_U32, u, 100, 10, &e), e);
    assert_int_equal(u[999], 999 * 999);
    for (size_t at = 260000; at < 265000; at += 1250)
        assert_ok(dm_h5_read_range(f, "grown", DM_H5_U16, g + at - 260000, at, 1250, &e), e);
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(g[i], dm_mix64(260000 + i) % 500);
    assert_true(dm_h5_has(f, "a/deep") && dm_h5_has(f, "grown") && !dm_h5_has(f, "a/x"));
    assert_true(dm_h5_has_attr(f, "/", "long") && !dm_h5_has_attr(f, "/", "short"));
    dm_h5_close(f);
    free(text);
}

static void test_the_same_calls_make_the_same_bytes(void **state)
{
    (void)state;
    struct dm_err e;
    char *a, *b;
    size_t na, nb;
    write_sample(tmp_path("one.h5"), 1234);
    sleep(1); // a time stamp would differ
    write_sample(tmp_path("two.h5"), GROWN);
    assert_ok(dm_file_read(tmp_path("one.h5"), 1 << 24, &a, &na, &e), e);
    assert_ok(dm_file_read(tmp_path("two.h5"), 1 << 24, &b, &nb, &e), e);
    assert_int_equal(na, nb);
    assert_memory_equal(a, b, na);
    free(a);
    free(b);
}

static void test_names_are_full_sorted_and_without_texts(void **state)
{
    (void)state;
    static const char *const want[] = {"a/deep/u", "a/deep/u2", "b/none", "b/x", "grown", "t/h"};
    struct dm_err e;
    struct dm_h5 *f;
    char **names;
    size_t n;
    write_sample(tmp_path("names.h5"), GROWN);
    assert_ok(dm_h5_open(&f, tmp_path("names.h5"), NULL, 3, &e), e);
    assert_ok(dm_h5_names(f, "", &names, &n, &e), e);
    assert_int_equal(n, 6);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(names[i], want[i]);
    assert_null(names[n]);
    dm_h5_free_names(names);
    assert_ok(dm_h5_names(f, "a", &names, &n, &e), e);
    assert_int_equal(n, 2);
    assert_string_equal(names[1], "a/deep/u2");
    dm_h5_free_names(names);
    assert_int_equal(dm_h5_names(f, "zzz", &names, &n, &e), DM_EFORMAT);
    static const char *const attrs[] = {"big",     "empty", "format",     "long",
                                        "made_by", "pi",    "provenance", "version"};
    assert_ok(dm_h5_attr_names(f, &names, &n, &e), e);
    assert_int_equal(n, 8);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(names[i], attrs[i]);
    dm_h5_free_names(names);
    dm_h5_close(f);
}

static void test_tensors_keep_bits_and_dtype(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_h5 *f;
    enum dm_dtype t;
    size_t rows, cols;
    uint16_t raw[600];
    write_sample(tmp_path("tensor.h5"), GROWN);
    assert_ok(dm_h5_open(&f, tmp_path("tensor.h5"), NULL, 3, &e), e);
    assert_ok(dm_h5_tensor_shape(f, "t/h", &t, &rows, &cols, &e), e);
    assert_true(t == DM_BF16 && rows == 20 && cols == 30);
    assert_ok(dm_h5_read_tensor(f, "t/h", raw, 20, 30, &e), e);
    for (size_t i = 0; i < 600; i++)
        assert_int_equal(raw[i], dm_mix64(i) % 500);
    // A plain dataset is not a tensor: it has no dtype.
    assert_int_equal(dm_h5_tensor_shape(f, "b/x", &t, &rows, &cols, &e), DM_EFORMAT);
    dm_h5_close(f);
}

static void test_wrong_expectations_are_named(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_h5 *f;
    uint32_t u[1000];
    char *text;
    write_sample(tmp_path("wrong.h5"), GROWN);
    const char *path = tmp_path("wrong.h5");
    assert_int_equal(dm_h5_open(&f, path, "dynamo-model", 3, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "is a dynamo-test file, want dynamo-model"));
    assert_int_equal(dm_h5_open(&f, path, "dynamo-test", 2, &e), DM_EUNSUPPORTED);
    assert_ok(dm_h5_open(&f, path, "dynamo-test", 3, &e), e);
    assert_int_equal(dm_h5_read(f, "a/deep/u", DM_H5_F32, u, 1000, 0, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "a/deep/u is u32, want f32"));
    assert_int_equal(dm_h5_read(f, "a/deep/u", DM_H5_U32, u, 500, 2, &e), DM_ESHAPE);
    assert_non_null(strstr(e.msg, "(1000,0), want (500,2)"));
    assert_int_equal(dm_h5_read(f, "a/deep", DM_H5_U32, u, 1000, 0, &e), DM_EFORMAT);
    assert_int_equal(dm_h5_read(f, "nothing", DM_H5_U32, u, 1000, 0, &e), DM_EFORMAT);
    assert_int_equal(dm_h5_read_range(f, "grown", DM_H5_U16, u, GROWN - 1, 2, &e), DM_ERANGE);
    assert_int_equal(dm_h5_read_range(f, "grown", DM_H5_U16, u, SIZE_MAX, 2, &e), DM_ERANGE);
    assert_int_equal(dm_h5_get_string(f, "/", "pi", &text, &e), DM_EFORMAT);
    assert_int_equal(dm_h5_get_f64(f, "/", "big", &(double){0}, &e), DM_EFORMAT);
    assert_int_equal(dm_h5_get_u64(f, "/", "none", &(uint64_t){0}, &e), DM_EFORMAT);
    dm_h5_close(f);
    assert_int_equal(dm_h5_open(&f, "/nonexistent.h5", NULL, 1, &e), DM_EIO);
    assert_int_equal(dm_h5_open(&f, "/tmp", NULL, 1, &e), DM_EIO);
}

static void test_a_file_appears_by_commit_only(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_h5 *f;
    const char *path = tmp_path("commit.h5");
    char *tmp = dm_file_tmp_name(path);
    assert_ok(dm_h5_create(&f, path, "dynamo-test", 1, &e), e);
    assert_int_equal(access(tmp, F_OK), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    dm_h5_close(f);
    assert_int_not_equal(access(tmp, F_OK), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    // A failed call may be overlooked; the file still does not appear.
    assert_ok(dm_h5_create(&f, path, "dynamo-test", 1, &e), e);
    assert_int_equal(dm_h5_write(f, "bad/", DM_H5_U8, "x", 1, 0, 0, &e), DM_ERANGE);
    assert_int_equal(dm_h5_commit(f, &e), DM_EIO);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(tmp, F_OK), 0);
    free(tmp);
    assert_int_equal(dm_h5_create(&f, "/nonexistent/x.h5", "dynamo-test", 1, &e), DM_EIO);
    assert_non_null(strstr(e.msg, "No such file or directory"));
}

static void write_random(struct dm_h5 *f, bool append, enum dm_status *write,
                         enum dm_status *commit)
{
    enum { N = 1 << 20 };
    struct dm_err e;
    uint32_t *x = malloc(N * sizeof(*x));
    assert_non_null(x);
    for (size_t i = 0; i < N; i++)
        x[i] = (uint32_t)dm_mix64(i);
    *write = append ? dm_h5_append(f, "x", DM_H5_U32, x, N, &e)
                    : dm_h5_write(f, "x", DM_H5_U32, x, N, 0, 0, &e);
    if (*write)
        assert_non_null(strstr(e.msg, "File too large"));
    *commit = dm_h5_commit(f, &e);
    free(x);
}

static void test_a_full_disk_leaves_nothing_behind(void **state)
{
    (void)state;
    struct rlimit old, small;
    struct dm_err e;
    const char *path = tmp_path("full.h5");
    char *tmp = dm_file_tmp_name(path);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    for (int append = 0; append < 2; append++) {
        struct dm_h5 *f;
        enum dm_status write, commit;
        assert_ok(dm_h5_create(&f, path, "dynamo-test", 1, &e), e);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        write_random(f, append, &write, &commit);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        if (!append) // chunks may wait in the cache until the commit
            assert_int_equal(write, DM_EIO);
        assert_int_equal(commit, DM_EIO);
        assert_int_not_equal(access(path, F_OK), 0);
        assert_int_not_equal(access(tmp, F_OK), 0);
    }
    free(tmp);
}

/* Reads whatever a file offers; any outcome but a crash is fine. Returns true if all of it could be
 * read. */
static bool read_all(const char *path)
{
    struct dm_err e;
    struct dm_h5 *f;
    char **names, *text;
    size_t n;
    bool good = true;
    if (dm_h5_open(&f, path, "dynamo-test", 3, &e))
        return false;
    static const char *const attrs[] = {"provenance", "empty", "long", "made_by"};
    for (size_t i = 0; i < sizeof(attrs) / sizeof(attrs[0]); i++)
        if (!dm_h5_get_string(f, "/", attrs[i], &text, &e))
            free(text);
        else
            good = false;
    if (dm_h5_names(f, "", &names, &n, &e)) {
        dm_h5_close(f);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        enum dm_h5_type t;
        size_t rows, cols;
        if (dm_h5_shape(f, names[i], &t, &rows, &cols, &e)) {
            good = false;
            continue;
        }
        assert_true(rows * (cols ? cols : 1) < 10000000);
        void *buf = calloc(rows * (cols ? cols : 1) + 1, 8);
        assert_non_null(buf);
        good = !dm_h5_read(f, names[i], t, buf, rows, cols, &e) && good;
        free(buf);
    }
    dm_h5_free_names(names);
    dm_h5_close(f);
    return good && n == 6;
}

static void test_flipped_bits_are_errors_not_crashes(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_rng r;
    char *data;
    size_t n, undetected = 0;
    write_sample(tmp_path("good.h5"), GROWN);
    assert_true(read_all(tmp_path("good.h5")));
    assert_ok(dm_file_read(tmp_path("good.h5"), 1 << 24, &data, &n, &e), e);
    dm_rng_init(&r, 5, 0);
    for (int i = 0; i < 400; i++) {
        // Metadata gather at the start and between datasets; half of the flips go to the start.
        const size_t at = dm_rng_below(&r, i % 2 ? n : 2048);
        const char bit = (char)(1 << dm_rng_below(&r, 8));
        data[at] ^= bit;
        assert_ok(dm_file_write(tmp_path("flip.h5"), data, n, &e), e);
        undetected += read_all(tmp_path("flip.h5"));
        data[at] ^= bit;
    }
    // What goes unseen: unused bytes, and the padding of the last chunk.
    assert_true(undetected < 200);
    free(data);
}

static void test_truncated_files_are_errors(void **state)
{
    (void)state;
    struct dm_err e;
    char *data;
    size_t n;
    write_sample(tmp_path("whole.h5"), GROWN);
    assert_ok(dm_file_read(tmp_path("whole.h5"), 1 << 24, &data, &n, &e), e);
    for (size_t k = 0; k < 60; k++) {
        struct dm_h5 *f;
        const size_t keep = k < 20 ? k * 5 : n * (k - 20) / 40;
        assert_ok(dm_file_write(tmp_path("cut.h5"), data, keep, &e), e);
        const enum dm_status st = dm_h5_open(&f, tmp_path("cut.h5"), NULL, 3, &e);
        assert_true(st == DM_EFORMAT || st == DM_EUNSUPPORTED);
        assert_non_null(strstr(e.msg, "cut.h5"));
    }
    free(data);
}

/* ---- Files that lie, made with HDF5 itself -------------------------------------------------- */

static hid_t hostile_create(const char *path, H5F_libver_t low)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(p, low, H5F_LIBVER_V110);
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, p);
    assert_true(f >= 0);
    H5Pclose(p);
    hid_t s = H5Screate(H5S_SCALAR), t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, 11);
    hid_t a = H5Acreate2(f, "format", t, s, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(a, t, "dynamo-test");
    H5Aclose(a);
    a = H5Acreate2(f, "version", H5T_STD_U64LE, s, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(a, H5T_NATIVE_UINT64, &(uint64_t){1});
    H5Aclose(a);
    H5Tclose(t);
    H5Sclose(s);
    return f;
}

static void hostile_set(hid_t f, const char *name, int rank, const hsize_t *dim,
                        const hsize_t *chunk, hid_t type, const char *external)
{
    hid_t s = H5Screate_simple(rank, dim, NULL), p = H5Pcreate(H5P_DATASET_CREATE);
    if (chunk)
        H5Pset_chunk(p, rank, chunk);
    if (external)
        H5Pset_external(p, external, 0, dim[0]);
    hid_t d = H5Dcreate2(f, name, type, s, H5P_DEFAULT, p, H5P_DEFAULT);
    assert_true(d >= 0);
    H5Dclose(d);
    H5Pclose(p);
    H5Sclose(s);
}

static void test_hostile_datasets_are_refused(void **state)
{
    (void)state;
    static const hsize_t huge[2] = {1ull << 40, 1ull << 10}, small[2] = {8, 8}, cube[3] = {2, 2, 2},
                         wide[2] = {1ull << 15, 1ull << 15}, over[2] = {1ull << 40, 1ull << 40};
    const char *path = tmp_path("hostile.h5");
    struct dm_err e;
    struct dm_h5 *h;
    enum dm_h5_type t;
    size_t rows, cols;
    hid_t f = hostile_create(path, H5F_LIBVER_V110);
    hostile_set(f, "huge", 2, huge, small, H5T_STD_U16LE, NULL);
    hostile_set(f, "never_written", 1, small, NULL, H5T_STD_U16LE, NULL);
    hostile_set(f, "cube", 3, cube, NULL, H5T_STD_U16LE, NULL);
    hostile_set(f, "big_chunk", 2, wide, wide, H5T_STD_U8LE, NULL);
    hostile_set(f, "outside", 1, small, NULL, H5T_STD_U8LE, "/etc/passwd");
    hostile_set(f, "big_endian", 1, small, small, H5T_STD_U16BE, NULL);
    hostile_set(f, "too_many", 2, over, small, H5T_STD_U16LE, NULL);
    H5Lcreate_soft("/huge", f, "soft", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external("/etc/other.h5", "x", f, "elsewhere", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(f);
    static const struct {
        const char *name, *text;
        enum dm_status st;
    } cases[] = {{"huge", "claims 2251799813685248 bytes", DM_EFORMAT},
                 {"never_written", "claims 16 bytes, but 0 are stored", DM_EFORMAT},
                 {"cube", "has 3 dimensions", DM_ESHAPE},
                 {"big_chunk", "layout or filter", DM_EUNSUPPORTED},
                 {"outside", "layout or filter", DM_EUNSUPPORTED},
                 {"big_endian", "element type", DM_EFORMAT},
                 {"too_many", "elements", DM_ESHAPE},
                 {"soft", "no dataset soft", DM_EFORMAT},
                 {"elsewhere", "no dataset elsewhere", DM_EFORMAT}};
    assert_ok(dm_h5_open(&h, path, NULL, 1, &e), e);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(dm_h5_shape(h, cases[i].name, &t, &rows, &cols, &e), cases[i].st);
        if (!strstr(e.msg, cases[i].text))
            fail_msg("%s: %s", cases[i].name, e.msg);
    }
    dm_h5_close(h);
}

static void hostile_string(hid_t f, const char *name, hid_t type, const void *value)
{
    hid_t s = H5Screate(H5S_SCALAR);
    hid_t a = H5Acreate2(f, name, type, s, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(a >= 0 && H5Awrite(a, type, value) >= 0);
    H5Aclose(a);
    H5Sclose(s);
}

static void test_hostile_strings_are_refused(void **state)
{
    (void)state;
    const char *path = tmp_path("strings.h5"), *vlen = "text";
    struct dm_err e;
    struct dm_h5 *h;
    char *text;
    hid_t f = hostile_create(path, H5F_LIBVER_V110), t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, 4);
    hostile_string(f, "nul", t, "a\0b");
    hostile_string(f, "latin1", t, "\xe9\xe9\xe9");
    H5Tset_size(t, H5T_VARIABLE);
    hostile_string(f, "vlen", t, &vlen);
    H5Tclose(t);
    H5Fclose(f);
    assert_ok(dm_h5_open(&h, path, NULL, 1, &e), e);
    assert_int_equal(dm_h5_get_string(h, "/", "nul", &text, &e), DM_EFORMAT);
    assert_null(text);
    assert_int_equal(dm_h5_get_string(h, "/", "latin1", &text, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "not valid UTF-8"));
    assert_int_equal(dm_h5_get_string(h, "/", "vlen", &text, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "not a fixed-length string"));
    dm_h5_close(h);
}

static void test_formats_without_checksums_are_refused(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_h5 *h;
    H5Fclose(hostile_create(tmp_path("old.h5"), H5F_LIBVER_EARLIEST));
    assert_int_equal(dm_h5_open(&h, tmp_path("old.h5"), NULL, 1, &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "superblock version 0"));
}

static void test_damaged_tensor_is_named(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_h5 *f;
    uint16_t raw[600];
    char *data, *p;
    size_t n;
    write_sample(tmp_path("dam.h5"), GROWN);
    assert_ok(dm_file_read(tmp_path("dam.h5"), 1 << 24, &data, &n, &e), e);
    for (size_t i = 0; i < 600; i++)
        raw[i] = (uint16_t)(dm_mix64(i) % 500);
    p = memmem(data, n, raw, sizeof(raw));
    assert_non_null(p);
    p[100] ^= 1;
    assert_ok(dm_file_write(tmp_path("dam.h5"), data, n, &e), e);
    assert_ok(dm_h5_open(&f, tmp_path("dam.h5"), NULL, 3, &e), e);
    assert_int_equal(dm_h5_read_tensor(f, "t/h", raw, 20, 30, &e), DM_EFORMAT);
    assert_non_null(strstr(e.msg, "t/h is damaged"));
    dm_h5_close(f);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_written_reads_back),
        cmocka_unit_test(test_the_same_calls_make_the_same_bytes),
        cmocka_unit_test(test_names_are_full_sorted_and_without_texts),
        cmocka_unit_test(test_tensors_keep_bits_and_dtype),
        cmocka_unit_test(test_wrong_expectations_are_named),
        cmocka_unit_test(test_a_file_appears_by_commit_only),
        cmocka_unit_test(test_a_full_disk_leaves_nothing_behind),
        cmocka_unit_test(test_flipped_bits_are_errors_not_crashes),
        cmocka_unit_test(test_truncated_files_are_errors),
        cmocka_unit_test(test_hostile_datasets_are_refused),
        cmocka_unit_test(test_hostile_strings_are_refused),
        cmocka_unit_test(test_formats_without_checksums_are_refused),
        cmocka_unit_test(test_damaged_tensor_is_named),
    };
    return cmocka_run_group_tests_name("h5", tests, NULL, NULL);
}
