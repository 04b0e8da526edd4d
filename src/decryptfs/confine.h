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

// The `store_fd` of a process that has its ciphertext in memory: it may open and read no file at
// all.
inline constexpr int kNoStore = -1;

// Landlock: nothing of the file system but reading beneath `store_fd`. False where the kernel has
// no Landlock.
Result<bool> confine_files(int store_fd);
// no_new_privs and the allow-list of system calls, for all threads; anything else kills the
// process.
Status confine_syscalls(int store_fd);

}  // namespace gbx::decryptfs
