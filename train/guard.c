/* SPDX-License-Identifier: MIT */
#include "train/guard.h"

#include <math.h>

#include "src/base/par.h"

static const struct dm_adamw_slot *last_bad(const struct dm_adamw *a, bool gradient, size_t *n)
{
    const struct dm_adamw_slot *bad = NULL;
    size_t count = 0;
    for (size_t i = 0; i < a->n_slots; i++) {
        const struct dm_adamw_slot *s = &a->slot[i];
        // Squares of finite floats cannot overflow a double.
        if (!isfinite(dm_par_sum_squares(gradient ? s->g : s->p, s->n))) {
            bad = s;
            count++;
        }
    }
    if (n)
        *n = count;
    return bad;
}

const struct dm_adamw_slot *dm_guard_bad_gradient(const struct dm_adamw *a, size_t *n)
{
    return last_bad(a, true, n);
}

const struct dm_adamw_slot *dm_guard_bad_parameter(const struct dm_adamw *a, size_t *n)
{
    return last_bad(a, false, n);
}
