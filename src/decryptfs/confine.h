// The last thing before a decryptfs serves: it gives up everything that serving does not need, for
// all its threads.
#pragma once

#include "base/result.h"

namespace gbx::decryptfs {

// Before any thread exists. glibc's malloc opens /proc/sys/vm/overcommit_memory when it first
// shrinks a thread's own heap, and asks for the processors when threads are many: under the filter
// either would end the process at some odd moment. So all threads share one heap, and it is not
// given back.
void steady_allocator();

// What is left to read of the store: files beneath a directory; bytes of one descriptor, a volume;
// or nothing at all, when the ciphertext lies in memory.
enum class StoreKind { kNone, kDirectory, kVolume };
struct StoreLeft {
  StoreKind kind = StoreKind::kNone;
  int fd = -1;
};

// Landlock: nothing of the file system but reading beneath the store's directory, if it is one.
// False where the kernel has no Landlock.
Result<bool> confine_files(const StoreLeft& store);
// no_new_privs and the allow-list of system calls, for all threads; anything else kills the
// process.
Status confine_syscalls(const StoreLeft& store);

}  // namespace gbx::decryptfs
