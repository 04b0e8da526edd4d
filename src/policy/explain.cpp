// Judges one submission against the policies in force: one line per check and owner, and the plan
// when all allow.
#include <algorithm>
#include <map>
#include <set>

#include "base/log.h"
#include "policy/decision.h"
#include "policy/policy.h"

namespace gbx::policy {

using records::AssetBinding;
using records::Clauses;
using records::PlatformRule;
using records::Recommendation;
using records::RunPlan;
using records::Submission;
using records::Technology;

namespace {

// of one text of a check; PlanCheck has room for one escape more
constexpr std::size_t kTextBytes = 1000;

template <class T>
bool contains(const std::vector<T>& list, const T& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}
std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : " ") + w;
  return out.empty() ? "nothing" : out;
}
std::string number(std::int64_t n) { return std::to_string(n); }

// What one check of one owner's policy looks at.
struct View {
  const PolicyInputs& in;
  const Submission& s;
  const AssetBinding& binding;
  const AssetFacts& facts;
  std::int64_t charge_bits = 0;
  const Clauses& clauses() const { return facts.policy.body.clauses; }
  const records::Policy& policy() const { return facts.policy.body; }
  bool is_image() const { return binding.name == "image"; }
};

Status check_published(const View& v) {
  GBX_TRY(verify_asset(v.in.set_id, v.facts));
  if (v.binding.asset_id != v.policy().asset_id) {
    return fail(Reason::kWrongAsset, "the submission names another asset for this version")
        .with(to_hex(v.policy().asset_id), to_hex(v.binding.asset_id));
  }
  const bool image_kind = v.facts.record.body.kind == records::AssetKind::kImage;
  if (image_kind != v.is_image()) {
    return fail(Reason::kWrongAsset, "kind of the asset")
        .with(v.is_image() ? "image" : "dataset or model",
              std::string(enum_name(v.facts.record.body.kind)));
  }
  if (v.is_image() && v.facts.record.body.content_digest != v.s.image_digest) {
    return fail(Reason::kImageDigestMismatch, "digest of the image asset")
        .with(v.facts.record.body.content_digest, v.s.image_digest);
  }
  return ok_status();
}
Status check_in_force(const View& v) { return in_force(v.facts, v.in.now); }

Status check_image(const View& v) {
  if (v.is_image()) return ok_status();  // its own digest was compared with the record
  std::vector<std::string> known;
  for (const auto& rule : v.clauses().images) {
    if (!rule.digest && !rule.signer) continue;
    if (rule.digest) known.push_back(*rule.digest);
    if (rule.digest && *rule.digest != v.s.image_digest) continue;
    if (!rule.signer) return ok_status();
    known.push_back("signed by " + *rule.signer);
    // An image is signed by its version record.
    const auto it = std::find_if(v.s.assets.begin(), v.s.assets.end(),
                                 [](const auto& a) { return a.name == "image"; });
    if (it == v.s.assets.end()) continue;
    const auto image = v.in.asset(it->version_id);
    if (image && image->record.key == *rule.signer && verify_asset(v.in.set_id, *image).ok()) {
      return ok_status();
    }
  }
  return fail(Reason::kImageNotAllowed, "image")
      .with(joined(known), v.s.image_digest)
      .hint("ask the owner to add this digest to the policy's images");
}

Status check_command(const View& v) {
  const auto& spec = v.s.spec.spec;
  if (v.is_image() || v.clauses().any_command) return ok_status();
  std::vector<std::string> argv = spec.command;
  argv.insert(argv.end(), spec.args.begin(), spec.args.end());
  std::string expected;
  for (const auto& rule : v.clauses().commands) {
    expected += (expected.empty() ? "" : " | ") + joined(rule.argv);
    if (rule.argv != argv) continue;
    const auto stray = std::find_if(spec.env.begin(), spec.env.end(),
                                    [&](const auto& e) { return !contains(rule.env, e.first); });
    if (stray == spec.env.end()) return ok_status();
    return fail(Reason::kCommandNotAllowed, "environment variable")
        .with(joined(rule.env), stray->first.substr(0, 64));
  }
  return fail(Reason::kCommandNotAllowed, "command and arguments")
      .with(expected.empty() ? "no command (the policy names none and does not say anyCommand)"
                             : expected,
            joined(argv))
      .hint("use an allowed command, or ask the owner to add this one");
}

Status check_consumer(const View& v) {
  if (!needs_lease(v.clauses(), v.s.consumer_id)) return ok_status();
  auto lease = v.in.lease(v.facts);
  if (lease.ok()) return ok_status();
  if (lease.reason() == Reason::kLeaseMissing && !v.clauses().lease_required) {
    return fail(Reason::kConsumerNotAllowed, "consumer")
        .with("one of the policy's consumers", to_hex(v.s.consumer_id));
  }
  return lease.error();
}
Status check_purpose(const View& v) {
  const auto& allowed = v.clauses().purposes;
  if (contains(allowed, std::string("*")) || contains(allowed, v.s.spec.spec.purpose)) {
    return ok_status();
  }
  return fail(Reason::kPurposeNotAllowed, "purpose").with(joined(allowed), v.s.spec.spec.purpose);
}
// A consumer's inputs count as code. The image is judged by the image clause, so a data owner need
// not list it here.
Status check_join(const View& v) {
  for (const auto& other : v.s.assets) {
    if (other.name == "image") continue;
    const auto facts = v.in.asset(other.version_id);
    if (!facts) continue;  // denied by its own "published" check
    // The id that counts is the signed record's, not the one that the submission claims.
    if (facts->record.body.asset_id == v.policy().asset_id) continue;
    if (may_meet(v.clauses(), facts->record.body.asset_id, facts->record.body.owner_id)) continue;
    return fail(Reason::kJoinNotAllowed, "another asset in the same job")
        .with("an asset or owner that joinAssets or joinOwners names", other.name)
        .hint("ask the owner to name the asset or its owner in the policy");
  }
  return ok_status();
}

// The policy's rules as far as the spec asks for them; rules for `none` and `sim` without a root
// allow nothing.
std::vector<PlatformRule> platforms_for(const Clauses& c, const records::SpecTee& tee) {
  std::vector<PlatformRule> out;
  for (PlatformRule r : c.tee) {
    if (!contains(tee.any_of, r.technology)) continue;
    const bool by_name = r.technology == Technology::kNone || r.technology == Technology::kSim;
    if (by_name && r.root.rfind(std::string(enum_name(r.technology)) + ":", 0) != 0) continue;
    if (r.technology != Technology::kNone) {
      if (!tee.releases.empty()) {
        std::erase_if(r.releases,
                      [&](const std::string& name) { return !contains(tee.releases, name); });
      }
      if (r.releases.empty()) continue;
    }
    out.push_back(std::move(r));
  }
  return out;
}
Status check_tee(const View& v) {
  if (!platforms_for(v.clauses(), v.s.spec.spec.tee).empty()) return ok_status();
  std::vector<std::string> allowed;
  for (const auto& r : v.clauses().tee) allowed.emplace_back(enum_name(r.technology));
  std::vector<std::string> asked;
  for (const auto t : v.s.spec.spec.tee.any_of) asked.emplace_back(enum_name(t));
  return fail(Reason::kTeeNotAllowed, "TEE technology").with(joined(allowed), joined(asked));
}
Status check_custody(const View& v) {
  if (contains(v.clauses().custody, v.in.custody)) return ok_status();
  std::vector<std::string> allowed;
  for (const auto c : v.clauses().custody) allowed.emplace_back(enum_name(c));
  return fail(Reason::kCustodyNotAllowed, "custody of the broker's keys")
      .with(joined(allowed), std::string(enum_name(v.in.custody)));
}
Status check_rollback(const View& v) {
  const std::string actual = v.in.witnessed ? "witnessed" : "unprotected";
  const std::string& word = v.clauses().rollback;
  if (word == "unprotected" || (word == "witnessed" && v.in.witnessed)) return ok_status();
  return fail(Reason::kRollbackNotAllowed, "protection of the log against rollback")
      .with(word, actual);
}
Status check_outputs(const View& v) {
  const auto& gate = v.clauses().gate;
  std::int64_t bytes = 0;
  for (const auto& o : v.s.spec.spec.outputs) {
    if (!contains(gate.output_types, o.type)) {
      return fail(Reason::kOutputNotAllowed, "type of output " + o.name)
          .with("a type that the policy allows", std::string(enum_name(o.type)));
    }
    bytes += o.max_bytes;  // at most 32 times 2^30
  }
  if (bytes > gate.max_output_bytes) {
    return fail(Reason::kOutputTooLarge, "maxBytes of all outputs")
        .with(number(gate.max_output_bytes), number(bytes));
  }
  return ok_status();
}
Status check_logs(const View& v) {
  const auto& logs = v.s.spec.spec.logs;
  const auto& gate = v.clauses().gate;
  if (logs.visibility == records::LogVisibility::kNone) return ok_status();
  if (gate.logs == records::LogVisibility::kNone) {
    return fail(Reason::kLogsNotAllowed, "logs").with("none", "consumer");
  }
  if (logs.max_bytes <= gate.log_bytes) return ok_status();
  return fail(Reason::kLogsNotAllowed, "size of logs")
      .with(number(gate.log_bytes), number(logs.max_bytes));
}
Status check_attempts(const View& v) {
  if (v.s.spec.spec.attempts <= v.clauses().attempts) return ok_status();
  return fail(Reason::kAttemptsExceeded, "attempts after keys were released")
      .with(number(v.clauses().attempts), number(v.s.spec.spec.attempts));
}
Status check_budget(const View& v) {
  return within_budget(v.in.spent(v.facts), v.clauses().gate, v.charge_bits);
}

struct NamedCheck {
  const char* name;
  Status (*run)(const View&);
};
constexpr NamedCheck kChecks[] = {
    {"published", check_published}, {"in-force", check_in_force}, {"consumer", check_consumer},
    {"purpose", check_purpose},     {"image", check_image},       {"command", check_command},
    {"join", check_join},           {"tee", check_tee},           {"custody", check_custody},
    {"rollback", check_rollback},   {"outputs", check_outputs},   {"logs", check_logs},
    {"attempts", check_attempts}};

class Judge {
 public:
  explicit Judge(const PolicyInputs& in) : in_(in), s_(in.submission.submission.body) {}

  Judged run() {
    const bool sound = note("submission", "job", {}, check_submission()) &&
                       note("assets", "job", {}, check_bindings()) &&
                       note("expiry", "job", {}, check_expiry());
    Result<JobBits> told =
        sound ? capacity() : Result<JobBits>(Error(Reason::kSpecMismatch, "not judged"));
    bool allowed =
        sound && note("capacity", "job", {}, told.ok() ? ok_status() : Status(told.error()));
    // The most that a release can cost: what the job can tell, and its attempts.
    std::int64_t bits = 0;
    if (allowed) {
      gate_ = common_gate();
      // Without a common slot no job is allowed, whatever it would cost.
      const TimedRun run{s_.spec.spec.timeouts.run, gate_.ok() ? gate_->release_slot_seconds : 0};
      bits = told->free_bits + attempts_bits(run, s_.spec.spec.attempts);
      allowed = judge_assets(bits);
    }
    if (allowed) {
      const Status merged = make_plan({bits, told->verified_bits});
      allowed = note("merge", "job", {}, merged);
      if (!merged.ok() && merged.reason() == Reason::kPolicyUnmergeable) {
        note_each_side(merged.error());
      }
    }
    out_.explanation.allowed = allowed;
    if (allowed) {
      foresee(*told);
    } else {
      out_.explanation.plan.reset();
      out_.leases.clear();
    }
    return std::move(out_);
  }

 private:
  bool note(std::string check, std::string asset, const Hash32& owner, const Status& status) {
    records::PlanCheck line;
    line.check = std::move(check);
    line.asset = std::move(asset);
    line.owner_id = owner;
    line.allowed = status.ok();
    if (!status.ok()) {
      line.reason = std::string(reason_code(status.reason()));
      line.what = printable(status.error().what, kTextBytes);
      line.expected = printable(status.error().expected, kTextBytes);
      line.actual = printable(status.error().actual, kTextBytes);
      line.next = printable(status.error().next, kTextBytes);
    }
    out_.explanation.checks.push_back(std::move(line));
    return status.ok();
  }

  Status check_submission() const {
    if (in_.submission.consumer.id() != s_.consumer_id) {
      return fail(Reason::kSpecMismatch, "consumer of the submission")
          .with(to_hex(s_.consumer_id), to_hex(in_.submission.consumer.id()));
    }
    GBX_ASSIGN(crypto::PublicKey key, in_.current_key(in_.submission.consumer));
    GBX_TRY(in_.submission.submission.verify(in_.set_id, key));
    for (const auto& k : s_.result_keys) GBX_TRY(crypto::HpkePublicKey::from_text(k.hpke));
    return s_.validate();
  }
  Status check_expiry() const {
    if (in_.now <= s_.not_after) return ok_status();
    return fail(Reason::kExpired, "submission")
        .with("before " + format_time(s_.not_after), format_time(in_.now));
  }
  // Exactly one binding for each input, and one for the image.
  Status check_bindings() const {
    std::set<std::string> wanted{"image"};
    const auto& spec = s_.spec.spec;
    for (const auto& i : spec.inputs) wanted.insert(i.name);
    for (const auto& b : s_.assets) {
      if (wanted.erase(b.name) != 1) {
        return fail(Reason::kSpecMismatch, "an asset that the spec does not name").with("", b.name);
      }
    }
    if (!wanted.empty()) {
      return fail(Reason::kSpecMismatch, "an input, or the image, without an asset version")
          .with(*wanted.begin(), "nothing");
    }
    if (spec.image.ref) {
      GBX_ASSIGN(const std::string digest, records::image_ref_digest(*spec.image.ref));
      if (digest != s_.image_digest) {
        return fail(Reason::kSpecMismatch, "digest of spec.image.ref")
            .with(s_.image_digest, digest);
      }
    }
    return ok_status();
  }
  // The gate compares the tables over one file of one input. Two files of an asset, an asset under
  // two inputs, or two of its versions, can give tables of the same people that nobody compares
  // (docs/decisions/0017).
  Status check_recipes() const {
    std::map<Id16, std::string> read_as;  // asset -> the file that recipes read, as INPUT/FILE
    for (const auto& o : s_.spec.spec.outputs) {
      const Json* recipe = o.schema ? o.schema->find("recipe") : nullptr;
      const auto text = [recipe](const char* member) -> const std::string* {
        const Json* value = recipe == nullptr ? nullptr : recipe->find(member);
        return value == nullptr ? nullptr : value->string();
      };
      const std::string* input = text("input");
      const std::string* file = text("file");
      if (input == nullptr || file == nullptr) continue;
      const auto binding = std::find_if(s_.assets.begin(), s_.assets.end(),
                                        [&](const auto& b) { return b.name == *input; });
      if (binding == s_.assets.end()) continue;
      const auto facts = in_.asset(binding->version_id);
      if (!facts || !facts->policy.body.clauses.tables) continue;
      const auto& tables = *facts->policy.body.clauses.tables;
      const bool computed =
          std::any_of(tables.begin(), tables.end(), [&](const auto& t) { return t.file == *file; });
      if (!computed) continue;  // no recipe of the owner's: all of it is free bits
      const std::string reads = binding->name + "/" + *file;
      const auto [known, first] = read_as.emplace(facts->record.body.asset_id, reads);
      if (first || known->second == reads) continue;
      return fail(Reason::kOutputNotAllowed, "recipes that read two files of one asset")
          .with("one file of each asset that recipes read", known->second + ", " + reads)
          .hint("let every recipe name the same input and file, or compute the tables in two jobs");
    }
    return ok_status();
  }
  Result<JobBits> capacity() const {
    GBX_TRY(check_recipes());
    InputTables tables;
    for (const auto& binding : s_.assets) {
      const auto facts = in_.asset(binding.version_id);
      if (!facts || !facts->policy.body.clauses.tables) continue;
      tables[binding.name] = *facts->policy.body.clauses.tables;
    }
    GBX_ASSIGN(const JobBits told, in_.capacity(s_.spec.spec, tables));
    const std::int64_t most = records::kMaxBits / 2;
    if (told.free_bits < kControlBits || told.free_bits > most || told.verified_bits < 0 ||
        told.verified_bits > most) {
      return fail(Reason::kOutputTooLarge, "capacity of the outputs")
          .with("at most " + number(most) + " bits",
                number(std::max(told.free_bits, told.verified_bits)));
    }
    return told;
  }

  Result<records::GateClause> common_gate() const {
    std::vector<records::GateClause> gates;
    for (const auto& binding : s_.assets) {
      const auto facts = in_.asset(binding.version_id);
      if (facts) gates.push_back(facts->policy.body.clauses.gate);
    }
    return merge_gates(gates);
  }

  bool judge_assets(std::int64_t bits) {
    bool allowed = true;
    for (const auto& binding : s_.assets) {
      auto facts = in_.asset(binding.version_id);
      if (!facts) {
        allowed = note("published", binding.name, {},
                       fail(Reason::kPolicyMissing, "no policy was published for this version")
                           .with("a published version", to_hex(binding.version_id)));
        continue;
      }
      const View view{in_, s_, binding, *facts, bits};
      for (const auto& c : kChecks) {
        if (!note(c.name, binding.name, view.policy().owner_id, c.run(view))) allowed = false;
      }
      // Yes or no says something of what others have spent: nothing to whom this owner lets do
      // nothing.
      if (check_consumer(view).ok()) {
        allowed =
            note("budget", binding.name, view.policy().owner_id, check_budget(view)) && allowed;
      }
      take_lease(view);
      const bool seen = std::any_of(facts_.begin(), facts_.end(), [&](const AssetFacts& f) {
        return f.policy.body.asset_version_id == view.policy().asset_version_id;
      });
      if (!seen) facts_.push_back(std::move(*facts));
    }
    return allowed && std::all_of(out_.explanation.checks.begin(), out_.explanation.checks.end(),
                                  [](const auto& c) { return c.allowed; });
  }
  void take_lease(const View& view) {
    if (!needs_lease(view.clauses(), s_.consumer_id)) return;
    auto lease = in_.lease(view.facts);
    if (!lease.ok()) return;
    const LeaseUse use{*lease, view.policy().asset_id};
    if (!contains(out_.leases, use)) out_.leases.push_back(use);
  }
  // Uses are counted for each id and asset, but a submission names, and a receipt shows, each id
  // once.
  Status check_leases() const {
    for (const auto& a : out_.leases) {
      for (const auto& b : out_.leases) {
        if (a.lease_id != b.lease_id || a.asset_id == b.asset_id) continue;
        return fail(Reason::kLeaseMissing, "the leases of two assets have one id")
            .with("an id of its own for each asset's lease", to_hex(a.lease_id))
            .hint("ask the owner of one of the assets for a new lease");
      }
    }
    return ok_status();
  }

  // Nobody's policy is wrong by itself: each owner's side of it, so that people know whom to ask.
  void note_each_side(const Error& why) {
    for (const auto& binding : s_.assets) {
      const auto f = std::find_if(facts_.begin(), facts_.end(), [&](const AssetFacts& x) {
        return x.policy.body.asset_version_id == binding.version_id;
      });
      const records::Policy& p = f->policy.body;
      std::vector<std::string> places;
      for (const auto& r : platforms_for(p.clauses, s_.spec.spec.tee)) {
        places.push_back(std::string(enum_name(r.technology)) + " " + r.root + " " +
                         joined(r.releases));
      }
      note("merge", binding.name, p.owner_id,
           fail(Reason::kPolicyUnmergeable, why.what)
               .with("what suits every owner",
                     gate_terms(p.clauses.gate) + ", places " + joined(places) + ", reviewers " +
                         number(static_cast<std::int64_t>(p.clauses.reviewers.size())) +
                         ", residual channels " + joined(p.clauses.residual_channels))
               .hint("agree with this owner, or leave this asset out"));
    }
  }

  Status make_plan(const JobBits& bits) {
    RunPlan plan;
    plan.job_id = s_.job_id();
    plan.time = in_.now;
    plan.custody = in_.custody;
    plan.rollback = in_.witnessed ? "witnessed" : "unprotected";
    plan.attempts = s_.spec.spec.attempts;
    for (const auto& f : facts_) {
      const auto& p = f.policy.body;
      plan.policies.push_back({p.asset_version_id, p.owner_id, f.policy.hash(), p.serial});
      const auto charged = std::find_if(
          plan.charges.begin(), plan.charges.end(),
          [&](const auto& c) { return c.owner_id == p.owner_id && c.asset_id == p.asset_id; });
      if (charged == plan.charges.end()) {
        plan.charges.push_back(
            {p.owner_id, p.asset_id, bits.free_bits, bits.verified_bits, 0, kSchemaCode, {}});
      }
    }
    GBX_TRY(check_leases());
    GBX_ASSIGN(plan.gate, gate_);
    GBX_TRY(merge_environment(plan));
    merge_reviewers(plan);
    GBX_TRY(fill_controls(plan));
    out_.explanation.plan = std::move(plan);
    return ok_status();
  }
  Status merge_environment(RunPlan& plan) const {
    plan.tee = platforms_for(facts_[0].policy.body.clauses, s_.spec.spec.tee);
    plan.controls.access = records::Access::kDirect;
    std::set<std::string> channels{"run-time", "resource-use"};
    for (const auto& f : facts_) {
      const Clauses& c = f.policy.body.clauses;
      if (&f != &facts_[0]) {
        plan.tee = merge_platforms(plan.tee, platforms_for(c, s_.spec.spec.tee));
      }
      if (c.access == records::Access::kPrefetch) plan.controls.access = c.access;
      channels.insert(c.residual_channels.begin(), c.residual_channels.end());
    }
    if (plan.tee.empty()) {
      return fail(Reason::kPolicyUnmergeable, "no platform is allowed by every owner");
    }
    if (plan.tee.size() > 16) plan.tee.resize(16);
    if (plan.controls.access == records::Access::kDirect) channels.insert("access-pattern");
    const bool none = std::any_of(plan.tee.begin(), plan.tee.end(),
                                  [](const auto& r) { return r.technology == Technology::kNone; });
    const bool sim = std::any_of(plan.tee.begin(), plan.tee.end(),
                                 [](const auto& r) { return r.technology == Technology::kSim; });
    if (none) channels.insert({"host-reads-memory", "node-introduces-agent"});
    if (sim) channels.insert({"host-reads-memory", "host-signs-evidence"});
    if (channels.size() > 32) {
      return fail(Reason::kPolicyUnmergeable, "more than 32 residual channels");
    }
    plan.residual_channels.assign(channels.begin(), channels.end());
    return ok_status();
  }
  // Each is in the mayPreview of the first policy that is asked, with the same keys: so the plan
  // has room for them all.
  void merge_reviewers(RunPlan& plan) const {
    bool first = true;
    for (const auto& f : facts_) {
      // The consumer asks nobody: he neither names who looks at the others' data nor keeps
      // somebody from it.
      if (!needs_rulings(f.policy.body, s_)) continue;
      const Clauses& c = f.policy.body.clauses;
      if (first) plan.may_preview = c.may_preview;
      std::erase_if(plan.may_preview, [&](const auto& r) { return !contains(c.may_preview, r); });
      plan.reviewers_needed = std::max(plan.reviewers_needed, c.reviewers_needed);
      first = false;
    }
    for (const auto& f : facts_) {
      if (!needs_rulings(f.policy.body, s_)) continue;
      for (const auto& r : eligible_reviewers(f.policy.body, plan.may_preview, in_.submission)) {
        if (!contains(plan.reviewers, r)) plan.reviewers.push_back(r);
      }
    }
  }
  Status fill_controls(RunPlan& plan) const {
    const records::Access access = plan.controls.access;
    GBX_ASSIGN(plan.controls, records::controls_of(s_.spec.spec));
    plan.controls.access = access;
    plan.controls.mandatory = mandatory_controls();
    return ok_status();
  }

  // What a run that ends well is charged is known before it, and with it whether a person has to
  // rule. That denies nothing and is no part of the plan; whoever asks is told.
  void foresee(const JobBits& told) {
    Panel panel;
    panel.may_preview = out_.explanation.plan->may_preview;
    panel.submission = in_.submission;
    bool asks = false;
    for (const auto& f : facts_) {
      panel.policies.push_back(f.policy);
      asks = asks || needs_rulings(f.policy.body, s_);
    }
    if (!asks) return;  // held, and released without anybody's ruling
    records::GateVerdict verdict;
    verdict.recommendation = Recommendation::kRelease;
    verdict.charge.free_bits = told.free_bits;
    verdict.charge.verified_bits = told.verified_bits;
    const std::int64_t bits = release_bits(*out_.explanation.plan, verdict, 1);
    const bool ruled = reviewable(panel);
    const std::size_t before = out_.explanation.checks.size();
    for (const auto& why : hold_reasons(s_, verdict)) {
      note_hold({"job", {}, why}, ruled, "outputs that their schemas bound",
                "opaque, or text without a word list");
    }
    for (const auto& binding : s_.assets) {
      const auto f = std::find_if(facts_.begin(), facts_.end(), [&](const AssetFacts& x) {
        return x.policy.body.asset_version_id == binding.version_id;
      });
      const auto& policy = f->policy.body;
      for (const auto& why : hold_reasons(policy, verdict, bits)) {
        const bool verified = why == reason::kVerifiedBits;
        const auto& gate = policy.clauses.gate;
        const std::string unit = verified ? " verified bits" : " free bits";
        note_hold({binding.name, policy.owner_id, why}, ruled,
                  "at most " +
                      number(verified ? gate.auto_clear_verified_bits : gate.auto_clear_free_bits) +
                      unit,
                  number(verified ? told.verified_bits : bits) + unit);
      }
    }
    if (ruled || out_.explanation.checks.size() == before) return;
    note_hold({"job", {}, reason::kNoReviewer}, ruled, "enough reviewers for every owner",
              "an owner without them");
  }
  struct Held {
    std::string asset;
    Hash32 owner{};
    std::string why;  // of decision.h
  };
  static std::string hold_hint(const std::string& why) {
    if (why == reason::kFreeBits) {
      return "declare smaller outputs and fewer digits, or ask the owner for a higher "
             "autoClearFreeBits";
    }
    if (why == reason::kVerifiedBits) {
      return "declare smaller tables, or ask the owner for a higher autoClearVerifiedBits";
    }
    if (why == reason::kOpaqueOutput) return "declare an output of another type";
    if (why == reason::kGateHolds) return "declare an `enum` for the text, or another type";
    return "";
  }
  void note_hold(const Held& held, bool ruled, std::string expected, std::string actual) {
    records::PlanCheck line;
    line.check = "clearance";
    line.asset = held.asset;
    line.owner_id = held.owner;
    line.allowed = true;
    line.reason = held.why;
    line.what = ruled ? "every run that succeeds is held for reviewers"
                      : "every run that succeeds is rejected, for it must be held and nobody may "
                        "review it";
    line.expected = std::move(expected);
    line.actual = std::move(actual);
    line.next = hold_hint(held.why);
    if (!ruled) {
      line.next += std::string(line.next.empty() ? "" : ", or ") + "ask the owner for reviewers";
    }
    out_.explanation.checks.push_back(std::move(line));
  }

  const PolicyInputs& in_;
  const Submission& s_;
  Result<records::GateClause> gate_ = fail(Reason::kPolicyMissing, "not judged");  // of all owners
  std::vector<AssetFacts> facts_;
  Judged out_;
};

}  // namespace

Status within_budget(const Spent& spent, const records::GateClause& gate, std::int64_t bits) {
  if (spent.period_free_bits + bits > gate.period_free_bits) {
    return fail(Reason::kBudgetExceeded,
                "free bits of this consumer in " + number(gate.period_days) + " days")
        .with(number(gate.period_free_bits),
              number(spent.period_free_bits) + " spent + " + number(bits))
        .hint("declare smaller outputs, or wait until the period has passed");
  }
  if (spent.total_free_bits + bits > gate.total_free_bits) {
    // How much is left is what others have spent, which only the owner reads in the ledger.
    return fail(Reason::kBudgetExceeded, "free bits of all consumers")
        .with("enough left for " + number(bits), "not enough left")
        .hint("declare smaller outputs, or ask the owner");
  }
  return ok_status();
}

bool may_meet(const Clauses& clauses, const Id16& asset, const Hash32& owner) {
  return contains(clauses.join_assets, asset) || contains(clauses.join_owners, owner);
}

bool needs_lease(const Clauses& clauses, const Hash32& consumer) {
  if (contains(clauses.consumers, consumer)) return false;
  return clauses.lease_required || !clauses.consumers.empty();
}

Status in_force(const AssetFacts& f, std::int64_t now) {
  const auto& p = f.policy.body;
  if (p.revoked) {
    return fail(Reason::kPolicyRevoked, "the owner has revoked this version")
        .with("", "serial " + number(p.serial));
  }
  if (now > p.clauses.not_after) {
    return fail(Reason::kPolicyExpired, "policy")
        .with("before " + format_time(p.clauses.not_after), format_time(now));
  }
  if (p.clauses.fresh_for_seconds > 0 && now - f.confirmed_at > p.clauses.fresh_for_seconds) {
    return fail(Reason::kPolicyNotFresh, "the owner has not confirmed the policy lately")
        .with("at most " + number(p.clauses.fresh_for_seconds) + " s ago",
              number(now - f.confirmed_at) + " s ago")
        .hint("the owner says so: glovebox policy beacon NAME");
  }
  return ok_status();
}

Status verify_asset(const records::SetId& set_id, const AssetFacts& f) {
  const auto& r = f.record.body;
  const auto& p = f.policy.body;
  if (f.owner.id() != r.owner_id || p.owner_id != r.owner_id) {
    return fail(Reason::kWrongOwner, "owner of record and policy")
        .with(to_hex(r.owner_id), to_hex(p.owner_id));
  }
  if (p.asset_version_id != r.id() || p.asset_id != r.asset_id) {
    return fail(Reason::kWrongAsset, "the policy is about another version")
        .with(to_hex(r.id()), to_hex(p.asset_version_id));
  }
  if (p.commit_dk != r.commit_dk) {
    return fail(Reason::kBadCommitment, "policy and record commit to different keys");
  }
  GBX_TRY(records::verify_by_identity(set_id, f.owner, f.record));
  return records::verify_by_identity(set_id, f.owner, f.policy);
}

Judged judge(const PolicyInputs& inputs) { return Judge(inputs).run(); }

Status denial(const records::Explanation& e) {
  for (const auto& c : e.checks) {
    if (c.allowed) continue;
    Error error(Reason::kPolicyMismatch, c.what);
    reason_from_code(c.reason, &error.reason);
    error.with(c.expected, c.actual).hint(c.next);
    return error.at(c.check + " (" + c.asset + ")");
  }
  if (!e.allowed) return fail(Reason::kInternal, "denied without a reason");
  return ok_status();
}

}  // namespace gbx::policy
