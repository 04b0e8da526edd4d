// Every message of every method, broken in one place: made from the same fields() that read it, so
// a new member or method is met without a word here. Each is refused by name, and nothing is kept.
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>
#include <set>

#include "base/os.h"
#include "base/schema.h"
#include "broker/testing.h"
#include "channel/tls.h"
#include "machines/store.h"
#include "plane/api/negatives.h"
#include "plane/service/node_endpoint.h"

namespace gbx {
namespace {

using namespace gbx::records;  // NOLINT
using plane::api::negatives_of;
using plane::api::sample_of;
using testing::BrokerWorld;
using testing::must;

struct Message {
  std::string_view method;
  Json schema;
  Json sample;  // genuine where it is easily had, else the least that the schema takes
};
template <class Request>
Message message(std::string_view method) {
  return {method, json_schema<Request>(), sample_of(json_schema<Request>())};
}
template <class Request>
Message message(std::string_view method, const Request& genuine) {
  return {method, json_schema<Request>(), to_json(genuine)};
}

// What says that a message is not one. Anything else would be a decision about a broken message.
void expect_refused(const Result<Json>& reply, const std::string& name) {
  static const std::set<Reason> kShape = {Reason::kMissingField, Reason::kUnknownField,
                                          Reason::kBadValue, Reason::kBadEncoding,
                                          Reason::kTooLarge};
  ASSERT_FALSE(reply.ok()) << name;
  EXPECT_EQ(kShape.count(reply.reason()), 1U) << name << ": " << reply.error().line();
}

// The methods of these programs, as the contract lists them.
std::set<std::string> listed(const std::string& programs) {
  const char* root = std::getenv("GBX_SOURCE_DIR");
  const std::string folder = std::string(root != nullptr ? root : ".") + "/src/records";
  const std::regex name("\"((?:" + programs + ")\\.[a-z-]+)\"");
  std::set<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".h") continue;
    const std::string text = must(read_text_file(entry.path().string(), 1U << 20));
    for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end; ++it) {
      out.insert((*it)[1]);
    }
  }
  return out;
}
std::set<std::string> methods_of(const std::vector<Message>& messages) {
  std::set<std::string> out;
  for (const Message& m : messages) out.emplace(m.method);
  return out;
}

std::vector<Message> to_broker(BrokerWorld& w, const BrokerWorld::Run& run,
                               const BrokerWorld::Sealed& sealed) {
  const CredentialRequest attempt{run.job_id(), 1};
  const Cancel cancel{run.job_id(), w.consumer.id(), testing::kNow};
  return {
      message<InfoRequest>(method::kInfo),
      message(method::kPublish, testing::make_publish(w.set, w.data, w.random)),
      message<RotateRequest>(method::kRotate),
      message(method::kExplain, w.submission()),
      message(method::kAuthorise, w.submission()),
      message(method::kCancel,
              CancelRequest{w.consumer.chain, must(sign(w.set.id(), cancel, w.consumer.key))}),
      message(method::kCredential, attempt),
      message(method::kJudge, JobRequest{run.job_id()}),
      message<RulingRequest>(method::kRuling),
      message(method::kReceipt, JobRequest{run.job_id()}),
      message<BeaconRequest>(method::kBeacon),
      message(method::kLedger, LedgerRequest{w.data.record.asset_id, {}, w.consumer.id(), 0}),
      message<HeldLedgerRequest>(method::kHeldLedger),
      message(method::kResume, ResumeRequest{w.head()}),
      message<Empty>(method::kHead),
      message(method::kHello, attempt),
      message(method::kAttest,
              w.attest_request(run.agent, run.credential, Nonce32{}, run.connection)),
      message(method::kKey, w.key_request(run.agent, run.credential.body, run.evidence, 1)),
      message(method::kSeal, sealed.seal),
  };
}

TEST(BadMessages, ToTheBroker) {
  BrokerWorld w(120);
  w.start_and_publish();
  auto run = w.run_until_attested(w.submission());
  const auto sealed =
      w.make_seal(run.agent, run.submission, run.plan, 1, run.evidence, testing::clean_verdict());
  const auto messages = to_broker(w, run, sealed);
  EXPECT_EQ(methods_of(messages), listed("broker|agent"));
  const std::string before = canonical(w.core->state().snapshot());
  const auto size = w.core->log_size();
  std::size_t count = 0;
  for (const Message& m : messages) {
    const bool agent = m.method.starts_with("agent.");
    for (const auto& bad : negatives_of(m.schema, m.sample)) {
      expect_refused(
          w.core->handle(m.method, bad.document, agent ? run.connection : w.plane(), w.clock.now()),
          std::string(m.method) + ": " + bad.name);
      ASSERT_EQ(w.core->log_size(), size) << m.method << ": " << bad.name;
      ++count;
    }
  }
  EXPECT_GT(count, 2'000U);
  EXPECT_EQ(canonical(w.core->state().snapshot()), before);
  // Whoever was attested before still is, and its job ends as it would have.
  for (const int stage : {1, 2}) {
    must(w.key(run.agent, run.credential.body, run.evidence, stage, run.connection));
  }
  must(w.seal(sealed.seal, run.connection));
  EXPECT_EQ(must(w.judge(run.job_id())).state, JudgementState::kReleased);
}

// A plane without its loop: what changes in the store changed by a node's message.
class NodeMessages : public ::testing::Test {
 protected:
  void SetUp() override {
    must(w_.start());
    config_.set = w_.set.chain;
    config_.set_id = w_.set.id();
    core_ = must(plane::Core::create(store_, shelf_, clock_, config_));
    must(core_->enrol_node("n", w_.node.public_key().text()));
    plane::NodeEndpointOptions options;
    options.listen = {"127.0.0.1", 0};
    options.requests.burst = 1'000'000;
    endpoint_ = must(plane::NodeEndpoint::start(options, *core_, plane_key_, clock_, log_));
    socket_ = must(channel::connect_tcp({"127.0.0.1", endpoint_->port()},
                                        channel::Deadline::after_ms(clock_, 10'000)));
    channel::TlsOptions tls;
    tls.clock = &clock_;
    tls.key = &w_.node;
    tls.peer = channel::PeerPolicy::pin({plane_key_.public_key()});
    tls_ = std::make_unique<channel::TlsChannel>(must(channel::TlsChannel::client(*socket_, tls)));
    rpc_ = std::make_unique<channel::RpcClient>(*tls_, clock_);
  }
  void TearDown() override {
    rpc_.reset();
    tls_.reset();
    socket_.reset();
    endpoint_->stop();
  }
  NodeInfo info() {
    return {"n",
            w_.node.public_key().text(),
            {Technology::kNone},
            8,
            std::int64_t{8} << 30,
            1,
            "test",
            kMaxPids,
            {}};
  }

  BrokerWorld w_{121};
  SystemClock clock_;
  Logger log_{2, "plane", clock_, LogLevel::kError};
  machines::MemoryStore store_;
  plane::MemoryShelf shelf_;
  plane::CoreConfig config_;
  crypto::SigningKey plane_key_ =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, w_.random));
  std::unique_ptr<plane::Core> core_;
  std::unique_ptr<plane::NodeEndpoint> endpoint_;
  std::unique_ptr<channel::FdStream> socket_;
  std::unique_ptr<channel::TlsChannel> tls_;
  std::unique_ptr<channel::RpcClient> rpc_;
};

TEST_F(NodeMessages, ToThePlane) {
  must(rpc_->call(method::kNodeRegister, to_json(info()), 10'000));
  const std::vector<Message> messages = {
      message(method::kNodeRegister, info()),
      message<Heartbeat>(method::kNodeHeartbeat),
      message<PollRequest>(method::kNodePoll),
      message<PhaseReport>(method::kNodePhase),
      message<OutputUpload>(method::kNodeOutput),
      message<Signed<DestroyedClaim>>(method::kNodeDestroyed),
  };
  EXPECT_EQ(methods_of(messages), listed("node"));
  const auto before = core_->version();
  std::size_t count = 0;
  for (const Message& m : messages) {
    for (const auto& bad : negatives_of(m.schema, m.sample)) {
      expect_refused(rpc_->call(m.method, bad.document, 10'000),
                     std::string(m.method) + ": " + bad.name);
      ASSERT_FALSE(rpc_->broken()) << m.method << ": " << bad.name;
      ++count;
    }
  }
  EXPECT_GT(count, 200U);
  EXPECT_EQ(core_->version(), before);
  EXPECT_TRUE(rpc_->call(method::kNodeRegister, to_json(info()), 10'000).ok());
}

}  // namespace
}  // namespace gbx
