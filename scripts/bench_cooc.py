#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare `dynamo cooc` with other ways to count the pairs and triplets of a token shard.

    scripts/bench_cooc.py build/dynamo SHARD [--threads 1,2] [--runs 5] [--memory 1Gi] [--lmplz PATH]
        [--peers numpy,pandas,duckdb,lmplz]

Peers: lmplz of KenLM (-o 3, until its first stage, counting, is over, from text of ids), and from ids in memory a
GROUP BY in DuckDB, groupby().size() in pandas and numpy.unique, as a user would write it. dynamo reads the shard and
writes the table. Every run is a process of its own that may use as many cores as it has threads; runs alternate. A line
for each: least, median and largest million tokens per second, the median of million tokens per second of processor
time, and the largest resident memory. `bench_cooc --zipf TOKENS SHARD` (meson test --benchmark builds it) makes a shard
of any size.
"""
import argparse, os, statistics, subprocess, sys, tempfile, time


def ids(shard):
    import h5py

    with h5py.File(shard) as f:
        return f["tokens"][:]


def now():
    return time.perf_counter(), time.process_time()


def since(start):
    return tuple(b - a for a, b in zip(start, now()))


def in_numpy(shard, threads):
    import numpy as np

    a = ids(shard)
    start = now()
    x, y, z = a[:-2].astype(np.uint64), a[1:-1], a[2:]
    pairs = x << 16 | y
    triplets = pairs[(x != 0) & (y != 0) & (z != 0)] << 16 | z[(x != 0) & (y != 0) & (z != 0)]
    np.unique(pairs[(x != 0) & (y != 0)], return_counts=True)
    np.unique(triplets, return_counts=True)
    return since(start)


def in_pandas(shard, threads):
    import pandas as pd

    a = ids(shard)
    t = pd.DataFrame({"x": a[:-2], "y": a[1:-1], "z": a[2:]})
    start = now()
    t[(t.x != 0) & (t.y != 0)].groupby(["x", "y"]).size()
    t[(t.x != 0) & (t.y != 0) & (t.z != 0)].groupby(["x", "y", "z"]).size()
    return since(start)


def in_duckdb(shard, threads):
    import duckdb

    a = ids(shard)
    con = duckdb.connect()
    con.execute(f"set threads={threads}")
    con.register("columns_view", {"x": a[:-2], "y": a[1:-1], "z": a[2:]})
    con.execute("create table t as select * from columns_view")
    start = now()
    con.execute("create table c3 as select x, y, z, count(*) c from t where x <> 0 and y <> 0 and z <> 0 group by all")
    con.execute("create table c2 as select x, y, count(*) c from t where x <> 0 and y <> 0 group by all")
    return since(start)


PEERS = {"numpy": in_numpy, "pandas": in_pandas, "duckdb": in_duckdb}


def child(command, threads, until=None, says=False):
    """Seconds until the program ends, or says `until` on stderr; those of its processors; its peak memory in MiB.
    says: it prints both times itself. This process must stay small: a child's peak begins with its parent's."""
    start = time.perf_counter()
    p = subprocess.Popen(["taskset", "-c", f"0-{threads - 1}", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = b""
    while chunk := os.read(p.stderr.fileno(), 4096):
        said += chunk
        if until and until in said:
            break
    seconds = time.perf_counter() - start
    if until and until in said:
        p.kill()
    printed = p.stdout.read()
    _, status, usage = os.wait4(p.pid, 0)
    if not until and status:
        sys.exit(f"{command[0]}: {said.decode()}")
    cpu = usage.ru_utime + usage.ru_stime
    if says:
        seconds, cpu = map(float, printed.split())
    return seconds, cpu, usage.ru_maxrss / 1024


def only(name, shard, threads):
    return lambda: child([sys.executable, __file__, "-", shard, "--threads", str(threads), "--only", name], threads, says=True)


def write_text(shard, path):
    """In a process of its own, for its memory."""
    code = ("import sys, h5py, numpy as np\na = h5py.File(sys.argv[1])['tokens'][:]\nf = open(sys.argv[2], 'w')\n"
            "for doc in np.split(a, np.flatnonzero(a == 0)):\n    f.write(' '.join(map(str, doc[doc != 0])) + '\\n')")
    subprocess.run([sys.executable, "-c", code, shard, path], check=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dynamo")
    p.add_argument("shard")
    p.add_argument("--threads", default="1,2")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--memory", default="1Gi")
    p.add_argument("--order", default="3")
    p.add_argument("--lmplz", default="lmplz")
    p.add_argument("--peers", default="numpy,pandas,duckdb,lmplz")
    p.add_argument("--only", help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.only:
        print(*PEERS[o.only](o.shard, int(o.threads)))
        return
    peers = [x for x in o.peers.split(",") if x]
    code = "import sys, h5py; print(h5py.File(sys.argv[1])['tokens'].shape[0])"
    n = int(subprocess.run([sys.executable, "-c", code, o.shard], check=True, capture_output=True).stdout)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(o.shard))) as d:
        if "lmplz" in peers:
            write_text(o.shard, f"{d}/ids.txt")
        jobs = {}
        for t in map(int, o.threads.split(",")):
            jobs["dynamo cooc", t] = lambda t=t: child([o.dynamo, "cooc", o.shard, "-o", f"{d}/t.h5", "--order", o.order,
                                                       "--threads", str(t), "--memory", o.memory], t)
            for name in PEERS:
                if name in peers and (t == 1 or name == "duckdb"):
                    jobs[name, t] = only(name, o.shard, t)
            if "lmplz" in peers:
                jobs["lmplz stage 1", t] = lambda t=t: child([o.lmplz, "-o", "3", "-S", "1G", "-T", d, "--text", f"{d}/ids.txt",
                                                             "--arpa", "/dev/null", "--discount_fallback"], t, b"=== 2/5")
        runs = {k: [] for k in jobs}
        for _ in range(o.runs):
            for k, job in jobs.items():
                runs[k].append(job())
        print("program\tthreads\tmin\tmedian\tmax Mtok/s\tper CPU second\tmemory")
        for (name, t), r in runs.items():
            rate = [n / s / 1e6 for s, _, _ in r]
            cpu = statistics.median(n / c / 1e6 for _, c, _ in r)
            print(f"{name}\t{t}\t{min(rate):.2f}\t{statistics.median(rate):.2f}\t{max(rate):.2f}\t{cpu:.2f}"
                  f"\t{max(m for _, _, m in r):.0f} MiB", flush=True)


main()
