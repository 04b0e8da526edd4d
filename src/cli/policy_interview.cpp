#include "cli/policy_interview.h"

#include "base/log.h"
#include "cli/catalogue.h"

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
    return amounts();
  }

 private:
  bool left_out(const char* option) const { return !in_.has(option); }

  // Asks until an empty line; `take` checks and keeps one answer.
  template <class Take>
  Status each(const std::string& question, Take take) {
    for (std::size_t i = 0; i < kMostAnswers; ++i) {
      GBX_ASSIGN(const std::string answer, s_.ask(question + (i == 0 ? "" : " (more?)")));
      if (answer.empty()) return ok_status();
      GBX_TRY(take(answer));
    }
    return ok_status();
  }
  Result<std::int64_t> number(const std::string& question, std::int64_t standard, Bound bound) {
    GBX_ASSIGN(const std::string answer, s_.ask(question + " [" + std::to_string(standard) + "]"));
    if (answer.empty()) return standard;
    Invocation typed;
    typed.add("the answer", answer);
    return typed.integer("the answer", standard, bound);
  }
  static Status hex_answer(const std::string& answer, std::size_t digits) {
    if (answer.size() == digits && from_hex(answer).ok()) return ok_status();
    return fail(Reason::kUsage, "the answer")
        .with(std::to_string(digits) + " hex digits", printable(answer, 80));
  }

  Status what() {
    if (!left_out("kind")) return ok_status();
    GBX_ASSIGN(const std::string answer, s_.ask("What is it: dataset, model or image? [dataset]"));
    if (answer.empty()) return ok_status();
    const auto kind = enum_from<records::AssetKind>(answer);
    if (!kind.ok()) {
      return fail(Reason::kUsage, "the answer").with("dataset, model or image", printable(answer));
    }
    d_.kind = *kind;
    return ok_status();
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
  Status places() {
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
  Status amounts() {
    if (left_out("free-bits")) {
      GBX_ASSIGN(
          d_.free_bits,
          number("How many bits may the code of one job choose and send out without a person "
                 "who looks? One row of a table is often about 120; 0: a person looks at "
                 "everything.",
                 d_.free_bits, Bound{0, std::int64_t{1} << 40}));
    }
    if (left_out("days") && left_out("not-after")) {
      GBX_ASSIGN(const std::int64_t days,
                 number("For how many days does this hold?", 365, Bound{1, 3650}));
      d_.not_after = format_time(s_.now() + days * 86400);
    }
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

Status interview(Session& session, const Invocation& given, PolicyDraft& draft) {
  return Interview(session, given, draft).run();
}

}  // namespace gbx::cli
