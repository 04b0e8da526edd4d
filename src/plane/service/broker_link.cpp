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
  if (clock.steady_ms() < not_before_ms_) {
    return fail(Reason::kUnavailable, "the broker cannot be reached");
  }
  pause_ms_ = std::clamp(pause_ms_ * 2, kFirstPauseMs, kLongestPauseMs);
  not_before_ms_ = clock.steady_ms() + pause_ms_;
  GBX_ASSIGN(stream_, channel::connect_tcp(options_.address,
                                           channel::Deadline::after_ms(clock, kConnectMs)));
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
  return call_within(method, body, options_.timeout_ms);
}

Status BrokerLink::probe(const Nonce32& nonce) {
  const auto reply = call_within(records::method::kInfo, to_json(records::InfoRequest{nonce}),
                                 options_.probe_timeout_ms);
  return reply.ok() ? ok_status() : Status(reply.error());
}

Result<Json> BrokerLink::call_within(std::string_view method, const Json& body,
                                     std::int64_t timeout_ms) {
  const std::lock_guard lock(mutex_);
  for (int round = 0;; ++round) {
    const bool fresh = client_ == nullptr;
    GBX_TRY(connect());
    Result<Json> reply = client_->call(method, body, timeout_ms);
    if (!client_->broken()) {
      if (reply.ok() || reply.reason() != Reason::kUnauthenticated) return reply;
      // Nobody's fault but the installation's: what waits for the broker waits on.
      return fail(Reason::kUnavailable, "the broker was started with another plane's key")
          .with(options_.key->public_key().text(), "another")
          .hint("glovebox-broker serve --plane KEY");
    }
    disconnect();
    if (fresh || round > 0) {
      return fail(Reason::kUnavailable, "the broker gave no answer")
          .with("", reply.error().line().substr(0, 200));
    }
  }
}

BrokerProbe::BrokerProbe(BrokerLink& link, Random& random, std::int64_t period_ms)
    : link_(link), random_(random), period_ms_(period_ms) {
  thread_ = std::thread([this] {
    for (std::unique_lock lock(mutex_); !stopping_;) {
      lock.unlock();
      (void)link_.probe(random_.fixed<32>());  // what came of it is what connected() says
      lock.lock();
      wake_.wait_for(lock, std::chrono::milliseconds(period_ms_), [this] { return stopping_; });
    }
  });
}

BrokerProbe::~BrokerProbe() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

}  // namespace gbx::plane
