// A volume served over one connected stream socket, by one thread, for as long as the machine has
// its end open or until stop(). The client is QEMU, which the guest may have taken over: it is
// served what it asks within the volume, and nothing else.
#pragma once

#include <memory>
#include <thread>

#include "base/os.h"
#include "vm/nbd.h"

namespace gbx::vm {

// A client that stops in the middle of a message, or does not take an answer, for so long is left.
inline constexpr int kNbdStallMs = 60'000;
// For a read of the source that has begun when the server is to end.
inline constexpr int kNbdStopMs = 5'000;

class NbdServer {
 public:
  static Result<std::unique_ptr<NbdServer>> start(Fd socket, std::shared_ptr<VolumeSource> source,
                                                  int stall_ms = kNbdStallMs);
  ~NbdServer();
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;

  // Ends it and waits; for a read of the source that has begun at most `within_ms`. kTimedOut when
  // that does not come back: storage is dead then, and the thread, which has nothing left but that
  // read, is on its own with the source. Idempotent.
  Status stop(int within_ms = kNbdStopMs);
  // Waits until the client ended. How that was; stays the same.
  Status wait();

 private:
  struct Work;  // the thread's, which may outlive the server
  explicit NbdServer(std::shared_ptr<Work> work) : work_(std::move(work)) {}

  const std::shared_ptr<Work> work_;
  Fd stop_;  // write end of a pipe, closed to stop
  std::thread thread_;
};

}  // namespace gbx::vm
