/* SPDX-License-Identifier: MIT */
/*
 * Requests on a child: checks, and the choice of what path they take.
 *
 * Any thread, inside a request that a user has begun (so the graph stands
 * still).  Nodes whose driver is passthrough are called at once; for the others
 * align.c and zeroes.c make requests fit.
 */
#include "block/block-int.h"

#include <inttypes.h>

#include "block/dirty-bitmap.h"

/* ---- reads ---- */

/* The part of a read that lies past the end: zeroes. */
static int coroutine_fn co_read_across_end(BlockDriverState *bs,
                                           int64_t offset, int64_t len,
                                           QEMUIOVector *qiov,
                                           BdrvRequestFlags flags)
{
    int64_t inside = offset < len ? len - offset : 0;
    QEMUIOVector part;
    int ret = 0;

    qemu_iovec_memset(qiov, inside, 0, qiov->size - inside);
    if (inside) {
        qemu_iovec_init_slice(&part, qiov, 0, inside);
        ret = bs->drv->passthrough
              ? bs->drv->bdrv_co_preadv(bs, offset, inside, &part, flags)
              : bdrv_co_do_preadv(bs, offset, inside, &part, flags);
        qemu_iovec_destroy(&part);
    }
    return ret;
}

int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset,
                                QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int64_t bytes = qiov->size;
    int64_t len = bdrv_getlength(bs);

    if (!bdrv_range_ok(offset, bytes)) {
        return -EIO;
    }
    if (bytes == 0) {
        return 0;
    }
    if (__builtin_expect(offset + bytes > len, 0)) {
        return co_read_across_end(bs, offset, len, qiov, flags);
    }
    if (bs->drv->passthrough) {
        return bs->drv->bdrv_co_preadv(bs, offset, bytes, qiov, flags);
    }
    return bdrv_co_do_preadv(bs, offset, bytes, qiov, flags);
}

int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset,
                                     int64_t bytes, QEMUIOVector *qiov,
                                     size_t qiov_offset,
                                     BdrvRequestFlags flags)
{
    QEMUIOVector part;
    int ret;

    if (qiov_offset == 0 && bytes == qiov->size) {
        return bdrv_co_preadv(child, offset, qiov, flags);
    }
    qemu_iovec_init_slice(&part, qiov, qiov_offset, bytes);
    ret = bdrv_co_preadv(child, offset, &part, flags);
    qemu_iovec_destroy(&part);
    return ret;
}

int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes,
                               void *buf, BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return bdrv_co_preadv(child, offset, &qiov, flags);
}

int coroutine_fn bdrv_co_read_backing(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      size_t qiov_offset)
{
    if (!bs->backing) {
        qemu_iovec_memset(qiov, qiov_offset, 0, bytes);
        return 0;
    }
    return bdrv_co_preadv_part(bs->backing, offset, bytes, qiov, qiov_offset,
                               0);
}

/* ---- writes ---- */

static void raise_to(int64_t *what, int64_t value)
{
    int64_t old = __atomic_load_n(what, __ATOMIC_RELAXED);

    while (value > old
           && !__atomic_compare_exchange_n(what, &old, value, true,
                                           __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED)) {
    }
}

void bdrv_note_write(BlockDriverState *bs, int64_t end)
{
    raise_to(&bs->wr_highest_offset, end);
    if (bs->drv->can_grow) {
        raise_to(&bs->total_bytes, end);
    }
}

/* A passthrough node's length is not its own business. */
static inline void note_passed_on(BlockDriverState *bs, int64_t end)
{
    raise_to(&bs->wr_highest_offset, end);
}

/* 0 or -errno: may [@offset, @offset + @bytes) be written? */
static int check_write(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    if (!bdrv_range_ok(offset, bytes)) {
        return -EIO;
    }
    if (bs->read_only) {
        return -EPERM;
    }
    return bdrv_check_end(bs, offset + bytes);
}

/*
 * Adapt @flags to what the node does itself.  Sets *@flush if FUA is left for
 * us to do.
 */
static BdrvRequestFlags adapt_flags(BlockDriverState *bs,
                                    BdrvRequestFlags flags,
                                    BdrvRequestFlags supported, bool *flush)
{
    *flush = false;
    if ((flags & BDRV_REQ_MAY_UNMAP) && !bs->discard_unmap
        && !(flags & BDRV_REQ_GIVE_BACK)) {
        flags &= ~BDRV_REQ_MAY_UNMAP;
    }
    if (flags & BDRV_REQ_FUA) {
        if (bs->drv->is_protocol && bs->cache_no_flush) {
            flags &= ~BDRV_REQ_FUA;
        } else if (!(supported & BDRV_REQ_FUA)) {
            flags &= ~BDRV_REQ_FUA;
            *flush = true;
        }
    }
    return flags;
}

static int coroutine_fn co_write_zeroes(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, BdrvRequestFlags flags)
{
    bool flush;
    int ret;

    flags = adapt_flags(bs, flags, bs->drv->supported_zero_flags, &flush);
    if (bs->drv->passthrough) {
        ret = bs->drv->bdrv_co_pwrite_zeroes(bs, offset, bytes, flags);
        note_passed_on(bs, offset + bytes);
    } else {
        ret = bdrv_co_do_pwrite_zeroes(bs, offset, bytes, flags);
    }
    if (ret >= 0) {
        ret = flush ? bdrv_co_flush(bs) : 0;
    }
    return ret;
}

/* What is stored compressed goes to the driver that can do so, as it comes. */
static int coroutine_fn co_write_compressed(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            QEMUIOVector *qiov,
                                            BdrvRequestFlags flags)
{
    bool flush = flags & BDRV_REQ_FUA;
    TrackedRequest req;
    int ret;

    if (bs->drv->passthrough) {
        ret = bs->drv->bdrv_co_pwritev(bs, offset, bytes, qiov,
                                       BDRV_REQ_WRITE_COMPRESSED);
        note_passed_on(bs, offset + bytes);
    } else if (bs->drv->bdrv_co_pwritev_compressed) {
        track_co_begin_to_end(bs, &req, offset, offset + bytes);
        ret = bdrv_check_end(bs, offset + bytes);
        if (ret >= 0) {
            ret = bs->drv->bdrv_co_pwritev_compressed(bs, offset, bytes, qiov);
        }
        if (ret >= 0) {
            bdrv_note_write(bs, offset + bytes);
        }
        track_end(&req);
    } else {
        ret = -ENOTSUP;
    }
    if (ret >= 0) {
        ret = flush ? bdrv_co_flush(bs) : 0;
    }
    return ret;
}

static inline bool becomes_zeroes(const BlockDriverState *bs,
                                  const QEMUIOVector *qiov)
{
    return bs->detect_zeroes != BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF
           && qemu_iovec_is_zero(qiov, 0, qiov->size);
}

static inline int coroutine_fn co_write(BlockDriverState *bs, int64_t offset,
                                        QEMUIOVector *qiov,
                                        BdrvRequestFlags flags)
{
    int64_t bytes = qiov->size;
    bool flush;
    int ret;

    if (flags & BDRV_REQ_ZERO_WRITE) {
        return co_write_zeroes(bs, offset, bytes, flags);
    }
    if (becomes_zeroes(bs, qiov)) {
        if (bs->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP) {
            flags |= BDRV_REQ_MAY_UNMAP;
        }
        return co_write_zeroes(bs, offset, bytes, flags);
    }

    if (__builtin_expect(flags & BDRV_REQ_WRITE_COMPRESSED, 0)) {
        return co_write_compressed(bs, offset, bytes, qiov, flags);
    }
    flags = adapt_flags(bs, flags & BDRV_REQ_FUA,
                        bs->drv->supported_write_flags, &flush);
    if (bs->drv->passthrough) {
        ret = bs->drv->bdrv_co_pwritev(bs, offset, bytes, qiov, flags);
        note_passed_on(bs, offset + bytes);
    } else {
        ret = bdrv_co_do_pwritev(bs, offset, bytes, qiov, flags);
    }
    if (ret >= 0) {
        ret = __builtin_expect(flush, 0) ? bdrv_co_flush(bs) : 0;
    }
    return ret;
}

int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    BlockDriverState *bs = child->bs;
    int64_t bytes = qiov->size;
    int ret = check_write(bs, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    ret = co_write(bs, offset, qiov, flags);
    /* Even if it failed: a part may have been written. */
    bdrv_co_note_dirty(bs, offset, bytes);
    return ret;
}

int coroutine_fn bdrv_co_pwritev_part(BdrvChild *child, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      size_t qiov_offset,
                                      BdrvRequestFlags flags)
{
    QEMUIOVector part;
    int ret;

    if (qiov_offset == 0 && bytes == qiov->size) {
        return bdrv_co_pwritev(child, offset, qiov, flags);
    }
    qemu_iovec_init_slice(&part, qiov, qiov_offset, bytes);
    ret = bdrv_co_pwritev(child, offset, &part, flags);
    qemu_iovec_destroy(&part);
    return ret;
}

int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset,
                                int64_t bytes, const void *buf,
                                BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, (void *)buf, bytes);
    return bdrv_co_pwritev(child, offset, &qiov, flags);
}

int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset,
                                       int64_t bytes, BdrvRequestFlags flags)
{
    int ret = check_write(child->bs, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    ret = co_write_zeroes(child->bs, offset, bytes, flags);
    bdrv_co_note_dirty(child->bs, offset, bytes);
    return ret;
}

/* ---- discard ---- */

/* Only whole units go; the end of the image counts as the end of one. */
static int coroutine_fn co_discard_units(BlockDriverState *bs, int64_t offset,
                                         int64_t end, int64_t align)
{
    int64_t len = bdrv_getlength(bs);

    end = end >= len ? bdrv_unit_up(len, align) : bdrv_unit_down(end, align);
    return offset < end ? bs->drv->bdrv_co_pdiscard(bs, offset, end - offset)
                        : 0;
}

static int coroutine_fn co_discard(BlockDriverState *bs, int64_t offset,
                                   int64_t bytes)
{
    int64_t align = MAX(bs->bl.request_alignment, bs->bl.pdiscard_alignment);
    int64_t max = bs->bl.max_pdiscard ? bs->bl.max_pdiscard
                                      : BDRV_REQUEST_MAX_BYTES;
    int64_t end;
    int ret = 0;

    if (!bs->discard_unmap || !bs->drv->bdrv_co_pdiscard) {
        return 0;
    }
    bytes = MIN(bytes, bdrv_getlength(bs) - offset);
    if (bs->drv->passthrough) {
        return bytes > 0 ? bs->drv->bdrv_co_pdiscard(bs, offset, bytes) : 0;
    }

    end = offset + bytes;
    offset = bdrv_unit_up(offset, align);
    max = MAX(bdrv_unit_down(max, align), align);
    while (ret >= 0 && offset < end) {
        int64_t piece_end = MIN(end, offset + max);
        TrackedRequest req;

        track_co_begin_to_end(bs, &req, offset, piece_end);
        ret = co_discard_units(bs, offset, piece_end, align);
        track_end(&req);
        offset = piece_end;
        if (ret >= 0 && offset < end) {
            ret = aio_co_yield_fair();
        }
    }
    return ret == -ENOTSUP ? 0 : MIN(ret, 0);
}

int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset,
                                  int64_t bytes)
{
    int ret = check_write(child->bs, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    ret = co_discard(child->bs, offset, bytes);
    bdrv_co_note_dirty(child->bs, offset, bytes);
    return ret;
}

/* ---- flush ---- */

/* The node's own part. */
static int coroutine_fn co_flush_node(BlockDriverState *bs)
{
    int ret = 0;

    bdrv_co_debug_event(bs->file, BLKDBG_FLUSH_TO_OS);
    if (bs->drv->bdrv_co_flush
        && !(bs->drv->is_protocol && bs->cache_no_flush)) {
        ret = bs->drv->bdrv_co_flush(bs);
    }
    bdrv_co_debug_event(bs->file, BLKDBG_FLUSH_TO_DISK);
    return ret;
}

int coroutine_fn bdrv_co_flush(BlockDriverState *bs)
{
    const GPtrArray *all = bdrv_storage(bs);
    BdrvChild *c;
    int ret = 0;

    /* A failure must not keep the others from being flushed. */
    for (guint i = 0; all && i < all->len; i++) {
        int node_ret = co_flush_node(all->pdata[i]);

        ret = ret < 0 ? ret : node_ret;
    }
    if (all) {
        return ret;
    }
    ret = co_flush_node(bs);
    TAILQ_FOREACH(c, &bs->children, next) {
        if (!(c->role & BDRV_CHILD_COW)) {
            int child_ret = bdrv_co_flush(c->bs);

            ret = ret < 0 ? ret : child_ret;
        }
    }
    return ret;
}

/* ---- length ---- */

static int coroutine_fn co_truncate_tracked(BlockDriverState *bs,
                                            int64_t offset,
                                            PreallocMode prealloc,
                                            BdrvRequestFlags flags,
                                            Error **errp)
{
    int64_t old = bdrv_getlength(bs);
    int64_t len = offset;
    int ret;

    if (offset < old && prealloc != PREALLOC_MODE_OFF) {
        error_setg(errp, "Preallocation can't be used for shrinking files");
        return -EINVAL;
    }
    ret = bs->drv->bdrv_co_truncate(bs, offset, prealloc,
                                    flags & bs->drv->supported_truncate_flags,
                                    errp);
    if (ret < 0) {
        return ret;
    }
    if (bs->drv->bdrv_co_getlength) {
        len = bs->drv->bdrv_co_getlength(bs);
        if (len < 0) {
            error_setg_errno(errp, -len, "Could not get the new size");
            return len;
        }
    }
    __atomic_store_n(&bs->total_bytes, len, __ATOMIC_RELAXED);
    bdrv_co_dirty_bitmaps_resized(bs, offset);
    return 0;
}

/*
 * Zeroes in what is new at the end.  Where they are data for the driver, they
 * need as much space, for which the storage below is asked first.
 */
static int coroutine_fn co_zero_new(BlockDriverState *bs, int64_t old,
                                    int64_t offset, Error **errp)
{
    int ret = bs->drv->bdrv_co_pwrite_zeroes
              || bdrv_co_get_free_bytes(bs) >= offset - old
              ? co_write_zeroes(bs, old, offset - old, BDRV_REQ_MAY_UNMAP)
              : -ENOSPC;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write zeroes");
    }
    return ret;
}

/* Nothing of a longer backing may show through where the image grows. */
static bool uncovers_backing(const BlockDriverState *bs, int64_t old,
                             int64_t offset)
{
    return offset > old && bs->backing
           && bdrv_getlength(bs->backing->bs) > old;
}

/* From the lower end on nothing else may be written meanwhile. */
static int coroutine_fn co_truncate(BlockDriverState *bs, int64_t old,
                                    int64_t offset, PreallocMode prealloc,
                                    BdrvRequestFlags flags, Error **errp)
{
    TrackedRequest req;
    int ret;

    track_co_begin(bs, &req, MIN(old, offset), INT64_MAX, true);
    ret = co_truncate_tracked(bs, offset, prealloc, flags, errp);
    track_end(&req);
    return ret;
}

int coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t offset,
                                  PreallocMode prealloc,
                                  BdrvRequestFlags flags, Error **errp)
{
    BlockDriverState *bs = child->bs;
    int64_t old = bdrv_getlength(bs);
    int ret;

    if (offset < 0) {
        error_setg(errp, "Image size cannot be negative");
        return -EINVAL;
    }
    if (offset > BDRV_MAX_LENGTH) {
        error_setg(errp, "offset(%" PRIi64 ") exceeds maximum(%" PRIi64 ")",
                   offset, BDRV_MAX_LENGTH);
        return -EFBIG;
    }
    if (bs->read_only) {
        error_setg(errp, "Image is read-only");
        return -EACCES;
    }
    if (!bs->drv->bdrv_co_truncate) {
        error_setg(errp, "Image format driver does not support resize");
        return -ENOTSUP;
    }
    if (!bdrv_dirty_bitmaps_check_resize(bs, offset, errp)) {
        return -EFBIG;
    }
    if (bs->drv->passthrough) {
        ret = bs->drv->bdrv_co_truncate(bs, offset, prealloc, flags, errp);
        if (ret >= 0) {
            bdrv_co_dirty_bitmaps_resized(bs, offset);
        }
        return ret;
    }

    if (uncovers_backing(bs, old, offset)) {
        flags |= BDRV_REQ_ZERO_WRITE;
    }
    ret = co_truncate(bs, old, offset, prealloc, flags, errp);
    if (ret >= 0 && offset > old && (flags & BDRV_REQ_ZERO_WRITE)
        && !(bs->drv->supported_truncate_flags & BDRV_REQ_ZERO_WRITE)) {
        ret = co_zero_new(bs, old, offset, errp);
        if (ret < 0 && bdrv_getlength(bs) == offset) {
            const CoCancel *cancel = coroutine_set_cancel(NULL);

            co_truncate(bs, old, old, PREALLOC_MODE_OFF, 0, NULL);
            coroutine_set_cancel(cancel);
        }
    }
    return ret;
}

int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs)
{
    int64_t old, len;

    if (bs->length_follows_file) {
        len = bdrv_co_getlength(bs->file->bs);
        return len < 0 ? len : MAX(len - bs->file_offset, 0);
    }
    old = bdrv_getlength(bs);
    if (!bs->drv->bdrv_co_getlength) {
        return old;
    }
    len = bs->drv->bdrv_co_getlength(bs);
    if (len < 0 || len == old) {
        return len;
    }
    /* A write of ours that grew the file meanwhile knows better. */
    if (!__atomic_compare_exchange_n(&bs->total_bytes, &old, len, false,
                                     __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        return old;
    }
    return len;
}

int64_t coroutine_fn bdrv_co_get_free_bytes(BlockDriverState *bs)
{
    while (!bs->drv->bdrv_co_get_free_bytes) {
        if (!bs->file) {
            return INT64_MAX;
        }
        bs = bs->file->bs;
    }
    return bs->drv->bdrv_co_get_free_bytes(bs);
}

/* @seen (NULL: not needed) are the nodes that are in the sum already. */
static int64_t coroutine_fn co_allocated(BlockDriverState *bs,
                                         GHashTable *seen)
{
    BdrvChild *c;
    int64_t sum = 0;

    if (seen && !g_hash_table_add(seen, bs)) {
        return 0;
    }
    if (bs->drv->bdrv_co_get_allocated_file_size) {
        return bs->drv->bdrv_co_get_allocated_file_size(bs);
    }
    if (bs->drv->is_protocol) {
        return -ENOTSUP;
    }
    TAILQ_FOREACH(c, &bs->children, next) {
        int64_t n;

        /* A log beside what is filtered is no part of the image. */
        if ((c->role & BDRV_CHILD_COW) || (bs->drv->is_filter
                                           && c != bs->file)) {
            continue;
        }
        n = co_allocated(c->bs, seen);
        if (n < 0) {
            return n;
        }
        sum += n;
    }
    return sum;
}

int64_t coroutine_fn bdrv_co_get_allocated_file_size(BlockDriverState *bs)
{
    g_autoptr(GHashTable) seen = bdrv_storage(bs)
                                 ? g_hash_table_new(NULL, NULL) : NULL;

    return co_allocated(bs, seen);
}
