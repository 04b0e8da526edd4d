// Several owners, one job: the strictest value of each clause.
#include <algorithm>
#include <bit>
#include <numeric>

#include "policy/policy.h"

namespace gbx::policy {

using records::GateClause;
using records::PlatformRule;
using records::Technology;

namespace {

constexpr std::int64_t kLongestSlot = 86400;

// Decisions must fall on a multiple of every owner's slot; 0 asks for none. What is longer than the
// longest stays one second longer: anybody may name assets together, and multiples of their slots
// grow beyond any integer.
std::int64_t common_slot(std::int64_t a, std::int64_t b) {
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(std::lcm(a, b), kLongestSlot + 1);
}

template <class T>
std::vector<T> both(const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<T> out;
  for (const auto& x : a) {
    if (std::find(b.begin(), b.end(), x) != b.end()) out.push_back(x);
  }
  return out;
}

void tighten(GateClause& m, const GateClause& g) {
  m.auto_clear_free_bits = std::min(m.auto_clear_free_bits, g.auto_clear_free_bits);
  m.auto_clear_verified_bits = std::min(m.auto_clear_verified_bits, g.auto_clear_verified_bits);
  m.period_free_bits = std::min(m.period_free_bits, g.period_free_bits);
  m.period_days = std::max(m.period_days, g.period_days);
  m.total_free_bits = std::min(m.total_free_bits, g.total_free_bits);
  m.max_output_bytes = std::min(m.max_output_bytes, g.max_output_bytes);
  m.max_rows = std::min(m.max_rows, g.max_rows);
  m.hold_score = std::min(m.hold_score, g.hold_score);
  m.output_types = both(m.output_types, g.output_types);
  m.copy_check = m.copy_check || g.copy_check;
  m.release_slot_seconds = common_slot(m.release_slot_seconds, g.release_slot_seconds);
  if (g.logs == records::LogVisibility::kNone) m.logs = g.logs;
  m.log_bytes = std::min(m.log_bytes, g.log_bytes);
  if (m.cell_subjects || g.cell_subjects) {
    m.cell_subjects = std::max(m.least_subjects(), g.least_subjects());
  }
}

}  // namespace

Result<GateClause> merge_gates(const std::vector<GateClause>& gates) {
  if (gates.empty()) return fail(Reason::kPolicyMissing, "no gate clause");
  GateClause m = gates.front();
  for (std::size_t i = 1; i < gates.size(); ++i) tighten(m, gates[i]);
  if (m.output_types.empty()) {
    return fail(Reason::kPolicyUnmergeable, "no output type is allowed by every owner");
  }
  if (m.release_slot_seconds > kLongestSlot) {
    return fail(Reason::kPolicyUnmergeable,
                "the owners' release slots coincide less than once a day")
        .with("at most 86400 s", "more");
  }
  return m;
}

std::vector<PlatformRule> merge_platforms(const std::vector<PlatformRule>& a,
                                          const std::vector<PlatformRule>& b) {
  std::vector<PlatformRule> out;
  for (const auto& x : a) {
    for (const auto& y : b) {
      if (x.technology != y.technology) continue;
      if (!x.root.empty() && !y.root.empty() && x.root != y.root) continue;
      PlatformRule m = x;
      if (m.root.empty()) m.root = y.root;
      m.releases = both(x.releases, y.releases);
      m.minimum_svn = std::max(x.minimum_svn, y.minimum_svn);
      if (m.technology != Technology::kNone && m.releases.empty()) continue;
      out.push_back(std::move(m));
    }
  }
  return out;
}

std::int64_t attempt_bits(std::int64_t attempt) {
  if (attempt <= 1) return 0;
  return static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(attempt) - 1));
}

std::int64_t slot_bits(const TimedRun& run) {
  if (run.slot_seconds <= 0) return 0;
  // how long the gate judges, and the node deletes, is up to what the container wrote
  const std::int64_t longest = run.run_seconds + kGateSeconds + kDestroySeconds;
  // rounded up, and one more, for a run begins anywhere in a slot
  const std::int64_t slots = (longest + run.slot_seconds - 1) / run.slot_seconds + 1;
  return attempt_bits(slots);
}

std::int64_t attempts_bits(const TimedRun& run, std::int64_t attempts) {
  return attempt_bits(attempts) + attempts * slot_bits(run);
}

const std::vector<std::string>& mandatory_controls() {
  static const std::vector<std::string> kControls = {
      "user-namespace",     "no-capabilities", "no-new-privs", "read-only-root",
      "private-namespaces", "seccomp",         "proc-subset",  "no-sysfs",
      "pids-limit",         "memory-limit",    "cpu-limit",    "no-network",
      "no-runtime-socket",  "out-bounded",     "logs-bounded"};
  return kControls;
}

std::vector<records::Reviewer> eligible_reviewers(const records::Policy& policy,
                                                  const std::vector<records::Reviewer>& may_preview,
                                                  const records::SignedSubmission& submission) {
  const auto& s = submission.submission.body;
  std::vector<records::Reviewer> out;
  for (const auto& r : policy.clauses.reviewers) {
    if (std::find(may_preview.begin(), may_preview.end(), r) == may_preview.end()) continue;
    if (r.identity_id == s.consumer_id || r.key == submission.submission.key) continue;
    const bool result_key = std::any_of(s.result_keys.begin(), s.result_keys.end(),
                                        [&](const auto& k) { return k.hpke == r.hpke; });
    const bool twice = std::any_of(out.begin(), out.end(),
                                   [&](const auto& o) { return o.identity_id == r.identity_id; });
    if (!result_key && !twice) out.push_back(r);
  }
  return out;
}

bool needs_rulings(const records::Policy& policy, const records::Submission& submission) {
  return policy.owner_id != submission.consumer_id;
}

Status verdict_allowed(const std::vector<PlatformRule>& rules, const records::Verdict& v) {
  using records::Check;
  if (v.binding != Check::kPass || v.signature != Check::kPass) {
    return fail(Reason::kTeeNotAllowed, "the evidence was not verified");
  }
  const bool unmeasured = v.technology == Technology::kNone;
  const bool by_name = unmeasured || v.technology == Technology::kSim;
  const char* nearest = "technology";  // how far the best rule went
  for (const auto& r : rules) {
    if (r.technology != v.technology) continue;
    if (nearest == std::string_view("technology")) nearest = "root";
    if (by_name && r.root.empty()) continue;
    if (!r.root.empty() && r.root != v.root) continue;
    if (unmeasured) return ok_status();
    nearest = "release";
    if (v.measurement != Check::kPass || v.debug_off != Check::kPass || v.svn < r.minimum_svn) {
      continue;
    }
    if (std::find(r.releases.begin(), r.releases.end(), v.release) != r.releases.end()) {
      return ok_status();
    }
  }
  const bool technology = nearest == std::string_view("technology");
  return fail(Reason::kTeeNotAllowed, std::string("no owner's rule ") +
                                          (technology ? "allows" : "names") + " this " + nearest)
      .with("a platform that every policy names",
            std::string(enum_name(v.technology)) + " " + v.root + " " + v.release);
}

}  // namespace gbx::policy
