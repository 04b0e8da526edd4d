// The HTTPS API: one table of routes, one class whose members answer. Requests that get here passed
// the table's checks (route, query, body kind and size), the signature and the role; what the
// answer is about is decided by Core.
#pragma once

#include <atomic>
#include <map>
#include <mutex>

#include "base/version.h"
#include "channel/shares.h"
#include "httpsig/request_signing.h"
#include "plane/api/openapi.h"
#include "plane/api/routes.h"
#include "plane/core/core.h"
#include "plane/service/broker_link.h"
#include "plane/service/metrics.h"
#include "storage/object_store.h"

namespace gbx::plane {

struct ApiOptions {
  std::string version = gbx::version();
  std::string ca;  // DER in base64url, for /v1/info
  std::uint64_t object_bytes = std::uint64_t{128} << 20;
  std::int64_t longest_wait_ms = 30'000;
  int uploads_per_identity = 2;  // at one time
  int waiters = 12;              // long polls at one time; further ones are answered at once
  int waiters_per_identity = 4;
  // Whoever is not known asks the broker for its evidence, at one time: all answers of the broker
  // come through one connection, and each occupies a thread.
  int strangers_at_broker = 2;
  channel::ShareLimits shares;  // of one identity; all who are not enrolled have one together
};

class PlaneApi {
 public:
  // All references outlive the object.
  PlaneApi(Core& core, Broker& broker, storage::ObjectStore& objects, const Clock& clock,
           Random& random, ApiOptions options);

  static std::span<const api::Route<PlaneApi>> routes();
  static Result<Json> openapi(const std::string& version);
  static const api::Schemas& schemas();
  // For api::Dispatcher: signature, key of the identity, replay, body hash, roles.
  Result<api::Caller> authenticate(const http::Request& request);
  void set_stats(std::function<http::ServerStats()> stats) { metrics_.set_stats(std::move(stats)); }

  http::Response info(const api::Call& call);
  http::Response broker_info(const api::Call& call);
  http::Response openapi_json(const api::Call& call);
  http::Response healthz(const api::Call& call);
  http::Response readyz(const api::Call& call);
  http::Response metrics(const api::Call& call);
  http::Response enrol(const api::Call& call);
  http::Response identities(const api::Call& call);
  http::Response identity(const api::Call& call);
  http::Response rotate(const api::Call& call);
  http::Response invite(const api::Call& call);
  http::Response publish(const api::Call& call);
  http::Response beacon(const api::Call& call);
  http::Response ledger(const api::Call& call);
  http::Response assets(const api::Call& call);
  http::Response asset(const api::Call& call);
  http::Response delist(const api::Call& call);
  http::Response asset_policies(const api::Call& call);
  http::Response policy(const api::Call& call);
  http::Response put_object(const api::Call& call);
  http::Response get_object(const api::Call& call);
  http::Response add_lease(const api::Call& call);
  http::Response leases(const api::Call& call);
  http::Response plan(const api::Call& call);
  http::Response submit(const api::Call& call);
  http::Response jobs(const api::Call& call);
  http::Response job(const api::Call& call);
  http::Response job_detail(const api::Call& call);
  http::Response job_events(const api::Call& call);
  http::Response cancel(const api::Call& call);
  http::Response result(const api::Call& call);
  http::Response receipt(const api::Call& call);
  http::Response nodes(const api::Call& call);
  http::Response enrol_node(const api::Call& call);
  http::Response reviews(const api::Call& call);
  http::Response review(const api::Call& call);
  http::Response review_ledger(const api::Call& call);
  http::Response rule(const api::Call& call);

 private:
  template <class T>
  Result<T> ask(std::string_view method, const Json& body);
  http::Response store_object(const api::Call& call);
  Status same_object(const std::string& name, ByteView sha256);
  // Takes a place among those who may wait; false where there is none, now or for this identity.
  bool begin_wait(const Hash32& who);
  void end_wait(const Hash32& who);
  // Waits until the job's version is above `after`, for as long as the call asks.
  Result<api::JobView> job_view(const api::Call& call);

  Core& core_;
  Broker& broker_;
  storage::ObjectStore& objects_;
  const Clock& clock_;
  Random& random_;
  const ApiOptions options_;
  httpsig::ReplayCache replays_;
  // Of those who are not enrolled and ask to be, which changes nothing when it is repeated: they
  // crowd out each other alone.
  httpsig::ReplayCache stranger_replays_{{4'096, 4'096, true}};
  channel::Shares shares_;
  Metrics metrics_;
  std::atomic<int> strangers_at_broker_ = 0;
  const Result<Json> openapi_;
  std::mutex waiting_mutex_;
  int waiting_ = 0;                   // guarded by waiting_mutex_
  std::map<Hash32, int> waiting_by_;  // guarded by waiting_mutex_, by identity
  std::mutex uploads_mutex_;
  std::map<Hash32, int> uploads_;  // guarded by uploads_mutex_: those that run, by identity
};

}  // namespace gbx::plane
