/* SPDX-License-Identifier: MIT */
/*
 * qcow2 images whose mapping turns out to be broken while they are in use:
 * whoever comes upon it gets an error, the event says where it is, the image is
 * marked as corrupt (if its version can be), and nothing is written any more;
 * what is intact can still be read.
 */
#include <errno.h>

#include "qapi/event.h"
#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"
#include "tests/unit/qcow2-image.h"

#define KiB 1024
#define INTACT (1024 * KiB)     /* another cluster with data */

static char *dir, *path;

/* ---- images ---- */

typedef struct Case {
    const char *name;
    const char *create;         /* -o of qemu-img */
    uint64_t l1, l2, bits;      /* to be flipped: in the L1 entry, L2 entry and
                                   subcluster bits of guest cluster 0 */
    bool zero;                  /* it is a zero cluster with data */
    const char *message;        /* where N stands for any number */
} Case;

#define UNALIGNED 0x200

static const Case cases[] = {
    { "l1/v2", "compat=0.10", .l1 = UNALIGNED,
      .message = "L2 table offset N unaligned (L1 index: 0)" },
    { "l1/v3", "compat=1.1", .l1 = UNALIGNED,
      .message = "L2 table offset N unaligned (L1 index: 0)" },
    { "data", "compat=1.1", .l2 = UNALIGNED, .message =
      "Data cluster offset N unaligned (L2 offset: N, L2 index: 0)" },
    { "data/v2", "compat=0.10", .l2 = UNALIGNED, .message =
      "Data cluster offset N unaligned (L2 offset: N, L2 index: 0)" },
    { "zero", "compat=1.1", .l2 = UNALIGNED, .zero = true, .message =
      "Preallocated zero cluster offset N unaligned (L2 offset: N, "
      "L2 index: 0)" },
    { "extended/data", "extended_l2=on", .l2 = UNALIGNED, .message =
      "Data cluster offset N unaligned (L2 offset: N, L2 index: 0)" },
    { "extended/both", "extended_l2=on", .bits = UINT64_C(0xf) << 32,
      .message = "Invalid cluster entry found (L2 offset: N, L2 index: 0)" },
    /* What begins in the third, unallocated, meets the broken fourth. */
    { "extended/later", "extended_l2=on", .bits = UINT64_C(0xa) << 32 | 4,
      .message = "Invalid cluster entry found (L2 offset: N, L2 index: 0)" },
    { "compressed/data-file", "data_file=ext", .l2 = QCOW2_OFLAG_COMPRESSED,
      .message = "Compressed cluster entry found in image with external data "
      "file (L2 offset: N, L2 index: 0)" },
};

static void flip(TestImage *im, uint64_t at, uint64_t bits)
{
    test_image_set(im, at, test_image_get(im, at) ^ bits);
}

static void make(const Case *c)
{
    TestImage im;
    uint64_t l2;

    image_test_run("qemu-img create -q -f qcow2 -o %s %s 64M", c->create, path);
    image_test_run("qemu-io -f qcow2 -c 'write -q 0 64k' -c 'write -q -P 7 1M "
                   "64k' %s %s", c->zero ? "-c 'write -q -z 0 64k'" : "", path);
    test_image_load(&im, path);
    l2 = test_image_get(&im, im.h.l1_table_offset) & QCOW2_L1E_OFFSET_MASK;
    flip(&im, l2, c->l2);
    if (c->bits) {
        flip(&im, l2 + 8, c->bits);
    }
    flip(&im, im.h.l1_table_offset, c->l1);
    test_image_save(&im, path);
    test_image_free(&im);
}

/* The bytes of the file, but for the corrupt bit. */
static GBytes *contents(bool *marked)
{
    char *data;
    gsize len;

    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    *marked = data[7] == 3 && (data[79] & QCOW2_INCOMPAT_CORRUPT);
    data[79] &= ~QCOW2_INCOMPAT_CORRUPT;
    return g_bytes_new_take(data, len);
}

/* ---- events ---- */

static unsigned n_events;
static bool was_fatal;
static char *message;

static void note_event(QAPIEvent event, QDict *dict)
{
    const QDict *data = qdict_get_qdict(dict, "data");

    g_assert_cmpint(event, ==, QAPI_EVENT_BLOCK_IMAGE_CORRUPTED);
    g_assert_cmpstr(qdict_get_str(data, "node-name"), ==, "node");
    n_events++;
    was_fatal = qdict_get_bool(data, "fatal", false);
    g_free(message);
    message = g_strdup(qdict_get_str(data, "msg"));
    qobject_unref(dict);
}

static void assert_event(const Case *c, bool fatal)
{
    g_autoptr(GRegex) number = g_regex_new("0x[0-9a-f]+", 0, 0, NULL);
    g_autofree char *text = g_regex_replace_literal(number, message, -1, 0,
                                                    "N", 0, NULL);

    g_assert_cmpuint(n_events, ==, 1);
    g_assert_cmpstr(text, ==, c->message);
    g_assert_true(was_fatal == fatal);
    g_clear_pointer(&message, g_free);
    n_events = 0;
}

/* ---- use ---- */

static BlockDriverState *node;
static BlockBackend *user;

static void coroutine_fn co_open(bool read_only)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'discard': 'unmap', "
        "'read-only': %s, 'file': {'driver': 'file', 'filename': '%s'}}",
        read_only ? "true" : "false", path);

    node = block_test_co_open(json);
    user = block_test_co_attach(node, "user", read_only
                                ? BLK_PERM_CONSISTENT_READ : BLK_PERM_ALL,
                                BLK_PERM_ALL);
    blk_co_begin_request(user);
    qapi_event_set_emitter(note_event);
}

static void coroutine_fn co_close(void)
{
    blk_end_request(user);
    blk_co_free(user);
    block_test_co_close(node);
    qapi_event_set_emitter(NULL);
}

static int coroutine_fn co_read(int64_t offset)
{
    static uint8_t buf[4 * KiB];
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    ret = blk_co_preadv(user, offset, &qiov, 0);
    if (ret >= 0) {
        g_assert_cmpint(buf[0], ==, 7);
        g_assert_cmpint(buf[4 * KiB - 1], ==, 7);
    }
    return ret;
}

static int coroutine_fn co_write(int64_t offset, BdrvRequestFlags flags)
{
    static uint8_t buf[64 * KiB];
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    return blk_co_pwritev(user, offset, &qiov, flags);
}

static void coroutine_fn co_reads(const Case *c)
{
    g_assert_cmpint(co_read(0), ==, -EIO);
    g_assert_cmpint(co_read(4 * KiB), ==, -EIO);
    g_assert_cmpint(co_read(INTACT), ==, c->l1 ? -EIO : 0);
}

static void coroutine_fn co_changes(void)
{
    Error *err = NULL;

    for (int64_t offset = 0; offset <= 2 * INTACT; offset += INTACT) {
        g_assert_cmpint(co_write(offset, 0), ==, -EIO);
        g_assert_cmpint(blk_co_pwrite_zeroes(user, offset, 64 * KiB,
                                             BDRV_REQ_MAY_UNMAP), ==, -EIO);
        g_assert_cmpint(blk_co_pdiscard(user, offset, 64 * KiB), ==, -EIO);
    }
    g_assert_cmpint(co_write(INTACT, BDRV_REQ_WRITE_COMPRESSED), <, 0);
    g_assert_cmpint(blk_co_truncate(user, 128 * INTACT, PREALLOC_MODE_OFF, 0,
                                    &err), ==, -EIO);
    node_test_assert_error(err, "The image is corrupt");
    err = NULL;
    g_assert_false(node->drv->bdrv_can_store_bitmap(node, "b", 65536, &err));
    node_test_assert_error(err, "The image is corrupt");
}

static void coroutine_fn co_test(void *opaque)
{
    const Case *c = opaque;
    bool is_v2 = strstr(c->create, "0.10"), marked;
    g_autoptr(GBytes) before = NULL, read = NULL, after = NULL;

    make(c);
    before = contents(&marked);
    co_open(true);
    co_reads(c);
    co_close();
    assert_event(c, false);
    read = contents(&marked);
    g_assert_false(marked);
    g_assert_true(g_bytes_equal(before, read));

    /* A write may be the first to come upon it, too. */
    co_open(false);
    g_assert_cmpint(c->zero ? co_read(0) : co_write(4 * KiB, 0), ==, -EIO);
    co_changes();
    co_reads(c);
    co_close();
    assert_event(c, true);
    after = contents(&marked);
    g_assert_true(marked == !is_v2);
    g_assert_true(g_bytes_equal(before, after));

    if (marked) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'qcow2', 'node-name': 'node', 'file': {'driver': "
            "'file', 'filename': '%s'}}", path);

        block_test_co_open_fails(json, "qcow2: Image is corrupt; cannot be "
                                 "opened read/write");
        co_open(true);
        co_reads(c);
        co_close();
        assert_event(c, false);
    }
}

int main(int argc, char **argv)
{
    int ret;

    if (!image_test_init(&argc, &argv)) {
        return 0;
    }
    dir = image_test_folder("qsd-corrupt");
    path = g_build_filename(dir, "image", NULL);
    /* A data file's name is relative to it. */
    g_assert_cmpint(g_chdir(dir), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        block_test_add_one(AIO_BACKEND_EPOLL, co_test, &cases[i],
                           "/qcow2/corrupt/%s", cases[i].name);
    }
    ret = g_test_run();
    g_assert_cmpint(g_chdir("/"), ==, 0);
    image_test_run("rm -r %s", dir);
    g_free(path);
    g_free(dir);
    return ret;
}
