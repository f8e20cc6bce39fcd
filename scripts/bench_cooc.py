#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare `dynamo cooc` with other ways to count the pairs and triplets of a token shard.

    scripts/bench_cooc.py build/dynamo SHARD [--threads 1,2] [--runs 5] [--memory 1Gi] [--lmplz PATH] [--peers numpy,duckdb,lmplz]

Peers: lmplz of KenLM (-o 3, until its first stage, counting, is over, from text of ids), a GROUP BY in DuckDB and
numpy.unique, both from ids in memory, as a user would write it. dynamo reads the shard and writes
the table. Runs alternate; a line for each: least, median and largest million tokens per second, and the
largest resident memory. `bench_cooc --zipf TOKENS SHARD` (meson test --benchmark builds it) makes a shard of any size.
"""
import argparse, os, statistics, subprocess, sys, tempfile, time
import h5py, numpy as np


def child(command, until=None):
    """Seconds until the program ends, or says `until` on stderr, and its peak memory in MiB."""
    start = time.perf_counter()
    p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = b""
    while chunk := os.read(p.stderr.fileno(), 4096):
        said += chunk
        if until and until in said:
            break
    seconds = time.perf_counter() - start
    if until and until in said:
        p.kill()
    _, status, usage = os.wait4(p.pid, 0)
    if not until and status:
        sys.exit(f"{command[0]}: {said.decode()}")
    return (seconds if until else time.perf_counter() - start), usage.ru_maxrss / 1024


def write_text(ids, path):
    with open(path, "w") as f:
        for doc in np.split(ids, np.flatnonzero(ids == 0)):
            f.write(" ".join(map(str, doc[doc != 0])) + "\n")


def in_numpy(a):
    start = time.perf_counter()
    x, y, z = a[:-2].astype(np.uint64), a[1:-1], a[2:]
    pairs = x << 16 | y
    triplets = pairs[(x != 0) & (y != 0) & (z != 0)] << 16 | z[(x != 0) & (y != 0) & (z != 0)]
    np.unique(pairs[(x != 0) & (y != 0)], return_counts=True)
    np.unique(triplets, return_counts=True)
    return time.perf_counter() - start


def in_duckdb(a, threads):
    import duckdb

    con = duckdb.connect()
    con.execute(f"set threads={threads}")
    columns = {"x": a[:-2], "y": a[1:-1], "z": a[2:]}
    con.register("columns_view", columns)
    con.execute("create table t as select * from columns_view")
    start = time.perf_counter()
    con.execute("create table c3 as select x, y, z, count(*) c from t where x <> 0 and y <> 0 and z <> 0 group by all")
    con.execute("create table c2 as select x, y, count(*) c from t where x <> 0 and y <> 0 group by all")
    return time.perf_counter() - start


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dynamo")
    p.add_argument("shard")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--memory", default="1Gi")
    p.add_argument("--order", default="3")
    p.add_argument("--lmplz", default="lmplz")
    p.add_argument("--peers", default="numpy,duckdb,lmplz")
    o = p.parse_args()
    peers = [x for x in o.peers.split(",") if x]
    threads = [int(x) for x in o.threads.split(",")]
    with h5py.File(o.shard) as f:
        n = f["tokens"].shape[0]
        ids = f["tokens"][:] if peers else None
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(o.shard))) as d:
        jobs = {}
        for t in threads:
            jobs["dynamo cooc", t] = lambda t=t: child([o.dynamo, "cooc", o.shard, "-o", f"{d}/t.h5", "--order", o.order,
                                                       "--threads", str(t), "--memory", o.memory])
            if "duckdb" in peers:
                jobs["DuckDB", t] = lambda t=t: (in_duckdb(ids, t), 0)
        if "numpy" in peers:
            jobs["NumPy", 1] = lambda: (in_numpy(ids), 0)
        if "lmplz" in peers:
            write_text(ids, f"{d}/ids.txt")
            jobs["lmplz stage 1", 1] = lambda: child([o.lmplz, "-o", "3", "-S", "1G", "-T", d, "--text", f"{d}/ids.txt", "--arpa",
                                                     "/dev/null", "--discount_fallback"], b"=== 2/5")
        seconds = {k: [] for k in jobs}
        for _ in range(o.runs):
            for k, job in jobs.items():
                seconds[k].append(job())
        for (name, t), runs in seconds.items():
            rate = [n / s / 1e6 for s, _ in runs]
            print(f"{name}\t{t}\t{min(rate):.2f}\t{statistics.median(rate):.2f}\t{max(rate):.2f}"
                  f"\t{max(m for _, m in runs):.0f} MiB", flush=True)


main()
