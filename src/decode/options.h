/* SPDX-License-Identifier: MIT */
/* options.h - how text is generated, with its defaults and its form in calibration JSON. */
#ifndef DM_DECODE_OPTIONS_H
#define DM_DECODE_OPTIONS_H

#include <jansson.h>

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
    double eps_b;   /* 0..1: a block of n is emitted if its joint's maximum is > eps_b^(n-1) */
    double alpha_c; /* >= 0; joint.h */
    enum dm_unseen unseen;
    double lambda; /* 0..1; joint.h */
    bool threshold, blur;
    size_t
        rows; /* 1..DM_TREE_ROWS: lossless, tokens that a pass verifies and the one before them */
    size_t max_tokens;
    bool trace;    /* fill in struct dm_try of orders that do not pass too; same blocks, slower */
    bool stop_eos; /* end after the model's end-of-text token */
};

extern const char *const dm_gen_mode_names[]; /* NULL-terminated, indexed by the enum */
extern const char *const dm_unseen_names[];

/* The paper's settings where it gives them: temperature 0.7, top_k 50, penalty 1.1, eps_b 0.5,
 * alpha_c 1, threshold and blur on. Ours: unseen = backoff with lambda 0.9; 100 tokens, stop_eos,
 * seed 1. */
struct dm_gen_opt dm_gen_opt_default(void);

/* Ranges as above; DM_ERANGE names the field. */
enum dm_status dm_gen_opt_check(const struct dm_gen_opt *o, struct dm_err *e);

/* Takes the fields eps_b, alpha_c, unseen, lambda, top_k, temperature, penalty, threshold and blur
 * from a calibration object (JSON text); those that are absent stay as they are, other keys are
 * left to whoever wrote them. `where` names the file. DM_EFORMAT, DM_ERANGE. */
enum dm_status dm_gen_opt_calibrated(struct dm_gen_opt *o, const char *text, const char *where,
                                     struct dm_err *e);

/* The same fields as an object; new reference, NULL when out of memory. */
json_t *dm_gen_opt_to_json(const struct dm_gen_opt *o);

#endif
