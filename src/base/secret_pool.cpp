#include "base/secret_pool.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <span>

#include "base/secret.h"

#if defined(__SANITIZE_ADDRESS__)
#define GBX_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GBX_ASAN 1
#endif
#endif
#ifdef GBX_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace gbx {

namespace {

std::size_t page_size() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

// Under AddressSanitizer a free slot is out of bounds, as it would be on the heap.
void fence([[maybe_unused]] const std::uint8_t* at, [[maybe_unused]] std::size_t size) {
#ifdef GBX_ASAN
  ASAN_POISON_MEMORY_REGION(at, size);
#endif
}
void unfence([[maybe_unused]] const std::uint8_t* at, [[maybe_unused]] std::size_t size) {
#ifdef GBX_ASAN
  ASAN_UNPOISON_MEMORY_REGION(at, size);
#endif
}

// Empty mapping on failure. Private to this process, and gone with it.
void* map_hidden(std::size_t size) {
  // SAFETY: memfd_secret has no libc wrapper; it takes flags alone and gives a descriptor.
  const int fd = static_cast<int>(syscall(SYS_memfd_secret, O_CLOEXEC));
  if (fd < 0) return MAP_FAILED;
  void* p = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(size)) == 0) {
    p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  (void)close(fd);
  if (p == MAP_FAILED) return p;
  // The pages are shared with whoever inherits them, so nobody does.
  if (madvise(p, size, MADV_DONTFORK) == 0) return p;
  (void)munmap(p, size);
  return MAP_FAILED;
}

}  // namespace

bool kernel_hides_secrets() {
  void* p = map_hidden(page_size());
  if (p == MAP_FAILED) return false;
  (void)munmap(p, page_size());
  return true;
}

SecretPages map_secret_pages(std::size_t size, std::size_t guard) {
  const std::size_t all = size + 2 * guard;
  void* whole = map_hidden(all);
  const bool hidden = whole != MAP_FAILED;
  if (!hidden) {
    whole = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  if (whole == MAP_FAILED) return {};
  // SAFETY: inside the fresh mapping; what is before and behind stays inaccessible.
  auto* at = static_cast<std::uint8_t*>(whole) + guard;
  if (guard != 0 &&
      (mprotect(whole, guard, PROT_NONE) != 0 || mprotect(at + size, guard, PROT_NONE) != 0)) {
    (void)munmap(whole, all);
    return {};
  }
  if (!hidden) {
    // Locking may be refused by a resource limit; the page is still left out of core dumps. The
    // programs raise their limit at start and say so when they cannot (docs/threat-model.md).
    (void)mlock(at, size);
    (void)madvise(at, size, MADV_DONTDUMP);
  }
  return {at, hidden};
}
void unmap_secret_pages(std::uint8_t* at, std::size_t size, std::size_t guard) {
  (void)munmap(at - guard, size + 2 * guard);
}

SecretPool::SecretPool(std::size_t most_arenas) : most_arenas_(most_arenas) {}

SecretPool::~SecretPool() {
  for (const Arena& a : arenas_) {
    unfence(a.base, kArena);
    cleanse({a.base, kArena});
    unmap_secret_pages(a.base, kArena, page_size());
  }
}

SecretPool& SecretPool::process() {
  constexpr std::size_t kMostArenas = 64;  // 16,384 slots in 1 MiB
  static SecretPool* const pool = [] {
    (void)pthread_atfork(nullptr, nullptr, [] { process().forget_hidden(); });
    return new SecretPool(kMostArenas);
  }();
  return *pool;
}

void SecretPool::forget_hidden() {
  std::erase_if(arenas_, [](const Arena& a) { return a.hidden; });
  first_free_ = 0;
}

bool SecretPool::grow() {
  if (arenas_.size() >= most_arenas_) return false;
  const SecretPages pages = map_secret_pages(kArena, page_size());
  std::uint8_t* const base = pages.at;
  if (base == nullptr) return false;
  Arena arena;
  arena.base = base;
  arena.hidden = pages.hidden;
  arena.free.fill(~std::uint64_t{0});
  arena.free_count = kSlots;
  arenas_.push_back(arena);
  fence(base, kArena);
  return true;
}

std::uint8_t* SecretPool::take_from(Arena& a) {
  for (std::size_t word = 0; word < a.free.size(); ++word) {
    if (a.free[word] == 0) continue;
    const auto bit = static_cast<std::size_t>(std::countr_zero(a.free[word]));
    a.free[word] &= a.free[word] - 1;
    --a.free_count;
    return a.base + (word * 64 + bit) * kSlot;
  }
  return nullptr;
}

std::uint8_t* SecretPool::take(std::size_t size) {
  if (size > kSlot) return nullptr;
  const std::lock_guard lock(mutex_);
  while (first_free_ < arenas_.size() && arenas_[first_free_].free_count == 0) ++first_free_;
  if (first_free_ == arenas_.size() && !grow()) return nullptr;
  std::uint8_t* slot = take_from(arenas_[first_free_]);
  unfence(slot, size);
  return slot;
}

void SecretPool::give_back(std::uint8_t* slot) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < arenas_.size(); ++i) {
    Arena& a = arenas_[i];
    if (slot < a.base || slot >= a.base + kArena) continue;
    const auto offset = static_cast<std::size_t>(slot - a.base);
    const std::size_t index = offset / kSlot;
    const std::uint64_t bit = std::uint64_t{1} << (index % 64);
    if (offset % kSlot != 0 || (a.free[index / 64] & bit) != 0) std::abort();
    unfence(slot, kSlot);
    cleanse({slot, kSlot});
    fence(slot, kSlot);
    a.free[index / 64] |= bit;
    ++a.free_count;
    first_free_ = std::min(first_free_, i);
    return;
  }
  std::abort();
}

std::size_t SecretPool::slots() const {
  const std::lock_guard lock(mutex_);
  return arenas_.size() * kSlots;
}

}  // namespace gbx
