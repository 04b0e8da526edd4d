// Byte streams, blocking, with deadlines: sockets, pipes, and a pair in memory. Bytes that arrive
// are untrusted. One thread may read while another writes; close() may come from any thread and
// wakes both.
#pragma once

#include <atomic>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>

#include "base/bytes.h"
#include "base/os.h"
#include "base/seams.h"

namespace gbx::channel {

// A moment on the monotonic clock. There is no "never": every wait ends. The clock must outlive the
// deadline.
class Deadline {
 public:
  static Deadline after_ms(const Clock& clock, std::int64_t ms) {
    return Deadline(clock, clock.steady_ms() + ms);
  }
  std::int64_t remaining_ms() const {
    const std::int64_t left = at_ms_ - clock_->steady_ms();
    return left > 0 ? left : 0;
  }
  bool passed() const { return remaining_ms() == 0; }
  // Waits for `ready`; false when the deadline came first.
  template <class Predicate>
  bool wait(std::condition_variable& condition, std::unique_lock<std::mutex>& lock,
            Predicate ready) const {
    return condition.wait_for(lock, std::chrono::milliseconds(remaining_ms()), ready);
  }

 private:
  Deadline(const Clock& clock, std::int64_t at_ms) : clock_(&clock), at_ms_(at_ms) {}
  const Clock* clock_;
  std::int64_t at_ms_;
};

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // At least one byte into `out` (not empty), or 0 at the end of the stream.
  // kTimedOut, kConnectionClosed (also after close() here), kIo; kTruncated and kBadTag from TLS.
  virtual Result<std::size_t> read(MutableByteView out, Deadline deadline) = 0;
  // All of it, or an error after which the stream is of no use.
  virtual Status write_all(ByteView bytes, Deadline deadline) = 0;
  // No more will be written; the peer reads the end of the stream. Reading goes on.
  virtual Status finish(Deadline deadline) = 0;
  // Ends both directions at once.
  virtual void close() = 0;
};

// kTruncated when the stream ends before `out` is full.
Status read_exact(ByteStream& stream, MutableByteView out, Deadline deadline);

// A first-in first-out buffer of at most `capacity` bytes; allocates on first use. Not thread-safe.
class BoundedBuffer {
 public:
  explicit BoundedBuffer(std::size_t capacity) : capacity_(capacity) {}
  std::size_t size() const { return size_; }
  std::size_t room() const { return capacity_ - size_; }
  std::size_t write(ByteView bytes);      // how many fitted
  std::size_t read(MutableByteView out);  // how many there were

 private:
  std::size_t capacity_;
  std::size_t head_ = 0;
  std::size_t size_ = 0;
  Bytes ring_;
};

// Over a descriptor, or one to read and one to write. Makes them non-blocking (which others who
// share the open file see too). finish() must not run beside write_all(). Never raises SIGPIPE.
class FdStream final : public ByteStream {
 public:
  static Result<std::unique_ptr<FdStream>> create(Fd socket);
  static Result<std::unique_ptr<FdStream>> create(Fd read_end, Fd write_end);
  Result<std::size_t> read(MutableByteView out, Deadline deadline) override;
  Status write_all(ByteView bytes, Deadline deadline) override;
  Status finish(Deadline deadline) override;
  void close() override;

 private:
  FdStream(Fd read_end, Fd write_end, Fd wake, bool socket)
      : read_(std::move(read_end)),
        write_(std::move(write_end)),
        wake_(std::move(wake)),
        socket_(socket) {}
  Status wait(int fd, short events, Deadline deadline) const;
  int write_fd() const { return write_.valid() ? write_.get() : read_.get(); }

  Fd read_;
  Fd write_;  // invalid: read_ serves both
  Fd wake_;   // an eventfd that close() makes readable
  bool socket_;
  bool finished_ = false;
  std::atomic<bool> closed_{false};
};

// Two connected ends in this process, each direction holding at most `capacity` bytes.
std::pair<std::unique_ptr<ByteStream>, std::unique_ptr<ByteStream>> make_memory_pipe(
    std::size_t capacity = 64U << 10);

struct RelayLimits {
  std::int64_t idle_ms = 120'000;  // without a byte in either direction
  std::int64_t write_ms = 60'000;
  std::uint64_t max_bytes = std::uint64_t{1} << 40;  // each direction
};
// Copies both ways until both directions have ended, passing on each end; the node's part in a TLS
// connection that it cannot read. Closes both streams on error. kTimedOut, kTooLarge, or what a
// stream said.
Status relay(ByteStream& a, ByteStream& b, const RelayLimits& limits, const Clock& clock);

}  // namespace gbx::channel
