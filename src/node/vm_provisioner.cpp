#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <set>
#include <utility>

#include "base/ready.h"
#include "base/threads.h"
#include "node/capacity.h"
#include "node/places.h"
#include "node/provisioner.h"
#include "records/machine.h"
#include "sandbox/sandbox.h"
#include "storage/directory_store.h"
#include "vm/launch.h"
#include "vm/nbd_server.h"
#include "vm/volume.h"

namespace gbx::node {

using namespace records;

namespace {

constexpr int kControlFd = 3;
constexpr int kVolumeFd = 4;
constexpr int kNodeFd = 5;
constexpr int kMemoryCgroupFd = 6;
// Readers that storage has not answered when their start was given up.
constexpr int kMostLostReaders = 16;
// From the end of its machine's stream to simtee's word of it, and how long that may be.
constexpr std::int64_t kWordMs = 3'000;
constexpr std::size_t kMostWord = 32'768;
constexpr std::size_t kMostFile = std::size_t{1} << 30;
constexpr char kOtherGuest[] =
    "give the node the folder that its release was made of, or make a release of this one "
    "(glovebox release make)";

constexpr const char* kBootFiles[] = {"firmware", "kernel", "initrd"};
// Listed where the guest was built for hardware that this node does not drive.
constexpr const char* kOtherFiles[] = {"firmware-tdx", "firmware-snp"};

bool boots_simulated(const std::string& name) {
  return std::find(std::begin(kBootFiles), std::end(kBootFiles), name) != std::end(kBootFiles);
}

// kBadValue but for the three that boot here, once each, and at most once each of the others.
Status check_file_names(const GuestRelease& release) {
  std::multiset<std::string> names;
  for (const ReleaseFile& f : release.files) names.insert(f.name);
  bool right = true;
  for (const char* name : kBootFiles) right = right && names.erase(name) == 1;
  for (const char* name : kOtherFiles) right = right && names.erase(name) <= 1;
  if (right && names.empty()) return ok_status();
  return fail(Reason::kBadValue, "files of release " + release.name)
      .with("firmware, kernel and initrd once each, firmware-tdx and firmware-snp at most once",
            "others");
}

// The release's names are those of what it measures; guest/build's are those of files.
std::string file_in_guest(const std::string& name) {
  return name == "firmware" ? "firmware.fd" : name;
}

// What reads names and sizes of an attempt's objects has of its own.
struct Reading {
  explicit Reading(std::shared_ptr<std::atomic<int>> all) : readers(std::move(all)) { ++*readers; }
  ~Reading() { --*readers; }
  const std::shared_ptr<std::atomic<int>> readers;  // how many there are, lost ones too
  std::vector<VersionRecord> versions;
  std::shared_ptr<storage::ObjectStore> store;  // absent: the directory's
  std::string objects_dir;
  std::atomic<bool> given_up{false};
  Fd done;  // write end of a pipe, closed at its end
  Result<std::unique_ptr<vm::VolumeSource>> volume;
};

Result<std::unique_ptr<vm::VolumeSource>> open_volume(Reading& r) {
  if (!r.store) {
    GBX_ASSIGN(r.store, storage::DirectoryStore::open(r.objects_dir));
  }
  GBX_ASSIGN(const auto names, vm::objects_of(*r.store, r.versions, r.given_up));
  GBX_ASSIGN(auto volume,
             vm::ObjectVolume::make(r.store, names, storage::kVolumeBytes, r.given_up));
  return std::unique_ptr<vm::VolumeSource>(std::move(volume));
}

void read_volume(Reading& r) {
  r.volume = open_volume(r);
  r.done.reset();
}

// Whether the first of both has something to be read, or its end, before the second one has.
bool ends_first(int fd, int other) {
  pollfd p[2] = {{fd, POLLIN, 0}, {other, POLLIN, 0}};
  while (poll(p, 2, -1) < 0) {
    if (errno != EINTR) return false;
  }
  return p[0].revents != 0;
}

// All that comes until the stream's end or the moment is over; false in the latter case.
bool read_word(int fd, std::string& word) {
  const SystemClock clock;
  const auto deadline = channel::Deadline::after_ms(clock, kWordMs);
  while (word.size() < kMostWord) {
    pollfd p{fd, POLLIN, 0};
    const int n = poll(&p, 1, static_cast<int>(deadline.remaining_ms()));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    char block[4096];
    const ssize_t got = read(fd, block, sizeof block);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    word.append(block, static_cast<std::size_t>(got));
  }
  return true;
}

// A machine's part of the room, given back with its end; what nobody ends keeps it.
class RoomShare {
 public:
  static Result<RoomShare> take(MachineRoom& room, std::int64_t bytes) {
    GBX_TRY(room.take(bytes));
    return RoomShare(room, bytes);
  }
  RoomShare() = default;
  RoomShare(RoomShare&& o) noexcept : room_(std::exchange(o.room_, nullptr)), bytes_(o.bytes_) {}
  RoomShare& operator=(RoomShare&& o) noexcept {
    give_back();
    room_ = std::exchange(o.room_, nullptr);
    bytes_ = o.bytes_;
    return *this;
  }
  ~RoomShare() { give_back(); }
  void give_back() {
    if (room_ != nullptr) std::exchange(room_, nullptr)->give_back(bytes_);
  }
  void keep() { room_ = nullptr; }

 private:
  RoomShare(MachineRoom& room, std::int64_t bytes) : room_(&room), bytes_(bytes) {}
  MachineRoom* room_ = nullptr;
  std::int64_t bytes_ = 0;
};

class VmEnvironment final : public Environment {
 public:
  struct Parts {
    Place place;
    std::unique_ptr<channel::FdStream> stream;
    std::unique_ptr<vm::NbdServer> volume;
    Process simtee;
    Fd word;  // simtee tells of a failure there, and ends when this end is closed
    RoomShare room;
    const Signed<GuestRelease>* release = nullptr;
  };
  VmEnvironment(Places& places, Parts parts) : places_(places), parts_(std::move(parts)) {}
  ~VmEnvironment() override { (void)destroy(); }

  channel::ByteStream& stream() override { return *parts_.stream; }
  const Signed<GuestRelease>* release() const override { return parts_.release; }

  // Simtee says what went wrong, and nothing when the guest switched its machine off: by its
  // agent's will, or by a kernel that panicked.
  std::optional<Error> why_ended(bool spoke) override {
    std::string word;
    const bool over = read_word(parts_.word.get(), word);
    if (auto told = told_failure(word)) {
      // What ran and was killed had not failed to boot: another attempt may follow.
      if (spoke && told->reason == Reason::kBootFailed) told->reason = Reason::kLost;
      return told;
    }
    if (!over || spoke) return std::nullopt;
    const auto end = parts_.simtee.wait(kWordMs);
    if (end.ok() && *end && !((*end)->exited && (*end)->code == 0)) {
      return fail(Reason::kBootFailed, "glovebox-simtee")
          .with("its word of what failed",
                ((*end)->exited ? "exit code " : "signal ") + std::to_string((*end)->code))
          .hint("look at the node's log");
    }
    return fail(Reason::kBootFailed, "the guest")
        .with("its agent's first word", "its machine ended without one")
        .hint(
            "its kernel panicked, or the machine lacks what it needs: boot the same files by "
            "hand with a console");
  }

  std::vector<std::string> destroy() override {
    if (destroyed_) return {};
    destroyed_ = true;
    // The guest switches itself off; one that does not is killed, with all that is in its cgroup.
    Residue residue = places_.end(parts_.place, *parts_.stream, parts_.simtee);
    parts_.word.reset();
    // Storage that is dead has no part in what the machine had of the host.
    if (residue.processes) {
      parts_.room.keep();
    } else {
      parts_.room.give_back();
    }
    const Status stopped = parts_.volume->stop();
    if (!stopped.ok()) residue.lines.push_back("volume: " + stopped.error().line());
    return std::move(residue.lines);
  }

 private:
  Places& places_;
  Parts parts_;
  bool destroyed_ = false;
};

// What a machine takes of its host's memory.
std::int64_t host_bytes(const MeasuredMachine& size) {
  return size.memory_bytes + kMachineOverheadBytes;
}

class VmProvisioner final : public Provisioner {
 public:
  explicit VmProvisioner(VmOptions options)
      : options_(std::move(options)), places_(options_.state_dir, options_.slots) {}

  Result<std::vector<std::string>> clear() override {
    GBX_ASSIGN(auto cleared, places_.clear());
    // Nothing of ours runs now, so what is free is what machines may have together.
    GBX_ASSIGN(const vm::HostRoom room, vm::host_room());
    room_.open(room.memory_bytes);
    return cleared;
  }

  Result<std::int64_t> memory_for(const LaunchBundle& bundle) const override {
    GBX_ASSIGN(const MeasuredMachine size,
               machine_for(options_.release.body, Technology::kSim, bundle));
    return host_bytes(size);
  }

  Result<std::unique_ptr<Environment>> start(const EnvironmentRequest& request) override {
    GBX_ASSIGN(const MeasuredMachine size,
               machine_for(options_.release.body, Technology::kSim, request.bundle));
    GBX_ASSIGN(const vm::HostRoom room, vm::host_room());
    vm::LaunchDescription asked;
    asked.cpus = size.cpus;
    asked.memory_bytes = size.memory_bytes;
    GBX_TRY(vm::check_fits(asked, room));
    const std::int64_t bytes = host_bytes(size);
    GBX_ASSIGN(RoomShare share, RoomShare::take(room_, bytes));
    GBX_ASSIGN(auto volume, volume_of(request));
    GBX_ASSIGN(const Place place, places_.take(request.name));
    auto environment = launch(request, size, std::move(volume), place, share);
    if (!environment.ok() && places_.give_back(place).processes) share.keep();
    return environment;
  }

 private:
  // Read by a thread of its own, which is left to itself when storage is dead: a read that does not
  // come back cannot be interrupted. All that it uses is its own.
  Result<std::unique_ptr<vm::VolumeSource>> volume_of(const EnvironmentRequest& request) {
    if (*readers_ >= options_.slots + kMostLostReaders) {
      return fail(Reason::kUnavailable, "the ciphertext of this node")
          .with("answers of storage", "none for earlier attempts")
          .hint("look at what --objects names");
    }
    const auto reading = std::make_shared<Reading>(readers_);
    for (const auto& v : request.bundle.versions) reading->versions.push_back(v.body);
    reading->store = options_.objects;
    reading->objects_dir = options_.objects_dir;
    GBX_ASSIGN(auto done, make_pipe());
    reading->done = std::move(done.second);
    GBX_ASSIGN(std::thread thread, start_thread([reading] { read_volume(*reading); }));
    if (ends_first(done.first.get(), request.give_up_fd)) {
      thread.join();
      return std::move(reading->volume);
    }
    reading->given_up = true;
    thread.detach();
    return fail(Reason::kTimedOut, "names and sizes of the job's objects")
        .with("an answer of storage before the start is given up", "none")
        .hint("look at what --objects names");
  }

  std::vector<std::string> arguments(const EnvironmentRequest& request, const MeasuredMachine& size,
                                     std::int64_t slot) const {
    const std::string& dir = options_.guest_dir;
    std::vector<std::string> out = {options_.simtee_program, "launch"};
    const auto add = [&](const char* option, const std::string& value) {
      out.insert(out.end(), {option, value});
    };
    add("--key", options_.simtee_key);
    add("--platform", options_.platform);
    for (const ReleaseFile& f : options_.release.body.files) {
      if (!boots_simulated(f.name)) continue;
      const std::string option = "--" + f.name;
      add(option.c_str(), dir + "/" + file_in_guest(f.name));
      add((option + "-sha256").c_str(), to_hex(f.sha256));
    }
    add("--command-line", options_.release.body.cmdline);
    add("--cpus", std::to_string(size.cpus));
    add("--memory", std::to_string(size.memory_bytes));
    add("--launch-config", to_hex(hash_of(request.bundle.launch_config)));
    add("--uid", std::to_string(options_.uid_base + slot * kUidsPerSlot));
    add("--control-fd", std::to_string(kControlFd));
    add("--volume-fd", std::to_string(kVolumeFd));
    add("--node-fd", std::to_string(kNodeFd));
    add("--memory-cgroup-fd", std::to_string(kMemoryCgroupFd));
    add("--life", std::to_string(std::max<std::int64_t>(request.life_ms / 1000, 1)));
    return out;
  }

  Result<std::unique_ptr<Environment>> launch(const EnvironmentRequest& request,
                                              const MeasuredMachine& size,
                                              std::unique_ptr<vm::VolumeSource> volume,
                                              const Place& place, RoomShare& share) {
    GBX_ASSIGN(auto control, make_socket_pair());
    GBX_ASSIGN(auto blocks, make_socket_pair());
    GBX_ASSIGN(auto word, make_socket_pair());
    const std::string enclosure = names_of(request.name).enclosure;
    GBX_ASSIGN(const Fd cgroup, sandbox::make_enclosure(enclosure));
    const std::int64_t memory_bytes = host_bytes(size);
    GBX_ASSIGN(const Fd memory, sandbox::limit_enclosure(enclosure, memory_bytes));
    VmEnvironment::Parts parts;
    parts.place = place;
    parts.release = &options_.release;
    GBX_ASSIGN(parts.volume, vm::NbdServer::start(std::move(blocks.first), std::move(volume)));
    ProcessOptions p;
    p.argv = arguments(request, size, place.slot);
    p.env = {{"PATH", "/usr/bin:/bin"}};
    p.descriptors = {{2, options_.log_fd},
                     {kControlFd, control.second.get()},
                     {kVolumeFd, blocks.second.get()},
                     {kNodeFd, word.second.get()},
                     {kMemoryCgroupFd, memory.get()}};
    p.new_session = true;
    p.cgroup_procs = cgroup.get();
    // Not tied to this thread: PR_SET_PDEATHSIG fires when the thread that forked ends. Simtee ends
    // with the stream that it shares with this process.
    p.die_with_parent = false;
    GBX_ASSIGN(parts.simtee, spawn(p));
    GBX_ASSIGN(parts.stream, channel::FdStream::create(std::move(control.first)));
    parts.word = std::move(word.first);
    parts.room = std::move(share);
    return std::unique_ptr<Environment>(std::make_unique<VmEnvironment>(places_, std::move(parts)));
  }

  const VmOptions options_;
  Places places_;
  MachineRoom room_;
  const std::shared_ptr<std::atomic<int>> readers_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace

Result<MeasuredMachine> machine_for(const GuestRelease& release, Technology technology,
                                    const LaunchBundle& bundle) {
  std::int64_t ciphertext = 0;
  for (const auto& v : bundle.versions) {
    constexpr std::int64_t kMost = std::int64_t{1} << 48;
    ciphertext =
        std::min(ciphertext + std::clamp<std::int64_t>(v.body.ciphertext_bytes, 0, kMost), kMost);
  }
  const MachineNeed need = machine_need(bundle.plan.body.controls, ciphertext);
  const MeasuredMachine* best = nullptr;
  MeasuredMachine most{0, 0, {}};
  for (const auto& p : release.platforms) {
    if (p.technology != technology) continue;
    for (const auto& m : p.machines) {
      most.cpus = std::max(most.cpus, m.cpus);
      most.memory_bytes = std::max(most.memory_bytes, m.memory_bytes);
      if (m.cpus < need.cpus || !machine_holds(m.memory_bytes, technology, need)) continue;
      const bool smaller = best == nullptr || m.memory_bytes < best->memory_bytes ||
                           (m.memory_bytes == best->memory_bytes && m.cpus < best->cpus);
      if (smaller) best = &m;
    }
  }
  if (best != nullptr) return *best;
  return fail(Reason::kNoCapacity, "a machine of release " + release.name)
      .with("at most " + std::to_string(most.cpus) + " processors and " +
                std::to_string(most.memory_bytes >> 20) + " MiB, the guest's own included",
            std::to_string(need.cpus) + " processors, " + std::to_string(need.job_bytes >> 20) +
                " MiB for the job and " + std::to_string(need.read_bytes >> 20) +
                " MiB for what it reads")
      .hint("ask for less in spec.resources");
}

Status check_guest(const std::string& guest_dir, const GuestRelease& release) {
  struct Part {
    const char* name;
    Reason mismatch;
  };
  GBX_TRY(check_file_names(release));
  for (const Part& part :
       {Part{"firmware", Reason::kFirmwareMismatch}, Part{"kernel", Reason::kKernelMismatch},
        Part{"initrd", Reason::kInitrdMismatch}}) {
    const auto listed = std::find_if(release.files.begin(), release.files.end(),
                                     [&](const ReleaseFile& f) { return f.name == part.name; });
    const std::string path = guest_dir + "/" + file_in_guest(part.name);
    GBX_ASSIGN(const Bytes content, read_file(path, kMostFile));
    const Hash32 hash = crypto::sha256(content);
    if (hash == listed->sha256) continue;
    return fail(part.mismatch, path)
        .with("as release " + release.name + " has it, " + to_hex(listed->sha256), to_hex(hash))
        .hint(kOtherGuest);
  }
  GBX_ASSIGN(std::string line, read_text_file(guest_dir + "/cmdline", vm::kMaxCommandLine + 1));
  while (!line.empty() && line.back() == '\n') line.pop_back();
  if (line == release.cmdline) return ok_status();
  return fail(Reason::kCmdlineMismatch, guest_dir + "/cmdline")
      .with("as release " + release.name + " has it", "another")
      .hint(kOtherGuest);
}

std::unique_ptr<Provisioner> make_vm_provisioner(VmOptions options) {
  return std::make_unique<VmProvisioner>(std::move(options));
}

}  // namespace gbx::node
