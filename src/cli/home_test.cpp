// The user's folder: key files, settings, addresses, certificates; and the refusal of older key
// sets.
#include "cli/home.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/os.h"
#include "cli/session.h"
#include "policy/testing.h"

namespace gbx::cli {
namespace {

using testing::make_key_set;
using testing::must;

constexpr SecretAccess kAccess{};

struct TempHome {
  TempHome() {
    char name[] = "/tmp/gbx-home-XXXXXX";
    home = std::make_unique<Home>(std::string(mkdtemp(name)) + "/home");
  }
  ~TempHome() { (void)remove_tree(home->path().substr(0, home->path().rfind('/'))); }
  std::unique_ptr<Home> home;
};
mode_t mode_of(const std::string& path) {
  struct stat st {};
  return stat(path.c_str(), &st) == 0 ? st.st_mode & 07777 : 0;
}
PassphraseSource phrase(const std::string& text) {
  return [text](const std::string&) -> Result<Passphrase> {
    return Passphrase::copy_of(as_bytes(text));
  };
}
PassphraseSource nobody() {
  return [](const std::string&) -> Result<Passphrase> { return fail(Reason::kUsage, "asked"); };
}

TEST(KeyFile, RoundTripsInClearAndUnderAPassphrase) {
  TempHome t;
  SeededRandom random(1);
  ASSERT_TRUE(t.home->make("keys").ok());
  EXPECT_EQ(mode_of(t.home->path()), 0700U);
  EXPECT_EQ(mode_of(t.home->file("keys")), 0700U);
  const auto key = random.fixed<32>();
  const std::string path = t.home->signing_key();
  ASSERT_TRUE(write_key_file(path, KeyKind::kSigning, key, kAccess, nullptr, random).ok());
  EXPECT_EQ(mode_of(path), 0600U);
  auto back = read_key_file(path, KeyKind::kSigning, nobody());
  ASSERT_TRUE(back.ok()) << back.error().line();
  EXPECT_TRUE(equal(back->view(kAccess), key));

  const Passphrase secret = Passphrase::copy_of(as_bytes("correct horse"));
  ASSERT_TRUE(write_key_file(path, KeyKind::kSigning, key, kAccess, &secret, random).ok());
  const Bytes sealed = must(read_file(path, 4096));
  EXPECT_EQ(std::search(sealed.begin(), sealed.end(), key.begin(), key.end()), sealed.end());
  back = read_key_file(path, KeyKind::kSigning, phrase("correct horse"));
  ASSERT_TRUE(back.ok()) << back.error().line();
  EXPECT_TRUE(equal(back->view(kAccess), key));
  EXPECT_EQ(read_key_file(path, KeyKind::kSigning, phrase("wrong horse")).reason(),
            Reason::kWrongPassphrase);
}

TEST(Home, ALockIsOneCommandsAtATimeAndEndsWithIt) {
  const TempHome t;
  auto held = t.home->lock("shown");
  ASSERT_TRUE(held.ok()) << held.error().line();
  EXPECT_EQ(mode_of(t.home->file("shown.lock")), 0600U);
  const auto second = t.home->lock("shown", 0);
  EXPECT_EQ(second.reason(), Reason::kConflict);
  EXPECT_NE(second.error().expected.find("shown.lock"), std::string::npos);
  EXPECT_NE(second.error().next, "");
  EXPECT_TRUE(t.home->lock("rotation", 0).ok()) << "each lock is its own";
  held->reset();
  EXPECT_TRUE(t.home->lock("shown", 0).ok());
}

// Every `step`-th byte changed, one cut off, one more. What a passphrase does not open may also be
// a mistyped one.
void expect_damage_refused(const Passphrase* secret, std::size_t step) {
  TempHome t;
  SeededRandom random(2);
  ASSERT_TRUE(t.home->make("keys").ok());
  const auto key = random.fixed<32>();
  const std::string path = t.home->signing_key();
  const auto ask = secret == nullptr ? nobody() : phrase("p");
  ASSERT_TRUE(write_key_file(path, KeyKind::kSigning, key, kAccess, secret, random).ok());
  EXPECT_EQ(read_key_file(path, KeyKind::kHpke, ask).reason(), Reason::kBadStructure);
  const Bytes good = must(read_file(path, 4096));
  for (std::size_t i = 0; i < good.size(); i += step) {
    Bytes bad = good;
    bad[i] = static_cast<std::uint8_t>(bad[i] ^ (1U << (i % 8)));
    ASSERT_TRUE(write_file_atomic(path, bad, 0600).ok());
    const auto read = read_key_file(path, KeyKind::kSigning, ask);
    ASSERT_FALSE(read.ok()) << i;
    EXPECT_TRUE(secret != nullptr || read.reason() != Reason::kWrongPassphrase) << i;
    // Nobody made it but its owner, and nobody can give it again.
    const bool damaged = read.reason() != Reason::kWrongPassphrase;
    EXPECT_EQ(read.error().next.find("put it back there from your copy") != std::string::npos,
              damaged)
        << i;
  }
  Bytes longer = good;
  longer.push_back(0);
  ASSERT_TRUE(write_file_atomic(path, longer, 0600).ok());
  EXPECT_EQ(read_key_file(path, KeyKind::kSigning, ask).reason(), Reason::kTrailingBytes);
  ASSERT_TRUE(write_file_atomic(path, ByteView(good).first(good.size() - 1), 0600).ok());
  const auto shorter = read_key_file(path, KeyKind::kSigning, ask);
  EXPECT_EQ(shorter.reason(), Reason::kTruncated);
  EXPECT_NE(shorter.error().next.find("put it back there from your copy"), std::string::npos);
}

TEST(KeyFile, EveryDamageIsRefused) {
  const Passphrase secret = Passphrase::copy_of(as_bytes("p"));
  expect_damage_refused(&secret, 4);  // each costs a tenth of a second
}

TEST(KeyFile, EveryDamageOfAKeyInTheClearIsRefused) { expect_damage_refused(nullptr, 1); }

TEST(KeyFile, AKeyInTheClearHasTheBytesThatTheFormatSays) {
  TempHome t;
  SeededRandom random(4);
  ASSERT_TRUE(t.home->make("keys").ok());
  const std::string path = t.home->signing_key();
  const Bytes key(32, 7);
  ASSERT_TRUE(write_key_file(path, KeyKind::kSigning, key, kAccess, nullptr, random).ok());
  const Bytes check =
      must(from_hex("03b0a00c2ade64218f3fcaa03ca2d64791565168943f7667b730b59a7a5d5ff5"));
  EXPECT_EQ(must(read_file(path, 4096)), concat({as_bytes("gbx-key/1"), Bytes{1, 2}, key, check}));
}

// Written before keys in the clear had a check.
TEST(KeyFile, AnOlderKeyInTheClearIsStillRead) {
  TempHome t;
  ASSERT_TRUE(t.home->make("keys").ok());
  const Bytes key(32, 7);
  const std::string path = t.home->signing_key();
  ASSERT_TRUE(
      write_file_atomic(path, concat({as_bytes("gbx-key/1"), Bytes{1, 0}, key}), 0600).ok());
  const auto back = read_key_file(path, KeyKind::kSigning, nobody());
  ASSERT_TRUE(back.ok()) << back.error().line();
  EXPECT_TRUE(equal(back->view(kAccess), key));
}

TEST(KeyFile, WhatOthersCanReadIsRefused) {
  TempHome t;
  SeededRandom random(3);
  ASSERT_TRUE(t.home->make("keys").ok());
  const auto key = random.fixed<32>();
  const std::string path = t.home->signing_key();
  ASSERT_TRUE(write_key_file(path, KeyKind::kSigning, key, kAccess, nullptr, random).ok());
  for (const mode_t mode : {0640U, 0604U, 0660U}) {
    ASSERT_EQ(chmod(path.c_str(), mode), 0);
    const auto r = read_key_file(path, KeyKind::kSigning, nobody());
    EXPECT_EQ(r.reason(), Reason::kIo) << mode;
    EXPECT_EQ(r.error().next, "chmod 600 " + path);
  }
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  ASSERT_EQ(symlink(path.c_str(), t.home->result_key().c_str()), 0);
  EXPECT_TRUE(read_key_file(t.home->result_key(), KeyKind::kSigning, nobody()).ok());
  // What counts of a link is the file behind it.
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  EXPECT_EQ(read_key_file(t.home->result_key(), KeyKind::kSigning, nobody()).reason(), Reason::kIo);
  EXPECT_EQ(read_key_file(t.home->file("absent"), KeyKind::kSigning, nobody()).reason(),
            Reason::kNotFound);
}

TEST(Settings, AbsentOnesSayWhichCommandMakesThem) {
  TempHome t;
  EXPECT_EQ(t.home->context().reason(), Reason::kNotFound);
  EXPECT_EQ(t.home->context().error().next.substr(0, 13), "glovebox init");
  EXPECT_EQ(t.home->identity().error().next.substr(0, 24), "glovebox identity create");
  Context c;
  c.host = "plane.example";
  c.port = 7443;
  c.ca = Bytes(100, 7);
  c.epoch = 3;
  ASSERT_TRUE(t.home->save(c).ok());
  EXPECT_EQ(mode_of(t.home->file("context.json")), 0600U);
  const auto back = t.home->context();
  ASSERT_TRUE(back.ok()) << back.error().line();
  EXPECT_EQ(to_json(*back), to_json(c));
  ASSERT_TRUE(
      write_file_atomic(t.home->file("context.json"), as_bytes("{\"host\":\"x\"}"), 0600).ok());
  EXPECT_EQ(t.home->context().reason(), Reason::kMissingField);
  // What is there and cannot be looked at is not absent: nobody is told to make it anew.
  const std::string path = t.home->file("context.json");
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(symlink(path.c_str(), path.c_str()), 0);
  EXPECT_EQ(t.home->context().reason(), Reason::kIo);
}

TEST(Settings, AnOlderKeyEpochIsRefusedAndAForeignSetToo) {
  TempHome t;
  SeededRandom random(4);
  testing::KeySet set = make_key_set(random);
  Context c;
  c.host = "h";
  c.port = 1;
  c.ca = Bytes(32, 1);
  c.set_id = set.id();
  ASSERT_TRUE(accept_chain(*t.home, c, set.chain).ok());
  EXPECT_EQ(must(t.home->context()).epoch, 1);
  records::EpochKeys second = set.chain.epoch.body;
  second.epoch = 2;
  records::SetChain newer = set.chain;
  newer.epoch = must(records::sign(set.id(), second, set.set_key));
  ASSERT_TRUE(accept_chain(*t.home, c, newer).ok());
  EXPECT_EQ(must(t.home->context()).epoch, 2);
  EXPECT_EQ(accept_chain(*t.home, c, set.chain).reason(), Reason::kBrokerUntrusted);
  EXPECT_EQ(accept_chain(*t.home, c, make_key_set(random).chain).reason(),
            Reason::kBrokerUntrusted);
  newer.epoch.body.kek = make_key_set(random).chain.epoch.body.kek;
  EXPECT_EQ(accept_chain(*t.home, c, newer).reason(), Reason::kBadSignature);
}

TEST(Address, IsAHostAndAPort) {
  for (const char* good :
       {"https://plane.example:7443", "plane.example:7443", "https://plane.example:7443/"}) {
    const auto a = parse_address(good);
    ASSERT_TRUE(a.ok()) << good;
    EXPECT_EQ(a->host, "plane.example");
    EXPECT_EQ(a->port, 7443);
  }
  EXPECT_EQ(must(parse_address("[::1]:80")).host, "::1");
  for (const char* bad : {"", "plane", "plane:", ":80", "plane:0", "plane:65536", "plane:80x",
                          "::1:80", "http://plane:80", "a/b:80", "u@h:80"}) {
    EXPECT_EQ(parse_address(bad).reason(), Reason::kUsage) << bad;
  }
}

TEST(Certificate, PemAndDerAreTheSame) {
  SeededRandom random(5);
  const auto key =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random));
  const Bytes der = must(crypto::self_signed_certificate(key));
  const std::string pem = crypto::certificate_pem(der);
  EXPECT_EQ(must(parse_certificate(der)), der);
  EXPECT_EQ(must(parse_certificate(as_bytes("# a comment\n" + pem))), der);
  EXPECT_EQ(parse_certificate(as_bytes(pem + pem)).reason(), Reason::kBadValue);
  EXPECT_FALSE(parse_certificate(as_bytes(pem.substr(0, pem.size() / 2))).ok());
  EXPECT_FALSE(
      parse_certificate(as_bytes("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
          .ok());
  EXPECT_FALSE(parse_certificate(as_bytes("text")).ok());
}

}  // namespace
}  // namespace gbx::cli
