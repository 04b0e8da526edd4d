#include "broker/server.h"

#include "channel/tls.h"

namespace gbx::broker {

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, Core& core, const crypto::SigningKey& tls_key,
                                              const Clock& clock, const Logger& logger, std::function<void()> on_failure) {
  std::unique_ptr<Server> s(new Server(options, core, tls_key, clock, logger, std::move(on_failure)));
  GBX_ASSIGN(channel::Listener listener, channel::listen_tcp(options.listen));
  Server* self = s.get();
  GBX_ASSIGN(s->server_, channel::ConnectionServer::start(std::move(listener), options.max_connections,
                                                          [self](channel::FdStream& stream) { self->connection(stream); }));
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

void Server::connection(channel::FdStream& stream) {
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
  const ConnectionContext context{++last_id_, opened->peer_key(), *exporter};
  channel::ServeLimits limits;
  limits.idle_ms = options_.idle_ms;
  const Status ended = channel::serve(
      *opened, [&](std::string_view method, const Json& body) { return dispatch(method, body, context); }, limits, clock_);
  if (!ended.ok()) logger_.error("connection", ended.error());
  const std::lock_guard lock(mutex_);
  core_.closed(context.id);
}

}  // namespace gbx::broker
