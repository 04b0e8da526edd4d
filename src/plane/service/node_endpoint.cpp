#include "plane/service/node_endpoint.h"

#include <algorithm>

#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::plane {

using namespace records;

Result<std::unique_ptr<NodeEndpoint>> NodeEndpoint::start(const NodeEndpointOptions& options,
                                                          Core& core, const crypto::SigningKey& key,
                                                          const Clock& clock, const Logger& log) {
  GBX_ASSIGN(channel::Listener listener, channel::listen_tcp(options.listen));
  std::unique_ptr<NodeEndpoint> endpoint(new NodeEndpoint(core, key, clock, log, options));
  NodeEndpoint* self = endpoint.get();
  const auto serve = [self](channel::FdStream& s, const auto& known) { self->serve(s, known); };
  GBX_ASSIGN(endpoint->server_, channel::ConnectionServer::start(
                                    std::move(listener), options.connections,
                                    {&clock, options.strangers, options.stranger_ms}, serve));
  return endpoint;
}

void NodeEndpoint::stop() {
  stopping_ = true;
  server_->stop();
}

void NodeEndpoint::serve(channel::FdStream& stream, const channel::ConnectionServer::Known& known) {
  channel::TlsOptions tls;
  tls.clock = &clock_;
  tls.key = &key_;
  tls.peer = channel::PeerPolicy::check(
      [this](const crypto::PublicKey& key) { return core_.check_node(key); });
  auto opened = channel::TlsChannel::server(stream, tls);
  if (!opened.ok()) {
    log_.warn("node-refused", {{"what", printable(opened.error().line())}});
    return;
  }
  const crypto::PublicKey node = *opened->peer_key();
  const Hash32 who = crypto::sha256(as_bytes(node.text()));
  auto place = places_.enter(who, 1, clock_.steady_ms());
  if (!place.ok()) {
    log_.warn("node-refused", {{"node", node.text()}, {"what", printable(place.error().line())}});
    return;
  }
  known();
  channel::ServeLimits limits;
  limits.max_frame_bytes = frame_bytes_;
  limits.idle_ms = 600'000;
  limits.max_frames = 100'000'000;
  limits.max_bytes = std::uint64_t{1} << 44;
  const Status s = channel::serve(
      *opened,
      [&](std::string_view method, const Json& body) -> Result<Json> {
        GBX_ASSIGN(const auto share, requests_.enter(who, 1, clock_.steady_ms()));
        return dispatch(node, method, body);
      },
      limits, clock_);
  if (!s.ok() && !stopping_) {
    log_.warn("node-connection-ended",
              {{"node", node.text()}, {"what", printable(s.error().line())}});
  }
}

Result<Json> NodeEndpoint::poll(const crypto::PublicKey& node, const PollRequest& request) {
  const std::int64_t until = clock_.steady_ms() + std::min<std::int64_t>(request.wait_ms, 30'000);
  for (;;) {
    const std::uint64_t seen = core_.version();
    GBX_ASSIGN(std::optional<LaunchBundle> work, core_.poll(node));
    const std::int64_t left = until - clock_.steady_ms();
    if (work || left <= 0 || stopping_) return to_json(PollReply{std::move(work)});
    GBX_ASSIGN(const std::optional<std::int64_t> room, core_.room_at_ms(node));
    const std::int64_t wait =
        room ? std::clamp<std::int64_t>(*room - clock_.now().ms, 1, 500) : 500;
    (void)core_.wait(seen, std::min(left, wait));
  }
}

Result<Json> NodeEndpoint::heartbeat(const crypto::PublicKey& node, const Heartbeat& beat) {
  const std::int64_t until = clock_.steady_ms() + std::min<std::int64_t>(beat.wait_ms, 30'000);
  for (;;) {
    const std::uint64_t seen = core_.version();
    GBX_ASSIGN(NodeLease lease, core_.heartbeat(node, beat));
    const std::int64_t left = until - clock_.steady_ms();
    if (!lease.stop.empty() || left <= 0 || stopping_) return to_json(lease);
    (void)core_.wait(seen, std::min<std::int64_t>(left, 500));
  }
}

Result<Json> NodeEndpoint::dispatch(const crypto::PublicKey& node, std::string_view method,
                                    const Json& body) {
  if (method == method::kNodeRegister) {
    GBX_ASSIGN(NodeInfo info, from_json<NodeInfo>(body));
    GBX_ASSIGN(NodeLease lease, core_.register_node(node, info));
    log_.info("node-registered", {{"name", printable(info.name)}, {"key", node.text()}});
    return to_json(lease);
  }
  if (method == method::kNodeHeartbeat) {
    GBX_ASSIGN(Heartbeat beat, from_json<Heartbeat>(body));
    return heartbeat(node, beat);
  }
  if (method == method::kNodePoll) {
    GBX_ASSIGN(PollRequest request, from_json<PollRequest>(body));
    return poll(node, request);
  }
  if (method == method::kNodePhase) {
    GBX_ASSIGN(PhaseReport report, from_json<PhaseReport>(body));
    GBX_ASSIGN(PhaseReply reply, core_.phase(node, report));
    return to_json(reply);
  }
  if (method == method::kNodeOutput) {
    GBX_ASSIGN(OutputUpload upload, from_json<OutputUpload>(body));
    GBX_TRY(core_.output(node, upload));
    return to_json(Empty{});
  }
  if (method == method::kNodeDestroyed) {
    GBX_ASSIGN(auto claim, from_json<Signed<DestroyedClaim>>(body));
    GBX_TRY(core_.destroyed(node, claim));
    return to_json(Empty{});
  }
  return fail(Reason::kNotFound, "no such method");
}

}  // namespace gbx::plane
