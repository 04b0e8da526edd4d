// The plane's one connection to the broker: TLS pinned to the key set's TLS key, reconnecting by itself. Every method of
// the broker that is called here is idempotent, so that a call on a connection that turned out dead is made once more.
// Answers are untrusted until their signatures were checked.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "channel/net.h"
#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::plane {

class Broker {
 public:
  virtual ~Broker() = default;
  // Thread-safe. kUnavailable and the like when there is no answer; else the broker's own error.
  virtual Result<Json> call(std::string_view method, const Json& body) = 0;
  virtual bool connected() const = 0;
};

struct BrokerLinkOptions {
  const Clock* clock = nullptr;
  channel::TcpAddress address;
  const crypto::SigningKey* key = nullptr;  // of the plane
  crypto::PublicKey broker_key;             // of the set's present epoch
  std::int64_t timeout_ms = 20'000;
};

class BrokerLink final : public Broker {
 public:
  explicit BrokerLink(BrokerLinkOptions options) : options_(std::move(options)) {}
  Result<Json> call(std::string_view method, const Json& body) override;
  bool connected() const override { return connected_; }

 private:
  Status connect();
  void disconnect();

  const BrokerLinkOptions options_;
  std::atomic<bool> connected_{false};
  std::mutex mutex_;
  // Guarded by mutex_; destroyed in reverse order.
  std::int64_t not_before_ms_ = 0;  // the next attempt to connect
  std::int64_t pause_ms_ = 0;
  std::unique_ptr<channel::FdStream> stream_;
  std::unique_ptr<channel::TlsChannel> tls_;
  std::unique_ptr<channel::RpcClient> client_;
};

}  // namespace gbx::plane
