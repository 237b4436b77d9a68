/* SPDX-License-Identifier: MIT */
/* QEMUIOVector. */
#include <glib.h>
#include <string.h>
#include "util/iov.h"

#define SIZE 1000

/* A vector over @buf[0..SIZE-1] in pieces of random length, some empty. */
static void random_vector(QEMUIOVector *qiov, char *buf)
{
    size_t pos = 0;

    qemu_iovec_init(qiov, g_test_rand_int_range(0, 3));
    while (pos < SIZE) {
        size_t len = g_test_rand_int_range(0, 100);

        len = MIN(len, SIZE - pos);
        qemu_iovec_add(qiov, buf + pos, len);
        pos += len;
    }
    g_assert_cmpuint(qiov->size, ==, SIZE);
}

static void test_buf(void)
{
    char buf[16];
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, sizeof(buf));
    g_assert_cmpint(qiov.niov, ==, 1);
    g_assert_cmpuint(qiov.size, ==, sizeof(buf));
    g_assert_true(qiov.iov[0].iov_base == buf);
    qemu_iovec_destroy(&qiov);
}

static void test_external(void)
{
    char buf[16];
    struct iovec iov[] = { { buf, 10 }, { buf + 10, 6 } };
    QEMUIOVector qiov;

    qemu_iovec_init_external(&qiov, iov, 2);
    g_assert_cmpuint(qiov.size, ==, 16);
    g_assert_true(qiov.iov == iov);
    qemu_iovec_destroy(&qiov);
    qemu_iovec_destroy(&qiov);              /* harmless */
}

static void test_copy(void)
{
    char memory[SIZE], expect[SIZE], data[SIZE], back[SIZE];

    for (int round = 0; round < 200; round++) {
        size_t offset = g_test_rand_int_range(0, SIZE + 1);
        size_t len = g_test_rand_int_range(0, SIZE + 1);
        size_t can = MIN(len, SIZE - offset);
        QEMUIOVector qiov;

        for (size_t i = 0; i < SIZE; i++) {
            memory[i] = expect[i] = g_test_rand_int();
            data[i] = g_test_rand_int();
        }
        random_vector(&qiov, memory);

        g_assert_cmpuint(qemu_iovec_from_buf(&qiov, offset, data, len), ==,
                         can);
        memcpy(expect + offset, data, can);
        g_assert_cmpmem(memory, SIZE, expect, SIZE);

        g_assert_cmpuint(qemu_iovec_to_buf(&qiov, offset, back, len), ==,
                         can);
        g_assert_cmpmem(back, can, data, can);

        qemu_iovec_memset(&qiov, offset, 0x5a, len);
        memset(expect + offset, 0x5a, can);
        g_assert_cmpmem(memory, SIZE, expect, SIZE);
        qemu_iovec_destroy(&qiov);
    }
}

static void test_slice(void)
{
    char memory[SIZE], back[SIZE];

    for (size_t i = 0; i < SIZE; i++) {
        memory[i] = i * 7;
    }
    for (int round = 0; round < 200; round++) {
        size_t offset = g_test_rand_int_range(0, SIZE + 1);
        size_t len = g_test_rand_int_range(0, SIZE - offset + 1);
        QEMUIOVector whole, slice;

        random_vector(&whole, memory);
        qemu_iovec_init_slice(&slice, &whole, offset, len);
        g_assert_cmpuint(slice.size, ==, len);
        g_assert_cmpuint(qemu_iovec_to_buf(&slice, 0, back, SIZE), ==, len);
        g_assert_cmpmem(back, len, memory + offset, len);
        if (len && slice.niov == 1) {
            g_assert_cmpint(slice.nalloc, ==, -1);
        }
        qemu_iovec_destroy(&slice);
        qemu_iovec_destroy(&whole);
    }
}

static void test_concat(void)
{
    char a[] = "hello ", b[] = "cruel world", out[32] = "";
    QEMUIOVector src, dst;

    qemu_iovec_init(&src, 2);
    qemu_iovec_add(&src, b, 6);
    qemu_iovec_add(&src, b + 6, 5);
    qemu_iovec_init(&dst, 1);
    qemu_iovec_add(&dst, a, 6);
    qemu_iovec_concat(&dst, &src, 6, 5);
    g_assert_cmpint(dst.niov, ==, 2);
    qemu_iovec_to_buf(&dst, 0, out, sizeof(out));
    g_assert_cmpstr(out, ==, "hello world");
    qemu_iovec_destroy(&src);
    qemu_iovec_destroy(&dst);
}

static void test_zero(void)
{
    char buf[100] = { 0 };
    QEMUIOVector qiov;

    for (size_t len = 0; len <= sizeof(buf); len++) {
        g_assert_true(buffer_is_zero(buf, len));
        for (size_t i = 0; i < sizeof(buf); i++) {
            buf[i] = 1;
            g_assert_cmpint(buffer_is_zero(buf, len), ==, i >= len);
            buf[i] = 0;
        }
    }
    qemu_iovec_init(&qiov, 1);
    qemu_iovec_add(&qiov, buf, 50);
    qemu_iovec_add(&qiov, buf + 50, 50);
    buf[10] = buf[70] = 1;
    g_assert_true(qemu_iovec_is_zero(&qiov, 0, 10));
    g_assert_true(qemu_iovec_is_zero(&qiov, 11, 59));
    g_assert_false(qemu_iovec_is_zero(&qiov, 11, 60));
    g_assert_false(qemu_iovec_is_zero(&qiov, 0, 11));
    g_assert_true(qemu_iovec_is_zero(&qiov, 100, 0));
    qemu_iovec_destroy(&qiov);
}

static void test_aligned(void)
{
    static char buf[8192] __attribute__((aligned(4096)));
    QEMUIOVector qiov;

    qemu_iovec_init(&qiov, 1);
    qemu_iovec_add(&qiov, buf, 4096);
    g_assert_true(qemu_iovec_is_aligned(&qiov, 4096));
    qemu_iovec_add(&qiov, buf + 4096, 512);
    g_assert_false(qemu_iovec_is_aligned(&qiov, 4096));
    g_assert_true(qemu_iovec_is_aligned(&qiov, 512));
    qemu_iovec_add(&qiov, buf + 1, 512);
    g_assert_false(qemu_iovec_is_aligned(&qiov, 512));
    qemu_iovec_destroy(&qiov);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/buf", test_buf);
    g_test_add_func("/iov/external", test_external);
    g_test_add_func("/iov/copy", test_copy);
    g_test_add_func("/iov/slice", test_slice);
    g_test_add_func("/iov/concat", test_concat);
    g_test_add_func("/iov/zero", test_zero);
    g_test_add_func("/iov/aligned", test_aligned);
    return g_test_run();
}
