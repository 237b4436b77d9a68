/* SPDX-License-Identifier: MIT */
/*
 * qcow2: growing, shrinking and preallocating, judged by qemu-img.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"

#define KiB 1024
#define MiB (1024 * 1024)
#define SHADOW_BYTES (64 * MiB)

static char *dir, *path, *data_path, *base_path;

/* ---- kinds of images ---- */

typedef struct Kind {
    const char *name;
    const char *create;         /* -o; %s is the data file */
    bool data_file, raw_data;
    bool v2;
    bool uncounted;             /* refcounts have no room for snapshots */
} Kind;

static const Kind kinds[] = {
    { "default", "compat=1.1" },
    { "512", "cluster_size=512" },
    { "4k", "cluster_size=4k" },
    { "2M", "cluster_size=2M" },
    { "extended-l2", "extended_l2=on" },
    { "refcount-1", "refcount_bits=1", .uncounted = true },
    { "lazy", "lazy_refcounts=on" },
    { "v2", "compat=0.10", .v2 = true },
    { "data-file", "data_file=%s", .data_file = true },
    { "data-file-raw", "data_file=%s,data_file_raw=on", .data_file = true,
      .raw_data = true },
};

typedef struct Disk {
    const Kind *kind;
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t *shadow;
    int64_t len;
} Disk;

static void make(const Kind *kind, const char *more, int64_t len)
{
    g_auto(GStrv) parts = g_strsplit(kind->create, "%s", 2);
    g_autofree char *options = g_strjoinv(data_path, parts);

    g_unlink(data_path);
    image_test_run("qemu-img create -q -f qcow2 -o %s %s %s %" PRIi64, options,
                   more, path, len);
}

static void coroutine_fn co_open(Disk *d)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'qcow2', 'node-name': 'node', 'discard': 'unmap', "
        "'file': {'driver': 'file', 'filename': '%s'}}", path);

    d->bs = block_test_co_open(json);
    d->blk = block_test_co_attach(d->bs, "user", BLK_PERM_ALL, BLK_PERM_ALL);
}

static void coroutine_fn co_close(Disk *d)
{
    blk_co_free(d->blk);
    block_test_co_close(d->bs);
}

static void coroutine_fn co_start(Disk *d, const Kind *kind, const char *more,
                                  int64_t len)
{
    *d = (Disk) { .kind = kind, .len = len };
    d->shadow = g_malloc0(SHADOW_BYTES);
    make(kind, more, len);
    co_open(d);
}

static void coroutine_fn co_write(Disk *d, int64_t offset, int64_t bytes,
                                  int fill)
{
    QEMUIOVector qiov;

    memset(d->shadow + offset, fill, bytes);
    qemu_iovec_init_buf(&qiov, d->shadow + offset, bytes);
    blk_co_begin_request(d->blk);
    g_assert_cmpint(blk_co_pwritev(d->blk, offset, &qiov, 0), >=, 0);
    blk_end_request(d->blk);
}

static void coroutine_fn co_verify(Disk *d)
{
    g_autofree uint8_t *buf = g_malloc(d->len + 1);
    QEMUIOVector qiov;

    g_assert_cmpint(blk_getlength(d->blk), ==, d->len);
    qemu_iovec_init_buf(&qiov, buf, d->len);
    blk_co_begin_request(d->blk);
    g_assert_cmpint(blk_co_preadv(d->blk, 0, &qiov, 0), >=, 0);
    blk_end_request(d->blk);
    g_assert_true(!memcmp(buf, d->shadow, d->len));
}

static int coroutine_fn co_try_resize(Disk *d, int64_t len, PreallocMode mode,
                                      Error **errp)
{
    int ret;

    blk_co_begin_request(d->blk);
    ret = blk_co_truncate(d->blk, len, mode, 0, errp);
    blk_end_request(d->blk);
    return ret;
}

static void coroutine_fn co_resize(Disk *d, int64_t len, PreallocMode mode)
{
    Error *err = NULL;
    int ret = co_try_resize(d, len, mode, &err);

    node_test_no_error(err);
    g_assert_cmpint(ret, >=, 0);
    if (len < d->len) {
        memset(d->shadow + len, 0, MIN(d->len, SHADOW_BYTES) - len);
    }
    d->len = len;
    co_verify(d);
}

static void coroutine_fn co_refuse(Disk *d, int64_t len, PreallocMode mode,
                                   const char *text)
{
    Error *err = NULL;

    g_assert_cmpint(co_try_resize(d, len, mode, &err), <, 0);
    node_test_assert_error(err, text);
    g_assert_cmpint(blk_getlength(d->blk), ==, d->len);
}

/* Close the image and let others look at it. */
static void coroutine_fn co_judge(Disk *d)
{
    g_autofree char *flat = g_build_filename(dir, "flat", NULL);
    g_autoptr(GError) error = NULL;

    co_close(d);
    image_test_run("qemu-img check -q %s", path);
    g_file_set_contents(flat, (char *)d->shadow, d->len, &error);
    g_assert_no_error(error);
    image_test_run("qemu-img compare -q -f qcow2 -F raw %s %s", path, flat);
    if (d->kind->raw_data) {
        image_test_run("qemu-img compare -q -f raw -F raw %s %s", data_path,
                       flat);
    }
    g_unlink(flat);
}

static void coroutine_fn co_end(Disk *d)
{
    co_judge(d);
    g_free(d->shadow);
}

static int64_t file_size(const char *name)
{
    GStatBuf st;

    g_assert_cmpint(g_stat(name, &st), ==, 0);
    return st.st_size;
}

/* ---- growing and shrinking ---- */

static void coroutine_fn co_test_grow(void *opaque)
{
    Disk d;

    co_start(&d, opaque, "", 5 * MiB + 512);
    co_write(&d, 0, 5 * MiB + 512, 0x11);
    co_resize(&d, 5 * MiB + 1024, PREALLOC_MODE_OFF);
    co_resize(&d, 40 * MiB, PREALLOC_MODE_OFF);
    co_write(&d, 39 * MiB + 100, MiB - 100, 0x22);
    co_verify(&d);
    co_judge(&d);
    co_open(&d);
    co_verify(&d);
    co_end(&d);
}

static void coroutine_fn co_test_shrink(void *opaque)
{
    Disk d;

    co_start(&d, opaque, "", 40 * MiB);
    co_write(&d, 0, 40 * MiB, 0x33);
    if (d.kind->data_file) {
        co_resize(&d, 20 * MiB + 512, PREALLOC_MODE_OFF);
        g_assert_cmpint(file_size(data_path), ==, 20 * MiB + 512);
    } else {
        int64_t theirs;

        co_close(&d);
        image_test_run("cp %s %s", path, base_path);
        image_test_run("qemu-img resize -q --shrink %s %d", base_path,
                   20 * MiB + 512);
        theirs = file_size(base_path);
        co_open(&d);
        co_resize(&d, 20 * MiB + 512, PREALLOC_MODE_OFF);
        g_assert_cmpint(file_size(path), <=, theirs);
    }
    /* What was cut off does not come back. */
    co_resize(&d, 30 * MiB, PREALLOC_MODE_OFF);
    co_write(&d, 25 * MiB, MiB, 0x44);
    co_resize(&d, 10 * MiB, PREALLOC_MODE_OFF);
    co_judge(&d);
    co_open(&d);
    co_resize(&d, 0, PREALLOC_MODE_OFF);
    co_resize(&d, MiB, PREALLOC_MODE_OFF);
    co_write(&d, 0, MiB, 0x55);
    co_end(&d);
}

/* The end of the disk cuts a cluster, which another program makes visible. */
static void coroutine_fn co_test_tail(void *opaque)
{
    Disk d;

    co_start(&d, opaque, "", 4 * MiB);
    co_write(&d, 0, 4 * MiB, 0x66);
    co_resize(&d, 3 * MiB + 512, PREALLOC_MODE_OFF);
    co_judge(&d);
    image_test_run("qemu-img resize -q -f qcow2 %s 5M", path);
    d.len = 5 * MiB;
    co_open(&d);
    co_verify(&d);
    co_end(&d);
}

/* Another program has made the disk shorter, by its length and nothing else. */
static void cut_header(int64_t len)
{
    int64_t field = GINT64_TO_BE(len);
    int fd = g_open(path, O_WRONLY | O_CLOEXEC, 0);

    g_assert_cmpint(pwrite(fd, &field, sizeof(field), 24), ==, sizeof(field));
    close(fd);
}

/* What is mapped behind the end never shows. */
static void coroutine_fn co_test_behind_end(void *opaque)
{
    for (PreallocMode mode = 0; mode < PREALLOC_MODE__MAX; mode++) {
        int64_t end = mode % 2 ? 2 * MiB : 2 * MiB + 512;
        Disk d;

        co_start(&d, opaque, "", 4 * MiB);
        co_write(&d, MiB, 3 * MiB, 0x6b);
        co_close(&d);
        cut_header(end);
        memset(d.shadow + end, 0, 4 * MiB - end);
        d.len = end;
        co_open(&d);
        co_verify(&d);
        co_resize(&d, 5 * MiB, mode);
        co_write(&d, 3 * MiB + 700, 100, 0x7c);
        co_end(&d);
    }
}

/* The L1 table moves. */
static void coroutine_fn co_test_l1(void *opaque)
{
    Disk d;

    co_start(&d, opaque, "", MiB);
    co_write(&d, 0, MiB, 0x77);
    for (int64_t len = INT64_C(1) << 30; len <= INT64_C(1) << 40; len <<= 5) {
        Error *err = NULL;

        if (d.kind == &kinds[1] && len > INT64_C(32) << 30) {
            co_refuse(&d, INT64_C(1) << 50, PREALLOC_MODE_OFF,
                      "Failed to grow the L1 table: File too large");
            break;
        }
        co_try_resize(&d, len, PREALLOC_MODE_OFF, &err);
        node_test_no_error(err);
        d.len = len;
        g_assert_cmpint(blk_getlength(d.blk), ==, len);
    }
    co_close(&d);
    image_test_run("qemu-img check -q %s", path);
    co_open(&d);
    co_resize(&d, 2 * MiB, PREALLOC_MODE_OFF);
    co_end(&d);
}

/* ---- preallocation ---- */

static void coroutine_fn co_test_preallocation(void *opaque)
{
    for (PreallocMode mode = 0; mode < PREALLOC_MODE__MAX; mode++) {
        int64_t size;
        Disk d;

        co_start(&d, opaque, "", MiB + 512);
        if (d.kind->v2 && mode == PREALLOC_MODE_OFF) {
            co_end(&d);
            continue;
        }
        co_write(&d, 300 * KiB, 200 * KiB, 0x12);
        co_resize(&d, 21 * MiB, mode);
        size = file_size(d.kind->data_file ? data_path : path);
        co_write(&d, 7 * MiB + 5, 3 * MiB, 0x23);
        co_verify(&d);
        if (mode != PREALLOC_MODE_OFF) {
            /* Nothing was allocated for the write. */
            g_assert_cmpint(size, >=, 20 * MiB);
            g_assert_cmpint(file_size(d.kind->data_file ? data_path : path),
                            ==, size);
        }
        co_end(&d);
    }
}

static int64_t blocks_of(const char *name)
{
    GStatBuf st;

    g_assert_cmpint(g_stat(name, &st), ==, 0);
    return st.st_blocks;
}

/* Files may not get longer than this, as on a disk that is full. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &limit), ==, 0);
    limit.rlim_cur = MIN(bytes, limit.rlim_max);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
}

/* Preallocation that fails on its way gives back what it has taken. */
static void coroutine_fn co_test_failing(void *opaque)
{
    for (PreallocMode mode = PREALLOC_MODE_METADATA;
         mode <= PREALLOC_MODE_FALLOC; mode++) {
        int64_t old_blocks;
        Error *err = NULL;
        int ret;
        Disk d;

        co_start(&d, opaque, "", MiB + 512);
        co_write(&d, 0, MiB, 0x12);
        co_close(&d);
        old_blocks = blocks_of(path);
        co_open(&d);
        limit_files(10 * MiB);
        ret = co_try_resize(&d, 40 * MiB, mode, &err);
        limit_files(RLIM_INFINITY);
        g_assert_cmpint(ret, ==, -EFBIG);
        error_free(err);
        co_verify(&d);
        co_judge(&d);
        /* Tables have grown, by two clusters at most. */
        g_assert_cmpint(blocks_of(path) - old_blocks, <=, 2 * 2 * MiB / 512);
        if (d.kind->data_file) {
            g_assert_cmpint(file_size(data_path), ==, MiB + 512);
        }
        co_open(&d);
        co_resize(&d, 30 * MiB, mode);
        co_end(&d);
    }
}

static void coroutine_fn co_test_refusals(void *opaque)
{
    Disk d;

    co_start(&d, opaque, "", 4 * MiB);
    co_refuse(&d, 4 * MiB + 1, PREALLOC_MODE_OFF,
              "The new size must be a multiple of 512");
    co_refuse(&d, MiB, PREALLOC_MODE_FULL,
              "Preallocation can't be used for shrinking files");
    co_end(&d);
}

/* ---- backing and snapshots ---- */

/* What a longer backing has does not come to light. */
static void coroutine_fn co_test_backing(void *opaque)
{
    g_autofree char *more = g_strdup_printf("-b %s -F raw", base_path);
    const Kind *kind = opaque;
    g_autofree char *base = g_malloc(8 * MiB);
    g_autoptr(GError) error = NULL;

    if (kind->raw_data) {
        g_test_skip("a raw data file has no backing");
        return;
    }
    memset(base, 0x5a, 8 * MiB);
    g_file_set_contents(base_path, base, 8 * MiB, &error);
    g_assert_no_error(error);
    for (PreallocMode mode = 0; mode < PREALLOC_MODE__MAX; mode++) {
        Disk d;

        co_start(&d, kind, more, 2 * MiB + 512);
        memset(d.shadow, 0x5a, 2 * MiB + 512);
        co_verify(&d);
        co_write(&d, MiB, 10, 0x34);
        co_resize(&d, 12 * MiB, mode);
        co_write(&d, 5 * MiB + 100, 100, 0x45);
        co_verify(&d);
        co_resize(&d, 3 * MiB, PREALLOC_MODE_OFF);
        co_resize(&d, 4 * MiB, PREALLOC_MODE_OFF);
        co_end(&d);
    }
}

static void coroutine_fn co_test_snapshot(void *opaque)
{
    const Kind *kind = opaque;
    Disk d;

    if (kind->data_file || kind->uncounted) {
        g_test_skip("no snapshots here");
        return;
    }
    co_start(&d, kind, "", 8 * MiB);
    co_write(&d, 0, 8 * MiB, 0x56);
    co_close(&d);
    image_test_run("qemu-img snapshot -c s %s", path);
    co_open(&d);
    if (kind->v2) {
        co_refuse(&d, 4 * MiB, PREALLOC_MODE_OFF,
                  "Can't resize a v2 image which has snapshots");
        co_refuse(&d, 9 * MiB, PREALLOC_MODE_OFF,
                  "Can't resize a v2 image which has snapshots");
        co_end(&d);
        return;
    }
    co_resize(&d, 2 * MiB, PREALLOC_MODE_OFF);
    co_resize(&d, 16 * MiB, PREALLOC_MODE_OFF);
    co_write(&d, 3 * MiB, 5 * MiB, 0x67);
    co_judge(&d);
    image_test_run("qemu-img snapshot -a s %s", path);
    memset(d.shadow, 0x56, 8 * MiB);
    d.len = 8 * MiB;
    co_open(&d);
    co_verify(&d);
    co_end(&d);
}

/* ---- requests that reach the end, while it moves ---- */

#define END (1 * MiB - 1024)        /* in the middle of a cluster */

typedef struct Growing {
    Disk *d;
    WaitSet done;
    bool ended;
} Growing;

static bool has_grown(void *opaque)
{
    return ((Growing *)opaque)->ended;
}

/* Grow, and at once write what is new in the cluster of the old end. */
static void coroutine_fn grow_entry(void *opaque)
{
    Growing *g = opaque;
    Disk *d = g->d;
    Error *err = NULL;

    blk_co_begin_request(d->blk);
    blk_co_truncate(d->blk, 8 * MiB, PREALLOC_MODE_OFF, BDRV_REQ_ZERO_WRITE,
                    &err);
    blk_end_request(d->blk);
    node_test_no_error(err);
    co_write(d, END, 512, 0x78);
    g->ended = true;
    wait_set_wake(&g->done);
}

static int coroutine_fn co_reach_end(Disk *d, int how)
{
    int64_t start = 1 * MiB - 4096;
    g_autofree void *buf = g_malloc0(4096);
    QEMUIOVector qiov;
    int ret;

    memset(buf, 0x9a, 4096);
    qemu_iovec_init_buf(&qiov, buf, END - start);
    blk_co_begin_request(d->blk);
    ret = how == 0 ? blk_co_pwrite_zeroes(d->blk, start, END - start,
                                          BDRV_REQ_MAY_UNMAP)
          : how == 1 ? blk_co_pdiscard(d->blk, start, END - start)
                     : blk_co_pwritev(d->blk, start, &qiov,
                                      BDRV_REQ_WRITE_COMPRESSED);
    blk_end_request(d->blk);
    return ret;
}

/*
 * What a request does to the rest of the last cluster it must do before the
 * disk grows, or not at all.
 */
static void coroutine_fn co_test_moving_end(void *opaque)
{
    for (int how = 0; how < 3; how++) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'qcow2', 'node-name': 'node', 'discard': 'unmap', "
            "'file': {'driver': 'blkdebug', 'image': {'driver': 'file', "
            "'filename': '%s'}, 'inject-error': [{'event': "
            "'l1_grow_write_table', 'errno': 0, 'once': true, 'delay-ns': "
            "20000000}]}}", path);
        uint8_t *buf = g_malloc(512);
        Disk d = { .shadow = g_malloc0(SHADOW_BYTES) };
        Growing g = { .d = &d };
        QEMUIOVector qiov;
        int ret;

        image_test_run("qemu-img create -q -f qcow2 -o cluster_size=4k %s %d",
                   path, END);
        d.bs = block_test_co_open(json);
        d.blk = block_test_co_attach(d.bs, "user", BLK_PERM_ALL, BLK_PERM_ALL);
        co_write(&d, 0, END, 0x67);
        wait_set_init(&g.done);
        coroutine_enter(coroutine_create(grow_entry, &g));
        g_assert_false(g.ended);
        ret = co_reach_end(&d, how);
        g_assert_true(ret == 0 || (how == 2 && ret == -EINVAL));
        g_assert_cmpint(blk_getlength(d.blk), ==, 8 * MiB);
        wait_set_co_wait(&g.done, has_grown, &g);
        wait_set_deinit(&g.done);

        qemu_iovec_init_buf(&qiov, buf, 512);
        blk_co_begin_request(d.blk);
        g_assert_cmpint(blk_co_preadv(d.blk, END, &qiov, 0), ==, 0);
        blk_end_request(d.blk);
        g_assert_true(memcmp(buf, d.shadow + END, 512) == 0);
        co_close(&d);
        image_test_run("qemu-img check -q %s", path);
        g_free(d.shadow);
        g_free(buf);
    }
}

/* ---- main ---- */

static void add_all(const char *name, CoroutineEntry *entry)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        block_test_add_one(AIO_BACKEND_AUTO, entry, &kinds[i],
                           "/qcow2-resize/%s/%s", name, kinds[i].name);
    }
}

int main(int argc, char **argv)
{
    int ret;

    if (!image_test_init(&argc, &argv)) {
        return 0;
    }
    signal(SIGXFSZ, SIG_IGN);
    dir = image_test_folder("qsd-resize");
    path = g_build_filename(dir, "image", NULL);
    data_path = g_build_filename(dir, "data", NULL);
    base_path = g_build_filename(dir, "base", NULL);
    add_all("grow", co_test_grow);
    add_all("shrink", co_test_shrink);
    add_all("tail", co_test_tail);
    add_all("behind-end", co_test_behind_end);
    add_all("l1", co_test_l1);
    add_all("preallocation", co_test_preallocation);
    add_all("failing", co_test_failing);
    add_all("refusals", co_test_refusals);
    add_all("backing", co_test_backing);
    add_all("snapshot", co_test_snapshot);
    block_test_add("/qcow2-resize/moving-end", co_test_moving_end, NULL);
    ret = g_test_run();
    image_test_run("rm -r %s", dir);
    g_free(path);
    g_free(data_path);
    g_free(base_path);
    g_free(dir);
    return ret;
}
