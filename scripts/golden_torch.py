#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/hf_torch/ from tests/golden/hf_dir: the same weights in every form.

    python3 scripts/golden_torch.py [DIR]          DIR is tests/golden unless given

Needs torch and safetensors; the tests themselves need neither. scripts/golden.py writes hf_dir.
"""
import collections
import json
import os
import sys

import torch
from safetensors.torch import load_file, save_file


def shards(tensors, n):
    """Round robin, so that layers are spread over the files."""
    return [{k: v for i, (k, v) in enumerate(tensors.items()) if i % n == s} for s in range(n)]


def write_sharded(out, tensors, n, stem, ext, save):
    weight_map = {}
    for s, part in enumerate(shards(tensors, n), 1):
        name = f"{stem}-{s:05}-of-{n:05}.{ext}"
        save(part, os.path.join(out, name))
        weight_map.update({k: name for k in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    with open(os.path.join(out, f"{stem}.{ext}.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, f, indent=1)


def odd(path):
    """What torch.save() writes beside contiguous fresh tensors; element values are i, but for b."""
    ramp = torch.arange(24, dtype=torch.float32)
    state = collections.OrderedDict()
    state["transposed"] = ramp[:12].reshape(4, 3).t()              # (3,4), strides (1,3)
    state["slice"] = ramp[5:11]                                    # offset 5, the same storage
    state["columns"] = ramp.reshape(4, 6)[:, 1:4]                  # (4,3), strides (6,1), offset 1
    state["every_second"] = ramp[::2]                              # (12), stride 2
    state["parameter"] = torch.nn.Parameter(ramp[:4].half())
    state["b"] = torch.tensor([1.0, -2.0, 0.5], dtype=torch.bfloat16)
    state["one_row"] = ramp[:3].reshape(1, 3).expand(2, 3)         # stride 0
    state["empty"] = torch.zeros(0, 3)
    state["mask"] = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    state["count"] = torch.tensor(7)                               # int64, no axes
    state["exact"] = torch.ones(2, dtype=torch.float64)
    state["bytes"] = torch.ones(2, dtype=torch.uint8)
    state._metadata = collections.OrderedDict([("", {"version": 1})])
    torch.save(state, path)


def main():
    golden = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__),
                                                                "../tests/golden")
    out = os.path.normpath(os.path.join(golden, "hf_torch"))
    os.makedirs(out, exist_ok=True)
    tensors = load_file(os.path.join(golden, "hf_dir", "model.safetensors"))
    p = lambda name: os.path.join(out, name)
    # Older checkpoints carry buffers along.
    buffers = {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
               "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
               "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(1)}
    torch.save(collections.OrderedDict({**tensors, **buffers}), p("pytorch_model.bin"))
    write_sharded(out, tensors, 2, "pytorch_model", "bin", torch.save)
    write_sharded(out, tensors, 3, "model", "safetensors",
                  lambda t, path: save_file(t, path, metadata={"format": "pt"}))
    odd(p("odd.bin"))
    torch.save({"a": torch.ones(2)}, p("legacy.bin"), _use_new_zipfile_serialization=False)
    torch.save({"a": torch.ones(2), "note": "text"}, p("text.bin"))
    torch.save({"a": torch.ones(2), "os": os.system}, p("function.bin"))
    total = sum(os.path.getsize(p(f)) for f in os.listdir(out))
    print(f"{out}: {len(os.listdir(out))} files, {total} bytes, torch {torch.__version__}")
    assert total < 200_000


if __name__ == "__main__":
    main()
