// The program as a shell sees it: exit statuses, what stands on standard output and standard error,
// and that nothing that was printed is lost in silence.
#include <gtest/gtest.h>
#include <signal.h>

#include "base/os.h"
#include "base/version.h"
#include "cli/catalogue.h"
#include "cli/home.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/watch.h"
#include "cli/yaml.h"
#include "policy/testing.h"

namespace gbx::cli {
namespace {

using Words = std::vector<std::string>;

struct TempDir {
  std::string path;
  TempDir() {
    char name[] = "/tmp/gbx-program-XXXXXX";
    path = mkdtemp(name);
  }
  ~TempDir() { (void)remove_tree(path); }
  std::string put(const std::string& name, const std::string& text) const {
    EXPECT_TRUE(write_file_atomic(path + "/" + name, as_bytes(text), 0600).ok());
    return path + "/" + name;
  }
};
std::string glovebox() {
  const char* bin = std::getenv("GBX_BIN_DIR");
  return std::string(bin == nullptr ? "." : bin) + "/glovebox";
}
RunOutput shell(const std::string& line) {
  ProcessOptions p;
  p.argv = {"/bin/sh", "-c", line};
  p.env = {{"PATH", "/usr/sbin:/usr/bin:/sbin:/bin"}, {"HOME", "/nonexistent"}};
  auto r = run_command(p);
  EXPECT_TRUE(r.ok()) << line;
  return r.ok() ? *r : RunOutput{};
}
struct Ended {
  int code = 0;
  Json error;
};
// In JSON format standard error holds exactly the error object.
Ended run(const TempDir& dir, const Words& words) {
  ProcessOptions p;
  p.argv = {glovebox(), "--home", dir.path + "/home", "-o", "json"};
  p.argv.insert(p.argv.end(), words.begin(), words.end());
  const auto r = run_command(p);
  EXPECT_TRUE(r.ok());
  if (!r.ok()) return {};
  Ended e;
  e.code = r->status.exited ? r->status.code : -r->status.code;
  if (e.code == 0) {
    EXPECT_EQ(r->err, "");
    return e;
  }
  const auto j = parse_json(r->err);
  EXPECT_TRUE(j.ok()) << r->err;
  if (j.ok() && j->find("error") != nullptr) e.error = *j->find("error");
  return e;
}
std::string text(const Json& j, const char* name) {
  const Json* v = j.find(name);
  return v == nullptr || v->string() == nullptr ? "" : *v->string();
}

TEST(Program, AFullStandardOutputIsAnError) {
  for (const char* words : {"--help", "--version", "job --help", "completion bash", "job schema",
                            "-o json job schema"}) {
    const RunOutput r = shell(glovebox() + " " + words + " >/dev/full");
    EXPECT_EQ(r.status.code, 6) << words;
    EXPECT_NE(r.err.find("standard output"), std::string::npos) << r.err;
    EXPECT_EQ(shell(glovebox() + " " + words + " >/dev/null").status.code, 0) << words;
    EXPECT_EQ(shell(glovebox() + " " + words + " >&-").status.code, 6) << words;
  }
}

TEST(Program, WrongWordsAndFilesAreUsage) {
  const TempDir dir;
  const std::string garbage = dir.put("garbage",
                                      "\x7f"
                                      "ELF");
  const std::string folder = dir.path;
  const std::string none = dir.path + "/none";
  const Words cases[] = {
      {"job", "validate", none},
      {"job", "validate", folder},
      {"job", "validate", garbage},
      {"job", "validate", garbage + "/below"},
      {"job", "submit", "f", "--timeout", "5"},
      {"job", "submit", "f", "--idempotency-key", ""},
      {"job", "submit", "f", "--idempotency-key", "a b"},
      {"policy", "explain", garbage},
      {"policy", "new", "--image-digest", "sha256:12"},
      {"policy", "new", "--image-signer", "me"},
      {"policy", "new", "--command", "python3 study.py"},
      {"policy", "new", "--not-after", "2020-01-01"},
      {"policy", "new", "--days", "many"},
      {"image", "inspect", none},
      {"image", "inspect", folder},
      {"image", "inspect", garbage},
      {"receipt", "verify", none, "--set", std::string(64, '0')},
      {"receipt", "verify", garbage, "--set", "12"},
      {"job", "submit", garbage, "--wait", "--timeout", "0"},
      {"policy", "new", "--command", "[\"x\""},
      {"init", "--plane", "x:1", "--ca", garbage, "--set", std::string(64, '0')},
      {"init", "--plane", "x:1", "--ca", none, "--set", std::string(64, '0')},
      {"init", "--plane", "nope", "--ca", none, "--set", std::string(64, '0')},
      {"identity", "create", "--name", "n", "--offline", "--invite-file", none},
      {"identity", "create", "--name", "n", "--offline", "--passphrase-file", none},
      {"up", "--listen", "nope"},
      {"job", "list"},
      {"asset", "publish", folder, "--name", "n", "--policy", none}};
  for (const auto& words : cases) {
    const Ended e = run(dir, words);
    const std::string line = words[0] + " " + words[1] + " " + (words.size() > 2 ? words[2] : "") +
                             ": " + canonical(e.error);
    EXPECT_EQ(e.code, 2) << line;
    for (const char* member : {"reason", "what", "next"}) {
      EXPECT_NE(text(e.error, member), "") << line;
    }
  }
}

// A person who repairs what doctor names must have repaired what `glovebox up` will use.
TEST(Program, DoctorLooksForTheGuestWhereUpDoes) {
  const TempDir dir;
  ASSERT_TRUE(make_dirs(dir.path + "/bin", 0700).ok());
  ASSERT_TRUE(make_dirs(dir.path + "/share/glovebox/guest", 0700).ok());
  ASSERT_EQ(shell("cp " + glovebox() + " " + dir.path + "/bin").status.code, 0);
  const auto found = [&] {
    const auto out = shell(dir.path + "/bin/glovebox --home " + dir.path + "/home -o json doctor");
    const auto j = parse_json(out.out);
    EXPECT_TRUE(j.ok()) << out.out << out.err;
    if (!j.ok()) return std::string();
    for (const Json& row : *j->find("checks")->array()) {
      if (text(row, "check") == "guest") return text(row, "result") + " " + text(row, "detail");
    }
    return std::string();
  };
  EXPECT_EQ(found(), "missing no " + dir.path + "/bin/../../guest/firmware.fd");
  for (const char* part : {"firmware.fd", "kernel", "initrd", "cmdline", "lock"}) {
    dir.put(std::string("share/glovebox/guest/") + part, "x");
  }
  EXPECT_EQ(found(), "ok a guest in " + dir.path + "/bin/../share/glovebox/guest");
  dir.put("share/glovebox/guest/name", "glovebox-guest-1\n");
  EXPECT_EQ(found(), "ok glovebox-guest-1 in " + dir.path + "/bin/../share/glovebox/guest");
}

// What is wrong with a command's options is said before the command does anything: here, before it
// reads the spec.
TEST(Program, OptionsAreCheckedBeforeAnyEffect) {
  const TempDir dir;
  const Ended e = run(dir, {"job", "submit", dir.path + "/none", "--wait", "--timeout", "0"});
  EXPECT_EQ(e.code, 2);
  EXPECT_EQ(text(e.error, "what"), "--timeout");
  EXPECT_NE(text(e.error, "next").find("job submit --help"), std::string::npos)
      << canonical(e.error);
  EXPECT_NE(
      text(run(dir, {"policy", "new", "--command", "[\"x\""}).error, "what").find("--command"),
      std::string::npos);
}

TEST(Program, AMissingFileIsNotLookedForAtThePlane) {
  const TempDir dir;
  const std::string none = dir.path + "/none";
  const Words cases[] = {
      {"job", "validate", none},
      {"image", "inspect", none},
      {"receipt", "verify", none, "--set", std::string(64, '0')},
      {"init", "--plane", "x:1", "--ca", none, "--set", std::string(64, '0')},
      {"identity", "create", "--name", "n", "--offline", "--invite-file", none},
      {"identity", "create", "--name", "n", "--offline", "--passphrase-file", none}};
  for (const auto& words : cases) {
    const Ended e = run(dir, words);
    EXPECT_EQ(text(e.error, "reason"), "not-found") << words[1];
    EXPECT_NE(text(e.error, "next").find("check the path"), std::string::npos)
        << canonical(e.error);
  }
}

TEST(Program, PassphrasesAreAsLongAsTheBrokersAndATypoMakesNoNewKey) {
  const TempDir dir;
  const Words create = {"identity", "create", "--name", "n", "--offline", "--passphrase-file"};
  const auto with = [&](Words words, const std::string& file) {
    words.push_back(file);
    return run(dir, words);
  };
  const Ended small = with(create, dir.put("short", "12345\n"));
  EXPECT_EQ(small.code, 2);
  EXPECT_EQ(text(small.error, "expected"), "at least 8 bytes");
  EXPECT_EQ(text(small.error, "actual"), "5 bytes");
  ASSERT_EQ(with(create, dir.put("long", "12345678\n")).code, 0);
  const Home home(dir.path + "/home");
  Context c;
  c.host = "127.0.0.1";
  c.port = 1;
  c.ca = Bytes(64);
  ASSERT_TRUE(home.save(c).ok());
  const Ended typo = with({"job", "list", "--passphrase-file"}, dir.path + "/lnog");
  EXPECT_EQ(text(typo.error, "reason"), "not-found");
  EXPECT_EQ(text(typo.error, "next").find("rotate"), std::string::npos) << canonical(typo.error);
  ASSERT_TRUE(remove_tree(home.signing_key()).ok());
  EXPECT_NE(text(with({"job", "list", "--passphrase-file"}, dir.path + "/long").error, "next")
                .find("rotate --recovery"),
            std::string::npos);
}

// A home as a rotation leaves it: the key in use lies where the next rotation puts its own.
struct JustRotated {
  TempDir dir;
  Home home{dir.path + "/home"};
  Bytes in_use;
  JustRotated() {
    using gbx::testing::must;
    constexpr SecretAccess kAccess{};
    EXPECT_EQ(run(dir, {"identity", "create", "--name", "n", "--offline"}).code, 0);
    Context c;
    c.host = "127.0.0.1";
    c.port = 1;
    c.ca = Bytes(64);
    must(home.save(c));
    const auto nobody = [](const std::string&) -> Result<Passphrase> {
      return fail(Reason::kUsage, "asked");
    };
    const auto first = must(crypto::SigningKey::from_private(
        crypto::SignatureAlgorithm::kEd25519,
        Secret<SigningKeyTag>::adopt(
            must(read_key_file(home.signing_key(), KeyKind::kSigning, nobody)))));
    SystemRandom random;
    const auto second =
        must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
    IdentityFile me = must(home.identity());
    const records::Rotation rotation{me.chain.id(), 1, second.public_key().text()};
    me.chain.rotations.push_back(must(records::sign(c.set_id, rotation, first)));
    must(home.save(me));
    must(write_key_file(home.next_signing_key(), KeyKind::kSigning,
                        second.private_bytes(kAccess).view(kAccess), kAccess, nullptr, random));
    in_use = at(home.next_signing_key());
  }
  static Bytes at(const std::string& path) { return gbx::testing::must(read_file(path, 4096)); }
};

TEST(Program, ARotationRightAfterAnotherKeepsTheKeyInUse) {
  const JustRotated t;
  const Ended recovery = run(t.dir, {"identity", "rotate", "--recovery"});
  EXPECT_NE(recovery.code, 0) << "there is no plane to ask for what it goes on from";
  EXPECT_FALSE(path_exists(t.home.file("rotation.json"))) << canonical(recovery.error);
  EXPECT_EQ(t.at(t.home.signing_key()), t.in_use);
  const Ended e = run(t.dir, {"identity", "rotate"});
  EXPECT_NE(e.code, 0) << "there is no plane to send it to";
  ASSERT_TRUE(path_exists(t.home.file("rotation.json"))) << canonical(e.error);
  EXPECT_EQ(t.at(t.home.signing_key()), t.in_use);
  EXPECT_NE(t.at(t.home.next_signing_key()), t.in_use);
}

TEST(Program, AKeyThatCannotBeReadIsNotWrittenOver) {
  const JustRotated t;
  Bytes damaged = t.in_use;
  damaged.back() ^= 1;
  ASSERT_TRUE(write_file_atomic(t.home.next_signing_key(), damaged, 0600).ok());
  const Ended e = run(t.dir, {"identity", "rotate", "--recovery"});
  EXPECT_EQ(text(e.error, "reason"), "bad-hash") << canonical(e.error);
  EXPECT_NE(text(e.error, "next").find("move " + t.home.next_signing_key()), std::string::npos)
      << canonical(e.error);
  EXPECT_EQ(t.at(t.home.next_signing_key()), damaged);
}

// A receipt that does not hold has one exit status, whatever was done to it.
TEST(Program, AReceiptThatDoesNotHoldIsIntegrity) {
  const TempDir dir;
  const char* root = std::getenv("GBX_SOURCE_DIR");
  ASSERT_NE(root, nullptr);
  JsonLimits limits;
  limits.max_bytes = 64U << 20;
  const auto vectors = parse_json(
      read_text_file(std::string(root) + "/tests/records/vectors.json", 64U << 20).value(), limits);
  ASSERT_TRUE(vectors.ok()) << vectors.error().line();
  const Json receipt = *vectors->find("receipt");
  const std::string set = *vectors->find("receiptSetId")->string();
  const auto verify = [&](const Json& r, const std::string& pinned) {
    return run(dir, {"receipt", "verify", dir.put("r.json", canonical(r)), "--set", pinned});
  };
  Json without = receipt;
  without.object()->erase("plan");
  Json more = receipt;
  more["more"] = 1;
  for (const Json& r : {without, more, Json("no receipt")}) {
    const Ended e = verify(r, set);
    EXPECT_EQ(e.code, 7) << canonical(e.error);
    EXPECT_EQ(text(e.error, "reason"), "bad-structure");
    EXPECT_NE(text(e.error, "next").find("do not rely"), std::string::npos);
  }
  const Ended other = verify(receipt, std::string(64, '0'));
  EXPECT_EQ(other.code, 7);
  EXPECT_EQ(text(other.error, "reason"), "wrong-set");
  EXPECT_EQ(text(other.error, "expected"), std::string(64, '0'));
  EXPECT_EQ(text(other.error, "actual"), set);
  EXPECT_EQ(text(other.error, "what").find("(expected"), std::string::npos)
      << canonical(other.error);
}

TEST(Errors, OneLineBecomesMembersAgain) {
  const Error e = unfolded(fail(Reason::kSandboxSetup,
                                "sandbox-setup: sandbox-setup: mount (expected a (b), actual c)"));
  EXPECT_EQ(e.what, "mount");
  EXPECT_EQ(e.expected, "a (b)");
  EXPECT_EQ(e.actual, "c");
  const Error full = unfolded(fail(Reason::kIo, "x (expected a, actual b)").with("1", "2"));
  EXPECT_EQ(full.what, "x (expected a, actual b)");
  EXPECT_EQ(full.expected, "1");
  for (const char* plain : {"", "(expected ", "x (expected a)", "x (expected a, actual b) y"}) {
    EXPECT_EQ(unfolded(fail(Reason::kIo, plain)).what, plain);
    EXPECT_EQ(unfolded(fail(Reason::kIo, plain)).expected, "");
  }
  EXPECT_EQ(without_code("lost", "lost: lost: x"), "x");
  EXPECT_EQ(without_code("lost", "io: x"), "io: x");
}

TEST(Program, NobodyAnswersIsInfrastructure) {
  const TempDir dir;
  // A certificate, any: nothing listens there.
  const RunOutput made = shell(
      "openssl req -x509 -newkey ed25519 -nodes -keyout /dev/null -subj /CN=x -days 1 2>/dev/null");
  ASSERT_EQ(made.status.code, 0);
  const std::string ca = dir.put("ca.pem", made.out);
  const Ended e =
      run(dir, {"init", "--plane", "127.0.0.1:1", "--ca", ca, "--set", std::string(64, '0')});
  EXPECT_EQ(e.code, 6);
  EXPECT_EQ(text(e.error, "reason"), "unavailable");
}

TEST(Program, WithoutAnIdentityItSaysSo) {
  const TempDir dir;
  Ended e = run(dir, {"asset", "list"});
  EXPECT_EQ(text(e.error, "reason"), "not-found");
  EXPECT_NE(text(e.error, "next").find("init --plane"), std::string::npos);
  const Home home(dir.path + "/home");
  Context c;
  c.host = "127.0.0.1";
  c.port = 1;
  c.ca = Bytes(64);
  ASSERT_TRUE(home.save(c).ok());
  for (const Words& words : {Words{"asset", "list"}, Words{"job", "list"}, Words{"node", "list"},
                             Words{"lease", "list"}}) {
    e = run(dir, words);
    EXPECT_EQ(e.code, 2);
    EXPECT_EQ(text(e.error, "what"), "you have no identity here");
    EXPECT_NE(text(e.error, "next").find("identity create"), std::string::npos);
  }
}

TEST(Program, WhatItPrintsAsNextCanBePasted) {
  const TempDir dir;
  const Ended e = run(dir, {"job", "list"});
  const std::string next = text(e.error, "next");
  EXPECT_EQ(next.substr(0, next.find(" init")), glovebox() + " --home " + dir.path + "/home")
      << next;
  const RunOutput plain = shell("cd /; PATH=" + glovebox().substr(0, glovebox().rfind('/')) +
                                ":$PATH; glovebox job list");
  EXPECT_NE(plain.err.find("next:        glovebox init"), std::string::npos) << plain.err;
}

TEST(Program, SaysItsVersion) {
  EXPECT_EQ(shell(glovebox() + " --version").out, "glovebox " + version() + "\n");
  EXPECT_EQ(shell(glovebox() + " job list --version").out, "glovebox " + version() + "\n");
}

TEST(Next, EveryReasonHasOne) {
  std::size_t n = 0;
#define X(name, code, cls)                                                       \
  EXPECT_GT(default_next(Reason::name).size(), 10U) << code;                     \
  EXPECT_NE(render_error(Format::kTable, fail(Reason::name, "x")).find("next:"), \
            std::string::npos)                                                   \
      << code;                                                                   \
  ++n;
  GBX_REASONS(X)
#undef X
  EXPECT_GT(n, 80U);
}

TEST(SelfName, IsWrittenAsItWasCalled) {
  const Self plain;
  EXPECT_EQ(plain.command({"job", "wait", "3f9a"}), "glovebox job wait 3f9a");
  Self self;
  self.program = "build/my bin/glovebox";
  self.home = "/a b/it's";
  EXPECT_EQ(self.command({"policy", "explain", "p.yaml"}),
            R"('build/my bin/glovebox' --home '/a b/it'\''s' policy explain p.yaml)");
  self.program = "bin/glovebox";
  self.home = ".h";
  EXPECT_EQ(self.rewrite("glovebox job list"), "bin/glovebox --home .h job list");
  EXPECT_EQ(self.rewrite("see it with `glovebox job plan F`, or glovebox --help"),
            "see it with `bin/glovebox --home .h job plan F`, or bin/glovebox --home .h --help");
  EXPECT_EQ(self.rewrite("sudo glovebox up"), "sudo bin/glovebox --home .h up");
  EXPECT_EQ(self.rewrite("glovebox-broker serve; a glovebox; glovebox COMMAND"),
            "glovebox-broker serve; a glovebox; glovebox COMMAND");
}

TEST(ShellWord, IsOneWordAgain) {
  for (const char* word : {"plain", "", "two words", "it's", "$HOME", "`x`", "a;b", "*", "~", "ä",
                           "-o", "a=b:c@d,e"}) {
    EXPECT_EQ(shell("printf %s " + shell_word(word)).out, word);
  }
  EXPECT_EQ(shell_word("a/b-c_d.1"), "a/b-c_d.1");
}

TEST(JobEnd, HasItsOwnExitClass) {
  api::JobView v;
  v.ended = true;
  const std::pair<const char*, ExitClass> ends[] = {
      {"Completed", ExitClass::kOk},    {"Denied", ExitClass::kDenied},
      {"Rejected", ExitClass::kDenied}, {"Revoked", ExitClass::kDenied},
      {"Failed", ExitClass::kFailed},   {"Cancelled", ExitClass::kFailed},
      {"Expired", ExitClass::kFailed}};
  for (const auto& [state, wanted] : ends) {
    v.state = state;
    for (const char* reason : {"", "io", "wrong-asset", "evidence-rejected"}) {
      v.outcome.reason = reason;
      EXPECT_EQ(class_of_end(v), wanted) << state << " " << reason;
    }
  }
}

TEST(NewNames, HoldNothingThatMeansSomething) {
  for (const char* good : {"wdbc", "a.b_c-d", "Größe", "0123456789abcdef"}) {
    EXPECT_TRUE(check_new_name(good).ok()) << good;
  }
  for (const char* bad : {"", "a/b", "a@2", "a b", "a\tb", "\x01", "\xff"}) {
    EXPECT_EQ(check_new_name(bad).reason(), Reason::kUsage) << bad;
  }
  EXPECT_EQ(check_new_name(std::string(65, 'a')).reason(), Reason::kUsage);
}

TEST(InterruptDeathTest, EndsByTheSignalAfterItsMessage) {
  EXPECT_EXIT(
      {
        const Interruptible outer("outer");
        const Interruptible guard("stopped; go on\n");
        (void)raise(SIGINT);
      },
      ::testing::KilledBySignal(SIGINT), "stopped; go on");
  EXPECT_EXIT(
      {
        const Interruptible outer("outer message\n");
        { const Interruptible inner("inner message\n"); }
        (void)raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "outer message");
}

}  // namespace
}  // namespace gbx::cli
