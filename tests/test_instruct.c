/* SPDX-License-Identifier: MIT */
#include "tests/util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/instruct.h"
#include "src/base/file.h"
#include "src/io/shard.h"

#define TEXTS "tests/golden/tok_neox.json"

static struct dm_tokenizer *tokenizer(void)
{
    struct dm_tokenizer *t;
    struct dm_err e;
    assert_ok(dm_tokenizer_load(&t, TEXTS, &e), e);
    return t;
}

static struct dm_template template(const char *json)
{
    struct dm_template t;
    struct dm_err e;
    assert_ok(dm_template_parse(&t, json, "t.json", &e), e);
    return t;
}

static void put(const char *name, const char *text)
{
    struct dm_err e;
    assert_ok(dm_file_write(tmp_path(name), text, strlen(text), &e), e);
}

/* The status of making "o.h5" from one file. */
static enum dm_status make(const char *file, const char *fields, const char *json,
                           struct dm_instruct_stats *stats, struct dm_err *e)
{
    const char *path = tmp_path(file);
    struct dm_tokenizer *t = tokenizer();
    struct dm_template p = template(json);
    const struct dm_instruct k = {
        .tokenizer = t, .template = &p, .paths = &path, .n_paths = 1, .fields = fields};
    const enum dm_status st = dm_instruct_shard(&k, tmp_path("o.h5"), 0, NULL, stats, e);
    dm_template_release(&p);
    dm_tokenizer_free(t);
    return st;
}

/* "o.h5" as text: prompts in [], responses as they are, | for a separator that is a target. */
static char *marked(void)
{
    struct dm_tokenizer *t = tokenizer();
    struct dm_shard *s;
    struct dm_err e;
    char *text;
    size_t size, n;
    assert_ok(dm_shard_open(&s, tmp_path("o.h5"), &e), e);
    n = dm_shard_tokens(s);
    int32_t *ids = malloc(n * sizeof(*ids));
    assert_non_null(ids);
    assert_ok(dm_shard_read_targets(s, ids, 0, n, &e), e);
    FILE *f = open_memstream(&text, &size);
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const bool target = ids[i] >= 0;
        const char *b = dm_tokenizer_bytes(t, target ? ids[i] : ~ids[i], &len);
        if (!target && (!i || ids[i - 1] >= 0))
            fputc('[', f);
        if (ids[i])
            fwrite(b, 1, len, f);
        else
            fputc('|', f);
        if (!target && ids[i + 1] >= 0) // a prompt is never last
            fputc(']', f);
    }
    fclose(f);
    free(ids);
    dm_shard_close(s);
    dm_tokenizer_free(t);
    return text;
}

static void assert_marked(const char *want)
{
    char *text = marked();
    assert_string_equal(text, want);
    free(text);
}

#define SHORT                                                                                     \
    "{\"prompt_no_input\": \"Q {instruction} A\", \"prompt_input\": \"Q {instruction} ({input}) " \
    "A\"}"

static void test_alpaca_arrays_and_lines_give_the_same_targets(void **state)
{
    (void)state;
    struct dm_instruct_stats s;
    struct dm_err e;
    put("a.json",
        "\xef\xbb\xbf [\n{\"instruction\": \"add\", \"input\": \"1 2\", \"output\": \"3\"},\n"
        "{\"instruction\": \"go\", \"input\": \"\", \"output\": \"\"},\n"
        "{\"instruction\": \"say {input}\", \"output\": \"so\"}]\n");
    put("a.jsonl", "{\"instruction\": \"add\", \"input\": \"1 2\", \"output\": \"3\"}\n\n  \r\n"
                   "{\"instruction\": \"say {input}\", \"input\": null, \"output\": \"so\"}");
    assert_ok(make("a.json", NULL, SHORT, &s, &e), e);
    assert_int_equal(s.examples, 2);
    assert_int_equal(s.skipped, 1);
    assert_marked("[Q add (1 2) A]3|[Q say {input} A]so|");
    assert_ok(make("a.jsonl", NULL, SHORT, &s, &e), e);
    assert_int_equal(s.examples, 2);
    assert_marked("[Q add (1 2) A]3|[Q say {input} A]so|");
}

static void test_other_names_and_instances(void **state)
{
    (void)state;
    struct dm_instruct_stats s;
    struct dm_err e;
    put("g.jsonl", "{\"question\": \"1+1\", \"input\": \"unused\", \"answer\": \"2\"}\n");
    assert_ok(make("g.jsonl", "question,,answer", SHORT, &s, &e), e);
    assert_marked("[Q 1+1 A]2|");
    put("i.jsonl",
        "{\"instruction\": \"up\", \"instances\": [{\"input\": \"a\", \"output\": \"A\"}, "
        "{\"input\": \"\", \"output\": \"B\"}]}\n");
    assert_ok(make("i.jsonl", NULL, SHORT, &s, &e), e);
    assert_int_equal(s.examples, 2);
    assert_marked("[Q up (a) A]A|[Q up A]B|");
}

static void test_the_default_template_is_alpacas(void **state)
{
    (void)state;
    struct dm_template t = template(NULL);
    struct dm_err e;
    char *text;
    size_t n;
    assert_ok(dm_template_prompt(&t, "Do.", NULL, &text, &n, &e), e);
    assert_string_equal(text,
                        "Below is an instruction that describes a task. Write a response that "
                        "appropriately completes the request.\n\n### Instruction:\nDo.\n\n"
                        "### Response:");
    assert_int_equal(n, strlen(text));
    free(text);
    assert_ok(dm_template_prompt(&t, "Do.", "it", &text, &n, &e), e);
    assert_string_equal(text,
                        "Below is an instruction that describes a task, paired with an input that "
                        "provides further context. Write a response that appropriately completes "
                        "the request.\n\n### Instruction:\nDo.\n\n### Input:\nit\n\n### Response:");
    free(text);
    struct dm_template again = template(t.json);
    assert_string_equal(t.json, again.json);
    dm_template_release(&t);
    dm_template_release(&again);
}

static void test_bad_templates_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } bad[] = {
        {"[]", "t.json: the prompt template is array"},
        {"{", "t.json"},
        {"{}", "\"prompt_no_input\" is missing"},
        {"{\"prompt_no_input\": \"x\"}", "\"prompt_no_input\" lacks {instruction}"},
        {"{\"prompt_no_input\": \"{instruction}{input}\"}", "may not have {input}"},
        {"{\"prompt_no_input\": \"{instruction}\", \"prompt_input\": \"{instruction}\"}",
         "\"prompt_input\" lacks {input}"},
        {"{\"prompt_no_input\": 3}", "want a string"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct dm_template t;
        struct dm_err e;
        assert_int_equal(dm_template_parse(&t, bad[i].json, "t.json", &e), DM_EFORMAT);
        assert_non_null(strstr(e.msg, bad[i].says));
        assert_null(t.json);
    }
}

static void test_bad_examples_name_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *fields, *json, *says;
        enum dm_status st;
    } bad[] = {
        {"[{\"instruction\": \"a\"}]", NULL, SHORT, "element 1: key \"output\" is missing",
         DM_EFORMAT},
        {"[1]", NULL, SHORT, "element 1: is integer, want an object", DM_EFORMAT},
        {"{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": \"a\", \"output\": 4}",
         NULL, SHORT, "line 2: \"output\" is", DM_EFORMAT},
        {"{\"instruction\": \"a\", \"output\": \"b\"\n", NULL, SHORT, "line 1", DM_EFORMAT},
        {"{\"instruction\": \"a\\u0000\", \"output\": \"b\"}", NULL, SHORT, "zero byte",
         DM_EFORMAT},
        {"{\"instruction\": \"a\", \"instances\": [2]}", NULL, SHORT, "instance 1 is integer",
         DM_EFORMAT},
        {"{\"instruction\": \"a\", \"input\": \"i\", \"output\": \"b\"}", NULL,
         "{\"prompt_no_input\": \"{instruction}\"}", "line 1: the prompt template has no place",
         DM_EMISMATCH},
        {"", NULL, SHORT, "no example with a response", DM_EFORMAT},
        {"{}", "a,b", SHORT, "fields \"a,b\"", DM_ERANGE},
        {"{}", ",b,c", SHORT, "fields \",b,c\"", DM_ERANGE},
        {"{}", "a,b,c,d", SHORT, "fields \"a,b,c,d\"", DM_ERANGE},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct dm_instruct_stats s;
        struct dm_err e;
        put("bad.json", bad[i].text);
        remove(tmp_path("o.h5"));
        assert_int_equal(make("bad.json", bad[i].fields, bad[i].json, &s, &e), bad[i].st);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("\"%s\" does not say \"%s\"", e.msg, bad[i].says);
        assert_int_not_equal(access(tmp_path("o.h5"), F_OK), 0);
    }
}

static void test_the_public_seed_tasks_have_175_examples(void **state)
{
    (void)state;
    const char *path = shared_path("instruct/seed_tasks.jsonl");
    if (!path) {
        print_message("[  SKIPPED ] ../shared/data/instruct is not there\n");
        skip();
    }
    struct dm_tokenizer *t = tokenizer();
    struct dm_template p = template(NULL);
    struct dm_instruct_stats s;
    struct dm_err e;
    const struct dm_instruct k = {.tokenizer = t, .template = &p, .paths = &path, .n_paths = 1};
    assert_ok(dm_instruct_shard(&k, tmp_path("o.h5"), 0, NULL, &s, &e), e);
    assert_int_equal(s.examples + s.skipped, 175);
    dm_template_release(&p);
    dm_tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alpaca_arrays_and_lines_give_the_same_targets),
        cmocka_unit_test(test_other_names_and_instances),
        cmocka_unit_test(test_the_default_template_is_alpacas),
        cmocka_unit_test(test_bad_templates_are_refused),
        cmocka_unit_test(test_bad_examples_name_their_place),
        cmocka_unit_test(test_the_public_seed_tasks_have_175_examples),
    };
    return cmocka_run_group_tests_name("instruct", tests, NULL, NULL);
}
