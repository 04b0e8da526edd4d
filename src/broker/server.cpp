#include "broker/server.h"

#include "channel/tls.h"

namespace gbx::broker {

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, Core& core, const crypto::SigningKey& tls_key,
                                              const Clock& clock, const Logger& logger, std::function<void()> on_failure) {
  std::unique_ptr<Server> s(new Server(options, core, tls_key, clock, logger, std::move(on_failure)));
  GBX_ASSIGN(channel::Listener listener, channel::listen_tcp(options.listen));
  Server* self = s.get();
  const auto serve = [self](channel::FdStream& stream, const auto& known) { self->connection(stream, known); };
  GBX_ASSIGN(s->server_, channel::ConnectionServer::start(std::move(listener), options.max_connections,
                                                          {&clock, options.max_strangers, options.stranger_ms}, serve));
  return s;
}

void Server::stop() {
  if (server_) server_->stop();
}

Result<Json> Server::dispatch(std::string_view method, const Json& body, const ConnectionContext& context) {
  std::unique_lock lock(mutex_);
  auto reply = core_.handle(method, body, context, clock_.now());
  const bool failed_now = !core_.healthy() && !failed_;
  failed_ = failed_ || failed_now;
  lock.unlock();
  if (!reply.ok()) logger_.error("refused", reply.error(), {{"method", Json(std::string(method.substr(0, 64)))}});
  if (failed_now) on_failure_();
  return reply;
}

// Receipts are the largest answers, and the plane's alone. Who proved no key may ask for evidence, and goes again.
channel::ServeLimits Server::limits_for(const ConnectionContext& context) const {
  channel::ServeLimits limits;
  limits.idle_ms = options_.idle_ms;
  if (context.peer == Peer::kPlane) return limits;
  limits.max_frame_bytes = static_cast<std::size_t>(2 * records::kMaxRequestBytes);
  if (context.peer_key) return limits;
  limits.idle_ms = options_.keyless_idle_ms;
  limits.max_frames = 16;
  return limits;
}

void Server::connection(channel::FdStream& stream, const channel::ConnectionServer::Known& known) {
  channel::TlsOptions tls;
  tls.clock = &clock_;
  tls.key = &tls_key_;
  tls.peer = channel::PeerPolicy::any_key_or_none();
  auto opened = channel::TlsChannel::server(stream, tls);
  if (!opened.ok()) {
    logger_.error("handshake", opened.error());
    return;
  }
  auto exporter = opened->exporter(records::kExporterLabel, {});
  if (!exporter.ok()) {
    logger_.error("handshake", exporter.error());
    return;
  }
  const auto& key = opened->peer_key();
  const bool plane = key && options_.plane && *key == *options_.plane;
  const ConnectionContext context{++last_id_, key, *exporter, plane ? Peer::kPlane : Peer::kStranger};
  if (plane) known();
  const channel::ServeLimits limits = limits_for(context);
  const auto answer = [&](std::string_view method, const Json& body) {
    auto reply = dispatch(method, body, context);
    if (reply.ok() && method == records::method::kAttest) known();
    return reply;
  };
  const Status ended = channel::serve(*opened, answer, limits, clock_);
  if (!ended.ok()) logger_.error("connection", ended.error());
  const std::lock_guard lock(mutex_);
  core_.closed(context.id);
}

}  // namespace gbx::broker
