// Bytes, JSON, field binding, files and processes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "base/fields.h"
#include "base/log.h"
#include "base/new_file.h"
#include "base/os.h"
#include "base/seams.h"
#include "base/secret.h"
#include "base/secret_pool.h"

namespace gbx {
namespace {

TEST(Result, DefaultIsAFailure) {
  Result<int> r;
  EXPECT_FALSE(r.ok());
  EXPECT_EQ(r.reason(), Reason::kUninitialised);
}

TEST(Error, EveryReasonHasAUniqueCodeThatParsesBack) {
  std::set<std::string_view> seen;
#define X(name, code, cls)                       \
  EXPECT_TRUE(seen.insert(code).second) << code; \
  {                                              \
    Reason r{};                                  \
    ASSERT_TRUE(reason_from_code(code, &r));     \
    EXPECT_EQ(r, Reason::name);                  \
    EXPECT_EQ(exit_class(r), ExitClass::cls);    \
  }
  GBX_REASONS(X)
#undef X
  Reason r{};
  EXPECT_FALSE(reason_from_code("no-such-reason", &r));
}

TEST(Hex, RoundTripAndRefusals) {
  EXPECT_EQ(to_hex(as_bytes("\x01\xff")), "01ff");
  EXPECT_EQ(as_text(*from_hex("6768")), "gh");
  EXPECT_EQ(from_hex("6").reason(), Reason::kBadEncoding);
  EXPECT_EQ(from_hex("FF").reason(), Reason::kBadEncoding);
  EXPECT_EQ(fixed_from_hex<4>("00").reason(), Reason::kBadValue);
}

TEST(Base64Url, Rfc4648VectorsWithoutPadding) {
  const std::pair<const char*, const char*> vectors[] = {
      {"", ""},           {"f", "Zg"},          {"fo", "Zm8"},         {"foo", "Zm9v"},
      {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) {
    EXPECT_EQ(to_base64url(as_bytes(plain)), coded);
    EXPECT_EQ(as_text(*from_base64url(coded)), plain);
  }
  EXPECT_EQ(to_base64url(Bytes{0xfb, 0xff}), "-_8");
  EXPECT_FALSE(from_base64url("Zh").ok());  // unused bits set
  EXPECT_FALSE(from_base64url("Z").ok());
  EXPECT_FALSE(from_base64url("Zg==").ok());
  EXPECT_FALSE(from_base64url("+/8").ok());
}

TEST(ByteReader, ReadsLittleEndianAndRejectsTheRest) {
  const Bytes b{1, 2, 0, 3, 0, 0, 0, 9};
  ByteReader r(b);
  EXPECT_EQ(*r.u8(), 1);
  EXPECT_EQ(*r.u16(), 2);
  EXPECT_EQ(*r.u32(), 3u);
  EXPECT_EQ(r.finish().reason(), Reason::kTrailingBytes);
  EXPECT_EQ(r.u64().reason(), Reason::kTruncated);
  EXPECT_EQ(*r.u8(), 9);
  EXPECT_TRUE(r.finish().ok());
  ByteWriter w;
  w.bytes32(b);
  ByteReader q(w.bytes());
  EXPECT_EQ(q.bytes32(7).reason(), Reason::kTooLarge);
}

TEST(Json, CanonicalFormOfRfc8785) {
  // Key order by UTF-16 code units: U+1F600 (surrogates D83D…) sorts before U+FB33.
  auto j = parse_json(
      "{\"\xef\xac\xb3\":1,\"\xf0\x9f\x98\x80\":2,\"a\":[true,null,-5],\"\\r\":\"\\u0007\\/"
      "\\u00e9\"}");
  ASSERT_TRUE(j.ok()) << j.error().line();
  EXPECT_EQ(canonical(*j),
            "{\"\\r\":\"\\u0007/"
            "\xc3\xa9\",\"a\":[true,null,-5],\"\xf0\x9f\x98\x80\":2,\"\xef\xac\xb3\":1}");
  EXPECT_EQ(canonical(*parse_json(canonical(*j))), canonical(*j));
  EXPECT_EQ(canonical(*parse_json(pretty(*j))), canonical(*j));
}

TEST(Json, RefusesWhatCannotBeSigned) {
  EXPECT_EQ(parse_json("{\"a\":1,\"a\":2}").reason(), Reason::kDuplicateKey);
  EXPECT_EQ(parse_json("{\"a\":1,\"\\u0061\":2}").reason(), Reason::kDuplicateKey);
  EXPECT_EQ(parse_json("1.5").reason(), Reason::kBadValue);
  EXPECT_EQ(parse_json("1e3").reason(), Reason::kBadValue);
  EXPECT_EQ(parse_json("9007199254740992").reason(), Reason::kBadValue);
  EXPECT_EQ(*parse_json("-9007199254740991")->integer(), -kMaxJsonInteger);
  EXPECT_EQ(parse_json("99999999999999999999999").reason(), Reason::kBadValue);
  EXPECT_EQ(parse_json("").reason(), Reason::kBadJson);
  EXPECT_EQ(parse_json("{} x").reason(), Reason::kBadJson);
  EXPECT_EQ(parse_json("[1,]").reason(), Reason::kBadJson);
  EXPECT_EQ(parse_json(std::string_view("{\"a\":1}\0hidden", 14)).reason(), Reason::kBadJson);
  EXPECT_EQ(parse_json(std::string_view("{}\0", 3)).reason(), Reason::kBadJson);
  EXPECT_EQ(parse_json("\"\xff\"").reason(), Reason::kBadJson);
  EXPECT_EQ(parse_json("\"\\ud800\"").reason(), Reason::kBadJson);
  EXPECT_EQ(parse_json("\xef\xbb\xbf{}").reason(), Reason::kBadJson);
  EXPECT_EQ(parse_json(std::string(40, '[') + std::string(40, ']')).reason(), Reason::kTooLarge);
}

enum class Colour { kRed, kBlue };
std::span<const EnumName<Colour>> enum_names(Colour) {
  static constexpr EnumName<Colour> k[] = {{Colour::kRed, "red"}, {Colour::kBlue, "blue"}};
  return k;
}
struct Inner {
  std::int64_t n = 0;
  template <class F>
  void fields(F& f) {
    f("n", n, Bound{1, 9});
  }
  bool operator==(const Inner&) const = default;
};
struct Outer {
  std::string name;
  std::vector<Inner> list;
  std::optional<std::string> note;
  FixedBytes<2> id{};
  Bytes blob;
  Colour colour = Colour::kRed;
  std::map<std::string, std::string> env;
  bool on = false;
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 8});
    f("list", list, Bound{0, 3});
    f("note", note);
    f("id", id);
    f("blob", blob);
    f("colour", colour);
    f("env", env);
    f("on", on);
  }
  bool operator==(const Outer&) const = default;
};

TEST(Fields, RoundTripAndEveryRefusalNamesItsPath) {
  Outer o{"x", {{1}, {9}}, "hi", {1, 2}, {7}, Colour::kBlue, {{"A", "b"}}, true};
  const Json j = to_json(o);
  EXPECT_EQ(
      canonical(j),
      R"({"blob":"Bw","colour":"blue","env":{"A":"b"},"id":"0102","list":[{"n":1},{"n":9}],"name":"x","note":"hi","on":true})");
  EXPECT_EQ(*from_json<Outer>(j), o);
  const auto refuse = [&](std::string_view key, Json value, Reason why, std::string_view path) {
    Json k = j;
    k[key] = std::move(value);
    auto r = from_json<Outer>(k);
    ASSERT_FALSE(r.ok()) << key;
    EXPECT_EQ(r.reason(), why) << r.error().line();
    EXPECT_EQ(r.error().what.substr(0, path.size()), path) << r.error().line();
    EXPECT_FALSE(r.error().expected.empty()) << r.error().line();
    EXPECT_FALSE(r.error().actual.empty()) << r.error().line();
  };
  refuse("extra", 1, Reason::kUnknownField, "extra");
  refuse("name", "", Reason::kBadValue, "name");
  refuse("name", nullptr, Reason::kBadValue, "name");
  refuse("note", nullptr, Reason::kBadValue, "note");
  refuse("id", "01", Reason::kBadValue, "id");
  refuse("colour", "green", Reason::kBadValue, "colour");
  refuse("list", JsonArray{*parse_json(R"({"n":1})"), *parse_json(R"({"n":10})")},
         Reason::kBadValue, "list[1].n");
  refuse("list", JsonArray{*parse_json(R"({"n":1,"m":2})")}, Reason::kUnknownField, "list[0].m");
  refuse("env", *parse_json(R"({"A":1})"), Reason::kBadValue, "env.A");
  Json missing = j;
  missing.object()->erase("on");
  EXPECT_EQ(from_json<Outer>(missing).reason(), Reason::kMissingField);
  EXPECT_EQ(from_json<Outer>(missing).error().what, "on");
  Json mistyped = j;
  mistyped["nmae"] = "x";
  EXPECT_EQ(from_json<Outer>(mistyped).error().expected,
            "one of blob, colour, env, id, list, name, note, on");
  EXPECT_EQ(from_json<Outer>(mistyped).error().actual, "nmae");
  refuse("blob", "not base64!", Reason::kBadEncoding, "blob");
  EXPECT_EQ(join_path("a[1]", "[2].b"), "a[1][2].b");
  EXPECT_EQ(join_path("a", "b"), "a.b");
  EXPECT_EQ(join_path("a", ""), "a");
}

struct Palette {
  std::vector<Colour> colours;
  template <class F>
  void fields(F& f) {
    f("colours", colours);
  }
};
TEST(Fields, AWordInAListIsNamedLikeAnyOther) {
  const auto r = from_json_text<Palette>(R"({"colours":["red","green"]})");
  EXPECT_EQ(r.error().what, "colours[1]: unknown word");
  EXPECT_EQ(from_json_text<Palette>(R"({"colours":[1]})").error().what, "colours[0]");
}

TEST(Error, TheCodeStandsOnce) {
  const Error e = fail(Reason::kSpecMismatch, "an input").with("x", "y");
  EXPECT_EQ(e.line(), "spec-mismatch: an input (expected x, actual y)");
  EXPECT_EQ(e.detail(), "an input (expected x, actual y)");
  EXPECT_EQ(fail(Reason::kHeld).line(), "held");
  EXPECT_EQ(fail(Reason::kHeld).detail(), "");
  EXPECT_EQ(fail(Reason::kHeld).with("x", "y").line(), "held (expected x, actual y)");
}

TEST(Files, AFolderIsNoFileAndRemovalFollowsNoLink) {
  char name[] = "/tmp/gbx-base-XXXXXX";
  const std::string dir = mkdtemp(name);
  EXPECT_EQ(read_file(dir, 10).reason(), Reason::kBadValue);
  EXPECT_EQ(read_file(dir + "/none", 10).reason(), Reason::kNotFound);
  ASSERT_TRUE(make_dirs(dir + "/kept/inner", 0700).ok());
  ASSERT_EQ(symlink((dir + "/kept").c_str(), (dir + "/link").c_str()), 0);
  ASSERT_TRUE(remove_tree(dir + "/link").ok());
  EXPECT_TRUE(path_exists(dir + "/kept/inner"));
  ASSERT_TRUE(remove_tree(dir).ok());
}

TEST(Secret, ComparesAndMoves) {
  SeededRandom r(1);
  DatasetKey a = r.secret<DatasetKey>(32);
  DatasetKey b = a.clone();
  EXPECT_TRUE(a == b);
  DatasetKey c = std::move(a);
  EXPECT_TRUE(c == b);
  EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): what a move leaves is what is tested
  EXPECT_FALSE(c == r.secret<DatasetKey>(32));
}

// As this process may read it, through the kernel, for which neither a sanitizer's fence nor a
// wiped pointer is in the way. At most what a pipe holds.
std::string memory_at(const std::uint8_t* at, std::size_t size) {
  const auto pipe = make_pipe().value();
  // SAFETY: the kernel checks the address; a sanitizer would check write(2).
  const long n = syscall(SYS_write, pipe.second.get(), at, size);
  std::string out(n < 0 ? 0 : static_cast<std::size_t>(n), '?');
  EXPECT_EQ(read(pipe.first.get(), out.data(), out.size()), static_cast<ssize_t>(out.size()));
  return out;
}
// As a debugger gets it.
std::string traced_memory_at(const std::uint8_t* at, std::size_t size) {
  const Fd memory(open("/proc/self/mem", O_RDONLY | O_CLOEXEC));
  std::string out(size, '?');
  const ssize_t n = pread(memory.get(), out.data(), size, reinterpret_cast<off_t>(at));
  out.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return out;
}
// A line of the entry of /proc/self/smaps that holds the address.
std::string mapping_line(const std::uint8_t* at, const std::string& field) {
  const std::string text = read_text_file("/proc/self/smaps", std::size_t{16} << 20).value();
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  bool inside = false;
  for (std::size_t from = 0; from < text.size();) {
    const std::string line = text.substr(from, text.find('\n', from) - from);
    from += line.size() + 1;
    unsigned long low = 0;
    unsigned long high = 0;
    if (sscanf(line.c_str(), "%lx-%lx ", &low, &high) == 2) {
      inside = low <= address && address < high;
    }
    if (inside && line.rfind(field, 0) == 0) return line;
  }
  return "";
}
constexpr SecretAccess kAccess{};

TEST(SecretPool, GivesZeroedSlotsAndCleansesThem) {
  SecretPool pool(1);
  EXPECT_EQ(pool.slots(), 0u);
  std::uint8_t* a = pool.take(SecretPool::kSlot);
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(pool.slots(), 256u);
  EXPECT_EQ(memory_at(a, SecretPool::kSlot), std::string(SecretPool::kSlot, '\0'));
  std::memset(a, 'k', SecretPool::kSlot);
  std::uint8_t* b = pool.take(32);
  EXPECT_NE(a, b);
  std::memset(b, 'q', 32);
  pool.give_back(a);
  EXPECT_EQ(memory_at(a, SecretPool::kSlot), std::string(SecretPool::kSlot, '\0'));
  EXPECT_EQ(memory_at(b, 32), std::string(32, 'q'));
  EXPECT_EQ(pool.take(1), a);
  EXPECT_EQ(pool.take(SecretPool::kSlot + 1), nullptr);
}

TEST(SecretPool, EverySlotIsItsOwnAndTheLimitHolds) {
  SecretPool pool(2);
  std::vector<std::uint8_t*> taken;
  while (std::uint8_t* slot = pool.take(SecretPool::kSlot)) {
    std::memset(slot, static_cast<int>(taken.size() % 251) + 1, SecretPool::kSlot);
    taken.push_back(slot);
    ASSERT_LE(taken.size(), 512u);
  }
  EXPECT_EQ(taken.size(), 512u);
  EXPECT_EQ(pool.slots(), 512u);
  for (std::size_t i = 0; i < taken.size(); ++i) {
    ASSERT_EQ(memory_at(taken[i], SecretPool::kSlot),
              std::string(SecretPool::kSlot, static_cast<char>(i % 251 + 1)))
        << i;
  }
  // Every second one comes back and is given out again, none twice.
  std::set<std::uint8_t*> back;
  for (std::size_t i = 0; i < taken.size(); i += 2) {
    pool.give_back(taken[i]);
    back.insert(taken[i]);
  }
  std::set<std::uint8_t*> again;
  while (std::uint8_t* slot = pool.take(8)) again.insert(slot);
  EXPECT_EQ(again, back);
}

TEST(SecretPool, PagesAreLockedUndumpedAndGuarded) {
  SecretPool pool(1);
  const std::uint8_t* first = pool.take(SecretPool::kSlot);
  const std::string flags = mapping_line(first, "VmFlags:") + " ";
  EXPECT_NE(flags.find(" dd "), std::string::npos) << flags;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they make mlock() do nothing
  EXPECT_NE(flags.find(" lo "), std::string::npos)
      << flags << "the limit on locked memory is below one arena";
#endif
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (const std::uint8_t* guard : {first - page, first + SecretPool::kArena}) {
    EXPECT_EQ(mapping_line(guard, "VmFlags:").find(" rd"), std::string::npos);
  }
  EXPECT_DEATH(
      {
        const volatile std::uint8_t c = first[-1];
        (void)c;
      },
      "");
  EXPECT_DEATH(
      {
        const volatile std::uint8_t c = first[SecretPool::kArena];
        (void)c;
      },
      "");
}

constexpr const char* kShown = "the kernel has no memfd_secret";

// Small and large ones. Ordinary memory is seen, so the test looks in the right place.
TEST(Secret, IsOutOfADebuggersReachWhereTheKernelCanDoThat) {
  const std::string plain(5000, 's');
  const auto* seen = reinterpret_cast<const std::uint8_t*>(plain.data());
  ASSERT_EQ(traced_memory_at(seen, plain.size()), plain);
  if (!kernel_hides_secrets()) GTEST_SKIP() << kShown;
  for (const std::size_t size : std::initializer_list<std::size_t>{32, 5000}) {
    SecretBuffer b(size);
    std::memset(b.writable(kAccess).data(), 's', size);
    const std::uint8_t* at = b.view(kAccess).data();
    EXPECT_EQ(memory_at(at, size), std::string(size, 's'));
    EXPECT_EQ(traced_memory_at(at, size), "");
  }
}
TEST(Secret, IsNotInheritedWhereTheKernelHidesIt) {
  if (!kernel_hides_secrets()) GTEST_SKIP() << kShown << ": a copy of the page is the child's own";
  SecretBuffer b(32);
  const std::uint8_t* at = b.view(kAccess).data();
  const pid_t pid = fork();
  if (pid == 0) _exit(syscall(SYS_write, STDERR_FILENO, at, 32) < 0 && errno == EFAULT ? 0 : 1);
  Process child(pid);
  const auto end = child.wait(20'000).value();
  ASSERT_TRUE(end);
  EXPECT_EQ(end->code, 0);
}

TEST(SecretPool, CorruptBookkeepingAborts) {
  SecretPool pool(1);
  std::uint8_t* slot = pool.take(32);
  alignas(64) std::uint8_t foreign[SecretPool::kSlot] = {};
  EXPECT_EXIT(pool.give_back(foreign), testing::KilledBySignal(SIGABRT), "");
  pool.give_back(slot);
  EXPECT_EXIT(pool.give_back(slot), testing::KilledBySignal(SIGABRT), "");
}

TEST(SecretPool, ThreadsShareIt) {
  SecretPool pool(4);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 3000; ++i) {
        std::uint8_t* slots[8];
        for (auto& s : slots) {
          s = pool.take(SecretPool::kSlot);
          if (s == nullptr ||
              std::any_of(s, s + SecretPool::kSlot, [](std::uint8_t b) { return b != 0; })) {
            ++wrong;
            return;
          }
          std::memset(s, t + 1, SecretPool::kSlot);
        }
        for (auto* s : slots) {
          if (std::any_of(s, s + SecretPool::kSlot, [&](std::uint8_t b) { return b != t + 1; })) {
            ++wrong;
          }
          pool.give_back(s);
        }
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Secret, IsCleansedWhenItEndsWhereverItLay) {
  for (const std::size_t size : std::initializer_list<std::size_t>{1, 32, 64, 65, 5000}) {
    const std::uint8_t* at = nullptr;
    {
      SecretBuffer b(size);
      std::memset(b.writable(kAccess).data(), 's', size);
      at = b.view(kAccess).data();
      ASSERT_EQ(memory_at(at, size), std::string(size, 's'));
    }
    // A slot stays mapped and holds zeros; a mapping of its own is gone.
    const std::string left = memory_at(at, size);
    EXPECT_EQ(left, size <= SecretPool::kSlot ? std::string(size, '\0') : std::string()) << size;
  }
}

// More secrets at once than the pool has slots: the rest get pages of their own, and all is given
// back.
TEST(Secret, WorksBeyondThePool) {
  std::vector<SecretBuffer> many;
  for (std::size_t i = 0; i < 17'000; ++i) {
    many.emplace_back(32);
    std::memcpy(many.back().writable(kAccess).data(), &i, sizeof i);
  }
  EXPECT_EQ(SecretPool::process().slots(), 16'384u);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < many.size(); ++i) {
    wrong += std::memcmp(many[i].view(kAccess).data(), &i, sizeof i) == 0 ? 0 : 1;
  }
  EXPECT_EQ(wrong, 0u);
  const std::uint8_t* last = many.back().view(kAccess).data();
  many.clear();
  EXPECT_EQ(memory_at(last, 32), "");
  SecretBuffer again(32);
  EXPECT_EQ(memory_at(again.view(kAccess).data(), 32), std::string(32, '\0'));
}

// In a child that the kernel kills for any system call but read, write and exit.
TEST(Secret, TakingAndGivingBackCostsNoSystemCall) {
  const auto end_of = [](std::size_t size) {
    const pid_t pid = fork();
    if (pid == 0) {
      { const SecretBuffer warm(32); }
      if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(1);
      for (int i = 0; i < 100; ++i) const SecretBuffer b(size);
      syscall(SYS_exit, 0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
  };
  EXPECT_EQ(end_of(32), 0);
  EXPECT_EQ(end_of(SecretPool::kSlot), 0);
  // the same with mappings of its own: the filter does bite
  const int own_pages = end_of(SecretPool::kSlot + 1);
  EXPECT_TRUE(WIFSIGNALED(own_pages) && WTERMSIG(own_pages) == SIGKILL) << own_pages;
}

TEST(Time, FormatsAndParses) {
  EXPECT_EQ(format_time(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(*parse_time("2026-01-31T12:00:00Z"), 1769860800);
  EXPECT_FALSE(parse_time("2026-02-31T12:00:00Z").ok());
  EXPECT_FALSE(parse_time("2026-01-31").ok());
}

class TempDir {
 public:
  TempDir() {
    char t[] = "/tmp/gbx-base-XXXXXX";
    path = mkdtemp(t);
  }
  ~TempDir() { (void)remove_tree(path); }
  std::string path;
};

// Whoever asks: root could take /dev/null away from everybody.
TEST(Files, NoDeviceIsWrittenOver) {
  TempDir t;
  ASSERT_EQ(mkfifo((t.path + "/pipe").c_str(), 0600), 0);
  const std::string device = t.path + "/device";
  const bool made = mknod(device.c_str(), S_IFCHR | 0600, makedev(1, 5)) == 0;
  for (const std::string& path : {t.path + "/pipe", made ? device : t.path + "/pipe"}) {
    EXPECT_EQ(write_file_atomic(path, as_bytes("a file"), 0600).reason(), Reason::kAlreadyExists);
    struct stat st {};
    ASSERT_EQ(lstat(path.c_str(), &st), 0);
    EXPECT_FALSE(S_ISREG(st.st_mode)) << path;
  }
}

// Whoever is killed while it writes leaves what was there before, and nothing else.
TEST(Files, AKilledWriterLeavesNothingHalfWritten) {
  TempDir t;
  const std::string old = "what was there";
  ASSERT_TRUE(write_file_atomic(t.path + "/a", as_bytes(old), 0600).ok());
  ASSERT_TRUE(write_file_atomic(t.path + "/a", as_bytes(old), 0600).ok()) << "replaced";
  // The file outgrows its limit in the middle, which kills the writer.
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{0, 0};
    const rlimit half{1 << 19, 1 << 19};
    if (setrlimit(RLIMIT_CORE, &none) != 0 || setrlimit(RLIMIT_FSIZE, &half) != 0) _exit(1);
    (void)write_file_atomic(t.path + "/a", Bytes(1 << 20, 1), 0600);
    (void)write_file_atomic(t.path + "/b", Bytes(1 << 20, 1), 0600);
    _exit(2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
  EXPECT_EQ(as_text(*read_file(t.path + "/a", 100)), old);
  std::size_t names = 0;
  for (const auto& entry : std::filesystem::directory_iterator(t.path)) {
    names += entry.path().filename() == "a" ? 1U : 100U;
  }
  EXPECT_EQ(names, 1U);
}

// Whoever comes second is told so, and what is there stays as it is.
TEST(Files, ANewFileReplacesNothing) {
  TempDir t;
  const std::string path = t.path + "/key";
  ASSERT_TRUE(write_new_file(path, as_bytes("first"), 0600).ok());
  EXPECT_EQ(write_new_file(path, as_bytes("second"), 0600).reason(), Reason::kAlreadyExists);
  EXPECT_EQ(as_text(*read_file(path, 10)), "first");
  ASSERT_EQ(symlink("nowhere", (t.path + "/link").c_str()), 0);
  EXPECT_EQ(write_new_file(t.path + "/link", as_bytes("x"), 0600).reason(), Reason::kAlreadyExists);
  // Of several at one time one has it, and its bytes are the file's.
  std::vector<std::thread> writers;
  std::array<bool, 4> made{};
  for (std::size_t n = 0; n < made.size(); ++n) {
    writers.emplace_back([&, n] {
      made[n] = write_new_file(t.path + "/both", Bytes(1, static_cast<std::uint8_t>(n)), 0600).ok();
    });
  }
  for (auto& w : writers) w.join();
  ASSERT_EQ(std::count(made.begin(), made.end(), true), 1);
  EXPECT_TRUE(made.at((*read_file(t.path + "/both", 10)).at(0)));
  std::size_t names = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(t.path)) ++names;
  EXPECT_EQ(names, 3U) << "key, link, both";
}

TEST(Files, AtomicWriteAndBeneath) {
  TempDir t;
  ASSERT_TRUE(write_file_atomic(t.path + "/a", as_bytes("hello"), 0600).ok());
  EXPECT_EQ(as_text(*read_file(t.path + "/a", 10)), "hello");
  EXPECT_EQ(read_file(t.path + "/a", 4).reason(), Reason::kTooLarge);
  EXPECT_EQ(read_file(t.path + "/none", 4).reason(), Reason::kNotFound);
  ASSERT_EQ(symlink("/etc/passwd", (t.path + "/link").c_str()), 0);
  auto d = open_dir(t.path);
  ASSERT_TRUE(d.ok());
  EXPECT_TRUE(open_beneath(d->get(), "a", 0).ok());
  EXPECT_EQ(open_beneath(d->get(), "link", 0).reason(), Reason::kIo);
  EXPECT_EQ(open_beneath(d->get(), "../etc/passwd", 0).reason(), Reason::kIo);
  EXPECT_EQ(open_beneath(d->get(), "/etc/passwd", 0).reason(), Reason::kIo);
}

TEST(Processes, RunsWithExactlyTheGivenEnvironmentAndDescriptors) {
  ProcessOptions o;
  o.argv = {"/bin/sh", "-c",
            "echo out; echo err >&2; env | grep -v ^PWD= | grep -v ^_= | grep -v ^SHLVL=; ls "
            "/proc/self/fd | wc -l; exit 3"};
  // The fourth descriptor is the one with which ls reads the directory.
  o.env = {{"ONLY", "this"}};
  auto r = run_command(o);
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_TRUE(r->status.exited);
  EXPECT_EQ(r->status.code, 3);
  EXPECT_EQ(r->out, "out\nONLY=this\n4\n");
  EXPECT_EQ(r->err, "err\n");
}

TEST(Processes, AnotherUserIdStartsAProgramInAFolderThatItMayNotEnter) {
  if (geteuid() != 0) GTEST_SKIP() << "changes its user id: needs root";
  char closed[] = "/tmp/gbx-closed-XXXXXX";
  ASSERT_NE(mkdtemp(closed), nullptr);  // mode 0700
  ProcessOptions o;
  o.argv = {"/bin/cp", "/bin/cat", closed};
  ASSERT_TRUE(run_command(o).ok());
  o.argv = {std::string(closed) + "/cat", "/proc/self/status"};
  o.uid = 12345;
  const auto r = run_command(o);
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_NE(r->out.find("Uid:\t12345\t12345\t12345"), std::string::npos) << r->out;
  EXPECT_TRUE(remove_tree(closed).ok());
}

TEST(Processes, StartFailureAndTimeoutAreErrors) {
  ProcessOptions o;
  o.argv = {"/no/such/program"};
  EXPECT_EQ(spawn(o).reason(), Reason::kIo);
  o.argv = {"/bin/sleep", "60"};
  EXPECT_EQ(run_command(o, 100, 50).reason(), Reason::kTimedOut);
  auto p = spawn(o);
  ASSERT_TRUE(p.ok());
  EXPECT_FALSE((*p->wait(1)).has_value());
  ASSERT_TRUE(p->signal(SIGTERM).ok());
  auto st = p->wait(-1);
  ASSERT_TRUE(st.ok() && st->has_value());
  EXPECT_FALSE((**st).exited);
  EXPECT_EQ((**st).code, SIGTERM);
}

TEST(Processes, AreListedUnlessProcHidesThem) {
  const auto listed = [](const char* options) {
    return processes_are_listed("sys /sys sysfs rw,hidepid=2 0 0\nproc /proc proc rw,nosuid" +
                                std::string(options) + " 0 0\nx /proc/sys proc rw 0 0\n");
  };
  EXPECT_TRUE(listed(""));
  EXPECT_TRUE(listed(",hidepid=noaccess"));
  EXPECT_TRUE(listed(",hidepid=20"));
  EXPECT_TRUE(listed(",gid=27,hidepid=invisible"));
  EXPECT_FALSE(listed(",hidepid=invisible"));
  EXPECT_FALSE(listed(",hidepid=2"));
  EXPECT_FALSE(listed(",hidepid=ptraceable"));
  EXPECT_TRUE(processes_are_listed("proc /proc proc rw,hidepid=2 0 0\nproc /proc proc rw 0 0"));
  EXPECT_TRUE(processes_are_listed(""));
}

TEST(Printable, WhatIsNotSeenIsWrittenOut) {
  // Soft hyphen, zero-width space and joiner, word joiner, byte order mark, a variation selector, a
  // tag: each hides text, or makes two words that look alike.
  for (const char* hidden : {"\xc2\xad", "\xe2\x80\x8b", "\xe2\x80\x8d", "\xe2\x81\xa0",
                             "\xef\xbb\xbf", "\xef\xb8\x8f", "\xf3\xa0\x81\x81"}) {
    const std::string text = std::string("no") + hidden;
    EXPECT_EQ(printable(text).substr(0, 4), "no\\x") << to_hex(as_bytes(text));
    const std::string json = printable_json(canonical(Json(text)));
    for (const char c : json) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << json;
    EXPECT_EQ(*parse_json(json).value().string(), text);
  }
  for (const char* seen : {"größe", "\xe2\x82\xac", "\xf0\x9f\x99\x82", "a\\b"}) {
    EXPECT_EQ(printable(seen), seen);
    EXPECT_EQ(printable_json(canonical(Json(seen))), canonical(Json(seen)));
  }
  EXPECT_EQ(printable_whole(std::string(5000, 'x')).size(), 5000U);
  EXPECT_EQ(printable_json(pretty(Json(JsonArray{Json("\n")}))),
            pretty(Json(JsonArray{Json("\n")})));
}

TEST(Log, LinesAreJsonAndTextIsHarmless) {
  EXPECT_EQ(printable("a\x1b[31m\r\n"), "a\\x1b[31m\\x0d\\x0a");
  EXPECT_EQ(printable("\xe2\x80\xae"
                      "x"),
            "\\xe2\\x80\\xaex");
  EXPECT_EQ(printable("\xe2\x81\xa6"
                      "x"),
            "\\xe2\\x81\\xa6x");
  EXPECT_EQ(printable("\xe2\x80\xa6 \xe2\x80\x93 \xc3\xa9"), "\xe2\x80\xa6 \xe2\x80\x93 \xc3\xa9");
  EXPECT_EQ(printable("\xff"), "\\xff");
  auto pipe = make_pipe();
  ASSERT_TRUE(pipe.ok());
  ManualClock clock;
  Logger log(pipe->second.get(), "test", clock);
  log.info("started", {{"port", 1}});
  char buf[512];
  const ssize_t n = read(pipe->first.get(), buf, sizeof buf);
  auto j = parse_json(std::string_view(buf, static_cast<std::size_t>(n) - 1));
  ASSERT_TRUE(j.ok());
  EXPECT_EQ(*j->find("event")->string(), "started");
  log.error("stopped", Error(fail(Reason::kIo, "the disk").hint("make room")));
  const ssize_t more = read(pipe->first.get(), buf, sizeof buf);
  j = parse_json(std::string_view(buf, static_cast<std::size_t>(more) - 1));
  ASSERT_TRUE(j.ok());
  EXPECT_EQ(*j->find("fields")->find("next")->string(), "make room");
}

// Whatever a container, a peer or a file says: one line, which moves no terminal, and says it
// whole.
TEST(Log, AnybodysTextIsOneLineAndMovesNoTerminal) {
  const std::string odd[] = {"\x1b[2J\x1b]0;title\x07",  // clears the screen, names the window
                             "a\r\n{\"level\":\"info\"}\n",
                             std::string("\0\b\x7f", 3),
                             "\xc2\x9b"
                             "31m\xc2\x85",  // one byte more: CSI, next line
                             "\xe2\x80\xae"
                             "txt.exe\xe2\x81\xa6\xe2\x80\x8f\xd8\x9c",
                             "\xe2\x80\xa8\xe2\x80\xa9"};
  auto pipe = make_pipe();
  ASSERT_TRUE(pipe.ok());
  ManualClock clock;
  const Logger log(pipe->second.get(), "test", clock);
  for (const std::string& text : odd) {
    log.warn(text, {{"said", Json(text)}, {"list", Json(JsonArray{Json(text)})}});
    log.error("failed", Error(fail(Reason::kIo, text).with(text, text).hint(text)), {{"m", text}});
  }
  pipe->second.reset();
  const Bytes all = read_all(pipe->first.get(), 1U << 16).value();
  const std::string lines(as_text(all));
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 2 * std::ssize(odd));
  for (const char c : lines) EXPECT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f)) << int{c};
  std::istringstream in(lines);
  for (const std::string& text : odd) {
    std::string line;
    std::getline(in, line);
    const auto j = parse_json(line);
    ASSERT_TRUE(j.ok()) << line;
    EXPECT_EQ(*j->find("event")->string(), text);
    EXPECT_EQ(*j->find("said")->string(), text);
    std::getline(in, line);
    EXPECT_TRUE(parse_json(line).ok()) << line;
  }
}

}  // namespace
}  // namespace gbx
