#include "cli/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/figures.h"
#include "base/log.h"
#include "cli/output.h"
#include "cli/wording.h"
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

std::string with_rows(const LedgerStatement& head, std::int64_t bits) {
  const std::string rows = policy::equivalent_rows(bits, head.row_bits);
  return grouped(bits) + (rows.empty() ? "" : " (" + rows + ")");
}
std::string free_bits(const LedgerStatement& head, std::int64_t bits) {
  const std::string rows = policy::equivalent_rows(bits, head.row_bits);
  return grouped(bits) + " free bits" + (rows.empty() ? "" : " (" + rows + ")");
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
    return grouped(f) + " free and " + grouped(v) + " verified bits in " + counted(n, "job");
  };
  const LedgerStatement& h = l.head;
  const auto count = static_cast<std::int64_t>(l.entries.size());
  const bool within = h.period_free_bits >= 0 && h.period_free_bits <= h.total_free_bits;
  const bool same = free == h.total_free_bits && verified == h.total_verified_bits;
  const bool part = free <= h.total_free_bits && verified <= h.total_verified_bits;
  if (count + l.earlier == h.count && within && (l.earlier == 0 ? same : part)) return ok_status();
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

Result<LedgerStatement> one_page(const records::SetChain::Keys& set, const LedgerQuestion& q,
                                 Random& random, const AskLedger& ask, std::int64_t after) {
  const records::LedgerRequest request{q.asset_id, random.fixed<32>(), q.consumer, after};
  GBX_ASSIGN(records::Signed<LedgerStatement> page, ask(request));
  GBX_TRY(verify_statement(set, q, request.nonce, page));
  return std::move(page.body);
}

// Empty when it changed between two pages.
Result<std::optional<Ledger>> read_once(const records::SetChain::Keys& set, const LedgerQuestion& q,
                                        Random& random, const AskLedger& ask, std::int64_t most) {
  Ledger l;
  GBX_ASSIGN(l.head, one_page(set, q, random, ask, 0));
  l.entries = std::move(l.head.entries);
  l.head.entries.clear();
  if (l.head.count > most) {
    l.earlier = l.head.count - most;
    l.entries.clear();
  }
  while (static_cast<std::int64_t>(l.entries.size()) + l.earlier < l.head.count) {
    // Pages are by place, and a decision moves its job to the end, perhaps with the sums as they
    // were: so each begins with the entry that the last one ended with.
    const std::size_t known = l.entries.empty() ? 0 : 1;
    const auto after = static_cast<std::int64_t>(l.entries.size() - known) + l.earlier;
    GBX_ASSIGN(const LedgerStatement s, one_page(set, q, random, ask, after));
    if (!same_state(l.head, s)) return std::optional<Ledger>();
    // A page without more entries ends it: check_sums() says what is missing.
    if (s.entries.size() <= known) break;
    if (known != 0 && s.entries.front().job_id != l.entries.back().job_id) {
      return std::optional<Ledger>();
    }
    l.entries.insert(l.entries.end(), s.entries.begin() + static_cast<std::ptrdiff_t>(known),
                     s.entries.end());
  }
  GBX_TRY(check_sums(l));
  return std::optional<Ledger>(std::move(l));
}

}  // namespace

Result<Ledger> fetch_ledger(const records::SetChain::Keys& set, const LedgerQuestion& q,
                            Random& random, const AskLedger& ask, std::int64_t most) {
  for (int round = 0; round < kRounds; ++round) {
    GBX_ASSIGN(std::optional<Ledger> l, read_once(set, q, random, ask, most));
    if (l) return std::move(*l);
  }
  return fail(Reason::kConflict, "the ledger changed each time while it was read")
      .hint("repeat the command");
}

Result<LedgerStatement> fetch_head(const records::SetChain::Keys& set, const LedgerQuestion& q,
                                   Random& random, const AskLedger& ask) {
  return one_page(set, q, random, ask, kHeadAlone);
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
  if (!l.head.consumer) s.limit = l.head.limits.total_free_bits;
  if (columns == 0 || l.entries.empty()) return s;
  s.from = l.entries.front().time;
  s.to = std::max({l.head.time, l.entries.back().time, s.from + 1});
  const auto n = static_cast<std::int64_t>(columns);
  std::size_t next = 0;
  std::int64_t sum = l.head.total_free_bits;  // of those before the first
  for (const auto& e : l.entries) sum -= e.free_bits;
  s.before = sum;
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

namespace {

constexpr std::int64_t kLeft = 100;
constexpr std::int64_t kTop = 48;
constexpr std::int64_t kWide = 620;
constexpr std::int64_t kHigh = 232;

std::string svg_text(std::int64_t x, std::int64_t y, const char* anchor, const std::string& t) {
  return fmt::format("  <text x=\"{}\" y=\"{}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     xml_text(t));
}

// For whoever does not see it: the figures themselves.
std::string description(const Series& s) {
  const std::string limit =
      s.limit > 0 ? " The limit for all consumers is " + grouped(s.limit) + "." : "";
  if (s.bits.empty()) return "No job has cost this asset anything yet." + limit;
  return "Free bits added up rise to " + grouped(s.bits.back()) + " from " + format_time(s.from) +
         " to " + format_time(s.to) + "." + limit;
}

}  // namespace

// The limit is a line where it is at most ten times as high, and else would flatten the rest.
std::string svg(const Series& s, const std::string& title) {
  const std::int64_t spent = s.bits.empty() ? 0 : s.bits.back();
  const bool near = s.limit > 0 && (s.bits.empty() || s.limit / 10 <= spent);
  // Whatever is no limit ends below the edge, so that none is taken for one.
  const std::int64_t most = std::max<std::int64_t>({1, spent + spent / 8, near ? s.limit : 0});
  const auto height = [&](std::int64_t bits) {
    return kTop + kHigh -
           static_cast<std::int64_t>(static_cast<double>(bits) / static_cast<double>(most) * kHigh);
  };
  std::string line;
  const auto n = static_cast<std::int64_t>(s.bits.size());
  if (n > 0) line = fmt::format("{},{} ", kLeft, height(s.before));
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t y = height(s.bits[static_cast<std::size_t>(i)]);
    line += fmt::format("{}{},{} {},{}", i == 0 ? "" : " ", kLeft + kWide * i / n, y,
                        kLeft + kWide * (i + 1) / n, y);
  }
  std::string o = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 330\" role=\"img\" "
      "aria-labelledby=\"title desc\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "  <title id=\"title\">{}</title>\n  <desc id=\"desc\">{}</desc>\n"
      "  <rect width=\"760\" height=\"330\" fill=\"white\"/>\n",
      xml_text(title), xml_text(description(s)));
  o += svg_text(kLeft, 24, "start", title);
  o += fmt::format("  <path d=\"M{0} {1}V{2}H{3}\" fill=\"none\" stroke=\"black\"/>\n", kLeft, kTop,
                   kTop + kHigh, kLeft + kWide);
  o += svg_text(kLeft - 8, kTop - 10, "end", "free bits");
  if (near) {
    o += fmt::format("  <path d=\"M{0} {1}H{2}\" stroke=\"#555555\" stroke-dasharray=\"6 4\"/>\n",
                     kLeft, height(s.limit), kLeft + kWide);
    o += svg_text(kLeft + kWide, height(s.limit) - 6, "end", "limit " + grouped(s.limit));
  }
  if (line.empty()) {
    o += svg_text(kLeft + kWide / 2, kTop + kHigh / 2, "middle", description({}));
  } else {
    o += "  <polyline points=\"" + line +
         "\" fill=\"none\" stroke=\"#b00020\" stroke-width=\"2\"/>\n";
    o += svg_text(kLeft, kTop + kHigh + 20, "start", format_time(s.from));
    o += svg_text(kLeft + kWide, kTop + kHigh + 20, "end", format_time(s.to));
    if (!near && s.limit > 0) {
      o += svg_text(kLeft + kWide, 24, "end", "limit " + grouped(s.limit) + ", far above");
    }
    o += svg_text(kLeft - 8, height(spent) + 4, "end", grouped(spent));
  }
  o += svg_text(kLeft - 8, kTop + kHigh, "end", "0");
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
                {"FREE BITS, " + grouped(l.head.limits.period_days) + " DAYS", "period"},
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
  o += "  without a person  " + free_bits(h, h.limits.auto_clear_free_bits) + " and " +
       grouped(h.limits.auto_clear_verified_bits) + " verified bits a release\n";
  o += "  each consumer     " + free_bits(h, h.limits.period_free_bits) + " in " +
       counted(h.limits.period_days, "day") + "\n";
  o += "  all together      " + free_bits(h, h.limits.total_free_bits) + " for ever\n";
  o += "  spent             " + free_bits(h, h.total_free_bits) + " and " +
       grouped(h.total_verified_bits) + " verified bits in " + counted(h.count, "job") + "\n";
  if (!h.consumer) {
    o += "  left for all      " + free_bits(h, left(h.limits.total_free_bits, h.total_free_bits)) +
         "\n";
  }
  if (l.earlier > 0) {
    o += "  NOT LISTED        " + counted(l.earlier, "earlier job") +
         ": what follows is of the newest " + grouped(static_cast<std::int64_t>(l.entries.size())) +
         "\n";
  }
  if (!h.row_bits) {
    o += "  rows              the policy does not say how many bits a row holds (rowBits)\n";
  }
  o += "\n" + consumers_table(l);
  if (l.entries.empty()) return o;
  o += "\nfree bits, added up\n" + plot(series_of(l, kPlotColumns), kPlotRows) + "\n";
  return o + entries_table(l);
}

Json limits_json(const LedgerStatement& h) {
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
  Json j = limits_json(l.head);
  j["time"] = l.head.time;
  j["jobs"] = l.head.count;
  j["earlier"] = l.earlier;
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
  j["plot"]["from"] = s.from;
  j["plot"]["to"] = s.to;
  j["plot"]["freeBits"] = Json(JsonArray(s.bits.begin(), s.bits.end()));
  return j;
}

}  // namespace gbx::cli
