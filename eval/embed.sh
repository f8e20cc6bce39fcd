#!/bin/sh
# SPDX-License-Identifier: MIT
# embed.sh NAME FILE... - on standard output a C header in which the file without extension .ext is the
# string NAME_ext.
name=$1
shift
echo "/* Made by eval/embed.sh. */"
for file; do
    echo "static const char ${name}_${file##*.}[] = {"
    od -An -v -tu1 "$file" | sed 's/  *\([0-9][0-9]*\)/\1,/g'
    echo "0};"
done
