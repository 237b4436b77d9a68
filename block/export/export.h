/* SPDX-License-Identifier: MIT */
/*
 * Block exports: their common life cycle.
 *
 * Main thread.  An export holds a BlockBackend and references on the IOThreads
 * that serve it.  Its life: created; shutting down (takes nothing new, finishes
 * what is in flight); deleted, which sends BLOCK_EXPORT_DELETED.  Its id is
 * taken from the first to the last; who waits with an export in hand has a
 * reference, for the struct may be all that is left when the wait is over.
 */
#ifndef BLOCK_EXPORT_EXPORT_H
#define BLOCK_EXPORT_EXPORT_H

#include "block/block.h"
#include "util/co-event.h"
#include "util/iothread.h"
#include "util/queue.h"

typedef struct BlockExport BlockExport;

typedef struct BlockExportDriver {
    BlockExportType type;
    size_t instance_size;           /* of the struct that embeds BlockExport */

    /*
     * Bring the export up.  exp->blk is attached, exp->iothreads set.  On
     * failure nothing is left behind.
     */
    bool coroutine_fn (*co_create)(BlockExport *exp,
                                   const BlockExportOptions *opts,
                                   Error **errp);

    /*
     * Take it down: no new requests, those in flight finished, clients cut
     * off.  Returns when nothing of it is in flight or mounted any more.
     */
    void coroutine_fn (*co_shutdown)(BlockExport *exp);

    /* Free what co_create allocated; co_shutdown has returned. */
    void (*free)(BlockExport *exp);

    /* May clients of a writable export change its length?  NULL: yes. */
    bool (*resizes)(const BlockExportOptions *opts);

    /* True while clients hold the export open (block-export-del mode=safe). */
    bool (*in_use)(BlockExport *exp);

    /* Fill the type's part of a query-block-exports entry; may be NULL. */
    void (*query)(BlockExport *exp, BlockExportInfo *info);
} BlockExportDriver;

struct BlockExport {
    const BlockExportDriver *drv;
    unsigned refcnt;                /* one of its own until it is deleted */
    char *id;
    char *node_name;                /* of the node that is exported */
    BlockBackend *blk;
    IOThread **iothreads;           /* n_iothreads of them; none: main loop */
    unsigned n_iothreads;
    bool starting;                  /* co_create has not returned */
    bool shutting_down;
    CoEvent deleted;
    TAILQ_ENTRY(BlockExport) next;
};

/* Create as block-export-add does. */
bool coroutine_fn blk_exp_co_add(const BlockExportOptions *opts, Error **errp);

/*
 * An export ended by itself (its file was unmounted): shuts it down and
 * deletes it.  [main thread]
 */
void blk_exp_request_shutdown(BlockExport *exp);

/*
 * Take down every export (at exit).  False if some could not be within 10 s,
 * because storage does not answer: the process can then but exit.
 */
bool coroutine_fn blk_exp_co_close_all(void);

#endif /* BLOCK_EXPORT_EXPORT_H */
