#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Training steps of PyTorch beside `bench_train`: the same jobs on the same machine.

    pip install torch transformers
    scripts/bench_torch.py --threads 2 > torch.json              all jobs, all forms
    scripts/bench_torch.py --job heads70m --form autocast,stem   some
    build/dynamo bench --what train --peers torch.json           beside this program's
    scripts/bench_torch.py --products                            oneDNN's products beside `bench_gemm`'s

Random weights and tokens, 4 sequences of 512: heads 2 and 3 on a frozen stem (heads70m, heads160m)
or the whole model (base70m), loss, gradients, clipping and AdamW. Heads are GPT-NeoX layers with
the base's last LayerNorm and output embedding, as in dynamo.

    f32        float32 throughout
    autocast   bf16 autocast, float32 weights
    stem       frozen weights kept in bf16, the rest autocast (heads only)
    compile    stem or autocast through torch.compile, which needs a C++ compiler

Prints a JSON list as docs/performance.md describes it, one line per job and form; for products a
line per shape and form as `bench_gemm` does: in bf16 throughout, and with float32 operands and
results converted on the way, which is what `bench_gemm` measures (without adding to the result).
"""
import argparse
import json
import resource
import subprocess
import sys
import time

SIZES = {  # layers, hidden size, attention heads
    "70m": (6, 512, 8),
    "160m": (12, 768, 12),
    "410m": (24, 1024, 16),
}
JOBS = {"heads70m": "70m", "heads160m": "160m", "base70m": "70m"}
NAMES = {"f32": "f32", "autocast": "bf16 autocast", "stem": "stem in bf16",
         "compile": "torch.compile, bf16"}
FORMS = {"heads": ["f32", "autocast", "stem", "compile"], "base": ["f32", "autocast", "compile"]}
B, T, VOCABULARY, HEADS = 4, 512, 50304, (2, 3)


def build(job):
    """The model, and the layers of heads 2 and 3 (none for the whole model)."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
    from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXLayer

    layers, hidden, heads = SIZES[JOBS[job]]
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=4 * hidden, max_position_embeddings=2048,
        use_cache=False, attn_implementation="sdpa")
    torch.manual_seed(1)
    model = GPTNeoXForCausalLM(config)
    if job.startswith("base"):
        return model, None
    for p in model.parameters():
        p.requires_grad_(False)
    return model, torch.nn.ModuleList(GPTNeoXLayer(config, layers + n) for n in HEADS)


def unembedding(model):
    return model.get_output_embeddings()


def head_loss(model, heads, ids):
    """Sum of the heads' losses on the output of layer L-2, which needs no gradient."""
    import torch
    import torch.nn.functional as F

    base = model.gpt_neox
    with torch.no_grad():
        x = base.embed_in(ids)
        where = torch.arange(ids.shape[1])[None]
        rotary = base.rotary_emb(x, position_ids=where)
        for layer in base.layers[:-1]:
            x = first(layer(x, attention_mask=None, position_ids=where, position_embeddings=rotary))
    loss = 0.0
    for n, layer in zip(HEADS, heads):
        y = first(layer(x, attention_mask=None, position_ids=where, position_embeddings=rotary))
        logits = unembedding(model)(base.final_layer_norm(y[:, :-n]))
        loss = loss + F.cross_entropy(logits.flatten(0, 1).float(), ids[:, n:].flatten())
    return loss


def first(x):
    return x[0] if isinstance(x, tuple) else x


def whole_loss(model, _, ids):
    import torch.nn.functional as F

    logits = unembedding(model)(first(model.gpt_neox(ids, return_dict=False)))
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def run(job, form, threads, runs):
    import torch

    torch.set_num_threads(threads)
    model, heads = build(job)
    loss_of = head_loss if heads else whole_loss
    if form == "stem" or (form == "compile" and heads):
        model.to(torch.bfloat16)
    if form == "compile":
        loss_of = torch.compile(loss_of)
    parameters = list((heads or model).parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), fused=True)
    ids = torch.randint(0, VOCABULARY, (B, T))
    seconds = []
    for i in range(runs + 2):  # the first two: memory, kernels, compilation
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=form != "f32"):
            loss = loss_of(model, heads, ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if i > 1:
            seconds.append(time.perf_counter() - start)
    rate = sorted(B * T / s for s in seconds)
    print(json.dumps({
        "peer": f"PyTorch {torch.__version__} {NAMES[form]}",
        "size": JOBS[job], "job": "heads" if heads else "whole",
        "format": "f32" if form == "f32" else "bf16", "threads": threads,
        "tokens_per_s": [round(x, 1) for x in (rate[0], rate[len(rate) // 2], rate[-1])],
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-6),
        "machine": processor(), "loss": round(loss.item(), 4),
    }), flush=True)


SHAPES = [  # rows, outputs, inputs: those of bench_gemm
    (1024, 2048, 512), (1024, 512, 2048), (1024, 50304, 512), (1024, 3072, 768),
    (1024, 50304, 768), (1024, 4096, 1024), (512, 8192, 2048)]


def products(threads, runs):
    import torch

    torch.set_num_threads(threads)
    half = torch.bfloat16
    for rows, outputs, inputs in SHAPES:
        x, w = torch.randn(rows, inputs), torch.randn(outputs, inputs)
        dy = torch.randn(rows, outputs)
        xh, wh, dyh = x.to(half), w.to(half), dy.to(half)
        out, dx, dw = torch.empty_like(dy), torch.empty_like(x), torch.empty_like(w)
        linear = torch.nn.functional.linear
        forms = {  # weights are converted once, as frozen ones are packed once
            "forward, bf16": lambda: linear(xh, wh),
            "forward, float32 outside": lambda: out.copy_(linear(x.to(half), wh)),
            "input_gradient, bf16": lambda: dyh @ wh,
            "input_gradient, float32 outside": lambda: dx.copy_(dy.to(half) @ wh),
            "weight_gradient, bf16": lambda: dyh.t() @ xh,
            "weight_gradient, float32 outside": lambda: dw.copy_(dy.to(half).t() @ x.to(half)),
        }
        for form, product in forms.items():
            seconds = []
            for i in range(runs + 2):
                start = time.perf_counter()
                product()
                if i > 1:
                    seconds.append(time.perf_counter() - start)
            rate = sorted(2e-9 * rows * outputs * inputs / s for s in seconds)
            print(json.dumps({
                "peer": f"PyTorch {torch.__version__}", "threads": threads, "form": form,
                "N": rows, "O": outputs, "C": inputs,
                "gflops": [round(r, 1) for r in (rate[0], rate[len(rate) // 2], rate[-1])]}),
                flush=True)


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return ""


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--job", default=",".join(JOBS), help=f"some of {','.join(JOBS)}")
    p.add_argument("--form", default="", help="some of f32,autocast,stem,compile (default: all)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--runs", type=int, default=5, help="steps measured (default 5)")
    p.add_argument("--products", action="store_true", help="matrix products instead of steps")
    p.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.products:
        products(a.threads, a.runs)
        return 0
    lines = []
    for job in a.job.split(","):
        if job not in JOBS:
            p.error(f"no job {job}")
        forms = FORMS["base" if job.startswith("base") else "heads"]
        for form in a.form.split(",") if a.form else forms:
            if form not in forms:
                p.error(f"{job} has no form {form}")
            if a.one:
                run(job, form, a.threads, a.runs)
                continue
            # A process of its own: memory of one run is not another's.
            command = [sys.executable, sys.argv[0], "--one", "--job", job, "--form", form,
                       "--threads", str(a.threads), "--runs", str(a.runs)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                print(f"bench_torch.py: {job} {form} failed", file=sys.stderr)
                return 1
            lines.append(done.stdout.strip())
            print(lines[-1], file=sys.stderr)
    if not a.one:
        print("[" + ",\n ".join(lines) + "]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
