// The command line's HTTPS client against the plane's real HTTPS server.
#include "cli/http/client.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/os.h"
#include "crypto/crypto.h"
#include "httpsig/request_signing.h"
#include "plane/http/server.h"

namespace gbx::cli::http {
namespace {

namespace server = gbx::plane::http;

struct Certificates {
  SystemRandom random;
  crypto::SigningKey ca =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
  crypto::SigningKey key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random).value();
  crypto::ServerCertificate issued =
      crypto::issue_server_certificate(ca, key, {"localhost"}, {"127.0.0.1"},
                                       SystemClock().now().seconds() - 3600,
                                       SystemClock().now().seconds() + 86400)
          .value();
};

// Bytes that can be made again from their position.
std::uint8_t pattern(std::uint64_t i) {
  return static_cast<std::uint8_t>((i * 2654435761U) >> 13U);
}

// Ends with an error after two pieces.
server::Response broken(bool announce) {
  server::Response r;
  auto left = std::make_shared<int>(2);
  r.source = [left](MutableByteView out) -> Result<std::size_t> {
    if ((*left)-- == 0) return fail(Reason::kIo, "disk");
    return out.size();
  };
  if (announce) r.source_length = 1U << 20;
  return r;
}

server::Response streamed(std::uint64_t size, bool announce) {
  server::Response r;
  r.content_type = "application/octet-stream";
  auto at = std::make_shared<std::uint64_t>(0);
  r.source = [at, size](MutableByteView out) -> Result<std::size_t> {
    std::size_t n = 0;
    while (n < out.size() && *at < size) out[n++] = pattern((*at)++);
    return n;
  };
  if (announce) r.source_length = size;
  return r;
}

class HttpTest : public ::testing::Test {
 protected:
  void SetUp() override { start({}); }
  void start(server::Limits limits) {
    server_.reset();
    server::ServerOptions o;
    o.certificate_der = certificates_.issued.server_der;
    o.key_pkcs8_der = certificates_.key.pkcs8_der(SecretAccess{});
    o.limits = limits;
    o.port = port_;
    o.planner = [](const server::Request& r) {
      server::BodyPlan plan;
      plan.streaming = r.path.size() == 2 && r.path[0] == "object";
      plan.max_bytes = plan.streaming ? 64U << 20 : 4U << 20;
      return plan;
    };
    auto started =
        server::Server::start(std::move(o), [this](const server::Request& r) { return handle(r); });
    ASSERT_TRUE(started.ok()) << started.error().line();
    server_ = std::move(*started);
    port_ = server_->port();
  }
  server::Response handle(const server::Request& r) {
    ++handled_;
    const std::string& what = r.path.empty() ? none_ : r.path[0];
    if (what == "echo") {
      server::Response out;
      out.body = r.body;
      return out;
    }
    if (what == "who") return signed_by(r);
    if (what == "object" && r.method == "PUT") return take(r);
    if (what == "object") return streamed(20U << 20, true);
    if (what == "chunked") return streamed(3U << 20, false);
    if (what == "breaks") return broken(r.path.size() > 1);
    if (what == "flaky") {
      return ++flaky_ % 3 != 0 ? server::error_response(fail(Reason::kUnavailable, "not now"))
                               : server::json_response(200, Json("ok"));
    }
    if (what == "late") {
      return server::error_response(fail(Reason::kTimedOut, "call of the broker"));
    }
    if (what == "denied") {
      return server::error_response(
          fail(Reason::kWrongRole, "no owner").with("owner", "consumer").hint("ask"));
    }
    if (what == "throws") throw std::runtime_error("secret text");
    return server::error_response(fail(Reason::kNotFound, "route"));
  }
  server::Response take(const server::Request& r) {
    const auto announced = fixed_from_hex<32>(r.headers.at(httpsig::kBodyHashHeader));
    if (r.path[1] == "refused") {
      return server::error_response(fail(Reason::kQuotaExceeded, "storage"));
    }
    server::VerifiedBody body(r.stream, *announced);
    Bytes piece(32U << 10);
    std::uint64_t total = 0;
    bool same = true;
    for (;;) {
      const Result<std::size_t> n = body.read(piece);
      if (!n.ok()) return server::error_response(n.error());
      if (*n == 0) break;
      for (std::size_t i = 0; i < *n; ++i) same = same && piece[i] == pattern(total + i);
      total += *n;
    }
    Json j;
    j["bytes"] = static_cast<std::int64_t>(total);
    j["same"] = same;
    return server::json_response(201, j);
  }
  server::Response signed_by(const server::Request& r) {
    const httpsig::KeyCheck anyone = [](const Hash32&, const crypto::PublicKey&) {
      return ok_status();
    };
    const auto v = httpsig::verify_request({set_id_, r.method, r.target}, r.headers,
                                           SystemClock().now().seconds(), anyone, replays_);
    if (!v.ok()) return server::error_response(v.error(), 401);
    if (v->body_hash != crypto::sha256(r.body)) {
      return server::error_response(fail(Reason::kBadHash, "body"));
    }
    return server::json_response(200, Json(to_hex(v->identity)));
  }
  ClientOptions options() {
    ClientOptions o;
    o.host = "127.0.0.1";
    o.port = server_->port();
    o.ca_der = certificates_.issued.ca_der;
    o.signing_key = &key_;
    o.identity = crypto::sha256(as_bytes("me"));
    o.set_id = set_id_;
    o.sleep = [this](std::int64_t ms) { slept_.push_back(ms); };
    return o;
  }
  std::unique_ptr<Client> client(ClientOptions o) {
    return Client::create(std::move(o), clock_, random_).value();
  }
  std::unique_ptr<Client> client() { return client(options()); }

  const std::string none_;
  Certificates certificates_;
  SystemClock clock_;
  SystemRandom random_;
  crypto::SigningKey key_ =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random_).value();
  const Hash32 set_id_ = crypto::sha256(as_bytes("our set"));
  httpsig::ReplayCache replays_;
  std::atomic<int> handled_{0};
  std::atomic<int> flaky_{0};
  std::vector<std::int64_t> slept_;
  std::uint16_t port_ = 0;
  std::unique_ptr<server::Server> server_;
};

TEST_F(HttpTest, JsonRoundTripsOverOneConnection) {
  auto c = client();
  for (int i = 0; i < 15; ++i) {  // after 16 a server is free of those whom it does not know
    Json j;
    j["n"] = i;
    const auto back = c->json("POST", "/echo", j);
    ASSERT_TRUE(back.ok()) << back.error().line();
    EXPECT_EQ(*back, j);
  }
  EXPECT_EQ(c->connections_made(), 1U);
}

TEST_F(HttpTest, LargeJsonPassesAndTooLargeIsRefusedWithTheReason) {
  auto c = client();
  const auto ok = c->json("POST", "/echo", Json(std::string((4U << 20) - 2, 'x')));
  ASSERT_TRUE(ok.ok()) << ok.error().line();
  const auto big = c->json("POST", "/echo", Json(std::string((4U << 20) - 1, 'x')));
  EXPECT_EQ(big.reason(), Reason::kTooLarge) << big.error().line();
  EXPECT_TRUE(c->json("POST", "/echo", Json("again")).ok());
}

TEST_F(HttpTest, ErrorsComeBackWhole) {
  auto c = client();
  const auto r = c->json("GET", "/denied");
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.reason(), Reason::kWrongRole);
  EXPECT_EQ(r.error().what, "no owner");
  EXPECT_EQ(r.error().expected, "owner");
  EXPECT_EQ(r.error().actual, "consumer");
  EXPECT_EQ(r.error().next, "ask");
  EXPECT_EQ(c->json("GET", "/nothing").reason(), Reason::kNotFound);
  const auto thrown = c->json("POST", "/throws");
  EXPECT_EQ(thrown.reason(), Reason::kInternal);
  EXPECT_EQ(thrown.error().line().find("secret"), std::string::npos);
}

TEST_F(HttpTest, SignedRequestsAreVerifiedAndFreshOnEveryCall) {
  auto o = options();
  auto c = client(o);
  for (int i = 0; i < 3; ++i) {
    const auto r = c->json("POST", "/who?a=%20b", Json("x"));
    ASSERT_TRUE(r.ok()) << r.error().line();
    EXPECT_EQ(*r, Json(to_hex(o.identity)));
  }
  o.signing_key = nullptr;
  EXPECT_EQ(client(o)->json("POST", "/who").reason(), Reason::kUnauthenticated);
}

long resident_kib() {
  long pages = 0, resident = 0;
  std::FILE* f = std::fopen("/proc/self/statm", "r");
  if (f == nullptr || std::fscanf(f, "%ld %ld", &pages, &resident) != 2) resident = -1;
  if (f != nullptr) std::fclose(f);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

Fd pattern_file(std::uint64_t size) {
  Fd fd(open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  Bytes chunk(1U << 20);
  for (std::uint64_t at = 0; at < size;) {
    for (std::size_t i = 0; i < chunk.size(); ++i) chunk[i] = pattern(at + i);
    const std::size_t n =
        static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), size - at));
    EXPECT_TRUE(write_all(fd.get(), ByteView(chunk).first(n)).ok());
    at += n;
  }
  return fd;
}

TEST_F(HttpTest, TwentyMegabytesUpAndDownInBoundedMemory) {
  constexpr std::uint64_t kSize = 20'000'000;
  auto c = client();
  const Fd fd = pattern_file(kSize);
  ASSERT_TRUE(c->json("POST", "/echo", Json("warm")).ok());
  const long before = resident_kib();
  std::uint64_t last = 0;
  const auto up = c->upload("/object/a", fd.get(), kSize, std::nullopt,
                            [&](std::uint64_t done, std::uint64_t total) {
                              EXPECT_GT(done, last);
                              EXPECT_EQ(total, kSize);
                              last = done;
                            });
  ASSERT_TRUE(up.ok()) << up.error().line();
  EXPECT_EQ(up->status, 201);
  EXPECT_EQ(as_text(up->body), R"({"bytes":20000000,"same":true})");
  EXPECT_EQ(last, kSize);
  for (const char* path : {"/object/a", "/chunked"}) {
    std::uint64_t at = 0;
    bool same = true;
    const auto down = c->download(
        path,
        [&](ByteView b) {
          for (const std::uint8_t x : b) same = same && x == pattern(at++);
          return ok_status();
        },
        64U << 20);
    ASSERT_TRUE(down.ok()) << down.error().line();
    EXPECT_EQ(*down, path == std::string("/chunked") ? 3U << 20 : 20U << 20);
    EXPECT_TRUE(same);
  }
// they keep freed memory for a while
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(resident_kib() - before, 6 * 1024);
#else
  EXPECT_GT(before, 0);
#endif
  EXPECT_EQ(c->connections_made(), 1U);
}

TEST_F(HttpTest, AnUploadWithAnotherHashIsRefused) {
  auto c = client();
  const Fd fd = pattern_file(1U << 20);
  EXPECT_TRUE(c->upload("/object/a", fd.get(), 1U << 20).ok());
  EXPECT_EQ(c->upload("/object/a", fd.get(), 1U << 20, Hash32{1}).reason(), Reason::kBadHash);
}

TEST_F(HttpTest, AnEarlyRefusalOfAnUploadReachesTheClient) {
  auto o = options();
  o.attempts = 1;
  auto c = client(o);
  const Fd fd = pattern_file(30U << 20);
  const auto r = c->upload("/object/refused", fd.get(), 30U << 20, Hash32{});
  EXPECT_EQ(r.reason(), Reason::kQuotaExceeded) << r.error().line();
  const auto large = c->upload("/echo", fd.get(), 30U << 20, Hash32{});
  EXPECT_EQ(large.reason(), Reason::kTooLarge) << large.error().line();
}

TEST_F(HttpTest, OnlyWhatMayBeRepeatedIsRepeatedWithBackoff) {
  auto c = client();
  EXPECT_EQ(c->json("POST", "/flaky").reason(), Reason::kUnavailable);
  EXPECT_TRUE(slept_.empty());
  flaky_ = 0;
  EXPECT_TRUE(c->json("GET", "/flaky").ok());
  ASSERT_EQ(slept_.size(), 2U);
  EXPECT_EQ(slept_[0], 1000);  // Retry-After of the server
  flaky_ = 0;
  EXPECT_TRUE(c->json("POST", "/flaky", std::nullopt, "key-1").ok());
}

// `timed-out` is how a job ends; a call that got no answer is no job's end.
TEST_F(HttpTest, ACallThatTookTooLongIsUnavailable) {
  const auto told = client()->json("GET", "/late");
  EXPECT_EQ(told.reason(), Reason::kUnavailable);
  EXPECT_EQ(told.error().what, "call of the broker");
  EXPECT_NE(told.error().next, "");
  // Somebody takes the connection and says nothing.
  const Fd silent(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof place;
  // SAFETY: how the socket calls take an address.
  ASSERT_EQ(bind(silent.get(), reinterpret_cast<sockaddr*>(&place), size), 0);
  ASSERT_EQ(listen(silent.get(), 1), 0);
  ASSERT_EQ(getsockname(silent.get(), reinterpret_cast<sockaddr*>(&place), &size), 0);
  auto o = options();
  o.port = ntohs(place.sin_port);
  o.connect_timeout_ms = 50;
  o.attempts = 1;
  const auto r = client(o)->json("GET", "/echo");
  EXPECT_EQ(r.reason(), Reason::kUnavailable) << r.error().line();
  EXPECT_EQ(exit_class(r.reason()), ExitClass::kInfrastructure);
}

TEST_F(HttpTest, RepeatsAreBoundedAndBackOffWithJitter) {
  auto c = client();
  server_->stop();
  EXPECT_EQ(c->json("GET", "/echo").reason(), Reason::kUnavailable);
  ASSERT_EQ(slept_.size(), 3U);
  for (std::size_t i = 0; i < slept_.size(); ++i) {
    EXPECT_GE(slept_[i], 50 << i);
    EXPECT_LE(slept_[i], 100 << i);
  }
}

TEST_F(HttpTest, AClosedConnectionIsNoticedAndReplaced) {
  auto c = client();
  ASSERT_TRUE(c->json("POST", "/echo", Json(1)).ok());
  start({});  // the same port, another server
  ASSERT_TRUE(c->json("POST", "/echo", Json(2)).ok());
  EXPECT_EQ(c->connections_made(), 2U);
  EXPECT_EQ(handled_, 2);
}

TEST_F(HttpTest, AnotherCaOrNameIsRefusedBeforeARequestIsSent) {
  Certificates other;
  auto o = options();
  o.ca_der = other.issued.ca_der;
  EXPECT_EQ(client(o)->json("GET", "/echo").reason(), Reason::kPlaneUntrusted);
  o = options();
  o.host = "127.0.0.2";
  EXPECT_FALSE(client(o)->json("GET", "/echo").ok());
  o = options();
  o.host = "localhost";
  EXPECT_EQ(client(o)->json("GET", "/nothing").reason(), Reason::kNotFound);
  o.host = "ip6-localhost";
  EXPECT_FALSE(client(o)->json("GET", "/echo").ok());
  EXPECT_EQ(handled_, 1);
  o = options();
  o.ca_der = {1, 2, 3};
  EXPECT_EQ(Client::create(o, clock_, random_).reason(), Reason::kBadEncoding);
}

TEST_F(HttpTest, AnEndlessAnswerIsCut) {
  auto o = options();
  o.max_body_bytes = 1U << 20;
  auto c = client(o);
  Call call;
  call.target = "/chunked";
  EXPECT_EQ(c->send(call).reason(), Reason::kTooLarge);
  EXPECT_EQ(c->download(
                 "/chunked", [](ByteView) { return ok_status(); }, 1000)
                .reason(),
            Reason::kTooLarge);
}

TEST_F(HttpTest, ABrokenDownloadIsAnErrorAndIsNotRepeatedBehindTheSink) {
  auto c = client();
  for (const char* path : {"/breaks", "/breaks/announced"}) {
    std::uint64_t got = 0;
    const auto r = c->download(
        path,
        [&got](ByteView b) {
          got += b.size();
          return ok_status();
        },
        64U << 20);
    EXPECT_EQ(r.reason(), Reason::kConnectionClosed) << path << r.error().line();
    EXPECT_LE(got, 128U << 10);
  }
  EXPECT_TRUE(slept_.empty());
  const auto refused = c->download(
      "/object/a", [](ByteView) -> Status { return fail(Reason::kBadHash, "mine"); }, 64U << 20);
  EXPECT_EQ(refused.reason(), Reason::kBadHash);
}

TEST_F(HttpTest, ManyClientsAtOnce) {
  constexpr int kClients = 24;
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kClients; ++i) {
    threads.emplace_back([this, &good, i] {
      SystemRandom random;
      auto o = options();
      o.sleep = {};
      auto c = Client::create(o, clock_, random).value();
      for (int k = 0; k < 10; ++k) {
        const auto r = c->json("POST", "/echo", Json(i * 100 + k));
        if (r.ok() && *r == Json(i * 100 + k)) ++good;
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(good, kClients * 10);
}

TEST_F(HttpTest, ATargetCannotSmuggleAHeader) {
  auto c = client();
  EXPECT_EQ(c->json("GET", "/a\r\nx: y").reason(), Reason::kUsage);
  EXPECT_EQ(c->json("GET", "/a b").reason(), Reason::kUsage);
  EXPECT_EQ(c->json("POST", "/echo", std::nullopt, "k\r\nx: y").reason(), Reason::kUsage);
  EXPECT_EQ(handled_, 0);
  EXPECT_EQ(percent_encode("a b/ü"), "a%20b%2F%C3%BC");
}

}  // namespace
}  // namespace gbx::cli::http
