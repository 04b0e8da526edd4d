#include "plane_fill.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/os.h"
#include "plane/core/core.h"

namespace gbx::bench {
namespace {

class Database {
 public:
  explicit Database(const std::string& path) { check(sqlite3_open(path.c_str(), &db_)); }
  ~Database() { sqlite3_close(db_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  void run(const char* sql) { check(sqlite3_exec(db_, sql, nullptr, nullptr, nullptr)); }
  sqlite3_stmt* prepare(const char* sql) {
    sqlite3_stmt* s = nullptr;
    check(sqlite3_prepare_v2(db_, sql, -1, &s, nullptr));
    return s;
  }
  void check(int status) const {
    if (status == SQLITE_OK || status == SQLITE_DONE) return;
    std::fprintf(stderr, "bench: SQLite: %s\n", sqlite3_errmsg(db_));
    std::exit(1);
  }

 private:
  sqlite3* db_ = nullptr;
};

struct Copy {
  std::string id;
  std::string nonce;
};

// In the order of their ids, so that the indexes grow at their ends.
std::vector<Copy> copies(const records::Submission& like, std::int64_t jobs, Random& random) {
  std::string text = canonical(to_json(like));
  const std::string old = to_hex(like.nonce);
  const std::size_t at = text.find(old);
  std::vector<Copy> out;
  for (std::int64_t i = 0; i < jobs; ++i) {
    Copy c;
    c.nonce = to_hex(random.fixed<32>());
    text.replace(at, old.size(), c.nonce);
    c.id = to_hex(crypto::labelled_hash("gbx/1/job", as_bytes(text)));
    out.push_back(std::move(c));
  }
  std::sort(out.begin(), out.end(), [](const Copy& a, const Copy& b) { return a.id < b.id; });
  return out;
}

// ?1 the old id, ?2 the new one, ?3 the old nonce, ?4 the new one, ?5 milliseconds before the old.
constexpr const char* kCopies[] = {
    "INSERT INTO machines (id, kind, state, seq, live, owner, node, created_ms, updated_ms, "
    "deadline_ms, head, body) SELECT replace(id, ?1, ?2), kind, state, seq, live, owner, node, "
    "created_ms - ?5, updated_ms - ?5, deadline_ms, head, replace(replace(body, ?1, ?2), ?3, ?4) "
    "FROM machines WHERE id IN ('job/' || ?1, 'env/' || ?1 || '/1', 'out/' || ?1)",
    "INSERT INTO transitions (machine, seq, time_ms, from_state, event, to_state, reason, detail, "
    "prev, hash) SELECT replace(machine, ?1, ?2), seq, time_ms - ?5, from_state, event, to_state, "
    "reason, detail, prev, hash FROM transitions WHERE machine IN ('job/' || ?1, 'env/' || ?1 || "
    "'/1', 'out/' || ?1) AND ?3 != ?4",
    "INSERT INTO records (kind, id, owner, name, ordinal, revision, body) SELECT kind, ?2, owner, "
    "name, ordinal - ?5, revision, replace(replace(body, ?1, ?2), ?3, ?4) FROM records WHERE kind "
    "= 'receipt' AND id = ?1"};

void sync_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (fd.get() >= 0 && ::fsync(fd.get()) == 0) return;
  std::perror("bench: fsync");
  std::exit(1);
}

}  // namespace

void fill_plane(const std::string& path, const records::Submission& like, std::int64_t jobs,
                Random& random) {
  Database db(path);
  // Nothing is lost by a crash here but the bench.
  db.run("PRAGMA journal_mode = OFF");
  db.run("PRAGMA synchronous = OFF");
  db.run("PRAGMA cache_size = -2000000");
  std::vector<sqlite3_stmt*> statements;
  for (const char* sql : kCopies) statements.push_back(db.prepare(sql));
  const std::string id = to_hex(like.job_id());
  const std::string nonce = to_hex(like.nonce);
  const std::vector<Copy> all = copies(like, jobs, random);
  db.run("BEGIN");
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (sqlite3_stmt* s : statements) {
      const std::string* texts[] = {&id, &all[i].id, &nonce, &all[i].nonce};
      for (int at = 0; at < 4; ++at) {
        db.check(sqlite3_bind_text(s, at + 1, texts[at]->data(),
                                   static_cast<int>(texts[at]->size()), SQLITE_STATIC));
      }
      db.check(sqlite3_bind_int64(s, 5, static_cast<std::int64_t>(all.size() - i)));
      db.check(sqlite3_step(s));
      db.check(sqlite3_reset(s));
    }
    if ((i + 1) % 50'000 == 0) std::fprintf(stderr, "  %zu jobs stored\n", i + 1);
  }
  db.run("COMMIT");
  for (sqlite3_stmt* s : statements) sqlite3_finalize(s);
  db.run("PRAGMA journal_mode = WAL");
  // Gigabytes that only the page cache has would be written by the first checkpoint of who comes
  // after: a second and more of one job's time that is none of it.
  sync_file(path);
}

}  // namespace gbx::bench
