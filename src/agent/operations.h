// What the worker asks of the privileged half, and the answers. Every operation acts on the one
// attempt that this agent lives for, in the order: unpack, mount (each input), run, gate, destroy;
// a quote at any time but after a failure.
#pragma once

#include "gate/records.h"
#include "records/messages.h"

namespace gbx::agent {

namespace operation {
inline constexpr std::string_view kQuote = "quote";    // QuoteRequest -> QuoteReply
inline constexpr std::string_view kUnpack = "unpack";  // UnpackRequest + key pipe -> UnpackReply
inline constexpr std::string_view kMount = "mount";    // MountRequest + key pipe -> MountReply
inline constexpr std::string_view kRun = "run";        // RunRequest -> RunReply
// gate::GateRequest (descriptors unset) -> GateReply + memory file
inline constexpr std::string_view kGate = "gate";
inline constexpr std::string_view kDestroy = "destroy";  // Empty -> DestroyReply
}  // namespace operation

// The platform's word about this machine; never asked for where there is no TEE.
struct QuoteRequest {
  FixedBytes<64> report_data{};
  template <class F>
  void fields(F& f) {
    f("reportData", report_data);
  }
};
struct QuoteReply {
  Bytes quote;
  std::vector<records::Collateral> collateral;
  template <class F>
  void fields(F& f) {
    f("quote", quote, Bound{1, 65536});
    f("collateral", collateral, Bound{0, 15});
  }
};
// How an asset's ciphertext is read: as the plan says, and with prefetch within what is left of the
// attempt's bound.
struct Reading {
  records::Access access = records::Access::kPrefetch;
  std::int64_t prefetch_limit = 0;
  template <class F>
  void fields(F& f) {
    f("access", access);
    f("prefetchLimit", prefetch_limit, Bound{0, kMaxJsonInteger});
  }
};
struct UnpackRequest {
  records::VersionRecord record;
  std::string image_digest;
  Reading reading;
  std::int64_t room_bytes = 0;  // what it may fill
  // that will run: it must be there, unless something is mounted over it
  std::string program;
  template <class F>
  void fields(F& f) {
    f("record", record);
    f("imageDigest", image_digest, Bound{71, 71});
    f("reading", reading);
    f("roomBytes", room_bytes, Bound{1, std::int64_t{1} << 40});
    f("program", program, Bound{1, records::kMaxArgumentBytes});
  }
};
struct UnpackReply {
  std::string image_digest;
  Hash32 root_hash{};
  bool pageable = false;
  template <class F>
  void fields(F& f) {
    f("imageDigest", image_digest, Bound{71, 71});
    f("rootHash", root_hash);
    f("pageable", pageable);
  }
};
struct MountReply {
  bool pageable = false;  // what was prefetched could not be locked in memory
  template <class F>
  void fields(F& f) {
    f("pageable", pageable);
  }
};
struct MountRequest {
  std::string name;
  std::string mount;
  records::VersionRecord record;
  Reading reading;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("mount", mount, Bound{7, 200});
    f("record", record);
    f("reading", reading);
  }
};
struct RunRequest {
  std::vector<std::string> argv;
  std::map<std::string, std::string> env;
  records::PlanControls controls;
  std::optional<std::string> runtime;
  std::int64_t log_bytes = 0;
  template <class F>
  void fields(F& f) {
    f("argv", argv, Bound{1, 320, records::kMaxArgumentBytes});
    f("env", env, Bound{0, 64, records::kMaxArgumentBytes});
    f("controls", controls);
    f("runtime", runtime, Bound{1, 16});
    f("logBytes", log_bytes, Bound{0, records::kMaxLogBytes});
  }
};
struct RunReply {
  gate::RunExit exit = gate::RunExit::kFailed;
  std::int64_t duration_ms = 0;
  std::string runtime;                // "crun 1.8.1"
  std::vector<std::string> controls;  // the mandatory controls that were found in force
  // other accounts of the host see the command lines of the container's processes
  bool listed = true;
  template <class F>
  void fields(F& f) {
    f("exit", exit);
    f("durationMs", duration_ms);
    f("runtime", runtime, Bound{0, 64});
    f("controls", controls, Bound{0, 64});
    f("listed", listed);
  }
};
struct GateReply {
  gate::GateResult result;
  std::int64_t bundle_bytes = 0;
  template <class F>
  void fields(F& f) {
    f("result", result);
    f("bundleBytes", bundle_bytes);
  }
};
struct DestroyReply {
  std::vector<std::string> residue;
  template <class F>
  void fields(F& f) {
    f("residue", residue, Bound{0, 64});
  }
};

}  // namespace gbx::agent
