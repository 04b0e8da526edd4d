// For tests: a client that says exactly what it is told, well-formed or not. Blocking, with a
// deadline on every wait.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace gbx::plane::http {

struct RawAnswer {
  int status = 0;
  std::string head;
  std::string body;
};

class RawClient {
 public:
  enum class Tls { k13, k12, kNone };
  // Null when connecting or the handshake fails. Any certificate is accepted.
  static std::unique_ptr<RawClient> connect(std::uint16_t port, Tls tls = Tls::k13);
  ~RawClient();
  bool send(std::string_view bytes);
  // One answer with a content-length or chunked (undecoded); empty when the server closes or says
  // nothing in time.
  std::optional<RawAnswer> read(std::int64_t timeout_ms = 10'000, bool head_only = false);
  // True when the server closes within the time.
  bool closes_within(std::int64_t timeout_ms);

 private:
  struct Impl;
  explicit RawClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gbx::plane::http
