/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 format on disk: versions 2 and 3.
 *
 * All numbers are big-endian.  Source: the published qcow2 specification
 * ("The QCOW2 image format"); names of fields and bits are its names.
 */
#ifndef BLOCK_QCOW2_FORMAT_H
#define BLOCK_QCOW2_FORMAT_H

#include <glib.h>
#include <stdint.h>

#define QCOW2_MAGIC             0x514649fbu     /* "QFI\xfb" */
#define QCOW2_HEADER_V2_SIZE    72
#define QCOW2_HEADER_V3_SIZE    104             /* without compression_type */

typedef struct Qcow2Header {
    uint32_t magic;
    uint32_t version;
    uint64_t backing_file_offset;
    uint32_t backing_file_size;
    uint32_t cluster_bits;
    uint64_t size;                      /* bytes */
    uint32_t crypt_method;
    uint32_t l1_size;                   /* entries */
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    /* Version 3 */
    uint64_t incompatible_features;
    uint64_t compatible_features;
    uint64_t autoclear_features;
    uint32_t refcount_order;
    uint32_t header_length;
    /* Present where header_length says so. */
    uint8_t compression_type;
    uint8_t padding[7];
} __attribute__((packed)) Qcow2Header;

enum {
    QCOW2_CRYPT_NONE = 0,
    QCOW2_CRYPT_AES  = 1,
    QCOW2_CRYPT_LUKS = 2,
};

/* Incompatible features */
#define QCOW2_INCOMPAT_DIRTY        (UINT64_C(1) << 0)
#define QCOW2_INCOMPAT_CORRUPT      (UINT64_C(1) << 1)
#define QCOW2_INCOMPAT_DATA_FILE    (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION  (UINT64_C(1) << 3)
#define QCOW2_INCOMPAT_EXTL2        (UINT64_C(1) << 4)
#define QCOW2_INCOMPAT_MASK         (QCOW2_INCOMPAT_DIRTY               \
                                     | QCOW2_INCOMPAT_CORRUPT           \
                                     | QCOW2_INCOMPAT_DATA_FILE         \
                                     | QCOW2_INCOMPAT_COMPRESSION       \
                                     | QCOW2_INCOMPAT_EXTL2)
/* Compatible features */
#define QCOW2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)
/* Autoclear features */
#define QCOW2_AUTOCLEAR_BITMAPS     (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW (UINT64_C(1) << 1)
#define QCOW2_AUTOCLEAR_MASK        (QCOW2_AUTOCLEAR_BITMAPS            \
                                     | QCOW2_AUTOCLEAR_DATA_FILE_RAW)

/* Header extensions: type, length, data padded to a multiple of 8 bytes */
typedef struct Qcow2ExtHeader {
    uint32_t type;
    uint32_t length;
} __attribute__((packed)) Qcow2ExtHeader;

enum {
    QCOW2_EXT_END               = 0,
    QCOW2_EXT_BACKING_FORMAT    = 0xe2792aca,
    QCOW2_EXT_FEATURE_TABLE     = 0x6803f857,
    QCOW2_EXT_BITMAPS           = 0x23852875,
    QCOW2_EXT_CRYPTO_HEADER     = 0x0537be77,
    QCOW2_EXT_DATA_FILE         = 0x44415441,
};

enum {
    QCOW2_FEAT_TYPE_INCOMPATIBLE = 0,
    QCOW2_FEAT_TYPE_COMPATIBLE   = 1,
    QCOW2_FEAT_TYPE_AUTOCLEAR    = 2,
};

typedef struct Qcow2Feature {           /* entry of the feature name table */
    uint8_t type;
    uint8_t bit;
    char name[46];                      /* padded with zeroes */
} __attribute__((packed)) Qcow2Feature;

typedef struct Qcow2CryptoHeaderExt {
    uint64_t offset;                    /* bytes into the image file */
    uint64_t length;
} __attribute__((packed)) Qcow2CryptoHeaderExt;

typedef struct Qcow2BitmapHeaderExt {
    uint32_t nb_bitmaps;
    uint32_t reserved32;
    uint64_t bitmap_directory_size;     /* bytes */
    uint64_t bitmap_directory_offset;
} __attribute__((packed)) Qcow2BitmapHeaderExt;

/* Entry of the bitmap directory; extra data and name follow, padded to 8. */
typedef struct Qcow2BitmapDirEntry {
    uint64_t bitmap_table_offset;
    uint32_t bitmap_table_size;         /* entries */
    uint32_t flags;
    uint8_t type;
    uint8_t granularity_bits;
    uint16_t name_size;
    uint32_t extra_data_size;
} __attribute__((packed)) Qcow2BitmapDirEntry;

enum {
    QCOW2_BITMAP_IN_USE           = 1 << 0,
    QCOW2_BITMAP_AUTO             = 1 << 1,
    QCOW2_BITMAP_EXTRA_COMPATIBLE = 1 << 2,
    QCOW2_BITMAP_TYPE_DIRTY_TRACKING = 1,
};

/* Entry of the snapshot table; extra data, id and name follow, padded to 8. */
typedef struct Qcow2SnapshotHeader {
    uint64_t l1_table_offset;
    uint32_t l1_size;                   /* entries */
    uint16_t id_str_size;
    uint16_t name_size;
    uint32_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint32_t vm_state_size;
    uint32_t extra_data_size;
} __attribute__((packed)) Qcow2SnapshotHeader;

typedef struct Qcow2SnapshotExtra {
    uint64_t vm_state_size_large;
    uint64_t disk_size;                 /* bytes */
    uint64_t icount;                    /* UINT64_MAX: none */
} __attribute__((packed)) Qcow2SnapshotExtra;

/* Entries of L1 and L2 tables */
#define QCOW2_L1E_OFFSET_MASK   UINT64_C(0x00fffffffffffe00)
#define QCOW2_L2E_OFFSET_MASK   UINT64_C(0x00fffffffffffe00)
#define QCOW2_OFLAG_COPIED      (UINT64_C(1) << 63)
#define QCOW2_OFLAG_COMPRESSED  (UINT64_C(1) << 62)
#define QCOW2_OFLAG_ZERO        (UINT64_C(1) << 0)
#define QCOW2_L1E_RESERVED_MASK UINT64_C(0x7f000000000001ff)
#define QCOW2_L2E_STD_RESERVED_MASK UINT64_C(0x3f000000000001fe)
#define QCOW2_REFT_OFFSET_MASK  UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFT_RESERVED_MASK UINT64_C(0x1ff)
#define QCOW2_BME_OFFSET_MASK   UINT64_C(0x00fffffffffffe00)
#define QCOW2_BME_ALL_ONES      (UINT64_C(1) << 0)
#define QCOW2_BME_RESERVED_MASK UINT64_C(0xff000000000001fe)

/* Bitmaps of extended L2 entries: one bit a subcluster in each half */
#define QCOW2_EXTL2_SUBCLUSTERS 32
#define QCOW2_EXTL2_ALLOC(n)    (UINT64_C(1) << (n))
#define QCOW2_EXTL2_ZERO(n)     (UINT64_C(1) << (32 + (n)))
#define QCOW2_EXTL2_ALL_ALLOC   UINT64_C(0x00000000ffffffff)
#define QCOW2_EXTL2_ALL_ZERO    UINT64_C(0xffffffff00000000)

/* Limits: what an image may ask for (the specification's, or as published) */
#define QCOW2_MIN_CLUSTER_BITS      9
#define QCOW2_MAX_CLUSTER_BITS      21
#define QCOW2_EXTL2_MIN_CLUSTER_BITS 14
#define QCOW2_MAX_L1_BYTES          (32 << 20)
#define QCOW2_MAX_REFTABLE_BYTES    (8 << 20)
#define QCOW2_MAX_SNAPSHOTS         65536
#define QCOW2_MAX_SNAPSHOT_TABLE    (65536 * 1024)
#define QCOW2_MAX_SNAPSHOT_EXTRA    1024
#define QCOW2_MAX_BACKING_NAME      1023
#define QCOW2_MAX_BITMAPS           65535
#define QCOW2_MAX_BITMAP_DIRECTORY  (QCOW2_MAX_BITMAPS * 1024)
#define QCOW2_MAX_BITMAP_NAME       1023
#define QCOW2_MAX_CRYPTO_HEADER     (64 << 20)

#endif /* BLOCK_QCOW2_FORMAT_H */
