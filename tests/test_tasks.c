/* SPDX-License-Identifier: MIT */
/* Zero-shot tasks: the texts made of each kind of item, malformed files, and the arithmetic. The
 * log p themselves are compared with `score` in cli/eval.sh. */
#include "eval/tasks.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/file.h"
#include "tests/util.h"

static const char *written(const char *name, const char *text)
{
    struct dm_err e;
    const char *path = tmp_path(name);
    assert_ok(dm_file_write(path, text, strlen(text), &e), e);
    return path;
}

static struct dm_task load(enum dm_task_kind kind, const char *json, const char *labels)
{
    struct dm_task t;
    struct dm_err e;
    const char *path = written("items.jsonl", json);
    assert_ok(dm_task_load(&t, kind, path, labels, 0, &e), e);
    return t;
}

static void assert_choice(const struct dm_task *t, size_t item, size_t choice, const char *context,
                          const char *text)
{
    assert_in_range(choice, 0, t->item[item].n - 1);
    assert_string_equal(t->item[item].context[choice], context);
    assert_string_equal(t->item[item].choice[choice], text);
}

static void test_lambada_parts_the_last_word(void **state)
{
    (void)state;
    struct dm_task t = load(DM_TASK_LAMBADA,
                            "{\"text\": \"he said  to the man\"}\n\n{\"text\": \"a b\"}\n", NULL);
    assert_int_equal(t.n, 2);
    assert_int_equal(t.item[0].n, 1);
    assert_choice(&t, 0, 0, "he said  to the", "man");
    assert_choice(&t, 1, 0, "a", "b");
    dm_task_release(&t);
}

static void test_piqa_takes_labels_from_item_or_file(void **state)
{
    (void)state;
    const char *labels = written("labels.lst", "0\n1\n0\n");
    const char *items =
        "[{\"goal\": \"open it\", \"sol1\": \"pull\", \"sol2\": \"push\", \"label\": 1},"
        " {\"goal\": \"close\", \"sol1\": \"x\", \"sol2\": \"y\", \"label\": 0}]";
    struct dm_task t = load(DM_TASK_PIQA, items, NULL);
    assert_choice(&t, 0, 0, "Question: open it\nAnswer:", "pull");
    assert_choice(&t, 0, 1, "Question: open it\nAnswer:", "push");
    assert_int_equal(t.item[0].answer, 1);
    assert_int_equal(t.item[1].answer, 0);
    dm_task_release(&t);
    t = load(DM_TASK_PIQA, items, labels);
    assert_int_equal(t.item[0].answer, 0);
    assert_int_equal(t.item[1].answer, 1);
    dm_task_release(&t);
}

static void test_arc_is_read_in_both_forms(void **state)
{
    (void)state;
    struct dm_task t = load(
        DM_TASK_ARC,
        "{\"question\": \"Why?\", \"choices\": {\"text\": [\"a\", \"b\", \"c\"], \"label\": "
        "[\"1\", "
        "\"2\", \"3\"]}, \"answerKey\": \"3\"}\n"
        "{\"question\": {\"stem\": \"Who?\", \"choices\": [{\"text\": \"me\", \"label\": \"A\"}, "
        "{\"text\": \"you\", \"label\": \"B\"}]}, \"answerKey\": \"A\"}\n",
        NULL);
    assert_int_equal(t.item[0].n, 3);
    assert_choice(&t, 0, 2, "Question: Why?\nAnswer:", "c");
    assert_int_equal(t.item[0].answer, 2);
    assert_choice(&t, 1, 1, "Question: Who?\nAnswer:", "you");
    assert_int_equal(t.item[1].answer, 0);
    dm_task_release(&t);
}

static void test_sciq_puts_the_right_answer_last(void **state)
{
    (void)state;
    struct dm_task t = load(DM_TASK_SCIQ,
                            "{\"support\": \" \\nIt is so.\", \"question\": \"Is it?\", "
                            "\"correct_answer\": \"yes\", \"distractor1\": \"no\", "
                            "\"distractor2\": \"perhaps\", \"distractor3\": \"why\"}",
                            NULL);
    assert_choice(&t, 0, 0, "It is so.\nQuestion: Is it?\nAnswer:", "no");
    assert_choice(&t, 0, 3, "It is so.\nQuestion: Is it?\nAnswer:", "yes");
    assert_int_equal(t.item[0].answer, 3);
    dm_task_release(&t);
}

static void test_winogrande_varies_the_context(void **state)
{
    (void)state;
    struct dm_task t = load(DM_TASK_WINOGRANDE,
                            "{\"sentence\": \"Ann saw Bea, and _ waved back. \", \"option1\": "
                            "\"Ann\", \"option2\": \"Bea\", \"answer\": \"2\"}",
                            NULL);
    assert_choice(&t, 0, 0, "Ann saw Bea, and Ann", "waved back.");
    assert_choice(&t, 0, 1, "Ann saw Bea, and Bea", "waved back.");
    assert_int_equal(t.item[0].answer, 1);
    dm_task_release(&t);
}

static void test_a_limit_takes_the_first_items(void **state)
{
    (void)state;
    struct dm_task t;
    struct dm_err e;
    const char *path = written("three.jsonl", "{\"text\": \"a b\"}\n{\"text\": \"c d\"}\n{}\n");
    assert_ok(dm_task_load(&t, DM_TASK_LAMBADA, path, NULL, 2, &e), e);
    assert_int_equal(t.n, 2);
    dm_task_release(&t);
}

static void test_malformed_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum dm_task_kind kind;
        const char *json, *labels, *says;
    } bad[] = {
        {DM_TASK_LAMBADA, "{\"text\": \"word\"}", NULL, "line 1: \"text\" is one word"},
        {DM_TASK_LAMBADA, "{\"text\": 3}", NULL, "line 1: \"text\" is integer"},
        {DM_TASK_LAMBADA, "{\"text\": \"a b\"}\n3\n", NULL, "line 2: not valid JSON"},
        {DM_TASK_LAMBADA, "[{\"text\": \"a b\"}, []]", NULL, "element 2: is array"},
        {DM_TASK_LAMBADA, "\n \n", NULL, "holds no items"},
        {DM_TASK_PIQA, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}", NULL,
         "item 1 has no \"label\""},
        {DM_TASK_PIQA, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}", "2\n",
         "line 1: want the index of one of 2 choices"},
        {DM_TASK_PIQA, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\"}", "",
         "0 lines for 1 items"},
        {DM_TASK_PIQA, "{\"goal\": \"g\", \"sol1\": \"a\", \"sol2\": \"b\", \"label\": 2}", NULL,
         "label"},
        {DM_TASK_ARC,
         "{\"question\": \"q\", \"answerKey\": \"C\", \"choices\": {\"text\": [\"a\"], "
         "\"label\": [\"A\"]}}",
         NULL, "answerKey \"C\" is none of the 1"},
        {DM_TASK_ARC,
         "{\"question\": \"q\", \"answerKey\": \"A\", \"choices\": {\"text\": [\"a\"]}}", NULL,
         "choice 1 lacks"},
        {DM_TASK_WINOGRANDE,
         "{\"sentence\": \"no gap\", \"option1\": \"a\", \"option2\": \"b\", \"answer\": \"1\"}",
         NULL, "want a \"_\""},
        {DM_TASK_CHOICE, "{\"context\": \"c\", \"choices\": [\"a\"], \"answer\": 0}", NULL,
         "\"choices\" holds 1"},
        {DM_TASK_CHOICE, "{\"context\": \"c\", \"choices\": [\"a\", 1], \"answer\": 0}", NULL,
         "choice 2 is integer"},
        {DM_TASK_CHOICE, "{\"context\": \"c\", \"choices\": [\"a\", \"b\"], \"answer\": 2}", NULL,
         "answer"},
        {DM_TASK_CHOICE,
         "{\"context\": \"c\", \"answer\": 0, \"choices\": [\"a\", \"a\", \"a\", \"a\", \"a\", "
         "\"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\", \"a\"]}",
         NULL, "more than 16 choices"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct dm_task t;
        struct dm_err e = {.msg = ""};
        const char *labels = bad[i].labels ? written("bad.lst", bad[i].labels) : NULL;
        const char *path = written("bad.jsonl", bad[i].json);
        const enum dm_status st = dm_task_load(&t, bad[i].kind, path, labels, 0, &e);
        if (!st || !strstr(e.msg, bad[i].says))
            fail_msg("case %zu: status %d, \"%s\" does not say \"%s\"", i, st, e.msg, bad[i].says);
        dm_task_release(&t);
    }
}

static void test_metrics_follow_from_the_answers(void **state)
{
    (void)state;
    struct dm_err e;
    struct dm_task_result r;
    const struct dm_task t = {.kind = DM_TASK_PIQA, .n = 4};
    const struct dm_task_answer a[] = {{.logp = {-1}, .right = true},
                                       {.logp = {-2}, .right = true, .right_norm = true},
                                       {.logp = {-3}},
                                       {.logp = {-4}, .right = true}};
    assert_ok(dm_task_summarise(&r, &t, a, &e), e);
    assert_true(r.acc == 0.75 && r.acc_norm == 0.25 && isnan(r.ppl));
    assert_true(fabs(r.acc_se - 0.25) < 1e-12); // sqrt(3/4 * 1/4 * 4/3 / 4)
    const struct dm_task word = {.kind = DM_TASK_LAMBADA, .n = 4};
    assert_ok(dm_task_summarise(&r, &word, a, &e), e);
    assert_true(isnan(r.acc_norm) && fabs(r.ppl - exp(2.5)) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lambada_parts_the_last_word),
        cmocka_unit_test(test_piqa_takes_labels_from_item_or_file),
        cmocka_unit_test(test_arc_is_read_in_both_forms),
        cmocka_unit_test(test_sciq_puts_the_right_answer_last),
        cmocka_unit_test(test_winogrande_varies_the_context),
        cmocka_unit_test(test_a_limit_takes_the_first_items),
        cmocka_unit_test(test_malformed_files_are_refused),
        cmocka_unit_test(test_metrics_follow_from_the_answers),
    };
    return cmocka_run_group_tests_name("tasks", tests, NULL, NULL);
}
