// A policy in plain sentences, for `glovebox policy explain`.
#include "policy/policy.h"

namespace gbx::policy {

namespace {

std::string count(std::int64_t n, const std::string& one) {
  return std::to_string(n) + " " + one + (n == 1 ? "" : "s");
}
template <class T, class Text>
std::string list(const std::vector<T>& items, Text text) {
  std::string out;
  for (const auto& i : items) out += (out.empty() ? "" : ", ") + std::string(text(i));
  return out;
}
std::string short_hash(const Hash32& h) { return to_hex(h).substr(0, 16) + "…"; }

std::string who(const records::Clauses& c) {
  if (!c.lease_required && c.consumers.empty()) return "ANYONE may submit jobs: no lease is needed and no consumer is named.";
  std::string s;
  if (!c.consumers.empty()) s = "May submit without a lease: " + list(c.consumers, short_hash) + ". ";
  s += c.lease_required ? "Everybody else needs a lease" : "Nobody else may submit, unless with a lease";
  return s + " signed by the owner" +
         (c.lease_issuers.empty() ? "." : " or by " + list(c.lease_issuers, [](const auto& k) { return k; }) + ".");
}
std::string code(const records::Clauses& c) {
  std::string s = "Images: ";
  if (c.images.empty()) s += "none (no job can run)";
  s += list(c.images, [](const auto& i) {
    if (i.digest) return *i.digest + (i.signer ? " signed by " + *i.signer : "");
    return i.signer ? "any image signed by " + *i.signer : std::string("nothing");
  });
  s += ". Commands: ";
  if (c.any_command) return s + "ANY, with any arguments and environment: whoever submits chooses the code.";
  if (c.commands.empty()) return s + "none (no job can run).";
  return s + list(c.commands, [](const auto& r) {
           return "`" + [&] {
             std::string line;
             for (const auto& a : r.argv) line += (line.empty() ? "" : " ") + a;
             return line;
           }() + "`" + (r.env.empty() ? "" : " with variables " + list(r.env, [](const auto& e) { return e; }));
         }) + ".";
}
std::string platform(const records::PlatformRule& r) {
  if (r.technology == records::Technology::kNone) {
    return "NO TEE on node " + (r.root.empty() ? "(none named: allows nothing)" : r.root) +
           ": whoever runs that machine can read everything";
  }
  std::string s(enum_name(r.technology));
  if (r.technology == records::Technology::kSim) s = "SIMULATED TEE " + r.root + ": whoever runs that machine can read everything";
  return s + ", releases " + list(r.releases, [](const auto& x) { return x; });
}
std::string gate(const records::GateClause& g) {
  std::string s = "Outputs of type " + list(g.output_types, [](auto t) { return enum_name(t); }) + ", at most " +
                  count(g.max_output_bytes, "byte") + " and " + count(g.max_rows, "row") + ". Without a person: up to " +
                  count(g.auto_clear_free_bits, "free bit") + " a release at a risk score below " +
                  std::to_string(g.hold_score) + ". In all: " + count(g.period_free_bits, "free bit") + " per consumer in " +
                  count(g.period_days, "day") + ", " + count(g.total_free_bits, "free bit") + " over all consumers for ever. ";
  s += g.copy_check ? "Copies of input rows are looked for. " : "Copies of input rows are NOT looked for. ";
  s += g.release_slot_seconds == 0 ? "Decisions fall at once: their time can tell something. "
                                   : "Decisions fall on multiples of " + count(g.release_slot_seconds, "second") + ". ";
  s += g.logs == records::LogVisibility::kNone ? "Logs are not delivered."
                                               : "The consumer gets up to " + count(g.log_bytes, "byte") + " of logs.";
  return s;
}

}  // namespace

std::vector<std::string> explain_policy(const records::Policy& p) {
  const auto& c = p.clauses;
  std::vector<std::string> out;
  out.push_back("Version " + short_hash(p.asset_version_id) + " of asset " + to_hex(p.asset_id) + ", policy serial " +
                std::to_string(p.serial) + ".");
  if (p.revoked) out.push_back("REVOKED: no new keys, and held results are not released.");
  out.push_back("Until " + format_time(c.not_after) + "." +
                (c.fresh_for_seconds > 0 ? " Needs a new serial every " + count(c.fresh_for_seconds, "second") + "." : ""));
  out.push_back(who(c));
  out.push_back("Purposes: " +
                (c.purposes.empty()
                     ? "none (no job can run)"
                     : list(c.purposes, [](const auto& x) { return x == "*" ? std::string("any") : x; })) +
                ".");
  out.push_back(code(c));
  out.push_back(c.join_assets.empty() && c.join_owners.empty()
                    ? "No other input may be in the same job."
                    : "May be joined with assets " + list(c.join_assets, [](const auto& a) { return to_hex(a); }) +
                          " and anything of owners " + list(c.join_owners, short_hash) + ".");
  out.push_back("Where: " + (c.tee.empty() ? "nowhere (no job can run)" : list(c.tee, platform)) + ".");
  for (const auto k : c.custody) {
    if (k == records::Custody::kOperator) out.push_back("The broker's operator holds its keys and could read every dataset key.");
  }
  if (c.rollback == "unprotected") out.push_back("The broker's operator could restore an old log: budgets and revocations are as good as its word.");
  out.push_back(gate(c.gate));
  out.push_back(c.reviewers.empty() ? "Held results are rejected: nobody may review them."
                                    : "Held results need " + std::to_string(c.reviewers_needed) + " of " +
                                          count(static_cast<std::int64_t>(c.reviewers.size()), "reviewer") + "; previews go to " +
                                          count(static_cast<std::int64_t>(c.may_preview.size()), "person") + " at most.");
  out.push_back("Up to " + count(c.attempts, "attempt") + " a job once keys were released.");
  if (c.access == records::Access::kDirect) out.push_back("Access is direct: the host sees which blocks a job reads.");
  if (!c.residual_channels.empty()) out.push_back("Accepted residual channels: " + list(c.residual_channels, [](const auto& x) { return x; }) + ".");
  return out;
}

}  // namespace gbx::policy
