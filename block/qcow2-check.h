/* SPDX-License-Identifier: MIT */
/*
 * qcow2: what the files of the check share.
 *
 * The counts that a check computes have the form that refcounts have in
 * refcount blocks, with as many bits: what does not fit there is an error
 * anyway, and new blocks are copies of them.  Memory follows from the length of
 * the file alone.
 */
#ifndef BLOCK_QCOW2_CHECK_H
#define BLOCK_QCOW2_CHECK_H

#include "block/check.h"
#include "block/qcow2-snapshot.h"

/* One refcount block of the file, as it was read. */
typedef struct Qcow2CheckBlock {
    uint64_t index;             /* of the refcount table; UINT64_MAX: none */
    uint64_t offset;            /* 0: there is none, all is 0 */
    bool dirty;
    int error;                  /* -errno: it can't be read */
    uint8_t *data;              /* a cluster */
} Qcow2CheckBlock;

typedef struct Qcow2Check {
    BlockDriverState *bs;
    BDRVQcow2State *s;
    BdrvCheckResult *res;
    int fix;                    /* BDRV_FIX_ */
    const BdrvCheckHooks *hooks;

    uint64_t file_bytes;
    uint64_t n_clusters;        /* of the file, the last may be a part */
    uint8_t *counts;            /* mapped; of clusters [0, capacity) */
    uint64_t capacity;
    size_t counts_bytes;
    uint64_t table_bytes;       /* of tables of the file that were counted */

    bool rebuild;               /* the refcount structure is beyond repair */
    Qcow2CheckBlock block;
    double done, part;          /* progress: so far; of what is going on */
    double shown;               /* what hooks->progress knows */
} Qcow2Check;

/* Say what was found. */
void G_GNUC_PRINTF(2, 3) qcow2_check_say(Qcow2Check *c, const char *fmt, ...);

/* @done of @total units of the current part are through. */
void qcow2_check_progress(Qcow2Check *c, uint64_t done, uint64_t total);

/* Refcount @i of a block. */
uint64_t qcow2_check_get(const BDRVQcow2State *s, const uint8_t *block,
                         uint64_t i);
void qcow2_check_set(const BDRVQcow2State *s, uint8_t *block, uint64_t i,
                     uint64_t value);

/* Is any count in block @index not 0? */
bool qcow2_check_any(const Qcow2Check *c, uint64_t index);

/* One more use of the clusters that [@offset, @offset + @bytes) touches. */
void qcow2_check_use(Qcow2Check *c, uint64_t offset, uint64_t bytes);

/* ---- qcow2-check-refs.c: everything that uses clusters ---- */

/* Count all.  An error means that it could not be looked at. */
int coroutine_fn qcow2_check_co_count(Qcow2Check *c);

/* COPIED of the active tables against the refcounts in the file. */
int coroutine_fn qcow2_check_co_copied(Qcow2Check *c);

/* ---- qcow2-repair.c ---- */

/* Have a refcount of the file in *@refcount.  0 or -errno. */
int coroutine_fn qcow2_check_co_refcount(Qcow2Check *c, uint64_t cluster,
                                         uint64_t *refcount);

/* Change a refcount that has a block. */
int coroutine_fn qcow2_check_co_set_refcount(Qcow2Check *c, uint64_t cluster,
                                             uint64_t refcount);
int coroutine_fn qcow2_check_co_write_block(Qcow2Check *c);

/* Make new refcount blocks and a new table of what has been counted. */
int coroutine_fn qcow2_check_co_rebuild(Qcow2Check *c);

/*
 * Write a table of the image anew where it is (whole clusters), unless that
 * would overwrite metadata of another kind than @kind.
 */
int coroutine_fn qcow2_check_co_rewrite(Qcow2Check *c, unsigned kind,
                                        uint64_t offset, const void *data,
                                        uint64_t bytes);

#endif /* BLOCK_QCOW2_CHECK_H */
