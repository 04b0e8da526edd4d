// The probe, with kernels that end as they should, otherwise, or never, and with the guest's own
// where there is one.
#include "vm/accelerator.h"

#include "vm/testing.h"

namespace gbx::vm::testing {
namespace {

constexpr const char* kPlainFirmware = "/usr/share/seabios/bios-256k.bin";

#define NEEDS_QEMU()                                                          \
  if (!path_exists(LaunchDescription{}.qemu) || !path_exists(kPlainFirmware)) \
  GTEST_SKIP() << "QEMU is not installed"

// A kernel for QEMU of a few instructions (Multiboot 0.6.96, section 3.1, with addresses).
Bytes tiny_kernel(ByteView instructions) {
  constexpr std::uint32_t kMagic = 0x1badb002;
  constexpr std::uint32_t kFlags = 1 << 16;
  constexpr std::uint32_t kAt = 1 << 20;
  ByteWriter w;
  w.u32(kMagic).u32(kFlags).u32(~(kMagic + kFlags) + 1);
  w.u32(kAt).u32(kAt).u32(0).u32(0).u32(kAt + 32);
  w.raw(instructions).zeros(64);
  return w.take();
}
// mov dx, 0xf4; mov al, VALUE; out dx, al; hlt; jmp back
Bytes says(std::uint8_t value) {
  return {0x66, 0xba, 0xf4, 0x00, 0xb0, value, 0xee, 0xf4, 0xeb, 0xfd};
}
const Bytes kSpins = {0xeb, 0xfe};                           // jmp to itself
const Bytes kFaults = {0x0f, 0x01, 0x15, 0, 0, 0, 0, 0xcc};  // lgdt of zeros; int3: a triple fault

struct Kernel {
  explicit Kernel(ByteView instructions) {
    EXPECT_TRUE(write_file_atomic(folder.path + "/kernel", tiny_kernel(instructions), 0600).ok());
    options.kernel = folder.path + "/kernel";
    options.firmware = kPlainFirmware;
    options.memory_file = folder.path + "/accelerator";
  }
  Folder folder;
  ProbeOptions options;
};

TEST(Accelerator, OnlyTheProgramsOwnWordCounts) {
  NEEDS_QEMU();
  const Kernel good(says(0x15));
  const Status ran = boots_guest(Platform::kEmulation, good.options);
  EXPECT_TRUE(ran.ok()) << ran.error().line();
  EXPECT_EQ(boots_guest(Platform::kEmulation, Kernel(says(0x16)).options).reason(),
            Reason::kUnsupported);
  // It ends QEMU with 0, as a kernel's panic would.
  EXPECT_EQ(boots_guest(Platform::kEmulation, Kernel(kFaults).options).reason(),
            Reason::kUnsupported);
  Kernel refused(says(0x15));
  refused.options.kernel += "-absent";
  EXPECT_EQ(boots_guest(Platform::kEmulation, refused.options).reason(), Reason::kUnsupported);
}

TEST(Accelerator, AGuestThatHangsMeetsTheDeadline) {
  NEEDS_QEMU();
  Kernel spins(kSpins);
  spins.options.deadline_ms = 300;
  EXPECT_EQ(boots_guest(Platform::kEmulation, spins.options).reason(), Reason::kTimedOut);
}

// A QEMU that ends as the test says where KVM is asked for, and counts how often it was.
struct FakeQemu : Kernel {
  explicit FakeQemu(const std::string& kvm) : Kernel(says(0x15)) {
    options.qemu = folder.path + "/qemu";
    options.deadline_ms = 2'000;
    set(kvm, "7");
  }
  void set(const std::string& kvm, const std::string& version) {
    const std::string script = "#!/bin/sh\n[ \"$1\" = --version ] && echo QEMU emulator version " +
                               version + " && exit 0\necho tried >> " + folder.path + "/tries\n" +
                               kvm + "\n";
    EXPECT_TRUE(write_file_atomic(options.qemu, as_bytes(script), 0755).ok());
  }
  std::size_t tries() const {
    const auto text = read_text_file(folder.path + "/tries", 4096);
    return text.ok() ? text->size() / 6 : 0;
  }
  AcceleratorFound find() const {
    const auto found = find_accelerator(options);
    EXPECT_TRUE(found.ok()) << found.error().line();
    return found.ok() ? *found : AcceleratorFound{};
  }
};

#define NEEDS_KVM() \
  if (access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "there is no usable /dev/kvm"

TEST(Accelerator, TheAnswerIsRememberedUntilWhatItDependsOnChanges) {
  NEEDS_KVM();
  FakeQemu works("exit 43");
  AcceleratorFound found = works.find();
  EXPECT_EQ(found.platform, Platform::kKvm);
  EXPECT_FALSE(found.remembered);
  found = works.find();
  EXPECT_EQ(found.platform, Platform::kKvm);
  EXPECT_TRUE(found.remembered);
  EXPECT_EQ(works.tries(), 1u);
  works.set("echo failed to set MSR >&2; exit 134", "8");
  found = works.find();
  EXPECT_EQ(found.platform, Platform::kEmulation);
  EXPECT_NE(found.why.find("failed to set MSR"), std::string::npos) << found.why;
  EXPECT_EQ(found.why.find('\n'), std::string::npos);
  EXPECT_TRUE(works.find().remembered);
  EXPECT_EQ(works.tries(), 2u);
  // Another kernel of the guest.
  ASSERT_TRUE(write_file_atomic(works.options.kernel, as_bytes("another"), 0600).ok());
  EXPECT_FALSE(works.find().remembered);
  EXPECT_EQ(works.tries(), 3u);
}

TEST(Accelerator, AMemoryThatIsDamagedIsNoAnswer) {
  NEEDS_KVM();
  FakeQemu works("exit 43");
  EXPECT_EQ(works.find().platform, Platform::kKvm);
  const std::string good = read_text_file(works.options.memory_file, 256).value();
  for (const std::string& bad : {std::string(), good + "x", good.substr(1), "0" + good.substr(1),
                                 std::string(10'000, 'a'), good.substr(0, 65) + "tdx\n"}) {
    ASSERT_TRUE(write_file_atomic(works.options.memory_file, as_bytes(bad), 0600).ok());
    const std::size_t before = works.tries();
    EXPECT_EQ(works.find().platform, Platform::kKvm);
    EXPECT_EQ(works.tries(), before + 1) << bad.substr(0, 100);
    EXPECT_EQ(read_text_file(works.options.memory_file, 256).value(), good);
  }
  // Where it cannot be kept it is said, and the answer is the same.
  works.options.memory_file = works.folder.path + "/absent/file";
  const AcceleratorFound found = works.find();
  EXPECT_EQ(found.platform, Platform::kKvm);
  EXPECT_NE(found.why.find("not kept"), std::string::npos) << found.why;
}

TEST(Accelerator, AKvmThatHangsIsKilledAndEmulationUsed) {
  NEEDS_KVM();
  FakeQemu hangs("echo $$ > $(dirname $0)/pid; exec sleep 1000");
  hangs.options.deadline_ms = 300;
  const AcceleratorFound found = hangs.find();
  EXPECT_EQ(found.platform, Platform::kEmulation);
  EXPECT_NE(found.why.find("timed-out"), std::string::npos) << found.why;
  const std::string pid = read_text_file(hangs.folder.path + "/pid", 32).value();
  EXPECT_NE(kill(atoi(pid.c_str()), 0), 0) << "it is still there";
  EXPECT_TRUE(hangs.find().remembered) << "nobody waits twice";
}

TEST(Accelerator, WithoutItsPartsThereIsNoAnswer) {
  FakeQemu q("exit 43");
  q.options.qemu = "/nowhere/qemu";
  EXPECT_EQ(find_accelerator(q.options).reason(), Reason::kNotFound);
  FakeQemu k("exit 43");
  k.options.kernel += "-absent";
  EXPECT_FALSE(find_accelerator(k.options).ok());
}

// The guest's kernel, where GBX_GUEST_KERNEL or guest/build has put one.
std::string guest_kernel() {
  const char* named = getenv("GBX_GUEST_KERNEL");
  const char* source = getenv("GBX_SOURCE_DIR");
  if (named != nullptr || source == nullptr) return named == nullptr ? "" : named;
  const std::string built = std::string(source) + "/build/guest/kernel";
  return path_exists(built) ? built : "";
}

TEST(Accelerator, TheGuestsOwnKernelReachesTheProgram) {
  NEEDS_QEMU();
  const std::string kernel = guest_kernel();
  if (kernel.empty()) GTEST_SKIP() << "the guest is not built";
  Folder folder;
  ProbeOptions options;
  options.firmware = "/usr/share/ovmf/OVMF.fd";
  options.kernel = kernel;
  options.memory_file = folder.path + "/accelerator";
  const Status emulated = boots_guest(Platform::kEmulation, options);
  EXPECT_TRUE(emulated.ok()) << emulated.error().line();
  const auto found = find_accelerator(options);
  ASSERT_TRUE(found.ok()) << found.error().line();
  EXPECT_TRUE(found->platform == Platform::kKvm || found->platform == Platform::kEmulation);
  printf("%s\n", found->why.c_str());
}

}  // namespace
}  // namespace gbx::vm::testing
