// bench-mount STORE INFO POINT: mounts what bench-publish published, prints "ready", and unmounts
// when its input ends. Through the real glovebox-decryptfs: its own uid, seccomp, four workers.
#include <unistd.h>

#include <cstdio>

#include "base/os.h"
#include "bench_asset.h"
#include "decryptfs/decryptfs.h"

namespace {

using namespace gbx;

constexpr uid_t kServerUid = 64123;

Status serve(const std::string& store_path, const std::string& info, const std::string& point) {
  GBX_ASSIGN(const std::string text, read_text_file(info, 1U << 20));
  GBX_ASSIGN(const auto published, from_json_text<bench::PublishedAsset>(text));
  GBX_ASSIGN(const Fd store, open_dir(store_path));
  decryptfs::SpawnOptions options;
  options.uid = kServerUid;
  options.gid = kServerUid;
  options.store_fd = store.get();
  options.record = published.record;
  options.version_id = published.record.id();
  options.access = records::Access::kDirect;
  GBX_ASSIGN(options.fuse, decryptfs::mount_fuse(point));
  auto fs = decryptfs::DecryptFs::spawn(std::move(options), DatasetKey::copy_of(published.key));
  Status status = fs.ok() ? fs->wait_ready(10'000) : Status(fs.error());
  if (status.ok()) {
    std::puts("ready");
    std::fflush(stdout);
    char c = 0;
    while (read(STDIN_FILENO, &c, 1) > 0) {
    }
  }
  GBX_TRY(decryptfs::unmount_fuse(point));
  if (!status.ok()) return status;
  GBX_ASSIGN(const auto end, fs->process().wait(10'000));
  if (!end) return fail(Reason::kTimedOut, "glovebox-decryptfs goes on without its mount");
  if (!end->exited || end->code != 0) {
    return fail(Reason::kInternal, "glovebox-decryptfs")
        .with("exit 0", (end->exited ? "exit " : "signal ") + std::to_string(end->code));
  }
  return ok_status();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s STORE INFO POINT\n", argv[0]);
    return 2;
  }
  const Status status = serve(argv[1], argv[2], argv[3]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.error().line().c_str());
  return status.ok() ? 0 : 1;
}
