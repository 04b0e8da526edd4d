#include "node/places.h"
#include "node/provisioner.h"
#include "sandbox/sandbox.h"

namespace gbx::node {

namespace {

constexpr std::int64_t kOrderlyEndMs = 8'000;

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
  explicit LocalProvisioner(LocalOptions options)
      : options_(std::move(options)), places_(options_.state_dir) {}

  Result<std::vector<std::string>> clear() override { return places_.clear(); }

  Result<std::unique_ptr<Environment>> start(const EnvironmentRequest& request) override {
    GBX_TRY(places_.make(request.name));
    const std::int64_t slot = slots_.take();
    auto environment = launch({options_.state_dir, request.name}, slot);
    if (!environment.ok() && clear_attempt(options_.state_dir, request.name).empty()) {
      slots_.give_back(slot);
    }
    return environment;
  }

 private:
  Result<std::unique_ptr<Environment>> launch(const Place& place, std::int64_t slot) {
    GBX_ASSIGN(auto pair, make_socket_pair());
    const PlaceNames names = names_of(place.attempt);
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
  Places places_;
  UidSlots slots_;
};

}  // namespace

std::unique_ptr<Provisioner> make_local_provisioner(LocalOptions options) {
  return std::make_unique<LocalProvisioner>(std::move(options));
}

}  // namespace gbx::node
