#include <signal.h>
#include <sys/mount.h>

#include <algorithm>

#include "node/provisioner.h"

namespace gbx::node {

namespace {

class LocalEnvironment final : public Environment {
 public:
  LocalEnvironment(std::string dir, std::unique_ptr<channel::FdStream> stream, Process agent)
      : dir_(std::move(dir)), stream_(std::move(stream)), agent_(std::move(agent)) {}
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
    if (!removed.ok()) residue.push_back("attempt folder: " + removed.error().what);
    return residue;
  }

 private:
  std::string dir_;
  std::unique_ptr<channel::FdStream> stream_;
  Process agent_;
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
    ProcessOptions p;
    p.argv = {options_.agent_program, "run", "--dir", dir, "--objects", options_.objects_dir,
              "--uid-base", std::to_string(options_.uid_base), "--stream-fd", "3"};
    p.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}};
    p.descriptors = {{2, options_.log_fd}, {3, pair.second.get()}};
    p.new_session = true;
    // Not tied to this thread: PR_SET_PDEATHSIG fires when the thread that forked ends. The agent watches its stream.
    p.die_with_parent = false;
    GBX_ASSIGN(Process agent, spawn(p));
    GBX_ASSIGN(auto stream, channel::FdStream::create(std::move(pair.first)));
    return std::unique_ptr<Environment>(std::make_unique<LocalEnvironment>(dir, std::move(stream), std::move(agent)));
  }

 private:
  LocalOptions options_;
};

}  // namespace

std::unique_ptr<Provisioner> make_local_provisioner(LocalOptions options) {
  return std::make_unique<LocalProvisioner>(std::move(options));
}

}  // namespace gbx::node
