/* SPDX-License-Identifier: MIT */
/*
 * Cached pieces of qcow2 metadata.  See qcow2-cache.h.
 *
 * The index is open-addressed with linear probing.  It changes under the
 * mutex; readers that walk it meanwhile may miss an entry, which only sends
 * them to the slow path, but never take a wrong one, because they compare the
 * entry's own offset under its sequence count.
 */
#include "block/qcow2-cache.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

Qcow2Cache *qcow2_cache_new(unsigned n_entries, size_t entry_size,
                            BlkdebugEvent load_event, Error **errp)
{
    Qcow2Cache *c;
    unsigned index_size = 4;
    void *memory = mmap(NULL, n_entries * entry_size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED) {
        error_setg_errno(errp, errno, "Could not allocate a metadata cache");
        return NULL;
    }
    while (index_size < 2 * n_entries) {
        index_size *= 2;
    }
    c = g_new0(Qcow2Cache, 1);
    c->n_entries = n_entries;
    c->entry_size = entry_size;
    c->load_event = load_event;
    c->memory = memory;
    c->index_mask = index_size - 1;
    c->index = g_new0(uint32_t, index_size);
    c->entries = g_new0(Qcow2CacheEntry, n_entries);
    TAILQ_INIT(&c->dirty);
    pthread_mutex_init(&c->lock, NULL);
    wait_set_init(&c->waiters);
    return c;
}

void qcow2_cache_free(Qcow2Cache *c)
{
    if (c) {
        munmap(c->memory, c->n_entries * c->entry_size);
        pthread_mutex_destroy(&c->lock);
        wait_set_deinit(&c->waiters);
        g_free(c->index);
        g_free(c->entries);
        g_free(c);
    }
}

/* ---- index; cache->lock held ---- */

static Qcow2CacheEntry *find(Qcow2Cache *c, uint64_t offset)
{
    unsigned pos = qcow2_cache_hash(c, offset);

    while (c->index[pos]) {
        Qcow2CacheEntry *e = &c->entries[c->index[pos] - 1];

        if (e->offset == offset) {
            return e;
        }
        pos = (pos + 1) & c->index_mask;
    }
    return NULL;
}

static void index_store(Qcow2Cache *c, unsigned pos, uint32_t number)
{
    __atomic_store_n(&c->index[pos], number, __ATOMIC_RELEASE);
}

static void index_insert(Qcow2Cache *c, Qcow2CacheEntry *e)
{
    unsigned pos = qcow2_cache_hash(c, e->offset);

    while (c->index[pos]) {
        pos = (pos + 1) & c->index_mask;
    }
    index_store(c, pos, e - c->entries + 1);
}

/* Close the gap, so that no probe sequence is interrupted. */
static void index_remove(Qcow2Cache *c, Qcow2CacheEntry *e)
{
    unsigned gap = qcow2_cache_hash(c, e->offset);
    unsigned pos;

    while (c->index[gap] != e - c->entries + 1) {
        gap = (gap + 1) & c->index_mask;
    }
    for (pos = (gap + 1) & c->index_mask; c->index[pos];
         pos = (pos + 1) & c->index_mask) {
        unsigned home = qcow2_cache_hash(
            c, c->entries[c->index[pos] - 1].offset);

        /* May it move to the gap?  Only if its home is not between them. */
        if (((pos - home) & c->index_mask) >= ((pos - gap) & c->index_mask)) {
            index_store(c, gap, c->index[pos]);
            gap = pos;
        }
    }
    index_store(c, gap, 0);
}

/* ---- entries ---- */

static bool is_dirty(const Qcow2CacheEntry *e)
{
    return e->dirty_end > e->dirty_start;
}

/* An unpinned clean entry; else NULL, and whether a dirty one is unpinned. */
static Qcow2CacheEntry *find_victim(Qcow2Cache *c, bool *dirty)
{
    *dirty = false;
    for (unsigned i = 0; i < 2 * c->n_entries; i++) {
        Qcow2CacheEntry *e = &c->entries[c->hand];

        c->hand = c->hand + 1 < c->n_entries ? c->hand + 1 : 0;
        if (e->refs) {
            continue;
        }
        if (is_dirty(e)) {
            *dirty = true;
        } else if (!__atomic_exchange_n(&e->accessed, false,
                                        __ATOMIC_RELAXED)) {
            return e;
        }
    }
    return NULL;
}

/* Empty an entry; readers find it changing.  cache->lock held. */
static void drop(Qcow2Cache *c, Qcow2CacheEntry *e)
{
    qcow2_cache_begin_change(e);
    if (e->offset) {
        index_remove(c, e);
        __atomic_store_n(&e->offset, 0, __ATOMIC_RELEASE);
    }
}

static bool no_longer_loading(void *opaque)
{
    void **args = opaque;
    Qcow2Cache *c = args[0];
    Qcow2CacheEntry *e;
    bool done;

    pthread_mutex_lock(&c->lock);
    e = find(c, *(uint64_t *)args[1]);
    done = !e || !e->loading;
    pthread_mutex_unlock(&c->lock);
    return done;
}

static bool any_unpinned(void *opaque)
{
    Qcow2Cache *c = opaque;
    bool any = false;

    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; !any && i < c->n_entries; i++) {
        any = !c->entries[i].refs;
    }
    pthread_mutex_unlock(&c->lock);
    return any;
}

/*
 * A pinned entry for @offset, or NULL: then an entry is pinned for it that is
 * to be filled (*@load), or nothing is free (-EBUSY: dirty ones are).
 */
static int coroutine_fn co_claim(Qcow2Cache *c, uint64_t offset,
                                 Qcow2CacheEntry **entry, bool *load)
{
    for (;;) {
        Qcow2CacheEntry *e;
        bool dirty;

        pthread_mutex_lock(&c->lock);
        e = find(c, offset);
        if (e && !e->loading) {
            e->refs++;
            pthread_mutex_unlock(&c->lock);
            __atomic_store_n(&e->accessed, true, __ATOMIC_RELAXED);
            *entry = e;
            *load = false;
            return 0;
        }
        if (e) {
            void *args[] = { c, &offset };

            pthread_mutex_unlock(&c->lock);
            wait_set_co_wait(&c->waiters, no_longer_loading, args);
            continue;
        }
        e = find_victim(c, &dirty);
        if (e) {
            drop(c, e);
            if (!e->words) {
                /* Not at once for all: most images never fill their cache. */
                e->words = (uint64_t *)(c->memory
                                        + (e - c->entries) * c->entry_size);
            }
            __atomic_store_n(&e->offset, offset, __ATOMIC_RELEASE);
            index_insert(c, e);
            e->refs = 1;
            e->loading = true;
            pthread_mutex_unlock(&c->lock);
            *entry = e;
            *load = true;
            return 0;
        }
        pthread_mutex_unlock(&c->lock);
        if (dirty) {
            return -EBUSY;
        }
        wait_set_co_wait(&c->waiters, any_unpinned, c);
    }
}

/*
 * Through a buffer: readers that came too late may still look at the words, so
 * these are only ever changed atomically.
 */
static int coroutine_fn co_load(Qcow2Cache *c, BdrvChild *file,
                                Qcow2CacheEntry *e)
{
    size_t align = MAX(file->bs->bl.min_mem_alignment, 512);
    uint64_t *buf = g_aligned_alloc(1, c->entry_size, align);
    int ret;

    BLKDBG_EVENT(file, c->load_event);
    ret = bdrv_co_pread(file, e->offset, c->entry_size, buf, 0);
    for (size_t i = 0; ret >= 0 && i < c->entry_size / 8; i++) {
        __atomic_store_n(&e->words[i], buf[i], __ATOMIC_RELEASE);
    }
    g_aligned_free(buf);
    return MIN(ret, 0);
}

static void fill_zeroes(Qcow2Cache *c, Qcow2CacheEntry *e)
{
    for (size_t i = 0; i < c->entry_size / 8; i++) {
        __atomic_store_n(&e->words[i], 0, __ATOMIC_RELEASE);
    }
}

int coroutine_fn qcow2_cache_co_get(Qcow2Cache *c, BdrvChild *file,
                                    uint64_t offset, bool fresh,
                                    Qcow2CacheEntry **entry)
{
    Qcow2CacheEntry *e = NULL;
    bool load = false;
    int ret = co_claim(c, offset, &e, &load);

    if (ret < 0) {
        return ret;
    }
    if (!load) {
        if (fresh) {
            qcow2_cache_begin_change(e);
            fill_zeroes(c, e);
            qcow2_cache_end_change(e);
        }
        *entry = e;
        return 0;
    }

    if (fresh) {
        fill_zeroes(c, e);
    } else {
        ret = co_load(c, file, e);
    }
    pthread_mutex_lock(&c->lock);
    e->loading = false;
    if (ret < 0) {
        index_remove(c, e);
        __atomic_store_n(&e->offset, 0, __ATOMIC_RELEASE);
        e->refs = 0;
    }
    qcow2_cache_end_change(e);
    pthread_mutex_unlock(&c->lock);
    __atomic_store_n(&e->accessed, true, __ATOMIC_RELAXED);
    wait_set_wake(&c->waiters);
    *entry = ret < 0 ? NULL : e;
    return ret;
}

void qcow2_cache_put(Qcow2Cache *c, Qcow2CacheEntry *entry)
{
    bool last;

    pthread_mutex_lock(&c->lock);
    g_assert(entry->refs > 0);
    last = --entry->refs == 0;
    pthread_mutex_unlock(&c->lock);
    if (last) {
        wait_set_wake(&c->waiters);
    }
}

/* cache->lock held. */
static void add_dirty(Qcow2Cache *c, Qcow2CacheEntry *e, uint32_t start,
                      uint32_t end)
{
    if (is_dirty(e)) {
        e->dirty_start = MIN(e->dirty_start, start);
        e->dirty_end = MAX(e->dirty_end, end);
    } else {
        e->dirty_start = start;
        e->dirty_end = end;
        TAILQ_INSERT_TAIL(&c->dirty, e, next_dirty);
        __atomic_store_n(&c->n_dirty, c->n_dirty + 1, __ATOMIC_RELAXED);
    }
}

/* cache->lock held. */
static void set_clean(Qcow2Cache *c, Qcow2CacheEntry *e)
{
    e->dirty_start = e->dirty_end = 0;
    TAILQ_REMOVE(&c->dirty, e, next_dirty);
    __atomic_store_n(&c->n_dirty, c->n_dirty - 1, __ATOMIC_RELAXED);
}

void qcow2_cache_mark_dirty(Qcow2Cache *c, Qcow2CacheEntry *e,
                            uint32_t start, uint32_t end)
{
    g_assert(end <= c->entry_size && start < end);
    pthread_mutex_lock(&c->lock);
    add_dirty(c, e, start, end);
    pthread_mutex_unlock(&c->lock);
}

unsigned qcow2_cache_copy_dirty(Qcow2Cache *c, Qcow2CacheCopy *copies,
                                unsigned max, size_t align, bool idle)
{
    Qcow2CacheEntry *e, *next;
    unsigned n = 0;

    if (qcow2_cache_n_dirty(c) == 0) {
        return 0;
    }
    align = MIN(MAX(align, 8), c->entry_size);
    pthread_mutex_lock(&c->lock);
    TAILQ_FOREACH_SAFE(e, &c->dirty, next_dirty, next) {
        if (n == max) {
            break;
        }
        if (idle && e->refs) {
            continue;
        }
        copies[n].entry = e;
        copies[n].offset = e->offset;
        copies[n].start = bdrv_align_down(e->dirty_start, align);
        copies[n].end = MIN(bdrv_align_up(e->dirty_end, align),
                            (int64_t)c->entry_size);
        e->refs++;
        set_clean(c, e);
        n++;
    }
    pthread_mutex_unlock(&c->lock);

    for (unsigned i = 0; i < n; i++) {
        Qcow2CacheCopy *copy = &copies[i];
        size_t len = copy->end - copy->start;

        copy->data = g_aligned_alloc(1, len, 4096);
        memcpy(copy->data, (uint8_t *)copy->entry->words + copy->start, len);
    }
    return n;
}

void qcow2_cache_copy_done(Qcow2Cache *c, Qcow2CacheCopy *copy, bool failed)
{
    /* Pinned, so it is still the same. */
    if (failed) {
        qcow2_cache_mark_dirty(c, copy->entry, copy->start, copy->end);
    }
    g_aligned_free(copy->data);
    qcow2_cache_put(c, copy->entry);
}

static bool nothing_pinned(void *opaque)
{
    Qcow2Cache *c = opaque;
    bool none = true;

    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; none && i < c->n_entries; i++) {
        none = !c->entries[i].refs;
    }
    pthread_mutex_unlock(&c->lock);
    return none;
}

void coroutine_fn qcow2_cache_co_wait_idle(Qcow2Cache *c)
{
    wait_set_co_wait(&c->waiters, nothing_pinned, c);
}

static void forget_entry(Qcow2Cache *c, Qcow2CacheEntry *e)
{
    if (is_dirty(e)) {
        set_clean(c, e);
    }
    if (e->refs == 0) {
        drop(c, e);
        e->accessed = false;
        qcow2_cache_end_change(e);
    }
}

void qcow2_cache_forget(Qcow2Cache *c, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;

    pthread_mutex_lock(&c->lock);
    if (bytes / c->entry_size > c->n_entries) {
        for (unsigned i = 0; i < c->n_entries; i++) {
            Qcow2CacheEntry *e = &c->entries[i];

            if (e->offset >= offset && e->offset < end && e->offset) {
                forget_entry(c, e);
            }
        }
    } else {
        for (uint64_t pos = offset; pos < end; pos += c->entry_size) {
            Qcow2CacheEntry *e = find(c, pos);

            if (e) {
                forget_entry(c, e);
            }
        }
    }
    pthread_mutex_unlock(&c->lock);
}

void qcow2_cache_forget_all(Qcow2Cache *c)
{
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->n_entries; i++) {
        if (c->entries[i].offset) {
            g_assert(c->entries[i].refs == 0);
            forget_entry(c, &c->entries[i]);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

/* Pages that lie in [@from, @to) entirely go back to the system. */
static void release_memory(Qcow2Cache *c, unsigned from, unsigned to)
{
    uintptr_t page = sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)c->memory + from * c->entry_size;
    uintptr_t end = (uintptr_t)c->memory + to * c->entry_size;

    start = (start + page - 1) & ~(page - 1);
    end &= ~(page - 1);
    if (start < end) {
        madvise((void *)start, end - start, MADV_DONTNEED);
    }
}

void qcow2_cache_clean_unused(Qcow2Cache *c)
{
    unsigned run = 0;       /* empty entries just before i */

    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->n_entries; i++) {
        Qcow2CacheEntry *e = &c->entries[i];

        if (e->offset && !e->refs && !is_dirty(e)
            && !__atomic_exchange_n(&e->accessed, false, __ATOMIC_RELAXED)) {
            drop(c, e);
            qcow2_cache_end_change(e);
        }
        if (!e->offset) {
            run++;
            continue;
        }
        release_memory(c, i - run, i);
        run = 0;
    }
    release_memory(c, c->n_entries - run, c->n_entries);
    pthread_mutex_unlock(&c->lock);
}
