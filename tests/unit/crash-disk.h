/* SPDX-License-Identifier: MIT */
/*
 * For crash tests: what a power cut may leave on a disk whose writes and
 * flushes were logged (blklogwrites).  What was written before a flush is
 * there; of what was written since, some is and some is not.
 */
#ifndef TESTS_UNIT_CRASH_DISK_H
#define TESTS_UNIT_CRASH_DISK_H

#include <glib.h>
#include <string.h>

#include "tests/unit/log-writes-test.h"

#define CRASH_FLUSH 1
#define CRASH_FUA 2

typedef struct CrashDisk {
    Replay *replay;
    uint64_t *ends;             /* of each entry, in the log */
    uint64_t durable;           /* entries that are in bytes */
    uint8_t *bytes;
    size_t len, size;           /* of the file; of bytes */
    uint8_t *image;             /* what is left, @image_len bytes */
    size_t image_len;
} CrashDisk;

/* A disk that had the contents of file @before, and the log in file @log. */
static inline void crash_disk_init(CrashDisk *d, const char *before,
                                   const char *log, size_t size)
{
    Replay *r = replay_open(log);
    uint64_t pos = r->sector_size;
    g_autofree char *text = NULL;
    gsize len;

    *d = (CrashDisk) { .replay = r, .size = size };
    d->ends = g_new(uint64_t, MAX(r->n_entries, 1));
    for (uint64_t i = 0; i < r->n_entries; i++) {
        pos += r->sector_size;
        if (r->entries[i].data) {
            pos += r->entries[i].n_sectors * r->sector_size;
        }
        d->ends[i] = pos;
    }
    g_assert_true(g_file_get_contents(before, &text, &len, NULL));
    g_assert_cmpuint(len, <=, size);
    d->bytes = g_malloc0(size);
    d->image = g_malloc0(size);
    memcpy(d->bytes, text, len);
    d->len = len;
}

static inline void crash_disk_deinit(CrashDisk *d)
{
    replay_free(d->replay);
    g_free(d->ends);
    g_free(d->bytes);
    g_free(d->image);
}

/* How many entries the first @bytes of the log hold. */
static inline uint64_t crash_disk_entries(const CrashDisk *d, uint64_t bytes)
{
    uint64_t n = 0;

    while (n < d->replay->n_entries && d->ends[n] <= bytes) {
        n++;
    }
    return n;
}

static inline void crash_disk_carry_out(const CrashDisk *d, uint64_t i,
                                        uint8_t *bytes, size_t *len)
{
    const ReplayEntry *e = &d->replay->entries[i];
    size_t pos = e->sector * d->replay->sector_size;
    size_t n = e->n_sectors * d->replay->sector_size;

    if (e->data) {
        g_assert_cmpuint(pos + n, <=, d->size);
        memcpy(bytes + pos, e->data, n);
        *len = MAX(*len, pos + n);
    } else if (pos < d->size) {
        memset(bytes + pos, 0, MIN(n, d->size - pos));
    }
}

/*
 * Fill in what is left when power is cut after @n entries, at least as many as
 * last time.  Each write since the last flush is kept with a probability of
 * @keep percent.
 */
static inline void crash_disk_cut(CrashDisk *d, uint64_t n, int keep,
                                  GRand *rand)
{
    const ReplayEntry *entries = d->replay->entries;
    uint64_t flush = n;

    while (flush > 0 && !(entries[flush - 1].flags & CRASH_FLUSH)) {
        flush--;
    }
    for (; d->durable < flush; d->durable++) {
        crash_disk_carry_out(d, d->durable, d->bytes, &d->len);
    }
    memset(d->image, 0, d->image_len);
    memcpy(d->image, d->bytes, d->len);
    d->image_len = d->len;
    for (uint64_t i = flush; i < n; i++) {
        if ((entries[i].flags & CRASH_FUA)
            || g_rand_int_range(rand, 0, 100) < keep) {
            crash_disk_carry_out(d, i, d->image, &d->image_len);
        }
    }
}

#endif /* TESTS_UNIT_CRASH_DISK_H */
