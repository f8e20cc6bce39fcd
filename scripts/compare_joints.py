#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Ways to make and to trust the joint distribution, compared at equal divergence and equal quality.

    scripts/compare_joints.py build/tests/compare_joints heads.h5 cooc.h5 heldout.h5
        [--prompts 128] [--samples 1] [--seeds 1,1001] [--lossless] [--only NAME;..] [--add NAME={..}] [--json FILE]

"best, fit" takes the fit of the model's calibration; without one it is "best". Every variant
decodes the same prompts with the same seeds at several values of eps_b. All of them trade quality for speed, so they are compared where their texts are equally good: tokens per forward
where the divergence from the base's sampler is 0.1, 0.2 and 0.4 nats per token, where the judge
(the base) finds the text 0.1 nats per token likelier than the base's own, and where 4 and 8 % more
of its trigrams are repeats; interpolated between values of eps_b, the mean over the seeds and, in
brackets, half their range. "-": out of the measured range. With --lossless modes are compared
instead: tokens per forward and wall clock. Markdown on standard output.
"""
import argparse, json, os, subprocess, sys, tempfile

EPS = [0.8, 0.65, 0.5, 0.35, 0.22]
VARIANTS = {
    "paper": {"unseen": "zero", "cut": True},
    "paper, mix": {"unseen": "mix", "cut": True},
    "paper, backoff": {"cut": True},
    "best": {},
    "best, no blur": {"blur": False},
    "best, alpha 0.8": {"alpha_c": 0.8},
    "best, alpha 0.5 for triplets": {"alpha_3": 0.5},
    "best, no pairs": {"power2": 0.01},
    "best, powers 1.5, 2": {"power2": 1.5},
    "best, fit": {"fitted": True},
}
LOSSLESS = dict({"dynamic, eps_b 0.6": {}},
                **{"lossless, %d rows" % n: {"mode": "lossless", "rows": n} for n in range(1, 9)},
                **{"lossless, measured": {"mode": "lossless", "rows": 0}})
AT = [("divergence", 0.1), ("divergence", 0.2), ("divergence", 0.4), ("logp", 0.1),
      ("repeats_3", 0.04), ("repeats_3", 0.08)]


def interpolate(points, field, value):
    """Tokens per forward at the smallest speed where `field` reaches the value; None if nowhere."""
    points = sorted(points, key=lambda p: p["tokens_per_forward"])
    for a, b in zip(points, points[1:]):
        x, y = a[field], b[field]
        if x <= value <= y and x != y:
            share = (value - x) / (y - x)
            return a["tokens_per_forward"] * (1 - share) + b["tokens_per_forward"] * share
    return None


def measure(args, variants, seed):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump({"eps": [0.6] if args.lossless else EPS,
                   "variants": {k: dict({"fitted": False}, **v) for k, v in variants.items()}}, f)
        f.flush()
        run = subprocess.run(
            [args.program, args.heads, args.table, args.heldout, f.name, str(args.prompts),
             str(args.samples), str(seed)], check=True, stdout=subprocess.PIPE, text=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def speeds(rows, name):
    """One variant's tokens per forward at every point of AT."""
    base = next(r for r in rows if r["variant"] == "base")
    points = [r for r in rows if r["variant"] in (name, "base")]
    above = [dict(p, **{k: p[k] - base[k] for k in ("logp", "repeats_3")}) for p in points]
    return [interpolate(above, *a) for a in AT]


def cell(values):
    if None in values:
        return "-"
    spread = (max(values) - min(values)) / 2
    return "%.3f" % (sum(values) / len(values)) + (" (%.3f)" % spread if len(values) > 1 else "")


def print_modes(runs, variants):
    """Minimum, median and maximum over the seeds."""
    def row(name, key):
        x = sorted(r[key] for rows in runs for r in rows if r["variant"] == name)
        return "%.3g, %.3g, %.3g" % (x[0], x[len(x) // 2], x[-1])
    print("| mode | tokens per forward | tokens/s to the base's |")
    print("|---|---|---|")
    for name in ["base", *variants]:
        print("|", name, "|", row(name, "tokens_per_forward"), "|", row(name, "speedup"), "|")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["program", "heads", "table", "heldout"]:
        parser.add_argument(name)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--seeds", default="1,1001")
    parser.add_argument("--lossless", action="store_true", help="modes by rows of a pass instead")
    parser.add_argument("--only", help="names of variants, with ;")
    parser.add_argument("--add", action="append", default=[])
    parser.add_argument("--json", help="keep what was measured")
    args = parser.parse_args()
    known = LOSSLESS if args.lossless else VARIANTS
    variants = {k: v for k, v in known.items() if not args.only or k in args.only.split(";")}
    for item in args.add:
        name, text = item.split("=", 1)
        variants[name] = json.loads(text)
    runs = [measure(args, variants, seed) for seed in args.seeds.split(",")]
    if args.json:
        with open(args.json, "w") as f:
            json.dump(runs, f)
    if args.lossless:
        return print_modes(runs, variants)
    print("| variant | divergence 0.1 | 0.2 | 0.4 | judge +0.1 | repeats +4 % | +8 % |")
    print("|---" * 7 + "|")
    for name in variants:
        found = [speeds(rows, name) for rows in runs]
        print("|", name, "|", " | ".join(cell(list(v)) for v in zip(*found)), "|")
    for rows in runs:
        for r in rows[:2]: # the base, and with other seeds
            print("%s: divergence %.3f, log p %.3f, repeats %.3f" %
                  (r["variant"], r["divergence"], r["logp"], r["repeats_3"]), file=sys.stderr)


main()
