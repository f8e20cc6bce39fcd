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

/* A folder still to be read; those inside it are put on top of the stack. */
struct folder {
    char *path;
    int depth;
};
struct stack {
    struct folder *folder;
    size_t n, cap;
};

static enum dm_status push_folder(struct stack *s, char *path, int depth, struct dm_err *e)
{
    if (depth > MAX_DEPTH)
        return dm_fail(e, DM_ERANGE, "%s: more than %d folders deep", path, MAX_DEPTH);
    if (s->n == s->cap) {
        const size_t cap = s->cap ? 2 * s->cap : 16;
        struct folder *p = dm_realloc(s->folder, cap, sizeof(*p));
        if (!p)
            return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        s->folder = p;
        s->cap = cap;
    }
    s->folder[s->n++] = (struct folder){.path = path, .depth = depth};
    return DM_OK;
}

/* One entry of a folder: a text file goes to f, a folder to the stack; `path` is taken over. */
static enum dm_status sort_entry(struct dm_files *f, struct stack *todo, char *path, int depth,
                                 struct dm_err *e)
{
    struct stat s;
    enum dm_status st = DM_OK;
    if (lstat(path, &s))
        st = dm_fail_errno(e, "%s: cannot open", path);
    else if (S_ISDIR(s.st_mode) && !(st = push_folder(todo, path, depth + 1, e)))
        return DM_OK;
    else if (!st && is_text(path) && !stat(path, &s) && S_ISREG(s.st_mode))
        return push(f, path, e);
    free(path);
    return st;
}

static enum dm_status read_folder(struct dm_files *f, struct stack *todo, struct folder at,
                                  struct dm_err *e)
{
    enum dm_status st = DM_OK;
    const struct dirent *d;
    DIR *dir = opendir(at.path);
    if (!dir)
        return dm_fail_errno(e, "%s: cannot open", at.path);
    const bool slash = at.path[strlen(at.path) - 1] == '/';
    while (!st && (d = readdir(dir))) {
        char *path;
        if (d->d_name[0] == '.')
            continue;
        if (asprintf(&path, "%s%s%s", at.path, slash ? "" : "/", d->d_name) < 0)
            st = dm_fail(e, DM_ENOMEM, "%s: out of memory", at.path);
        else
            st = sort_entry(f, todo, path, at.depth, e);
    }
    closedir(dir);
    return st;
}

static enum dm_status walk(struct dm_files *f, struct stack *todo, const char *root,
                           struct dm_err *e)
{
    char *path = strdup(root);
    enum dm_status st = path ? push_folder(todo, path, 0, e)
                             : dm_fail(e, DM_ENOMEM, "%s: out of memory", root);
    if (st)
        free(path);
    while (!st && todo->n) {
        const struct folder at = todo->folder[--todo->n];
        st = read_folder(f, todo, at, e);
        free(at.path);
    }
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
    struct stack todo = {0};
    enum dm_status st = walk(f, &todo, arg, e);
    while (todo.n)
        free(todo.folder[--todo.n].path);
    free(todo.folder);
    if (st)
        return st;
    if (f->n == before)
        return dm_fail(e, DM_EFORMAT, "%s: no .txt or .jsonl file in this folder", arg);
    qsort(f->path + before, f->n - before, sizeof(*f->path), by_bytes);
    return DM_OK;
}
