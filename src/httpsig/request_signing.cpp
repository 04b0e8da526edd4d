#include "httpsig/request_signing.h"

#include <algorithm>

#include "base/json.h"

namespace gbx::httpsig {
namespace {

using Headers = std::map<std::string, std::string>;

constexpr std::size_t kMaxHeaderText = 256;

struct SignedText {
  std::string identity, key, time, nonce, body_hash;
};

Bytes message_of(const RequestLine& line, const SignedText& text, std::int64_t time_seconds) {
  JsonObject body;
  body.emplace("bodyHash", text.body_hash);
  body.emplace("identity", text.identity);
  body.emplace("key", text.key);
  body.emplace("method", line.method);
  body.emplace("nonce", text.nonce);
  body.emplace("setId", to_hex(line.set_id));
  body.emplace("target", line.target);
  body.emplace("time", time_seconds);
  // its terminating zero is part of the message
  static constexpr char kLabel[] = "gbx/1/http-request";
  const std::string json = canonical(Json(std::move(body)));
  return concat(
      {ByteView(reinterpret_cast<const std::uint8_t*>(kLabel), sizeof kLabel), as_bytes(json)});
}

Error unauthenticated(std::string what) {
  return fail(Reason::kUnauthenticated, std::move(what))
      .hint("sign the request with your identity key; `glovebox identity show` names it");
}

Result<std::string> header(const Headers& headers, const char* name) {
  const auto it = headers.find(name);
  if (it == headers.end()) return unauthenticated(std::string("header ") + name + " is missing");
  if (it->second.empty() || it->second.size() > kMaxHeaderText) {
    return unauthenticated(std::string("header ") + name + " has a wrong length");
  }
  return it->second;
}

// Decimal without sign or leading zero, so that the text and the signed number are the same thing.
Result<std::int64_t> parse_seconds(const std::string& text) {
  if (text.size() > 15 || (text.size() > 1 && text[0] == '0')) {
    return unauthenticated("glovebox-time is malformed");
  }
  std::int64_t v = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return unauthenticated("glovebox-time is malformed");
    v = v * 10 + (c - '0');
  }
  return v;
}

template <std::size_t N>
Result<FixedBytes<N>> parse_hex(const char* name, const std::string& text) {
  Result<FixedBytes<N>> value = fixed_from_hex<N>(text);
  if (!value.ok()) return unauthenticated(std::string("header ") + name + " is malformed");
  return value;
}

}  // namespace

Result<HeaderList> sign_request(const RequestLine& line, const Hash32& body_hash,
                                const Hash32& identity, const crypto::SigningKey& key,
                                std::int64_t now_seconds, Random& random) {
  if (!valid_utf8(line.target) || !valid_utf8(line.method)) {
    return fail(Reason::kBadEncoding, "request target");
  }
  SignedText text;
  text.identity = to_hex(identity);
  text.key = key.public_key().text();
  text.time = std::to_string(now_seconds);
  text.nonce = to_hex(random.fixed<16>());
  text.body_hash = to_hex(body_hash);
  GBX_ASSIGN(const Bytes signature, key.sign(message_of(line, text, now_seconds)));
  HeaderList out;
  out.emplace_back(kIdentityHeader, text.identity);
  out.emplace_back(kKeyHeader, text.key);
  out.emplace_back(kTimeHeader, text.time);
  out.emplace_back(kNonceHeader, text.nonce);
  out.emplace_back(kBodyHashHeader, text.body_hash);
  out.emplace_back(kSignatureHeader, to_base64url(signature));
  return out;
}

Result<VerifiedRequest> verify_signature(const RequestLine& line, const Headers& headers,
                                         std::int64_t now_seconds) {
  if (!valid_utf8(line.target) || !valid_utf8(line.method)) {
    return unauthenticated("request target is not UTF-8");
  }
  SignedText text;
  GBX_ASSIGN(text.identity, header(headers, kIdentityHeader));
  GBX_ASSIGN(text.key, header(headers, kKeyHeader));
  GBX_ASSIGN(text.time, header(headers, kTimeHeader));
  GBX_ASSIGN(text.nonce, header(headers, kNonceHeader));
  GBX_ASSIGN(text.body_hash, header(headers, kBodyHashHeader));
  GBX_ASSIGN(const std::string signature_text, header(headers, kSignatureHeader));

  GBX_ASSIGN(const Hash32 identity, parse_hex<32>(kIdentityHeader, text.identity));
  GBX_ASSIGN(const Id16 nonce, parse_hex<16>(kNonceHeader, text.nonce));
  GBX_ASSIGN(const Hash32 body_hash, parse_hex<32>(kBodyHashHeader, text.body_hash));
  GBX_ASSIGN(const std::int64_t time_seconds, parse_seconds(text.time));
  Result<crypto::PublicKey> key = crypto::PublicKey::from_text(text.key);
  if (!key.ok()) return unauthenticated("header glovebox-key is no public key");
  const Result<Bytes> signature = from_base64url(signature_text);
  if (!signature.ok()) return unauthenticated("header glovebox-signature is malformed");

  if (time_seconds < now_seconds - kMaxSkewSeconds ||
      time_seconds > now_seconds + kMaxSkewSeconds) {
    return fail(Reason::kExpired, "time of the signed request")
        .with("within " + std::to_string(kMaxSkewSeconds) + " s of " + std::to_string(now_seconds),
              text.time)
        .hint("set this machine's clock");
  }
  if (!key->verify(message_of(line, text, time_seconds), *signature)) {
    return fail(Reason::kBadSignature, "signature of the request")
        .hint("sign exactly the method, target and body sent, for this installation's set id");
  }
  return VerifiedRequest{identity, std::move(*key), body_hash, nonce, time_seconds};
}

void ReplayCache::forget_first() {
  const Entry& entry = by_expiry_.begin()->second;
  const auto count = per_identity_.find(entry.first);
  if (--count->second == 0) per_identity_.erase(count);
  seen_.erase(entry);
  by_expiry_.erase(by_expiry_.begin());
}

Status ReplayCache::remember(const VerifiedRequest& request, std::int64_t now_seconds) {
  const std::lock_guard lock(mutex_);
  while (!by_expiry_.empty() && by_expiry_.begin()->first < now_seconds) forget_first();
  const Entry entry(request.identity, request.nonce);
  if (seen_.contains(entry)) {
    return fail(Reason::kReplayed, "this signed request was used before").hint("sign it anew");
  }
  while (limits_.evicts && seen_.size() >= limits_.total) forget_first();
  if (seen_.size() >= limits_.total) {
    return fail(Reason::kUnavailable, "too many signed requests at once")
        .hint("wait a minute and repeat");
  }
  const auto count = per_identity_.find(request.identity);
  const std::size_t share = std::min(limits_.per_identity, limits_.total - seen_.size());
  if (!limits_.evicts && count != per_identity_.end() && count->second >= share) {
    return fail(Reason::kRateLimited,
                "too many signed requests of one identity within four minutes")
        .with("at most " + std::to_string(share), std::to_string(count->second))
        .hint("wait a minute and repeat");
  }
  // A margin beyond the window keeps a small step back of the clock from reopening it.
  by_expiry_.emplace(request.time_seconds + 2 * kMaxSkewSeconds, entry);
  seen_.insert(entry);
  ++per_identity_[request.identity];
  return ok_status();
}

std::size_t ReplayCache::size() const {
  const std::lock_guard lock(mutex_);
  return seen_.size();
}

Result<VerifiedRequest> verify_request(const RequestLine& line, const Headers& headers,
                                       std::int64_t now_seconds, const KeyCheck& key_check,
                                       ReplayCache& cache) {
  GBX_ASSIGN(VerifiedRequest request, verify_signature(line, headers, now_seconds));
  GBX_TRY(key_check(request.identity, request.key));
  GBX_TRY(cache.remember(request, now_seconds));
  return request;
}

}  // namespace gbx::httpsig
