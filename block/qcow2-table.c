/* SPDX-License-Identifier: MIT */
/*
 * qcow2: the two levels of tables that map guest clusters to host clusters.
 *
 * The L1 table is in memory whole.  L2 tables are cached in slices.  A lookup
 * that hits both is a few loads.  Tables that an internal snapshot shares lack
 * COPIED in their L1 entry, and are copied before they change.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

/* Entries looked at in one go, by a request and by who looks for more. */
#define EXTENT_ENTRIES 32
#define RUN_ENTRIES 512

/*
 * What qcow2_co_run() looks at, in such goes and in equal entries of the L1
 * table: some microseconds, in vain if its caller needs only the beginning.
 */
#define RUN_LOOKS 16
#define RUN_TABLES 16384

/* Write back when writes have given up so many clusters: bounds the list. */
#define LINK_PENDING_MAX 65536

static int64_t l1_index(const BDRVQcow2State *s, int64_t offset)
{
    return offset >> (s->cluster_bits + s->l2_bits);
}

static unsigned l2_index(const BDRVQcow2State *s, int64_t offset)
{
    return (offset >> s->cluster_bits) & ((1u << s->l2_bits) - 1);
}

/* ---- L1 ---- */

bool coroutine_fn qcow2_co_read_l1(BlockDriverState *bs, Error **errp)
{
    BDRVQcow2State *s = bs->opaque;
    size_t bytes = s->l1_size * sizeof(uint64_t);
    int ret;

    s->l1_capacity = bs->read_only ? MAX(s->l1_size, 1)
                                   : QCOW2_MAX_L1_BYTES / sizeof(uint64_t);
    s->l1_table = mmap(NULL, s->l1_capacity * sizeof(uint64_t),
                       PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->l1_table == MAP_FAILED) {
        s->l1_table = NULL;
        error_setg_errno(errp, errno, "Could not allocate the L1 table");
        return false;
    }
    if (bytes == 0) {
        return true;
    }
    ret = bdrv_co_pread(bs->file, s->l1_table_offset, bytes, s->l1_table, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read L1 table");
        return false;
    }
    for (uint32_t i = 0; i < s->l1_size; i++) {
        s->l1_table[i] = GUINT64_FROM_BE(s->l1_table[i]);
    }
    return true;
}

void qcow2_free_l1(BDRVQcow2State *s)
{
    if (s->l1_table) {
        munmap(s->l1_table, s->l1_capacity * sizeof(uint64_t));
        s->l1_table = NULL;
    }
}

/* File offset of the L2 table for guest @offset, 0: none, or -EIO. */
static int64_t l2_table_offset(BlockDriverState *bs, int64_t offset,
                               bool *own)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t index = l1_index(s, offset);
    uint64_t entry;

    if (index >= __atomic_load_n(&s->l1_size, __ATOMIC_ACQUIRE)) {
        *own = false;
        return 0;
    }
    entry = qcow2_l1_entry(s, index);
    /* An image may have set COPIED where there is no table. */
    *own = (entry & QCOW2_OFLAG_COPIED) && (entry & QCOW2_L1E_OFFSET_MASK);
    if (__builtin_expect(entry & (s->cluster_size - 1)
                         & QCOW2_L1E_OFFSET_MASK, 0)) {
        qcow2_signal_corruption(bs, true, -1, -1, "L2 table offset %#" PRIx64
                                " unaligned (L1 index: %#" PRIx64 ")",
                                entry & QCOW2_L1E_OFFSET_MASK,
                                (uint64_t)index);
        return -EIO;
    }
    return entry & QCOW2_L1E_OFFSET_MASK;
}

void qcow2_set_l1_entry(BDRVQcow2State *s, uint32_t index, uint64_t entry)
{
    __atomic_store_n(&s->l1_table[index], entry, __ATOMIC_RELEASE);
    if (s->l1_dirty_end > s->l1_dirty_start) {
        s->l1_dirty_start = MIN(s->l1_dirty_start, index);
        s->l1_dirty_end = MAX(s->l1_dirty_end, index + 1);
    } else {
        s->l1_dirty_start = index;
        s->l1_dirty_end = index + 1;
    }
}

/* ---- slices ---- */

/* Pin the slice at @offset of the file; makes room by writing back. */
static int coroutine_fn co_pin(BlockDriverState *bs, uint64_t offset,
                               Qcow2CacheEntry **slice)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    for (;;) {
        ret = qcow2_cache_co_get(s->l2_cache, bs->file, offset, false, slice);
        if (ret != -EBUSY) {
            return ret;
        }
        ret = qcow2_co_writeback(bs);
        if (ret < 0) {
            return ret;
        }
    }
}

static uint64_t slice_offset(const BDRVQcow2State *s, uint64_t table,
                             int64_t offset)
{
    return table + (l2_index(s, offset) >> s->slice_bits) * s->slice_bytes;
}

int coroutine_fn qcow2_co_get_slice(BlockDriverState *bs, int64_t offset,
                                    Qcow2CacheEntry **slice)
{
    BDRVQcow2State *s = bs->opaque;
    bool own;
    int64_t table = l2_table_offset(bs, offset, &own);

    if (table < 0) {
        return table;
    }
    g_assert(own && table);
    return co_pin(bs, slice_offset(s, table, offset), slice);
}

/* @words words, on disk as they are, of the slice at @at through the cache. */
static int coroutine_fn co_read_cached(BlockDriverState *bs, uint64_t at,
                                       unsigned first, unsigned words,
                                       uint64_t *out)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *slice;
    int ret = qcow2_cache_co_get(s->l2_cache, bs->file, at, false, &slice);

    if (ret < 0) {
        return ret;
    }
    /* Pinned, not locked: an entry of two words may be changing. */
    while (!qcow2_cache_peek(s->l2_cache, at, first * 8, words, out)) {
        g_thread_yield();
    }
    qcow2_cache_put(s->l2_cache, slice);
    return 0;
}

/*
 * The same if all slices are dirty.  Where they cannot be written (the disk is
 * full), the words come from the file: what is not cached is there as it is,
 * and write-back, which alone writes tables, is kept out meanwhile.
 */
static int coroutine_fn co_read_crowded(BlockDriverState *bs, uint64_t at,
                                        unsigned first, unsigned words,
                                        uint64_t *out)
{
    BDRVQcow2State *s = bs->opaque;
    int ret;

    do {
        if (qcow2_co_writeback(bs) >= 0) {
            ret = co_read_cached(bs, at, first, words, out);
        } else {
            co_mutex_lock(&s->wb_lock);
            ret = co_read_cached(bs, at, first, words, out);
            if (ret == -EBUSY) {
                ret = bdrv_co_pread(bs->file, at + first * 8, words * 8, out,
                                    0);
            }
            co_mutex_unlock(&s->wb_lock);
        }
    } while (ret == -EBUSY);
    return MIN(ret, 0);
}

static int coroutine_fn co_read_table(BlockDriverState *bs, uint64_t table,
                                      int64_t offset, unsigned n,
                                      uint64_t *entries)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned words = n * s->l2_entry_words;
    unsigned first = qcow2_slice_index(s, offset) * s->l2_entry_words;
    uint64_t at = slice_offset(s, table, offset);

    if (__builtin_expect(!qcow2_cache_peek(s->l2_cache, at, first * 8, words,
                                           entries), 0)) {
        int ret = co_read_cached(bs, at, first, words, entries);

        if (ret == -EBUSY) {
            ret = co_read_crowded(bs, at, first, words, entries);
        }
        if (ret < 0) {
            return ret;
        }
    }
    for (unsigned i = 0; i < words; i++) {
        entries[i] = GUINT64_FROM_BE(entries[i]);
    }
    return 0;
}

int coroutine_fn qcow2_co_read_entries(BlockDriverState *bs, int64_t offset,
                                       unsigned n, uint64_t *entries)
{
    BDRVQcow2State *s = bs->opaque;
    bool own;
    int64_t table = l2_table_offset(bs, offset, &own);

    if (table < 0) {
        return table;
    }
    if (table == 0) {
        memset(entries, 0, n * s->l2_entry_words * sizeof(*entries));
        return 0;
    }
    return co_read_table(bs, table, offset, n, entries);
}

/* Do both entries refer to the same part of the file? */
static bool same_host(uint64_t a, uint64_t b)
{
    /* Several compressed clusters may lie in one sector. */
    return a & b & QCOW2_OFLAG_COMPRESSED
           ? a == b
           : !((a ^ b) & (QCOW2_L2E_OFFSET_MASK | QCOW2_OFLAG_COMPRESSED));
}

void qcow2_replace_entry(BlockDriverState *bs, Qcow2CacheEntry *slice,
                         int64_t offset, const uint64_t *entry,
                         Qcow2DiscardType type)
{
    BDRVQcow2State *s = bs->opaque;
    unsigned words = s->l2_entry_words;
    unsigned first = qcow2_slice_index(s, offset) * words;
    uint64_t old = qcow2_cache_word(slice, first);

    qcow2_cache_begin_change(slice);
    for (unsigned i = 0; i < words; i++) {
        qcow2_cache_set_word(slice, first + i, entry[i]);
    }
    qcow2_cache_end_change(slice);
    qcow2_cache_mark_dirty(s->l2_cache, slice, first * 8,
                           (first + words) * 8);
    if (!same_host(old, entry[0])) {
        qcow2_give_up_entry(bs, old, type);
    }
}

int coroutine_fn qcow2_co_link(BlockDriverState *bs, int64_t offset,
                               unsigned n, const uint64_t *entries)
{
    BDRVQcow2State *s = bs->opaque;
    Qcow2CacheEntry *slice;
    int ret = qcow2_co_get_slice(bs, offset, &slice);

    if (ret < 0) {
        return ret;
    }
    co_mutex_lock(&s->lock);
    for (unsigned i = 0; i < n; i++) {
        qcow2_replace_entry(bs, slice, offset + i * s->cluster_size,
                            entries + i * s->l2_entry_words,
                            QCOW2_DISCARD_OTHER);
    }
    co_mutex_unlock(&s->lock);
    qcow2_cache_put(s->l2_cache, slice);
    if (__atomic_load_n(&s->n_pending, __ATOMIC_RELAXED) > LINK_PENDING_MAX) {
        /* All is mapped: what can't be written now, the next flush reports. */
        qcow2_co_writeback(bs);
    }
    return 0;
}

/* ---- entries ---- */

static int std_entry_type(const BDRVQcow2State *s, uint64_t entry)
{
    bool host = (entry & QCOW2_L2E_OFFSET_MASK)
                || (s->external_data_file && (entry & QCOW2_OFLAG_COPIED));

    if ((entry & QCOW2_OFLAG_ZERO) && s->version >= 3) {
        return host ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    return host ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
}

int qcow2_entry_type(const BDRVQcow2State *s, const uint64_t *entry,
                     unsigned sc)
{
    bool host, alloc, zero;

    if (entry[0] & QCOW2_OFLAG_COMPRESSED) {
        return s->external_data_file || s->crypt_method ? -EIO
                                                        : QCOW2_COMPRESSED;
    }
    if (entry[0] & QCOW2_L2E_OFFSET_MASK & (s->cluster_size - 1)) {
        return -EIO;
    }
    if (!s->extended_l2) {
        return std_entry_type(s, entry[0]);
    }

    host = (entry[0] & QCOW2_L2E_OFFSET_MASK)
           || (s->external_data_file && (entry[0] & QCOW2_OFLAG_COPIED));
    alloc = entry[1] & QCOW2_EXTL2_ALLOC(sc);
    zero = entry[1] & QCOW2_EXTL2_ZERO(sc);
    if ((alloc && zero) || (alloc && !host)) {
        return -EIO;
    }
    if (alloc) {
        return QCOW2_NORMAL;
    }
    if (zero) {
        return host ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    }
    return host ? QCOW2_UNALLOCATED_ALLOC : QCOW2_UNALLOCATED;
}

int qcow2_entry_is_broken(BlockDriverState *bs, int64_t offset,
                          const uint64_t *entry)
{
    BDRVQcow2State *s = bs->opaque;
    bool own;
    uint64_t table = l2_table_offset(bs, offset, &own);
    uint64_t host = entry[0] & QCOW2_L2E_OFFSET_MASK;

    if (entry[0] & QCOW2_OFLAG_COMPRESSED) {
        qcow2_signal_corruption(bs, true, -1, -1, "Compressed cluster entry "
                                "found in image with %s (L2 offset: %#" PRIx64
                                ", L2 index: %#x)",
                                s->external_data_file ? "external data file"
                                                      : "encryption",
                                table, l2_index(s, offset));
    } else if (host & (s->cluster_size - 1)) {
        qcow2_signal_corruption(bs, true, -1, -1, "%s offset %#" PRIx64
                                " unaligned (L2 offset: %#" PRIx64
                                ", L2 index: %#x)",
                                !s->extended_l2 && s->version >= 3
                                && (entry[0] & QCOW2_OFLAG_ZERO)
                                ? "Preallocated zero cluster"
                                : "Data cluster", host, table,
                                l2_index(s, offset));
    } else {
        qcow2_signal_corruption(bs, true, -1, -1, "Invalid cluster entry "
                                "found (L2 offset: %#" PRIx64
                                ", L2 index: %#x)", table,
                                l2_index(s, offset));
    }
    return -EIO;
}

static bool has_host_cluster(Qcow2Type type)
{
    return type == QCOW2_NORMAL || type == QCOW2_ZERO_ALLOC
           || type == QCOW2_UNALLOCATED_ALLOC;
}

/* True if cluster @i continues what entry 0 is, on the disk as well. */
static bool continues(const BDRVQcow2State *s, const uint64_t *entries,
                      unsigned i, Qcow2Type type)
{
    const uint64_t *e = entries + i * s->l2_entry_words;

    if (type == QCOW2_COMPRESSED) {
        return false;
    }
    if (!has_host_cluster(type)) {
        return true;
    }
    return !((e[0] ^ entries[0]) & QCOW2_OFLAG_COPIED)
           && (e[0] & QCOW2_L2E_OFFSET_MASK)
              == (entries[0] & QCOW2_L2E_OFFSET_MASK) + i * s->cluster_size;
}

/* How many bytes from guest @offset on are like the first, up to @bytes. */
static int64_t run_length(const BDRVQcow2State *s, const uint64_t *entries,
                          unsigned n, int64_t offset, int64_t bytes,
                          Qcow2Type type)
{
    unsigned sc = qcow2_in_cluster(s, offset) >> s->subcluster_bits;
    int64_t run = s->subcluster_size
                  - (offset & (int64_t)(s->subcluster_size - 1));
    unsigned i = 0;

    if (type == QCOW2_COMPRESSED) {
        return MIN((int64_t)s->cluster_size - qcow2_in_cluster(s, offset),
                   bytes);
    }
    while (run < bytes) {
        if (++sc == s->subclusters) {
            sc = 0;
            if (++i == n || !continues(s, entries, i, type)) {
                break;
            }
        }
        if (qcow2_entry_type(s, entries + i * s->l2_entry_words, sc)
            != (int)type) {
            break;
        }
        run += s->subcluster_size;
    }
    return MIN(run, bytes);
}

/* With @entries for @max of them. */
static int coroutine_fn co_extent(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes, uint64_t *entries,
                                  unsigned max, Qcow2Extent *ext)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t in_cluster = qcow2_in_cluster(s, offset);
    unsigned left = (1u << s->slice_bits) - qcow2_slice_index(s, offset);
    int64_t want = (in_cluster + bytes + s->cluster_size - 1)
                   >> s->cluster_bits;
    unsigned n = MIN(MIN(want, left), max);
    bool own;
    int64_t table = l2_table_offset(bs, offset, &own);
    int type, ret;

    if (table < 0) {
        return table;
    }
    if (table == 0) {
        int64_t table_bytes = INT64_C(1) << (s->cluster_bits + s->l2_bits);

        ext->type = QCOW2_UNALLOCATED;
        ext->copied = false;
        ext->host = 0;
        ext->bytes = MIN(bytes, table_bytes - (offset & (table_bytes - 1)));
        return 0;
    }
    ret = co_read_table(bs, table, offset, n, entries);
    if (ret < 0) {
        return ret;
    }
    type = qcow2_entry_type(s, entries, in_cluster >> s->subcluster_bits);
    if (__builtin_expect(type < 0, 0)) {
        return qcow2_entry_is_broken(bs, offset, entries);
    }
    ext->type = type;
    /* What a snapshot's table says is not ours alone, whatever its flags. */
    ext->copied = own && (entries[0] & QCOW2_OFLAG_COPIED);
    ext->host = type == QCOW2_COMPRESSED
                ? entries[0]
                : (entries[0] & QCOW2_L2E_OFFSET_MASK) + in_cluster;
    ext->bytes = run_length(s, entries, n, offset, bytes, ext->type);
    return 0;
}

int coroutine_fn qcow2_co_extent(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, Qcow2Extent *ext)
{
    uint64_t entries[2 * EXTENT_ENTRIES];

    return co_extent(bs, offset, bytes, entries, EXTENT_ENTRIES, ext);
}

/*
 * If all that the L2 table before guest @offset maps is alike, from @start on,
 * so is what the same table maps from @offset on: bytes, up to @bytes.
 */
static int64_t same_tables(BDRVQcow2State *s, int64_t start, int64_t offset,
                           int64_t bytes)
{
    unsigned shift = s->cluster_bits + s->l2_bits;
    int64_t table_bytes = INT64_C(1) << shift, size = 0;
    uint32_t n = __atomic_load_n(&s->l1_size, __ATOMIC_ACQUIRE);
    int64_t i = offset >> shift, end = MIN(i + RUN_TABLES, (int64_t)n);
    uint64_t entry;

    if ((offset & (table_bytes - 1)) || offset - start < table_bytes
        || i > n) {
        return 0;
    }
    entry = qcow2_l1_entry(s, i - 1);
    for (; i < end && size < bytes && qcow2_l1_entry(s, i) == entry; i++) {
        size += table_bytes;
    }
    return MIN(size, bytes);
}

int coroutine_fn qcow2_co_run(BlockDriverState *bs, int64_t offset,
                              int64_t bytes, Qcow2Extent *ext)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t entries[2 * RUN_ENTRIES];
    int ret = co_extent(bs, offset, bytes, entries, RUN_ENTRIES, ext);

    if (ret < 0 || (ext->type != QCOW2_ZERO_PLAIN
                    && (ext->type != QCOW2_UNALLOCATED || bs->backing))) {
        return ret;             /* more to be known than this node knows */
    }
    for (unsigned i = 0; i < RUN_LOOKS && ext->bytes < bytes; i++) {
        int64_t at = offset + ext->bytes, left = bytes - ext->bytes;
        int64_t same = same_tables(s, offset, at, left);
        Qcow2Extent more;

        if (same) {
            ext->bytes += same;
            continue;
        }
        if (co_extent(bs, at, left, entries, RUN_ENTRIES, &more) < 0
            || more.type != ext->type) {
            break;
        }
        ext->bytes += more.bytes;
    }
    return 0;
}

/* ---- new tables ---- */

/* Take a cluster and fill it with what the old table has, or zeroes. */
static int64_t coroutine_fn co_new_table(BlockDriverState *bs, uint64_t old)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t *buf = g_aligned_alloc0(1, s->cluster_size, 4096);
    int64_t table;
    int ret = 0;

    co_mutex_lock(&s->lock);
    table = qcow2_co_alloc(bs, s->cluster_size, s->cluster_size,
                           &(uint64_t){ 0 }, NULL);
    co_mutex_unlock(&s->lock);
    if (table < 0) {
        g_aligned_free(buf);
        return table;
    }
    if (old) {
        /* Shared tables don't change, so the file has it as it is. */
        BLKDBG_EVENT(bs->file, BLKDBG_L2_ALLOC_COW_READ);
        ret = bdrv_co_pread(bs->file, old, s->cluster_size, buf, 0);
    }
    if (ret >= 0) {
        BLKDBG_EVENT(bs->file, BLKDBG_L2_ALLOC_WRITE);
        ret = bdrv_co_pwrite(bs->file, table, s->cluster_size, buf, 0);
    }
    if (ret < 0) {
        co_mutex_lock(&s->lock);
        qcow2_co_unalloc(bs, table, s->cluster_size);
        co_mutex_unlock(&s->lock);
    }
    g_aligned_free(buf);
    return ret < 0 ? ret : table;
}

int coroutine_fn qcow2_co_own_l2(BlockDriverState *bs, int64_t offset)
{
    BDRVQcow2State *s = bs->opaque;
    int64_t index = l1_index(s, offset);
    int64_t old, table;
    bool own;
    int ret = s->use_lazy_refcounts ? qcow2_co_mark_dirty(bs) : 0;

    if (ret < 0) {
        return ret;
    }
    old = l2_table_offset(bs, offset, &own);
    if (old < 0 || own) {
        return MIN(old, 0);
    }
    if (index >= __atomic_load_n(&s->l1_size, __ATOMIC_ACQUIRE)) {
        return -EIO;
    }

    co_mutex_lock(&s->l1_lock);
    old = l2_table_offset(bs, offset, &own);
    if (old < 0 || own) {
        co_mutex_unlock(&s->l1_lock);
        return MIN(old, 0);
    }
    table = co_new_table(bs, old);
    if (table >= 0) {
        co_mutex_lock(&s->lock);
        qcow2_metamap_set(s, table, s->cluster_size, QCOW2_OL_ACTIVE_L2);
        qcow2_set_l1_entry(s, index, table | QCOW2_OFLAG_COPIED);
        if (old && !qcow2_overlaps(bs, QCOW2_OL_ACTIVE_L2
                                       | QCOW2_OL_INACTIVE_L2, old,
                                   s->cluster_size)) {
            qcow2_give_up(s, old, s->cluster_size, QCOW2_DISCARD_OTHER);
        }
        co_mutex_unlock(&s->lock);
    }
    co_mutex_unlock(&s->l1_lock);
    return MIN(table, 0);
}

/* ---- growing the L1 table ---- */

/*
 * The header's l1_size and l1_table_offset lie side by side.  Not flushed: who
 * has written them has to go on with the new table, whatever a flush says.
 */
static int coroutine_fn co_switch_l1(BlockDriverState *bs, uint64_t offset,
                                     uint32_t entries)
{
    struct {
        uint32_t size;
        uint64_t offset;
    } __attribute__((packed)) fields = {
        GUINT32_TO_BE(entries), GUINT64_TO_BE(offset),
    };

    return qcow2_co_change_header(bs, BLKDBG_L1_GROW_ACTIVATE_TABLE,
                                  offsetof(Qcow2Header, l1_size), &fields,
                                  sizeof(fields));
}

static int coroutine_fn co_write_new_l1(BlockDriverState *bs, uint64_t offset,
                                        uint64_t bytes)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t *buf = g_aligned_alloc0(1, bytes, 4096);
    int ret;

    for (uint32_t i = 0; i < s->l1_size; i++) {
        buf[i] = GUINT64_TO_BE(s->l1_table[i]);
    }
    BLKDBG_EVENT(bs->file, BLKDBG_L1_GROW_WRITE_TABLE);
    ret = bdrv_co_pwrite(bs->file, offset, bytes, buf, 0);
    g_aligned_free(buf);
    return ret;
}

/* l1_lock held: no L1 entry changes. */
static int coroutine_fn co_grow_l1(BlockDriverState *bs, uint64_t entries)
{
    BDRVQcow2State *s = bs->opaque;
    uint64_t old_offset = s->l1_table_offset;
    uint64_t old_bytes = s->l1_size * sizeof(uint64_t);
    uint64_t bytes = qcow2_cluster_end(s, entries * sizeof(uint64_t));
    uint64_t got;
    int64_t offset;
    int ret;

    BLKDBG_EVENT(bs->file, BLKDBG_L1_GROW_ALLOC_TABLE);
    co_mutex_lock(&s->lock);
    offset = qcow2_co_alloc(bs, bytes, bytes, &got, NULL);
    co_mutex_unlock(&s->lock);
    if (offset < 0) {
        return offset;
    }
    ret = co_write_new_l1(bs, offset, bytes);
    if (ret >= 0) {
        /* All that the table refers to, and its own refcounts. */
        ret = qcow2_co_writeback(bs);
    }
    if (ret >= 0) {
        co_mutex_lock(&s->header_lock);
        ret = co_switch_l1(bs, offset, entries);
        if (ret >= 0) {
            s->l1_table_offset = offset;
            __atomic_store_n(&s->l1_size, entries, __ATOMIC_RELEASE);
        }
        co_mutex_unlock(&s->header_lock);
    }

    co_mutex_lock(&s->lock);
    if (ret >= 0) {
        qcow2_metamap_set(s, old_offset, old_bytes, 0);
        qcow2_metamap_set(s, offset, bytes, QCOW2_OL_ACTIVE_L1);
        if (old_bytes) {
            qcow2_give_up(s, old_offset, old_bytes, QCOW2_DISCARD_OTHER);
        }
    } else if (!qcow2_header_unsure(s)) {
        qcow2_co_unalloc(bs, offset, bytes);
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

int coroutine_fn qcow2_co_grow_l1(BlockDriverState *bs, uint64_t entries)
{
    BDRVQcow2State *s = bs->opaque;
    int ret = 0;

    if (entries > QCOW2_MAX_L1_BYTES / sizeof(uint64_t)
        || entries > s->l1_capacity) {
        return -EFBIG;
    }
    co_mutex_lock(&s->l1_lock);
    if (entries > s->l1_size) {
        /* The old table in the file must not be behind the new one. */
        ret = qcow2_co_writeback(bs);
        if (ret >= 0) {
            ret = co_grow_l1(bs, entries);
        }
    }
    co_mutex_unlock(&s->l1_lock);
    return ret;
}
