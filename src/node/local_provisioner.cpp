#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <thread>

#include "node/provisioner.h"
#include "sandbox/sandbox.h"

namespace gbx::node {

namespace {

constexpr std::int64_t kOrderlyEndMs = 8'000;

// Environments that run at the same time share no user id: each takes a slot of kUidsPerSlot ids.
// Thread-safe.
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

// The agent and all that it forks are in one cgroup, its container in another; both are named after
// the attempt, and so is its folder, which is made first and removed last: what there is no folder
// of has left nothing.
struct Names {
  std::string enclosure;
  std::string container;
};
Names names_of(const std::string& attempt) { return {"agent-" + attempt, "gbx-" + attempt}; }

// What withstood, a line each.
std::vector<std::string> clear_attempt(const std::string& state_dir, const std::string& attempt) {
  std::vector<std::string> residue;
  const Names names = names_of(attempt);
  // The enclosure first: nobody is left then who could start the container anew.
  for (const auto& id : {names.enclosure, names.container}) {
    const Status s = sandbox::clear_residue(id);
    if (!s.ok()) residue.push_back(id + ": " + s.error().what);
  }
  if (!residue.empty()) return residue;
  const Status removed = remove_tree(state_dir + "/" + attempt);
  if (!removed.ok()) residue.push_back("attempt folder: " + removed.error().what);
  return residue;
}

struct Place {
  std::string state_dir;
  std::string attempt;
};

class LocalEnvironment final : public Environment {
 public:
  LocalEnvironment(Place place, std::unique_ptr<channel::FdStream> stream, Process agent,
                   UidSlots& slots, std::int64_t slot)
      : place_(std::move(place)),
        stream_(std::move(stream)),
        agent_(std::move(agent)),
        slots_(slots),
        slot_(slot) {}
  ~LocalEnvironment() override { (void)destroy(); }

  channel::ByteStream& stream() override { return *stream_; }

  std::vector<std::string> destroy() override {
    std::vector<std::string> residue;
    if (destroyed_) return residue;
    destroyed_ = true;
    // The agent ends by itself once its stream is closed; its mounts live in its own mount
    // namespace.
    stream_->close();
    auto ended = agent_.wait(kOrderlyEndMs);
    if (!ended.ok() || !ended->has_value()) agent_.kill_and_reap();
    residue = clear_attempt(place_.state_dir, place_.attempt);
    // Where something lives on, nobody else gets its user ids.
    if (residue.empty()) slots_.give_back(slot_);
    return residue;
  }

 private:
  const Place place_;
  std::unique_ptr<channel::FdStream> stream_;
  Process agent_;
  UidSlots& slots_;
  const std::int64_t slot_;
  bool destroyed_ = false;
};

class LocalProvisioner final : public Provisioner {
 public:
  explicit LocalProvisioner(LocalOptions options) : options_(std::move(options)) {}

  Result<std::vector<std::string>> clear() override {
    GBX_ASSIGN(folder_, open_dir(options_.state_dir));
    GBX_TRY(lock_folder());
    GBX_ASSIGN(const auto attempts, folders_in(options_.state_dir));
    for (const auto& attempt : attempts) {
      const auto left = clear_attempt(options_.state_dir, attempt);
      if (left.empty()) continue;
      return fail(Reason::kSandboxSetup,
                  "what an earlier life of this node left behind withstands: " + attempt + ": " +
                      left[0])
          .hint("end it by hand, or restart this machine");
    }
    return attempts;
  }

  Result<std::unique_ptr<Environment>> start(const std::string& name) override {
    if (!folder_.valid()) return fail(Reason::kWrongState, "start before clear");
    const std::string dir = options_.state_dir + "/" + name;
    if (path_exists(dir)) return fail(Reason::kWrongState, "this attempt has an environment here");
    GBX_TRY(make_dirs(dir, 0711));
    const std::int64_t slot = slots_.take();
    auto environment = launch({options_.state_dir, name}, slot);
    if (!environment.ok() && clear_attempt(options_.state_dir, name).empty()) {
      slots_.give_back(slot);
    }
    return environment;
  }

 private:
  // One node in one folder: another one's environments would be taken for leftovers. A node that is
  // just being killed gets a moment.
  Status lock_folder() const {
    for (int i = 0; flock(folder_.get(), LOCK_EX | LOCK_NB) != 0; ++i) {
      if (errno != EWOULDBLOCK && errno != EINTR) {
        return io_error("lock of " + options_.state_dir, errno);
      }
      if (i >= 50) return fail(Reason::kWrongState, "another node uses " + options_.state_dir);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return ok_status();
  }

  static Result<std::vector<std::string>> folders_in(const std::string& path) {
    DIR* d = opendir(path.c_str());
    if (d == nullptr) return io_error(path, errno);
    std::vector<std::string> out;
    while (const dirent* e = readdir(d)) {
      const std::string name(e->d_name);
      const bool ours = std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
      });
      if (ours) out.push_back(name);
    }
    closedir(d);
    return out;
  }

  Result<std::unique_ptr<Environment>> launch(const Place& place, std::int64_t slot) {
    GBX_ASSIGN(auto pair, make_socket_pair());
    const Names names = names_of(place.attempt);
    GBX_ASSIGN(const Fd cgroup, sandbox::make_enclosure(names.enclosure));
    ProcessOptions p;
    p.argv = {options_.agent_program,
              "run",
              "--dir",
              place.state_dir + "/" + place.attempt,
              "--objects",
              options_.objects_dir,
              "--container",
              names.container,
              "--uid-base",
              std::to_string(options_.uid_base + slot * kUidsPerSlot),
              "--stream-fd",
              "3"};
    p.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}};
    p.descriptors = {{2, options_.log_fd}, {3, pair.second.get()}};
    p.new_session = true;
    p.cgroup_procs = cgroup.get();
    // Not tied to this thread: PR_SET_PDEATHSIG fires when the thread that forked ends. The agent
    // watches its stream.
    p.die_with_parent = false;
    GBX_ASSIGN(Process agent, spawn(p));
    GBX_ASSIGN(auto stream, channel::FdStream::create(std::move(pair.first)));
    return std::unique_ptr<Environment>(std::make_unique<LocalEnvironment>(
        place, std::move(stream), std::move(agent), slots_, slot));
  }

  const LocalOptions options_;
  Fd folder_;  // locked from clear() on
  UidSlots slots_;
};

}  // namespace

std::unique_ptr<Provisioner> make_local_provisioner(LocalOptions options) {
  return std::make_unique<LocalProvisioner>(std::move(options));
}

}  // namespace gbx::node
