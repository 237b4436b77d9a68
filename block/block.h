/* SPDX-License-Identifier: MIT */
/*
 * The block layer as its users (exports, jobs, QMP) see it.
 *
 * Nodes (BlockDriverState) form a graph: a format or filter node has children,
 * a protocol node stands for a file.  Users enter through a BlockBackend, which
 * holds permissions on its root node and counts what is in flight.
 *
 * Threads: I/O functions (blk_co_preadv and so on) may be called in any
 * thread, inside a request begun with blk_co_begin_request().  Everything else
 * belongs to the main thread.  The graph changes only in a drained section.
 *
 * Offsets and lengths are bytes unless said otherwise; I/O functions return
 * 0 (or what is said) or -errno.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include "qapi/qapi-types.h"
#include "util/coroutine.h"
#include "util/error.h"
#include "util/iov.h"

typedef struct BlockDriverState BlockDriverState;
typedef struct BlockBackend BlockBackend;

/* What a parent does with a node, or lets others do. */
enum {
    BLK_PERM_CONSISTENT_READ = 1 << 0,
    BLK_PERM_WRITE           = 1 << 1,
    BLK_PERM_WRITE_UNCHANGED = 1 << 2,
    BLK_PERM_RESIZE          = 1 << 3,
    BLK_PERM_ALL             = (1 << 4) - 1,
};

typedef enum {
    BDRV_REQ_FUA         = 1 << 0,  /* on stable storage when it returns */
    BDRV_REQ_MAY_UNMAP   = 1 << 1,  /* write-zeroes may deallocate */
    BDRV_REQ_NO_FALLBACK = 1 << 2,  /* -ENOTSUP instead of writing buffers */
    BDRV_REQ_ZERO_WRITE  = 1 << 3,  /* no buffer: zeroes are written */
    BDRV_REQ_WRITE_COMPRESSED = 1 << 4, /* store it compressed */
    BDRV_REQ_GIVE_BACK   = 1 << 5,  /* MAY_UNMAP, also without discard=unmap:
                                       what a request has taken that failed */
} BdrvRequestFlags;

/* Result of a block status query. */
enum {
    BDRV_BLOCK_DATA         = 1 << 0,   /* reads come from storage */
    BDRV_BLOCK_ZERO         = 1 << 1,   /* reads as zeroes */
    BDRV_BLOCK_OFFSET_VALID = 1 << 2,   /* *map is an offset in *file */
    BDRV_BLOCK_ALLOCATED    = 1 << 3,   /* in a node asked, not below it */
    BDRV_BLOCK_EOF          = 1 << 4,   /* the range reaches the end */
    BDRV_BLOCK_RECURSE      = 1 << 5,   /* drivers: ask the child as well */
};

/* Largest request and largest image: as in the reference daemon. */
#define BDRV_MAX_LENGTH (INT64_MAX & ~(int64_t)((1 << 30) - 1))
#define BDRV_REQUEST_MAX_BYTES ((int64_t)INT32_MAX & ~511)

/* ---- nodes (main thread) ---- */

/*
 * Open a node and its children.  @options must name it (node-name) if
 * @need_name.  The monitor holds the reference until blockdev-del.
 * Returns NULL with an error, leaving nothing behind.
 */
BlockDriverState *coroutine_fn bdrv_co_open(const BlockdevOptions *options,
                                            bool need_name, Error **errp);

BlockDriverState *bdrv_find_node(const char *node_name);        /* or NULL */

/*
 * As bdrv_find_node(), by either name (each may be NULL); the error is
 * "Cannot find device='D' nor node-name='N'".
 */
BlockDriverState *bdrv_lookup_node(const char *device, const char *node_name,
                                   Error **errp);

void bdrv_ref(BlockDriverState *bs);

/*
 * Drop a reference; the last one flushes and closes the node.  NULL is fine.
 */
void coroutine_fn bdrv_co_unref(BlockDriverState *bs);

/* Close every node the monitor holds (at exit).  All exports are gone. */
void coroutine_fn bdrv_co_close_all(void);

/* [main thread] Some node's data did not all reach its file when it was closed;
 * what was wrong has been reported. */
extern bool bdrv_close_failed;

const char *bdrv_get_node_name(const BlockDriverState *bs);
const char *bdrv_get_format_name(const BlockDriverState *bs);
bool bdrv_is_read_only(const BlockDriverState *bs);

/* ---- users of nodes ---- */

/*
 * A user without a node.  @name says who it is in messages, such as
 * "block export 'exp'".
 */
BlockBackend *blk_new(const char *name, uint64_t perm, uint64_t shared_perm);

/*
 * Attach to @bs, which stays open for as long; fails if permissions conflict,
 * naming both users.
 */
bool coroutine_fn blk_co_attach(BlockBackend *blk, BlockDriverState *bs,
                                Error **errp);
bool coroutine_fn blk_co_set_perm(BlockBackend *blk, uint64_t perm,
                                  uint64_t shared_perm, Error **errp);

/*
 * Detach from the node (drained first) and free.  No request may be begun from
 * now on.  NULL is fine.
 */
void coroutine_fn blk_co_free(BlockBackend *blk);

BlockDriverState *blk_bs(const BlockBackend *blk);
void blk_set_writethrough(BlockBackend *blk, bool enable);

/*
 * [any thread] A request begins: waits while the node is drained.  All I/O
 * functions below are called between begin and end; a request may call
 * several.  This is the one place where in-flight is counted.
 */
void coroutine_fn blk_co_begin_request(BlockBackend *blk);
void blk_end_request(BlockBackend *blk);

/* [any thread] Requests between begin and end now. */
unsigned blk_in_flight(const BlockBackend *blk);

/* ---- I/O (any thread, in a request) ---- */

/* Exactly @qiov->size bytes at @offset; beyond the end is -EIO. */
int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset,
                               QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset,
                                QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset,
                                      int64_t bytes, BdrvRequestFlags flags);
int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset,
                                 int64_t bytes);
int coroutine_fn blk_co_flush(BlockBackend *blk);

/*
 * Change the length to exactly @offset; @errp has the reason.
 * BDRV_REQ_ZERO_WRITE: a new area reads as zeroes (a format may need that
 * said).
 */
int coroutine_fn blk_co_truncate(BlockBackend *blk, int64_t offset,
                                 PreallocMode prealloc,
                                 BdrvRequestFlags flags, Error **errp);

/*
 * What is at @offset: flags above, or -errno.  *@pnum: for how many bytes
 * (1..@bytes, or 0 at or past the end) this holds.
 */
int coroutine_fn blk_co_block_status(BlockBackend *blk, int64_t offset,
                                     int64_t bytes, int64_t *pnum);

int64_t blk_getlength(BlockBackend *blk);                   /* no waiting */
int64_t coroutine_fn blk_co_getlength(BlockBackend *blk);   /* asks the file */
int64_t coroutine_fn blk_co_get_allocated_file_size(BlockBackend *blk);

/* Alignment (a power of 2, >= 1) of offsets and lengths without detours. */
uint32_t blk_get_request_alignment(BlockBackend *blk);

/* Alignment of memory; what page-aligned buffers always satisfy. */
size_t blk_get_memory_alignment(BlockBackend *blk);

#endif /* BLOCK_BLOCK_H */
