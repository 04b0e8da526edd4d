#include "agent/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <utility>

#include "agent/asset_mount.h"
#include "agent/attempt_order.h"
#include "agent/ipc.h"
#include "agent/memory_bound.h"
#include "base/names.h"
#include "gate/spawn.h"
#include "oci/oci.h"
#include "sandbox/sandbox.h"

namespace gbx::agent {

using records::Empty;
using records::VersionRecord;

namespace {

constexpr std::int64_t kFirstDecryptUid = 1;
// from uid_base: the range that container ids map to
constexpr std::int64_t kContainerIds = 65'536;
constexpr std::int64_t kContainerUid = 1000;  // in the container
// bytes of the environment's folder beside the image
constexpr std::int64_t kMountPoints = std::int64_t{1} << 20;

// Before any data is opened, so that a mistyped command costs no budget and its author is told.
// What the container mounts over the image is not looked at.
Status check_program(int rootfs, const std::string& program) {
  const std::string below = "/" + program + "/";
  for (const char* part : {"/../", "/./", "//data/", "//out/", "//tmp/", "//proc/", "//dev/"}) {
    if (below.find(part) != std::string::npos) return ok_status();
  }
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  // SAFETY: openat2 has no libc wrapper here; how is fully initialised and its size passed.
  const Fd fd(static_cast<int>(syscall(SYS_openat2, rootfs, program.c_str(), &how, sizeof how)));
  struct stat st {};
  const bool there =
      fd.valid() && fstat(fd.get(), &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111) != 0;
  if (there) return ok_status();
  return fail(Reason::kNotFound, "spec.command[0]")
      .with("an executable file in the image", printable(program, 200));
}

class Supervisor {
 public:
  explicit Supervisor(const SupervisorOptions& o) : o_(o) {}
  // The worker asks for it when all went well; when it is dead, nobody is left to be told but the
  // log.
  ~Supervisor() {
    destroy();
    for (const auto& line : residue_) o_.log->error("residue", fail(Reason::kSandboxSetup, line));
  }

  Status run() {
    GBX_TRY(private_mounts());
    for (;;) {
      GBX_ASSIGN(auto packet, receive_packet(o_.worker));
      if (!packet) return ok_status();
      GBX_TRY(answer(*packet));
    }
  }

 private:
  // Mounts made here are seen by nobody else and end with the last process of the namespace.
  Status private_mounts() {
    if (unshare(CLONE_NEWNS) != 0) return io_error("unshare mounts", errno);
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      return io_error("private mounts", errno);
    }
    GBX_TRY(mount_memory(0, kMountPoints));
    mounted_.push_back(o_.dir);
    GBX_TRY(make_dirs(o_.dir + "/rootfs", 0755));
    return make_dirs(o_.dir + "/data", 0711);
  }

  // The environment's folder is memory, and holds `bytes` at most.
  Status mount_memory(unsigned long flags, std::int64_t bytes) {
    const std::string size = "mode=0711,size=" + std::to_string(bytes);
    const bool ok =
        mount("tmpfs", o_.dir.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | flags, size.c_str()) == 0;
    return ok ? ok_status() : Status(io_error("tmpfs", errno));
  }

  // A request that is refused, or that fails, ends the attempt: everything goes at once. What is
  // answered after that is what was left of it; whoever asks for more was taken over. A platform
  // that has no quote yet is no failure: it is asked again.
  Status answer(Packet& packet) {
    Fd fd;
    const bool over = order_.ended();
    not_yet_ = false;
    auto body = perform(packet, fd);
    Json reply;
    Status status = ok_status();
    if (body.ok()) {
      reply["body"] = std::move(*body);
    } else {
      o_.log->error("operation", body.error());
      if (!not_yet_) {
        order_.end();
        destroy();
      }
      reply["error"]["reason"] = reason_code(body.error().reason);
      reply["error"]["what"] = printable(body.error().detail(), 400);
      if (over && !not_yet_) status = body.error();
    }
    GBX_TRY(send_packet(o_.worker, reply, fd.get()));
    return status;
  }

  Result<Json> perform(Packet& packet, Fd& fd) {
    const Json* op = packet.body.find("op");
    const Json* body = packet.body.find("body");
    const JsonObject* all = packet.body.object();
    if (op == nullptr || op->string() == nullptr || body == nullptr || all->size() != 2) {
      return fail(Reason::kBadStructure, "operation").with("{op, body}", "another message");
    }
    GBX_ASSIGN(const Operation operation, enum_from<Operation>(*op->string()));
    GBX_TRY(order_.admit(operation));
    const bool keyed = operation == Operation::kUnpack || operation == Operation::kMount;
    if (packet.fd.valid() != keyed) {
      return fail(Reason::kBadStructure, "descriptor of " + *op->string())
          .with(keyed ? "one" : "none", keyed ? "none" : "one");
    }
    GBX_ASSIGN(Json reply, dispatch(operation, *body, std::move(packet.fd), fd));
    order_.done(operation);
    return reply;
  }
  Result<Json> dispatch(Operation operation, const Json& body, Fd key, Fd& fd) {
    switch (operation) {
      case Operation::kQuote:
        return with<QuoteRequest>(body, [&](const auto& r) { return quote(r); });
      case Operation::kUnpack:
        return with<UnpackRequest>(body, [&](const auto& r) { return unpack(r, std::move(key)); });
      case Operation::kMount:
        return with<MountRequest>(body,
                                  [&](const auto& r) { return mount_input(r, std::move(key)); });
      case Operation::kRun:
        return with<RunRequest>(body, [&](const auto& r) { return run_container(r); });
      case Operation::kGate:
        return with<gate::GateRequest>(body, [&](const auto& r) { return run_gate(r, fd); });
      case Operation::kDestroy:
        return with<Empty>(body, [&](const Empty&) -> Result<DestroyReply> {
          destroy();
          return DestroyReply{std::exchange(residue_, {})};
        });
    }
    return fail(Reason::kInternal, "operation");
  }
  template <class Request, class Handler>
  Result<Json> with(const Json& body, Handler handler) {
    GBX_ASSIGN(Request request, from_json<Request>(body));
    auto reply = handler(request);
    if (!reply.ok()) return reply.error();
    return to_json(*reply);
  }

  uid_t uid(std::int64_t offset) const { return static_cast<uid_t>(o_.uid_base + offset); }

  Result<AssetMount> mount_asset(const VersionRecord& record, const Reading& reading,
                                 const std::string& at, Fd key) {
    GBX_ASSIGN(const MemoryFacts facts, memory_facts());
    GBX_TRY(check_reading(facts, prefetched_, reading.prefetch_limit));
    prefetched_ += reading.prefetch_limit;
    GBX_TRY(make_dirs(at, 0755));
    return AssetMount::mount({at, o_.objects, record, std::move(key), uid(next_uid_++),
                              reading.access, reading.prefetch_limit, o_.log});
  }

  // The worker decides what is bound into the evidence; it stands for nothing but this machine.
  Result<QuoteReply> quote(const QuoteRequest& request) {
    if (o_.attester == nullptr) {
      return fail(Reason::kUnsupported, "a quote").with("a machine with a TEE", "none");
    }
    auto quoted = o_.attester->quote(request.report_data);
    not_yet_ = quoted.reason() == Reason::kUnavailable;
    if (!quoted.ok()) return quoted.error();
    return QuoteReply{std::move(quoted->quote), std::move(quoted->collateral)};
  }

  Result<UnpackReply> unpack(const UnpackRequest& request, Fd key) {
    GBX_ASSIGN(const MemoryFacts facts, memory_facts());
    GBX_TRY(check_image_room(facts, request.room_bytes));
    if (request.program.find('\0') != std::string::npos) {
      return fail(Reason::kBadValue, "program").with("a path", "a path with a NUL");
    }
    room_bytes_ = request.room_bytes;
    const std::string at = o_.dir + "/image";
    GBX_ASSIGN(AssetMount image, mount_asset(request.record, request.reading, at, std::move(key)));
    GBX_ASSIGN(Fd layout, open_dir(at));
    GBX_ASSIGN(Fd target, open_dir(o_.dir + "/rootfs"));
    GBX_TRY(mount_memory(MS_REMOUNT, kMountPoints + request.room_bytes));
    oci::UnpackOptions options;
    options.limits.max_bytes = static_cast<std::uint64_t>(request.room_bytes);
    options.expected_digest = request.image_digest;
    options.uid_base = uid(kContainerIds);
    auto unpacked = oci::unpack_confined(layout.get(), target.get(), options);
    layout.reset();
    const bool pageable = image.pageable();
    GBX_TRY(image.unmount());
    if (!unpacked.ok()) return unpacked.error();
    GBX_TRY(check_program(target.get(), request.program));
    return UnpackReply{unpacked->image.manifest_digest, unpacked->root_hash, pageable};
  }

  // What jobs are checked for when they are submitted (docs/jobspec.md).
  Result<std::string> mount_name(const MountRequest& request) const {
    constexpr std::string_view kBelow = "/data/";
    const bool below = request.mount.rfind(kBelow, 0) == 0;
    const std::string name = below ? request.mount.substr(kBelow.size()) : std::string();
    if (!plain_name(name) || name[0] == '-') {
      return fail(Reason::kBadValue, "mount")
          .with("/data/ and one plain name", printable(request.mount, 200));
    }
    for (const auto& in : inputs_) {
      if (in.name != request.name && in.mount_name != name) continue;
      return fail(Reason::kAlreadyExists, "input").with("a name and mount not used before", name);
    }
    return name;
  }

  Result<MountReply> mount_input(const MountRequest& request, Fd key) {
    GBX_ASSIGN(const std::string name, mount_name(request));
    const std::string at = o_.dir + "/data/" + name;
    GBX_ASSIGN(AssetMount m, mount_asset(request.record, request.reading, at, std::move(key)));
    const MountReply reply{m.pageable()};
    inputs_.push_back({request.name, name, at, std::move(m)});
    return reply;
  }

  sandbox::ContainerSpec container(const RunRequest& request) const {
    const auto& c = request.controls;
    sandbox::ContainerSpec s;
    s.id = o_.container;
    s.apparmor = o_.apparmor;
    if (request.runtime) s.runtime = *request.runtime;
    s.rootfs = o_.dir + "/rootfs";
    s.argv = request.argv;
    for (const auto& [k, v] : request.env) s.env.push_back(k + "=" + v);
    if (request.env.count("PATH") == 0) s.env.push_back("PATH=/usr/local/bin:/usr/bin:/bin");
    for (const auto& in : inputs_) s.mounts.push_back({in.mount_name, in.path});
    s.uid_base = uid(kContainerIds);
    s.uid = kContainerUid;
    // Half of scratch for /out, half for /tmp: both are memory.
    s.out_bytes = std::max<std::int64_t>(c.scratch_bytes / 2, 1 << 20);
    s.out_inodes = 4096;
    s.tmp_bytes = std::max<std::int64_t>(c.scratch_bytes / 2, 1 << 20);
    s.memory_bytes = c.memory_bytes;
    s.cpu_millis = c.cpu * 1000;
    s.pids_max = c.pids;
    s.wall_timeout_ms = c.run_seconds * 1000;
    s.log_bytes = std::max<std::int64_t>(request.log_bytes, 64 << 10);
    return s;
  }

  Status check_run(const RunRequest& request) const {
    if (request.controls.image_bytes != room_bytes_) {
      return fail(Reason::kPlanMismatch, "controls.imageBytes")
          .with(std::to_string(room_bytes_), std::to_string(request.controls.image_bytes));
    }
    for (const auto& [name, unused] : request.env) {
      if (!name.empty() && name.find('=') == std::string::npos) continue;
      return fail(Reason::kBadValue, "env").with("a name", printable(name, 64));
    }
    return ok_status();
  }

  Result<RunReply> run_container(const RunRequest& request) {
    GBX_ASSIGN(const MemoryFacts facts, memory_facts());
    GBX_TRY(check_controls(facts, request.controls));
    GBX_TRY(check_run(request));
    const sandbox::ContainerSpec spec = container(request);
    container_id_ = spec.id;
    sandbox::RunOptions options;
    options.cancel_fd = o_.worker;  // the worker's end means the attempt's end
    GBX_ASSIGN(sandbox::RunResult r, sandbox::run_container(spec, options));
    if (r.outcome == sandbox::Outcome::kSetupError) {
      return fail(Reason::kSandboxSetup, printable(r.error, 300));
    }
    if (r.outcome == sandbox::Outcome::kCancelled) {
      return fail(Reason::kJobCancelled, "the container was stopped");
    }
    out_ = std::move(r.output);
    GBX_ASSIGN(logs_, memory_file(as_bytes(r.out.text + r.err.text)));
    RunReply reply;
    reply.duration_ms = r.run_ms;
    reply.runtime = r.runtime;
    reply.controls = r.controls;
    reply.listed = processes_are_listed();
    reply.exit = exit_of(r);
    ran_ = reply;
    // Numbers only: what the container said stays inside.
    o_.log->info("container-ended", {{"outcome", enum_name(r.outcome)},
                                     {"code", r.code},
                                     {"setup-ms", r.setup_ms},
                                     {"run-ms", r.run_ms},
                                     {"peak-memory", r.peak_memory_bytes},
                                     {"cpu-ms", r.cpu_ms}});
    return reply;
  }
  static gate::RunExit exit_of(const sandbox::RunResult& r) {
    switch (r.outcome) {
      case sandbox::Outcome::kExited:
        return r.code == 0 ? gate::RunExit::kOk : gate::RunExit::kFailed;
      case sandbox::Outcome::kTimeout:
        return gate::RunExit::kTimeout;
      case sandbox::Outcome::kOutOfMemory:
        return gate::RunExit::kKilled;
      case sandbox::Outcome::kSetupError:
      case sandbox::Outcome::kViolation:
      case sandbox::Outcome::kSignaled:
      case sandbox::Outcome::kCancelled:
        return gate::RunExit::kFailed;
    }
    return gate::RunExit::kFailed;
  }

  // The gate judges this run, over all data that it had.
  Status check_judged(const gate::GateRequest& request) const {
    if (request.exitClass != ran_.exit || request.durationSeconds != ran_.duration_ms / 1000) {
      return fail(Reason::kPlanMismatch, "exit and duration of the run")
          .with(std::string(enum_name(ran_.exit)), std::string(enum_name(request.exitClass)));
    }
    const auto same = [](const Input& mounted, const gate::GateInput& in) {
      return mounted.name == in.name && "/data/" + mounted.mount_name == in.mount;
    };
    if (!std::equal(inputs_.begin(), inputs_.end(), request.inputs.begin(), request.inputs.end(),
                    same)) {
      return fail(Reason::kPlanMismatch, "inputs of the gate")
          .with("all that are mounted, in their order", "others");
    }
    return ok_status();
  }

  Result<GateReply> run_gate(const gate::GateRequest& request, Fd& answer_fd) {
    GBX_TRY(check_judged(request));
    gate::GateSpawn s;
    s.program = program_dir() + "/glovebox-gate";
    // The owner of /out, whatever modes the container left there; none of its processes is alive
    // any more, and no other program runs under this id.
    s.uid = uid(kContainerIds + kContainerUid);
    s.out_fd = out_.get();
    std::vector<Fd> folders;
    for (const auto& in : inputs_) {
      GBX_ASSIGN(Fd d, open_dir(in.path));
      s.input_fds.push_back(d.get());
      folders.push_back(std::move(d));
    }
    if (request.logs.visibility != gate::LogVisibility::kNone) s.log_fd = logs_.get();
    s.request = request;
    GBX_ASSIGN(gate::GateOutcome outcome, gate::run_gate(std::move(s), *o_.clock));
    if (!outcome.completed) {
      o_.log->error("gate", fail(Reason::kOutputInvalid, std::string(enum_name(outcome.failure))));
    }
    // The gate has read the inputs too: its copy check is worth what it could read.
    for (auto& in : inputs_) GBX_TRY(in.mount.intact());
    GateReply reply;
    reply.result = std::move(outcome.result);
    // One record per released cell would outgrow a packet; they are the broker's from the issue
    // that keeps history.
    reply.result.releaseRecords.clear();
    const Bytes nothing;
    const Bytes& bundle = outcome.channel ? outcome.channel->bytes() : nothing;
    reply.bundle_bytes = static_cast<std::int64_t>(bundle.size());
    GBX_ASSIGN(answer_fd, memory_file(bundle));
    return reply;
  }

  // Idempotent. What could not be removed is in residue_, a line each.
  void destroy() {
    std::vector<std::string>& residue = residue_;
    out_.reset();
    logs_.reset();
    for (auto& in : inputs_) {
      Status s = in.mount.unmount();
      if (!s.ok()) residue.push_back("input " + in.name + ": " + s.error().what);
    }
    inputs_.clear();
    if (!container_id_.empty()) {
      auto left = sandbox::residue(container_id_);
      if (!left.ok()) residue.push_back("residue could not be looked for: " + left.error().what);
      if (left.ok()) residue.insert(residue.end(), left->begin(), left->end());
      container_id_.clear();
    }
    while (!mounted_.empty()) {
      if (umount2(mounted_.back().c_str(), UMOUNT_NOFOLLOW) != 0 &&
          umount2(mounted_.back().c_str(), MNT_DETACH) != 0) {
        residue.push_back("mount " + mounted_.back());
      }
      mounted_.pop_back();
    }
    if (residue.size() > 64) residue.resize(64);
  }

  struct Input {
    std::string name;
    std::string mount_name;
    std::string path;
    AssetMount mount;
  };
  const SupervisorOptions& o_;
  std::vector<std::string> mounted_;
  std::vector<Input> inputs_;
  std::vector<std::string> residue_;  // that nobody was told of yet
  AttemptOrder order_;
  bool not_yet_ = false;         // the platform had no quote in time
  std::int64_t prefetched_ = 0;  // bytes of memory that were lent for it
  std::int64_t room_bytes_ = 0;  // of the image
  RunReply ran_;
  std::int64_t next_uid_ = kFirstDecryptUid;
  std::string container_id_;
  Fd out_;
  Fd logs_;
};

}  // namespace

Status supervise(const SupervisorOptions& options) { return Supervisor(options).run(); }

}  // namespace gbx::agent
