#!/bin/bash
# SPDX-License-Identifier: MIT
# cooc: what a user sees. The counts are compared with awk's. Usage: cooc.sh DYNAMO
set -eu
. "$(dirname "$0")/lib.sh"
dynamo=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

says() { grep -qF -- "$1" report.json || fail "no $1 in $(cat report.json)"; }

for i in $(seq 60); do
    printf '{"text": "In the beginning %d men of the city saw the light of day number %d."}\n' $((i % 7)) "$i"
    [ $((i % 10)) != 0 ] || printf '{"text": ""}\n{"text": "a"}\n'
done > a.jsonl
for i in $(seq 25); do
    printf '{"text": "The men of the plain came to the city, and the light of the beginning was not there."}\n'
done > b.jsonl
"$dynamo" tokenizer-train a.jsonl b.jsonl --vocab 320 -o t.json > /dev/null
for f in a b; do
    "$dynamo" tokenize -t t.json "$f.jsonl" -o "$f.h5" > /dev/null
    "$dynamo" tokenize -t t.json --print "$f.jsonl"
done > ids.txt

# Totals, distinct and repeated n-grams of one document a line.
awk '{ for (i = 1; i <= NF; i++) { n1++; c1[$i]++
         if (i < NF) { n2++; c2[$i " " $(i+1)]++ }
         if (i + 1 < NF) { n3++; c3[$i " " $(i+1) " " $(i+2)]++ } } }
     END { for (k in c1) d1++
           for (k in c2) d2++
           for (k in c3) { d3++; if (c3[k] >= 5) k3++ }
           print n1, d1, n2, d2, n3, d3, k3 }' ids.txt > want.txt
read -r n1 d1 n2 d2 n3 d3 k3 < want.txt
"$dynamo" cooc a.h5 b.h5 -o c.h5 --json > report.json
says "\"unigrams\":{\"counted\":$n1,\"distinct\":$d1,\"kept\":$d1}"
says "\"pairs\":{\"counted\":$n2,\"distinct\":$d2,\"kept\":$d2}"
says "\"triplets\":{\"counted\":$n3,\"distinct\":$d3,\"kept\":$d3}"
says "\"bytes\":$(stat -c %s c.h5)"
"$dynamo" cooc a.h5 b.h5 -o k.h5 --min-count3 5 --json > report.json
says "\"triplets\":{\"counted\":$n3,\"distinct\":$d3,\"kept\":$k3}"
"$dynamo" cooc a.h5 b.h5 -o k.h5 --order 2 > report.txt
tr "\t" " " < report.txt | grep -q "^pairs $n2 $d2 $d2 1$" || fail "text report: $(cat report.txt)"

# Neither threads nor memory nor the order of shards shows in the file.
for threads in 1 2 3; do
    "$dynamo" cooc b.h5 a.h5 -o again.h5 --threads $threads --memory ${threads}00M > /dev/null
    cmp c.h5 again.h5 || fail "$threads threads or the order of shards changed the table"
done

# A budget is that of the file.
size=$(stat -c %s c.h5)
"$dynamo" cooc a.h5 b.h5 -o small.h5 --max-size $((size - 500)) --json > report.json
[ "$(stat -c %s small.h5)" -le $((size - 500)) ] || fail "the file is larger than its budget"
[ "$(ls | grep -c tmp)" = 0 ] || fail "temporary files are left"
refuses 1 "even without any pair" "$dynamo" cooc a.h5 -o never.h5 --max-size 2k

# What the table knows, as text: the most usual continuation with awk's count of it.
"$dynamo" tokenize -t t.json --print - <<< " the city" > pair.txt
read -r the city _ < pair.txt
count=$(awk -v a="$the" -v b="$city" '{ for (i = 1; i < NF; i++) n += $i == a && $(i+1) == b } END { print n }' ids.txt)
"$dynamo" cooc --show " the" --top 1000 c.h5 | tr "\t" " " > show.txt
grep -q " $city $count " show.txt || fail "id $city with count $count is not in $(cat show.txt)"
"$dynamo" cooc --show " the" --top 1 --json c.h5 > report.json
says '"context":" the"'
refuses 1 "want 1 or 2" "$dynamo" cooc --show "In the beginning men of" c.h5

# Failures: one sentence, and no file.
"$dynamo" tokenizer-train b.jsonl --vocab 300 -o other.json > /dev/null
"$dynamo" tokenize -t other.json b.jsonl -o other.h5 > /dev/null
head -c 300 a.h5 > cut.h5
refuses 1 "made with tokenizer" "$dynamo" cooc a.h5 other.h5 -o never.h5
refuses 1 "cut.h5" "$dynamo" cooc a.h5 cut.h5 -o never.h5
refuses 1 "missing.h5: cannot open" "$dynamo" cooc missing.h5 -o never.h5
refuses 1 "want dynamo-shard" "$dynamo" cooc c.h5 -o never.h5
refuses 1 "want dynamo-cooc" "$dynamo" cooc --show " the" a.h5
refuses 1 "no/such" "$dynamo" cooc a.h5 -o no/such/c.h5
[ ! -e never.h5 ] || fail "a table in spite of a failure"
refuses 2 "no file given" "$dynamo" cooc -o never.h5
refuses 2 "no output given" "$dynamo" cooc a.h5
refuses 2 "--order" "$dynamo" cooc a.h5 -o never.h5 --order 4
refuses 2 "--memory" "$dynamo" cooc a.h5 -o never.h5 --memory 1k
refuses 2 "--show takes one table" "$dynamo" cooc a.h5 b.h5 --show x
"$dynamo" cooc --help | grep -q "Example:" || fail "no example in --help"
echo "cooc: ok"
