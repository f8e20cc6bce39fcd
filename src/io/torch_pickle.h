/* SPDX-License-Identifier: MIT */
/* torch_pickle.h - the pickle inside a PyTorch checkpoint, read as data: a stack machine for the
 * few opcodes that torch.save() writes for a state_dict. Nothing is called or imported; globals are
 * names from a fixed list, and every other name or opcode is refused. */
#ifndef DM_IO_TORCH_PICKLE_H
#define DM_IO_TORCH_PICKLE_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"
#include "src/io/raw_tensor.h"

/* A text inside the pickle, not NUL-terminated. */
struct dm_text {
    const char *s;
    size_t n;
};

/* torch's storages by what safetensors calls their elements. */
struct dm_storage_type {
    const char *torch; /* "HalfStorage" */
    const char *name;  /* "F16" */
    size_t size;       /* bytes of an element */
    bool usable;
    enum dm_dtype dtype;
};

struct dm_pickle_tensor {
    struct dm_text name;
    struct dm_text key; /* the storage's, below data/ */
    const struct dm_storage_type *type;
    size_t numel, offset; /* elements of the storage, and of it before the tensor */
    size_t rank, dim[DM_RAW_RANK_MAX], stride[DM_RAW_RANK_MAX];
};

/* The tensors of a flat state_dict sorted by name, heap memory; release with free(). `where` names
 * the file for sentences. DM_EFORMAT: malformed, or a name twice; DM_EUNSUPPORTED: an opcode,
 * global or object that is not on the list. That a tensor lies within its storage of numel elements
 * is checked here, that the storage is as long as it says is for the caller to check. */
enum dm_status dm_pickle_read(struct dm_pickle_tensor **out, size_t *n_out, const uint8_t *data,
                              size_t n, const char *where, struct dm_err *e);

#endif
