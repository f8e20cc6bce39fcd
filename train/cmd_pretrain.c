/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"
#include "train/cmd_common.h"
#include "train/pretrain.h"

int cmd_pretrain(int argc, char **argv)
{
    static const char doc[] =
        "Trains all parameters of a GPT-NeoX model from scratch on token shards: AdamW, linear "
        "warm-up, cosine.\v"
        "Example:\n"
        "  dynamo pretrain --config 14m --vocab-rows auto --data text.h5 -o base.h5\n\n"
        "Ctrl-C or SIGTERM finishes the step, saves the checkpoint and prints the command that "
        "goes on; the exit status is then 1. The result is the same, byte for byte, with any "
        "number of threads and however often the run was stopped.";
    return dm_train_command(argc, argv, DM_TRAIN_BASE, "[SHARD...]", doc, dm_pretrain);
}
