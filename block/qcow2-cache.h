/* SPDX-License-Identifier: MIT */
/*
 * A cache of fixed-size pieces of metadata: L2 slices, refcount blocks.
 *
 * Looking is free of locks and of shared writes: qcow2_cache_peek() finds an
 * entry in an open-addressed index and copies words out of it under a sequence
 * count, so threads that only look up mappings never slow each other down.
 * Everything else (pinning, loading, choosing a victim) takes the cache's
 * mutex, for a few instructions.
 *
 * Words of an entry change only while it is pinned and its owner's lock
 * (BDRVQcow2State.lock) is held.  An entry that is pinned or dirty stays.
 */
#ifndef BLOCK_QCOW2_CACHE_H
#define BLOCK_QCOW2_CACHE_H

#include "block/block-int.h"

typedef struct Qcow2CacheEntry {
    uint64_t offset;            /* atomic; in the image file; 0: unused */
    unsigned seq;               /* atomic; odd while words change */
    unsigned refs;              /* pins; cache->lock */
    bool accessed;              /* atomic; since the clock's hand came by */
    bool loading;               /* cache->lock; pinned by who loads it */
    /* Bytes [start, end) differ from the file; cache->lock. */
    uint32_t dirty_start, dirty_end;
    TAILQ_ENTRY(Qcow2CacheEntry) next_dirty;
    uint64_t *words;            /* big-endian, entry_size bytes */
} Qcow2CacheEntry;

typedef struct Qcow2Cache {
    unsigned n_entries;
    unsigned index_mask;
    uint32_t *index;            /* atomic; entry number + 1, or 0 */
    Qcow2CacheEntry *entries;
    uint8_t *memory;            /* mapped, touched as it is used */
    size_t entry_size;          /* bytes */
    unsigned hand;              /* of the clock; lock */
    TAILQ_HEAD(, Qcow2CacheEntry) dirty;    /* lock */
    unsigned n_dirty;           /* atomic to read; lock */
    pthread_mutex_t lock;       /* leaf: nothing is taken below it */
    WaitSet waiters;            /* for an entry to be loaded or unpinned */
    BlkdebugEvent load_event;
} Qcow2Cache;

/* NULL with an error if there is no memory. */
Qcow2Cache *qcow2_cache_new(unsigned n_entries, size_t entry_size,
                            BlkdebugEvent load_event, Error **errp);
void qcow2_cache_free(Qcow2Cache *c);           /* NULL is fine */

static inline unsigned qcow2_cache_hash(const Qcow2Cache *c, uint64_t offset)
{
    return (offset * UINT64_C(0x9e3779b97f4a7c15) >> 32) & c->index_mask;
}

/*
 * [any thread] Copy @n 64-bit words from byte @byte of the entry for @offset
 * to @out, as they are on disk.  False if it is not there, or just changing.
 */
static inline bool qcow2_cache_peek(Qcow2Cache *c, uint64_t offset,
                                    size_t byte, unsigned n, uint64_t *out)
{
    unsigned pos = qcow2_cache_hash(c, offset);
    uint32_t number;

    while ((number = __atomic_load_n(&c->index[pos], __ATOMIC_ACQUIRE))) {
        Qcow2CacheEntry *e = &c->entries[number - 1];
        unsigned seq = __atomic_load_n(&e->seq, __ATOMIC_ACQUIRE);

        if (__atomic_load_n(&e->offset, __ATOMIC_ACQUIRE) == offset
            && !(seq & 1)) {
            for (unsigned i = 0; i < n; i++) {
                out[i] = __atomic_load_n(&e->words[byte / 8 + i],
                                         __ATOMIC_ACQUIRE);
            }
            if (!__atomic_load_n(&e->accessed, __ATOMIC_RELAXED)) {
                __atomic_store_n(&e->accessed, true, __ATOMIC_RELAXED);
            }
            return __atomic_load_n(&e->seq, __ATOMIC_RELAXED) == seq;
        }
        pos = (pos + 1) & c->index_mask;
    }
    return false;
}

/*
 * Pin the entry for @offset, which is read from @file unless @fresh (then it
 * is all zeroes).  -EBUSY: every entry that is not pinned is dirty; the caller
 * cleans some and tries again.  Waits while all are pinned.
 */
int coroutine_fn qcow2_cache_co_get(Qcow2Cache *c, BdrvChild *file,
                                    uint64_t offset, bool fresh,
                                    Qcow2CacheEntry **entry);
void qcow2_cache_put(Qcow2Cache *c, Qcow2CacheEntry *entry);

/* A pinned entry's word, host order.  Owner's lock, or nobody writes. */
static inline uint64_t qcow2_cache_word(const Qcow2CacheEntry *e, size_t i)
{
    return GUINT64_FROM_BE(__atomic_load_n(&e->words[i], __ATOMIC_RELAXED));
}

/* Change pinned words between begin and end, owner's lock held. */
static inline void qcow2_cache_begin_change(Qcow2CacheEntry *e)
{
    __atomic_store_n(&e->seq, e->seq + 1, __ATOMIC_RELAXED);
}

static inline void qcow2_cache_set_word(Qcow2CacheEntry *e, size_t i,
                                        uint64_t value)
{
    __atomic_store_n(&e->words[i], GUINT64_TO_BE(value), __ATOMIC_RELEASE);
}

static inline void qcow2_cache_end_change(Qcow2CacheEntry *e)
{
    __atomic_store_n(&e->seq, e->seq + 1, __ATOMIC_RELEASE);
}

static inline unsigned qcow2_cache_n_dirty(const Qcow2Cache *c)
{
    return __atomic_load_n(&c->n_dirty, __ATOMIC_RELAXED);
}

/* Bytes [@start, @end) of a pinned entry are to be written. */
void qcow2_cache_mark_dirty(Qcow2Cache *c, Qcow2CacheEntry *e,
                            uint32_t start, uint32_t end);

/* A dirty entry's bytes, copied; the entry stays pinned until it is done. */
typedef struct Qcow2CacheCopy {
    Qcow2CacheEntry *entry;
    uint64_t offset;            /* where to write */
    uint32_t start, end;        /* of the entry */
    uint8_t *data;              /* end - start bytes */
} Qcow2CacheCopy;

/*
 * Copy up to @max dirty entries (@idle: of those that nobody has pinned) to
 * @copies and let them be clean; returns how many.  Owner's lock held.  An
 * older copy of the same entry must not be under way to the file.  Each is to
 * be given to qcow2_cache_copy_done(), which makes it dirty again if writing
 * has failed; nobody who is needed for that may be waiting for the entries.
 */
unsigned qcow2_cache_copy_dirty(Qcow2Cache *c, Qcow2CacheCopy *copies,
                                unsigned max, size_t align, bool idle);
void qcow2_cache_copy_done(Qcow2Cache *c, Qcow2CacheCopy *copy, bool failed);

/* Wait until nothing is pinned. */
void coroutine_fn qcow2_cache_co_wait_idle(Qcow2Cache *c);

/* Forget what is cached in [@offset, @offset + @bytes), dirty or not. */
void qcow2_cache_forget(Qcow2Cache *c, uint64_t offset, uint64_t bytes);

/* Forget everything; nothing is pinned.  Dirty entries are lost. */
void qcow2_cache_forget_all(Qcow2Cache *c);

/* Give back the memory of clean entries not used since the last call. */
void qcow2_cache_clean_unused(Qcow2Cache *c);

#endif /* BLOCK_QCOW2_CACHE_H */
