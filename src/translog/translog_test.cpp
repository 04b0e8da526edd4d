#include "translog/translog.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "crypto/crypto.h"

namespace gbx::translog {
namespace {

Hash32 hash_of(const char* hex) { return fixed_from_hex<32>(hex).value(); }

// The definitions of RFC 9162 section 2.1 written down again, recursively, as the reference.
namespace reference {
std::size_t split(std::size_t n) {
  std::size_t k = 1;
  while (k * 2 < n) k *= 2;
  return k;
}
using Leaves = std::span<const Hash32>;
Hash32 root(Leaves d) {
  if (d.empty()) return crypto::sha256(ByteView{});
  if (d.size() == 1) return d[0];
  const std::size_t k = split(d.size());
  return node_hash(root(d.first(k)), root(d.subspan(k)));
}
std::vector<Hash32> path(std::size_t m, Leaves d) {
  if (d.size() == 1) return {};
  const std::size_t k = split(d.size());
  std::vector<Hash32> p = m < k ? path(m, d.first(k)) : path(m - k, d.subspan(k));
  p.push_back(m < k ? root(d.subspan(k)) : root(d.first(k)));
  return p;
}
std::vector<Hash32> subproof(std::size_t m, Leaves d, bool complete) {
  if (m == d.size()) return complete ? std::vector<Hash32>{} : std::vector<Hash32>{root(d)};
  const std::size_t k = split(d.size());
  std::vector<Hash32> p =
      m <= k ? subproof(m, d.first(k), complete) : subproof(m - k, d.subspan(k), false);
  p.push_back(m <= k ? root(d.subspan(k)) : root(d.first(k)));
  return p;
}
}  // namespace reference

struct Tree {
  MemoryNodes nodes;
  Frontier frontier;
  std::vector<Hash32> leaves;
  void add(const Hash32& leaf) {
    nodes.put(frontier.append(leaf).value());
    leaves.push_back(leaf);
  }
  reference::Leaves first(std::size_t n) const { return reference::Leaves(leaves).first(n); }
};

// The inputs and roots of the certificate-transparency reference implementation (merkle_tree_test,
// "kSHA256Roots").
Tree published_tree() {
  Tree t;
  for (const char* input : {"", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                            "606162636465666768696a6b6c6d6e6f"}) {
    t.add(rfc6962_leaf_hash(from_hex(input).value()));
  }
  return t;
}
const char* const kRoots[] = {"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                              "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                              "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                              "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                              "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                              "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                              "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                              "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};

TEST(Translog, PublishedRoots) {
  const Tree t = published_tree();
  EXPECT_EQ(root_at(t.nodes, 0).value(),
            hash_of("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
  for (std::size_t n = 1; n <= 8; ++n) {
    EXPECT_EQ(root_at(t.nodes, n).value(), hash_of(kRoots[n - 1])) << n;
  }
  EXPECT_EQ(t.frontier.root(), hash_of(kRoots[7]));
}

TEST(Translog, PublishedPaths) {
  const Tree t = published_tree();
  const Hash32 h96 = hash_of("96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7");
  const Hash32 h5f = hash_of("5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e");
  const Hash32 h6b = hash_of("6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4");
  const Hash32 hbc = hash_of("bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b");
  const Hash32 hca = hash_of("ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0");
  const Hash32 h0e = hash_of("0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a");
  using Path = std::vector<Hash32>;
  EXPECT_EQ(inclusion_path(t.nodes, 0, 1).value(), Path{});
  EXPECT_EQ(inclusion_path(t.nodes, 0, 8).value(), (Path{h96, h5f, h6b}));
  EXPECT_EQ(inclusion_path(t.nodes, 5, 8).value(), (Path{hbc, hca, hash_of(kRoots[3])}));
  EXPECT_EQ(inclusion_path(t.nodes, 2, 3).value(), Path{hash_of(kRoots[1])});
  EXPECT_EQ(inclusion_path(t.nodes, 1, 5).value(), (Path{hash_of(kRoots[0]), h5f, hbc}));
  EXPECT_EQ(consistency_path(t.nodes, 1, 1).value(), Path{});
  EXPECT_EQ(consistency_path(t.nodes, 1, 8).value(), (Path{h96, h5f, h6b}));
  EXPECT_EQ(consistency_path(t.nodes, 6, 8).value(), (Path{h0e, hca, hash_of(kRoots[3])}));
  EXPECT_EQ(consistency_path(t.nodes, 2, 5).value(), (Path{h5f, hbc}));
}

Tree random_tree(std::size_t n, std::uint64_t seed) {
  SeededRandom random(seed);
  Tree t;
  for (std::size_t i = 0; i < n; ++i) t.add(random.fixed<32>());
  return t;
}

TEST(Translog, MatchesTheDefinitionsForAllSizesTo64) {
  const Tree t = random_tree(64, 1);
  for (std::size_t n = 1; n <= 64; ++n) {
    const auto d = t.first(n);
    ASSERT_EQ(root_at(t.nodes, n).value(), reference::root(d));
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_EQ(inclusion_path(t.nodes, i, n).value(), reference::path(i, d));
    }
    for (std::size_t m = 1; m < n; ++m) {
      ASSERT_EQ(consistency_path(t.nodes, m, n).value(), reference::subproof(m, d, true))
          << m << " " << n;
    }
  }
}

// Every way to spoil a path once: a bit of each node, one node missing, doubled, or exchanged with
// the next, one added.
std::vector<std::vector<Hash32>> spoiled(const std::vector<Hash32>& path) {
  std::vector<std::vector<Hash32>> all;
  for (std::size_t i = 0; i < path.size(); ++i) {
    auto p = path;
    p[i][i % 32] ^= static_cast<std::uint8_t>(1U << (i % 8));
    all.push_back(p);
    p = path;
    p.erase(p.begin() + static_cast<std::ptrdiff_t>(i));
    all.push_back(p);
    p = path;
    p.insert(p.begin() + static_cast<std::ptrdiff_t>(i), path[i]);
    all.push_back(p);
    if (i + 1 < path.size()) {
      p = path;
      std::swap(p[i], p[i + 1]);
      all.push_back(p);
    }
  }
  auto longer = path;
  longer.push_back(Hash32{});
  all.push_back(longer);
  longer.insert(longer.begin(), Hash32{});
  longer.pop_back();
  all.push_back(longer);
  return all;
}

TEST(Translog, EveryInclusionProofHoldsAndEverySpoiledOneIsRefused) {
  const Tree t = random_tree(64, 2);
  for (std::size_t n = 1; n <= 64; ++n) {
    const Hash32 root = root_at(t.nodes, n).value();
    for (std::size_t i = 0; i < n; ++i) {
      const auto path = inclusion_path(t.nodes, i, n).value();
      ASSERT_TRUE(verify_inclusion(t.leaves[i], i, n, path, root).ok()) << i << " of " << n;
      for (const auto& p : spoiled(path)) {
        ASSERT_EQ(verify_inclusion(t.leaves[i], i, n, p, root).reason(), Reason::kBadInclusion)
            << i << " of " << n;
      }
      Hash32 other = root;
      other[31] ^= 1;
      ASSERT_FALSE(verify_inclusion(t.leaves[i], i, n, path, other).ok());
      other = t.leaves[i];
      other[0] ^= 1;
      ASSERT_FALSE(verify_inclusion(other, i, n, path, root).ok());
      for (std::size_t j = 0; j <= 64; ++j) {  // 64: outside every tree
        if (j != i) {
          ASSERT_FALSE(verify_inclusion(t.leaves[i], j, n, path, root).ok())
              << i << " as " << j << " of " << n;
        }
      }
      ASSERT_FALSE(verify_inclusion(t.leaves[i], i, i, path, root).ok());
      ASSERT_FALSE(verify_inclusion(t.leaves[i], i, n + 64, path, root).ok());
    }
  }
}

TEST(Translog, EveryConsistencyProofHoldsAndEverySpoiledOneIsRefused) {
  const Tree t = random_tree(64, 3);
  for (std::size_t n = 0; n <= 64; ++n) {
    for (std::size_t m = 0; m <= n; ++m) {
      const ConsistencyProof proof = prove_consistency(t.nodes, m, n).value();
      ASSERT_TRUE(verify(proof).ok()) << m << " to " << n;
      for (const auto& p : spoiled(proof.path)) {
        ConsistencyProof bad = proof;
        bad.path = p;
        ASSERT_EQ(verify(bad).reason(), Reason::kBadInclusion) << m << " to " << n;
      }
      ConsistencyProof bad = proof;
      bad.old_root[0] ^= 1;
      ASSERT_FALSE(verify(bad).ok()) << m << " to " << n;
      if (m != 0) {  // an empty tree is consistent with everything
        bad = proof;
        bad.new_root[0] ^= 1;
        ASSERT_FALSE(verify(bad).ok()) << m << " to " << n;
      }
      if (m != n) {
        bad = proof;
        std::swap(bad.old_size, bad.new_size);
        ASSERT_FALSE(verify(bad).ok()) << m << " to " << n;
      }
    }
  }
}

TEST(Translog, AForkIsNotConsistent) {
  const Tree a = random_tree(40, 4);
  Tree b;
  for (std::size_t i = 0; i < 40; ++i) {
    Hash32 leaf = a.leaves[i];
    if (i == 20) leaf[5] ^= 1;
    b.add(leaf);
  }
  for (std::size_t m = 21; m < 40; ++m) {
    ConsistencyProof p = prove_consistency(b.nodes, m, 40).value();
    p.old_root = root_at(a.nodes, m).value();
    EXPECT_EQ(verify(p).reason(), Reason::kBadInclusion) << m;
  }
  ConsistencyProof shared = prove_consistency(b.nodes, 20, 40).value();
  EXPECT_EQ(shared.old_root, root_at(a.nodes, 20).value());
  EXPECT_TRUE(verify(shared).ok());
}

TEST(Translog, FrontierReloadsAtEverySize) {
  const Tree t = random_tree(70, 5);
  for (std::size_t n = 0; n < 70; ++n) {
    Frontier f = Frontier::load(t.nodes, n).value();
    ASSERT_EQ(f.root(), reference::root(t.first(n)));
    const auto made = f.append(t.leaves[n]).value();
    for (const Node& node : made) ASSERT_EQ(t.nodes.node(node.id).value(), node.hash);
    ASSERT_EQ(f.root(), reference::root(t.first(n + 1)));
  }
  EXPECT_EQ(Frontier::load(t.nodes, 71).reason(), Reason::kNotFound);
  EXPECT_EQ(Frontier::load(t.nodes, kMaxTreeSize + 1).reason(), Reason::kTooLarge);
  EXPECT_EQ(inclusion_path(t.nodes, 7, 7).reason(), Reason::kBadValue);
  EXPECT_EQ(consistency_path(t.nodes, 8, 7).reason(), Reason::kBadValue);
}

TEST(Translog, SaltedRecordsRoundTripAndBindSaltEntryAndHead) {
  SeededRandom random(6);
  Tree t;
  std::vector<Salt32> salts;
  for (std::size_t i = 0; i < 13; ++i) {
    salts.push_back(random.fixed<32>());
    t.add(leaf_hash(salts[i], as_bytes("entry " + std::to_string(i))));
  }
  // SHA-256(0x00 ‖ salt ‖ entry), spelled out.
  EXPECT_EQ(t.leaves[3], crypto::sha256(concat({Bytes{0}, salts[3], as_bytes("entry 3")})));
  const Inclusion proof = prove_inclusion(t.nodes, 3, 13, salts[3]).value();
  EXPECT_EQ(from_json_text<Inclusion>(canonical(to_json(proof))).value(), proof);
  EXPECT_TRUE(verify(proof, as_bytes("entry 3")).ok());
  EXPECT_TRUE(verify(proof, as_bytes("entry 3"), TreeHead{13, t.frontier.root()}).ok());
  EXPECT_EQ(verify(proof, as_bytes("entry 4")).reason(), Reason::kBadInclusion);
  EXPECT_EQ(verify(proof, as_bytes("entry 3"), TreeHead{12, root_at(t.nodes, 12).value()}).reason(),
            Reason::kBadInclusion);
  EXPECT_EQ(verify(proof, as_bytes("entry 3"), TreeHead{14, t.frontier.root()}).reason(),
            Reason::kBadInclusion);
  Inclusion bad = proof;
  bad.leaf_salt[0] ^= 1;
  EXPECT_EQ(verify(bad, as_bytes("entry 3")).reason(), Reason::kBadInclusion);
  bad = proof;
  bad.leaf_index = -1;
  EXPECT_EQ(verify(bad, as_bytes("entry 3")).reason(), Reason::kBadInclusion);
  const ConsistencyProof c = prove_consistency(t.nodes, 5, 13).value();
  EXPECT_EQ(from_json_text<ConsistencyProof>(canonical(to_json(c))).value(), c);

  Json j = to_json(proof);
  JsonArray path;
  for (std::size_t i = 0; i <= kMaxPath; ++i) path.push_back(Json(to_hex(proof.root)));
  j["path"] = Json(std::move(path));
  EXPECT_EQ(from_json<Inclusion>(j).reason(), Reason::kBadValue);
}

TEST(Translog, ALeafIsNeverANode) {
  // A leaf whose salt and entry spell two child hashes differs from their parent by its prefix.
  SeededRandom random(7);
  const Hash32 left = random.fixed<32>();
  const Hash32 right = random.fixed<32>();
  EXPECT_NE(leaf_hash(left, right), node_hash(left, right));
}

}  // namespace
}  // namespace gbx::translog
