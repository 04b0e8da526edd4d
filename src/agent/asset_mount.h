// One asset version mounted through its own glovebox-decryptfs, for as long as this object lives.
#pragma once

#include <string>
#include <utility>

#include "base/log.h"
#include "decryptfs/decryptfs.h"

namespace gbx::agent {

struct AssetMountOptions {
  std::string target;   // existing directory
  std::string objects;  // folder of ciphertext, or device of the volume
  records::VersionRecord record;
  Fd key_pipe;  // 32 bytes, then its end; passed on to the child and wiped
  uid_t uid = 0;
  records::Access access = records::Access::kPrefetch;
  std::int64_t prefetch_limit = 0;  // bytes
  const Logger* log = nullptr;
};

class AssetMount {
 public:
  static Result<AssetMount> mount(AssetMountOptions options);
  AssetMount(AssetMount&& o) noexcept
      : first_failure_(std::move(o.first_failure_)),
        target_(std::move(o.target_)),
        child_(std::exchange(o.child_, std::nullopt)),
        log_(o.log_) {}
  AssetMount& operator=(AssetMount&&) = delete;
  ~AssetMount();
  // Whether prefetched ciphertext may be paged out, which its host could watch.
  bool pageable() const {
    return child_ && child_->ready().prefetched && !child_->ready().locked.value_or(false);
  }
  // Did everything that was read of it so far verify? What did not is an error to whoever reads it,
  // but what a program makes of errors is no result of this data. Errors: the reason of the first
  // chunk or manifest page that failed.
  Status intact();
  // Detaches, ends the child (and with it its key), and logs what it complained of. Idempotent.
  Status unmount();

 private:
  AssetMount(std::string target, decryptfs::DecryptFs child, const Logger* log)
      : target_(std::move(target)), child_(std::move(child)), log_(log) {}
  void log_events();
  Status first_failure_ = ok_status();

  std::string target_;
  std::optional<decryptfs::DecryptFs> child_;
  const Logger* log_;
};

}  // namespace gbx::agent
