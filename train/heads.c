/* SPDX-License-Identifier: MIT */
#include "train/heads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/io/shard.h"
#include "src/model/file.h"

enum dm_status dm_heads_weights(float *w, size_t first, size_t K, const char *text,
                                struct dm_err *e)
{
    const char *at = text;
    w[0] = 0.0f;
    for (size_t n = first; n <= K; n++) {
        char *end;
        w[n - 1] = 1.0f;
        if (!text)
            continue;
        const double x = strtod(at, &end);
        if (end == at || !(x >= 0.0 && x <= 1e6) || *end != (n < K ? ',' : '\0'))
            return dm_fail(e, DM_ERANGE,
                           "--head-weights \"%s\": want %zu numbers from 0, one for each of heads "
                           "%zu..%zu, with commas between",
                           text, K - first + 1, first, K);
        w[n - 1] = (float)x;
        at = end + 1;
    }
    return DM_OK;
}

double dm_heads_base_lr(const struct dm_config *c)
{
    static const struct {
        const char *size;
        double lr;
    } paper[] = {{"160m", 6e-6},   {"410m", 3e-6},   {"1b", 2e-6},   {"1.4b", 2e-6},
                 {"2.8b", 1.6e-6}, {"6.9b", 1.2e-6}, {"12b", 1.2e-6}};
    for (size_t i = 0; i < sizeof(paper) / sizeof(paper[0]); i++) {
        struct dm_config p;
        if (!dm_config_named(&p, paper[i].size, NULL) && p.L == c->L && p.C == c->C &&
            p.NH == c->NH)
            return paper[i].lr;
    }
    return 1e-5;
}

static enum dm_status head_dtype(const struct dm_train_opt *o, const struct dm_config *c,
                                 enum dm_dtype *t, struct dm_err *e)
{
    *t = c->dtype;
    return strcmp(o->dtype, "base") ? dm_dtype_parse(o->dtype, t, e) : DM_OK;
}

char *dm_heads_provenance(json_t *own, const struct dm_model_meta *base)
{
    json_t *parent = base->provenance ? json_loads(base->provenance, JSON_DECODE_ANY, NULL) : NULL;
    if (parent)
        json_object_set_new(own, "base", parent);
    return dm_json_text(own, JSON_COMPACT);
}

static enum dm_status write_model(const struct dm_run *r, json_t *provenance, struct dm_err *e)
{
    const struct dm_train_opt *o = r->opt;
    const struct dm_model *m = r->model;
    const struct dm_model_meta *base = r->meta;
    struct dm_model_meta meta = {
        .tokenizer = base->tokenizer, .hf_config = base->hf_config, .template = base->template};
    enum dm_dtype dtype;
    DM_TRY(head_dtype(o, &m->cfg, &dtype, e));
    meta.provenance = dm_heads_provenance(provenance, base);
    if (!meta.provenance)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", o->output);
    const bool joint = dm_train_opt_joint(o);
    enum dm_status st = dm_model_save(m, &meta, o->output, joint ? NULL : o->base,
                                      joint ? dtype : m->cfg.dtype, dtype, e);
    free(meta.provenance);
    return st;
}

enum dm_status dm_heads_peek(struct dm_config *c, char tokenizer_hash[DM_HASH_LEN + 1],
                             const char *path, struct dm_err *e)
{
    struct dm_model_meta meta;
    DM_TRY(dm_model_peek(path, c, &meta, e));
    *tokenizer_hash = '\0';
    if (meta.tokenizer)
        dm_sha256(meta.tokenizer, strlen(meta.tokenizer), tokenizer_hash);
    dm_model_meta_release(&meta);
    return DM_OK;
}

enum dm_status dm_heads_context(const struct dm_config *c, const struct dm_train_opt *o,
                                const char *where, struct dm_err *e)
{
    if (o->context > c->T_max)
        return dm_fail(e, DM_ERANGE, "--context %zu is more than the %zu positions of %s",
                       o->context, c->T_max, where);
    return DM_OK;
}

static struct dm_load_opt load_options(const struct dm_train_opt *o)
{
    const bool joint = dm_train_opt_joint(o), file = !strcmp(o->init, "file");
    return (struct dm_load_opt){.format = (int)dm_train_opt_format(o),
                                .masters = joint,
                                .gradients = !joint,
                                .heads = file,
                                .K = file ? 0 : o->heads,
                                .D = o->head_depth,
                                .from_final = !strcmp(o->head_input, "final"),
                                .copy = !strcmp(o->init, "copy")};
}

enum dm_status dm_heads_config(struct dm_config *c, char tokenizer_hash[DM_HASH_LEN + 1],
                               const struct dm_train_opt *o, struct dm_err *e)
{
    const struct dm_load_opt load = load_options(o);
    DM_TRY(dm_heads_peek(c, tokenizer_hash, o->base, e));
    DM_TRY(dm_load_config(c, &load, o->base, e));
    if (load.heads && c->K == 1)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: has no heads that --init file could start from",
                       o->base);
    return dm_heads_context(c, o, o->base, e);
}

enum dm_status dm_heads_model(struct dm_model *m, struct dm_model_meta *meta,
                              const struct dm_train_opt *o, struct dm_err *e)
{
    const struct dm_load_opt load = load_options(o);
    struct dm_config c;
    char tokenizer_hash[DM_HASH_LEN + 1];
    DM_TRY(dm_heads_config(&c, tokenizer_hash, o, e));
    DM_TRY(dm_model_load(m, o->base, &load, meta, e));
    if (!load.copy && !load.heads)
        dm_params_init_random(&m->params, &m->cfg, DM_SCOPE_HEADS, o->seed);
    return DM_OK;
}

enum dm_status dm_heads_template(struct dm_model_meta *meta, const struct dm_train_opt *o,
                                 struct dm_err *e)
{
    char *json;
    DM_TRY(dm_shard_common_template(&json, o->data.path, o->data.n, e));
    if (json) {
        free(meta->template);
        meta->template = json;
    }
    return DM_OK;
}

/* The rates that are not given. */
static enum dm_status set_rates(struct dm_train_opt *o, const struct dm_config *c, struct dm_err *e)
{
    if (o->lr == 0.0)
        o->lr = 100.0 * (o->base_lr > 0.0 ? o->base_lr : dm_heads_base_lr(c));
    if (o->base_lr == 0.0)
        o->base_lr = 0.01 * o->lr;
    if (o->min_lr > o->lr)
        return dm_fail(e, DM_ERANGE, "--min-lr %g is above the peak learning rate, %g", o->min_lr,
                       o->lr);
    return DM_OK;
}

enum dm_status dm_train_heads(const struct dm_train_opt *given, struct dm_train_report *out,
                              FILE *console, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    struct dm_train_opt own = *given;
    const struct dm_train_opt *o = &own;
    const enum dm_pass_kind kind = dm_train_opt_joint(o) ? DM_PASS_JOINT : DM_PASS_HEADS;
    struct dm_model m = {0};
    struct dm_model_meta meta = {0};
    char base_hash[DM_HASH_LEN + 1], tokenizer_hash[DM_HASH_LEN + 1];
    float weight[DM_PPL_MAX_HEADS];
    *out = (struct dm_train_report){0};
    DM_TRY_GOTO(dm_heads_model(&m, &meta, o, e));
    DM_TRY_GOTO(dm_heads_weights(weight, dm_step_first_head(kind), m.cfg.K, o->head_weights, e));
    DM_TRY_GOTO(dm_heads_template(&meta, o, e));
    DM_TRY_GOTO(set_rates(&own, &m.cfg, e));
    DM_TRY_GOTO(dm_model_hash(o->base, base_hash, e));
    if (meta.tokenizer)
        dm_sha256(meta.tokenizer, strlen(meta.tokenizer), tokenizer_hash);
    const struct dm_run run = {.opt = o,
                               .kind = kind,
                               .model = &m,
                               .head_weight = weight,
                               .tokenizer_hash = meta.tokenizer ? tokenizer_hash : NULL,
                               .base_hash = base_hash,
                               .console = console,
                               .write = write_model,
                               .meta = &meta};
    st = dm_run_train(&run, out, e);
done:
    dm_model_release(&m);
    dm_model_meta_release(&meta);
    return st;
}
