// `glovebox up`: what root does in folders that services own, and what its options mean.
#include "cli/up.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "broker/custody.h"
#include "cli/commands.h"
#include "cli/guest_folder.h"
#include "cli/up_environment.h"
#include "cli/up_state.h"

namespace gbx::cli {
namespace {

constexpr uid_t kService = 2'000'000'001;

struct TempDir {
  std::string path;
  TempDir() {
    char name[] = "/tmp/gbx-up-XXXXXX";
    path = mkdtemp(name);
    EXPECT_EQ(chmod(path.c_str(), 0755), 0);
  }
  ~TempDir() { (void)remove_tree(path); }
};
void put(const std::string& path, const std::string& text, uid_t owner) {
  ASSERT_TRUE(write_file_atomic(path, as_bytes(text), 0600).ok());
  ASSERT_EQ(lchown(path.c_str(), owner, owner), 0);
}

class ServiceFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "gives files to other user ids: needs root";
    auto opened = UpState::open(dir.path + "/state", {});
    ASSERT_TRUE(opened.ok()) << opened.error().line();
    state.emplace(std::move(*opened));
    ASSERT_TRUE(state->folder("broker", kService, 0700).ok());
    put(dir.path + "/secret", "of root", 0);
  }
  std::string file(const std::string& name) const { return state->file("broker/" + name); }
  Result<Bytes> read() const { return state->read_of("broker", "set.json", kService, 100); }

  TempDir dir;
  std::optional<UpState> state;
};

TEST_F(ServiceFolder, ReadsWhatTheServiceWrote) {
  put(file("set.json"), "{}", kService);
  const auto r = read();
  ASSERT_TRUE(r.ok()) << r.error().line();
  EXPECT_EQ(as_text(*r), "{}");
  EXPECT_TRUE(*state->has("broker", "set.json"));
  EXPECT_FALSE(*state->has("broker", "other"));
  EXPECT_FALSE(*state->has("none", "other"));
  put(file("set.json"), std::string(101, 'x'), kService);
  EXPECT_EQ(read().reason(), Reason::kTooLarge);
}

TEST_F(ServiceFolder, FollowsNoLink) {
  ASSERT_EQ(symlink((dir.path + "/secret").c_str(), file("set.json").c_str()), 0);
  EXPECT_EQ(read().reason(), Reason::kIo);
  ASSERT_EQ(unlink(file("set.json").c_str()), 0);
  // A link that looks like the service's own, into its own folder, is none either.
  put(file("real"), "{}", kService);
  ASSERT_EQ(symlink("real", file("set.json").c_str()), 0);
  ASSERT_EQ(lchown(file("set.json").c_str(), kService, kService), 0);
  EXPECT_EQ(read().reason(), Reason::kIo);
  EXPECT_EQ(state->read_of("broker", "../secret", kService, 100).reason(), Reason::kIo);
}

TEST_F(ServiceFolder, ReadsNothingThatIsSomebodyElses) {
  put(file("set.json"), "of root", 0);
  EXPECT_EQ(read().reason(), Reason::kBadStructure);
  ASSERT_EQ(unlink(file("set.json").c_str()), 0);
  // A second name of root's file; and of one of the service's own, which it could change while we
  // read.
  ASSERT_EQ(link((dir.path + "/secret").c_str(), file("set.json").c_str()), 0);
  EXPECT_EQ(read().reason(), Reason::kBadStructure);
  ASSERT_EQ(unlink(file("set.json").c_str()), 0);
  put(file("set.json"), "{}", kService);
  ASSERT_EQ(link(file("set.json").c_str(), file("again").c_str()), 0);
  EXPECT_EQ(read().reason(), Reason::kBadStructure);
}

TEST_F(ServiceFolder, ReadsRegularFilesOnlyAndNeverWaits) {
  ASSERT_EQ(mkfifo(file("set.json").c_str(), 0600), 0);
  ASSERT_EQ(chown(file("set.json").c_str(), kService, kService), 0);
  EXPECT_EQ(read().reason(), Reason::kBadStructure);
  ASSERT_EQ(unlink(file("set.json").c_str()), 0);
  ASSERT_EQ(mkdir(file("set.json").c_str(), 0700), 0);
  ASSERT_EQ(chown(file("set.json").c_str(), kService, kService), 0);
  EXPECT_EQ(read().reason(), Reason::kBadStructure);
}

TEST_F(ServiceFolder, FoldersAreNeverLinksAndNeverTakenFromOthers) {
  const std::string elsewhere = dir.path + "/elsewhere";
  ASSERT_EQ(mkdir(elsewhere.c_str(), 0755), 0);
  ASSERT_EQ(symlink(elsewhere.c_str(), state->file("plane").c_str()), 0);
  EXPECT_EQ(state->folder("plane", kService + 1, 0700).reason(), Reason::kConflict);
  struct stat st {};
  ASSERT_EQ(stat(elsewhere.c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 0U);
  EXPECT_EQ(st.st_mode & 0777, 0755U);
  EXPECT_EQ(state->folder("broker", kService + 1, 0700).reason(), Reason::kConflict);
  EXPECT_TRUE(state->folder("broker", kService, 0700).ok());
  EXPECT_EQ(*state->owner_of("broker"), std::optional<uid_t>(kService));
  EXPECT_EQ(*state->owner_of("nothing"), std::nullopt);
  put(state->file("file"), "x", 0);
  EXPECT_EQ(state->folder("file", 0, 0700).reason(), Reason::kConflict);
}

TEST_F(ServiceFolder, OneAtATime) {
  const auto second = UpState::open(dir.path + "/state", {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.reason(), Reason::kConflict);
  EXPECT_NE(second.error().what.find("already running"), std::string::npos);
  EXPECT_EQ(second.error().actual, "process " + std::to_string(getpid()));
  state.reset();
  EXPECT_TRUE(UpState::open(dir.path + "/state", {}).ok());
}

TEST_F(ServiceFolder, TheStateIsRootsAlone) {
  const std::string path = dir.path + "/other";
  ASSERT_EQ(mkdir(path.c_str(), 0755), 0);
  ASSERT_EQ(chown(path.c_str(), 1000, 1000), 0);
  EXPECT_EQ(UpState::open(path, {}).reason(), Reason::kConflict);
  ASSERT_EQ(chown(path.c_str(), 0, 0), 0);
  ASSERT_EQ(chmod(path.c_str(), 01777), 0);
  const auto open = UpState::open(path, {});
  EXPECT_EQ(open.reason(), Reason::kConflict);
  EXPECT_EQ(open.error().actual, "mode 1777");
  ASSERT_EQ(symlink(path.c_str(), (dir.path + "/link").c_str()), 0);
  EXPECT_EQ(UpState::open(dir.path + "/link", {}).reason(), Reason::kConflict);
}

TEST_F(ServiceFolder, NobodyElseCanPutAnotherFolderInItsPlace) {
  const std::string above = dir.path + "/above";
  ASSERT_EQ(mkdir(above.c_str(), 0755), 0);
  ASSERT_EQ(chown(above.c_str(), 1000, 1000), 0);
  const auto theirs = UpState::open(above + "/state", {});
  ASSERT_EQ(theirs.reason(), Reason::kConflict);
  EXPECT_EQ(theirs.error().actual, "owner 1000");
  EXPECT_FALSE(path_exists(above + "/state"));
  EXPECT_TRUE(UpState::open(above + "/state", {1000, 1000}).ok());  // who called sudo
  for (const mode_t mode : {0757U, 0775U}) {
    ASSERT_EQ(chmod(above.c_str(), mode), 0);
    const auto open = UpState::open(above + "/state", {1000, 1001});
    EXPECT_EQ(open.reason(), Reason::kConflict) << mode;
  }
  EXPECT_TRUE(UpState::open(above + "/state", {1000, 1000}).ok());  // their own group
  ASSERT_EQ(chown(above.c_str(), 0, 0), 0);
  ASSERT_EQ(chmod(above.c_str(), 01777), 0);
  EXPECT_TRUE(UpState::open(above + "/state", {}).ok());
}

TEST_F(ServiceFolder, LinksOnTheWayAreResolvedOrRefused) {
  const std::string real = dir.path + "/real";
  ASSERT_EQ(mkdir(real.c_str(), 0755), 0);
  const std::string link = dir.path + "/way";
  ASSERT_EQ(symlink(real.c_str(), link.c_str()), 0);
  EXPECT_EQ(UpState::open(link + "//", {}).reason(), Reason::kConflict);
  {
    const auto open = UpState::open(link + "/state/", {});
    ASSERT_TRUE(open.ok()) << open.error().line();
    EXPECT_EQ(open->path(), real + "/state");
  }
  ASSERT_EQ(lchown(link.c_str(), 1000, 1000), 0);
  EXPECT_EQ(UpState::open(link + "/state", {}).reason(), Reason::kConflict);
}

TEST_F(ServiceFolder, AHomeThatServicesCannotEnterIsNamedBeforeTheyStart) {
  const std::string home = dir.path + "/home";
  ASSERT_EQ(mkdir(home.c_str(), 0750), 0);
  const auto open = UpState::open(home + "/glovebox/state", {});
  EXPECT_EQ(open.reason(), Reason::kConflict);
  EXPECT_NE(open.error().what.find("cannot enter " + home), std::string::npos) << open.error().what;
  EXPECT_EQ(open.error().actual, "mode 0750");
  ASSERT_EQ(chmod(home.c_str(), 0711), 0);
  EXPECT_TRUE(UpState::open(home + "/glovebox/state", {}).ok());
}

TEST_F(ServiceFolder, FilesOfRootMayBeGivenToAPerson) {
  ASSERT_TRUE(state->write("invite", "token\n", 0600, 1000).ok());
  struct stat st {};
  ASSERT_EQ(lstat(state->file("invite").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 1000U);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
  EXPECT_TRUE(state->remove("invite").ok());
  EXPECT_TRUE(state->remove("invite").ok());
  EXPECT_FALSE(path_exists(state->file("invite")));
}

TEST(PublishableSet, IsTheBrokersOwnAndNothingElse) {
  SystemRandom random;
  const auto keys = broker::make_set_keys(random);
  ASSERT_TRUE(keys.ok());
  const std::string id = to_hex(keys->chain.charter.set_id());
  const std::string text = canonical(to_json(keys->chain));
  const auto set = publishable_set(as_bytes(" " + pretty(to_json(keys->chain)) + "\n"), id);
  ASSERT_TRUE(set.ok()) << set.error().line();
  EXPECT_EQ(*set, text);
  EXPECT_EQ(publishable_set(as_bytes(text), std::string(64, '0')).reason(), Reason::kWrongSet);
  EXPECT_FALSE(publishable_set(as_bytes("root:$6$secret:19000:0:99999:7:::"), id).ok());
  Json more = to_json(keys->chain);
  more["more"] = "x";
  EXPECT_EQ(publishable_set(as_bytes(canonical(more)), id).reason(), Reason::kUnknownField);
}

TEST(Reachable, ByTheFirstNameElseByWhereItListens) {
  const auto at = [](const char* bound, const std::vector<std::string>& names = {}) {
    return *reachable(bound, names);
  };
  EXPECT_EQ(at("127.0.0.1:7443"), "127.0.0.1:7443");
  EXPECT_EQ(at("0.0.0.0:7443"), "127.0.0.1:7443");
  EXPECT_EQ(at("[::]:7443"), "localhost:7443");
  EXPECT_EQ(at("[::1]:7443"), "[::1]:7443");
  EXPECT_EQ(at("0.0.0.0:7443", {"glovebox.example", "10.0.0.5"}), "glovebox.example:7443");
  EXPECT_EQ(at("0.0.0.0:7443", {"fe80::1"}), "[fe80::1]:7443");
}

// What a machine's guest and QEMU look like to whoever only looks whether they are there.
class Environment : public ::testing::Test {
 protected:
  void SetUp() override {
    o.programs = dir.path + "/bin";
    ASSERT_TRUE(make_dirs(o.programs, 0700).ok());
    o.qemu = dir.path + "/qemu";
    ASSERT_TRUE(write_file_atomic(o.qemu, as_bytes("x"), 0700).ok());
  }
  void put_guest(const std::string& folder) const {
    ASSERT_TRUE(make_dirs(folder, 0700).ok());
    for (const char* part : {"firmware.fd", "kernel", "initrd", "cmdline", "lock"}) {
      ASSERT_TRUE(write_file_atomic(folder + "/" + part, as_bytes("x"), 0600).ok());
    }
  }
  TempDir dir;
  UpOptions o;
};

TEST_F(Environment, IsMachinesWhereTheyCanBeAndElseThisHostWithTheReason) {
  o.guest = dir.path + "/guest";
  put_guest(o.guest);
  auto e = choose_environment(o, std::nullopt);
  ASSERT_TRUE(e.ok()) << e.error().line();
  EXPECT_TRUE(e->machines);
  EXPECT_EQ(e->guest, o.guest);
  EXPECT_EQ(e->because, "");
  ASSERT_EQ(unlink(o.qemu.c_str()), 0);
  EXPECT_EQ(choose_environment(o, std::nullopt).reason(), Reason::kNotFound) << "a guest was named";
  o.guest.clear();
  e = choose_environment(o, std::nullopt);
  ASSERT_TRUE(e.ok()) << e.error().line();
  EXPECT_FALSE(e->machines);
  EXPECT_EQ(e->because, o.qemu + " is not there (scripts/setup run installs QEMU)");
  ASSERT_TRUE(write_file_atomic(o.qemu, as_bytes("x"), 0700).ok());
  EXPECT_EQ(choose_environment(o, std::nullopt)->because,
            o.programs + "/../../guest/firmware.fd is not there (guest/build makes a guest)");
}

TEST_F(Environment, IsWhatWasAskedForOrRefused) {
  o.environment = UpOptions::Where::kMachines;
  const auto none = choose_environment(o, std::nullopt);
  ASSERT_EQ(none.reason(), Reason::kNotFound);
  EXPECT_NE(none.error().expected.find("/guest/firmware.fd"), std::string::npos);
  EXPECT_NE(none.error().next.find("guest/build"), std::string::npos);
  EXPECT_NE(none.error().next.find("--environment local"), std::string::npos);
  o.guest = dir.path + "/guest";
  put_guest(o.guest);
  ASSERT_TRUE(choose_environment(o, std::nullopt)->machines);
  ASSERT_EQ(unlink((o.guest + "/initrd").c_str()), 0);
  EXPECT_EQ(choose_environment(o, std::nullopt).error().expected, o.guest + "/initrd");
  o.environment = UpOptions::Where::kLocal;
  const auto local = choose_environment(o, true);
  ASSERT_TRUE(local.ok());
  EXPECT_FALSE(local->machines);
  EXPECT_EQ(local->because, "");
}

TEST_F(Environment, OfAnInstallationStaysAndNeverFallsBackInSilence) {
  EXPECT_EQ(choose_environment(o, true).reason(), Reason::kNotFound);
  put_guest(dir.path + "/share/glovebox/guest");
  EXPECT_TRUE(choose_environment(o, true)->machines);
  EXPECT_FALSE(choose_environment(o, false)->machines);
  const std::string file = dir.path + "/installation.json";
  const auto of = [&](const std::string& text) {
    EXPECT_TRUE(write_file_atomic(file, as_bytes(text), 0600).ok());
    return installed_with_machines(file);
  };
  EXPECT_EQ(*installed_with_machines(file), std::nullopt);
  EXPECT_EQ(*of(R"({"release":"glovebox-guest-1"})"), std::optional<bool>(true));
  EXPECT_EQ(*of(R"({"release":""})"), std::optional<bool>(false));
  EXPECT_EQ(*of(R"({"plane":"127.0.0.1:1"})"), std::optional<bool>(false));
  EXPECT_FALSE(of("{").ok());
}

// What a start writes down is what the next one reads, whatever the start itself ran jobs in.
TEST_F(Environment, OfOneStartIsNotThatOfTheNext) {
  put_guest(dir.path + "/share/glovebox/guest");
  const std::string file = dir.path + "/installation.json";
  const auto start = [&](UpOptions::Where where) {
    o.environment = where;
    const auto installed = installed_with_machines(file);
    const auto now = choose_environment(o, *installed);
    Installation i;
    if (now->machines) i.release = "glovebox-guest-1";
    i.usual_environment = usual_environment(*installed, *now);
    EXPECT_TRUE(write_file_atomic(file, as_bytes(canonical(to_json(i))), 0600).ok());
    return now->machines;
  };
  using Where = UpOptions::Where;
  EXPECT_TRUE(start(Where::kUnsaid));
  EXPECT_FALSE(start(Where::kLocal));
  EXPECT_TRUE(start(Where::kUnsaid)) << "it was made with machines";
  ASSERT_EQ(unlink(file.c_str()), 0);
  EXPECT_FALSE(start(Where::kLocal));
  EXPECT_TRUE(start(Where::kMachines));
  EXPECT_FALSE(start(Where::kUnsaid)) << "it was made on this host";
}

TEST_F(Environment, FindsTheGuestBesideInstalledProgramsAndInTheTreeThatBuiltThem) {
  EXPECT_EQ(usual_guest("/a/build/dev/bin"), "/a/build/dev/bin/../../guest");
  put_guest(dir.path + "/share/glovebox/guest");
  EXPECT_EQ(usual_guest(o.programs), o.programs + "/../share/glovebox/guest");
}

TEST(ReleaseSigners, AreThoseOfTheCharter) {
  SystemRandom random;
  const auto keys = broker::make_set_keys(random);
  ASSERT_TRUE(keys.ok());
  auto chain = keys->chain;
  EXPECT_TRUE(release_signers(as_bytes(canonical(to_json(chain))))->empty());
  chain.charter.release_signers = {"ed25519:x"};
  EXPECT_EQ(*release_signers(as_bytes(canonical(to_json(chain)))), chain.charter.release_signers);
  EXPECT_FALSE(release_signers(as_bytes("{}")).ok());
}

TEST(UpOptions, AreCheckedBeforeAnythingIsTouched) {
  const CommandTree tree = make_tree();
  const auto options = [&](std::vector<std::string> words) -> Result<UpOptions> {
    words.insert(words.begin(), "up");
    GBX_ASSIGN(const Parsed p, parse_command_line(tree, words));
    return up_options(p.invocation);
  };
  const std::vector<std::string> wrong[] = {
      {"--listen", "nope"},    {"--listen", "127.0.0.1:65536"},
      {"--name", "a b"},       {"--name", "0.0.0.0"},
      {"--slots", "0"},        {"--slots", "x"},
      {"--uid-base", "65535"}, {"--uid-base", "2147483647"},
      {"--state", ""},         {"--slots", "64", "--uid-base", "2147483000"}};
  for (const auto& words : wrong) {
    const auto o = options(words);
    ASSERT_FALSE(o.ok()) << words[0] << " " << words[1];
    EXPECT_EQ(exit_class(o.reason()), ExitClass::kUsage) << words[0] << " " << words[1];
  }
  const auto o = options({"--listen", "0.0.0.0:0", "--name", "a.example", "--name", "::1",
                          "--state", "x", "--passphrase-file", "/p"});
  ASSERT_TRUE(o.ok()) << o.error().line();
  EXPECT_EQ(o->names, (std::vector<std::string>{"a.example", "::1"}));
  EXPECT_EQ(o->state_dir[0], '/');
  EXPECT_EQ(o->passphrase_file, "/p");
  EXPECT_FALSE(o->uid_base.has_value());
  EXPECT_EQ(o->environment, UpOptions::Where::kUnsaid);
  EXPECT_EQ(options({"--environment", "vm"})->environment, UpOptions::Where::kMachines);
  EXPECT_EQ(options({"--environment", "local"})->environment, UpOptions::Where::kLocal);
}

}  // namespace
}  // namespace gbx::cli
