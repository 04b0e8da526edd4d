// A volume served over one connected stream socket, by one thread, for as long as the machine has
// its end open or until stop(). The client is QEMU, which the guest may have taken over: it is
// served what it asks within the volume, and nothing else.
#pragma once

#include <memory>
#include <optional>
#include <thread>

#include "base/os.h"
#include "vm/nbd.h"

namespace gbx::vm {

// A client that stops in the middle of a message, or does not take an answer, for so long is left.
inline constexpr int kNbdStallMs = 60'000;

class NbdServer {
 public:
  static Result<std::unique_ptr<NbdServer>> start(Fd socket, std::shared_ptr<VolumeSource> source,
                                                  int stall_ms = kNbdStallMs);
  ~NbdServer();
  NbdServer(const NbdServer&) = delete;
  NbdServer& operator=(const NbdServer&) = delete;

  // Ends it and waits; a read of the source that has begun is waited for. Idempotent.
  void stop();
  // Waits until the client ended. How that was; stays the same.
  Status wait();

 private:
  NbdServer(Fd socket, std::shared_ptr<VolumeSource> source, int stall_ms)
      : socket_(std::move(socket)), source_(std::move(source)), stall_ms_(stall_ms) {}
  void run();

  Fd socket_;  // the thread's own
  const std::shared_ptr<VolumeSource> source_;
  const int stall_ms_;
  std::pair<Fd, Fd> stop_;  // a pipe; its write end is closed to stop
  Status ended_;            // written by the thread, read after it was joined
  std::thread thread_;
};

}  // namespace gbx::vm
