#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>

#include "base/fields.h"
#include "base/log.h"
#include "base/os.h"
#include "base/seams.h"
#include "oci/layout.h"
#include "oci/oci.h"

namespace gbx::oci {
namespace {

constexpr std::size_t kMaxResult = 64U << 10;

// What the child says. Digest and hash are not in it: the parent reckons both itself, without
// parsing anything.
struct Report {
  std::string reason;  // empty: it worked
  std::string what;
  std::string expected;
  std::string actual;
  std::int64_t entries = 0;
  std::int64_t bytes = 0;
  std::int64_t stripped_setid = 0;
  std::int64_t dropped_xattrs = 0;
  template <class F>
  void fields(F& f) {
    f("reason", reason, Bound{0, 64});
    f("what", what, Bound{0, 8192});
    f("expected", expected, Bound{0, 1024});
    f("actual", actual, Bound{0, 1024});
    f("entries", entries, Bound{0, kMaxJsonInteger});
    f("bytes", bytes, Bound{0, kMaxJsonInteger});
    f("strippedSetid", stripped_setid, Bound{0, kMaxJsonInteger});
    f("droppedXattrs", dropped_xattrs, Bound{0, kMaxJsonInteger});
  }
};

std::int64_t as_signed(std::uint64_t v) {
  return static_cast<std::int64_t>(std::min<std::uint64_t>(v, kMaxJsonInteger));
}

std::vector<std::string> arguments(const std::string& program, const UnpackOptions& o) {
  std::vector<std::string> argv{program, o.expected_digest};
  for (const std::uint64_t v :
       {std::uint64_t{o.uid_base}, o.limits.max_layers, o.limits.max_entries, o.limits.max_bytes,
        o.limits.max_ratio, o.limits.ratio_floor, o.limits.max_depth}) {
    argv.push_back(std::to_string(v));
  }
  return argv;
}

// Reads until the child closes the pipe, which it does by ending.
Result<std::string> read_report(int fd, std::int64_t timeout_ms) {
  const SystemClock clock;
  const std::int64_t end = clock.steady_ms() + timeout_ms;
  std::string out;
  for (;;) {
    const std::int64_t left = end - clock.steady_ms();
    if (left <= 0) {
      return fail(Reason::kTimedOut,
                  "unpacking took longer than " + std::to_string(timeout_ms) + " ms");
    }
    pollfd p{fd, POLLIN, 0};
    const int n = poll(&p, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
    if (n < 0 && errno != EINTR) return io_error("poll", errno);
    if (n <= 0) continue;
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("result of glovebox-unpack", errno);
    if (got == 0) return out;
    out.append(buffer, static_cast<std::size_t>(got));
    if (out.size() > kMaxResult) {
      return fail(Reason::kImageRefused, "glovebox-unpack reported too much");
    }
  }
}

// What an image can bring about is a fault of the unpacker, a call that its confinement kills or
// one of its limits, each with a signal of its own (confine.cpp). Only others send the rest:
// whoever has the right to, and the kernel where the machine's memory ran out.
Error ended_by_signal(int signal) {
  if (signal == SIGKILL || signal == SIGTERM || signal == SIGINT || signal == SIGHUP ||
      signal == SIGQUIT) {
    return fail(Reason::kSandboxSetup,
                "glovebox-unpack was killed from outside, which no image brings about")
        .with("its exit", "signal " + std::to_string(signal))
        .hint("submit the job again; if it goes on, ask the node's operator who or what kills it");
  }
  return fail(Reason::kImageRefused, "glovebox-unpack died of the image")
      .with("its exit", "signal " + std::to_string(signal));
}

}  // namespace

std::string result_to_json(const Result<UnpackedImage>& result) {
  Report r;
  if (result.ok()) {
    r.entries = as_signed(result->entries);
    r.bytes = as_signed(result->bytes);
    r.stripped_setid = as_signed(result->stripped_setid);
    r.dropped_xattrs = as_signed(result->dropped_xattrs);
  } else {
    const Error& e = result.error();
    r.reason = std::string(reason_code(e.reason));
    r.what = printable(e.what, 4000);
    r.expected = printable(e.expected, 500);
    r.actual = printable(e.actual, 500);
  }
  return canonical(to_json(r));
}

Result<UnpackedImage> result_from_json(std::string_view text) {
  auto report = from_json_text<Report>(
      text, JsonLimits{.max_bytes = kMaxResult, .max_depth = 2, .max_values = 32});
  if (!report.ok()) {
    return fail(Reason::kImageRefused,
                "glovebox-unpack reported nonsense: " + report.error().line());
  }
  if (!report->reason.empty()) {
    Reason reason = Reason::kImageRefused;
    if (!reason_from_code(report->reason, &reason)) reason = Reason::kImageRefused;
    return fail(reason, printable(report->what, 4000))
        .with(printable(report->expected, 500), printable(report->actual, 500));
  }
  UnpackedImage image;
  image.entries = static_cast<std::uint64_t>(report->entries);
  image.bytes = static_cast<std::uint64_t>(report->bytes);
  image.stripped_setid = static_cast<std::uint64_t>(report->stripped_setid);
  image.dropped_xattrs = static_cast<std::uint64_t>(report->dropped_xattrs);
  return image;
}

Result<UnpackedImage> unpack_confined(int layout_fd, int target_fd, const UnpackOptions& options,
                                      const ConfinedOptions& confined) {
  GBX_TRY(check_manifest_digest(layout_fd, options.expected_digest));
  GBX_ASSIGN(auto pipe, make_pipe());
  ProcessOptions child;
  child.argv = arguments(
      confined.program.empty() ? program_dir() + "/glovebox-unpack" : confined.program, options);
  child.descriptors = {{3, layout_fd}, {4, target_fd}, {5, pipe.second.get()}};
  GBX_ASSIGN(Process process, spawn(child));
  pipe.second.reset();
  auto report = read_report(pipe.first.get(), confined.timeout_ms);
  if (!report.ok()) return report.error();  // `process` is killed
  GBX_ASSIGN(const auto status, process.wait(10'000));
  if (!status) return fail(Reason::kTimedOut, "glovebox-unpack did not end");
  if (!status->exited) return ended_by_signal(status->code);
  GBX_ASSIGN(UnpackedImage result, result_from_json(*report));
  result.image.manifest_digest = options.expected_digest;
  GBX_ASSIGN(result.root_hash, hash_tree(target_fd));
  return result;
}

}  // namespace gbx::oci
