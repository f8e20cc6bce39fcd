#!/bin/bash
# SPDX-License-Identifier: MIT
# selftest.sh - every rule of check_style.sh fires on a tree with one fault, and only that one.
set -u
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0

c() { # FILE TEXT...: a source file with these lines
    local file=$1
    shift
    { echo '/* SPDX-License-Identifier: MIT */'; printf '%s\n' "$@"; } >"$file"
}

tree() { # a clean tree
    rm -rf "$tmp/t"
    mkdir -p "$tmp"/t/{src/{base,kernel,nn,io,model,decode},data,train,eval,tests,scripts}
    cp "$here/../../.clang-format" "$tmp/t/"
    cd "$tmp/t" || exit 1
    c src/base/a.h '#ifndef G' '#define G' 'int f(void);' '#endif'
    c src/base/a.c '#include "src/base/a.h"'
}

expect() { # RULE TEXT: the tree has findings, all of RULE, one of which has TEXT
    local out rc
    out=$(bash "$here/check_style.sh" "$tmp/t" 2>&1)
    rc=$?
    if [ $rc -ne 1 ] || ! grep -qF -- "$2" <<<"$out" ||
        grep -vE "^$1: |^[0-9]+ findings$" <<<"$out" | grep -q .; then
        echo "FAILED: rule $1 on \"$2\" (exit $rc): $out"
        failed=1
    fi
    tree
}

tree
if ! out=$(bash "$here/check_style.sh" "$tmp/t" 2>&1); then
    echo "FAILED: the clean tree: $out"
    failed=1
fi
c src/base/b.c 'int  f( void );'
expect format 'src/base/b.c'
for pair in src/base:src/kernel src/base:src/io src/kernel:src/nn src/nn:src/model src/nn:src/io \
    src/io:src/model src/io:src/nn src/model:src/decode src/decode:data src/io:train data:train \
    data:eval train:eval eval:train src/base:tests train:tests; do
    c "${pair%:*}/b.c" "#include \"${pair#*:}/a.h\""
    expect dependencies "${pair%:*}/b.c:2: may not include"
done
c src/cmd_x.c '#include "data/a.h"'
expect dependencies 'src/cmd_x.c:2'
c src/base/b.c '#include "a.h"'
expect dependencies 'may not include "a.h"'
c tests/b.c '#include "src/base/a.c"'
expect dependencies 'includes a .c file'
c src/io/b.c '#include <hdf5.h>'
expect doors 'src/io/b.c:2'
c src/nn/b.c '#include <omp.h>'
expect doors 'src/nn/b.c:2'
c src/model/b.c '#pragma omp simd'
expect openmp 'src/model/b.c:2'
c src/nn/b.c '#pragma omp parallel for schedule(static) shared(x)'
expect openmp 'default(none)'
c src/nn/b.c '#pragma omp parallel for default(none) shared(x)'
expect openmp 'schedule(static)'
c src/nn/b.c '#pragma omp parallel for default(none) shared(a_rather_long_name, another_long_name, one) \' \
    '    shared(x_is_named_at_length)' # joined before it is judged
expect openmp 'schedule(static)'
c src/nn/b.c '#pragma omp parallel for schedule(static) default(none) reduction(+ : s)'
expect openmp 'reduction'
c data/b.c '#pragma omp critical'
expect openmp 'critical'
echo 'int f(void);' >src/base/b.h
expect spdx 'src/base/b.h'
c src/base/b.c $(yes 'intx;' | head -n 600)
sed -i 's/intx/int x/' src/base/b.c
expect length '601 lines'
c src/base/b.c 'void f(void)' '{' $(yes '____x();' | head -n 61) '}'
sed -i 's/____/    /' src/base/b.c
expect length 'function body of 61 lines'
printf 'x = 1\n\ty = 2\n' >src/meson.build
expect space 'src/meson.build:2'
printf 'words \n' >scripts/x
expect space 'trailing space'
printf 'x = 1' >eval/meson.build
expect space 'no newline'
c train/b.c 'void f(void)' '{' '    exit(1);' '}'
expect library 'train/b.c:4'
c src/io/b.c 'void f(void)' '{' '    fputs("x", stderr);' '}'
expect library 'src/io/b.c:4'
c eval/b.c 'double f(const char *s)' '{' '    return atof(s);' '}'
expect calls 'eval/b.c:4'
echo "add_project_arguments('-ffast-math')" >meson.build
expect calls 'meson.build:1'
c src/nn/b.h 'size_t f(void);'
expect headers 'src/nn/b.h'
mkdir -p "$tmp/bin"
for name in bash find sort sed grep awk head tail cc env cat printf dirname; do
    ln -sf "$(command -v $name)" "$tmp/bin/"
done
if out=$(PATH=$tmp/bin bash "$here/check_style.sh" "$tmp/t" 2>&1) ||
    ! grep -q 'clang-format 14 is not installed' <<<"$out"; then
    echo "FAILED: without clang-format: $out"
    failed=1
fi
[ $failed -eq 0 ] && echo "every rule fires"
exit $failed
