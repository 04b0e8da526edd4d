// Secret bytes: move-only, in locked pages that are left out of core dumps, cleansed on
// destruction. Reading them needs a SecretAccess token, so that `grep SecretAccess` finds every
// use. A distinct Tag per purpose keeps one kind of key from being used as another.
#pragma once

#include <cstddef>
#include <ostream>

#include "base/bytes.h"

namespace gbx {

// The token. Construct it where a secret meets a primitive, nowhere else.
struct SecretAccess {};

// An owning buffer of locked memory. Not thread-safe.
class SecretBuffer {
 public:
  SecretBuffer() = default;
  explicit SecretBuffer(std::size_t size);
  SecretBuffer(SecretBuffer&& other) noexcept;
  SecretBuffer& operator=(SecretBuffer&& other) noexcept;
  SecretBuffer(const SecretBuffer&) = delete;
  SecretBuffer& operator=(const SecretBuffer&) = delete;
  ~SecretBuffer();
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  ByteView view(SecretAccess) const { return {data_, size_}; }
  MutableByteView writable(SecretAccess) { return {data_, size_}; }
  void wipe();
  friend std::ostream& operator<<(std::ostream&, const SecretBuffer&) = delete;

 private:
  std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_ = 0;
};

template <class Tag>
class Secret {
 public:
  Secret() = default;
  // Takes a copy of `bytes`; the caller cleanses its own.
  static Secret copy_of(ByteView bytes) {
    Secret s;
    s.buffer_ = SecretBuffer(bytes.size());
    if (!bytes.empty()) {
      std::memcpy(s.buffer_.writable(SecretAccess{}).data(), bytes.data(), bytes.size());
    }
    return s;
  }
  static Secret adopt(SecretBuffer buffer) {
    Secret s;
    s.buffer_ = std::move(buffer);
    return s;
  }
  Secret clone() const { return copy_of(buffer_.view(SecretAccess{})); }
  std::size_t size() const { return buffer_.size(); }
  bool empty() const { return buffer_.empty(); }
  ByteView view(SecretAccess a) const { return buffer_.view(a); }
  void wipe() { buffer_.wipe(); }
  friend std::ostream& operator<<(std::ostream&, const Secret&) = delete;

 private:
  SecretBuffer buffer_;
};

// Constant-time for equal lengths.
bool constant_time_equal(ByteView a, ByteView b);
// Overwrites memory in a way the compiler keeps.
void cleanse(MutableByteView bytes);
template <class T>
bool operator==(const Secret<T>& a, const Secret<T>& b) {
  return constant_time_equal(a.view(SecretAccess{}), b.view(SecretAccess{}));
}

// Purposes.
struct DatasetKeyTag {};   // DK, 32 bytes: opens one asset version
struct ContentKeyTag {};   // CEK of an output, 32 bytes
struct ReleaseKeyTag {};   // Kr / Kp, 32 bytes: the outer layer of a result
struct AeadKeyTag {};      // any derived AEAD key
struct SigningKeyTag {};   // private signing key
struct HpkePrivateTag {};  // X25519 private key, 32 bytes
struct PassphraseTag {};
using DatasetKey = Secret<DatasetKeyTag>;
using ContentKey = Secret<ContentKeyTag>;
using ReleaseKey = Secret<ReleaseKeyTag>;
using AeadKey = Secret<AeadKeyTag>;
using HpkePrivate = Secret<HpkePrivateTag>;
using Passphrase = Secret<PassphraseTag>;

}  // namespace gbx
