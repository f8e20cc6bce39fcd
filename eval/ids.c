/* SPDX-License-Identifier: MIT */
#include "eval/ids.h"

#include <ctype.h>
#include <stdbool.h>

static bool blank(char c)
{
    return isspace((unsigned char)c);
}

enum dm_status dm_ids_parse(struct dm_ids *out, const char *text, size_t n, size_t V,
                            const char *where, struct dm_err *e)
{
    for (size_t i = 0, count = 1; i < n; count++) {
        while (i < n && blank(text[i]))
            i++;
        if (i == n)
            break;
        const size_t start = i;
        size_t id = 0;
        for (; i < n && isdigit((unsigned char)text[i]) && id < V; i++)
            id = id * 10 + (size_t)(text[i] - '0');
        size_t end = i;
        while (end < n && !blank(text[end]))
            end++;
        const int shown = end - start > 20 ? 20 : (int)(end - start);
        if (id >= V)
            return dm_fail(e, DM_ERANGE, "%s: id %zu is %.*s, expected 0 to %zu", where, count,
                           shown, text + start, V - 1);
        if (end > i)
            return dm_fail(e, DM_EFORMAT, "%s: id %zu is \"%.*s\", expected a whole number", where,
                           count, shown, text + start);
        DM_TRY(dm_ids_push(out, (int32_t)id, e));
    }
    return DM_OK;
}
