// Builds tars, honest and hostile, and image layouts round them, for the tests of src/oci and the
// fuzz seeds.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "base/json.h"
#include "base/os.h"
#include "crypto/crypto.h"
#include "oci/oci.h"

namespace gbx::oci::testing {

struct Header {
  std::string name{};
  char type = '0';
  std::uint64_t size = 0;
  unsigned mode = 0644;
  unsigned uid = 0;
  unsigned gid = 0;
  std::string link{};
  std::string prefix{};
  bool gnu = false;
};

class Tar {
 public:
  Tar& raw(ByteView bytes) {
    append(bytes_, bytes);
    return *this;
  }
  Tar& header(const Header& h) { return raw(block(h)); }
  Tar& content(std::string_view text) {
    raw(as_bytes(text));
    bytes_.resize((bytes_.size() + 511) / 512 * 512);
    return *this;
  }
  Tar& file(const std::string& name, std::string_view text, unsigned mode = 0644) {
    Header h{.name = name, .size = text.size(), .mode = mode};
    return header(h).content(text);
  }
  Tar& dir(const std::string& name, unsigned mode = 0755) {
    return header({.name = name, .type = '5', .mode = mode});
  }
  Tar& symlink(const std::string& name, const std::string& target) {
    return header({.name = name, .type = '2', .mode = 0777, .link = target});
  }
  Tar& hard_link(const std::string& name, const std::string& target) {
    return header({.name = name, .type = '1', .link = target});
  }
  Tar& special(const std::string& name, char type) { return header({.name = name, .type = type}); }
  // Extended header with one pax record each for the pairs, then nothing: the entry follows.
  Tar& pax(const std::vector<std::pair<std::string, std::string>>& records) {
    std::string text;
    for (const auto& [k, v] : records) text += record(k, v);
    return pax_raw(text);
  }
  Tar& pax_raw(const std::string& text, char type = 'x') {
    return header({.name = "pax", .type = type, .size = text.size()}).content(text);
  }
  Tar& gnu_name(char type, const std::string& name) {
    return header({.name = "././@LongLink", .type = type, .size = name.size() + 1, .gnu = true})
        .content(name + '\0');
  }
  Bytes unfinished() const { return bytes_; }
  Bytes finish() const {
    Bytes out = bytes_;
    out.resize(out.size() + 1024);
    return out;
  }

  static std::string record(const std::string& k, const std::string& v) {
    std::size_t length = k.size() + v.size() + 3;
    while (std::to_string(length).size() + k.size() + v.size() + 3 != length) {
      length = std::to_string(length).size() + k.size() + v.size() + 3;
    }
    return std::to_string(length) + " " + k + "=" + v + "\n";
  }
  static Bytes block(const Header& h) {
    Bytes b(512);
    const auto put = [&](std::size_t at, const std::string& text) {
      std::memcpy(b.data() + at, text.data(), text.size());
    };
    const auto octal = [](std::uint64_t v, int digits) {
      char text[32];
      snprintf(text, sizeof text, "%0*llo", digits, static_cast<unsigned long long>(v));
      return std::string(text);
    };
    put(0, h.name.substr(0, 100));
    put(100, octal(h.mode, 7));
    put(108, octal(h.uid, 7));
    put(116, octal(h.gid, 7));
    put(124, octal(h.size, 11));
    put(136, octal(1'700'000'000, 11));
    b[156] = static_cast<std::uint8_t>(h.type);
    put(157, h.link.substr(0, 100));
    put(257, h.gnu ? std::string("ustar  \0", 8) : std::string("ustar\00000", 8));
    put(345, h.prefix.substr(0, 155));
    seal(b);
    return b;
  }
  static void seal(Bytes& b) {
    std::memset(b.data() + 148, ' ', 8);
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += b[i];
    char text[8];
    snprintf(text, sizeof text, "%06o", sum);
    std::memcpy(b.data() + 148, text, 7);
  }

 private:
  Bytes bytes_;
};

inline Bytes gzip(ByteView data) {
  z_stream z{};
  EXPECT_EQ(Z_OK, deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY));
  Bytes out(deflateBound(&z, data.size()) + 64);
  z.next_in = const_cast<Bytef*>(data.data());
  z.avail_in = static_cast<uInt>(data.size());
  z.next_out = out.data();
  z.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(Z_STREAM_END, deflate(&z, Z_FINISH));
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

// Without the syncs of write_file_atomic(), which take most of a test's time.
inline void write_plain(const std::string& path, ByteView content) {
  const Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  EXPECT_TRUE(fd.valid() && write_all(fd.get(), content).ok()) << path;
}

class TempDir {
 public:
  TempDir() {
    std::string name = "/var/tmp/gbx-oci-XXXXXX";
    path_ = mkdtemp(name.data()) == nullptr ? std::string() : name;
    EXPECT_FALSE(path_.empty());
  }
  ~TempDir() { EXPECT_TRUE(remove_tree(path_).ok()); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A layout whose JSON can be changed before it is written.
class Layout {
 public:
  explicit Layout(const std::string& path) : path_(path) {
    EXPECT_TRUE(make_dirs(path + "/blobs/sha256", 0755).ok());
  }

  std::string blob(ByteView content) {
    const std::string hex = to_hex(crypto::sha256(content));
    write_plain(path_ + "/blobs/sha256/" + hex, content);
    return "sha256:" + hex;
  }
  static Json descriptor(std::string_view type, const std::string& digest, std::size_t size) {
    Json j;
    j["mediaType"] = type;
    j["digest"] = digest;
    j["size"] = static_cast<std::int64_t>(size);
    return j;
  }
  void layer(ByteView tar, bool zipped = true) {
    const Bytes stored = zipped ? gzip(tar) : to_bytes(tar);
    stored_layer(stored, tar, zipped);
  }
  void stored_layer(ByteView stored, ByteView tar, bool zipped) {
    const char* type = zipped ? "application/vnd.oci.image.layer.v1.tar+gzip"
                              : "application/vnd.oci.image.layer.v1.tar";
    layers.push_back(descriptor(type, blob(stored), stored.size()));
    diff_ids.push_back("sha256:" + to_hex(crypto::sha256(tar)));
  }
  // Writes everything; returns the manifest's digest.
  std::string write() {
    if (config.is_null()) {
      config["architecture"] = "amd64";
      config["os"] = "linux";
      config["config"] = settings;
      config["rootfs"]["type"] = "layers";
      config["rootfs"]["diff_ids"] = diff_ids;
    }
    const std::string config_text = canonical(config);
    if (manifest.is_null()) {
      manifest["schemaVersion"] = 2;
      manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json";
      manifest["config"] = descriptor("application/vnd.oci.image.config.v1+json",
                                      blob(as_bytes(config_text)), config_text.size());
      manifest["layers"] = layers;
    }
    const std::string text = canonical(manifest);
    const std::string digest = blob(as_bytes(text));
    if (index.is_null()) {
      index["schemaVersion"] = 2;
      index["manifests"] =
          JsonArray{descriptor("application/vnd.oci.image.manifest.v1+json", digest, text.size())};
    }
    put("index.json", canonical(index));
    put("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    return digest;
  }
  void put(const std::string& name, const std::string& text) {
    write_plain(path_ + "/" + name, as_bytes(text));
  }
  const std::string& path() const { return path_; }

  Json settings = Json(JsonObject{});
  Json config;
  Json manifest;
  Json index;
  JsonArray layers;
  JsonArray diff_ids;

 private:
  std::string path_;
};

}  // namespace gbx::oci::testing
