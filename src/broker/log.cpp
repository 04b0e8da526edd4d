#include "broker/log.h"

#include <algorithm>

namespace gbx::broker {

Result<std::unique_ptr<Log>> Log::open(LogStore& store, Random& random, const Awake& awake) {
  std::unique_ptr<Log> log(new Log(store, random, awake));
  log->state_ = log->empty_state();
  GBX_TRY(log->replay());
  return log;
}

namespace {

// What the entry's text says, read as strictly as at every later start.
Result<LogEntry> read_entry(const std::string& text, const JsonLimits& limits) {
  GBX_ASSIGN(LogEntry entry, from_json_text<LogEntry>(text, limits));
  if (canonical(to_json(entry)) != text) {
    return fail(Reason::kBadStructure, "the entry is not canonical");
  }
  return entry;
}

// Of what is held of an entry: strings are as long as their text, and a value of two bytes takes a
// hundred.
std::size_t held_bytes(const std::string& text) {
  const auto values =
      std::count_if(text.begin(), text.end(), [](char c) { return c == ',' || c == ':'; });
  return text.size() + 100 * static_cast<std::size_t>(values);
}

Result<std::vector<translog::Node>> add_leaf(translog::Frontier& frontier, const StoredEntry& e) {
  return frontier.append(translog::leaf_hash(e.salt, as_bytes(e.entry)));
}

}  // namespace

// Whoever can write the file must not give a sleeping job another past, nor the set another log to
// sign: an entry is read with its path to the root that is in memory. After a failure nothing is
// answered until the next start, which reads everything.
Result<StoredEntry> Log::proved(std::int64_t leaf) const {
  const auto index = static_cast<std::uint64_t>(leaf);
  GBX_ASSIGN(StoredEntry e, store_.entry(index));
  GBX_ASSIGN(const std::vector<Hash32> path,
             translog::inclusion_path(store_, index, frontier_.size()));
  GBX_TRY(translog::verify_inclusion(translog::leaf_hash(e.salt, as_bytes(e.entry)), index,
                                     frontier_.size(), path, frontier_.root()));
  return e;
}
State Log::empty_state() {
  return State([this](std::int64_t leaf) -> Result<LogEntry> {
    GBX_ASSIGN(const StoredEntry e, noted(proved(leaf)));
    return read_entry(e.entry, kReplayLimits);
  });
}

Status Log::replay() {
  GBX_ASSIGN(std::uint64_t size, store_.size());
  for (std::uint64_t i = 0; i < size; ++i) {
    const std::string where = "log entry " + std::to_string(i);
    GBX_ASSIGN(StoredEntry e, store_.entry(i));
    auto parsed = read_entry(e.entry, kReplayLimits);
    if (!parsed.ok()) return parsed.error().at(where);
    Status s = state_.apply(*parsed, static_cast<std::int64_t>(i), held_bytes(e.entry));
    if (!s.ok()) return s.error().at(where);
    GBX_ASSIGN(std::vector<translog::Node> nodes, add_leaf(frontier_, e));
    for (const auto& n : nodes) {
      GBX_ASSIGN(Hash32 stored, store_.node(n.id));
      if (stored != n.hash) {
        return fail(Reason::kBadHash, where).with(to_hex(n.hash), to_hex(stored));
      }
    }
    state_.rest(kAwakeAtStart);
  }
  rest();
  return ok_status();
}

// All of them or none. A single entry that does not fold leaves the state as it was; after several,
// what was folded before it is undone by reading the log again. No request gets that far: the core
// checks what it appends.
Status Log::fold(const std::vector<LogEntry>& entries, const std::vector<std::size_t>& bytes) {
  auto leaf = static_cast<std::int64_t>(frontier_.size());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const Status s = state_.apply(entries[i], leaf++, bytes[i]);
    if (s.ok()) continue;
    if (i == 0 || state_.unreadable()) return s;
    const Hash32 before = root();
    broken_ = true;
    state_ = empty_state();
    frontier_ = translog::Frontier{};
    GBX_TRY(replay());
    if (root() != before) {
      return fail(Reason::kBadHash, "root of the log").with(to_hex(before), to_hex(root()));
    }
    broken_ = false;
    return s;
  }
  return ok_status();
}

Status Log::append(const std::vector<LogEntry>& entries) {
  if (broken()) {
    return fail(Reason::kUnavailable, "the log must be read again after a failure")
        .hint("restart the broker");
  }
  std::vector<StoredEntry> stored;
  std::vector<LogEntry> parsed;
  std::vector<std::size_t> bytes;
  for (const auto& e : entries) {
    stored.push_back({random_.fixed<32>(), canonical(to_json(e))});
    auto again = read_entry(stored.back().entry, kAppendLimits);
    if (!again.ok()) return again.error().at("log entry " + e.kind);
    GBX_TRY(check_body(*again));
    parsed.push_back(std::move(*again));
    bytes.push_back(held_bytes(stored.back().entry));
  }
  translog::Frontier frontier = frontier_;
  std::vector<translog::Node> nodes;
  for (const auto& e : stored) {
    GBX_ASSIGN(std::vector<translog::Node> made, add_leaf(frontier, e));
    nodes.insert(nodes.end(), made.begin(), made.end());
  }
  GBX_TRY(fold(parsed, bytes));
  broken_ = true;
  GBX_TRY(store_.append(frontier_.size(), stored, nodes));
  frontier_ = std::move(frontier);
  broken_ = false;
  return ok_status();
}

Status Log::begins_with(std::int64_t size, const Hash32& root) const {
  const auto old_size = static_cast<std::uint64_t>(size);
  GBX_ASSIGN(const std::vector<Hash32> path,
             noted(translog::consistency_path(store_, old_size, frontier_.size())));
  return translog::verify_consistency(old_size, frontier_.size(), root, frontier_.root(), path);
}

Result<records::Inclusion> Log::prove(std::int64_t leaf) const {
  const auto index = static_cast<std::uint64_t>(leaf);
  GBX_ASSIGN(const StoredEntry e, store_.entry(index));
  GBX_ASSIGN(records::Inclusion proof, translog::prove_inclusion(store_, index, index + 1, e.salt));
  GBX_TRY(translog::verify(proof, as_bytes(e.entry)));
  GBX_TRY(begins_with(proof.tree_size, proof.root));
  return proof;
}
Result<records::Inclusion> Log::inclusion(std::int64_t leaf) const { return noted(prove(leaf)); }
Result<Hash32> Log::leaf_hash(std::int64_t leaf) const {
  GBX_ASSIGN(const StoredEntry e, noted(proved(leaf)));
  return translog::leaf_hash(e.salt, as_bytes(e.entry));
}
Result<Json> Log::entry(std::int64_t leaf) const {
  GBX_ASSIGN(const StoredEntry e, noted(proved(leaf)));
  return parse_json(e.entry);
}

}  // namespace gbx::broker
