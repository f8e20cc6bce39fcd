#!/bin/bash
# SPDX-License-Identifier: MIT
# score and calibrate on a model made on the way. Usage: eval.sh DYNAMO
. "$(dirname "$0")/lib.sh"

# Documents of made-up sentences: SEED COUNT, as JSONL.
sentences() {
    awk -v seed="$1" -v count="$2" 'BEGIN {
        srand(seed)
        split("king shepherd prophet river city servant", who)
        split("went up to|spoke unto|remembered|blessed", did, "|")
        for (d = 0; d < count; d++) {
            printf "{\"text\": \""
            for (s = 0; s < 8; s++)
                printf "And the %s %s the %s. ", who[1 + int(6 * rand())], did[1 + int(4 * rand())],
                    who[1 + int(6 * rand())]
            print "\"}"
        }
    }'
}

sentences 1 200 > train.jsonl
sentences 2 30 > held.jsonl
cat > config.json <<'JSON'
{"model_type": "gpt_neox", "vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2,
 "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64,
 "rotary_pct": 0.25, "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "hidden_act": "gelu",
 "use_parallel_residual": true, "eos_token_id": 0, "torch_dtype": "float32"}
JSON
"$dynamo" tokenizer-train train.jsonl -v 310 -o t.json > /dev/null
"$dynamo" tokenize -t t.json train.jsonl -o train.h5 > /dev/null
"$dynamo" tokenize -t t.json held.jsonl -o held.h5 > /dev/null
"$dynamo" pretrain --config config.json --tokenizer t.json -d train.h5 -n 30 -b 4 -c 32 --lr 3e-3 \
    -o base.h5 > /dev/null 2> err.txt || fail "pretrain: $(cat err.txt)"
"$dynamo" train base.h5 --heads 3 -d train.h5 -n 20 -b 4 -c 32 -o heads.h5 > /dev/null 2> err.txt ||
    fail "train: $(cat err.txt)"
"$dynamo" cooc train.h5 -o cooc.h5 > /dev/null

# ---- eval ----
# The log p of a choice is the sum of its tokens' in the text of context and choice.
printf 'And the king blessed the river' > b.txt
cat > choice.jsonl <<'JSON'
{"context": "And the king blessed", "choices": ["the river", "river the"], "answer": 0}
{"context": "And the king  ", "choices": ["blessed", "remembered the city"], "answer": 1}
JSON
"$dynamo" eval base.h5 --task choice=choice.jsonl --task lambada=b.jsonl > out.txt 2> err.txt &&
    fail "a missing file passes"
says err.txt b.jsonl
printf '{"text": "%s"}\n' "$(cat b.txt)" > b.jsonl
"$dynamo" eval base.h5 --task choice=choice.jsonl --task lambada=b.jsonl --items items.jsonl > tasks.tsv
[ "$(cut -f 1,2 tasks.tsv | tr '\n' ' ')" = "$(printf 'task\titems choice\t2 lambada\t1 ')" ] ||
    fail "$(cat tasks.tsv)"
context=$(printf 'And the king blessed' > c.txt; "$dynamo" tokenize -t t.json --print c.txt | wc -w)
"$dynamo" score base.h5 --text b.txt |
    awk -F '\t' -v n="$context" '/^0/ && $2 >= n { sum += $4 } END { printf "%.4f\n", sum }' > want.txt
sed -n '1s/.*"logp":\[\([^,]*\),.*/\1/p' items.jsonl | awk '{ printf "%.4f\n", $1 }' | cmp - want.txt ||
    fail "log p: $(head -n 1 items.jsonl), want $(cat want.txt)"
"$dynamo" eval base.h5 --task choice=choice.jsonl --json --threads 1 --limit 1 > tasks.json
grep -q '"task":"choice","file":"choice.jsonl","items":1,"acc":[01].0,"acc_stderr":null' tasks.json ||
    fail "$(cat tasks.json)"
refuses 2 'MODEL is missing' "$dynamo" eval --task choice=choice.jsonl
refuses 2 '--what LIST, --task KIND=FILE or --diversity FILE is missing' "$dynamo" eval base.h5
refuses 2 '"choice" is not KIND=FILE' "$dynamo" eval base.h5 --task choice
refuses 2 '"chess" is none of lambada' "$dynamo" eval base.h5 --task chess=x
printf '{"context": "a", "choices": ["", "b"], "answer": 0}' > empty.jsonl
"$dynamo" eval base.h5 --task choice=empty.jsonl > out.txt # a blank is a token
no_file items.jsonl.tmp

# Held-out text: the ends of PPL_d are PPL_1:3 and PPL_1, the same in text and JSON.
"$dynamo" eval heads.h5 --cooc cooc.h5 --data held.h5 --what perplexity,accuracy,reliability \
    --positions 60 --context 32 --eps 0,1 --plot reliability.svg > held.tsv
awk -F '\t' '$1 == "1" && NF == 7 { one = $2 } $1 == "3" && NF == 7 { all = $3; masked = $4 }
    $1 == "no" && $2 == 0 { ok += $3 == all } $1 == "no" && $2 == 1 { ok += $3 == one }
    $1 == "yes" && $2 == 0 { ok += $3 == masked } $1 == "yes" && $2 == 1 { ok += $3 == one }
    END { exit ok != 4 }' held.tsv || fail "PPL_d does not end where it should: $(cat held.tsv)"
says held.tsv "$(printf '3 tokens, accepted at eps_b 0.5\t')"
grep -q '^<svg' reliability.svg || fail "no reliability diagram"
"$dynamo" eval heads.h5 --cooc cooc.h5 --data held.h5 --what perplexity --positions 60 --context 32 \
    --eps 0:1:0.5 --set eps_b=0.3 --set blur=off --json --threads 1 > held.json
says held.json '"command":"eval"'
says held.json '"eps_b":0.3'
says held.json '"blur":false'
says held.json '{"eps_b":0.5,"masked":true,"ppl":'
printf 'And the king blessed the river. %.0s' 1 2 3 4 5 6 7 8 > long.txt
"$dynamo" eval heads.h5 --text long.txt --what accuracy --positions 10 --context 16 > acc.tsv
[ "$(wc -l < acc.tsv)" = 7 ] || fail "accuracy: $(cat acc.tsv)"

# Generated text: eps_b = 1 ties with the base, eps_b = 0 gives three tokens.
cat > prompts.jsonl <<'JSON'
{"kind": "declarative", "text": "And the king"}
{"kind": "question", "text": "And the river blessed"}
{"kind": "question", "text": "And the servant"}
JSON
"$dynamo" eval heads.h5 --cooc cooc.h5 --prompts prompts.jsonl --what quality,ablation --eps 0,0.5,1 \
    --tokens 12 --samples 2 --bootstrap 50 > quality.tsv
[ "$(wc -l < quality.tsv)" = 15 ] || fail "quality: $(cat quality.tsv)"
awk -F '\t' '$1 == "eps_b 0" { ok += $2 == "3.000 (3.000..3.000)" }
    $1 == "eps_b 1" { ok += $4 == "1.000 (1.000..1.000)" && $13 == 6 }
    $1 == "w/o CO" { ok += $14 == 2.49 && $15 == 0.38 }
    /^same quality, tokens per forward\t/ { ok++ } END { exit ok != 4 }' quality.tsv ||
    fail "quality: $(cat quality.tsv)"
"$dynamo" eval heads.h5 --prompts prompts.jsonl --judge base.h5 --what quality --eps 0 --tokens 6 \
    --samples 1 --n-prompts 2 --bootstrap 5 --json > quality.json
says quality.json '"prompts":{"source":"prompts.jsonl","n":2,"kinds":{"declarative":1,"question":1}}'
says quality.json '"judge":"base.h5"'
says quality.json '"name":"control","settings":null'
says quality.json '"same_quality":{"tokens_per_forward":{"speedup":{"value":'
"$dynamo" eval heads.h5 --data held.h5 --what quality --eps 0 --tokens 6 --samples 1 --n-prompts 2 \
    --prompt-tokens 4 --bootstrap 5 > /dev/null

printf '1 2 3 1 2 3 4' > some.ids
"$dynamo" eval base.h5 --diversity some.ids --diversity b.txt > div.tsv
says div.tsv "$(printf 'some.ids\t7\t0.2000\t0.0000\t0.5714\t0.6667\t0.8000')"

brief="--what quality --eps 0 --tokens 6 --samples 1"
refuses 2 'exactly one of --data and --text' "$dynamo" eval heads.h5 --what perplexity
refuses 2 '--prompts or --data' "$dynamo" eval heads.h5 --what quality
refuses 2 '"speed" is none of' "$dynamo" eval heads.h5 --what speed
refuses 2 'FROM:TO:STEP' "$dynamo" eval heads.h5 --what quality --eps 0:1
refuses 2 'no option of decoding' "$dynamo" eval heads.h5 --what quality --set eps=1
refuses 2 '--plot draws' "$dynamo" eval heads.h5 --data held.h5 --what accuracy --plot x.svg
refuses 1 'eps_b is 3' "$dynamo" eval heads.h5 --data held.h5 --what accuracy --set eps_b=3
refuses 1 'no heads beyond' "$dynamo" eval base.h5 --prompts prompts.jsonl $brief
# each before anything is measured, so that nothing is printed
for what in ablation perplexity,quality,ablation; do
    refuses 1 'needs a co-occurrence table' "$dynamo" eval heads.h5 --data held.h5 --what $what
done
refuses 1 'missing.jsonl: cannot open' \
    "$dynamo" eval heads.h5 --data held.h5 --what accuracy --task choice=choice.jsonl --task arc=missing.jsonl
refuses 1 'prompts.jsonl, line 1' \
    "$dynamo" eval heads.h5 --data held.h5 --what accuracy --task choice=choice.jsonl --task arc=prompts.jsonl
refuses 1 'fewer than a window of 64' "$dynamo" eval heads.h5 --text b.txt --what accuracy
printf '{"kind": "x"}\n' > bad.jsonl
refuses 1 'bad.jsonl, line 1' "$dynamo" eval heads.h5 --prompts bad.jsonl $brief
printf '\n \n' > blank.txt
refuses 1 'blank.txt: no prompt' "$dynamo" eval heads.h5 --prompts blank.txt $brief
for out in heads.h5 cooc.h5 base.h5 held.h5 prompts.jsonl choice.jsonl b.jsonl some.ids ./b.txt; do
    spares $out "$dynamo" eval heads.h5 --cooc cooc.h5 --judge base.h5 --data held.h5 --prompts prompts.jsonl \
        --task piqa=choice.jsonl,b.jsonl --diversity some.ids --diversity b.txt --items $out
    spares $out "$dynamo" eval heads.h5 --cooc cooc.h5 --judge base.h5 --data held.h5 --prompts prompts.jsonl \
        --task piqa=choice.jsonl,b.jsonl --diversity some.ids --diversity b.txt --what reliability --plot $out
done
refuses 1 './x: is two outputs in one (x)' \
    "$dynamo" eval heads.h5 --data held.h5 --task piqa=choice.jsonl --what reliability --plot x --items ./x
spares long.txt "$dynamo" eval heads.h5 --text long.txt --what reliability --plot long.txt

# ---- score ----
printf 'And the king blessed the river. And the servant spoke unto the prophet.' > a.txt
"$dynamo" tokenize -t t.json --print a.txt > a.ids
"$dynamo" score heads.h5 --text a.txt > text.tsv
"$dynamo" score heads.h5 --ids-file a.ids > file.tsv
"$dynamo" score heads.h5 --ids "$(cat a.ids)" > ids.tsv
cmp text.tsv file.tsv || fail "--text and --ids-file differ"
cmp text.tsv ids.tsv || fail "--text and --ids differ"
"$dynamo" score heads.h5 --text a.txt --threads 1 | cmp - text.tsv || fail "--threads 1 differs"
n=$(wc -w < a.ids)
[ "$(grep -c '^0' text.tsv)" = "$n" ] || fail "not one row per token"
# The perplexities follow from the rows.
awk -F '\t' -v n="$n" '
    /^0/ { for (h = 1; h <= 3; h++) if ($(2 + 2 * h) != "-") { sum[h] -= $(2 + 2 * h); count[h]++ } }
    /^PPL_[0-9]\t/ { h = substr($1, 5); want = exp(sum[h] / count[h]); seen++
                     if (count[h] != n - h || $2 / want > 1.0001 || $2 / want < 0.9999) exit 1 }
    /^PPL_1:3/ { want = exp((sum[1] / count[1] + sum[2] / count[2] + sum[3] / count[3]) / 3); seen++
                 if ($2 / want > 1.0001 || $2 / want < 0.9999) exit 1 }
    END { exit seen != 4 }' text.tsv || fail "the perplexities do not follow from the rows"
"$dynamo" score heads.h5 --text a.txt --json > a.json
grep -q '"heads":3' a.json && grep -q '"ppl_joint":\[' a.json && grep -q '"rank":\[\[null,' a.json ||
    fail "JSON: $(cat a.json)"
"$dynamo" score heads.h5 --text a.txt --summary --heads 1 > one.tsv
[ "$(wc -l < one.tsv)" = 1 ] || fail "--summary --heads 1: $(cat one.tsv)"
grep -q "$(cut -f 1-2 one.tsv)" text.tsv || fail "head 1 alone scores otherwise"
{ cat a.ids; echo; cat a.ids; } > two.ids
"$dynamo" score heads.h5 --ids-file two.ids > two.tsv
[ "$(grep -c '^1' two.tsv)" = "$n" ] || fail "two lines are not two sequences"
"$dynamo" detokenize held.h5 > held.txt
"$dynamo" score heads.h5 --text held.txt --summary > long.tsv # longer than the context
grep -q "^PPL_1.$(printf '\t')\?" long.tsv || fail "a long text: $(cat long.tsv)"

refuses 1 'missing.h5' "$dynamo" score missing.h5 --ids "1 2"
refuses 1 'id 2 is 320, expected 0 to 319' "$dynamo" score heads.h5 --ids "1 320"
refuses 1 'a.txt, line 1: id 1 is "And"' "$dynamo" score heads.h5 --ids-file a.txt
refuses 1 '--ids: no sequence of at least two tokens, nothing to score' "$dynamo" score heads.h5 --ids "5"
refuses 1 'held.h5: is an HDF5 file, want text' "$dynamo" score heads.h5 --text held.h5
refuses 1 'held.h5: is an HDF5 file, want text' "$dynamo" eval heads.h5 --text held.h5 --what accuracy
refuses 1 'held.h5: is an HDF5 file, want text' \
    "$dynamo" eval heads.h5 --data held.h5 --what accuracy --diversity a.txt --diversity held.h5
refuses 1 '/dev/null: not a regular file' "$dynamo" eval heads.h5 --text /dev/null --what accuracy
refuses 1 '4 heads asked for' "$dynamo" score heads.h5 --ids "5 6" --heads 4
refuses 2 'exactly one of' "$dynamo" score heads.h5
refuses 2 'exactly one of' "$dynamo" score heads.h5 --ids "1 2" --text a.txt
refuses 2 'MODEL is missing' "$dynamo" score --ids "1 2"

# ---- calibrate ----
# Few prompts certify little: no failure of 4 for a risk of a half at confidence 0.8.
small="--prompts 4 --control-prompts 3 --prompt-tokens 8 --tokens 12 --samples 2 --eps 0,0.5,1
    --risk 0.5 --confidence 0.8"
loose="--slack-divergence 100 --slack-logp 100 --slack-repeats 1"
cp heads.h5 before.h5
"$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 $small $loose -o cal.h5 --plot plot.svg \
    > table.tsv
cmp heads.h5 before.h5 || fail "-o changed the model"
[ "$(grep -c . table.tsv)" = 7 ] || fail "table: $(cat table.tsv)"
[ "$(head -6 table.tsv | awk -F '\t' '{ print NF }' | sort -u)" = 28 ] || fail "columns: $(cat table.tsv)"
# Margins that nothing exceeds: the fastest is certified, three tokens per forward.
grep -q '^certified: eps_b 0, unseen backoff: .* fail (0 of 4 did.* 3.000 tokens per forward' table.tsv ||
    fail "table: $(cat table.tsv)"
grep -q '^<svg' plot.svg || fail "no plot"
prints '^certified +certified with confidence 0.8: at most 50 % of prompts fail' "$dynamo" info cal.h5
# Without slack it cannot be.
"$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 $small -n --eps 0 --slack-divergence 0 \
    --slack-logp 0 --slack-repeats 0 > none.tsv
grep -q '^infeasible: of the safest setting, eps_b 0, unseen backoff, [1-4] of 4 prompts fail' none.tsv ||
    fail "infeasible: $(cat none.tsv)"
"$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 $small $loose --dry-run --unseen zero,backoff,discount --json \
    --judge base.h5 > cal.json
cmp heads.h5 before.h5 || fail "--dry-run changed the model"
for part in '"command":"calibrate"' '"eps_b":0.0,' '"unseen":"zero"' '"hash":"' '"p_value":0.0625' \
    '"control":{' '"distinct":{"1":' '"judge":{"path":"base.h5"' '"failures_allowed":0'; do
    says cal.json "$part"
done
"$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 $small $loose -n --preset paper --power 1,3 --json > cal.json
for part in '"unseen":"zero"' '"cut":true' '"power3":3.0' '"fitted":false'; do
    says cal.json "$part"
done
"$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 ${small%--risk*} --target-speedup 1.1 -n \
    > speed.tsv
grep -q '^chosen: eps_b 0[.5]*, .* the smallest divergence' speed.tsv || fail "target: $(cat speed.tsv)"
"$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 ${small%--risk*} --target-quality 100 -n \
    --alpha-c 1,0 --top-k 50,5 --speed clock > quality.tsv
[ "$(grep -c . quality.tsv)" = 16 ] || fail "four sequences: $(cat quality.tsv)"
# Enough positions for a fit, which the file keeps; it can be tried again.
grep -q '"fit":null' cal.json || fail "a fit of few positions, or for the paper"
says_fit() { tr -d ' \n' < "$1" | grep -o '"fit":{"2":\[[^]]*\],"3":\[[^]]*\]}'; }
"$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 $small $loose --control-prompts 9 --json -o fit.h5 > fit.json
grep -q '"explained":' fit.json && says_fit fit.json > fit.txt || fail "no fit: $(cat fit.json)"
"$dynamo" calibrate fit.h5 --cooc cooc.h5 --data held.h5 $small $loose --keep-fit --seed 2 --json -n > kept.json
says_fit kept.json | cmp - fit.txt || fail "another fit"
for on in on off; do
    "$dynamo" generate fit.h5 --cooc cooc.h5 -p "In the" -n 12 --fit $on --json > $on.json 2> err.txt
    [ $on = on ] || grep -q 'fitted is off, certified: on' err.txt || fail "fit off: $(cat err.txt)"
    [ $on = off ] || ! grep -q certified err.txt || fail "fit on: $(cat err.txt)"
done
refuses 1 'there is no fit to keep' "$dynamo" calibrate cal.h5 --data held.h5 $small --keep-fit
"$dynamo" calibrate heads.h5 --data held.h5 $small > none.tsv # in place, without a mask
cmp -s heads.h5 before.h5 && fail "nothing was stored"
"$dynamo" score heads.h5 --text a.txt | cmp - text.tsv || fail "calibrating changed the weights"

# What was certified, and what differs.
gen() { "$dynamo" generate cal.h5 -p "In the" -n 12 --stats "$@" > out.txt 2> err.txt || fail "generate $*"; }
gen --cooc cooc.h5
grep -q '^certified with confidence 0.8' err.txt && ! grep -q 'not as certified' err.txt ||
    fail "certificate: $(cat err.txt)"
"$dynamo" generate cal.h5 -p "In the" -n 12 --cooc cooc.h5 --json > gen.json
says gen.json '"certificate":{"holds":true,"differences":[]}'
"$dynamo" cooc held.h5 -o held-cooc.h5 > /dev/null
gen --cooc held-cooc.h5 --eps-b 0.25 --format int8 -n 13
for part in 'the co-occurrence table is another one' 'eps_b is 0.25, certified: 0' \
    'the format is int8, certified: bf16' 'the text may get 13 tokens, certified: 12' \
    'does not hold here: certified'; do
    says err.txt "$part"
done
gen --mode ar --cooc held-cooc.h5
grep -q certified err.txt && fail "the base alone needs no certificate: $(cat err.txt)"
"$dynamo" quantize cal.h5 --to int8 -o cal8.h5 > /dev/null 2>&1
"$dynamo" generate cal8.h5 -p "In the" -n 12 --cooc cooc.h5 > out.txt 2> err.txt
says err.txt 'not as certified: the weights are other ones'

for out in cooc.h5 held.h5 base.h5; do
    spares $out "$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 --judge base.h5 $small -o $out
    spares $out "$dynamo" calibrate heads.h5 --cooc cooc.h5 --data held.h5 --judge base.h5 $small --plot $out
done
spares heads.h5 "$dynamo" calibrate heads.h5 --data held.h5 $small --dry-run --plot heads.h5
refuses 1 './x: is two outputs in one (x)' "$dynamo" calibrate heads.h5 --data held.h5 $small --plot x -o ./x
refuses 1 'no/x: cannot write into the folder no' "$dynamo" calibrate heads.h5 --data held.h5 $small --plot no/x
ln -s cal.h5 link.h5
"$dynamo" calibrate link.h5 --data held.h5 $small -o ./link.h5 > none.tsv || fail "-o MODEL is as without"
[ -L link.h5 ] || fail "a link was replaced, and not the model that it leads to"
refuses 1 'no heads' "$dynamo" calibrate base.h5 --data held.h5 $small
refuses 1 'exceed the context 64' "$dynamo" calibrate heads.h5 --data held.h5 $small --tokens 64
refuses 1 'takes 59' "$dynamo" calibrate heads.h5 --data held.h5 --prompts 58
refuses 1 'takes 86' "$dynamo" calibrate heads.h5 --data held.h5 --prompts 58 --unseen all
refuses 1 'a target needs a temperature' "$dynamo" calibrate heads.h5 --data held.h5 --temperature 0 \
    --target-quality 1
refuses 2 'exclude each other' "$dynamo" calibrate heads.h5 --data held.h5 --risk 0.1 --target-speedup 2
refuses 2 '--unseen: "none" is none of' "$dynamo" calibrate heads.h5 --data held.h5 --unseen zero,none
refuses 1 'no run of 40 tokens' "$dynamo" calibrate heads.h5 --data held.h5 --prompt-tokens 40 \
    --prompts 1000 --tokens 8
refuses 1 'missing.h5' "$dynamo" calibrate heads.h5 --data missing.h5
refuses 2 '--eps: "2"' "$dynamo" calibrate heads.h5 --data held.h5 --eps 0,2
refuses 2 'no held-out data' "$dynamo" calibrate heads.h5
"$dynamo" tokenizer-train train.jsonl -v 280 -o other.json > /dev/null
"$dynamo" tokenize -t other.json held.jsonl -o other.h5 > /dev/null
"$dynamo" cooc other.h5 -o other-cooc.h5 > /dev/null
refuses 1 'another tokenizer' "$dynamo" calibrate heads.h5 --data other.h5 $small
refuses 1 'another tokenizer' "$dynamo" calibrate heads.h5 --data held.h5 --cooc other-cooc.h5 $small
refuses 1 'another tokenizer' "$dynamo" eval heads.h5 --data other.h5 --what accuracy
refuses 1 'another tokenizer' "$dynamo" eval heads.h5 --data held.h5 --cooc other-cooc.h5 --what accuracy
"$dynamo" pretrain --config config.json --tokenizer other.json -d other.h5 -n 1 -b 1 -c 16 -o other-base.h5 > /dev/null 2>&1
refuses 1 'another tokenizer' "$dynamo" eval heads.h5 --prompts prompts.jsonl --judge other-base.h5 $brief
has_examples eval
echo ok
