// A leak ledger as its reader believes it: statements that the set signed for this question, page
// by page, whose entries add up. And how it is shown: sums by consumer, equivalent rows, what is
// left, and a plot over time. Pure, but for what fetch() asks.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "records/messages.h"

namespace gbx::cli {

// More entries than this are not read, the newest ones: 200 pages.
inline constexpr std::int64_t kMostLedgerEntries = 200 * records::kMaxLedgerPage;
// Beyond every entry: an answer with none of them.
inline constexpr std::int64_t kHeadAlone = records::kMaxTreeSize;

struct LedgerQuestion {
  Id16 asset_id{};
  Hash32 owner_id{};
  std::optional<Hash32> consumer;  // the own part; absent: all of it
};
struct Ledger {
  records::LedgerStatement head;              // of the first page, without its entries
  std::vector<records::LedgerEntry> entries;  // of all pages
  std::int64_t earlier = 0;                   // how many came before them and were not read
};

// One page answers the question that was asked: signature of the set, nonce, asset, owner,
// consumer. Errors: kBadSignature, kNonceMismatch, kWrongAsset, kWrongOwner.
Status verify_statement(const records::SetChain::Keys& set, const LedgerQuestion& question,
                        const Nonce32& nonce,
                        const records::Signed<records::LedgerStatement>& statement);
// Every entry once, in order, and the sums are theirs, or of those before them, too. kBadStructure,
// with both sums.
Status check_sums(const Ledger& ledger);

using AskLedger =
    std::function<Result<records::Signed<records::LedgerStatement>>(const records::LedgerRequest&)>;
// All pages, of a longer ledger those of the newest `most` entries. One that changes between two of
// them is read again, three times at most: kConflict.
Result<Ledger> fetch_ledger(const records::SetChain::Keys& set, const LedgerQuestion& question,
                            Random& random, const AskLedger& ask,
                            std::int64_t most = kMostLedgerEntries);
// Limits and sums without the entries that they are of: one question however long the ledger is.
Result<records::LedgerStatement> fetch_head(const records::SetChain::Keys& set,
                                            const LedgerQuestion& question, Random& random,
                                            const AskLedger& ask);

struct ConsumerSum {
  Hash32 consumer_id{};
  std::int64_t period_free_bits = 0;
  std::int64_t total_free_bits = 0;
  std::int64_t total_verified_bits = 0;
  std::int64_t jobs = 0;
};
// By consumer, who spent most first.
std::vector<ConsumerSum> by_consumer(const Ledger& ledger);
// What is still free: in this period for a consumer who spent `period_bits` of it, and for all.
std::int64_t left(std::int64_t limit, std::int64_t spent);

// Free bits spent by the end of each of `columns` equal steps from the first entry to now.
struct Series {
  std::int64_t from = 0;
  std::int64_t to = 0;
  std::vector<std::int64_t> bits;
  std::int64_t limit = 0;   // for all consumers, for ever; 0: none is drawn
  std::int64_t before = 0;  // bits of what came before `from`
};
Series series_of(const Ledger& ledger, std::size_t columns);
// A block chart for a terminal, `rows` lines high, with its axes. UTF-8.
std::string plot(const Series& series, std::size_t rows);
// The same as an SVG document of its own, whose text says what it shows; `title` may be anything.
std::string svg(const Series& series, const std::string& title);

std::string ledger_text(const Ledger& ledger, const std::string& name);
Json ledger_json(const Ledger& ledger);
Json limits_json(const records::LedgerStatement& head);

}  // namespace gbx::cli
