/* SPDX-License-Identifier: MIT */
/*
 * Making images: from blockdev-create to the driver.
 */
#include "block/create.h"

#include "block/block-int.h"
#include "block/job.h"
#include "qapi/qapi-commands.h"
#include "qapi/visit.h"

static const BlockDriver *create_find_driver(BlockdevDriver driver,
                                             Error **errp)
{
    for (int i = 0; bdrv_drivers[i]; i++) {
        if (bdrv_drivers[i]->driver != driver) {
            continue;
        }
        if (!bdrv_drivers[i]->bdrv_co_create) {
            break;
        }
        return bdrv_drivers[i];
    }
    error_setg(errp, "Driver does not support blockdev-create");
    return NULL;
}

bool coroutine_fn bdrv_co_create(const BlockdevCreateOptions *options,
                                 Error **errp)
{
    const BlockDriver *drv = create_find_driver(options->driver, errp);

    return drv && drv->bdrv_co_create(options, errp);
}

BlockDriverState *coroutine_fn bdrv_co_open_ref(const BlockdevRef *ref,
                                                Error **errp)
{
    BlockDriverState *bs;

    if (ref->type == QTYPE_QSTRING) {
        /* Now, and not after a wait: the name may then mean another node. */
        bs = bdrv_lookup_node(ref->u.reference, ref->u.reference, errp);
        if (bs) {
            bdrv_ref(bs);
        }
        return bs;
    }
    bdrv_graph_co_lock();
    bs = bdrv_co_open_locked(&ref->u.definition, NULL, 0, false, errp);
    bdrv_graph_unlock();
    return bs;
}

/* ---- the job ---- */

static bool coroutine_fn create_co_run(void *opaque, Error **errp)
{
    return bdrv_co_create(opaque, errp);
}

static void create_free(void *opaque)
{
    qapi_free_BlockdevCreateOptions(opaque);
}

static const JobDriver create_job = {
    .type = JOB_TYPE_CREATE,
    .co_run = create_co_run,
    .free = create_free,
};

void qmp_blockdev_create(const QmpBlockdevCreateArg *arg, Error **errp)
{
    BlockdevCreateOptions *options;

    if (!create_find_driver(arg->options->driver, errp)) {
        return;
    }
    options = QAPI_CLONE(BlockdevCreateOptions, arg->options);
    if (!job_start(&create_job, arg->job_id, options, errp)) {
        qapi_free_BlockdevCreateOptions(options);
    }
}
