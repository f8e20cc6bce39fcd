/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"
#include "train/cmd_common.h"
#include "train/pretrain.h"

int cmd_pretrain(int argc, char **argv)
{
    static const char doc[] =
        "Trains all parameters of a GPT-NeoX model on token shards, from scratch or from another "
        "model: AdamW, linear warm-up, cosine.\v"
        "Examples:\n"
        "  dynamo pretrain --config 14m --vocab-rows auto --data text.h5 -o base.h5\n"
        "  dynamo pretrain --from base.h5 --data alpaca.h5 --lr 2e-5 -o tuned.h5\n\n"
        "Ctrl-C or SIGTERM finishes the step, saves the checkpoint and prints the command that "
        "goes on; the exit status is then 1. The result is the same, byte for byte, with any "
        "number of threads and however often the run was stopped.";
    return dm_train_command(argc, argv, DM_TRAIN_BASE, "[SHARD...]", doc, dm_pretrain);
}
