// Proofs about the log: '0' and '1' take any numbers and hashes; '2' and '3' change one byte of a
// genuine proof, which must not hold any more.
#include "fuzz/fuzz.h"
#include "translog/translog.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::translog;

constexpr std::uint64_t kMost = 64;

struct Numbers {
  std::uint64_t first = 0;
  std::uint64_t second = 0;
  std::vector<Hash32> hashes;
};
Numbers numbers_of(ByteView bytes) {
  Numbers n;
  ByteReader r(bytes);
  const auto first = r.u64();
  const auto second = r.u64();
  if (!first.ok() || !second.ok()) return n;
  n.first = *first;
  n.second = *second;
  while (r.remaining() >= 32 && n.hashes.size() < 256) n.hashes.push_back(*r.fixed<32>());
  return n;
}

void any_inclusion(const Numbers& n) {
  const Hash32 leaf = n.hashes.empty() ? Hash32{} : n.hashes.front();
  const Status s = verify_inclusion(leaf, n.first, n.second, n.hashes, Hash32{});
  require(!s.ok());  // nobody knows what hashes to zeros
}
void any_consistency(const Numbers& n) {
  const Hash32 root = n.hashes.empty() ? Hash32{} : n.hashes.front();
  const Status s = verify_consistency(n.first, n.second, root, Hash32{}, n.hashes);
  require(!s.ok() || root == Hash32{} || n.first == 0);
}

struct Tree {
  MemoryNodes nodes;
  std::vector<Hash32> leaves;
  std::vector<Hash32> roots{Frontier().root()};
};
const Tree& tree() {
  static const Tree made = [] {
    Tree t;
    Frontier frontier;
    for (std::uint64_t i = 0; i < kMost; ++i) {
      t.leaves.push_back(leaf_hash(Salt32{static_cast<std::uint8_t>(i)}, as_bytes("entry")));
      t.nodes.put(frontier.append(t.leaves.back()).value());
      t.roots.push_back(frontier.root());
    }
    return t;
  }();
  return made;
}

// False when there is nothing to change.
bool change(std::vector<Hash32>& path, ByteView bytes) {
  if (path.empty() || bytes.size() < 5 || bytes[4] == 0) return false;
  path[bytes[2] % path.size()][bytes[3] % 32] ^= bytes[4];
  return true;
}
void changed_inclusion(ByteView bytes) {
  if (bytes.size() < 2) return;
  const std::uint64_t size = bytes[1] % kMost + 1;
  const std::uint64_t leaf = bytes[0] % size;
  auto path = inclusion_path(tree().nodes, leaf, size).value();
  const auto holds = [&] {
    return verify_inclusion(tree().leaves[leaf], leaf, size, path, tree().roots[size]).ok();
  };
  require(holds());
  if (change(path, bytes)) require(!holds());
}
void changed_consistency(ByteView bytes) {
  if (bytes.size() < 2) return;
  const std::uint64_t size = bytes[1] % kMost + 1;
  const std::uint64_t old = bytes[0] % (size + 1);
  auto path = consistency_path(tree().nodes, old, size).value();
  const auto holds = [&] {
    return verify_consistency(old, size, tree().roots[old], tree().roots[size], path).ok();
  };
  require(holds());
  if (change(path, bytes)) require(!holds());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 4);
  switch (in.choice) {
    case 0:
      any_inclusion(numbers_of(in.bytes));
      break;
    case 1:
      any_consistency(numbers_of(in.bytes));
      break;
    case 2:
      changed_inclusion(in.bytes);
      break;
    default:
      changed_consistency(in.bytes);
      break;
  }
  return 0;
}
