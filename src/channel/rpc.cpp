#include "channel/rpc.h"

#include <algorithm>

#include "base/fields.h"
#include "base/log.h"

namespace gbx::channel {
namespace {

constexpr std::size_t kPiece = 64U << 10;
constexpr std::size_t kMaxMethod = 64;
constexpr std::size_t kMaxErrorText = 1024;
constexpr std::int64_t kMaxId = kMaxJsonInteger;

struct Request {
  Json body;
  std::int64_t id = 0;
  std::string method;
  template <class F>
  void fields(F& f) {
    f("body", body);
    f("id", id, Bound{1, kMaxId});
    f("method", method, Bound{1, std::int64_t{kMaxMethod}});
  }
};
struct WireError {
  std::string reason, what, expected, actual, next;
  template <class F>
  void fields(F& f) {
    // wire_text() may end one escaped character beyond its limit.
    const Bound text{0, std::int64_t{kMaxErrorText + 16}};
    f("reason", reason, Bound{1, 64});
    f("what", what, text);
    f("expected", expected, text);
    f("actual", actual, text);
    f("next", next, text);
  }
};
struct Response {
  std::optional<Json> body;
  std::optional<WireError> error;
  std::int64_t id = 0;
  template <class F>
  void fields(F& f) {
    f("body", body);
    f("error", error);
    f("id", id, Bound{1, kMaxId});
  }
};

std::string wire_text(std::string_view text) { return printable(text, kMaxErrorText); }

WireError wire_error(const Error& e) {
  return {std::string(reason_code(e.reason)), wire_text(e.what), wire_text(e.expected),
          wire_text(e.actual), wire_text(e.next)};
}

Error error_of(const WireError& w) {
  Error e;
  if (!reason_from_code(w.reason, &e.reason)) {
    return fail(Reason::kBadStructure, "the peer reported an unknown reason")
        .with("a code of the list", printable(w.reason, 64));
  }
  e.what = wire_text(w.what);
  e.expected = wire_text(w.expected);
  e.actual = wire_text(w.actual);
  e.next = wire_text(w.next);
  return e;
}

Status check_size(std::size_t size, std::size_t limit) {
  if (size <= limit && size <= UINT32_MAX) return ok_status();
  return fail(Reason::kTooLarge, "frame")
      .with("at most " + std::to_string(limit) + " bytes", std::to_string(size));
}

// The body, or the peer's error in `remote`.
Result<Json> taken(Response response, std::optional<Error>* remote) {
  if (response.body.has_value() == response.error.has_value()) {
    return fail(Reason::kBadStructure, "answer")
        .with("either body or error", response.body ? "both" : "neither");
  }
  if (!response.error) return std::move(*response.body);
  *remote = error_of(*response.error);
  return Json();
}
Error other_answer(std::int64_t expected, std::int64_t actual) {
  return fail(Reason::kBadStructure, "answer to another call")
      .with(std::to_string(expected), std::to_string(actual));
}

Status answer(ByteStream& stream, const Response& response, const ServeLimits& limits,
              const Clock& clock) {
  return write_json(stream, to_json(response), limits.max_frame_bytes,
                    Deadline::after_ms(clock, limits.frame_ms));
}

}  // namespace

Status write_frame(ByteStream& stream, ByteView body, std::size_t limit, Deadline deadline) {
  GBX_TRY(check_size(body.size(), limit));
  ByteWriter header;
  header.u32(static_cast<std::uint32_t>(body.size()));
  // Small frames go out in one write, and so in one TLS record and one packet.
  const std::size_t with_header = std::min(body.size(), kPiece);
  GBX_TRY(stream.write_all(concat({header.bytes(), body.first(with_header)}), deadline));
  if (with_header == body.size()) return ok_status();
  return stream.write_all(body.subspan(with_header), deadline);
}

Result<std::optional<Bytes>> read_frame(ByteStream& stream, std::size_t limit, Deadline first,
                                        Deadline rest) {
  FixedBytes<4> header{};
  GBX_ASSIGN(const std::size_t got, stream.read(header, first));
  if (got == 0) return std::optional<Bytes>();
  GBX_TRY(read_exact(stream, MutableByteView(header).subspan(got), rest));
  ByteReader reader(header);
  GBX_ASSIGN(const std::uint32_t size, reader.u32());
  if (size > limit) {
    return fail(Reason::kTooLarge, "frame")
        .with("at most " + std::to_string(limit) + " bytes", std::to_string(size));
  }
  Bytes body;
  while (body.size() < size) {
    const std::size_t at = body.size();
    body.resize(std::min<std::size_t>(size, at + kPiece));
    GBX_TRY(read_exact(stream, MutableByteView(body).subspan(at), rest));
  }
  return std::optional<Bytes>(std::move(body));
}

Result<Bytes> read_one_frame(ByteStream& stream, std::size_t limit, Deadline deadline) {
  GBX_ASSIGN(std::optional<Bytes> frame, read_frame(stream, limit, deadline, deadline));
  if (!frame) return fail(Reason::kConnectionClosed, "the peer ended the stream");
  return std::move(*frame);
}

Status write_json(ByteStream& stream, const Json& value, std::size_t limit, Deadline deadline) {
  return write_frame(stream, as_bytes(canonical(value)), limit, deadline);
}

Result<Json> parse_canonical(ByteView frame, std::size_t limit) {
  JsonLimits limits;
  limits.max_bytes = limit;
  GBX_ASSIGN(Json json, parse_json(as_text(frame), limits));
  if (canonical(json) != as_text(frame)) {
    return fail(Reason::kBadEncoding, "JSON of a frame").with("RFC 8785 form", "another");
  }
  return json;
}

Result<Json> read_json(ByteStream& stream, std::size_t limit, Deadline deadline) {
  GBX_ASSIGN(const Bytes frame, read_one_frame(stream, limit, deadline));
  return parse_canonical(frame, limit);
}

Json error_to_json(const Error& error) { return to_json(wire_error(error)); }

Error error_from_json(const Json& json) {
  const auto w = from_json<WireError>(json);
  return w.ok() ? error_of(*w)
                : fail(Reason::kBadStructure, "the peer's error is malformed: " + w.error().line());
}

Result<Json> RpcClient::call(std::string_view method, Json body, std::int64_t timeout_ms) {
  if (broken_) {
    return fail(Reason::kConnectionClosed, "an earlier call broke this connection")
        .hint("connect again");
  }
  const Request request{std::move(body), next_id_++, std::string(method)};
  const std::string text = canonical(to_json(request));
  Status fits = check_size(text.size(), max_frame_bytes_);
  if (!fits.ok()) return fits.error().at("call " + request.method);
  std::optional<Error> remote;
  auto result = exchange(text, request.id, Deadline::after_ms(clock_, timeout_ms), &remote);
  if (remote) return *remote;
  if (!result.ok()) {
    broken_ = true;
    stream_.close();
    return result.error().at("call " + std::string(method));
  }
  return result;
}

Result<Json> RpcClient::exchange(std::string_view request, std::int64_t id, Deadline deadline,
                                 std::optional<Error>* remote) {
  GBX_TRY(write_frame(stream_, as_bytes(request), max_frame_bytes_, deadline));
  GBX_ASSIGN(const Json json, read_json(stream_, max_frame_bytes_, deadline));
  GBX_ASSIGN(Response response, from_json<Response>(json));
  if (response.id != id) return other_answer(id, response.id);
  return taken(std::move(response), remote);
}

Result<Json> PatientClient::call(std::string_view method, const Json& body,
                                 std::int64_t timeout_ms) {
  if (broken_) return fail(Reason::kConnectionClosed, "an earlier call broke this stream");
  const auto deadline = Deadline::after_ms(clock_, timeout_ms);
  Request request{body, last_id_ + 1, std::string(method)};
  const std::string words = request.method + canonical(body);
  Status sent = waiting_ == words ? ok_status() : send(words, to_json(request), deadline);
  std::optional<Error> remote;
  auto result = sent.ok() ? answer(deadline, &remote) : Result<Json>(sent.error());
  // A request that was not taken whole leaves the peer within a frame.
  broken_ = !result.ok() && (!sent.ok() || result.reason() != Reason::kTimedOut);
  if (result.ok()) waiting_.clear();
  if (broken_) stream_.close();
  if (remote) return *remote;
  if (!result.ok()) return result.error().at("call " + request.method);
  return result;
}

Status PatientClient::send(const std::string& words, Json request, Deadline deadline) {
  ++last_id_;
  waiting_ = words;
  return write_frame(stream_, as_bytes(canonical(request)), max_frame_bytes_, deadline);
}

// What has arrived of a frame is kept when the rest is late.
Result<Bytes> PatientClient::next_frame(Deadline deadline) {
  constexpr std::size_t kHeader = 4;
  std::size_t size = 0;
  for (;;) {
    if (arrived_.size() >= kHeader) {
      ByteReader reader(ByteView(arrived_).first(kHeader));
      GBX_ASSIGN(size, reader.u32());
      GBX_TRY(check_size(size, max_frame_bytes_));
    }
    const std::size_t whole = kHeader + size;
    if (arrived_.size() >= kHeader && arrived_.size() == whole) break;
    Bytes piece(std::min(kPiece, whole - arrived_.size()));
    GBX_ASSIGN(const std::size_t got, stream_.read(piece, deadline));
    if (got == 0) return fail(Reason::kConnectionClosed, "the peer ended the stream");
    arrived_.insert(arrived_.end(), piece.begin(),
                    piece.begin() + static_cast<std::ptrdiff_t>(got));
  }
  Bytes body(arrived_.begin() + kHeader, arrived_.end());
  arrived_.clear();
  return body;
}

Result<Json> PatientClient::answer(Deadline deadline, std::optional<Error>* remote) {
  for (;;) {
    GBX_ASSIGN(const Bytes frame, next_frame(deadline));
    GBX_ASSIGN(const Json json, parse_canonical(frame, max_frame_bytes_));
    GBX_ASSIGN(Response response, from_json<Response>(json));
    if (response.id > last_id_) return other_answer(last_id_, response.id);
    if (response.id == last_id_) return taken(std::move(response), remote);
    if (deadline.passed()) return fail(Reason::kTimedOut, "only answers to earlier calls");
  }
}

Status serve(ByteStream& stream, const Dispatch& dispatch, const ServeLimits& limits,
             const Clock& clock) {
  std::uint64_t frames = 0;
  std::uint64_t bytes = 0;
  for (;;) {
    const Deadline idle = Deadline::after_ms(clock, limits.idle_ms);
    const Deadline frame_end = Deadline::after_ms(clock, limits.idle_ms + limits.frame_ms);
    GBX_ASSIGN(std::optional<Bytes> frame,
               read_frame(stream, limits.max_frame_bytes, idle, frame_end));
    if (!frame) return ok_status();
    GBX_ASSIGN(const Json json, parse_canonical(*frame, limits.max_frame_bytes));
    GBX_ASSIGN(const Request request, from_json<Request>(json));
    ++frames;
    bytes += frame->size();
    frame.reset();
    Response response;
    response.id = request.id;
    if (frames > limits.max_frames || bytes > limits.max_bytes) {
      const Error limit =
          fail(Reason::kRateLimited, "requests on one connection").hint("connect again");
      response.error = wire_error(limit);
      GBX_TRY(answer(stream, response, limits, clock));
      return limit;
    }
    auto result = dispatch(request.method, request.body);
    if (result.ok()) {
      response.body = std::move(*result);
    } else {
      response.error = wire_error(result.error());
    }
    Status sent = answer(stream, response, limits, clock);
    if (sent.ok()) continue;
    if (sent.reason() != Reason::kTooLarge) return sent;
    response.body.reset();
    response.error = wire_error(sent.error().at("answer"));
    GBX_TRY(answer(stream, response, limits, clock));
  }
}

}  // namespace gbx::channel
