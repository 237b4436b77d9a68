/* SPDX-License-Identifier: MIT */
/*
 * For fuzz targets: an event loop, coroutines run to their end, and reading
 * the input piece by piece.
 *
 * A target is one program.  It must do the same for the same input: whatever
 * one input builds is gone before the next.  Assertions stay on.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tests/unit/co-test.h"

/* What libFuzzer calls. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The loop of this thread; made once, and kept until the process ends. */
static inline AioContext *fuzz_context(void)
{
    static AioContext *ctx;

    if (!ctx) {
        ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
        g_assert_nonnull(ctx);
    }
    return ctx;
}

/* ---- the input ---- */

typedef struct FuzzInput {
    const uint8_t *data;
    size_t size;
} FuzzInput;

/* The next @size bytes, or as many as there are. */
static inline const uint8_t *fuzz_take(FuzzInput *in, size_t *size)
{
    const uint8_t *data = in->data;

    *size = MIN(*size, in->size);
    in->data += *size;
    in->size -= *size;
    return data;
}

/* Little-endian numbers; 0 at the end of the input. */
static inline uint8_t fuzz_take_u8(FuzzInput *in)
{
    size_t size = 1;
    const uint8_t *data = fuzz_take(in, &size);

    return size ? *data : 0;
}

static inline uint16_t fuzz_take_u16(FuzzInput *in)
{
    uint8_t low = fuzz_take_u8(in);

    return low | fuzz_take_u8(in) << 8;
}

/* A copy that ends where its memory ends; the caller frees. */
static inline void *fuzz_take_copy(FuzzInput *in, size_t *size)
{
    const uint8_t *data = fuzz_take(in, size);

    return g_memdup2(data, *size);
}

/* The rest as a string; the caller frees. */
static inline char *fuzz_take_string(FuzzInput *in)
{
    size_t size = in->size;
    const uint8_t *data = fuzz_take(in, &size);

    return g_strndup((const char *)data, size);
}

#endif /* TESTS_FUZZ_FUZZ_H */
