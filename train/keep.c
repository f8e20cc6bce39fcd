/* SPDX-License-Identifier: MIT */
#include "train/keep.h"

#include <dirent.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/file.h"

enum dm_status dm_keep_path(char *out, size_t n, const char *prefix, size_t step, struct dm_err *e)
{
    const int k = step == DM_KEEP_BEST ? snprintf(out, n, "%s-best.h5", prefix)
                                       : snprintf(out, n, "%s-%08zu.h5", prefix, step);
    if (k < 0 || (size_t)k >= n)
        return dm_fail(e, DM_ERANGE, "%s: the name is too long", prefix);
    return DM_OK;
}

static bool is_step(const char *rest)
{
    const size_t digits = strspn(rest, "0123456789");
    return digits >= 8 && digits <= 18 && !strcmp(rest + digits, ".h5");
}

bool dm_keep_is(const char *prefix, const char *path)
{
    const char *base = strrchr(prefix, '/'), *name = strrchr(path, '/');
    base = base ? base + 1 : prefix;
    name = name ? name + 1 : path;
    const size_t len = strlen(base);
    return !strncmp(name, base, len) && name[len] == '-' &&
           (is_step(name + len + 1) || !strcmp(name + len + 1, "best.h5")) &&
           dm_file_beside(prefix, path);
}

/* Calls fn for every name in the prefix's directory that begins like it; `rest` is what follows. */
typedef enum dm_status visit_fn(void *ctx, const char *dir, const char *name, const char *rest,
                                struct dm_err *e);

static enum dm_status visit(const char *prefix, visit_fn *fn, void *ctx, struct dm_err *e)
{
    char dir_text[PATH_MAX], base_text[PATH_MAX];
    if ((size_t)snprintf(dir_text, PATH_MAX, "%s", prefix) >= PATH_MAX)
        return dm_fail(e, DM_ERANGE, "%s: the name is too long", prefix);
    snprintf(base_text, PATH_MAX, "%s", prefix);
    const char *dir = dirname(dir_text), *base = basename(base_text);
    const size_t len = strlen(base);
    enum dm_status st = DM_OK;
    DIR *d = opendir(dir);
    if (!d)
        return dm_fail_errno(e, "%s: cannot read the directory %s", prefix, dir);
    for (struct dirent *x; !st && (x = readdir(d));)
        if (!strncmp(x->d_name, base, len) && x->d_name[len] == '-')
            st = fn(ctx, dir, x->d_name, x->d_name + len + 1, e);
    closedir(d);
    return st;
}

struct steps {
    size_t *step, n;
};

static enum dm_status add_step(void *ctx, const char *dir, const char *name, const char *rest,
                               struct dm_err *e)
{
    struct steps *s = ctx;
    (void)dir;
    if (!is_step(rest))
        return DM_OK;
    size_t *more = dm_realloc(s->step, s->n + 1, sizeof(*more));
    if (!more)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", name);
    s->step = more;
    s->step[s->n++] = (size_t)strtoull(rest, NULL, 10);
    return DM_OK;
}

static int newer(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

enum dm_status dm_keep_list(size_t **step, size_t *n, const char *prefix, struct dm_err *e)
{
    struct steps s = {0};
    enum dm_status st = visit(prefix, add_step, &s, e);
    *step = NULL;
    *n = 0;
    if (st) {
        free(s.step);
        return st;
    }
    if (s.n)
        qsort(s.step, s.n, sizeof(*s.step), newer);
    *step = s.step;
    *n = s.n;
    return DM_OK;
}

enum dm_status dm_keep_best(const char *prefix, size_t step, struct dm_err *e)
{
    char from[PATH_MAX], best[PATH_MAX];
    enum dm_status st;
    DM_TRY(dm_keep_path(from, sizeof(from), prefix, step, e));
    DM_TRY(dm_keep_path(best, sizeof(best), prefix, DM_KEEP_BEST, e));
    char *tmp = dm_file_tmp_name(best);
    if (!tmp)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", best);
    unlink(tmp);
    if (link(from, tmp))
        st = errno == ENOENT ? dm_fail_errno(e, "%s: cannot link", from)
                             : dm_fail(e, DM_EUNSUPPORTED, "%s: no links here", from);
    else
        st = dm_file_publish(tmp, best, e);
    unlink(tmp); // renaming one of two names of a file to the other leaves both
    free(tmp);
    return st;
}

void dm_keep_prune(const char *prefix, size_t last, size_t step)
{
    size_t *have, n, kept = 0;
    char path[PATH_MAX];
    if (dm_keep_list(&have, &n, prefix, NULL))
        return;
    for (size_t i = 0; i < n; i++)
        if (have[i] <= step && kept++ >= last &&
            !dm_keep_path(path, sizeof(path), prefix, have[i], NULL))
            unlink(path);
    free(have);
}
