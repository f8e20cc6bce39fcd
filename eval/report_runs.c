/* SPDX-License-Identifier: MIT */
/* report_runs.c - reads the files of a report and tells what they are. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "eval/report.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/utf8.h"
#include "src/model/file.h"
#include "src/model/info.h"

enum { MAX_FILE = 256 << 20, KINDS = DM_RUN_TRACE + 1 };

const char *const dm_run_kind_names[] = {
#define X(name, text) text,
    DM_RUN_KINDS(X)
#undef X
};

static const char wanted[] =
    "training log (*.log.jsonl), HDF5 file of dynamo, --json of calibrate, "
    "eval, bench, train or generate, --trace of generate";

/* Objects that name their command, and those that are known by their keys. */
static const struct {
    enum dm_run_kind kind;
    const char *command, *keys[3];
} signs[] = {{DM_RUN_CALIBRATE, "calibrate", {"evidence", "eps_b"}},
             {DM_RUN_EVAL, "eval", {"model", "tasks"}},
             {DM_RUN_BENCH, "bench", {"sections", "goals", "isa"}},
             {DM_RUN_TRAIN, "train", {"total_steps", "loss", "seconds"}},
             {DM_RUN_TRAIN, "pretrain", {NULL}},
             {DM_RUN_TEXT, "generate", {"text", "ids", "options"}},
             {DM_RUN_LOG, NULL, {"step", "lr", "loss"}},
             {DM_RUN_TRACE, NULL, {"step", "tokens", "orders"}}};

static bool tell(const json_t *o, enum dm_run_kind *kind)
{
    const char *command = json_string_value(json_object_get(o, "command"));
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
        bool fits = command && signs[i].command && !strcmp(command, signs[i].command);
        size_t have = 0, want = 0;
        for (; want < 3 && signs[i].keys[want]; want++)
            have += json_object_get(o, signs[i].keys[want]) != NULL;
        if (!command && want)
            fits = have == want;
        if (fits) {
            *kind = signs[i].kind;
            return true;
        }
    }
    return false;
}

/* ---- Adding ---------------------------------------------------------------------------------- */

/* A name that can be shown: UTF-8 without control characters. Heap. */
static char *clean_name(const char *s)
{
    size_t n;
    char *clean = dm_utf8_clean(s, strlen(s), &n);
    for (size_t i = 0; clean && i < n; i++)
        if ((unsigned char)clean[i] < 0x20 || clean[i] == 0x7f)
            clean[i] = '?';
    return clean;
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* Names that are equal become paths. */
static enum dm_status name_run(struct dm_runs *r, struct dm_run *run, struct dm_err *e)
{
    run->label = clean_name(last_part(run->path));
    for (size_t i = 0; i < r->n && run->label; i++) {
        struct dm_run *other = &r->run[i];
        if (strcmp(last_part(other->path), last_part(run->path)) || !strcmp(other->path, run->path))
            continue;
        free(other->label);
        free(run->label);
        other->label = clean_name(other->path);
        run->label = clean_name(run->path);
        if (!other->label)
            break;
    }
    for (size_t i = 0; i < r->n; i++)
        if (!r->run[i].label)
            return dm_fail(e, DM_ENOMEM, "out of memory for the name of a run");
    return run->label ? DM_OK : dm_fail(e, DM_ENOMEM, "out of memory for the name of a run");
}

/* Takes root over in any case. */
static enum dm_status add(struct dm_runs *r, enum dm_run_kind kind, const char *path, json_t *root,
                          struct dm_err *e)
{
    if (r->n == r->cap) {
        const size_t cap = r->cap ? 2 * r->cap : 8;
        struct dm_run *more = dm_realloc(r->run, cap, sizeof(*more));
        if (!more) {
            json_decref(root);
            return dm_fail(e, DM_ENOMEM, "out of memory for %zu runs", cap);
        }
        r->run = more;
        r->cap = cap;
    }
    struct dm_run run = {kind, strdup(path), NULL, root};
    enum dm_status st = run.path ? name_run(r, &run, e)
                                 : dm_fail(e, DM_ENOMEM, "out of memory for the name of a run");
    if (st) {
        free(run.path);
        free(run.label);
        json_decref(root);
        return st;
    }
    r->run[r->n++] = run;
    return DM_OK;
}

static enum dm_status add_h5(struct dm_runs *r, const char *path, struct dm_err *e)
{
    json_t *root;
    DM_TRY(dm_info_file(path, &root, e));
    const char *format = json_string_value(json_object_get(root, "format"));
    const bool model = format && !strcmp(format, DM_MODEL_FORMAT);
    return add(r, model ? DM_RUN_MODEL : DM_RUN_OTHER, path, root, e);
}

/* ---- JSON and JSON lines ----------------------------------------------------------------------
 */

/* The next line that is not blank: its length, and *at behind it; 0 at the end. */
static size_t next_line(const char *text, size_t n, size_t *at, const char **line)
{
    while (*at < n) {
        const char *start = text + *at, *end = memchr(start, '\n', n - *at);
        const size_t length = end ? (size_t)(end - start) : n - *at;
        *at += length + (end ? 1 : 0);
        if (strspn(start, " \t\r") < length) {
            *line = start;
            return length;
        }
    }
    return 0;
}

static enum dm_status bad_line(const char *path, size_t number, enum dm_run_kind kind,
                               struct dm_err *e)
{
    return dm_fail(e, DM_EFORMAT, "%s: line %zu is not one of a %s", path, number,
                   dm_run_kind_names[kind]);
}

/* All lines are objects of one kind. A log whose last line is not whole, because the run still
 * writes it, is read up to there. */
static enum dm_status add_lines(struct dm_runs *r, enum dm_run_kind kind, const char *path,
                                const char *text, size_t n, struct dm_err *e)
{
    json_t *rows = json_array(), *o;
    enum dm_status st = DM_OK;
    const char *line = text;
    size_t at = 0, length, number = 0;
    while (!st && (length = next_line(text, n, &at, &line))) {
        enum dm_run_kind is = kind;
        number++;
        st = dm_json_parse(line, length, path, &o, e);
        if (st == DM_EFORMAT && kind == DM_RUN_LOG && at == n && text[n - 1] != '\n') {
            st = DM_OK;
            break;
        }
        if (!st && (!tell(o, &is) || is != kind))
            st = bad_line(path, number, kind, e);
        if (!st && kind == DM_RUN_TEXT)
            st = add(r, kind, path, json_incref(o), e);
        else if (!st && json_array_append(rows, o))
            st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        json_decref(o);
    }
    if (!st && kind != DM_RUN_TEXT)
        return add(r, kind, path, rows, e);
    json_decref(rows);
    return st;
}

static enum dm_status add_text(struct dm_runs *r, const char *path, const char *text, size_t n,
                               struct dm_err *e)
{
    json_t *o = NULL;
    const char *line = text;
    enum dm_run_kind kind;
    size_t at = 0;
    const size_t length = next_line(text, n, &at, &line);
    const char *first = text + strspn(text, " \t\r\n");
    if (*first != '{')
        return dm_fail(e, DM_EFORMAT, "%s: is none of %s", path, wanted);
    // A first line that is an object of its own: JSON lines, of which there may be one.
    enum dm_status st = dm_json_parse(line, length, path, &o, NULL);
    const bool lines = !st;
    if (st == DM_EFORMAT)
        st = dm_json_parse(text, n, path, &o, e);
    if (st)
        return st == DM_ENOMEM ? dm_fail(e, st, "%s: out of memory", path) : st;
    const bool known = tell(o, &kind);
    if (!known)
        st = dm_fail(e, DM_EFORMAT, "%s: is none of %s", path, wanted);
    else if (kind == DM_RUN_LOG || kind == DM_RUN_TRACE || (kind == DM_RUN_TEXT && lines))
        st = add_lines(r, kind, path, text, n, e);
    else if (lines && next_line(text, n, &at, &line))
        st = dm_fail(e, DM_EFORMAT, "%s: more than one JSON object", path);
    else
        st = add(r, kind, path, json_incref(o), e);
    json_decref(o);
    return st;
}

static enum dm_status add_file(struct dm_runs *r, const char *path, struct dm_err *e)
{
    char *text;
    size_t n;
    if (dm_file_is_h5(path))
        return add_h5(r, path, e);
    DM_TRY(dm_file_read(path, MAX_FILE, &text, &n, e));
    const enum dm_status st = add_text(r, path, text, n, e);
    free(text);
    return st;
}

/* ---- Folders -----------------------------------------------------------------------------------
 */

/* Without reading all of it: HDF5, or text whose first line may be one of ours. */
static bool may_be_ours(const char *path)
{
    enum dm_run_kind kind;
    if (dm_file_is_h5(path))
        return true;
    FILE *f = dm_file_begins(path, "{", 1) ? fopen(path, "re") : NULL;
    char *line = NULL;
    size_t cap = 0;
    json_t *o = NULL;
    const ssize_t n = f ? getline(&line, &cap, f) : -1;
    // a line that is not whole JSON may be the first of an indented object
    const bool ours = n > 0 &&
                      (dm_json_parse(line, (size_t)n, path, &o, NULL) ? n < 8 : tell(o, &kind));
    json_decref(o);
    free(line);
    if (f)
        fclose(f);
    return ours;
}

static int visible(const struct dirent *d)
{
    return d->d_name[0] != '.' && !strstr(d->d_name, ".tmp.");
}

static enum dm_status add_entry(struct dm_runs *r, const char *folder, const char *name,
                                struct dm_err *e)
{
    char *path;
    struct stat s;
    struct dm_err why;
    if (asprintf(&path, "%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/", name) < 0)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    enum dm_status st = DM_OK;
    if (!stat(path, &s) && S_ISREG(s.st_mode)) {
        st = may_be_ours(path) ? add_file(r, path, &why) : DM_EFORMAT;
        if (st == DM_ENOMEM) {
            dm_fail(e, st, "%s", why.msg);
        } else if (st) {
            char *shown = clean_name(path);
            json_array_append_new(r->passed_over, json_string(shown ? shown : "?"));
            free(shown);
            st = DM_OK;
        }
    }
    free(path);
    return st;
}

static enum dm_status add_folder(struct dm_runs *r, const char *path, struct dm_err *e)
{
    struct dirent **list;
    const size_t before = r->n;
    const int n = scandir(path, &list, visible, alphasort);
    if (n < 0)
        return dm_fail_errno(e, "%s: cannot be listed", path);
    enum dm_status st = DM_OK;
    for (int i = 0; i < n; i++) {
        if (!st)
            st = add_entry(r, path, list[i]->d_name, e);
        free(list[i]);
    }
    free(list);
    if (!st && r->n == before)
        st = dm_fail(e, DM_EFORMAT, "%s: no file in this folder is one of %s", path, wanted);
    return st;
}

enum dm_status dm_runs_add(struct dm_runs *r, const char *path, struct dm_err *e)
{
    struct stat s;
    if (!r->passed_over && !(r->passed_over = json_array()))
        return dm_fail(e, DM_ENOMEM, "out of memory");
    if (!*path)
        return dm_fail(e, DM_EIO, "a run with an empty name");
    if (!stat(path, &s) && S_ISDIR(s.st_mode))
        return add_folder(r, path, e);
    return add_file(r, path, e);
}

void dm_runs_release(struct dm_runs *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->run[i].path);
        free(r->run[i].label);
        json_decref(r->run[i].root);
    }
    free(r->run);
    json_decref(r->passed_over);
    *r = (struct dm_runs){0};
}
