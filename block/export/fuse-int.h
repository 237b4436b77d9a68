/* SPDX-License-Identifier: MIT */
/*
 * What the files of the FUSE export share.
 *
 *   fuse.c        policy: options, set-up, teardown        (main thread)
 *   fuse-mount.c  asking the mounter to mount and to end    (main thread)
 *   fuse-ops.c    codec and operations                      (any thread)
 *   fuse-init.c   INIT                                      (main thread)
 *   fuse-dev.c    transport: read and write on /dev/fuse    (queue's thread)
 *   fuse-uring.c  transport: FUSE over io_uring             (queue's thread)
 *
 * A transport brings a FuseRequest, calls fuse_co_process() in a coroutine and
 * delivers what that returns.  It tells the export when the connection has
 * ended, and the export tells it to start and to stop.
 */
#ifndef BLOCK_EXPORT_FUSE_INT_H
#define BLOCK_EXPORT_FUSE_INT_H

#include "block/export/export.h"
#include "block/export/fuse-ops.h"
#include "util/co-event.h"

typedef struct FuseExport FuseExport;
typedef struct FuseQueue FuseQueue;
typedef struct FuseDevRequest FuseDevRequest;
typedef struct FuseRingQueue FuseRingQueue;

/* ---- fuse-mount.c ---- */

typedef struct FuseMount {
    char *path;                 /* absolute: works after a chdir */
    int fd;                     /* /dev/fuse, non-blocking; -1: not mounted */
    uint32_t number;            /* by which the mounter knows it */
    bool by_fusermount;         /* fusermount3 mounted it, and unmounts it */
    unsigned minor;             /* of st_dev, which names the connection */
} FuseMount;

typedef struct FuseMountOptions {
    bool writable;
    bool allow_other;
} FuseMountOptions;

/* All of these ask another process (fuse-mounter.h), with a time limit. */

/*
 * Is @mount->path a regular file, not ours, where one may mount?  @name is the
 * path as the user gave it, for errors.
 */
bool coroutine_fn fuse_mount_co_check(const FuseMount *mount, const char *name,
                                      Error **errp);

/*
 * Mount on the regular file @mount->path: directly, or by fusermount3 where
 * that is not permitted.  On failure nothing is mounted and mount->fd is -1.
 */
bool coroutine_fn fuse_mount_co_mount(FuseMount *mount,
                                      const FuseMountOptions *options,
                                      Error **errp);

/* Look at the file as a client would: 0 if it answers, or -errno. */
int coroutine_fn fuse_mount_co_probe(const FuseMount *mount);

/*
 * End it: out of the file system tree wherever it still is in there, and the
 * connection aborted under clients that hold the file open.  An unprivileged
 * process needs /sys/fs/fuse/connections for the latter; without, it is the
 * last client's close, or this process's exit, that ends the connection.
 */
void coroutine_fn fuse_mount_co_end(const FuseMount *mount);

/* ---- fuse-dev.c ---- */

/* One queue's reader and writer of /dev/fuse. */
typedef struct FuseDev {
    int fd;                     /* the mount's, or a clone of it */
    bool reading;               /* the fd handler is installed */
    unsigned in_flight;         /* requests of this queue being carried out */
    STAILQ_HEAD(, FuseDevRequest) free;     /* buffers */
    unsigned n_requests;        /* allocated: in flight or free */
} FuseDev;

/* [any] A further fd of @fd's connection, non-blocking; -errno. */
int fuse_dev_clone(int fd);

/* [main] Take over @fd. */
void fuse_dev_init(FuseQueue *q, int fd);

/*
 * [main] Have one buffer at least: who has none cannot even refuse.  False if
 * there is no memory.
 */
bool fuse_dev_reserve(FuseQueue *q);

/*
 * [main] Read INIT from the fresh connection @fd and answer it.  -errno, also
 * when no INIT comes within seconds.
 */
int coroutine_fn fuse_dev_co_handshake(FuseExport *exp, int fd);

/* [queue] Begin, stop to take requests. */
void fuse_dev_start(FuseQueue *q);
void fuse_dev_stop(FuseQueue *q);

/* [queue] Stopped and idle: close the fd and free the buffers. */
void fuse_dev_deinit(FuseQueue *q);

/* ---- fuse-uring.c ---- */

/* An IOThread's share of the kernel's ring queues. */
typedef struct FuseUring {
    FuseRingQueue *queues;      /* n_queues of them, or NULL */
    unsigned n_queues;
    unsigned n_armed;           /* entries whose last CQE has not come */
} FuseUring;

/* The kernel's ring queues: one for each possible CPU.  At least 1. */
unsigned fuse_uring_kernel_queues(void);

/*
 * [main] Can the ring be had in @contexts?  Settled without mounting: the
 * kernel's parameter and the contexts' rings.  The error names the cure.
 */
bool fuse_uring_check(AioContext **contexts, unsigned n, Error **errp);

/* [main] Give ring queue @qid, of @depth entries, to @q.  False: no memory. */
bool fuse_uring_add_queue(FuseQueue *q, unsigned qid, unsigned depth,
                          Error **errp);

/* [queue] Register all entries with the kernel. */
void fuse_uring_start(FuseQueue *q);

/* [main] All entries have had their last CQE: free the queues. */
void fuse_uring_deinit(FuseQueue *q);

/* ---- fuse.c ---- */

/* What one AioContext does for the export. */
struct FuseQueue {
    FuseExport *exp;
    AioContext *ctx;
    FuseDev dev;
    FuseUring uring;
};

struct FuseExport {
    BlockExport common;
    FuseFile file;
    FuseMount mount;

    FuseQueue *queues;          /* one for each IOThread, or main's */
    unsigned n_queues;
    unsigned queue_depth;       /* requests in flight per (ring) queue */
    bool placement;             /* tell the loop the clients' CPUs */

    bool uring_wanted;          /* agreed on at INIT */
    bool uring_broken;          /* atomic: a ring entry was refused */
    bool uring_served;          /* atomic: a request came over the ring */

    bool halted;                /* atomic: new requests are refused */
    bool cut_off;               /* atomic: and those in flight given up */
    bool ended;                 /* atomic: the connection is gone */

    /*
     * Both counts begin with one of the export's own; teardown drops that and
     * then waits for the bottom half which whoever reaches zero schedules.
     */
    unsigned n_requests;        /* atomic: in fuse_co_process() */
    unsigned n_users;           /* atomic: see fuse_export_get() */
    BottomHalf *idle_bh, *unused_bh, *ended_bh;
    CoEvent idle, unused;       /* main thread */
};

/*
 * [queue] Carry out @req and return what fuse_op_co_run() does.  The one place
 * where requests of both transports enter the graph.
 */
int coroutine_fn fuse_co_process(FuseExport *exp, FuseRequest *req);

/*
 * [any] Something that outlives the call uses the export's memory: a request
 * in a coroutine, a ring entry that the kernel holds.
 */
void fuse_export_get(FuseExport *exp);
void fuse_export_put(FuseExport *exp);

/* [any] The connection is gone: unmounted or aborted. */
void fuse_export_connection_ended(FuseExport *exp);

#endif /* BLOCK_EXPORT_FUSE_INT_H */
