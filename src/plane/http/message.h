// What a handler of the plane's HTTPS API gets and gives. No HTTP library shows through. A Request
// is untrusted input that has passed only the syntax checks of target.h; a Response is ours.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"
#include "crypto/crypto.h"

namespace gbx::plane::http {

// The body of a streamed upload, read by the handler's own thread in bounded memory. Not
// thread-safe.
class BodyReader {
 public:
  virtual ~BodyReader() = default;
  // Waits for bytes; 0 only at the end of a whole body. Errors: kConnectionClosed, kTimedOut.
  virtual Result<std::size_t> read(MutableByteView out) = 0;
};

struct Request {
  std::string method;                          // upper case
  std::string target;                          // exactly as sent: what the signature covers
  std::vector<std::string> path;               // decoded segments, none empty, none "." or ".."
  std::map<std::string, std::string> query;    // decoded
  std::map<std::string, std::string> headers;  // names in lower case, none twice
  Bytes body;                                  // whole, unless the route streams
  std::shared_ptr<BodyReader> stream;          // set when the route streams
  std::uint64_t content_length = 0;
  std::string peer;  // IP address
  // for logs; the response carries it as glovebox-request-id
  std::string id;
};

// Gives the next bytes of a streamed download: 0 at the end. Called on a pool thread, one call at a
// time.
using Source = std::function<Result<std::size_t>(MutableByteView)>;

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  Bytes body;
  Source source;                               // when set, `body` is not used
  std::optional<std::uint64_t> source_length;  // unknown: chunked
  std::map<std::string, std::string> headers;  // more headers, names in lower case
  std::optional<Error> hidden;                 // for the log only, never sent
  // the request was somebody's whom the service knows: never sent
  bool known_caller = false;
};

// The closed map from reasons to status codes (docs/api.md).
int http_status(Reason reason);
Response json_response(int status, const Json& value);
// The constant error body. What went wrong inside (500, files, database) goes to our log as
// `hidden`: the caller gets the reason and the request id. status 0: http_status(error.reason).
Response error_response(const Error& error, int status = 0);

// Checks a streamed body against the hash and length that the signed headers announced while it is
// read: the end is reported only when both are right, else kBadHash. Until then the bytes are
// unproven.
class VerifiedBody final : public BodyReader {
 public:
  VerifiedBody(std::shared_ptr<BodyReader> inner, const Hash32& announced)
      : inner_(std::move(inner)), announced_(announced) {}
  Result<std::size_t> read(MutableByteView out) override;

 private:
  std::shared_ptr<BodyReader> inner_;
  Hash32 announced_;
  crypto::Sha256 hash_;
  std::optional<Result<std::size_t>> end_;  // the verdict, once reached
};

}  // namespace gbx::plane::http
