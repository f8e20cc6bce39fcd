#!/bin/bash
# SPDX-License-Identifier: MIT
# cooc: what a user sees. The counts are compared with awk's. Usage: cooc.sh DYNAMO
. "$(dirname "$0")/lib.sh"
command=cooc

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
says report.json "\"unigrams\":{\"counted\":$n1,\"distinct\":$d1,\"kept\":$d1,\"min_count\":1}"
says report.json "\"pairs\":{\"counted\":$n2,\"distinct\":$d2,\"kept\":$d2,\"min_count\":1}"
says report.json "\"triplets\":{\"counted\":$n3,\"distinct\":$d3,\"kept\":$d3,\"min_count\":1}"
says report.json "\"bytes\":$(stat -c %s c.h5)"
"$dynamo" cooc a.h5 b.h5 -o k.h5 --min-count3 5 --json > report.json
says report.json "\"triplets\":{\"counted\":$n3,\"distinct\":$d3,\"kept\":$k3,\"min_count\":5}"
"$dynamo" cooc a.h5 b.h5 -o k.h5 --order 2 > report.txt
tr "\t" " " < report.txt | grep -q "^pairs $n2 $d2 $d2 1$" || fail "text report: $(cat report.txt)"

# Neither threads nor memory nor the order of shards shows in the file.
for threads in 1 2 3; do
    "$dynamo" cooc b.h5 a.h5 -o again.h5 --threads $threads --memory $((threads + 1))00M > /dev/null
    cmp c.h5 again.h5 || fail "$threads threads or the order of shards changed the table"
done

# Parts add up to the whole, and one table can be pruned.
"$dynamo" cooc a.h5 -o pa.h5 > /dev/null
"$dynamo" cooc b.h5 -o pb.h5 > /dev/null
"$dynamo" cooc merge pa.h5 pb.h5 -o ab.h5 > /dev/null
"$dynamo" cooc merge pb.h5 pa.h5 -o ba.h5 --threads 1 > /dev/null
cmp ab.h5 ba.h5 || fail "the order of the parts changed their sum"
"$dynamo" cooc show c.h5 --json | sed 's/"table":"[^"]*"//; s/"bytes":[0-9]*//' > c.json
"$dynamo" cooc show ab.h5 --json | sed 's/"table":"[^"]*"//; s/"bytes":[0-9]*//' > ab.json
cmp c.json ab.json || fail "the parts do not add up to the whole"
grep -q '"complete":true' c.json || fail "a whole table is not complete"
"$dynamo" cooc merge c.h5 -o k.h5 --min-count3 5 --json > report.json
says report.json "\"triplets\":{\"counted\":$n3,\"distinct\":$d3,\"kept\":$k3,\"min_count\":5}"
refused 1 "a pruned table" merge k.h5 pa.h5 -o never.h5

# No input is written over, whatever its name.
ln -s a.h5 link.h5
ln pa.h5 hard.h5
for out in a.h5 ./a.h5 link.h5; do
    spares $out "$dynamo" cooc b.h5 a.h5 -o $out
done
refused 1 './a.h5: is both input (a.h5) and output' b.h5 a.h5 -o ./a.h5
for out in pb.h5 hard.h5; do
    spares $out "$dynamo" cooc merge pa.h5 pb.h5 -o $out
done
spares c.h5 "$dynamo" cooc merge c.h5 -o c.h5 --min-count3 5
spares c.h5 "$dynamo" cooc show c.h5 --plot c.h5
"$dynamo" cooc a.h5 b.h5 -o k.h5 > /dev/null || fail "an output that is there already cannot be replaced"

# A budget is that of the file.
size=$(stat -c %s c.h5)
for by in weight count; do
    "$dynamo" cooc a.h5 b.h5 -o small.h5 --max-bytes $((size - 200)) --by $by --json > report.json
    [ "$(stat -c %s small.h5)" -le $((size - 200)) ] || fail "the file is larger than its budget"
    says report.json "\"score\":\"$by\""
done
refused 1 "even without any pair" a.h5 -o never.h5 --max-bytes 2k

# What does not fit in memory is kept in files: the same table, and never more memory than given.
awk 'BEGIN { srand(7); for (i = 0; i < 40000; i++) { line = ""
       for (k = 0; k < 40; k++) line = line sprintf("%c", 97 + int(26 * rand()))
       printf "{\"text\": \"%s\"}\n", line } }' > noise.jsonl
"$dynamo" tokenize -t t.json noise.jsonl -o noise.h5 > /dev/null
for i in 1 2 3 4 5 6 7 8; do cp noise.h5 noise$i.h5; done
"$dynamo" cooc noise[1-8].h5 -o large.h5 --order 4 --memory 2G --json > report.json
says report.json '"spilled":0'
"$dynamo" cooc noise[1-8].h5 -o large.h5.again --order 4 --memory 128Mi --json > report.json
cmp large.h5 large.h5.again || fail "the memory given changed the table"

# A file that cannot be whole never appears: a limit on its size, and a signal.
[ "$(stat -c %s large.h5)" -gt 200000 ] || fail "the large table is $(stat -c %s large.h5) bytes"
full 'File too large' never.h5 bash -c 'ulimit -f 100; exec "$0" cooc noise[1-8].h5 -o never.h5' "$dynamo"
stops INT never.h5 "$dynamo" cooc noise[1-8].h5 noise[1-8].h5 noise[1-8].h5 -o never.h5

# What the table knows, as text: the most usual continuation with awk's count of it.
"$dynamo" tokenize -t t.json --print - <<< " the city" > pair.txt
read -r the city _ < pair.txt
count=$(awk -v a="$the" -v b="$city" '{ for (i = 1; i < NF; i++) n += $i == a && $(i+1) == b } END { print n }' ids.txt)
"$dynamo" cooc show c.h5 " the" --top 1000 | tr "\t" " " > show.txt
grep -q " $city $count " show.txt || fail "id $city with count $count is not in $(cat show.txt)"
"$dynamo" cooc show c.h5 " the" --top 1 --json > report.json
says report.json '"context":" the"'
"$dynamo" cooc show c.h5 --plot ranks.svg | tr "\t" " " > show.txt
grep -q "^pairs $n2 $d2 1.0000 " show.txt || fail "no pairs in $(cat show.txt)"
grep -q "</svg>" ranks.svg || fail "no plot"
grep -q "^bytes per n-gram: .* in the file" show.txt || fail "no sizes in $(cat show.txt)"
refused 1 "want 1 or 2" show c.h5 "In the beginning men of"

# Failures: one sentence, and no file.
"$dynamo" tokenizer-train b.jsonl --vocab 300 -o other.json > /dev/null
"$dynamo" tokenize -t other.json b.jsonl -o other.h5 > /dev/null
head -c 300 a.h5 > cut.h5
refused 1 "made with tokenizer" a.h5 other.h5 -o never.h5
refused 1 "cut.h5" a.h5 cut.h5 -o never.h5
refused 1 "missing.h5: cannot open" missing.h5 -o never.h5
refused 1 "want dynamo-shard" c.h5 -o never.h5
refused 1 "want dynamo-cooc" show a.h5 " the"
refused 1 "no/such" a.h5 -o no/such/c.h5
no_file never.h5
refused 2 "no file given" -o never.h5
refused 2 "no output given" a.h5
refused 2 "--order" a.h5 -o never.h5 --order 5
refused 2 "--memory" a.h5 -o never.h5 --memory 1k
refused 2 "no table given" show
refused 2 "--by" merge c.h5 -o never.h5 --by luck
refused 1 "dynamo cooc show: missing.h5" show missing.h5
refused 1 "dynamo cooc merge: a.h5" merge a.h5 -o never.h5
has_examples cooc "cooc merge" "cooc show"
