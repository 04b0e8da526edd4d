// Evidence as an agent gets it: from the kernel's configfs-tsm, from the simulated platform.
#include "attest/attester.h"

#include <sys/stat.h>

#include <functional>
#include <map>
#include <thread>

#include "attest/sim/attester.h"
#include "attest/sim/service.h"
#include "attest/sim/testing.h"
#include "attest/testing.h"
#include "attest/tsm/attester.h"

namespace gbx::attest {
namespace {

using records::Technology;
using testing::fails_with;
using testing::Forge;

FixedBytes<64> report_data(std::uint8_t first) {
  FixedBytes<64> out{};
  out[0] = first;
  return out;
}

// The kernel's report: every write counts, outblob answers the inblob that was written last.
class FakeReport final : public tsm::Report {
 public:
  explicit FakeReport(std::string provider) : provider_(std::move(provider)) {}
  Result<Bytes> read(const std::string& attribute, std::size_t limit) override {
    if (attribute == "provider") return to_bytes(as_bytes(provider_ + "\n"));
    if (attribute == "generation") {
      return to_bytes(as_bytes(generation_text.value_or(std::to_string(generation_) + "\n")));
    }
    if (attribute != "outblob") return fail(Reason::kNotFound, attribute);
    if (disturb) disturb(*this);
    if (refuse) return fail(Reason::kIo, "outblob: Device or resource busy");
    FixedBytes<64> asked{};
    std::copy_n(inblob_.begin(), std::min<std::size_t>(64, inblob_.size()), asked.begin());
    const Bytes out =
        provider_ == "sev_guest" ? snp(asked) : platform.quote(measured, asked).value();
    const Bytes padded = concat({out, Bytes(padding, 0)});
    EXPECT_LE(padded.size(), limit);
    return padded;
  }
  Status write(const std::string& attribute, ByteView value) override {
    EXPECT_EQ(attribute, "inblob");
    if (lose_writes) return ok_status();
    inblob_ = to_bytes(value);
    ++generation_;
    return ok_status();
  }
  // What another program in the guest does.
  void others_write() { (void)write("inblob", Bytes(64, 0xee)); }

  static Bytes snp(const FixedBytes<64>& asked) {
    Bytes out(1184, 0);
    std::copy(asked.begin(), asked.end(), out.begin() + 0x50);
    std::fill_n(out.begin() + 0xc0, 32, std::uint8_t{7});
    return out;
  }
  SeededRandom random{2};
  sim::SimPlatform platform = sim::SimPlatform::create(random).value();
  sim::SimMeasurement measured;
  std::size_t padding = 0;
  bool lose_writes = false;
  bool refuse = false;
  std::optional<std::string> generation_text;
  std::function<void(FakeReport&)> disturb;

 private:
  std::string provider_;
  std::uint64_t generation_ = 0;
  Bytes inblob_;
};

struct Tsm {
  explicit Tsm(const std::string& provider, const std::string& log = "/nowhere") {
    auto owned = std::make_unique<FakeReport>(provider);
    report = owned.get();
    made = tsm::TsmAttester::create(std::move(owned), log);
  }
  Result<Quoted> quote(std::uint8_t first = 1) { return (*made)->quote(report_data(first)); }
  FakeReport* report;
  Result<std::unique_ptr<tsm::TsmAttester>> made;
};

TEST(TsmAttester, GivesTheQuoteWithoutItsPadding) {
  Tsm t("tdx_guest");
  ASSERT_TRUE(t.made.ok()) << t.made.error().line();
  EXPECT_EQ((*t.made)->technology(), Technology::kTdx);
  t.report->padding = 3000;
  t.report->measured.launch_config.fill(9);
  for (std::uint8_t first = 1; first < 3; ++first) {
    const auto q = t.quote(first);
    ASSERT_TRUE(q.ok()) << q.error().line();
    EXPECT_EQ(tdx::parse_quote(q->quote)->body.report_data, report_data(first));
    EXPECT_EQ(own_launch_hash(Technology::kTdx, q->quote).value(),
              t.report->measured.launch_config);
    EXPECT_TRUE(q->collateral.empty());
  }
}

TEST(TsmAttester, GivesSnpReports) {
  Tsm t("sev_guest");
  EXPECT_EQ((*t.made)->technology(), Technology::kSnp);
  const auto q = t.quote();
  ASSERT_TRUE(q.ok()) << q.error().line();
  EXPECT_EQ(q->quote.size(), 1184U);
  Hash32 host_data;
  host_data.fill(7);
  EXPECT_EQ(own_launch_hash(Technology::kSnp, q->quote).value(), host_data);
  t.report->padding = 1;
  EXPECT_TRUE(fails_with(t.quote(), Reason::kEvidenceRejected, "1184"));
}

TEST(TsmAttester, KnowsItsProvidersOnly) {
  for (const char* provider : {"", "tdx", "arm_cca_guest", "tdx_guest2"}) {
    EXPECT_TRUE(fails_with(Tsm(provider).made, Reason::kUnsupported)) << provider;
  }
}

TEST(TsmAttester, TriesAgainWhenSomebodyElseWroteAndNotForEver) {
  Tsm t("tdx_guest");
  int left = 3, reads = 0;
  bool refuse = false;
  t.report->disturb = [&](FakeReport& r) {
    ++reads;
    r.refuse = refuse && left > 0;
    if (left > 0) {
      --left;
      r.others_write();
    }
  };
  auto q = t.quote();
  ASSERT_TRUE(q.ok()) << q.error().line();
  EXPECT_EQ(reads, 4);
  EXPECT_EQ(tdx::parse_quote(q->quote)->body.report_data, report_data(1));
  // The kernel refuses to read while somebody writes.
  left = 2;
  refuse = true;
  EXPECT_TRUE(t.quote().ok());
  left = 1000;
  reads = 0;
  refuse = false;
  EXPECT_TRUE(fails_with(t.quote(), Reason::kUnavailable));
  EXPECT_EQ(reads, 8);
}

TEST(TsmAttester, WhatTheKernelDidNotTakeIsNoQuote) {
  Tsm t("tdx_guest");
  ASSERT_TRUE(t.quote(1).ok());
  t.report->lose_writes = true;
  EXPECT_TRUE(fails_with(t.quote(2), Reason::kUnavailable));
  t.report->lose_writes = false;
  t.report->refuse = true;
  EXPECT_TRUE(fails_with(t.quote(2), Reason::kUnavailable, "busy"));
  t.report->refuse = false;
  for (const char* text : {"", "x", "1 2", "-1", "99999999999999999999999"}) {
    t.report->generation_text = text;
    EXPECT_TRUE(fails_with(t.quote(2), Reason::kBadValue, "generation")) << text;
  }
}

TEST(TsmAttester, AQuoteOverOtherReportDataIsRefused) {
  // A host's quoting service that answers with an older quote.
  class Replaying final : public tsm::Report {
   public:
    explicit Replaying(Bytes quote) : quote_(std::move(quote)) {}
    Result<Bytes> read(const std::string& attribute, std::size_t) override {
      if (attribute == "provider") return to_bytes(as_bytes("tdx_guest"));
      if (attribute == "generation") return to_bytes(as_bytes(std::to_string(generation_)));
      return quote_;
    }
    Status write(const std::string&, ByteView) override {
      ++generation_;
      return ok_status();
    }

   private:
    Bytes quote_;
    int generation_ = 0;
  };
  const auto with = [](Bytes quote) {
    return tsm::TsmAttester::create(std::make_unique<Replaying>(std::move(quote)), "/nowhere");
  };
  const Bytes older = FakeReport("tdx_guest").platform.quote({}, report_data(1)).value();
  EXPECT_TRUE((*with(older))->quote(report_data(1)).ok());
  EXPECT_TRUE(fails_with((*with(older))->quote(report_data(2)), Reason::kEvidenceRejected,
                         "other report data"));
  EXPECT_TRUE(fails_with((*with(Bytes(100, 1)))->quote(report_data(1)), Reason::kEvidenceRejected));
}

class TsmFolder : public ::testing::Test {
 protected:
  TsmFolder() {
    char name[] = "/tmp/gbx-tsm-XXXXXX";
    dir_ = ::mkdtemp(name);
  }
  ~TsmFolder() override { EXPECT_TRUE(remove_tree(dir_).ok()); }
  std::string put(const std::string& name, ByteView content) {
    EXPECT_TRUE(write_file_atomic(dir_ + "/" + name, content, 0600).ok());
    return dir_ + "/" + name;
  }
  std::string dir_;
};

TEST_F(TsmFolder, AttributesAreFilesOfOneFolder) {
  auto report = tsm::open_report(dir_, "gbx");
  ASSERT_TRUE(report.ok()) << report.error().line();
  struct stat info {};
  EXPECT_EQ(::stat((dir_ + "/gbx").c_str(), &info), 0);
  EXPECT_TRUE(tsm::open_report(dir_, "gbx").ok()) << "a restarted agent finds its own";
  EXPECT_FALSE((*report)->read("provider", 64).ok());
  EXPECT_FALSE((*report)->write("inblob", Bytes(64, 1)).ok()) << "the kernel makes attributes";
  put("gbx/provider", as_bytes("tdx_guest\n"));
  put("gbx/inblob", {});
  EXPECT_EQ(as_text((*report)->read("provider", 64).value()), "tdx_guest\n");
  EXPECT_FALSE((*report)->read("provider", 3).ok());
  EXPECT_TRUE((*report)->write("inblob", Bytes(64, 5)).ok());
  EXPECT_EQ(read_file(dir_ + "/gbx/inblob", 64).value(), Bytes(64, 5));
  EXPECT_FALSE((*report)->read("../secret", 64).ok());
  EXPECT_FALSE(tsm::open_report(dir_ + "/absent", "gbx").ok());
  // The generation of a folder that is not configfs stands still.
  put("gbx/generation", as_bytes("4\n"));
  put("gbx/outblob", FakeReport("tdx_guest").platform.quote({}, report_data(5)).value());
  const auto attester = tsm::TsmAttester::create(std::move(*report), "/nowhere").value();
  EXPECT_TRUE(fails_with(attester->quote(report_data(5)), Reason::kUnavailable));
}

TEST_F(TsmFolder, TheFirmwaresLogGoesWithAQuoteWhereItCanBeRead) {
  const Bytes log = sim::sim_events(Forge().launch).log;
  const auto collateral = [](const std::string& path) {
    return Tsm("tdx_guest", path).quote().value().collateral;
  };
  const auto found = collateral(put("CCEL", concat({log, Bytes(5000, 0xff)})));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].kind, kEventLogCollateral);
  EXPECT_EQ(found[0].data, log);
  EXPECT_TRUE(collateral(put("CCEL", Bytes(100, 1))).empty());
  EXPECT_TRUE(collateral(put("CCEL", Bytes(tdx::kMaxLogBytes + 1, 1))).empty());
  tdx::EventLog large = tdx::parse_event_log(log).value();
  large.events[0].data = Bytes(65536, 1);
  EXPECT_TRUE(collateral(put("CCEL", tdx::serialize(large))).empty());
}

// An agent and its platform's program, in two threads.
class SimService : public ::testing::Test {
 protected:
  void start() {
    auto [mine, theirs] = channel::make_memory_pipe();
    agent_ = std::move(mine);
    server_ = std::thread([this, stream = std::move(theirs)] {
      served_ = sim::serve_quotes(*stream, service_, clock_);
      stream->close();
    });
  }
  void TearDown() override {
    if (agent_) agent_->close();
    if (server_.joinable()) server_.join();
  }
  SystemClock clock_;
  Forge forge_;
  sim::SimEvents events_ = sim::sim_events(forge_.launch);
  sim::SimMeasurement measured_ = [this] {
    sim::SimMeasurement m = events_.measured;
    m.launch_config = hash_of(forge_.config);
    return m;
  }();
  sim::QuoteService service_{forge_.platform, measured_, events_.log};
  std::unique_ptr<channel::ByteStream> agent_;
  std::thread server_;
  Status served_;
};

TEST_F(SimService, WhatAnAgentGetsIsAccepted) {
  start();
  sim::SimAttester attester(*agent_, clock_);
  EXPECT_EQ(attester.technology(), Technology::kSim);
  for (std::uint8_t nonce = 1; nonce < 4; ++nonce) {
    forge_.report.nonce[0] = nonce;
    auto q = attester.quote(forge_.report.digest());
    ASSERT_TRUE(q.ok()) << q.error().line();
    EXPECT_EQ(own_launch_hash(Technology::kSim, q->quote).value(), hash_of(forge_.config));
    records::Evidence e;
    e.technology = Technology::kSim;
    e.quote = std::move(q->quote);
    e.collateral = std::move(q->collateral);
    e.collateral.push_back({std::string(kReleaseCollateral), forge_.signed_release()});
    e.launch_config = forge_.config;
    e.release = forge_.release.name;
    e.report_data = forge_.report;
    forge_.expected.report = forge_.report;
    const auto v = Verifiers::standard().verify(e, forge_.expected);
    EXPECT_TRUE(v.ok()) << v.error().line();
  }
  agent_->close();
  server_.join();
  EXPECT_TRUE(served_.ok()) << served_.error().line();
}

TEST_F(SimService, OtherRequestsAreRefused) {
  const Json good = to_json(sim::TeeQuoteRequest{});
  EXPECT_TRUE(service_.dispatch("tee.quote", good).ok());
  EXPECT_TRUE(fails_with(service_.dispatch("tee.key", good), Reason::kNotFound));
  EXPECT_TRUE(
      fails_with(service_.dispatch("tee.quote", Json(JsonObject{})), Reason::kMissingField));
  Json more = good;
  more["mrtd"] = Json("00");
  EXPECT_TRUE(fails_with(service_.dispatch("tee.quote", more), Reason::kUnknownField));
}

TEST_F(SimService, AHostThatLiesOrGoesIsNoticed) {
  auto [mine, theirs] = channel::make_memory_pipe();
  Json answer;
  std::thread host([&, stream = std::move(theirs)] {
    const auto dispatch = [&](std::string_view, const Json&) { return Result<Json>(answer); };
    (void)channel::serve(*stream, dispatch, {}, clock_);
    stream->close();
  });
  sim::SimAttester attester(*mine, clock_);
  sim::TeeQuoteReply reply;
  reply.quote = forge_.platform.quote(measured_, report_data(1)).value();
  reply.event_log = events_.log;
  answer = to_json(reply);
  EXPECT_TRUE(attester.quote(report_data(1)).ok());
  EXPECT_TRUE(
      fails_with(attester.quote(report_data(2)), Reason::kEvidenceRejected, "other report data"));
  reply.quote.pop_back();
  answer = to_json(reply);
  EXPECT_TRUE(fails_with(attester.quote(report_data(1)), Reason::kEvidenceRejected, "truncated"));
  answer = Json(JsonObject{});
  EXPECT_TRUE(fails_with(attester.quote(report_data(1)), Reason::kEvidenceRejected, "quote"));
  mine->close();
  host.join();
  EXPECT_FALSE(attester.quote(report_data(1)).ok());
}

// A host that is busy, cuts its answer in two, and goes on where nobody waits any more.
class LateHost : public ::testing::Test {
 protected:
  LateHost() {
    auto [mine, theirs] = channel::make_memory_pipe();
    agent_ = std::move(mine);
    host_ = std::move(theirs);
    attester_ = std::make_unique<sim::SimAttester>(*agent_, clock_, 1);
  }
  channel::Deadline soon() const { return channel::Deadline::after_ms(clock_, 20'000); }
  // The frame of an honest answer to the next request.
  Bytes answer() {
    const Json request = channel::read_json(*host_, sim::kMaxTeeFrame, soon()).value();
    const auto asked = from_json<sim::TeeQuoteRequest>(*request.find("body")).value();
    sim::TeeQuoteReply reply;
    reply.quote = forge_.platform.quote({}, asked.report_data).value();
    reply.event_log = Bytes(1, 1);
    Json response;
    response["body"] = to_json(reply);
    response["id"] = *request.find("id");
    const std::string text = canonical(response);
    ByteWriter out;
    out.u32(static_cast<std::uint32_t>(text.size()));
    return concat({out.bytes(), as_bytes(text)});
  }
  void send(ByteView bytes) { ASSERT_TRUE(host_->write_all(bytes, soon()).ok()); }
  Result<Quoted> quote(std::uint8_t first) { return attester_->quote(report_data(first)); }
  static FixedBytes<64> over(const Result<Quoted>& q) {
    return tdx::parse_quote(q.value().quote)->body.report_data;
  }
  SystemClock clock_;
  Forge forge_;
  std::unique_ptr<channel::ByteStream> agent_;
  std::unique_ptr<channel::ByteStream> host_;
  std::unique_ptr<sim::SimAttester> attester_;
};

TEST_F(LateHost, TheSameQuestionIsWaitedForAndNotAskedTwice) {
  EXPECT_TRUE(fails_with(quote(1), Reason::kUnavailable));
  const Bytes frame = answer();
  send(ByteView(frame).first(3));
  EXPECT_TRUE(fails_with(quote(1), Reason::kUnavailable));
  send(ByteView(frame).subspan(3, 500));
  EXPECT_TRUE(fails_with(quote(1), Reason::kUnavailable));
  send(ByteView(frame).subspan(503));
  const auto q = quote(1);
  ASSERT_TRUE(q.ok()) << q.error().line();
  EXPECT_EQ(over(q), report_data(1));
  // Nothing else was asked for meanwhile.
  EXPECT_TRUE(fails_with(quote(2), Reason::kUnavailable));
  send(answer());
  EXPECT_EQ(over(quote(2)), report_data(2));
}

TEST_F(LateHost, WhatComesTooLateIsThrownAway) {
  EXPECT_TRUE(fails_with(quote(1), Reason::kUnavailable));
  EXPECT_TRUE(fails_with(quote(2), Reason::kUnavailable));
  EXPECT_TRUE(fails_with(quote(3), Reason::kUnavailable));
  const Bytes first = answer(), second = answer(), third = answer();
  send(first);
  send(ByteView(second).first(100));
  EXPECT_TRUE(fails_with(quote(3), Reason::kUnavailable));
  send(ByteView(second).subspan(100));
  send(third);
  EXPECT_EQ(over(quote(3)), report_data(3));
}

TEST_F(LateHost, AnAnswerToNoQuestionEndsTheStream) {
  EXPECT_TRUE(fails_with(quote(1), Reason::kUnavailable));
  Json response;
  response["body"] = to_json(sim::TeeQuoteRequest{});
  response["id"] = Json(std::int64_t{2});
  ASSERT_TRUE(channel::write_json(*host_, response, sim::kMaxTeeFrame, soon()).ok());
  EXPECT_TRUE(fails_with(quote(1), Reason::kBadStructure, "another call"));
  EXPECT_TRUE(fails_with(quote(1), Reason::kConnectionClosed));
}
TEST_F(LateHost, SoDoesAFrameAboveTheLimit) {
  ByteWriter out;
  out.u32(sim::kMaxTeeFrame + 1);
  send(out.bytes());
  EXPECT_TRUE(fails_with(quote(1), Reason::kTooLarge));
  EXPECT_TRUE(fails_with(quote(1), Reason::kConnectionClosed));
}

TEST(OwnLaunchHash, IsAHashAndZerosOfAKnownTechnology) {
  Forge f;
  tdx::Quote q = f.quote(sim::sim_events(f.launch));
  EXPECT_EQ(own_launch_hash(Technology::kSim, tdx::serialize(q)).value(), hash_of(f.config));
  q.body.mr_config_id[47] = 1;
  EXPECT_TRUE(fails_with(own_launch_hash(Technology::kSim, tdx::serialize(q)),
                         Reason::kLaunchConfigMismatch));
  EXPECT_TRUE(
      fails_with(own_launch_hash(Technology::kSim, Bytes(9, 0)), Reason::kEvidenceRejected));
  for (const Technology t : {Technology::kNone, Technology::kSgx, Technology::kCca,
                             Technology::kNitro, Technology::kTrustZone}) {
    EXPECT_TRUE(fails_with(own_launch_hash(t, tdx::serialize(q)), Reason::kEvidenceRejected));
  }
}

}  // namespace
}  // namespace gbx::attest
