/* SPDX-License-Identifier: MIT */
/* options.h - how text is generated, with its defaults and its form in calibration JSON. */
#ifndef DM_DECODE_OPTIONS_H
#define DM_DECODE_OPTIONS_H

#include <jansson.h>

#include "src/decode/fit.h"
#include "src/decode/joint.h"
#include "src/nn/attention.h"

enum dm_gen_mode {
    DM_GEN_AR,      /* the base alone */
    DM_GEN_DYNAMO,  /* blocks of up to K tokens, sampled from the joint */
    DM_GEN_LOSSLESS /* the heads draft, the base verifies: exactly the text of DM_GEN_AR */
};

struct dm_gen_opt {
    enum dm_gen_mode mode;
    double temperature; /* >= 0; 0 = greedy: the arg max of the joint at temperature 1 */
    size_t top_k;       /* 1..DM_TOP_K_MAX */
    double penalty;     /* >= 1; penalty.h */
    uint64_t seed;
    double eps_b; /* 0..1: a block of n is emitted if its joint's maximum is > eps_b^power */
    bool fitted;  /* a block counts no more there than the fit says, if it is known */
    struct dm_fit fit;
    double power2, power3; /* > 0: that power for n = 2 and 3 */
    bool cut;              /* cells below eps_b^power themselves are never sampled */
    double alpha_c;        /* >= 0; joint.h */
    double alpha_3;        /* >= 0: the exponent for triplets is alpha_c * alpha_3 */
    enum dm_unseen unseen;
    double lambda; /* 0..1; joint.h */
    bool threshold, blur;
    size_t rows; /* lossless: tokens of a pass, 1..DM_TREE_ROWS; 0: as many as pay, measured */
    size_t max_tokens;
    bool trace;    /* fill in struct dm_try of orders that do not pass too; same blocks, slower */
    bool stop_eos; /* end after the model's end-of-text token */
};

extern const char *const dm_gen_mode_names[]; /* NULL-terminated, indexed by the enum */
extern const char *const dm_unseen_names[];

/* The paper's settings where it gives them: temperature 0.7, top_k 50, penalty 1.1, eps_b 0.5; and
 * the preset "best", 4 rows, 100 tokens, stop_eos, seed 1. */
struct dm_gen_opt dm_gen_opt_default(void);

/* How the joint is made and trusted: everything from `fitted` to `blur` but fit and lambda, which
 * is 0.9 in the default. paper: powers 1 and 2, no fit, cut, alpha_c 1, unseen n-grams 0, threshold
 * and blur. best: what a comparison found better (docs/decoding.md), the same but for fit, backoff,
 * no cut. */
enum dm_preset { DM_PRESET_PAPER, DM_PRESET_BEST };
extern const char *const dm_preset_names[];
void dm_gen_opt_preset(struct dm_gen_opt *o, enum dm_preset preset);

/* For blocks of n = 2 or 3: the level that a block must exceed, and the exponent of the ratios. */
double dm_gen_opt_level(const struct dm_gen_opt *o, size_t n);
double dm_gen_opt_alpha(const struct dm_gen_opt *o, size_t n);

/* Whether the fit counts: it was made for sampling, so not for greedy text. */
bool dm_gen_opt_fitted(const struct dm_gen_opt *o);

/* Whether no other head than the base's is ever looked at: mode ar, and eps_b = 1, which no J <= 1
 * exceeds; drafts do not depend on eps_b. */
bool dm_gen_opt_single(const struct dm_gen_opt *o);

/* Ranges as above; DM_ERANGE names the field. */
enum dm_status dm_gen_opt_check(const struct dm_gen_opt *o, struct dm_err *e);

/* Takes the fields of dm_gen_opt_to_json() from a calibration object (JSON text); those that are
 * absent stay as they are, other keys are left to whoever wrote them. `where` names the file.
 * DM_EFORMAT, DM_ERANGE. */
enum dm_status dm_gen_opt_calibrated(struct dm_gen_opt *o, const char *text, const char *where,
                                     struct dm_err *e);

/* Everything but mode, seed, max_tokens, trace and stop_eos as an object; new reference, NULL when
 * out of memory. */
json_t *dm_gen_opt_to_json(const struct dm_gen_opt *o);

#endif
