/* SPDX-License-Identifier: MIT */
/* status.h - what a library function returns, and the sentence that explains a failure. */
#ifndef DM_BASE_STATUS_H
#define DM_BASE_STATUS_H

#define DM_STATUS_LIST(X)                           \
    X(NOMEM, -1, "out of memory")                   \
    X(IO, -2, "input/output error")                 \
    X(FORMAT, -3, "malformed file")                 \
    X(SHAPE, -4, "shape mismatch")                  \
    X(RANGE, -5, "value out of range")              \
    X(UNSUPPORTED, -6, "not supported")             \
    X(MISMATCH, -7, "files do not belong together") \
    X(STOPPED, -8, "stopped by a signal")           \
    X(NAN, -9, "not a number")

enum dm_status {
    DM_OK = 0,
#define X(name, value, text) DM_E##name = value,
    DM_STATUS_LIST(X)
#undef X
};

/* One sentence for a person. The function that fails first fills it; callers only pass it on. */
struct dm_err {
    char msg[1024];
};

/* Formats the sentence into e (which may be NULL) and returns st. */
enum dm_status dm_fail(struct dm_err *e, enum dm_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Like dm_fail(DM_EIO): appends ": " and strerror(errno). */
enum dm_status dm_fail_errno(struct dm_err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The generic text of a status; never NULL. */
const char *dm_status_text(enum dm_status st);

/* Returns the status of expr from the caller if it failed; only while holding nothing. */
#define DM_TRY(expr)                    \
    do {                                \
        enum dm_status dm_st_ = (expr); \
        if (dm_st_)                     \
            return dm_st_;              \
    } while (0)

/* Like DM_TRY for a function with a label `done` and a variable `st`. */
#define DM_TRY_GOTO(expr) \
    do {                  \
        st = (expr);      \
        if (st)           \
            goto done;    \
    } while (0)

#endif
