/* SPDX-License-Identifier: MIT */
/*
 * Which of the tools that watch stacks this build runs under: ASAN_ENABLED,
 * TSAN_ENABLED, and VALGRIND_ENABLED where valgrind can be told of stacks; and
 * whether it watches this very process, UNDER_VALGRIND.
 */
#ifndef UTIL_SANITIZERS_H
#define UTIL_SANITIZERS_H

#include "config-host.h"

#include <stdbool.h>

#if defined(__has_feature)                                  /* clang */
#if __has_feature(address_sanitizer)
#define ASAN_ENABLED 1
#endif
#if __has_feature(thread_sanitizer)
#define TSAN_ENABLED 1
#endif
#endif

#if defined(__SANITIZE_ADDRESS__) && !defined(ASAN_ENABLED) /* gcc */
#define ASAN_ENABLED 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(TSAN_ENABLED)
#define TSAN_ENABLED 1
#endif

#ifdef ASAN_ENABLED
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#ifdef TSAN_ENABLED
#include <sanitizer/tsan_interface.h>
#endif

#if defined(CONFIG_VALGRIND) && !defined(ASAN_ENABLED) && \
    !defined(TSAN_ENABLED)
#define VALGRIND_ENABLED 1
#include <valgrind/valgrind.h>
#endif

/* At run time. */
#ifdef VALGRIND_ENABLED
#define UNDER_VALGRIND ((bool)RUNNING_ON_VALGRIND)
#else
#define UNDER_VALGRIND false
#endif

#endif /* UTIL_SANITIZERS_H */
