// The broker's decisions: every check of docs/protocol.md that the set makes, over a log. No
// sockets, no threads, no clock: a request, what is known of its connection, and the time come in;
// a reply goes out, and whatever it promises is durable in the log before it does. A request that
// is repeated gets the stored reply. Bodies are untrusted. Not thread-safe: one request at a time.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "base/seams.h"
#include "broker/log.h"
#include "policy/decision.h"
#include "records/evidence_check.h"
#include "records/held_ledger.h"
#include "records/sealing.h"

namespace gbx::broker {

struct BrokerKeys {
  records::SetChain set;
  crypto::SigningKey signing;  // Ed25519: replies that are signed again must have the same bytes
  crypto::HpkeKeyPair kek;
};

// Who asks. The plane passes on what people signed; everybody else gets what an agent gets when it
// has proved itself, and the broker's evidence.
enum class Peer { kStranger, kPlane };

// What TLS says about the peer: `peer` is made from the key that it proved, never from what a
// request says. `id` is never used twice in one life of the program.
struct ConnectionContext {
  std::uint64_t id = 0;
  std::optional<crypto::PublicKey> peer_key;
  Hash32 exporter{};
  Peer peer = Peer::kStranger;
};

using policy::kHoldSeconds;
inline constexpr std::int64_t kLongestCredentialSeconds = 3600;
inline constexpr std::size_t kHellosPerConnection = 8;
// Rotations of one identity; and how many of them its signing keys sign. The rest is the recovery
// key's alone: a thief of a signing key cannot use up what drives him out.
inline constexpr std::size_t kRotations = 64;  // as many as a chain has room for
inline constexpr std::size_t kOwnRotations = 32;
// Of one job, beside those that its plan allows with keys: so many never get as far.
inline constexpr std::int64_t kKeylessAttempts = 64;

class Core {
 public:
  // Verifies keys and log. Nothing is written, and nothing but evidence is answered, until the
  // plane has shown its copy of the log's head with broker.resume (docs/decisions/0018). `store`
  // and `random` must outlive the Core; the state of a job that is not `awake` is read again from
  // the log when somebody asks. Errors: kWrongSet when log and keys do not belong together,
  // kBadSuite, kUnsupported when the charter promises what this version does not do, and those of
  // Log::open. Without `evidence` only technology `none` is taken.
  static Result<std::unique_ptr<Core>> open(BrokerKeys keys, LogStore& store, Random& random,
                                            policy::Capacity capacity, const Awake& awake = {},
                                            records::EvidenceCheck evidence = {});

  // Methods of records::method, "broker.*" and "agent.*". kNotFound for any other, kUnauthenticated
  // for a peer who may not call it, kTooLarge for a body above records::kMaxRequestBytes.
  Result<Json> handle(std::string_view method, const Json& body,
                      const ConnectionContext& connection, TimeMs now);
  // The connection is gone, and with it what was bound to it.
  void closed(std::uint64_t connection_id) { connections_.erase(connection_id); }

  const records::SetId& set_id() const { return set_id_; }
  const State& state() const { return log_->state(); }
  std::uint64_t log_size() const { return log_->size(); }
  // False once the store has failed or the log turned out to be an old one: nothing is answered
  // until the program starts again.
  bool healthy() const { return !log_->broken() && !rolled_back_; }
  // Why it can go on no longer: kLogRolledBack with the sizes, else kDatabase. Ok while healthy().
  Status ended_by() const;

 private:
  // What lasts as long as a connection: nonces that were given, and the attempt that attested.
  struct Connection {
    std::vector<Nonce32> nonces;  // the last one is valid
    bool nonce_used = true;
    Hash32 job_id{};
    std::int64_t attempt = 0;
    bool attested = false;
    bool superseded = false;  // the agent has attested on another connection since
    Hash32 attest_request{};
  };
  struct Call {
    const ConnectionContext& connection;
    std::int64_t now = 0;
  };
  struct Found {
    const JobState& job;
    const AttemptState& attempt;
  };

  Core(BrokerKeys keys, Random& random, policy::Capacity capacity, records::EvidenceCheck evidence)
      : keys_(std::move(keys)),
        random_(random),
        capacity_(std::move(capacity)),
        evidence_(std::move(evidence)) {}

  template <class Request, class Reply>
  Result<Json> call(Result<Reply> (Core::*handler)(const Request&, const Call&), const Json& body,
                    const Call& c) {
    GBX_ASSIGN(Request request, from_json<Request>(body));
    GBX_ASSIGN(Reply reply, (this->*handler)(request, c));
    return to_json(reply);
  }

  // core.cpp
  Result<Json> dispatch(std::string_view method, const Json& body, const Call& c);
  Result<records::InfoReply> info(const records::InfoRequest& r, const Call& c);
  Result<records::Signed<records::LogHead>> resume(const records::ResumeRequest& r, const Call& c);
  Result<records::Signed<records::LogHead>> head(const records::Empty& r, const Call& c);
  // This log begins with the one whose head it is. kLogRolledBack, and what its signature lacks.
  Status begins_with(const records::Signed<records::LogHead>& head) const;
  Result<records::Signed<records::PublishAck>> publish(const records::Publish& p, const Call& c);
  Result<records::Signed<records::BeaconAck>> beacon(const records::BeaconRequest& r,
                                                     const Call& c);
  Result<records::Empty> rotate(const records::RotateRequest& r, const Call& c);
  Result<records::Explanation> explain(const records::SignedSubmission& s, const Call& c);
  Result<records::Signed<records::RunPlan>> authorise(const records::SignedSubmission& s,
                                                      const Call& c);
  Result<records::Empty> cancel(const records::CancelRequest& r, const Call& c);
  Result<records::Signed<records::LedgerStatement>> ledger(const records::LedgerRequest& r,
                                                           const Call& c);
  Result<records::Signed<records::HeldLedgerStatement>> held_ledger(
      const records::HeldLedgerRequest& r, const Call& c);
  // attempt.cpp
  Result<records::Signed<records::Credential>> credential(const records::CredentialRequest& r,
                                                          const Call& c);
  Result<records::HelloReply> hello(const records::CredentialRequest& r, const Call& c);
  Result<records::AttestReply> attest(const records::AttestRequest& r, const Call& c);
  Result<records::KeyReply> key(const records::Signed<records::KeyRequest>& r, const Call& c);
  Result<records::Signed<records::SealAck>> seal(const records::Seal& s, const Call& c);
  // decide.cpp
  Result<records::Judgement> judge(const records::JobRequest& r, const Call& c);
  Result<records::Judgement> ruling(const records::RulingRequest& r, const Call& c);
  Result<records::Receipt> receipt(const records::JobRequest& r, const Call& c);

  // The key that an identity signs with now, if the chain shows exactly the rotations of the log.
  // kChainBroken.
  Result<crypto::PublicKey> standing(const records::IdentityChain& chain) const;
  policy::PolicyInputs policy_inputs(const records::SignedSubmission& s, std::int64_t now) const;
  policy::AssetFacts facts(const PolicyState& p) const;
  Status check_publish(const records::Publish& p) const;
  Result<records::Signed<records::PublishAck>> publish_ack(const PolicyState& p) const;
  Status check_beacon(const records::BeaconRequest& r, const PolicyState& p,
                      std::int64_t now) const;
  Result<records::Signed<records::BeaconAck>> beacon_ack(const PolicyState& p) const;
  template <class Body>
  Result<records::Signed<Body>> sign(Body body) const {
    return records::sign(set_id_, std::move(body), keys_.signing);
  }

  Result<Found> live(const Hash32& job_id, std::int64_t attempt) const;
  // The consumer's key stands that signed the submission. kChainBroken.
  Status submission_stands(const JobState& job) const;
  // It does, every policy of the plan is still the one in force, and every lease that the plan
  // rests on still good. kChainBroken, kPolicyStale, kPolicyRevoked, kPolicyExpired,
  // kPolicyNotFresh, kLeaseExpired, kLeaseMissing.
  Status recheck(const JobState& job, std::int64_t now) const;
  Status lease_stands(const JobState& job, const LeaseUseEntry& use, std::int64_t now) const;
  Status check_credential(const records::AttestRequest& r, const Found& f, std::int64_t now) const;
  Result<records::Verdict> verify_evidence(const records::AttestRequest& r, const Found& f,
                                           const Connection& own, const Call& c) const;
  bool attested_later(const Hash32& job_id, std::int64_t attempt, std::uint64_t than) const;
  void supersede(const Hash32& job_id, std::int64_t attempt);
  Status check_bound(const Hash32& job_id, std::int64_t attempt, const Call& c) const;
  Status check_request(const records::Signed<records::KeyRequest>& r, const AttemptState& a) const;
  Status within_budget(const JobState& job, const records::Policy& policy,
                       const records::PlanCharge& charge, std::int64_t now) const;
  Result<std::vector<records::PlanCharge>> reserve(const JobState& job, std::int64_t now) const;
  Result<std::vector<records::BundledKey>> keys_for(const JobState& job, std::int64_t stage) const;
  Result<KeyEntry> make_key_entry(const records::Signed<records::KeyRequest>& r, const Found& f,
                                  std::int64_t now);
  Status check_statement(const records::RunStatement& s, const Found& f) const;
  Status kill(const Hash32& job_id, std::int64_t attempt, Reason reason, std::int64_t now);

  struct Outcome {
    records::Recommendation what = records::Recommendation::kReject;
    std::vector<std::string> reasons;
  };
  Status advance(const Hash32& job_id, std::int64_t now);
  Outcome weigh(const JobState& job, std::int64_t now) const;
  policy::Panel panel(const JobState& job) const;
  Status release_allowed(const JobState& job, std::int64_t now) const;
  std::vector<records::PlanCharge> final_charges(const JobState& job,
                                                 records::ReleaseDecision decision) const;
  Status reasons_fit(const JobState& job, const records::Ruling& ruling, std::int64_t now) const;
  Status hold(const Hash32& job_id, const JobState& job, const Outcome& outcome, std::int64_t now);
  Status decide(const Hash32& job_id, const JobState& job, const Outcome& outcome,
                std::int64_t now);
  Result<records::Judgement> judgement(const JobState& job, std::int64_t now) const;
  Result<records::Release> release_of(const JobState& job) const;
  Result<records::Signed<records::SealAck>> told_ack(const JobState& job) const;
  bool lease_counts(const JobState& job, const records::Signed<records::Lease>& l) const;

  // Constant after construction.
  BrokerKeys keys_;
  records::SetId set_id_{};
  std::int64_t epoch_ = 0;
  std::string set_key_;
  Random& random_;
  policy::Capacity capacity_;
  records::EvidenceCheck evidence_;

  std::unique_ptr<Log> log_;
  bool resumed_ = false;
  std::optional<Error> rolled_back_;
  std::map<std::uint64_t, Connection> connections_;
};

}  // namespace gbx::broker
