/* SPDX-License-Identifier: MIT */
/* hf_weights.h - the weights of a Hugging Face directory: one file, or the shards that an index
 * lists; safetensors or PyTorch's. The index is not trusted: its files must lie in the directory,
 * and it must place each tensor exactly where it is. A tensor that is there under both of its names
 * is refused. */
#ifndef DM_MODEL_HF_WEIGHTS_H
#define DM_MODEL_HF_WEIGHTS_H

#include <jansson.h>

#include "src/io/safetensors.h"
#include "src/io/torch.h"

struct dm_hf_file {
    char *path;
    bool torch;
    struct dm_safetensors st;
    struct dm_torch pt; /* if torch */
};

struct dm_hf_found {
    const struct dm_raw_tensor *t;
    const char *path; /* of its file */
};

/* Zero it first. Tensors are sorted by name. */
struct dm_hf_weights {
    char *path; /* of the file or index */
    struct dm_hf_file *file;
    size_t n_files;
    struct dm_hf_found *tensor;
    size_t n;
};

/* Which of model.safetensors, its index, pytorch_model.bin, its index the directory has, in this
 * order (that of transformers); DM_EIO: none. */
enum dm_status dm_hf_weights_name(const char **name, const char *dir, struct dm_err *e);

/* Opens `name` in dir: an index if it ends in .index.json, PyTorch's if it begins with
 * pytorch_model.bin. Appends names and hashes of the files read to `inputs`. Close after a failure
 * too. */
enum dm_status dm_hf_weights_open(struct dm_hf_weights *w, const char *dir, const char *name,
                                  json_t *inputs, struct dm_err *e);
void dm_hf_weights_close(struct dm_hf_weights *w);

/* What the published files call a tensor that has this name in a file: lm_head.weight, as the
 * state_dict of transformers 5 has it, is embed_out.weight. */
const char *dm_hf_weights_canonical(const char *name);

/* By the published name, under whichever name it is there; NULL = not there. */
const struct dm_hf_found *dm_hf_weights_find(const struct dm_hf_weights *w, const char *name);

#endif
