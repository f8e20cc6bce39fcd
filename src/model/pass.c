/* SPDX-License-Identifier: MIT */
/* pass.c - whole sequences: loss and gradients for training, log-probabilities for scoring. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"
#include "src/base/progress.h"
#include "src/model/layer.h"
#include "src/model/model.h"
#include "src/nn/embedding.h"
#include "src/nn/layernorm.h"
#include "src/nn/linear.h"
#include "src/nn/rotary.h"
#include "src/nn/xent.h"

/* Most rows of logits that are kept at a time. Every chunk reads the whole unembedding twice, which
 * costs more than that the logits of so many rows do not stay in L3: 84 rows, which do, were 5 %
 * slower. */
#define LOGITS_ROWS ((size_t)512)

struct dm_pass {
    struct dm_config cfg;
    enum dm_pass_kind kind;
    size_t B, T, N;
    struct dm_arena mem;
    float *rope, *scratch;
    /* BASE and JOINT keep every layer's input and activations: x[0..L], acts[0..L-1]. The others
     * keep one layer: x[0], x[1] in turn and acts[0]. One head at a time follows: its layers'
     * outputs from x[head_x] and activations from acts[head_act], which HEADS shares with the stem.
     * All share the scratch of acts[0]. */
    bool keep;
    bool recompute; /* with keep: acts[0] serves all layers but the heads', forward runs again */
    float **x;
    struct dm_layer_acts *acts;
    size_t n_x, n_acts, head_x, head_act;
    float *lnf, *lnf_mean, *lnf_rstd; /* (N,C), (N), (N): the shared final LayerNorm */
    float *logits;                    /* (n_rows,Vp) */
    size_t n_rows;
    void *u_pack, *u_pack_t; /* of an unembedding that has none: it serves many chunks of rows */
    struct dm_weight u;      /* the unembedding of the current call, packed */
    float *logp;             /* (N) */
    int32_t *ids, *target;   /* (N); ids without marks */
    struct dm_layer_grads g; /* training only, like the next two */
    float *d, *dlnf;         /* (N,C) */
    float *dfeed;            /* (N,C), JOINT: of what heads >= 2 read, added up over them */
    struct dm_pass_times times;
};

/* Room for a pack in either format; pages that are not used are never touched. */
static void *bind_pack(const struct dm_pass *p, size_t (*bytes)(const struct dm_weight *),
                       struct dm_arena *a)
{
    const struct dm_weight f32 = {.O = p->cfg.Vp, .C = p->cfg.C};
    return dm_arena_alloc(a, bytes(&f32), 1);
}

static void bind(struct dm_pass *p, struct dm_arena *a)
{
    const struct dm_config *c = &p->cfg;
    struct dm_layer_acts measured = {0}; // while measuring there is no array to write to
    p->rope = dm_arena_floats(a, p->T, c->rot);
    p->scratch = dm_arena_floats(a, dm_attention_scratch(p->T, c->HS), 1);
    p->x = dm_arena_alloc(a, p->n_x, sizeof(*p->x));
    p->acts = dm_arena_alloc(a, p->n_acts, sizeof(*p->acts));
    for (size_t i = 0; i < p->n_x; i++) {
        float *x = dm_arena_floats(a, p->N, c->C);
        if (p->x)
            p->x[i] = x;
    }
    for (size_t i = 0; i < p->n_acts; i++)
        dm_layer_acts_bind(p->acts ? p->acts + i : &measured, i ? p->acts : NULL, c, p->N, a);
    p->lnf = dm_arena_floats(a, p->N, c->C);
    p->lnf_mean = dm_arena_floats(a, p->N, 1);
    p->lnf_rstd = dm_arena_floats(a, p->N, 1);
    p->logits = dm_arena_floats(a, p->n_rows, c->Vp);
    p->u_pack = bind_pack(p, dm_linear_pack_bytes, a);
    p->logp = dm_arena_floats(a, p->N, 1);
    p->ids = dm_arena_alloc(a, p->N, sizeof(*p->ids));
    p->target = dm_arena_alloc(a, p->N, sizeof(*p->target));
    if (p->kind == DM_PASS_SCORE)
        return;
    p->u_pack_t = bind_pack(p, dm_linear_pack_t_bytes, a);
    dm_layer_grads_bind(&p->g, c, p->N, a);
    p->d = dm_arena_floats(a, p->N, c->C);
    p->dlnf = dm_arena_floats(a, p->N, c->C);
    if (p->kind == DM_PASS_JOINT)
        p->dfeed = dm_arena_floats(a, p->N, c->C);
}

/* How many buffers there are. */
static void lay_out(struct dm_pass *p)
{
    const struct dm_config *c = &p->cfg;
    p->keep = p->kind == DM_PASS_BASE || p->kind == DM_PASS_JOINT;
    p->head_x = p->keep ? c->L + 1 : 2;
    p->head_act = !p->keep ? 0 : p->recompute ? 1 : c->L;
    const size_t head = p->kind == DM_PASS_BASE ? 0 : c->D;
    p->n_x = p->head_x + head;
    p->n_acts = p->head_act + head;
}

/* What bind() needs, in a pass that has no memory yet. */
/* N rows in equal chunks: a short last one would read as much. On tiles 32 rows are summed at once.
 */
static size_t chunk_rows(size_t N)
{
    const size_t chunks = N / LOGITS_ROWS + (N % LOGITS_ROWS != 0);
    const size_t rows = chunks > 1 ? (N / chunks + 32) / 32 * 32 : N;
    return rows < LOGITS_ROWS ? rows : LOGITS_ROWS;
}

static struct dm_arena measure(struct dm_pass *p, const struct dm_config *cfg,
                               enum dm_pass_kind kind, bool recompute, size_t B, size_t T)
{
    struct dm_arena a = {0};
    *p = (struct dm_pass){.cfg = *cfg, .kind = kind, .recompute = recompute, .B = B, .T = T};
    lay_out(p);
    if (!dm_mul(B, T, &p->N))
        a.overflow = true;
    p->n_rows = chunk_rows(p->N);
    bind(p, &a);
    return a;
}

bool dm_pass_need(size_t *bytes, const struct dm_config *cfg, enum dm_pass_kind kind,
                  bool recompute, size_t B, size_t T)
{
    struct dm_pass p;
    const struct dm_arena a = measure(&p, cfg, kind, recompute, B, T);
    *bytes = a.used;
    return !dm_arena_overflowed(&a);
}

static enum dm_status new_pass(struct dm_pass **out, const struct dm_config *cfg,
                               enum dm_pass_kind kind, bool recompute, size_t B, size_t T,
                               struct dm_err *e)
{
    *out = NULL;
    if (T > cfg->T_max)
        return dm_fail(e, DM_ERANGE, "%zu tokens of context asked for, the model has %zu", T,
                       cfg->T_max);
    struct dm_pass *p = dm_alloc(1, sizeof(*p));
    if (!p)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    const struct dm_arena a = measure(p, cfg, kind, recompute, B, T);
    enum dm_status st = DM_OK;
    if (dm_arena_overflowed(&a))
        st = dm_fail(e, DM_ENOMEM, "out of memory: a batch of %zu x %zu overflows", B, T);
    else
        st = dm_arena_init(&p->mem, a.used, e);
    if (st) {
        dm_pass_free(p);
        return st;
    }
    dm_arena_huge(&p->mem);
    bind(p, &p->mem);
    dm_rotary_table(p->rope, cfg->rope_base, cfg->rot, T);
    *out = p;
    return DM_OK;
}

enum dm_status dm_pass_new(struct dm_pass **out, const struct dm_config *cfg,
                           enum dm_pass_kind kind, size_t B, size_t T, struct dm_err *e)
{
    return new_pass(out, cfg, kind, false, B, T, e);
}

enum dm_status dm_pass_new_recompute(struct dm_pass **out, const struct dm_config *cfg,
                                     enum dm_pass_kind kind, size_t B, size_t T, struct dm_err *e)
{
    return new_pass(out, cfg, kind, true, B, T, e);
}

void dm_pass_free(struct dm_pass *p)
{
    if (!p)
        return;
    dm_arena_release(&p->mem);
    free(p);
}

size_t dm_pass_bytes(const struct dm_pass *p)
{
    return p->mem.size;
}

struct dm_pass_times dm_pass_times(const struct dm_pass *p)
{
    return p->times;
}

double dm_pass_flops(const struct dm_config *c, enum dm_pass_kind kind, size_t T)
{
    const double C = (double)c->C, D = (double)c->D;
    const double linear = 2.0 * C * (4.0 * C + 2.0 * (double)c->F); // of a layer, forward
    const double attention = 2.0 * C * (double)(T + 1);             // half of q k^T and p v
    const double layer = linear + attention, logits = 2.0 * C * (double)c->Vp;
    const double base = 3.0 * ((double)c->L * layer + logits), K = (double)c->K;
    if (kind == DM_PASS_BASE)
        return base;
    if (kind == DM_PASS_JOINT)
        return base + 3.0 * (K - 1.0) * (D * layer + logits);
    const double stem = (double)(c->from_final ? c->L : c->L - 1) * layer;
    return stem + (K - 1.0) * (3.0 * D * layer + 2.0 * logits);
}

static struct dm_span span(const struct dm_pass *p, size_t B, size_t T)
{
    assert(T <= p->T && B * T <= p->N);
    return (struct dm_span){.B = B, .T = T, .n_out = T, .rope = p->rope, .scratch = p->scratch};
}

static void layer(struct dm_pass *p, const struct dm_model *m, size_t l, size_t act, float *out,
                  const float *x, const struct dm_span *s)
{
    dm_layer_forward(out, p->acts + act, x, m->params.layers + l, m->mats.layers + l, &p->cfg, s);
}

/* Which activations layer l writes. */
static size_t act_of(const struct dm_pass *p, size_t l)
{
    return p->keep && !p->recompute ? l : 0;
}

/* Embedding and layers 0..L-2; returns the stem's output (N,C), one of p->x. */
static float *stem_forward(struct dm_pass *p, const struct dm_model *m, const int32_t *ids,
                           const struct dm_span *s)
{
    const struct dm_config *c = &p->cfg;
    const bool keep = p->keep;
    for (size_t i = 0; i < s->B * s->T; i++)
        p->ids[i] = ids[i] < 0 ? ~ids[i] : ids[i];
    dm_embedding_forward(p->x[0], p->ids, m->mats.embed, m->mats.embed_dtype, s->B * s->T, c->C,
                         c->Vp);
    for (size_t l = 0; l + 1 < c->L; l++)
        layer(p, m, l, act_of(p, l), p->x[keep ? l + 1 : (l + 1) % 2], p->x[keep ? l : l % 2], s);
    return p->x[keep ? c->L - 1 : (c->L - 1) % 2];
}

/* The layers of head n fed by `feed`; returns the output before the final LayerNorm. */
static const float *head_forward(struct dm_pass *p, const struct dm_model *m, size_t n,
                                 const float *feed, const struct dm_span *s)
{
    const struct dm_config *c = &p->cfg;
    if (n == 1) {
        float *out = p->x[p->keep ? c->L : c->L % 2]; // the stem's input: not needed any more
        layer(p, m, c->L - 1, act_of(p, c->L - 1), out, feed, s);
        return out;
    }
    assert(p->kind != DM_PASS_BASE && n <= c->K);
    for (size_t d = 0; d < c->D; d++) {
        const size_t i = (n - 2) * c->D + d;
        dm_layer_forward(p->x[p->head_x + d], p->acts + p->head_act + d,
                         d ? p->x[p->head_x + d - 1] : feed, m->params.heads + i, m->mats.heads + i,
                         c, s);
    }
    return p->x[p->head_x + c->D - 1];
}

/* What heads n >= 2 read: the stem's output or, by option, layer L-1's. */
static const float *head_input(struct dm_pass *p, const struct dm_model *m, const float *stem,
                               const struct dm_span *s)
{
    return p->cfg.from_final ? head_forward(p, m, 1, stem, s) : stem;
}

static void final_norm(struct dm_pass *p, const struct dm_model *m, const float *h, size_t N)
{
    dm_layernorm_forward(p->lnf, p->lnf_mean, p->lnf_rstd, h, m->params.lnf_w, m->params.lnf_b,
                         p->cfg.eps, N, p->cfg.C);
}

/* Sets p->u; `train`: also for the input gradient. The weights may have changed since last time. */
static void open_unembed(struct dm_pass *p, const struct dm_model *m, bool train)
{
    p->u = m->mats.unembed;
    if (!p->u.pack) {
        dm_linear_pack(p->u_pack, &p->u);
        p->u.pack = p->u_pack;
    }
    if (train && !p->u.pack_t) {
        dm_linear_pack_t(p->u_pack_t, &p->u);
        p->u.pack_t = p->u_pack_t;
    }
}

static void logits_forward(float *logits, const struct dm_pass *p, size_t first, size_t rows)
{
    dm_linear_forward(logits, p->lnf + first * p->cfg.C, &p->u, NULL, rows);
}

void dm_pass_targets(size_t *n_targets, const int32_t *ids, size_t B, size_t T, size_t K)
{
    for (size_t b = 0; b < B; b++)
        for (size_t t = 1; t < T; t++)
            for (size_t n = 1; n <= K && n <= t; n++)
                n_targets[n - 1] += ids[b * T + t] >= 0;
}

/* target[b*T + t] = ids[b*T + t + n], negative where that is no target or outside the sequence. */
static void set_targets(struct dm_pass *p, const int32_t *ids, size_t n, const struct dm_span *s)
{
    for (size_t b = 0; b < s->B; b++)
        for (size_t t = 0; t < s->T; t++)
            p->target[b * s->T + t] = t + n < s->T ? ids[b * s->T + t + n] : -1;
}

static void multiply(float *x, float by, size_t n)
{
    for (size_t i = 0; by != 1.0f && i < n; i++)
        x[i] *= by;
}

/* What the sum over the targets is divided by; 1 where there is nothing to sum. */
static size_t count_targets(const struct dm_pass *p, const struct dm_loss_opt *o, size_t n,
                            size_t N)
{
    size_t count = o->n_targets ? o->n_targets[n - 1] : 0;
    for (size_t i = 0; !o->n_targets && i < N; i++)
        count += p->target[i] >= 0;
    return count ? count : 1;
}

/* Loss of head n from its output h; p->d becomes the gradient of h, times the head's scale. Those
 * of the final LayerNorm and of the output embedding are multiplied by `share` as well. */
static double loss_backward(struct dm_pass *p, const struct dm_model *m, struct dm_params *grads,
                            const float *h, size_t n, const struct dm_loss_opt *o, float share,
                            const struct dm_span *s)
{
    const struct dm_config *c = &p->cfg;
    const size_t N = s->B * s->T, n_targets = count_targets(p, o, n, N);
    const float scale = o->scale * (o->head_weight ? o->head_weight[n - 1] : 1.0f);
    const enum dm_dtype type = p->u.fmt == DM_FMT_BF16 ? DM_BF16 : DM_F32;
    double sum = 0.0;
    final_norm(p, m, h, N);
    for (size_t i = 0; i < N; i += p->n_rows) {
        const size_t rows = N - i < p->n_rows ? N - i : p->n_rows;
        logits_forward(p->logits, p, i, rows);
        dm_xent_backward(p->logp + i, p->logits, type, p->target + i, scale / (float)n_targets,
                         rows, c->Vp);
        dm_linear_backward_input(p->dlnf + i * c->C, p->logits, type, &p->u, rows);
        if (!grads->unembed)
            continue;
        multiply(p->lnf + i * c->C, share, rows * c->C); // fewer numbers than the logits
        dm_linear_backward(NULL, grads->unembed, NULL, p->logits, type, p->lnf + i * c->C, &p->u,
                           rows);
    }
    memset(p->d, 0, N * c->C * sizeof(float));
    dm_layernorm_backward(p->d, NULL, NULL, p->dlnf, h, m->params.lnf_w, p->lnf_mean, p->lnf_rstd,
                          N, c->C);
    multiply(p->dlnf, share, N * c->C);
    dm_layernorm_backward(NULL, grads->lnf_w, grads->lnf_b, p->dlnf, h, m->params.lnf_w,
                          p->lnf_mean, p->lnf_rstd, N, c->C);
    for (size_t i = 0; i < N; i++)
        sum -= (double)p->logp[i];
    return sum / (double)n_targets;
}

/* Adds the seconds since *t to a phase; *t becomes now. */
static void lap(double *phase, double *t)
{
    const double now = dm_now();
    *phase += now - *t;
    *t = now;
}

/* Loss and backward of head 1 from its output h, down to the embedding. dfeed (NULL = none) is the
 * gradient that other heads send into x[joins], the output of layer joins - 1. */
static void base_backward(struct dm_pass *p, const struct dm_model *m, struct dm_params *grads,
                          const int32_t *ids, const float *h, const float *dfeed, size_t joins,
                          const struct dm_loss_opt *o, double *loss, const struct dm_span *s)
{
    const struct dm_config *c = &p->cfg;
    const size_t N = s->B * s->T;
    double t = dm_now();
    set_targets(p, ids, 1, s);
    loss[0] = loss_backward(p, m, grads, h, 1, o, 1.0f, s);
    lap(&p->times.loss, &t);
    for (size_t l = c->L; l-- > 0;) {
        if (dfeed && joins == l + 1)
            dm_vec_add(p->d, dfeed, N * c->C);
        if (p->recompute && l + 1 < c->L) // x[l + 1] becomes what it was
            layer(p, m, l, 0, p->x[l + 1], p->x[l], s);
        dm_layer_backward(p->d, true, grads->layers + l, &p->g, p->acts + act_of(p, l), p->x[l],
                          m->params.layers + l, m->mats.layers + l, c, s);
    }
    if (dfeed && joins == 0)
        dm_vec_add(p->d, dfeed, N * c->C);
    dm_embedding_backward(grads->embed, p->ids, p->d, N, c->C, c->Vp);
    lap(&p->times.backward, &t);
}

/* Forward, loss and backward of head n >= 2; with want_dx p->d becomes the gradient of feed. */
static void train_head(struct dm_pass *p, const struct dm_model *m, struct dm_params *grads,
                       const int32_t *ids, size_t n, const float *feed, bool want_dx, float share,
                       const struct dm_loss_opt *o, double *loss, const struct dm_span *s)
{
    const struct dm_config *c = &p->cfg;
    double t = dm_now();
    const float *h = head_forward(p, m, n, feed, s);
    lap(&p->times.heads, &t);
    set_targets(p, ids, n, s);
    loss[n - 1] = loss_backward(p, m, grads, h, n, o, share, s);
    lap(&p->times.loss, &t);
    for (size_t d = c->D; d-- > 0;) {
        const size_t i = (n - 2) * c->D + d;
        dm_layer_backward(p->d, want_dx || d > 0, grads->heads + i, &p->g,
                          p->acts + p->head_act + d, d ? p->x[p->head_x + d - 1] : feed,
                          m->params.heads + i, m->mats.heads + i, c, s);
    }
    lap(&p->times.backward, &t);
}

static void train_frozen(struct dm_pass *p, const struct dm_model *m, struct dm_params *grads,
                         const int32_t *ids, const struct dm_loss_opt *o, double *loss,
                         const struct dm_span *s)
{
    double t = dm_now();
    const float *feed = head_input(p, m, stem_forward(p, m, ids, s), s);
    lap(&p->times.stem, &t);
    for (size_t n = 2; n <= p->cfg.K; n++)
        train_head(p, m, grads, ids, n, feed, false, 1.0f, o, loss, s);
}

/* BASE and JOINT. Heads >= 2 go first, since their gradient joins that of head 1 on its way down.
 */
static void train_whole(struct dm_pass *p, const struct dm_model *m, struct dm_params *grads,
                        const int32_t *ids, const struct dm_loss_opt *o, double *loss,
                        const struct dm_span *s)
{
    const struct dm_config *c = &p->cfg;
    const size_t n = s->B * s->T * c->C, joins = c->from_final ? c->L : c->L - 1;
    const size_t heads = p->kind == DM_PASS_JOINT ? c->K : 1;
    double t = dm_now();
    const float *stem = stem_forward(p, m, ids, s);
    lap(&p->times.stem, &t);
    const float *h = head_forward(p, m, 1, stem, s);
    lap(&p->times.heads, &t);
    if (heads > 1)
        memset(p->dfeed, 0, n * sizeof(float));
    for (size_t k = 2; k <= heads; k++) {
        train_head(p, m, grads, ids, k, p->x[joins], true, o->stem_scale, o, loss, s);
        multiply(p->d, o->stem_scale, n);
        dm_vec_add(p->dfeed, p->d, n);
    }
    base_backward(p, m, grads, ids, h, heads > 1 ? p->dfeed : NULL, joins, o, loss, s);
}

void dm_pass_train(struct dm_pass *p, const struct dm_model *m, struct dm_params *grads,
                   const int32_t *ids, size_t B, size_t T, const struct dm_loss_opt *o,
                   double *loss)
{
    const struct dm_span s = span(p, B, T);
    for (size_t n = 0; n < p->cfg.K; n++)
        loss[n] = (double)NAN;
    assert(p->kind != DM_PASS_SCORE && T > p->cfg.K);
    open_unembed(p, m, true);
    if (p->keep)
        train_whole(p, m, grads, ids, o, loss, &s);
    else
        train_frozen(p, m, grads, ids, o, loss, &s);
}

void dm_pass_score(struct dm_pass *p, const struct dm_model *m, const int32_t *ids, size_t B,
                   size_t T, size_t n_heads, float *logp, int32_t *rank)
{
    const struct dm_span s = span(p, B, T);
    const size_t N = B * T;
    open_unembed(p, m, false);
    const float *stem = stem_forward(p, m, ids, &s);
    for (size_t n = 1; n <= n_heads; n++) {
        // Head 1 overwrites nothing that the others read, with either kind of input.
        const float *feed = n == 1 ? stem : head_input(p, m, stem, &s);
        final_norm(p, m, head_forward(p, m, n, feed, &s), N);
        set_targets(p, ids, n, &s);
        for (size_t i = 0; i < N; i += p->n_rows) {
            const size_t rows = N - i < p->n_rows ? N - i : p->n_rows, at = (n - 1) * N + i;
            logits_forward(p->logits, p, i, rows);
            dm_xent_forward(logp + at, rank ? rank + at : NULL, p->logits, p->target + i, rows,
                            p->cfg.Vp);
        }
    }
}

void dm_pass_logits(struct dm_pass *p, const struct dm_model *m, const int32_t *ids, size_t B,
                    size_t T, size_t n, float *logits)
{
    const struct dm_span s = span(p, B, T);
    const float *stem = stem_forward(p, m, ids, &s);
    final_norm(p, m, head_forward(p, m, n, n == 1 ? stem : head_input(p, m, stem, &s), &s), B * T);
    open_unembed(p, m, false);
    logits_forward(logits, p, 0, B * T);
}
