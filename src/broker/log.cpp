#include "broker/log.h"

namespace gbx::broker {

Result<std::unique_ptr<Log>> Log::open(LogStore& store, Random& random) {
  std::unique_ptr<Log> log(new Log(store, random));
  GBX_TRY(log->replay());
  return log;
}

Status Log::add(const StoredEntry& entry, const LogEntry& parsed, std::vector<translog::Node>& nodes) {
  const auto leaf = static_cast<std::int64_t>(frontier_.size());
  GBX_TRY(state_.apply(parsed, leaf));
  GBX_ASSIGN(std::vector<translog::Node> made, frontier_.append(translog::leaf_hash(entry.salt, as_bytes(entry.entry))));
  nodes.insert(nodes.end(), made.begin(), made.end());
  return ok_status();
}

Status Log::replay() {
  GBX_ASSIGN(std::uint64_t size, store_.size());
  for (std::uint64_t i = 0; i < size; ++i) {
    const std::string where = "log entry " + std::to_string(i);
    GBX_ASSIGN(StoredEntry e, store_.entry(i));
    auto parsed = from_json_text<LogEntry>(e.entry);
    if (!parsed.ok()) return parsed.error().at(where);
    if (canonical(to_json(*parsed)) != e.entry) return fail(Reason::kBadStructure, where + " is not canonical");
    std::vector<translog::Node> nodes;
    Status s = add(e, *parsed, nodes);
    if (!s.ok()) return s.error().at(where);
    for (const auto& n : nodes) {
      GBX_ASSIGN(Hash32 stored, store_.node(n.id));
      if (stored != n.hash) return fail(Reason::kBadHash, where).with(to_hex(n.hash), to_hex(stored));
    }
  }
  return ok_status();
}

Status Log::append(const std::vector<LogEntry>& entries) {
  if (broken_) return fail(Reason::kUnavailable, "the log must be read again after a failure").hint("restart the broker");
  broken_ = true;
  const std::uint64_t first = frontier_.size();
  std::vector<StoredEntry> stored;
  std::vector<translog::Node> nodes;
  for (const auto& e : entries) {
    stored.push_back({random_.fixed<32>(), canonical(to_json(e))});
    GBX_TRY(add(stored.back(), e, nodes));
  }
  GBX_TRY(store_.append(first, stored, nodes));
  broken_ = false;
  return ok_status();
}

Result<records::Inclusion> Log::inclusion(std::int64_t leaf) const {
  const auto index = static_cast<std::uint64_t>(leaf);
  GBX_ASSIGN(StoredEntry e, store_.entry(index));
  GBX_ASSIGN(translog::InclusionProof p, translog::prove_inclusion(store_, index, index + 1, e.salt));
  return records::Inclusion{p.leaf_index, p.tree_size, p.leaf_salt, p.path, p.root_hash};
}
Result<Json> Log::entry(std::int64_t leaf) const {
  GBX_ASSIGN(StoredEntry e, store_.entry(static_cast<std::uint64_t>(leaf)));
  return parse_json(e.entry);
}

}  // namespace gbx::broker
