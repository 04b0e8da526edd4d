#include "cli/progress.h"

namespace gbx::cli {

namespace {
constexpr std::int64_t kRedrawMs = 100;
}

void Progress::show(std::uint64_t done, std::uint64_t total) {
  if (session_.live_display()) {
    const std::int64_t now = session_.clock().steady_ms();
    if (now - last_ms_ < kRedrawMs && done != total) return;
    last_ms_ = now;
    drawn_ = true;
    session_.status_line(title_ + " " + progress_bar(done, total));
    return;
  }
  if (session_.format() != Format::kTable) return;
  const std::uint64_t tenth = total == 0 ? 0 : done * 10 / total;
  if (tenth == tenth_) return;
  tenth_ = tenth;
  const std::string part =
      total == 0 ? ""
                 : " of " + human_bytes(total) + " (" + std::to_string(done * 100 / total) + " %)";
  session_.note(title_ + ": " + human_bytes(done) + part);
}
void Progress::end() {
  if (drawn_) session_.clear_status_line();
  drawn_ = false;
}

}  // namespace gbx::cli
