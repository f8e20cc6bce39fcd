/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/rng.h"
#include "src/io/torch.h"

#define DIR "tests/golden/hf_torch/" /* written by torch.save() */

/* ---- What torch.save() writes --------------------------------------------------------------- */

static const struct dm_raw_tensor *find(const struct dm_torch *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (!strcmp(t->tensor[i].name, name))
            return t->tensor + i;
    fail_msg("no tensor %s", name);
    return NULL;
}

/* The tensor's elements in row-major order are `want`. */
static void assert_elements(const struct dm_torch *t, const char *name, size_t rows, size_t cols,
                            const float *want)
{
    const struct dm_raw_tensor *x = find(t, name);
    const size_t n = rows * (cols ? cols : 1);
    char raw[96];
    float got[24];
    assert_true(x->usable && x->rank == (cols ? 2 : 1) && x->dim[0] == rows);
    assert_true(!cols || x->dim[1] == cols);
    assert_int_equal(x->n_bytes, n * dm_dtype_size(x->dtype));
    if (x->strided)
        dm_raw_gather(raw, x);
    else if (n)
        memcpy(raw, x->data, x->n_bytes);
    dm_dtype_to_f32(got, raw, x->dtype, n);
    for (size_t i = 0; i < n; i++)
        assert_true(got[i] == want[i]);
}

static void test_offsets_strides_and_shared_storages_are_honoured(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_torch t = {0};
    assert_ok(dm_torch_open(&t, DIR "odd.bin", &e), e);
    assert_int_equal(t.n, 12);
    assert_elements(&t, "transposed", 3, 4, (float[]){0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11});
    assert_elements(&t, "slice", 6, 0, (float[]){5, 6, 7, 8, 9, 10});
    assert_elements(&t, "columns", 4, 3, (float[]){1, 2, 3, 7, 8, 9, 13, 14, 15, 19, 20, 21});
    assert_elements(&t, "every_second", 12, 0,
                    (float[]){0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22});
    assert_elements(&t, "parameter", 4, 0, (float[]){0, 1, 2, 3});
    assert_elements(&t, "b", 3, 0, (float[]){1.0f, -2.0f, 0.5f});
    assert_elements(&t, "one_row", 2, 3, (float[]){0, 1, 2, 0, 1, 2});
    assert_elements(&t, "empty", 0, 3, NULL);
    assert_true(find(&t, "parameter")->dtype == DM_F16 && find(&t, "b")->dtype == DM_BF16);
    assert_false(find(&t, "slice")->strided || find(&t, "parameter")->strided);
    static const char *const others[][2] = {
        {"mask", "BOOL"}, {"count", "I64"}, {"exact", "F64"}, {"bytes", "U8"}};
    for (size_t i = 0; i < 4; i++) {
        const struct dm_raw_tensor *x = find(&t, others[i][0]);
        assert_false(x->usable);
        assert_string_equal(x->type_name, others[i][1]);
    }
    dm_torch_close(&t);
}

static void test_what_is_no_flat_state_dict_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        enum dm_status st;
    } cases[] = {
        {"legacy.bin", "before 1.6", DM_EUNSUPPORTED},
        {"text.bin", "entry note is a string, want a tensor", DM_EUNSUPPORTED},
        {"function.bin", "asks for posix.system", DM_EUNSUPPORTED},
        {"model.safetensors.index.json", "no zip directory", DM_EFORMAT},
        {"nothing.bin", "cannot open", DM_EIO},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct dm_err e;
        struct dm_torch t = {0};
        char path[128];
        snprintf(path, sizeof(path), DIR "%s", cases[i].name);
        assert_int_equal(dm_torch_open(&t, path, &e), cases[i].st);
        if (!strstr(e.msg, cases[i].text) || !strstr(e.msg, cases[i].name))
            fail_msg("%s: %s", cases[i].name, e.msg);
        assert_null(t.map.data);
    }
}

/* ---- Pickles by hand ------------------------------------------------------------------------ */

struct bytes {
    const char *p;
    size_t n;
};
#define B(literal)                   \
    {                                \
        literal, sizeof(literal) - 1 \
    }

#define CAT(module, name) "c" module "\n" name "\n"
#define W "X\x01\0\0\0w"
#define STORAGE_OF(type, key, numel) \
    "(X\x07\0\0\0storage" CAT("torch", type) key "X\x03\0\0\0cpu" numel "tQ"
#define STORAGE                \
    STORAGE_OF("FloatStorage", \
               "X\x01\0\0\0"   \
               "0",            \
               "K\x06")
#define REBUILD CAT("torch._utils", "_rebuild_tensor_v2") "("
#define HOOKS "\x89" CAT("collections", "OrderedDict") ")R"
/* (2,3) from offset 0 */
#define TENSOR_WITH(offset, size, stride) REBUILD STORAGE offset size stride HOOKS "tR"
#define TENSOR TENSOR_WITH("K\0", "K\x02K\x03\x86", "K\x03K\x01\x86")
#define STATE(tensor) "\x80\x02}" W tensor "s."

enum zip_fault {
    ZIP_OK,
    ZIP_COMMENT,
    ZIP_64,
    DEFLATED,
    PACKED,
    ENCRYPTED,
    LOCAL_BEYOND,
    LOCAL_WRONG,
    OTHER_NAME,
    DATA_BEYOND,
    TWICE,
    TOO_MANY,
    DIR_OUTSIDE,
    DIR_DAMAGED,
    NAME_BYTE,
    NAME_LONG,
    VOLUMES,
    ZIP64_VOLUMES,
    ZIP64_NO_LOCATOR,
    ZIP64_NOWHERE,
    ZIP64_EXTRA_SHORT,
    BYTES_SWAPPED,
    NO_PICKLE,
    TWO_PICKLES
};

struct writer {
    uint8_t p[4096];
    size_t n;
};

static void put(struct writer *w, uint64_t x, int bytes)
{
    assert_true(w->n + (size_t)bytes <= sizeof(w->p));
    for (int i = 0; i < bytes; i++)
        w->p[w->n++] = (uint8_t)(i < 8 ? x >> 8 * i : 0);
}

static void put_bytes(struct writer *w, const void *p, size_t n)
{
    assert_true(w->n + n < sizeof(w->p));
    memcpy(w->p + w->n, p, n);
    w->n += n;
}

/* Entry i: <folder>/data.pkl, its storage 0, and what else the fault adds. */
struct entry {
    const char *name;
    struct bytes data;
    size_t local;
};

static void put_local(struct writer *w, struct entry *x, enum zip_fault fault)
{
    x->local = w->n;
    put(w, fault == LOCAL_WRONG ? 0x04034b51 : 0x04034b50, 4);
    put(w, 0, 2);
    put(w, 8, 2); // a data descriptor follows: the sizes here are 0
    put(w, 0, 18);
    put(w, strlen(x->name), 2);
    put(w, 3, 2); // padding
    put_bytes(w, x->name, strlen(x->name));
    if (fault == OTHER_NAME)
        w->p[w->n - 1] ^= 1;
    put_bytes(w, "FB", 3);
    put_bytes(w, x->data.p, x->data.n);
}

static void put_central(struct writer *w, const struct entry *x, enum zip_fault fault)
{
    const bool wide = fault == ZIP_64 || fault == ZIP64_EXTRA_SHORT;
    const size_t n = x->data.n + (fault == DATA_BEYOND ? 1000 : 0);
    put(w, fault == DIR_DAMAGED ? 7 : 0x02014b50, 4);
    put(w, 0, 4);
    put(w, fault == ENCRYPTED ? 1 : 8, 2);
    put(w, fault == DEFLATED ? 8 : 0, 2);
    put(w, 0, 8);
    put(w, wide ? UINT32_MAX : n - (fault == PACKED), 4);
    put(w, wide ? UINT32_MAX : n, 4);
    put(w, fault == NAME_LONG ? 4000 : strlen(x->name), 2);
    put(w, wide ? 4 + 24 : 0, 2);
    put(w, 0, 10);
    put(w, wide ? UINT32_MAX : x->local + (fault == LOCAL_BEYOND ? 3000 : 0), 4);
    put_bytes(w, x->name, strlen(x->name));
    if (fault == NAME_BYTE)
        w->p[w->n - 1] = 0x80;
    if (!wide)
        return;
    put(w, 1, 2);
    put(w, fault == ZIP64_EXTRA_SHORT ? 16 : 24, 2);
    put(w, n, 8);
    put(w, n, 8);
    put(w, x->local, 8);
}

static void put_end(struct writer *w, size_t n, size_t dir, enum zip_fault fault)
{
    const size_t bytes = w->n - dir, end64 = w->n;
    const bool wide = fault == ZIP_64 || fault == ZIP64_VOLUMES || fault == ZIP64_NOWHERE;
    if (wide) {
        put(w, 0x06064b50, 4);
        put(w, 44, 8);
        put(w, 0, 4);
        put(w, fault == ZIP64_VOLUMES ? 1 : 0, 8);
        put(w, n, 8);
        put(w, n, 8);
        put(w, bytes, 8);
        put(w, dir, 8);
        put(w, 0x07064b50, 4);
        put(w, 0, 4);
        put(w, end64 + (fault == ZIP64_NOWHERE), 8);
        put(w, 1, 4);
    }
    const bool saturated = wide || fault == ZIP64_NO_LOCATOR;
    put(w, 0x06054b50, 4);
    put(w, fault == VOLUMES ? 1 : 0, 4);
    put(w, n, 2);
    put(w, fault == TOO_MANY ? 9 : n, 2);
    if (fault == TOO_MANY)
        w->p[w->n - 4] = 9;
    put(w, saturated ? UINT32_MAX : bytes, 4);
    put(w, saturated ? UINT32_MAX : dir + (fault == DIR_OUTSIDE ? 2000 : 0), 4);
    put(w, fault == ZIP_COMMENT ? 5 : 0, 2);
    if (fault == ZIP_COMMENT)
        put_bytes(w, "hello", 5);
}

static void write_zip(const char *path, enum zip_fault fault, struct bytes pickle, size_t n_data)
{
    static const char zeros[64];
    struct writer w = {.n = 0};
    struct entry x[] = {{fault == NO_PICKLE ? "a/date.pkl" : "a/data.pkl", pickle, 0},
                        {"a/data/0", {zeros, n_data}, 0},
                        {"a/byteorder", B("big"), 0}};
    size_t n = 2;
    if (fault == TWICE || fault == TWO_PICKLES)
        x[n++] = (struct entry){fault == TWICE ? "a/data/0" : "b/data.pkl", {zeros, 4}, 0};
    if (fault == BYTES_SWAPPED)
        n++;
    for (size_t i = 0; i < n; i++)
        put_local(&w, x + i, fault);
    const size_t dir = w.n;
    for (size_t i = 0; i < n; i++)
        put_central(&w, x + i, fault);
    put_end(&w, n, dir, fault);
    write_scratch(path, w.p, w.n);
}

static void expect(const char *path, size_t i, enum dm_status want, const char *text)
{
    struct dm_err e = {""};
    struct dm_torch t = {0};
    const enum dm_status st = dm_torch_open(&t, path, &e);
    if (st != want || !strstr(e.msg, text))
        fail_msg("case %zu: status %d, %s", i, (int)st, e.msg);
    if (st) {
        assert_true(!t.map.data && !t.tensor && !t.names);
        return;
    }
    assert_int_equal(t.n, 1);
    assert_string_equal(t.tensor[0].name, "w");
    assert_true(t.tensor[0].rank == 2 && t.tensor[0].dim[0] == 2 && t.tensor[0].dim[1] == 3);
    dm_torch_close(&t);
}

static void test_each_kind_of_bad_zip_has_its_sentence(void **state)
{
    (void)state;
    static const struct {
        enum zip_fault fault;
        enum dm_status st;
        const char *text;
    } cases[] = {
        {ZIP_OK, DM_OK, ""},
        {ZIP_COMMENT, DM_OK, ""},
        {ZIP_64, DM_OK, ""},
        {DEFLATED, DM_EUNSUPPORTED, "a/data.pkl is compressed (method 8)"},
        {PACKED, DM_EUNSUPPORTED, "is compressed"},
        {ENCRYPTED, DM_EUNSUPPORTED, "is encrypted"},
        {LOCAL_BEYOND, DM_EFORMAT, "no local header"},
        {LOCAL_WRONG, DM_EFORMAT, "no local header"},
        {OTHER_NAME, DM_EFORMAT, "another name in its local header"},
        {DATA_BEYOND, DM_EFORMAT, "beyond the file's data"},
        {TWICE, DM_EFORMAT, "a/data/0 is there twice"},
        {TOO_MANY, DM_EFORMAT, "9 zip entries in a directory of"},
        {DIR_OUTSIDE, DM_EFORMAT, "directory lies outside"},
        {DIR_DAMAGED, DM_EFORMAT, "directory is damaged"},
        {NAME_BYTE, DM_EFORMAT, "byte 0x80"},
        {NAME_LONG, DM_EFORMAT, "directory is damaged"},
        {VOLUMES, DM_EUNSUPPORTED, "several volumes"},
        {ZIP64_VOLUMES, DM_EUNSUPPORTED, "several volumes"},
        {ZIP64_NO_LOCATOR, DM_EFORMAT, "zip64 end record is missing"},
        {ZIP64_NOWHERE, DM_EFORMAT, "not where it should be"},
        {ZIP64_EXTRA_SHORT, DM_EFORMAT, "damaged extra field"},
        {BYTES_SWAPPED, DM_EUNSUPPORTED, "byteorder is \"big\""},
        {NO_PICKLE, DM_EFORMAT, "a zip without /data.pkl"},
        {TWO_PICKLES, DM_EFORMAT, "two entries end in /data.pkl"},
    };
    static const struct bytes pickle = B(STATE(TENSOR));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_zip(tmp_path("z.bin"), cases[i].fault, pickle, 24);
        expect(tmp_path("z.bin"), i, cases[i].st, cases[i].text);
    }
    write_zip(tmp_path("z.bin"), ZIP_OK, pickle, 20);
    expect(tmp_path("z.bin"), 0, DM_EFORMAT, "w: a storage of 6 elements of F32 has 20 bytes");
}

static const struct {
    struct bytes pickle;
    enum dm_status st;
    const char *text;
} pickles[] = {
    {B("\x80\x02" CAT("collections", "OrderedDict") ")R(" W TENSOR "u."), DM_OK, ""},
    {B("\x80\x02}" W "q\x05"
       "0s."),
     DM_EUNSUPPORTED, "opcode 0x30 POP"},
    {B("\x80\x02}(" W CAT("torch._utils", "_rebuild_parameter") TENSOR
       "\x88" CAT("collections", "OrderedDict") ")R\x87Ru}b."),
     DM_OK, ""},
    {B("\x80\x02}r\x03\0\0\0" W TENSOR "s."), DM_OK, ""},
    {B("\x80\x02}" W TENSOR_WITH("\x8a\0", "K\x02K\x03\x86", "M\x03\0J\x01\0\0\0\x86") "s."), DM_OK,
     ""},
    // opcodes and names
    {B("\x80\x04}."), DM_EUNSUPPORTED, "protocol 4"},
    {B("\x80\x02" CAT("os", "system") "(X\x02\0\0\0idtR."), DM_EUNSUPPORTED, "os.system"},
    {B("\x80\x02" CAT("builtins", "eval") "."), DM_EUNSUPPORTED, "builtins.eval"},
    {B("\x80\x02" CAT("torch", "IntStorage") "."), DM_EUNSUPPORTED, "torch.IntStorage"},
    {B("\x80\x02" CAT("collections", "OrderedDictX") "."), DM_EUNSUPPORTED, "OrderedDictX"},
    {B("\x80\x02" CAT("o\x01s", "x") "."), DM_EFORMAT, "control characters"},
    {B("\x80\x02(ios\nsystem\n."), DM_EUNSUPPORTED, "0x69 INST"},
    {B("\x80\x02)\x81."), DM_EUNSUPPORTED, "0x81 NEWOBJ"},
    {B("\x80\x02\x8c\x02os\x8c\x06system\x93."), DM_EUNSUPPORTED, "0x8c"},
    {B("\x80\x02]."), DM_EUNSUPPORTED, "0x5d EMPTY_LIST"},
    {B("\xff"), DM_EUNSUPPORTED, "opcode 0xff"},
    // the end
    {B(""), DM_EFORMAT, "it has no end"},
    {B("\x80\x02}"), DM_EFORMAT, "it has no end"},
    {B("\x80"), DM_EFORMAT, "ends inside an opcode"},
    {B("\x80\x02X\xff\xff\xff\xffw"), DM_EFORMAT, "ends inside an opcode"},
    {B("\x80\x02X\x01"), DM_EFORMAT, "ends inside an opcode"},
    {B("\x80\x02"
       "ctorch\nHalf"),
     DM_EFORMAT, "a name has no end"},
    {B("\x80\x02}.x"), DM_EFORMAT, "left over"},
    {B("\x80\x02N}."), DM_EFORMAT, "left over"},
    // the stack
    {B("\x80\x02."), DM_EFORMAT, "no value"},
    {B("\x80\x02N."), DM_EFORMAT, "None where a dict should be"},
    {B("\x80\x02t."), DM_EFORMAT, "no mark"},
    {B("\x80\x02u."), DM_EFORMAT, "no mark"},
    {B("\x80\x02(NNu."), DM_EFORMAT, "what is no dict"},
    {B("\x80\x02}(Nu."), DM_EFORMAT, "a key without a value"},
    {B("\x80\x02Ns."), DM_EFORMAT, "too few"},
    {B("\x80\x02(NNs."), DM_EFORMAT, "what is no dict"},
    {B("\x80\x02}(Ns."), DM_EFORMAT, "too few"},
    {B("\x80\x02N\x87."), DM_EFORMAT, "too few"},
    {B("\x80\x02(N\x86."), DM_EFORMAT, "too few"},
    {B("\x80\x02}b."), DM_EFORMAT, "no value"},
    {B("\x80\x02N}b."), DM_EFORMAT, "a state for what is no dict"},
    {B("\x80\x02q\0."), DM_EFORMAT, "no value"},
    {B("\x80\x02}r\xff\xff\xff\xff."), DM_EFORMAT, "beyond all others"},
    {B("\x80\x02h\0."), DM_EFORMAT, "never put"},
    {B("\x80\x02}q\x02h\x01."), DM_EFORMAT, "never put"},
    {B("\x80\x02\x8a\x09"
       "123456789."),
     DM_EFORMAT, "more than 64 bits"},
    {B("\x80\x02}Q."), DM_EFORMAT, "a dict where a tuple should be"},
    {B("\x80\x02)Q."), DM_EFORMAT, "persistent id"},
    {B("\x80\x02))R."), DM_EFORMAT, "a tuple where a name should be"},
    // storages and tensors
    {B(STATE(REBUILD STORAGE_OF("FloatStorage",
                                "X\x02\0\0\0"
                                "..",
                                "K\x06") "K\0K\x02K\x03\x86"
                                         "K\x03K\x01\x86" HOOKS "tR")),
     DM_EFORMAT, "no entry for its storage .."},
    {B(STATE(REBUILD STORAGE_OF("FloatStorage", "X\x01\0\0\0\n", "K\x06") "tR")), DM_EFORMAT,
     "persistent id"},
    {B(STATE(REBUILD STORAGE_OF("HalfStorage",
                                "X\x01\0\0\0"
                                "0",
                                "K\x06") "K\0K\x02K\x03\x86"
                                         "K\x03K\x01\x86" HOOKS "tR")),
     DM_EFORMAT, "6 elements of F16 has 24 bytes"},
    {B(STATE(REBUILD STORAGE_OF("FloatStorage",
                                "X\x01\0\0\0"
                                "0",
                                "J\xff\xff\xff\xff") "tR")),
     DM_EFORMAT, "persistent id"},
    {B(STATE(TENSOR_WITH("K\x01", "K\x02K\x03\x86", "K\x03K\x01\x86"))), DM_EFORMAT,
     "beyond its storage"},
    {B(STATE(TENSOR_WITH("K\0", "K\x02K\x03\x86", "K\x04K\x01\x86"))), DM_EFORMAT,
     "beyond its storage"},
    {B(STATE(TENSOR_WITH("K\x07", "K\0K\x03\x86", "K\x04K\x01\x86"))), DM_EFORMAT,
     "beyond its storage"},
    {B(STATE(TENSOR_WITH("J\xff\xff\xff\xff", "K\x02K\x03\x86", "K\x03K\x01\x86"))), DM_EFORMAT,
     "arguments that _rebuild_tensor_v2 does not take"},
    {B(STATE(TENSOR_WITH("K\0", "K\x02J\xff\xff\xff\xff\x86", "K\x03K\x01\x86"))), DM_EFORMAT,
     "a size or stride that is none"},
    {B(STATE(TENSOR_WITH("K\0", "K\x02K\x03\x86",
                         "K\x03"
                         "J\xff\xff\xff\xff\x86"))),
     DM_EFORMAT, "a size or stride that is none"},
    {B(STATE(TENSOR_WITH("K\0", "K\x02K\x03\x86", "K\x03\x85"))), DM_EFORMAT,
     "not one stride for each"},
    {B(STATE(TENSOR_WITH("K\0", "\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x86",
                         "K\x08K\x08\x86"))),
     DM_EFORMAT, "overflows"},
    {B(STATE(TENSOR_WITH("K\0", "\x8a\x08\0\0\0\0\0\0\0\x40\x8a\x08\0\0\0\0\0\0\0\x40\x86",
                         "K\0K\0\x86"))),
     DM_EFORMAT, "shape of w overflows"},
    {B(STATE(REBUILD STORAGE "tR")), DM_EFORMAT, "does not take"},
    {B(STATE(CAT("torch._utils", "_rebuild_parameter") "N\x85R")), DM_EFORMAT,
     "a call with arguments"},
    {B(STATE(CAT("collections", "OrderedDict") "N\x85R")), DM_EFORMAT, "a call with arguments"},
    {B(STATE(CAT("torch", "FloatStorage") ")R")), DM_EFORMAT, "a call with arguments"},
    // the state_dict
    {B(STATE(STORAGE)), DM_EUNSUPPORTED, "entry w is a storage, want a tensor"},
    {B(STATE("}")), DM_EUNSUPPORTED, "entry w is a dict, want a tensor"},
    {B("\x80\x02}N" TENSOR "s."), DM_EFORMAT, "has no name"},
    {B("\x80\x02}X\0\0\0\0" TENSOR "s."), DM_EFORMAT, "has no name"},
    {B("\x80\x02}X\x02\0\0\0a\0" TENSOR "s."), DM_EFORMAT, "has no name"},
    {B("\x80\x02}(" W TENSOR W TENSOR "u."), DM_EFORMAT, "tensor w is there twice"},
};

static void test_each_kind_of_bad_pickle_has_its_sentence(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(pickles) / sizeof(pickles[0]); i++) {
        write_zip(tmp_path("p.bin"), ZIP_OK, pickles[i].pickle, 24);
        expect(tmp_path("p.bin"), i, pickles[i].st, pickles[i].text);
    }
}

static void test_an_endless_pickle_is_refused(void **state)
{
    (void)state;
    struct dm_err e;
    const size_t n = 3 << 20;
    char *p = malloc(n + 200);
    struct dm_torch t = {0};
    assert_non_null(p);
    // A zip whose pickle is one byte that the directory says is 3 MB long: data up to the
    // directory.
    struct writer w = {.n = 0}, dir = {.n = 0};
    struct entry x = {"a/data.pkl", {p, 0}, 0};
    put_local(&w, &x, ZIP_OK);
    x.data.n = n;
    put_central(&dir, &x, ZIP_OK);
    put_end(&dir, 1, 0, ZIP_OK);
    memcpy(p, w.p, w.n);
    memset(p + w.n, '(', n);
    memcpy(p + w.n + n, dir.p, dir.n);
    const size_t at = w.n + n, where = at + dir.n - 6;
    for (int i = 0; i < 4; i++)
        p[where + (size_t)i] = (char)(at >> 8 * i);
    write_scratch(tmp_path("long.bin"), p, at + dir.n);
    assert_int_equal(dm_torch_open(&t, tmp_path("long.bin"), &e), DM_EUNSUPPORTED);
    assert_non_null(strstr(e.msg, "a pickle of 3145728 bytes"));
    free(p);
}

/* ---- Damage --------------------------------------------------------------------------------- */

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    struct dm_err e;
    char *data;
    size_t n;
    assert_ok(dm_file_read(DIR "odd.bin", 1 << 20, &data, &n, &e), e);
    for (size_t keep = 0; keep < n; keep++) {
        struct dm_torch t = {0};
        write_scratch(tmp_path("cut.bin"), data, keep);
        assert_int_equal(dm_torch_open(&t, tmp_path("cut.bin"), &e), DM_EFORMAT);
    }
    free(data);
}

static void test_random_damage_never_crashes(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_rng r;
    char *data;
    size_t n, opened = 0;
    assert_ok(dm_file_read(DIR "odd.bin", 1 << 20, &data, &n, &e), e);
    dm_rng_init(&r, 12, 0);
    for (int i = 0; i < 4000; i++) {
        struct dm_torch t = {0};
        const size_t at = dm_rng_below(&r, n);
        const char old = data[at];
        data[at] = (char)dm_rng_u64(&r);
        write_scratch(tmp_path("dam.bin"), data, n);
        data[at] = old;
        if (dm_torch_open(&t, tmp_path("dam.bin"), &e))
            continue;
        opened++;
        for (size_t k = 0; k < t.n; k++) { // all that is offered can be read
            const struct dm_raw_tensor *x = t.tensor + k;
            char *copy = malloc(x->n_bytes + 1);
            assert_non_null(copy);
            if (x->strided && x->usable && x->rank > 0 && x->rank < 3)
                dm_raw_gather(copy, x);
            else if (!x->strided)
                memcpy(copy, x->data, x->n_bytes);
            free(copy);
        }
        dm_torch_close(&t);
    }
    assert_true(opened > 0 && opened < 4000);
    free(data);
}

static void test_short_memory_is_a_status(void **state)
{
    (void)state;
    struct dm_err e;
    enum dm_status st = DM_ENOMEM;
    for (size_t n = 1; st; n++) {
        struct dm_torch t = {0};
        assert_true(n < 1000);
        dm_alloc_fail_at(n);
        st = dm_torch_open(&t, DIR "odd.bin", &e);
        dm_alloc_fail_at(0);
        if (st && st != DM_ENOMEM)
            fail_msg("allocation %zu: status %d, %s", n, (int)st, e.msg);
        dm_torch_close(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offsets_strides_and_shared_storages_are_honoured),
        cmocka_unit_test(test_what_is_no_flat_state_dict_is_refused),
        cmocka_unit_test(test_each_kind_of_bad_zip_has_its_sentence),
        cmocka_unit_test(test_each_kind_of_bad_pickle_has_its_sentence),
        cmocka_unit_test(test_an_endless_pickle_is_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_random_damage_never_crashes),
        cmocka_unit_test(test_short_memory_is_a_status),
    };
    return cmocka_run_group_tests_name("torch", tests, NULL, NULL);
}
