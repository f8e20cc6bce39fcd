/* SPDX-License-Identifier: MIT */
/* tensorboard.h - scalars as an event file that TensorBoard reads.
 *
 * A file is a run of TFRecords, each
 *
 *   uint64 length, uint32 mask(crc32c(length)), the bytes, uint32 mask(crc32c(bytes))
 *   mask(c) = (c >> 15 | c << 17) + 0xa282ead8
 *
 * little-endian; the bytes are an Event in protocol buffers' wire format:
 *
 *   Event   1: double wall_time, 2: int64 step, 3: string file_version, 5: Summary
 *   Summary 1: repeated Value;  Value 1: string tag, 2: float simple_value */
#ifndef DM_TRAIN_TENSORBOARD_H
#define DM_TRAIN_TENSORBOARD_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/status.h"

struct dm_tb;

/* Begins <dir>/events.out.tfevents.dynamo, making dir. With step > 0 the events up to it are kept
 * and those after it removed. wall: seconds since 1970, for the first event. DM_EIO, DM_ENOMEM.
 * Release with dm_tb_close(). */
enum dm_status dm_tb_open(struct dm_tb **out, const char *dir, size_t step, double wall,
                          struct dm_err *e);
void dm_tb_close(struct dm_tb *t); /* NULL is fine */

/* Adds a number to the event at hand; one that is not finite is left out. */
void dm_tb_scalar(struct dm_tb *t, const char *tag, double x);
/* Writes the event, flushed. */
enum dm_status dm_tb_event(struct dm_tb *t, size_t step, double wall, struct dm_err *e);

/* CRC-32C (Castagnoli). */
uint32_t dm_crc32c(const void *data, size_t n);

#endif
