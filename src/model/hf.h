/* SPDX-License-Identifier: MIT */
/* hf.h - Hugging Face GPTNeoX directories in and out.
 *
 *   config.json                 kept as it is; a model with heads adds the key "dynamo"
 *   tokenizer.json              kept as it is
 *   model.safetensors           the base, as GPTNeoXForCausalLM reads it; import also takes what
 *                               hf_weights.h lists
 *   dynamo_heads.safetensors    the extra heads, if there are any
 */
#ifndef DM_MODEL_HF_H
#define DM_MODEL_HF_H

#include "src/model/file.h"

/* Imports directory `dir` into the model file `path`. Every tensor keeps its dtype and bits; what
 * the config does not call for is an error, except attention.bias, attention.masked_bias and
 * attention.rotary_emb.inv_freq of a layer, which follow from it. Without `tokenizer` no
 * tokenizer.json is read, and every row of the vocabulary may be sampled. The provenance records
 * argv and the hashes of the files read. */
enum dm_status dm_hf_import(const char *dir, const char *path, bool tokenizer, int argc,
                            char *const *argv, struct dm_err *e);

/* Writes the model file `path` into `dir`, which is made if it is not there. Existing files are
 * refused before anything is written unless `force`. */
enum dm_status dm_hf_export(const char *path, const char *dir, bool force, struct dm_err *e);

/* dir + "/" + name on the heap; release with free(); NULL when out of memory. */
char *dm_hf_path(const char *dir, const char *name);

#define DM_HF_CONFIG "config.json"
#define DM_HF_TOKENIZER "tokenizer.json"
#define DM_HF_BASE "model.safetensors"
#define DM_HF_HEADS "dynamo_heads.safetensors"
#define DM_HF_SUMS \
    "SHA256SUMS" /* of the other files, as sha256sum writes and fetch-pythia leaves it */

#endif
