/* SPDX-License-Identifier: MIT */
/*
 * qcow2: host clusters, taken and given up.
 *
 * Everything here runs with s->lock held.  A cluster is free if its refcount is
 * 0.  Looking for free ones goes upwards from s->free_hint.  What is given up
 * is only put on a list here; qcow2-writeback.c frees it.
 */
#include "block/qcow2.h"

#include <errno.h>

/* Longest file: what L2 entries can address, and the file layer takes. */
#define MAX_FILE_BYTES (UINT64_C(1) << 56)

/*
 * Full refcount blocks in a row after which the table is suspect: the same
 * block everywhere would be looked at for hours.
 */
#define SUSPECT_BLOCKS UINT64_C(64)

/* Clusters looked at between two looks at the clock. */
#define LOOK_CLUSTERS 16

/* ---- free clusters in a row ---- */

/* Free clusters in a row: @n from @first on. */
typedef struct FreeRun {
    uint64_t first, n;
} FreeRun;

/*
 * Free cluster @pos is next to the run.  If it needs a refcount block, that
 * takes the run's first cluster, so that the run goes on, or else @pos.
 */
static int coroutine_fn co_cover(BlockDriverState *bs, uint64_t pos,
                                 FreeRun *run)
{
    int ret = qcow2_co_cover(bs, pos, run->n ? run->first : pos);

    if (ret > 0 && run->n) {
        run->first++;
        run->n--;
    }
    return ret;
}

/* True in *@is_free if @pos is; then it has a refcount block. */
static int coroutine_fn co_look(BlockDriverState *bs, uint64_t pos,
                                FreeRun *run, bool *is_free)
{
    uint64_t refcount;
    int ret = qcow2_co_get_refcount(bs, pos, &refcount);

    if (ret >= 0 && refcount == 0) {
        ret = co_cover(bs, pos, run);
        if (ret >= 0) {
            /* Covering it may have used it. */
            ret = qcow2_co_get_refcount(bs, pos, &refcount);
        }
    }
    *is_free = refcount == 0;
    return ret;
}

/* Find @min to @max free clusters in a row; 0 or -errno. */
static int coroutine_fn co_find_free(BlockDriverState *bs, uint64_t min,
                                     uint64_t max, FreeRun *run)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t limit = MAX_FILE_BYTES >> s->cluster_bits;
    uint64_t suspect = s->free_hint + (SUSPECT_BLOCKS << s->refblock_bits);
    uint64_t hint = UINT64_MAX;

    *run = (FreeRun) { 0 };
    for (uint64_t pos = s->free_hint; run->n < max; pos++) {
        bool is_free;
        int ret = 0;

        if (pos >= limit) {
            return run->n >= min ? 0 : -EFBIG;
        }
        if (pos % LOOK_CLUSTERS == 0) {
            /* With s->lock, so that what was found is still free. */
            ret = aio_co_yield_fair();
        }
        if (ret >= 0 && pos == suspect && !s->reftable_checked) {
            ret = qcow2_co_check_reftable(bs);
        }
        if (ret < 0) {
            return ret;
        }
        ret = co_look(bs, pos, run, &is_free);
        if (ret < 0) {
            return ret;
        }
        if (is_free) {
            if (run->n++ == 0) {
                run->first = pos;
            }
            hint = MIN(hint, run->first);
        } else if (run->n >= min) {
            break;
        } else {
            run->n = 0;
        }
    }
    s->free_hint = hint;
    return 0;
}

/* ---- taking them ---- */

int64_t coroutine_fn qcow2_co_alloc(BlockDriverState *bs, uint64_t min,
                                    uint64_t max, uint64_t *got,
                                    bool *virgin)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t offset, bytes;
    FreeRun run;
    int ret;

    BLKDBG_EVENT(bs->file, BLKDBG_CLUSTER_ALLOC);
    if (__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)) {
        return -EIO;
    }
    if (s->use_lazy_refcounts) {
        /* Whoever takes clusters, the file may come to refer to them first. */
        ret = qcow2_co_mark_dirty(bs);
        if (ret < 0) {
            return ret;
        }
    }
    ret = co_find_free(bs, min >> s->cluster_bits, max >> s->cluster_bits,
                       &run);
    if (ret < 0) {
        return ret;
    }
    offset = run.first << s->cluster_bits;
    bytes = run.n << s->cluster_bits;
    if (offset == 0) {
        qcow2_signal_corruption(bs, true, -1, -1, "Preventing invalid "
                                "allocation of data cluster at offset 0");
        return -EIO;
    }
    if (qcow2_overlaps(bs, 0, offset, bytes)) {
        return -EIO;
    }
    ret = qcow2_co_change_refcount(bs, offset, bytes, 1);
    if (ret < 0) {
        return ret;
    }
    if (s->free_hint == run.first) {
        s->free_hint = run.first + run.n;
    }
    if (virgin) {
        *virgin = offset >= s->virgin_start;
    }
    if (s->virgin_start < offset + bytes) {
        s->virgin_start = offset + bytes;
    }
    *got = bytes;
    return offset;
}

/* Compressed clusters lie one behind the other, across cluster boundaries. */
int64_t coroutine_fn qcow2_co_alloc_bytes(BlockDriverState *bs,
                                          uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t offset = s->free_byte_offset;
    uint64_t room = offset ? s->cluster_size - qcow2_in_cluster(s, offset) : 0;
    uint64_t got;
    int64_t fresh = 0;
    int ret;

    BLKDBG_EVENT(bs->file, BLKDBG_CLUSTER_ALLOC_BYTES);
    if (room < bytes) {
        fresh = qcow2_co_alloc(bs, s->cluster_size, s->cluster_size, &got,
                               NULL);
        if (fresh < 0) {
            return fresh;
        }
        if (room == 0 || (uint64_t)fresh != offset + room) {
            offset = fresh;
            room = 0;
        }
    }
    if (room) {
        /* One more user of a cluster that others have begun. */
        ret = qcow2_co_change_refcount(bs, offset, 1, 1);
        if (ret < 0 && fresh) {
            offset = fresh;
        } else if (ret < 0) {
            s->free_byte_offset = 0;
            return qcow2_co_alloc_bytes(bs, bytes);
        }
    }
    s->free_byte_offset = offset + bytes;
    if (!qcow2_in_cluster(s, s->free_byte_offset)) {
        s->free_byte_offset = 0;
    }
    return offset;
}

void coroutine_fn qcow2_co_unalloc(BlockDriverState *bs, uint64_t offset,
                                   uint64_t bytes)
{
    BLKDBG_EVENT(bs->file, BLKDBG_CLUSTER_FREE);
    /* Failing means a leak, which is all that may happen. */
    qcow2_co_change_refcount(bs, offset, bytes, -1);
}

/* ---- giving up ---- */

void qcow2_give_up(BDRVQcow2State *s, uint64_t offset, uint64_t bytes,
                   Qcow2DiscardType type)
{
    Qcow2Free *f = TAILQ_LAST(&s->pending, Qcow2FreeList);

    /* A file that is cut or discarded in order gives one long range. */
    if (f && f->type == type && f->offset + f->bytes == offset
        && !qcow2_in_cluster(s, offset) && !qcow2_in_cluster(s, f->offset)) {
        f->bytes += bytes;
    } else {
        f = g_new(Qcow2Free, 1);
        *f = (Qcow2Free) { .offset = offset, .bytes = bytes, .type = type };
        TAILQ_INSERT_TAIL(&s->pending, f, next);
    }
    __atomic_fetch_add(&s->n_pending,
                       MAX(bytes >> s->cluster_bits, 1), __ATOMIC_RELAXED);
}

void qcow2_compressed_range(const BDRVQcow2State *s, uint64_t entry,
                            uint64_t *offset, uint64_t *bytes)
{
    uint64_t sectors = ((entry >> s->csize_shift) & s->csize_mask) + 1;

    *offset = entry & s->coffset_mask;
    *bytes = sectors * 512 - (*offset & 511);
}

void qcow2_give_up_entry(BlockDriverState *bs, uint64_t entry,
                         Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t offset = entry & QCOW2_L2E_OFFSET_MASK, bytes = s->cluster_size;

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        qcow2_compressed_range(s, entry, &offset, &bytes);
    } else if (!offset || s->external_data_file) {
        return;
    }
    /* Freed, live metadata would be discarded and handed out. */
    if (!qcow2_overlaps(bs, 0, offset, bytes)) {
        qcow2_give_up(s, offset, bytes, type);
    }
}
