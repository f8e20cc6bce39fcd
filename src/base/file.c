/* SPDX-License-Identifier: MIT */
#include "src/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/arena.h"

/* The name that symbolic links lead to from `path`, whether a file is there or not; heap. */
static char *follow(const char *path)
{
    char *name = strdup(path), to[PATH_MAX];
    ssize_t n;
    for (int links = 0; name && links < 40 && (n = readlink(name, to, sizeof(to) - 1)) > 0;
         links++) {
        const char *slash = strrchr(name, '/');
        const int folder = slash && *to != '/' ? (int)(slash + 1 - name) : 0;
        char *next;
        to[n] = '\0';
        if (asprintf(&next, "%.*s%s", folder, name, to) < 0)
            next = NULL;
        free(name);
        name = next;
    }
    return name;
}

char *dm_file_tmp_name(const char *path)
{
    char *name = follow(path), *tmp;
    if (!name || asprintf(&tmp, "%s.tmp.%ld", name, (long)getpid()) < 0)
        tmp = NULL;
    free(name);
    return tmp;
}

static bool is_left_over(const char *name)
{
    static const char mark[] = ".tmp.";
    const char *at = NULL;
    char *end;
    for (const char *p = name; (p = strstr(p, mark)); p++)
        at = p;
    const long pid = at ? strtol(at + strlen(mark), &end, 10) : 0;
    return pid > 0 && !*end && kill((pid_t)pid, 0) && errno == ESRCH;
}

void dm_file_sweep(const char *prefix)
{
    char dir_text[PATH_MAX], base_text[PATH_MAX], path[2 * PATH_MAX];
    snprintf(dir_text, sizeof(dir_text), "%s", prefix);
    snprintf(base_text, sizeof(base_text), "%s", prefix);
    const char *dir = dirname(dir_text), *base = basename(base_text);
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d));)
        if (!strncmp(x->d_name, base, strlen(base)) && is_left_over(x->d_name)) {
            snprintf(path, sizeof(path), "%s/%s", dir, x->d_name);
            unlink(path);
        }
    if (d)
        closedir(d);
}

static int sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0)
        return -1;
    const int bad = fsync(fd), err = errno;
    close(fd);
    errno = err;
    return bad;
}

enum dm_status dm_file_publish(const char *tmp, const char *path, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    char *name = follow(path);
    if (!name || sync_path(tmp, O_RDONLY) || rename(tmp, name)) {
        st = name ? dm_fail_errno(e, "%s: cannot write", path)
                  : dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
        unlink(tmp);
    } else {
        // Some file systems refuse to sync a directory; the rename has happened all the same.
        (void)sync_path(dirname(name), O_RDONLY | O_DIRECTORY);
    }
    free(name);
    return st;
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

enum dm_status dm_file_write(const char *path, const void *data, size_t n, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    char *tmp = dm_file_tmp_name(path);
    if (!tmp)
        return dm_fail(e, DM_ENOMEM, "out of memory");
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        st = dm_fail_errno(e, "%s: cannot write", path);
        goto done;
    }
    if (write_all(fd, data, n)) {
        st = dm_fail_errno(e, "%s: cannot write", path);
        close(fd);
        unlink(tmp);
        goto done;
    }
    close(fd);
    st = dm_file_publish(tmp, path, e);
done:
    free(tmp);
    return st;
}

static enum dm_status open_regular(const char *path, int *fd, size_t *size, struct dm_err *e)
{
    struct stat s;
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0)
        return dm_fail_errno(e, "%s: cannot open", path);
    if (fstat(*fd, &s) || !S_ISREG(s.st_mode)) {
        close(*fd);
        return dm_fail(e, DM_EIO, "%s: not a regular file", path);
    }
    *size = (size_t)s.st_size;
    return DM_OK;
}

enum dm_status dm_file_read(const char *path, size_t max_bytes, char **data, size_t *n,
                            struct dm_err *e)
{
    enum dm_status st = DM_OK;
    char *buf = NULL;
    int fd;
    size_t size, at = 0;
    *data = NULL;
    DM_TRY(open_regular(path, &fd, &size, e));
    if (size > max_bytes) {
        st = dm_fail(e, DM_ERANGE, "%s: %zu bytes, more than the %zu allowed", path, size,
                     max_bytes);
        goto done;
    }
    buf = dm_alloc(size + 1, 1);
    if (!buf) {
        st = dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu bytes", path, size);
        goto done;
    }
    while (at < size) {
        ssize_t k = read(fd, buf + at, size - at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            st = k ? dm_fail_errno(e, "%s: cannot read", path)
                   : dm_fail(e, DM_EIO, "%s: shrank while it was read", path);
            goto done;
        }
        at += (size_t)k;
    }
    *data = buf;
    *n = size;
    buf = NULL;
done:
    free(buf);
    close(fd);
    return st;
}

enum dm_status dm_file_read_at(int fd, void *to, size_t n, uint64_t at, const char *path,
                               const char *what, struct dm_err *e)
{
    for (char *next = to; n;) {
        const ssize_t got = pread(fd, next, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return dm_fail_errno(e, "%s: cannot read %s", path, what);
        if (got == 0)
            return dm_fail(e, DM_EIO, "%s: ends within %s", path, what);
        next += got;
        n -= (size_t)got;
        at += (uint64_t)got;
    }
    return DM_OK;
}

bool dm_file_begins(const char *path, const void *magic, size_t n)
{
    char head[16];
    struct stat s; // a pipe would lose what is read here
    FILE *f = stat(path, &s) || !S_ISREG(s.st_mode) ? NULL : fopen(path, "rbe");
    if (!f)
        return false;
    const bool same = n <= sizeof(head) && fread(head, 1, n, f) == n && !memcmp(head, magic, n);
    fclose(f);
    return same;
}

bool dm_file_is_h5(const char *path)
{
    return dm_file_begins(path, DM_HDF5_MAGIC, 8);
}

/* ---- Names of outputs ------------------------------------------------------------------------ */

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool dm_file_beside(const char *a, const char *b)
{
    char a_text[PATH_MAX], b_text[PATH_MAX];
    struct stat x, y;
    snprintf(a_text, sizeof(a_text), "%s", a);
    snprintf(b_text, sizeof(b_text), "%s", b);
    return !stat(dirname(a_text), &x) && !stat(dirname(b_text), &y) && same(&x, &y);
}

/* Whether two outputs are one file, there or not yet. */
static bool one_output(const char *a, const char *b)
{
    char *x = follow(a), *y = follow(b);
    const bool one = x && y && !strcmp(basename(x), basename(y)) && dm_file_beside(x, y);
    free(x);
    free(y);
    return one;
}

static enum dm_status check_inputs(const char *out, const char *const *in, size_t n,
                                   struct dm_err *e)
{
    struct stat to, from;
    if (stat(out, &to))
        return DM_OK;
    for (size_t i = 0; i < n; i++) {
        if (!in[i] || (strcmp(in[i], "-") ? stat(in[i], &from) : fstat(STDIN_FILENO, &from)) ||
            !same(&from, &to))
            continue;
        return strcmp(in[i], out)
                   ? dm_fail(e, DM_EMISMATCH, "%s: is both input (%s) and output", out, in[i])
                   : dm_fail(e, DM_EMISMATCH, "%s: is both input and output", out);
    }
    return DM_OK;
}

/* What would fail when the work is done, or take the place of a directory or a device. */
static enum dm_status check_place(const char *out, struct dm_err *e)
{
    char dir[PATH_MAX + 2];
    struct stat s, standard;
    const bool there = !stat(out, &s);
    if (there && !S_ISREG(s.st_mode))
        return dm_fail(e, DM_EIO, "%s: cannot write: is %s", out,
                       S_ISDIR(s.st_mode) ? "a directory" : "not a regular file");
    if (there && !fstat(STDOUT_FILENO, &standard) && same(&s, &standard))
        return dm_fail(e, DM_EMISMATCH, "%s: standard output goes there already", out);
    if (!*out || out[strlen(out) - 1] == '/')
        return dm_fail(e, DM_EIO, "\"%s\": cannot write: not the name of a file", out);
    char *tmp = dm_file_tmp_name(out); // longer than the name itself
    if (!tmp)
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", out);
    enum dm_status st = DM_OK;
    const bool too_long = access(tmp, F_OK) && errno == ENAMETOOLONG;
    const char *folder = dirname(tmp);
    snprintf(dir, sizeof(dir), "%s/.", folder); // the point: a file is no folder
    if (too_long)
        st = dm_fail(e, DM_ERANGE, "%s: the name is too long", out);
    else if (access(dir, W_OK | X_OK))
        st = dm_fail_errno(e, "%s: cannot write into the folder %s", out, folder);
    free(tmp);
    return st;
}

enum dm_status dm_file_check_outputs(const char *const *out, size_t n_out, const char *const *in,
                                     size_t n_in, struct dm_err *e)
{
    for (size_t i = 0; i < n_out; i++) {
        if (!out[i])
            continue;
        DM_TRY(check_inputs(out[i], in, n_in, e));
        DM_TRY(check_place(out[i], e));
        for (size_t k = 0; k < i; k++)
            if (out[k] && one_output(out[k], out[i]))
                return dm_fail(e, DM_EMISMATCH, "%s: is two outputs in one (%s)", out[i], out[k]);
    }
    return DM_OK;
}

enum dm_status dm_file_check_inputs(const char *const *in, size_t n, struct dm_err *e)
{
    struct stat s;
    for (size_t i = 0; i < n; i++) {
        if (!in[i] || !strcmp(in[i], "-"))
            continue;
        if (access(in[i], R_OK) || stat(in[i], &s))
            return dm_fail_errno(e, "%s: cannot open", in[i]);
        if (S_ISDIR(s.st_mode))
            return dm_fail(e, DM_EIO, "%s: is a directory, want a file", in[i]);
    }
    return DM_OK;
}

enum dm_status dm_file_check_output(const char *out, const char *const *in, size_t n,
                                    struct dm_err *e)
{
    return dm_file_check_outputs(&out, 1, in, n, e);
}

/* ---- Maps ------------------------------------------------------------------------------------ */

enum dm_status dm_map_open(struct dm_map *m, const char *path, struct dm_err *e)
{
    enum dm_status st = DM_OK;
    int fd;
    *m = (struct dm_map){0};
    DM_TRY(open_regular(path, &fd, &m->n, e));
    if (m->n) {
        void *p = mmap(NULL, m->n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            st = dm_fail_errno(e, "%s: cannot map %zu bytes", path, m->n);
        else
            m->data = p;
    }
    close(fd);
    if (st)
        m->n = 0;
    return st;
}

enum dm_status dm_map_open_text(struct dm_map *m, const char *path, struct dm_err *e)
{
    if (dm_file_is_h5(path))
        return dm_fail(e, DM_EFORMAT, "%s: is an HDF5 file, want text", path);
    return dm_map_open(m, path, e);
}

void dm_map_close(struct dm_map *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->n);
    *m = (struct dm_map){0};
}

void dm_map_drop(const void *data, size_t n)
{
    // Whole pages only: the neighbours on the first and the last one may be in use.
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)data + n) / page * page;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED); // a hint: the pages are clean
}
