#include "agent/memory_bound.h"

#include <algorithm>

#include "asset/prefetch.h"
#include "base/os.h"

namespace gbx::agent {

namespace {

// "MemTotal:       16384 kB"
Result<std::uint64_t> field_of(std::string_view text, std::string_view name) {
  constexpr std::size_t kMostDigits = 13;
  const std::string start = "\n" + std::string(name) + ":";
  const auto at = text.substr(0, name.size()) == name && text.substr(name.size(), 1) == ":"
                      ? 0
                      : text.find(start);
  const Error absent = fail(Reason::kBadStructure, "/proc/meminfo without " + std::string(name));
  if (at == std::string_view::npos) return absent;
  std::uint64_t kib = 0;
  std::size_t digits = 0;
  for (const char c : text.substr(text.find(':', at) + 1)) {
    if (c == ' ' && digits == 0) continue;
    if (c < '0' || c > '9') break;
    if (++digits > kMostDigits) return absent;
    kib = kib * 10 + static_cast<std::uint64_t>(c - '0');
  }
  if (digits == 0) return absent;
  return kib * 1024;
}

std::uint64_t less(std::uint64_t from, std::int64_t what) {
  const auto n = static_cast<std::uint64_t>(std::max<std::int64_t>(what, 0));
  return from > n ? from - n : 0;
}

std::int64_t total_of(const MemoryFacts& facts) {
  return static_cast<std::int64_t>(
      std::min<std::uint64_t>(facts.total_bytes, std::uint64_t{1} << 52));
}

}  // namespace

Result<MemoryFacts> parse_memory_facts(std::string_view meminfo) {
  MemoryFacts facts;
  GBX_ASSIGN(facts.total_bytes, field_of(meminfo, "MemTotal"));
  GBX_ASSIGN(facts.available_bytes, field_of(meminfo, "MemAvailable"));
  return facts;
}

Result<MemoryFacts> memory_facts() {
  GBX_ASSIGN(const std::string text, read_text_file("/proc/meminfo", 1 << 16));
  return parse_memory_facts(text);
}

Status check_controls(const MemoryFacts& facts, const records::PlanControls& c) {
  const std::int64_t lent = records::lent_memory_bytes(total_of(facts));
  if (c.memory_bytes < 1 || c.scratch_bytes < 0 || c.image_bytes < 0 ||
      c.footprint_bytes() > lent) {
    return fail(Reason::kNoCapacity, "memory, scratch and image of the plan")
        .with("at most " + std::to_string(lent) + " bytes",
              std::to_string(c.footprint_bytes()) + " bytes");
  }
  if (c.pids < 1 || c.pids > records::kMaxPids) {
    return fail(Reason::kNoCapacity, "processes of the plan")
        .with("at most " + std::to_string(records::kMaxPids), std::to_string(c.pids));
  }
  return ok_status();
}

Status check_image_room(const MemoryFacts& facts, std::int64_t bytes) {
  const std::int64_t lent = records::lent_memory_bytes(total_of(facts));
  if (bytes >= 1 && bytes <= lent) return ok_status();
  return fail(Reason::kNoCapacity, "room for the image")
      .with("at most " + std::to_string(lent) + " bytes", std::to_string(bytes) + " bytes");
}

Status check_reading(const MemoryFacts& facts, std::int64_t held, std::int64_t more) {
  const std::int64_t most = total_of(facts) / 2;
  if (more >= 0 && held <= most && more <= most - held) return ok_status();
  return fail(Reason::kTooLarge, "memory for prefetching")
      .with("at most " + std::to_string(most) + " bytes in all", std::to_string(more) + " more");
}

std::uint64_t prefetch_bound(const MemoryFacts& facts, const records::PlanControls& controls) {
  const std::uint64_t free = less(facts.available_bytes, controls.footprint_bytes());
  return std::min(facts.total_bytes / 2, free);
}

Status check_prefetch(const records::LaunchBundle& bundle, std::size_t image,
                      const std::vector<std::size_t>& inputs, std::uint64_t bound) {
  std::uint64_t wanted = asset::prefetch_bytes(bundle.versions[image].body);
  for (const std::size_t i : inputs) {
    const std::uint64_t more = asset::prefetch_bytes(bundle.versions[i].body);
    wanted = more > ~std::uint64_t{0} - wanted ? ~std::uint64_t{0} : wanted + more;
  }
  if (wanted <= bound) return ok_status();
  return fail(Reason::kTooLarge, "the job's assets do not fit the memory for prefetching")
      .with("at most " + std::to_string(bound) + " bytes", std::to_string(wanted) + " bytes")
      .hint(
          "ask for less memory, run it where there is more, or ask the owners for policies with "
          "`access: direct`");
}

}  // namespace gbx::agent
