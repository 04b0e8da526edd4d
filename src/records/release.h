// A guest release: a name for what boots in a confidential VM, and what each platform measures of
// it. Signed by a release signer of a set's charter, so owners' policies name releases and anybody
// with the same files computes the same measurements (`glovebox measure`). Registers are the words
// of the platform's vendor; for `sim` docs/formats/sim-v1.md says what they are.
#pragma once

#include "records/set.h"

namespace gbx::records {

using Register48 = FixedBytes<48>;

// One size of VM.
struct MeasuredMachine {
  std::int64_t cpus = 1;
  std::int64_t memory_bytes = 0;
  Register48 measurement{};  // tdx and sim: RTMR0; sev-snp: the launch digest
  template <class F>
  void fields(F& f) {
    f("cpus", cpus, Bound{1, 4096});
    f("memoryBytes", memory_bytes, Bound{1, kMaxLentBytes});
    f("measurement", measurement);
  }
};
// What the registers were extended with, as the event log names it: it tells a verifier which part
// of a launch differs.
struct MeasuredParts {
  Register48 firmware{};  // MRTD
  Register48 kernel{};    // in RTMR1
  Register48 cmdline{};   // in RTMR2
  Register48 initrd{};    // in RTMR2
  Register48 rtmr1{};
  Register48 rtmr2{};
  template <class F>
  void fields(F& f) {
    f("firmware", firmware);
    f("kernel", kernel);
    f("cmdline", cmdline);
    f("initrd", initrd);
    f("rtmr1", rtmr1);
    f("rtmr2", rtmr2);
  }
};
struct PlatformMeasurements {
  Technology technology = Technology::kSim;
  std::optional<MeasuredParts> parts;  // tdx and sim
  std::vector<MeasuredMachine> machines;
  template <class F>
  void fields(F& f) {
    f("technology", technology);
    f("parts", parts);
    f("machines", machines, Bound{1, 128});
  }
};
struct ReleaseFile {
  std::string name;  // "firmware", "kernel", "initrd"
  Hash32 sha256{};
  std::int64_t size_bytes = 0;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 64});
    f("sha256", sha256);
    f("sizeBytes", size_bytes, Bound{1, kMaxLentBytes});
  }
};
struct GuestRelease {
  static constexpr std::string_view kType = "guest-release";
  static constexpr bool kBindsSet = false;
  std::string name;
  std::int64_t svn = 1;  // rises when a release mends something that owners should insist on
  std::string cmdline;
  std::vector<ReleaseFile> files;
  Hash32 lock{};       // SHA-256 of the lock of Debian packages
  std::string source;  // what it was built from, for an auditor: a version or commit
  std::vector<PlatformMeasurements> platforms;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 64});
    f("svn", svn, Bound{0, 1'000'000});
    f("cmdline", cmdline, Bound{1, 2048});
    f("files", files, Bound{1, 16});
    f("lock", lock);
    f("source", source, Bound{1, 200});
    f("platforms", platforms, Bound{1, 8});
  }
};

}  // namespace gbx::records
