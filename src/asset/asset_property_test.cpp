// RapidCheck against a model in memory: any chain of versions of any tree reads back as what was
// published, at any offset, after any one interruption; and whatever is done to the store, no byte
// comes out that was not published.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "asset/asset_test_util.h"
#include "asset/verify.h"

namespace gbx::asset {
namespace {

using namespace testing;

constexpr std::size_t kSmallObject = 256 << 10;

rc::Gen<std::string> any_name() {
  return rc::gen::apply(
      [](int n, bool wide) {
        return wide ? std::string(static_cast<std::size_t>(n) * 20 + 1, 'w')
                    : "n" + std::to_string(n);
      },
      rc::gen::inRange(0, 12), rc::gen::weightedElement<bool>({{9, false}, {1, true}}));
}
rc::Gen<std::size_t> any_size() {
  return rc::gen::oneOf(rc::gen::inRange<std::size_t>(0, 300),
                        rc::gen::element<std::size_t>(65535, 65536, 65537, 131072, 131073),
                        rc::gen::inRange<std::size_t>(0, 400'000));
}

// A path cannot be a file here and a directory there: of two that collide, the later stays.
void put(Tree& tree, const std::string& path, const std::string& content) {
  for (std::size_t i = path.find('/'); i != std::string::npos; i = path.find('/', i + 1)) {
    tree.erase(path.substr(0, i));
  }
  const std::string below = path + "/";
  for (auto it = tree.lower_bound(below); it != tree.end() && it->first.rfind(below, 0) == 0;) {
    it = tree.erase(it);
  }
  if (path.back() != '/') tree.erase(below);
  tree[path] = content;
}
void change(Tree& tree) {
  const int steps = *rc::gen::inRange(0, 12);
  for (int i = 0; i < steps; ++i) {
    const int what = *rc::gen::inRange(0, 4);
    if (what == 0 && !tree.empty()) {
      tree.erase(std::next(tree.begin(), static_cast<std::ptrdiff_t>(
                                             *rc::gen::inRange<std::size_t>(0, tree.size()))));
      continue;
    }
    std::string path = *any_name();
    const int depth = *rc::gen::inRange(0, 4);
    for (int d = 0; d < depth; ++d) path += "/" + *any_name();
    if (what == 1) {
      put(tree, path + "/", "");
    } else {
      put(tree, path, pattern(*any_size(), *rc::gen::inRange<std::uint64_t>(0, 1000)));
    }
  }
}

struct Chain {
  TempDir dir;
  storage::MemoryStore store;
  std::vector<PublishResult> versions;
  std::vector<Tree> trees;

  void publish_next(const Tree& tree, bool same_key, std::uint64_t seed) {
    write_tree(dir.path + "/src", tree);
    SeededRandom random(seed);
    PublishOptions o = options_for(dir.path + "/src", dir.path + "/state");
    o.object_size = kSmallObject;
    if (!versions.empty()) {
      o.previous = PreviousVersion{versions.back().record, versions.back().key.clone()};
      if (same_key) o.key = versions.back().key.clone();
    }
    auto r = publish(std::move(o), store, random);
    if (!r.ok()) RC_FAIL(r.error().line());
    versions.push_back(std::move(*r));
    trees.push_back(with_directories(tree));
    RC_ASSERT(remove_tree(dir.path + "/state").ok());
  }
};

TEST(AssetProperty, EveryVersionOfAChainReadsAsItWasPublished) {
  EXPECT_TRUE(rc::check([] {
    Chain chain;
    Tree tree;
    const int length = *rc::gen::inRange(1, 5);
    for (int v = 0; v < length; ++v) {
      change(tree);
      chain.publish_next(tree, *rc::gen::weightedElement<bool>({{3, true}, {1, false}}),
                         static_cast<std::uint64_t>(v) + 1);
    }
    for (std::size_t v = 0; v < chain.versions.size(); ++v) {
      const PublishResult& r = chain.versions[v];
      const auto full = verify_with_key(chain.store, r.record, r.record.id(), r.key);
      if (!full.ok()) RC_FAIL(full.error().line());
      auto reader = AssetReader::open(chain.store, r.record, r.record.id(), r.key);
      RC_ASSERT(reader.ok());
      const auto got = read_tree(*reader);
      RC_ASSERT(got.ok());
      RC_ASSERT(*got == chain.trees[v]);
    }
  }));
}

TEST(AssetProperty, AnyRangeOfAnyFile) {
  EXPECT_TRUE(rc::check([] {
    const std::string content = pattern(*any_size(), 3);
    Chain chain;
    chain.publish_next({{"f", content}}, true, 1);
    auto reader =
        AssetReader::open(chain.store, chain.versions[0].record, chain.versions[0].record.id(),
                          chain.versions[0].key, {8, 2, 1, {}});
    RC_ASSERT(reader.ok());
    for (int i = 0; i < 20; ++i) {
      const auto offset = *rc::gen::inRange<std::size_t>(0, content.size() + 2);
      Bytes out(*rc::gen::inRange<std::size_t>(0, 200'000));
      const auto n = reader->read(2, offset, out);
      RC_ASSERT(n.ok());
      const std::string expected =
          offset >= content.size() ? "" : content.substr(offset, out.size());
      RC_ASSERT(std::string(as_text(ByteView(out).first(*n))) == expected);
    }
  }));
}

// The host: any number of bytes, blocks or whole objects changed, exchanged, cut or taken from
// other versions and assets.
TEST(AssetProperty, AHostileStoreNeverMakesWrongBytes) {
  EXPECT_TRUE(rc::check([] {
    Chain chain;
    Tree tree;
    change(tree);
    put(tree, "always", pattern(150'000, 9));
    chain.publish_next(tree, true, 1);
    put(tree, "always", pattern(150'000, 10));
    chain.publish_next(tree, true, 2);
    auto& objects = chain.store.objects();
    const auto any_object = [&]() -> Bytes& {
      return std::next(objects.begin(), static_cast<std::ptrdiff_t>(
                                            *rc::gen::inRange<std::size_t>(0, objects.size())))
          ->second;
    };
    const int attacks = *rc::gen::inRange(1, 6);
    for (int i = 0; i < attacks; ++i) {
      Bytes& a = any_object();
      Bytes& b = any_object();
      const auto at = a.empty() ? 0 : *rc::gen::inRange<std::size_t>(0, a.size());
      switch (*rc::gen::inRange(0, 5)) {
        case 0:
          if (!a.empty()) a[at] ^= *rc::gen::inRange<std::uint8_t>(1, 255);
          break;
        case 1:
          std::swap(a, b);
          break;
        case 2:
          a.resize(at);
          break;
        case 3:
          a = Bytes(b);
          break;
        default: {  // a run of bytes from elsewhere, aligned like pages and chunks as often as not
          const std::size_t unit = *rc::gen::element<std::size_t>(1, kPageSize, kSealedChunk);
          const std::size_t to = kHeaderSize + at / unit * unit;
          const std::size_t from = kHeaderSize + *rc::gen::inRange<std::size_t>(0, 4) * unit;
          if (to + unit <= a.size() && from + unit <= b.size()) {
            std::memmove(a.data() + to, b.data() + from, unit);
          }
        }
      }
    }
    for (std::size_t v = 0; v < 2; ++v) {
      const PublishResult& r = chain.versions[v];
      auto reader = AssetReader::open(chain.store, r.record, r.record.id(), r.key);
      if (!reader.ok()) continue;
      const auto got = read_tree(*reader);
      if (got.ok()) RC_ASSERT(*got == chain.trees[v]);
      // File by file as well, since a listing that fails hides the rest.
      for (const auto& [path, content] : chain.trees[v]) {
        if (path.find('/') != std::string::npos) continue;
        const auto found = reader->lookup(kRootIno, path);
        if (!found.ok()) {
          // absence is an answer, and it would be a wrong one
          RC_ASSERT(found.reason() != Reason::kNotFound);
          continue;
        }
        Bytes out(content.size() + 1);
        const auto n = reader->read(found->ino, 0, out);
        if (n.ok()) RC_ASSERT(std::string(as_text(ByteView(out).first(*n))) == content);
      }
    }
  }));
}

}  // namespace
}  // namespace gbx::asset
