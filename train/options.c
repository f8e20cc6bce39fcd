/* SPDX-License-Identifier: MIT */
#include "train/options.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/arena.h"
#include "src/base/json.h"
#include "src/base/opt.h"

enum type { SIZE, REAL, SEED, WORD, TEXT, PATHS, FLAG };
enum life {
    FIXED, /* shapes the weights: stored, cannot change in a resumed run */
    KEPT,  /* stored, but may be given anew */
    ONCE   /* of this run only */
};
enum { BOTH = DM_TRAIN_BASE | DM_TRAIN_HEADS, FIRST_KEY = 0x200 };

static const char *const dtypes[] = {"f32", "f16", "bf16", NULL};
static const char *const dtypes_heads[] = {"base", "f32", "f16", "bf16", NULL};
static const char *const precisions[] = {"bf16", "f32", NULL};
static const char *const recipes[] = {"frozen", "joint", NULL};
static const char *const inits[] = {"copy", "random", "file", NULL};
static const char *const schedules[] = {"cosine", "linear", "constant", "wsd", NULL};
static const char *const masks[] = {"matrices", "layers", "all", NULL};
static const char *const on_spikes[] = {"off", "skip", "stop", NULL};
static const char *const saves[] = {"last", "best", NULL};
static const char *const inputs[] = {"penultimate", "final", NULL};

struct row {
    const char *name;
    int key; /* short option or 0 */
    enum type type;
    enum life life;
    int kinds;
    size_t offset;
    double min, max;
    const char *const *words;
    const char *arg, *doc;
};

#define AT(field) offsetof(struct dm_train_opt, field)
#define MANY 1e15 /* below 2^53, so that JSON and double carry every count */

static const struct row rows[] = {
    {"config", 0, TEXT, FIXED, DM_TRAIN_BASE, AT(config), 0, 0, NULL, "SIZE|FILE",
     "shape of the model: a config.json as Pythia's, or 14m 31m 70m 160m 410m 1b 1.4b 2.8b 6.9b "
     "12b; required but with --from"},
    {"from", 0, TEXT, FIXED, DM_TRAIN_BASE, AT(from), 0, 0, NULL, "MODEL",
     "a base to train further, for example on instructions: its weights instead of random ones, "
     "its shape, tokenizer and number format"},
    {"tokenizer", 0, TEXT, KEPT, DM_TRAIN_BASE, AT(tokenizer), 0, 0, NULL, "FILE",
     "tokenizer.json that goes into the model (default: the one in the first shard)"},
    {"vocab-rows", 0, TEXT, FIXED, DM_TRAIN_BASE, AT(vocab_rows), 0, 0, NULL, "config|auto|N",
     "rows of the embeddings: as the config says, or the tokenizer's size rounded up to a multiple "
     "of 64, or N"},
    {"dtype", 0, WORD, FIXED, DM_TRAIN_BASE, AT(dtype), 0, 0, dtypes, "TYPE",
     "f32, f16 or bf16: how the weights are stored"},
    {"dtype", 0, WORD, FIXED, DM_TRAIN_HEADS, AT(dtype), 0, 0, dtypes_heads, "TYPE",
     "base, f32, f16 or bf16: how the trained weights are stored; base: as the base's"},
    {"precision", 0, WORD, FIXED, BOTH, AT(precision), 0, 0, precisions, "TYPE",
     "of matrix products: bf16 rounds weights and inputs and sums in float32, f32 rounds nothing; "
     "trained weights, their gradients and the optimiser are float32 in both"},
    {"recipe", 0, WORD, FIXED, DM_TRAIN_HEADS, AT(recipe), 0, 0, recipes, "HOW",
     "frozen: the base is not touched; joint: everything trains, the base at its own, low rate "
     "(the "
     "paper's suite)"},
    {"heads", 0, SIZE, FIXED, DM_TRAIN_HEADS, AT(heads), 2, 16, NULL, "K",
     "tokens per step; heads 2..K are trained"},
    {"head-depth", 0, SIZE, FIXED, DM_TRAIN_HEADS, AT(head_depth), 1, 16, NULL, "D",
     "decoder layers per head"},
    {"init", 0, WORD, FIXED, DM_TRAIN_HEADS, AT(init), 0, 0, inits, "HOW",
     "copy of the base's last layers, random N(0, 0.02), or file: the model has heads, which are "
     "trained further"},
    {"head-input", 0, WORD, FIXED, DM_TRAIN_HEADS, AT(head_input), 0, 0, inputs, "WHERE",
     "heads read the output of the penultimate or of the final layer"},
    {"head-weights", 0, TEXT, FIXED, DM_TRAIN_HEADS, AT(head_weights), 0, 0, NULL, "W,W..",
     "weight of the loss of each head that is trained, heads 2..K or 1..K (default 1 each; the "
     "paper does not say)"},
    {"data", 'd', PATHS, KEPT, BOTH, AT(data), 0, 0, NULL, "SHARD[:WEIGHT]",
     "token shard to train on; may be repeated, further shards may also follow as arguments; "
     "required. With weights (A.h5:0.7 B.h5:0.3) they are the shards' shares of the sequences"},
    {"val", 0, PATHS, KEPT, BOTH, AT(val), 0, 0, NULL, "SHARD",
     "held-out shard instead of --val-fraction; may be repeated"},
    {"val-fraction", 0, REAL, FIXED, BOTH, AT(val_fraction), 0, 0.9, NULL, "X",
     "part of each shard's tokens that is held out, as whole documents, the same ones for every "
     "seed; 0 = none"},
    {"steps", 'n', SIZE, FIXED, BOTH, AT(steps), 0, MANY, NULL, "N",
     "optimiser steps; 0 = from --epochs"},
    {"epochs", 0, REAL, FIXED, BOTH, AT(epochs), 0, 1e6, NULL, "X",
     "passes over the data if --steps is 0"},
    {"batch", 'b', SIZE, FIXED, BOTH, AT(batch), 1, 1 << 20, NULL, "B",
     "sequences per step (the paper: 64)"},
    {"micro-batch", 0, SIZE, FIXED, BOTH, AT(micro), 1, 1 << 20, NULL, "N",
     "sequences that run at once; the gradients of a batch are added in the order of a fixed "
     "binary "
     "tree; less needs less memory"},
    {"context", 'c', SIZE, FIXED, BOTH, AT(context), 2, 1 << 20, NULL, "T",
     "tokens per sequence (the paper: 2048)"},
    {"lr", 0, REAL, FIXED, DM_TRAIN_BASE, AT(lr), 0, 100, NULL, "X", "peak learning rate"},
    {"lr", 0, REAL, FIXED, DM_TRAIN_HEADS, AT(lr), 0, 100, NULL, "X",
     "peak learning rate of heads 2..K; 0 = the paper's for the base's size, see below"},
    {"base-lr", 0, REAL, FIXED, DM_TRAIN_HEADS, AT(base_lr), 0, 100, NULL, "X",
     "joint: peak learning rate of the base, head 1 included; 0 = a hundredth of --lr (the paper)"},
    {"stem-scale", 0, REAL, FIXED, DM_TRAIN_HEADS, AT(stem_scale), 0, 100, NULL, "X",
     "joint: factor of the gradient that heads 2..K send into the base (the paper's LR_MB / LR_B)"},
    {"schedule", 0, WORD, FIXED, BOTH, AT(schedule), 0, 0, schedules, "SHAPE",
     "of the rate after the warm-up: cosine, linear, constant, or wsd (warm-up, stable, decay)"},
    {"min-lr", 0, REAL, FIXED, BOTH, AT(min_lr), 0, 100, NULL, "X",
     "rate at the end of cosine, linear and wsd"},
    {"lr-decay", 0, REAL, FIXED, BOTH, AT(lr_decay), 0, MANY, NULL, "X",
     "last part of a wsd schedule, where the rate falls: below 1 a fraction of the steps, else "
     "steps"},
    {"warmup", 0, REAL, FIXED, BOTH, AT(warmup), 0, MANY, NULL, "X",
     "linear warm-up: below 1 a fraction of the steps, else steps"},
    {"weight-decay", 0, REAL, FIXED, BOTH, AT(decay), 0, 100, NULL, "X",
     "decoupled decay; not stated in the paper, our choice"},
    {"decay-mask", 0, WORD, FIXED, BOTH, AT(decay_mask), 0, 0, masks, "WHAT",
     "what decays: matrices (of layers and embeddings, as in GPT-NeoX), layers (their matrices "
     "only), or all (biases and LayerNorms, too)"},
    {"clip", 0, REAL, FIXED, BOTH, AT(clip), 0, 1e9, NULL, "X",
     "largest norm of the gradient, 0 = no clipping; not stated in the paper, our choice"},
    {"on-spike", 0, WORD, KEPT, BOTH, AT(on_spike), 0, 0, on_spikes, "WHAT",
     "when the loss or the norm of the gradient jumps: off, skip the batch, or stop; batch and "
     "gradients are kept for --replay"},
    {"spike-sigma", 0, REAL, KEPT, BOTH, AT(spike_sigma), 0, 1e6, NULL, "X",
     "a jump is more than X standard deviations above the mean"},
    {"spike-window", 0, SIZE, KEPT, BOTH, AT(spike_window), 2, DM_GUARD_MAX_WINDOW, NULL, "N",
     "of the last N steps"},
    {"beta1", 0, REAL, FIXED, BOTH, AT(beta1), 0, 0.999999, NULL, "X", "AdamW"},
    {"beta2", 0, REAL, FIXED, BOTH, AT(beta2), 0, 0.999999, NULL, "X", "AdamW"},
    {"eps", 0, REAL, FIXED, BOTH, AT(eps), 1e-30, 1, NULL, "X", "AdamW"},
    {"seed", 0, SEED, FIXED, BOTH, AT(seed), 0, 0, NULL, "N",
     "of the initial weights and of the order of the data"},
    {"val-every", 0, SIZE, KEPT, BOTH, AT(val_every), 0, MANY, NULL, "N",
     "steps between validations; 0 = a tenth of the steps, 50 at least; always at the end"},
    {"val-max", 0, SIZE, KEPT, BOTH, AT(val_max), 1, MANY, NULL, "N",
     "held-out sequences that are scored at most"},
    {"output", 'o', TEXT, KEPT, BOTH, AT(output), 0, 0, NULL, "FILE", "the model file; required"},
    {"checkpoint", 0, TEXT, KEPT, BOTH, AT(checkpoint), 0, 0, NULL, "PREFIX",
     "the state is saved as PREFIX-<step>.h5, the best so far by validation also as PREFIX-best.h5 "
     "(default: the output's name with .ckpt)"},
    {"checkpoint-every", 0, SIZE, KEPT, BOTH, AT(checkpoint_every), 0, MANY, NULL, "N",
     "steps between checkpoints; one is also saved when a validation is the best so far; 0 = only "
     "on signals, --stop-after, and when the model cannot be written"},
    {"keep-last", 0, SIZE, KEPT, BOTH, AT(keep_last), 1, MANY, NULL, "N",
     "checkpoints that are kept beside the best; they go when the model is written, and the best "
     "if "
     "it has the model's weights"},
    {"save", 0, WORD, KEPT, BOTH, AT(save), 0, 0, saves, "WHICH",
     "weights that the model gets: last, those of the last step, or best, those of the best "
     "validation"},
    {"log", 0, TEXT, KEPT, BOTH, AT(log), 0, 0, NULL, "PREFIX",
     "PREFIX.csv and PREFIX.jsonl get a row per step (default: the output's name with .log)"},
    {"log-every", 0, SIZE, KEPT, BOTH, AT(log_every), 0, MANY, NULL, "N",
     "steps between lines on standard error when it is no terminal; 0 = none"},
    {"resume", 0, TEXT, ONCE, BOTH, AT(resume), 0, 0, NULL, "WHAT",
     "go on bit for bit as if the run had not stopped, from a checkpoint FILE, from the newest "
     "whole one of a PREFIX, or, with the word auto, from the newest one of this command's own "
     "prefix if there is any; stored options are used, those that shape the weights cannot change"},
    {"replay", 0, TEXT, ONCE, BOTH, AT(replay), 0, 0, NULL, "FILE",
     "compute the gradients of a refused step again and tell about each tensor; nothing is "
     "trained"},
    {"stop-after", 0, SIZE, ONCE, BOTH, AT(stop_after), 0, MANY, NULL, "N",
     "do N steps at most now, then save the checkpoint; 0 = no limit"},
    {"recompute", 0, FLAG, ONCE, BOTH, AT(recompute), 0, 0, NULL, NULL,
     "keep only the inputs of the base's layers for the backward pass and compute the rest again: "
     "less memory, more time, the same result"},
    {"dry-run", 0, FLAG, ONCE, BOTH, AT(dry_run), 0, 0, NULL, NULL,
     "print what the run needs in memory, disk and time, and do nothing"},
    {"assume-mfu", 0, REAL, ONCE, BOTH, AT(assume_mfu), 0.001, 1, NULL, "X",
     "share of the peak that --dry-run reckons with"},
    {"threads", 't', SIZE, ONCE, BOTH, AT(threads), 0, 1024, NULL, "N",
     "threads; 0 = all cores; the result does not depend on it"},
    {"json", 'j', FLAG, ONCE, BOTH, AT(json), 0, 0, NULL, NULL,
     "the final report as one line of JSON"},
};
enum { N_ROWS = sizeof(rows) / sizeof(rows[0]) };
_Static_assert(N_ROWS <= 64, "struct dm_train_opt's `given` has a bit per row");

const char *dm_train_kind_name(enum dm_train_kind kind)
{
    return kind == DM_TRAIN_BASE ? "pretrain" : "train";
}

void dm_train_opt_init(struct dm_train_opt *o, enum dm_train_kind kind)
{
    const bool heads = kind == DM_TRAIN_HEADS;
    *o = (struct dm_train_opt){.kind = kind,
                               .vocab_rows = "config",
                               .dtype = heads ? "base" : "bf16",
                               .precision = "bf16",
                               .recipe = "frozen",
                               .init = "copy",
                               .head_input = "penultimate",
                               .schedule = "cosine",
                               .save = "last",
                               .on_spike = "off",
                               .spike_sigma = 6.0,
                               .spike_window = 100,
                               .decay_mask = "matrices",
                               .heads = 3,
                               .head_depth = 1,
                               .val_fraction = 0.03,
                               .epochs = 1.0,
                               .batch = 32,
                               .micro = 8,
                               .context = 256,
                               .lr = heads ? 0.0 : 1e-3,
                               .stem_scale = 0.1,
                               .warmup = 0.01,
                               .lr_decay = 0.2,
                               .decay = heads ? 0.01 : 0.1,
                               .clip = 1.0,
                               .beta1 = 0.9,
                               .beta2 = 0.95,
                               .eps = 1e-8,
                               .seed = 1,
                               .val_max = 128,
                               .assume_mfu = 0.5,
                               .checkpoint_every = 1000,
                               .keep_last = 2,
                               .log_every = 10};
}

void dm_train_opt_release(struct dm_train_opt *o)
{
    dm_paths_clear(&o->data);
    dm_paths_clear(&o->val);
    json_decref(o->stored);
    *o = (struct dm_train_opt){0};
}

static void *member(struct dm_train_opt *o, const struct row *r)
{
    return (char *)o + r->offset;
}

static const void *value(const struct dm_train_opt *o, const struct row *r)
{
    return (const char *)o + r->offset;
}

static int row_key(size_t i)
{
    return rows[i].key ? rows[i].key : FIRST_KEY + (int)i;
}

/* " (default X)" or nothing. */
static void default_text(char *out, size_t n, const struct dm_train_opt *o, const struct row *r)
{
    const void *v = value(o, r);
    out[0] = '\0';
    if (r->type == SIZE)
        snprintf(out, n, " (default %zu)", *(const size_t *)v);
    else if (r->type == SEED)
        snprintf(out, n, " (default %llu)", (unsigned long long)*(const uint64_t *)v);
    else if (r->type == REAL)
        snprintf(out, n, " (default %g)", *(const double *)v);
    else if ((r->type == TEXT || r->type == WORD) && *(const char *const *)v)
        snprintf(out, n, " (default %s)", *(const char *const *)v);
}

void dm_train_opt_argp(const struct dm_train_opt *o, struct argp_option *out, char *text)
{
    size_t used = 0, n = 0;
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        char def[64];
        if (!(r->kinds & o->kind))
            continue;
        default_text(def, sizeof(def), o, r);
        char *doc = text + used;
        used += (size_t)snprintf(doc, DM_TRAIN_TEXT_MAX - used, "%s%s", r->doc, def) + 1;
        if (used > DM_TRAIN_TEXT_MAX)
            used = DM_TRAIN_TEXT_MAX;
        out[n] = (struct argp_option){.name = r->name, .key = row_key(i), .arg = r->arg};
        out[n].doc = doc;
        out[n].group = (int)n + 1; // one each: argp sorts the names within a group
        n++;
    }
    out[n] = (struct argp_option){0};
}

/* Length of the path in "PATH:WEIGHT", and the weight. */
static size_t cut_weight(const char *text, double *weight)
{
    const char *colon = strrchr(text, ':');
    char *end;
    *weight = 0.0;
    if (!colon || colon == text || !strchr("0123456789.", colon[1]) || !access(text, F_OK))
        return strlen(text);
    const double w = strtod(colon + 1, &end);
    if (end == colon + 1 || *end || !(w > 0.0 && w < 1e9))
        return strlen(text);
    *weight = w;
    return (size_t)(colon - text);
}

enum dm_status dm_paths_add(struct dm_paths *p, const char *text, struct dm_err *e)
{
    double weight;
    char *path = strndup(text, cut_weight(text, &weight));
    const char **paths = dm_realloc(p->path, p->n + 1, sizeof(*paths));
    if (paths)
        p->path = paths;
    double *weights = dm_realloc(p->weight, p->n + 1, sizeof(*weights));
    if (weights)
        p->weight = weights;
    if (!path || !paths || !weights) {
        free(path);
        return dm_fail(e, DM_ENOMEM, "out of memory");
    }
    p->path[p->n] = path;
    p->weight[p->n++] = weight;
    return DM_OK;
}

void dm_paths_clear(struct dm_paths *p)
{
    for (size_t i = 0; i < p->n; i++)
        free((void *)(uintptr_t)p->path[i]);
    free(p->path);
    free(p->weight);
    *p = (struct dm_paths){0};
}

static void parse_row(struct dm_train_opt *o, const struct row *r, const char *arg,
                      struct argp_state *s)
{
    void *v = member(o, r);
    struct dm_err e;
    char name[40];
    snprintf(name, sizeof(name), "--%s", r->name);
    switch (r->type) {
    case SIZE:
        *(size_t *)v = dm_opt_size(s, name, arg, (size_t)r->min, (size_t)r->max);
        break;
    case REAL:
        *(double *)v = dm_opt_real(s, name, arg, r->min, r->max);
        break;
    case SEED:
        *(uint64_t *)v = dm_opt_u64(s, name, arg);
        if (*(uint64_t *)v > INT64_MAX) // JSON integers are signed
            argp_error(s, "%s: \"%s\" is above 2^63 - 1", name, arg);
        break;
    case WORD:
        *(const char **)v = r->words[dm_opt_word(s, name, arg, r->words)];
        break;
    case TEXT:
        *(const char **)v = arg;
        break;
    case PATHS:
        if (dm_paths_add(v, arg, &e))
            argp_failure(s, 1, 0, "%s", e.msg);
        break;
    case FLAG:
        *(bool *)v = true;
        break;
    }
}

error_t dm_train_opt_parse(struct dm_train_opt *o, int key, const char *arg, struct argp_state *s)
{
    for (size_t i = 0; i < N_ROWS; i++) {
        if (!(rows[i].kinds & o->kind) || key != row_key(i))
            continue;
        parse_row(o, &rows[i], arg, s);
        o->given |= (uint64_t)1 << i;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static size_t word_index(const char *word, const char *const *words)
{
    size_t i = 0;
    while (words[i] && strcmp(words[i], word))
        i++;
    return i;
}

struct dm_schedule dm_train_opt_schedule(const struct dm_train_opt *o, size_t steps)
{
    const size_t warmup = dm_schedule_part(o->warmup, steps, steps);
    return (struct dm_schedule){.shape = (enum dm_schedule_shape)word_index(o->schedule, schedules),
                                .steps = steps,
                                .warmup = warmup,
                                .decay = dm_schedule_part(o->lr_decay, steps, steps - warmup),
                                .lr = o->lr,
                                .min_lr = o->min_lr};
}

size_t dm_train_opt_val_every(const struct dm_train_opt *o, size_t steps)
{
    return o->val_every ? o->val_every : steps > 500 ? steps / 10 : 50;
}

struct dm_guard dm_train_opt_guard(const struct dm_train_opt *o)
{
    return (struct dm_guard){.on = (enum dm_on_spike)word_index(o->on_spike, on_spikes),
                             .window = o->spike_window,
                             .sigma = o->spike_sigma};
}

enum dm_decay_mask dm_train_opt_decay_mask(const struct dm_train_opt *o)
{
    return (enum dm_decay_mask)word_index(o->decay_mask, masks);
}

enum dm_format dm_train_opt_format(const struct dm_train_opt *o)
{
    return strcmp(o->precision, "f32") ? DM_FMT_BF16 : DM_FMT_F32;
}

enum dm_status dm_train_opt_path(char *out, size_t n, const char *output, const char *suffix,
                                 struct dm_err *e)
{
    const size_t len = strlen(output);
    const bool h5 = len > 3 && !strcmp(output + len - 3, ".h5");
    const int k = snprintf(out, n, "%.*s%s", (int)(h5 ? len - 3 : len), output, suffix);
    if (k < 0 || (size_t)k >= n)
        return dm_fail(e, DM_ERANGE, "%s: the name is too long", output);
    return DM_OK;
}

enum dm_status dm_train_opt_log(char *out, size_t n, const struct dm_train_opt *o, struct dm_err *e)
{
    return o->log ? dm_train_opt_path(out, n, o->log, "", e)
                  : dm_train_opt_path(out, n, o->output, ".log", e);
}

bool dm_train_opt_joint(const struct dm_train_opt *o)
{
    return o->kind == DM_TRAIN_HEADS && !strcmp(o->recipe, "joint");
}

bool dm_train_opt_given(const struct dm_train_opt *o, const char *name)
{
    size_t i = 0;
    while (i < N_ROWS && (!(rows[i].kinds & o->kind) || strcmp(rows[i].name, name)))
        i++;
    assert(i < N_ROWS);
    return o->given >> i & 1;
}

static json_t *row_json(const struct dm_train_opt *o, const struct row *r)
{
    const void *v = value(o, r);
    switch (r->type) {
    case SIZE:
        return json_integer((json_int_t) * (const size_t *)v);
    case REAL:
        return json_real(*(const double *)v);
    case SEED:
        return json_integer((json_int_t) * (const uint64_t *)v);
    case WORD:
    case TEXT:
        return *(const char *const *)v ? json_string(*(const char *const *)v) : json_null();
    case PATHS: {
        const struct dm_paths *p = v;
        json_t *list = json_array();
        for (size_t i = 0; i < p->n; i++)
            json_array_append_new(list, p->weight[i] > 0.0
                                            ? json_sprintf("%s:%.17g", p->path[i], p->weight[i])
                                            : json_string(p->path[i]));
        return list;
    }
    default:
        return json_boolean(*(const bool *)v);
    }
}

json_t *dm_train_opt_json(const struct dm_train_opt *o, bool all)
{
    json_t *out = json_object();
    if (!out)
        return NULL;
    if (all && o->kind == DM_TRAIN_HEADS) // the one argument that is no option
        json_object_set_new(out, "base", o->base ? json_string(o->base) : json_null());
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        if ((r->kinds & o->kind) && (r->life == FIXED || (all && r->life == KEPT)) &&
            json_object_set_new(out, r->name, row_json(o, r))) {
            json_decref(out); // out of memory, or text that is not UTF-8
            return NULL;
        }
    }
    return out;
}

static enum dm_status restore_paths(struct dm_paths *p, const json_t *stored, const struct row *r,
                                    const char *where, struct dm_err *e)
{
    const json_t *list = json_object_get(stored, r->name);
    dm_paths_clear(p);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *path = json_string_value(json_array_get(list, i));
        if (!path)
            return dm_fail(e, DM_EFORMAT, "%s: an entry of \"%s\" is not a string", where, r->name);
        DM_TRY(dm_paths_add(p, path, e));
    }
    return DM_OK;
}

static enum dm_status restore_word(const char **v, const struct row *r, const char *where,
                                   struct dm_err *e)
{
    for (size_t i = 0; *v && r->words[i]; i++)
        if (!strcmp(*v, r->words[i]))
            return DM_OK;
    return dm_fail(e, DM_ERANGE, "%s: \"%s\" is \"%s\", want e.g. %s", where, r->name,
                   *v ? *v : "null", r->words[0]);
}

static enum dm_status restore_real(double *v, const json_t *stored, const struct row *r,
                                   const char *where, struct dm_err *e)
{
    DM_TRY(dm_json_number(stored, r->name, true, where, v, e));
    if (!(*v >= r->min && *v <= r->max))
        return dm_fail(e, DM_ERANGE, "%s: \"%s\" is %g, want %g to %g", where, r->name, *v, r->min,
                       r->max);
    return DM_OK;
}

static enum dm_status restore_row(struct dm_train_opt *o, const struct row *r, const json_t *stored,
                                  const char *where, struct dm_err *e)
{
    void *v = member(o, r);
    size_t n = 0;
    switch (r->type) {
    case SIZE:
        return dm_json_size(stored, r->name, (size_t)r->min, (size_t)r->max, true, where, v, e);
    case REAL:
        return restore_real(v, stored, r, where, e);
    case SEED:
        DM_TRY(dm_json_size(stored, r->name, 0, INT64_MAX, true, where, &n, e));
        *(uint64_t *)v = n;
        return DM_OK;
    case WORD:
        DM_TRY(dm_json_string(stored, r->name, true, where, v, e));
        return restore_word(v, r, where, e);
    case TEXT:
        return dm_json_string(stored, r->name, false, where, v, e);
    case PATHS:
        return restore_paths(v, stored, r, where, e);
    default:
        return DM_OK; // flags belong to one run
    }
}

/* An option that shapes the weights may be given again, but not changed. */
static enum dm_status check_same(const struct dm_train_opt *o, const struct row *r,
                                 const json_t *stored, const char *where, struct dm_err *e)
{
    json_t *given = row_json(o, r), *was = json_object_get(stored, r->name);
    enum dm_status st = DM_OK;
    if (!json_equal(given, was)) {
        char *text = json_dumps(was, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        st = dm_fail(e, DM_EMISMATCH, "--%s cannot change in a resumed run: it is %s in %s",
                     r->name, text ? text : "missing", where);
        free(text);
    }
    json_decref(given);
    return st;
}

enum dm_status dm_train_opt_restore(struct dm_train_opt *o, json_t *stored, const char *where,
                                    struct dm_err *e)
{
    if (!json_is_object(stored))
        return dm_fail(e, DM_EFORMAT, "%s: options are %s, want an object", where,
                       dm_json_type(stored));
    json_decref(o->stored);
    o->stored = json_incref(stored);
    if (!o->base && o->kind == DM_TRAIN_HEADS)
        DM_TRY(dm_json_string(stored, "base", true, where, &o->base, e));
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct row *r = &rows[i];
        if (!(r->kinds & o->kind) || r->life == ONCE)
            continue;
        if (!(o->given >> i & 1))
            DM_TRY(restore_row(o, r, stored, where, e));
        else if (r->life == FIXED)
            DM_TRY(check_same(o, r, stored, where, e));
    }
    return DM_OK;
}
