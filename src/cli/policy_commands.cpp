// policy, lease
#include <algorithm>
#include <map>

#include "base/figures.h"
#include "base/log.h"
#include "base/os.h"
#include "cli/beacon.h"
#include "cli/catalogue.h"
#include "cli/commands.h"
#include "cli/policy_file.h"
#include "cli/policy_interview.h"
#include "cli/publishing.h"
#include "cli/table_files.h"
#include "cli/texts.h"
#include "cli/yaml.h"
#include "policy/policy.h"

namespace gbx::cli {

namespace {

constexpr std::int64_t kDay = 86400;

Status check_hex(const std::vector<std::string>& list, std::size_t digits,
                 const char* option_name) {
  for (const auto& h : list) {
    if (h.size() != digits || !from_hex(h).ok()) {
      return fail(Reason::kUsage, option_name)
          .with(std::to_string(digits) + " hex digits", h.substr(0, 80));
    }
  }
  return ok_status();
}

Status draft_reviewers(PolicyDraft& d, const Invocation& in) {
  for (const auto& path : in.list("reviewer")) {
    GBX_TRY(add_reviewer(d.reviewers, "--reviewer", path));
  }
  for (const auto& path : in.list("may-preview")) {
    GBX_TRY(add_reviewer(d.may_preview, "--may-preview", path));
  }
  GBX_ASSIGN(d.reviewers_needed,
             in.integer("reviewers-needed", 1, Bound{1, records::kMaxReviewers}));
  const auto most = static_cast<std::int64_t>(d.reviewers.size());
  if (in.has("reviewers-needed") && d.reviewers_needed > most) {
    return fail(Reason::kUsage, "--reviewers-needed")
        .with("at most as many as --reviewer names, " + std::to_string(most),
              std::to_string(d.reviewers_needed))
        .hint("name each of them with --reviewer FILE");
  }
  return ok_status();
}

Result<PolicyDraft> draft(Session& s, const Invocation& in) {
  PolicyDraft d;
  if (in.has("kind")) {
    GBX_ASSIGN(d.kind, enum_from<records::AssetKind>(in.text("kind")));
  }
  d.consumers = in.list("consumer");
  d.lease_required = !in.has("no-lease");
  d.purposes = in.list("purpose");
  if (std::find(d.purposes.begin(), d.purposes.end(), "") != d.purposes.end()) {
    return fail(Reason::kUsage, "--purpose").with("words, or * for any", "nothing");
  }
  d.image_digests = in.list("image-digest");
  d.image_signers = in.list("image-signer");
  for (const auto& c : in.list("command")) {
    GBX_ASSIGN(auto argv, split_command("--command", c));
    d.commands.push_back(std::move(argv));
  }
  d.any_command = in.has("any-command");
  d.none_nodes = in.list("allow-none-node");
  for (const std::string& root : in.list("allow-sim")) {
    d.sim_roots.push_back(root.rfind("sim:", 0) == 0 ? root.substr(4) : root);
  }
  d.releases = in.list("release");
  d.join_assets = in.list("join-asset");
  d.join_owners = in.list("join-owner");
  if (in.has("data")) {
    GBX_TRY(measure_data(s, in.text("data"), d));
  }
  for (const auto& t : in.list("table")) {
    GBX_ASSIGN(records::TableRule rule, read_table("--table", t));
    d.tables.push_back(std::move(rule));
  }
  d.output_types = in.list("output-type");
  if (d.output_types.empty()) d.output_types = {"table", "json", "metrics", "text"};
  d.custody = in.list("custody");
  d.rollback = in.has("rollback") ? in.text("rollback") : "witnessed";
  GBX_ASSIGN(d.release_slot, in.integer("release-slot", 900, Bound{0, 86400}));
  GBX_ASSIGN(d.attempts, in.integer("attempts", 1, Bound{1, 100}));
  GBX_ASSIGN(d.free_bits, in.integer("free-bits", 2048, Bound{0, std::int64_t{1} << 40}));
  GBX_ASSIGN(d.verified_bits,
             in.integer("verified-bits", d.verified_bits, Bound{0, std::int64_t{1} << 40}));
  GBX_ASSIGN(d.cell_subjects, in.integer("cell-subjects", d.cell_subjects, Bound{1, 1'000'000}));
  GBX_ASSIGN(d.log_bytes, in.integer("log-bytes", 0, Bound{0, records::kMaxLogBytes}));
  GBX_TRY(draft_reviewers(d, in));
  d.logs = d.log_bytes > 0 ? "consumer" : "none";
  GBX_ASSIGN(const std::int64_t days, in.integer("days", 365, Bound{1, 3650}));
  d.not_after = in.has("not-after") ? in.text("not-after") : format_time(s.now() + days * kDay);
  if (s.interactive() && !in.has("yes")) GBX_TRY(interview(s, in, d));
  if (in.has("data")) GBX_TRY(check_tables(in.text("data"), d.tables));
  if (d.kind == records::AssetKind::kImage) {
    // Judged by the clauses of the data that it reads.
    if (d.purposes.empty()) d.purposes = {"*"};
    d.any_command = true;
  }
  for (const auto& digest : d.image_digests) GBX_TRY(check_digest("--image-digest", digest));
  for (const auto& key : d.image_signers) GBX_TRY(check_key("--image-signer", key));
  GBX_TRY(check_hex(d.consumers, 64, "--consumer"));
  GBX_TRY(check_hex(d.none_nodes, 64, "--allow-none-node"));
  GBX_TRY(check_hex(d.sim_roots, 64, "--allow-sim"));
  if (d.sim_roots.empty() != d.releases.empty()) {
    return fail(Reason::kUsage, "--allow-sim and --release")
        .with("both or neither", d.releases.empty() ? "no --release" : "no --allow-sim")
        .hint("`glovebox node list` shows both of each node, and `glovebox up` prints them");
  }
  GBX_TRY(check_hex(d.join_assets, 32, "--join-asset"));
  GBX_TRY(check_hex(d.join_owners, 64, "--join-owner"));
  return d;
}

Status policy_new(Session& s, const Invocation& in) {
  GBX_ASSIGN(PolicyDraft d, draft(s, in));
  if (in.has("asset")) {
    // The rules of a published asset are the best beginning for its next policy; this one only
    // reminds of who it is for.
    GBX_ASSIGN(api::AssetView v, resolve_asset(s, in.text("asset")));
    s.note("for " + printable(v.record.body.name) + "@" + std::to_string(v.record.body.version) +
           ": sign it with `glovebox policy sign " + to_hex(v.version_id).substr(0, 16) +
           " --policy FILE`");
  }
  const std::string text = write_policy(d);
  GBX_ASSIGN(PolicyFile file, parse_policy(text));  // nothing is written that does not read back
  GBX_ASSIGN(const std::vector<std::string> warned, note_policy(s, file.clauses, d.kind));
  if (in.has("out")) {
    GBX_TRY(may_write(in, "out"));
    const std::string path = in.text("out");
    GBX_TRY(write_file_atomic(path, as_bytes(text), 0644));
    Json j;
    j["file"] = path;
    j["clauses"] = to_json(file.clauses);
    j["warnings"] = Json(JsonArray(warned.begin(), warned.end()));
    s.print(j, "wrote " + path + "; change it with any editor\nNext: glovebox policy explain " +
                   shell_word(path) + "\n");
    return ok_status();
  }
  GBX_ASSIGN(Json document, parse_document(text));
  s.print(document, text);
  return ok_status();
}

// What `policy sign` shall do; at most one thing, but that a reinstated version may get new clauses
// at once.
Status check_wish(const Invocation& in) {
  const int wishes = int{in.has("policy")} + int{in.has("renew")} + int{in.has("revoke")} +
                     int{in.has("reinstate")};
  if (wishes == 1 || (wishes == 2 && in.has("reinstate") && in.has("policy"))) return ok_status();
  std::string given;
  for (const char* name : {"policy", "renew", "revoke", "reinstate"}) {
    if (in.has(name)) given += (given.empty() ? "--" : " --") + std::string(name);
  }
  return fail(Reason::kUsage, "what to sign")
      .with("--policy FILE, --renew, --revoke or --reinstate, one of them",
            given.empty() ? "none of them" : given)
      .hint("--reinstate may go with --policy FILE");
}

// Which versions: the asset's newest one or the one that is named; a revocation of a NAME is of all
// its versions.
Result<std::vector<api::AssetView>> versions_to_sign(const Invocation& in, const OwnVersions& own) {
  const api::AssetView& chosen = own.all[own.chosen];
  if (in.has("revoke") && !own.one) return own.all;
  if (in.has("reinstate") && !own.one && own.all.size() > 1) {
    return fail(Reason::kUsage, "which version to reinstate")
        .with("NAME@VERSION or a version id", in.text("asset").substr(0, 128))
        .hint("glovebox asset list --mine");
  }
  if (in.has("reinstate") && !chosen.policy.body.revoked) {
    return fail(Reason::kConflict, version_label(chosen))
        .with("a revoked version", "a policy in force");
  }
  return std::vector<api::AssetView>{chosen};
}

// Which version is the newest is the plane's word, but that there is a later one, its key says.
Status check_newest(Session& s, const OwnVersions& own, const std::string& next) {
  const auto& newest = own.all.back();
  const std::int64_t later = newest.record.body.version + 1;
  if (!path_exists(s.home().dataset_key(newest.record.body.asset_id, later))) return ok_status();
  return fail(Reason::kWrongVersion, "the key of a later version is here, and the plane shows none")
      .with(printable(newest.record.body.name) + "@" + std::to_string(later), version_label(newest))
      .hint(next);
}

// Versions count from 1: one that the plane does not show is one that it keeps from being revoked.
Status check_gaps(const OwnVersions& own) {
  std::int64_t next = 1;
  for (const auto& v : own.all) {
    if (v.record.body.version != next) break;
    ++next;
  }
  if (next > static_cast<std::int64_t>(own.all.size())) return ok_status();
  return fail(Reason::kWrongVersion,
              "the plane does not show every version, or not as it was signed")
      .with("version " + std::to_string(next),
            "version " + std::to_string(own.all.back().record.body.version))
      .hint("all that it showed is revoked; ask its operator for the missing one");
}

void note_other_versions(Session& s, const OwnVersions& own) {
  std::string others;
  for (const auto& v : own.all) {
    if (v.version_id == own.all[own.chosen].version_id) continue;
    const auto& p = v.policy.body;
    others += (others.empty() ? "" : ", ") + version_label(v) +
              (p.revoked ? " (revoked)" : " (serial " + std::to_string(p.serial) + ")");
  }
  if (!others.empty()) {
    s.note("note: this was about one version; the others stay as they are: " + others);
  }
}

// One line of the answer. A version that is revoked already needs nothing.
Result<Json> sign_version(Session& s, PolicyUpdate u, const api::AssetView& v) {
  Json j;
  j["name"] = v.record.body.name;
  j["version"] = v.record.body.version;
  j["versionId"] = to_hex(v.version_id);
  j["revoked"] = u.revoked;
  j["changed"] = !(u.revoked && v.policy.body.revoked);
  j["policySerial"] = v.policy.body.serial;
  j["policyHash"] = to_hex(v.policy_hash);
  if (u.revoked && v.policy.body.revoked) return j;
  u.asset = v;
  auto p = update_policy(s, std::move(u));
  if (!p.ok()) return p.error().at(version_label(v));
  j["policySerial"] = p->policy.body.serial;
  j["policyHash"] = to_hex(p->policy.hash());
  return j;
}

Status policy_sign(Session& s, const Invocation& in) {
  GBX_TRY(check_wish(in));
  PolicyUpdate wish;
  wish.revoked = in.has("revoke");
  wish.reinstate = in.has("reinstate");
  std::optional<PolicyFile> file;
  std::vector<std::string> warned;
  if (in.has("policy")) {
    GBX_ASSIGN(file, read_policy_file(in.text("policy")));
    wish.clauses = file->clauses;
  }
  GBX_ASSIGN(const OwnVersions own, resolve_own(s, in.text("asset")));
  if (file) {
    const auto kind = own.all[own.chosen].record.body.kind;
    GBX_TRY(check_kind(*file, kind));
    GBX_ASSIGN(warned, note_policy(s, file->clauses, kind));
  }
  if (!own.one && !wish.revoked) {
    GBX_TRY(check_newest(s, own,
                         "nothing was signed; if the one that it shows is meant, name it: " +
                             version_label(own.all.back())));
  }
  GBX_ASSIGN(const std::vector<api::AssetView> versions, versions_to_sign(in, own));
  JsonArray items;
  std::string text;
  Status result = ok_status();
  for (const auto& v : versions) {
    auto j = sign_version(s, wish, v);
    if (!j.ok()) {  // a revocation goes on with the other versions
      if (result.ok()) result = j.error();
      continue;
    }
    text += (wish.revoked ? "revoked " : "signed the policy of ") + version_label(v) + ": serial " +
            std::to_string(*j->find("policySerial")->integer());
    text += *j->find("changed")->boolean()
                ? ", accepted by the broker and in its log (proof checked)\n"
                : ", earlier\n";
    items.push_back(std::move(*j));
  }
  Json j;
  j["items"] = Json(std::move(items));
  j["warnings"] = Json(JsonArray(warned.begin(), warned.end()));
  if (!text.empty()) s.print(j, text);
  GBX_TRY(result);
  if (wish.revoked && !own.one) {
    GBX_TRY(check_gaps(own));
    return check_newest(s, own,
                        "all that it showed is revoked; ask its operator for the later one");
  }
  note_other_versions(s, own);
  return ok_status();
}

}  // namespace

std::string policy_lines(const records::Policy& p, records::AssetKind kind,
                         const std::string& mark) {
  std::string out;
  for (const auto& line : policy::explain_policy(p, kind)) out += bullet(mark, line);
  return out;
}

namespace {

void add_lines(std::string& text, Json& list, const char* mark,
               const std::vector<std::string>& lines) {
  JsonArray items;
  for (const auto& l : lines) {
    text += bullet(mark, l);
    items.push_back(Json(l));
  }
  list = Json(std::move(items));
}

// A file is a policy of one's own that is not signed yet.
// `fresh`: how fresh a published one is.
Result<policy::NamedPolicy> policy_of(Session& s, const std::string& what,
                                      Freshness* fresh = nullptr) {
  policy::NamedPolicy n;
  if (path_exists(what)) {
    GBX_ASSIGN(PolicyFile file, read_policy_file(what));
    GBX_TRY(check_in_force(file.clauses, s.now()));
    n.name = what;
    n.policy.clauses = std::move(file.clauses);
    n.kind = file.kind.value_or(records::AssetKind::kDataset);
    return n;
  }
  auto v = resolve_asset(s, what, Listed::kAll);
  if (!v.ok()) {
    Error e = v.error();
    const bool unknown = e.reason == Reason::kUsage || e.reason == Reason::kNotFound;
    if (unknown) {
      e.what = printable(what, 128) + ": neither a file that is there nor an asset";
    }
    return e;
  }
  if (fresh != nullptr) *fresh = freshness(*v, s.now());
  n.name = printable(v->record.body.name);
  n.policy = v->policy.body;
  n.kind = v->record.body.kind;
  n.content_digest = v->record.body.content_digest;
  n.signer = v->record.key;
  return n;
}

// What several owners allow together.
Status explain_several(Session& s, const Invocation& in, policy::NamedPolicy first, Json& j,
                       std::string& text) {
  std::vector<policy::NamedPolicy> assets{std::move(first)};
  for (const auto& what : in.list("with")) {
    if (path_exists(what)) {
      return fail(Reason::kUsage, "--with")
          .with("a published asset", "the file " + what.substr(0, 200))
          .hint("glovebox asset list");
    }
    GBX_ASSIGN(policy::NamedPolicy other, policy_of(s, what));
    const auto twice = std::find_if(assets.begin(), assets.end(), [&](const auto& known) {
      return known.policy.asset_version_id == other.policy.asset_version_id;
    });
    if (twice != assets.end()) {
      return fail(Reason::kUsage, "--with")
          .with("other assets, each once", printable(what, 200) + " again")
          .hint("glovebox asset list");
    }
    assets.push_back(std::move(other));
  }
  const policy::Together t = policy::explain_together(assets, s.now());
  text += "\nin one job together:\n";
  add_lines(text, j["together"], "- ", t.lines);
  if (!t.obstacles.empty()) text += "\nNO JOB CAN HAVE THEM ALL:\n";
  add_lines(text, j["obstacles"], "! ", t.obstacles);
  return ok_status();
}

Status policy_explain(Session& s, const Invocation& in) {
  const std::string what = in.text("what");
  Freshness fresh;
  GBX_ASSIGN(policy::NamedPolicy named, policy_of(s, what, &fresh));
  const records::Policy& p = named.policy;
  const records::AssetKind kind = named.kind;
  std::vector<std::string> lines = policy::explain_policy(p, kind);
  // names the version, which a file does not have
  if (path_exists(what) && !lines.empty()) lines.erase(lines.begin());
  std::string text;
  Json j;
  if (!fresh.text.empty()) {
    lines.push_back(fresh.text);
    j["freshness"] = fresh.json;
  }
  add_lines(text, j["explanation"], "- ", lines);
  const auto warned = warnings(p.clauses, kind);
  if (!warned.empty()) text += "\nwho could read it without asking you:\n";
  add_lines(text, j["warnings"], "! ", warned);
  const auto dead = policy::dead_ends(p, kind, s.now());
  if (!dead.empty()) text += "\nNO JOB CAN RUN under this policy:\n";
  add_lines(text, j["deadEnds"], "! ", dead);
  j["clauses"] = to_json(p.clauses);
  if (in.has("with")) GBX_TRY(explain_several(s, in, named, j, text));
  s.print(j, text);
  return ok_status();
}

Json lease_json(const api::LeaseView& v) {
  const auto& l = v.lease.body;
  Json j;
  j["leaseId"] = to_hex(l.lease_id);
  j["assetId"] = to_hex(l.asset_id);
  j["consumerId"] = to_hex(l.consumer_id);
  j["jobs"] = l.jobs;
  j["notAfter"] = format_time(l.not_after);
  j["signer"] = v.lease.key;
  return j;
}

Status lease_grant(Session& s, const Invocation& in) {
  GBX_ASSIGN(Keys * keys, s.keys());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  GBX_ASSIGN(api::AssetView v, resolve_asset(s, in.text("asset")));
  const auto& issuers = v.policy.body.clauses.lease_issuers;
  const std::string own = keys->signing->public_key().text();
  if (v.record.body.owner_id != keys->id &&
      std::find(issuers.begin(), issuers.end(), own) == issuers.end()) {
    return fail(Reason::kWrongOwner,
                "a lease is signed by the owner, or by an issuer whom the policy names")
        .with(to_hex(v.record.body.owner_id), to_hex(keys->id));
  }
  records::Lease l;
  auto consumer = fixed_from_hex<32>(in.text("consumer"));
  if (!consumer.ok()) {
    return fail(Reason::kUsage, "--consumer")
        .with("an identity, 64 hex digits", in.text("consumer").substr(0, 80));
  }
  l.lease_id = s.random().fixed<16>();
  l.asset_id = v.record.body.asset_id;
  l.consumer_id = *consumer;
  GBX_ASSIGN(l.jobs, in.integer("jobs", 1, Bound{1, 1'000'000}));
  GBX_ASSIGN(const std::int64_t days, in.integer("days", 30, Bound{1, 3650}));
  l.not_after = s.now() + days * kDay;
  l.set_id = set.set_id;
  GBX_ASSIGN(auto signed_lease, records::sign(set.set_id, l, *keys->signing));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_TRY(plane->add_lease(signed_lease));
  Json j = lease_json({signed_lease, keys->id});
  JsonArray warned;
  // Allowed, for somebody may be invited later; but most often a digit is wrong.
  if (plane->identity(l.consumer_id).reason() == Reason::kNotFound) {
    warned.push_back(
        Json("nobody with the identity " + to_hex(l.consumer_id) + " is enrolled here"));
    s.note("warning: " + *warned[0].string());
  }
  j["warnings"] = Json(std::move(warned));
  s.print(j, "leased " + printable(v.record.body.name) + " to " +
                 to_hex(l.consumer_id).substr(0, 16) + "… for " + counted(l.jobs, "job") +
                 " until " + format_time(l.not_after) + "\n  lease id  " + to_hex(l.lease_id) +
                 "\n");
  return ok_status();
}

Status lease_list(Session& s, const Invocation&) {
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(std::vector<api::LeaseView> leases, plane->leases());
  Plane::AssetFilter all;
  all.delisted = true;
  std::vector<api::AssetView> assets;
  if (!leases.empty()) {
    GBX_ASSIGN(assets, plane->assets(all));
  }
  std::map<Id16, std::string> names;
  for (const auto& v : assets) names[v.record.body.asset_id] = printable(v.record.body.name);
  JsonArray rows;
  JsonArray shown;
  for (const auto& l : leases) {
    Json j = lease_json(l);
    const auto name = names.find(l.lease.body.asset_id);
    j["asset"] = name == names.end() ? "" : name->second;
    rows.push_back(j);
    if (name == names.end()) j["asset"] = to_hex(l.lease.body.asset_id);
    j["consumerId"] = to_hex(l.lease.body.consumer_id).substr(0, 16);
    j["jobs"] = std::to_string(l.lease.body.jobs);
    if (l.lease.body.not_after < s.now()) {
      j["notAfter"] = format_time(l.lease.body.not_after) + " (expired)";
    }
    shown.push_back(std::move(j));
  }
  Json j;
  j["items"] = Json(std::move(rows));
  s.print(j, table({{"LEASE", "leaseId"},
                    {"ASSET", "asset"},
                    {"CONSUMER", "consumerId"},
                    {"JOBS", "jobs"},
                    {"UNTIL", "notAfter"}},
                   shown, "no leases"));
  return ok_status();
}

std::vector<Argument> policy_new_options() {
  Argument kind = option("kind", "KIND", "of what", ArgKind::kChoice);
  kind.choices = {"dataset", "model", "image"};
  kind.standard = "dataset";
  Argument rollback =
      option("rollback", "WORD", "the log's protection that you ask for", ArgKind::kChoice);
  rollback.choices = {"unprotected", "witnessed"};
  rollback.standard = "witnessed";
  Argument custody =
      many(option("custody", "CLASS", "who may hold the broker's keys", ArgKind::kChoice));
  custody.choices = {"operator", "tee"};
  Argument types = many(option("output-type", "TYPE", "what may leave", ArgKind::kChoice));
  types.choices = {"table", "json", "metrics", "text", "opaque"};
  const auto number = [](const char* name, const char* unit, const char* help,
                         const char* standard) {
    Argument a = option(name, unit, help, ArgKind::kInteger);
    a.standard = standard;
    return a;
  };
  return {
      kind,
      option("asset", "ASSET", "a published asset that it is for"),
      many(option("consumer", "ID", "identity that needs no lease, 64 hex digits")),
      flag("no-lease", "do not ask for leases (without --consumer: anybody)"),
      many(option("purpose", "TEXT", "allowed purpose, word for word; * for any")),
      many(option("image-digest", "DIGEST", "allowed image, sha256:…")),
      many(option("image-signer", "KEY", "allow images signed by this key")),
      many(option("command", "COMMAND", "allowed command line: words, or a JSON list")),
      flag("any-command", "allow any command (the consumer then chooses the code)"),
      many(option("allow-none-node", "HASH",
                  "allow NO TEE on the node with this key hash (glovebox node list)")),
      many(option("allow-sim", "ROOT",
                  "allow the SIMULATED TEE with this root (glovebox up prints it)")),
      many(option("release", "NAME", "guest release that may boot there")),
      many(option("join-asset", "ID", "asset that may be in the same job, 32 hex digits")),
      many(option("join-owner", "ID", "owner whose assets may be in the same job, 64 hex digits")),
      custody,
      rollback,
      types,
      option("data", "DIR", "measure how many bits a row of its largest CSV file holds",
             ArgKind::kDirectory),
      many(option("table", "FILE=COLUMN",
                  "file that recipes may read, and its column that says whom a row is about")),
      number("release-slot", "SECONDS", "decisions fall on multiples of it; 0 is at once", "900"),
      number("free-bits", "N", "cleared without a person, per release; 0: a person looks at each",
             "2048"),
      number("verified-bits", "N",
             "the same for bits of tables that the gate counts itself (--table)", "65536"),
      number("cell-subjects", "N", "fewest subjects of a cell of such a table", "10"),
      many(option(
          "reviewer", "FILE",
          "who may rule on held outputs: what they got from `glovebox -o json identity show`",
          ArgKind::kFile)),
      option("reviewers-needed", "N", "how many of them must approve", ArgKind::kInteger),
      many(option("may-preview", "FILE",
                  "another owner's reviewer whom you let see previews: what they got from the same",
                  ArgKind::kFile)),
      option("attempts", "N", "attempts per job after keys were released", ArgKind::kInteger),
      option("log-bytes", "N", "let the consumer have so many bytes of logs, at most 65536",
             ArgKind::kInteger),
      number("days", "N", "how long it holds", "365"),
      option("not-after", "TIME", "until when instead, like 2027-01-31"),
      option("out", "FILE", "write here instead of standard output", ArgKind::kFile),
      flag("force", "replace the file"),
      flag("yes", "do not ask anything")};
}

void add_leases(CommandTree& t) {
  Argument jobs = option("jobs", "N", "how many jobs", ArgKind::kInteger);
  jobs.standard = "1";
  Argument days = option("days", "N", "how long", ArgKind::kInteger);
  days.standard = "30";
  t.add({"lease", "rent assets out", "", {}, {}, {}, {}, {}});
  t.add("lease", {"grant",
                  "let a consumer run jobs on an asset of yours",
                  "",
                  {},
                  {required(option("asset", "ASSET", "which asset")),
                   required(option("consumer", "ID", "whose jobs, 64 hex digits")), jobs, days},
                  {{"glovebox lease grant --asset wdbc --consumer 9a… --jobs 5 --days 30",
                    "five jobs within a month"}},
                  lease_grant,
                  {}});
  t.add("lease", {"list", "leases that you granted or hold", "", {}, {}, {}, lease_list, {}});
}

}  // namespace

void add_policies(CommandTree& t) {
  const Argument asset = positional("asset", "NAME, NAME@VERSION, OWNER/NAME or the version id");
  t.add({"policy", "who may do what with an asset", "", {}, {}, {}, {}, {}});
  t.add(
      "policy",
      {"new",
       "write a release policy to edit",
       "Writes commented YAML. What you do not say is not allowed. On a terminal it asks, in plain "
       "words, for what the options leave out; NO TEE, an operator's custody, an unprotected log, "
       "any command and anybody are questions of their own.",
       {},
       policy_new_options(),
       {{"glovebox policy new --purpose \"breast cancer study\" --image-digest sha256:… --command "
         "'/usr/bin/python3 /opt/study/study.py' --allow-none-node 3f… --custody operator "
         "--rollback unprotected --release-slot 0 --out policy.yaml",
         "a policy for one study on one machine, without a TEE"}},
       policy_new,
       {}});
  t.add("policy",
        {"sign",
         "give a published version its next policy",
         "Signs serial + 1 and sends it. It counts once the broker has acknowledged it. A NAME is "
         "its newest version; --revoke takes back every version of a NAME, and NAME@VERSION or a "
         "version id one of them.",
         {asset},
         {option("policy", "FILE", "the new clauses", ArgKind::kFile),
          flag("renew", "the same clauses again"),
          flag("revoke", "no more keys, and held results are not released; needs no data key"),
          flag("reinstate", "undo the revocation of one version; nothing else does")},
         {{"glovebox policy sign wdbc --revoke", "take a dataset back, all its versions"},
          {"glovebox policy sign wdbc@2 --reinstate", "undo the revocation of one version"}},
         policy_sign,
         {}});
  t.add("policy",
        {"beacon",
         "say that a policy still stands (freshForSeconds)",
         "Signs that you stand by the policy in force and sends it. A policy with freshForSeconds "
         "gives no key and releases nothing when that time has passed since its publication or "
         "your last beacon. A NAME is every version of it whose policy asks for beacons.",
         {many(asset)},
         {},
         {{"glovebox policy beacon wdbc weights", "from a timer, on a machine that has your keys"}},
         policy_beacon,
         {}});
  t.add("policy", {"explain",
                   "who could read what, when and how much",
                   "With other assets it also says what all their owners allow in one job: the "
                   "strictest of each clause, and what keeps them from being in one at all.",
                   {positional("what", "a policy file, or an asset", ArgKind::kFile)},
                   {many(option("with", "ASSET", "an asset that would be in the same job"))},
                   {{"glovebox policy explain wdbc --with weights --with study-image",
                     "what three owners allow together"}},
                   policy_explain,
                   {}});
  add_leases(t);
}

}  // namespace gbx::cli
