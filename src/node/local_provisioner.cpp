#include <signal.h>
#include <sys/mount.h>

#include <algorithm>
#include <mutex>
#include <set>

#include "node/provisioner.h"

namespace gbx::node {

namespace {

// Environments that run at the same time share no user id: each takes a slot of kUidsPerSlot ids. Thread-safe.
class UidSlots {
 public:
  std::int64_t take() {
    const std::scoped_lock lock(mutex_);
    std::int64_t slot = 0;
    while (taken_.count(slot) > 0) ++slot;
    taken_.insert(slot);
    return slot;
  }
  void give_back(std::int64_t slot) {
    const std::scoped_lock lock(mutex_);
    taken_.erase(slot);
  }

 private:
  std::mutex mutex_;
  std::set<std::int64_t> taken_;  // guarded by mutex_
};

class LocalEnvironment final : public Environment {
 public:
  LocalEnvironment(std::string dir, std::unique_ptr<channel::FdStream> stream, Process agent, UidSlots& slots, std::int64_t slot)
      : dir_(std::move(dir)), stream_(std::move(stream)), agent_(std::move(agent)), slots_(slots), slot_(slot) {}
  ~LocalEnvironment() override { (void)destroy(); }

  channel::ByteStream& stream() override { return *stream_; }

  std::vector<std::string> destroy() override {
    std::vector<std::string> residue;
    if (destroyed_) return residue;
    destroyed_ = true;
    stream_->close();
    // The agent ends by itself once its stream is closed; its mounts live in its own mount namespace.
    if (agent_.running()) {
      (void)agent_.signal(SIGTERM);
      auto ended = agent_.wait(5'000);
      if (!ended.ok() || !ended->has_value()) agent_.kill_and_reap();
    }
    Status removed = remove_tree(dir_);
    slots_.give_back(slot_);
    if (!removed.ok()) residue.push_back("attempt folder: " + removed.error().what);
    return residue;
  }

 private:
  std::string dir_;
  std::unique_ptr<channel::FdStream> stream_;
  Process agent_;
  UidSlots& slots_;
  const std::int64_t slot_;
  bool destroyed_ = false;
};

class LocalProvisioner final : public Provisioner {
 public:
  explicit LocalProvisioner(LocalOptions options) : options_(std::move(options)) {}

  Result<std::unique_ptr<Environment>> start(const std::string& name) override {
    const std::string dir = options_.state_dir + "/" + name;
    GBX_TRY(remove_tree(dir));
    GBX_TRY(make_dirs(dir, 0711));
    GBX_ASSIGN(auto pair, make_socket_pair());
    const std::int64_t slot = slots_.take();
    auto environment = launch(dir, std::move(pair), slot);
    if (!environment.ok()) slots_.give_back(slot);
    return environment;
  }

 private:
  Result<std::unique_ptr<Environment>> launch(const std::string& dir, std::pair<Fd, Fd> pair, std::int64_t slot) {
    ProcessOptions p;
    p.argv = {options_.agent_program, "run", "--dir", dir, "--objects", options_.objects_dir,
              "--uid-base", std::to_string(options_.uid_base + slot * kUidsPerSlot), "--stream-fd", "3"};
    p.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}};
    p.descriptors = {{2, options_.log_fd}, {3, pair.second.get()}};
    p.new_session = true;
    // Not tied to this thread: PR_SET_PDEATHSIG fires when the thread that forked ends. The agent watches its stream.
    p.die_with_parent = false;
    GBX_ASSIGN(Process agent, spawn(p));
    GBX_ASSIGN(auto stream, channel::FdStream::create(std::move(pair.first)));
    return std::unique_ptr<Environment>(std::make_unique<LocalEnvironment>(dir, std::move(stream), std::move(agent), slots_, slot));
  }

  LocalOptions options_;
  UidSlots slots_;
};

}  // namespace

std::unique_ptr<Provisioner> make_local_provisioner(LocalOptions options) {
  return std::make_unique<LocalProvisioner>(std::move(options));
}

}  // namespace gbx::node
