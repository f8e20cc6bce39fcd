#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Item by item: `dynamo eval` against lm-evaluation-harness on the same model and data.

    pip install lm_eval torch transformers accelerate
    scripts/compare_lm_eval.py build/dynamo base.h5 --lambada lambada_test.jsonl \\
        --piqa valid.jsonl valid-labels.lst --limit 500

The base of the model is exported and run by transformers in float32; `dynamo eval` runs in f32 too.
ARC, SciQ and WinoGrande come as items made from the PIQA file, which tests the texts, not the
model. Prints the metrics side by side and the largest difference of a log p; exit code 1 when a
choice differs whose scores are not a tie, or a log p differs by more than 2e-3.
"""
import argparse
import json
import os
import subprocess
import tempfile

TASKS = {
    "lambada": dict(
        output_type="loglikelihood",
        doc_to_text="{{text.split(' ')[:-1]|join(' ')}}",
        doc_to_target="{{' '+text.split(' ')[-1]}}",
    ),
    "piqa": dict(
        output_type="multiple_choice",
        doc_to_text="Question: {{goal}}\nAnswer:",
        doc_to_target="label",
        doc_to_choice="{{[sol1, sol2]}}",
    ),
    "arc": dict(
        output_type="multiple_choice",
        doc_to_text="Question: {{question}}\nAnswer:",
        doc_to_target="{{choices.label.index(answerKey)}}",
        doc_to_choice="{{choices.text}}",
    ),
    "sciq": dict(
        output_type="multiple_choice",
        doc_to_text="{{support.lstrip()}}\nQuestion: {{question}}\nAnswer:",
        doc_to_target=3,
        doc_to_choice="{{[distractor1, distractor2, distractor3, correct_answer]}}",
    ),
}
WINOGRANDE = """
def doc_to_text(doc):
    return {"1": 0, "2": 1}[doc["answer"]]
def doc_to_target(doc):
    return doc["sentence"][doc["sentence"].index("_") + 1 :].strip()
def doc_to_choice(doc):
    start = doc["sentence"][: doc["sentence"].index("_")]
    return [start + doc["option1"], start + doc["option2"]]
"""


def made_items(piqa, limit):
    """Items of the other forms from PIQA's texts."""
    arc, sciq, wino = [], [], []
    for i, d in enumerate(piqa[:limit]):
        labels, key = ["A", "B"], "AB"[d["label"]]
        arc.append({"question": d["goal"], "answerKey": key,
                    "choices": {"text": [d["sol1"], d["sol2"]], "label": labels}})
        other = piqa[(i + 1) % len(piqa)]
        right, wrong = (d["sol1"], d["sol2"]) if d["label"] == 0 else (d["sol2"], d["sol1"])
        sciq.append({"support": "" if i % 3 == 0 else " " + other["goal"], "question": d["goal"],
                     "correct_answer": right, "distractor1": wrong,
                     "distractor2": other["sol1"], "distractor3": other["sol2"]})
        word = d["goal"].split(" ")
        wino.append({"sentence": " ".join(word[:1] + ["_"] + word[1:] + ["and so on. "]),
                     "option1": "the cat", "option2": "Sarah", "answer": "12"[i % 2]})
    return {"arc": arc, "sciq": sciq, "winogrande": wino}


def read(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def write(path, rows):
    with open(path, "w") as f:
        for r in rows:
            f.write(json.dumps(r) + "\n")


def write_yaml(folder, kind, data):
    import yaml

    config = {"task": "dm_" + kind, "dataset_path": "json",
              "dataset_kwargs": {"data_files": {"validation": data}}, "validation_split": "validation",
              "num_fewshot": 0, "metadata": {"version": 1}}
    lines = yaml.safe_dump({**config, **TASKS.get(kind, {"output_type": "multiple_choice"})})
    if kind == "winogrande":
        with open(os.path.join(folder, "wino.py"), "w") as f:
            f.write(WINOGRANDE)
        for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
            lines += f"{name}: !function wino.{name}\n"
    with open(os.path.join(folder, kind + ".yaml"), "w") as f:
        f.write(lines)


def harness(folder, hf, kinds, context):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    # The harness lets a text have one token more than the context, which is only predicted.
    lm = HFLM(pretrained=hf, dtype="float32", device="cpu", batch_size=8, max_length=context - 1)
    return lm_eval.simple_evaluate(model=lm, tasks=["dm_" + k for k in kinds], log_samples=True,
                                   task_manager=TaskManager(include_path=folder),
                                   bootstrap_iters=0)


def compare(kind, ours, theirs):
    worst, different = 0.0, 0
    for mine, doc in zip(ours, sorted(theirs, key=lambda d: d["doc_id"])):
        their = [float(r[0]) for r in doc["filtered_resps"]] if kind != "lambada" else \
            [float(doc["filtered_resps"][0][0])]
        worst = max([worst] + [abs(a - b) for a, b in zip(mine["logp"], their)])
        if kind == "lambada":
            different += mine["greedy"] != bool(doc["filtered_resps"][0][1])
        else:
            best = their.index(max(their))
            different += best != mine["best"] and abs(their[best] - their[mine["best"]]) > 1e-3
    return worst, different


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("dynamo")
    p.add_argument("model")
    p.add_argument("--lambada", required=True)
    p.add_argument("--piqa", nargs=2, required=True, metavar=("FILE", "LABELS"))
    p.add_argument("--limit", type=int, default=200)
    a = p.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as tmp:
        hf = os.path.join(tmp, "hf")
        subprocess.run([a.dynamo, "export", a.model, "-o", hf], check=True)
        with open(os.path.join(hf, "config.json")) as f:
            context = json.load(f)["max_position_embeddings"]
        piqa = read(a.piqa[0])
        for row, label in zip(piqa, open(a.piqa[1])):
            row["label"] = int(label)
        data = {"lambada": read(a.lambada)[: a.limit], "piqa": piqa[: a.limit],
                **made_items(piqa, a.limit)}
        for kind, rows in data.items():
            write(os.path.join(tmp, kind + ".jsonl"), rows)
            write_yaml(tmp, kind, os.path.join(tmp, kind + ".jsonl"))
        result = harness(tmp, hf, data, context)
        print("task\tmetric\tharness\tdynamo")
        for kind in data:
            path = os.path.join(tmp, "items.jsonl")
            out = subprocess.run(
                [a.dynamo, "eval", a.model, "--format", "f32", "--json", "--items", path, "--task",
                 f"{kind}={tmp}/{kind}.jsonl"], check=True, capture_output=True, text=True).stdout
            ours, theirs = json.loads(out)["tasks"][0], result["results"]["dm_" + kind]
            for metric in ("acc", "acc_norm", "perplexity"):
                their = theirs.get(metric + ",none")
                if their is not None and ours[metric] is not None:
                    print(f"{kind}\t{metric}\t{their:.6g}\t{ours[metric]:.6g}")
            worst, different = compare(kind, read(path), result["samples"]["dm_" + kind])
            print(f"{kind}\t{len(data[kind])} items\tlargest difference of a log p {worst:.2e}, "
                  f"{different} different choices")
            bad = bad or worst > 2e-3 or different > 0
    return int(bad)


if __name__ == "__main__":
    raise SystemExit(main())
