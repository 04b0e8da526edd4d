// The plane's program from outside: what it serves, to whom, and what it refuses.
#include <sys/stat.h>

#include <thread>

#include "http_world.h"
#include "plane/api/negatives.h"

namespace gbx::plane {
namespace {

TEST_F(PlaneHttp, PublicPartsAnswerUnsigned) {
  const auto info = expect<api::InfoView>(200, send(nullptr, "GET", "/v1/info"));
  EXPECT_EQ(info.set_id, b.set.id());
  EXPECT_EQ(info.ca, *ready.find("ca")->string());
  const Nonce32 nonce = random.fixed<32>();
  const auto evidence =
      expect<InfoReply>(200, send(nullptr, "GET", "/v1/broker?nonce=" + to_hex(nonce)));
  EXPECT_EQ(evidence.evidence.body.nonce, nonce);
  EXPECT_EQ(send(nullptr, "GET", "/v1/broker?nonce=00").reason(), "bad-value");
  EXPECT_EQ(send(nullptr, "GET", "/healthz").status, 200);
  EXPECT_EQ(send(nullptr, "GET", "/readyz").status, 200);
  const Answer served = send(nullptr, "GET", "/openapi.json");
  EXPECT_EQ(served.status, 200);
  EXPECT_EQ(canonical(served.body), canonical(must(PlaneApi::openapi("0.1.0"))));
}

// Counts of states tell when a run ends, before the owners' slot does: whoever has the token sees
// them, and nobody else.
TEST_F(PlaneHttp, MetricsAreForWhoeverHasTheToken) {
  enrol_all();
  const std::string file = o.state_dir + "/metrics-token";
  const std::string token = must(read_text_file(file, 256));
  struct stat info {};
  ASSERT_EQ(stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  for (const std::string& header : std::vector<std::string>{"", "Bearer " + token.substr(1),
                                                            "Bearer ", "Basic " + token, token}) {
    const Answer refused = header.empty() ? send(nullptr, "GET", "/metrics") : metrics(header);
    EXPECT_EQ(refused.status, 401) << header;
    EXPECT_EQ(refused.reason(), "unauthenticated") << header;
    EXPECT_EQ(refused.text.find("glovebox_plane"), std::string::npos) << header;
  }
  EXPECT_EQ(send(&*boss, "GET", "/metrics").status, 401);
  const Answer seen = metrics("Bearer " + token);
  EXPECT_EQ(seen.status, 200);
  EXPECT_NE(seen.text.find("glovebox_plane_jobs{state=\"Submitted\"} 0"), std::string::npos)
      << seen.text.substr(0, 400);
  start();
  EXPECT_EQ(metrics("Bearer " + token).status, 200);
  const Json* scheme = document.find("components")->find("securitySchemes")->find("bearerToken");
  ASSERT_NE(scheme, nullptr);
  EXPECT_EQ(*scheme->find("scheme"), Json("bearer"));
  EXPECT_NE(documented("get", "/metrics")->find("security")->array()->front().find("bearerToken"),
            nullptr);
}

// With these one is the plane: for people who pinned its authority, for nodes and for the broker.
TEST_F(PlaneHttp, KeysOfThePlaneAreItsOwnersAlone) {
  struct stat info {};
  ASSERT_EQ(stat(o.state_dir.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700U);
  for (const char* name : {"node.key", "ca.key"}) {
    ASSERT_EQ(stat((o.state_dir + "/" + name).c_str(), &info), 0) << name;
    EXPECT_EQ(info.st_mode & 0777, 0600U) << name;
    EXPECT_EQ(info.st_size, 32) << name;
  }
  // Whoever could read one has it already: nothing is served with it.
  server.reset();
  for (const char* name : {"node.key", "ca.key", "https.key"}) {
    const std::string path = o.state_dir + "/" + name;
    ASSERT_EQ(chmod(path.c_str(), 0640), 0) << name;
    const auto refused = PlaneServer::start(o, clock, random, log);
    ASSERT_FALSE(refused.ok()) << name;
    EXPECT_EQ(refused.reason(), Reason::kIo) << name;
    EXPECT_EQ(refused.error().next, "chmod 600 " + path);
    ASSERT_EQ(chmod(path.c_str(), 0600), 0) << name;
  }
  start();
}

// When a node is at work, and when it was last heard of, tells of runs whose end is not told yet.
TEST_F(PlaneHttp, OnlyOperatorsAndAuditorsSeeWhatNodesDo) {
  enrol_all();
  const testing::Person auditor = testing::make_person(b.random);
  ASSERT_EQ(enrol(auditor, {Role::kAuditor}, "auditor").status, 201);
  publish();
  const auto node = connect_node();
  must(node->call(method::kNodeRegister, node_info()));
  expect<api::JobView>(201,
                       send(&b.consumer, "POST", "/v1/jobs", canonical(to_json(b.submission()))));
  must(node->call(method::kNodePoll, PollRequest{"local", 20'000}));
  for (const testing::Person* who : {&b.owner, &b.consumer, &b.reviewer}) {
    const Answer a = send(who, "GET", "/v1/nodes");
    const auto seen = expect<api::NodeList>(200, a).items.at(0);
    EXPECT_EQ(seen.key, b.node.public_key().text());
    EXPECT_TRUE(seen.info);
    for (const char* member : {"running", "lastSeenMs", "alive"}) {
      EXPECT_EQ(a.body.find("items")->array()->front().find(member), nullptr) << member;
    }
  }
  for (const testing::Person* who :
       std::initializer_list<const testing::Person*>{&*boss, &auditor}) {
    const auto seen = expect<api::NodeList>(200, send(who, "GET", "/v1/nodes")).items.at(0);
    EXPECT_EQ(seen.running, 1);
    EXPECT_EQ(seen.alive, true);
    EXPECT_GT(seen.last_seen_ms.value_or(0), 0);
  }
}

// The broker's log grows with a seal, and no stranger shall watch it.
TEST_F(PlaneHttp, StrangersSeeNoTreeHead) {
  enrol_all();
  const auto ask = [&] {
    const auto info = expect<InfoReply>(
        200, send(nullptr, "GET", "/v1/broker?nonce=" + to_hex(random.fixed<32>())));
    return std::pair(info.evidence.body.tree_size, info.evidence.body.tree_root);
  };
  const auto before = ask();
  publish();
  const testing::Person after = testing::make_person(b.random);
  const Rotation rotation{b.reviewer.id(), 1, after.key.public_key().text()};
  EXPECT_EQ(send(&b.reviewer, "POST", "/v1/identities/" + to_hex(b.reviewer.id()) + "/rotations",
                 canonical(to_json(RotateRequest{
                     b.reviewer.chain.identity, must(sign(b.set.id(), rotation, b.reviewer.key))})))
                .status,
            200);
  EXPECT_EQ(ask(), before);
  EXPECT_EQ(before.first, 0);
}

TEST_F(PlaneHttp, AJobOverTheWire) {
  enrol_all();
  publish();
  const Bytes object(100'000, 7);
  const std::string bytes(as_text(object));
  EXPECT_EQ(send(&b.owner, "PUT", "/v1/objects/abc", bytes, "application/octet-stream").status,
            201);
  EXPECT_EQ(send(&b.owner, "PUT", "/v1/objects/abc", bytes, "application/octet-stream").status,
            201);
  EXPECT_EQ(
      send(&b.owner, "PUT", "/v1/objects/abc", bytes + "x", "application/octet-stream").reason(),
      "conflict");
  EXPECT_EQ(send(&b.owner, "PUT", "/v1/objects/..", "x", "application/octet-stream").status / 100,
            4);
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/objects/abc").text, bytes);
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/objects/none").reason(), "not-found");
  EXPECT_EQ(
      expect<api::AssetList>(200, send(&b.consumer, "GET", "/v1/assets?kind=dataset")).items.size(),
      1U);

  const SignedSubmission s = b.submission();
  const std::string body = canonical(to_json(s));
  EXPECT_TRUE(expect<Explanation>(200, send(&b.consumer, "POST", "/v1/jobs/plan", body)).allowed);
  auto job = expect<api::JobView>(201, send(&b.consumer, "POST", "/v1/jobs", body,
                                            "application/json", "idempotency-key: one\r\n"));
  const std::string path = "/v1/jobs/" + to_hex(job.job_id);

  const auto node = connect_node();
  EXPECT_EQ(node->call(method::kNodePoll, PollRequest{"local", 0}).reason(), Reason::kWrongState);
  must(node->call(method::kNodeRegister, node_info()));
  const OutputUpload upload = run_next(*node, testing::clean_verdict());
  job = wait_for(job.job_id, [](const api::JobView& v) { return v.ended; });
  EXPECT_EQ(job.state, "Completed");
  const auto result = expect<api::JobResult>(200, send(&b.consumer, "GET", path + "/result"));
  EXPECT_EQ(result.output.ciphertext, upload.output.ciphertext);
  EXPECT_TRUE(expect<Receipt>(200, send(&b.consumer, "GET", path + "/receipt")).destroyed);
  EXPECT_FALSE(
      expect<api::JobEvents>(200, send(&b.consumer, "GET", path + "/events")).events.empty());
  EXPECT_EQ(expect<api::JobDetail>(200, send(&b.consumer, "GET", path + "/detail"))
                .submission.submission.hash(),
            s.submission.hash());
  EXPECT_EQ(
      expect<api::JobList>(200, send(&b.consumer, "GET", "/v1/jobs?state=Completed")).items.size(),
      1U);
  EXPECT_EQ(expect<api::NodeList>(200, send(&*boss, "GET", "/v1/nodes")).items.at(0).alive, true);

  // The same after the program was started again, on the same files and with the same authority.
  const std::string ca = *ready.find("ca")->string();
  start();
  EXPECT_EQ(*ready.find("ca")->string(), ca);
  EXPECT_EQ(expect<api::JobView>(200, send(&b.consumer, "GET", path)).state, "Completed");
  expect<api::JobResult>(200, send(&b.consumer, "GET", path + "/result"));
}

TEST_F(PlaneHttp, NobodyHasMoreThanTwoUploadsAtOneTime) {
  enrol_all();
  const std::string type = "application/octet-stream";
  const std::string bytes(100'000, 'x');
  struct Slow {
    std::unique_ptr<http::RawClient> client;
    std::size_t left = 0;
  };
  std::vector<Slow> slow;
  for (const char* name : {"one", "two", "three", "four", "five"}) {
    const std::string whole =
        request_text(&b.owner, "PUT", "/v1/objects/" + std::string(name), bytes, type, {});
    slow.push_back({http::RawClient::connect(port("https")), 5'000});
    ASSERT_TRUE(slow.back().client->send(whole.substr(0, whole.size() - slow.back().left)));
  }
  // Three are refused, whichever came last; two go on byte by byte.
  const auto refused = [](Slow& s) {
    if (!s.client->send("x")) return true;
    --s.left;
    const auto a = s.client->read(50);
    return a && a->status == 429 && a->body.find("rate-limited") != std::string::npos;
  };
  for (const auto end = channel::Deadline::after_ms(clock, 20'000);
       slow.size() > 2 && !end.passed();) {
    std::erase_if(slow, refused);
  }
  ASSERT_EQ(slow.size(), 2U);
  EXPECT_EQ(send(&b.owner, "PUT", "/v1/objects/six", bytes, type).reason(), "rate-limited");
  EXPECT_EQ(send(&b.consumer, "PUT", "/v1/objects/seven", bytes, type).status, 201);
  for (const Slow& s : slow) {
    ASSERT_TRUE(s.client->send(bytes.substr(0, s.left)));
    EXPECT_EQ(s.client->read()->status, 201);
  }
  EXPECT_EQ(send(&b.owner, "PUT", "/v1/objects/six", bytes, type).status, 201);
}

TEST_F(PlaneHttp, AListCostsByWhatItAsksFor) {
  enrol_all();
  o.shares = {.burst = 30, .per_second = 1};
  start();
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/jobs?limit=1000").status, 200);  // 21 tokens
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/jobs?limit=1000").reason(), "rate-limited");
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/jobs?limit=1").status, 200);
}

TEST_F(PlaneHttp, AFloodByOneIdentityLeavesOthersTheirShare) {
  enrol_all();
  o.shares = {.burst = 20, .per_second = 1};
  start();
  int let_in = 0;
  Answer last;
  for (int i = 0; i < 200 && last.status != 429; ++i) {
    last = send(&b.owner, "GET", "/v1/assets");
    let_in += last.status == 200 ? 1 : 0;
  }
  EXPECT_GE(let_in, 20);
  EXPECT_EQ(last.reason(), "rate-limited");
  EXPECT_NE(last.head.find("retry-after: 1\r\n"), std::string::npos) << last.head;
  EXPECT_NE(last.text.find("wait 1 s"), std::string::npos) << last.text;
  // A change costs four: what a second or two give back does not reach.
  EXPECT_EQ(send(&b.owner, "POST", "/v1/leases", "{}").reason(), "rate-limited");
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/assets").status, 200);
  EXPECT_EQ(send(&b.consumer, "POST", "/v1/leases", "{}").status, 422);
}

TEST_F(PlaneHttp, WhoeverIsNotEnrolledFloodsStrangersAlone) {
  enrol_all();
  o.shares = {.burst = 20, .per_second = 1};
  start();
  const auto ask = [&] {
    const testing::Person stranger = testing::make_person(b.random);
    return enrol_with("no such token", stranger, {Role::kOwner}, "x");
  };
  Answer last = ask();
  for (int i = 0; i < 50 && last.status != 429; ++i) last = ask();
  EXPECT_EQ(last.reason(), "rate-limited");
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/assets").status, 200);
}

TEST_F(PlaneHttp, OneIdentityThatWaitsLeavesOthersPlacesToWait) {
  enrol_all();
  publish();
  const testing::Person second = testing::make_person(b.random);
  ASSERT_EQ(enrol(second, {Role::kAuditor}, "second").status, 201);
  const auto job = expect<api::JobView>(
      201, send(&b.consumer, "POST", "/v1/jobs", canonical(to_json(b.submission()))));
  const auto settled =
      wait_for(job.job_id, [](const api::JobView& v) { return v.state == "Authorized"; });
  const std::string wait = "/v1/jobs/" + to_hex(job.job_id) +
                           "?after=" + std::to_string(settled.version) + "&waitMs=6000";
  std::vector<std::unique_ptr<http::RawClient>> waiting;
  const auto begin = [&](const testing::Person& who) {
    waiting.push_back(http::RawClient::connect(port("https")));
    EXPECT_TRUE(waiting.back()->send(request_text(&who, "GET", wait, {}, {}, {})));
  };
  // Eight of one identity: whoever is beyond the fourth is answered at once.
  for (int i = 0; i < 8; ++i) begin(b.consumer);
  int at_once = 0;
  std::set<std::size_t> answered_now;
  for (const auto end = channel::Deadline::after_ms(clock, 20'000); at_once < 4 && !end.passed();) {
    for (std::size_t i = 0; i < waiting.size(); ++i) {
      if (answered_now.contains(i)) continue;
      const auto a = waiting[i]->read(50);
      if (!a) continue;
      EXPECT_EQ(a->status, 200);
      answered_now.insert(i);
      ++at_once;
    }
  }
  EXPECT_EQ(at_once, 4);
  // Another identity still has a place: it hears of a change, and not before.
  begin(second);
  EXPECT_FALSE(waiting.back()->read(300));
  const CancelRequest cancel{
      b.consumer.chain,
      must(sign(b.set.id(), Cancel{job.job_id, b.consumer.id(), clock.now().seconds()},
                b.consumer.key))};
  client.reset();  // the consumer's four that wait leave four calls at one time
  ASSERT_EQ(send(&b.consumer, "POST", "/v1/jobs/" + to_hex(job.job_id) + "/cancel",
                 canonical(to_json(cancel)))
                .status,
            200);
  const auto heard = waiting.back()->read(5'000);
  ASSERT_TRUE(heard);
  EXPECT_GT(must(from_json_text<api::JobView>(heard->body)).version, settled.version);
}

TEST_F(PlaneHttp, AFloodByANodeIsRefusedAndEndsNothing) {
  enrol_all();
  publish();
  const auto key =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, b.random));
  const api::NodeEnrolRequest enrolled{"second", key.public_key().text()};
  ASSERT_EQ(send(&*boss, "POST", "/v1/nodes", canonical(to_json(enrolled))).status, 201);
  const auto flood = connect_node(key);
  NodeInfo info = node_info();
  info.name = enrolled.name;
  info.key = enrolled.key;
  must(flood->call(method::kNodeRegister, info));
  std::optional<Reason> last;
  for (int i = 0; i < 20'000 && !last; ++i) {
    const auto r = flood->call(method::kNodeHeartbeat, Heartbeat{"second", {}});
    if (!r.ok()) last = r.reason();
  }
  EXPECT_EQ(last, Reason::kRateLimited);
  // While it goes on, another node gets a job and finishes it.
  std::atomic<int> refused{0};
  std::jthread on([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      refused += flood->call(method::kNodeHeartbeat, Heartbeat{"second", {}}).ok() ? 0 : 1;
    }
  });
  const auto node = connect_node();
  must(node->call(method::kNodeRegister, node_info()));
  const auto job = expect<api::JobView>(
      201, send(&b.consumer, "POST", "/v1/jobs", canonical(to_json(b.submission()))));
  const int before = refused;
  run_next(*node, testing::clean_verdict());
  EXPECT_EQ(wait_for(job.job_id, [](const api::JobView& v) { return v.ended; }).state, "Completed");
  EXPECT_GT(refused, before);  // it had not ended
  on.request_stop();
  on.join();
  EXPECT_EQ(send(nullptr, "GET", "/readyz").status, 200);
}

TEST_F(PlaneHttp, AJobWaitsForABrokerThatIsAway) {
  enrol_all();
  publish();
  const std::uint16_t old = broker.port();
  broker.stop();
  auto job = expect<api::JobView>(
      201, send(&b.consumer, "POST", "/v1/jobs", canonical(to_json(b.submission()))));
  EXPECT_EQ(send(&b.consumer, "POST", "/v1/jobs/plan", canonical(to_json(b.submission()))).reason(),
            "unavailable");
  EXPECT_EQ(send(nullptr, "GET", "/readyz").status, 503);
  broker.start(old);
  const std::string path = "/v1/jobs/" + to_hex(job.job_id);
  for (int i = 0; i < 20 && job.state == "Submitted"; ++i) {
    job = expect<api::JobView>(
        200,
        send(&b.consumer, "GET", path + "?after=" + std::to_string(job.version) + "&waitMs=5000"));
  }
  EXPECT_EQ(job.state, "Authorized");
}

// Nobody has used the broker, and it shows all the same whether it is there.
TEST_F(PlaneHttp, ReadinessIsOfNow) {
  o.probe_ms = 20;
  start();
  EXPECT_EQ(send(nullptr, "GET", "/readyz").status, 200) << "right after the start";
  EXPECT_TRUE(expect<api::InfoView>(200, send(nullptr, "GET", "/v1/info")).broker_connected);
  const auto becomes = [&](int status) {
    const channel::Deadline end = channel::Deadline::after_ms(clock, 20'000);
    while (!end.passed()) {
      if (send(nullptr, "GET", "/readyz").status == status) return true;
    }
    return false;
  };
  const std::uint16_t old = broker.port();
  broker.stop();
  EXPECT_TRUE(becomes(503));
  broker.start(old);
  EXPECT_TRUE(becomes(200));
}

// Every answer is followed by the head of the log, and each connection begins with the newest. A
// broker that calls its log older is told of in words without sizes, and nobody's job is denied.
TEST_F(PlaneHttp, ABrokerWhoseLogWasRolledBackIsToldOf) {
  enrol_all();
  publish();
  o.probe_ms = 20;
  std::optional<Signed<LogHead>> shown;
  bool old = true;
  const auto refuse = [&](std::string_view method, const Json& body) {
    std::optional<Result<Json>> answer;
    if (method != method::kResume) return answer;
    shown = must(from_json<ResumeRequest>(body)).head;
    if (old) answer = fail(Reason::kLogRolledBack, "the log is older").with("99 entries", "7");
    return answer;
  };
  const auto size = static_cast<std::int64_t>(b.core->log_size());
  {
    const std::lock_guard lock(broker.mutex);
    broker.instead = refuse;
  }
  start();
  EXPECT_EQ(*ready.find("brokerTrouble")->string(), "log-rolled-back: the log is older");
  const Answer down = send(nullptr, "GET", "/readyz");
  EXPECT_EQ(down.status, 503);
  EXPECT_EQ(*down.body.find("trouble")->string(), "log-rolled-back: the log is older");
  const auto info = expect<api::InfoView>(200, send(nullptr, "GET", "/v1/info"));
  EXPECT_FALSE(info.broker_connected);
  EXPECT_NE(info.broker_trouble.find("log-rolled-back"), std::string::npos);
  const Answer plan =
      send(&b.consumer, "POST", "/v1/jobs/plan", canonical(to_json(b.submission())));
  EXPECT_EQ(plan.reason(), "unavailable");
  for (const Answer& a : {down, plan}) EXPECT_EQ(a.text.find("99"), std::string::npos) << a.text;
  auto job = expect<api::JobView>(
      201, send(&b.consumer, "POST", "/v1/jobs", canonical(to_json(b.submission()))));
  EXPECT_EQ(job.state, "Submitted");
  {
    const std::lock_guard lock(broker.mutex);
    ASSERT_TRUE(shown.has_value());
    EXPECT_EQ(shown->body.tree_size, size);  // of the last publication
    old = false;
  }
  const std::string path = "/v1/jobs/" + to_hex(job.job_id);
  for (int i = 0; i < 20 && job.state == "Submitted"; ++i) {
    job = expect<api::JobView>(
        200,
        send(&b.consumer, "GET", path + "?after=" + std::to_string(job.version) + "&waitMs=5000"));
  }
  EXPECT_EQ(job.state, "Authorized");
  EXPECT_EQ(*send(nullptr, "GET", "/readyz").body.find("trouble")->string(), "");
}

// A ledger is its owner's, and each consumer's own part is that consumer's.
TEST_F(PlaneHttp, ALedgerIsShownToWhomItIsAbout) {
  enrol_all();
  publish();
  {
    const std::lock_guard lock(broker.mutex);
    must(b.judge(b.run_until_sealed(b.submission()).job_id()));
  }
  const std::string path = "/v1/ledgers/" + to_hex(b.data.record.asset_id);
  const std::string nonce = std::string(64, 'a');
  const std::string own = path + "?nonce=" + nonce + "&consumer=" + to_hex(b.consumer.id());
  using Statement = Signed<LedgerStatement>;
  const auto all = expect<Statement>(200, send(&b.owner, "GET", path + "?nonce=" + nonce));
  EXPECT_TRUE(all.verify(b.set.id(), b.set.signing.public_key()).ok());
  EXPECT_EQ(to_hex(all.body.nonce), nonce);
  EXPECT_EQ(all.body.count, 1);
  EXPECT_EQ(expect<Statement>(200, send(&b.consumer, "GET", own)).body.count, 1);
  EXPECT_EQ(expect<Statement>(200, send(&b.owner, "GET", own + "&after=1")).body.entries.size(),
            0u);
  EXPECT_EQ(send(&b.consumer, "GET", path + "?nonce=" + nonce).reason(), "wrong-owner");
  EXPECT_EQ(send(&b.consumer, "GET", path + "?nonce=" + nonce + "&consumer=" + nonce).reason(),
            "wrong-owner");
  EXPECT_EQ(send(&b.reviewer, "GET", own).reason(), "wrong-role");
  EXPECT_EQ(send(nullptr, "GET", own).status, 401);
  EXPECT_EQ(send(&b.owner, "GET", path).reason(), "bad-value");
  EXPECT_EQ(send(&b.owner, "GET", "/v1/ledgers/zz?nonce=" + nonce).reason(), "not-found");
  EXPECT_EQ(
      send(&b.owner, "GET", "/v1/ledgers/" + std::string(32, '0') + "?nonce=" + nonce).reason(),
      "not-found");
  for (const char* bad : {"?nonce=12", "?nonce=zz", "?after=-1", "?nonce=&after=x"}) {
    const Answer a = send(&b.owner, "GET", path + bad);
    EXPECT_EQ(a.status, 422) << bad << a.text;
  }
}

// What a release would spend is told to who must rule; others hear that there is no such output.
TEST_F(PlaneHttp, TheBudgetsOfAHeldOutputAreItsReviewers) {
  enrol_all();
  const testing::Person colleague = testing::make_person(random);
  ASSERT_EQ(enrol(colleague, {Role::kReviewer}, "colleague").status, 201);
  publish();
  const Hash32 held = held_job(b.submission());
  const std::string nonce = std::string(64, 'a');
  const auto path = [&](const std::string& job) {
    return "/v1/reviews/" + job + "/ledger?nonce=" + nonce;
  };
  // What was sealed is not read for it: only whoever looks at the output misses it.
  must(remove_tree(o.state_dir + "/results"));
  EXPECT_NE(send(&b.reviewer, "GET", "/v1/reviews/" + to_hex(held)).status, 200);
  using Statement = Signed<HeldLedgerStatement>;
  const auto all = expect<Statement>(200, send(&b.reviewer, "GET", path(to_hex(held))));
  EXPECT_TRUE(all.verify(b.set.id(), b.set.signing.public_key()).ok());
  EXPECT_EQ(to_hex(all.body.nonce), nonce);
  EXPECT_EQ(all.body.reviewer, b.reviewer.id());
  const Answer none = send(&b.reviewer, "GET", path(std::string(64, '0')));
  EXPECT_EQ(none.reason(), "not-found");
  const Answer others = send(&colleague, "GET", path(to_hex(held)));
  EXPECT_EQ(others.status, none.status);
  EXPECT_EQ(others.reason(), none.reason());
  EXPECT_EQ(send(&b.consumer, "GET", path(to_hex(held))).reason(), "wrong-role");
  EXPECT_EQ(send(nullptr, "GET", path(to_hex(held))).status, 401);
  const std::string bare = "/v1/reviews/" + to_hex(held) + "/ledger";
  EXPECT_EQ(send(&b.reviewer, "GET", bare).reason(), "bad-value");
  EXPECT_EQ(send(&b.reviewer, "GET", bare + "?nonce=12").status, 422);
}

TEST_F(PlaneHttp, ABeaconIsItsOwnersAndIsTakenOnce) {
  testing::next_policy(b.data);
  b.data.policy.clauses.fresh_for_seconds = 600;
  enrol_all();
  publish();
  const auto request = [&](const testing::Person& by, std::int64_t later) {
    const OwnerBeacon body{by.id(), b.data.version_id(), hash_of(b.data.policy),
                           clock.now().seconds() + later};
    return canonical(to_json(BeaconRequest{by.chain, must(sign(b.set.id(), body, by.key))}));
  };
  const std::string path = "/v1/beacons";
  const std::string first = request(b.owner, 0);
  const auto ack = expect<Signed<BeaconAck>>(201, send(&b.owner, "POST", path, first));
  EXPECT_EQ(ack.body.policy_hash, hash_of(b.data.policy));
  const auto again = expect<Signed<BeaconAck>>(201, send(&b.owner, "POST", path, first));
  EXPECT_EQ(canonical(to_json(again)), canonical(to_json(ack)));
  const auto view = expect<api::AssetView>(
      200, send(&b.owner, "GET", "/v1/assets/" + to_hex(b.data.version_id())));
  ASSERT_TRUE(view.beacon.has_value());
  EXPECT_EQ(canonical(to_json(view.beacon->request)), first);
  EXPECT_EQ(send(&b.consumer, "POST", path, first).reason(), "wrong-role");
  const std::string foreign = request(b.reviewer, 1);
  EXPECT_EQ(send(&b.owner, "POST", path, foreign).reason(), "wrong-owner");
  EXPECT_EQ(send(&b.owner, "POST", path, request(b.owner, 500)).reason(), "bad-value");
  EXPECT_EQ(send(&b.owner, "POST", path, request(b.owner, -5)).reason(), "replayed");
  EXPECT_EQ(send(&b.owner, "POST", path, "{}").reason(), "missing-field");
}

TEST_F(PlaneHttp, TheFirstOperatorComesInOnceAndInvitesTheOthers) {
  const std::string file = o.state_dir + "/operator-invite";
  const std::string token = must(read_text_file(file, 256));
  const testing::Person first = testing::make_person(b.random);
  const testing::Person second = testing::make_person(b.random);
  EXPECT_EQ(enrol_with(token, first, {Role::kOwner}, "first").reason(), "wrong-role");
  EXPECT_EQ(enrol_with(token, first, {Role::kOperator, Role::kOwner}, "first").reason(),
            "wrong-role");
  // Started again before anybody came: the same file, good anew.
  start();
  EXPECT_EQ(must(read_text_file(file, 256)), token);
  EXPECT_EQ(*ready.find("operator"), Json(false));
  EXPECT_EQ(enrol_with(token, first, {Role::kOperator}, "first").status, 201);
  EXPECT_EQ(enrol_with(token, second, {Role::kOperator}, "second").reason(), "quota-exceeded");
  start();
  EXPECT_FALSE(path_exists(file));
  EXPECT_EQ(*ready.find("operator"), Json(true));
  EXPECT_EQ(enrol_with(token, second, {Role::kOperator}, "second").reason(), "quota-exceeded");
  const api::InviteRequest wanted{{Role::kAuditor}, 1, clock.now().seconds() + 60};
  const auto made =
      expect<api::InviteView>(201, send(&first, "POST", "/v1/invites", canonical(to_json(wanted))));
  EXPECT_EQ(enrol_with(made.token, second, {Role::kAuditor}, "second").status, 201);
}

TEST_F(PlaneHttp, TokensOfWhoeverStartsThePlaneAreLimited) {
  o.invites = FirstInvites{std::string(64, 'a'), std::string(64, 'b')};
  start();
  const std::vector<Role> most{Role::kOwner, Role::kConsumer, Role::kReviewer};
  std::vector<testing::Person> people;
  for (int i = 0; i < 22; ++i) people.push_back(testing::make_person(b.random));
  for (const Role r : {Role::kOperator, Role::kAuditor, Role::kNode}) {
    EXPECT_EQ(enrol_with(o.invites->people, people[0], {r}, "p").reason(), "wrong-role");
  }
  for (std::size_t i = 0; i < 19; ++i) {
    ASSERT_EQ(enrol_with(o.invites->people, people[i], most, "p").status, 201) << i;
  }
  // A restart of the plane gives no uses back.
  start();
  EXPECT_EQ(enrol_with(o.invites->people, people[19], most, "p").status, 201);
  EXPECT_EQ(enrol_with(o.invites->people, people[20], most, "p").reason(), "quota-exceeded");
  EXPECT_EQ(enrol_with(o.invites->operators, people[20], {Role::kOperator}, "p").status, 201);
  start();
  EXPECT_EQ(enrol_with(o.invites->operators, people[21], {Role::kOperator}, "p").reason(),
            "quota-exceeded");
  // A new start of everything brings a new token; the old one ends with its time.
  o.invites->people = std::string(64, 'c');
  start();
  EXPECT_EQ(enrol_with(o.invites->people, people[21], {Role::kOwner}, "p").status, 201);
  clock.days = 8;
  const testing::Person late = testing::make_person(b.random);
  EXPECT_EQ(enrol_with(o.invites->people, late, {Role::kOwner}, "p").reason(), "expired");
}

TEST_F(PlaneHttp, ANodeThatNobodyEnrolledIsRefused) {
  const testing::Person stranger = testing::make_person(b.random);
  NodeClient node(port("nodes"), stranger.key,
                  must(crypto::PublicKey::from_text(*ready.find("nodeKey")->string())), clock);
  const NodeInfo info{
      "x", stranger.key.public_key().text(), {Technology::kNone}, 4, 1, 1, "test", kMaxPids, {}};
  EXPECT_FALSE(node.call(method::kNodeRegister, info).ok());
}

TEST_F(PlaneHttp, StrangersAtTheNodesPortKeepNoNodeOut) {
  const auto early = connect_node();
  must(early->call(method::kNodeRegister, node_info()));
  std::vector<std::unique_ptr<channel::FdStream>> idle;
  for (int i = 0; i < 300; ++i) {
    idle.push_back(must(channel::connect_tcp({"127.0.0.1", port("nodes")},
                                             channel::Deadline::after_ms(clock, 5'000))));
  }
  const auto late = connect_node();
  must(late->call(method::kNodeRegister, node_info()));
  must(early->call(method::kNodeHeartbeat, Heartbeat{"local", {}}));
}

// The document names nothing that does not answer, and each answer is as the document says: see
// hold_against_document().
TEST_F(PlaneHttp, EveryOperationOfTheDocumentAnswersAsItSays) {
  testing::next_policy(b.data);
  b.data.policy.clauses.fresh_for_seconds = 1'000'000;
  enrol_all();
  const testing::Person admin = testing::make_person(b.random);
  ASSERT_EQ(enrol(admin, {Role::kOperator}, "admin").status, 201);
  publish();
  const auto get = [&](const testing::Person* who, const std::string& target) {
    EXPECT_EQ(send(who, "GET", target).status, 200) << target;
  };
  const auto post = [&](const testing::Person* who, int status, const std::string& target,
                        const std::string& body) {
    const Answer a = send(who, "POST", target, body);
    EXPECT_EQ(a.status, status) << target << " " << a.text;
    return a;
  };
  for (const char* target : {"/v1/info", "/healthz", "/readyz"}) get(nullptr, target);
  EXPECT_EQ(metrics("Bearer " + must(read_text_file(o.state_dir + "/metrics-token", 256))).status,
            200);
  get(nullptr, "/v1/broker?nonce=" + to_hex(random.fixed<32>()));
  get(&admin, "/v1/identities");
  get(&b.owner, "/v1/identities/" + to_hex(b.owner.id()));
  post(&admin, 201, "/v1/invites",
       canonical(to_json(api::InviteRequest{{Role::kConsumer}, 1, clock.now().seconds() + 60})));
  post(&admin, 201, "/v1/nodes",
       canonical(to_json(api::NodeEnrolRequest{"second", admin.key.public_key().text()})));
  get(&b.owner, "/v1/nodes");
  get(&b.owner, "/v1/assets");
  const std::string asset = "/v1/assets/" + to_hex(b.data.version_id());
  get(&b.owner, asset);
  get(&b.owner, asset + "/policies");
  get(&b.owner, "/v1/policies/" + to_hex(hash_of(b.data.policy)));
  const OwnerBeacon beacon{b.owner.id(), b.data.version_id(), hash_of(b.data.policy),
                           clock.now().seconds()};
  post(&b.owner, 201, "/v1/beacons",
       canonical(
           to_json(BeaconRequest{b.owner.chain, must(sign(b.set.id(), beacon, b.owner.key))})));
  get(&b.owner,
      "/v1/ledgers/" + to_hex(b.data.record.asset_id) + "?nonce=" + to_hex(random.fixed<32>()));
  EXPECT_EQ(
      send(&b.owner, "PUT", "/v1/objects/abc", "ciphertext", "application/octet-stream").status,
      201);
  get(&b.consumer, "/v1/objects/abc");
  EXPECT_EQ(send(&b.consumer, "HEAD", "/v1/objects/abc").status, 200);
  const auto lease = testing::make_lease(b.set.id(), b.data, b.consumer, 1, b.random);
  post(&b.owner, 201, "/v1/leases", canonical(to_json(lease)));
  get(&b.consumer, "/v1/leases");

  const SignedSubmission s = b.submission();
  post(&b.consumer, 200, "/v1/jobs/plan", canonical(to_json(s)));
  const Hash32 held = held_job(s);
  const std::string path = "/v1/jobs/" + to_hex(held);
  const auto reviews = expect<api::ReviewList>(200, send(&b.reviewer, "GET", "/v1/reviews"));
  ASSERT_EQ(reviews.items.size(), 1U);
  const HoldNotice& notice = reviews.items[0].hold_notice.body;
  const std::string review = "/v1/reviews/" + to_hex(held);
  get(&b.reviewer, review);
  EXPECT_EQ(send(&b.reviewer, "GET", "/v1/reviews/" + std::string(64, '0')).status, 404);
  get(&b.reviewer, review + "/ledger?nonce=" + to_hex(random.fixed<32>()));
  for (const Hash32& policy : notice.policy_hashes) {
    const Ruling r{hash_of(notice),          notice.manifest,
                   notice.ciphertext,        policy,
                   RulingDecision::kApprove, {},
                   clock.now().seconds()};
    post(&b.reviewer, 200, review,
         canonical(
             to_json(RulingRequest{b.reviewer.chain, must(sign(b.set.id(), r, b.reviewer.key))})));
  }
  EXPECT_EQ(wait_for(held, [](const api::JobView& v) { return v.ended; }).state, "Completed");
  get(&b.consumer, "/v1/jobs");
  for (const char* part : {"/detail", "/events", "/result", "/receipt"}) {
    get(&b.consumer, path + part);
  }

  const SignedSubmission other = b.submission();
  const Hash32 unwanted = other.submission.body.job_id();
  post(&b.consumer, 201, "/v1/jobs", canonical(to_json(other)));
  const Cancel wish{unwanted, b.consumer.id(), clock.now().seconds()};
  post(&b.consumer, 200, "/v1/jobs/" + to_hex(unwanted) + "/cancel",
       canonical(
           to_json(CancelRequest{b.consumer.chain, must(sign(b.set.id(), wish, b.consumer.key))})));
  const testing::Person after = testing::make_person(b.random);
  const Rotation rotation{b.owner.id(), 1, after.key.public_key().text()};
  post(&b.owner, 200, asset + "/delist", "");
  post(&b.owner, 200, "/v1/identities/" + to_hex(b.owner.id()) + "/rotations",
       canonical(to_json(
           RotateRequest{b.owner.chain.identity, must(sign(b.set.id(), rotation, b.owner.key))})));

  std::set<std::string> documented;
  for (const auto& [unused, operations] : *document.find("paths")->object()) {
    for (const auto& [verb, operation] : *operations.object()) {
      documented.insert(*operation.find("operationId")->string());
    }
  }
  EXPECT_EQ(documented.size(), PlaneApi::routes().size());
  EXPECT_EQ(answered, documented);
}

// The checker of answers is no rubber stamp: what the schemas' own negatives break, it finds.
TEST(JsonSchema, FindsEveryNegative) {
  const Json document = must(PlaneApi::openapi("0.1.0"));
  std::size_t found = 0;
  for (const auto& [name, schema] : PlaneApi::schemas().all()) {
    if (name == "OpenApi") continue;  // made by hand, and open
    const Json sample = api::sample_of(schema);
    EXPECT_EQ(breaks_schema(document, schema, sample), "") << name;
    for (const api::Negative& n : api::negatives_of(schema, sample)) {
      EXPECT_NE(breaks_schema(document, schema, n.document), "") << name << ": " << n.name;
      ++found;
    }
  }
  EXPECT_GT(found, 300U);
  const Json unknown = must(parse_json(R"({"type":"string","format":"date"})"));
  EXPECT_NE(breaks_schema(document, unknown, Json("x")), "");
  const Json dangling = must(parse_json(R"({"$ref":"#/components/schemas/Nowhere"})"));
  EXPECT_NE(breaks_schema(document, dangling, Json("x")), "");
}

// Every route of the table with every role, and unsigned: who may not gets exactly that answer.
TEST_F(PlaneHttp, RoleMatrixOfTheTable) {
  std::map<api::RoleSet, testing::Person> people;
  for (const auto& r : enum_names(Role{})) {
    people.emplace(must(api::role_from_name(r.name)), testing::make_person(b.random));
    const auto& who = people.at(must(api::role_from_name(r.name)));
    ASSERT_EQ(enrol(who, {r.value}, r.name).status, 201);
  }
  const testing::Person stranger = testing::make_person(b.random);
  std::size_t refused = 0;
  for (const auto& route : PlaneApi::routes()) {
    std::string target(route.info.path);
    const std::size_t at = target.find('{');
    if (at != std::string::npos) {
      target = target.substr(0, at) + std::string(64, '0') + target.substr(target.find('}') + 1);
    }
    const std::string method(route.info.method);
    const bool stream = route.info.body == api::BodyKind::kStream;
    const std::string type = stream ? "application/octet-stream" : "application/json";
    const std::string body = route.info.body == api::BodyKind::kNone ? "" : "{}";
    const std::string what = method + " " + target;
    const Answer nobody = send(nullptr, method, target, body, type);
    const Answer unknown = send(&stranger, method, target, body, type);
    if (route.info.roles == api::kPublic) {
      EXPECT_EQ(nobody.status == 401, route.info.bearer) << what;
      continue;
    }
    EXPECT_EQ(nobody.status, 401) << what;
    const bool enrolment = what == "POST /v1/identities";
    EXPECT_EQ(unknown.status == 401, !enrolment) << what;
    for (const auto& [role, who] : people) {
      const Answer a = send(&who, method, target, body, type);
      if ((route.info.roles & role) == 0) {
        EXPECT_EQ(a.status, 403) << what;
        if (method != "HEAD") {
          EXPECT_EQ(a.reason(), "wrong-role") << what;
        }
        ++refused;
      } else {
        EXPECT_NE(a.status, 401) << what << " " << a.text;
        EXPECT_NE(a.reason(), "wrong-role") << what;
        EXPECT_NE(a.status / 100, 5) << what << " " << a.text;
      }
    }
  }
  EXPECT_GT(refused, 60U);
}

// Bodies made from the published schemas, each broken in one place, are refused as such and never
// as our failure.
TEST_F(PlaneHttp, BrokenBodiesAreRefusedByEveryRoute) {
  const testing::Person all = testing::make_person(b.random);
  std::vector<Role> roles;
  for (const auto& r : enum_names(Role{})) roles.push_back(r.value);
  ASSERT_EQ(enrol(all, roles, "all").status, 201);
  std::size_t tried = 0;
  for (const auto& route : PlaneApi::routes()) {
    if (route.info.body != api::BodyKind::kJson) continue;
    const Json& schema =
        PlaneApi::schemas().all().find(std::string(route.info.request_schema))->second;
    std::string target(route.info.path);
    const std::size_t at = target.find('{');
    if (at != std::string::npos) {
      target = target.substr(0, at) + std::string(64, '0') + target.substr(target.find('}') + 1);
    }
    const auto negatives = api::negatives_of(schema, api::sample_of(schema));
    ASSERT_GT(negatives.size(), 3U) << target;
    // the reader itself has a test of its own
    const std::size_t step = std::max<std::size_t>(1, negatives.size() / 12);
    for (std::size_t i = 0; i < negatives.size(); i += step) {
      const Answer a = send(&all, "POST", target, canonical(negatives[i].document));
      EXPECT_EQ(a.status / 100, 4)
          << target << ": " << negatives[i].name << " " << a.text.substr(0, 200);
      EXPECT_NE(a.reason(), "") << target;
      ++tried;
    }
  }
  EXPECT_GT(tried, 80U);
}

TEST_F(PlaneHttp, SignaturesCoverBodyTargetAndTime) {
  enrol_all();
  const std::string body = canonical(to_json(b.submission()));
  const auto headers = must(httpsig::sign_request({b.set.id(), "POST", "/v1/jobs/plan"},
                                                  crypto::sha256(as_bytes(body)), b.consumer.id(),
                                                  b.consumer.key, clock.now().seconds(), random));
  const auto request = [&](const std::string& target, std::string content) {
    std::string r =
        "POST " + target +
        " HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: " +
        std::to_string(content.size()) + "\r\n";
    for (const auto& [k, v] : headers) r += k + ": " + v + "\r\n";
    return r + "\r\n" + content;
  };
  std::string changed = body;
  changed[changed.size() / 2] ^= 1;
  EXPECT_EQ(raw(request("/v1/jobs/plan", changed)).status, 401);
  EXPECT_EQ(raw(request("/v1/jobs", body)).status, 401) << "signed for another target";
  EXPECT_EQ(raw(request("/v1/jobs/plan", body)).reason(), "replayed")
      << "its nonce was spent on the changed body";
  const auto old = must(httpsig::sign_request({b.set.id(), "GET", "/v1/jobs"},
                                              crypto::sha256(ByteView{}), b.consumer.id(),
                                              b.consumer.key, clock.now().seconds() - 600, random));
  std::string late = "GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\n";
  for (const auto& [k, v] : old) late += k + ": " + v + "\r\n";
  EXPECT_EQ(raw(late + "\r\n").reason(), "expired");
}

// The recovery key rotates its own identity's key and does nothing else.
TEST_F(PlaneHttp, ALostKeyIsReplacedByTheRecoveryKey) {
  enrol_all();
  const auto clone = [](const crypto::SigningKey& k) {
    return must(crypto::SigningKey::from_private(k.public_key().algorithm(),
                                                 k.private_bytes(SecretAccess{})));
  };
  testing::Person recovering = testing::copy(b.consumer);
  recovering.key = clone(b.consumer.recovery);
  testing::Person after = testing::copy(b.consumer);
  after.key = must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
  const auto route = [](const Hash32& id) { return "/v1/identities/" + to_hex(id) + "/rotations"; };
  const auto request = [&](const crypto::SigningKey& by) {
    const Rotation r{b.consumer.id(), 1, after.key.public_key().text()};
    return canonical(
        to_json(RotateRequest{b.consumer.chain.identity, must(sign(b.set.id(), r, by))}));
  };
  EXPECT_EQ(send(&recovering, "GET", "/v1/jobs").reason(), "unauthenticated");
  const std::string own = "/v1/identities/" + to_hex(b.consumer.id());
  EXPECT_EQ(send(&recovering, "GET", own).status, 200) << "what the next one goes on from";
  EXPECT_EQ(send(&recovering, "GET", "/v1/identities/" + to_hex(b.owner.id())).reason(),
            "unauthenticated");
  EXPECT_EQ(send(&recovering, "POST", route(b.owner.id()), request(b.consumer.recovery)).reason(),
            "unauthenticated");
  EXPECT_EQ(send(&recovering, "POST", route(b.consumer.id()), request(b.owner.key)).reason(),
            "chain-broken");
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/jobs").status, 200);
  const std::string good = request(b.consumer.recovery);
  EXPECT_EQ(send(&recovering, "POST", route(b.consumer.id()), good).status, 200);
  EXPECT_EQ(send(&recovering, "POST", route(b.consumer.id()), good).status, 200)
      << "its answer was lost";
  EXPECT_EQ(send(&b.consumer, "GET", "/v1/jobs").reason(), "unauthenticated");
  EXPECT_EQ(send(&b.consumer, "POST", route(b.consumer.id()), good).reason(), "unauthenticated");
  EXPECT_EQ(send(&after, "GET", "/v1/jobs").status, 200);
  const auto view = expect<api::IdentityView>(200, send(&after, "GET", own));
  EXPECT_EQ(view.chain.rotations.size(), 1U);
}

// The same people may have identities at two installations: what one gets is worth nothing at the
// other.
TEST_F(PlaneHttp, ARequestForAnotherInstallationIsRefused) {
  enrol_all();
  const auto get_jobs = [&](const Hash32& set_id) {
    std::string r = "GET /v1/jobs HTTP/1.1\r\nhost: localhost\r\n";
    for (const auto& [k, v] : must(httpsig::sign_request(
             {set_id, "GET", "/v1/jobs"}, crypto::sha256(ByteView{}), b.consumer.id(),
             b.consumer.key, clock.now().seconds(), random))) {
      r += k + ": " + v + "\r\n";
    }
    return raw(r + "\r\n");
  };
  const Answer elsewhere = get_jobs(crypto::sha256(as_bytes("another installation")));
  EXPECT_EQ(elsewhere.status, 401);
  EXPECT_EQ(elsewhere.reason(), "bad-signature");
  EXPECT_EQ(get_jobs(b.set.id()).status, 200);
}

}  // namespace
}  // namespace gbx::plane
