#include "oci/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "oci/confine.h"
#include "oci/tar.h"
#include "oci/testing.h"

namespace gbx::oci {
namespace {

using testing::Header;
using testing::Layout;
using testing::Tar;
using testing::TempDir;

std::string bin(const std::string& name) {
  const char* dir = getenv("GBX_BIN_DIR");
  return (dir == nullptr ? program_dir() : std::string(dir)) + "/" + name;
}

// One image, unpacked in this process or in the confined child.
class Oci : public ::testing::Test {
 protected:
  Oci() : layout_(temp_.path() + "/layout"), target_(temp_.path() + "/target") {
    EXPECT_TRUE(make_dirs(target_, 0755).ok());
    if (geteuid() == 0) options_.uid_base = 1'700'000'000;
  }
  Result<UnpackedImage> unpack_layers(const std::vector<Bytes>& tars) {
    for (const Bytes& t : tars) layout_.layer(t);
    return unpack_written(layout_.write());
  }
  Result<UnpackedImage> unpack_written(const std::string& digest) {
    options_.expected_digest = digest;
    auto layout = open_dir(layout_.path());
    auto target = open_dir(target_);
    EXPECT_TRUE(layout.ok() && target.ok());
    return unpack(layout->get(), target->get(), options_);
  }
  Result<UnpackedImage> unpack_child(const std::string& digest, std::int64_t timeout_ms = 60'000) {
    options_.expected_digest = digest;
    auto layout = open_dir(layout_.path());
    auto target = open_dir(target_);
    EXPECT_TRUE(layout.ok() && target.ok());
    return unpack_confined(layout->get(), target->get(), options_,
                           {bin("glovebox-unpack"), timeout_ms});
  }
  std::string text(const std::string& path) {
    auto t = read_text_file(target_ + "/" + path, 1U << 20);
    return t.ok() ? *t : t.error().line();
  }
  struct stat status(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(0, lstat((target_ + "/" + path).c_str(), &st)) << path;
    return st;
  }
  void expect_refused(const Result<UnpackedImage>& r, const std::string& words) {
    ASSERT_FALSE(r.ok()) << "expected: " << words;
    EXPECT_EQ(r.reason(), Reason::kImageRefused) << r.error().line();
    EXPECT_NE(r.error().what.find(words), std::string::npos) << r.error().line();
  }

  TempDir temp_;
  Layout layout_;
  std::string target_;
  UnpackOptions options_;
};

// ---- honest images ----

TEST_F(Oci, InspectsAnImage) {
  layout_.settings["Entrypoint"] = JsonArray{"/bin/a", "-x"};
  layout_.settings["Cmd"] = JsonArray{"b"};
  layout_.settings["Env"] = JsonArray{"PATH=/bin", "EMPTY="};
  layout_.settings["WorkingDir"] = "/work";
  layout_.settings["Vendor"] = "unknown members are no error in OCI documents";
  layout_.layer(Tar().dir("a").finish());
  layout_.layer(Tar().dir("b").finish(), false);
  const std::string digest = layout_.write();
  auto image = inspect(layout_.path());
  ASSERT_TRUE(image.ok()) << image.error().line();
  EXPECT_EQ(image->manifest_digest, digest);
  EXPECT_EQ(image->entrypoint, (std::vector<std::string>{"/bin/a", "-x"}));
  EXPECT_EQ(image->cmd, (std::vector<std::string>{"b"}));
  EXPECT_EQ(image->env, (std::vector<std::string>{"PATH=/bin", "EMPTY="}));
  EXPECT_EQ(image->workdir, "/work");
  ASSERT_EQ(image->layers.size(), 2U);
  EXPECT_TRUE(image->layers[0].gzip);
  EXPECT_FALSE(image->layers[1].gzip);
  EXPECT_EQ(image->layers[1].digest, image->layers[1].diff_id);
}

TEST_F(Oci, UnpacksEveryKindOfEntry) {
  const std::string deep =
      std::string(90, 'd') + "/" + std::string(90, 'e') + "/" + std::string(90, 'f');
  Header owned{.name = "home/file", .size = 3, .mode = 0640, .uid = 33, .gid = 44};
  auto r = unpack_layers({Tar()
                              .dir("./", 0711)
                              .dir("./home/", 01777)
                              .header(owned)
                              .content("abc")
                              .symlink("home/link", "../etc/passwd")
                              .hard_link("home/hard", "./home/file")
                              .pax({{"path", deep}, {"mtime", "1.5"}})
                              .file("short", "deep")
                              .gnu_name('L', "gnu/" + std::string(120, 'g'))
                              .file("short", "gnu")
                              .header({.name = "last", .size = 1, .prefix = "pre/fix"})
                              .content("p")
                              .file("empty", "")
                              .finish()});
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(text("home/file"), "abc");
  EXPECT_EQ(text("home/hard"), "abc");
  EXPECT_EQ(text(deep), "deep");
  EXPECT_EQ(text("gnu/" + std::string(120, 'g')), "gnu");
  EXPECT_EQ(text("pre/fix/last"), "p");
  EXPECT_EQ(text("empty"), "");
  EXPECT_EQ(status("home/hard").st_ino, status("home/file").st_ino);
  EXPECT_EQ(status("home/file").st_mode & 07777U, 0640U);
  EXPECT_EQ(status("home").st_mode & 07777U, 01777U);
  EXPECT_EQ(status("").st_mode & 07777U, 0711U);
  EXPECT_EQ(status("home/file").st_mtim.tv_sec, 1'700'000'000);
  char target[64] = {};
  EXPECT_EQ(13, readlink((target_ + "/home/link").c_str(), target, sizeof target));
  EXPECT_STREQ(target, "../etc/passwd");
  EXPECT_EQ(r->entries, 9U);
  EXPECT_EQ(r->bytes, 11U);
  if (geteuid() == 0) {
    EXPECT_EQ(status("home/file").st_uid, options_.uid_base + 33);
    EXPECT_EQ(status("home/file").st_gid, options_.uid_base + 44);
    EXPECT_EQ(status("home/link").st_uid, options_.uid_base);
    EXPECT_EQ(status("gnu").st_uid, options_.uid_base);  // made on the way
  }
}

TEST_F(Oci, StripsPrivilegesAndSaysSo) {
  auto r = unpack_layers({Tar()
                              .file("su", "x", 04755)
                              .file("sg", "x", 02755)
                              .dir("dir", 06755)
                              .pax({{"SCHILY.xattr.security.capability", "\x01\x02"}})
                              .file("capable", "x", 0755)
                              .finish()});
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(r->stripped_setid, 3U);
  EXPECT_EQ(r->dropped_xattrs, 1U);
  for (const char* name : {"su", "sg", "dir"}) {
    EXPECT_EQ(status(name).st_mode & 07777U, 0755U) << name;
  }
}

TEST_F(Oci, LaterLayersReplaceAndWhiteOut) {
  const Bytes lower = Tar()
                          .dir("a")
                          .file("a/one", "1")
                          .file("a/two", "2")
                          .dir("opaque")
                          .file("opaque/old", "o")
                          .dir("tree")
                          .file("tree/x", "x")
                          .file("becomes-dir", "f")
                          .dir("becomes-file")
                          .file("becomes-file/y", "y")
                          .finish();
  const Bytes upper = Tar()
                          .file("a/.wh.one", "")
                          .file("a/two", "22")
                          // before its marker: belongs to this layer and stays
                          .file("opaque/new", "n")
                          .file("opaque/.wh..wh..opq", "")
                          .file(".wh.tree", "")
                          .file(".wh.never-there", "")
                          .dir("becomes-dir")
                          .file("becomes-dir/z", "z")
                          .file("becomes-file", "now")
                          .finish();
  auto r = unpack_layers({lower, upper});
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_FALSE(path_exists(target_ + "/a/one"));
  EXPECT_EQ(text("a/two"), "22");
  EXPECT_FALSE(path_exists(target_ + "/opaque/old"));
  EXPECT_EQ(text("opaque/new"), "n");
  EXPECT_FALSE(path_exists(target_ + "/tree"));
  EXPECT_EQ(text("becomes-dir/z"), "z");
  EXPECT_EQ(text("becomes-file"), "now");
  EXPECT_FALSE(path_exists(target_ + "/a/.wh.one"));
}

TEST_F(Oci, ReadsGzipMembersOneAfterAnother) {
  const Bytes tar = Tar().file("f", std::string(5000, 'x')).finish();
  const Bytes a = testing::gzip(ByteView(tar).first(700));
  const Bytes b = testing::gzip(ByteView(tar).subspan(700));
  layout_.stored_layer(concat({a, b}), tar, true);
  auto r = unpack_written(layout_.write());
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(text("f"), std::string(5000, 'x'));
}

TEST_F(Oci, RootHashIsTheContentsNotTheTars) {
  auto r = unpack_layers({Tar().file("b", "2").file("a", "1").finish()});
  ASSERT_TRUE(r.ok()) << r.error().line();
  TempDir other;
  auto fd = open_dir(other.path());
  ASSERT_TRUE(fd.ok());
  ASSERT_TRUE(write_file_atomic(other.path() + "/a", as_bytes("1"), 0644).ok());
  ASSERT_TRUE(write_file_atomic(other.path() + "/b", as_bytes("2"), 0644).ok());
  EXPECT_EQ(*hash_tree(fd->get()), r->root_hash);
  // As the header says it, byte by byte.
  ByteWriter w;
  w.raw(as_bytes(std::string_view("gbx/1/rootfs\0", 13)));
  for (const char* name : {"a", "b"}) {
    w.bytes32(as_bytes(name))
        .u8('f')
        .u32(0644)
        .u64(1)
        .raw(crypto::sha256(as_bytes(name[0] == 'a' ? "1" : "2")));
  }
  w.u64(2);
  EXPECT_EQ(crypto::sha256(w.bytes()), r->root_hash);
  ASSERT_EQ(0, chmod((other.path() + "/a").c_str(), 0600));
  EXPECT_NE(*hash_tree(fd->get()), r->root_hash);
  ASSERT_EQ(0, chmod((other.path() + "/a").c_str(), 0644));
  ASSERT_EQ(0, mkfifo((other.path() + "/fifo").c_str(), 0600));
  EXPECT_EQ(hash_tree(fd->get()).reason(), Reason::kImageRefused);
}

// ---- hostile layouts ----

TEST_F(Oci, RefusesTheWrongImage) {
  layout_.layer(Tar().dir("a").finish());
  const std::string digest = layout_.write();
  std::string other = digest;
  other.back() = other.back() == '0' ? '1' : '0';
  EXPECT_EQ(unpack_written(other).reason(), Reason::kImageDigestMismatch);
  EXPECT_FALSE(path_exists(target_ + "/a"));
  EXPECT_TRUE(unpack_written(digest).ok());
  // the target is no longer empty
  EXPECT_EQ(unpack_written(digest).reason(), Reason::kAlreadyExists);
}

TEST_F(Oci, EveryFlippedBlobIsAMismatch) {
  layout_.layer(Tar().file("a", "1").finish());
  layout_.layer(Tar().file("b", "1").finish(), false);
  const std::string digest = layout_.write();
  auto image = inspect(layout_.path());
  ASSERT_TRUE(image.ok());
  for (const std::string& d :
       {digest, image->config_digest, image->layers[0].digest, image->layers[1].digest}) {
    const std::string path = layout_.path() + "/blobs/sha256/" + d.substr(7);
    auto content = read_file(path, 1U << 20);
    ASSERT_TRUE(content.ok());
    for (const std::size_t at : {std::size_t{0}, content->size() / 2, content->size() - 1}) {
      Bytes bad = *content;
      bad[at] ^= 1;
      ASSERT_TRUE(write_file_atomic(path, bad, 0644).ok());
      auto r = unpack_written(digest);
      ASSERT_FALSE(r.ok());
      EXPECT_EQ(r.reason(), Reason::kImageDigestMismatch) << r.error().line();
      ASSERT_TRUE(remove_tree(target_).ok() && make_dirs(target_, 0755).ok());
    }
    Bytes longer = *content;
    longer.push_back(0);
    ASSERT_TRUE(write_file_atomic(path, longer, 0644).ok());
    EXPECT_EQ(unpack_written(digest).reason(), Reason::kImageDigestMismatch);
    Bytes shorter(content->begin(), content->end() - 1);
    ASSERT_TRUE(write_file_atomic(path, shorter, 0644).ok());
    EXPECT_EQ(unpack_written(digest).reason(), Reason::kImageDigestMismatch);
    ASSERT_TRUE(write_file_atomic(path, *content, 0644).ok());
  }
  EXPECT_TRUE(unpack_written(digest).ok());
}

TEST_F(Oci, WrongDiffIdIsAMismatch) {
  layout_.layer(Tar().file("a", "1").finish());
  layout_.diff_ids[0] = "sha256:" + std::string(64, '0');
  EXPECT_EQ(unpack_written(layout_.write()).reason(), Reason::kImageDigestMismatch);
}

struct BadLayout {
  const char* name;
  void (*change)(Layout&);
  const char* words;
};
void set_layers(Layout& l, const char* member, const Json& value) {
  l.manifest["layers"] = l.layers;
  (*l.manifest["layers"].array())[0][member] = value;
}
const BadLayout kBadLayouts[] = {
    {"two-images",
     [](Layout& l) {
       l.index["manifests"] = JsonArray{*l.index.find("manifests")->array()->begin(),
                                        *l.index.find("manifests")->array()->begin()};
     },
     "exactly one image"},
    {"no-images", [](Layout& l) { l.index["manifests"] = JsonArray{}; }, "exactly one image"},
    {"index-in-index",
     [](Layout& l) {
       (*l.index["manifests"].array())[0]["mediaType"] = "application/vnd.oci.image.index.v1+json";
     },
     "does not name an image manifest"},
    {"index-version", [](Layout& l) { l.index["schemaVersion"] = 1; }, "schemaVersion is not 2"},
    {"digest-traversal",
     [](Layout& l) {
       (*l.index["manifests"].array())[0]["digest"] = "sha256:../../../../etc/passwd";
     },
     "malformed"},
    {"digest-upper",
     [](Layout& l) {
       (*l.index["manifests"].array())[0]["digest"] = "sha256:" + std::string(64, 'A');
     },
     "malformed"},
    {"digest-md5", [](Layout& l) { (*l.index["manifests"].array())[0]["digest"] = "md5:00"; },
     "is not sha256"},
    {"blob-missing",
     [](Layout& l) {
       (*l.index["manifests"].array())[0]["digest"] = "sha256:" + std::string(64, 'a');
     },
     "does not exist"},
    {"size-negative", [](Layout& l) { (*l.index["manifests"].array())[0]["size"] = -1; },
     "proper size"},
    {"size-text", [](Layout& l) { (*l.index["manifests"].array())[0]["size"] = "12"; },
     "proper size"},
    {"size-huge", [](Layout& l) { (*l.index["manifests"].array())[0]["size"] = kMaxJsonInteger; },
     "proper size"},
    {"manifest-huge", [](Layout& l) { (*l.index["manifests"].array())[0]["size"] = 2 << 20; },
     "larger than 1 MiB"},
    {"urls", [](Layout& l) { (*l.index["manifests"].array())[0]["urls"] = JsonArray{"http://x"}; },
     "outside the layout"},
};
TEST_F(Oci, BadIndexesAreRefused) {
  for (const BadLayout& bad : kBadLayouts) {
    TempDir temp;
    Layout l(temp.path() + "/l");
    l.layer(Tar().dir("a").finish());
    l.write();
    bad.change(l);
    l.put("index.json", canonical(l.index));
    auto r = inspect(l.path());
    ASSERT_FALSE(r.ok()) << bad.name;
    EXPECT_EQ(r.reason(), Reason::kImageRefused) << bad.name << " " << r.error().line();
    EXPECT_NE(r.error().line().find(bad.words), std::string::npos)
        << bad.name << " " << r.error().line();
  }
}
const BadLayout kBadManifests[] = {
    {"version", [](Layout& l) { l.manifest["schemaVersion"] = 1; }, "schemaVersion is not 2"},
    {"type", [](Layout& l) { l.manifest["mediaType"] = "application/json"; },
     "not an image manifest"},
    {"no-config", [](Layout& l) { l.manifest.object()->erase("config"); }, "lacks config"},
    {"config-type", [](Layout& l) { l.manifest["config"]["mediaType"] = "application/x"; },
     "config is of type"},
    {"no-layers", [](Layout& l) { l.manifest["layers"] = JsonArray{}; }, "number of layers"},
    {"many-layers", [](Layout& l) { l.manifest["layers"] = JsonArray(129, l.layers[0]); },
     "number of layers"},
    {"layer-zstd",
     [](Layout& l) { set_layers(l, "mediaType", "application/vnd.oci.image.layer.v1.tar+zstd"); },
     "layer is of type"},
    {"layer-foreign",
     [](Layout& l) {
       set_layers(l, "mediaType", "application/vnd.oci.image.layer.nondistributable.v1.tar");
     },
     "layer is of type"},
    {"layer-data", [](Layout& l) { set_layers(l, "data", "eA=="); }, "outside the layout"},
    {"layer-twice", [](Layout& l) { l.manifest["layers"] = JsonArray(2, l.layers[0]); },
     "one diff id for each layer"},
    {"artifact", [](Layout& l) { l.manifest["artifactType"] = "x"; }, "artifact"},
};
TEST_F(Oci, BadManifestsAreRefused) {
  for (const BadLayout& bad : kBadManifests) {
    TempDir temp;
    Layout l(temp.path() + "/l");
    l.layer(Tar().dir("a").finish());
    l.write();
    bad.change(l);
    l.index = Json();
    l.write();
    auto r = inspect(l.path());
    ASSERT_FALSE(r.ok()) << bad.name;
    EXPECT_EQ(r.reason(), Reason::kImageRefused) << bad.name << " " << r.error().line();
    EXPECT_NE(r.error().line().find(bad.words), std::string::npos)
        << bad.name << " " << r.error().line();
  }
}
const BadLayout kBadConfigs[] = {
    {"os", [](Layout& l) { l.config["os"] = "windows"; }, "config: os"},
    {"no-rootfs", [](Layout& l) { l.config.object()->erase("rootfs"); }, "lacks rootfs"},
    {"rootfs-type", [](Layout& l) { l.config["rootfs"]["type"] = "x"; }, "rootfs type"},
    {"diff-id", [](Layout& l) { l.config["rootfs"]["diff_ids"] = JsonArray{"x"}; },
     "is not sha256"},
    {"entrypoint", [](Layout& l) { l.config["config"]["Entrypoint"] = "sh -c"; },
     "not a short list"},
    {"cmd", [](Layout& l) { l.config["config"]["Cmd"] = JsonArray{1}; }, "no proper string"},
    {"cmd-nul", [](Layout& l) { l.config["config"]["Cmd"] = JsonArray{std::string("a\0b", 3)}; },
     "no proper string"},
    {"env", [](Layout& l) { l.config["config"]["Env"] = JsonArray{"NOVALUE"}; }, "Env holds"},
    {"workdir", [](Layout& l) { l.config["config"]["WorkingDir"] = "relative"; }, "not absolute"},
    {"config-list", [](Layout& l) { l.config["config"] = JsonArray{}; }, "not an object"},
};
TEST_F(Oci, BadConfigsAreRefused) {
  for (const BadLayout& bad : kBadConfigs) {
    TempDir temp;
    Layout l(temp.path() + "/l");
    l.layer(Tar().dir("a").finish());
    l.write();
    bad.change(l);
    l.manifest = Json();
    l.index = Json();
    l.write();
    auto r = inspect(l.path());
    ASSERT_FALSE(r.ok()) << bad.name;
    EXPECT_EQ(r.reason(), Reason::kImageRefused) << bad.name << " " << r.error().line();
    EXPECT_NE(r.error().line().find(bad.words), std::string::npos)
        << bad.name << " " << r.error().line();
  }
}

TEST_F(Oci, DamagedJsonAndStrangeFilesAreRefused) {
  layout_.layer(Tar().dir("a").finish());
  layout_.write();
  for (const char* text : {"", "{", "[]", "{\"a\":1,\"a\":2}", "{\"schemaVersion\":2.5}", "null"}) {
    layout_.put("index.json", text);
    EXPECT_EQ(inspect(layout_.path()).reason(), Reason::kImageRefused) << text;
  }
  layout_.put("oci-layout", "{\"imageLayoutVersion\":\"2.0.0\"}");
  EXPECT_EQ(inspect(layout_.path()).reason(), Reason::kImageRefused);
  ASSERT_EQ(0, unlink((layout_.path() + "/oci-layout").c_str()));
  EXPECT_EQ(inspect(layout_.path()).reason(), Reason::kImageRefused);
  ASSERT_EQ(0, symlink("/etc/passwd", (layout_.path() + "/oci-layout").c_str()));
  EXPECT_EQ(inspect(layout_.path()).reason(), Reason::kImageRefused);
  ASSERT_EQ(0, unlink((layout_.path() + "/oci-layout").c_str()));
  ASSERT_EQ(0, mkfifo((layout_.path() + "/oci-layout").c_str(), 0600));
  EXPECT_EQ(inspect(layout_.path()).reason(), Reason::kImageRefused);
}

// A blob that is a link out of the layout, or a fifo that would hang a reader.
TEST_F(Oci, BlobsAreFilesOfTheLayout) {
  const Bytes tar = Tar().dir("a").finish();
  layout_.layer(tar, false);
  const std::string digest = layout_.write();
  const std::string path =
      layout_.path() + "/blobs/sha256/" + layout_.layers[0].find("digest")->string()->substr(7);
  const std::string outside = temp_.path() + "/outside";
  ASSERT_EQ(0, rename(path.c_str(), outside.c_str()));
  ASSERT_EQ(0, symlink(outside.c_str(), path.c_str()));
  EXPECT_EQ(unpack_written(digest).reason(), Reason::kImageRefused);
  ASSERT_EQ(0, unlink(path.c_str()));
  ASSERT_EQ(0, mkfifo(path.c_str(), 0600));
  EXPECT_EQ(unpack_written(digest).reason(), Reason::kImageRefused);
}

// ---- hostile tars ----

Bytes with_byte(Bytes tar, std::size_t at, char value, bool reseal = true) {
  tar[at] = static_cast<std::uint8_t>(value);
  if (reseal) {
    Bytes header(tar.begin(), tar.begin() + 512);
    Tar::seal(header);
    std::copy(header.begin(), header.end(), tar.begin());
  }
  return tar;
}
Bytes cut(Bytes tar, std::size_t n) {
  tar.resize(tar.size() - n);
  return tar;
}
Bytes grown(Bytes tar, const std::string& text) {
  append(tar, as_bytes(text));
  return tar;
}
std::string nested(int depth) {
  std::string path = "d";
  for (int i = 1; i < depth; ++i) path += "/d";
  return path;
}

struct BadTar {
  const char* name;
  Bytes tar;
  const char* words;
};
std::vector<BadTar> bad_tars() {
  const Bytes fine = Tar().file("f", "x").finish();
  return {
      {"absolute", Tar().file("/etc/passwd", "x").finish(), "absolute path /etc/passwd"},
      {"absolute-pax", Tar().pax({{"path", "/etc/passwd"}}).file("f", "x").finish(),
       "absolute path /etc/passwd"},
      {"absolute-gnu", Tar().gnu_name('L', "/etc/passwd").file("f", "x").finish(),
       "absolute path /etc/passwd"},
      {"absolute-prefix", Tar().header({.name = "passwd", .prefix = "/etc"}).finish(),
       "absolute path /etc/passwd"},
      {"dotdot", Tar().file("../f", "x").finish(), "\"..\" in path"},
      {"dotdot-middle", Tar().file("a/../../f", "x").finish(), "\"..\" in path"},
      {"dotdot-dot", Tar().file("./../f", "x").finish(), "\"..\" in path"},
      {"dotdot-end", Tar().dir("a/..").finish(), "\"..\" in path"},
      {"dotdot-pax", Tar().pax({{"path", "a/../b"}}).file("f", "x").finish(), "\"..\" in path"},
      {"dot-middle", Tar().file("a/./f", "x").finish(), "\".\" in path"},
      {"double-slash", Tar().file("a//f", "x").finish(), "empty path component"},
      {"empty-name", Tar().file("", "x").finish(), "empty path"},
      {"nul-pax", Tar().pax({{"path", std::string("a\0b", 3)}}).file("f", "x").finish(),
       "NUL in a path"},
      {"file-slash", Tar().header({.name = "f/"}).finish(), "ends in \"/\""},
      {"root-file", Tar().file("./", "x").finish(), "ends in \"/\""},
      {"root-is-file", Tar().file(".", "x").finish(), "root is not a directory"},
      {"long-name", Tar().pax({{"path", std::string(256, 'n')}}).file("f", "x").finish(),
       "longer than 255"},
      {"long-path", Tar().pax({{"path", nested(2100)}}).file("f", "x").finish(),
       "longer than 4095"},
      {"deep", Tar().pax({{"path", nested(101)}}).file("f", "x").finish(), "deeper than 100"},
      {"through-symlink", Tar().symlink("a", "/etc").file("a/passwd", "x").finish(),
       "leads through a symbolic link"},
      {"through-symlink-up", Tar().symlink("a", "..").file("a/passwd", "x").finish(),
       "leads through a symbolic link"},
      {"through-symlink-inside", Tar().dir("real").symlink("a", "real").file("a/f", "x").finish(),
       "leads through a symbolic link"},
      {"through-symlink-chain", Tar().symlink("a", "b").symlink("b", "/").dir("a/etc/x").finish(),
       "leads through a symbolic link"},
      {"symlink-dir-entry", Tar().symlink("a", "/etc").dir("a").finish(),
       "two entries of one layer"},
      {"through-file", Tar().file("a", "x").file("a/b", "y").finish(), "leads through a file"},
      {"hardlink-absolute", Tar().hard_link("h", "/etc/passwd").finish(),
       "absolute path /etc/passwd"},
      {"hardlink-dotdot", Tar().hard_link("h", "../../etc/passwd").finish(), "\"..\" in path"},
      {"hardlink-absent", Tar().hard_link("h", "absent").finish(), "not in the image"},
      {"hardlink-absent-dir", Tar().hard_link("h", "no/absent").finish(), "not in the image"},
      {"hardlink-symlink", Tar().symlink("s", "/etc/shadow").hard_link("h", "s").finish(),
       "not a file"},
      {"hardlink-through-symlink", Tar().symlink("s", "/etc").hard_link("h", "s/passwd").finish(),
       "leads through a symbolic link"},
      {"hardlink-dir", Tar().dir("d").hard_link("h", "d").finish(), "not a file"},
      {"hardlink-self", Tar().file("f", "x").hard_link("f", "f").finish(), "hard link to itself"},
      {"hardlink-content",
       Tar()
           .file("f", "x")
           .header({.name = "h", .type = '1', .size = 4, .link = "f"})
           .content("abcd")
           .finish(),
       "content where there can be none"},
      {"symlink-empty", Tar().symlink("s", "").finish(), "no proper target"},
      {"character-device", Tar().special("dev/null", '3').finish(), "a character device"},
      {"block-device", Tar().special("dev/vda", '4').finish(), "a block device"},
      {"fifo", Tar().special("fifo", '6').finish(), "a fifo"},
      {"socket", Tar().special("socket", 's').finish(), "unknown type 's'"},
      {"contiguous", Tar().special("c", '7').finish(), "unknown type '7'"},
      {"sparse", Tar().special("s", 'S').finish(), "a sparse file"},
      {"global-pax", Tar().pax_raw(Tar::record("path", "x"), 'g').file("f", "x").finish(),
       "a global pax header"},
      {"duplicate-file", Tar().file("f", "1").file("f", "2").finish(), "two entries of one layer"},
      {"duplicate-dot", Tar().file("f", "1").file("./f", "2").finish(), "two entries of one layer"},
      {"duplicate-type", Tar().dir("f").file("f", "2").finish(), "two entries of one layer"},
      {"file-over-implied-dir", Tar().file("d/f", "1").file("d", "2").finish(),
       "two entries of one layer"},
      {"whiteout-dotdot", Tar().file("a/.wh...", "").finish(), "a whiteout of a reserved name"},
      {"whiteout-dot", Tar().dir("a").file("a/.wh..", "").finish(),
       "a whiteout of a reserved name"},
      {"whiteout-empty-name", Tar().file(".wh.", "").finish(), "a whiteout of a reserved name"},
      {"whiteout-aufs", Tar().file(".wh..wh.plnk", "").finish(), "a whiteout of a reserved name"},
      {"whiteout-content", Tar().file(".wh.f", "x").finish(), "not an empty file"},
      {"whiteout-dir", Tar().dir(".wh.f").finish(), "not an empty file"},
      {"whiteout-through-symlink", Tar().symlink("a", "/").file("a/.wh.etc", "").finish(),
       "leads through a symbolic link"},
      {"whiteout-parent", Tar().file("a/.wh.b/c", "x").finish(),
       "a directory with a whiteout's name"},
      {"checksum", with_byte(fine, 0, 'g', false), "bad header checksum"},
      {"not-ustar", with_byte(fine, 257, 'X'), "neither ustar nor GNU"},
      {"old-v7", with_byte(fine, 257, '\0'), "neither ustar nor GNU"},
      {"base-256-size", with_byte(fine, 124, static_cast<char>(0x80)), "base-256"},
      {"base-256-uid", with_byte(fine, 108, static_cast<char>(0xFF)), "base-256"},
      {"size-text", with_byte(fine, 124, 'z'), "not an octal number"},
      {"mode-sign", with_byte(fine, 100, '-'), "not an octal number"},
      {"size-beyond", with_byte(fine, 130, '7'), "truncated"},
      {"owner", Tar().header({.name = "f", .uid = 65536}).finish(), "owner above 65535"},
      {"pax-size-huge", Tar().pax({{"size", "99999999999999999"}}).file("f", "x").finish(),
       "larger than 1 TiB"},
      {"pax-size-text", Tar().pax({{"size", "-1"}}).file("f", "x").finish(), "not a number"},
      {"pax-size-zeros", Tar().pax({{"size", "01"}}).file("f", "x").finish(), "not a number"},
      {"pax-unknown", Tar().pax({{"GNU.sparse.name", "x"}}).file("f", "x").finish(),
       "is not known"},
      {"pax-charset", Tar().pax({{"hdrcharset", "BINARY"}}).file("f", "x").finish(),
       "is not known"},
      {"pax-twice", Tar().pax({{"path", "a"}, {"path", "b"}}).file("f", "x").finish(),
       "appears twice"},
      {"pax-two-headers", Tar().pax({{"path", "a"}}).pax({{"path", "b"}}).file("f", "x").finish(),
       "two names for one entry"},
      {"pax-and-gnu", Tar().pax({{"path", "a"}}).gnu_name('L', "b").file("f", "x").finish(),
       "two names for one entry"},
      {"gnu-twice-link", Tar().gnu_name('K', "a").gnu_name('K', "b").symlink("f", "x").finish(),
       "two link names"},
      {"pax-length-long", Tar().pax_raw("99 path=a\n").file("f", "x").finish(), "wrong length"},
      {"pax-length-short", Tar().pax_raw("3 path=a\n").file("f", "x").finish(), "wrong length"},
      {"pax-length-text", Tar().pax_raw("path=a\n").file("f", "x").finish(), "without a length"},
      {"pax-length-zero", Tar().pax_raw("010 path=a\n").file("f", "x").finish(), "not a number"},
      {"pax-no-newline", Tar().pax_raw("9 path=ab").file("f", "x").finish(),
       "malformed pax record"},
      {"pax-no-equals", Tar().pax_raw("9 pathab\n").file("f", "x").finish(),
       "malformed pax record"},
      {"pax-empty", Tar().pax_raw("").file("f", "x").finish(), "strange size"},
      {"pax-huge", Tar().header({.name = "pax", .type = 'x', .size = 1 << 20}).finish(),
       "strange size"},
      {"pax-last", Tar().pax({{"path", "a"}}).finish(), "extended header without an entry"},
      {"pax-many",
       Tar()
           .pax({{"mtime", "1"}})
           .pax({{"mtime", "1"}})
           .pax({{"mtime", "1"}})
           .pax({{"mtime", "1"}})
           .pax({{"mtime", "1"}})
           .file("f", "x")
           .finish(),
       "too many extended headers"},
      {"truncated-header", cut(fine, 1024 + 512 + 100), "truncated"},
      {"truncated-content", cut(Tar().file("f", std::string(2000, 'x')).finish(), 1024 + 600),
       "truncated in the middle of a file"},
      {"truncated-padding", cut(fine, 1024 + 5), "truncated after a file"},
      {"no-end", cut(fine, 1024), "truncated: no end mark"},
      {"half-end", cut(fine, 512), "the end mark is truncated"},
      {"empty", {}, "truncated: no end mark"},
      {"garbage", grown(fine, std::string(512, 'g')), "garbage after the end"},
      {"garbage-short", grown(fine, "g"), "truncated in the middle of a block"},
      {"second-archive", concat({fine, fine}), "garbage after the end"},
      {"zero-block-inside", concat({Bytes(512), fine}), "zero block inside"},
      {"padding-not-zero", with_byte(fine, 512 + 100, 'x', false),
       "padding after a file is not zero"},
      {"padding-too-long", grown(fine, std::string(5U << 20, '\0')), "too much padding"},
  };
}

TEST_F(Oci, HostileTarsAreRefused) {
  const std::vector<BadTar> corpus = bad_tars();
  EXPECT_GT(corpus.size(), 90U);
  for (const BadTar& bad : corpus) {
    SCOPED_TRACE(bad.name);
    TempDir temp;
    Layout l(temp.path() + "/layout");
    ASSERT_TRUE(make_dirs(temp.path() + "/target", 0755).ok());
    l.layer(bad.tar);
    options_.expected_digest = l.write();
    auto layout = open_dir(l.path());
    auto target = open_dir(temp.path() + "/target");
    ASSERT_TRUE(layout.ok() && target.ok());
    expect_refused(unpack(layout->get(), target->get(), options_), bad.words);
  }
}

// The attacks that need something in a lower layer.
TEST_F(Oci, LinksOfLowerLayersAreNotFollowed) {
  const Bytes link = Tar().symlink("a", "/var/tmp").finish();
  for (const auto& [second, words] :
       {std::pair<Bytes, const char*>{Tar().file("a/f", "x").finish(),
                                      "leads through a symbolic link"},
        {Tar().file("a/.wh.f", "").finish(), "leads through a symbolic link"},
        {Tar().hard_link("h", "a/f").finish(), "leads through a symbolic link"}}) {
    TempDir temp;
    Layout l(temp.path() + "/layout");
    ASSERT_TRUE(make_dirs(temp.path() + "/target", 0755).ok());
    l.layer(link);
    l.layer(second);
    options_.expected_digest = l.write();
    auto layout = open_dir(l.path());
    auto target = open_dir(temp.path() + "/target");
    ASSERT_TRUE(layout.ok() && target.ok());
    expect_refused(unpack(layout->get(), target->get(), options_), words);
  }
}

TEST_F(Oci, AFileReplacesALinkAndNotItsTarget) {
  const std::string victim = temp_.path() + "/victim";
  ASSERT_TRUE(write_file_atomic(victim, as_bytes("mine"), 0600).ok());
  auto r = unpack_layers(
      {Tar().symlink("a", victim).finish(), Tar().file("a", "theirs", 0666).finish()});
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(text("a"), "theirs");
  EXPECT_EQ(*read_text_file(victim, 100), "mine");
  struct stat st {};
  ASSERT_EQ(0, stat(victim.c_str(), &st));
  EXPECT_EQ(st.st_mode & 0777U, 0600U);
}

TEST_F(Oci, LimitsHold) {
  const Bytes three = Tar().dir("a").dir("b").dir("c").finish();
  options_.limits.max_entries = 2;
  expect_refused(unpack_layers({three}), "more than 2 entries");
  options_.limits.max_entries = 3;
  ASSERT_TRUE(remove_tree(target_).ok() && make_dirs(target_, 0755).ok());
  EXPECT_TRUE(unpack_written(layout_.write()).ok());
  TempDir temp;
  Layout bomb(temp.path() + "/layout");
  bomb.layer(Tar().file("zeros", std::string(8U << 20, '\0')).finish());
  const std::string digest = bomb.write();
  options_ = {};
  options_.limits.max_bytes = 4U << 20;
  options_.expected_digest = digest;
  const auto attempt = [&] {
    EXPECT_TRUE(remove_tree(target_).ok() && make_dirs(target_, 0755).ok());
    auto layout = open_dir(bomb.path());
    auto target = open_dir(target_);
    return unpack(layout->get(), target->get(), options_);
  };
  expect_refused(attempt(), "too many bytes");
  options_.limits.max_bytes = 1U << 30;
  options_.limits.ratio_floor = 1U << 20;
  expect_refused(attempt(), "expands too much");
  options_.limits.ratio_floor = 16U << 20;
  EXPECT_TRUE(attempt().ok());
  options_.limits.max_layers = 0;
  expect_refused(attempt(), "too many layers");
}

TEST_F(Oci, DamagedGzipIsRefused) {
  const Bytes tar = Tar().file("f", "hello").finish();
  const Bytes good = testing::gzip(tar);
  const struct {
    Bytes stored;
    const char* words;
  } cases[] = {
      {cut(good, 4), "truncated"},
      {grown(good, "junk"), "damaged or followed by garbage"},
      {to_bytes(as_bytes("not gzip at all")), "damaged"},
      {{}, "empty"},
      {tar, "damaged"},
  };
  for (const auto& c : cases) {
    TempDir temp;
    Layout l(temp.path() + "/layout");
    ASSERT_TRUE(make_dirs(temp.path() + "/target", 0755).ok());
    l.stored_layer(c.stored, tar, true);
    options_.expected_digest = l.write();
    auto layout = open_dir(l.path());
    auto target = open_dir(temp.path() + "/target");
    expect_refused(unpack(layout->get(), target->get(), options_), c.words);
  }
}

// Every entry and its content; the number of entries.
Result<std::uint64_t> scan_tar(ByteView bytes) {
  MemorySource source(bytes);
  TarReader reader(source, TarLimits{});
  Bytes buffer(4096);
  for (;;) {
    GBX_ASSIGN(const std::optional<TarEntry> entry, reader.next());
    if (!entry) return reader.entries();
    for (;;) {
      GBX_ASSIGN(const std::size_t n, reader.read(buffer));
      if (n == 0) break;
    }
  }
}

// Every single-byte change of a small tar is refused or gives a tree; it never crashes or leaves
// the target.
TEST(Tar, EverySingleByteChangeIsHandled) {
  const Bytes tar = Tar().dir("d").pax({{"path", "d/x"}}).file("f", "x").symlink("s", "t").finish();
  std::size_t refused = 0;
  for (std::size_t at = 0; at < tar.size(); ++at) {
    for (const std::uint8_t flip : {std::uint8_t{0x01}, std::uint8_t{0x80}, std::uint8_t{0xFF}}) {
      Bytes bad = tar;
      bad[at] ^= flip;
      if (!scan_tar(bad).ok()) ++refused;
    }
  }
  // All but the changes of file content and pax values, which only a hash can see.
  EXPECT_GT(refused, tar.size() * 3 - 40);
  for (std::size_t n = 0; n < tar.size(); ++n) {
    EXPECT_FALSE(scan_tar(ByteView(tar).first(n)).ok()) << n;
  }
  EXPECT_EQ(*scan_tar(tar), 3U);
}

// ---- the confined child ----

TEST_F(Oci, ConfinedGivesTheSameImage) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  layout_.layer(Tar()
                    .dir("locked", 0500)
                    .file("locked/a", std::string(300'000, 'a'), 0400)
                    .hard_link("b", "locked/a")
                    .symlink("c", "a")
                    .finish());
  layout_.layer(Tar().file("locked/.wh.a", "").file("locked/d", "d").finish());
  const std::string digest = layout_.write();
  auto here = unpack_written(digest);
  ASSERT_TRUE(here.ok()) << here.error().line();
  ASSERT_TRUE(remove_tree(target_).ok() && make_dirs(target_, 0755).ok());
  auto there = unpack_child(digest);
  ASSERT_TRUE(there.ok()) << there.error().line();
  EXPECT_EQ(there->root_hash, here->root_hash);
  EXPECT_EQ(there->entries, here->entries);
  EXPECT_EQ(there->bytes, 300'001U);
  EXPECT_EQ(there->image.manifest_digest, digest);
  EXPECT_EQ(status("b").st_uid, options_.uid_base);
  EXPECT_FALSE(path_exists(target_ + "/locked/a"));
}

TEST_F(Oci, ConfinedReportsRefusals) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  layout_.layer(Tar().symlink("a", "/etc").file("a/passwd", "x").finish());
  const std::string digest = layout_.write();
  expect_refused(unpack_child(digest), "leads through a symbolic link");
  ASSERT_TRUE(remove_tree(target_).ok() && make_dirs(target_, 0755).ok());
  EXPECT_EQ(unpack_child("sha256:" + std::string(64, '0')).reason(), Reason::kImageDigestMismatch);
}

TEST_F(Oci, ConfinedReadsAReadOnlyLayout) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  layout_.layer(Tar().file("a", "1").finish());
  const std::string digest = layout_.write();
  ASSERT_EQ(0, system(("chmod -R a-w " + layout_.path()).c_str()));
  auto r = unpack_child(digest);
  EXPECT_TRUE(r.ok()) << r.error().line();
}

TEST_F(Oci, ConfinedEndsInTime) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  layout_.layer(Tar().file("a", "1").finish());
  EXPECT_EQ(unpack_child(layout_.write(), 0).reason(), Reason::kTimedOut);
}

// A signal that only others send says nothing about the image; every other one does.
TEST_F(Oci, AKilledUnpackerIsNoHostileImage) {
  layout_.layer(Tar().file("a", "1").finish());
  const std::string digest = layout_.write();
  const auto dies_of = [&](const std::string& signal) {
    const std::string program = layout_.path() + "/dies.sh";
    const std::string text = "#!/bin/sh\nulimit -c 0\nkill -" + signal + " $$\n";
    EXPECT_TRUE(write_file_atomic(program, as_bytes(text), 0755).ok());
    auto layout = open_dir(layout_.path());
    auto target = open_dir(target_);
    options_.expected_digest = digest;
    auto r = unpack_confined(layout->get(), target->get(), options_, {program, 60'000});
    EXPECT_FALSE(r.ok()) << signal;
    return r.reason();
  };
  for (const char* outside : {"KILL", "TERM", "HUP", "INT", "QUIT"}) {
    EXPECT_EQ(dies_of(outside), Reason::kSandboxSetup) << outside;
  }
  for (const char* of_it : {"SEGV", "SYS", "XCPU", "XFSZ", "ABRT", "BUS", "FPE", "ILL"}) {
    EXPECT_EQ(dies_of(of_it), Reason::kImageRefused) << of_it;
  }
}

TEST_F(Oci, ReportsOfTheChildAreNotTrusted) {
  for (const char* text : {"", "{}", "[]", "{\"reason\":\"nonsense\"}", "not json"}) {
    EXPECT_EQ(result_from_json(text).reason(), Reason::kImageRefused) << text;
  }
  UnpackedImage image;
  image.entries = 5;
  auto back = result_from_json(result_to_json(image));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->entries, 5U);
  const Result<UnpackedImage> failed = fail(Reason::kImageDigestMismatch, "a\x1b[2Jb");
  auto error = result_from_json(result_to_json(failed));
  EXPECT_EQ(error.reason(), Reason::kImageDigestMismatch);
  EXPECT_EQ(error.error().what.find('\x1b'), std::string::npos);
}

// Runs `act` in a child that is confined as glovebox-unpack is; its exit code, or minus the signal
// that ended it.
class Confine : public Oci {
 protected:
  int attempt(int (*act)(int layout, int target)) {
    auto layout = open_dir(layout_.path());
    auto target = open_dir(target_);
    EXPECT_TRUE(layout.ok() && target.ok());
    const pid_t pid = fork();
    if (pid == 0) {
      auto c = confine({layout->get(), target->get(), 1U << 20});
      if (!c.ok()) _exit(200);
      syscall(SYS_exit_group, act(layout->get(), target->get()));
    }
    int status = 0;
    EXPECT_EQ(pid, waitpid(pid, &status, 0));
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    ASSERT_TRUE(write_file_atomic(layout_.path() + "/file", as_bytes("x"), 0600).ok());
  }
};
int tried(long result) { return result >= 0 ? 0 : errno; }

TEST_F(Confine, SeesOnlyItsTwoDirectories) {
  // Controls: what it needs works.
  EXPECT_EQ(0, attempt([](int l, int) { return tried(openat(l, "file", O_RDONLY)); }));
  EXPECT_EQ(0,
            attempt([](int, int t) { return tried(openat(t, "new", O_CREAT | O_WRONLY, 0600)); }));
  EXPECT_EQ(0, attempt([](int, int t) {
              return tried(fchownat(t, "new", 1'700'000'000, 1'700'000'000, 0));
            }));
  EXPECT_EQ(0, attempt([](int, int t) { return tried(symlinkat("/etc", t, "link")); }));
  EXPECT_EQ(0, attempt([](int, int t) { return tried(mkdirat(t, "dir", 0700)); }));
  EXPECT_EQ(0, attempt([](int, int t) { return tried(linkat(t, "new", t, "dir/hard", 0)); }));
  // And nothing else.
  EXPECT_EQ(EACCES,
            attempt([](int, int) { return tried(openat(AT_FDCWD, "/etc/passwd", O_RDONLY)); }));
  EXPECT_EQ(EACCES, attempt([](int, int) {
              return tried(openat(AT_FDCWD, "/var/tmp/gbx-oci-escape", O_CREAT | O_WRONLY, 0600));
            }));
  EXPECT_EQ(EACCES, attempt([](int, int t) { return tried(openat(t, "link/passwd", O_RDONLY)); }));
  EXPECT_EQ(EACCES, attempt([](int l, int) { return tried(openat(l, "file", O_WRONLY)); }));
  EXPECT_EQ(EACCES, attempt([](int l, int) { return tried(unlinkat(l, "file", 0)); }));
  EXPECT_NE(0, attempt([](int, int t) { return tried(openat(t, "../layout/file", O_WRONLY)); }));
}

TEST_F(Confine, OtherSystemCallsKill) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the filter is not loaded under sanitizers";
#endif
  EXPECT_EQ(-SIGSYS, attempt([](int, int) { return tried(socket(AF_UNIX, SOCK_STREAM, 0)); }));
  EXPECT_EQ(-SIGSYS, attempt([](int, int) {
    return tried(syscall(SYS_execve, "/bin/true", nullptr, nullptr));
  }));
  EXPECT_EQ(-SIGSYS, attempt([](int, int) { return tried(syscall(SYS_fork)); }));
  EXPECT_EQ(-SIGSYS, attempt([](int, int) { return tried(syscall(SYS_ptrace, 0, 0, 0, 0)); }));
  EXPECT_EQ(-SIGSYS,
            attempt([](int, int t) { return tried(syscall(SYS_mknodat, t, "n", S_IFCHR, 0)); }));
  EXPECT_EQ(-SIGSYS, attempt([](int, int) { return tried(syscall(SYS_setuid, 0)); }));
  EXPECT_EQ(-SIGSYS, attempt([](int, int) { return tried(syscall(SYS_kill, 1, 0)); }));
}

// By a signal that nobody outside would choose, so that it is known from a kill.
TEST_F(Confine, ItsLimitOfCpuTimeNamesItself) {
  auto layout = open_dir(layout_.path());
  auto target = open_dir(target_);
  const pid_t pid = fork();
  if (pid == 0) {
    if (!confine({layout->get(), target->get(), 1U << 20, 1}).ok()) _exit(200);
    volatile bool on = true;
    while (on) continue;
  }
  int status = 0;
  ASSERT_EQ(pid, waitpid(pid, &status, 0));
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGXCPU);
}

TEST_F(Confine, HoldsThreeCapabilitiesAndLimits) {
  // Looked at from outside, for it cannot read /proc itself.
  int ready[2], go[2];
  ASSERT_EQ(0, pipe(ready));
  ASSERT_EQ(0, pipe(go));
  auto layout = open_dir(layout_.path());
  auto target = open_dir(target_);
  const pid_t pid = fork();
  if (pid == 0) {
    const bool confined = confine({layout->get(), target->get(), 1U << 20}).ok();
    (void)!write(ready[1], confined ? "y" : "n", 1);
    char c = 0;
    (void)!read(go[0], &c, 1);
    syscall(SYS_exit_group, 0);
  }
  char answer = 0;
  ASSERT_EQ(1, read(ready[0], &answer, 1));
  EXPECT_EQ(answer, 'y');
  auto text = read_text_file("/proc/" + std::to_string(pid) + "/status", 1U << 16);
  ASSERT_TRUE(text.ok());
  const unsigned long long expected =
      (1ULL << CAP_CHOWN) | (1ULL << CAP_FOWNER) | (1ULL << CAP_DAC_OVERRIDE);
  char hex[32];
  snprintf(hex, sizeof hex, "%016llx", expected);
  EXPECT_NE(text->find("CapEff:\t" + std::string(hex)), std::string::npos) << *text;
  EXPECT_NE(text->find("CapPrm:\t" + std::string(hex)), std::string::npos);
  EXPECT_NE(text->find("CapBnd:\t0000000000000000"), std::string::npos);
  EXPECT_NE(text->find("NoNewPrivs:\t1"), std::string::npos);
  struct stat ours {
  }, theirs{};
  ASSERT_EQ(0, stat("/proc/self/ns/net", &ours));
  ASSERT_EQ(0, stat(("/proc/" + std::to_string(pid) + "/ns/net").c_str(), &theirs));
  EXPECT_NE(ours.st_ino, theirs.st_ino);
  (void)!write(go[1], "g", 1);
  EXPECT_EQ(pid, waitpid(pid, nullptr, 0));
  for (const int fd : {ready[0], ready[1], go[0], go[1]}) close(fd);
}

}  // namespace
}  // namespace gbx::oci
