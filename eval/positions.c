/* SPDX-License-Identifier: MIT */
#include "eval/positions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/decode/decoder.h"
#include "src/nn/xent.h"

size_t dm_pos_heads(const struct dm_model *m)
{
    return m->cfg.K < DM_ORDER_MAX ? m->cfg.K : DM_ORDER_MAX;
}

size_t dm_pos_per_window(size_t context, size_t n_heads)
{
    const size_t half = context / 2;
    return half && context >= half + n_heads ? context - half - n_heads + 1 : 0;
}

size_t dm_pos_start(size_t w, size_t windows, size_t context, size_t N)
{
    return windows < 2 ? 0 : (size_t)((double)(N - context) / (double)(windows - 1) * (double)w);
}

enum dm_status dm_pos_read(int32_t *ids, struct dm_shard *shard, size_t windows, size_t context,
                           struct dm_err *e)
{
    const size_t N = dm_shard_tokens(shard);
    if (context > N || windows > N / context)
        return dm_fail(e, DM_ERANGE, "%zu tokens are too few for %zu windows of %zu", N, windows,
                       context);
    for (size_t w = 0; w < windows; w++)
        DM_TRY(dm_shard_read(shard, ids + w * context, dm_pos_start(w, windows, context, N),
                             context, e));
    return DM_OK;
}

/* What a position needs. */
struct run {
    const struct dm_model *m;
    const struct dm_cooc *cooc;
    struct dm_gen_opt o; /* as given, but nothing passes */
    size_t n_heads;
    struct dm_session *session;
    struct dm_decoder decoder;
    struct dm_joint *joint; /* at temperature 1 */
    struct dm_cand cand[DM_ORDER_MAX];
    float *logits; /* (DM_LAYER_FEW,n_heads,Vp) */
};

static enum dm_status run_new(struct run *r, struct dm_err *e)
{
    const struct dm_config *c = &r->m->cfg;
    size_t n;
    if (!dm_mul(DM_LAYER_FEW * r->n_heads, c->Vp, &n) ||
        !(r->logits = dm_alloc(n, sizeof(*r->logits))))
        return dm_fail(e, DM_ENOMEM, "out of memory for the logits");
    DM_TRY(dm_session_new(&r->session, r->m, r->n_heads, e));
    DM_TRY(dm_decoder_init(&r->decoder, c->V, r->o.top_k, r->n_heads, e));
    return dm_joint_new(&r->joint, c->V, r->decoder.top_k, r->n_heads, e);
}

static void run_free(struct run *r)
{
    dm_joint_free(r->joint);
    dm_decoder_release(&r->decoder);
    dm_session_free(r->session);
    free(r->logits);
}

/* Position of an id among the candidates, or their number. */
static size_t find(const struct dm_cand *c, int32_t id)
{
    size_t i = 0;
    while (i < c->n && c->id[i] != id)
        i++;
    return i;
}

/* Each head alone; log_mass[n-1]: what head n gives to its candidates, cell[n-1]: which of them is
 * the target. */
static bool heads_alone(struct run *r, struct dm_pos *p, const float *logits, const int32_t *next,
                        double *log_mass, size_t *cell)
{
    const struct dm_config *c = &r->m->cfg;
    dm_xent_forward(p->logp, p->rank, logits, next, r->n_heads, c->Vp);
    for (size_t h = 0; h < r->n_heads; h++) {
        const float *row = logits + h * c->Vp;
        if (!dm_cand_select(&r->cand[h], row, c->V, r->decoder.top_k, 1) || !isfinite(p->logp[h]))
            return false;
        const double lse = (double)row[next[h]] - (double)p->logp[h],
                     top = (double)row[r->cand[h].id[0]] - lse;
        p->top[h] = (float)exp(top);
        cell[h] = find(&r->cand[h], next[h]);
        p->outside[h] = cell[h] == r->cand[h].n;
        log_mass[h] = top - log(r->cand[h].p[0]);
    }
    return true;
}

/* The masked probability of the next n targets. */
static void masked(struct run *r, struct dm_pos *p, size_t n, const double *log_mass,
                   const size_t *cell)
{
    double plain = 0, mass = 0;
    size_t at = 0;
    bool outside = false;
    for (size_t h = 0; h < n; h++) {
        plain += (double)p->logp[h];
        mass += log_mass[h];
        at = at * r->cand[h].n + cell[h];
        outside = outside || p->outside[h];
    }
    p->masked[n] = plain;
    if (n < 2 || outside || !r->cooc || !dm_joint_order(r->joint, n, 0))
        return;
    const double J = dm_joint_cell(r->joint, at);
    p->zero[n] = J == 0;
    p->masked[n] = log((1 - DM_POS_FLOOR) * J * exp(mass) + DM_POS_FLOOR * exp(plain));
}

/* What decoding would test. An order that passes nonetheless (one combination has everything) hides
 * the lower ones, which are then asked for again. */
static enum dm_status tested(struct run *r, struct dm_pos *p, int kind, const float *logits,
                             const int32_t *next, size_t pos, struct dm_err *e)
{
    const struct dm_cooc *cooc = kind == DM_POS_MASKED ? r->cooc : NULL;
    for (size_t n = r->n_heads; n > 1;) {
        struct dm_block b;
        DM_TRY(dm_decoder_step(&r->decoder, &r->o, cooc, logits, r->m->cfg.Vp, n, pos, &b, e));
        for (; n > 1 && b.order[n].tried; n--) {
            struct dm_pos_joint *j = &p->joint[kind][n];
            j->max = b.order[n].max;
            j->counts = b.order[n].counts;
            j->right = j->max > 0;
            for (size_t i = 0; i < n; i++)
                j->right = j->right && b.order[n].best[i] == next[i];
        }
    }
    return DM_OK;
}

static enum dm_status one_position(struct run *r, struct dm_pos *p, const float *logits,
                                   const int32_t *next, size_t pos, struct dm_err *e)
{
    double log_mass[DM_ORDER_MAX];
    size_t cell[DM_ORDER_MAX];
    *p = (struct dm_pos){0};
    if (!heads_alone(r, p, logits, next, log_mass, cell))
        return dm_fail(e, DM_ENAN, "the logits at position %zu of a window are not finite", pos);
    for (size_t n = 1; n <= r->n_heads; n++) {
        const struct dm_mask mask = {r->cooc, dm_gen_opt_alpha(&r->o, n), r->o.unseen, r->o.lambda};
        if (n > 1 && r->cooc)
            dm_joint_begin(r->joint, r->cand, n, &mask);
        masked(r, p, n, log_mass, cell);
    }
    DM_TRY(tested(r, p, DM_POS_PLAIN, logits, next, pos, e));
    if (r->cooc)
        return tested(r, p, DM_POS_MASKED, logits, next, pos, e);
    memcpy(p->joint[DM_POS_MASKED], p->joint[DM_POS_PLAIN], sizeof(p->joint[0]));
    return DM_OK;
}

/* The second half of a window, a few rows of logits at a time. */
static enum dm_status one_window(struct run *r, struct dm_pos *out, const int32_t *ids,
                                 size_t context, struct dm_err *e)
{
    const size_t row = r->n_heads * r->m->cfg.Vp, first = context / 2,
                 end = first + dm_pos_per_window(context, r->n_heads);
    dm_decoder_reset(&r->decoder);
    dm_decoder_add(&r->decoder, ids, first - 1);
    dm_session_reset(r->session, 0);
    if (first > 1)
        dm_session_step(r->session, ids, first - 1, r->logits);
    for (size_t pos = first; pos < end;) {
        const size_t n = end - pos < DM_LAYER_FEW ? end - pos : DM_LAYER_FEW;
        dm_session_step_rows(r->session, ids + pos - 1, n, n, r->logits);
        for (size_t i = 0; i < n; i++, pos++) {
            dm_decoder_add(&r->decoder, ids + pos - 1, 1);
            DM_TRY(one_position(r, out++, r->logits + i * row, ids + pos, pos, e));
        }
    }
    return DM_OK;
}

static enum dm_status check(const struct dm_model *m, const int32_t *ids, size_t windows,
                            size_t context, struct dm_err *e)
{
    const size_t Vp = m->cfg.Vp;
    if (context > m->cfg.T_max || !dm_pos_per_window(context, dm_pos_heads(m)))
        return dm_fail(e, DM_ERANGE, "a context of %zu tokens is not within %zu..%zu", context,
                       2 * dm_pos_heads(m) - (dm_pos_heads(m) > 1), m->cfg.T_max);
    for (size_t i = 0; i < windows * context; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= Vp)
            return dm_fail(e, DM_ERANGE, "token %zu is %d, expected 0 to %zu", i, ids[i], Vp - 1);
    return DM_OK;
}

enum dm_status dm_pos_run(struct dm_pos *out, const struct dm_model *m, const struct dm_cooc *cooc,
                          const struct dm_gen_opt *o, const int32_t *ids, size_t windows,
                          size_t context, dm_pos_fn *fn, void *ctx, struct dm_err *e)
{
    struct run r = {.m = m, .cooc = cooc, .o = *o, .n_heads = dm_pos_heads(m)};
    DM_TRY(check(m, ids, windows, context, e));
    r.o.mode = DM_GEN_DYNAMO;
    r.o.eps_b = nextafter(1, 0);
    r.o.trace = true;
    enum dm_status st = run_new(&r, e);
    const size_t per_window = dm_pos_per_window(context, r.n_heads);
    for (size_t w = 0; w < windows && !st; w++) {
        st = one_window(&r, out + w * per_window, ids + w * context, context, e);
        if (!st && fn && !fn(ctx, w + 1))
            st = dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    }
    run_free(&r);
    return st;
}

size_t dm_pos_tokens(const struct dm_pos *p, int kind, const struct dm_gen_opt *o, size_t n_heads)
{
    size_t n = o->eps_b < 1 ? n_heads : 1;
    while (n > 1 && !(p->joint[kind][n].counts > dm_gen_opt_level(o, n)))
        n--;
    return n;
}

double dm_pos_nll(const struct dm_pos *p, int kind, size_t n)
{
    double sum = 0;
    if (kind == DM_POS_MASKED)
        return -p->masked[n] / (double)n;
    for (size_t h = 0; h < n; h++)
        sum -= (double)p->logp[h];
    return sum / (double)n;
}
