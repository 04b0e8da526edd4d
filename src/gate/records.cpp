#include "gate/records.h"

#include <set>

#include "base/names.h"
#include "crypto/crypto.h"
#include "gate/release.h"

namespace gbx::gate {

Status check_request(const GateRequest& r) {
  std::set<std::string> names;
  std::set<std::string> paths;
  if (padded_bundle_size(r) > static_cast<std::size_t>(kMaxBundleBytes)) {
    return fail(Reason::kTooLarge, "outputs: maxBytes of all together");
  }
  for (const auto& o : r.outputs) {
    if (!plain_name(o.name)) {
      return fail(Reason::kBadValue, "outputs: a name has characters that are not allowed");
    }
    if (!plain_path(o.path)) {
      return fail(Reason::kBadValue, "outputs: a path has characters that are not allowed");
    }
    if (!names.insert(o.name).second) {
      return fail(Reason::kConflict, "outputs: two have the name " + o.name);
    }
    if (!paths.insert(o.path).second) {
      return fail(Reason::kConflict, "outputs: two have the path " + o.path);
    }
  }
  for (const auto& p : paths) {
    for (auto at = p.find('/'); at != std::string::npos; at = p.find('/', at + 1)) {
      if (paths.count(p.substr(0, at)) != 0) {
        return fail(Reason::kConflict, "outputs: a file lies inside a file: " + p);
      }
    }
  }
  std::set<std::int64_t> fds{r.outFd};
  for (const auto& i : r.inputs) {
    if (!fds.insert(i.fd).second) {
      return fail(Reason::kConflict, "inputs: a descriptor is named twice");
    }
  }
  if (r.logs.fd && !fds.insert(*r.logs.fd).second) {
    return fail(Reason::kConflict, "logs: a descriptor is named twice");
  }
  return ok_status();
}

Hash32 request_digest(const GateRequest& request) {
  return crypto::labelled_hash("gbx/1/gate-request", as_bytes(canonical(to_json(request))));
}
Hash32 policy_hash(const GatePolicy& policy) {
  return crypto::labelled_hash("gbx/1/gate-policy", as_bytes(canonical(to_json(policy))));
}
Hash32 output_digest(const Hash32& salt, std::string_view name, ByteView content) {
  const Bytes zero{0};
  return crypto::sha256({as_bytes("gbx/1/output"), zero, salt, as_bytes(name), zero, content});
}

std::int64_t duration_bucket(std::int64_t seconds) {
  std::int64_t bucket = 0;
  while (seconds > 0 && bucket < 15) {
    seconds >>= 1;
    ++bucket;
  }
  return bucket;
}

}  // namespace gbx::gate
