// Requests to every route of the plane, generated from the route table and the schemas.
#include "plane/api/negatives.h"

#include <sqlite3.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "http_world.h"

namespace gbx::plane {
namespace {

// What is asked for is there, who asks may, and everything is right but one thing: so what is
// refused is that thing, by its name, and nothing of the request is stored.
class PlaneNegatives : public PlaneHttp {
 protected:
  struct Place {
    const testing::Person* who = nullptr;
    std::string path;
    Json body = {};
    std::string query = {};    // without which it is not whole
    std::string refused = {};  // what a whole request is answered here, where that is no success
  };

  void populate() {
    testing::next_policy(b.data);
    b.data.policy.clauses.fresh_for_seconds = 1'000'000;
    enrol_all();
    publish();
    beacon_ = {b.owner.chain,
               signed_by_owner(OwnerBeacon{b.owner.id(), b.data.version_id(),
                                           hash_of(b.data.policy), clock.now().seconds()})};
    ASSERT_EQ(send(&b.owner, "POST", "/v1/beacons", canonical(to_json(beacon_))).status, 201);
    ASSERT_EQ(send(&b.owner, "PUT", "/v1/objects/abc", "there", kBinary).status, 201);
    job_ = to_hex(held_job(b.submission()));
    const auto reviews = expect<api::ReviewList>(200, send(&b.reviewer, "GET", "/v1/reviews"));
    ASSERT_EQ(reviews.items.size(), 1U);
    notice_ = reviews.items[0].hold_notice.body;
    other_ = b.submission();
    ASSERT_EQ(send(&b.consumer, "POST", "/v1/jobs", canonical(to_json(other_))).status, 201);
    wait_for(other_.submission.body.job_id(),
             [](const api::JobView& v) { return v.state == "Authorized"; });
    fill();
    // Nothing is under way any more.
    for (const auto end = channel::Deadline::after_ms(clock, 20'000);
         stored().find("\neffect|") != std::string::npos && !end.passed();) {
      ASSERT_EQ(send(nullptr, "GET", "/readyz").status, 200);
    }
  }
  template <class T>
  Signed<T> signed_by_owner(const T& body) {
    return must(sign(b.set.id(), body, b.owner.key));
  }
  void fill() {
    const testing::Person* owner = &b.owner;
    const testing::Person* consumer = &b.consumer;
    const testing::Person* reviewer = &b.reviewer;
    const testing::Person* admin = &*boss;
    const std::string asset = "/v1/assets/" + to_hex(b.data.version_id());
    const std::string self = "/v1/identities/" + to_hex(b.owner.id());
    const std::string job = "/v1/jobs/" + job_;
    const std::int64_t now = clock.now().seconds();
    for (const char* open :
         {"/v1/info", "/v1/broker", "/openapi.json", "/healthz", "/readyz", "/metrics"}) {
      places_[std::string("GET ") + open] = {nullptr, open};
    }
    const std::string nonce = "?nonce=" + std::string(64, 'a');
    places_["GET /v1/broker"].query = nonce;
    places_["GET /metrics"].refused = "unauthenticated";
    for (const char* list : {"/v1/identities", "/v1/assets", "/v1/leases", "/v1/nodes"}) {
      places_[std::string("GET ") + list] = {admin, list};
    }
    places_["GET /v1/leases"].who = consumer;
    places_["GET /v1/jobs"] = {consumer, "/v1/jobs"};
    places_["GET /v1/reviews"] = {reviewer, "/v1/reviews"};
    places_["GET /v1/identities/{id}"] = {owner, self};
    places_["GET /v1/assets/{id}"] = {owner, asset};
    places_["GET /v1/assets/{id}/policies"] = {owner, asset + "/policies"};
    places_["GET /v1/policies/{hash}"] = {owner, "/v1/policies/" + to_hex(hash_of(b.data.policy))};
    places_["GET /v1/ledgers/{asset}"] = {owner, "/v1/ledgers/" + to_hex(b.data.record.asset_id)};
    places_["GET /v1/ledgers/{asset}"].query = nonce;
    for (const char* verb : {"GET", "HEAD", "PUT"}) {
      places_[std::string(verb) + " /v1/objects/{name}"] = {owner, "/v1/objects/abc"};
    }
    for (const char* part : {"", "/detail", "/events", "/result", "/receipt"}) {
      places_[std::string("GET /v1/jobs/{id}") + part] = {consumer, job + part};
    }
    places_["GET /v1/jobs/{id}/result"].refused = "held";
    places_["GET /v1/jobs/{id}/receipt"].refused = "wrong-state";
    places_["GET /v1/reviews/{id}"] = {reviewer, "/v1/reviews/" + job_};
    places_["GET /v1/reviews/{id}/ledger"] = {reviewer, "/v1/reviews/" + job_ + "/ledger"};
    places_["GET /v1/reviews/{id}/ledger"].query = nonce;
    places_["POST /v1/assets/{id}/delist"] = {owner, asset + "/delist"};
    const auto body = [&](const std::string& route, const testing::Person* who,
                          const std::string& path, const auto& record) {
      places_["POST " + route] = {who, path, to_json(record)};
    };
    const api::InviteRequest invite{{Role::kConsumer}, 1, now + 60};
    const auto token = expect<api::InviteView>(
        201, send(admin, "POST", "/v1/invites", canonical(to_json(invite))));
    body("/v1/identities", &stranger_, "/v1/identities",
         api::EnrolRequest{stranger_.chain, "new", {Role::kConsumer}, token.token});
    const Rotation rotation{b.owner.id(), 1, stranger_.key.public_key().text()};
    body("/v1/identities/{id}/rotations", owner, self + "/rotations",
         RotateRequest{b.owner.chain.identity, signed_by_owner(rotation)});
    body("/v1/invites", admin, "/v1/invites", invite);
    body("/v1/nodes", admin, "/v1/nodes",
         api::NodeEnrolRequest{"second", stranger_.key.public_key().text()});
    testing::Asset next = testing::make_asset(testing::copy(b.owner), AssetKind::kDataset,
                                              b.data.policy.clauses, b.random);
    body("/v1/assets", owner, "/v1/assets", testing::make_publish(b.set, next, b.random));
    body("/v1/beacons", owner, "/v1/beacons", beacon_);
    body("/v1/leases", owner, "/v1/leases",
         testing::make_lease(b.set.id(), b.data, b.consumer, 1, b.random));
    body("/v1/jobs/plan", consumer, "/v1/jobs/plan", b.submission());
    body("/v1/jobs", consumer, "/v1/jobs", b.submission());
    const Cancel wish{other_.submission.body.job_id(), b.consumer.id(), now};
    body("/v1/jobs/{id}/cancel", consumer, "/v1/jobs/" + to_hex(wish.job_id) + "/cancel",
         CancelRequest{b.consumer.chain, must(sign(b.set.id(), wish, b.consumer.key))});
    const Ruling ruling{hash_of(notice_),
                        notice_.manifest,
                        notice_.ciphertext,
                        notice_.policy_hashes[0],
                        RulingDecision::kApprove,
                        {},
                        now};
    body("/v1/reviews/{id}", reviewer, "/v1/reviews/" + job_,
         RulingRequest{b.reviewer.chain, must(sign(b.set.id(), ruling, b.reviewer.key))});
  }

  // Every row of the plane's tables, the names of its objects, and the length of the broker's log.
  std::string stored() {
    std::string out;
    sqlite3* db = nullptr;
    EXPECT_EQ(
        sqlite3_open_v2((o.state_dir + "/plane.db").c_str(), &db, SQLITE_OPEN_READWRITE, nullptr),
        SQLITE_OK);
    const auto row = [](void* to, int n, char** cells, char**) {
      for (int i = 0; i < n; ++i) {
        *static_cast<std::string*>(to) += std::string(cells[i] ? cells[i] : "-") + "|";
      }
      *static_cast<std::string*>(to) += "\n";
      return 0;
    };
    // But not what the plane writes of itself as time goes by, and how often a count was written
    // that is as it was.
    for (const char* rows :
         {"SELECT 'machine', * FROM machines ORDER BY id",
          "SELECT 'transition', * FROM transitions ORDER BY machine, seq",
          "SELECT 'effect', * FROM outbox ORDER BY machine, seq, kind",
          "SELECT kind, id, owner, name, ordinal, body FROM records WHERE kind NOT IN ('patience', "
          "'log-head') ORDER BY kind, id"}) {
      EXPECT_EQ(sqlite3_exec(db, rows, row, &out, nullptr), SQLITE_OK) << rows;
    }
    sqlite3_close(db);
    std::vector<std::string> objects;
    for (const auto& e : std::filesystem::recursive_directory_iterator(o.objects_dir)) {
      if (e.is_regular_file()) objects.push_back(e.path().string());
    }
    std::sort(objects.begin(), objects.end());
    for (const auto& name : objects) out += name + "\n";
    const std::lock_guard lock(broker.mutex);
    return out + std::to_string(b.core->log_size());
  }

  void refused(const Answer& a, const std::string& what, const std::string& member,
               bool head = false) {
    ++tried_;
    EXPECT_TRUE(a.status == 400 || a.status == 422)
        << what << ": " << a.status << " " << a.text.substr(0, 300);
    if (head) return;
    EXPECT_NE(a.reason(), "") << what << " " << a.text.substr(0, 300);
    EXPECT_NE(a.text.find(member), std::string::npos)
        << what << " does not name " << member << ": " << a.text.substr(0, 300);
  }
  void bodies_of(const api::RouteInfo& route, const Place& at) {
    const Json& schema = PlaneApi::schemas().all().find(std::string(route.request_schema))->second;
    for (const auto& n : api::negatives_of(schema, at.body)) {
      const std::string text = canonical(n.document);
      if (text.size() > (route.max_body != 0 ? route.max_body : std::uint64_t{4} << 20)) continue;
      std::string member = n.name.substr(n.name.find("body") + 4);
      member = member.substr(std::min(member.size(), member.rfind('.') + 1));
      if (n.name.find("unknown member") == 0) member = "unknownMember";
      member = member.substr(0, member.find('['));
      refused(send(at.who, "POST", at.path, text), std::string(route.path) + ": " + n.name, member);
    }
    const std::string whole = canonical(at.body);
    for (const std::string& text :
         {std::string("{"), whole + "x", "[" + whole + "]", std::string("\xff\xfe"),
          std::string("{\"a\":1,\"a\":1}"), std::string("1.5")}) {
      refused(send(at.who, "POST", at.path, text), at.path + " " + text.substr(0, 20), "reason");
    }
    EXPECT_EQ(send(at.who, "POST", at.path, std::string(10'000, '[')).status, 413) << at.path;
  }
  void queries_of(const api::RouteInfo& route, const Place& at) {
    const std::string method(route.method);
    const bool head = method == "HEAD";
    std::string body = route.body == api::BodyKind::kJson ? canonical(at.body) : "";
    const std::string type = route.body == api::BodyKind::kStream ? kBinary : "application/json";
    if (route.body == api::BodyKind::kStream) body = "there";
    const auto ask = [&](const std::string& query, const std::string& member) {
      refused(send(at.who, method, at.path + "?" + query, body, type),
              method + " " + at.path + "?" + query.substr(0, 60), member, head);
    };
    ask("unknownParameter=1", "unknownParameter");
    ask("unknownParameter", "reason");
    ask("a=%zz", "reason");
    for (const auto& q : route.query) {
      const std::string name(q.name);
      std::vector<std::string> bad;
      if (q.kind == api::ParameterKind::kInteger) {
        bad = {"", "-1", "01", "x", "1.0", "%D9%A3", std::string(19, '9')};
        if (q.max < 999'999'999'999'999) bad.push_back(std::to_string(q.max + 1));
      } else {
        bad = {std::string(static_cast<std::size_t>(q.max) + 1, 'a')};
      }
      if (q.kind == api::ParameterKind::kHex) {
        for (const char* v : {"zz", "AB", "abc", "%00"}) bad.push_back(v);
      }
      for (const auto& v : bad) ask(name + "=" + v, v == "%00" ? "reason" : name);
      ask(name + "=1&" + name + "=1", "reason");
    }
    for (const auto& p : route.headers) {
      const std::string name(p.name);
      for (const auto& v : {std::string(), std::string(static_cast<std::size_t>(p.max) + 1, 'k')}) {
        refused(send(at.who, method, at.path, body, type, name + ": " + v + "\r\n"),
                at.path + " with " + name, name, head);
      }
    }
  }
  void paths_of(const api::RouteInfo& route, const Place& at) {
    const std::size_t open = route.path.find('{');
    if (open == std::string_view::npos) return;
    const std::string rest(route.path.substr(route.path.find('}') + 1));
    const std::string method(route.method);
    const std::string type = route.body == api::BodyKind::kStream ? kBinary : "application/json";
    const std::string body = route.body == api::BodyKind::kJson     ? canonical(at.body)
                             : route.body == api::BodyKind::kStream ? "x"
                                                                    : "";
    for (const std::string& bad : {std::string("~"), std::string("%00"), std::string("%2e%2e"),
                                   std::string("a%2fb"), std::string(63, 'a') + "G",
                                   std::string(300, 'a'), std::string("%ff"), std::string(".a")}) {
      const std::string target = std::string(route.path.substr(0, open)) + bad + rest;
      const Answer a = send(at.who, method, target, body, type);
      ++tried_;
      EXPECT_TRUE(a.status == 400 || a.status == 404 || a.status == 422)
          << method << " " << target << ": " << a.status << " " << a.text.substr(0, 200);
      if (method != "HEAD") {
        EXPECT_NE(a.reason(), "") << method << " " << target;
      }
    }
  }

  // The same, whole: it was nothing else that was refused.
  void whole(const std::string& name, const Place& at) {
    const std::string method = name.substr(0, name.find(' '));
    const bool stream = method == "PUT";
    const std::string body = stream ? "there" : at.body.is_null() ? "" : canonical(at.body);
    const Answer a =
        send(at.who, method, at.path + at.query, body, stream ? kBinary : "application/json");
    EXPECT_EQ(a.reason(), at.refused) << name << " " << a.text.substr(0, 300);
    EXPECT_EQ(a.status / 100, at.refused.empty() ? 2 : 4) << name;
  }

  static constexpr const char* kBinary = "application/octet-stream";
  testing::Person stranger_ = testing::make_person(b.random);
  BeaconRequest beacon_;
  SignedSubmission other_;
  HoldNotice notice_;
  std::string job_;
  std::map<std::string, Place> places_;
  std::size_t tried_ = 0;
};

TEST_F(PlaneNegatives, OfEveryRouteAreRefusedByNameAndStoreNothing) {
  populate();
  const std::string before = stored();
  for (const auto& route : PlaneApi::routes()) {
    const std::string name = std::string(route.info.method) + " " + std::string(route.info.path);
    ASSERT_TRUE(places_.contains(name)) << name << " has no place here";
    const Place& at = places_[name];
    if (route.info.body == api::BodyKind::kJson) bodies_of(route.info, at);
    if (!route.info.bearer) queries_of(route.info, at);
    paths_of(route.info, at);
    const std::string now = stored();
    if (now != before) {
      const auto other = std::mismatch(before.begin(), before.end(), now.begin(), now.end()).second;
      const auto place = static_cast<std::size_t>(other - now.begin());
      ADD_FAILURE() << name << " stored something: ..."
                    << now.substr(place - std::min<std::size_t>(place, 100), 300);
      break;
    }
  }
  EXPECT_EQ(places_.size(), PlaneApi::routes().size());
  // What is not offered any more is in no job, and after a rotation its owner has another key.
  const std::vector<std::string_view> last = {"/v1/assets/{id}/delist",
                                              "/v1/identities/{id}/rotations"};
  for (const auto& [name, at] : places_) {
    if (std::none_of(last.begin(), last.end(), [&](auto p) { return name.ends_with(p); })) {
      whole(name, at);
    }
  }
  for (const auto& path : last) {
    const std::string name = "POST " + std::string(path);
    whole(name, places_[name]);
  }
  EXPECT_GT(tried_, 1'000U);
  RecordProperty("tried", static_cast<int>(tried_));
}

TEST_F(PlaneNegatives, StreamsThatAreNotWhatTheySayStoreNothing) {
  populate();
  const std::string before = stored();
  const std::string target = "/v1/objects/fresh";
  const auto with = [&](const std::string& body, const std::string& signed_body,
                        const std::string& headers) {
    std::string r = "PUT " + target + " HTTP/1.1\r\nhost: localhost\r\n" + headers;
    const auto proof = must(
        httpsig::sign_request({b.set.id(), "PUT", target}, crypto::sha256(as_bytes(signed_body)),
                              b.owner.id(), b.owner.key, clock.now().seconds(), random));
    for (const auto& [k, v] : proof) r += k + ": " + v + "\r\n";
    return raw(r + "\r\n" + body);
  };
  const std::string binary = std::string("content-type: ") + kBinary + "\r\n";
  const auto length = [](std::uint64_t n) {
    return "content-length: " + std::to_string(n) + "\r\n";
  };
  EXPECT_EQ(with("other", "there", binary + length(5)).reason(), "bad-hash");
  EXPECT_EQ(with("", "x", binary).status, 411);
  EXPECT_EQ(with("", "x", binary + length((std::uint64_t{128} << 20) + 1)).status, 413);
  EXPECT_EQ(with("x", "x", "content-type: text/plain\r\n" + length(1)).status, 415);
  EXPECT_EQ(with("x", "x", length(1)).status, 415);
  for (const char* odd : {"-1", "1, 2", "0x1", "99999999999999999999999"}) {
    EXPECT_EQ(with("x", "x", binary + "content-length: " + odd + "\r\n").status, 400) << odd;
  }
  EXPECT_EQ(send(&b.owner, "PUT", "/v1/objects/abc", "other", kBinary).status / 100, 4);
  EXPECT_EQ(stored(), before);
}

}  // namespace
}  // namespace gbx::plane
