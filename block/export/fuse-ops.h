/* SPDX-License-Identifier: MIT */
/*
 * The FUSE operations on one regular file whose contents are a block node.
 *
 * A request comes as header, operation argument and payload, wherever a
 * transport found them; its reply is written to the payload.  Nothing here
 * knows an fd or a ring.  All functions may run in any thread.
 */
#ifndef BLOCK_EXPORT_FUSE_OPS_H
#define BLOCK_EXPORT_FUSE_OPS_H

#include "block/block.h"
#include "block/export/fuse-kernel.h"

/*
 * Largest READ and WRITE, bytes, and so the size of every payload buffer: what
 * the kernel takes at its default fs.fuse.max_pages_limit (256 pages).
 */
#define FUSE_MAX_IO_BYTES (1024 * 1024)

/*
 * The kernel's limit on requests that nobody waits for (async direct I/O is
 * counted there): far above what queues can hold, so that it never throttles.
 */
#define FUSE_MAX_BACKGROUND 65535

/* So many interrupted requests are known at a time. */
#define FUSE_INTERRUPTED 64

/* The exported file: what all its requests share. */
typedef struct FuseFile {
    BlockBackend *blk;
    bool writable;
    bool growable;              /* writes past the end extend */
    bool resizable;             /* clients may change the length */
    bool allow_other;
    bool offer_uring;           /* accept FUSE_OVER_IO_URING at INIT */

    bool init_done;             /* set once, by INIT */
    uint64_t init_flags;        /* what INIT agreed on */

    CoMutex attr_lock;          /* length changes, and the fields below */
    uint32_t mode;              /* permission bits and S_IFREG; set atomically,
                                   so that writers see set-uid without it */
    uint32_t uid, gid;
    struct timespec atime, mtime, ctime;

    bool modified;              /* atomic: written since mtime was taken */
    unsigned open_count;        /* atomic: OPENs less RELEASEs */

    /*
     * Atomic: the numbers of requests whose clients got a signal, at a place
     * that the number says.  Forgotten when another one comes there.
     */
    uint64_t interrupted[FUSE_INTERRUPTED];
} FuseFile;

typedef struct FuseRequest {
    const struct fuse_in_header *in;
    const void *arg;            /* the operation's first argument */
    size_t arg_len;             /* bytes there: whatever the peer sent */
    void *payload;              /* further arguments in, reply out */
    size_t payload_len;         /* bytes in */
    size_t payload_size;        /* bytes the reply may take */
} FuseRequest;

/*
 * @blk is attached; owner is this process, mode as for a new export.  The file
 * is resizable.
 */
void fuse_file_init(FuseFile *file, BlockBackend *blk, bool writable,
                    bool growable, bool allow_other);

/*
 * Size in bytes of the fixed argument of @opcode: what a transport with one
 * contiguous message hands over as FuseRequest.arg, the rest being payload.
 */
size_t fuse_op_arg_size(uint32_t opcode);

/* False for requests that take no reply at all (FORGET). */
bool fuse_op_has_reply(uint32_t opcode);

/*
 * Carry out @req.  Returns the length of the reply's argument, which is at
 * req->payload, or -errno (in (-512, 0)) to reply without one.  INIT aside,
 * runs between blk_co_begin_request() and blk_end_request().
 */
int coroutine_fn fuse_op_co_run(FuseFile *file, FuseRequest *req);

/* fuse-init.c: INIT alone; does not wait.  Returns as fuse_op_co_run(). */
int fuse_init(FuseFile *file, FuseRequest *req);

/* Did the client of a request get a signal that ends it? */
bool fuse_op_client_killed(const FuseFile *file, const FuseRequest *req);

#endif /* BLOCK_EXPORT_FUSE_OPS_H */
