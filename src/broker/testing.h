// A broker in memory with everybody around it, for tests of programs that talk to one: an owner, a
// consumer, a reviewer, a node, an agent that does what a genuine one does. Everything comes from
// one seed. Not part of any program.
#pragma once

#include <map>
#include <memory>
#include <set>

#include "broker/core.h"
#include "policy/testing.h"

namespace gbx::testing {

struct FakeAgent {
  crypto::SigningKey tls;
  crypto::SigningKey sig;
  crypto::HpkeKeyPair hpke;
  std::vector<records::Signed<records::KeyRequest>> sent;
  records::AgentKeys keys() const {
    return {tls.public_key().text(), hpke.public_key().text(), sig.public_key().text()};
  }
};
inline FakeAgent make_agent(Random& random) {
  const auto key = [&] {
    return must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  };
  return {key(), key(), must(crypto::HpkeKeyPair::generate(random)), {}};
}
inline broker::BrokerKeys broker_keys(const KeySet& set) {
  return {set.chain,
          must(crypto::SigningKey::from_private(crypto::SignatureAlgorithm::kEd25519,
                                                set.signing.private_bytes(SecretAccess{}))),
          must(crypto::HpkeKeyPair::from_private(set.kek.private_key()))};
}
// What the outputs of a job can tell, where a test sets nothing else (BrokerWorld::capacity).
inline constexpr std::int64_t kJobBits = 608;

inline records::GateVerdict clean_verdict() {
  records::GateVerdict v;
  v.recommendation = records::Recommendation::kRelease;
  v.charge = {kJobBits, 0, 0, policy::kSchemaCode};
  v.exit_class = records::JobExit::kOk;
  return v;
}
inline records::GateVerdict rejection(records::GateCause cause) {
  records::GateVerdict v = clean_verdict();
  v.recommendation = records::Recommendation::kReject;
  v.cause = cause;
  v.charge = {policy::kControlBits, 0, 0, policy::kControlCode};
  return v;
}

// A disk that gives what was written, but for what somebody or chance changed since.
class ChangedStore final : public broker::LogStore {
 public:
  ChangedStore() = default;
  explicit ChangedStore(broker::MemoryStore log) : inner_(std::move(log)) {}
  Status append(std::uint64_t first, const std::vector<broker::StoredEntry>& more,
                const std::vector<translog::Node>& made) override {
    return inner_.append(first, more, made);
  }
  Result<std::uint64_t> size() const override { return inner_.size(); }
  Result<broker::StoredEntry> entry(std::uint64_t index) const override {
    ++reads;
    if (unreadable.count(index) != 0) return fail(Reason::kDatabase, "a bad sector");
    const auto it = entries.find(index);
    return it == entries.end() ? inner_.entry(index) : it->second;
  }
  Result<Hash32> node(translog::NodeId id) const override {
    const auto it = nodes.find(id);
    return it == nodes.end() ? inner_.node(id) : it->second;
  }
  // The entry, and the leaf over it.
  void change(std::uint64_t index, const broker::LogEntry& entry) {
    broker::StoredEntry other = must(inner_.entry(index));
    other.entry = canonical(to_json(entry));
    nodes[{0, index}] = translog::leaf_hash(other.salt, as_bytes(other.entry));
    entries[index] = std::move(other);
  }

  std::map<std::uint64_t, broker::StoredEntry> entries;
  std::map<translog::NodeId, Hash32> nodes;
  std::set<std::uint64_t> unreadable;
  mutable std::uint64_t reads = 0;

 private:
  broker::MemoryStore inner_;
};

class BrokerWorld {
 public:
  explicit BrokerWorld(std::uint64_t seed, broker::LogStore* other_store = nullptr)
      : random(seed),
        set(make_key_set(random)),
        owner(make_person(random)),
        consumer(make_person(random)),
        reviewer(make_person(random)),
        node(must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random))),
        data(make_asset(copy(owner), records::AssetKind::kDataset, clauses(), random)),
        image(make_asset(copy(owner), records::AssetKind::kImage, image_clauses(), random)),
        store_(other_store != nullptr ? other_store : &memory_) {}

  records::Clauses clauses() { return make_clauses(node.public_key(), {&reviewer}); }
  records::Clauses image_clauses() {
    records::Clauses c = clauses();
    c.images.clear();
    c.commands.clear();
    c.lease_required = false;
    c.join_owners = {owner.id()};
    return c;
  }

  // Starts the broker, or starts it again over the same store: it waits for the plane.
  Status open() {
    core.reset();
    connections_ = 0;
    GBX_ASSIGN(core, broker::Core::open(broker_keys(set), *store_, random, capacity, awake,
                                        evidence_check));
    return ok_status();
  }
  // The same, with a plane that holds no head yet.
  Status start() {
    GBX_TRY(open());
    const Status resumed = resume();
    if (!resumed.ok()) core.reset();
    return resumed;
  }
  Status resume(const std::optional<records::Signed<records::LogHead>>& head = std::nullopt) {
    GBX_TRY(core->handle(records::method::kResume, to_json(records::ResumeRequest{head}), plane(),
                         clock.now()));
    return ok_status();
  }
  records::Signed<records::LogHead> head() {
    return must(call<records::Signed<records::LogHead>>(records::method::kHead, records::Empty{}));
  }
  // The plane's connection, on which everything comes that people signed.
  static broker::ConnectionContext plane() { return {0, std::nullopt, {}, broker::Peer::kPlane}; }
  template <class Reply, class Request>
  Result<Reply> call(std::string_view method, const Request& request,
                     const broker::ConnectionContext& connection = plane()) {
    GBX_ASSIGN(Json reply, remote
                               ? remote(method, to_json(request), connection)
                               : core->handle(method, to_json(request), connection, clock.now()));
    return from_json<Reply>(reply);
  }
  broker::ConnectionContext connect(const FakeAgent& agent) {
    return {++connections_, agent.tls.public_key(), random.fixed<32>(), broker::Peer::kStranger};
  }

  Result<records::Signed<records::PublishAck>> publish(const Asset& a) {
    return call<records::Signed<records::PublishAck>>(records::method::kPublish,
                                                      make_publish(set, a, random));
  }
  // A job of one input, with one lease for it.
  records::SignedSubmission submission(bool image_by_name = true) {
    records::JobSpec spec = make_spec(image_by_name);
    spec.spec.tee.any_of = {technology};
    SubmissionParts parts{
        std::move(spec), {&data}, &image, {make_lease(set.id(), data, consumer, 1, random)}};
    return make_submission(set.id(), consumer, parts, random);
  }
  Result<records::Signed<records::RunPlan>> authorise(const records::SignedSubmission& s) {
    return call<records::Signed<records::RunPlan>>(records::method::kAuthorise, s);
  }
  Result<records::Signed<records::Credential>> credential(const Hash32& job, std::int64_t attempt) {
    return call<records::Signed<records::Credential>>(records::method::kCredential,
                                                      records::CredentialRequest{job, attempt});
  }
  Result<Nonce32> hello(const Hash32& job, std::int64_t attempt,
                        const broker::ConnectionContext& c) {
    GBX_ASSIGN(records::HelloReply r,
               call<records::HelloReply>(records::method::kHello,
                                         records::CredentialRequest{job, attempt}, c));
    return r.nonce;
  }
  records::LaunchConfig launch() const { return {set.id(), set.set_key.public_key().text()}; }
  records::ReportData report_data(const FakeAgent& agent,
                                  const records::Signed<records::Credential>& credential,
                                  const Nonce32& nonce, const broker::ConnectionContext& c) const {
    records::ReportData report;
    report.set_id = set.id();
    report.nonce = nonce;
    report.job_id = credential.body.job_id;
    report.attempt = credential.body.attempt;
    report.credential = credential.hash();
    report.plan_hash = credential.body.plan_hash;
    report.agent_keys = records::hash_of(agent.keys());
    report.exporter = c.exporter;
    return report;
  }
  records::AttestRequest attest_request(const FakeAgent& agent,
                                        const records::Signed<records::Credential>& credential,
                                        const Nonce32& nonce, const broker::ConnectionContext& c) {
    const records::ReportData report = report_data(agent, credential, nonce, c);
    records::AttestRequest r;
    r.credential = credential;
    r.agent_keys = agent.keys();
    if (prove) {
      prove(r, report);
      return r;
    }
    r.evidence.launch_config = launch();
    r.evidence.node = must(records::sign(
        set.id(),
        records::NodeIntroduction{report.digest(), records::hash_of(launch()), report.job_id,
                                  report.attempt, clock.now().seconds()},
        node));
    return r;
  }
  Result<Hash32> attest(const FakeAgent& agent,
                        const records::Signed<records::Credential>& credential,
                        const broker::ConnectionContext& c) {
    GBX_ASSIGN(Nonce32 nonce, hello(credential.body.job_id, credential.body.attempt, c));
    GBX_ASSIGN(records::AttestReply r,
               call<records::AttestReply>(records::method::kAttest,
                                          attest_request(agent, credential, nonce, c), c));
    return r.evidence;
  }
  records::Signed<records::KeyRequest> key_request(const FakeAgent& agent,
                                                   const records::Credential& credential,
                                                   const Hash32& evidence, std::int64_t stage) {
    records::KeyRequest r;
    r.job_id = credential.job_id;
    r.attempt = credential.attempt;
    r.stage = stage;
    r.seq = static_cast<std::int64_t>(agent.sent.size()) + 1;
    if (!agent.sent.empty()) r.prev = agent.sent.back().hash();
    r.evidence = evidence;
    if (stage == 2) {
      r.image_digest = kImageDigest;
      r.unpacked_root_hash = Hash32{7};
    }
    return must(records::sign(set.id(), r, agent.sig));
  }
  Result<records::KeyReply> key(FakeAgent& agent, const records::Credential& credential,
                                const Hash32& evidence, std::int64_t stage,
                                const broker::ConnectionContext& c) {
    const auto request = key_request(agent, credential, evidence, stage);
    GBX_ASSIGN(records::KeyReply reply, call<records::KeyReply>(records::method::kKey, request, c));
    agent.sent.push_back(request);
    return reply;
  }

  // What the environment hands out at its end. `bundle` is what the consumer will read.
  struct Sealed {
    records::Seal seal;
    records::SealedOutput output;
  };
  Sealed make_seal(const FakeAgent& agent, const records::SignedSubmission& s,
                   const records::Signed<records::RunPlan>& plan, std::int64_t attempt,
                   const Hash32& evidence, const records::GateVerdict& verdict) {
    records::ResultInput in;
    in.job_id = plan.body.job_id;
    in.attempt = attempt;
    in.plan_hash = plan.hash();
    in.outputs = {{"metrics", random.fixed<32>(), 4096}};
    in.verdict = verdict;
    in.bundle = as_bytes("the checked output");
    for (const auto& k : s.submission.body.result_keys) {
      in.result_keys.push_back(must(crypto::HpkePublicKey::from_text(k.hpke)));
    }
    for (const auto& r : plan.body.reviewers) {
      in.reviewers.push_back(must(crypto::HpkePublicKey::from_text(r.hpke)));
    }
    auto sealed = must(records::seal_result(in, set.kek.public_key(), random));
    records::RunStatement st;
    st.manifest = sealed.manifest;
    st.evidence = evidence;
    st.controls = plan.body.controls;
    st.runtime = "crun 1.8";
    st.image_digest = kImageDigest;
    st.unpacked_root_hash = Hash32{7};
    st.residual_channels = plan.body.residual_channels;
    return {{must(records::sign(set.id(), st, agent.sig)), sealed.release_keys}, sealed.output};
  }
  Result<records::Signed<records::SealAck>> seal(const records::Seal& s,
                                                 const broker::ConnectionContext& c) {
    return call<records::Signed<records::SealAck>>(records::method::kSeal, s, c);
  }
  Result<records::Judgement> judge(const Hash32& job) {
    return call<records::Judgement>(records::method::kJudge, records::JobRequest{job});
  }
  // By a reviewer whose clock is `ahead` seconds before the broker's.
  Result<records::Judgement> rule(const Person& by, const records::HoldNotice& notice,
                                  const Hash32& policy, records::RulingDecision decision,
                                  std::int64_t ahead = 0, std::vector<std::string> reasons = {}) {
    records::Ruling r;
    r.hold_notice = records::hash_of(notice);
    r.manifest = notice.manifest;
    r.ciphertext = notice.ciphertext;
    r.owner_policy_hash = policy;
    r.decision = decision;
    r.reasons = std::move(reasons);
    r.time = clock.now().seconds() + ahead;
    return call<records::Judgement>(
        records::method::kRuling,
        records::RulingRequest{by.chain, must(records::sign(set.id(), r, by.key))});
  }

  // One job from submission to seal, by one agent on one connection.
  struct Run {
    records::SignedSubmission submission;
    records::Signed<records::RunPlan> plan;
    records::Signed<records::Credential> credential;
    FakeAgent agent;
    broker::ConnectionContext connection;
    Hash32 evidence{};
    std::vector<records::KeyReply> keys;
    Sealed sealed;
    Hash32 job_id() const { return plan.body.job_id; }
  };
  Run run_until_attested(const records::SignedSubmission& s) {
    Run r{s, must(authorise(s)), {}, make_agent(random), {}, {}, {}, {}};
    r.credential = must(credential(r.job_id(), 1));
    r.connection = connect(r.agent);
    r.evidence = must(attest(r.agent, r.credential, r.connection));
    return r;
  }
  Run run_until_sealed(const records::SignedSubmission& s,
                       const records::GateVerdict& verdict = clean_verdict()) {
    Run r = run_until_attested(s);
    for (std::int64_t stage = 1; stage <= 2; ++stage) {
      r.keys.push_back(must(key(r.agent, r.credential.body, r.evidence, stage, r.connection)));
    }
    r.sealed = make_seal(r.agent, s, r.plan, 1, r.evidence, verdict);
    must(seal(r.sealed.seal, r.connection));
    return r;
  }
  void start_and_publish() {
    must(start());
    must(publish(data));
    must(publish(image));
  }

  SeededRandom random;
  ManualClock clock{kNow * 1000};
  KeySet set;
  Person owner;
  Person consumer;
  Person reviewer;
  crypto::SigningKey node;
  Asset data;
  Asset image;
  policy::Capacity capacity = [this](const records::SpecBody& spec, const policy::InputTables&) {
    if (spec.outputs.empty()) return Result<policy::JobBits>({policy::kControlBits, 0});
    return Result<policy::JobBits>({free_bits, verified_bits});
  };
  std::int64_t free_bits = kJobBits;
  std::int64_t verified_bits = 0;
  // How the broker reads evidence, and how environments prove what they are; without either,
  // technology `none`.
  records::EvidenceCheck evidence_check;
  std::function<void(records::AttestRequest&, const records::ReportData&)> prove;
  records::Technology technology = records::Technology::kNone;  // that jobs ask for
  std::unique_ptr<broker::Core> core;
  // So few that every test meets jobs that are read again.
  broker::Awake awake{1};
  // Set: requests go there and not to `core`.
  std::function<Result<Json>(std::string_view method, const Json& body,
                             const broker::ConnectionContext&)>
      remote;

 private:
  broker::MemoryStore memory_;
  broker::LogStore* store_;
  std::uint64_t connections_ = 0;
};

}  // namespace gbx::testing
