#include "channel/stream.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/threads.h"

namespace gbx::channel {
namespace {

Error closed_here() {
  return fail(Reason::kConnectionClosed, "the stream was closed on this side");
}

Status set_non_blocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
    return io_error("make a descriptor non-blocking", errno);
  }
  return ok_status();
}

bool is_socket(int fd) {
  struct stat s {};
  return fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode);
}

// write(2) to a pipe without its SIGPIPE: blocked for this thread, taken back if this call raised
// it.
ssize_t write_without_sigpipe(int fd, ByteView bytes) {
  sigset_t pipe_only;
  sigset_t before;
  sigset_t pending;
  sigemptyset(&pipe_only);
  sigaddset(&pipe_only, SIGPIPE);
  sigpending(&pending);
  const bool was_pending = sigismember(&pending, SIGPIPE) == 1;
  pthread_sigmask(SIG_BLOCK, &pipe_only, &before);
  const ssize_t n = ::write(fd, bytes.data(), bytes.size());
  const int error = errno;
  if (n < 0 && error == EPIPE && !was_pending) {
    const timespec now{};
    while (sigtimedwait(&pipe_only, nullptr, &now) < 0 && errno == EINTR) {
    }
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return n;
}

class MemoryStream final : public ByteStream {
 public:
  struct Direction {
    explicit Direction(std::size_t capacity) : buffer(capacity) {}
    BoundedBuffer buffer;
    bool finished = false;
  };
  struct Shared {
    explicit Shared(std::size_t capacity) : directions{Direction(capacity), Direction(capacity)} {}
    std::mutex mutex;
    std::condition_variable changed;
    Direction directions[2];  // guarded by mutex, as is what follows
    bool closed[2] = {false, false};
  };

  MemoryStream(std::shared_ptr<Shared> shared, int side)
      : shared_(std::move(shared)), side_(side) {}
  ~MemoryStream() override { MemoryStream::close(); }

  Result<std::size_t> read(MutableByteView out, Deadline deadline) override {
    if (out.empty()) return fail(Reason::kInternal, "read into nothing");
    std::unique_lock lock(shared_->mutex);
    Direction& d = shared_->directions[1 - side_];
    const bool ready = deadline.wait(shared_->changed, lock, [&] {
      return shared_->closed[side_] || d.buffer.size() > 0 || d.finished ||
             shared_->closed[1 - side_];
    });
    if (shared_->closed[side_]) return closed_here();
    if (!ready) return fail(Reason::kTimedOut, "read");
    const std::size_t n = d.buffer.read(out);
    shared_->changed.notify_all();
    return n;
  }

  Status write_all(ByteView bytes, Deadline deadline) override {
    std::unique_lock lock(shared_->mutex);
    Direction& d = shared_->directions[side_];
    while (!bytes.empty()) {
      const bool ready = deadline.wait(shared_->changed, lock, [&] {
        return shared_->closed[0] || shared_->closed[1] || d.finished || d.buffer.room() > 0;
      });
      if (shared_->closed[side_]) return closed_here();
      if (shared_->closed[1 - side_]) {
        return fail(Reason::kConnectionClosed, "the peer closed the stream");
      }
      if (d.finished) return fail(Reason::kInternal, "write after finish");
      if (!ready) return fail(Reason::kTimedOut, "write");
      bytes = bytes.subspan(d.buffer.write(bytes));
      shared_->changed.notify_all();
    }
    return ok_status();
  }

  Status finish(Deadline) override {
    const std::lock_guard lock(shared_->mutex);
    shared_->directions[side_].finished = true;
    shared_->changed.notify_all();
    return ok_status();
  }

  void close() override {
    const std::lock_guard lock(shared_->mutex);
    shared_->closed[side_] = true;
    shared_->changed.notify_all();
  }

 private:
  std::shared_ptr<Shared> shared_;
  const int side_;
};

struct RelayState {
  std::atomic<std::uint64_t> moved{0};
  std::mutex mutex;
  Status first_error = ok_status();  // guarded by mutex
};

Status copy_one_way(ByteStream& from, ByteStream& to, const RelayLimits& limits, const Clock& clock,
                    RelayState& state) {
  Bytes buffer(16U << 10);
  std::uint64_t total = 0;
  for (;;) {
    const std::uint64_t before = state.moved.load();
    auto n = from.read(buffer, Deadline::after_ms(clock, limits.idle_ms));
    if (!n.ok()) {
      // Silence in this direction is no reason to stop while the other one moves.
      if (n.reason() == Reason::kTimedOut && state.moved.load() != before) continue;
      return n.error().at("relay");
    }
    if (*n == 0) return to.finish(Deadline::after_ms(clock, limits.write_ms));
    total += *n;
    state.moved += *n;
    if (total > limits.max_bytes) {
      return fail(Reason::kTooLarge, "relayed bytes")
          .with("at most " + std::to_string(limits.max_bytes), "more");
    }
    GBX_TRY(to.write_all(ByteView(buffer).first(*n), Deadline::after_ms(clock, limits.write_ms)));
  }
}

}  // namespace

Status read_exact(ByteStream& stream, MutableByteView out, Deadline deadline) {
  std::size_t done = 0;
  while (done < out.size()) {
    GBX_ASSIGN(const std::size_t n, stream.read(out.subspan(done), deadline));
    if (n == 0) {
      return fail(Reason::kTruncated, "the stream ended early")
          .with(std::to_string(out.size()) + " bytes", std::to_string(done) + " bytes");
    }
    done += n;
  }
  return ok_status();
}

std::size_t BoundedBuffer::write(ByteView bytes) {
  if (ring_.empty()) ring_.resize(capacity_);
  const std::size_t n = std::min(bytes.size(), room());
  const std::size_t tail = (head_ + size_) % capacity_;
  const std::size_t first = std::min(n, capacity_ - tail);
  if (first > 0) std::memcpy(ring_.data() + tail, bytes.data(), first);
  if (n > first) std::memcpy(ring_.data(), bytes.data() + first, n - first);
  size_ += n;
  return n;
}

std::size_t BoundedBuffer::read(MutableByteView out) {
  const std::size_t n = std::min(out.size(), size_);
  const std::size_t first = std::min(n, capacity_ - head_);
  if (n == 0) return 0;
  std::memcpy(out.data(), ring_.data() + head_, first);
  if (n > first) std::memcpy(out.data() + first, ring_.data(), n - first);
  head_ = (head_ + n) % capacity_;
  size_ -= n;
  return n;
}

Result<std::unique_ptr<FdStream>> FdStream::create(Fd socket) {
  return create(std::move(socket), Fd());
}

Result<std::unique_ptr<FdStream>> FdStream::create(Fd read_end, Fd write_end) {
  GBX_TRY(set_non_blocking(read_end.get()));
  if (write_end.valid()) GBX_TRY(set_non_blocking(write_end.get()));
  Fd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return io_error("eventfd", errno);
  const bool socket = !write_end.valid() && is_socket(read_end.get());
  return std::unique_ptr<FdStream>(
      new FdStream(std::move(read_end), std::move(write_end), std::move(wake), socket));
}

Status FdStream::wait(int fd, short events, Deadline deadline) const {
  for (;;) {
    if (closed_) return closed_here();
    pollfd fds[2] = {{fd, events, 0}, {wake_.get(), POLLIN, 0}};
    const auto ms = static_cast<int>(
        std::min<std::int64_t>(deadline.remaining_ms(), std::numeric_limits<int>::max()));
    const int n = poll(fds, 2, ms);
    if (n > 0) return fds[1].revents != 0 ? Status(closed_here()) : ok_status();
    if (n == 0) return fail(Reason::kTimedOut, (events & POLLIN) != 0 ? "read" : "write");
    if (errno != EINTR) return io_error("poll", errno);
  }
}

Result<std::size_t> FdStream::read(MutableByteView out, Deadline deadline) {
  if (out.empty()) return fail(Reason::kInternal, "read into nothing");
  for (;;) {
    if (closed_) return closed_here();
    const ssize_t n = ::read(read_.get(), out.data(), out.size());
    if (n == 0 && closed_) return closed_here();
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR) continue;
    if (errno == ECONNRESET) {
      return fail(Reason::kConnectionClosed, "the peer reset the connection");
    }
    if (errno != EAGAIN) return io_error("read from a stream", errno);
    GBX_TRY(wait(read_.get(), POLLIN, deadline));
  }
}

Status FdStream::write_all(ByteView bytes, Deadline deadline) {
  if (finished_) return fail(Reason::kInternal, "write after finish");
  const int fd = write_fd();
  while (!bytes.empty()) {
    if (closed_) return closed_here();
    const ssize_t n = socket_ ? ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL)
                              : write_without_sigpipe(fd, bytes);
    if (n >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) {
      return fail(Reason::kConnectionClosed, "the peer closed the stream");
    }
    if (errno != EAGAIN) return io_error("write to a stream", errno);
    GBX_TRY(wait(fd, POLLOUT, deadline));
  }
  return ok_status();
}

Status FdStream::finish(Deadline) {
  if (finished_) return ok_status();
  finished_ = true;
  if (socket_) {
    if (shutdown(read_.get(), SHUT_WR) != 0 && errno != ENOTCONN) {
      return io_error("shutdown", errno);
    }
  } else {
    write_.reset();
  }
  return ok_status();
}

void FdStream::close() {
  if (closed_.exchange(true)) return;
  const std::uint64_t one = 1;
  // SAFETY: an eventfd takes 8 bytes; it cannot be full after one write.
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
  if (socket_) shutdown(read_.get(), SHUT_RDWR);
}

std::pair<std::unique_ptr<ByteStream>, std::unique_ptr<ByteStream>> make_memory_pipe(
    std::size_t capacity) {
  auto shared = std::make_shared<MemoryStream::Shared>(capacity);
  return {std::make_unique<MemoryStream>(shared, 0), std::make_unique<MemoryStream>(shared, 1)};
}

Status relay(ByteStream& a, ByteStream& b, const RelayLimits& limits, const Clock& clock) {
  RelayState state;
  const auto one_way = [&](ByteStream& from, ByteStream& to) {
    Status s = copy_one_way(from, to, limits, clock, state);
    if (s.ok()) return;
    {
      // The error that came first is the cause; what follows are closed streams.
      const std::lock_guard lock(state.mutex);
      if (state.first_error.ok()) state.first_error = s;
    }
    a.close();
    b.close();
  };
  auto back = start_thread([&] { one_way(b, a); });
  if (!back.ok()) {
    a.close();
    b.close();
    return back.error();
  }
  one_way(a, b);
  back->join();
  return state.first_error;
}

}  // namespace gbx::channel
