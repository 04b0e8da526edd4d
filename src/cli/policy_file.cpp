#include "cli/policy_file.h"

#include "base/log.h"
#include "base/os.h"
#include "base/seams.h"
#include "cli/yaml.h"
#include "crypto/keys.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMaxPolicy = 1U << 20;

struct PolicyDocument {
  std::string api_version;
  std::string kind;
  std::optional<records::AssetKind> for_kind;
  Json clauses;
  template <class F>
  void fields(F& f) {
    f("apiVersion", api_version, Bound{1, 32});
    f("kind", kind, Bound{1, 32});
    f("for", for_kind);
    f("clauses", clauses);
  }
};

// What holds where the owner says nothing: a default-constructed record, which allows nobody
// anything.
Json defaults() {
  records::Clauses c;
  c.rollback = "witnessed";
  c.gate.output_types = {records::OutputType::kTable, records::OutputType::kJson,
                         records::OutputType::kMetrics, records::OutputType::kText};
  Json j = to_json(c);
  j.object()->erase("notAfter");  // must be said
  return j;
}

// Members of `given` replace those of `base`.
void overlay(Json& base, const Json& given) {
  for (const auto& [k, v] : *given.object()) base[k] = v;
}

Status fill_platform(Json& entry, std::size_t index) {
  if (entry.object() == nullptr) return ok_status();  // the strict reader says what is wrong
  Json full;
  full["root"] = "";
  full["releases"] = Json(JsonArray{});
  full["minimumSvn"] = 0;
  overlay(full, entry);
  const Json* node = entry.find("node");
  if (node != nullptr) {
    const std::string at = "clauses.tee[" + std::to_string(index) + "].node";
    const std::string* hash = node->string();
    const Json* technology = entry.find("technology");
    const bool none =
        technology != nullptr && technology->string() != nullptr && *technology->string() == "none";
    if (hash == nullptr || !fixed_from_hex<32>(*hash).ok() || !none ||
        entry.find("root") != nullptr) {
      return fail(Reason::kBadValue, at)
          .with("64 hex digits, for technology none, without root",
                hash == nullptr ? "no text" : hash->substr(0, 80));
    }
    full["root"] = "none:" + *hash;
    full.object()->erase("node");
  }
  entry = std::move(full);
  return ok_status();
}

Status fill(Json& clauses) {
  if (Json* gate = clauses.object()->count("gate") != 0 ? &clauses["gate"] : nullptr;
      gate != nullptr && gate->object() != nullptr) {
    Json full = *defaults().find("gate");
    overlay(full, *gate);
    *gate = std::move(full);
  }
  if (JsonArray* tee = clauses.object()->count("tee") != 0 ? clauses["tee"].array() : nullptr;
      tee != nullptr) {
    for (std::size_t i = 0; i < tee->size(); ++i) GBX_TRY(fill_platform((*tee)[i], i));
  }
  if (JsonArray* commands =
          clauses.object()->count("commands") != 0 ? clauses["commands"].array() : nullptr;
      commands != nullptr) {
    for (Json& c : *commands) {
      if (c.object() != nullptr && c.find("env") == nullptr) c["env"] = Json(JsonArray{});
    }
  }
  const Json* until = clauses.find("notAfter");
  if (until != nullptr && until->string() != nullptr) {
    auto seconds = parse_date(*until->string());
    if (!seconds.ok()) return seconds.error().at("clauses.notAfter");
    clauses["notAfter"] = *seconds;
  }
  return ok_status();
}

Status check_words(const records::Clauses& c) {
  GBX_TRY(c.validate());
  if (c.rollback != "unprotected" && c.rollback != "witnessed") {
    return fail(Reason::kBadValue, "clauses.rollback").with("unprotected or witnessed", c.rollback);
  }
  for (std::size_t i = 0; i < c.tee.size(); ++i) {
    const auto& r = c.tee[i];
    const std::string word(enum_name(r.technology));
    const bool by_name =
        r.technology == records::Technology::kNone || r.technology == records::Technology::kSim;
    if (by_name && r.root.rfind(word + ":", 0) != 0) {
      return fail(Reason::kBadValue, "clauses.tee[" + std::to_string(i) + "].root")
          .with("\"" + word + ":\" and 64 hex digits: it is allowed by name only",
                r.root.empty() ? "nothing" : r.root);
    }
  }
  for (std::size_t i = 0; i < c.images.size(); ++i) {
    const std::string at = "clauses.images[" + std::to_string(i) + "]";
    if (!c.images[i].digest && !c.images[i].signer) {
      return fail(Reason::kMissingField, at).with("digest, signer or both", "neither");
    }
    if (c.images[i].digest) GBX_TRY(check_digest(at + ".digest", *c.images[i].digest));
    if (c.images[i].signer) GBX_TRY(check_key(at + ".signer", *c.images[i].signer));
  }
  for (std::size_t i = 0; i < c.commands.size(); ++i) {
    const auto& argv = c.commands[i].argv;
    if (argv.empty() || argv[0].empty() || argv[0][0] != '/') {
      return fail(Reason::kBadValue, "clauses.commands[" + std::to_string(i) + "].argv")
          .with("an absolute path and its arguments",
                argv.empty() ? "nothing" : printable(argv[0], 100));
    }
  }
  for (std::size_t i = 0; i < c.lease_issuers.size(); ++i) {
    GBX_TRY(check_key("clauses.leaseIssuers[" + std::to_string(i) + "]", c.lease_issuers[i]));
  }
  for (std::size_t i = 0; i < c.reviewers.size(); ++i) {
    const std::string at = "clauses.reviewers[" + std::to_string(i) + "]";
    GBX_TRY(check_key(at + ".key", c.reviewers[i].key));
    if (!crypto::HpkePublicKey::from_text(c.reviewers[i].hpke).ok()) {
      return fail(Reason::kBadValue, at + ".hpke")
          .with("a result key (glovebox identity show)", printable(c.reviewers[i].hpke, 100));
    }
  }
  return ok_status();
}

}  // namespace

Status check_digest(const std::string& at, const std::string& digest) {
  if (digest.rfind("sha256:", 0) == 0 && fixed_from_hex<32>(digest.substr(7)).ok()) {
    return ok_status();
  }
  return fail(Reason::kBadValue, at)
      .with("sha256: and 64 lower-case hex digits", printable(digest, 100));
}
Status check_key(const std::string& at, const std::string& key) {
  if (crypto::PublicKey::from_text(key).ok()) return ok_status();
  return fail(Reason::kBadValue, at)
      .with("a public key (glovebox identity show)", printable(key, 100));
}

namespace {

std::string quoted(const std::string& s) { return canonical(Json(s)); }
std::string flow(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : ", ") + quoted(w);
  return "[" + out + "]";
}
std::string number(std::int64_t n) { return std::to_string(n); }
std::string people(const char* member, const std::vector<records::Reviewer>& who) {
  std::string o = std::string("  ") + member + (who.empty() ? ": []\n" : ":\n");
  for (const auto& r : who) {
    o += "    - identityId: " + quoted(to_hex(r.identity_id)) + "\n      key: " + quoted(r.key) +
         "\n      hpke: " + quoted(r.hpke) + "\n";
  }
  return o;
}

void write_who(std::string& o, const PolicyDraft& d) {
  o += "  # Who. A lease is signed by you (`glovebox lease grant`) or by an issuer whose key "
       "stands here.\n";
  o += "  leaseRequired: " + std::string(d.lease_required ? "true" : "false") + "\n";
  o += "  leaseIssuers: []\n";
  o += "  # Identities that need no lease.\n";
  o += "  consumers: " + flow(d.consumers) + "\n";
  o += "  # For which purposes, word for word; \"*\" is any.\n";
  o += "  purposes: " + flow(d.purposes) + "\n";
}
void write_code(std::string& o, const PolicyDraft& d) {
  if (d.kind == records::AssetKind::kImage) {
    o += "\n  # An image's own policy judges no code: the owners of the data say which image and "
         "command may read it. It says\n"
         "  # which data the image may meet: everything of an owner (64 hex digits), or assets "
         "(32).\n"
         "  joinOwners: " +
         flow(d.join_owners) + "\n  joinAssets: " + flow(d.join_assets) + "\n";
    return;
  }
  o += "\n  # Which code. An image by digest, by the key that signed its record, or by both.\n";
  if (d.image_digests.empty() && d.image_signers.empty()) {
    o += "  images: []\n";
  } else {
    o += "  images:\n";
  }
  for (const auto& digest : d.image_digests) o += "    - digest: " + quoted(digest) + "\n";
  for (const auto& signer : d.image_signers) o += "    - signer: " + quoted(signer) + "\n";
  o += "  # Exact command and arguments, and the variables that the consumer may set. anyCommand: "
       "true lets the consumer\n"
       "  # run anything that the image holds.\n";
  o += "  anyCommand: " + std::string(d.any_command ? "true" : "false") + "\n";
  if (d.commands.empty()) {
    o += "  commands: []\n";
  } else {
    o += "  commands:\n";
  }
  for (const auto& argv : d.commands) o += "    - argv: " + flow(argv) + "\n      env: []\n";
  o += "  # What else may be in the same job: assets (32 hex digits) or everything of an owner "
       "(64).\n";
  o += "  joinAssets: " + flow(d.join_assets) + "\n";
  o += "  joinOwners: " + flow(d.join_owners) + "\n";
}
void write_where(std::string& o, const PolicyDraft& d) {
  o += "\n  # Where. Technology none is NO TEE: whoever runs that node can read everything. It "
       "counts only by the node's key.\n";
  if (d.none_nodes.empty() && d.sim_roots.empty()) {
    o += "  tee: []\n";
  } else {
    o += "  tee:\n";
  }
  for (const auto& n : d.none_nodes) o += "    - technology: none\n      node: " + quoted(n) + "\n";
  for (const auto& root : d.sim_roots) {
    o += "    # SIMULATED: whoever runs that installation can read everything.\n";
    o += "    - technology: sim\n      root: " + quoted("sim:" + root) +
         "\n      releases: " + flow(d.releases) + "\n";
  }
  o += "  # Who holds the broker's keys. operator: its operator could read every dataset key.\n";
  o += "  custody: " + flow(d.custody) + "\n";
  o += "  # unprotected: an operator could restore an old log, so budgets and revocations are as "
       "good as its word.\n";
  o += "  rollback: " + d.rollback + "\n";
  o += "  # prefetch: the host sees no access pattern. direct: it sees which blocks a job reads.\n";
  o += "  access: prefetch\n";
  o += "  attempts: " + number(d.attempts) + "\n";
}
void write_gate(std::string& o, const PolicyDraft& d) {
  o += "\n  # What may leave. A free bit is a bit that the code may choose: an output's size in "
       "bits is known before the run.\n";
  o += "  gate:\n    outputTypes: " + flow(d.output_types) + "\n";
  o +=
      "    # Without a person: at most so many bits a release, and a risk score below holdScore.\n";
  o += "    autoClearFreeBits: " + number(d.free_bits) + "\n    holdScore: 50\n";
  o += "    # The same for bits of tables that the gate computes itself, by a recipe of the job, "
       "and the "
       "fewest\n    # subjects of a cell of these.\n";
  o += "    autoClearVerifiedBits: " + number(d.verified_bits) +
       "\n    cellSubjects: " + number(d.cell_subjects) + "\n";
  o += "    # Per consumer in periodDays, and over all consumers for ever.\n";
  o += "    periodFreeBits: 16384\n    periodDays: 30\n    totalFreeBits: 131072\n";
  o += "    maxOutputBytes: 16777216\n    maxRows: 5000\n    copyCheck: true\n";
  o += "    # Decisions fall on multiples of so many seconds, so that their time tells nothing; 0 "
       "is at once.\n";
  o += "    releaseSlotSeconds: " + number(d.release_slot) + "\n";
  o += "    logs: " + d.logs + "\n    logBytes: " + number(d.log_bytes) + "\n";
  o += "\n  # Files that recipes may read, and the column of each that says whom a row is about. A "
       "cell with nobody is\n  # held, but where you say that no row can have these words:\n"
       "  #   structuralZeros: [{columns: [\"sex\", \"pregnant\"], words: [\"m\", \"yes\"]}]\n";
  if (d.tables.empty()) o += "  # tables: [{file: \"visits.csv\", subject: \"patient\"}]\n";
  if (!d.tables.empty()) o += "  tables:\n";
  for (const auto& t : d.tables) {
    o += "    - {file: " + quoted(t.file) + ", subject: " + quoted(t.subject) + "}\n";
  }
  o += "\n  # How many bits one row of the data holds, for showing bits as rows (policy new --data "
       "measures it).\n";
  o += d.row_bits ? "  rowBits: " + number(*d.row_bits) + "\n" : "  # rowBits: 100\n";
  o += "\n  # Who rules on held outputs ({identityId, key, hpke} each), how many are needed, and "
       "who may see previews.\n";
  o += "  # Without reviewers a held output is rejected. Previews go to whom every owner names, "
       "with the same keys.\n";
  std::vector<records::Reviewer> may_preview = d.reviewers;
  may_preview.insert(may_preview.end(), d.may_preview.begin(), d.may_preview.end());
  o += people("reviewers", d.reviewers);
  o += "  reviewersNeeded: " + number(d.reviewers_needed) + "\n";
  o += people("mayPreview", may_preview);
  o += "  # Channels that you accept, beside those that the plan names by itself.\n  "
       "residualChannels: []\n";
  o += "\n  # Until when. freshForSeconds: without a beacon (glovebox policy beacon NAME) or a new "
       "serial in that time no\n  # keys leave; 0 is never.\n";
  o += "  notAfter: " + quoted(d.not_after) + "\n  freshForSeconds: 0\n";
}

}  // namespace

Result<std::int64_t> parse_date(const std::string& text) {
  auto t = parse_time(text.size() == 10 ? text + "T00:00:00Z" : text);
  if (!t.ok()) {
    return fail(Reason::kBadValue, "time")
        .with("like 2027-01-31 or 2027-01-31T12:00:00Z", text.substr(0, 64));
  }
  return t;
}

Result<PolicyFile> parse_policy(std::string_view text) {
  GBX_ASSIGN(Json document, parse_document(text));
  GBX_ASSIGN(PolicyDocument d, from_json<PolicyDocument>(document));
  if (d.api_version != "glovebox/v1") {
    return fail(Reason::kBadValue, "apiVersion").with("glovebox/v1", d.api_version);
  }
  if (d.kind != "ReleasePolicy") {
    return fail(Reason::kBadValue, "kind").with("ReleasePolicy", d.kind);
  }
  if (d.clauses.object() == nullptr) {
    return fail(Reason::kBadValue, "clauses").with("a mapping", "something else");
  }
  GBX_TRY(fill(d.clauses));
  Json full = defaults();
  overlay(full, d.clauses);
  Result<records::Clauses> c = from_json<records::Clauses>(full);
  if (!c.ok()) {
    c.error().what = "clauses." + c.error().what;
    return c.error();
  }
  GBX_TRY(check_words(*c));
  return PolicyFile{std::move(*c), d.for_kind};
}
Result<PolicyFile> read_policy_file(const std::string& path) {
  GBX_ASSIGN(std::string text, read_text_file(path, kMaxPolicy));
  auto c = parse_policy(text);
  if (!c.ok()) return c.error().at(path);
  return c;
}
Status check_kind(const PolicyFile& file, records::AssetKind kind) {
  if (!file.kind || *file.kind == kind) return ok_status();
  return fail(Reason::kConflict, "the policy was written for another kind of asset")
      .with(std::string(enum_name(kind)), std::string(enum_name(*file.kind)))
      .hint("glovebox policy new --kind " + std::string(enum_name(kind)));
}

std::string write_policy(const PolicyDraft& d) {
  std::string o =
      "# A release policy: what the broker may do with the key of one asset. It does nothing that "
      "is not said here.\n"
      "# docs/policy.md describes every member; `glovebox policy explain FILE` reads it back in "
      "plain sentences.\n"
      "apiVersion: glovebox/v1\nkind: ReleasePolicy\nfor: " +
      std::string(enum_name(d.kind)) + "\nclauses:\n";
  write_who(o, d);
  write_code(o, d);
  write_where(o, d);
  write_gate(o, d);
  return o;
}

Status check_in_force(const records::Clauses& c, std::int64_t now) {
  if (c.not_after > now) return ok_status();
  return fail(Reason::kBadValue, "clauses.notAfter")
      .with("a time after " + format_time(now), format_time(c.not_after))
      .hint("under a policy that has ended nobody can do anything: give it a later end");
}

std::vector<std::string> warnings(const records::Clauses& c, records::AssetKind kind) {
  const bool image = kind == records::AssetKind::kImage;
  std::vector<std::string> out;
  for (const auto& r : c.tee) {
    if (r.technology == records::Technology::kNone) {
      out.push_back("NO TEE: whoever runs the node " + r.root.substr(0, 21) +
                    "… can read this asset while a job runs.");
    }
    if (r.technology == records::Technology::kSim) {
      out.push_back("SIMULATED TEE: whoever runs the machine of " + r.root.substr(0, 20) +
                    "… can read this asset while a job runs.");
    }
  }
  for (const auto k : c.custody) {
    if (k == records::Custody::kOperator) {
      out.push_back("Custody operator: whoever runs the broker could read this asset's key.");
    }
  }
  if (c.rollback == "unprotected") {
    out.push_back(
        "Rollback unprotected: whoever runs the broker could restore an old log and with it old "
        "budgets.");
  }
  if (c.any_command && !image) {
    out.push_back("anyCommand: whoever submits chooses the code that reads this asset.");
  }
  if (!c.lease_required && c.consumers.empty()) {
    out.push_back(
        image
            ? "No lease and no consumers: anybody may run this image on data whose owners allow it."
            : "No lease and no consumers: anybody may submit jobs.");
  }
  return out;
}

std::string exposure(const records::Clauses& c, records::AssetKind kind) {
  std::string out;
  const auto add = [&out](const std::string& words) { out += (out.empty() ? "" : ", ") + words; };
  for (const auto& r : c.tee) {
    if (r.technology == records::Technology::kNone) {
      add("NO TEE on node " + r.root.substr(5, 16) + "…");
    }
    if (r.technology == records::Technology::kSim) add("SIMULATED TEE");
  }
  if (!c.custody.empty() && c.custody[0] == records::Custody::kOperator) add("custody operator");
  if (c.rollback == "unprotected") add("rollback unprotected");
  if (c.any_command && kind != records::AssetKind::kImage) add("any command");
  if (!c.lease_required && c.consumers.empty()) add("anybody may submit");
  return out;
}

}  // namespace gbx::cli
