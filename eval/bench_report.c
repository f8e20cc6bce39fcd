/* SPDX-License-Identifier: MIT */
/* bench_report.c - the rows as tables for people and as JSON. */
#include <math.h>
#include <string.h>

#include "eval/bench_impl.h"
#include "src/kernel/kern.h"

static bool same_columns(const struct dm_bench_row *a, const struct dm_bench_row *b)
{
    if (a->n_values != b->n_values)
        return false;
    for (size_t i = 0; i < a->n_values; i++)
        if (strcmp(a->value[i].name, b->value[i].name))
            return false;
    return true;
}

/* Four digits are more than the noise leaves. */
static void print_number(double x, int width, FILE *out)
{
    const double a = fabs(x);
    fprintf(out, " %*.*f", width, a >= 1000.0 ? 0 : a >= 100.0 ? 1 : a >= 10.0 ? 2 : 3, x);
}

static void print_header(const struct dm_bench_row *r, int width, FILE *out)
{
    fprintf(out, "  %-*s %-6s %7s", width, "", "format", "threads");
    for (size_t i = 0; i < r->n_values; i++)
        fprintf(out, " %*s", (int)strlen(r->value[i].name) > 9 ? (int)strlen(r->value[i].name) : 9,
                r->value[i].name);
    fprintf(out, "   [min, max]\n");
}

static void print_row(const struct dm_bench_row *r, int width, FILE *out)
{
    fprintf(out, "  %-*s %-6s %7zu", width, r->name, r->fmt < 0 ? "-" : dm_bench_formats[r->fmt],
            r->threads);
    for (size_t i = 0; i < r->n_values; i++)
        print_number(r->value[i].s.median,
                     strlen(r->value[i].name) > 9 ? (int)strlen(r->value[i].name) : 9, out);
    const struct dm_bench_spread *last = &r->value[r->n_values - 1].s;
    fprintf(out, "   [");
    print_number(last->min, 0, out);
    fprintf(out, ",");
    print_number(last->max, 0, out);
    fprintf(out, " ]\n");
}

void dm_bench_print(const struct dm_bench *b, enum dm_bench_what what, FILE *out)
{
    const struct dm_bench_row *before = NULL;
    int width = 0;
    for (size_t i = 0; i < b->n_rows; i++)
        if (b->rows[i].what == what && (int)strlen(b->rows[i].name) > width)
            width = (int)strlen(b->rows[i].name);
    for (size_t i = 0; i < b->n_rows; i++) {
        const struct dm_bench_row *r = &b->rows[i];
        if (r->what != what || !r->n_values)
            continue;
        if (!before)
            fprintf(out, "%s\n", dm_bench_titles[what]);
        if (!before || !same_columns(before, r))
            print_header(r, width, out);
        print_row(r, width, out);
        before = r;
    }
    if (before)
        fputc('\n', out);
}

void dm_bench_print_goals(const struct dm_bench *b, FILE *out)
{
    struct dm_bench_goal goals[DM_BENCH_GOALS_MAX];
    const size_t n = b->opt.quick ? 0 : dm_bench_goals(b, goals, DM_BENCH_GOALS_MAX);
    size_t met = 0, elsewhere = 0;
    for (size_t i = 0; i < n; i++) {
        const struct dm_bench_goal *g = &goals[i];
        met += !g->elsewhere && dm_bench_goal_met(g);
        elsewhere += g->elsewhere;
        fprintf(out, "%s%s  want %s %-6.4g", i ? "" : "Goals of the project\n",
                g->elsewhere           ? "  (other)"
                : dm_bench_goal_met(g) ? "  met    "
                                       : "  missed ",
                g->at_most ? "<=" : ">=", g->goal);
        print_number(g->reached.median, 7, out);
        fprintf(out, "  %s\n", g->name);
    }
    if (n)
        fprintf(out, "  %zu of %zu met\n", met, n - elsewhere);
    if (elsewhere)
        fprintf(out, "  (other): beside figures of another machine, not judged; --peers takes this "
                     "one's\n");
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *spread_json(const struct dm_bench_spread *s)
{
    return json_pack("[f,f,f]", s->min, s->median, s->max);
}

static json_t *row_json(const struct dm_bench_row *r)
{
    json_t *o = json_pack("{s:s, s:s?, s:I}", "name", r->name, "format",
                          r->fmt < 0 ? NULL : dm_bench_formats[r->fmt], "threads",
                          (json_int_t)r->threads);
    for (size_t i = 0; i < r->n_values && o; i++)
        if (json_object_set_new(o, r->value[i].name, spread_json(&r->value[i].s))) {
            json_decref(o);
            o = NULL;
        }
    return o;
}

static json_t *sections_json(const struct dm_bench *b)
{
    json_t *o = json_object();
    for (size_t i = 0; i < b->n_rows && o; i++) {
        const char *word = dm_bench_words[b->rows[i].what];
        json_t *list = json_object_get(o, word);
        bool failed = false;
        if (!list) {
            list = json_array();
            failed = json_object_set_new(o, word, list) != 0;
        }
        if (failed || json_array_append_new(list, row_json(&b->rows[i]))) {
            json_decref(o);
            o = NULL;
        }
    }
    return o;
}

static json_t *goals_json(const struct dm_bench *b)
{
    struct dm_bench_goal goals[DM_BENCH_GOALS_MAX];
    const size_t n = dm_bench_goals(b, goals, DM_BENCH_GOALS_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < n && list; i++) {
        const struct dm_bench_goal *g = &goals[i];
        json_t *met = b->opt.quick || g->elsewhere ? json_null()
                                                   : json_boolean(dm_bench_goal_met(g));
        json_t *o = json_pack("{s:s, s:s, s:f, s:f, s:o, s:o}", "name", g->name, "want",
                              g->at_most ? "<=" : ">=", "goal", g->goal, "reached",
                              g->reached.median, "met", met, "runs", spread_json(&g->reached));
        if (json_array_append_new(list, o)) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *peer_files_json(const struct dm_bench *b)
{
    json_t *list = json_array();
    for (size_t i = 0; i < b->opt.n_peers && list; i++)
        if (json_array_append_new(list, json_string(b->opt.peers[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

json_t *dm_bench_to_json(const struct dm_bench *b)
{
    json_t *threads = json_array();
    for (size_t i = 0; i < b->opt.n_threads && threads; i++)
        if (json_array_append_new(threads, json_integer((json_int_t)b->opt.threads[i]))) {
            json_decref(threads);
            threads = NULL;
        }
    return json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:o, s:o, s:I, s:b, s:o, s:o, s:o}", "version",
                     DM_VERSION, "machine", b->cpu, "isa", dm_kern()->name, "model", b->opt.model,
                     "size", b->size, "config", dm_config_to_json(&b->opt.cfg), "threads", threads,
                     "runs", (json_int_t)b->opt.runs, "quick", b->opt.quick, "peers",
                     peer_files_json(b), "sections", sections_json(b), "goals", goals_json(b));
}
