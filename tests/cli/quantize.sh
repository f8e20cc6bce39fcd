#!/bin/bash
# SPDX-License-Identifier: MIT
# quantize, and what the other commands make of its files. Usage: quantize.sh DYNAMO
. "$(dirname "$0")/lib.sh"

awk 'BEGIN {
    srand(3)
    split("king shepherd prophet river city servant", who)
    for (d = 0; d < 80; d++) {
        printf "{\"text\": \""
        for (s = 0; s < 8; s++)
            printf "And the %s blessed the %s. ", who[1 + int(6 * rand())], who[1 + int(6 * rand())]
        print "\"}"
    }
}' > text.jsonl
cat > config.json <<'JSON'
{"model_type": "gpt_neox", "vocab_size": 320, "hidden_size": 48, "num_hidden_layers": 2,
 "num_attention_heads": 2, "intermediate_size": 96, "max_position_embeddings": 64,
 "rotary_pct": 0.25, "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "hidden_act": "gelu",
 "use_parallel_residual": true, "eos_token_id": 0, "torch_dtype": "float32"}
JSON
"$dynamo" tokenizer-train text.jsonl -v 300 -o t.json > /dev/null
"$dynamo" tokenize -t t.json text.jsonl -o text.h5 > /dev/null
"$dynamo" pretrain --config config.json --tokenizer t.json -d text.h5 -n 40 -b 4 -c 32 --lr 3e-3 \
    --dtype f32 -o base.h5 > /dev/null 2> err.txt || fail "pretrain: $(cat err.txt)"
"$dynamo" train base.h5 --heads 2 -d text.h5 -n 10 -b 4 -c 32 -o heads.h5 > /dev/null 2> err.txt ||
    fail "train: $(cat err.txt)"
cp heads.h5 before.h5

# ---- files ----
for to in bf16 int8 int4; do
    "$dynamo" quantize heads.h5 --to $to -o $to.h5 > $to.tsv
    cmp heads.h5 before.h5 || fail "quantize changed its input"
    "$dynamo" quantize heads.h5 --to $to -o again.h5 --threads 1 > /dev/null
    "$dynamo" info $to.h5 > info.txt
    "$dynamo" info again.h5 | grep '^hash' | grep -qf - info.txt || fail "$to: one thread makes another file"
done
grep -q '32.00 -> 10.78 bits each' int8.tsv || fail "sizes: $(cat int8.tsv)" # rows of 48 take 2 blocks
"$dynamo" info int4.h5 > info.txt
grep -q 'int4 *13$' info.txt || fail "info does not show the formats: $(cat info.txt)"
grep -q '"to"\|^ *to *int4' info.txt || fail "no provenance: $(cat info.txt)"
"$dynamo" info int4.h5 --json | grep -q '"model":{' || fail "the model's own provenance is lost"

# ---- perplexity ----
"$dynamo" quantize heads.h5 --to int8 -o int8.h5 --data text.h5 --json > int8.json
"$dynamo" quantize heads.h5 --to int4 -o int4.h5 --data text.h5 > int4.tsv
grep -q '"loss_percent":\[[^,]*,[^,]*\]' int8.json || fail "JSON: $(cat int8.json)"
[ "$(grep -c '^PPL_' int4.tsv)" = 2 ] || fail "table: $(cat int4.tsv)"
# The losses follow from the perplexities, and 8 bits lose little.
sed 's/.*"before":{[^}]*"ppl":\[\([^]]*\)\].*"after":{[^}]*"ppl":\[\([^]]*\)\].*"loss_percent":\[\([^]]*\)\].*/\1,\2,\3/' \
    int8.json | awk -F , '{ for (h = 1; h <= 2; h++) {
        want = 100 * ($(2 + h) / $h - 1); d = want - $(4 + h)
        if (d * d > 1e-6 || want * want > 1 || $h < 2) exit 1 } exit NF != 6 }' ||
    fail "losses: $(cat int8.json)"

# ---- other commands read the files ----
"$dynamo" score int8.h5 --ids "5 6 7 8 9" --summary > a.tsv
"$dynamo" score int8.h5 --ids "5 6 7 8 9" --summary --threads 1 | cmp - a.tsv || fail "threads change the score"
"$dynamo" generate int4.h5 --prompt "And the" -n 8 > /dev/null 2> err.txt || fail "generate: $(cat err.txt)"
refuses 1 'its weights are int8' "$dynamo" export int8.h5 -o hf
no_file hf
"$dynamo" export bf16.h5 -o hf > /dev/null || fail "bf16 cannot be exported"

# ---- heads alone: the base's text, and what the file says ----
"$dynamo" quantize heads.h5 --to int4 --heads-only -o mixed.h5 --data text.h5 > mixed.tsv
grep -q '^PPL_1.*+0.000 %$' mixed.tsv && ! grep -q '^PPL_2.*0.000 %$' mixed.tsv || fail "heads only: $(cat mixed.tsv)"
"$dynamo" info mixed.h5 > info.txt
grep -q 'int4 *4$' info.txt && grep -q 'heads_only *yes' info.txt || fail "heads only: $(cat info.txt)"
for mode in ar lossless; do
    "$dynamo" generate heads.h5 --prompt "And the" -n 30 --mode $mode > a.txt
    "$dynamo" generate mixed.h5 --prompt "And the" -n 30 --mode $mode | cmp - a.txt || fail "other heads change the base's text"
done
refuses 1 'base.h5: has no token heads' "$dynamo" quantize base.h5 --to int4 --heads-only -o x.h5
refuses 1 'its weights are int4' "$dynamo" export mixed.h5 -o mixed-hf
no_file mixed-hf

# ---- refusals ----
refuses 1 'missing.h5' "$dynamo" quantize missing.h5 --to int8 -o x.h5
refuses 1 'missing.h5' "$dynamo" quantize heads.h5 --to int8 -o x.h5 --data missing.h5
refuses 1 'dynamo-shard' "$dynamo" quantize text.h5 --to int8 -o x.h5
"$dynamo" tokenizer-train text.jsonl -v 280 -o other.json > /dev/null
"$dynamo" tokenize -t other.json text.jsonl -o other.h5 > /dev/null
refuses 1 'another tokenizer' "$dynamo" quantize heads.h5 --to int8 -o x.h5 --data other.h5
refuses 1 'base.h5: has no token heads' "$dynamo" quantize base.h5 --heads-only --to int8 -o x.h5 --data other.h5
[ ! -e x.h5 ] || fail "a file in spite of the failure"
for out in heads.h5 text.h5; do
    spares $out "$dynamo" quantize heads.h5 --to int8 -o $out --data text.h5
done
refuses 2 '--to' "$dynamo" quantize heads.h5 --to int5 -o x.h5
refuses 2 '--to' "$dynamo" quantize heads.h5 -o x.h5
refuses 2 '-o FILE' "$dynamo" quantize heads.h5 --to int8
refuses 2 'MODEL is missing' "$dynamo" quantize --to int8 -o x.h5
echo ok
