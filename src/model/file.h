/* SPDX-License-Identifier: MIT */
/* file.h - model files: HDF5 with config, tokenizer, tensors, thresholds and provenance.
 *
 *   /            attributes format = "dynamo-model", version, made_by, provenance, config (JSON);
 *                and where they apply: tokenizer (tokenizer.json as it was), hf_config (config.json
 *                as it was), calibration (JSON), template (of prompts, JSON: src/io/template.h)
 *   /tensors/X   one dataset per tensor under its Hugging Face name, with dtype and sha256
 */
#ifndef DM_MODEL_FILE_H
#define DM_MODEL_FILE_H

#include "src/io/h5.h"
#include "src/model/model.h"

#define DM_MODEL_FORMAT "dynamo-model"
#define DM_MODEL_VERSION 1

/* What a model file holds beside the weights. Strings are heap; release with dm_model_meta_release.
 */
struct dm_model_meta {
    char *tokenizer;   /* tokenizer.json text or NULL */
    char *provenance;  /* JSON text */
    char *calibration; /* JSON text or NULL */
    char *hf_config;   /* text of the config.json that was imported, or NULL */
    char *template;    /* JSON text, NULL: not trained on instructions */
};
void dm_model_meta_release(struct dm_model_meta *meta);

/* DM_EMISMATCH unless the file `path`, made with the tokenizer of that hash, has the ids of
 * `model`, whose metadata this is; a model without a tokenizer is taken at its word. */
enum dm_status dm_model_check_tokenizer(const struct dm_model_meta *meta, const char *model,
                                        const char *hash, const char *path, struct dm_err *e);

/* Config and metadata alone. meta may be NULL. */
enum dm_status dm_model_peek(const char *path, struct dm_config *cfg, struct dm_model_meta *meta,
                             struct dm_err *e);

/* What to make of the weights. {0} is not the default: NULL is. */
struct dm_load_opt {
    /* enum dm_format of the products, or DM_FORMAT_AUTO. Heads that the file has in blocks beside a
     * base that it has not (dm_quantize) stay so, unless the format is a narrower one. */
    int format;
    bool masters;   /* keep all matrices in float32: params has everything, mats point to them
                     * without packs (dm_model_pack) */
    bool gradients; /* also pack_t of the output embedding: heads train through a frozen base.
                     * Not in int8 and int4 */
    /* K > 0 adds trainable heads 2..K to a file that has none (K = 1 in its config; DM_EUNSUPPORTED
     * otherwise): params.heads zeroed float32, mats.heads point to them without packs, in bf16
     * unless the format is f32. */
    size_t K, D;
    bool from_final;
    bool copy;  /* params.heads start as copies of the file's last D layers (D <= L) */
    bool heads; /* with K = 0: the file's own heads are held that way, to be trained further */
};
#define DM_FORMAT_AUTO (-1) /* int8, int4, bf16 as in the file; f32 for f32 and f16 files */
extern const char
    *const dm_load_formats[]; /* "auto", "f32", ..: entry i is format i - 1; then NULL */

/* From the config of the file `path` to that of the loaded model, which may have heads that the
 * file lacks. DM_EUNSUPPORTED, DM_ERANGE. */
enum dm_status dm_load_config(struct dm_config *c, const struct dm_load_opt *o, const char *path,
                              struct dm_err *e);

/* Loads a model; o NULL: for decoding and scoring, format auto. Without masters the matrices exist
 * as packs only: m->params holds vectors, its matrices (embeddings too) are NULL, and the input
 * embedding stays as in the file (m->mats.embed). Hashes and shapes are checked. meta may be NULL.
 */
enum dm_status dm_model_load(struct dm_model *m, const char *path, const struct dm_load_opt *o,
                             struct dm_model_meta *meta, struct dm_err *e);

/* Writes a model; base tensors in dtype `base`, heads in `heads`. When `base_file` is not NULL the
 * base's tensors are copied from there byte for byte instead (a frozen base never passes through a
 * conversion). By rename. */
enum dm_status dm_model_save(const struct dm_model *m, const struct dm_model_meta *meta,
                             const char *path, const char *base_file, enum dm_dtype base,
                             enum dm_dtype heads, struct dm_err *e);

/* Rewrites the file with another calibration (JSON text); everything else is copied as it is. */
enum dm_status dm_model_set_calibration(const char *path, const char *calibration,
                                        struct dm_err *e);

/* Hash of the model: SHA-256 over config and all tensor hashes, hex. Tokenizer, calibration and
 * provenance do not enter. */
enum dm_status dm_model_hash(const char *path, char hex[65], struct dm_err *e);

/* ---- Pieces, for those who write or read tensors one by one --------------------------------- */

/* The open file's config and metadata; meta may be NULL. */
enum dm_status dm_model_read_meta(struct dm_h5 *f, struct dm_config *cfg,
                                  struct dm_model_meta *meta, struct dm_err *e);
enum dm_status dm_model_write_meta(struct dm_h5 *f, const struct dm_config *cfg,
                                   const struct dm_model_meta *meta, struct dm_err *e);

/* All tensors of cfg, shapes only, as a heap array; release with free(). */
enum dm_status dm_model_tensors(const struct dm_config *cfg, struct dm_tensor **list, size_t *n,
                                struct dm_err *e);

/* Where a tensor lies in the file. */
void dm_model_tensor_path(char path[128], const struct dm_tensor *t);

/* Fails unless the file holds exactly the tensors of the list in their shapes. */
enum dm_status dm_model_check_tensors(struct dm_h5 *f, const struct dm_tensor *list, size_t n,
                                      struct dm_err *e);

/* Raw bytes of one tensor, verified against its hash; release with free(). */
enum dm_status dm_model_read_raw(struct dm_h5 *f, const struct dm_tensor *t, void **raw,
                                 enum dm_dtype *dtype, struct dm_err *e);

#endif
