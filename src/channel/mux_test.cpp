#include "channel/mux.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "base/threads.h"
#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::channel {
namespace {

const SystemClock kClock;
Deadline in_ms(std::int64_t ms) { return Deadline::after_ms(kClock, ms); }
using Kind = MuxFrame::Kind;

struct Both {
  explicit Both(MuxOptions options = {})
      : ends(make_memory_pipe(8192)),
        a(*ends.first, kClock, options),
        b(*ends.second, kClock, options) {}
  std::pair<std::unique_ptr<ByteStream>, std::unique_ptr<ByteStream>> ends;
  Mux a, b;
};

TEST(Mux, AllStreamsAtOnceKeepTheirBytesApart) {
  Both m;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 16; ++i) {
    const auto run = [i](Mux& mux) {
      Bytes message(700'000);
      SeededRandom(i).fill(message);
      MuxStream& s = mux.stream(i);
      std::thread writer([&] {
        EXPECT_TRUE(s.write_all(message, in_ms(60'000)).ok());
        EXPECT_TRUE(s.finish(in_ms(1000)).ok());
      });
      Bytes got(message.size());
      EXPECT_TRUE(read_exact(s, got, in_ms(60'000)).ok());
      EXPECT_EQ(got, message);
      Bytes one(1);
      EXPECT_EQ(s.read(one, in_ms(60'000)).value(), 0U);
      writer.join();
    };
    threads.emplace_back([&m, run] { run(m.a); });
    threads.emplace_back([&m, run] { run(m.b); });
  }
  for (auto& t : threads) t.join();
  EXPECT_TRUE(m.a.state().ok());
  EXPECT_TRUE(m.b.state().ok());
}

// As where containers have taken all that the machine has: what needed one fails, and the program
// goes on.
TEST(Mux, NoThreadToBeHadIsAnError) {
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    const rlimit none{1, 1};  // this process is the one
    if ((geteuid() == 0 && setresuid(64'123, 64'123, 64'123) != 0) ||
        setrlimit(RLIMIT_NPROC, &none) != 0 || start_thread([] {}).ok()) {
      _exit(9);
    }
    int bad = 0;
    {
      Both m;
      bad += m.a.state().reason() == Reason::kUnavailable ? 0 : 1;
      Bytes one(1);
      bad += m.a.stream(0).read(one, in_ms(60'000)).ok() ? 2 : 0;
    }
    auto left = make_memory_pipe(64);
    auto right = make_memory_pipe(64);
    bad += relay(*left.first, *right.first, {}, kClock).reason() == Reason::kUnavailable ? 0 : 4;
    _exit(bad);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Mux, AReaderWhoDoesNotReadStopsOnlyHisOwnStream) {
  Both m;
  // Exactly one window fits; the next byte waits.
  ASSERT_TRUE(m.a.stream(kMuxBroker).write_all(Bytes(kMuxWindow), in_ms(20'000)).ok());
  EXPECT_EQ(m.a.stream(kMuxBroker).write_all(Bytes(1), in_ms(40)).reason(), Reason::kTimedOut);
  std::thread server([&] {
    const auto echo = [](std::string_view, const Json& body) -> Result<Json> { return body; };
    EXPECT_TRUE(serve(m.b.stream(kMuxControl), echo, {}, kClock).ok());
  });
  RpcClient client(m.a.stream(kMuxControl), kClock);
  for (int i = 0; i < 50; ++i) {
    EXPECT_TRUE(client.call("echo", Json(std::string(20'000, 'x')), 20'000).ok());
  }
  EXPECT_TRUE(m.a.stream(kMuxControl).finish(in_ms(1000)).ok());
  server.join();
  // Once it is read, it moves again.
  Bytes got(kMuxWindow);
  ASSERT_TRUE(read_exact(m.b.stream(kMuxBroker), got, in_ms(20'000)).ok());
  EXPECT_TRUE(m.a.stream(kMuxBroker).write_all(Bytes(1), in_ms(20'000)).ok());
}

TEST(Mux, ABulkTransferDoesNotStarveACall) {
  Both m;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> moved{0};
  std::thread bulk_writer([&] {
    const Bytes piece(1 << 20);
    while (!stop) EXPECT_TRUE(m.a.stream(kMuxBroker).write_all(piece, in_ms(60'000)).ok());
    EXPECT_TRUE(m.a.stream(kMuxBroker).finish(in_ms(60'000)).ok());
  });
  std::thread bulk_reader([&] {
    Bytes piece(1 << 16);
    for (;;) {
      auto n = m.b.stream(kMuxBroker).read(piece, in_ms(60'000));
      ASSERT_TRUE(n.ok());
      if (*n == 0) return;
      moved += *n;
    }
  });
  std::thread server([&] {
    const auto echo = [](std::string_view, const Json& body) -> Result<Json> { return body; };
    EXPECT_TRUE(serve(m.b.stream(kMuxControl), echo, {}, kClock).ok());
  });
  RpcClient client(m.a.stream(kMuxControl), kClock);
  const std::uint64_t before = moved;
  int calls = 0;
  // Each call waits for a few turns of the bulk transfer at most, never for its end: it has none
  // before the calls' end.
  for (; calls < 200; ++calls) ASSERT_TRUE(client.call("echo", Json(calls), 60'000).ok());
  const std::uint64_t during = moved - before;
  stop = true;
  bulk_writer.join();
  bulk_reader.join();
  EXPECT_TRUE(m.a.stream(kMuxControl).finish(in_ms(1000)).ok());
  server.join();
  EXPECT_GT(during, 0U);
  // In turn: between a call and its answer no more than what stood before it in the queue and in
  // the pipes.
  EXPECT_LT(during / 200, std::uint64_t{4} * kMuxWindow);
}

// As the agent and its node do it: one byte on the control stream asks, one answers.
TEST(Mux, AStreamThatBothSidesEndedStartsAnew) {
  Both m;  // a asks, b answers
  const auto tell = [](Mux& from, Mux& to) {
    Bytes one(1);
    ASSERT_TRUE(from.stream(kMuxControl).write_all(one, in_ms(20'000)).ok());
    ASSERT_TRUE(read_exact(to.stream(kMuxControl), one, in_ms(20'000)).ok());
  };
  for (std::uint8_t i = 0; i < 50; ++i) {
    tell(m.a, m.b);
    if (i > 0) m.b.stream(kMuxBroker).close();
    MuxStream& b = *m.b.fresh(kMuxBroker).value();
    tell(m.b, m.a);
    MuxStream& a = *m.a.fresh(kMuxBroker).value();
    Bytes got(100'000);  // enough for a word about credit
    ASSERT_TRUE(a.write_all(Bytes(got.size(), i), in_ms(20'000)).ok());
    ASSERT_TRUE(read_exact(b, got, in_ms(20'000)).ok());
    EXPECT_EQ(got, Bytes(got.size(), i));
    // A whole window that nobody reads is forgotten with the stream.
    ASSERT_TRUE(b.write_all(Bytes(kMuxWindow), in_ms(20'000)).ok());
    a.close();
    EXPECT_EQ(m.a.fresh(kMuxBroker).reason(), Reason::kWrongState);  // b has not ended it
  }
  EXPECT_EQ(m.a.fresh(kMuxStreams).reason(), Reason::kBadValue);
  EXPECT_TRUE(m.a.state().ok());
  EXPECT_TRUE(m.b.state().ok());
}

TEST(Mux, TlsToTheBrokerThroughTheNode) {
  SeededRandom random(7);
  const auto agent_key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random).value();
  const auto broker_key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random).value();
  Both m;  // a: agent, b: node
  auto [node_end, broker_end] = make_memory_pipe();
  Status relayed;
  std::thread node(
      [&, &end = *node_end] { relayed = relay(m.b.stream(kMuxBroker), end, {}, kClock); });
  Hash32 broker_exporter{};
  std::thread broker([&, &end = *broker_end] {
    auto tls = TlsChannel::server(end, {&kClock, &broker_key, PeerPolicy::any_key(), 20'000});
    ASSERT_TRUE(tls.ok()) << tls.error().line();
    EXPECT_EQ(*tls->peer_key(), agent_key.public_key());
    broker_exporter = tls->exporter("EXPORTER-gbx-test", {}).value();
    const auto echo = [](std::string_view, const Json& body) -> Result<Json> { return body; };
    EXPECT_TRUE(serve(*tls, echo, {}, kClock).ok());
    EXPECT_TRUE(tls->finish(in_ms(1000)).ok());
    EXPECT_TRUE(end.finish(in_ms(1000)).ok());
  });
  MuxStream& s = m.a.stream(kMuxBroker);
  auto tls = TlsChannel::client(
      s, {&kClock, &agent_key, PeerPolicy::pin({broker_key.public_key()}), 20'000});
  ASSERT_TRUE(tls.ok()) << tls.error().line();
  RpcClient client(*tls, kClock);
  EXPECT_EQ(client.call("echo", Json(7), 20'000).value(), Json(7));
  const Hash32 own = tls->exporter("EXPORTER-gbx-test", {}).value();
  EXPECT_TRUE(tls->finish(in_ms(1000)).ok());
  EXPECT_TRUE(s.finish(in_ms(1000)).ok());
  Bytes one(1);
  EXPECT_EQ(tls->read(one, in_ms(20'000)).value(), 0U);
  EXPECT_EQ(s.read(one, in_ms(20'000)).value(), 0U);
  broker.join();
  node.join();
  EXPECT_TRUE(relayed.ok()) << relayed.error().line();
  EXPECT_EQ(own, broker_exporter);
}

TEST(Mux, ClosingAStreamEndsItAndNothingElse) {
  Both m;
  m.a.stream(5).close();
  Bytes one(1);
  EXPECT_EQ(m.b.stream(5).read(one, in_ms(20'000)).value(), 0U);
  EXPECT_EQ(m.a.stream(5).read(one, in_ms(1000)).reason(), Reason::kConnectionClosed);
  EXPECT_EQ(m.a.stream(5).write_all(one, in_ms(1000)).reason(), Reason::kConnectionClosed);
  // What still comes in is dropped, and the peer stops at its window.
  EXPECT_TRUE(m.b.stream(5).write_all(Bytes(kMuxWindow), in_ms(20'000)).ok());
  EXPECT_EQ(m.b.stream(5).write_all(one, in_ms(40)).reason(), Reason::kTimedOut);
  ASSERT_TRUE(m.b.stream(6).write_all(one, in_ms(1000)).ok());
  EXPECT_EQ(m.a.stream(6).read(one, in_ms(20'000)).value(), 1U);
}

TEST(Mux, AWriterThatIsEndedFromAnotherThreadNeverSpoilsTheMux) {
  for (int round = 0; round < 100; ++round) {
    Both m;
    std::thread writer([&] {
      const Bytes piece(100);
      for (int i = 0; i < 200; ++i) {
        Status s = m.a.stream(1).write_all(piece, in_ms(20'000));
        if (!s.ok()) {
          EXPECT_EQ(s.reason(), Reason::kConnectionClosed);
          return;
        }
      }
    });
    m.a.stream(1).close();
    writer.join();
    Bytes sink(1000);
    for (;;) {
      auto n = m.b.stream(1).read(sink, in_ms(20'000));
      ASSERT_TRUE(n.ok()) << n.error().line();
      if (*n == 0) break;
    }
    EXPECT_TRUE(m.b.state().ok());
  }
}

TEST(Mux, TheEndBelowEndsReadersAndWriters) {
  Both m;
  std::thread reader([&] {
    Bytes one(1);
    EXPECT_EQ(m.a.stream(1).read(one, in_ms(20'000)).reason(), Reason::kConnectionClosed);
  });
  std::thread writer([&] {
    EXPECT_EQ(m.a.stream(2).write_all(Bytes(10 * kMuxWindow), in_ms(20'000)).reason(),
              Reason::kConnectionClosed);
  });
  m.b.close();
  reader.join();
  writer.join();
  EXPECT_EQ(m.a.wait_end(in_ms(20'000)).reason(), Reason::kConnectionClosed);
}

TEST(Mux, HeadersRoundTrip) {
  for (const MuxFrame& f : {MuxFrame{Kind::kData, 0, 1}, MuxFrame{Kind::kData, 63, kMuxMaxPayload},
                            MuxFrame{Kind::kEnd, 7, 0}, MuxFrame{Kind::kCredit, 15, 4}}) {
    const MuxFrame g = decode_mux_header(encode_mux_header(f), 64).value();
    EXPECT_EQ(g.kind, f.kind);
    EXPECT_EQ(g.stream, f.stream);
    EXPECT_EQ(g.size, f.size);
  }
  // The bytes on the wire: kind credit on stream 2, four bytes.
  EXPECT_EQ(encode_mux_header({Kind::kCredit, 2, 4}), (FixedBytes<5>{0x82, 4, 0, 0, 0}));
}

// What a Mux says about a peer that sends exactly these bytes.
Error says(ByteView raw, bool then_end = true) {
  auto [near, far] = make_memory_pipe(1 << 20);
  Mux mux(*near, kClock);
  EXPECT_TRUE(far->write_all(raw, in_ms(10'000)).ok());
  if (then_end) {
    EXPECT_TRUE(far->finish(in_ms(1000)).ok());
  }
  return mux.wait_end(in_ms(10'000)).error();
}
Bytes frame(MuxFrame f, std::size_t actual) {
  Bytes out = to_bytes(encode_mux_header(f));
  out.resize(out.size() + actual, 1);
  return out;
}
Bytes credit(std::size_t stream, std::uint32_t n) {
  return ByteWriter().raw(encode_mux_header({Kind::kCredit, stream, 4})).u32(n).take();
}

TEST(Mux, HostilePeers) {
  EXPECT_EQ(says({}).reason, Reason::kConnectionClosed);
  // well-formed
  EXPECT_EQ(says(frame({Kind::kData, 1, 10}, 10)).reason, Reason::kConnectionClosed);
  const Bytes third{0x00, 1, 0};
  EXPECT_EQ(says(third).reason, Reason::kTruncated);
  EXPECT_EQ(says(frame({Kind::kData, 1, 10}, 9)).reason, Reason::kTruncated);
  // Refused by the header alone: nothing follows, and the stream stays open.
  EXPECT_EQ(says(frame({Kind::kData, 1, 65'537}, 0), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(frame({Kind::kData, 1, 0xFFFFFFFF}, 0), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(frame({Kind::kData, 1, 0}, 0), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(frame({Kind::kData, 16, 1}, 1), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(frame({Kind::kEnd, 63, 0}, 0), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(frame({Kind::kEnd, 1, 1}, 1), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(frame({Kind::kCredit, 1, 3}, 3), false).reason, Reason::kBadStructure);
  const Bytes unknown_kind{0xC1, 0, 0, 0, 0};
  EXPECT_EQ(says(unknown_kind, false).reason, Reason::kBadStructure);
  const Bytes end = frame({Kind::kEnd, 1, 0}, 0);
  EXPECT_EQ(says(concat({end, end}), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(concat({end, frame({Kind::kData, 1, 1}, 1)}), false).reason,
            Reason::kBadStructure);
  // Credit for what was never sent.
  EXPECT_EQ(says(credit(1, 1), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(credit(1, 0), false).reason, Reason::kBadStructure);
  EXPECT_EQ(says(credit(1, 0xFFFFFFFF), false).reason, Reason::kBadStructure);
  // One byte more than the window, on one stream, without anybody reading.
  Bytes flood;
  for (std::size_t i = 0; i < kMuxWindow / kMuxMaxPayload; ++i) {
    append(flood, frame({Kind::kData, 2, kMuxMaxPayload}, kMuxMaxPayload));
  }
  EXPECT_EQ(says(flood).reason, Reason::kConnectionClosed);
  append(flood, frame({Kind::kData, 2, 1}, 0));
  EXPECT_EQ(says(flood, false).reason, Reason::kBadStructure);
}

TEST(Mux, BytesBeforeAnErrorAreStillRead) {
  auto [near, far] = make_memory_pipe();
  Mux mux(*near, kClock);
  ASSERT_TRUE(
      far->write_all(concat({frame({Kind::kData, 3, 5}, 5), frame({Kind::kData, 16, 1}, 0)}),
                     in_ms(1000))
          .ok());
  EXPECT_EQ(mux.wait_end(in_ms(10'000)).reason(), Reason::kBadStructure);
  Bytes five(5);
  EXPECT_TRUE(read_exact(mux.stream(3), five, in_ms(1000)).ok());
  EXPECT_EQ(mux.stream(3).read(five, in_ms(1000)).reason(), Reason::kBadStructure);
}

TEST(Mux, RandomBytesNeverHangOrCrash) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SeededRandom random(seed);
    Bytes raw(random.below(400));
    random.fill(raw);
    // Half of them start like a frame, to get further.
    if (seed % 2 == 0 && raw.size() > 5) {
      raw[0] = static_cast<std::uint8_t>(raw[0] & 0x8F);
      raw[1] = 4;
      raw[2] = raw[3] = raw[4] = 0;
    }
    EXPECT_NE(says(raw).reason, Reason::kTimedOut) << seed;
  }
}

TEST(Mux, APeerThatNeverReadsEndsTheMuxAfterItsWriteTime) {
  auto [near, far] = make_memory_pipe(1000);
  MuxOptions options;
  options.write_ms = 40;
  Mux mux(*near, kClock, options);
  EXPECT_EQ(mux.stream(0).write_all(Bytes(5000), in_ms(20'000)).reason(), Reason::kTimedOut);
  EXPECT_EQ(mux.state().reason(), Reason::kTimedOut);
}

}  // namespace
}  // namespace gbx::channel
