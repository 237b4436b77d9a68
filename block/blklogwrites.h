/* SPDX-License-Identifier: MIT */
/*
 * The on-disk format of dm-log-writes: a super block in sector 0, then for each
 * entry a sector with its header and, unless it is a discard, nr_sectors of
 * data.  Numbers are little-endian; sectors have the size that the super block
 * says.  Source: the format as Linux and QEMU write it.
 */
#ifndef BLOCK_BLKLOGWRITES_H
#define BLOCK_BLKLOGWRITES_H

#include "block/block-int.h"

#define WRITE_LOG_MAGIC 0x6a736677736872ULL
#define WRITE_LOG_VERSION 1ULL
#define WRITE_LOG_MAX_SECTOR_SIZE (8 << 20)

enum {
    LOG_FLUSH_FLAG    = 1 << 0,
    LOG_FUA_FLAG      = 1 << 1,
    LOG_DISCARD_FLAG  = 1 << 2,
    LOG_MARK_FLAG     = 1 << 3,         /* data_len bytes follow the header */
    LOG_METADATA_FLAG = 1 << 4,
    LOG_FLAG_MASK     = (1 << 5) - 1,
};

typedef struct __attribute__((packed)) LogWriteSuper {
    uint64_t magic;
    uint64_t version;
    uint64_t nr_entries;
    uint32_t sectorsize;                /* bytes */
} LogWriteSuper;

typedef struct __attribute__((packed)) LogWriteEntry {
    uint64_t sector;
    uint64_t nr_sectors;
    uint64_t flags;
    uint64_t data_len;                  /* of a mark, bytes */
} LogWriteEntry;

/* block/blklogwrites-read.c, main thread */

/* Read the super block, in host byte order; magic and version are right. */
bool coroutine_fn log_co_read_super(BdrvChild *log, LogWriteSuper *super,
                                    Error **errp);

/*
 * Go through all entries that @super (whose sector size is valid) counts, and
 * find where the last one ends.  Nothing in the log is trusted.
 */
bool coroutine_fn log_co_find_end(BdrvChild *log, const LogWriteSuper *super,
                                  int64_t *end, Error **errp);

#endif /* BLOCK_BLKLOGWRITES_H */
