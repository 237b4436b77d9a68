/* SPDX-License-Identifier: MIT */
/*
 * qcow2: zeroes and discard, which change the mapping and write no data.
 *
 * Ranges need not be whole clusters.  What they take of a (sub)cluster at
 * either end becomes zeroes in the file, unless all of it reads as zeroes then.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <string.h>

/* Give up this many clusters without a flush, then write back. */
#define PENDING_MAX 1024

/* In the middle of a long request: bounds the list's memory. */
#define PENDING_LIST_MAX 65536

/* Entries changed in one go. */
#define CHANGE_ENTRIES 256

typedef enum {
    ZERO_KEEP,          /* zeroes; host clusters stay */
    ZERO_UNMAP,         /* zeroes; host clusters are given up */
    DISCARD,            /* zeroes, or unallocated where that is the same */
    DROP,               /* unallocated, whatever that reads as */
} Change;

static bool has_backing(BlockDriverState *bs, int64_t offset)
{
    return bs->backing && offset < bdrv_getlength(bs->backing->bs);
}

/* ---- whole clusters and subclusters ---- */

/* Where nothing is mapped, and the result may be just that. */
static bool entry_stays(BlockDriverState *bs, const uint64_t *entry,
                        int64_t offset, Change change)
{
    BDRVQcow2State *s = bs->opaque;

    if (entry[0] || (s->extended_l2 && entry[1])) {
        return false;
    }
    return change == DROP || !has_backing(bs, offset);
}

/* True if the host cluster of @entry is to be kept. */
static bool keeps_host(const BDRVQcow2State *s, uint64_t entry, Change change)
{
    bool own = (entry & QCOW2_OFLAG_COPIED)
               && !(entry & QCOW2_OFLAG_COMPRESSED)
               && ((entry & QCOW2_L2E_OFFSET_MASK) || s->external_data_file);

    if (!own || s->version < 3) {
        return false;
    }
    return change == ZERO_KEEP
           || (change != DROP && s->discard_no_unref);
}

/* The entry of a cluster that becomes zeroes, or is dropped, whole. */
static void change_whole(BlockDriverState *bs, int64_t offset, Change change,
                         const uint64_t *old, uint64_t *entry)
{
    BDRVQcow2State *s = bs->opaque;
    bool zero = change != DROP
                && (change != DISCARD || has_backing(bs, offset)
                    || s->version >= 3);

    entry[0] = entry[1] = 0;
    if (keeps_host(s, old[0], change)) {
        entry[0] = old[0] & ~QCOW2_OFLAG_ZERO;
    }
    if (s->version < 3 || !zero) {
        return;
    }
    if (s->extended_l2) {
        entry[1] = QCOW2_EXTL2_ALL_ZERO;
    } else {
        entry[0] |= QCOW2_OFLAG_ZERO;
    }
}

/* Change one entry of a slice; s->lock held, reserved. */
static void change_cluster(BlockDriverState *bs, Qcow2CacheEntry *slice,
                           int64_t offset, Change change,
                           Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned i = qcow2_slice_index(s, offset) * s->l2_entry_words;
    uint64_t old[2] = { qcow2_cache_word(slice, i), 0 };
    uint64_t entry[2];

    if (s->extended_l2) {
        old[1] = qcow2_cache_word(slice, i + 1);
    }
    if (entry_stays(bs, old, offset, change)) {
        return;
    }
    change_whole(bs, offset, change, old, entry);
    if (entry[0] == old[0] && (!s->extended_l2 || entry[1] == old[1])) {
        return;
    }
    qcow2_replace_entry(bs, slice, offset, entry, type);
}

/*
 * Data that nobody reads any more, in host clusters that stay where they are:
 * kept by discard-no-unref, or in an external data file.
 */
static void coroutine_fn co_discard_data(BlockDriverState *bs, unsigned n,
                                         const uint64_t *entries)
{
    BDRVQcow2State *s = bs->opaque;

    if (!s->pass_discard[QCOW2_DISCARD_REQUEST]) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        uint64_t entry = entries[i * s->l2_entry_words];
        uint64_t host = entry & QCOW2_L2E_OFFSET_MASK;

        if (keeps_host(s, entry, s->external_data_file ? ZERO_KEEP : DISCARD)
            && (s->external_data_file
                || !qcow2_overlaps(bs, 0, host, s->cluster_size))) {
            /* A hint: errors are none. */
            bdrv_co_pdiscard(s->data_file, host, s->cluster_size);
        }
    }
}

/* Up to CHANGE_ENTRIES clusters of one slice, reserved. */
static int coroutine_fn co_change_slice(BlockDriverState *bs, int64_t offset,
                                        unsigned n, Change change,
                                        Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *old = g_new(uint64_t, n * s->l2_entry_words);
    Qcow2CacheEntry *slice;
    bool any = false;
    int ret = qcow2_co_read_entries(bs, offset, n, old);

    if (ret < 0) {
        return ret;
    }
    for (unsigned i = 0; !any && i < n; i++) {
        any = !entry_stays(bs, old + i * s->l2_entry_words,
                           offset + i * s->cluster_size, change);
    }
    if (!any) {
        return 0;
    }
    ret = qcow2_co_own_l2(bs, offset);
    if (ret >= 0) {
        ret = qcow2_co_get_slice(bs, offset, &slice);
    }
    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&s->lock);
    for (unsigned i = 0; i < n; i++) {
        change_cluster(bs, slice, offset + i * s->cluster_size, change, type);
    }
    co_mutex_unlock(&s->lock);
    qcow2_cache_put(s->l2_cache, slice);
    if ((s->discard_no_unref || s->external_data_file)
        && change != ZERO_KEEP && change != DROP) {
        co_discard_data(bs, n, old);
    }
    return 0;
}

/* Bytes from @offset on that are unallocated, and stay as they are. */
static int64_t coroutine_fn co_skip(BlockDriverState *bs, int64_t offset,
                                    int64_t bytes, Change change)
{
    Qcow2Extent ext;

    if (qcow2_co_run(bs, offset, bytes, &ext) < 0
        || ext.type != QCOW2_UNALLOCATED
        || (change != DROP && has_backing(bs, offset))) {
        return 0;
    }
    return ext.bytes;
}

/* Whole clusters, each part reserved while it changes. */
static int coroutine_fn co_change(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes, Change change,
                                  Qcow2DiscardType type, bool reserve)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end = offset + bytes;
    int ret = 0;

    while (ret >= 0 && offset < end) {
        unsigned left = (1u << s->slice_bits) - qcow2_slice_index(s, offset);
        int64_t clusters = (end - offset) >> s->cluster_bits;
        unsigned n = MIN(MIN(left, clusters), CHANGE_ENTRIES);
        /* Not around all: what the first part frees need not wait. */
        unsigned epoch = qcow2_enter(s);
        int64_t skip = qcow2_cluster_start(
            s, co_skip(bs, offset, end - offset, change));
        Qcow2Reservation r;

        if (__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)) {
            qcow2_leave(s, epoch);
            return -EIO;
        }
        if (skip > 0) {
            qcow2_leave(s, epoch);
            offset += skip;
            ret = offset < end ? aio_co_yield_fair() : 0;
            continue;
        }
        if (reserve) {
            qcow2_co_reserve(s, &r, offset,
                             offset + (int64_t)(n * s->cluster_size));
        }
        ret = co_change_slice(bs, offset, n, change, type);
        if (reserve) {
            qcow2_unreserve(&r);
        }
        qcow2_leave(s, epoch);
        offset += n * s->cluster_size;
        if (ret >= 0
            && __atomic_load_n(&s->n_pending, __ATOMIC_RELAXED)
               > PENDING_LIST_MAX) {
            ret = qcow2_co_writeback(bs);
        }
        if (ret >= 0) {
            ret = offset < end ? aio_co_yield_fair() : 0;
        }
    }
    if (ret >= 0
        && __atomic_load_n(&s->n_pending, __ATOMIC_RELAXED) > PENDING_MAX) {
        ret = qcow2_co_writeback(bs);
    }
    return ret;
}

int coroutine_fn qcow2_co_drop(BlockDriverState *bs, int64_t offset,
                               int64_t bytes, Qcow2DiscardType type,
                               bool full)
{
    return co_change(bs, offset, bytes, full ? DROP : DISCARD, type, false);
}

/* ---- subclusters ---- */

/* [@offset, @offset + @bytes): whole subclusters of one cluster, reserved. */
static int coroutine_fn co_zero_subclusters(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned lo = qcow2_in_cluster(s, offset) >> s->subcluster_bits;
    unsigned hi = lo + (bytes >> s->subcluster_bits);
    uint64_t bits = (UINT64_C(1) << hi) - (UINT64_C(1) << lo);
    uint64_t entry[2];
    int ret = qcow2_co_own_l2(bs, offset);

    if (ret >= 0) {
        ret = qcow2_co_read_entries(bs, offset, 1, entry);
    }
    if (ret >= 0 && (entry[0] & QCOW2_OFLAG_COMPRESSED)) {
        ret = -ENOTSUP;
    }
    if (ret < 0) {
        return ret;
    }
    /*
     * A cluster that a snapshot shares keeps its bitmap to itself: only this
     * entry says that these subclusters are zeroes.
     */
    entry[1] = (entry[1] & ~bits) | bits << 32;
    return qcow2_co_link(bs, offset, 1, entry);
}

/* ---- requests ---- */

/* Zeroes in the file, for less than a (sub)cluster. */
static int coroutine_fn co_write_zero_data(BlockDriverState *bs,
                                           int64_t offset, int64_t bytes)
{
    return bdrv_co_write_zero_buffers(bs, offset, bytes, qcow2_co_pwritev, 0);
}

int coroutine_fn qcow2_co_is_zero(BlockDriverState *bs, int64_t start,
                                  int64_t end, bool ask_backing)
{
    while (start < end) {
        Qcow2Extent ext;
        int ret = qcow2_co_run(bs, start, end - start, &ext);

        if (ret < 0) {
            return ret;
        }
        if (ext.type == QCOW2_NORMAL || ext.type == QCOW2_COMPRESSED
            || ((ext.type == QCOW2_UNALLOCATED
                 || ext.type == QCOW2_UNALLOCATED_ALLOC)
                && has_backing(bs, start)
                && !(ask_backing
                     && bdrv_co_is_zero_fast(bs->backing->bs, start,
                                             ext.bytes)))) {
            return 0;
        }
        start += ext.bytes;
        ret = start < end ? aio_co_yield_fair() : 0;
        if (ret < 0) {
            return ret;
        }
    }
    return 1;
}

/*
 * [@start, @end) of one (sub)cluster.  If the rest of it reads as zeroes, which
 * nobody changes while it is reserved, it becomes zeroes whole.
 */
static int coroutine_fn co_zero_part(BlockDriverState *bs, int64_t start,
                                     int64_t end, Change change)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t mask = s->subcluster_size - 1;
    int64_t unit = start & ~mask, unit_end = unit + mask + 1;
    unsigned epoch = qcow2_enter(s);
    Qcow2Reservation r;
    int ret;

    qcow2_co_reserve(s, &r, unit, unit_end);
    ret = qcow2_co_is_zero(bs, start, end, true);
    if (ret != 0) {
        qcow2_unreserve(&r);
        qcow2_leave(s, epoch);
        return MIN(ret, 0);
    }
    ret = qcow2_co_is_zero(bs, unit, start, true);
    if (ret > 0) {
        ret = qcow2_co_is_zero(bs, end, unit_end, true);
    }
    if (ret > 0) {
        ret = s->extended_l2
              ? co_zero_subclusters(bs, unit, s->subcluster_size)
              : co_change_slice(bs, unit, 1, change, QCOW2_DISCARD_REQUEST);
    } else if (ret == 0) {
        ret = -ENOTSUP;
    }
    qcow2_unreserve(&r);
    qcow2_leave(s, epoch);
    return ret == -ENOTSUP ? co_write_zero_data(bs, start, end - start) : ret;
}

/* Whole subclusters.  Those that make a whole cluster change together. */
static int coroutine_fn co_zero_units(BlockDriverState *bs, int64_t start,
                                      int64_t end, Change change)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    while (ret >= 0 && start < end) {
        int64_t cluster = qcow2_cluster_start(s, start);
        int64_t whole = qcow2_cluster_start(s, end);
        int64_t part_end = MIN(cluster + (int64_t)s->cluster_size, end);
        Qcow2Reservation r;
        unsigned epoch;

        if (start == cluster && whole > start) {
            ret = co_change(bs, start, whole - start, change,
                            QCOW2_DISCARD_REQUEST, true);
            start = whole;
            continue;
        }
        epoch = qcow2_enter(s);
        qcow2_co_reserve(s, &r, start, part_end);
        ret = co_zero_subclusters(bs, start, part_end - start);
        qcow2_unreserve(&r);
        qcow2_leave(s, epoch);
        if (ret == -ENOTSUP) {
            /* Compressed. */
            ret = co_write_zero_data(bs, start, part_end - start);
        }
        start = part_end;
    }
    return ret;
}

/* An image that cannot flag zeroes, or must have them in its raw data file. */
static bool must_write(BlockDriverState *bs, int64_t offset)
{
    BDRVQcow2State *s = bs->opaque;

    return s->version < 3 && has_backing(bs, offset);
}

/* The raw data file has what the guest sees, so zeroes go there. */
static int coroutine_fn co_zero_raw(BlockDriverState *bs, int64_t offset,
                                    int64_t bytes, BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    while (ret >= 0 && bytes > 0) {
        Qcow2Extent ext;
        unsigned epoch = qcow2_enter(s);

        ret = qcow2_co_extent(bs, offset, bytes, &ext);
        qcow2_leave(s, epoch);
        if (ret < 0) {
            break;
        }
        /* Encrypted, zeroes of the file are not the guest's. */
        if (ext.type == QCOW2_NORMAL && !s->crypto) {
            ret = bdrv_co_pwrite_zeroes(s->data_file, ext.host, ext.bytes,
                                        flags & BDRV_REQ_MAY_UNMAP);
        } else {
            ret = co_write_zero_data(bs, offset, ext.bytes);
        }
        offset += ext.bytes;
        bytes -= ext.bytes;
        if (ret >= 0) {
            ret = bytes > 0 ? aio_co_yield_fair() : 0;
        }
    }
    return ret;
}

int coroutine_fn qcow2_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, BdrvRequestFlags flags)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t mask = s->subcluster_size - 1, end = offset + bytes;
    int64_t first = (offset + mask) & ~mask, last = end & ~mask;
    Change change = flags & BDRV_REQ_MAY_UNMAP ? ZERO_UNMAP : ZERO_KEEP;
    int ret = 0;

    if (must_write(bs, offset)) {
        return -ENOTSUP;
    }
    if (s->version < 3 && !(flags & BDRV_REQ_MAY_UNMAP)) {
        unsigned epoch = qcow2_enter(s);

        ret = qcow2_co_is_zero(bs, offset, end, true);
        qcow2_leave(s, epoch);
        if (ret <= 0) {
            return -ENOTSUP;
        }
        ret = 0;
    }
    if (s->data_file_raw) {
        return co_zero_raw(bs, offset, bytes, flags);
    }
    if (end == bdrv_getlength(bs)) {
        /* Nothing is behind the end: its (sub)cluster is whole. */
        end = last = (end + mask) & ~mask;
    }
    if (first > last) {
        return co_zero_part(bs, offset, end, change);
    }
    if (offset < first) {
        ret = co_zero_part(bs, offset, first, change);
    }
    if (ret >= 0) {
        ret = co_zero_units(bs, first, last, change);
    }
    if (ret >= 0 && last < end) {
        ret = co_zero_part(bs, last, end, change);
    }
    return ret;
}

int coroutine_fn qcow2_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                   int64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t end = offset + bytes;

    if (end >= bdrv_getlength(bs)) {
        end = qcow2_cluster_end(s, end);
    }
    offset = qcow2_cluster_end(s, offset);
    end = qcow2_cluster_start(s, end);
    if (offset >= end) {
        return 0;
    }
    if (s->data_file_raw) {
        /* The mapping stays: the file shows what the guest sees. */
        return s->pass_discard[QCOW2_DISCARD_REQUEST]
               ? bdrv_co_pdiscard(s->data_file, offset,
                                  MIN(end, bdrv_getlength(bs)) - offset)
               : 0;
    }
    if (must_write(bs, offset)) {
        /* Version 2 would uncover what the backing node has. */
        return -ENOTSUP;
    }
    return co_change(bs, offset, end - offset, DISCARD, QCOW2_DISCARD_REQUEST,
                     true);
}
