#include "plane/http/message.h"

#include "httpsig/error_body.h"

namespace gbx::plane::http {
namespace {

bool is_private(Reason reason) {
  const ExitClass cls = exit_class(reason);
  return cls == ExitClass::kInternal || cls == ExitClass::kOk || reason == Reason::kIo ||
         reason == Reason::kDatabase;
}

int status_of_usage(Reason reason) {
  switch (reason) {
    case Reason::kTooLarge:
      return 413;
    case Reason::kNotFound:
      return 404;
    case Reason::kAlreadyExists:
    case Reason::kConflict:
    case Reason::kIdempotencyMismatch:
      return 409;
    case Reason::kUnknownField:
    case Reason::kMissingField:
    case Reason::kBadValue:
      return 422;
    default:
      return 400;  // an open list: every other complaint about the input
  }
}

}  // namespace

int http_status(Reason reason) {
  if (reason == Reason::kUnauthenticated || reason == Reason::kReplayed) return 401;
  if (reason == Reason::kRateLimited || reason == Reason::kQuotaExceeded) return 429;
  if (reason == Reason::kWrongState) return 409;
  switch (exit_class(reason)) {
    case ExitClass::kOk:
    case ExitClass::kInternal:
      return 500;
    case ExitClass::kUsage:
      return status_of_usage(reason);
    case ExitClass::kDenied:
    case ExitClass::kAttestation:
      return 403;
    case ExitClass::kIntegrity:
      return 422;
    case ExitClass::kHeld:
    case ExitClass::kFailed:
      return 409;
    case ExitClass::kInfrastructure:
      return 503;
  }
  return 500;
}

Response json_response(int status, const Json& value) {
  Response r;
  r.status = status;
  r.body = to_bytes(as_bytes(canonical(value)));
  return r;
}

Response error_response(const Error& error, int status) {
  if (status == 0) status = http_status(error.reason);
  Error shown = error;
  if (is_private(error.reason)) {
    shown = Error(error.reason == Reason::kUninitialised ? Reason::kInternal : error.reason,
                  "the service could not do this; its log says why");
    shown.hint("repeat later; tell the operator the glovebox-request-id of this answer");
  }
  Response r = json_response(status, httpsig::error_to_json(shown));
  if (is_private(error.reason)) r.hidden = error;
  if (status == 503 || status == 429) r.headers["retry-after"] = "1";
  return r;
}

Result<std::size_t> VerifiedBody::read(MutableByteView out) {
  if (end_) return *end_;
  Result<std::size_t> n = inner_->read(out);
  if (!n.ok()) {
    end_ = n;
  } else if (*n > 0) {
    hash_.update(out.first(*n));
  } else {
    const Hash32 actual = hash_.finish();
    if (actual == announced_) {
      end_ = Result<std::size_t>(std::size_t{0});
    } else {
      end_ = Result<std::size_t>(fail(Reason::kBadHash, "body of the request")
                                     .with(to_hex(announced_), to_hex(actual))
                                     .hint("send it again"));
    }
    return *end_;
  }
  return n;
}

}  // namespace gbx::plane::http
