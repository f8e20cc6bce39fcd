/* SPDX-License-Identifier: MIT */
#include "train/report.h"

#include <math.h>
#include <string.h>

void dm_train_report_release(struct dm_train_report *r)
{
    json_decref(r->provenance);
    json_decref(r->replay);
    *r = (struct dm_train_report){0};
}

json_t *dm_train_report_json(const struct dm_train_report *r)
{
    json_t *loss = json_object();
    char key[24];
    for (size_t n = 1; n <= DM_PPL_MAX_HEADS; n++)
        if (isfinite(r->loss[n - 1])) {
            snprintf(key, sizeof(key), "%zu", n);
            json_object_set_new(loss, key, json_real(r->loss[n - 1]));
        }
    json_t *o = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o}", "steps",
                          (json_int_t)r->steps, "total_steps", (json_int_t)r->total_steps, "tokens",
                          (json_int_t)r->tokens, "parameters", (json_int_t)r->n_params,
                          "train_windows", (json_int_t)r->train_windows, "val_windows",
                          (json_int_t)r->val_windows, "seconds", r->seconds, "tokens_per_second",
                          r->tokens_per_s, "loss", loss);
    json_object_set_new(o, "memory_bytes", json_integer((json_int_t)r->memory));
    json_object_set_new(o, "flops_per_token", json_real(r->flops));
    json_object_set_new(o, "peak_gflops", json_real(r->peak_gflops));
    if (isfinite(r->mfu))
        json_object_set_new(o, "mfu", json_real(r->mfu));
    if (r->processes > 1) {
        json_object_set_new(o, "processes", json_integer((json_int_t)r->processes));
        json_object_set_new(o, "sent_per_step", json_integer((json_int_t)r->sent_per_step));
        json_object_set_new(o, "exchange", json_real(r->exchange));
    }
    if (r->val.K)
        json_object_set_new(o, "validation", dm_ppl_json(&r->val));
    if (r->best_step) {
        json_object_set_new(o, "best_val_loss", json_real(r->best));
        json_object_set_new(o, "best_step", json_integer((json_int_t)r->best_step));
    }
    json_object_set_new(o, "saved_step", json_integer((json_int_t)r->saved_step));
    return o;
}

void dm_console_begin(struct dm_console *c, const char *what)
{
    dm_progress_init(&c->progress, what, "tokens", (double)((c->steps - c->begun) * c->per_step));
}

double dm_report_mean_loss(const double *loss, size_t K)
{
    double sum = 0.0;
    size_t n = 0;
    for (size_t h = 0; h < K; h++)
        if (isfinite(loss[h])) {
            sum += loss[h];
            n++;
        }
    return sum / (double)n;
}

static void show_validation(FILE *f, const struct dm_ppl *p)
{
    fputs(", validation", f);
    for (size_t n = 1; n <= p->K; n++)
        fprintf(f, " PPL_%zu %.2f", n, dm_ppl_head(p, n));
    for (size_t n = 2; n <= p->K; n++)
        fprintf(f, " PPL_1:%zu %.2f", n, dm_ppl_joint(p, n));
}

void dm_console_step(struct dm_console *c, const struct dm_log_row *row)
{
    const size_t done = row->step - c->begun;
    char note[128];
    if (!c->f)
        return;
    snprintf(note, sizeof(note), "step %zu of %zu, loss %.4f", row->step, c->steps,
             dm_report_mean_loss(row->loss, c->K));
    if (c->progress.tty) {
        const size_t n = strlen(note);
        if (isfinite(row->mfu))
            snprintf(note + n, sizeof(note) - n, ", %.0f %% MFU", 100.0 * row->mfu);
        dm_progress_set(&c->progress, (double)(done * c->per_step), note);
        note[n] = '\0';
        if (row->val)
            dm_progress_end(&c->progress);
    }
    const bool due = c->every && (row->step % c->every == 0 || row->step == c->steps || done == 1);
    if (!row->val && (c->progress.tty || !due))
        return;
    const double left = (double)(c->steps - row->step) * row->seconds / (double)done;
    fprintf(c->f, "%s, lr %.3g, norm %.3g, %.0f tokens/s", note, row->lr, row->norm,
            row->tokens_per_s);
    if (isfinite(row->mfu))
        fprintf(c->f, " (%.0f %% MFU)", 100.0 * row->mfu);
    dm_print_left(c->f, left);
    if (row->val)
        show_validation(c->f, row->val);
    fputc('\n', c->f);
}

void dm_console_warn(struct dm_console *c, const char *text)
{
    if (!c->f)
        return;
    dm_progress_end(&c->progress);
    fprintf(c->f, "warning: %s\n", text);
}

void dm_console_note(struct dm_console *c, const char *what, const char *prefix, size_t step)
{
    if (!c->f)
        return;
    dm_progress_end(&c->progress);
    fprintf(c->f, "%s %s-%08zu.h5\n", what, prefix, step);
}

void dm_console_end(struct dm_console *c)
{
    dm_progress_end(&c->progress);
}
