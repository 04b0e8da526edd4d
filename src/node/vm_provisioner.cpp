#include <algorithm>

#include "base/bundle_size.h"
#include "node/places.h"
#include "node/provisioner.h"
#include "sandbox/sandbox.h"
#include "storage/directory_store.h"
#include "vm/launch.h"
#include "vm/nbd_server.h"
#include "vm/volume.h"

namespace gbx::node {

using namespace records;

namespace {

// Kernel, agent and its programs, page tables.
constexpr std::int64_t kGuestBytes = std::int64_t{256} << 20;
constexpr int kControlFd = 3;
constexpr int kVolumeFd = 4;

class VmEnvironment final : public Environment {
 public:
  struct Parts {
    Place place;
    std::unique_ptr<channel::FdStream> stream;
    std::unique_ptr<vm::NbdServer> volume;
    Process simtee;
    const Signed<GuestRelease>* release;
  };
  VmEnvironment(Places& places, Parts parts) : places_(places), parts_(std::move(parts)) {}
  ~VmEnvironment() override { (void)destroy(); }

  channel::ByteStream& stream() override { return *parts_.stream; }
  const Signed<GuestRelease>* release() const override { return parts_.release; }

  std::vector<std::string> destroy() override {
    if (destroyed_) return {};
    destroyed_ = true;
    // The guest switches itself off; one that does not is killed, with all that is in its cgroup.
    std::vector<std::string> residue = places_.end(parts_.place, *parts_.stream, parts_.simtee);
    parts_.volume->stop();
    return residue;
  }

 private:
  Places& places_;
  Parts parts_;
  bool destroyed_ = false;
};

class VmProvisioner final : public Provisioner {
 public:
  explicit VmProvisioner(VmOptions options)
      : options_(std::move(options)), places_(options_.state_dir) {}

  Result<std::vector<std::string>> clear() override { return places_.clear(); }

  Result<std::unique_ptr<Environment>> start(const EnvironmentRequest& request) override {
    GBX_ASSIGN(const MeasuredMachine size,
               machine_for(options_.release.body, Technology::kSim, request.bundle));
    GBX_ASSIGN(const vm::HostRoom room, vm::host_room());
    vm::LaunchDescription asked;
    asked.cpus = size.cpus;
    asked.memory_bytes = size.memory_bytes;
    GBX_TRY(vm::check_fits(asked, room));
    GBX_ASSIGN(auto volume, volume_of(request.bundle));
    GBX_ASSIGN(const Place place, places_.take(request.name));
    auto environment = launch(request, size, std::move(volume), place);
    if (!environment.ok()) (void)places_.give_back(place);
    return environment;
  }

 private:
  Result<std::unique_ptr<vm::VolumeSource>> volume_of(const LaunchBundle& bundle) const {
    GBX_ASSIGN(std::shared_ptr<storage::ObjectStore> store,
               storage::DirectoryStore::open(options_.objects_dir));
    std::vector<VersionRecord> versions;
    for (const auto& v : bundle.versions) versions.push_back(v.body);
    GBX_ASSIGN(const auto names, vm::objects_of(*store, versions));
    GBX_ASSIGN(auto volume, vm::ObjectVolume::make(std::move(store), names));
    return std::unique_ptr<vm::VolumeSource>(std::move(volume));
  }

  std::vector<std::string> arguments(const LaunchBundle& bundle, const MeasuredMachine& size,
                                     std::int64_t slot) const {
    const std::string& dir = options_.guest_dir;
    return {options_.simtee_program,
            "launch",
            "--key",
            options_.simtee_key,
            "--platform",
            options_.platform,
            "--firmware",
            dir + "/firmware.fd",
            "--kernel",
            dir + "/kernel",
            "--initrd",
            dir + "/initrd",
            "--command-line",
            options_.release.body.cmdline,
            "--cpus",
            std::to_string(size.cpus),
            "--memory",
            std::to_string(size.memory_bytes),
            "--launch-config",
            to_hex(hash_of(bundle.launch_config)),
            "--uid",
            std::to_string(options_.uid_base + slot * kUidsPerSlot),
            "--control-fd",
            std::to_string(kControlFd),
            "--volume-fd",
            std::to_string(kVolumeFd)};
  }

  Result<std::unique_ptr<Environment>> launch(const EnvironmentRequest& request,
                                              const MeasuredMachine& size,
                                              std::unique_ptr<vm::VolumeSource> volume,
                                              const Place& place) {
    GBX_ASSIGN(auto control, make_socket_pair());
    GBX_ASSIGN(auto blocks, make_socket_pair());
    GBX_ASSIGN(const Fd cgroup, sandbox::make_enclosure(names_of(request.name).enclosure));
    VmEnvironment::Parts parts;
    parts.place = place;
    parts.release = &options_.release;
    GBX_ASSIGN(parts.volume, vm::NbdServer::start(std::move(blocks.first), std::move(volume)));
    ProcessOptions p;
    p.argv = arguments(request.bundle, size, place.slot);
    p.env = {{"PATH", "/usr/bin:/bin"}};
    p.descriptors = {
        {2, options_.log_fd}, {kControlFd, control.second.get()}, {kVolumeFd, blocks.second.get()}};
    p.new_session = true;
    p.cgroup_procs = cgroup.get();
    // Not tied to this thread: PR_SET_PDEATHSIG fires when the thread that forked ends. The guest
    // ends when its stream does.
    p.die_with_parent = false;
    GBX_ASSIGN(parts.simtee, spawn(p));
    GBX_ASSIGN(parts.stream, channel::FdStream::create(std::move(control.first)));
    return std::unique_ptr<Environment>(std::make_unique<VmEnvironment>(places_, std::move(parts)));
  }

  const VmOptions options_;
  Places places_;
};

// Every number of the plan is the plane's word here: none is to overflow.
std::int64_t needed_bytes(const LaunchBundle& bundle) {
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  const auto bounded = [kMost](std::int64_t n) { return std::clamp<std::int64_t>(n, 0, kMost); };
  const auto& controls = bundle.plan.body.controls;
  const std::int64_t job = bounded(controls.footprint_bytes());
  std::int64_t read = 0;
  if (controls.access == Access::kPrefetch) {
    for (const auto& v : bundle.versions) read = bounded(read + bounded(v.body.ciphertext_bytes));
  }
  // The agent lends its container 80 % of the machine, and prefetching half of it at most.
  return std::max({job + job / 4, job + read, 2 * read}) + kGuestBytes;
}

}  // namespace

Result<MeasuredMachine> machine_for(const GuestRelease& release, Technology technology,
                                    const LaunchBundle& bundle) {
  const std::int64_t cpus = bundle.plan.body.controls.cpu;
  const std::int64_t bytes = needed_bytes(bundle);
  const MeasuredMachine* best = nullptr;
  std::int64_t most = 0;
  for (const auto& p : release.platforms) {
    if (p.technology != technology) continue;
    for (const auto& m : p.machines) {
      most = std::max(most, m.memory_bytes);
      if (m.cpus < cpus || m.memory_bytes < bytes) continue;
      const bool smaller = best == nullptr || m.memory_bytes < best->memory_bytes ||
                           (m.memory_bytes == best->memory_bytes && m.cpus < best->cpus);
      if (smaller) best = &m;
    }
  }
  if (best != nullptr) return *best;
  return fail(Reason::kNoCapacity, "a machine of release " + release.name)
      .with("at most " + std::to_string(most >> 20) + " MiB and the processors that it lists",
            std::to_string(bytes >> 20) + " MiB and " + std::to_string(cpus) + " processors")
      .hint("ask for less in spec.resources");
}

std::unique_ptr<Provisioner> make_vm_provisioner(VmOptions options) {
  return std::make_unique<VmProvisioner>(std::move(options));
}

}  // namespace gbx::node
