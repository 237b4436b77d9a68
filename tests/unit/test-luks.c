/* SPDX-License-Identifier: MIT */
/*
 * The luks driver: making an image, requests of all shapes from several
 * threads, length, a header on a node of its own, secrets.
 */
#include "tests/unit/block-test.h"

#include <string.h>
#include "block/create.h"
#include "block/crypto.h"
#include "block/secret.h"
#include "util/secmem.h"

#define SECTOR BLOCK_CRYPTO_SECTOR_SIZE
#define KiB 1024
#define MiB 1048576
#define HEADER 2068480                  /* of aes-256 in xts mode */

static char *image, *header_image;

static Secret *coroutine_fn co_secret(const char *json, const char *id,
                                      const char *error)
{
    Error *err = NULL;
    g_autoptr(QObject) obj = qobject_from_json(json, &err);
    g_autoptr(SecretProperties) props = NULL;
    Secret *secret;

    node_test_no_error(err);
    props = qapi_from_qobject(&qapi_type_SecretProperties, obj, false, &err);
    node_test_no_error(err);
    secret = secret_co_new(id, props, &err);
    if (error) {
        g_assert_null(secret);
        node_test_assert_error(err, error);
    } else {
        node_test_no_error(err);
    }
    return secret;
}

static bool coroutine_fn co_create(const char *json, Error **errp)
{
    g_autoptr(QObject) obj = qobject_from_json(json, errp);
    g_autoptr(BlockdevCreateOptions) options = NULL;

    options = qapi_from_qobject(&qapi_type_BlockdevCreateOptions, obj, false,
                                errp);
    return options && bdrv_co_create(options, errp);
}

/* An image of 1 MiB, or what @more makes of it, and its node "l". */
static BlockDriverState *coroutine_fn co_luks_node(void)
{
    g_autofree char *create = g_strdup_printf(
        "{'driver': 'luks', 'size': %d, 'key-secret': 's', 'iter-time': 0, "
        "'file': {'driver': 'file', 'filename': '%s'}}", MiB, image);
    g_autofree char *open = g_strdup_printf(
        "{'driver': 'luks', 'node-name': 'l', 'key-secret': 's', "
        "'file': {'driver': 'file', 'filename': '%s'}}", image);
    Error *err = NULL;

    co_create(create, &err);
    node_test_no_error(err);
    return block_test_co_open(open);
}

static int coroutine_fn co_rw(BlockBackend *blk, bool is_write, int64_t offset,
                              void *buf, size_t bytes, size_t element)
{
    QEMUIOVector qiov;
    int ret;

    qemu_iovec_init(&qiov, 1);
    for (size_t done = 0; done < bytes; done += element) {
        qemu_iovec_add(&qiov, (uint8_t *)buf + done,
                       MIN(element, bytes - done));
    }
    blk_co_begin_request(blk);
    ret = is_write ? blk_co_pwritev(blk, offset, &qiov, 0)
                   : blk_co_preadv(blk, offset, &qiov, 0);
    blk_end_request(blk);
    qemu_iovec_destroy(&qiov);
    return ret;
}

/* ---- reading and writing ---- */

typedef struct Worker {
    BlockBackend *blk;
    unsigned number;
} Worker;

/* Each has a part of the image to itself, beside the others' to the byte. */
static void coroutine_fn worker_co(void *opaque)
{
    enum { PART = 100 * KiB + 7 };
    Worker *w = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(w->number);
    g_autofree uint8_t *shadow = g_malloc0(PART);
    g_autofree uint8_t *buf = g_malloc(PART);
    int64_t start = (int64_t)w->number * PART;

    g_assert_cmpint(co_rw(w->blk, true, start, shadow, PART, PART), ==, 0);
    for (int i = 0; i < 60; i++) {
        size_t offset = g_rand_int_range(rand, 0, PART);
        size_t bytes = g_rand_int_range(rand, 1, PART - offset + 1);
        size_t element = i % 2 ? g_rand_int_range(rand, 100, PART)
                               : SECTOR * g_rand_int_range(rand, 1, 100);

        if (i % 3 == 0) {
            offset = bdrv_align_down(offset, SECTOR);
        }
        if (i % 4 == 0) {
            memset(shadow + offset, i + 1, bytes);
            g_assert_cmpint(co_rw(w->blk, true, start + offset,
                                  shadow + offset, bytes, element), ==, 0);
        }
        g_assert_cmpint(co_rw(w->blk, false, start + offset, buf, bytes,
                              element), ==, 0);
        g_assert_cmpmem(buf, bytes, shadow + offset, bytes);
    }
}

static void coroutine_fn test_io(void *opaque)
{
    Secret *s = co_secret("{'data': 'x'}", "s", NULL);
    BlockDriverState *bs = co_luks_node();
    BlockBackend *blk = block_test_co_attach(bs, "test", BLK_PERM_WRITE
                                             | BLK_PERM_CONSISTENT_READ,
                                             BLK_PERM_ALL);
    BlockTestGang *gang = block_test_gang_new();
    Worker workers[9];
    char text[16];
    int fd;

    /* A secret is needed for opening only. */
    secret_free(s);
    for (unsigned i = 0; i < G_N_ELEMENTS(workers); i++) {
        workers[i] = (Worker) { blk, i };
        block_test_gang_start(gang, i, worker_co, &workers[i]);
    }
    block_test_gang_co_finish(gang);

    g_assert_cmpint(co_rw(blk, true, MiB - 16, (char *)"a plain sentence", 16,
                          16), ==, 0);
    g_assert_cmpint(co_rw(blk, false, MiB - 16, text, 16, 3), ==, 0);
    g_assert_cmpmem(text, 16, "a plain sentence", 16);
    g_assert_cmpint(co_rw(blk, true, MiB - 16, text, 17, 17), ==, -EIO);
    fd = open(image, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(pread(fd, text, 16, HEADER + MiB - 16), ==, 16);
    g_assert_cmpint(memcmp(text, "a plain sentence", 16), !=, 0);
    close(fd);
    blk_co_free(blk);
    block_test_co_close(bs);
}

/* ---- length ---- */

static void coroutine_fn test_length(void *opaque)
{
    Secret *s = co_secret("{'data': 'x'}", "s", NULL);
    BlockDriverState *bs = co_luks_node();
    BlockBackend *blk = block_test_co_attach(bs, "test", BLK_PERM_WRITE
                                             | BLK_PERM_RESIZE, BLK_PERM_ALL);
    Error *err = NULL;
    uint8_t buf[1000];
    int fd;

    g_assert_cmpint(blk_getlength(blk), ==, MiB);
    blk_co_begin_request(blk);
    blk_co_truncate(blk, 2 * MiB + 1, PREALLOC_MODE_OFF, 0, &err);
    node_test_no_error(err);
    g_assert_cmpint(blk_getlength(blk), ==, 2 * MiB + SECTOR);
    blk_co_truncate(blk, 3 * MiB, PREALLOC_MODE_OFF, BDRV_REQ_ZERO_WRITE,
                    &err);
    node_test_no_error(err);
    blk_end_request(blk);
    g_assert_cmpint(co_rw(blk, false, 3 * MiB - 1000, buf, 1000, 1000), ==, 0);
    g_assert_true(buffer_is_zero(buf, sizeof(buf)));

    blk_co_begin_request(blk);
    blk_co_truncate(blk, BDRV_MAX_LENGTH, PREALLOC_MODE_OFF, 0, &err);
    node_test_assert_error(err, "The requested file size is too large");
    g_assert_cmpint(truncate(image, HEADER + 700), ==, 0);
    g_assert_cmpint(blk_co_getlength(blk), ==, SECTOR);
    /* Another program has left a part of a sector there: it is cut off. */
    blk_co_truncate(blk, 2 * SECTOR, PREALLOC_MODE_OFF, 0, &err);
    node_test_no_error(err);
    fd = open(image, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(pread(fd, buf, SECTOR, HEADER + SECTOR), ==, SECTOR);
    close(fd);
    g_assert_true(buffer_is_zero(buf, SECTOR));
    g_assert_cmpint(truncate(image, HEADER - 1), ==, 0);
    g_assert_cmpint(blk_co_getlength(blk), ==, 0);
    blk_end_request(blk);
    blk_co_free(blk);
    block_test_co_close(bs);
    secret_free(s);
}

/* ---- a header elsewhere ---- */

static void coroutine_fn test_detached(void *opaque)
{
    Secret *s = co_secret("{'data': 'x'}", "s", NULL);
    g_autofree char *create = g_strdup_printf(
        "{'driver': 'luks', 'size': %d, 'key-secret': 's', 'iter-time': 0, "
        "'file': {'driver': 'file', 'filename': '%s'}, "
        "'header': {'driver': 'file', 'filename': '%s'}}", MiB, image,
        header_image);
    g_autofree char *open = g_strdup_printf(
        "{'driver': 'luks', 'node-name': 'l', 'key-secret': 's', "
        "'file': {'driver': 'file', 'filename': '%s'}, "
        "'header': {'driver': 'file', 'filename': '%s'}}", image,
        header_image);
    g_autofree char *open_file = g_strdup_printf(
        "{'driver': 'luks', 'node-name': 'l', 'key-secret': 's', "
        "'file': {'driver': 'file', 'filename': '%s'}}", image);
    g_autofree char *open_header = g_strdup_printf(
        "{'driver': 'luks', 'node-name': 'l', 'key-secret': 's', "
        "'file': {'driver': 'file', 'filename': '%s'}}", header_image);
    ImageInfoSpecific *info;
    BlockDriverState *bs;
    BlockBackend *blk;
    char text[10];
    Error *err = NULL;

    co_create(create, &err);
    node_test_no_error(err);
    bs = block_test_co_open(open);
    g_assert_cmpint(bdrv_getlength(bs), ==, MiB);
    info = bs->drv->bdrv_get_specific_info(bs);
    g_assert_true(info->u.luks.data->detached_header);
    g_assert_cmpint(info->u.luks.data->payload_offset, ==, 0);
    qapi_free_ImageInfoSpecific(info);
    blk = block_test_co_attach(bs, "test", BLK_PERM_WRITE, BLK_PERM_ALL);
    g_assert_cmpint(co_rw(blk, true, 5, (char *)"ten bytes.", 10, 10), ==, 0);
    g_assert_cmpint(co_rw(blk, false, 5, text, 10, 10), ==, 0);
    g_assert_cmpmem(text, 10, "ten bytes.", 10);
    blk_co_free(blk);
    block_test_co_close(bs);

    block_test_co_open_fails(open_file, "Volume is not in LUKS format");
    block_test_co_open_fails(open_header,
                             "LUKS payload is overlapping with the header");
    secret_free(s);
}

/* ---- making images ---- */

static void coroutine_fn co_create_fails(const char *more, const char *text)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'luks', 'size': %d%s}", MiB, more);
    Error *err = NULL;

    g_assert_false(co_create(json, &err));
    node_test_assert_error(err, text);
}

static void coroutine_fn test_create(void *opaque)
{
    Secret *s = co_secret("{'data': 'x'}", "s", NULL);
    g_autofree char *file = g_strdup_printf(
        ", 'file': {'driver': 'file', 'filename': '%s'}", image);
    g_autofree char *no_secret = g_strconcat(file, ", 'key-secret': 'n'",
                                             NULL);
    g_autofree char *cipher = g_strconcat(file, ", 'key-secret': 's', "
                                          "'cipher-alg': 'des'", NULL);

    co_create_fails("", "Either the parameter 'header' or 'file' must be "
                    "specified");
    co_create_fails(", 'file': 'none'",
                    "Cannot find device='none' nor node-name='none'");
    co_create_fails(file, "Parameter 'key-secret' is required for cipher");
    co_create_fails(no_secret, "No secret with id 'n'");
    co_create_fails(cipher, "Algorithm 'des' not supported");
    for (int i = 0; i <= PREALLOC_MODE_FULL; i++) {
        g_autofree char *json = g_strdup_printf(
            "{'driver': 'luks', 'size': %d, 'key-secret': 's', "
            "'iter-time': 0, 'preallocation': '%s'%s}", MiB,
            PreallocMode_str(i), file);

        g_assert_true(co_create(json, NULL));
    }
    secret_free(s);
}

/* ---- secrets ---- */

static bool object_exists(const char *id)
{
    return strcmp(id, "thread") == 0;
}

static void assert_secret(const char *id, const char *data)
{
    Error *err = NULL;
    char *text = secret_lookup_utf8(id, &err);

    node_test_no_error(err);
    g_assert_cmpstr(text, ==, data);
    secmem_free(text);
}

/* 32 and 16 bytes, 00 01 02 ...; "password!" and nothing encrypted by them. */
#define KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define IV "AAECAwQFBgcICQoLDA0ODw=="
#define ENCRYPTED "qVGLJLJntvsvu0iSEDINVQ=="

static void coroutine_fn test_secrets(void *opaque)
{
    Secret *key = co_secret("{'data': '" KEY "', 'format': 'base64'}", "key",
                            NULL);
    Secret *small = co_secret("{'data': 'AAAA', 'format': 'base64'}", "small",
                              NULL);
    Secret *s;
    Error *err = NULL;

    secret_set_object_exists(object_exists);
    co_secret("{}", "s", "Either 'file' or 'data' must be provided");
    co_secret("{'data': 'x', 'file': '/dev/null'}", "s",
              "'file' and 'data' are mutually exclusive");
    co_secret("{'data': 'p*w', 'format': 'base64'}", "s",
              "Base64 data contains invalid characters");
    s = co_secret("{'data': 'cHc=', 'format': 'base64'}", "s", NULL);
    assert_secret("s", "pw");
    secret_free(s);
    s = co_secret("{'data': '', 'format': 'base64'}", "s", NULL);
    assert_secret("s", "");
    secret_free(s);

    s = co_secret("{'data': '" ENCRYPTED "', 'keyid': 'key', 'iv': '" IV "', "
                  "'format': 'base64'}", "s", NULL);
    assert_secret("s", "password!");
    secret_free(s);
    co_secret("{'data': 'AAAA', 'keyid': 'key', 'iv': '" IV "', "
              "'format': 'base64'}", "s",
              "Length 3 must be a multiple of block size 16");
    co_secret("{'data': 'AAAA', 'keyid': 'none', 'iv': '" IV "'}", "s",
              "No secret with id 'none'");
    co_secret("{'data': 'AAAA', 'keyid': 'thread', 'iv': '" IV "'}", "s",
              "Object with id 'thread' is not a secret");
    co_secret("{'data': 'AAAA', 'keyid': 'small', 'iv': '" IV "'}", "s",
              "Key should be 32 bytes in length");
    co_secret("{'data': 'AAAA', 'keyid': 'key'}", "s",
              "IV is required to decrypt secret");
    co_secret("{'data': 'AAAA', 'keyid': 'key', 'iv': 'AAAA'}", "s",
              "IV should be 16 bytes in length not 3");
    g_assert_null(secret_lookup_utf8("key", &err) ? "found" : NULL);
    secret_free(small);
    secret_free(key);
    error_free(err);
}

static void coroutine_fn co_secret_file(const void *data, size_t len,
                                        const char *text, const char *error)
{
    g_autofree char *json = g_strdup_printf("{'file': '%s'}", image);
    Error *err = NULL;
    char *found;
    Secret *s;

    g_assert_true(g_file_set_contents(image, data, len, NULL));
    s = co_secret(json, "s", NULL);
    found = secret_lookup_utf8("s", &err);
    g_assert_cmpstr(found, ==, text);
    if (error) {
        node_test_assert_error(err, error);
    }
    secmem_free(found);
    secret_free(s);
}

static void coroutine_fn test_secret_files(void *opaque)
{
    g_autofree char *huge = g_malloc0(MiB + 1);
    g_autofree char *json = g_strdup_printf("{'file': '%s'}", image);
    g_autofree char *text = g_strdup_printf("Unable to read %s: more than "
                                            "1048576 bytes", image);

    co_secret_file("pass\n", 5, "pass\n", NULL);
    co_secret_file("", 0, "", NULL);
    co_secret_file("a\0b", 3, NULL, "Data from secret s is not valid UTF-8");
    co_secret_file("\xff\xfe", 2, NULL,
                   "Data from secret s is not valid UTF-8");
    co_secret("{'file': '/nonexistent'}", "s", "Unable to read /nonexistent: "
              "Failed to open file \u201c/nonexistent\u201d: No such file or "
              "directory");
    co_secret("{'file': '/tmp'}", "s", "Unable to read /tmp: Error reading "
              "file \u201c/tmp\u201d: Is a directory");
    g_assert_true(g_file_set_contents(image, huge, MiB + 1, NULL));
    co_secret(json, "s", text);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    image = node_test_scratch(g_get_tmp_dir(), MiB);
    header_image = node_test_scratch(g_get_tmp_dir(), MiB);
    block_test_add("/luks/io", test_io, NULL);
    block_test_add("/luks/length", test_length, NULL);
    block_test_add("/luks/detached", test_detached, NULL);
    block_test_add("/luks/create", test_create, NULL);
    block_test_add("/secret/data", test_secrets, NULL);
    block_test_add("/secret/files", test_secret_files, NULL);
    ret = g_test_run();
    g_unlink(image);
    g_unlink(header_image);
    g_free(image);
    g_free(header_image);
    return ret;
}
