/* SPDX-License-Identifier: MIT */
/* cmd.h - the subcommands: one function each, argv[0] is "dynamo <name>". They return the exit
 * code: 0 done, 1 failed with one sentence on stderr, 2 usage. */
#ifndef DM_CMD_H
#define DM_CMD_H

/* name, function, one line for the overview; in the order in which a user meets them */
#define DM_CMD_LIST(X)                                                                \
    X("import", cmd_import, "Hugging Face GPTNeoX directory -> model file")           \
    X("export", cmd_export, "model file -> Hugging Face directory")                   \
    X("info", cmd_info, "what a file of ours holds and where it came from")           \
    X("verify", cmd_verify, "is a model whole, and does it compute?")                 \
    X("tokenizer-train", cmd_tokenizer_train, "learn a byte-level BPE from text")     \
    X("tokenize", cmd_tokenize, "text, JSONL, gzip or zstd -> token shard")           \
    X("detokenize", cmd_detokenize, "token ids -> text")                              \
    X("pretrain", cmd_pretrain, "train a GPT-NeoX model from scratch")                \
    X("train", cmd_train, "train token heads on a frozen base")                       \
    X("cooc", cmd_cooc, "count, merge, prune and show co-occurrences")                \
    X("score", cmd_score, "log p and rank of every token under every head")           \
    X("eval", cmd_eval, "perplexity, quality against speed, zero-shot tasks")         \
    X("calibrate", cmd_calibrate, "certify how to decode on held-out text")           \
    X("quantize", cmd_quantize, "model file with weights of 16, 8 or 4 bits")         \
    X("generate", cmd_generate, "continue a prompt, several tokens per forward pass") \
    X("report", cmd_report, "one page of HTML about runs")                            \
    X("bench", cmd_bench, "measure this machine and what we reach of it")

#define X(name, fn, text) int fn(int argc, char **argv);
DM_CMD_LIST(X)
#undef X

#endif
