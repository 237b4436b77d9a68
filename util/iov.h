/* SPDX-License-Identifier: MIT */
/*
 * QEMUIOVector: a scatter/gather list with its total length.
 *
 * Any thread; a vector belongs to one request at a time.  qemu_iovec_init_buf()
 * describes one contiguous buffer without allocating, which is what the steady
 * I/O path uses.
 */
#ifndef UTIL_IOV_H
#define UTIL_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

typedef struct QEMUIOVector {
    struct iovec *iov;
    int niov;
    int nalloc;             /* -1: iov is borrowed or local, not ours to free */
    size_t size;            /* sum of all iov_len, bytes */
    struct iovec local;     /* storage of qemu_iovec_init_buf() */
} QEMUIOVector;

/* An empty vector with room for @alloc_hint elements; grows on demand. */
void qemu_iovec_init(QEMUIOVector *qiov, int alloc_hint);

/* Borrow @iov[0..@niov-1], which outlives the vector. */
void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov);

/* One buffer of @len bytes; no allocation. */
static inline void qemu_iovec_init_buf(QEMUIOVector *qiov, void *buf,
                                       size_t len)
{
    *qiov = (QEMUIOVector) {
        .niov = 1, .nalloc = -1, .size = len,
        .local = { .iov_base = buf, .iov_len = len },
    };
    qiov->iov = &qiov->local;
}

void qemu_iovec_add(QEMUIOVector *qiov, void *base, size_t len);

/* Append bytes [@offset, @offset + @bytes) of @src, sharing its memory. */
void qemu_iovec_concat(QEMUIOVector *qiov, const QEMUIOVector *src,
                       size_t offset, size_t bytes);

/*
 * Make @qiov the bytes [@offset, @offset + @bytes) of @src, sharing memory.
 * Does not allocate where the part lies in one element of @src.
 */
void qemu_iovec_init_slice(QEMUIOVector *qiov, const QEMUIOVector *src,
                           size_t offset, size_t bytes);
void qemu_iovec_destroy(QEMUIOVector *qiov);

/*
 * Copy between a vector (from byte @offset on) and a buffer, or fill; stops at
 * the end of the vector.  Returns the bytes copied.
 */
size_t qemu_iovec_to_buf(const QEMUIOVector *qiov, size_t offset, void *buf,
                         size_t bytes);
size_t qemu_iovec_from_buf(QEMUIOVector *qiov, size_t offset, const void *buf,
                           size_t bytes);
void qemu_iovec_memset(QEMUIOVector *qiov, size_t offset, int c, size_t bytes);

/* True if all @len bytes of @buf are zero. */
bool buffer_is_zero(const void *buf, size_t len);

/* True if bytes [@offset, @offset + @bytes) are all zero. */
bool qemu_iovec_is_zero(const QEMUIOVector *qiov, size_t offset, size_t bytes);

/* True if base and length of every element are multiples of @align. */
bool qemu_iovec_is_aligned(const QEMUIOVector *qiov, size_t align);

#endif /* UTIL_IOV_H */
