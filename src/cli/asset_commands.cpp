// asset, image
#include <sys/stat.h>

#include "asset/verify.h"
#include "base/log.h"
#include "base/os.h"
#include "cli/beacon.h"
#include "cli/catalogue.h"
#include "cli/commands.h"
#include "cli/policy_file.h"
#include "cli/progress.h"
#include "cli/publishing.h"
#include "cli/table_files.h"
#include "cli/texts.h"
#include "oci/oci.h"
#include "policy/policy.h"

namespace gbx::cli {

namespace {

Json asset_json(const api::AssetView& v) {
  const auto& r = v.record.body;
  Json j;
  j["versionId"] = to_hex(v.version_id);
  j["assetId"] = to_hex(r.asset_id);
  j["ownerId"] = to_hex(r.owner_id);
  j["name"] = r.name;
  j["kind"] = enum_name(r.kind);
  j["version"] = r.version;
  j["ciphertextBytes"] = r.ciphertext_bytes;
  j["contentDigest"] = r.content_digest;
  j["policyHash"] = to_hex(v.policy_hash);
  j["policySerial"] = v.policy.body.serial;
  j["revoked"] = v.policy.body.revoked;
  j["delisted"] = v.delisted;
  j["published"] = format_time(v.created_ms / 1000);
  return j;
}

Json list_of(const std::vector<std::string>& lines) {
  return Json(JsonArray(lines.begin(), lines.end()));
}

void print_published(Session& s, const Published& p, const std::vector<std::string>& warned) {
  const auto& r = p.record.body;
  Json j;
  j["versionId"] = to_hex(r.id());
  j["assetId"] = to_hex(r.asset_id);
  j["name"] = r.name;
  j["kind"] = enum_name(r.kind);
  j["version"] = r.version;
  j["contentDigest"] = r.content_digest;
  j["policyHash"] = to_hex(p.policy.hash());
  j["policySerial"] = p.policy.body.serial;
  j["files"] = static_cast<std::int64_t>(p.files);
  j["bytes"] = static_cast<std::int64_t>(p.bytes);
  j["ciphertextBytes"] = r.ciphertext_bytes;
  j["warnings"] = list_of(warned);
  std::string text = "published " + std::string(enum_name(r.kind)) + " " + printable(r.name) + "@" +
                     std::to_string(r.version) + "\n";
  text += "  version id  " + to_hex(r.id()) + "\n";
  if (!r.content_digest.empty()) text += "  image       " + r.content_digest + "\n";
  text += "  policy      serial " + std::to_string(p.policy.body.serial) +
          ", accepted by the broker and in its log (proof checked)\n";
  text += "  encrypted   " + human_bytes(static_cast<std::uint64_t>(r.ciphertext_bytes)) + "\n";
  s.print(j, text);
}

Status publish_and_print(Session& s, const Invocation& in, PublishRequest r) {
  GBX_ASSIGN(PolicyFile file, read_policy_file(in.text("policy")));
  GBX_TRY(check_kind(file, r.kind));
  if (r.kind == records::AssetKind::kDataset && file.clauses.tables) {
    GBX_TRY(check_tables(r.source, *file.clauses.tables));
  }
  GBX_ASSIGN(const std::vector<std::string> warned, note_policy(s, file.clauses, r.kind));
  if (r.kind == records::AssetKind::kDataset && !file.clauses.row_bits) {
    s.note(
        "note: the policy does not say how many bits a row of this data holds (rowBits), so no "
        "screen can show bits as rows: glovebox policy new --data " +
        shell_word(printable(r.source)) + " measures it");
  }
  r.clauses = std::move(file.clauses);
  GBX_ASSIGN(Published p, publish_asset(s, std::move(r)));
  print_published(s, p, warned);
  return ok_status();
}

// A folder that is no image layout is a wrong word; a layout that does not hold together is a
// damaged image.
Result<oci::ImageInfo> inspect_layout(const std::string& path) {
  GBX_TRY(open_dir(path));
  for (const char* file : {"oci-layout", "index.json"}) {
    if (path_exists(path + "/" + file)) continue;
    return fail(Reason::kBadValue, path)
        .with("an OCI image layout: a folder with oci-layout and index.json",
              std::string("no ") + file)
        .hint("make one, for example with: skopeo copy docker://IMAGE oci:FOLDER");
  }
  return oci::inspect(path);
}

Status asset_publish(Session& s, const Invocation& in) {
  PublishRequest r;
  r.source = in.text("source");
  r.name = in.text("name");
  const std::string kind = in.has("kind") ? in.text("kind") : "dataset";
  GBX_ASSIGN(r.kind, enum_from<records::AssetKind>(kind));
  return publish_and_print(s, in, std::move(r));
}

Status image_import(Session& s, const Invocation& in) {
  PublishRequest r;
  r.source = in.text("layout");
  r.name = in.text("name");
  r.kind = records::AssetKind::kImage;
  GBX_ASSIGN(oci::ImageInfo image, inspect_layout(r.source));
  r.content_digest = image.manifest_digest;
  return publish_and_print(s, in, std::move(r));
}

Status image_inspect(Session& s, const Invocation& in) {
  GBX_ASSIGN(oci::ImageInfo image, inspect_layout(in.text("layout")));
  Json j;
  j["digest"] = image.manifest_digest;
  j["bytes"] = static_cast<std::int64_t>(image.blob_bytes);
  j["layers"] = static_cast<std::int64_t>(image.layers.size());
  const auto strings = [](const std::vector<std::string>& v) {
    JsonArray a;
    for (const auto& e : v) a.push_back(Json(printable(e, 1000)));
    return Json(std::move(a));
  };
  j["entrypoint"] = strings(image.entrypoint);
  j["cmd"] = strings(image.cmd);
  j["env"] = strings(image.env);
  s.print(j, describe(j));
  return ok_status();
}

Status asset_list(Session& s, const Invocation& in) {
  Plane::AssetFilter filter;
  filter.name = in.text("name");
  filter.kind = in.text("kind");
  if (in.has("mine")) {
    GBX_ASSIGN(IdentityFile own, s.home().identity());
    filter.owner = to_hex(own.chain.id());
  }
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  GBX_ASSIGN(std::vector<api::AssetView> all, plane->assets(filter));
  JsonArray rows;
  JsonArray shown;
  std::size_t bad = 0;
  for (const auto& v : all) {
    // What does not verify is not shown as an asset: anybody could have written it.
    if (!verify_asset_view(set, v).ok()) {
      ++bad;
      continue;
    }
    Json j = asset_json(v);
    rows.push_back(j);
    j["versionId"] = to_hex(v.version_id).substr(0, 16);
    j["ownerId"] = to_hex(v.record.body.owner_id).substr(0, 12);
    j["size"] = human_bytes(static_cast<std::uint64_t>(v.record.body.ciphertext_bytes));
    j["policySerial"] = v.policy.body.revoked ? "revoked" : std::to_string(v.policy.body.serial);
    j["version"] = std::to_string(v.record.body.version);
    shown.push_back(std::move(j));
  }
  if (bad > 0) {
    s.note("warning: " + std::to_string(bad) +
           " entries of the plane do not verify and are left out");
  }
  Json j;
  j["items"] = Json(std::move(rows));
  if (bad > 0) j["notVerified"] = static_cast<std::int64_t>(bad);
  s.print(j, table({{"NAME", "name"},
                    {"VERSION", "version"},
                    {"KIND", "kind"},
                    {"SIZE", "size"},
                    {"POLICY", "policySerial"},
                    {"OWNER", "ownerId"},
                    {"VERSION ID", "versionId"},
                    {"PUBLISHED", "published"}},
                   shown, "no assets"));
  return ok_status();
}

Status asset_show(Session& s, const Invocation& in) {
  GBX_ASSIGN(api::AssetView v, resolve_asset(s, in.text("asset"), Listed::kAll));
  Json j = asset_json(v);
  Json shown = j;
  shown.object()->erase("ciphertextBytes");
  shown["size"] =
      human_bytes(static_cast<std::uint64_t>(v.record.body.ciphertext_bytes)) + " encrypted";
  std::string text = describe(shown) + "\nwhat its policy allows:\n" +
                     policy_lines(v.policy.body, v.record.body.kind, "  - ");
  const Freshness fresh = freshness(v, s.now());
  if (!fresh.text.empty()) {
    text += bullet("  - ", fresh.text);
    j["freshness"] = fresh.json;
  }
  JsonArray lines;
  for (const auto& line : policy::explain_policy(v.policy.body, v.record.body.kind)) {
    lines.push_back(Json(line));
  }
  j["explanation"] = Json(std::move(lines));
  j["policy"] = to_json(v.policy);
  j["record"] = to_json(v.record);
  s.print(j, text);
  return ok_status();
}

Status asset_delist(Session& s, const Invocation& in) {
  GBX_ASSIGN(api::AssetView v, resolve_asset(s, in.text("asset")));
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_TRY(plane->delist(v.version_id));
  Json j;
  j["versionId"] = to_hex(v.version_id);
  j["delisted"] = true;
  s.print(
      j, "delisted " + printable(v.record.body.name) + "@" + std::to_string(v.record.body.version) +
             ": no new job can name it. Its policy still stands; to take it back: " +
             s.command({"policy", "sign", to_hex(v.version_id).substr(0, 16), "--revoke"}) + "\n");
  return ok_status();
}

Status asset_verify(Session& s, const Invocation& in) {
  GBX_ASSIGN(api::AssetView v, resolve_asset(s, in.text("asset"), Listed::kAll));
  GBX_ASSIGN(Plane * plane, s.plane());
  PlaneStore store(*plane, s.home().file("spool"));
  const auto& r = v.record.body;
  std::optional<DatasetKey> key;
  if (in.has("with-key")) {
    GBX_ASSIGN(const IdentityFile own, s.home().identity());
    if (r.owner_id != own.chain.id()) {
      return fail(Reason::kWrongOwner, "the key of " + version_label(v))
          .with(to_hex(r.owner_id), to_hex(own.chain.id()))
          .hint("leave --with-key out: what is stored can be checked without a key");
    }
    GBX_ASSIGN(key, s.dataset_key(r.asset_id, r.version));
  }
  Progress bar(s, "verify " + printable(r.name));
  const auto show = [&](std::uint64_t done, std::uint64_t total) { bar.show(done, total); };
  auto report = key ? asset::verify_with_key(store, r, v.version_id, *key, show)
                    : asset::verify(store, r, show);
  bar.end();
  if (!report.ok()) return report.error();
  Json j;
  j["versionId"] = to_hex(v.version_id);
  j["objects"] = static_cast<std::int64_t>(report->objects);
  j["objectBytes"] = static_cast<std::int64_t>(report->object_bytes);
  j["withKey"] = key.has_value();
  if (key) {  // without it nobody knows
    j["files"] = static_cast<std::int64_t>(report->files);
    j["bytes"] = static_cast<std::int64_t>(report->bytes);
  }
  std::string text = "whole: " + std::to_string(report->objects) + " objects, " +
                     human_bytes(report->object_bytes) +
                     ", each with the hash that the owner signed\n";
  text += key ? "opened: " + std::to_string(report->files) + " files, " +
                    human_bytes(report->bytes) + " of plaintext\n"
              : "(ciphertext only; the owner may add --with-key to open everything)\n";
  s.print(j, text);
  return ok_status();
}

// The record of an image asset is signed when it is imported; this signs the image for policies
// that name a signer.
Status image_sign(Session& s, const Invocation& in) {
  GBX_ASSIGN(api::AssetView v, resolve_asset(s, in.text("asset"), Listed::kAll));
  if (v.record.body.kind != records::AssetKind::kImage) {
    return fail(Reason::kBadValue, "asset")
        .with("an image", std::string(enum_name(v.record.body.kind)));
  }
  GBX_ASSIGN(Keys * keys, s.keys());
  const bool own = v.record.body.owner_id == keys->id;
  if (!own) {
    return fail(Reason::kWrongOwner, "an image is signed by its owner")
        .with(to_hex(v.record.body.owner_id), to_hex(keys->id));
  }
  Json j;
  j["versionId"] = to_hex(v.version_id);
  j["digest"] = v.record.body.content_digest;
  j["signer"] = v.record.key;
  j["signature"] = to_base64url(v.record.signature);
  s.print(j, "image " + v.record.body.content_digest + "\nsigned by " + v.record.key +
                 "\n\nA policy that trusts this signer says:\n  images:\n    - signer: \"" +
                 v.record.key + "\"\n");
  return ok_status();
}

// What both groups share.
struct SharedArguments {
  Argument name = required(option("name", "NAME", "public name, 1 to 64 bytes"));
  Argument policy =
      required(option("policy", "FILE", "release policy (glovebox policy new)", ArgKind::kFile));
  Argument asset = positional("asset", "NAME, NAME@VERSION, OWNER/NAME or the version id");
};

void add_images(CommandTree& t) {
  const auto [name, policy, asset] = SharedArguments{};
  t.add({"image", "algorithm images", "", {}, {}, {}, {}, {}});
  t.add("image",
        {"import",
         "publish an OCI image layout as an encrypted asset",
         "Verifies the layout, then does what `asset publish` does. The image's identity is its "
         "manifest digest. Its record is signed with your key; `image sign` prints the clause by "
         "which policies allow what that key signed.",
         {positional("layout", "folder with oci-layout and index.json", ArgKind::kDirectory)},
         {name, policy},
         {{"glovebox image import ./study --name study-image --policy image-policy.yaml",
           "publish an image"}},
         image_import,
         {}});
  t.add("image",
        {"inspect",
         "digest and configuration of an OCI image layout",
         "",
         {positional("layout", "folder with oci-layout and index.json", ArgKind::kDirectory)},
         {},
         {},
         image_inspect,
         {}});
  t.add("image", {"sign",
                  "show the signature that policies can ask for",
                  "Signs nothing: an image asset was signed by its owner's key when it was "
                  "imported, and a policy may allow every image that a key signed. This checks the "
                  "signature of one of your images and prints the clause that names it.",
                  {asset},
                  {},
                  {},
                  image_sign,
                  {}});
}

}  // namespace

void add_assets(CommandTree& t) {
  const std::vector<std::string> kinds{"dataset", "model", "image"};
  Argument kind = option("kind", "KIND", "what it is", ArgKind::kChoice);
  kind.choices = {"dataset", "model"};
  kind.standard = "dataset";
  Argument any_kind = option("kind", "KIND", "only this kind", ArgKind::kChoice);
  any_kind.choices = kinds;
  const auto [name, policy, asset] = SharedArguments{};
  t.add({"asset", "encrypted datasets and models", "", {}, {}, {}, {}, {}});
  t.add("asset",
        {"publish",
         "encrypt a folder or file and publish it with a policy",
         "Encrypts on this machine, uploads ciphertext, checks the broker's evidence against the "
         "pinned set, signs the version record and the policy, and wraps the key for the broker. "
         "It says \"published\" only after the broker's signed acknowledgement and its place in "
         "the log were checked. An interrupted publication goes on where it stopped when the same "
         "command is given again. A name that you used before gets its next version.",
         {positional("source", "folder or file", ArgKind::kFile)},
         {name, policy, kind},
         {{"glovebox asset publish ./wdbc --name wdbc --policy policy.yaml", "publish a dataset"}},
         asset_publish,
         {}});
  t.add("asset",
        {"list",
         "what is published",
         "Entries whose signatures do not verify are left out.",
         {},
         {option("name", "NAME", "only this name"), any_kind, flag("mine", "only your own")},
         {},
         asset_list,
         {}});
  t.add("asset",
        {"show", "one version, and what its policy allows", "", {asset}, {}, {}, asset_show, {}});
  t.add("asset", {"delist",
                  "offer a version no more",
                  "New jobs cannot name it. Jobs that run go on; a policy ends with --revoke.",
                  {asset},
                  {},
                  {},
                  asset_delist,
                  {}});
  t.add("asset",
        {"verify",
         "check every stored byte of a version",
         "Without a key: each object has the size and hash that the owner signed. With the owner's "
         "key: everything opens.",
         {asset},
         {flag("with-key", "also open everything with the key that you kept when publishing")},
         {},
         asset_verify,
         {}});
  add_images(t);
}

}  // namespace gbx::cli
