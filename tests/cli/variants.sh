#!/bin/bash
# SPDX-License-Identifier: MIT
# variants.sh DYNAMO MAKE_TINY - heads of another number, depth and input through every command.
. "$(dirname "$0")/lib.sh"
command=train

for i in $(seq 60); do
    printf 'In the beginning God created the heaven and the earth %d times.\n' "$i"
done > a.txt
"$dynamo" tokenizer-train a.txt --vocab 300 -o t.json > /dev/null
"$dynamo" tokenize -t t.json a.txt -o a.h5 > /dev/null
"$dynamo" cooc a.h5 -o cooc.h5 > /dev/null
"$make_tiny" t.json base.h5 1

# hash FILE: of config and weights
hash() { "$dynamo" info "$1" --json | grep -o '"hash":"[^"]*'; }

# variant HEADS DEPTH INPUT OPTION...: from training to text and back
variant() {
    local K=$1 D=$2 input=$3
    shift 3
    prints "^PPL_1:$K" "$dynamo" train base.h5 --data a.h5 --heads "$K" --head-depth "$D" --head-input "$input" \
        --steps 8 --batch 2 --context 32 --val a.h5 -o m.h5 "$@"
    "$dynamo" info m.h5 > info.txt
    for line in "heads *$K" "head_depth *$D" "head_input *$input"; do
        grep -Eq "^ *$line$" info.txt || fail "info does not say \"$line\": $(cat info.txt)"
    done
    grep -Eq "^  heads *$(((K - 1) * D * layer))$" info.txt || fail "parameters: $(cat info.txt)"

    "$dynamo" score m.h5 --text a.txt --summary > score.tsv
    [ "$(grep -c '^PPL_[0-9][^:]' score.tsv)" = "$K" ] || fail "not $K heads are scored: $(cat score.tsv)"

    # Every mode decodes; with heads to spare three tokens a step.
    local most=$((K < 3 ? K : 3))
    "$dynamo" generate m.h5 --cooc cooc.h5 -p "In the" -n 24 --eps-b 0 --ignore-eos --unseen backoff --json > r.json 2> err.txt
    grep -q "\"tokens_per_forward\":$most.0" r.json || fail "not $most tokens per forward: $(cat r.json)"
    "$dynamo" generate m.h5 -p "In the" -n 24 --mode ar > ar.txt
    "$dynamo" generate m.h5 --cooc cooc.h5 -p "In the" -n 24 --mode lossless | cmp - ar.txt || fail "lossless is not the base"

    rm -rf hf q.h5 back.h5
    prints int8 "$dynamo" quantize m.h5 --to int8 -o q.h5
    "$dynamo" score q.h5 --text a.txt --summary > q.tsv
    [ "$(wc -l < q.tsv)" = "$(wc -l < score.tsv)" ] || fail "quantized: $(cat q.tsv)"
    "$dynamo" generate q.h5 -p "In the" -n 5 --mode ar > /dev/null
    "$dynamo" export m.h5 -o hf > /dev/null
    "$dynamo" import hf -o back.h5 > /dev/null
    [ "$(hash back.h5)" = "$(hash m.h5)" ] || fail "export and import change the model"
}

# Weights that were trained in another format than the imported ones: config.json says so.
"$dynamo" import --no-tokenizer "$cli/../golden/hf_dir" -o half.h5 > /dev/null
prints "^output" "$dynamo" train half.h5 --data a.h5 --recipe joint --dtype f32 --heads 2 --steps 2 --batch 2 --context 32 --val-fraction 0 -o m.h5
"$dynamo" export m.h5 -o hf > /dev/null
says hf/config.json '"dtype": "float32"'
says hf/config.json '"classifier_dropout": 0.1'
"$dynamo" import --no-tokenizer hf -o back.h5 > /dev/null
[ "$(hash back.h5)" = "$(hash m.h5)" ] || fail "export and import change the number format"

layer=$("$dynamo" info base.h5 | awk '$1 == "head_1" { print $2 }')
variant 4 1 penultimate
variant 3 2 penultimate --recipe joint
variant 2 2 final --init random
variant 4 2 final --recipe joint --head-weights 1,1,0.5,0.25
