/* SPDX-License-Identifier: MIT */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/opt.h"
#include "src/cmd.h"

struct options {
    const char **run; /* (n) as given */
    size_t n;
    const char *output, *title;
    bool json;
};

enum { OPT_TITLE = 256, OPT_JSON };

static const struct argp_option table[] = {
    {"output", 'o', "FILE", 0, "Write the page there (needed)", 0},
    {"title", OPT_TITLE, "TEXT", 0, "Its title (dynamo report)", 0},
    {"json", OPT_JSON, 0, 0, "Say as JSON what was read and which sections there are", 0},
    {0}};

static const char doc[] =
    "Show runs as one page of HTML, which needs no network and no other file: training curves, "
    "speed against quality, the mixture of one, two and three tokens, the joint distribution of a "
    "step, text side by side, evaluations, benchmarks, settings and provenance."
    "\vRUN is a file or a folder of them, told by what is in it: a training log "
    "(HEADS.log.jsonl), a model or another HDF5 file of dynamo, the --json of calibrate, eval, "
    "bench, train or generate, or a --trace. Several of a kind are compared. What there are no "
    "data for is left out, and the page says which command makes them.\n\n"
    "Examples:\n"
    "  dynamo report heads.h5 heads.log.jsonl dynamo.json base.json -o report.html\n"
    "  dynamo report build/quickstart -o report.html";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct options *o = s->input;
    switch (key) {
    case 'o':
        o->output = arg;
        break;
    case OPT_TITLE:
        o->title = arg;
        break;
    case OPT_JSON:
        o->json = true;
        break;
    case ARGP_KEY_ARG:
        o->run[o->n++] = arg;
        break;
    case ARGP_KEY_END:
        dm_opt_need(s, "RUN", o->n ? o : NULL);
        dm_opt_need(s, "-o FILE", o->output);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* Takes sections over. */
static void say(const struct options *o, const struct dm_runs *r, json_t *sections)
{
    json_t *runs = json_array();
    if (!o->json) {
        printf("%s: %zu sections of %zu runs\n", o->output,
               json_array_size(json_object_get(sections, "made")), r->n);
        json_decref(sections);
        json_decref(runs);
        return;
    }
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(runs, json_pack("{s:s, s:s}", "label", r->run[i].label, "kind",
                                              dm_run_kind_names[r->run[i].kind]));
    json_object_set_new(sections, "runs", runs);
    json_object_set(sections, "passed_over", r->passed_over);
    dm_json_print(sections);
}

static enum dm_status run(const struct options *o, struct dm_err *e)
{
    struct dm_runs runs = {0};
    char *html = NULL;
    size_t n;
    json_t *sections = NULL;
    enum dm_status st = DM_OK;
    for (size_t i = 0; i < o->n; i++)
        DM_TRY_GOTO(dm_runs_add(&runs, o->run[i], e));
    for (size_t i = 0; i < runs.n; i++) // of folders, too
        DM_TRY_GOTO(dm_file_check_output(o->output, (const char *const[]){runs.run[i].path}, 1, e));
    DM_TRY_GOTO(dm_report_page(&runs, o->title, &html, &n, &sections, e));
    DM_TRY_GOTO(dm_file_write(o->output, html, n, e));
    say(o, &runs, sections);
    sections = NULL;
done:
    json_decref(sections);
    free(html);
    dm_runs_release(&runs);
    return st;
}

int cmd_report(int argc, char **argv)
{
    static const struct argp argp = {table, parse, "RUN...", doc, NULL, NULL, NULL};
    struct options o = {.title = "dynamo report"};
    struct dm_err e;
    o.run = dm_alloc((size_t)argc, sizeof(*o.run));
    enum dm_status st = o.run ? DM_OK : dm_fail(&e, DM_ENOMEM, "out of memory");
    if (!st) {
        argp_parse(&argp, argc, argv, 0, NULL, &o);
        st = run(&o, &e);
    }
    free(o.run);
    if (st)
        fprintf(stderr, "dynamo report: %s\n", e.msg);
    return st ? 1 : 0;
}
