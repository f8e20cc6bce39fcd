#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""heads_torch.py - token heads on a frozen base, trained by PyTorch (a GPU helps), and text that the base itself writes to train them on.

    dynamo export base.h5 -o base-hf
    scripts/heads_torch.py sample base-hf --prompts train.h5 --tokens 16000000 -o own.h5
    scripts/heads_torch.py train base-hf --data train.h5,own.h5 --val heldout.h5 --minutes 3 -o heads-hf
    dynamo import heads-hf -o heads.h5

`train` minimises the loss of `dynamo train` (eq. 1 of the paper: head n's target is the token n ahead). It begins with the heads of the
directory, or with copies of the last layer. `sample` draws a shard at temperature 1: 32 tokens of a shard, the prompt, are continued to
documents of --context tokens.
`dynamo train` does the same without Python; this is for machines where a GPU does it in minutes. Needs torch, transformers, safetensors, h5py. The
result depends on the GPU and the versions, which are written to heads-hf/training.json.
"""
import argparse
import json
import math
import os
import shutil
import sys
import time

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from pretrain_torch import adamw, tokens_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# A layer's tensors, by the names that both the base's file and that of the heads use.
PARTS = ("input_layernorm", "post_attention_layernorm", "attention.query_key_value", "attention.dense",
         "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
TENSORS = [f"{part}.{kind}" for part in PARTS for kind in ("weight", "bias")]


def rotate(x, cos, sin):
    """x (B,H,T,HS); cos and sin (T, rot/2) of the positions; the first rot dimensions turn."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), -1)


class Layer(torch.nn.Module):
    """One decoder layer of GPT-NeoX, from tensors `prefix` + TENSORS."""

    def __init__(self, tensors, prefix, config):
        super().__init__()
        self.heads, self.eps = config["num_attention_heads"], config["layer_norm_eps"]
        self.parallel = config["use_parallel_residual"]
        for name in TENSORS:
            self.register_parameter(name.replace(".", "_"), torch.nn.Parameter(tensors[prefix + name].float().clone()))

    def tensors(self, prefix):
        return {prefix + name: getattr(self, name.replace(".", "_")).detach() for name in TENSORS}

    def part(self, name, x):
        name = name.replace(".", "_")
        return F.linear(x, getattr(self, name + "_weight"), getattr(self, name + "_bias"))

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], getattr(self, name + "_weight"), getattr(self, name + "_bias"), self.eps)

    def forward(self, x, cos, sin, cache=None, at=0):
        """x (B,T,C). With a cache (k, v), each (B,H,context,HS), the rows stand at `at` onwards and see what is before them."""
        b, t, c = x.shape
        qkv = self.part("attention.query_key_value", self.norm("input_layernorm", x)).view(b, t, self.heads, 3, c // self.heads)
        q, k, v = (z.transpose(1, 2) for z in qkv.unbind(3))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        if cache is not None:
            cache[0][:, :, at : at + t], cache[1][:, :, at : at + t] = k, v
            k, v = cache[0][:, :, : at + t], cache[1][:, :, : at + t]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1)
        a = self.part("attention.dense", y.transpose(1, 2).reshape(b, t, c))
        m = x if self.parallel else x + a
        up = F.gelu(self.part("mlp.dense_h_to_4h", self.norm("post_attention_layernorm", m)))
        return self.part("mlp.dense_4h_to_h", up) + a + x


class Model(torch.nn.Module):
    """The base, frozen, and the heads of a directory that `dynamo export` wrote."""

    def __init__(self, folder, heads):
        super().__init__()
        with open(os.path.join(folder, "config.json")) as f:
            self.config = c = json.load(f)
        t = load_file(os.path.join(folder, "model.safetensors"))
        own = os.path.join(folder, "dynamo_heads.safetensors")
        h = load_file(own) if os.path.exists(own) else {}
        shape = c.get("dynamo", {})
        if shape.get("head_depth", 1) != 1 or shape.get("head_input", "penultimate") != "penultimate":
            sys.exit(f"{folder}/config.json: heads of one layer behind the last but one are wanted")
        depth = c["num_hidden_layers"]
        for name, key in (("embed", "gpt_neox.embed_in.weight"), ("unembed", "embed_out.weight"),
                          ("final_weight", "gpt_neox.final_layer_norm.weight"), ("final_bias", "gpt_neox.final_layer_norm.bias")):
            self.register_buffer(name, t[key].float())
        self.layers = torch.nn.ModuleList([Layer(t, f"gpt_neox.layers.{i}.", c) for i in range(depth)]).requires_grad_(False)
        last = f"gpt_neox.layers.{depth - 1}."
        found = [f"dynamo.heads.{n}.0." for n in range(2, heads + 1)]
        self.heads = torch.nn.ModuleList([Layer(h, name, c) if name + TENSORS[0] in h else Layer(t, last, c) for name in found])
        size = c["hidden_size"] // c["num_attention_heads"]
        rot = int(size * c["rotary_pct"])
        frequency = c["rotary_emb_base"] ** (-torch.arange(0, rot, 2).float() / rot)
        angles = torch.outer(torch.arange(c["max_position_embeddings"]).float(), frequency)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def stem(self, ids):
        x = F.embedding(ids, self.embed)
        for layer in self.layers[:-1]:
            x = layer(x, self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        return x

    def logits(self, x):
        y = F.layer_norm(x, x.shape[-1:], self.final_weight, self.final_bias, self.config["layer_norm_eps"])
        return F.linear(y, self.unembed).float()

    def losses(self, ids):
        """Mean loss of every extra head over ids (B, T+1)."""
        t = ids.shape[1] - 1
        with torch.no_grad():
            stem = self.stem(ids[:, :-1])
        out = []
        for n, head in enumerate(self.heads, 2):
            logits = self.logits(head(stem, self.cos[:t], self.sin[:t]))[:, : t + 1 - n]
            out.append(F.cross_entropy(logits.flatten(0, 1), ids[:, n:].reshape(-1)))
        return out


def cast():
    return torch.autocast(DEVICE, dtype=torch.bfloat16)


@torch.no_grad()
def validate(model, tokens, context, windows):
    """Perplexities of the heads over the first windows of a shard, one after another."""
    starts = range(0, min(len(tokens) - 1 - context, windows * context), context)
    total = None
    for s in starts:
        with cast():
            loss = torch.stack(model.losses(tokens[None, s : s + context + 1].to(DEVICE)))
        total = loss if total is None else total + loss
    return [math.exp(x) for x in (total / len(starts)).tolist()]


@torch.no_grad()
def sample(a):
    model = Model(a.model, 1).to(DEVICE).to(torch.bfloat16)
    model.cos, model.sin = model.cos.float(), model.sin.float()
    prompts = tokens_of(a.prompts)
    rng = np.random.default_rng(a.seed)
    torch.manual_seed(a.seed)
    size = model.config["hidden_size"] // model.config["num_attention_heads"]
    shape = (a.batch, model.config["num_attention_heads"], a.context, size)
    caches = [tuple(torch.zeros(shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(2)) for _ in model.layers]
    documents, started, done = [], time.time(), 0
    ids = torch.zeros((a.batch, a.context), dtype=torch.int64, device=DEVICE)
    while done < a.tokens and not (a.minutes and time.time() - started > 60 * a.minutes):
        starts = rng.integers(0, len(prompts) - 32, a.batch)
        ids[:, :32] = torch.stack([prompts[s : s + 32] for s in starts]).to(DEVICE)
        at, new = 0, 32
        while at + new < a.context:
            x = F.embedding(ids[:, at : at + new], model.embed)
            for layer, cache in zip(model.layers, caches):
                x = layer(x, model.cos[at : at + new], model.sin[at : at + new], cache, at)
            logits = model.logits(x[:, -1])
            ids[:, at + new] = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)
            at, new = at + new, 1
        documents.append(ids.to(torch.int32).cpu().numpy())
        done += ids.numel()
        print(f"{done} tokens, {done / (time.time() - started):.0f} tokens/s", flush=True)
    with h5py.File(a.prompts, "r") as f, h5py.File(a.output, "w", libver="latest") as g:
        for key, value in f.attrs.items():
            if key != "provenance":
                g.attrs[key] = value
        f.copy(".text", g)
        text = np.concatenate(documents)
        text = np.concatenate((text, np.full((len(text), 1), int(f.attrs["separator"]))), 1)
        g["tokens"] = text.reshape(-1).astype(f["tokens"].dtype)
        g.attrs["provenance"] = json.dumps({"program": "heads_torch.py", "command": sys.argv, "torch": torch.__version__})
        print(f"{a.output}: {g['tokens'].shape[0]} tokens", flush=True)


def train(a):
    if not (a.steps or a.minutes):
        sys.exit("heads_torch.py train: --steps or --minutes is wanted")
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)
    model = Model(a.model, a.heads).to(DEVICE)
    data = torch.cat([tokens_of(path) for path in a.data.split(",")]).to(DEVICE)
    val = tokens_of(a.val)
    losses = torch.compile(model.losses) if DEVICE == "cuda" else model.losses
    opt = adamw(model.heads, a, DEVICE)
    steps = a.steps or 10**9
    warmup, order, step = 50, [], 0
    started = time.time()
    span = torch.arange(a.context + 1, device=DEVICE)

    def report(what):
        ppl = validate(model, val, a.context, a.val_max)
        print(f"{what} val " + " ".join(f"PPL_{n} {x:.2f}" for n, x in enumerate(ppl, 2)) + f" {time.time() - started:.0f} s", flush=True)
        return ppl

    report("start")
    while step < steps:
        if len(order) < a.batch:
            offset = int(rng.integers(0, a.context))
            order = offset + a.context * rng.permutation((len(data) - 1 - offset) // a.context)
        starts, order = torch.from_numpy(order[: a.batch]).to(DEVICE), order[a.batch :]
        progress = min(1, max(0, step - warmup) / max(1, steps - warmup))
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        with cast():
            each = losses(data[starts[:, None] + span])
        sum(each).backward()
        torch.nn.utils.clip_grad_norm_(model.heads.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        if step == 10:
            each[0].item()
            timed = time.time()
        if step == 60 and a.minutes:
            # The first steps compile; the rate is that of the 50 after them.
            each[0].item()
            pace = (time.time() - timed) / 50
            steps = min(steps, step + max(1, int((60 * a.minutes - (time.time() - started)) / pace)))
            print(f"{a.batch * a.context / pace:.0f} tokens/s: {steps} steps", flush=True)
        if step % max(1, min(steps, 10**5) // 6) == 0 or step == steps:
            ppl = report(f"step {step} loss " + " ".join(f"{x.item():.4f}" for x in each))

    os.makedirs(a.output, exist_ok=True)
    for name in ("model.safetensors", "tokenizer.json"):
        if os.path.abspath(a.output) != os.path.abspath(a.model):
            shutil.copy(os.path.join(a.model, name), a.output)
    shape = {"heads": a.heads, "head_depth": 1, "head_input": "penultimate", "n_vocab": model.config["vocab_size"]}
    with open(os.path.join(a.output, "config.json"), "w") as f:
        json.dump(model.config | {"dynamo": shape | model.config.get("dynamo", {}) | {"heads": a.heads}}, f, indent=2)
    tensors = {}
    for n, head in enumerate(model.heads, 2):
        tensors |= {k: v.to(torch.bfloat16).cpu().contiguous() for k, v in head.tensors(f"dynamo.heads.{n}.0.").items()}
    save_file(tensors, os.path.join(a.output, "dynamo_heads.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(a.output, "training.json"), "w") as f:
        json.dump({"command": sys.argv, "steps": step, "tokens_per_step": a.batch * a.context, "val_ppl": ppl,
                   "seconds": time.time() - started, "torch": torch.__version__,
                   "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"}, f, indent=2)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(required=True)
    s = sub.add_parser("sample", help="a shard of text that the base writes")
    s.add_argument("model", help="directory that `dynamo export` wrote")
    s.add_argument("--prompts", required=True, help="shard with the prompts")
    s.add_argument("--tokens", type=int, default=16_000_000)
    s.add_argument("--minutes", type=float, default=0, help="fewer tokens if they would take longer")
    s.add_argument("--batch", type=int, default=2048)
    s.add_argument("--context", type=int, default=256)
    s.add_argument("--seed", type=int, default=1)
    s.add_argument("-o", "--output", required=True)
    s.set_defaults(run=sample)
    t = sub.add_parser("train", help="heads 2 .. --heads")
    t.add_argument("model", help="directory that `dynamo export` wrote")
    t.add_argument("--data", required=True, help="shards, separated by commas")
    t.add_argument("--val", required=True)
    t.add_argument("--heads", type=int, default=3)
    t.add_argument("--steps", type=int, default=0)
    t.add_argument("--minutes", type=float, default=0, help="fewer steps if they would take longer")
    t.add_argument("--batch", type=int, default=64)
    t.add_argument("--context", type=int, default=512)
    t.add_argument("--lr", type=float, default=1e-3)
    t.add_argument("--weight-decay", type=float, default=0.05)
    t.add_argument("--val-max", type=int, default=64, help="windows of validation")
    t.add_argument("--seed", type=int, default=1)
    t.add_argument("-o", "--output", required=True)
    t.set_defaults(run=train)
    a = p.parse_args()
    a.run(a)


if __name__ == "__main__":
    main()
