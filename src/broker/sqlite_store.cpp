// The log in SQLite: table `entry` holds what was decided, `node` the complete subtrees of the tree
// over it.
#include <sqlite3.h>

#include "base/os.h"
#include "broker/store.h"

namespace gbx::broker {
namespace {

constexpr std::int64_t kSchemaVersion = 1;

struct CloseDatabase {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
struct FinishStatement {
  void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;

Error database_error(sqlite3* db, const char* what) {
  const int code = db == nullptr ? SQLITE_NOMEM : sqlite3_extended_errcode(db);
  if ((code & 0xff) == SQLITE_BUSY) {
    return fail(Reason::kConflict, "another process has the log open");
  }
  return fail(Reason::kDatabase, what)
      .with("", db == nullptr ? "out of memory" : sqlite3_errmsg(db));
}

// A prepared statement that is reused; reset() after every use.
class Statement {
 public:
  static Result<Statement> prepare(sqlite3* db, const char* sql) {
    Statement s;
    s.db_ = db;
    sqlite3_stmt* raw = nullptr;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr) != SQLITE_OK) {
      return database_error(db, sql);
    }
    s.raw_.reset(raw);
    return s;
  }
  Statement& bind(int at, std::int64_t v) { return bound(sqlite3_bind_int64(raw_.get(), at, v)); }
  Statement& bind(int at, ByteView v) {
    return bound(sqlite3_bind_blob64(raw_.get(), at, v.data(), v.size(), SQLITE_TRANSIENT));
  }
  Statement& bind(int at, const std::string& v) {
    return bound(
        sqlite3_bind_text64(raw_.get(), at, v.data(), v.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  }
  Status run() {
    const int rc = ok_ ? sqlite3_step(raw_.get()) : SQLITE_ERROR;
    if (rc != SQLITE_DONE) return ended(database_error(db_, "write"));
    return ended(ok_status());
  }
  // True when there is a row, whose columns may be read until reset().
  Result<bool> row() {
    const int rc = ok_ ? sqlite3_step(raw_.get()) : SQLITE_ERROR;
    if (rc == SQLITE_ROW) return true;
    if (rc == SQLITE_DONE) return false;
    return database_error(db_, "read");
  }
  std::int64_t integer(int column) { return sqlite3_column_int64(raw_.get(), column); }
  ByteView bytes(int column) {
    const auto* data = static_cast<const std::uint8_t*>(sqlite3_column_blob(raw_.get(), column));
    return {data, static_cast<std::size_t>(sqlite3_column_bytes(raw_.get(), column))};
  }
  void reset() {
    sqlite3_reset(raw_.get());
    sqlite3_clear_bindings(raw_.get());
    ok_ = true;
  }

 private:
  Statement& bound(int rc) {
    ok_ = ok_ && rc == SQLITE_OK;
    return *this;
  }
  Status ended(Status s) {
    reset();
    return s;
  }
  sqlite3* db_ = nullptr;
  std::unique_ptr<sqlite3_stmt, FinishStatement> raw_;
  bool ok_ = true;
};

class SqliteStore final : public LogStore {
 public:
  static Result<std::unique_ptr<LogStore>> open(const std::string& path, LogFile file) {
    if (file == LogFile::kMustExist && !path_exists(path)) return missing(path, "nothing");
    std::unique_ptr<SqliteStore> s(new SqliteStore);
    sqlite3* raw = nullptr;
    const int create = file == LogFile::kCreate ? SQLITE_OPEN_CREATE : 0;
    const int rc = sqlite3_open_v2(
        path.c_str(), &raw,
        SQLITE_OPEN_READWRITE | create | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, nullptr);
    s->db_.reset(raw);
    if (rc != SQLITE_OK) return database_error(raw, "open the log").at(path);
    if (file == LogFile::kMustExist) {
      GBX_ASSIGN(const std::int64_t version, s->version());
      if (version == 0) return missing(path, "an empty file");
    }
    GBX_TRY(s->prepare());
    return std::unique_ptr<LogStore>(std::move(s));
  }

  Status append(std::uint64_t first, const std::vector<StoredEntry>& entries,
                const std::vector<translog::Node>& nodes) override {
    GBX_TRY(execute("BEGIN IMMEDIATE"));
    Status s = insert(first, entries, nodes);
    if (s.ok()) s = execute("COMMIT");
    if (!s.ok()) {
      auto undone = execute("ROLLBACK");  // fails where the error has ended the transaction already
      (void)undone.ok();
    }
    return s;
  }
  Result<std::uint64_t> size() const override {
    GBX_ASSIGN(bool some, size_->row());
    const std::int64_t n = some ? size_->integer(0) : 0;
    size_->reset();
    return static_cast<std::uint64_t>(n);
  }
  Result<StoredEntry> entry(std::uint64_t index) const override {
    auto some = read_entry_->bind(1, static_cast<std::int64_t>(index)).row();
    Result<StoredEntry> out = fail(Reason::kNotFound, "log entry " + std::to_string(index));
    if (!some.ok()) {
      out = some.error();
    } else if (*some) {
      auto salt = fixed_from<32>(read_entry_->bytes(0));
      out =
          salt.ok()
              ? Result<StoredEntry>(StoredEntry{*salt, std::string(as_text(read_entry_->bytes(1)))})
              : Result<StoredEntry>(
                    fail(Reason::kDatabase, "salt of log entry " + std::to_string(index)));
    }
    read_entry_->reset();
    return out;
  }
  Result<Hash32> node(translog::NodeId id) const override {
    auto some = read_node_->bind(1, static_cast<std::int64_t>(id.level))
                    .bind(2, static_cast<std::int64_t>(id.index))
                    .row();
    Result<Hash32> out = fail(Reason::kNotFound, "log node");
    if (!some.ok()) {
      out = some.error();
    } else if (*some) {
      out = fixed_from<32>(read_node_->bytes(0));
    }
    read_node_->reset();
    return out;
  }

 private:
  SqliteStore() = default;
  static Error missing(const std::string& path, const char* actual) {
    return fail(Reason::kDatabase, "the log of this key set is missing")
        .with(path, actual)
        .hint(
            "restore the broker's folder whole from its last backup (docs/guide-operator.md); a "
            "set without its log has forgotten every policy, revocation and charge");
  }
  Status execute(const char* sql) {
    if (sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
      return database_error(db_.get(), sql);
    }
    return ok_status();
  }
  Status prepare() {
    // EXCLUSIVE keeps a second process out for as long as this one lives.
    GBX_TRY(execute("PRAGMA locking_mode=EXCLUSIVE"));
    GBX_TRY(execute("PRAGMA journal_mode=WAL"));
    GBX_TRY(execute("PRAGMA synchronous=FULL"));
    GBX_TRY(execute("BEGIN EXCLUSIVE"));
    GBX_TRY(
        execute("CREATE TABLE IF NOT EXISTS entry(seq INTEGER PRIMARY KEY, salt BLOB NOT NULL, "
                "entry TEXT NOT NULL) STRICT"));
    GBX_TRY(
        execute("CREATE TABLE IF NOT EXISTS node(level INTEGER NOT NULL, idx INTEGER NOT NULL, "
                "hash BLOB NOT NULL, PRIMARY KEY(level, idx)) STRICT, WITHOUT ROWID"));
    GBX_TRY(check_version());
    GBX_TRY(execute("COMMIT"));
    const auto statement = [this](std::unique_ptr<Statement>& into, const char* sql) -> Status {
      GBX_ASSIGN(Statement s, Statement::prepare(db_.get(), sql));
      into = std::make_unique<Statement>(std::move(s));
      return ok_status();
    };
    GBX_TRY(statement(add_entry_, "INSERT INTO entry(seq, salt, entry) VALUES(?, ?, ?)"));
    GBX_TRY(statement(add_node_, "INSERT INTO node(level, idx, hash) VALUES(?, ?, ?)"));
    GBX_TRY(statement(read_entry_, "SELECT salt, entry FROM entry WHERE seq = ?"));
    GBX_TRY(statement(read_node_, "SELECT hash FROM node WHERE level = ? AND idx = ?"));
    return statement(size_, "SELECT count(*) FROM entry");
  }
  Result<std::int64_t> version() {
    GBX_ASSIGN(Statement s, Statement::prepare(db_.get(), "PRAGMA user_version"));
    GBX_ASSIGN(bool some, s.row());
    const std::int64_t version = some ? s.integer(0) : 0;
    s.reset();
    return version;
  }
  Status check_version() {
    GBX_ASSIGN(const std::int64_t version, this->version());
    if (version != 0 && version != kSchemaVersion) {
      return fail(Reason::kBadVersion, "format of the log")
          .with(std::to_string(kSchemaVersion), std::to_string(version));
    }
    return execute("PRAGMA user_version=1");
  }
  Status insert(std::uint64_t first, const std::vector<StoredEntry>& entries,
                const std::vector<translog::Node>& nodes) {
    auto seq = static_cast<std::int64_t>(first);
    for (const auto& e : entries) {
      GBX_TRY(add_entry_->bind(1, seq++).bind(2, ByteView(e.salt)).bind(3, e.entry).run());
    }
    for (const auto& n : nodes) {
      GBX_TRY(add_node_->bind(1, static_cast<std::int64_t>(n.id.level))
                  .bind(2, static_cast<std::int64_t>(n.id.index))
                  .bind(3, ByteView(n.hash))
                  .run());
    }
    return ok_status();
  }

  Database db_;  // destroyed after the statements below
  std::unique_ptr<Statement> add_entry_;
  std::unique_ptr<Statement> add_node_;
  std::unique_ptr<Statement> read_entry_;
  std::unique_ptr<Statement> read_node_;
  std::unique_ptr<Statement> size_;
};

}  // namespace

Result<std::unique_ptr<LogStore>> open_sqlite_store(const std::string& path, LogFile file) {
  return SqliteStore::open(path, file);
}

}  // namespace gbx::broker
