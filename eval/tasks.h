/* SPDX-License-Identifier: MIT */
/* tasks.h - zero-shot tasks: log p of each given continuation of a context, scored as
 * lm-evaluation-harness 0.4 scores them (no few-shot examples). */
#ifndef DM_EVAL_TASKS_H
#define DM_EVAL_TASKS_H

#include <jansson.h>

#include "src/io/tokenizer.h"
#include "src/model/model.h"

/* Objects of JSON, and what is made of them. C: context, A: each choice.
 *   lambada     {text}: the last word after the context before it; accuracy is greedy agreement
 *   piqa        {goal, sol1, sol2, label}       C "Question: <goal>\nAnswer:"
 *   arc         {question, choices: {text: [], label: []}, answerKey}, or AI2's own
 *               {question: {stem, choices: [{text, label}]}, answerKey}; C as piqa
 *   sciq        {support, question, distractor1..3, correct_answer}
 *               C "<support>\nQuestion: <question>\nAnswer:", the right answer last
 *   winogrande  {sentence, option1, option2, answer}: what follows "_", in the context of each
 *   choice      {context, choices: [..], answer: index from 0}
 * Every choice follows its context behind one blank. */
enum dm_task_kind {
    DM_TASK_LAMBADA,
    DM_TASK_PIQA,
    DM_TASK_ARC,
    DM_TASK_SCIQ,
    DM_TASK_WINOGRANDE,
    DM_TASK_CHOICE
};
extern const char *const dm_task_names[]; /* NULL-terminated, indexed by the enum */

enum { DM_TASK_CHOICES = 16 };

struct dm_task_item {
    size_t n, answer;               /* choices; index of the right one */
    char *context[DM_TASK_CHOICES]; /* (n) */
    char *choice[DM_TASK_CHOICES];  /* (n) without the blank before it */
};

struct dm_task {
    enum dm_task_kind kind;
    size_t n, cap;
    struct dm_task_item *item; /* (n) */
};

/* At most `limit` items (0 = all) of a file; labels: a file with the right answer's number on each
 * line, for items without one (piqa), or NULL. Release with dm_task_release() in any case.
 * DM_EFORMAT names line and key. */
enum dm_status dm_task_load(struct dm_task *t, enum dm_task_kind kind, const char *path,
                            const char *labels, size_t limit, struct dm_err *e);
void dm_task_release(struct dm_task *t);

/* What the model says of one item. */
struct dm_task_answer {
    double logp[DM_TASK_CHOICES]; /* of each choice, summed over its tokens, nats */
    size_t best;                  /* largest log p, the first of equals */
    size_t best_norm;             /* largest log p per character of the choice */
    bool greedy;                  /* the right choice is what greedy decoding says */
    bool right, right_norm;
};

struct dm_task_result {
    size_t n;
    double acc, acc_se;           /* lambada: greedy agreement */
    double acc_norm, acc_norm_se; /* by log p per character; NaN for lambada and winogrande */
    double ppl;                   /* lambada: exp of the mean -log p of the word, else NaN */
};

typedef bool dm_task_fn(void *ctx, size_t done); /* false stops with DM_ESTOPPED */

/* answers (t->n) of head 1. Items longer than the context lose their beginning. fn may be NULL.
 * DM_ERANGE for a choice without tokens. */
enum dm_status dm_task_run(const struct dm_task *t, const struct dm_model *m,
                           const struct dm_tokenizer *tokenizer, struct dm_task_answer *answers,
                           dm_task_fn *fn, void *ctx, struct dm_err *e);

/* Standard errors as lm-evaluation-harness: sample deviation / sqrt(n). DM_ENOMEM. */
enum dm_status dm_task_summarise(struct dm_task_result *r, const struct dm_task *t,
                                 const struct dm_task_answer *answers, struct dm_err *e);

#endif
