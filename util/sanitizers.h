/* SPDX-License-Identifier: MIT */
/*
 * Which of the tools that watch stacks this build runs under: ASAN_ENABLED,
 * TSAN_ENABLED, and HAVE_VALGRIND_H for the client requests of valgrind.
 */
#ifndef UTIL_SANITIZERS_H
#define UTIL_SANITIZERS_H

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
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#ifdef TSAN_ENABLED
#include <sanitizer/tsan_interface.h>
#endif

#if __has_include(<valgrind/valgrind.h>) && !defined(ASAN_ENABLED) && \
    !defined(TSAN_ENABLED)
#define HAVE_VALGRIND_H 1
#include <valgrind/valgrind.h>
#endif

#endif /* UTIL_SANITIZERS_H */
