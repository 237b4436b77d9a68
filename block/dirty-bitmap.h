/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps: which parts of a node have been written.
 *
 * A bitmap has one bit for each unit (granularity) of its node.  Whatever
 * changes data through the node (a write, zeroes, a discard) sets the bits that
 * it touches, in the thread of the request and before that request ends.  Bits
 * are set atomically; everything else (adding, removing, clearing, merging, the
 * flags) is done in the main thread with the node drained, so that requests
 * look at the list and the flags without a lock.
 *
 * Memory comes in chunks as bits are set.  A chunk whose bits are all set is a
 * constant, so that a whole disk costs next to nothing.
 */
#ifndef BLOCK_DIRTY_BITMAP_H
#define BLOCK_DIRTY_BITMAP_H

#include "block/block-int.h"

#define BDRV_BITMAP_MAX_NAME 1023           /* bytes */
#define BDRV_BITMAP_MIN_GRANULARITY 512     /* bytes */
#define BDRV_BITMAP_MAX_GRANULARITY (INT64_C(1) << 31)
/* Most bits: of any bitmap, and of one that an image can hold. */
#define BDRV_BITMAP_MAX_BITS (INT64_C(1) << 34)
#define BDRV_BITMAP_MAX_STORED_BITS (INT64_C(1) << 32)

typedef struct BdrvDirtyBitmap BdrvDirtyBitmap;
struct BdrvDirtyBitmap {
    char *name;
    unsigned granularity_bits;          /* log2 of bytes */
    bool recording;                     /* writes set bits */
    bool persistent;                    /* the image keeps it */
    bool inconsistent;                  /* atomic: it does not say all */
    uint64_t **chunks;                  /* atomic; mapped, NULL: zeroes */
    int64_t chunk_limit;                /* atomic; from here on all NULL */
    BdrvDirtyBitmap *next;              /* older */
};

/* ---- main thread, node drained (or being opened) ---- */

/*
 * May a bitmap be called so, with a granularity of so many bytes?  false with
 * an error.
 */
bool bdrv_dirty_bitmap_check_new(BlockDriverState *bs, const char *name,
                                 int64_t granularity, Error **errp);

/*
 * A new bitmap, all clean and recording, which is not yet the node's.  NULL
 * with an error: the node is too large for it, or there is no memory.
 */
BdrvDirtyBitmap *bdrv_dirty_bitmap_new(BlockDriverState *bs, const char *name,
                                       unsigned granularity_bits,
                                       bool persistent, Error **errp);

/* Give it to the node, or take it away. */
void bdrv_dirty_bitmap_insert(BlockDriverState *bs, BdrvDirtyBitmap *bm);
void bdrv_dirty_bitmap_remove(BlockDriverState *bs, BdrvDirtyBitmap *bm);
void bdrv_dirty_bitmap_free(BdrvDirtyBitmap *bm);

/* The node is closed: all of its bitmaps go. */
void bdrv_dirty_bitmaps_free(BlockDriverState *bs);

void bdrv_dirty_bitmap_clear(BdrvDirtyBitmap *bm);

/*
 * What is dirty in @src up to @len bytes becomes dirty in @dst.  -ECANCELED: a
 * part of it.  Both stay as long as this takes: graph lock.
 */
int coroutine_fn bdrv_co_dirty_bitmap_merge(BdrvDirtyBitmap *dst,
                                            const BdrvDirtyBitmap *src,
                                            int64_t len);

/* ---- main thread ---- */

BdrvDirtyBitmap *bdrv_dirty_bitmap_find(BlockDriverState *bs,
                                        const char *name);      /* or NULL */

/* What to take if nobody says: the clusters', within 4 KiB and 64 KiB. */
uint32_t bdrv_dirty_bitmap_default_granularity(BlockDriverState *bs);

/* Bits that a node of @len bytes needs. */
static inline int64_t bdrv_dirty_bitmap_bits(const BdrvDirtyBitmap *bm,
                                             int64_t len)
{
    return (len >> bm->granularity_bits)
           + !!(len & ((INT64_C(1) << bm->granularity_bits) - 1));
}

/* Bytes in dirty units, of a node of @len bytes. */
int64_t coroutine_fn bdrv_co_dirty_bitmap_count(const BdrvDirtyBitmap *bm,
                                                int64_t len);

/*
 * The first dirty range in [*@offset, @end): false if there is none, else
 * *@offset and *@bytes say where.
 */
bool bdrv_dirty_bitmap_next(const BdrvDirtyBitmap *bm, int64_t *offset,
                            int64_t end, int64_t *bytes);

/*
 * Words [@first, @first + @n) of bits, the lowest bit first, bits from @bits on
 * being 0.  Returns true if none is set, without looking at all of them where
 * it can.
 */
bool bdrv_dirty_bitmap_get_words(const BdrvDirtyBitmap *bm, int64_t bits,
                                 int64_t first, int64_t n, uint64_t *words);

/* Add the bits in @words; bits from @bits on are ignored. */
void bdrv_dirty_bitmap_or_words(BdrvDirtyBitmap *bm, int64_t bits,
                                int64_t first, int64_t n,
                                const uint64_t *words);

/* For queries. */
BlockDirtyInfoList *coroutine_fn bdrv_co_dirty_bitmaps_info(
    BlockDriverState *bs);

/* Can all bitmaps follow if the node gets @len bytes?  [any thread] */
bool bdrv_dirty_bitmaps_check_resize(BlockDriverState *bs, int64_t len,
                                     Error **errp);

/* The node has @len bytes now: beyond is nothing.  [any thread] */
void coroutine_fn bdrv_co_dirty_bitmaps_resized(BlockDriverState *bs,
                                                int64_t len);

/* ---- any thread ---- */

/* The bitmap stays as long as this takes: a request, or the graph lock. */
void coroutine_fn bdrv_co_dirty_bitmap_set(BdrvDirtyBitmap *bm,
                                           int64_t offset, int64_t bytes);

/* The same in all bitmaps of @bs that record. */
void coroutine_fn bdrv_co_dirty_bitmaps_set(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes);

/* A request that may have changed [@offset, @offset + @bytes) is ending. */
static inline void coroutine_fn bdrv_co_note_dirty(BlockDriverState *bs,
                                                   int64_t offset,
                                                   int64_t bytes)
{
    if (__builtin_expect(__atomic_load_n(&bs->dirty_bitmaps,
                                         __ATOMIC_RELAXED) != NULL, 0)) {
        bdrv_co_dirty_bitmaps_set(bs, offset, bytes);
    }
}

#endif /* BLOCK_DIRTY_BITMAP_H */
