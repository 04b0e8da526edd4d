#include "cli/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "cli/output.h"
#include "policy/rows.h"

namespace gbx::cli {

using records::LedgerEntry;
using records::LedgerState;
using records::LedgerStatement;

namespace {

constexpr int kRounds = 3;
constexpr std::size_t kShown = 20;  // newest entries that people see
constexpr std::size_t kPlotColumns = 60;
constexpr std::size_t kPlotRows = 6;

std::string grouped(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<std::size_t>(at), ",");
  }
  return digits;
}
std::string short_id(const Hash32& id) { return to_hex(id).substr(0, 16); }
std::string with_rows(const LedgerStatement& head, std::int64_t bits) {
  const std::string rows = policy::equivalent_rows(bits, head.row_bits);
  return grouped(bits) + (rows.empty() ? "" : " = " + rows);
}

}  // namespace

Status verify_statement(const records::SetChain::Keys& set, const LedgerQuestion& q,
                        const Nonce32& nonce, const records::Signed<LedgerStatement>& statement) {
  GBX_TRY(statement.verify(set.set_id, set.signing));
  const LedgerStatement& s = statement.body;
  if (s.nonce != nonce) {
    return fail(Reason::kNonceMismatch, "the ledger answers another question")
        .with(to_hex(nonce), to_hex(s.nonce));
  }
  if (s.asset_id != q.asset_id) {
    return fail(Reason::kWrongAsset, "ledger").with(to_hex(q.asset_id), to_hex(s.asset_id));
  }
  if (s.owner_id != q.owner_id) {
    return fail(Reason::kWrongOwner, "owner in the ledger")
        .with(to_hex(q.owner_id), to_hex(s.owner_id));
  }
  if (s.consumer != q.consumer) {
    const auto word = [](const auto& id) { return id ? to_hex(*id) : std::string("everybody"); };
    return fail(Reason::kWrongOwner, "whose part of the ledger it is")
        .with(word(q.consumer), word(s.consumer));
  }
  return ok_status();
}

Status check_sums(const Ledger& l) {
  std::set<Hash32> jobs;
  std::int64_t free = 0;
  std::int64_t verified = 0;
  std::int64_t last = 0;
  for (const auto& e : l.entries) {
    free += e.free_bits;
    verified += e.verified_bits;
    const bool foreign = l.head.consumer && e.consumer_id != *l.head.consumer;
    if (!jobs.insert(e.job_id).second || e.time < last || foreign) {
      return fail(Reason::kBadStructure, "entries of the ledger")
          .with("each job once, by time, of whom it is about", to_hex(e.job_id));
    }
    last = e.time;
  }
  const auto sums = [](std::int64_t f, std::int64_t v, std::int64_t n) {
    return std::to_string(f) + " free and " + std::to_string(v) + " verified bits in " +
           std::to_string(n) + " jobs";
  };
  const auto count = static_cast<std::int64_t>(l.entries.size());
  const bool within = l.head.period_free_bits >= 0 && l.head.period_free_bits <= free;
  if (free == l.head.total_free_bits && verified == l.head.total_verified_bits &&
      count == l.head.count && within) {
    return ok_status();
  }
  return fail(Reason::kBadStructure, "the ledger does not add up")
      .with(sums(l.head.total_free_bits, l.head.total_verified_bits, l.head.count),
            sums(free, verified, count));
}

namespace {

bool same_state(const LedgerStatement& a, const LedgerStatement& b) {
  return a.count == b.count && a.total_free_bits == b.total_free_bits &&
         a.total_verified_bits == b.total_verified_bits &&
         a.period_free_bits == b.period_free_bits && a.row_bits == b.row_bits &&
         canonical(to_json(a.limits)) == canonical(to_json(b.limits));
}

// Empty when it changed between two pages.
Result<std::optional<Ledger>> read_once(const records::SetChain::Keys& set, const LedgerQuestion& q,
                                        Random& random, const AskLedger& ask) {
  Ledger l;
  do {
    records::LedgerRequest request{q.asset_id, random.fixed<32>(), q.consumer,
                                   static_cast<std::int64_t>(l.entries.size())};
    GBX_ASSIGN(records::Signed<LedgerStatement> page, ask(request));
    GBX_TRY(verify_statement(set, q, request.nonce, page));
    LedgerStatement& s = page.body;
    if (s.count > kMostLedgerEntries) {
      return fail(Reason::kTooLarge, "entries of the ledger")
          .with("at most " + std::to_string(kMostLedgerEntries), std::to_string(s.count));
    }
    if (!l.entries.empty() && !same_state(l.head, s)) return std::optional<Ledger>();
    const std::size_t before = l.entries.size();
    l.entries.insert(l.entries.end(), s.entries.begin(), s.entries.end());
    if (before == 0) {
      s.entries.clear();
      l.head = std::move(s);
    }
    // A page without entries ends it: check_sums() says what is missing.
    if (l.entries.size() == before) break;
  } while (static_cast<std::int64_t>(l.entries.size()) < l.head.count);
  GBX_TRY(check_sums(l));
  return std::optional<Ledger>(std::move(l));
}

}  // namespace

Result<Ledger> fetch_ledger(const records::SetChain::Keys& set, const LedgerQuestion& q,
                            Random& random, const AskLedger& ask) {
  for (int round = 0; round < kRounds; ++round) {
    GBX_ASSIGN(std::optional<Ledger> l, read_once(set, q, random, ask));
    if (l) return std::move(*l);
  }
  return fail(Reason::kConflict, "the ledger changed each time while it was read")
      .hint("repeat the command");
}

std::vector<ConsumerSum> by_consumer(const Ledger& l) {
  std::map<Hash32, ConsumerSum> sums;
  const std::int64_t since = l.head.time - l.head.limits.period_days * 86400;
  for (const auto& e : l.entries) {
    ConsumerSum& s = sums[e.consumer_id];
    s.consumer_id = e.consumer_id;
    s.total_free_bits += e.free_bits;
    s.total_verified_bits += e.verified_bits;
    if (e.time >= since) s.period_free_bits += e.free_bits;
    ++s.jobs;
  }
  std::vector<ConsumerSum> out;
  for (const auto& [id, s] : sums) out.push_back(s);
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return a.total_free_bits > b.total_free_bits;
  });
  return out;
}

std::int64_t left(std::int64_t limit, std::int64_t spent) {
  return std::max<std::int64_t>(0, limit - spent);
}

Series series_of(const Ledger& l, std::size_t columns) {
  Series s;
  if (columns == 0 || l.entries.empty()) return s;
  s.from = l.entries.front().time;
  s.to = std::max({l.head.time, l.entries.back().time, s.from + 1});
  const auto n = static_cast<std::int64_t>(columns);
  std::size_t next = 0;
  std::int64_t sum = 0;
  for (std::int64_t i = 1; i <= n; ++i) {
    const std::int64_t end = s.from + (s.to - s.from) / n * i + (s.to - s.from) % n * i / n;
    while (next < l.entries.size() && l.entries[next].time <= end) {
      sum += l.entries[next++].free_bits;
    }
    s.bits.push_back(sum);
  }
  return s;
}

std::string plot(const Series& s, std::size_t rows) {
  if (s.bits.empty() || rows == 0) return {};
  constexpr const char* kBlocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const std::int64_t top = std::max<std::int64_t>(1, s.bits.back());
  const std::string most = grouped(top);
  const auto levels = static_cast<std::int64_t>(rows) * 8;
  std::string out;
  for (std::size_t r = rows; r-- > 0;) {
    const std::string label = r + 1 == rows ? most : r == 0 ? "0" : "";
    out += "  " + std::string(most.size() - label.size(), ' ') + label + " │";
    for (const std::int64_t bits : s.bits) {
      // any bit is seen
      const std::int64_t full = bits == 0 ? 0 : std::max<std::int64_t>(1, bits * levels / top);
      const std::int64_t here =
          std::clamp<std::int64_t>(full - static_cast<std::int64_t>(r) * 8, 0, 8);
      out += kBlocks[here];
    }
    out += "\n";
  }
  out += "  " + std::string(most.size(), ' ') + " └";
  for (std::size_t i = 0; i < s.bits.size(); ++i) out += "─";
  const std::string from = format_time(s.from);
  const std::string to = format_time(s.to);
  const std::size_t both = from.size() + to.size();
  out += "\n  " + std::string(most.size() + 2, ' ') + from +
         std::string(s.bits.size() > both ? s.bits.size() - both : 1, ' ') + to + "\n";
  return out;
}

namespace {

std::string xml_text(const std::string& text) {
  std::string out;
  for (const char c : printable(text, 200)) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string svg(const Series& s, const std::string& title) {
  constexpr std::int64_t kLeft = 80;
  constexpr std::int64_t kTop = 40;
  constexpr std::int64_t kWide = 640;
  constexpr std::int64_t kHigh = 240;
  const std::int64_t most = s.bits.empty() ? 1 : std::max<std::int64_t>(1, s.bits.back());
  const auto text = [](std::int64_t x, std::int64_t y, const char* anchor, const std::string& t) {
    return fmt::format("  <text x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                       xml_text(t));
  };
  std::string line;
  const auto n = static_cast<std::int64_t>(s.bits.size());
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t y = kTop + kHigh - s.bits[static_cast<std::size_t>(i)] * kHigh / most;
    line += fmt::format("{}{},{} {},{}", i == 0 ? "" : " ", kLeft + kWide * i / n, y,
                        kLeft + kWide * (i + 1) / n, y);
  }
  std::string o = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 330\" "
      "font-family=\"sans-serif\" "
      "font-size=\"12\">\n  <title>{}</title>\n  <rect width=\"760\" height=\"330\" "
      "fill=\"white\"/>\n",
      xml_text(title));
  o += text(kLeft, 24, "start", title);
  o += fmt::format("  <path d=\"M{0} {1}V{2}H{3}\" fill=\"none\" stroke=\"black\"/>\n", kLeft, kTop,
                   kTop + kHigh, kLeft + kWide);
  if (!line.empty()) {
    o += "  <polyline points=\"" + line +
         "\" fill=\"none\" stroke=\"#b00020\" stroke-width=\"2\"/>\n";
    o += text(kLeft, kTop + kHigh + 20, "start", format_time(s.from));
    o += text(kLeft + kWide, kTop + kHigh + 20, "end", format_time(s.to));
  }
  o += text(kLeft - 8, kTop + 4, "end", grouped(line.empty() ? 0 : most));
  o += text(kLeft - 8, kTop + kHigh, "end", "0");
  return o + "</svg>\n";
}

namespace {

std::string consumers_table(const Ledger& l) {
  JsonArray rows;
  for (const auto& c : by_consumer(l)) {
    Json j;
    j["consumer"] = short_id(c.consumer_id);
    j["period"] = grouped(c.period_free_bits);
    j["left"] = grouped(left(l.head.limits.period_free_bits, c.period_free_bits));
    j["ever"] = with_rows(l.head, c.total_free_bits);
    j["verified"] = grouped(c.total_verified_bits);
    j["jobs"] = grouped(c.jobs);
    rows.push_back(std::move(j));
  }
  return table({{"CONSUMER", "consumer"},
                {"FREE BITS, " + std::to_string(l.head.limits.period_days) + " DAYS", "period"},
                {"LEFT", "left"},
                {"FOR EVER", "ever"},
                {"VERIFIED", "verified"},
                {"JOBS", "jobs"}},
               rows, "nothing was spent");
}

std::string entries_table(const Ledger& l) {
  JsonArray rows;
  const std::size_t from = l.entries.size() > kShown ? l.entries.size() - kShown : 0;
  for (std::size_t i = l.entries.size(); i-- > from;) {
    const LedgerEntry& e = l.entries[i];
    Json j;
    j["time"] = format_time(e.time);
    j["job"] = short_id(e.job_id);
    j["consumer"] = short_id(e.consumer_id);
    j["state"] = enum_name(e.state);
    j["free"] = with_rows(l.head, e.free_bits);
    j["verified"] = grouped(e.verified_bits);
    rows.push_back(std::move(j));
  }
  std::string out = table({{"TIME", "time"},
                           {"JOB", "job"},
                           {"CONSUMER", "consumer"},
                           {"STATE", "state"},
                           {"FREE BITS", "free"},
                           {"VERIFIED", "verified"}},
                          rows, "");
  if (from > 0) out += "and " + grouped(static_cast<std::int64_t>(from)) + " earlier (-o json)\n";
  return out;
}

}  // namespace

std::string ledger_text(const Ledger& l, const std::string& name) {
  const LedgerStatement& h = l.head;
  std::string o = printable(name) + ", all versions of asset " + to_hex(h.asset_id) + "\n";
  if (h.consumer) o += "  your own part\n";
  o += "  without a person  " + with_rows(h, h.limits.auto_clear_free_bits) + " free bits and " +
       grouped(h.limits.auto_clear_verified_bits) + " verified bits a release\n";
  o += "  each consumer     " + with_rows(h, h.limits.period_free_bits) + " free bits in " +
       std::to_string(h.limits.period_days) + " days\n";
  o += "  all together      " + with_rows(h, h.limits.total_free_bits) + " free bits for ever\n";
  o += "  spent             " + with_rows(h, h.total_free_bits) + " free bits, " +
       grouped(h.total_verified_bits) + " verified bits, in " + grouped(h.count) + " jobs\n";
  if (!h.consumer) {
    o += "  left for all      " + with_rows(h, left(h.limits.total_free_bits, h.total_free_bits)) +
         " free bits\n";
  }
  if (!h.row_bits) {
    o += "  rows              the policy does not say how many bits a row holds (rowBits)\n";
  }
  o += "\n" + consumers_table(l);
  if (l.entries.empty()) return o;
  o += "\nfree bits, added up\n" + plot(series_of(l, kPlotColumns), kPlotRows) + "\n";
  return o + entries_table(l);
}

Json limits_json(const Ledger& l) {
  const LedgerStatement& h = l.head;
  Json j;
  j["assetId"] = to_hex(h.asset_id);
  j["ownerId"] = to_hex(h.owner_id);
  j["autoClearFreeBits"] = h.limits.auto_clear_free_bits;
  j["autoClearVerifiedBits"] = h.limits.auto_clear_verified_bits;
  j["periodFreeBits"] = h.limits.period_free_bits;
  j["periodDays"] = h.limits.period_days;
  j["totalFreeBits"] = h.limits.total_free_bits;
  j["rowBits"] = h.row_bits ? Json(*h.row_bits) : Json();
  j["spentFreeBits"] = h.total_free_bits;
  j["spentVerifiedBits"] = h.total_verified_bits;
  j["spentInPeriod"] = h.period_free_bits;
  j["own"] = h.consumer.has_value();
  if (h.consumer) {
    j["left"] = left(h.limits.period_free_bits, h.period_free_bits);
  } else {
    j["left"] = left(h.limits.total_free_bits, h.total_free_bits);
  }
  return j;
}

Json ledger_json(const Ledger& l) {
  Json j = limits_json(l);
  j["time"] = format_time(l.head.time);
  JsonArray consumers;
  for (const auto& c : by_consumer(l)) {
    Json one;
    one["consumerId"] = to_hex(c.consumer_id);
    one["periodFreeBits"] = c.period_free_bits;
    one["left"] = left(l.head.limits.period_free_bits, c.period_free_bits);
    one["totalFreeBits"] = c.total_free_bits;
    one["totalVerifiedBits"] = c.total_verified_bits;
    one["jobs"] = c.jobs;
    consumers.push_back(std::move(one));
  }
  j["consumers"] = Json(std::move(consumers));
  JsonArray entries;
  for (const auto& e : l.entries) entries.push_back(to_json(e));
  j["entries"] = Json(std::move(entries));
  const Series s = series_of(l, kPlotColumns);
  j["plot"]["from"] = format_time(s.from);
  j["plot"]["to"] = format_time(s.to);
  j["plot"]["freeBits"] = Json(JsonArray(s.bits.begin(), s.bits.end()));
  return j;
}

}  // namespace gbx::cli
