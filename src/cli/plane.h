// The plane's HTTPS API as typed calls: the only file that knows its routes. The plane is trusted
// with availability only: callers verify every signed record that comes back, and sizes and shapes
// are checked here by the strict readers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/http/client.h"
#include "plane/api/types.h"
#include "records/held_ledger.h"
#include "storage/object_store.h"

namespace gbx::cli {

namespace api = gbx::plane::api;

class Plane {
 public:
  static Result<std::unique_ptr<Plane>> connect(http::ClientOptions options, const Clock& clock,
                                                Random& random);

  Result<api::InfoView> info();
  Result<records::InfoReply> broker(const Nonce32& nonce);

  struct Enrolment {
    records::IdentityChain chain;
    std::string name;
    std::vector<std::string> roles;
    std::string invite;  // empty: none
  };
  // The plane's view of the identity: {"identityId","name","roles",…}.
  Result<Json> enrol(const Enrolment& enrolment);
  Result<Json> identity(const Hash32& id);
  // The identity after the rotation.
  Result<Json> rotate(const records::RotateRequest& request);
  Result<std::string> invite(const std::vector<std::string>& roles, std::int64_t uses,
                             std::int64_t not_after);

  Result<records::Signed<records::PublishAck>> publish(const records::Publish& publish);
  Result<records::Signed<records::BeaconAck>> beacon(const records::BeaconRequest& beacon);
  struct AssetFilter {
    std::string name;
    std::string owner;  // hex, or the beginning of it
    std::string kind;
    std::string digest;     // of an image's content
    bool delisted = false;  // also what is no longer offered
  };
  Result<std::vector<api::AssetView>> assets(const AssetFilter& filter);
  Result<api::AssetView> asset(const Hash32& version_id);
  Status delist(const Hash32& version_id);

  Result<records::Signed<records::LedgerStatement>> ledger(const records::LedgerRequest& request);
  Status add_lease(const records::Signed<records::Lease>& lease);
  Result<std::vector<api::LeaseView>> leases();

  Result<records::Explanation> explain(const records::SignedSubmission& submission);
  Result<api::JobView> submit(const records::SignedSubmission& submission,
                              const std::string& idempotency_key);
  Result<std::vector<api::JobView>> jobs(const std::string& state, std::size_t limit);
  Result<api::JobView> job(const Hash32& id);
  // Returns when the job's version is above `after`, or after about wait_ms.
  Result<api::JobView> job_after(const Hash32& id, std::int64_t after, std::int64_t wait_ms);
  Result<api::JobDetail> job_detail(const Hash32& id);
  Result<api::JobEvents> job_events(const Hash32& id);
  Result<api::JobView> cancel(const records::CancelRequest& request);
  Result<api::JobResult> result(const Hash32& id);
  Result<records::Receipt> receipt(const Hash32& id);

  Result<std::vector<api::ReviewView>> reviews(std::size_t limit);
  Result<api::ReviewDetail> review(const Hash32& job_id);
  Result<records::Signed<records::HeldLedgerStatement>> review_ledger(const Hash32& job_id,
                                                                      const Nonce32& nonce);
  Result<records::Judgement> rule(const Hash32& job_id, const records::RulingRequest& request);

  Result<std::vector<api::NodeView>> nodes();
  Status enrol_node(const api::NodeEnrolRequest& node);

  http::Client& client() { return *client_; }

 private:
  explicit Plane(std::unique_ptr<http::Client> client) : client_(std::move(client)) {}
  template <class T>
  Result<T> get(const std::string& target);
  template <class T>
  Result<T> post(const std::string& target, const Json& body,
                 const std::string& idempotency_key = {});
  struct Entries {
    std::size_t most = 0;     // in all
    std::size_t of_page = 0;  // asked for at once
  };
  template <class List>
  Result<std::vector<typename decltype(List::items)::value_type>> pages(const std::string& target,
                                                                        Entries entries);

  std::unique_ptr<http::Client> client_;
};

// Objects on the plane. A new object is spooled to an unnamed file and sent when it is committed;
// what is read is fetched whole into an unnamed file, and the last few stay open. Whoever reads
// checks every byte (src/asset).
class PlaneStore final : public storage::ObjectStore {
 public:
  using Transfer = std::function<void(std::uint64_t done, std::uint64_t total)>;
  // `spool` is a directory of the user's with room for a few objects of 64 MiB.
  PlaneStore(Plane& plane, std::string spool, Transfer uploading = {});
  ~PlaneStore() override;
  Result<std::unique_ptr<storage::ObjectWriter>> create(const std::string& name) override;
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override;
  Result<std::uint64_t> size(const std::string& name) override;
  // kUnsupported: nobody lists other people's ciphertext.
  Status list(const std::function<Status(const std::string&)>& each) override;
  // The plane keeps what was uploaded; an orphan costs room, and nothing opens it. kNotFound never.
  Status remove(const std::string& name) override;

 private:
  class Writer;
  struct Fetched;
  Result<Fetched*> fetch(const std::string& name);
  Plane& plane_;
  const std::string spool_;
  const Transfer uploading_;
  std::vector<std::unique_ptr<Fetched>> recent_;  // the latest last
};

}  // namespace gbx::cli
