// Objects on the plane, against the plane's real HTTPS server.
#include <gtest/gtest.h>

#include <mutex>

#include "base/os.h"
#include "cli/plane.h"
#include "crypto/keys.h"
#include "httpsig/request_signing.h"
#include "plane/http/server.h"

namespace gbx::cli {
namespace {

namespace server = gbx::plane::http;

class PlaneStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gbx-spool-XXXXXX";
    spool_ = mkdtemp(name);
    const auto ca =
        crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random_).value();
    const auto key =
        crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEcdsaP256, random_).value();
    const std::int64_t now = clock_.now().seconds();
    const auto issued =
        crypto::issue_server_certificate(ca, key, {}, {"127.0.0.1"}, now - 3600, now + 3600)
            .value();
    server::ServerOptions o;
    o.certificate_der = issued.server_der;
    o.key_pkcs8_der = key.pkcs8_der(SecretAccess{});
    o.planner = [](const server::Request& r) {
      server::BodyPlan plan;
      plan.streaming = r.method == "PUT";
      plan.max_bytes = 1U << 24;
      return plan;
    };
    auto started =
        server::Server::start(std::move(o), [this](const server::Request& r) { return handle(r); });
    ASSERT_TRUE(started.ok()) << started.error().line();
    server_ = std::move(*started);
    http::ClientOptions c;
    c.host = "127.0.0.1";
    c.port = server_->port();
    c.ca_der = issued.ca_der;
    c.signing_key = &own_;
    c.sleep = [](std::int64_t) {};
    plane_ = Plane::connect(std::move(c), clock_, random_).value();
  }
  void TearDown() override {
    server_.reset();
    (void)remove_tree(spool_);
  }
  server::Response handle(const server::Request& r) {
    const std::lock_guard lock(mutex_);
    if (r.path.size() == 2 && r.path[1] == "assets") {
      asked_.push_back(r.query.at("limit"));
      return server::json_response(200, to_json(api::AssetList{}));
    }
    if (r.path.size() != 3 || r.path[1] != "objects") {
      return server::error_response(fail(Reason::kNotFound, "route"));
    }
    if (r.method == "PUT") {
      server::VerifiedBody body(r.stream,
                                *fixed_from_hex<32>(r.headers.at(httpsig::kBodyHashHeader)));
      Bytes all, piece(1U << 16);
      for (;;) {
        const auto n = body.read(piece);
        if (!n.ok()) return server::error_response(n.error());
        if (*n == 0) break;
        append(all, ByteView(piece).first(*n));
      }
      objects_[r.path[2]] = std::move(all);
      return server::json_response(201, Json());
    }
    ++downloads_;
    const auto it = objects_.find(r.path[2]);
    if (it == objects_.end()) return server::error_response(fail(Reason::kNotFound, "object"));
    server::Response out;
    out.content_type = "application/octet-stream";
    out.body = it->second;
    return out;
  }

  SystemClock clock_;
  SystemRandom random_;
  crypto::SigningKey own_ =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random_).value();
  std::string spool_;
  std::mutex mutex_;
  std::map<std::string, Bytes> objects_;  // guarded by mutex_
  int downloads_ = 0;                     // guarded by mutex_
  std::vector<std::string> asked_;        // guarded by mutex_: the limit of each list of assets
  std::unique_ptr<server::Server> server_;
  std::unique_ptr<Plane> plane_;
};

TEST_F(PlaneStoreTest, WhatWasCommittedComesBackAndTheRestLeavesNothing) {
  PlaneStore store(*plane_, spool_);
  Bytes content(3'000'000);
  SeededRandom(1).fill(content);
  {
    auto abandoned = store.create("abandoned");
    ASSERT_TRUE(abandoned.ok());
    ASSERT_TRUE((*abandoned)->write(content).ok());
  }
  auto writer = store.create("a1");
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->write(ByteView(content).first(7)).ok());
  ASSERT_TRUE((*writer)->write(ByteView(content).subspan(7)).ok());
  EXPECT_TRUE(objects_.empty());  // nothing is sent before the commit
  const Status committed = (*writer)->commit();
  ASSERT_TRUE(committed.ok()) << committed.error().line();
  EXPECT_EQ(objects_.size(), 1U);
  EXPECT_EQ(objects_.at("a1"), content);
  Bytes piece(1000);
  ASSERT_TRUE(store.get("a1", 1'234'567, piece).ok());
  EXPECT_TRUE(equal(piece, ByteView(content).subspan(1'234'567, 1000)));
  EXPECT_EQ(store.size("a1").value(), content.size());
  EXPECT_EQ(downloads_, 1);  // one fetch serves all reads
  EXPECT_EQ(store.get("a1", content.size() - 999, piece).reason(), Reason::kTruncated);
  EXPECT_EQ(store.get("a1", content.size() + 1, MutableByteView(piece).first(0)).reason(),
            Reason::kTruncated);
  EXPECT_EQ(store.size("absent").reason(), Reason::kNotFound);
  for (const char* bad : {"", "../x", "A", "a/b", ".a"}) {
    EXPECT_EQ(store.create(bad).reason(), Reason::kBadValue) << bad;
    EXPECT_EQ(store.size(bad).reason(), Reason::kBadValue) << bad;
  }
}

TEST_F(PlaneStoreTest, FewObjectsStayOpen) {
  PlaneStore store(*plane_, spool_);
  for (const char* name : {"a", "b", "c", "d"}) ASSERT_TRUE(store.put(name, as_bytes(name)).ok());
  for (int round = 0; round < 3; ++round) {
    for (const char* name : {"b", "c", "d"}) {
      EXPECT_EQ(as_text(store.get_all(name, 10).value()), name);
    }
  }
  EXPECT_EQ(downloads_, 3);
  // replaces the one that was used longest ago
  EXPECT_EQ(as_text(store.get_all("a", 10).value()), "a");
  EXPECT_EQ(as_text(store.get_all("d", 10).value()), "d");
  EXPECT_EQ(downloads_, 4);
  EXPECT_EQ(as_text(store.get_all("b", 10).value()), "b");
  EXPECT_EQ(downloads_, 5);
}

// The plane charges a list by what is asked for: whoever submits job after job by name would use up
// a share on looking two names up.
TEST_F(PlaneStoreTest, ALookupByNameOrDigestAsksForFew) {
  ASSERT_TRUE(plane_->assets({}).ok());
  Plane::AssetFilter filter;
  filter.name = "study";
  ASSERT_TRUE(plane_->assets(filter).ok());
  filter = {};
  filter.digest = "sha256:" + std::string(64, '0');
  ASSERT_TRUE(plane_->assets(filter).ok());
  EXPECT_EQ(asked_, (std::vector<std::string>{"200", "40", "40"}));
}

TEST_F(PlaneStoreTest, TheServersErrorsKeepTheirReasons) {
  const auto info = plane_->info();
  EXPECT_EQ(info.reason(), Reason::kNotFound) << info.error().line();
  EXPECT_EQ(plane_->asset(Hash32{1}).reason(), Reason::kNotFound);
}

}  // namespace
}  // namespace gbx::cli
