// The command line's HTTPS client: synchronous, TLS 1.3 only, trusting exactly one CA certificate
// and the host name or IP address that it was given. One connection, reused. What the server sends
// is untrusted: sizes are bounded, error bodies come back as gbx::Error. Requests that may be
// repeated are repeated a few times, each signed anew. Not thread-safe: one Client per thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/json.h"
#include "base/seams.h"
#include "crypto/keys.h"

namespace gbx::cli::http {

struct ClientOptions {
  std::string host;  // DNS name or IP address; the certificate must name it
  std::uint16_t port = 0;
  Bytes ca_der;
  // Unset: requests are not signed. The key outlives the client.
  const crypto::SigningKey* signing_key = nullptr;
  Hash32 identity{};
  Hash32 set_id{};                           // of the installation that the requests are for
  std::int64_t connect_timeout_ms = 10'000;  // TCP and TLS together
  // from the last byte sent to the header of the answer
  std::int64_t response_timeout_ms = 130'000;
  std::int64_t progress_timeout_ms = 60'000;  // for each piece of a body
  std::uint64_t max_body_bytes = 16U << 20;   // of an answer that is kept in memory
  int attempts = 4;                           // in all
  // doubles, with jitter, at most 2 s; Retry-After at most 10 s
  std::int64_t backoff_ms = 100;
  std::function<void(std::int64_t ms)> sleep;  // for tests; empty: really sleeps
};

struct Call {
  std::string method = "GET";
  std::string target;  // "/v1/jobs?limit=10", already escaped
  Bytes body;
  std::string content_type = "application/json";
  // lower-case names; "idempotency-key" makes a POST repeatable
  std::map<std::string, std::string> headers;
};
struct Reply {
  int status = 0;
  std::map<std::string, std::string> headers;  // lower-case names
  Bytes body;
};
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;  // total 0: unknown
using Sink = std::function<Status(ByteView)>;  // an error ends the transfer and is returned

class Client {
 public:
  static Result<std::unique_ptr<Client>> create(ClientOptions options, const Clock& clock,
                                                Random& random);
  ~Client();

  // An answer of 2xx. Errors: what the server's error body says; kUnavailable (no connection, or no
  // answer in time), kConnectionClosed, kPlaneUntrusted (not the server that we trust), kBadJson
  // (no HTTP), kTooLarge.
  Result<Reply> send(const Call& call);
  // The same with JSON both ways; an empty answer is null.
  Result<Json> json(const std::string& method, const std::string& target,
                    const std::optional<Json>& body = std::nullopt,
                    const std::string& idempotency_key = {});
  // PUT of `size` bytes of a seekable descriptor from offset 0, in bounded memory. It is read once
  // more beforehand for its hash, unless that is given.
  Result<Reply> upload(const std::string& target, int fd, std::uint64_t size,
                       std::optional<Hash32> sha256 = std::nullopt, Progress progress = {});
  // GET into `sink`, in bounded memory, at most max_bytes. Returns the number of bytes. Not
  // repeated once the sink has got a byte. The bytes are as trustworthy as the server: callers
  // check hashes.
  Result<std::uint64_t> download(const std::string& target, const Sink& sink,
                                 std::uint64_t max_bytes, Progress progress = {});

  std::uint64_t connections_made() const;

 private:
  struct Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// One path segment or query value: everything but unreserved characters becomes %XX.
std::string percent_encode(std::string_view text);

}  // namespace gbx::cli::http
