/* SPDX-License-Identifier: MIT */
/*
 * qcow2: compressed clusters: those of qemu-img are read, ours are read by
 * qemu-img, broken ones are errors; from several threads at once.
 */
#include <string.h>

#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"
#include "block/qcow2-format.h"
#include "config-host.h"

#define KiB 1024
#define MiB (1024 * 1024)

#define DISK_BYTES (4 * MiB - 5 * 512)

static char *dir, *path, *flat_path;
static uint8_t *flat;           /* DISK_BYTES of what compresses, and not */

/* Words from a small set; a MiB of noise; a MiB of zeroes. */
static void make_flat(void)
{
    uint32_t seed = 1;

    flat = g_malloc0(DISK_BYTES);
    for (size_t i = 0; i < DISK_BYTES; i++) {
        seed = seed * 1103515245 + 12345;
        flat[i] = i / MiB == 2 ? seed >> 24 : i / MiB == 1 ? 0
                  : "storage daemon"[(seed >> 28) % 14];
    }
}

static void save_flat(const uint8_t *data)
{
    g_autoptr(GError) error = NULL;

    g_file_set_contents(flat_path, (const char *)data, DISK_BYTES, &error);
    g_assert_no_error(error);
}

typedef struct Kind {
    const char *name;
    const char *create;
    int64_t cluster;
} Kind;

static const Kind kinds[] = {
    { "zlib", "compression_type=zlib", 64 * KiB },
    { "zlib-512", "cluster_size=512", 512 },
    { "zlib-2M", "cluster_size=2M", 2 * MiB },
    { "zlib-extended", "extended_l2=on", 64 * KiB },
    { "zlib-v2", "compat=0.10", 64 * KiB },
    { "zlib-lazy", "lazy_refcounts=on", 64 * KiB },
#ifdef CONFIG_ZSTD
    { "zstd", "compression_type=zstd", 64 * KiB },
    { "zstd-4k", "compression_type=zstd,cluster_size=4k", 4 * KiB },
    { "zstd-2M", "compression_type=zstd,cluster_size=2M", 2 * MiB },
#endif
};

typedef struct Disk {
    const Kind *kind;
    BlockDriverState *bs;
    BlockBackend *blk;
    uint8_t *shadow;
} Disk;

static void coroutine_fn co_open(Disk *d, bool filter)
{
    g_autofree char *image = g_strdup_printf(
        "'driver': 'qcow2', 'discard': 'unmap', 'cache-clean-interval': 1, "
        "'file': {'driver': 'file', 'filename': '%s'}", path);
    g_autofree char *json = g_strdup_printf(
        filter ? "{'driver': 'compress', 'node-name': 'node', 'file': {%s}}"
               : "{'node-name': 'node', %s}", image);

    d->bs = block_test_co_open(json);
    d->blk = block_test_co_attach(d->bs, "user", BLK_PERM_CONSISTENT_READ
                                                 | BLK_PERM_WRITE,
                                  BLK_PERM_ALL);
}

static void coroutine_fn co_close(Disk *d)
{
    blk_co_free(d->blk);
    block_test_co_close(d->bs);
}

static int coroutine_fn co_rw(Disk *d, bool write, int64_t offset,
                              int64_t bytes, void *buf,
                              BdrvRequestFlags flags)
{
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    blk_co_begin_request(d->blk);
    ret = write ? blk_co_pwritev(d->blk, offset, &qiov, flags)
                : blk_co_preadv(d->blk, offset, &qiov, flags);
    blk_end_request(d->blk);
    return ret;
}

static void coroutine_fn co_verify(Disk *d, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert_cmpint(co_rw(d, false, offset, bytes, buf, 0), >=, 0);
    g_assert_true(!memcmp(buf, d->shadow + offset, bytes));
}

static void coroutine_fn co_write(Disk *d, int64_t offset, int64_t bytes)
{
    g_assert_cmpint(co_rw(d, true, offset, bytes, d->shadow + offset, 0), >=,
                    0);
}

static void coroutine_fn co_judge(Disk *d)
{
    co_close(d);
    image_test_run("qemu-img check -q %s", path);
    save_flat(d->shadow);
    image_test_run("qemu-img compare -q -f qcow2 -F raw %s %s", path,
                   flat_path);
}

static void coroutine_fn co_start(Disk *d, const Kind *kind, bool filled)
{
    *d = (Disk) { .kind = kind };
    if (filled) {
        save_flat(flat);
        image_test_run("qemu-img convert -c -f raw -O qcow2 -o %s %s %s",
                       kind->create, flat_path, path);
        d->shadow = g_memdup2(flat, DISK_BYTES);
    } else {
        image_test_run("qemu-img create -q -f qcow2 -o %s %s %d", kind->create,
                       path, DISK_BYTES);
        d->shadow = g_malloc0(DISK_BYTES);
    }
}

/* ---- reading ---- */

static void coroutine_fn co_test_read(void *opaque)
{
    Disk d;

    co_start(&d, opaque, true);
    co_open(&d, false);
    co_verify(&d, 0, DISK_BYTES);
    for (int i = 0; i < 100; i++) {
        int64_t offset = g_test_rand_int_range(0, DISK_BYTES);
        int64_t bytes = g_test_rand_int_range(1, 100 * KiB);

        co_verify(&d, offset, MIN(bytes, DISK_BYTES - offset));
    }
    co_judge(&d);
    g_free(d.shadow);
}

/* Writes to parts of compressed clusters, and reads of what is around. */
static void coroutine_fn co_test_overwrite(void *opaque)
{
    Disk d;

    co_start(&d, opaque, true);
    co_open(&d, false);
    for (int i = 0; i < 60; i++) {
        int64_t offset = g_test_rand_int_range(0, DISK_BYTES);
        int64_t bytes = g_test_rand_int_range(1, 20 * KiB);
        int64_t around;

        bytes = MIN(bytes, DISK_BYTES - offset);
        around = MIN(bytes + 1000, DISK_BYTES - offset);
        memset(d.shadow + offset, i + 1, bytes);
        co_write(&d, offset, bytes);
        co_verify(&d, MAX(offset - 1000, 0), around);
    }
    co_verify(&d, 0, DISK_BYTES);
    co_judge(&d);
    g_free(d.shadow);
}

/* ---- writing ---- */

static int64_t qcow2_bytes(void)
{
    GStatBuf st;

    g_assert_cmpint(g_stat(path, &st), ==, 0);
    return st.st_size;
}

static void coroutine_fn co_test_write(void *opaque)
{
    Disk d;
    int64_t cluster;

    co_start(&d, opaque, false);
    cluster = d.kind->cluster;
    co_open(&d, true);
    memcpy(d.shadow, flat, DISK_BYTES);
    co_write(&d, 0, DISK_BYTES);
    co_verify(&d, 0, DISK_BYTES);
    co_judge(&d);
    if (cluster == 64 * KiB) {
        g_assert_cmpint(qcow2_bytes(), <, 3 * MiB);
    }

    /* Once more, differently, in pieces that the filter completes. */
    co_open(&d, true);
    for (int i = 0; i < 30; i++) {
        int64_t offset = g_test_rand_int_range(0, DISK_BYTES);
        int64_t bytes = g_test_rand_int_range(1, 30 * KiB);

        bytes = MIN(bytes, DISK_BYTES - offset);
        memset(d.shadow + offset, i % 8 ? i : 0, bytes);
        co_write(&d, offset, bytes);
    }
    co_verify(&d, 0, DISK_BYTES);
    co_judge(&d);
    g_free(d.shadow);
}

static void coroutine_fn co_test_refusals(void *opaque)
{
    g_autofree char *data_file = g_build_filename(dir, "data", NULL);
    uint8_t *buf = g_malloc0(2 * MiB);
    Disk d;

    co_start(&d, opaque, false);
    co_open(&d, false);
    memset(buf, 1, 2 * MiB);
    g_assert_cmpint(co_rw(&d, true, 512, d.kind->cluster, buf,
                          BDRV_REQ_WRITE_COMPRESSED), ==,
                    d.kind->cluster == 512 ? 0 : -EINVAL);
    g_assert_cmpint(co_rw(&d, true, 0, d.kind->cluster - 1, buf,
                          BDRV_REQ_WRITE_COMPRESSED), ==, -EINVAL);
    co_close(&d);
    image_test_run("qemu-img create -q -f qcow2 -o data_file=%s %s 4M",
                   data_file, path);
    co_open(&d, false);
    g_assert_cmpint(co_rw(&d, true, 0, 64 * KiB, buf,
                          BDRV_REQ_WRITE_COMPRESSED), ==, -ENOTSUP);
    co_close(&d);
    g_unlink(data_file);
    g_free(buf);
    g_free(d.shadow);
}

/* ---- broken data ---- */

static uint64_t read_number(FILE *f, long at)
{
    uint64_t n;

    g_assert_cmpint(fseek(f, at, SEEK_SET), ==, 0);
    g_assert_cmpint(fread(&n, sizeof(n), 1, f), ==, 1);
    return GUINT64_FROM_BE(n);
}

static void write_number(FILE *f, long at, uint64_t n)
{
    n = GUINT64_TO_BE(n);
    g_assert_cmpint(fseek(f, at, SEEK_SET), ==, 0);
    g_assert_cmpint(fwrite(&n, sizeof(n), 1, f), ==, 1);
}

/* Give the first L2 entry @change's bits, and the data at it @data. */
static void spoil(const Kind *kind, uint64_t change, const void *data,
                  size_t len)
{
    FILE *f = fopen(path, "r+");
    unsigned shift = 62 - (__builtin_ctzll(kind->cluster) - 8);
    uint64_t table, entry, host;

    g_assert_nonnull(f);
    table = read_number(f, read_number(f, 40)) & QCOW2_L1E_OFFSET_MASK;
    entry = read_number(f, table) ^ change;
    g_assert_true(entry & QCOW2_OFLAG_COMPRESSED);
    write_number(f, table, entry);
    host = entry & ((UINT64_C(1) << shift) - 1);
    if (len) {
        g_assert_cmpint(fseek(f, host, SEEK_SET), ==, 0);
        g_assert_cmpint(fwrite(data, len, 1, f), ==, 1);
    }
    fclose(f);
}

/* Reading cluster 0 fails, now and again; all others are fine. */
static void coroutine_fn co_expect_error(Disk *d)
{
    int64_t cluster = d->kind->cluster;
    g_autofree uint8_t *buf = g_malloc(cluster);

    co_open(d, false);
    g_assert_cmpint(co_rw(d, false, 0, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(co_rw(d, false, 0, cluster, buf, 0), ==, -EIO);
    g_assert_cmpint(co_rw(d, false, cluster - 1, 1, buf, 0), ==, -EIO);
    co_verify(d, cluster, MIN(cluster, DISK_BYTES - cluster));
    /* It is no reason to refuse writes. */
    memset(d->shadow, 9, cluster);
    co_write(d, 0, cluster);
    co_verify(d, 0, MIN(2 * cluster, DISK_BYTES));
    co_close(d);
    image_test_run("qemu-img check -q %s", path);
    g_free(d->shadow);
}

static void coroutine_fn co_test_garbage(void *opaque)
{
    Disk d;

    co_start(&d, opaque, true);
    spoil(d.kind, 0, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    co_expect_error(&d);
}

/* A stream that ends early, and one that comes from behind the file. */
static void coroutine_fn co_test_short(void *opaque)
{
    /* zlib: one stored block of one byte; zstd: a frame of one byte */
    static const uint8_t zlib_byte[] = { 1, 1, 0, 0xfe, 0xff, 0x41 };
    static const uint8_t zstd_byte[] = {
        0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 9, 0, 0, 0x41,
    };
    Disk d;

    co_start(&d, opaque, true);
    if (strstr(d.kind->create, "zstd")) {
        spoil(d.kind, 0, zstd_byte, sizeof(zstd_byte));
    } else {
        spoil(d.kind, 0, zlib_byte, sizeof(zlib_byte));
    }
    co_expect_error(&d);
}

/* Data that would inflate to far more than a cluster. */
static void coroutine_fn co_test_bomb(void *opaque)
{
    const Kind *kind = opaque;
    g_autofree char *image = NULL;
    Disk d;
    Kind large = { "2M", kind->create, 2 * MiB };
    g_autofree uint8_t *buf = NULL;
    gsize len;

    if (kind->cluster != 64 * KiB || strstr(kind->create, "extended")) {
        g_test_skip("one cluster size is enough");
        return;
    }
    /* A cluster of 2 MiB of the same byte makes a few KiB. */
    large.create = strstr(kind->create, "zstd")
                   ? "compression_type=zstd,cluster_size=2M"
                   : "cluster_size=2M";
    co_start(&d, &large, false);
    memset(d.shadow, 0x41, DISK_BYTES);
    save_flat(d.shadow);
    image_test_run("qemu-img convert -c -f raw -O qcow2 -o %s %s %s",
                   large.create, flat_path, path);
    g_assert_true(g_file_get_contents(path, &image, &len, NULL));
    g_free(d.shadow);

    co_start(&d, kind, true);
    /* Data begin behind header, refcounts, L1 and L2. */
    spoil(kind, 0, image + 5 * 2 * MiB, MIN(len - 5 * 2 * MiB, 2048));
    co_open(&d, false);
    buf = g_malloc(kind->cluster);
    if (co_rw(&d, false, 0, kind->cluster, buf, 0) >= 0) {
        for (int64_t i = 0; i < kind->cluster; i++) {
            g_assert_cmpint(buf[i], ==, 0x41);
        }
    }
    co_verify(&d, kind->cluster, kind->cluster);
    co_close(&d);
    g_free(d.shadow);
}

/* ---- several threads ---- */

typedef struct Reader {
    Disk *d;
    unsigned seed;
    bool writes;
} Reader;

static void coroutine_fn co_reader(void *opaque)
{
    Reader *r = opaque;
    Disk *d = r->d;
    g_autoptr(GRand) rand = g_rand_new_with_seed(r->seed);
    int64_t half = DISK_BYTES / 2;

    for (int i = 0; i < 80; i++) {
        /* The second half belongs to the one that writes. */
        int64_t offset = g_rand_int_range(rand, 0, half);
        int64_t bytes = g_rand_int_range(rand, 1, 8 * KiB);

        bytes = MIN(bytes, half - offset);
        if (r->writes) {
            offset += DISK_BYTES - half;
            memset(d->shadow + offset, i, bytes);
            co_write(d, offset, bytes);
        }
        co_verify(d, offset, bytes);
    }
}

static void coroutine_fn co_test_threads(void *opaque)
{
    BlockTestGang *gang = block_test_gang_new();
    Reader readers[12];
    Disk d;

    co_start(&d, opaque, true);
    co_open(&d, false);
    for (unsigned i = 0; i < G_N_ELEMENTS(readers); i++) {
        readers[i] = (Reader) { &d, i, i == 0 };
        block_test_gang_start(gang, i, co_reader, &readers[i]);
    }
    block_test_gang_co_finish(gang);
    co_judge(&d);
    g_free(d.shadow);
}

/* ---- main ---- */

static void add_all(const char *name, CoroutineEntry *entry)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        block_test_add_one(AIO_BACKEND_AUTO, entry, &kinds[i],
                           "/qcow2-compress/%s/%s", name, kinds[i].name);
    }
}

int main(int argc, char **argv)
{
    int ret;

    if (!image_test_init(&argc, &argv)) {
        return 0;
    }
    dir = image_test_folder("qsd-compress");
    path = g_build_filename(dir, "image", NULL);
    flat_path = g_build_filename(dir, "flat", NULL);
    make_flat();
    add_all("read", co_test_read);
    add_all("overwrite", co_test_overwrite);
    add_all("write", co_test_write);
    add_all("refusals", co_test_refusals);
    add_all("garbage", co_test_garbage);
    add_all("short", co_test_short);
    add_all("bomb", co_test_bomb);
    add_all("threads", co_test_threads);
    ret = g_test_run();
    image_test_run("rm -r %s", dir);
    g_free(path);
    g_free(flat_path);
    g_free(dir);
    g_free(flat);
    return ret;
}
