#!/bin/bash
# SPDX-License-Identifier: MIT
# import, export and info: what a user sees. Usage: import_export.sh DYNAMO, from the source root.
. "$(dirname "$0")/lib.sh"
golden=$cli/../golden/hf_dir

shows() { grep -qE -- "$1" out.txt || fail "no \"$1\" in: $(cat out.txt)"; }

# A directory with a tokenizer of our own; the weights are transformers'.
for i in $(seq 40); do echo "In the beginning God created the heaven and the earth $i times."; done > a.txt
"$dynamo" tokenizer-train a.txt --vocab 300 -o t.json > /dev/null
mkdir in
cp "$golden"/* in/
cp t.json in/tokenizer.json

"$dynamo" import in -o m.h5 > out.txt
shows '^m.h5: 16944 parameters in f16, 1 token head, 300 tokens$'
"$dynamo" export m.h5 -o out
diff -r in out || fail "the round trip changed a file"
cp m.h5 first.h5
"$dynamo" import in -o m.h5 --json > out.txt
shows '"output":"m.h5","parameters":16944,"dtype":"f16","heads":1,"tokens":300'
"$dynamo" import in -o m.h5 > out.txt
cmp m.h5 first.h5 || fail "the same command made other bytes"
(echo "the heaven" > b.txt; "$dynamo" tokenize -t m.h5 --print b.txt > x; "$dynamo" tokenize -t t.json --print b.txt > y; cmp x y) ||
    fail "the model's tokenizer is another one"

# info
"$dynamo" info m.h5 > out.txt
shows '^format +dynamo-model$'
shows '^  total +16944$'
shows '^  command +dynamo import in -o m.h5$'
shows '^  f16 +40$'
shows '^calibration +none$'
"$dynamo" info m.h5 --json > out.txt
shows "\"sha256\":\"$(sha256sum in/tokenizer.json | cut -d' ' -f1)\""
shows "\"sha256\":\"$(sha256sum in/model.safetensors | cut -d' ' -f1)\""
"$dynamo" tokenize -t t.json a.txt -o s.h5 > /dev/null
"$dynamo" info s.h5 > out.txt
shows '^format +dynamo-shard$'
shows '^vocab +300$'
shows '^  tokens$'
shows "^tokenizer_hash +$(sha256sum t.json | cut -d' ' -f1)\$"

# The published sizes: parameters and what three heads add.
while read -r name base percent; do
    "$dynamo" info --config-only "$name" --heads 3 > out.txt
    shows "^  base +$base\$"
    got=$(awk '$1 == "overhead_percent" { printf "%.2f", $2 }' out.txt)
    [ "$percent" = - ] || [ "$got" = "$percent" ] || fail "$name: $got %, want $percent"
done <<'END'
14m 14067712 -
31m 30494720 -
70m 70426624 8.95
160m 162322944 8.73
410m 405334016 6.22
1b 1011781632 9.95
1.4b 1414647808 7.12
2.8b 2775208960 5.67
6.9b 6857302016 5.87
12b 11846072320 -
END
"$dynamo" info --config-only in/config.json --heads 2 --head-depth 2 > out.txt
shows '^  base +16944$'
shows '^  heads +4448$'

# verify
"$dynamo" verify m.h5 > out.txt
shows '^16944 parameters in 40 tensors of f16, hashes right, all finite$'
shows '^300 tokens, 320 rows: 20 of padding$'
shows '^fingerprint 32 tokens, head 1: '
"$dynamo" verify m.h5 --json --threads 1 > report.json
"$dynamo" verify in --compare report.json > out.txt
shows '^fingerprint  8 tokens, head 1: '
"$dynamo" verify in --no-fingerprint > x
! grep -q fingerprint x || fail "a fingerprint that was not asked for"
sed 's/"ids":\[[0-9]*,/"ids":[7,/' report.json > other.json
refuses 1 'other.json: another fingerprint' "$dynamo" verify m.h5 --compare other.json
head -c 7000 m.h5 > cut.h5
refuses 1 'cut.h5' "$dynamo" verify cut.h5
refuses 2 '--compare needs the fingerprint' "$dynamo" verify m.h5 --no-fingerprint --compare report.json
refuses 2 'FILE or DIR is missing' "$dynamo" verify

# What goes wrong
refuses 1 'exists already; --force' "$dynamo" export m.h5 -o out
"$dynamo" export m.h5 -o out --force
for file in config.json tokenizer.json model.safetensors; do
    spares in/$file "$dynamo" import in -o in/$file
done
ln -f m.h5 out/model.safetensors
refuses 1 'out/model.safetensors: is both input (m.h5) and output' "$dynamo" export m.h5 -o out --force
cmp m.h5 out/model.safetensors || fail "a refused export replaced a file"
rm in/tokenizer.json
refuses 1 'no tokenizer.json' "$dynamo" import in -o n.h5
[ ! -e n.h5 ] || fail "a failed import left a file"
"$dynamo" import in --no-tokenizer -o n.h5 > out.txt
shows '320 tokens, no tokenizer$'
head -c 20000 "$golden/model.safetensors" > in/model.safetensors
refuses 1 'in/model.safetensors: ' "$dynamo" import in --no-tokenizer -o n.h5
mv in/model.safetensors in/pytorch_model.bin
refuses 1 'in/pytorch_model.bin: no zip directory' "$dynamo" import in --no-tokenizer -o n.h5

# Every other form of the same weights gives the same model.
for form in pytorch_model.bin pytorch_model.bin.index.json model.safetensors.index.json; do
    mkdir form
    cp "$golden/config.json" form/
    case $form in
        *.bin) cp "$golden/../hf_torch/$form" form/ ;;
        *) cp "$golden/../hf_torch/${form%%.*}"-* "$golden/../hf_torch/$form" form/ ;;
    esac
    for file in form/*; do
        spares "$file" "$dynamo" import form --no-tokenizer -o "$file"
    done
    "$dynamo" import form --no-tokenizer -o form.h5 > out.txt
    shows '^form.h5: 16944 parameters in f16'
    "$dynamo" export form.h5 -o form-out
    cmp form-out/model.safetensors "$golden/model.safetensors" || fail "$form: other weights"
    cmp form-out/config.json "$golden/config.json" || fail "$form: another config"
    rm -r form form-out
done
sed -i 's/"gelu"/"relu"/' in/config.json
refuses 1 '"hidden_act" is "relu"' "$dynamo" import in --no-tokenizer -o n.h5
refuses 1 'nothing: cannot open' "$dynamo" info nothing
refuses 1 'not an HDF5 file' "$dynamo" info a.txt
head -c 5000 m.h5 > cut.h5
refuses 1 'cut.h5' "$dynamo" info cut.h5
refuses 1 'is a dynamo-shard file, want dynamo-model' "$dynamo" export s.h5 -o x
refuses 1 'not a published size' "$dynamo" info --config-only 7b
refuses 1 'nothing.json' "$dynamo" info --config-only nothing.json
refuses 2 '-o FILE is missing' "$dynamo" import in
refuses 2 'MODEL is missing' "$dynamo" export -o x
refuses 2 'need --config-only' "$dynamo" info m.h5 --heads 3
for command in import verify export info; do
    "$dynamo" $command --help > out.txt
    shows 'Example'
done
echo "import_export: passed"
