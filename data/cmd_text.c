/* SPDX-License-Identifier: MIT */
#include "data/cmd_text.h"

#include "src/base/file.h"
#include "src/base/opt.h"

enum { KEY_FIELD = 1000, KEY_FORMAT, KEY_JSON };

static const struct argp_option option_table[] = {
    {"field", KEY_FIELD, "NAME", 0, "Field of JSONL lines that holds the text (default text)", 0},
    {"format", KEY_FORMAT, "KIND", 0, "auto (by name), text or jsonl (default auto)", 0},
    {"json", KEY_JSON, NULL, 0, "Report as one line of JSON", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *s)
{
    static const char *const formats[] = {"auto", "text", "jsonl", NULL};
    struct dm_text_args *a = s->input;
    switch (key) {
    case KEY_FIELD:
        a->reader.field = arg;
        return 0;
    case KEY_FORMAT:
        a->reader.format = (enum dm_reader_format)dm_opt_word(s, "--format", arg, formats);
        return 0;
    case KEY_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARGS:
        a->args = s->argv + s->next;
        a->n_args = (size_t)(s->argc - s->next);
        return 0;
    case ARGP_KEY_END:
        if (!a->n_args)
            argp_error(s, "no text file given");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp text_argp = {option_table, parse, NULL, NULL, NULL, NULL, NULL};

const struct argp_child dm_text_children[] = {{&text_argp, 0, NULL, 0}, {0}};

enum dm_status dm_text_files(struct dm_text_args *a, const char *out, struct dm_err *e)
{
    for (size_t i = 0; i < a->n_args; i++)
        DM_TRY(dm_files_add(&a->files, a->args[i], e));
    return dm_file_check_output(out, (const char *const *)a->files.path, a->files.n, e);
}
