/* SPDX-License-Identifier: MIT */
/*
 * qcow2: other lengths of the disk, and preallocation.
 *
 * The new length is written to the header when all else is in the file, so a
 * crash leaves the old one, with a new area that nobody sees (growing), or with
 * zeroes at its end (shrinking).  From the lower end on the core lets no other
 * write in.
 *
 * A cluster that the end of the disk cuts holds zeroes behind it, and no other
 * cluster behind it is mapped: shrinking makes it so.  Growing does not rely on
 * that, as other programs have written images, too.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Clusters preallocated at once; entries of one slice. */
#define PREALLOC_CLUSTERS 256

/* Clusters looked at under s->lock: to find the file's end, or free ones. */
#define END_CLUSTERS 16384

/* Given up before they are really freed: bounds the list's memory. */
#define DROP_TABLES 65536

/* ---- zeroes ---- */

/*
 * Let guest bytes [@offset, @end) read as zeroes; keeps no host clusters.
 * Version 2 of the format has nothing but data to cover a backing node with.
 */
static int coroutine_fn co_zero(BlockDriverState *bs, int64_t offset,
                                int64_t end)
{
    int64_t covered = offset;
    int ret = 0;

    if (bs->backing && ((BDRVQcow2State *)bs->opaque)->version < 3) {
        covered = qcow2_cluster_end(bs->opaque,
                                    bdrv_getlength(bs->backing->bs));
        covered = CLAMP(covered, offset, MAX(offset, end));
        ret = bdrv_co_write_zero_buffers(bs, offset, covered - offset,
                                         qcow2_co_pwritev, 0);
    }
    if (ret >= 0 && covered < end) {
        ret = qcow2_co_pwrite_zeroes(bs, covered, end - covered,
                                     BDRV_REQ_MAY_UNMAP);
    }
    return ret;
}

/* ---- preallocation ---- */

static int coroutine_fn co_write_to_file(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes, QEMUIOVector *qiov,
                                         BdrvRequestFlags flags)
{
    return bdrv_co_pwritev(bs->file, offset, qiov, flags);
}

/* Let host clusters that are new hold zeroes, as @mode says. */
static int coroutine_fn co_prepare_clusters(BlockDriverState *bs,
                                            uint64_t host, uint64_t bytes,
                                            bool virgin, PreallocMode mode)
{
    if (qcow2_overlaps(bs, 0, host, bytes)) {
        return -EIO;
    }
    switch (mode) {
    case PREALLOC_MODE_FULL:
        return bdrv_co_write_zero_buffers(bs, host, bytes, co_write_to_file,
                                          0);
    case PREALLOC_MODE_FALLOC:
        return bdrv_co_pwrite_zeroes(bs->file, host, bytes, 0);
    default:
        return virgin ? 0 : bdrv_co_pwrite_zeroes(bs->file, host, bytes,
                                                  BDRV_REQ_MAY_UNMAP);
    }
}

/*
 * An entry for a host cluster of zeroes.  Encrypted, zeroes in the file are not
 * zeroes for the guest, so the entry itself must say it.
 */
static void prealloc_entry(const BDRVQcow2State *s, uint64_t host,
                           uint64_t *entry)
{
    entry[0] = host | QCOW2_OFLAG_COPIED;
    if (s->extended_l2) {
        entry[1] = s->crypt_method ? QCOW2_EXTL2_ALL_ZERO
                                   : QCOW2_EXTL2_ALL_ALLOC;
    } else if (s->crypt_method) {
        entry[0] |= QCOW2_OFLAG_ZERO;
    }
}

static int coroutine_fn co_link(BlockDriverState *bs, int64_t offset,
                                unsigned n, uint64_t host)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *entries = g_new(uint64_t, n * s->l2_entry_words);

    for (unsigned i = 0; i < n; i++) {
        prealloc_entry(s, host + i * s->cluster_size,
                       entries + i * s->l2_entry_words);
    }
    return qcow2_co_link(bs, offset, n, entries);
}

/* Map @n clusters, which have no host clusters; *@done is how many it were. */
static int coroutine_fn co_map_new(BlockDriverState *bs, int64_t offset,
                                   unsigned n, PreallocMode mode,
                                   unsigned *done)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t got = 0;
    bool virgin;
    int64_t host;
    int ret;

    *done = n;
    if (s->external_data_file) {
        return co_link(bs, offset, n, offset);
    }
    co_mutex_lock(&s->lock);
    host = qcow2_co_alloc(bs, s->cluster_size, n * s->cluster_size, &got,
                          &virgin);
    co_mutex_unlock(&s->lock);
    if (host < 0) {
        return host;
    }
    *done = got >> s->cluster_bits;
    ret = co_prepare_clusters(bs, host, got, virgin, mode);
    if (ret >= 0) {
        ret = co_link(bs, offset, *done, host);
    }
    if (ret < 0) {
        co_mutex_lock(&s->lock);
        qcow2_co_unalloc(bs, host, got);
        co_mutex_unlock(&s->lock);
    }
    return ret;
}

/* Nothing is mapped, or zeroes without a host cluster. */
static bool is_free(const BDRVQcow2State *s, const uint64_t *entry)
{
    return !(entry[0] & (QCOW2_L2E_OFFSET_MASK | QCOW2_OFLAG_COMPRESSED
                         | QCOW2_OFLAG_COPIED));
}

/* Up to @n clusters of one slice, reserved. */
static int coroutine_fn co_preallocate_slice(BlockDriverState *bs,
                                             int64_t offset, unsigned n,
                                             PreallocMode mode)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t entries[2 * PREALLOC_CLUSTERS];
    unsigned i = 0;
    int ret = qcow2_co_own_l2(bs, offset);

    if (ret >= 0) {
        ret = qcow2_co_read_entries(bs, offset, n, entries);
    }
    while (ret >= 0 && i < n) {
        unsigned run = 0, done = 0;

        while (i + run < n
               && is_free(s, entries + (i + run) * s->l2_entry_words)) {
            run++;
        }
        if (run) {
            ret = co_map_new(bs, offset + i * s->cluster_size, run, mode,
                             &done);
        } else {
            done = 1;
        }
        i += done;
    }
    return ret;
}

int coroutine_fn qcow2_co_preallocate(BlockDriverState *bs, int64_t offset,
                                      int64_t end, PreallocMode mode,
                                      Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    end = qcow2_cluster_end(s, end);
    if (s->version < 3 && s->crypt_method) {
        error_setg(errp, "Preallocation of encrypted images needs version 3 "
                   "of the format");
        return -ENOTSUP;
    }
    while (ret >= 0 && offset < end) {
        unsigned left = (1u << s->slice_bits) - qcow2_slice_index(s, offset);
        int64_t clusters = (end - offset) >> s->cluster_bits;
        unsigned n = MIN(MIN(left, clusters), PREALLOC_CLUSTERS);
        unsigned epoch = qcow2_enter(s);
        Qcow2Reservation r;

        qcow2_co_reserve(s, &r, offset,
                         offset + (int64_t)(n * s->cluster_size));
        ret = co_preallocate_slice(bs, offset, n, mode);
        qcow2_unreserve(&r);
        qcow2_leave(s, epoch);
        offset += n * s->cluster_size;
        if (ret >= 0) {
            ret = aio_co_yield_fair();
        }
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not preallocate clusters");
    }
    return ret;
}

/* Bytes in free clusters of the file; it is enough to find @want. */
static int64_t coroutine_fn co_free_inside(BlockDriverState *bs, int64_t want)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t end = qcow2_cluster_start(s, bdrv_getlength(bs->file->bs))
                   >> s->cluster_bits;
    uint64_t refcount = 0;
    int64_t sum = 0;

    for (uint64_t pos = 0; pos < end && sum < want; ) {
        co_mutex_lock(&s->lock);
        pos = MAX(pos, s->free_hint);
        for (unsigned n = 0; pos < end && n < END_CLUSTERS; n++, pos++) {
            if (qcow2_co_get_refcount(bs, pos, &refcount) >= 0
                && refcount == 0) {
                sum += s->cluster_size;
            }
            aio_co_yield_fair();
        }
        co_mutex_unlock(&s->lock);
    }
    return sum;
}

/* -ENOSPC if there cannot be enough space for preallocation up to @size. */
static int coroutine_fn co_check_room(BlockDriverState *bs, int64_t old,
                                      int64_t size, PreallocMode mode,
                                      Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t offset = qcow2_cluster_end(s, old);
    int64_t end = qcow2_cluster_end(s, size);
    unsigned table_bits = s->cluster_bits + s->l2_bits;
    int64_t clusters = (end - offset) >> s->cluster_bits;
    int64_t need = (end - offset) >> table_bits;
    int64_t room;

    if (mode == PREALLOC_MODE_OFF) {
        return 0;
    }
    if (mode != PREALLOC_MODE_METADATA && !s->external_data_file) {
        need += clusters;
    }
    need += clusters >> s->refblock_bits;
    need <<= s->cluster_bits;
    room = bdrv_co_get_free_bytes(bs->file->bs);
    if (need > room && need - room > co_free_inside(bs, need - room)) {
        error_setg_errno(errp, ENOSPC, "Could not preallocate clusters");
        return -ENOSPC;
    }
    return 0;
}

/* The file shall be as long as its last cluster needs. */
static int coroutine_fn co_cover_clusters(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    co_mutex_lock(&s->lock);
    if (s->virgin_start != UINT64_MAX
        && bdrv_getlength(bs->file->bs) < s->virgin_start) {
        ret = bdrv_co_truncate(bs->file, s->virgin_start, PREALLOC_MODE_OFF,
                               0, errp);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

/*
 * Preallocation of [@offset, @end) has failed: what it has taken is of use to
 * others.  On a full disk metadata can be written only after that.
 */
static void coroutine_fn co_give_back(BlockDriverState *bs, int64_t offset,
                                      int64_t end)
{
    BDRVQcow2State *s = bs->opaque;

    while (offset < end) {
        unsigned epoch = qcow2_enter(s);
        Qcow2Extent ext;

        if (qcow2_co_extent(bs, offset, end - offset, &ext) < 0) {
            qcow2_leave(s, epoch);
            break;
        }
        if ((ext.type == QCOW2_NORMAL || ext.type == QCOW2_ZERO_ALLOC)
            && ext.copied && !qcow2_overlaps(bs, 0, ext.host, ext.bytes)) {
            bdrv_co_pwrite_zeroes(s->data_file, ext.host, ext.bytes,
                                  BDRV_REQ_MAY_UNMAP | BDRV_REQ_GIVE_BACK);
        }
        qcow2_leave(s, epoch);
        offset += ext.bytes;
        aio_co_yield_fair();
    }
}

/* ---- length in the header ---- */

static int coroutine_fn co_write_size(BlockDriverState *bs, int64_t size,
                                      Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t field = GUINT64_TO_BE(size);
    int ret = qcow2_co_writeback(bs);

    if (ret >= 0) {
        co_mutex_lock(&s->header_lock);
        ret = qcow2_co_change_header(bs, BLKDBG_NONE,
                                     offsetof(Qcow2Header, size), &field,
                                     sizeof(field));
        if (ret >= 0) {
            /* Here, for others who write the header. */
            __atomic_store_n(&bs->total_bytes, size, __ATOMIC_RELAXED);
        }
        co_mutex_unlock(&s->header_lock);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to update the image size");
    }
    return ret;
}

/* ---- growing ---- */

/* What lies behind the old end in the data file is not the guest's. */
static int coroutine_fn co_grow_data_file(BlockDriverState *bs, int64_t old,
                                          int64_t size, PreallocMode mode,
                                          Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t len;
    int ret = 0;

    if (!s->external_data_file) {
        return 0;
    }
    len = bdrv_co_getlength(s->data_file->bs);
    if (len < 0) {
        error_setg_errno(errp, -len, "Could not get the length of the data "
                         "file");
        return len;
    }
    if (len > old) {
        ret = bdrv_co_pwrite_zeroes(s->data_file, old, MIN(len, size) - old,
                                    BDRV_REQ_MAY_UNMAP);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not write zeroes to the data "
                             "file");
            return ret;
        }
    }
    if (len < size) {
        if (mode == PREALLOC_MODE_METADATA) {
            mode = PREALLOC_MODE_OFF;
        }
        ret = bdrv_co_truncate(s->data_file, size, mode, 0, errp);
    }
    return ret;
}

static int coroutine_fn co_grow(BlockDriverState *bs, int64_t old,
                                int64_t size, PreallocMode mode,
                                Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t old_end = qcow2_cluster_end(s, old);
    int64_t new_end = qcow2_cluster_end(s, size);
    int ret = qcow2_co_grow_l1(bs, qcow2_size_to_l1(s, size));

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to grow the L1 table");
        return ret;
    }
    ret = co_grow_data_file(bs, old, size, mode, errp);
    if (ret < 0) {
        return ret;
    }
    if (s->data_file_raw) {
        /* What is in the file is the disk: the tables only say so. */
        mode = mode == PREALLOC_MODE_OFF ? PREALLOC_MODE_METADATA : mode;
    } else {
        ret = co_zero(bs, old, new_end);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Failed to zero out new clusters");
            return ret;
        }
    }
    if (mode != PREALLOC_MODE_OFF) {
        ret = qcow2_co_preallocate(bs, old_end, new_end, mode, errp);
        if (ret >= 0 && !s->external_data_file) {
            ret = co_cover_clusters(bs, errp);
        }
        if (ret < 0 && !s->external_data_file) {
            const CoCancel *cancel = coroutine_set_cancel(NULL);

            co_give_back(bs, old_end, new_end);
            coroutine_set_cancel(cancel);
        }
    }
    return ret;
}

/* ---- shrinking ---- */

/* L2 tables of which nothing is left.  Their entries are empty. */
static void coroutine_fn co_drop_tables(BlockDriverState *bs, int64_t size)
{
    BDRVQcow2State *s = bs->opaque;
    uint32_t i = qcow2_size_to_l1(s, size), n = 0;

    co_mutex_lock(&s->l1_lock);
    co_mutex_lock(&s->lock);
    for (; i < s->l1_size; i++) {
        uint64_t table = qcow2_l1_entry(s, i) & QCOW2_L1E_OFFSET_MASK;

        if (!table || qcow2_in_cluster(s, table)) {
            continue;
        }
        aio_co_yield_fair();    /* both locks are held: it stays as it is */
        qcow2_set_l1_entry(s, i, 0);
        /* It may be a snapshot's as well. */
        if (!qcow2_overlaps(bs, QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2,
                            table, s->cluster_size)) {
            qcow2_give_up(s, table, s->cluster_size, QCOW2_DISCARD_ALWAYS);
        }
        if (++n % DROP_TABLES == 0) {
            /* What it can't write now, the end of the resize reports. */
            co_mutex_unlock(&s->lock);
            qcow2_co_writeback(bs);
            co_mutex_lock(&s->lock);
        }
    }
    co_mutex_unlock(&s->lock);
    co_mutex_unlock(&s->l1_lock);
}

/*
 * Cut free clusters off the file's end.  True if all that was looked at was
 * free, so that there may be more.  It only saves space: errors are none.
 */
static bool coroutine_fn co_cut_file_part(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t clusters, used, refcount = 0;
    unsigned n = 0;

    co_mutex_lock(&s->lock);
    clusters = used = qcow2_cluster_end(s, bdrv_getlength(bs->file->bs))
                      >> s->cluster_bits;
    while (used > 0 && n++ < END_CLUSTERS
           && qcow2_co_get_refcount(bs, used - 1, &refcount) >= 0
           && refcount == 0) {
        used--;
        aio_co_yield_fair();
    }
    if (used == clusters
        || bdrv_co_truncate(bs->file, used << s->cluster_bits,
                            PREALLOC_MODE_OFF, 0, NULL) < 0) {
        n = 0;
    }
    co_mutex_unlock(&s->lock);
    return n > END_CLUSTERS;
}

static void coroutine_fn co_cut_file(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    /* Only where the end is certainly ours to move. */
    if (s->virgin_start != UINT64_MAX) {
        while (co_cut_file_part(bs)) {
            continue;
        }
    }
}

/* All clusters behind a disk of @size bytes, and up to @end. */
static int coroutine_fn co_drop_behind(BlockDriverState *bs, int64_t size,
                                       int64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t start = qcow2_cluster_end(s, size);
    Qcow2Reservation r;
    int ret = 0;

    if (start < end) {
        qcow2_co_reserve(s, &r, start, INT64_MAX);
        ret = qcow2_co_drop(bs, start, end - start, QCOW2_DISCARD_ALWAYS,
                            true);
        if (ret >= 0) {
            co_drop_tables(bs, size);
        }
        qcow2_unreserve(&r);
    }
    return ret;
}

static int coroutine_fn co_shrink(BlockDriverState *bs, int64_t old,
                                  int64_t size, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t start = qcow2_cluster_end(s, size);
    int64_t end = qcow2_cluster_end(s, old);
    int ret;

    ret = s->data_file_raw ? 0 : co_zero(bs, size, MIN(start, old));
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to discard cropped clusters");
        return ret;
    }
    ret = co_drop_behind(bs, size, end);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to discard cropped clusters");
    }
    return ret;
}

/* After the header says so. */
static int coroutine_fn co_finish_shrinking(BlockDriverState *bs, int64_t size,
                                            Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (s->external_data_file
        && bdrv_getlength(s->data_file->bs) > size
        && s->data_file->bs->drv->can_grow) {
        return bdrv_co_truncate(s->data_file, size, PREALLOC_MODE_OFF, 0,
                                errp);
    }
    /* What has been given up is free now, unless somebody still reads it. */
    if (qcow2_co_writeback(bs) >= 0) {
        qcow2_co_drop_refblocks(bs);
        co_cut_file(bs);
    }
    return 0;
}

/* ---- growing that failed ---- */

/* All is as before, but for the length of the L1 table. */
static void coroutine_fn co_undo_growth(BlockDriverState *bs, int64_t old,
                                        int64_t size)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end;

    /* Where the header may have the new length, a backing must not show. */
    if (qcow2_header_unsure(s)) {
        return;
    }
    /* Nothing is mapped where the L1 table does not reach. */
    end = MIN(qcow2_cluster_end(s, size),
              (int64_t)s->l1_size << (s->cluster_bits + s->l2_bits));
    if (co_drop_behind(bs, old, end) >= 0) {
        co_finish_shrinking(bs, old, NULL);
    }
}

/* ---- truncate ---- */

static int check_resize(BlockDriverState *bs, int64_t size, PreallocMode mode,
                        Error **errp)
{
    BDRVQcow2State *s = bs->opaque;

    if (size % 512) {
        error_setg(errp, "The new size must be a multiple of 512");
        return -EINVAL;
    }
    if (s->nb_snapshots && s->version < 3) {
        error_setg(errp, "Can't resize a v2 image which has snapshots");
        return -ENOTSUP;
    }
    if (mode != PREALLOC_MODE_OFF && mode != PREALLOC_MODE_METADATA
        && mode != PREALLOC_MODE_FALLOC && mode != PREALLOC_MODE_FULL) {
        error_setg(errp, "Unsupported preallocation mode '%s'",
                   PreallocMode_str(mode));
        return -ENOTSUP;
    }
    return 0;
}

int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset,
                                   PreallocMode prealloc,
                                   BdrvRequestFlags flags, Error **errp)
{
    int64_t old = bdrv_getlength(bs);
    const CoCancel *cancel;
    int ret = check_resize(bs, offset, prealloc, errp);

    if (ret < 0 || offset == old) {
        return ret;
    }
    if (offset > old) {
        ret = co_check_room(bs, old, offset, prealloc, errp);
        if (ret < 0) {
            return ret;
        }
        ret = co_grow(bs, old, offset, prealloc, errp);
        if (ret >= 0) {
            ret = co_write_size(bs, offset, errp);
        }
        if (ret < 0) {
            /* Cancelled or not, this comes to its end. */
            cancel = coroutine_set_cancel(NULL);
            co_undo_growth(bs, old, offset);
            coroutine_set_cancel(cancel);
        }
        return ret;
    }
    /* So does this: half of it would be data lost from a disk as long. */
    cancel = coroutine_set_cancel(NULL);
    ret = co_shrink(bs, old, offset, errp);
    if (ret >= 0) {
        ret = co_write_size(bs, offset, errp);
    }
    if (ret >= 0) {
        ret = co_finish_shrinking(bs, offset, errp);
    }
    coroutine_set_cancel(cancel);
    return ret;
}
