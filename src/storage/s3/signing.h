// Signatures of requests to S3: AWS Signature Version 4, in the Authorization header (Amazon S3 API
// reference, "Authenticating Requests"). Pure functions of the caller's own values; no threads. The
// secret is read here and goes nowhere else.
#pragma once

#include <map>
#include <string>

#include "base/seams.h"
#include "base/secret.h"

namespace gbx::storage {

struct S3SecretKeyTag {};
using S3SecretKey = Secret<S3SecretKeyTag>;

struct S3Credentials {
  std::string access_key;  // names the key, is none
  S3SecretKey secret_key;
  std::string region;
};

struct S3Request {
  std::string method;
  std::string path;   // encoded, from its first slash
  std::string query;  // encoded, its parameters in order, each with '='
  // Lower-case names; `host` and everything else that the server must not find changed.
  std::map<std::string, std::string> headers;
  std::string payload_hash;  // SHA-256 of the body in hex
};
// "20130524T000000Z".
std::string s3_time(TimeMs now);
// What goes into the header `Authorization`. `headers` holds x-amz-date, as s3_time() makes it, and
// x-amz-content-sha256.
std::string s3_authorization(const S3Request& request, const S3Credentials& credentials);

}  // namespace gbx::storage
