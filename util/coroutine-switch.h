/* SPDX-License-Identifier: MIT */
/*
 * Switching stacks, for coroutine.c alone.
 *
 * SwitchPoint is where a stack's owner left off.  On x86_64 a switch is a few
 * instructions, inlined, because the processor mispredicts each return that
 * follows a switch: 25 to 30 ns for an enter and a yield with all that belongs
 * to them, against 60 to 70 with sigsetjmp()/siglongjmp(), which serve the
 * other architectures (and x86_64 with -DCOROUTINE_PORTABLE, for the tests).
 * Neither touches the signal mask; the floating point modes belong to the
 * thread.
 */
#ifndef UTIL_COROUTINE_SWITCH_H
#define UTIL_COROUTINE_SWITCH_H

#include <stddef.h>
#include <stdint.h>
#include "util/sanitizers.h"

typedef struct SwitchPoint SwitchPoint;

#ifdef TSAN_ENABLED
#define TSAN_FIBER_FIELD void *tsan_fiber;
#define TSAN_SWITCH_TO(point) __tsan_switch_to_fiber((point)->tsan_fiber, 0)
#else
#define TSAN_FIBER_FIELD
#define TSAN_SWITCH_TO(point)
#endif

#if defined(__x86_64__) && !defined(__ILP32__) && !defined(COROUTINE_PORTABLE)

struct SwitchPoint {
    void *sp;
    void *pc;
    TSAN_FIBER_FIELD
};

/* The first switch to @point calls @entry(@point), which never returns. */
static inline void switch_point_init(SwitchPoint *point, void *stack,
                                     size_t size,
                                     void (*entry)(SwitchPoint *self))
{
    /* As after a call: 16-byte alignment less the return address, 0. */
    uintptr_t *sp = (uintptr_t *)((char *)stack + size) - 3;

    *sp = 0;
    point->sp = sp;
    point->pc = (void *)entry;
}

/*
 * Leave off in @from and go on in @to, where the call that left off returns
 * @value (not 0).  Returns the value of the switch back.
 */
static inline __attribute__((always_inline))
int switch_stacks(SwitchPoint *from, SwitchPoint *to, int value)
{
    TSAN_SWITCH_TO(to);
    asm volatile(
        "leaq -128(%%rsp), %%rsp\n\t"           /* spare the red zone */
        "pushq %%rbp\n\t"
        "pushq %%rbx\n\t"
        "leaq 1f(%%rip), %%rcx\n\t"
        "movq %%rsp, %c[sp](%[from])\n\t"
        "movq %%rcx, %c[pc](%[from])\n\t"
        "movq %c[sp](%[to]), %%rsp\n\t"
        "jmpq *%c[pc](%[to])\n"                 /* @to is the 1st argument */
        "1:\n\t"
        "popq %%rbx\n\t"
        "popq %%rbp\n\t"
        "leaq 128(%%rsp), %%rsp\n\t"
        : "+a" (value), [from] "+S" (from), [to] "+D" (to)
        : [sp] "i" (offsetof(SwitchPoint, sp)),
          [pc] "i" (offsetof(SwitchPoint, pc))
        : "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
          "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
          "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
          "xmm15", "cc", "memory");
    return value;
}

#else /* any architecture */

#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <ucontext.h>

struct SwitchPoint {
    sigjmp_buf env;
    void *stack;
    size_t size;
    void (*entry)(SwitchPoint *self);       /* NULL once it has been called */
    TSAN_FIBER_FIELD
};

static inline void switch_point_init(SwitchPoint *point, void *stack,
                                     size_t size,
                                     void (*entry)(SwitchPoint *self))
{
    point->stack = stack;
    point->size = size;
    point->entry = entry;
}

static void switch_point_start(unsigned high, unsigned low)
{
    SwitchPoint *self = (SwitchPoint *)(uintptr_t)((uint64_t)high << 32 | low);
    void (*entry)(SwitchPoint *) = self->entry;

    self->entry = NULL;
    entry(self);
}

static __attribute__((noinline, unused))
int switch_stacks(SwitchPoint *from, SwitchPoint *to, int value)
{
    uint64_t arg = (uintptr_t)to;
    ucontext_t uc;
    int arrival = sigsetjmp(from->env, 0);

    if (arrival != 0) {
        return arrival;
    }
    TSAN_SWITCH_TO(to);
    if (!to->entry) {
        siglongjmp(to->env, value);
    }
    getcontext(&uc);
    uc.uc_link = NULL;
    uc.uc_stack.ss_sp = to->stack;
    uc.uc_stack.ss_size = to->size;
    uc.uc_stack.ss_flags = 0;
    makecontext(&uc, (void (*)(void))switch_point_start, 2,
                (unsigned)(arg >> 32), (unsigned)arg);
    setcontext(&uc);
    abort();
}

#endif

#endif /* UTIL_COROUTINE_SWITCH_H */
