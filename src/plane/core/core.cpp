#include "plane/core/core.h"

#include <algorithm>

#include "plane/core/page.h"

namespace gbx::plane {

using machines::Record;
using machines::RecordQuery;
using machines::RecordWrite;

namespace {
constexpr std::int64_t kRememberPatienceMs = 5'000;
}  // namespace

std::string job_machine(const Hash32& job_id) { return "job/" + to_hex(job_id); }
std::string environment_machine(const Hash32& job_id, std::int64_t attempt) {
  return "env/" + to_hex(job_id) + "/" + std::to_string(attempt);
}
std::string output_machine(const Hash32& job_id) { return "out/" + to_hex(job_id); }

bool passing(Reason reason) {
  switch (exit_class(reason)) {
    case ExitClass::kInfrastructure:
      return reason != Reason::kUnsupported;
    case ExitClass::kInternal:
      return true;
    case ExitClass::kOk:
    case ExitClass::kUsage:
    case ExitClass::kDenied:
    case ExitClass::kAttestation:
    case ExitClass::kHeld:
    case ExitClass::kIntegrity:
    case ExitClass::kFailed:
      break;
  }
  return reason == Reason::kLost || reason == Reason::kTimedOut ||
         reason == Reason::kCredentialExpired || reason == Reason::kCredentialSuperseded ||
         reason == Reason::kRateLimited || reason == Reason::kTruncated;
}

Error from_outcome(const api::Outcome& o) {
  Error e;
  if (!reason_from_code(o.reason, &e.reason)) e.reason = Reason::kInternal;
  e.what = o.what;
  e.expected = o.expected;
  e.actual = o.actual;
  e.next = o.next;
  return e;
}
api::Outcome to_outcome(const Error& e) {
  return {std::string(reason_code(e.reason)), e.what.substr(0, 1000), e.expected.substr(0, 1000),
          e.actual.substr(0, 1000), e.next.substr(0, 1000)};
}

Status MemoryShelf::put(const std::string& name, ByteView content) {
  const std::lock_guard lock(mutex_);
  content_[name] = to_bytes(content);
  return ok_status();
}
Result<Bytes> MemoryShelf::get(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto it = content_.find(name);
  if (it == content_.end()) return fail(Reason::kNotFound, "sealed output");
  return it->second;
}

Core::Core(machines::Store& store, OutputShelf& shelf, const Clock& clock, CoreConfig config,
           records::SetChain::Keys keys, Start start)
    : store_(store),
      shelf_(shelf),
      clock_(clock),
      config_(std::move(config)),
      keys_(std::move(keys)),
      started_ms_(start.patience_ms),
      started_steady_ms_(clock.steady_ms()),
      remembered_ms_(start.patience_ms),
      remember_revision_(start.revision) {}

Result<std::unique_ptr<Core>> Core::create(machines::Store& store, OutputShelf& shelf,
                                           const Clock& clock, CoreConfig config) {
  GBX_ASSIGN(records::SetChain::Keys keys, config.set.verify(config.set_id));
  GBX_ASSIGN(const Start start, remembered(store, clock));
  return std::unique_ptr<Core>(
      new Core(store, shelf, clock, std::move(config), std::move(keys), start));
}

// Of the time since it was last written down no more is counted than may have gone unwritten: how
// long the plane was away is known from the wall clock alone.
Result<Core::Start> Core::remembered(machines::Store& store, const Clock& clock) {
  const std::int64_t wall = clock.now().ms;
  GBX_ASSIGN(const std::optional<Record> record, store.record("patience", "patience"));
  if (!record) return Start{wall, 0};
  GBX_ASSIGN(const PatienceBody body, from_json<PatienceBody>(record->body));
  const std::int64_t unwritten =
      std::clamp<std::int64_t>(wall - body.wall_ms, 0, kRememberPatienceMs);
  return Start{body.patience_ms + unwritten, record->revision};
}

Status Core::remember() {
  GBX_ASSIGN(const auto next, store_.next_due_ms());
  if (!next) return ok_status();  // nothing waits
  const std::int64_t patience = patience_ms();
  if (remember_revision_ != 0 && patience - remembered_ms_ < kRememberPatienceMs) {
    return ok_status();
  }
  Transaction t;
  t.records.push_back(written_down(patience));
  GBX_TRY(store_.commit(t));  // nobody waits for it
  was_written_down(patience);
  return ok_status();
}

RecordWrite Core::written_down(std::int64_t patience) const {
  RecordWrite w;
  w.expected_revision = remember_revision_;
  w.record = {"patience", "patience", "", "", 0, 0, to_json(PatienceBody{patience, now_ms()})};
  return w;
}
void Core::was_written_down(std::int64_t patience) {
  remember_revision_ += 1;
  remembered_ms_ = patience;
}

std::int64_t Core::patience_ms() const {
  return started_ms_ + clock_.steady_ms() - started_steady_ms_;
}

Status Core::commit(Transaction& t) {
  if (t.empty()) return ok_status();
  for (auto& effect : t.effects) {
    if (effect.due_ms == 0) effect.due_ms = patience_ms();
  }
  // Nothing waits on the disk without the time that it waits by.
  const std::int64_t patience = patience_ms();
  const bool first = remember_revision_ == 0;
  if (first) t.records.push_back(written_down(patience));
  GBX_TRY(store_.commit(t));
  if (first) was_written_down(patience);
  {
    const std::lock_guard lock(change_mutex_);
    ++version_;
  }
  changed_.notify_all();
  return ok_status();
}

std::uint64_t Core::version() const {
  const std::lock_guard lock(change_mutex_);
  return version_;
}
std::uint64_t Core::wait(std::uint64_t seen, std::int64_t timeout_ms) const {
  std::unique_lock lock(change_mutex_);
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return version_ != seen; });
  return version_;
}

Result<Machine> Core::need_machine(const std::string& id, const char* what) {
  GBX_ASSIGN(std::optional<Machine> m, store_.machine(id));
  if (!m) return fail(Reason::kNotFound, what);
  return std::move(*m);
}

// ---- identities ----

Result<std::optional<std::pair<Record, IdentityBody>>> Core::find_identity(const Hash32& id) {
  using Found = std::pair<Record, IdentityBody>;
  GBX_ASSIGN(std::optional<Record> record, store_.record("identity", to_hex(id)));
  if (!record) return std::optional<Found>();
  GBX_ASSIGN(IdentityBody body, from_json<IdentityBody>(record->body));
  return std::optional<Found>(Found(std::move(*record), std::move(body)));
}

Status Core::check_key(const Hash32& identity, const crypto::PublicKey& key) {
  GBX_ASSIGN(auto found, find_identity(identity));
  if (!found) {
    return fail(Reason::kUnauthenticated, "this identity is not enrolled here")
        .hint("enrol it with an invite: glovebox identity enrol --invite-file FILE");
  }
  GBX_ASSIGN(crypto::PublicKey current, found->second.chain.current_key(config_.set_id));
  if (!(current == key)) {
    return fail(Reason::kUnauthenticated,
                "the request is signed by a key that is not this identity's current one")
        .hint(
            "glovebox identity rotate goes on with a change that was interrupted; if somebody "
            "else changed the key: glovebox identity rotate --recovery");
  }
  return ok_status();
}

Status Core::check_rotation_key(const Hash32& identity, const crypto::PublicKey& key) {
  GBX_ASSIGN(auto found, find_identity(identity));
  if (found && found->second.chain.identity.recovery_key == key.text()) return ok_status();
  return check_key(identity, key);
}

Result<records::IdentityChain> Core::newest_chain(const records::IdentityChain& chain) {
  GBX_ASSIGN(auto found, find_identity(chain.id()));
  return found && found->second.chain.rotations.size() > chain.rotations.size()
             ? found->second.chain
             : chain;
}

Result<Caller> Core::caller(const Hash32& identity) {
  GBX_ASSIGN(auto found, find_identity(identity));
  if (!found) return fail(Reason::kUnauthenticated, "this identity is not enrolled here");
  return Caller{identity, {found->second.roles.begin(), found->second.roles.end()}};
}

namespace {
api::IdentityView identity_view(const Record& record, const IdentityBody& body) {
  return {body.chain.id(), record.name, body.roles, body.chain, record.order};
}
std::string today(std::int64_t now_ms) { return std::to_string(now_ms / 86'400'000); }
bool is_last(const records::IdentityChain& chain, const Signed<records::Rotation>& rotation) {
  return !chain.rotations.empty() && chain.rotations.back().hash() == rotation.hash();
}

// A chain that leaves the other one somewhere is signed by a key that was rotated away there.
Status one_chain(const records::IdentityChain& a, const records::IdentityChain& b) {
  const std::size_t both = std::min(a.rotations.size(), b.rotations.size());
  for (std::size_t i = 0; i < both; ++i) {
    if (a.rotations[i].hash() == b.rotations[i].hash()) continue;
    return fail(Reason::kChainBroken, "key rotation " + std::to_string(i + 1) + " of the identity")
        .with(to_hex(a.rotations[i].hash()), to_hex(b.rotations[i].hash()))
        .hint("sign with the newest key of this identity");
  }
  return ok_status();
}
}  // namespace

// Roles are added to those that an identity has.
Status Core::put_identity(const records::IdentityChain& chain, const std::string& name,
                          std::vector<Role> roles, Transaction t) {
  GBX_TRY(chain.current_key(config_.set_id));
  GBX_ASSIGN(auto found, find_identity(chain.id()));
  std::set<Role> all(roles.begin(), roles.end());
  RecordWrite w;
  if (found) {
    GBX_TRY(one_chain(found->second.chain, chain));
    const std::set<Role> old(found->second.roles.begin(), found->second.roles.end());
    all.insert(old.begin(), old.end());
    if (all == old) return ok_status();
    w.expected_revision = found->first.revision;
    w.record = found->first;
  } else {
    w.record.kind = "identity";
    w.record.id = to_hex(chain.id());
    w.record.name = name;
    w.record.order = now_ms();
    GBX_TRY(count_identity(t));
  }
  // Rotations that were accepted stay: an enrolment cannot take a chain back.
  const bool newer = !found || chain.rotations.size() > found->second.chain.rotations.size();
  const IdentityBody body{newer ? chain : found->second.chain, {all.begin(), all.end()}};
  w.record.body = to_json(body);
  t.records.push_back(std::move(w));
  return commit(t);
}

Result<api::IdentityView> Core::enrol(const Hash32& by, const crypto::PublicKey& by_key,
                                      const api::EnrolRequest& request) {
  const Lock lock(mutex_);
  const Hash32 id = request.chain.id();
  GBX_ASSIGN(crypto::PublicKey current, request.chain.current_key(config_.set_id));
  GBX_ASSIGN(auto signer, find_identity(by));
  bool by_operator = false;
  if (signer) {
    GBX_ASSIGN(crypto::PublicKey signer_key, signer->second.chain.current_key(config_.set_id));
    if (!(signer_key == by_key)) {
      return fail(Reason::kUnauthenticated, "signed by a key that is not this identity's");
    }
    const auto& roles = signer->second.roles;
    by_operator = std::find(roles.begin(), roles.end(), Role::kOperator) != roles.end();
  } else if (by != id || !(current == by_key)) {
    return fail(Reason::kUnauthenticated,
                "an enrolment is signed by the identity itself or by an operator");
  }
  Transaction t;
  if (!by_operator) {
    if (by != id) return fail(Reason::kWrongRole, "only an operator enrols somebody else");
    GBX_ASSIGN(auto existing, find_identity(id));
    const std::set<Role> wanted(request.roles.begin(), request.roles.end());
    if (existing) {
      const std::set<Role> has(existing->second.roles.begin(), existing->second.roles.end());
      // The same once more uses up no invite.
      if (std::includes(has.begin(), has.end(), wanted.begin(), wanted.end())) {
        return identity_view(existing->first, existing->second);
      }
    }
    if (!request.invite) {
      return fail(Reason::kUnauthenticated,
                  existing ? "another role needs an invite" : "enrolment needs an invite")
          .hint("ask an operator for one");
    }
    GBX_ASSIGN(std::optional<Record> invite,
               store_.record("invite", to_hex(crypto::sha256(as_bytes(*request.invite)))));
    if (!invite) return fail(Reason::kUnauthenticated, "this invite is not known here");
    GBX_ASSIGN(InviteBody body, from_json<InviteBody>(invite->body));
    if (body.uses < 1) return fail(Reason::kQuotaExceeded, "this invite was used up");
    if (body.not_after <= now_ms() / 1000) return fail(Reason::kExpired, "this invite has expired");
    std::string given;
    for (const Role r : body.roles) given += (given.empty() ? "" : ",") + std::string(enum_name(r));
    for (const Role r : wanted) {
      if (std::find(body.roles.begin(), body.roles.end(), r) == body.roles.end()) {
        return fail(Reason::kWrongRole, "this invite does not give the role")
            .with(given, std::string(enum_name(r)))
            .hint("glovebox identity enrol --role " + given + " --invite-file FILE");
      }
    }
    body.uses -= 1;
    invite->body = to_json(body);
    t.records.push_back({invite->revision, *invite});
  }
  GBX_TRY(put_identity(request.chain, request.name, request.roles, std::move(t)));
  GBX_ASSIGN(auto found, find_identity(id));
  if (!found) return fail(Reason::kInternal, "enrolment");
  return identity_view(found->first, found->second);
}

namespace {
// Only the hash of a token is kept.
RecordWrite invite_write(const api::InviteRequest& request, std::string_view token,
                         std::int64_t now) {
  RecordWrite w;
  w.record.kind = "invite";
  w.record.id = to_hex(crypto::sha256(as_bytes(token)));
  w.record.order = now;
  w.record.body = to_json(InviteBody{request.roles, request.uses, request.not_after});
  return w;
}
}  // namespace

Status Core::invite(const Caller& who, const api::InviteRequest& request, std::string_view token) {
  const Lock lock(mutex_);
  if (!who.has(Role::kOperator)) return fail(Reason::kWrongRole, "invites come from operators");
  Transaction t;
  t.records.push_back(invite_write(request, token, now_ms()));
  return commit(t);
}

Status Core::keep_invite(const api::InviteRequest& request, std::string_view token) {
  const Lock lock(mutex_);
  RecordWrite w = invite_write(request, token, now_ms());
  GBX_ASSIGN(const std::optional<Record> before, store_.record("invite", w.record.id));
  if (before) {
    w.expected_revision = before->revision;
    w.record.order = before->order;
  }
  Transaction t;
  t.records.push_back(std::move(w));
  return commit(t);
}

Result<bool> Core::operator_enrolled() {
  Page page;
  page.limit = 200;
  do {
    GBX_ASSIGN(const api::IdentityList list, identities(page));
    for (const auto& i : list.items) {
      if (std::find(i.roles.begin(), i.roles.end(), Role::kOperator) != i.roles.end()) return true;
    }
    page.cursor = list.next;
  } while (!page.cursor.empty());
  return false;
}

Result<api::IdentityView> Core::identity(const Hash32& id) {
  GBX_ASSIGN(auto found, find_identity(id));
  if (!found) return fail(Reason::kNotFound, "identity");
  return identity_view(found->first, found->second);
}

Result<api::IdentityList> Core::identities(const Page& page) {
  RecordQuery q;
  q.kind = "identity";
  using View = std::optional<api::IdentityView>;
  return page_of<api::IdentityList>(store_, q, page, [](const Record& row) -> Result<View> {
    GBX_ASSIGN(const IdentityBody body, from_json<IdentityBody>(row.body));
    return View(identity_view(row, body));
  });
}

Status Core::check_rotation(const Caller& who, const records::RotateRequest& request) {
  if (request.identity.id() != who.identity) {
    return fail(Reason::kWrongOwner, "a rotation is sent by its own identity");
  }
  GBX_ASSIGN(auto found, find_identity(who.identity));
  if (!found) return fail(Reason::kNotFound, "identity");
  records::IdentityChain chain = found->second.chain;
  if (is_last(chain, request.rotation)) return ok_status();
  chain.rotations.push_back(request.rotation);
  return chain.current_key(config_.set_id).ok() ? ok_status()
                                                : Status(fail(Reason::kChainBroken, "rotation"));
}

Result<api::IdentityView> Core::accept_rotation(const Caller& who,
                                                const records::RotateRequest& request) {
  const Lock lock(mutex_);
  GBX_ASSIGN(auto found, find_identity(who.identity));
  if (!found) return fail(Reason::kNotFound, "identity");
  auto& [record, body] = *found;
  if (is_last(body.chain, request.rotation)) return identity_view(record, body);
  body.chain.rotations.push_back(request.rotation);
  GBX_TRY(body.chain.current_key(config_.set_id));
  record.body = to_json(body);
  Transaction t;
  t.records.push_back({record.revision, record});
  GBX_TRY(commit(t));
  return identity_view(record, body);
}

Status Core::within(const Daily& d, std::int64_t count) {
  if (d.more <= d.most - count) return ok_status();
  return fail(Reason::kQuotaExceeded, d.what)
      .with(std::to_string(d.most), d.more == 1 ? "one more" : std::to_string(d.more) + " more")
      .hint("go on tomorrow (UTC)");
}

Result<Record> Core::todays(const Daily& d, const Hash32& identity) {
  const std::string whose = to_hex(identity);
  return counter(d.kind, whose + "/" + today(now_ms()), whose);
}

Status Core::count_today(const Daily& d, const Hash32& identity, bool done_already,
                         Transaction& t) {
  GBX_ASSIGN(Record record, todays(d, identity));
  GBX_ASSIGN(CountBody body, from_json<CountBody>(record.body));
  if (!done_already) GBX_TRY(within(d, body.count));
  body.count += d.more;
  record.body = to_json(body);
  t.records.push_back({record.revision, std::move(record)});
  return ok_status();
}

Status Core::charge_upload(const Caller& who, std::int64_t bytes) {
  if (bytes < 0) return fail(Reason::kBadValue, "bytes of an upload");
  return add_upload(who, bytes);
}
Status Core::refund_upload(const Caller& who, std::int64_t bytes) {
  if (bytes < 0) return fail(Reason::kBadValue, "bytes of an upload");
  return add_upload(who, -bytes);
}

Result<Record> Core::counter(const char* kind, const std::string& id, const std::string& owner) {
  GBX_ASSIGN(std::optional<Record> record, store_.record(kind, id));
  if (record) return std::move(*record);
  return Record{kind, id, owner, "", now_ms(), 0, to_json(CountBody{})};
}

Status Core::add_upload(const Caller& who, std::int64_t bytes) {
  const Lock lock(mutex_);
  const std::string id = to_hex(who.identity);
  GBX_ASSIGN(Record record, counter("object-bytes", id, id));
  GBX_ASSIGN(CountBody body, from_json<CountBody>(record.body));
  if (bytes > config_.quotas.object_bytes - body.count) {
    return fail(Reason::kQuotaExceeded, "bytes of stored objects")
        .with("at most " + std::to_string(config_.quotas.object_bytes),
              std::to_string(body.count) + " and now " + std::to_string(bytes));
  }
  body.count = std::max<std::int64_t>(0, body.count + bytes);
  record.body = to_json(body);
  Transaction t;
  t.records.push_back({record.revision, std::move(record)});
  return commit(t);
}

Status Core::count_identity(Transaction& t) {
  GBX_ASSIGN(Record record, counter("identities", "all", ""));
  GBX_ASSIGN(CountBody body, from_json<CountBody>(record.body));
  if (body.count >= config_.quotas.identities) {
    return fail(Reason::kQuotaExceeded, "identities of this installation")
        .with("at most " + std::to_string(config_.quotas.identities), "one more")
        .hint("tell the operator: another installation takes further people");
  }
  body.count += 1;
  record.body = to_json(body);
  t.records.push_back({record.revision, std::move(record)});
  return ok_status();
}

namespace {
constexpr char kLogHead[] = "log-head";
}  // namespace

Status Core::check_log_head(const Signed<records::LogHead>& head) const {
  GBX_TRY(head.verify(config_.set_id, keys_.signing));
  if (head.body.epoch == keys_.epoch) return ok_status();
  return fail(Reason::kWrongSet, "epoch of the log head")
      .with(std::to_string(keys_.epoch), std::to_string(head.body.epoch));
}

// A kept head that is damaged is an error and not the same as none: the broker would ask nothing.
Result<std::optional<Signed<records::LogHead>>> Core::log_head() {
  using Head = Signed<records::LogHead>;
  GBX_ASSIGN(const std::optional<Record> record, store_.record(kLogHead, kLogHead));
  if (!record) return std::optional<Head>();
  auto head = from_json<Head>(record->body);
  const Status good = head.ok() ? check_log_head(*head) : Status(head.error());
  if (!good.ok()) return Error(good.error()).at("the plane's copy of the broker's log head");
  return std::optional<Head>(std::move(*head));
}

Status Core::keep_log_head(const Signed<records::LogHead>& head) {
  GBX_TRY(check_log_head(head));
  const Lock lock(mutex_);
  GBX_ASSIGN(const std::optional<Signed<records::LogHead>> kept, log_head());
  RecordWrite w;
  w.record.kind = kLogHead;
  w.record.id = kLogHead;
  w.record.order = now_ms();
  if (kept) {
    const records::LogHead& old = kept->body;
    const bool same_root = head.body.tree_root == old.tree_root;
    if (head.body.tree_size == old.tree_size && same_root) return ok_status();
    if (head.body.tree_size <= old.tree_size) {
      return fail(Reason::kLogRolledBack, "the broker shows an older log than before, or another")
          .with("more than " + std::to_string(old.tree_size) + " entries",
                std::to_string(head.body.tree_size));
    }
    GBX_ASSIGN(const std::optional<Record> record, store_.record(kLogHead, kLogHead));
    w.expected_revision = record->revision;
  }
  w.record.body = to_json(head);
  Transaction t;
  t.records.push_back(std::move(w));
  // not commit(): nobody waits for this, and whoever does would learn when the log grows
  return store_.commit(t);
}

Result<Core::Numbers> Core::numbers() {
  const Lock lock(mutex_);
  Numbers n;
  machines::MachineQuery q;
  q.kind = "job";
  for (const auto& s : enum_names(machines::JobState{})) {
    q.state = s.name;
    GBX_ASSIGN(n.jobs[s.name], store_.count(q));
  }
  q.kind = "env";
  q.live = true;
  for (const auto& s : enum_names(machines::EnvironmentState{})) {
    if (machines::terminal(s.value)) continue;
    q.state = s.name;
    GBX_ASSIGN(n.environments[s.name], store_.count(q));
  }
  for (const auto& [node, seen] : last_seen_ms_) {
    if (alive(seen)) n.nodes_alive += 1;
  }
  GBX_ASSIGN(auto effects, store_.due(patience_ms(), 1000));
  n.effects_due = static_cast<std::int64_t>(effects.size());
  n.attempts_watched = static_cast<std::int64_t>(handed_ms_.size() + missing_ms_.size());
  return n;
}

}  // namespace gbx::plane
