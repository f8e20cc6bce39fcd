#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/tok_*.json with Hugging Face's tokenizers (0.23 was used).

    python3 scripts/golden_tokenizer.py [DIR]        DIR is tests/golden unless given

tok_small.json   trained on tok_text.txt with all 256 bytes: what `dynamo tokenizer-train` must give
tok_neox.json    GPT-NeoX-20B's structure in small: 243 bytes, runs of 2..24 spaces as added tokens,
                 merges as pairs, and further added tokens, normalised and not
tok_vectors.json {"tokenizer", "text", "ids"} for both: hand-picked and random hostile strings
"""
import json
import os
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from fuzz_tokenizer import WORDS, random_strings  # noqa: E402

SPECIAL = ["<|endoftext|>", "<|padding|>"]

FIXED = [
    "", " ", "  ", "   ", "\n", "\n\n\n", " \n", "\n ", "a", " a", "  a", "   a", "a ", "a  ", "a\n b",
    "Hello world", "Hello  world", "I can't, we'll, they've, I'm, he'd, it's, you're: 'S 'T 'LL",
    "''s 's's 'sS 'r 'v 'l '", "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ",
    "x  <|endoftext|>  y", "<|endoftext|", "<|padding|><|endoftext|>", "<|endoftext|><|endoftext|>",
    "cafe\u0301", "caf\u00e9", "e\u0301\u0323", "e\u0323\u0301", "\u0301", " \u0301", "a\u0345\u0315\u0301\u0316",
    "\u1100\u1161\u11a8", "\uac00\u11a7", "\uac00\u11a8", "\u212b", "\u0344", "\u0958", "\ufb1d",
    "\U0001d15e", "\U00011935\U00011930", "a\u1ac0\u0301", "\u180e x", "\u200b x", "\x85x", "\u3000x",
    "\u2028\u2029", "\x1c\x1d", "\x00", "a\x00b", "\x7f", "\ufeffBOM", "\ufffd", "\U0010ffff",
    "1234567890", "٣٤٥", "½①Ⅷ", "x²", "日本語のテキスト", "生活的真谛是", "👩‍👩‍👧‍👦 🇩🇪", "हिन्दी", "ប្រទេស",
    "a" * 64, "a" * 65, "a" * 1000, "ab" * 500, " " * 24, " " * 25, " " * 48, " " * 49, " " * 1000 + "x",
    "\n" * 100 + "x", "!" * 300, "\t\t\tif (x)  {\r\n", "naïve nai\u0308ve 日本 XYZZY xyzzy",
]


def base(alphabet, vocab, text):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([text], trainers.BpeTrainer(
        vocab_size=vocab, min_frequency=2, special_tokens=SPECIAL, initial_alphabet=alphabet,
        show_progress=False))
    return t


def write(path, value):
    with open(path, "w", encoding="ascii", newline="\n") as f:
        json.dump(value, f, separators=(",", ":"))
        f.write("\n")


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(root, "tests", "golden")
    with open(os.path.join(root, "tests", "golden", "tok_text.txt"), encoding="utf-8", newline="") as f:
        text = f.read()
    every = sorted(pre_tokenizers.ByteLevel.alphabet())
    # A byte that no UTF-8 text holds never appears as a symbol: those 13 are what NeoX lacks.
    used = sorted({s for c in range(0x110000) if not 0xd800 <= c <= 0xdfff and (c < 0x800 or c % 64 == 0)
                   for w, _ in [(w, o) for w, o in pre_tokenizers.ByteLevel(
                       add_prefix_space=False, use_regex=False).pre_tokenize_str(chr(c))] for s in w})
    assert len(every) == 256 and len(used) == 243
    small = base(every, 500, text)
    neox = base(used, 420, text)
    neox.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    neox.add_tokens([AddedToken("nai\u0308ve", normalized=True), AddedToken("日本", normalized=False),
                     AddedToken("XYZZY", normalized=True), AddedToken("XYZ", normalized=True)])
    vectors = []
    for name, t in (("tok_small.json", small), ("tok_neox.json", neox)):
        write(os.path.join(out, name), json.loads(t.to_str()))
        names = [k.content for k in t.get_added_tokens_decoder().values()]
        strings = FIXED + WORDS + list(random_strings(150, 11, names))
        for s, e in zip(strings, t.encode_batch(strings, add_special_tokens=False)):
            vectors.append({"tokenizer": name, "text": s, "ids": e.ids})
    write(os.path.join(out, "tok_vectors.json"), vectors)
    print(f"{len(vectors)} vectors")


if __name__ == "__main__":
    main()
