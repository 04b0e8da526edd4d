// Event logs: the published one replays to its quote's registers; what is malformed is refused.
#include "attest/tdx/event_log.h"

#include "attest/sim/events.h"
#include "attest/testing.h"
#include "crypto/crypto.h"

namespace gbx::attest::tdx {
namespace {

using testing::changed;
using testing::fails_with;
using testing::vector_file;

sim::SimLaunch launch() {
  sim::SimLaunch l;
  l.firmware.fill(1);
  l.machine = R"({"cpus":2})";
  l.kernel.fill(2);
  l.cmdline = "panic=-1";
  l.initrd.fill(3);
  return l;
}

TEST(EventLogVectors, ThePublishedLogReplaysToItsQuote) {
  GBX_NEEDS_VECTORS();
  const Bytes table = vector_file("tdx/tdx-cos113.ccel.bin");
  const Bytes quote = vector_file("tdx/tdx-cos113.quote.bin");
  const auto exact = log_without_padding(table);
  ASSERT_TRUE(exact.ok()) << exact.error().line();
  EXPECT_EQ(exact->size(), 18101U);
  const auto log = parse_event_log(*exact);
  ASSERT_TRUE(log.ok()) << log.error().line();
  EXPECT_EQ(log->events.size(), 43U);
  EXPECT_TRUE(equal(serialize(*log), *exact));
  const Quote q = parse_quote(without_padding(quote).value()).value();
  EXPECT_EQ(replay(*log), q.body.rtmr);
  // Any digest changed, any event lost: another register.
  for (std::size_t i = 0; i < log->events.size(); ++i) {
    EventLog other = *log;
    other.events[i].digest[0] ^= 1;
    EXPECT_NE(replay(other), q.body.rtmr) << i;
    other = *log;
    other.events.erase(other.events.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_NE(replay(other), q.body.rtmr) << i;
  }
}

TEST(EventLogTest, WrittenAndReadAgainIsTheSame) {
  EventLog log = parse_event_log(sim::sim_events(launch()).log).value();
  log.events.push_back({0, kEventNoAction, {}, Bytes(3, 1)});
  log.header_index = 0;
  log.errata = 2;
  const Bytes bytes = serialize(log);
  EXPECT_EQ(parse_event_log(bytes).value(), log);
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const auto cut = parse_event_log(ByteView(bytes).first(n));
    EXPECT_TRUE(!cut.ok() || serialize(*cut).size() == n) << n;
  }
}

TEST(EventLogTest, RegistersAreExtendedInOrder) {
  EventLog log;
  Register a, b;
  a.fill(1);
  b.fill(2);
  log.events = {{2, kEventIpl, a, {}}, {2, kEventNoAction, b, {}}, {2, kEventIpl, b, {}}};
  const auto r = replay(log);
  const Register once = crypto::sha384(concat({Register{}, a}));
  EXPECT_EQ(r[1], crypto::sha384(concat({once, b})));
  EXPECT_EQ(r[0], Register{});
  std::swap(log.events[0], log.events[2]);
  EXPECT_NE(replay(log), r);
}

TEST(EventLogTest, MalformedLogsAreRefused) {
  const Bytes good = sim::sim_events(launch()).log;
  constexpr std::size_t kFirst = 32 + 33;  // of the first event
  EXPECT_TRUE(fails_with(parse_event_log({}), Reason::kTruncated));
  for (const std::size_t at : {4U, 8U, 28U, 32U, 48U, 52U, 53U, 55U, 64U}) {
    EXPECT_TRUE(fails_with(parse_event_log(changed(good, at)), Reason::kBadMagic)) << at;
  }
  for (const std::size_t at : {56U, 60U, 62U}) {
    EXPECT_TRUE(fails_with(parse_event_log(changed(good, at)), Reason::kBadSuite)) << at;
  }
  EXPECT_TRUE(fails_with(parse_event_log(changed(good, kFirst, 0)), Reason::kBadValue)) << "MRTD";
  EXPECT_TRUE(fails_with(parse_event_log(changed(good, kFirst, 2)), Reason::kBadValue)) << "5";
  EXPECT_TRUE(fails_with(parse_event_log(changed(good, kFirst + 8)), Reason::kBadSuite));
  EXPECT_TRUE(fails_with(parse_event_log(changed(good, kFirst + 12)), Reason::kBadSuite));
  EXPECT_TRUE(
      fails_with(parse_event_log(changed(good, kFirst + 14 + 48 + 2, 7)), Reason::kTooLarge));
  EXPECT_TRUE(fails_with(parse_event_log(Bytes(kMaxLogBytes + 1, 0)), Reason::kTooLarge));
  EventLog many;
  many.events.resize(3970);
  EXPECT_TRUE(parse_event_log(serialize(many)).ok());
  many.events.resize(3971);
  EXPECT_TRUE(fails_with(parse_event_log(serialize(many)), Reason::kTooLarge));
}

TEST(EventLogTest, PaddingIsOnesOrZerosAndNothingElse) {
  const Bytes log = sim::sim_events(launch()).log;
  for (const std::size_t n : {0U, 1U, 7U, 8U, 5000U}) {
    for (const bool ones : {false, true}) {
      const Bytes filling(n, ones ? 0xff : 0);
      const auto exact = log_without_padding(concat({log, filling}));
      ASSERT_TRUE(exact.ok()) << n << ": " << exact.error().line();
      EXPECT_EQ(exact->size(), log.size()) << n;
    }
  }
  const Bytes ones = concat({log, Bytes(64, 0xff)});
  EXPECT_FALSE(log_without_padding(changed(ones, ones.size() - 1)).ok());
  EXPECT_TRUE(fails_with(log_without_padding(Bytes(kMaxLogBytes + 1, 0)), Reason::kTooLarge));
}

TEST(SimEventsTest, EachPartHasItsRegister) {
  const sim::SimEvents events = sim::sim_events(launch());
  const EventLog log = parse_event_log(events.log).value();
  EXPECT_EQ(replay(log), events.measured.rtmr);
  EXPECT_EQ(events.measured.mrtd, launch().firmware);
  EXPECT_EQ(events.measured.rtmr[0],
            extend({}, crypto::sha384(as_bytes(std::string_view(R"({"cpus":2})")))));
  EXPECT_EQ(events.measured.rtmr[1], extend({}, launch().kernel));
  EXPECT_EQ(events.measured.rtmr[2],
            extend(extend({}, crypto::sha384(as_bytes("panic=-1"))), launch().initrd));
  EXPECT_EQ(events.measured.rtmr[3], Register{});
  EXPECT_EQ(events.parts.rtmr1, events.measured.rtmr[1]);
  EXPECT_EQ(events.parts.rtmr2, events.measured.rtmr[2]);
  // Each part moves its register and no other.
  const auto differs = [&](auto&& change) {
    sim::SimLaunch l = launch();
    change(l);
    const auto other = sim::sim_events(l).measured;
    std::string out = other.mrtd != events.measured.mrtd ? "m" : "";
    for (std::size_t i = 0; i < 4; ++i) {
      if (other.rtmr[i] != events.measured.rtmr[i]) out += std::to_string(i);
    }
    return out;
  };
  EXPECT_EQ(differs([](auto& l) { l.firmware[0] ^= 1; }), "m");
  EXPECT_EQ(differs([](auto& l) { l.machine += " "; }), "0");
  EXPECT_EQ(differs([](auto& l) { l.kernel[0] ^= 1; }), "1");
  EXPECT_EQ(differs([](auto& l) { l.cmdline += " quiet"; }), "2");
  EXPECT_EQ(differs([](auto& l) { l.initrd[0] ^= 1; }), "2");
}

}  // namespace
}  // namespace gbx::attest::tdx
