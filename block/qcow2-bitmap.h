/* SPDX-License-Identifier: MIT */
/*
 * qcow2: the bitmaps that an image keeps, and what the driver's table needs of
 * them besides qcow2.h.
 */
#ifndef BLOCK_QCOW2_BITMAP_H
#define BLOCK_QCOW2_BITMAP_H

#include "block/dirty-bitmap.h"
#include "block/qcow2.h"

/* An entry of the directory. */
typedef struct Qcow2Bitmap {
    uint64_t table_offset;
    uint32_t table_size;                /* entries */
    uint32_t flags;                     /* QCOW2_BITMAP_, as in the file */
    uint8_t type;
    uint8_t granularity_bits;
    char *name;
    uint16_t name_size;
    void *extra;                        /* unknown data, kept */
    uint32_t extra_size;
    BdrvDirtyBitmap *dirty;             /* the node's with its bits, or NULL */
    const struct Qcow2Bitmap *old;      /* storing: what this replaces */
    bool written;                       /* storing: its clusters are new */
    TAILQ_ENTRY(Qcow2Bitmap) next;
} Qcow2Bitmap;
typedef TAILQ_HEAD(Qcow2BitmapList, Qcow2Bitmap) Qcow2BitmapList;

struct Qcow2Bitmaps {
    Qcow2BitmapList list;               /* in the order of the directory */
    GTree *by_name;                     /* name -> Qcow2Bitmap */
};

/* Flags that we understand. */
#define QCOW2_BITMAP_KNOWN_FLAGS (QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO \
                                  | QCOW2_BITMAP_EXTRA_COMPATIBLE)

/* Most bytes of one bitmap's bits. */
#define QCOW2_BITMAP_MAX_BYTES (UINT64_C(512) << 20)

/* Bytes that the bits of a disk of @len bytes take. */
uint64_t qcow2_bitmap_bytes(unsigned granularity_bits, int64_t len);

Qcow2Bitmap *qcow2_bitmap_find(const BDRVQcow2State *s, const char *name);
void qcow2_bitmap_free(Qcow2Bitmap *b);

/* The directory of @list as it is in a file; *@n is how many it has. */
GByteArray *qcow2_bitmap_directory(const Qcow2BitmapList *list, uint32_t *n);

/* What the image says of its bitmaps; the caller frees. */
Qcow2BitmapInfoList *qcow2_bitmaps_info(BlockDriverState *bs);

/* BlockDriver's. */
bool qcow2_can_store_bitmap(BlockDriverState *bs, const char *name,
                            uint64_t granularity, Error **errp);
bool qcow2_has_stored_bitmap(BlockDriverState *bs, const char *name);
bool coroutine_fn qcow2_co_remove_stored_bitmap(BlockDriverState *bs,
                                                const char *name,
                                                Error **errp);

/* False with an error if a bitmap that we can't use would become wrong. */
bool qcow2_bitmaps_check_resize(BlockDriverState *bs, Error **errp);

#endif /* BLOCK_QCOW2_BITMAP_H */
