// What a machine that was taken over may send to the server of its volume. The input is all of it,
// and then the client is gone; nothing waits. The server never reads beyond the volume, and what it
// says in reply to reads is the volume.
#include "vm/nbd.h"

#include <algorithm>

#include "fuzz/fuzz.h"

namespace {

using namespace gbx;
using namespace gbx::vm;

constexpr std::uint64_t kSize = 1 << 20;
constexpr std::size_t kMostSaid = std::size_t{8} << 20;

std::uint8_t byte_at(std::uint64_t i) { return static_cast<std::uint8_t>(i ^ (i >> 8)); }

class Volume final : public VolumeSource {
 public:
  std::uint64_t size() const override { return kSize; }
  Status read(std::uint64_t offset, MutableByteView out) override {
    fuzz::require(offset <= kSize && out.size() <= kSize - offset && !out.empty());
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = byte_at(offset + i);
    at = offset;
    if (offset == 4096) return fail(Reason::kIo, "broken");
    return ok_status();
  }
  std::uint64_t at = 0;  // of the last read
};

class Peer final : public NbdPeer {
 public:
  Peer(ByteView said, const Volume& volume) : said_(said), volume_(volume) {}
  Status read(MutableByteView out, Wait) override {
    if (out.size() > said_.size()) return fail(Reason::kConnectionClosed, "the input's end");
    std::copy_n(said_.begin(), out.size(), out.begin());
    said_ = said_.subspan(out.size());
    return ok_status();
  }
  Status write(ByteView bytes) override {
    heard_ += bytes.size();
    if (heard_ > kMostSaid) return fail(Reason::kConnectionClosed, "enough");
    const bool reply = bytes.size() >= 16 && bytes[0] == 0x67 && bytes[1] == 0x44;
    if (!reply) return ok_status();
    fuzz::require(bytes.size() == 16 || bytes[7] == 0);
    for (std::size_t i = 16; i < bytes.size(); i += 511) {
      fuzz::require(bytes[i] == byte_at(volume_.at + i - 16));
    }
    return ok_status();
  }

 private:
  ByteView said_;
  const Volume& volume_;
  std::size_t heard_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Volume volume;
  Peer peer(ByteView(data, size), volume);
  (void)serve_nbd(peer, volume);
  return 0;
}
