/* SPDX-License-Identifier: MIT */
/*
 * Hash functions by name, and deriving keys from passphrases with them.
 */
#include "block/crypto-int.h"

#include <nettle/hmac.h>
#include <nettle/md5.h>
#include <nettle/pbkdf2.h>
#include <nettle/ripemd160.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <string.h>
#include <time.h>

/* Room for the state of any of them. */
typedef union HashState {
    struct md5_ctx md5;
    struct sha1_ctx sha1;
    struct sha256_ctx sha256;
    struct sha512_ctx sha512;
    struct ripemd160_ctx ripemd160;
} HashState;

const struct nettle_hash *crypto_hash(QCryptoHashAlgo algo)
{
    switch (algo) {
    case Q_CRYPTO_HASH_ALGO_MD5:
        return &nettle_md5;
    case Q_CRYPTO_HASH_ALGO_SHA1:
        return &nettle_sha1;
    case Q_CRYPTO_HASH_ALGO_SHA224:
        return &nettle_sha224;
    case Q_CRYPTO_HASH_ALGO_SHA256:
        return &nettle_sha256;
    case Q_CRYPTO_HASH_ALGO_SHA384:
        return &nettle_sha384;
    case Q_CRYPTO_HASH_ALGO_SHA512:
        return &nettle_sha512;
    case Q_CRYPTO_HASH_ALGO_RIPEMD160:
        return &nettle_ripemd160;
    default:
        return NULL;
    }
}

const struct nettle_hash *crypto_hash_by_name(const char *name,
                                              QCryptoHashAlgo *algo,
                                              Error **errp)
{
    for (int i = 0; i < Q_CRYPTO_HASH_ALGO__MAX; i++) {
        if (!strcmp(QCryptoHashAlgo_str(i), name) && crypto_hash(i)) {
            *algo = i;
            return crypto_hash(i);
        }
    }
    error_setg(errp, "Hash algorithm '%s' not supported", name);
    return NULL;
}

void crypto_hash_bytes(const struct nettle_hash *hash, const void *data,
                       size_t len, uint8_t *digest)
{
    HashState state;

    g_assert(hash->context_size <= sizeof(state));
    hash->init(&state);
    hash->update(&state, len, data);
    hash->digest(&state, hash->digest_size, digest);
    explicit_bzero(&state, sizeof(state));
}

/* ---- PBKDF2 ---- */

typedef struct Hmac {
    const struct nettle_hash *hash;
    HashState outer, inner, state;
} Hmac;

static void hmac_step(void *opaque, size_t len, const uint8_t *data)
{
    Hmac *hmac = opaque;

    hmac->hash->update(&hmac->state, len, data);
}

static void hmac_end(void *opaque, size_t len, uint8_t *digest)
{
    Hmac *hmac = opaque;

    hmac_digest(&hmac->outer, &hmac->inner, &hmac->state, hmac->hash, len,
                digest);
}

void crypto_pbkdf2(const struct nettle_hash *hash, const void *password,
                   size_t password_len, unsigned iterations,
                   const uint8_t *salt, size_t salt_len, uint8_t *out,
                   size_t out_len)
{
    Hmac hmac = { .hash = hash };

    g_assert(hash->context_size <= sizeof(hmac.state));
    hmac_set_key(&hmac.outer, &hmac.inner, &hmac.state, hash, password_len,
                 password);
    pbkdf2(&hmac, hmac_step, hmac_end, hash->digest_size, iterations,
           salt_len, salt, out_len, out);
    explicit_bzero(&hmac, sizeof(hmac));
}

static uint64_t thread_time_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

unsigned crypto_pbkdf2_calibrate(const struct nettle_hash *hash,
                                 size_t out_len, uint64_t ms)
{
    const uint64_t enough_ns = 50 * 1000 * 1000;
    uint8_t out[LUKS_MAX_KEY_LEN], salt[LUKS_SALT_LEN] = { 0 };
    unsigned iterations = 1 << 12;
    double result;

    if (ms == 0) {
        return LUKS_MIN_ITERATIONS;
    }
    for (;;) {
        uint64_t start = thread_time_ns(), spent;

        crypto_pbkdf2(hash, "passphrase", 10, iterations, salt, sizeof(salt),
                      out, MIN(out_len, sizeof(out)));
        spent = thread_time_ns() - start;
        if (spent >= enough_ns || iterations >= LUKS_MAX_ITERATIONS / 2) {
            result = (double)iterations * ms * 1000000 / MAX(spent, 1);
            return CLAMP(result, LUKS_MIN_ITERATIONS, LUKS_MAX_ITERATIONS);
        }
        iterations *= 2;
    }
}
