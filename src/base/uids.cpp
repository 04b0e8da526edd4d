#include "base/uids.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/log.h"
#include "base/os.h"

namespace gbx {

namespace {

constexpr std::size_t kMaxFile = 64U << 20;

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> out;
  std::size_t at = 0;
  while (at <= line.size()) {
    const std::size_t colon = std::min(line.find(':', at), line.size());
    out.push_back(line.substr(at, colon - at));
    at = colon + 1;
  }
  return out;
}
std::optional<std::int64_t> number(const std::string& s) {
  if (s.empty() || s.size() > 10 || s.find_first_not_of("0123456789") != std::string::npos) {
    return std::nullopt;
  }
  return std::stoll(s);
}

// What one line gives away: "name:first:count" of subordinate ids, else one id in the third column
// (and, of an account, the group in the fourth).
std::vector<UidRange> given_away(const std::vector<std::string>& columns, bool subordinate) {
  std::vector<UidRange> out;
  if (columns.size() < 3) return out;
  if (subordinate) {
    const auto first = number(columns[1]);
    const auto count = number(columns[2]);
    if (first && count) out.push_back({*first, *count});
    return out;
  }
  for (std::size_t i = 2; i < columns.size() && i < 4; ++i) {
    if (const auto id = number(columns[i])) out.push_back({*id, 1});
  }
  return out;
}

std::string text(const UidRange& r) {
  return std::to_string(r.first) + (r.count > 1 ? " to " + std::to_string(r.last()) : "");
}

Status check_file(const UidRange& range, const std::string& path, bool subordinate) {
  auto content = read_text_file(path, kMaxFile);
  if (!content.ok()) {
    return content.reason() == Reason::kNotFound ? ok_status() : Status(content.error());
  }
  std::size_t at = 0;
  for (std::size_t number_of_line = 1; at < content->size(); ++number_of_line) {
    const std::size_t end = std::min(content->find('\n', at), content->size());
    const auto columns = split(content->substr(at, end - at));
    at = end + 1;
    for (const UidRange& taken : given_away(columns, subordinate)) {
      if (taken.count < 1 || taken.first > range.last() || taken.last() < range.first) continue;
      return fail(Reason::kConflict,
                  "user ids that the programs would run under belong to somebody else")
          .with(text(range) + " free", path + " line " + std::to_string(number_of_line) +
                                           " gives " + text(taken) + " to " +
                                           printable(columns[0], 64))
          .hint("choose a free range: --uid-base N takes " + std::to_string(range.count) +
                " ids from N on");
    }
  }
  return ok_status();
}

}  // namespace

Status check_uids_free(const UidRange& range, const std::string& etc) {
  if (range.first < kLowestUid || range.first > kHighestUid || range.count < 1 ||
      range.last() > kHighestUid) {
    return fail(Reason::kUsage, "--uid-base")
        .with(std::to_string(kLowestUid) + " to " + std::to_string(kHighestUid - range.count + 1),
              std::to_string(range.first))
        .hint("leave out the ids of accounts and those that programs take for none");
  }
  GBX_TRY(check_file(range, etc + "/subuid", true));
  GBX_TRY(check_file(range, etc + "/subgid", true));
  GBX_TRY(check_file(range, etc + "/passwd", false));
  // A group's line has its id in the third column too; its members follow, which are no numbers.
  return check_file(range, etc + "/group", false);
}

}  // namespace gbx
