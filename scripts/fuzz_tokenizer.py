#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares `dynamo tokenize --print` with Hugging Face's tokenizers on random hostile strings.

    scripts/fuzz_tokenizer.py build/dynamo tokenizer.json --strings 20000 --seed 1
    scripts/fuzz_tokenizer.py build/dynamo tokenizer.json --code-points
    scripts/fuzz_tokenizer.py build/dynamo --train book.txt --vocab 8192

The strings travel as JSONL. They mix letters, numbers, marks and white space of all planes, runs of
spaces, contractions, names of special and added tokens, code and long runs. --code-points puts every
code point into several contexts. --train learns a tokenizer with both programs, wants the same
merges and vocabulary, and then compares as usual. Needs `pip install tokenizers` (0.23 was used).
"""
import argparse
import json
import random
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SPACES = " \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u180e\u2000\u2003\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
WORDS = ("the The THE in don't we'll I've I'm you're he'd it's 'S 'T 'Re 'lL '' 's's 'tis ain't "
         "def return self.x == != <= >= // /* */ {} [] () <> && || #include <stdio.h> \\n \\t "
         "http://a.b/c?d=e 3.14159 1,000,000 0x1F 2026-01-01 x86_64 foo_bar fooBar naïve café "
         "Ελλάδα Россия 日本語 中文 한국어 العربية עברית हिन्दी ไทย ប្រទេស 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ①② ½ Ⅷ ٣٤").split(" ")


def blocks():
    """Ranges of code points worth drawing from, assigned or not."""
    return [(0, 0x7f), (0x80, 0x24f), (0x300, 0x36f), (0x370, 0x5ff), (0x600, 0x8ff),
            (0x900, 0xdff), (0xe00, 0x11ff), (0x1200, 0x1fff), (0x2000, 0x2bff), (0x2c00, 0x33ff),
            (0x3400, 0xabff), (0xac00, 0xd7ff), (0xe000, 0xffff), (0x10000, 0x1ffff),
            (0x20000, 0x323af), (0xe0000, 0xe01ff), (0x10fff0, 0x10ffff)]


def piece(rng, names, marks, composites):
    kind = rng.randrange(14)
    if kind == 0:
        return " " * rng.choice([1, 1, 2, 2, 3, 4, 5, 8, 16, 23, 24, 25, 26, 47, 48, 49, 50, 100])
    if kind == 1:
        return "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 6)))
    if kind in (2, 3):
        return rng.choice(WORDS)
    if kind == 4:
        return rng.choice(names) if names else ""
    if kind == 5:  # part of a name
        n = rng.choice(names) if names else "x"
        return n[rng.randrange(len(n)):] if rng.random() < .5 else n[:rng.randrange(len(n) + 1)]
    if kind == 6:
        return "".join(rng.choice(marks) for _ in range(rng.choice([1, 1, 2, 3, 20])))
    if kind == 7:
        c = rng.choice(composites)
        return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFC"]), c)
    if kind == 8:  # Hangul jamo
        return "".join(chr(rng.choice([rng.randrange(0x1100, 0x1200), rng.randrange(0xac00, 0xd7a4)]))
                       for _ in range(rng.randrange(1, 5)))
    if kind == 9:
        return rng.choice("aAzZ09!?.,-_'\"’*#=\\/\n ") * rng.choice([1, 2, 3, 5, 17, 64, 65, 66, 130, 400])
    if kind == 10:
        return "'" + rng.choice(["s", "t", "re", "ve", "m", "ll", "d", "l", "r", "v", "S", "sx", ""])
    lo, hi = rng.choice(blocks())
    return "".join(chr(rng.randint(lo, hi)) for _ in range(rng.choice([1, 2, 3, 6])))


def random_strings(n, seed, names):
    rng = random.Random(seed)
    every = [chr(c) for c in range(0x110000) if not 0xd800 <= c <= 0xdfff]
    marks = [c for c in every if unicodedata.combining(c)] + ["\u11a7", "\U00011930"]
    composites = [c for c in every if unicodedata.decomposition(c)[:1] not in ("", "<")]
    for _ in range(n):
        s = "".join(piece(rng, names, marks, composites) for _ in range(rng.randrange(0, 13)))
        yield "".join(c for c in s if not 0xd800 <= ord(c) <= 0xdfff)


def code_point_strings():
    for cp in range(0x110000):
        if 0xd800 <= cp <= 0xdfff:
            continue
        c = chr(cp)
        # class, white space rules, composition and canonical order, all in one string
        yield f"a{c}1 {c}!{c} {c}{c}\n{c}x'{c}s e\u0345\u0315\u0301\u0316\u05b0\u0334{c}\u0323 {c}\u0301 \u1100{c}"


def compare(dynamo, path, strings):
    """Counts strings; exits at the first that differs."""
    hf = Tokenizer.from_file(path)
    hf.no_truncation()
    done = 0
    batch = []

    def flush():
        nonlocal done
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
            for s in batch:
                f.write(json.dumps({"text": s}) + "\n")
            f.flush()
            out = subprocess.run([dynamo, "tokenize", "--tokenizer", path, "--print", f.name],
                                 check=True, capture_output=True, text=True).stdout.split("\n")
        if len(out) != len(batch) + 1:
            sys.exit(f"{len(out) - 1} lines for {len(batch)} strings")
        for s, line, e in zip(batch, out, hf.encode_batch(batch, add_special_tokens=False)):
            got = [int(x) for x in line.split()]
            if got != e.ids:
                sys.exit(f"differs: {s!r}\n{ascii(s)}\n dynamo {got}\n hf     {e.ids}\n {e.tokens}")
        done += len(batch)
        batch.clear()

    for s in strings:
        batch.append(s)
        if len(batch) == 20000:
            flush()
    flush()
    return done


def train(dynamo, text, vocab, out):
    """The same merges and vocabulary as Hugging Face's trainer, or exit."""
    subprocess.run([dynamo, "tokenizer-train", text, "--vocab", str(vocab), "-o", out], check=True,
                   stdout=subprocess.DEVNULL)
    hf = Tokenizer(models.BPE())
    hf.normalizer = normalizers.NFC()
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with open(text, encoding="utf-8", newline="") as f:
        hf.train_from_iterator([f.read()], trainers.BpeTrainer(
            vocab_size=vocab, min_frequency=2, special_tokens=["<|endoftext|>", "<|padding|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    want = json.loads(hf.to_str())["model"]
    with open(out, encoding="utf-8") as f:
        got = json.load(f)["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in want["merges"]]
    if got["merges"] != merges or got["vocab"] != want["vocab"]:
        sys.exit("the trained tokenizers differ")
    print(f"trained: {len(merges)} merges, {len(want['vocab'])} tokens, equal to Hugging Face's")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("dynamo")
    p.add_argument("tokenizer", nargs="?")
    p.add_argument("--strings", type=int, default=20000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--code-points", action="store_true")
    p.add_argument("--train", metavar="TEXT")
    p.add_argument("--vocab", type=int, default=8192)
    a = p.parse_args()
    if a.train:
        a.tokenizer = a.tokenizer or tempfile.mkdtemp() + "/tokenizer.json"
        train(a.dynamo, a.train, a.vocab, a.tokenizer)
    if not a.tokenizer:
        p.error("a tokenizer.json is needed")
    with open(a.tokenizer, encoding="utf-8") as f:
        names = [t["content"] for t in json.load(f)["added_tokens"]]
    if a.code_points:
        n = compare(a.dynamo, a.tokenizer, code_point_strings())
    else:
        n = compare(a.dynamo, a.tokenizer, random_strings(a.strings, a.seed, names))
    print(f"{n} strings, all equal")


if __name__ == "__main__":
    main()
