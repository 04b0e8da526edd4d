// Objects as files of a directory: <root>/<2 hex digits of a hash of the name>/<name>. A writer's
// file has no name (O_TMPFILE) until commit() links it, so a crash leaves nothing; where the file
// system lacks that, it lies in <root>/incoming. Names resolve strictly beneath the root
// descriptor. The directory's content is not trusted.
#pragma once

#include <sys/types.h>

#include <list>
#include <mutex>
#include <unordered_map>

#include "base/os.h"
#include "storage/object_store.h"

namespace gbx::storage {

// What commit() waits for: kAlways syncs file and directory; kNever leaves that to the kernel
// (tests, scratch).
enum class SyncPolicy { kAlways, kNever };

class DirectoryStore final : public ObjectStore {
 public:
  // Creates the directory when it is absent, readable for all like everything in it: it holds
  // ciphertext, and its servers have uids of their own. Restrict an existing directory to restrict
  // them.
  static Result<std::unique_ptr<DirectoryStore>> open(const std::string& path,
                                                      SyncPolicy sync = SyncPolicy::kAlways);
  // Takes a directory descriptor; reading needs no more than it.
  static std::unique_ptr<DirectoryStore> from_fd(Fd root, SyncPolicy sync = SyncPolicy::kAlways);

  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name) override;
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override;
  Result<std::uint64_t> size(const std::string& name) override;
  Status list(const std::function<Status(const std::string&)>& each) override;
  Status remove(const std::string& name) override;

 private:
  class Writer;
  static constexpr std::size_t kOpenFiles = 64;  // recently read objects stay open
  DirectoryStore(Fd root, SyncPolicy sync) : root_(std::move(root)), sync_(sync) {}
  Result<std::shared_ptr<Fd>> open_object(const std::string& name);

  const Fd root_;
  const SyncPolicy sync_;
  using Open = std::pair<std::string, std::shared_ptr<Fd>>;
  std::mutex mutex_;
  // guarded by mutex_; front is the latest
  std::list<Open> recent_;
  std::unordered_map<std::string, std::list<Open>::iterator> index_;  // guarded by mutex_
};

}  // namespace gbx::storage
