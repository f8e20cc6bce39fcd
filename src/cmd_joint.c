/* SPDX-License-Identifier: MIT */
#include "src/cmd_joint.h"

#include <string.h>

#include "src/base/opt.h"
#include "src/decode/options.h"

enum { OPT_POWER = 512, OPT_FIT, OPT_CUT, OPT_ALPHA_3, OPT_LAMBDA, OPT_THRESHOLD, OPT_BLUR };

static const struct argp_option table[] = {
    {"power", OPT_POWER, "P2,P3", 0,
     "What eps_b is raised to for two and for three tokens; the paper's are 1,2 (1,2)", 0},
    {"fit", OPT_FIT, "on|off", 0,
     "A block must pass that level by what the calibration's fit says of it, too, not by J alone "
     "(on, if there is a fit)",
     0},
    {"cut", OPT_CUT, "on|off", 0, "Sample only combinations above that level themselves (off)", 0},
    {"alpha-3", OPT_ALPHA_3, "X", 0, "What --alpha-c is multiplied by for triplets (1)", 0},
    {"lambda", OPT_LAMBDA, "X", 0, "How far mix and backoff trust the table, 0 to 1 (0.9)", 0},
    {"threshold", OPT_THRESHOLD, "on|off", 0, "Adaptive threshold on the joint (on)", 0},
    {"blur", OPT_BLUR, "on|off", 0, "The threshold's blur (on)", 0},
    {0}};

static bool on_off(struct argp_state *s, const char *name, const char *arg)
{
    static const char *const words[] = {"off", "on", NULL};
    return dm_opt_word(s, name, arg, words) == 1;
}

static void parse_power(struct argp_state *s, char *arg, struct dm_gen_opt *g)
{
    char *second = arg;
    const char *first = strsep(&second, ",");
    if (!second)
        argp_error(s, "--power: \"%s\" is not two numbers with a comma", arg);
    g->power2 = dm_opt_real(s, "--power", first, 0.01, 100);
    g->power3 = dm_opt_real(s, "--power", second, 0.01, 100);
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct dm_gen_opt *g = s->input;
    switch (key) {
    case OPT_ALPHA_3:
        g->alpha_3 = dm_opt_real(s, "--alpha-3", arg, 0, 10);
        break;
    case OPT_POWER:
        parse_power(s, arg, g);
        break;
    case OPT_FIT:
        g->fitted = on_off(s, "--fit", arg);
        break;
    case OPT_CUT:
        g->cut = on_off(s, "--cut", arg);
        break;
    case OPT_LAMBDA:
        g->lambda = dm_opt_real(s, "--lambda", arg, 0, 1);
        break;
    case OPT_THRESHOLD:
        g->threshold = on_off(s, "--threshold", arg);
        break;
    case OPT_BLUR:
        g->blur = on_off(s, "--blur", arg);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct argp cmd_joint_argp = {table, parse, NULL, NULL, NULL, NULL, NULL};
