/* SPDX-License-Identifier: MIT */
/*
 * qsd-img info: what is known of an image, or of a chain of them.
 */
#include "qsd-img/qsd-img.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "block/image.h"
#include "qapi/visit.h"

/* ---- for people ---- */

/* A driver's own information, whatever it is. */
static void print_any(int indent, const QObject *obj);

static void print_item(int indent, const char *name, const QObject *value)
{
    QType type = qobject_type(value);
    bool nested = type == QTYPE_QDICT || type == QTYPE_QLIST;

    printf("%*s%s:%s", indent * 4, "", name, nested ? "\n" : " ");
    print_any(indent + 1, value);
    if (!nested) {
        putchar('\n');
    }
}

/* Members in the order in which qemu-img has them, then all others. */
static QDict *in_usual_order(const QDict *dict)
{
    static const char *const order[] = {
        "compat", "compression-type", "lazy-refcounts", "bitmaps",
        "refcount-bits", "data-file", "data-file-raw", "encrypt", "corrupt",
        "extended-l2", "ivgen-alg", "ivgen-hash-alg", "detached-header",
        "hash-alg", "cipher-alg", "uuid", "format", "cipher-mode", "slots",
        "payload-offset", "master-key-iters", "active", "iters", "key-offset",
        "stripes", "flags", "name", "granularity",
    };
    QDict *sorted = qdict_new();

    for (size_t i = 0; i < G_N_ELEMENTS(order); i++) {
        QObject *value = qdict_get(dict, order[i]);

        if (value) {
            qdict_put_obj(sorted, order[i], qobject_ref(value));
        }
    }
    for (size_t i = 0; i < qdict_size(dict); i++) {
        if (!qdict_haskey(sorted, qdict_key_at(dict, i))) {
            qdict_put_obj(sorted, qdict_key_at(dict, i),
                          qobject_ref(qdict_value_at(dict, i)));
        }
    }
    return sorted;
}

static void print_dict(int indent, const QDict *unsorted)
{
    g_autoptr(QDict) dict = in_usual_order(unsorted);

    for (size_t i = 0; i < qdict_size(dict); i++) {
        g_autofree char *name = g_strdelimit(g_strdup(qdict_key_at(dict, i)),
                                             "-", ' ');

        print_item(indent, name, qdict_value_at(dict, i));
    }
}

static void print_list(int indent, const QList *list)
{
    for (size_t i = 0; i < qlist_size(list); i++) {
        g_autofree char *name = g_strdup_printf("[%zu]", i);

        print_item(indent, name, qlist_at(list, i));
    }
}

static void print_any(int indent, const QObject *obj)
{
    int64_t number;

    switch (qobject_type(obj)) {
    case QTYPE_QDICT:
        print_dict(indent, qobject_to_qdict(obj));
        break;
    case QTYPE_QLIST:
        print_list(indent, qobject_to_qlist(obj));
        break;
    case QTYPE_QSTRING:
        fputs(qstring_get(qobject_to_qstring(obj)), stdout);
        break;
    case QTYPE_QBOOL:
        fputs(qbool_get(qobject_to_qbool(obj)) ? "true" : "false", stdout);
        break;
    case QTYPE_QNUM:
        if (qnum_get_int(qobject_to_qnum(obj), &number)) {
            printf("%" PRIi64, number);
        }
        break;
    default:
        break;
    }
}

static void print_snapshot(const SnapshotInfo *sn)
{
    g_autofree char *size = img_size_text(sn->vm_state_size);
    g_autofree char *icount = sn->has_icount
        ? g_strdup_printf("%" PRIi64, sn->icount) : g_strdup("");
    int64_t seconds = sn->vm_clock_sec;
    char date[32], clock[32];
    struct tm tm;
    time_t t = sn->date_sec;

    if (!localtime_r(&t, &tm)
        || !strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm)) {
        date[0] = '\0';
    }
    g_snprintf(clock, sizeof(clock), "%02" PRIi64 ":%02d:%02d.%03d",
               seconds / 3600, (int)(seconds / 60 % 60), (int)(seconds % 60),
               (int)(sn->vm_clock_nsec / 1000000));
    printf("%-9s %-16s %8s%20s%13s%11s\n", sn->id, sn->name, size, date,
           clock, icount);
}

void img_print_snapshots(const SnapshotInfoList *list)
{
    if (!list) {
        return;
    }
    printf("Snapshot list:\n%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG",
           "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (; list; list = list->next) {
        print_snapshot(list->value);
    }
}

static void print_specific(const ImageInfoSpecific *specific)
{
    g_autoptr(QObject) obj = NULL;
    QObject *data;

    if (!specific) {
        return;
    }
    obj = qapi_to_qobject(&qapi_type_ImageInfoSpecific, specific);
    data = qdict_get(qobject_to_qdict(obj), "data");
    if (qdict_size(qobject_to_qdict(data))) {
        puts("Format specific information:");
        print_any(1, data);
    }
}

static void print_backing(const ImageInfo *info)
{
    if (!info->backing_filename) {
        return;
    }
    printf("backing file: %s", info->backing_filename);
    if (!info->full_backing_filename) {
        printf(" (cannot determine actual path)");
    } else if (strcmp(info->backing_filename, info->full_backing_filename)) {
        printf(" (actual path: %s)", info->full_backing_filename);
    }
    putchar('\n');
    if (info->backing_filename_format) {
        printf("backing file format: %s\n", info->backing_filename_format);
    }
}

static void print_image(const ImageInfo *info)
{
    g_autofree char *virtual_size = img_size_text(info->virtual_size);
    g_autofree char *disk_size = info->has_actual_size
        ? img_size_text(info->actual_size) : g_strdup("unavailable");

    printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRIi64
           " bytes)\ndisk size: %s\n", info->filename, info->format,
           virtual_size, info->virtual_size, disk_size);
    if (info->has_encrypted && info->encrypted) {
        puts("encrypted: yes");
    }
    if (info->has_cluster_size) {
        printf("cluster_size: %" PRIi64 "\n", info->cluster_size);
    }
    if (info->has_dirty_flag && info->dirty_flag) {
        puts("cleanly shut down: no");
    }
    print_backing(info);
    img_print_snapshots(info->snapshots);
    print_specific(info->format_specific);
}

/* ---- the command ---- */

/* What is in 10.1 and later only is left out: nobody asked for it. */
static ImageInfo *coroutine_fn co_image(BlockDriverState *bs, const char *name)
{
    ImageInfo *info = image_co_info(bs);

    g_clear_pointer(&info->limits, qapi_free_BlockLimitsInfo);
    if (name) {
        g_free(info->filename);
        info->filename = g_strdup(name);
    }
    info->has_dirty_flag = true;
    return info;
}

/* The images from @bs on, each with the name that the one above has for it. */
static ImageInfoList *coroutine_fn co_images(BlockDriverState *bs,
                                             const char *name, bool chain)
{
    ImageInfoList *list = NULL, **tail = &list;

    do {
        ImageInfo *info = co_image(bs, name);

        QAPI_LIST_APPEND(tail, info);
        name = info->full_backing_filename;
        bs = chain ? image_backing(bs) : NULL;
    } while (bs);
    return list;
}

static void print_json(const ImageInfoList *list, bool chain)
{
    g_autoptr(QObject) obj = chain
        ? qapi_to_qobject(&qapi_type_ImageInfoList, list)
        : qapi_to_qobject(&qapi_type_ImageInfo, list->value);

    img_print_json(obj);
}

int coroutine_fn img_co_info(const ImgArgs *args)
{
    bool chain = args->given[IMG_BACKING_CHAIN];
    ImgOpen open = {
        .image_opts = args->given[IMG_IMAGE_OPTS],
        .format = args->value['f'],
        .force_share = args->given['U'],
        .no_backing = !chain,
        .inspect = true,
        .no_data = true,
    };
    g_autoptr(ImageInfoList) list = NULL;
    BlockBackend *blk;
    bool is_path;

    if (args->n_names != 1) {
        return img_usage_error("Expecting one image file name");
    }
    open.name = args->names[0];
    is_path = !open.image_opts && !g_str_has_prefix(open.name, "json:");
    blk = img_co_open(&open);
    if (!blk) {
        return EXIT_FAILURE;
    }
    /* Where the name is made of options: not these, but the file. */
    list = co_images(blk_bs(blk), is_path ? img_path(open.name, NULL)
                                          : image_file_below(blk_bs(blk)),
                     chain);
    if (args->json) {
        print_json(list, chain);
    } else {
        for (ImageInfoList *i = list; i; i = i->next) {
            print_image(i->value);
            if (i->next) {
                putchar('\n');
            }
        }
    }
    blk_co_free(blk);
    return EXIT_SUCCESS;
}
