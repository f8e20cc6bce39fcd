/* SPDX-License-Identifier: MIT */
/* certificate.h - what a calibration has shown about one setting of decoding, and for what exactly:
 * in the calibration of a model file (member "certificate"), checked by those who decode.
 *
 * "With probability `confidence` over the choice of the prompts, at most the share `risk` of
 * prompts like these fails" (eval/calibrate.h says when one fails; docs/decoding.md what is
 * assumed). It holds for these weights in this number format, this table, these options and texts
 * no longer than these. */
#ifndef DM_DECODE_CERTIFICATE_H
#define DM_DECODE_CERTIFICATE_H

#include "src/base/hash.h"
#include "src/decode/options.h"

enum dm_cert_loss { DM_CERT_DIVERGENCE, DM_CERT_LOGP, DM_CERT_REPEATS, DM_CERT_LOSSES };
extern const char *const dm_cert_loss_names[DM_CERT_LOSSES]; /* "divergence", "logp", "repeats_4" */

struct dm_certificate {
    char program[32];
    char model[DM_HASH_LEN + 1]; /* dm_model_hash() */
    char table[DM_HASH_LEN + 1]; /* of the file; "": without a table */
    char data[DM_HASH_LEN + 1];  /* of the file of held-out tokens */
    char judge[DM_HASH_LEN + 1]; /* dm_model_hash() of another judge; "": the base itself */
    char format[8];              /* number format of the products: "f32", .. */
    json_t *settings;            /* dm_gen_opt_to_json(); owned */
    size_t prompts, failures;    /* what the p-value rests on */
    size_t sequences;            /* that shared the risk of error */
    size_t control_prompts, control_failures; /* base against base: prompts that set the margins;
                                                 failures among the others */
    size_t prompt_tokens, tokens, samples, seed;
    double risk, confidence, p_value, quantile;
    double margin[DM_CERT_LOSSES], slack[DM_CERT_LOSSES]; /* margin NaN: not tested (greedy) */
    double per_forward, speedup; /* tokens per forward; wall clock against the base alone */
};
void dm_certificate_release(struct dm_certificate *c);

/* The object to be stored, sealed: "sha256" is that of its other members. NULL when out of memory.
 */
json_t *dm_certificate_to_json(const struct dm_certificate *c);

/* Reads the certificate in a calibration (JSON text of a file called `where`); *found = false when
 * there is none. Refused: a member that is missing or of another kind, a seal that does not fit, a
 * p-value that is not that of the failures or does not suffice, settings that are not those beside
 * it. DM_EFORMAT, DM_ERANGE, DM_EMISMATCH, DM_EUNSUPPORTED (a newer version), DM_ENOMEM. Release
 * with dm_certificate_release() in any case. */
enum dm_status dm_certificate_from_text(struct dm_certificate *c, bool *found,
                                        const char *calibration, const char *where,
                                        struct dm_err *e);

/* How a text is about to be made. */
struct dm_certificate_use {
    const char *model, *table, *format; /* as in the certificate */
    const struct dm_gen_opt *gen;       /* max_tokens against its tokens */
};

/* An array of strings, one for each thing that is not as it was certified; empty: it holds. New
 * reference, NULL when out of memory. */
json_t *dm_certificate_differences(const struct dm_certificate *c,
                                   const struct dm_certificate_use *u);

/* One sentence for a person. */
void dm_certificate_sentence(const struct dm_certificate *c, char *text, size_t n);

/* A certificate beside how the files it is about are used; a zeroed one is none. */
struct dm_certified {
    struct dm_certificate certificate;
    json_t *differences; /* NULL: there is no certificate */
};

/* Reads the certificate in the calibration of model file `model` and looks for differences; the
 * files are hashed for it. cooc NULL: decoding without a table. Statuses as
 * dm_certificate_from_text(), and DM_EIO. Release in any case. */
enum dm_status dm_certified_check(struct dm_certified *c, const char *calibration,
                                  const char *model, const char *cooc, const char *format,
                                  const struct dm_gen_opt *gen, struct dm_err *e);
void dm_certified_release(struct dm_certified *c);

/* {"holds": no differences, "differences": [..]}, or null without a certificate; new reference. */
json_t *dm_certified_to_json(const struct dm_certified *c);

/* The certificate's sentence, and whether it holds; "" without one. */
void dm_certified_sentence(const struct dm_certified *c, char *text, size_t n);

#endif
