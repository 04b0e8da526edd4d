#include "gate/copies.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <string>
#include <unordered_map>

#include "gate/tokens.h"

namespace gbx::gate {
namespace {

constexpr std::size_t kWindow = 24;
// window + step - 1 = 32 characters are guaranteed
constexpr std::size_t kStep = 9;
constexpr std::size_t kMaxFingerprints = 500'000;  // more text than this holds: a longer step
constexpr std::size_t kMaxDecoded = 512U << 20;
constexpr int kMaxNesting = 3;
constexpr std::size_t kMinRun = 32;
constexpr std::size_t kMaxTokens = 100'000;
constexpr std::size_t kMaxRowTokens = 512;
constexpr std::size_t kMaxInputTokens = 4096;
constexpr std::size_t kMaxPostings = 32;
constexpr std::size_t kMaxSpecs = 8;
constexpr std::size_t kMaxLine = 64U << 10;
constexpr std::uint32_t kCommon = 10;  // shared by ten rows or more: no finding
constexpr double kByteMargin = 10.0;
constexpr double kRowMargin = 22.0;
constexpr double kColumnBits = 64.0;
constexpr std::uint64_t kMultiplier = 0x9e3779b97f4a7c55ULL;

// 0: not part of a window. Digits 1-10, letters 11-36, bytes above 127 by their upper bits 37-52.
constexpr std::array<std::uint8_t, 256> make_symbols() {
  std::array<std::uint8_t, 256> t{};
  for (std::size_t c = 0; c < 256; ++c) {
    std::size_t s = 0;
    if (c >= '0' && c <= '9') s = c - '0' + 1;
    if (c >= 'a' && c <= 'z') s = c - 'a' + 11;
    if (c >= 'A' && c <= 'Z') s = c - 'A' + 11;
    if (c >= 0x80) s = 37 + ((c >> 3) & 15);
    t[c] = static_cast<std::uint8_t>(s);
  }
  return t;
}
constexpr std::array<std::uint8_t, 256> kSymbols = make_symbols();
constexpr double kSymbolCount = 53.0;
using Window = std::array<std::uint8_t, kWindow>;

// Says quickly that a hash is absent: sized to what it holds, so that it stays in the cache.
class Bitmap {
 public:
  void reset(std::size_t entries) {
    const std::size_t bits =
        std::bit_ceil(std::clamp<std::size_t>(entries * 16, 4096, std::size_t{1} << 24));
    words_.assign(bits / 64, 0);
    mask_ = bits - 1;
  }
  void set(std::uint64_t h) { words_[(h & mask_) >> 6] |= std::uint64_t{1} << (h & 63); }
  bool test(std::uint64_t h) const { return ((words_[(h & mask_) >> 6] >> (h & 63)) & 1) != 0; }

 private:
  std::vector<std::uint64_t> words_{0};
  std::uint64_t mask_ = 63;
};

// Order-2 model of the input's symbols: how surprising a window would be to somebody who knows the
// data's style.
class Surprisal {
 public:
  Surprisal() : triples_(64 * 64 * 64, 0), pairs_(64 * 64, 0) {}
  void add(std::uint8_t a, std::uint8_t b, std::uint8_t c) {
    ++triples_[index(a, b, c)];
    ++pairs_[static_cast<std::size_t>(a) * 64 + b];
  }
  double bits(const Window& w) const {
    double sum = 0;
    for (std::size_t i = 2; i < kWindow; ++i) {
      const double hits = triples_[index(w[i - 2], w[i - 1], w[i])];
      const double context = pairs_[static_cast<std::size_t>(w[i - 2]) * 64 + w[i - 1]];
      sum += std::log2((context + 0.5 * kSymbolCount) / (hits + 0.5));
    }
    return sum;
  }

 private:
  static std::size_t index(std::uint8_t a, std::uint8_t b, std::uint8_t c) {
    return (static_cast<std::size_t>(a) * 64 + b) * 64 + c;
  }
  std::vector<std::uint32_t> triples_;
  std::vector<std::uint32_t> pairs_;
};

// Rolling hash of the last kWindow symbols.
class Roller {
 public:
  Roller() {
    for (std::size_t i = 0; i < kWindow; ++i) top_ *= kMultiplier;
  }
  void reset() { count_ = 0, slot_ = 0, hash_ = 0; }
  // True when a whole window lies behind.
  bool push(std::uint8_t symbol) {
    const std::uint8_t old = count_ >= kWindow ? ring_[slot_] : std::uint8_t{0};
    hash_ = hash_ * kMultiplier + symbol - old * top_;
    ring_[slot_] = symbol;
    if (++slot_ == kWindow) slot_ = 0;
    return ++count_ >= kWindow;
  }
  std::uint64_t hash() const { return mix64(hash_); }
  Window window() const {
    Window w;
    std::copy(ring_.begin() + static_cast<std::ptrdiff_t>(slot_), ring_.end(), w.begin());
    std::copy_n(ring_.begin(), slot_, w.end() - static_cast<std::ptrdiff_t>(slot_));
    return w;
  }

 private:
  std::array<std::uint8_t, kWindow> ring_{};
  std::uint64_t hash_ = 0;
  std::uint64_t top_ = 1;
  std::size_t count_ = 0;
  std::size_t slot_ = 0;  // the oldest symbol's place
};

// "0000…" and "121212…" say nothing.
bool too_simple(const Window& w) {
  std::array<std::uint32_t, kWindow> seen{};
  std::size_t n = 0;
  for (std::size_t i = 2; i < kWindow; ++i) {
    const std::uint32_t t = (static_cast<std::uint32_t>(w[i - 2]) << 16) |
                            (static_cast<std::uint32_t>(w[i - 1]) << 8) | w[i];
    const auto end = seen.begin() + static_cast<std::ptrdiff_t>(n);
    if (std::find(seen.begin(), end, t) == end) seen[n++] = t;
  }
  return n <= 8;
}

int base64_digit(std::uint8_t c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+' || c == '-') return 62;
  return c == '/' || c == '_' ? 63 : -1;
}
int hex_digit(std::uint8_t c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}
bool is_space(std::uint8_t c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// Decodes one run of digits of `width` bits, from each phase that gives other bytes.
void decode_run(const Bytes& digits, int width, std::vector<Bytes>& out) {
  const std::size_t phases = width == 6 ? 4 : 2;
  for (std::size_t phase = 0; phase < phases; ++phase) {
    Bytes bytes;
    std::uint32_t bits = 0;
    int have = 0;
    for (std::size_t i = phase; i < digits.size(); ++i) {
      bits = (bits << width) | digits[i];
      have += width;
      if (have >= 8) {
        have -= 8;
        bytes.push_back(static_cast<std::uint8_t>(bits >> have));
        bits &= (1U << have) - 1;
      }
    }
    if (bytes.size() >= kWindow) out.push_back(std::move(bytes));
  }
}
void decode_runs(ByteView text, int (*digit)(std::uint8_t), int width, bool skip_space,
                 std::vector<Bytes>& out) {
  Bytes run;
  const auto flush = [&] {
    if (run.size() >= kMinRun) decode_run(run, width, out);
    run.clear();
  };
  for (const std::uint8_t c : text) {
    const int d = digit(c);
    if (d >= 0) {
      run.push_back(static_cast<std::uint8_t>(d));
    } else if (!skip_space || !is_space(c)) {
      flush();
    }
  }
  flush();
}

double log2_choose(double n, double k) {
  return (std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1)) / std::log(2.0);
}

struct Spec {
  int digits = 0;
  int scale = 0;
  bool operator==(const Spec&) const = default;
};
struct TokenInfo {
  std::uint32_t rows_with = 0;  // input rows that hold it
  std::uint64_t last_row = ~std::uint64_t{0};
  std::vector<std::uint32_t> postings;  // output rows that hold it
};
struct OutputRow {
  std::size_t output = 0;
  std::int64_t row = 0;
  std::size_t tokens = 0;
  // token ids that one input row shared: the largest few
  std::vector<std::vector<std::uint32_t>> best;
};
struct OutputColumn {
  std::size_t output = 0;
  std::int64_t column = 0;
  std::vector<std::uint32_t> tokens;
  // the same numbers with another last digit: what chance would find
  std::vector<std::uint32_t> decoys;
};
struct Fingerprint {
  std::uint32_t output = 0;
  GateReason form = GateReason::kCopiedBytes;
  std::uint32_t rows_with = 0;
  std::uint64_t last_row = ~std::uint64_t{0};
  Window text{};
};

}  // namespace

std::vector<Bytes> decoded_runs(ByteView text) {
  std::vector<Bytes> out;
  const bool spaced = std::any_of(text.begin(), text.end(), is_space);
  for (const bool skip : {false, true}) {
    if (skip && !spaced) break;
    decode_runs(text, base64_digit, 6, skip, out);
    decode_runs(text, hex_digit, 4, skip, out);
  }
  return out;
}

class CopyDetector::Impl {
 public:
  // ---- output side
  void add_text(std::size_t output, ByteView bytes, GateReason form, int depth) {
    add_windows(output, bytes, form);
    Bytes reversed(bytes.rbegin(), bytes.rend());
    add_windows(output, reversed,
                form == GateReason::kCopiedBytes ? GateReason::kCopiedReversed : form);
    if (depth > 0) add_lines(output, bytes);
    if (depth >= kMaxNesting) return;
    for (const Bytes& inner : decoded_runs(bytes)) {
      decoded_ += inner.size();
      if (decoded_ > kMaxDecoded) return;
      add_text(output, inner, GateReason::kCopiedEncoded, depth + 1);
    }
  }

  void add_lines(std::size_t output, ByteView bytes) {
    std::string_view rest = as_text(bytes);
    std::vector<std::string_view> tokens;
    std::unordered_map<std::size_t, OutputColumn> by_place;
    const std::size_t stride = 1 + rest.size() / (kMaxTokens * 8);
    for (std::int64_t row = 0; !rest.empty(); ++row) {
      const std::size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (static_cast<std::size_t>(row) % stride != 0) continue;
      split_tokens(line, kMaxRowTokens, tokens);
      const std::uint32_t id = new_row(output, row);
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        if (!has_digit(tokens[i])) continue;
        OutputColumn& column = by_place[i];
        column.output = output;
        column.column = -1;
        add_token(id, token_hash(tokens[i]), column);
        add_decoys(tokens[i], 0, column);
      }
    }
    for (auto& [place, column] : by_place) columns_.push_back(std::move(column));
  }

  void add_cells(std::size_t output, const std::vector<Cell>& cells) {
    std::unordered_map<std::int64_t, OutputColumn> by_column;
    std::unordered_map<std::int64_t, std::uint32_t> rows;
    const std::size_t stride = 1 + cells.size() / kMaxTokens;
    for (const Cell& c : cells) {
      if (!c.number || static_cast<std::size_t>(c.row) % stride != 0) continue;
      const std::optional<NumberKey> key = number_key(c.text);
      if (!key) continue;
      const std::uint64_t salt = spec_salt(*c.number);
      auto [it, fresh] = rows.emplace(c.row, 0);
      if (fresh) it->second = new_row(output, c.row);
      OutputColumn& column = by_column[c.column];
      column.output = output;
      column.column = c.column;
      add_token(it->second, hash_key(*key, salt), column);
      add_decoys(c.text, salt, column);
    }
    for (auto& [number, column] : by_column) columns_.push_back(std::move(column));
  }

  void prepare() {
    for (OutputColumn& c : columns_) {
      unique(c.tokens);
      unique(c.decoys);
      std::erase_if(c.decoys, [&](std::uint32_t d) {
        return std::binary_search(c.tokens.begin(), c.tokens.end(), d);
      });
    }
    for (OutputRow& r : rows_) r.tokens = 0;
    for (std::uint32_t t = 0; t < tokens_.size(); ++t) {
      unique(tokens_[t].postings);
      for (const std::uint32_t r : tokens_[t].postings) ++rows_[r].tokens;
    }
    touched_count_.assign(rows_.size(), 0);
    touched_tokens_.resize(rows_.size());
    window_bits_.reset(fingerprints_.size());
    for (const auto& [hash, unused] : fingerprints_) window_bits_.set(hash);
    token_bits_.reset(token_ids_.size());
    for (const auto& [hash, unused] : token_ids_) token_bits_.set(hash);
  }

  // ---- input side
  void begin_file() {
    roller_.reset();
    line_.clear();
    first_line_ = true;
  }
  void feed(ByteView bytes) {
    std::string_view rest = as_text(bytes);
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      const std::size_t take = std::min({end, kMaxLine - line_.size(), rest.size()});
      line_.append(rest.substr(0, take));
      rest.remove_prefix(take);
      if (!rest.empty() && rest.front() == '\n') {
        end_line();
        rest.remove_prefix(1);
      } else if (line_.size() >= kMaxLine) {
        end_line();
      }
    }
  }
  void end_file() {
    if (!line_.empty()) end_line();
  }

  Result<std::vector<CopyFinding>> finish() {
    if (decoded_ > kMaxDecoded) {
      return fail(Reason::kTooLarge, "outputs decode to more than the copy check looks at");
    }
    std::vector<CopyFinding> out;
    judge_windows(out);
    for (const OutputRow& r : rows_) judge_row(r, out);
    for (const OutputColumn& c : columns_) judge_column(c, out);
    return out;
  }
  int nearest() const { return static_cast<int>(std::min(nearest_ * 100.0, 1000.0)); }
  std::size_t guaranteed() const { return kWindow + longest_step_ - 1; }

 private:
  static void unique(std::vector<std::uint32_t>& v) {
    std::sort(v.begin(), v.end());
    v.erase(std::unique(v.begin(), v.end()), v.end());
  }

  // Winnowing: of every `step` neighbouring windows the one with the smallest hash is kept, so that
  // every shared run of window + step - 1 characters has one that was kept, wherever it stands.
  void add_windows(std::size_t output, ByteView bytes, GateReason form) {
    const std::size_t room = kMaxFingerprints / 8;
    const std::size_t step = std::max(kStep, 2 * bytes.size() / room);
    longest_step_ = std::max(longest_step_, step);
    Roller roller;
    std::vector<std::pair<std::uint64_t, Window>> group;
    std::size_t best = 0;
    for (const std::uint8_t c : bytes) {
      const std::uint8_t s = kSymbols[c];
      if (s == 0) continue;
      ++output_symbols_;
      if (!roller.push(s)) continue;
      group.emplace_back(roller.hash(), roller.window());
      if (group.size() == 2 * step) {
        group.erase(group.begin(), group.begin() + static_cast<std::ptrdiff_t>(step));
        best = ~std::size_t{0};
      }
      if (group.size() < step) continue;
      const std::size_t first = group.size() - step;
      if (best == ~std::size_t{0} || best < first || group.size() == step) {
        best = first;
        for (std::size_t i = first; i < group.size(); ++i) {
          if (group[i].first <= group[best].first) best = i;
        }
      } else if (group.back().first <= group[best].first) {
        best = group.size() - 1;
      }
      add_fingerprint(output, group[best], form);
    }
    if (!group.empty() && group.size() < step) {  // a short text: keep every window
      for (const auto& g : group) add_fingerprint(output, g, form);
    }
  }
  void add_fingerprint(std::size_t output, const std::pair<std::uint64_t, Window>& g,
                       GateReason form) {
    const auto [it, fresh] = fingerprints_.try_emplace(g.first);
    if (!fresh) return;
    if (too_simple(g.second)) {
      fingerprints_.erase(it);
      return;
    }
    it->second.output = static_cast<std::uint32_t>(output);
    it->second.form = form;
    it->second.text = g.second;
  }

  std::uint64_t spec_salt(const NumberType& t) {
    if (t.integer && t.digits == 0) return 0;
    const Spec spec{t.digits, t.scale};
    const auto it = std::find(specs_.begin(), specs_.end(), spec);
    if (it != specs_.end()) return static_cast<std::uint64_t>(it - specs_.begin()) + 1;
    if (specs_.size() >= kMaxSpecs) return kMaxSpecs + 1;  // looked up by nobody: one view fewer
    specs_.push_back(spec);
    return specs_.size();
  }
  static std::uint64_t token_hash(std::string_view token) {
    const std::optional<NumberKey> key = number_key(token);
    return key ? hash_key(*key, 0) : hash_text(token, 0);
  }
  std::uint32_t token_id(std::uint64_t hash) {
    const auto [it, fresh] =
        token_ids_.try_emplace(hash, static_cast<std::uint32_t>(tokens_.size()));
    if (fresh) tokens_.emplace_back();
    return it->second;
  }
  std::uint32_t new_row(std::size_t output, std::int64_t row) {
    rows_.push_back({output, row, 0, {}});
    return static_cast<std::uint32_t>(rows_.size() - 1);
  }
  void add_token(std::uint32_t row, std::uint64_t hash, OutputColumn& column) {
    const std::uint32_t id = token_id(hash);
    std::vector<std::uint32_t>& postings = tokens_[id].postings;
    // One too many says that the output itself repeats it often: it tells no rows apart.
    if (postings.size() <= kMaxPostings && (postings.empty() || postings.back() != row)) {
      postings.push_back(row);
    }
    column.tokens.push_back(id);
  }
  // The same text with another last digit. Short numbers have no neighbours worth comparing with.
  void add_decoys(std::string_view token, std::uint64_t salt, OutputColumn& column) {
    const std::optional<NumberKey> key = number_key(token);
    const auto last = token.find_last_of("0123456789");
    if (last == std::string_view::npos || (key && significant_digits(*key) < 2)) {
      column.tokens.pop_back();
      return;
    }
    std::string other(token);
    for (char d = '0'; d <= '9'; ++d) {
      if (d == token[last]) continue;
      other[last] = d;
      const std::optional<NumberKey> k = number_key(other);
      // would be a shorter number
      if (key && token.find('.') != std::string_view::npos && d == '0') continue;
      column.decoys.push_back(token_id(k ? hash_key(*k, salt) : hash_text(other, salt)));
    }
  }

  void end_line() {
    const bool header = first_line_ && looks_like_header();
    first_line_ = false;
    if (!header) {
      ++input_rows_;
      scan_windows();
      if (!tokens_.empty()) scan_tokens();
    }
    line_.clear();
  }
  // Names of columns are no secret: a first line with letters in which nothing begins like a
  // number.
  bool looks_like_header() {
    split_tokens(line_, kMaxInputTokens, scratch_);
    return !scratch_.empty() &&
           std::none_of(scratch_.begin(), scratch_.end(), [](std::string_view t) {
             return (t[0] >= '0' && t[0] <= '9') || t[0] == '-';
           });
  }
  void scan_windows() {
    // The model of a long input is made from one row in eight: its shape, not its size, decides.
    const bool learn = input_rows_ < 20'000 || input_rows_ % 8 == 0;
    std::uint8_t before = 0;
    std::uint8_t last = 0;
    for (const char c : line_) {
      const std::uint8_t s = kSymbols[static_cast<unsigned char>(c)];
      if (s == 0) continue;
      ++input_symbols_;
      if (learn && before != 0) model_.add(before, last, s);
      before = last;
      last = s;
      if (!roller_.push(s)) continue;
      const std::uint64_t h = roller_.hash();
      if (!window_bits_.test(h)) continue;
      const auto it = fingerprints_.find(h);
      if (it == fingerprints_.end() || it->second.last_row == input_rows_) continue;
      it->second.last_row = input_rows_;
      ++it->second.rows_with;
    }
  }
  void hit(std::uint64_t hash) {
    if (!token_bits_.test(hash)) return;
    const auto it = token_ids_.find(hash);
    if (it == token_ids_.end()) return;
    TokenInfo& t = tokens_[it->second];
    if (t.last_row == input_rows_) return;
    t.last_row = input_rows_;
    ++t.rows_with;
    const bool common = input_rows_ > 100 && t.rows_with > input_rows_ / 5;
    if (!t.postings.empty() && t.postings.size() <= kMaxPostings && !common) {
      hits_.push_back(it->second);
    }
  }
  void scan_tokens() {
    hits_.clear();
    split_tokens(line_, kMaxInputTokens, scratch_);
    for (const std::string_view token : scratch_) {
      if (!has_digit(token)) continue;
      const std::optional<NumberKey> key = number_key(token);
      hit(key ? hash_key(*key, 0) : hash_text(token, 0));
      if (!key) continue;
      for (std::size_t s = 0; s < specs_.size(); ++s) {
        hit(hash_key(round_key(*key, specs_[s].digits, specs_[s].scale), s + 1));
      }
    }
    if (hits_.size() < 2) return;
    for (const std::uint32_t t : hits_) {
      for (const std::uint32_t r : tokens_[t].postings) {
        if (touched_count_[r]++ == 0) touched_.push_back(r);
        touched_tokens_[r].push_back(t);
      }
    }
    for (const std::uint32_t r : touched_) {
      if (touched_count_[r] >= 2) remember(rows_[r].best, touched_tokens_[r]);
      touched_count_[r] = 0;
      touched_tokens_[r].clear();
    }
    touched_.clear();
  }
  static void remember(std::vector<std::vector<std::uint32_t>>& best,
                       const std::vector<std::uint32_t>& tokens) {
    if (best.size() < 4) {
      best.push_back(tokens);
      return;
    }
    const auto shorter = [](const auto& a, const auto& b) { return a.size() < b.size(); };
    const auto least = std::min_element(best.begin(), best.end(), shorter);
    if (least->size() < tokens.size()) *least = tokens;
  }

  void report(std::vector<CopyFinding>& out, const CopyFinding& f, double bits, double threshold) {
    nearest_ = std::max(nearest_, bits / threshold);
    if (bits < threshold || out.size() >= 16) return;
    const bool known = std::any_of(out.begin(), out.end(), [&](const CopyFinding& g) {
      return g.output == f.output && g.reason == f.reason;
    });
    if (!known) out.push_back(f);
  }
  void judge_windows(std::vector<CopyFinding>& out) {
    const double pairs =
        (static_cast<double>(input_symbols_) + 2) * (static_cast<double>(output_symbols_) + 2);
    const double threshold = std::log2(pairs) + kByteMargin;
    for (const auto& [hash, f] : fingerprints_) {
      if (f.rows_with == 0 || f.rows_with >= kCommon) continue;
      report(out, {f.output, f.form, -1, -1}, model_.bits(f.text), threshold);
    }
  }
  // The probability that an unrelated input row holds all these numbers, over all rows and all
  // choices of numbers.
  void judge_row(const OutputRow& r, std::vector<CopyFinding>& out) {
    const double n = static_cast<double>(input_rows_);
    const double threshold =
        std::log2(n + 1) + std::log2(static_cast<double>(rows_.size())) + kRowMargin;
    for (const auto& shared : r.best) {
      std::vector<double> bits;
      for (const std::uint32_t t : shared) bits.push_back(std::log2(n / tokens_[t].rows_with));
      std::sort(bits.rbegin(), bits.rend());
      const auto of = static_cast<double>(std::max(r.tokens, shared.size()));
      double sum = 0;
      double best = 0;
      for (std::size_t k = 0; k < bits.size(); ++k) {
        sum += bits[k];
        if (k >= 1) best = std::max(best, sum - log2_choose(of, static_cast<double>(k + 1)));
      }
      report(out, {r.output, GateReason::kCopiedRows, r.row, -1}, best, threshold);
    }
  }
  // How many of the column's numbers occur in the inputs, against how many of their neighbours do.
  void judge_column(const OutputColumn& c, std::vector<CopyFinding>& out) {
    const auto count = [&](const std::vector<std::uint32_t>& ids, double& all, double& hits) {
      for (const std::uint32_t t : ids) {
        if (tokens_[t].rows_with >= kCommon) continue;
        ++all;
        if (tokens_[t].rows_with > 0) ++hits;
      }
    };
    double n = 0;
    double h = 0;
    double decoys = 0;
    double decoy_hits = 0;
    count(c.tokens, n, h);
    count(c.decoys, decoys, decoy_hits);
    if (n < 4 || h < 4) return;
    const double p = h / n;
    const double q = (decoy_hits + 1) / (decoys + 2);
    if (p <= q) return;
    double bits = h * std::log2(p / q);
    if (h < n) bits += (n - h) * std::log2((1 - p) / (1 - q));
    const double threshold = kColumnBits + std::log2(static_cast<double>(columns_.size()));
    report(out, {c.output, GateReason::kCopiedColumn, -1, c.column}, bits, threshold);
  }

  std::unordered_map<std::uint64_t, Fingerprint> fingerprints_;
  Bitmap window_bits_;
  std::size_t output_symbols_ = 0;
  std::size_t longest_step_ = kStep;
  std::size_t decoded_ = 0;

  std::unordered_map<std::uint64_t, std::uint32_t> token_ids_;
  std::vector<TokenInfo> tokens_;
  Bitmap token_bits_;
  std::vector<Spec> specs_;
  std::vector<OutputRow> rows_;
  std::vector<OutputColumn> columns_;

  Roller roller_;
  Surprisal model_;
  std::string line_;
  bool first_line_ = true;
  std::uint64_t input_rows_ = 0;
  std::uint64_t input_symbols_ = 0;
  std::vector<std::string_view> scratch_;
  std::vector<std::uint32_t> hits_;
  std::vector<std::uint32_t> touched_;
  std::vector<std::uint32_t> touched_count_;
  std::vector<std::vector<std::uint32_t>> touched_tokens_;
  double nearest_ = 0;
};

CopyDetector::CopyDetector() : impl_(std::make_unique<Impl>()) {}
CopyDetector::~CopyDetector() = default;

void CopyDetector::add_bytes(std::size_t output, ByteView bytes, bool digits_only) {
  if (!digits_only) {
    impl_->add_text(output, bytes, GateReason::kCopiedBytes, 0);
    return;
  }
  Bytes digits = to_bytes(bytes);
  for (auto& c : digits) {
    if (hex_digit(c) > 9 || hex_digit(c) < 0) c = ' ';
  }
  impl_->add_text(output, digits, GateReason::kCopiedBytes, 0);
}
void CopyDetector::add_lines(std::size_t output, ByteView bytes) {
  impl_->add_lines(output, bytes);
}
void CopyDetector::add_cells(std::size_t output, const std::vector<Cell>& cells) {
  impl_->add_cells(output, cells);
}
void CopyDetector::prepare() { impl_->prepare(); }
std::size_t CopyDetector::guaranteed_run() const { return impl_->guaranteed(); }
void CopyDetector::begin_file() { impl_->begin_file(); }
void CopyDetector::feed(ByteView bytes) { impl_->feed(bytes); }
void CopyDetector::end_file() { impl_->end_file(); }
Result<std::vector<CopyFinding>> CopyDetector::finish() { return impl_->finish(); }
int CopyDetector::nearest_percent() const { return impl_->nearest(); }

}  // namespace gbx::gate
