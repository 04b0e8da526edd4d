// A policy in plain sentences, for `glovebox policy explain`.
#include <algorithm>

#include "base/figures.h"
#include "base/log.h"
#include "policy/policy.h"
#include "policy/rows.h"

namespace gbx::policy {

namespace {

template <class T, class Text>
std::string list(const std::vector<T>& items, Text text) {
  std::string out;
  for (const auto& i : items) out += (out.empty() ? "" : ", ") + std::string(text(i));
  return out;
}
std::string short_hash(const Hash32& h) { return to_hex(h).substr(0, 16) + "…"; }

std::string who(const records::Clauses& c) {
  if (!c.lease_required && c.consumers.empty()) {
    return "ANYONE may submit jobs: no lease is needed and no consumer is named.";
  }
  std::string s;
  if (!c.consumers.empty()) {
    s = "May submit without a lease: " + list(c.consumers, short_hash) + ". ";
  }
  const char* all =
      c.consumers.empty() ? "Everybody needs a lease" : "Everybody else needs a lease";
  s += c.lease_required ? all : "Nobody else may submit, unless with a lease";
  return s + " signed by the owner" +
         (c.lease_issuers.empty() ? "." : " or by " + list(c.lease_issuers, [](const auto& k) {
                                            return k;
                                          }) + ".");
}
std::string code(const records::Clauses& c) {
  std::string s = "Images: ";
  if (c.images.empty()) s += "none";
  s += list(c.images, [](const auto& i) {
    if (i.digest) return *i.digest + (i.signer ? " signed by " + *i.signer : "");
    return i.signer ? "any image signed by " + *i.signer : std::string("nothing");
  });
  s += ". Commands: ";
  if (c.any_command) {
    return s + "ANY, with any arguments and environment: whoever submits chooses the code.";
  }
  if (c.commands.empty()) return s + "none.";
  return s +
         list(c.commands,
              [](const auto& r) {
                return "`" +
                       [&] {
                         std::string line;
                         for (const auto& a : r.argv) line += (line.empty() ? "" : " ") + a;
                         return line;
                       }() +
                       "`" +
                       (r.env.empty() ? "" : " with variables " + list(r.env, [](const auto& e) {
                                               return e;
                                             }));
              }) +
         ".";
}
// The identity, and the keys by which it rules and reads: whoever has these is the reviewer.
std::string reviewer(const records::Reviewer& r) {
  return short_hash(r.identity_id) + " (rules by " + r.key + ", reads by " + r.hpke + ")";
}
std::string joined_with(const records::Clauses& c, records::AssetKind kind) {
  std::string named;
  if (!c.join_assets.empty()) {
    named = "asset " + list(c.join_assets, [](const auto& a) { return to_hex(a); });
  }
  if (!c.join_owners.empty()) {
    named += (named.empty() ? "" : ", or with ") + std::string("anything of owner ") +
             list(c.join_owners, short_hash);
  }
  if (kind == records::AssetKind::kImage) {
    return named.empty() ? "Inputs of its jobs: none." : "Runs together with " + named + ".";
  }
  return named.empty() ? "No other input may be in the same job."
                       : "May be joined with " + named + ".";
}
std::string platform(const records::PlatformRule& r) {
  if (r.technology == records::Technology::kNone) {
    return "node " + (r.root.empty() ? "(none named: allows nothing)" : r.root) + ", NO TEE";
  }
  std::string s(enum_name(r.technology));
  if (r.technology == records::Technology::kSim) s = "SIMULATED TEE " + r.root;
  return s + ", releases " + list(r.releases, [](const auto& x) { return x; });
}
std::string free_bits(std::int64_t bits, const std::optional<std::int64_t>& row_bits) {
  const std::string rows = equivalent_rows(bits, row_bits);
  return counted(bits, "free bit") + (rows.empty() ? "" : " (" + rows + ")");
}
std::string gate(const records::GateClause& g, const std::optional<std::int64_t>& row_bits) {
  std::string s = "Outputs of type " + list(g.output_types, [](auto t) { return enum_name(t); }) +
                  ", at most " + counted(g.max_output_bytes, "byte") + " and " +
                  counted(g.max_rows, "row") + ". Without a person: up to " +
                  free_bits(g.auto_clear_free_bits, row_bits) +
                  " a release at a risk score below " + std::to_string(g.hold_score) +
                  ". In all: " + free_bits(g.period_free_bits, row_bits) + " per consumer in " +
                  counted(g.period_days, "day") + ", " + free_bits(g.total_free_bits, row_bits) +
                  " over all consumers for ever. ";
  s += g.copy_check ? "Copies of input rows are looked for. "
                    : "Copies of input rows are NOT looked for. ";
  s += g.release_slot_seconds == 0
           ? "Decisions fall at once: their time can tell something, and that is not charged. "
           : "Decisions fall on multiples of " + counted(g.release_slot_seconds, "second") + ". ";
  s += g.logs == records::LogVisibility::kNone
           ? "Logs are not delivered."
           : "The consumer gets up to " + counted(g.log_bytes, "byte") + " of logs.";
  return s;
}

// What an owner says cannot be: rows of which nobody learns anything.
std::string impossible(const records::TableRule& t) {
  std::string s;
  for (const auto& z : t.structural_zeros.value_or(std::vector<records::StructuralZero>{})) {
    s += s.empty() ? "; none with " : ", none with ";
    for (std::size_t i = 0; i < z.columns.size() && i < z.words.size(); ++i) {
      s += (i == 0 ? "" : " and ") + z.columns[i] + " " + z.words[i];
    }
  }
  return s;
}

std::string recipes(const records::Clauses& c) {
  if (!c.tables) {
    return "Tables: no file may be counted by recipes, so every bit that leaves is a free one.";
  }
  return "Tables that the gate computes itself, by a recipe of the job: from " +
         list(*c.tables,
              [](const auto& t) {
                return t.file + " (one " + t.subject + ", one subject" + impossible(t) + ")";
              }) +
         ", cells of at least " + counted(c.gate.least_subjects(), "subject") +
         ". Of these, up to " + counted(c.gate.auto_clear_verified_bits, "verified bit") +
         " a release without a person; over many releases they have no limit, and the tables of "
         "different jobs are not compared.";
}

// What this version's brokers can check: evidence of technology none by a node's key.
bool some_platform(const records::Clauses& c) {
  return std::any_of(c.tee.begin(), c.tee.end(), [](const auto& r) {
    return r.technology == records::Technology::kNone && r.root.rfind("none:", 0) == 0;
  });
}
void data_dead_ends(const records::Clauses& c, std::vector<std::string>& out) {
  const bool image = std::any_of(c.images.begin(), c.images.end(),
                                 [](const auto& i) { return i.digest || i.signer; });
  if (!image) {
    out.push_back("images: no image may read it; name one by its digest or by its signer");
  }
  if (c.commands.empty() && !c.any_command) {
    out.push_back("commands: no command is allowed; name one (anyCommand allows every one)");
  }
}

}  // namespace

std::string equivalent_rows(std::int64_t bits, const std::optional<std::int64_t>& row_bits) {
  if (!row_bits || *row_bits <= 0) return {};
  std::int64_t whole = bits / *row_bits;
  std::int64_t tenths = (bits % *row_bits * 10 + *row_bits - 1) / *row_bits;
  whole += tenths / 10;
  tenths %= 10;
  return grouped(whole) + "." + std::to_string(tenths) + " rows";
}

std::vector<std::string> dead_ends(const records::Policy& p, records::AssetKind kind,
                                   std::int64_t now) {
  const auto& c = p.clauses;
  std::vector<std::string> out;
  if (p.revoked) out.push_back("it is revoked");
  if (c.not_after < now) out.push_back("notAfter: it ended at " + format_time(c.not_after));
  if (c.purposes.empty()) {
    out.push_back("purposes: none is allowed; name the words that jobs state, or \"*\"");
  }
  if (kind != records::AssetKind::kImage) {
    data_dead_ends(c, out);
  } else if (c.join_assets.empty() && c.join_owners.empty()) {
    out.push_back(
        "joinOwners: the image may meet no input; name the owners of the data (or assets in "
        "joinAssets)");
  }
  if (!some_platform(c)) {
    out.push_back(
        "tee: no place where it could run today; name a node by the hash of its key (glovebox node "
        "list)");
  }
  if (std::find(c.custody.begin(), c.custody.end(), records::Custody::kOperator) ==
      c.custody.end()) {
    out.push_back(
        "custody: brokers of this version keep their keys with an operator; accept it by name "
        "(operator)");
  }
  if (c.rollback != "unprotected") {
    out.push_back(
        "rollback: no witnesses watch a broker's log yet; accept it by name (unprotected)");
  }
  if (c.gate.output_types.empty() || c.gate.max_output_bytes == 0) {
    out.push_back("gate: no output may leave");
  }
  const std::int64_t bits = std::min(c.gate.period_free_bits, c.gate.total_free_bits);
  if (bits < kControlBits) {
    out.push_back("gate: every release costs " + counted(kControlBits, "bit") +
                  " and the budget has " + std::to_string(bits));
  }
  return out;
}

std::vector<std::string> explain_policy(const records::Policy& p, records::AssetKind kind) {
  const auto& c = p.clauses;
  std::vector<std::string> out;
  out.push_back("Version " + short_hash(p.asset_version_id) + " of asset " + to_hex(p.asset_id) +
                ", policy serial " + std::to_string(p.serial) + ".");
  if (p.revoked) out.push_back("REVOKED: no new keys, and held results are not released.");
  out.push_back("Until " + format_time(c.not_after) + "." +
                (c.fresh_for_seconds > 0 ? " Needs a sign of life (policy beacon) every " +
                                               counted(c.fresh_for_seconds, "second") + "."
                                         : ""));
  out.push_back(who(c));
  out.push_back(
      "Purposes: " +
      (c.purposes.empty()
           ? "none"
           : list(c.purposes, [](const auto& x) { return x == "*" ? std::string("any") : x; })) +
      ".");
  out.push_back(kind == records::AssetKind::kImage
                    ? "Commands and arguments: as the policies of the data say."
                    : code(c));
  out.push_back(joined_with(c, kind));
  out.push_back("Where: " + (c.tee.empty() ? "nowhere" : list(c.tee, platform)) + ".");
  out.push_back(
      "The broker's keys may be kept by: " +
      (c.custody.empty() ? "nobody" : list(c.custody, [](auto k) { return enum_name(k); })) +
      ". Its log: " + c.rollback + ".");
  out.push_back(gate(c.gate, c.row_bits));
  if (kind == records::AssetKind::kDataset) {
    out.push_back(c.row_bits ? "One row of this data holds " + counted(*c.row_bits, "bit") +
                                   ", as its owner measured it."
                             : "What one row of this data holds is not said (rowBits): no bits are "
                               "shown as rows.");
  }
  if (kind != records::AssetKind::kImage) out.push_back(recipes(c));
  if (c.gate.auto_clear_free_bits < kControlBits) {
    out.push_back("Every result is held: each release tells " + counted(kControlBits, "bit") +
                  " at least, more than may go without a person.");
  }
  out.push_back(c.reviewers.empty()
                    ? "Held results are rejected: nobody may review them."
                    : "Held results need " + std::to_string(c.reviewers_needed) + " of " +
                          counted(static_cast<std::int64_t>(c.reviewers.size()), "reviewer") +
                          ": " + list(c.reviewers, reviewer) + ". What is held is sealed to " +
                          (c.may_preview.empty()          ? "nobody"
                           : c.may_preview == c.reviewers ? "them"
                                                          : list(c.may_preview, reviewer)) +
                          " at most, who can read it.");
  out.push_back("Up to " + counted(c.attempts, "attempt") + " a job once keys were released.");
  if (c.access == records::Access::kDirect) {
    out.push_back("Access is direct: the host sees which blocks a job reads.");
  }
  if (!c.residual_channels.empty()) {
    out.push_back("Accepted residual channels: " +
                  list(c.residual_channels, [](const auto& x) { return x; }) + ".");
  }
  // Purposes, keys, arguments and channels are the owner's words: none of them begins a line of its
  // own.
  for (std::string& line : out) line = printable(line, 8 * line.size() + 1);
  return out;
}

namespace {

// Collects what several owners say, each with the name of the asset.
class Meeting {
 public:
  Meeting(const std::vector<NamedPolicy>& assets, std::int64_t now) : assets_(assets), now_(now) {}

  Together run() && {
    until();
    callers();
    purposes();
    code_of_all();
    joins();
    places();
    gates();
    reviews();
    for (auto* texts : {&out_.lines, &out_.obstacles}) {
      for (std::string& line : *texts) line = printable(line, 8 * line.size() + 1);
    }
    return std::move(out_);
  }

 private:
  // "wdbc: …; weights: …"
  template <class Text>
  std::string each(Text text) const {
    std::string out;
    for (const auto& a : assets_) out += (out.empty() ? "" : "; ") + a.name + ": " + text(a);
    return out;
  }
  static const records::Clauses& clauses(const NamedPolicy& a) { return a.policy.clauses; }

  void until() {
    const auto first = std::min_element(
        assets_.begin(), assets_.end(),
        [](const auto& a, const auto& b) { return clauses(a).not_after < clauses(b).not_after; });
    out_.lines.push_back("Until " + format_time(clauses(*first).not_after) +
                         ", when the policy of " + first->name + " ends.");
    for (const auto& a : assets_) {
      for (const auto& why : dead_ends(a.policy, a.kind, now_)) {
        out_.obstacles.push_back(a.name + ": " + why);
      }
    }
  }
  void callers() {
    out_.lines.push_back("Whoever submits must be allowed by each: " +
                         each([](const auto& a) { return who(clauses(a)); }));
  }
  void purposes() {
    std::optional<std::vector<std::string>> common;  // absent: any
    for (const auto& a : assets_) {
      const auto& own = clauses(a).purposes;
      if (std::find(own.begin(), own.end(), "*") != own.end()) continue;
      if (!common) common = own;
      std::erase_if(*common, [&](const auto& x) {
        return std::find(own.begin(), own.end(), x) == own.end();
      });
    }
    const auto words = [](const auto& w) { return "\"" + w + "\""; };
    if (!common) {
      out_.lines.push_back("Purposes: any.");
    } else if (!common->empty()) {
      out_.lines.push_back("Purposes: " + list(*common, words) + ".");
    } else {
      out_.obstacles.push_back(
          "purposes: no purpose is allowed by every owner. " +
          each([&](const auto& a) { return list(clauses(a).purposes, words); }));
    }
  }
  static bool reads(const records::Clauses& data, const NamedPolicy& image) {
    return std::any_of(data.images.begin(), data.images.end(), [&](const auto& rule) {
      if (!rule.digest && !rule.signer) return false;
      return (!rule.digest || *rule.digest == image.content_digest) &&
             (!rule.signer || *rule.signer == image.signer);
    });
  }
  void code_of_all() {
    for (const auto& image : assets_) {
      if (image.kind != records::AssetKind::kImage) continue;
      for (const auto& a : assets_) {
        if (a.kind == records::AssetKind::kImage || reads(clauses(a), image)) continue;
        out_.obstacles.push_back("images: " + a.name + " does not let the image " + image.name +
                                 " (" + image.content_digest + ") read it");
      }
    }
    std::optional<std::vector<records::CommandRule>> common;  // absent: any
    for (const auto& a : assets_) {
      if (a.kind == records::AssetKind::kImage || clauses(a).any_command) continue;
      const auto& own = clauses(a).commands;
      if (!common) common = own;
      std::erase_if(*common, [&](const auto& x) {
        return std::none_of(own.begin(), own.end(),
                            [&](const auto& y) { return x.argv == y.argv; });
      });
    }
    records::Clauses all;
    all.any_command = !common;
    if (common) all.commands = *common;
    if (common && common->empty()) {
      out_.obstacles.push_back("commands: no command is allowed by every owner of data");
    } else {
      const std::string said = code(all);  // without its images, of which each policy has its own
      out_.lines.push_back(said.substr(said.find("Commands: ")) +
                           (common ? " Variables: those that every one of them names." : ""));
    }
  }
  void joins() {
    for (const auto& a : assets_) {
      const auto& c = clauses(a);
      for (const auto& b : assets_) {
        const bool same = a.policy.asset_id == b.policy.asset_id;
        if (same || b.kind == records::AssetKind::kImage) continue;
        if (may_meet(c, b.policy.asset_id, b.policy.owner_id)) continue;
        out_.obstacles.push_back("joinAssets, joinOwners: " + a.name + " may not meet " + b.name +
                                 ": it names neither asset " + to_hex(b.policy.asset_id) +
                                 " nor owner " + short_hash(b.policy.owner_id));
      }
    }
  }
  void places() {
    std::vector<records::PlatformRule> common = clauses(assets_[0]).tee;
    for (const auto& a : assets_) common = merge_platforms(common, clauses(a).tee);
    if (common.empty()) {
      out_.obstacles.push_back("tee: no place is allowed by every owner. " +
                               each([](const auto& a) { return list(clauses(a).tee, platform); }));
      return;
    }
    out_.lines.push_back("Where: " + list(common, platform) + ".");
  }
  void gates() {
    std::vector<records::GateClause> all;
    for (const auto& a : assets_) all.push_back(clauses(a).gate);
    const auto merged = merge_gates(all);
    if (merged.ok()) {
      out_.lines.push_back(gate(*merged, std::nullopt));
    } else {
      out_.obstacles.push_back("gate: " + merged.error().what + ". " +
                               each([](const auto& a) { return gate_terms(clauses(a).gate); }));
    }
    out_.lines.push_back("Each owner is charged in full: a job's bits count against " +
                         list(assets_, [](const auto& a) { return a.name; }) + ".");
  }
  void reviews() {
    for (const auto& a : assets_) {
      const auto& c = clauses(a);
      const auto eligible =
          std::count_if(c.reviewers.begin(), c.reviewers.end(), [&](const auto& r) {
            return std::all_of(assets_.begin(), assets_.end(), [&](const auto& b) {
              const auto& may = clauses(b).may_preview;
              return std::find(may.begin(), may.end(), r) != may.end();
            });
          });
      out_.lines.push_back("What is held needs " + std::to_string(c.reviewers_needed) + " of " +
                           counted(eligible, "reviewer") + " of " + a.name +
                           " whom every owner lets preview" +
                           (eligible < c.reviewers_needed
                                ? ": too few, so it is REJECTED unless its owner is who submits."
                                : "."));
    }
  }

  const std::vector<NamedPolicy>& assets_;
  const std::int64_t now_;
  Together out_;
};

}  // namespace

std::string gate_terms(const records::GateClause& g) {
  return "types " + list(g.output_types, [](auto t) { return enum_name(t); }) +
         ", releaseSlotSeconds " + std::to_string(g.release_slot_seconds);
}

Together explain_together(const std::vector<NamedPolicy>& assets, std::int64_t now) {
  return assets.empty() ? Together{} : Meeting(assets, now).run();
}

}  // namespace gbx::policy
