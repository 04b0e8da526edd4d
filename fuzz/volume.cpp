// A volume as a hostile host writes it: its first block, then its index. What is accepted is what
// would have been written.
#include "fuzz/fuzz.h"
#include "storage/volume_format.h"

using namespace gbx;
using namespace gbx::storage;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView bytes(data, size);
  const auto head = parse_volume_head(bytes.first(std::min(size, kVolumeBlock)));
  if (!head.ok() || size < kVolumeBlock) return 0;
  const auto objects = parse_volume_index(bytes.subspan(kVolumeBlock), *head);
  if (!objects.ok()) return 0;
  std::vector<ObjectSize> sizes;
  for (const VolumeObject& o : *objects) {
    fuzz::require(o.offset % kVolumeBlock == 0 && o.offset <= head->volume_bytes &&
                  o.size <= head->volume_bytes - o.offset);
    sizes.push_back({o.name(), o.size});
  }
  const auto again = lay_out_volume(sizes, head->volume_bytes);
  fuzz::require(again.ok() && equal(again->front, bytes));
  return 0;
}
