/* SPDX-License-Identifier: MIT */
/*
 * blkdebug: a filter that lets requests fail by rules.
 *
 * Rules wait for events, which drivers and the request path raise on the node
 * (BLKDBG_EVENT).  An event first looks which of its rules may act in the
 * present state.  Errors among them become active and all others inactive; if
 * there is none, what was active stays so.  Then the state changes.  A request
 * gets the error of the first active rule that it matches.
 *
 * Which rules are active is a matter of the whole node, not of one request:
 * with several requests in flight, iotype and sector say which of them is
 * meant.
 *
 * Options and order of evaluation are those of QEMU, from its manual
 * (docs/devel/testing/blkdebug) and from running qemu-io.
 *
 * Any thread; the lock is over the state and what changes in rules.
 */

#include <inttypes.h>
#include <limits.h>
#include "block/blkdebug-config.h"
#include "block/filter.h"
#include "qapi/visit.h"
#include "util/thread-pool.h"

#define BLKDEBUG_MAX_ALIGN (64 << 20)
#define BLKDEBUG_SECTOR 512

/* FUSE has no larger ones, and neither has the host. */
#define BLKDEBUG_MAX_ERRNO 511

#define ALL_BUT_BLOCK_STATUS                                            \
    (1u << BLKDEBUG_IO_TYPE_READ | 1u << BLKDEBUG_IO_TYPE_WRITE         \
     | 1u << BLKDEBUG_IO_TYPE_WRITE_ZEROES                              \
     | 1u << BLKDEBUG_IO_TYPE_DISCARD | 1u << BLKDEBUG_IO_TYPE_FLUSH)

typedef struct ErrorRule {
    BlkdebugEvent event;
    int64_t state;                      /* 0: any */
    unsigned iotypes;                   /* bits */
    int error;                          /* errno; 0: succeed */
    int64_t delay_ns;
    int64_t sector;                     /* < 0: any */
    bool once;
    bool immediately;
    bool active;                        /* under the lock */
    bool spent;                         /* ditto: was once, has been */
} ErrorRule;

typedef struct StateRule {
    BlkdebugEvent event;
    int64_t state;                      /* 0: any */
    int64_t new_state;
} StateRule;

typedef struct BDRVBlkdebugState {
    pthread_mutex_t lock;
    int64_t state;
    GArray *errors;                     /* of ErrorRule, as listed */
    GArray *changes;                    /* of StateRule, ditto */
    uint64_t take_perms, unshare_perms;
    BlockdevOptionsBlkdebug *options;
} BDRVBlkdebugState;

/* ---- rules ---- */

static bool add_error(BDRVBlkdebugState *s,
                      const BlkdebugInjectErrorOptions *o, Error **errp)
{
    ErrorRule rule = {
        .event = o->event,
        .state = o->has_state ? o->state : 0,
        .iotypes = o->has_iotype ? 1u << o->iotype : ALL_BUT_BLOCK_STATUS,
        .error = EIO,
        .delay_ns = o->has_delay_ns ? o->delay_ns : 0,
        .sector = o->has_sector ? o->sector : -1,
        .once = o->has_once && o->once,
        .immediately = o->has_immediately && o->immediately,
    };

    if (o->has_q_errno) {
        if (o->q_errno < 0 || o->q_errno > BLKDEBUG_MAX_ERRNO) {
            error_setg(errp, "Parameter 'errno' expects a number from 0 to "
                       "%d", BLKDEBUG_MAX_ERRNO);
            return false;
        }
        rule.error = o->q_errno;
    }
    if (rule.delay_ns < 0) {
        error_setg(errp, "Parameter 'delay-ns' expects a non-negative number "
                   "below 2^64");
        return false;
    }
    g_array_append_val(s->errors, rule);
    return true;
}

static void add_change(BDRVBlkdebugState *s, const BlkdebugSetStateOptions *o)
{
    StateRule rule = {
        .event = o->event,
        .state = o->has_state ? o->state : 0,
        .new_state = o->new_state,
    };

    g_array_append_val(s->changes, rule);
}

static bool add_rules(BDRVBlkdebugState *s,
                      const BlkdebugInjectErrorOptionsList *errors,
                      const BlkdebugSetStateOptionsList *changes,
                      Error **errp)
{
    for (; errors; errors = errors->next) {
        if (!add_error(s, errors->value, errp)) {
            return false;
        }
    }
    for (; changes; changes = changes->next) {
        add_change(s, changes->value);
    }
    return true;
}

typedef struct ConfigCall {
    const char *path;
    BlkdebugConfig config;
    Error **errp;
} ConfigCall;

static int config_call(void *opaque)
{
    ConfigCall *call = opaque;

    return blkdebug_config_read(&call->config, call->path, call->errp) ? 0 : -1;
}

static bool coroutine_fn co_add_config(BDRVBlkdebugState *s, const char *path,
                                       Error **errp)
{
    Error *err = NULL;
    ConfigCall call = { .path = path, .errp = &err };
    bool ok = thread_pool_co_submit(config_call, &call) >= 0;

    if (!ok && !err) {
        error_setg(&err, "Could not start a thread to read '%s'", path);
    }
    error_propagate(errp, err);
    ok = ok && add_rules(s, call.config.inject_error, call.config.set_state,
                         errp);
    blkdebug_config_deinit(&call.config);
    return ok;
}

/* Lock held: the errors that @event makes active in the present state. */
static void activate(BDRVBlkdebugState *s, BlkdebugEvent event)
{
    bool found = false;

    for (guint i = 0; i < s->errors->len; i++) {
        ErrorRule *rule = &g_array_index(s->errors, ErrorRule, i);

        if (rule->event != event || rule->spent
            || (rule->state && rule->state != s->state)) {
            continue;
        }
        if (!found) {
            for (guint j = 0; j < s->errors->len; j++) {
                g_array_index(s->errors, ErrorRule, j).active = false;
            }
            found = true;
        }
        rule->active = true;
    }
}

/* Lock held: the state after @event. */
static int64_t next_state(const BDRVBlkdebugState *s, BlkdebugEvent event)
{
    for (guint i = 0; i < s->changes->len; i++) {
        const StateRule *rule = &g_array_index(s->changes, StateRule, i);

        if (rule->event == event
            && (!rule->state || rule->state == s->state)) {
            return rule->new_state;
        }
    }
    return s->state;
}

static void blkdebug_debug_event(BlockDriverState *bs, BlkdebugEvent event)
{
    BDRVBlkdebugState *s = bs->opaque;

    pthread_mutex_lock(&s->lock);
    activate(s, event);
    s->state = next_state(s, event);
    pthread_mutex_unlock(&s->lock);
}

static bool rule_matches(const ErrorRule *rule, int64_t offset, int64_t bytes,
                         BlkdebugIOType iotype)
{
    if (!rule->active || !(rule->iotypes & (1u << iotype))) {
        return false;
    }
    return rule->sector < 0
           || (bytes > 0 && offset / BLKDEBUG_SECTOR <= rule->sector
               && rule->sector <= (offset + bytes - 1) / BLKDEBUG_SECTOR);
}

/* Take the first rule that matches; false if none does. */
static bool take_rule(BDRVBlkdebugState *s, int64_t offset, int64_t bytes,
                      BlkdebugIOType iotype, ErrorRule *taken)
{
    bool found = false;

    pthread_mutex_lock(&s->lock);
    for (guint i = 0; i < s->errors->len && !found; i++) {
        ErrorRule *rule = &g_array_index(s->errors, ErrorRule, i);

        if (rule_matches(rule, offset, bytes, iotype)) {
            *taken = *rule;
            found = true;
            if (rule->once) {
                rule->spent = true;
                rule->active = false;
            }
        }
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

/* 0: the request may go on; else -errno. */
static int coroutine_fn co_inject(BlockDriverState *bs, int64_t offset,
                                  int64_t bytes, BlkdebugIOType iotype)
{
    ErrorRule rule;

    if (!take_rule(bs->opaque, offset, bytes, iotype, &rule)) {
        return 0;
    }
    if (rule.delay_ns || (rule.error && !rule.immediately)) {
        aio_co_sleep_ns(rule.delay_ns);
    }
    return -rule.error;
}

/* ---- opening ---- */

static uint64_t perm_bits(const BlockPermissionList *list)
{
    static const uint64_t bits[] = {
        [BLOCK_PERMISSION_CONSISTENT_READ] = BLK_PERM_CONSISTENT_READ,
        [BLOCK_PERMISSION_WRITE] = BLK_PERM_WRITE,
        [BLOCK_PERMISSION_WRITE_UNCHANGED] = BLK_PERM_WRITE_UNCHANGED,
        [BLOCK_PERMISSION_RESIZE] = BLK_PERM_RESIZE,
    };
    uint64_t perms = 0;

    for (; list; list = list->next) {
        perms |= bits[list->value];
    }
    return perms;
}

/* A limit in bytes, a multiple of @unit; 0 for none. */
static bool check_limit(const char *name, int64_t value, int64_t unit,
                        Error **errp)
{
    if (value < 0) {
        error_setg(errp, "Value '%" PRId64 "' is out of range for parameter "
                   "'%s'", value, name);
        return false;
    }
    if (value >= INT_MAX || value % unit) {
        error_setg(errp, "Cannot meet constraints with %s %" PRId64, name,
                   value);
        return false;
    }
    return true;
}

static bool check_align(int64_t align, Error **errp)
{
    if (!check_limit("align", align, 1, errp)) {
        return false;
    }
    if (align > BLKDEBUG_MAX_ALIGN || (align & (align - 1))) {
        error_setg(errp, "Cannot meet constraints with align %" PRId64, align);
        return false;
    }
    return true;
}

static bool check_limits(const BlockdevOptionsBlkdebug *o,
                         const BlockDriverState *image, Error **errp)
{
    int64_t unit = MAX(o->align, image->bl.request_alignment);

    return check_align(o->align, errp)
           && check_limit("max-transfer", o->max_transfer, unit, errp)
           && check_limit("opt-write-zero", o->opt_write_zero, unit, errp)
           && check_limit("max-write-zero", o->max_write_zero,
                          MAX(o->opt_write_zero, unit), errp)
           && check_limit("opt-discard", o->opt_discard, unit, errp)
           && check_limit("max-discard", o->max_discard,
                          MAX(o->opt_discard, unit), errp);
}

/* The short name, where it says all. */
static char *short_name(const BlockdevOptionsBlkdebug *o,
                        const BlockDriverState *image)
{
    if (o->inject_error || o->set_state || o->has_align || o->has_max_transfer
        || o->has_opt_write_zero || o->has_max_write_zero || o->has_opt_discard
        || o->has_max_discard || g_str_has_prefix(image->filename, "json:")) {
        return NULL;
    }
    return g_strdup_printf("blkdebug:%s:%s", o->config ? o->config : "",
                           image->filename);
}

static void state_free(BDRVBlkdebugState *s)
{
    pthread_mutex_destroy(&s->lock);
    g_array_free(s->errors, true);
    g_array_free(s->changes, true);
    qapi_free(&qapi_type_BlockdevOptionsBlkdebug, s->options);
}

static bool coroutine_fn blkdebug_co_open(BlockDriverState *bs,
                                          const BlockdevOptions *options,
                                          Error **errp)
{
    const BlockdevOptionsBlkdebug *o = &options->u.blkdebug;
    BDRVBlkdebugState *s = bs->opaque;

    pthread_mutex_init(&s->lock, NULL);
    s->state = 1;
    s->errors = g_array_new(false, false, sizeof(ErrorRule));
    s->changes = g_array_new(false, false, sizeof(StateRule));
    s->take_perms = perm_bits(o->take_child_perms);
    s->unshare_perms = perm_bits(o->unshare_child_perms);
    s->options = QAPI_CLONE(BlockdevOptionsBlkdebug, o);

    if ((o->config && !co_add_config(s, o->config, errp))
        || !add_rules(s, o->inject_error, o->set_state, errp)
        || !bdrv_co_open_child(bs, o->image, "image", BDRV_CHILD_FILTERED
                               | BDRV_CHILD_PRIMARY, errp)
        || !check_limits(o, bs->file->bs, errp)) {
        state_free(s);
        return false;
    }
    bs->total_bytes = bdrv_getlength(bs->file->bs);
    bs->filename = short_name(o, bs->file->bs);
    blkdebug_debug_event(bs, BLKDBG_NONE);
    return true;
}

static void coroutine_fn blkdebug_co_close(BlockDriverState *bs)
{
    state_free(bs->opaque);
}

static void blkdebug_refresh_limits(BlockDriverState *bs)
{
    BDRVBlkdebugState *s = bs->opaque;
    const BlockdevOptionsBlkdebug *o = s->options;
    const BlockLimits *below = &bs->file->bs->bl;
    BlockLimits *bl = &bs->bl;

    bl->request_alignment = MAX(o->align, below->request_alignment);
    bl->max_transfer = o->max_transfer;
    bl->pwrite_zeroes_alignment = o->opt_write_zero
                                  ? o->opt_write_zero
                                  : below->pwrite_zeroes_alignment;
    bl->max_pwrite_zeroes = o->max_write_zero;
    bl->pdiscard_alignment = o->opt_discard ? o->opt_discard
                                            : below->pdiscard_alignment;
    bl->max_pdiscard = o->max_discard;
}

static void blkdebug_child_perm(BlockDriverState *bs, BdrvChild *c,
                                BdrvChildRole role, uint64_t perm,
                                uint64_t shared, uint64_t *nperm,
                                uint64_t *nshared)
{
    BDRVBlkdebugState *s = bs->opaque;

    bdrv_default_perms(bs, c, role, perm, shared, nperm, nshared);
    *nperm |= s->take_perms;
    *nshared &= ~s->unshare_perms;
}

static bool coroutine_fn blkdebug_co_check_perm(BlockDriverState *bs,
                                                uint64_t perm, uint64_t shared,
                                                Error **errp)
{
    return bdrv_check_length_aligned(bs, perm, errp);
}

/* As they were given; the core adds the child. */
static void blkdebug_gather_options(BlockDriverState *bs, QDict *opts)
{
    BDRVBlkdebugState *s = bs->opaque;
    g_autoptr(QObject) obj = qapi_to_qobject(
        &qapi_type_BlockdevOptionsBlkdebug, s->options);
    const QDict *own = qobject_to_qdict(obj);

    for (size_t i = 0; i < qdict_size(own); i++) {
        const char *key = qdict_key_at(own, i);

        if (strcmp(key, "image")) {
            qdict_put(opts, key, qobject_ref(qdict_value_at(own, i)));
        }
    }
}

/* ---- requests ---- */

static int coroutine_fn blkdebug_co_preadv(BlockDriverState *bs,
                                           int64_t offset, int64_t bytes,
                                           QEMUIOVector *qiov,
                                           BdrvRequestFlags flags)
{
    int ret = co_inject(bs, offset, bytes, BLKDEBUG_IO_TYPE_READ);

    return ret < 0 ? ret : bdrv_co_preadv(bs->file, offset, qiov, flags);
}

static int coroutine_fn blkdebug_co_pwritev(BlockDriverState *bs,
                                            int64_t offset, int64_t bytes,
                                            QEMUIOVector *qiov,
                                            BdrvRequestFlags flags)
{
    int ret = co_inject(bs, offset, bytes, BLKDEBUG_IO_TYPE_WRITE);

    return ret < 0 ? ret : bdrv_co_pwritev(bs->file, offset, qiov, flags);
}

static int coroutine_fn blkdebug_co_pwrite_zeroes(BlockDriverState *bs,
                                                  int64_t offset,
                                                  int64_t bytes,
                                                  BdrvRequestFlags flags)
{
    int ret = co_inject(bs, offset, bytes, BLKDEBUG_IO_TYPE_WRITE_ZEROES);

    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(bs->file, offset, bytes,
                                                 flags);
}

static int coroutine_fn blkdebug_co_pdiscard(BlockDriverState *bs,
                                             int64_t offset, int64_t bytes)
{
    int ret = co_inject(bs, offset, bytes, BLKDEBUG_IO_TYPE_DISCARD);

    return ret < 0 ? ret : bdrv_co_pdiscard(bs->file, offset, bytes);
}

/* The core flushes the child in any case. */
static int coroutine_fn blkdebug_co_flush(BlockDriverState *bs)
{
    return co_inject(bs, 0, 0, BLKDEBUG_IO_TYPE_FLUSH);
}

static int coroutine_fn blkdebug_co_block_status(BlockDriverState *bs,
                                                 int64_t offset, int64_t bytes,
                                                 int64_t *pnum, int64_t *map,
                                                 BlockDriverState **file)
{
    int ret = co_inject(bs, offset, bytes, BLKDEBUG_IO_TYPE_BLOCK_STATUS);

    return ret < 0 ? ret : bdrv_filter_co_block_status(bs, offset, bytes, pnum,
                                                       map, file);
}

const BlockDriver bdrv_blkdebug = {
    .format_name = "blkdebug",
    .driver = BLOCKDEV_DRIVER_BLKDEBUG,
    .instance_size = sizeof(BDRVBlkdebugState),
    .is_filter = true,
    .can_grow = true,
    .supported_write_flags = BDRV_REQ_FUA,
    .supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP
                            | BDRV_REQ_NO_FALLBACK,
    .supported_truncate_flags = BDRV_REQ_ZERO_WRITE,
    .bdrv_co_open = blkdebug_co_open,
    .bdrv_co_close = blkdebug_co_close,
    .bdrv_co_preadv = blkdebug_co_preadv,
    .bdrv_co_pwritev = blkdebug_co_pwritev,
    .bdrv_co_pwrite_zeroes = blkdebug_co_pwrite_zeroes,
    .bdrv_co_pdiscard = blkdebug_co_pdiscard,
    .bdrv_co_flush = blkdebug_co_flush,
    .bdrv_co_truncate = bdrv_filter_co_truncate,
    .bdrv_co_block_status = blkdebug_co_block_status,
    .bdrv_co_getlength = bdrv_filter_co_getlength,
    .bdrv_refresh_limits = blkdebug_refresh_limits,
    .bdrv_child_perm = blkdebug_child_perm,
    .bdrv_co_check_perm = blkdebug_co_check_perm,
    .bdrv_debug_event = blkdebug_debug_event,
    .bdrv_gather_options = blkdebug_gather_options,
};
