/* SPDX-License-Identifier: MIT */
#include "src/base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum dm_status dm_fail(struct dm_err *e, enum dm_status st, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
        va_end(ap);
    }
    return st;
}

enum dm_status dm_fail_errno(struct dm_err *e, const char *fmt, ...)
{
    const int err = errno;
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->msg, sizeof(e->msg), fmt, ap);
        va_end(ap);
        size_t n = strlen(e->msg);
        snprintf(e->msg + n, sizeof(e->msg) - n, ": %s", strerror(err));
    }
    return DM_EIO;
}

const char *dm_status_text(enum dm_status st)
{
    switch (st) {
    case DM_OK:
        return "ok";
#define X(name, value, text) \
    case DM_E##name:         \
        return text;
        DM_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}
