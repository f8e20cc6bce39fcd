/* SPDX-License-Identifier: MIT */
#include "src/base/progress.h"

#include <math.h>
#include <time.h>
#include <unistd.h>

double dm_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void dm_print_left(FILE *f, double seconds)
{
    fprintf(f, ", %.0f:%02.0f left", floor(seconds / 60.0), floor(fmod(seconds, 60.0)));
}

void dm_progress_init(struct dm_progress *p, const char *what, const char *unit, double total)
{
    const double now = dm_now();
    *p = (struct dm_progress){.what = what, .unit = unit, .total = total, .started = now};
    p->tty = isatty(STDERR_FILENO) != 0;
}

static void scaled(char buf[16], double x)
{
    static const char *const suffix[] = {"", "k", "M", "G", "T"};
    int i = 0;
    for (; x >= 1000.0 && i < 4; i++)
        x /= 1000.0;
    snprintf(buf, 16, x < 10.0 && i ? "%.2f%s" : "%.0f%s", x, suffix[i]);
}

void dm_progress_set(struct dm_progress *p, double done, const char *note)
{
    const double now = dm_now();
    p->done = done;
    if (!p->tty || (now - p->shown < 0.2 && done < p->total))
        return;
    p->shown = now;
    const double rate = done / (now - p->started + 1e-9);
    char amount[16], speed[16];
    scaled(amount, done);
    scaled(speed, rate);
    fprintf(stderr, "\r\033[K%s: %s %s, %s/s", p->what, amount, p->unit, speed);
    if (p->total > 0.0) {
        const double left = rate > 0.0 ? (p->total - done) / rate : 0.0;
        fprintf(stderr, ", %.0f %%", 100.0 * done / p->total);
        dm_print_left(stderr, left);
    }
    if (note)
        fprintf(stderr, ", %s", note);
    fflush(stderr);
}

void dm_progress_end(struct dm_progress *p)
{
    if (p->tty)
        fputs("\r\033[K", stderr);
}
