/* SPDX-License-Identifier: MIT */
/*
 * FUSE operations: bytes in, bytes out, over a real image file.
 */
#include "config-host.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/fuse-test.h"

#define IMAGE_SIZE (1024 * 1024 + 512)

static AioContext *ctx;
static char *image_path;

typedef struct Fixture {
    BlockBackend *blk;
    FuseFile file;
    char *payload;
} Fixture;

typedef struct Call {
    Fixture *f;
    uint32_t opcode;
    const void *arg;
    size_t arg_len, payload_len;
    int ret;
} Call;

/* @node with %s for the image's path. */
static void fixture_setup_node(Fixture *f, const char *node, bool writable,
                               bool growable, bool allow_other)
{
    g_autofree char *data = g_malloc(IMAGE_SIZE);
    g_auto(GStrv) parts = g_strsplit(node, "%s", 2);
    g_autofree char *json = g_strjoinv(image_path, parts);

    for (int i = 0; i < IMAGE_SIZE; i++) {
        data[i] = i % 251;
    }
    g_assert_true(g_file_set_contents(image_path, data, IMAGE_SIZE, NULL));
    *f = (Fixture) { .blk = fuse_test_user_new(json, writable) };
    f->payload = aligned_alloc(4096, FUSE_MAX_IO_BYTES);
    fuse_file_init(&f->file, f->blk, writable, growable, allow_other);
}

static void fixture_setup(Fixture *f, bool writable, bool growable,
                          bool allow_other)
{
    fixture_setup_node(f, "{'driver': 'file', 'node-name': 'f', "
                       "'filename': '%s'}", writable, growable, allow_other);
}

static void fixture_teardown(Fixture *f)
{
    fuse_test_user_free(f->blk);
    free(f->payload);
}

static void coroutine_fn call_co(void *opaque)
{
    Call *c = opaque;
    struct fuse_in_header in = { .opcode = c->opcode, .nodeid = 1 };
    FuseRequest req = {
        .in = &in,
        .arg = c->arg,
        .arg_len = c->arg_len,
        .payload = c->f->payload,
        .payload_len = c->payload_len,
        .payload_size = FUSE_MAX_IO_BYTES,
    };

    blk_co_begin_request(c->f->blk);
    c->ret = fuse_op_co_run(&c->f->file, &req);
    blk_end_request(c->f->blk);
}

static int call(Fixture *f, uint32_t opcode, const void *arg, size_t arg_len,
                size_t payload_len)
{
    Call c = {
        .f = f, .opcode = opcode, .arg = arg, .arg_len = arg_len,
        .payload_len = payload_len,
    };

    co_test_run(call_co, &c);
    g_assert_cmpint(c.ret, >, -512);
    g_assert_cmpint(c.ret, <=, FUSE_MAX_IO_BYTES);
    return c.ret;
}

#define CALL(f, opcode, payload_len, ...) \
    call(f, opcode, &__VA_ARGS__, sizeof(__VA_ARGS__), payload_len)

static int do_read(Fixture *f, uint64_t offset, uint32_t size)
{
    return CALL(f, FUSE_READ, 0,
                (struct fuse_read_in) { .offset = offset, .size = size });
}

static int do_write(Fixture *f, uint64_t offset, uint32_t size)
{
    int ret;

    memset(f->payload, 'w', MIN(size, FUSE_MAX_IO_BYTES));
    ret = CALL(f, FUSE_WRITE, size,
               (struct fuse_write_in) { .offset = offset, .size = size });
    if (ret >= 0) {
        g_assert_cmpint(ret, ==, sizeof(struct fuse_write_out));
        ret = ((struct fuse_write_out *)f->payload)->size;
    }
    return ret;
}

static const struct fuse_attr *do_getattr(Fixture *f)
{
    g_assert_cmpint(CALL(f, FUSE_GETATTR, 0, (struct fuse_getattr_in) { 0 }),
                    ==, sizeof(struct fuse_attr_out));
    return &((struct fuse_attr_out *)f->payload)->attr;
}

static int64_t do_lseek(Fixture *f, uint64_t offset, uint32_t whence)
{
    int ret = CALL(f, FUSE_LSEEK, 0,
                   (struct fuse_lseek_in) { .offset = offset,
                                            .whence = whence });

    return ret < 0 ? ret
                   : (int64_t)((struct fuse_lseek_out *)f->payload)->offset;
}

static int do_fallocate(Fixture *f, uint64_t offset, uint64_t length,
                        uint32_t mode)
{
    return CALL(f, FUSE_FALLOCATE, 0,
                (struct fuse_fallocate_in) { .offset = offset,
                                             .length = length,
                                             .mode = mode });
}

static int do_setattr(Fixture *f, struct fuse_setattr_in in)
{
    return CALL(f, FUSE_SETATTR, 0, in);
}

/* ---- INIT ---- */

static int do_init(FuseFile *file, struct fuse_init_in in, size_t len,
                   struct fuse_init_out *out)
{
    return fuse_init(file, &(FuseRequest) {
        .arg = &in, .arg_len = len, .payload = out,
        .payload_size = sizeof(*out),
    });
}

static void test_init(void)
{
    struct fuse_init_in in = {
        .major = 7, .minor = 42,
        .flags = FUSE_INIT_EXT | FUSE_ASYNC_DIO | FUSE_MAX_PAGES
                 | FUSE_POSIX_LOCKS,
        .flags2 = FUSE_OVER_IO_URING >> 32,
    };
    struct fuse_init_out out;
    FuseFile file = { .offer_uring = true };

    g_assert_cmpint(do_init(&file, in, sizeof(in), &out), ==, sizeof(out));
    g_assert_cmpuint(out.major, ==, 7);
    g_assert_cmpuint(out.max_write, ==, FUSE_MAX_IO_BYTES);
    g_assert_cmpuint(out.max_background, ==, 65535);
    g_assert_cmpuint(out.flags, ==,
                     FUSE_INIT_EXT | FUSE_ASYNC_DIO | FUSE_MAX_PAGES);
    g_assert_cmpuint(out.flags2, ==, FUSE_OVER_IO_URING >> 32);
    /* once only */
    g_assert_cmpint(do_init(&file, in, sizeof(in), &out), ==, -EINVAL);

    /* not offered */
    file = (FuseFile) { 0 };
    do_init(&file, in, sizeof(in), &out);
    g_assert_cmpuint(out.flags2, ==, 0);

    /* the short argument of kernels before 7.36, the short reply before 23 */
    file = (FuseFile) { .offer_uring = true };
    in.minor = 22;
    g_assert_cmpint(do_init(&file, in, 16, &out), ==,
                    FUSE_COMPAT_22_INIT_OUT_SIZE);
    g_assert_cmpuint(out.flags2, ==, 0);

    file = (FuseFile) { 0 };
    in.minor = 8;
    g_assert_cmpint(do_init(&file, in, sizeof(in), &out), ==, -EPROTO);
    in.major = 8;
    g_assert_cmpint(do_init(&file, in, sizeof(in), &out), ==, sizeof(out));
    g_assert_false(file.init_done);
    in.major = 6;
    g_assert_cmpint(do_init(&file, in, sizeof(in), &out), ==, -EPROTO);
    g_assert_cmpint(do_init(&file, in, 15, &out), ==, -EINVAL);
}

/* ---- attributes ---- */

static void test_getattr(void)
{
    const struct fuse_attr *attr;
    Fixture f;

    fixture_setup(&f, true, false, false);
    attr = do_getattr(&f);
    g_assert_cmpuint(attr->ino, ==, 1);
    g_assert_cmpuint(attr->nlink, ==, 1);
    g_assert_cmpuint(attr->size, ==, IMAGE_SIZE);
    g_assert_cmpuint(attr->blocks * 512, >=, IMAGE_SIZE);
    g_assert_cmpuint(attr->mode, ==, S_IFREG | 0600);
    g_assert_cmpuint(attr->uid, ==, getuid());
    fixture_teardown(&f);

    fixture_setup(&f, false, false, false);
    g_assert_cmpuint(do_getattr(&f)->mode, ==, S_IFREG | 0400);
    fixture_teardown(&f);
}

static void test_setattr(void)
{
    struct fuse_setattr_in size = { .valid = FATTR_SIZE, .size = 12345 };
    struct fuse_setattr_in mode = { .valid = FATTR_MODE, .mode = 0400 };
    struct fuse_setattr_in uid = { .valid = FATTR_UID, .uid = 7 };
    Fixture f;

    fixture_setup(&f, true, false, false);
    g_assert_cmpint(do_setattr(&f, size), ==, sizeof(struct fuse_attr_out));
    g_assert_cmpuint(do_getattr(&f)->size, ==, 12345);
    size.size = 2 * IMAGE_SIZE;
    g_assert_cmpint(do_setattr(&f, size), >, 0);
    g_assert_cmpuint(do_getattr(&f)->size, ==, 2 * IMAGE_SIZE);
    size.size = UINT64_MAX;
    g_assert_cmpint(do_setattr(&f, size), ==, -EFBIG);

    g_assert_cmpint(do_setattr(&f, mode), >, 0);
    g_assert_cmpuint(do_getattr(&f)->mode, ==, S_IFREG | 0400);
    mode.mode = 0644;
    g_assert_cmpint(do_setattr(&f, mode), ==, -EPERM);
    g_assert_cmpint(do_setattr(&f, uid), ==, -ENOTSUP);

    /* nothing is done where a part is refused */
    mode.valid |= FATTR_SIZE;
    mode.size = 1;
    g_assert_cmpint(do_setattr(&f, mode), ==, -EPERM);
    g_assert_cmpuint(do_getattr(&f)->size, ==, 2 * IMAGE_SIZE);

    g_assert_cmpint(do_setattr(&f, (struct fuse_setattr_in) {
        .valid = FATTR_MTIME, .mtime = 1000, .mtimensec = 5,
    }), >, 0);
    g_assert_cmpuint(do_getattr(&f)->mtime, ==, 1000);
    g_assert_cmpint(do_write(&f, 0, 512), ==, 512);
    g_assert_cmpuint(do_getattr(&f)->mtime, >, 1000);
    fixture_teardown(&f);

    fixture_setup(&f, false, false, true);
    mode.valid = FATTR_MODE;
    g_assert_cmpint(do_setattr(&f, mode), ==, -EROFS);
    g_assert_cmpint(do_setattr(&f, size), ==, -EACCES);
    mode.mode = 0444;
    g_assert_cmpint(do_setattr(&f, mode), >, 0);
    g_assert_cmpint(do_setattr(&f, uid), >, 0);
    g_assert_cmpuint(do_getattr(&f)->uid, ==, 7);
    fixture_teardown(&f);
}

/* Who says so, or need not say so, takes set-uid and set-gid away. */
static void test_kill_suidgid(void)
{
    static const struct {
        uint32_t before, after;
    } modes[] = {
        { 06755, 0755 }, { 04600, 0600 }, { 02755, 0755 },
        { 02644, 02644 },           /* set-gid, but no program */
        { 0600, 0600 },
    };
    struct fuse_setattr_in owner = { .valid = FATTR_UID, .uid = 7 };
    struct fuse_setattr_in size = {
        .valid = FATTR_SIZE | FATTR_KILL_SUIDGID, .size = IMAGE_SIZE,
    };
    Fixture f;

    fixture_setup(&f, true, false, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(modes) * 4; i++) {
        struct fuse_setattr_in mode = {
            .valid = FATTR_MODE, .mode = modes[i / 4].before,
        };
        uint32_t flags = FUSE_WRITE_KILL_SUIDGID;

        g_assert_cmpint(do_setattr(&f, mode), >, 0);
        g_assert_cmpint(do_write(&f, 0, 512), ==, 512);
        g_assert_cmpint(CALL(&f, FUSE_OPEN, 0, (struct fuse_open_in) { 0 }),
                        >, 0);
        g_assert_cmpuint(do_getattr(&f)->mode, ==, S_IFREG | mode.mode);
        switch (i % 4) {
        case 0:
            g_assert_cmpint(CALL(&f, FUSE_WRITE, 512, (struct fuse_write_in) {
                .size = 512, .write_flags = flags,
            }), >, 0);
            break;
        case 1:
            g_assert_cmpint(CALL(&f, FUSE_OPEN, 0, (struct fuse_open_in) {
                .open_flags = FUSE_OPEN_KILL_SUIDGID,
            }), >, 0);
            break;
        case 2:
            g_assert_cmpint(do_setattr(&f, size), >, 0);
            break;
        default:
            g_assert_cmpint(do_setattr(&f, owner), >, 0);
        }
        g_assert_cmpuint(do_getattr(&f)->mode, ==,
                         S_IFREG | modes[i / 4].after);
    }
    fixture_teardown(&f);
}

static void test_open(void)
{
    const struct fuse_release_in release = { 0 };
    struct fuse_open_out *out;
    Fixture f;

    fixture_setup(&f, true, false, false);
    g_assert_cmpint(CALL(&f, FUSE_OPEN, 0, (struct fuse_open_in) { 0 }), ==,
                    sizeof(*out));
    out = (void *)f.payload;
    g_assert_cmpuint(out->open_flags, ==,
                     FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES);
    g_assert_cmpuint(f.file.open_count, ==, 1);
    g_assert_cmpint(CALL(&f, FUSE_RELEASE, 0, release), ==, 0);
    g_assert_cmpint(CALL(&f, FUSE_RELEASE, 0, release), ==, 0);
    g_assert_cmpuint(f.file.open_count, ==, 0);

    g_assert_cmpint(call(&f, FUSE_STATFS, NULL, 0, 0), ==,
                    sizeof(struct fuse_statfs_out));
    g_assert_cmpuint(((struct fuse_statfs_out *)f.payload)->st.namelen, ==,
                     255);
    strcpy(f.payload, "name");
    g_assert_cmpint(call(&f, FUSE_LOOKUP, NULL, 0, 5), ==, -ENOENT);
    fixture_teardown(&f);
}

/* ---- data ---- */

static void test_read(void)
{
    Fixture f;

    fixture_setup(&f, false, false, false);
    g_assert_cmpint(do_read(&f, 1, 1000), ==, 1000);
    for (int i = 0; i < 1000; i++) {
        g_assert_cmpint((unsigned char)f.payload[i], ==, (i + 1) % 251);
    }
    g_assert_cmpint(do_read(&f, IMAGE_SIZE - 10, 4096), ==, 10);
    g_assert_cmpint(do_read(&f, IMAGE_SIZE, 4096), ==, 0);
    g_assert_cmpint(do_read(&f, INT64_MAX / 4, 4096), ==, 0);
    g_assert_cmpint(do_read(&f, 0, 0), ==, 0);
    g_assert_cmpint(do_read(&f, UINT64_MAX, 1), ==, -EINVAL);
    g_assert_cmpint(do_read(&f, 0, FUSE_MAX_IO_BYTES + 1), ==, -EINVAL);
    fixture_teardown(&f);
}

static void test_write(void)
{
    const struct fuse_write_in lying = { .offset = 0, .size = 4096 };
    Fixture f;

    fixture_setup(&f, true, false, false);
    g_assert_cmpint(do_write(&f, 3, 1000), ==, 1000);
    g_assert_cmpint(do_read(&f, 0, 1004), ==, 1004);
    g_assert_cmpint(f.payload[2], ==, 2);
    g_assert_cmpint(f.payload[3], ==, 'w');
    g_assert_cmpint(f.payload[1002], ==, 'w');
    g_assert_cmpint((unsigned char)f.payload[1003], ==, 1003 % 251);
    /* the end: short, then full */
    g_assert_cmpint(do_write(&f, IMAGE_SIZE - 100, 4096), ==, 100);
    g_assert_cmpint(do_write(&f, IMAGE_SIZE, 1), ==, -ENOSPC);
    /* nothing is written anywhere */
    g_assert_cmpint(do_write(&f, IMAGE_SIZE, 0), ==, 0);
    g_assert_cmpint(do_write(&f, IMAGE_SIZE + 1, 0), ==, 0);
    g_assert_cmpint(do_write(&f, BDRV_MAX_LENGTH, 0), ==, 0);
    g_assert_cmpint(do_write(&f, UINT64_MAX - 1, 1), ==, -EINVAL);
    /* says that it brings more than came */
    g_assert_cmpint(CALL(&f, FUSE_WRITE, 4095, lying), ==, -EINVAL);
    fixture_teardown(&f);

    fixture_setup(&f, true, true, false);
    g_assert_cmpint(do_write(&f, IMAGE_SIZE + 1000, 24), ==, 24);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE + 1024);
    g_assert_cmpint(do_read(&f, IMAGE_SIZE + 999, 2), ==, 2);
    g_assert_cmpint(f.payload[0], ==, 0);
    g_assert_cmpint(f.payload[1], ==, 'w');
    g_assert_cmpint(do_write(&f, 2 * IMAGE_SIZE, 0), ==, 0);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE + 1024);
    g_assert_cmpint(do_write(&f, BDRV_MAX_LENGTH, 1), ==, -EFBIG);
    fixture_teardown(&f);

    fixture_setup(&f, false, true, false);
    g_assert_cmpint(do_write(&f, 0, 512), ==, -EACCES);
    g_assert_cmpint(do_fallocate(&f, 0, 512, 0), ==, -EACCES);
    fixture_teardown(&f);
}

static void test_fallocate(void)
{
    const uint32_t punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const uint32_t zero = FALLOC_FL_ZERO_RANGE;
    const uint32_t zero_keep = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    Fixture f;

    fixture_setup(&f, true, false, false);
    g_assert_cmpint(do_fallocate(&f, 5, 10, punch), ==, 0);
    g_assert_cmpint(do_read(&f, 4, 12), ==, 12);
    g_assert_cmpmem(f.payload, 12, "\4\0\0\0\0\0\0\0\0\0\0\17", 12);
    /* past the end: nothing, and nothing negative */
    g_assert_cmpint(do_fallocate(&f, IMAGE_SIZE + 4096, 4096, punch), ==, 0);
    g_assert_cmpint(do_fallocate(&f, IMAGE_SIZE + 4096, 4096, zero_keep), ==,
                    0);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    g_assert_cmpint(do_fallocate(&f, IMAGE_SIZE - 1, 4096, zero_keep), ==, 0);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    g_assert_cmpint(do_fallocate(&f, 100, IMAGE_SIZE, zero), ==, 0);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE + 100);
    g_assert_cmpint(do_lseek(&f, 4096 * 2, SEEK_DATA), !=, -EINVAL);

    g_assert_cmpint(do_fallocate(&f, 0, 4096, 0), ==, -EOPNOTSUPP);
    g_assert_cmpint(do_fallocate(&f, 2 * IMAGE_SIZE, 65536, 0), ==, 0);
    g_assert_cmpuint(do_getattr(&f)->size, ==, 2 * IMAGE_SIZE + 65536);
    g_assert_cmpint(do_fallocate(&f, 0, 4096, FALLOC_FL_KEEP_SIZE), ==,
                    -EOPNOTSUPP);
    g_assert_cmpint(do_fallocate(&f, 0, 4096, FALLOC_FL_COLLAPSE_RANGE), ==,
                    -EOPNOTSUPP);
    g_assert_cmpint(do_fallocate(&f, UINT64_MAX, 4096, punch), ==, -EFBIG);
    g_assert_cmpint(do_fallocate(&f, 1, UINT64_MAX, zero), ==, -EFBIG);
    g_assert_cmpint(do_fallocate(&f, 4 * IMAGE_SIZE, 0, 0), ==, -EINVAL);
    g_assert_cmpint(do_fallocate(&f, 4 * IMAGE_SIZE, 0, zero), ==, -EINVAL);
    g_assert_cmpint(do_fallocate(&f, 0, 0, punch), ==, -EINVAL);
    g_assert_cmpuint(do_getattr(&f)->size, ==, 2 * IMAGE_SIZE + 65536);
    fixture_teardown(&f);
}

/* Storage that is full: what fails leaves the length as it was. */
static void test_failed_growth(void)
{
    static const char node[] =
        "{'driver': 'blkdebug', 'node-name': 'd', 'inject-error': ["
        "{'event': 'none', 'iotype': 'write', 'errno': 28}, "
        "{'event': 'none', 'iotype': 'write-zeroes', 'errno': 28}], "
        "'image': {'driver': 'file', 'node-name': 'f', 'filename': '%s'}}";
    Fixture f;

    fixture_setup_node(&f, node, true, true, false);
    g_assert_cmpint(do_write(&f, IMAGE_SIZE, 4096), ==, -ENOSPC);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    g_assert_cmpint(do_write(&f, IMAGE_SIZE - 512, 4096), ==, -ENOSPC);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    g_assert_cmpint(do_write(&f, 4 * IMAGE_SIZE, 4096), ==, -ENOSPC);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    g_assert_cmpint(do_fallocate(&f, 512, 2 * IMAGE_SIZE,
                                 FALLOC_FL_ZERO_RANGE), ==, -ENOSPC);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    fixture_teardown(&f);

    /* where the gap in front of the range is made, but not the range */
    fixture_setup(&f, true, true, false);
    g_assert_cmpint(do_fallocate(&f, 2 * IMAGE_SIZE, INT64_C(1) << 61, 0), <,
                    0);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    fixture_teardown(&f);
}

/* resizable=off: whatever clients do, the length stays. */
static void test_fixed_length(void)
{
    struct fuse_setattr_in size = { .valid = FATTR_SIZE };
    const uint64_t others[] = { 0, 1, IMAGE_SIZE - 1, IMAGE_SIZE + 1, 1 << 30 };
    Fixture f;

    fixture_setup(&f, true, false, false);
    f.file.resizable = false;
    for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
        size.size = others[i];
        g_assert_cmpint(do_setattr(&f, size), ==, -EPERM);
    }
    size.size = IMAGE_SIZE;
    g_assert_cmpint(do_setattr(&f, size), >, 0);
    g_assert_cmpint(do_write(&f, IMAGE_SIZE, 512), ==, -ENOSPC);
    g_assert_cmpint(do_write(&f, IMAGE_SIZE - 12, 512), ==, 12);
    g_assert_cmpint(do_fallocate(&f, 0, IMAGE_SIZE, 0), ==, -EOPNOTSUPP);
    g_assert_cmpint(do_fallocate(&f, 0, IMAGE_SIZE + 1, 0), ==, -EPERM);
    g_assert_cmpint(do_fallocate(&f, IMAGE_SIZE, 512, 0), ==, -EPERM);
    g_assert_cmpint(do_fallocate(&f, IMAGE_SIZE + 512, 512, 0), ==, -EPERM);
    g_assert_cmpint(do_fallocate(&f, 0, IMAGE_SIZE + 1, FALLOC_FL_ZERO_RANGE),
                    ==, -EPERM);
    g_assert_cmpint(do_read(&f, 100, 1), ==, 1);
    g_assert_cmpint(f.payload[0], ==, 100);
    g_assert_cmpint(do_fallocate(&f, 0, IMAGE_SIZE, FALLOC_FL_ZERO_RANGE), ==,
                    0);
    g_assert_cmpint(do_fallocate(&f, 0, IMAGE_SIZE + 1, FALLOC_FL_ZERO_RANGE
                                 | FALLOC_FL_KEEP_SIZE), ==, 0);
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    fixture_teardown(&f);
}

static void test_lseek(void)
{
    struct fuse_setattr_in size = { .valid = FATTR_SIZE, .size = 0 };
    Fixture f;

    fixture_setup(&f, true, false, false);
    do_setattr(&f, size);
    size.size = 4 << 20;
    do_setattr(&f, size);
    g_assert_cmpint(do_write(&f, 1 << 20, 65536), ==, 65536);
    g_assert_cmpint(do_lseek(&f, 0, SEEK_DATA), ==, 1 << 20);
    g_assert_cmpint(do_lseek(&f, 0, SEEK_HOLE), ==, 0);
    g_assert_cmpint(do_lseek(&f, 1 << 20, SEEK_HOLE), ==, (1 << 20) + 65536);
    g_assert_cmpint(do_lseek(&f, 2 << 20, SEEK_DATA), ==, -ENXIO);
    g_assert_cmpint(do_lseek(&f, 4 << 20, SEEK_DATA), ==, -ENXIO);
    g_assert_cmpint(do_lseek(&f, 4 << 20, SEEK_HOLE), ==, -ENXIO);
    g_assert_cmpint(do_lseek(&f, UINT64_MAX, SEEK_HOLE), ==, -ENXIO);
    g_assert_cmpint(do_lseek(&f, 0, SEEK_END), ==, -EINVAL);
    g_assert_cmpint(do_write(&f, (4 << 20) - 512, 512), ==, 512);
    g_assert_cmpint(do_lseek(&f, (4 << 20) - 512, SEEK_HOLE), ==, 4 << 20);
    fixture_teardown(&f);
}

/* ---- hostile peers ---- */

static void test_short_arguments(void)
{
    char zeroes[128] = { 0 };
    Fixture f;

    fixture_setup(&f, true, true, true);
    for (uint32_t opcode = 0; opcode < 5000; opcode++) {
        size_t size = fuse_op_arg_size(opcode);
        int ret;

        if (size > 0) {
            ret = call(&f, opcode, zeroes, size - 1, 0);
            g_assert_true(ret == -EINVAL || ret == -ENOSYS);
        } else {
            ret = call(&f, opcode, zeroes, 0, 0);
            g_assert_true(ret >= 0 || ret == -ENOSYS || ret == -ENOENT);
        }
    }
    g_assert_cmpuint(do_getattr(&f)->size, ==, IMAGE_SIZE);
    fixture_teardown(&f);
}

static void test_random_requests(void)
{
    char arg[128];
    Fixture f;

    fixture_setup(&f, true, false, true);
    for (int i = 0; i < 20000; i++) {
        uint32_t opcode = g_test_rand_int_range(0, 60);
        int bits = g_test_rand_int_range(0, 33);

        for (size_t j = 0; j < sizeof(arg); j += 4) {
            uint32_t v = (uint32_t)g_test_rand_int();

            v = bits == 32 ? v : v & ((1u << bits) - 1);
            memcpy(arg + j, &v, 4);
        }
        if (opcode == FUSE_SETATTR || opcode == FUSE_FALLOCATE) {
            memset(arg + 13, 0, 3);     /* keep the image small */
            memset(arg + 20, 0, 12);
        }
        call(&f, opcode, arg, g_test_rand_int_range(0, sizeof(arg)),
             g_test_rand_int_range(0, 65536));
    }
    fixture_teardown(&f);
}

int main(int argc, char **argv)
{
    int fd, ret;

    g_test_init(&argc, &argv, NULL);
    ctx = aio_context_new(AIO_BACKEND_AUTO, NULL);
    fd = g_file_open_tmp("test-fuse-ops-XXXXXX", &image_path, NULL);
    close(fd);
    g_test_add_func("/fuse-ops/init", test_init);
    g_test_add_func("/fuse-ops/getattr", test_getattr);
    g_test_add_func("/fuse-ops/setattr", test_setattr);
    g_test_add_func("/fuse-ops/kill-suidgid", test_kill_suidgid);
    g_test_add_func("/fuse-ops/open", test_open);
    g_test_add_func("/fuse-ops/read", test_read);
    g_test_add_func("/fuse-ops/write", test_write);
    g_test_add_func("/fuse-ops/fallocate", test_fallocate);
    g_test_add_func("/fuse-ops/failed-growth", test_failed_growth);
    g_test_add_func("/fuse-ops/fixed-length", test_fixed_length);
    g_test_add_func("/fuse-ops/lseek", test_lseek);
    g_test_add_func("/fuse-ops/short-arguments", test_short_arguments);
    g_test_add_func("/fuse-ops/random-requests", test_random_requests);
    ret = g_test_run();
    g_unlink(image_path);
    g_free(image_path);
    aio_context_free(ctx);
    return ret;
}
