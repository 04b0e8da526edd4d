#include "storage/s3/answer.h"

#include <algorithm>
#include <charconv>

#include "base/printable.h"

namespace gbx::storage {

namespace {

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc{} || end != text.data() + text.size() || n > kMaxS3ObjectBytes) return {};
  return n;
}

}  // namespace

std::string_view trimmed_text(std::string_view text) {
  const std::string_view blanks = " \t\r\n";
  const std::size_t from = text.find_first_not_of(blanks);
  if (from == text.npos) return {};
  return text.substr(from, text.find_last_not_of(blanks) - from + 1);
}

std::string S3Answer::range() const {
  if (out_.empty()) return {};
  return "bytes=" + std::to_string(offset_) + "-" + std::to_string(offset_ + out_.size() - 1);
}

void S3Answer::begin() {
  status_ = 0;
  head_bytes_ = got_ = refusal_bytes_ = 0;
  length_.reset();
  range_.clear();
  wrong_.clear();
}

bool S3Answer::take_head(std::string_view line) {
  head_bytes_ += line.size();
  if (head_bytes_ > kMaxS3HeaderBytes) return refuse("headers without an end");
  if (line.starts_with("HTTP/")) {  // an interim answer may come before
    const std::size_t at = line.find(' ');
    const auto code = at == line.npos ? std::nullopt : number(line.substr(at + 1, 3));
    if (!code) return refuse("no status");
    status_ = static_cast<int>(*code);
    length_.reset();
    range_.clear();
    return true;
  }
  const std::size_t colon = line.find(':');
  if (colon == line.npos) return true;
  std::string name(line.substr(0, colon));
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
  const std::string_view value = trimmed_text(line.substr(colon + 1));
  if (name == "content-range") {
    if (!range_.empty()) return refuse("two ranges");
    range_ = value;
  }
  if (name == "content-length") {
    const auto n = number(value);
    if (!n || (length_ && *length_ != *n)) return refuse("no length");
    length_ = n;
  }
  return true;
}

bool S3Answer::take_body(ByteView bytes) {
  if (status_ != 206 || out_.empty()) {
    refusal_bytes_ += bytes.size();
    return refusal_bytes_ <= kMaxS3RefusalBytes || refuse("a body without an end");
  }
  if (bytes.size() > out_.size() - got_) return refuse("more bytes than the range has");
  std::copy(bytes.begin(), bytes.end(), out_.begin() + static_cast<std::ptrdiff_t>(got_));
  got_ += bytes.size();
  return true;
}

Status S3Answer::judge() const {
  const std::string from = "bytes " + std::to_string(offset_) + "-";
  const std::size_t slash = range_.find('/');
  if (out_.empty() || !range_.starts_with(from) || slash == std::string::npos) {
    return other_range();
  }
  const std::string_view text = range_;
  const auto last = number(text.substr(from.size(), slash - from.size()));
  const auto total = number(text.substr(slash + 1));
  if (!last || !total || *last >= *total) return other_range();
  const std::uint64_t wanted = offset_ + out_.size() - 1;
  if (*last == *total - 1 && *last < wanted) return fail(Reason::kTruncated, "object");
  if (*last != wanted || got_ != out_.size()) return other_range();
  return ok_status();
}

bool S3Answer::refuse(const char* what) {
  wrong_ = what;
  return false;
}

Error S3Answer::other_range() const {
  return fail(Reason::kBadStructure, "the range that the store sent")
      .with(range() + ", " + std::to_string(out_.size()) + " bytes",
            printable(range_) + ", " + std::to_string(got_) + " bytes");
}

}  // namespace gbx::storage
