// The plane's one connection to the broker: TLS pinned to the key set's TLS key, reconnecting by
// itself. On each new one the broker is first shown the newest head of its log that this plane has
// seen, and after every answer that may rest on new entries the head is asked for and kept. Every
// method of the broker that is called here is idempotent, so that a call on a connection that
// turned out dead is made once more. Answers are untrusted until their signatures were checked.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/seams.h"
#include "channel/net.h"
#include "channel/rpc.h"
#include "channel/tls.h"
#include "plane/core/core.h"
#include "records/messages.h"

namespace gbx::plane {

class Broker {
 public:
  virtual ~Broker() = default;
  // Thread-safe. kUnavailable and the like when there is no answer; else the broker's own error.
  virtual Result<Json> call(std::string_view method, const Json& body) = 0;
  virtual bool connected() const = 0;
  // Why the broker does not serve this plane, for anybody to read: no sizes, no keys. Empty when
  // nothing is known beyond connected().
  virtual std::string trouble() const = 0;
};

struct BrokerLinkOptions {
  const Clock* clock = nullptr;
  channel::TcpAddress address;
  const crypto::SigningKey* key = nullptr;  // of the plane
  crypto::PublicKey broker_key;             // of the set's present epoch
  Core* heads = nullptr;                    // keeps the newest head of the broker's log
  std::int64_t timeout_ms = 20'000;
  std::int64_t probe_timeout_ms = 5'000;
};

class BrokerLink final : public Broker {
 public:
  explicit BrokerLink(BrokerLinkOptions options) : options_(std::move(options)) {}
  Result<Json> call(std::string_view method, const Json& body) override;
  bool connected() const override { return connected_; }
  std::string trouble() const override;
  // Asks for evidence and for the head of the log, so that connected() says how it is now and not
  // how it was at the last request, and a head is never long unseen.
  Status probe(const Nonce32& nonce);

 private:
  Result<Json> call_within(std::string_view method, const Json& body, std::int64_t timeout_ms);
  Status connect();
  Status open();
  Status resume();
  Status take_head();
  Status keep(const Result<Json>& head);
  // Nobody's fault but the installation's: what waits for the broker waits on. Names no sizes:
  // whoever asks the plane may read it.
  Error refused(const Error& why);
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
  mutable std::mutex trouble_mutex_;
  std::string trouble_;  // guarded by trouble_mutex_: of the last refusal, until the broker goes on
};

// Probes on a thread of its own, from its construction until it is destroyed.
class BrokerProbe {
 public:
  // Both outlive the object.
  BrokerProbe(BrokerLink& link, Random& random, std::int64_t period_ms);
  ~BrokerProbe();
  BrokerProbe(const BrokerProbe&) = delete;
  BrokerProbe& operator=(const BrokerProbe&) = delete;

 private:
  BrokerLink& link_;
  Random& random_;
  const std::int64_t period_ms_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace gbx::plane
