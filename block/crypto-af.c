/* SPDX-License-Identifier: MIT */
/*
 * Anti-forensic stripes: a key blown up so that it is lost as soon as any part
 * of what became of it is overwritten ("LUKS On-Disk Format Specification"
 * 1.2.3, 2.4).
 */
#include "block/crypto-int.h"

#include <errno.h>
#include <nettle/memxor.h>
#include <string.h>
#include <sys/random.h>

bool crypto_random(void *buf, size_t len)
{
    uint8_t *p = buf;

    while (len > 0) {
        ssize_t ret = getrandom(p, len, 0);

        if (ret < 0 && errno != EINTR) {
            return false;
        }
        if (ret > 0) {
            p += ret;
            len -= ret;
        }
    }
    return true;
}

/* Each block of a digest's length becomes the digest of its number and it. */
static void af_diffuse(const struct nettle_hash *hash, uint8_t *buf,
                       size_t len)
{
    uint8_t in[4 + CRYPTO_MAX_DIGEST];
    uint8_t out[CRYPTO_MAX_DIGEST];

    for (uint32_t i = 0; len > 0; i++) {
        size_t n = MIN(len, hash->digest_size);
        uint32_t number = GUINT32_TO_BE(i);

        memcpy(in, &number, 4);
        memcpy(in + 4, buf, n);
        crypto_hash_bytes(hash, in, 4 + n, out);
        memcpy(buf, out, n);
        buf += n;
        len -= n;
    }
    explicit_bzero(in, sizeof(in));
    explicit_bzero(out, sizeof(out));
}

/* What all stripes but the last add up to. */
static void af_accumulate(const struct nettle_hash *hash,
                          const uint8_t *material, size_t len,
                          unsigned stripes, uint8_t *sum)
{
    memset(sum, 0, len);
    for (unsigned i = 0; i < stripes - 1; i++) {
        memxor(sum, material + i * len, len);
        af_diffuse(hash, sum, len);
    }
}

bool crypto_af_split(const struct nettle_hash *hash, const uint8_t *key,
                     size_t len, unsigned stripes, uint8_t *material)
{
    uint8_t *last = material + (stripes - 1) * len;

    if (!crypto_random(material, (stripes - 1) * len)) {
        return false;
    }
    af_accumulate(hash, material, len, stripes, last);
    memxor(last, key, len);
    return true;
}

void crypto_af_merge(const struct nettle_hash *hash, const uint8_t *material,
                     size_t len, unsigned stripes, uint8_t *key)
{
    af_accumulate(hash, material, len, stripes, key);
    memxor(key, material + (stripes - 1) * len, len);
}
