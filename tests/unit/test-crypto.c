/* SPDX-License-Identifier: MIT */
/*
 * Encryption: ciphers and key derivation against published values and nettle's
 * own; LUKS headers made here, by qemu-img and by cryptsetup; hostile ones.
 */
#include "tests/unit/block-test.h"

#include <nettle/xts.h>
#include "block/crypto-int.h"
#include "block/secret.h"

#define SECTOR BLOCK_CRYPTO_SECTOR_SIZE
#define KiB 1024
#define MiB 1048576

static char *image;

/* ---- small things ---- */

static void from_hex(uint8_t *buf, const char *hex)
{
    for (; *hex; hex += 2) {
        *buf++ = g_ascii_xdigit_value(hex[0]) << 4
                 | g_ascii_xdigit_value(hex[1]);
    }
}

static void assert_hex(const uint8_t *buf, const char *hex)
{
    uint8_t expect[256];
    size_t len = strlen(hex) / 2;

    from_hex(expect, hex);
    g_assert_cmpmem(buf, len, expect, len);
}

static void no_error(Error *err)
{
    node_test_no_error(err);
}

static void coroutine_fn co_secret(const char *id, const char *data,
                                   Secret **secret)
{
    SecretProperties props = { .data = (char *)data };
    Error *err = NULL;

    *secret = secret_co_new(id, &props, &err);
    no_error(err);
}

/* A header area in memory. */
typedef struct Area {
    uint8_t *data;
    size_t len;
} Area;

static int coroutine_fn area_co_read(void *opaque, uint64_t offset, void *buf,
                                     size_t len)
{
    Area *area = opaque;

    if (offset > area->len || len > area->len - offset) {
        return -EIO;
    }
    memcpy(buf, area->data + offset, len);
    return 0;
}

static int coroutine_fn area_co_write(void *opaque, uint64_t offset,
                                      const void *buf, size_t len)
{
    Area *area = opaque;

    g_assert_cmpuint(offset + len, <=, area->len);
    memcpy(area->data + offset, buf, len);
    return 0;
}

/* ---- ciphers ---- */

static void test_xts_vectors(void)
{
    /* IEEE 1619-2007, annex B: vectors 1, 2, 4, 10; the first two blocks. */
    static const struct {
        const char *key;
        uint64_t sector;
        int fill;                       /* -1: 00 01 02 ... */
        const char *out;
    } vectors[] = {
        { "00000000000000000000000000000000"
          "00000000000000000000000000000000", 0, 0,
          "917cf69ebd68b2ec9b9fe9a3eadda692"
          "cd43d2f59598ed858c02c2652fbf922e" },
        { "11111111111111111111111111111111"
          "22222222222222222222222222222222", 0x3333333333, 0x44,
          "c454185e6a16936e39334038acef838b"
          "fb186fff7480adc4289382ecd6d394f0" },
        { "27182818284590452353602874713526"
          "31415926535897932384626433832795", 0, -1,
          "27a7479befa1d476489f308cd4cfa6e2"
          "a96e4bbe3208ff25287dd3819616e89c" },
        { "27182818284590452353602874713526"
          "62497757247093699959574966967627"
          "31415926535897932384626433832795"
          "02884197169399375105820974944592", 0xff, -1,
          "1c3b3a102f770386e4836c99e370cf9b"
          "ea00803f5e482357a4ae12d414a3e63b" },
    };

    for (size_t v = 0; v < G_N_ELEMENTS(vectors); v++) {
        CryptoSpec spec = {
            .cipher_mode = Q_CRYPTO_CIPHER_MODE_XTS,
            .ivgen_alg = Q_CRYPTO_IV_GEN_ALGO_PLAIN64,
            .key_len = strlen(vectors[v].key) / 2,
        };
        uint8_t key[64], buf[SECTOR], plain[SECTOR];
        CryptoCipher cipher;

        for (int i = 0; i < SECTOR; i++) {
            plain[i] = vectors[v].fill < 0 ? i : vectors[v].fill;
        }
        from_hex(key, vectors[v].key);
        crypto_cipher_init(&cipher, &spec, key);
        memcpy(buf, plain, SECTOR);
        crypto_cipher_encrypt(&cipher, vectors[v].sector, buf, SECTOR);
        assert_hex(buf, vectors[v].out);
        crypto_cipher_decrypt(&cipher, vectors[v].sector, buf, SECTOR);
        g_assert_cmpmem(buf, SECTOR, plain, SECTOR);
    }
}

/* Every byte of several sectors, at addresses that are not aligned. */
static void test_xts_nettle(void)
{
    enum { N = 9 };
    static uint8_t mem[N * SECTOR + 16];
    CryptoSpec spec = {
        .cipher_mode = Q_CRYPTO_CIPHER_MODE_XTS,
        .ivgen_alg = Q_CRYPTO_IV_GEN_ALGO_PLAIN64,
        .key_len = 64,
    };
    uint8_t key[64], expect[SECTOR], plain[N * SECTOR];
    struct xts_aes256_key nettle_key;
    CryptoCipher cipher;

    g_assert_true(crypto_random(key, sizeof(key)));
    g_assert_true(crypto_random(plain, sizeof(plain)));
    crypto_cipher_init(&cipher, &spec, key);
    xts_aes256_set_encrypt_key(&nettle_key, key);
    for (int shift = 0; shift < 16; shift += 5) {
        uint8_t *buf = mem + shift;
        uint64_t first = UINT64_C(0xfffffffe) << (shift * 2);

        memcpy(buf, plain, sizeof(plain));
        crypto_cipher_encrypt(&cipher, first, buf, sizeof(plain));
        for (int i = 0; i < N; i++) {
            uint64_t number = GUINT64_TO_LE(first + i);
            uint8_t tweak[16] = { 0 };

            memcpy(tweak, &number, 8);
            xts_aes256_encrypt_message(&nettle_key, tweak, SECTOR, expect,
                                       plain + i * SECTOR);
            g_assert_cmpmem(buf + i * SECTOR, SECTOR, expect, SECTOR);
        }
        crypto_cipher_decrypt(&cipher, first, buf, sizeof(plain));
        g_assert_cmpmem(buf, sizeof(plain), plain, sizeof(plain));
    }
}

/* "plain" forgets all but 32 bits of the number, "plain64" does not. */
static void test_ivgen(void)
{
    CryptoSpec spec = {
        .cipher_mode = Q_CRYPTO_CIPHER_MODE_CBC, .key_len = 24,
    };
    const uint8_t key[24] = "twenty-four bytes of key";
    const uint64_t far = UINT64_C(1) << 32;

    for (int ivgen = 0; ivgen < Q_CRYPTO_IV_GEN_ALGO__MAX; ivgen++) {
        uint8_t near_buf[SECTOR] = { 0 }, far_buf[SECTOR] = { 0 };
        CryptoCipher cipher;

        spec.ivgen_alg = ivgen;
        spec.has_ivgen_hash_alg = ivgen == Q_CRYPTO_IV_GEN_ALGO_ESSIV;
        spec.ivgen_hash_alg = Q_CRYPTO_HASH_ALGO_SHA256;
        crypto_cipher_init(&cipher, &spec, key);
        crypto_cipher_encrypt(&cipher, 1, near_buf, SECTOR);
        crypto_cipher_encrypt(&cipher, far + 1, far_buf, SECTOR);
        g_assert_true((memcmp(near_buf, far_buf, SECTOR) == 0)
                      == (ivgen == Q_CRYPTO_IV_GEN_ALGO_PLAIN));
        crypto_cipher_decrypt(&cipher, far + 1, far_buf, SECTOR);
        g_assert_true(buffer_is_zero(far_buf, SECTOR));
    }
}

static void test_pbkdf2(void)
{
    /* RFC 6070; RFC 7914, 11. */
    uint8_t out[64];

    crypto_pbkdf2(crypto_hash(Q_CRYPTO_HASH_ALGO_SHA1), "password", 8, 4096,
                  (const uint8_t *)"salt", 4, out, 20);
    assert_hex(out, "4b007901b765489abead49d926f721d065a429c1");
    crypto_pbkdf2(crypto_hash(Q_CRYPTO_HASH_ALGO_SHA256), "passwd", 6, 1,
                  (const uint8_t *)"salt", 4, out, 64);
    assert_hex(out, "55ac046e56e3089fec1691c22544b605"
               "f94185216dde0465e68b9d57c20dacbc"
               "49ca9cccf179b645991664b39d77ef31"
               "7c71b845b1e30bd509112041d3a19783");
    g_assert_null(crypto_hash(Q_CRYPTO_HASH_ALGO_SM3));
    g_assert_cmpuint(crypto_pbkdf2_calibrate(
        crypto_hash(Q_CRYPTO_HASH_ALGO_SHA256), 64, 0), ==, 1000);
}

static void test_af(void)
{
    static const size_t lens[] = { 16, 20, 32, 33, 64 };

    for (int algo = 0; algo < Q_CRYPTO_HASH_ALGO__MAX; algo++) {
        const struct nettle_hash *hash = crypto_hash(algo);

        for (size_t i = 0; hash && i < G_N_ELEMENTS(lens); i++) {
            g_autofree uint8_t *material = g_malloc(lens[i] * 50);
            uint8_t key[64], out[64];

            g_assert_true(crypto_random(key, lens[i]));
            g_assert_true(crypto_af_split(hash, key, lens[i], 50, material));
            crypto_af_merge(hash, material, lens[i], 50, out);
            g_assert_cmpmem(key, lens[i], out, lens[i]);
            material[lens[i] * 7] ^= 1;
            crypto_af_merge(hash, material, lens[i], 50, out);
            g_assert_cmpint(memcmp(key, out, lens[i]), !=, 0);
        }
    }
}

/* ---- AES of qcow2 ---- */

static void coroutine_fn test_aes(void *opaque)
{
    uint8_t key[16] = "pw", buf[SECTOR] = { 0 }, iv[16] = { 5 };
    struct aes128_ctx aes;
    Error *err = NULL;
    BlockCrypto *c;
    Secret *secret;

    g_assert_null(block_crypto_open_aes(NULL, 0, &err));
    node_test_assert_error(err, "Parameter 'key-secret' is required for "
                           "cipher");
    err = NULL;
    g_assert_null(block_crypto_open_aes(NULL, BLOCK_CRYPTO_NESTED, &err));
    node_test_assert_error(err, "Parameter 'encrypt.key-secret' is required "
                           "for cipher");
    err = NULL;
    g_assert_null(block_crypto_open_aes("s", 0, &err));
    node_test_assert_error(err, "No secret with id 's'");

    co_secret("s", "pw", &secret);
    err = NULL;
    c = block_crypto_open_aes("s", 0, &err);
    no_error(err);
    g_assert_cmpint(block_crypto_encrypt(c, 5 * SECTOR, buf, SECTOR), ==, 0);
    aes128_set_encrypt_key(&aes, key);
    aes128_encrypt(&aes, 16, iv, iv);
    g_assert_cmpmem(buf, 16, iv, 16);
    g_assert_cmpint(block_crypto_decrypt(c, 5 * SECTOR, buf, SECTOR), ==, 0);
    g_assert_true(buffer_is_zero(buf, SECTOR));
    g_assert_cmpint(block_crypto_decrypt(c, 5, buf, SECTOR), ==, -EINVAL);
    g_assert_cmpint(block_crypto_decrypt(c, 0, buf, 100), ==, -EINVAL);
    g_assert_null(block_crypto_get_info(c));
    block_crypto_free(c);
    block_crypto_free(NULL);
    secret_free(secret);
}

/* ---- headers of our own ---- */

static Area *coroutine_fn co_make_header(
    const QCryptoBlockCreateOptionsLUKS *options)
{
    Area *area = g_new0(Area, 1);
    Error *err = NULL;
    int64_t len = block_crypto_luks_header_size(options, 0, &err);
    BlockCrypto *c;

    no_error(err);
    g_assert_cmpint(len % 4096, ==, 0);
    area->data = g_malloc0(len);
    area->len = len;
    c = block_crypto_co_create_luks(options, 0, area_co_write, area, &err);
    no_error(err);
    g_assert_cmpint(block_crypto_payload_offset(c), ==, len);
    block_crypto_free(c);
    return area;
}

static void area_free(Area *area)
{
    g_free(area->data);
    g_free(area);
}

static void coroutine_fn co_assert_opens(Area *area, const char *secret,
                                         unsigned flags, const char *error)
{
    Error *err = NULL;
    BlockCrypto *c = block_crypto_co_open_luks(area_co_read, area, secret,
                                               flags, &err);

    if (error) {
        g_assert_null(c);
        node_test_assert_error(err, error);
    } else {
        no_error(err);
        block_crypto_free(c);
    }
}

static QCryptoBlockCreateOptionsLUKS quick_options(void)
{
    return (QCryptoBlockCreateOptionsLUKS) {
        .key_secret = (char *)"s", .has_iter_time = true, .iter_time = 0,
    };
}

static void coroutine_fn test_create_options(void *opaque)
{
    QCryptoBlockCreateOptionsLUKS o = quick_options();
    Error *err = NULL;

    g_assert_cmpint(block_crypto_luks_header_size(&o, 0, &err), ==, 2068480);
    o.has_cipher_alg = true;
    o.cipher_alg = Q_CRYPTO_CIPHER_ALGO_TWOFISH_256;
    g_assert_cmpint(block_crypto_luks_header_size(&o, 0, &err), ==, -EINVAL);
    node_test_assert_error(err, "Algorithm 'twofish-256' not supported");
    err = NULL;
    o = quick_options();
    o.has_hash_alg = true;
    o.hash_alg = Q_CRYPTO_HASH_ALGO_SM3;
    block_crypto_luks_header_size(&o, 0, &err);
    node_test_assert_error(err, "Hash algorithm 'sm3' not supported");
    err = NULL;
    o = quick_options();
    o.has_cipher_mode = true;
    o.cipher_mode = Q_CRYPTO_CIPHER_MODE_CTR;
    block_crypto_luks_header_size(&o, 0, &err);
    node_test_assert_error(err, "Cipher mode 'ctr' not supported");
    err = NULL;
    o = quick_options();
    o.has_ivgen_alg = o.has_ivgen_hash_alg = true;
    o.ivgen_alg = Q_CRYPTO_IV_GEN_ALGO_ESSIV;
    o.ivgen_hash_alg = Q_CRYPTO_HASH_ALGO_SHA1;
    block_crypto_luks_header_size(&o, 0, &err);
    node_test_assert_error(err, "No AES cipher with key size 20 available");
    err = NULL;
    o = quick_options();
    o.iter_time = -1;
    block_crypto_luks_header_size(&o, 0, &err);
    node_test_assert_error(err, "PBKDF iteration time -1 ms is not between 0 "
                           "and 600000");
    err = NULL;
    o = quick_options();
    g_assert_null(block_crypto_co_create_luks(&o, 0, area_co_write, NULL,
                                              &err));
    node_test_assert_error(err, "No secret with id 's'");
    err = NULL;
    o.key_secret = NULL;
    g_assert_null(block_crypto_co_create_luks(&o, BLOCK_CRYPTO_NESTED,
                                              area_co_write, NULL, &err));
    node_test_assert_error(err, "Parameter 'encrypt.key-secret' is required "
                           "for cipher");
}

static void coroutine_fn test_passwords(void *opaque)
{
    const QCryptoBlockCreateOptionsLUKS o = quick_options();
    Secret *secret, *wrong;
    Area *area;

    co_secret("s", "correct horse", &secret);
    co_secret("wrong", "battery staple", &wrong);
    area = co_make_header(&o);
    co_assert_opens(area, "s", 0, NULL);
    co_assert_opens(area, "s", BLOCK_CRYPTO_DETACHED, NULL);
    co_assert_opens(area, NULL, BLOCK_CRYPTO_HEADER_ONLY, NULL);
    co_assert_opens(area, NULL, 0, "Parameter 'key-secret' is required for "
                    "cipher");
    co_assert_opens(area, "none", 0, "No secret with id 'none'");
    co_assert_opens(area, "wrong", 0, "Invalid password, cannot unlock any "
                    "keyslot");
    area->len = 10000;
    co_assert_opens(area, "s", 0, "Failed to read key material of keyslot 0 "
                    "(256000 bytes at offset 4096): Input/output error");
    area->len = 591;
    co_assert_opens(area, "s", 0,
                    "Unable to read LUKS header: Input/output error");
    area_free(area);
    secret_free(secret);
    secret_free(wrong);
}

static void coroutine_fn test_header_only(void *opaque)
{
    const QCryptoBlockCreateOptionsLUKS o = quick_options();
    uint8_t buf[SECTOR] = { 0 };
    QCryptoBlockInfoLUKS *info;
    Error *err = NULL;
    Secret *secret;
    BlockCrypto *c;
    Area *area;

    co_secret("s", "x", &secret);
    area = co_make_header(&o);
    memset(area->data + 168, 0xff, 40);         /* the UUID */
    c = block_crypto_co_open_luks(area_co_read, area, NULL,
                                  BLOCK_CRYPTO_HEADER_ONLY, &err);
    no_error(err);
    g_assert_cmpint(block_crypto_decrypt(c, 0, buf, SECTOR), ==, -EINVAL);
    info = block_crypto_get_info(c);
    g_assert_cmpint(info->cipher_alg, ==, Q_CRYPTO_CIPHER_ALGO_AES_256);
    g_assert_cmpint(info->payload_offset, ==, 2068480);
    g_assert_cmpint(info->master_key_iters, ==, 1000);
    g_assert_true(g_utf8_validate(info->uuid, -1, NULL));
    g_assert_true(info->slots->value->active);
    g_assert_cmpint(info->slots->value->iters, ==, 1000);
    g_assert_false(info->slots->next->value->active);
    g_assert_false(info->slots->next->value->has_iters);
    g_assert_cmpint(info->slots->next->value->key_offset, ==, 262144);
    qapi_free_QCryptoBlockInfoLUKS(info);
    block_crypto_free(c);
    area_free(area);
    secret_free(secret);
}

/* ---- hostile headers ---- */

enum {
    AT_VERSION = 6, AT_CIPHER = 8, AT_MODE = 40, AT_HASH = 72,
    AT_PAYLOAD = 104, AT_KEY_LEN = 108, AT_DIGEST_ITERATIONS = 164,
    AT_SLOT = 208, SLOT_LEN = 48,
    SLOT_ITERATIONS = 4, SLOT_OFFSET = 40, SLOT_STRIPES = 44,
};

#define AT_SLOT_N(i, what) (AT_SLOT + (i) * SLOT_LEN + (what))

typedef struct Hostile {
    size_t at;
    const char *text;                   /* 32 bytes, or NULL: ... */
    uint32_t number;
    const char *error;
} Hostile;

#define LONG_TEXT "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const Hostile hostile[] = {
    { 0, NULL, 0, "Volume is not in LUKS format" },
    { AT_CIPHER, LONG_TEXT, 0,
      "LUKS header cipher name is not NUL terminated" },
    { AT_MODE, LONG_TEXT, 0, "LUKS header cipher mode is not NUL terminated" },
    { AT_HASH, LONG_TEXT, 0, "LUKS header hash spec is not NUL terminated" },
    { AT_CIPHER, "foo", 0,
      "Algorithm 'foo' with key size 32 bytes not supported" },
    { AT_CIPHER, "", 0, "Algorithm '' with key size 32 bytes not supported" },
    { AT_MODE, "xts", 0, "Unexpected cipher mode string format 'xts'" },
    { AT_MODE, "foo-plain64", 0, "Cipher mode 'foo' not supported" },
    { AT_MODE, "xts-foo", 0, "IV generator 'foo' not supported" },
    { AT_MODE, "cbc-essiv", 0,
      "Hash algorithm is required for IV generator 'essiv'" },
    { AT_MODE, "cbc-essiv:foo", 0, "Hash algorithm 'foo' not supported" },
    { AT_MODE, "xts-essiv:sha1", 0,
      "No AES cipher with key size 20 available" },
    { AT_HASH, "foo", 0, "Hash algorithm 'foo' not supported" },
    { AT_HASH, "sm3", 0, "Hash algorithm 'sm3' not supported" },
    { AT_PAYLOAD, NULL, 0, "LUKS payload is overlapping with the header" },
    { AT_PAYLOAD, NULL, 100,
      "Keyslot 0 is overlapping with the encrypted payload" },
    { AT_PAYLOAD, NULL, 4035,
      "Keyslot 7 is overlapping with the encrypted payload" },
    { AT_KEY_LEN, NULL, 0,
      "Algorithm 'aes' with key size 0 bytes not supported" },
    { AT_KEY_LEN, NULL, 16,
      "Algorithm 'aes' with key size 8 bytes not supported" },
    { AT_KEY_LEN, NULL, 33,
      "Algorithm 'aes' with key size 33 bytes not supported" },
    { AT_KEY_LEN, NULL, UINT32_MAX,
      "Keyslot 0 is overlapping with the encrypted payload" },
    { AT_DIGEST_ITERATIONS, NULL, 0, "LUKS key iteration count is zero" },
    { AT_DIGEST_ITERATIONS, NULL, UINT32_MAX,
      "LUKS key iteration count 4294967295 is above the limit of 100000000" },
    { AT_SLOT_N(0, 0), NULL, 5,
      "Keyslot 0 state (active/disable) is corrupted" },
    { AT_SLOT_N(7, 0), NULL, 5,
      "Keyslot 7 state (active/disable) is corrupted" },
    { AT_SLOT_N(0, 0), NULL, 0xdead,
      "Invalid password, cannot unlock any keyslot" },
    { AT_SLOT_N(0, SLOT_ITERATIONS), NULL, 0,
      "Keyslot 0 iteration count is zero" },
    { AT_SLOT_N(0, SLOT_ITERATIONS), NULL, 100000001,
      "Keyslot 0 iteration count 100000001 is above the limit of 100000000" },
    { AT_SLOT_N(0, SLOT_ITERATIONS), NULL, 100000000,
      "All keyslots together take more iterations than the limit of "
      "100000000" },
    { AT_SLOT_N(1, SLOT_ITERATIONS), NULL, UINT32_MAX, NULL },
    { AT_SLOT_N(0, SLOT_OFFSET), NULL, 0,
      "Keyslot 0 is overlapping with the LUKS header" },
    { AT_SLOT_N(0, SLOT_OFFSET), NULL, 7,
      "Keyslot 0 is overlapping with the LUKS header" },
    { AT_SLOT_N(0, SLOT_OFFSET), NULL, UINT32_MAX,
      "Keyslot 0 is overlapping with the encrypted payload" },
    { AT_SLOT_N(1, SLOT_OFFSET), NULL, 9,
      "Keyslots 0 and 1 are overlapping in the header" },
    { AT_SLOT_N(6, SLOT_OFFSET), NULL, 3536 - 499,
      "Keyslots 6 and 7 are overlapping in the header" },
    { AT_SLOT_N(0, SLOT_STRIPES), NULL, 0,
      "Keyslot 0 is corrupted (stripes 0 != 4000)" },
    { AT_SLOT_N(3, SLOT_STRIPES), NULL, UINT32_MAX,
      "Keyslot 3 is corrupted (stripes 4294967295 != 4000)" },
};

static void coroutine_fn test_hostile(void *opaque)
{
    const QCryptoBlockCreateOptionsLUKS o = quick_options();
    uint8_t good[LUKS_HEADER_LEN];
    Secret *secret;
    Area *area;

    co_secret("s", "x", &secret);
    area = co_make_header(&o);
    memcpy(good, area->data, sizeof(good));
    for (size_t i = 0; i < G_N_ELEMENTS(hostile); i++) {
        const Hostile *h = &hostile[i];
        uint32_t number = GUINT32_TO_BE(h->number);

        memcpy(area->data, good, sizeof(good));
        if (h->text) {
            strncpy((char *)area->data + h->at, h->text, 32);
        } else {
            memcpy(area->data + h->at, &number, 4);
        }
        co_assert_opens(area, "s", 0, h->error);
    }
    memcpy(area->data, good, sizeof(good));
    area->data[AT_VERSION + 1] = 2;
    co_assert_opens(area, "s", 0, "LUKS version 2 is not supported");
    area_free(area);
    secret_free(secret);
}

/* ---- other programs ---- */

static bool have(const char *program)
{
    g_autofree char *path = g_find_program_in_path(program);

    return path != NULL;
}

/* Run a shell command; true if it succeeded. */
static bool G_GNUC_PRINTF(1, 2) run(const char *fmt, ...)
{
    g_autofree char *command = NULL;
    g_autofree char *out = NULL;
    g_autofree char *errors = NULL;
    const char *argv[] = { "/bin/sh", "-c", NULL, NULL };
    int status;
    va_list ap;

    va_start(ap, fmt);
    command = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    argv[2] = command;
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, &out,
                               &errors, &status, NULL));
    if (status != 0) {
        g_test_message("%s: %s%s", command, out, errors);
    }
    return status == 0 && !strstr(out, "Pattern verification failed");
}

/* Takes seconds, and at times qemu-img says that it can't measure time. */
static bool qemu_img_create(const char *options)
{
    for (int i = 0; i < 3; i++) {
        if (run("qemu-img create -q -f luks --object secret,id=s,data=pw "
                "-o key-secret=s,iter-time=10%s %s 1M", options, image)) {
            return true;
        }
    }
    return false;
}

#define QEMU_IO "qemu-io --object secret,id=s,data=pw --image-opts " \
                "driver=luks,key-secret=s,file.filename=%s "

static int coroutine_fn file_co_read(void *opaque, uint64_t offset, void *buf,
                                     size_t len)
{
    ssize_t n = pread(*(int *)opaque, buf, len, offset);

    return n == len ? 0 : n < 0 ? -errno : -EIO;
}

static int coroutine_fn file_co_write(void *opaque, uint64_t offset,
                                      const void *buf, size_t len)
{
    ssize_t n = pwrite(*(int *)opaque, buf, len, offset);

    return n == len ? 0 : n < 0 ? -errno : -EIO;
}

static BlockCrypto *coroutine_fn co_open_image(const char *secret, int *fd)
{
    Error *err = NULL;
    BlockCrypto *c;

    *fd = open(image, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(*fd, >=, 0);
    c = block_crypto_co_open_luks(file_co_read, fd, secret, 0, &err);
    no_error(err);
    return c;
}

static const char *const variants[] = {
    "",
    ",cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha1",
};

/* What qemu-io wrote is what we decrypt, and the other way round. */
static void coroutine_fn test_qemu_img(void *opaque)
{
    g_autofree uint8_t *buf = g_malloc(64 * KiB);
    Secret *secret;

    if (!have("qemu-img") || !have("qemu-io")) {
        g_test_skip("no qemu-utils");
        return;
    }
    co_secret("s", "pw", &secret);
    for (size_t i = 0; i < G_N_ELEMENTS(variants); i++) {
        BlockCrypto *c;
        uint64_t start;
        int fd;

        if (!qemu_img_create(variants[i])) {
            g_test_message("qemu-img makes no image with %s", variants[i]);
            continue;
        }
        g_assert_true(run(QEMU_IO "-c 'write -P 0xa7 256k 64k'", image));
        c = co_open_image("s", &fd);
        start = block_crypto_payload_offset(c);
        g_assert_cmpint(file_co_read(&fd, start + 256 * KiB, buf, 64 * KiB),
                        ==, 0);
        block_crypto_decrypt(c, 256 * KiB, buf, 64 * KiB);
        for (int j = 0; j < 64 * KiB; j++) {
            g_assert_cmpint(buf[j], ==, 0xa7);
        }
        memset(buf, 0x5c, 64 * KiB);
        block_crypto_encrypt(c, 512 * KiB, buf, 64 * KiB);
        g_assert_cmpint(file_co_write(&fd, start + 512 * KiB, buf, 64 * KiB),
                        ==, 0);
        block_crypto_free(c);
        close(fd);
        g_assert_true(run(QEMU_IO "-c 'read -P 0x5c 512k 64k' "
                          "-c 'read -P 0xa7 256k 64k'", image));
    }
    secret_free(secret);
}

/* Headers of ours, with all that they can say, are read by others. */
static void coroutine_fn co_check_ours(
    const QCryptoBlockCreateOptionsLUKS *options)
{
    uint8_t buf[SECTOR];
    Error *err = NULL;
    BlockCrypto *c;
    int fd = open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t start;

    g_assert_cmpint(fd, >=, 0);
    c = block_crypto_co_create_luks(options, 0, file_co_write, &fd, &err);
    no_error(err);
    start = block_crypto_payload_offset(c);
    memset(buf, 0x3d, SECTOR);
    block_crypto_encrypt(c, SECTOR, buf, SECTOR);
    g_assert_cmpint(file_co_write(&fd, start + SECTOR, buf, SECTOR), ==, 0);
    block_crypto_free(c);
    c = block_crypto_co_open_luks(file_co_read, &fd, "s", 0, &err);
    no_error(err);
    block_crypto_decrypt(c, SECTOR, buf, SECTOR);
    g_assert_cmpint(buf[0], ==, 0x3d);
    block_crypto_free(c);
    close(fd);
    /* Of key material that ends inside a sector QEMU's tools die. */
    if (have("qemu-io")
        && (options->cipher_alg != Q_CRYPTO_CIPHER_ALGO_AES_192
            || options->cipher_mode == Q_CRYPTO_CIPHER_MODE_XTS)) {
        g_assert_true(run(QEMU_IO "-c 'read -P 0x3d 512 512'", image));
    }
    /* Of others it asks the kernel, which need not have them. */
    if (have("cryptsetup") && options->hash_alg != Q_CRYPTO_HASH_ALGO_MD5
        && options->cipher_mode == Q_CRYPTO_CIPHER_MODE_XTS
        && options->cipher_alg != Q_CRYPTO_CIPHER_ALGO_AES_192
        && options->ivgen_alg == Q_CRYPTO_IV_GEN_ALGO_PLAIN64) {
        g_assert_true(run("printf pw | cryptsetup open --test-passphrase "
                          "--key-file - %s", image));
    }
}

static void coroutine_fn test_ours(void *opaque)
{
    Secret *secret;

    co_secret("s", "pw", &secret);
    for (int hash = 0; hash < Q_CRYPTO_HASH_ALGO__MAX; hash++) {
        QCryptoBlockCreateOptionsLUKS o = quick_options();

        if (!crypto_hash(hash)) {
            continue;
        }
        o.has_cipher_alg = o.has_hash_alg = o.has_cipher_mode = true;
        o.has_ivgen_alg = true;
        o.hash_alg = hash;
        o.cipher_alg = hash % 3;
        o.cipher_mode = hash % 2 ? Q_CRYPTO_CIPHER_MODE_XTS
                                 : Q_CRYPTO_CIPHER_MODE_CBC;
        o.ivgen_alg = hash / 2 % Q_CRYPTO_IV_GEN_ALGO__MAX;
        co_check_ours(&o);
        o.cipher_mode = Q_CRYPTO_CIPHER_MODE_XTS;
        o.ivgen_alg = Q_CRYPTO_IV_GEN_ALGO_PLAIN64;
        co_check_ours(&o);
    }
    secret_free(secret);
}

/* Any of several passphrases, in slots that need not be the first. */
static void coroutine_fn test_cryptsetup(void *opaque)
{
    Secret *first, *second;
    QCryptoBlockInfoLUKS *info;
    BlockCrypto *c;
    int fd;

    if (!have("cryptsetup")) {
        g_test_skip("no cryptsetup");
        return;
    }
    g_assert_true(run("rm -f %s; truncate -s 3M %s", image, image));
    if (!run("printf one | cryptsetup -q luksFormat --type luks1 "
             "--pbkdf-force-iterations 1000 --cipher aes-xts-plain64 "
             "--key-size 256 --hash sha256 --key-file - %s", image)) {
        g_test_skip("cryptsetup can't make an image here");
        return;
    }
    g_assert_true(run("printf one >%s.key && printf two | cryptsetup -q "
                      "luksAddKey --key-slot 5 --pbkdf-force-iterations 1000 "
                      "--key-file %s.key %s /dev/stdin && rm %s.key",
                      image, image, image, image));
    co_secret("one", "one", &first);
    co_secret("two", "two", &second);
    c = co_open_image("one", &fd);
    block_crypto_free(c);
    close(fd);
    c = co_open_image("two", &fd);
    info = block_crypto_get_info(c);
    g_assert_cmpint(info->cipher_alg, ==, Q_CRYPTO_CIPHER_ALGO_AES_128);
    g_assert_cmpint(strlen(info->uuid), ==, 36);
    qapi_free_QCryptoBlockInfoLUKS(info);
    block_crypto_free(c);
    close(fd);

    g_assert_true(run("printf one | cryptsetup -q luksKillSlot --key-file - "
                      "%s 5", image));
    c = co_open_image("one", &fd);
    block_crypto_free(c);
    close(fd);
    secret_free(first);
    secret_free(second);
}

int main(int argc, char **argv)
{
    static const BlockTest with_qemu_img = { .entry = test_qemu_img };
    static const BlockTest ours = { .entry = test_ours };
    static const BlockTest with_cryptsetup = { .entry = test_cryptsetup };
    int ret;

    g_test_init(&argc, &argv, NULL);
    image = node_test_scratch(g_get_tmp_dir(), MiB);
    g_test_add_func("/crypto/xts/vectors", test_xts_vectors);
    g_test_add_func("/crypto/xts/nettle", test_xts_nettle);
    g_test_add_func("/crypto/ivgen", test_ivgen);
    g_test_add_func("/crypto/pbkdf2", test_pbkdf2);
    g_test_add_func("/crypto/af", test_af);
    block_test_add("/crypto/aes", test_aes, NULL);
    block_test_add("/crypto/create-options", test_create_options, NULL);
    block_test_add("/crypto/passwords", test_passwords, NULL);
    block_test_add("/crypto/header-only", test_header_only, NULL);
    block_test_add("/crypto/hostile", test_hostile, NULL);
    g_test_add_data_func("/crypto/qemu-img", &with_qemu_img, block_test_run);
    g_test_add_data_func("/crypto/ours", &ours, block_test_run);
    g_test_add_data_func("/crypto/cryptsetup", &with_cryptsetup,
                         block_test_run);
    ret = g_test_run();
    g_unlink(image);
    g_free(image);
    return ret;
}
