// The log and its fold, kept together: what is not durable is not known, and what is durable can be
// read again. Not thread-safe.
#pragma once

#include <memory>

#include "broker/state.h"
#include "broker/store.h"

namespace gbx::broker {

// Of one entry's canonical form. Entries are made within the first and read within the second, so
// that no later change of the JSON reader's own limits can make a log unreadable.
inline constexpr JsonLimits kAppendLimits{1U << 20, 64, 600'000};
inline constexpr JsonLimits kReplayLimits{16U << 20, 128, 4'000'000};

class Log {
 public:
  // Reads all entries, hashes every leaf again and folds them. `store` and `random` must outlive
  // the Log. Errors: kBadHash, kBadStructure, kBadJson, and those of the store.
  static Result<std::unique_ptr<Log>> open(LogStore& store, Random& random,
                                           std::size_t awake_jobs = kAwakeJobs);

  // Folds and stores all of `entries` or none. What could not be read or folded again is refused
  // before anything is stored, and nothing has changed: kTooLarge, kBadValue and the like,
  // kBadStructure. After a failure of the store nothing is known of the stored state: every later
  // call fails with kUnavailable until the program starts again.
  Status append(const std::vector<LogEntry>& entries);
  bool broken() const { return broken_ || unreadable(); }
  // A job that was folded before could not be read again: it was not found though it is there.
  bool unreadable() const { return state_.unreadable(); }
  // Between two requests: what State::job gave is gone then.
  void rest() { state_.rest(awake_jobs_); }
  const State& state() const { return state_; }
  std::uint64_t size() const { return frontier_.size(); }
  Hash32 root() const { return frontier_.root(); }
  // Of the leaf in the tree that ends with it, so that it is the same whenever it is asked for.
  Result<records::Inclusion> inclusion(std::int64_t leaf) const;
  Result<Hash32> root_at(std::int64_t size) const {
    return translog::root_at(store_, static_cast<std::uint64_t>(size));
  }
  Result<Hash32> leaf_hash(std::int64_t leaf) const {
    return store_.node({0, static_cast<std::uint64_t>(leaf)});
  }
  Result<Json> entry(std::int64_t leaf) const;

 private:
  Log(LogStore& store, Random& random, std::size_t awake_jobs)
      : store_(store), random_(random), awake_jobs_(awake_jobs) {}
  State empty_state();
  Result<LogEntry> read_again(std::int64_t leaf) const;
  Status replay();
  Status fold(const std::vector<LogEntry>& entries);

  LogStore& store_;
  Random& random_;
  const std::size_t awake_jobs_;
  translog::Frontier frontier_;
  State state_;
  bool broken_ = false;
};

}  // namespace gbx::broker
