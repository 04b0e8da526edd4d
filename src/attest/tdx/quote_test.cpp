// Quotes as bytes: one form, every length bounded, nothing behind.
#include "attest/tdx/quote.h"

#include "attest/sim/platform.h"
#include "attest/testing.h"

namespace gbx::attest::tdx {
namespace {

using testing::fails_with;
using testing::vector_file;

constexpr const char* kVectors[] = {"tdx/tdx-v4.quote.bin", "tdx/tdx-v5.quote.bin",
                                    "tdx/tdx-cos113.quote.bin", "tdx/tdx-debug.quote.bin"};

// Offsets of version 4.
constexpr std::size_t kBody = 48, kSize = kBody + 584, kKey = kSize + 4 + 64;
constexpr std::size_t kCertType = kKey + 64, kQeReport = kCertType + 6;
constexpr std::size_t kAuthSize = kQeReport + 384 + 64, kAuth = kAuthSize + 2;

class QuoteTest : public ::testing::Test {
 protected:
  Bytes made(ByteView qe_auth = {}) {
    sim::SimMeasurement m;
    for (std::size_t i = 0; i < 4; ++i) m.rtmr[i].fill(static_cast<std::uint8_t>(i + 1));
    m.mrtd.fill(9);
    m.launch_config.fill(7);
    const Bytes quote = platform_.quote(m, random_.fixed<64>()).value();
    if (qe_auth.empty()) return quote;
    Quote q = parse_quote(quote).value();
    q.qe_auth = to_bytes(qe_auth);
    return serialize(q);
  }
  static Bytes with_u16(Bytes bytes, std::size_t at, unsigned v) {
    bytes[at] = static_cast<std::uint8_t>(v);
    bytes[at + 1] = static_cast<std::uint8_t>(v >> 8);
    return bytes;
  }
  SeededRandom random_{5};
  sim::SimPlatform platform_ = sim::SimPlatform::create(random_).value();
};

TEST_F(QuoteTest, ParsedAndWrittenAgainIsTheSame) {
  const Bytes bytes = made();
  const auto q = parse_quote(bytes);
  ASSERT_TRUE(q.ok()) << q.error().line();
  EXPECT_EQ(serialize(*q), bytes);
  EXPECT_EQ(q->body.rtmr[3][0], 4);
  EXPECT_EQ(q->body.mr_config_id[31], 7);
  EXPECT_EQ(q->body.mr_config_id[32], 0);
  // Version 5 with both bodies.
  for (const bool is_15 : {false, true}) {
    Quote five = *q;
    five.header.version = 5;
    if (is_15) five.body_15.emplace().mr_service_td.fill(3);
    const auto again = parse_quote(serialize(five));
    ASSERT_TRUE(again.ok()) << again.error().line();
    EXPECT_EQ(*again, five);
  }
}

TEST_F(QuoteTest, PublishedQuotesAreReadAndWrittenAgain) {
  GBX_NEEDS_VECTORS();
  for (const char* name : kVectors) {
    const Bytes bytes = vector_file(name);
    const auto exact = without_padding(bytes);
    ASSERT_TRUE(exact.ok()) << name << ": " << exact.error().line();
    const auto q = parse_quote(*exact);
    ASSERT_TRUE(q.ok()) << name << ": " << q.error().line();
    EXPECT_TRUE(equal(serialize(*q), *exact)) << name;
    EXPECT_EQ(q->header.version, std::string_view(name).find("v5") != std::string::npos ? 5 : 4);
    EXPECT_EQ(q->body_15.has_value(), q->header.version == 5);
  }
}

TEST_F(QuoteTest, EveryEndIsNoticed) {
  const Bytes bytes = made();
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    ASSERT_TRUE(fails_with(parse_quote(ByteView(bytes).first(n)), Reason::kTruncated)) << n;
  }
  const Bytes zero = concat({bytes, Bytes(1, 0)}), one = concat({bytes, Bytes(1, 1)});
  EXPECT_TRUE(fails_with(parse_quote(zero), Reason::kTrailingBytes));
  EXPECT_TRUE(equal(without_padding(zero).value(), bytes));
  EXPECT_TRUE(fails_with(without_padding(one), Reason::kTrailingBytes));
  EXPECT_TRUE(fails_with(parse_quote(Bytes(kMaxQuoteBytes + 1, 0)), Reason::kTooLarge));
  EXPECT_TRUE(fails_with(without_padding(Bytes(kMaxQuoteBytes + 1, 0)), Reason::kTooLarge));
}

TEST_F(QuoteTest, EachConstantHasItsRefusal) {
  const Bytes bytes = made();
  const auto bad = [&](std::size_t at, unsigned v) { return parse_quote(with_u16(bytes, at, v)); };
  for (const unsigned version : {0U, 3U, 6U, 0x104U}) {
    EXPECT_TRUE(fails_with(bad(0, version), Reason::kBadVersion)) << version;
  }
  EXPECT_TRUE(fails_with(bad(2, 3), Reason::kBadValue, "attestation key type"));
  EXPECT_TRUE(fails_with(bad(4, 0), Reason::kBadValue, "TEE type"));
  EXPECT_TRUE(fails_with(bad(6, 1), Reason::kBadValue, "TEE type"));
  EXPECT_TRUE(fails_with(bad(12, 0), Reason::kBadValue, "vendor"));
  EXPECT_TRUE(fails_with(bad(kCertType, 5), Reason::kBadSuite, "type 6"));
  const std::size_t inner = kAuth + static_cast<std::size_t>(bytes[kAuthSize]);
  EXPECT_TRUE(fails_with(bad(inner, 1), Reason::kBadSuite, "type 5"));
}

TEST_F(QuoteTest, EachLengthHasItsRefusal) {
  const Bytes bytes = made();
  for (const std::size_t at :
       {kSize, kCertType + 2, kAuth + static_cast<std::size_t>(bytes[kAuthSize]) + 2}) {
    const unsigned now = bytes[at] + 256U * bytes[at + 1];
    EXPECT_FALSE(parse_quote(with_u16(bytes, at, now - 1)).ok()) << at;
    EXPECT_FALSE(parse_quote(with_u16(bytes, at, now + 1)).ok()) << at;
    EXPECT_TRUE(fails_with(parse_quote(with_u16(bytes, at + 2, 0xffff)), Reason::kTruncated)) << at;
  }
  EXPECT_TRUE(parse_quote(made(Bytes(kMaxAuthBytes, 1))).ok());
  EXPECT_TRUE(fails_with(parse_quote(made(Bytes(kMaxAuthBytes + 1, 1))), Reason::kTooLarge));
  Quote q = parse_quote(bytes).value();
  q.pck_chain = Bytes(kMaxChainBytes, 'x');
  EXPECT_TRUE(parse_quote(serialize(q)).ok());
  q.pck_chain = Bytes(kMaxChainBytes + 1, 'x');
  EXPECT_TRUE(fails_with(parse_quote(serialize(q)), Reason::kTooLarge));
}

TEST_F(QuoteTest, TheBodyOfVersionFiveSaysWhichItIs) {
  Quote five = parse_quote(made()).value();
  five.header.version = 5;
  const Bytes bytes = serialize(five);
  EXPECT_TRUE(fails_with(parse_quote(with_u16(bytes, 48, 1)), Reason::kBadValue, "body type"));
  EXPECT_TRUE(fails_with(parse_quote(with_u16(bytes, 48, 4)), Reason::kBadValue, "body type"));
  EXPECT_TRUE(fails_with(parse_quote(with_u16(bytes, 48, 3)), Reason::kBadValue, "size"));
  EXPECT_TRUE(fails_with(parse_quote(with_u16(bytes, 50, 583)), Reason::kBadValue, "size"));
}

}  // namespace
}  // namespace gbx::attest::tdx
