#!/bin/bash
# SPDX-License-Identifier: MIT
# check_style.sh [ROOT] - the rules of the house that a machine can check. One line per finding,
# "RULE: where: what"; exit 1 if there is any. tests/lint/selftest.sh shows that each rule fires.
set -u
export LC_ALL=C
cd "${1:-$(dirname "$0")/../..}" || exit 1
mapfile -t sources < <(find src data train eval tests -name '*.[ch]' 2>/dev/null | sort)
mapfile -t others < <(find src data train eval tests scripts docs .ci meson.build meson_options.txt \
    README.md \( -name meson.build -o -name '*.md' -o -name '*.sh' -o -name '*.py' \
    -o -name meson_options.txt -o -path 'scripts/*' -o -path '.ci/*' \) -type f \
    -not -name '*.pyc' 2>/dev/null | sort)
[ ${#sources[@]} -gt 0 ] || { echo "no sources below $PWD"; exit 1; }
findings=0

say() { # RULE, then lines on stdin
    while IFS= read -r line; do
        echo "$1: $line"
        findings=$((findings + 1))
    done
}

check_format() {
    local cf=clang-format-14
    command -v $cf >/dev/null || cf=clang-format
    if ! $cf --version 2>/dev/null | grep -q 'version 14\.'; then
        echo "clang-format 14 is not installed (apt-get install clang-format-14)"
        return
    fi
    $cf --dry-run -Werror "${sources[@]}" 2>&1 | grep -E '(error|warning):'
}

# Directory of a file -> prefixes that it may include from.
allowed() {
    case $1 in
    src/base/*) echo src/base/ ;;
    src/kernel/*) echo src/base/ src/kernel/ ;;
    src/nn/*) echo src/base/ src/kernel/ src/nn/ ;;
    src/io/*) echo src/base/ src/io/ ;;
    src/model/*) echo src/base/ src/kernel/ src/nn/ src/io/ src/model/ ;;
    src/decode/*) echo src/base/ src/kernel/ src/nn/ src/io/ src/model/ src/decode/ ;;
    src/cmd_bench.c) echo src/ eval/ train/ ;; # like dynamo.c: it brings the two together
    src/*) echo src/ ;;
    data/*) echo src/ data/ ;;
    train/*) echo src/ data/ train/ ;;
    eval/*) echo src/ data/ eval/ ;;
    tests/*) echo src/ data/ train/ eval/ tests/ ;;
    esac
}

check_dependencies() {
    local file target prefix ok
    grep -n '^ *# *include *"' "${sources[@]}" /dev/null |
        sed -E 's/^([^:]+):([0-9]+):.*"([^"]*)".*/\1 \2 \3/' |
        while read -r file line target; do
            ok=
            for prefix in $(allowed "$file"); do
                [ "${target#"$prefix"}" != "$target" ] && ok=1
            done
            [ -n "$ok" ] || echo "$file:$line: may not include \"$target\""
            [ "${target%.c}" = "$target" ] || echo "$file:$line: includes a .c file"
        done
}

check_doors() { # headers that one module alone may see
    grep -nE '^ *# *include *<hdf5' "${sources[@]}" /dev/null |
        grep -vE '^(src/io/h5(_[a-z]+)?|tests/test_h5)\.c:'
    grep -nE '^ *# *include *<omp\.h>' "${sources[@]}" /dev/null | grep -v '^src/base/par\.c:'
}

check_openmp() {
    grep -nE '^ *# *pragma +omp' "${sources[@]}" /dev/null |
        grep -vE '^(src/(nn|kernel)/|data/|src/base/par\.c:)' | sed 's/$/ (not in this directory)/'
    # Continued lines are joined: the clauses may be on the next one.
    awk '/^ *# *pragma +omp/ { start = FNR; text = ""; on = 1 }
         on { more = sub(/\\$/, ""); text = text $0
              if (!more) {
                  on = 0
                  if (text ~ /omp parallel/ && text !~ /default\(none\)/)
                      print FILENAME ":" start ": parallel region without default(none)"
                  if (text ~ /omp (parallel )?for/ && text !~ /schedule\(static/)
                      print FILENAME ":" start ": loop without schedule(static)"
                  if (text ~ /reduction/ && text !~ /omp simd/)
                      print FILENAME ":" start ": reduction across threads"
                  if (text ~ /omp (atomic|critical)/)
                      print FILENAME ":" start ": atomic or critical"
              } }' "${sources[@]}"
}

check_spdx() {
    local file
    for file in "${sources[@]}"; do
        head -n 1 "$file" | grep -qF '/* SPDX-License-Identifier: MIT */' ||
            echo "$file: the first line is not the SPDX line"
    done
}

check_length() {
    awk 'FNR == 1 && NR > 1 && n > 600 { print file ": " n " lines, want at most 600" }
         { file = FILENAME; n = FNR }
         /^{$/ { start = FNR }
         /^}/ && start { if (FNR - start - 1 > 60)
                             print FILENAME ":" start ": function body of " FNR - start - 1 \
                                   " lines, want at most 60"
                         start = 0 }
         END { if (n > 600) print file ": " n " lines, want at most 600" }' "${sources[@]}"
}

check_space() {
    local file
    grep -nE $'\t' "${sources[@]}" "${others[@]}" /dev/null | sed 's/$/ (tab)/'
    grep -nE ' +$' "${sources[@]}" "${others[@]}" /dev/null | sed 's/$/(trailing space)/'
    for file in "${sources[@]}" "${others[@]}"; do
        [ ! -s "$file" ] || [ -z "$(tail -c 1 "$file")" ] || echo "$file: no newline at the end"
    done
}

# A library never prints or ends the process; these are the exceptions: the progress line, the
# report printer and the option parser exist for commands.
check_library() {
    grep -nE '(^|[^_a-zA-Z0-9>.])(printf|puts|putchar|perror|exit|_exit|abort)\(|\b(stderr|stdout)\b' \
        $(printf '%s\n' "${sources[@]}" | grep -vE \
            '^tests/|/cmd_[a-z0-9_]*\.[ch]$|^src/dynamo\.c$|^src/base/(progress|json|opt)\.[ch]$') \
        /dev/null | grep -vE '^[^:]*:[0-9]*: *(/\*|\*|//)'
}

check_calls() { # functions with a safer replacement of ours or of libc
    grep -nE '(^|[^_a-zA-Z0-9])(atof|atoi|atol|strcpy|strcat|sprintf|gets|alloca|system)\(' \
        "${sources[@]}" /dev/null
    grep -nE 'ffast-math|-Ofast|march=native' $(printf '%s\n' "${others[@]}" |
        grep 'meson\.build$') /dev/null
}

check_headers() { # each header compiles alone; DM_VW: kernel/simd.h is a template over it
    local file cc=${CC:-cc}
    for file in "${sources[@]}"; do
        case $file in src/kernel/mm*.h) continue ;; *.h) ;; *) continue ;; esac # mm.h, mm_amx.h: templates
        printf '#include "%s"\n' "$file" |
            $cc -std=c11 -D_GNU_SOURCE -DDM_VW=1 -I. -x c -fsyntax-only - 2>&1 |
            grep -m 1 'error' | sed "s|^|$file: does not compile alone: |"
    done
}

for rule in format dependencies doors openmp spdx length space library calls headers; do
    say $rule < <(check_$rule)
done
if [ $findings -gt 0 ]; then
    echo "$findings findings"
    exit 1
fi
echo "${#sources[@]} source files, no findings"
