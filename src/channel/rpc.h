// Frames and calls over any byte stream. A frame is a u32 little-endian length and that many bytes.
// A call is one frame each way, both RFC 8785 JSON: {"body","id","method"} and {"body","id"} or
// {"error":{reason,what,expected,actual,next},"id"}. Frames are untrusted until the stream below is
// a TlsChannel whose peer key was checked. One thread per end.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/json.h"
#include "channel/stream.h"

namespace gbx::channel {

inline constexpr std::size_t kMaxFrameBytes = 16U << 20;

// kTooLarge when `body` is above `limit`.
Status write_frame(ByteStream& stream, ByteView body, std::size_t limit, Deadline deadline);
// Empty when the stream ended cleanly before a frame. Memory grows with what arrives, not with the
// length claimed. kTooLarge, kTruncated, and what the stream says. `first` is the deadline of the
// length, `rest` of the whole frame.
Result<std::optional<Bytes>> read_frame(ByteStream& stream, std::size_t limit, Deadline first,
                                        Deadline rest);
// The same with one deadline, where the end of the stream is an error: kConnectionClosed.
Result<Bytes> read_one_frame(ByteStream& stream, std::size_t limit, Deadline deadline);

// One JSON value a frame. Reading refuses anything but the canonical form (kBadEncoding).
Status write_json(ByteStream& stream, const Json& value, std::size_t limit, Deadline deadline);
Result<Json> parse_canonical(ByteView frame, std::size_t limit = kMaxFrameBytes);
Result<Json> read_json(ByteStream& stream, std::size_t limit, Deadline deadline);

// Errors on the wire. What was read is the peer's error with printable texts, or kBadStructure when
// it is not well-formed or names no known reason.
Json error_to_json(const Error& error);
Error error_from_json(const Json& json);

class RpcClient {
 public:
  RpcClient(ByteStream& stream, const Clock& clock, std::size_t max_frame_bytes = kMaxFrameBytes)
      : stream_(stream), clock_(clock), max_frame_bytes_(max_frame_bytes) {}
  // The answer's body, or the error that the server answered with, or why there is none. broken()
  // tells which: after a broken call nothing is known about what the server did, and every further
  // call fails. A request above the limit (kTooLarge) breaks nothing: not a byte of it was sent.
  Result<Json> call(std::string_view method, Json body, std::int64_t timeout_ms);
  bool broken() const { return broken_; }

 private:
  Result<Json> exchange(std::string_view request, std::int64_t id, Deadline deadline,
                        std::optional<Error>* remote);

  ByteStream& stream_;
  const Clock& clock_;
  const std::size_t max_frame_bytes_;
  std::int64_t next_id_ = 1;
  bool broken_ = false;
};

// For a peer that may answer late, over a stream that cannot be opened again. A call that timed out
// breaks nothing: called again with the same words it waits on for the answer to the first, and
// what comes in answer to an earlier call is known by its number and thrown away.
class PatientClient {
 public:
  PatientClient(ByteStream& stream, const Clock& clock, std::size_t max_frame_bytes)
      : stream_(stream), clock_(clock), max_frame_bytes_(max_frame_bytes) {}
  // kTimedOut: there is no answer yet. Everything else that is not the peer's answer ends the
  // stream (broken()), and every further call fails.
  Result<Json> call(std::string_view method, const Json& body, std::int64_t timeout_ms);
  bool broken() const { return broken_; }

 private:
  Status send(const std::string& words, Json request, Deadline deadline);
  Result<Bytes> next_frame(Deadline deadline);
  Result<Json> answer(Deadline deadline, std::optional<Error>* remote);

  ByteStream& stream_;
  const Clock& clock_;
  const std::size_t max_frame_bytes_;
  std::int64_t last_id_ = 0;
  std::string waiting_;  // words of the last call, while it has no answer
  Bytes arrived_;        // of a frame that is not whole yet
  bool broken_ = false;
};

struct ServeLimits {
  std::size_t max_frame_bytes = kMaxFrameBytes;
  std::uint64_t max_frames = 100'000;                // of one connection
  std::uint64_t max_bytes = std::uint64_t{1} << 32;  // received on one connection
  std::int64_t idle_ms = 120'000;                    // between requests
  // to receive one request, and to send one answer
  std::int64_t frame_ms = 60'000;
};
// kNotFound is the answer for a method that it does not know.
using Dispatch = std::function<Result<Json>(std::string_view method, const Json& body)>;
// Serves one connection until the peer ends it (ok), a limit is met (kRateLimited, told to the
// peer), or something breaks. A request that is not well-formed ends the connection; an error of
// `dispatch` is an answer.
Status serve(ByteStream& stream, const Dispatch& dispatch, const ServeLimits& limits,
             const Clock& clock);

}  // namespace gbx::channel
