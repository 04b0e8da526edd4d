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

// As it counts: by what it has reserved, or by what of that is told.
Charged as_reserved(const LedgerAmounts& a) { return {a.time, a.free_bits, a.verified_bits}; }
Charged as_told(const LedgerAmounts& a) { return {a.told_since, a.told_bits, a.verified_bits}; }

void add(LedgerSums& sums, const LedgerAmounts& a, const Hash32& job_id) {
  sums.reserved.add(as_reserved(a));
  sums.told.add(as_told(a));
  sums.order.add(a.told_since, job_id);
}
void remove(LedgerSums& sums, const LedgerAmounts& a, const Hash32& job_id) {
  sums.reserved.remove(as_reserved(a));
  sums.told.remove(as_told(a));
  sums.order.remove(a.told_since, job_id);
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
  for (const std::int64_t leaf : job.leaves.all()) {
    GBX_ASSIGN(const LogEntry entry, read_again_(leaf));
    GBX_TRY(scratch.apply(entry, leaf, 0));
  }
  if (scratch.jobs_.size() != 1) return broken("entries of several jobs");
  *out = scratch.jobs_.begin()->second.awake.get();
  if (!(*out)->decision) return ok_status();
  DecisionState& decision = *(*out)->decision;
  static const Grounds kNone{};
  const Grounds& grounds = job.grounds ? *job.grounds : kNone;
  for (const std::int64_t leaf : grounds.beacons) {
    GBX_ASSIGN(const LogEntry entry, read_again_(leaf));
    GBX_ASSIGN(const BeaconEntry e, from_json<BeaconEntry>(entry.body));
    decision.beacons.push_back(e.request.beacon);
  }
  decision.rulings.clear();
  for (const std::size_t i : grounds.rulings) {
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

void RisingNumbers::push_back(std::int64_t number) {
  std::int64_t more = number - last_;
  for (; more >= 0x80; more >>= 7) bytes_ += static_cast<char>((more & 0x7F) | 0x80);
  bytes_ += static_cast<char>(more);
  last_ = number;
}
std::vector<std::int64_t> RisingNumbers::all() const {
  std::vector<std::int64_t> out;
  std::int64_t last = 0;
  int shift = 0;
  for (const char c : bytes_) {
    last += static_cast<std::int64_t>(c & 0x7F) << shift;
    shift += 7;
    if ((c & 0x80) != 0) continue;
    out.push_back(last);
    shift = 0;
  }
  return out;
}

const State::Line* State::line_of(const Job& job, const std::string& asset) {
  const auto& lines = job.lines;
  const auto it = std::find_if(lines.begin(), lines.end(),
                               [&](const Line& line) { return line.asset->first == asset; });
  return it == lines.end() ? nullptr : &*it;
}
std::optional<LedgerLine> State::line(const Hash32& owner, const Id16& asset,
                                      const Hash32& job_id) const {
  const auto job = jobs_.find(job_id);
  if (job == jobs_.end()) return std::nullopt;
  const Line* line = line_of(job->second, ledger_key(owner, asset));
  if (line == nullptr) return std::nullopt;
  return LedgerLine{*job->second.consumer, line->amounts};
}
std::map<std::string, std::map<std::string, LedgerLine>> State::ledger() const {
  std::map<std::string, std::map<std::string, LedgerLine>> out;
  for (const auto& [id, job] : jobs_) {
    for (const Line& line : job.lines) {
      out[line.asset->first][to_hex(id)] = {*job.consumer, line.amounts};
    }
  }
  return out;
}

// What all jobs of an asset and, since a time, one consumer's have spent, without one job's line
// where it has one.
policy::Spent State::spent_by(By by, const records::PlanCharge& asset, const Hash32& consumer_id,
                              std::int64_t since, const Hash32& except) const {
  const auto part = by == By::kTold ? &LedgerSums::told : &LedgerSums::reserved;
  const std::string key = ledger_key(asset.owner_id, asset.asset_id);
  policy::Spent s{(sums_of(key, consumer_id).*part).free_bits_since(since),
                  (sums_of(key, std::nullopt).*part).free_bits()};
  const auto job = jobs_.find(except);
  const Line* own = job == jobs_.end() ? nullptr : line_of(job->second, key);
  if (own == nullptr) return s;
  const Charged counts = by == By::kTold ? as_told(own->amounts) : as_reserved(own->amounts);
  s.total_free_bits -= counts.free_bits;
  const bool mine = *job->second.consumer == consumer_id;
  if (mine && counts.time >= since) s.period_free_bits -= counts.free_bits;
  return s;
}
policy::Spent State::spent(const records::PlanCharge& asset, const Hash32& consumer_id,
                           std::int64_t since, const Hash32& except) const {
  return spent_by(By::kReserved, asset, consumer_id, since, except);
}
policy::Spent State::told_spent(const records::PlanCharge& asset, const Hash32& consumer_id,
                                std::int64_t since, const Hash32& except) const {
  return spent_by(By::kTold, asset, consumer_id, since, except);
}

const LedgerSums& State::sums_of(const std::string& asset,
                                 const std::optional<Hash32>& consumer) const {
  static const LedgerSums kNothing{};
  const auto ledger = ledgers_.find(asset);
  if (ledger == ledgers_.end()) return kNothing;
  if (!consumer) return ledger->second.all;
  const auto mine = ledger->second.by_consumer.find(*consumer);
  return mine == ledger->second.by_consumer.end() ? kNothing : mine->second;
}
const LedgerSums& State::sums(const Hash32& owner, const Id16& asset,
                              const std::optional<Hash32>& consumer) const {
  return sums_of(ledger_key(owner, asset), consumer);
}
const PolicyState* State::newest_policy(const Id16& asset) const {
  const auto it = newest_.find(to_hex(asset));
  return it == newest_.end() ? nullptr : &policies_.at(current_.at(it->second.version_id));
}

Result<JobState*> State::find(const Hash32& job_id) {
  const auto it = jobs_.find(job_id);
  if (it == jobs_.end()) return broken("unknown job");
  touched_ = &*it;
  return wake(it->second);
}
Result<AttemptState*> State::find(const Hash32& job_id, std::int64_t attempt) {
  GBX_ASSIGN(JobState * job, find(job_id));
  if (attempt < 1 || static_cast<std::size_t>(attempt) > job->attempts.size()) {
    return broken("unknown attempt");
  }
  return &job->attempts[static_cast<std::size_t>(attempt) - 1];
}

void State::charge(const std::vector<records::PlanCharge>& charges, std::int64_t time,
                   LedgerState state) {
  auto& [job_id, job] = *touched_;
  for (const auto& c : charges) {
    auto& ledger = *ledgers_.try_emplace(ledger_key(c.owner_id, c.asset_id)).first;
    LedgerSums& mine = ledger.second.by_consumer[*job.consumer];
    LedgerAmounts now{time, c.free_bits, c.verified_bits, state, time, c.free_bits};
    const auto before = std::find_if(job.lines.begin(), job.lines.end(),
                                     [&](const Line& line) { return line.asset == &ledger; });
    if (before != job.lines.end()) {
      if (state == LedgerState::kReserved) {
        now.told_since = before->amounts.told_since;
        now.told_bits = before->amounts.told_bits;
      }
      for (LedgerSums* sums : {&ledger.second.all, &mine}) remove(*sums, before->amounts, job_id);
      before->amounts = now;
    } else {
      job.lines.reserve(charges.size());
      job.lines.push_back({&ledger, now});
    }
    for (LedgerSums* sums : {&ledger.second.all, &mine}) add(*sums, now, job_id);
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
  charge(e.reserved, time, LedgerState::kReserved);
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
  charge(job->reserved, time, LedgerState::kReserved);
  return ok_status();
}

Status State::decide(const ReleaseEntry& e, std::int64_t time, std::int64_t leaf) {
  GBX_ASSIGN(JobState * job, find(e.job_id));
  if (!job->seal || job->decision) return broken("decision out of order");
  job->decision = DecisionState{e, time, leaf, {}, standing_rulings(*job), {}};
  Grounds grounds{{}, standing_indices(*job)};
  for (const auto& named : job->plan.body.policies) {
    const PolicyState* p = policy(named.policy_hash);
    if (p == nullptr || !p->beacon) continue;
    const auto& beacon = p->beacon->request.beacon;
    if (beacon.body.time > time) continue;
    job->decision->beacons.push_back(beacon);
    grounds.beacons.push_back(p->beacon->leaf);
  }
  if (!grounds.beacons.empty() || !grounds.rulings.empty()) {
    touched_->second.grounds = std::make_unique<Grounds>(std::move(grounds));
  }
  const bool released = e.decision == records::ReleaseDecision::kRelease;
  const LedgerState spent = released ? LedgerState::kReleased : LedgerState::kRejected;
  charge(e.charges, time, job->cancelled ? LedgerState::kCancelled : spent);
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
    touched_->second.attempts = static_cast<std::int64_t>(job->attempts.size());
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
    charge(e.charges, entry.time, LedgerState::kCancelled);
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
    touched_->second.leaves.push_back(leaf);
    touched_->second.bytes += bytes;
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
    touched_ = &*jobs_.try_emplace(id).first;
    Job& job = touched_->second;
    job.consumer = &*consumers_.insert(e.submission.submission.body.consumer_id).first;
    job.awake = std::make_unique<JobState>();
    job.awake->submission = std::move(e.submission);
    job.awake->plan = std::move(e.plan);
    job.recent = recent_.insert(recent_.begin(), &job);
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
