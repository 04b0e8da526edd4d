#include "channel/tls.h"

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <thread>

#include "channel/rpc.h"

namespace gbx::channel {
namespace {

const SystemClock kClock;
Deadline in_ms(std::int64_t ms) { return Deadline::after_ms(kClock, ms); }

crypto::SigningKey key(std::uint64_t seed, crypto::SignatureAlgorithm algorithm =
                                               crypto::SignatureAlgorithm::kEd25519) {
  SeededRandom random(seed);
  return crypto::SigningKey::generate(algorithm, random).value();
}
const crypto::SigningKey& alice() {
  static const crypto::SigningKey k = key(1);
  return k;
}
const crypto::SigningKey& bob() {
  static const crypto::SigningKey k = key(2);
  return k;
}
TlsOptions options(const crypto::SigningKey* own, PeerPolicy peer, std::int64_t ms = 10'000) {
  return {&kClock, own, std::move(peer), ms};
}
PeerPolicy pin(const crypto::SigningKey& k) { return PeerPolicy::pin({k.public_key()}); }

// Both ends of one handshake over a pair of streams.
struct Pair {
  Result<TlsChannel> client;
  Result<TlsChannel> server;
};
Pair shake(ByteStream& near, ByteStream& far, const TlsOptions& client, const TlsOptions& server) {
  Pair p;
  std::thread t([&] {
    p.server = TlsChannel::server(far, server);
    if (!p.server.ok()) far.close();
  });
  p.client = TlsChannel::client(near, client);
  if (!p.client.ok()) near.close();
  t.join();
  return p;
}
Reason reason_of(const Result<TlsChannel>& r) {
  return r.ok() ? Reason::kUninitialised : r.reason();
}

TEST(Tls, RoundTripWithBothKeysProved) {
  const crypto::SigningKey p256 = key(3, crypto::SignatureAlgorithm::kEcdsaP256);
  for (const crypto::SigningKey* server_key : {&bob(), &p256}) {
    for (const crypto::SigningKey* client_key : {&alice(), &p256}) {
      auto [near, far] = make_memory_pipe();
      Pair p = shake(*near, *far, options(client_key, pin(*server_key)),
                     options(server_key, pin(*client_key)));
      ASSERT_TRUE(p.client.ok()) << p.client.error().line();
      ASSERT_TRUE(p.server.ok()) << p.server.error().line();
      EXPECT_EQ(*p.client->peer_key(), server_key->public_key());
      EXPECT_EQ(*p.server->peer_key(), client_key->public_key());
      Bytes message(1'000'000);
      SeededRandom(4).fill(message);
      std::thread writer([&] {
        EXPECT_TRUE(p.client->write_all(message, in_ms(20'000)).ok());
        EXPECT_TRUE(p.client->finish(in_ms(1000)).ok());
      });
      Bytes got(message.size());
      EXPECT_TRUE(read_exact(*p.server, got, in_ms(20'000)).ok());
      EXPECT_EQ(got, message);
      Bytes one(1);
      EXPECT_EQ(p.server->read(one, in_ms(20'000)).value(), 0U);  // close_notify
      writer.join();
      // The other direction is still open.
      EXPECT_TRUE(p.server->write_all(as_bytes("bye"), in_ms(1000)).ok());
      Bytes three(3);
      EXPECT_TRUE(read_exact(*p.client, three, in_ms(1000)).ok());
      EXPECT_EQ(as_text(three), "bye");
    }
  }
}

TEST(Tls, AnonymousAndOptionalClients) {
  {
    auto [near, far] = make_memory_pipe();
    Pair p =
        shake(*near, *far, options(&alice(), pin(bob())), options(&bob(), PeerPolicy::anonymous()));
    ASSERT_TRUE(p.client.ok() && p.server.ok());
    EXPECT_FALSE(p.server->peer_key().has_value());
  }
  for (const crypto::SigningKey* client_key :
       {static_cast<const crypto::SigningKey*>(nullptr), &alice()}) {
    auto [near, far] = make_memory_pipe();
    Pair p = shake(*near, *far, options(client_key, pin(bob())),
                   options(&bob(), PeerPolicy::any_key_or_none()));
    ASSERT_TRUE(p.client.ok() && p.server.ok());
    EXPECT_EQ(p.server->peer_key().has_value(), client_key != nullptr);
  }
}

TEST(Tls, AWrongServerKeyIsRefusedWithTheReasonAskedFor) {
  auto [near, far] = make_memory_pipe();
  Pair p =
      shake(*near, *far,
            options(&alice(), PeerPolicy::pin({alice().public_key()}, Reason::kBrokerUntrusted)),
            options(&bob(), PeerPolicy::anonymous()));
  EXPECT_EQ(reason_of(p.client), Reason::kBrokerUntrusted);
  EXPECT_EQ(p.client.error().expected, alice().public_key().text());
  EXPECT_EQ(p.client.error().actual, bob().public_key().text());
  EXPECT_EQ(reason_of(p.server), Reason::kUnauthenticated);
}

TEST(Tls, AWrongClientKeyIsRefusedAndTheClientLearnsItOnRead) {
  auto [near, far] = make_memory_pipe();
  Pair p = shake(*near, *far, options(&bob(), pin(bob())), options(&bob(), pin(alice())));
  EXPECT_EQ(reason_of(p.server), Reason::kUnauthenticated);
  ASSERT_TRUE(p.client.ok());
  Bytes one(1);
  EXPECT_EQ(p.client->read(one, in_ms(10'000)).reason(), Reason::kUnauthenticated);
  EXPECT_EQ(p.client->write_all(one, in_ms(1000)).reason(), Reason::kUnauthenticated);
}

TEST(Tls, AClientWithoutAKeyIsRefusedWhereOneIsRequired) {
  for (const PeerPolicy& policy : {pin(alice()), PeerPolicy::any_key()}) {
    auto [near, far] = make_memory_pipe();
    Pair p = shake(*near, *far, options(nullptr, pin(bob())), options(&bob(), policy));
    EXPECT_EQ(reason_of(p.server), Reason::kUnauthenticated);
  }
}

TEST(Tls, ADefaultPolicyDenies) {
  auto [near, far] = make_memory_pipe();
  Pair p =
      shake(*near, *far, options(&alice(), PeerPolicy()), options(&bob(), PeerPolicy::anonymous()));
  EXPECT_EQ(reason_of(p.client), Reason::kUnauthenticated);
  auto [near2, far2] = make_memory_pipe();
  p = shake(*near2, *far2, options(&alice(), pin(bob())), options(&bob(), PeerPolicy()));
  EXPECT_EQ(reason_of(p.server), Reason::kUnauthenticated);
  // A client that would talk to anybody is a mistake of the program.
  EXPECT_EQ(reason_of(TlsChannel::client(*near2, options(&alice(), PeerPolicy::anonymous()))),
            Reason::kInternal);
}

TEST(Tls, ExportersAgreeAndDifferPerConnectionLabelAndContext) {
  std::vector<Hash32> seen;
  for (int i = 0; i < 3; ++i) {
    auto [near, far] = make_memory_pipe();
    Pair p = shake(*near, *far, options(&alice(), pin(bob())), options(&bob(), pin(alice())));
    ASSERT_TRUE(p.client.ok() && p.server.ok());
    for (const char* label : {"EXPORTER-gbx-a", "EXPORTER-gbx-b"}) {
      for (const char* context : {"", "x"}) {
        const Hash32 mine = p.client->exporter(label, as_bytes(context)).value();
        EXPECT_EQ(mine, p.server->exporter(label, as_bytes(context)).value());
        EXPECT_EQ(std::ranges::count(seen, mine), 0);
        seen.push_back(mine);
      }
    }
  }
}

TEST(Tls, TruncationIsNotAnEnd) {
  auto [near, far] = make_memory_pipe();
  Pair p = shake(*near, *far, options(&alice(), pin(bob())), options(&bob(), pin(alice())));
  ASSERT_TRUE(p.client.ok() && p.server.ok());
  ASSERT_TRUE(p.client->write_all(as_bytes("half"), in_ms(1000)).ok());
  ASSERT_TRUE(near->finish(in_ms(1000)).ok());  // beneath TLS
  Bytes four(4);
  EXPECT_TRUE(read_exact(*p.server, four, in_ms(1000)).ok());
  EXPECT_EQ(p.server->read(four, in_ms(1000)).reason(), Reason::kTruncated);
  EXPECT_EQ(p.server->read(four, in_ms(1000)).reason(), Reason::kTruncated);
  EXPECT_EQ(p.server->write_all(four, in_ms(1000)).reason(), Reason::kTruncated);
}

TEST(Tls, DeadlinesOfHandshakeAndRead) {
  auto [near, far] = make_memory_pipe();
  EXPECT_EQ(reason_of(TlsChannel::client(*near, options(&alice(), pin(bob()), 40))),
            Reason::kTimedOut);
  auto [near2, far2] = make_memory_pipe();
  Pair p = shake(*near2, *far2, options(&alice(), pin(bob())), options(&bob(), pin(alice())));
  ASSERT_TRUE(p.client.ok() && p.server.ok());
  Bytes three(3);
  EXPECT_EQ(p.client->read(three, in_ms(30)).reason(), Reason::kTimedOut);
  // A read that ended for want of bytes has broken nothing.
  ASSERT_TRUE(p.server->write_all(as_bytes("now"), in_ms(1000)).ok());
  EXPECT_TRUE(read_exact(*p.client, three, in_ms(10'000)).ok());
}

// A plain OpenSSL client on a socket, to try what ours never does.
int raw_client(ByteStream& far, const TlsOptions& server, Result<TlsChannel>* result, int raw_fd,
               const std::function<void(SSL_CTX*)>& configure) {
  std::thread t([&] {
    *result = TlsChannel::server(far, server);
    far.close();
  });
  SSL_CTX* ctx = SSL_CTX_new(TLS_client_method());
  configure(ctx);
  SSL* ssl = SSL_new(ctx);
  SSL_set_fd(ssl, raw_fd);
  const int r = SSL_connect(ssl);
  t.join();
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  ERR_clear_error();
  return r;
}

TEST(Tls, OtherVersionsSuitesAndGroupsAreRefused) {
  struct Case {
    const char* name;
    std::function<void(SSL_CTX*)> configure;
    Reason expected;
  };
  const Case cases[] = {
      {"as ours", [](SSL_CTX*) {}, Reason::kUninitialised},
      {"TLS 1.2", [](SSL_CTX* c) { SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION); },
       Reason::kBadVersion},
      {"another suite", [](SSL_CTX* c) { SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256"); },
       Reason::kBadStructure},
      {"another group", [](SSL_CTX* c) { SSL_CTX_set1_groups_list(c, "P-256"); },
       Reason::kBadStructure},
  };
  for (const Case& c : cases) {
    auto pair = make_socket_pair().value();
    auto far = FdStream::create(std::move(pair.second)).value();
    Result<TlsChannel> server;
    const int r = raw_client(*far, options(&bob(), PeerPolicy::anonymous()), &server,
                             pair.first.get(), c.configure);
    EXPECT_EQ(reason_of(server), c.expected) << c.name;
    EXPECT_EQ(r == 1, server.ok()) << c.name;
  }
}

TEST(Tls, NoTicketIsEverSent) {
  auto pair = make_socket_pair().value();
  auto far = FdStream::create(std::move(pair.second)).value();
  std::thread t([&] {
    auto server = TlsChannel::server(*far, options(&bob(), PeerPolicy::anonymous()));
    ASSERT_TRUE(server.ok());
    EXPECT_TRUE(server->write_all(as_bytes("x"), in_ms(1000)).ok());
    EXPECT_TRUE(server->finish(in_ms(1000)).ok());
    far->close();
  });
  static int tickets;
  tickets = 0;
  SSL_CTX* ctx = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT);
  SSL_CTX_sess_set_new_cb(ctx, [](SSL*, SSL_SESSION*) { return ++tickets, 0; });
  SSL* ssl = SSL_new(ctx);
  SSL_set_fd(ssl, pair.first.get());
  EXPECT_EQ(SSL_connect(ssl), 1);
  char byte = 0;
  EXPECT_EQ(SSL_read(ssl, &byte, 1), 1);
  EXPECT_EQ(SSL_read(ssl, &byte, 1), 0);
  EXPECT_EQ(tickets, 0);
  t.join();
  SSL_free(ssl);
  SSL_CTX_free(ctx);
}

// Passes bytes on but for one bit of what is read.
class Tamper final : public ByteStream {
 public:
  Tamper(ByteStream& below, std::size_t at) : below_(below), at_(at) {}
  Result<std::size_t> read(MutableByteView out, Deadline deadline) override {
    GBX_ASSIGN(const std::size_t n, below_.read(out, deadline));
    if (at_ >= seen_ && at_ < seen_ + n) {
      out[at_ - seen_] ^= static_cast<std::uint8_t>(1U << (at_ % 8));
    }
    seen_ += n;
    return n;
  }
  Status write_all(ByteView bytes, Deadline deadline) override {
    return below_.write_all(bytes, deadline);
  }
  Status finish(Deadline deadline) override { return below_.finish(deadline); }
  void close() override { below_.close(); }
  std::size_t seen() const { return seen_; }

 private:
  ByteStream& below_;
  const std::size_t at_;
  std::size_t seen_ = 0;
};

struct Outcome {
  bool all_right = false;  // both messages arrived and both ends were clean
  std::size_t to_client = 0;
  std::size_t to_server = 0;
};
// One request, one answer, one end each way, with one bit flipped on the way to the client or to
// the server. Asserts that no end ever reads anything but the message that was sent.
Outcome exchange_with_flip(std::size_t at_client, std::size_t at_server, std::int64_t ms) {
  auto [near, far] = make_memory_pipe();
  Tamper to_client(*near, at_client);
  Tamper to_server(*far, at_server);
  const auto talk = [&](Result<TlsChannel> tls, ByteStream& below, std::string_view send,
                        std::string_view expect, bool first) {
    const auto steps = [&]() -> Status {
      if (!tls.ok()) return tls.error();
      if (first) GBX_TRY(tls->write_all(as_bytes(send), in_ms(ms)));
      Bytes got(expect.size());
      GBX_TRY(read_exact(*tls, got, in_ms(ms)));
      EXPECT_EQ(as_text(got), expect);
      if (!first) GBX_TRY(tls->write_all(as_bytes(send), in_ms(ms)));
      GBX_TRY(tls->finish(in_ms(ms)));
      Bytes one(1);
      GBX_ASSIGN(const std::size_t n, tls->read(one, in_ms(ms)));
      EXPECT_EQ(n, 0U);
      return ok_status();
    };
    Status s = steps();
    if (!s.ok()) below.close();
    return s.ok();
  };
  bool server_ok = false;
  std::thread t([&, &far = far] {
    server_ok = talk(TlsChannel::server(to_server, options(&bob(), pin(alice()), ms)), *far,
                     "answer", "request", false);
  });
  const bool client_ok = talk(TlsChannel::client(to_client, options(&alice(), pin(bob()), ms)),
                              *near, "request", "answer", true);
  t.join();
  return {client_ok && server_ok, to_client.seen(), to_server.seen()};
}

// The version in the header of a plaintext record (RFC 8446 section 5.1: "MUST be ignored for all
// purposes") is all that no hash or tag covers: bytes 1 and 2 of each direction. Whether OpenSSL
// minds them is its affair; messages stay right.
TEST(Tls, EveryFlippedByteIsNoticedAndNoWrongMessageIsEverRead) {
  constexpr std::size_t kNever = ~std::size_t{0};
  const Outcome clean = exchange_with_flip(kNever, kNever, 10'000);
  ASSERT_TRUE(clean.all_right);
  ASSERT_GT(clean.to_client, 500U);
  ASSERT_GT(clean.to_server, 500U);
  for (std::size_t at = 0; at < clean.to_client; ++at) {
    const bool unprotected = at == 1 || at == 2;
    EXPECT_FALSE(exchange_with_flip(at, kNever, 400).all_right && !unprotected)
        << "to the client, byte " << at;
  }
  for (std::size_t at = 0; at < clean.to_server; ++at) {
    const bool unprotected = at == 1 || at == 2;
    EXPECT_FALSE(exchange_with_flip(kNever, at, 400).all_right && !unprotected)
        << "to the server, byte " << at;
  }
}

TEST(Tls, ARecordPlayedTwiceIsRefused) {
  auto [near, far] = make_memory_pipe();
  Pair p = shake(*near, *far, options(&alice(), pin(bob())), options(&bob(), pin(alice())));
  ASSERT_TRUE(p.client.ok() && p.server.ok());
  ASSERT_TRUE(p.client->write_all(as_bytes("pay 1"), in_ms(1000)).ok());
  Bytes record(5 + 5 + 1 + 16);  // header, text, type, tag
  ASSERT_TRUE(read_exact(*far, record, in_ms(1000)).ok());
  ASSERT_TRUE(near->write_all(record, in_ms(1000)).ok());
  ASSERT_TRUE(near->write_all(record, in_ms(1000)).ok());
  Bytes got(5);
  EXPECT_TRUE(read_exact(*p.server, got, in_ms(1000)).ok());
  EXPECT_EQ(as_text(got), "pay 1");
  EXPECT_EQ(p.server->read(got, in_ms(1000)).reason(), Reason::kBadTag);
}

TEST(Tls, CallsRunOverIt) {
  auto [near, far] = make_memory_pipe();
  Pair p = shake(*near, *far, options(&alice(), pin(bob())), options(&bob(), pin(alice())));
  ASSERT_TRUE(p.client.ok() && p.server.ok());
  Status served;
  std::thread t([&] {
    served = serve(
        *p.server, [](std::string_view, const Json& body) -> Result<Json> { return body; }, {},
        kClock);
  });
  RpcClient client(*p.client, kClock);
  const Json large(std::string(3'000'000, 'x'));
  EXPECT_EQ(client.call("echo", large, 20'000).value(), large);
  EXPECT_TRUE(p.client->finish(in_ms(1000)).ok());
  t.join();
  EXPECT_TRUE(served.ok());
}

}  // namespace
}  // namespace gbx::channel
