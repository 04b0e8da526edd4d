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
// While a log is read from its beginning: the entries of so many jobs may lie mingled before one of
// them is read a second time.
inline constexpr Awake kAwakeAtStart{4'096, 256U << 20};

class Log {
 public:
  // Reads all entries, hashes every leaf again and folds them. `store` and `random` must outlive
  // the Log. Errors: kBadHash, kBadStructure, kBadJson, and those of the store.
  static Result<std::unique_ptr<Log>> open(LogStore& store, Random& random,
                                           const Awake& awake = {});

  // Folds and stores all of `entries` or none. What could not be read or folded again is refused
  // before anything is stored, and nothing has changed: kTooLarge, kBadValue and the like,
  // kBadStructure. After a failure of the store nothing is known of the stored state: every later
  // call fails with kUnavailable until the program starts again.
  Status append(const std::vector<LogEntry>& entries);
  bool broken() const { return broken_ || unreadable(); }
  // Something that is in the log could not be read again as what it was: a job was not found though
  // it is there, or the disk says otherwise than the root in memory.
  bool unreadable() const { return unreadable_ || state_.unreadable(); }
  // Between two requests: what State::job gave is gone then.
  void rest() { state_.rest(awake_); }
  const State& state() const { return state_; }
  std::uint64_t size() const { return frontier_.size(); }
  Hash32 root() const { return frontier_.root(); }
  // What follows is proved against the root in memory, or fails and makes the log unreadable().
  // Of the leaf in the tree that ends with it, so that it is the same whenever it is asked for.
  Result<records::Inclusion> inclusion(std::int64_t leaf) const;
  Result<Hash32> leaf_hash(std::int64_t leaf) const;
  Result<Json> entry(std::int64_t leaf) const;
  // The first `size` leaves have this root, by a path from it to the root in memory: nodes on the
  // disk are believed as far as they make that path. kBadInclusion when it does not hold, kNotFound
  // when a node is missing, and the store's errors.
  Status begins_with(std::int64_t size, const Hash32& root) const;

 private:
  Log(LogStore& store, Random& random, const Awake& awake)
      : store_(store), random_(random), awake_(awake) {}
  State empty_state();
  template <class T>
  Result<T> noted(Result<T> read) const {
    unreadable_ = unreadable_ || !read.ok();
    return read;
  }
  Result<StoredEntry> proved(std::int64_t leaf) const;
  Result<records::Inclusion> prove(std::int64_t leaf) const;
  Status replay();
  Status fold(const std::vector<LogEntry>& entries, const std::vector<std::size_t>& bytes);

  LogStore& store_;
  Random& random_;
  const Awake awake_;
  translog::Frontier frontier_;
  State state_;
  bool broken_ = false;
  mutable bool unreadable_ = false;
};

}  // namespace gbx::broker
