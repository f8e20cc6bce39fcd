/* SPDX-License-Identifier: MIT */
/* Ways to make and to trust the joint distribution, on the same prompts and with the same seeds:
 * scripts/compare_joints names them and compares what this program measures.
 *
 *   compare_joints MODEL.h5 TABLE.h5 HELDOUT.h5 VARIANTS.json [PROMPTS [SAMPLES [SEED]]]
 *
 * VARIANTS.json holds {"eps": [..], "variants": {"name": {"mode": .., options as in a calibration},
 * ..}}. One
 * JSON line per variant and eps_b, and one of the base alone, with its own seeds and with others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/calibrate.h"
#include "eval/trial.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/progress.h"
#include "src/model/file.h"

enum { PROMPT = 32, TEXT = 64, SETTINGS = 512, FILE_MAX = 1 << 20 };

struct compare {
    struct dm_model m;
    struct dm_model_meta meta;
    struct dm_cooc table;
    struct dm_shard *shard;
    struct dm_trial trial;
    struct dm_trial_setting set[SETTINGS];
    const char *name[SETTINGS];
    size_t n;
    int32_t *ids;
    size_t *start;
    json_t *variants;
    struct dm_fit fit;
};

/* The fit of the model's calibration, for the variants that want it. */
static enum dm_status take_fit(struct compare *c, const char *path, struct dm_err *e)
{
    struct dm_gen_opt g = dm_gen_opt_default();
    if (c->meta.calibration)
        DM_TRY(dm_gen_opt_calibrated(&g, c->meta.calibration, path, e));
    c->fit = g.fit;
    return DM_OK;
}

static enum dm_status one_setting(struct dm_gen_opt *o, const struct dm_fit *fit, const json_t *one,
                                  const char *path, struct dm_err *e)
{
    const char *mode = NULL;
    char *text = json_dumps(one, 0);
    if (!text)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    *o = dm_gen_opt_default();
    o->fit = *fit;
    enum dm_status st = dm_gen_opt_calibrated(o, text, path, e);
    free(text);
    DM_TRY(st);
    DM_TRY(dm_json_string(one, "mode", false, path, &mode, e));
    for (int i = 0; mode && dm_gen_mode_names[i]; i++)
        if (!strcmp(mode, dm_gen_mode_names[i]))
            o->mode = (enum dm_gen_mode)i;
    return DM_OK;
}

/* The base and its control, then every variant at every eps_b. */
static enum dm_status settings(struct compare *c, const char *path, struct dm_err *e)
{
    const char *name;
    char *text;
    size_t n, i;
    json_t *one, *eps;
    DM_TRY(dm_file_read(path, FILE_MAX, &text, &n, e));
    enum dm_status st = dm_json_parse(text, n, path, &c->variants, e);
    free(text);
    DM_TRY(st);
    for (c->n = 0; c->n < 2; c->n++) {
        c->name[c->n] = c->n ? "control" : "base";
        c->set[c->n] = (struct dm_trial_setting){.gen = dm_gen_opt_default(),
                                                 .seed = c->n ? 1 << 20 : 0};
        c->set[c->n].gen.mode = DM_GEN_AR;
    }
    json_object_foreach(json_object_get(c->variants, "variants"), name, one)
        json_array_foreach(json_object_get(c->variants, "eps"), i, eps)
    {
        if (c->n == SETTINGS)
            return dm_fail(e, DM_ERANGE, "%s: more than %d settings", path, SETTINGS);
        struct dm_trial_setting *s = &c->set[c->n];
        *s = (struct dm_trial_setting){.table = true};
        DM_TRY(one_setting(&s->gen, &c->fit, one, path, e));
        s->gen.eps_b = json_number_value(eps);
        c->name[c->n++] = name;
    }
    return DM_OK;
}

static enum dm_status load(struct compare *c, char **argv, size_t prompts, struct dm_err *e)
{
    DM_TRY(dm_model_load(&c->m, argv[1], &(struct dm_load_opt){.format = DM_FORMAT_AUTO}, &c->meta,
                         e));
    DM_TRY(dm_cooc_load_for(&c->table, argv[2], true, true, e));
    DM_TRY(dm_shard_open(&c->shard, argv[3], e));
    c->ids = dm_alloc(prompts * PROMPT, sizeof(*c->ids));
    c->start = dm_alloc(prompts + 1, sizeof(*c->start));
    if (!c->ids || !c->start)
        return dm_fail(e, DM_ENOMEM, "out of memory for the prompts");
    for (size_t i = 0; i <= prompts; i++)
        c->start[i] = i * PROMPT;
    DM_TRY(dm_cal_prompts(c->ids, prompts, PROMPT, 1, c->shard, e));
    DM_TRY(take_fit(c, argv[1], e));
    return settings(c, argv[4], e);
}

static enum dm_status report(const struct compare *c, struct dm_err *e)
{
    for (size_t i = 0; i < c->n; i++) {
        struct dm_trial_sum s;
        DM_TRY(dm_trial_summarise(&s, &c->trial, i, 0, e));
        json_t *j = dm_trial_sum_to_json(&s);
        if (!j)
            return dm_fail(e, DM_ENOMEM, "out of memory for the report");
        json_object_set_new(j, "variant", json_string(c->name[i]));
        json_object_set_new(j, "eps_b", json_real(i < 2 ? 1 : c->set[i].gen.eps_b));
        json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(j);
    }
    return DM_OK;
}

static bool show(void *ctx, double share)
{
    dm_progress_set(ctx, share * 100, NULL);
    return true;
}

int main(int argc, char **argv)
{
    struct dm_err e;
    struct dm_progress progress;
    if (argc < 5) {
        fprintf(stderr, "usage: compare_joints MODEL.h5 TABLE.h5 HELDOUT.h5 VARIANTS.json "
                        "[PROMPTS [SAMPLES [SEED]]]\n");
        return 2;
    }
    struct compare *c = calloc(1, sizeof(*c));
    if (!c)
        return 1;
    const size_t prompts = argc > 5 ? strtoul(argv[5], NULL, 10) : 128;
    enum dm_status st = load(c, argv, prompts, &e);
    if (!st) {
        const struct dm_trial_opt o = {.model = &c->m,
                                       .cooc = &c->table,
                                       .settings = c->set,
                                       .n_settings = c->n,
                                       .prompts = {c->ids, c->start, prompts},
                                       .samples = argc > 6 ? strtoul(argv[6], NULL, 10) : 1,
                                       .tokens = TEXT,
                                       .seed = argc > 7 ? strtoull(argv[7], NULL, 10) : 1};
        dm_progress_init(&progress, "comparing", "%", 100);
        st = dm_trial_run(&c->trial, &o, show, &progress, &e);
        dm_progress_end(&progress);
    }
    if (!st)
        st = report(c, &e);
    if (st)
        fprintf(stderr, "compare_joints: %s\n", e.msg);
    dm_trial_release(&c->trial);
    json_decref(c->variants);
    free(c->ids);
    free(c->start);
    dm_shard_close(c->shard);
    dm_cooc_release(&c->table);
    dm_model_meta_release(&c->meta);
    dm_model_release(&c->m);
    free(c);
    return st ? 1 : 0;
}
