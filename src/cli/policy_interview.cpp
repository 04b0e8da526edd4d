#include "cli/policy_interview.h"

#include <algorithm>

#include "base/log.h"
#include "base/os.h"
#include "cli/catalogue.h"
#include "cli/row_bits.h"
#include "policy/policy.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMostAnswers = 64;  // to one question that is asked again

class Interview {
 public:
  Interview(Session& s, const Invocation& in, PolicyDraft& d) : s_(s), in_(in), d_(d) {}

  Status run() {
    GBX_TRY(what());
    GBX_TRY(purposes());
    GBX_TRY(callers());
    if (d_.kind != records::AssetKind::kImage) GBX_TRY(code());
    GBX_TRY(company());
    GBX_TRY(places());
    GBX_TRY(guards());
    if (d_.kind == records::AssetKind::kDataset) {
      GBX_TRY(rows());
      GBX_TRY(tables());
    }
    GBX_TRY(reviewers());
    GBX_TRY(amounts());
    return until();
  }

 private:
  bool left_out(const char* option) const { return !in_.has(option); }

  void not_taken(const Error& e) const { s_.note("  not taken: " + e.detail()); }
  // Asks until an empty line; `take` checks and keeps one answer. What cannot be one is said, and
  // asked for again: nobody types everything anew for one slip.
  template <class Take>
  Status each(const std::string& question, Take take) {
    bool more = false;
    for (std::size_t i = 0; i < kMostAnswers; ++i) {
      GBX_ASSIGN(const std::string answer,
                 s_.ask(more ? "  more? (an empty line ends the list)" : question));
      if (answer.empty()) return ok_status();
      const Status taken = take(answer);
      if (!taken.ok()) not_taken(taken.error());
      more = more || taken.ok();
    }
    return ok_status();
  }
  // The same for one answer.
  template <class Take>
  Status once(const std::string& question, Take take) {
    for (std::size_t i = 0; i < kMostAnswers; ++i) {
      GBX_ASSIGN(const std::string answer, s_.ask(question));
      const Status taken = take(answer);
      if (taken.ok()) return taken;
      not_taken(taken.error());
    }
    return fail(Reason::kUsage, "no answer that can be one");
  }
  Result<std::int64_t> number(const std::string& question, std::int64_t standard, Bound bound) {
    std::int64_t value = standard;
    const Status asked = once(question + " [" + std::to_string(standard) + "]",
                              [&](const std::string& answer) -> Status {
                                if (answer.empty()) return ok_status();
                                Invocation typed;
                                typed.add("the answer", answer);
                                auto n = typed.integer("the answer", standard, bound);
                                if (!n.ok()) {
                                  Error e = n.error();
                                  e.what = "the answer";  // no option
                                  return e;
                                }
                                value = *n;
                                return ok_status();
                              });
    if (!asked.ok()) return asked.error();
    return value;
  }
  static Status hex_answer(const std::string& answer, std::size_t digits) {
    if (answer.size() == digits && from_hex(answer).ok()) return ok_status();
    return fail(Reason::kUsage, "the answer")
        .with(std::to_string(digits) + " hex digits", printable(answer, 80));
  }

  Status what() {
    if (!left_out("kind")) return ok_status();
    return once("What is it: dataset, model or image? [dataset]",
                [this](const std::string& answer) -> Status {
                  if (answer.empty()) return ok_status();
                  const auto kind = enum_from<records::AssetKind>(answer);
                  if (!kind.ok()) {
                    return fail(Reason::kUsage, "the answer")
                        .with("dataset, model or image", printable(answer, 80));
                  }
                  d_.kind = *kind;
                  return ok_status();
                });
  }
  Status purposes() {
    if (!left_out("purpose") || d_.kind == records::AssetKind::kImage) return ok_status();
    return each(
        "For which purpose may it be used? The exact words that a job has to state; * for "
        "any; an empty line ends the list:",
        [this](const std::string& answer) -> Status {
          d_.purposes.push_back(answer);
          return ok_status();
        });
  }
  Status callers() {
    if (!left_out("consumer") || !left_out("no-lease")) return ok_status();
    const Status people = each(
        "Who may use it without a lease from you? Identities of 64 hex digits, or "
        "\"anybody\"; an empty line: nobody, each needs a lease:",
        [this](const std::string& answer) -> Status {
          if (answer == "anybody") {
            d_.lease_required = false;
            return ok_status();
          }
          GBX_TRY(hex_answer(answer, 64));
          d_.consumers.push_back(answer);
          return ok_status();
        });
    GBX_TRY(people);
    if (d_.lease_required) return ok_status();
    d_.consumers.clear();
    GBX_ASSIGN(const bool yes,
               s_.confirm("ANYBODY who is enrolled here may then submit jobs. Allow that?"));
    d_.lease_required = !yes;
    return ok_status();
  }
  Status code() {
    if (left_out("image-digest") && left_out("image-signer")) {
      const Status images =
          each("Which image may read it? Its digest, sha256:…; an empty line ends the list:",
               [this](const std::string& answer) -> Status {
                 GBX_TRY(check_digest("the image's digest", answer));
                 d_.image_digests.push_back(answer);
                 return ok_status();
               });
      GBX_TRY(images);
    }
    if (!left_out("command") || !left_out("any-command")) return ok_status();
    bool any = false;
    const Status lines = each(
        "Which command line may run over it? Words, or a JSON list; \"any\" for whatever "
        "the image holds; an empty line ends the list:",
        [&](const std::string& answer) -> Status {
          any = any || answer == "any";
          if (answer == "any") return ok_status();
          GBX_ASSIGN(auto argv, split_command("the command", answer));
          d_.commands.push_back(std::move(argv));
          return ok_status();
        });
    GBX_TRY(lines);
    if (!any) return ok_status();
    GBX_ASSIGN(d_.any_command,
               s_.confirm("ANY COMMAND: whoever submits then chooses the code, among all that the "
                          "image holds. Allow that?"));
    return ok_status();
  }
  Status company() {
    if (!left_out("join-asset") || !left_out("join-owner")) return ok_status();
    const bool image = d_.kind == records::AssetKind::kImage;
    return each(std::string(image ? "Over whose data may it run?"
                                  : "Whose data or models may be in the same job? They count as "
                                    "code.") +
                    " An owner's identity (64 hex digits) or one asset's id (32); an empty line "
                    "ends the list:",
                [this](const std::string& answer) -> Status {
                  if (answer.size() == 32) {
                    GBX_TRY(hex_answer(answer, 32));
                    d_.join_assets.push_back(answer);
                    return ok_status();
                  }
                  GBX_TRY(hex_answer(answer, 64));
                  d_.join_owners.push_back(answer);
                  return ok_status();
                });
  }
  Status no_tee(const std::string& hash, const std::string& name) {
    GBX_ASSIGN(const bool yes, s_.confirm("NO TEE: whoever runs the node " + name +
                                          " can read this while a job runs. Allow that?"));
    if (yes) d_.none_nodes.push_back(hash);
    return ok_status();
  }
  // Of a node's machines: the plane's word for it is shown, and is what the owner has to compare.
  Status simulated(const api::NodeView& node) {
    if (!node.info || !node.info->platforms) return ok_status();
    for (const auto& p : *node.info->platforms) {
      if (p.technology != records::Technology::kSim || !p.root.starts_with("sim:")) continue;
      GBX_ASSIGN(const bool yes,
                 s_.confirm("SIMULATED TEE: whoever runs the node " + printable(node.name, 64) +
                            " can read this while a job runs in its machines (root " +
                            printable(p.root, 80) + ", release " + printable(p.release, 64) +
                            "; compare both with what its operator says). Allow that?"));
      if (!yes) continue;
      d_.sim_roots.push_back(p.root.substr(4));
      if (std::find(d_.releases.begin(), d_.releases.end(), p.release) == d_.releases.end()) {
        d_.releases.push_back(p.release);
      }
    }
    return ok_status();
  }
  Status places() {
    if (!d_.sim_roots.empty()) {
      GBX_ASSIGN(const bool yes,
                 s_.confirm("SIMULATED TEE: whoever runs that installation can read "
                            "this asset while a job runs. Allow that?"));
      if (!yes) return fail(Reason::kUsage, "not allowed").hint("leave --allow-sim out");
      if (left_out("allow-none-node")) return ok_status();
    }
    if (!left_out("allow-none-node")) {
      GBX_ASSIGN(const bool yes, s_.confirm("NO TEE: whoever runs the named node can read this "
                                            "asset while a job runs. Allow that?"));
      if (yes) return ok_status();
      return fail(Reason::kUsage, "not allowed").hint("leave --allow-none-node out");
    }
    std::vector<api::NodeView> nodes;
    if (const auto plane = s_.plane(); plane.ok()) {
      if (auto known = (*plane)->nodes(); known.ok()) nodes = std::move(*known);
    }
    for (const auto& node : nodes) {
      const auto key = crypto::PublicKey::from_text(node.key);
      if (!key.ok()) continue;  // the plane's word is shown, never trusted
      const std::string hash = to_hex(key->fingerprint());
      GBX_TRY(simulated(node));
      const bool runs_machines =
          node.info && std::find(node.info->technologies.begin(), node.info->technologies.end(),
                                 records::Technology::kNone) == node.info->technologies.end();
      if (runs_machines) continue;
      GBX_TRY(no_tee(hash, printable(node.name, 64) + " (key hash " + hash + ")"));
    }
    if (!nodes.empty()) return ok_status();
    return each(
        "On which node may it run? The hash of its key (glovebox node list); an empty line "
        "ends the list:",
        [this](const std::string& answer) -> Status {
          GBX_TRY(hex_answer(answer, 64));
          return no_tee(answer, answer);
        });
  }
  Status guards() {
    if (left_out("custody")) {
      GBX_ASSIGN(const bool yes,
                 s_.confirm("CUSTODY: the operator of the broker keeps its keys, and could read "
                            "every asset that is published to it. Accept that?"));
      if (yes) d_.custody = {"operator"};
    }
    if (!left_out("rollback")) return ok_status();
    GBX_ASSIGN(const bool yes,
               s_.confirm("ROLLBACK: no witnesses watch the broker's log. Whoever restores old "
                          "copies of it and of the plane's could make it forget charges and "
                          "revocations. Accept that?"));
    if (yes) d_.rollback = "unprotected";
    return ok_status();
  }
  Status rows() {
    if (!left_out("data")) return ok_status();
    return once(
        "In which folder here does the data lie? What a row of its largest CSV file holds is "
        "measured, so that every screen can say how many rows would fit into what leaves; nothing "
        "of it is sent. An empty line: do not measure:",
        [this](const std::string& folder) -> Status {
          return folder.empty() ? ok_status() : measure_data(s_, folder, d_);
        });
  }
  Status tables() {
    if (!left_out("table")) return ok_status();
    const Status files = each(
        "Which files may the gate itself count, so that a table of counts holds nothing that the "
        "code chose? FILE=COLUMN, the column that says whom a row is about, like "
        "visits.csv=patient; an empty line ends the list:",
        [this](const std::string& answer) -> Status {
          GBX_ASSIGN(records::TableRule rule, read_table("the answer", answer));
          d_.tables.push_back(std::move(rule));
          return ok_status();
        });
    GBX_TRY(files);
    if (d_.tables.empty()) return ok_status();
    if (left_out("cell-subjects")) {
      GBX_ASSIGN(
          d_.cell_subjects,
          number("How many of those whom the rows are about must a cell of such a table have "
                 "at least?",
                 d_.cell_subjects, Bound{1, 1'000'000}));
    }
    if (!left_out("verified-bits")) return ok_status();
    GBX_ASSIGN(d_.verified_bits,
               number("How many bits of such tables may leave without a person who looks? 0: a "
                      "person looks at each of them.",
                      d_.verified_bits, Bound{0, std::int64_t{1} << 40}));
    return ok_status();
  }
  Status reviewers() {
    if (left_out("reviewer")) {
      const Status people = each(
          "Who looks at what may not leave by itself, and rules on it? The file that a reviewer "
          "made with `glovebox -o json identity show > reviewer.json`; an empty line ends the "
          "list:",
          [this](const std::string& answer) {
            return add_reviewer(d_.reviewers, "reviewer", answer);
          });
      GBX_TRY(people);
    }
    GBX_TRY(others_reviewers());
    const auto n = static_cast<std::int64_t>(d_.reviewers.size());
    if (n < 2 || !left_out("reviewers-needed")) return ok_status();
    GBX_ASSIGN(d_.reviewers_needed,
               number("How many of these " + std::to_string(n) + " must approve?",
                      d_.reviewers_needed, Bound{1, n}));
    return ok_status();
  }
  // Whom not every owner lets look cannot rule for the others either.
  Status others_reviewers() {
    const bool alone = d_.join_assets.empty() && d_.join_owners.empty();
    if (alone || !left_out("may-preview")) return ok_status();
    return each(
        "Whom else do you let look, because another owner of the same job asks them? The same kind "
        "of file; an empty line ends the list:",
        [this](const std::string& answer) {
          return add_reviewer(d_.may_preview, "reviewer", answer);
        });
  }
  Status amounts() {
    if (left_out("free-bits")) {
      const std::string row =
          d_.row_bits ? "One row of this data holds about " + std::to_string(*d_.row_bits)
                      : "One row of a table is often about 120";
      GBX_ASSIGN(
          d_.free_bits,
          number("How many bits may the code of one job choose and send out without a person "
                 "who looks? " +
                     row + "; 0: a person looks at every release.",
                 d_.free_bits, Bound{0, std::int64_t{1} << 40}));
    }
    if (!d_.reviewers.empty()) return ok_status();
    s_.note(
        d_.free_bits < policy::kControlBits
            ? "note: every release tells " + std::to_string(policy::kControlBits) +
                  " bits at least, so all must be looked at, and nobody is named who may: every "
                  "result of somebody else's job is rejected"
            : "note: nobody is named who may look: what may not leave by itself is rejected");
    return ok_status();
  }
  Status until() {
    if (!left_out("days") || !left_out("not-after")) return ok_status();
    GBX_ASSIGN(const std::int64_t days,
               number("For how many days does this hold?", 365, Bound{1, 3650}));
    d_.not_after = format_time(s_.now() + days * 86400);
    return ok_status();
  }

  Session& s_;
  const Invocation& in_;
  PolicyDraft& d_;
};

}  // namespace

Result<std::vector<std::string>> split_command(const std::string& at, const std::string& text) {
  std::vector<std::string> argv;
  if (!text.empty() && text[0] == '[') {
    auto parsed = parse_json(text);
    if (!parsed.ok()) {
      return fail(Reason::kUsage, at + ": " + parsed.error().what)
          .with("a JSON list of strings, or words", text.substr(0, 200));
    }
    const Json list = std::move(*parsed);
    for (const auto& e : *list.array()) {
      if (e.string() == nullptr) {
        return fail(Reason::kUsage, at).with("a list of strings", text.substr(0, 200));
      }
      argv.push_back(*e.string());
    }
  } else {
    std::string word;
    for (const char c : text + " ") {
      if (c != ' ') {
        word += c;
      } else if (!word.empty()) {
        argv.push_back(std::move(word));
        word.clear();
      }
    }
  }
  if (argv.empty() || argv[0].empty() || argv[0][0] != '/') {
    return fail(Reason::kUsage, at).with("an absolute path and its arguments", text.substr(0, 200));
  }
  return argv;
}

Status add_reviewer(std::vector<records::Reviewer>& list, const std::string& at,
                    const std::string& path) {
  constexpr const char* kHowMade =
      "the reviewer makes it: glovebox -o json identity show > reviewer.json";
  GBX_ASSIGN(const std::string text, read_text_file(path, 64U << 10));
  auto card = parse_json(text);
  if (!card.ok()) return card.error().at(at + " " + path).hint(kHowMade);
  const auto member = [&card](const char* name) {
    const Json* found = card->find(name);
    return found != nullptr && found->string() != nullptr ? *found->string() : std::string();
  };
  records::Reviewer r;
  const auto id = fixed_from_hex<32>(member("identityId"));
  r.key = member("key");
  r.hpke = member("resultKey");
  if (!id.ok() || !crypto::PublicKey::from_text(r.key).ok() ||
      !crypto::HpkePublicKey::from_text(r.hpke).ok()) {
    return fail(Reason::kBadValue, at + " " + path)
        .with("a reviewer's identityId, key and resultKey", "something else")
        .hint(kHowMade);
  }
  r.identity_id = *id;
  const auto same = [&](const auto& known) { return known.identity_id == r.identity_id; };
  if (std::any_of(list.begin(), list.end(), same)) {
    return fail(Reason::kUsage, at + " " + path)
        .with("each reviewer once", to_hex(r.identity_id) + " again")
        .hint("one person counts once, however many must approve");
  }
  list.push_back(std::move(r));
  return ok_status();
}

Result<records::TableRule> read_table(const std::string& at, const std::string& text) {
  const auto split = text.rfind('=');
  if (split == std::string::npos || split == 0 || split + 1 == text.size()) {
    return fail(Reason::kUsage, at)
        .with("FILE=COLUMN, a CSV file in the asset and its column that says whom a row is about",
              printable(text, 80))
        .hint("like visits.csv=patient");
  }
  return records::TableRule{text.substr(0, split), text.substr(split + 1)};
}

Status measure_data(Session& session, const std::string& folder, PolicyDraft& d) {
  GBX_ASSIGN(const RowBits row, measure_row_bits(folder));
  d.row_bits = row.bits;
  session.note(printable(row.file) + ": a row holds about " + std::to_string(row.bits) + " bits (" +
               std::to_string(row.columns) + " by its columns' values, " +
               std::to_string(row.zlib) + " compressed by zlib, " + std::to_string(row.xz) +
               " by xz; " + std::to_string(row.rows) + " rows)");
  return ok_status();
}

Status interview(Session& session, const Invocation& given, PolicyDraft& draft) {
  return Interview(session, given, draft).run();
}

}  // namespace gbx::cli
