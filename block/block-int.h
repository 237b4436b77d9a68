/* SPDX-License-Identifier: MIT */
/*
 * The block layer as its drivers see it.
 *
 * A BlockDriver is a const table.  Its functions run in the thread that
 * submitted the request; open, close, permissions and reopen run in the main
 * thread, in a coroutine, with the node drained.
 *
 * Requests reach a driver already checked (0 <= offset, offset + bytes <=
 * length but for writes that BlockDriver.can_grow allows), cut to
 * bl.max_transfer and bl.max_iov, and aligned to bl.request_alignment, buffers
 * to bl.min_mem_alignment.  Where the length is no multiple of the alignment,
 * the last block is read and written whole: a driver reads zeroes past the end
 * of its file, and the core truncates the file again after such a write, if
 * the driver can_grow.
 * Drivers that set .passthrough get requests as they come, only checked.
 */
#ifndef BLOCK_BLOCK_INT_H
#define BLOCK_BLOCK_INT_H

#include "block/block.h"
#include "block/inflight.h"
#include "qapi/json.h"
#include "util/aio.h"
#include "util/queue.h"

/*
 * Most nodes one above the other.  Requests and opening go down by recursion,
 * on a coroutine's stack.
 */
#define BDRV_MAX_HEIGHT 256

typedef struct BdrvChild BdrvChild;
typedef struct BlockDriver BlockDriver;
struct BdrvCheckResult;
struct BdrvCheckHooks;

/* What a child is to its parent; decides its default permissions. */
typedef enum {
    BDRV_CHILD_DATA     = 1 << 0,   /* guest data */
    BDRV_CHILD_METADATA = 1 << 1,   /* the format's metadata */
    BDRV_CHILD_FILTERED = 1 << 2,   /* passes through unchanged */
    BDRV_CHILD_COW      = 1 << 3,   /* backing */
    BDRV_CHILD_PRIMARY  = 1 << 4,   /* bs->file: one at most */
    BDRV_CHILD_IMAGE    = BDRV_CHILD_DATA | BDRV_CHILD_METADATA
                          | BDRV_CHILD_PRIMARY,
} BdrvChildRole;

typedef struct BlockLimits {
    uint32_t request_alignment;     /* bytes, power of 2, >= 1 */
    uint32_t pdiscard_alignment;    /* bytes; 0 = request_alignment */
    uint32_t pwrite_zeroes_alignment;
    int64_t max_transfer;           /* bytes; 0 = BDRV_REQUEST_MAX_BYTES */
    int64_t max_pdiscard;
    int64_t max_pwrite_zeroes;
    size_t min_mem_alignment;       /* of buffers, bytes; 1: any will do */
    int max_iov;                    /* elements; 0 = IOV_MAX */
} BlockLimits;

/* What a driver tells about its image besides BlockDriverState. */
typedef struct BlockDriverInfo {
    int64_t cluster_size;           /* unit of allocation, bytes; 0: none */
    bool is_dirty;                  /* it was not closed cleanly */
    bool encrypted;
} BlockDriverInfo;

struct BlockDriver {
    const char *format_name;        /* "file", "raw", ... */
    BlockdevDriver driver;          /* the schema's value */
    size_t instance_size;           /* of bs->opaque, zeroed */
    bool is_filter;                 /* one child, same data */
    bool is_protocol;               /* no children: a file, a device */
    bool can_grow;                  /* writes past the end extend */
    bool passthrough;               /* its child checks and aligns */
    bool passthrough_reads;         /* the same, for reads alone */
    bool supports_backing;          /* what it has not is in bs->backing */

    /*
     * Supported bits of BdrvRequestFlags besides ZERO_WRITE.  FUA that a driver
     * lacks becomes a flush; MAY_UNMAP and NO_FALLBACK come only where the node
     * says discard=unmap and the driver supports them.
     */
    BdrvRequestFlags supported_write_flags;
    BdrvRequestFlags supported_zero_flags;
    BdrvRequestFlags supported_truncate_flags;

    /*
     * Open: the generic options are set; the driver opens its children with
     * bdrv_co_open_child() and sets bs->total_bytes, and bs->filename if a
     * plain name says all about the node.
     * On failure nothing of its own is left; children are closed by the core.
     */
    bool coroutine_fn (*bdrv_co_open)(BlockDriverState *bs,
                                      const BlockdevOptions *options,
                                      Error **errp);
    void coroutine_fn (*bdrv_co_close)(BlockDriverState *bs);

    /* Make an image as @options say.  Main thread.  NULL: can't. */
    bool coroutine_fn (*bdrv_co_create)(const BlockdevCreateOptions *options,
                                        Error **errp);

    int coroutine_fn (*bdrv_co_preadv)(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags);
    int coroutine_fn (*bdrv_co_pwritev)(BlockDriverState *bs, int64_t offset,
                                        int64_t bytes, QEMUIOVector *qiov,
                                        BdrvRequestFlags flags);
    /*
     * A write with BDRV_REQ_WRITE_COMPRESSED: whole clusters, or up to the end
     * of the image.  NULL: the node can't do that.
     */
    int coroutine_fn (*bdrv_co_pwritev_compressed)(BlockDriverState *bs,
                                                   int64_t offset,
                                                   int64_t bytes,
                                                   QEMUIOVector *qiov);
    /*
     * NULL or -ENOTSUP: the core writes zero buffers.  Comes for whole units of
     * bl.pwrite_zeroes_alignment, or for a part of one unit, which is a
     * multiple of bl.request_alignment at least.
     */
    int coroutine_fn (*bdrv_co_pwrite_zeroes)(BlockDriverState *bs,
                                              int64_t offset, int64_t bytes,
                                              BdrvRequestFlags flags);
    /* -ENOTSUP is no error for the user: discard is a hint. */
    int coroutine_fn (*bdrv_co_pdiscard)(BlockDriverState *bs, int64_t offset,
                                         int64_t bytes);
    /* Format: write cached metadata to the child.  Protocol: fsync. */
    int coroutine_fn (*bdrv_co_flush)(BlockDriverState *bs);
    int coroutine_fn (*bdrv_co_truncate)(BlockDriverState *bs, int64_t offset,
                                         PreallocMode prealloc,
                                         BdrvRequestFlags flags,
                                         Error **errp);
    /*
     * Flags of block.h.  0: the node has nothing there (its backing may).
     * ALLOCATED and EOF are added by the core where they follow.  RECURSE asks
     * it to look whether *@file has a hole at *@map.
     */
    int coroutine_fn (*bdrv_co_block_status)(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes,
                                             int64_t *pnum, int64_t *map,
                                             BlockDriverState **file);
    int64_t coroutine_fn (*bdrv_co_getlength)(BlockDriverState *bs);
    int64_t coroutine_fn (*bdrv_co_get_allocated_file_size)(
        BlockDriverState *bs);
    /* As bdrv_co_get_free_bytes().  NULL: ask the node's file. */
    int64_t coroutine_fn (*bdrv_co_get_free_bytes)(BlockDriverState *bs);

    /* Fill bs->bl (children's limits are merged in already). */
    void (*bdrv_refresh_limits)(BlockDriverState *bs);

    /*
     * What the node needs of child @c, given what its own parents hold
     * (@perm) and share (@shared).  NULL: bdrv_default_perms().
     */
    void (*bdrv_child_perm)(BlockDriverState *bs, BdrvChild *c,
                            BdrvChildRole role, uint64_t perm,
                            uint64_t shared, uint64_t *nperm,
                            uint64_t *nshared);

    /*
     * Permissions in three steps: check (may fail, changes nothing lasting),
     * then either set or abort.  file-posix takes its locks and reopens here.
     */
    bool coroutine_fn (*bdrv_co_check_perm)(BlockDriverState *bs,
                                            uint64_t perm, uint64_t shared,
                                            Error **errp);
    void coroutine_fn (*bdrv_co_set_perm)(BlockDriverState *bs, uint64_t perm,
                                          uint64_t shared);
    void coroutine_fn (*bdrv_co_abort_perm_update)(BlockDriverState *bs);

    /*
     * Requests that the driver delays go on at once (begin) until end, because
     * somebody waits for the node to become idle.  Nests.  May be NULL.
     */
    void (*bdrv_drain_begin)(BlockDriverState *bs);
    void (*bdrv_drain_end)(BlockDriverState *bs);

    /*
     * The node, or a user of it, is at the point @event of its code, in any
     * thread.  Does not wait.  For blkdebug; NULL elsewhere.
     */
    void (*bdrv_debug_event)(BlockDriverState *bs, BlkdebugEvent event);

    /*
     * Add the driver's own options to @opts, for the node's "json:" name (which
     * nodes without bs->filename get).  May be NULL.
     */
    void (*bdrv_gather_options)(BlockDriverState *bs, QDict *opts);

    /* Extra members for queries; the caller frees.  May be NULL. */
    ImageInfoSpecific *(*bdrv_get_specific_info)(BlockDriverState *bs);
    BlockStatsSpecific *(*bdrv_get_specific_stats)(BlockDriverState *bs);
    /* @bdi is zeroed. */
    void (*bdrv_get_info)(BlockDriverState *bs, BlockDriverInfo *bdi);
    SnapshotInfoList *(*bdrv_snapshot_list)(BlockDriverState *bs);

    /*
     * Can the image hold one more bitmap (block/dirty-bitmap.h), which it is to
     * store on closing?  NULL: it can't hold any.  Main thread.
     */
    bool (*bdrv_can_store_bitmap)(BlockDriverState *bs, const char *name,
                                  uint64_t granularity, Error **errp);
    /* Has the image one of that name, whether the node can use it or not? */
    bool (*bdrv_has_stored_bitmap)(BlockDriverState *bs, const char *name);
    /* Drop it from the image.  Main thread, drained. */
    bool coroutine_fn (*bdrv_co_remove_stored_bitmap)(BlockDriverState *bs,
                                                      const char *name,
                                                      Error **errp);

    /*
     * Check the image, and repair it as @fix says (block/check.h).  Main
     * thread, node drained.  NULL: can't.
     */
    int coroutine_fn (*bdrv_co_check)(BlockDriverState *bs,
                                      struct BdrvCheckResult *res, int fix,
                                      const struct BdrvCheckHooks *hooks,
                                      Error **errp);

    /* Snapshots in the image (block/snapshot.h).  Main thread, drained. */
    bool coroutine_fn (*bdrv_co_snapshot_create)(BlockDriverState *bs,
                                                 const char *name,
                                                 const char *id,
                                                 Error **errp);
    bool coroutine_fn (*bdrv_co_snapshot_delete)(BlockDriverState *bs,
                                                 const char *id,
                                                 const char *name,
                                                 Error **errp);
    bool coroutine_fn (*bdrv_co_snapshot_apply)(BlockDriverState *bs,
                                                const char *id_or_name,
                                                Error **errp);
};

/* An edge: @parent uses node @bs as its child @name. */
struct BdrvChild {
    BlockDriverState *bs;
    char *name;                         /* "file", "backing", "root" */
    BdrvChildRole role;                 /* 0 for a BlockBackend's root */
    BlockDriverState *parent;           /* or NULL: ... */
    BlockBackend *blk;                  /* ... a user */
    uint64_t perm, shared_perm;
    uint64_t new_perm, new_shared;      /* while an update is under way */
    TAILQ_ENTRY(BdrvChild) next;           /* parent->children */
    TAILQ_ENTRY(BdrvChild) next_parent;    /* bs->parents */
};

typedef struct TrackedRequest TrackedRequest;

struct BlockDriverState {
    const BlockDriver *drv;
    void *opaque;                       /* drv->instance_size bytes */
    char node_name[32];
    char *filename;                     /* for messages and queries */
    BdrvChild *file;                    /* the PRIMARY or FILTERED child */
    BdrvChild *backing;                 /* the COW child */
    BlockLimits bl;

    /* What the image says of its backing; NULL where it says nothing. */
    char *backing_name;                 /* as it stands there */
    char *backing_full_name;            /* from the image's directory on */
    char *backing_format;
    bool backing_overridden;            /* an option says otherwise */

    /*
     * Length in bytes, atomic.  A node with length_follows_file has none of
     * its own: it ends where its file ends and begins file_offset into it.
     */
    int64_t total_bytes;
    bool length_follows_file;
    int64_t file_offset;

    /* Generic options, as resolved (own, else inherited, else default). */
    bool read_only, auto_read_only, force_share;
    bool cache_direct, cache_no_flush;
    bool discard_unmap;
    BlockdevDetectZeroesOptions detect_zeroes;

    /*
     * Writes in flight.  Those in writes run untracked; once serialising is
     * not 0 new ones queue in tracked instead (block/track.c).
     */
    InFlight writes;
    WaitSet writes_idle;
    unsigned serialising;               /* atomic */
    WaitSet tracked_done;               /* taken before tracked_lock */
    pthread_mutex_t tracked_lock;
    TAILQ_HEAD(, TrackedRequest) tracked;

    int64_t wr_highest_offset;          /* atomic; end of the highest write */
    struct BdrvDirtyBitmap *dirty_bitmaps;  /* block/dirty-bitmap.h */
    struct BlockAcct *retired_acct;     /* of users that have left */

    /* The rest belongs to the main thread. */
    uint64_t perm, shared_perm;         /* cumulated over parents */
    uint64_t new_perm, new_shared;      /* while an update is under way */
    int refcnt;
    int height;                         /* longest way down, edges */
    BlockDriverState *opening_for;      /* the parent that is opened with us */
    bool opened;                        /* the driver has something to close */
    bool monitor_owned;
    bool implicit;                      /* named by the core: '#block123' */
    bool loss_told;                     /* blockdev-del said what it costs */
    int drain_count;                    /* own, plus children drained */
    uint64_t walk;                      /* bdrv_walk_visit()'s */
    GPtrArray *storage;                 /* bdrv_storage()'s; or NULL */
    TAILQ_HEAD(, BdrvChild) children, parents;  /* newest parent first */
    TAILQ_ENTRY(BlockDriverState) next;         /* all nodes, newest first */
};

/*
 * Drivers are listed in one table, block/drivers.c.
 */
extern const BlockDriver *const bdrv_drivers[];

/*
 * Open or look up what @ref says and make it @bs's child.  Options that an
 * inline child does not set are inherited from @bs.  NULL with an error.
 */
BdrvChild *coroutine_fn bdrv_co_open_child(BlockDriverState *bs,
                                           const BlockdevRef *ref,
                                           const char *name,
                                           BdrvChildRole role, Error **errp);

/*
 * block/backing.c: open the backing of @bs, which is being opened: bs->backing,
 * or NULL if there is none.  @ref is the option (null or "": no backing); if it
 * is NULL, what the image says counts: a path, relative to the image's own
 * file, and a format.  Other images never tell us to use a protocol, and with
 * @safe_image nothing at all.  false with an error.
 */
bool coroutine_fn bdrv_co_open_backing(BlockDriverState *bs,
                                       const BlockdevRefOrNull *ref,
                                       const char *image_backing_file,
                                       const char *image_backing_format,
                                       bool safe_image, Error **errp);

/*
 * The same for the file with the guest's data, which must exist: *@child is
 * the new child "data-file".  What lies in bs->file is from now on only
 * metadata.
 */
bool coroutine_fn bdrv_co_open_data_file(BlockDriverState *bs,
                                         const BlockdevRef *ref,
                                         const char *image_data_file,
                                         bool safe_image, BdrvChild **child,
                                         Error **errp);

/* What the driver tells, or that of what is below a filter or raw. */
bool bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *bdi);

/* Can it store data compressed, itself or below? */
bool bdrv_supports_compressed(const BlockDriverState *bs);

/*
 * The format of the image that begins with the BDRV_PROBE_SIZE bytes @head, the
 * file being continued with zeroes: "raw" if it is none that is known.
 */
#define BDRV_PROBE_SIZE 512
const char *bdrv_probe_format(const uint8_t *head);

/* What queries tell of the image; backing-image is left out. */
ImageInfo *coroutine_fn bdrv_co_image_info(BlockDriverState *bs);

/* The node with what @bs itself has not, or NULL. */
static inline BlockDriverState *bdrv_backing_bs(const BlockDriverState *bs)
{
    return bs->backing ? bs->backing->bs : NULL;
}

void bdrv_default_perms(BlockDriverState *bs, BdrvChild *c,
                        BdrvChildRole role, uint64_t perm, uint64_t shared,
                        uint64_t *nperm, uint64_t *nshared);

/*
 * Tell a node that its user, or its own generic part, is at the point @event:
 * blkdebug acts on it, for all others this is one load.  [any thread]
 */
static inline void bdrv_debug_event(BlockDriverState *bs, BlkdebugEvent event)
{
    if (__builtin_expect(bs->drv->bdrv_debug_event != NULL, 0)) {
        bs->drv->bdrv_debug_event(bs, event);
    }
}

/* The same for a driver's child, which may be NULL. */
static inline void coroutine_fn bdrv_co_debug_event(BdrvChild *child,
                                                    BlkdebugEvent event)
{
    if (child) {
        bdrv_debug_event(child->bs, event);
    }
}

#define BLKDBG_EVENT(child, event) bdrv_co_debug_event(child, event)

/* I/O on a child: checks, alignment and padding, splitting, then its driver. */
int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset,
                                QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset,
                                 QEMUIOVector *qiov, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset,
                                       int64_t bytes, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset,
                                  int64_t bytes);
int coroutine_fn bdrv_co_flush(BlockDriverState *bs);
int coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t offset,
                                  PreallocMode prealloc,
                                  BdrvRequestFlags flags, Error **errp);

/*
 * The same for a part of a vector: @bytes from @qiov_offset on.  Nothing is
 * allocated if the part is the whole, or lies in one element.
 */
int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset,
                                     int64_t bytes, QEMUIOVector *qiov,
                                     size_t qiov_offset,
                                     BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwritev_part(BdrvChild *child, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      size_t qiov_offset,
                                      BdrvRequestFlags flags);

/* The same for a buffer. */
int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes,
                               void *buf, BdrvRequestFlags flags);
int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset,
                                int64_t bytes, const void *buf,
                                BdrvRequestFlags flags);

/*
 * Read what @bs has not: from its backing, and zeroes past the end of that or
 * without one.
 */
int coroutine_fn bdrv_co_read_backing(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, QEMUIOVector *qiov,
                                      size_t qiov_offset);

/*
 * Flags of block.h, and for how many bytes they hold in *@pnum (1..@bytes, or 0
 * at or past the end): what a read of @bs gets, wherever it comes from.  *@map
 * and *@file (may be NULL) say where, if the flags have OFFSET_VALID.
 */
int coroutine_fn bdrv_co_block_status(BlockDriverState *bs, int64_t offset,
                                      int64_t bytes, int64_t *pnum,
                                      int64_t *map, BlockDriverState **file);

/*
 * The same, asking only nodes of the backing chain above @base (NULL: all):
 * without ALLOCATED it is in none of them.
 */
int coroutine_fn bdrv_co_block_status_above(BlockDriverState *bs,
                                            BlockDriverState *base,
                                            int64_t offset, int64_t bytes,
                                            int64_t *pnum, int64_t *map,
                                            BlockDriverState **file);

/* True if a read of @bs is known to get zeroes; past its end it does. */
bool coroutine_fn bdrv_co_is_zero_fast(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes);

/* Asks the file, where it can have changed behind our back. */
int64_t coroutine_fn bdrv_co_getlength(BlockDriverState *bs);
int64_t coroutine_fn bdrv_co_get_allocated_file_size(BlockDriverState *bs);

/*
 * Bytes that the storage below can take in addition, INT64_MAX where it does
 * not say: for requests that may ask for more than there is, before they fill
 * all that others need.  Whoever was told that there is room may yet fail.
 */
int64_t coroutine_fn bdrv_co_get_free_bytes(BlockDriverState *bs);

/* The length as known, without waiting. */
static inline int64_t bdrv_getlength(const BlockDriverState *bs)
{
    int64_t skip = 0, len;

    while (bs->length_follows_file) {
        skip += bs->file_offset;
        bs = bs->file->bs;
    }
    len = __atomic_load_n(&bs->total_bytes, __ATOMIC_RELAXED);
    return len > skip ? len - skip : 0;
}

/* ---- between the core's files ---- */

typedef TAILQ_HEAD(BdrvNodeList, BlockDriverState) BdrvNodeList;
extern BdrvNodeList bdrv_all_nodes;         /* completely open, newest first */

/*
 * Held by whoever changes the graph or asks it to stay as it is across a
 * yield, and by commands that change what is in an image (snapshots, bitmaps,
 * its size), which so wait for each other.  Always in the main thread; requests
 * in flight never take it.
 */
void coroutine_fn bdrv_graph_co_lock(void);
void bdrv_graph_unlock(void);

/* As the functions without _locked, the graph lock being held. */
BlockDriverState *coroutine_fn bdrv_co_open_locked(
    const BlockdevOptions *options, BlockDriverState *parent,
    BdrvChildRole role, bool need_name, Error **errp);

/* The driver named @format, or NULL. */
const BlockDriver *bdrv_find_format(const char *format);

void coroutine_fn bdrv_co_unref_locked(BlockDriverState *bs);

/*
 * A node may be used by several others, and so be reached in more ways than
 * anybody has time for: walks visit each node once.  True if @bs is new to the
 * walk that bdrv_walk_begin() began last, of which there is one at a time.
 */
void bdrv_walk_begin(void);
bool bdrv_walk_visit(BlockDriverState *bs);

/*
 * The nodes that hold what @bs does: itself first, each once, users before what
 * they use.  NULL: none is reached in two ways, so its children will do.  [any
 * thread]
 */
static inline const GPtrArray *bdrv_storage(const BlockDriverState *bs)
{
    return bs->storage;
}

/*
 * Connect and disconnect an edge.  Attaching drops nothing on failure but the
 * edge and takes a reference on success; detaching frees the edge, not the
 * reference.  @parent or @blk is the user.
 */
BdrvChild *coroutine_fn bdrv_co_attach_edge(BlockDriverState *bs,
                                            BlockDriverState *parent,
                                            BlockBackend *blk,
                                            const char *name,
                                            BdrvChildRole role,
                                            uint64_t perm, uint64_t shared,
                                            Error **errp);
void coroutine_fn bdrv_co_detach_edge(BdrvChild *child);

/* block/perm.c: change what a user's edge wants. */
bool coroutine_fn bdrv_co_child_set_perm(BdrvChild *child, uint64_t perm,
                                         uint64_t shared, Error **errp);

/*
 * Recompute the permissions of @bs and all below; an error changes nothing.
 * bdrv_co_relax_perms() is for when a user has gone: rights are only given up,
 * and that goes through whatever the drivers say.
 */
bool coroutine_fn bdrv_co_refresh_perms(BlockDriverState *bs, Error **errp);
void coroutine_fn bdrv_co_relax_perms(BlockDriverState *bs);
char *bdrv_perm_names(uint64_t perm);

/* block/drain.c */
extern WaitSet bdrv_drain_waiters;              /* woken as requests end */

/*
 * From begin to end no user's request is inside the part of the graph that
 * leads to @bs, and none enters.  Begin waits for those in flight.  Nests.
 */
void coroutine_fn bdrv_co_drained_begin_locked(BlockDriverState *bs);
void bdrv_drained_end(BlockDriverState *bs);

void bdrv_drain_attach(BdrvChild *child);       /* the edge was just added */
void bdrv_drain_detach(BdrvChild *child);       /* it is about to go */

/*
 * [main thread] Data of @bs did not reach its file as it was closed: tell by
 * stderr, by event and, in the end, by exit status.  Takes @err.
 */
void bdrv_report_loss(BlockDriverState *bs, Error *err);

/* block/block-backend.c: what the graph needs to know of a user. */
const char *blk_name(const BlockBackend *blk);
BdrvChild *blk_root(const BlockBackend *blk);
void blk_quiesce(BlockBackend *blk);
void blk_unquiesce(BlockBackend *blk);

/*
 * block/track.c: a write to [@offset, @end) begins.  A serialising one waits
 * until no other write overlaps it, and lets none in.  It usually costs one
 * atomic operation.
 */
struct TrackedRequest {
    int64_t offset, end;
    bool serialising;
    bool listed;                        /* in bs->tracked, else counted */
    BlockDriverState *bs;
    TAILQ_ENTRY(TrackedRequest) next;
};
void coroutine_fn track_co_begin(BlockDriverState *bs, TrackedRequest *req,
                                 int64_t offset, int64_t end,
                                 bool serialising);

/*
 * The same for a write, not serialising, that its driver may extend to the end
 * of a cluster if it reaches the end of the disk: where that is stays so.
 */
void coroutine_fn track_co_begin_to_end(BlockDriverState *bs,
                                        TrackedRequest *req, int64_t offset,
                                        int64_t end);
void track_end(TrackedRequest *req);

/*
 * 0 or -errno: may be written up to @end?  Asked again once a write is tracked,
 * when the length stays: it may have waited for who has cut the disk.
 */
static inline int bdrv_check_end(const BlockDriverState *bs, int64_t end)
{
    return end > bdrv_getlength(bs) && !bs->drv->can_grow ? -EIO : 0;
}

/*
 * block/align.c: checked requests of drivers that are not passthrough, cut,
 * padded and bounced as the driver needs.
 */
int coroutine_fn bdrv_co_do_preadv(BlockDriverState *bs, int64_t offset,
                                   int64_t bytes, QEMUIOVector *qiov,
                                   BdrvRequestFlags flags);
int coroutine_fn bdrv_co_do_pwritev(BlockDriverState *bs, int64_t offset,
                                    int64_t bytes, QEMUIOVector *qiov,
                                    BdrvRequestFlags flags);

/* block/zeroes.c: the same for zeroes. */
int coroutine_fn bdrv_co_do_pwrite_zeroes(BlockDriverState *bs,
                                          int64_t offset, int64_t bytes,
                                          BdrvRequestFlags flags);

/* Let @func write [@offset, @offset + @bytes) piece by piece, from zeroes. */
typedef int coroutine_fn BdrvWriteFunc(BlockDriverState *bs, int64_t offset,
                                       int64_t bytes, QEMUIOVector *qiov,
                                       BdrvRequestFlags flags);
int coroutine_fn bdrv_co_write_zero_buffers(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            BdrvWriteFunc *func,
                                            BdrvRequestFlags flags);

/*
 * For bdrv_co_check_perm of filters whose alignment is coarser than their
 * child's: who writes, but must not resize, needs an image of whole blocks.
 */
bool bdrv_check_length_aligned(BlockDriverState *bs, uint64_t perm,
                               Error **errp);

/*
 * A write up to @end has succeeded: the length grows, never shrinks.  Called
 * inside the tracked request, so that no truncation comes in between.
 */
void bdrv_note_write(BlockDriverState *bs, int64_t end);

/* What a request's offset and length may be at all. */
static inline bool bdrv_range_ok(int64_t offset, int64_t bytes)
{
    return offset >= 0 && bytes >= 0 && bytes <= BDRV_MAX_LENGTH
           && offset <= BDRV_MAX_LENGTH - bytes;
}

static inline int64_t bdrv_align_down(int64_t n, int64_t align)
{
    return n & ~(align - 1);
}

static inline int64_t bdrv_align_up(int64_t n, int64_t align)
{
    return (n + align - 1) & ~(align - 1);
}

/* The same with a unit that need not be a power of 2 [any] */
static inline int64_t bdrv_unit_down(int64_t n, int64_t unit)
{
    return n - n % unit;
}

static inline int64_t bdrv_unit_up(int64_t n, int64_t unit)
{
    return bdrv_unit_down(n + unit - 1, unit);
}

#endif /* BLOCK_BLOCK_INT_H */
