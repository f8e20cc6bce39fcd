#!/bin/bash
# SPDX-License-Identifier: MIT
# bench: what a user sees. No figure is judged. Usage: bench.sh DYNAMO MAKE_TINY
. "$(dirname "$0")/lib.sh"
command=bench

refused 2 '--what: "speed" is none of' --what limits,speed
refused 2 '--format: "fp8" is none of' --format fp8
refused 2 "--runs" --runs 0
refused 2 "--threads" --threads 1,0
refused 2 "exclude each other" m.h5 --config 70m
refused 2 'one model, but "a.h5" and "b.h5"' a.h5 b.h5
refused 1 '"71m" is not a published size' --config 71m
refused 1 "./none.json" --config ./none.json
refused 1 "none.h5" none.h5 --quick
refused 1 "none.json" --peers none.json

cat > tiny.json <<'END'
{"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"], "hidden_size": 32,
 "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128,
 "max_position_embeddings": 64, "vocab_size": 500, "rotary_pct": 0.25, "rotary_emb_base": 10000,
 "layer_norm_eps": 1e-5, "use_parallel_residual": true, "hidden_act": "gelu",
 "tie_word_embeddings": false, "bos_token_id": 0, "eos_token_id": 0}
END
"$dynamo" bench --config tiny.json --quick --runs 2 --threads 2,1 > table.txt 2> err.txt
[ ! -s err.txt ] || fail "nothing went wrong: $(cat err.txt)"
for title in "Limits" "Matrix products" "Few rows" "One token" "Chunks" "All heads" "Joint" "Training"; do
    says table.txt "$title"
done
for word in "logits 64x500x32 weight gradient" "4 rows x 500x32" "3 heads" "order 3, top_k 50" "int4"; do
    says table.txt "$word"
done

"$dynamo" bench --config tiny.json --quick --runs 2 --format bf16 --what gemm,decode,heads --json --plot p.svg > r.json
[ "$(wc -l < r.json)" = 1 ] || fail "not one line: $(cat r.json)"
for word in '"isa":' '"sections":{"gemm":[{"name":' '"share":[' '"heads":[{' '"quick":true' \
    '"goals":[{"name":"matrix products' '"goal":0.9' '"reached":' '"met":null'; do
    says r.json "$word"
done
spares tiny.json "$dynamo" bench --config tiny.json --quick --plot tiny.json
! grep -qF '"joint"' r.json || fail "a section that nobody asked for"
says p.svg "</svg>"

# A file: loading, and DynaMo against the base.
for i in $(seq 60); do
    printf 'In the beginning God created the heaven and the earth %d times.\n' "$i"
done > a.txt
"$dynamo" tokenizer-train a.txt --vocab 300 -o t.json > /dev/null
"$dynamo" tokenize -t t.json a.txt -o a.h5 > /dev/null
"$dynamo" cooc a.h5 -o cooc.h5 > /dev/null
"$make_tiny" t.json m.h5 3
"$dynamo" bench m.h5 --cooc cooc.h5 --data a.h5 --quick --format f32 --threads 1 --what load,speedup > table.txt
says table.txt "from a warm page cache"
says table.txt "tokens_per_forward"
"$dynamo" bench m.h5 --quick --format bf16 --threads 1 --what speedup --json > r.json
says r.json '"speedup":[{"name":"eps_b'
says r.json '"ratio":['
"$dynamo" tokenizer-train a.txt --vocab 290 -o u.json > /dev/null
"$dynamo" tokenize -t u.json a.txt -o other.h5 > /dev/null
"$dynamo" cooc other.h5 -o other-cooc.h5 > /dev/null
for other in "--data other.h5" "--cooc other-cooc.h5"; do
    refused 1 "${other#* } was made with another tokenizer" m.h5 $other --quick --what speedup
done
for out in m.h5 cooc.h5 a.h5 r.json; do
    spares $out "$dynamo" bench m.h5 --cooc cooc.h5 --data a.h5 --peers r.json --quick --plot $out
done
