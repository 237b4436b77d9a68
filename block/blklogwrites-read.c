/* SPDX-License-Identifier: MIT */
/*
 * Reading a write log that is there already, to go on with it.
 *
 * Main thread, in a coroutine.  The log comes from anywhere: every number in it
 * is checked before it is used.
 */
#include "block/blklogwrites.h"

#include <inttypes.h>
#include <string.h>

#define WINDOW_BYTES (16 << 10)
#define WINDOWS_PER_TURN 64

/* The log's bytes from @pos on, as read last. */
typedef struct LogWindow {
    BdrvChild *log;
    int64_t pos;                        /* -1: nothing yet */
    unsigned n_reads;
    uint8_t buf[WINDOW_BYTES];
} LogWindow;

static int coroutine_fn co_read(BdrvChild *log, int64_t pos, void *buf,
                                size_t bytes)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return bdrv_co_preadv(log, pos, &qiov, 0);
}

bool coroutine_fn log_co_read_super(BdrvChild *log, LogWriteSuper *super,
                                    Error **errp)
{
    int ret = co_read(log, 0, super, sizeof(*super));

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read log superblock");
        return false;
    }
    super->magic = GUINT64_FROM_LE(super->magic);
    super->version = GUINT64_FROM_LE(super->version);
    super->nr_entries = GUINT64_FROM_LE(super->nr_entries);
    super->sectorsize = GUINT32_FROM_LE(super->sectorsize);
    if (super->magic != WRITE_LOG_MAGIC) {
        error_setg(errp, "Invalid log superblock magic");
        return false;
    }
    if (super->version != WRITE_LOG_VERSION) {
        error_setg(errp, "Unsupported log version %" PRIu64,
                   (uint64_t)super->version);
        return false;
    }
    return true;
}

/* Read the header at @pos, usually from the window. */
static int coroutine_fn co_read_entry(LogWindow *w, int64_t pos,
                                      LogWriteEntry *entry)
{
    if (w->pos < 0 || pos < w->pos
        || pos - w->pos > (int64_t)(WINDOW_BYTES - sizeof(*entry))) {
        int ret = co_read(w->log, pos, w->buf, WINDOW_BYTES);

        if (ret < 0) {
            return ret;
        }
        w->pos = pos;
        if (++w->n_reads % WINDOWS_PER_TURN == 0) {
            /* A long log must not keep the thread for itself. */
            aio_co_sleep_ns(0);
        }
    }
    memcpy(entry, w->buf + (pos - w->pos), sizeof(*entry));
    entry->sector = GUINT64_FROM_LE(entry->sector);
    entry->nr_sectors = GUINT64_FROM_LE(entry->nr_sectors);
    entry->flags = GUINT64_FROM_LE(entry->flags);
    entry->data_len = GUINT64_FROM_LE(entry->data_len);
    return 0;
}

/* What is wrong with the header of an entry, or NULL. */
static const char *find_fault(const LogWriteEntry *entry, uint32_t sector_size)
{
    uint64_t max = BDRV_MAX_LENGTH / sector_size;

    if (entry->flags & ~(uint64_t)LOG_FLAG_MASK) {
        return "unknown flags";
    }
    if (entry->nr_sectors > max || entry->sector > max - entry->nr_sectors) {
        return "sectors out of range";
    }
    if ((entry->flags & LOG_MARK_FLAG)
        && entry->data_len > sector_size - sizeof(*entry)) {
        return "a mark that is too long";
    }
    return NULL;
}

bool coroutine_fn log_co_find_end(BdrvChild *log, const LogWriteSuper *super,
                                  int64_t *end, Error **errp)
{
    g_autofree LogWindow *w = g_new(LogWindow, 1);
    int64_t size = super->sectorsize;
    int64_t len = bdrv_co_getlength(log->bs);
    int64_t pos = size;

    if (len < 0) {
        error_setg_errno(errp, -len, "Could not get the log's size");
        return false;
    }
    w->log = log;
    w->pos = -1;
    w->n_reads = 0;
    for (uint64_t i = 0; i < super->nr_entries; i++) {
        LogWriteEntry entry;
        const char *fault;
        int64_t room = len - pos - size;
        int ret = 0;

        if (room >= 0) {
            ret = co_read_entry(w, pos, &entry);
        }
        if (ret >= 0) {
            ret = aio_co_yield_fair();
        }
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not read log entry %" PRIu64,
                             i);
            return false;
        }
        fault = room < 0 ? "the log ends before it"
                         : find_fault(&entry, size);
        if (!fault && !(entry.flags & LOG_DISCARD_FLAG)) {
            if (entry.nr_sectors > (uint64_t)(room / size)) {
                fault = "the log ends in its data";
            } else {
                pos += entry.nr_sectors * size;
            }
        }
        if (fault) {
            error_setg(errp, "Invalid log entry %" PRIu64 ": %s", i, fault);
            return false;
        }
        pos += size;
    }
    *end = pos;
    return true;
}
