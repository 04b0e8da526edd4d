// The FUSE side of DecryptFS: answers requests on a mounted FUSE descriptor from an AssetReader,
// read-only, until the mount goes away. A chunk or page that does not check gives EIO and one audit
// line; it never gives bytes.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <set>

#include "asset/reader.h"
#include "base/os.h"
#include "decryptfs/decryptfs.h"

namespace gbx::decryptfs {

// Writes events as lines to a descriptor without ever waiting for its reader; a fault is reported
// once, and after kMostFaults only their suppression is. Thread-safe.
class Audit {
 public:
  explicit Audit(int fd);
  void write(const AuditEvent& event);
  void bad_chunk(const asset::BadChunk& chunk);
  void bad_manifest(const Id16& asset_id, const Error& error);

 private:
  static constexpr std::size_t kMostFaults = 1000;
  bool first_time(const std::string& fault);
  const int fd_;
  std::mutex mutex_;
  std::set<std::string> faults_;  // guarded by mutex_
  bool full_ = false;             // guarded by mutex_
};

struct ServeOptions {
  int fuse_fd = kFuseFd;
  unsigned workers = 4;
  // Called once when all threads exist and nothing was served yet: the place to confine the process
  // and to say "ready".
  std::function<Status()> before_serving;
};
// Returns when the file system was unmounted.
Status serve(asset::AssetReader& reader, const Id16& asset_id, Audit& audit,
             const ServeOptions& options);

}  // namespace gbx::decryptfs
