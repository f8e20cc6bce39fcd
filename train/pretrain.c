/* SPDX-License-Identifier: MIT */
#include "train/pretrain.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/hash.h"
#include "src/base/json.h"
#include "src/io/tokenizer.h"
#include "src/model/file.h"
#include "train/heads.h"

#define CONFIG_BYTES ((size_t)1 << 20)
#define MAX_ROWS ((size_t)1 << 24)

static enum dm_status read_config(struct dm_config *c, const char *config, struct dm_err *e)
{
    json_t *root;
    if (access(config, F_OK) && !strchr(config, '/') && !strchr(config, '.'))
        return dm_config_named(c, config, e);
    if (access(config, F_OK) && !strchr(config, '/') && dm_config_named(c, config, NULL) == DM_OK)
        return DM_OK; // 1.4b has a point
    DM_TRY(dm_json_read(config, CONFIG_BYTES, &root, e));
    enum dm_status st = dm_config_from_json(c, root, config, e);
    json_decref(root);
    return st;
}

/* --vocab-rows */
static enum dm_status choose_rows(struct dm_config *c, const char *rows, struct dm_err *e)
{
    char *end;
    if (!strcmp(rows, "auto"))
        c->Vp = (c->V + 63) / 64 * 64;
    else if (strcmp(rows, "config")) {
        const unsigned long long n = strtoull(rows, &end, 10);
        if (*rows < '0' || *rows > '9' || *end || !n || n > MAX_ROWS)
            return dm_fail(e, DM_ERANGE,
                           "--vocab-rows \"%s\" is neither config, auto nor a number up to %zu",
                           rows, MAX_ROWS);
        c->Vp = (size_t)n;
    }
    if (c->V > c->Vp)
        return dm_fail(e, DM_ERANGE,
                       "the tokenizer has %zu tokens, more than the %zu rows of the embeddings; "
                       "--vocab-rows auto makes as many as needed",
                       c->V, c->Vp);
    return DM_OK;
}

static enum dm_status make_config(struct dm_config *c, const struct dm_train_opt *o,
                                  const struct dm_tokenizer *t, struct dm_err *e)
{
    DM_TRY(read_config(c, o->config, e));
    if (c->K != 1)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "%s: has %zu token heads; pretrain makes a base, dynamo train adds heads",
                       o->config, c->K);
    c->V = dm_tokenizer_size(t);
    c->eos = (int)dm_tokenizer_eos(t);
    DM_TRY(dm_dtype_parse(o->dtype, &c->dtype, e));
    DM_TRY(choose_rows(c, o->vocab_rows, e));
    DM_TRY(dm_heads_context(c, o, o->config, e));
    return dm_config_check(c, o->config, e);
}

enum dm_status dm_pretrain_config(struct dm_config *c, char tokenizer_hash[DM_HASH_LEN + 1],
                                  const struct dm_train_opt *o, struct dm_err *e)
{
    struct dm_tokenizer *t;
    if (o->from) {
        DM_TRY(dm_heads_peek(c, tokenizer_hash, o->from, e));
        if (c->K != 1)
            return dm_fail(e, DM_EUNSUPPORTED,
                           "%s: has %zu token heads; dynamo train --init file trains them further",
                           o->from, c->K);
        return dm_heads_context(c, o, o->from, e);
    }
    DM_TRY(dm_tokenizer_load(&t, o->tokenizer ? o->tokenizer : o->data.path[0], e));
    const enum dm_status st = make_config(c, o, t, e);
    memcpy(tokenizer_hash, dm_tokenizer_hash(t), DM_HASH_LEN + 1);
    dm_tokenizer_free(t);
    return st;
}

static enum dm_status write_model(const struct dm_run *r, json_t *provenance, struct dm_err *e)
{
    const struct dm_model *m = r->model;
    const char *output = r->opt->output;
    struct dm_model_meta meta = *r->meta;
    meta.calibration = NULL; // of other weights
    meta.provenance = dm_heads_provenance(provenance, r->meta);
    if (!meta.provenance)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", output);
    const enum dm_status st = dm_model_save(m, &meta, output, NULL, m->cfg.dtype, m->cfg.dtype, e);
    free(meta.provenance);
    return st;
}

/* A new model, with the tokenizer that it will carry. */
static enum dm_status make_model(struct dm_model *m, struct dm_model_meta *meta,
                                 const struct dm_train_opt *o, struct dm_err *e)
{
    struct dm_tokenizer *t;
    struct dm_config c;
    DM_TRY(dm_tokenizer_load(&t, o->tokenizer ? o->tokenizer : o->data.path[0], e));
    enum dm_status st = make_config(&c, o, t, e);
    meta->tokenizer = strdup(dm_tokenizer_json(t, NULL));
    dm_tokenizer_free(t);
    if (!st && !meta->tokenizer)
        st = dm_fail(e, DM_ENOMEM, "out of memory for the tokenizer");
    DM_TRY(st);
    DM_TRY(dm_model_init(m, &c, e));
    dm_model_set_format(m, dm_train_opt_format(o));
    dm_params_init_random(&m->params, &c, DM_SCOPE_BASE, o->seed);
    return DM_OK;
}

/* --from: everything is that model's. */
static enum dm_status load_model(struct dm_model *m, struct dm_model_meta *meta, char *hash,
                                 const struct dm_train_opt *o, struct dm_err *e)
{
    const struct dm_load_opt load = {.format = (int)dm_train_opt_format(o), .masters = true};
    struct dm_config c;
    char tokenizer_hash[DM_HASH_LEN + 1];
    DM_TRY(dm_pretrain_config(&c, tokenizer_hash, o, e));
    DM_TRY(dm_model_load(m, o->from, &load, meta, e));
    return dm_model_hash(o->from, hash, e);
}

enum dm_status dm_pretrain(const struct dm_train_opt *o, struct dm_train_report *out, FILE *console,
                           struct dm_err *e)
{
    enum dm_status st = DM_OK;
    struct dm_model m = {0};
    struct dm_model_meta meta = {0};
    char from_hash[DM_HASH_LEN + 1], tokenizer_hash[DM_HASH_LEN + 1];
    *out = (struct dm_train_report){0};
    DM_TRY_GOTO(o->from ? load_model(&m, &meta, from_hash, o, e) : make_model(&m, &meta, o, e));
    DM_TRY_GOTO(dm_heads_template(&meta, o, e));
    if (meta.tokenizer)
        dm_sha256(meta.tokenizer, strlen(meta.tokenizer), tokenizer_hash);
    const struct dm_run run = {.opt = o,
                               .kind = DM_PASS_BASE,
                               .model = &m,
                               .tokenizer_hash = meta.tokenizer ? tokenizer_hash : NULL,
                               .base_hash = o->from ? from_hash : NULL,
                               .console = console,
                               .write = write_model,
                               .meta = &meta};
    st = dm_run_train(&run, out, e);
done:
    dm_model_release(&m);
    dm_model_meta_release(&meta);
    return st;
}
