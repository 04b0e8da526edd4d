#include "agent/broker_link.h"

#include <algorithm>

#include "agent/ipc.h"
#include "attest/verifier.h"

namespace gbx::agent {

using namespace records;

namespace {

constexpr std::int64_t kCallMs = 30'000;
constexpr std::int64_t kNodeMs = 30'000;
// A broker is started again within seconds. Whoever waits for much longer holds a node's memory for
// nothing.
constexpr std::int64_t kPatienceMs = 300'000;
constexpr std::int64_t kLongestPauseMs = 3'000;  // between two tries

// What another try may mend: nobody answered, or somebody who could not do his work.
Error passing(const Error& e) { return fail(Reason::kUnavailable, "broker: " + e.line()); }

// Between two tries of something that was away. False when there is to be no other: so many were
// made, it took too long, the node wants an end or has gone.
bool another(const WorkerOptions& o, int tries, const channel::Deadline& deadline) {
  if (tries >= o.broker_tries || deadline.passed()) return false;
  const auto pause =
      channel::Deadline::after_ms(*o.clock, std::min(o.broker_pause_ms * tries, kLongestPauseMs));
  return o.mux->wait_end(pause).reason() == Reason::kTimedOut;
}

}  // namespace

Result<QuoteReply> own_quote(const WorkerOptions& o, const FixedBytes<64>& report_data) {
  const auto deadline = channel::Deadline::after_ms(*o.clock, kPatienceMs);
  for (int tries = 1;; ++tries) {
    auto p = agent::call(o.supervisor, operation::kQuote, to_json(QuoteRequest{report_data}));
    if (p.ok()) return from_json<QuoteReply>(p->body);
    if (p.reason() != Reason::kUnavailable || !another(o, tries, deadline)) return p.error();
  }
}

Status BrokerLink::open() {
  GBX_TRY(insist({}, nullptr));
  return ok_status();
}

Result<Json> BrokerLink::insist(std::string_view method, const Json* request) {
  const auto deadline = channel::Deadline::after_ms(*o_.clock, kPatienceMs);
  for (int tries = 1;; ++tries) {
    auto reply = once(method, request);
    if (reply.ok() || reply.reason() != Reason::kUnavailable) return reply;
    drop();
    if (!another(o_, tries, deadline)) return reply;
  }
}

Result<Json> BrokerLink::once(std::string_view method, const Json* request) {
  if (!client_) {
    GBX_TRY(connect());
    GBX_TRY(attest());
  }
  return request == nullptr ? Result<Json>(Json()) : ask(method, *request);
}

Status BrokerLink::connect() {
  GBX_ASSIGN(const auto granted,
             rpc<BrokerStream>(node_, method::kAgentBroker, to_json(Empty{}), kNodeMs));
  if (granted.stream != static_cast<std::int64_t>(channel::kMuxBroker)) {
    return fail(Reason::kBadValue, "the node's stream");
  }
  GBX_ASSIGN(stream_, o_.mux->fresh(channel::kMuxBroker));
  channel::TlsOptions tls;
  tls.clock = o_.clock;
  tls.key = &keys_.tls;
  tls.peer = channel::PeerPolicy::pin({job_.set.tls}, Reason::kBrokerUntrusted);
  auto secure = channel::TlsChannel::client(*stream_, tls);
  if (!secure.ok()) {
    return secure.reason() == Reason::kBrokerUntrusted ? secure.error() : passing(secure.error());
  }
  tls_ = std::make_unique<channel::TlsChannel>(std::move(*secure));
  client_ = std::make_unique<channel::RpcClient>(*tls_, *o_.clock);
  return ok_status();
}

Result<ReportData> BrokerLink::report_data_for(const Nonce32& nonce) {
  ReportData data;
  data.set_id = job_.set.set_id;
  data.nonce = nonce;
  data.job_id = job_.job_id;
  data.attempt = job_.bundle.credential.body.attempt;
  data.credential = job_.bundle.credential.hash();
  data.plan_hash = job_.plan_hash;
  data.agent_keys = hash_of(keys_.records());
  GBX_ASSIGN(data.exporter, tls_->exporter(kExporterLabel, {}));
  return data;
}

Result<Evidence> BrokerLink::evidence_for(const Nonce32& nonce) {
  GBX_ASSIGN(const ReportData data, report_data_for(nonce));
  return o_.technology == Technology::kNone ? introduced(data) : quoted(data);
}

Result<Evidence> BrokerLink::introduced(const ReportData& data) {
  Evidence evidence;
  evidence.technology = Technology::kNone;
  evidence.launch_config = job_.bundle.launch_config;
  const IntroduceRequest introduce{data.digest(), hash_of(evidence.launch_config)};
  GBX_ASSIGN(auto introduction,
             rpc<Signed<NodeIntroduction>>(node_, method::kIntroduce, to_json(introduce), kNodeMs));
  evidence.node = std::move(introduction);
  return evidence;
}

// The release is the node's word only in that it says which one it booted: its signer's key and the
// registers decide.
Result<Evidence> BrokerLink::quoted(const ReportData& data) {
  GBX_ASSIGN(const auto told,
             rpc<ReleaseReply>(node_, method::kRelease, to_json(Empty{}), kNodeMs));
  GBX_ASSIGN(QuoteReply quote, own_quote(o_, data.digest()));
  Evidence evidence;
  evidence.technology = o_.technology;
  evidence.launch_config = job_.bundle.launch_config;
  evidence.quote = std::move(quote.quote);
  evidence.collateral = std::move(quote.collateral);
  evidence.collateral.push_back({std::string(attest::kReleaseCollateral),
                                 to_bytes(as_bytes(canonical(to_json(told.release))))});
  evidence.release = told.release.body.name;
  evidence.report_data = data;
  return evidence;
}

Status BrokerLink::attest() {
  const CredentialRequest who{job_.job_id, job_.bundle.credential.body.attempt};
  GBX_ASSIGN(const Json greeting, ask(method::kHello, to_json(who)));
  GBX_ASSIGN(const auto hello, from_json<HelloReply>(greeting));
  GBX_ASSIGN(Evidence evidence, evidence_for(hello.nonce));
  offered_.push_back(hash_of(evidence));
  const AttestRequest request{job_.bundle.credential, keys_.records(), std::move(evidence)};
  GBX_ASSIGN(const Json answer, ask(method::kAttest, to_json(request)));
  GBX_ASSIGN(const auto reply, from_json<AttestReply>(answer));
  const bool ours =
      first_ ? reply.evidence == *first_
             : std::find(offered_.begin(), offered_.end(), reply.evidence) != offered_.end();
  if (!ours) return fail(Reason::kBrokerUntrusted, "the broker names other evidence");
  first_ = reply.evidence;
  return ok_status();
}

Result<Json> BrokerLink::ask(std::string_view method, const Json& request) {
  auto reply = client_->call(method, request, kCallMs);
  if (reply.ok()) return reply;
  const bool again = client_->broken() || exit_class(reply.reason()) == ExitClass::kInfrastructure;
  return again ? passing(reply.error()) : reply.error();
}

void BrokerLink::drop() {
  client_.reset();
  tls_.reset();
  if (stream_ != nullptr) stream_->close();
  stream_ = nullptr;
}

void BrokerLink::end() {
  if (tls_) (void)tls_->finish(channel::Deadline::after_ms(*o_.clock, kCallMs));
  drop();
}

}  // namespace gbx::agent
