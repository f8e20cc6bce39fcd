#!/bin/bash
# SPDX-License-Identifier: MIT
# report: a page of everything that a small run leaves. Usage: report.sh DYNAMO
. "$(dirname "$0")/lib.sh"
command=report
report() { "$dynamo" report "$@" 2> err.txt || fail "report $*: $(cat err.txt)"; }

# check_page FILE: every tag that is opened is closed, ids differ, nothing is loaded.
check_page() {
    local tag open close
    for tag in html head body header main footer nav section h1 h2 h3 p ul li a div table caption thead tbody tr th td \
        figure figcaption svg g text span details summary style script button code; do
        open=$(grep -oE "<$tag[ >]" "$1" | wc -l)
        close=$(grep -o "</$tag>" "$1" | wc -l)
        [ "$open" = "$close" ] || fail "$1: $open <$tag>, $close </$tag>"
    done
    [ -z "$(grep -oE ' id="[^"]*"' "$1" | sort | uniq -d)" ] || fail "$1: an id twice"
    ! grep -qiE 'https?:|url\(|@import| src=| on[a-z]+=' "$1" || fail "$1: loads something"
    [ "$(tail -n 1 "$1")" = "</html>" ] || fail "$1: ends with $(tail -n 1 "$1")"
}

# sections FILE: the ids of the sections in their order.
sections() { grep -o '<section id="[a-z]*"' "$1" | sed 's/.*"\(.*\)"/\1/' | tr '\n' ' '; }

tiny_corpus
mkdir run
"$dynamo" pretrain --config config.json --tokenizer tok.json -d shard.h5 -n 4 -b 2 -c 16 -o base.h5 > /dev/null 2> err.txt ||
    fail "pretrain: $(cat err.txt)"
"$dynamo" train base.h5 --heads 3 -d shard.h5 --val shard.h5 -n 4 -b 2 -c 16 --val-every 2 -o run/heads.h5 --json \
    > run/train.json 2> err.txt || fail "train: $(cat err.txt)"
"$dynamo" cooc shard.h5 -o run/cooc.h5 > /dev/null
"$dynamo" calibrate run/heads.h5 --cooc run/cooc.h5 --data shard.h5 --prompts 3 --control-prompts 2 --risk 0.5 --confidence 0.8 --prompt-tokens 4 --tokens 6 --samples 1 \
    --eps 0,0.5 --dry-run --json > run/calibrate.json 2> err.txt || fail "calibrate: $(cat err.txt)"
evil='</script><b>"&'"'"' the king'
"$dynamo" generate run/heads.h5 --cooc run/cooc.h5 -p "$evil" -n 8 --eps-b 0.01 --ignore-eos --json --joint 1 \
    --trace run/trace.jsonl > run/text.json 2> err.txt || fail "generate: $(cat err.txt)"
"$dynamo" generate run/heads.h5 -p "$evil" -n 8 --mode ar --ignore-eos --json > run/base.json

# All of it; from a folder or by name it is the same page.
report run -o all.html > out.txt
says out.txt 'all.html: 7 sections of 8 runs'
check_page all.html
[ "$(sections all.html)" = "glance training quality mixture joint text settings absent " ] || fail "$(sections all.html)"
says all.html '&lt;/script&gt;&lt;b&gt;&quot;&amp;&#39; the king'
! grep -q '</script><b>' all.html || fail "the prompt is not escaped"
says all.html 'Files passed over' # heads.log.csv
report run -o again.html > out.txt
cmp all.html again.html || fail "the same runs give another page"
report run/heads.log.jsonl -o log.html --json > log.json --title "<i>T"
check_page log.html
[ "$(sections log.html)" = "training settings absent " ] || fail "$(sections log.html)"
says log.html '<title>&lt;i&gt;T</title>'
says log.json '"made":[{"id":"training"'
says log.json '"runs":[{"label":"heads.log.jsonl","kind":"training log"}]'
says log.html 'dynamo calibrate HEADS.h5' # what would make the rest

# Without data, and with files that are none.
printf 'no run' > garbage.txt
printf '{"text": "a", "ids": [1], "options": {}}' > text.json
mkdir empty
refused 1 'garbage.txt: is none of' run/heads.h5 garbage.txt -o bad.html
refused 1 'missing.json' missing.json -o bad.html
refused 1 'empty: no file in this folder' empty -o bad.html
head -c 5000 run/heads.h5 > cut.h5
refused 1 'cut.h5' cut.h5 -o bad.html
head -c 100 run/calibrate.json > cut.json
refused 1 'cut.json' cut.json -o bad.html
refused 1 'none/x.html' text.json -o none/x.html
spares run/heads.h5 "$dynamo" report text.json run -o run/heads.h5
refused 2 'RUN is missing' -o bad.html
refused 2 '-o FILE is missing' text.json
no_file bad.html
ls | grep -q tmp && fail "a temporary file is left"
report text.json -o bare.html > out.txt
check_page bare.html
if small_disk 64k; then
    head -c 60000 /dev/zero > small/ballast
    full 'small/x.html' small/x.html "$dynamo" report run -o small/x.html
fi
has_examples report
echo ok
