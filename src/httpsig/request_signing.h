// Signed HTTP requests (docs/api.md). A request carries six headers; the signature covers
//   "gbx/1/http-request\0" ‖ JCS{bodyHash, identity, key, method, nonce, setId, target, time}
// so that nothing that the server acts on can be altered, whatever proxy lies between. The host is
// no part of it; the installation is, by the id of its key set, so that no other one can use the
// request. Verification takes untrusted header text. ReplayCache is thread-safe; all else here is
// pure.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/seams.h"
#include "crypto/crypto.h"
#include "crypto/keys.h"

namespace gbx::httpsig {

// Lower case, as HTTP/1.1 servers hand them over here.
inline constexpr char kIdentityHeader[] = "glovebox-identity";  // 64 hex
inline constexpr char kKeyHeader[] = "glovebox-key";            // text of a public key
inline constexpr char kTimeHeader[] = "glovebox-time";          // unix seconds, decimal
inline constexpr char kNonceHeader[] = "glovebox-nonce";        // 32 hex
// 64 hex, of the exact body bytes
inline constexpr char kBodyHashHeader[] = "glovebox-body-sha256";
inline constexpr char kSignatureHeader[] = "glovebox-signature";  // base64url
inline constexpr std::int64_t kMaxSkewSeconds = 120;

using HeaderList = std::vector<std::pair<std::string, std::string>>;

struct RequestLine {
  // the installation: the signer's pin on one side, the server's own on the other
  Hash32 set_id{};
  std::string method;  // upper case
  std::string target;  // path and query exactly as sent
};

// Six headers, ready to send. Errors: those of signing.
Result<HeaderList> sign_request(const RequestLine& line, const Hash32& body_hash,
                                const Hash32& identity, const crypto::SigningKey& key,
                                std::int64_t now_seconds, Random& random);

// What a signature proved: this key signed this request at this time. Whether the key may speak for
// the identity is the caller's check, and whether the body has this hash is checked where the body
// is read.
struct VerifiedRequest {
  Hash32 identity{};
  crypto::PublicKey key;
  Hash32 body_hash{};
  Id16 nonce{};
  std::int64_t time_seconds = 0;
};

// Pure. Errors: kUnauthenticated (a header is missing or malformed), kExpired (outside ±120 s),
// kBadSignature.
Result<VerifiedRequest> verify_signature(const RequestLine& line,
                                         const std::map<std::string, std::string>& headers,
                                         std::int64_t now_seconds);

// Remembers the nonces of the acceptable window. Never forgets one that would still be accepted:
// when it is full it refuses (kRateLimited for one busy identity, kUnavailable over all). An
// identity may hold no more places than are free: the fuller it gets, the less the busiest may
// have, and n of them leave 1/(n+1) of it to all others. A restart empties it, so a request may be
// repeated once after a restart within its ±120 s; records with effects carry nonces of their own.
class ReplayCache {
 public:
  struct Limits {
    std::size_t total = 1'048'576;     // about 220 bytes each: 220 MiB at the very most
    std::size_t per_identity = 4'096;  // 17 a second
    // Instead of refusing, forgets what would be forgotten first: for callers whose requests may be
    // repeated without harm.
    bool evicts = false;
  };
  ReplayCache() : ReplayCache(Limits{}) {}
  explicit ReplayCache(Limits limits) : limits_(limits) {}
  // Errors: kReplayed, kRateLimited, kUnavailable.
  Status remember(const VerifiedRequest& request, std::int64_t now_seconds);
  std::size_t size() const;

 private:
  using Entry = std::pair<Hash32, Id16>;  // identity, nonce
  void forget_first();

  const Limits limits_;
  mutable std::mutex mutex_;
  std::set<Entry> seen_;                          // guarded by mutex_
  std::multimap<std::int64_t, Entry> by_expiry_;  // guarded by mutex_
  std::map<Hash32, std::size_t> per_identity_;    // guarded by mutex_
};

// Says whether `key` may sign for `identity`; kUnauthenticated or another denial when not.
using KeyCheck = std::function<Status(const Hash32& identity, const crypto::PublicKey& key)>;

// The whole check in the order that keeps strangers out of the cache: signature, time, key of the
// identity, replay.
Result<VerifiedRequest> verify_request(const RequestLine& line,
                                       const std::map<std::string, std::string>& headers,
                                       std::int64_t now_seconds, const KeyCheck& key_check,
                                       ReplayCache& cache);

}  // namespace gbx::httpsig
