#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare `dynamo tokenize` with Hugging Face's tokenizers (encode_batch) on the same text.

    scripts/bench_tokenizers.py build/dynamo tokenizer.json TEXT... [--runs 5] [--threads 1,2] [--mb 8]

The texts (.txt, may be .gz) are cut at blank lines into documents of about --document bytes, the first
--mb megabytes of them. Both programs tokenize the same documents; their ids must be equal. Runs
alternate; each prints a line of least, median and largest MB/s. Hugging Face gets its strings ready
in memory, dynamo reads a JSONL file, loads its tokenizer and writes a shard, with the start of an
empty run given beside it.
"""
import argparse, gzip, json, os, statistics, subprocess, sys, tempfile, time

PEER = """
import json, sys, time
from tokenizers import Tokenizer
t = Tokenizer.from_file(sys.argv[1])
docs = [json.loads(line)["text"] for line in open(sys.argv[2], encoding="utf-8")]
start = time.perf_counter()
ids = [e.ids for e in t.encode_batch(docs, add_special_tokens=False)]
seconds = time.perf_counter() - start
with open(sys.argv[3], "w") as f:
    for i in ids:
        print(*i, file=f)
print(seconds)
"""


def documents(paths, size, limit):
    total = 0
    for path in paths:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
            text = f.read().decode("utf-8")
        doc = ""
        for line in text.splitlines(keepends=True):
            doc += line
            if len(doc) >= size and not line.strip():
                yield doc
                total += len(doc.encode())
                doc = ""
                if total >= limit:
                    return
        if doc:
            yield doc
            total += len(doc.encode())


def show(name, threads, n, seconds):
    rate = [n / s / 1e6 for s in seconds]
    print(f"{name}\t{threads}\t{min(rate):.2f}\t{statistics.median(rate):.2f}\t{max(rate):.2f}", flush=True)
    return statistics.median(rate)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dynamo")
    p.add_argument("tokenizer")
    p.add_argument("texts", nargs="+")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--threads", default="1,2")
    p.add_argument("--mb", type=float, default=8)
    p.add_argument("--document", type=int, default=2000, help="characters of a document")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        text, peer_ids, shard = (os.path.join(d, x) for x in ("text.jsonl", "peer.ids", "out.h5"))
        n = 0
        with open(text, "w", encoding="utf-8") as f:
            for doc in documents(a.texts, a.document, a.mb * 1e6):
                f.write(json.dumps({"text": doc}, ensure_ascii=False) + "\n")
                n += len(doc.encode())
        open(os.path.join(d, "empty.jsonl"), "w").close()
        print(f"# {n} bytes\nprogram\tthreads\tmin\tmedian\tmax MB/s")
        for threads in map(int, a.threads.split(",")):
            env = dict(os.environ, RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true")
            peer, ours, start = [], [], []
            for _ in range(a.runs):
                out = subprocess.run([sys.executable, "-c", PEER, a.tokenizer, text, peer_ids],
                                     env=env, check=True, capture_output=True, text=True)
                peer.append(float(out.stdout))
                for seconds, source in ((ours, text), (start, os.path.join(d, "empty.jsonl"))):
                    begin = time.perf_counter()
                    subprocess.run([a.dynamo, "tokenize", "-t", a.tokenizer, source, "-o", shard, "--threads",
                                    str(threads)], check=True, capture_output=True)
                    seconds.append(time.perf_counter() - begin)
            begin_up = statistics.median(start)
            hf = show("tokenizers", threads, n, peer)
            show("dynamo, all", threads, n, ours)
            net = show("dynamo, without its start", threads, n, [max(s - begin_up, 1e-9) for s in ours])
            print(f"# start {begin_up:.3f} s; ratio of medians {net / hf:.1f}")
        got = subprocess.run([a.dynamo, "tokenize", "-t", a.tokenizer, text, "--print"], check=True,
                             capture_output=True).stdout
        with open(peer_ids, "rb") as f:
            same = f.read() == got
        print("# ids are equal" if same else "# IDS DIFFER")
        return not same


if __name__ == "__main__":
    sys.exit(main())
