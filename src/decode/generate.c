/* SPDX-License-Identifier: MIT */
#include "src/decode/generate.h"

#include <stdlib.h>

#include "src/base/progress.h"

const char *const dm_gen_end_names[] = {"length", "eos", "context", "stopped"};

struct dm_gen {
    const struct dm_model *m;
    const struct dm_cooc *cooc;
    size_t n_heads;
    struct dm_session *session;
    struct dm_decoder decoder;
    bool has_decoder;
    float *logits; /* (rows,n_heads,Vp): one row, up to n_heads in mode lossless */
};

double dm_gen_per_forward(const struct dm_gen_stats *s)
{
    return s->forwards ? (double)s->tokens / (double)s->forwards : 0;
}

double dm_gen_rate(const struct dm_gen_stats *s)
{
    return s->tokens > s->first && s->seconds > 0 ? (double)(s->tokens - s->first) / s->seconds : 0;
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
    size_t n;
    enum dm_status st = DM_OK;
    if (!dm_mul(g->n_heads * g->n_heads, m->cfg.Vp, &n) ||
        !(g->logits = dm_alloc(n, sizeof(*g->logits))))
        st = dm_fail(e, DM_ENOMEM, "out of memory for %zu rows of logits", g->n_heads);
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

/* The base's own token behind the position that row i of the logits belongs to. */
static enum dm_status base_token(const struct run *r, size_t i, size_t pos, struct dm_block *b,
                                 struct dm_err *e)
{
    struct dm_gen *g = r->g;
    struct dm_gen_opt base = *r->o;
    base.mode = DM_GEN_AR;
    return dm_decoder_step(&g->decoder, &base, NULL, g->logits + i * g->n_heads * g->m->cfg.Vp,
                           g->m->cfg.Vp, 1, pos, b, e);
}

/* Every pass runs the base's next token and the heads' drafts of those behind it as one chunk. What
 * the base says at each of these positions is then known, and so is how many drafts it agrees with;
 * the cache forgets the others. */
static enum dm_status decode_lossless(struct run *r, struct dm_err *e)
{
    struct dm_gen *g = r->g;
    struct dm_gen_stats *s = r->s;
    struct dm_block b, next;
    size_t row = 0; // of the logits behind the last token
    DM_TRY(base_token(r, 0, s->n_prompt, &next, e));
    s->forwards = r->left > 0; // as counted elsewhere: a pass is one that tokens came of
    while (r->left > 0) {
        b = next;
        dm_decoder_add(&g->decoder, b.id, 1);
        if (r->left > 1 && !is_end(r, b.id[0])) {
            const size_t n = dm_decoder_draft(
                &g->decoder, r->o, g->cooc, g->logits + row * g->n_heads * g->m->cfg.Vp,
                g->m->cfg.Vp, r->left < g->n_heads ? r->left : g->n_heads, &b);
            dm_session_step_rows(g->session, b.id, 1 + n, 1 + n, g->logits);
            s->forwards++;
            s->drafted += n;
            for (row = 0; !is_end(r, b.id[row]); row++) {
                DM_TRY(base_token(r, row, b.pos + b.n, &next, e));
                if (row == n || next.id[0] != b.id[b.n])
                    break;
                dm_decoder_add(&g->decoder, next.id, 1);
                b.q *= next.q;
                s->accepted++;
                b.n++;
            }
            dm_session_reset(g->session, b.pos + b.n);
        }
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

    const double t0 = dm_now();
    dm_session_reset(g->session, 0);
    dm_session_step(g->session, prompt, n_prompt, g->logits);
    const double t1 = dm_now();
    const size_t room = g->m->cfg.T_max - n_prompt;
    s->end = o->max_tokens > room ? DM_GEN_CONTEXT : DM_GEN_LENGTH;
    struct run r = {g, o, o->max_tokens < room ? o->max_tokens : room, out, fn, ctx, s};
    enum dm_status st = o->mode == DM_GEN_LOSSLESS ? decode_lossless(&r, e) : decode(&r, e);
    s->prefill_seconds = t1 - t0;
    s->seconds = dm_now() - t1;
    return st;
}
