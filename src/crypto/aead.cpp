#include <climits>

#include "crypto/crypto.h"
#include "crypto/openssl.h"

namespace gbx::crypto {

using namespace detail;  // NOLINT: private helpers of this folder

namespace {

using OwnedCipher = Owned<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free>;
constexpr std::uint8_t kZeroNonce[kAeadNonceSize] = {};

EVP_CIPHER_CTX* context(void* p) { return static_cast<EVP_CIPHER_CTX*>(p); }

const EVP_CIPHER* fetch_cipher(const char* name) {
  const EVP_CIPHER* cipher = EVP_CIPHER_fetch(nullptr, name, nullptr);
  require(cipher != nullptr, name);
  return cipher;
}
// Fetched once, immutable. Null for a number that is no suite.
const EVP_CIPHER* cipher_of(AeadSuite suite) {
  static const EVP_CIPHER* const kGcm = fetch_cipher("AES-256-GCM");
  static const EVP_CIPHER* const kChaCha = fetch_cipher("ChaCha20-Poly1305");
  switch (suite) {
    case AeadSuite::kAes256Gcm:
      return kGcm;
    case AeadSuite::kChaCha20Poly1305:
      return kChaCha;
  }
  return nullptr;
}

Status check_sizes(ByteView nonce, ByteView aad, std::size_t text_size) {
  if (nonce.size() != kAeadNonceSize) {
    return fail(Reason::kBadValue, "AEAD nonce")
        .with("12 bytes", std::to_string(nonce.size()) + " bytes");
  }
  if (aad.size() > INT_MAX || text_size > INT_MAX - kAeadTagSize) {
    return fail(Reason::kTooLarge, "AEAD message").with("below 2 GiB", std::to_string(text_size));
  }
  return ok_status();
}

Result<OwnedCipher> keyed(AeadSuite suite, ByteView key, bool encrypt) {
  const EVP_CIPHER* cipher = cipher_of(suite);
  if (cipher == nullptr) return fail(Reason::kBadSuite, "AEAD suite");
  if (key.size() != kAeadKeySize) {
    return fail(Reason::kBadValue, "AEAD key")
        .with("32 bytes", std::to_string(key.size()) + " bytes");
  }
  OwnedCipher ctx(EVP_CIPHER_CTX_new());
  if (ctx == nullptr) return openssl_error("AEAD context");
  const int direction = encrypt ? 1 : 0;
  if (EVP_CipherInit_ex2(ctx.get(), cipher, key.data(), nullptr, direction, nullptr) != 1) {
    return openssl_error("AEAD key setup");
  }
  return ctx;
}

// Starts a message: nonce and associated data.
Status begin(EVP_CIPHER_CTX* ctx, ByteView nonce, ByteView aad) {
  if (EVP_CipherInit_ex2(ctx, nullptr, nullptr, nonce.data(), -1, nullptr) != 1) {
    return openssl_error("AEAD nonce setup");
  }
  int n = 0;
  if (!aad.empty() &&
      EVP_CipherUpdate(ctx, nullptr, &n, aad.data(), static_cast<int>(aad.size())) != 1) {
    return openssl_error("AEAD associated data");
  }
  return ok_status();
}

Status text(EVP_CIPHER_CTX* ctx, ByteView in, std::uint8_t* out) {
  int n = 0;
  const int size = static_cast<int>(in.size());
  if (size != 0 && (EVP_CipherUpdate(ctx, out, &n, in.data(), size) != 1 || n != size)) {
    return openssl_error("AEAD text");
  }
  return ok_status();
}

Status seal_with(EVP_CIPHER_CTX* ctx, ByteView nonce, ByteView aad, ByteView plaintext,
                 MutableByteView out) {
  GBX_TRY(check_sizes(nonce, aad, plaintext.size()));
  if (out.size() != plaintext.size() + kAeadTagSize) {
    return fail(Reason::kBadValue, "AEAD output size");
  }
  GBX_TRY(begin(ctx, nonce, aad));
  GBX_TRY(text(ctx, plaintext, out.data()));
  std::uint8_t* tag = out.data() + plaintext.size();
  int n = 0;
  if (EVP_CipherFinal_ex(ctx, tag, &n) != 1 || n != 0) return openssl_error("AEAD final");
  if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, kAeadTagSize, tag) != 1) {
    return openssl_error("AEAD tag");
  }
  return ok_status();
}

Status open_into(EVP_CIPHER_CTX* ctx, ByteView nonce, ByteView aad, ByteView ciphertext,
                 MutableByteView out) {
  GBX_TRY(check_sizes(nonce, aad, ciphertext.size()));
  if (ciphertext.size() < kAeadTagSize) return fail(Reason::kBadTag, "ciphertext without a tag");
  const ByteView body = ciphertext.first(ciphertext.size() - kAeadTagSize);
  if (out.size() != body.size()) return fail(Reason::kBadValue, "AEAD output size");
  FixedBytes<kAeadTagSize> tag;  // OpenSSL takes a pointer to mutable bytes
  std::memcpy(tag.data(), ciphertext.data() + body.size(), tag.size());
  GBX_TRY(begin(ctx, nonce, aad));
  if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, kAeadTagSize, tag.data()) != 1) {
    return openssl_error("AEAD tag");
  }
  GBX_TRY(text(ctx, body, out.data()));
  std::uint8_t rest[EVP_MAX_BLOCK_LENGTH];
  int n = 0;
  if (EVP_CipherFinal_ex(ctx, rest, &n) != 1 || n != 0) {
    return fail(Reason::kBadTag, "the ciphertext is not genuine");
  }
  return ok_status();
}

// Whatever went wrong, no unauthenticated plaintext stays behind.
Status open_with(EVP_CIPHER_CTX* ctx, ByteView nonce, ByteView aad, ByteView ciphertext,
                 MutableByteView out) {
  Status status = open_into(ctx, nonce, aad, ciphertext, out);
  if (!status.ok() && !out.empty()) cleanse(out);
  return status;
}

Result<Bytes> seal_bytes(AeadSuite suite, ByteView key, ByteView nonce, ByteView aad,
                         ByteView plaintext) {
  const DrainErrors drain;
  GBX_ASSIGN(const OwnedCipher ctx, keyed(suite, key, true));
  GBX_TRY(check_sizes(nonce, aad, plaintext.size()));
  Bytes out(plaintext.size() + kAeadTagSize);
  GBX_TRY(seal_with(ctx.get(), nonce, aad, plaintext, out));
  return out;
}

Result<Bytes> open_bytes(AeadSuite suite, ByteView key, ByteView nonce, ByteView aad,
                         ByteView ciphertext) {
  const DrainErrors drain;
  GBX_ASSIGN(const OwnedCipher ctx, keyed(suite, key, false));
  if (ciphertext.size() < kAeadTagSize) return fail(Reason::kBadTag, "ciphertext without a tag");
  Bytes out(ciphertext.size() - kAeadTagSize);
  GBX_TRY(open_with(ctx.get(), nonce, aad, ciphertext, out));
  return out;
}

}  // namespace

Result<AeadSuite> aead_suite(std::uint8_t number) {
  const auto suite = static_cast<AeadSuite>(number);
  if (cipher_of(suite) != nullptr) return suite;
  return fail(Reason::kBadSuite, "AEAD suite")
      .with("1 (AES-256-GCM) or 2 (ChaCha20-Poly1305)", std::to_string(number));
}

Result<Bytes> aead_seal(AeadSuite suite, const AeadKey& key, ByteView nonce, ByteView aad,
                        ByteView plaintext) {
  return seal_bytes(suite, key.view(SecretAccess{}), nonce, aad, plaintext);
}
Result<Bytes> aead_open(AeadSuite suite, const AeadKey& key, ByteView nonce, ByteView aad,
                        ByteView ciphertext) {
  return open_bytes(suite, key.view(SecretAccess{}), nonce, aad, ciphertext);
}
Result<Bytes> seal_once(ByteView key, SecretAccess, ByteView aad, ByteView plaintext) {
  return seal_bytes(AeadSuite::kAes256Gcm, key, kZeroNonce, aad, plaintext);
}
Result<Bytes> open_once(ByteView key, SecretAccess, ByteView aad, ByteView ciphertext) {
  return open_bytes(AeadSuite::kAes256Gcm, key, kZeroNonce, aad, ciphertext);
}

Result<AeadStream> AeadStream::create(AeadSuite suite, const AeadKey& key) {
  const DrainErrors drain;
  AeadStream stream;
  GBX_ASSIGN(OwnedCipher encrypt, keyed(suite, key.view(SecretAccess{}), true));
  GBX_ASSIGN(OwnedCipher decrypt, keyed(suite, key.view(SecretAccess{}), false));
  stream.encrypt_ = encrypt.release();
  stream.decrypt_ = decrypt.release();
  return stream;
}
AeadStream::AeadStream(AeadStream&& other) noexcept
    : encrypt_(std::exchange(other.encrypt_, nullptr)),
      decrypt_(std::exchange(other.decrypt_, nullptr)) {}
AeadStream& AeadStream::operator=(AeadStream&& other) noexcept {
  std::swap(encrypt_, other.encrypt_);
  std::swap(decrypt_, other.decrypt_);
  return *this;
}
AeadStream::~AeadStream() {
  EVP_CIPHER_CTX_free(context(encrypt_));  // cleanses the key schedule
  EVP_CIPHER_CTX_free(context(decrypt_));
}
Status AeadStream::seal(ByteView nonce, ByteView aad, ByteView plaintext, MutableByteView out) {
  const DrainErrors drain;
  require(encrypt_ != nullptr, "use of a moved-from AeadStream");
  return seal_with(context(encrypt_), nonce, aad, plaintext, out);
}
Status AeadStream::open(ByteView nonce, ByteView aad, ByteView ciphertext, MutableByteView out) {
  const DrainErrors drain;
  require(decrypt_ != nullptr, "use of a moved-from AeadStream");
  return open_with(context(decrypt_), nonce, aad, ciphertext, out);
}

}  // namespace gbx::crypto
