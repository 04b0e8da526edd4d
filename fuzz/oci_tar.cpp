// Layers of hostile images: tar as it is, tar with its checksums put right (so that the fuzzer gets
// behind them), and gzip.
#include <algorithm>

#include "fuzz/fuzz.h"
#include "oci/tar.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::oci;

constexpr TarLimits kLimits{.max_entries = 1000, .max_depth = 20};
constexpr std::uint64_t kMaxBytes = 1U << 22;

void check_path(const std::string& path) {
  require(path.empty() || (path.front() != '/' && path.back() != '/'));
  require(path.find('\0') == std::string::npos);
  std::size_t depth = 0;
  for (std::size_t at = 0; !path.empty() && at <= path.size(); ++depth) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string part = path.substr(at, end - at);
    require(!part.empty() && part != "." && part != "..");
    at = end + 1;
  }
  require(depth <= kLimits.max_depth);
}

void read_tar(Source& source) {
  TarReader tar(source, kLimits);
  Bytes buffer(8192);
  for (;;) {
    const auto entry = tar.next();
    if (!entry.ok() || !*entry) break;
    check_path((*entry)->path);
    if ((*entry)->type == TarType::kHardLink) check_path((*entry)->link);
    require((*entry)->link.find('\0') == std::string::npos);
    require((*entry)->mode <= 07777);
    // Every other entry is skipped unread.
    std::uint64_t content = 0;
    while (tar.entries() % 2 == 0) {
      const auto n = tar.read(buffer);
      if (!n.ok() || *n == 0) break;
      content += *n;
    }
    require(content <= (*entry)->size);
  }
  require(tar.entries() <= kLimits.max_entries + 1);
}

Bytes with_checksums(ByteView bytes) {
  Bytes out = to_bytes(bytes);
  out.resize((out.size() + 511) / 512 * 512);
  for (std::size_t at = 0; at + 512 <= out.size();) {
    std::uint8_t* block = out.data() + at;
    if (std::all_of(block, block + 512, [](std::uint8_t b) { return b == 0; })) break;
    std::memset(block + 148, ' ', 8);
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += block[i];
    for (std::size_t i = 0; i < 6; ++i) {
      block[148 + i] = static_cast<std::uint8_t>('0' + ((sum >> (3 * (5 - i))) & 7));
    }
    block[154] = 0;
    std::uint64_t size = 0;
    for (std::size_t i = 124; i < 135 && block[i] >= '0' && block[i] <= '7'; ++i) {
      size = size * 8 + (block[i] - '0');
    }
    at += 512 + (size + 511) / 512 * 512;
  }
  return out;
}

void read_gzip(ByteView bytes) {
  MemorySource packed(bytes);
  GunzipSource unpacked(packed);
  MeteredSource metered(unpacked, {.max_bytes = kMaxBytes,
                                   .max_ratio = 100,
                                   .ratio_floor = 1U << 16,
                                   .stored_bytes = bytes.size()});
  read_tar(metered);
  require(metered.passed() <= kMaxBytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 3);
  if (in.choice == 2) {
    read_gzip(in.bytes);
    return 0;
  }
  const Bytes bytes = in.choice == 1 ? with_checksums(in.bytes) : to_bytes(in.bytes);
  MemorySource source(bytes);
  read_tar(source);
  return 0;
}
