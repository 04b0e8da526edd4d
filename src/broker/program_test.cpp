// The program as it is: started with a passphrase, spoken to over TLS, killed, started again.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/custody.h"
#include "broker/testing.h"
#include "capacity/capacity.h"
#include "channel/net.h"
#include "channel/rpc.h"
#include "channel/tls.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::FakeAgent;
using gbx::testing::make_agent;
using gbx::testing::make_publish;
using gbx::testing::must;

constexpr char kPassphrase[] = "correct horse battery";
constexpr crypto::ScryptParameters kCheap{1U << 10, 8, 1};

struct Ready {
  std::string address;
  std::string set_id;
  template <class F>
  void fields(F& f) {
    f("address", address);
    f("setId", set_id);
  }
};

// One TLS connection to the broker.
class Connection {
 public:
  Connection(const std::string& address, const crypto::PublicKey& broker,
             const crypto::SigningKey* own) {
    const auto to = must(channel::TcpAddress::from_text(address));
    stream_ = must(channel::connect_tcp(to, channel::Deadline::after_ms(clock_, 5000)));
    channel::TlsOptions options;
    options.clock = &clock_;
    options.key = own;
    options.peer = channel::PeerPolicy::pin({broker});
    tls_.emplace(must(channel::TlsChannel::client(*stream_, options)));
    rpc_ = std::make_unique<channel::RpcClient>(*tls_, clock_);
    context.exporter = must(tls_->exporter(kExporterLabel, {}));
    if (own != nullptr) context.peer_key = own->public_key();
  }
  Result<Json> call(std::string_view method, const Json& body) {
    return rpc_->call(method, body, 10'000);
  }
  ConnectionContext context;

 private:
  SystemClock clock_;
  std::unique_ptr<channel::FdStream> stream_;
  std::optional<channel::TlsChannel> tls_;
  std::unique_ptr<channel::RpcClient> rpc_;
};

class Program : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/gbx-broker-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    dir_ = name;
  }
  void TearDown() override { EXPECT_TRUE(remove_tree(dir_).ok()); }
  static std::string binary() {
    const char* dir = getenv("GBX_BIN_DIR");
    return (dir == nullptr ? program_dir() : std::string(dir)) + "/glovebox-broker";
  }
  static Fd passphrase(std::string_view text) {
    auto pipe = must(make_pipe());
    must(write_all(pipe.second.get(), as_bytes(text)));
    return std::move(pipe.first);
  }
  ProcessOptions options(std::vector<std::string> arguments, const Fd& pass) const {
    ProcessOptions o;
    o.argv = {binary()};
    o.argv.insert(o.argv.end(), arguments.begin(), arguments.end());
    o.descriptors[3] = pass.get();
    return o;
  }
  RunOutput run(std::vector<std::string> arguments, std::string_view pass) const {
    const Fd fd = passphrase(pass);
    return must(run_command(options(std::move(arguments), fd)));
  }
  void start() {
    auto ready = must(make_pipe());
    const Fd pass = passphrase(kPassphrase);
    ProcessOptions o =
        options({"serve", "--state", dir_, "--listen", "127.0.0.1:0", "--plane",
                 plane_key_.public_key().text(), "--passphrase-fd", "3", "--ready-fd", "4"},
                pass);
    o.descriptors[4] = ready.second.get();
    const Fd log(::open((dir_ + "/said").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    o.descriptors[2] = log.get();
    process_ = must(spawn(o));
    ready.second.reset();
    const Bytes text = must(read_all(ready.first.get(), 4096));
    ASSERT_FALSE(text.empty()) << "the broker did not start";
    ready_ = must(from_json_text<Ready>(as_text(text)));
    if (resumes_) must(resume());
  }
  // What the plane does first on each connection.
  Result<Signed<LogHead>> resume() const {
    Connection plane(ready_.address, *broker_key_, &plane_key_);
    GBX_ASSIGN(Json reply, plane.call(method::kResume, to_json(ResumeRequest{seen_})));
    return from_json<Signed<LogHead>>(reply);
  }
  // The newest head, which the plane keeps.
  void see_head() {
    Connection plane(ready_.address, *broker_key_, &plane_key_);
    seen_ = must(from_json<Signed<LogHead>>(must(plane.call(method::kHead, to_json(Empty{})))));
  }
  ExitStatus stop() {
    must(process_.signal(SIGTERM));
    return *must(process_.wait(10'000));
  }
  // Starts the program with the world's key set, at the present time: the world's policies hold
  // until what it returns.
  std::int64_t serve(BrokerWorld& w) {
    w.clock = ManualClock(SystemClock().now().ms);
    const std::int64_t later = SystemClock().now().seconds() + 10'000;
    for (auto* a : {&w.data, &w.image}) a->policy.clauses.not_after = later;
    write_state(w.set, w.random);
    start();
    return later;
  }
  // A connection by this key; null: by none.
  std::unique_ptr<Connection> open(const BrokerWorld& w, const crypto::SigningKey* own) const {
    return std::make_unique<Connection>(ready_.address, w.set.tls.public_key(), own);
  }
  // Published, submitted and allowed.
  static std::pair<SignedSubmission, Signed<RunPlan>> allow(BrokerWorld& w, std::int64_t later) {
    must(w.publish(w.data));
    must(w.publish(w.image));
    SignedSubmission s = w.submission();
    s.leases[0].body.not_after = later;
    s.leases[0] = must(sign(w.set.id(), s.leases[0].body, w.owner.key));
    s.submission.body.not_after = later;
    resign(s, w.set.id(), w.consumer);
    auto plan = must(w.authorise(s));
    return {std::move(s), std::move(plan)};
  }
  // The world's key set, as init would have written it.
  void write_state(const gbx::testing::KeySet& set, Random& random) {
    const auto clone = [](const crypto::SigningKey& k) {
      return must(crypto::SigningKey::from_private(k.public_key().algorithm(),
                                                   k.private_bytes(SecretAccess{})));
    };
    broker_key_ = set.tls.public_key();
    const SetKeys keys{clone(set.set_key), clone(set.signing), clone(set.tls),
                       must(crypto::HpkeKeyPair::from_private(set.kek.private_key())), set.chain};
    const auto pass = Passphrase::copy_of(as_bytes(kPassphrase));
    must(write_file_atomic(dir_ + "/keys.sealed", must(seal_keys(keys, pass, kCheap, random)),
                           0600));
    must(open_sqlite_store(dir_ + "/log.db"));
    must(write_file_atomic(dir_ + "/set.json", as_bytes(canonical(to_json(set.chain))), 0644));
  }

  std::string dir_;
  SystemRandom random_;
  const crypto::SigningKey plane_key_ =
      must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random_));
  std::optional<crypto::PublicKey> broker_key_;
  std::optional<Signed<LogHead>> seen_;  // by the plane
  bool resumes_ = true;                  // the plane is there when the broker starts
  Process process_;
  Ready ready_;
};

TEST_F(Program, InitFingerprintAndWrongPassphrase) {
  const auto init = run({"init", "--state", dir_ + "/state", "--passphrase-fd", "3"}, kPassphrase);
  ASSERT_EQ(init.status.code, 0) << init.err;
  const std::string id = init.out.substr(0, init.out.find('\n'));
  EXPECT_EQ(id.size(), 64u);
  const auto again = run({"init", "--state", dir_ + "/state", "--passphrase-fd", "3"}, kPassphrase);
  EXPECT_EQ(again.status.code, static_cast<int>(exit_class(Reason::kAlreadyExists)));
  EXPECT_EQ(run({"fingerprint", "--state", dir_ + "/state"}, "").out, id + "\n");
  const std::vector<std::string> serve = {"serve",    "--state",     dir_ + "/state",
                                          "--listen", "127.0.0.1:0", "--passphrase-fd",
                                          "3",        "--plane"};
  const auto with_plane = [&](const std::string& key) {
    auto arguments = serve;
    arguments.push_back(key);
    return arguments;
  };
  EXPECT_EQ(run(with_plane("somebody"), kPassphrase).status.code,
            static_cast<int>(ExitClass::kUsage));
  const auto wrong = run(with_plane(plane_key_.public_key().text()), "wrong horse battery");
  EXPECT_EQ(wrong.status.code, static_cast<int>(exit_class(Reason::kWrongPassphrase)));
  EXPECT_NE(wrong.err.find("wrong-passphrase"), std::string::npos) << wrong.err;
  // A set whose log is gone does not begin anew.
  ASSERT_EQ(unlink((dir_ + "/state/log.db").c_str()), 0);
  const auto lost = run(with_plane(plane_key_.public_key().text()), kPassphrase);
  EXPECT_EQ(lost.status.code, static_cast<int>(exit_class(Reason::kDatabase)));
  EXPECT_NE(lost.err.find("database: the log of this key set is missing"), std::string::npos)
      << lost.err;
  EXPECT_NE(lost.err.find("backup"), std::string::npos) << lost.err;
  EXPECT_FALSE(path_exists(dir_ + "/state/log.db"));
  EXPECT_EQ(run({"destroy"}, "").status.code, static_cast<int>(ExitClass::kUsage));
  EXPECT_EQ(run({"serve", "--force", "yes"}, "").status.code, static_cast<int>(ExitClass::kUsage));
}

TEST_F(Program, AJobOverTlsAndAKillInBetween) {
  BrokerWorld w(70);
  const std::int64_t later = serve(w);
  EXPECT_EQ(ready_.set_id, to_hex(w.set.id()));
  auto plane = open(w, &plane_key_);
  std::unique_ptr<Connection> agent_connection;
  w.remote = [&](std::string_view method, const Json& body, const ConnectionContext& c) {
    return c.peer_key ? agent_connection->call(method, body) : plane->call(method, body);
  };
  const auto info = must(w.call<InfoReply>(method::kInfo, InfoRequest{Nonce32{1}}));
  EXPECT_TRUE(info.set.verify(w.set.id()).ok());
  const auto [s, plan] = allow(w, later);
  const auto credential = must(w.credential(plan.body.job_id, 1));
  FakeAgent agent = make_agent(w.random);
  agent_connection = open(w, &agent.tls);
  const Hash32 evidence = must(w.attest(agent, credential, agent_connection->context));
  const auto first = must(w.key(agent, credential.body, evidence, 1, agent_connection->context));
  // Killed without warning. The agent comes back with the same keys and the same request.
  must(process_.signal(SIGKILL));
  must(process_.wait(10'000));
  start();
  plane = open(w, &plane_key_);
  agent_connection = open(w, &agent.tls);
  EXPECT_EQ(must(w.attest(agent, credential, agent_connection->context)), evidence);
  const auto replay =
      must(w.call<KeyReply>(method::kKey, agent.sent[0], agent_connection->context));
  EXPECT_EQ(canonical(to_json(replay)), canonical(to_json(first)));
  must(w.key(agent, credential.body, evidence, 2, agent_connection->context));
  GateVerdict verdict = clean_verdict();
  verdict.charge.free_bits =
      must(capacity::of_spec(s.submission.body.spec.spec, {})).free_bits;  // as the program reckons
  const auto sealed = w.make_seal(agent, s, plan, 1, evidence, verdict);
  must(w.seal(sealed.seal, agent_connection->context));
  const auto j = must(w.judge(plan.body.job_id));
  ASSERT_EQ(j.state, JudgementState::kReleased);
  const auto& manifest = sealed.seal.statement.body.manifest;
  EXPECT_TRUE(
      open_result(w.consumer.hpke, 0, manifest, sealed.output, j.release->outer_keys[0]).ok());
  // A key that was proved to nobody is no agent's.
  EXPECT_EQ(plane->call(method::kKey, to_json(agent.sent[0])).reason(), Reason::kUnauthenticated);
  must(process_.signal(SIGTERM));
  const auto end = must(process_.wait(10'000));
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->code, 0);
}

// An operator who puts an old log.db back, with the passphrase and all that belongs to it.
TEST_F(Program, AnOldLogEndsItAndTheNewestOneGoesOn) {
  BrokerWorld w(74);
  write_state(w.set, w.random);
  start();
  const auto publish = [&](gbx::testing::Asset& a) {
    Connection plane(ready_.address, *broker_key_, &plane_key_);
    must(plane.call(method::kPublish, to_json(make_publish(w.set, a, w.random))));
    see_head();
  };
  const auto copy = [&](const std::string& from, const std::string& to) {
    must(write_file_atomic(dir_ + to, must(read_file(dir_ + from, 64U << 20)), 0600));
  };
  publish(w.data);
  EXPECT_EQ(stop().code, 0);
  copy("/log.db", "/old.db");
  start();
  publish(w.image);
  EXPECT_EQ(stop().code, 0);
  copy("/log.db", "/new.db");
  copy("/old.db", "/log.db");
  resumes_ = false;
  start();
  // Nobody is served before the plane has spoken, and its refusal arrives before the program ends.
  const FakeAgent agent = make_agent(w.random);
  Connection stranger(ready_.address, *broker_key_, &agent.tls);
  EXPECT_EQ(stranger.call(method::kHello, to_json(CredentialRequest{})).reason(),
            Reason::kUnavailable);
  EXPECT_TRUE(stranger.call(method::kInfo, to_json(InfoRequest{Nonce32{1}})).ok());
  const auto refused = resume();
  EXPECT_EQ(refused.reason(), Reason::kLogRolledBack);
  EXPECT_NE(refused.error().next.find("log.db"), std::string::npos);
  const auto ended = must(process_.wait(10'000));
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->code, static_cast<int>(exit_class(Reason::kLogRolledBack)));
  const std::string text = must(read_text_file(dir_ + "/said", 1 << 20));
  EXPECT_NE(text.find("glovebox-broker: log-rolled-back"), std::string::npos) << text;
  EXPECT_NE(text.find("next: stop everything"), std::string::npos) << text;
  copy("/new.db", "/log.db");
  start();
  EXPECT_TRUE(resume().ok());
  EXPECT_EQ(stop().code, 0);
}

// Whoever reaches the port: with no key, with a key of his own, with an agent's.
TEST_F(Program, StrangersGetEvidenceAndNothingElse) {
  BrokerWorld w(71);
  write_state(w.set, w.random);
  start();
  const FakeAgent agent = make_agent(w.random);
  for (const crypto::SigningKey* own :
       {static_cast<const crypto::SigningKey*>(nullptr), &agent.tls}) {
    SCOPED_TRACE(own == nullptr ? "no key" : "a key of his own");
    Connection c(ready_.address, w.set.tls.public_key(), own);
    EXPECT_TRUE(c.call(method::kInfo, to_json(InfoRequest{Nonce32{1}})).ok());
    EXPECT_EQ(c.call(method::kPublish, to_json(make_publish(w.set, w.data, w.random))).reason(),
              Reason::kUnauthenticated);
    EXPECT_EQ(c.call(method::kReceipt, to_json(JobRequest{})).reason(), Reason::kUnauthenticated);
    const auto hello = c.call(method::kHello, to_json(CredentialRequest{}));
    EXPECT_EQ(hello.reason(), own == nullptr ? Reason::kUnauthenticated : Reason::kNotFound);
    // What a job has is its agent's.
    const FakeAgent agent_of_none = make_agent(w.random);
    const auto request = w.key_request(agent_of_none, Credential{}, Hash32{}, 1);
    EXPECT_EQ(c.call(method::kKey, to_json(request)).reason(), Reason::kUnauthenticated);
    // Frames of a receipt's size are the plane's; the connection ends.
    Json large;
    large["text"] = std::string(2 << 20, 'x');
    EXPECT_FALSE(c.call(method::kInfo, large).ok());
    EXPECT_EQ(c.call(method::kInfo, to_json(InfoRequest{})).reason(), Reason::kConnectionClosed);
  }
  Connection plane(ready_.address, w.set.tls.public_key(), &plane_key_);
  EXPECT_TRUE(plane.call(method::kPublish, to_json(make_publish(w.set, w.data, w.random))).ok());
}

// Whoever reaches the port cannot fill the log, and whoever goes in order is no error in it.
TEST_F(Program, FailuresOfStrangersAreOneLine) {
  BrokerWorld w(73);
  write_state(w.set, w.random);
  start();
  SystemClock clock;
  const auto to = must(channel::TcpAddress::from_text(ready_.address));
  for (int i = 0; i < 40; ++i) {
    const auto stream = must(channel::connect_tcp(to, channel::Deadline::after_ms(clock, 5000)));
    must(stream->write_all(as_bytes("no TLS at all"), channel::Deadline::after_ms(clock, 5000)));
  }
  // Nor with requests that are refused.
  for (int i = 0; i < 5; ++i) {
    const FakeAgent other = make_agent(w.random);
    Connection stranger(ready_.address, w.set.tls.public_key(), &other.tls);
    for (std::size_t n = 0; n < kHellosPerConnection + 8; ++n) {
      const auto hello = stranger.call(method::kHello, to_json(CredentialRequest{}));
      EXPECT_EQ(hello.reason(), Reason::kNotFound);
    }
  }
  { Connection plane(ready_.address, w.set.tls.public_key(), &plane_key_); }
  must(process_.signal(SIGTERM));
  must(process_.wait(10'000));
  const std::string text = must(read_text_file(dir_ + "/said", 1 << 20));
  const auto first = text.find("strangers-failed");
  EXPECT_NE(first, std::string::npos) << text;
  EXPECT_EQ(text.find("strangers-failed", first + 1), std::string::npos) << text;
  EXPECT_EQ(text.find("\"error\""), std::string::npos) << text;
  EXPECT_EQ(text.find("refused"), std::string::npos) << text;
}

// Keys are free: hundreds of them keep neither the plane nor an agent out, nor those away who are
// there.
TEST_F(Program, ManyStrangersKeepNobodyOut) {
  BrokerWorld w(72);
  const std::int64_t later = serve(w);
  auto plane = open(w, &plane_key_);
  std::unique_ptr<Connection> agent_connection;
  w.remote = [&](std::string_view method, const Json& body, const ConnectionContext& c) {
    return c.peer_key ? agent_connection->call(method, body) : plane->call(method, body);
  };
  const auto plan = allow(w, later).second;
  const auto credential = must(w.credential(plan.body.job_id, 1));
  FakeAgent agent = make_agent(w.random);
  agent_connection = open(w, &agent.tls);
  const Hash32 evidence = must(w.attest(agent, credential, agent_connection->context));
  std::vector<std::unique_ptr<Connection>> idle;
  for (int i = 0; i < 530; ++i) {
    const FakeAgent other = make_agent(w.random);
    idle.push_back(open(w, &other.tls));
  }
  must(w.key(agent, credential.body, evidence, 1, agent_connection->context));
  EXPECT_TRUE(plane->call(method::kInfo, to_json(InfoRequest{Nonce32{1}})).ok());
  plane = open(w, &plane_key_);
  EXPECT_EQ(plane->call(method::kReceipt, to_json(JobRequest{plan.body.job_id})).reason(),
            Reason::kWrongState);
  agent_connection = open(w, &agent.tls);
  EXPECT_EQ(must(w.attest(agent, credential, agent_connection->context)), evidence);
}

// Requests as fast as one key can send them, and connections as many as it can open.
TEST_F(Program, AFloodByOneKeyLeavesOthersTheirShare) {
  BrokerWorld w(74);
  (void)serve(w);
  const FakeAgent flood = make_agent(w.random);
  const auto ask = [](Connection& c) {
    const auto reply = c.call(method::kInfo, to_json(InfoRequest{Nonce32{1}}));
    return reply.ok() ? std::nullopt : std::optional(reply.reason());
  };
  const auto busy = open(w, &flood.tls);
  std::optional<Reason> last;
  for (int i = 0; i < 50'000 && !last; ++i) last = ask(*busy);
  EXPECT_EQ(last, Reason::kRateLimited);
  const FakeAgent quiet = make_agent(w.random);
  EXPECT_FALSE(ask(*open(w, &quiet.tls)));
  auto plane = open(w, &plane_key_);
  for (int i = 0; i < 300; ++i) ASSERT_FALSE(ask(*plane));  // it has no share: it is one
  // Of twenty connections of one key sixteen stay; who proved another key is not in their way.
  const FakeAgent many = make_agent(w.random);
  std::vector<std::unique_ptr<Connection>> held;
  int answered = 0;
  for (int i = 0; i < 20; ++i) {
    held.push_back(open(w, &many.tls));
    answered += ask(*held.back()) ? 0 : 1;
  }
  EXPECT_EQ(answered, 16);
}

}  // namespace
}  // namespace gbx::broker
