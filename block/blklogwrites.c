/* SPDX-License-Identifier: MIT */
/*
 * blklogwrites: a filter that logs all writes, in the format of Linux'
 * dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst), for
 * tools that replay it up to any point.
 *
 * The log has a super block, then entries: a sector with a header, and the
 * data if there are any.  Order is what makes it useful:
 *
 * - A write gets its place once the image has it, so that what stands before a
 *   flush had been completed when the flush began.
 * - A flush gets its place when it begins; it becomes an entry without effect
 *   if it fails.
 * - Requests that overlap are carried out one after the other, so that a replay
 *   ends with the image as it is.
 *
 * Places are given out under the lock, and written outside of it.  The super
 * block counts the entries up to the first that is not written yet.  An entry
 * that cannot be written gives its place back if it is the last; else the log
 * ends there, and all further writes fail.
 *
 * Any thread.  `lock` is over all that changes but super_entries, which the
 * owner of super_lock writes.
 */

#include <inttypes.h>
#include "block/blklogwrites.h"
#include "block/filter.h"

#define DEFAULT_SECTOR_SIZE 512
#define DEFAULT_SUPER_UPDATE_INTERVAL 4096

/* A place in the log, until it is written. */
typedef struct LogSlot {
    int64_t pos, len;                   /* bytes */
    uint64_t index;                     /* number of entries before */
    TAILQ_ENTRY(LogSlot) next;
} LogSlot;

/* A request that changes [@offset, @end) of the image. */
typedef struct LogRange {
    struct BDRVBlkLogWritesState *s;
    int64_t offset, end;
    TAILQ_ENTRY(LogRange) next;
} LogRange;

typedef struct BDRVBlkLogWritesState {
    BdrvChild *log;
    uint32_t sector_size;
    bool append;
    bool has_sector_size;
    uint64_t update_interval;

    pthread_mutex_t lock;
    int64_t log_end;                    /* bytes; the next entry goes here */
    uint64_t n_entries;                 /* places given out */
    uint64_t n_valid;                   /* all below can be written */
    int error;                          /* why the log has ended, -errno */
    TAILQ_HEAD(, LogSlot) slots;        /* not written yet, by index */
    TAILQ_HEAD(, LogRange) ranges;      /* by time of arrival */
    WaitSet slots_done, ranges_done;

    CoMutex super_lock;
    uint64_t super_entries;             /* atomic; what the super block says */
} BDRVBlkLogWritesState;

/* ---- requests that overlap ---- */

static bool range_is_free(void *opaque)
{
    LogRange *range = opaque;
    LogRange *other;

    pthread_mutex_lock(&range->s->lock);
    TAILQ_FOREACH(other, &range->s->ranges, next) {
        if (other == range || (other->offset < range->end
                               && range->offset < other->end)) {
            break;
        }
    }
    pthread_mutex_unlock(&range->s->lock);
    return other == range;
}

static void coroutine_fn range_co_begin(BDRVBlkLogWritesState *s,
                                        LogRange *range, int64_t offset,
                                        int64_t end)
{
    *range = (LogRange) { .s = s, .offset = offset, .end = end };
    pthread_mutex_lock(&s->lock);
    TAILQ_INSERT_TAIL(&s->ranges, range, next);
    pthread_mutex_unlock(&s->lock);
    wait_set_co_wait(&s->ranges_done, range_is_free, range);
}

static void range_end(LogRange *range)
{
    BDRVBlkLogWritesState *s = range->s;

    pthread_mutex_lock(&s->lock);
    TAILQ_REMOVE(&s->ranges, range, next);
    pthread_mutex_unlock(&s->lock);
    wait_set_wake(&s->ranges_done);
}

/* ---- places in the log ---- */

static int log_error(BDRVBlkLogWritesState *s)
{
    int ret;

    pthread_mutex_lock(&s->lock);
    ret = s->error;
    pthread_mutex_unlock(&s->lock);
    return ret;
}

/* Lock held: entries that are all written, from the first on. */
static uint64_t entries_written(const BDRVBlkLogWritesState *s)
{
    const LogSlot *first = TAILQ_FIRST(&s->slots);

    return MIN(first ? first->index : s->n_entries, s->n_valid);
}

/* A place for a header and @bytes of data. */
static int slot_begin(BDRVBlkLogWritesState *s, LogSlot *slot, int64_t bytes)
{
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    if (s->error) {
        ret = s->error;
    } else if (BDRV_MAX_LENGTH - s->log_end - s->sector_size < bytes) {
        ret = -EFBIG;
    } else {
        slot->pos = s->log_end;
        slot->len = s->sector_size + bytes;
        slot->index = s->n_entries++;
        s->log_end += slot->len;
        TAILQ_INSERT_TAIL(&s->slots, slot, next);
    }
    pthread_mutex_unlock(&s->lock);
    return ret;
}

/* It is written, or (@ret < 0) could not be. */
static void slot_end(BDRVBlkLogWritesState *s, LogSlot *slot, int ret)
{
    pthread_mutex_lock(&s->lock);
    TAILQ_REMOVE(&s->slots, slot, next);
    if (ret < 0 && slot->pos + slot->len == s->log_end) {
        s->log_end = slot->pos;
        s->n_entries--;
    } else if (ret < 0) {
        s->error = s->error ? s->error : ret;
        s->n_valid = MIN(s->n_valid, slot->index);
    }
    pthread_mutex_unlock(&s->lock);
    wait_set_wake(&s->slots_done);
}

/* ---- writing the log ---- */

/*
 * Write an entry to its place: the header, and the data of @qiov or, without
 * one, @zeroes bytes of zeroes.
 */
static int coroutine_fn co_write_entry(BDRVBlkLogWritesState *s,
                                       const LogSlot *slot,
                                       const LogWriteEntry *entry,
                                       const QEMUIOVector *qiov,
                                       int64_t zeroes)
{
    g_autofree uint8_t *header = g_malloc0(s->sector_size);
    QEMUIOVector all;
    int ret = 0;

    memcpy(header, entry, sizeof(*entry));
    if (!qiov && zeroes) {
        ret = bdrv_co_pwrite_zeroes(s->log, slot->pos + s->sector_size,
                                    zeroes, BDRV_REQ_MAY_UNMAP);
    }
    if (ret >= 0) {
        qemu_iovec_init(&all, 1 + (qiov ? qiov->niov : 0));
        qemu_iovec_add(&all, header, s->sector_size);
        if (qiov) {
            qemu_iovec_concat(&all, qiov, 0, qiov->size);
        }
        ret = bdrv_co_pwritev(s->log, slot->pos, &all, 0);
        qemu_iovec_destroy(&all);
    }
    return MIN(ret, 0);
}

static LogWriteEntry make_entry(const BDRVBlkLogWritesState *s, int64_t offset,
                                int64_t bytes, uint64_t flags)
{
    return (LogWriteEntry) {
        .sector = GUINT64_TO_LE(offset / s->sector_size),
        .nr_sectors = GUINT64_TO_LE(bytes / s->sector_size),
        .flags = GUINT64_TO_LE(flags),
    };
}

/* Log a change of [@offset, @offset + @bytes), which the image has now. */
static int coroutine_fn co_log(BDRVBlkLogWritesState *s, int64_t offset,
                               int64_t bytes, const QEMUIOVector *qiov,
                               uint64_t flags)
{
    int64_t data = flags & LOG_DISCARD_FLAG ? 0 : bytes;
    LogWriteEntry entry = make_entry(s, offset, bytes, flags);
    LogSlot slot;
    int ret = slot_begin(s, &slot, data);

    if (ret >= 0) {
        ret = co_write_entry(s, &slot, &entry, qiov, qiov ? 0 : data);
        slot_end(s, &slot, ret);
    }
    return ret;
}

static int coroutine_fn co_write_super(BDRVBlkLogWritesState *s,
                                       uint64_t n_entries)
{
    g_autofree uint8_t *buf = g_malloc0(s->sector_size);
    LogWriteSuper super = {
        .magic = GUINT64_TO_LE(WRITE_LOG_MAGIC),
        .version = GUINT64_TO_LE(WRITE_LOG_VERSION),
        .nr_entries = GUINT64_TO_LE(n_entries),
        .sectorsize = GUINT32_TO_LE(s->sector_size),
    };
    QEMUIOVector qiov;

    memcpy(buf, &super, sizeof(super));
    qemu_iovec_init_buf(&qiov, buf, s->sector_size);
    return bdrv_co_pwritev(s->log, 0, &qiov, 0);
}

/* Is @n by @min ahead of what the super block says? */
static bool differs_by(const BDRVBlkLogWritesState *s, uint64_t n,
                       uint64_t min)
{
    uint64_t now = __atomic_load_n(&s->super_entries, __ATOMIC_RELAXED);

    return n > now && n - now >= min;
}

/*
 * Bring the super block up to date, if that makes at least @min entries of
 * difference.  The entries reach the disk before the number that counts them.
 */
static int coroutine_fn co_update_super(BDRVBlkLogWritesState *s, uint64_t min)
{
    uint64_t n;
    int ret = 0;

    pthread_mutex_lock(&s->lock);
    n = entries_written(s);
    pthread_mutex_unlock(&s->lock);
    if (!differs_by(s, n, min)) {
        return 0;
    }

    co_mutex_lock(&s->super_lock);
    if (differs_by(s, n, min)) {
        ret = bdrv_co_flush(s->log->bs);
        if (ret >= 0) {
            ret = co_write_super(s, n);
        }
        if (ret >= 0) {
            __atomic_store_n(&s->super_entries, n, __ATOMIC_RELAXED);
        }
    }
    co_mutex_unlock(&s->super_lock);
    return MIN(ret, 0);
}

/* ---- opening ---- */

static bool check_sector_size(uint32_t size, Error **errp)
{
    if (size < sizeof(LogWriteEntry) || size > WRITE_LOG_MAX_SECTOR_SIZE
        || (size & (size - 1))) {
        error_setg(errp, "Invalid log sector size %" PRIu32, size);
        return false;
    }
    return true;
}

static bool check_options(BDRVBlkLogWritesState *s,
                          const BlockdevOptionsBlklogwrites *o, Error **errp)
{
    s->append = o->has_log_append && o->log_append;
    s->has_sector_size = o->has_log_sector_size;
    s->sector_size = o->has_log_sector_size ? o->log_sector_size
                                            : DEFAULT_SECTOR_SIZE;
    s->update_interval = o->has_log_super_update_interval
                         ? o->log_super_update_interval
                         : DEFAULT_SUPER_UPDATE_INTERVAL;
    if (s->append && s->has_sector_size) {
        error_setg(errp, "log-append and log-sector-size are mutually "
                   "exclusive");
        return false;
    }
    if (s->update_interval == 0) {
        error_setg(errp, "Invalid log superblock update interval %" PRIu64,
                   s->update_interval);
        return false;
    }
    return check_sector_size(s->sector_size, errp);
}

/* Go on behind what is in the log. */
static bool coroutine_fn co_open_old_log(BDRVBlkLogWritesState *s,
                                         Error **errp)
{
    LogWriteSuper super;

    if (!log_co_read_super(s->log, &super, errp)
        || !check_sector_size(super.sectorsize, errp)
        || !log_co_find_end(s->log, &super, &s->log_end, errp)) {
        return false;
    }
    s->sector_size = super.sectorsize;
    s->n_entries = s->super_entries = super.nr_entries;
    return true;
}

static bool coroutine_fn co_open_new_log(BDRVBlkLogWritesState *s,
                                         Error **errp)
{
    int ret = co_write_super(s, 0);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not write log superblock");
        return false;
    }
    s->log_end = s->sector_size;
    return true;
}

static void state_deinit(BDRVBlkLogWritesState *s)
{
    wait_set_deinit(&s->slots_done);
    wait_set_deinit(&s->ranges_done);
    pthread_mutex_destroy(&s->lock);
}

static bool coroutine_fn blklogwrites_co_open(BlockDriverState *bs,
                                              const BlockdevOptions *options,
                                              Error **errp)
{
    const BlockdevOptionsBlklogwrites *o = &options->u.blklogwrites;
    BDRVBlkLogWritesState *s = bs->opaque;
    bool ok;

    if (!check_options(s, o, errp)
        || !bdrv_co_open_child(bs, o->file, "file", BDRV_CHILD_FILTERED
                               | BDRV_CHILD_PRIMARY, errp)) {
        return false;
    }
    s->log = bdrv_co_open_child(bs, o->log, "log", BDRV_CHILD_METADATA, errp);
    if (!s->log) {
        return false;
    }

    pthread_mutex_init(&s->lock, NULL);
    wait_set_init(&s->slots_done);
    wait_set_init(&s->ranges_done);
    co_mutex_init(&s->super_lock);
    TAILQ_INIT(&s->slots);
    TAILQ_INIT(&s->ranges);
    s->n_valid = UINT64_MAX;
    if (s->append) {
        ok = co_open_old_log(s, errp);
    } else {
        /* Who must not write does not log either. */
        ok = bs->read_only || co_open_new_log(s, errp);
    }
    if (!ok) {
        state_deinit(s);
        return false;
    }
    bs->total_bytes = bdrv_getlength(bs->file->bs);
    return true;
}

static void coroutine_fn blklogwrites_co_close(BlockDriverState *bs)
{
    BDRVBlkLogWritesState *s = bs->opaque;

    if (!bs->read_only) {
        int ret = co_update_super(s, 1);
        int flush = bdrv_co_flush(s->log->bs);

        if (ret < 0 || flush < 0) {
            Error *err = NULL;

            error_setg_errno(&err, -MIN(ret, flush), "Could not write the log "
                             "of node '%s' on closing", bs->node_name);
            bdrv_report_loss(bs, err);
        }
    }
    state_deinit(s);
}

static void blklogwrites_refresh_limits(BlockDriverState *bs)
{
    BDRVBlkLogWritesState *s = bs->opaque;
    const BlockLimits *below = &bs->file->bs->bl;

    bs->bl.request_alignment = s->sector_size;
    bs->bl.pwrite_zeroes_alignment = below->pwrite_zeroes_alignment;
    /* Only what the image really discards may be in the log. */
    bs->bl.pdiscard_alignment = MAX(s->sector_size,
                                    MAX(below->pdiscard_alignment,
                                        below->request_alignment));
}

static bool coroutine_fn blklogwrites_co_check_perm(BlockDriverState *bs,
                                                    uint64_t perm,
                                                    uint64_t shared,
                                                    Error **errp)
{
    return bdrv_check_length_aligned(bs, perm, errp);
}

static void blklogwrites_gather_options(BlockDriverState *bs, QDict *opts)
{
    BDRVBlkLogWritesState *s = bs->opaque;

    if (s->append) {
        qdict_put_bool(opts, "log-append", true);
    }
    if (s->has_sector_size) {
        qdict_put_int(opts, "log-sector-size", s->sector_size);
    }
    if (s->update_interval != DEFAULT_SUPER_UPDATE_INTERVAL) {
        qdict_put(opts, "log-super-update-interval",
                  qnum_new_uint(s->update_interval));
    }
}

/* ---- requests ---- */

static int coroutine_fn blklogwrites_co_preadv(BlockDriverState *bs,
                                               int64_t offset, int64_t bytes,
                                               QEMUIOVector *qiov,
                                               BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->file, offset, qiov, flags);
}

/* Carry out a write, or (no @qiov) a write of zeroes, and log it. */
static int coroutine_fn co_write(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, QEMUIOVector *qiov,
                                 BdrvRequestFlags flags)
{
    BDRVBlkLogWritesState *s = bs->opaque;
    LogRange range;
    int ret;

    range_co_begin(s, &range, offset, offset + bytes);
    ret = log_error(s);
    if (ret >= 0) {
        ret = qiov ? bdrv_co_pwritev(bs->file, offset, qiov, flags)
                   : bdrv_co_pwrite_zeroes(bs->file, offset, bytes, flags);
    }
    if (ret >= 0) {
        ret = co_log(s, offset, bytes, qiov,
                     flags & BDRV_REQ_FUA ? LOG_FUA_FLAG : 0);
    }
    range_end(&range);
    return ret < 0 ? ret : co_update_super(s, s->update_interval);
}

static int coroutine_fn blklogwrites_co_pwritev(BlockDriverState *bs,
                                                int64_t offset, int64_t bytes,
                                                QEMUIOVector *qiov,
                                                BdrvRequestFlags flags)
{
    return co_write(bs, offset, bytes, qiov, flags);
}

static int coroutine_fn blklogwrites_co_pwrite_zeroes(BlockDriverState *bs,
                                                      int64_t offset,
                                                      int64_t bytes,
                                                      BdrvRequestFlags flags)
{
    return co_write(bs, offset, bytes, NULL, flags);
}

static int coroutine_fn blklogwrites_co_pdiscard(BlockDriverState *bs,
                                                 int64_t offset, int64_t bytes)
{
    BDRVBlkLogWritesState *s = bs->opaque;
    LogRange range;
    int ret;

    range_co_begin(s, &range, offset, offset + bytes);
    ret = log_error(s);
    if (ret >= 0) {
        ret = bdrv_co_pdiscard(bs->file, offset, bytes);
    }
    if (ret >= 0) {
        ret = co_log(s, offset, bytes, NULL, LOG_DISCARD_FLAG);
    }
    range_end(&range);
    return ret < 0 ? ret : co_update_super(s, s->update_interval);
}

typedef struct SlotWait {
    BDRVBlkLogWritesState *s;
    uint64_t index;
} SlotWait;

/* All entries up to @index are written, or the log has ended before it. */
static bool written_up_to(void *opaque)
{
    const SlotWait *wait = opaque;
    bool done;

    pthread_mutex_lock(&wait->s->lock);
    done = wait->s->error || entries_written(wait->s) > wait->index;
    pthread_mutex_unlock(&wait->s->lock);
    return done;
}

/*
 * The core flushes both children afterwards.  Here the image is flushed first,
 * because what the log says depends on how that ends.
 */
static int coroutine_fn blklogwrites_co_flush(BlockDriverState *bs)
{
    BDRVBlkLogWritesState *s = bs->opaque;
    LogWriteEntry entry;
    LogSlot slot;
    SlotWait wait;
    int ret, flush;

    if (bs->read_only) {
        return 0;
    }
    ret = slot_begin(s, &slot, 0);
    if (ret < 0) {
        return ret;
    }
    wait = (SlotWait) { .s = s, .index = slot.index };
    flush = bdrv_co_flush(bs->file->bs);
    entry = make_entry(s, 0, 0, flush < 0 ? 0 : LOG_FLUSH_FLAG);
    ret = co_write_entry(s, &slot, &entry, NULL, 0);
    slot_end(s, &slot, ret);
    if (ret >= 0) {
        wait_set_co_wait(&s->slots_done, written_up_to, &wait);
        ret = log_error(s);
    }
    if (ret >= 0) {
        ret = co_update_super(s, 1);
    }
    return flush < 0 ? flush : ret;
}

/*
 * The log knows no length.  What is cut off reads as zeroes if the image ever
 * grows again, so it is logged as discarded, and the rest of the sector at the
 * new end as written.
 */
static int coroutine_fn co_log_cut(BlockDriverState *bs, int64_t new_end,
                                   int64_t old_end)
{
    BDRVBlkLogWritesState *s = bs->opaque;
    int64_t size = s->sector_size;
    int64_t first = bdrv_align_up(new_end, size);
    int64_t end = bdrv_align_up(old_end, size);
    int ret = 0;

    if (first != new_end) {
        g_autofree uint8_t *buf = g_malloc(size);
        QEMUIOVector qiov;

        qemu_iovec_init_buf(&qiov, buf, size);
        ret = bdrv_co_preadv(bs->file, first - size, &qiov, 0);
        if (ret >= 0) {
            ret = co_log(s, first - size, size, &qiov, 0);
        }
    }
    if (ret >= 0 && first < end) {
        ret = co_log(s, first, end - first, NULL, LOG_DISCARD_FLAG);
    }
    return ret;
}

static int coroutine_fn blklogwrites_co_truncate(BlockDriverState *bs,
                                                 int64_t offset,
                                                 PreallocMode prealloc,
                                                 BdrvRequestFlags flags,
                                                 Error **errp)
{
    BDRVBlkLogWritesState *s = bs->opaque;
    int64_t old = bdrv_getlength(bs);
    LogRange range;
    int ret;

    range_co_begin(s, &range, MIN(old, offset), INT64_MAX);
    ret = log_error(s);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "The write log cannot be continued");
    } else {
        ret = bdrv_co_truncate(bs->file, offset, prealloc, flags, errp);
    }
    if (ret >= 0 && offset < old) {
        ret = co_log_cut(bs, offset, old);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not log the truncation");
        }
    }
    range_end(&range);
    return ret;
}

const BlockDriver bdrv_blklogwrites = {
    .format_name = "blklogwrites",
    .driver = BLOCKDEV_DRIVER_BLKLOGWRITES,
    .instance_size = sizeof(BDRVBlkLogWritesState),
    .is_filter = true,
    .can_grow = true,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP
                            | BDRV_REQ_NO_FALLBACK,
    .supported_truncate_flags = BDRV_REQ_ZERO_WRITE,
    .bdrv_co_open = blklogwrites_co_open,
    .bdrv_co_close = blklogwrites_co_close,
    .bdrv_co_preadv = blklogwrites_co_preadv,
    .bdrv_co_pwritev = blklogwrites_co_pwritev,
    .bdrv_co_pwrite_zeroes = blklogwrites_co_pwrite_zeroes,
    .bdrv_co_pdiscard = blklogwrites_co_pdiscard,
    .bdrv_co_flush = blklogwrites_co_flush,
    .bdrv_co_truncate = blklogwrites_co_truncate,
    .bdrv_co_block_status = bdrv_filter_co_block_status,
    .bdrv_co_getlength = bdrv_filter_co_getlength,
    .bdrv_refresh_limits = blklogwrites_refresh_limits,
    .bdrv_co_check_perm = blklogwrites_co_check_perm,
    .bdrv_gather_options = blklogwrites_gather_options,
};
