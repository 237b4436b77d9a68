/* SPDX-License-Identifier: MIT */
/*
 * Encryption of image data: LUKS version 1 and the old AES of qcow2.
 *
 * A BlockCrypto is one open key.  It does not change between open and free, so
 * that any number of threads encrypt and decrypt with it without a lock.
 *
 * Sources: "LUKS On-Disk Format Specification" 1.2.3, IEEE 1619 (XTS), RFC 8018
 * (PBKDF2), the qcow2 specification.
 */
#ifndef BLOCK_CRYPTO_H
#define BLOCK_CRYPTO_H

#include "config-host.h"
#include "qapi/qapi-types.h"
#include "util/coroutine.h"
#include "util/error.h"

typedef struct BlockCrypto BlockCrypto;

/* Unit of encryption, bytes. */
#define BLOCK_CRYPTO_SECTOR_SIZE 512

enum {
    /* No secret and no key: only block_crypto_get_info() may be called. */
    BLOCK_CRYPTO_HEADER_ONLY = 1 << 0,
    /* The data is not behind the header, but in another file. */
    BLOCK_CRYPTO_DETACHED = 1 << 1,
    /* Options are called "encrypt.key-secret" and so on in messages. */
    BLOCK_CRYPTO_NESTED = 1 << 2,
};

/*
 * Read or write exactly @len bytes of the header area, @offset bytes from its
 * start; 0 or -errno.  What lies beyond the area's end is for the function to
 * refuse.
 */
typedef int coroutine_fn BlockCryptoReadFn(void *opaque, uint64_t offset,
                                           void *buf, size_t len);
typedef int coroutine_fn BlockCryptoWriteFn(void *opaque, uint64_t offset,
                                            const void *buf, size_t len);

#ifdef CONFIG_NETTLE

/*
 * Read a LUKS header and unlock it with the secret @secret_id (an error if NULL
 * and flags do not say HEADER_ONLY).  The key derivation runs in the thread
 * pool and takes seconds.  [main thread]
 */
BlockCrypto *coroutine_fn block_crypto_co_open_luks(BlockCryptoReadFn *read,
                                                    void *opaque,
                                                    const char *secret_id,
                                                    unsigned flags,
                                                    Error **errp);

/*
 * The key of an old qcow2 image: AES-128 in CBC mode, with the number of the
 * sector as initialisation vector.  The secret itself is the key; what is
 * beyond 16 bytes does not count.  [main thread]
 */
BlockCrypto *block_crypto_open_aes(const char *secret_id, unsigned flags,
                                   Error **errp);

/*
 * Length in bytes of the area that a header made with @options needs, a
 * multiple of 4096; -EINVAL with an error for options that are not supported.
 * [any thread]
 */
int64_t block_crypto_luks_header_size(
    const QCryptoBlockCreateOptionsLUKS *options, unsigned flags,
    Error **errp);

/*
 * Write a LUKS header with a new key, which the secret options->key_secret
 * unlocks, and return that key.  Bytes of the area that are not written may be
 * anything.  Takes a little longer than options->iter_time, in the thread pool.
 * [main thread]
 */
BlockCrypto *coroutine_fn block_crypto_co_create_luks(
    const QCryptoBlockCreateOptionsLUKS *options, unsigned flags,
    BlockCryptoWriteFn *write, void *opaque, Error **errp);

/* Wipes the key.  NULL is fine. */
void block_crypto_free(BlockCrypto *c);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlockCrypto, block_crypto_free)

/*
 * Encrypt or decrypt @len bytes in place, which are those at @offset: bytes
 * from the start of what is encrypted, for qcow2 with LUKS from the start of
 * the image file.  Both are multiples of BLOCK_CRYPTO_SECTOR_SIZE, or -EINVAL
 * is returned and nothing done.  0 otherwise.  [any thread, does not wait]
 */
int block_crypto_encrypt(const BlockCrypto *c, uint64_t offset, void *buf,
                         size_t len);
int block_crypto_decrypt(const BlockCrypto *c, uint64_t offset, void *buf,
                         size_t len);

/* Where the data begins, bytes, as the LUKS header says. */
uint64_t block_crypto_payload_offset(const BlockCrypto *c);

/* What the LUKS header says; NULL for AES.  The caller frees. */
QCryptoBlockInfoLUKS *block_crypto_get_info(const BlockCrypto *c);

/*
 * Decrypt @len bytes in place: AES-256 in CBC mode.  Key and vector have 32 and
 * 16 bytes.  False if @len is no multiple of 16.
 */
bool block_crypto_aes256_cbc_decrypt(const uint8_t *key, const uint8_t *iv,
                                     uint8_t *buf, size_t len);

#else /* !CONFIG_NETTLE */

static inline void block_crypto_missing(Error **errp)
{
    error_setg(errp, "This build has no encryption (it needs nettle)");
}

static inline BlockCrypto *coroutine_fn
block_crypto_co_open_luks(BlockCryptoReadFn *read, void *opaque,
                          const char *secret_id, unsigned flags, Error **errp)
{
    block_crypto_missing(errp);
    return NULL;
}

static inline BlockCrypto *block_crypto_open_aes(const char *secret_id,
                                                 unsigned flags, Error **errp)
{
    block_crypto_missing(errp);
    return NULL;
}

static inline int64_t block_crypto_luks_header_size(
    const QCryptoBlockCreateOptionsLUKS *options, unsigned flags, Error **errp)
{
    block_crypto_missing(errp);
    return -ENOTSUP;
}

static inline BlockCrypto *coroutine_fn block_crypto_co_create_luks(
    const QCryptoBlockCreateOptionsLUKS *options, unsigned flags,
    BlockCryptoWriteFn *write, void *opaque, Error **errp)
{
    block_crypto_missing(errp);
    return NULL;
}

static inline void block_crypto_free(BlockCrypto *c)
{
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlockCrypto, block_crypto_free)

static inline int block_crypto_encrypt(const BlockCrypto *c, uint64_t offset,
                                       void *buf, size_t len)
{
    return -ENOTSUP;
}

static inline int block_crypto_decrypt(const BlockCrypto *c, uint64_t offset,
                                       void *buf, size_t len)
{
    return -ENOTSUP;
}

static inline uint64_t block_crypto_payload_offset(const BlockCrypto *c)
{
    return 0;
}

static inline QCryptoBlockInfoLUKS *
block_crypto_get_info(const BlockCrypto *c)
{
    return NULL;
}

#endif /* CONFIG_NETTLE */

#endif /* BLOCK_CRYPTO_H */
