#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""pretrain_torch.py - a base model for `dynamo import`, pretrained by PyTorch (a GPU helps).

Reads token shards as `dynamo tokenize` writes them, trains a GPTNeoXForCausalLM from scratch, keeps the weights with the smallest
validation loss, and writes a Hugging Face directory (config.json, model.safetensors in bfloat16, tokenizer.json):

    scripts/pretrain_torch.py --config data/prose/config.json --train train.h5 --val heldout.h5 --epochs 6 -o prose-hf
    dynamo import prose-hf -o base.h5

`dynamo pretrain` does the same without Python; this is for machines where a GPU does it in minutes. Needs torch, transformers,
safetensors, h5py. The result depends on the GPU and the versions, which are written to prose-hf/training.json.
"""
import argparse
import json
import math
import os
import sys
import time

import h5py
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM


def tokens_of(path):
    with h5py.File(path, "r") as f:
        return torch.from_numpy(f["tokens"][:].astype(np.int64))


def attribute(path, name):
    """A text attribute of a shard; long ones lie in the group .text as bytes."""
    with h5py.File(path, "r") as f:
        if name in f.attrs:
            value = f.attrs[name]
            return value.decode() if isinstance(value, bytes) else value
        return bytes(f[".text"][name][()]).decode()


def windows(tokens, context, rng):
    """All windows of context + 1 tokens in random order, from a random offset."""
    offset = int(rng.integers(0, context))
    n = (len(tokens) - 1 - offset) // context
    return offset + context * rng.permutation(n)


def batch_at(tokens, starts, context, device):
    return torch.stack([tokens[s : s + context + 1] for s in starts]).to(device)


def loss_of(model, ids):
    logits = model(input_ids=ids[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


@torch.no_grad()
def validate(model, tokens, context, batch, device, cast):
    model.eval()
    starts = np.arange(0, len(tokens) - 1 - context, context)
    total = count = 0
    for i in range(0, len(starts), batch):
        ids = batch_at(tokens, starts[i : i + batch], context, device)
        with cast():
            total += loss_of(model, ids).item() * len(ids)
        count += len(ids)
    model.train()
    return total / count


def adamw(model, a, device):
    """Weight decay is for matrices only."""
    matrices = [w for w in model.parameters() if w.dim() > 1]
    vectors = [w for w in model.parameters() if w.dim() == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": a.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
                             lr=a.lr, betas=(0.9, 0.95), eps=1e-8, fused=device == "cuda")


def published_name(name):
    """Newer transformers call the output embedding lm_head; files call it embed_out."""
    return "embed_out.weight" if name == "lm_head.weight" else name


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", required=True, help="config.json of the model")
    p.add_argument("--train", required=True)
    p.add_argument("--val", required=True)
    p.add_argument("--epochs", type=float, default=6)
    p.add_argument("--minutes", type=float, default=0, help="fewer epochs if they would take longer")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--context", type=int, default=1024)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--weight-decay", type=float, default=0.1)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("-o", "--output", required=True)
    a = p.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    with open(a.config) as f:
        published = json.load(f)
    config = GPTNeoXConfig(**{k: v for k, v in published.items() if k not in ("torch_dtype", "architectures")},
                           hidden_dropout=a.dropout, attention_dropout=0.0)
    config._attn_implementation = "sdpa"
    model = GPTNeoXForCausalLM(config).to(device)
    # Residual projections start smaller, as GPT-2 and GPT-NeoX have it.
    for name, w in model.named_parameters():
        if name.endswith("dense.weight") or name.endswith("dense_4h_to_h.weight"):
            torch.nn.init.normal_(w, 0.0, 0.02 / math.sqrt(2 * config.num_hidden_layers))
    train = tokens_of(a.train)
    val = tokens_of(a.val)
    cast = lambda: torch.autocast(device, dtype=torch.bfloat16)
    opt = adamw(model, a, device)
    run = torch.compile(model) if device == "cuda" else model

    per_epoch = (len(train) - 1) // a.context // a.batch
    steps = max(1, int(a.epochs * per_epoch))
    warmup = max(1, steps // 50)
    started = time.time()
    timed = None
    order, best, step = [], (math.inf, None), 0
    print(f"{sum(w.numel() for w in model.parameters())} parameters, {steps} steps of {a.batch * a.context} tokens, {device}", flush=True)
    while step < steps:
        if len(order) < a.batch:
            order = list(windows(train, a.context, rng))
        starts, order = order[: a.batch], order[a.batch :]
        progress = max(0, step - warmup) / max(1, steps - warmup)
        rate = a.lr * min(1, (step + 1) / warmup) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
        for g in opt.param_groups:
            g["lr"] = rate
        with cast():
            loss = loss_of(run, batch_at(train, starts, a.context, device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        if step == 10:
            loss.item()
            timed = time.time()
        if step == 60 and a.minutes:
            # The first steps compile; the rate is that of the 50 after them.
            loss.item()
            each = (time.time() - timed) / 50
            left = 60 * a.minutes - (time.time() - started)
            steps = min(steps, max(step + 1, int(step + 0.95 * left / each)))
            print(f"{a.batch * a.context / each:.0f} tokens/s: {steps} steps", flush=True)
        if step % max(1, steps // 12) == 0 or step == steps:
            loss_val = validate(model, val, a.context, a.batch, device, cast)
            print(f"step {step} loss {loss.item():.4f} val {loss_val:.4f} ppl {math.exp(loss_val):.2f} {time.time() - started:.0f} s", flush=True)
            if loss_val < best[0]:
                best = (loss_val, {published_name(k): v.detach().to(torch.bfloat16).cpu().contiguous().clone() for k, v in model.state_dict().items()})

    os.makedirs(a.output, exist_ok=True)
    save_file(best[1], os.path.join(a.output, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(a.output, "config.json"), "w") as f:
        json.dump(published, f, indent=2)
    with open(os.path.join(a.output, "tokenizer.json"), "w") as f:
        f.write(attribute(a.train, "tokenizer"))
    with open(os.path.join(a.output, "training.json"), "w") as f:
        json.dump({"command": sys.argv, "steps": steps, "tokens_per_step": a.batch * a.context, "val_loss": best[0],
                   "val_ppl": math.exp(best[0]), "seconds": time.time() - started, "torch": torch.__version__,
                   "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}, f, indent=2)
    print(f"{a.output}: validation perplexity {math.exp(best[0]):.2f}")


if __name__ == "__main__":
    main()
