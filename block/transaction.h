/* SPDX-License-Identifier: MIT */
/*
 * Actions of which all happen or none.
 *
 * Each is prepared in turn, which does what it does, so that the next one sees
 * it; when one fails, those before are taken back in reverse order, and
 * otherwise all are committed.  Meanwhile the graph lock is held and the nodes
 * concerned are drained, so nobody sees what is between.  Commands that do one
 * such thing are transactions of one action.
 *
 * Main thread.
 */
#ifndef BLOCK_TRANSACTION_H
#define BLOCK_TRANSACTION_H

#include "block/dirty-bitmap.h"

typedef struct TransactionItem TransactionItem;

/* What is NULL has nothing to do. */
typedef struct TransactionOps {
    bool coroutine_fn (*co_prepare)(TransactionItem *it, Error **errp);
    /* What only now can be found out to fail is reported, and not done. */
    void coroutine_fn (*co_commit)(TransactionItem *it, Error **errp);
    void coroutine_fn (*co_abort)(TransactionItem *it);
} TransactionOps;

struct TransactionItem {
    const TransactionOps *ops;
    const void *arg;            /* the command's */
    bool alone;                 /* prepared, it will not be taken back */
    BlockDriverState *bs;       /* drained, or NULL */
    /* The ops' own: */
    BdrvDirtyBitmap *bitmap;
    BdrvDirtyBitmap *old;       /* what it was */
    bool recording;             /* likewise */
    char *id;                   /* of a snapshot; freed at the end */
};

/* For co_prepare(): @bs is the item's node, drained until the end. */
void coroutine_fn transaction_co_drain(TransactionItem *it,
                                       BlockDriverState *bs);

/* One action, as a command of its own. */
void coroutine_fn transaction_co_one(const TransactionOps *ops,
                                     const void *arg, Error **errp);

/* qmp-bitmap.c, qmp-snapshot.c */
extern const TransactionOps transaction_bitmap_add, transaction_bitmap_remove;
extern const TransactionOps transaction_bitmap_clear, transaction_bitmap_merge;
extern const TransactionOps transaction_bitmap_enable;
extern const TransactionOps transaction_bitmap_disable;
extern const TransactionOps transaction_snapshot_create;

#endif /* BLOCK_TRANSACTION_H */
