#include "plane/service/broker_link.h"

#include <algorithm>

namespace gbx::plane {

namespace {
constexpr std::int64_t kConnectMs = 5'000;
constexpr std::int64_t kFirstPauseMs = 50;
constexpr std::int64_t kLongestPauseMs = 5'000;
}  // namespace

void BrokerLink::disconnect() {
  connected_ = false;
  client_.reset();
  tls_.reset();
  stream_.reset();
}

Status BrokerLink::connect() {
  if (client_) return ok_status();
  const Clock& clock = *options_.clock;
  if (clock.steady_ms() < not_before_ms_) return fail(Reason::kUnavailable, "the broker cannot be reached");
  pause_ms_ = std::clamp(pause_ms_ * 2, kFirstPauseMs, kLongestPauseMs);
  not_before_ms_ = clock.steady_ms() + pause_ms_;
  GBX_ASSIGN(stream_, channel::connect_tcp(options_.address, channel::Deadline::after_ms(clock, kConnectMs)));
  channel::TlsOptions tls;
  tls.clock = &clock;
  tls.key = options_.key;
  tls.peer = channel::PeerPolicy::pin({options_.broker_key}, Reason::kBrokerUntrusted);
  auto opened = channel::TlsChannel::client(*stream_, tls);
  if (!opened.ok()) {
    disconnect();
    return opened.error().at("connection to the broker");
  }
  tls_ = std::make_unique<channel::TlsChannel>(std::move(*opened));
  client_ = std::make_unique<channel::RpcClient>(*tls_, clock);
  pause_ms_ = 0;
  not_before_ms_ = 0;
  connected_ = true;
  return ok_status();
}

Result<Json> BrokerLink::call(std::string_view method, const Json& body) {
  const std::lock_guard lock(mutex_);
  for (int round = 0;; ++round) {
    const bool fresh = client_ == nullptr;
    GBX_TRY(connect());
    Result<Json> reply = client_->call(method, body, options_.timeout_ms);
    if (!client_->broken()) {
      if (reply.ok() || reply.reason() != Reason::kUnauthenticated) return reply;
      // Nobody's fault but the installation's: what waits for the broker waits on.
      return fail(Reason::kUnavailable, "the broker was started with another plane's key")
          .with(options_.key->public_key().text(), "another")
          .hint("glovebox-broker serve --plane KEY");
    }
    disconnect();
    if (fresh || round > 0) {
      return fail(Reason::kUnavailable, "the broker gave no answer").with("", reply.error().line().substr(0, 200));
    }
  }
}

}  // namespace gbx::plane
