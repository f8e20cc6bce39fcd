#!/bin/bash
# SPDX-License-Identifier: MIT
# train.sh DYNAMO - dynamo pretrain and dynamo train from the command line: usage errors, reports,
# a signal in the middle, resuming, logs.
. "$(dirname "$0")/lib.sh"

tiny_corpus

# ---- usage
for c in pretrain train; do
    has_examples $c
    prints "default 0.95" "$dynamo" $c --help
    refuses 2 "unrecognized option" "$dynamo" $c --no-such-option
    refuses 2 "--batch: \"0\"" "$dynamo" $c --batch 0
    refuses 2 "--precision" "$dynamo" $c --precision fp8
    refuses 2 "--lr: \"1e-3x\"" "$dynamo" $c --lr 1e-3x
done
refuses 2 "config is missing" "$dynamo" pretrain --data shard.h5 -o x.h5
refuses 2 "data is missing" "$dynamo" pretrain --config 14m -o x.h5
refuses 2 "-o is missing" "$dynamo" pretrain --config 14m --data shard.h5
refuses 2 "base model's file is missing" "$dynamo" train --data shard.h5 -o x.h5
refuses 2 "config is missing" "$dynamo" pretrain --resume auto --data shard.h5 -o x.h5
refuses 1 "dynamo train: nothing.h5" "$dynamo" train nothing.h5 --data shard.h5 -o x.h5
refuses 1 "dynamo pretrain: c.h5" "$dynamo" pretrain --resume c.h5
refuses 1 "missing.h5: cannot open" "$dynamo" train config.json --data missing.h5 -o x.h5 # not "not an HDF5 file"
ln -s shard.h5 link.h5
for o in shard.h5 ./link.h5 config.json; do # not over what it is made from
    spares $o "$dynamo" pretrain --config config.json --data shard.h5 -o $o
done

# ---- the files beside the model take the place of no input, and of none of each other
beside=("$dynamo" pretrain --context 32 --steps 2)
cp config.json x.log.jsonl
spares x.log.jsonl "${beside[@]}" --config x.log.jsonl --data shard.h5 -o x.h5
rm x.log.jsonl
for kept in x.ckpt-00000007.h5 x.refused-00000007.h5 x.ckpt-best.h5; do
    cp shard.h5 $kept
    text="$kept: has the name of a checkpoint"
    [ $kept != x.ckpt-best.h5 ] || text="$kept: is both input"
    refuses 1 "$text" "${beside[@]}" --config config.json --data ./$kept -o x.h5
    refuses 1 "$text" "${beside[@]}" --config config.json --data shard.h5 --val $PWD/$kept -o ./x.h5
    rm $kept
done
beside+=(--config config.json --data shard.h5)
refuses 1 "x-00000002.h5: has the name of a checkpoint" "${beside[@]}" -o x-00000002.h5 --checkpoint ./x
refuses 1 "./x-best.h5: is two outputs in one (x-best.h5)" "${beside[@]}" -o x-best.h5 --checkpoint ./x
refuses 1 "./x.csv: is two outputs in one (x.csv)" "${beside[@]}" -o x.csv --log ./x
refuses 1 "x.tb: is two outputs in one (x.tb)" "${beside[@]}" -o x.tb --log x
refuses 1 "no/x.csv: cannot write into the folder no: " "${beside[@]}" -o x.h5 --log no/x
refuses 1 "no/x-best.h5: cannot write into the folder no: " "${beside[@]}" -o x.h5 --checkpoint no/x
for prefix in --log --checkpoint; do
    refuses 2 "$prefix: \"x/\" is a folder, want the beginning of names" "${beside[@]}" -o x.h5 $prefix x/
done
no_file x

# ---- pretraining
run=("$dynamo" pretrain --config config.json --data shard.h5 --steps 30 --batch 4 --micro 2
    --context 32 --val-every 10)
prints '"complete":true' "${run[@]}" -o base.h5 --threads 2 --json
grep -q '"ppl_1":' out.txt || fail "the report has no PPL_1"
[ "$(wc -l <base.log.csv)" -eq 31 ] || fail "base.log.csv has not 31 lines"
[ "$(wc -l <base.log.jsonl)" -eq 30 ] || fail "base.log.jsonl has not 30 lines"
[ "$(grep -c '"validation"' base.log.jsonl)" -eq 3 ] || fail "not 3 validations were logged"
[ -z "$(find . -name 'base.ckpt*')" ] || fail "a finished run left a checkpoint"

# a signal: the step is finished, the state saved, the command to go on printed
"${run[@]}" -o stopped.h5 --steps 1000000 --threads 1 >out.txt 2>&1 &
pid=$!
await step stopped.log.jsonl
kill -TERM $pid
code=0
wait $pid || code=$?
[ $code -eq 1 ] || fail "a stopped run gave $code"
says out.txt 'go on with: dynamo pretrain --resume stopped.ckpt'
[ ! -e stopped.h5 ] || fail "a stopped run wrote a model"
refuses 1 "is left of a run that did not finish" "${run[@]}" -o stopped.h5
refuses 1 "precision cannot change in a resumed run: it is \"bf16\"" \
    "$dynamo" pretrain --resume stopped.ckpt --precision f32
refuses 1 "lr cannot change in a resumed run" "${run[@]}" -o stopped.h5 --steps 1000000 --resume auto --lr 1
prints "go on with" "$dynamo" pretrain --resume stopped.ckpt --stop-after 2 --lr 0.001

# a signal that asks for a checkpoint gets it, and the run goes on
"$dynamo" pretrain --resume stopped.ckpt --log-every 1 --checkpoint asked >out.txt 2>&1 &
pid=$!
await 'step ' out.txt
kill -USR1 $pid
await 'saved asked-' out.txt
kill -INT $pid
code=0
wait $pid || code=$?
[ $code -eq 1 ] || fail "a run that saved and was stopped gave $code"
[ "$(find . -name 'asked-0*.h5' | wc -l)" -eq 2 ] || fail "two checkpoints are to be kept: $(ls)"

# stopped and resumed is the same file
prints "pretrain --resume parts.ckpt" "${run[@]}" -o parts.h5 --stop-after 13
prints "output.parts.h5" "$dynamo" pretrain --resume parts.ckpt --threads 1
cmp base.h5 parts.h5 || fail "a resumed run differs"
cut -d, -f1,2,4-6 base.log.csv >a
cut -d, -f1,2,4-6 parts.log.csv >b
cmp a b || fail "the log of a resumed run differs"

# weights of shards: all or none; they are stored, and shape the weights
cp shard.h5 other.h5
refuses 2 "either all shards have a weight, or none" "${run[@]}" other.h5:2 -o x.h5
refuses 2 "takes no weight" "${run[@]}" --val other.h5:2 -o x.h5
weighted=("$dynamo" pretrain --config config.json --data shard.h5:1 other.h5:3 --steps 12 --batch 4 --context 32)
prints "output" "${weighted[@]}" -o weighted.h5
prints "go on with" "${weighted[@]}" -o weighted2.h5 --stop-after 5
refuses 1 "inputs are not those of this run" "$dynamo" pretrain --resume weighted2.ckpt --data shard.h5:1 other.h5:2
prints "output" "$dynamo" pretrain --resume weighted2.ckpt
cmp weighted.h5 weighted2.h5 || fail "a resumed run with weighted shards differs"

# ---- heads
run=("$dynamo" train base.h5 --data shard.h5 --heads 3 --steps 20 --batch 4 --micro 2 --context 32)
prints "PPL_1:3" "${run[@]}" -o heads.h5
prints '"ppl_1:3":' "${run[@]}" -o heads2.h5 --threads 3 --json
cmp heads.h5 heads2.h5 || fail "heads depend on the number of threads"
head -1 heads.log.csv | grep -q 'val_ppl_3,val_ppl_1:2,val_ppl_1:3$' || fail "log's columns"
head -1 heads.log.csv | grep -q 'tokens_per_second,mfu,val_windows' || fail "log has no MFU"
prints '"flops_per_token":' "${run[@]}" -o heads3.h5 --precision f32 --json
cmp -s heads.h5 heads3.h5 && fail "both precisions gave the same weights"
refuses 2 "base-lr needs --recipe joint" "${run[@]}" -o x.h5 --base-lr 1e-5
prints "PPL_1:3" "${run[@]}" -o joint.h5 --recipe joint
prints '"recipe":"joint"' "$dynamo" info --json joint.h5
prints "go on with" "${run[@]}" -o joint2.h5 --recipe joint --stop-after 7
prints "PPL_1:3" "$dynamo" train --resume joint2.ckpt --threads 1
cmp joint.h5 joint2.h5 || fail "a resumed joint run differs"
refuses 1 "heads already" "$dynamo" train heads.h5 --data shard.h5 -o x.h5
spares base.h5 "$dynamo" train base.h5 --data shard.h5 -o base.h5
[ ! -e x.h5 ] || fail "a refused run wrote a file"

# ---- what a run will need: said before, and within 15 % of what it takes
sed 's/"hidden_size": 32/"hidden_size": 256/; s/"intermediate_size": 64/"intermediate_size": 1024/
     s/"num_hidden_layers": 2/"num_hidden_layers": 4/' config.json >mid.json
for recipe in pretrain "train mid.h5" "train mid.h5 --recipe joint"; do
    needs=("$dynamo" $recipe --data shard.h5 --steps 2 --batch 8 --micro 2 --context 32 -o planned.h5 --json)
    [ "$recipe" != pretrain ] || needs+=(--config mid.json)
    rm -rf planned*
    "${needs[@]}" --dry-run >plan.txt || fail "--dry-run of $recipe"
    [ -z "$(find . -name 'planned*')" ] || fail "--dry-run wrote a file"
    prints '"complete":true' "${needs[@]}"
    [ -e mid.h5 ] || cp planned.h5 mid.h5
    said=$(sed -n 's/.*"program":[0-9]*,"total":\([0-9]*\).*/\1/p' plan.txt)
    took=$(sed -n 's/.*"memory_bytes":\([0-9]*\).*/\1/p' out.txt)
    echo "$recipe: $said bytes said, $took taken"
    [ $((said * 100)) -gt $((took * 85)) ] && [ $((said * 100)) -lt $((took * 115)) ] ||
        fail "$recipe: --dry-run said $said bytes, it took $took"
done
prints "^disk.*checkpoints of" "$dynamo" train mid.h5 --data shard.h5 --steps 2 --context 32 -o planned2.h5 --dry-run
refuses 1 "none.h5" "$dynamo" train none.h5 --data shard.h5 -o x.h5 --dry-run

# ---- what the run would refuse, the plan refuses in the same words
plan_refuses() { # SENTENCE ARGUMENT...
    refuses 1 "$@" -o x.h5
    mv err.txt real.txt
    refuses 1 "$@" -o x.h5 --dry-run
    cmp err.txt real.txt || fail "${*:2}: --dry-run says something else"
}
"$dynamo" tokenizer-train --vocab 290 text.jsonl -o tok2.json >/dev/null || fail "tokenizer-train"
"$dynamo" tokenize --tokenizer tok2.json text.jsonl -o strange.h5 >/dev/null || fail "tokenize"
for recipe in "train base.h5" "pretrain --from base.h5" "pretrain --config config.json --tokenizer tok.json"; do
    needs=("$dynamo" $recipe --context 32 --steps 2)
    for data in "--data strange.h5" "--data shard.h5 strange.h5" "--data shard.h5 --val strange.h5"; do
        plan_refuses "strange.h5: made with tokenizer" "${needs[@]}" $data
    done
    plan_refuses "--context 4096 is more than the" "${needs[@]}" --context 4096 --data shard.h5
    refuses 1 "no/x.h5: cannot write into the folder no: No such file or directory" \
        "${needs[@]}" --data shard.h5 -o no/x.h5 --dry-run
    refuses 1 "shard.h5/x.h5: cannot write into the folder shard.h5: Not a directory" \
        "${needs[@]}" --data shard.h5 -o shard.h5/x.h5 --dry-run
done
plan_refuses "heads.h5: has 3 token heads already" "$dynamo" train heads.h5 --data shard.h5
plan_refuses "base.h5: has no heads that --init file" "$dynamo" train base.h5 --init file --data shard.h5
plan_refuses "heads.h5: has 3 token heads; dynamo train" "$dynamo" pretrain --from heads.h5 --data shard.h5
no_file x.h5
