/* SPDX-License-Identifier: MIT */
#include "src/decode/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/progress.h"

const char *const dm_gen_end_names[] = {"length", "eos", "context", "stopped"};

struct dm_gen {
    const struct dm_model *m;
    const struct dm_cooc *cooc;
    size_t n_heads;
    struct dm_session *session;
    struct dm_decoder decoder;
    bool has_decoder;
    float *logits;       /* (n_heads,Vp); in lossless mode (DM_TREE_ROWS,n_heads,Vp) at most */
    float *late;         /* (n_heads-1,Vp): heads 2.. that were asked after the drafts */
    const float *drafts; /* (n_heads-1,Vp): heads 2.. for the next drafts, in either */
    double cost[DM_TREE_ROWS + 1]; /* seconds of a pass over so many rows; [0] > 0: is measured */
};

double dm_gen_per_forward(const struct dm_gen_stats *s)
{
    return s->forwards ? (double)s->tokens / (double)s->forwards : 0;
}

double dm_gen_rate(const struct dm_gen_stats *s)
{
    return s->tokens > s->first && s->seconds > 0 ? (double)(s->tokens - s->first) / s->seconds : 0;
}

void dm_gen_stats_text(const struct dm_gen_stats *s, char *text, size_t n)
{
    const size_t blocks = s->blocks[1] + s->blocks[2] + s->blocks[3];
    const double all = blocks ? (double)blocks : 1; // the prompt's pass may give none
    const int at = snprintf(
        text, n,
        "%zu tokens in %zu forward passes: %.3f per forward (one %.1f %%, two %.1f %%, three %.1f "
        "%%)\nprompt: %zu tokens in %.3f s; then %.1f tokens/s; ended by %s",
        s->tokens, s->forwards, dm_gen_per_forward(s), 100 * (double)s->blocks[1] / all,
        100 * (double)s->blocks[2] / all, 100 * (double)s->blocks[3] / all, s->n_prompt,
        s->prefill_seconds, dm_gen_rate(s), dm_gen_end_names[s->end]);
    if (s->drafted && at > 0 && (size_t)at < n)
        snprintf(text + at, n - (size_t)at, "\ndrafts: %zu, of which the base agrees with %.1f %%",
                 s->drafted, 100 * (double)s->accepted / (double)s->drafted);
}

json_t *dm_gen_stats_to_json(const struct dm_gen_stats *s)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:{s:I, s:I, s:I}, s:f, s:f, s:f, s:s}",
                     "prompt_tokens", (json_int_t)s->n_prompt, "tokens", (json_int_t)s->tokens,
                     "forwards", (json_int_t)s->forwards, "drafted", (json_int_t)s->drafted,
                     "accepted", (json_int_t)s->accepted, "tokens_per_forward",
                     dm_gen_per_forward(s), "blocks", "1", (json_int_t)s->blocks[1], "2",
                     (json_int_t)s->blocks[2], "3", (json_int_t)s->blocks[3], "prefill_seconds",
                     s->prefill_seconds, "seconds", s->seconds, "tokens_per_second", dm_gen_rate(s),
                     "end", dm_gen_end_names[s->end]);
}

enum dm_status dm_gen_new(struct dm_gen **out, const struct dm_model *m, const struct dm_cooc *cooc,
                          size_t n_heads, struct dm_err *e)
{
    struct dm_gen *g = *out = dm_alloc(1, sizeof(*g));
    if (!g)
        return dm_fail(e, DM_ENOMEM, "out of memory for decoding");
    if (n_heads > m->cfg.K)
        n_heads = m->cfg.K;
    if (n_heads > DM_ORDER_MAX)
        n_heads = DM_ORDER_MAX;
    g->m = m;
    g->cooc = cooc;
    g->n_heads = n_heads ? n_heads : 1;
    const size_t rows = DM_TREE_ROWS * g->n_heads;
    size_t n;
    enum dm_status st = DM_OK;
    if (!dm_mul(rows + g->n_heads, m->cfg.Vp, &n) || !(g->logits = dm_alloc(n, sizeof(*g->logits))))
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu rows of logits", rows);
    else
        g->late = g->logits + rows * m->cfg.Vp;
    if (!st)
        st = dm_session_new(&g->session, m, g->n_heads, e);
    if (st) {
        dm_gen_free(g);
        *out = NULL;
    }
    return st;
}

void dm_gen_free(struct dm_gen *g)
{
    if (!g)
        return;
    dm_session_free(g->session);
    if (g->has_decoder)
        dm_decoder_release(&g->decoder);
    free(g->logits);
    free(g);
}

/* A decoder for o->top_k candidates; it is made anew only for a larger cut than ever before. */
static enum dm_status need_decoder(struct dm_gen *g, const struct dm_gen_opt *o, struct dm_err *e)
{
    const size_t V = g->m->cfg.V;
    if (g->has_decoder && (g->decoder.top_k >= o->top_k || g->decoder.top_k == V))
        return DM_OK;
    if (g->has_decoder)
        dm_decoder_release(&g->decoder);
    g->has_decoder = true;
    enum dm_status st = dm_decoder_init(&g->decoder, V, o->top_k, g->n_heads, e);
    if (st) {
        dm_decoder_release(&g->decoder);
        g->has_decoder = false;
    }
    return st;
}

enum dm_status dm_gen_stages(struct dm_gen *g, const struct dm_gen_opt *o, struct dm_stages *out,
                             struct dm_err *e)
{
    if (o->mode != DM_GEN_DYNAMO)
        return dm_fail(e, DM_ERANGE, "mode %s has no joint to show", dm_gen_mode_names[o->mode]);
    return dm_stages_of(out, &g->decoder, o, g->cooc, e);
}

static enum dm_status check_prompt(const struct dm_config *c, const int32_t *prompt, size_t n,
                                   struct dm_err *e)
{
    if (!n)
        return dm_fail(e, DM_ERANGE, "the prompt has no tokens, expected at least one");
    if (n >= c->T_max)
        return dm_fail(e, DM_ERANGE,
                       "the prompt has %zu tokens; the model's context holds %zu, so at most %zu",
                       n, c->T_max, c->T_max - 1);
    for (size_t i = 0; i < n; i++)
        if (prompt[i] < 0 || (size_t)prompt[i] >= c->Vp)
            return dm_fail(e, DM_ERANGE, "token %zu of the prompt is %d, expected 0 to %zu", i,
                           prompt[i], c->Vp - 1);
    return DM_OK;
}

/* A text being made. */
struct run {
    struct dm_gen *g;
    const struct dm_gen_opt *o;
    size_t left; /* tokens that may still come; 0 ends it */
    struct dm_ids *out;
    dm_gen_fn *fn;
    void *ctx;
    struct dm_gen_stats *s;
    double expected; /* drafts that should have been accepted by their own probabilities */
};

static bool is_end(const struct run *r, int32_t id)
{
    return r->o->stop_eos && id == r->g->m->cfg.eos;
}

/* Hands out the block, cut behind an end-of-text token. */
static enum dm_status emit(struct run *r, struct dm_block *b, struct dm_err *e)
{
    struct dm_gen_stats *s = r->s;
    for (b->kept = 0; b->kept < b->n;) {
        DM_TRY(dm_ids_push(r->out, b->id[b->kept], e));
        if (is_end(r, b->id[b->kept++])) {
            s->end = DM_GEN_EOS;
            r->left = 0;
            break;
        }
    }
    s->blocks[b->n]++;
    s->tokens += b->kept;
    s->first = s->first ? s->first : b->kept;
    r->left -= r->left ? b->kept : 0;
    if (r->fn && !r->fn(r->ctx, b) && s->end != DM_GEN_EOS) {
        s->end = DM_GEN_STOPPED;
        r->left = 0;
    }
    return DM_OK;
}

/* Emits blocks until enough tokens are there or something ends the text. */
static enum dm_status decode(struct run *r, struct dm_err *e)
{
    struct dm_gen *g = r->g;
    struct dm_gen_stats *s = r->s;
    struct dm_block b;
    while (r->left > 0) {
        DM_TRY(dm_decoder_step(&g->decoder, r->o, g->cooc, g->logits, g->m->cfg.Vp,
                               r->left < g->n_heads ? r->left : g->n_heads, s->n_prompt + s->tokens,
                               &b, e));
        s->forwards++;
        DM_TRY(emit(r, &b, e));
        dm_decoder_add(&g->decoder, b.id, b.kept);
        if (r->left > 0)
            dm_session_step(g->session, b.id, b.kept, g->logits);
    }
    return DM_OK;
}

/* The base's own token by its logits. */
static enum dm_status base_token(const struct run *r, const float *logits, size_t pos,
                                 struct dm_block *b, struct dm_err *e)
{
    struct dm_gen *g = r->g;
    struct dm_gen_opt base = *r->o;
    base.mode = DM_GEN_AR;
    return dm_decoder_step(&g->decoder, &base, NULL, logits, g->m->cfg.Vp, 1, pos, b, e);
}

/* For options' rows = 0: the least time of three for every number of rows, with an empty context.
 */
static void measure_rows(struct dm_gen *g, int32_t id)
{
    struct dm_tree tree = {0};
    int32_t ids[DM_TREE_ROWS];
    if (g->cost[0] > 0 || !dm_session_has_trees(g->session) || g->m->cfg.T_max < DM_TREE_ROWS)
        return;
    for (size_t i = 0; i < DM_TREE_ROWS; i++)
        ids[i] = id;
    for (size_t run = 0; run < 3; run++)
        for (tree.n = 1; tree.n <= DM_TREE_ROWS; tree.n++) {
            dm_session_reset(g->session, 0);
            const double t = dm_now();
            dm_session_tree(g->session, ids, &tree, g->logits);
            dm_session_keep(g->session, 0, g->late);
            const double cost = dm_now() - t;
            if (run == 0 || cost < g->cost[tree.n])
                g->cost[tree.n] = cost;
        }
    g->cost[0] = 1;
}

/* Drops the last drafts if fewer give more tokens per second: likelier ones come first, and how far
 * their probabilities can be believed the text has shown so far. */
static void trim(const struct run *r, struct dm_draft *w)
{
    const double *cost = r->g->cost;
    const double belief = (1 + (double)r->s->accepted) / (1 + r->expected);
    double tokens = 0, best = 0;
    size_t n = 1;
    for (size_t i = 0; i < w->tree.n && cost[0] > 0; i++) {
        tokens += i ? belief * w->p[i] : 1;
        if (tokens / cost[i + 1] > best) {
            best = tokens / cost[i + 1];
            n = i + 1;
        }
    }
    if (cost[0] > 0)
        w->tree.n = n;
}

/* From here on three functions with two ways each: a session with trees verifies any drafts, with
 * the heads or before them; others get a chain, through base and heads at once. */
static void draft(struct run *r, const struct dm_block *b, struct dm_draft *w)
{
    struct dm_gen *g = r->g;
    const bool trees = dm_session_has_trees(g->session);
    const size_t n = r->left < g->n_heads ? r->left : g->n_heads;
    const size_t room = g->m->cfg.T_max - dm_session_pos(g->session);
    struct dm_gen_opt o = *r->o;
    o.rows = o.rows ? o.rows : DM_TREE_ROWS;
    o.rows = o.rows < room ? o.rows : room;
    w->id[0] = b->id[0];
    dm_decoder_draft(&g->decoder, &o, g->cooc, g->drafts, g->m->cfg.Vp, n, !trees, w);
    if (!r->o->rows)
        trim(r, w);
    for (size_t i = 1; i < w->tree.n; i++)
        r->expected += w->p[i];
}

/* Returns how many rows of g->logits every draft has got, one of each head that was asked. */
static size_t verify(struct dm_gen *g, const struct dm_draft *w)
{
    if (dm_session_has_trees(g->session)) {
        dm_session_tree(g->session, w->id, &w->tree, g->logits);
        return dm_session_tree_heads(g->session, w->tree.n);
    }
    dm_session_step_rows(g->session, w->id, w->tree.n, w->tree.n, g->logits);
    return g->n_heads;
}

/* Keeps the path to `row`, whose tokens end at `pos`; `heads` as verify() returned. */
static void keep(struct dm_gen *g, size_t row, size_t pos, size_t heads)
{
    if (dm_session_has_trees(g->session))
        dm_session_keep(g->session, row, g->late);
    else
        dm_session_reset(g->session, pos);
    g->drafts = heads < g->n_heads ? g->late : g->logits + (row * heads + 1) * g->m->cfg.Vp;
}

/* The draft of `id` behind `row`; tree.n if there is none. */
static size_t child(const struct dm_draft *w, size_t row, int32_t id)
{
    size_t i = row + 1;
    while (i < w->tree.n && !(w->tree.parent[i] == row && w->id[i] == id))
        i++;
    return i;
}

/* Verifies b's only token and the drafts behind it: b grows by those that the base says too, and
 * next is what it says after them, unless the text ends before. */
static enum dm_status verified(struct run *r, struct dm_block *b, struct dm_block *next,
                               struct dm_err *e)
{
    struct dm_gen *g = r->g;
    struct dm_draft w;
    draft(r, b, &w);
    const size_t heads = verify(g, &w), stride = heads * g->m->cfg.Vp;
    r->s->forwards++;
    r->s->drafted += w.tree.n - 1;
    size_t row = 0;
    while (!is_end(r, w.id[row])) {
        DM_TRY(base_token(r, g->logits + row * stride, b->pos + b->n, next, e));
        const size_t hit = child(&w, row, next->id[0]);
        if (hit == w.tree.n)
            break;
        row = hit;
        dm_decoder_add(&g->decoder, next->id, 1);
        b->id[b->n++] = next->id[0];
        b->q *= next->q;
        r->s->accepted++;
    }
    keep(g, row, b->pos + b->n, heads);
    return DM_OK;
}

/* Every pass runs the base's next token and drafts of those behind it at once. What the base says
 * at each of these positions is then known, and so is how many drafts it agrees with; the cache
 * forgets the others. */
static enum dm_status decode_lossless(struct run *r, struct dm_err *e)
{
    struct dm_gen *g = r->g;
    struct dm_block b, next;
    g->drafts = g->logits + g->m->cfg.Vp;
    DM_TRY(base_token(r, g->logits, r->s->n_prompt, &next, e));
    r->s->forwards = r->left > 0; // as counted elsewhere: a pass is one that tokens came of
    while (r->left > 0) {
        b = next;
        dm_decoder_add(&g->decoder, b.id, 1);
        if (r->left > 1 && !is_end(r, b.id[0]))
            DM_TRY(verified(r, &b, &next, e));
        DM_TRY(emit(r, &b, e));
    }
    return DM_OK;
}

enum dm_status dm_gen_run(struct dm_gen *g, const struct dm_gen_opt *o, const int32_t *prompt,
                          size_t n_prompt, struct dm_ids *out, dm_gen_fn *fn, void *ctx,
                          struct dm_gen_stats *stats, struct dm_err *e)
{
    struct dm_gen_stats own, *s = stats ? stats : &own;
    *s = (struct dm_gen_stats){.n_prompt = n_prompt};
    DM_TRY(dm_gen_opt_check(o, e));
    DM_TRY(check_prompt(&g->m->cfg, prompt, n_prompt, e));
    DM_TRY(need_decoder(g, o, e));
    dm_decoder_reset(&g->decoder);
    dm_decoder_add(&g->decoder, prompt, n_prompt);

    if (o->mode == DM_GEN_LOSSLESS && !o->rows)
        measure_rows(g, prompt[0]);
    const double t0 = dm_now();
    dm_session_reset(g->session, 0);
    dm_session_step(g->session, prompt, n_prompt, g->logits);
    const double t1 = dm_now();
    const size_t room = g->m->cfg.T_max - n_prompt;
    s->end = o->max_tokens > room ? DM_GEN_CONTEXT : DM_GEN_LENGTH;
    struct run r = {g, o, o->max_tokens < room ? o->max_tokens : room, out, fn, ctx, s, 0};
    enum dm_status st = o->mode == DM_GEN_LOSSLESS ? decode_lossless(&r, e) : decode(&r, e);
    s->prefill_seconds = t1 - t0;
    s->seconds = dm_now() - t1;
    return st;
}
