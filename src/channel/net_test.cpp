#include "channel/net.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::channel {
namespace {

const SystemClock kClock;
Deadline in_ms(std::int64_t ms) { return Deadline::after_ms(kClock, ms); }

void echo(FdStream& s) {
  Bytes buffer(1000);
  for (;;) {
    auto n = s.read(buffer, in_ms(60'000));
    if (!n.ok() || *n == 0) return;
    if (!s.write_all(ByteView(buffer).first(*n), in_ms(10'000)).ok()) return;
  }
}
// True when the server answers; false when it closed the connection.
bool answers(FdStream& s) {
  Bytes one(1);
  if (!s.write_all(one, in_ms(10'000)).ok()) return false;
  auto n = s.read(one, in_ms(10'000));
  return n.ok() && *n == 1;
}

TEST(Net, Addresses) {
  EXPECT_EQ(TcpAddress::from_text("127.0.0.1:80").value().text(), "127.0.0.1:80");
  EXPECT_EQ(TcpAddress::from_text("[::1]:8443").value().text(), "[::1]:8443");
  EXPECT_EQ(TcpAddress::from_text("broker.example:1").value().host, "broker.example");
  for (const char* bad : {"", ":", ":80", "host", "host:", "host:65536", "host:-1", "host:8x",
                          "::1:80", "[]:1", "[::1:80"}) {
    EXPECT_EQ(TcpAddress::from_text(bad).reason(), Reason::kBadValue) << bad;
  }
}

TEST(Net, TcpRoundTrips) {
  auto tcp = ConnectionServer::start(listen_tcp({}).value(), 4, echo).value();
  ASSERT_NE(tcp->port(), 0);
  auto client = connect_tcp({"127.0.0.1", tcp->port()}, in_ms(10'000)).value();
  EXPECT_TRUE(answers(*client));
}

TEST(Net, NobodyListening) {
  const std::uint16_t port = [] {
    const Listener l = listen_tcp({}).value();
    return l.port;
  }();
  EXPECT_EQ(connect_tcp({"127.0.0.1", port}, in_ms(10'000)).reason(), Reason::kUnavailable);
}

// Whoever proved who he is by the byte `k` is known; all others are strangers.
void echo_and_know(FdStream& s, const ConnectionServer::Known& known) {
  Bytes one(1);
  for (;;) {
    const auto n = s.read(one, in_ms(60'000));
    if (!n.ok() || *n == 0) return;
    if (one[0] == 'k') known();
    if (!s.write_all(one, in_ms(10'000)).ok()) return;
  }
}
bool introduces_itself(FdStream& s) {
  Bytes one{'k'};
  if (!s.write_all(one, in_ms(10'000)).ok()) return false;
  const auto n = s.read(one, in_ms(10'000));
  return n.ok() && *n == 1;
}

TEST(Server, StrangersGiveWayAndTheKnownStay) {
  auto server = ConnectionServer::start(listen_tcp({}).value(), 100,
                                        StrangerLimits{&kClock, 4, 600'000}, echo_and_know)
                    .value();
  const TcpAddress to{"127.0.0.1", server->port()};
  const auto early = connect_tcp(to, in_ms(10'000)).value();
  ASSERT_TRUE(introduces_itself(*early));
  std::vector<std::unique_ptr<FdStream>> idle;
  for (int i = 0; i < 50; ++i) {
    idle.push_back(connect_tcp(to, in_ms(10'000)).value());
    ASSERT_TRUE(answers(*idle.back())) << i;  // the newest is served
  }
  const auto late = connect_tcp(to, in_ms(10'000)).value();
  EXPECT_TRUE(introduces_itself(*late));
  EXPECT_TRUE(answers(*early));
  const auto left = std::ranges::count_if(idle, [](const auto& s) { return answers(*s); });
  EXPECT_EQ(left, 3);
  EXPECT_EQ(server->refused(), 0U);
}

// Whoever connects fast does not decide when the others go.
TEST(Server, WhichStrangerGivesWayIsChance) {
  auto server = ConnectionServer::start(listen_tcp({}).value(), 1000,
                                        StrangerLimits{&kClock, 4, 600'000}, echo_and_know)
                    .value();
  const TcpAddress to{"127.0.0.1", server->port()};
  int stayed = 0;
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    const auto honest = connect_tcp(to, in_ms(10'000)).value();
    ASSERT_TRUE(answers(*honest));
    std::vector<std::unique_ptr<FdStream>> flood;
    for (int i = 0; i < 4; ++i) {
      flood.push_back(connect_tcp(to, in_ms(10'000)).value());
      ASSERT_TRUE(answers(*flood.back()));
    }
    stayed += answers(*honest) ? 1 : 0;
  }
  EXPECT_GT(stayed, 0);  // by chance alone, either fails one time in ten million
  EXPECT_LT(stayed, kRounds);
}

TEST(Server, AStrangerStaysForAWhileOnly) {
  auto server = ConnectionServer::start(listen_tcp({}).value(), 100, StrangerLimits{&kClock, 4, 50},
                                        echo_and_know)
                    .value();
  const TcpAddress to{"127.0.0.1", server->port()};
  const auto known = connect_tcp(to, in_ms(10'000)).value();
  ASSERT_TRUE(introduces_itself(*known));
  const auto stranger = connect_tcp(to, in_ms(10'000)).value();
  Bytes one(1);
  const auto end = stranger->read(one, in_ms(20'000));
  EXPECT_TRUE(end.ok() && *end == 0) << "closed by the server, without a word from here";
  EXPECT_TRUE(answers(*known));
}

TEST(Server, RefusesBeyondItsLimitAndRecovers) {
  auto server = ConnectionServer::start(listen_tcp({}).value(), 3, echo).value();
  const TcpAddress to{"127.0.0.1", server->port()};
  std::vector<std::unique_ptr<FdStream>> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(connect_tcp(to, in_ms(10'000)).value());
    EXPECT_TRUE(answers(*held.back()));
  }
  EXPECT_EQ(server->active(), 3U);
  auto refused = connect_tcp(to, in_ms(10'000)).value();
  EXPECT_FALSE(answers(*refused));
  EXPECT_EQ(server->refused(), 1U);
  EXPECT_TRUE(answers(*held[1]));  // the others did not notice
  held.pop_back();
  // The place is free as soon as the handler has returned.
  bool again = false;
  for (const Deadline end = in_ms(10'000); !again && !end.passed();) {
    again = answers(*connect_tcp(to, end).value());
  }
  EXPECT_TRUE(again);
}

TEST(Server, StopEndsHandlersThatWait) {
  std::atomic<int> ended{0};
  auto server = ConnectionServer::start(listen_tcp({}).value(), 8, [&ended](FdStream& s) {
                  echo(s);
                  ++ended;
                }).value();
  std::vector<std::unique_ptr<FdStream>> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(connect_tcp({"127.0.0.1", server->port()}, in_ms(10'000)).value());
    ASSERT_TRUE(answers(*clients.back()));
  }
  const std::int64_t start = kClock.steady_ms();
  server->stop();
  EXPECT_EQ(ended, 8);
  EXPECT_LT(kClock.steady_ms() - start, 20'000);  // the handlers would have waited 60 s
  for (auto& c : clients) EXPECT_FALSE(answers(*c));
  server->stop();  // again is harmless
}

TEST(Server, FiftyTlsConnectionsAtOnce) {
  SeededRandom random(1);
  const auto server_key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
  const auto client_key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random).value();
  std::mutex mutex;
  std::condition_variable all_here;
  int here = 0;
  const auto handler = [&](FdStream& s) {
    auto tls = TlsChannel::server(
        s, {&kClock, &server_key, PeerPolicy::pin({client_key.public_key()}), 60'000});
    if (!tls.ok()) return;
    const auto dispatch = [&](std::string_view method, const Json& body) -> Result<Json> {
      if (method == "meet") {  // answers nobody before all fifty are here
        std::unique_lock lock(mutex);
        ++here;
        all_here.notify_all();
        if (!in_ms(60'000).wait(all_here, lock, [&] { return here == 50; })) {
          return fail(Reason::kTimedOut, "meet");
        }
      }
      return body;
    };
    (void)serve(*tls, dispatch, {}, kClock);
  };
  auto server = ConnectionServer::start(listen_tcp({}).value(), 50, handler).value();
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([&, i] {
      auto s = connect_tcp({"127.0.0.1", server->port()}, in_ms(60'000));
      if (!s.ok()) return;
      auto tls = TlsChannel::client(
          **s, {&kClock, &client_key, PeerPolicy::pin({server_key.public_key()}), 60'000});
      if (!tls.ok()) return;
      RpcClient client(*tls, kClock);
      const auto met = client.call("meet", Json(i), 60'000);
      const auto echoed = client.call("echo", Json(i), 60'000);
      if (met.ok() && *met == Json(i) && echoed.ok() && *echoed == Json(i)) ++right;
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(right, 50);
  EXPECT_EQ(server->refused(), 0U);
}

}  // namespace
}  // namespace gbx::channel
