// Where nodes connect: framed calls over TLS 1.3; a node is its TLS key, which an operator
// enrolled. One thread each.
#pragma once

#include <memory>

#include "base/bundle_size.h"
#include "base/log.h"
#include "channel/net.h"
#include "channel/rpc.h"
#include "channel/shares.h"
#include "plane/core/core.h"

namespace gbx::plane {

struct NodeEndpointOptions {
  channel::TcpAddress listen;
  std::size_t connections = 256;
  std::size_t strangers = 64;  // who have not proved an enrolled key
  std::int64_t stranger_ms = 10'000;
  std::size_t frame_bytes = kSealedBundleFrameBytes;
  // Of one node: at any time it waits in a poll and a heartbeat, and tells of each of its attempts.
  channel::ShareLimits requests{.burst = 1'000, .per_second = 50, .at_one_time = 64};
  channel::ShareLimits places{.burst = 200, .per_second = 10, .at_one_time = 64};
};

class NodeEndpoint {
 public:
  // All references outlive the endpoint.
  static Result<std::unique_ptr<NodeEndpoint>> start(const NodeEndpointOptions& options, Core& core,
                                                     const crypto::SigningKey& key,
                                                     const Clock& clock, const Logger& log);
  std::uint16_t port() const { return server_->port(); }
  void stop();

 private:
  NodeEndpoint(Core& core, const crypto::SigningKey& key, const Clock& clock, const Logger& log,
               const NodeEndpointOptions& options)
      : core_(core),
        key_(key),
        clock_(clock),
        log_(log),
        frame_bytes_(options.frame_bytes),
        requests_(options.requests),
        places_(options.places) {}
  void serve(channel::FdStream& stream, const channel::ConnectionServer::Known& known);
  Result<Json> dispatch(const crypto::PublicKey& node, std::string_view method, const Json& body);
  Result<Json> heartbeat(const crypto::PublicKey& node, const records::Heartbeat& beat);
  Result<Json> poll(const crypto::PublicKey& node, const records::PollRequest& request);

  Core& core_;
  const crypto::SigningKey& key_;
  const Clock& clock_;
  const Logger& log_;
  const std::size_t frame_bytes_;
  channel::Shares requests_;
  channel::Shares places_;  // connections of one node
  std::atomic<bool> stopping_{false};
  std::unique_ptr<channel::ConnectionServer> server_;
};

}  // namespace gbx::plane
