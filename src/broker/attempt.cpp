// One attempt of a job: credential, nonce, evidence, the two stages of keys, the seal.
#include <algorithm>

#include "broker/core.h"
#include "lease/lease.h"
#include "records/sealing.h"

namespace gbx::broker {

using namespace records;  // NOLINT: the contract's names are this file's vocabulary

namespace {

Error superseded(std::int64_t attempt, const std::string& why) {
  return fail(Reason::kCredentialSuperseded, "attempt " + std::to_string(attempt) + " is over")
      .with("the live attempt", why);
}
Error no_credential(std::int64_t attempt, std::int64_t given) {
  return fail(Reason::kCredentialForeign, "no credential was given for this attempt")
      .with("at most " + std::to_string(given), std::to_string(attempt));
}

Error proved_elsewhere() {
  return fail(Reason::kCredentialUsed,
              "the agent has proved itself on another connection since this one")
      .hint("if the node did not lose the connection, a copy of this guest is running");
}

}  // namespace

// By the key of now: whoever stole the one that signed gets nothing once it is rotated away.
Status Core::submission_stands(const JobState& job) const {
  const auto& s = job.submission;
  GBX_ASSIGN(crypto::PublicKey key, state().chain(s.consumer.identity).current_key(set_id_));
  if (key.text() == s.submission.key) return ok_status();
  return fail(Reason::kChainBroken, "the key that signed this submission was rotated away since")
      .with("the consumer's standing key", "an older one")
      .hint("submit the job again");
}

Status Core::recheck(const JobState& job, std::int64_t now) const {
  GBX_TRY(submission_stands(job));
  for (const auto& p : job.plan.body.policies) {
    const PolicyState* current = state().current_policy(p.asset_version_id);
    if (current == nullptr) return fail(Reason::kPolicyMissing, "policy of the plan");
    GBX_TRY(policy::in_force(facts(*current), now));
    if (current->publish.policy.hash() != p.policy_hash) {
      return fail(Reason::kPolicyStale,
                  "the owner has published another policy since the plan was made")
          .with("serial " + std::to_string(p.serial),
                "serial " + std::to_string(current->publish.policy.body.serial))
          .hint("submit the job again");
    }
  }
  for (const auto& use : job.lease_uses) GBX_TRY(lease_stands(job, use, now));
  return ok_status();
}

// By the owner's key and the issuers of now: a lease that a stolen key made opens nothing once the
// key is rotated away.
Status Core::lease_stands(const JobState& job, const LeaseUseEntry& use, std::int64_t now) const {
  Error last = fail(Reason::kLeaseMissing, "the lease that the plan rests on");
  for (const auto& l : job.submission.leases) {
    if (l.body.lease_id != use.lease_id || l.body.asset_id != use.asset_id) continue;
    for (const auto& named : job.plan.body.policies) {
      const PolicyState* current = state().current_policy(named.asset_version_id);
      if (current == nullptr || current->publish.policy.body.asset_id != use.asset_id) continue;
      const IdentityChain owner = state().chain(current->publish.owner.identity);
      const auto& issuers = current->publish.policy.body.clauses.lease_issuers;
      const Status s =
          lease::verify_lease(l, {set_id_, use.asset_id, job.submission.submission.body.consumer_id,
                                  &owner, &issuers, now, lease::Signer::kStanding});
      if (s.ok()) return s;
      last = s.error();
    }
  }
  return last;
}

// The attempt, when it may still get something or give its seal.
Result<Core::Found> Core::live(const Hash32& job_id, std::int64_t attempt) const {
  const JobState* job = state().job(job_id);
  if (job == nullptr) return fail(Reason::kNotFound, "job");
  if (job->cancelled) return fail(Reason::kJobCancelled, "the consumer has cancelled this job");
  const auto given = static_cast<std::int64_t>(job->attempts.size());
  if (attempt < 1 || attempt > given) return no_credential(attempt, given);
  const AttemptState& a = job->attempts[static_cast<std::size_t>(attempt) - 1];
  if (!a.dead.empty()) return superseded(attempt, a.dead);
  return Found{*job, a};
}

Result<Signed<Credential>> Core::credential(const CredentialRequest& r, const Call& c) {
  const JobState* job = state().job(r.job_id);
  if (job == nullptr) return fail(Reason::kNotFound, "job").hint("authorise it first");
  if (job->cancelled) return fail(Reason::kJobCancelled, "the consumer has cancelled this job");
  const auto given = static_cast<std::int64_t>(job->attempts.size());
  if (r.attempt <= given) {
    const AttemptState& a = job->attempts[static_cast<std::size_t>(r.attempt) - 1];
    if (!a.dead.empty()) return superseded(r.attempt, a.dead);
    return a.credential;
  }
  if (job->seal) return fail(Reason::kWrongState, "the job has its output");
  if (r.attempt != given + 1) {
    return fail(Reason::kSequenceMismatch, "attempt")
        .with(std::to_string(given + 1), std::to_string(r.attempt));
  }
  const auto used = std::count_if(job->attempts.begin(), job->attempts.end(),
                                  [](const auto& a) { return !a.keys.empty(); });
  if (used >= job->plan.body.attempts) {
    return fail(Reason::kAttemptsExceeded, "attempts that got keys")
        .with(std::to_string(job->plan.body.attempts), std::to_string(used));
  }
  // Each is an entry that every later start reads, and every question that wakes the job.
  const std::int64_t most = job->plan.body.attempts + kKeylessAttempts;
  if (given >= most) {
    return fail(Reason::kAttemptsExceeded, "attempts, with keys or without")
        .with("at most " + std::to_string(most), std::to_string(r.attempt))
        .hint("see why its attempts get no keys, and submit the job again");
  }
  const auto& submission = job->submission.submission.body;
  if (c.now > submission.not_after) {
    return fail(Reason::kExpired, "submission")
        .with("before " + format_time(submission.not_after), format_time(c.now));
  }
  GBX_TRY(recheck(*job, c.now));
  Credential body;
  body.job_id = r.job_id;
  body.attempt = r.attempt;
  body.plan_hash = job->plan.hash();
  body.nonce = random_.fixed<32>();
  body.expires = c.now + std::min(submission.spec.spec.timeouts.start, kLongestCredentialSeconds);
  GBX_ASSIGN(Signed<Credential> credential, sign(std::move(body)));
  std::vector<LogEntry> entries;
  if (given > 0 && job->attempts.back().dead.empty()) {
    entries.push_back(make_entry(
        c.now,
        TombstoneEntry{r.job_id, given, std::string(reason_code(Reason::kCredentialSuperseded))}));
  }
  entries.push_back(make_entry(c.now, CredentialEntry{credential}));
  GBX_TRY(log_->append(entries));
  return credential;
}

// Whoever made himself a key may ask: no job is read for him. Only the last attempt can be live.
Result<HelloReply> Core::hello(const CredentialRequest& r, const Call& c) {
  const std::optional<std::int64_t> given = state().attempts(r.job_id);
  if (!given) return fail(Reason::kNotFound, "job");
  if (r.attempt < 1 || r.attempt > *given) return no_credential(r.attempt, *given);
  if (r.attempt < *given) {
    return superseded(r.attempt, std::string(reason_code(Reason::kCredentialSuperseded)));
  }
  Connection& own = connections_[c.connection.id];
  if (own.nonces.size() >= kHellosPerConnection) {
    return fail(Reason::kRateLimited, "greetings on one connection");
  }
  if (!own.nonces.empty() && (own.job_id != r.job_id || own.attempt != r.attempt)) {
    return fail(Reason::kWrongState, "one connection serves one attempt").hint("connect again");
  }
  own.job_id = r.job_id;
  own.attempt = r.attempt;
  own.nonces.push_back(random_.fixed<32>());
  own.nonce_used = false;
  return HelloReply{own.nonces.back()};
}

// The credential is this set's, of this live attempt, and nobody else's agent has used it.
Status Core::check_credential(const AttestRequest& r, const Found& f, std::int64_t now) const {
  const auto& body = r.credential.body;
  if (r.credential.hash() != f.attempt.credential.hash()) {
    return fail(Reason::kCredentialForeign, "this credential was not given for this attempt");
  }
  if (f.attempt.attest) {
    if (hash_of(f.attempt.attest->agent_keys) == hash_of(r.agent_keys)) return ok_status();
    return fail(Reason::kCredentialUsed, "another agent has used this credential")
        .hint("ask for the next attempt");
  }
  if (now > body.expires) {
    return fail(Reason::kCredentialExpired, "credential")
        .with("before " + format_time(body.expires), format_time(now));
  }
  return ok_status();
}

Result<Verdict> Core::verify_evidence(const AttestRequest& r, const Found& f, const Connection& own,
                                      const Call& c) const {
  ReportData report;
  report.set_id = set_id_;
  report.nonce = own.nonces.back();
  report.job_id = own.job_id;
  report.attempt = own.attempt;
  report.credential = r.credential.hash();
  report.plan_hash = f.job.plan.hash();
  report.agent_keys = hash_of(r.agent_keys);
  report.exporter = c.connection.exporter;
  ExpectedEvidence expected{set_id_, report, {set_id_, set_key_}, keys_.set.charter, c.now};
  auto verdict = check_evidence(evidence_, r.evidence, expected);
  if (!verdict.ok()) {
    // Says so when the evidence answers a nonce that this connection got earlier.
    for (std::size_t i = 0; i + 1 < own.nonces.size(); ++i) {
      expected.report.nonce = own.nonces[i];
      if (check_evidence(evidence_, r.evidence, expected).ok()) {
        return fail(Reason::kNonceMismatch, "the evidence answers an older nonce")
            .with(to_hex(own.nonces.back()), to_hex(own.nonces[i]));
      }
    }
    return verdict;
  }
  if (r.evidence.node && (r.evidence.node->body.job_id != own.job_id ||
                          r.evidence.node->body.attempt != own.attempt)) {
    return fail(Reason::kEvidenceRejected, "the node introduced an agent of another attempt");
  }
  GBX_TRY(policy::verdict_allowed(f.job.plan.body.tee, *verdict));
  return verdict;
}

// An agent has one connection at a time, the newest that attested: of a guest and its clone one
// goes on, and they cannot take turns unseen (docs/decisions/0028).
bool Core::attested_later(const Hash32& job_id, std::int64_t attempt, std::uint64_t than) const {
  return std::any_of(connections_.upper_bound(than), connections_.end(), [&](const auto& entry) {
    const Connection& other = entry.second;
    return other.attested && other.job_id == job_id && other.attempt == attempt;
  });
}
void Core::supersede(const Hash32& job_id, std::int64_t attempt) {
  for (auto& [id, other] : connections_) {
    if (!other.attested || other.job_id != job_id || other.attempt != attempt) continue;
    other.attested = false;
    other.superseded = true;
  }
}

Result<AttestReply> Core::attest(const AttestRequest& r, const Call& c) {
  const auto& body = r.credential.body;
  if (!r.credential.verify(set_id_, keys_.signing.public_key()).ok()) {
    return fail(Reason::kCredentialForeign, "the credential is not signed by this set");
  }
  const auto it = connections_.find(c.connection.id);
  if (it == connections_.end() || it->second.nonces.empty()) {
    return fail(Reason::kNonceMismatch, "no nonce was asked for on this connection");
  }
  Connection& own = it->second;
  if (own.job_id != body.job_id || own.attempt != body.attempt) {
    return fail(Reason::kNonceMismatch, "the nonce of this connection is for another attempt");
  }
  GBX_ASSIGN(Found f, live(body.job_id, body.attempt));
  GBX_TRY(check_credential(r, f, c.now));
  // A message that was long on its way takes nothing from the connection of now.
  if (own.superseded || attested_later(body.job_id, body.attempt, c.connection.id)) {
    return proved_elsewhere();
  }
  const Hash32 request = crypto::sha256(as_bytes(canonical(to_json(r))));
  if (own.attested && own.attest_request == request) return AttestReply{f.attempt.evidence_hash()};
  if (own.nonce_used) {
    return fail(Reason::kNonceMismatch, "the nonce of this connection is used")
        .hint("connect again");
  }
  if (!c.connection.peer_key || c.connection.peer_key->text() != r.agent_keys.tls) {
    return fail(Reason::kAgentKeyMismatch, "the connection's key is not the agent's")
        .with(r.agent_keys.tls, c.connection.peer_key ? c.connection.peer_key->text() : "none");
  }
  GBX_TRY(crypto::HpkePublicKey::from_text(r.agent_keys.hpke));
  GBX_TRY(crypto::PublicKey::from_text(r.agent_keys.sig));
  GBX_ASSIGN(Verdict verdict, verify_evidence(r, f, own, c));
  // Later evidence of the same agent opens its new connection and is no part of the requests.
  if (!f.attempt.attest) {
    GBX_TRY(recheck(f.job, c.now));
    GBX_TRY(log_->append({make_entry(
        c.now, AttestEntry{body.job_id, body.attempt, own.nonces.back(), c.connection.exporter,
                           r.agent_keys, r.evidence, verdict})}));
  }
  supersede(body.job_id, body.attempt);
  own.nonce_used = true;
  own.attested = true;
  own.superseded = false;
  own.attest_request = request;
  GBX_ASSIGN(Found after, live(body.job_id, body.attempt));
  return AttestReply{after.attempt.evidence_hash()};
}

Status Core::check_bound(const Hash32& job_id, std::int64_t attempt, const Call& c) const {
  const auto it = connections_.find(c.connection.id);
  if (it != connections_.end() && it->second.superseded) {
    return proved_elsewhere();
  }
  if (it == connections_.end() || !it->second.attested || it->second.job_id != job_id ||
      it->second.attempt != attempt) {
    return fail(Reason::kUnauthenticated, "no evidence was accepted on this connection")
        .hint("attest first");
  }
  return ok_status();
}

Status Core::kill(const Hash32& job_id, std::int64_t attempt, Reason reason, std::int64_t now) {
  return log_->append(
      {make_entry(now, TombstoneEntry{job_id, attempt, std::string(reason_code(reason))})});
}

// A new request: the next one in the chain.
Status Core::check_request(const Signed<KeyRequest>& r, const AttemptState& a) const {
  const auto& body = r.body;
  const auto next = static_cast<std::int64_t>(a.keys.size()) + 1;
  const Hash32 prev = a.keys.empty() ? Hash32{} : a.keys.back().request.hash();
  if (body.seq != next) {
    return fail(Reason::kSequenceMismatch, "sequence number")
        .with(std::to_string(next), std::to_string(body.seq));
  }
  if (body.prev != prev) {
    return fail(Reason::kSequenceMismatch, "hash of the request before")
        .with(to_hex(prev), to_hex(body.prev));
  }
  if (body.stage != next) {
    return fail(Reason::kSequenceMismatch, "stage")
        .with(std::to_string(next), std::to_string(body.stage));
  }
  return ok_status();
}

// Beside what other jobs have spent and reserved.
Status Core::within_budget(const JobState& job, const Policy& policy, const PlanCharge& charge,
                           std::int64_t now) const {
  const auto& gate = policy.clauses.gate;
  const auto& submission = job.submission.submission.body;
  const policy::Spent spent = state().spent(charge, submission.consumer_id,
                                            now - gate.period_days * 86400, submission.job_id());
  return policy::within_budget(spent, gate, charge.free_bits);
}

Result<std::vector<PlanCharge>> Core::reserve(const JobState& job, std::int64_t now) const {
  const auto& plan = job.plan.body;
  for (const auto& p : plan.policies) {
    const Policy& policy = state().policy(p.policy_hash)->publish.policy.body;
    const auto charge =
        std::find_if(plan.charges.begin(), plan.charges.end(), [&](const PlanCharge& x) {
          return x.owner_id == policy.owner_id && x.asset_id == policy.asset_id;
        });
    if (charge == plan.charges.end()) return fail(Reason::kInternal, "a policy without a charge");
    GBX_TRY(within_budget(job, policy, *charge, now));
  }
  return plan.charges;
}

Result<std::vector<BundledKey>> Core::keys_for(const JobState& job, std::int64_t stage) const {
  std::vector<BundledKey> out;
  for (const auto& b : job.submission.submission.body.assets) {
    if ((b.name == "image") != (stage == 1)) continue;
    const bool seen = std::any_of(out.begin(), out.end(),
                                  [&](const auto& k) { return k.version_id == b.version_id; });
    if (seen) continue;
    const PolicyState* p = state().current_policy(b.version_id);
    if (p == nullptr) return fail(Reason::kPolicyMissing, "asset " + b.name);
    if (!p->publish.wrapped_key) return fail(Reason::kPolicyRevoked, "asset " + b.name);
    GBX_ASSIGN(DatasetKey key,
               unwrap_dataset_key(keys_.kek, p->publish.policy.body, *p->publish.wrapped_key));
    out.push_back({b.version_id, std::move(key)});
  }
  return out;
}

Result<KeyEntry> Core::make_key_entry(const Signed<KeyRequest>& r, const Found& f,
                                      std::int64_t now) {
  const auto& body = r.body;
  const auto& submission = f.job.submission.submission.body;
  KeyEntry entry;
  entry.request = r;
  if (body.stage == 2) {
    if (!body.image_digest || *body.image_digest != submission.image_digest) {
      return fail(Reason::kImageDigestMismatch, "the image that was unpacked")
          .with(submission.image_digest, body.image_digest.value_or("nothing"));
    }
    if (!body.unpacked_root_hash) return fail(Reason::kMissingField, "unpackedRootHash");
    GBX_ASSIGN(entry.reserved, reserve(f.job, now));
  }
  KeyContext& context = entry.reply.context;
  context.credential = f.attempt.credential.hash();
  context.evidence = f.attempt.evidence_hash();
  context.stage = body.stage;
  context.seq = body.seq;
  for (const auto& p : f.job.plan.body.policies) context.policy_serials.push_back(p.serial);
  GBX_ASSIGN(crypto::HpkePublicKey agent,
             crypto::HpkePublicKey::from_text(f.attempt.attest->agent_keys.hpke));
  GBX_ASSIGN(std::vector<BundledKey> keys, keys_for(f.job, body.stage));
  GBX_ASSIGN(entry.reply.sealed, seal_key_bundle(agent, context, keys, random_));
  return entry;
}

Result<KeyReply> Core::key(const Signed<KeyRequest>& r, const Call& c) {
  const auto& body = r.body;
  // First: to wake a job that sleeps costs much.
  GBX_TRY(check_bound(body.job_id, body.attempt, c));
  GBX_ASSIGN(Found f, live(body.job_id, body.attempt));
  GBX_ASSIGN(crypto::PublicKey agent,
             crypto::PublicKey::from_text(f.attempt.attest->agent_keys.sig));
  GBX_TRY(r.verify(set_id_, agent));
  if (body.evidence != f.attempt.evidence_hash()) {
    return fail(Reason::kEvidenceRejected, "hash of the attempt's first evidence")
        .with(to_hex(f.attempt.evidence_hash()), to_hex(body.evidence));
  }
  if (body.seq <= static_cast<std::int64_t>(f.attempt.keys.size())) {
    const KeyEntry& stored = f.attempt.keys[static_cast<std::size_t>(body.seq) - 1];
    if (stored.request.hash() == r.hash()) {
      // A node that held the first reply back must not hand the agent its keys after a revocation.
      GBX_TRY(recheck(f.job, c.now));
      return stored.reply;
    }
    GBX_TRY(kill(body.job_id, body.attempt, Reason::kSequenceMismatch, c.now));
    return fail(Reason::kSequenceMismatch,
                "two different requests with one number: the attempt is over");
  }
  if (f.job.seal) return fail(Reason::kWrongState, "the job has its output");
  GBX_TRY(check_request(r, f.attempt));
  GBX_TRY(recheck(f.job, c.now));
  GBX_ASSIGN(KeyEntry entry, make_key_entry(r, f, c.now));
  const KeyReply reply = entry.reply;
  if (body.stage == 1) {
    GBX_TRY(log_->append({make_entry(c.now, Key1Entry{std::move(entry)})}));
  } else {
    GBX_TRY(log_->append({make_entry(c.now, Key2Entry{std::move(entry)})}));
  }
  return reply;
}

Status Core::check_statement(const RunStatement& s, const Found& f) const {
  const auto& plan = f.job.plan.body;
  const auto& submission = f.job.submission.submission.body;
  const SealContext& context = s.manifest.context;
  if (!context.verdict.well_formed()) {
    return fail(Reason::kOutputInvalid, "a cause comes with a rejection and with nothing else");
  }
  GBX_TRY(policy::check_charge(plan, submission, context.verdict, capacity_));
  if (context.review.has_value() != !plan.reviewers.empty()) {
    return fail(Reason::kWrongRecipient, "the sealed review")
        .with(plan.reviewers.empty() ? "none" : "one", context.review ? "one" : "none");
  }
  if (context.plan_hash != f.job.plan.hash()) return fail(Reason::kPlanMismatch, "plan of the run");
  if (s.evidence != f.attempt.evidence_hash()) {
    return fail(Reason::kEvidenceRejected, "evidence of the run");
  }
  if (canonical(to_json(s.controls)) != canonical(to_json(plan.controls))) {
    return fail(Reason::kPlanMismatch, "controls that were enforced")
        .with("those of the plan", "others");
  }
  const auto& loaded = f.attempt.keys[1].request.body;
  if (s.image_digest != submission.image_digest ||
      s.unpacked_root_hash != *loaded.unpacked_root_hash) {
    return fail(Reason::kImageDigestMismatch, "image of the run")
        .with(submission.image_digest, s.image_digest);
  }
  if (s.manifest.wrapped_content.size() != submission.result_keys.size()) {
    return fail(Reason::kWrongRecipient, "sealed results")
        .with(std::to_string(submission.result_keys.size()),
              std::to_string(s.manifest.wrapped_content.size()));
  }
  if (s.manifest.wrapped_preview.size() != plan.reviewers.size()) {
    return fail(Reason::kWrongRecipient, "sealed previews")
        .with(std::to_string(plan.reviewers.size()),
              std::to_string(s.manifest.wrapped_preview.size()));
  }
  for (const auto& channel : plan.residual_channels) {
    if (std::find(s.residual_channels.begin(), s.residual_channels.end(), channel) ==
        s.residual_channels.end()) {
      return fail(Reason::kPlanMismatch, "residual channels of the run").with(channel, "not named");
    }
  }
  return ok_status();
}

Result<Signed<SealAck>> Core::seal(const Seal& s, const Call& c) {
  const OutputManifest& manifest = s.statement.body.manifest;
  const SealContext& context = manifest.context;
  GBX_TRY(check_bound(context.job_id, context.attempt, c));
  GBX_ASSIGN(Found f, live(context.job_id, context.attempt));
  GBX_ASSIGN(crypto::PublicKey agent,
             crypto::PublicKey::from_text(f.attempt.attest->agent_keys.sig));
  GBX_TRY(s.statement.verify(set_id_, agent));
  if (f.job.seal) {
    if (f.job.seal->seal.statement.hash() == s.statement.hash()) return f.job.seal->ack;
    return fail(Reason::kWrongState, "only the first seal of a job counts");
  }
  if (!f.attempt.has_data()) {
    return fail(Reason::kWrongState, "a seal before the keys of stage 2");
  }
  GBX_TRY(check_statement(s.statement.body, f));
  GBX_TRY(open_release_keys(keys_.kek, manifest, s.release_keys));
  // The exact time goes to the log alone: when a run ended is the container's choice, and the
  // receipt is its author's.
  const std::int64_t slot = f.job.plan.body.gate.release_slot_seconds;
  GBX_ASSIGN(Signed<SealAck> ack, sign(SealAck{context.job_id, context.attempt, hash_of(manifest),
                                               slot_end(c.now, slot)}));
  GBX_TRY(log_->append({make_entry(c.now, SealEntry{s, ack})}));
  return ack;
}

}  // namespace gbx::broker
