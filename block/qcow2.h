/* SPDX-License-Identifier: MIT */
/*
 * qcow2: what the files of the driver share.
 *
 * Requests come from any thread at once.  The invariants:
 *
 *  1. A lookup takes no lock (qcow2-cache.h).  It is made inside an epoch
 *     (qcow2_enter/leave), and until it leaves that the L2 table and host
 *     clusters that it found stay what they are: clusters that are given up
 *     meanwhile are freed only when all who entered before are gone.
 *  2. Clusters with COPIED belong to one guest cluster and are overwritten in
 *     place, without a lock.
 *  3. Whatever changes the mapping of guest clusters (allocation with its
 *     copy-on-write, zeroes, discard, compressed writes, resize) first reserves
 *     them (Qcow2Reservation).  Overlapping reservations wait in the order in
 *     which they came.
 *  4. Mappings and refcounts change in the caches, under s->lock, after the
 *     data have been written.  qcow2_co_writeback() alone brings them to the
 *     file, with a flush between refcounts and data, L2 and L1 tables, and
 *     what has been given up: a crash can only leak.
 *  5. A cluster that is freed is not used again before the write-back that
 *     makes it unreachable in the file is complete.
 *  6. The header changes by qcow2_co_change_header() alone; after an error it
 *     is as before, or will be before other metadata are written.
 *
 * Lock order: reservation, l1_lock, wb_lock, lock, header_lock; then the
 * mutexes of the caches and reserve_lock, which are leaves.  Nobody pins an L2
 * slice while he waits for another slice, or asks for one with s->lock held.
 * Under s->lock I/O is done on refcount structures only.
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "block/block-int.h"
#include "block/qcow2-cache.h"
#include "block/qcow2-format.h"

typedef struct BlockCrypto BlockCrypto;
typedef struct Qcow2Bitmaps Qcow2Bitmaps;

/* Why clusters are given up: decides if the file is told to discard them. */
typedef enum {
    QCOW2_DISCARD_NEVER,        /* e.g. never been in use */
    QCOW2_DISCARD_ALWAYS,
    QCOW2_DISCARD_REQUEST,      /* the client's discard or zeroes */
    QCOW2_DISCARD_SNAPSHOT,     /* an internal snapshot is deleted */
    QCOW2_DISCARD_OTHER,        /* metadata, copy-on-write */
    QCOW2_DISCARD__MAX,
} Qcow2DiscardType;

/* Parts of the image that data must never overwrite; overlap-check's bits. */
typedef enum {
    QCOW2_OL_MAIN_HEADER      = 1 << 0,
    QCOW2_OL_ACTIVE_L1        = 1 << 1,
    QCOW2_OL_ACTIVE_L2        = 1 << 2,
    QCOW2_OL_REFCOUNT_TABLE   = 1 << 3,
    QCOW2_OL_REFCOUNT_BLOCK   = 1 << 4,
    QCOW2_OL_SNAPSHOT_TABLE   = 1 << 5,
    QCOW2_OL_INACTIVE_L1      = 1 << 6,
    QCOW2_OL_INACTIVE_L2      = 1 << 7,
    QCOW2_OL_BITMAP_DIRECTORY = 1 << 8,
    QCOW2_OL_NONE     = 0,
    QCOW2_OL_CONSTANT = QCOW2_OL_MAIN_HEADER | QCOW2_OL_ACTIVE_L1
                        | QCOW2_OL_REFCOUNT_TABLE | QCOW2_OL_SNAPSHOT_TABLE
                        | QCOW2_OL_BITMAP_DIRECTORY,
    QCOW2_OL_CACHED   = QCOW2_OL_CONSTANT | QCOW2_OL_ACTIVE_L2
                        | QCOW2_OL_REFCOUNT_BLOCK | QCOW2_OL_INACTIVE_L1,
    QCOW2_OL_ALL      = QCOW2_OL_CACHED | QCOW2_OL_INACTIVE_L2,
} Qcow2Overlap;

/* What a guest range is: a whole cluster, or its subclusters. */
typedef enum {
    QCOW2_UNALLOCATED,          /* reads come from the backing node */
    QCOW2_ZERO_PLAIN,           /* zeroes, no host cluster */
    QCOW2_ZERO_ALLOC,           /* zeroes, a host cluster is kept */
    QCOW2_UNALLOCATED_ALLOC,    /* subcluster of a host cluster, not in use */
    QCOW2_NORMAL,
    QCOW2_COMPRESSED,
} Qcow2Type;

typedef struct Qcow2Extent {
    Qcow2Type type;
    bool copied;                /* may be overwritten in place */
    /*
     * NORMAL, ZERO_ALLOC, UNALLOCATED_ALLOC: of the first byte, in data_file.
     * COMPRESSED: the L2 entry.
     */
    uint64_t host;
    int64_t bytes;              /* for as long this holds, >= 1 */
} Qcow2Extent;

/* Guest bytes [start, end), whole clusters, whose mapping somebody changes. */
typedef struct Qcow2Reservation {
    int64_t start, end;
    struct BDRVQcow2State *s;
    TAILQ_ENTRY(Qcow2Reservation) next;
} Qcow2Reservation;

/* A range of host clusters that is given up. */
typedef struct Qcow2Free {
    uint64_t offset, bytes;     /* any bytes: whole clusters around them */
    Qcow2DiscardType type;
    TAILQ_ENTRY(Qcow2Free) next;
} Qcow2Free;
typedef TAILQ_HEAD(Qcow2FreeList, Qcow2Free) Qcow2FreeList;

typedef struct Qcow2Snapshot {
    uint64_t l1_table_offset;
    uint32_t l1_size;           /* entries */
    char *id_str, *name;
    uint64_t disk_size;         /* bytes */
    uint64_t vm_state_size;     /* bytes */
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount;            /* UINT64_MAX: none */
    uint32_t extra_data_size;   /* as found in the file */
    void *unknown_extra_data;   /* beyond what we know, kept as it is */
} Qcow2Snapshot;

/* A header extension that we do not know, kept as it is. */
typedef struct Qcow2UnknownExt {
    uint32_t type, len;
    uint8_t *data;
    TAILQ_ENTRY(Qcow2UnknownExt) next;
} Qcow2UnknownExt;

typedef struct BDRVQcow2State {
    /* ---- geometry, constant ---- */
    unsigned version;           /* 2 or 3 */
    unsigned cluster_bits;
    uint64_t cluster_size;      /* bytes */
    bool extended_l2;
    unsigned l2_entry_words;    /* 64-bit words: 1, or 2 if extended */
    unsigned l2_bits;           /* log2 of the entries of an L2 table */
    unsigned slice_bits;        /* log2 of the entries of a slice */
    uint64_t slice_bytes;
    unsigned subclusters;       /* of a cluster: 1 or 32 */
    unsigned subcluster_bits;   /* log2 of bytes */
    uint64_t subcluster_size;
    unsigned refcount_order;    /* log2 of a refcount's bits */
    uint64_t refcount_max;
    unsigned refblock_bits;     /* log2 of the entries of a refcount block */
    unsigned csize_shift;       /* compressed entries: 62 - (bits - 8) */
    uint64_t csize_mask;
    uint64_t coffset_mask;
    Qcow2CompressionType compression_type;
    unsigned crypt_method;      /* QCOW2_CRYPT_ */
    BlockCrypto *crypto;        /* or NULL */
    char *key_secret;           /* id of the secret, or NULL */

    BdrvChild *data_file;       /* bs->file unless external */
    bool external_data_file;
    bool data_file_raw;

    /* ---- options ---- */
    bool use_lazy_refcounts;
    bool discard_no_unref;
    bool safe_image;
    bool pass_discard[QCOW2_DISCARD__MAX];
    unsigned overlap_check;     /* QCOW2_OL_ */
    int64_t cache_clean_ns;     /* 0: never */
    AioTimer cache_clean_timer; /* main thread */

    /* ---- header, main thread or header_lock ---- */
    CoMutex header_lock;        /* over rewriting the header */
    void *header_undo;          /* atomic to read: what it is to say again */
    unsigned header_undo_at;
    size_t header_undo_bytes;
    uint64_t incompatible_features, compatible_features, autoclear_features;
    uint32_t header_length;
    char *image_backing_file, *image_backing_format;    /* as it says */
    char *image_data_file;
    uint64_t crypto_header_offset, crypto_header_length;
    uint32_t nb_bitmaps;
    uint64_t bitmap_directory_offset, bitmap_directory_size;
    void *unknown_header_fields;
    size_t unknown_header_fields_size;
    TAILQ_HEAD(, Qcow2UnknownExt) unknown_ext;
    unsigned nb_snapshots;
    uint64_t snapshots_offset, snapshots_size;          /* bytes */
    Qcow2Snapshot *snapshots;
    Qcow2Bitmaps *bitmaps;      /* qcow2-bitmap.c's, or NULL */
    bool corrupt;               /* atomic: no more writes */
    bool dirty_bit;             /* atomic: set in the file (lazy refcounts) */
    bool corruption_told;       /* atomic: once is enough */
    unsigned reports;           /* atomic: of corruption, on their way */
    WaitSet reports_done;

    /* ---- L1 table: atomic reads; changes under l1_lock and lock ---- */
    CoMutex l1_lock;
    uint64_t *l1_table;         /* host order; mapped, never moves */
    uint32_t l1_size;           /* atomic; entries */
    uint32_t l1_capacity;       /* entries that are mapped */
    uint64_t l1_table_offset;
    uint32_t l1_dirty_start, l1_dirty_end;  /* lock; entries to be written */
    Qcow2Cache *l2_cache;

    /* ---- refcounts and allocation: under lock ---- */
    CoMutex lock;
    Qcow2Cache *refblock_cache;
    uint64_t *reftable;         /* host order */
    uint64_t reftable_entries;
    uint64_t reftable_offset;
    bool reftable_checked;      /* names no block twice */
    uint64_t reftable_dirty_start, reftable_dirty_end;  /* entries */
    uint64_t free_hint;         /* no free cluster below this index */
    uint64_t free_byte_offset;  /* room for compressed data, or 0 */
    /*
     * From here on the file has never been written and reads as zeroes
     * (bytes; UINT64_MAX: cannot be told).
     */
    uint64_t virgin_start;
    struct Qcow2MetaMap *metamap;           /* qcow2-overlap.c */

    /* ---- giving up clusters ---- */
    Qcow2FreeList pending;      /* lock: the file may still refer to them */
    unsigned n_pending;         /* atomic to read */
    Qcow2FreeList stable;       /* wb_lock: unreachable */
    Qcow2FreeList waiting;      /* wb_lock: until the other epoch is empty */
    unsigned epoch;             /* atomic: 0 or 1 */
    InFlight users[2];          /* of host clusters, by epoch */
    WaitSet users_idle;

    CoMutex wb_lock;            /* one write-back at a time */
    bool settling;              /* lock; nothing may be left behind */
    uint64_t wb_begun;          /* atomic to read; wb_lock */
    uint64_t wb_done;           /* the last that succeeded; wb_lock */

    pthread_mutex_t reserve_lock;
    TAILQ_HEAD(, Qcow2Reservation) reservations;
    WaitSet reserve_done;

    struct Qcow2Inflated *inflated;         /* qcow2-compress.c */
} BDRVQcow2State;

/* ---- arithmetic ---- */

static inline int64_t qcow2_cluster_start(const BDRVQcow2State *s, int64_t n)
{
    return n & ~(int64_t)(s->cluster_size - 1);
}

static inline int64_t qcow2_cluster_end(const BDRVQcow2State *s, int64_t n)
{
    return (n + s->cluster_size - 1) & ~(int64_t)(s->cluster_size - 1);
}

static inline int64_t qcow2_in_cluster(const BDRVQcow2State *s, int64_t n)
{
    return n & (s->cluster_size - 1);
}

/* Entries of the L1 table that a disk of @size bytes needs. */
static inline uint64_t qcow2_size_to_l1(const BDRVQcow2State *s, uint64_t size)
{
    unsigned shift = s->cluster_bits + s->l2_bits;

    return (size >> shift) + !!(size & ((UINT64_C(1) << shift) - 1));
}

static inline uint64_t qcow2_l1_entry(BDRVQcow2State *s, uint64_t index)
{
    return __atomic_load_n(&s->l1_table[index], __ATOMIC_ACQUIRE);
}

/* ---- qcow2-header.c, qcow2-header-write.c ---- */

/*
 * Read and check the header and its extensions, and fill the geometry and
 * header parts of bs->opaque.  Texts name what is wrong and where.  Opens no
 * children but uses bs->file.
 */
bool coroutine_fn qcow2_co_read_header(BlockDriverState *bs, Error **errp);

/*
 * Change @bytes of the header, from byte @at on, to @data, after @event and
 * when all that was written before is stable.  0: that is so, and stable.
 * -errno: the file says what it said before, or if even that can't be had
 * (qcow2_header_unsure()) will do so before other metadata are written; until
 * then what either leads to must stay.  header_lock held.
 */
int coroutine_fn qcow2_co_change_header(BlockDriverState *bs,
                                        BlkdebugEvent event, unsigned at,
                                        const void *data, size_t bytes);

/* After an error the file may still say something else than memory. */
static inline bool qcow2_header_unsure(const BDRVQcow2State *s)
{
    return __atomic_load_n(&s->header_undo, __ATOMIC_ACQUIRE) != NULL;
}

/* Before metadata are written: put that right.  0 or -errno. */
int coroutine_fn qcow2_co_header_sure(BlockDriverState *bs);

/*
 * Write header and extensions anew from s, as a change of the header
 * (header_lock is taken inside).  -ENOSPC: they don't fit.
 */
int coroutine_fn qcow2_co_update_header(BlockDriverState *bs);
void qcow2_free_header(BDRVQcow2State *s);

/* The feature name table of images that we write. */
#define QCOW2_N_FEATURES 8
extern const Qcow2Feature qcow2_feature_names[QCOW2_N_FEATURES];

/* Set or clear incompatible features in the file, and flush. */
int coroutine_fn qcow2_co_set_incompatible(BlockDriverState *bs,
                                           uint64_t set, uint64_t clear);

/* Set the dirty bit, before the first change under lazy refcounts. */
int coroutine_fn qcow2_co_mark_dirty(BlockDriverState *bs);

/*
 * The image is wrong at @offset/@size (bytes, or -1): says so on stderr once,
 * sends BLOCK_IMAGE_CORRUPTED, and if @fatal and writable marks the image
 * corrupt, in memory at once and in the file soon.  [any thread]
 */
void G_GNUC_PRINTF(5, 6) qcow2_signal_corruption(BlockDriverState *bs,
                                                 bool fatal, int64_t offset,
                                                 int64_t size,
                                                 const char *fmt, ...);

/* Wait until what has been signalled is told and written.  [main thread] */
void coroutine_fn qcow2_co_wait_reports(BDRVQcow2State *s);

/* ---- qcow2-options.c ---- */

/* Fill the options part and make the caches. */
bool qcow2_apply_options(BlockDriverState *bs,
                         const BlockdevOptionsQcow2 *o, Error **errp);

/* ---- qcow2-table.c: L1 and L2 ---- */

bool coroutine_fn qcow2_co_read_l1(BlockDriverState *bs, Error **errp);
void qcow2_free_l1(BDRVQcow2State *s);

/* What is at guest @offset; looks no further than @bytes.  0 or -errno. */
int coroutine_fn qcow2_co_extent(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, Qcow2Extent *ext);

/*
 * The same for who wants to know of as much as possible: @ext->bytes goes on
 * where no data are, across tables, and is bounded only for the time's sake.
 */
int coroutine_fn qcow2_co_run(BlockDriverState *bs, int64_t offset,
                              int64_t bytes, Qcow2Extent *ext);

/*
 * Copy @n L2 entries (l2_entry_words each, host order) from that of guest
 * @offset on, all in one slice.  An L2 table that does not exist is zeroes.
 */
int coroutine_fn qcow2_co_read_entries(BlockDriverState *bs, int64_t offset,
                                       unsigned n, uint64_t *entries);

/* The type of subcluster @sc of an entry.  -EIO: it cannot be so. */
int qcow2_entry_type(const BDRVQcow2State *s, const uint64_t *entry,
                     unsigned sc);

/* Signals what is wrong with the entry of guest @offset; -EIO. */
int qcow2_entry_is_broken(BlockDriverState *bs, int64_t offset,
                          const uint64_t *entry);

/*
 * Before guest @offset's mapping changes: make sure that it has an L2 table of
 * its own, and with lazy refcounts that the file says so.
 */
int coroutine_fn qcow2_co_own_l2(BlockDriverState *bs, int64_t offset);

/*
 * Pin the slice for guest @offset, whose L2 table is its own.  May write back.
 */
int coroutine_fn qcow2_co_get_slice(BlockDriverState *bs, int64_t offset,
                                    Qcow2CacheEntry **slice);

/* Index of guest @offset's entry in its slice; entries to the slice's end. */
static inline unsigned qcow2_slice_index(const BDRVQcow2State *s,
                                         int64_t offset)
{
    return (offset >> s->cluster_bits) & ((1u << s->slice_bits) - 1);
}

/*
 * Replace guest @offset's entry in its pinned slice, and give up as @type what
 * it referred to, unless @entry does so as well.  s->lock held, reserved.
 */
void qcow2_replace_entry(BlockDriverState *bs, Qcow2CacheEntry *slice,
                         int64_t offset, const uint64_t *entry,
                         Qcow2DiscardType type);

/* The same for @n entries of a slice that is the image's own; type OTHER. */
int coroutine_fn qcow2_co_link(BlockDriverState *bs, int64_t offset,
                               unsigned n, const uint64_t *entries);

/* s->lock and l1_lock held. */
void qcow2_set_l1_entry(BDRVQcow2State *s, uint32_t index, uint64_t entry);

/* Grow the L1 table, in memory and in the file.  Takes the locks. */
int coroutine_fn qcow2_co_grow_l1(BlockDriverState *bs, uint64_t entries);

/* ---- qcow2-refcount.c: s->lock held where not said otherwise ---- */

/* At open; no lock. */
bool coroutine_fn qcow2_co_read_reftable(BlockDriverState *bs, Error **errp);
void qcow2_free_reftable(BDRVQcow2State *s);

/* Refcount of host cluster @index (offset >> cluster_bits). */
int coroutine_fn qcow2_co_get_refcount(BlockDriverState *bs, uint64_t index,
                                       uint64_t *refcount);

/*
 * Add @addend (1 or -1) to the refcounts of all clusters that [@offset,
 * @offset + @bytes) touches, in the cache.  An error changes nothing.
 */
int coroutine_fn qcow2_co_change_refcount(BlockDriverState *bs,
                                          uint64_t offset, uint64_t bytes,
                                          int addend);

/*
 * Give up the blocks at the table's end that count nothing but themselves, so
 * that a file that has become smaller can be cut.  An error leaves them.  Takes
 * the locks.
 */
void coroutine_fn qcow2_co_drop_refblocks(BlockDriverState *bs);

/*
 * Let free @cluster be covered by a refcount block.  One that is new goes to
 * free cluster @place, which is covered or @cluster itself; then 1 is returned.
 */
int coroutine_fn qcow2_co_cover(BlockDriverState *bs, uint64_t cluster,
                                uint64_t place);

/* -EIO, and corruption is signalled: the table names a block twice. */
int coroutine_fn qcow2_co_check_reftable(BlockDriverState *bs);

/* Sort what belongs to the caller alone; many of them in the thread pool. */
void coroutine_fn qcow2_co_sort_offsets(uint64_t *offsets, size_t n);

/* ---- qcow2-alloc.c: s->lock held ---- */

/*
 * Find and take between @min and @max (bytes, whole clusters) of contiguous
 * free clusters in the image file; refcounts become 1.  Returns the offset,
 * *@got (bytes) and in *@virgin (if not NULL) whether all of it reads as
 * zeroes; or -errno.
 */
int64_t coroutine_fn qcow2_co_alloc(BlockDriverState *bs, uint64_t min,
                                    uint64_t max, uint64_t *got,
                                    bool *virgin);

/* The same for @bytes (less than a cluster) of compressed data, unaligned. */
int64_t coroutine_fn qcow2_co_alloc_bytes(BlockDriverState *bs,
                                          uint64_t bytes);

/* Undo an allocation to which nothing refers; its data are worthless. */
void coroutine_fn qcow2_co_unalloc(BlockDriverState *bs, uint64_t offset,
                                   uint64_t bytes);

/*
 * Something in the caches does not refer to [@offset, @offset + @bytes) any
 * more: the refcounts go down when the file, and everyone who may use them,
 * are past it.  Whole clusters, or the bytes of one compressed cluster.
 */
void qcow2_give_up(BDRVQcow2State *s, uint64_t offset, uint64_t bytes,
                   Qcow2DiscardType type);

/*
 * Give up what an L2 entry (host order) refers to.  If that is metadata it
 * stays, and corruption is signalled.
 */
void qcow2_give_up_entry(BlockDriverState *bs, uint64_t entry,
                         Qcow2DiscardType type);

/* File offset and length in bytes of a compressed entry. */
void qcow2_compressed_range(const BDRVQcow2State *s, uint64_t entry,
                            uint64_t *offset, uint64_t *bytes);

/* ---- qcow2-writeback.c ---- */

/*
 * Bring all metadata that is changed in memory to the file, in the order above
 * (invariant 4).  The last writes may not be flushed yet.  Takes wb_lock and
 * lock.
 */
int coroutine_fn qcow2_co_writeback(BlockDriverState *bs);

/*
 * Write a part of the metadata that is of @kind (one bit) in its place.  -EIO
 * if there is other metadata as well, or the image is corrupt.
 */
int coroutine_fn qcow2_co_write_metadata(BlockDriverState *bs,
                                         Qcow2Overlap kind, uint64_t offset,
                                         uint64_t bytes, const void *data);

/*
 * No request is in flight (drained, or opening or closing): afterwards the file
 * says all, everything given up is free, and both caches are empty, so that
 * metadata may be changed in the file directly.
 */
int coroutine_fn qcow2_co_settle(BlockDriverState *bs);

/*
 * [any thread] Host clusters that a lookup returns stay what they are between
 * enter and leave.  Returns the epoch for leave.
 */
static inline unsigned qcow2_enter(BDRVQcow2State *s)
{
    for (;;) {
        unsigned epoch = __atomic_load_n(&s->epoch, __ATOMIC_SEQ_CST);

        inflight_inc(&s->users[epoch]);
        if (__atomic_load_n(&s->epoch, __ATOMIC_SEQ_CST) == epoch) {
            return epoch;
        }
        inflight_dec(&s->users[epoch]);
    }
}

static inline void qcow2_leave(BDRVQcow2State *s, unsigned epoch)
{
    inflight_dec(&s->users[epoch]);
}

/*
 * Reserve the clusters around [@start, @end); waits for earlier reservations
 * that overlap.
 */
void coroutine_fn qcow2_co_reserve(BDRVQcow2State *s, Qcow2Reservation *r,
                                   int64_t start, int64_t end);
void qcow2_unreserve(Qcow2Reservation *r);

/* ---- qcow2-overlap.c ---- */

/* At open, and when snapshots or bitmaps have changed.  0 or -errno. */
int coroutine_fn qcow2_co_init_metamap(BlockDriverState *bs);
void qcow2_free_metamap(BDRVQcow2State *s);

/*
 * [@offset, @offset + @bytes) becomes metadata of the kind @what (one bit of
 * Qcow2Overlap), or with 0 ceases to be.  s->lock held, or nobody else there.
 */
void qcow2_metamap_set(BDRVQcow2State *s, uint64_t offset, uint64_t bytes,
                       Qcow2Overlap what);

/*
 * [any thread] True if writing there would hit metadata that overlap-check
 * guards; then corruption has been signalled.  @ignore: QCOW2_OL_ bits.
 */
bool qcow2_overlaps(BlockDriverState *bs, unsigned ignore, uint64_t offset,
                    uint64_t bytes);

/* ---- qcow2-io.c, qcow2-zero.c ---- */

int coroutine_fn qcow2_co_preadv(BlockDriverState *bs, int64_t offset,
                                 int64_t bytes, QEMUIOVector *qiov,
                                 BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pwritev(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes, QEMUIOVector *qiov,
                                  BdrvRequestFlags flags);
int coroutine_fn qcow2_co_block_status(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, int64_t *pnum,
                                       int64_t *map,
                                       BlockDriverState **file);
int coroutine_fn qcow2_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes,
                                        BdrvRequestFlags flags);
int coroutine_fn qcow2_co_pdiscard(BlockDriverState *bs, int64_t offset,
                                   int64_t bytes);

/*
 * 1: guest bytes [@start, @end) read as zeroes; 0: they may not; or -errno.
 * @ask_backing: also where only the backing node, which is asked, knows.
 */
int coroutine_fn qcow2_co_is_zero(BlockDriverState *bs, int64_t start,
                                  int64_t end, bool ask_backing);

/*
 * Drop the mapping of whole clusters [@offset, @offset + @bytes), so that they
 * read as unallocated (@full: even if there is a backing node, as beyond a new
 * end), giving their clusters up as @type.
 */
int coroutine_fn qcow2_co_drop(BlockDriverState *bs, int64_t offset,
                               int64_t bytes, Qcow2DiscardType type,
                               bool full);

/* ---- qcow2-compress.c ---- */

void qcow2_compress_init(BDRVQcow2State *s);
void qcow2_compress_deinit(BDRVQcow2State *s);

/* Is it part of this build? */
bool qcow2_compression_supported(Qcow2CompressionType type);

/* Give back the memory of clusters not read since the last call. */
void qcow2_compress_clean(BDRVQcow2State *s);

/* Read @bytes at byte @in_cluster of the compressed cluster @entry. */
int coroutine_fn qcow2_co_read_compressed(BlockDriverState *bs,
                                          uint64_t entry, int64_t in_cluster,
                                          int64_t bytes, QEMUIOVector *qiov,
                                          size_t qiov_offset);

/* Write whole clusters compressed (or, at the end of the image, the rest). */
int coroutine_fn qcow2_co_pwritev_compressed(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             QEMUIOVector *qiov);

/* The file's bytes at [@offset, @offset + @bytes) are no longer those. */
void qcow2_compress_forget(BDRVQcow2State *s, uint64_t offset,
                           uint64_t bytes);

/* ---- qcow2-resize.c ---- */

int coroutine_fn qcow2_co_truncate(BlockDriverState *bs, int64_t offset,
                                   PreallocMode prealloc,
                                   BdrvRequestFlags flags, Error **errp);

/*
 * Allocate everything in [@offset, @end) of the guest's disk, as @mode says.
 */
int coroutine_fn qcow2_co_preallocate(BlockDriverState *bs, int64_t offset,
                                      int64_t end, PreallocMode mode,
                                      Error **errp);

/* ---- qcow2-snapshot.c: main thread, node drained ---- */

/*
 * The table in the file, checked.  While images are opened for a check
 * (block/check.h) an unreadable one counts as empty, and the file keeps it.
 */
bool coroutine_fn qcow2_co_read_snapshots(BlockDriverState *bs, Error **errp);
void qcow2_free_snapshots(BDRVQcow2State *s);

/* BlockDriver's; block/snapshot.h says what they do. */
SnapshotInfoList *qcow2_snapshot_list(BlockDriverState *bs);
bool coroutine_fn qcow2_co_snapshot_create(BlockDriverState *bs,
                                           const char *name, const char *id,
                                           Error **errp);
bool coroutine_fn qcow2_co_snapshot_delete(BlockDriverState *bs,
                                           const char *id, const char *name,
                                           Error **errp);
bool coroutine_fn qcow2_co_snapshot_apply(BlockDriverState *bs,
                                          const char *id_or_name,
                                          Error **errp);

/* ---- qcow2-check.c: main thread, node drained ---- */

/* BlockDriver's; block/check.h says what it does. */
int coroutine_fn qcow2_co_check(BlockDriverState *bs,
                                struct BdrvCheckResult *res, int fix,
                                const struct BdrvCheckHooks *hooks,
                                Error **errp);

/*
 * While opening, after everything else is loaded: repair an image that has the
 * dirty bit, and clear that.  0 or -errno.
 */
int coroutine_fn qcow2_co_repair_dirty(BlockDriverState *bs, Error **errp);

/* ---- qcow2-bitmap.c ---- */

bool coroutine_fn qcow2_co_load_bitmaps(BlockDriverState *bs, Error **errp);

/* At closing: store those that are persistent. */
bool coroutine_fn qcow2_co_store_bitmaps(BlockDriverState *bs, Error **errp);
void qcow2_free_bitmaps(BlockDriverState *bs);

/* ---- qcow2-create.c ---- */

bool coroutine_fn qcow2_co_create(const BlockdevCreateOptions *options,
                                  Error **errp);

#endif /* BLOCK_QCOW2_H */
