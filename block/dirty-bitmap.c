/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps in memory (dirty-bitmap.h says who may do what).
 *
 * The bits are an array of words in chunks.  The directory of chunks is mapped
 * for the largest bitmap there may be and never moves, so that a node can grow
 * while others set bits.  A chunk goes from NULL to memory or to the constant
 * all_ones by compare-and-swap, and is freed only with the node drained.
 */
#include "block/dirty-bitmap.h"

#include <string.h>
#include <sys/mman.h>

#define CHUNK_WORDS 512
#define CHUNK_BITS (CHUNK_WORDS * 64)
#define MAX_CHUNKS (BDRV_BITMAP_MAX_BITS / CHUNK_BITS)
#define DIRECTORY_BYTES (MAX_CHUNKS * sizeof(uint64_t *))

/* Chunks, ranges, that are handled between two looks at the clock. */
#define STEP_CHUNKS 16
#define STEP_RANGES 64

static uint64_t all_ones[CHUNK_WORDS] = {
    [0 ... CHUNK_WORDS - 1] = UINT64_MAX,
};

/* ---- chunks ---- */

static uint64_t *get_chunk(const BdrvDirtyBitmap *bm, int64_t i)
{
    return __atomic_load_n(&bm->chunks[i], __ATOMIC_ACQUIRE);
}

static void raise_limit(BdrvDirtyBitmap *bm, int64_t limit)
{
    int64_t old = __atomic_load_n(&bm->chunk_limit, __ATOMIC_RELAXED);

    while (limit > old
           && !__atomic_compare_exchange_n(&bm->chunk_limit, &old, limit, true,
                                           __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED)) {
    }
}

/* What chunk @i is after trying to make it @chunk instead of @old. */
static uint64_t *swap_chunk(BdrvDirtyBitmap *bm, int64_t i, uint64_t *old,
                            uint64_t *chunk)
{
    uint64_t *now = old;

    if (__atomic_compare_exchange_n(&bm->chunks[i], &now, chunk, false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        raise_limit(bm, i + 1);
        return chunk;
    }
    if (chunk != all_ones) {
        g_free(chunk);
    }
    return now;
}

static uint64_t *make_chunk(BdrvDirtyBitmap *bm, int64_t i)
{
    uint64_t *chunk = get_chunk(bm, i);

    return chunk ? chunk : swap_chunk(bm, i, NULL, g_new0(uint64_t,
                                                          CHUNK_WORDS));
}

static int64_t get_limit(const BdrvDirtyBitmap *bm)
{
    return __atomic_load_n(&bm->chunk_limit, __ATOMIC_RELAXED);
}

/* The lowest @n bits. */
static uint64_t low_bits(int64_t n)
{
    return n <= 0 ? 0 : n >= 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
}

/* ---- life ---- */

bool bdrv_dirty_bitmap_check_new(BlockDriverState *bs, const char *name,
                                 int64_t granularity, Error **errp)
{
    if (granularity < BDRV_BITMAP_MIN_GRANULARITY
        || granularity > BDRV_BITMAP_MAX_GRANULARITY
        || (granularity & (granularity - 1))) {
        error_setg(errp, "Granularity must be power of 2 and at least 512");
        return false;
    }
    if (!*name) {
        error_setg(errp, "Bitmap name cannot be empty");
        return false;
    }
    if (bdrv_dirty_bitmap_find(bs, name)) {
        error_setg(errp, "Bitmap already exists: %s", name);
        return false;
    }
    if (strlen(name) > BDRV_BITMAP_MAX_NAME) {
        error_setg(errp, "Bitmap name too long: %s", name);
        return false;
    }
    return true;
}

static bool fits(const BdrvDirtyBitmap *bm, int64_t len)
{
    return bdrv_dirty_bitmap_bits(bm, len)
           <= (bm->persistent ? BDRV_BITMAP_MAX_STORED_BITS
                              : BDRV_BITMAP_MAX_BITS);
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_new(BlockDriverState *bs, const char *name,
                                       unsigned granularity_bits,
                                       bool persistent, Error **errp)
{
    BdrvDirtyBitmap *bm = g_new0(BdrvDirtyBitmap, 1);

    bm->granularity_bits = granularity_bits;
    bm->persistent = persistent;
    bm->recording = true;
    if (!fits(bm, bdrv_getlength(bs))) {
        error_setg(errp, "Too much space will be occupied by the bitmap. Use "
                   "larger granularity");
        g_free(bm);
        return NULL;
    }
    bm->chunks = mmap(NULL, DIRECTORY_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bm->chunks == MAP_FAILED) {
        error_setg_errno(errp, errno, "Could not map memory for a bitmap");
        g_free(bm);
        return NULL;
    }
    bm->name = g_strdup(name);
    return bm;
}

void bdrv_dirty_bitmap_insert(BlockDriverState *bs, BdrvDirtyBitmap *bm)
{
    bm->next = bs->dirty_bitmaps;
    __atomic_store_n(&bs->dirty_bitmaps, bm, __ATOMIC_RELEASE);
}

void bdrv_dirty_bitmap_remove(BlockDriverState *bs, BdrvDirtyBitmap *bm)
{
    BdrvDirtyBitmap **p = &bs->dirty_bitmaps;

    while (*p != bm) {
        p = &(*p)->next;
    }
    __atomic_store_n(p, bm->next, __ATOMIC_RELEASE);
}

void bdrv_dirty_bitmap_free(BdrvDirtyBitmap *bm)
{
    if (bm) {
        bdrv_dirty_bitmap_clear(bm);
        munmap(bm->chunks, DIRECTORY_BYTES);
        g_free(bm->name);
        g_free(bm);
    }
}

void bdrv_dirty_bitmaps_free(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bm;

    while ((bm = bs->dirty_bitmaps)) {
        bs->dirty_bitmaps = bm->next;
        bdrv_dirty_bitmap_free(bm);
    }
}

BdrvDirtyBitmap *bdrv_dirty_bitmap_find(BlockDriverState *bs, const char *name)
{
    BdrvDirtyBitmap *bm = bs->dirty_bitmaps;

    while (bm && strcmp(bm->name, name)) {
        bm = bm->next;
    }
    return bm;
}

uint32_t bdrv_dirty_bitmap_default_granularity(BlockDriverState *bs)
{
    BlockDriverInfo bdi;

    if (!bdrv_get_info(bs, &bdi) || bdi.cluster_size <= 0) {
        return 64 << 10;
    }
    return CLAMP(bdi.cluster_size, 4 << 10, 64 << 10);
}

/* ---- setting ---- */

static void or_word(uint64_t *chunk, int64_t word, uint64_t mask)
{
    uint64_t *p = &chunk[word];

    /* Most bits are set already: leave the cache line to everyone. */
    if ((__atomic_load_n(p, __ATOMIC_RELAXED) & mask) != mask) {
        __atomic_fetch_or(p, mask, __ATOMIC_RELAXED);
    }
}

/* Bits [@first, @end) of chunk @i, both counted from its start. */
static void set_in_chunk(BdrvDirtyBitmap *bm, int64_t i, int64_t first,
                         int64_t end)
{
    uint64_t *chunk = get_chunk(bm, i);

    if (chunk == all_ones) {
        return;
    }
    if (!chunk && end - first == CHUNK_BITS) {
        chunk = swap_chunk(bm, i, NULL, all_ones);
    }
    if (!chunk) {
        chunk = make_chunk(bm, i);
    }
    if (chunk == all_ones) {
        return;
    }
    for (int64_t w = first / 64; w * 64 < end; w++) {
        or_word(chunk, w, low_bits(end - w * 64) & ~low_bits(first - w * 64));
    }
}

void coroutine_fn bdrv_co_dirty_bitmap_set(BdrvDirtyBitmap *bm,
                                           int64_t offset, int64_t bytes)
{
    int64_t bit = offset >> bm->granularity_bits, end;

    if (bytes <= 0) {
        return;
    }
    end = ((offset + bytes - 1) >> bm->granularity_bits) + 1;
    if (end > BDRV_BITMAP_MAX_BITS) {
        /* A file that grew by being written. */
        __atomic_store_n(&bm->inconsistent, true, __ATOMIC_RELAXED);
        end = BDRV_BITMAP_MAX_BITS;
    }
    while (bit < end) {
        int64_t i = bit / CHUNK_BITS, start = i * CHUNK_BITS;

        set_in_chunk(bm, i, bit - start, MIN(end - start, CHUNK_BITS));
        bit = start + CHUNK_BITS;
        if (bit < end && i % STEP_CHUNKS == 0) {
            aio_co_yield_fair();
        }
    }
}

void coroutine_fn bdrv_co_dirty_bitmaps_set(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes)
{
    BdrvDirtyBitmap *bm = __atomic_load_n(&bs->dirty_bitmaps,
                                          __ATOMIC_ACQUIRE);

    for (; bm; bm = bm->next) {
        if (bm->recording) {
            bdrv_co_dirty_bitmap_set(bm, offset, bytes);
        }
    }
}

void bdrv_dirty_bitmap_or_words(BdrvDirtyBitmap *bm, int64_t bits,
                                int64_t first, int64_t n,
                                const uint64_t *words)
{
    for (int64_t w = first; w < first + n && w * 64 < bits; w++) {
        uint64_t mask = words[w - first] & low_bits(bits - w * 64);
        uint64_t *chunk;

        if (mask) {
            chunk = make_chunk(bm, w / CHUNK_WORDS);
            if (chunk != all_ones) {
                or_word(chunk, w % CHUNK_WORDS, mask);
            }
        }
    }
}

int coroutine_fn bdrv_co_dirty_bitmap_merge(BdrvDirtyBitmap *dst,
                                            const BdrvDirtyBitmap *src,
                                            int64_t len)
{
    int64_t offset = 0, bytes;
    int ret = 0;

    for (unsigned n = 1;
         ret >= 0 && bdrv_dirty_bitmap_next(src, &offset, len, &bytes); n++) {
        bdrv_co_dirty_bitmap_set(dst, offset, bytes);
        offset += bytes;
        if (n % STEP_RANGES == 0) {
            ret = aio_co_yield_fair();
        }
    }
    return ret;
}

/* ---- clearing ---- */

void bdrv_dirty_bitmap_clear(BdrvDirtyBitmap *bm)
{
    for (int64_t i = 0; i < bm->chunk_limit; i++) {
        if (bm->chunks[i] && bm->chunks[i] != all_ones) {
            g_free(bm->chunks[i]);
        }
        bm->chunks[i] = NULL;
    }
    bm->chunk_limit = 0;
}

/* Bits from @first on of chunk @i, while others may set bits before it. */
static void clear_rest(BdrvDirtyBitmap *bm, int64_t i, int64_t first)
{
    uint64_t *chunk = get_chunk(bm, i);

    if (chunk == all_ones && first == 0) {
        chunk = swap_chunk(bm, i, all_ones, NULL);
    } else if (chunk == all_ones) {
        uint64_t *copy = g_new(uint64_t, CHUNK_WORDS);

        memcpy(copy, all_ones, sizeof(all_ones));
        chunk = swap_chunk(bm, i, all_ones, copy);
    }
    for (int64_t w = first / 64; chunk && w < CHUNK_WORDS; w++) {
        __atomic_fetch_and(&chunk[w], low_bits(first - w * 64),
                           __ATOMIC_RELAXED);
    }
}

bool bdrv_dirty_bitmaps_check_resize(BlockDriverState *bs, int64_t len,
                                     Error **errp)
{
    BdrvDirtyBitmap *bm = __atomic_load_n(&bs->dirty_bitmaps,
                                          __ATOMIC_ACQUIRE);

    for (; bm; bm = bm->next) {
        if (!__atomic_load_n(&bm->inconsistent, __ATOMIC_RELAXED)
            && !fits(bm, len)) {
            error_setg(errp, "Bitmap '%s' is too fine for a node of that size",
                       bm->name);
            return false;
        }
    }
    return true;
}

void coroutine_fn bdrv_co_dirty_bitmaps_resized(BlockDriverState *bs,
                                                int64_t len)
{
    BdrvDirtyBitmap *bm = __atomic_load_n(&bs->dirty_bitmaps,
                                          __ATOMIC_ACQUIRE);

    for (; bm; bm = bm->next) {
        int64_t bits = MIN(bdrv_dirty_bitmap_bits(bm, len),
                           BDRV_BITMAP_MAX_BITS);

        for (int64_t i = bits / CHUNK_BITS; i < get_limit(bm); i++) {
            clear_rest(bm, i, MAX(bits - i * CHUNK_BITS, 0));
            if (i % STEP_CHUNKS == 0) {
                aio_co_yield_fair();
            }
        }
    }
}

/* ---- looking ---- */

bool bdrv_dirty_bitmap_get_words(const BdrvDirtyBitmap *bm, int64_t bits,
                                 int64_t first, int64_t n, uint64_t *words)
{
    uint64_t any = 0;

    memset(words, 0, n * sizeof(*words));
    for (int64_t w = first; w < first + n && w * 64 < bits; ) {
        const uint64_t *chunk = get_chunk(bm, w / CHUNK_WORDS);
        int64_t stop = MIN((w / CHUNK_WORDS + 1) * CHUNK_WORDS, first + n);

        for (; chunk && w < stop; w++) {
            uint64_t word = __atomic_load_n(&chunk[w % CHUNK_WORDS],
                                            __ATOMIC_RELAXED);

            words[w - first] = word & low_bits(bits - w * 64);
            any |= words[w - first];
        }
        w = stop;
    }
    return !any;
}

int64_t coroutine_fn bdrv_co_dirty_bitmap_count(const BdrvDirtyBitmap *bm,
                                                int64_t len)
{
    int64_t bits = bdrv_dirty_bitmap_bits(bm, len), count = 0;

    for (int64_t i = 0; i < get_limit(bm) && i * CHUNK_BITS < bits; i++) {
        uint64_t words[CHUNK_WORDS];

        if (i % STEP_CHUNKS == STEP_CHUNKS - 1) {
            aio_co_yield_fair();
        }
        if (get_chunk(bm, i) == all_ones && (i + 1) * CHUNK_BITS <= bits) {
            count += CHUNK_BITS;
            continue;
        }
        if (!get_chunk(bm, i)
            || bdrv_dirty_bitmap_get_words(bm, bits, i * CHUNK_WORDS,
                                           CHUNK_WORDS, words)) {
            continue;
        }
        for (int w = 0; w < CHUNK_WORDS; w++) {
            count += __builtin_popcountll(words[w]);
        }
    }
    return count << bm->granularity_bits;
}

/* The first bit in [@bit, @end) that is @set, or @end. */
static int64_t find_bit(const BdrvDirtyBitmap *bm, int64_t bit, int64_t end,
                        bool set)
{
    while (bit < end) {
        const uint64_t *chunk = get_chunk(bm, bit / CHUNK_BITS);
        uint64_t word;

        if (chunk == (set ? NULL : all_ones)) {
            bit = (bit / CHUNK_BITS + 1) * CHUNK_BITS;
            continue;
        }
        word = chunk ? __atomic_load_n(&chunk[bit % CHUNK_BITS / 64],
                                       __ATOMIC_RELAXED) : 0;
        word = (set ? word : ~word) & ~low_bits(bit % 64);
        if (word) {
            bit = bit / 64 * 64 + __builtin_ctzll(word);
            break;
        }
        bit = (bit / 64 + 1) * 64;
    }
    return MIN(bit, end);
}

bool bdrv_dirty_bitmap_next(const BdrvDirtyBitmap *bm, int64_t *offset,
                            int64_t end, int64_t *bytes)
{
    unsigned shift = bm->granularity_bits;
    int64_t last = MIN(bdrv_dirty_bitmap_bits(bm, end), BDRV_BITMAP_MAX_BITS);
    int64_t first = find_bit(bm, *offset >> shift, last, true);
    int64_t stop;

    if (*offset >= end || first >= last) {
        return false;
    }
    stop = find_bit(bm, first, last, false);
    *offset = MAX(*offset, first << shift);
    *bytes = (stop == last ? end : stop << shift) - *offset;
    return true;
}

BlockDirtyInfoList *coroutine_fn bdrv_co_dirty_bitmaps_info(
    BlockDriverState *bs)
{
    BlockDirtyInfoList *list = NULL, **tail = &list;

    for (BdrvDirtyBitmap *bm = bs->dirty_bitmaps; bm; bm = bm->next) {
        BlockDirtyInfo *info = g_new0(BlockDirtyInfo, 1);

        info->name = g_strdup(bm->name);
        info->count = bdrv_co_dirty_bitmap_count(bm, bdrv_getlength(bs));
        info->granularity = UINT32_C(1) << bm->granularity_bits;
        info->recording = bm->recording;
        info->persistent = bm->persistent;
        info->inconsistent = __atomic_load_n(&bm->inconsistent,
                                             __ATOMIC_RELAXED);
        info->has_inconsistent = info->inconsistent;
        QAPI_LIST_APPEND(tail, info);
    }
    return list;
}
