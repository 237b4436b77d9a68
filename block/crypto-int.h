/* SPDX-License-Identifier: MIT */
/*
 * What the files of block/crypto*.c share: hash functions, ciphers, the LUKS
 * header.  All of it is plain computing; any thread.
 */
#ifndef BLOCK_CRYPTO_INT_H
#define BLOCK_CRYPTO_INT_H

#include "block/crypto.h"

#include <nettle/aes.h>
#include <nettle/nettle-meta.h>

/* ---- hash functions (crypto-hash.c) ---- */

/* Bytes of the longest digest. */
#define CRYPTO_MAX_DIGEST 64

/* By value of the schema or by name; NULL if there is no such function. */
const struct nettle_hash *crypto_hash(QCryptoHashAlgo algo);
const struct nettle_hash *crypto_hash_by_name(const char *name,
                                              QCryptoHashAlgo *algo,
                                              Error **errp);

/* @digest has hash->digest_size bytes. */
void crypto_hash_bytes(const struct nettle_hash *hash, const void *data,
                       size_t len, uint8_t *digest);

/* PBKDF2 of RFC 8018, with HMAC of @hash. */
void crypto_pbkdf2(const struct nettle_hash *hash, const void *password,
                   size_t password_len, unsigned iterations,
                   const uint8_t *salt, size_t salt_len, uint8_t *out,
                   size_t out_len);

/* Iterations that this thread manages in @ms milliseconds of its time. */
unsigned crypto_pbkdf2_calibrate(const struct nettle_hash *hash,
                                 size_t out_len, uint64_t ms);

/* ---- anti-forensic stripes (crypto-af.c) ---- */

/* @material has @stripes times @len bytes.  False: no randomness. */
bool crypto_af_split(const struct nettle_hash *hash, const uint8_t *key,
                     size_t len, unsigned stripes, uint8_t *material);
void crypto_af_merge(const struct nettle_hash *hash, const uint8_t *material,
                     size_t len, unsigned stripes, uint8_t *key);

/* Random bytes of the kernel; false if it has none. */
bool crypto_random(void *buf, size_t len);

/* ---- ciphers (crypto-cipher.c) ---- */

typedef struct CryptoAesKey {
    nettle_cipher_func *encrypt_func, *decrypt_func;
    union CryptoAesSchedule {
        struct aes128_ctx k128;
        struct aes192_ctx k192;
        struct aes256_ctx k256;
    } encrypt, decrypt;
} CryptoAesKey;

/* What a key is used for and how; written as "aes", "xts-plain64". */
typedef struct CryptoSpec {
    QCryptoCipherAlgo cipher_alg;
    QCryptoCipherMode cipher_mode;
    QCryptoIVGenAlgo ivgen_alg;
    bool has_ivgen_hash_alg;            /* with essiv */
    QCryptoHashAlgo ivgen_hash_alg;
    size_t key_len;                     /* bytes; with xts both halves */
} CryptoSpec;

typedef struct CryptoCipher {
    QCryptoCipherMode mode;
    QCryptoIVGenAlgo ivgen;
    CryptoAesKey data;
    CryptoAesKey tweak;                 /* xts */
    CryptoAesKey essiv;
} CryptoCipher;

/* Take apart what a header says, and put it together. */
bool crypto_spec_parse(CryptoSpec *spec, const char *cipher_name,
                       const char *cipher_mode, size_t key_len, Error **errp);
bool crypto_spec_from_options(CryptoSpec *spec,
                              const QCryptoBlockCreateOptionsLUKS *options,
                              Error **errp);
char *crypto_spec_mode_string(const CryptoSpec *spec);

/* @key has spec->key_len bytes. */
void crypto_cipher_init(CryptoCipher *c, const CryptoSpec *spec,
                        const uint8_t *key);

/* Whole sectors, the first of which has number @sector. */
void crypto_cipher_encrypt(const CryptoCipher *c, uint64_t sector,
                           uint8_t *buf, size_t len);
void crypto_cipher_decrypt(const CryptoCipher *c, uint64_t sector,
                           uint8_t *buf, size_t len);

/* ---- LUKS (crypto-luks.c) ---- */

enum {
    LUKS_SLOTS = 8,
    LUKS_STRIPES = 4000,
    LUKS_SALT_LEN = 32,
    LUKS_DIGEST_LEN = 20,
    LUKS_HEADER_LEN = 592,
    LUKS_ALIGN = 4096,                  /* of key material, bytes */
    LUKS_MAX_KEY_LEN = 64,
    LUKS_MIN_ITERATIONS = 1000,
    /*
     * To try all slots with a wrong passphrase: four minutes with a slow hash
     * function and the longest key.
     */
    LUKS_MAX_ITERATIONS = 100 * 1000 * 1000,
};

#define LUKS_SLOT_ACTIVE 0x00ac71f3u
#define LUKS_SLOT_DEAD 0x0000deadu

typedef struct LuksSlot {
    bool active;
    uint32_t iterations;
    uint8_t salt[LUKS_SALT_LEN];
    uint64_t offset;                    /* of its key material, bytes */
    uint32_t stripes;
} LuksSlot;

/* The header, checked and in the host's terms. */
typedef struct LuksHeader {
    CryptoSpec spec;
    QCryptoHashAlgo hash_alg;
    uint64_t payload_offset;            /* bytes */
    uint8_t digest[LUKS_DIGEST_LEN];
    uint8_t digest_salt[LUKS_SALT_LEN];
    uint32_t digest_iterations;
    char uuid[41];
    LuksSlot slots[LUKS_SLOTS];
} LuksHeader;

/* Bytes of key material in a slot, and that rounded up to LUKS_ALIGN. */
size_t luks_material_len(const LuksHeader *h);
uint64_t luks_slot_area(const CryptoSpec *spec);

/* @buf has LUKS_HEADER_LEN bytes, whatever they are. */
bool luks_header_parse(LuksHeader *h, const uint8_t *buf, unsigned flags,
                       Error **errp);
void luks_header_format(const LuksHeader *h, uint8_t *buf);

/* The check sum of the key; @digest has LUKS_DIGEST_LEN bytes. */
void luks_key_digest(const LuksHeader *h, const uint8_t *key, uint8_t *digest);

struct BlockCrypto {
    bool has_key;
    bool is_luks;
    bool detached;
    CryptoCipher cipher;
    LuksHeader luks;
};

/* "Parameter 'key-secret' is required for cipher" if @secret_id is NULL. */
bool block_crypto_check_secret(const char *secret_id, unsigned flags,
                               Error **errp);

/* @key is NULL for the header only; @h is NULL for AES of qcow2. */
BlockCrypto *block_crypto_new(const CryptoSpec *spec, const uint8_t *key,
                              const LuksHeader *h, unsigned flags);

#endif /* BLOCK_CRYPTO_INT_H */
