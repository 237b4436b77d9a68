/* SPDX-License-Identifier: MIT */
/*
 * For the unit test of blklogwrites: a reader of the log which shares no code
 * with the driver, and which replays it.
 */
#ifndef TESTS_UNIT_LOG_WRITES_TEST_H
#define TESTS_UNIT_LOG_WRITES_TEST_H

#include <glib.h>
#include <string.h>

typedef struct ReplayEntry {
    uint64_t sector, n_sectors, flags;
    const uint8_t *data;                /* into the log's text, or NULL */
} ReplayEntry;

typedef struct Replay {
    uint8_t *text;
    size_t len;
    uint64_t n_entries;
    uint32_t sector_size;
    ReplayEntry *entries;
} Replay;

static inline uint64_t replay_number(const Replay *r, size_t pos, int bytes)
{
    uint64_t n = 0;

    g_assert_cmpuint(pos + bytes, <=, r->len);
    while (bytes-- > 0) {
        n = n << 8 | r->text[pos + bytes];
    }
    return n;
}

/* Read the log in file @path, which must be valid. */
static inline Replay *replay_open(const char *path)
{
    Replay *r = g_new0(Replay, 1);
    size_t pos;

    g_assert_true(g_file_get_contents(path, (char **)&r->text, &r->len, NULL));
    g_assert_cmphex(replay_number(r, 0, 8), ==, 0x6a736677736872);
    g_assert_cmpuint(replay_number(r, 8, 8), ==, 1);
    r->n_entries = replay_number(r, 16, 8);
    r->sector_size = replay_number(r, 24, 4);
    r->entries = g_new0(ReplayEntry, r->n_entries);
    pos = r->sector_size;
    for (uint64_t i = 0; i < r->n_entries; i++) {
        ReplayEntry *e = &r->entries[i];

        e->sector = replay_number(r, pos, 8);
        e->n_sectors = replay_number(r, pos + 8, 8);
        e->flags = replay_number(r, pos + 16, 8);
        g_assert_cmpuint(replay_number(r, pos + 24, 8), ==, 0);
        g_assert_cmpuint(e->flags, <, 8);
        pos += r->sector_size;
        if (!(e->flags & 4)) {
            e->data = r->text + pos;
            pos += e->n_sectors * r->sector_size;
        }
        g_assert_cmpuint(pos, <=, r->len);
    }
    return r;
}

static inline void replay_free(Replay *r)
{
    g_free(r->entries);
    g_free(r->text);
    g_free(r);
}

/* Carry out the first @n entries on @disk. */
static inline void replay_apply(const Replay *r, uint64_t n, uint8_t *disk,
                                size_t len)
{
    for (uint64_t i = 0; i < n; i++) {
        const ReplayEntry *e = &r->entries[i];
        size_t pos = e->sector * r->sector_size;
        size_t bytes = e->n_sectors * r->sector_size;

        g_assert_cmpuint(pos + bytes, <=, len);
        if (e->data) {
            memcpy(disk + pos, e->data, bytes);
        } else {
            memset(disk + pos, 0, bytes);
        }
    }
}

#endif /* TESTS_UNIT_LOG_WRITES_TEST_H */
