/* SPDX-License-Identifier: MIT */
/*
 * qcow2: bringing changed metadata to the file, and freeing what is given up.
 *
 * The order is what keeps an image whole through a crash (qcow2.h, 4 and 5):
 *
 *     refcount blocks that the file's table lacks; flush; the table's entries
 *     all other refcount blocks; flush (of these and of the data)
 *     L2 slices, L1 entries; flush
 *     discard what is unreachable now; its refcounts go down in the cache
 *
 * Tables are copied under s->lock when it begins, so requests go on changing
 * them meanwhile; what they change is dirty again and waits for the next one.
 * With lazy refcounts the image's dirty bit is set, and refcount blocks are
 * written only when it is to be cleared, or when they leave the cache.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <string.h>

/* Slices that one round copies: bounds memory. */
#define ROUND_COPIES 64

typedef struct Round {
    Qcow2CacheCopy l2[ROUND_COPIES];
    Qcow2CacheCopy *blocks;     /* all: they come before any L2 table */
    unsigned n_l2, n_blocks;
    bool more;                  /* dirty L2 slices are left */
    uint64_t *l1;               /* big-endian entries [l1_start, l1_end) */
    uint32_t l1_start, l1_end;
    uint64_t l1_offset;         /* of the table in the file */
    uint64_t *reftable;         /* likewise */
    uint64_t reftable_start, reftable_end;
    uint64_t reftable_offset;
    Qcow2FreeList given_up;
    unsigned n_given_up;
} Round;

static uint64_t *copy_be(const uint64_t *table, uint64_t start, uint64_t end)
{
    uint64_t *copy = g_new(uint64_t, end - start);

    for (uint64_t i = start; i < end; i++) {
        copy[i - start] = GUINT64_TO_BE(table[i]);
    }
    return copy;
}

/* Take what is dirty now; false: nothing is.  s->lock held. */
static bool begin_round(BlockDriverState *bs, Round *r)
{
    BDRVQcow2State *s = bs->opaque;
    size_t align = bs->file->bs->bl.request_alignment;
    bool new_blocks = s->reftable_dirty_end > s->reftable_dirty_start;
    unsigned n = qcow2_cache_n_dirty(s->refblock_cache);

    r->n_l2 = qcow2_cache_copy_dirty(s->l2_cache, r->l2, ROUND_COPIES, align,
                                     false);
    r->more = qcow2_cache_n_dirty(s->l2_cache) > 0;
    if (s->use_lazy_refcounts && !s->settling && !new_blocks) {
        n = 0;
    }
    r->blocks = g_new(Qcow2CacheCopy, n);
    r->n_blocks = qcow2_cache_copy_dirty(s->refblock_cache, r->blocks, n,
                                         align, false);
    r->l1 = r->reftable = NULL;
    r->l1_offset = s->l1_table_offset;
    r->reftable_offset = s->reftable_offset;
    if (s->l1_dirty_end > s->l1_dirty_start) {
        r->l1_start = s->l1_dirty_start;
        r->l1_end = s->l1_dirty_end;
        r->l1 = copy_be(s->l1_table, r->l1_start, r->l1_end);
        s->l1_dirty_start = s->l1_dirty_end = 0;
    }
    if (new_blocks) {
        r->reftable_start = s->reftable_dirty_start;
        r->reftable_end = s->reftable_dirty_end;
        r->reftable = copy_be(s->reftable, r->reftable_start,
                              r->reftable_end);
        s->reftable_dirty_start = s->reftable_dirty_end = 0;
    }
    TAILQ_INIT(&r->given_up);
    r->n_given_up = 0;
    if (!r->more) {
        TAILQ_CONCAT(&r->given_up, &s->pending, next);
        r->n_given_up = __atomic_exchange_n(&s->n_pending, 0,
                                            __ATOMIC_RELAXED);
    }
    return r->n_l2 || r->n_blocks || r->l1 || r->reftable
           || !TAILQ_EMPTY(&r->given_up);
}

static void end_copies(Qcow2Cache *c, Qcow2CacheCopy *copies, unsigned n,
                       bool failed)
{
    for (unsigned i = 0; i < n; i++) {
        qcow2_cache_copy_done(c, &copies[i], failed);
    }
}

static void widen(uint64_t *start, uint64_t *end, uint64_t from, uint64_t to)
{
    if (*end > *start) {
        from = MIN(from, *start);
        to = MAX(to, *end);
    }
    *start = from;
    *end = to;
}

/* After a failure all is as dirty as before. */
static void coroutine_fn co_end_round(BDRVQcow2State *s, Round *r,
                                      bool failed)
{
    /* First: who holds s->lock may be waiting for a place in a cache. */
    end_copies(s->l2_cache, r->l2, r->n_l2, failed);
    end_copies(s->refblock_cache, r->blocks, r->n_blocks, failed);

    co_mutex_lock(&s->lock);
    if (failed && r->l1) {
        uint64_t start = s->l1_dirty_start, end = s->l1_dirty_end;

        widen(&start, &end, r->l1_start, r->l1_end);
        s->l1_dirty_start = start;
        s->l1_dirty_end = end;
    }
    if (failed && r->reftable) {
        widen(&s->reftable_dirty_start, &s->reftable_dirty_end,
              r->reftable_start, r->reftable_end);
    }
    if (failed) {
        TAILQ_CONCAT(&r->given_up, &s->pending, next);
        TAILQ_CONCAT(&s->pending, &r->given_up, next);
        __atomic_fetch_add(&s->n_pending, r->n_given_up, __ATOMIC_RELAXED);
    } else {
        TAILQ_CONCAT(&s->stable, &r->given_up, next);
    }
    co_mutex_unlock(&s->lock);
    g_free(r->blocks);
    g_free(r->l1);
    g_free(r->reftable);
}

/* ---- writing ---- */

int coroutine_fn qcow2_co_write_metadata(BlockDriverState *bs,
                                         Qcow2Overlap kind, uint64_t offset,
                                         uint64_t bytes, const void *data)
{
    static const BlkdebugEvent events[] = {
        [__builtin_ctz(QCOW2_OL_ACTIVE_L1)] = BLKDBG_L1_UPDATE,
        [__builtin_ctz(QCOW2_OL_ACTIVE_L2)] = BLKDBG_L2_UPDATE,
        [__builtin_ctz(QCOW2_OL_REFCOUNT_TABLE)] = BLKDBG_REFTABLE_UPDATE,
        [__builtin_ctz(QCOW2_OL_REFCOUNT_BLOCK)] = BLKDBG_REFBLOCK_UPDATE_PART,
    };
    BDRVQcow2State *s = bs->opaque;

    if (__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)
        || qcow2_overlaps(bs, kind, offset, bytes)) {
        return -EIO;
    }
    BLKDBG_EVENT(bs->file, events[__builtin_ctz(kind)]);
    return bdrv_co_pwrite(bs->file, offset, bytes, data, 0);
}

static int coroutine_fn co_write_copies(BlockDriverState *bs,
                                        const Qcow2CacheCopy *copies,
                                        unsigned n, Qcow2Overlap kind)
{
    int ret = 0;

    for (unsigned i = 0; ret >= 0 && i < n; i++) {
        const Qcow2CacheCopy *copy = &copies[i];

        ret = qcow2_co_write_metadata(bs, kind, copy->offset + copy->start,
                                      copy->end - copy->start, copy->data);
    }
    return ret;
}

/* Entries [@start, @end) of the L1 or refcount table at @offset. */
static int coroutine_fn co_write_table(BlockDriverState *bs, Qcow2Overlap kind,
                                       uint64_t offset, uint64_t start,
                                       uint64_t end, const uint64_t *entries)
{
    return qcow2_co_write_metadata(bs, kind, offset + start * sizeof(*entries),
                                   (end - start) * sizeof(*entries), entries);
}

static int coroutine_fn co_flush_data(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = bdrv_co_flush(bs->file->bs);

    if (ret >= 0 && s->data_file != bs->file) {
        ret = bdrv_co_flush(s->data_file->bs);
    }
    return ret;
}

static int coroutine_fn co_write_round(BlockDriverState *bs, const Round *r)
{
    int ret = co_write_copies(bs, r->blocks, r->n_blocks,
                              QCOW2_OL_REFCOUNT_BLOCK);

    if (ret >= 0 && r->reftable) {
        ret = bdrv_co_flush(bs->file->bs);
        if (ret >= 0) {
            ret = co_write_table(bs, QCOW2_OL_REFCOUNT_TABLE,
                                 r->reftable_offset, r->reftable_start,
                                 r->reftable_end, r->reftable);
        }
    }
    if (ret < 0 || (!r->n_l2 && !r->l1 && TAILQ_EMPTY(&r->given_up))) {
        return ret;
    }

    ret = co_flush_data(bs);
    if (ret >= 0) {
        ret = co_write_copies(bs, r->l2, r->n_l2, QCOW2_OL_ACTIVE_L2);
    }
    if (ret >= 0 && r->l1) {
        ret = co_write_table(bs, QCOW2_OL_ACTIVE_L1, r->l1_offset, r->l1_start,
                             r->l1_end, r->l1);
    }
    if (ret >= 0 && !TAILQ_EMPTY(&r->given_up)) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    return ret;
}

/* ---- freeing; wb_lock held ---- */

/* Does nobody else use the cluster? */
static bool coroutine_fn co_is_last_use(BlockDriverState *bs, uint64_t cluster)
{
    uint64_t refcount;

    return qcow2_co_get_refcount(bs, cluster, &refcount) >= 0 && refcount == 1;
}

/*
 * The first clusters in a row, from *@pos on and before @end, that nobody else
 * uses: from *@pos on as well, this many.  s->lock held.
 */
static uint64_t coroutine_fn co_find_unused(BlockDriverState *bs,
                                            uint64_t *pos, uint64_t end)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t n = 0, shared = s->free_byte_offset >> s->cluster_bits;

    while (*pos < end && !co_is_last_use(bs, *pos)) {
        ++*pos;
        aio_co_yield_fair();
    }
    while (*pos + n < end && co_is_last_use(bs, *pos + n)) {
        n++;
        aio_co_yield_fair();
    }
    if (shared >= *pos && shared < *pos + n) {
        /* Other compressed data must not move in meanwhile. */
        s->free_byte_offset = 0;
    }
    return n;
}

/* Before anyone can take the clusters.  It is a hint: errors are none. */
static void coroutine_fn co_discard(BlockDriverState *bs, const Qcow2Free *f)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t pos = f->offset >> s->cluster_bits;
    uint64_t end = (f->offset + f->bytes) >> s->cluster_bits;

    if (!s->pass_discard[f->type]
        || qcow2_in_cluster(s, f->offset | f->bytes)) {
        return;
    }
    while (pos < end) {
        uint64_t n;

        co_mutex_lock(&s->lock);
        n = co_find_unused(bs, &pos, end);
        co_mutex_unlock(&s->lock);
        if (n > 0) {
            bdrv_co_pdiscard(bs->file, pos << s->cluster_bits,
                             n << s->cluster_bits);
        }
        pos += n;
    }
}

static void coroutine_fn co_free(BlockDriverState *bs, Qcow2Free *f)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t start = qcow2_cluster_start(s, f->offset);
    uint64_t end = qcow2_cluster_end(s, f->offset + f->bytes);

    co_discard(bs, f);
    qcow2_compress_forget(s, start, end - start);

    co_mutex_lock(&s->lock);
    BLKDBG_EVENT(bs->file, BLKDBG_CLUSTER_FREE);
    /* What cannot be counted down leaks. */
    qcow2_co_change_refcount(bs, f->offset, f->bytes, -1);
    co_mutex_unlock(&s->lock);
}

static void coroutine_fn co_free_list(BlockDriverState *bs,
                                      Qcow2FreeList *list)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2Free *f;

    while ((f = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, f, next);
        /* What a corrupt image gives up may be something else as well. */
        if (!__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)) {
            co_free(bs, f);
        }
        g_free(f);
        aio_co_yield_fair();
    }
}

/*
 * Free what nobody can be using any more.  At most two generations wait: one
 * for the users of the epoch that has ended, the next for that.
 */
static void coroutine_fn co_reap(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;

    for (int i = 0; i < 2; i++) {
        if (!TAILQ_EMPTY(&s->waiting)) {
            if (inflight_sum(&s->users[!s->epoch]) > 0) {
                return;
            }
            co_free_list(bs, &s->waiting);
        }
        if (TAILQ_EMPTY(&s->stable)
            || inflight_sum(&s->users[!s->epoch]) > 0) {
            return;
        }
        TAILQ_CONCAT(&s->waiting, &s->stable, next);
        __atomic_store_n(&s->epoch, !s->epoch, __ATOMIC_SEQ_CST);
    }
}

/* ---- write-back ---- */

static int coroutine_fn co_writeback_locked(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Round *r = g_new(Round, 1);
    int ret = qcow2_co_header_sure(bs);
    bool more = true;

    while (ret >= 0 && more) {
        bool any;

        co_mutex_lock(&s->lock);
        any = begin_round(bs, r);
        co_mutex_unlock(&s->lock);
        more = r->more;
        if (!any) {
            g_free(r->blocks);
            break;
        }
        if (__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)) {
            ret = -EIO;
        } else {
            ret = co_write_round(bs, r);
        }
        co_end_round(s, r, ret < 0);
    }
    g_free(r);
    if (ret >= 0) {
        co_reap(bs);
    }
    return ret;
}

/* Nothing left to write, or to free.  wb_lock held. */
static bool coroutine_fn co_is_clean(BDRVQcow2State *s)
{
    bool clean;

    co_mutex_lock(&s->lock);
    clean = !qcow2_cache_n_dirty(s->l2_cache)
            && !qcow2_cache_n_dirty(s->refblock_cache)
            && s->l1_dirty_end <= s->l1_dirty_start
            && s->reftable_dirty_end <= s->reftable_dirty_start
            && TAILQ_EMPTY(&s->pending);
    co_mutex_unlock(&s->lock);
    return clean && TAILQ_EMPTY(&s->stable) && TAILQ_EMPTY(&s->waiting)
           && !qcow2_header_unsure(s);
}

int coroutine_fn qcow2_co_writeback(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t want = __atomic_load_n(&s->wb_begun, __ATOMIC_ACQUIRE) + 1;
    int ret = 0;

    if (bs->read_only) {
        return 0;
    }
    co_mutex_lock(&s->wb_lock);
    if (s->wb_done < want && !co_is_clean(s)) {
        uint64_t number = s->wb_begun + 1;

        __atomic_store_n(&s->wb_begun, number, __ATOMIC_RELEASE);
        ret = co_writeback_locked(bs);
        if (ret >= 0) {
            s->wb_done = number;
        }
    }
    co_mutex_unlock(&s->wb_lock);
    return ret;
}

int coroutine_fn qcow2_co_settle(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    s->settling = true;
    /* Freeing makes refcounts dirty once more. */
    while (ret >= 0 && !bs->read_only && !co_is_clean(s)) {
        ret = qcow2_co_writeback(bs);
    }
    s->settling = false;
    if (ret >= 0 && !bs->read_only) {
        ret = co_flush_data(bs);
    }
    if (ret >= 0) {
        qcow2_cache_forget_all(s->l2_cache);
        qcow2_cache_forget_all(s->refblock_cache);
    }
    return ret;
}

/* ---- reservations ---- */

static bool no_earlier_overlap(void *opaque)
{
    Qcow2Reservation *r = opaque, *other;
    bool none = true;

    pthread_mutex_lock(&r->s->reserve_lock);
    TAILQ_FOREACH(other, &r->s->reservations, next) {
        if (other == r) {
            break;
        }
        if (other->start < r->end && r->start < other->end) {
            none = false;
            break;
        }
    }
    pthread_mutex_unlock(&r->s->reserve_lock);
    return none;
}

void coroutine_fn qcow2_co_reserve(BDRVQcow2State *s, Qcow2Reservation *r,
                                   int64_t start, int64_t end)
{
    r->s = s;
    r->start = qcow2_cluster_start(s, start);
    r->end = end > INT64_MAX - (int64_t)s->cluster_size
             ? INT64_MAX : qcow2_cluster_end(s, end);
    pthread_mutex_lock(&s->reserve_lock);
    TAILQ_INSERT_TAIL(&s->reservations, r, next);
    pthread_mutex_unlock(&s->reserve_lock);
    if (!no_earlier_overlap(r)) {
        wait_set_co_wait(&s->reserve_done, no_earlier_overlap, r);
    }
}

void qcow2_unreserve(Qcow2Reservation *r)
{
    BDRVQcow2State *s = r->s;

    pthread_mutex_lock(&s->reserve_lock);
    TAILQ_REMOVE(&s->reservations, r, next);
    pthread_mutex_unlock(&s->reserve_lock);
    wait_set_wake(&s->reserve_done);
}
