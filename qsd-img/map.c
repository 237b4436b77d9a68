/* SPDX-License-Identifier: MIT */
/*
 * qsd-img map: which part of the disk lies where.
 */
#include "qsd-img/qsd-img.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/image.h"

/* Bytes [start, start + length), which are all alike. */
typedef struct MapEntry {
    int64_t start, length;
    int flags;                      /* BDRV_BLOCK_ */
    unsigned depth;                 /* in the chain, 0: the image itself */
    int64_t offset;                 /* with OFFSET_VALID: in @file */
    BlockDriverState *file;
} MapEntry;

#define MAP_FLAGS (BDRV_BLOCK_DATA | BDRV_BLOCK_ZERO | BDRV_BLOCK_ALLOCATED \
                   | BDRV_BLOCK_OFFSET_VALID)

/* What is at @offset, up to @bytes long, asking one image after the other. */
static int coroutine_fn co_get_entry(BlockDriverState *bs, int64_t offset,
                                     int64_t bytes, MapEntry *e)
{
    int ret;

    *e = (MapEntry) { .start = offset };
    for (;;) {
        BlockDriverState *backing = image_backing(bs);

        ret = image_co_status(bs, backing, offset, bytes, &bytes, &e->offset,
                              &e->file);
        if (ret < 0) {
            return ret;
        }
        if ((ret & (BDRV_BLOCK_ZERO | BDRV_BLOCK_DATA)) || !backing) {
            break;
        }
        if (offset >= image_length(backing)) {
            ret |= BDRV_BLOCK_ZERO;
            break;
        }
        bytes = MIN(bytes, image_length(backing) - offset);
        bs = backing;
        e->depth++;
    }
    if (bytes == 0) {
        return -EIO;                /* it has become shorter */
    }
    e->length = bytes;
    e->flags = ret & MAP_FLAGS;
    return 0;
}

static bool can_merge(const MapEntry *a, const MapEntry *b)
{
    return a->flags == b->flags && a->depth == b->depth
        && (!(a->flags & BDRV_BLOCK_OFFSET_VALID)
            || (a->file == b->file && a->offset + a->length == b->offset));
}

/* ---- output ---- */

static bool print_human(const MapEntry *e)
{
    if (!(e->flags & BDRV_BLOCK_DATA) || (e->flags & BDRV_BLOCK_ZERO)) {
        return true;
    }
    if (!(e->flags & BDRV_BLOCK_OFFSET_VALID)) {
        error_report("File contains external, encrypted or compressed "
                     "clusters.");
        return false;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start,
           e->length, e->offset, image_filename(e->file));
    return true;
}

static const char *bool_text(int value)
{
    return value ? "true" : "false";
}

static void print_json(const MapEntry *e, int64_t first)
{
    printf("%s{ \"start\": %" PRIi64 ", \"length\": %" PRIi64
           ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
           e->start > first ? ",\n" : "", e->start, e->length, e->depth,
           bool_text(e->flags & BDRV_BLOCK_ALLOCATED),
           bool_text(e->flags & BDRV_BLOCK_ZERO),
           bool_text(e->flags & BDRV_BLOCK_DATA));
    if (e->flags & BDRV_BLOCK_OFFSET_VALID) {
        printf(", \"offset\": %" PRIi64, e->offset);
    }
    putchar('}');
}

/* ---- the command ---- */

static bool coroutine_fn co_map(BlockBackend *blk, int64_t start, int64_t end,
                                bool json)
{
    BlockDriverState *bs = blk_bs(blk);
    MapEntry current = { 0 };
    int64_t first = start;

    while (start < end) {
        MapEntry next;
        int ret = co_get_entry(bs, start, end - start, &next);

        if (ret < 0) {
            error_report("Failed to read image metadata: %s", strerror(-ret));
            return false;
        }
        start += next.length;
        if (current.length && can_merge(&current, &next)) {
            current.length += next.length;
            continue;
        }
        if (current.length && !(json ? (print_json(&current, first), true)
                                     : print_human(&current))) {
            return false;
        }
        current = next;
    }
    if (current.length && json) {
        print_json(&current, first);
    }
    return json || !current.length || print_human(&current);
}

/* The range that is asked for; false if it is none. */
static bool get_range(const ImgArgs *args, int64_t length, int64_t *start,
                      int64_t *end)
{
    int64_t max = INT64_MAX;

    *start = 0;
    if (args->given['s']) {
        *start = img_size_arg("start offset", args->value['s']);
    }
    if (args->given['l']) {
        max = img_size_arg("max length", args->value['l']);
    }
    if (*start < 0 || max < 0) {
        return false;
    }
    *end = max < length - *start ? *start + max : length;
    return true;
}

int coroutine_fn img_co_map(const ImgArgs *args)
{
    ImgOpen open = {
        .image_opts = args->given[IMG_IMAGE_OPTS],
        .format = args->value['f'],
        .force_share = args->given['U'],
        .inspect = true,
    };
    int64_t start, end;
    BlockBackend *blk;
    bool ok;

    if (args->n_names != 1) {
        return img_usage_error("Expecting one image file name");
    }
    open.name = args->names[0];
    blk = img_co_open(&open);
    if (!blk) {
        return EXIT_FAILURE;
    }
    ok = get_range(args, blk_getlength(blk), &start, &end);
    if (ok) {
        fputs(args->json ? "[" : "Offset          Length          "
              "Mapped to       File\n", stdout);
        blk_co_begin_request(blk);
        ok = co_map(blk, start, end, args->json);
        blk_end_request(blk);
        if (args->json) {
            puts("]");
        }
    }
    blk_co_free(blk);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
