#include "vm/nbd_server.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "base/threads.h"

namespace gbx::vm {

namespace {

class SocketPeer final : public NbdPeer {
 public:
  SocketPeer(int socket, int stop, int stall_ms)
      : socket_(socket), stop_(stop), stall_ms_(stall_ms) {}

  Status read(MutableByteView out, Wait wait) override {
    int patience = wait == Wait::kForTheNext ? -1 : stall_ms_;
    while (!out.empty()) {
      GBX_TRY(ready(POLLIN, patience));
      const ssize_t n = recv(socket_, out.data(), out.size(), MSG_DONTWAIT);
      if (n == 0) return closed();
      GBX_TRY(check(n));
      if (n < 0) continue;
      out = out.subspan(static_cast<std::size_t>(n));
      patience = stall_ms_;
    }
    return ok_status();
  }

  Status write(ByteView bytes) override {
    while (!bytes.empty()) {
      GBX_TRY(ready(POLLOUT, stall_ms_));
      const ssize_t n = send(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      GBX_TRY(check(n));
      if (n > 0) bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
    return ok_status();
  }

 private:
  static Error closed() { return fail(Reason::kConnectionClosed, "the volume's client has gone"); }
  Status ready(short events, int patience) const {
    for (;;) {
      pollfd p[2] = {{socket_, events, 0}, {stop_, POLLIN, 0}};
      const int n = poll(p, 2, patience);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return io_error("the volume's stream", errno);
      if (n == 0) {
        return fail(Reason::kTimedOut, "the volume's client")
            .with("to go on within " + std::to_string(patience) + " ms", "silence");
      }
      if (p[1].revents != 0) return fail(Reason::kConnectionClosed, "the volume was taken away");
      return ok_status();
    }
  }
  static Status check(ssize_t n) {
    if (n >= 0 || errno == EINTR || errno == EAGAIN) return ok_status();
    if (errno == EPIPE || errno == ECONNRESET) return closed();
    return io_error("the volume's stream", errno);
  }

  const int socket_;
  const int stop_;
  const int stall_ms_;
};

}  // namespace

struct NbdServer::Work {
  Fd socket;
  Fd stop;  // read end
  std::shared_ptr<VolumeSource> source;
  int stall_ms = 0;
  std::mutex mutex;
  std::condition_variable changed;
  bool over = false;  // guarded by mutex
  Status ended;       // written before `over` is set, read after

  void run() {
    SocketPeer peer(socket.get(), stop.get(), stall_ms);
    Status how = serve_nbd(peer, *source);
    // The machine's reads fail from here on, and do not wait.
    (void)shutdown(socket.get(), SHUT_RDWR);
    const std::scoped_lock lock(mutex);
    ended = std::move(how);
    over = true;
    changed.notify_all();
  }
};

Result<std::unique_ptr<NbdServer>> NbdServer::start(Fd socket, std::shared_ptr<VolumeSource> source,
                                                    int stall_ms) {
  auto work = std::make_shared<Work>();
  work->socket = std::move(socket);
  work->source = std::move(source);
  work->stall_ms = stall_ms;
  std::unique_ptr<NbdServer> s(new NbdServer(work));
  GBX_ASSIGN(auto stop, make_pipe());
  work->stop = std::move(stop.first);
  s->stop_ = std::move(stop.second);
  GBX_ASSIGN(s->thread_, start_thread([work] { work->run(); }));
  return s;
}

Status NbdServer::stop(int within_ms) {
  stop_.reset();
  if (!thread_.joinable()) return ok_status();
  {
    std::unique_lock lock(work_->mutex);
    const std::chrono::milliseconds patience(within_ms);
    if (!work_->changed.wait_for(lock, patience, [this] { return work_->over; })) {
      // The machine's end of it is closed already; what comes of the read goes nowhere.
      (void)shutdown(work_->socket.get(), SHUT_RDWR);
      thread_.detach();
      return fail(Reason::kTimedOut, "a read of the volume's storage")
          .with("its end within " + std::to_string(within_ms) + " ms", "it goes on")
          .hint("look at the storage of ciphertext; the node goes on without this read");
    }
  }
  thread_.join();
  return ok_status();
}

Status NbdServer::wait() {
  if (thread_.joinable()) thread_.join();
  return work_->ended;
}

NbdServer::~NbdServer() { (void)stop(); }

}  // namespace gbx::vm
