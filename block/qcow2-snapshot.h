/* SPDX-License-Identifier: MIT */
/*
 * qcow2: the table of snapshots, for the files that change or check it.
 *
 * Main thread, node drained.
 */
#ifndef BLOCK_QCOW2_SNAPSHOT_H
#define BLOCK_QCOW2_SNAPSHOT_H

#include "block/qcow2.h"

/* What a check can put right in the table. */
typedef enum {
    QCOW2_SNAPSHOT_TOO_MANY,        /* index: how many are left out */
    QCOW2_SNAPSHOT_TABLE_TOO_BIG,   /* index: the same */
    QCOW2_SNAPSHOT_EXTRA_TOO_BIG,   /* index: entry; value: bytes */
    QCOW2_SNAPSHOT_INCOMPLETE,      /* index: entry */
} Qcow2SnapshotFlaw;

typedef struct Qcow2SnapshotTable {
    Qcow2Snapshot *list;
    unsigned n;
    uint64_t bytes;                 /* in the file */
    /*
     * Told of each flaw that is put right in @list; NULL: flaws are errors,
     * INCOMPLETE is none.  What takes leaving something out is an error unless
     * discard is set.
     */
    bool discard;
    void (*flaw)(void *opaque, Qcow2SnapshotFlaw flaw, unsigned index,
                 uint32_t value);
    void *opaque;
} Qcow2SnapshotTable;

/* Read @n entries at @offset of the file; 0 or -errno. */
int coroutine_fn qcow2_co_parse_snapshots(BlockDriverState *bs,
                                          uint64_t offset, uint64_t n,
                                          Qcow2SnapshotTable *table,
                                          Error **errp);
void qcow2_free_snapshot_list(Qcow2Snapshot *list, unsigned n);

/* The table as it is in the file. */
GByteArray *qcow2_snapshots_to_bytes(const Qcow2Snapshot *list, unsigned n);

/*
 * Write the table to a new place, let the header point to it, and free the old
 * one.  s->snapshots is the caller's business.  0 or -errno; then nothing has
 * changed but, perhaps, what the header says.
 */
int coroutine_fn qcow2_co_write_snapshots(BlockDriverState *bs,
                                          const Qcow2Snapshot *list,
                                          unsigned n, Error **errp);

/*
 * Allocate clusters for @bytes of metadata and write @data to them; not
 * flushed.  The offset, or -errno.
 */
int64_t coroutine_fn qcow2_co_write_new(BlockDriverState *bs,
                                        const void *data, uint64_t bytes);

/* Let nothing of [@offset, @offset + @bytes) be in use any more. */
void coroutine_fn qcow2_co_free_old(BlockDriverState *bs, uint64_t offset,
                                    uint64_t bytes);

/* The same place and form for a table of 64-bit words as for @offset. */
bool qcow2_snapshot_l1_ok(const BDRVQcow2State *s, const Qcow2Snapshot *sn,
                          Error **errp);

#endif /* BLOCK_QCOW2_SNAPSHOT_H */
