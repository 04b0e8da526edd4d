#include "policy/receipt_verify.h"

#include <algorithm>
#include <set>

#include "lease/lease.h"
#include "policy/decision.h"
#include "translog/translog.h"

namespace gbx::policy {

using namespace records;  // NOLINT: the contract's names are this file's vocabulary

std::span<const EnumName<ClaimState>> enum_names(ClaimState) {
  static constexpr EnumName<ClaimState> k[] = {{ClaimState::kFailed, "failed"},
                                               {ClaimState::kClaimed, "claimed"},
                                               {ClaimState::kProved, "proved"}};
  return k;
}

namespace {

std::string short_hash(const Hash32& h) { return to_hex(h).substr(0, 16) + "…"; }
template <class T>
bool contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

class Verifier {
 public:
  Verifier(const Receipt& receipt, const SetId& pinned, const ReceiptOptions& options)
      : r_(receipt), pinned_(pinned), options_(options), submission_(receipt.submission.body) {}

  ReceiptReport run() {
    out_.job_id = submission_.job_id();
    out_.decision = std::string(enum_name(r_.release.body.decision));
    out_.residual_channels = r_.run_statement.body.residual_channels;
    group("key set", [this] { key_set(); });
    if (!keys_.ok()) return finish();  // without the set's keys nothing else can be judged
    group("identities", [this] { identities(); });
    group("assets and policies", [this] { assets(); });
    group("submission", [this] { submission(); });
    group("authorisation", [this] { plan(); });
    group("credential", [this] { credential(); });
    group("environment", [this] { environment(); });
    group("run", [this] { run_statement(); });
    group("review", [this] { review(); });
    group("decision", [this] { decision(); });
    group("log", [this] { log(); });
    group("destruction", [this] { destruction(); });
    return finish();
  }

 private:
  // ---- the tree ----
  template <class Fill>
  void group(std::string claim, Fill fill) {
    ReceiptCheck g;
    g.claim = std::move(claim);
    open_ = &g;
    fill();
    open_ = nullptr;
    g.state = ClaimState::kProved;
    for (const auto& p : g.parts) g.state = std::min(g.state, p.state);
    if (g.parts.empty()) g.state = ClaimState::kFailed;
    out_.checks.push_back(std::move(g));
  }
  bool proved(std::string claim, const Status& s, std::string detail = {}) {
    ReceiptCheck c{std::move(claim),
                   s.ok() ? ClaimState::kProved : ClaimState::kFailed,
                   std::move(detail),
                   {},
                   {},
                   {},
                   {}};
    if (!s.ok()) {
      c.detail = s.error().what;
      c.reason = std::string(reason_code(s.reason()));
      c.expected = s.error().expected;
      c.actual = s.error().actual;
    }
    open_->parts.push_back(std::move(c));
    return s.ok();
  }
  bool proved(std::string claim, bool holds, Reason reason, std::string detail = {}) {
    return proved(std::move(claim), holds ? ok_status() : Status(fail(reason)), std::move(detail));
  }
  void claimed(std::string claim, std::string detail) {
    out_.claims.push_back(claim + ": " + detail);
    open_->parts.push_back(
        {std::move(claim), ClaimState::kClaimed, std::move(detail), {}, {}, {}, {}});
  }
  ReceiptReport finish() {
    out_.valid = true;
    for (const auto& c : out_.checks) out_.valid = out_.valid && c.state != ClaimState::kFailed;
    out_.protection = out_.valid ? protection_ : "NOTHING IS PROVED: a check failed";
    return std::move(out_);
  }
  template <class Body>
  bool by_set(const std::string& claim, const Signed<Body>& record) {
    return proved(claim + " is signed by the set", record.verify(pinned_, keys_->signing));
  }

  // ---- who ----
  const IdentityChain* chain(const Hash32& id) const {
    for (const auto& c : r_.identities) {
      if (c.id() == id) return &c;
    }
    return nullptr;
  }
  template <class Body>
  Status by_identity(const Hash32& id, const Signed<Body>& record) const {
    const IdentityChain* c = chain(id);
    if (c == nullptr) {
      return fail(Reason::kChainBroken, "the receipt does not hold the identity")
          .with(to_hex(id), "");
    }
    return verify_by_identity(pinned_, *c, record);
  }

  // ---- words ----
  // "wdbc@1", as its owner signed it.
  std::string asset_name(const Id16& asset_id) const {
    for (const auto& v : r_.versions) {
      if (v.body.asset_id == asset_id) {
        return printable_text(v.body.name) + "@" + std::to_string(v.body.version);
      }
    }
    return "asset " + to_hex(asset_id).substr(0, 16) + "…";
  }
  std::string policy_name(const Hash32& hash) const {
    for (const auto& p : r_.policies) {
      if (p.hash() == hash) return asset_name(p.body.asset_id);
    }
    return "an unknown policy";
  }
  // What somebody is in this job.
  std::string person(const Hash32& id) const {
    std::string parts = id == submission_.consumer_id ? "the consumer" : "";
    for (const auto& v : r_.versions) {
      if (v.body.owner_id == id) {
        parts += (parts.empty() ? "" : ", ") + std::string("the owner of ") +
                 asset_name(v.body.asset_id);
      }
    }
    return (parts.empty() ? "a reviewer" : parts) + " (" + short_hash(id) + ")";
  }

  // ---- steps ----
  void key_set() {
    keys_ = r_.set.verify(pinned_);
    if (!proved("the chain leads from the pinned set id to the keys in use",
                keys_.ok() ? ok_status() : Status(keys_.error()), "set " + short_hash(pinned_))) {
      return;
    }
    proved("format", r_.format == "gbx-receipt/1", Reason::kBadVersion, r_.format);
    by_set("broker evidence", r_.broker_evidence);
    const auto& e = r_.broker_evidence.body;
    proved("broker evidence names these keys and this job",
           e.set_key == keys_->set_key.text() && e.kek == keys_->kek.text() &&
               e.epoch == keys_->epoch && e.nonce == out_.job_id &&
               e.custody == r_.set.charter.custody,
           Reason::kBrokerUntrusted);
    // This version can verify no broker's hardware evidence, so a set that rests on it is not
    // believed.
    const bool by_operator = r_.set.charter.custody == Custody::kOperator;
    proved("custody needs no hardware evidence of the broker", by_operator && !e.quote,
           Reason::kUnsupported);
    if (by_operator) {
      claimed("the broker's operator did not read keys",
              "custody is `operator`: whoever runs the broker could");
    }
    witnesses();
  }
  // k of the charter's witnesses cosigned the tree that the broker's evidence names.
  void witnesses() {
    const Charter& charter = r_.set.charter;
    std::set<std::string> cosigned;
    for (const auto& c : r_.cosignatures) {
      proved("cosigned by a witness", cosignature_holds(c), "at " + format_time(c.body.time));
      cosigned.insert(c.key);
    }
    const auto place = [&](const Signed<Cosignature>& c) {
      return std::find(charter.witnesses.begin(), charter.witnesses.end(), c.key) -
             charter.witnesses.begin();
    };
    proved("cosignatures in the order of the charter's witnesses, each once",
           rising(r_.cosignatures, place), Reason::kConflict);
    if (charter.witness_threshold == 0) {
      claimed("the log was not rolled back", "rollback is unprotected: there are no witnesses");
      return;
    }
    const auto needed = static_cast<std::size_t>(charter.witness_threshold);
    proved("most witnesses cosigned the log",
           cosigned.size() >= needed && 2 * needed > charter.witnesses.size(),
           Reason::kRollbackNotAllowed);
  }
  Status cosignature_holds(const Signed<Cosignature>& c) const {
    if (!contains(r_.set.charter.witnesses, c.key)) {
      return fail(Reason::kWrongRole, "not a witness of the charter");
    }
    const auto& e = r_.broker_evidence.body;
    if (c.body.epoch != e.epoch || c.body.tree_size != e.tree_size ||
        c.body.tree_root != e.tree_root) {
      return fail(Reason::kBadInclusion, "a cosignature of another state of the log");
    }
    GBX_ASSIGN(crypto::PublicKey witness, crypto::PublicKey::from_text(c.key));
    return c.verify(pinned_, witness);
  }

  void identities() {
    std::set<Hash32> wanted{submission_.consumer_id};
    for (const auto& p : r_.plan.body.policies) wanted.insert(p.owner_id);
    const auto& all = r_.identities;
    proved("in the order of their ids, each once",
           rising(all, [](const auto& c) { return c.id(); }), Reason::kBadStructure);
    proved("no key after the last one that signed here",
           std::all_of(all.begin(), all.end(),
                       [this](const auto& c) {
                         return c.rotations.empty() || signed_here(c.rotations.back().body.new_key);
                       }),
           Reason::kBadStructure);
    for (const auto& c : all) {
      const Hash32 id = c.id();
      auto key = c.current_key(pinned_);
      proved("keys of " + person(id), key.ok() ? ok_status() : Status(key.error()));
      if (wanted.count(id) != 0) continue;
      const bool rules = std::any_of(r_.rulings.begin(), r_.rulings.end(), [&](const auto& ruling) {
        return verify_by_identity(pinned_, c, ruling).ok();
      });
      proved("has a part in this job", rules, Reason::kBadStructure, person(id));
    }
  }

  // Did this key sign a part of the receipt that somebody signs as who he is? A chain ends where
  // the receipt needs it to: a rotation that nothing rests on could be taken away or added unseen.
  bool signed_here(const std::string& key) const {
    const auto by = [&key](const auto& list) {
      return std::any_of(list.begin(), list.end(), [&key](const auto& s) { return s.key == key; });
    };
    return r_.submission.key == key || by(r_.versions) || by(r_.policies) || by(r_.beacons) ||
           by(r_.leases) || by(r_.rulings);
  }

  void assets() {
    const auto& named = r_.plan.body.policies;
    if (!proved("one record and one policy for each that the plan names",
                r_.versions.size() == named.size() && r_.policies.size() == named.size(),
                Reason::kPolicyMismatch)) {
      return;
    }
    for (std::size_t i = 0; i < named.size(); ++i) {
      const auto& policy = r_.policies[i];
      const auto& record = r_.versions[i];
      const IdentityChain* owner = chain(record.body.owner_id);
      Status s = owner == nullptr
                     ? Status(fail(Reason::kChainBroken, "the owner's identity is missing"))
                     : verify_asset(pinned_, {*owner, record, policy, 0});
      const std::string name = asset_name(record.body.asset_id);
      proved(name + " and its policy are signed by " + person(record.body.owner_id), s,
             "policy serial " + std::to_string(policy.body.serial));
      proved("the plan rests on this policy of " + name,
             named[i].policy_hash == policy.hash() && named[i].serial == policy.body.serial &&
                 named[i].owner_id == policy.body.owner_id &&
                 named[i].asset_version_id == policy.body.asset_version_id,
             Reason::kPolicyMismatch);
    }
    for (const auto& b : r_.beacons) {
      proved("the owner still stood by the policy", beacon_holds(b),
             "at " + format_time(b.body.time));
    }
    const auto place = [this](const Signed<OwnerBeacon>& b) {
      return policy_place(b.body.policy_hash);
    };
    proved("beacons in the order of the policies, each once", rising(r_.beacons, place),
           Reason::kBadStructure);
    claimed("these policies were the newest", "the set's log holds their order");
  }

  std::size_t policy_place(const Hash32& hash) const {
    std::size_t i = 0;
    while (i < r_.policies.size() && r_.policies[i].hash() != hash) ++i;
    return i;
  }
  // Whether `place` rises from each item to the next: each is there once, and no two can change
  // places.
  template <class T, class Place>
  static bool rising(const std::vector<T>& items, Place place) {
    return std::adjacent_find(items.begin(), items.end(), [&](const T& a, const T& b) {
             return place(a) >= place(b);
           }) == items.end();
  }

  Status beacon_holds(const Signed<OwnerBeacon>& b) const {
    const auto named = std::find_if(r_.policies.begin(), r_.policies.end(), [&](const auto& p) {
      return p.hash() == b.body.policy_hash && p.body.owner_id == b.body.owner_id &&
             p.body.asset_version_id == b.body.asset_version_id;
    });
    if (named == r_.policies.end()) {
      return fail(Reason::kPolicyMismatch, "a beacon for no policy of the job");
    }
    if (b.body.time > r_.release.body.time) {
      return fail(Reason::kBadValue, "a beacon from after the decision");
    }
    return by_identity(b.body.owner_id, b);
  }

  void submission() {
    proved("signed by " + person(submission_.consumer_id),
           by_identity(submission_.consumer_id, r_.submission));
    proved("the job spec is valid", submission_.validate(),
           "purpose: " + printable_text(submission_.spec.spec.purpose));
    const auto place = [this](const Signed<Lease>& l) {
      return std::find(submission_.leases.begin(), submission_.leases.end(), l.body.lease_id) -
             submission_.leases.begin();
    };
    proved("leases in the submission's order, each once", rising(r_.leases, place),
           Reason::kBadStructure);
    for (const auto& l : r_.leases) {
      proved("lease of " + asset_name(l.body.asset_id), lease_holds(l),
             "for " + std::to_string(l.body.jobs) + " jobs");
    }
  }
  static std::string printable_text(const std::string& s) {
    std::string out;
    for (const char c : s.substr(0, 200)) out += c >= ' ' && c != 0x7f ? c : '?';
    return out;
  }
  Status lease_holds(const Signed<Lease>& l) const {
    if (!contains(submission_.leases, l.body.lease_id)) {
      return fail(Reason::kLeaseMissing, "the submission does not name this lease");
    }
    Error last = fail(Reason::kLeaseMissing, "a lease for no asset of the job");
    for (const auto& p : r_.policies) {
      if (p.body.asset_id != l.body.asset_id) continue;
      const Status s = lease::verify_lease(l, lease_query(p.body));
      if (s.ok()) return s;
      last = s.error();
    }
    return last;
  }
  lease::LeaseQuery lease_query(const Policy& p) const {
    static const IdentityChain kNobody{};
    const IdentityChain* owner = chain(p.owner_id);
    return {pinned_,
            p.asset_id,
            submission_.consumer_id,
            owner != nullptr ? owner : &kNobody,
            &p.clauses.lease_issuers,
            r_.plan.body.time,
            lease::Signer::kEver};
  }

  SignedSubmission whole_submission() const {
    SignedSubmission s;
    if (const IdentityChain* consumer = chain(submission_.consumer_id)) s.consumer = *consumer;
    s.submission = r_.submission;
    s.leases = r_.leases;
    return s;
  }

  // Judges the submission again by the same function as the broker and compares the plans.
  void plan() {
    by_set("run plan", r_.plan);
    const SignedSubmission whole = whole_submission();
    PolicyInputs in;
    in.set_id = pinned_;
    in.custody = r_.set.charter.custody;
    in.witnessed = r_.set.charter.witness_threshold > 0;
    in.now = r_.plan.body.time;
    in.submission = whole;
    in.asset = [this](const Hash32& version) -> std::optional<AssetFacts> {
      for (std::size_t i = 0; i < r_.policies.size() && i < r_.versions.size(); ++i) {
        if (r_.policies[i].body.asset_version_id != version) continue;
        const IdentityChain* owner = chain(r_.policies[i].body.owner_id);
        if (owner != nullptr) {
          return AssetFacts{*owner, r_.versions[i], r_.policies[i], r_.plan.body.time};
        }
      }
      return std::nullopt;
    };
    in.lease = [&](const AssetFacts& f) {
      const lease::SignedLeases book(whole, [](const Lease&) { return std::int64_t{0}; });
      return book.find(lease_query(f.policy.body));
    };
    in.spent = [](const AssetFacts&) { return Spent{}; };
    in.current_key = [this](const IdentityChain& c) -> Result<crypto::PublicKey> {
      GBX_TRY(verify_by_identity(pinned_, c, r_.submission));
      return crypto::PublicKey::from_text(r_.submission.key);
    };
    in.capacity = options_.capacity ? options_.capacity : [](const SpecBody&, const InputTables&) {
      return Result<JobBits>(JobBits{kControlBits, 0});
    };
    const Judged judged = judge(in);
    const Explanation& again = judged.explanation;
    if (!proved("every owner's policy allows this job", denial(again),
                "at " + format_time(in.now))) {
      return;
    }
    proved("no lease but those that the job used",
           std::all_of(r_.leases.begin(), r_.leases.end(),
                       [&](const auto& l) {
                         return contains(judged.leases, LeaseUse{l.body.lease_id, l.body.asset_id});
                       }),
           Reason::kBadStructure);
    RunPlan expected = *again.plan;
    if (!options_.capacity) expected.charges = same_assets(expected.charges, r_.plan.body.charges);
    proved("the plan is the one that these policies give",
           records::hash_of(expected) == r_.plan.hash(), Reason::kPlanMismatch);
    if (!options_.capacity) claimed("the most that the outputs can tell", "reckoned by the set");
    claimed("budgets, lease uses and freshness", "kept in the set's log");
  }
  // The charges of the receipt where they are for the same owners and assets.
  static std::vector<PlanCharge> same_assets(std::vector<PlanCharge> expected,
                                             const std::vector<PlanCharge>& given) {
    for (std::size_t i = 0; i < expected.size() && i < given.size(); ++i) {
      expected[i].free_bits = given[i].free_bits;
      expected[i].verified_bits = given[i].verified_bits;
    }
    return expected;
  }

  void credential() {
    by_set("credential", r_.credential);
    const auto& c = r_.credential.body;
    proved("for this job and plan", c.job_id == out_.job_id && c.plan_hash == r_.plan.hash(),
           Reason::kCredentialForeign, "attempt " + std::to_string(c.attempt));
    proved("given after the plan", c.expires >= r_.plan.body.time, Reason::kCredentialExpired);
  }

  ReportData report_data() const {
    ReportData report;
    report.set_id = pinned_;
    report.nonce = r_.nonce;
    report.job_id = out_.job_id;
    report.attempt = r_.credential.body.attempt;
    report.credential = r_.credential.hash();
    report.plan_hash = r_.plan.hash();
    report.agent_keys = hash_of(r_.agent_keys);
    report.exporter = r_.exporter;
    return report;
  }

  void environment() {
    // The plan is older than the evidence, and no later word of the set says when that was made.
    const ExpectedEvidence expected{pinned_,
                                    report_data(),
                                    {pinned_, keys_->set_key.text()},
                                    r_.set.charter,
                                    r_.plan.body.time};
    auto verdict = check_evidence(options_.evidence, r_.evidence, expected);
    if (!proved("evidence binds nonce, job, credential, plan, agent keys and connection",
                verdict.ok() ? ok_status() : Status(verdict.error()))) {
      return;
    }
    proved("every owner allows this platform", verdict_allowed(r_.plan.body.tee, *verdict),
           verdict->root);
    if (verdict->technology == Technology::kNone) {
      introduced(*verdict);
    } else {
      measured(*verdict);
    }
  }

  void introduced(const Verdict& verdict) {
    const auto& intro = r_.evidence.node->body;
    proved("introduced for this attempt",
           intro.job_id == out_.job_id && intro.attempt == r_.credential.body.attempt,
           Reason::kEvidenceRejected);
    protection_ = "NO TEE: the node " + verdict.root +
                  " could read and change everything, and only its word stands for what ran";
    claimed("what ran is what was launched", "NO TEE: the node's word, nothing was measured");
  }

  void measured(const Verdict& verdict) {
    proved("what was launched is the release that is named",
           verdict.measurement == Check::kPass && verdict.debug_off == Check::kPass,
           Reason::kMeasurementMismatch, verdict.release);
    if (verdict.technology != Technology::kSim) {
      protection_ = std::string(enum_name(verdict.technology)) + " " + verdict.release;
      return;
    }
    protection_ = "SIMULATED TEE " + verdict.root + ", release " + verdict.release +
                  ": whoever ran that installation could read and change everything";
    claimed("what ran is what was launched",
            "SIMULATED: the word of the installation's own root, which its operator holds");
  }

  void run_statement() {
    auto agent = crypto::PublicKey::from_text(r_.agent_keys.sig);
    proved("signed by the agent",
           agent.ok() ? r_.run_statement.verify(pinned_, *agent) : Status(agent.error()));
    const RunStatement& s = r_.run_statement.body;
    const SealContext& context = s.manifest.context;
    proved("of this attempt",
           context.job_id == out_.job_id && context.attempt == r_.credential.body.attempt &&
               context.plan_hash == r_.plan.hash() && s.evidence == hash_of(r_.evidence),
           Reason::kPlanMismatch);
    proved("the image is the one that was submitted", s.image_digest == submission_.image_digest,
           Reason::kImageDigestMismatch, s.image_digest);
    proved("the plan's controls",
           canonical(to_json(s.controls)) == canonical(to_json(r_.plan.body.controls)),
           Reason::kPlanMismatch);
    const auto& reviewers = r_.plan.body.reviewers;
    proved("one sealed key for each result key and each reviewer",
           s.manifest.wrapped_content.size() == submission_.result_keys.size() &&
               s.manifest.wrapped_preview.size() == reviewers.size() &&
               context.review.has_value() == !reviewers.empty(),
           Reason::kWrongRecipient);
    proved("the gate's verdict is one that it can give", context.verdict.well_formed(),
           Reason::kOutputInvalid);
    claimed("sealed to the consumer's keys and the reviewers, and to nobody else",
            "the agent's word, as good as its environment");
    const auto& channels = r_.plan.body.residual_channels;
    proved("names the plan's residual channels",
           std::all_of(channels.begin(), channels.end(),
                       [&](const auto& c) { return contains(s.residual_channels, c); }),
           Reason::kPlanMismatch);
    claimed(s.controls.access == Access::kDirect
                ? "access: direct, as every owner chose: the host saw which blocks were read"
                : "access: prefetch: every asset was read whole, in a fixed order, before the "
                  "program ran",
            "the agent's word, as good as its environment");
    claimed("the controls were enforced and the gate judged the output",
            "the agent's word, as good as its environment");
    by_set("seal acknowledgement", r_.seal_ack);
    const SealAck& ack = r_.seal_ack.body;
    const bool same_attempt =
        ack.job_id == out_.job_id && ack.attempt == r_.credential.body.attempt;
    proved("acknowledges this output", ack.manifest == hash_of(s.manifest) && same_attempt,
           Reason::kBadHash);
  }

  Panel panel() const {
    Panel p;
    p.policies = r_.policies;
    p.may_preview = r_.plan.body.may_preview;
    p.submission = whole_submission();
    for (const auto& ruling : r_.rulings) p.rulings.push_back(ruling.body);
    return p;
  }

  void review() {
    const auto& verdict = r_.run_statement.body.manifest.context.verdict;
    if (!r_.hold_notice) {
      proved("never held, so nobody ruled", r_.rulings.empty(), Reason::kWrongState);
      if (r_.release.body.decision == ReleaseDecision::kReject) return;
      std::set<std::string> holds = hold_reasons(submission_, verdict);
      for (const auto& p : r_.policies) holds.merge(hold_reasons(p.body, verdict, charged_bits()));
      proved("every owner's gate clause releases this without a person", holds.empty(),
             Reason::kHeld, holds.empty() ? "" : *holds.begin());
      return;
    }
    by_set("hold notice", *r_.hold_notice);
    const HoldNotice& notice = r_.hold_notice->body;
    std::vector<Hash32> hashes;
    for (const auto& p : r_.policies) hashes.push_back(p.hash());
    const auto& context = r_.run_statement.body.manifest.context;
    proved("is about this output and these policies",
           notice.manifest == hash_of(r_.run_statement.body.manifest) &&
               notice.ciphertext == context.ciphertext && notice.policy_hashes == hashes,
           Reason::kPlanMismatch);
    hold_times(notice);
    claimed("the charge was reserved before the data keys left",
            "leaf " + short_hash(notice.ledger_entry) + " of the set's log");
    const Panel all = panel();
    std::set<std::pair<Hash32, std::string>> seen;
    for (const auto& ruling : r_.rulings) {
      proved("ruling for " + policy_name(ruling.body.owner_policy_hash) + ": " +
                 std::string(enum_name(ruling.body.decision)),
             ruling_holds(all, notice, ruling));
      proved("one ruling for each reviewer and policy",
             seen.insert({ruling.body.owner_policy_hash, ruling.key}).second, Reason::kConflict);
    }
    const ReleaseStatement& s = r_.release.body;
    if (s.decision == ReleaseDecision::kRelease) {
      proved("enough reviewers of every owner approved", tally(all) == Tally::kApproved,
             Reason::kHeld);
    } else if (!s.reasons.empty() && s.reasons[0] == reason::kDeclined) {
      proved("the reviewers declined", tally(all) == Tally::kDeclined, Reason::kHeld);
    }
  }
  // Rulings are held to these times one by one. A release falls on a slot; so no ruling is taken
  // whose slot ends too late.
  void hold_times(const HoldNotice& notice) {
    const std::int64_t decided = r_.release.body.time;
    proved("held after the seal and before the decision",
           r_.seal_ack.body.time <= held_at(notice) && held_at(notice) <= decided,
           Reason::kBadValue, "at " + format_time(held_at(notice)));
    if (r_.release.body.decision == ReleaseDecision::kReject) return;
    proved("released before the hold expired", decided <= notice.expires, Reason::kExpired,
           "on " + format_time(notice.expires));
  }
  Status ruling_holds(const Panel& all, const HoldNotice& notice,
                      const Signed<Ruling>& ruling) const {
    GBX_ASSIGN(crypto::PublicKey key, crypto::PublicKey::from_text(ruling.key));
    Error last = fail(Reason::kWrongRole, "no identity of the receipt signed this ruling");
    for (const auto& c : r_.identities) {
      if (!verify_by_identity(pinned_, c, ruling).ok()) continue;
      const Status s = verify_ruling(pinned_, all, notice, ruling, {c, key, r_.release.body.time});
      if (s.ok()) return s;
      last = s.error();
    }
    return last;
  }

  void decision() {
    by_set("release statement", r_.release);
    const ReleaseStatement& s = r_.release.body;
    proved("of this run",
           s.job_id == out_.job_id && s.run_statement == r_.run_statement.hash() &&
               s.manifest == hash_of(r_.run_statement.body.manifest) &&
               canonical(to_json(s.verdict)) ==
                   canonical(to_json(r_.run_statement.body.manifest.context.verdict)),
           Reason::kPlanMismatch, out_.decision + " at " + format_time(s.time));
    std::vector<Hash32> rulings;
    for (const auto& ruling : r_.rulings) rulings.push_back(ruling.hash());
    proved("names these rulings", s.rulings == rulings, Reason::kBadHash);
    charges();
    const bool release = s.decision == ReleaseDecision::kRelease;
    const bool declined = !s.reasons.empty() && s.reasons[0] == reason::kDeclined;
    const bool known =
        declined ? s.reasons == declined_reasons(panel().rulings)
                 : std::all_of(s.reasons.begin(), s.reasons.end(),
                               [](const auto& r) { return contains(rejection_reasons(), r); });
    proved("reasons", release ? s.reasons.empty() : known && !s.reasons.empty(), Reason::kBadValue,
           s.reasons.empty() ? "" : s.reasons[0]);
    if (!release) claimed("why it was rejected", "the set's word");
    // what the set rounds a seal's time to
    const std::int64_t told = slot_end(s.time, r_.plan.body.gate.release_slot_seconds);
    bool ordered = r_.plan.body.time <= r_.seal_ack.body.time && r_.seal_ack.body.time <= told;
    ordered = ordered && r_.broker_evidence.body.time == s.time;
    if (options_.now) ordered = ordered && s.time <= *options_.now;
    proved("times are in order", ordered, Reason::kBadValue);
    if (release) {
      proved("the gate had not rejected it", s.verdict.recommendation != Recommendation::kReject,
             Reason::kRejected);
      for (const auto& p : r_.policies) {
        proved("the policy of " + asset_name(p.body.asset_id) + " had not expired",
               s.time <= p.body.clauses.not_after, Reason::kPolicyExpired);
      }
    }
  }
  // What the statement charges each owner: the same for all, or charges() fails.
  std::int64_t charged_bits() const {
    const auto& charges = r_.release.body.charges;
    return charges.empty() ? 0 : charges.front().free_bits;
  }
  // What the gate charged follows from the declaration; only how the run ended is the agent's word.
  void judged_charge(const GateVerdict& verdict) {
    const bool ok = verdict.exit_class == JobExit::kOk;
    if (!ok && !options_.capacity) {
      claimed("the gate's charge", "of a run that failed: reckoned by the set");
      return;
    }
    proved("the gate's charge is what was declared",
           check_charge(r_.plan.body, r_.submission.body, verdict, options_.capacity),
           "of a run that ended as " + std::string(enum_name(verdict.exit_class)));
  }
  // The attempts that had the data are in the set's log. Here they are at least one, and no more
  // than the number of this attempt and the attempts of the plan.
  void charges() {
    const ReleaseStatement& s = r_.release.body;
    const auto& planned = r_.plan.body.charges;
    const auto& verdict = r_.run_statement.body.manifest.context.verdict;
    const bool release = s.decision == ReleaseDecision::kRelease;
    const std::int64_t tries = std::min(r_.credential.body.attempt, r_.plan.body.attempts);
    const RunPlan& plan = r_.plan.body;
    const std::int64_t told = ruling_bits(panel().rulings);
    const auto due = [&](std::int64_t n) {
      return told + (release ? release_bits(plan, verdict, n) : rejection_bits(plan, n));
    };
    const std::int64_t least = due(1);
    const std::int64_t most = due(tries);
    const std::int64_t bits = charged_bits();
    judged_charge(verdict);
    bool right = s.charges.size() == planned.size() && bits >= least && bits <= most;
    for (std::size_t i = 0; right && i < planned.size(); ++i) {
      const auto& c = s.charges[i];
      right = c.owner_id == planned[i].owner_id && c.asset_id == planned[i].asset_id &&
              c.free_bits == bits &&
              c.verified_bits == (release ? verdict.charge.verified_bits : 0) &&
              c.zcdp_micro == (release ? verdict.charge.zcdp_micro : 0) &&
              c.subject == planned[i].subject &&
              c.code_id == (release ? verdict.charge.code_id : kControlCode);
    }
    proved("every owner was charged in full", right, Reason::kBudgetExceeded,
           std::to_string(bits) + " free bits");
    if (most > least) claimed("how many attempts had the data", "reckoned by the set");
  }

  // The entry says what the statement says, so it is rebuilt and not read.
  void log() {
    const ReleaseStatement& s = r_.release.body;
    Json entry;
    entry["kind"] = "release";
    entry["time"] = s.time;
    Json& body = entry["body"];
    const Json statement = to_json(s);
    for (const char* same : {"jobId", "runStatement", "manifest", "verdict", "decision", "reasons",
                             "rulings", "charges"}) {
      body[same] = *statement.find(same);
    }
    body["holdNotice"] = to_hex(r_.hold_notice ? r_.hold_notice->hash() : Hash32{});
    proved("the entry says what the statement says", canonical(entry) == canonical(r_.log_entry),
           Reason::kBadStructure);
    const Inclusion& in = s.inclusion;
    const auto& e = r_.broker_evidence.body;
    proved("the entry is in the set's log",
           translog::verify(in, as_bytes(canonical(entry)), {e.tree_size, e.tree_root}),
           "entry " + std::to_string(in.leaf_index) + " of " + std::to_string(in.tree_size));
  }

  void destruction() {
    if (!r_.destroyed) {
      claimed("the environment may still be there",
              "NO destruction claim: nobody says that it was destroyed, or not yet");
      return;
    }
    const auto& d = *r_.destroyed;
    // Evidence of a platform names no node: then anybody may have signed, and a good signature
    // proves nothing. A bad one is still none.
    const bool named = r_.evidence.node.has_value();
    auto node = crypto::PublicKey::from_text(named ? r_.evidence.node->key : d.key);
    const Status is_signed = node.ok() ? d.verify(pinned_, *node) : Status(node.error());
    if (named || !is_signed.ok()) {
      proved(named ? "signed by the node" : "signed by the key beside it", is_signed);
    }
    proved("about this attempt",
           d.body.job_id == out_.job_id && d.body.attempt == r_.credential.body.attempt,
           Reason::kPlanMismatch);
    const std::string who =
        named ? "the node"
              : "whoever has a key that nothing else here names (" +
                    (node.ok() ? to_hex(node->fingerprint()).substr(0, 16) : std::string("none")) +
                    ")";
    claimed("the environment was destroyed",
            d.body.residue.empty()
                ? (named ? "the node's word" : "the word of " + who)
                : who + " says that something was left: " + printable_text(d.body.residue[0]));
  }

  const Receipt& r_;
  const SetId& pinned_;
  const ReceiptOptions& options_;
  const Submission& submission_;
  Result<SetChain::Keys> keys_;
  std::string protection_ = "NOTHING IS PROVED about the environment";
  ReceiptReport out_;
  ReceiptCheck* open_ = nullptr;
};

}  // namespace

Error ReceiptReport::first_failure() const {
  for (const auto& g : checks) {
    for (const auto& c : g.parts) {
      if (c.state != ClaimState::kFailed) continue;
      Error e(Reason::kInternal,
              g.claim + ": " + c.claim + (c.detail.empty() ? "" : ": " + c.detail));
      reason_from_code(c.reason, &e.reason);
      return e.with(c.expected, c.actual);
    }
    if (g.state == ClaimState::kFailed) return fail(Reason::kBadStructure, g.claim);
  }
  return {};
}

ReceiptReport verify_receipt(const Receipt& receipt, const SetId& pinned,
                             const ReceiptOptions& options) {
  return Verifier(receipt, pinned, options).run();
}

}  // namespace gbx::policy
