#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measure llama.cpp beside `dynamo bench`, one token at a time, and write its figures as peers.

    scripts/bench_llama.py LLAMA_BENCH build/dynamo [--sizes 70m,160m] [--formats bf16,int8,int4]
                           [--int4 Q4_0|Q4_1] [--threads 1,2] [--runs 5] [--work DIR] [-o llama.json]

LLAMA_BENCH is llama.cpp's program of that name, built natively (cmake -DGGML_NATIVE=ON). With gcc 12 on
a machine with AMX its 0.5.0 dies in Q8_0 and Q4_0 by signal 11: the compiler drops the tile
configuration before _tile_loadconfig(&tc) in ggml/src/ggml-cpu/amx/mmq.cpp unless a line
__asm__ volatile("" : : "r"(&tc) : "memory"); stands above it. For each size and format a GGUF file of
random weights in Pythia's shapes is made in --work (2.9 GB at most, deleted afterwards), with all
matrices in BF16, Q8_0 or, for int4, Q4_0 (a scale for 32 weights, 4.5 bits each) or Q4_1 (a scale and
an offset, 5 bits, as here), and both programs decode one token at a time behind 256
tokens of context: llama.cpp, dynamo, llama.cpp again, each --runs times, so that a machine whose speed
drifts shows in the spread. Prints tokens/s as least, median and largest, and the ratio of the medians.
The file has one entry per size, format and thread count, those that it had already are kept or
replaced; `dynamo bench --peers llama.json` reads it. Needs `pip install gguf numpy`.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

import gguf
import numpy as np

SIZES = {  # layers, hidden size, attention heads
    "14m": (6, 128, 4), "31m": (6, 256, 8), "70m": (6, 512, 8), "160m": (12, 768, 12), "410m": (24, 1024, 16),
    "1b": (16, 2048, 8), "1.4b": (24, 2048, 16), "2.8b": (32, 2560, 32),
}
FORMATS = {"bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0"}
VOCAB, CONTEXT, TOKENS = 50304, 256, 32


def matrix(rows, columns, kind, rng):
    """Random weights; rows repeat after 64, which no timing sees and saves minutes."""
    block = rng.standard_normal((64, columns), dtype=np.float32) * 0.02
    return np.tile(gguf.quants.quantize(block, kind), (rows // 64, 1))


def write_model(path, size, name):
    layers, c, heads = SIZES[size]
    kind = gguf.GGMLQuantizationType[name]
    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "gptneox", use_temp_file=False)
    w.add_context_length(2048)
    w.add_embedding_length(c)
    w.add_feed_forward_length(4 * c)
    w.add_block_count(layers)
    w.add_head_count(heads)
    w.add_rope_dimension_count(c // heads // 4)
    w.add_parallel_residual(True)
    w.add_layer_norm_eps(1e-5)
    w.add_vocab_size(VOCAB)
    w.add_tokenizer_model("no_vocab")
    w.add_file_type(gguf.LlamaFileType[f"MOSTLY_{name}"])

    def weight(tensor, rows, columns):
        w.add_tensor(tensor + ".weight", matrix(rows, columns, kind, rng), raw_dtype=kind)

    def vector(tensor, n, what="bias"):
        w.add_tensor(f"{tensor}.{what}", rng.standard_normal(n, dtype=np.float32) * 0.02 + (what == "weight"))

    weight("token_embd", VOCAB, c)
    for i in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            vector(f"blk.{i}.{norm}", c, "weight")
            vector(f"blk.{i}.{norm}", c)
        for tensor, rows, columns in (("attn_qkv", 3 * c, c), ("attn_output", c, c), ("ffn_up", 4 * c, c), ("ffn_down", c, 4 * c)):
            weight(f"blk.{i}.{tensor}", rows, columns)
            vector(f"blk.{i}.{tensor}", rows)
    vector("output_norm", c, "weight")
    vector("output_norm", c)
    weight("output", VOCAB, c)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def call(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        how = f"with exit code {done.returncode}" if done.returncode > 0 else f"by signal {-done.returncode}"
        sys.exit(f"bench_llama.py: {' '.join(command)} ended {how}:\n{done.stderr[-2000:]}")
    return done.stdout


def llama(program, path, threads, runs):
    out = json.loads(call([program, "-m", path, "-p", "0", "-n", str(TOKENS), "-d", str(CONTEXT), "-t", str(threads),
                           "-r", str(runs), "-ngl", "0", "-o", "json"]))[0]
    return out["samples_ts"], f"llama.cpp {out['build_commit']}"


def dynamo(program, size, fmt, threads, runs):
    out = json.loads(call([program, "bench", "--config", size, "--format", fmt, "--threads", str(threads), "--what",
                           "decode", "--runs", str(runs), "--json"]))
    return out["sections"]["decode"][0], out["machine"]


def spread(x):
    return [min(x), statistics.median(x), max(x)]


def measure(a, path, size, fmt, threads):
    before, peer = llama(a.llama_bench, path, threads, a.runs)
    ours, machine = dynamo(a.dynamo, size, fmt, threads, a.runs)
    theirs = spread(before + llama(a.llama_bench, path, threads, a.runs)[0])
    rate, share = ours["tokens_per_s"], ours["share"]
    print(f"{size}\t{fmt}\t{threads}\t" + "\t".join(f"{x:.1f}" for x in theirs + rate) +
          f"\t{rate[1] / theirs[1]:.2f}\t{share[1]:.2f}", flush=True)
    return {"peer": f"{peer} {FORMATS[fmt]}", "size": size, "job": "decode", "format": fmt, "threads": threads,
            "tokens_per_s": [round(x, 3) for x in theirs], "machine": machine}


def store(path, new):
    """By rename, behind what the file has of other sizes, formats and thread counts."""
    def key(p):
        return p["size"], p["job"], p["format"], p["threads"]

    old = []
    if os.path.exists(path):
        with open(path) as f:
            old = [p for p in json.load(f) if key(p) not in {key(x) for x in new}]
    tmp = f"{path}.tmp.{os.getpid()}"
    with open(tmp, "w") as f:
        json.dump(old + new, f, indent=1)
        f.write("\n")
    os.replace(tmp, path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("llama_bench")
    p.add_argument("dynamo")
    p.add_argument("--sizes", default="70m,160m,410m,1.4b")
    p.add_argument("--formats", default="bf16,int8,int4")
    p.add_argument("--int4", default="Q4_0", choices=("Q4_0", "Q4_1"))
    p.add_argument("--threads", default="1,2")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--work", help="folder for the GGUF files (default: a temporary one); those found there are used again and kept")
    p.add_argument("-o", "--output", default="llama.json")
    a = p.parse_args()
    FORMATS["int4"] = a.int4
    for size in a.sizes.split(","):
        if size not in SIZES:
            sys.exit(f"bench_llama.py: size {size} is none of {', '.join(SIZES)}")
    for fmt in a.formats.split(","):
        if fmt not in FORMATS:
            sys.exit(f"bench_llama.py: format {fmt} is none of {', '.join(FORMATS)}")
    print("size\tformat\tthreads\tllama.cpp tokens/s: least\tmedian\tlargest\tdynamo: least\tmedian\tlargest\tratio\tshare of the probe")
    with tempfile.TemporaryDirectory() as tmp:
        for size in a.sizes.split(","):
            for fmt in a.formats.split(","):
                path = os.path.join(a.work or tmp, f"random-{size}-{FORMATS[fmt]}.gguf")
                if not os.path.exists(path):
                    write_model(path, size, FORMATS[fmt])
                store(a.output, [measure(a, path, size, fmt, int(t)) for t in a.threads.split(",")])
                if not a.work:
                    os.remove(path)


main()
