/* SPDX-License-Identifier: MIT */
#include "tests/ref/nn.h"

#include <math.h>
#include <stdlib.h>

void ref_layernorm(double *out, const double *inp, const double *w, const double *b, double eps,
                   size_t N, size_t C)
{
    for (size_t n = 0; n < N; n++) {
        double mean = 0.0, var = 0.0;
        for (size_t c = 0; c < C; c++)
            mean += inp[n * C + c] / (double)C;
        for (size_t c = 0; c < C; c++)
            var += (inp[n * C + c] - mean) * (inp[n * C + c] - mean) / (double)C;
        for (size_t c = 0; c < C; c++)
            out[n * C + c] = (inp[n * C + c] - mean) / sqrt(var + eps) * w[c] + b[c];
    }
}

void ref_rotary(double *x, double base, size_t pos, size_t N, size_t T, size_t n_heads, size_t HS,
                size_t rot)
{
    for (size_t n = 0; n < N; n++)
        for (size_t h = 0; h < n_heads; h++)
            for (size_t j = 0; j < rot / 2; j++) {
                double *v = x + (n * n_heads + h) * HS;
                const double angle = (double)(pos + n % T) /
                                     pow(base, 2.0 * (double)j / (double)rot);
                const double a = v[j], b = v[j + rot / 2];
                v[j] = a * cos(angle) - b * sin(angle);
                v[j + rot / 2] = b * cos(angle) + a * sin(angle);
            }
}

void ref_attention(double *out, double *lse, const double *q, const double *k, const double *v,
                   size_t B, size_t T, size_t pos, size_t NH, size_t HS)
{
    const size_t S = pos + T;
    double *p = malloc(S * sizeof(*p));
    assert_non_null(p);
    for (size_t b = 0; b < B; b++)
        for (size_t h = 0; h < NH; h++)
            for (size_t t = 0; t < T; t++) {
                const size_t at = ((b * T + t) * NH + h) * HS;
                double max = -INFINITY, sum = 0.0;
                for (size_t j = 0; j <= pos + t; j++) {
                    p[j] = ref_dot(q + at, k + ((b * S + j) * NH + h) * HS, HS) / sqrt((double)HS);
                    max = fmax(max, p[j]);
                }
                for (size_t j = 0; j <= pos + t; j++)
                    sum += exp(p[j] - max);
                for (size_t i = 0; i < HS; i++) {
                    out[at + i] = 0.0;
                    for (size_t j = 0; j <= pos + t; j++)
                        out[at + i] += exp(p[j] - max) / sum * v[((b * S + j) * NH + h) * HS + i];
                }
                if (lse)
                    lse[(b * NH + h) * T + t] = max + log(sum);
            }
    free(p);
}

double ref_gelu(double x)
{
    return 0.5 * x * erfc(-x / sqrt(2.0));
}

double ref_logp(const double *x, size_t target, size_t Vp)
{
    double max = -INFINITY, sum = 0.0;
    for (size_t i = 0; i < Vp; i++)
        max = fmax(max, x[i]);
    for (size_t i = 0; i < Vp; i++)
        sum += exp(x[i] - max);
    return x[target] - max - log(sum);
}

void fill_both(float *x, double *xd, size_t n, const char *name, float scale)
{
    fill_named(x, n, name, scale);
    for (size_t i = 0; i < n; i++)
        xd[i] = (double)x[i];
}

double ref_dot(const double *x, const double *y, size_t n)
{
    double s = 0.0;
    for (size_t i = 0; i < n; i++)
        s += x[i] * y[i];
    return s;
}

void assert_close_ref(const float *got, const double *want, size_t n, double rtol, double scale)
{
    for (size_t i = 0; i < n; i++) {
        const double diff = fabs((double)got[i] - want[i]);
        const double allowed = rtol * fmax(fabs(want[i]), scale);
        if (!(diff <= allowed))
            fail_msg("element %zu of %zu: got %.9g, want %.9g (off by %.3g, allowed %.3g)", i, n,
                     (double)got[i], want[i], diff, allowed);
    }
}

void assert_grad_ref(loss_fn *loss, void *ctx, double *x, const float *dx, size_t n, double rtol)
{
    const double h = 1e-5;
    double *want = malloc(n * sizeof(*want)), squares = 0.0;
    assert_non_null(want);
    for (size_t i = 0; i < n; i++) {
        const double x0 = x[i];
        x[i] = x0 + h;
        const double above = loss(ctx);
        x[i] = x0 - h;
        want[i] = (above - loss(ctx)) / (2.0 * h);
        x[i] = x0;
        squares += want[i] * want[i];
    }
    assert_true(squares > 0.0); // a gradient of zero would check nothing
    assert_close_ref(dx, want, n, rtol, sqrt(squares / (double)n));
    free(want);
}

void assert_added(const float *added, const float *start, const float *grad, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double want = (double)start[i] + (double)grad[i];
        const double size = fabs((double)start[i]) + fabs((double)grad[i]);
        if (!(fabs((double)added[i] - want) <= 1e-5 * (size + 0.01)))
            fail_msg("element %zu of %zu: got %.9g, want %.9g + %.9g", i, n, (double)added[i],
                     (double)start[i], (double)grad[i]);
    }
}
