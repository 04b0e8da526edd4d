// Slots for small secrets (keys are 32 or 64 bytes), in pages that are locked, left out of core
// dumps, in nobody's reach but this process's where the kernel can do that, and stand between two
// guard pages. Deriving a key then costs no system call. A free slot
// holds zeros. Thread-safe; grows by whole arenas up to a limit and keeps what it has. SecretBuffer
// is its only user.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace gbx {

// Zeroed pages for secrets, `size` bytes in whole pages between `guard` bytes that nobody may
// touch; nothing when the system gives none. Where the kernel has memfd_secret(2) they are taken
// out of its own map of memory: neither a debugger nor /proc nor a flaw that reads the kernel's
// memory finds them, and a forked child has none of them. Otherwise, and beyond the limit on locked
// memory, they are ordinary ones, locked where the limit allows and left out of core dumps.
struct SecretPages {
  std::uint8_t* at = nullptr;
  bool hidden = false;  // by memfd_secret
};
SecretPages map_secret_pages(std::size_t size, std::size_t guard);
void unmap_secret_pages(std::uint8_t* at, std::size_t size, std::size_t guard);
// Whether the kernel has memfd_secret(2).
bool kernel_hides_secrets();

class SecretPool {
 public:
  static constexpr std::size_t kSlot = 64;
  static constexpr std::size_t kArena = std::size_t{16} << 10;  // without its guard pages

  explicit SecretPool(std::size_t most_arenas);
  ~SecretPool();
  SecretPool(const SecretPool&) = delete;
  SecretPool& operator=(const SecretPool&) = delete;

  // `size` (at most kSlot) zeroed bytes, or nothing when the pool is full or the system gives no
  // more memory.
  std::uint8_t* take(std::size_t size);
  // Cleanses the slot. Aborts for an address that is no slot in use: somebody's bookkeeping is
  // corrupt.
  void give_back(std::uint8_t* slot);

  std::size_t slots() const;  // taken and free ones of the arenas there are
  // The one of this process, like its heap: made at first use and never destroyed, as secrets may
  // outlive static objects.
  static SecretPool& process();

 private:
  static constexpr std::size_t kSlots = kArena / kSlot;
  struct Arena {
    std::uint8_t* base = nullptr;
    std::array<std::uint64_t, kSlots / 64> free{};  // a bit per slot
    std::size_t free_count = 0;
    bool hidden = false;
  };
  // In a forked child: arenas that it did not inherit.
  void forget_hidden();
  bool grow();  // mutex_ held
  static std::uint8_t* take_from(Arena& arena);

  const std::size_t most_arenas_;
  mutable std::mutex mutex_;
  std::vector<Arena> arenas_;   // guarded by mutex_
  std::size_t first_free_ = 0;  // guarded by mutex_; every arena before it is full
};

}  // namespace gbx
