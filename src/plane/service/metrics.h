// What Prometheus scrapes: counts of jobs, environments and nodes by state, and of the server's
// work. No identities.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "plane/core/core.h"
#include "plane/http/server.h"

namespace gbx::plane {

class Metrics {
 public:
  Metrics();
  ~Metrics();
  void set_stats(std::function<http::ServerStats()> stats) { stats_ = std::move(stats); }
  // The text exposition format. Thread-safe.
  Result<std::string> render(Core& core, bool broker_connected);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
  std::function<http::ServerStats()> stats_;
};

}  // namespace gbx::plane
