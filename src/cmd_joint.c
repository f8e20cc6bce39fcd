/* SPDX-License-Identifier: MIT */
#include "src/cmd_joint.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/opt.h"
#include "src/decode/options.h"

enum {
    OPT_PRESET = 512,
    OPT_EPS_B,
    OPT_POWER,
    OPT_TRUST,
    OPT_CUT,
    OPT_ALPHA_C,
    OPT_ALPHA_3,
    OPT_UNSEEN,
    OPT_LAMBDA,
    OPT_THRESHOLD,
    OPT_BLUR,
    OPT_ROWS
};

static const struct argp_option table[] = {
    {"preset", OPT_PRESET, "NAME", 0,
     "Everything here but eps-b, lambda and rows at once: paper, or best, what was measured to be "
     "better (best); options after it go over it",
     0},
    {"eps-b", OPT_EPS_B, "X", 0,
     "Back-off threshold, 0 (always as many tokens as heads) to 1 (always one): n tokens are taken "
     "if their joint's maximum exceeds X^(n-1), see --power (0.5)",
     0},
    {"power", OPT_POWER, "P2,P3", 0,
     "What eps_b is raised to for two and for three tokens; the paper's are 1,2 (1,2)", 0},
    {"trust", OPT_TRUST, "X", 0,
     "Compare J * p1^X with that level, p1 being head 1's probability of the first token (0)", 0},
    {"cut", OPT_CUT, "on|off", 0, "Sample only combinations above that level themselves (off)", 0},
    {"alpha-c", OPT_ALPHA_C, "X", 0, "Exponent of the co-occurrence ratio; 0 is off (1)", 0},
    {"alpha-3", OPT_ALPHA_3, "X", 0, "What --alpha-c is multiplied by for triplets (1)", 0},
    {"unseen", OPT_UNSEEN, "POLICY", 0,
     "Ratio of an n-gram that the table lacks: zero (the paper's), mix: lambda * r + (1 - lambda) "
     "for all, backoff: the chain of its pairs, 1 - lambda for an unseen pair (backoff)",
     0},
    {"lambda", OPT_LAMBDA, "X", 0, "How far mix and backoff trust the table, 0 to 1 (0.9)", 0},
    {"threshold", OPT_THRESHOLD, "on|off", 0, "Adaptive threshold on the joint (on)", 0},
    {"blur", OPT_BLUR, "on|off", 0, "The threshold's blur (on)", 0},
    {"rows", OPT_ROWS, "N", 0,
     "With --mode lossless: tokens that a pass runs at once, the base's next one and N - 1 drafts, "
     "1 to 8; 0: as many as pay on this machine, which changes the speed only (4)",
     0},
    {0}};

static bool on_off(struct argp_state *s, const char *name, const char *arg)
{
    static const char *const words[] = {"off", "on", NULL};
    return dm_opt_word(s, name, arg, words) == 1;
}

static void parse_power(struct argp_state *s, char *arg, struct dm_gen_opt *g)
{
    char *second = strchr(arg, ',');
    if (!second)
        argp_error(s, "--power: \"%s\" is not two numbers with a comma", arg);
    char *first = strndup(arg, (size_t)(second - arg));
    g->power2 = dm_opt_real(s, "--power", first ? first : "", 0.01, 100);
    g->power3 = dm_opt_real(s, "--power", second + 1, 0.01, 100);
    free(first);
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    struct dm_gen_opt *g = s->input;
    switch (key) {
    case OPT_EPS_B:
        g->eps_b = dm_opt_real(s, "--eps-b", arg, 0, 1);
        break;
    case OPT_ALPHA_C:
        g->alpha_c = dm_opt_real(s, "--alpha-c", arg, 0, 10);
        break;
    case OPT_ALPHA_3:
        g->alpha_3 = dm_opt_real(s, "--alpha-3", arg, 0, 10);
        break;
    case OPT_PRESET:
        dm_gen_opt_preset(g, (enum dm_preset)dm_opt_word(s, "--preset", arg, dm_preset_names));
        break;
    case OPT_POWER:
        parse_power(s, arg, g);
        break;
    case OPT_TRUST:
        g->trust = dm_opt_real(s, "--trust", arg, 0, 100);
        break;
    case OPT_CUT:
        g->cut = on_off(s, "--cut", arg);
        break;
    case OPT_UNSEEN:
        g->unseen = (enum dm_unseen)dm_opt_word(s, "--unseen", arg, dm_unseen_names);
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
    case OPT_ROWS:
        g->rows = dm_opt_size(s, "--rows", arg, 0, DM_TREE_ROWS);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct argp cmd_joint_argp = {table, parse, NULL, NULL, NULL, NULL, NULL};
