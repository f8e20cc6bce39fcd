#!/bin/bash
# SPDX-License-Identifier: MIT
# train.sh DYNAMO - dynamo pretrain and dynamo train from the command line: usage errors, reports,
# a signal in the middle, resuming, logs.
. "$(dirname "$0")/lib.sh"

# ---- a corpus, a tokenizer, a shard, a shape
awk 'BEGIN { srand(4); split("the a old new king river stone went came saw gave took and so then", w, " ")
             for (d = 0; d < 60; d++) { line = ""
                 for (i = 0; i < 60; i++) line = line w[int(rand() * 15) + 1] " "
                 print "{\"text\": \"" line "\"}" } }' >text.jsonl
"$dynamo" tokenizer-train --vocab 300 text.jsonl -o tok.json >/dev/null || fail tokenizer-train
"$dynamo" tokenize --tokenizer tok.json text.jsonl -o shard.h5 >/dev/null || fail tokenize
cat >config.json <<'J'
{"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
 "intermediate_size": 64, "vocab_size": 320, "max_position_embeddings": 32, "rotary_pct": 0.25,
 "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "use_parallel_residual": true,
 "hidden_act": "gelu", "tie_word_embeddings": false, "torch_dtype": "float16"}
J

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
refuses 2 "precision cannot change in a resumed run" "$dynamo" pretrain --resume c.h5 --precision f32
refuses 2 "lr cannot change in a resumed run" "$dynamo" pretrain --resume c.h5 --lr 1
refuses 1 "dynamo train: nothing.h5" "$dynamo" train nothing.h5 --data shard.h5 -o x.h5
refuses 1 "dynamo pretrain: c.h5" "$dynamo" pretrain --resume c.h5

# ---- pretraining
run=("$dynamo" pretrain --config config.json --data shard.h5 --steps 30 --batch 4 --micro 2
    --context 32 --val-every 10)
prints '"complete":true' "${run[@]}" -o base.h5 --threads 2 --json
grep -q '"ppl_1":' out.txt || fail "the report has no PPL_1"
[ "$(wc -l <base.log.csv)" -eq 31 ] || fail "base.log.csv has not 31 lines"
[ "$(wc -l <base.log.jsonl)" -eq 30 ] || fail "base.log.jsonl has not 30 lines"
[ "$(grep -c '"validation"' base.log.jsonl)" -eq 3 ] || fail "not 3 validations were logged"
[ ! -e base.ckpt.h5 ] || fail "a finished short run left a checkpoint"

# a signal: the step is finished, the state saved, the command to go on printed
"${run[@]}" -o stopped.h5 --steps 1000000 --threads 1 >out.txt 2>&1 &
pid=$!
for _ in $(seq 200); do
    [ -s stopped.log.jsonl ] && break
    sleep 0.05
done
kill -TERM $pid
code=0
wait $pid || code=$?
[ $code -eq 1 ] || fail "a stopped run gave $code"
says out.txt 'go on with: dynamo pretrain --resume stopped.ckpt.h5'
[ ! -e stopped.h5 ] || fail "a stopped run wrote a model"
prints "go on with" "$dynamo" pretrain --resume stopped.ckpt.h5 --stop-after 2

# stopped and resumed is the same file
prints "pretrain --resume parts.ckpt.h5" "${run[@]}" -o parts.h5 --stop-after 13
prints "output.parts.h5" "$dynamo" pretrain --resume parts.ckpt.h5 --threads 1
cmp base.h5 parts.h5 || fail "a resumed run differs"
cut -d, -f1,2,4-6 base.log.csv >a
cut -d, -f1,2,4-6 parts.log.csv >b
cmp a b || fail "the log of a resumed run differs"

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
prints "PPL_1:3" "$dynamo" train --resume joint2.ckpt.h5 --threads 1
cmp joint.h5 joint2.h5 || fail "a resumed joint run differs"
refuses 1 "heads already" "$dynamo" train heads.h5 --data shard.h5 -o x.h5
[ ! -e x.h5 ] || fail "a refused run wrote a file"
