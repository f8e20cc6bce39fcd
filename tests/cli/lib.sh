# SPDX-License-Identifier: MIT
# lib.sh - sourced by the tests of commands, before they leave their folder.

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
