/* SPDX-License-Identifier: MIT */
/*
 * Making requests fit their driver: cutting, padding and bouncing.
 *
 * Any thread.  A request that fits as it is goes straight to the driver, with
 * no allocation and, if it writes, one counter up and down.  One that does not
 * is copied through an aligned buffer in pieces of at most BOUNCE_MAX; partial
 * blocks of a write are read first, and then the request excludes all others
 * that overlap it (block/track.c).
 */
#include "block/block-int.h"

#include <limits.h>
#include <string.h>

#define BOUNCE_MAX (1 << 20)

static void *bounce_new(BlockDriverState *bs, int64_t bytes)
{
    size_t align = MAX(bs->bl.min_mem_alignment, sizeof(void *));

    return g_aligned_alloc(1, bytes, align);
}

/* Whole blocks, one at least, so that pieces stay aligned. */
static int64_t piece_max(const BlockDriverState *bs, int64_t limit)
{
    int64_t align = bs->bl.request_alignment;
    int64_t max = bs->bl.max_transfer ? bs->bl.max_transfer
                                      : BDRV_REQUEST_MAX_BYTES;

    return MAX(bdrv_align_down(MIN(max, limit), align), align);
}

static bool qiov_fits(const BlockDriverState *bs, const QEMUIOVector *qiov)
{
    int max_iov = bs->bl.max_iov ? MIN(bs->bl.max_iov, IOV_MAX) : IOV_MAX;
    size_t align = bs->bl.min_mem_alignment;

    return qiov->niov <= max_iov
           && (align == 1 || qemu_iovec_is_aligned(qiov, align));
}

static inline bool range_fits(const BlockDriverState *bs, int64_t offset,
                              int64_t bytes)
{
    return !((offset | bytes) & (bs->bl.request_alignment - 1));
}

static int coroutine_fn co_drv_rw(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes, QEMUIOVector *qiov,
                                  bool is_write, BdrvRequestFlags flags)
{
    return is_write
           ? bs->drv->bdrv_co_pwritev(bs, offset, bytes, qiov, flags)
           : bs->drv->bdrv_co_preadv(bs, offset, bytes, qiov, flags);
}

/* An aligned request whose memory fits, longer than the driver takes. */
static int coroutine_fn co_rw_pieces(BlockDriverState *bs, int64_t offset,
                                     QEMUIOVector *qiov, bool is_write,
                                     BdrvRequestFlags flags)
{
    int64_t max = piece_max(bs, BDRV_REQUEST_MAX_BYTES);
    int64_t done = 0, bytes = qiov->size;
    int ret = 0;

    while (ret >= 0 && done < bytes) {
        int64_t n = MIN(bytes - done, max);
        QEMUIOVector piece;

        qemu_iovec_init_slice(&piece, qiov, done, n);
        if (is_write) {
            bdrv_debug_event(bs, BLKDBG_PWRITEV);
        }
        ret = co_drv_rw(bs, offset + done, n, &piece, is_write, flags);
        qemu_iovec_destroy(&piece);
        done += n;
    }
    return MIN(ret, 0);
}

/* ---- reads ---- */

/* Read the blocks around the request, pass on the part that is wanted. */
static int coroutine_fn co_read_bounced(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        BdrvRequestFlags flags)
{
    int64_t align = bs->bl.request_alignment;
    int64_t pos = bdrv_align_down(offset, align);
    int64_t end = bdrv_align_up(offset + bytes, align);
    int64_t max = piece_max(bs, BOUNCE_MAX);
    uint8_t *buf = bounce_new(bs, MIN(end - pos, max));
    int ret = 0;

    while (ret >= 0 && pos < end) {
        int64_t n = MIN(end - pos, max);
        int64_t from = MAX(pos, offset);
        int64_t to = MIN(pos + n, offset + bytes);
        QEMUIOVector piece;

        qemu_iovec_init_buf(&piece, buf, n);
        ret = bs->drv->bdrv_co_preadv(bs, pos, n, &piece, flags);
        if (ret >= 0) {
            qemu_iovec_from_buf(qiov, from - offset, buf + (from - pos),
                                to - from);
        }
        pos += n;
    }
    g_aligned_free(buf);
    return MIN(ret, 0);
}

int coroutine_fn bdrv_co_do_preadv(BlockDriverState *bs, int64_t offset,
                                   int64_t bytes, QEMUIOVector *qiov,
                                   BdrvRequestFlags flags)
{
    if (!range_fits(bs, offset, bytes) || !qiov_fits(bs, qiov)) {
        if (bs->drv->passthrough_reads) {
            return bs->drv->bdrv_co_preadv(bs, offset, bytes, qiov, flags);
        }
        return co_read_bounced(bs, offset, bytes, qiov, flags);
    }
    if (bytes > piece_max(bs, BDRV_REQUEST_MAX_BYTES)) {
        return co_rw_pieces(bs, offset, qiov, false, flags);
    }
    return bs->drv->bdrv_co_preadv(bs, offset, bytes, qiov, flags);
}

/* ---- writes ---- */

bool bdrv_check_length_aligned(BlockDriverState *bs, uint64_t perm,
                               Error **errp)
{
    if ((perm & (BLK_PERM_WRITE | BLK_PERM_RESIZE)) != BLK_PERM_WRITE
        || bs->bl.request_alignment <= bs->file->bs->bl.request_alignment
        || !(bdrv_getlength(bs) & (bs->bl.request_alignment - 1))) {
        return true;
    }
    error_setg(errp, "Cannot get 'write' permission without 'resize': Image "
               "size is not a multiple of request alignment");
    return false;
}

/* Read one block; what lies past the end of the image is zero. */
static int coroutine_fn co_read_block(BlockDriverState *bs, int64_t offset,
                                      uint8_t *buf)
{
    int64_t align = bs->bl.request_alignment;
    int64_t len = bdrv_getlength(bs);
    QEMUIOVector qiov;
    int ret;

    if (offset >= len) {
        memset(buf, 0, align);
        return 0;
    }
    qemu_iovec_init_buf(&qiov, buf, align);
    ret = bs->drv->bdrv_co_preadv(bs, offset, align, &qiov, 0);
    if (ret >= 0 && offset + align > len) {
        memset(buf + (len - offset), 0, offset + align - len);
    }
    return ret;
}

/* Read what a write leaves as it is in its first or last block, or in both. */
static int coroutine_fn co_read_rest(BlockDriverState *bs, int64_t offset,
                                     uint8_t *buf, bool head, bool tail)
{
    int ret;

    if (head) {
        bdrv_debug_event(bs, BLKDBG_PWRITEV_RMW_HEAD);
    }
    if (tail) {
        bdrv_debug_event(bs, BLKDBG_PWRITEV_RMW_TAIL);
    }
    ret = co_read_block(bs, offset, buf);
    if (ret < 0) {
        return ret;
    }
    if (head) {
        bdrv_debug_event(bs, BLKDBG_PWRITEV_RMW_AFTER_HEAD);
    }
    if (tail) {
        bdrv_debug_event(bs, BLKDBG_PWRITEV_RMW_AFTER_TAIL);
    }
    return 0;
}

/*
 * Write [@offset, @offset + @bytes) through a buffer, keeping what else is in
 * the first and last block.
 */
static int coroutine_fn co_write_bounced(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes,
                                         const QEMUIOVector *qiov,
                                         BdrvRequestFlags flags)
{
    int64_t align = bs->bl.request_alignment;
    int64_t pos = bdrv_align_down(offset, align);
    int64_t end = bdrv_align_up(offset + bytes, align);
    int64_t max = piece_max(bs, BOUNCE_MAX);
    uint8_t *buf = bounce_new(bs, MIN(end - pos, max));
    int ret = 0;

    while (ret >= 0 && pos < end) {
        int64_t n = MIN(end - pos, max);
        int64_t from = MAX(pos, offset);
        int64_t to = MIN(pos + n, offset + bytes);
        bool tail = to < pos + n;
        QEMUIOVector piece;

        if (from > pos || (tail && n == align)) {
            ret = co_read_rest(bs, pos, buf, from > pos, tail && n == align);
        }
        if (ret >= 0 && tail && n > align) {
            ret = co_read_rest(bs, pos + n - align, buf + n - align, false,
                               true);
        }
        if (ret >= 0) {
            bdrv_debug_event(bs, BLKDBG_PWRITEV);
            qemu_iovec_to_buf(qiov, from - offset, buf + (from - pos),
                              to - from);
            qemu_iovec_init_buf(&piece, buf, n);
            ret = bs->drv->bdrv_co_pwritev(bs, pos, n, &piece, flags);
        }
        pos += n;
    }
    g_aligned_free(buf);
    return MIN(ret, 0);
}

/* True if a padded write up to @end may make the file longer than it is. */
static bool pads_past_end(const BlockDriverState *bs, int64_t end)
{
    return end > bdrv_align_down(bdrv_getlength(bs), bs->bl.request_alignment);
}

/* Cut off what padding has added to the file. */
static int coroutine_fn co_trim(BlockDriverState *bs, int64_t padded_end)
{
    int64_t len = bdrv_getlength(bs);

    if (padded_end <= len || !bs->drv->can_grow
        || !bs->drv->bdrv_co_truncate) {
        return 0;
    }
    return bs->drv->bdrv_co_truncate(bs, len, PREALLOC_MODE_OFF, 0, NULL);
}

/* A write with partial blocks. */
static int coroutine_fn co_write_padded(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        BdrvRequestFlags flags)
{
    int64_t start = bdrv_align_down(offset, bs->bl.request_alignment);
    int64_t end = bdrv_align_up(offset + bytes, bs->bl.request_alignment);
    bool at_end = pads_past_end(bs, end);
    TrackedRequest req;
    int ret;

    /* At the end of the file nobody else may be while we trim it. */
    track_co_begin(bs, &req, start, at_end ? INT64_MAX : end, true);
    if (!at_end && pads_past_end(bs, end)) {
        /* It has been cut meanwhile. */
        track_end(&req);
        track_co_begin(bs, &req, start, INT64_MAX, true);
    }
    ret = bdrv_check_end(bs, offset + bytes);
    if (ret >= 0) {
        ret = co_write_bounced(bs, offset, bytes, qiov, flags);
    }
    if (ret >= 0) {
        bdrv_note_write(bs, offset + bytes);
        ret = co_trim(bs, end);
    }
    bdrv_debug_event(bs, BLKDBG_PWRITEV_DONE);
    track_end(&req);
    return ret;
}

int coroutine_fn bdrv_co_do_pwritev(BlockDriverState *bs, int64_t offset,
                                    int64_t bytes, QEMUIOVector *qiov,
                                    BdrvRequestFlags flags)
{
    TrackedRequest req;
    int ret;

    if (!range_fits(bs, offset, bytes)) {
        return co_write_padded(bs, offset, bytes, qiov, flags);
    }

    track_co_begin(bs, &req, offset, offset + bytes, false);
    ret = bdrv_check_end(bs, offset + bytes);
    if (__builtin_expect(ret < 0, 0)) {
        track_end(&req);
        return ret;
    }
    if (!qiov_fits(bs, qiov)) {
        ret = co_write_bounced(bs, offset, bytes, qiov, flags);
    } else if (bytes > piece_max(bs, BDRV_REQUEST_MAX_BYTES)) {
        ret = co_rw_pieces(bs, offset, qiov, true, flags);
    } else {
        bdrv_debug_event(bs, BLKDBG_PWRITEV);
        ret = bs->drv->bdrv_co_pwritev(bs, offset, bytes, qiov, flags);
    }
    if (ret >= 0) {
        /* Before the end: who excludes writes must see the new length. */
        bdrv_note_write(bs, offset + bytes);
    }
    bdrv_debug_event(bs, BLKDBG_PWRITEV_DONE);
    track_end(&req);
    return ret;
}
