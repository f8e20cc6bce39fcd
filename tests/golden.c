/* SPDX-License-Identifier: MIT */
#include "tests/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/json.h"
#include "tests/util.h"

struct dm_h5 *golden_open(const char *name, struct dm_config *c)
{
    char path[256];
    struct dm_err e;
    struct dm_h5 *f;
    char *text;
    json_t *root;
    snprintf(path, sizeof(path), "tests/golden/%s", name);
    assert_ok(dm_h5_open(&f, path, "dynamo-golden", 1, &e), e);
    if (!c)
        return f;
    assert_ok(dm_h5_get_string(f, "/", "config", &text, &e), e);
    assert_ok(dm_json_parse(text, strlen(text), path, &root, &e), e);
    assert_ok(dm_config_from_json(c, root, path, &e), e);
    json_decref(root);
    free(text);
    return f;
}

void *golden_read(struct dm_h5 *f, const char *name, enum dm_h5_type t, size_t *n)
{
    struct dm_err e;
    enum dm_h5_type stored;
    size_t rows, cols;
    assert_ok(dm_h5_shape(f, name, &stored, &rows, &cols, &e), e);
    assert_int_equal(stored, t);
    const size_t count = rows * (cols ? cols : 1);
    void *buf = malloc(count * sizeof(double));
    assert_non_null(buf);
    assert_ok(dm_h5_read(f, name, t, buf, rows, cols, &e), e);
    if (n)
        *n = count;
    return buf;
}

void golden_fill(struct dm_params *p, const struct dm_config *c, enum dm_scope scope)
{
    const double rc = 1.0 / sqrt((double)c->C), rf = 1.0 / sqrt((double)c->F);
    // The first part of a name that matches decides.
    const struct {
        const char *part;
        float offset;
        double scale;
    } rules[] = {{".bias", 0.0f, 0.1},
                 {"layernorm", 1.0f, 0.1},
                 {"layer_norm", 1.0f, 0.1},
                 {"embed_in", 0.0f, 1.0},
                 {"embed_out", 0.0f, 4.0 * rc},
                 {"query_key_value", 0.0f, 3.0 * rc},
                 {"dense_4h_to_h", 0.0f, 2.0 * rf},
                 {"dense", 0.0f, 2.0 * rc}};
    enum { N_RULES = sizeof(rules) / sizeof(rules[0]) };
    const size_t n = dm_params_list(p, c, scope, NULL);
    struct dm_tensor *t = malloc(n * sizeof(*t));
    assert_non_null(t);
    dm_params_list(p, c, scope, t);
    for (size_t i = 0; i < n; i++) {
        size_t r = 0;
        while (r < N_RULES && !strstr(t[i].name, rules[r].part))
            r++;
        assert_true(r < N_RULES);
        fill_named(t[i].data, t[i].n, t[i].name, (float)rules[r].scale);
        for (size_t j = 0; j < t[i].n; j++)
            t[i].data[j] = rules[r].offset + t[i].data[j];
    }
    free(t);
}
