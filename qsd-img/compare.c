/* SPDX-License-Identifier: MIT */
/*
 * qsd-img compare: do two images have the same contents?
 *
 * What both have as zeroes without data is not read.  A longer image is the
 * same as a shorter one if the rest of it is zeroes, unless -s wants images of
 * the same length with data in the same places.
 */
#include "qsd-img/qsd-img.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COMPARE_CHUNK (2 * 1024 * 1024)

/* Exit statuses */
enum {
    COMPARE_SAME = 0,
    COMPARE_DIFFERENT = 1,
    COMPARE_FAILED = 2,
};

typedef struct Compare {
    const ImgArgs *args;
    ImgProgress progress;
    BlockBackend *blk[2];
    const char *names[2];
    uint8_t *buf[2];                    /* COMPARE_CHUNK each */
    int64_t length[2];
    int64_t total;                      /* of the longer one */
} Compare;

static int coroutine_fn co_status(Compare *c, int i, int64_t offset,
                                  int64_t bytes, int64_t *pnum)
{
    int ret = blk_co_block_status(c->blk[i], offset, bytes, pnum);

    if (ret >= 0 && *pnum == 0) {
        ret = -EIO;                 /* it has become shorter */
    }
    if (ret < 0) {
        error_report("Sector allocation test failed for %s", c->names[i]);
    }
    return ret;
}

static int coroutine_fn co_read(Compare *c, int i, int64_t offset,
                                int64_t bytes)
{
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, c->buf[i], bytes);
    ret = blk_co_preadv(c->blk[i], offset, &qiov, 0);
    if (ret < 0) {
        error_report("Error while reading offset %" PRIi64 " of %s: %s",
                     offset, c->names[i], strerror(-ret));
    }
    return ret;
}

static int mismatch(Compare *c, int64_t offset)
{
    img_say(c->args, "Content mismatch at offset %" PRIi64 "!\n", offset);
    return COMPARE_DIFFERENT;
}

/* Offset of the first byte that differs from @b, or from zero if it is NULL. */
static int64_t first_difference(const uint8_t *a, const uint8_t *b,
                                int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++) {
        if (a[i] != (b ? b[i] : 0)) {
            return i;
        }
    }
    return bytes;
}

/* [@offset, @offset + @bytes) of image @i must be zeroes. */
static int coroutine_fn co_check_zero(Compare *c, int i, int64_t offset,
                                      int64_t bytes)
{
    while (bytes > 0) {
        int64_t n = MIN(bytes, COMPARE_CHUNK);

        if (co_read(c, i, offset, n) < 0) {
            return COMPARE_FAILED;
        }
        if (!buffer_is_zero(c->buf[i], n)) {
            return mismatch(c, offset + first_difference(c->buf[i], NULL, n));
        }
        offset += n;
        bytes -= n;
    }
    return COMPARE_SAME;
}

static int coroutine_fn co_check_same(Compare *c, int64_t offset,
                                      int64_t bytes)
{
    if (co_read(c, 0, offset, bytes) < 0 || co_read(c, 1, offset, bytes) < 0) {
        return COMPARE_FAILED;
    }
    if (!memcmp(c->buf[0], c->buf[1], bytes)) {
        return COMPARE_SAME;
    }
    return mismatch(c, offset + first_difference(c->buf[0], c->buf[1], bytes));
}

/* A step from @offset on, *@bytes long, inside of both. */
static int coroutine_fn co_compare_step(Compare *c, int64_t offset,
                                        int64_t *bytes)
{
    int64_t limit = MIN(c->length[0], c->length[1]) - offset;
    int64_t n[2];
    int status[2];
    bool zero[2];

    for (int i = 0; i < 2; i++) {
        status[i] = co_status(c, i, offset, limit, &n[i]);
        if (status[i] < 0) {
            return COMPARE_FAILED;
        }
        zero[i] = status[i] & BDRV_BLOCK_ZERO;
    }
    *bytes = MIN(n[0], n[1]);
    if (c->args->given['s']
        && (status[0] ^ status[1]) & (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO)) {
        img_say(c->args, "Strict mode: Offset %" PRIi64 " block status "
                "mismatch!\n", offset);
        return COMPARE_DIFFERENT;
    }
    if (zero[0] && zero[1]) {
        return COMPARE_SAME;
    }
    *bytes = MIN(*bytes, COMPARE_CHUNK);
    if (zero[0] || zero[1]) {
        return co_check_zero(c, zero[0] ? 1 : 0, offset, *bytes);
    }
    return co_check_same(c, offset, *bytes);
}

/* What only the longer image has. */
static int coroutine_fn co_compare_rest(Compare *c, int64_t offset)
{
    int i = c->length[0] > c->length[1] ? 0 : 1;

    img_say(c->args, "Warning: Image size mismatch!\n");
    while (offset < c->total) {
        int64_t n;
        int ret = co_status(c, i, offset, c->total - offset, &n);

        if (ret < 0) {
            return COMPARE_FAILED;
        }
        if (!(ret & BDRV_BLOCK_ZERO)) {
            n = MIN(n, COMPARE_CHUNK);
            ret = co_check_zero(c, i, offset, n);
            if (ret != COMPARE_SAME) {
                return ret;
            }
        }
        offset += n;
        img_progress(&c->progress, (double)offset / c->total);
    }
    return COMPARE_SAME;
}

static int coroutine_fn co_compare(Compare *c)
{
    int64_t end = MIN(c->length[0], c->length[1]);
    int64_t offset = 0, n;
    int ret;

    c->total = MAX(c->length[0], c->length[1]);
    if (c->args->given['s'] && c->length[0] != c->length[1]) {
        img_say(c->args, "Strict mode: Image size mismatch!\n");
        return COMPARE_DIFFERENT;
    }
    for (; offset < end; offset += n) {
        ret = co_compare_step(c, offset, &n);
        if (ret != COMPARE_SAME) {
            return ret;
        }
        img_progress(&c->progress, (double)(offset + n) / c->total);
    }
    if (end < c->total) {
        ret = co_compare_rest(c, end);
        if (ret != COMPARE_SAME) {
            return ret;
        }
    }
    img_progress_end(&c->progress);
    img_say(c->args, "Images are identical.\n");
    return COMPARE_SAME;
}

static bool coroutine_fn co_open_both(Compare *c)
{
    const ImgArgs *args = c->args;

    for (int i = 0; i < 2; i++) {
        const ImgOpen open = {
            .name = args->names[i],
            .image_opts = args->given[IMG_IMAGE_OPTS],
            .format = args->value[i ? 'F' : 'f'],
            .cache = args->value['T'],
            .force_share = args->given['U'],
        };

        c->names[i] = args->names[i];
        c->blk[i] = img_co_open(&open);
        if (!c->blk[i]) {
            return false;
        }
        c->length[i] = blk_getlength(c->blk[i]);
        c->buf[i] = g_aligned_alloc(1, COMPARE_CHUNK, sysconf(_SC_PAGESIZE));
    }
    return true;
}

int coroutine_fn img_co_compare(const ImgArgs *args)
{
    Compare c = { .args = args };
    int ret = COMPARE_FAILED;

    if (args->n_names != 2) {
        return img_usage_error("Expecting two image file names");
    }
    if (co_open_both(&c)) {
        img_progress_begin(&c.progress, args);
        blk_co_begin_request(c.blk[0]);
        blk_co_begin_request(c.blk[1]);
        ret = co_compare(&c);
        blk_end_request(c.blk[1]);
        blk_end_request(c.blk[0]);
    }
    for (int i = 0; i < 2; i++) {
        blk_co_free(c.blk[i]);
        g_aligned_free(c.buf[i]);
    }
    return ret;
}
