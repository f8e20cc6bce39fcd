#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Derives the polynomial coefficients of src/kernel/kern_tmpl.c and prints them with their errors.

exp(r) = 1 + r + r^2 q(r), |r| <= ln(2)/2: q interpolated at Chebyshev nodes.
Q(a) = exp(-a^2/2) R(u), u = (S - a)/(S + a): R is the scaled upper tail of the normal distribution,
fitted to relative error by Lawson's reweighted least squares on 0 <= a <= A_MAX.
Needs numpy only:  python3 scripts/fit_poly.py
"""
import math
import numpy as np

A_MAX, S = 10.0, 2.5


def show(name, coef):
    print(f"{name}: " + ", ".join(f"{float(np.float32(c)).hex()}f" for c in coef))


def horner32(coef, x):
    y = np.full_like(x, np.float32(coef[-1]))
    for c in coef[-2::-1]:  # one rounding per step, as a fused multiply-add
        y = (y.astype(np.float64) * x + np.float64(np.float32(c))).astype(np.float32)
    return y


def fit_exp(degree=4):
    h = math.log(2) / 2 * 1.001
    x = h * np.cos(math.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    q = np.array([sum(v**k / math.factorial(k + 2) for k in range(20)) for v in x])
    coef = np.polynomial.polynomial.polyfit(x, q, degree)
    g = np.linspace(-h, h, 20001)
    p = 1 + g + g * g * np.polynomial.polynomial.polyval(g, np.float64(np.float32(coef)))
    show("exp q, constant first", coef)
    print("  relative error %.2e" % np.max(np.abs(p / np.exp(g) - 1)))


def fit_tail(degree):
    t = np.cos(np.linspace(0, math.pi, 6001))
    lo = (S - A_MAX) / (S + A_MAX)
    u = lo + (1 - lo) * (t + 1) / 2
    a = S * (1 - u) / (1 + u)
    r = np.array([0.5 * math.erfc(v / math.sqrt(2)) * math.exp(v * v / 2) for v in a])
    w = np.ones_like(u)
    vand = np.polynomial.polynomial.polyvander(u, degree) / r[:, None]
    for _ in range(200):
        coef = np.linalg.lstsq(vand * np.sqrt(w)[:, None], np.sqrt(w), rcond=None)[0]
        w *= np.abs(vand @ coef - 1) + 1e-13
        w /= w.max()
    err = np.max(np.abs(vand @ coef - 1))
    u32 = u.astype(np.float32)
    a32 = S * (1 - u32.astype(np.float64)) / (1 + u32)
    r32 = np.array([0.5 * math.erfc(v / math.sqrt(2)) * math.exp(v * v / 2) for v in a32])
    err32 = np.max(np.abs(horner32(coef, u32) / r32 - 1))
    return coef, err, err32


fit_exp()
for degree in (8, 9, 10, 11):
    coef, err, err32 = fit_tail(degree)
    print("degree %d: relative error %.2e, in float32 %.2e" % (degree, err, err32))
    show("tail, constant first", coef)
