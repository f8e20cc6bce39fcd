/* SPDX-License-Identifier: MIT */
#include "eval/heldout.h"

#include <math.h>

#include "src/base/json.h"

void dm_ppl_sum(struct dm_ppl *out, const struct dm_pos *p, size_t n, size_t n_heads)
{
    const double count = n ? (double)n : (double)NAN;
    *out = (struct dm_ppl){.positions = n, .n_heads = n_heads};
    for (size_t i = 0; i < n; i++) {
        bool outside = false;
        for (size_t h = 0; h < n_heads; h++) {
            outside = outside || p[i].outside[h];
            out->head[h] -= (double)p[i].logp[h];
            out->joint[h] += dm_pos_nll(&p[i], DM_POS_PLAIN, h + 1);
            out->masked[h] += dm_pos_nll(&p[i], DM_POS_MASKED, h + 1);
            out->outside[h] += p[i].outside[h];
            out->outside_joint[h] += outside;
            out->zero[h] += p[i].zero[h + 1];
        }
    }
    for (size_t h = 0; h < n_heads; h++) {
        out->head[h] = exp(out->head[h] / count);
        out->joint[h] = exp(out->joint[h] / count);
        out->masked[h] = exp(out->masked[h] / count);
        out->outside[h] /= count;
        out->outside_joint[h] /= count;
        out->zero[h] /= count;
    }
}

void dm_ppl_dynamic(struct dm_ppl_dynamic *out, const struct dm_pos *p, size_t n, size_t n_heads,
                    int kind, const struct dm_gen_opt *o)
{
    const double count = n ? (double)n : (double)NAN;
    *out = (struct dm_ppl_dynamic){.eps_b = o->eps_b, .kind = kind};
    for (size_t i = 0; i < n; i++) {
        const size_t tokens = dm_pos_tokens(&p[i], kind, o, n_heads);
        out->ppl += dm_pos_nll(&p[i], kind, tokens);
        out->tokens += (double)tokens;
        out->share[tokens - 1] += 1;
    }
    out->ppl = exp(out->ppl / count);
    out->tokens /= count;
    for (size_t h = 0; h < DM_ORDER_MAX; h++)
        out->share[h] /= count;
}

void dm_accuracy_sum(struct dm_accuracy *out, const struct dm_pos *p, size_t n, size_t n_heads)
{
    const double count = n ? (double)n : (double)NAN;
    *out = (struct dm_accuracy){.positions = n, .n_heads = n_heads};
    for (size_t i = 0; i < n; i++) {
        bool right = true;
        for (size_t h = 0; h < n_heads; h++) {
            right = right && p[i].rank[h] == 0;
            out->top1[h] += (p[i].rank[h] == 0) / count;
            out->top5[h] += (p[i].rank[h] < 5) / count;
            out->heads[h + 1] += right / count;
            for (int kind = 0; kind < DM_POS_KINDS; kind++)
                out->joint[kind][h + 1] += p[i].joint[kind][h + 1].right / count;
        }
    }
}

static json_t *numbers(const double *x, size_t n)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, dm_json_real(x[i]));
    return a;
}

json_t *dm_ppl_to_json(const struct dm_ppl *p, const struct dm_ppl_dynamic *dynamic,
                       size_t n_dynamic)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n_dynamic; i++)
        json_array_append_new(all, json_pack("{s:f, s:b, s:o, s:o, s:o}", "eps_b", dynamic[i].eps_b,
                                             "masked", dynamic[i].kind == DM_POS_MASKED, "ppl",
                                             dm_json_real(dynamic[i].ppl), "tokens",
                                             dm_json_real(dynamic[i].tokens), "shares",
                                             numbers(dynamic[i].share, DM_ORDER_MAX)));
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "positions",
                     (json_int_t)p->positions, "ppl", numbers(p->head, p->n_heads), "ppl_joint",
                     numbers(p->joint, p->n_heads), "ppl_joint_masked",
                     numbers(p->masked, p->n_heads), "outside", numbers(p->outside, p->n_heads),
                     "outside_joint", numbers(p->outside_joint, p->n_heads), "zero",
                     numbers(p->zero, p->n_heads), "dynamic", all);
}

json_t *dm_accuracy_to_json(const struct dm_accuracy *a)
{
    json_t *heads = json_array(), *blocks = json_array();
    for (size_t n = 1; n <= a->n_heads; n++) {
        json_array_append_new(heads, json_pack("{s:I, s:o, s:o}", "head", (json_int_t)n, "top1",
                                               dm_json_real(a->top1[n - 1]), "top5",
                                               dm_json_real(a->top5[n - 1])));
        if (n > 1)
            json_array_append_new(blocks,
                                  json_pack("{s:I, s:o, s:o, s:o}", "tokens", (json_int_t)n,
                                            "heads", dm_json_real(a->heads[n]), "joint",
                                            dm_json_real(a->joint[DM_POS_PLAIN][n]), "masked",
                                            dm_json_real(a->joint[DM_POS_MASKED][n])));
    }
    return json_pack("{s:I, s:o, s:o}", "positions", (json_int_t)a->positions, "heads", heads,
                     "blocks", blocks);
}
