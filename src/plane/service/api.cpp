#include "plane/service/api.h"

#include <algorithm>
#include <charconv>

#include "plane/http/target.h"
#include "records/held_ledger.h"

namespace gbx::plane {

using api::Call;
using http::error_response;
using http::Response;

namespace {

constexpr std::int64_t kDefaultPage = 50;
constexpr std::size_t kChunk = 256U << 10;
// A POST has the store write, and mostly the broker judge, one request at a time.
constexpr std::int64_t kTokensOfAChange = 4;
// So many entries asked for cost a token more: a page looks at as much as it is asked for.
constexpr std::int64_t kEntriesOfAToken = 50;

// What a request costs its caller, known before its route is.
std::int64_t tokens_of(const http::Request& request, std::int64_t most) {
  if (request.method == "POST") return kTokensOfAChange;
  const auto target = http::parse_target(request.target);
  if (!target.ok()) return 1;
  const auto limit = target->query.find("limit");
  if (limit == target->query.end()) return 1;
  const std::string& text = limit->second;
  std::int64_t entries = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), entries);
  if (read.ec != std::errc() || entries < 0) return 1;  // refused by the route
  return std::min(1 + entries / kEntriesOfAToken, most);
}

Page page_of(const Call& call) {
  const std::int64_t limit = call.query_integer("limit", kDefaultPage);
  return {call.query("cursor"), static_cast<std::size_t>(std::max<std::int64_t>(1, limit))};
}
std::optional<std::string> optional_query(const Call& call, const std::string& name) {
  const std::string v = call.query(name);
  return v.empty() ? std::nullopt : std::optional<std::string>(v);
}
Result<Hash32> hash_parameter(const Call& call, const std::string& name) {
  auto id = fixed_from_hex<32>(call.parameter(name));
  if (!id.ok()) {
    return fail(Reason::kNotFound, name).with("64 hex digits", call.parameter(name).substr(0, 64));
  }
  return id;
}
// The query's 64 hex digits; absent when it has none.
Result<std::optional<Hash32>> optional_hash(const Call& call, const std::string& name) {
  const std::string v = call.query(name);
  if (v.empty()) return std::optional<Hash32>();
  auto hash = fixed_from_hex<32>(v);
  if (!hash.ok()) {
    return fail(Reason::kBadValue, name).with("64 hex digits", printable(v.substr(0, 64)));
  }
  return std::optional<Hash32>(*hash);
}
Result<Nonce32> statement_nonce(const Call& call) {
  GBX_ASSIGN(const std::optional<Hash32> nonce, optional_hash(call, "nonce"));
  if (!nonce) return fail(Reason::kBadValue, "nonce").with("64 hex digits", "none");
  return *nonce;
}
// The core's form of a caller: the same roles as a set.
Caller caller_of(const Call& call) {
  Caller c;
  c.identity = call.caller.identity;
  for (const auto& r : enum_names(Role{})) {
    const auto bit = api::role_from_name(r.name);
    if (bit.ok() && (call.caller.roles & *bit) != 0) c.roles.insert(r.value);
  }
  return c;
}

// One of few places, while it lives; none where all are taken.
class Place {
 public:
  Place(std::atomic<int>& taken, int most) : all_(taken), taken_(++all_ <= most) {}
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() { --all_; }
  bool taken() const { return taken_; }

 private:
  std::atomic<int>& all_;
  const bool taken_;
};

}  // namespace

PlaneApi::PlaneApi(Core& core, Broker& broker, storage::ObjectStore& objects, const Clock& clock,
                   Random& random, ApiOptions options)
    : core_(core),
      broker_(broker),
      objects_(objects),
      clock_(clock),
      random_(random),
      options_(std::move(options)),
      shares_(options_.shares),
      openapi_(openapi(options_.version)) {}

template <class T>
Result<T> PlaneApi::ask(std::string_view method, const Json& body) {
  GBX_ASSIGN(Json reply, broker_.call(method, body));
  auto parsed = from_json<T>(reply);
  if (!parsed.ok()) {
    return fail(Reason::kUnavailable, "the broker's answer is malformed: " + parsed.error().line());
  }
  return parsed;
}

Result<api::Caller> PlaneApi::authenticate(const http::Request& request) {
  const bool post = request.method == "POST";
  const bool enrolment = post && request.target == "/v1/identities";
  const std::int64_t now = clock_.now().seconds();
  GBX_ASSIGN(httpsig::VerifiedRequest verified,
             httpsig::verify_signature({core_.config().set_id, request.method, request.target},
                                       request.headers, now));
  const Hash32& identity = verified.identity;
  // Whose key was stolen and rotated away goes on from the rotations that are shown.
  const std::string own = "/v1/identities/" + to_hex(identity);
  const bool rotation = (post && request.target == own + "/rotations") ||
                        (request.method == "GET" && request.target == own);
  const Status known = rotation ? core_.check_rotation_key(identity, verified.key)
                                : core_.check_key(identity, verified.key);
  // Somebody who enrols is not known yet: the handler compares key and chain.
  const bool unknown = !known.ok() && enrolment && !core_.identity(identity).ok();
  if (!unknown) GBX_TRY(known);
  // Before the memory of nonces: what is refused here may be sent again as it is.
  GBX_ASSIGN(std::shared_ptr<void> share,
             shares_.enter(unknown ? Hash32{} : identity, tokens_of(request, options_.shares.burst),
                           clock_.steady_ms()));
  GBX_TRY((unknown ? stranger_replays_ : replays_).remember(verified, now));
  if (!request.stream && crypto::sha256(request.body) != verified.body_hash) {
    return fail(Reason::kBadHash, "body of the request");
  }
  if (unknown) return api::Caller{verified.identity, api::kAnyRole, false, std::move(share)};
  GBX_ASSIGN(Caller caller, core_.caller(verified.identity));
  api::Caller out{verified.identity, 0, true, std::move(share)};
  for (const Role r : caller.roles) {
    GBX_ASSIGN(const api::RoleSet bit, api::role_from_name(enum_name(r)));
    out.roles |= bit;
  }
  return out;
}

// ---- the service itself ----

Response PlaneApi::info(const Call&) {
  api::InfoView v;
  v.version = options_.version;
  v.api = "v1";
  v.set_id = core_.config().set_id;
  v.set = core_.config().set;
  v.ca = options_.ca;
  v.time = clock_.now().seconds();
  v.broker_connected = broker_.connected();
  v.broker_trouble = broker_.trouble();
  return api::reply(200, v);
}

Response PlaneApi::broker_info(const Call& call) {
  const auto nonce = fixed_from_hex<32>(call.query("nonce"));
  if (!nonce.ok()) {
    return error_response(
        fail(Reason::kBadValue, "nonce").with("64 hex digits", call.query("nonce").substr(0, 64)));
  }
  // Whoever signed asks within their own share; all others have a few places together.
  std::optional<Place> place;
  const bool stranger = call.caller.identity == Hash32{};
  if (stranger) place.emplace(strangers_at_broker_, options_.strangers_at_broker);
  if (stranger && !place->taken()) {
    return error_response(
        fail(Reason::kRateLimited, "questions to the broker without a signature, at one time")
            .with("at most " + std::to_string(options_.strangers_at_broker), "one more")
            .hint("ask again in a moment"));
  }
  return api::reply_or_error(
      200, ask<records::InfoReply>(records::method::kInfo, to_json(records::InfoRequest{*nonce})));
}

Response PlaneApi::openapi_json(const Call&) {
  return openapi_.ok() ? http::json_response(200, *openapi_) : error_response(openapi_.error());
}

Response PlaneApi::healthz(const Call&) { return api::reply(200, api::HealthView{}); }

Response PlaneApi::readyz(const Call&) {
  const Status store = core_.next_due_ms().ok() ? ok_status() : Status(fail(Reason::kDatabase));
  const api::ReadinessView v{store.ok(), broker_.connected(), broker_.trouble()};
  return api::reply(v.store && v.broker ? 200 : 503, v);
}

Response PlaneApi::metrics(const Call&) {
  auto text = metrics_.render(core_, broker_.connected());
  if (!text.ok()) return error_response(text.error());
  Response r;
  r.content_type = "text/plain; version=0.0.4";
  r.body = to_bytes(as_bytes(*text));
  return r;
}

// ---- identities ----

Response PlaneApi::enrol(const Call& call) {
  const auto request = api::read_json_body<api::EnrolRequest>(call);
  if (!request.ok()) return error_response(request.error());
  const auto key = crypto::PublicKey::from_text(call.request.headers.at(httpsig::kKeyHeader));
  if (!key.ok()) return error_response(key.error());
  return api::reply_or_error(201, core_.enrol(call.caller.identity, *key, *request));
}

Response PlaneApi::identities(const Call& call) {
  return api::reply_or_error(200, core_.identities(page_of(call)));
}

Response PlaneApi::identity(const Call& call) {
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  return api::reply_or_error(200, core_.identity(*id));
}

Response PlaneApi::rotate(const Call& call) {
  const auto request = api::read_json_body<records::RotateRequest>(call);
  if (!request.ok()) return error_response(request.error());
  const auto run = [&]() -> Result<api::IdentityView> {
    GBX_ASSIGN(const Hash32 id, hash_parameter(call, "id"));
    const Caller who = caller_of(call);
    if (id != who.identity) {
      return fail(Reason::kWrongOwner, "a rotation is sent by its own identity");
    }
    GBX_TRY(core_.check_rotation(who, *request));
    GBX_TRY(ask<records::Empty>(records::method::kRotate, to_json(*request)));
    return core_.accept_rotation(who, *request);
  };
  return api::reply_or_error(200, run());
}

Response PlaneApi::invite(const Call& call) {
  const auto request = api::read_json_body<api::InviteRequest>(call);
  if (!request.ok()) return error_response(request.error());
  const std::string token = to_hex(random_.fixed<32>());
  const Status s = core_.invite(caller_of(call), *request, token);
  return s.ok() ? api::reply(201, api::InviteView{token}) : error_response(s.error());
}

// ---- catalogue ----

Response PlaneApi::publish(const Call& call) {
  const auto publish = api::read_json_body<records::Publish>(call);
  if (!publish.ok()) return error_response(publish.error());
  using Ack = records::Signed<records::PublishAck>;
  const auto run = [&]() -> Result<Ack> {
    GBX_TRY(core_.check_publish(caller_of(call), *publish));
    GBX_ASSIGN(Ack ack, ask<Ack>(records::method::kPublish, to_json(*publish)));
    GBX_TRY(core_.accept_publish(*publish, ack));
    return ack;
  };
  return api::reply_or_error(201, run());
}

Response PlaneApi::beacon(const Call& call) {
  const auto beacon = api::read_json_body<records::BeaconRequest>(call);
  if (!beacon.ok()) return error_response(beacon.error());
  using Ack = records::Signed<records::BeaconAck>;
  const auto run = [&]() -> Result<Ack> {
    GBX_TRY(core_.check_beacon(caller_of(call), *beacon));
    GBX_ASSIGN(Ack ack, ask<Ack>(records::method::kBeacon, to_json(*beacon)));
    GBX_TRY(core_.accept_beacon(*beacon, ack));
    return ack;
  };
  return api::reply_or_error(201, run());
}

Response PlaneApi::assets(const Call& call) {
  Core::AssetFilter filter;
  filter.name = optional_query(call, "name");
  filter.owner = optional_query(call, "owner");
  filter.digest = optional_query(call, "digest");
  filter.delisted = call.query_integer("delisted", 0) == 1;
  if (const auto kind = optional_query(call, "kind")) {
    const auto parsed = enum_from<records::AssetKind>(*kind);
    if (!parsed.ok()) return error_response(parsed.error());
    filter.kind = *parsed;
  }
  return api::reply_or_error(200, core_.assets(filter, page_of(call)));
}

Response PlaneApi::asset(const Call& call) {
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  return api::reply_or_error(200, core_.asset(*id));
}

Response PlaneApi::delist(const Call& call) {
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  const Status s = core_.delist(caller_of(call), *id);
  return s.ok() ? api::reply(200, records::Empty{}) : error_response(s.error());
}

Response PlaneApi::asset_policies(const Call& call) {
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  return api::reply_or_error(200, core_.policies(*id, page_of(call)));
}

Response PlaneApi::policy(const Call& call) {
  const auto hash = hash_parameter(call, "hash");
  if (!hash.ok()) return error_response(hash.error());
  return api::reply_or_error(200, core_.policy(*hash));
}

Response PlaneApi::ledger(const Call& call) {
  using Statement = records::Signed<records::LedgerStatement>;
  const auto run = [&]() -> Result<Statement> {
    records::LedgerRequest request;
    const std::string asset = call.parameter("asset");
    auto id = fixed_from_hex<16>(asset);
    if (!id.ok()) {
      return fail(Reason::kNotFound, "asset").with("32 hex digits", printable(asset.substr(0, 64)));
    }
    request.asset_id = *id;
    GBX_ASSIGN(request.nonce, statement_nonce(call));
    GBX_ASSIGN(request.consumer, optional_hash(call, "consumer"));
    request.after = call.query_integer("after", 0);
    GBX_ASSIGN(Statement s, ask<Statement>(records::method::kLedger, to_json(request)));
    const Hash32& caller = call.caller.identity;
    if (s.body.owner_id == caller || request.consumer == caller) return s;
    return fail(Reason::kWrongOwner,
                "a ledger is shown to its asset's owner, and the own part of "
                "it to each consumer")
        .with(to_hex(s.body.owner_id), to_hex(caller));
  };
  return api::reply_or_error(200, run());
}

Response PlaneApi::add_lease(const Call& call) {
  const auto lease = api::read_json_body<records::Signed<records::Lease>>(call);
  if (!lease.ok()) return error_response(lease.error());
  const Status s = core_.add_lease(caller_of(call), *lease);
  return s.ok() ? api::reply(201, records::Empty{}) : error_response(s.error());
}

Response PlaneApi::leases(const Call& call) {
  return api::reply_or_error(200, core_.leases(caller_of(call), page_of(call)));
}

// ---- objects ----

// The stored object of this name has exactly these bytes; else kConflict.
Status PlaneApi::same_object(const std::string& name, ByteView sha256) {
  GBX_ASSIGN(const std::uint64_t size, objects_.size(name));
  crypto::Sha256 hash;
  Bytes chunk(kChunk);
  for (std::uint64_t at = 0; at < size;) {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(size - at, chunk.size()));
    GBX_TRY(objects_.get(name, at, MutableByteView(chunk).first(n)));
    hash.update(ByteView(chunk).first(n));
    at += n;
  }
  if (!equal(hash.finish(), sha256)) return fail(Reason::kConflict, "another object has this name");
  return ok_status();
}

// An upload holds a thread for as long as it takes, so nobody has more than a few of them.
Response PlaneApi::put_object(const Call& call) {
  const Hash32 who = call.caller.identity;
  {
    const std::lock_guard lock(uploads_mutex_);
    int& mine = uploads_[who];
    if (mine >= options_.uploads_per_identity) {
      return error_response(
          fail(Reason::kRateLimited, "uploads of one identity at one time")
              .with("at most " + std::to_string(options_.uploads_per_identity), "one more")
              .hint("wait for one to end"));
    }
    ++mine;
  }
  Response r = store_object(call);
  const std::lock_guard lock(uploads_mutex_);
  const auto mine = uploads_.find(who);
  if (--mine->second == 0) uploads_.erase(mine);
  return r;
}

Response PlaneApi::store_object(const Call& call) {
  const std::string& name = call.parameter("name");
  const Caller who = caller_of(call);
  const auto size = static_cast<std::int64_t>(call.request.content_length);
  bool charged = false;
  const auto run = [&]() -> Result<api::ObjectView> {
    GBX_TRY(storage::check_object_name(name));
    GBX_ASSIGN(const Hash32 announced,
               fixed_from_hex<32>(call.request.headers.at(httpsig::kBodyHashHeader)));
    const api::ObjectView view{name, size};
    if (objects_.size(name).ok()) {
      GBX_TRY(same_object(name, announced));
      return view;
    }
    GBX_TRY(core_.charge_upload(who, size));
    charged = true;
    GBX_ASSIGN(std::unique_ptr<storage::ObjectWriter> writer, objects_.create(name));
    http::VerifiedBody body(call.request.stream, announced);
    Bytes chunk(kChunk);
    for (;;) {
      GBX_ASSIGN(const std::size_t n, body.read(chunk));
      if (n == 0) break;
      GBX_TRY(writer->write(ByteView(chunk).first(n)));
    }
    const Status stored = writer->commit();
    if (stored.ok()) {
      charged = false;  // and stays so
      return view;
    }
    if (stored.reason() != Reason::kAlreadyExists) return stored.error();
    GBX_TRY(same_object(name, announced));  // somebody was faster
    return view;
  };
  const Result<api::ObjectView> out = run();
  if (charged) (void)core_.refund_upload(who, size);
  return api::reply_or_error(201, out);
}

Response PlaneApi::get_object(const Call& call) {
  const std::string name = call.parameter("name");
  const Status good = storage::check_object_name(name);
  if (!good.ok()) return error_response(good.error());
  const auto size = objects_.size(name);
  if (!size.ok()) return error_response(size.error());
  Response r;
  r.content_type = "application/octet-stream";
  r.source_length = *size;
  storage::ObjectStore* store = &objects_;
  r.source = [store, name, total = *size,
              at = std::uint64_t{0}](MutableByteView out) mutable -> Result<std::size_t> {
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(total - at, out.size()));
    if (n == 0) return std::size_t{0};
    GBX_TRY(store->get(name, at, out.first(n)));
    at += n;
    return n;
  };
  return r;
}

// ---- jobs ----

Response PlaneApi::plan(const Call& call) {
  const auto s = api::read_json_body<records::SignedSubmission>(call);
  if (!s.ok()) return error_response(s.error());
  const auto run = [&]() -> Result<records::Explanation> {
    GBX_TRY(core_.check_submission(caller_of(call), *s));
    GBX_ASSIGN(auto explanation, ask<records::Explanation>(records::method::kExplain, to_json(*s)));
    GBX_ASSIGN(auto placement, core_.placement(s->submission.body));
    if (!placement.allowed) {
      explanation.allowed = false;
      explanation.plan.reset();
    }
    explanation.checks.push_back(std::move(placement));
    return explanation;
  };
  return api::reply_or_error(200, run());
}

Response PlaneApi::submit(const Call& call) {
  const auto s = api::read_json_body<records::SignedSubmission>(call);
  if (!s.ok()) return error_response(s.error());
  std::optional<std::string> key;
  const auto header = call.request.headers.find("idempotency-key");
  if (header != call.request.headers.end()) key = header->second;
  return api::reply_or_error(201, core_.submit(caller_of(call), *s, key));
}

Response PlaneApi::jobs(const Call& call) {
  Core::JobFilter filter;
  filter.consumer = optional_query(call, "consumer");
  const auto live = call.query_integer("live", -1);
  if (live >= 0) filter.live = live == 1;
  if (const auto state = optional_query(call, "state")) {
    const auto parsed = enum_from<machines::JobState>(*state);
    if (!parsed.ok()) return error_response(parsed.error());
    filter.state = *state;
  }
  return api::reply_or_error(200, core_.jobs(caller_of(call), filter, page_of(call)));
}

Result<api::JobView> PlaneApi::job_view(const Call& call) {
  GBX_ASSIGN(const Hash32 id, hash_parameter(call, "id"));
  const Caller who = caller_of(call);
  const std::int64_t after = call.query_integer("after", -1);
  const std::int64_t wait = std::min(call.query_integer("waitMs", 0), options_.longest_wait_ms);
  const std::int64_t until = clock_.steady_ms() + wait;
  const bool may_wait = wait > 0 && begin_wait(who.identity);
  const auto run = [&]() -> Result<api::JobView> {
    for (;;) {
      const std::uint64_t seen = core_.version();
      GBX_ASSIGN(api::JobView v, core_.job(who, id));
      const std::int64_t left = until - clock_.steady_ms();
      if (v.version > after || left <= 0 || !may_wait) return v;
      (void)core_.wait(seen, left);
    }
  };
  Result<api::JobView> out = run();
  if (may_wait) end_wait(who.identity);
  return out;
}

bool PlaneApi::begin_wait(const Hash32& who) {
  const std::lock_guard lock(waiting_mutex_);
  const auto mine = waiting_by_.find(who);
  if (waiting_ >= options_.waiters) return false;
  if (mine != waiting_by_.end() && mine->second >= options_.waiters_per_identity) return false;
  ++waiting_by_[who];
  ++waiting_;
  return true;
}

void PlaneApi::end_wait(const Hash32& who) {
  const std::lock_guard lock(waiting_mutex_);
  --waiting_;
  const auto mine = waiting_by_.find(who);
  if (--mine->second == 0) waiting_by_.erase(mine);
}

Response PlaneApi::job(const Call& call) { return api::reply_or_error(200, job_view(call)); }

Response PlaneApi::job_detail(const Call& call) {
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  return api::reply_or_error(200, core_.detail(caller_of(call), *id));
}

Response PlaneApi::job_events(const Call& call) {
  const auto waited = job_view(call);
  if (!waited.ok()) return error_response(waited.error());
  return api::reply_or_error(200, core_.events(caller_of(call), waited->job_id));
}

Response PlaneApi::cancel(const Call& call) {
  const auto request = api::read_json_body<records::CancelRequest>(call);
  if (!request.ok()) return error_response(request.error());
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  if (*id != request->cancel.body.job_id) {
    return error_response(fail(Reason::kBadValue, "the signed wish names another job"));
  }
  return api::reply_or_error(200, core_.cancel(caller_of(call), *request));
}

Response PlaneApi::result(const Call& call) {
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  return api::reply_or_error(200, core_.result(caller_of(call), *id));
}

Response PlaneApi::receipt(const Call& call) {
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  return api::reply_or_error(200, core_.receipt(caller_of(call), *id));
}

// ---- nodes and reviews ----

Response PlaneApi::nodes(const Call& call) {
  return api::reply_or_error(200, core_.nodes(caller_of(call), page_of(call)));
}

Response PlaneApi::enrol_node(const Call& call) {
  const auto request = api::read_json_body<api::NodeEnrolRequest>(call);
  if (!request.ok()) return error_response(request.error());
  const Status s = core_.enrol_node(request->name, request->key);
  return s.ok() ? api::reply(201, records::Empty{}) : error_response(s.error());
}

Response PlaneApi::reviews(const Call& call) {
  return api::reply_or_error(200, core_.reviews(caller_of(call), page_of(call)));
}

Response PlaneApi::review(const Call& call) {
  const auto id = hash_parameter(call, "id");
  if (!id.ok()) return error_response(id.error());
  return api::reply_or_error(200, core_.review(caller_of(call), *id));
}

Response PlaneApi::review_ledger(const Call& call) {
  using Statement = records::Signed<records::HeldLedgerStatement>;
  const auto run = [&]() -> Result<Statement> {
    records::HeldLedgerRequest request;
    GBX_ASSIGN(request.job_id, hash_parameter(call, "id"));
    GBX_ASSIGN(request.nonce, statement_nonce(call));
    const Caller who = caller_of(call);
    request.reviewer = who.identity;
    // Before the broker is asked: to everybody else there is no such output.
    GBX_TRY(core_.check_held(who, request.job_id));
    return ask<Statement>(records::method::kHeldLedger, to_json(request));
  };
  return api::reply_or_error(200, run());
}

Response PlaneApi::rule(const Call& call) {
  const auto request = api::read_json_body<records::RulingRequest>(call);
  if (!request.ok()) return error_response(request.error());
  const auto run = [&]() -> Result<records::Judgement> {
    GBX_ASSIGN(const Hash32 id, hash_parameter(call, "id"));
    const Caller who = caller_of(call);
    GBX_TRY(core_.begin_ruling(who, id, *request));
    Result<records::Judgement> j =
        ask<records::Judgement>(records::method::kRuling, to_json(*request));
    GBX_TRY(core_.end_ruling(who, id, *request, j));
    return j;
  };
  return api::reply_or_error(200, run());
}

}  // namespace gbx::plane
