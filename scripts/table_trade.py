#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Speed and quality against the size of the co-occurrence table and the policy for unseen n-grams.

    scripts/table_trade.py build/dynamo heads.h5 train.h5 heldout.h5 [--sizes 100k,250k,1M]
        [--by count,weight] [--unseen backoff] [--seeds 1,1001] [--threads 0]
        [--prompts 128] [--samples 2] [--tokens 64] [--eps 0.4,0.5,0.6,0.7,0.8,0.9]

The table of the training shards (with commas) is pruned to each size by each rule (0: not at all). `dynamo
calibrate -n` then decodes the same prompts with the same seeds for each. Since a table, a policy
and eps_b all trade speed for quality, settings are compared at equal quality: tokens per forward
where the divergence (nats per token) is 0.1, 0.2 and 0.4 and where 8, 12 and 20 % of the trigrams are
repeats, interpolated between values of eps_b. One line per setting and seed; the last columns are
those of eps_b = 0.7: tokens per forward, loss of log-likelihood with its standard error, wall clock
against the base.
"""
import argparse, json, os, subprocess, sys, tempfile

AT = [("divergence", 0.1), ("divergence", 0.2), ("divergence", 0.4),
      ("repeats_3", 0.08), ("repeats_3", 0.12), ("repeats_3", 0.2)]


def interpolate(points, field, value):
    """Tokens per forward where `field` has the value; None beyond the measured range."""
    for a, b in zip(points, points[1:]):
        x, y = a[field], b[field]
        if min(x, y) <= value <= max(x, y) and x != y:
            share = (value - x) / (y - x)
            return a["tokens_per_forward"] * (1 - share) + b["tokens_per_forward"] * share
    return None


def calibrate(args, table, policy, seed):
    run = subprocess.run(
        [args.dynamo, "calibrate", args.heads, "--cooc", table, "--data", args.heldout, "-n",
         "--json", "--unseen", policy, "--eps", args.eps, "--prompts", str(args.prompts),
         "--control-prompts", "2", "--risk", "0.9", "--tokens", str(args.tokens), "--samples",
         str(args.samples), "--seed", str(seed), "--threads", str(args.threads)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    eps = list(map(float, args.eps.split(",")))
    return [p for p in json.loads(run.stdout)["evidence"]["points"] if p["eps_b"] in eps]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["dynamo", "heads", "train", "heldout"]:
        parser.add_argument(name)
    parser.add_argument("--sizes", default="0,500k,250k,100k")
    parser.add_argument("--by", default="count,weight")
    parser.add_argument("--unseen", default="backoff")
    parser.add_argument("--seeds", default="1,1001")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--eps", default="0.4,0.5,0.6,0.7,0.8,0.9", help="0.7 among them")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    print("rule", "bytes", "unseen", "seed", *("%s=%g" % a for a in AT), "tok/fwd@.7", "loss@.7",
          "se@.7", "speedup@.7", sep="\t")
    with tempfile.TemporaryDirectory() as tmp:
        whole, pruned = os.path.join(tmp, "whole.h5"), os.path.join(tmp, "pruned.h5")
        subprocess.run([args.dynamo, "cooc", *args.train.split(","), "-o", whole], check=True,
                       stdout=subprocess.DEVNULL)
        for size in args.sizes.split(","):
            for by in ["-"] if size == "0" else args.by.split(","):
                table = whole
                if size != "0":
                    table = pruned
                    subprocess.run([args.dynamo, "cooc", "merge", whole, "-o", pruned, "--by", by,
                                    "--max-bytes", size], check=True, stdout=subprocess.DEVNULL)
                for policy in args.unseen.split(","):
                    for seed in args.seeds.split(","):
                        points = calibrate(args, table, policy, seed)
                        found = [interpolate(points, *a) for a in AT]
                        p = next(p for p in points if p["eps_b"] == 0.7)
                        print(by, os.path.getsize(table), policy, seed,
                              *("-" if x is None else "%.3f" % x for x in found),
                              "%.3f" % p["tokens_per_forward"], "%.3f" % p["excess"]["logp"], "%.3f" % p["excess_se"]["logp"],
                              "%.2f" % p["speedup"], sep="\t", flush=True)


main()
