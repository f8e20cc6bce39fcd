#!/bin/bash
# SPDX-License-Identifier: MIT
# tokenizer-train, tokenize and detokenize: what a user sees. Usage: tokenize.sh DYNAMO
. "$(dirname "$0")/lib.sh"

for i in $(seq 40); do
    printf 'In the beginning God created the heaven and the earth %d times.\n' "$i"
done > a.txt
printf "Déjà vu — it's  naïve,\r\n\t生活的真谛是 😊\n\n   end" > b.txt
"$dynamo" tokenizer-train a.txt b.txt --vocab 300 -o t.json > train.txt
grep -q '^t.json: 300 tokens, 42 merges' train.txt || fail "training said: $(cat train.txt)"
"$dynamo" tokenizer-train b.txt a.txt -v 300 -o again.json > /dev/null
cmp t.json again.json || fail "the order of files changed the tokenizer"

# Every kind of file gives the same ids.
{ printf '{"id": 1, "text": "'; sed ':a;N;$!ba;s/\n/\\n/g' a.txt | tr -d '\n'; printf '\\n"}\n'; } > a.jsonl
"$dynamo" tokenize -t t.json --print a.txt > want.ids
gzip -k a.txt a.jsonl
for f in a.txt.gz a.jsonl a.jsonl.gz; do
    "$dynamo" tokenize -t t.json --print "$f" | cmp - want.ids || fail "$f gives other ids"
done
"$dynamo" tokenize -t t.json --print - < a.txt | cmp - want.ids || fail "standard input"
"$dynamo" tokenize -t t.json --print --format jsonl - < a.jsonl.gz | cmp - want.ids || fail "gzip on standard input"
sed 's/"text"/"content"/' a.jsonl > c.jsonl
"$dynamo" tokenize -t t.json --print --field content c.jsonl | cmp - want.ids || fail "--field"
if command -v zstd > /dev/null; then
    zstd -q a.jsonl
    "$dynamo" tokenize -t t.json --print a.jsonl.zst | cmp - want.ids || fail "zstd"
fi

# There and back again.
"$dynamo" tokenize -t t.json --print b.txt | "$dynamo" detokenize -t t.json | cmp - b.txt || fail "b.txt changed"
"$dynamo" tokenize -t t.json a.txt b.txt -o ab.h5 --json > report.json
grep -q '"documents":2,' report.json || fail "report: $(cat report.json)"
"$dynamo" detokenize ab.h5 --document 0 | cmp - a.txt || fail "document 0 of the shard"
"$dynamo" detokenize ab.h5 --document 1 | cmp - b.txt || fail "document 1 of the shard"
{ cat a.txt; echo; cat b.txt; } > both.txt
"$dynamo" detokenize ab.h5 | cmp - both.txt || fail "the whole shard"
"$dynamo" tokenize -t ab.h5 --print a.txt | cmp - want.ids || fail "the shard's own tokenizer"
"$dynamo" detokenize ab.h5 --jsonl > ab.jsonl
"$dynamo" tokenize -t t.json --print ab.jsonl > one.ids
"$dynamo" tokenize -t t.json --print a.txt b.txt | cmp - one.ids || fail "--jsonl is not the inverse"
"$dynamo" tokenize -t t.json a.txt b.txt -o ab2.h5 > /dev/null
"$dynamo" detokenize -t t.json ab2.h5 | cmp - both.txt || fail "detokenize with -t on a shard"

"$dynamo" tokenize -t t.json <(cat a.txt) - -o ab3.h5 < b.txt > /dev/null
"$dynamo" detokenize ab3.h5 | cmp - both.txt || fail "pipes as files"

# Members and frames one after the other, folders, any number of threads.
for i in $(seq 400); do cat a.txt b.txt; done > long.txt
{ head -c 100000 long.txt | gzip; tail -c +100001 long.txt | gzip; } > long.txt.gz
"$dynamo" tokenize -t t.json --print --threads 1 long.txt > long.ids
for n in 2 3; do
    "$dynamo" tokenize -t t.json --print --threads $n long.txt.gz | cmp - long.ids || fail "$n threads"
    "$dynamo" tokenize -t t.json --threads $n long.txt ab.jsonl -o same.h5 > /dev/null
    mv same.h5 threads$n.h5
done
"$dynamo" tokenize -t t.json --threads=1 long.txt ab.jsonl -o same.h5 > /dev/null
cmp threads2.h5 same.h5 && cmp threads3.h5 same.h5 || fail "the shard depends on the threads"
"$dynamo" detokenize same.h5 --document 0 | cmp - long.txt || fail "a long document"
mkdir -p folder/sub
cp long.txt.gz folder/b.txt.gz
cp ab.jsonl folder/sub/c.jsonl
echo no > folder/notes.md
"$dynamo" tokenize -t t.json --print folder | cmp - <(cat long.ids one.ids) || fail "a folder"

# A tokenizer is learnt from folders too, and from any file in little memory.
"$dynamo" tokenizer-train long.txt ab.jsonl -v 320 -o one.json > /dev/null
"$dynamo" tokenizer-train folder -v 320 -o two.json > /dev/null
cmp one.json two.json || fail "a folder gave another tokenizer than its files"
yes "In the beginning God created the heaven and the earth." 2> /dev/null | head -c 80000000 > large.txt
(ulimit -v 65536; "$dynamo" tokenizer-train large.txt -v 270 -o large.json --json > /dev/null) || fail "80 MB in 64 MiB"
rm large.txt

# Ctrl-C while a pipe is silent, and on the way: one sentence, nothing left behind.
mkfifo silent
command=tokenize
exec 3<> silent
stops INT stop.h5 "$dynamo" tokenize -t t.json -o stop.h5 silent
yes "In the beginning God created the heaven and the earth." >&3 2> /dev/null &
feeder=$!
stops TERM stop.h5 "$dynamo" tokenize -t t.json -o stop.h5 silent
kill $feeder
wait $feeder || true
exec 3>&-
command=tokenizer-train
stops INT stop.json "$dynamo" tokenizer-train <(yes "In the beginning") --format text -o stop.json
command=tokenize

# A full disk: as a limit on the file's size, and a real one where a small file system can be made.
for i in $(seq 6000); do echo "$i $((i * i)) $((i * i * i % 1000007)) $((i * 7919 % 10007))"; done > numbers.txt
for i in 1 2 3 4 5; do cat numbers.txt; done > digits.txt
: > empty.txt
full 'File too large' full.h5 bash -c 'ulimit -f 100; exec "$0" tokenize -t t.json digits.txt -o full.h5' "$dynamo"
if small_disk 200k; then
    full 'small/full.h5: ' small/full.h5 "$dynamo" tokenize -t t.json digits.txt -o small/full.h5
    "$dynamo" tokenize -t t.json empty.txt -o small/ok.h5 > /dev/null || fail "a small output fits"
fi

# What goes wrong is said once, and leaves no file behind.
refused 1 'nothere.json: cannot open' -t nothere.json --print a.txt
refused 1 'nothere.txt: cannot open' -t t.json -o x.h5 nothere.txt
refused 1 'a.txt: not valid JSON' -t a.txt --print a.txt
{ cat a.jsonl; echo '{"text": 7}'; } > bad.jsonl
refused 1 'bad.jsonl, line 2: "text" is integer, want a string' -t t.json -o x.h5 bad.jsonl
refused 1 'c.jsonl, line 1: key "text" is missing' -t t.json -o x.h5 c.jsonl
head -c 100 a.txt.gz > cut.txt.gz
refused 1 'cut.txt.gz: the gzip data is cut off' -t t.json -o x.h5 cut.txt.gz
refuses 1 'cut.txt.gz: the gzip data is cut off' "$dynamo" tokenizer-train cut.txt.gz -o x.h5
no_file x.h5
for out in a.txt b.txt t.json; do
    spares $out "$dynamo" tokenize -t t.json a.txt b.txt -o $out
done
spares a.txt "$dynamo" tokenize -t t.json b.txt - -o a.txt < a.txt
spares ab.h5 "$dynamo" tokenize -t ab.h5 a.txt -o ab.h5
spares ab.jsonl "$dynamo" tokenizer-train a.txt ab.jsonl -o ab.jsonl
spares folder/sub/c.jsonl "$dynamo" tokenizer-train folder -o folder/sub/c.jsonl
echo '1 2 300' > ids.txt
refuses 1 'standard input: cannot read' "$dynamo" tokenize -t t.json - -o x.h5 <&- # closed is not empty
no_file x.h5
refuses 2 'ids.txt is no shard' "$dynamo" detokenize ids.txt
refuses 1 'missing.h5: cannot open' "$dynamo" detokenize missing.h5
for c in "tokenizer-train -v 300" "tokenize -t t.json"; do
    refuses 1 'ab.h5: is an HDF5 file, want text' "$dynamo" $c ab.h5 -o x
done
"$dynamo" detokenize -t t.json <("$dynamo" tokenize -t t.json --print b.txt) | cmp - b.txt || fail "ids from a pipe"
refuses 1 'ids.txt, line 1: id 300 is not below 300' "$dynamo" detokenize -t t.json ids.txt
echo '1 2x' > ids.txt
refuses 1 'ids.txt, line 1: found "x"' "$dynamo" detokenize -t t.json ids.txt
refuses 1 'has no document 2' "$dynamo" detokenize ab.h5 --document 2
"$dynamo" tokenizer-train a.txt -v 290 -o other.json > /dev/null
refuses 1 'ab.h5 was made with another tokenizer than other.json' "$dynamo" detokenize -t other.json ab.h5
refuses 2 '--vocab: "200" is not a whole number' "$dynamo" tokenizer-train a.txt -v 200 -o x.json
refused 2 'give either -o SHARD or --print' -t t.json a.txt
refused 2 '--threads: "0" is not a whole number' -t t.json --print --threads 0 a.txt
mkdir nothing
refused 1 'nothing: no .txt or .jsonl file in this folder' -t t.json --print nothing
refuses 2 '--tokenizer FILE is missing' "$dynamo" detokenize ids.txt
has_examples tokenize detokenize tokenizer-train
