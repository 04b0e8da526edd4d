// The broker's log as it lies on a disk that is not the broker's: a line of canonical JSON for each
// entry. An entry is folded whole or not at all.
#include "broker/log.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gbx;
  using namespace gbx::broker;
  std::string_view rest = as_text(ByteView(data, size));
  State state;
  std::int64_t leaf = 0;
  while (!rest.empty() && leaf < 64) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const auto entry = from_json_text<LogEntry>(rest.substr(0, end), kReplayLimits);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!entry.ok()) continue;
    const Json before = state.snapshot();
    const Status applied = state.apply(*entry, leaf, end);
    if (applied.ok()) {
      fuzz::require(check_body(*entry).ok());
      ++leaf;
    } else {
      fuzz::require(state.snapshot() == before);
    }
  }
  return 0;
}
