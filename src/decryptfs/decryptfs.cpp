#include "decryptfs/decryptfs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "asset/prefetch.h"

namespace gbx::decryptfs {

namespace {
// Lets the child lock what it prefetches. Without the right to raise the limit it stays, and the
// child says so.
void allow_locking(pid_t child, const records::VersionRecord& record) {
  constexpr rlim_t kKeys = rlim_t{64} << 20;
  const rlim_t wanted = asset::prefetch_bytes(record) + kKeys;
  rlimit limit{};
  if (prlimit(child, RLIMIT_MEMLOCK, nullptr, &limit) != 0 || limit.rlim_max >= wanted) return;
  limit.rlim_cur = limit.rlim_max = wanted;
  (void)prlimit(child, RLIMIT_MEMLOCK, &limit, nullptr);
}
}  // namespace

Result<Fd> mount_fuse(const std::string& target) {
  Fd fuse(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!fuse.valid()) {
    return io_error("/dev/fuse", errno)
        .hint("load the fuse module, or give the container the device");
  }
  const std::string options =
      "fd=" + std::to_string(fuse.get()) +
      ",rootmode=40555,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576";
  const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount("glovebox", target.c_str(), "fuse.glovebox", flags, options.c_str()) != 0) {
    return io_error("mount on " + target, errno);
  }
  return fuse;
}

Status unmount_fuse(const std::string& target) {
  if (umount2(target.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
    return io_error("unmount of " + target, errno);
  }
  return ok_status();
}

Result<DecryptFs> DecryptFs::spawn(SpawnOptions o, const DatasetKey& key) {
  GBX_ASSIGN(auto key_pipe, make_pipe());
  GBX_ASSIGN(auto record_pipe, make_pipe());
  GBX_ASSIGN(auto audit_pipe, make_pipe());
  ProcessOptions p;
  p.argv = {o.program.empty() ? program_dir() + "/glovebox-decryptfs" : o.program};
  p.uid = o.uid;
  p.gid = o.gid;
  p.cwd = "/";
  p.descriptors = {{kFuseFd, o.fuse.get()},
                   {kKeyFd, key_pipe.first.get()},
                   {kStoreFd, o.store_fd},
                   {kRecordFd, record_pipe.first.get()},
                   {kAuditFd, audit_pipe.second.get()}};
  DecryptFs d;
  GBX_ASSIGN(d.process_, gbx::spawn(p));
  d.audit_ = std::move(audit_pipe.first);
  d.access_ = o.access;
  if (o.access == records::Access::kPrefetch) allow_locking(d.process_.pid(), o.record);
  // Both texts are far below a pipe's capacity, so neither write can wait for the child.
  const std::string request = canonical(
      to_json(ServeRequest{o.record, o.version_id, o.workers, o.access, o.prefetch_limit}));
  if (request.size() > 16384) return fail(Reason::kTooLarge, "version record");
  GBX_TRY(write_all(record_pipe.second.get(), as_bytes(request)));
  GBX_TRY(write_all(key_pipe.second.get(), key.view(SecretAccess{})));
  return d;
}

Result<std::optional<AuditEvent>> DecryptFs::next_event(std::int64_t timeout_ms) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    const auto end = pending_.find('\n');
    if (end != std::string::npos) {
      const std::string line = pending_.substr(0, end);
      pending_.erase(0, end + 1);
      GBX_ASSIGN(AuditEvent event, from_json_text<AuditEvent>(line));
      return std::optional<AuditEvent>(std::move(event));
    }
    if (pending_.size() > 65536) return fail(Reason::kTooLarge, "audit line of decryptfs");
    const auto spent = std::chrono::duration_cast<std::chrono::milliseconds>(
                           std::chrono::steady_clock::now() - start)
                           .count();
    if (spent > timeout_ms) return std::optional<AuditEvent>();
    pollfd p{audit_.get(), POLLIN, 0};
    const int n =
        poll(&p, 1, static_cast<int>(std::min<std::int64_t>(timeout_ms - spent, 1 << 30)));
    if (n < 0 && errno != EINTR) return io_error("poll", errno);
    if (n <= 0) {
      if (n == 0) return std::optional<AuditEvent>();
      continue;
    }
    char buffer[4096];
    const ssize_t got = read(audit_.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("audit events of decryptfs", errno);
    if (got == 0) return fail(Reason::kConnectionClosed, "decryptfs has ended");
    pending_.append(buffer, static_cast<std::size_t>(got));
  }
}

Status DecryptFs::wait_ready(std::int64_t timeout_ms) {
  GBX_ASSIGN(const auto event, next_event(timeout_ms));
  if (!event) return fail(Reason::kTimedOut, "decryptfs did not become ready");
  if (event->event == "ready") {
    ready_ = *event;
    if (ready_.access == access_) return ok_status();
    return fail(Reason::kSandboxSetup,
                "decryptfs serves under another access than it was asked for");
  }
  Reason reason = Reason::kInternal;
  if (event->reason) (void)reason_from_code(*event->reason, &reason);
  return fail(reason, "decryptfs: " + event->what.value_or(event->event));
}

}  // namespace gbx::decryptfs
