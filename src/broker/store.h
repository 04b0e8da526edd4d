// Where the log lies. A store is trusted to keep what it acknowledged and nothing more: leaves are
// hashed again at every start. One writer; not thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "translog/translog.h"

namespace gbx::broker {

struct StoredEntry {
  translog::Salt32 salt{};
  std::string entry;  // canonical JSON
};

class LogStore : public translog::NodeSource {
 public:
  // All of `entries` and `nodes`, durably, or none. After an error it is unknown which: the caller
  // starts again.
  virtual Status append(std::uint64_t first, const std::vector<StoredEntry>& entries,
                        const std::vector<translog::Node>& nodes) = 0;
  virtual Result<std::uint64_t> size() const = 0;
  virtual Result<StoredEntry> entry(std::uint64_t index) const = 0;
};

// In memory, for tests and for verifying.
class MemoryStore final : public LogStore {
 public:
  Status append(std::uint64_t first, const std::vector<StoredEntry>& entries,
                const std::vector<translog::Node>& nodes) override;
  Result<std::uint64_t> size() const override { return entries_.size(); }
  Result<StoredEntry> entry(std::uint64_t index) const override;
  Result<Hash32> node(translog::NodeId id) const override { return nodes_.node(id); }

 private:
  std::vector<StoredEntry> entries_;
  translog::MemoryNodes nodes_;
};

// A set is made with its log. One that lost it has forgotten every policy, revocation and charge,
// and must not begin anew.
enum class LogFile { kCreate, kMustExist };
// SQLite with a write-ahead log and synchronous=FULL; the file is locked against a second process.
// Errors: kDatabase, also where the log must exist and does not; kConflict when another process has
// it open.
Result<std::unique_ptr<LogStore>> open_sqlite_store(const std::string& path,
                                                    LogFile file = LogFile::kCreate);

}  // namespace gbx::broker
