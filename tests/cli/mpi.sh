#!/bin/bash
# SPDX-License-Identifier: MIT
# mpi.sh DYNAMO TEST_RANKS - several processes: the same bits as one.
tests=$(realpath "$2")
set -- "$1"
. "$(dirname "$0")/lib.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none # containers forbid it
export OMPI_MCA_mpi_yield_when_idle=1                # other tests run, too
export OMP_NUM_THREADS=1

launch=(mpirun --oversubscribe -n)
ranks() { "${launch[@]}" "$@"; }
# one_of PID: a process that mpirun PID has started.
one_of() { pgrep -P "$1" dynamo | tail -1; }

for n in 2 4; do
    ranks $n "$tests" > out.txt 2>&1 || fail "test_ranks with $n processes: $(cat out.txt)"
    [ "$(grep -c 'PASSED  \] 7 test' out.txt)" = $n ] || fail "not $n test runs: $(cat out.txt)"
done

# ---- counting: parts that are cut inside documents, in one shard and across several
awk 'BEGIN { srand(7); for (d = 0; d < 500; d++) { line = ""
                 for (i = 0; i < d % 90; i++) line = line " w" int(rand() * rand() * 60)
                 print "{\"text\": \"" line "\"}" } }' > text.jsonl
split -n l/3 --additional-suffix=.jsonl text.jsonl part-
"$dynamo" tokenizer-train --vocab 300 text.jsonl -o tok.json > /dev/null
for f in text part-aa part-ab part-ac; do
    "$dynamo" tokenize -t tok.json $f.jsonl -o $f.h5 > /dev/null
done
while read -r order n; do
    "$dynamo" cooc text.h5 --order $order -o one.h5 > /dev/null
    ranks $n "$dynamo" cooc text.h5 --order $order -o many.h5 > out.txt < /dev/null
    [ "$(grep -c unigrams out.txt)" = 1 ] || fail "not one report: $(cat out.txt)"
    cmp one.h5 many.h5 || fail "$n processes count another table of order $order"
    "$dynamo" cooc part-a?.h5 --order $order --min-count 2 -o parts.h5 > /dev/null
    ranks $n "$dynamo" cooc part-ac.h5 part-aa.h5 part-ab.h5 --order $order --min-count 2 \
        -o many.h5 > out.txt < /dev/null
    cmp parts.h5 many.h5 || fail "$n processes count another table of three shards"
done << 'N'
2 2
3 4
4 3
N
rm many.h5
head -c 3000 part-ab.h5 > cut.h5
for bad in none.h5 cut.h5; do
    ranks 2 "$dynamo" cooc part-aa.h5 $bad -o many.h5 > out.txt 2> err.txt && fail "$bad was counted"
    [ "$(grep -c "^dynamo cooc: .*$bad" err.txt)" = 1 ] || fail "not one sentence: $(cat err.txt)"
done
ranks 2 "$dynamo" cooc merge one.h5 parts.h5 -o many.h5 > out.txt 2> err.txt && fail "two processes merged"
says err.txt "merging is the work of one process"
no_file many.h5

# ---- training: the weights and the log of one process, whatever is trained
tiny_corpus
echo '[{"instruction": "the old", "input": "river", "output": "came"}, {"instruction": "a", "output": "so"}]' > i.json
echo '{"prompt_no_input": "{instruction}:", "prompt_input": "{instruction} {input}:"}' > t.json
"$dynamo" tokenize -t tok.json --instruct --template t.json $(yes i.json | head -60) -o instruct.h5 > /dev/null
common=(--batch 8 --micro-batch 1 --context 24 --threads 1 --log-every 0 --val-every 3 --val-max 11)
trains() { # NAME COMMAND...: with 1, 2 and 4 processes
    local name=$1 n
    shift
    "$dynamo" "$@" "${common[@]}" -o $name-1.h5 > /dev/null 2>&1 || fail "$name alone"
    cut -d, -f1,2,4-6 $name-1.log.csv > alone.csv
    for n in 2 4; do
        ranks $n "$dynamo" "$@" "${common[@]}" -o $name-$n.h5 > out.txt 2> err.txt ||
            fail "$name with $n processes: $(cat err.txt)"
        cmp $name-1.h5 $name-$n.h5 || fail "$name: $n processes end with other weights"
        cut -d, -f1,2,4-6 $name-$n.log.csv | cmp - alone.csv || fail "$name: $n processes log something else"
    done
}
trains base pretrain --config config.json --data shard.h5 --steps 6
[ "$(grep -c '^pretrain' out.txt)" = 1 ] || fail "not one report: $(cat out.txt)"
grep -Eq '^processes.4, each sent [0-9.]+ MB a step' out.txt || fail "no exchange reported: $(cat out.txt)"
trains heads train base-1.h5 --data shard.h5 --steps 4
trains joint train heads-1.h5 --init file --recipe joint --data instruct.h5 --steps 4

# ---- a signal to one process stops all; any number of processes goes on
run=("$dynamo" pretrain --config config.json --data shard.h5 --steps 4000 "${common[@]}")
"${launch[@]}" 2 "${run[@]}" -o parts.h5 > out.txt 2> err.txt &
pid=$!
await step parts.log.jsonl
kill -TERM "$(one_of $pid)"
wait $pid && fail "a stopped run ended well"
[ "$(grep -c 'dynamo pretrain: stopped after step' err.txt)" = 1 ] || fail "not one sentence: $(cat err.txt)"
steps=$(($(tail -1 parts.log.csv | cut -d, -f1) + 6))
again=("$dynamo" pretrain --resume parts.ckpt --log-every 0 --threads 1)
ranks 4 "${again[@]}" --stop-after 3 > /dev/null 2> err.txt || fail "4 processes do not go on: $(cat err.txt)"
"${again[@]}" --stop-after 3 > /dev/null 2>&1
mkdir one # a checkpoint holds names
ln -s ../config.json ../shard.h5 one
(cd one && "${run[@]}" -o parts.h5 --stop-after $steps > /dev/null 2>&1)
cmp parts.ckpt-*"$steps.h5" one/parts.ckpt-*"$steps.h5" || fail "the state after 2, 4 and 1 processes is another one"

# ---- a process that is killed ends the run; the checkpoint before it is whole and leads to the end
run=("$dynamo" pretrain --config config.json --data shard.h5 --steps 200 "${common[@]}" --val-fraction 0
    --checkpoint-every 20)
"${run[@]}" -o alone.h5 > /dev/null
run+=(-o killed.h5)
"${launch[@]}" 4 "${run[@]}" > out.txt 2> err.txt &
pid=$!
for _ in $(seq 600); do
    [ -z "$(find . -name 'killed.ckpt-*[0-9].h5')" ] || break
    sleep 0.05
done
kill -9 "$(one_of $pid)"
code=0
wait $pid || code=$?
[ $code = 137 ] || fail "exit code $code after a kill: $(cat err.txt)"
says err.txt "exited on signal 9 (Killed)"
[ ! -e killed.h5 ] || fail "a killed run wrote a model"
ranks 2 "${run[@]}" --resume auto > out.txt 2> err.txt || fail "2 processes do not go on: $(cat err.txt)"
cmp alone.h5 killed.h5 || fail "the killed run ended with other weights"

# ---- what one process cannot do, all do not do
ranks 2 "$dynamo" pretrain --config config.json --data none.h5 "${common[@]}" -o x.h5 > out.txt 2> err.txt &&
    fail "a missing shard was trained on"
[ "$(grep -c '^dynamo pretrain: none.h5' err.txt)" = 1 ] || fail "not one sentence: $(cat err.txt)"
ranks 3 "$dynamo" pretrain --config config.json --data shard.h5 "${common[@]}" -o x.h5 > out.txt 2> err.txt &&
    fail "three processes share eight micro-batches"
says err.txt "3 processes: want a power of 2 that divides the 8 micro-batches of a step"
no_file x.h5
