/* SPDX-License-Identifier: MIT */
/*
 * The node graph: opening, naming, connecting and closing nodes.
 *
 * Main thread.  Whatever changes the graph holds the graph lock from its first
 * look to its last change, because opening a file and draining may yield.  A
 * node enters the list of all nodes when it is completely open, so that nobody
 * finds a half-made one; a reference can therefore never lead back to its own
 * node, and the graph has no cycles.
 */
#include "block/block-int.h"

#include <string.h>
#include "block/accounting.h"
#include "block/dirty-bitmap.h"
#include "qapi/event.h"
#include "util/ident.h"

BdrvNodeList bdrv_all_nodes = TAILQ_HEAD_INITIALIZER(bdrv_all_nodes);

static CoMutex graph_lock = {
    .waiters = STAILQ_HEAD_INITIALIZER(graph_lock.waiters),
};

void coroutine_fn bdrv_graph_co_lock(void)
{
    co_mutex_lock(&graph_lock);
}

void bdrv_graph_unlock(void)
{
    co_mutex_unlock(&graph_lock);
}

/* ---- names ---- */

BlockDriverState *bdrv_find_node(const char *node_name)
{
    BlockDriverState *bs;

    TAILQ_FOREACH(bs, &bdrv_all_nodes, next) {
        if (!strcmp(bs->node_name, node_name)) {
            return bs;
        }
    }
    return NULL;
}

BlockDriverState *bdrv_lookup_node(const char *device, const char *node_name,
                                   Error **errp)
{
    BlockDriverState *bs = NULL;

    /* No node has a device here, but names of nodes are found by either. */
    if (node_name) {
        bs = bdrv_find_node(node_name);
    }
    if (!bs) {
        error_setg(errp, "Cannot find device='%s' nor node-name='%s'",
                   device ? device : "", node_name ? node_name : "");
    }
    return bs;
}

static bool check_node_name(const char *name, Error **errp)
{
    if (!ident_wellformed(name)) {
        error_setg(errp, "Invalid node-name: '%s'", name);
        return false;
    }
    if (bdrv_find_node(name)) {
        error_setg(errp, "Duplicate nodes with node-name='%s'", name);
        return false;
    }
    if (strlen(name) >= sizeof(((BlockDriverState *)0)->node_name)) {
        error_setg(errp, "Node name too long");
        return false;
    }
    return true;
}

static void set_implicit_name(BlockDriverState *bs)
{
    static unsigned counter;

    do {
        g_snprintf(bs->node_name, sizeof(bs->node_name), "#block%03u",
                   counter++);
    } while (bdrv_find_node(bs->node_name));
    bs->implicit = true;
}

const char *bdrv_get_node_name(const BlockDriverState *bs)
{
    return bs->node_name;
}

const char *bdrv_get_format_name(const BlockDriverState *bs)
{
    return bs->drv->format_name;
}

bool bdrv_is_read_only(const BlockDriverState *bs)
{
    return bs->read_only;
}

bool bdrv_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
    *bdi = (BlockDriverInfo) { 0 };
    while (!bs->drv->bdrv_get_info && !bs->drv->supports_backing && bs->file) {
        bs = bs->file->bs;
    }
    if (!bs->drv->bdrv_get_info) {
        return bs->drv->driver == BLOCKDEV_DRIVER_FILE
               || bs->drv->driver == BLOCKDEV_DRIVER_HOST_DEVICE;
    }
    bs->drv->bdrv_get_info(bs, bdi);
    return true;
}

bool bdrv_supports_compressed(const BlockDriverState *bs)
{
    while (bs->drv->is_filter && bs->drv->passthrough) {
        bs = bs->file->bs;
    }
    return bs->drv->bdrv_co_pwritev_compressed;
}

/* ---- walks ---- */

static uint64_t last_walk;

void bdrv_walk_begin(void)
{
    last_walk++;
}

bool bdrv_walk_visit(BlockDriverState *bs)
{
    bool is_new = bs->walk != last_walk;

    bs->walk = last_walk;
    return is_new;
}

/* Append @bs and its storage, users last.  True if something comes twice. */
static bool list_storage(BlockDriverState *bs, GPtrArray *nodes)
{
    bool twice = false;
    BdrvChild *c;

    TAILQ_FOREACH(c, &bs->children, next) {
        if (c->role & BDRV_CHILD_COW) {
            continue;
        }
        if (!bdrv_walk_visit(c->bs)) {
            twice = true;
        } else {
            twice |= list_storage(c->bs, nodes);
        }
    }
    g_ptr_array_add(nodes, bs);
    return twice;
}

/* The children are complete, and stay what they are until the node goes. */
static void find_storage(BlockDriverState *bs)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();

    bdrv_walk_begin();
    if (!list_storage(bs, nodes)) {
        return;
    }
    bs->storage = g_ptr_array_sized_new(nodes->len);
    while (nodes->len) {
        g_ptr_array_add(bs->storage,
                        g_ptr_array_steal_index(nodes, nodes->len - 1));
    }
}

/* ---- edges ---- */

BdrvChild *coroutine_fn bdrv_co_attach_edge(BlockDriverState *bs,
                                            BlockDriverState *parent,
                                            BlockBackend *blk,
                                            const char *name,
                                            BdrvChildRole role,
                                            uint64_t perm, uint64_t shared,
                                            Error **errp)
{
    BdrvChild *child = g_new0(BdrvChild, 1);
    bool ok;

    child->bs = bs;
    child->name = g_strdup(name);
    child->role = role;
    child->parent = parent;
    child->blk = blk;
    child->shared_perm = child->new_shared = BLK_PERM_ALL;

    if (parent && bs->height + 1 > BDRV_MAX_HEIGHT) {
        error_setg(errp, "Node '%s' has too many nodes below it (more than "
                   "%d, one above the other)", parent->node_name,
                   BDRV_MAX_HEIGHT);
        g_free(child->name);
        g_free(child);
        return NULL;
    }
    /* A new user has no requests, and the others' do not look at him. */
    if (parent) {
        bdrv_co_drained_begin_locked(bs);
    }
    TAILQ_INSERT_HEAD(&bs->parents, child, next_parent);
    if (parent) {
        TAILQ_INSERT_TAIL(&parent->children, child, next);
        parent->height = MAX(parent->height, bs->height + 1);
    }
    bdrv_drain_attach(child);
    bdrv_ref(bs);

    if (parent) {
        ok = bdrv_co_refresh_perms(parent, errp);
    } else {
        ok = bdrv_co_child_set_perm(child, perm, shared, errp);
    }
    if (!ok) {
        bdrv_co_detach_edge(child);
        child = NULL;
    }
    if (parent) {
        bdrv_drained_end(bs);
    }
    if (!child) {
        /* The caller has a reference: this is not the last one. */
        bs->refcnt--;
    }
    return child;
}

void coroutine_fn bdrv_co_detach_edge(BdrvChild *child)
{
    BlockDriverState *bs = child->bs;
    BlockDriverState *parent = child->parent;
    BlockBackend *blk = child->blk;
    bool drain;

    /* A user who has no request inside can go without the others' waiting. */
    if (!parent) {
        blk_quiesce(blk);
    }
    drain = parent || blk_in_flight(blk) > 0;
    if (drain) {
        bdrv_co_drained_begin_locked(bs);
    }
    bdrv_drain_detach(child);
    TAILQ_REMOVE(&bs->parents, child, next_parent);
    if (parent) {
        TAILQ_REMOVE(&parent->children, child, next);
        if (parent->file == child) {
            parent->file = NULL;
            parent->length_follows_file = false;
        }
        if (parent->backing == child) {
            parent->backing = NULL;
        }
    }
    bdrv_co_relax_perms(bs);
    if (drain) {
        bdrv_drained_end(bs);
    }
    if (!parent) {
        blk_unquiesce(blk);
    }
    g_free(child->name);
    g_free(child);
}

BdrvChild *coroutine_fn bdrv_co_open_child(BlockDriverState *bs,
                                           const BlockdevRef *ref,
                                           const char *name,
                                           BdrvChildRole role, Error **errp)
{
    BlockDriverState *child_bs;
    BdrvChild *child;

    if (ref->type == QTYPE_QSTRING) {
        child_bs = bdrv_lookup_node(ref->u.reference, ref->u.reference, errp);
        if (child_bs) {
            bdrv_ref(child_bs);
        }
    } else {
        child_bs = bdrv_co_open_locked(&ref->u.definition, bs, role, false,
                                       errp);
    }
    if (!child_bs) {
        return NULL;
    }

    child = bdrv_co_attach_edge(child_bs, bs, NULL, name, role, 0,
                                BLK_PERM_ALL, errp);
    /* The edge has a reference of its own. */
    bdrv_co_unref_locked(child_bs);
    if (!child) {
        return NULL;
    }
    if (role & BDRV_CHILD_COW) {
        bs->backing = child;
    } else if (role & (BDRV_CHILD_PRIMARY | BDRV_CHILD_FILTERED)) {
        bs->file = child;
    }
    return child;
}

/* ---- opening ---- */

static const BlockDriver *find_driver(BlockdevDriver driver)
{
    for (int i = 0; bdrv_drivers[i]; i++) {
        if (bdrv_drivers[i]->driver == driver) {
            return bdrv_drivers[i];
        }
    }
    return NULL;
}

/* Own value, else the parent's, else the default. */
static bool set_generic_options(BlockDriverState *bs, const BlockdevOptions *o,
                                const BlockDriverState *parent,
                                BdrvChildRole role, Error **errp)
{
    bool backing = role & BDRV_CHILD_COW;

    if (o->has_read_only) {
        bs->read_only = o->read_only;
    } else {
        bs->read_only = parent && (backing || parent->read_only);
    }
    if (o->has_auto_read_only) {
        bs->auto_read_only = o->auto_read_only;
    } else {
        bs->auto_read_only = parent && !backing && parent->auto_read_only;
    }
    bs->force_share = o->has_force_share ? o->force_share
                                         : parent && parent->force_share;
    bs->cache_direct = o->cache && o->cache->has_direct
                       ? o->cache->direct : parent && parent->cache_direct;
    bs->cache_no_flush = o->cache && o->cache->has_no_flush
                         ? o->cache->no_flush
                         : parent && parent->cache_no_flush;

    /* What a format or filter lets through, its file shall do. */
    bs->discard_unmap = o->has_discard
                        ? o->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP
                        : parent && !backing;
    bs->detect_zeroes = o->has_detect_zeroes
                        ? o->detect_zeroes
                        : BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;

    if (bs->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP
        && !bs->discard_unmap) {
        error_setg(errp, "setting detect-zeroes to unmap is not allowed "
                   "without setting discard operation to unmap");
        return false;
    }
    if (bs->force_share && !bs->read_only) {
        error_setg(errp, "force-share=on can only be used with read-only "
                   "images");
        return false;
    }
    return true;
}

const BlockDriver *bdrv_find_format(const char *format)
{
    for (int i = 0; bdrv_drivers[i]; i++) {
        if (!strcmp(bdrv_drivers[i]->format_name, format)) {
            return bdrv_drivers[i];
        }
    }
    return NULL;
}

static BlockDriverState *node_new(const BlockDriver *drv)
{
    BlockDriverState *bs = g_new0(BlockDriverState, 1);

    bs->drv = drv;
    bs->opaque = g_malloc0(drv->instance_size);
    bs->refcnt = 1;
    bs->shared_perm = bs->new_shared = BLK_PERM_ALL;
    bs->retired_acct = g_new0(BlockAcct, 1);
    TAILQ_INIT(&bs->children);
    TAILQ_INIT(&bs->parents);
    TAILQ_INIT(&bs->tracked);
    pthread_mutex_init(&bs->tracked_lock, NULL);
    wait_set_init(&bs->writes_idle);
    wait_set_init(&bs->tracked_done);
    inflight_init(&bs->writes, &bs->writes_idle);
    return bs;
}

static void coroutine_fn node_co_free(BlockDriverState *bs)
{
    BdrvChild *child;

    g_assert(TAILQ_EMPTY(&bs->parents));
    while ((child = TAILQ_FIRST(&bs->children))) {
        BlockDriverState *child_bs = child->bs;

        bdrv_co_detach_edge(child);
        bdrv_co_unref_locked(child_bs);
    }

    bdrv_dirty_bitmaps_free(bs);
    inflight_deinit(&bs->writes);
    wait_set_deinit(&bs->writes_idle);
    wait_set_deinit(&bs->tracked_done);
    pthread_mutex_destroy(&bs->tracked_lock);
    g_clear_pointer(&bs->storage, g_ptr_array_unref);
    g_free(bs->retired_acct);
    g_free(bs->backing_name);
    g_free(bs->backing_full_name);
    g_free(bs->backing_format);
    g_free(bs->filename);
    g_free(bs->opaque);
    g_free(bs);
}

static void refresh_limits(BlockDriverState *bs)
{
    BlockLimits *bl = &bs->bl;
    BdrvChild *c;

    if (bs->drv->passthrough && bs->file) {
        *bl = bs->file->bs->bl;
    }
    TAILQ_FOREACH(c, &bs->children, next) {
        bl->min_mem_alignment = MAX(bl->min_mem_alignment,
                                    c->bs->bl.min_mem_alignment);
    }
    bl->request_alignment = MAX(bl->request_alignment, 1);
    bl->min_mem_alignment = MAX(bl->min_mem_alignment, 1);
    if (bs->drv->bdrv_refresh_limits) {
        bs->drv->bdrv_refresh_limits(bs);
    }
    g_assert((bl->request_alignment & (bl->request_alignment - 1)) == 0);
    g_assert(bl->request_alignment > 0);
}

/* ---- the "json:" name ---- */

/* Longest name; more nodes than that certainly make a longer one. */
#define NAME_MAX_CHARS 4095
#define NAME_MAX_NODES 256

/* Everything it is made of, up to *@left nodes, one for each way to them. */
static QDict *full_options(BlockDriverState *bs, unsigned *left)
{
    QDict *opts = qdict_new();
    BdrvChild *child;

    qdict_put_str(opts, "driver", bs->drv->format_name);
    if (bs->drv->bdrv_gather_options) {
        bs->drv->bdrv_gather_options(bs, opts);
    } else if (bs->drv->is_protocol && bs->filename) {
        qdict_put_str(opts, "filename", bs->filename);
    }
    TAILQ_FOREACH(child, &bs->children, next) {
        /* What the image says anyway is left out. */
        if ((child != bs->backing || bs->backing_overridden) && *left > 0) {
            --*left;
            qdict_put(opts, child->name, full_options(child->bs, left));
        }
    }
    if (bs->backing_overridden && !bs->backing) {
        qdict_put(opts, "backing", qnull_new());
    }
    return opts;
}

static char *full_name(BlockDriverState *bs)
{
    unsigned left = NAME_MAX_NODES;
    g_autoptr(QDict) opts = full_options(bs, &left);
    g_autoptr(GString) name = g_string_new("json:");

    qobject_append_json(name, QOBJECT(opts), NULL, SIZE_MAX);
    if (name->len > NAME_MAX_CHARS) {
        g_string_truncate(name, NAME_MAX_CHARS - strlen("..."));
        g_string_append(name, "...");
    }
    return g_strdup(name->str);
}

/* A format node without options of its own is called like its file. */
static void set_filename(BlockDriverState *bs)
{
    g_autoptr(QDict) own = qdict_new();

    if (bs->drv->bdrv_gather_options) {
        bs->drv->bdrv_gather_options(bs, own);
    }
    if (bs->drv->supports_backing && !bs->backing_overridden
        && qdict_size(own) == 0 && !bs->file->bs->file) {
        bs->filename = g_strdup(bs->file->bs->filename);
        return;
    }
    bs->filename = full_name(bs);
}

/* Nodes that are opened one for the other, each on the coroutine's stack. */
static bool check_nesting(const BlockDriverState *parent, Error **errp)
{
    int n = 0;

    for (; parent; parent = parent->opening_for) {
        n++;
    }
    if (n > BDRV_MAX_HEIGHT) {
        error_setg(errp, "There are too many nodes to open, one above the "
                   "other (more than %d)", BDRV_MAX_HEIGHT);
        return false;
    }
    return true;
}

static bool coroutine_fn node_co_open(BlockDriverState *bs,
                                      const BlockdevOptions *options,
                                      BlockDriverState *parent, Error **errp)
{
    bool ok;

    if (!check_nesting(parent, errp)) {
        return false;
    }
    bs->opening_for = parent;
    ok = bs->drv->bdrv_co_open(bs, options, errp);
    bs->opening_for = NULL;
    if (!ok) {
        return false;
    }
    bs->opened = true;
    aio_co_yield_fair();                /* chains are long */
    if (bdrv_getlength(bs) > BDRV_MAX_LENGTH) {
        error_setg(errp, "The image size is too large");
        return false;
    }
    refresh_limits(bs);
    find_storage(bs);
    if (!bs->filename) {
        set_filename(bs);
    }
    return bdrv_co_refresh_perms(bs, errp);
}

static void coroutine_fn node_co_close(BlockDriverState *bs)
{
    /* What is to be written out is wanted, whoever closes. */
    const CoCancel *cancel = coroutine_set_cancel(NULL);

    if (bs->opened && bs->drv->bdrv_co_close) {
        bs->drv->bdrv_co_close(bs);
    }
    coroutine_set_cancel(cancel);
    bs->opened = false;
}

BlockDriverState *coroutine_fn bdrv_co_open_locked(
    const BlockdevOptions *options, BlockDriverState *parent,
    BdrvChildRole role, bool need_name, Error **errp)
{
    const BlockDriver *drv = find_driver(options->driver);
    const char *name = options->node_name;
    BlockDriverState *bs;

    if (need_name && !name) {
        error_setg(errp, "'node-name' must be specified for the root node");
        return NULL;
    }
    if (!drv) {
        error_setg(errp, "Unknown driver '%s'",
                   BlockdevDriver_str(options->driver));
        return NULL;
    }
    if (options->has_active && !options->active) {
        error_setg(errp, "Driver '%s' does not support inactive nodes",
                   drv->format_name);
        return NULL;
    }

    bs = node_new(drv);
    if (!set_generic_options(bs, options, parent, role, errp)
        || (name && !check_node_name(name, errp))) {
        goto fail;
    }
    if (name) {
        g_strlcpy(bs->node_name, name, sizeof(bs->node_name));
    } else {
        set_implicit_name(bs);
    }
    if (!node_co_open(bs, options, parent, errp)) {
        goto fail;
    }
    /* A child may have taken the name meanwhile. */
    if (name && !check_node_name(name, errp)) {
        goto fail;
    }
    TAILQ_INSERT_HEAD(&bdrv_all_nodes, bs, next);
    return bs;

fail:
    node_co_close(bs);
    node_co_free(bs);
    return NULL;
}

BlockDriverState *coroutine_fn bdrv_co_open(const BlockdevOptions *options,
                                            bool need_name, Error **errp)
{
    BlockDriverState *bs;

    bdrv_graph_co_lock();
    bs = bdrv_co_open_locked(options, NULL, 0, need_name, errp);
    if (bs) {
        bs->monitor_owned = true;
    }
    bdrv_graph_unlock();
    return bs;
}

/* ---- closing ---- */

bool bdrv_close_failed;

void bdrv_report_loss(BlockDriverState *bs, Error *err)
{
    bdrv_close_failed = true;
    qapi_event_send(QAPI_EVENT_BLOCK_IO_ERROR, &(QapiEventBlockIoError) {
        .qom_path = (char *)"",
        .device = (char *)"",
        .node_name = bs->implicit ? NULL : bs->node_name,
        .operation = IO_OPERATION_TYPE_WRITE,
        .action = BLOCK_ERROR_ACTION_REPORT,
        .reason = (char *)error_get_pretty(err),
    });
    error_report_err(err);
}

void bdrv_ref(BlockDriverState *bs)
{
    bs->refcnt++;
}

void coroutine_fn bdrv_co_unref_locked(BlockDriverState *bs)
{
    g_assert(bs->refcnt > 0);
    if (--bs->refcnt > 0) {
        return;
    }
    TAILQ_REMOVE(&bdrv_all_nodes, bs, next);
    aio_co_yield_fair();
    if (!bs->read_only) {
        int ret = bdrv_co_flush(bs);

        if (ret < 0) {
            Error *err = NULL;

            error_setg_errno(&err, -ret, "Could not flush node '%s' on "
                             "closing", bs->node_name);
            bdrv_report_loss(bs, err);
        }
    }
    node_co_close(bs);
    node_co_free(bs);
}

void coroutine_fn bdrv_co_unref(BlockDriverState *bs)
{
    if (bs) {
        bdrv_graph_co_lock();
        bdrv_co_unref_locked(bs);
        bdrv_graph_unlock();
    }
}

void coroutine_fn bdrv_co_close_all(void)
{
    BlockDriverState *bs;

    bdrv_graph_co_lock();
    do {
        TAILQ_FOREACH(bs, &bdrv_all_nodes, next) {
            if (bs->monitor_owned) {
                bs->monitor_owned = false;
                bdrv_co_unref_locked(bs);
                break;
            }
        }
    } while (bs);
    bdrv_graph_unlock();
}
