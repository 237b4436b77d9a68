/* SPDX-License-Identifier: MIT */
/*
 * BlockBackend: a user of the graph.
 *
 * Its edge to the root node belongs to the main thread and changes only while
 * drained.  Requests may come from any thread; they are counted here and
 * nowhere else (blk_co_begin_request), so the nodes take no graph lock.
 */
#include "block/block-int.h"

#include "block/accounting.h"

struct BlockBackend {
    BdrvChild *root;                    /* NULL: not attached */
    char *name;
    uint64_t perm, shared_perm;
    bool writethrough;
    InFlight in_flight;
    unsigned quiesced;                  /* atomic; drained sections over root */
    WaitSet parked;                     /* requests that wait meanwhile */
    BlockAcct *acct;                    /* INFLIGHT_SLOTS of them */
};

BlockBackend *blk_new(const char *name, uint64_t perm, uint64_t shared_perm)
{
    BlockBackend *blk = g_new0(BlockBackend, 1);

    blk->name = g_strdup(name);
    blk->perm = perm;
    blk->shared_perm = shared_perm;
    inflight_init(&blk->in_flight, &bdrv_drain_waiters);
    wait_set_init(&blk->parked);
    blk->acct = g_aligned_alloc0(INFLIGHT_SLOTS, sizeof(BlockAcct),
                                 _Alignof(BlockAcct));
    return blk;
}

bool coroutine_fn blk_co_attach(BlockBackend *blk, BlockDriverState *bs,
                                Error **errp)
{
    /* The node must not go while we wait for the lock. */
    bdrv_ref(bs);
    bdrv_graph_co_lock();
    g_assert(!blk->root);
    blk->root = bdrv_co_attach_edge(bs, NULL, blk, "root", 0, blk->perm,
                                    blk->shared_perm, errp);
    bdrv_co_unref_locked(bs);
    bdrv_graph_unlock();
    return blk->root != NULL;
}

bool coroutine_fn blk_co_set_perm(BlockBackend *blk, uint64_t perm,
                                  uint64_t shared_perm, Error **errp)
{
    bool ok;

    bdrv_graph_co_lock();
    ok = !blk->root || bdrv_co_child_set_perm(blk->root, perm, shared_perm,
                                              errp);
    if (ok) {
        blk->perm = perm;
        blk->shared_perm = shared_perm;
    }
    bdrv_graph_unlock();
    return ok;
}

void coroutine_fn blk_co_free(BlockBackend *blk)
{
    if (!blk) {
        return;
    }
    if (blk->root) {
        BlockDriverState *bs = blk->root->bs;

        bdrv_graph_co_lock();
        bdrv_co_detach_edge(blk->root);
        blk->root = NULL;
        blk_acct_sum(blk, bs->retired_acct);
        bdrv_co_unref_locked(bs);
        bdrv_graph_unlock();
    }
    inflight_deinit(&blk->in_flight);
    wait_set_deinit(&blk->parked);
    g_aligned_free(blk->acct);
    g_free(blk->name);
    g_free(blk);
}

BlockDriverState *blk_bs(const BlockBackend *blk)
{
    return blk->root ? blk->root->bs : NULL;
}

BdrvChild *blk_root(const BlockBackend *blk)
{
    return blk->root;
}

const char *blk_name(const BlockBackend *blk)
{
    return blk->name ? blk->name : "an unnamed block device";
}

void blk_set_writethrough(BlockBackend *blk, bool enable)
{
    blk->writethrough = enable;
}

/* ---- in flight ---- */

static bool may_enter(void *opaque)
{
    BlockBackend *blk = opaque;

    return __atomic_load_n(&blk->quiesced, __ATOMIC_SEQ_CST) == 0;
}

void coroutine_fn blk_co_begin_request(BlockBackend *blk)
{
    inflight_inc(&blk->in_flight);
    while (__builtin_expect(!may_enter(blk), 0)) {
        inflight_dec(&blk->in_flight);
        wait_set_co_wait(&blk->parked, may_enter, blk);
        inflight_inc(&blk->in_flight);
    }
}

void blk_end_request(BlockBackend *blk)
{
    inflight_dec(&blk->in_flight);
}

unsigned blk_in_flight(const BlockBackend *blk)
{
    int64_t sum = inflight_sum(&blk->in_flight);

    return sum > 0 ? sum : 0;
}

void blk_quiesce(BlockBackend *blk)
{
    __atomic_fetch_add(&blk->quiesced, 1, __ATOMIC_SEQ_CST);
}

void blk_unquiesce(BlockBackend *blk)
{
    unsigned before = __atomic_fetch_sub(&blk->quiesced, 1, __ATOMIC_SEQ_CST);

    g_assert(before > 0);
    if (before == 1) {
        wait_set_wake(&blk->parked);
    }
}

/* ---- accounting ---- */

static inline void count(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static void acct_done(BlockBackend *blk, BlockAcctType type, int64_t start_ns,
                      int64_t bytes, int ret)
{
    BlockAcct *acct = &blk->acct[inflight_slot()];
    int64_t now = clock_now_ns();

    if (ret < 0) {
        count(&acct->failed[type], 1);
    } else {
        count(&acct->bytes[type], bytes);
        count(&acct->ops[type], 1);
    }
    count(&acct->time_ns[type], now - start_ns);
    __atomic_store_n(&acct->last_access_ns, now, __ATOMIC_RELAXED);
}

static int acct_invalid(BlockBackend *blk, BlockAcctType type, int ret)
{
    count(&blk->acct[inflight_slot()].invalid[type], 1);
    return ret;
}

void block_acct_add(BlockAcct *to, const BlockAcct *from)
{
    int64_t last = __atomic_load_n(&from->last_access_ns, __ATOMIC_RELAXED);

    for (int i = 0; i < BLOCK_ACCT__MAX; i++) {
        to->bytes[i] += __atomic_load_n(&from->bytes[i], __ATOMIC_RELAXED);
        to->ops[i] += __atomic_load_n(&from->ops[i], __ATOMIC_RELAXED);
        to->time_ns[i] += __atomic_load_n(&from->time_ns[i], __ATOMIC_RELAXED);
        to->failed[i] += __atomic_load_n(&from->failed[i], __ATOMIC_RELAXED);
        to->invalid[i] += __atomic_load_n(&from->invalid[i], __ATOMIC_RELAXED);
    }
    to->last_access_ns = MAX(to->last_access_ns, last);
}

void blk_acct_sum(const BlockBackend *blk, BlockAcct *to)
{
    for (unsigned i = 0; i < INFLIGHT_SLOTS; i++) {
        block_acct_add(to, &blk->acct[i]);
    }
}

/* ---- I/O ---- */

/* 0 or -errno: is this a request within the node, and allowed to us? */
static int check_request(BlockBackend *blk, int64_t offset, int64_t bytes,
                         bool is_write)
{
    if (!blk->root) {
        return -ENOMEDIUM;
    }
    if (is_write && !(blk->root->perm & BLK_PERM_WRITE)) {
        return -EPERM;
    }
    if (!bdrv_range_ok(offset, bytes)
        || offset + bytes > bdrv_getlength(blk->root->bs)) {
        return -EIO;
    }
    return 0;
}

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset,
                               QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    int ret = check_request(blk, offset, qiov->size, false);
    int64_t start;

    if (ret < 0) {
        return acct_invalid(blk, BLOCK_ACCT_READ, ret);
    }
    start = clock_now_ns();
    ret = bdrv_co_preadv(blk->root, offset, qiov, flags);
    acct_done(blk, BLOCK_ACCT_READ, start, qiov->size, ret);
    return ret;
}

int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset,
                                QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    int ret = check_request(blk, offset, qiov->size, true);
    int64_t start;

    if (ret < 0) {
        return acct_invalid(blk, BLOCK_ACCT_WRITE, ret);
    }
    if (blk->writethrough) {
        flags |= BDRV_REQ_FUA;
    }
    start = clock_now_ns();
    ret = bdrv_co_pwritev(blk->root, offset, qiov, flags);
    acct_done(blk, BLOCK_ACCT_WRITE, start, qiov->size, ret);
    return ret;
}

int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset,
                                      int64_t bytes, BdrvRequestFlags flags)
{
    int ret = check_request(blk, offset, bytes, true);
    int64_t start;

    if (ret < 0) {
        return acct_invalid(blk, BLOCK_ACCT_WRITE, ret);
    }
    if (blk->writethrough) {
        flags |= BDRV_REQ_FUA;
    }
    start = clock_now_ns();
    ret = bdrv_co_pwrite_zeroes(blk->root, offset, bytes, flags);
    if (ret == -ENOTSUP && (flags & BDRV_REQ_NO_FALLBACK)) {
        return ret;         /* an answer, no failure */
    }
    acct_done(blk, BLOCK_ACCT_WRITE, start, bytes, ret);
    return ret;
}

int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset,
                                 int64_t bytes)
{
    int ret = check_request(blk, offset, bytes, true);
    int64_t start;

    if (ret < 0) {
        return acct_invalid(blk, BLOCK_ACCT_UNMAP, ret);
    }
    start = clock_now_ns();
    ret = bdrv_co_pdiscard(blk->root, offset, bytes);
    acct_done(blk, BLOCK_ACCT_UNMAP, start, bytes, ret);
    return ret;
}

int coroutine_fn blk_co_flush(BlockBackend *blk)
{
    int64_t start;
    int ret;

    if (!blk->root) {
        return acct_invalid(blk, BLOCK_ACCT_FLUSH, -ENOMEDIUM);
    }
    start = clock_now_ns();
    ret = bdrv_co_flush(blk->root->bs);
    acct_done(blk, BLOCK_ACCT_FLUSH, start, 0, ret);
    return ret;
}

int coroutine_fn blk_co_truncate(BlockBackend *blk, int64_t offset,
                                 PreallocMode prealloc,
                                 BdrvRequestFlags flags, Error **errp)
{
    if (!blk->root) {
        error_setg(errp, "No medium inserted");
        return -ENOMEDIUM;
    }
    if (!(blk->root->perm & BLK_PERM_RESIZE)) {
        error_setg(errp, "No permission to resize node '%s'",
                   blk->root->bs->node_name);
        return -EPERM;
    }
    return bdrv_co_truncate(blk->root, offset, prealloc, flags, errp);
}

int coroutine_fn blk_co_block_status(BlockBackend *blk, int64_t offset,
                                     int64_t bytes, int64_t *pnum)
{
    if (!blk->root) {
        return -ENOMEDIUM;
    }
    return bdrv_co_block_status(blk->root->bs, offset, bytes, pnum, NULL,
                                NULL);
}

int64_t blk_getlength(BlockBackend *blk)
{
    return blk->root ? bdrv_getlength(blk->root->bs) : -ENOMEDIUM;
}

int64_t coroutine_fn blk_co_getlength(BlockBackend *blk)
{
    return blk->root ? bdrv_co_getlength(blk->root->bs) : -ENOMEDIUM;
}

int64_t coroutine_fn blk_co_get_allocated_file_size(BlockBackend *blk)
{
    return blk->root ? bdrv_co_get_allocated_file_size(blk->root->bs)
                     : -ENOMEDIUM;
}

uint32_t blk_get_request_alignment(BlockBackend *blk)
{
    return blk->root ? blk->root->bs->bl.request_alignment : 512;
}

size_t blk_get_memory_alignment(BlockBackend *blk)
{
    return blk->root ? blk->root->bs->bl.min_mem_alignment : 512;
}
