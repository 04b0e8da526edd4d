#include "storage/volume_format.h"

#include <algorithm>

#include "storage/object_store.h"

namespace gbx::storage {

namespace {

std::uint64_t whole_blocks(std::uint64_t bytes) {
  return (bytes + kVolumeBlock - 1) / kVolumeBlock * kVolumeBlock;
}

Status check_volume_bytes(std::uint64_t bytes) {
  if (bytes >= 2 * kVolumeBlock && bytes <= kVolumeBytes && bytes % kVolumeBlock == 0) {
    return ok_status();
  }
  return fail(Reason::kBadValue, "size of a volume")
      .with("a multiple of 4096, at most " + std::to_string(kVolumeBytes), std::to_string(bytes));
}

Status check_zeros(ByteView bytes, std::string_view where) {
  if (std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; })) {
    return ok_status();
  }
  return fail(Reason::kBadStructure, "volume: " + std::string(where)).with("zeros", "others");
}

// Where the next object begins, if `object` lies where the one before it ends.
Result<std::uint64_t> next_free(const VolumeObject& object, std::uint64_t free,
                                std::uint64_t volume_bytes) {
  if (object.offset != free) {
    return fail(Reason::kBadStructure, "volume: object " + object.name())
        .with("at " + std::to_string(free), "at " + std::to_string(object.offset));
  }
  if (object.size > volume_bytes - free) {
    return fail(Reason::kBadStructure, "volume: object " + object.name())
        .with("at most " + std::to_string(volume_bytes - free) + " bytes, to the volume's end",
              std::to_string(object.size));
  }
  return whole_blocks(free + object.size);
}

}  // namespace

std::string VolumeObject::name() const {
  const auto end = std::find(padded_name.begin(), padded_name.end(), 0);
  return std::string(padded_name.begin(), end);
}

Result<FixedBytes<kMaxObjectName>> pad_object_name(std::string_view name) {
  GBX_TRY(check_object_name(name));
  FixedBytes<kMaxObjectName> out{};
  std::copy(name.begin(), name.end(), out.begin());
  return out;
}

std::uint64_t VolumeHead::index_bytes() const {
  return whole_blocks(std::uint64_t{objects} * kVolumeEntryBytes);
}

Result<VolumeHead> parse_volume_head(ByteView block) {
  ByteReader r(block);
  GBX_ASSIGN(const ByteView magic, r.take(kVolumeMagic.size()));
  if (as_text(magic) != kVolumeMagic) {
    return fail(Reason::kBadMagic, "volume").with(std::string(kVolumeMagic), "another, or none");
  }
  GBX_ASSIGN(const std::uint32_t version, r.u32());
  if (version != kVolumeVersion) {
    return fail(Reason::kBadVersion, "volume")
        .with(std::to_string(kVolumeVersion), std::to_string(version));
  }
  VolumeHead head;
  GBX_ASSIGN(head.objects, r.u32());
  GBX_ASSIGN(head.volume_bytes, r.u64());
  if (head.objects > kMaxVolumeObjects) {
    return fail(Reason::kTooLarge, "objects of a volume")
        .with("at most " + std::to_string(kMaxVolumeObjects), std::to_string(head.objects));
  }
  const Status size = check_volume_bytes(head.volume_bytes);
  if (!size.ok() || head.index_bytes() > head.volume_bytes - kVolumeBlock) {
    return fail(Reason::kBadStructure, "volume: its size or that of its index");
  }
  GBX_ASSIGN(const ByteView rest, r.take(kVolumeBlock - r.position()));
  GBX_TRY(check_zeros(rest, "what follows its head"));
  GBX_TRY(r.finish());
  return head;
}

Result<std::vector<VolumeObject>> parse_volume_index(ByteView bytes, const VolumeHead& head) {
  ByteReader r(bytes);
  std::vector<VolumeObject> out;
  out.reserve(head.objects);
  std::uint64_t free = kVolumeBlock + head.index_bytes();
  for (std::uint32_t i = 0; i < head.objects; ++i) {
    VolumeObject o;
    GBX_ASSIGN(o.padded_name, r.fixed<kMaxObjectName>());
    GBX_ASSIGN(o.offset, r.u64());
    GBX_ASSIGN(o.size, r.u64());
    const auto again = pad_object_name(o.name());
    if (!again.ok() || *again != o.padded_name) {
      return fail(Reason::kBadStructure, "volume: name of object " + std::to_string(i));
    }
    if (i > 0 && o.padded_name <= out.back().padded_name) {
      return fail(Reason::kBadStructure,
                  "volume: object " + o.name() + " comes twice or out of order");
    }
    GBX_ASSIGN(free, next_free(o, free, head.volume_bytes));
    out.push_back(o);
  }
  GBX_ASSIGN(const ByteView rest, r.take(r.remaining()));
  if (bytes.size() != head.index_bytes()) {
    return fail(Reason::kTrailingBytes, "volume: its index")
        .with(std::to_string(head.index_bytes()), std::to_string(bytes.size()));
  }
  GBX_TRY(check_zeros(rest, "what follows its index"));
  return out;
}

Result<VolumeLayout> lay_out_volume(std::vector<ObjectSize> objects, std::uint64_t volume_bytes) {
  GBX_TRY(check_volume_bytes(volume_bytes));
  VolumeHead head;
  if (objects.size() > kMaxVolumeObjects) {
    return fail(Reason::kTooLarge, "objects of a volume")
        .with("at most " + std::to_string(kMaxVolumeObjects), std::to_string(objects.size()));
  }
  head.objects = static_cast<std::uint32_t>(objects.size());
  std::sort(objects.begin(), objects.end(),
            [](const ObjectSize& a, const ObjectSize& b) { return a.name < b.name; });
  std::uint64_t free = kVolumeBlock + head.index_bytes();
  VolumeLayout out;
  for (const ObjectSize& o : objects) {
    VolumeObject placed;
    GBX_ASSIGN(placed.padded_name, pad_object_name(o.name));
    if (!out.objects.empty() && out.objects.back().padded_name == placed.padded_name) {
      return fail(Reason::kBadValue, "object " + o.name).with("once in a volume", "twice");
    }
    if (free > volume_bytes || o.size > volume_bytes - free) {
      return fail(Reason::kTooLarge, "objects of a volume")
          .with("at most " + std::to_string(volume_bytes) + " bytes in all", "more");
    }
    placed.offset = free;
    placed.size = o.size;
    free = whole_blocks(free + o.size);
    out.objects.push_back(placed);
  }
  if (free > volume_bytes) {
    return fail(Reason::kTooLarge, "the index of a volume")
        .with("room for it", std::to_string(volume_bytes) + " bytes in all");
  }
  ByteWriter w;
  w.text(kVolumeMagic).u32(kVolumeVersion).u32(head.objects).u64(volume_bytes);
  w.zeros(kVolumeBlock - w.bytes().size());
  for (const VolumeObject& o : out.objects) w.raw(o.padded_name).u64(o.offset).u64(o.size);
  w.zeros(kVolumeBlock + head.index_bytes() - w.bytes().size());
  out.front = w.take();
  return out;
}

}  // namespace gbx::storage
