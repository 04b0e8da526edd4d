// init, identity
#include "base/log.h"
#include "base/os.h"
#include "cli/commands.h"
#include "cli/rotation.h"
#include "cli/session.h"

namespace gbx::cli {

namespace {

constexpr SecretAccess kAccess{};
const std::vector<std::string> kRoles{"owner", "consumer", "reviewer",
                                      "node",  "operator", "auditor"};

Status init(Session& s, const Invocation& in) {
  Context c;
  GBX_ASSIGN(Address address, parse_address(in.text("plane")));
  c.host = address.host;
  c.port = address.port;
  GBX_ASSIGN(Bytes file, read_file(in.text("ca"), 1U << 16));
  auto ca = parse_certificate(file);
  if (!ca.ok()) return ca.error().at(in.text("ca"));
  c.ca = std::move(*ca);
  auto set_id = fixed_from_hex<32>(in.text("set"));
  if (!set_id.ok()) {
    return fail(Reason::kUsage, "--set")
        .with("64 hex digits, as `glovebox-broker fingerprint` prints them",
              in.text("set").substr(0, 80));
  }
  c.set_id = *set_id;
  auto before = s.home().context();
  if (before.ok() && before->set_id != c.set_id && !in.has("force")) {
    return fail(Reason::kAlreadyExists, s.home().path() + " belongs to another key set")
        .with(to_hex(before->set_id), to_hex(c.set_id))
        .hint("use another --home, or --force when the old installation is gone");
  }
  if (before.ok() && before->set_id == c.set_id) c.epoch = before->epoch;
  http::ClientOptions o;
  o.host = c.host;
  o.port = static_cast<std::uint16_t>(c.port);
  o.ca_der = c.ca;
  GBX_ASSIGN(auto plane, Plane::connect(std::move(o), s.clock(), s.random()));
  GBX_ASSIGN(api::InfoView info, plane->info());
  GBX_ASSIGN(records::SetChain::Keys keys, accept_chain(s.home(), c, info.set));
  GBX_TRY(s.home().save(c));
  Json j;
  j["plane"] = c.host + ":" + std::to_string(c.port);
  j["setId"] = to_hex(c.set_id);
  j["epoch"] = keys.epoch;
  j["custody"] = enum_name(info.set.charter.custody);
  j["home"] = s.home().path();
  j["version"] = printable(info.version, 64);
  std::string text = "Glovebox at " + c.host + ":" + std::to_string(c.port) + ", set " +
                     to_hex(c.set_id) + " (epoch " + std::to_string(keys.epoch) + ", custody " +
                     std::string(enum_name(info.set.charter.custody)) + ")\n";
  text += "Settings in " + s.home().path() + "\n";
  if (!path_exists(s.home().file("identity.json"))) {
    text += "Next: glovebox identity create --name NAME --role consumer --invite-file FILE\n";
  }
  s.print(j, text);
  return ok_status();
}

// A token is a secret: it comes from a file, never from an argument that others can list.
Result<std::string> read_invite(const Invocation& in) {
  if (!in.has("invite-file")) return std::string();
  GBX_ASSIGN(std::string text, read_text_file(in.text("invite-file"), 256));
  text.erase(std::min(text.find_first_of("\r\n"), text.size()));
  if (text.empty() || text.size() > 128 || text.find_first_of(" \t") != std::string::npos) {
    return fail(Reason::kUsage, "--invite-file " + in.text("invite-file"))
        .with("one line of at most 128 bytes: the token", std::to_string(text.size()) + " bytes");
  }
  return text;
}

Json identity_json(const IdentityFile& f) {
  Json j;
  j["identityId"] = to_hex(f.chain.id());
  j["name"] = f.name;
  j["roles"] = Json(JsonArray(f.roles.begin(), f.roles.end()));
  j["key"] = f.chain.rotations.empty() ? f.chain.identity.genesis_key
                                       : f.chain.rotations.back().body.new_key;
  j["recoveryKey"] = f.chain.identity.recovery_key;
  j["resultKey"] = f.result_key;
  j["recoveryResultKey"] = f.recovery_result_key;
  j["rotations"] = static_cast<std::int64_t>(f.chain.rotations.size());
  return j;
}

// f.roles are those that it then has: these, and what it had before.
Status enrol_at_plane(Session& s, IdentityFile& f, const std::string& invite) {
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(const Json reply, plane->enrol({f.chain, f.name, f.roles, invite}));
  GBX_ASSIGN(const auto view, from_json<api::IdentityView>(reply));
  if (view.identity_id != f.chain.id()) {
    return fail(Reason::kBadStructure, "the plane enrolled somebody else");
  }
  f.roles.clear();
  for (const auto r : view.roles) f.roles.emplace_back(enum_name(r));
  return ok_status();
}

Result<IdentityFile> make_keys(Session& s, const std::string& name, bool protect) {
  GBX_ASSIGN(std::optional<Passphrase> phrase, s.new_passphrase(protect));
  const Passphrase* p = phrase ? &*phrase : nullptr;
  using crypto::SignatureAlgorithm;
  GBX_ASSIGN(auto signing, crypto::SigningKey::generate(SignatureAlgorithm::kEd25519, s.random()));
  GBX_ASSIGN(auto recovery, crypto::SigningKey::generate(SignatureAlgorithm::kEd25519, s.random()));
  GBX_ASSIGN(auto result, crypto::HpkeKeyPair::generate(s.random()));
  GBX_ASSIGN(auto recovery_result, crypto::HpkeKeyPair::generate(s.random()));
  GBX_TRY(s.home().make("keys/assets"));
  GBX_TRY(s.home().make("recovery"));
  const auto write = [&](const std::string& path, KeyKind kind, ByteView key) {
    return write_key_file(path, kind, key, kAccess, p, s.random());
  };
  GBX_TRY(write(s.home().signing_key(), KeyKind::kSigning,
                signing.private_bytes(kAccess).view(kAccess)));
  GBX_TRY(write(s.home().recovery_signing_key(), KeyKind::kSigning,
                recovery.private_bytes(kAccess).view(kAccess)));
  GBX_TRY(write(s.home().result_key(), KeyKind::kHpke, result.private_key().view(kAccess)));
  GBX_TRY(write(s.home().recovery_result_key(), KeyKind::kHpke,
                recovery_result.private_key().view(kAccess)));
  IdentityFile f;
  f.name = name;
  f.chain.identity = {signing.public_key().text(), recovery.public_key().text()};
  f.result_key = result.public_key().text();
  f.recovery_result_key = recovery_result.public_key().text();
  return f;
}

Status identity_create(Session& s, const Invocation& in) {
  std::vector<std::string> roles = in.list("role");
  if (roles.empty()) roles = {"consumer"};
  if (path_exists(s.home().file("identity.json"))) {
    std::string again = "glovebox identity enrol";
    for (const std::string& r : roles) again += " --role " + r;
    return fail(Reason::kAlreadyExists, "an identity lies in " + s.home().path())
        .hint(again +
              " --invite-file FILE enrols it, or adds the role; for somebody else take another "
              "--home");
  }
  const std::string name = in.text("name");
  if (name.empty() || name.size() > 63) {
    return fail(Reason::kUsage, "--name")
        .with("1 to 63 bytes", std::to_string(name.size()) + " bytes");
  }
  GBX_ASSIGN(const std::string invite, read_invite(in));
  GBX_ASSIGN(IdentityFile f, make_keys(s, name, in.has("passphrase")));
  f.roles = roles;
  GBX_TRY(s.home().save(f));
  Json j = identity_json(f);
  std::string text = describe(j);
  text += "\nMove " + s.home().file("recovery") +
          " to a place that is not connected to anything: its keys sign for a change of your key "
          "and open results.\n";
  bool enrolled = false;
  if (!in.has("offline")) {
    Status e = enrol_at_plane(s, f, invite);
    if (!e.ok()) {
      e.error().at("the identity " + to_hex(f.chain.id()) + " was made and lies in " +
                   s.home().path() + ", but it is not enrolled");
      if (e.error().next.empty() || e.reason() == Reason::kUnauthenticated) {
        e.error().hint("glovebox identity enrol --invite-file FILE");
      }
      return e;
    }
    enrolled = true;
  }
  j["enrolled"] = enrolled;
  s.print(j, text);
  return ok_status();
}

Status identity_enrol(Session& s, const Invocation& in) {
  GBX_ASSIGN(IdentityFile f, s.home().identity());
  std::vector<std::string> roles = in.list("role");
  if (!roles.empty()) f.roles = roles;
  GBX_ASSIGN(const std::string invite, read_invite(in));
  GBX_TRY(enrol_at_plane(s, f, invite));
  GBX_TRY(s.home().save(f));
  Json j = identity_json(f);
  j["enrolled"] = true;
  s.print(j, "enrolled " + to_hex(f.chain.id()) + " as " + joined(f.roles, ", ") + "\n");
  return ok_status();
}

Status identity_show(Session& s, const Invocation&) {
  GBX_ASSIGN(IdentityFile f, s.home().identity());
  const Json j = identity_json(f);
  s.print(j, describe(j));
  return ok_status();
}

Status identity_rotate(Session& s, const Invocation& in) {
  const RotateBy by = in.has("recovery") ? RotateBy::kRecoveryKey : RotateBy::kPresentKey;
  GBX_ASSIGN(const Rotated r, rotate_key(s, by));
  if (r.of_others > 0) {
    s.note(
        "note: " + std::to_string(r.of_others) +
        " of the identity's rotations were not made in this home. Were they not yours, then look "
        "through your assets and sign their policies anew: what was signed stays in force");
  }
  const Json j = identity_json(r.file);
  s.print(j, "your key is now " + r.file.chain.rotations.back().body.new_key + " (rotation " +
                 std::to_string(r.file.chain.rotations.size()) + ")\n");
  return ok_status();
}

Status identity_invite(Session& s, const Invocation& in) {
  std::vector<std::string> roles = in.list("role");
  GBX_ASSIGN(const std::int64_t uses, in.integer("uses", 1, Bound{1, 1000}));
  GBX_ASSIGN(const std::int64_t days, in.integer("days", 7, Bound{1, 365}));
  GBX_TRY(may_write(in, "out"));
  const std::string path = in.text("out");
  GBX_ASSIGN(Plane * plane, s.plane());
  const std::int64_t until = s.now() + days * 86400;
  GBX_ASSIGN(const std::string token, plane->invite(roles, uses, until));
  GBX_TRY(write_file_atomic(path, as_bytes(printable(token, 128) + "\n"), 0600));
  Json j;
  j["file"] = path;
  j["roles"] = Json(JsonArray(roles.begin(), roles.end()));
  j["uses"] = uses;
  j["notAfter"] = format_time(until);
  s.print(j, "wrote a token to " + path + " (mode 0600), good " + std::to_string(uses) +
                 " times until " + format_time(until) +
                 "\nWho gets the file says: glovebox identity create --name NAME --role " +
                 joined(roles, ",") + " --invite-file FILE\n");
  return ok_status();
}

Command init_command() {
  Command c;
  c.name = "init";
  c.summary = "say which Glovebox you use and pin its key set";
  c.details =
      "Connects to the plane, checks that its broker's keys lead back to the key set that you "
      "name, and keeps address, certificate and set id. The set id is what you trust: get it from "
      "the operator by a way that the plane does not control (`glovebox-broker fingerprint` prints "
      "it).";
  c.options = {required(option("plane", "HOST:PORT", "address of the plane")),
               required(option("ca", "FILE",
                               "certificate of the authority that certifies the plane, PEM or DER",
                               ArgKind::kFile)),
               required(option("set", "SETID", "id of the key set, 64 hex digits")),
               flag("force", "replace the settings of another installation")};
  c.examples = {{"glovebox init --plane glovebox.example:7443 --ca ca.pem --set 5f0c…",
                 "once per installation"}};
  c.run = init;
  return c;
}

void add_identity(CommandTree& t) {
  Command group;
  group.name = "identity";
  group.summary = "your keys and who you are here";
  t.add(std::move(group));
  Argument role = many(option("role", "ROLE", "what you are here", ArgKind::kChoices));
  role.choices = kRoles;
  const Argument invite = option("invite-file", "FILE",
                                 "file with the token that an operator gave you", ArgKind::kFile);
  t.add("identity",
        {"create",
         "make your keys and enrol them",
         "Makes a key for daily use, a recovery key, and two keys that results are sealed to. They "
         "are files of mode 0600 below the home folder; move its `recovery` folder offline. With "
         "--passphrase or --passphrase-file the files are sealed under a passphrase (scrypt).",
         {},
         {required(option("name", "NAME", "how others see you")), role, invite,
          flag("passphrase", "ask for a passphrase that protects the keys"),
          flag("offline", "make the keys only; enrol later")},
         {{"glovebox identity create --name hospital --role owner --invite-file token",
           "an owner of data"}},
         identity_create,
         {}});
  t.add("identity", {"enrol",
                     "enrol your identity at the plane, or add a role to it",
                     "What the invite gives comes on top of the roles that the identity has.",
                     {},
                     {role, invite},
                     {{"glovebox identity enrol --role owner --invite-file token",
                       "a consumer becomes an owner, too"}},
                     identity_enrol,
                     {}});
  t.add("identity",
        {"show", "who you are, and your public keys", "", {}, {}, {}, identity_show, {}});
  t.add("identity",
        {"rotate",
         "change your signing key",
         "Makes a new key and signs the change with the present one, or with the recovery key when "
         "the present one is lost or somebody else may know it. Your identity stays, the old key "
         "signs nothing more: give new leases for those that it signed, and submit jobs again "
         "that have not ended. Has somebody else changed your key first, then the recovery key "
         "still takes the identity back: --recovery goes on from the changes that the plane "
         "shows. A rotation that was interrupted goes on when the command is given again; no key "
         "is written over for which one was signed.",
         {},
         {flag("recovery",
               "sign with the recovery key (put `recovery` back into the home folder for it)")},
         {},
         identity_rotate,
         {}});
  Argument uses = option("uses", "N", "how often it may be used", ArgKind::kInteger);
  uses.standard = "1";
  Argument days = option("days", "N", "how long it is good", ArgKind::kInteger);
  days.standard = "7";
  t.add("identity",
        {"invite",
         "invite somebody (operators)",
         "Writes a token with which somebody enrols into a file that only you can read. Give it to "
         "them on a way that others cannot read: who has it first is let in.",
         {},
         {required(role), uses, days,
          required(option("out", "FILE", "where the token goes, mode 0600", ArgKind::kFile)),
          flag("force", "replace the file")},
         {{"glovebox identity invite --role consumer --uses 5 --days 3 --out token",
           "five consumers"}},
         identity_invite,
         {}});
}

}  // namespace

void add_setup(CommandTree& t) {
  t.add(init_command());
  add_identity(t);
}

}  // namespace gbx::cli
