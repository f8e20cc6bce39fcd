/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"
#include "train/cmd_common.h"
#include "train/heads.h"

int cmd_train(int argc, char **argv)
{
    static const char doc[] =
        "Trains token heads 2..K on a frozen base (DynaMo, eq. 1): AdamW, linear warm-up, cosine. "
        "The base's tensors go into the output byte for byte.\v"
        "Example:\n"
        "  dynamo train base.h5 --data text.h5 --heads 3 --epochs 1 -o heads.h5\n\n"
        "The learning rate's default is the paper's rate for the heads of the 70m model (100 times "
        "the base's); the paper uses 6e-4 for 160m, 3e-4 for 410m, 2e-4 for 1b and 1.4b.\n\n"
        "Ctrl-C or SIGTERM finishes the step, saves the checkpoint and prints the command that "
        "goes on; the exit status is then 1. The result is the same, byte for byte, with any "
        "number of threads and however often the run was stopped.";
    return dm_train_command(argc, argv, DM_TRAIN_HEADS, "BASE [SHARD...]", doc, dm_train_heads);
}
