#include "vm/nbd_server.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

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

Result<std::unique_ptr<NbdServer>> NbdServer::start(Fd socket, std::shared_ptr<VolumeSource> source,
                                                    int stall_ms) {
  std::unique_ptr<NbdServer> s(new NbdServer(std::move(socket), std::move(source), stall_ms));
  GBX_ASSIGN(s->stop_, make_pipe());
  GBX_ASSIGN(s->thread_, start_thread([server = s.get()] { server->run(); }));
  return s;
}

void NbdServer::run() {
  SocketPeer peer(socket_.get(), stop_.first.get(), stall_ms_);
  ended_ = serve_nbd(peer, *source_);
  // The machine's reads fail from here on, and do not wait.
  (void)shutdown(socket_.get(), SHUT_RDWR);
}

void NbdServer::stop() {
  stop_.second.reset();
  if (thread_.joinable()) thread_.join();
}

Status NbdServer::wait() {
  if (thread_.joinable()) thread_.join();
  return ended_;
}

NbdServer::~NbdServer() { stop(); }

}  // namespace gbx::vm
