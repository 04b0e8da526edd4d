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

SumsLine sums_line(const Hash32& job_id, const LedgerLine& line) {
  return {job_id, line.told(), line.time, line.free_bits, line.verified_bits};
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
  return woken.ok() ? *woken : nullptr;
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
  return job.awake.get();
}

// Folds the job's entries in a state of their own, where no policies are: the beacons of its
// decision come from their entries.
Status State::read_into(const Job& job, State& scratch, JobState** out) const {
  for (const std::int64_t leaf : job.leaves) {
    GBX_ASSIGN(const LogEntry entry, read_again_(leaf));
    GBX_TRY(scratch.apply(entry, leaf));
  }
  if (scratch.jobs_.size() != 1) return broken("entries of several jobs");
  *out = scratch.jobs_.begin()->second.awake.get();
  for (const std::int64_t leaf : job.beacons) {
    GBX_ASSIGN(const LogEntry entry, read_again_(leaf));
    GBX_ASSIGN(const BeaconEntry e, from_json<BeaconEntry>(entry.body));
    (*out)->decision->beacons.push_back(e.request.beacon);
  }
  return ok_status();
}

void State::rest(std::size_t awake) {
  if (!read_again_) return;
  while (recent_.size() > awake) {
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
std::int64_t State::lease_uses(const Id16& lease_id, const Id16& asset_id) const {
  const auto it = lease_uses_.find(lease_key(lease_id, asset_id));
  return it == lease_uses_.end() ? 0 : it->second;
}
std::int64_t JobState::attempts_with_data() const {
  return std::count_if(attempts.begin(), attempts.end(),
                       [](const auto& a) { return a.has_data(); });
}

policy::Spent State::spent(const records::PlanCharge& asset, const Hash32& consumer_id,
                           std::int64_t since, const Hash32& except) const {
  policy::Spent s;
  s.total_free_bits = sums(asset.owner_id, asset.asset_id, std::nullopt).free_bits();
  s.period_free_bits = sums(asset.owner_id, asset.asset_id, consumer_id).free_bits_since(since);
  const auto* lines = ledger(asset.owner_id, asset.asset_id);
  if (lines == nullptr) return s;
  const auto own = lines->find(to_hex(except));
  if (own == lines->end()) return s;
  s.total_free_bits -= own->second.free_bits;
  if (own->second.consumer_id == consumer_id && own->second.time >= since) {
    s.period_free_bits -= own->second.free_bits;
  }
  return s;
}

const LedgerSums& State::sums(const Hash32& owner, const Id16& asset,
                              const std::optional<Hash32>& consumer) const {
  static const LedgerSums kNothing{};
  const auto of_asset = sums_.find(ledger_key(owner, asset));
  if (of_asset == sums_.end()) return kNothing;
  if (!consumer) return of_asset->second.all;
  const auto mine = of_asset->second.by_consumer.find(*consumer);
  return mine == of_asset->second.by_consumer.end() ? kNothing : mine->second;
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
    const std::int64_t since = before == lines.end() ? time : before->second.since;
    const Hash32& consumer_id = job.submission.submission.body.consumer_id;
    AssetSums& sums = sums_[key];
    LedgerSums& mine = sums.by_consumer[consumer_id];
    if (before != lines.end()) {
      const SumsLine old = sums_line(job_id, before->second);
      sums.all.remove(old);
      mine.remove(old);
    }
    LedgerLine& line = lines[to_hex(job_id)];
    line = {consumer_id, time, c.free_bits, c.verified_bits, state, since};
    sums.all.add(sums_line(job_id, line));
    mine.add(sums_line(job_id, line));
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
  job->decision = DecisionState{e, time, leaf, {}, {}};
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

Status State::apply(const LogEntry& entry, std::int64_t leaf) {
  if (entry.time < last_time_) return broken("time fell");
  touched_ = nullptr;
  GBX_TRY(apply_any(entry, leaf));
  if (touched_ != nullptr) touched_->leaves.push_back(leaf);
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
