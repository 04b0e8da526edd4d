// The plane's HTTPS server: TLS 1.3 only, HTTP/1.1 with keep-alive, every size, wait, queue and
// count bounded. Connections are coroutines, one strand each, on a few I/O threads; handlers are
// plain functions on two bounded pools (calls, and streamed transfers, so that slow uploads never
// starve calls). Input is untrusted throughout.
#pragma once

#include <memory>

#include "base/log.h"
#include "base/secret.h"
#include "plane/http/message.h"

namespace gbx::plane::http {

// Called on a pool thread; must not keep references into the Request. Exceptions become 500.
using Handler = std::function<Response(const Request&)>;

// What may come as the body of a request, decided from its header before a byte of it is read.
struct BodyPlan {
  std::uint64_t max_bytes = 0;
  bool streaming = false;
  std::optional<Response> refuse;  // answer at once, e.g. 404 or 405
};
// Called on an I/O thread: quick, no locks, no I/O. `body` and `stream` of the Request are empty.
using Planner = std::function<BodyPlan(const Request&)>;

struct Limits {
  std::size_t header_bytes = 16U << 10;
  std::uint64_t json_body_bytes = 4U << 20;  // without a planner
  std::size_t buffered_bytes = 128U << 20;   // all whole bodies in memory together
  std::size_t pipe_bytes = 256U << 10;       // per streamed upload
  std::size_t chunk_bytes = 64U << 10;
  std::int64_t header_timeout_ms = 10'000;  // TLS handshake, and request header
  std::int64_t idle_timeout_ms = 60'000;    // between requests, and without any progress
  std::int64_t handler_timeout_ms = 120'000;
  std::int64_t body_grace_ms = 10'000;              // then at least:
  std::uint64_t body_bytes_per_second = 16U << 10;  // both ways
  // While others wait for a thread of the transfers, an upload must be faster than this, and the
  // whole of it counts.
  std::int64_t crowded_grace_ms = 30'000;
  std::uint64_t crowded_bytes_per_second = 256U << 10;
  // an early answer: discard what still comes for so long
  std::int64_t linger_ms = 3'000;
  std::int64_t stop_grace_ms = 5'000;
  std::size_t connections = 1024;
  // Per IPv4 address or IPv6 /64. When these or those in all are taken, the oldest connection gives
  // way that never had a request of a known caller and has no handler at work.
  std::size_t connections_per_peer = 256;
  std::size_t requests_per_connection = 10'000;
  std::size_t strange_requests_per_connection = 16;  // of callers that are not known
  std::size_t call_threads = 4;
  std::size_t call_queue = 256;
  std::size_t transfer_threads = 4;
  std::size_t transfer_queue = 32;
  std::size_t io_threads = 2;
};

struct ServerOptions {
  std::string bind_address = "127.0.0.1";
  std::uint16_t port = 0;  // 0: any free port
  Bytes certificate_der;
  std::vector<Bytes> chain_der;  // intermediates, when there are any
  SecretBuffer key_pkcs8_der;
  Limits limits;
  Planner planner;              // empty: every request may carry json_body_bytes
  const Logger* log = nullptr;  // outlives the server
};

struct ServerStats {
  std::uint64_t connections_open = 0;
  std::uint64_t connections_refused = 0;
  std::uint64_t handshakes_failed = 0;
  std::uint64_t requests = 0;
  std::uint64_t requests_shed = 0;  // 503 because a queue or the body budget was full
  std::uint64_t answers_4xx = 0;
  std::uint64_t answers_5xx = 0;
};

class Server {
 public:
  // Errors: kUsage (address), kIo (bind), kCrypto (certificate or key).
  static Result<std::unique_ptr<Server>> start(ServerOptions options, Handler handler);
  struct Core;  // hidden; public only so that the free functions of server.cpp can name it
  ~Server();
  std::uint16_t port() const;
  ServerStats stats() const;
  // Closes idle connections, lets running requests end within stop_grace_ms, then cuts. Idempotent.
  void stop();

 private:
  explicit Server(std::unique_ptr<Core> core);
  std::unique_ptr<Core> core_;
};

}  // namespace gbx::plane::http
