// Which machine an attempt gets, and that nothing boots for one that cannot have any. Machines
// themselves: tests/e2e.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "asset/asset_test_util.h"
#include "base/ready.h"
#include "crypto/crypto.h"
#include "node/places.h"
#include "node/provisioner.h"
#include "records/machine.h"
#include "sandbox/sandbox.h"
#include "storage/memory_store.h"
#include "vm/launch.h"

namespace gbx::node {
namespace {

using namespace records;

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

GuestRelease release() {
  GuestRelease r;
  r.name = "guest";
  PlatformMeasurements& p = r.platforms.emplace_back();
  p.technology = Technology::kSim;
  for (const std::int64_t cpus : {1, 2, 4}) {
    for (const std::int64_t mib : {1024, 2048, 4096}) p.machines.push_back({cpus, mib * kMiB, {}});
  }
  r.platforms.emplace_back(p).technology = Technology::kTdx;
  r.platforms.back().machines = {{64, 1024 * 1024 * kMiB, {}}};
  return r;
}

LaunchBundle asking(std::int64_t cpus, std::int64_t mib) {
  LaunchBundle b;
  b.plan.body.controls.cpu = cpus;
  b.plan.body.controls.memory_bytes = mib * kMiB;
  b.plan.body.controls.scratch_bytes = 0;
  b.plan.body.controls.image_bytes = 0;
  b.plan.body.controls.access = Access::kDirect;
  return b;
}

MeasuredMachine machine(const LaunchBundle& b) {
  return machine_for(release(), Technology::kSim, b).value();
}

TEST(VmSize, IsTheSmallestThatFits) {
  EXPECT_EQ(machine(asking(1, 100)).memory_bytes, 1024 * kMiB);
  EXPECT_EQ(machine(asking(1, 100)).cpus, 1);
  EXPECT_EQ(machine(asking(3, 100)).cpus, 4);
  // The container gets 80 % of what the kernel leaves: 128 MiB and a 32nd are its own.
  EXPECT_EQ(machine(asking(1, 691)).memory_bytes, 1024 * kMiB);
  EXPECT_EQ(machine(asking(1, 692)).memory_bytes, 2048 * kMiB);
}

TEST(VmSize, HasRoomForWhatIsPrefetched) {
  LaunchBundle b = asking(1, 100);
  b.versions.resize(2);
  for (auto& v : b.versions) v.body.ciphertext_bytes = 400 * kMiB;
  EXPECT_EQ(machine(b).memory_bytes, 1024 * kMiB);
  b.plan.body.controls.access = Access::kPrefetch;
  EXPECT_EQ(machine(b).memory_bytes, 2048 * kMiB);
}

TEST(VmSize, WhatNoMachineHasIsRefusedBeforeAnythingBoots) {
  for (const auto& b : {asking(5, 100), asking(64, 100), asking(1, 4096), asking(1, 4'194'304),
                        asking(1, INT64_MAX / kMiB)}) {
    const auto r = machine_for(release(), Technology::kSim, b);
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.reason(), Reason::kNoCapacity);
    EXPECT_FALSE(r.error().next.empty());
  }
  EXPECT_EQ(machine_for(release(), Technology::kSnp, asking(1, 1)).reason(), Reason::kNoCapacity);
}

// The list of pages, and on hardware the buffers of devices, grow with memory.
TEST(VmSize, LeavesTheKernelWhatItTakesOfLargeMachines) {
  for (const Technology t : {Technology::kSim, Technology::kTdx, Technology::kSnp}) {
    std::int64_t before = 0;
    for (const std::int64_t gib : kMachineGiB) {
      const std::int64_t total = guest_total_bytes(gib << 30, t);
      EXPECT_GT(total, before);
      EXPECT_LT(total, (gib << 30) - (gib << 30) / 64 - 64 * kMiB);
      before = total;
    }
  }
  EXPECT_EQ(machine_bytes(Technology::kSim, {1, 100 * kMiB, 0}), 1024 * kMiB);
  EXPECT_GT(machine_bytes(Technology::kTdx, {1, 690 * kMiB, 0}), 1024 * kMiB);
  EXPECT_EQ(machine_bytes(Technology::kSim, {1, std::int64_t{1} << 48, 0}), 0);
}

TEST(UidSlots, ThereAreNoMoreThanTheNodeWasGiven) {
  UidSlots slots(2);
  EXPECT_EQ(*slots.take(), 0);
  EXPECT_EQ(*slots.take(), 1);
  const auto third = slots.take();
  EXPECT_EQ(third.reason(), Reason::kNoCapacity);
  EXPECT_FALSE(third.error().next.empty());
  slots.give_back(0);
  EXPECT_EQ(*slots.take(), 0);
}

class Guest : public ::testing::Test {
 protected:
  Guest() {
    if (mkdtemp(dir_.data()) == nullptr) abort();
    release_.name = "guest";
    release_.cmdline = "quiet";
    for (const char* name : {"firmware", "kernel", "initrd"}) {
      put(name == std::string("firmware") ? "firmware.fd" : name, name);
      release_.files.push_back({name, crypto::sha256(as_bytes(name)), 1});
    }
    put("cmdline", "quiet\n");
  }
  ~Guest() override { (void)remove_tree(dir_); }
  void put(const std::string& name, const std::string& content) {
    ASSERT_TRUE(write_file_atomic(dir_ + "/" + name, as_bytes(content), 0600).ok());
  }
  std::string dir_ = "/tmp/gbx-guest-XXXXXX";
  GuestRelease release_;
};

TEST_F(Guest, IsTheReleasesOrTheNodeDoesNotBegin) {
  ASSERT_TRUE(check_guest(dir_, release_).ok()) << check_guest(dir_, release_).error().line();
  const std::pair<const char*, Reason> parts[] = {{"firmware.fd", Reason::kFirmwareMismatch},
                                                  {"kernel", Reason::kKernelMismatch},
                                                  {"initrd", Reason::kInitrdMismatch},
                                                  {"cmdline", Reason::kCmdlineMismatch}};
  for (const auto& [name, reason] : parts) {
    const std::string before = *read_text_file(dir_ + "/" + name, 100);
    put(name, "another");
    const Status s = check_guest(dir_, release_);
    EXPECT_EQ(s.reason(), reason) << name;
    EXPECT_NE(s.error().what.find(name), std::string::npos);
    EXPECT_FALSE(s.error().next.empty());
    put(name, before);
  }
  EXPECT_TRUE(check_guest(dir_, release_).ok());
  release_.files.pop_back();
  EXPECT_EQ(check_guest(dir_, release_).reason(), Reason::kBadValue);
}

// guest/build --platforms makes firmware for hardware, too, which boots nothing here.
TEST_F(Guest, MayBeOfAReleaseThatHardwareBootsToo) {
  for (const char* name : {"firmware-tdx", "firmware-snp"}) {
    release_.files.push_back({name, crypto::sha256(as_bytes(name)), 1});
  }
  EXPECT_TRUE(check_guest(dir_, release_).ok()) << check_guest(dir_, release_).error().line();
  release_.files.push_back(release_.files.back());
  EXPECT_EQ(check_guest(dir_, release_).reason(), Reason::kBadValue);
  release_.files.back().name = "qemu";
  EXPECT_EQ(check_guest(dir_, release_).reason(), Reason::kBadValue);
}

// Answers until it is dead, and again once it is not any more.
class MortalStore final : public storage::ObjectStore {
 public:
  storage::MemoryStore inner;
  void be_dead(bool dead) {
    const std::scoped_lock lock(mutex_);
    dead_ = dead;
    changed_.notify_all();
  }
  void wait_until_asked(int times = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asked_ >= times; });
  }
  Result<std::unique_ptr<storage::ObjectWriter>> create(const std::string& name) override {
    return inner.create(name);
  }
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override {
    live();
    return inner.get(name, offset, out);
  }
  Result<std::uint64_t> size(const std::string& name) override {
    live();
    return inner.size(name);
  }
  Status list(const std::function<Status(const std::string&)>& each) override {
    return inner.list(each);
  }
  Status remove(const std::string& name) override { return inner.remove(name); }

 private:
  void live() {
    std::unique_lock lock(mutex_);
    if (dead_) ++asked_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !dead_; });
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool dead_ = false;  // guarded by mutex_
  int asked_ = 0;      // guarded by mutex_: while it was dead
};

// In simtee's place: what it is told, and how it ends, is the test's.
class Starts : public Guest {
 protected:
  Starts() {
    if (geteuid() != 0) return;
    for (const char* folder : {"/objects", "/state"}) {
      EXPECT_TRUE(make_dirs(dir_ + folder, 0755).ok());
    }
    PlatformMeasurements& p = release_.platforms.emplace_back();
    p.technology = Technology::kSim;
    p.machines.push_back({1, 512 * kMiB, {}});
    bundle_ = asking(1, 100);
  }
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root: cgroups";
  }
  void prepare(const std::string& script) {
    put("simtee", "#!/bin/sh\n" + script);
    EXPECT_EQ(chmod((dir_ + "/simtee").c_str(), 0700), 0);
    VmOptions o;
    o.objects = store_;
    o.simtee_program = dir_ + "/simtee";
    o.simtee_key = "/nonexistent";
    o.guest_dir = dir_;
    o.release.body = release_;
    o.objects_dir = dir_ + "/objects";
    o.state_dir = dir_ + "/state";
    o.uid_base = kLowestUid;
    provisioner_ = make_vm_provisioner(std::move(o));
    EXPECT_TRUE(provisioner_->clear().ok());
  }
  Result<std::unique_ptr<Environment>> again(int give_up_fd = -1) {
    return provisioner_->start(
        {"vm-test-" + std::to_string(getpid()), bundle_, 60'000, give_up_fd});
  }
  std::unique_ptr<Environment> start(const std::string& script) {
    prepare(script);
    auto e = again();
    EXPECT_TRUE(e.ok()) << e.error().line();
    return e.ok() ? std::move(*e) : nullptr;
  }
  // An asset for the job.
  void publish() {
    using namespace asset::testing;
    write_tree(dir_ + "/src", Tree{{"f", pattern(100'000, 7)}});
    SeededRandom random(7);
    const auto published =
        asset::publish(options_for(dir_ + "/src", dir_ + "/src-state"), store_->inner, random);
    ASSERT_TRUE(published.ok()) << published.error().line();
    bundle_.versions.resize(1);
    bundle_.versions[0].body = published->record;
  }
  // Two of its machines do not fit into this host.
  void make_machines_large() {
    const std::int64_t mib = vm::host_room().value().memory_bytes * 6 / 10 / kMiB;
    release_.platforms.back().machines[0].memory_bytes = mib * kMiB;
  }
  const std::shared_ptr<MortalStore> store_ = std::make_shared<MortalStore>();
  LaunchBundle bundle_;
  std::unique_ptr<Provisioner> provisioner_;
};

TEST_F(Starts, ThatFailSayWhatFailed) {
  const Error said = fail(Reason::kKernelMismatch, "kernel").with("one", "another").hint("build");
  const auto pipe = make_pipe().value();
  tell_failure(pipe.second.get(), said);
  Bytes line(4096);
  const ssize_t n = read(pipe.first.get(), line.data(), line.size());
  ASSERT_GT(n, 0);
  const std::string text(line.begin(), line.begin() + n);
  const auto e = start("cat >&5 <<'END'\n" + text + "END\nexit 4\n");
  ASSERT_NE(e, nullptr);
  const auto why = e->why_ended(false);
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->reason, Reason::kKernelMismatch);
  EXPECT_EQ(why->line(), said.line());
  EXPECT_EQ(why->next, "build");
  EXPECT_TRUE(e->destroy().empty());
}

// Whatever QEMU comes to need, the host's memory is others' too.
TEST_F(Starts, AreBoundInWhatTheyTakeOfTheHost) {
  const auto e = start("echo 0 >&6; exec sleep 600\n");
  ASSERT_NE(e, nullptr);
  const sandbox::HostProbe host = sandbox::probe_host().value();
  const std::string dir =
      host.controllers.at("memory") + "/glovebox-agent-vm-test-" + std::to_string(getpid());
  const char* name =
      host.cgroups == sandbox::CgroupLayout::kV2 ? "/memory.max" : "/memory.limit_in_bytes";
  EXPECT_EQ(*read_text_file(dir + name, 100),
            std::to_string(512 * kMiB + kMachineOverheadBytes) + "\n");
  EXPECT_EQ(*provisioner_->memory_for(bundle_), 512 * kMiB + kMachineOverheadBytes);
  const bool v2 = host.cgroups == sandbox::CgroupLayout::kV2;
  const std::string swap = dir + (v2 ? "/memory.swap.max" : "/memory.memsw.limit_in_bytes");
  EXPECT_TRUE(path_exists(swap) || !host.limit_swap);
  if (path_exists(swap)) {
    EXPECT_EQ(*read_text_file(swap, 100), v2 ? "0\n" : *read_text_file(dir + name, 100));
  }
  std::string members;
  while (members.empty()) members = *read_text_file(dir + "/cgroup.procs", 100);
  EXPECT_TRUE(e->destroy().empty());
  EXPECT_FALSE(path_exists(dir));
}

TEST_F(Starts, WhoseSimteeDiesAreFailedBoots) {
  const auto e = start("kill -SEGV $$\n");
  ASSERT_NE(e, nullptr);
  const auto why = e->why_ended(false);
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->reason, Reason::kBootFailed);
  EXPECT_EQ(why->actual, "signal 11");
  EXPECT_TRUE(e->destroy().empty());
}

// A QEMU that was killed while its guest worked: no fault of the guest, and worth another attempt.
TEST_F(Starts, ThatWorkedAreLostWhenQemuIs) {
  const auto pipe = make_pipe().value();
  tell_failure(pipe.second.get(), fail(Reason::kBootFailed, "QEMU").with("0", "signal 9"));
  Bytes line(4096);
  const ssize_t n = read(pipe.first.get(), line.data(), line.size());
  ASSERT_GT(n, 0);
  const std::string text(line.begin(), line.begin() + n);
  const auto e = start("cat >&5 <<'END'\n" + text + "END\nexit 6\n");
  ASSERT_NE(e, nullptr);
  const auto why = e->why_ended(true);
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->reason, Reason::kLost);
  EXPECT_EQ(why->actual, "signal 9");
  EXPECT_TRUE(e->destroy().empty());
}

TEST_F(Starts, PassSimteeTheFilesThatBootHere) {
  for (const char* name : {"firmware-tdx", "firmware-snp"}) {
    release_.files.push_back({name, crypto::sha256(as_bytes(name)), 1});
  }
  const auto e = start("printf '%s\\n' \"$@\" > " + dir_ + "/told\n");
  ASSERT_NE(e, nullptr);
  (void)e->why_ended(false);
  const std::string told = read_text_file(dir_ + "/told", 8192).value();
  for (const char* option : {"--firmware\n", "--firmware-sha256\n", "--kernel\n", "--initrd\n"}) {
    EXPECT_NE(told.find(option), std::string::npos) << told;
  }
  EXPECT_EQ(told.find("tdx"), std::string::npos) << told;
  EXPECT_EQ(told.find("snp"), std::string::npos) << told;
}

TEST_F(Starts, AreGivenUpWhileStorageIsDead) {
  prepare("exit 0\n");
  publish();
  store_->be_dead(true);
  // Each leaves a thread behind that storage has not answered, and there is an end to that.
  constexpr int kMostLost = 1 + 16;
  for (int i = 1; i <= kMostLost; ++i) {
    auto give_up = make_pipe().value();
    std::thread other([&] {
      store_->wait_until_asked(i);
      give_up.second.reset();
    });
    const auto lost = again(give_up.first.get());
    other.join();
    EXPECT_EQ(lost.reason(), Reason::kTimedOut);
    EXPECT_FALSE(lost.error().next.empty());
  }
  Result<std::unique_ptr<Environment>> e = again();
  EXPECT_EQ(e.reason(), Reason::kUnavailable);
  store_->be_dead(false);
  while (e.reason() == Reason::kUnavailable) e = again();
  EXPECT_TRUE(e.ok()) << e.error().line();
}

TEST_F(Starts, ThatFailHaveNothingOfTheHost) {
  make_machines_large();
  prepare("exit 0\n");
  ASSERT_EQ(unlink((dir_ + "/simtee").c_str()), 0);
  for (int i = 0; i < 2; ++i) EXPECT_NE(again().reason(), Reason::kNoCapacity);
}

// As QEMU asks: its flags, the whole volume by its default name, and 32 MiB from its beginning.
TEST_F(Starts, WhoseStorageDiesGiveBackTheirMemory) {
  make_machines_large();
  publish();
  const auto e =
      start("while [ ! -e " + dir_ +
            "/dead ]; do :; done\n"
            "printf '\\0\\0\\0\\1IHAVEOPT\\0\\0\\0\\7\\0\\0\\0\\6\\0\\0\\0\\0\\0\\0' >&4\n"
            "printf "
            "'\\045\\140\\225\\023\\0\\0\\0\\0cookies.\\0\\0\\0\\0\\0\\0\\0\\0\\002\\0\\0\\0' >&4\n"
            "exec cat <&3 >/dev/null\n");
  ASSERT_NE(e, nullptr);
  store_->be_dead(true);
  put("dead", "");
  store_->wait_until_asked();
  const std::vector<std::string> residue = e->destroy();
  ASSERT_EQ(residue.size(), 1U);
  EXPECT_EQ(residue[0].rfind("volume: ", 0), 0U) << residue[0];
  store_->be_dead(false);
  const auto next = again();
  EXPECT_TRUE(next.ok()) << next.error().line();
}

// A kernel that panics resets the machine, which ends QEMU as if all were well.
TEST_F(Starts, OfAGuestThatEndsWithoutItsAgentsWordAreFailedBoots) {
  const auto e = start("exit 0\n");
  ASSERT_NE(e, nullptr);
  const auto why = e->why_ended(false);
  ASSERT_TRUE(why.has_value());
  EXPECT_EQ(why->reason, Reason::kBootFailed);
  EXPECT_FALSE(why->next.empty());
  EXPECT_FALSE(e->why_ended(true).has_value());
  EXPECT_TRUE(e->destroy().empty());
}

}  // namespace
}  // namespace gbx::node
