/* SPDX-License-Identifier: MIT */
/*
 * For unit tests of qcow2: an image file in memory, to be broken on purpose.
 */
#ifndef TESTS_UNIT_QCOW2_IMAGE_H
#define TESTS_UNIT_QCOW2_IMAGE_H

#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>

#include "block/qcow2-format.h"

typedef struct TestImage {
    GByteArray *bytes;
    Qcow2Header h;              /* host order; what version 2 lacks is 0 */
    uint64_t cluster_size;
    bool extended_l2;
} TestImage;

static inline uint64_t test_image_get(const TestImage *im, uint64_t at)
{
    uint64_t value;

    g_assert_cmpuint(at + 8, <=, im->bytes->len);
    memcpy(&value, im->bytes->data + at, 8);
    return GUINT64_FROM_BE(value);
}

static inline void test_image_set(TestImage *im, uint64_t at, uint64_t value)
{
    value = GUINT64_TO_BE(value);
    g_assert_cmpuint(at + 8, <=, im->bytes->len);
    memcpy(im->bytes->data + at, &value, 8);
}

static inline void test_image_set32(TestImage *im, uint64_t at, uint32_t value)
{
    value = GUINT32_TO_BE(value);
    g_assert_cmpuint(at + 4, <=, im->bytes->len);
    memcpy(im->bytes->data + at, &value, 4);
}

static inline void test_image_append(TestImage *im, uint64_t bytes)
{
    guint old = im->bytes->len;

    g_byte_array_set_size(im->bytes, old + bytes);
    memset(im->bytes->data + old, 0, bytes);
}

static inline void test_image_load(TestImage *im, const char *path)
{
    char *data;
    gsize len;

    *im = (TestImage) { 0 };
    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    im->bytes = g_byte_array_new_take((guint8 *)data, len);
    g_assert_cmpuint(len, >=, sizeof(im->h));
    memcpy(&im->h, data, sizeof(im->h));
#define FIELD32(f) im->h.f = GUINT32_FROM_BE(im->h.f)
#define FIELD64(f) im->h.f = GUINT64_FROM_BE(im->h.f)
    FIELD32(version);
    FIELD32(cluster_bits);
    FIELD64(size);
    FIELD32(l1_size);
    FIELD64(l1_table_offset);
    FIELD64(refcount_table_offset);
    FIELD32(refcount_table_clusters);
    FIELD32(nb_snapshots);
    FIELD64(snapshots_offset);
    FIELD64(incompatible_features);
    FIELD64(autoclear_features);
    FIELD32(refcount_order);
    FIELD32(header_length);
#undef FIELD32
#undef FIELD64
    if (im->h.version < 3) {
        im->h.refcount_order = 4;
        im->h.incompatible_features = im->h.autoclear_features = 0;
    }
    im->cluster_size = UINT64_C(1) << im->h.cluster_bits;
    im->extended_l2 = im->h.incompatible_features & QCOW2_INCOMPAT_EXTL2;
}

static inline void test_image_save(const TestImage *im, const char *path)
{
    g_assert_true(g_file_set_contents(path, (const char *)im->bytes->data,
                                      im->bytes->len, NULL));
}

static inline void test_image_free(TestImage *im)
{
    g_byte_array_unref(im->bytes);
}

/* Where the refcount of host cluster @i is, in the first refcount block. */
static inline uint64_t test_image_refblock(const TestImage *im)
{
    return test_image_get(im, im->h.refcount_table_offset)
           & QCOW2_REFT_OFFSET_MASK;
}

static inline void test_image_set_refcount(TestImage *im, uint64_t i,
                                           uint64_t value)
{
    unsigned bits = 1u << im->h.refcount_order, n = bits / 8;
    uint8_t *block = im->bytes->data + test_image_refblock(im);

    if (bits < 8) {
        unsigned shift = i * bits % 8;

        block[i * bits / 8] &= ~(((1u << bits) - 1) << shift);
        block[i * bits / 8] |= value << shift;
        return;
    }
    for (; n; value >>= 8) {
        block[i * (bits / 8) + --n] = value;
    }
}

/* Which entries of L2 tables are looked for. */
typedef enum {
    TEST_L2_DATA,
    TEST_L2_ZERO,               /* with a host cluster */
    TEST_L2_COMPRESSED,
} TestL2Kind;

static inline bool test_l2_is(const TestImage *im, uint64_t entry,
                              TestL2Kind kind)
{
    bool zero = !im->extended_l2 && (entry & QCOW2_OFLAG_ZERO);

    if (entry & QCOW2_OFLAG_COMPRESSED) {
        return kind == TEST_L2_COMPRESSED;
    }
    return (entry & QCOW2_L2E_OFFSET_MASK)
           && kind == (zero ? TEST_L2_ZERO : TEST_L2_DATA);
}

/* Where the first (or last) such entry of the active tables is, or 0. */
static inline uint64_t test_image_find_l2(const TestImage *im,
                                          TestL2Kind kind, bool last)
{
    uint64_t found = 0;

    for (uint32_t i = 0; i < im->h.l1_size; i++) {
        uint64_t table = test_image_get(im, im->h.l1_table_offset + i * 8)
                         & QCOW2_L1E_OFFSET_MASK;

        for (uint64_t at = 0; table && at < im->cluster_size;
             at += im->extended_l2 ? 16 : 8) {
            if (test_l2_is(im, test_image_get(im, table + at), kind)) {
                found = table + at;
                if (!last) {
                    return found;
                }
            }
        }
    }
    return found;
}

#endif /* TESTS_UNIT_QCOW2_IMAGE_H */
