/* SPDX-License-Identifier: MIT */
/* stages.h - the joint of two tokens on its way through a step, as in DynaMo figure 11: for people
 * to look at, computed a second time and apart from decoding. */
#ifndef DM_DECODE_STAGES_H
#define DM_DECODE_STAGES_H

#include "src/decode/decoder.h"

enum { DM_STAGES_TOP = 10 }; /* candidates of each head that are shown */

enum dm_stage {
    DM_STAGE_PRODUCT,   /* the heads' probabilities multiplied */
    DM_STAGE_MASK,      /* times the co-occurrence ratios, sum 1 */
    DM_STAGE_BLUR,      /* what the adaptive threshold looks at: 8-bit levels / 255 */
    DM_STAGE_THRESHOLD, /* J of the cells that survive */
    DM_STAGE_PENALTY,   /* after the repetition penalty */
    DM_STAGES
};
extern const char *const dm_stage_names[DM_STAGES]; /* "product", "mask", .. */

/* The first DM_STAGES_TOP candidates of heads 1 (rows) and 2 (columns); J is normalised over all
 * top_k candidates, so `mass` is what the cells shown have of the whole grid's sum. */
struct dm_stages {
    size_t n[2];
    int32_t id[2][DM_STAGES_TOP];
    double p[2][DM_STAGES_TOP];
    double J[DM_STAGES][DM_STAGES_TOP][DM_STAGES_TOP];
    double mass[DM_STAGES];  /* shares; 0 where the stage left nothing at all */
    size_t cells[DM_STAGES]; /* of the whole grid that are not 0 */
    int otsu;                /* -1: no threshold was applied, blur is then all 0 */
    double max;              /* J of the last stage */
    double counts;           /* what it counts: decoder.h */
    double level;            /* a pair may be taken if it counts more than this */
};

/* Of the candidates of the decoder's last step, before its block is added to the context; o and
 * cooc as given to it. DM_ERANGE when that step looked at one token only; DM_ENOMEM. */
enum dm_status dm_stages_of(struct dm_stages *s, struct dm_decoder *d, const struct dm_gen_opt *o,
                            const struct dm_cooc *cooc, struct dm_err *e);

#endif
