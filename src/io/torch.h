/* SPDX-License-Identifier: MIT */
/* torch.h - PyTorch checkpoints (pytorch_model.bin): a zip with a pickle and the storages' bytes.
 *
 * Reading maps the file and checks everything first, as safetensors.h does: the zip's directory,
 * every opcode and name of the pickle against a short list (nothing is ever executed), every
 * storage against its entry's size, every tensor against its storage. Offsets and strides are
 * honoured: a tensor may be `strided`. */
#ifndef DM_IO_TORCH_H
#define DM_IO_TORCH_H

#include "src/base/file.h"
#include "src/io/raw_tensor.h"

/* An open file; zero it first. Tensors are sorted by name. */
struct dm_torch {
    struct dm_map map;
    struct dm_raw_tensor *tensor;
    size_t n;
    char *names; /* of the tensors, one after the other */
};

/* DM_EFORMAT, DM_EUNSUPPORTED (what is not on the lists; the format before PyTorch 1.6), DM_EIO,
 * DM_ENOMEM. Nothing to close after a failure. */
enum dm_status dm_torch_open(struct dm_torch *t, const char *path, struct dm_err *e);
void dm_torch_close(struct dm_torch *t);

#endif
