/* SPDX-License-Identifier: MIT */
/*
 * The QMP command `transaction`.
 *
 * Main thread, in the coroutine of the monitor.
 */
#include "block/transaction.h"

#include "qapi/qapi-commands.h"

static bool coroutine_fn co_prepare_abort(TransactionItem *it, Error **errp)
{
    error_setg(errp, "Transaction aborted using Abort action");
    return false;
}

static const TransactionOps transaction_abort = {
    .co_prepare = co_prepare_abort,
};

/* What an action is, and where in TransactionAction its argument is. */
static const struct {
    const TransactionOps *ops;
    size_t arg;
} kinds[] = {
#define KIND(name, member, ops) \
    [TRANSACTION_ACTION_KIND_##name] = { \
        &transaction_##ops, offsetof(TransactionAction, u.member.data) \
    }
    KIND(ABORT, abort, abort),
    KIND(BLOCK_DIRTY_BITMAP_ADD, block_dirty_bitmap_add, bitmap_add),
    KIND(BLOCK_DIRTY_BITMAP_REMOVE, block_dirty_bitmap_remove, bitmap_remove),
    KIND(BLOCK_DIRTY_BITMAP_CLEAR, block_dirty_bitmap_clear, bitmap_clear),
    KIND(BLOCK_DIRTY_BITMAP_ENABLE, block_dirty_bitmap_enable, bitmap_enable),
    KIND(BLOCK_DIRTY_BITMAP_DISABLE, block_dirty_bitmap_disable,
         bitmap_disable),
    KIND(BLOCK_DIRTY_BITMAP_MERGE, block_dirty_bitmap_merge, bitmap_merge),
    KIND(BLOCKDEV_SNAPSHOT_INTERNAL_SYNC, blockdev_snapshot_internal_sync,
         snapshot_create),
#undef KIND
};

/* ---- running one ---- */

void coroutine_fn transaction_co_drain(TransactionItem *it,
                                       BlockDriverState *bs)
{
    it->bs = bs;
    bdrv_co_drained_begin_locked(bs);
}

static void end(TransactionItem *it)
{
    if (it->bs) {
        bdrv_drained_end(it->bs);
    }
    bdrv_dirty_bitmap_free(it->old);
    g_free(it->id);
}

static void coroutine_fn co_run(TransactionItem *items, unsigned n,
                                Error **errp)
{
    const CoCancel *cancel;
    unsigned done = 0;
    bool ok = true;

    bdrv_graph_co_lock();
    for (; done < n && ok; done += ok) {
        ok = items[done].ops->co_prepare(&items[done], errp);
    }
    /* All or nothing: either way it comes to its end. */
    cancel = coroutine_set_cancel(NULL);
    for (unsigned i = 0; i < n && ok; i++) {
        if (items[i].ops->co_commit) {
            Error *err = NULL;

            items[i].ops->co_commit(&items[i], &err);
            if (err && errp && *errp) {
                error_report_err(err);
            } else {
                error_propagate(errp, err);
            }
        }
    }
    while (!ok && done-- > 0) {
        if (items[done].ops->co_abort) {
            items[done].ops->co_abort(&items[done]);
        }
    }
    for (unsigned i = 0; i < n; i++) {
        end(&items[i]);
    }
    coroutine_set_cancel(cancel);
    bdrv_graph_unlock();
}

void coroutine_fn transaction_co_one(const TransactionOps *ops,
                                     const void *arg, Error **errp)
{
    TransactionItem it = { .ops = ops, .arg = arg, .alone = true };

    co_run(&it, 1, errp);
}

/* ---- QMP ---- */

/* Each may keep a copy of its bitmap. */
#define TRANSACTION_MAX_ACTIONS 1024

static bool check_mode(const QmpTransactionArg *arg,
                       const TransactionAction *action, Error **errp)
{
    if (!arg->properties || !arg->properties->has_completion_mode
        || arg->properties->completion_mode
           == ACTION_COMPLETION_MODE_INDIVIDUAL
        || action->type == TRANSACTION_ACTION_KIND_ABORT) {
        return true;
    }
    error_setg(errp, "Action '%s' does not support Transaction property "
               "completion-mode = %s", TransactionActionKind_str(action->type),
               ActionCompletionMode_str(arg->properties->completion_mode));
    return false;
}

void coroutine_fn qmp_transaction(const QmpTransactionArg *arg, Error **errp)
{
    g_autoptr(GArray) items = g_array_new(false, true,
                                          sizeof(TransactionItem));
    const TransactionActionList *l;

    for (l = arg->actions; l; l = l->next) {
        size_t at = kinds[l->value->type].arg;
        TransactionItem it = {
            .ops = kinds[l->value->type].ops,
            .arg = G_STRUCT_MEMBER(void *, l->value, at),
            .alone = l == arg->actions && !l->next,
        };

        if (!check_mode(arg, l->value, errp)) {
            return;
        }
        if (items->len == TRANSACTION_MAX_ACTIONS) {
            error_setg(errp, "More than %d actions", TRANSACTION_MAX_ACTIONS);
            return;
        }
        g_array_append_val(items, it);
    }
    co_run((TransactionItem *)(void *)items->data, items->len, errp);
}
