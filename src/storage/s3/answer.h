// One request to S3 and what comes of it: status, headers and body in the pieces in which they
// arrive. The server is untrusted: every piece is bounded, and an answer counts only when it is
// exactly the range that was asked for. Used by one thread; the bytes go into the caller's view.
#pragma once

#include <optional>
#include <string>

#include "base/bytes.h"

namespace gbx::storage {

inline constexpr std::size_t kMaxS3HeaderBytes = 64U << 10;
inline constexpr std::size_t kMaxS3RefusalBytes = 64U << 10;
inline constexpr std::uint64_t kMaxS3ObjectBytes = std::uint64_t{1} << 62;

std::string_view trimmed_text(std::string_view text);  // without blanks at its ends

class S3Answer {
 public:
  // To a GET of out.size() bytes from `offset`, or to a HEAD, with nothing to fill.
  S3Answer(std::string method, std::uint64_t offset, MutableByteView out)
      : method_(std::move(method)), offset_(offset), out_(out) {}

  const std::string& method() const { return method_; }
  // The header `range` of the request; empty: none.
  std::string range() const;
  // Forgets an earlier try.
  void begin();
  int status() const { return status_; }
  // What was wrong when a piece was not taken; empty: all were.
  const std::string& wrong() const { return wrong_; }
  std::optional<std::uint64_t> length() const { return length_; }

  // One header line, or the status line of an interim or the last answer. False: nothing more is
  // taken.
  bool take_head(std::string_view line);
  bool take_body(ByteView bytes);
  // Of a whole answer with status 206. kTruncated when the object ends within the range,
  // kBadStructure when it is anything but the range.
  Status judge() const;

 private:
  bool refuse(const char* what);
  Error other_range() const;

  const std::string method_;
  const std::uint64_t offset_;
  const MutableByteView out_;
  int status_ = 0;
  std::size_t head_bytes_ = 0;
  std::size_t got_ = 0;
  std::size_t refusal_bytes_ = 0;
  std::optional<std::uint64_t> length_;
  std::string range_;
  std::string wrong_;
};

}  // namespace gbx::storage
