/* SPDX-License-Identifier: MIT */
/*
 * qsd-img snapshot: list, make, go back to and delete an image's snapshots.
 */
#include "qsd-img/qsd-img.h"

#include <stdlib.h>
#include <string.h>
#include "block/snapshot.h"
#include "qapi/visit.h"

/* The letters of the four actions; '\0' if there is none, '?' if several. */
static char find_action(const ImgArgs *args)
{
    char action = '\0';

    for (const char *p = "lacd"; *p; p++) {
        if (args->given[(unsigned char)*p]) {
            action = action ? '?' : *p;
        }
    }
    return action;
}

static void print_json(const SnapshotInfoList *list)
{
    QList *result = qlist_new();

    for (; list; list = list->next) {
        qlist_append(result, qapi_to_qobject(&qapi_type_SnapshotInfo,
                                             list->value));
    }
    img_print_json(QOBJECT(result));
    qobject_unref(QOBJECT(result));
}

static void list_snapshots(const ImgArgs *args, BlockDriverState *bs)
{
    g_autoptr(SnapshotInfoList) list = bdrv_snapshot_list(bs, NULL);

    if (args->json) {
        print_json(list);
    } else {
        img_print_snapshots(list);
    }
}

/* By name, or if there is none by id. */
static bool coroutine_fn co_delete(BlockDriverState *bs, const char *what,
                                   Error **errp)
{
    g_autoptr(SnapshotInfoList) list = bdrv_snapshot_list(bs, NULL);

    for (const SnapshotInfoList *e = list; e; e = e->next) {
        if (!strcmp(e->value->name, what)) {
            return bdrv_co_snapshot_delete(bs, e->value->id, what, errp);
        }
    }
    for (const SnapshotInfoList *e = list; e; e = e->next) {
        if (!strcmp(e->value->id, what)) {
            return bdrv_co_snapshot_delete(bs, what, e->value->name, errp);
        }
    }
    error_setg(errp, "snapshot not found");
    return false;
}

static bool coroutine_fn co_act(const ImgArgs *args, char action,
                                BlockDriverState *bs)
{
    const char *what = args->value[(unsigned char)action];
    const char *verb;
    Error *err = NULL;
    bool ok;

    switch (action) {
    case 'c':
        verb = "create";
        ok = bdrv_co_snapshot_create(bs, what, NULL, &err);
        break;
    case 'a':
        verb = "apply";
        ok = bdrv_co_snapshot_apply(bs, what, &err);
        break;
    default:
        verb = "delete";
        ok = co_delete(bs, what, &err);
        break;
    }
    if (!ok) {
        error_prepend(&err, "Could not %s snapshot '%s': ", verb, what);
        error_report_err(err);
    }
    return ok;
}

int coroutine_fn img_co_snapshot(const ImgArgs *args)
{
    ImgOpen open = {
        .image_opts = args->given[IMG_IMAGE_OPTS],
        .format = args->value['f'],
        .force_share = args->given['U'],
        .no_backing = true,
    };
    char action = find_action(args);
    BlockBackend *blk;
    bool ok = true;

    if (action == '?') {
        return img_usage_error("Cannot mix '-l', '-a', '-c', '-d'");
    }
    if (args->n_names != 1) {
        return img_usage_error("Expecting one image file name");
    }
    open.name = args->names[0];
    open.inspect = open.no_data = action == '\0' || action == 'l';
    open.write = open.resize = !open.inspect;
    blk = img_co_open(&open);
    if (!blk) {
        return EXIT_FAILURE;
    }
    if (open.inspect) {
        list_snapshots(args, blk_bs(blk));
    } else {
        ok = co_act(args, action, blk_bs(blk));
    }
    blk_co_free(blk);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
