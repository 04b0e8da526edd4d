// The plane's program in this process: HTTPS from outside, nodes over TLS, the real broker core
// behind a real channel. For tests; what comes from the network is held against the document that
// the server serves.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <functional>
#include <set>
#include <sstream>

#include "base/os.h"
#include "broker/testing.h"
#include "channel/rpc.h"
#include "channel/tls.h"
#include "httpsig/error_body.h"
#include "httpsig/request_signing.h"
#include "json_schema.h"
#include "plane/http/raw_client.h"
#include "plane/service/api.h"
#include "plane/service/server.h"

namespace gbx::plane {

using namespace records;  // NOLINT
using testing::must;

// The fixtures' day, at the speed of a real clock.
class DayClock final : public Clock {
 public:
  TimeMs now() const override {
    return {(testing::kNow + days * 86'400) * 1000 + system_.steady_ms() - start_};
  }
  std::int64_t steady_ms() const override { return system_.steady_ms(); }
  std::atomic<std::int64_t> days = 0;  // that passed at once

 private:
  SystemClock system_;
  std::int64_t start_ = SystemClock().steady_ms();
};

class BrokerServer {
 public:
  BrokerServer(testing::BrokerWorld& world, const Clock& clock) : world_(world), clock_(clock) {}
  void start(std::uint16_t port = 0) {
    server_ = must(channel::ConnectionServer::start(must(channel::listen_tcp({"127.0.0.1", port})),
                                                    8, [this](channel::FdStream& s) { serve(s); }));
  }
  void stop() { server_.reset(); }
  std::uint16_t port() const { return server_->port(); }
  std::mutex mutex;  // of the world's core
  // Set: its answer, where there is one, comes in place of the core's.
  std::function<std::optional<Result<Json>>(std::string_view method, const Json& body)> instead;

 private:
  void serve(channel::FdStream& stream) {
    channel::TlsOptions tls;
    tls.clock = &clock_;
    tls.key = &world_.set.tls;
    tls.peer = channel::PeerPolicy::any_key_or_none();
    auto opened = channel::TlsChannel::server(stream, tls);
    if (!opened.ok()) return;
    // Like the program, but whoever proves a key counts as the plane.
    const broker::ConnectionContext context =
        opened->peer_key() ? testing::BrokerWorld::plane() : broker::ConnectionContext{};
    (void)channel::serve(
        *opened,
        [this, &context](std::string_view method, const Json& body) {
          const std::lock_guard lock(mutex);
          if (auto other = instead ? instead(method, body) : std::nullopt) return *other;
          return world_.core->handle(method, body, context, clock_.now());
        },
        {}, clock_);
  }
  testing::BrokerWorld& world_;
  const Clock& clock_;
  std::unique_ptr<channel::ConnectionServer> server_;
};

struct Answer {
  int status = 0;
  Json body;
  std::string text;
  std::string head;
  std::string reason() const {
    const auto e = httpsig::error_from_json_text(text);
    return e ? std::string(reason_code(e->reason)) : "";
  }
};

// A node: framed calls with its key.
class NodeClient {
 public:
  NodeClient(std::uint16_t port, const crypto::SigningKey& key, const crypto::PublicKey& plane,
             const Clock& clock)
      : stream_(must(
            channel::connect_tcp({"127.0.0.1", port}, channel::Deadline::after_ms(clock, 5'000)))) {
    channel::TlsOptions tls;
    tls.clock = &clock;
    tls.key = &key;
    tls.peer = channel::PeerPolicy::pin({plane});
    tls_ = std::make_unique<channel::TlsChannel>(must(channel::TlsChannel::client(*stream_, tls)));
    rpc_ = std::make_unique<channel::RpcClient>(*tls_, clock);
  }
  template <class Body>
  Result<Json> call(std::string_view method, const Body& body) {
    return rpc_->call(method, to_json(body), 40'000);
  }

 private:
  std::unique_ptr<channel::FdStream> stream_;
  std::unique_ptr<channel::TlsChannel> tls_;
  std::unique_ptr<channel::RpcClient> rpc_;
};

class PlaneHttp : public ::testing::Test {
 protected:
  PlaneHttp() : b(3), broker(b, clock), log(2, "plane", clock, LogLevel::kError) {
    std::string name = "/tmp/gbx-http-XXXXXX";
    directory = mkdtemp(name.data());
    b.start_and_publish();
    broker.start();
    o.state_dir = directory + "/state";
    o.objects_dir = directory + "/objects";
    o.set_file = directory + "/set.json";
    o.broker = {"127.0.0.1", broker.port()};
    o.nodes = {{"local", b.node.public_key().text()}};
    o.shares = {.burst = 100'000, .per_second = 1'000};  // what a test sends is no flood
    must(write_file_atomic(o.set_file, as_bytes(canonical(to_json(b.set.chain))), 0644));
    start();
  }
  void TearDown() override {
    client.reset();
    server.reset();
    broker.stop();
    (void)remove_tree(directory);
  }
  void start() {
    client.reset();
    server.reset();
    server = must(PlaneServer::start(o, clock, random, log));
    ready = server->ready();
    send(nullptr, "GET", "/openapi.json");
  }
  std::uint16_t port(const char* which) {
    return must(channel::TcpAddress::from_text(*ready.find(which)->string())).port;
  }

  // One request; `as` null: unsigned.
  Answer send(const testing::Person* as, const std::string& method, const std::string& target,
              const std::string& body = {}, const std::string& type = "application/json",
              const std::string& more = {}) {
    return raw(request_text(as, method, target, body, type, more), method == "HEAD");
  }
  std::string request_text(const testing::Person* as, const std::string& method,
                           const std::string& target, const std::string& body,
                           const std::string& type, const std::string& more) {
    std::string request = method + " " + target + " HTTP/1.1\r\nhost: localhost\r\n" + more;
    if (method == "PUT" || (method == "POST" && !body.empty())) {
      request +=
          "content-type: " + type + "\r\ncontent-length: " + std::to_string(body.size()) + "\r\n";
    }
    if (as != nullptr) {
      const auto headers =
          must(httpsig::sign_request({b.set.id(), method, target}, crypto::sha256(as_bytes(body)),
                                     as->id(), as->key, clock.now().seconds(), random));
      for (const auto& [k, v] : headers) request += k + ": " + v + "\r\n";
    }
    return request + "\r\n" + body;
  }
  Answer raw(const std::string& request, bool head_only = false) {
    for (int round = 0; round < 2; ++round) {
      if (!client) client = http::RawClient::connect(port("https"));
      if (client && client->send(request)) {
        const auto answer = client->read(40'000, head_only);
        if (answer) {
          if (answer->head.find("connection: close") != std::string::npos) client.reset();
          const auto json = parse_json(answer->body, JsonLimits{64U << 20, 64, 1'000'000});
          Answer a{answer->status, json.ok() ? *json : Json(), answer->body, answer->head};
          hold_against_document(request.substr(0, request.find("\r\n")), a);
          return a;
        }
      }
      client.reset();
    }
    ADD_FAILURE() << "no answer to " << request.substr(0, 80);
    return {};
  }
  // Every answer that a test gets is held against the document that the server serves.
  void hold_against_document(const std::string& request_line, const Answer& a) {
    const std::size_t space = request_line.find(' ');
    std::string method = request_line.substr(0, space);
    const std::string target =
        request_line.substr(space + 1, request_line.find(' ', space + 1) - space - 1);
    if (method == "GET" && target == "/openapi.json" && a.status == 200) document = a.body;
    if (document.is_null()) return;
    for (char& c : method) c = static_cast<char>(std::tolower(c));
    const Json* operation = documented(method, target.substr(0, target.find('?')));
    const std::string what = request_line + " " + std::to_string(a.status);
    if (operation == nullptr) {
      EXPECT_TRUE(a.status == 404 || a.status == 405) << what;
      EXPECT_NE(a.reason(), "") << what;
      return;
    }
    const Json& responses = *operation->find("responses");
    const Json* response = responses.find(std::to_string(a.status));
    if (response != nullptr && a.status / 100 == 2) {
      answered.insert(*operation->find("operationId")->string());
    }
    if (response == nullptr) {
      response = document.find("components")->find("responses")->find("Error");
    }
    if (method == "head") return;
    const auto& content = *response->find("content")->object();
    const auto& [type, media] = *content.begin();
    EXPECT_NE(a.head.find("content-type: " + type + "\r\n"), std::string::npos) << what << "\n"
                                                                                << a.head;
    const Json* schema = media.find("schema");
    EXPECT_EQ(schema != nullptr, type == "application/json") << what;
    if (schema != nullptr) {
      EXPECT_EQ(breaks_schema(document, *schema, a.body), "") << what;
    }
  }
  // The operation of a path, a literal segment before a parameter; null: none.
  const Json* documented(const std::string& method, const std::string& path) const {
    const auto split = [](const std::string& text) {
      std::vector<std::string> out;
      std::istringstream in(text);
      for (std::string part; std::getline(in, part, '/');) out.push_back(part);
      return out;
    };
    const std::vector<std::string> asked = split(path);
    const Json* best = nullptr;
    std::size_t most = 0;
    for (const auto& [pattern, operations] : *document.find("paths")->object()) {
      const std::vector<std::string> parts = split(pattern);
      std::size_t literal = 0;
      bool fits = parts.size() == asked.size();
      for (std::size_t i = 0; fits && i < parts.size(); ++i) {
        const bool same = parts[i] == asked[i];
        literal += same ? 1 : 0;
        fits = same || (!parts[i].empty() && parts[i][0] == '{');
      }
      const Json* operation = fits ? operations.find(method) : nullptr;
      if (operation == nullptr || (best != nullptr && literal <= most)) continue;
      best = operation;
      most = literal;
    }
    return best;
  }
  template <class T>
  T expect(int status, const Answer& a) {
    EXPECT_EQ(a.status, status) << a.text.substr(0, 500);
    auto v = from_json<T>(a.body);
    EXPECT_TRUE(v.ok()) << v.error().line() << "\n" << a.text.substr(0, 300);
    return v.ok() ? *v : T{};
  }
  Answer metrics(const std::string& authorization) {
    return send(nullptr, "GET", "/metrics", {}, {}, "authorization: " + authorization + "\r\n");
  }
  Answer enrol_with(const std::string& token, const testing::Person& who,
                    const std::vector<Role>& roles, const std::string& name) {
    const api::EnrolRequest r{who.chain, name, roles, token};
    return send(&who, "POST", "/v1/identities", canonical(to_json(r)));
  }
  // As in life: the first operator comes in by the file, and invites everybody else.
  Answer enrol(const testing::Person& who, const std::vector<Role>& roles,
               const std::string& name) {
    if (!boss) {
      boss = testing::make_person(b.random);
      const std::string token = must(read_text_file(o.state_dir + "/operator-invite", 256));
      EXPECT_EQ(enrol_with(token, *boss, {Role::kOperator}, "boss").status, 201);
    }
    const api::InviteRequest request{roles, 1, clock.now().seconds() + 60};
    const auto invite = expect<api::InviteView>(
        201, send(&*boss, "POST", "/v1/invites", canonical(to_json(request))));
    return enrol_with(invite.token, who, roles, name);
  }
  void enrol_all() {
    ASSERT_EQ(enrol(b.owner, {Role::kOwner}, "owner").status, 201);
    ASSERT_EQ(enrol(b.consumer, {Role::kConsumer}, "consumer").status, 201);
    ASSERT_EQ(enrol(b.reviewer, {Role::kReviewer}, "reviewer").status, 201);
  }
  void publish() {
    for (const testing::Asset* a : {&b.data, &b.image}) {
      const auto ack = expect<Signed<PublishAck>>(
          201, send(&b.owner, "POST", "/v1/assets",
                    canonical(to_json(testing::make_publish(b.set, *a, b.random)))));
      EXPECT_EQ(ack.body.asset_version_id, a->version_id());
    }
  }

  // The enrolled node; one at a time.
  std::unique_ptr<NodeClient> connect_node() { return connect_node(b.node); }
  std::unique_ptr<NodeClient> connect_node(const crypto::SigningKey& key) {
    return std::make_unique<NodeClient>(
        port("nodes"), key, must(crypto::PublicKey::from_text(*ready.find("nodeKey")->string())),
        clock);
  }
  NodeInfo node_info() const {
    return {"local",
            b.node.public_key().text(),
            {Technology::kNone},
            4,
            std::int64_t{8} << 30,
            1,
            "test",
            kMaxPids,
            {}};
  }
  // The node takes the job that waits, and an agent that does what a genuine one does hands in its
  // output.
  OutputUpload run_next(NodeClient& node, const GateVerdict& verdict) {
    const auto reply = must(
        from_json<PollReply>(must(node.call(method::kNodePoll, PollRequest{"local", 20'000}))));
    if (!reply.assignment) {
      ADD_FAILURE() << "no work";
      return {};
    }
    const LaunchBundle& w = *reply.assignment;
    const Hash32 job = w.credential.body.job_id;
    must(node.call(method::kNodePhase, PhaseReport{job, 1, EnvironmentPhase::kWorking, {}, {}}));
    OutputUpload upload;
    {
      const std::lock_guard lock(broker.mutex);
      b.clock.advance(clock.now().ms - b.clock.now().ms);
      testing::FakeAgent agent = testing::make_agent(b.random);
      const auto connection = b.connect(agent);
      const Hash32 evidence = must(b.attest(agent, w.credential, connection));
      for (std::int64_t stage = 1; stage <= 2; ++stage) {
        must(b.key(agent, w.credential.body, evidence, stage, connection));
      }
      const auto sealed = b.make_seal(agent, w.submission, w.plan, 1, evidence, verdict);
      upload = {job, 1, must(b.seal(sealed.seal, connection)), sealed.output};
    }
    must(node.call(method::kNodeOutput, upload));
    must(node.call(
        method::kNodeDestroyed,
        must(sign(b.set.id(), DestroyedClaim{job, 1, clock.now().seconds(), {}}, b.node))));
    return upload;
  }
  api::JobView wait_for(const Hash32& id, const std::function<bool(const api::JobView&)>& done) {
    const std::string path = "/v1/jobs/" + to_hex(id);
    auto job = expect<api::JobView>(200, send(&b.consumer, "GET", path));
    for (int i = 0; i < 20 && !done(job); ++i) {
      job = expect<api::JobView>(
          200, send(&b.consumer, "GET",
                    path + "?after=" + std::to_string(job.version) + "&waitMs=5000"));
    }
    return job;
  }

  // The consumer's, from its submission until its output is held for the reviewer.
  Hash32 held_job(const SignedSubmission& s) {
    const Hash32 id = s.submission.body.job_id();
    EXPECT_EQ(send(&b.consumer, "POST", "/v1/jobs", canonical(to_json(s))).status, 201);
    const auto node = connect_node();
    must(node->call(method::kNodeRegister, node_info()));
    GateVerdict verdict = testing::clean_verdict();
    verdict.recommendation = Recommendation::kHold;
    run_next(*node, verdict);
    wait_for(id, [](const api::JobView& v) { return v.output && v.output->state == "Held"; });
    return id;
  }

  std::set<std::string> answered;  // operations of the document that succeeded
  Json document;                   // as it is served

  DayClock clock;
  SystemRandom random;
  testing::BrokerWorld b;
  BrokerServer broker;
  Logger log;
  std::string directory;
  ServeOptions o;
  std::unique_ptr<PlaneServer> server;
  Json ready;
  std::unique_ptr<http::RawClient> client;
  std::optional<testing::Person> boss;
};

}  // namespace gbx::plane
