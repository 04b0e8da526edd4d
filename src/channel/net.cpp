#include "channel/net.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <vector>

#include "base/threads.h"

namespace gbx::channel {
namespace {

constexpr int kBacklog = 128;

// SAFETY: the socket interface takes every address through sockaddr*.
template <class Address>
sockaddr* generic(Address& a) {
  return reinterpret_cast<sockaddr*>(&a);
}

struct ResolvedAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

Result<ResolvedAddress> resolve(const TcpAddress& address) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int rc =
      getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found);
  if (rc != 0 || found == nullptr) {
    return fail(Reason::kUnavailable, "resolve " + address.host)
        .with("an address", gai_strerror(rc));
  }
  ResolvedAddress out;
  out.size = found->ai_addrlen;
  std::memcpy(&out.storage, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return out;
}

Result<Fd> new_socket(int family) {
  Fd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return io_error("socket", errno);
  return fd;
}

Status finish_connect(int fd, const sockaddr* address, socklen_t size, const std::string& where,
                      Deadline deadline) {
  if (connect(fd, address, size) == 0) return ok_status();
  if (errno != EINPROGRESS && errno != EINTR) {
    return fail(Reason::kUnavailable, "connect to " + where)
        .with("a listening server", std::strerror(errno));
  }
  pollfd p{fd, POLLOUT, 0};
  for (;;) {
    const int n =
        poll(&p, 1, static_cast<int>(std::min<std::int64_t>(deadline.remaining_ms(), 1 << 30)));
    if (n == 0) return fail(Reason::kTimedOut, "connect to " + where);
    if (n > 0) break;
    if (errno != EINTR) return io_error("poll", errno);
  }
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
    return io_error("getsockopt", errno);
  }
  if (error != 0) {
    return fail(Reason::kUnavailable, "connect to " + where)
        .with("a listening server", std::strerror(error));
  }
  return ok_status();
}

void no_delay(int fd) {
  const int on = 1;
  // It is only speed.
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Result<TcpAddress> TcpAddress::from_text(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  const auto bad = [&] {
    return fail(Reason::kBadValue, "address").with("host:port or [v6]:port", std::string(text));
  };
  if (colon == std::string_view::npos || colon == 0) return bad();
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  TcpAddress a;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), a.port);
  if (error != std::errc() || end != port.data() + port.size()) return bad();
  if (host.front() == '[') {
    if (host.size() < 3 || host.back() != ']') return bad();
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad();
  }
  a.host = std::string(host);
  return a;
}

std::string TcpAddress::text() const {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<Listener> listen_tcp(const TcpAddress& address) {
  GBX_ASSIGN(ResolvedAddress to, resolve(address));
  GBX_ASSIGN(Fd fd, new_socket(to.storage.ss_family));
  const int on = 1;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
    return io_error("setsockopt", errno);
  }
  if (bind(fd.get(), generic(to.storage), to.size) != 0) {
    return io_error("bind " + address.text(), errno)
        .hint("choose another port or stop what listens there");
  }
  if (listen(fd.get(), kBacklog) != 0) return io_error("listen", errno);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (getsockname(fd.get(), generic(bound), &size) != 0) return io_error("getsockname", errno);
  // SAFETY: ss_family says which of the two structures this is.
  const std::uint16_t port = bound.ss_family == AF_INET6
                                 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                 : reinterpret_cast<sockaddr_in&>(bound).sin_port;
  return Listener{std::move(fd), ntohs(port)};
}

Result<std::unique_ptr<FdStream>> connect_tcp(const TcpAddress& address, Deadline deadline) {
  GBX_ASSIGN(ResolvedAddress to, resolve(address));
  GBX_ASSIGN(Fd fd, new_socket(to.storage.ss_family));
  GBX_TRY(finish_connect(fd.get(), generic(to.storage), to.size, address.text(), deadline));
  no_delay(fd.get());
  return FdStream::create(std::move(fd));
}

ConnectionServer::ConnectionServer(Listener listener, Fd wake, std::size_t max_connections,
                                   std::optional<StrangerLimits> strangers, CautiousHandler handler)
    : listener_(std::move(listener)),
      wake_(std::move(wake)),
      max_connections_(max_connections),
      strangers_(strangers),
      handler_(std::move(handler)) {}

Result<std::unique_ptr<ConnectionServer>> ConnectionServer::start(Listener listener,
                                                                  std::size_t max_connections,
                                                                  Handler handler) {
  return run(std::move(listener), max_connections, std::nullopt,
             [handler = std::move(handler)](FdStream& stream, const Known&) { handler(stream); });
}

Result<std::unique_ptr<ConnectionServer>> ConnectionServer::start(Listener listener,
                                                                  std::size_t max_connections,
                                                                  StrangerLimits strangers,
                                                                  CautiousHandler handler) {
  return run(std::move(listener), max_connections, strangers, std::move(handler));
}

Result<std::unique_ptr<ConnectionServer>> ConnectionServer::run(
    Listener listener, std::size_t max_connections, std::optional<StrangerLimits> strangers,
    CautiousHandler handler) {
  Fd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.valid()) return io_error("eventfd", errno);
  std::unique_ptr<ConnectionServer> server(new ConnectionServer(
      std::move(listener), std::move(wake), max_connections, strangers, std::move(handler)));
  ConnectionServer* self = server.get();
  server->acceptor_ = std::thread([self] { self->accept_loop(); });
  return server;
}

ConnectionServer::~ConnectionServer() { stop(); }

std::size_t ConnectionServer::active() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(
      std::ranges::count_if(connections_, [](const Connection& c) { return !c.done; }));
}

void ConnectionServer::accept_loop() {
  constexpr int kReapMs = 1000;  // finished threads wait no longer than this to be joined
  constexpr int kPauseMs = 50;   // after accept failed for want of descriptors or memory
  while (!stopping_) {
    pollfd fds[2] = {{listener_.fd.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    const int n = poll(fds, 2, kReapMs);
    cut_overdue();
    reap();
    if (n <= 0 || fds[1].revents != 0) continue;
    Fd fd(accept4(listener_.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd.valid()) {
      admit(std::move(fd));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      pollfd wake{wake_.get(), POLLIN, 0};
      poll(&wake, 1, kPauseMs);
    }
  }
}

void ConnectionServer::make_room() {
  if (!strangers_) return;
  std::vector<Connection*> there;
  for (Connection& c : connections_) {
    if (!c.known && !c.cut && !c.done) there.push_back(&c);
  }
  if (there.empty() || there.size() < strangers_->most) return;
  Connection& one = *there[random_.below(there.size())];
  one.cut = true;
  one.stream->close();
}

void ConnectionServer::cut_overdue() {
  if (!strangers_) return;
  const std::lock_guard lock(mutex_);
  const std::int64_t now = strangers_->clock->steady_ms();
  for (Connection& c : connections_) {
    if (c.known || c.cut || c.done || now - c.since_ms < strangers_->longest_ms) continue;
    c.cut = true;
    c.stream->close();
  }
}

void ConnectionServer::admit(Fd fd) {
  const std::lock_guard lock(mutex_);
  make_room();
  const auto busy = static_cast<std::size_t>(
      std::ranges::count_if(connections_, [](const Connection& c) { return !c.done; }));
  if (stopping_ || busy >= max_connections_) {
    ++refused_;
    return;  // closes it
  }
  no_delay(fd.get());
  auto stream = FdStream::create(std::move(fd));
  if (!stream.ok()) {
    ++refused_;
    return;
  }
  Connection& c = connections_.emplace_back();
  c.stream = std::move(*stream);
  c.known = !strangers_;
  if (strangers_) c.since_ms = strangers_->clock->steady_ms();
  auto thread = start_thread([this, &c] {
    handler_(*c.stream, [this, &c] {
      const std::lock_guard inner(mutex_);
      c.known = true;
    });
    c.stream->close();
    const std::lock_guard inner(mutex_);
    c.done = true;
  });
  if (thread.ok()) {
    c.thread = std::move(*thread);
  } else {  // refused like one too many
    connections_.pop_back();
    ++refused_;
  }
}

void ConnectionServer::reap() {
  std::list<Connection> finished;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = connections_.begin(); it != connections_.end();) {
      const auto next = std::next(it);
      if (it->done) finished.splice(finished.end(), connections_, it);
      it = next;
    }
  }
  for (Connection& c : finished) c.thread.join();
}

void ConnectionServer::stop() {
  stopping_ = true;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
  if (acceptor_.joinable()) acceptor_.join();
  std::list<Connection> rest;
  {
    const std::lock_guard lock(mutex_);
    for (Connection& c : connections_) c.stream->close();
    rest.splice(rest.end(), connections_);
  }
  for (Connection& c : rest) c.thread.join();
  listener_.fd.reset();
}

}  // namespace gbx::channel
