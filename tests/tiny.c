/* SPDX-License-Identifier: MIT */
#include "tests/tiny.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "tests/golden.h"
#include "tests/util.h"

struct dm_config tiny_config(void)
{
    return (struct dm_config){.Vp = TINY_VP,
                              .V = TINY_VP,
                              .C = 36,
                              .L = 3,
                              .NH = 3,
                              .HS = 12,
                              .F = 50,
                              .T_max = 24,
                              .rot = 6,
                              .rope_base = 10000.0,
                              .eps = 1e-5f,
                              .parallel = true,
                              .attn_bias = true,
                              .K = 3,
                              .D = 1,
                              .eos = 0};
}

void tiny_model(struct dm_model *m, const struct dm_config *c)
{
    struct dm_err e;
    assert_ok(dm_model_init(m, c, &e), e);
    golden_fill(&m->params, c, DM_SCOPE_ALL);
}

const int32_t tiny_ids[2 * TINY_T] = {5,  17, 3,  3,  44, 52, 0, 1, 29, 30, 8, 17, 3,
                                      11, 50, 51, 40, 2,  2,  2, 9, 33, 21, 7, 12, 5};

float *tiny_floats(size_t n)
{
    float *x = malloc(n * sizeof(*x));
    assert_non_null(x);
    return x;
}

float *tiny_logits(const struct dm_model *m, const int32_t *ids, size_t B, size_t T, size_t n)
{
    struct dm_err e;
    struct dm_pass *p;
    float *out = tiny_floats(B * T * m->cfg.Vp);
    assert_ok(dm_pass_new(&p, &m->cfg, DM_PASS_SCORE, B, T, &e), e);
    dm_pass_logits(p, m, ids, B, T, n, out);
    dm_pass_free(p);
    return out;
}

double tiny_lse(const float *x, size_t n)
{
    double max = -DBL_MAX, sum = 0.0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    return max + log(sum);
}
