/* SPDX-License-Identifier: MIT */
/* fuzz.h - what the libFuzzer programs share. */
#ifndef DM_TESTS_FUZZ_H
#define DM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "src/io/raw_tensor.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A file with these bytes, in memory if there is /dev/shm; the same one at every call. */
const char *fuzz_file(const uint8_t *data, size_t n);

/* Reads n bytes, so that the sanitizers see whether they are there. */
void fuzz_touch(const void *data, size_t n);

/* Reads every tensor as the import would. */
void fuzz_tensors(const struct dm_raw_tensor *t, size_t n);

#endif
