// What a firmware image says about its own launch: the table of GUIDs below its reset vector, and
// in it the TDX metadata (Intel TDX Virtual Firmware Design Guide, section 11) and the SEV metadata
// (edk2, OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm). A Firmware owns the image. Threads:
// immutable once parsed. The image is untrusted: whoever measures a release may have got it from
// anybody.
#pragma once

#include <optional>
#include <vector>

#include "base/bytes.h"

namespace gbx::vm::measure {

inline constexpr std::size_t kPageSize = 4096;
inline constexpr std::size_t kMaxFirmwareSize = 16U << 20;
inline constexpr std::uint32_t kMaxFirmwareSections = 64;
// All memory that the sections of one kind name together.
inline constexpr std::uint64_t kMaxSectionMemory = 256U << 20;

// The kinds that QEMU takes; it refuses an image with another one (hw/i386/tdvf.c).
enum class TdvfKind : std::uint32_t { kBfv = 0, kCfv = 1, kTdHob = 2, kTempMem = 3 };
struct TdvfSection {
  std::uint32_t offset = 0;  // in the image
  std::uint32_t data_size = 0;
  std::uint64_t address = 0;  // of the guest, a whole page
  std::uint64_t size = 0;     // whole pages
  TdvfKind kind = TdvfKind::kBfv;
  bool measured = false;  // TDH.MR.EXTEND over its bytes
};

enum class SevKind : std::uint32_t {
  kMemory = 1,
  kSecrets = 2,
  kCpuid = 3,
  kSvsmCaa = 4,
  kKernelHashes = 0x10,
};
struct SevSection {
  std::uint32_t address = 0;
  std::uint32_t size = 0;
  SevKind kind = SevKind::kMemory;
};

class Firmware {
 public:
  // kTooLarge, kBadStructure, kTruncated, kTrailingBytes: the image is none that QEMU would start,
  // or says something of itself that cannot be.
  static Result<Firmware> parse(Bytes image);

  ByteView image() const { return image_; }
  // Where its first byte lies in the guest: it ends at 4 GiB.
  std::uint64_t base() const { return (std::uint64_t{1} << 32) - image_.size(); }
  // In the image's order, which is the order of measuring. Empty without such metadata.
  const std::vector<TdvfSection>& tdvf() const { return tdvf_; }
  const std::vector<SevSection>& sev() const { return sev_; }
  const SevSection* find(SevKind kind) const;
  const TdvfSection* find(TdvfKind kind) const;
  // Where QEMU writes the hashes of kernel, initrd and command line; absent where the build left
  // room for none (OvmfPkgX64 does, AmdSevX64 does not).
  std::optional<std::uint32_t> hash_table() const { return hash_table_; }
  // Where the second and every further processor starts; absent in builds without SEV-ES.
  std::optional<std::uint32_t> reset_address() const { return reset_address_; }

 private:
  Status take_entry(ByteView guid, ByteView data);
  Status read_table();
  Status read_tdvf(ByteView entry);
  Status read_sev(ByteView entry);
  Status read_hash_table(ByteView entry);

  Bytes image_;
  std::vector<TdvfSection> tdvf_;
  std::vector<SevSection> sev_;
  std::optional<std::uint32_t> hash_table_;
  std::optional<std::uint32_t> reset_address_;
};

// kUnsupported, naming the build that has them.
Status require_tdx(const Firmware& firmware);
Status require_sev(const Firmware& firmware);

}  // namespace gbx::vm::measure
