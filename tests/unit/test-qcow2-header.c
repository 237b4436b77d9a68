/* SPDX-License-Identifier: MIT */
/*
 * qcow2: what headers and options are refused, and how; rewriting the header.
 *
 * Images are made by qemu-img and changed byte by byte.
 */
#include <string.h>

#include "tests/unit/block-test.h"
#include "tests/unit/image-tools.h"
#include "block/qcow2-format.h"

#define EXT_AT 112              /* where extensions begin */

static char *dir, *path;

/* ---- bytes of an image ---- */

static GByteArray *load(void)
{
    g_autoptr(GError) error = NULL;
    char *data;
    gsize len;

    g_file_get_contents(path, &data, &len, &error);
    g_assert_no_error(error);
    return g_byte_array_new_take((guint8 *)data, len);
}

static void save(const GByteArray *image)
{
    g_autoptr(GError) error = NULL;

    g_file_set_contents(path, (char *)image->data, image->len, &error);
    g_assert_no_error(error);
}

/* Write hexadecimal digits; spaces don't count. */
static void patch(GByteArray *image, unsigned at, const char *hex)
{
    for (; *hex; hex++) {
        if (*hex == ' ') {
            continue;
        }
        g_assert_true(g_ascii_isxdigit(hex[0]) && g_ascii_isxdigit(hex[1]));
        if (at >= image->len) {
            unsigned old = image->len;

            g_byte_array_set_size(image, at + 1);
            memset(image->data + old, 0, at + 1 - old);
        }
        image->data[at++] = g_ascii_xdigit_value(hex[0]) << 4
                            | g_ascii_xdigit_value(hex[1]);
        hex++;
    }
}

static uint64_t number(const GByteArray *image, unsigned at, unsigned bytes)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < bytes; i++) {
        n = n << 8 | image->data[at + i];
    }
    return n;
}

static GByteArray *make(const char *options)
{
    g_autofree char *base = g_build_filename(dir, "base", NULL);

    if (!g_file_test(base, G_FILE_TEST_EXISTS)) {
        image_test_run("qemu-img create -q -f raw %s 1M", base);
    }
    image_test_run("qemu-img create -q -f qcow2 %s %s 64M", options, path);
    return load();
}

static char *node_json(bool read_only, const char *more)
{
    return g_strdup_printf("{'driver': 'qcow2', 'node-name': 'node', 'file': "
                           "{'driver': 'file', 'filename': '%s'}, "
                           "'read-only': %s%s}", path,
                           read_only ? "true" : "false", more);
}

static BlockDriverState *coroutine_fn co_open(bool read_only)
{
    g_autofree char *json = node_json(read_only, "");

    return block_test_co_open(json);
}

/* Opens without an error if @error is NULL. */
static void coroutine_fn co_expect(bool read_only, const char *more,
                                   const char *error)
{
    g_autofree char *json = node_json(read_only, more);

    if (error) {
        block_test_co_open_fails(json, error);
    } else {
        block_test_co_close(block_test_co_open(json));
    }
}

/* An extension is refused: where it is stands in the hint. */
static void coroutine_fn co_expect_place(void)
{
    g_autofree char *json = node_json(true, "");
    g_autofree char *place = g_strdup_printf("is at byte %d.", EXT_AT);
    Error *err = NULL;

    g_assert_null(node_test_co_try_open(&err, json));
    g_assert_nonnull(strstr(error_get_hint(err), place));
    error_free(err);
}

/* ---- refused headers ---- */

typedef struct HeaderCase {
    const char *name;
    const char *create;         /* options; NULL: none */
    struct {
        unsigned at;
        const char *hex;
    } edits[3];
    const char *error;          /* NULL: it opens */
    bool writable;
} HeaderCase;

#define HEX_46_X "58585858585858585858585858585858585858585858585858585858" \
                 "585858585858585858585858585858585858"
#define ZEROES_34 "0000000000000000000000000000000000000000000000000000000" \
                  "0000000000000"

static const HeaderCase header_cases[] = {
    { "good" },
    { "good/v2", "-o compat=0.10" },
    { "good/extended-l2", "-o extended_l2=on" },
    { "good/zstd", "-o compression_type=zstd" },
    { "magic", NULL, { { 0, "58" } }, "Image is not in qcow2 format" },
    { "version/1", NULL, { { 4, "00000001" } }, "Unsupported qcow2 version 1" },
    { "version/4", NULL, { { 4, "00000004" } }, "Unsupported qcow2 version 4" },
    { "cluster-bits/8", NULL, { { 20, "00000008" } },
      "Unsupported cluster size: 2^8" },
    { "cluster-bits/22", NULL, { { 20, "00000016" } },
      "Unsupported cluster size: 2^22" },
    { "cluster-bits/max", NULL, { { 20, "ffffffff" } },
      "Unsupported cluster size: 2^4294967295" },

    { "length/short", NULL, { { 100, "00000060" } }, "qcow2 header too short" },
    { "length/0", NULL, { { 100, "00000000" } }, "qcow2 header too short" },
    { "length/cluster", NULL, { { 100, "00010001" } },
      "qcow2 header exceeds cluster size" },
    { "length/max", NULL, { { 100, "ffffffff" } },
      "qcow2 header exceeds cluster size" },
    { "length/all", NULL, { { 100, "00010000" } } },
    { "length/odd", NULL, { { 100, "0000006e" } },
      "qcow2 header length is not a multiple of 8" },
    { "length/104", NULL, { { 100, "00000068" } } },

    { "backing/behind", NULL, { { 8, "0000000000010001 0000000a" } },
      "Invalid backing file offset" },
    { "backing/max", NULL, { { 8, "8000000000000000 0000000a" } },
      "Invalid backing file offset" },
    { "backing/in-header", NULL, { { 8, "000000000000000a 0000000a" } },
      "Invalid backing file offset" },
    { "backing/1024", NULL, { { 8, "0000000000000400 00000400" } },
      "Backing file name too long" },
    { "backing/max-length", NULL, { { 8, "0000000000000400 ffffffff" } },
      "Backing file name too long" },
    { "backing/over-cluster", NULL, { { 8, "000000000000fffa 00000064" } },
      "Backing file name too long" },
    { "backing/no-length", NULL, { { 8, "0000000000000400 00000000" } } },

    { "incompatible/high", NULL, { { 72, "8000000000000000" } },
      "Unsupported qcow2 feature(s): Unknown incompatible feature: "
      "8000000000000000" },
    { "incompatible/two", NULL, { { 72, "4000000000000020" } },
      "Unsupported qcow2 feature(s): Unknown incompatible feature: "
      "4000000000000020" },
    { "incompatible/named", NULL,
      { { 72, "c000000000000000" },
        { EXT_AT, "6803f857 00000060 003e 746573742066656174757265 "
                  ZEROES_34 "003f" HEX_46_X "0000000000000000" } },
      "Unsupported qcow2 feature(s): test feature, "
      "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX" },
    { "incompatible/half-named", NULL,
      { { 72, "c000000000000000" },
        { EXT_AT, "6803f857 00000033 003e 746573742066656174757265 "
                  ZEROES_34 "0001020000000000 0000000000000000" } },
      "Unsupported qcow2 feature(s): test feature, Unknown incompatible "
      "feature: 8000000000000000" },
    { "incompatible/rude-name", NULL,
      { { 72, "4000000000000000" },
        { EXT_AT, "6803f857 00000030 003e 1b5b324aff0a00" } },
      "Unsupported qcow2 feature(s): ?[2J??" },
    { "incompatible/broken-table", NULL,
      { { 72, "4000000000000000" }, { EXT_AT, "6803f857 ffffffff" } },
      "Unsupported qcow2 feature(s): Unknown incompatible feature: "
      "4000000000000000" },
    { "compatible/unknown", NULL, { { 80, "ffffffffffffff00" } } },
    { "autoclear/unknown", NULL, { { 88, "ffffffffffffff00" } },
      .writable = true },
    { "autoclear/raw", NULL, { { 88, "0000000000000002" } },
      "data-file-raw requires a data file" },
    { "v2-fields", "-o compat=0.10",
      { { 72, "00000000ffffffffffffffffffffffffffffffffffffffff" } } },

    { "corrupt/read-only", NULL, { { 72, "0000000000000002" } } },
    { "corrupt/writable", NULL, { { 72, "0000000000000002" } },
      "qcow2: Image is corrupt; cannot be opened read/write", true },
    { "dirty/read-only", NULL, { { 72, "0000000000000001" } } },
    { "dirty/writable", NULL, { { 72, "0000000000000001" } },
      .writable = true },

    { "refcount-order/7", NULL, { { 96, "00000007" } },
      "Reference count entry width too large; may not exceed 64 bits" },
    { "refcount-order/max", NULL, { { 96, "ffffffff" } },
      "Reference count entry width too large; may not exceed 64 bits" },
    { "refcount-order/6", NULL, { { 96, "00000006" } } },

    { "crypt/3", NULL, { { 32, "00000003" } },
      "Unsupported encryption method 3" },
    { "crypt/luks-without-header", NULL, { { 32, "00000002" } },
      "Missing CRYPTO header for crypt method 2" },

    { "l1/none", NULL, { { 36, "00000000" } }, "L1 table is too small" },
    { "l1/large", NULL, { { 36, "00400001" } }, "Active L1 table too large" },
    { "l1/max", NULL, { { 36, "ffffffff" } }, "Active L1 table too large" },
    { "l1/unaligned", NULL, { { 40, "0000000000030001" } },
      "Active L1 table offset invalid" },
    { "l1/sector", NULL, { { 40, "0000000000030200" } },
      "Active L1 table offset invalid" },
    { "l1/negative", NULL, { { 40, "ffffffffffff0000" } },
      "Active L1 table offset invalid" },
    { "l1/overflow", NULL, { { 40, "7fffffffffff0000" } },
      "Active L1 table offset invalid" },
    { "l1/header", NULL, { { 40, "0000000000000000" } },
      "Active L1 table offset invalid" },
    { "l1/behind-file", NULL, { { 40, "0000010000000000" } } },

    { "reftable/unaligned", NULL, { { 48, "0000000000010001" } },
      "Reference count table offset invalid" },
    { "reftable/overflow", NULL, { { 48, "7fffffffffff0000" } },
      "Reference count table offset invalid" },
    { "reftable/negative", NULL, { { 48, "ffffffffffff0000" } },
      "Reference count table offset invalid" },
    { "reftable/header", NULL, { { 48, "0000000000000000" } },
      "Reference count table offset invalid" },
    { "reftable/none", NULL, { { 56, "00000000" } },
      "Image does not contain a reference count table" },
    { "reftable/large", NULL, { { 56, "00000081" } },
      "Reference count table too large" },
    { "reftable/max", NULL, { { 56, "ffffffff" } },
      "Reference count table too large" },

    { "snapshots/many", NULL, { { 60, "00010001 0000000000040000" } },
      "Snapshot table too large" },
    { "snapshots/max", NULL, { { 60, "ffffffff 0000000000040000" } },
      "Snapshot table too large" },
    { "snapshots/unaligned", NULL, { { 60, "00000001 0000000000040001" } },
      "Snapshot table offset invalid" },
    { "snapshots/negative", NULL, { { 60, "00000001 ffffffffffff0000" } },
      "Snapshot table offset invalid" },
    { "snapshots/none-unaligned", NULL, { { 64, "0000000000040001" } },
      "Snapshot table offset invalid" },

    { "size/negative", NULL, { { 24, "8000000000000000" } },
      "Image is too big" },
    { "size/max", NULL, { { 24, "ffffffffffffffff" } }, "Image is too big" },
    { "size/2^60", NULL, { { 24, "1000000000000000" } }, "Image is too big" },
    { "size/128G", NULL, { { 24, "0000002000000000" } },
      "L1 table is too small" },
    { "size/0", NULL, { { 24, "0000000000000000" } } },

    { "compression/unknown", NULL, { { 104, "02" }, { 79, "08" } },
      "qcow2: unknown compression type: 2" },
    { "compression/bit-missing", NULL, { { 104, "01" } },
      "qcow2: Compression type incompatible feature bit must be set" },
    { "compression/bit-wrong", NULL, { { 79, "08" } },
      "qcow2: Compression type incompatible feature bit must not be set" },
    { "compression/field-missing", NULL, { { 79, "08" }, { 100, "00000068" } },
      "qcow2: Compression type incompatible feature bit must not be set" },
    { "extended-l2/8k", "-o extended_l2=on", { { 20, "0000000d" } },
      "Unsupported subcluster size: 256" },

    { "extension/over-cluster", NULL, { { EXT_AT, "12345678 00010000" } },
      "Header extension too large" },
    { "extension/max", NULL, { { EXT_AT, "12345678 ffffffff" } },
      "Header extension too large" },
    { "extension/to-the-end", NULL, { { EXT_AT, "12345678 0000ff88" } } },
    { "extension/over-backing-name", "-b base -F raw",
      { { EXT_AT, "12345678 000001f8" } }, "Header extension too large" },
    { "extension/format-too-long", NULL,
      { { EXT_AT, "e2792aca 00000010 61616161616161616161616161616161" } },
      "ERROR: ext_backing_format: len=16 too large (>=16)" },
    { "extension/twice", NULL,
      { { EXT_AT, "e2792aca 00000003 7261770000000000 "
                  "e2792aca 00000003 7261770000000000 0000000000000000" } },
      "Header extension of type 0xe2792aca at byte 128 is the second of its "
      "type" },
    { "extension/unknown-twice", NULL,
      { { EXT_AT, "12345678 00000003 7261770000000000 "
                  "12345678 00000003 7261770000000000 0000000000000000" } } },
    { "extension/crypto-on-plain", NULL,
      { { EXT_AT, "0537be77 00000010 0000000000040000 0000000000010000" } },
      "CRYPTO header extension only expected with LUKS encryption method" },
    { "extension/crypto-short", NULL,
      { { 32, "00000002" }, { EXT_AT, "0537be77 00000008 "
                                      "0000000000040000" } },
      "CRYPTO header extension size 8, but expected size 16" },
    { "extension/crypto-unaligned", NULL,
      { { 32, "00000002" }, { EXT_AT, "0537be77 00000010 0000000000040001 "
                                      "0000000000010000" } },
      "Encryption header offset '262145' is not a multiple of cluster size "
      "'65536'" },
    { "extension/crypto-large", NULL,
      { { 32, "00000002" }, { EXT_AT, "0537be77 00000010 0000000000040000 "
                                      "0000000010000000" } },
      "Encryption header at offset '262144' with length '268435456' is out of "
      "bounds" },
    { "extension/data-file-too-long", NULL,
      { { 79, "04" }, { EXT_AT, "44415441 00000400" } },
      "Data file name too long" },
    { "extension/data-file-missing", NULL, { { 79, "04" } },
      "'data-file' is required for this image" },

    { "bitmaps/short", NULL,
      { { 95, "01" }, { EXT_AT, "23852875 00000010 00000001 00000000 "
                                "0000000000000020" } },
      "bitmaps_ext: Invalid extension length" },
    { "bitmaps/reserved", NULL,
      { { 95, "01" }, { EXT_AT, "23852875 00000018 00000001 00000001 "
                                "0000000000000020 0000000000040000" } },
      "bitmaps_ext: Reserved field is not zero" },
    { "bitmaps/none", NULL,
      { { 95, "01" }, { EXT_AT, "23852875 00000018 00000000 00000000 "
                                "0000000000000020 0000000000040000" } },
      "found bitmaps extension with zero bitmaps" },
    { "bitmaps/many", NULL,
      { { 95, "01" }, { EXT_AT, "23852875 00000018 00010000 00000000 "
                                "0000000000000020 0000000000040000" } },
      "bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported "
      "maximum of 65535" },
    { "bitmaps/unaligned", NULL,
      { { 95, "01" }, { EXT_AT, "23852875 00000018 00000001 00000000 "
                                "0000000000000020 0000000000040001" } },
      "bitmaps_ext: invalid bitmap directory offset" },
    { "bitmaps/large", NULL,
      { { 95, "01" }, { EXT_AT, "23852875 00000018 00000001 00000000 "
                                "0000000004000000 0000000000040000" } },
      "bitmaps_ext: bitmap directory size (67108864) exceeds the maximum "
      "supported size (67107840)" },
};

static void coroutine_fn co_test_header(void *opaque)
{
    const HeaderCase *c = opaque;
    g_autoptr(GByteArray) image = NULL;
    g_autoptr(GByteArray) after = NULL;

    image = make(c->create ? c->create : "");
    for (unsigned i = 0; i < G_N_ELEMENTS(c->edits) && c->edits[i].hex; i++) {
        patch(image, c->edits[i].at, c->edits[i].hex);
    }
    save(image);
    co_expect(!c->writable, "", c->error);
    if (c->error && g_str_has_prefix(c->name, "bitmaps/")) {
        co_expect_place();
    }

    if (!c->writable || c->error) {
        after = load();
        g_assert_cmpmem(image->data, image->len, after->data, after->len);
    }
}

/* Whatever is left of the file: an error or not, but nothing worse. */
static void coroutine_fn co_test_cut(void *opaque)
{
    g_autoptr(GByteArray) image = make("");

    for (unsigned len = 0; len < 128; len++) {
        g_autofree char *json = node_json(true, "");
        Error *err = NULL;
        BlockDriverState *bs;

        g_byte_array_set_size(image, len);
        save(image);
        bs = node_test_co_try_open(&err, json);
        if (bs) {
            block_test_co_close(bs);
        } else {
            g_assert_nonnull(err);
            error_free(err);
        }
        patch(image, 0, "514649fb00000003");
        patch(image, 20, "00000010");
        patch(image, 100, "00000070");
    }
}

static void coroutine_fn co_test_random(void *opaque)
{
    g_autoptr(GByteArray) good = make("-b base -F raw");
    g_autoptr(GByteArray) image = g_byte_array_new();

    for (unsigned i = 0; i < 500; i++) {
        g_autofree char *json = node_json(true, "");
        Error *err = NULL;
        BlockDriverState *bs;

        g_byte_array_set_size(image, 0);
        g_byte_array_append(image, good->data, good->len);
        for (int n = g_test_rand_int_range(1, 4); n > 0; n--) {
            image->data[g_test_rand_int_range(0, 640)] =
                g_test_rand_int_range(0, 256);
        }
        save(image);
        bs = node_test_co_try_open(&err, json);
        if (bs) {
            block_test_co_close(bs);
        } else {
            g_assert_nonnull(err);
            error_free(err);
        }
    }
}

/* ---- rewriting ---- */

/* The extension of @type, or NULL. */
static const uint8_t *find_extension(const GByteArray *image, uint32_t type,
                                     uint32_t *len)
{
    unsigned at = number(image, 100, 4);

    while (number(image, at, 4) != 0) {
        *len = number(image, at + 4, 4);
        if (number(image, at, 4) == type) {
            return image->data + at + 8;
        }
        at += 8 + (*len + 7) / 8 * 8;
    }
    return NULL;
}

/* Opening for writing clears bits that we don't know and keeps all else. */
static void coroutine_fn co_test_rewrite(void *opaque)
{
    g_autoptr(GByteArray) image = make("-b base -F raw");
    g_autoptr(GByteArray) after = NULL;
    const uint8_t *ext;
    uint32_t len;

    patch(image, 8, "0000000000000200 00000004");       /* name's place */
    patch(image, 80, "0000000000000a01");               /* compatible */
    patch(image, 88, "0000000000000100");               /* autoclear */
    patch(image, 100, "00000080");
    patch(image, 112, "0102030405060708 1112131415161718");
    patch(image, 128, "e2792aca 00000003 7261770000000000 "
                      "7fffffff 0000000b 6162636465666768 696a6b0000000000 "
                      "0000000000000000");
    patch(image, 0x200, "62617365");
    save(image);
    block_test_co_close(co_open(false));

    after = load();
    g_assert_cmpuint(number(after, 80, 8), ==, 0xa01);
    g_assert_cmpuint(number(after, 88, 8), ==, 0);
    g_assert_cmpuint(number(after, 100, 4), ==, 128);
    g_assert_cmpmem(after->data + 112, 16, image->data + 112, 16);
    ext = find_extension(after, 0x7fffffff, &len);
    g_assert_cmpmem(ext, len, "abcdefghijk", 11);
    ext = find_extension(after, QCOW2_EXT_BACKING_FORMAT, &len);
    g_assert_cmpmem(ext, len, "raw", 3);
    ext = find_extension(after, QCOW2_EXT_FEATURE_TABLE, &len);
    g_assert_cmpmem(ext, 11, "\0\0dirty bit", 11);
    g_assert_cmpuint(len, ==, 8 * sizeof(Qcow2Feature));
    g_assert_cmpmem(after->data + number(after, 8, 8), number(after, 16, 4),
                    "base", 4);
    image_test_run("qemu-img check -q %s", path);
    co_expect(true, "", NULL);
}

/* Clusters of 512 bytes: the names of features don't fit in beside. */
static void coroutine_fn co_test_rewrite_small(void *opaque)
{
    g_autoptr(GByteArray) image = make("-o cluster_size=512 -b base -F raw");
    g_autoptr(GByteArray) after = NULL;
    uint32_t len;

    patch(image, 88, "0000000000000100");
    save(image);
    block_test_co_close(co_open(false));
    after = load();
    g_assert_cmpuint(number(after, 88, 8), ==, 0);
    g_assert_null(find_extension(after, QCOW2_EXT_FEATURE_TABLE, &len));
    g_assert_cmpmem(after->data + number(after, 8, 8), number(after, 16, 4),
                    "base", 4);
    image_test_run("qemu-img check -q %s", path);
}

static void coroutine_fn co_test_dirty(void *opaque)
{
    g_autoptr(GByteArray) image = make("-o lazy_refcounts=on");
    g_autoptr(GByteArray) after = NULL;

    /* No cluster of it is counted. */
    patch(image, 72, "0000000000000001");
    memset(image->data + number(image, number(image, 48, 8), 8), 0, 64);
    save(image);
    block_test_co_close(co_open(false));
    after = load();
    g_assert_cmpuint(number(after, 72, 8), ==, 0);
    image_test_run("qemu-img check -q %s", path);
}

/* ---- options ---- */

typedef struct OptionCase {
    const char *name;
    const char *create;
    const char *options;        /* JSON members, after a comma */
    const char *error;
} OptionCase;

#define ENTRY_SIZE_ERROR "L2 cache entry size must be a power of two between " \
                         "512 and the cluster size (65536)"

static const OptionCase option_cases[] = {
    { "entry-size/256", NULL, "'l2-cache-entry-size': 256", ENTRY_SIZE_ERROR },
    { "entry-size/1000", NULL, "'l2-cache-entry-size': 1000",
      ENTRY_SIZE_ERROR },
    { "entry-size/128k", NULL, "'l2-cache-entry-size': 131072",
      ENTRY_SIZE_ERROR },
    { "entry-size/negative", NULL, "'l2-cache-entry-size': -512",
      ENTRY_SIZE_ERROR },
    { "entry-size/64k", NULL, "'l2-cache-entry-size': 65536" },
    { "cache/l2-larger", NULL, "'l2-cache-size': 1048576, 'cache-size': 524288",
      "l2-cache-size may not exceed cache-size" },
    { "cache/refcount-larger", NULL,
      "'refcount-cache-size': 1048576, 'cache-size': 524288",
      "refcount-cache-size may not exceed cache-size" },
    { "cache/three", NULL, "'refcount-cache-size': 1048576, "
      "'l2-cache-size': 1048576, 'cache-size': 4194304",
      "cache-size, l2-cache-size and refcount-cache-size may not be set at "
      "the same time" },
    { "cache/refcount-max", NULL, "'refcount-cache-size': 9223372036854775807",
      "Refcount cache size too big" },
    { "cache/l2-max", NULL, "'l2-cache-size': 9223372036854775807" },
    { "cache/max", NULL, "'cache-size': 9223372036854775807",
      "Refcount cache size too big" },
    { "cache/none", NULL, "'cache-size': 0" },
    { "cache/l2-none", NULL, "'l2-cache-size': 0, 'refcount-cache-size': 0" },
    { "interval/large", NULL, "'cache-clean-interval': 4294967296",
      "Cache clean interval too big" },
    { "interval/negative", NULL, "'cache-clean-interval': -1",
      "Cache clean interval too big" },
    { "interval/0", NULL, "'cache-clean-interval': 0" },
    { "lazy/v2", "-o compat=0.10", "'lazy-refcounts': true",
      "Lazy refcounts require a qcow2 image with at least qemu 1.1 "
      "compatibility level" },
    { "lazy/v3", NULL, "'lazy-refcounts': true" },
    { "no-unref/v2", "-o compat=0.10",
      "'discard-no-unref': true, 'discard': 'unmap'",
      "discard-no-unref is only supported since qcow2 version 3" },
    { "no-unref/ignored", NULL,
      "'discard-no-unref': true, 'discard': 'ignore'",
      "discard-no-unref is only valid with discard=unmap/on" },
    { "no-unref/v3", NULL, "'discard-no-unref': true, 'discard': 'unmap'" },
    { "encrypt/luks-on-plain", NULL,
      "'encrypt': {'format': 'luks', 'key-secret': 's'}",
      "No encryption in image header, but options specified format 'luks'" },
    { "encrypt/aes-on-plain", NULL,
      "'encrypt': {'format': 'aes', 'key-secret': 's'}",
      "No encryption in image header, but options specified format 'aes'" },
    { "data-file/none", NULL, "'data-file': {'driver': 'null-co'}",
      "'data-file' can only be set for images with an external data file" },
    { "overlap/mode", NULL, "'overlap-check': 'all'" },
    { "overlap/flags", NULL, "'overlap-check': {'template': 'none', "
      "'main-header': true, 'inactive-l2': true}" },
    { "discard", NULL, "'pass-discard-request': false, "
      "'pass-discard-snapshot': false, 'pass-discard-other': true" },
};

static void coroutine_fn co_test_option(void *opaque)
{
    const OptionCase *c = opaque;
    g_autofree char *more = g_strconcat(", ", c->options, NULL);

    g_byte_array_unref(make(c->create ? c->create : ""));
    co_expect(false, more, c->error);
    image_test_run("qemu-img check -q %s", path);
}

/* ---- main ---- */

/* Nothing here depends on how the loop waits. */
static void add(const char *group, const char *name, CoroutineEntry *entry,
                const void *opaque)
{
    block_test_add_one(AIO_BACKEND_EPOLL, entry, opaque, "/qcow2-header/%s/%s",
                       group, name);
}

int main(int argc, char **argv)
{
    int ret;

    if (!image_test_init(&argc, &argv)) {
        return 0;
    }
    dir = image_test_folder("qsd-header");
    path = g_build_filename(dir, "image", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(header_cases); i++) {
        add("field", header_cases[i].name, co_test_header, &header_cases[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(option_cases); i++) {
        add("option", option_cases[i].name, co_test_option, &option_cases[i]);
    }
    add("file", "cut", co_test_cut, NULL);
    add("file", "random", co_test_random, NULL);
    add("rewrite", "all", co_test_rewrite, NULL);
    add("rewrite", "small", co_test_rewrite_small, NULL);
    add("rewrite", "dirty", co_test_dirty, NULL);
    ret = g_test_run();
    image_test_run("rm -r %s", dir);
    g_free(path);
    g_free(dir);
    return ret;
}
