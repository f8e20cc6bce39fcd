/* SPDX-License-Identifier: MIT */
#include "src/cmd.h"
#include "train/cmd_common.h"
#include "train/heads.h"

int cmd_train(int argc, char **argv)
{
    static const char doc[] =
        "Trains token heads 2..K (DynaMo, eq. 1): AdamW, linear warm-up, cosine. By default the "
        "base is frozen, and its tensors go into the output byte for byte; --recipe joint trains "
        "everything.\v"
        "Examples:\n"
        "  dynamo train base.h5 --data text.h5 --heads 3 --epochs 1 -o heads.h5\n"
        "  dynamo train base.h5 --data text.h5 --heads 3 --recipe joint -o suite.h5\n\n"
        "Learning rates by the base's shape, as in the paper: 1e-3 for 70m, 6e-4 160m, 3e-4 410m, "
        "2e-4 1b and 1.4b, 1.6e-4 2.8b, 1.2e-4 6.9b for the heads, and a hundredth of that for the "
        "base (joint). Other shapes get the rates of 70m.\n\n"
        "Ctrl-C or SIGTERM finishes the step, saves the checkpoint and prints the command that "
        "goes on; the exit status is then 1. The result is the same, byte for byte, with any "
        "number of threads and however often the run was stopped.";
    return dm_train_command(argc, argv, DM_TRAIN_HEADS, "BASE [SHARD...]", doc, dm_train_heads);
}
