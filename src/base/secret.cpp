#include "base/secret.h"

#include <openssl/crypto.h>
#include <unistd.h>

#include <new>

#include "base/secret_pool.h"

namespace gbx {

namespace {
std::size_t round_to_pages(std::size_t n) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (n + page - 1) / page * page;
}
}  // namespace

// mapped_ is 0 for a slot of the pool, and for larger secrets, and beyond what the pool holds, the
// size of a mapping.
SecretBuffer::SecretBuffer(std::size_t size) : size_(size) {
  if (size == 0) return;
  if (size <= SecretPool::kSlot) data_ = SecretPool::process().take(size);
  if (data_ != nullptr) return;
  mapped_ = round_to_pages(size);
  data_ = map_secret_pages(mapped_, 0).at;
  if (data_ == nullptr) throw std::bad_alloc();
}

SecretBuffer::SecretBuffer(SecretBuffer&& o) noexcept
    : data_(o.data_), size_(o.size_), mapped_(o.mapped_) {
  o.data_ = nullptr;
  o.size_ = o.mapped_ = 0;
}
SecretBuffer& SecretBuffer::operator=(SecretBuffer&& o) noexcept {
  if (this != &o) {
    wipe();
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(mapped_, o.mapped_);
  }
  return *this;
}
SecretBuffer::~SecretBuffer() { wipe(); }

void SecretBuffer::wipe() {
  if (data_ == nullptr) return;
  if (mapped_ == 0) {
    SecretPool::process().give_back(data_);
  } else {
    OPENSSL_cleanse(data_, mapped_);
    unmap_secret_pages(data_, mapped_, 0);
  }
  data_ = nullptr;
  size_ = mapped_ = 0;
}

bool constant_time_equal(ByteView a, ByteView b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}
void cleanse(MutableByteView bytes) { OPENSSL_cleanse(bytes.data(), bytes.size()); }

}  // namespace gbx
