/* SPDX-License-Identifier: MIT */
/*
 * qcow2: refcounts of host clusters.
 *
 * Everything here runs with s->lock held.  Refcounts change in the cache of
 * refcount blocks; writeback brings them to the file before anything that
 * relies on them.  They go up when clusters are taken; they go down only when
 * nothing in the file refers to the clusters any more (qcow2-writeback.c), so
 * a refcount block may be written at any time.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/thread-pool.h"

/* Entries looked at between two looks at the clock, and changed. */
#define LOOK_ENTRIES 4096
#define CHANGE_ENTRIES 16

/* So many are sorted in less time than it takes to ask another thread. */
#define SORT_IN_PLACE_MAX 512

/* ---- table ---- */

bool coroutine_fn qcow2_co_read_reftable(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    s->reftable = g_try_new0(uint64_t, MAX(s->reftable_entries, 1));
    if (!s->reftable) {
        error_setg(errp, "Could not allocate the refcount table");
        return false;
    }
    if (!s->reftable_entries) {
        return true;
    }
    BLKDBG_EVENT(bs->file, BLKDBG_REFTABLE_LOAD);
    ret = bdrv_co_pread(bs->file, s->reftable_offset,
                        s->reftable_entries * sizeof(uint64_t), s->reftable,
                        0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not initialize refcount handling");
        return false;
    }
    for (uint64_t i = 0; i < s->reftable_entries; i++) {
        s->reftable[i] = GUINT64_FROM_BE(s->reftable[i]);
    }
    return true;
}

void qcow2_free_reftable(BDRVQcow2State *s)
{
    g_free(s->reftable);
    s->reftable = NULL;
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

typedef struct SortOffsets {
    uint64_t *offsets;
    size_t n;
} SortOffsets;

static int sort_worker(void *opaque)
{
    SortOffsets *sort = opaque;

    qsort(sort->offsets, sort->n, sizeof(uint64_t), compare_offsets);
    return 0;
}

void coroutine_fn qcow2_co_sort_offsets(uint64_t *offsets, size_t n)
{
    SortOffsets sort = { offsets, n };

    if (n < SORT_IN_PLACE_MAX
        || thread_pool_co_submit(sort_worker, &sort) == -EAGAIN) {
        sort_worker(&sort);
    }
}

int coroutine_fn qcow2_co_check_reftable(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t bytes = s->reftable_entries * sizeof(uint64_t);
    g_autofree uint64_t *sorted = g_memdup2(s->reftable, bytes);

    qcow2_co_sort_offsets(sorted, s->reftable_entries);
    for (uint64_t i = 1; i < s->reftable_entries; i++) {
        uint64_t block = sorted[i] & QCOW2_REFT_OFFSET_MASK;

        if (block && block == (sorted[i - 1] & QCOW2_REFT_OFFSET_MASK)) {
            qcow2_signal_corruption(bs, true, block, s->cluster_size,
                                    "Refcount block at %#" PRIx64
                                    " is referenced more than once", block);
            return -EIO;
        }
    }
    s->reftable_checked = true;
    return 0;
}

static void set_reftable_entry(BDRVQcow2State *s, uint64_t index,
                               uint64_t block)
{
    s->reftable[index] = block;
    if (s->reftable_dirty_end > s->reftable_dirty_start) {
        s->reftable_dirty_start = MIN(s->reftable_dirty_start, index);
        s->reftable_dirty_end = MAX(s->reftable_dirty_end, index + 1);
    } else {
        s->reftable_dirty_start = index;
        s->reftable_dirty_end = index + 1;
    }
}

/* ---- blocks ---- */

static uint64_t read_entry(const BDRVQcow2State *s, const void *block,
                           uint64_t i)
{
    const uint8_t *b = block;
    unsigned bits = 1u << s->refcount_order;

    switch (s->refcount_order) {
    case 3:
        return b[i];
    case 4:
        return GUINT16_FROM_BE(((const uint16_t *)block)[i]);
    case 5:
        return GUINT32_FROM_BE(((const uint32_t *)block)[i]);
    case 6:
        return GUINT64_FROM_BE(((const uint64_t *)block)[i]);
    default:
        return (b[i * bits / 8] >> (i * bits % 8)) & ((1u << bits) - 1);
    }
}

static void write_entry(const BDRVQcow2State *s, void *block, uint64_t i,
                        uint64_t value)
{
    uint8_t *b = block;
    unsigned bits = 1u << s->refcount_order;
    unsigned shift;

    switch (s->refcount_order) {
    case 3:
        b[i] = value;
        break;
    case 4:
        ((uint16_t *)block)[i] = GUINT16_TO_BE(value);
        break;
    case 5:
        ((uint32_t *)block)[i] = GUINT32_TO_BE(value);
        break;
    case 6:
        ((uint64_t *)block)[i] = GUINT64_TO_BE(value);
        break;
    default:
        shift = i * bits % 8;
        b[i * bits / 8] &= ~(((1u << bits) - 1) << shift);
        b[i * bits / 8] |= value << shift;
    }
}

static uint64_t index_in_block(const BDRVQcow2State *s, uint64_t cluster)
{
    return cluster & ((UINT64_C(1) << s->refblock_bits) - 1);
}

static void write_cached(BDRVQcow2State *s, Qcow2CacheEntry *block,
                         uint64_t cluster, uint64_t value)
{
    uint64_t i = index_in_block(s, cluster);
    uint32_t byte = (i << s->refcount_order) / 8;

    write_entry(s, block->words, i, value);
    qcow2_cache_mark_dirty(s->refblock_cache, block, byte,
                           byte + MAX(1u << s->refcount_order, 8) / 8);
}

/*
 * Write out dirty blocks, so that they can be victims.  Those that a write-back
 * is just writing are pinned: its copy is older and must not come second.
 */
static int coroutine_fn co_clean_blocks(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheCopy copies[16];
    unsigned n = qcow2_cache_copy_dirty(s->refblock_cache, copies, 16,
                                        bs->file->bs->bl.request_alignment,
                                        true);
    int ret = 0;

    for (unsigned i = 0; i < n; i++) {
        Qcow2CacheCopy *copy = &copies[i];

        if (ret >= 0) {
            ret = qcow2_co_write_metadata(bs, QCOW2_OL_REFCOUNT_BLOCK,
                                          copy->offset + copy->start,
                                          copy->end - copy->start, copy->data);
        }
        qcow2_cache_copy_done(s->refblock_cache, copy, ret < 0);
    }
    return ret;
}

static int coroutine_fn co_pin_block(BlockDriverState *bs, uint64_t offset,
                                     bool fresh, Qcow2CacheEntry **block)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    for (;;) {
        ret = qcow2_cache_co_get(s->refblock_cache, bs->file, offset, fresh,
                                 block);
        if (ret != -EBUSY) {
            return ret;
        }
        ret = co_clean_blocks(bs);
        if (ret < 0) {
            return ret;
        }
    }
}

/* Pin the block with the refcount of @cluster; *@block is NULL: all are 0. */
static int coroutine_fn co_get_block(BlockDriverState *bs, uint64_t cluster,
                                     Qcow2CacheEntry **block)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t index = cluster >> s->refblock_bits;
    uint64_t offset;

    *block = NULL;
    if (index >= s->reftable_entries) {
        return 0;
    }
    offset = s->reftable[index] & QCOW2_REFT_OFFSET_MASK;
    if (!offset) {
        return 0;
    }
    if (offset & (s->cluster_size - 1)) {
        qcow2_signal_corruption(bs, true, -1, -1, "Refblock offset %#" PRIx64
                                " unaligned (reftable index: %#" PRIx64 ")",
                                offset, index);
        return -EIO;
    }
    return co_pin_block(bs, offset, false, block);
}

int coroutine_fn qcow2_co_get_refcount(BlockDriverState *bs, uint64_t index,
                                       uint64_t *refcount)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *block;
    int ret = co_get_block(bs, index, &block);

    if (ret < 0) {
        return ret;
    }
    *refcount = 0;
    if (block) {
        *refcount = read_entry(s, block->words, index_in_block(s, index));
        qcow2_cache_put(s->refblock_cache, block);
    }
    return 0;
}

/* ---- counting ---- */

static void became_free(BDRVQcow2State *s, uint64_t cluster)
{
    uint64_t offset = cluster << s->cluster_bits;

    s->free_hint = MIN(s->free_hint, cluster);
    if (s->free_byte_offset >> s->cluster_bits == cluster) {
        s->free_byte_offset = 0;
    }
    qcow2_cache_forget(s->l2_cache, offset, s->cluster_size);
    qcow2_metamap_set(s, offset, s->cluster_size, 0);
}

static int coroutine_fn co_change_one(BlockDriverState *bs, uint64_t cluster,
                                      int addend)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *block;
    uint64_t old;
    int ret = co_get_block(bs, cluster, &block);

    if (ret < 0) {
        return ret;
    }
    old = block ? read_entry(s, block->words, index_in_block(s, cluster)) : 0;
    if ((addend < 0 && old == 0) || !block) {
        qcow2_signal_corruption(bs, true, cluster << s->cluster_bits,
                                s->cluster_size, "Refcount of cluster at %#"
                                PRIx64 " is too low",
                                cluster << s->cluster_bits);
        ret = -EINVAL;
    } else if (addend > 0 && old >= s->refcount_max) {
        ret = -EINVAL;
    } else {
        write_cached(s, block, cluster, old + addend);
        if (old + addend == 0) {
            became_free(s, cluster);
        }
    }
    if (block) {
        qcow2_cache_put(s->refblock_cache, block);
    }
    return ret;
}

int coroutine_fn qcow2_co_change_refcount(BlockDriverState *bs,
                                          uint64_t offset, uint64_t bytes,
                                          int addend)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = offset >> s->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> s->cluster_bits;
    int ret;

    if (bytes == 0) {
        return 0;
    }
    for (uint64_t i = first; i <= last; i++) {
        if ((i - first) % CHANGE_ENTRIES == CHANGE_ENTRIES - 1) {
            aio_co_yield_fair();        /* with s->lock: not to be left half */
        }
        ret = co_change_one(bs, i, addend);
        if (ret < 0) {
            while (i-- > first) {
                if (i % CHANGE_ENTRIES == 0) {
                    aio_co_yield_fair();
                }
                co_change_one(bs, i, -addend);
            }
            return ret;
        }
    }
    return 0;
}

/* ---- growing ---- */

/*
 * A block for the clusters around @cluster, none of which is in use.  It goes
 * to @place, a free cluster: among these (it counts itself), or before them.
 */
static int coroutine_fn co_new_block(BlockDriverState *bs, uint64_t cluster,
                                     uint64_t place)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t index = cluster >> s->refblock_bits;
    uint64_t offset = place << s->cluster_bits;
    bool counts_itself = place >> s->refblock_bits == index;
    Qcow2CacheEntry *block;
    int ret;

    BLKDBG_EVENT(bs->file, BLKDBG_REFBLOCK_ALLOC);
    if (qcow2_overlaps(bs, 0, offset, s->cluster_size)) {
        return -EIO;
    }
    ret = counts_itself ? 0 : co_change_one(bs, place, 1);
    if (ret < 0) {
        return ret;
    }
    ret = co_pin_block(bs, offset, true, &block);
    if (ret < 0) {
        if (!counts_itself) {
            co_change_one(bs, place, -1);
        }
        return ret;
    }
    if (counts_itself) {
        write_cached(s, block, place, 1);
    }
    qcow2_cache_mark_dirty(s->refblock_cache, block, 0, s->cluster_size);
    qcow2_cache_put(s->refblock_cache, block);

    BLKDBG_EVENT(bs->file, BLKDBG_REFBLOCK_ALLOC_HOOKUP);
    set_reftable_entry(s, index, offset);
    qcow2_metamap_set(s, offset, s->cluster_size, QCOW2_OL_REFCOUNT_BLOCK);
    if (s->virgin_start < offset + s->cluster_size) {
        s->virgin_start = offset + s->cluster_size;
    }
    return 0;
}

/* The header's table offset and its length lie side by side. */
static int coroutine_fn co_switch_reftable(BlockDriverState *bs,
                                           uint64_t offset, uint64_t clusters)
{
    struct {
        uint64_t offset;
        uint32_t clusters;
    } __attribute__((packed)) fields = {
        GUINT64_TO_BE(offset), GUINT32_TO_BE(clusters),
    };

    return qcow2_co_change_header(bs, BLKDBG_REFBLOCK_ALLOC_SWITCH_TABLE,
                                  offsetof(Qcow2Header,
                                           refcount_table_offset),
                                  &fields, sizeof(fields));
}

/* Blocks for @n_blocks * 2^refblock_bits clusters; the first @used count 1. */
static int coroutine_fn co_write_new_blocks(BlockDriverState *bs,
                                            uint64_t offset,
                                            uint64_t n_blocks, uint64_t used)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t per_block = UINT64_C(1) << s->refblock_bits;
    g_autofree uint8_t *buf = g_malloc(s->cluster_size);
    int ret = 0;

    BLKDBG_EVENT(bs->file, BLKDBG_REFBLOCK_ALLOC_WRITE_BLOCKS);
    for (uint64_t i = 0; ret >= 0 && i < n_blocks; i++) {
        memset(buf, 0, s->cluster_size);
        for (uint64_t j = 0; j < per_block && used > 0; j++, used--) {
            write_entry(s, buf, j, 1);
        }
        ret = bdrv_co_pwrite(bs->file, offset + i * s->cluster_size,
                             s->cluster_size, buf, 0);
    }
    return ret;
}

/* Write @table (host order), with @n_blocks new ones from @block on. */
static int coroutine_fn co_write_new_table(BlockDriverState *bs,
                                           uint64_t offset,
                                           const uint64_t *table,
                                           uint64_t entries)
{
    uint64_t bytes = entries * sizeof(uint64_t);
    g_autofree uint64_t *buf = g_malloc(bytes);

    for (uint64_t i = 0; i < entries; i++) {
        buf[i] = GUINT64_TO_BE(table[i]);
    }
    BLKDBG_EVENT(bs->file, BLKDBG_REFBLOCK_ALLOC_WRITE_TABLE);
    return bdrv_co_pwrite(bs->file, offset, bytes, buf, 0);
}

/*
 * The table has no entry for @cluster: move it to a longer one.  New blocks and
 * table go to the first clusters beyond what the old table covers, which
 * nobody uses; they are counted by these very blocks.
 */
static int coroutine_fn co_grow_reftable(BlockDriverState *bs,
                                         uint64_t cluster)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t per_block = UINT64_C(1) << s->refblock_bits;
    uint64_t first = MAX(cluster >> s->refblock_bits, s->reftable_entries);
    uint64_t start = (first << s->refblock_bits) << s->cluster_bits;
    uint64_t bytes = qcow2_cluster_end(
        s, MAX(first + 1, s->reftable_entries * 3 / 2) * sizeof(uint64_t));
    uint64_t n_blocks = 0, entries, clusters, old_offset, old_bytes;
    g_autofree uint64_t *table = NULL;
    int ret;

    do {
        n_blocks++;
        bytes = MAX(bytes, (uint64_t)qcow2_cluster_end(
                        s, (first + n_blocks) * sizeof(uint64_t)));
        clusters = bytes >> s->cluster_bits;
    } while (n_blocks * per_block < n_blocks + clusters);
    entries = bytes / sizeof(uint64_t);
    if (bytes > QCOW2_MAX_REFTABLE_BYTES) {
        return -EFBIG;
    }
    if (qcow2_overlaps(bs, 0, start, n_blocks * s->cluster_size + bytes)) {
        return -EIO;
    }

    /* Nothing leads there, nor to what an earlier attempt has left. */
    ret = qcow2_co_header_sure(bs);
    if (ret < 0) {
        return ret;
    }

    BLKDBG_EVENT(bs->file, BLKDBG_REFTABLE_GROW);
    table = g_new0(uint64_t, entries);
    memcpy(table, s->reftable, s->reftable_entries * sizeof(uint64_t));
    for (uint64_t i = 0; i < n_blocks; i++) {
        table[first + i] = start + i * s->cluster_size;
    }
    ret = co_write_new_blocks(bs, start, n_blocks, n_blocks + clusters);
    if (ret >= 0) {
        ret = co_write_new_table(bs, start + n_blocks * s->cluster_size,
                                 table, entries);
    }
    if (ret >= 0) {
        /* Blocks that only the new table refers to may be in the cache. */
        do {
            qcow2_cache_co_wait_idle(s->refblock_cache);
            ret = co_clean_blocks(bs);
        } while (ret >= 0 && qcow2_cache_n_dirty(s->refblock_cache));
    }
    if (ret < 0) {
        return ret;
    }

    co_mutex_lock(&s->header_lock);
    ret = co_switch_reftable(bs, start + n_blocks * s->cluster_size,
                             clusters);
    if (ret < 0) {
        co_mutex_unlock(&s->header_lock);
        return ret;
    }
    old_offset = s->reftable_offset;
    old_bytes = s->reftable_entries * sizeof(uint64_t);
    s->reftable_offset = start + n_blocks * s->cluster_size;
    s->reftable_entries = entries;
    co_mutex_unlock(&s->header_lock);
    g_free(s->reftable);
    s->reftable = g_steal_pointer(&table);
    s->reftable_dirty_start = s->reftable_dirty_end = 0;
    qcow2_metamap_set(s, old_offset, old_bytes, 0);
    qcow2_metamap_set(s, start, n_blocks * s->cluster_size,
                      QCOW2_OL_REFCOUNT_BLOCK);
    qcow2_metamap_set(s, s->reftable_offset, bytes, QCOW2_OL_REFCOUNT_TABLE);
    if (s->virgin_start < s->reftable_offset + bytes) {
        s->virgin_start = s->reftable_offset + bytes;
    }
    if (old_bytes) {
        qcow2_give_up(s, old_offset, old_bytes, QCOW2_DISCARD_OTHER);
    }
    return 0;
}

/* ---- shrinking ---- */

/*
 * Does block @index count nothing but blocks that go as well (their clusters
 * are in @gone), itself included?  Then it is one more of them.
 */
static bool coroutine_fn co_is_superfluous(BlockDriverState *bs,
                                           uint64_t index, GHashTable *gone)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t first = index << s->refblock_bits;
    uint64_t own = s->reftable[index] & QCOW2_REFT_OFFSET_MASK;
    Qcow2CacheEntry *block;
    bool empty = true;

    if (own == 0) {
        return true;
    }
    own >>= s->cluster_bits;
    if (co_get_block(bs, first, &block) < 0) {
        return false;
    }
    for (uint64_t i = 0; empty && i >> s->refblock_bits == 0; i++) {
        gpointer key = GSIZE_TO_POINTER(first + i);

        if (i % LOOK_ENTRIES == 0) {
            aio_co_yield_fair();
        }
        empty = read_entry(s, block->words, i) == 0 || first + i == own
                || g_hash_table_contains(gone, key);
    }
    qcow2_cache_put(s->refblock_cache, block);
    if (empty) {
        g_hash_table_add(gone, GSIZE_TO_POINTER(own));
    }
    return empty;
}

/* The table's entries from @first on are 0, in the file and then in memory. */
static int coroutine_fn co_drop_blocks(BlockDriverState *bs, uint64_t first)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t n = s->reftable_entries - first;
    g_autofree uint64_t *old = g_memdup2(s->reftable + first, n * 8);
    g_autofree uint64_t *zeroes = g_new0(uint64_t, n);
    int ret = bdrv_co_pwrite(bs->file, s->reftable_offset + first * 8, n * 8,
                             zeroes, 0);

    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file->bs);
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t block = old[i] & QCOW2_REFT_OFFSET_MASK;

        /* What the file says now is not known: it is to say this again. */
        set_reftable_entry(s, first + i, ret < 0 ? old[i] : 0);
        if (ret >= 0 && block) {
            qcow2_cache_forget(s->refblock_cache, block, s->cluster_size);
        }
    }
    for (uint64_t i = 0; ret >= 0 && i < n; i++) {
        uint64_t cluster = old[i] >> s->cluster_bits;

        if (i % LOOK_ENTRIES == 0) {
            aio_co_yield_fair();
        }
        if (cluster && cluster >> s->refblock_bits < first) {
            co_change_one(bs, cluster, -1);
        } else if (cluster) {
            became_free(s, cluster);
        }
    }
    return ret;
}

void coroutine_fn qcow2_co_drop_refblocks(BlockDriverState *bs)
{
    BDRVQcow2State *s = bs->opaque;
    g_autoptr(GHashTable) gone = g_hash_table_new(NULL, NULL);
    uint64_t first;

    co_mutex_lock(&s->wb_lock);         /* nobody is writing blocks */
    co_mutex_lock(&s->lock);
    first = s->reftable_entries;
    while (first > 1 && co_is_superfluous(bs, first - 1, gone)) {
        first--;
    }
    if (g_hash_table_size(gone) > 0 && !qcow2_header_unsure(s)) {
        co_drop_blocks(bs, first);
    }
    co_mutex_unlock(&s->lock);
    co_mutex_unlock(&s->wb_lock);
}

int coroutine_fn qcow2_co_cover(BlockDriverState *bs, uint64_t cluster,
                                uint64_t place)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t index = cluster >> s->refblock_bits;
    int ret;

    if (index >= s->reftable_entries) {
        /* What it needs goes to @cluster or behind it. */
        return co_grow_reftable(bs, cluster);
    }
    if (s->reftable[index] & QCOW2_REFT_OFFSET_MASK) {
        return 0;
    }
    if (place == 0) {
        /* Where the header is, whatever overlap-check says. */
        qcow2_signal_corruption(bs, true, -1, -1, "Preventing invalid "
                                "allocation of refcount block at offset 0");
        return -EIO;
    }
    ret = co_new_block(bs, cluster, place);
    return ret < 0 ? ret : 1;
}
