#include "translog/translog.h"

#include <bit>

#include "crypto/crypto.h"

namespace gbx::translog {
namespace {

constexpr std::uint8_t kLeafPrefix[] = {0x00};
constexpr std::uint8_t kNodePrefix[] = {0x01};

Error size_error(std::uint64_t size) {
  return fail(Reason::kTooLarge, "tree size").with("at most 2^52", std::to_string(size));
}

Error broken(const char* what) { return fail(Reason::kBadInclusion, what); }

// Perfect subtrees that together cover leaves [begin, end) of a tree, where `begin` is a multiple
// of the largest power of two that is not above end - begin (so it holds for every range that the
// recursions of the RFC name).
Result<Hash32> range_root(const NodeSource& source, std::uint64_t begin, std::uint64_t end) {
  std::vector<Hash32> peaks;
  std::uint64_t at = begin;
  while (at < end) {
    const auto level = static_cast<std::uint32_t>(std::bit_width(end - at) - 1);
    GBX_ASSIGN(Hash32 h, source.node({level, at >> level}));
    peaks.push_back(h);
    at += std::uint64_t{1} << level;
  }
  Hash32 root = peaks.back();
  for (std::size_t i = peaks.size() - 1; i-- > 0;) root = node_hash(peaks[i], root);
  return root;
}

// The largest power of two smaller than n (n >= 2): "k" of RFC 9162 section 2.1.1.
std::uint64_t split(std::uint64_t n) { return std::uint64_t{1} << (std::bit_width(n - 1) - 1); }

bool odd(std::uint64_t v) { return (v & 1) != 0; }

}  // namespace

Hash32 leaf_hash(const Salt32& salt, ByteView entry) {
  return crypto::sha256({kLeafPrefix, salt, entry});
}
Hash32 node_hash(const Hash32& left, const Hash32& right) {
  return crypto::sha256({kNodePrefix, left, right});
}
Hash32 empty_root() { return crypto::sha256(ByteView{}); }
Hash32 rfc6962_leaf_hash(ByteView data) { return crypto::sha256({kLeafPrefix, data}); }

void MemoryNodes::put(const std::vector<Node>& nodes) {
  for (const Node& n : nodes) nodes_.insert_or_assign(n.id, n.hash);
}
Result<Hash32> MemoryNodes::node(NodeId id) const {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) {
    return fail(Reason::kNotFound,
                "log node " + std::to_string(id.level) + "/" + std::to_string(id.index));
  }
  return it->second;
}

Result<Frontier> Frontier::load(const NodeSource& source, std::uint64_t size) {
  if (size > kMaxTreeSize) return size_error(size);
  Frontier f;
  std::uint64_t at = 0;
  while (at < size) {
    const auto level = static_cast<std::uint32_t>(std::bit_width(size - at) - 1);
    GBX_ASSIGN(Hash32 h, source.node({level, at >> level}));
    f.peaks_.push_back(h);
    at += std::uint64_t{1} << level;
  }
  f.size_ = size;
  return f;
}

Result<std::vector<Node>> Frontier::append(const Hash32& leaf) {
  if (size_ >= kMaxTreeSize) return size_error(size_ + 1);
  std::vector<Node> made{{{0, size_}, leaf}};
  // Every trailing one of the old size is a peak that this leaf completes.
  for (std::uint64_t rest = size_; odd(rest); rest >>= 1) {
    const Node& last = made.back();
    const Node parent{{last.id.level + 1, last.id.index >> 1}, node_hash(peaks_.back(), last.hash)};
    peaks_.pop_back();
    made.push_back(parent);
  }
  peaks_.push_back(made.back().hash);
  ++size_;
  return made;
}

Hash32 Frontier::root() const {
  if (peaks_.empty()) return empty_root();
  Hash32 root = peaks_.back();
  for (std::size_t i = peaks_.size() - 1; i-- > 0;) root = node_hash(peaks_[i], root);
  return root;
}

Result<Hash32> root_at(const NodeSource& source, std::uint64_t size) {
  GBX_ASSIGN(Frontier f, Frontier::load(source, size));
  return f.root();
}

Result<std::vector<Hash32>> inclusion_path(const NodeSource& source, std::uint64_t leaf,
                                           std::uint64_t size) {
  if (size > kMaxTreeSize) return size_error(size);
  if (leaf >= size) {
    return fail(Reason::kBadValue, "leaf index")
        .with("below " + std::to_string(size), std::to_string(leaf));
  }
  // Descends from the root: [begin, end) always holds the leaf; the half without it joins the path.
  std::vector<Hash32> down;
  std::uint64_t begin = 0;
  std::uint64_t end = size;
  while (end - begin > 1) {
    const std::uint64_t middle = begin + split(end - begin);
    if (leaf < middle) {
      GBX_ASSIGN(Hash32 h, range_root(source, middle, end));
      down.push_back(h);
      end = middle;
    } else {
      GBX_ASSIGN(Hash32 h, range_root(source, begin, middle));
      down.push_back(h);
      begin = middle;
    }
  }
  return std::vector<Hash32>(down.rbegin(), down.rend());
}

Result<std::vector<Hash32>> consistency_path(const NodeSource& source, std::uint64_t old_size,
                                             std::uint64_t new_size) {
  if (new_size > kMaxTreeSize) return size_error(new_size);
  if (old_size > new_size) {
    return fail(Reason::kBadValue, "old tree size")
        .with("at most " + std::to_string(new_size), std::to_string(old_size));
  }
  std::vector<Hash32> down;
  if (old_size == 0 || old_size == new_size) return down;
  // SUBPROOF of the RFC: descends along the right edge of the old tree, [begin, old_size) in
  // [begin, end).
  std::uint64_t begin = 0;
  std::uint64_t end = new_size;
  while (old_size != end) {
    const std::uint64_t middle = begin + split(end - begin);
    if (old_size <= middle) {
      GBX_ASSIGN(Hash32 h, range_root(source, middle, end));
      down.push_back(h);
      end = middle;
    } else {
      GBX_ASSIGN(Hash32 h, range_root(source, begin, middle));
      down.push_back(h);
      begin = middle;
    }
  }
  // The verifier knows the old root; the subtree where the descent ended is named unless it is that
  // whole tree.
  if (begin != 0) {
    GBX_ASSIGN(Hash32 h, range_root(source, begin, end));
    down.push_back(h);
  }
  return std::vector<Hash32>(down.rbegin(), down.rend());
}

Result<Inclusion> prove_inclusion(const NodeSource& source, std::uint64_t leaf, std::uint64_t size,
                                  const Salt32& salt) {
  Inclusion p;
  GBX_ASSIGN(p.path, inclusion_path(source, leaf, size));
  GBX_ASSIGN(p.root, root_at(source, size));
  p.tree_size = static_cast<std::int64_t>(size);
  p.leaf_index = static_cast<std::int64_t>(leaf);
  p.leaf_salt = salt;
  return p;
}

Result<ConsistencyProof> prove_consistency(const NodeSource& source, std::uint64_t old_size,
                                           std::uint64_t new_size) {
  ConsistencyProof p;
  GBX_ASSIGN(p.path, consistency_path(source, old_size, new_size));
  GBX_ASSIGN(p.old_root, root_at(source, old_size));
  GBX_ASSIGN(p.new_root, root_at(source, new_size));
  p.old_size = static_cast<std::int64_t>(old_size);
  p.new_size = static_cast<std::int64_t>(new_size);
  return p;
}

Status verify_inclusion(const Hash32& leaf, std::uint64_t leaf_index, std::uint64_t tree_size,
                        const std::vector<Hash32>& path, const Hash32& root) {
  if (tree_size > kMaxTreeSize || leaf_index >= tree_size) {
    return broken("the leaf is outside the tree");
  }
  std::uint64_t fn = leaf_index;
  std::uint64_t sn = tree_size - 1;
  Hash32 r = leaf;
  for (const Hash32& p : path) {
    if (sn == 0) return broken("the path is too long");
    if (odd(fn) || fn == sn) {
      r = node_hash(p, r);
      while (!odd(fn) && fn != 0) {
        fn >>= 1;
        sn >>= 1;
      }
    } else {
      r = node_hash(r, p);
    }
    fn >>= 1;
    sn >>= 1;
  }
  if (sn != 0) return broken("the path is too short");
  if (r != root) return broken("the path leads to another root").with(to_hex(root), to_hex(r));
  return ok_status();
}

Status verify_consistency(std::uint64_t old_size, std::uint64_t new_size, const Hash32& old_root,
                          const Hash32& new_root, const std::vector<Hash32>& path) {
  if (new_size > kMaxTreeSize || old_size > new_size) return broken("the log shrank");
  if (old_size == 0 && old_root != empty_root()) return broken("not the root of an empty log");
  if (old_size == new_size && old_root != new_root) return broken("two roots for one size");
  if (old_size == 0 || old_size == new_size) {
    return path.empty() ? ok_status() : Status(broken("the path is too long"));
  }
  std::uint64_t fn = old_size - 1;
  std::uint64_t sn = new_size - 1;
  while (odd(fn)) {
    fn >>= 1;
    sn >>= 1;
  }
  // An old tree that is perfect is itself the first node.
  const bool perfect = std::has_single_bit(old_size);
  if (path.empty()) return broken("the path is too short");
  const std::size_t first = perfect ? 0 : 1;
  Hash32 fr = perfect ? old_root : path[0];
  Hash32 sr = fr;
  for (std::size_t i = first; i < path.size(); ++i) {
    if (sn == 0) return broken("the path is too long");
    if (odd(fn) || fn == sn) {
      fr = node_hash(path[i], fr);
      sr = node_hash(path[i], sr);
      while (!odd(fn) && fn != 0) {
        fn >>= 1;
        sn >>= 1;
      }
    } else {
      sr = node_hash(sr, path[i]);
    }
    fn >>= 1;
    sn >>= 1;
  }
  if (sn != 0) return broken("the path is too short");
  if (fr != old_root) {
    return broken("the path does not start at the old root").with(to_hex(old_root), to_hex(fr));
  }
  if (sr != new_root) {
    return broken("the path does not lead to the new root").with(to_hex(new_root), to_hex(sr));
  }
  return ok_status();
}

Status verify(const Inclusion& proof, ByteView entry) {
  if (proof.tree_size < 1 || proof.leaf_index < 0) return broken("the leaf is outside the tree");
  return verify_inclusion(leaf_hash(proof.leaf_salt, entry),
                          static_cast<std::uint64_t>(proof.leaf_index),
                          static_cast<std::uint64_t>(proof.tree_size), proof.path, proof.root);
}

Status verify(const Inclusion& proof, ByteView entry, const TreeHead& head) {
  if (!(TreeHead{proof.tree_size, proof.root} == head)) {
    return broken("the proof names another state of the log")
        .with(std::to_string(head.tree_size) + " " + to_hex(head.root_hash),
              std::to_string(proof.tree_size) + " " + to_hex(proof.root));
  }
  return verify(proof, entry);
}

Status verify(const ConsistencyProof& proof) {
  if (proof.old_size < 0 || proof.new_size < 0) return broken("negative size");
  return verify_consistency(static_cast<std::uint64_t>(proof.old_size),
                            static_cast<std::uint64_t>(proof.new_size), proof.old_root,
                            proof.new_root, proof.path);
}

}  // namespace gbx::translog
