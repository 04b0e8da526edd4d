#include "channel/stream.h"

#include <gtest/gtest.h>

#include <thread>

namespace gbx::channel {
namespace {

const SystemClock kClock;
Deadline in_ms(std::int64_t ms) { return Deadline::after_ms(kClock, ms); }

using Ends = std::pair<std::unique_ptr<ByteStream>, std::unique_ptr<ByteStream>>;
Ends socket_ends() {
  auto pair = make_socket_pair().value();
  return {FdStream::create(std::move(pair.first)).value(),
          FdStream::create(std::move(pair.second)).value()};
}
Ends pipe_ends() {
  auto there = make_pipe().value();
  auto back = make_pipe().value();
  return {FdStream::create(std::move(back.first), std::move(there.second)).value(),
          FdStream::create(std::move(there.first), std::move(back.second)).value()};
}

struct Kind {
  const char* name;
  Ends (*make)();
};
class Streams : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(All, Streams,
                         testing::Values(Kind{"Memory", [] { return make_memory_pipe(4096); }},
                                         Kind{"Socket", socket_ends}, Kind{"Pipe", pipe_ends}),
                         [](const auto& param) { return param.param.name; });

TEST_P(Streams, CarryALargeMessageBothWaysAtOnceThenEnd) {
  auto [a, b] = GetParam().make();
  Bytes message(3'000'000);
  SeededRandom(1).fill(message);
  const auto both = [&message](ByteStream& s) {
    std::thread writer([&] {
      EXPECT_TRUE(s.write_all(message, in_ms(20'000)).ok());
      EXPECT_TRUE(s.finish(in_ms(1000)).ok());
    });
    Bytes got(message.size());
    EXPECT_TRUE(read_exact(s, got, in_ms(20'000)).ok());
    EXPECT_EQ(got, message);
    Bytes more(1);
    EXPECT_EQ(s.read(more, in_ms(20'000)).value(), 0U);
    writer.join();
  };
  std::thread other([&both, &end = *b] { both(end); });
  both(*a);
  other.join();
}

TEST_P(Streams, DeadlinesAreKept) {
  auto [a, b] = GetParam().make();
  Bytes byte(1);
  const std::int64_t start = kClock.steady_ms();
  EXPECT_EQ(a->read(byte, in_ms(50)).reason(), Reason::kTimedOut);
  EXPECT_GE(kClock.steady_ms() - start, 49);
  // Nobody reads: a write that cannot fit ends too.
  const Bytes large(4'000'000);
  EXPECT_EQ(a->write_all(large, in_ms(50)).reason(), Reason::kTimedOut);
}

TEST_P(Streams, CloseWakesAReaderAndAWriter) {
  auto [a, b] = GetParam().make();
  std::thread reader([&end = *a] {
    Bytes byte(1);
    EXPECT_EQ(end.read(byte, in_ms(20'000)).reason(), Reason::kConnectionClosed);
  });
  std::thread writer([&end = *a] {
    const Bytes large(4'000'000);
    EXPECT_EQ(end.write_all(large, in_ms(20'000)).reason(), Reason::kConnectionClosed);
  });
  Bytes some(1000);
  EXPECT_TRUE(read_exact(*b, some, in_ms(20'000)).ok());  // the writer is under way
  a->close();
  reader.join();
  writer.join();
}

TEST_P(Streams, AVanishedPeerIsAnErrorForWritersAndNoSignal) {
  auto [a, b] = GetParam().make();
  b.reset();
  const Bytes large(4'000'000);
  EXPECT_EQ(a->write_all(large, in_ms(20'000)).reason(), Reason::kConnectionClosed);
}

TEST(Stream, TruncationIsNotAShortRead) {
  auto [a, b] = make_memory_pipe();
  ASSERT_TRUE(a->write_all(as_bytes("abc"), in_ms(1000)).ok());
  ASSERT_TRUE(a->finish(in_ms(1000)).ok());
  Bytes four(4);
  EXPECT_EQ(read_exact(*b, four, in_ms(1000)).reason(), Reason::kTruncated);
}

TEST(Stream, BoundedBufferWrapsAround) {
  BoundedBuffer buffer(7);
  SeededRandom random(2);
  std::uint8_t next_in = 0;
  std::uint8_t next_out = 0;
  for (int i = 0; i < 10'000; ++i) {
    Bytes in(random.below(9));
    for (std::size_t k = 0; k < in.size(); ++k) in[k] = static_cast<std::uint8_t>(next_in + k);
    const std::size_t room = buffer.room();
    const std::size_t n = buffer.write(in);
    ASSERT_EQ(n, std::min(in.size(), room));
    next_in = static_cast<std::uint8_t>(next_in + n);
    Bytes out(random.below(9));
    const std::size_t got = buffer.read(out);
    for (std::size_t k = 0; k < got; ++k) ASSERT_EQ(out[k], next_out++);
    ASSERT_LE(buffer.size(), 7U);
  }
}

TEST(Relay, PassesBytesAndEndsBothWays) {
  auto [client, left] = make_memory_pipe(1000);
  auto [right, server] = make_memory_pipe(1000);
  Status relayed;
  std::thread relay_thread([&, &l = *left, &r = *right] { relayed = relay(l, r, {}, kClock); });
  std::thread echo([&end = *server] {
    Bytes all(100'000);
    EXPECT_TRUE(read_exact(end, all, in_ms(20'000)).ok());
    Bytes one(1);
    EXPECT_EQ(end.read(one, in_ms(20'000)).value(), 0U);  // the client's end came through
    EXPECT_TRUE(end.write_all(all, in_ms(20'000)).ok());
    EXPECT_TRUE(end.finish(in_ms(1000)).ok());
  });
  Bytes message(100'000);
  SeededRandom(3).fill(message);
  EXPECT_TRUE(client->write_all(message, in_ms(20'000)).ok());
  EXPECT_TRUE(client->finish(in_ms(1000)).ok());
  Bytes back(message.size());
  EXPECT_TRUE(read_exact(*client, back, in_ms(20'000)).ok());
  EXPECT_EQ(back, message);
  relay_thread.join();
  echo.join();
  EXPECT_TRUE(relayed.ok());
}

TEST(Relay, StopsAtSilenceAndAtItsByteLimit) {
  {
    auto [client, left] = make_memory_pipe();
    auto [right, server] = make_memory_pipe();
    RelayLimits limits;
    limits.idle_ms = 30;
    EXPECT_EQ(relay(*left, *right, limits, kClock).reason(), Reason::kTimedOut);
  }
  auto [client, left] = make_memory_pipe();
  auto [right, server] = make_memory_pipe();
  RelayLimits limits;
  limits.max_bytes = 10;
  ASSERT_TRUE(client->write_all(Bytes(11), in_ms(1000)).ok());
  EXPECT_EQ(relay(*left, *right, limits, kClock).reason(), Reason::kTooLarge);
  Bytes byte(1);
  EXPECT_EQ(server->read(byte, in_ms(1000)).value(), 0U);  // closed, with nothing passed on
}

}  // namespace
}  // namespace gbx::channel
