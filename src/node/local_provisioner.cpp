#include "node/places.h"
#include "node/provisioner.h"
#include "sandbox/sandbox.h"

namespace gbx::node {

namespace {

class LocalEnvironment final : public Environment {
 public:
  LocalEnvironment(Places& places, Place place, std::unique_ptr<channel::FdStream> stream,
                   Process agent)
      : places_(places),
        place_(std::move(place)),
        stream_(std::move(stream)),
        agent_(std::move(agent)) {}
  ~LocalEnvironment() override { (void)destroy(); }

  channel::ByteStream& stream() override { return *stream_; }

  std::vector<std::string> destroy() override {
    if (destroyed_) return {};
    destroyed_ = true;
    // Its mounts live in its own mount namespace.
    return places_.end(place_, *stream_, agent_).lines;
  }

 private:
  Places& places_;
  const Place place_;
  std::unique_ptr<channel::FdStream> stream_;
  Process agent_;
  bool destroyed_ = false;
};

class LocalProvisioner final : public Provisioner {
 public:
  explicit LocalProvisioner(LocalOptions options)
      : options_(std::move(options)), places_(options_.state_dir, options_.slots) {}

  Result<std::vector<std::string>> clear() override { return places_.clear(); }

  Result<std::unique_ptr<Environment>> start(const EnvironmentRequest& request) override {
    GBX_ASSIGN(const Place place, places_.take(request.name));
    auto environment = launch(place);
    if (!environment.ok()) (void)places_.give_back(place);
    return environment;
  }

 private:
  Result<std::unique_ptr<Environment>> launch(const Place& place) {
    GBX_ASSIGN(auto pair, make_socket_pair());
    const PlaceNames names = names_of(place.attempt);
    GBX_ASSIGN(const Fd cgroup, sandbox::make_enclosure(names.enclosure));
    ProcessOptions p;
    p.argv = {options_.agent_program,
              "run",
              "--dir",
              places_.folder(place),
              "--objects",
              options_.objects_dir,
              "--container",
              names.container,
              "--uid-base",
              std::to_string(options_.uid_base + place.slot * kUidsPerSlot),
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
    return std::unique_ptr<Environment>(
        std::make_unique<LocalEnvironment>(places_, place, std::move(stream), std::move(agent)));
  }

  const LocalOptions options_;
  Places places_;
};

}  // namespace

std::unique_ptr<Provisioner> make_local_provisioner(LocalOptions options) {
  return std::make_unique<LocalProvisioner>(std::move(options));
}

}  // namespace gbx::node
