# SPDX-License-Identifier: MIT
# lib.sh - sourced first by every test of commands. The test's arguments are DYNAMO and, where a
# model is needed, MAKE_TINY; it goes on in an empty folder, which vanishes with it.
set -eu
export LC_ALL=C.UTF-8
dynamo=$(realpath "$1")
[ $# -lt 2 ] || make_tiny=$(realpath "$2")
cli=$(realpath "$(dirname "$0")")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

fail() { echo "FAIL: $*" >&2; exit 1; }

# refuses CODE SENTENCE COMMAND...: exit code, SENTENCE on stderr (alone for code 1), no output.
refuses() {
    local want=$1 text=$2 code=0
    shift 2
    "$@" > out.txt 2> err.txt || code=$?
    [ "$code" = "$want" ] || fail "exit code $code, want $want: $*: $(cat err.txt)"
    grep -qF -- "$text" err.txt || fail "\"$(cat err.txt)\" does not say \"$text\": $*"
    [ "$want" = 2 ] || [ "$(wc -l < err.txt)" = 1 ] || fail "more than one sentence: $*: $(cat err.txt)"
    [ ! -s out.txt ] || fail "output in spite of the failure: $*"
}

# spares FILE COMMAND...: the command, which reads FILE and is to write it, refuses and leaves it be.
spares() {
    local before
    before=$(sha256sum < "$1")
    refuses 1 "$1: is both input" "${@:2}"
    [ "$(sha256sum < "$1")" = "$before" ] || fail "$1 was changed: ${*:2}"
}

# refused CODE SENTENCE ARGUMENT...: the test's $command refuses these arguments.
refused() { refuses "$1" "$2" "$dynamo" $command "${@:3}"; }

# says FILE TEXT: the file contains the text.
says() { grep -qF -- "$2" "$1" || fail "no \"$2\" in $1: $(cat "$1")"; }

# prints PATTERN COMMAND...: success, and a line on stdout or stderr that matches (grep -E).
prints() {
    local pattern=$1
    shift
    "$@" > out.txt 2>&1 || fail "exit code $?: $*: $(cat out.txt)"
    grep -qE -- "$pattern" out.txt || fail "no \"$pattern\" in: $(cat out.txt): $*"
}

# has_examples COMMAND...: the help of each has an example.
has_examples() {
    local c
    for c in "$@"; do
        "$dynamo" $c --help | grep -Eq "^(Examples?: |  )dynamo $c " || fail "$c --help has no example"
    done
}

# no_file FILE: neither the file nor anything that it is made from.
no_file() { ! ls "$1"* 2> /dev/null || fail "an unfinished run left a file"; }

# stops SIGNAL FILE COMMAND...: after a signal, half a second on the way, one sentence and no FILE.
stops() {
    local signal=$1 out=$2 code=0 pid
    shift 2
    "$@" > out.txt 2> err.txt &
    pid=$!
    sleep 0.5
    kill "-$signal" $pid 2> /dev/null || true
    wait $pid || code=$?
    [ $code = 1 ] && [ "$(cat err.txt)" = "dynamo $command: stopped by a signal" ] ||
        fail "SIG$signal: exit code $code, $(cat err.txt)"
    no_file "$out"
}

# await TEXT FILE: until a process in the background has written it, ten seconds at most.
await() {
    for _ in $(seq 200); do
        ! grep -qsF -- "$1" "$2" || return 0
        sleep 0.05
    done
    fail "no \"$1\" in $2: $(cat "$2")"
}

# tiny_corpus: shard.h5 and config.json, the shape of a model that trains in a moment.
tiny_corpus() {
    awk 'BEGIN { srand(4); split("the a old new king river stone went came saw gave took and so then", w, " ")
                 for (d = 0; d < 60; d++) { line = ""
                     for (i = 0; i < 60; i++) line = line w[int(rand() * 15) + 1] " "
                     print "{\"text\": \"" line "\"}" } }' > text.jsonl
    "$dynamo" tokenizer-train --vocab 300 text.jsonl -o tok.json > /dev/null || fail tokenizer-train
    "$dynamo" tokenize --tokenizer tok.json text.jsonl -o shard.h5 > /dev/null || fail tokenize
    cat > config.json << 'J'
{"model_type": "gpt_neox", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
 "intermediate_size": 64, "vocab_size": 320, "max_position_embeddings": 32, "rotary_pct": 0.25,
 "rotary_emb_base": 10000, "layer_norm_eps": 1e-5, "use_parallel_residual": true,
 "hidden_act": "gelu", "tie_word_embeddings": false, "torch_dtype": "float16"}
J
}

# full SENTENCE FILE COMMAND...: the disk is too small for FILE.
full() {
    refuses 1 "$1" "${@:3}"
    no_file "$2"
}

# small_disk SIZE: mounts a file system of that size at ./small, where that is permitted.
small_disk() {
    mkdir small
    if ! mount -t tmpfs -o "size=$1" none small 2> /dev/null; then
        echo "skipped: no small file system can be mounted here"
        return 1
    fi
    trap 'umount "$dir/small"; rm -rf "$dir"' EXIT
}
