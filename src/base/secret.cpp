#include "base/secret.h"

#include <openssl/crypto.h>
#include <sys/mman.h>
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
  // Own pages, so that munlock and DONTDUMP never touch a neighbour's memory.
  void* p = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  // Locking may be refused by a resource limit; the page is still left out of core dumps. The
  // programs raise their limit at start and say so when they cannot (docs/threat-model.md).
  (void)mlock(p, mapped_);
  (void)madvise(p, mapped_, MADV_DONTDUMP);
  // SAFETY: fresh anonymous mapping of mapped_ bytes.
  data_ = static_cast<std::uint8_t*>(p);
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
    (void)munlock(data_, mapped_);
    (void)munmap(data_, mapped_);
  }
  data_ = nullptr;
  size_ = mapped_ = 0;
}

bool constant_time_equal(ByteView a, ByteView b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}
void cleanse(MutableByteView bytes) { OPENSSL_cleanse(bytes.data(), bytes.size()); }

}  // namespace gbx
