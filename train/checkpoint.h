/* SPDX-License-Identifier: MIT */
/* checkpoint.h - everything that a run needs to go on as if it had never stopped, in one file.
 *
 *   /          attributes format = "dynamo-checkpoint", version, state (JSON), and, written last,
 *              manifest (JSON): the SHA-256 of the state and of every tensor
 *   /params/X  parameters of the trained scope, /m/X and /v/X AdamW's moments; float32
 *   /grad/X, /batch   only in a file for replay: gradients and ids (B,T) of the step that follows
 *
 * The learning rate and the order of the data are functions of (options, seed, step, position), and
 * no other random numbers are drawn while training, so no generator state is kept. */
#ifndef DM_TRAIN_CHECKPOINT_H
#define DM_TRAIN_CHECKPOINT_H

#include <jansson.h>

#include "train/adamw.h"

struct dm_checkpoint {
    uint64_t step;  /* batches done; AdamW's own count, a->t, leaves out those that were skipped */
    uint64_t drawn; /* training sequences used: the number of the next one (loader.h) */
    double best;    /* smallest validation loss so far, at step best_step (0 = none yet) */
    uint64_t best_step;
    json_t *guard; /* what dm_guard_json() gave, or NULL */
    json_t *run;   /* object: the command, its options, its inputs' hashes, the model's config */
};
void dm_checkpoint_release(struct dm_checkpoint *c); /* the JSON; a zeroed one is fine */

/* Writes the state and the slots of `a` by rename: on failure an older file is untouched. DM_EIO
 * also when the file system has less room than the file will take. */
enum dm_status dm_checkpoint_save(const char *path, const struct dm_checkpoint *c,
                                  const struct dm_adamw *a, struct dm_err *e);
/* Bytes of a file for n_total parameters, within 1 MB. */
size_t dm_checkpoint_bytes(size_t n_total);

/* The same with the gradients in `a` and the batch ids (B,T) that they belong to. */
enum dm_status dm_checkpoint_save_replay(const char *path, const struct dm_checkpoint *c,
                                         const struct dm_adamw *a, const int32_t *ids, size_t B,
                                         size_t T, struct dm_err *e);
/* Reads them back: gradients into `a`, ids (B,T). DM_EFORMAT when the file is none for replay. */
enum dm_status dm_checkpoint_load_replay(struct dm_adamw *a, int32_t *ids, size_t B, size_t T,
                                         const char *path, struct dm_err *e);

/* Reads and checks the state alone. Release with dm_checkpoint_release(). DM_EFORMAT for a file
 * whose manifest is missing or does not agree. */
enum dm_status dm_checkpoint_peek(struct dm_checkpoint *c, const char *path, struct dm_err *e);

/* Reads parameters and moments into the slots of `a` and sets a->t. Every tensor is checked against
 * the manifest; DM_EFORMAT or DM_ESHAPE when one is missing, damaged or of another shape, and the
 * contents of the slots are then undefined. */
enum dm_status dm_checkpoint_load(struct dm_adamw *a, const char *path, struct dm_err *e);

#endif
