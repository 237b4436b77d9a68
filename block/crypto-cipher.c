/* SPDX-License-Identifier: MIT */
/*
 * Ciphers for sectors: AES in XTS or CBC mode, and the initialisation vectors
 * that go with them.
 *
 * XTS is done here rather than by nettle, because a sector at once is several
 * times faster than a block at once: all tweaks of a sector are known
 * beforehand, so AES can work on 512 bytes without a break.
 */
#include "block/crypto-int.h"

#include <nettle/cbc.h>
#include <nettle/memxor.h>
#include <string.h>

enum {
    SECTOR = BLOCK_CRYPTO_SECTOR_SIZE,
    BLOCKS = SECTOR / AES_BLOCK_SIZE,
};

/* ---- AES with keys of any length ---- */

static bool aes_key_init(CryptoAesKey *key, const uint8_t *data, size_t len)
{
    switch (len) {
    case AES128_KEY_SIZE:
        aes128_set_encrypt_key(&key->encrypt.k128, data);
        aes128_invert_key(&key->decrypt.k128, &key->encrypt.k128);
        key->encrypt_func = (nettle_cipher_func *)aes128_encrypt;
        key->decrypt_func = (nettle_cipher_func *)aes128_decrypt;
        return true;
    case AES192_KEY_SIZE:
        aes192_set_encrypt_key(&key->encrypt.k192, data);
        aes192_invert_key(&key->decrypt.k192, &key->encrypt.k192);
        key->encrypt_func = (nettle_cipher_func *)aes192_encrypt;
        key->decrypt_func = (nettle_cipher_func *)aes192_decrypt;
        return true;
    case AES256_KEY_SIZE:
        aes256_set_encrypt_key(&key->encrypt.k256, data);
        aes256_invert_key(&key->decrypt.k256, &key->encrypt.k256);
        key->encrypt_func = (nettle_cipher_func *)aes256_encrypt;
        key->decrypt_func = (nettle_cipher_func *)aes256_decrypt;
        return true;
    default:
        return false;
    }
}

static void aes_encrypt_bytes(const CryptoAesKey *key, uint8_t *buf,
                              size_t len)
{
    key->encrypt_func(&key->encrypt, len, buf, buf);
}

static void aes_decrypt_bytes(const CryptoAesKey *key, uint8_t *buf,
                              size_t len)
{
    key->decrypt_func(&key->decrypt, len, buf, buf);
}

/* ---- what a key is for ---- */

static bool spec_set_cipher(CryptoSpec *spec, const char *name, size_t aes_len,
                            Error **errp)
{
    if (strcmp(name, "aes") == 0) {
        switch (aes_len) {
        case AES128_KEY_SIZE:
            spec->cipher_alg = Q_CRYPTO_CIPHER_ALGO_AES_128;
            return true;
        case AES192_KEY_SIZE:
            spec->cipher_alg = Q_CRYPTO_CIPHER_ALGO_AES_192;
            return true;
        case AES256_KEY_SIZE:
            spec->cipher_alg = Q_CRYPTO_CIPHER_ALGO_AES_256;
            return true;
        }
    }
    error_setg(errp, "Algorithm '%s' with key size %zu bytes not supported",
               name, aes_len);
    return false;
}

static bool spec_set_mode(CryptoSpec *spec, const char *name, Error **errp)
{
    if (strcmp(name, "xts") == 0) {
        spec->cipher_mode = Q_CRYPTO_CIPHER_MODE_XTS;
    } else if (strcmp(name, "cbc") == 0) {
        spec->cipher_mode = Q_CRYPTO_CIPHER_MODE_CBC;
    } else {
        error_setg(errp, "Cipher mode '%s' not supported", name);
        return false;
    }
    return true;
}

/* Not every digest is a key for AES. */
static bool spec_check_essiv(const CryptoSpec *spec, Error **errp)
{
    CryptoAesKey key;
    const uint8_t zeroes[CRYPTO_MAX_DIGEST] = { 0 };
    const struct nettle_hash *hash = crypto_hash(spec->ivgen_hash_alg);

    if (!hash) {
        error_setg(errp, "Hash algorithm '%s' not supported",
                   QCryptoHashAlgo_str(spec->ivgen_hash_alg));
        return false;
    }
    if (!aes_key_init(&key, zeroes, hash->digest_size)) {
        error_setg(errp, "No AES cipher with key size %u available",
                   hash->digest_size);
        return false;
    }
    return true;
}

static bool spec_set_ivgen(CryptoSpec *spec, char *name, Error **errp)
{
    char *hash = strchr(name, ':');

    if (hash) {
        *hash++ = '\0';
    }
    for (int i = 0; i < Q_CRYPTO_IV_GEN_ALGO__MAX; i++) {
        if (strcmp(QCryptoIVGenAlgo_str(i), name) != 0) {
            continue;
        }
        spec->ivgen_alg = i;
        spec->has_ivgen_hash_alg = i == Q_CRYPTO_IV_GEN_ALGO_ESSIV;
        if (!spec->has_ivgen_hash_alg) {
            return true;
        }
        if (!hash) {
            error_setg(errp, "Hash algorithm is required for IV generator "
                       "'essiv'");
            return false;
        }
        return crypto_hash_by_name(hash, &spec->ivgen_hash_alg, errp)
               && spec_check_essiv(spec, errp);
    }
    error_setg(errp, "IV generator '%s' not supported", name);
    return false;
}

bool crypto_spec_parse(CryptoSpec *spec, const char *cipher_name,
                       const char *cipher_mode, size_t key_len, Error **errp)
{
    g_autofree char *mode = g_strdup(cipher_mode);
    char *ivgen = strchr(mode, '-');

    memset(spec, 0, sizeof(*spec));
    if (!ivgen) {
        error_setg(errp, "Unexpected cipher mode string format '%s'", mode);
        return false;
    }
    *ivgen++ = '\0';
    spec->key_len = key_len;
    if (!spec_set_mode(spec, mode, errp)) {
        return false;
    }
    if (spec->cipher_mode == Q_CRYPTO_CIPHER_MODE_XTS && key_len % 2) {
        error_setg(errp, "Algorithm '%s' with key size %zu bytes not "
                   "supported", cipher_name, key_len);
        return false;
    }
    return spec_set_ivgen(spec, ivgen, errp)
           && spec_set_cipher(spec, cipher_name,
                              spec->cipher_mode == Q_CRYPTO_CIPHER_MODE_XTS
                              ? key_len / 2 : key_len, errp);
}

bool crypto_spec_from_options(CryptoSpec *spec,
                              const QCryptoBlockCreateOptionsLUKS *options,
                              Error **errp)
{
    memset(spec, 0, sizeof(*spec));
    spec->cipher_alg = options->has_cipher_alg
                       ? options->cipher_alg : Q_CRYPTO_CIPHER_ALGO_AES_256;
    spec->cipher_mode = options->has_cipher_mode
                        ? options->cipher_mode : Q_CRYPTO_CIPHER_MODE_XTS;
    spec->ivgen_alg = options->has_ivgen_alg
                      ? options->ivgen_alg : Q_CRYPTO_IV_GEN_ALGO_PLAIN64;

    switch (spec->cipher_alg) {
    case Q_CRYPTO_CIPHER_ALGO_AES_128:
        spec->key_len = AES128_KEY_SIZE;
        break;
    case Q_CRYPTO_CIPHER_ALGO_AES_192:
        spec->key_len = AES192_KEY_SIZE;
        break;
    case Q_CRYPTO_CIPHER_ALGO_AES_256:
        spec->key_len = AES256_KEY_SIZE;
        break;
    default:
        error_setg(errp, "Algorithm '%s' not supported",
                   QCryptoCipherAlgo_str(spec->cipher_alg));
        return false;
    }
    if (!spec_set_mode(spec, QCryptoCipherMode_str(spec->cipher_mode), errp)) {
        return false;
    }
    if (spec->cipher_mode == Q_CRYPTO_CIPHER_MODE_XTS) {
        spec->key_len *= 2;
    }
    if (spec->ivgen_alg == Q_CRYPTO_IV_GEN_ALGO_ESSIV) {
        spec->has_ivgen_hash_alg = true;
        spec->ivgen_hash_alg = options->has_ivgen_hash_alg
                               ? options->ivgen_hash_alg
                               : Q_CRYPTO_HASH_ALGO_SHA256;
        return spec_check_essiv(spec, errp);
    }
    return true;
}

char *crypto_spec_mode_string(const CryptoSpec *spec)
{
    const char *mode = QCryptoCipherMode_str(spec->cipher_mode);
    const char *ivgen = QCryptoIVGenAlgo_str(spec->ivgen_alg);

    return spec->has_ivgen_hash_alg
           ? g_strdup_printf("%s-%s:%s", mode, ivgen,
                             QCryptoHashAlgo_str(spec->ivgen_hash_alg))
           : g_strdup_printf("%s-%s", mode, ivgen);
}

void crypto_cipher_init(CryptoCipher *c, const CryptoSpec *spec,
                        const uint8_t *key)
{
    bool xts = spec->cipher_mode == Q_CRYPTO_CIPHER_MODE_XTS;
    size_t len = xts ? spec->key_len / 2 : spec->key_len;
    bool ok = aes_key_init(&c->data, key, len)
              && (!xts || aes_key_init(&c->tweak, key + len, len));

    c->mode = spec->cipher_mode;
    c->ivgen = spec->ivgen_alg;
    if (ok && spec->has_ivgen_hash_alg) {
        const struct nettle_hash *hash = crypto_hash(spec->ivgen_hash_alg);
        uint8_t digest[CRYPTO_MAX_DIGEST];

        crypto_hash_bytes(hash, key, spec->key_len, digest);
        ok = aes_key_init(&c->essiv, digest, hash->digest_size);
        explicit_bzero(digest, sizeof(digest));
    }
    g_assert(ok);               /* the spec was checked when it was made */
}

/* ---- sectors ---- */

static void cipher_iv(const CryptoCipher *c, uint64_t sector, uint8_t *iv)
{
    if (c->ivgen == Q_CRYPTO_IV_GEN_ALGO_PLAIN) {
        sector = (uint32_t)sector;
    }
    sector = GUINT64_TO_LE(sector);
    memset(iv, 0, AES_BLOCK_SIZE);
    memcpy(iv, &sector, sizeof(sector));
    if (c->ivgen == Q_CRYPTO_IV_GEN_ALGO_ESSIV) {
        aes_encrypt_bytes(&c->essiv, iv, AES_BLOCK_SIZE);
    }
}

/* The tweaks of all blocks: each is the one before, doubled in GF(2^128). */
static void xts_tweaks(const CryptoCipher *c, uint64_t sector,
                       uint64_t tweaks[BLOCKS][2])
{
    uint64_t low, high;

    cipher_iv(c, sector, (uint8_t *)tweaks[0]);
    aes_encrypt_bytes(&c->tweak, (uint8_t *)tweaks[0], AES_BLOCK_SIZE);
    low = GUINT64_FROM_LE(tweaks[0][0]);
    high = GUINT64_FROM_LE(tweaks[0][1]);
    for (int i = 1; i < BLOCKS; i++) {
        uint64_t carry = -(high >> 63) & 0x87;

        high = high << 1 | low >> 63;
        low = low << 1 ^ carry;
        tweaks[i][0] = GUINT64_TO_LE(low);
        tweaks[i][1] = GUINT64_TO_LE(high);
    }
}

/* @buf need not be aligned. */
static void xor_sector(uint8_t *buf, const uint64_t tweaks[BLOCKS][2])
{
    const uint64_t *t = tweaks[0];

    for (int i = 0; i < BLOCKS * 2; i++) {
        uint64_t word;

        memcpy(&word, buf + i * 8, 8);
        word ^= t[i];
        memcpy(buf + i * 8, &word, 8);
    }
}

void crypto_cipher_encrypt(const CryptoCipher *c, uint64_t sector,
                           uint8_t *buf, size_t len)
{
    for (; len > 0; buf += SECTOR, len -= SECTOR, sector++) {
        if (c->mode == Q_CRYPTO_CIPHER_MODE_XTS) {
            uint64_t tweaks[BLOCKS][2];

            xts_tweaks(c, sector, tweaks);
            xor_sector(buf, tweaks);
            aes_encrypt_bytes(&c->data, buf, SECTOR);
            xor_sector(buf, tweaks);
        } else {
            uint8_t iv[AES_BLOCK_SIZE];

            cipher_iv(c, sector, iv);
            cbc_encrypt(&c->data.encrypt, c->data.encrypt_func,
                        AES_BLOCK_SIZE, iv, SECTOR, buf, buf);
        }
    }
}

void crypto_cipher_decrypt(const CryptoCipher *c, uint64_t sector,
                           uint8_t *buf, size_t len)
{
    for (; len > 0; buf += SECTOR, len -= SECTOR, sector++) {
        if (c->mode == Q_CRYPTO_CIPHER_MODE_XTS) {
            uint64_t tweaks[BLOCKS][2];

            xts_tweaks(c, sector, tweaks);
            xor_sector(buf, tweaks);
            aes_decrypt_bytes(&c->data, buf, SECTOR);
            xor_sector(buf, tweaks);
        } else {
            uint8_t iv[AES_BLOCK_SIZE];

            cipher_iv(c, sector, iv);
            cbc_decrypt(&c->data.decrypt, c->data.decrypt_func,
                        AES_BLOCK_SIZE, iv, SECTOR, buf, buf);
        }
    }
}

bool block_crypto_aes256_cbc_decrypt(const uint8_t *key, const uint8_t *iv,
                                     uint8_t *buf, size_t len)
{
    CryptoAesKey aes;
    uint8_t vector[AES_BLOCK_SIZE];

    if (len % AES_BLOCK_SIZE) {
        return false;
    }
    memcpy(vector, iv, sizeof(vector));
    aes_key_init(&aes, key, AES256_KEY_SIZE);
    cbc_decrypt(&aes.decrypt, aes.decrypt_func, AES_BLOCK_SIZE, vector, len,
                buf, buf);
    explicit_bzero(&aes, sizeof(aes));
    return true;
}
