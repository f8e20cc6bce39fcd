#!/bin/bash
# SPDX-License-Identifier: MIT
# kill.sh DYNAMO - training that is killed, runs out of disk or finds its newest checkpoint damaged
# goes on, and ends with the very bytes of a run that was left alone.
. "$(dirname "$0")/lib.sh"
kills=50

quietly() { "$@" > out.txt 2> err.txt || fail "$*: $(cat err.txt)"; }

tiny_corpus
run=("$dynamo" pretrain --config config.json --data shard.h5 --steps 600 --batch 2 --micro 1 --context 16
    --val-every 60 --val-max 4 --threads 1 --save best --log-every 0)
quietly "${run[@]}" -o alone.h5

# half_written: the run has a checkpoint that is not whole. newer: it has a new one that is.
half_written() { files=(killed.ckpt*.tmp.$pid) && [ -e "${files[0]}" ]; }
newer() { files=(killed.ckpt-0*[0-9].h5) && [ "${files[-1]}" != "$newest" ]; }

# ---- kill -9 in turn at a random moment after the start, while a checkpoint is written, and at a
# random moment after a new one is there (so that a busy machine also gets on); a run that has come
# to its end in the meantime is checked and begun anew
RANDOM=20
half=0
ended=0
killed=0
while [ $killed -lt $kills ]; do
    files=(killed.ckpt-0*[0-9].h5) newest=${files[-1]}
    "${run[@]}" -o killed.h5 --checkpoint-every 3 --resume auto > out.txt 2> err.txt &
    pid=$!
    case $((killed % 3)) in
    1) until half_written || ! kill -0 $pid 2> /dev/null; do :; done ;;
    2) until newer || ! kill -0 $pid 2> /dev/null; do :; done ;;
    esac
    printf -v pause '0.%03d' $((10 + RANDOM % 300))
    [ $((killed % 3)) = 1 ] || sleep $pause
    kill -9 $pid 2> /dev/null || true
    code=0
    wait $pid 2> /dev/null || code=$?
    ! grep warning err.txt || fail "a killed run left a checkpoint that cannot be read"
    if [ $code = 137 ]; then
        killed=$((killed + 1))
        ! half_written || half=$((half + 1))
    elif [ $code = 0 ]; then
        cmp alone.h5 killed.h5 || fail "after $killed kills the run ended with other weights"
        ended=$((ended + 1))
        rm killed.h5
    else
        fail "after $killed kills: exit code $code: $(cat out.txt err.txt)"
    fi
done
newer || true
newest=${files[-1]}
echo "$kills kills, $half of them with a half-written checkpoint, $ended runs ended before one; newest: $newest"
[ $half -gt 0 ] || fail "no kill hit a checkpoint that was being written"
quietly "${run[@]}" -o killed.h5 --checkpoint-every 0 --resume auto
says out.txt killed.h5
cmp alone.h5 killed.h5 || fail "the killed run ended with other weights"
[ -z "$(find . -name 'killed.*.tmp.*')" ] || fail "a half-written file is left: $(ls)"

# ---- a damaged newest checkpoint: the one before it is taken, and named
for how in cut flipped; do
    quietly "${run[@]}" -o $how.h5 --checkpoint-every 40 --stop-after 160
    newest=$how.ckpt-00000160.h5
    if [ $how = cut ]; then
        truncate -s -1000 $newest
    else
        printf '\x5a' | dd of=$newest bs=1 seek=150000 conv=notrunc status=none
    fi
    prints "warning: $newest.*; trying the checkpoint before it" "$dynamo" pretrain --resume $how.ckpt
    cmp alone.h5 $how.h5 || fail "a run that went on from an older checkpoint ($how) differs"
done
quietly "${run[@]}" -o all.h5 --checkpoint-every 0 --stop-after 40
for f in all.ckpt-*.h5; do truncate -s 1000 $f; done
refuses 1 "all.ckpt-00000040.h5" "$dynamo" pretrain --resume all.ckpt

# ---- no room: files may not grow beyond 100 kB, then a full file system
trap '' XFSZ
quietly "${run[@]}" -o limit.h5 --stop-after 100
(ulimit -f 100
    code=0
    "$dynamo" pretrain --resume limit.ckpt --stop-after 100 > out.txt 2> err.txt || code=$?
    [ $code = 1 ]) || fail "a checkpoint that cannot be written gave no error: $(cat err.txt)"
says err.txt "limit.ckpt-00000200.h5"
prints "output.limit.h5" "$dynamo" pretrain --resume limit.ckpt
cmp alone.h5 limit.h5 || fail "a run after a failed save differs"

# ---- a model that cannot be written, at the very end: the last step is saved, also where no
# checkpoints were asked for, and also when the model was to get the best weights instead
for which in last best; do
    lost=("${run[@]}" -o lost.h5 --log lost --checkpoint lost --checkpoint-every 0 --save $which)
    # a folder has the name that the file has until it is whole
    bash -c 'mkdir lost.h5.tmp.$$ && exec "$@"' - "${lost[@]}" > out.txt 2> err.txt && fail "a model was written"
    says err.txt "lost.h5: cannot create"
    says err.txt "the last step is saved, go on with: dynamo pretrain --resume lost"
    prints "output.found.h5" "$dynamo" pretrain --resume lost -o found.h5 --log found --stop-after 1
    "${run[@]}" -o wanted.h5 --save $which > out.txt 2> err.txt
    cmp wanted.h5 found.h5 || fail "a model that was written later differs (--save $which)"
    rm -rf lost* found* wanted*
done
if small_disk 3m; then
    quietly "${run[@]}" -o full.h5 --checkpoint small/full --stop-after 100
    dd if=/dev/zero of=small/fill bs=64k status=none 2> /dev/null || true
    "$dynamo" pretrain --resume small/full --checkpoint-every 50 --stop-after 150 > out.txt 2> err.txt &&
        fail "a checkpoint on a full disk gave no error"
    says err.txt "warning: small/full-00000150.h5: needs"
    says err.txt "dynamo pretrain: small/full-00000250.h5: needs"
    rm small/fill
    prints "output.full.h5" "$dynamo" pretrain --resume small/full
    cmp alone.h5 full.h5 || fail "a run after a full disk differs"
fi
echo "all passed"
