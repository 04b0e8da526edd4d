// What a program of state machines keeps: machines, their hash-chained transitions, the outbox of
// effects, and records of the domain. Callers speak in transactions; a transaction is durable as a
// whole when commit() returned, or left no trace. A crash inside commit() may have done either.
// Implementations: MemoryStore here, SQLite in src/plane/store.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "machines/machines.h"

namespace gbx::machines {

// One machine as it stands. `body` is the program's own; the other columns are what it searches by.
struct Machine {
  std::string id;    // "job/<hex>", "env/<hex>/<attempt>", "out/<hex>"
  std::string kind;  // "job", "env", "out"
  std::string state;
  std::int64_t seq = 0;  // of its last transition
  bool live = true;      // not in a terminal state
  std::string owner;     // who sees it: an identity in hex
  std::string node;      // env: where it was placed
  std::int64_t created_ms = 0;
  std::int64_t updated_ms = 0;
  std::int64_t deadline_ms = 0;  // 0: none; by a clock of the program's choice, as due_ms below
  Hash32 head{};                 // hash of its last transition
  Json body;
};

// One row of history. hash = SHA-256("gbx/1/transition" ‖ 0x00 ‖ JCS(everything but hash)).
struct TransitionRow {
  std::string machine;
  std::int64_t seq = 0;
  std::int64_t time_ms = 0;
  std::string from;  // empty for the first
  std::string event;
  std::string to;
  std::string reason;  // reason code, where something went wrong
  std::string detail;
  Hash32 prev{};
  Hash32 hash{};
  template <class F>
  void fields(F& f) {
    f("machine", machine, Bound{1, 128});
    f("seq", seq);
    f("timeMs", time_ms);
    f("from", from, Bound{0, 32});
    f("event", event, Bound{1, 32});
    f("to", to, Bound{1, 32});
    f("reason", reason, Bound{0, 64});
    f("detail", detail, Bound{0, 1024});
    f("prev", prev);
  }
  Hash32 compute_hash() const;
};
// kChainBroken unless the rows are one machine's whole history in order.
Status verify_history(const std::vector<TransitionRow>& rows);

// An effect is named by the transition that asked for it: performing it twice is performing it
// once.
struct EffectKey {
  std::string machine;
  std::int64_t seq = 0;
  EffectKind kind = EffectKind::kOffer;
  auto operator<=>(const EffectKey&) const = default;
};
struct Effect {
  EffectKey key;
  std::int64_t due_ms = 0;
  std::int64_t tries = 0;
};

// Anything else the domain keeps, found by kind and id, listed by (order, id) within kind and
// optionally owner or name.
struct Record {
  std::string kind;
  std::string id;
  std::string owner;
  std::string name;
  std::int64_t order = 0;
  std::int64_t revision = 0;  // rises by one with every put
  Json body;
};

// A machine's next state; `row.seq` and `machine.seq` are expected_seq + 1.
struct MachineWrite {
  std::int64_t expected_seq = 0;  // 0: the machine must be new
  Machine machine;
  TransitionRow row;
};
// New columns for a machine without a transition (a deadline, a document that arrived). Fenced by
// seq all the same.
struct MachineTouch {
  std::int64_t expected_seq = 0;
  Machine machine;
};
struct RecordWrite {
  std::int64_t expected_revision = 0;  // 0: must be new
  Record record;
};
struct Transaction {
  std::vector<MachineWrite> machines;
  std::vector<MachineTouch> touches;
  std::vector<RecordWrite> records;
  std::vector<Effect> effects;    // added to the outbox
  std::vector<Effect> postponed;  // due_ms and tries of existing ones
  std::vector<EffectKey> done;    // removed; absent ones are no error
  bool empty() const {
    return machines.empty() && touches.empty() && records.empty() && effects.empty() &&
           postponed.empty() && done.empty();
  }
};

struct MachineQuery {
  std::string kind;
  std::optional<std::string> state;
  std::optional<std::string> owner;
  std::optional<std::string> node;
  std::optional<bool> live;
  // Has a deadline at or before; the answer is then in the order of deadlines.
  std::optional<std::int64_t> deadline_until_ms;
  bool newest_first = false;
  // Continues after this position of an earlier answer: created_ms (deadline_ms) and id of its
  // last row.
  std::optional<std::pair<std::int64_t, std::string>> after;
  std::size_t limit = 100;
  // The answer ends with the row with which its bodies have so many bytes of canonical text: a
  // short answer is then not the last one, only an empty one is. 0: no such end.
  std::size_t max_bytes = 0;
};
struct RecordQuery {
  std::string kind;
  std::optional<std::string> owner;
  std::optional<std::string> name;
  std::optional<std::pair<std::int64_t, std::string>> after;
  bool newest_first = false;
  std::size_t limit = 100;
  std::size_t max_bytes = 0;  // as for machines
};

// Thread-safe.
class Store {
 public:
  virtual ~Store() = default;
  // kConflict when an expected sequence or revision is not the present one; then nothing was
  // written.
  virtual Status commit(const Transaction& t) = 0;
  virtual Result<std::optional<Machine>> machine(const std::string& id) = 0;
  virtual Result<std::vector<Machine>> machines(const MachineQuery& q) = 0;
  // `after`, `limit` and `max_bytes` are not used. By kind, state and life alone it is a look at
  // few numbers, however many machines there are.
  virtual Result<std::int64_t> count(const MachineQuery& q) = 0;
  virtual Result<std::vector<TransitionRow>> history(const std::string& machine,
                                                     std::int64_t after_seq, std::size_t limit) = 0;
  virtual Result<std::optional<Record>> record(const std::string& kind, const std::string& id) = 0;
  virtual Result<std::vector<Record>> records(const RecordQuery& q) = 0;
  virtual Result<std::vector<Effect>> due(std::int64_t now_ms, std::size_t limit) = 0;
  // the earliest of outbox and deadlines
  virtual Result<std::optional<std::int64_t>> next_due_ms() = 0;
};

// In memory; for tests and the simulated world.
class MemoryStore : public Store {
 public:
  Status commit(const Transaction& t) override;
  Result<std::optional<Machine>> machine(const std::string& id) override;
  Result<std::vector<Machine>> machines(const MachineQuery& q) override;
  Result<std::int64_t> count(const MachineQuery& q) override;
  Result<std::vector<TransitionRow>> history(const std::string& machine, std::int64_t after_seq,
                                             std::size_t limit) override;
  Result<std::optional<Record>> record(const std::string& kind, const std::string& id) override;
  Result<std::vector<Record>> records(const RecordQuery& q) override;
  Result<std::vector<Effect>> due(std::int64_t now_ms, std::size_t limit) override;
  Result<std::optional<std::int64_t>> next_due_ms() override;

 private:
  Status check(const Transaction& t) const;
  std::mutex mutex_;
  // guarded by mutex_, like all below
  std::map<std::string, Machine> machines_;
  std::map<std::string, std::vector<TransitionRow>> history_;
  std::map<std::pair<std::string, std::string>, Record> records_;
  std::map<EffectKey, Effect> outbox_;
};

// Builds the write of one step: sequence, history row and effects. `machine` is changed to its new
// state. Effects are due at 0, which is at once; the caller may move them in t.effects.
void add_step(Transaction& t, Machine& machine, std::string_view event, std::string_view to,
              bool live, const std::vector<EffectKind>& effects, std::int64_t now_ms,
              std::string reason, std::string detail);
// The same for a machine that begins: machine.id, kind, owner, node, deadline and body are set by
// the caller.
void add_begin(Transaction& t, Machine& machine, std::string_view state,
               const std::vector<EffectKind>& effects, std::int64_t now_ms);

}  // namespace gbx::machines
