/* SPDX-License-Identifier: MIT */
#include "train/replay.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/base/par.h"
#include "train/checkpoint.h"

typedef char hash_text[DM_HASH_LEN + 1];

static void hash_gradients(hash_text *hash, const struct dm_adamw *a)
{
    for (size_t i = 0; i < a->n_slots; i++)
        dm_sha256(a->slot[i].g, a->slot[i].n * sizeof(float), hash[i]);
}

static json_t *tensor(const struct dm_adamw_slot *s, bool same)
{
    double most = 0.0;
    for (size_t i = 0; i < s->n; i++)
        most = fmax(most, fabs((double)s->g[i]));
    const double norm = sqrt(dm_par_sum_squares(s->g, s->n));
    return json_pack("{s:s, s:o, s:o, s:b}", "name", s->name, "norm", dm_json_real(norm), "max",
                     dm_json_real(isfinite(norm) ? most : NAN), "same", same);
}

static json_t *describe(const struct dm_step *s, const hash_text *was, const hash_text *is,
                        size_t step)
{
    json_t *loss = json_object(), *tensors = json_array();
    bool all = true;
    char key[24];
    for (size_t n = 1; n <= s->model->cfg.K; n++) {
        snprintf(key, sizeof(key), "%zu", n);
        json_object_set_new(loss, key, dm_json_real(s->loss[n - 1]));
    }
    for (size_t i = 0; i < s->adam.n_slots; i++) {
        const bool same = !strcmp(was[i], is[i]);
        all = all && same;
        json_array_append_new(tensors, tensor(&s->adam.slot[i], same));
    }
    return json_pack("{s:I, s:o, s:o, s:b, s:b, s:o}", "step", (json_int_t)step, "loss", loss,
                     "norm", dm_json_real(s->norm), "same", all, "finite", isfinite(s->norm),
                     "tensors", tensors);
}

enum dm_status dm_replay(json_t **out, struct dm_step *s, const char *path, size_t step,
                         int32_t *ids, size_t B, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    hash_text *was = dm_alloc(s->adam.n_slots, sizeof(*was));
    hash_text *is = dm_alloc(s->adam.n_slots, sizeof(*is));
    *out = NULL;
    if (!was || !is) {
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        goto done;
    }
    DM_TRY_GOTO(dm_checkpoint_load_replay(&s->adam, ids, B, s->opt.T, path, e));
    hash_gradients(was, &s->adam);
    dm_step_drop(s);
    st = dm_step_gradients(s, ids, B, e);
    if (st && st != DM_ENAN)
        goto done;
    st = DM_OK;
    hash_gradients(is, &s->adam);
    *out = describe(s, was, is, step);
    dm_step_drop(s);
    if (!*out)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
done:
    free(was);
    free(is);
    return st;
}
