// glovebox-decryptfs: started by a privileged parent (decryptfs.h says with which descriptors),
// serves one asset version.
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "asset/prefetch.h"
#include "asset/reader.h"
#include "base/inner_program.h"
#include "decryptfs/confine.h"
#include "decryptfs/serve.h"
#include "storage/directory_store.h"
#include "storage/volume_store.h"

namespace gbx::decryptfs {
namespace {

Result<DatasetKey> take_key() {
  Fd pipe(kKeyFd);
  GBX_ASSIGN(Bytes raw, read_all(pipe.get(), 32));
  DatasetKey key = DatasetKey::copy_of(raw);
  cleanse(raw);
  if (key.size() != 32) {
    return fail(Reason::kBadValue, "dataset key")
        .with("32 bytes", std::to_string(key.size()) + " bytes");
  }
  return key;
}

Result<ServeRequest> take_request() {
  Fd pipe(kRecordFd);
  GBX_ASSIGN(const Bytes text, read_all(pipe.get(), 65536));
  return from_json_text<ServeRequest>(as_text(text));
}

// The parent's descriptor says what kind of store it is. It is open as long as the store lives.
Result<std::unique_ptr<storage::ObjectStore>> open_descriptor(StoreLeft& left) {
  left.fd = kStoreFd;
  struct stat st {};
  if (fstat(kStoreFd, &st) != 0) return io_error("the store", errno);
  if (S_ISDIR(st.st_mode)) {
    left.kind = StoreKind::kDirectory;
    return std::unique_ptr<storage::ObjectStore>(storage::DirectoryStore::from_fd(Fd(kStoreFd)));
  }
  left.kind = StoreKind::kVolume;
  GBX_ASSIGN(auto volume, storage::VolumeStore::open(Fd(kStoreFd)));
  return std::unique_ptr<storage::ObjectStore>(std::move(volume));
}

// With prefetch the store and everything in it is closed when this returns.
Result<std::unique_ptr<storage::ObjectStore>> open_store(const ServeRequest& request,
                                                         AuditEvent& ready, StoreLeft& left) {
  GBX_ASSIGN(auto store, open_descriptor(left));
  if (request.access == records::Access::kDirect) return store;
  GBX_ASSIGN(auto snapshot, asset::prefetch(*store, request.record,
                                            static_cast<std::uint64_t>(request.prefetch_limit)));
  left = StoreLeft{};
  ready.prefetched = static_cast<std::int64_t>(snapshot->bytes());
  ready.locked = snapshot->locked();
  return std::unique_ptr<storage::ObjectStore>(std::move(snapshot));
}

Status run(Audit& audit) {
  GBX_TRY(harden_process());
  steady_allocator();
  signal(SIGPIPE, SIG_IGN);
  // SAFETY: no descriptor above ours is wanted, whatever the parent left open.
  if (syscall(SYS_close_range, kAuditFd + 1, ~0U, 0) != 0) return io_error("close_range", errno);
  GBX_ASSIGN(const DatasetKey key, take_key());
  GBX_ASSIGN(const ServeRequest request, take_request());
  AuditEvent ready;
  ready.event = "ready";
  ready.asset = request.record.asset_id;
  ready.access = request.access;
  GBX_TRY(asset::AssetReader::check(request.record, request.version_id, key));
  StoreLeft left;
  GBX_ASSIGN(const auto store, open_store(request, ready, left));
  asset::ReaderOptions options;
  options.on_bad_chunk = [&audit](const asset::BadChunk& chunk) { audit.bad_chunk(chunk); };
  GBX_ASSIGN(asset::AssetReader reader,
             asset::AssetReader::open(*store, request.record, request.version_id, key, options));
  GBX_ASSIGN(ready.landlock, confine_files(left));
  ServeOptions serving;
  serving.workers = static_cast<unsigned>(request.workers);
  serving.before_serving = [&]() -> Status {
    GBX_TRY(confine_syscalls(left));
    audit.write(ready);
    return ok_status();
  };
  return serve(reader, request.record.asset_id, audit, serving);
}

}  // namespace
}  // namespace gbx::decryptfs

int main(int argc, char** argv) {
  int status = 0;
  const char* what =
      "glovebox-decryptfs serves one decrypted asset to one job; the agent starts it";
  if (gbx::answered_person(argc, argv, what, &status)) return status;
  gbx::decryptfs::Audit audit(gbx::decryptfs::kAuditFd);
  const gbx::Status result = gbx::decryptfs::run(audit);
  if (result.ok()) _exit(0);
  gbx::decryptfs::AuditEvent failed;
  failed.event = "failed";
  failed.reason = std::string(gbx::reason_code(result.reason()));
  failed.what = result.error().line().substr(0, 1000);
  audit.write(failed);
  _exit(static_cast<int>(gbx::exit_class(result.reason())));
}
