#include "broker/server.h"

#include "channel/tls.h"

namespace gbx::broker {

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, Core& core,
                                              const crypto::SigningKey& tls_key, const Clock& clock,
                                              const Logger& logger,
                                              std::function<void()> on_failure) {
  std::unique_ptr<Server> s(
      new Server(options, core, tls_key, clock, logger, std::move(on_failure)));
  GBX_ASSIGN(channel::Listener listener, channel::listen_tcp(options.listen));
  Server* self = s.get();
  const auto serve = [self](channel::FdStream& stream, const auto& known) {
    self->connection(stream, known);
  };
  GBX_ASSIGN(s->server_, channel::ConnectionServer::start(
                             std::move(listener), options.max_connections,
                             {&clock, options.max_strangers, options.stranger_ms}, serve));
  return s;
}

void Server::stop() {
  if (server_) server_->stop();
}

Result<Json> Server::dispatch(std::string_view method, const Json& body,
                              const ConnectionContext& context, bool* last) {
  const std::lock_guard lock(mutex_);
  auto reply = core_.handle(method, body, context, clock_.now());
  *last = !core_.healthy() && !failed_;
  failed_ = failed_ || *last;
  return reply;
}

void Server::refused(std::string_view method, const Error& error, bool stranger) {
  if (stranger) return stranger_failed(error);
  logger_.error("refused", error, {{"method", Json(std::string(method.substr(0, 64)))}});
}

// Receipts are the largest answers, and the plane's alone. Who proved no key may ask for evidence,
// and goes again.
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

// Whoever reaches the port can fail as often as he likes: that fills no log.
void Server::stranger_failed(const Error& error) {
  const std::lock_guard lock(strangers_mutex_);
  ++strangers_failed_;
  const std::int64_t now = clock_.steady_ms();
  if (strangers_told_ms_ && now - *strangers_told_ms_ < options_.stranger_log_ms) return;
  logger_.warn("strangers-failed", {{"failures", Json(strangers_failed_)},
                                    {"last", Json(printable(error.line(), 200))}});
  strangers_failed_ = 0;
  strangers_told_ms_ = now;
}

void Server::connection(channel::FdStream& stream, const channel::ConnectionServer::Known& known) {
  channel::TlsOptions tls;
  tls.clock = &clock_;
  tls.key = &tls_key_;
  tls.peer = channel::PeerPolicy::any_key_or_none();
  auto opened = channel::TlsChannel::server(stream, tls);
  if (!opened.ok()) return stranger_failed(opened.error());
  auto exporter = opened->exporter(records::kExporterLabel, {});
  if (!exporter.ok()) return stranger_failed(exporter.error());
  const auto& key = opened->peer_key();
  const bool plane = key && options_.plane && *key == *options_.plane;
  const ConnectionContext context{++last_id_, key, *exporter,
                                  plane ? Peer::kPlane : Peer::kStranger};
  bool stranger = !plane;
  if (plane) known();
  const Hash32 who = key ? crypto::sha256(as_bytes(key->text())) : Hash32{};
  std::shared_ptr<channel::Shares::Ticket> place;
  if (key && !plane) {
    auto entered = connections_.enter(who, 1, clock_.steady_ms());
    if (!entered.ok()) return stranger_failed(entered.error());
    place = std::move(*entered);
  }
  channel::ServeLimits limits = limits_for(context);
  bool last = false;
  const auto answer = [&](std::string_view method, const Json& body) -> Result<Json> {
    std::shared_ptr<channel::Shares::Ticket> share;
    if (!plane) {
      GBX_ASSIGN(share, requests_.enter(who, 1, clock_.steady_ms()));
    }
    auto reply = dispatch(method, body, context, &last);
    if (!reply.ok()) refused(method, reply.error(), stranger);
    if (last) limits.idle_ms = 0;  // this answer still goes out
    if (reply.ok() && method == records::method::kAttest) {
      stranger = false;
      known();
    }
    return reply;
  };
  const Status ended = channel::serve(*opened, answer, limits, clock_);
  if (last) on_failure_();
  if (!ended.ok() && stranger) {
    stranger_failed(ended.error());
  } else if (!ended.ok()) {
    // Programs that end and long silences are no errors.
    const bool gone = ended.reason() == Reason::kTruncated ||
                      ended.reason() == Reason::kConnectionClosed ||
                      ended.reason() == Reason::kTimedOut;
    logger_.log(gone ? LogLevel::kInfo : LogLevel::kWarn, "connection-ended",
                {{"peer", Json(plane ? "plane" : "agent")},
                 {"why", Json(printable(ended.error().line()))}});
  }
  const std::lock_guard lock(mutex_);
  core_.closed(context.id);
}

}  // namespace gbx::broker
