// The worker, taken over: the privileged half gets every message in every order, and with values
// that no plan has. It refuses each with its reason, and nothing that it had made stays. Real
// mounts, container and gate; needs root, /dev/fuse and crun.
#include "agent/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <thread>

#include "agent/attempt_order.h"
#include "agent/ipc.h"
#include "asset/asset_test_util.h"
#include "asset/prefetch.h"
#include "oci/testing.h"
#include "sandbox/testing.h"
#include "storage/directory_store.h"

namespace gbx::agent {
namespace {

using asset::testing::options_for;
using asset::testing::TempDir;
using asset::testing::write_tree;
using records::kMaxLogBytes;

constexpr std::int64_t kRoom = std::int64_t{64} << 20;

// What a job has: an image that holds the probe program, and data.
struct Stock {
  TempDir dir;
  std::string image_digest;
  asset::PublishResult image;
  asset::PublishResult data;

  Stock() {
    (void)chmod(dir.path.c_str(), 0755);
    const auto probe = read_file(sandbox::testing::bin("sandbox-probe"), 64U << 20);
    if (!probe.ok()) abort();
    oci::testing::Layout layout(dir.path + "/layout");
    layout.layer(oci::testing::Tar().dir("bin").file("bin/probe", as_text(*probe), 0755).finish());
    image_digest = layout.write();
    write_tree(dir.path + "/rows", {{"rows.csv", "a\n1\n"}});
    SeededRandom random(5);
    auto store = storage::DirectoryStore::open(objects(), storage::SyncPolicy::kNever).value();
    for (auto [from, to] : {std::pair{"/layout", &image}, {"/rows", &data}}) {
      auto made =
          asset::publish(options_for(dir.path + from, dir.path + from + ".s"), *store, random);
      if (!made.ok()) abort();
      *to = std::move(*made);
    }
  }
  std::string objects() const { return dir.path + "/objects"; }
  static Stock& get() {
    static Stock stock;
    return stock;
  }
};

// A platform that quotes whatever it is asked for, or says why it does not.
class Quoting final : public attest::Attester {
 public:
  std::optional<Reason> refusal;
  records::Technology technology() const override { return records::Technology::kSim; }
  Result<attest::Quoted> quote(const FixedBytes<64>& report_data) override {
    if (refusal) return fail(*refusal, "the platform");
    return attest::Quoted{to_bytes(report_data), {}};
  }
};

// A privileged half of its own, and the worker's end of it.
class Half {
 public:
  Half() {
    static int number = 0;
    options_.clock = &clock_;
    options_.log = &log_;
    options_.dir = dir_.path;
    options_.objects = Stock::get().objects();
    options_.container = "half-" + std::to_string(getpid()) + "-" + std::to_string(++number);
    options_.uid_base = sandbox::testing::kUidBase;
    auto pair = make_packet_pair();
    worker_ = std::move(pair->first);
    privileged_ = std::move(pair->second);
    options_.worker = privileged_.get();
    options_.attester = &quoting_;
    std::promise<pid_t> started;
    auto tid = started.get_future();
    thread_ = std::thread([this, &started] {
      started.set_value(gettid());
      status_ = supervise(options_);
      privileged_.reset();
    });
    task_ = "/proc/self/task/" + std::to_string(tid.get());
  }
  ~Half() { (void)end(); }
  Half(const Half&) = delete;
  Half& operator=(const Half&) = delete;

  Result<Packet> ask(std::string_view op, const Json& body, const Fd& fd = Fd()) {
    return call(worker_.get(), op, body, fd.get());
  }
  Result<Packet> raw(const Json& packet) {
    GBX_TRY(send_packet(worker_.get(), packet));
    GBX_ASSIGN(auto reply, receive_packet(worker_.get()));
    if (!reply) return fail(Reason::kConnectionClosed, "the other half");
    const Json* error = reply->body.find("error");
    if (error == nullptr) return std::move(*reply);
    Reason reason = Reason::kInternal;
    (void)reason_from_code(*error->find("reason")->string(), &reason);
    return fail(reason, *error->find("what")->string());
  }
  // Between two questions.
  void platform_says(std::optional<Reason> refusal) { quoting_.refusal = refusal; }
  // What it says when the worker has gone.
  Status end() {
    worker_.reset();
    if (thread_.joinable()) thread_.join();
    return status_;
  }
  // Children and mounts that it holds beside the thread itself.
  std::vector<std::string> holds() const {
    std::vector<std::string> out;
    const std::string children = read_text_file(task_ + "/children", 1 << 16).value();
    if (!children.empty()) out.push_back("children " + children);
    const std::string mounts = read_text_file(task_ + "/mountinfo", 4 << 20).value();
    if (mounts.find(dir_.path) != std::string::npos) out.push_back("mounts");
    const auto left = residue();
    out.insert(out.end(), left.begin(), left.end());
    return out;
  }
  std::vector<std::string> residue() const {  // of the container
    return sandbox::residue(options_.container).value();
  }

 private:
  SystemClock clock_;
  Fd null_{open("/dev/null", O_WRONLY | O_CLOEXEC)};
  Logger log_{null_.get(), "agent", clock_};
  TempDir dir_;
  Quoting quoting_;
  SupervisorOptions options_;
  Fd worker_;
  Fd privileged_;
  std::string task_;
  Status status_ = ok_status();
  std::thread thread_;
};

Fd key_of(const asset::PublishResult& asset) {
  return std::move(pipe_with(asset.key.view(SecretAccess{})).value());
}
Reading direct() { return {records::Access::kDirect, 0}; }

UnpackRequest unpack_request() {
  return {Stock::get().image.record, Stock::get().image_digest, direct(), kRoom, "/bin/probe"};
}
MountRequest mount_request(const std::string& name = "rows") {
  return {name, "/data/" + name, Stock::get().data.record, direct()};
}
RunRequest run_request() {
  RunRequest r;
  r.argv = {"/bin/probe", "do", "true"};
  r.controls.memory_bytes = 64 << 20;
  r.controls.scratch_bytes = 4 << 20;
  r.controls.image_bytes = kRoom;
  r.controls.run_seconds = 20;
  return r;
}
gate::GateRequest gate_request() {
  gate::GateRequest g;
  g.jobId = std::string(64, 'a');
  gate::GateInput in;
  in.name = "rows";
  in.mount = "/data/rows";
  in.fd = 4;
  g.inputs = {in};
  return g;
}

Result<Packet> honest(Half& half, Operation op) {
  switch (op) {
    case Operation::kQuote:
      return half.ask(enum_name(op), to_json(QuoteRequest{}));
    case Operation::kUnpack:
      return half.ask(enum_name(op), to_json(unpack_request()), key_of(Stock::get().image));
    case Operation::kMount:
      return half.ask(enum_name(op), to_json(mount_request()), key_of(Stock::get().data));
    case Operation::kRun:
      return half.ask(enum_name(op), to_json(run_request()));
    case Operation::kGate:
      return half.ask(enum_name(op), to_json(gate_request()));
    case Operation::kDestroy:
      return half.ask(enum_name(op), to_json(records::Empty{}));
  }
  return fail(Reason::kInternal, "a message without a test");
}
// What leads to a stage.
std::vector<Operation> way_to(Stage stage) {
  using enum Operation;
  switch (stage) {
    case Stage::kNothing:
      return {};
    case Stage::kUnpacked:
      return {kUnpack};
    case Stage::kMounted:
      return {kUnpack, kMount};
    case Stage::kRan:
      return {kUnpack, kMount, kRun};
    case Stage::kJudged:
      return {kUnpack, kMount, kRun, kGate};
    case Stage::kDestroyed:
      return {kUnpack, kMount, kRun, kGate, kDestroy};
    case Stage::kFailed:
      return {kUnpack, kDestroy};
  }
  return {};
}
// A second mount of one name is refused for that.
const std::map<Stage, std::set<Operation>>& may_follow() {
  using enum Operation;
  static const std::map<Stage, std::set<Operation>> kTable = {
      {Stage::kNothing, {kQuote, kUnpack, kDestroy}},
      {Stage::kUnpacked, {kQuote, kMount, kDestroy}},
      {Stage::kMounted, {kQuote, kRun, kDestroy}},
      {Stage::kRan, {kQuote, kGate, kDestroy}},
      {Stage::kJudged, {kQuote, kDestroy}},
      {Stage::kDestroyed, {kQuote, kDestroy}},
      {Stage::kFailed, {kDestroy}},
  };
  return kTable;
}

class TakenOver : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string why = sandbox::testing::cannot_run("crun");
    if (!why.empty()) GTEST_SKIP() << why;
    if (access("/dev/fuse", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/fuse";
    Stock::get();
  }
  static std::size_t descriptors() {
    std::size_t n = 0;
    for (int fd = 0; fd < 4096; ++fd) n += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return n;
  }
  static void go(Half& half, Stage stage) {
    for (const Operation op : way_to(stage)) {
      const auto done = honest(half, op);
      ASSERT_TRUE(done.ok()) << enum_name(op) << ": " << done.error().line();
    }
  }
  // It ended, it holds nothing any more, and says only what was left.
  static void expect_over(Half& half, const std::string& after) {
    EXPECT_EQ(half.holds(), std::vector<std::string>{}) << after;
    const auto left = honest(half, Operation::kDestroy);
    ASSERT_TRUE(left.ok()) << after << ": " << left.error().line();
    EXPECT_EQ(from_json<DestroyReply>(left->body)->residue, std::vector<std::string>{}) << after;
    EXPECT_EQ(honest(half, Operation::kUnpack).reason(), Reason::kWrongState) << after;
    EXPECT_FALSE(honest(half, Operation::kDestroy).ok()) << after;
    EXPECT_EQ(half.end().reason(), Reason::kWrongState) << after;
  }
};

TEST_F(TakenOver, EveryMessageAtEveryStageButTheNextEndsTheAttempt) {
  const std::size_t before = descriptors();
  for (const auto& stage : enum_names(Stage{})) {
    for (const auto& op : enum_names(Operation{})) {
      const std::string what = std::string(op.name) + " after " + stage.name;
      Half half;
      go(half, stage.value);
      const auto answer = honest(half, op.value);
      if (may_follow().at(stage.value).count(op.value) != 0) {
        EXPECT_TRUE(answer.ok()) << what << ": " << answer.error().line();
        continue;
      }
      const bool again = stage.value == Stage::kMounted && op.value == Operation::kMount;
      EXPECT_EQ(answer.reason(), again ? Reason::kAlreadyExists : Reason::kWrongState) << what;
      // After its end whatever is asked ends the program itself.
      if (stage.value == Stage::kDestroyed || stage.value == Stage::kFailed) {
        EXPECT_EQ(half.end().reason(), Reason::kWrongState) << what;
      } else {
        expect_over(half, what);
      }
    }
  }
  EXPECT_EQ(descriptors(), before);
}

// A busy host is no reason to throw a finished run away; a platform that lies, or has gone, is.
TEST_F(TakenOver, AQuoteThatIsLateEndsNothingAndAnyOtherFailureOfOneDoes) {
  for (const Stage stage : {Stage::kNothing, Stage::kMounted, Stage::kJudged, Stage::kDestroyed}) {
    Half half;
    go(half, stage);
    half.platform_says(Reason::kUnavailable);
    EXPECT_EQ(honest(half, Operation::kQuote).reason(), Reason::kUnavailable);
    half.platform_says(std::nullopt);
    EXPECT_TRUE(honest(half, Operation::kQuote).ok()) << enum_name(stage);
    if (stage == Stage::kMounted) {
      EXPECT_TRUE(honest(half, Operation::kRun).ok());
    }
    half.platform_says(Reason::kEvidenceRejected);
    EXPECT_EQ(honest(half, Operation::kQuote).reason(), Reason::kEvidenceRejected);
    if (stage == Stage::kDestroyed) {
      EXPECT_EQ(half.end().reason(), Reason::kEvidenceRejected);
    } else {
      expect_over(half, enum_name(stage).data());
    }
  }
}

// A workload that takes all it can get of one thing takes it from nobody but itself: the run ends,
// what it left is judged, everything goes, and the platform still answers.
struct Greed {
  const char* name;
  std::vector<std::string> program;
  std::optional<gate::RunExit> exit;  // where it is not the program's own matter
};
class Exhausting : public TakenOver, public ::testing::WithParamInterface<Greed> {};
TEST_P(Exhausting, TheAgentJudgesDestroysAndAnswers) {
  Half half;
  go(half, Stage::kMounted);
  RunRequest run = run_request();
  run.argv = {"/bin/probe"};
  run.argv.insert(run.argv.end(), GetParam().program.begin(), GetParam().program.end());
  run.controls.run_seconds = GetParam().exit == gate::RunExit::kTimeout ? 1 : 120;
  run.controls.pids = 32;
  run.log_bytes = 64 << 10;
  const auto ran = half.ask(operation::kRun, to_json(run));
  ASSERT_TRUE(ran.ok()) << ran.error().line();
  const auto reply = from_json<RunReply>(ran->body).value();
  if (GetParam().exit) {
    EXPECT_EQ(reply.exit, *GetParam().exit);
  }
  gate::GateRequest judged = gate_request();
  judged.exitClass = reply.exit;
  judged.durationSeconds = reply.duration_ms / 1000;
  judged.logs.visibility = gate::LogVisibility::kConsumer;
  judged.logs.maxBytes = 64 << 10;
  const auto gate = half.ask(operation::kGate, to_json(judged));
  ASSERT_TRUE(gate.ok()) << gate.error().line();
  EXPECT_EQ(from_json<GateReply>(gate->body)->result.exitClass, reply.exit);
  const auto gone = honest(half, Operation::kDestroy);
  ASSERT_TRUE(gone.ok()) << gone.error().line();
  EXPECT_EQ(from_json<DestroyReply>(gone->body)->residue, std::vector<std::string>{});
  EXPECT_EQ(half.holds(), std::vector<std::string>{});
  EXPECT_TRUE(honest(half, Operation::kQuote).ok());
  EXPECT_TRUE(half.end().ok());
}
INSTANTIATE_TEST_SUITE_P(
    A, Exhausting,
    ::testing::Values(Greed{"Processor", {"spin"}, gate::RunExit::kTimeout},
                      Greed{"Memory", {"membomb", "1000000000"}, gate::RunExit::kKilled},
                      Greed{"Processes", {"forkbomb"}, std::nullopt},
                      Greed{"Out", {"fill", "/out/big"}, std::nullopt},
                      Greed{"Scratch", {"fill", "/tmp/big"}, std::nullopt},
                      Greed{"Files", {"inodes", "/out"}, std::nullopt},
                      Greed{"Descriptors", {"openfds"}, std::nullopt},
                      Greed{"Logs", {"flood", "200000000"}, gate::RunExit::kOk}),
    [](const auto& of) { return std::string(of.param.name); });

struct Lie {
  std::string name;
  Stage stage;
  Operation op;
  Json body;
  Reason reason;
  std::string what;  // in the refusal
};

template <class Request>
Json changed(Request request, const std::function<void(Request&)>& change) {
  change(request);
  return to_json(request);
}

std::vector<Lie> lies_of_unpack() {
  std::vector<Lie> out;
  const auto lie = [&](const char* name, Reason reason, const char* what,
                       const std::function<void(UnpackRequest&)>& change) {
    out.push_back({name, Stage::kNothing, Operation::kUnpack, changed(unpack_request(), change),
                   reason, what});
  };
  const std::int64_t much = std::int64_t{1} << 40;
  lie("no room", Reason::kBadValue, "roomBytes", [](auto& r) { r.room_bytes = 0; });
  lie("room below nothing", Reason::kBadValue, "roomBytes", [](auto& r) { r.room_bytes = -1; });
  lie("all room", Reason::kBadValue, "roomBytes", [](auto& r) { r.room_bytes = kMaxJsonInteger; });
  lie("more room than memory", Reason::kNoCapacity, "room for the image",
      [&](auto& r) { r.room_bytes = much; });
  lie("a prefetch below nothing", Reason::kBadValue, "prefetchLimit",
      [](auto& r) { r.reading.prefetch_limit = -1; });
  lie("a prefetch of all memory", Reason::kTooLarge, "memory for prefetching",
      [](auto& r) { r.reading.prefetch_limit = kMaxJsonInteger; });
  lie("another digest", Reason::kImageDigestMismatch, "",
      [](auto& r) { r.image_digest = "sha256:" + std::string(64, 'b'); });
  lie("no digest", Reason::kImageRefused, "digest",
      [](auto& r) { r.image_digest = std::string(71, '/'); });
  lie("a program with a NUL", Reason::kBadValue, "program",
      [](auto& r) { r.program = std::string("/bin/probe\0x", 12); });
  lie("no such program", Reason::kNotFound, "spec.command[0]",
      [](auto& r) { r.program = "/bin/nothing"; });
  lie("another asset's record", Reason::kBadCommitment, "",
      [](auto& r) { r.record = Stock::get().data.record; });
  return out;
}

std::vector<Lie> lies_of_mount() {
  std::vector<Lie> out;
  const auto lie = [&](const std::string& name, Reason reason, const char* what,
                       const std::function<void(MountRequest&)>& change) {
    out.push_back({name, Stage::kMounted, Operation::kMount, changed(mount_request("more"), change),
                   reason, what});
  };
  for (const std::string at :
       {"/etc/xyz", "/dataX/x", "../../../x", "/data/.", "/data/..", "/data/.x", "/data/-x",
        "/data/x/y", "/data//x", "/data/x y", "/data/x\n", "/data/\xd9\xa3", "datadatadata"}) {
    lie("at " + printable(at), Reason::kBadValue, "mount", [&](auto& r) { r.mount = at; });
  }
  lie("a NUL", Reason::kBadValue, "mount",
      [](auto& r) { r.mount = std::string("/data/x\0/../..", 14); });
  lie("a long name", Reason::kBadValue, "mount",
      [](auto& r) { r.mount = "/data/" + std::string(65, 'x'); });
  lie("no name", Reason::kBadValue, "name", [](auto& r) { r.name.clear(); });
  lie("a name that is there", Reason::kAlreadyExists, "input", [](auto& r) { r.name = "rows"; });
  lie("a place that is taken", Reason::kAlreadyExists, "input",
      [](auto& r) { r.mount = "/data/rows"; });
  lie("a prefetch of all memory", Reason::kTooLarge, "memory for prefetching",
      [](auto& r) { r.reading.prefetch_limit = kMaxJsonInteger; });
  return out;
}

std::vector<Lie> lies_of_run() {
  std::vector<Lie> out;
  const auto lie = [&](const char* name, Reason reason, const char* what,
                       const std::function<void(RunRequest&)>& change) {
    out.push_back(
        {name, Stage::kMounted, Operation::kRun, changed(run_request(), change), reason, what});
  };
  const std::int64_t most = kMaxJsonInteger;
  lie("a log below nothing", Reason::kBadValue, "logBytes", [](auto& r) { r.log_bytes = -1; });
  lie("an endless log", Reason::kBadValue, "logBytes",
      [](auto& r) { r.log_bytes = kMaxLogBytes + 1; });
  lie("no argument", Reason::kBadValue, "argv", [](auto& r) { r.argv.clear(); });
  lie("a huge argument", Reason::kBadValue, "argv",
      [](auto& r) { r.argv.push_back(std::string(records::kMaxArgumentBytes + 1, 'x')); });
  lie("a NUL in an argument", Reason::kBadValue, "argv",
      [](auto& r) { r.argv.push_back(std::string("a\0b", 3)); });
  lie("a variable within a name", Reason::kBadValue, "env", [](auto& r) { r.env["A=B"] = "c"; });
  lie("a variable without a name", Reason::kBadValue, "env", [](auto& r) { r.env[""] = "c"; });
  lie("a huge variable", Reason::kBadValue, "env",
      [](auto& r) { r.env["A"] = std::string(records::kMaxArgumentBytes + 1, 'x'); });
  lie("another runtime", Reason::kSandboxSetup, "", [](auto& r) { r.runtime = "sh"; });
  lie("other room than was lent", Reason::kPlanMismatch, "controls.imageBytes",
      [](auto& r) { r.controls.image_bytes = 1; });
  lie("all memory", Reason::kNoCapacity, "memory",
      [](auto& r) { r.controls.memory_bytes = records::kMaxRoomBytes; });
  lie("more memory than a plan has", Reason::kBadValue, "controls.memoryBytes",
      [&](auto& r) { r.controls.memory_bytes = most; });
  lie("no memory", Reason::kNoCapacity, "memory", [](auto& r) { r.controls.memory_bytes = 0; });
  lie("all scratch", Reason::kNoCapacity, "memory",
      [](auto& r) { r.controls.scratch_bytes = records::kMaxRoomBytes; });
  lie("all processes", Reason::kBadValue, "controls.pids",
      [&](auto& r) { r.controls.pids = most; });
  lie("all cores", Reason::kBadValue, "controls.cpu", [&](auto& r) { r.controls.cpu = most; });
  lie("cores below nothing", Reason::kBadValue, "controls.cpu",
      [&](auto& r) { r.controls.cpu = -most; });
  lie("for ever", Reason::kBadValue, "controls.runSeconds",
      [&](auto& r) { r.controls.run_seconds = most; });
  return out;
}

std::vector<Lie> lies_of_gate() {
  std::vector<Lie> out;
  const auto lie = [&](const char* name, Reason reason, const char* what,
                       const std::function<void(gate::GateRequest&)>& change) {
    out.push_back(
        {name, Stage::kRan, Operation::kGate, changed(gate_request(), change), reason, what});
  };
  lie("over no data", Reason::kPlanMismatch, "inputs", [](auto& g) { g.inputs.clear(); });
  lie("over other data", Reason::kPlanMismatch, "inputs",
      [](auto& g) { g.inputs[0].name = "image"; });
  lie("over data elsewhere", Reason::kPlanMismatch, "inputs",
      [](auto& g) { g.inputs[0].mount = "/data/../rootfs"; });
  lie("over data twice", Reason::kPlanMismatch, "inputs",
      [](auto& g) { g.inputs.push_back(g.inputs[0]); });
  lie("of a run that failed", Reason::kPlanMismatch, "exit",
      [](auto& g) { g.exitClass = gate::RunExit::kFailed; });
  lie("of a longer run", Reason::kPlanMismatch, "exit",
      [](auto& g) { g.durationSeconds = 100'000; });
  lie("an endless log", Reason::kBadValue, "logs",
      [](auto& g) { g.logs.maxBytes = kMaxLogBytes + 1; });
  lie("a path out of /out", Reason::kBadValue, "outputs", [](auto& g) {
    gate::OutputDeclaration d;
    d.name = "x";
    d.path = "../x";
    g.outputs = {d};
  });
  return out;
}

TEST_F(TakenOver, EveryBadValueEndsTheAttempt) {
  const std::size_t before = descriptors();
  std::vector<Lie> all;
  for (auto more : {lies_of_unpack(), lies_of_mount(), lies_of_run(), lies_of_gate()}) {
    all.insert(all.end(), more.begin(), more.end());
  }
  Json member = to_json(records::Empty{});
  member["force"] = true;
  all.push_back({"a member that there is not", Stage::kMounted, Operation::kDestroy, member,
                 Reason::kUnknownField, "force"});
  for (const Lie& lie : all) {
    const std::string what = std::string(enum_name(lie.op)) + ", " + lie.name;
    Half half;
    go(half, lie.stage);
    Fd key;
    if (lie.op == Operation::kUnpack) key = key_of(Stock::get().image);
    if (lie.op == Operation::kMount) key = key_of(Stock::get().data);
    const auto answer = half.ask(enum_name(lie.op), lie.body, key);
    ASSERT_FALSE(answer.ok()) << what;
    EXPECT_EQ(answer.reason(), lie.reason) << what << ": " << answer.error().line();
    EXPECT_NE(answer.error().line().find(lie.what), std::string::npos)
        << what << ": " << answer.error().line();
    expect_over(half, what);
  }
  EXPECT_EQ(descriptors(), before);
}

TEST_F(TakenOver, WhatIsNoKeyPipeIsNotWaitedFor) {
  struct Case {
    const char* name;
    std::function<Fd()> make;
  };
  const Bytes key(32, 1);
  Fd writer;
  const std::vector<Case> cases{
      {"nothing", [] { return Fd(); }},
      {"a short key", [&] { return std::move(pipe_with(ByteView(key).first(31)).value()); }},
      {"a long key",
       [&] {
         return std::move(pipe_with(concat({key, Bytes(1)})).value());
       }},
      {"a pipe that nobody writes to",
       [&] {
         auto p = make_pipe().value();
         writer = std::move(p.second);
         return std::move(p.first);
       }},
      {"a pipe that does not end",
       [&] {
         auto p = make_pipe().value();
         writer = std::move(p.second);
         EXPECT_TRUE(write_all(writer.get(), key).ok());
         return std::move(p.first);
       }},
      {"a file", [&] { return std::move(memory_file(key).value()); }},
      {"a folder", [] { return std::move(open_dir("/").value()); }},
      {"a terminal of nobody", [] { return Fd(open("/dev/zero", O_RDONLY | O_CLOEXEC)); }},
  };
  for (const auto& c : cases) {
    Half half;
    const auto answer = half.ask(operation::kUnpack, to_json(unpack_request()), c.make());
    EXPECT_EQ(answer.reason(), Reason::kBadStructure) << c.name;
    expect_over(half, c.name);
  }
  Half half;
  go(half, Stage::kMounted);
  const auto more = half.ask(operation::kRun, to_json(run_request()), key_of(Stock::get().data));
  EXPECT_EQ(more.reason(), Reason::kBadStructure);
  expect_over(half, "a descriptor for a run");
}

TEST_F(TakenOver, WhatIsNoMessageEndsTheAttempt) {
  const auto message = [](Json op, Json body) {
    Json j;
    j["op"] = std::move(op);
    j["body"] = std::move(body);
    return j;
  };
  const Json empty = to_json(records::Empty{});
  Json more = message("destroy", empty);
  more["uid"] = 0;
  Json without;
  without["op"] = "destroy";
  for (const Json& packet :
       {Json(JsonObject{}), Json(JsonArray{}), Json(7), Json("destroy"), Json(nullptr), without,
        more, message(nullptr, empty), message(JsonArray{}, empty), message("", empty),
        message("Unpack", empty), message("mount ", empty), message("exec", empty)}) {
    Half half;
    go(half, Stage::kMounted);
    const auto answer = half.raw(packet);
    EXPECT_TRUE(answer.reason() == Reason::kBadStructure || answer.reason() == Reason::kBadValue)
        << canonical(packet);
    expect_over(half, canonical(packet));
  }
}

// As many inputs as a job may have, and no more; each has a process, a mount and an id.
TEST_F(TakenOver, MountsAreBoundedAndGoWithTheFirstTooMany) {
  const std::size_t before = descriptors();
  {
    Half half;
    go(half, Stage::kUnpacked);
    for (std::int64_t i = 0; i < kMostInputs; ++i) {
      const auto done = half.ask(operation::kMount, to_json(mount_request("i" + std::to_string(i))),
                                 key_of(Stock::get().data));
      ASSERT_TRUE(done.ok()) << i << ": " << done.error().line();
    }
    const auto more =
        half.ask(operation::kMount, to_json(mount_request("more")), key_of(Stock::get().data));
    EXPECT_EQ(more.reason(), Reason::kTooLarge);
    expect_over(half, "one input too many");
  }
  EXPECT_EQ(descriptors(), before);
}

// A worker that goes, at whatever stage, takes everything with it.
TEST_F(TakenOver, AWorkerThatVanishesLeavesNothing) {
  const std::size_t before = descriptors();
  for (const auto& stage : enum_names(Stage{})) {
    Half half;
    go(half, stage.value);
    EXPECT_TRUE(half.end().ok()) << stage.name;
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << stage.name;  // no child, not even a dead one
    EXPECT_EQ(half.residue(), std::vector<std::string>{}) << stage.name;
  }
  EXPECT_EQ(descriptors(), before);
}

}  // namespace
}  // namespace gbx::agent
