/* SPDX-License-Identifier: MIT */
#include "src/model/verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/file.h"
#include "src/base/hash.h"
#include "src/io/tokenizer.h"
#include "src/model/fingerprint.h"
#include "src/model/hf.h"

enum { SCAN = 4096, SUMS_MAX = 1 << 20, PROBLEMS_MAX = 1000 };

/* A file under examination, and what was found. */
struct patient {
    const char *path; /* for sentences */
    struct dm_h5 *f;
    struct dm_config cfg;
    struct dm_model_meta meta;
    struct dm_tensor *list;
    size_t n;
    json_t *problems;
};

/* What e says is a problem of the file, unless memory is short. */
static enum dm_status note(json_t *problems, enum dm_status st, struct dm_err *e)
{
    if (st && st != DM_ENOMEM && json_array_size(problems) < PROBLEMS_MAX &&
        !json_array_append_new(problems, json_string(e->msg)))
        return DM_OK;
    return st;
}

/* ---- Tensors ------------------------------------------------------------------------------- */

/* DM_ENAN with the first element that is not finite. */
static enum dm_status scan(const struct dm_tensor *t, const char *raw, enum dm_dtype dtype,
                           const char *path, struct dm_err *e)
{
    float x[SCAN];
    size_t row_bytes = 0;
    const size_t cols = t->cols ? t->cols : t->rows, rows = t->n / cols;
    if (!dm_dtype_row_bytes(dtype, cols, &row_bytes))
        return dm_fail(e, DM_ERANGE, "%s: %s is too large", path, t->name);
    for (size_t r = 0; r < rows; r++)
        for (size_t at = 0; at < cols; at += SCAN) {
            const size_t n = cols - at < SCAN ? cols - at : SCAN;
            size_t skip = 0;
            if (at && !dm_dtype_row_bytes(dtype, at, &skip))
                return dm_fail(e, DM_ERANGE, "%s: %s is too large", path, t->name);
            dm_dtype_to_f32(x, raw + r * row_bytes + skip, dtype, n);
            for (size_t i = 0; i < n; i++) {
                if (isfinite(x[i]))
                    continue;
                const char *what = isnan(x[i]) ? "NaN" : "infinite";
                if (t->cols)
                    return dm_fail(e, DM_ENAN, "%s: %s: element (%zu,%zu) is %s", path, t->name, r,
                                   at + i, what);
                return dm_fail(e, DM_ENAN, "%s: %s: element %zu is %s", path, t->name, at + i,
                               what);
            }
        }
    return DM_OK;
}

/* Is there, of the right shape, as its hash says, and finite. */
static enum dm_status check_tensor(const struct patient *p, const struct dm_tensor *t,
                                   struct dm_err *e)
{
    char name[128];
    void *raw;
    enum dm_dtype dtype;
    dm_model_tensor_path(name, t);
    if (!dm_h5_has(p->f, name))
        return dm_fail(e, DM_EFORMAT, "%s: tensor %s is missing", p->path, t->name);
    DM_TRY(dm_model_read_raw(p->f, t, &raw, &dtype, e));
    const enum dm_status st = scan(t, raw, dtype, p->path, e);
    free(raw);
    return st;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Datasets below /tensors that the config does not call for. */
static enum dm_status find_unknown(const struct patient *p, struct dm_err *e)
{
    char **names, (*expected)[128] = dm_alloc(p->n, sizeof(*expected));
    const char **sorted = dm_alloc(p->n, sizeof(*sorted));
    size_t n_names;
    enum dm_status st = expected && sorted ? DM_OK
                                           : dm_fail(e, DM_ENOMEM, "%s: out of memory", p->path);
    if (!st)
        st = dm_h5_names(p->f, "tensors", &names, &n_names, e);
    if (!st) {
        for (size_t i = 0; i < p->n; i++) {
            dm_model_tensor_path(expected[i], p->list + i);
            sorted[i] = expected[i];
        }
        qsort(sorted, p->n, sizeof(*sorted), compare_names);
        for (size_t i = 0; !st && i < n_names; i++)
            if (!bsearch(names + i, sorted, p->n, sizeof(*sorted), compare_names))
                st = note(p->problems,
                          dm_fail(e, DM_EFORMAT, "%s: %.100s is unknown", p->path, names[i]), e);
        dm_h5_free_names(names);
    }
    free(expected);
    free(sorted);
    return st;
}

/* ---- The file ------------------------------------------------------------------------------ */

static enum dm_status check_tokenizer(const struct patient *p, struct dm_err *e)
{
    struct dm_tokenizer *t;
    if (!p->meta.tokenizer)
        return DM_OK;
    DM_TRY(dm_tokenizer_parse(&t, p->meta.tokenizer, strlen(p->meta.tokenizer), p->path, e));
    const size_t size = dm_tokenizer_size(t);
    dm_tokenizer_free(t);
    if (size != p->cfg.V)
        return dm_fail(e, DM_EMISMATCH, "%s: its tokenizer has %zu tokens, its config says %zu",
                       p->path, size, p->cfg.V);
    return DM_OK;
}

static enum dm_status examine(struct patient *p, struct dm_err *e)
{
    DM_TRY(dm_model_read_meta(p->f, &p->cfg, &p->meta, e));
    DM_TRY(dm_model_tensors(&p->cfg, &p->list, &p->n, e));
    DM_TRY(note(p->problems, check_tokenizer(p, e), e));
    for (size_t i = 0; i < p->n; i++)
        DM_TRY(note(p->problems, check_tensor(p, p->list + i, e), e));
    return find_unknown(p, e);
}

static enum dm_status add_fingerprint(const char *file, json_t *problems, json_t **out,
                                      struct dm_err *e)
{
    const struct dm_load_opt f32 = {.format = DM_FMT_F32};
    struct dm_model m;
    DM_TRY(dm_model_load(&m, file, &f32, NULL, e));
    const enum dm_status st = note(problems, dm_fingerprint(&m, out, e), e);
    dm_model_release(&m);
    return st;
}

/* The file under its own name, or under that of the directory that it was imported from. */
static enum dm_status verify_file(const char *file, const char *path, bool fingerprint,
                                  json_t *problems, json_t **report, struct dm_err *e)
{
    struct patient p = {.path = path, .problems = problems};
    char hash[DM_HASH_LEN + 1] = "";
    json_t *print = NULL;
    DM_TRY(dm_h5_open(&p.f, file, DM_MODEL_FORMAT, DM_MODEL_VERSION, e));
    enum dm_status st = examine(&p, e);
    dm_h5_close(p.f);
    if (!st && !json_array_size(problems))
        st = dm_model_hash(file, hash, e);
    if (!st && !json_array_size(problems) && fingerprint)
        st = add_fingerprint(file, problems, &print, e);
    if (!st) {
        *report = json_pack(
            "{s:s, s:s, s:I, s:I, s:s, s:{s:I, s:I, s:I, s:b}, s:O, s:o}", "file", path, "model",
            hash, "parameters", (json_int_t)dm_params_count(&p.cfg, DM_SCOPE_ALL), "tensors",
            (json_int_t)p.n, "dtype", dm_dtype_name(p.cfg.dtype), "vocabulary", "tokens",
            (json_int_t)p.cfg.V, "rows", (json_int_t)p.cfg.Vp, "padding",
            (json_int_t)(p.cfg.Vp - p.cfg.V), "tokenizer", (int)(p.meta.tokenizer != NULL),
            "problems", problems, "fingerprint", print ? print : json_null());
        if (!*report)
            st = dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    } else {
        json_decref(print);
    }
    free(p.list);
    dm_model_meta_release(&p.meta);
    return st;
}

/* ---- Directories --------------------------------------------------------------------------- */

/* One line of sha256sum: 64 hex digits, two characters, a plain name. */
static enum dm_status check_sum(const char *dir, const char *line, struct dm_err *e)
{
    char hex[DM_HASH_LEN + 1];
    const size_t n = strlen(line);
    if (strspn(line, "0123456789abcdef") != DM_HASH_LEN || n < DM_HASH_LEN + 3 ||
        line[DM_HASH_LEN] != ' ' || strchr(line + DM_HASH_LEN + 2, '/'))
        return dm_fail(e, DM_EFORMAT, "%s/" DM_HF_SUMS ": a line that sha256sum does not write",
                       dir);
    char *path = dm_hf_path(dir, line + DM_HASH_LEN + 2);
    if (!path)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    enum dm_status st = dm_sha256_file(path, hex, e);
    if (!st && memcmp(hex, line, DM_HASH_LEN))
        st = dm_fail(e, DM_EFORMAT, "%s: its SHA-256 is %.16s..., " DM_HF_SUMS " says %.16s...",
                     path, hex, line);
    free(path);
    return st;
}

static enum dm_status check_sums(const char *dir, json_t *problems, struct dm_err *e)
{
    char *text, *path = dm_hf_path(dir, DM_HF_SUMS), *rest = NULL;
    size_t n;
    if (!path)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    const bool there = !access(path, F_OK);
    enum dm_status st = there ? dm_file_read(path, SUMS_MAX, &text, &n, e) : DM_OK;
    free(path);
    if (st || !there)
        return st;
    for (char *l = strtok_r(text, "\n", &rest); !st && l; l = strtok_r(NULL, "\n", &rest))
        st = note(problems, check_sum(dir, l, e), e);
    free(text);
    return st;
}

static enum dm_status verify_dir(const char *dir, bool fingerprint, json_t *problems,
                                 json_t **report, struct dm_err *e)
{
    static char *argv[] = {"dynamo verify", NULL};
    const char *tmp = getenv("TMPDIR");
    char *file = NULL;
    DM_TRY(check_sums(dir, problems, e));
    char *json = dm_hf_path(dir, DM_HF_TOKENIZER);
    if (!json)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    const bool tokenizer = !access(json, F_OK);
    free(json);
    if (asprintf(&file, "%s/dynamo-verify-%ld.h5", tmp && *tmp ? tmp : "/tmp", (long)getpid()) < 0)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", dir);
    enum dm_status st = dm_hf_import(dir, file, tokenizer, 1, argv, e);
    if (!st) {
        st = verify_file(file, dir, fingerprint, problems, report, e);
        unlink(file);
    }
    free(file);
    return st;
}

enum dm_status dm_verify(const char *path, bool fingerprint, json_t **report, struct dm_err *e)
{
    struct stat s;
    json_t *problems = json_array();
    *report = NULL;
    if (!problems)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    const bool is_dir = !stat(path, &s) && S_ISDIR(s.st_mode);
    const enum dm_status st = is_dir ? verify_dir(path, fingerprint, problems, report, e)
                                     : verify_file(path, path, fingerprint, problems, report, e);
    json_decref(problems);
    return st;
}
