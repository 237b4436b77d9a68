/* SPDX-License-Identifier: MIT */
/* Memory for secrets: what it holds, its pages, core dumps. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>

#include "util/secmem.h"

static rlim_t core_limit(void)
{
    struct rlimit limit;

    g_assert_cmpint(getrlimit(RLIMIT_CORE, &limit), ==, 0);
    return limit.rlim_cur;
}

static bool is_zero(const char *mem, size_t len)
{
    while (len > 0 && *mem == 0) {
        mem++;
        len--;
    }
    return len == 0;
}

static void test_content(void)
{
    char *mem = secmem_alloc(100), *copy;

    g_assert_true(is_zero(mem, 100));
    g_assert_cmpuint((uintptr_t)mem % 64, ==, 0);
    memset(mem, 'x', 100);
    mem = secmem_resize(mem, 100, 1000);
    mem = secmem_resize(mem, 100, 100000);
    g_assert_cmpuint((uintptr_t)mem % 64, ==, 0);
    for (int i = 0; i < 100; i++) {
        g_assert_cmpint(mem[i], ==, 'x');
    }
    g_assert_true(is_zero(mem + 100, 100000 - 100));
    copy = secmem_dup(mem, 100);
    g_assert_cmpuint(strlen(copy), ==, 100);
    secmem_free(copy);
    secmem_free(mem);
    secmem_free(NULL);
    mem = secmem_alloc(0);
    secmem_free(mem);
    secmem_wipe_string(g_strdup("text"));
    secmem_wipe_string(NULL);
}

/* What /proc/self/smaps says of the pages. */
static void test_pages(void)
{
    char *mem = secmem_alloc(1);
    g_autofree char *smaps = NULL;
    g_autofree char *start = g_strdup_printf("\n%lx-",
                                             (unsigned long)mem & ~4095ul);
    const char *map, *flags;

    g_assert_true(g_file_get_contents("/proc/self/smaps", &smaps, NULL, NULL));
    map = strstr(smaps, start);
    if (!map) {
        g_test_skip("it lies in a larger mapping");
    } else {
        flags = strstr(map, "VmFlags:");
        g_assert_true(g_pattern_match_simple("* dd*", flags));
    }
    secmem_free(mem);
}

static void test_core_dumps(void)
{
    struct rlimit limit;
    void *one, *two;

    g_assert_cmpint(getrlimit(RLIMIT_CORE, &limit), ==, 0);
    if (limit.rlim_max < 4096) {
        g_test_skip("there are no core dumps anyway");
        return;
    }
    limit.rlim_cur = 4096;
    g_assert_cmpint(setrlimit(RLIMIT_CORE, &limit), ==, 0);
    one = secmem_alloc(1);
    two = secmem_alloc(1);
    g_assert_cmpuint(core_limit(), ==, 1);
    secmem_free(one);
    g_assert_cmpuint(core_limit(), ==, 1);
    secmem_free(two);
    g_assert_cmpuint(core_limit(), ==, 4096);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/secmem/content", test_content);
    g_test_add_func("/secmem/pages", test_pages);
    g_test_add_func("/secmem/core-dumps", test_core_dumps);
    return g_test_run();
}
