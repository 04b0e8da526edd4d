#include "agent/asset_mount.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace gbx::agent {

namespace {
constexpr std::size_t kKeyBytes = 32;
// To become ready: and for what is prefetched, as long as a slow store takes.
constexpr std::int64_t kReadyMs = 30'000;
constexpr std::int64_t kLeastBytesPerMs = 10'000;
constexpr std::int64_t kMostReadyMs = std::int64_t{6} * 3600 * 1000;

// The pipe comes from the worker, which may have been taken over: what does not hold the whole key
// already, and then end, is not waited for.
Result<DatasetKey> read_key(const Fd& pipe) {
  struct stat st {};
  if (fstat(pipe.get(), &st) != 0 || !S_ISFIFO(st.st_mode) ||
      fcntl(pipe.get(), F_SETFL, O_NONBLOCK) != 0) {
    return fail(Reason::kBadStructure, "dataset key").with("a pipe", "another descriptor");
  }
  SecretBuffer buffer(kKeyBytes);
  const SecretAccess access{};
  const MutableByteView key = buffer.writable(access);
  std::uint8_t more = 0;
  const ssize_t n = read(pipe.get(), key.data(), key.size());
  if (n != static_cast<ssize_t>(kKeyBytes) || read(pipe.get(), &more, 1) != 0) {
    cleanse(MutableByteView(&more, 1));
    return fail(Reason::kBadStructure, "dataset key").with("32 bytes and their end", "others");
  }
  return DatasetKey::adopt(std::move(buffer));
}

// A folder, or a volume. Each DecryptFS has a descriptor of its own.
Result<Fd> open_store(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return io_error("store " + path, errno);
  return fd;
}
}  // namespace

Result<AssetMount> AssetMount::mount(AssetMountOptions o) {
  GBX_ASSIGN(DatasetKey key, read_key(o.key_pipe));
  GBX_ASSIGN(Fd store, open_store(o.objects));
  decryptfs::SpawnOptions s;
  GBX_ASSIGN(s.fuse, decryptfs::mount_fuse(o.target));
  s.uid = o.uid;
  s.gid = o.uid;
  s.store_fd = store.get();
  s.version_id = o.record.id();
  s.access = o.access;
  s.prefetch_limit = o.prefetch_limit;
  const bool prefetch = o.access == records::Access::kPrefetch;
  const std::int64_t patience = std::min(
      kMostReadyMs, kReadyMs + (prefetch ? o.record.ciphertext_bytes / kLeastBytesPerMs : 0));
  s.record = std::move(o.record);
  auto child = decryptfs::DecryptFs::spawn(std::move(s), key);
  if (!child.ok()) {
    (void)decryptfs::unmount_fuse(o.target);
    return child.error();
  }
  AssetMount m(o.target, std::move(*child), o.log);
  GBX_TRY(m.child_->wait_ready(patience));
  const decryptfs::AuditEvent& ready = m.child_->ready();
  if (ready.prefetched) {
    o.log->info("prefetched",
                {{"bytes", *ready.prefetched}, {"locked", ready.locked.value_or(false)}});
  }
  return m;
}

AssetMount::~AssetMount() { (void)unmount(); }

void AssetMount::log_events() {
  for (int i = 0; i < 1000; ++i) {
    auto event = child_->next_event(0);
    if (!event.ok() || !event->has_value()) return;
    const decryptfs::AuditEvent& e = **event;
    log_->warn("decryptfs", {{"event", e.event},
                             {"reason", e.reason.value_or("")},
                             {"file", e.file ? to_hex(*e.file) : ""},
                             {"chunk", e.chunk.value_or(-1)},
                             {"what", printable(e.what.value_or(""), 200)}});
    Reason reason = Reason::kBadHash;
    if (!first_failure_.ok() || !e.reason || !reason_from_code(*e.reason, &reason)) continue;
    first_failure_ = fail(reason, "stored data of " + target_.substr(target_.rfind('/') + 1) +
                                      " was changed: " + e.event);
  }
}

Status AssetMount::intact() {
  if (child_) log_events();
  return first_failure_;
}

Status AssetMount::unmount() {
  if (!child_) return ok_status();
  log_events();
  Status s = decryptfs::unmount_fuse(target_);
  child_->process().kill_and_reap();
  child_.reset();
  return s;
}

}  // namespace gbx::agent
