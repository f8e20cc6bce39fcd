#!/bin/bash
# SPDX-License-Identifier: MIT
# scripts/fetch-pythia against a mirror of files: file:// URLs for curl. Usage: fetch.sh DYNAMO, from the source root.
. "$(dirname "$0")/lib.sh"
command -v curl > /dev/null || { echo "skipped: curl is not installed"; exit 77; }
script=$cli/../../scripts/fetch-pythia
golden=$cli/../golden
sha=0123456789abcdef0123456789abcdef01234567
api=hub/api/models/EleutherAI/pythia-70m
files=hub/EleutherAI/pythia-70m/resolve/$sha
export DM_HUB=file://$PWD/hub

git_hash() { { printf 'blob %s\0' "$(stat -c %s "$1")"; cat "$1"; } | sha1sum | cut -d' ' -f1; }

# mirror NAME...: lists these files of the mirror as the hub does; weights are LFS files.
mirror() {
    local name sep=
    mkdir -p $api/revision $api/tree
    echo "{\"id\":\"EleutherAI/pythia-70m\",\"sha\":\"$sha\",\"siblings\":[{\"rfilename\":\"a \\\"b\"}],\"x\":{}}" > $api/revision/main
    {
        printf '[{"type":"directory","oid":"%s","size":0,"path":"logs"}' "$sha"
        for name in "$@"; do
            printf ',\n {"type":"file","oid":"%s","size":%s,' "$(git_hash "$files/$name")" "$(stat -c %s "$files/$name")"
            case $name in *.safetensors | *.bin)
                printf '"lfs":{"oid":"%s","size":%s,"pointerSize":134},' "$(sha256sum < "$files/$name" | cut -d' ' -f1)" \
                    "$(stat -c %s "$files/$name")" ;;
            esac
            printf '"path":"%s"}' "$name"
        done
        echo ']'
    } > $api/tree/$sha
}

mkdir -p $files
cp "$golden/hf_dir/config.json" "$golden/hf_dir/model.safetensors" $files/
cp "$golden"/hf_torch/*model* $files/
cp "$golden/tok_small.json" $files/tokenizer.json
all="config.json tokenizer.json pytorch_model.bin pytorch_model.bin.index.json"
all="$all pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin model.safetensors.index.json"
all="$all $(cd $files && echo model-*)"

# One file of safetensors goes before all others; what is there stays.
mirror $all model.safetensors
"$script" 70m > out.txt 2> err.txt
says out.txt "pythia-70m: EleutherAI/pythia-70m at $sha (main), 3 files"
cmp pythia-70m/model.safetensors $files/model.safetensors
[ "$(ls pythia-70m | wc -l)" = 4 ] || fail "files: $(ls pythia-70m)"
(cd pythia-70m && sha256sum --quiet -c SHA256SUMS)
"$script" 70m > out.txt 2> err.txt
says err.txt "model.safetensors: there already"

# An interrupted download goes on; a damaged or too long part begins anew.
for keep in 1 20000; do
    rm pythia-70m/model.safetensors
    head -c $keep $files/model.safetensors > pythia-70m/model.safetensors.part
    "$script" 70m > out.txt 2> err.txt
    cmp pythia-70m/model.safetensors $files/model.safetensors
    ! grep -q damaged err.txt || fail "a good part was not used: $(cat err.txt)"
done
for bytes in 10 1000000; do
    rm pythia-70m/model.safetensors
    head -c $bytes /dev/zero > pythia-70m/model.safetensors.part
    "$script" 70m > out.txt 2> err.txt
    cmp pythia-70m/model.safetensors $files/model.safetensors
done
[ ! -e pythia-70m/model.safetensors.part ] || fail "a part is left"

# A connection that is cut off twice goes on; a mirror without ranges sends all again; five cuts are an error.
mkdir bin
cat > bin/curl << END
#!/bin/bash
file=
for ((i = 1; i < \$#; i++)); do [ "\${!i}" != -o ] || { i=\$((i + 1)); file=\${!i}; }; done
case \$file in *.safetensors.part) ;; *) exec $(command -v curl) "\$@" ;; esac
[ ! -e "$PWD/noranges" ] || [ ! -e "\$file" ] || { echo "curl: (33) no ranges" >&2; exit 33; }
$(command -v curl) "\$@" || exit
left=\$(cat "$PWD/cuts")
[ \$left -gt 0 ] || exit 0
echo \$((left - 1)) > "$PWD/cuts"
truncate -s -\$((100 * left)) "\$file"
echo "curl: (18) cut off" >&2
exit 18
END
chmod +x bin/curl
for cuts in 2 5; do
    rm -f pythia-70m/model.safetensors*
    echo $cuts > cuts
    code=0
    PATH=$PWD/bin:$PATH "$script" 70m > out.txt 2> err.txt || code=$?
    [ $code = $((cuts / 5)) ] || fail "$cuts cuts: exit code $code: $(cat err.txt)"
done
says err.txt "curl says: (18) cut off"
[ -e pythia-70m/model.safetensors.part ] || fail "what came before the cut is gone"
touch noranges
PATH=$PWD/bin:$PATH "$script" 70m > out.txt 2> err.txt
cmp pythia-70m/model.safetensors $files/model.safetensors

# The other forms, and that the import reads what came.
mirror $all
"$script" 70m -o shards --revision main > out.txt 2> err.txt
says out.txt "6 files"
mirror config.json tokenizer.json pytorch_model.bin
"$script" 70m -o bin > out.txt 2> err.txt
mirror config.json tokenizer.json pytorch_model.bin.index.json pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin
"$script" 70m -o bins > out.txt 2> err.txt
for form in shards bin bins; do
    "$dynamo" import $form --no-tokenizer -o $form.h5 > out.txt
    "$dynamo" export $form.h5 -o $form-out
    cmp $form-out/model.safetensors $files/model.safetensors || fail "$form: other weights"
done

# What goes wrong: one sentence, and nothing under a final name.
mirror config.json tokenizer.json pytorch_model.bin.index.json pytorch_model-00001-of-00002.bin
refuses_too() { # SENTENCE ARGUMENT...: the sentence is the last line; others tell the progress
    local text=$1 code=0
    shift
    "$script" "$@" > out.txt 2> err.txt || code=$?
    [ $code = 1 ] || fail "exit code $code: $*"
    tail -n 1 err.txt | grep -qF -- "$text" || fail "\"$(cat err.txt)\" does not end in \"$text\""
    [ ! -s out.txt ] || fail "output in spite of the failure"
}
refuses_too "has no pytorch_model-00002-of-00002.bin" 70m -o m
[ ! -e m/SHA256SUMS ] || fail "sums of a half"
mirror config.json tokenizer.json
refuses_too "has no weights" 70m -o m
mirror config.json pytorch_model.bin
refuses_too "has no tokenizer.json" 70m -o n
mirror config.json tokenizer.json pytorch_model.bin
sed -i 's/"lfs":{"oid":"./"lfs":{"oid":"x/' $api/tree/$sha
refuses_too "no size and hash for pytorch_model.bin" 70m -o n
mirror config.json tokenizer.json pytorch_model.bin
sed -i -E 's/("lfs":\{"oid":")[0-9a-f]{4}/\10000/' $api/tree/$sha
refuses_too "pytorch_model.bin: what came is not what the hub lists, twice" 70m -o n
says err.txt "damaged, once more"
[ "$(ls n)" = "config.json
tokenizer.json" ] || fail "left: $(ls n)"
mirror config.json tokenizer.json pytorch_model.bin
echo '{}' > n/config.json
refuses_too "n/config.json: is there, but is not the file" 70m -o n
rm n/config.json $files/pytorch_model.bin
refuses_too "curl says: " 70m -o n
no_file n/pytorch_model.bin
refuses_too "curl says: " 70m --revision step3
refuses_too "curl says: " 160m
echo '{"sha":"main"}' > $api/revision/main
refuses_too "names no commit" 70m
echo '{"sha":' > $api/revision/main
refuses_too "not valid JSON" 70m
cp "$golden"/hf_torch/pytorch_model.bin $files/
sed -i 's/pytorch_model-00002-of-00002.bin/..\/x/' $files/pytorch_model.bin.index.json
mirror config.json tokenizer.json pytorch_model.bin.index.json pytorch_model-00001-of-00002.bin
refuses_too 'names the file "../x"' 70m -o hostile

refuses 2 "SIZE is missing" "$script"
refuses 2 '"7b" is none of' "$script" 7b
refuses 2 "one SIZE at a time" "$script" 70m 160m
refuses 2 "is no revision" "$script" 70m --revision ../x
refuses 2 "-o needs a value" "$script" 70m -o
refuses 2 "is not an option" "$script" 70m --fast
"$script" --help > out.txt
says out.txt "cannot reach the hub"
DM_HUB=http://127.0.0.1:1 refuses_too "curl says: " 70m
echo "fetch: passed"
