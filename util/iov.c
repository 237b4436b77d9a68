/* SPDX-License-Identifier: MIT */
/*
 * QEMUIOVector.
 */
#include <glib.h>
#include <string.h>
#include "util/iov.h"

void qemu_iovec_init(QEMUIOVector *qiov, int alloc_hint)
{
    *qiov = (QEMUIOVector) { .nalloc = alloc_hint };
    qiov->iov = g_new(struct iovec, alloc_hint);
}

void qemu_iovec_init_external(QEMUIOVector *qiov, struct iovec *iov, int niov)
{
    *qiov = (QEMUIOVector) { .iov = iov, .niov = niov, .nalloc = -1 };
    for (int i = 0; i < niov; i++) {
        qiov->size += iov[i].iov_len;
    }
}

void qemu_iovec_add(QEMUIOVector *qiov, void *base, size_t len)
{
    g_assert(qiov->nalloc >= 0);
    if (qiov->niov == qiov->nalloc) {
        g_assert(qiov->nalloc < G_MAXINT / 2);
        qiov->nalloc = qiov->nalloc * 2 + 1;
        qiov->iov = g_renew(struct iovec, qiov->iov, qiov->nalloc);
    }
    qiov->iov[qiov->niov++] = (struct iovec) { base, len };
    qiov->size += len;
}

/* The element that holds byte @*offset, which becomes relative to it. */
static int find_element(const QEMUIOVector *qiov, size_t *offset)
{
    int i = 0;

    while (i < qiov->niov && *offset >= qiov->iov[i].iov_len) {
        *offset -= qiov->iov[i].iov_len;
        i++;
    }
    return i;
}

static void check_range(const QEMUIOVector *qiov, size_t offset, size_t bytes)
{
    g_assert(offset <= qiov->size && bytes <= qiov->size - offset);
}

/* The pieces of a byte range, one after the other; never an empty one. */
typedef struct PieceIter {
    const struct iovec *next;
    size_t skip;            /* bytes to leave out at the start of @next */
    size_t left;            /* bytes of the range not yet visited */
    char *base;             /* the current piece */
    size_t len;
} PieceIter;

static PieceIter pieces(const QEMUIOVector *qiov, size_t offset, size_t bytes)
{
    int first = find_element(qiov, &offset);

    return (PieceIter) {
        .next = qiov->iov + first, .skip = offset, .left = bytes,
    };
}

static bool next_piece(PieceIter *it)
{
    if (!it->left) {
        return false;
    }
    while (it->next->iov_len == 0) {
        it->next++;
    }
    it->base = (char *)it->next->iov_base + it->skip;
    it->len = MIN(it->left, it->next->iov_len - it->skip);
    it->left -= it->len;
    it->skip = 0;
    it->next++;
    return true;
}

void qemu_iovec_concat(QEMUIOVector *qiov, const QEMUIOVector *src,
                       size_t offset, size_t bytes)
{
    PieceIter it;

    check_range(src, offset, bytes);
    it = pieces(src, offset, bytes);
    while (next_piece(&it)) {
        qemu_iovec_add(qiov, it.base, it.len);
    }
}

void qemu_iovec_init_slice(QEMUIOVector *qiov, const QEMUIOVector *src,
                           size_t offset, size_t bytes)
{
    size_t start = offset;
    int first;

    check_range(src, offset, bytes);
    first = find_element(src, &start);
    if (first == src->niov) {
        qemu_iovec_init_buf(qiov, NULL, 0);
    } else if (bytes <= src->iov[first].iov_len - start) {
        qemu_iovec_init_buf(qiov, (char *)src->iov[first].iov_base + start,
                            bytes);
    } else {
        qemu_iovec_init(qiov, src->niov - first);
        qemu_iovec_concat(qiov, src, offset, bytes);
    }
}

void qemu_iovec_destroy(QEMUIOVector *qiov)
{
    if (qiov->nalloc >= 0) {
        g_free(qiov->iov);
    }
    *qiov = (QEMUIOVector) { .nalloc = -1 };
}

/* @bytes cut to what @qiov has from @offset on. */
static size_t clip(const QEMUIOVector *qiov, size_t offset, size_t bytes)
{
    return offset < qiov->size ? MIN(bytes, qiov->size - offset) : 0;
}

size_t qemu_iovec_to_buf(const QEMUIOVector *qiov, size_t offset, void *buf,
                         size_t bytes)
{
    char *to = buf;
    PieceIter it;

    bytes = clip(qiov, offset, bytes);
    it = pieces(qiov, offset, bytes);
    while (next_piece(&it)) {
        memcpy(to, it.base, it.len);
        to += it.len;
    }
    return bytes;
}

size_t qemu_iovec_from_buf(QEMUIOVector *qiov, size_t offset, const void *buf,
                           size_t bytes)
{
    const char *from = buf;
    PieceIter it;

    bytes = clip(qiov, offset, bytes);
    it = pieces(qiov, offset, bytes);
    while (next_piece(&it)) {
        memcpy(it.base, from, it.len);
        from += it.len;
    }
    return bytes;
}

void qemu_iovec_memset(QEMUIOVector *qiov, size_t offset, int c, size_t bytes)
{
    PieceIter it;

    bytes = clip(qiov, offset, bytes);
    it = pieces(qiov, offset, bytes);
    while (next_piece(&it)) {
        memset(it.base, c, it.len);
    }
}

bool buffer_is_zero(const void *buf, size_t len)
{
    const char *p = buf;
    const size_t head = 16;

    for (size_t i = 0; i < MIN(len, head); i++) {
        if (p[i]) {
            return false;
        }
    }
    /* The rest is zero if it equals the bytes @head places before it. */
    return len <= head || memcmp(p, p + head, len - head) == 0;
}

bool qemu_iovec_is_zero(const QEMUIOVector *qiov, size_t offset, size_t bytes)
{
    PieceIter it;

    check_range(qiov, offset, bytes);
    it = pieces(qiov, offset, bytes);
    while (next_piece(&it)) {
        if (!buffer_is_zero(it.base, it.len)) {
            return false;
        }
    }
    return true;
}

bool qemu_iovec_is_aligned(const QEMUIOVector *qiov, size_t align)
{
    for (int i = 0; i < qiov->niov; i++) {
        if ((uintptr_t)qiov->iov[i].iov_base % align ||
            qiov->iov[i].iov_len % align) {
            return false;
        }
    }
    return true;
}
