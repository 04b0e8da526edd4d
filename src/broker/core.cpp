// Opening, dispatch, and what needs no environment: publishing, identities, authorising,
// cancelling.
#include "broker/core.h"

#include <algorithm>

#include "lease/lease.h"
#include "records/sealing.h"

namespace gbx::broker {

using namespace records;  // NOLINT: the contract's names are this file's vocabulary

Result<std::unique_ptr<Core>> Core::open(BrokerKeys keys, LogStore& store, Random& random,
                                         policy::Capacity capacity, const Awake& awake,
                                         EvidenceCheck evidence) {
  if (keys.signing.public_key().algorithm() != crypto::SignatureAlgorithm::kEd25519) {
    return fail(Reason::kBadSuite, "the set's signing key")
        .with("ed25519", keys.signing.public_key().text());
  }
  std::unique_ptr<Core> core(
      new Core(std::move(keys), random, std::move(capacity), std::move(evidence)));
  core->set_id_ = core->keys_.set.charter.set_id();
  GBX_ASSIGN(SetChain::Keys names, core->keys_.set.verify(core->set_id_));
  if (!(names.kek == core->keys_.kek.public_key()) ||
      !(names.signing == core->keys_.signing.public_key())) {
    return fail(Reason::kWrongSet, "the private keys are not those that the set key signed");
  }
  const Charter& charter = core->keys_.set.charter;
  if (charter.witness_threshold > 0 || charter.custody != Custody::kOperator) {
    return fail(Reason::kUnsupported, "the charter's witnesses or custody")
        .with("witnessThreshold 0, custody operator",
              "witnessThreshold " + std::to_string(charter.witness_threshold) + ", custody " +
                  std::string(enum_name(charter.custody)));
  }
  core->epoch_ = names.epoch;
  core->set_key_ = names.set_key.text();
  GBX_ASSIGN(core->log_, Log::open(store, random, awake));
  if (core->log_->size() > 0) {
    GBX_ASSIGN(Json first, core->log_->entry(0));
    GBX_ASSIGN(LogEntry entry, from_json<LogEntry>(first));
    GBX_ASSIGN(BootEntry boot, from_json<BootEntry>(entry.body));
    if (boot.set_id != core->set_id_) {
      return fail(Reason::kWrongSet, "the log is another set's")
          .with(to_hex(core->set_id_), to_hex(boot.set_id));
    }
  }
  return core;
}

Status Core::ended_by() const {
  if (rolled_back_) return *rolled_back_;
  if (healthy()) return ok_status();
  return fail(Reason::kDatabase, "the log could not be written or read")
      .hint("start the broker again");
}

namespace {

// As for requests that people sign (httpsig).
constexpr std::int64_t kOwnerSkewSeconds = 120;

Error unavailable() {
  return fail(Reason::kUnavailable, "the log must be read again after a failure")
      .hint("restart the broker");
}

Status may_call(std::string_view m, const ConnectionContext& c) {
  if (m == method::kInfo || c.peer == Peer::kPlane) return ok_status();
  if (m.rfind("agent.", 0) == 0) {
    if (c.peer_key) return ok_status();
    return fail(Reason::kUnauthenticated, "an agent proves its key")
        .hint("connect with the key of agentKeys.tls");
  }
  return fail(Reason::kUnauthenticated, "this is the plane's to ask")
      .with("the plane's key, with which the broker was started",
            c.peer_key ? c.peer_key->text() : "no key")
      .hint("glovebox-broker serve --plane KEY; glovebox-plane key prints it");
}

Status small_enough(const char* what, const Json& json, std::int64_t limit) {
  const auto bytes = static_cast<std::int64_t>(canonical(json).size());
  if (bytes <= limit) return ok_status();
  return fail(Reason::kTooLarge, what)
      .with("at most " + std::to_string(limit) + " bytes", std::to_string(bytes));
}

}  // namespace

Result<Json> Core::handle(std::string_view m, const Json& body, const ConnectionContext& connection,
                          TimeMs now) {
  // What is in memory after a failed append may not be durable, so nothing may be told of it.
  if (!healthy()) return unavailable();
  GBX_TRY(may_call(m, connection));
  // An old log would forget revocations and charges: nobody gets anything by it.
  if (!resumed_ && m != method::kInfo && m != method::kResume) {
    return fail(Reason::kUnavailable, "the broker waits for the plane's copy of its log head")
        .hint("start the plane; glovebox doctor says whether it reaches the broker");
  }
  GBX_TRY(small_enough("request", body, kMaxRequestBytes));
  log_->rest();
  // Time never runs backwards for the log, whatever the machine's clock does.
  Result<Json> reply =
      dispatch(m, body, Call{connection, std::max(now.seconds(), log_->state().last_time())});
  // A job whose entries could not be read again looks like one that nobody knows: whatever was
  // answered may rest on that, a refusal too.
  if (log_->unreadable()) return unavailable();
  return reply;
}

Result<Json> Core::dispatch(std::string_view m, const Json& body, const Call& c) {
  if (m == method::kInfo) return call(&Core::info, body, c);
  if (m == method::kResume) return call(&Core::resume, body, c);
  if (m == method::kHead) return call(&Core::head, body, c);
  if (m == method::kPublish) return call(&Core::publish, body, c);
  if (m == method::kRotate) return call(&Core::rotate, body, c);
  if (m == method::kBeacon) return call(&Core::beacon, body, c);
  if (m == method::kLedger) return call(&Core::ledger, body, c);
  if (m == method::kHeldLedger) return call(&Core::held_ledger, body, c);
  if (m == method::kExplain) return call(&Core::explain, body, c);
  if (m == method::kAuthorise) return call(&Core::authorise, body, c);
  if (m == method::kCancel) return call(&Core::cancel, body, c);
  if (m == method::kCredential) return call(&Core::credential, body, c);
  if (m == method::kJudge) return call(&Core::judge, body, c);
  if (m == method::kRuling) return call(&Core::ruling, body, c);
  if (m == method::kReceipt) return call(&Core::receipt, body, c);
  if (m == method::kHello) return call(&Core::hello, body, c);
  if (m == method::kAttest) return call(&Core::attest, body, c);
  if (m == method::kKey) return call(&Core::key, body, c);
  if (m == method::kSeal) return call(&Core::seal, body, c);
  return fail(Reason::kNotFound, "method")
      .with("a method of the broker", std::string(m.substr(0, 64)));
}

Result<InfoReply> Core::info(const InfoRequest& r, const Call& c) {
  BrokerEvidence e;
  e.set_key = set_key_;
  e.kek = keys_.kek.public_key().text();
  e.epoch = epoch_;
  e.nonce = r.nonce;
  e.custody = keys_.set.charter.custody;
  e.time = c.now;
  // No tree (size 0): strangers get this answer, and a log that grows at the moment of a seal would
  // tell them of it before the owners' release slot. docs/decisions/0013.
  InfoReply reply;
  reply.set = keys_.set;
  GBX_ASSIGN(reply.evidence, sign(std::move(e)));
  return reply;
}

Status Core::begins_with(const Signed<LogHead>& head) const {
  GBX_TRY(head.verify(set_id_, keys_.signing.public_key()));
  if (head.body.epoch != epoch_) {
    return fail(Reason::kWrongSet, "epoch of the log head")
        .with(std::to_string(epoch_), std::to_string(head.body.epoch));
  }
  const auto size = static_cast<std::int64_t>(log_->size());
  const std::string seen = std::to_string(head.body.tree_size) + " entries or more";
  const char* next = "stop everything and put the newest log.db of the broker back";
  if (size < head.body.tree_size) {
    return fail(Reason::kLogRolledBack, "the log is older than its head that the plane has seen")
        .with(seen, std::to_string(size))
        .hint(next);
  }
  const Status same = log_->begins_with(head.body.tree_size, head.body.tree_root);
  if (same.ok() || same.reason() != Reason::kBadInclusion) return same;
  return fail(Reason::kLogRolledBack, "the log went another way than the one the plane has seen")
      .with(seen + ", of which the first have the root " + to_hex(head.body.tree_root),
            std::to_string(size) + ", of which they have another")
      .hint(next);
}

// At every start, and whenever a plane connects: a head that the set has signed and that is not of
// this log shows two logs of one set, also while the program runs.
Result<Signed<LogHead>> Core::resume(const ResumeRequest& r, const Call& c) {
  if (r.head) {
    const Status good = begins_with(*r.head);
    if (!good.ok()) {
      if (good.reason() == Reason::kLogRolledBack) rolled_back_ = good.error();
      return good.error();
    }
  }
  if (!resumed_) {
    GBX_TRY(log_->append({make_entry(c.now, BootEntry{set_id_, epoch_, random_.fixed<32>()})}));
    resumed_ = true;
  }
  return head({}, c);
}

// For the plane alone: its size grows at the moment of a seal (docs/decisions/0013). Its time is
// the last entry's, so that one state of the log has one head.
Result<Signed<LogHead>> Core::head(const Empty&, const Call&) {
  return sign(
      LogHead{epoch_, static_cast<std::int64_t>(log_->size()), log_->root(), state().last_time()});
}

Result<crypto::PublicKey> Core::standing(const IdentityChain& chain) const {
  const IdentityChain known = state().chain(chain.identity);
  const auto same = [](const auto& a, const auto& b) { return a.hash() == b.hash(); };
  if (!std::equal(known.rotations.begin(), known.rotations.end(), chain.rotations.begin(),
                  chain.rotations.end(), same)) {
    return fail(Reason::kChainBroken, "key rotations of the identity")
        .with(std::to_string(known.rotations.size()) + " in the log",
              std::to_string(chain.rotations.size()))
        .hint("send the rotation to the broker first, or sign with the newest key");
  }
  return known.current_key(set_id_);
}

policy::AssetFacts Core::facts(const PolicyState& p) const {
  return {state().chain(p.publish.owner.identity), p.publish.record, p.publish.policy,
          p.confirmed_at()};
}

policy::PolicyInputs Core::policy_inputs(const SignedSubmission& s, std::int64_t now) const {
  policy::PolicyInputs in;
  in.set_id = set_id_;
  in.custody = keys_.set.charter.custody;
  in.now = now;
  in.submission = s;
  in.capacity = capacity_;
  in.asset = [this](const Hash32& version) -> std::optional<policy::AssetFacts> {
    const PolicyState* p = state().current_policy(version);
    if (p == nullptr) return std::nullopt;
    return facts(*p);
  };
  in.lease = [this, &s, now](const policy::AssetFacts& f) {
    const lease::SignedLeases book(
        s, [this](const Lease& l) { return state().lease_uses(l.lease_id, l.asset_id); });
    const auto& p = f.policy.body;
    return book.find({set_id_, p.asset_id, s.submission.body.consumer_id, &f.owner,
                      &p.clauses.lease_issuers, now});
  };
  in.spent = [this, &s, now](const policy::AssetFacts& f) {
    const auto& p = f.policy.body;
    return state().told_spent({p.owner_id, p.asset_id, 0, 0}, s.submission.body.consumer_id,
                              now - p.clauses.gate.period_days * 86400, s.submission.body.job_id());
  };
  in.current_key = [this](const IdentityChain& chain) { return standing(chain); };
  return in;
}

Status Core::check_publish(const Publish& p) const {
  const Policy& body = p.policy.body;
  GBX_TRY(small_enough("policy", to_json(body), kMaxPolicyBytes));
  GBX_TRY(p.validate());
  GBX_ASSIGN(crypto::PublicKey key, standing(p.owner));
  GBX_TRY(policy::verify_asset(set_id_, {p.owner, p.record, p.policy, 0}));
  GBX_TRY(p.policy.verify(set_id_, key));
  const PolicyState* last = state().current_policy(body.asset_version_id);
  // A key that was rotated away signs nothing new; the record that was accepted while it stood
  // stays good.
  const auto accepted = [&](const Publish& before) {
    return before.record.key == p.record.key && before.record.signature == p.record.signature;
  };
  if (last == nullptr || !accepted(last->publish)) GBX_TRY(p.record.verify(set_id_, key));
  const auto owner = state().owner_of(body.asset_id);
  if (owner && *owner != body.owner_id) {
    return fail(Reason::kWrongOwner, "another identity published this asset first")
        .with(to_hex(*owner), to_hex(body.owner_id));
  }
  const std::int64_t serial = last == nullptr ? 1 : last->publish.policy.body.serial + 1;
  if (body.serial != serial) {
    return fail(Reason::kPolicyStale, "policy serial")
        .with(std::to_string(serial), std::to_string(body.serial));
  }
  const Hash32 prev = last == nullptr ? Hash32{} : last->publish.policy.hash();
  if (body.prev != prev) {
    return fail(Reason::kChainBroken, "hash of the policy before")
        .with(to_hex(prev), to_hex(body.prev));
  }
  if (body.kek_epoch != epoch_) {
    return fail(Reason::kPolicyMismatch, "epoch of the set's key")
        .with(std::to_string(epoch_), std::to_string(body.kek_epoch));
  }
  for (const auto& r : body.clauses.reviewers) {
    GBX_TRY(crypto::PublicKey::from_text(r.key));
    GBX_TRY(crypto::HpkePublicKey::from_text(r.hpke));
  }
  // a revocation: Publish::validate() let nothing else pass without a key
  if (!p.wrapped_key) return ok_status();
  auto dk = unwrap_dataset_key(keys_.kek, body, *p.wrapped_key);
  if (dk.ok()) return ok_status();
  if (dk.reason() != Reason::kBadTag && dk.reason() != Reason::kTruncated) return dk.error();
  return fail(Reason::kWrongRecipient,
              "the wrapped key does not open with this set's key under this policy")
      .with(keys_.kek.public_key().text(), "sealed to another key or policy");
}

Result<Signed<PublishAck>> Core::publish_ack(const PolicyState& p) const {
  const auto& policy = p.publish.policy;
  GBX_ASSIGN(Inclusion inclusion, log_->inclusion(p.leaf));
  return sign(PublishAck{policy.body.asset_version_id, policy.hash(), policy.body.serial,
                         p.accepted_at, std::move(inclusion)});
}

Result<Signed<PublishAck>> Core::publish(const Publish& p, const Call& c) {
  const Hash32 hash = p.policy.hash();
  const PolicyState* known = state().policy(hash);
  if (known != nullptr) {
    if (known != state().current_policy(p.policy.body.asset_version_id)) {
      return fail(Reason::kPolicyStale, "a later policy is in force");
    }
    // The acknowledgement proves what was logged, and not the same by another key of the owner's.
    if (known->publish.policy.key == p.policy.key) return publish_ack(*known);
    return fail(Reason::kPolicyStale, "the same policy is in force, signed with another key")
        .with(known->publish.policy.key, p.policy.key)
        .hint("send it as it was signed first");
  }
  GBX_TRY(check_publish(p));
  GBX_TRY(log_->append({make_entry(c.now, PublishEntry{p})}));
  return publish_ack(*state().policy(hash));
}

// About the policy in force, by the owner's present key, later than the one before. A clock that is
// ahead gains its owner two minutes at most.
Status Core::check_beacon(const BeaconRequest& r, const PolicyState& p, std::int64_t now) const {
  const OwnerBeacon& b = r.beacon.body;
  const Policy& policy = p.publish.policy.body;
  if (b.owner_id != policy.owner_id || r.owner.id() != policy.owner_id) {
    return fail(Reason::kWrongOwner, "a beacon is the owner's")
        .with(to_hex(policy.owner_id), to_hex(r.owner.id()));
  }
  GBX_ASSIGN(crypto::PublicKey key, standing(r.owner));
  GBX_TRY(r.beacon.verify(set_id_, key));
  if (b.policy_hash != p.publish.policy.hash()) {
    return fail(Reason::kPolicyStale, "the beacon is about another policy than the one in force")
        .with(to_hex(p.publish.policy.hash()), to_hex(b.policy_hash));
  }
  if (policy.revoked) return fail(Reason::kPolicyRevoked, "a revoked policy needs no beacon");
  if (policy.clauses.fresh_for_seconds == 0) {
    return fail(Reason::kWrongState, "this policy asks for no beacon")
        .with("freshForSeconds above 0", "0");
  }
  if (b.time > now + kOwnerSkewSeconds) {
    return fail(Reason::kBadValue, "time of the beacon")
        .with("at most " + format_time(now + kOwnerSkewSeconds), format_time(b.time))
        .hint("set the owner's clock");
  }
  if (p.beacon && b.time <= p.beacon->request.beacon.body.time) {
    return fail(Reason::kReplayed, "the beacon is not later than the last one")
        .with("after " + format_time(p.beacon->request.beacon.body.time), format_time(b.time));
  }
  return ok_status();
}

Result<Signed<BeaconAck>> Core::beacon_ack(const PolicyState& p) const {
  GBX_ASSIGN(Inclusion inclusion, log_->inclusion(p.beacon->leaf));
  const Policy& policy = p.publish.policy.body;
  return sign(BeaconAck{p.beacon->request.beacon.hash(), p.publish.policy.hash(),
                        p.confirmed_at() + policy.clauses.fresh_for_seconds, p.beacon->accepted_at,
                        std::move(inclusion)});
}

Result<Signed<BeaconAck>> Core::beacon(const BeaconRequest& r, const Call& c) {
  const PolicyState* p = state().current_policy(r.beacon.body.asset_version_id);
  if (p == nullptr) return fail(Reason::kPolicyMissing, "this version was never published here");
  if (p->beacon && p->beacon->request.beacon.hash() == r.beacon.hash()) return beacon_ack(*p);
  GBX_TRY(check_beacon(r, *p, c.now));
  GBX_TRY(log_->append({make_entry(c.now, BeaconEntry{r})}));
  return beacon_ack(*p);
}

Result<Empty> Core::rotate(const RotateRequest& r, const Call& c) {
  IdentityChain chain = state().chain(r.identity);
  if (!chain.rotations.empty() && chain.rotations.back().hash() == r.rotation.hash()) {
    return Empty{};
  }
  const auto own = static_cast<std::size_t>(
      std::count_if(chain.rotations.begin(), chain.rotations.end(),
                    [&](const auto& done) { return done.key != chain.identity.recovery_key; }));
  const bool recovers = r.rotation.key == chain.identity.recovery_key;
  if (!recovers && own >= kOwnRotations) {
    return fail(Reason::kTooLarge, "rotations of one identity by its signing keys")
        .with("at most " + std::to_string(kOwnRotations), std::to_string(own + 1))
        .hint("sign this one with the recovery key");
  }
  if (chain.rotations.size() >= kRotations) {
    return fail(Reason::kTooLarge, "rotations of one identity")
        .with("at most " + std::to_string(kRotations), std::to_string(chain.rotations.size() + 1))
        .hint("make a new identity");
  }
  chain.rotations.push_back(r.rotation);
  GBX_TRY(chain.current_key(set_id_));
  GBX_TRY(log_->append({make_entry(c.now, RotateEntry{r.identity, r.rotation})}));
  return Empty{};
}

Result<Explanation> Core::explain(const SignedSubmission& s, const Call& c) {
  return policy::explain(policy_inputs(s, c.now));
}

Result<Signed<RunPlan>> Core::authorise(const SignedSubmission& s, const Call& c) {
  const Hash32 job_id = s.submission.body.job_id();
  if (const JobState* job = state().job(job_id)) {
    if (job->cancelled) return fail(Reason::kJobCancelled, "this job was cancelled");
    return job->plan;
  }
  const policy::Judged judged = policy::judge(policy_inputs(s, c.now));
  GBX_TRY(policy::denial(judged.explanation));
  GBX_ASSIGN(Signed<RunPlan> plan, sign(*judged.explanation.plan));
  std::vector<LogEntry> entries{make_entry(c.now, AuthoriseEntry{s, plan})};
  for (const auto& use : judged.leases) {
    entries.push_back(make_entry(c.now, LeaseUseEntry{job_id, use.lease_id, use.asset_id}));
  }
  GBX_TRY(log_->append(entries));
  return plan;
}

Result<Empty> Core::cancel(const CancelRequest& r, const Call& c) {
  const auto& body = r.cancel.body;
  const JobState* job = state().job(body.job_id);
  if (job == nullptr) return fail(Reason::kNotFound, "job");
  const Hash32& consumer = job->submission.submission.body.consumer_id;
  if (body.consumer_id != consumer || r.consumer.id() != consumer) {
    return fail(Reason::kWrongOwner, "only the consumer may cancel")
        .with(to_hex(consumer), to_hex(body.consumer_id));
  }
  GBX_ASSIGN(crypto::PublicKey key, standing(r.consumer));
  GBX_TRY(r.cancel.verify(set_id_, key));
  if (job->cancelled) {
    GBX_TRY(advance(body.job_id, c.now));  // a crash may have come between the two
    return Empty{};
  }
  if (job->decision) return fail(Reason::kWrongState, "the output was decided already");
  std::vector<LogEntry> entries;
  if (!job->attempts.empty() && job->attempts.back().dead.empty()) {
    entries.push_back(make_entry(
        c.now, TombstoneEntry{body.job_id, static_cast<std::int64_t>(job->attempts.size()),
                              std::string(reason_code(Reason::kJobCancelled))}));
  }
  // Whoever had the data has told what a rejection tells, and reviewers their reasons; the rest of
  // the reservation is free again.
  const std::int64_t told = policy::rejection_bits(job->plan.body, job->attempts_with_data()) +
                            policy::ruling_bits(panel(*job).rulings);
  std::vector<PlanCharge> charges = job->reserved;
  for (auto& charge : charges) {
    charge.free_bits = told;
    charge.verified_bits = 0;
    charge.zcdp_micro = 0;
    charge.code_id = policy::kControlCode;
  }
  entries.push_back(make_entry(c.now, CancelEntry{r, std::move(charges)}));
  GBX_TRY(log_->append(entries));
  GBX_TRY(advance(body.job_id, c.now));
  return Empty{};
}

}  // namespace gbx::broker
