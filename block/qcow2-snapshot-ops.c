/* SPDX-License-Identifier: MIT */
/*
 * qcow2: making, deleting and applying snapshots.
 *
 * A snapshot is an L1 table of its own.  The refcount of an L2 table, and of
 * each cluster that it refers to, is the number of L1 tables through which they
 * can be reached, so a snapshot raises the refcounts of all that it reaches.
 * COPIED in the active tables says that the refcount is exactly one.
 *
 * Main thread, node drained, caches empty (qcow2_co_settle()): tables are
 * changed in the file directly.  Order, so that a crash leaves leaks only:
 * refcounts go up before a table that needs them is in the file, one write of
 * the header switches to it, and refcounts go down after that.
 *
 * Refcounts and COPIED are in different clusters, so no order of writes lets
 * them agree at each moment.  Meanwhile the image has the dirty bit, so that
 * the next to open it puts that right.  Version 2 has no such bit: after a
 * crash a check calls that errors (and repairs them), but it harms nobody, as
 * what is marked as having one user never has two tables that lead to it.
 */
#include "block/qcow2-snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Ranges given up before they are really freed: bounds the list's memory. */
#define GIVE_UP_BATCH 65536

/* A walk through all that an L1 table refers to. */
typedef struct Walk {
    BlockDriverState *bs;
    BDRVQcow2State *s;
    /* Each range that is referred to, whole clusters or compressed bytes. */
    int coroutine_fn (*co_visit)(struct Walk *w, uint64_t offset,
                                 uint64_t bytes);
    uint64_t done, limit;               /* ranges; stop at the limit */
    bool may_stop;                      /* half-way, as after an error */
} Walk;

/* ---- walking ---- */

static int coroutine_fn co_range(Walk *w, uint64_t offset, uint64_t bytes)
{
    int ret;

    if (bytes == 0 || w->done == w->limit) {
        return 0;
    }
    ret = w->co_visit(w, offset, bytes);
    if (ret >= 0) {
        int given_up = aio_co_yield_fair();

        w->done++;
        ret = w->may_stop ? given_up : 0;
    }
    return ret;
}

static int broken(BlockDriverState *bs, const char *what, uint64_t offset,
                  uint64_t table)
{
    qcow2_signal_corruption(bs, true, -1, -1, "%s offset %#" PRIx64
                            " unaligned (table at %#" PRIx64 ")", what,
                            offset, table);
    return -EIO;
}

/* Data, which a broken image may have where live metadata is. */
static int coroutine_fn co_data_range(Walk *w, uint64_t offset,
                                      uint64_t bytes)
{
    return qcow2_overlaps(w->bs, 0, offset, bytes)
           ? -EIO : co_range(w, offset, bytes);
}

/* The data clusters of one L2 table, in runs. */
static int coroutine_fn co_walk_l2(Walk *w, uint64_t l2_offset,
                                   const uint64_t *l2)
{
    BDRVQcow2State *s = w->s;
    unsigned words = s->cluster_size / 8;
    uint64_t run = 0, run_bytes = 0, offset, bytes;
    int ret;

    for (unsigned i = 0; i < words; i += s->l2_entry_words) {
        uint64_t entry = GUINT64_FROM_BE(l2[i]);

        if (entry & QCOW2_OFLAG_COMPRESSED) {
            qcow2_compressed_range(s, entry, &offset, &bytes);
            ret = co_data_range(w, offset, bytes);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        offset = entry & QCOW2_L2E_OFFSET_MASK;
        if (offset == 0) {
            continue;
        }
        if (qcow2_in_cluster(s, offset)) {
            return broken(w->bs, "Data cluster", offset, l2_offset);
        }
        if (run_bytes && offset == run + run_bytes) {
            run_bytes += s->cluster_size;
            continue;
        }
        ret = co_data_range(w, run, run_bytes);
        if (ret < 0) {
            return ret;
        }
        run = offset;
        run_bytes = s->cluster_size;
    }
    return co_data_range(w, run, run_bytes);
}

static int coroutine_fn co_walk_l1(Walk *w, const uint64_t *l1, uint32_t n)
{
    BDRVQcow2State *s = w->s;
    g_autofree uint64_t *l2 = g_malloc(s->cluster_size);

    for (uint32_t i = 0; i < n && w->done < w->limit; i++) {
        uint64_t offset = l1[i] & QCOW2_L1E_OFFSET_MASK;
        int ret;

        if (offset == 0) {
            continue;           /* of which there may be many: a few ms */
        }
        if (qcow2_in_cluster(s, offset)) {
            return broken(w->bs, "L2 table", offset, s->l1_table_offset);
        }
        if (qcow2_overlaps(w->bs, QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2,
                           offset, s->cluster_size)) {
            return -EIO;
        }
        ret = bdrv_co_pread(w->bs->file, offset, s->cluster_size, l2, 0);
        if (ret >= 0) {
            ret = co_walk_l2(w, offset, l2);
        }
        if (ret >= 0) {
            ret = co_range(w, offset, s->cluster_size);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* ---- refcounts ---- */

static int coroutine_fn co_raise_range(Walk *w, uint64_t offset,
                                       uint64_t bytes)
{
    BDRVQcow2State *s = w->s;
    uint64_t refcount = 1;
    int ret = 0;

    co_mutex_lock(&s->lock);
    /* What nobody has counted was never ours to share. */
    for (uint64_t c = offset >> s->cluster_bits;
         ret >= 0 && c <= (offset + bytes - 1) >> s->cluster_bits; c++) {
        aio_co_yield_fair();
        ret = qcow2_co_get_refcount(w->bs, c, &refcount);
        if (ret >= 0 && refcount == 0) {
            qcow2_signal_corruption(w->bs, true, c << s->cluster_bits,
                                    s->cluster_size, "Cluster at %#" PRIx64
                                    " is in use, but its refcount is 0",
                                    c << s->cluster_bits);
            ret = -EIO;
        }
    }
    if (ret >= 0) {
        ret = qcow2_co_change_refcount(w->bs, offset, bytes, 1);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

static int coroutine_fn co_lower_range(Walk *w, uint64_t offset,
                                       uint64_t bytes)
{
    BDRVQcow2State *s = w->s;
    int ret;

    co_mutex_lock(&s->lock);
    ret = qcow2_co_change_refcount(w->bs, offset, bytes, -1);
    co_mutex_unlock(&s->lock);
    return ret;
}

/* All that @l1 reaches gets one more user; an error changes nothing. */
static int coroutine_fn co_raise(BlockDriverState *bs, const uint64_t *l1,
                                 uint32_t n)
{
    BDRVQcow2State *s = bs->opaque;
    Walk w = { .bs = bs, .s = s, .co_visit = co_raise_range,
               .limit = UINT64_MAX, .may_stop = true };
    int ret = co_walk_l1(&w, l1, n);

    if (ret >= 0) {
        ret = qcow2_co_settle(bs);
    }
    if (ret < 0 && w.done) {
        Walk undo = { .bs = bs, .s = s, .co_visit = co_lower_range,
                      .limit = w.done };
        const CoCancel *cancel = coroutine_set_cancel(NULL);

        co_walk_l1(&undo, l1, n);
        qcow2_co_settle(bs);
        coroutine_set_cancel(cancel);
    }
    return ret;
}

static int coroutine_fn co_drop_range(Walk *w, uint64_t offset,
                                      uint64_t bytes, Qcow2DiscardType type)
{
    BDRVQcow2State *s = w->s;

    co_mutex_lock(&s->lock);
    qcow2_give_up(s, offset, bytes, type);
    co_mutex_unlock(&s->lock);
    return (w->done + 1) % GIVE_UP_BATCH ? 0 : qcow2_co_settle(w->bs);
}

static int coroutine_fn co_drop_snapshot_range(Walk *w, uint64_t offset,
                                               uint64_t bytes)
{
    return co_drop_range(w, offset, bytes, QCOW2_DISCARD_SNAPSHOT);
}

static int coroutine_fn co_drop_other_range(Walk *w, uint64_t offset,
                                            uint64_t bytes)
{
    return co_drop_range(w, offset, bytes, QCOW2_DISCARD_OTHER);
}

/*
 * A table at @offset and all that it reaches lose a user.  An error leaves
 * leaks.
 */
static int coroutine_fn co_drop(BlockDriverState *bs, const uint64_t *l1,
                                uint32_t n, uint64_t offset,
                                Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;
    Walk w = { .bs = bs, .s = s, .limit = UINT64_MAX,
               .co_visit = type == QCOW2_DISCARD_SNAPSHOT
                           ? co_drop_snapshot_range : co_drop_other_range };
    int ret = co_walk_l1(&w, l1, n), ret2 = 0;

    if (ret >= 0 && n) {
        ret = w.co_visit(&w, offset, qcow2_cluster_end(s, (uint64_t)n * 8));
    }
    ret2 = qcow2_co_settle(bs);
    return ret < 0 ? ret : ret2;
}

/* ---- COPIED ---- */

static int coroutine_fn co_is_alone(BlockDriverState *bs, uint64_t offset,
                                    bool *alone)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t refcount;
    int ret;

    co_mutex_lock(&s->lock);
    ret = qcow2_co_get_refcount(bs, offset >> s->cluster_bits, &refcount);
    co_mutex_unlock(&s->lock);
    *alone = ret >= 0 && refcount == 1;
    return ret;
}

/* Let COPIED in an L2 table be what the refcounts say; write it if changed. */
static int coroutine_fn co_mark_l2(BlockDriverState *bs, uint64_t l2_offset,
                                   uint64_t *l2)
{
    BDRVQcow2State *s = bs->opaque;
    bool changed = false, alone;
    int ret;

    for (unsigned i = 0; i < s->cluster_size / 8; i += s->l2_entry_words) {
        uint64_t entry = GUINT64_FROM_BE(l2[i]);
        uint64_t offset = entry & QCOW2_L2E_OFFSET_MASK;

        if ((entry & QCOW2_OFLAG_COMPRESSED) || offset == 0) {
            continue;
        }
        aio_co_yield_fair();
        ret = co_is_alone(bs, offset, &alone);
        if (ret < 0) {
            return ret;
        }
        if (alone != !!(entry & QCOW2_OFLAG_COPIED)) {
            l2[i] = GUINT64_TO_BE(entry ^ QCOW2_OFLAG_COPIED);
            changed = true;
        }
    }
    if (!changed) {
        return 0;
    }
    if (qcow2_overlaps(bs, QCOW2_OL_ACTIVE_L2 | QCOW2_OL_INACTIVE_L2,
                       l2_offset, s->cluster_size)) {
        return -EIO;
    }
    return bdrv_co_pwrite(bs->file, l2_offset, s->cluster_size, l2, 0);
}

/*
 * Let COPIED be what the refcounts say, in @l1 and in the L2 tables that it
 * refers to.  The latter are written, not flushed.
 */
static int coroutine_fn co_mark_tables(BlockDriverState *bs, uint64_t *l1,
                                       uint32_t n)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *l2 = g_malloc(s->cluster_size);

    for (uint32_t i = 0; i < n; i++) {
        uint64_t offset = l1[i] & QCOW2_L1E_OFFSET_MASK;
        bool alone;
        int ret;

        if (offset == 0) {
            continue;
        }
        aio_co_yield_fair();
        ret = bdrv_co_pread(bs->file, offset, s->cluster_size, l2, 0);
        if (ret >= 0) {
            ret = co_mark_l2(bs, offset, l2);
        }
        if (ret >= 0) {
            ret = co_is_alone(bs, offset, &alone);
        }
        if (ret < 0) {
            return ret;
        }
        l1[i] &= ~QCOW2_OFLAG_COPIED;
        l1[i] |= alone ? QCOW2_OFLAG_COPIED : 0;
    }
    return 0;
}

static int coroutine_fn co_write_l1(BlockDriverState *bs, uint64_t offset,
                                    const uint64_t *l1, uint32_t n)
{
    g_autofree uint64_t *buf = g_new(uint64_t, n);

    for (uint32_t i = 0; i < n; i++) {
        buf[i] = GUINT64_TO_BE(l1[i]);
    }
    return bdrv_co_pwrite(bs->file, offset, (uint64_t)n * 8, buf, 0);
}

static uint64_t *copy_active_l1(BDRVQcow2State *s, uint32_t n)
{
    uint64_t *l1 = g_new0(uint64_t, MAX(n, 1));

    for (uint32_t i = 0; i < MIN(n, s->l1_size); i++) {
        l1[i] = qcow2_l1_entry(s, i);
    }
    return l1;
}

/* The active tables' COPIED, in the file and in memory; flushed. */
static int coroutine_fn co_mark_active(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *l1 = copy_active_l1(s, s->l1_size);
    int ret = co_mark_tables(bs, l1, s->l1_size);

    if (ret >= 0 && s->l1_size) {
        ret = co_write_l1(bs, s->l1_table_offset, l1, s->l1_size);
    }
    if (ret < 0) {
        return ret;
    }
    for (uint32_t i = 0; i < s->l1_size; i++) {
        __atomic_store_n(&s->l1_table[i], l1[i], __ATOMIC_RELEASE);
    }
    return bdrv_co_flush(bs->file->bs);
}

/* ---- what all operations begin and end with ---- */

static bool coroutine_fn co_begin(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    if (bs->read_only) {
        error_setg(errp, "Device '%s' is read only", bs->node_name);
        return false;
    }
    if (s->external_data_file) {
        error_setg(errp, "Images with an external data file have no internal "
                   "snapshots");
        return false;
    }
    if (__atomic_load_n(&s->corrupt, __ATOMIC_RELAXED)) {
        error_setg(errp, "The image is corrupt");
        return false;
    }
    ret = qcow2_co_settle(bs);
    if (ret >= 0 && s->version >= 3) {
        ret = qcow2_co_set_incompatible(bs, QCOW2_INCOMPAT_DIRTY, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to write the image's metadata");
    }
    return ret >= 0;
}

/*
 * @ret is how it went.  The dirty bit stays if refcounts and COPIED may still
 * disagree.
 */
static bool coroutine_fn co_end(BlockDriverState *bs, int ret, bool half,
                                Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret2 = qcow2_co_settle(bs);

    if (ret2 >= 0) {
        ret2 = bdrv_co_flush(bs->file->bs);
    }
    if (ret2 >= 0 && s->version >= 3 && !s->dirty_bit && !half) {
        ret2 = qcow2_co_set_incompatible(bs, 0, QCOW2_INCOMPAT_DIRTY);
    }
    if (ret2 >= 0) {
        ret2 = qcow2_co_init_metamap(bs);
    }
    if (ret >= 0 && ret2 < 0) {
        error_setg_errno(errp, -ret2, "Failed to write the image's metadata");
    }
    return ret >= 0 && ret2 >= 0;
}

/* Index of the first snapshot with both (NULL: any), or -1. */
static int find(const BDRVQcow2State *s, const char *id, const char *name)
{
    for (unsigned i = 0; i < s->nb_snapshots; i++) {
        if ((!id || !strcmp(id, s->snapshots[i].id_str))
            && (!name || !strcmp(name, s->snapshots[i].name))) {
            return i;
        }
    }
    return -1;
}

/* A snapshot's L1 table, host order. */
static uint64_t *coroutine_fn co_read_snapshot_l1(BlockDriverState *bs,
                                                  const Qcow2Snapshot *sn,
                                                  uint32_t room, Error **errp)
{
    g_autofree uint64_t *l1 = NULL;
    int ret = 0;

    if (!qcow2_snapshot_l1_ok(bs->opaque, sn, errp)) {
        return NULL;
    }
    l1 = g_new0(uint64_t, MAX(room, sn->l1_size) + 1);
    if (sn->l1_size) {
        ret = bdrv_co_pread(bs->file, sn->l1_table_offset,
                            (uint64_t)sn->l1_size * 8, l1, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read the snapshot's L1 table");
        return NULL;
    }
    for (uint32_t i = 0; i < sn->l1_size; i++) {
        l1[i] = GUINT64_FROM_BE(l1[i]);
    }
    return g_steal_pointer(&l1);
}

/* ---- create ---- */

static char *next_id(const BDRVQcow2State *s)
{
    uint64_t max = 0;

    for (unsigned i = 0; i < s->nb_snapshots; i++) {
        max = MAX(max, strtoul(s->snapshots[i].id_str, NULL, 10));
    }
    return g_strdup_printf("%" PRIu64, max + 1);
}

static bool can_create(const BDRVQcow2State *s, const char *name,
                       const char *id, Error **errp)
{
    if (s->nb_snapshots >= QCOW2_MAX_SNAPSHOTS) {
        error_setg(errp, "The image has too many snapshots");
    } else if (strlen(name) > UINT16_MAX
               || (id && strlen(id) > UINT16_MAX)) {
        error_setg(errp, "The snapshot's name is too long");
    } else if (id && find(s, id, NULL) >= 0) {
        error_setg(errp, "A snapshot with id '%s' exists already", id);
    } else {
        return true;
    }
    return false;
}

/* The active L1 as it will be in the snapshot: nothing is its alone. */
static int64_t coroutine_fn co_write_snapshot_l1(BlockDriverState *bs,
                                                 const uint64_t *l1,
                                                 uint32_t n)
{
    g_autofree uint64_t *buf = g_new(uint64_t, n);

    for (uint32_t i = 0; i < n; i++) {
        buf[i] = GUINT64_TO_BE(l1[i] & ~QCOW2_OFLAG_COPIED);
    }
    return qcow2_co_write_new(bs, buf, (uint64_t)n * 8);
}

/*
 * What the snapshot shares is not shared any more.  Nothing leads to it; or,
 * where the header may, all leaks.  Returns if the dirty bit is to stay.
 */
static bool coroutine_fn co_undo_create(BlockDriverState *bs,
                                        const Qcow2Snapshot *sn)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *l1 = copy_active_l1(s, sn->l1_size);
    const CoCancel *cancel = coroutine_set_cancel(NULL);
    int ret = -EIO;

    if (!qcow2_header_unsure(s)) {
        ret = co_drop(bs, l1, sn->l1_size, sn->l1_table_offset,
                      QCOW2_DISCARD_OTHER);
    }
    if (ret >= 0) {
        ret = co_mark_active(bs);
    }
    coroutine_set_cancel(cancel);
    return ret < 0;
}

/* Everything but the table; *@half: the dirty bit is to stay. */
static int coroutine_fn co_create(BlockDriverState *bs, Qcow2Snapshot *sn,
                                  bool *half)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *l1 = copy_active_l1(s, s->l1_size);
    int64_t offset = 0;
    int ret;

    sn->l1_size = s->l1_size;
    if (sn->l1_size) {
        offset = co_write_snapshot_l1(bs, l1, sn->l1_size);
        if (offset < 0) {
            return offset;
        }
    }
    sn->l1_table_offset = offset;
    ret = co_raise(bs, l1, sn->l1_size);
    if (ret < 0) {
        qcow2_co_free_old(bs, offset, (uint64_t)sn->l1_size * 8);
        return ret;
    }
    ret = co_mark_active(bs);
    *half = ret < 0 && co_undo_create(bs, sn);
    return ret;
}

bool coroutine_fn qcow2_co_snapshot_create(BlockDriverState *bs,
                                           const char *name, const char *id,
                                           Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t now = g_get_real_time();
    Qcow2Snapshot sn = {
        .disk_size = bdrv_getlength(bs),
        .date_sec = now / G_USEC_PER_SEC,
        .date_nsec = now % G_USEC_PER_SEC * 1000,
        .icount = UINT64_MAX,
        .extra_data_size = sizeof(Qcow2SnapshotExtra),
    };
    bool half = false;
    int ret;

    if (!can_create(s, name, id, errp) || !co_begin(bs, errp)) {
        return false;
    }
    ret = co_create(bs, &sn, &half);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to share the image's clusters");
        return co_end(bs, ret, half, NULL);
    }
    sn.id_str = id ? g_strdup(id) : next_id(s);
    sn.name = g_strdup(name);
    s->snapshots = g_renew(Qcow2Snapshot, s->snapshots, s->nb_snapshots + 1);
    s->snapshots[s->nb_snapshots] = sn;
    ret = qcow2_co_write_snapshots(bs, s->snapshots, s->nb_snapshots + 1,
                                   errp);
    if (ret < 0) {
        g_free(sn.id_str);
        g_free(sn.name);
        return co_end(bs, ret, co_undo_create(bs, &sn), NULL);
    }
    s->nb_snapshots++;
    return co_end(bs, 0, false, errp);
}

/* ---- delete ---- */

bool coroutine_fn qcow2_co_snapshot_delete(BlockDriverState *bs,
                                           const char *id, const char *name,
                                           Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int i = find(s, id, name), ret;
    g_autofree uint64_t *l1 = NULL;
    const CoCancel *cancel;
    Qcow2Snapshot sn;

    if (i < 0 || (!id && !name)) {
        error_setg(errp, "Can't find the snapshot");
        return false;
    }
    if (!co_begin(bs, errp)) {
        return false;
    }
    sn = s->snapshots[i];
    l1 = co_read_snapshot_l1(bs, &sn, 0, errp);
    if (!l1) {
        return co_end(bs, -EIO, false, NULL);
    }
    memmove(&s->snapshots[i], &s->snapshots[i + 1],
            (s->nb_snapshots - i - 1) * sizeof(sn));
    ret = qcow2_co_write_snapshots(bs, s->snapshots, s->nb_snapshots - 1,
                                   errp);
    if (ret < 0) {
        memmove(&s->snapshots[i + 1], &s->snapshots[i],
                (s->nb_snapshots - i - 1) * sizeof(sn));
        s->snapshots[i] = sn;
        return co_end(bs, ret, qcow2_header_unsure(s), NULL);
    }
    s->nb_snapshots--;
    g_free(sn.id_str);
    g_free(sn.name);
    g_free(sn.unknown_extra_data);

    /* It is gone; what has been its goes, too. */
    cancel = coroutine_set_cancel(NULL);
    ret = co_drop(bs, l1, sn.l1_size, sn.l1_table_offset,
                  QCOW2_DISCARD_SNAPSHOT);
    if (ret >= 0) {
        ret = co_mark_active(bs);
    }
    coroutine_set_cancel(cancel);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to free the snapshot's clusters");
    }
    return co_end(bs, ret, ret < 0, errp);
}

/* ---- apply ---- */

/* Size, size of the L1 table and its place lie side by side. */
static int coroutine_fn co_switch_disk(BlockDriverState *bs, uint64_t size,
                                       uint64_t l1_offset, uint32_t l1_size)
{
    BDRVQcow2State *s = bs->opaque;
    struct {
        uint64_t size;
        uint32_t crypt_method;
        uint32_t l1_size;
        uint64_t l1_table_offset;
    } __attribute__((packed)) part = {
        .size = GUINT64_TO_BE(size),
        .crypt_method = GUINT32_TO_BE(s->crypt_method),
        .l1_size = GUINT32_TO_BE(l1_size),
        .l1_table_offset = GUINT64_TO_BE(l1_offset),
    };
    int ret;

    co_mutex_lock(&s->header_lock);
    ret = qcow2_co_change_header(bs, BLKDBG_NONE, offsetof(Qcow2Header, size),
                                 &part, sizeof(part));
    co_mutex_unlock(&s->header_lock);
    return ret;
}

static bool can_apply(BlockDriverState *bs, const Qcow2Snapshot *sn,
                      uint32_t *entries, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t n = qcow2_size_to_l1(s, sn->disk_size);

    if (!qcow2_snapshot_l1_ok(s, sn, errp)) {
        return false;
    }
    if (sn->disk_size > BDRV_MAX_LENGTH || n > QCOW2_MAX_L1_BYTES / 8
        || MAX(n, sn->l1_size) > s->l1_capacity) {
        error_setg(errp, "The snapshot's disk is too large");
        return false;
    }
    if (s->nb_bitmaps && sn->disk_size != (uint64_t)bdrv_getlength(bs)) {
        error_setg(errp, "The snapshot's disk has another size, which an image "
                   "with bitmaps can't take on");
        return false;
    }
    *entries = MAX(n, sn->l1_size);
    return true;
}

/*
 * A copy of the snapshot's L1 becomes the active one; @l1 is the snapshot's.
 * *@half as before.
 */
static int coroutine_fn co_apply(BlockDriverState *bs, uint64_t *l1,
                                 uint32_t n, uint64_t disk_size, bool *half)
{
    BDRVQcow2State *s = bs->opaque;
    g_autofree uint64_t *old = copy_active_l1(s, s->l1_size);
    uint64_t old_offset = s->l1_table_offset;
    uint32_t old_n = s->l1_size;
    int64_t offset = 0;
    int ret = co_raise(bs, l1, n);

    if (ret < 0) {
        return ret;
    }
    *half = true;
    /* All has two users now, and must say so before it is the active one. */
    ret = co_mark_tables(bs, l1, n);
    if (ret >= 0 && n) {
        offset = co_write_snapshot_l1(bs, l1, n);
        ret = MIN(offset, 0);
    }
    if (ret >= 0) {
        ret = qcow2_co_settle(bs);
    }
    if (ret >= 0) {
        ret = co_switch_disk(bs, disk_size, offset, n);
    }
    if (ret < 0) {
        return ret;
    }
    s->l1_table_offset = offset;
    __atomic_store_n(&s->l1_size, n, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < MAX(n, old_n); i++) {
        __atomic_store_n(&s->l1_table[i],
                         i < n ? l1[i] & ~QCOW2_OFLAG_COPIED : 0,
                         __ATOMIC_RELEASE);
    }
    __atomic_store_n(&bs->total_bytes, disk_size, __ATOMIC_RELAXED);

    ret = co_drop(bs, old, old_n, old_offset, QCOW2_DISCARD_OTHER);
    if (ret >= 0) {
        ret = co_mark_active(bs);
    }
    *half = ret < 0;
    return ret;
}

bool coroutine_fn qcow2_co_snapshot_apply(BlockDriverState *bs,
                                          const char *id_or_name,
                                          Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int i = find(s, id_or_name, NULL), ret;
    g_autofree uint64_t *l1 = NULL;
    const CoCancel *cancel;
    bool half = false;
    uint32_t n;

    if (i < 0) {
        i = find(s, NULL, id_or_name);
    }
    if (i < 0) {
        error_setg_errno(errp, ENOENT, "Failed to load snapshot");
        return false;
    }
    if (!can_apply(bs, &s->snapshots[i], &n, errp) || !co_begin(bs, errp)) {
        return false;
    }
    l1 = co_read_snapshot_l1(bs, &s->snapshots[i], n, errp);
    if (!l1) {
        return co_end(bs, -EIO, false, NULL);
    }
    /* Half of it helps nobody. */
    cancel = coroutine_set_cancel(NULL);
    ret = co_apply(bs, l1, n, s->snapshots[i].disk_size, &half);
    coroutine_set_cancel(cancel);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to load snapshot");
    }
    return co_end(bs, ret, half, errp);
}
