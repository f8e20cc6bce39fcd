/* SPDX-License-Identifier: MIT */
#include "data/files.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/arena.h"

enum { MAX_DEPTH = 64 };

void dm_files_release(struct dm_files *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->path[i]);
    free(f->path);
    *f = (struct dm_files){0};
}

/* Takes over `path`, which may be NULL: out of memory. */
static enum dm_status push(struct dm_files *f, char *path, struct dm_err *e)
{
    if (path && f->n == f->cap) {
        const size_t cap = f->cap ? 2 * f->cap : 16;
        char **p = dm_realloc(f->path, cap, sizeof(*p));
        if (!p) {
            free(path);
            path = NULL;
        } else {
            f->path = p;
            f->cap = cap;
        }
    }
    if (!path)
        return dm_fail(e, DM_ENOMEM, "out of memory for the names of %zu files", f->n);
    f->path[f->n++] = path;
    return DM_OK;
}

static bool is_text(const char *name)
{
    static const char *const suffix[] = {".txt",   ".txt.gz",   ".txt.zst",
                                         ".jsonl", ".jsonl.gz", ".jsonl.zst"};
    const size_t n = strlen(name);
    for (size_t i = 0; i < sizeof(suffix) / sizeof(suffix[0]); i++) {
        const size_t k = strlen(suffix[i]);
        if (n > k && !strcmp(name + n - k, suffix[i]))
            return true;
    }
    return false;
}

static enum dm_status add_folder(struct dm_files *f, const char *folder, int depth,
                                 struct dm_err *e);

/* One entry of a folder; takes over `path`. */
static enum dm_status add_entry(struct dm_files *f, char *path, int depth, struct dm_err *e)
{
    struct stat s, target;
    enum dm_status st = DM_OK;
    if (!path)
        return push(f, NULL, e);
    if (lstat(path, &s))
        st = dm_fail_errno(e, "%s: cannot open", path);
    else if (S_ISDIR(s.st_mode))
        st = add_folder(f, path, depth + 1, e);
    else if (is_text(path) && !stat(path, &target) && S_ISREG(target.st_mode))
        return push(f, path, e);
    free(path);
    return st;
}

static enum dm_status add_folder(struct dm_files *f, const char *folder, int depth,
                                 struct dm_err *e)
{
    enum dm_status st = DM_OK;
    const struct dirent *d;
    if (depth > MAX_DEPTH)
        return dm_fail(e, DM_ERANGE, "%s: more than %d folders deep", folder, MAX_DEPTH);
    DIR *dir = opendir(folder);
    if (!dir)
        return dm_fail_errno(e, "%s: cannot open", folder);
    const bool slash = folder[strlen(folder) - 1] == '/';
    while (!st && (d = readdir(dir))) {
        char *path = NULL;
        if (d->d_name[0] == '.')
            continue;
        if (asprintf(&path, "%s%s%s", folder, slash ? "" : "/", d->d_name) < 0)
            path = NULL;
        st = add_entry(f, path, depth, e);
    }
    closedir(dir);
    return st;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum dm_status dm_files_add(struct dm_files *f, const char *arg, struct dm_err *e)
{
    struct stat s;
    const size_t before = f->n;
    if (!strcmp(arg, "-") || stat(arg, &s) || !S_ISDIR(s.st_mode))
        return push(f, strdup(arg), e);
    DM_TRY(add_folder(f, arg, 0, e));
    if (f->n == before)
        return dm_fail(e, DM_EFORMAT, "%s: no .txt or .jsonl file in this folder", arg);
    qsort(f->path + before, f->n - before, sizeof(*f->path), by_bytes);
    return DM_OK;
}
