#include "oci/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/json.h"
#include "base/log.h"
#include "crypto/crypto.h"

namespace gbx::oci {
namespace {

constexpr std::uint64_t kMaxDocument = 1U << 20;  // index, manifest, config
constexpr std::size_t kMaxLayers = 128;
constexpr std::uint64_t kMaxBlob = std::uint64_t{64} << 30;
constexpr std::size_t kMaxStrings = 1024;
constexpr std::size_t kMaxString = 32768;
constexpr std::string_view kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr std::string_view kConfigType = "application/vnd.oci.image.config.v1+json";
constexpr std::string_view kTarType = "application/vnd.oci.image.layer.v1.tar";
constexpr std::string_view kGzipType = "application/vnd.oci.image.layer.v1.tar+gzip";

Error refuse(std::string what) { return fail(Reason::kImageRefused, std::move(what)); }
// The reader's own words about damaged JSON, under the one reason that callers test for.
Error refuse(const std::string& where, const Error& cause) {
  return refuse(where + ": " + cause.line());
}

Result<Json> parse_document(std::string_view text, const char* name) {
  auto json = parse_json(
      text, JsonLimits{.max_bytes = kMaxDocument, .max_depth = 16, .max_values = 20'000});
  if (!json.ok()) return refuse(name, json.error());
  if (json->object() == nullptr) return refuse(std::string(name) + " is not an object");
  return json;
}

Result<std::string> text_member(const Json& object, std::string_view key, const char* where) {
  const Json* member = object.find(key);
  const std::string* text = member == nullptr ? nullptr : member->string();
  if (text == nullptr || text->size() > kMaxString || text->find('\0') != std::string::npos) {
    return refuse(std::string(where) + " lacks a proper " + std::string(key));
  }
  return *text;
}

Status check_schema_version(const Json& object, const char* where) {
  const Json* version = object.find("schemaVersion");
  if (version == nullptr || version->integer() == nullptr || *version->integer() != 2) {
    return refuse(std::string(where) + ": schemaVersion is not 2");
  }
  return ok_status();
}

struct Descriptor {
  std::string media_type;
  std::string digest;
  std::uint64_t size = 0;
};
Result<Descriptor> parse_descriptor(const Json& json, const char* where) {
  if (json.object() == nullptr) return refuse(std::string(where) + " is not an object");
  Descriptor d;
  GBX_ASSIGN(d.media_type, text_member(json, "mediaType", where));
  GBX_ASSIGN(d.digest, text_member(json, "digest", where));
  GBX_TRY(digest_hash(d.digest));
  const Json* size = json.find("size");
  const std::int64_t* n = size == nullptr ? nullptr : size->integer();
  if (n == nullptr || *n < 0 || static_cast<std::uint64_t>(*n) > kMaxBlob) {
    return refuse(std::string(where) + " lacks a proper size");
  }
  d.size = static_cast<std::uint64_t>(*n);
  // Both would make the bytes come from somewhere else than the blob.
  if (json.find("urls") != nullptr || json.find("data") != nullptr) {
    return refuse(std::string(where) + " points outside the layout");
  }
  return d;
}

Result<std::string> read_document(int layout_fd, const Descriptor& d, const char* name) {
  if (d.size > kMaxDocument) return refuse(std::string(name) + " is larger than 1 MiB");
  GBX_ASSIGN(const Fd fd, open_blob(layout_fd, d.digest, d.size));
  auto bytes = read_all(fd.get(), static_cast<std::size_t>(d.size));
  if (!bytes.ok()) return bytes.error().at(name);
  GBX_ASSIGN(const Hash32 expected, digest_hash(d.digest));
  const Hash32 actual = crypto::sha256(*bytes);
  if (actual != expected) {
    return fail(Reason::kImageDigestMismatch, std::string(name) + " is not what its digest says")
        .with(d.digest, "sha256:" + to_hex(actual));
  }
  return std::string(as_text(*bytes));
}

// index.json and oci-layout have no descriptor: small files, found by name.
Result<Json> read_named(int layout_fd, const char* name) {
  auto fd = open_beneath(layout_fd, name, O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) return refuse("no image layout", fd.error());
  struct stat st {};
  if (fstat(fd->get(), &st) != 0 || !S_ISREG(st.st_mode)) {
    return refuse(std::string(name) + " is not a file");
  }
  auto bytes = read_all(fd->get(), kMaxDocument);
  if (!bytes.ok()) {
    return bytes.reason() == Reason::kTooLarge ? refuse(std::string(name) + " is larger than 1 MiB")
                                               : bytes.error();
  }
  return parse_document(as_text(*bytes), name);
}

Result<Descriptor> find_manifest(int layout_fd) {
  GBX_ASSIGN(const Json marker, read_named(layout_fd, "oci-layout"));
  GBX_ASSIGN(const std::string version, text_member(marker, "imageLayoutVersion", "oci-layout"));
  if (version != "1.0.0") {
    return refuse("oci-layout").with("imageLayoutVersion 1.0.0", printable(version, 32));
  }
  GBX_ASSIGN(const Json index, read_named(layout_fd, "index.json"));
  GBX_TRY(check_schema_version(index, "index.json"));
  const Json* manifests = index.find("manifests");
  if (manifests == nullptr || manifests->array() == nullptr) {
    return refuse("index.json lacks manifests");
  }
  if (manifests->array()->size() != 1) {
    return refuse("index.json must name exactly one image")
        .with("1", std::to_string(manifests->array()->size()));
  }
  GBX_ASSIGN(Descriptor d, parse_descriptor(manifests->array()->front(), "index.json"));
  if (d.media_type != kManifestType) {
    return refuse("index.json does not name an image manifest")
        .with(std::string(kManifestType), printable(d.media_type));
  }
  return d;
}

Result<std::vector<std::string>> text_list(const Json* json, const char* name) {
  std::vector<std::string> out;
  if (json == nullptr || json->is_null()) return out;
  const JsonArray* list = json->array();
  if (list == nullptr || list->size() > kMaxStrings) {
    return refuse(std::string("config: ") + name + " is not a short list");
  }
  for (const Json& e : *list) {
    const std::string* s = e.string();
    if (s == nullptr || s->size() > kMaxString || s->find('\0') != std::string::npos) {
      return refuse(std::string("config: ") + name + " holds something that is no proper string");
    }
    out.push_back(*s);
  }
  return out;
}

Status parse_diff_ids(const Json& config, ImageInfo& image) {
  const Json* rootfs = config.find("rootfs");
  if (rootfs == nullptr || rootfs->object() == nullptr) return refuse("config lacks rootfs");
  GBX_ASSIGN(const std::string type, text_member(*rootfs, "type", "config: rootfs"));
  if (type != "layers") return refuse("config: rootfs type").with("layers", printable(type, 32));
  GBX_ASSIGN(const std::vector<std::string> ids,
             text_list(rootfs->find("diff_ids"), "rootfs.diff_ids"));
  if (ids.size() != image.layers.size()) {
    return refuse("config: one diff id for each layer")
        .with(std::to_string(image.layers.size()), std::to_string(ids.size()));
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    GBX_TRY(digest_hash(ids[i]));
    image.layers[i].diff_id = ids[i];
  }
  return ok_status();
}

}  // namespace

Result<Hash32> digest_hash(std::string_view digest) {
  if (digest.substr(0, 7) != "sha256:") {
    return refuse("digest " + printable(digest, 80) + " is not sha256");
  }
  auto hash = fixed_from_hex<32>(digest.substr(7));
  if (!hash.ok()) return refuse("digest " + printable(digest, 80) + " is malformed");
  return *hash;
}

Result<Fd> open_blob(int layout_fd, const std::string& digest, std::uint64_t size) {
  GBX_ASSIGN(const Hash32 hash, digest_hash(digest));
  // O_NONBLOCK: a fifo in its place must not hang the reader.
  auto fd = open_beneath(layout_fd, "blobs/sha256/" + to_hex(hash), O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) return refuse("blob " + digest, fd.error());
  struct stat st {};
  if (fstat(fd->get(), &st) != 0) return io_error("blob " + digest, errno);
  if (!S_ISREG(st.st_mode)) return refuse("blob " + digest + " is not a file");
  if (static_cast<std::uint64_t>(st.st_size) != size) {
    return fail(Reason::kImageDigestMismatch,
                "blob " + digest + " is not of the size in its descriptor")
        .with(std::to_string(size), std::to_string(st.st_size));
  }
  return std::move(*fd);
}

Result<Manifest> parse_manifest(std::string_view text) {
  GBX_ASSIGN(const Json json, parse_document(text, "manifest"));
  GBX_TRY(check_schema_version(json, "manifest"));
  const Json* type = json.find("mediaType");
  if (type != nullptr && (type->string() == nullptr || *type->string() != kManifestType)) {
    return refuse("manifest: mediaType is not an image manifest");
  }
  if (json.find("subject") != nullptr || json.find("artifactType") != nullptr) {
    return refuse("manifest describes an artifact, not an image");
  }
  const Json* config = json.find("config");
  if (config == nullptr) return refuse("manifest lacks config");
  GBX_ASSIGN(const Descriptor c, parse_descriptor(*config, "manifest: config"));
  if (c.media_type != kConfigType) {
    return refuse("manifest: config is of type " + printable(c.media_type));
  }
  const Json* layers = json.find("layers");
  if (layers == nullptr || layers->array() == nullptr) return refuse("manifest lacks layers");
  if (layers->array()->empty() || layers->array()->size() > kMaxLayers) {
    return refuse("manifest: number of layers")
        .with("1 to " + std::to_string(kMaxLayers), std::to_string(layers->array()->size()));
  }
  Manifest m{c.digest, c.size, {}};
  for (const Json& l : *layers->array()) {
    GBX_ASSIGN(const Descriptor d, parse_descriptor(l, "manifest: layer"));
    if (d.media_type != kTarType && d.media_type != kGzipType) {
      return refuse("manifest: layer is of type " + printable(d.media_type))
          .with("tar or tar+gzip", printable(d.media_type));
    }
    m.layers.push_back({d.media_type, d.digest, {}, d.size, d.media_type == kGzipType});
  }
  return m;
}

Status parse_config(std::string_view text, ImageInfo& image) {
  GBX_ASSIGN(const Json json, parse_document(text, "config"));
  GBX_TRY(parse_diff_ids(json, image));
  GBX_ASSIGN(const std::string os, text_member(json, "os", "config"));
  if (os != "linux") return refuse("config: os").with("linux", printable(os, 32));
  const Json* config = json.find("config");
  if (config == nullptr || config->is_null()) return ok_status();
  if (config->object() == nullptr) return refuse("config: config is not an object");
  GBX_ASSIGN(image.entrypoint, text_list(config->find("Entrypoint"), "Entrypoint"));
  GBX_ASSIGN(image.cmd, text_list(config->find("Cmd"), "Cmd"));
  GBX_ASSIGN(image.env, text_list(config->find("Env"), "Env"));
  for (const std::string& e : image.env) {
    if (e.find('=') == std::string::npos || e[0] == '=') {
      return refuse("config: Env holds " + printable(e, 64));
    }
  }
  if (config->find("WorkingDir") != nullptr) {
    GBX_ASSIGN(image.workdir, text_member(*config, "WorkingDir", "config"));
  }
  if (!image.workdir.empty() && image.workdir[0] != '/') {
    return refuse("config: WorkingDir is not absolute");
  }
  return ok_status();
}

Status check_manifest_digest(int layout_fd, const std::string& digest) {
  const auto other = [&](const std::string& actual) {
    return Status(fail(Reason::kImageDigestMismatch, "the layout holds another image")
                      .with(printable(digest, 80), actual));
  };
  GBX_ASSIGN(const Hash32 hash, digest_hash(digest));
  auto fd = open_beneath(layout_fd, "blobs/sha256/" + to_hex(hash), O_RDONLY | O_NONBLOCK);
  if (!fd.ok()) return other("no manifest of this digest");
  auto bytes = read_all(fd->get(), kMaxDocument);
  if (!bytes.ok()) return other("no manifest");
  const Hash32 actual = crypto::sha256(*bytes);
  if (actual != hash) return other("sha256:" + to_hex(actual));
  return ok_status();
}

Result<ImageInfo> inspect(int layout_fd) {
  GBX_ASSIGN(const Descriptor named, find_manifest(layout_fd));
  GBX_ASSIGN(const std::string manifest_text, read_document(layout_fd, named, "manifest"));
  GBX_ASSIGN(Manifest manifest, parse_manifest(manifest_text));
  ImageInfo image;
  image.manifest_digest = named.digest;
  image.config_digest = manifest.config_digest;
  image.layers = std::move(manifest.layers);
  const Descriptor config{std::string(kConfigType), manifest.config_digest, manifest.config_size};
  GBX_ASSIGN(const std::string config_text, read_document(layout_fd, config, "config"));
  GBX_TRY(parse_config(config_text, image));
  image.blob_bytes = manifest.config_size;
  for (const Layer& l : image.layers) {
    GBX_ASSIGN(const Fd blob, open_blob(layout_fd, l.digest, l.size));
    image.blob_bytes += l.size;  // at most kMaxLayers * kMaxBlob: no overflow
  }
  return image;
}

Result<ImageInfo> inspect(const std::string& layout_path) {
  GBX_ASSIGN(const Fd dir, open_dir(layout_path));
  return inspect(dir.get());
}

}  // namespace gbx::oci
