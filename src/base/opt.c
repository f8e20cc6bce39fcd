/* SPDX-License-Identifier: MIT */
#include "src/base/opt.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/arena.h"

uint64_t dm_opt_u64(struct argp_state *s, const char *name, const char *arg)
{
    char *end;
    errno = 0;
    const unsigned long long v = strtoull(arg, &end, 10);
    if (!isdigit((unsigned char)arg[0]) || *end || errno)
        argp_error(s, "%s: \"%s\" is not a whole number", name, arg);
    return v;
}

size_t dm_opt_size(struct argp_state *s, const char *name, const char *arg, size_t min, size_t max)
{
    static const struct {
        const char *suffix;
        size_t factor;
    } units[] = {{"", 1},          {"k", 1000},      {"M", 1000000},  {"G", 1000000000},
                 {"Ki", 1u << 10}, {"Mi", 1u << 20}, {"Gi", 1u << 30}};
    char *end;
    errno = 0;
    const unsigned long long v = strtoull(arg, &end, 10);
    if (isdigit((unsigned char)arg[0]) && !errno)
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
            size_t n;
            if (!strcmp(end, units[i].suffix) && dm_mul(v, units[i].factor, &n) && n >= min &&
                n <= max)
                return n;
        }
    if (max == SIZE_MAX)
        argp_error(s, "%s: \"%s\" is not a whole number from %zu, with k, M, G, Ki, Mi or Gi", name,
                   arg, min);
    else
        argp_error(s, "%s: \"%s\" is not a whole number from %zu to %zu", name, arg, min, max);
    return min;
}

double dm_opt_real(struct argp_state *s, const char *name, const char *arg, double min, double max)
{
    char *end;
    const double v = strtod(arg, &end);
    // Written so that NaN fails too.
    if (end == arg || *end || !(v >= min && v <= max))
        argp_error(s, "%s: \"%s\" is not a number from %g to %g", name, arg, min, max);
    return v;
}

int dm_opt_word(struct argp_state *s, const char *name, const char *arg, const char *const *words)
{
    char list[256] = "";
    for (int i = 0; words[i]; i++) {
        if (!strcmp(arg, words[i]))
            return i;
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ", " : "", words[i]);
    }
    argp_error(s, "%s: \"%s\" is none of %s", name, arg, list);
    return 0;
}

void dm_opt_once(struct argp_state *s, const char *what, const char **slot, const char *arg)
{
    if (s->arg_num > 0)
        argp_error(s, "one %s, but \"%s\" and \"%s\" were given", what, *slot, arg);
    *slot = arg;
}

void dm_opt_need(struct argp_state *s, const char *what, const void *given)
{
    if (!given)
        argp_error(s, "%s is missing", what);
}
