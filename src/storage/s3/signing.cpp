#include "storage/s3/signing.h"

#include <time.h>

#include <algorithm>

#include "crypto/crypto.h"

namespace gbx::storage {

namespace {

using Key = FixedBytes<32>;

// Keys that are derived from the secret live as long as one signature.
void step(Key& key, std::string_view data) {
  Key next = crypto::hmac_sha256(key, as_bytes(data));
  key = next;
  cleanse(next);
}

Key signing_key(const S3Credentials& c, std::string_view day) {
  SecretBuffer first(4 + c.secret_key.size());
  const MutableByteView bytes = first.writable(SecretAccess{});
  const ByteView secret = c.secret_key.view(SecretAccess{});
  std::copy_n(as_bytes("AWS4").begin(), 4, bytes.begin());
  std::copy(secret.begin(), secret.end(), bytes.begin() + 4);
  Key key = crypto::hmac_sha256(first.view(SecretAccess{}), as_bytes(day));
  step(key, c.region);
  step(key, "s3");
  step(key, "aws4_request");
  return key;
}

}  // namespace

std::string s3_time(TimeMs now) {
  const time_t seconds = static_cast<time_t>(now.seconds());
  tm parts{};
  gmtime_r(&seconds, &parts);
  char out[32];
  (void)strftime(out, sizeof out, "%Y%m%dT%H%M%SZ", &parts);
  return out;
}

std::string s3_authorization(const S3Request& r, const S3Credentials& c) {
  const std::string when = r.headers.at("x-amz-date");
  const std::string day = when.substr(0, 8);
  std::string canonical = r.method + "\n" + r.path + "\n" + r.query + "\n";
  std::string names;
  for (const auto& [name, value] : r.headers) {
    canonical += name + ":" + value + "\n";
    names += (names.empty() ? "" : ";") + name;
  }
  canonical += "\n" + names + "\n" + r.payload_hash;
  const std::string scope = day + "/" + c.region + "/s3/aws4_request";
  const std::string text = "AWS4-HMAC-SHA256\n" + when + "\n" + scope + "\n" +
                           to_hex(crypto::sha256(as_bytes(canonical)));
  Key key = signing_key(c, day);
  const std::string signature = to_hex(crypto::hmac_sha256(key, as_bytes(text)));
  cleanse(key);
  return "AWS4-HMAC-SHA256 Credential=" + c.access_key + "/" + scope + ",SignedHeaders=" + names +
         ",Signature=" + signature;
}

}  // namespace gbx::storage
