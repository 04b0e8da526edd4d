// What may be asked without a signature leaves those who sign their share.
#include <gtest/gtest.h>

#include <condition_variable>
#include <thread>

#include "httpsig/request_signing.h"
#include "plane/service/api.h"
#include "plane_world.h"
#include "storage/memory_store.h"

namespace gbx::plane {
namespace {

// Answers nobody before it is opened.
class ShutBroker final : public Broker {
 public:
  Result<Json> call(std::string_view method, const Json&) override {
    std::unique_lock lock(mutex_);
    ++asked_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    return fail(Reason::kUnavailable, std::string(method));
  }
  bool connected() const override { return true; }
  std::string trouble() const override { return ""; }

  void wait_until_asked(int times) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return asked_ >= times; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int asked_ = 0;
  bool open_ = false;
};

// Each such question holds one of the plane's threads, and the one connection to the broker.
TEST(Strangers, FewOfThemAskTheBrokerAtOneTime) {
  Plane p(false);
  ShutBroker broker;
  storage::MemoryStore objects;
  PlaneApi api(*p.core, broker, objects, p.b.clock, p.b.random, {});
  http::Request request;
  request.query["nonce"] = std::string(64, 'a');
  const api::RouteInfo route;
  const auto ask = [&] { return api.broker_info(api::Call{request, route, {}, {}}).status; };
  std::vector<std::jthread> asking;
  for (int i = 0; i < 2; ++i) asking.emplace_back([&] { EXPECT_EQ(ask(), 503); });
  broker.wait_until_asked(2);
  EXPECT_EQ(ask(), 429);
  EXPECT_EQ(ask(), 429) << "who was refused holds no place";
  // Whoever is enrolled, and signs, is asked for by name and not kept out.
  const std::string target = "/v1/broker?nonce=" + request.query["nonce"];
  const api::Dispatcher<PlaneApi> routes(
      PlaneApi::routes(), api, [&](const http::Request& r) { return api.authenticate(r); });
  const auto signed_by = [&](const testing::Person& who) {
    http::Request r = request;
    r.method = "GET";
    r.target = target;
    r.path = {"v1", "broker"};
    const auto headers = testing::must(
        httpsig::sign_request({p.b.set.id(), r.method, target}, crypto::sha256(ByteView()),
                              who.id(), who.key, p.b.clock.now().seconds(), p.b.random));
    for (const auto& [name, value] : headers) r.headers[name] = value;
    return routes.handle(r).status;
  };
  p.populate();
  asking.emplace_back([&] { EXPECT_EQ(signed_by(p.b.owner), 503); });
  broker.wait_until_asked(3);
  EXPECT_EQ(signed_by(testing::make_person(p.b.random)), 401) << "nobody knows him";
  EXPECT_EQ(ask(), 429) << "and he took no stranger's place";
  broker.open();
  asking.clear();
  EXPECT_EQ(ask(), 503) << "the places were given back";
}

}  // namespace
}  // namespace gbx::plane
