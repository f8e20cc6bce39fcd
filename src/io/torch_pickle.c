/* SPDX-License-Identifier: MIT */
#include "src/io/torch_pickle.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"

/* Every opcode pushes at most one value, so a pickle bounds the memory that it asks for. */
enum { PICKLE_MAX = 2 << 20 };

enum kind { NONE, BOOL, INT, STR, TUPLE, DICT, GLOBAL, STORAGE, TENSOR };
static const char *const kinds[] = {"None",   "a bool", "an integer", "a string", "a tuple",
                                    "a dict", "a name", "a storage",  "a tensor"};

/* The names that a state_dict needs. The storages follow in their own table. */
enum { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, FIRST_STORAGE };
static const char *const globals[][2] = {{"collections", "OrderedDict"},
                                         {"torch._utils", "_rebuild_tensor_v2"},
                                         {"torch._utils", "_rebuild_parameter"}};
static const struct dm_storage_type storages[] = {
    {"HalfStorage", "F16", 2, true, DM_F16},       {"FloatStorage", "F32", 4, true, DM_F32},
    {"BFloat16Storage", "BF16", 2, true, DM_BF16}, {"ByteStorage", "U8", 1, false, 0},
    {"BoolStorage", "BOOL", 1, false, 0},          {"LongStorage", "I64", 8, false, 0},
    {"DoubleStorage", "F64", 8, false, 0}};
enum { N_STORAGES = sizeof(storages) / sizeof(storages[0]) };

struct value {
    enum kind kind;
    union {
        int64_t i; /* INT; GLOBAL: its number */
        struct dm_text str;
        struct {
            size_t first, n; /* in items */
        } tuple;
        size_t pairs; /* DICT: last pair + 1, 0 = none */
        size_t x;     /* STORAGE, TENSOR: in tensors; a storage is a tensor without a shape */
    } u;
};

/* Entries of a dict, linked from the last to the first. */
struct pair {
    size_t key, value, before; /* before: as pairs */
};

#define MARK SIZE_MAX

/* A growing array of elements of one size. */
struct list {
    void *p;
    size_t n, cap;
};

struct machine {
    const uint8_t *data;
    size_t n, at;
    const char *where;
    struct list values, stack, items, pairs, tensors, memo; /* stack, items, memo: of size_t */
    bool done;
};

static enum dm_status bad(const struct machine *m, struct dm_err *e, const char *what)
{
    return dm_fail(e, DM_EFORMAT, "%s: pickle, byte %zu: %s", m->where, m->at, what);
}

/* ---- Memory -------------------------------------------------------------------------------- */

static enum dm_status add(struct machine *m, struct list *l, const void *x, size_t size,
                          struct dm_err *e)
{
    if (l->n == l->cap) {
        const size_t cap = l->cap ? 2 * l->cap : 64;
        void *p = dm_realloc(l->p, cap, size);
        if (!p)
            return dm_fail(e, DM_ENOMEM, "%s: out of memory for its pickle", m->where);
        l->p = p;
        l->cap = cap;
    }
    memcpy((char *)l->p + l->n++ * size, x, size);
    return DM_OK;
}

static struct value *value_at(const struct machine *m, size_t i)
{
    return (struct value *)m->values.p + i;
}

static struct dm_pickle_tensor *tensor_at(const struct machine *m, size_t i)
{
    return (struct dm_pickle_tensor *)m->tensors.p + i;
}

static size_t index_at(const struct list *l, size_t i)
{
    return ((const size_t *)l->p)[i];
}

static enum dm_status push_index(struct machine *m, size_t i, struct dm_err *e)
{
    return add(m, &m->stack, &i, sizeof(i), e);
}

static enum dm_status push(struct machine *m, struct value v, struct dm_err *e)
{
    DM_TRY(add(m, &m->values, &v, sizeof(v), e));
    return push_index(m, m->values.n - 1, e);
}

static enum dm_status pop(struct machine *m, size_t *i, struct dm_err *e)
{
    *i = 0;
    if (!m->stack.n || index_at(&m->stack, m->stack.n - 1) == MARK)
        return bad(m, e, "the stack has no value");
    *i = index_at(&m->stack, --m->stack.n);
    return DM_OK;
}

static enum dm_status pop_kind(struct machine *m, enum kind want, struct value **v,
                               struct dm_err *e)
{
    size_t i;
    DM_TRY(pop(m, &i, e));
    *v = value_at(m, i);
    if ((*v)->kind != want)
        return dm_fail(e, DM_EFORMAT, "%s: pickle, byte %zu: %s where %s should be", m->where,
                       m->at, kinds[(*v)->kind], kinds[want]);
    return DM_OK;
}

/* The stack above the last mark: *first is its first index. The mark itself stays. */
static enum dm_status above_mark(const struct machine *m, size_t *first, struct dm_err *e)
{
    size_t i = m->stack.n;
    *first = 1;
    while (i && index_at(&m->stack, i - 1) != MARK)
        i--;
    if (!i)
        return bad(m, e, "the stack has no mark");
    *first = i;
    return DM_OK;
}

/* ---- Arguments ----------------------------------------------------------------------------- */

static enum dm_status take(struct machine *m, size_t n, const uint8_t **p, struct dm_err *e)
{
    *p = NULL;
    if (n > m->n - m->at)
        return bad(m, e, "it ends inside an opcode");
    *p = m->data + m->at;
    m->at += n;
    return DM_OK;
}

/* n bytes, little-endian. */
static enum dm_status take_uint(struct machine *m, size_t n, uint64_t *x, struct dm_err *e)
{
    const uint8_t *p;
    *x = 0;
    DM_TRY(take(m, n, &p, e));
    while (n--)
        *x = *x << 8 | p[n];
    return DM_OK;
}

static enum dm_status take_line(struct machine *m, struct dm_text *line, struct dm_err *e)
{
    const uint8_t *p = m->data + m->at, *end = memchr(p, '\n', m->n - m->at);
    *line = (struct dm_text){"", 0};
    if (!end)
        return bad(m, e, "a name has no end");
    *line = (struct dm_text){(const char *)p, (size_t)(end - p)};
    m->at += line->n + 1;
    return DM_OK;
}

static bool same(struct dm_text t, const char *s)
{
    return t.n == strlen(s) && !memcmp(t.s, s, t.n);
}

/* Whether a text can be a name in a sentence or a file: no control bytes, no NUL. */
static bool printable(struct dm_text t)
{
    for (size_t i = 0; i < t.n; i++)
        if ((unsigned char)t.s[i] < ' ' || t.s[i] == 0x7f)
            return false;
    return t.n > 0;
}

/* As much of a text as a sentence can take. */
static int shown(struct dm_text t)
{
    return t.n > 100 ? 100 : (int)t.n;
}

/* ---- Opcodes ------------------------------------------------------------------------------- */

static enum dm_status op_global(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    struct dm_text module, name;
    DM_TRY(take_line(m, &module, e));
    DM_TRY(take_line(m, &name, e));
    struct value v = {.kind = GLOBAL};
    for (int i = 0; i < FIRST_STORAGE; i++)
        if (same(module, globals[i][0]) && same(name, globals[i][1])) {
            v.u.i = i;
            return push(m, v, e);
        }
    for (int i = 0; same(module, "torch") && i < N_STORAGES; i++)
        if (same(name, storages[i].torch)) {
            v.u.i = FIRST_STORAGE + i;
            return push(m, v, e);
        }
    if (!printable(module) || !printable(name))
        return bad(m, e, "a name with control characters");
    return dm_fail(
        e, DM_EUNSUPPORTED,
        "%s: its pickle asks for %.*s.%.*s, which a plain state_dict of tensors does not "
        "need; it is refused",
        m->where, shown(module), module.s, shown(name), name.s);
}

static enum dm_status op_uint(struct machine *m, size_t bytes, struct dm_err *e)
{
    uint64_t x;
    DM_TRY(take_uint(m, bytes, &x, e));
    return push(m, (struct value){.kind = INT, .u.i = (int64_t)x}, e);
}

/* Two's complement. */
static enum dm_status op_int(struct machine *m, size_t bytes, struct dm_err *e)
{
    uint64_t x;
    if (bytes > 8)
        return bad(m, e, "an integer of more than 64 bits");
    DM_TRY(take_uint(m, bytes, &x, e));
    if (bytes && bytes < 8 && x >> (8 * bytes - 1))
        x |= UINT64_MAX << 8 * bytes;
    return push(m, (struct value){.kind = INT, .u.i = (int64_t)x}, e);
}

static enum dm_status op_long1(struct machine *m, size_t arg, struct dm_err *e)
{
    uint64_t bytes;
    DM_TRY(take_uint(m, arg, &bytes, e));
    return op_int(m, bytes, e);
}

/* None, an empty dict; which bool it is does not matter to a tensor. */
static enum dm_status op_simple(struct machine *m, size_t kind, struct dm_err *e)
{
    return push(m, (struct value){.kind = (enum kind)kind}, e);
}

static enum dm_status op_mark(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    return push_index(m, MARK, e);
}

static enum dm_status op_string(struct machine *m, size_t bytes, struct dm_err *e)
{
    uint64_t n;
    const uint8_t *p;
    DM_TRY(take_uint(m, bytes, &n, e));
    DM_TRY(take(m, n, &p, e));
    return push(m, (struct value){.kind = STR, .u.str = {(const char *)p, n}}, e);
}

/* The top n values become a tuple. */
static enum dm_status op_tuple(struct machine *m, size_t n, struct dm_err *e)
{
    struct value v = {.kind = TUPLE, .u.tuple = {m->items.n, n}};
    if (n > m->stack.n)
        return bad(m, e, "the stack has too few values");
    for (size_t i = m->stack.n - n; i < m->stack.n; i++) {
        const size_t x = index_at(&m->stack, i);
        if (x == MARK)
            return bad(m, e, "the stack has too few values");
        DM_TRY(add(m, &m->items, &x, sizeof(x), e));
    }
    m->stack.n -= n;
    return push(m, v, e);
}

static enum dm_status op_tuple_mark(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    size_t first;
    DM_TRY(above_mark(m, &first, e));
    DM_TRY(op_tuple(m, m->stack.n - first, e));
    // The tuple takes the mark's place.
    size_t *stack = m->stack.p;
    stack[first - 1] = stack[first];
    m->stack.n--;
    return DM_OK;
}

/* Pairs from stack index `first` on go into the dict below index `below`. */
static enum dm_status set_items(struct machine *m, size_t first, size_t below, struct dm_err *e)
{
    if (!below || index_at(&m->stack, below - 1) == MARK ||
        value_at(m, index_at(&m->stack, below - 1))->kind != DICT)
        return bad(m, e, "items are set on what is no dict");
    struct value *d = value_at(m, index_at(&m->stack, below - 1));
    if ((m->stack.n - first) % 2)
        return bad(m, e, "a key without a value");
    for (size_t i = first; i < m->stack.n; i += 2) {
        const struct pair p = {index_at(&m->stack, i), index_at(&m->stack, i + 1), d->u.pairs};
        if (p.key == MARK || p.value == MARK)
            return bad(m, e, "the stack has too few values");
        DM_TRY(add(m, &m->pairs, &p, sizeof(p), e));
        d->u.pairs = m->pairs.n;
    }
    m->stack.n = below;
    return DM_OK;
}

static enum dm_status op_setitems(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    size_t first;
    DM_TRY(above_mark(m, &first, e));
    return set_items(m, first, first - 1, e);
}

static enum dm_status op_setitem(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    if (m->stack.n < 3)
        return bad(m, e, "the stack has too few values");
    return set_items(m, m->stack.n - 2, m->stack.n - 2, e);
}

/* obj.__setstate__(state) of an OrderedDict: its attribute _metadata, of no use here. */
static enum dm_status op_build(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    struct value *v;
    size_t i;
    DM_TRY(pop_kind(m, DICT, &v, e));
    DM_TRY(pop(m, &i, e));
    if (value_at(m, i)->kind != DICT)
        return bad(m, e, "a state for what is no dict");
    return push_index(m, i, e);
}

static enum dm_status op_put(struct machine *m, size_t bytes, struct dm_err *e)
{
    uint64_t i;
    const size_t none = MARK;
    DM_TRY(take_uint(m, bytes, &i, e));
    if (!m->stack.n || index_at(&m->stack, m->stack.n - 1) == MARK)
        return bad(m, e, "the stack has no value");
    if (i > m->n) // pickle numbers its memos one by one
        return bad(m, e, "a memo with a number beyond all others");
    while (m->memo.n <= i)
        DM_TRY(add(m, &m->memo, &none, sizeof(none), e));
    ((size_t *)m->memo.p)[i] = index_at(&m->stack, m->stack.n - 1);
    return DM_OK;
}

static enum dm_status op_get(struct machine *m, size_t bytes, struct dm_err *e)
{
    uint64_t i;
    DM_TRY(take_uint(m, bytes, &i, e));
    if (i >= m->memo.n || index_at(&m->memo, i) == MARK)
        return bad(m, e, "a memo that was never put");
    return push_index(m, index_at(&m->memo, i), e);
}

/* ---- Tensors ------------------------------------------------------------------------------- */

/* Item i of a tuple, NULL if it is of another kind or not there. */
static struct value *item(const struct machine *m, const struct value *t, size_t i, enum kind want)
{
    if (t->kind != TUPLE || i >= t->u.tuple.n)
        return NULL;
    struct value *v = value_at(m, index_at(&m->items, t->u.tuple.first + i));
    return v->kind == want ? v : NULL;
}

/* ('storage', type, key, location, numel) */
static enum dm_status op_persid(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    struct value *id;
    DM_TRY(pop_kind(m, TUPLE, &id, e));
    const struct value *tag = item(m, id, 0, STR), *type = item(m, id, 1, GLOBAL);
    const struct value *key = item(m, id, 2, STR), *numel = item(m, id, 4, INT);
    if (id->u.tuple.n != 5 || !tag || !same(tag->u.str, "storage") || !type ||
        type->u.i < FIRST_STORAGE || !key || !printable(key->u.str) || !item(m, id, 3, STR) ||
        !numel || numel->u.i < 0)
        return bad(m, e, "a persistent id that is not ('storage', type, key, location, numel)");
    const struct dm_pickle_tensor t = {.key = key->u.str,
                                       .type = storages + (type->u.i - FIRST_STORAGE),
                                       .numel = (size_t)numel->u.i};
    DM_TRY(add(m, &m->tensors, &t, sizeof(t), e));
    return push(m, (struct value){.kind = STORAGE, .u.x = m->tensors.n - 1}, e);
}

/* Sizes and strides, and that the last element lies within the storage. */
static enum dm_status set_shape(struct machine *m, struct dm_pickle_tensor *t,
                                const struct value *size, const struct value *stride,
                                struct dm_err *e)
{
    size_t end = t->offset, step;
    bool empty = false;
    t->rank = size->u.tuple.n;
    if (t->rank > DM_RAW_RANK_MAX || stride->u.tuple.n != t->rank)
        return bad(m, e, "a tensor with more than 8 axes, or not one stride for each");
    for (size_t i = 0; i < t->rank; i++) {
        const struct value *d = item(m, size, i, INT), *s = item(m, stride, i, INT);
        if (!d || !s || d->u.i < 0 || s->u.i < 0)
            return bad(m, e, "a size or stride that is none");
        t->dim[i] = (size_t)d->u.i;
        t->stride[i] = (size_t)s->u.i;
        empty |= !t->dim[i];
        if (t->dim[i] && (!dm_mul(t->dim[i] - 1, t->stride[i], &step) || !dm_add(end, step, &end)))
            return bad(m, e, "a tensor whose size overflows");
    }
    if (empty ? t->offset > t->numel : end >= t->numel)
        return bad(m, e, "a tensor that reaches beyond its storage");
    return DM_OK;
}

/* torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])
 */
static enum dm_status rebuild_tensor(struct machine *m, const struct value *args, struct dm_err *e)
{
    const struct value *storage = item(m, args, 0, STORAGE), *offset = item(m, args, 1, INT);
    const struct value *size = item(m, args, 2, TUPLE), *stride = item(m, args, 3, TUPLE);
    if (args->u.tuple.n < 6 || args->u.tuple.n > 7 || !storage || !offset || offset->u.i < 0 ||
        !size || !stride)
        return bad(m, e, "arguments that _rebuild_tensor_v2 does not take");
    struct dm_pickle_tensor t = *tensor_at(m, storage->u.x);
    t.offset = (size_t)offset->u.i;
    DM_TRY(set_shape(m, &t, size, stride, e));
    DM_TRY(add(m, &m->tensors, &t, sizeof(t), e));
    return push(m, (struct value){.kind = TENSOR, .u.x = m->tensors.n - 1}, e);
}

static enum dm_status op_reduce(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    struct value *args, *fn;
    DM_TRY(pop_kind(m, TUPLE, &args, e));
    DM_TRY(pop_kind(m, GLOBAL, &fn, e));
    if (fn->u.i == REBUILD_TENSOR)
        return rebuild_tensor(m, args, e);
    if (fn->u.i == ORDERED_DICT && !args->u.tuple.n)
        return push(m, (struct value){.kind = DICT}, e);
    // (tensor, requires_grad, hooks) is the tensor.
    if (fn->u.i == REBUILD_PARAMETER && args->u.tuple.n == 3 && item(m, args, 0, TENSOR))
        return push_index(m, index_at(&m->items, args->u.tuple.first), e);
    return bad(m, e, "a call with arguments that it does not take");
}

/* ---- The machine --------------------------------------------------------------------------- */

static enum dm_status op_proto(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    uint64_t version;
    DM_TRY(take_uint(m, 1, &version, e));
    if (version != 2)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: pickle protocol %d, torch.save() writes 2",
                       m->where, (int)version);
    return DM_OK;
}

static enum dm_status op_stop(struct machine *m, size_t arg, struct dm_err *e)
{
    (void)arg;
    (void)e;
    m->done = true;
    return DM_OK;
}

static const struct {
    enum dm_status (*run)(struct machine *m, size_t arg, struct dm_err *e);
    size_t arg;
} opcodes[256] = {
    [0x80] = {op_proto, 0},     ['c'] = {op_global, 0},     [')'] = {op_tuple, 0},
    [0x85] = {op_tuple, 1},     [0x86] = {op_tuple, 2},     [0x87] = {op_tuple, 3},
    ['t'] = {op_tuple_mark, 0}, ['('] = {op_mark, 0},       ['}'] = {op_simple, DICT},
    ['N'] = {op_simple, NONE},  [0x88] = {op_simple, BOOL}, [0x89] = {op_simple, BOOL},
    ['X'] = {op_string, 4},     ['q'] = {op_put, 1},        ['r'] = {op_put, 4},
    ['h'] = {op_get, 1},        ['j'] = {op_get, 4},        ['K'] = {op_uint, 1},
    ['M'] = {op_uint, 2},       ['J'] = {op_int, 4},        [0x8a] = {op_long1, 1},
    ['Q'] = {op_persid, 0},     ['R'] = {op_reduce, 0},     ['s'] = {op_setitem, 0},
    ['u'] = {op_setitems, 0},   ['b'] = {op_build, 0},      ['.'] = {op_stop, 0}};

/* What pickle calls some that are refused, for the sentence. */
static const char *const refused[256] = {
    ['0'] = " POP",           ['2'] = " DUP",      ['P'] = " PERSID",     ['i'] = " INST",
    ['o'] = " OBJ",           ['G'] = " BINFLOAT", [']'] = " EMPTY_LIST", ['a'] = " APPEND",
    ['e'] = " APPENDS",       [0x81] = " NEWOBJ",  [0x82] = " EXT1",      [0x92] = " NEWOBJ_EX",
    [0x93] = " STACK_GLOBAL", [0x94] = " MEMOIZE", [0x95] = " FRAME"};

static enum dm_status step(struct machine *m, uint8_t op, struct dm_err *e)
{
    if (opcodes[op].run)
        return opcodes[op].run(m, opcodes[op].arg, e);
    return dm_fail(e, DM_EUNSUPPORTED,
                   "%s: pickle, byte %zu: opcode 0x%02x%s, which a plain state_dict of tensors "
                   "does not need; it is refused",
                   m->where, m->at - 1, op, refused[op] ? refused[op] : "");
}

static int by_name(const void *a, const void *b)
{
    const struct dm_text x = ((const struct dm_pickle_tensor *)a)->name;
    const struct dm_text y = ((const struct dm_pickle_tensor *)b)->name;
    const int order = memcmp(x.s, y.s, x.n < y.n ? x.n : y.n);
    return order ? order : (x.n > y.n) - (x.n < y.n);
}

/* The state_dict's tensors under their names. */
static enum dm_status collect(struct machine *m, struct dm_pickle_tensor **out, size_t *n_out,
                              struct dm_err *e)
{
    struct value *dict;
    size_t n = 0;
    const struct pair *pairs = m->pairs.p;
    DM_TRY(pop_kind(m, DICT, &dict, e));
    if (m->stack.n || m->at != m->n)
        return bad(m, e, "something is left over after its end");
    for (size_t p = dict->u.pairs; p; p = pairs[p - 1].before)
        n++;
    *out = dm_alloc(n, sizeof(**out));
    if (!*out)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tensors", m->where, n);
    for (size_t p = dict->u.pairs; p; p = pairs[p - 1].before) {
        const struct value *key = value_at(m, pairs[p - 1].key);
        const struct value *v = value_at(m, pairs[p - 1].value);
        if (key->kind != STR || !printable(key->u.str))
            return bad(m, e, "an entry of the state_dict that has no name");
        if (v->kind != TENSOR)
            return dm_fail(e, DM_EUNSUPPORTED, "%s: entry %.*s is %s, want a tensor", m->where,
                           shown(key->u.str), key->u.str.s, kinds[v->kind]);
        struct dm_pickle_tensor *t = *out + (*n_out)++;
        *t = *tensor_at(m, v->u.x);
        t->name = key->u.str;
    }
    qsort(*out, n, sizeof(**out), by_name);
    for (size_t i = 1; i < n; i++)
        if (!by_name(*out + i - 1, *out + i))
            return dm_fail(e, DM_EFORMAT, "%s: tensor %.*s is there twice", m->where,
                           shown(out[0][i].name), out[0][i].name.s);
    return DM_OK;
}

enum dm_status dm_pickle_read(struct dm_pickle_tensor **out, size_t *n_out, const uint8_t *data,
                              size_t n, const char *where, struct dm_err *e)
{
    struct machine m = {.data = data, .n = n, .where = where};
    enum dm_status st = DM_OK;
    *out = NULL;
    *n_out = 0;
    if (n > PICKLE_MAX)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: a pickle of %zu bytes, at most %d are read", where,
                       n, PICKLE_MAX);
    while (!st && !m.done) {
        if (m.at == n)
            st = bad(&m, e, "it has no end");
        else
            st = step(&m, data[m.at++], e);
    }
    if (!st)
        st = collect(&m, out, n_out, e);
    if (st) {
        free(*out);
        *out = NULL;
    }
    struct list *const lists[] = {&m.values, &m.stack, &m.items, &m.pairs, &m.tensors, &m.memo};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        free(lists[i]->p);
    return st;
}
