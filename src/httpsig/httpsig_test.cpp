// Request signing: every covered field, every refusal, the replay window; and the error body.
#include <gtest/gtest.h>

#include "httpsig/error_body.h"
#include "httpsig/request_signing.h"

namespace gbx::httpsig {
namespace {

constexpr std::int64_t kNow = 1'700'000'000;
using Headers = std::map<std::string, std::string>;

struct Fixture {
  SeededRandom random{7};
  crypto::SigningKey key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random).value();
  crypto::SigningKey other =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
  Hash32 identity = crypto::sha256(as_bytes("me"));
  Hash32 body_hash = crypto::sha256(as_bytes("{}"));
  RequestLine line{crypto::sha256(as_bytes("our set")), "POST", "/v1/jobs?x=%20"};
  KeyCheck anyone = [](const Hash32&, const crypto::PublicKey&) { return ok_status(); };

  Headers sign(const crypto::SigningKey& k) {
    Headers h;
    const HeaderList list = sign_request(line, body_hash, identity, k, kNow, random).value();
    for (const auto& [name, value] : list) h[name] = value;
    return h;
  }
};

TEST(RequestSigning, BothAlgorithmsVerify) {
  Fixture f;
  for (const crypto::SigningKey* k : {&f.key, &f.other}) {
    const auto v = verify_signature(f.line, f.sign(*k), kNow + 5);
    ASSERT_TRUE(v.ok()) << v.error().line();
    EXPECT_EQ(v->identity, f.identity);
    EXPECT_EQ(v->body_hash, f.body_hash);
    EXPECT_EQ(v->time_seconds, kNow);
    EXPECT_TRUE(v->key == k->public_key());
  }
}

TEST(RequestSigning, EveryCoveredFieldIsProtected) {
  Fixture f;
  const Headers good = f.sign(f.key);
  RequestLine line = f.line;
  line.method = "PUT";
  EXPECT_EQ(verify_signature(line, good, kNow).reason(), Reason::kBadSignature);
  line = f.line;
  line.target = "/v1/jobs?x=%21";
  EXPECT_EQ(verify_signature(line, good, kNow).reason(), Reason::kBadSignature);
  line = f.line;
  line.set_id = crypto::sha256(as_bytes("their set"));  // the same request at another installation
  EXPECT_EQ(verify_signature(line, good, kNow).reason(), Reason::kBadSignature);
  const Headers foreign{{kIdentityHeader, to_hex(crypto::sha256(as_bytes("you")))},
                        {kKeyHeader, f.other.public_key().text()},
                        {kTimeHeader, std::to_string(kNow + 1)},
                        {kNonceHeader, std::string(32, 'a')},
                        {kBodyHashHeader, to_hex(crypto::sha256(as_bytes("[]")))}};
  for (const auto& [name, value] : foreign) {
    Headers bad = good;
    bad[name] = value;
    EXPECT_EQ(verify_signature(f.line, bad, kNow).reason(), Reason::kBadSignature) << name;
  }
  Bytes signature = *from_base64url(good.at(kSignatureHeader));
  for (std::size_t i = 0; i < signature.size(); ++i) {
    Bytes flipped = signature;
    flipped[i] = static_cast<std::uint8_t>(flipped[i] ^ 1U);
    Headers bad = good;
    bad[kSignatureHeader] = to_base64url(flipped);
    EXPECT_EQ(verify_signature(f.line, bad, kNow).reason(), Reason::kBadSignature) << i;
  }
}

TEST(RequestSigning, MissingAndMalformedHeadersAreUnauthenticated) {
  Fixture f;
  const Headers good = f.sign(f.key);
  for (const auto& [name, value] : good) {
    Headers bad = good;
    bad.erase(name);
    EXPECT_EQ(verify_signature(f.line, bad, kNow).reason(), Reason::kUnauthenticated) << name;
    for (const std::string& text :
         {std::string(), std::string("!"), value + "!", std::string(300, 'a')}) {
      bad[name] = text;
      EXPECT_EQ(verify_signature(f.line, bad, kNow).reason(), Reason::kUnauthenticated)
          << name << " " << text;
    }
  }
  for (const char* time : {"01700000000", "-1", "+1700000000", "1.7e9", "99999999999999999999"}) {
    Headers bad = good;
    bad[kTimeHeader] = time;
    EXPECT_EQ(verify_signature(f.line, bad, kNow).reason(), Reason::kUnauthenticated) << time;
  }
}

TEST(RequestSigning, TheWindowIsExactlyTwoMinutes) {
  Fixture f;
  const Headers h = f.sign(f.key);
  EXPECT_TRUE(verify_signature(f.line, h, kNow + 120).ok());
  EXPECT_TRUE(verify_signature(f.line, h, kNow - 120).ok());
  EXPECT_EQ(verify_signature(f.line, h, kNow + 121).reason(), Reason::kExpired);
  EXPECT_EQ(verify_signature(f.line, h, kNow - 121).reason(), Reason::kExpired);
}

TEST(RequestSigning, AReplayIsRefusedForAsLongAsItWouldVerify) {
  Fixture f;
  ReplayCache cache;
  const Headers h = f.sign(f.key);
  ASSERT_TRUE(verify_request(f.line, h, kNow - 120, f.anyone, cache).ok());
  for (std::int64_t now = kNow - 120; now <= kNow + 120; now += 10) {
    EXPECT_EQ(verify_request(f.line, h, now, f.anyone, cache).reason(), Reason::kReplayed) << now;
  }
  EXPECT_EQ(verify_request(f.line, h, kNow + 121, f.anyone, cache).reason(), Reason::kExpired);
  EXPECT_TRUE(verify_request(f.line, f.sign(f.key), kNow, f.anyone, cache).ok());
}

TEST(RequestSigning, AKeyOfNobodyIsRefusedAndLeavesNoTrace) {
  Fixture f;
  ReplayCache cache;
  const KeyCheck nobody = [](const Hash32&, const crypto::PublicKey&) -> Status {
    return fail(Reason::kUnauthenticated, "unknown identity");
  };
  EXPECT_EQ(verify_request(f.line, f.sign(f.key), kNow, nobody, cache).reason(),
            Reason::kUnauthenticated);
  EXPECT_EQ(cache.size(), 0U);
}

TEST(ReplayCache, IsBoundedAndFailsClosed) {
  Fixture f;
  ReplayCache cache(ReplayCache::Limits{4, 3});
  const auto use = [&] {
    return verify_request(f.line, f.sign(f.key), kNow, f.anyone, cache).reason();
  };
  const auto as = [&](const char* name) {
    f.identity = crypto::sha256(as_bytes(std::string_view(name)));
  };
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(verify_request(f.line, f.sign(f.key), kNow, f.anyone, cache).ok());
  }
  EXPECT_EQ(use(), Reason::kRateLimited);
  for (const char* name : {"second", "third"}) {
    as(name);
    ASSERT_TRUE(verify_request(f.line, f.sign(f.key), kNow, f.anyone, cache).ok());
  }
  as("fourth");
  EXPECT_EQ(use(), Reason::kUnavailable);
  EXPECT_EQ(cache.size(), 4U);
  const VerifiedRequest later{f.identity, f.key.public_key(), f.body_hash, Id16{1}, kNow + 1000};
  EXPECT_TRUE(cache.remember(later, kNow + 1000).ok());
  EXPECT_EQ(cache.size(), 1U);
}

// However many requests a few identities send, the others get theirs through.
TEST(ReplayCache, AFewBusyIdentitiesLeaveRoomForTheOthers) {
  Fixture f;
  constexpr std::size_t kTotal = 900;
  ReplayCache cache(ReplayCache::Limits{kTotal, 400});
  std::uint32_t n = 0;
  const auto send = [&](std::uint8_t who) {
    Id16 nonce{};
    ++n;
    for (std::size_t i = 0; i < 4; ++i) nonce[i] = static_cast<std::uint8_t>(n >> (8 * i));
    return cache.remember({Hash32{who}, f.key.public_key(), f.body_hash, nonce, kNow}, kNow)
        .reason();
  };
  for (int i = 0; i < 1000; ++i) {
    for (std::uint8_t who = 1; who <= 8; ++who) (void)send(who);
  }
  EXPECT_EQ(send(1), Reason::kRateLimited);
  EXPECT_LE(cache.size(), kTotal * 8 / 9);
  for (int i = 0; i < 40; ++i) EXPECT_EQ(send(9), Reason::kUninitialised) << i;
}

// For callers who are not enrolled: however many come, each gets in, and they take no place of
// anybody else.
TEST(ReplayCache, AnEvictingOneForgetsTheOldestInsteadOfRefusing) {
  Fixture f;
  ReplayCache cache({4, 4, true});
  const auto send = [&](std::uint8_t n) {
    return cache.remember({Hash32{n}, f.key.public_key(), f.body_hash, Id16{n}, kNow + n}, kNow)
        .reason();
  };
  for (std::uint8_t n = 1; n <= 20; ++n) EXPECT_EQ(send(n), Reason::kUninitialised) << int{n};
  EXPECT_EQ(cache.size(), 4U);
  EXPECT_EQ(send(20), Reason::kReplayed);
  EXPECT_EQ(send(1), Reason::kUninitialised);
}

TEST(ErrorBody, RoundTripsEveryReason){
#define X(name, code, cls)                                                        \
  {                                                                               \
    const Error e = fail(Reason::name, "chunk 3").with("a", "b").hint("do this"); \
    const auto back = error_from_json_text(canonical(error_to_json(e)));          \
    ASSERT_TRUE(back.has_value());                                                \
    EXPECT_EQ(back->reason, Reason::name);                                        \
    EXPECT_EQ(back->line(), e.line());                                            \
    EXPECT_EQ(back->next, "do this");                                             \
  }
    GBX_REASONS(X)
#undef X
}

TEST(ErrorBody, HostileBodiesAreRefusedOrTamed) {
  EXPECT_FALSE(error_from_json_text("<html>").has_value());
  EXPECT_FALSE(error_from_json_text(R"({"reason":"internal"})").has_value());
  const auto odd = error_from_json_text(
      R"({"reason":"no-such","what":"\u001b[2J","expected":"","actual":"","next":""})");
  ASSERT_TRUE(odd.has_value());
  EXPECT_EQ(odd->reason, Reason::kInternal);
  EXPECT_EQ(odd->what.find('\x1b'), std::string::npos);
  const Error bad = fail(Reason::kIo, std::string("\xff\xfe") + std::string(5000, 'x'));
  EXPECT_TRUE(error_from_json_text(canonical(error_to_json(bad))).has_value());
}

}  // namespace
}  // namespace gbx::httpsig
