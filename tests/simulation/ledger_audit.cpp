// What jobs owe, reckoned from the log alone.
#include <array>
#include <optional>
#include <set>
#include <tuple>

#include "audit.h"
#include "broker/entries.h"
#include "policy/testing.h"

namespace gbx::simulation {

using namespace broker;
using records::LedgerState;
using testing::must;

namespace {

using Account = std::pair<Hash32, Id16>;  // owner, asset

// docs/gate.md; by numbers of its own, or one mistake would stand on both sides.
constexpr std::int64_t kEndBits = 8;     // exit class, duration, decision
constexpr std::int64_t kReasonBits = 4;  // one of sixteen
std::int64_t bits_of_count(std::int64_t attempts) {
  std::int64_t bits = 0;
  while ((std::int64_t{1} << bits) < attempts) ++bits;
  return bits;
}

struct Line {
  Hash32 consumer{};
  LedgerState state = LedgerState::kReserved;
  std::int64_t bits = 0;
  std::int64_t told_bits = 0;
  std::int64_t verified_bits = 0;
};
struct Owed {
  Hash32 consumer{};
  std::set<Account> accounts;  // of the plan's policies
  std::int64_t planned_bits = 0;
  std::int64_t attempts_with_data = 0;
  std::int64_t reasons = 0;
  records::GateVerdict sealed;
  std::optional<Line> line;
  std::int64_t ending_bits() const {
    return kEndBits + bits_of_count(attempts_with_data) + reasons * kReasonBits;
  }
};

class Reckoning {
 public:
  std::string take(const LogEntry& e) {
    if (e.kind == PublishEntry::kKind) publish(must(from_json<PublishEntry>(e.body)));
    if (e.kind == AuthoriseEntry::kKind) return plan(must(from_json<AuthoriseEntry>(e.body)));
    if (e.kind == Key2Entry::kKind) return data_key(must(from_json<KeyEntry>(e.body)));
    if (e.kind == SealEntry::kKind) {
      const auto seal = must(from_json<SealEntry>(e.body));
      const auto& context = seal.seal.statement.body.manifest.context;
      jobs_[context.job_id].sealed = context.verdict;
    }
    if (e.kind == RulingEntry::kKind) ruling(must(from_json<RulingEntry>(e.body)));
    if (e.kind == CancelEntry::kKind) return cancel(must(from_json<CancelEntry>(e.body)));
    if (e.kind == ReleaseEntry::kKind) return decide(must(from_json<ReleaseEntry>(e.body)));
    return {};
  }
  // Job by job, and added up as it is asked for.
  std::string compare(const State& state, std::map<std::string, std::size_t>& lines) const {
    const auto ledgers = state.ledger();
    for (const Account& account : assets()) {
      const auto kept = ledgers.find(to_hex(account.first) + "/" + to_hex(account.second));
      std::size_t due = 0;
      for (const auto& [id, job] : jobs_) {
        if (!job.line || job.accounts.count(account) == 0) continue;
        ++due;
        lines[std::string(enum_name(job.line->state))] += 1;
        const auto found = state.line(account.first, account.second, id);
        if (!found || kept == ledgers.end() || kept->second.count(to_hex(id)) == 0) {
          return "ledger: a charge is lost: " + to_hex(id);
        }
        const LedgerAmounts& a = found->amounts;
        const Line& l = *job.line;
        if (std::tuple(found->consumer_id, a.state, a.free_bits, a.told_bits, a.verified_bits) !=
            std::tuple(l.consumer, l.state, l.bits, l.told_bits, l.verified_bits)) {
          return "ledger: " + to_hex(id) + " is charged " + std::to_string(a.free_bits) +
                 " bits, " + std::to_string(a.told_bits) + " of them told, and owes " +
                 std::to_string(l.bits) + " and " + std::to_string(l.told_bits);
        }
      }
      if (kept != ledgers.end() && kept->second.size() != due) {
        return "ledger: a charge that nothing explains";
      }
      const std::string bad = compare_sums(state, account);
      if (!bad.empty()) return bad;
    }
    return {};
  }

 private:
  std::set<Account> assets() const {
    std::set<Account> out;
    for (const auto& [version, account] : versions_) out.insert(account);
    return out;
  }
  std::string compare_sums(const State& state, const Account& account) const {
    std::map<std::optional<Hash32>, std::array<std::int64_t, 4>> due;  // by consumer, and of all
    due[std::nullopt] = {};
    for (const auto& [id, job] : jobs_) {
      if (!job.line || job.accounts.count(account) == 0) continue;
      for (const auto& who : {std::optional<Hash32>(), std::optional(job.consumer)}) {
        auto& [count, bits, told, verified] = due[who];
        count += 1;
        bits += job.line->bits;
        told += job.line->told_bits;
        verified += job.line->verified_bits;
      }
    }
    records::PlanCharge asset;
    asset.owner_id = account.first;
    asset.asset_id = account.second;
    for (const auto& [who, sums] : due) {
      const auto& [count, bits, told, verified] = sums;
      const LedgerSums& kept = state.sums(account.first, account.second, who);
      const policy::Spent spent = state.spent(asset, who.value_or(Hash32{}), 0, Hash32{});
      if (std::tuple(kept.order.count(), kept.told.free_bits(), kept.told.verified_bits()) !=
              std::tuple(count, told, verified) ||
          (who ? spent.period_free_bits : spent.total_free_bits) != bits) {
        return "ledger: the sums of " + to_hex(account.second) + " are not those of its jobs";
      }
    }
    return {};
  }
  void publish(const PublishEntry& e) {
    const records::Policy& p = e.publish.policy.body;
    versions_[p.asset_version_id] = {p.owner_id, p.asset_id};
  }
  std::string plan(const AuthoriseEntry& e) {
    Owed& job = jobs_[e.plan.body.job_id];
    job.consumer = e.submission.submission.body.consumer_id;
    if (e.plan.body.gate.release_slot_seconds != 0) return "log: bits of slots are not reckoned";
    for (const auto& p : e.plan.body.policies) {
      job.accounts.insert(versions_.at(p.asset_version_id));
    }
    if (e.plan.body.charges.empty()) return "log: a plan that charges nobody";
    job.planned_bits = e.plan.body.charges[0].free_bits;
    if (job.planned_bits < kEndBits) return "log: a plan that charges less than an ending tells";
    return once_each(job, e.plan.body.charges, job.planned_bits);
  }
  // Every owner for every asset of the job, once, and the whole amount.
  static std::string once_each(const Owed& job, const std::vector<records::PlanCharge>& charges,
                               std::int64_t bits) {
    std::set<Account> charged;
    for (const auto& c : charges) {
      if (!charged.insert({c.owner_id, c.asset_id}).second) return "log: an owner charged twice";
      if (c.free_bits != bits) {
        return "log: a charge of " + std::to_string(c.free_bits) + " bits where " +
               std::to_string(bits) + " are due";
      }
    }
    return charged == job.accounts ? "" : "log: charged are others than the owners of the job";
  }
  std::string data_key(const KeyEntry& e) {
    Owed& job = jobs_[e.request.body.job_id];
    job.attempts_with_data += 1;
    job.line = Line{job.consumer, LedgerState::kReserved, job.planned_bits, job.planned_bits, 0};
    for (const auto& c : e.reserved) job.line->verified_bits = c.verified_bits;
    return once_each(job, e.reserved, job.planned_bits);
  }
  void ruling(const RulingEntry& e) {
    Owed& job = jobs_[e.job_id];
    const auto said = static_cast<std::int64_t>(e.request.ruling.body.reasons.size());
    job.reasons += said;
    job.line->bits += said * kReasonBits;  // and told with the decision
  }
  std::string cancel(const CancelEntry& e) {
    Owed& job = jobs_[e.request.cancel.body.job_id];
    if (!job.line) return e.charges.empty() ? "" : "log: a charge for what had no data";
    const std::int64_t bits = job.ending_bits();
    job.line = Line{job.consumer, LedgerState::kCancelled, bits, bits, 0};
    return once_each(job, e.charges, bits);
  }
  std::string decide(const ReleaseEntry& e) {
    Owed& job = jobs_[e.job_id];
    if (!job.line) return "log: a decision on what had no data";
    const bool released = e.decision == records::ReleaseDecision::kRelease;
    // The gate's own figure has the ending in it.
    const std::int64_t output = released ? job.sealed.charge.free_bits - kEndBits : 0;
    const std::int64_t bits = job.ending_bits() + output;
    const bool cancelled = job.line->state == LedgerState::kCancelled;
    if (cancelled && released) return "log: what was cancelled is released";
    const LedgerState ended = released ? LedgerState::kReleased : LedgerState::kRejected;
    job.line = Line{job.consumer, cancelled ? LedgerState::kCancelled : ended, bits, bits,
                    released ? job.sealed.charge.verified_bits : 0};
    return once_each(job, e.charges, bits);
  }

  std::map<Hash32, Account> versions_;
  std::map<Hash32, Owed> jobs_;
};

}  // namespace

std::string audit_ledger(const LogStore& log, const State& state,
                         std::map<std::string, std::size_t>& lines) {
  Reckoning reckoning;
  const std::uint64_t size = must(log.size());
  for (std::uint64_t i = 0; i < size; ++i) {
    const auto entry = must(from_json_text<LogEntry>(must(log.entry(i)).entry));
    const std::string bad = reckoning.take(entry);
    if (!bad.empty()) return bad + " (entry " + std::to_string(i) + ")";
  }
  return reckoning.compare(state, lines);
}

}  // namespace gbx::simulation
