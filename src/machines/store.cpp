#include "machines/store.h"

#include <algorithm>

#include "crypto/crypto.h"

namespace gbx::machines {

Hash32 TransitionRow::compute_hash() const {
  return crypto::labelled_hash("gbx/1/transition", as_bytes(canonical(to_json(*this))));
}

Status verify_history(const std::vector<TransitionRow>& rows) {
  Hash32 prev{};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const TransitionRow& r = rows[i];
    const bool linked = r.prev == prev && r.machine == rows[0].machine &&
                        r.seq == static_cast<std::int64_t>(i) + 1 &&
                        r.from == (i == 0 ? std::string() : rows[i - 1].to);
    if (!linked || r.compute_hash() != r.hash) {
      return fail(Reason::kChainBroken, "history of " + r.machine + " at " + std::to_string(r.seq));
    }
    prev = r.hash;
  }
  return ok_status();
}

Status MemoryStore::check(const Transaction& t) const {
  const auto seq_of = [this](const std::string& id) {
    const auto it = machines_.find(id);
    return it == machines_.end() ? std::int64_t{0} : it->second.seq;
  };
  for (const auto& w : t.machines) {
    if (seq_of(w.machine.id) != w.expected_seq) return fail(Reason::kConflict, w.machine.id);
  }
  for (const auto& w : t.touches) {
    if (seq_of(w.machine.id) != w.expected_seq) return fail(Reason::kConflict, w.machine.id);
  }
  // Of one transaction, too, as a database sees it, which writes them one after the other.
  std::map<std::pair<std::string, std::string>, std::int64_t> written;
  for (const auto& w : t.records) {
    const auto it = records_.find({w.record.kind, w.record.id});
    const std::int64_t stored = it == records_.end() ? 0 : it->second.revision;
    std::int64_t& revision =
        written.emplace(std::pair(w.record.kind, w.record.id), stored).first->second;
    if (revision++ != w.expected_revision) {
      return fail(Reason::kConflict, w.record.kind + " " + w.record.id);
    }
  }
  return ok_status();
}

Status MemoryStore::commit(const Transaction& t) {
  const std::lock_guard lock(mutex_);
  GBX_TRY(check(t));
  for (const auto& w : t.machines) {
    machines_[w.machine.id] = w.machine;
    history_[w.machine.id].push_back(w.row);
  }
  for (const auto& w : t.touches) machines_[w.machine.id] = w.machine;
  for (const auto& w : t.records) {
    Record r = w.record;
    r.revision = w.expected_revision + 1;
    records_[{r.kind, r.id}] = std::move(r);
  }
  for (const auto& e : t.effects) outbox_[e.key] = e;
  for (const auto& e : t.postponed) {
    const auto it = outbox_.find(e.key);
    if (it != outbox_.end()) it->second = e;
  }
  for (const auto& k : t.done) outbox_.erase(k);
  return ok_status();
}

Result<std::optional<Machine>> MemoryStore::machine(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto it = machines_.find(id);
  if (it == machines_.end()) return std::optional<Machine>();
  return std::optional<Machine>(it->second);
}

namespace {
bool matches(const Machine& m, const MachineQuery& q) {
  if (m.kind != q.kind) return false;
  if (q.state && m.state != *q.state) return false;
  if (q.owner && m.owner != *q.owner) return false;
  if (q.node && m.node != *q.node) return false;
  if (q.live && m.live != *q.live) return false;
  return !q.deadline_until_ms || (m.deadline_ms != 0 && m.deadline_ms <= *q.deadline_until_ms);
}
// Sorts by position, drops what comes before q.after, cuts to q.limit and q.max_bytes.
template <class T, class Query, class Position>
std::vector<T> page(std::vector<T> all, const Query& q, Position position) {
  const auto before = [&](const auto& a, const auto& b) { return q.newest_first ? b < a : a < b; };
  std::sort(all.begin(), all.end(),
            [&](const T& a, const T& b) { return before(position(a), position(b)); });
  std::vector<T> out;
  std::size_t bytes = 0;
  for (auto& x : all) {
    if (out.size() == q.limit) break;
    if (q.after && !before(*q.after, position(x))) continue;
    if (q.max_bytes != 0) bytes += canonical(x.body).size();
    out.push_back(std::move(x));
    if (q.max_bytes != 0 && bytes >= q.max_bytes) break;
  }
  return out;
}
}  // namespace

Result<std::vector<Machine>> MemoryStore::machines(const MachineQuery& q) {
  const std::lock_guard lock(mutex_);
  std::vector<Machine> all;
  for (const auto& [id, m] : machines_) {
    if (matches(m, q)) all.push_back(m);
  }
  return page(std::move(all), q, [&q](const Machine& m) {
    return std::pair(q.deadline_until_ms ? m.deadline_ms : m.created_ms, m.id);
  });
}

Result<std::int64_t> MemoryStore::count(const MachineQuery& q) {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int64_t>(std::count_if(
      machines_.begin(), machines_.end(), [&](const auto& m) { return matches(m.second, q); }));
}

Result<std::vector<TransitionRow>> MemoryStore::history(const std::string& machine,
                                                        std::int64_t after_seq, std::size_t limit) {
  const std::lock_guard lock(mutex_);
  std::vector<TransitionRow> out;
  const auto it = history_.find(machine);
  if (it == history_.end()) return out;
  for (const auto& r : it->second) {
    if (r.seq > after_seq && out.size() < limit) out.push_back(r);
  }
  return out;
}

Result<std::optional<Record>> MemoryStore::record(const std::string& kind, const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto it = records_.find({kind, id});
  if (it == records_.end()) return std::optional<Record>();
  return std::optional<Record>(it->second);
}

Result<std::vector<Record>> MemoryStore::records(const RecordQuery& q) {
  const std::lock_guard lock(mutex_);
  std::vector<Record> all;
  for (auto it = records_.lower_bound({q.kind, ""});
       it != records_.end() && it->first.first == q.kind; ++it) {
    const Record& r = it->second;
    if ((q.owner && r.owner != *q.owner) || (q.name && r.name != *q.name)) continue;
    all.push_back(r);
  }
  return page(std::move(all), q, [](const Record& r) { return std::pair(r.order, r.id); });
}

Result<std::vector<Effect>> MemoryStore::due(std::int64_t now_ms, std::size_t limit) {
  const std::lock_guard lock(mutex_);
  std::vector<Effect> out;
  for (const auto& [key, e] : outbox_) {
    if (e.due_ms <= now_ms) out.push_back(e);
  }
  std::sort(out.begin(), out.end(), [](const Effect& a, const Effect& b) {
    return std::tie(a.due_ms, a.key) < std::tie(b.due_ms, b.key);
  });
  if (out.size() > limit) out.resize(limit);
  return out;
}

Result<std::optional<std::int64_t>> MemoryStore::next_due_ms() {
  const std::lock_guard lock(mutex_);
  std::optional<std::int64_t> next;
  const auto consider = [&next](std::int64_t t) {
    if (!next || t < *next) next = t;
  };
  for (const auto& [key, e] : outbox_) consider(e.due_ms);
  for (const auto& [id, m] : machines_) {
    if (m.live && m.deadline_ms != 0) consider(m.deadline_ms);
  }
  return next;
}

void add_step(Transaction& t, Machine& machine, std::string_view event, std::string_view to,
              bool live, const std::vector<EffectKind>& effects, std::int64_t now_ms,
              std::string reason, std::string detail) {
  MachineWrite w;
  w.expected_seq = machine.seq;
  w.row.machine = machine.id;
  w.row.seq = machine.seq + 1;
  w.row.time_ms = now_ms;
  w.row.from = machine.state;
  w.row.event = std::string(event);
  w.row.to = std::string(to);
  w.row.reason = std::move(reason);
  w.row.detail = std::move(detail);
  w.row.prev = machine.head;
  w.row.hash = w.row.compute_hash();
  machine.seq += 1;
  machine.state = std::string(to);
  machine.live = live;
  machine.updated_ms = now_ms;
  machine.head = w.row.hash;
  for (const EffectKind kind : effects) {
    t.effects.push_back({{machine.id, machine.seq, kind}, 0, 0});
  }
  w.machine = machine;
  t.machines.push_back(std::move(w));
}

void add_begin(Transaction& t, Machine& machine, std::string_view state,
               const std::vector<EffectKind>& effects, std::int64_t now_ms) {
  machine.seq = 0;
  machine.state.clear();
  machine.created_ms = now_ms;
  machine.head = Hash32{};
  add_step(t, machine, "begin", state, true, effects, now_ms, {}, {});
}

}  // namespace gbx::machines
