// Ledgers and beacons as their readers believe them, with figures worked out by hand.
#include "cli/ledger.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "broker/testing.h"
#include "cli/beacon.h"
#include "translog/translog.h"

namespace gbx::cli {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::kNow;
using gbx::testing::must;

constexpr std::int64_t kDay = 86400;

LedgerEntry entry(std::uint8_t job, std::uint8_t consumer, std::int64_t bits, std::int64_t day) {
  LedgerEntry e;
  e.job_id.fill(job);
  e.consumer_id.fill(consumer);
  e.state = LedgerState::kReleased;
  e.free_bits = bits;
  e.verified_bits = bits / 10;
  e.time = kNow + day * kDay;
  return e;
}
// Three jobs of two consumers, the first of them before the period of 30 days.
LedgerStatement statement() {
  LedgerStatement s;
  s.asset_id.fill(7);
  s.owner_id.fill(8);
  s.limits.period_free_bits = 3000;
  s.limits.total_free_bits = 5000;
  s.row_bits = 120;
  s.entries = {entry(1, 1, 1000, 0), entry(2, 2, 2000, 10), entry(3, 1, 600, 35)};
  s.period_free_bits = 2600;
  s.total_free_bits = 3600;
  s.total_verified_bits = 360;
  s.count = 3;
  s.time = kNow + 40 * kDay;
  return s;
}
Ledger ledger() {
  LedgerStatement s = statement();
  Ledger l;
  l.entries = std::move(s.entries);
  s.entries.clear();
  l.head = std::move(s);
  return l;
}

// A broker that answers with pages of a statement, at most `page` entries each.
struct Pages {
  Pages() : random(5), set(gbx::testing::make_key_set(random)) {}
  AskLedger answer() {
    return [this](const LedgerRequest& r) -> Result<Signed<LedgerStatement>> {
      ++asked;
      LedgerStatement s = said;
      s.nonce = r.nonce;
      s.consumer = r.consumer;
      const auto all = static_cast<std::ptrdiff_t>(said.entries.size());
      const auto from = std::min(static_cast<std::ptrdiff_t>(r.after), all);
      const auto end = std::min(from + page, all);
      s.entries.assign(said.entries.begin() + from, said.entries.begin() + end);
      if (change) change(s, asked);
      return records::sign(set.id(), s, signer != nullptr ? *signer : set.signing);
    };
  }
  Result<Ledger> fetch(std::optional<Hash32> consumer = std::nullopt) {
    const auto keys = must(set.chain.verify(set.id()));
    return fetch_ledger(keys, {said.asset_id, said.owner_id, consumer}, random, answer());
  }
  SeededRandom random;
  gbx::testing::KeySet set;
  LedgerStatement said = statement();
  std::ptrdiff_t page = 1000;
  int asked = 0;
  const crypto::SigningKey* signer = nullptr;
  std::function<void(LedgerStatement&, int)> change;
};

TEST(LedgerRead, AllPagesOnce) {
  Pages p;
  p.page = 2;
  const Ledger l = must(p.fetch());
  EXPECT_EQ(p.asked, 2);
  ASSERT_EQ(l.entries.size(), 3u);
  EXPECT_EQ(l.entries[2].free_bits, 600);
  EXPECT_EQ(l.head.total_free_bits, 3600);
}

TEST(LedgerRead, OnlyTheSetsAnswerToThisQuestionIsBelieved) {
  const auto refused = [](const std::function<void(LedgerStatement&, int)>& change) {
    Pages p;
    p.change = change;
    return p.fetch().reason();
  };
  EXPECT_EQ(refused([](LedgerStatement& s, int) { s.nonce[0] ^= 1; }), Reason::kNonceMismatch);
  EXPECT_EQ(refused([](LedgerStatement& s, int) { s.asset_id[0] ^= 1; }), Reason::kWrongAsset);
  EXPECT_EQ(refused([](LedgerStatement& s, int) { s.owner_id[0] ^= 1; }), Reason::kWrongOwner);
  EXPECT_EQ(refused([](LedgerStatement& s, int) { s.consumer = Hash32{}; }), Reason::kWrongOwner);
  Pages p;
  const auto other = gbx::testing::make_key_set(p.random);
  p.signer = &other.signing;
  EXPECT_EQ(p.fetch().reason(), Reason::kBadSignature);
}

TEST(LedgerRead, SumsMustBeThoseOfTheEntries) {
  const auto refused = [](const std::function<void(LedgerStatement&)>& change,
                          std::optional<Hash32> consumer = std::nullopt) {
    Pages p;
    p.change = [&](LedgerStatement& s, int) { change(s); };
    return p.fetch(consumer).reason();
  };
  EXPECT_EQ(refused([](LedgerStatement& s) { s.total_free_bits -= 1; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](LedgerStatement& s) { s.total_verified_bits += 1; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](LedgerStatement& s) { s.period_free_bits = 3601; }), Reason::kBadStructure);
  EXPECT_EQ(refused([](LedgerStatement& s) { s.entries.pop_back(); }), Reason::kBadStructure);
  EXPECT_EQ(refused([](LedgerStatement& s) { s.entries.clear(); }), Reason::kBadStructure);
  EXPECT_EQ(refused([](LedgerStatement& s) { s.entries[1] = s.entries[0]; }),
            Reason::kBadStructure);
  EXPECT_EQ(refused([](LedgerStatement& s) { std::swap(s.entries[1], s.entries[2]); }),
            Reason::kBadStructure);
  EXPECT_EQ(refused([](LedgerStatement& s) { s.count = kMostLedgerEntries + 1; }),
            Reason::kBadStructure);
  Hash32 first{};
  first.fill(1);
  EXPECT_EQ(refused([](LedgerStatement&) {}, first), Reason::kBadStructure);  // has another's job
}

// However long a ledger has become: its newest entries, and sums that stay those of all.
TEST(LedgerRead, OfAVeryLongOneTheNewestAreRead) {
  Pages p;
  const auto keys = must(p.set.chain.verify(p.set.id()));
  const LedgerQuestion q{p.said.asset_id, p.said.owner_id, std::nullopt};
  const Ledger l = must(fetch_ledger(keys, q, p.random, p.answer(), 2));
  ASSERT_EQ(l.entries.size(), 2U);
  EXPECT_EQ(l.earlier, 1);
  EXPECT_EQ(l.entries[0].free_bits, 2000);
  EXPECT_EQ(l.head.total_free_bits, 3600);
  EXPECT_NE(ledger_text(l, "wdbc").find("NOT LISTED        1 earlier job:"), std::string::npos);
  EXPECT_EQ(*ledger_json(l).find("earlier")->integer(), 1);
  EXPECT_EQ(series_of(l, 1).bits, std::vector<std::int64_t>{3600}) << "it begins with theirs";
  p.change = [](LedgerStatement& s, int) { s.total_free_bits = 2599; };
  EXPECT_EQ(fetch_ledger(keys, q, p.random, p.answer(), 2).reason(), Reason::kBadStructure);
}

TEST(LedgerRead, TheHeadAloneIsOneQuestion) {
  Pages p;
  const auto keys = must(p.set.chain.verify(p.set.id()));
  const LedgerQuestion q{p.said.asset_id, p.said.owner_id, std::nullopt};
  const LedgerStatement head = must(fetch_head(keys, q, p.random, p.answer()));
  EXPECT_EQ(p.asked, 1);
  EXPECT_TRUE(head.entries.empty());
  EXPECT_EQ(head.count, 3);
  EXPECT_EQ(*limits_json(head).find("left")->integer(), 1400);
  p.change = [](LedgerStatement& s, int) { s.nonce[0] ^= 1; };
  EXPECT_EQ(fetch_head(keys, q, p.random, p.answer()).reason(), Reason::kNonceMismatch);
}

TEST(LedgerRead, OneThatChangesMeanwhileIsReadAgain) {
  Pages p;
  p.page = 2;
  p.change = [](LedgerStatement& s, int asked) {
    if (asked == 2) s.total_free_bits += 8;
  };
  EXPECT_TRUE(p.fetch().ok());
  EXPECT_EQ(p.asked, 4);
  p.change = [](LedgerStatement& s, int asked) { s.total_free_bits += asked; };
  EXPECT_EQ(p.fetch().reason(), Reason::kConflict);
}

// A decision between two pages that moves a job to the end and leaves every sum as it was: neither
// is a job listed twice, nor is one left out, also where the job moves that earlier pages hold.
TEST(LedgerRead, OneWhoseOrderChangesMeanwhileIsReadAgain) {
  for (const std::int64_t most : {4, 3}) {
    SCOPED_TRACE(most);
    Pages p;
    p.page = 2;
    p.said.entries.push_back(entry(4, 2, 100, 36));
    p.said.total_free_bits += 100;
    p.said.total_verified_bits += 10;
    p.said.count = 4;
    const int when = most == 4 ? 1 : 2;  // the first answer is the head's where not all are read
    p.change = [&](LedgerStatement&, int asked) {
      if (asked != when) return;
      std::rotate(p.said.entries.begin(), p.said.entries.begin() + 1, p.said.entries.end());
      p.said.entries.back().time = kNow + 37 * kDay;
    };
    const auto keys = must(p.set.chain.verify(p.set.id()));
    const LedgerQuestion q{p.said.asset_id, p.said.owner_id, std::nullopt};
    const Ledger l = must(fetch_ledger(keys, q, p.random, p.answer(), most));
    std::vector<std::int64_t> bits;
    for (const auto& e : l.entries) bits.push_back(e.free_bits);
    const std::vector<std::int64_t> all{2000, 600, 100, 1000};
    EXPECT_EQ(bits, std::vector<std::int64_t>(all.end() - most, all.end()));
  }
}

TEST(LedgerShown, ByConsumerWithWhatIsLeft) {
  const auto sums = by_consumer(ledger());
  ASSERT_EQ(sums.size(), 2u);
  EXPECT_EQ(sums[0].consumer_id[0], 2);
  EXPECT_EQ(sums[0].period_free_bits, 2000);
  EXPECT_EQ(sums[1].total_free_bits, 1600);
  EXPECT_EQ(sums[1].period_free_bits, 600);  // the first job was 40 days ago
  EXPECT_EQ(sums[1].jobs, 2);
  EXPECT_EQ(left(3000, 600), 2400);
  EXPECT_EQ(left(3000, 4000), 0);
  const std::string text = ledger_text(ledger(), "wdbc");
  for (const char* part : {"3,600 free bits (30.0 rows) and 360 verified bits in 3 jobs",
                           "5,000 free bits (41.7 rows) for ever", "1,400 free bits (11.7 rows)",
                           " in 30 days", "0202020202020202"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  const Json j = ledger_json(ledger());
  EXPECT_EQ(*j.find("left")->integer(), 1400);
  EXPECT_EQ(j.find("entries")->array()->size(), 3u);
  // Times are numbers wherever they stand.
  EXPECT_EQ(*j.find("time")->integer(), kNow + 40 * kDay);
  EXPECT_EQ(*j.find("entries")->array()->at(1).find("time")->integer(), kNow + 10 * kDay);
  EXPECT_EQ(*j.find("plot")->find("from")->integer(), kNow);
  EXPECT_EQ(*j.find("plot")->find("to")->integer(), kNow + 40 * kDay);
  Ledger one = ledger();
  one.head.count = 1;
  one.head.limits.period_days = 1;
  EXPECT_NE(ledger_text(one, "wdbc").find("verified bits in 1 job\n"), std::string::npos);
  EXPECT_NE(ledger_text(one, "wdbc").find("in 1 day\n"), std::string::npos);
}

TEST(LedgerShown, OverTime) {
  const Series s = series_of(ledger(), 4);  // ten days each
  EXPECT_EQ(s.from, kNow);
  EXPECT_EQ(s.to, kNow + 40 * kDay);
  EXPECT_EQ(s.bits, (std::vector<std::int64_t>{3000, 3000, 3000, 3600}));
  const std::string chart = plot(s, 2);
  EXPECT_EQ(chart.substr(0, chart.find("└")),
            "  3,600 │▅▅▅█\n"
            "      0 │████\n"
            "        ");
  EXPECT_EQ(plot(series_of(Ledger{}, 4), 2), "");
  // What is tiny beside the rest is seen all the same.
  EXPECT_NE(plot({0, 1, {1, 100'000}}, 1).find("│▁█"), std::string::npos);
}

TEST(LedgerShown, AsAPictureWhoseTextMovesNothing) {
  const std::string picture = svg(series_of(ledger(), 4), "a <script> & \"b\"\x1b[2J");
  EXPECT_EQ(picture.rfind("<svg ", 0), 0u);
  EXPECT_NE(picture.find("a &lt;script&gt; &amp; &quot;b&quot;"), std::string::npos) << picture;
  EXPECT_EQ(picture.find('\x1b'), std::string::npos);
  EXPECT_NE(
      picture.find(
          "points=\"100,280 100,141 255,141 255,141 410,141 410,141 565,141 565,113 720,113\""),
      std::string::npos)
      << picture;
}

// Whoever does not see the picture hears its figures; an empty one says that it is.
TEST(LedgerShown, AsAPictureThatSaysWhatItShows) {
  const std::string picture = svg(series_of(ledger(), 4), "wdbc");
  for (const char* part :
       {"role=\"img\" aria-labelledby=\"title desc\"", "<title id=\"title\">wdbc</title>",
        "rise to 3,600 from ", "The limit for all consumers is 5,000.", ">free bits</text>",
        ">3,600</text>", ">limit 5,000</text>", "M100 48H720"}) {
    EXPECT_NE(picture.find(part), std::string::npos) << part << "\n" << picture;
  }
  Ledger wide = ledger();
  wide.head.limits.total_free_bits = 1'000'000;
  const std::string far = svg(series_of(wide, 4), "wdbc");
  EXPECT_NE(far.find("limit 1,000,000, far above"), std::string::npos) << far;
  EXPECT_NE(far.find("565,74 720,74"), std::string::npos) << "drawn to its own height and some\n"
                                                          << far;
  Ledger none = ledger();
  none.entries.clear();
  none.head.count = none.head.total_free_bits = none.head.period_free_bits = 0;
  const std::string empty = svg(series_of(none, 4), "wdbc");
  EXPECT_NE(empty.find(">No job has cost this asset anything yet.</text>"), std::string::npos);
  EXPECT_NE(empty.find(">limit 5,000</text>"), std::string::npos) << empty;
  EXPECT_EQ(empty.find("<polyline"), std::string::npos);
}

TEST(LedgerRead, ARealBrokersAddsUp) {
  BrokerWorld w(22);
  w.start_and_publish();
  for (int i = 0; i < 3; ++i) {
    must(w.judge(w.run_until_sealed(w.submission()).job_id()));
    w.clock.advance(10'000);
  }
  const auto keys = must(w.set.chain.verify(w.set.id()));
  const auto l = must(fetch_ledger(
      keys, {w.data.record.asset_id, w.owner.id(), std::nullopt}, w.random,
      [&](const LedgerRequest& r) { return w.call<Signed<LedgerStatement>>(method::kLedger, r); }));
  EXPECT_EQ(l.head.total_free_bits, 3 * gbx::testing::kJobBits);
  EXPECT_EQ(by_consumer(l).at(0).period_free_bits, 3 * gbx::testing::kJobBits);
}

// Appends the entries from `first` on so many times again, each time with another id of their job.
std::vector<Hash32> append_copies(broker::LogStore& store, std::uint64_t first, const Hash32& job,
                                  std::int64_t copies, Random& random) {
  std::vector<std::string> like;
  for (std::uint64_t i = first; i < must(store.size()); ++i) {
    like.push_back(must(store.entry(i)).entry);
  }
  auto frontier = must(translog::Frontier::load(store, must(store.size())));
  const std::string old = to_hex(job);
  std::vector<Hash32> jobs = {job};
  std::vector<broker::StoredEntry> entries;
  std::vector<translog::Node> nodes;
  for (std::int64_t i = 0; i < copies; ++i) {
    const std::string id = to_hex(jobs.emplace_back(random.fixed<32>()));
    for (std::string text : like) {
      for (std::size_t at = 0; (at = text.find(old, at)) != std::string::npos;) {
        text.replace(at, id.size(), id);
      }
      entries.push_back({random.fixed<32>(), std::move(text)});
      const auto& e = entries.back();
      const auto more = must(frontier.append(translog::leaf_hash(e.salt, as_bytes(e.entry))));
      nodes.insert(nodes.end(), more.begin(), more.end());
    }
  }
  must(store.append(must(store.size()), entries, nodes));
  return jobs;
}

// More jobs than one answer holds, in a real broker: `ledger show` reads on, and all adds up.
TEST(LongLedger, OfARealBrokerIsReadPageByPage) {
  broker::MemoryStore store;
  BrokerWorld w(24, &store);
  w.start_and_publish();
  const std::uint64_t before = must(store.size());
  const Hash32 first = w.run_until_sealed(w.submission()).job_id();
  must(w.judge(first));
  auto jobs = append_copies(store, before, first, kMaxLedgerPage + 4, w.random);
  must(w.start());
  std::vector<std::int64_t> asked_after;
  const auto keys = must(w.set.chain.verify(w.set.id()));
  const LedgerQuestion q{w.data.record.asset_id, w.owner.id(), std::nullopt};
  const AskLedger ask = [&](const LedgerRequest& r) {
    asked_after.push_back(r.after);
    auto answer = w.call<Signed<LedgerStatement>>(method::kLedger, r);
    EXPECT_LE(canonical(to_json(must(answer))).size(), kMaxRequestBytes);
    return answer;
  };
  const Ledger l = must(fetch_ledger(keys, q, w.random, ask));
  EXPECT_EQ(asked_after, (std::vector<std::int64_t>{0, kMaxLedgerPage - 1}));
  std::vector<Hash32> listed;
  for (const auto& e : l.entries) listed.push_back(e.job_id);
  std::sort(jobs.begin(), jobs.end());  // those of one second are listed by their ids
  EXPECT_TRUE(listed == jobs) << listed.size();
  EXPECT_EQ(l.earlier, 0);
  const auto all = static_cast<std::int64_t>(jobs.size()) * gbx::testing::kJobBits;
  EXPECT_EQ(l.head.total_free_bits, all);
  ASSERT_EQ(by_consumer(l).size(), 1U);
  EXPECT_EQ(by_consumer(l)[0].period_free_bits, all);

  // Of more than are wanted the newest: what came earlier is in the sums alone.
  const Ledger newest = must(fetch_ledger(keys, q, w.random, ask, kMaxLedgerPage));
  EXPECT_EQ(newest.earlier, 5);
  ASSERT_EQ(newest.entries.size(), static_cast<std::size_t>(kMaxLedgerPage));
  EXPECT_EQ(newest.entries.back().job_id, jobs.back());
  EXPECT_EQ(newest.head.total_free_bits, all);
}

// ---- beacons ----

struct Confirmed {
  Confirmed() {
    w.data.policy.clauses.fresh_for_seconds = 3600;
    w.start_and_publish();
    view.policy = must(sign(w.set.id(), w.data.policy, w.owner.key));
    view.ack.body.time = kNow;
    w.clock.advance(1'000'000);
    beacon.request = {
        w.owner.chain,
        must(sign(w.set.id(),
                  OwnerBeacon{w.owner.id(), w.data.version_id(), view.policy.hash(), kNow + 1000},
                  w.owner.key))};
    beacon.ack = must(w.call<Signed<BeaconAck>>(method::kBeacon, beacon.request));
  }
  Status verify() { return verify_beacon(keys, view.policy, kNow, beacon); }
  BrokerWorld w{23};
  SetChain::Keys keys = must(w.set.chain.verify(w.set.id()));
  api::AssetView view;
  api::BeaconView beacon;
};

TEST(BeaconAck, OfARealBrokerHoldsAndNothingElse) {
  Confirmed c;
  const Status s = c.verify();
  EXPECT_TRUE(s.ok()) << s.error().line();
  const auto acked = [&](auto change) {
    Confirmed other;
    change(other.beacon.ack.body);
    other.beacon.ack = must(sign(other.w.set.id(), other.beacon.ack.body, other.w.set.signing));
    return other.verify().reason();
  };
  EXPECT_EQ(acked([](BeaconAck& a) { a.fresh_until += 1; }), Reason::kBadValue);
  EXPECT_EQ(acked([](BeaconAck& a) { a.beacon[0] ^= 1; }), Reason::kPolicyMismatch);
  EXPECT_EQ(acked([](BeaconAck& a) { a.policy_hash[0] ^= 1; }), Reason::kPolicyMismatch);
  EXPECT_EQ(acked([](BeaconAck& a) { a.time += 1; }), Reason::kBadInclusion);
  EXPECT_EQ(acked([](BeaconAck& a) { a.inclusion.leaf_salt[0] ^= 1; }), Reason::kBadInclusion);
  Confirmed forged;
  forged.beacon.ack.signature[3] ^= 1;
  EXPECT_EQ(forged.verify().reason(), Reason::kBadSignature);
  Confirmed foreign;
  foreign.beacon.request.beacon =
      must(sign(foreign.w.set.id(), foreign.beacon.request.beacon.body, foreign.w.consumer.key));
  EXPECT_EQ(foreign.verify().reason(), Reason::kBadSignature);
}

TEST(Freshness, SaysHowOldTheLastWordIs) {
  Confirmed c;
  EXPECT_NE(freshness(c.view, kNow + 60).text.find("60 s ago (publication of"), std::string::npos);
  c.view.beacon = c.beacon;
  const Freshness fresh = freshness(c.view, kNow + 1000 + 600);
  EXPECT_NE(fresh.text.find("Fresh: its owner last stood by it 10 min ago (beacon of"),
            std::string::npos)
      << fresh.text;
  EXPECT_TRUE(*fresh.json.find("fresh")->boolean());
  const Freshness old = freshness(c.view, kNow + 1000 + 3601);
  EXPECT_EQ(old.text.rfind("NOT FRESH", 0), 0u);
  EXPECT_FALSE(*old.json.find("fresh")->boolean());
  c.view.policy.body.clauses.fresh_for_seconds = 0;
  EXPECT_EQ(freshness(c.view, kNow).text, "");
}

}  // namespace
}  // namespace gbx::cli
