#include "plane/http/raw_client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/os.h"
#include "base/seams.h"

namespace gbx::plane::http {

struct RawClient::Impl {
  Fd fd;
  SSL_CTX* ctx = nullptr;
  SSL* ssl = nullptr;
  std::string pending;

  ~Impl() {
    SSL_free(ssl);
    SSL_CTX_free(ctx);
  }
  // More bytes into `pending`; false at the end, on an error or when nothing comes in time.
  bool fill(std::int64_t timeout_ms) {
    timeval t{timeout_ms / 1000, timeout_ms % 1000 * 1000};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    char buffer[16384];
    const ssize_t n = ssl != nullptr ? SSL_read(ssl, buffer, sizeof buffer)
                                     : recv(fd.get(), buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    pending.append(buffer, static_cast<std::size_t>(n));
    return true;
  }
};

RawClient::RawClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RawClient::~RawClient() = default;

std::unique_ptr<RawClient> RawClient::connect(std::uint16_t port, Tls tls) {
  signal(SIGPIPE, SIG_IGN);  // SSL_write has no MSG_NOSIGNAL
  auto impl = std::make_unique<Impl>();
  impl->fd = Fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // SAFETY: the socket API takes every address type through this one.
  if (::connect(impl->fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return nullptr;
  }
  timeval t{10, 0};
  setsockopt(impl->fd.get(), SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
  setsockopt(impl->fd.get(), SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
  const int on = 1;
  setsockopt(impl->fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (tls != Tls::kNone) {
    impl->ctx = SSL_CTX_new(TLS_client_method());
    if (tls == Tls::k12) SSL_CTX_set_max_proto_version(impl->ctx, TLS1_2_VERSION);
    impl->ssl = SSL_new(impl->ctx);
    SSL_set_fd(impl->ssl, impl->fd.get());
    if (SSL_connect(impl->ssl) != 1) return nullptr;
  }
  return std::unique_ptr<RawClient>(new RawClient(std::move(impl)));
}

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const int want = static_cast<int>(std::min<std::size_t>(bytes.size(), 16384));
    const ssize_t n = impl_->ssl != nullptr ? SSL_write(impl_->ssl, bytes.data(), want)
                                            : ::send(impl_->fd.get(), bytes.data(),
                                                     static_cast<std::size_t>(want), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

std::optional<RawAnswer> RawClient::read(std::int64_t timeout_ms, bool head_only) {
  std::string& in = impl_->pending;
  while (in.find("\r\n\r\n") == std::string::npos) {
    if (!impl_->fill(timeout_ms)) return std::nullopt;
  }
  const std::size_t end = in.find("\r\n\r\n") + 4;
  RawAnswer out;
  out.head = in.substr(0, end);
  in.erase(0, end);
  if (out.head.size() < 12) return std::nullopt;
  out.status = std::atoi(out.head.c_str() + 9);
  const std::size_t at = out.head.find("content-length: ");
  if (head_only || at == std::string::npos) return out;
  const auto length = static_cast<std::size_t>(std::atoll(out.head.c_str() + at + 16));
  while (in.size() < length) {
    if (!impl_->fill(timeout_ms)) return std::nullopt;
  }
  out.body = in.substr(0, length);
  in.erase(0, length);
  return out;
}

bool RawClient::closes_within(std::int64_t timeout_ms) {
  const SystemClock clock;
  const std::int64_t deadline = clock.steady_ms() + timeout_ms;
  for (std::int64_t left = timeout_ms; left > 0; left = deadline - clock.steady_ms()) {
    impl_->pending.clear();
    if (!impl_->fill(left)) return clock.steady_ms() < deadline;
  }
  return false;
}

}  // namespace gbx::plane::http
