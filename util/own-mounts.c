/* SPDX-License-Identifier: MIT */
/*
 * The set of file systems that this process serves.  Atomic, from any thread
 * and from the process that mounts.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include "util/own-mounts.h"

#define OWN_MOUNTS_MINORS (1u << 20)
#define OWN_MOUNTS_WORDS (OWN_MOUNTS_MINORS / 64)

/* Pages that nobody touches do not exist. */
static uint64_t own_mounts_private[OWN_MOUNTS_WORDS];
static uint64_t *own_mounts = own_mounts_private;

bool own_mounts_share(void)
{
    void *shared = mmap(NULL, sizeof(own_mounts_private),
                        PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                        -1, 0);

    if (shared == MAP_FAILED) {
        return false;
    }
    own_mounts = shared;
    return true;
}

void own_mounts_add(unsigned minor)
{
    if (minor < OWN_MOUNTS_MINORS) {
        __atomic_fetch_or(&own_mounts[minor / 64], 1ULL << (minor % 64),
                          __ATOMIC_SEQ_CST);
    }
}

void own_mounts_remove(unsigned minor)
{
    if (minor < OWN_MOUNTS_MINORS) {
        __atomic_fetch_and(&own_mounts[minor / 64], ~(1ULL << (minor % 64)),
                           __ATOMIC_SEQ_CST);
    }
}

bool own_mounts_contain(unsigned major, unsigned minor)
{
    return major == 0 && minor < OWN_MOUNTS_MINORS
           && (__atomic_load_n(&own_mounts[minor / 64], __ATOMIC_SEQ_CST)
               >> (minor % 64) & 1);
}
