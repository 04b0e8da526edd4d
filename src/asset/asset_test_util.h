// For the tests of this folder and of decryptfs: source trees on disk, and what a reader makes of
// an asset.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <string>

#include "asset/publish.h"
#include "asset/reader.h"
#include "base/os.h"
#include "storage/memory_store.h"

namespace gbx::asset::testing {

struct TempDir {
  std::string path;
  TempDir() {
    // In memory where that is possible: the publication journal syncs often.
    path = std::string(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp") + "/gbx-asset-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) abort();
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() { (void)remove_tree(path); }
};

inline std::string pattern(std::size_t size, std::uint64_t seed) {
  std::string out(size, '\0');
  std::uint64_t x = seed * 0x9e3779b97f4a7c15U + 1;
  for (char& c : out) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    c = static_cast<char>(x);
  }
  return out;
}

// Path to content; a path that ends in '/' is a directory.
using Tree = std::map<std::string, std::string>;

inline void write_tree(const std::string& root, const Tree& tree) {
  (void)remove_tree(root);
  (void)make_dirs(root, 0755);
  for (const auto& [path, content] : tree) {
    const std::string full = root + "/" + path;
    (void)make_dirs(full.substr(0, full.rfind('/')), 0755);
    if (path.back() == '/') continue;
    Fd fd(open(full.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644));
    (void)write_all(fd.get(), as_bytes(content));
    const timespec times[2] = {{1'600'000'000, 5}, {1'600'000'000, 5}};
    futimens(fd.get(), times);
  }
}

// Everything that the reader shows, or its first error. Every directory appears, also those that
// hold something.
inline Result<Tree> read_tree(AssetReader& reader) {
  Tree out;
  std::vector<std::pair<std::uint64_t, std::string>> waiting{{kRootIno, ""}};
  while (!waiting.empty()) {
    const auto [ino, prefix] = waiting.back();
    waiting.pop_back();
    std::string after;
    for (;;) {
      GBX_ASSIGN(const auto entries, reader.list(ino, after, 3));
      if (entries.empty()) break;
      after = entries.back().name;
      for (const DirectoryEntry& e : entries) {
        GBX_ASSIGN(const Attributes a, reader.lookup(ino, e.name));
        if (a.type == NodeType::kDirectory) {
          out[prefix + e.name + "/"] = "";
          waiting.emplace_back(a.ino, prefix + e.name + "/");
          continue;
        }
        std::string content(static_cast<std::size_t>(a.size) + 10, 'x');
        const MutableByteView view(reinterpret_cast<std::uint8_t*>(content.data()), content.size());
        GBX_ASSIGN(const std::size_t n, reader.read(a.ino, 0, view));
        content.resize(n);
        out[prefix + e.name] = std::move(content);
      }
    }
  }
  return out;
}

// With the directories that its paths imply.
inline Tree with_directories(const Tree& tree) {
  Tree out = tree;
  for (const auto& [path, unused] : tree) {
    for (std::size_t i = path.find('/'); i != std::string::npos; i = path.find('/', i + 1)) {
      out[path.substr(0, i + 1)] = "";
    }
  }
  return out;
}

inline PublishOptions options_for(const std::string& source, const std::string& state) {
  PublishOptions o;
  o.source = source;
  o.state_dir = state;
  o.name = "test";
  return o;
}

}  // namespace gbx::asset::testing
