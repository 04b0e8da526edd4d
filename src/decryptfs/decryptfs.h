// DecryptFS for the program that starts it: the privileged parent mounts, the confined child
// serves. The child gets the FUSE descriptor, the dataset key on a pipe, the store's directory (or
// its volume) and the version that came with the key; it holds one asset's key and nothing else.
// Audit events come back as lines of JSON and are untrusted like anything a child says.
#pragma once

#include <optional>
#include <string>

#include "base/os.h"
#include "base/secret.h"
#include "records/asset.h"

namespace gbx::decryptfs {

// The descriptors of the child.
inline constexpr int kFuseFd = 3;
inline constexpr int kKeyFd = 4;
inline constexpr int kStoreFd = 5;
inline constexpr int kRecordFd = 6;
inline constexpr int kAuditFd = 7;

// What the child reads from kRecordFd.
struct ServeRequest {
  records::VersionRecord record;
  Hash32 version_id{};
  std::int64_t workers = 4;
  records::Access access = records::Access::kPrefetch;
  std::int64_t prefetch_limit = 0;
  template <class F>
  void fields(F& f) {
    f("record", record);
    f("versionId", version_id);
    f("workers", workers, Bound{1, 64});
    f("access", access);
    f("prefetchLimit", prefetch_limit);
  }
};
// A line from kAuditFd. "ready" and "failed" come once, first.
struct AuditEvent {
  std::string event;                  // ready, failed, bad-chunk, bad-manifest, more-suppressed
  std::optional<std::string> reason;  // reason code
  std::optional<std::string> what;
  std::optional<Id16> asset;
  std::optional<Id16> file;
  std::optional<std::int64_t> chunk;
  // Of "ready": whether the kernel could confine it to the store; how the store is read; and with
  // prefetch the bytes that lie in memory, and whether they are locked there.
  std::optional<bool> landlock;
  std::optional<records::Access> access;
  std::optional<std::int64_t> prefetched;
  std::optional<bool> locked;
  template <class F>
  void fields(F& f) {
    f("event", event, Bound{1, 32});
    f("reason", reason, Bound{1, 64});
    f("what", what, Bound{0, 1024});
    f("asset", asset);
    f("file", file);
    f("chunk", chunk);
    f("landlock", landlock);
    f("access", access);
    f("prefetched", prefetched);
    f("locked", locked);
  }
};

// Mounts a FUSE file system on `target` (ro, nosuid, nodev, noexec, allow_other,
// default_permissions) and returns the descriptor that serves it. Needs CAP_SYS_ADMIN. Accesses
// wait until somebody serves.
Result<Fd> mount_fuse(const std::string& target);
// Detaches the mount; open files stay until they are closed. The child ends when the last is.
Status unmount_fuse(const std::string& target);

struct SpawnOptions {
  std::string program;       // empty: glovebox-decryptfs beside the running program
  std::optional<uid_t> uid;  // of its own; needs root
  std::optional<gid_t> gid;
  // Of the ciphertext: a directory that is readable for that uid, or a volume (a block device or a
  // file, storage/volume_store.h) that is open for reading.
  int store_fd = -1;
  Fd fuse;  // from mount_fuse()
  records::VersionRecord record;
  Hash32 version_id{};
  std::int64_t workers = 4;
  // kPrefetch: the child reads the whole version into memory, in a fixed order, before it serves,
  // and can read nothing of the store afterwards; it fails with kTooLarge where
  // asset::prefetch_bytes() exceeds the limit. kDirect: it reads on demand in constant memory, and
  // the store's host sees which blocks.
  records::Access access = records::Access::kPrefetch;
  std::int64_t prefetch_limit = 0;  // bytes
};

class DecryptFs {
 public:
  static Result<DecryptFs> spawn(SpawnOptions options, const DatasetKey& key);
  // Waits for the child's first word. The error that it reports, kTimedOut, kConnectionClosed when
  // it died, or kSandboxSetup when it serves under another access than it was asked for.
  Status wait_ready(std::int64_t timeout_ms);
  // The child's word that it is ready; meaningful after wait_ready().
  const AuditEvent& ready() const { return ready_; }
  // The next event, or nothing after timeout_ms. kConnectionClosed when the child has ended.
  Result<std::optional<AuditEvent>> next_event(std::int64_t timeout_ms);
  Process& process() { return process_; }

 private:
  Process process_;
  records::Access access_ = records::Access::kPrefetch;
  AuditEvent ready_;
  Fd audit_;
  std::string pending_;
};

}  // namespace gbx::decryptfs
