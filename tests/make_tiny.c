/* SPDX-License-Identifier: MIT */
/* make_tiny TOKENIZER OUT.h5 K [CALIBRATION] - a model file with random weights for CLI tests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/io/tokenizer.h"
#include "src/model/file.h"

static void check(enum dm_status st, const struct dm_err *e)
{
    if (!st)
        return;
    fprintf(stderr, "make_tiny: %s\n", e->msg);
    exit(1);
}

/* Random weights of 0.02 give flat logits; the output embedding is scaled so that text varies but
 * is not uniform. */
static void fill(struct dm_model *m)
{
    dm_params_init_random(&m->params, &m->cfg, DM_SCOPE_ALL, 1);
    for (size_t i = 0; i < m->cfg.Vp * m->cfg.C; i++)
        m->params.unembed[i] *= 20;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    struct dm_err e;
    struct dm_tokenizer *t;
    struct dm_model m;
    check(dm_tokenizer_load(&t, argv[1], &e), &e);
    size_t n;
    struct dm_model_meta meta = {.tokenizer = strdup(dm_tokenizer_json(t, &n)),
                                 .provenance = strdup("{}"),
                                 .calibration = argc > 4 ? strdup(argv[4]) : NULL};
    const size_t V = dm_tokenizer_size(t);
    const struct dm_config c = {.Vp = (V + 63) / 64 * 64,
                                .V = V,
                                .C = 48,
                                .L = 3,
                                .NH = 3,
                                .HS = 16,
                                .F = 64,
                                .T_max = 256,
                                .rot = 4,
                                .rope_base = 10000,
                                .eps = 1e-5f,
                                .parallel = true,
                                .attn_bias = true,
                                .K = strtoul(argv[3], NULL, 10),
                                .D = 1,
                                .eos = dm_tokenizer_eos(t),
                                .dtype = DM_F32};
    check(dm_model_init(&m, &c, &e), &e);
    fill(&m);
    check(dm_model_save(&m, &meta, argv[2], NULL, DM_F32, DM_F32, &e), &e);
    dm_model_meta_release(&meta);
    dm_model_release(&m);
    dm_tokenizer_free(t);
    return 0;
}
