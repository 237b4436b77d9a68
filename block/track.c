/* SPDX-License-Identifier: MIT */
/*
 * Writes that exclude each other.
 *
 * A read-modify-write of a partial block, or a truncation, must not overlap
 * another write: a write that lands between its read and its write would be
 * lost.  Such requests are called serialising; all other writes never exclude
 * each other.
 *
 * As long as there is no serialising request on a node, writes only count
 * themselves (bs->writes).  A serialising request first raises bs->serialising,
 * which sends all new writes to the list bs->tracked, waits until the counted
 * ones are done, and then for those before it in the list that overlap it.
 * Everyone waits only for requests earlier in the list: no cycles, no
 * starvation.
 */
#include "block/block-int.h"

static bool conflicts(const TrackedRequest *a, const TrackedRequest *b)
{
    return (a->serialising || b->serialising)
           && a->offset < b->end && b->offset < a->end;
}

/* The first request before @req that it must wait for.  tracked_lock held. */
static TrackedRequest *find_conflict(BlockDriverState *bs,
                                     const TrackedRequest *req)
{
    TrackedRequest *other;

    TAILQ_FOREACH(other, &bs->tracked, next) {
        if (other == req) {
            return NULL;
        }
        if (conflicts(req, other)) {
            return other;
        }
    }
    g_assert_not_reached();
}

static bool no_conflict(void *opaque)
{
    TrackedRequest *req = opaque;
    bool none;

    pthread_mutex_lock(&req->bs->tracked_lock);
    none = !find_conflict(req->bs, req);
    pthread_mutex_unlock(&req->bs->tracked_lock);
    return none;
}

static bool no_untracked_writes(void *opaque)
{
    BlockDriverState *bs = opaque;

    return inflight_sum(&bs->writes) <= 0;
}

static void list_request(BlockDriverState *bs, TrackedRequest *req)
{
    req->listed = true;
    pthread_mutex_lock(&bs->tracked_lock);
    TAILQ_INSERT_TAIL(&bs->tracked, req, next);
    pthread_mutex_unlock(&bs->tracked_lock);
}

void coroutine_fn track_co_begin(BlockDriverState *bs, TrackedRequest *req,
                                 int64_t offset, int64_t end,
                                 bool serialising)
{
    req->bs = bs;
    req->offset = offset;
    req->end = end;
    req->serialising = serialising;
    req->listed = false;

    if (!serialising) {
        inflight_inc(&bs->writes);
        if (__atomic_load_n(&bs->serialising, __ATOMIC_SEQ_CST) == 0) {
            return;
        }
        list_request(bs, req);
        inflight_dec(&bs->writes);
    } else {
        __atomic_fetch_add(&bs->serialising, 1, __ATOMIC_SEQ_CST);
        list_request(bs, req);
        wait_set_co_wait(&bs->writes_idle, no_untracked_writes, bs);
    }
    wait_set_co_wait(&bs->tracked_done, no_conflict, req);
}

void coroutine_fn track_co_begin_to_end(BlockDriverState *bs,
                                        TrackedRequest *req, int64_t offset,
                                        int64_t end)
{
    bool at_end = end >= bdrv_getlength(bs);

    track_co_begin(bs, req, offset, at_end ? INT64_MAX : end, false);
    if (!at_end && end >= bdrv_getlength(bs)) {
        /* It has been cut meanwhile. */
        track_end(req);
        track_co_begin(bs, req, offset, INT64_MAX, false);
    }
}

void track_end(TrackedRequest *req)
{
    BlockDriverState *bs = req->bs;

    if (!req->listed) {
        inflight_dec(&bs->writes);
        return;
    }
    pthread_mutex_lock(&bs->tracked_lock);
    TAILQ_REMOVE(&bs->tracked, req, next);
    pthread_mutex_unlock(&bs->tracked_lock);
    if (req->serialising) {
        __atomic_fetch_sub(&bs->serialising, 1, __ATOMIC_SEQ_CST);
    }
    wait_set_wake(&bs->tracked_done);
}
