#include "plane/service/broker_link.h"

#include <algorithm>

#include "base/log.h"
#include "records/held_ledger.h"

namespace gbx::plane {

namespace {
constexpr std::int64_t kConnectMs = 5'000;
constexpr std::int64_t kFirstPauseMs = 50;
constexpr std::int64_t kLongestPauseMs = 5'000;
constexpr std::int64_t kHeadMs = 5'000;

// What is answered from state that nobody's key or budget depends on.
bool logs_nothing(std::string_view m) {
  namespace method = records::method;
  return m == method::kInfo || m == method::kExplain || m == method::kLedger ||
         m == method::kHeldLedger || m == method::kReceipt;
}

}  // namespace

std::string BrokerLink::trouble() const {
  const std::lock_guard lock(trouble_mutex_);
  return trouble_;
}

Error BrokerLink::refused(const Error& why) {
  const bool foreign = why.reason == Reason::kUnauthenticated;
  Error e = foreign
                ? fail(Reason::kUnavailable, "the broker was started with another plane's key")
                      .with(options_.key->public_key().text(), "another")
                      .hint("glovebox-broker serve --plane KEY")
                : fail(Reason::kUnavailable, std::string(reason_code(why.reason)) + ": " + why.what)
                      .hint(why.next);
  const std::lock_guard lock(trouble_mutex_);
  trouble_ = printable(e.what, 300);
  return e;
}

void BrokerLink::disconnect() {
  connected_ = false;
  client_.reset();
  tls_.reset();
  stream_.reset();
}

Status BrokerLink::connect() {
  if (client_) return ok_status();
  GBX_TRY(open());
  const Status resumed = resume();
  if (!resumed.ok()) {
    disconnect();
    return resumed;
  }
  pause_ms_ = 0;
  not_before_ms_ = 0;
  connected_ = true;
  const std::lock_guard lock(trouble_mutex_);
  trouble_.clear();
  return ok_status();
}

Status BrokerLink::open() {
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
  return ok_status();
}

Status BrokerLink::resume() {
  records::ResumeRequest request;
  auto kept = options_.heads->log_head();
  if (!kept.ok()) return refused(kept.error());
  request.head = std::move(*kept);
  const auto reply = client_->call(records::method::kResume, to_json(request), options_.timeout_ms);
  if (reply.ok()) return keep(reply);
  if (!client_->broken()) return refused(reply.error());
  return fail(Reason::kUnavailable, "the broker gave no answer")
      .with("", reply.error().line().substr(0, 200));
}

// Only what the set has signed, and only forwards: docs/decisions/0018.
Status BrokerLink::keep(const Result<Json>& head) {
  if (!head.ok()) {
    return fail(Reason::kUnavailable, "the broker gave no head of its log")
        .with("", head.error().line().substr(0, 200));
  }
  auto parsed = from_json<records::Signed<records::LogHead>>(*head);
  const Status kept = parsed.ok() ? options_.heads->keep_log_head(*parsed) : Status(parsed.error());
  return kept.ok() ? kept : Status(refused(kept.error()));
}

Status BrokerLink::take_head() {
  const Status s = keep(client_->call(records::method::kHead, to_json(records::Empty{}), kHeadMs));
  if (!s.ok()) disconnect();
  return s;
}

Result<Json> BrokerLink::call(std::string_view method, const Json& body) {
  return call_within(method, body, options_.timeout_ms);
}

Status BrokerLink::probe(const Nonce32& nonce) {
  GBX_TRY(call_within(records::method::kInfo, to_json(records::InfoRequest{nonce}),
                      options_.probe_timeout_ms));
  GBX_TRY(
      call_within(records::method::kHead, to_json(records::Empty{}), options_.probe_timeout_ms));
  return ok_status();
}

Result<Json> BrokerLink::call_within(std::string_view method, const Json& body,
                                     std::int64_t timeout_ms) {
  const std::lock_guard lock(mutex_);
  for (int round = 0;; ++round) {
    const bool fresh = client_ == nullptr;
    GBX_TRY(connect());
    Result<Json> reply = client_->call(method, body, timeout_ms);
    if (!client_->broken()) {
      if (!reply.ok()) {
        return reply.reason() == Reason::kUnauthenticated ? refused(reply.error()) : reply;
      }
      if (method == records::method::kHead) {
        GBX_TRY(keep(reply));
      } else if (!logs_nothing(method)) {
        GBX_TRY(take_head());
      }
      return reply;
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
