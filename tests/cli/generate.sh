#!/bin/bash
# SPDX-License-Identifier: MIT
# generate: what a user sees. Usage: generate.sh DYNAMO MAKE_TINY
. "$(dirname "$0")/lib.sh"
command=generate
gen() { "$dynamo" generate "$@" 2> err.txt; }

for i in $(seq 60); do
    printf 'In the beginning God created the heaven and the earth %d times, é.\n' "$i"
done > a.txt
"$dynamo" tokenizer-train a.txt --vocab 300 -o t.json > /dev/null
"$dynamo" tokenize -t t.json a.txt -o a.h5 > /dev/null
"$dynamo" cooc a.h5 -o cooc.h5 > /dev/null
"$make_tiny" t.json m.h5 3

# The text is made of the ids, is a function of the seed, and does not depend on the threads.
gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --json > r.json
[ ! -s err.txt ] || fail "a complete run has nothing to say: $(cat err.txt)"
grep -o '"ids":\[[^]]*\]' r.json | tr -dc '0-9,\n' | tr ',' ' ' > ids.txt
[ "$(wc -w < ids.txt)" = 50 ] || fail "not 50 tokens: $(cat r.json)"
gen m.h5 --cooc cooc.h5 -p "In the" -n 50 > text.txt
{ "$dynamo" detokenize -t t.json < ids.txt; echo; } | cmp - text.txt || fail "text is not that of the ids"
for n in 1 2 3; do
    gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --threads $n | cmp - text.txt || fail "$n threads"
done
gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --seed 2 | cmp -s - text.txt && fail "the seed changes nothing"
printf 'In the' > p.txt
gen m.h5 --cooc cooc.h5 -f p.txt -n 50 | cmp - text.txt || fail "--prompt-file"
gen m.h5 --cooc cooc.h5 -f - -n 50 < p.txt | cmp - text.txt || fail "prompt on standard input"
gen m.h5 --cooc cooc.h5 -f <(cat p.txt) -n 50 | cmp - text.txt || fail "prompt from a pipe"
{ cat p.txt text.txt; } > both.txt
gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --echo | cmp - both.txt || fail "--echo"
gen m.h5 -n 3 --mode ar > /dev/null || fail "no prompt starts a document"

# The two ends of the back-off threshold.
gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --eps-b 1 > one.txt
gen m.h5 -p "In the" -n 50 --mode ar | cmp - one.txt || fail "--eps-b 1 is not --mode ar"
[ ! -s err.txt ] || fail "--mode ar needs no table: $(cat err.txt)"
gen m.h5 -p "In the" -n 48 --eps-b 0 --ignore-eos --json | grep -q '"tokens_per_forward":3.0' ||
    fail "--eps-b 0 does not give three tokens per forward"
grep -q 'no --cooc' err.txt || fail "the missing table is not mentioned"
for unseen in zero mix backoff discount; do
    gen m.h5 --cooc cooc.h5 -p "In the" -n 20 --unseen $unseen --eps-b 0.1 --threshold off --blur off \
        --alpha-c 0.5 --lambda 0.8 -k 10 -t 0.9 --penalty 1.3 > /dev/null || fail "--unseen $unseen"
done
gen m.h5 --cooc cooc.h5 -p "In the" -n 20 -t 0 > greedy.txt
gen m.h5 --cooc cooc.h5 -p "In the" -n 20 -t 0 --seed 9 | cmp - greedy.txt || fail "greedy is random"

# Number formats: auto is the file's, each has one text whatever the threads.
gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --format f32 | cmp - text.txt || fail "auto is not f32 for an f32 file"
for f in bf16 int8 int4; do
    gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --format $f > $f.txt || fail "--format $f: $(cat err.txt)"
    gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --format $f --threads 1 | cmp - $f.txt || fail "$f, 1 thread"
done
refused 2 "--format" m.h5 --format f16

# Reports.
gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --stats --trace t.jsonl > /dev/null
grep -Eq '^50 tokens in [0-9]+ forward passes: [0-9.]+ per forward' err.txt || fail "--stats: $(cat err.txt)"
forwards=$(sed -n 's/^50 tokens in \([0-9]*\) .*/\1/p' err.txt)
[ "$(wc -l < t.jsonl)" = "$forwards" ] || fail "not one trace line per forward"
[ "$(grep -c '"orders":\[{"n":[123],"max_j":[0-9.e-]*,"counts":[0-9.e-]*,"threshold":' t.jsonl)" = "$forwards" ] ||
    fail "trace: $(head -2 t.jsonl)"
grep -o '"tokens":\[[^]]*\]' t.jsonl | tr -dc '0-9,\n' | tr ',\n' '  ' | tr -s ' ' > traced.txt
[ "$(cat traced.txt)" = "$(cat ids.txt) " ] || fail "the trace has other tokens"
ls | grep -q tmp && fail "a temporary file is left"

# The texts of the steps are the text; the joint of a step is there when it is asked for.
gen m.h5 --cooc cooc.h5 -p "In the" -n 50 --json --joint 2 > j.json
sed 's/.*"blocks":\[\(.*\)\],"joint".*/\1/' j.json > blocks.txt
paste -sd, t.jsonl | cmp - blocks.txt || fail "the blocks of --json are not those of --trace"
for f in r.json j.json; do # without quotes and commas between the strings the texts are one
    grep -o '"text":\[[^]]*\]' $f | sed 's/"text":\["//; s/"\]$//; s/","//g' | tr -d '\n'
    echo
done > pieces.txt
sed 's/.*"text":"\([^"]*\)","ids".*/\1/' r.json j.json | cmp - pieces.txt || fail "the texts of the steps are not the text"
grep -q '"joint"' r.json && fail "a joint that nobody asked for"
[ "$(grep -o '"name":"[a-z]*"' j.json | tr -d '\n' | tr -d '":' | sed 's/name/ /g')" = " product mask blur threshold penalty" ] ||
    fail "stages: $(cat j.json)"
[ "$(grep -o '"J":\[\[[^"]*' j.json | tr -dc '\[\n' | sort -u)" = "$(printf '%011d' 0 | tr 0 '[')" ] ||
    fail "a stage is not a list of ten lists"
grep -q '"joint":.*"step":2}' j.json || fail "the joint of another step"
refused 2 '--joint needs --json' m.h5 -p a --joint 1
refused 1 '--joint 9: the text has 2 steps' m.h5 --cooc cooc.h5 -p a -n 2 --eps-b 0.99 --json --joint 9
refused 1 'mode ar has no joint' m.h5 -p a --mode ar --json --joint 1

# Calibration gives the defaults; options go over it.
"$make_tiny" t.json c.h5 3 '{"eps_b": 0, "top_k": 7, "unseen": "mix", "evidence": []}'
gen c.h5 -p "In the" -n 48 --ignore-eos --json > r.json
grep -q '"tokens_per_forward":3.0' r.json || fail "the calibrated threshold is not used"
grep -q '"top_k":7' r.json || fail "the calibrated top_k is not used"
gen c.h5 -p "In the" -n 48 --ignore-eos --json --eps-b 1 | grep -q '"tokens_per_forward":1.0' ||
    fail "--eps-b does not go over the calibration"

# A model without heads, a full context, a signal.
"$make_tiny" t.json base.h5 1
gen base.h5 -p "In the" -n 5 --eps-b 0 --json | grep -q '"forwards":5' || fail "base without heads"
grep -q 'no extra heads' err.txt || fail "missing heads are not mentioned"
gen m.h5 -p "In the" -n 1000 --ignore-eos --json | grep -q '"end":"context"' || fail "full context"
mkfifo pipe
"$dynamo" generate m.h5 -f - -n 200 --ignore-eos --json < pipe > r.json 2> said.txt &
pid=$!
exec 3> pipe
until [ -s said.txt ]; do sleep 0.05; done # it speaks after it has learnt to stop
kill -TERM $pid
printf 'In the' >&3
exec 3>&-
wait $pid || fail "a signal is not a clean end: $?"
grep -q '"end":"stopped"' r.json || fail "stopped: $(cat r.json)"

# Lossless: the base's own text in no more passes.
for t in 0 0.9; do
    "$dynamo" generate m.h5 -p "In the" -n 60 -t $t --mode ar > ar.txt
    "$dynamo" generate m.h5 --cooc cooc.h5 -p "In the" -n 60 -t $t --mode lossless --stats \
        > lossless.txt 2> stats.txt
    cmp ar.txt lossless.txt || fail "lossless is not the base's text at temperature $t"
    grep -q '^drafts: [0-9]*, of which the base agrees with' stats.txt || fail "$(cat stats.txt)"
    for rows in 0 1 2 8; do
        "$dynamo" generate m.h5 --cooc cooc.h5 -p "In the" -n 60 -t $t --mode lossless --rows $rows > lossless.txt
        cmp ar.txt lossless.txt || fail "lossless with $rows rows is not the base's text at temperature $t"
    done
done
# Drafts do not depend on eps_b, which calibrate sets to 1 when nothing passes.
"$dynamo" generate m.h5 --cooc cooc.h5 -p "In the" -n 60 --mode lossless --eps-b 1 --stats 2>&1 > /dev/null |
    grep -q '^drafts: ' || fail "no drafts with --eps-b 1"

# A preset, and options that go over it.
gen m.h5 --cooc cooc.h5 -p "In the" -n 5 --preset paper --alpha-c 0.5 --power 1.5,3 --fit off --json > r.json
for want in '"cut":true' '"unseen":"zero"' '"alpha_c":0.5' '"power2":1.5' '"power3":3.0' '"fitted":false' '"blur":true'; do
    grep -q "$want" r.json || fail "no $want in $(cat r.json)"
done
gen m.h5 --cooc cooc.h5 -p "In the" -n 5 --preset paper --preset best --cut on --alpha-3 0 --json > r.json
for want in '"cut":true' '"unseen":"backoff"' '"alpha_3":0.0' '"power2":1.0'; do
    grep -q "$want" r.json || fail "no $want in $(cat r.json)"
done

# Failures.
refused 2 'MODEL is missing'
refused 2 'exclude each other' m.h5 -p a -f p.txt
refused 2 '--eps-b: "2" is not a number from 0 to 1' m.h5 --eps-b 2
refused 2 '--rows: "9"' m.h5 --rows 9
refused 2 '--power: "1" is not two numbers' m.h5 --power 1
refused 2 '--power: "x"' m.h5 --power 1,x
refused 2 '--preset: "y" is none of paper, best' m.h5 --preset y
refused 2 '--unseen: "x" is none of zero, mix, backoff, discount' m.h5 --unseen x
refused 2 '--top-k' m.h5 -k 0
refused 1 'none.h5' none.h5
refused 1 'a.txt' a.txt
refused 1 'none.txt' m.h5 -f none.txt --mode ar
for f in - /dev/zero; do
    refused 1 'the prompt has more than 16777216 bytes' m.h5 -f $f --mode ar < /dev/zero
done
refused 1 "the model's context holds 256" m.h5 -f a.txt --mode ar
refused 1 'trace.jsonl' m.h5 -p a --mode ar --trace none/trace.jsonl
refused 1 'none.h5' m.h5 -p a --cooc none.h5
for out in m.h5 cooc.h5 p.txt; do
    spares $out "$dynamo" generate m.h5 --cooc cooc.h5 -f p.txt --trace $out
done
# a closed stream's number is not given to the trace, which would get the text
for closed in 0 1 2; do
    code=0
    (eval "exec $closed>&-" && "$dynamo" generate m.h5 -p a -n 5 --trace closed.jsonl) > out.txt 2> err.txt || code=$?
    [ $code = $((closed == 1)) ] || fail "exit code $code with stream $closed closed: $(cat err.txt)"
    ! grep -v '^{"step":' closed.jsonl || fail "text in the trace with stream $closed closed"
    [ $closed != 1 ] || says err.txt "cannot write to standard output"
done
spares p.txt "$dynamo" generate m.h5 --cooc cooc.h5 -f - --trace p.txt < p.txt
"$dynamo" tokenizer-train a.txt --vocab 290 -o u.json > /dev/null
"$dynamo" tokenize -t u.json a.txt -o u.h5 > /dev/null
"$dynamo" cooc u.h5 -o other.h5 > /dev/null
refused 1 'other.h5 was made with another tokenizer' m.h5 -p a --cooc other.h5
"$make_tiny" t.json bad.h5 3 '{"eps_b": 7}'
refused 1 'bad.h5: calibration: eps_b is 7' bad.h5 -p a
head -c 5000 m.h5 > cut.h5
refused 1 'cut.h5' cut.h5 -p a
has_examples generate
