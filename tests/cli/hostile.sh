#!/bin/bash
# SPDX-License-Identifier: MIT
# hostile.sh DYNAMO - every number option of every command refuses what is no number or too large,
# and every kind of input and output what cannot be one: one sentence that names it, nothing left.
. "$(dirname "$0")/lib.sh"
tiny_corpus
mkdir folder
: > empty.h5
echo 'not a number' > note.txt
head -c $(($(stat -c %s shard.h5) / 2)) shard.h5 > half.h5
run="--context 32 --batch 2 --steps 2 --data shard.h5"
"$dynamo" pretrain $run --config config.json -o base.h5 > out.txt 2>&1 || fail "pretrain: $(cat out.txt)"

n=0
for command in $("$dynamo" --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p') "cooc merge" "cooc show"; do
    for option in $("$dynamo" $command --help | sed -nE 's/^.* (--[a-z0-9-]+)=(N|X|P|Q|B|T|D|K|NATS|BYTES) .*/\1/p'); do
        refused 2 "$option: \"1e999\"" "$option=1e999" # before any file is looked at
        n=$((n + 1))
    done
done
[ $n -gt 100 ] || fail "only $n numbers were tried"

# each COMMAND BAD...: in place of the @
each() {
    local bad
    for bad in "${@:2}"; do
        refuses 1 "$bad" "$dynamo" ${1//@/$bad}
        [ ! -e out ] || fail "an output in spite of the failure: $1, $bad"
    done
}
for command in "info @" "verify @" "export @ -o out" "import @ -o out" "quantize @ --to int8 -o out" \
    "score @ --ids 1,2" "generate @ -p a" "eval @ --data shard.h5 --what accuracy" \
    "eval base.h5 --data @ --what accuracy" "eval base.h5 --task lambada=@" \
    "calibrate @ --data shard.h5 -o out" "train @ $run -o out" "pretrain $run --from @ -o out" \
    "pretrain $run --config @ -o out" "pretrain $run --config config.json --val @ -o out" \
    "pretrain --resume @" "tokenize -t @ text.jsonl -o out" "cooc shard.h5 @ -o out" \
    "cooc merge @ -o out" "cooc show @" "bench --config @" "bench --cooc @ --what joint --quick"; do
    each "$command" empty.h5 folder /dev/null half.h5 note.txt missing.h5
done
"$dynamo" cooc shard.h5 -o cooc.h5 > out.txt || fail cooc
for command in "quantize base.h5 --to int8 -o @" "generate base.h5 -p a --trace @" \
    "eval base.h5 --data shard.h5 --what reliability --plot @" \
    "eval base.h5 --task lambada=text.jsonl --items @" "calibrate base.h5 --data shard.h5 -o @" \
    "calibrate base.h5 --data shard.h5 -n --plot @" "train base.h5 $run -o @" \
    "pretrain $run --config config.json -o @" "tokenizer-train text.jsonl -o @" \
    "tokenize -t tok.json text.jsonl -o @" "cooc shard.h5 -o @" "cooc merge cooc.h5 -o @" \
    "cooc show cooc.h5 --plot @" "report base.log.jsonl -o @" "bench --quick --what joint --plot @"; do
    each "$command" none/x folder /dev/null base.h5/x
done
[ -c /dev/null ] && [ -z "$(find . -name '*.tmp.*')$(ls folder)" ] || fail "something is left: $(ls . folder)"
