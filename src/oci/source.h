// Byte sources that feed the tar reader: a verified blob, gunzip over it, a digest beside it.
// Internal to src/oci.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "crypto/crypto.h"

namespace gbx::oci {

class Source {
 public:
  virtual ~Source() = default;
  // At least one byte unless at the end (0). Never more than out.size().
  virtual Result<std::size_t> read(MutableByteView out) = 0;
};

class MemorySource final : public Source {
 public:
  explicit MemorySource(ByteView bytes) : bytes_(bytes) {}
  Result<std::size_t> read(MutableByteView out) override;

 private:
  ByteView bytes_;
};

// The bytes of a descriptor (borrowed), exactly `size` of them; counts and hashes what passes.
class FileSource final : public Source {
 public:
  FileSource(int fd, std::uint64_t size) : fd_(fd), size_(size) {}
  Result<std::size_t> read(MutableByteView out) override;
  // Reads what is left, then the SHA-256 of the whole. Once.
  Result<Hash32> finish();

 private:
  int fd_;
  std::uint64_t size_;
  std::uint64_t done_ = 0;
  crypto::Sha256 hash_;
};

// RFC 1952 members one after another; kImageRefused for damage, truncation and bytes that are no
// member.
class GunzipSource final : public Source {
 public:
  explicit GunzipSource(Source& packed);
  ~GunzipSource() override;
  GunzipSource(const GunzipSource&) = delete;
  GunzipSource& operator=(const GunzipSource&) = delete;
  Result<std::size_t> read(MutableByteView out) override;

 private:
  Status refill();
  struct State;
  Source& packed_;
  std::unique_ptr<State> state_;
};

// Passes bytes on, hashed and counted, and refuses what grows past its bounds.
class MeteredSource final : public Source {
 public:
  struct Bounds {
    std::uint64_t max_bytes = 0;
    std::uint64_t max_ratio = 0;
    std::uint64_t ratio_floor = 0;
    std::uint64_t stored_bytes = 0;  // the size of the blob the bytes come from
  };
  MeteredSource(Source& inner, Bounds bounds) : inner_(inner), bounds_(bounds) {}
  Result<std::size_t> read(MutableByteView out) override;
  std::uint64_t passed() const { return passed_; }
  Hash32 finish() { return hash_.finish(); }

 private:
  Source& inner_;
  Bounds bounds_;
  std::uint64_t passed_ = 0;
  crypto::Sha256 hash_;
};

}  // namespace gbx::oci
