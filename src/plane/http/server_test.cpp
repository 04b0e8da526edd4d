// The HTTPS server against clients that misbehave: TLS, sizes, slowness, malformed requests, load,
// stopping.
#include "plane/http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "base/os.h"
#include "base/seams.h"
#include "crypto/keys.h"
#include "httpsig/error_body.h"
#include "plane/http/pool.h"
#include "plane/http/raw_client.h"
#include "plane/http/target.h"

namespace gbx::plane::http {
namespace {

TEST(Target, DecodesAndSplits) {
  const auto t = parse_target("/v1/jobs/a%20b%C3%BC?limit=10&q=x%26y+z");
  ASSERT_TRUE(t.ok());
  EXPECT_EQ(t->path, (std::vector<std::string>{"v1", "jobs", "a bü"}));
  EXPECT_EQ(t->query.at("limit"), "10");
  EXPECT_EQ(t->query.at("q"), "x&y+z");
  EXPECT_TRUE(parse_target("/")->path.empty());
}

TEST(Target, RefusesWhatTwoParsersCouldReadDifferently) {
  const std::pair<std::string, Reason> bad[] = {{"", Reason::kUsage},
                                                {"v1", Reason::kUsage},
                                                {"//", Reason::kNotFound},
                                                {"/a//b", Reason::kNotFound},
                                                {"/a/", Reason::kNotFound},
                                                {"/a/../b", Reason::kUsage},
                                                {"/%2e%2E", Reason::kUsage},
                                                {"/a%2Fb", Reason::kUsage},
                                                {"/a%00", Reason::kUsage},
                                                {"/a%0a", Reason::kUsage},
                                                {"/a%", Reason::kUsage},
                                                {"/a%4", Reason::kUsage},
                                                {"/a%zz", Reason::kUsage},
                                                {"/a%ff", Reason::kUsage},
                                                {"/a#b", Reason::kUsage},
                                                {"/a?x", Reason::kUsage},
                                                {"/a?=1", Reason::kUsage},
                                                {"/a?x=1&x=2", Reason::kUsage},
                                                {"/a?x=1&%78=2", Reason::kUsage},
                                                {"/a b", Reason::kUsage},
                                                {"http://h/a", Reason::kUsage},
                                                {"/" + std::string(5000, 'a'), Reason::kTooLarge}};
  for (const auto& [text, reason] : bad) {
    EXPECT_EQ(parse_target(text).reason(), reason) << text.substr(0, 40);
  }
}

TEST(Status, EveryReasonHasAStatusAndInternalTextStaysInside) {
#define X(name, code, cls)                                                          \
  {                                                                                 \
    const int status = http_status(Reason::name);                                   \
    EXPECT_TRUE(status >= 400 && status <= 503) << code;                            \
    EXPECT_EQ(ExitClass::cls == ExitClass::kInternal, status == 500) << code;       \
    EXPECT_EQ(ExitClass::cls == ExitClass::kInfrastructure, status == 503) << code; \
  }
  GBX_REASONS(X)
#undef X
  EXPECT_EQ(http_status(Reason::kWrongRole), 403);
  EXPECT_EQ(http_status(Reason::kUnauthenticated), 401);
  EXPECT_EQ(http_status(Reason::kRateLimited), 429);
  EXPECT_EQ(http_status(Reason::kNotFound), 404);
  EXPECT_EQ(http_status(Reason::kConflict), 409);
  EXPECT_EQ(http_status(Reason::kTooLarge), 413);
  EXPECT_EQ(http_status(Reason::kUnknownField), 422);
  EXPECT_EQ(http_status(Reason::kBadJson), 400);
  const Response r = error_response(fail(Reason::kIo, "open /var/lib/glovebox/plane.db"));
  EXPECT_EQ(std::string(as_text(r.body)).find("/var"), std::string::npos);
}

TEST(WorkPool, IsBoundedAndStopsClean) {
  WorkPool pool("test", 1, 2);
  std::promise<void> gate;
  std::shared_future<void> open(gate.get_future());
  std::promise<void> started;
  ASSERT_TRUE(pool.try_post([&started, open] {
    started.set_value();
    open.wait();
  }));
  started.get_future().wait();
  std::atomic<int> ran{0};
  EXPECT_TRUE(pool.try_post([&ran] { ++ran; }));
  EXPECT_TRUE(pool.try_post([&ran] { ++ran; }));
  EXPECT_FALSE(pool.try_post([&ran] { ++ran; }));
  std::promise<void> last;
  EXPECT_TRUE(pool.post_continuation([&last] { last.set_value(); }));
  gate.set_value();
  last.get_future().wait();
  EXPECT_EQ(ran, 2);
  pool.stop();
  EXPECT_FALSE(pool.try_post([&ran] { ++ran; }));
}

TEST(BodyPipe, GivesWhatCameThenTheEndOrTheError) {
  int room = 0;
  BodyPipe pipe(4, 1000, [&room] { ++room; });
  pipe.push({1, 2, 3});
  EXPECT_FALSE(pipe.full());
  pipe.push({4, 5});
  EXPECT_TRUE(pipe.full());
  Bytes out(2);
  EXPECT_EQ(*pipe.read(out), 2U);
  EXPECT_EQ(room, 1);
  EXPECT_EQ(*pipe.read(out), 1U);
  EXPECT_EQ(*pipe.read(out), 2U);
  EXPECT_EQ(out, (Bytes{4, 5}));
  pipe.fail_with(fail(Reason::kConnectionClosed));
  EXPECT_EQ(pipe.read(out).reason(), Reason::kConnectionClosed);
  BodyPipe whole(4, 1000, {});
  whole.finish();
  EXPECT_EQ(*whole.read(out), 0U);
  BodyPipe silent(4, 20, {});
  EXPECT_EQ(silent.read(out).reason(), Reason::kTimedOut);
}

class ServerTest : public ::testing::Test {
 protected:
  void start(Limits limits) {
    SystemRandom random;
    const auto ca =
        crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
    const auto key =
        crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
    const std::int64_t now = SystemClock().now().seconds();
    ServerOptions o;
    o.certificate_der = crypto::issue_server_certificate(ca, key, {"localhost"}, {"127.0.0.1"},
                                                         now - 60, now + 3600)
                            .value()
                            .server_der;
    o.key_pkcs8_der = key.pkcs8_der(SecretAccess{});
    o.limits = limits;
    o.log = log_;
    o.planner = [](const Request& r) {
      BodyPlan plan;
      plan.max_bytes = 1U << 20;
      plan.streaming = r.method == "PUT";
      return plan;
    };
    auto s = Server::start(std::move(o), [this](const Request& r) { return handle(r); });
    ASSERT_TRUE(s.ok()) << s.error().line();
    server_ = std::move(*s);
  }
  Response handle(const Request& r) {
    ++handled_;
    if (!r.path.empty() && r.path[0] == "wait") {
      ++waiting_;
      open_.wait();
    }
    if (!r.path.empty() && r.path[0] == "known") {
      Response out;
      out.known_caller = true;
      return out;
    }
    if (!r.path.empty() && r.path[0] == "fails") {
      return error_response(fail(Reason::kIo, "open plane.db"));
    }
    if (!r.path.empty() && r.path[0] == "endless") {
      Response out;
      out.source = [](MutableByteView b) -> Result<std::size_t> { return b.size(); };
      return out;
    }
    if (!r.path.empty() && r.path[0] == "breaks") {
      Response out;
      auto left = std::make_shared<int>(2);
      out.source = [left](MutableByteView b) -> Result<std::size_t> {
        if ((*left)-- == 0) return fail(Reason::kIo, "disk");
        return b.size();
      };
      return out;
    }
    if (r.stream) {
      Bytes piece(4096);
      std::size_t total = 0;
      for (;;) {
        const auto n = r.stream->read(piece);
        if (!n.ok()) {
          upload_error_ = n.reason();
          return error_response(n.error());
        }
        if (*n == 0) break;
        total += *n;
      }
      return json_response(200, Json(static_cast<std::int64_t>(total)));
    }
    Response out;
    out.body = r.body;
    out.headers["x-bad"] = "a\r\nx-injected: 1";
    return out;
  }
  static bool asks(RawClient& c, const std::string& path) {
    if (!c.send("GET " + path + " HTTP/1.1\r\nhost: a\r\n\r\n")) return false;
    const auto a = c.read();
    return a && a->status == 200;
  }
  // A connection that is closed after so many requests for `path`.
  void expect_end_after(int requests, const std::string& path) {
    const auto c = client();
    for (int i = 0; i < requests; ++i) EXPECT_TRUE(asks(*c, path));
    EXPECT_TRUE(c->closes_within(10'000));
  }
  std::unique_ptr<RawClient> client() { return RawClient::connect(server_->port()); }
  // Sends `text` on a new connection and expects an error body with this status.
  void expect_status(const std::string& text, int status) {
    auto c = client();
    ASSERT_TRUE(c);
    c->send(text);
    const auto a = c->read();
    ASSERT_TRUE(a) << text.substr(0, 60);
    EXPECT_EQ(a->status, status) << text.substr(0, 60) << a->body;
    EXPECT_TRUE(httpsig::error_from_json_text(a->body).has_value()) << a->body;
  }
  void eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_TRUE(condition());
  }

  const Logger* log_ = nullptr;
  std::promise<void> gate_;
  std::shared_future<void> open_{gate_.get_future()};
  std::atomic<int> handled_{0};
  std::atomic<int> waiting_{0};
  std::atomic<Reason> upload_error_{Reason::kUninitialised};
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, OnlyTls13Speaks) {
  start({});
  EXPECT_TRUE(client());
  EXPECT_FALSE(RawClient::connect(server_->port(), RawClient::Tls::k12));
  auto plain = RawClient::connect(server_->port(), RawClient::Tls::kNone);
  ASSERT_TRUE(plain);
  plain->send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
  EXPECT_FALSE(plain->read().has_value());
  eventually([this] { return server_->stats().handshakes_failed == 2; });
  EXPECT_EQ(handled_, 0);
}

TEST_F(ServerTest, KeepAlivePipeliningAndHead) {
  start({});
  auto c = client();
  c->send(
      "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiPOST /b HTTP/1.1\r\nhost: "
      "a\r\ncontent-length: 3\r\n\r\nyou");
  EXPECT_EQ(c->read()->body, "hi");
  const auto second = c->read();
  EXPECT_EQ(second->body, "you");
  EXPECT_EQ(second->head.find("injected"), std::string::npos);
  EXPECT_NE(second->head.find("cache-control: no-store"), std::string::npos);
  c->send(
      "HEAD /a HTTP/1.1\r\nhost: a\r\n\r\nGET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
  EXPECT_EQ(c->read(10'000, true)->status, 200);
  const auto last = c->read();
  EXPECT_EQ(last->status, 200);
  EXPECT_NE(last->head.find("connection: close"), std::string::npos);
  EXPECT_TRUE(c->closes_within(5000));
}

TEST_F(ServerTest, MalformedRequestsGetAReasonAndNeverReachAHandler) {
  start({});
  const std::string h = "host: a\r\n";
  const std::pair<std::string, int> bad[] = {
      {"nonsense\r\n\r\n", 400},
      {"GET / HTTP/9.9\r\n" + h + "\r\n", 400},
      {"GET / HTTP/1.0\r\n" + h + "\r\n", 505},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + h + h + "\r\n", 400},
      {"GET / HTTP/1.1\r\n" + h + "bad header\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n" + h + "x: \xff\r\n\r\n", 400},
      {"GET /a/../b HTTP/1.1\r\n" + h + "\r\n", 400},
      {"GET http://a/b HTTP/1.1\r\n" + h + "\r\n", 400},
      {"GET /a/ HTTP/1.1\r\n" + h + "\r\n", 404},
      {"POST / HTTP/1.1\r\n" + h + "content-length: 1\r\ncontent-length: 2\r\n\r\nab", 400},
      {"POST / HTTP/1.1\r\n" + h + "content-length: -1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\n" + h + "transfer-encoding: chunked\r\n\r\n0\r\n\r\n", 411},
      {"POST / HTTP/1.1\r\n" + h +
           "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
       400},
      {"GET / HTTP/1.1\r\n" + h + "upgrade: websocket\r\nconnection: upgrade\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\n" + h + "content-length: 1048577\r\n\r\n", 413},
      {"POST / HTTP/1.1\r\n" + h + "content-length: 18446744073709551615\r\n\r\n", 413},
      {"GET / HTTP/1.1\r\n" + h + "x: " + std::string(20'000, 'a') + "\r\n\r\n", 431},
      {"GET /" + std::string(5000, 'a') + " HTTP/1.1\r\n" + h + "\r\n", 413}};
  for (const auto& [text, status] : bad) expect_status(text, status);
  EXPECT_EQ(handled_, 0);
}

TEST_F(ServerTest, ExpectContinueIsAnsweredAndRefusedEarly) {
  start({});
  auto c = client();
  c->send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n");
  EXPECT_EQ(c->read()->status, 100);
  c->send("ok");
  EXPECT_EQ(c->read()->body, "ok");
  c->send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000000\r\nexpect: 100-continue\r\n\r\n");
  EXPECT_EQ(c->read()->status, 413);
}

TEST_F(ServerTest, SlowHandshakesHeadersAndBodiesAreCut) {
  Limits l;
  l.header_timeout_ms = 300;
  l.body_grace_ms = 300;
  l.idle_timeout_ms = 1000;
  start(l);
  auto plain = RawClient::connect(server_->port(), RawClient::Tls::kNone);
  EXPECT_TRUE(plain->closes_within(5000));
  auto silent = client();
  EXPECT_TRUE(silent->closes_within(5000));
  auto drip = client();  // one byte at a time earns no more time
  const SystemClock clock;
  const std::int64_t start_ms = clock.steady_ms();
  for (int i = 0; i < 200 && drip->send(i == 0 ? "GET / HTTP/1.1\r\nx: " : "a"); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_LT(clock.steady_ms() - start_ms, 3000);
  auto body = client();
  body->send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf");
  const auto a = body->read();
  EXPECT_TRUE(!a || a->status == 408);
  auto upload = client();
  upload->send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf");
  EXPECT_TRUE(upload->closes_within(5000));
  eventually([this] { return upload_error_ == Reason::kConnectionClosed; });
  eventually([this] { return server_->stats().connections_open == 0; });
}

TEST_F(ServerTest, AClientThatDoesNotReadIsCut) {
  Limits l;
  l.body_grace_ms = 300;
  l.idle_timeout_ms = 500;
  start(l);
  auto c = client();
  c->send("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n");
  eventually([this] { return handled_ == 1; });
  eventually([this] { return server_->stats().connections_open == 0; });
}

TEST_F(ServerTest, ABrokenDownloadNeverLooksWhole) {
  start({});
  auto c = client();
  c->send("GET /breaks HTTP/1.1\r\nhost: a\r\n\r\n");
  const auto a = c->read();
  ASSERT_TRUE(a);
  EXPECT_NE(a->head.find("transfer-encoding: chunked"), std::string::npos);
  EXPECT_TRUE(c->closes_within(5000));  // and no final chunk: cli_http_test reads it as an error
}

TEST_F(ServerTest, AFullQueueAnswers503AtOnce) {
  Limits l;
  l.call_threads = 1;
  l.call_queue = 1;
  start(l);
  auto first = client();
  first->send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  eventually([this] { return waiting_ == 1; });
  auto second = client();
  second->send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  std::optional<RawAnswer> shed;
  std::vector<std::unique_ptr<RawClient>> more;
  for (int i = 0; i < 50 && !shed; ++i) {  // whichever of them comes after the queue is full
    more.push_back(client());
    more.back()->send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
    shed = more.back()->read(200);
  }
  ASSERT_TRUE(shed);
  EXPECT_EQ(shed->status, 503);
  EXPECT_NE(shed->head.find("retry-after: 1"), std::string::npos);
  EXPECT_EQ(httpsig::error_from_json_text(shed->body)->reason, Reason::kUnavailable);
  gate_.set_value();
  EXPECT_EQ(first->read()->status, 200);
}

TEST_F(ServerTest, SlowUploadsDoNotStarveCalls) {
  Limits l;
  l.transfer_threads = 1;
  l.transfer_queue = 1;
  start(l);
  auto slow = client();
  slow->send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf");
  eventually([this] { return handled_ == 1; });
  auto c = client();
  c->send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok");
  EXPECT_EQ(c->read()->body, "ok");
  slow->send(std::string(96, 'x'));
  EXPECT_EQ(slow->read()->body, "100");
}

TEST_F(ServerTest, WholeBodiesShareABudget) {
  Limits l;
  l.buffered_bytes = 200'000;
  start(l);
  auto c = client();
  c->send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n" +
          std::string(300'000, 'x'));
  EXPECT_EQ(c->read()->status, 503);
  for (int i = 0; i < 5; ++i) {  // what was reserved is given back
    auto again = client();
    again->send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 150000\r\n\r\n" +
                std::string(150'000, 'x'));
    EXPECT_EQ(again->read()->status, 200);
  }
}

TEST_F(ServerTest, ConnectionsOfKnownCallersAreBoundedPerPeer) {
  Limits l;
  l.connections_per_peer = 3;
  start(l);
  std::vector<std::unique_ptr<RawClient>> open;
  for (int i = 0; i < 3; ++i) {
    open.push_back(client());
    EXPECT_TRUE(asks(*open.back(), "/known"));
  }
  EXPECT_FALSE(client());
  EXPECT_EQ(server_->stats().connections_refused, 1U);
  open.pop_back();
  eventually([this] { return server_->stats().connections_open == 2; });
  EXPECT_TRUE(client());
}

// On one machine everybody has the same address: who holds connections and says nothing keeps
// nobody out.
TEST_F(ServerTest, IdleStrangersGiveWayToTheNextAndKnownCallersStay) {
  for (const bool in_all : {false, true}) {
    Limits l;
    (in_all ? l.connections : l.connections_per_peer) = 4;
    start(l);
    const auto known = client();
    ASSERT_TRUE(asks(*known, "/known"));
    std::vector<std::unique_ptr<RawClient>> idle;
    for (int i = 0; i < 12; ++i) {
      idle.push_back(client());
      ASSERT_TRUE(idle.back() && asks(*idle.back(), "/")) << i;
    }
    EXPECT_TRUE(asks(*known, "/known"));
    EXPECT_TRUE(idle.front()->closes_within(10'000));
    EXPECT_LE(server_->stats().connections_open, 4U);
    EXPECT_EQ(server_->stats().connections_refused, 0U);
  }
}

TEST_F(ServerTest, AConnectionOfNobodyKnownEndsAfterAFewRequests) {
  Limits l;
  l.strange_requests_per_connection = 3;
  start(l);
  const auto known = client();
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(asks(*known, "/known"));
  expect_end_after(3, "/");
}

TEST_F(ServerTest, AConnectionOfSomebodyKnownEndsAfterItsRequestsToo) {
  Limits l;
  l.requests_per_connection = 3;
  start(l);
  expect_end_after(3, "/known");
}

// The one thread of the transfers is held by an upload that comes in drops; it goes once somebody
// waits for it.
TEST_F(ServerTest, ASlowUploadGoesWhenOthersWait) {
  Limits l;
  l.transfer_threads = 1;
  l.transfer_queue = 4;
  l.crowded_grace_ms = 100;
  l.body_grace_ms = 600'000;
  l.idle_timeout_ms = 600'000;
  start(l);
  auto slow = client();
  slow->send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nhalf");
  eventually([this] { return handled_ == 1; });
  auto next = client();
  next->send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok");
  eventually([&] { return !slow->send("x") || handled_ == 2; });
  EXPECT_EQ(next->read()->body, "2");
  EXPECT_EQ(upload_error_, Reason::kConnectionClosed);
}

TEST_F(ServerTest, HundredsOfConnections) {
  Limits l;
  l.connections_per_peer = 1000;
  start(l);
  std::vector<std::unique_ptr<RawClient>> open;
  for (int i = 0; i < 200; ++i) {
    open.push_back(client());
    ASSERT_TRUE(open.back()) << i;
  }
  for (auto& c : open) c->send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok");
  for (auto& c : open) EXPECT_EQ(c->read()->body, "ok");
  EXPECT_EQ(server_->stats().connections_open, 200U);
}

TEST_F(ServerTest, StoppingLetsARunningRequestEndAndClosesIdleOnes) {
  start({});
  auto idle = client();
  auto busy = client();
  busy->send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  eventually([this] { return waiting_ == 1; });
  std::thread stopper([this] { server_->stop(); });
  EXPECT_TRUE(idle->closes_within(3000));
  EXPECT_FALSE(client());
  gate_.set_value();
  const auto a = busy->read();
  ASSERT_TRUE(a);
  EXPECT_EQ(a->status, 200);
  EXPECT_NE(a->head.find("connection: close"), std::string::npos);
  stopper.join();
}

TEST_F(ServerTest, StoppingCutsWhatDoesNotEnd) {
  Limits l;
  l.stop_grace_ms = 200;
  start(l);
  auto c = client();
  c->send("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf");
  eventually([this] { return handled_ == 1; });
  const SystemClock clock;
  const std::int64_t begin = clock.steady_ms();
  server_->stop();
  EXPECT_LT(clock.steady_ms() - begin, 3000);
  EXPECT_EQ(upload_error_, Reason::kConnectionClosed);
}

TEST_F(ServerTest, AHandlerThatTakesTooLongIsAnsweredForAndItsWorkIsDropped) {
  Limits l;
  l.handler_timeout_ms = 100;
  start(l);
  auto c = client();
  c->send("POST /wait HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok");
  const auto a = c->read();
  ASSERT_TRUE(a);
  EXPECT_EQ(a->status, 503);
  EXPECT_TRUE(c->closes_within(5000));
  gate_.set_value();
}

TEST_F(ServerTest, StoppingDropsWhatWaitsInTheQueueAtOnce) {
  Limits l;
  l.call_threads = 1;
  l.stop_grace_ms = 100;
  start(l);
  auto running = client();
  running->send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  eventually([this] { return waiting_ == 1; });
  auto queued = client();
  queued->send("GET /wait HTTP/1.1\r\nhost: a\r\n\r\n");
  eventually([this] { return server_->stats().requests == 2; });
  const SystemClock clock;
  const std::int64_t begin = clock.steady_ms();
  std::thread release([this, &clock, begin] {
    while (clock.steady_ms() - begin < 300) std::this_thread::yield();
    gate_.set_value();
  });
  server_->stop();
  release.join();
  EXPECT_LT(clock.steady_ms() - begin, 3000);
  EXPECT_EQ(server_->stats().connections_open, 0U);
  EXPECT_EQ(waiting_, 1);
}

TEST_F(ServerTest, WhatWentWrongInsideIsInTheLogAndNotInTheAnswer) {
  auto ends = make_pipe().value();
  const SystemClock clock;
  const Logger log(ends.second.get(), "test", clock);
  log_ = &log;
  start({});
  auto c = client();
  c->send("GET /fails HTTP/1.1\r\nhost: a\r\n\r\n");
  const auto a = c->read();
  ASSERT_TRUE(a);
  EXPECT_EQ(a->status, 503);
  EXPECT_EQ(a->body.find("plane.db"), std::string::npos);
  server_->stop();
  ends.second.reset();
  const Bytes raw = read_all(ends.first.get(), 1U << 20).value();
  const std::string text(as_text(raw));
  EXPECT_NE(text.find("plane.db"), std::string::npos) << text;
  EXPECT_NE(text.find("\"status\":503"), std::string::npos) << text;
}

TEST(Server, ABadCertificateOrAddressIsAnError) {
  const Handler none = [](const Request&) { return Response(); };
  ServerOptions o;
  EXPECT_EQ(Server::start(std::move(o), none).reason(), Reason::kCrypto);
  SystemRandom random;
  const auto key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
  const auto other =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
  ServerOptions mismatch;
  mismatch.certificate_der = crypto::self_signed_certificate(key).value();
  mismatch.key_pkcs8_der = other.pkcs8_der(SecretAccess{});
  EXPECT_EQ(Server::start(std::move(mismatch), none).reason(), Reason::kCrypto);
  ServerOptions address;
  address.certificate_der = crypto::self_signed_certificate(key).value();
  address.key_pkcs8_der = key.pkcs8_der(SecretAccess{});
  address.bind_address = "localhost";
  EXPECT_EQ(Server::start(std::move(address), none).reason(), Reason::kUsage);
}

}  // namespace
}  // namespace gbx::plane::http
