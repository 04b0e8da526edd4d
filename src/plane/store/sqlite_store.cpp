#include "plane/store/sqlite_store.h"

#include <soci/soci.h>
#include <soci/sqlite3/soci-sqlite3.h>

#include <deque>

namespace gbx::plane {

using machines::Effect;
using machines::Machine;
using machines::MachineQuery;
using machines::Record;
using machines::RecordQuery;
using machines::Transaction;
using machines::TransitionRow;

namespace {

constexpr int kSchemaVersion = 4;

// From version 3 to 4.
std::vector<const char*> leases_and_what_is_held() {
  return {
      // A lease is found by its consumer and by whoever posted it, without a walk over
      // everybody's.
      "INSERT INTO records (kind, id, owner, name, ordinal, revision, body) SELECT 'lease-of', "
      "id || '/' || owner, owner, id, ordinal, 1, '{}' FROM records WHERE kind = 'lease'",
      "INSERT INTO records (kind, id, owner, name, ordinal, revision, body) SELECT 'lease-of', "
      "id || '/' || json_extract(body, '$.postedBy'), json_extract(body, '$.postedBy'), id, "
      "ordinal, 1, '{}' FROM records WHERE kind = 'lease' AND owner != json_extract(body, "
      "'$.postedBy')",
      // What ended and is not told yet, of one consumer and on one node.
      "CREATE INDEX machines_held_of_owner ON machines (kind, owner, live, deadline_ms, id) "
      "WHERE deadline_ms > 0",
      "CREATE INDEX machines_held_on_node ON machines (kind, node, live, deadline_ms, id) "
      "WHERE deadline_ms > 0",
  };
}

// Migration n brings a file from version n to n + 1. Entries are never changed, only added.
const std::vector<std::vector<const char*>>& migrations() {
  static const std::vector<std::vector<const char*>> all = {
      {
          "CREATE TABLE machines (id VARCHAR(128) PRIMARY KEY, kind VARCHAR(16) NOT NULL, state "
          "VARCHAR(32) NOT NULL, seq BIGINT NOT NULL, live INTEGER NOT NULL, owner VARCHAR(128) "
          "NOT NULL, node VARCHAR(256) NOT NULL, created_ms BIGINT NOT NULL, updated_ms BIGINT NOT "
          "NULL, deadline_ms BIGINT NOT NULL, head VARCHAR(64) NOT NULL, body TEXT NOT NULL)",
          "CREATE INDEX machines_by_state ON machines (kind, state, created_ms, id)",
          "CREATE INDEX machines_by_owner ON machines (kind, owner, created_ms, id)",
          "CREATE INDEX machines_by_node ON machines (kind, node, live)",
          "CREATE INDEX machines_by_deadline ON machines (live, deadline_ms)",
          "CREATE TABLE transitions (machine VARCHAR(128) NOT NULL REFERENCES machines (id), seq "
          "BIGINT NOT NULL, time_ms BIGINT NOT NULL, from_state VARCHAR(32) NOT NULL, event "
          "VARCHAR(32) NOT NULL, to_state VARCHAR(32) NOT NULL, reason VARCHAR(64) NOT NULL, "
          "detail VARCHAR(1024) NOT NULL, prev VARCHAR(64) NOT NULL, hash VARCHAR(64) NOT NULL, "
          "PRIMARY KEY (machine, seq))",
          "CREATE TABLE records (kind VARCHAR(32) NOT NULL, id VARCHAR(256) NOT NULL, owner "
          "VARCHAR(128) NOT NULL, name VARCHAR(128) NOT NULL, ordinal BIGINT NOT NULL, revision "
          "BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id))",
          "CREATE INDEX records_by_owner ON records (kind, owner, ordinal, id)",
          "CREATE INDEX records_by_name ON records (kind, name, ordinal, id)",
          "CREATE TABLE outbox (machine VARCHAR(128) NOT NULL REFERENCES machines (id), seq BIGINT "
          "NOT NULL, kind VARCHAR(32) NOT NULL, due_ms BIGINT NOT NULL, tries BIGINT NOT NULL, "
          "PRIMARY KEY (machine, seq, kind))",
          "CREATE INDEX outbox_by_due ON outbox (due_ms)",
      },
      {
          // One for each way in which the core looks, so that none walks what has ended: with a
          // million jobs stored, a page is found and ordered by its index alone.
          "CREATE INDEX machines_by_time ON machines (kind, created_ms, id)",
          "CREATE INDEX machines_by_life ON machines (kind, live, created_ms, id)",
          "CREATE INDEX machines_by_owner_life ON machines (kind, owner, live)",
          "CREATE INDEX machines_on_node ON machines (kind, node, live, created_ms, id)",
          "CREATE INDEX machines_with_deadline ON machines (kind, live, deadline_ms, id) WHERE "
          "deadline_ms > 0",
          "CREATE INDEX deadlines_of_live ON machines (deadline_ms) WHERE live = 1 AND "
          "deadline_ms > 0",
          "DROP INDEX machines_by_node",
          "DROP INDEX machines_by_deadline",
          "CREATE INDEX records_by_kind ON records (kind, ordinal, id)",
          "CREATE INDEX outbox_in_order ON outbox (due_ms, machine, seq)",
          "DROP INDEX outbox_by_due",
      },
      {
          // How many machines stand where, kept with every change in the same transaction: to walk
          // a million that ended for each scrape of the metrics would keep all others waiting.
          "CREATE TABLE tallies (kind VARCHAR(16) NOT NULL, state VARCHAR(32) NOT NULL, live "
          "INTEGER NOT NULL, machines BIGINT NOT NULL, PRIMARY KEY (kind, state, live))",
          "INSERT INTO tallies (kind, state, live, machines) SELECT kind, state, live, COUNT(*) "
          "FROM machines GROUP BY kind, state, live",
          "CREATE TRIGGER tally_of_new AFTER INSERT ON machines BEGIN INSERT INTO tallies (kind, "
          "state, live, machines) VALUES (NEW.kind, NEW.state, NEW.live, 1) ON CONFLICT (kind, "
          "state, live) DO UPDATE SET machines = machines + 1; END",
          "CREATE TRIGGER tally_of_changed AFTER UPDATE OF kind, state, live ON machines BEGIN "
          "UPDATE tallies SET machines = machines - 1 WHERE kind = OLD.kind AND state = OLD.state "
          "AND live = OLD.live; INSERT INTO tallies (kind, state, live, machines) VALUES "
          "(NEW.kind, NEW.state, NEW.live, 1) ON CONFLICT (kind, state, live) DO UPDATE SET "
          "machines = machines + 1; END",
      },
      leases_and_what_is_held(),
  };
  return all;
}

// A statement whose values live as long as it does.
class Query {
 public:
  Query(soci::session& session, std::string sql) : statement_(session), sql_(std::move(sql)) {}
  Query& bind(const std::string& text) {
    statement_.exchange(soci::use(texts_.emplace_back(text)));
    return *this;
  }
  Query& bind(std::int64_t number) {
    statement_.exchange(soci::use(numbers_.emplace_back(number)));
    return *this;
  }
  Query& into(std::string& out) {
    statement_.exchange(soci::into(out));
    return *this;
  }
  Query& into(long long& out) {
    statement_.exchange(soci::into(out));
    return *this;
  }
  Query& into(long long& out, soci::indicator& indicator) {
    statement_.exchange(soci::into(out, indicator));
    return *this;
  }
  bool first() {  // of a SELECT
    prepare();
    return statement_.execute(true);
  }
  bool next() { return statement_.fetch(); }
  long long change() {  // rows affected
    prepare();
    statement_.execute(true);
    return statement_.get_affected_rows();
  }

 private:
  void prepare() {
    statement_.alloc();
    statement_.prepare(sql_);
    statement_.define_and_bind();
  }
  soci::statement statement_;
  std::string sql_;
  std::deque<std::string> texts_;
  std::deque<long long> numbers_;
};

Error database_error(const std::exception& e) {
  return fail(Reason::kDatabase, std::string(e.what()).substr(0, 300));
}

Result<Json> parse_body(const std::string& text) {
  JsonLimits limits;
  limits.max_bytes = 256U << 20;
  limits.max_depth = 64;
  limits.max_values = 4'000'000;
  return parse_json(text, limits);
}

}  // namespace

struct SqliteStore::Database {
  explicit Database(const std::string& path)
      : session(soci::sqlite3, "dbname=\"" + path + "\" timeout=10") {
    session << "PRAGMA journal_mode = WAL";
    session << "PRAGMA synchronous = FULL";
    session << "PRAGMA foreign_keys = ON";
  }
  std::mutex mutex;
  soci::session session;  // guarded by mutex
};

SqliteStore::SqliteStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}
SqliteStore::~SqliteStore() = default;

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::string& path) {
  if (path.find('"') != std::string::npos) return fail(Reason::kBadValue, "path of the database");
  try {
    auto database = std::make_unique<Database>(path);
    soci::session& s = database->session;
    s << "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)";
    long long rows = 0;
    int version = 0;
    s << "SELECT COUNT(*) FROM schema_version", soci::into(rows);
    if (rows > 0) s << "SELECT MAX(version) FROM schema_version", soci::into(version);
    if (version > kSchemaVersion) {
      return fail(Reason::kBadVersion, "database schema")
          .with("at most " + std::to_string(kSchemaVersion), std::to_string(version))
          .hint("use the program that wrote it, or a newer one");
    }
    for (int v = version; v < kSchemaVersion; ++v) {
      soci::transaction tr(s);
      for (const char* sql : migrations()[static_cast<std::size_t>(v)]) s << sql;
      const int now_at = v + 1;
      s << "DELETE FROM schema_version";
      s << "INSERT INTO schema_version (version) VALUES (:v)", soci::use(now_at);
      tr.commit();
    }
    return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(database)));
  } catch (const std::exception& e) {
    return database_error(e).at(path);
  }
}

namespace {

// kind, state, seq, live, owner, node, created_ms, updated_ms, deadline_ms, head, body, id
Query& bind_machine(Query& q, const Machine& m) {
  return q.bind(m.kind)
      .bind(m.state)
      .bind(m.seq)
      .bind(std::int64_t{m.live})
      .bind(m.owner)
      .bind(m.node)
      .bind(m.created_ms)
      .bind(m.updated_ms)
      .bind(m.deadline_ms)
      .bind(to_hex(m.head))
      .bind(canonical(m.body))
      .bind(m.id);
}

// True when the row was there with the expected sequence (or, for 0, was not there).
bool write_machine(soci::session& s, const Machine& m, std::int64_t expected_seq) {
  if (expected_seq == 0) {
    long long present = 0;
    Query(s, "SELECT COUNT(*) FROM machines WHERE id = :id").bind(m.id).into(present).first();
    if (present != 0) return false;
    Query insert(
        s,
        "INSERT INTO machines (kind, state, seq, live, owner, node, created_ms, updated_ms, "
        "deadline_ms, head, body, id) VALUES (:k, :s, :q, :l, :o, :n, :c, :u, :d, :h, :b, :i)");
    bind_machine(insert, m).change();
    return true;
  }
  Query update(s,
               "UPDATE machines SET kind = :k, state = :s, seq = :q, live = :l, owner = :o, node = "
               ":n, created_ms = :c, updated_ms = :u, deadline_ms = :d, head = :h, body = :b WHERE "
               "id = :i AND seq = :e");
  return bind_machine(update, m).bind(expected_seq).change() == 1;
}

bool write_record(soci::session& s, const Record& r, std::int64_t expected) {
  if (expected == 0) {
    long long present = 0;
    Query(s, "SELECT COUNT(*) FROM records WHERE kind = :k AND id = :i")
        .bind(r.kind)
        .bind(r.id)
        .into(present)
        .first();
    if (present != 0) return false;
    Query(s,
          "INSERT INTO records (kind, id, owner, name, ordinal, revision, body) VALUES (:k, :i, "
          ":o, :n, :r, 1, :b)")
        .bind(r.kind)
        .bind(r.id)
        .bind(r.owner)
        .bind(r.name)
        .bind(r.order)
        .bind(canonical(r.body))
        .change();
    return true;
  }
  return Query(s,
               "UPDATE records SET owner = :o, name = :n, ordinal = :r, revision = :v, body = :b "
               "WHERE kind = :k AND id = :i AND revision = :e")
             .bind(r.owner)
             .bind(r.name)
             .bind(r.order)
             .bind(expected + 1)
             .bind(canonical(r.body))
             .bind(r.kind)
             .bind(r.id)
             .bind(expected)
             .change() == 1;
}

void write_row(soci::session& s, const TransitionRow& r) {
  Query(s,
        "INSERT INTO transitions (machine, seq, time_ms, from_state, event, to_state, reason, "
        "detail, prev, hash) VALUES (:m, :q, :t, :f, :e, :o, :r, :d, :p, :h)")
      .bind(r.machine)
      .bind(r.seq)
      .bind(r.time_ms)
      .bind(r.from)
      .bind(r.event)
      .bind(r.to)
      .bind(r.reason)
      .bind(r.detail)
      .bind(to_hex(r.prev))
      .bind(to_hex(r.hash))
      .change();
}

Status write_all_of(soci::session& s, const Transaction& t) {
  for (const auto& w : t.machines) {
    if (!write_machine(s, w.machine, w.expected_seq)) return fail(Reason::kConflict, w.machine.id);
    write_row(s, w.row);
  }
  for (const auto& w : t.touches) {
    if (!write_machine(s, w.machine, w.expected_seq)) return fail(Reason::kConflict, w.machine.id);
  }
  for (const auto& w : t.records) {
    if (!write_record(s, w.record, w.expected_revision)) {
      return fail(Reason::kConflict, w.record.kind + " " + w.record.id);
    }
  }
  for (const auto& e : t.effects) {
    Query(s, "INSERT INTO outbox (machine, seq, kind, due_ms, tries) VALUES (:m, :q, :k, :d, :t)")
        .bind(e.key.machine)
        .bind(e.key.seq)
        .bind(std::string(enum_name(e.key.kind)))
        .bind(e.due_ms)
        .bind(e.tries)
        .change();
  }
  for (const auto& e : t.postponed) {
    Query(s,
          "UPDATE outbox SET due_ms = :d, tries = :t WHERE machine = :m AND seq = :q AND kind = :k")
        .bind(e.due_ms)
        .bind(e.tries)
        .bind(e.key.machine)
        .bind(e.key.seq)
        .bind(std::string(enum_name(e.key.kind)))
        .change();
  }
  for (const auto& k : t.done) {
    Query(s, "DELETE FROM outbox WHERE machine = :m AND seq = :q AND kind = :k")
        .bind(k.machine)
        .bind(k.seq)
        .bind(std::string(enum_name(k.kind)))
        .change();
  }
  return ok_status();
}

struct MachineRow {
  Machine m;
  long long seq = 0, live = 0, created = 0, updated = 0, deadline = 0;
  std::string head, body;
  static constexpr const char* kColumns =
      "id, kind, state, seq, live, owner, node, created_ms, updated_ms, deadline_ms, head, body";
  void bind(Query& q) {
    q.into(m.id)
        .into(m.kind)
        .into(m.state)
        .into(seq)
        .into(live)
        .into(m.owner)
        .into(m.node)
        .into(created)
        .into(updated)
        .into(deadline)
        .into(head)
        .into(body);
  }
  const std::string& id() const { return m.id; }
  Result<Machine> take() const {
    Machine out = m;
    out.seq = seq;
    out.live = live != 0;
    out.created_ms = created;
    out.updated_ms = updated;
    out.deadline_ms = deadline;
    GBX_ASSIGN(out.head, fixed_from_hex<32>(head));
    GBX_ASSIGN(out.body, parse_body(body));
    return out;
  }
};
struct RecordRow {
  Record r;
  long long order = 0, revision = 0;
  std::string body;
  static constexpr const char* kColumns = "kind, id, owner, name, ordinal, revision, body";
  void bind(Query& q) {
    q.into(r.kind).into(r.id).into(r.owner).into(r.name).into(order).into(revision).into(body);
  }
  const std::string& id() const { return r.id; }
  Result<Record> take() const {
    Record out = r;
    out.order = order;
    out.revision = revision;
    GBX_ASSIGN(out.body, parse_body(body));
    return out;
  }
};

// The rows of a SELECT as text. Documents are parsed once the lock is released, for that takes a
// hundred times as long as to fetch them: a large one keeps nobody else waiting.
template <class Row>
std::vector<Row> fetch(Query& q, std::size_t max_bytes) {
  Row row;
  row.bind(q);
  std::vector<Row> out;
  std::size_t bytes = 0;
  for (bool more = q.first(); more; more = q.next()) {
    out.push_back(row);
    bytes += row.body.size();
    if (max_bytes != 0 && bytes >= max_bytes) break;
  }
  return out;
}
template <class T, class Row>
Result<std::vector<T>> parsed(std::vector<Row> rows) {
  std::vector<T> out;
  out.reserve(rows.size());
  for (Row& row : rows) {
    Result<T> one = row.take();
    if (!one.ok()) return one.error().at(row.id());
    out.push_back(*std::move(one));
    row.body = {};  // the text is not kept beside what was made of it
  }
  return out;
}
template <class T, class Row>
Result<std::optional<T>> parsed_one(std::vector<Row> rows) {
  GBX_ASSIGN(std::vector<T> found, parsed<T>(std::move(rows)));
  return found.empty() ? std::optional<T>() : std::optional<T>(std::move(found[0]));
}

// The WHERE part of a machine query; the same conditions are then bound in the same order.
std::string where(const MachineQuery& q) {
  std::string sql = " WHERE kind = :kind";
  if (q.state) sql += " AND state = :state";
  if (q.owner) sql += " AND owner = :owner";
  if (q.node) sql += " AND node = :node";
  if (q.live) sql += " AND live = :live";
  if (q.deadline_until_ms) sql += " AND deadline_ms > 0 AND deadline_ms <= :deadline";
  return sql;
}
void bind_where(Query& query, const MachineQuery& q) {
  query.bind(q.kind);
  if (q.state) query.bind(*q.state);
  if (q.owner) query.bind(*q.owner);
  if (q.node) query.bind(*q.node);
  if (q.live) query.bind(std::int64_t{*q.live ? 1 : 0});
  if (q.deadline_until_ms) query.bind(*q.deadline_until_ms);
}
using After = std::optional<std::pair<std::int64_t, std::string>>;
std::string page(const After& after, bool newest_first, const std::string& column) {
  const std::string compare = newest_first ? "<" : ">";
  const std::string direction = newest_first ? " DESC" : " ASC";
  std::string sql;
  if (after) sql = " AND (" + column + ", id) " + compare + " (:at, :id)";
  return sql + " ORDER BY " + column + direction + ", id" + direction + " LIMIT :limit";
}
void bind_page(Query& query, const After& after, std::size_t limit) {
  if (after) query.bind(after->first).bind(after->second);
  query.bind(static_cast<std::int64_t>(limit));
}

std::string select(const MachineQuery& q) {
  const char* order = q.deadline_until_ms ? "deadline_ms" : "created_ms";
  return std::string("SELECT ") + MachineRow::kColumns + " FROM machines" + where(q) +
         page(q.after, q.newest_first, order);
}
std::string select(const RecordQuery& q) {
  std::string sql = std::string("SELECT ") + RecordRow::kColumns + " FROM records WHERE kind = :k";
  if (q.owner) sql += " AND owner = :o";
  if (q.name) sql += " AND name = :n";
  return sql + page(q.after, q.newest_first, "ordinal");
}
void bind_all(Query& query, const RecordQuery& q) {
  query.bind(q.kind);
  if (q.owner) query.bind(*q.owner);
  if (q.name) query.bind(*q.name);
  bind_page(query, q.after, q.limit);
}
std::string count_of(const MachineQuery& q) {
  const bool tallied = !q.owner && !q.node && !q.deadline_until_ms;
  return (tallied ? "SELECT COALESCE(SUM(machines), 0) FROM tallies"
                  : "SELECT COUNT(*) FROM machines") +
         where(q);
}
// What SQLite says that it would do, a step a line.
std::string steps_of(Query& query) {
  long long id = 0;
  long long parent = 0;
  long long unused = 0;
  std::string detail;
  query.into(id).into(parent).into(unused).into(detail);
  std::string out;
  for (bool more = query.first(); more; more = query.next()) out += detail + "\n";
  return out;
}

}  // namespace

Status SqliteStore::commit(const Transaction& t) {
  const std::lock_guard lock(database_->mutex);
  try {
    soci::transaction tr(database_->session);
    GBX_TRY(write_all_of(database_->session, t));  // the transaction rolls back when it is left
    tr.commit();
    return ok_status();
  } catch (const std::exception& e) {
    return database_error(e);
  }
}

Result<std::optional<Machine>> SqliteStore::machine(const std::string& id) {
  std::vector<MachineRow> rows;
  try {
    const std::lock_guard lock(database_->mutex);
    Query q(database_->session,
            std::string("SELECT ") + MachineRow::kColumns + " FROM machines WHERE id = :id");
    q.bind(id);
    rows = fetch<MachineRow>(q, 0);
  } catch (const std::exception& e) {
    return database_error(e);
  }
  return parsed_one<Machine>(std::move(rows));
}

Result<std::vector<Machine>> SqliteStore::machines(const MachineQuery& query) {
  std::vector<MachineRow> rows;
  try {
    const std::lock_guard lock(database_->mutex);
    Query q(database_->session, select(query));
    bind_where(q, query);
    bind_page(q, query.after, query.limit);
    rows = fetch<MachineRow>(q, query.max_bytes);
  } catch (const std::exception& e) {
    return database_error(e);
  }
  return parsed<Machine>(std::move(rows));
}

Result<std::int64_t> SqliteStore::count(const MachineQuery& query) {
  const std::lock_guard lock(database_->mutex);
  try {
    long long n = 0;
    Query q(database_->session, count_of(query));
    bind_where(q, query);
    q.into(n).first();
    return std::int64_t{n};
  } catch (const std::exception& e) {
    return database_error(e);
  }
}

Result<std::vector<TransitionRow>> SqliteStore::history(const std::string& machine,
                                                        std::int64_t after_seq, std::size_t limit) {
  const std::lock_guard lock(database_->mutex);
  try {
    TransitionRow r;
    long long seq = 0;
    long long time = 0;
    std::string prev;
    std::string hash;
    Query q(database_->session,
            "SELECT machine, seq, time_ms, from_state, event, to_state, reason, detail, prev, hash "
            "FROM transitions WHERE machine = :m AND seq > :s ORDER BY seq ASC LIMIT :l");
    q.bind(machine).bind(after_seq).bind(static_cast<std::int64_t>(limit));
    q.into(r.machine)
        .into(seq)
        .into(time)
        .into(r.from)
        .into(r.event)
        .into(r.to)
        .into(r.reason)
        .into(r.detail)
        .into(prev)
        .into(hash);
    std::vector<TransitionRow> out;
    for (bool more = q.first(); more; more = q.next()) {
      TransitionRow copy = r;
      copy.seq = seq;
      copy.time_ms = time;
      GBX_ASSIGN(copy.prev, fixed_from_hex<32>(prev));
      GBX_ASSIGN(copy.hash, fixed_from_hex<32>(hash));
      out.push_back(std::move(copy));
    }
    return out;
  } catch (const std::exception& e) {
    return database_error(e);
  }
}

Result<std::optional<Record>> SqliteStore::record(const std::string& kind, const std::string& id) {
  std::vector<RecordRow> rows;
  try {
    const std::lock_guard lock(database_->mutex);
    Query q(database_->session, std::string("SELECT ") + RecordRow::kColumns +
                                    " FROM records WHERE kind = :k AND id = :i");
    q.bind(kind).bind(id);
    rows = fetch<RecordRow>(q, 0);
  } catch (const std::exception& e) {
    return database_error(e);
  }
  return parsed_one<Record>(std::move(rows));
}

Result<std::vector<Record>> SqliteStore::records(const RecordQuery& query) {
  std::vector<RecordRow> rows;
  try {
    const std::lock_guard lock(database_->mutex);
    Query q(database_->session, select(query));
    bind_all(q, query);
    rows = fetch<RecordRow>(q, query.max_bytes);
  } catch (const std::exception& e) {
    return database_error(e);
  }
  return parsed<Record>(std::move(rows));
}

Result<std::vector<Effect>> SqliteStore::due(std::int64_t now_ms, std::size_t limit) {
  const std::lock_guard lock(database_->mutex);
  try {
    std::string machine;
    std::string kind;
    long long seq = 0;
    long long due_ms = 0;
    long long tries = 0;
    Query q(database_->session,
            "SELECT machine, seq, kind, due_ms, tries FROM outbox WHERE due_ms <= :now ORDER BY "
            "due_ms, machine, seq LIMIT :l");
    q.bind(now_ms).bind(static_cast<std::int64_t>(limit));
    q.into(machine).into(seq).into(kind).into(due_ms).into(tries);
    std::vector<Effect> out;
    for (bool more = q.first(); more; more = q.next()) {
      GBX_ASSIGN(const machines::EffectKind parsed, enum_from<machines::EffectKind>(kind));
      out.push_back({{machine, seq, parsed}, due_ms, tries});
    }
    return out;
  } catch (const std::exception& e) {
    return database_error(e);
  }
}

Result<std::optional<std::int64_t>> SqliteStore::next_due_ms() {
  const std::lock_guard lock(database_->mutex);
  try {
    std::optional<std::int64_t> next;
    for (const char* sql :
         {"SELECT MIN(due_ms) FROM outbox",
          "SELECT MIN(deadline_ms) FROM machines WHERE live = 1 AND deadline_ms > 0"}) {
      long long value = 0;
      soci::indicator indicator = soci::i_null;
      Query q(database_->session, sql);
      q.into(value, indicator).first();
      if (indicator == soci::i_ok && (!next || value < *next)) next = value;
    }
    return next;
  } catch (const std::exception& e) {
    return database_error(e);
  }
}

Result<std::string> SqliteStore::steps(const MachineQuery& query) {
  const std::lock_guard lock(database_->mutex);
  try {
    Query q(database_->session, "EXPLAIN QUERY PLAN " + select(query));
    bind_where(q, query);
    bind_page(q, query.after, query.limit);
    return steps_of(q);
  } catch (const std::exception& e) {
    return database_error(e);
  }
}

Result<std::string> SqliteStore::count_steps(const MachineQuery& query) {
  const std::lock_guard lock(database_->mutex);
  try {
    Query q(database_->session, "EXPLAIN QUERY PLAN " + count_of(query));
    bind_where(q, query);
    return steps_of(q);
  } catch (const std::exception& e) {
    return database_error(e);
  }
}

Result<std::string> SqliteStore::steps(const RecordQuery& query) {
  const std::lock_guard lock(database_->mutex);
  try {
    Query q(database_->session, "EXPLAIN QUERY PLAN " + select(query));
    bind_all(q, query);
    return steps_of(q);
  } catch (const std::exception& e) {
    return database_error(e);
  }
}

}  // namespace gbx::plane
