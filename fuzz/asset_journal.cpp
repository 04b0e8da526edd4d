// The journal of a publication after a crash or a full disk: whatever lies there is read to an end
// or refused.
#include <sys/mman.h>
#include <unistd.h>

#include "asset/journal.h"
#include "fuzz/fuzz.h"
#include "fuzz/tree_input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gbx;
  const Fd file(memfd_create("journal", MFD_CLOEXEC));
  fuzz::require(file.valid() && ::write(file.get(), data, size) == static_cast<ssize_t>(size));
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  const DatasetKey key = DatasetKey::copy_of(Bytes(32, 5));
  auto reader = asset::JournalReader::open(path, key, fuzz::kTreeAsset);
  if (!reader.ok()) return 0;
  const auto about = asset::journal_asset(path);
  fuzz::require(about.ok() && *about == fuzz::kTreeAsset);
  for (std::size_t frames = 0;; ++frames) {
    fuzz::require(frames <= size);
    const auto frame = reader->next();
    if (!frame.ok() || !*frame) break;
  }
  return 0;
}
