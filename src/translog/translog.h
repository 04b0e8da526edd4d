// The Merkle tree of RFC 6962 / RFC 9162 section 2.1 with salted leaves, without storage: functions
// over an accessor for node hashes (the broker keeps nodes in SQLite, tests in memory), and the
// verifiers that anyone runs offline. Everything is pure and thread-safe as far as the accessor is.
// Proofs are untrusted input; what a verifier compares them with (the root and the size, or a
// signature over both) must come from elsewhere.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/bytes.h"
#include "base/fields.h"
#include "base/seams.h"
#include "records/set.h"

namespace gbx::translog {

// Sizes travel as JSON integers.
inline constexpr std::uint64_t kMaxTreeSize = records::kMaxTreeSize;
// No path in a tree of at most kMaxTreeSize leaves is longer (a consistency path has one node
// more).
inline constexpr std::size_t kMaxPath = records::kMaxTreePath;

using Salt32 = FixedBytes<32>;

// SHA-256(0x00 ‖ salt ‖ entry). The salt hides entries that could be guessed from a receipt for
// their neighbour.
Hash32 leaf_hash(const Salt32& salt, ByteView entry);
// SHA-256(0x01 ‖ left ‖ right).
Hash32 node_hash(const Hash32& left, const Hash32& right);
// SHA-256 of nothing: the root of the empty tree.
Hash32 empty_root();
// SHA-256(0x00 ‖ data), the leaf of RFC 6962 itself: for the published vectors only.
Hash32 rfc6962_leaf_hash(ByteView data);

// The perfect subtree over leaves [index << level, (index + 1) << level). Level 0 are the leaves.
// Only complete subtrees are stored; they never change.
struct NodeId {
  std::uint32_t level = 0;
  std::uint64_t index = 0;
  auto operator<=>(const NodeId&) const = default;
};
struct Node {
  NodeId id;
  Hash32 hash{};
  bool operator==(const Node&) const = default;
};

class NodeSource {
 public:
  virtual ~NodeSource() = default;
  // kNotFound when the node is not stored.
  virtual Result<Hash32> node(NodeId id) const = 0;
};

class MemoryNodes final : public NodeSource {
 public:
  void put(const std::vector<Node>& nodes);
  Result<Hash32> node(NodeId id) const override;

 private:
  std::map<NodeId, Hash32> nodes_;
};

// What is needed to append and to know the root: the roots of the perfect subtrees of a tree of
// `size` leaves.
class Frontier {
 public:
  Frontier() = default;
  static Result<Frontier> load(const NodeSource& source, std::uint64_t size);
  // The nodes that this leaf completes, the leaf first. Store all of them in the transaction that
  // stores the entry. kTooLarge beyond kMaxTreeSize.
  Result<std::vector<Node>> append(const Hash32& leaf);
  std::uint64_t size() const { return size_; }
  Hash32 root() const;

 private:
  std::uint64_t size_ = 0;
  std::vector<Hash32> peaks_;  // largest subtree first
};

// Root of the first `size` leaves.
Result<Hash32> root_at(const NodeSource& source, std::uint64_t size);
// RFC 9162 section 2.1.3.1. kBadValue unless leaf < size.
Result<std::vector<Hash32>> inclusion_path(const NodeSource& source, std::uint64_t leaf,
                                           std::uint64_t size);
// RFC 9162 section 2.1.4.1, from the tree of `old_size` leaves to that of `new_size`. Empty when
// the sizes are equal or old_size is 0. kBadValue unless old_size <= new_size.
Result<std::vector<Hash32>> consistency_path(const NodeSource& source, std::uint64_t old_size,
                                             std::uint64_t new_size);

// Name of a state of the log. Whoever signs one signs both fields: an inclusion path fixes the size
// only as far as its own shape (leaf 0 of three leaves and of four have paths of one shape).
struct TreeHead {
  std::int64_t tree_size = 0;
  Hash32 root_hash{};
  bool operator==(const TreeHead&) const = default;
  template <class F>
  void fields(F& f) {
    f("treeSize", tree_size, Bound{0, std::int64_t{kMaxTreeSize}});
    f("rootHash", root_hash);
  }
};

struct ConsistencyProof {
  std::int64_t old_size = 0;
  Hash32 old_root{};
  std::int64_t new_size = 0;
  Hash32 new_root{};
  std::vector<Hash32> path;
  bool operator==(const ConsistencyProof&) const = default;
  template <class F>
  void fields(F& f) {
    f("oldSize", old_size, Bound{0, std::int64_t{kMaxTreeSize}});
    f("oldRoot", old_root);
    f("newSize", new_size, Bound{0, std::int64_t{kMaxTreeSize}});
    f("newRoot", new_root);
    f("path", path, Bound{0, std::int64_t{kMaxPath}});
  }
};

using records::Inclusion;
Result<Inclusion> prove_inclusion(const NodeSource& source, std::uint64_t leaf, std::uint64_t size,
                                  const Salt32& salt);
Result<ConsistencyProof> prove_consistency(const NodeSource& source, std::uint64_t old_size,
                                           std::uint64_t new_size);

// All return kBadInclusion when the proof does not hold.
// RFC 9162 section 2.1.3.2.
Status verify_inclusion(const Hash32& leaf, std::uint64_t leaf_index, std::uint64_t tree_size,
                        const std::vector<Hash32>& path, const Hash32& root);
// RFC 9162 section 2.1.4.2, and the cases it leaves out: equal sizes, and an empty old tree.
Status verify_consistency(std::uint64_t old_size, std::uint64_t new_size, const Hash32& old_root,
                          const Hash32& new_root, const std::vector<Hash32>& path);
// `entry` is in the log that the proof itself names: the caller checks a signature over its size
// and root.
Status verify(const Inclusion& proof, ByteView entry);
// The same in the log whose head the caller already trusts.
Status verify(const Inclusion& proof, ByteView entry, const TreeHead& head);
Status verify(const ConsistencyProof& proof);

}  // namespace gbx::translog
