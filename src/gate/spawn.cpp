#include "gate/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "gate/schema.h"

namespace gbx::gate {
namespace {

constexpr int kFirstFd = 3;

Result<Fd> memory_file(ByteView content) {
  Fd fd(memfd_create("gate-request", MFD_CLOEXEC));
  if (!fd.valid()) return io_error("memfd_create", errno);
  GBX_TRY(write_all(fd.get(), content));
  if (lseek(fd.get(), 0, SEEK_SET) != 0) return io_error("lseek", errno);
  return fd;
}

GateOutcome held(const GateRequest& request, GateReason why) {
  GateOutcome o;
  o.failure = why;
  o.result = held_result(request, why);
  return o;
}

Error unfit(Reason reason, const char* what) {
  return fail(reason, std::string("gate answer: ") + what);
}

// Everything until the end of the pipe, at most `limit` bytes, before `deadline`. The Reason of a
// failure is kTimedOut, kTooLarge or kIo.
Result<Bytes> read_until(int fd, std::size_t limit, const Clock& clock, std::int64_t deadline) {
  Bytes out;
  std::vector<std::uint8_t> buffer(1U << 16);
  while (true) {
    const std::int64_t left = deadline - clock.steady_ms();
    if (left <= 0) return fail(Reason::kTimedOut, "gate");
    pollfd p{fd, POLLIN, 0};
    const int ready = poll(&p, 1, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
    if (ready < 0 && errno != EINTR) return io_error("poll", errno);
    if (ready <= 0) continue;
    const ssize_t n = read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("read", errno);
    if (n == 0) return out;
    if (out.size() + static_cast<std::size_t>(n) > limit) {
      return fail(Reason::kTooLarge, "gate answer");
    }
    append(out, ByteView(buffer.data(), static_cast<std::size_t>(n)));
  }
}

std::size_t answer_limit(const GateRequest& r) {
  return kMaxResultJson + padded_bundle_size(r) + 64;
}

// The manifest and the bundle name the same outputs with the same bytes.
Status check_manifest(const GateRequest& r, const GateResult& g, const ReleaseChannel& c) {
  std::vector<const BundleEntry*> outputs;
  for (const auto& e : c.entries()) {
    if (e.kind == EntryKind::kOutput) outputs.push_back(&e);
  }
  if (outputs.size() != g.manifest.size()) {
    return unfit(Reason::kBadStructure, "manifest and bundle");
  }
  for (const auto& m : g.manifest) {
    const auto d = std::find_if(r.outputs.begin(), r.outputs.end(), [&](const auto& o) {
      return o.name == m.name && o.path == m.path;
    });
    const auto e = std::find_if(outputs.begin(), outputs.end(),
                                [&](const auto* b) { return b->name == m.path; });
    if (d == r.outputs.end() || e == outputs.end()) {
      return unfit(Reason::kBadStructure, "an undeclared output");
    }
    const Bytes& content = (*e)->content;
    if (static_cast<std::int64_t>(content.size()) != m.bytes || m.bytes > d->maxBytes) {
      return unfit(Reason::kBadValue, "size");
    }
    if (output_digest(r.salt, m.name, content) != m.digest) {
      return unfit(Reason::kBadHash, "digest of an output");
    }
  }
  return ok_status();
}

Status check_channel(const GateRequest& r, const GateResult& g, const ReleaseChannel& c) {
  const BundleStatus& s = c.status();
  if (s.jobId != r.jobId || s.attempt != r.attempt || s.exitClass != r.exitClass ||
      s.durationBucket != duration_bucket(r.durationSeconds)) {
    return unfit(Reason::kBadStructure, "status in the bundle");
  }
  if (c.bytes().size() != padded_bundle_size(r)) {
    return unfit(Reason::kBadValue, "size of the bundle");
  }
  if (output_digest(r.salt, "", c.bytes()) != g.bundleDigest) {
    return unfit(Reason::kBadHash, "digest of the bundle");
  }
  for (const auto& e : c.entries()) {
    const bool log = e.kind == EntryKind::kLog;
    if (log && static_cast<std::int64_t>(e.content.size()) > consumer_log_bytes(r)) {
      return unfit(Reason::kBadValue, "log");
    }
  }
  return check_manifest(r, g, c);
}

// What no content can change: who asked, the charge, and the decision that these facts allow.
Status check_facts(const GateRequest& r, const GateResult& g) {
  if (g.jobId != r.jobId || g.attempt != r.attempt || g.requestDigest != request_digest(r) ||
      g.policyHash != policy_hash(r.policy)) {
    return unfit(Reason::kBadHash, "another request");
  }
  if (g.exitClass != r.exitClass || g.durationBucket != duration_bucket(r.durationSeconds)) {
    return unfit(Reason::kBadValue, "run");
  }
  if (g.verdict != worst_status(g.analysers)) return unfit(Reason::kBadValue, "verdict");
  const Recommendation due = recommend(r, g.analysers, g.score);
  if (g.recommendation < due) return ok_status();  // stricter than the facts ask for
  if (g.recommendation != due) return unfit(Reason::kBadValue, "recommendation");
  if (g.recommendation != Recommendation::kRelease || r.exitClass != RunExit::kOk) {
    return ok_status();
  }
  for (const auto& o : r.outputs) {
    const Result<Schema> schema = parse_schema(o);
    if (!schema.ok() || !schema->bounded) {
      return unfit(Reason::kBadValue, "releases what must be held");
    }
  }
  if (g.manifest.size() != r.outputs.size()) {
    return unfit(Reason::kBadStructure, "an output is missing");
  }
  return ok_status();
}

Status check_charge(const GateRequest& r, const GateResult& g, bool content) {
  Charge expected;
  expected.freeBits = kControlBits;
  if (content) {
    GBX_ASSIGN(expected, release_charge(r));
  }
  if (g.charge != expected) return unfit(Reason::kBadValue, "charge");
  if (g.recommendation == Recommendation::kRelease &&
      (expected.freeBits > r.policy.autoClearFreeBits ||
       expected.verifiedBits > r.policy.autoClearVerifiedBits)) {
    return unfit(Reason::kBadValue, "releases more than the policy clears");
  }
  return ok_status();
}

}  // namespace

Result<GateOutcome> check_answer(const GateRequest& r, ByteView bytes) {
  GBX_ASSIGN(Answer a, decode_answer(bytes));
  GateOutcome o;
  GBX_TRY(check_facts(r, a.result));
  if (!a.bundle.empty()) {
    GBX_ASSIGN(o.channel, ReleaseChannel::decode(a.bundle));
    GBX_TRY(check_channel(r, a.result, *o.channel));
  } else if (a.result.recommendation == Recommendation::kRelease || !a.result.manifest.empty()) {
    return unfit(Reason::kBadStructure, "no bundle");
  }
  if (a.result.recommendation == Recommendation::kReject && o.channel) {
    return unfit(Reason::kBadStructure, "rejected content");
  }
  GBX_TRY(check_charge(r, a.result, o.channel.has_value()));
  o.completed = true;
  o.failure = GateReason::kNone;
  o.result = std::move(a.result);
  return o;
}

Result<GateOutcome> run_gate(GateSpawn s, const Clock& clock) {
  GateRequest& r = s.request;
  if (s.input_fds.size() != r.inputs.size() || s.out_fd < 0) {
    return fail(Reason::kInternal, "run_gate: descriptors");
  }
  ProcessOptions options;
  options.argv = {s.program};
  options.uid = s.uid;
  options.new_session = true;
  int next = kFirstFd;
  const auto pass = [&](int fd) {
    options.descriptors[next] = fd;
    return std::int64_t{next++};
  };
  r.outFd = pass(s.out_fd);
  for (std::size_t i = 0; i < s.input_fds.size(); ++i) r.inputs[i].fd = pass(s.input_fds[i]);
  r.logs.fd.reset();
  if (s.log_fd) r.logs.fd = pass(*s.log_fd);
  GBX_TRY(check_request(r));
  GBX_ASSIGN(const Fd input, memory_file(as_bytes(canonical(to_json(r)))));
  GBX_ASSIGN(auto pipe, make_pipe());
  // A gate that hostile bytes took over must not reach a console that the host reads.
  const Fd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
  if (!null.valid()) return io_error("/dev/null", errno);
  options.descriptors[0] = input.get();
  options.descriptors[1] = pipe.second.get();
  options.descriptors[2] = null.get();
  GBX_ASSIGN(Process child, spawn(options));
  pipe.second.reset();
  const std::int64_t deadline = clock.steady_ms() + s.timeout_ms;
  const Result<Bytes> answer = read_until(pipe.first.get(), answer_limit(r), clock, deadline);
  if (!answer.ok()) {
    return held(r, answer.reason() == Reason::kTimedOut ? GateReason::kGateTimedOut
                                                        : GateReason::kGateGarbage);
  }
  GBX_ASSIGN(const auto status,
             child.wait(std::max<std::int64_t>(deadline - clock.steady_ms(), 0)));
  if (!status) return held(r, GateReason::kGateTimedOut);
  if (!status->exited || status->code != 0) return held(r, GateReason::kGateCrashed);
  Result<GateOutcome> outcome = check_answer(r, *answer);
  if (!outcome.ok()) return held(r, GateReason::kGateGarbage);
  return outcome;
}

}  // namespace gbx::gate
