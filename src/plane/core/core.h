// The plane without sockets: identities, catalogue, jobs, nodes, outputs, and the effects that
// drive jobs on. Everything durable is in the Store; only the nodes' last signs of life are in
// memory. The plane is trusted with nothing but availability: it stores signed records as they came
// and checks what it can, so that mistakes show early. Thread-safe. Arguments are untrusted unless
// said otherwise. Nothing here blocks on anything but the store, except wait().
#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <set>

#include "base/seams.h"
#include "machines/store.h"
#include "plane/core/bodies.h"
#include "plane/core/cursor.h"
#include "plane/core/sight.h"

namespace gbx::plane {

using machines::Machine;
using machines::Transaction;
using records::Signed;

struct Quotas {
  std::int64_t live_jobs = 32;        // per consumer
  std::int64_t jobs_per_day = 2'000;  // per consumer
  // per consumer: signed submissions in canonical form, whatever becomes of them
  std::int64_t job_bytes_per_day = std::int64_t{64} << 20;
  // per consumer: what the jobs declare that they may write, whatever becomes of them
  std::int64_t output_bytes_per_day = std::int64_t{4} << 30;
  // What the broker's log and the catalogue keep for ever grows no faster than this.
  std::int64_t publications_per_day = 200;  // per owner, renewals of policies among them
  std::int64_t publication_bytes_per_day = std::int64_t{16} << 20;  // of these
  // per owner: 200 policies that are fresh for an hour, confirmed twice as often
  std::int64_t beacons_per_day = 10'000;
  std::int64_t beacon_bytes_per_day = std::int64_t{16} << 20;  // of these
  std::int64_t leases_per_day = 2'000;                         // per identity that hands them in
  std::int64_t object_bytes = std::int64_t{1} << 40;           // uploaded per owner
  std::int64_t identities = 10'000;
};
struct CoreConfig {
  records::SetChain set;
  records::SetId set_id{};
  std::int64_t lease_seconds = 30;       // of a node
  std::int64_t run_grace_seconds = 300;  // on top of the spec's run time: gate, seal, upload
  // for the claim of destruction, after the seal; policy::kDestroySeconds
  std::int64_t destroy_seconds = 600;
  std::int64_t review_poll_seconds = 60;  // how often the broker is asked about a held output
  // an attempt that its node no longer names in heartbeats counts as lost
  std::int64_t missing_seconds = 10;
  Quotas quotas;
};

// A verified caller. Made by the server from a checked signature, never from what a request says of
// itself.
struct Caller {
  Hash32 identity{};
  std::set<Role> roles;
  bool has(Role r) const { return roles.count(r) != 0; }
};

struct BrokerCall {
  std::string method;
  Json body;
};

struct Page {
  std::string cursor;
  std::size_t limit = 50;
};

// Where sealed outputs lie. Ciphertext only.
class OutputShelf {
 public:
  virtual ~OutputShelf() = default;
  virtual Status put(const std::string& name, ByteView content) = 0;  // the same again is no error
  virtual Result<Bytes> get(const std::string& name) = 0;
};
class MemoryShelf final : public OutputShelf {
 public:
  Status put(const std::string& name, ByteView content) override;
  Result<Bytes> get(const std::string& name) override;

 private:
  std::mutex mutex_;
  std::map<std::string, Bytes> content_;
};

class Core {
 public:
  // Checks the set chain against the pinned id. The references outlive the core.
  static Result<std::unique_ptr<Core>> create(machines::Store& store, OutputShelf& shelf,
                                              const Clock& clock, CoreConfig config);
  const CoreConfig& config() const { return config_; }
  const records::SetChain::Keys& set_keys() const { return keys_; }

  // ---- identities ----
  // For the signature check of a request: kUnauthenticated unless `key` is the identity's current
  // key.
  Status check_key(const Hash32& identity, const crypto::PublicKey& key);
  // For a request that rotates the identity's key, or reads its rotations, and nothing else: the
  // recovery key may sign it, too, for the current one may be lost.
  Status check_rotation_key(const Hash32& identity, const crypto::PublicKey& key);
  Result<Caller> caller(const Hash32& identity);
  // `by`: who signed the request; its key was checked against `self_key` when it is not enrolled
  // yet. An identity that is enrolled gets the roles on top of those that it has.
  Result<api::IdentityView> enrol(const Hash32& by, const crypto::PublicKey& by_key,
                                  const api::EnrolRequest& request);
  Status invite(const Caller& who, const api::InviteRequest& request, std::string_view token);
  // For whoever runs the machine, at start: the token is good for exactly this from now on,
  // whatever it was before.
  Status keep_invite(const api::InviteRequest& request, std::string_view token);
  Result<bool> operator_enrolled();
  Result<api::IdentityView> identity(const Hash32& id);
  Result<api::IdentityList> identities(const Page& page);
  // After broker.rotate succeeded. Both take the newest rotation once more, for its answer may have
  // been lost.
  Result<api::IdentityView> accept_rotation(const Caller& who,
                                            const records::RotateRequest& request);
  Status check_rotation(const Caller& who, const records::RotateRequest& request);

  // ---- catalogue ----
  Status check_publish(const Caller& who, const records::Publish& publish);
  Status accept_publish(const records::Publish& publish, const Signed<records::PublishAck>& ack);
  Status check_beacon(const Caller& who, const records::BeaconRequest& beacon);
  Status accept_beacon(const records::BeaconRequest& beacon, const Signed<records::BeaconAck>& ack);
  Result<api::AssetView> asset(const Hash32& version_id);
  struct AssetFilter {
    std::optional<std::string> name;
    std::optional<std::string> owner;  // hex, or the beginning of it
    std::optional<records::AssetKind> kind;
    std::optional<std::string> digest;  // of an image's content
    bool delisted = false;
  };
  Result<api::AssetList> assets(const AssetFilter& filter, const Page& page);
  Status delist(const Caller& who, const Hash32& version_id);
  Result<api::PolicyList> policies(const Hash32& version_id, const Page& page);
  Result<api::PolicyView> policy(const Hash32& hash);
  Status add_lease(const Caller& who, const Signed<records::Lease>& lease);
  Result<api::LeaseList> leases(const Caller& who, const Page& page);
  // Reserves upload bytes against the caller's quota.
  Status charge_upload(const Caller& who, std::int64_t bytes);
  Status refund_upload(const Caller& who, std::int64_t bytes);

  // ---- jobs ----
  Status check_submission(const Caller& who, const records::SignedSubmission& s);
  // One line for `job plan`: could any enrolled node ever run this? Denied with kNoCapacity when
  // none could; allowed with the reason `unavailable` when none that could answers now. Says
  // nothing about how busy they are.
  Result<records::PlanCheck> placement(const records::Submission& submission);
  // kNoCapacity too, so that what no node can run takes no place in the queue and uses up no lease.
  Result<api::JobView> submit(const Caller& who, const records::SignedSubmission& s,
                              const std::optional<std::string>& idempotency_key);
  struct JobFilter {
    std::optional<std::string> state;
    std::optional<std::string> consumer;  // hex; for those who may see others'
    std::optional<bool> live;
  };
  Result<api::JobList> jobs(const Caller& who, const JobFilter& filter, const Page& page);
  Result<api::JobView> job(const Caller& who, const Hash32& id);
  Result<api::JobDetail> detail(const Caller& who, const Hash32& id);
  Result<api::JobEvents> events(const Caller& who, const Hash32& id);
  // By the job's consumer; or by an operator, while it waits or runs: then the plane and its nodes
  // alone heed it.
  Result<api::JobView> cancel(const Caller& who, const records::CancelRequest& request);
  Result<api::JobResult> result(const Caller& who, const Hash32& id);
  Result<records::Receipt> receipt(const Caller& who, const Hash32& id);
  // What waits for the caller's ruling, the oldest first.
  Result<api::ReviewList> reviews(const Caller& who, const Page& page);
  // With what opens it. kNotFound for everybody who is no reviewer of it, kWrongState once it is
  // decided.
  Result<api::ReviewDetail> review(const Caller& who, const Hash32& job_id);
  // Whether review() has something to show to this caller, without reading what was sealed.
  Status check_held(const Caller& who, const Hash32& job_id);
  Status check_ruling(const Caller& who, const Hash32& job_id,
                      const records::RulingRequest& ruling);
  // Before the broker is asked, which checks it, and keeps the ruling: should the answer be lost,
  // its reviewer may send the same again.
  Status begin_ruling(const Caller& who, const Hash32& job_id,
                      const records::RulingRequest& request);
  // With the broker's answer.
  Status end_ruling(const Caller& who, const Hash32& job_id, const records::RulingRequest& request,
                    const Result<records::Judgement>& reply);
  // What the broker answered to judge or ruling.
  Status apply_judgement(const Hash32& job_id, const records::Judgement& judgement);

  // ---- nodes: known by their TLS key ----
  Status enrol_node(const std::string& name, const std::string& key);
  Result<api::NodeList> nodes(const Caller& who, const Page& page);
  Status check_node(const crypto::PublicKey& key);
  Result<records::NodeLease> register_node(const crypto::PublicKey& key,
                                           const records::NodeInfo& info);
  Result<records::NodeLease> heartbeat(const crypto::PublicKey& key,
                                       const records::Heartbeat& beat);
  // What this node shall start now; empty: nothing yet, ask again after wait().
  Result<std::optional<records::LaunchBundle>> poll(const crypto::PublicKey& key);
  // When room of this node that nobody uses any more may be given away; empty: none is kept back.
  // Whoever waits for poll() asks again exactly then: later by a time of its own, it would tell
  // when it began to wait.
  Result<std::optional<std::int64_t>> room_at_ms(const crypto::PublicKey& key);
  Result<records::PhaseReply> phase(const crypto::PublicKey& key,
                                    const records::PhaseReport& report);
  Status output(const crypto::PublicKey& key, const records::OutputUpload& upload);
  Status destroyed(const crypto::PublicKey& key, const Signed<records::DestroyedClaim>& claim);

  // ---- the broker's log, whose newest head this plane keeps (docs/decisions/0018) ----
  // Empty: it has seen none.
  Result<std::optional<Signed<records::LogHead>>> log_head();
  // Durable when it returns. Never replaced by an older one or by one of another log:
  // kLogRolledBack for these, kWrongSet or what the signature lacks for one that is not this set's.
  Status keep_log_head(const Signed<records::LogHead>& head);

  // ---- what drives it ----
  Result<std::vector<machines::Effect>> due(std::size_t limit);
  // What to ask the broker; empty: the effect needs no question (it was performed, is out of date,
  // or its time has not come).
  Result<std::optional<BrokerCall>> prepare(const machines::Effect& effect);
  // The broker's answer, or why there was none. Performing an effect again changes nothing.
  Status finish(const machines::Effect& effect, const Result<Json>& reply);
  // Tries later, with growing pauses: for effects that prepare() or finish() could not handle.
  Status postpone(const machines::Effect& effect);
  // Time-outs and lost nodes.
  Status tick();
  // This process stood still (a suspended machine, a disk that hung): what nodes owe is not late
  // before they have had a lease's time again.
  void was_away();
  // When due() or tick() have something to do next; empty: only after a change.
  Result<std::optional<std::int64_t>> next_due_ms();
  // What deadlines, leases of nodes and the outbox are measured by: it goes with the monotonic
  // clock while a plane runs, and goes on where the plane before had come to.
  std::int64_t patience_ms() const;
  struct Numbers {
    std::map<std::string, std::int64_t> jobs;          // by state
    std::map<std::string, std::int64_t> environments;  // live ones, by state
    std::int64_t nodes_alive = 0;
    std::int64_t effects_due = 0;       // at most 1000 are counted
    std::int64_t attempts_watched = 0;  // of which something is kept in memory
  };
  Result<Numbers> numbers();
  // Rises with every change; wait() returns when it is no longer `seen`, or after timeout_ms of
  // real time.
  std::uint64_t version() const;
  std::uint64_t wait(std::uint64_t seen, std::int64_t timeout_ms) const;

 private:
  struct Start {
    std::int64_t patience_ms = 0;
    std::int64_t revision = 0;  // of the record that it was read from; 0: there was none
  };
  Core(machines::Store& store, OutputShelf& shelf, const Clock& clock, CoreConfig config,
       records::SetChain::Keys keys, Start start);
  using Lock = std::lock_guard<std::mutex>;

  // For what people and other programs read, and for what ends at a time that these name (slots,
  // invites, days). Nothing is waited for by it: it may jump.
  std::int64_t now_ms() const { return clock_.now().ms; }
  bool alive(std::int64_t seen_ms) const {
    return patience_ms() - seen_ms <= config_.lease_seconds * 1000;
  }
  // Effects that were asked for in it are due from now on.
  Status commit(Transaction& t);
  static Result<Start> remembered(machines::Store& store, const Clock& clock);
  Status remember();
  machines::RecordWrite written_down(std::int64_t patience) const;
  void was_written_down(std::int64_t patience);
  Result<Machine> need_machine(const std::string& id, const char* what);
  Result<Machine> visible_job(const Caller& who, const Hash32& id);
  // A job as `who` may see it by now (sight.h): its machines up to their last transition that is
  // told, and those transitions.
  struct SeenMachine {
    Machine machine;
    machines::TransitionRow last;
    bool whole = false;  // nothing happened since `last`
  };
  struct Seen {
    JobBody body;
    std::vector<SeenMachine> machines;
    std::vector<machines::TransitionRow> rows;
    Sight sight;
  };
  static bool sees_all(const Caller& who);
  Result<Seen> seen(const Caller& who, const Machine& job);
  Status cancel_anew(Machine& m, JobBody& body, const records::CancelRequest& request);
  Result<api::JobView> view(const Caller& who, const Machine& job);
  static Result<api::JobView> view(const Seen& seen);
  static bool sealed(const Seen& seen, std::int64_t attempt);  // and handed in its output
  Result<std::optional<std::pair<machines::Record, IdentityBody>>> find_identity(const Hash32& id);
  // The longest chain that is known of this identity: of its enrolment with all rotations, or the
  // one given.
  Result<records::IdentityChain> newest_chain(const records::IdentityChain& chain);
  Result<std::pair<machines::Record, NodeBody>> find_node(const crypto::PublicKey& key);
  Result<api::AssetView> asset_view(const machines::Record& record);
  Result<api::AssetView> asset_view(const machines::Record& record, const AssetBody& body);
  Status put_identity(const records::IdentityChain& chain, const std::string& name,
                      std::vector<Role> roles, Transaction t);
  Status add_upload(const Caller& who, std::int64_t bytes);
  Status check_log_head(const Signed<records::LogHead>& head) const;
  // How many of a kind an identity had today.
  struct Daily {
    const char* kind;
    const char* what;
    std::int64_t most;
    std::int64_t more = 1;
  };
  static Status within(const Daily& d, std::int64_t count);
  // What the broker's log keeps of an owner's: how many, and how many bytes.
  using Kept = std::array<Daily, 2>;
  Kept publications(std::int64_t bytes) const;
  Kept beacons(std::int64_t bytes) const;
  Status check_kept_today(const Hash32& owner, const Kept& kept);
  Status count_kept(const Hash32& owner, const Kept& kept, Transaction& t);
  // What is counted there so far: a record of its own, new where there was none.
  Result<machines::Record> counter(const char* kind, const std::string& id,
                                   const std::string& owner);
  Result<machines::Record> todays(const Daily& d, const Hash32& identity);
  Status count_identity(Transaction& t);
  // One more, within the quota unless the broker has taken it already.
  Status count_today(const Daily& d, const Hash32& identity, bool done_already, Transaction& t);
  Status forget_holds(const char* kind);
  // Every machine of the query, whatever becomes of the others; the first failure is returned.
  Status for_each(machines::MachineQuery q, const std::function<Status(Machine&)>& step);
  Status expire_job(Machine& job, bool nodes_may_report);
  Status lose_late(const Machine& env);
  Status lose_silent(const Machine& env);
  Result<std::int64_t> jobs_at_one_time(const std::string& owner);
  // Steps; each adds to `t` and leaves the commit to the caller.
  Status step_job(Transaction& t, Machine& m, JobBody& body, machines::JobEvent event,
                  const Error* why);
  Status end_environment(Transaction& t, Machine& env, machines::EnvironmentEvent event,
                         Reason reason, const std::string& detail);
  // A step of an environment; reason and detail of one that is a failure. One that ends it keeps
  // its room until that may be told.
  Status step_environment(Transaction& t, Machine& env, const JobBody& job,
                          machines::EnvironmentEvent event, const std::string& reason = {},
                          const std::string& detail = {});
  Status end_attempt(Transaction& t, Machine& env, machines::EnvironmentEvent event, Reason reason,
                     std::string detail);
  Status lose(const Machine& env, Reason reason, std::string detail);
  Result<std::optional<records::LaunchBundle>> ready_assignment(const std::string& node);
  // Looks at a page of the queue, from where this node's last look ended. True: there is more to
  // look at.
  Result<bool> place(const std::string& node, const NodeBody& body);
  Status begin_attempt(Machine job, JobBody body, const std::string& node,
                       const std::string& node_name);
  // No node has looked past this job, which waits (again).
  void look_again_at(const Machine& job);
  // What a job needs of a node: sizes, and for each policy the platforms that it allows.
  struct Need {
    records::PlanControls controls;
    records::SpecTee tee;
    std::vector<std::vector<records::PlatformRule>> rules;
    // Of image and inputs, where a plan says that they are read ahead; else not known.
    std::int64_t ciphertext_bytes = 0;
  };
  // What a job takes of this node's memory, where it gets a machine of its own: that machine's. 0:
  // there is no machine so large.
  static std::int64_t taken_bytes(const records::NodeInfo& info, const Need& need);
  Result<Need> planned_need(const records::NodeInfo& info, const JobBody& body);
  Result<Need> need_of(const records::Submission& submission);
  static Status fits(const records::NodeInfo& info, const std::string& key, const Need& need);
  Result<records::PlanCheck> judge_placement(const records::Submission& submission);
  // Those of the query that have ended and still count, for that may not be told yet.
  Result<std::vector<Machine>> held(machines::MachineQuery q);
  // When an end that came now may be told by the owners' slot. 0: at once.
  std::int64_t told_at_ms(const JobBody& job) const;
  // The environments that count on a node: live ones, and those whose end may not be told yet.
  Result<std::vector<Machine>> occupants(const std::string& node);
  Result<std::int64_t> memory_of(const records::NodeInfo& info,
                                 const std::vector<Machine>& environments);
  // When the end of this environment, were it now, frees its room. 0: at once.
  Result<std::int64_t> room_until_ms(const Machine& env, const JobBody& job) const;
  Result<records::LaunchBundle> bundle(const JobBody& job,
                                       const Signed<records::Credential>& credential);
  Status find_missing(const std::string& node, const std::vector<records::RunningAttempt>& running);
  Result<records::NodeLease> lease_for(const std::string& node,
                                       const std::vector<records::RunningAttempt>& running);
  Result<bool> superfluous(const Machine& env);
  Result<Machine> own_environment(const std::string& node, const Hash32& job_id,
                                  std::int64_t attempt);
  Status accept_output(const records::OutputUpload& upload, const Machine& env, Machine job,
                       std::int64_t size, const Hash32& content);
  Status judge(const std::string& output_id, const records::Judgement& judgement, Transaction t);
  // An output that is or was held, as one of its reviewers finds it.
  struct HeldOutput {
    Machine machine;
    OutputBody out;
    JobBody job;
    std::vector<std::size_t> places;  // of the caller among the plan's reviewers; at least one
  };
  Result<HeldOutput> held_for(const Caller& who, const Hash32& job_id);
  // Empty for whoever is not enrolled.
  Result<std::string> standing_key(const Hash32& identity);
  Result<api::ReviewView> review_view(const Caller& who, const HeldOutput& held);
  Status lay_out(Transaction& t, const OutputBody& out);
  Status clear_desks(Transaction& t, const OutputBody& out);
  Status touch(HeldOutput held);
  // The rest of check_submission(), of one that its consumer sent.
  Status check_own_submission(const records::SignedSubmission& s);
  Result<records::SealedOutput> stored_output(const OutputBody& out);
  // Where an output belongs, or that this very one is there already. kConflict, kWrongState and
  // those of own_environment(). Under the lock.
  struct OutputPlace {
    bool there = false;
    machines::Machine env, job;
  };
  Result<OutputPlace> place_for(const crypto::PublicKey& key, const records::OutputUpload& upload,
                                const Hash32& content);
  Status same_slot(const records::DestroyedClaim& claim);
  Result<std::int64_t> judge_at_ms(const Machine& out, const OutputBody& o);
  Status judge_later(const machines::Effect& effect, Machine out, OutputBody o, std::int64_t at_ms);
  Status take_credential(const machines::Effect& effect, const Result<Json>& reply);
  Status take_plan(const machines::Effect& effect, const Result<Json>& reply);
  Status take_judgement(const machines::Effect& effect, const Result<Json>& reply);
  Status take_receipt(const machines::Effect& effect, const Result<Json>& reply);
  Status done(const machines::Effect& effect);
  Status later(const machines::Effect& effect);
  Status fail_reviewing(const machines::Effect& effect, const Hash32& job_id, const Error& why);

  // Constant after construction.
  machines::Store& store_;
  OutputShelf& shelf_;
  const Clock& clock_;
  const CoreConfig config_;
  const records::SetChain::Keys keys_;
  const std::int64_t started_ms_;                  // by patience_ms(), as all times below
  std::int64_t listening_since_ms_ = started_ms_;  // guarded by mutex_
  const std::int64_t started_steady_ms_;
  std::int64_t remembered_ms_;                        // guarded by mutex_
  std::int64_t remember_revision_;                    // guarded by mutex_
  std::mutex mutex_;                                  // every public call that reads to write
  std::map<std::string, std::int64_t> last_seen_ms_;  // guarded by mutex_
  // When an assignment was last given out: a node asks for every slot, and shall not get one
  // attempt twice at once.
  std::map<std::string, std::int64_t> handed_ms_;  // guarded by mutex_
  // Up to where each node has looked through the queue and found nothing that it could ever run.
  std::map<std::string, std::pair<std::int64_t, std::string>> passed_;  // guarded by mutex_
  // Since when a node that is alive no longer names an attempt that it had begun.
  std::map<std::string, std::int64_t> missing_ms_;  // guarded by mutex_
  mutable std::mutex change_mutex_;
  mutable std::condition_variable changed_;
  std::uint64_t version_ = 1;  // guarded by change_mutex_
};

std::string job_machine(const Hash32& job_id);
std::string environment_machine(const Hash32& job_id, std::int64_t attempt);
std::string output_machine(const Hash32& job_id);
// Whether an error of the broker, or of a node, may be gone when the same is tried again.
bool passing(Reason reason);
Error from_outcome(const api::Outcome& outcome);
api::Outcome to_outcome(const Error& error);

}  // namespace gbx::plane
