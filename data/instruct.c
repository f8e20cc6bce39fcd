/* SPDX-License-Identifier: MIT */
#include "data/instruct.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/objects.h"
#include "data/tokenize.h"
#include "src/base/json.h"
#include "src/base/stop.h"
#include "src/io/shard.h"

enum { INSTRUCTION, INPUT, OUTPUT, N_FIELDS, FIELD_MAX = 64 };

struct job {
    const struct dm_instruct *k;
    char field[N_FIELDS][FIELD_MAX];
    struct dm_encoder *encoder;
    struct dm_shard_writer *w;
    struct dm_ids ids;
    struct dm_instruct_stats *stats;
};

static enum dm_status parse_fields(struct job *j, struct dm_err *e)
{
    const char *text = j->k->fields ? j->k->fields : "instruction,input,output", *at = text;
    for (int i = 0; i < N_FIELDS; i++) {
        const size_t n = strcspn(at, ",");
        if (n >= FIELD_MAX || (!n && i != INPUT) || at[n] != (i + 1 < N_FIELDS ? ',' : '\0'))
            return dm_fail(e, DM_ERANGE,
                           "fields \"%s\": want the names of instruction, input and output with "
                           "commas between, for example question,,answer",
                           text);
        memcpy(j->field[i], at, n);
        at += n + 1;
    }
    return DM_OK;
}

/* A member of the instance, else of the object around it; "" when it may be missing. */
static enum dm_status get(const struct job *j, const json_t *in, const json_t *around, int field,
                          const char *where, const char **text, struct dm_err *e)
{
    const char *key = j->field[field];
    const json_t *v = json_object_get(in, key);
    *text = "";
    if (!*key)
        return DM_OK;
    DM_TRY(dm_json_string(v ? in : around, key, field != INPUT, where, text, e));
    v = v ? v : json_object_get(around, key);
    if (json_is_string(v) && strlen(*text) != json_string_length(v))
        return dm_fail(e, DM_EFORMAT, "%s: \"%s\" holds a zero byte", where, key);
    return DM_OK;
}

/* Encodes n bytes behind what is there; their ids are targets or not. */
static enum dm_status encode(struct job *j, const char *text, size_t n, bool target,
                             uint64_t *count, struct dm_err *e)
{
    const size_t from = j->ids.n;
    DM_TRY(dm_encoder_encode(j->encoder, text, n, &j->ids, e));
    for (size_t i = from; !target && i < j->ids.n; i++)
        j->ids.id[i] = ~j->ids.id[i];
    *count += j->ids.n - from;
    return DM_OK;
}

static enum dm_status example(struct job *j, const json_t *in, const json_t *around,
                              const char *where, struct dm_err *e)
{
    const char *field[N_FIELDS];
    char *prompt;
    size_t n;
    for (int i = 0; i < N_FIELDS; i++)
        DM_TRY(get(j, in, around, i, where, &field[i], e));
    if (!*field[OUTPUT]) {
        j->stats->skipped++;
        return DM_OK;
    }
    struct dm_err why;
    enum dm_status st = dm_template_prompt(j->k->template, field[INSTRUCTION], field[INPUT],
                                           &prompt, &n, &why);
    if (st)
        return dm_fail(e, st, "%s: %s", where, why.msg);
    j->ids.n = 0;
    st = encode(j, prompt, n, false, &j->stats->prompt_tokens, e);
    free(prompt);
    DM_TRY(st);
    DM_TRY(encode(j, field[OUTPUT], strlen(field[OUTPUT]), true, &j->stats->response_tokens, e));
    DM_TRY(dm_ids_push(&j->ids, DM_SEPARATOR, e));
    j->stats->examples++;
    return dm_shard_append(j->w, j->ids.id, j->ids.n, e);
}

static enum dm_status object(void *ctx, const json_t *o, const char *where, struct dm_err *e)
{
    struct job *j = ctx;
    if (dm_stop_requested())
        return dm_fail(e, DM_ESTOPPED, "stopped by a signal");
    const json_t *instances = json_object_get(o, "instances");
    if (!json_is_array(instances))
        return example(j, o, o, where, e);
    for (size_t i = 0; i < json_array_size(instances); i++) {
        const json_t *in = json_array_get(instances, i);
        if (!json_is_object(in))
            return dm_fail(e, DM_EFORMAT, "%s: instance %zu is %s, want an object", where, i + 1,
                           dm_json_type(in));
        DM_TRY(example(j, in, o, where, e));
    }
    return DM_OK;
}

enum dm_status dm_instruct_shard(const struct dm_instruct *k, const char *out, int argc,
                                 char *const *argv, struct dm_instruct_stats *stats,
                                 struct dm_err *e)
{
    struct job j = {.k = k, .stats = stats};
    enum dm_status st = DM_OK;
    *stats = (struct dm_instruct_stats){0};
    DM_TRY_GOTO(parse_fields(&j, e));
    DM_TRY_GOTO(dm_encoder_new(&j.encoder, k->tokenizer, e));
    DM_TRY_GOTO(dm_tokenize_create(&j.w, k->tokenizer, k->paths, k->n_paths, out, argc, argv, e));
    DM_TRY_GOTO(dm_shard_set_template(j.w, k->template->json, e));
    for (size_t i = 0; i < k->n_paths; i++)
        DM_TRY_GOTO(dm_objects_each(k->paths[i], object, &j, e));
    if (!stats->examples) {
        st = dm_fail(e, DM_EFORMAT, "%s: no example with a response", k->paths[0]);
        goto done;
    }
    st = dm_shard_commit(j.w, e);
    j.w = NULL;
done:
    dm_shard_abort(j.w);
    dm_encoder_free(j.encoder);
    dm_ids_release(&j.ids);
    return st;
}
