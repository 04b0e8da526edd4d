#include "cli/plane.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "base/os.h"
#include "crypto/crypto.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kPage = 200;
// Few have one name or digest, and a plane charges by what is asked for: up to this it is least.
constexpr std::size_t kNarrowPage = 40;
constexpr std::size_t kMostItems = 20'000;
constexpr std::size_t kOpenObjects = 3;
constexpr std::uint64_t kLargestObject = std::uint64_t{128} << 20;
// A sealed output of 64 MiB is 86 MiB of base64url.
constexpr std::size_t kLargestAnswer = std::size_t{192} << 20;

std::string with_query(const std::string& target, const std::string& name,
                       const std::string& value) {
  if (value.empty()) return target;
  return target + (target.find('?') == std::string::npos ? "?" : "&") + name + "=" +
         http::percent_encode(value);
}
std::string job_path(const Hash32& id) { return "/v1/jobs/" + to_hex(id); }

template <class T>
Result<T> read_as(Result<Json> answer, const std::string& target) {
  if (!answer.ok()) return answer.error();
  Result<T> value = from_json<T>(*answer);
  if (!value.ok()) {
    return value.error()
        .at("answer of the plane to " + target)
        .hint("is this glovebox older than the plane?");
  }
  return value;
}

Result<Fd> unnamed_file(const std::string& directory) {
  GBX_TRY(make_dirs(directory, 0700));
  Fd fd(open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!fd.valid()) return io_error("temporary file in " + directory, errno);
  return fd;
}

}  // namespace

template <class T>
Result<T> Plane::get(const std::string& target) {
  return read_as<T>(client_->json("GET", target), target);
}
template <class T>
Result<T> Plane::post(const std::string& target, const Json& body,
                      const std::string& idempotency_key) {
  return read_as<T>(client_->json("POST", target, body, idempotency_key), target);
}
template <class List>
Result<std::vector<typename decltype(List::items)::value_type>> Plane::pages(
    const std::string& target, Entries entries) {
  // A page can be empty and not the last: what it looked at was not asked for.
  constexpr int kMostPages = 10'000;
  std::vector<typename decltype(List::items)::value_type> out;
  std::string cursor;
  int looked = 0;
  do {
    if (++looked > kMostPages) {
      return fail(Reason::kBadStructure, "the plane's list has no end")
          .with("at most " + std::to_string(kMostPages) + " pages", "more");
    }
    const std::size_t want = std::min(entries.of_page, entries.most - out.size());
    GBX_ASSIGN(List list, get<List>(with_query(with_query(target, "limit", std::to_string(want)),
                                               "cursor", cursor)));
    if (list.next == cursor && !cursor.empty()) {
      return fail(Reason::kBadStructure, "the plane repeats a page");
    }
    for (auto& i : list.items) out.push_back(std::move(i));
    cursor = list.next;
  } while (!cursor.empty() && out.size() < entries.most);
  if (out.size() > entries.most) out.resize(entries.most);
  return out;
}

Result<std::unique_ptr<Plane>> Plane::connect(http::ClientOptions options, const Clock& clock,
                                              Random& random) {
  options.max_body_bytes = kLargestAnswer;
  GBX_ASSIGN(auto client, http::Client::create(std::move(options), clock, random));
  return std::unique_ptr<Plane>(new Plane(std::move(client)));
}

Result<api::InfoView> Plane::info() { return get<api::InfoView>("/v1/info"); }
Result<records::InfoReply> Plane::broker(const Nonce32& nonce) {
  return get<records::InfoReply>("/v1/broker?nonce=" + to_hex(nonce));
}

Result<Json> Plane::enrol(const Enrolment& e) {
  Json body;
  body["chain"] = to_json(e.chain);
  body["name"] = e.name;
  JsonArray roles(e.roles.begin(), e.roles.end());
  body["roles"] = Json(std::move(roles));
  if (!e.invite.empty()) body["invite"] = e.invite;
  return client_->json("POST", "/v1/identities", body);
}
Result<Json> Plane::identity(const Hash32& id) {
  return client_->json("GET", "/v1/identities/" + to_hex(id));
}
Result<Json> Plane::rotate(const records::RotateRequest& r) {
  return client_->json("POST", "/v1/identities/" + to_hex(r.identity.id()) + "/rotations",
                       to_json(r), to_hex(r.rotation.hash()));
}
Result<std::string> Plane::invite(const std::vector<std::string>& roles, std::int64_t uses,
                                  std::int64_t not_after) {
  Json body;
  body["roles"] = Json(JsonArray(roles.begin(), roles.end()));
  body["uses"] = uses;
  body["notAfter"] = not_after;
  GBX_ASSIGN(api::InviteView view, post<api::InviteView>("/v1/invites", body));
  return view.token;
}

Result<records::Signed<records::PublishAck>> Plane::publish(const records::Publish& p) {
  // The broker answers the same publication with the same acknowledgement, so it may be repeated.
  return post<records::Signed<records::PublishAck>>("/v1/assets", to_json(p),
                                                    to_hex(p.policy.hash()));
}
Result<records::Signed<records::BeaconAck>> Plane::beacon(const records::BeaconRequest& b) {
  return post<records::Signed<records::BeaconAck>>("/v1/beacons", to_json(b),
                                                   to_hex(b.beacon.hash()));
}
Result<records::Signed<records::LedgerStatement>> Plane::ledger(const records::LedgerRequest& r) {
  std::string target = with_query("/v1/ledgers/" + to_hex(r.asset_id), "nonce", to_hex(r.nonce));
  if (r.consumer) target = with_query(target, "consumer", to_hex(*r.consumer));
  if (r.after > 0) target = with_query(target, "after", std::to_string(r.after));
  return get<records::Signed<records::LedgerStatement>>(target);
}
Result<std::vector<api::AssetView>> Plane::assets(const AssetFilter& f) {
  std::string target = with_query(
      with_query(with_query("/v1/assets", "name", f.name), "owner", f.owner), "kind", f.kind);
  target = with_query(target, "digest", f.digest);
  if (f.delisted) target = with_query(target, "delisted", "1");
  const bool narrow = !f.name.empty() || !f.digest.empty();
  return pages<api::AssetList>(target, {kMostItems, narrow ? kNarrowPage : kPage});
}
Result<api::AssetView> Plane::asset(const Hash32& id) {
  return get<api::AssetView>("/v1/assets/" + to_hex(id));
}
Status Plane::delist(const Hash32& id) {
  GBX_TRY(client_->json("POST", "/v1/assets/" + to_hex(id) + "/delist"));
  return ok_status();
}

Status Plane::add_lease(const records::Signed<records::Lease>& lease) {
  GBX_TRY(client_->json("POST", "/v1/leases", to_json(lease), to_hex(lease.body.lease_id)));
  return ok_status();
}
Result<std::vector<api::LeaseView>> Plane::leases() {
  return pages<api::LeaseList>("/v1/leases", {kMostItems, kPage});
}

Result<records::Explanation> Plane::explain(const records::SignedSubmission& s) {
  GBX_ASSIGN(auto e, post<records::Explanation>("/v1/jobs/plan", to_json(s)));
  const bool all =
      std::all_of(e.checks.begin(), e.checks.end(), [](const auto& c) { return c.allowed; });
  if (e.allowed == all && e.plan.has_value() == all) return e;
  return fail(Reason::kBadStructure, "what the plane says of this job's plan")
      .with("a plan where every check passed, and none otherwise", "one that contradicts itself");
}
Result<api::JobView> Plane::submit(const records::SignedSubmission& s,
                                   const std::string& idempotency_key) {
  // The same signed submission is the same job, so a lost answer is repaired by sending it again.
  return post<api::JobView>(
      "/v1/jobs", to_json(s),
      idempotency_key.empty() ? to_hex(s.submission.body.nonce) : idempotency_key);
}
Result<std::vector<api::JobView>> Plane::jobs(const std::string& state, std::size_t limit) {
  return pages<api::JobList>(with_query("/v1/jobs", "state", state), {limit, kPage});
}
Result<api::JobView> Plane::job(const Hash32& id) { return get<api::JobView>(job_path(id)); }
Result<api::JobView> Plane::job_after(const Hash32& id, std::int64_t after, std::int64_t wait_ms) {
  return get<api::JobView>(job_path(id) + "?after=" + std::to_string(after) +
                           "&waitMs=" + std::to_string(wait_ms));
}
Result<api::JobDetail> Plane::job_detail(const Hash32& id) {
  return get<api::JobDetail>(job_path(id) + "/detail");
}
Result<api::JobEvents> Plane::job_events(const Hash32& id) {
  return get<api::JobEvents>(job_path(id) + "/events");
}
Result<api::JobView> Plane::cancel(const records::CancelRequest& r) {
  return post<api::JobView>(job_path(r.cancel.body.job_id) + "/cancel", to_json(r),
                            to_hex(r.cancel.hash()));
}
Result<api::JobResult> Plane::result(const Hash32& id) {
  return get<api::JobResult>(job_path(id) + "/result");
}
Result<records::Receipt> Plane::receipt(const Hash32& id) {
  return get<records::Receipt>(job_path(id) + "/receipt");
}
Result<std::vector<api::ReviewView>> Plane::reviews(std::size_t limit) {
  return pages<api::ReviewList>("/v1/reviews", {limit, kPage});
}
Result<api::ReviewDetail> Plane::review(const Hash32& job_id) {
  return get<api::ReviewDetail>("/v1/reviews/" + to_hex(job_id));
}
Result<records::Signed<records::HeldLedgerStatement>> Plane::review_ledger(const Hash32& job_id,
                                                                           const Nonce32& nonce) {
  return get<records::Signed<records::HeldLedgerStatement>>(
      with_query("/v1/reviews/" + to_hex(job_id) + "/ledger", "nonce", to_hex(nonce)));
}
Result<records::Judgement> Plane::rule(const Hash32& job_id, const records::RulingRequest& r) {
  // The broker takes the same ruling once, so it may be repeated.
  return post<records::Judgement>("/v1/reviews/" + to_hex(job_id), to_json(r),
                                  to_hex(r.ruling.hash()));
}
Status Plane::enrol_node(const api::NodeEnrolRequest& n) {
  // The same name and key again are no error, so it may be repeated.
  GBX_TRY(client_->json("POST", "/v1/nodes", to_json(n), to_hex(crypto::sha256(as_bytes(n.key)))));
  return ok_status();
}
Result<std::vector<api::NodeView>> Plane::nodes() {
  return pages<api::NodeList>("/v1/nodes", {kMostItems, kPage});
}

// ---- objects ----

struct PlaneStore::Fetched {
  std::string name;
  Fd file;
  std::uint64_t size = 0;
};

class PlaneStore::Writer final : public storage::ObjectWriter {
 public:
  Writer(PlaneStore& store, std::string name, Fd file)
      : store_(store), name_(std::move(name)), file_(std::move(file)) {}
  Status write(ByteView bytes) override {
    GBX_TRY(write_all(file_.get(), bytes));
    hash_.update(bytes);
    size_ += bytes.size();
    return ok_status();
  }
  Status commit() override {
    const Hash32 hash = hash_.finish();
    GBX_TRY(store_.plane_.client().upload("/v1/objects/" + name_, file_.get(), size_, hash,
                                          store_.uploading_));
    return ok_status();
  }

 private:
  PlaneStore& store_;
  const std::string name_;
  Fd file_;
  crypto::Sha256 hash_;
  std::uint64_t size_ = 0;
};

PlaneStore::PlaneStore(Plane& plane, std::string spool, Transfer uploading)
    : plane_(plane), spool_(std::move(spool)), uploading_(std::move(uploading)) {}
PlaneStore::~PlaneStore() = default;

Result<std::unique_ptr<storage::ObjectWriter>> PlaneStore::create(const std::string& name) {
  GBX_TRY(storage::check_object_name(name));
  GBX_ASSIGN(Fd file, unnamed_file(spool_));
  return std::unique_ptr<storage::ObjectWriter>(new Writer(*this, name, std::move(file)));
}

Result<PlaneStore::Fetched*> PlaneStore::fetch(const std::string& name) {
  GBX_TRY(storage::check_object_name(name));
  const auto known =
      std::find_if(recent_.begin(), recent_.end(), [&](const auto& f) { return f->name == name; });
  if (known != recent_.end()) {
    std::rotate(known, known + 1, recent_.end());
    return recent_.back().get();
  }
  auto f = std::make_unique<Fetched>();
  f->name = name;
  GBX_ASSIGN(f->file, unnamed_file(spool_));
  const int fd = f->file.get();
  GBX_ASSIGN(f->size, plane_.client().download(
                          "/v1/objects/" + name, [fd](ByteView b) { return write_all(fd, b); },
                          kLargestObject));
  if (recent_.size() >= kOpenObjects) recent_.erase(recent_.begin());
  recent_.push_back(std::move(f));
  return recent_.back().get();
}

Status PlaneStore::get(const std::string& name, std::uint64_t offset, MutableByteView out) {
  GBX_ASSIGN(Fetched * f, fetch(name));
  if (offset > f->size || out.size() > f->size - offset) {
    return fail(Reason::kTruncated, "object " + name);
  }
  return pread_exact(f->file.get(), out, offset);
}
Result<std::uint64_t> PlaneStore::size(const std::string& name) {
  GBX_ASSIGN(Fetched * f, fetch(name));
  return f->size;
}
Status PlaneStore::list(const std::function<Status(const std::string&)>&) {
  return fail(Reason::kUnsupported, "the plane does not list objects");
}
Status PlaneStore::remove(const std::string&) { return ok_status(); }

}  // namespace gbx::cli
