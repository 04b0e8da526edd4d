#include "broker/state.h"

#include <algorithm>

#include "policy/decision.h"

namespace gbx::broker {

using records::LedgerState;

namespace {

Error broken(const std::string& what) { return fail(Reason::kBadStructure, "log entry: " + what); }
std::string ledger_key(const Hash32& owner, const Id16& asset) {
  return to_hex(owner) + "/" + to_hex(asset);
}
std::string lease_key(const Id16& lease, const Id16& asset) {
  return to_hex(lease) + "/" + to_hex(asset);
}

// One line as it counts: by what it has reserved, or by what of that is told.
SumsLine as_reserved(const Hash32& job_id, const LedgerLine& line) {
  return {job_id, line.told_since, line.time, line.free_bits, line.verified_bits};
}
SumsLine as_told(const Hash32& job_id, const LedgerLine& line) {
  return {job_id, line.told_since, line.told_since, line.told_bits, line.verified_bits};
}

template <class Sums>
void change(Sums& sums, const Hash32& consumer_id, const std::optional<SumsLine>& before,
            const SumsLine& after) {
  LedgerSums& mine = sums.by_consumer[consumer_id];
  if (before) {
    sums.all.remove(*before);
    mine.remove(*before);
  }
  sums.all.add(after);
  mine.add(after);
}

// What all jobs of an asset and, since a time, one consumer's have spent, without one job's line
// where it has one; `own_is_mine`: that job is the consumer's.
policy::Spent spent_without(const LedgerSums& all, const LedgerSums& mine, std::int64_t since,
                            const std::optional<SumsLine>& own, bool own_is_mine) {
  policy::Spent s{mine.free_bits_since(since), all.free_bits()};
  if (!own) return s;
  s.total_free_bits -= own->free_bits;
  if (own_is_mine && own->time >= since) s.period_free_bits -= own->free_bits;
  return s;
}

template <class Body>
Status reads_as(const Json& body) {
  const auto parsed = from_json<Body>(body);
  return parsed.ok() ? ok_status() : Status(parsed.error());
}
struct Kind {
  std::string_view name;
  Status (*check)(const Json& body);
};
template <class Body>
constexpr Kind kind() {
  return {Body::kKind, reads_as<Body>};
}
constexpr Kind kKinds[] = {kind<BootEntry>(),      kind<PublishEntry>(),  kind<RotateEntry>(),
                           kind<AuthoriseEntry>(), kind<LeaseUseEntry>(), kind<CredentialEntry>(),
                           kind<TombstoneEntry>(), kind<AttestEntry>(),   kind<Key1Entry>(),
                           kind<Key2Entry>(),      kind<SealEntry>(),     kind<JudgeEntry>(),
                           kind<HoldEntry>(),      kind<RulingEntry>(),   kind<ReleaseEntry>(),
                           kind<DeliverEntry>(),   kind<CancelEntry>(),   kind<BeaconEntry>()};

}  // namespace

Status check_body(const LogEntry& entry) {
  for (const Kind& k : kKinds) {
    if (k.name != entry.kind) continue;
    Status s = k.check(entry.body);
    return s.ok() ? s : Status(s.error().at("log entry " + entry.kind));
  }
  return broken("unknown kind").with("", entry.kind.substr(0, 32));
}

const PolicyState* State::policy(const Hash32& policy_hash) const {
  const auto it = policies_.find(to_hex(policy_hash));
  return it == policies_.end() ? nullptr : &it->second;
}
const JobState* State::held_under(const Hash32& notice) const {
  const auto it = held_.find(to_hex(notice));
  if (it == held_.end()) return nullptr;
  const auto id = fixed_from_hex<32>(it->second);
  return id.ok() ? job(*id) : nullptr;
}
const PolicyState* State::current_policy(const Hash32& version_id) const {
  const auto it = current_.find(to_hex(version_id));
  return it == current_.end() ? nullptr : &policies_.at(it->second);
}
const JobState* State::job(const Hash32& job_id) const {
  const auto it = jobs_.find(job_id);
  if (it == jobs_.end()) return nullptr;
  const auto woken = wake(it->second);
  return woken.ok() ? *woken : nullptr;  // wake() has noted why
}

std::optional<std::int64_t> State::attempts(const Hash32& job_id) const {
  const auto it = jobs_.find(job_id);
  return it == jobs_.end() ? std::nullopt : std::optional(it->second.attempts);
}

Result<JobState*> State::wake(Job& job) const {
  if (job.awake) {
    recent_.splice(recent_.begin(), recent_, job.recent);
    return job.awake.get();
  }
  State scratch;
  JobState* read = nullptr;
  GBX_TRY(read_into(job, scratch, &read));
  job.awake = std::make_unique<JobState>(std::move(*read));
  job.recent = recent_.insert(recent_.begin(), &job);
  awake_bytes_ += job.bytes;
  return job.awake.get();
}

// Folds the job's entries in a state of their own. Neither policies nor rotations are there: which
// beacons and rulings its decision rests on was noted when it was folded first. It folded once:
// when it does not now, whatever the reason, nobody may take the job for one that is unknown.
Status State::read_into(const Job& job, State& scratch, JobState** out) const {
  const Status read = fold_again(job, scratch, out);
  if (!read.ok()) unreadable_ = true;
  return read;
}
Status State::fold_again(const Job& job, State& scratch, JobState** out) const {
  for (const std::int64_t leaf : job.leaves) {
    GBX_ASSIGN(const LogEntry entry, read_again_(leaf));
    GBX_TRY(scratch.apply(entry, leaf, 0));
  }
  if (scratch.jobs_.size() != 1) return broken("entries of several jobs");
  *out = scratch.jobs_.begin()->second.awake.get();
  if (!(*out)->decision) return ok_status();
  DecisionState& decision = *(*out)->decision;
  for (const std::int64_t leaf : job.beacons) {
    GBX_ASSIGN(const LogEntry entry, read_again_(leaf));
    GBX_ASSIGN(const BeaconEntry e, from_json<BeaconEntry>(entry.body));
    decision.beacons.push_back(e.request.beacon);
  }
  decision.rulings.clear();
  for (const std::size_t i : job.rulings) {
    if (!(*out)->hold || i >= (*out)->hold->rulings.size()) return broken("ruling without a hold");
    decision.rulings.push_back((*out)->hold->rulings[i]);
  }
  return ok_status();
}

void State::rest(const Awake& awake) {
  if (!read_again_) return;
  while (recent_.size() > awake.jobs || (recent_.size() > 1 && awake_bytes_ > awake.bytes)) {
    awake_bytes_ -= recent_.back()->bytes;
    recent_.back()->awake.reset();
    recent_.pop_back();
  }
}

std::map<std::string, JobState> State::jobs() const {
  std::map<std::string, JobState> all;
  for (auto& [id, job] : jobs_) {
    State scratch;
    JobState* state = job.awake.get();
    if (state == nullptr && !read_into(job, scratch, &state).ok()) continue;
    all.emplace(to_hex(id), *state);
  }
  return all;
}
std::optional<Hash32> State::owner_of(const Id16& asset_id) const {
  const auto it = owners_.find(to_hex(asset_id));
  if (it == owners_.end()) return std::nullopt;
  return it->second;
}
records::IdentityChain State::chain(const records::Identity& identity) const {
  const auto it = rotations_.find(to_hex(identity.id()));
  records::IdentityChain c{identity, {}};
  if (it != rotations_.end()) c.rotations = it->second;
  return c;
}
std::vector<records::RulingRequest> State::standing_rulings(const JobState& job) const {
  std::vector<records::RulingRequest> out;
  for (const std::size_t i : standing_indices(job)) out.push_back(job.hold->rulings[i]);
  return out;
}
std::vector<std::size_t> State::standing_indices(const JobState& job) const {
  std::vector<std::size_t> out;
  for (std::size_t i = 0; job.hold && i < job.hold->rulings.size(); ++i) {
    const auto& r = job.hold->rulings[i];
    // the log holds no rotation that was not checked
    const auto known = chain(r.reviewer.identity);
    const std::string& key =
        known.rotations.empty() ? known.identity.genesis_key : known.rotations.back().body.new_key;
    if (key == r.ruling.key) out.push_back(i);
  }
  return out;
}
std::int64_t State::lease_uses(const Id16& lease_id, const Id16& asset_id) const {
  const auto it = lease_uses_.find(lease_key(lease_id, asset_id));
  return it == lease_uses_.end() ? 0 : it->second;
}
std::int64_t JobState::attempts_with_data() const {
  return std::count_if(attempts.begin(), attempts.end(),
                       [](const auto& a) { return a.has_data(); });
}

const LedgerLine* State::find_line(const std::string& asset, const Hash32& job_id) const {
  const auto lines = ledger_.find(asset);
  if (lines == ledger_.end()) return nullptr;
  const auto it = lines->second.find(to_hex(job_id));
  return it == lines->second.end() ? nullptr : &it->second;
}

policy::Spent State::spent(const records::PlanCharge& asset, const Hash32& consumer_id,
                           std::int64_t since, const Hash32& except) const {
  const std::string key = ledger_key(asset.owner_id, asset.asset_id);
  const LedgerLine* own = find_line(key, except);
  return spent_without(sums_in(sums_, key, std::nullopt), sums_in(sums_, key, consumer_id), since,
                       own ? std::optional(as_reserved(except, *own)) : std::nullopt,
                       own != nullptr && own->consumer_id == consumer_id);
}

policy::Spent State::told_spent(const records::PlanCharge& asset, const Hash32& consumer_id,
                                std::int64_t since, const Hash32& except) const {
  const std::string key = ledger_key(asset.owner_id, asset.asset_id);
  const LedgerLine* own = find_line(key, except);
  return spent_without(sums_in(told_sums_, key, std::nullopt),
                       sums_in(told_sums_, key, consumer_id), since,
                       own ? std::optional(as_told(except, *own)) : std::nullopt,
                       own != nullptr && own->consumer_id == consumer_id);
}

const LedgerSums& State::sums_in(const Sums& sums, const std::string& asset,
                                 const std::optional<Hash32>& consumer) {
  static const LedgerSums kNothing{};
  const auto of_asset = sums.find(asset);
  if (of_asset == sums.end()) return kNothing;
  if (!consumer) return of_asset->second.all;
  const auto mine = of_asset->second.by_consumer.find(*consumer);
  return mine == of_asset->second.by_consumer.end() ? kNothing : mine->second;
}

const LedgerSums& State::told_sums(const Hash32& owner, const Id16& asset,
                                   const std::optional<Hash32>& consumer) const {
  return sums_in(told_sums_, ledger_key(owner, asset), consumer);
}

const std::map<std::string, LedgerLine>* State::ledger(const Hash32& owner,
                                                       const Id16& asset) const {
  const auto it = ledger_.find(ledger_key(owner, asset));
  return it == ledger_.end() ? nullptr : &it->second;
}
const PolicyState* State::newest_policy(const Id16& asset) const {
  const auto it = newest_.find(to_hex(asset));
  return it == newest_.end() ? nullptr : &policies_.at(current_.at(it->second.version_id));
}

Result<JobState*> State::find(const Hash32& job_id) {
  const auto it = jobs_.find(job_id);
  if (it == jobs_.end()) return broken("unknown job");
  touched_ = &it->second;
  return wake(it->second);
}
Result<AttemptState*> State::find(const Hash32& job_id, std::int64_t attempt) {
  GBX_ASSIGN(JobState * job, find(job_id));
  if (attempt < 1 || static_cast<std::size_t>(attempt) > job->attempts.size()) {
    return broken("unknown attempt");
  }
  return &job->attempts[static_cast<std::size_t>(attempt) - 1];
}

void State::charge(const Hash32& job_id, const JobState& job,
                   const std::vector<records::PlanCharge>& charges, std::int64_t time,
                   LedgerState state) {
  for (const auto& c : charges) {
    const std::string key = ledger_key(c.owner_id, c.asset_id);
    auto& lines = ledger_[key];
    const auto before = lines.find(to_hex(job_id));
    const Hash32& consumer_id = job.submission.submission.body.consumer_id;
    LedgerLine line{consumer_id, time, c.free_bits, c.verified_bits, state, time, c.free_bits};
    std::optional<LedgerLine> old;
    if (before != lines.end()) old = before->second;
    if (old && state == LedgerState::kReserved) {
      line.told_since = old->told_since;
      line.told_bits = old->told_bits;
    }
    const auto changed = [&](Sums& sums, SumsLine (*as)(const Hash32&, const LedgerLine&)) {
      const std::optional<SumsLine> was = old ? std::optional(as(job_id, *old)) : std::nullopt;
      change(sums[key], consumer_id, was, as(job_id, line));
    };
    changed(sums_, as_reserved);
    changed(told_sums_, as_told);
    lines[to_hex(job_id)] = line;
  }
}

Status State::publish(const PublishEntry& e, std::int64_t time, std::int64_t leaf) {
  const auto& p = e.publish.policy.body;
  const std::string hash = to_hex(e.publish.policy.hash());
  policies_[hash] = {e.publish, time, leaf, std::nullopt};
  const std::string version_id = to_hex(p.asset_version_id);
  current_[version_id] = hash;
  Newest& newest = newest_[to_hex(p.asset_id)];
  const std::int64_t version = e.publish.record.body.version;
  if (newest.version_id.empty() || version > newest.version) newest = {version, version_id};
  owners_[to_hex(p.asset_id)] = p.owner_id;
  return ok_status();
}

Status State::beacon(const BeaconEntry& e, std::int64_t time, std::int64_t leaf) {
  const auto it = policies_.find(to_hex(e.request.beacon.body.policy_hash));
  if (it == policies_.end()) return broken("beacon for an unknown policy");
  it->second.beacon = BeaconState{e.request, time, leaf};
  return ok_status();
}

Status State::key(const KeyEntry& e, std::int64_t time, std::int64_t leaf) {
  const auto& r = e.request.body;
  GBX_ASSIGN(JobState * job, find(r.job_id));
  GBX_ASSIGN(AttemptState * attempt, find(r.job_id, r.attempt));
  if (r.seq != static_cast<std::int64_t>(attempt->keys.size()) + 1) {
    return broken("key release out of order");
  }
  attempt->keys.push_back(e);
  if (r.stage != 2) return ok_status();
  job->reserved = e.reserved;
  job->reserved_leaf = leaf;
  charge(r.job_id, *job, e.reserved, time, LedgerState::kReserved);
  return ok_status();
}

// Its reasons, which the consumer reads, are reserved on top of everything else.
Status State::rule(const RulingEntry& e, std::int64_t time) {
  GBX_ASSIGN(JobState * job, find(e.job_id));
  if (!job->hold) return broken("ruling without a hold");
  job->hold->rulings.push_back(e.request);
  job->hold->last_ruling_at = time;
  const std::int64_t told = policy::ruling_bits({e.request.ruling.body});
  if (told == 0) return ok_status();
  for (auto& c : job->reserved) c.free_bits += told;
  charge(e.job_id, *job, job->reserved, time, LedgerState::kReserved);
  return ok_status();
}

Status State::decide(const ReleaseEntry& e, std::int64_t time, std::int64_t leaf) {
  GBX_ASSIGN(JobState * job, find(e.job_id));
  if (!job->seal || job->decision) return broken("decision out of order");
  job->decision = DecisionState{e, time, leaf, {}, standing_rulings(*job), {}};
  touched_->rulings = standing_indices(*job);
  for (const auto& named : job->plan.body.policies) {
    const PolicyState* p = policy(named.policy_hash);
    if (p == nullptr || !p->beacon) continue;
    const auto& beacon = p->beacon->request.beacon;
    if (beacon.body.time > time) continue;
    job->decision->beacons.push_back(beacon);
    touched_->beacons.push_back(p->beacon->leaf);
  }
  const bool released = e.decision == records::ReleaseDecision::kRelease;
  const LedgerState spent = released ? LedgerState::kReleased : LedgerState::kRejected;
  charge(e.job_id, *job, e.charges, time, job->cancelled ? LedgerState::kCancelled : spent);
  return ok_status();
}

Status State::apply_job(const LogEntry& entry, std::int64_t leaf) {
  if (entry.kind == CredentialEntry::kKind) {
    GBX_ASSIGN(CredentialEntry e, from_json<CredentialEntry>(entry.body));
    GBX_ASSIGN(JobState * job, find(e.credential.body.job_id));
    if (e.credential.body.attempt != static_cast<std::int64_t>(job->attempts.size()) + 1) {
      return broken("attempt out of order");
    }
    job->attempts.push_back({e.credential, {}, std::nullopt, {}});
    touched_->attempts = static_cast<std::int64_t>(job->attempts.size());
  } else if (entry.kind == TombstoneEntry::kKind) {
    GBX_ASSIGN(TombstoneEntry e, from_json<TombstoneEntry>(entry.body));
    GBX_ASSIGN(AttemptState * attempt, find(e.job_id, e.attempt));
    attempt->dead = e.reason;
  } else if (entry.kind == AttestEntry::kKind) {
    GBX_ASSIGN(AttestEntry e, from_json<AttestEntry>(entry.body));
    GBX_ASSIGN(AttemptState * attempt, find(e.job_id, e.attempt));
    if (attempt->attest) return broken("second first evidence");
    attempt->attest = std::move(e);
  } else if (entry.kind == Key1Entry::kKind || entry.kind == Key2Entry::kKind) {
    GBX_ASSIGN(KeyEntry e, from_json<KeyEntry>(entry.body));
    return key(e, entry.time, leaf);
  } else if (entry.kind == SealEntry::kKind) {
    GBX_ASSIGN(SealEntry e, from_json<SealEntry>(entry.body));
    const auto& context = e.seal.statement.body.manifest.context;
    GBX_ASSIGN(JobState * job, find(context.job_id));
    if (job->seal) return broken("second seal");
    job->seal = SealState{e.seal, e.ack, context.attempt, entry.time};
  } else if (entry.kind == HoldEntry::kKind) {
    GBX_ASSIGN(HoldEntry e, from_json<HoldEntry>(entry.body));
    GBX_ASSIGN(JobState * job, find(e.job_id));
    job->hold = HoldState{e.notice, e.preview_keys, {}, 0};
    held_[to_hex(e.notice.hash())] = to_hex(e.job_id);
  } else if (entry.kind == RulingEntry::kKind) {
    GBX_ASSIGN(RulingEntry e, from_json<RulingEntry>(entry.body));
    return rule(e, entry.time);
  } else if (entry.kind == ReleaseEntry::kKind) {
    GBX_ASSIGN(ReleaseEntry e, from_json<ReleaseEntry>(entry.body));
    return decide(e, entry.time, leaf);
  } else if (entry.kind == DeliverEntry::kKind) {
    GBX_ASSIGN(DeliverEntry e, from_json<DeliverEntry>(entry.body));
    GBX_ASSIGN(JobState * job, find(e.job_id));
    if (!job->decision) return broken("delivery without a decision");
    job->decision->outer_keys = std::move(e.outer_keys);
  } else if (entry.kind == CancelEntry::kKind) {
    GBX_ASSIGN(CancelEntry e, from_json<CancelEntry>(entry.body));
    GBX_ASSIGN(JobState * job, find(e.request.cancel.body.job_id));
    if (e.charges.size() != job->reserved.size()) {
      return broken("cancellation that charges for something else");
    }
    job->cancelled = true;
    charge(e.request.cancel.body.job_id, *job, e.charges, entry.time, LedgerState::kCancelled);
  } else {
    return broken("unknown kind").with("", entry.kind);
  }
  return ok_status();
}

Status State::apply(const LogEntry& entry, std::int64_t leaf, std::size_t bytes) {
  if (entry.time < last_time_) return broken("time fell");
  touched_ = nullptr;
  GBX_TRY(apply_any(entry, leaf));
  if (touched_ != nullptr) {
    touched_->leaves.push_back(leaf);
    touched_->bytes += bytes;
    awake_bytes_ += bytes;  // whatever touches a job wakes it
  }
  last_time_ = entry.time;
  return ok_status();
}

Status State::apply_any(const LogEntry& entry, std::int64_t leaf) {
  if (entry.kind == BootEntry::kKind) {
    GBX_TRY(from_json<BootEntry>(entry.body));
    ++boots_;
  } else if (entry.kind == PublishEntry::kKind) {
    GBX_ASSIGN(PublishEntry e, from_json<PublishEntry>(entry.body));
    return publish(e, entry.time, leaf);
  } else if (entry.kind == BeaconEntry::kKind) {
    GBX_ASSIGN(BeaconEntry e, from_json<BeaconEntry>(entry.body));
    return beacon(e, entry.time, leaf);
  } else if (entry.kind == RotateEntry::kKind) {
    GBX_ASSIGN(RotateEntry e, from_json<RotateEntry>(entry.body));
    rotations_[to_hex(e.identity.id())].push_back(e.rotation);
  } else if (entry.kind == AuthoriseEntry::kKind) {
    GBX_ASSIGN(AuthoriseEntry e, from_json<AuthoriseEntry>(entry.body));
    const Hash32 id = e.plan.body.job_id;
    if (jobs_.count(id) != 0) return broken("second plan for one job");
    Job& job = jobs_[id];
    job.awake = std::make_unique<JobState>();
    job.awake->submission = std::move(e.submission);
    job.awake->plan = std::move(e.plan);
    job.recent = recent_.insert(recent_.begin(), &job);
    touched_ = &job;
  } else if (entry.kind == LeaseUseEntry::kKind) {
    GBX_ASSIGN(LeaseUseEntry e, from_json<LeaseUseEntry>(entry.body));
    GBX_ASSIGN(JobState * job, find(e.job_id));
    job->lease_uses.push_back(e);
    ++lease_uses_[lease_key(e.lease_id, e.asset_id)];
  } else if (entry.kind == JudgeEntry::kKind) {
    GBX_TRY(from_json<JudgeEntry>(entry.body));
  } else {
    return apply_job(entry, leaf);
  }
  return ok_status();
}

}  // namespace gbx::broker
