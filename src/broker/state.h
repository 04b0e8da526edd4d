// The broker's state: the fold of its log, with nothing that cannot be replayed. Of a job that
// nobody asked for lately only the places of its entries are in memory; they are folded again when
// somebody does (docs/decisions/0021-jobs-that-sleep.md). Members are described by fields(), so
// that two states can be compared as JSON. Not thread-safe.
#pragma once

#include <algorithm>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "broker/entries.h"
#include "broker/ledger_sums.h"
#include "policy/policy.h"

namespace gbx::broker {

// The last one for a policy.
struct BeaconState {
  records::BeaconRequest request;
  std::int64_t accepted_at = 0;
  std::int64_t leaf = 0;
  template <class F>
  void fields(F& f) {
    f("request", request);
    f("acceptedAt", accepted_at);
    f("leaf", leaf);
  }
};
struct PolicyState {
  records::Publish publish;
  std::int64_t accepted_at = 0;
  std::int64_t leaf = 0;
  std::optional<BeaconState> beacon;
  template <class F>
  void fields(F& f) {
    f("publish", publish);
    f("acceptedAt", accepted_at);
    f("leaf", leaf);
    f("beacon", beacon);
  }
  // When the owner last stood by it. A beacon counts from its own time.
  std::int64_t confirmed_at() const {
    return beacon ? std::max(accepted_at, beacon->request.beacon.body.time) : accepted_at;
  }
};

struct AttemptState {
  records::Signed<records::Credential> credential;
  std::string dead;  // reason code of the tombstone; empty while it lives
  std::optional<AttestEntry> attest;
  std::vector<KeyEntry> keys;  // by seq, from 1
  template <class F>
  void fields(F& f) {
    f("credential", credential);
    f("dead", dead);
    f("attest", attest);
    f("keys", keys);
  }
  Hash32 evidence_hash() const { return attest ? records::hash_of(attest->evidence) : Hash32{}; }
  bool has_data() const { return keys.size() >= 2; }
};

struct SealState {
  records::Seal seal;
  records::Signed<records::SealAck> ack;
  std::int64_t attempt = 1;
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("seal", seal);
    f("ack", ack);
    f("attempt", attempt);
    f("time", time);
  }
  const records::OutputManifest& manifest() const { return seal.statement.body.manifest; }
};
struct HoldState {
  records::Signed<records::HoldNotice> notice;
  std::vector<Bytes> preview_keys;
  std::vector<records::RulingRequest> rulings;
  std::int64_t last_ruling_at = 0;
  template <class F>
  void fields(F& f) {
    f("notice", notice);
    f("previewKeys", preview_keys);
    f("rulings", rulings);
    f("lastRulingAt", last_ruling_at);
  }
};
struct DecisionState {
  ReleaseEntry entry;
  std::int64_t time = 0;
  std::int64_t leaf = 0;
  // The last beacons by then, in the order of the plan's policies.
  std::vector<records::Signed<records::OwnerBeacon>> beacons;
  // Those that counted. The entry has their hashes, in which no signer is: two people's can be one.
  std::vector<records::RulingRequest> rulings;
  std::vector<Bytes> outer_keys;
  template <class F>
  void fields(F& f) {
    f("entry", entry);
    f("time", time);
    f("leaf", leaf);
    f("beacons", beacons);
    f("rulings", rulings);
    f("outerKeys", outer_keys);
  }
};
struct JobState {
  records::SignedSubmission submission;
  records::Signed<records::RunPlan> plan;
  std::vector<LeaseUseEntry> lease_uses;  // of the plan, each once
  bool cancelled = false;
  std::vector<AttemptState> attempts;  // by number, from 1; only the last can be live
  std::vector<records::PlanCharge> reserved;
  std::int64_t reserved_leaf = 0;
  std::optional<SealState> seal;
  std::optional<HoldState> hold;
  std::optional<DecisionState> decision;
  template <class F>
  void fields(F& f) {
    f("submission", submission);
    f("plan", plan);
    f("leaseUses", lease_uses);
    f("cancelled", cancelled);
    f("attempts", attempts);
    f("reserved", reserved);
    f("reservedLeaf", reserved_leaf);
    f("seal", seal);
    f("hold", hold);
    f("decision", decision);
  }
  std::int64_t attempts_with_data() const;
};
// What one job has reserved or spent on one asset of one owner.
struct LedgerAmounts {
  std::int64_t time = 0;
  std::int64_t free_bits = 0;
  std::int64_t verified_bits = 0;
  records::LedgerState state = records::LedgerState::kReserved;
  // Time and free bits as they are told: until the decision those of the first reservation. Later
  // ones would tell before the owners' slot when an attempt ended, or a reviewer ruled with how
  // many reasons.
  std::int64_t told_since = 0;
  std::int64_t told_bits = 0;
};
struct LedgerLine {
  Hash32 consumer_id{};
  LedgerAmounts amounts;
  template <class F>
  void fields(F& f) {
    f("consumerId", consumer_id);
    f("time", amounts.time);
    f("freeBits", amounts.free_bits);
    f("verifiedBits", amounts.verified_bits);
    f("state", amounts.state);
    f("toldSince", amounts.told_since);
    f("toldBits", amounts.told_bits);
  }
};

// Sums of all jobs on one asset of one owner, or of one consumer's.
struct LedgerSums {
  ChargedSums reserved;
  ChargedSums told;
  ToldOrder order;
};

// Numbers that rise, as what each is more than the one before, seven bits to a byte: the entries of
// a job are near each other in the log, and all of them fit in the string itself.
class RisingNumbers {
 public:
  void push_back(std::int64_t number);  // not less than the last one
  std::vector<std::int64_t> all() const;

 private:
  std::string bytes_;
  std::int64_t last_ = 0;
};

// The kind is known and the body is one of its kind, whatever came before. Errors: kBadStructure
// and those of reading.
Status check_body(const LogEntry& entry);

// Jobs whose state is in memory between two requests, and as how many bytes they are reckoned; the
// last one that was asked for is, however long.
inline constexpr std::size_t kAwakeJobs = 64;
inline constexpr std::size_t kAwakeBytes = 64U << 20;
struct Awake {
  std::size_t jobs = kAwakeJobs;
  std::size_t bytes = kAwakeBytes;
};

class State {
 public:
  // Gives the entry of a leaf that was folded before, proved to be the one.
  using ReadAgain = std::function<Result<LogEntry>(std::int64_t leaf)>;
  explicit State(ReadAgain read_again = {}) : read_again_(std::move(read_again)) {}
  // Folds one entry, the `leaf`-th, of which so many bytes are held, or changes nothing.
  // kBadStructure when it cannot follow what came before: the log is not this broker's.
  Status apply(const LogEntry& entry, std::int64_t leaf, std::size_t bytes);

  const PolicyState* current_policy(const Hash32& version_id) const;
  const PolicyState* policy(const Hash32& policy_hash) const;
  // Null when nobody authorised it, and when its entries could not be read or folded again:
  // unreadable() then. Stays until the next rest().
  const JobState* job(const Hash32& job_id) const;
  // How many attempts of it have credentials, without reading it again; none of an unknown job.
  std::optional<std::int64_t> attempts(const Hash32& job_id) const;
  // A job that is there was not found: nothing that was answered since may leave.
  bool unreadable() const { return unreadable_; }
  // Forgets what can be read again of all but the jobs that were asked for last.
  void rest(const Awake& awake);
  std::size_t awake() const { return recent_.size(); }
  // By the hash of the notice, also when it was decided since.
  const JobState* held_under(const Hash32& notice) const;
  // Of an asset that somebody has published.
  std::optional<Hash32> owner_of(const Id16& asset_id) const;
  // The chain with the rotations that the log holds for this identity.
  records::IdentityChain chain(const records::Identity& identity) const;
  // Of a held output. A ruling counts while its key is its reviewer's: one that was rotated away
  // after it ruled may have been a thief's.
  std::vector<records::RulingRequest> standing_rulings(const JobState& job) const;
  std::int64_t lease_uses(const Id16& lease_id, const Id16& asset_id) const;
  // On an asset by all jobs but `except`; the period counts this consumer's only. What is reserved,
  // by which keys and releases are given; and what of it is told, by which consumers are answered.
  policy::Spent spent(const records::PlanCharge& asset, const Hash32& consumer_id,
                      std::int64_t since, const Hash32& except) const;
  policy::Spent told_spent(const records::PlanCharge& asset, const Hash32& consumer_id,
                           std::int64_t since, const Hash32& except) const;
  // What this job has reserved or spent on the asset.
  std::optional<LedgerLine> line(const Hash32& owner, const Id16& asset,
                                 const Hash32& job_id) const;
  // All of them, by "owner/asset" and job in hex: for tests.
  std::map<std::string, std::map<std::string, LedgerLine>> ledger() const;
  // Added up and in order, of all jobs or one consumer's.
  const LedgerSums& sums(const Hash32& owner, const Id16& asset,
                         const std::optional<Hash32>& consumer) const;
  // The policy in force of the asset's newest version; null when it was never published.
  const PolicyState* newest_policy(const Id16& asset) const;
  std::int64_t last_time() const { return last_time_; }
  std::int64_t boots() const { return boots_; }
  // All of them, by id in hex, each read again where it has to be: for tests. One that cannot be is
  // left out: unreadable() then.
  std::map<std::string, JobState> jobs() const;
  Json snapshot() const { return to_json(*this); }

  template <class F>
  void fields(F& f) {
    f("lastTime", last_time_);
    f("boots", boots_);
    f("policies", policies_);
    f("current", current_);
    f("owners", owners_);
    f("rotations", rotations_);
    f("leaseUses", lease_uses_);
    auto jobs = this->jobs();
    f("jobs", jobs);
    f("held", held_);
    auto ledger = this->ledger();
    f("ledger", ledger);
  }

 private:
  // An asset of an owner, by "owner/asset", and what all jobs and each consumer's took from it.
  struct Ledger {
    LedgerSums all;
    std::map<Hash32, LedgerSums> by_consumer;
  };
  using Ledgers = std::map<std::string, Ledger>;
  struct Line {
    Ledgers::value_type* asset = nullptr;
    LedgerAmounts amounts;
  };
  // What a decision rests on: the leaves of beacons, and which of the hold's rulings stood. It
  // follows from policies and identities as they were then.
  struct Grounds {
    std::vector<std::int64_t> beacons;
    std::vector<std::size_t> rulings;
  };
  // Of each job that ever was: what is in here lies in memory for good.
  struct Job {
    RisingNumbers leaves;       // of its entries
    std::int64_t attempts = 0;  // as JobState has them
    std::size_t bytes = 0;      // held of them
    const Hash32* consumer = nullptr;
    std::vector<Line> lines;
    std::unique_ptr<Grounds> grounds;  // where there are any
    std::unique_ptr<JobState> awake;
    std::list<Job*>::iterator recent;  // while awake
  };
  using Jobs = std::map<Hash32, Job>;
  // The job in memory. Errors: those of reading, kBadStructure.
  Result<JobState*> wake(Job& job) const;
  Status read_into(const Job& job, State& scratch, JobState** out) const;
  Status fold_again(const Job& job, State& scratch, JobState** out) const;

  std::vector<std::size_t> standing_indices(const JobState& job) const;
  Status apply_any(const LogEntry& entry, std::int64_t leaf);
  Status apply_job(const LogEntry& entry, std::int64_t leaf);
  Status publish(const PublishEntry& e, std::int64_t time, std::int64_t leaf);
  Status beacon(const BeaconEntry& e, std::int64_t time, std::int64_t leaf);
  Status key(const KeyEntry& e, std::int64_t time, std::int64_t leaf);
  Status rule(const RulingEntry& e, std::int64_t time);
  Status decide(const ReleaseEntry& e, std::int64_t time, std::int64_t leaf);
  // Of the job that is being touched.
  void charge(const std::vector<records::PlanCharge>& charges, std::int64_t time,
              records::LedgerState state);
  Result<JobState*> find(const Hash32& job_id);
  Result<AttemptState*> find(const Hash32& job_id, std::int64_t attempt);

  std::int64_t last_time_ = 0;
  std::int64_t boots_ = 0;
  std::map<std::string, PolicyState> policies_;  // by policy hash
  // version id -> policy hash
  std::map<std::string, std::string> current_;
  // asset id -> owner
  std::map<std::string, Hash32> owners_;
  std::map<std::string, std::vector<records::Signed<records::Rotation>>> rotations_;  // by identity
  std::map<std::string, std::int64_t> lease_uses_;  // "lease/asset"
  // Which of them are awake is no part of the state.
  mutable Jobs jobs_;
  mutable std::list<Job*> recent_;  // those awake; the last one asked for is the first
  mutable std::size_t awake_bytes_ = 0;
  Jobs::value_type* touched_ = nullptr;  // by the entry that is being folded
  ReadAgain read_again_;
  mutable bool unreadable_ = false;
  std::map<std::string, std::string> held_;  // hash of the notice -> job
  std::set<Hash32> consumers_;               // of all jobs
  // What follows from the jobs' lines, so that no question walks all jobs, versions or lines. No
  // part of the snapshot.
  static const Line* line_of(const Job& job, const std::string& asset);
  const LedgerSums& sums_of(const std::string& asset, const std::optional<Hash32>& consumer) const;
  enum class By { kReserved, kTold };
  policy::Spent spent_by(By by, const records::PlanCharge& asset, const Hash32& consumer_id,
                         std::int64_t since, const Hash32& except) const;
  Ledgers ledgers_;
  struct Newest {
    std::int64_t version = 0;
    std::string version_id;
  };
  std::map<std::string, Newest> newest_;  // by asset id
};

}  // namespace gbx::broker
