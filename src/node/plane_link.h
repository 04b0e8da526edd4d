// The node's connection to its plane: calls over TLS that reconnect by themselves. The plane is not
// trusted with anything but work to do; its key is pinned so that nobody else hands out work in its
// name.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "channel/net.h"
#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::node {

struct LinkOptions {
  const Clock* clock = nullptr;
  channel::TcpAddress address;
  const crypto::SigningKey* key = nullptr;     // the node's
  std::optional<crypto::PublicKey> plane_key;  // pinned
};

// What a node asks its plane; a test has another answer. Thread-safe.
class PlaneCalls {
 public:
  virtual ~PlaneCalls() = default;
  // The plane's answer, or its error, or why there is none.
  virtual Result<Json> call(std::string_view method, const Json& body, std::int64_t timeout_ms) = 0;
};
// What a wait of so many milliseconds comes to; a test, whose time is its own, makes it short.
using Waits = std::function<std::int64_t(std::int64_t ms)>;
inline std::int64_t wait_in_full(std::int64_t ms) { return ms; }

// One call at a time.
class PlaneLink final : public PlaneCalls {
 public:
  explicit PlaneLink(LinkOptions options) : options_(std::move(options)) {}
  // Connects where needed and tries once more on a connection that turned out dead: every node
  // method is idempotent. kUnavailable when nothing answered; any other error but kTooLarge is the
  // plane's answer.
  Result<Json> call(std::string_view method, const Json& body, std::int64_t timeout_ms) override;

 private:
  Status connect();
  LinkOptions options_;
  std::mutex mutex_;
  // Guarded by mutex_; destroyed in reverse order.
  std::unique_ptr<channel::FdStream> stream_;
  std::unique_ptr<channel::TlsChannel> tls_;
  std::unique_ptr<channel::RpcClient> client_;
};

}  // namespace gbx::node
