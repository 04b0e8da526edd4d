// A node lies to the plane: in each message of an attempt, over the real endpoint, while another
// node runs another job. What is refused changes nothing. What is taken is the node's own word
// about itself, listed here with the reason why it harms nobody: whatever it says, the other node's
// job ends as it should, and of its own job nobody takes another output than the agent's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "capacity/capacity.h"
#include "channel/rpc.h"
#include "channel/tls.h"
#include "cli/delivery.h"
#include "cli/testing.h"
#include "lies.h"
#include "plane/plane_world.h"
#include "plane/service/node_endpoint.h"

namespace gbx::plane {
namespace {

using hostile::Choice;
using hostile::Harmless;
using hostile::Pool;
using testing::must;

// Two nodes with one job each; what the hostile one sends comes in steps.
class Story {
 public:
  Story() : log_(2, "plane", clock_, LogLevel::kError) {
    p.b.capacity = capacity::of_spec;
    must(p.b.start());
    p.allow_node(honest_);
    p.populate();
    p.add_node(honest_, "honest");
    NodeEndpointOptions o;
    o.requests = {.burst = 1'000'000, .per_second = 1'000, .at_one_time = 8};
    o.listen = {"127.0.0.1", 0};
    endpoint_ = must(NodeEndpoint::start(o, *p.core, plane_key_, clock_, log_));
    stream_ = must(channel::connect_tcp({"127.0.0.1", endpoint_->port()},
                                        channel::Deadline::after_ms(clock_, 5'000)));
    channel::TlsOptions tls{&clock_, &p.b.node,
                            channel::PeerPolicy::pin({plane_key_.public_key()})};
    tls_ = std::make_unique<channel::TlsChannel>(must(channel::TlsChannel::client(*stream_, tls)));
    rpc_ = std::make_unique<channel::RpcClient>(*tls_, clock_, kSealedBundleFrameBytes);
    steps_ = {
        {method::kNodeRegister, [this] { return to_json(p.info()); }},
        {method::kNodePoll,
         [this] {
           take();
           p.b.clock.advance(6'000);  // the answer may have been lost: it is handed out again
           return to_json(PollRequest{"n", 0});
         }},
        {method::kNodeHeartbeat,
         [this] {
           return to_json(Heartbeat{"n", {{mine_.job_id, 1}}, 0});
         }},
    };
    for (const auto phase : {EnvironmentPhase::kBooting, EnvironmentPhase::kAttested,
                             EnvironmentPhase::kLoaded, EnvironmentPhase::kWorking}) {
      steps_.push_back(
          {method::kNodePhase, [this, phase] { return to_json(p.phase(*mine_.work, phase)); }});
    }
    steps_.push_back({method::kNodeOutput, [this] { return to_json(seal(mine_)); }});
    steps_.push_back({method::kNodePhase,
                      [this] { return to_json(p.phase(*mine_.work, EnvironmentPhase::kSealed)); }});
    steps_.push_back({method::kNodeDestroyed, [this] { return to_json(p.claim(*mine_.work)); }});
  }
  ~Story() {
    rpc_.reset();
    tls_.reset();
    stream_.reset();
    endpoint_->stop();
  }
  std::size_t size() const { return steps_.size(); }
  std::string_view method(std::size_t step) const { return steps_[step].method; }
  Json message(std::size_t step) { return steps_[step].make(); }
  Result<Json> send(std::size_t step, const Json& body) {
    return rpc_->call(method(step), body, 30'000);
  }
  // The truth of all steps from this one on, whether it is still taken or not; then the other job.
  void go_on(std::size_t from) {
    for (std::size_t i = from; i < size(); ++i) (void)send(i, message(i));
    p.pump();
    if (!other_.work) return;
    must(p.core->output(honest_.public_key(), seal(other_)));
    p.pump();
  }
  std::int64_t commits() const { return p.store->commits; }

  // What its consumer gets of a job: files, or why there are none.
  Result<std::string> result_of(const Hash32& job) {
    GBX_ASSIGN(api::JobResult result, p.core->result(p.consumer(), job));
    GBX_ASSIGN(Receipt receipt, p.core->receipt(p.consumer(), job));
    GBX_ASSIGN(api::JobDetail detail, p.core->detail(p.consumer(), job));
    const cli::DeliveryInput in{must(p.b.set.chain.verify(p.b.set.id())),
                                job,
                                p.b.consumer.key.public_key(),
                                std::move(detail.submission),
                                std::move(receipt),
                                std::move(result),
                                capacity::of_spec};
    GBX_ASSIGN(const cli::Delivered d, cli::open_delivery(in, p.b.consumer.hpke));
    return std::string(as_text(d.files.at(0).content));
  }
  Hash32 mine() const { return mine_.job_id; }
  Hash32 other() const { return other_.job_id; }
  Plane p{false, 9};

 private:
  struct Step {
    std::string_view method;
    std::function<Json()> make;
  };
  struct Running {
    SignedSubmission submission;
    Hash32 job_id{};
    std::optional<LaunchBundle> work;
    std::optional<OutputUpload> upload;
  };
  // Both jobs are placed once; the same however often it is asked.
  void take() {
    if (mine_.work) return;
    for (auto [running, key] :
         {std::pair(&mine_, p.node()), std::pair(&other_, honest_.public_key())}) {
      running->submission = p.b.submission();
      running->job_id = p.submit(running->submission);
      p.pump();
      running->work = p.take(key);
    }
  }
  OutputUpload seal(Running& r) {
    if (!r.upload) {
      GateVerdict verdict = testing::clean_verdict();
      verdict.charge.free_bits =
          must(capacity::of_spec(r.submission.submission.body.spec.spec, {})).free_bits;
      auto job = testing::seal_a_job(p.b, r.submission, verdict);
      r.upload = OutputUpload{r.job_id, 1, std::move(job.ack), std::move(job.output)};
    }
    return *r.upload;
  }

  const SystemClock clock_;
  const Logger log_;
  SeededRandom random_{11};
  const crypto::SigningKey honest_ =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random_));
  const crypto::SigningKey plane_key_ =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random_));
  Running mine_, other_;
  std::vector<Step> steps_;
  std::unique_ptr<NodeEndpoint> endpoint_;
  std::unique_ptr<channel::FdStream> stream_;
  std::unique_ptr<channel::TlsChannel> tls_;
  std::unique_ptr<channel::RpcClient> rpc_;
};
// At the step that follows the truth of all before it.
std::unique_ptr<Story> story_until(std::size_t step) {
  auto s = std::make_unique<Story>();
  for (std::size_t i = 0; i < step; ++i) must(s->send(i, s->message(i)));
  (void)s->message(step);
  return s;
}

class NodeLies : public ::testing::Test {
 protected:
  void tell(std::size_t step, const hostile::Lie& lie, std::unique_ptr<Story>& story) {
    const auto body = parse_json(lie.text);
    if (!body.ok()) return;  // no frame holds it
    ++tried_;
    if (!story) story = story_until(step);
    const std::int64_t before = story->commits();
    const auto reply = story->send(step, *body);
    const std::string what = std::string(story->method(step)) + " " + lie.what();
    read(story->method(step), *body, reply, *story, what);
    if (!reply.ok()) {
      ++refused_[reply.reason()];
      EXPECT_NE(exit_class(reply.reason()), ExitClass::kInternal) << what;
      EXPECT_EQ(story->commits(), before) << what << " is refused and stored";
      return;
    }
    if (story->commits() == before) return;
    ++taken_;
    EXPECT_TRUE(harmless_.covers(std::string(story->method(step)) + " " + lie.place()))
        << what << " was taken";
    story->go_on(step);
    const auto other = story->result_of(story->other());
    EXPECT_TRUE(other.ok()) << what << ": " << (other.ok() ? "" : other.error().line());
    const auto mine = story->result_of(story->mine());
    if (mine.ok()) {
      EXPECT_EQ(*mine, *other) << what;  // both agents' outputs have one text
    } else {
      EXPECT_NE(exit_class(mine.reason()), ExitClass::kInternal) << what << mine.error().line();
    }
    story.reset();
  }
  // Whatever comes back, stored or not: nothing of the other node's, and of its own job no more
  // than an honest node is told.
  void read(std::string_view m, const Json& asked, const Result<Json>& reply, const Story& story,
            const std::string& what) {
    const std::string said = reply.ok() ? canonical(*reply) : reply.error().line();
    const std::string other = to_hex(story.other());
    if (canonical(asked).find(other) == std::string::npos) {
      EXPECT_EQ(said.find(other), std::string::npos) << what << ": " << said.substr(0, 400);
    }
    if (!reply.ok()) return;
    if (m == method::kNodePoll) {
      const auto poll = must(from_json<PollReply>(*reply));
      if (!poll.assignment) return;
      ++handed_;
      EXPECT_EQ(poll.assignment->submission.submission.body.job_id(), story.mine()) << what;
      EXPECT_EQ(poll.assignment->credential.body.job_id, story.mine()) << what;
    } else if (m == method::kNodeRegister || m == method::kNodeHeartbeat) {
      const auto beat = from_json<Heartbeat>(asked);
      const auto own = beat.ok() ? beat->running : std::vector<RunningAttempt>{};
      for (const auto& stop : must(from_json<NodeLease>(*reply)).stop) {
        EXPECT_EQ(std::count(own.begin(), own.end(), stop), 1) << what;
      }
    } else if (m == method::kNodePhase) {
      must(from_json<PhaseReply>(*reply));
    } else {
      EXPECT_EQ(*reply, to_json(Empty{})) << what;
    }
  }
  int tried_ = 0;
  int taken_ = 0;
  int handed_ = 0;  // bundles, in answers to lies
  std::map<Reason, int> refused_;
  Harmless harmless_{
      {"node.register body*", "what a node says that it lends is its own offer"},
      {"node.phase body", "another of its own reports, sooner or later than its turn"},
      {"node.phase body.phase", "how far its own attempt is, or that it has ended"},
      {"node.phase body.reason", "why its own attempt ended"},
      {"node.phase body.detail", "why its own attempt ended, for people"},
      {"node.output body.output*", "ciphertext: the broker's manifest or the recipient refuses it"},
  };
};

TEST_F(NodeLies, OnlyItsOwnAttemptSuffers) {
  Choice choice;
  Pool pool;
  std::vector<Json> messages;
  auto truth = std::make_unique<Story>();
  for (std::size_t i = 0; i < truth->size(); ++i) {
    messages.push_back(truth->message(i));
    pool.collect(messages.back());
    must(truth->send(i, messages.back()));
  }
  truth->go_on(truth->size());
  EXPECT_EQ(must(truth->result_of(truth->mine())), must(truth->result_of(truth->other())));
  pool.collect(to_json(JobRequest{truth->other()}));
  truth.reset();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    std::unique_ptr<Story> story;
    for (const auto& lie : choice.some(lies_about(pool, messages[i]), 6)) tell(i, lie, story);
  }
  std::printf("%d lies (GBX_LIES=%s), %d of them taken\n", tried_, choice.text().c_str(), taken_);
  for (const auto& [reason, n] : refused_) {
    std::printf("%6d %s\n", n, std::string(reason_code(reason)).c_str());
  }
  EXPECT_GT(tried_, 250);
  EXPECT_GT(handed_, 0);  // or nothing was read that could be another's
  if (!choice.all()) return;
  for (const auto& place : harmless_.unused()) {
    std::printf("nothing was taken: %s\n", place.c_str());
  }
}

}  // namespace
}  // namespace gbx::plane
