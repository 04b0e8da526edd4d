#include "node/plane_link.h"

#include "base/bundle_size.h"

namespace gbx::node {
namespace {

// One reason for all the ways in which a plane does not answer. That it does not know this node is
// an answer.
Error unanswered(Error e) {
  if (e.reason == Reason::kUnauthenticated || e.reason == Reason::kUnavailable) {
    return e.at("plane");
  }
  return fail(Reason::kUnavailable, "plane: " + e.line());
}

}  // namespace

Status PlaneLink::connect() {
  client_.reset();
  tls_.reset();
  stream_.reset();
  GBX_ASSIGN(stream_, channel::connect_tcp(options_.address,
                                           channel::Deadline::after_ms(*options_.clock, 5'000)));
  channel::TlsOptions tls;
  tls.clock = options_.clock;
  tls.key = options_.key;
  if (options_.plane_key) tls.peer = channel::PeerPolicy::pin({*options_.plane_key});
  GBX_ASSIGN(auto secure, channel::TlsChannel::client(*stream_, tls));
  tls_ = std::make_unique<channel::TlsChannel>(std::move(secure));
  client_ = std::make_unique<channel::RpcClient>(*tls_, *options_.clock, kSealedBundleFrameBytes);
  return ok_status();
}

Result<Json> PlaneLink::call(std::string_view method, const Json& body, std::int64_t timeout_ms) {
  const std::scoped_lock lock(mutex_);
  for (int attempt = 0;; ++attempt) {
    if (!client_ || client_->broken()) {
      Status s = connect();
      if (!s.ok()) {
        client_.reset();
        return unanswered(s.error());
      }
    }
    auto reply = client_->call(method, body, timeout_ms);
    if (reply.ok() || !client_->broken()) return reply;
    if (attempt > 0) return unanswered(reply.error());
  }
}

}  // namespace gbx::node
