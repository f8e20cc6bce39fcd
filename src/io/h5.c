/* SPDX-License-Identifier: MIT */
/* Two rules shape this file. Files must be reproducible byte by byte: no object times, one fixed
 * format version, groups made by hand (those that HDF5 makes on the way carry a time). Files may be
 * hostile: the 1.10 format carries a checksum in every piece of metadata, so damage is an error of
 * the library instead of a crash in it; older formats, variable-length strings (their heap has no
 * checksum), links that leave the file, external and virtual storage and foreign filters are
 * refused, and claimed sizes are compared with the file's before anything is allocated. */
#include "src/io/h5.h"

#include <hdf5.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/io/h5_priv.h"

_Static_assert(sizeof(hid_t) == sizeof(int64_t), "h5_priv.h keeps handles as int64_t");

const size_t dm_h5_type_size[] = {4, 8, 1, 2, 4, 8, 4};
const char *const dm_h5_type_name[] = {"f32", "f64", "u8", "u16", "u32", "u64", "i32"};

/* ---- Errors -------------------------------------------------------------------------------- */

static herr_t last_cause(unsigned n, const H5E_error2_t *d, void *out)
{
    (void)n;
    // A failed system call hides its reason in the middle: errno = 28, error message = '...'.
    const char *text = d->desc ? d->desc : "unknown", *os = strstr(text, "error message = '");
    if (os)
        text = os + strlen("error message = '");
    snprintf(out, 160, "%.*s", os ? (int)strcspn(text, "'") : 159, text);
    return 0;
}

enum dm_status dm_h5_fail(struct dm_h5 *f, struct dm_err *e, const char *fmt, ...)
{
    char what[NAME_MAX_LEN + 64], cause[160] = "unknown";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, last_cause, cause);
    H5Eclear2(H5E_DEFAULT);
    f->failed = true;
    return dm_fail(e, f->tmp ? DM_EIO : DM_EFORMAT, "%s: %s: %s", f->path, what, cause);
}

enum dm_status dm_h5_no_memory(struct dm_h5 *f, struct dm_err *e, size_t n)
{
    f->failed = true;
    return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu bytes", f->path, n);
}

/* ---- Open and close ------------------------------------------------------------------------ */

void dm_h5_quiet(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static enum dm_status new_handle(struct dm_h5 **out, const char *path, bool writing,
                                 struct dm_err *e)
{
    // Without this a failed write can crash the process in HDF5's own atexit handler.
    H5dont_atexit();
    dm_h5_quiet();
    H5PLset_loading_state(0); // a file must not make us load a filter plug-in
    struct dm_h5 *f = dm_alloc(1, sizeof(*f));
    *out = NULL;
    if (f) {
        f->file = f->range_set = H5I_INVALID_HID;
        f->path = strdup(path);
        f->tmp = writing ? dm_file_tmp_name(path) : NULL;
    }
    if (!f || !f->path || (writing && !f->tmp)) {
        dm_h5_close(f);
        return dm_fail(e, DM_ENOMEM, "%s: out of memory", path);
    }
    *out = f;
    return DM_OK;
}

static hid_t access_list(void)
{
    hid_t p = H5Pcreate(H5P_FILE_ACCESS);
    if (p >= 0 && H5Pset_libver_bounds(p, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
        H5Pset_fclose_degree(p, H5F_CLOSE_STRONG) >= 0 && H5Pset_file_locking(p, 0, 1) >= 0 &&
        H5Pset_cache(p, 0, 521, CACHE_BYTES, 1.0) >= 0)
        return p;
    H5Pclose(p);
    return H5I_INVALID_HID;
}

enum dm_status dm_h5_create(struct dm_h5 **out, const char *path, const char *format,
                            size_t version, struct dm_err *e)
{
    struct dm_h5 *f;
    DM_TRY(new_handle(&f, path, true, e));
    hid_t fapl = access_list(), fcpl = H5Pcreate(H5P_FILE_CREATE);
    enum dm_status st = DM_OK;
    if (fapl < 0 || fcpl < 0 || H5Pset_obj_track_times(fcpl, 0) < 0 ||
        H5Pset_attr_phase_change(fcpl, 64, 32) < 0)
        st = dm_h5_fail(f, e, "cannot set up");
    else if ((f->file = H5Fcreate(f->tmp, H5F_ACC_TRUNC, fcpl, fapl)) < 0)
        st = dm_h5_fail(f, e, "cannot create");
    H5Pclose(fapl);
    H5Pclose(fcpl);
    snprintf(f->format, sizeof(f->format), "%s", format);
    if (!st)
        st = dm_h5_set_string(f, "/", "format", format, e);
    if (!st)
        st = dm_h5_set_u64(f, "/", "version", version, e);
    if (!st)
        st = dm_h5_set_string(f, "/", "made_by", "dynamo " DM_VERSION, e);
    if (st)
        dm_h5_close(f);
    *out = st ? NULL : f;
    return st;
}

void dm_h5_close(struct dm_h5 *f)
{
    if (!f)
        return;
    f->failed = true; // appenders are dropped, not written
    dm_h5_close_appenders(f, NULL);
    if (f->range_set >= 0)
        H5Dclose(f->range_set);
    if (f->file >= 0)
        H5Fclose(f->file);
    H5Eclear2(H5E_DEFAULT);
    if (f->tmp)
        unlink(f->tmp);
    free(f->range_name);
    free(f->tmp);
    free(f->path);
    free(f);
}

enum dm_status dm_h5_commit(struct dm_h5 *f, struct dm_err *e)
{
    enum dm_status st = dm_h5_close_appenders(f, e);
    if (!st && f->failed)
        st = dm_fail(e, DM_EIO, "%s: an earlier write failed", f->path);
    if (!st && H5Fflush(f->file, H5F_SCOPE_GLOBAL) < 0)
        st = dm_h5_fail(f, e, "cannot write");
    if (!st) {
        const herr_t bad = H5Fclose(f->file);
        f->file = H5I_INVALID_HID;
        st = bad < 0 ? dm_h5_fail(f, e, "cannot write") : dm_file_publish(f->tmp, f->path, e);
    }
    dm_h5_close(f); // the temporary name is gone after a success
    return st;
}

/* Looks at the first bytes ourselves, for clear sentences and to refuse formats without checksums.
 */
static enum dm_status check_signature(struct dm_h5 *f, struct dm_err *e)
{
    unsigned char head[9] = {0};
    struct stat s;
    FILE *fp = fopen(f->path, "rbe");
    if (!fp)
        return dm_fail_errno(e, "%s: cannot open", f->path);
    const bool regular = !fstat(fileno(fp), &s) && S_ISREG(s.st_mode);
    const size_t n = regular ? fread(head, 1, sizeof(head), fp) : 0;
    fclose(fp);
    if (!regular)
        return dm_fail(e, DM_EIO, "%s: not a regular file", f->path);
    if (n < sizeof(head) || memcmp(head, DM_HDF5_MAGIC, 8))
        return dm_fail(e, DM_EFORMAT, "%s: not an HDF5 file", f->path);
    if (head[8] < 2)
        return dm_fail(e, DM_EUNSUPPORTED,
                       "%s: HDF5 superblock version %d without checksums, want 2 or newer", f->path,
                       head[8]);
    f->size = (size_t)s.st_size;
    return DM_OK;
}

static enum dm_status check_format(struct dm_h5 *f, const char *format, size_t version,
                                   struct dm_err *e)
{
    char *text = NULL;
    uint64_t v;
    if (!dm_h5_has_attr(f, "/", "format") || !dm_h5_has_attr(f, "/", "version"))
        return dm_fail(e, DM_EFORMAT,
                       "%s: no format and version attributes: not a dynamo file, or damaged",
                       f->path);
    DM_TRY(dm_h5_get_string(f, "/", "format", &text, e));
    snprintf(f->format, sizeof(f->format), "%s", text);
    free(text);
    if (format && strcmp(format, f->format))
        return dm_fail(e, DM_EFORMAT, "%s: is a %s file, want %s", f->path, f->format, format);
    DM_TRY(dm_h5_get_u64(f, "/", "version", &v, e));
    if (v > version)
        return dm_fail(e, DM_EUNSUPPORTED, "%s: %s version %llu, this program reads up to %zu",
                       f->path, f->format, (unsigned long long)v, version);
    return DM_OK;
}

enum dm_status dm_h5_open(struct dm_h5 **out, const char *path, const char *format, size_t version,
                          struct dm_err *e)
{
    struct dm_h5 *f;
    DM_TRY(new_handle(&f, path, false, e));
    hid_t fapl = H5I_INVALID_HID;
    enum dm_status st = check_signature(f, e);
    if (st)
        goto done;
    fapl = access_list();
    if (fapl < 0 || (f->file = H5Fopen(path, H5F_ACC_RDONLY, fapl)) < 0) {
        st = dm_h5_fail(f, e, "cannot open as HDF5");
        goto done;
    }
    st = check_format(f, format, version, e);
done:
    if (fapl >= 0)
        H5Pclose(fapl);
    if (st)
        dm_h5_close(f);
    *out = st ? NULL : f;
    return st;
}

const char *dm_h5_path(const struct dm_h5 *f)
{
    return f->path;
}

const char *dm_h5_format(const struct dm_h5 *f)
{
    return f->format;
}

/* ---- Names --------------------------------------------------------------------------------- */

/* True if every step of `name` is a hard link; links may lead out of the file. Counts as absent
 * otherwise. */
bool dm_h5_has(struct dm_h5 *f, const char *name)
{
    char part[NAME_MAX_LEN];
    name += *name == '/';
    if (strlen(name) >= sizeof(part))
        return false;
    for (size_t n = 0; name[n];) {
        H5L_info_t info;
        n += strcspn(name + n, "/");
        memcpy(part, name, n);
        part[n] = '\0';
        if (H5Lget_info(f->file, part, &info, H5P_DEFAULT) < 0 || info.type != H5L_TYPE_HARD) {
            H5Eclear2(H5E_DEFAULT);
            return false;
        }
        n += name[n] == '/';
    }
    return true;
}

enum dm_status dm_h5_make_groups(struct dm_h5 *f, const char *name, struct dm_err *e)
{
    char part[NAME_MAX_LEN];
    if (strlen(name) >= sizeof(part) || !*name || name[strlen(name) - 1] == '/') {
        f->failed = true;
        return dm_fail(e, DM_ERANGE, "%s: bad dataset name \"%.80s\"", f->path, name);
    }
    for (size_t n = strcspn(name, "/"); name[n]; n += 1 + strcspn(name + n + 1, "/")) {
        memcpy(part, name, n);
        part[n] = '\0';
        if (dm_h5_has(f, part))
            continue;
        hid_t p = H5Pcreate(H5P_GROUP_CREATE), g = H5I_INVALID_HID;
        if (p >= 0 && H5Pset_obj_track_times(p, 0) >= 0)
            g = H5Gcreate2(f->file, part, H5P_DEFAULT, p, H5P_DEFAULT);
        enum dm_status st = g < 0 ? dm_h5_fail(f, e, "cannot make group %s", part) : DM_OK;
        H5Gclose(g);
        H5Pclose(p);
        DM_TRY(st);
    }
    return DM_OK;
}

struct name_list {
    char **name;
    size_t n, cap;
    const char *prefix;
    bool no_memory;
};

/* Appends prefix + "/" + name (no slash after an empty prefix). */
static herr_t push_name(struct name_list *l, const char *name)
{
    if (l->n + 1 >= l->cap) {
        const size_t cap = 2 * l->cap;
        char **p = dm_realloc(l->name, cap, sizeof(*p));
        if (!p) {
            l->no_memory = true;
            return -1;
        }
        l->name = p;
        l->cap = cap;
    }
    l->name[l->n + 1] = NULL;
    if (asprintf(&l->name[l->n], "%s%s%s", l->prefix, *l->prefix ? "/" : "", name) < 0) {
        l->name[l->n] = NULL;
        l->no_memory = true;
        return -1;
    }
    l->n++;
    return 0;
}

static herr_t add_dataset(hid_t obj, const char *name, const H5O_info_t *info, void *ctx)
{
    (void)obj;
    struct name_list *l = ctx;
    if (info->type != H5O_TYPE_DATASET ||
        (!*l->prefix && !strncmp(name, TEXT_GROUP "/", strlen(TEXT_GROUP "/"))))
        return 0;
    return push_name(l, name);
}

static herr_t add_attr(hid_t obj, const char *name, const H5A_info_t *info, void *ctx)
{
    (void)obj;
    (void)info;
    return push_name(ctx, name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Runs one of HDF5's iterations, then sorts. */
static enum dm_status list_names(struct dm_h5 *f, struct name_list *l, bool attrs, char ***names,
                                 size_t *n, struct dm_err *e)
{
    hsize_t at = 0;
    herr_t bad;
    *names = NULL;
    *n = 0;
    l->name = dm_alloc(l->cap = 8, sizeof(*l->name));
    if (!l->name)
        return dm_h5_no_memory(f, e, 8 * sizeof(*l->name));
    if (attrs)
        bad = H5Aiterate2(f->file, H5_INDEX_NAME, H5_ITER_NATIVE, &at, add_attr, l);
    else
        bad = H5Ovisit_by_name2(f->file, *l->prefix ? l->prefix : "/", H5_INDEX_NAME,
                                H5_ITER_NATIVE, add_dataset, l, H5O_INFO_BASIC, H5P_DEFAULT);
    if (bad < 0) {
        enum dm_status st = l->no_memory ? dm_h5_no_memory(f, e, l->cap * sizeof(*l->name))
                                         : dm_h5_fail(f, e, "cannot list /%s", l->prefix);
        dm_h5_free_names(l->name);
        return st;
    }
    qsort(l->name, l->n, sizeof(*l->name), by_name);
    *names = l->name;
    *n = l->n;
    return DM_OK;
}

enum dm_status dm_h5_names(struct dm_h5 *f, const char *prefix, char ***names, size_t *n,
                           struct dm_err *e)
{
    struct name_list l = {.prefix = prefix + (*prefix == '/')};
    if (!dm_h5_has(f, prefix))
        return dm_fail(e, DM_EFORMAT, "%s: no group %s", f->path, prefix);
    return list_names(f, &l, false, names, n, e);
}

/* Short ones, then the texts in the place of long ones: names directly below TEXT_GROUP. */
enum dm_status dm_h5_attr_names(struct dm_h5 *f, char ***names, size_t *n, struct dm_err *e)
{
    struct name_list l = {.prefix = ""};
    char **texts = NULL;
    size_t n_texts = 0;
    enum dm_status st = DM_OK;
    DM_TRY(list_names(f, &l, true, names, n, e));
    if (dm_h5_has(f, TEXT_GROUP))
        st = dm_h5_names(f, TEXT_GROUP, &texts, &n_texts, e);
    for (size_t i = 0; !st && i < n_texts; i++) {
        const char *name = texts[i] + strlen(TEXT_GROUP "/");
        if (!strchr(name, '/') && push_name(&l, name) < 0)
            st = dm_h5_no_memory(f, e, strlen(name));
    }
    dm_h5_free_names(texts);
    if (st) {
        dm_h5_free_names(l.name);
        *names = NULL;
        return st;
    }
    qsort(l.name, l.n, sizeof(*l.name), by_name);
    *names = l.name;
    *n = l.n;
    return DM_OK;
}

void dm_h5_free_names(char **names)
{
    for (size_t i = 0; names && names[i]; i++)
        free(names[i]);
    free(names);
}
