// What may be asked without a signature leaves those who sign their share.
#include <gtest/gtest.h>

#include <condition_variable>
#include <thread>

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
  broker.open();
  asking.clear();
  EXPECT_EQ(ask(), 503) << "the places were given back";
}

}  // namespace
}  // namespace gbx::plane
