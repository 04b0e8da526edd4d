// Volume format v1 (docs/formats/volume-v1.md): many objects on one block device that is only read.
// The node writes it, the machine reads it: to the reader nothing in it is trusted, and what these
// functions would not have written is refused. What the objects hold is checked by their readers.
#pragma once

#include <compare>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace gbx::storage {

inline constexpr std::string_view kVolumeMagic = "GBXVOLUM";
inline constexpr std::uint32_t kVolumeVersion = 1;
inline constexpr std::size_t kVolumeBlock = 4096;
inline constexpr std::size_t kVolumeEntryBytes = 80;
// Of every machine, so that its devices are the same whatever its job is.
inline constexpr std::uint64_t kVolumeBytes = std::uint64_t{1} << 44;
inline constexpr std::uint32_t kMaxVolumeObjects = 262'144;
inline constexpr std::size_t kMaxObjectName = 64;

struct VolumeObject {
  FixedBytes<kMaxObjectName> padded_name{};  // zeros behind the name
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::string name() const;
};
// kBadValue for a name that valid_object_name() refuses.
Result<FixedBytes<kMaxObjectName>> pad_object_name(std::string_view name);

struct VolumeHead {
  std::uint32_t objects = 0;
  std::uint64_t volume_bytes = 0;
  // Of the index, which begins at the second block, in whole blocks.
  std::uint64_t index_bytes() const;
};
// Of exactly one block. kBadMagic, kBadVersion, kTooLarge, kBadStructure.
Result<VolumeHead> parse_volume_head(ByteView block);
// Of exactly head.index_bytes(). kBadStructure for names that are none, doubled or out of order,
// objects that overlap, leave gaps, or lie beyond the volume, and for bytes that are no zeros.
Result<std::vector<VolumeObject>> parse_volume_index(ByteView bytes, const VolumeHead& head);

struct VolumeLayout {
  Bytes front;                        // head and index: the volume begins with it
  std::vector<VolumeObject> objects;  // by name
};
struct ObjectSize {
  std::string name;
  std::uint64_t size = 0;
};
// kBadValue for a name that is none or comes twice and for a size of the volume that is no multiple
// of a block, kTooLarge when there are too many objects or they do not fit.
Result<VolumeLayout> lay_out_volume(std::vector<ObjectSize> objects,
                                    std::uint64_t volume_bytes = kVolumeBytes);

}  // namespace gbx::storage
