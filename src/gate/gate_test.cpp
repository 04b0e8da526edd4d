// The gate as an agent uses it: a real confined process over real folders, honest and hostile.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>

#include "base/os.h"
#include "base/seams.h"
#include "gate/confine.h"
#include "gate/folder.h"
#include "gate/schema.h"
#include "gate/spawn.h"

namespace gbx::gate {
namespace {

constexpr uid_t kNobody = 65534;

std::string gate_program() {
  const char* dir = std::getenv("GBX_BIN_DIR");
  return (dir == nullptr ? program_dir() : std::string(dir)) + "/glovebox-gate";
}

bool sanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#else
  return false;
#endif
}

std::string patients(int rows, std::uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::string s = "id,radius,texture,area,smoothness,diagnosis\n";
  const auto digits = [&](std::uint64_t n) { return std::to_string(random() % n); };
  for (int i = 0; i < rows; ++i) {
    s += std::to_string(100'000 + random() % 90'000'000) + "," + digits(30) + "." + digits(10'000) +
         "," + digits(40) + "." + digits(10'000) + "," + digits(2500) + "." + digits(10) + ",0." +
         digits(100'000) + "," + (random() % 2 == 0 ? "M" : "B") + "\n";
  }
  return s;
}
std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = text.find('\n', at);
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

class GateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/gbx-gate-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    out_path_ = root_ + "/out";
    ASSERT_EQ(chmod(root_.c_str(), 0755), 0);
    for (const char* d : {"/out", "/in"}) ASSERT_EQ(mkdir((root_ + d).c_str(), 0755), 0);
    write("in/patients.csv", input_);
    request_.jobId = "job-1";
    request_.salt[0] = 9;
    request_.durationSeconds = 5;
    GateInput in;
    in.name = "patients";
    in.mount = "/data/patients";
    request_.inputs.push_back(in);
    declare("coefficients", "coefficients.csv", OutputType::kTable, R"({"maxRows":5,"columns":[
        {"name":"feature","type":"text","enum":["intercept","radius","texture","area","smoothness"]},
        {"name":"coefficient","type":"decimal","minimum":-10,"maximum":10,"digits":3,"scale":3}]})");
    declare("metrics", "metrics.json", OutputType::kMetrics, R"({"fields":[
        {"name":"auc","type":"decimal","minimum":0,"maximum":1},{"name":"n","type":"integer","minimum":0,"maximum":1000}]})");
    write("out/coefficients.csv", "feature,coefficient\nradius,1.23456\nintercept,-0.0000001\n");
    write("out/metrics.json", "{\"n\": 400, \"auc\": 0.98765432}\n");
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(root_).ok()); }

  void declare(const std::string& name, const std::string& path, OutputType type,
               const std::string& schema, std::int64_t max_bytes = 4096) {
    OutputDeclaration d;
    d.name = name;
    d.path = path;
    d.type = type;
    d.schema = *parse_json(schema);
    d.maxBytes = max_bytes;
    request_.outputs.push_back(std::move(d));
  }
  void write(const std::string& path, std::string_view content) {
    ASSERT_TRUE(write_file_atomic(root_ + "/" + path, as_bytes(content), 0644).ok());
  }
  // Only one output: an opaque file with this content.
  void only_opaque(std::string_view content) {
    fresh_out();
    request_.outputs.clear();
    declare("model", "model.bin", OutputType::kOpaque, "{}", 1 << 20);
    write("out/model.bin", content);
  }
  void only(OutputType type, const std::string& schema, std::string_view content,
            std::int64_t max_bytes = 1 << 20) {
    fresh_out();
    request_.outputs.clear();
    declare("result", "result.dat", type, schema, max_bytes);
    write("out/result.dat", content);
  }
  void fresh_out() {
    ASSERT_TRUE(remove_tree(root_ + "/out").ok());
    ASSERT_EQ(mkdir((root_ + "/out").c_str(), 0755), 0);
  }

  GateSpawn spawn_for() {
    GateSpawn s;
    s.program = gate_program();
    if (geteuid() == 0) s.uid = kNobody;
    out_ = std::move(*open_dir(out_path_));
    in_ = std::move(*open_dir(root_ + "/in"));
    s.out_fd = out_.get();
    s.input_fds = {in_.get()};
    if (request_.logs.visibility != LogVisibility::kNone) {
      log_ = Fd(open((root_ + "/log").c_str(), O_RDONLY | O_CLOEXEC));
      s.log_fd = log_.get();
    }
    s.request = request_;
    s.timeout_ms = 60'000;
    return s;
  }
  GateOutcome run() {
    const auto start = std::chrono::steady_clock::now();
    Result<GateOutcome> o = run_gate(spawn_for(), clock_);
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    EXPECT_TRUE(o.ok()) << o.error().line();
    return o.ok() ? std::move(*o) : GateOutcome{};
  }
  // In this process, with descriptors as the request names them: for what a test wants to forge or
  // break.
  Evaluation evaluate(std::span<const NamedAnalyser> analysers = all_analysers()) {
    spawn_for();
    request_.outFd = out_.get();
    request_.inputs[0].fd = in_.get();
    return Gate::evaluate(request_, {}, analysers);
  }

  static bool says(const GateResult& r, RuleId rule, GateReason reason,
                   RuleStatus status = RuleStatus::kFail) {
    return std::any_of(r.analysers.begin(), r.analysers.end(), [&](const auto& a) {
      return a.rule == rule && a.reason == reason && a.status == status;
    });
  }
  static std::string told(const GateResult& r) {
    std::string s(enum_name(r.recommendation));
    for (const auto& a : r.analysers) {
      s += " " + std::string(enum_name(a.rule)) + ":" + std::string(enum_name(a.status)) + ":" +
           std::string(enum_name(a.reason));
    }
    return s;
  }
  void expect_reject(const char* what, RuleId rule, GateReason reason) {
    const GateOutcome o = run();
    EXPECT_TRUE(o.completed) << what;
    EXPECT_EQ(o.result.recommendation, Recommendation::kReject) << what << ": " << told(o.result);
    EXPECT_TRUE(says(o.result, rule, reason)) << what << ": " << told(o.result);
    EXPECT_FALSE(o.channel) << what;
    EXPECT_EQ(o.result.charge.freeBits, kControlBits) << what;
    EXPECT_EQ(o.result.score, 100) << what;
    EXPECT_TRUE(o.result.manifest.empty() && o.result.releaseRecords.empty()) << what;
  }
  std::string released(const GateOutcome& o, const std::string& path) {
    if (!o.channel) return "!none";
    for (const auto& e : o.channel->entries()) {
      if (e.kind == EntryKind::kOutput && e.name == path) return std::string(as_text(e.content));
    }
    return "!absent";
  }

  std::string root_;
  std::string out_path_;
  std::string input_ = patients(400);
  GateRequest request_;
  Fd out_, in_, log_;
  SystemClock clock_;
  double seconds_ = 0;
};

TEST_F(GateTest, AnHonestStudyIsReleased) {
  const GateOutcome o = run();
  ASSERT_TRUE(o.completed);
  ASSERT_EQ(o.result.recommendation, Recommendation::kRelease) << told(o.result);
  EXPECT_EQ(released(o, "coefficients.csv"), "feature,coefficient\nintercept,0\nradius,1.23\n");
  EXPECT_EQ(released(o, "metrics.json"), "{\"auc\":0.988,\"n\":400}\n");
  // 5 rows of log2(5) + log2(3801) and the number of rows; the metrics; the control channel. Known
  // before the run.
  EXPECT_EQ(o.result.charge, (Charge{74 + 20 + 8, 0, 0, CodeId::kSchema}));
  EXPECT_EQ(*release_charge(request_), o.result.charge);
  EXPECT_EQ(o.result.verdict, RuleStatus::kNotApplicable);  // no logs were asked for
  EXPECT_LT(o.result.score, 30);
  EXPECT_EQ(o.result.manifest.size(), 2U);
  EXPECT_EQ(o.result.releaseRecords.size(), 4U + 2U);  // a record per cell
  EXPECT_EQ(o.result.durationBucket, 3);
  EXPECT_EQ(o.channel->bytes().size(), 16384U);
  EXPECT_TRUE(o.result.confinement.noNewPrivs);
  EXPECT_EQ(o.result.confinement.seccomp, !sanitized());
  const GateOutcome again = run();
  EXPECT_EQ(again.channel->bytes(), o.channel->bytes());
  std::printf("[ figure ] gate process, 400 rows of input: %.1f ms\n", seconds_ * 1000);
}

TEST_F(GateTest, SizeAndChargeDoNotDependOnContent) {
  const GateOutcome small = run();
  write("out/coefficients.csv",
        "feature,coefficient\nradius,1.25\nintercept,-5\narea,0.3\ntexture,2.5\nsmoothness,7.11\n");
  const GateOutcome large = run();
  EXPECT_EQ(small.channel->bytes().size(), large.channel->bytes().size());
  EXPECT_EQ(small.result.charge, large.result.charge);
}

TEST_F(GateTest, ConsumerNeverSeesPlaintextInReasons) {
  write("out/metrics.json", "{\"n\": \"SECRETWORD\", \"auc\": 0.9}");
  const GateOutcome o = run();
  EXPECT_EQ(canonical(to_json(o.result)).find("SECRETWORD"), std::string::npos);
  EXPECT_TRUE(says(o.result, RuleId::kFormat, GateReason::kWrongShape));
}

// ---- attack kit: the numbers are these tests' own

TEST_F(GateTest, A01toA13CopiesInAnyPlainForm) {
  const auto all = lines(input_);
  std::string rows;
  std::string json = "[";
  std::string upper;
  std::string ids;
  for (std::size_t i = 1; i < 40; ++i) rows += all[i] + "\n";
  for (std::size_t i = 1; i < 40; ++i) json += (i > 1 ? ",[" : "[") + all[i] + "]";
  for (std::size_t i = 1; i < 200; ++i) ids += all[i].substr(0, all[i].find(',')) + "\n";
  for (const char c : rows) {
    upper.push_back(c == ',' ? ';'
                             : static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  }
  std::string base64 = to_base64url(as_bytes(rows));
  const std::pair<const char*, std::string> forms[] = {
      {"A01 raw rows", rows},
      {"A02 JSON rows", json + "]"},
      {"A03 base64", base64},
      {"A04 hex", to_hex(as_bytes(rows))},
      {"A07 reversed", std::string(rows.rbegin(), rows.rend())},
      {"A11 case, delimiter", upper}};
  const GateReason reasons[] = {GateReason::kCopiedBytes,    GateReason::kCopiedBytes,
                                GateReason::kCopiedEncoded,  GateReason::kCopiedEncoded,
                                GateReason::kCopiedReversed, GateReason::kCopiedBytes};
  for (std::size_t i = 0; i < std::size(forms); ++i) {
    only_opaque(forms[i].second);
    expect_reject(forms[i].first, RuleId::kCopies, reasons[i]);
  }
  only_opaque(ids);
  expect_reject("A13 identifiers", RuleId::kCopies, GateReason::kCopiedColumn);
  only(
      OutputType::kTable,
      R"({"maxRows":300,"columns":[{"name":"x","type":"integer","minimum":0,"maximum":100000000}]})",
      "x\n" + ids);
  expect_reject("A13 identifiers in a typed table", RuleId::kCopies, GateReason::kCopiedColumn);
  only(OutputType::kTable,
       R"({"maxRows":300,"columns":[{"name":"id","type":"integer","minimum":0,"maximum":100000000},
      {"name":"radius","type":"decimal","minimum":0,"maximum":99,"digits":6,"scale":4},
      {"name":"texture","type":"decimal","minimum":0,"maximum":99,"digits":6,"scale":4},
      {"name":"area","type":"decimal","minimum":0,"maximum":9999,"digits":6},
      {"name":"smoothness","type":"decimal","minimum":0,"maximum":9,"scale":6,"digits":6},
      {"name":"diagnosis","type":"text","enum":["M","B"]}]})",
       all[0] + "\n" + rows);
  expect_reject("A01 raw rows in a typed table", RuleId::kCopies, GateReason::kCopiedRows);
}

TEST_F(GateTest, A18toA20LowDigitsOrderAndKeysCarryNothing) {
  const GateOutcome plain = run();
  write("out/coefficients.csv",
        "coefficient,feature\n-0.00000099,intercept\n1.2349871236,radius\n");
  write("out/metrics.json", "{ \"auc\":0.98799999999,\r\n\t\"n\":400}");
  const GateOutcome coded = run();
  ASSERT_EQ(coded.result.recommendation, Recommendation::kRelease) << told(coded.result);
  EXPECT_EQ(plain.channel->bytes(), coded.channel->bytes());
}

TEST_F(GateTest, A21A22NamesCountsAndMissingFiles) {
  write("out/extra.csv", "x\n");
  expect_reject("A21 undeclared", RuleId::kStructure, GateReason::kUndeclaredFile);
  fresh_out();
  write("out/coefficients.csv", "feature,coefficient\n");
  expect_reject("A22 missing", RuleId::kStructure, GateReason::kMissingFile);
  write("out/metrics.json", "");
  expect_reject("A22 empty", RuleId::kFormat, GateReason::kBadJson);
  write("out/metrics.json", "{\"auc\":0.5,\"n\":1}");
  ASSERT_EQ(mkdir((root_ + "/out/empty").c_str(), 0755), 0);
  expect_reject("A22 undeclared folder", RuleId::kStructure, GateReason::kUndeclaredFile);
  ASSERT_EQ(rmdir((root_ + "/out/empty").c_str()), 0);
  for (const char* odd : {"a\nb", "\xd0\xb0", ".hidden", "sp ace", "-\x1b[2J"}) {
    write(std::string("out/") + odd, "x");
    expect_reject("odd name", RuleId::kStructure, GateReason::kOddName);
    ASSERT_EQ(unlink((root_ + "/out/" + odd).c_str()), 0);
  }
}

TEST_F(GateTest, A23TimesModesAndAttributesCarryNothing) {
  const GateOutcome plain = run();
  const std::string path = root_ + "/out/metrics.json";
  const timespec times[2] = {{123456789, 987654321}, {987654321, 123456789}};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  ASSERT_EQ(chmod(path.c_str(), 06755), 0);
  (void)setxattr(path.c_str(), "user.payload", "secret", 6, 0);
  const GateOutcome coded = run();
  ASSERT_EQ(coded.result.recommendation, Recommendation::kRelease) << told(coded.result);
  EXPECT_EQ(plain.channel->bytes(), coded.channel->bytes());
}

TEST_F(GateTest, A24LinksPipesAndDevicesAreRefusedUnopened) {
  const std::string path = root_ + "/out/metrics.json";
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(symlink("/etc/passwd", path.c_str()), 0);
  expect_reject("symlink", RuleId::kStructure, GateReason::kSymlink);
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(link((root_ + "/in/patients.csv").c_str(), path.c_str()), 0);
  expect_reject("hardlink", RuleId::kStructure, GateReason::kHardlink);
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(mkfifo(path.c_str(), 0666), 0);
  expect_reject("fifo", RuleId::kStructure, GateReason::kFifo);
  EXPECT_LT(seconds_, 10);
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(mkdir(path.c_str(), 0755), 0);
  expect_reject("directory", RuleId::kStructure, GateReason::kDirectory);
  ASSERT_EQ(rmdir(path.c_str()), 0);
  {
    const Fd s(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    ASSERT_LT(path.size(), sizeof a.sun_path);
    std::copy(path.begin(), path.end(), a.sun_path);
    // SAFETY: the sockets interface wants its base type.
    ASSERT_EQ(bind(s.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a), 0);
  }
  expect_reject("socket", RuleId::kStructure, GateReason::kSocket);
  ASSERT_EQ(unlink(path.c_str()), 0);
  if (mknod(path.c_str(), S_IFCHR | 0666, makedev(1, 5)) == 0) {
    expect_reject("device", RuleId::kStructure, GateReason::kDevice);
  }
}

TEST_F(GateTest, DeclaredFolderMayNotBeALink) {
  declare("deep", "a/b/c.json", OutputType::kMetrics,
          R"({"fields":[{"name":"n","type":"integer","minimum":0,"maximum":9}]})");
  ASSERT_TRUE(make_dirs(root_ + "/out/a/b", 0755).ok());
  write("out/a/b/c.json", "{\"n\":1}");
  EXPECT_EQ(run().result.recommendation, Recommendation::kRelease);
  ASSERT_EQ(rename((root_ + "/out/a/b").c_str(), (root_ + "/elsewhere").c_str()), 0);
  ASSERT_EQ(symlink("../../elsewhere", (root_ + "/out/a/b").c_str()), 0);
  expect_reject("folder is a link", RuleId::kStructure, GateReason::kSymlink);
}

TEST_F(GateTest, A25TrailingBytesAreRefused) {
  write("out/metrics.json", "{\"n\": 400, \"auc\": 0.9}\nPK\x03\x04");
  expect_reject("trailing bytes", RuleId::kFormat, GateReason::kBadJson);
  write("out/metrics.json", std::string_view("{\"n\": 400, \"auc\": 0.9}\0", 23));
  expect_reject("trailing zero", RuleId::kFormat, GateReason::kBadJson);
}

TEST_F(GateTest, A36toA38ExitDurationAndLogs) {
  ASSERT_TRUE(write_file_atomic(root_ + "/log", as_bytes("error: bad value\x1b[0m\n"), 0644).ok());
  request_.exitClass = RunExit::kFailed;
  request_.logs = {LogVisibility::kConsumer, 64, {}};
  request_.policy.maxConsumerLogBytes = 0;
  const GateOutcome silent = run();
  EXPECT_EQ(silent.result.recommendation, Recommendation::kRelease) << told(silent.result);
  EXPECT_TRUE(silent.channel->entries().empty());
  EXPECT_EQ(silent.result.charge.freeBits, kControlBits);
  EXPECT_EQ(silent.channel->status().exitClass, RunExit::kFailed);
  EXPECT_TRUE(
      says(silent.result, RuleId::kLogs, GateReason::kLogsNotAllowed, RuleStatus::kNotApplicable));
  request_.policy.maxConsumerLogBytes = 16;
  const GateOutcome gated = run();
  ASSERT_EQ(gated.channel->entries().size(), 1U);
  EXPECT_EQ(as_text(gated.channel->entries()[0].content), "error: bad value");
  EXPECT_EQ(gated.result.charge.freeBits, kControlBits + 8 * 16 + 5);
  request_.policy.autoClearFreeBits = 100;
  EXPECT_EQ(run().result.recommendation, Recommendation::kHold);
}

TEST_F(GateTest, LogsThatQuoteTheInputsReject) {
  ASSERT_TRUE(write_file_atomic(root_ + "/log", as_bytes(input_.substr(100, 900)), 0644).ok());
  request_.logs = {LogVisibility::kConsumer, 1024, {}};
  request_.policy.maxConsumerLogBytes = 1024;
  request_.policy.autoClearFreeBits = 100'000;
  expect_reject("log", RuleId::kCopies, GateReason::kCopiedBytes);
}

TEST_F(GateTest, A46BombsEndInSeconds) {
  // in memory: on a disk, making them takes half a minute
  std::string many = "/dev/shm/gbx-gate-XXXXXX";
  if (mkdtemp(many.data()) == nullptr) many = root_ + "/out";
  ASSERT_EQ(chmod(many.c_str(), 0755), 0);
  for (int i = 0; i < 100'000; ++i) {
    const Fd f(
        open((many + "/f" + std::to_string(i)).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    ASSERT_TRUE(f.valid());
  }
  out_path_ = many;
  expect_reject("10^5 files", RuleId::kStructure, GateReason::kTooManyFiles);
  EXPECT_LT(seconds_, 5);
  out_path_ = root_ + "/out";
  if (many != out_path_) {
    EXPECT_TRUE(remove_tree(many).ok());
  }
  fresh_out();
  write("out/coefficients.csv", "feature,coefficient\n");
  {
    const Fd f(open((root_ + "/out/metrics.json").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    ASSERT_EQ(ftruncate(f.get(), std::int64_t{1} << 40), 0);
  }
  expect_reject("sparse terabyte", RuleId::kStructure, GateReason::kTooLarge);
  EXPECT_LT(seconds_, 5);
  ASSERT_EQ(truncate((root_ + "/out/metrics.json").c_str(), 4000), 0);
  expect_reject("small sparse file", RuleId::kStructure, GateReason::kSparseFile);
  std::string dir = root_ + "/out/d";
  for (int i = 0; i < 60; ++i) {
    ASSERT_EQ(mkdir(dir.c_str(), 0755), 0);
    dir += "/d";
  }
  expect_reject("deep folders", RuleId::kStructure, GateReason::kUndeclaredFile);
  write("out/metrics.json", std::string(4000, '['));
  expect_reject("deep JSON", RuleId::kFormat, GateReason::kBadJson);
}

TEST_F(GateTest, A47NumbersAndLettersThatOnlyLookRight) {
  write("out/metrics.json", "{\"n\": 400, \"auc\": -0.0}");
  const GateOutcome zero = run();
  EXPECT_EQ(released(zero, "metrics.json"), "{\"auc\":0,\"n\":400}\n");
  const std::pair<const char*, GateReason> cases[] = {
      {"{\"n\":400,\"auc\":NaN}", GateReason::kNotANumber},
      {"{\"n\":400,\"auc\":nan}", GateReason::kBadJson},
      {"{\"n\":400,\"auc\":\"NaN\"}", GateReason::kWrongShape},
      {"{\"n\":400,\"\xd0\xb0uc\":0.5}", GateReason::kWrongMembers},
      {"{\"n\":400,\"auc\":0.5\xe2\x80\x8b}", GateReason::kBadJson},
      {"\xef\xbb\xbf{\"n\":400,\"auc\":0.5}", GateReason::kBadJson},
      {"{\"n\":400,\"auc\":0.5,\"\\u0061uc\":1}", GateReason::kDuplicateKey},
      {"{\"n\":400,\"auc\":1e999}", GateReason::kNotANumber}};
  for (const auto& [text, reason] : cases) {
    write("out/metrics.json", text);
    expect_reject(text, RuleId::kFormat, reason);
  }
  write("out/metrics.json", "{\"n\":400,\"auc\":0.5}");
  write("out/coefficients.csv", "feature,coefficient\nradius\xe2\x80\x8b,1\n");
  expect_reject("zero-width space", RuleId::kFormat, GateReason::kNotInList);
}

// ---- what is held

TEST_F(GateTest, OpaqueAndUnboundedTextAreHeldWithTheirBytes) {
  only_opaque(std::string_view("\x00\x01weights", 9));
  const GateOutcome o = run();
  EXPECT_EQ(o.result.recommendation, Recommendation::kHold);
  EXPECT_TRUE(says(o.result, RuleId::kOpaque, GateReason::kOpaqueOutput));
  EXPECT_EQ(released(o, "model.bin"), std::string_view("\x00\x01weights", 9));  // for the reviewer
  EXPECT_EQ(o.result.charge.freeBits, kControlBits + 8 * (1 << 20) + 21);
  only(OutputType::kText, "{}", "hello\n", 100);
  const GateOutcome t = run();
  EXPECT_EQ(t.result.recommendation, Recommendation::kHold);
  EXPECT_TRUE(says(t.result, RuleId::kOpaque, GateReason::kUnboundedText));
  only(OutputType::kText, R"({"enum":["hello"],"maxLines":1})", "hello\n", 100);
  EXPECT_EQ(run().result.recommendation, Recommendation::kRelease);
}

TEST_F(GateTest, BudgetScoreAndTypes) {
  request_.policy.autoClearFreeBits = 101;
  const GateOutcome over = run();
  EXPECT_EQ(over.result.recommendation, Recommendation::kHold);
  EXPECT_TRUE(says(over.result, RuleId::kCapacity, GateReason::kOverFreeBits));
  EXPECT_TRUE(over.channel);
  request_.policy.autoClearFreeBits = 102;
  EXPECT_EQ(run().result.recommendation, Recommendation::kRelease);
  request_.policy.scoreThreshold = 1;
  EXPECT_EQ(run().result.recommendation, Recommendation::kHold);
  request_.policy.scoreThreshold = 60;
  request_.policy.allowedTypes = {OutputType::kTable};
  expect_reject("type", RuleId::kFormat, GateReason::kTypeNotAllowed);
  request_.policy.allowedTypes = {OutputType::kTable, OutputType::kMetrics};
  request_.policy.maxRows = 1;
  expect_reject("rows", RuleId::kFormat, GateReason::kTooManyRows);
  request_.policy.maxRows = 5000;
  request_.policy.maxOutputBytes = 10;
  expect_reject("bytes", RuleId::kStructure, GateReason::kTooLarge);
}

TEST_F(GateTest, ABadDeclarationRejects) {
  request_.outputs[0].schema = JsonObject{};
  expect_reject("schema", RuleId::kFormat, GateReason::kBadDeclaration);
}

TEST_F(GateTest, AnalyserErrorsHold) {
  const auto all = all_analysers();
  std::vector<NamedAnalyser> broken(all.begin(), all.end());
  for (std::size_t i = 0; i < broken.size(); ++i) {
    std::vector<NamedAnalyser> one = broken;
    one[i].run = [](GateView&) -> std::vector<AnalyserResult> { throw std::bad_alloc(); };
    const Evaluation e = evaluate(one);
    EXPECT_EQ(e.result.recommendation, Recommendation::kHold) << i;
    EXPECT_EQ(e.result.verdict, RuleStatus::kError);
    one.erase(one.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_EQ(evaluate(one).result.recommendation, Recommendation::kHold) << "silent rule " << i;
  }
  EXPECT_EQ(evaluate().result.recommendation, Recommendation::kRelease);
}

TEST_F(GateTest, UnreadableInputsHold) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to give the gate another uid";
  ASSERT_EQ(chmod((root_ + "/in/patients.csv").c_str(), 0600), 0);
  const GateOutcome o = run();
  EXPECT_TRUE(o.completed);
  EXPECT_EQ(o.result.recommendation, Recommendation::kHold);
  EXPECT_TRUE(says(o.result, RuleId::kCopies, GateReason::kInputUnreadable, RuleStatus::kError));
}

// ---- a gate that misbehaves

TEST_F(GateTest, CrashHangFloodAndGarbageHold) {
  const auto script = [&](const std::string& body) {
    write("gate.sh", "#!/bin/sh\n" + body + "\n");
    EXPECT_EQ(chmod((root_ + "/gate.sh").c_str(), 0755), 0);
    GateSpawn s = spawn_for();
    s.program = root_ + "/gate.sh";
    s.timeout_ms = 1500;
    Result<GateOutcome> o = run_gate(std::move(s), clock_);
    EXPECT_TRUE(o.ok());
    EXPECT_FALSE(o->completed);
    EXPECT_EQ(o->result.recommendation, Recommendation::kHold);
    EXPECT_EQ(o->result.charge.freeBits, kControlBits);
    EXPECT_FALSE(o->channel);
    return o->failure;
  };
  EXPECT_EQ(script("exit 1"), GateReason::kGateCrashed);
  EXPECT_EQ(script("kill -SEGV $$"), GateReason::kGateCrashed);
  EXPECT_EQ(script("exec sleep 30"), GateReason::kGateTimedOut);
  EXPECT_EQ(script("exec cat"), GateReason::kGateGarbage);
  EXPECT_EQ(script("exit 0"), GateReason::kGateGarbage);
  EXPECT_EQ(script("exec cat /dev/zero"), GateReason::kGateGarbage);
  GateSpawn s = spawn_for();
  s.program = root_ + "/absent";
  EXPECT_FALSE(run_gate(std::move(s), clock_).ok());
}

// An answer that lies, and the check that must find it.
struct Forgery {
  const char* refusal;
  std::function<void(Evaluation&)> change;
};

// The content says what `change` makes of it, and everything that names the content agrees.
void forge_bundle(const GateRequest& request, Evaluation& e,
                  const std::function<void(Bundle&)>& change, std::size_t times = 1) {
  Bundle b{e.channel->status(), e.channel->entries()};
  change(b);
  e.channel = *ReleaseChannel::decode(*encode_bundle(b, times * padded_bundle_size(request)));
  e.result.bundleDigest = output_digest(request.salt, "", e.channel->bytes());
  for (auto& m : e.result.manifest) {
    for (const auto& entry : b.entries) {
      if (entry.name != m.path) continue;
      m.digest = output_digest(request.salt, m.name, entry.content);
      m.bytes = static_cast<std::int64_t>(entry.content.size());
    }
  }
}

void expect_refused(const GateRequest& request, const Evaluation& good,
                    std::span<const Forgery> forgeries) {
  ASSERT_TRUE(check_answer(request, encode_answer(good)).ok())
      << check_answer(request, encode_answer(good)).error().line();
  for (std::size_t i = 0; i < forgeries.size(); ++i) {
    Evaluation bad = good;
    forgeries[i].change(bad);
    const auto answer = check_answer(request, encode_answer(bad));
    EXPECT_EQ(answer.ok() ? "accepted" : answer.error().what,
              std::string("gate answer: ") + forgeries[i].refusal)
        << "forgery " << i;
  }
}

TEST_F(GateTest, ForgedAnswersAreRefused) {
  const Evaluation good = evaluate();
  const Forgery forgeries[] = {
      {"charge", [](Evaluation& e) { e.result.charge.freeBits -= 1; }},
      {"charge", [](Evaluation& e) { e.result.charge.verifiedBits = 1; }},
      {"charge", [](Evaluation& e) { e.result.charge.zcdpMicro = 1; }},
      {"charge", [](Evaluation& e) { e.result.charge.code = CodeId::kControlOnly; }},
      {"another request", [](Evaluation& e) { e.result.jobId = "job-2"; }},
      {"another request", [](Evaluation& e) { e.result.attempt = 2; }},
      {"another request", [](Evaluation& e) { e.result.requestDigest[0] ^= 1; }},
      {"another request", [](Evaluation& e) { e.result.policyHash[0] ^= 1; }},
      {"digest of the bundle", [](Evaluation& e) { e.result.bundleDigest[0] ^= 1; }},
      {"digest of an output", [](Evaluation& e) { e.result.manifest[0].digest[0] ^= 1; }},
      {"size", [](Evaluation& e) { e.result.manifest[0].bytes += 1; }},
      {"an undeclared output", [](Evaluation& e) { e.result.manifest[0].path = "other.csv"; }},
      {"an undeclared output", [](Evaluation& e) { e.result.manifest[0].name = "metrics"; }},
      {"an output is missing", [](Evaluation& e) { e.result.manifest.pop_back(); }},
      {"verdict", [](Evaluation& e) { e.result.verdict = RuleStatus::kPass; }},
      {"verdict", [](Evaluation& e) { e.result.analysers[0].status = RuleStatus::kFail; }},
      {"recommendation",
       [](Evaluation& e) {
         e.result.analysers[0].status = RuleStatus::kFail;
         e.result.verdict = RuleStatus::kFail;
       }},
      {"recommendation",
       [](Evaluation& e) {
         e.result.analysers.pop_back();
         e.result.verdict = worst_status(e.result.analysers);
       }},
      {"recommendation", [](Evaluation& e) { e.result.score = 90; }},
      {"run", [](Evaluation& e) { e.result.exitClass = RunExit::kFailed; }},
      {"run", [](Evaluation& e) { e.result.durationBucket = 4; }},
      {"no bundle", [](Evaluation& e) { e.channel.reset(); }},
      {"no bundle",
       [](Evaluation& e) {
         e.result.recommendation = Recommendation::kHold;
         e.channel.reset();
       }},
      {"rejected content",
       [](Evaluation& e) { e.result.recommendation = Recommendation::kReject; }},
  };
  expect_refused(request_, good, forgeries);
  Bytes answer = encode_answer(good);
  for (std::size_t i = answer.size() - 16384 - 8; i < answer.size(); i += 37) {
    answer[i] ^= 0x20;
    EXPECT_FALSE(check_answer(request_, answer).ok()) << i;
    answer[i] ^= 0x20;
  }
  answer.push_back(0);
  EXPECT_EQ(check_answer(request_, answer).reason(), Reason::kTrailingBytes);
}

// The same lie in result and content, so that nothing but the request contradicts it.
TEST_F(GateTest, ForgedContentIsRefused) {
  request_.logs = {LogVisibility::kConsumer, 4000, std::nullopt};
  request_.policy.maxConsumerLogBytes = 100;
  write("log", "all is well\n");
  const auto in_bundle = [&](std::function<void(Bundle&)> change) {
    return [this, change](Evaluation& e) { forge_bundle(request_, e, change); };
  };
  const auto log_of = [&](std::size_t size) {
    return in_bundle([size](Bundle& b) {
      if (b.entries.back().kind == EntryKind::kLog) b.entries.pop_back();
      b.entries.push_back({EntryKind::kLog, "log", Bytes(size, 'x')});
    });
  };
  const Evaluation good = evaluate();
  Evaluation longest = good;
  log_of(100)(longest);
  EXPECT_TRUE(check_answer(request_, encode_answer(longest)).ok());
  const Forgery forgeries[] = {
      {"status in the bundle", in_bundle([](Bundle& b) { b.status.jobId = "job-2"; })},
      {"status in the bundle", in_bundle([](Bundle& b) { b.status.attempt = 2; })},
      {"status in the bundle", in_bundle([](Bundle& b) { b.status.exitClass = RunExit::kFailed; })},
      {"status in the bundle", in_bundle([](Bundle& b) { b.status.durationBucket += 1; })},
      {"size of the bundle",
       [this](Evaluation& e) {
         forge_bundle(
             request_, e, [](Bundle&) {}, 2);
       }},
      {"size", in_bundle([](Bundle& b) { b.entries[0].content.resize(4097, '1'); })},
      {"manifest and bundle", in_bundle([](Bundle& b) {
         b.entries.insert(b.entries.begin(), {EntryKind::kOutput, "another.csv", Bytes(1, '1')});
       })},
      {"an undeclared output", in_bundle([](Bundle& b) { b.entries[1].name = "other.json"; })},
      {"log", log_of(101)},
  };
  expect_refused(request_, good, forgeries);
  request_.policy.maxConsumerLogBytes = 0;
  const Forgery silent[] = {{"log", log_of(1)}};
  expect_refused(request_, evaluate(), silent);
}

// It claims that every rule passed.
void claim_release(Evaluation& e) {
  for (auto& a : e.result.analysers) a = {a.rule, RuleStatus::kPass, GateReason::kNone, {}};
  e.result.verdict = RuleStatus::kPass;
  e.result.score = 0;
  e.result.recommendation = Recommendation::kRelease;
}

TEST_F(GateTest, AGateCannotReleaseWhatMustBeHeld) {
  only_opaque("weights");
  const Evaluation e = evaluate();
  ASSERT_EQ(e.result.recommendation, Recommendation::kHold);
  const Forgery forgeries[] = {{"releases what must be held", claim_release}};
  expect_refused(request_, e, forgeries);
}

TEST_F(GateTest, AGateCannotReleaseMoreThanThePolicyClears) {
  request_.policy.autoClearFreeBits = release_charge(request_)->freeBits - 1;
  const Evaluation e = evaluate();
  ASSERT_EQ(e.result.recommendation, Recommendation::kHold);
  ASSERT_TRUE(says(e.result, RuleId::kCapacity, GateReason::kOverFreeBits));
  const Forgery forgeries[] = {{"releases more than the policy clears", claim_release}};
  expect_refused(request_, e, forgeries);
}

// ---- confinement: every denial is tried

// Runs `attempt` in a confined child; its exit code, or minus the signal that ended it.
int confined(const std::string& folder, const std::function<int()>& attempt) {
  const pid_t pid = fork();
  if (pid == 0) {
    const Result<Fd> dir = open_dir(folder);
    ConfineOptions options;
    options.folders = {dir->get()};
    if (!dir.ok() || !confine(options).ok()) _exit(99);
    _exit(attempt());
  }
  int st = 0;
  waitpid(pid, &st, 0);
  return WIFEXITED(st) ? WEXITSTATUS(st) : -WTERMSIG(st);
}

TEST_F(GateTest, ConfinementKillsWhatIsNotNeeded) {
  if (sanitized()) GTEST_SKIP() << "sanitizers need more system calls than the filter allows";
  const std::string file = root_ + "/in/patients.csv";
  const std::pair<const char*, std::function<int()>> denied[] = {
      {"socket", [] { return static_cast<int>(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)); }},
      {"openat",
       [&] { return static_cast<int>(syscall(SYS_openat, AT_FDCWD, file.c_str(), O_RDONLY)); }},
      {"execve",
       [] { return static_cast<int>(syscall(SYS_execve, "/bin/true", nullptr, nullptr)); }},
      {"clone", [] { return static_cast<int>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }},
      {"ptrace", [] { return static_cast<int>(syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0)); }},
      {"kill", [] { return static_cast<int>(syscall(SYS_kill, 1, 0)); }},
      {"memfd_create", [] { return static_cast<int>(syscall(SYS_memfd_create, "x", 0)); }},
      {"unlinkat",
       [&] { return static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, file.c_str(), 0)); }},
      {"io_uring_setup", [] { return static_cast<int>(syscall(SYS_io_uring_setup, 1, nullptr)); }},
      {"executable memory",
       [] {
         return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                        MAP_FAILED
                    ? 1
                    : 0;
       }},
      {"making memory executable",
       [] {
         void* p = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return mprotect(p, 4096, PROT_READ | PROT_EXEC);
       }},
  };
  for (const auto& [what, attempt] : denied) {
    EXPECT_EQ(confined(root_ + "/out", attempt), -SIGSYS) << what;
  }
}

TEST_F(GateTest, ConfinementAllowsWhatTheGateDoes) {
  EXPECT_EQ(confined(root_ + "/in",
                     [&] {
                       std::int64_t read_bytes = 0;
                       for (int fd = 3; fd < 64; ++fd) {
                         struct stat st {};
                         if (fstat(fd, &st) != 0 || !S_ISDIR(st.st_mode)) continue;
                         const FileSink sink{
                             [] {},
                             [&](ByteView b) { read_bytes += static_cast<std::int64_t>(b.size()); },
                             [] {}};
                         (void)stream_files(fd, sink);
                       }
                       return read_bytes == static_cast<std::int64_t>(input_.size()) ? 0 : 1;
                     }),
            0);
}

TEST_F(GateTest, LandlockShutsEverythingElse) {
  const long abi = syscall(SYS_landlock_create_ruleset, nullptr, 0, 1);
  if (abi <= 0) GTEST_SKIP() << "this kernel has no Landlock";
  EXPECT_EQ(confined(root_ + "/out",
                     [] {
                       // Without RESOLVE_BENEATH, as code that took over the gate would ask.
                       std::uint64_t how[3] = {O_RDONLY | O_CLOEXEC, 0, 0};
                       return syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", how, sizeof how) < 0 &&
                                      errno == EACCES
                                  ? 7
                                  : 0;
                     }),
            7);
  EXPECT_EQ(confined(root_ + "/out",
                     [&] {
                       const std::string path = root_ + "/out/new";
                       std::uint64_t how[3] = {O_WRONLY | O_CREAT | O_CLOEXEC, 0644, 0};
                       return syscall(SYS_openat2, AT_FDCWD, path.c_str(), how, sizeof how) < 0 &&
                                      errno == EACCES
                                  ? 7
                                  : 0;
                     }),
            7);
}

}  // namespace
}  // namespace gbx::gate
