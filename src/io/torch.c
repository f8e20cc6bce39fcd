/* SPDX-License-Identifier: MIT */
#include "src/io/torch.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/io/torch_pickle.h"
#include "src/io/torch_zip.h"

/* How torch.save() began until PyTorch 1.6: protocol 2, then the magic number as LONG1. */
static const uint8_t legacy[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c,
                                 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};
static const char pickle_name[] = "/data.pkl";

/* <folder>/data.pkl; a name has at most 65535 bytes. */
static enum dm_status find_pickle(const struct dm_zip *z, const char *path,
                                  const struct dm_zip_entry **out, struct dm_err *e)
{
    const size_t n = strlen(pickle_name);
    *out = NULL;
    for (size_t i = 0; i < z->n; i++) {
        const struct dm_zip_entry *x = z->entry + i;
        if (x->n_name < n || memcmp(x->name + x->n_name - n, pickle_name, n))
            continue;
        if (*out)
            return dm_fail(e, DM_EFORMAT, "%s: two entries end in %s", path, pickle_name);
        *out = x;
    }
    if (!*out)
        return dm_fail(e, DM_EFORMAT, "%s: a zip without %s: no PyTorch checkpoint", path,
                       pickle_name);
    return DM_OK;
}

/* *out = entry <folder>/<name><key>, NULL when it is not there. */
static enum dm_status find_beside(const struct dm_zip *z, const struct dm_zip_entry *pickle,
                                  const char *name, struct dm_text key, const char *path,
                                  const struct dm_zip_entry **out, struct dm_err *e)
{
    const size_t n_folder = pickle->n_name - strlen(pickle_name) + 1, n_name = strlen(name);
    char *full = dm_alloc(n_folder + n_name + key.n, 1);
    *out = NULL;
    if (!full)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    memcpy(full, pickle->name, n_folder);
    memcpy(full + n_folder, name, n_name);
    memcpy(full + n_folder + n_name, key.s, key.n);
    *out = dm_zip_find(z, full, n_folder + n_name + key.n);
    free(full);
    return DM_OK;
}

static bool in_a_row(const struct dm_pickle_tensor *p)
{
    size_t step = 1;
    for (size_t i = p->rank; i-- > 0;) {
        if (p->dim[i] != 1 && p->stride[i] != step)
            return false;
        step *= p->dim[i]; // cannot overflow: so far every element has its own place
    }
    return true;
}

/* p's name is already in t. */
static enum dm_status set_tensor(struct dm_raw_tensor *t, const struct dm_pickle_tensor *p,
                                 const struct dm_zip_entry *storage, const char *path,
                                 struct dm_err *e)
{
    size_t bytes, items = 1;
    if (!dm_mul(p->numel, p->type->size, &bytes) || bytes != storage->n)
        return dm_fail(e, DM_EFORMAT, "%s: %.100s: a storage of %zu elements of %s has %zu bytes",
                       path, t->name, p->numel, p->type->name, storage->n);
    t->type_name = p->type->name;
    t->usable = p->type->usable;
    t->dtype = p->type->dtype;
    t->rank = p->rank;
    t->strided = !in_a_row(p);
    t->data = storage->data + p->offset * p->type->size;
    for (size_t i = 0; i < p->rank; i++) {
        t->dim[i] = p->dim[i];
        t->stride[i] = p->stride[i];
        if (!dm_mul(items, p->dim[i], &items))
            return dm_fail(e, DM_EFORMAT, "%s: shape of %.100s overflows", path, t->name);
    }
    if (!dm_mul(items, p->type->size, &t->n_bytes))
        return dm_fail(e, DM_EFORMAT, "%s: shape of %.100s overflows", path, t->name);
    return DM_OK;
}

static enum dm_status copy_names(struct dm_torch *t, const struct dm_pickle_tensor *p, size_t n,
                                 const char *path, struct dm_err *e)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        bytes += p[i].name.n + 1; // different names, so less than the pickle's bytes
    t->names = dm_alloc(bytes, 1);
    t->tensor = dm_alloc(n, sizeof(*t->tensor));
    if (!t->names || !t->tensor)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu tensors", path, n);
    char *at = t->names;
    for (size_t i = 0; i < n; i++) {
        t->tensor[i].name = memcpy(at, p[i].name.s, p[i].name.n);
        at += p[i].name.n + 1;
    }
    t->n = n;
    return DM_OK;
}

/* ...with the list of the pickle, which the caller releases. */
static enum dm_status read_tensors(struct dm_torch *t, const struct dm_zip *z,
                                   const struct dm_zip_entry *pickle,
                                   const struct dm_pickle_tensor *p, size_t n, const char *path,
                                   struct dm_err *e)
{
    const struct dm_zip_entry *order, *storage;
    DM_TRY(find_beside(z, pickle, "byteorder", (struct dm_text){"", 0}, path, &order, e));
    if (order && (order->n != 6 || memcmp(order->data, "little", 6)))
        return dm_fail(e, DM_EUNSUPPORTED, "%s: byteorder is \"%.*s\", only little is read", path,
                       order->n > 20 ? 20 : (int)order->n, (const char *)order->data);
    DM_TRY(copy_names(t, p, n, path, e));
    for (size_t i = 0; i < n; i++) {
        DM_TRY(find_beside(z, pickle, "data/", p[i].key, path, &storage, e));
        if (!storage)
            return dm_fail(e, DM_EFORMAT, "%s: %.100s: no entry for its storage %.*s", path,
                           t->tensor[i].name, p[i].key.n > 100 ? 100 : (int)p[i].key.n, p[i].key.s);
        DM_TRY(set_tensor(t->tensor + i, p + i, storage, path, e));
    }
    return DM_OK;
}

static enum dm_status read_zip(struct dm_torch *t, const struct dm_zip *z, const char *path,
                               struct dm_err *e)
{
    const struct dm_zip_entry *pickle;
    struct dm_pickle_tensor *p;
    size_t n;
    DM_TRY(find_pickle(z, path, &pickle, e));
    DM_TRY(dm_pickle_read(&p, &n, pickle->data, pickle->n, path, e));
    const enum dm_status st = read_tensors(t, z, pickle, p, n, path, e);
    free(p);
    return st;
}

enum dm_status dm_torch_open(struct dm_torch *t, const char *path, struct dm_err *e)
{
    struct dm_zip z = {0};
    *t = (struct dm_torch){0};
    DM_TRY(dm_map_open(&t->map, path, e));
    enum dm_status st;
    if (t->map.n >= sizeof(legacy) && !memcmp(t->map.data, legacy, sizeof(legacy)))
        st = dm_fail(e, DM_EUNSUPPORTED,
                     "%s: the format of PyTorch before 1.6, which is not read; load it with "
                     "torch.load() and save it with torch.save() of a newer one",
                     path);
    else
        st = dm_zip_read(&z, &t->map, path, e);
    if (!st)
        st = read_zip(t, &z, path, e);
    dm_zip_release(&z);
    if (st)
        dm_torch_close(t);
    return st;
}

void dm_torch_close(struct dm_torch *t)
{
    free(t->tensor);
    free(t->names);
    dm_map_close(&t->map);
    *t = (struct dm_torch){0};
}
