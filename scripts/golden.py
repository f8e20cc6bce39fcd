#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/ from PyTorch, transformers and safetensors.

    python3 scripts/golden.py [DIR]          DIR is tests/golden unless given

Needs torch, transformers, safetensors and h5py; the tests themselves need none of them. Weights come from a
formula (tests/golden/README.md, tests/golden.c), so the files hold ids and expected outputs only.
"""
import json
import math
import os
import sys

import h5py
import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from transformers.models.gpt_neox import modeling_gpt_neox as neox

U64 = np.uint64


def mix64(x):
    """splitmix64's finaliser on an array of uint64."""
    with np.errstate(over="ignore"):
        x = x + U64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
        return x ^ (x >> U64(31))


def raw_named(n, name):
    """n uint64 that depend on the name only: mix64(fnv1a64(name) + i)."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        return mix64(U64(h) + np.arange(n, dtype=U64))


def fill_named(n, name, scale):
    """tests/util.h fill_named: float32 numbers in [-scale, scale)."""
    u = (raw_named(n, name) >> U64(40)).astype(np.float64) * 2.0**-24
    return (float(np.float32(scale)) * (2.0 * u - 1.0)).astype(np.float32)


def tensor_rule(name, cfg):
    """(offset, scale) of a tensor; README.md and tests/golden.c say the same."""
    C, F = cfg["hidden_size"], cfg["intermediate_size"]
    if name.endswith("bias"):
        return 0.0, 0.1
    if "layernorm" in name or "layer_norm" in name:
        return 1.0, 0.1
    if "embed_in" in name:
        return 0.0, 1.0
    if "embed_out" in name:
        return 0.0, 4.0 / math.sqrt(C)
    if "query_key_value" in name:
        return 0.0, 3.0 / math.sqrt(C)
    if "dense_4h_to_h" in name:
        return 0.0, 2.0 / math.sqrt(F)
    return 0.0, 2.0 / math.sqrt(C)  # attention.dense, mlp.dense_h_to_4h


def weights(name, shape, cfg):
    offset, scale = tensor_rule(name, cfg)
    x = np.float32(offset) + fill_named(int(np.prod(shape)), name, scale)
    return torch.from_numpy(x.astype(np.float32).reshape(shape))


def make_ids(name, shape, vocab):
    return (raw_named(int(np.prod(shape)), name) % U64(vocab)).astype(np.int32).reshape(shape)


def config(Vp, C, L, NH, F, T_max, rot_pct, parallel=True, bias=True):
    """A config.json as Pythia's, which dm_config_from_json reads."""
    return {
        "architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": Vp,
        "hidden_size": C, "num_hidden_layers": L, "num_attention_heads": NH,
        "intermediate_size": F, "max_position_embeddings": T_max, "rotary_pct": rot_pct,
        "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "hidden_act": "gelu",
        "use_parallel_residual": parallel, "attention_bias": bias, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "float32",
    }


def tensors(model):
    """(name in the published files, parameter) of each; transformers 5 renamed embed_out."""
    return [(name.replace("lm_head.", "embed_out."), p) for name, p in model.named_parameters()]


def build(cfg, dtype=torch.float32):
    own = dict(cfg)
    rope = {"rope_type": "default", "rope_theta": float(own.pop("rotary_emb_base")),
            "partial_rotary_factor": own.pop("rotary_pct")}
    own.pop("torch_dtype")
    own.pop("architectures")
    own.pop("model_type")
    hf = GPTNeoXConfig(**own, rope_parameters=rope, attention_dropout=0.0, hidden_dropout=0.0,
                       attn_implementation="eager")
    model = GPTNeoXForCausalLM(hf).eval()
    with torch.no_grad():
        for name, p in tensors(model):
            p.copy_(weights(name, tuple(p.shape), cfg))
    return model.to(dtype)


def eager64(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """eager_attention_forward without its float32 softmax."""
    T = query.shape[2]
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    mask = torch.full((T, T), float("-inf"), dtype=scores.dtype).triu(1)
    return torch.matmul((scores + mask).softmax(-1), value).transpose(1, 2).contiguous(), None


def rotary64(self, x, position_ids):
    """GPTNeoXRotaryEmbedding.forward without its float32 angles."""
    rope = self.config.rope_parameters
    dim = int(self.config.hidden_size // self.config.num_attention_heads
              * rope["partial_rotary_factor"])
    inv = rope["rope_theta"] ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    freqs = position_ids[..., None].double() * inv
    emb = torch.cat((freqs, freqs), dim=-1)
    return emb.cos(), emb.sin()


class double_precision:
    """transformers computes rotary angles and the softmax in float32 whatever the model's type;
    inside this block it does not."""

    def __enter__(self):
        self.saved = neox.eager_attention_forward, neox.GPTNeoXRotaryEmbedding.forward
        neox.eager_attention_forward = eager64
        neox.GPTNeoXRotaryEmbedding.forward = rotary64

    def __exit__(self, *exc):
        neox.eager_attention_forward, neox.GPTNeoXRotaryEmbedding.forward = self.saved


class Golden:
    """One file; the attributes are those that dm_h5_open expects of every file of ours, as
    fixed-length strings (np.bytes_)."""

    def __init__(self, path, cfg):
        self.path = path
        self.f = h5py.File(path, "w", libver=("v110", "v110"))
        a = self.f.attrs
        a["format"] = np.bytes_("dynamo-golden")
        a["version"] = U64(1)
        a["made_by"] = np.bytes_("scripts/golden.py")
        a["provenance"] = np.bytes_(json.dumps({
            "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
            "numpy": np.__version__, "h5py": h5py.__version__}))
        a["config"] = np.bytes_(json.dumps(cfg))

    def put(self, name, x):
        x = x.detach().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
        # Random numbers do not compress, and chunks cost more than they would save.
        self.f.create_dataset(name, data=x.reshape(x.shape if x.ndim <= 2 else (-1, x.shape[-1])))

    def close(self):
        self.f.close()
        size = os.path.getsize(self.path)
        assert size < 200_000, f"{self.path} has {size} bytes"
        print(f"{self.path}: {size} bytes")


def hf_file(path, cfg, B, T, stride, rows):
    """Logits of transformers' model in float32, eager attention."""
    ids = make_ids("ids", (B, T), cfg["vocab_size"])
    t_ids = torch.from_numpy(ids).long()
    with torch.no_grad():
        logits = build(cfg)(t_ids).logits.reshape(B * T, -1)
        with double_precision():
            exact = build(cfg, torch.float64)(t_ids).logits.reshape(B * T, -1)
    err = ((logits - exact).abs().max() / exact.abs().max()).item()
    print(f"{path}: logits std {logits.std():.3f}, float32 against float64 {err:.2e}")
    assert err < 2e-5
    g = Golden(path, cfg)
    g.put("ids", ids)
    g.put("rows", np.array(rows, dtype=np.int32))
    g.put("cols", np.arange(0, cfg["vocab_size"], stride, dtype=np.int32))
    g.put("logits", logits[rows][:, ::stride].contiguous())
    g.put("lse", torch.logsumexp(exact, -1).float())
    g.put("argmax", logits.argmax(-1).int())
    g.close()


def lr_schedule(steps, peak, warmup):
    """Linear warm-up, then cosine to 0; the file holds the result."""
    out = []
    for s in range(steps):
        if s < warmup:
            out.append(peak * (s + 1) / warmup)
        else:
            out.append(peak * 0.5 * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))))
    return np.array(out)


def train(g, named, loss_fn, ids, B, lrs, base_rate=1.0):
    """20 steps of AdamW (betas .9 .95, eps 1e-8, decay 0.01 on matrices, clip at norm 1); gradients
    of the first step before clipping, parameters at the end. Heads learn at lrs, the base at base_rate
    times that."""
    groups = {}
    for name, p in named:
        head = name.startswith("dynamo.") or base_rate == 1.0
        groups.setdefault((p.ndim == 2, head), []).append(p)
    opt = torch.optim.AdamW([{"params": ps, "weight_decay": 0.01 if matrix else 0.0,
                              "rate": 1.0 if head else base_rate}
                             for (matrix, head), ps in groups.items()],
                            lr=0.0, betas=(0.9, 0.95), eps=1e-8)
    losses, norms = [], []
    for step, lr in enumerate(lrs):
        opt.zero_grad(set_to_none=True)
        parts = loss_fn(torch.from_numpy(ids[step * B:(step + 1) * B]).long())
        sum(parts).backward()
        losses.append([p.item() for p in parts])
        if step == 0:
            for name, p in named:
                g.put("grad/" + name, p.grad.float())
        norms.append(torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0).item())
        for group in opt.param_groups:
            group["lr"] = float(lr) * group["rate"]
        opt.step()
    for name, p in named:
        g.put("param/" + name, p.detach().float())
    g.put("ids", ids)
    g.put("lr", lrs)
    g.put("loss", np.array(losses))
    g.put("norm", np.array(norms))
    print("  loss", losses[0], "->", losses[-1], "norms", min(norms), max(norms))


TRAIN = dict(Vp=61, C=20, L=3, NH=2, F=72, T_max=16, rot_pct=0.45)
B, T, STEPS = 4, 16, 20


def head_logp(logits, ids, n):
    """(B, T-n): log p(x[t+n] | x[..t]) of a head that predicts n tokens ahead."""
    return logits[:, :-n].log_softmax(-1).gather(-1, ids[:, n:, None])[..., 0]


def train_base_file(path):
    cfg = config(**TRAIN)
    ids = make_ids("train_ids", (STEPS * B, T), cfg["vocab_size"])
    with double_precision():
        model = build(cfg, torch.float64)
        g = Golden(path, cfg)
        g.put("logp", head_logp(model(torch.from_numpy(ids[:B]).long()).logits,
                                torch.from_numpy(ids[:B]).long(), 1))
        train(g, tensors(model),
              lambda x: [-head_logp(model(x).logits, x, 1).mean()], ids, B,
              lr_schedule(STEPS, 3e-3, 4))
    g.close()


def copied_heads(model, K):
    """Heads 2..K as copies of the last layer, and (name, parameter) of each."""
    L = model.config.num_hidden_layers
    heads = []
    for _ in range(2, K + 1):
        layer = neox.GPTNeoXLayer(model.config, L).double()
        layer.load_state_dict(model.gpt_neox.layers[L - 1].state_dict())
        heads.append(layer)
    return heads, [(f"dynamo.heads.{n}.0.{name}", p)
                   for n, layer in enumerate(heads, 2) for name, p in layer.named_parameters()]


def train_heads_file(path, K=3):
    cfg = config(**TRAIN)
    ids = make_ids("train_ids", (STEPS * B, T), cfg["vocab_size"])
    with double_precision():
        model = build(cfg, torch.float64)
        for p in model.parameters():
            p.requires_grad_(False)
        base, L = model.gpt_neox, cfg["num_hidden_layers"]
        heads, named = copied_heads(model, K)

        def logits_of(x):
            h = base.embed_in(x)
            rope = base.rotary_emb(h, torch.arange(x.shape[1])[None])
            for layer in base.layers[:L - 1]:
                h = layer(h, position_embeddings=rope)
            return [model.get_output_embeddings()(base.final_layer_norm(layer(h, position_embeddings=rope)))
                    for layer in heads]

        def losses(x):
            return [-head_logp(l, x, n).mean() for n, l in enumerate(logits_of(x), 2)]

        cfg["dynamo"] = {"heads": K, "head_depth": 1}
        g = Golden(path, cfg)
        first = torch.from_numpy(ids[:B]).long()
        # Two heads that start as the same copy have the same logits but not the same targets.
        for n, l in enumerate(logits_of(first), 2):
            g.put(f"logp/{n}", head_logp(l, first, n))
        train(g, named, losses, ids, B, lr_schedule(STEPS, 3e-3, 4))
    g.close()


class ScaleGradient(torch.autograd.Function):
    """x as it is; its gradient times `by`."""

    @staticmethod
    def forward(ctx, x, by):
        ctx.by = by
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.by, None


def train_joint_file(path, K=3, base_rate=0.1, stem_scale=0.1):
    """Everything trains. What heads n >= 2 read of the base (the stem's output, the final LayerNorm's
    and the output embedding's weights) gets stem_scale of their gradient."""
    cfg = config(**dict(TRAIN, F=24))  # all gradients and all parameters in 200 kB
    ids = make_ids("train_ids", (STEPS * B, T), cfg["vocab_size"])
    with double_precision():
        model = build(cfg, torch.float64)
        base, L = model.gpt_neox, cfg["num_hidden_layers"]
        heads, head_named = copied_heads(model, K)
        ln, out = base.final_layer_norm, model.get_output_embeddings()

        def finish(h, by):
            w, b, u = (ScaleGradient.apply(p, by) for p in (ln.weight, ln.bias, out.weight))
            return torch.nn.functional.layer_norm(h, h.shape[-1:], w, b, ln.eps) @ u.T

        def logits_of(x):
            h = base.embed_in(x)
            rope = base.rotary_emb(h, torch.arange(x.shape[1])[None])
            for layer in base.layers[:L - 1]:
                h = layer(h, position_embeddings=rope)
            feed = ScaleGradient.apply(h, stem_scale)
            return [finish(base.layers[L - 1](h, position_embeddings=rope), 1.0)] + [
                finish(layer(feed, position_embeddings=rope), stem_scale) for layer in heads]

        def losses(x):
            return [-head_logp(l, x, n).mean() for n, l in enumerate(logits_of(x), 1)]

        cfg["dynamo"] = {"heads": K, "head_depth": 1}
        g = Golden(path, cfg)
        first = torch.from_numpy(ids[:B]).long()
        for n, l in enumerate(logits_of(first), 1):
            g.put(f"logp/{n}", head_logp(l, first, n))
        train(g, tensors(model) + head_named, losses, ids, B, lr_schedule(STEPS, 3e-3, 4), base_rate)
    g.close()


def safetensors_file(path):
    """Every dtype that we read, in an order that the package changes."""
    ramp = torch.arange(16, dtype=torch.float32)
    save_file({"z.w": (ramp[:12] * 0.5 - 3).reshape(3, 4), "a.b": ramp[:5] - 2,
               "m.h": (ramp[:6] * 0.25).half().reshape(2, 3),
               "m.b": (ramp[:8] * 3).bfloat16().reshape(4, 2), "a.one": ramp[7:8].clone()},
              path, metadata={"format": "pt"})
    print(f"{path}: {os.path.getsize(path)} bytes")


def hf_dir(path):
    """A directory as save_pretrained() writes it, for import and export."""
    cfg = config(Vp=320, C=16, L=3, NH=2, F=32, T_max=64, rot_pct=0.25)
    model = build(cfg).half()
    model.save_pretrained(path)
    os.remove(os.path.join(path, "generation_config.json"))
    print(f"{path}: {sum(os.path.getsize(os.path.join(path, f)) for f in os.listdir(path))} bytes")


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__),
                                                             "../tests/golden")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    p = lambda name: os.path.normpath(os.path.join(out, name))
    hf_file(p("hf_14m.h5"), config(50304, 128, 6, 4, 512, 512, 0.25), 1, 48, 37,
            [0, 1, 13, 31, 47])
    hd80 = dict(Vp=512, C=160, L=2, NH=2, F=640, T_max=64, rot_pct=0.25)
    rows = list(range(0, 80, 3))
    hf_file(p("hf_hd80.h5"), config(**hd80), 2, 40, 7, rows)
    hf_file(p("hf_hd80_serial.h5"), config(**hd80, parallel=False), 2, 40, 7, rows)
    hf_file(p("hf_hd80_nobias.h5"), config(**hd80, bias=False), 2, 40, 7, rows)
    train_base_file(p("train_base.h5"))
    train_heads_file(p("train_heads.h5"))
    train_joint_file(p("train_joint.h5"))
    safetensors_file(p("tiny.safetensors"))
    hf_dir(p("hf_dir"))


if __name__ == "__main__":
    main()
