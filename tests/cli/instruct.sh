#!/bin/bash
# SPDX-License-Identifier: MIT
# instruct.sh DYNAMO - instructions to a shard, training of base and heads on the responses,
# generate --chat.
. "$(dirname "$0")/lib.sh"

cat > chat.jsonl << 'J'
{"instruction": "name a river", "output": "the old river of stone"}
{"instruction": "add", "input": "a king", "output": "the king went and saw a river"}
J
for _ in $(seq 20); do cat chat.jsonl; done > many.jsonl
cat > short.json << 'J'
{"prompt_no_input": "Q: {instruction} A:", "prompt_input": "Q: {instruction} ({input}) A:"}
J
for _ in $(seq 30); do echo "Q: the old king went and saw a river of stone, name a river, add a king. A:"; done > text.txt
"$dynamo" tokenizer-train --vocab 290 text.txt -o tok.json > /dev/null
"$dynamo" tokenize -t tok.json text.txt -o text.h5 > /dev/null
cat > config.json << 'J'
{"model_type": "gpt_neox", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
 "intermediate_size": 128, "vocab_size": 320, "max_position_embeddings": 64, "rotary_pct": 0.25,
 "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "use_parallel_residual": true,
 "hidden_act": "gelu", "tie_word_embeddings": false, "torch_dtype": "float32"}
J

# ---- shards
prints "shard.h5: 40 examples, [0-9]+ prompt tokens, [0-9]+ response tokens; 0 without" \
    "$dynamo" tokenize -t tok.json --instruct --template short.json many.jsonl -o shard.h5
"$dynamo" tokenize -t tok.json --instruct --template short.json - -o piped.h5 < many.jsonl > /dev/null
"$dynamo" detokenize --document 1 shard.h5 > doc.txt
[ "$(cat doc.txt)" = "Q: add (a king) A:the king went and saw a river" ] || fail "$(cat doc.txt)"
prints '"examples":40' "$dynamo" tokenize -t tok.json --instruct many.jsonl -o alpaca.h5 --json
command=tokenize
refused 2 "--instruct excludes" -t tok.json --instruct --print chat.jsonl
refused 2 "need --instruct" -t tok.json --template short.json chat.jsonl -o x.h5
refused 1 'short.json, line 1: key "instruction" is missing' -t tok.json --instruct short.json -o x.h5
refused 1 '"prompt_no_input" is missing' -t tok.json --instruct --template config.json chat.jsonl -o x.h5
refused 1 'chat.jsonl, line 1: key "answer" is missing' -t tok.json --instruct --fields instruction,,answer \
    chat.jsonl -o x.h5
no_file x.h5

# ---- a base learns the responses by heart, and what it says depends on the prompt
run=(--batch 8 --context 32 --val-fraction 0 --seed 3 --log-every 0)
"$dynamo" pretrain --config config.json "${run[@]}" -d text.h5 --steps 5 -o base.h5 --dtype f32 > /dev/null
refuses 1 "base.h5: has no prompt template for --chat" "$dynamo" generate base.h5 --chat -p add
"$dynamo" pretrain --from base.h5 "${run[@]}" -d shard.h5 --steps 150 --lr 0.003 -o tuned.h5 > /dev/null
command=generate
chat() { "$dynamo" generate "$1" --chat -t 0 --penalty 1 "${@:2}" 2> err.txt; }
check() {
    [ "$(chat "$1" -p "name a river")" = "the old river of stone" ] || fail "$1: $(chat "$1" -p "name a river")"
    chat "$1" -p add --input "a king" > out.txt
    [ "$(cat out.txt)" = "the king went and saw a river" ] || fail "$1: $(cat out.txt)"
}
check tuned.h5
printf 'name a river\n\nname a river\n' | chat tuned.h5 > out.txt
[ "$(cat out.txt)" = "$(printf 'the old river of stone\nthe old river of stone')" ] || fail "lines: $(cat out.txt)"
printf 'name a river\n' > p.txt
[ "$(chat tuned.h5 -f p.txt --echo)" = "Q: name a river A:the old river of stone" ] || fail "--echo"
chat tuned.h5 -p "name a river" --json | grep -q '"prompt":"Q: name a river A:","text":"the old river of stone"' ||
    fail "--json: $(chat tuned.h5 -p "name a river" --json)"
"$dynamo" info tuned.h5 --json | grep -qF '"prompt_no_input":"Q: {instruction} A:"' || fail "info shows no template"
refused 2 "--input needs --chat" tuned.h5 --input x
printf 'a\0b' > zero.txt
refused 1 "holds a zero byte" tuned.h5 --mode ar --chat -f zero.txt

# ---- heads on it, then further; the frozen base's own answers stay
"$dynamo" train tuned.h5 "${run[@]}" -d shard.h5 --steps 60 --lr 0.003 -o heads.h5 > /dev/null
"$dynamo" train heads.h5 --init file "${run[@]}" -d shard.h5 --steps 60 --lr 0.003 -o more.h5 --json > r.json
check more.h5
chat more.h5 -p "name a river" --eps-b 0 --ignore-eos -n 6 --json | grep -q '"tokens_per_forward":3.0' || fail "no heads"
first=$(sed -n 2p heads.log.csv | cut -d, -f7) next=$(sed -n 2p more.log.csv | cut -d, -f7)
awk -v a="$first" -v b="$next" 'BEGIN { exit !(b < 0.5 * a) }' || fail "--init file began anew: $first, $next"
"$dynamo" train heads.h5 --init file --recipe joint "${run[@]}" -d shard.h5 --steps 5 -o joint.h5 > /dev/null
check joint.h5
refuses 1 "heads already" "$dynamo" train heads.h5 -d shard.h5 -o x.h5
refuses 1 "no heads that --init file" "$dynamo" train base.h5 --init file "${run[@]}" -d shard.h5 -o x.h5
refuses 1 "another prompt template" "$dynamo" train base.h5 "${run[@]}" -d shard.h5 -d alpaca.h5 -o x.h5
refuses 1 "token heads; dynamo train" "$dynamo" pretrain --from heads.h5 "${run[@]}" -d shard.h5 -o x.h5
refuses 2 "--heads is that of the model" "$dynamo" train heads.h5 --init file --heads 2 -d shard.h5 -o x.h5
refuses 2 "exclude each other" "$dynamo" pretrain --from base.h5 --config 14m -d shard.h5 -o x.h5
no_file x.h5
