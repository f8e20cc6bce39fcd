#!/bin/bash
# SPDX-License-Identifier: MIT
# mpi.sh DYNAMO TEST_RANKS - several processes: the same bits as one.
tests=$(realpath "$2")
set -- "$1"
. "$(dirname "$0")/lib.sh"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none # containers forbid it
export OMP_NUM_THREADS=1

ranks() { mpirun --oversubscribe -n "$@"; }

for n in 2 4; do
    ranks $n "$tests" > out.txt 2>&1 || fail "test_ranks with $n processes: $(cat out.txt)"
    [ "$(grep -c 'PASSED  \] 7 test' out.txt)" = $n ] || fail "not $n test runs: $(cat out.txt)"
done

# ---- counting: parts that are cut inside documents, in one shard and across several
awk 'BEGIN { srand(7); for (d = 0; d < 500; d++) { line = ""
                 for (i = 0; i < d % 90; i++) line = line " w" int(rand() * rand() * 60)
                 print "{\"text\": \"" line "\"}" } }' > text.jsonl
split -n l/3 --additional-suffix=.jsonl text.jsonl part-
"$dynamo" tokenizer-train --vocab 400 text.jsonl -o tok.json > /dev/null
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
