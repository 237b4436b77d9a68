/* SPDX-License-Identifier: MIT */
/*
 * LUKS version 1: making a header with a new key.
 *
 * Header, then eight key slots of the same size, each aligned to 4 KiB, then
 * the data: the layout that other programs use as well.
 */
#include "block/crypto-int.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "block/secret.h"
#include "util/secmem.h"
#include "util/thread-pool.h"

enum {
    DEFAULT_ITER_TIME_MS = 2000,
    MAX_ITER_TIME_MS = 10 * 60 * 1000,
    /* Checking the key shall take this part of unlocking a slot. */
    DIGEST_PART = 8,
};

static uint64_t header_area(const CryptoSpec *spec)
{
    return LUKS_ALIGN + LUKS_SLOTS * luks_slot_area(spec);
}

static bool luks_check_options(const QCryptoBlockCreateOptionsLUKS *options,
                               CryptoSpec *spec, QCryptoHashAlgo *hash_alg,
                               Error **errp)
{
    if (options->has_iter_time
        && (options->iter_time < 0 || options->iter_time > MAX_ITER_TIME_MS)) {
        error_setg(errp, "PBKDF iteration time %" PRIi64 " ms is not between "
                   "0 and %d", options->iter_time, MAX_ITER_TIME_MS);
        return false;
    }
    *hash_alg = options->has_hash_alg ? options->hash_alg
                                      : Q_CRYPTO_HASH_ALGO_SHA256;
    if (!crypto_hash(*hash_alg)) {
        error_setg(errp, "Hash algorithm '%s' not supported",
                   QCryptoHashAlgo_str(*hash_alg));
        return false;
    }
    return crypto_spec_from_options(spec, options, errp);
}

int64_t block_crypto_luks_header_size(
    const QCryptoBlockCreateOptionsLUKS *options, unsigned flags, Error **errp)
{
    QCryptoHashAlgo hash_alg;
    CryptoSpec spec;

    return luks_check_options(options, &spec, &hash_alg, errp)
           ? (int64_t)header_area(&spec) : -EINVAL;
}

/* In memory for secrets. */
typedef struct LuksCreate {
    LuksHeader header;
    uint64_t iter_time_ms;
    char *password;
    uint8_t *material;                  /* of slot 0 */
    uint8_t key[LUKS_MAX_KEY_LEN];
} LuksCreate;

static bool luks_make_uuid(char *uuid, size_t size)
{
    uint8_t b[16];

    if (!crypto_random(b, sizeof(b))) {
        return false;
    }
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    g_snprintf(uuid, size, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
               "%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5],
               b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14],
               b[15]);
    return true;
}

/* In a pool thread. */
static int luks_create_work(void *opaque)
{
    LuksCreate *w = opaque;
    LuksHeader *h = &w->header;
    LuksSlot *slot = &h->slots[0];
    const struct nettle_hash *hash = crypto_hash(h->hash_alg);
    size_t len = h->spec.key_len;
    uint8_t slot_key[LUKS_MAX_KEY_LEN];
    CryptoCipher cipher;

    if (!crypto_random(w->key, len)
        || !crypto_random(h->digest_salt, sizeof(h->digest_salt))
        || !crypto_random(slot->salt, sizeof(slot->salt))
        || !luks_make_uuid(h->uuid, sizeof(h->uuid))
        || !crypto_af_split(hash, w->key, len, LUKS_STRIPES, w->material)) {
        return -errno;
    }
    h->digest_iterations = MIN(
        crypto_pbkdf2_calibrate(hash, LUKS_DIGEST_LEN,
                                w->iter_time_ms / DIGEST_PART),
        LUKS_MAX_ITERATIONS / DIGEST_PART);
    luks_key_digest(h, w->key, h->digest);

    slot->active = true;
    slot->iterations = MIN(
        crypto_pbkdf2_calibrate(hash, len, w->iter_time_ms),
        LUKS_MAX_ITERATIONS - h->digest_iterations);
    crypto_pbkdf2(hash, w->password, strlen(w->password), slot->iterations,
                  slot->salt, sizeof(slot->salt), slot_key, len);
    crypto_cipher_init(&cipher, &h->spec, slot_key);
    crypto_cipher_encrypt(&cipher, 0, w->material, luks_material_len(h));
    explicit_bzero(&cipher, sizeof(cipher));
    explicit_bzero(slot_key, sizeof(slot_key));
    return 0;
}

static bool coroutine_fn luks_co_write(const LuksCreate *w,
                                       BlockCryptoWriteFn *write,
                                       void *opaque, Error **errp)
{
    const LuksHeader *h = &w->header;
    g_autofree uint8_t *buf = g_malloc0(LUKS_ALIGN);
    int ret;

    luks_header_format(h, buf);
    ret = write(opaque, h->slots[0].offset, w->material, luks_material_len(h));
    if (ret >= 0) {
        ret = write(opaque, 0, buf, LUKS_ALIGN);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to write LUKS header");
        return false;
    }
    return true;
}

static BlockCrypto *coroutine_fn luks_co_create(LuksCreate *w,
                                                BlockCryptoWriteFn *write,
                                                void *opaque, unsigned flags,
                                                Error **errp)
{
    BlockCrypto *c = NULL;
    int ret;

    w->material = secmem_alloc(luks_material_len(&w->header));
    ret = thread_pool_co_submit(luks_create_work, w);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Unable to make a key");
    } else if (luks_co_write(w, write, opaque, errp)) {
        c = block_crypto_new(&w->header.spec, w->key, &w->header, flags);
    }
    secmem_free(w->material);
    return c;
}

BlockCrypto *coroutine_fn block_crypto_co_create_luks(
    const QCryptoBlockCreateOptionsLUKS *options, unsigned flags,
    BlockCryptoWriteFn *write, void *opaque, Error **errp)
{
    LuksCreate *w = secmem_alloc(sizeof(*w));
    LuksHeader *h = &w->header;
    BlockCrypto *c = NULL;

    w->iter_time_ms = options->has_iter_time ? options->iter_time
                                             : DEFAULT_ITER_TIME_MS;
    if (luks_check_options(options, &h->spec, &h->hash_alg, errp)
        && block_crypto_check_secret(options->key_secret, flags, errp)) {
        w->password = secret_lookup_utf8(options->key_secret, errp);
    }
    if (w->password) {
        for (int i = 0; i < LUKS_SLOTS; i++) {
            h->slots[i].offset = LUKS_ALIGN + i * luks_slot_area(&h->spec);
            h->slots[i].stripes = LUKS_STRIPES;
        }
        if (!(flags & BLOCK_CRYPTO_DETACHED)) {
            h->payload_offset = header_area(&h->spec);
        }
        c = luks_co_create(w, write, opaque, flags, errp);
    }
    secmem_free(w->password);
    secmem_free(w);
    return c;
}
