/* SPDX-License-Identifier: MIT */
/* task_load.c - items of zero-shot tasks from their files; the texts are those of
 * lm-evaluation-harness's task definitions. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/objects.h"
#include "eval/tasks.h"
#include "src/base/arena.h"
#include "src/base/file.h"
#include "src/base/json.h"

#define BLANKS " \t\n\v\f\r\x1c\x1d\x1e\x1f" /* what Python's strip() takes of ASCII */
#define NO_ANSWER SIZE_MAX                   /* until the labels' file is read */

const char *const dm_task_names[] = {"lambada",    "piqa",   "arc", "sciq",
                                     "winogrande", "choice", NULL};

/* One object on its way to an item. */
struct source {
    const json_t *o;
    const char *where;
    struct dm_task_item *item;
    struct dm_err *e;
};

static enum dm_status no_memory(const struct source *s)
{
    return dm_fail(s->e, DM_ENOMEM, "%s: out of memory", s->where);
}

/* One more choice: `context` is printed, `choice` (len bytes) copied. */
__attribute__((format(printf, 4, 5))) static enum dm_status
add(const struct source *s, const char *choice, size_t len, const char *context, ...)
{
    struct dm_task_item *it = s->item;
    if (it->n == DM_TASK_CHOICES)
        return dm_fail(s->e, DM_EFORMAT, "%s: more than %d choices", s->where, DM_TASK_CHOICES);
    va_list ap;
    va_start(ap, context);
    const int printed = vasprintf(&it->context[it->n], context, ap);
    va_end(ap);
    if (printed < 0)
        it->context[it->n] = NULL;
    it->choice[it->n] = strndup(choice, len);
    it->n++;
    return printed < 0 || !it->choice[it->n - 1] ? no_memory(s) : DM_OK;
}

static enum dm_status text(const struct source *s, const char *key, const char **out)
{
    return dm_json_string(s->o, key, true, s->where, out, s->e);
}

static enum dm_status from_lambada(const struct source *s)
{
    const char *all;
    DM_TRY(text(s, "text", &all));
    const char *blank = strrchr(all, ' ');
    if (!blank)
        return dm_fail(s->e, DM_EFORMAT, "%s: \"text\" is one word, want a context and a word",
                       s->where);
    return add(s, blank + 1, strlen(blank + 1), "%.*s", (int)(blank - all), all);
}

static enum dm_status from_piqa(const struct source *s)
{
    const char *goal, *sol[2];
    s->item->answer = NO_ANSWER;
    DM_TRY(text(s, "goal", &goal));
    DM_TRY(text(s, "sol1", &sol[0]));
    DM_TRY(text(s, "sol2", &sol[1]));
    DM_TRY(dm_json_size(s->o, "label", 0, 1, false, s->where, &s->item->answer, s->e));
    for (int i = 0; i < 2; i++)
        DM_TRY(add(s, sol[i], strlen(sol[i]), "Question: %s\nAnswer:", goal));
    return DM_OK;
}

/* Text and label of choice i in either form of an ARC item; NULL when it is malformed. */
static const char *arc_choice(const json_t *choices, size_t i, const char **label)
{
    const json_t *pair = json_array_get(choices, i);
    const json_t *t = json_array_get(json_object_get(choices, "text"), i);
    const json_t *l = json_array_get(json_object_get(choices, "label"), i);
    *label = json_string_value(pair ? json_object_get(pair, "label") : l);
    return *label ? json_string_value(pair ? json_object_get(pair, "text") : t) : NULL;
}

static enum dm_status from_arc(const struct source *s)
{
    const char *key, *question;
    const json_t *inner = json_object_get(s->o, "question");
    const bool ai2 = json_is_object(inner);
    const json_t *choices = json_object_get(ai2 ? inner : s->o, "choices");
    const size_t n = json_array_size(ai2 ? choices : json_object_get(choices, "text"));
    DM_TRY(text(s, "answerKey", &key));
    DM_TRY(dm_json_string(ai2 ? inner : s->o, ai2 ? "stem" : "question", true, s->where, &question,
                          s->e));
    s->item->answer = NO_ANSWER;
    for (size_t i = 0; i < n; i++) {
        const char *label, *choice = arc_choice(choices, i, &label);
        if (!choice)
            return dm_fail(s->e, DM_EFORMAT, "%s: choice %zu lacks a text or a label", s->where,
                           i + 1);
        DM_TRY(add(s, choice, strlen(choice), "Question: %s\nAnswer:", question));
        if (!strcmp(label, key))
            s->item->answer = i;
    }
    if (s->item->answer == NO_ANSWER)
        return dm_fail(s->e, DM_EFORMAT, "%s: answerKey \"%s\" is none of the %zu choices' labels",
                       s->where, key, n);
    return DM_OK;
}

static enum dm_status from_sciq(const struct source *s)
{
    static const char *const keys[] = {"distractor1", "distractor2", "distractor3",
                                       "correct_answer"};
    const char *support, *question, *choice;
    DM_TRY(text(s, "support", &support));
    DM_TRY(text(s, "question", &question));
    support += strspn(support, BLANKS);
    for (size_t i = 0; i < 4; i++) {
        DM_TRY(text(s, keys[i], &choice));
        DM_TRY(add(s, choice, strlen(choice), "%s\nQuestion: %s\nAnswer:", support, question));
    }
    s->item->answer = 3;
    return DM_OK;
}

static enum dm_status from_winogrande(const struct source *s)
{
    const char *sentence, *answer, *option[2];
    DM_TRY(text(s, "sentence", &sentence));
    DM_TRY(text(s, "option1", &option[0]));
    DM_TRY(text(s, "option2", &option[1]));
    DM_TRY(text(s, "answer", &answer));
    const char *gap = strchr(sentence, '_');
    if (!gap || (strcmp(answer, "1") && strcmp(answer, "2")))
        return dm_fail(s->e, DM_EFORMAT, "%s: want a \"_\" in the sentence and an answer 1 or 2",
                       s->where);
    const char *rest = gap + 1 + strspn(gap + 1, BLANKS);
    size_t len = strlen(rest);
    while (len && strchr(BLANKS, rest[len - 1]))
        len--;
    for (int i = 0; i < 2; i++)
        DM_TRY(add(s, rest, len, "%.*s%s", (int)(gap - sentence), sentence, option[i]));
    s->item->answer = (size_t)(*answer - '1');
    return DM_OK;
}

static enum dm_status from_choice(const struct source *s)
{
    const char *context;
    const json_t *choices = json_object_get(s->o, "choices");
    const size_t n = json_array_size(choices);
    DM_TRY(text(s, "context", &context));
    if (n < 2)
        return dm_fail(s->e, DM_EFORMAT, "%s: \"choices\" holds %zu, want 2 or more", s->where, n);
    DM_TRY(dm_json_size(s->o, "answer", 0, n - 1, true, s->where, &s->item->answer, s->e));
    for (size_t i = 0; i < n; i++) {
        const char *choice = json_string_value(json_array_get(choices, i));
        if (!choice)
            return dm_fail(s->e, DM_EFORMAT, "%s: choice %zu is %s, want a string", s->where, i + 1,
                           dm_json_type(json_array_get(choices, i)));
        DM_TRY(add(s, choice, strlen(choice), "%s", context));
    }
    return DM_OK;
}

static enum dm_status (*const from[])(const struct source *s) = {
    from_lambada, from_piqa, from_arc, from_sciq, from_winogrande, from_choice};

struct loading {
    struct dm_task *t;
    size_t limit;
};

static enum dm_status on_object(void *ctx, const json_t *o, const char *where, struct dm_err *e)
{
    struct loading *l = ctx;
    struct dm_task *t = l->t;
    if (l->limit && t->n == l->limit)
        return DM_OK;
    if (t->n == t->cap) {
        const size_t cap = t->cap ? 2 * t->cap : 256;
        struct dm_task_item *more = reallocarray(t->item, cap, sizeof(*more));
        if (!more)
            return dm_fail(e, DM_ENOMEM, "%s: out of memory for %zu items", where, cap);
        t->item = more;
        t->cap = cap;
    }
    t->item[t->n] = (struct dm_task_item){0};
    return from[t->kind](&(struct source){o, where, &t->item[t->n++], e});
}

/* Line i of the file is the index of item i's answer. */
static enum dm_status read_labels(struct dm_task *t, const char *path, struct dm_err *e)
{
    char *text, *at;
    size_t n, i = 0;
    DM_TRY(dm_file_read(path, (size_t)1 << 30, &text, &n, e));
    enum dm_status st = DM_OK;
    for (at = text; i < t->n && *at && !st; i++) {
        char *end;
        const unsigned long answer = strtoul(at, &end, 10);
        if (end == at || *end != '\n' || answer >= t->item[i].n)
            st = dm_fail(e, DM_EFORMAT, "%s, line %zu: want the index of one of %zu choices", path,
                         i + 1, t->item[i].n);
        t->item[i].answer = answer;
        at = end + 1;
    }
    free(text);
    if (!st && i < t->n)
        st = dm_fail(e, DM_EFORMAT, "%s: %zu lines for %zu items", path, i, t->n);
    return st;
}

enum dm_status dm_task_load(struct dm_task *t, enum dm_task_kind kind, const char *path,
                            const char *labels, size_t limit, struct dm_err *e)
{
    struct loading l = {t, limit};
    *t = (struct dm_task){.kind = kind};
    DM_TRY(dm_objects_each(path, on_object, &l, e));
    if (labels)
        DM_TRY(read_labels(t, labels, e));
    for (size_t i = 0; i < t->n; i++)
        if (t->item[i].answer == NO_ANSWER)
            return dm_fail(e, DM_EFORMAT,
                           "%s: item %zu has no \"label\", and no file of labels was given", path,
                           i + 1);
    if (!t->n)
        return dm_fail(e, DM_EFORMAT, "%s: holds no items", path);
    return DM_OK;
}

void dm_task_release(struct dm_task *t)
{
    for (size_t i = 0; i < t->n; i++)
        for (size_t k = 0; k < t->item[i].n; k++) {
            free(t->item[i].context[k]);
            free(t->item[i].choice[k]);
        }
    free(t->item);
    *t = (struct dm_task){0};
}
