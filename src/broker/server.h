// The broker on a socket: TLS 1.3 connections, a thread each, one core behind one mutex.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "base/log.h"
#include "broker/core.h"
#include "broker/custody.h"
#include "channel/net.h"
#include "channel/rpc.h"
#include "channel/shares.h"

namespace gbx::broker {

struct ServerOptions {
  channel::TcpAddress listen;
  // whoever proves it may pass on what people signed; empty: nobody
  std::optional<crypto::PublicKey> plane;
  std::size_t max_connections = 512;
  // Whoever neither proved the plane's key nor attested for a job. Keys of one's own are free, so
  // they count for nothing.
  std::size_t max_strangers = 64;
  std::int64_t stranger_ms = 30'000;
  // An agent is silent while its container runs.
  std::int64_t idle_ms = 2 * 3600 * 1000;
  std::int64_t keyless_idle_ms = 10'000;
  // Of one key that is not the plane's; all peers without a key have one share together. An honest
  // agent asks six times and connects again when a connection breaks.
  channel::ShareLimits requests{.burst = 100, .per_second = 25, .at_one_time = 16};
  channel::ShareLimits connections{.burst = 100, .per_second = 25, .at_one_time = 16};
  std::int64_t stranger_log_ms = 60'000;  // one line about all of them in so long
};

class Server {
 public:
  // Everything given must outlive the server. `on_failure` runs once, from some thread, when the
  // core can no longer answer (Core::ended_by) and whoever asked last was told; the program then
  // ends.
  static Result<std::unique_ptr<Server>> start(const ServerOptions& options, Core& core,
                                               const crypto::SigningKey& tls_key,
                                               const Clock& clock, const Logger& logger,
                                               std::function<void()> on_failure);
  ~Server() { stop(); }
  std::uint16_t port() const { return server_->port(); }
  void stop();

 private:
  Server(const ServerOptions& options, Core& core, const crypto::SigningKey& tls_key,
         const Clock& clock, const Logger& logger, std::function<void()> on_failure)
      : options_(options),
        core_(core),
        tls_key_(tls_key),
        clock_(clock),
        logger_(logger),
        on_failure_(std::move(on_failure)),
        requests_(options.requests),
        connections_(options.connections) {}
  void connection(channel::FdStream& stream, const channel::ConnectionServer::Known& known);
  channel::ServeLimits limits_for(const ConnectionContext& context) const;
  // `last`: set when the core failed in this request, and nobody else will say so.
  Result<Json> dispatch(std::string_view method, const Json& body, const ConnectionContext& context,
                        bool* last);
  // Of a request: the log has a line for each of those who are known.
  void refused(std::string_view method, const Error& error, bool stranger);
  void stranger_failed(const Error& error);

  const ServerOptions options_;
  Core& core_;
  const crypto::SigningKey& tls_key_;
  const Clock& clock_;
  const Logger& logger_;
  const std::function<void()> on_failure_;
  channel::Shares requests_;
  channel::Shares connections_;
  std::atomic<std::uint64_t> last_id_{0};
  std::mutex mutex_;     // guards core_ and failed_
  bool failed_ = false;  // on_failure_ was or will be called
  std::unique_ptr<channel::ConnectionServer> server_;
  std::mutex strangers_mutex_;
  std::int64_t strangers_failed_ = 0;              // guarded by strangers_mutex_: not told yet
  std::optional<std::int64_t> strangers_told_ms_;  // guarded by strangers_mutex_
};

}  // namespace gbx::broker
