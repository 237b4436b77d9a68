/* SPDX-License-Identifier: MIT */
/*
 * qsd-img check: is an image consistent, and can it be made so?
 */
#include "qsd-img/qsd-img.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/check.h"

/* Exit statuses */
enum {
    CHECK_CLEAN = 0,
    CHECK_FAILED = 1,           /* it could not be checked */
    CHECK_CORRUPT = 2,
    CHECK_LEAKS = 3,            /* space is wasted, no more than that */
    CHECK_UNSUPPORTED = 63,     /* the format has nothing to be checked */
};

typedef struct Check {
    const ImgArgs *args;
    BlockBackend *blk;
    BdrvCheckResult res;
    ImgProgress progress;
} Check;

/* ---- output ---- */

static void print_message(void *opaque, const char *line)
{
    fprintf(stderr, "%s\n", line);
}

static void show_progress(void *opaque, double part)
{
    Check *c = opaque;

    img_progress(&c->progress, part);
}

static void put_nonzero(QDict *dict, const char *name, int64_t value)
{
    if (value) {
        qdict_put_int(dict, name, value);
    }
}

static void print_json(const Check *c)
{
    const BdrvCheckResult *res = &c->res;
    g_autoptr(QDict) dict = qdict_new();

    qdict_put_str(dict, "filename", c->args->names[0]);
    qdict_put_str(dict, "format", bdrv_get_format_name(blk_bs(c->blk)));
    qdict_put_int(dict, "check-errors", res->check_errors);
    put_nonzero(dict, "image-end-offset", res->image_end_offset);
    put_nonzero(dict, "corruptions", res->corruptions);
    put_nonzero(dict, "leaks", res->leaks);
    put_nonzero(dict, "corruptions-fixed", res->corruptions_fixed);
    put_nonzero(dict, "leaks-fixed", res->leaks_fixed);
    put_nonzero(dict, "total-clusters", res->total_clusters);
    put_nonzero(dict, "allocated-clusters", res->allocated_clusters);
    put_nonzero(dict, "fragmented-clusters", res->fragmented_clusters);
    put_nonzero(dict, "compressed-clusters", res->compressed_clusters);
    img_print_json(QOBJECT(dict));
}

static void print_findings(const Check *c)
{
    const BdrvCheckResult *res = &c->res;

    if (!res->corruptions && !res->leaks && !res->check_errors) {
        img_say(c->args, "No errors were found on the image.\n");
        return;
    }
    if (res->corruptions) {
        img_say(c->args, "\n%" PRIi64 " errors were found on the image.\n"
                "Data may be corrupted, or further writes to the image may "
                "corrupt it.\n", res->corruptions);
    }
    if (res->leaks) {
        img_say(c->args, "\n%" PRIi64 " leaked clusters were found on the "
                "image.\nThis means waste of disk space, but no harm to "
                "data.\n", res->leaks);
    }
    if (res->check_errors) {
        img_say(c->args, "\n%" PRIi64 " internal errors have occurred during "
                "the check.\n", res->check_errors);
    }
}

static void print_human(const Check *c)
{
    const BdrvCheckResult *res = &c->res;

    print_findings(c);
    if (res->total_clusters && res->allocated_clusters) {
        img_say(c->args, "%" PRIi64 "/%" PRIi64 " = %0.2f%% allocated, %0.2f%% "
                "fragmented, %0.2f%% compressed clusters\n",
                res->allocated_clusters, res->total_clusters,
                res->allocated_clusters * 100.0 / res->total_clusters,
                res->fragmented_clusters * 100.0 / res->allocated_clusters,
                res->compressed_clusters * 100.0 / res->allocated_clusters);
    }
    if (res->image_end_offset) {
        img_say(c->args, "Image end offset: %" PRIi64 "\n",
                res->image_end_offset);
    }
}

/* ---- the command ---- */

static bool parse_fix(const ImgArgs *args, int *fix)
{
    const char *what = args->value['r'];

    *fix = 0;
    if (!what) {
        return true;
    }
    if (!strcmp(what, "leaks")) {
        *fix = BDRV_FIX_LEAKS;
    } else if (!strcmp(what, "all")) {
        *fix = BDRV_FIX_LEAKS | BDRV_FIX_ERRORS;
    } else {
        img_usage_error("Unknown option value for -r (expecting 'leaks' or "
                        "'all'): %s", what);
        return false;
    }
    return true;
}

static int coroutine_fn co_check(Check *c, int fix)
{
    const BdrvCheckHooks hooks = {
        .message = print_message,
        .progress = show_progress,
        .opaque = c,
    };
    Error *err = NULL;
    int ret;

    c->res = (BdrvCheckResult) { 0 };
    img_progress_begin(&c->progress, c->args);
    ret = bdrv_co_check(blk_bs(c->blk), &c->res, fix, &hooks, &err);
    if (ret == -ENOTSUP) {
        error_free(err);
        error_report("This image format does not support checks");
    } else if (ret < 0) {
        if (err) {
            error_report_err(err);
        } else {
            error_report("Check failed: %s", strerror(-ret));
        }
    } else {
        img_progress_end(&c->progress);
    }
    return ret;
}

/* After a repair: look again, and keep in mind what was repaired. */
static int coroutine_fn co_check_again(Check *c)
{
    int64_t corruptions = c->res.corruptions_fixed;
    int64_t leaks = c->res.leaks_fixed;
    int ret;

    if (!c->args->json) {
        img_say(c->args, "The following inconsistencies were found and "
                "repaired:\n\n    %" PRIi64 " leaked clusters\n    %" PRIi64
                " corruptions\n\nDouble checking the fixed image now...\n",
                leaks, corruptions);
    }
    ret = co_check(c, 0);
    c->res.corruptions_fixed = corruptions;
    c->res.leaks_fixed = leaks;
    return ret;
}

static int exit_status(const Check *c)
{
    if (c->res.check_errors) {
        return CHECK_FAILED;
    }
    if (c->res.corruptions) {
        return CHECK_CORRUPT;
    }
    return c->res.leaks ? CHECK_LEAKS : CHECK_CLEAN;
}

static int coroutine_fn co_check_and_print(Check *c, int fix)
{
    int ret = co_check(c, fix);

    if (ret >= 0 && (c->res.corruptions_fixed || c->res.leaks_fixed)) {
        ret = co_check_again(c);
    }
    if (ret < 0) {
        return ret == -ENOTSUP ? CHECK_UNSUPPORTED : CHECK_FAILED;
    }
    if (c->args->json) {
        print_json(c);
    } else {
        print_human(c);
    }
    return exit_status(c);
}

int coroutine_fn img_co_check(const ImgArgs *args)
{
    ImgOpen open = {
        .image_opts = args->given[IMG_IMAGE_OPTS],
        .format = args->value['f'],
        .cache = args->value['T'],
        .force_share = args->given['U'],
        .no_backing = true,
        .inspect = true,
        .no_data = true,
    };
    Check c = { .args = args };
    int fix, ret;

    if (!parse_fix(args, &fix)) {
        return CHECK_FAILED;
    }
    if (args->n_names != 1) {
        return img_usage_error("Expecting one image file name");
    }
    open.name = args->names[0];
    open.write = open.resize = fix;
    c.blk = img_co_open(&open);
    if (!c.blk) {
        return CHECK_FAILED;
    }
    ret = co_check_and_print(&c, fix);
    blk_co_free(c.blk);
    return ret;
}
