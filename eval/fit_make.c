/* SPDX-License-Identifier: MIT */
#include "eval/fit_make.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/judge.h"
#include "src/base/arena.h"
#include "src/base/json.h"
#include "src/decode/decoder.h"

const char *const dm_fit_claim_names[] = {"joint", "fit"};

/* ---- Positions ------------------------------------------------------------------------------- */

struct run {
    const struct dm_model *m;
    const struct dm_cooc *cooc;
    struct dm_gen_opt probe, base; /* a block of any order, whatever its joint; the text itself */
    uint64_t seed;
    size_t heads, n[DM_ORDER_MAX + 1];
    struct dm_session *session;
    struct dm_decoder decoder;
    float *logits, *after; /* (heads,Vp), and (2,heads,Vp) behind tokens of a block */
    int32_t *seen;         /* (V) distinct ids of the context */
    size_t n_seen;
    struct dm_fit_sample *sample[DM_ORDER_MAX + 1]; /* (n) */
};

/* Appends to the context of the decoder, which marks ids, and to that of the judge, which lists
 * them. */
static void see(struct run *r, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((size_t)ids[i] < r->m->cfg.V && !r->decoder.seen[ids[i]]) {
            r->seen[r->n_seen++] = ids[i];
            dm_decoder_add(&r->decoder, ids + i, 1);
        }
}

/* log p of the block's tokens, each given those before it. */
static double block_logp(struct run *r, const struct dm_block *b)
{
    const size_t row = r->heads * r->m->cfg.Vp, n_seen = r->n_seen;
    double sum = 0;
    dm_session_step_rows(r->session, b->id, b->n - 1, b->n - 1, r->after);
    dm_session_reset(r->session, b->pos);
    for (size_t i = 0; i < b->n; i++) {
        sum += dm_judge_sampler_logp(i ? r->after + (i - 1) * row : r->logits, r->m->cfg.V,
                                     b->id[i], r->seen, r->n_seen, &r->base);
        see(r, b->id + i, 1);
    }
    while (r->n_seen > n_seen) // the block is none of the text
        r->decoder.seen[r->seen[--r->n_seen]] = false;
    return sum;
}

/* The blocks of all orders at one position. */
static enum dm_status one_position(struct run *r, size_t text, size_t pos, struct dm_err *e)
{
    for (size_t n = 2; n <= r->heads; n++) {
        struct dm_block b;
        DM_TRY(dm_decoder_step(&r->decoder, &r->probe, r->cooc, r->logits, r->m->cfg.Vp, n, pos, &b,
                               e));
        if (b.n != n) // the mask leaves nothing
            continue;
        struct dm_fit_sample *s = &r->sample[n][r->n[n]++];
        *s = (struct dm_fit_sample){.text = text, .J = b.order[n].max};
        s->nats = log(b.q) - block_logp(r, &b);
        memcpy(s->term, b.order[n].term, sizeof(s->term));
    }
    return DM_OK;
}

static enum dm_status one_text(struct run *r, size_t text, const int32_t *prompt, size_t n_prompt,
                               size_t tokens, struct dm_err *e)
{
    dm_session_reset(r->session, 0);
    dm_decoder_reset(&r->decoder);
    r->n_seen = 0;
    see(r, prompt, n_prompt);
    dm_session_step(r->session, prompt, n_prompt, r->logits);
    r->base.seed = r->seed + 2 * text;
    r->probe.seed = r->base.seed + 1;
    for (size_t pos = n_prompt; pos < n_prompt + tokens; pos++) {
        struct dm_block b;
        DM_TRY(one_position(r, text, pos, e));
        DM_TRY(
            dm_decoder_step(&r->decoder, &r->base, NULL, r->logits, r->m->cfg.Vp, 1, pos, &b, e));
        see(r, b.id, 1);
        dm_session_step(r->session, b.id, 1, r->logits);
    }
    return DM_OK;
}

static enum dm_status run_new(struct run *r, size_t positions, struct dm_err *e)
{
    const struct dm_config *c = &r->m->cfg;
    size_t row;
    r->heads = c->K < DM_ORDER_MAX ? c->K : DM_ORDER_MAX;
    if (!dm_mul(3 * r->heads, c->Vp, &row) || !(r->logits = dm_alloc(row, sizeof(*r->logits))))
        return dm_fail(e, DM_ENOMEM, "out of memory for the logits");
    r->after = r->logits + r->heads * c->Vp;
    if (!(r->seen = dm_alloc(c->V, sizeof(*r->seen))))
        return dm_fail(e, DM_ENOMEM, "out of memory for the context");
    for (size_t n = 2; n <= r->heads; n++)
        if (!(r->sample[n] = dm_alloc(positions, sizeof(**r->sample))))
            return dm_fail(e, DM_ENOMEM, "out of memory for %zu positions", positions);
    DM_TRY(dm_session_new(&r->session, r->m, r->heads, e));
    return dm_decoder_init(&r->decoder, c->V, r->probe.top_k, r->heads, e);
}

static void run_free(struct run *r)
{
    dm_decoder_release(&r->decoder);
    dm_session_free(r->session);
    for (size_t n = 2; n <= DM_ORDER_MAX; n++)
        free(r->sample[n]);
    free(r->logits);
    free(r->seen);
}

/* ---- Weights --------------------------------------------------------------------------------- */

/* Normal equations with a ridge of 1e-9 of the diagonal, for terms that do not vary, by Cholesky:
 * the lower half of A becomes L with A = L L'. */
void dm_fit_solve(double *w, size_t n_terms, const struct dm_fit_sample *s, size_t n, size_t but)
{
    double A[DM_FIT_TERMS][DM_FIT_TERMS] = {{0}};
    memset(w, 0, n_terms * sizeof(*w));
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; s[k].text % 2 != but && i < n_terms; i++) {
            w[i] += s[k].term[i] * s[k].nats;
            for (size_t j = 0; j <= i; j++)
                A[i][j] += s[k].term[i] * s[k].term[j];
        }
    for (size_t i = 0; i < n_terms; i++) {
        A[i][i] += 1e-9 * A[i][i] + 1e-12;
        for (size_t j = 0; j <= i; j++) {
            for (size_t k = 0; k < j; k++)
                A[i][j] -= A[i][k] * A[j][k];
            A[i][j] = i == j ? sqrt(fmax(A[i][i], 1e-12)) : A[i][j] / A[j][j];
        }
        for (size_t k = 0; k < i; k++)
            w[i] -= A[i][k] * w[k];
        w[i] /= A[i][i];
    }
    for (size_t i = n_terms; i-- > 0;) {
        for (size_t k = i + 1; k < n_terms; k++)
            w[i] -= A[k][i] * w[k];
        w[i] /= A[i][i];
    }
}

/* ---- Belief ---------------------------------------------------------------------------------- */

static int by_claim(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* claim (n,2): claimed, found. */
static void make_curve(struct dm_fit_curve *c, double (*claim)[2], size_t n)
{
    qsort(claim, n, sizeof(*claim), by_claim);
    c->n_bins = n < DM_FIT_BINS ? n : DM_FIT_BINS;
    for (size_t b = 0, i = 0; b < c->n_bins; b++) {
        struct dm_fit_bin *bin = &c->bin[b];
        const size_t end = n * (b + 1) / c->n_bins;
        for (bin->n = end - i; i < end; i++) {
            bin->claimed += claim[i][0] / (double)bin->n;
            bin->found += claim[i][1] / (double)bin->n;
        }
        c->error += fabs(bin->claimed - bin->found) * (double)bin->n / (double)n;
    }
}

static enum dm_status believe(struct dm_fit_order *out, size_t order, const struct dm_fit_sample *s,
                              size_t n, struct dm_err *e)
{
    const size_t terms = dm_fit_terms(order);
    double w[2][DM_FIT_TERMS], mean = 0, rest = 0, all = 0,
                               (*claim)[2] = dm_alloc(n, sizeof(*claim));
    if (!claim)
        return dm_fail(e, DM_ENOMEM, "out of memory for %zu positions", n);
    out->positions = n;
    for (size_t half = 0; half < 2; half++)
        dm_fit_solve(w[half], terms, s, n, half);
    for (size_t i = 0; i < n; i++)
        mean += s[i].nats / (double)n;
    for (enum dm_fit_claim k = 0; k < DM_FIT_CLAIMS; k++) {
        for (size_t i = 0; i < n; i++) {
            double d = k == DM_FIT_JOINT ? -log(s[i].J) : 0;
            for (size_t t = 0; t < terms && k == DM_FIT_FITTED; t++)
                d += w[s[i].text % 2][t] * s[i].term[t];
            claim[i][0] = d;
            claim[i][1] = s[i].nats;
            rest += k == DM_FIT_FITTED ? (s[i].nats - d) * (s[i].nats - d) : 0;
            all += k == DM_FIT_FITTED ? (s[i].nats - mean) * (s[i].nats - mean) : 0;
        }
        make_curve(&out->curve[k], claim, n);
    }
    out->explained = 1 - rest / all;
    free(claim);
    return DM_OK;
}

static enum dm_status make(struct dm_fit_report *out, const struct run *r, struct dm_err *e)
{
    out->fit.known = true;
    for (size_t n = 2; n <= r->heads; n++) {
        if (r->n[n])
            DM_TRY(believe(&out->order[n], n, r->sample[n], r->n[n], e));
        out->fit.known = out->fit.known && r->n[n] >= DM_FIT_LEAST;
        dm_fit_solve(out->fit.w[n], dm_fit_terms(n), r->sample[n], r->n[n], 2);
    }
    if (!out->fit.known)
        out->fit = (struct dm_fit){.known = false};
    return DM_OK;
}

enum dm_status dm_fit_make(struct dm_fit_report *out, const struct dm_model *m,
                           const struct dm_cooc *cooc, const struct dm_gen_opt *o,
                           const int32_t *prompts, size_t n_prompts, size_t prompt_tokens,
                           size_t tokens, uint64_t seed, dm_trial_fn *fn, void *ctx,
                           struct dm_err *e)
{
    struct run r = {.m = m, .cooc = cooc, .probe = *o, .base = *o, .seed = seed};
    const size_t texts = n_prompts < DM_FIT_TEXTS ? n_prompts : DM_FIT_TEXTS;
    const size_t T = m->cfg.T_max, need = prompt_tokens + DM_ORDER_MAX;
    const size_t room = T > need ? T - need : 0, most = room < DM_FIT_TEXT ? room : DM_FIT_TEXT;
    const size_t length = tokens < most ? tokens : most;
    *out = (struct dm_fit_report){.fit = {.known = false}};
    if (!length)
        return DM_OK;
    r.probe.mode = DM_GEN_DYNAMO;
    r.probe.eps_b = 0;
    r.probe.fitted = false;
    r.probe.trace = true;
    r.base.mode = DM_GEN_AR;
    enum dm_status st = run_new(&r, texts * length, e);
    for (size_t i = 0; i < texts && !st; i++) {
        const size_t p = i * n_prompts / texts;
        st = one_text(&r, i, prompts + p * prompt_tokens, prompt_tokens, length, e);
        if (!st && fn && !fn(ctx, (double)(i + 1) / (double)texts))
            st = dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    }
    if (!st)
        st = make(out, &r, e);
    run_free(&r);
    return st;
}

static json_t *curve_to_json(const struct dm_fit_curve *c)
{
    json_t *bins = json_array();
    int bad = !bins;
    for (size_t b = 0; b < c->n_bins; b++)
        bad |= json_array_append_new(bins,
                                     json_pack("{s:I, s:o, s:o}", "n", (json_int_t)c->bin[b].n,
                                               "claimed", dm_json_real(c->bin[b].claimed), "found",
                                               dm_json_real(c->bin[b].found)));
    if (!bad)
        return json_pack("{s:o, s:o}", "error", dm_json_real(c->error), "bins", bins);
    json_decref(bins);
    return NULL;
}

json_t *dm_fit_report_to_json(const struct dm_fit_report *r)
{
    json_t *root = json_object();
    int bad = !root;
    for (size_t n = 2; n <= DM_ORDER_MAX; n++) {
        const struct dm_fit_order *o = &r->order[n];
        char key[8];
        if (!o->positions)
            continue;
        snprintf(key, sizeof(key), "%zu", n);
        json_t *joint = curve_to_json(&o->curve[DM_FIT_JOINT]),
               *fit = curve_to_json(&o->curve[DM_FIT_FITTED]);
        bad |= json_object_set_new(root, key,
                                   json_pack("{s:I, s:o, s:{s:o, s:o}}", "positions",
                                             (json_int_t)o->positions, "explained",
                                             dm_json_real(o->explained), "curves",
                                             dm_fit_claim_names[DM_FIT_JOINT], joint,
                                             dm_fit_claim_names[DM_FIT_FITTED], fit));
    }
    if (!bad)
        return root;
    json_decref(root);
    return NULL;
}
