/* SPDX-License-Identifier: MIT */
#include "train/pretrain.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/json.h"
#include "src/io/tokenizer.h"
#include "src/model/file.h"

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
    if (o->context > c->T_max)
        return dm_fail(e, DM_ERANGE, "--context %zu is more than the %zu positions of %s",
                       o->context, c->T_max, o->config);
    return dm_config_check(c, o->config, e);
}

static enum dm_status save(const struct dm_train_opt *o, const struct dm_model *m,
                           const struct dm_tokenizer *t, const json_t *provenance, struct dm_err *e)
{
    size_t n;
    struct dm_model_meta meta = {.tokenizer = strdup(dm_tokenizer_json(t, &n)),
                                 .provenance = json_dumps(provenance, JSON_COMPACT)};
    enum dm_status st;
    if (!meta.tokenizer || !meta.provenance)
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory", o->output);
    else
        st = dm_model_save(m, &meta, o->output, NULL, m->cfg.dtype, m->cfg.dtype, e);
    dm_model_meta_release(&meta);
    return st;
}

enum dm_status dm_pretrain(const struct dm_train_opt *o, struct dm_train_report *out, FILE *console,
                           struct dm_err *e)
{
    enum dm_status st = DM_OK;
    struct dm_tokenizer *t = NULL;
    struct dm_model m = {0};
    struct dm_config c;
    *out = (struct dm_train_report){0};
    DM_TRY_GOTO(dm_tokenizer_load(&t, o->tokenizer ? o->tokenizer : o->data.path[0], e));
    DM_TRY_GOTO(make_config(&c, o, t, e));
    DM_TRY_GOTO(dm_model_init(&m, &c, e));
    dm_model_set_format(&m, dm_train_opt_format(o));
    dm_params_init_random(&m.params, &c, DM_SCOPE_BASE, o->seed);
    const struct dm_run run = {.opt = o,
                               .kind = DM_PASS_BASE,
                               .model = &m,
                               .tokenizer_hash = dm_tokenizer_hash(t),
                               .console = console};
    DM_TRY_GOTO(dm_run_train(&run, out, e));
    if (out->steps == out->total_steps)
        st = save(o, &m, t, out->provenance, e);
    if (st)
        dm_train_report_release(out);
done:
    dm_model_release(&m);
    dm_tokenizer_free(t);
    return st;
}
