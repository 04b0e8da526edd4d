// The plane's Store in one SQLite file through SOCI: hashes as hex text, documents as canonical
// JSON text, and but for schema changes and triggers portable SQL, so that PostgreSQL can take its
// place. WAL and full
// synchronisation: a committed transaction survives power loss. Thread-safe: one connection, one
// mutex. The file is trusted as far as availability goes, no further.
#pragma once

#include <memory>
#include <string>

#include "machines/store.h"

namespace gbx::plane {

class SqliteStore final : public machines::Store {
 public:
  // Creates the file or brings its schema up to date. Errors: kDatabase, kBadVersion (made by a
  // newer program).
  static Result<std::unique_ptr<SqliteStore>> open(const std::string& path);
  ~SqliteStore() override;

  Status commit(const machines::Transaction& t) override;
  Result<std::optional<machines::Machine>> machine(const std::string& id) override;
  Result<std::vector<machines::Machine>> machines(const machines::MachineQuery& q) override;
  Result<std::int64_t> count(const machines::MachineQuery& q) override;
  Result<std::vector<machines::TransitionRow>> history(const std::string& machine,
                                                       std::int64_t after_seq,
                                                       std::size_t limit) override;
  Result<std::optional<machines::Record>> record(const std::string& kind,
                                                 const std::string& id) override;
  Result<std::vector<machines::Record>> records(const machines::RecordQuery& q) override;
  Result<std::vector<machines::Effect>> due(std::int64_t now_ms, std::size_t limit) override;
  Result<std::optional<std::int64_t>> next_due_ms() override;

  // How SQLite would find the answer, a step a line: tests hold it to the indexes.
  Result<std::string> steps(const machines::MachineQuery& q);
  Result<std::string> steps(const machines::RecordQuery& q);
  Result<std::string> count_steps(const machines::MachineQuery& q);

 private:
  struct Database;
  explicit SqliteStore(std::unique_ptr<Database> database);
  std::unique_ptr<Database> database_;
};

}  // namespace gbx::plane
