#include "plane/service/server.h"

#include <algorithm>

#include "base/private_file.h"
#include "plane/service/api.h"
#include "plane/service/dispatcher.h"
#include "plane/service/node_endpoint.h"
#include "plane/store/sqlite_store.h"
#include "storage/directory_store.h"

namespace gbx::plane {

namespace {

constexpr std::int64_t kCertificateYears = 10;
constexpr std::int64_t kYearSeconds = 366 * 86'400;
constexpr std::int64_t kFirstInviteDays = 7;  // from each start on
constexpr std::int64_t kPeopleInviteUses = 20;

// 32 raw bytes, mode 0600, made on first use.
Result<crypto::SigningKey> load_key(const std::string& path, crypto::SignatureAlgorithm algorithm,
                                    Random& random) {
  if (!path_exists(path)) {
    GBX_ASSIGN(crypto::SigningKey fresh, crypto::SigningKey::generate(algorithm, random));
    const auto raw = fresh.private_bytes(SecretAccess{});
    GBX_TRY(write_file_atomic(path, raw.view(SecretAccess{}), 0600));
    return fresh;
  }
  GBX_ASSIGN(Bytes raw, read_private_file(path, 32));
  const auto secret = Secret<SigningKeyTag>::copy_of(raw);
  cleanse(raw);
  auto key = crypto::SigningKey::from_private(algorithm, secret);
  if (!key.ok()) return key.error().at(path);
  return key;
}

constexpr char kNodeKey[] = "node.key";
Result<crypto::SigningKey> load_node_key(const std::string& state_dir, Random& random) {
  GBX_TRY(make_dirs(state_dir, 0700));
  return load_key(state_dir + "/" + kNodeKey, crypto::SignatureAlgorithm::kEd25519, random);
}

// Issued on first start and again when other names are asked for; the authority's key stays the
// same.
struct Certificates {
  Bytes ca;
  Bytes server;
  std::vector<std::string> names;
  std::int64_t not_after = 0;
  template <class F>
  void fields(F& f) {
    f("ca", ca);
    f("server", server);
    f("names", names);
    f("notAfter", not_after);
  }
};
bool is_address(const std::string& name) {
  return name.find(':') != std::string::npos || std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= '0' && c <= '9') || c == '.';
         });
}
Result<Certificates> certificates(const std::string& path, const crypto::SigningKey& ca,
                                  const crypto::SigningKey& server, std::vector<std::string> names,
                                  std::int64_t now) {
  if (path_exists(path)) {
    GBX_ASSIGN(std::string text, read_text_file(path, 1U << 20));
    auto old = from_json_text<Certificates>(text);
    if (!old.ok()) return old.error().at(path);
    if (old->names == names && old->not_after > now + kYearSeconds / 12) return old;
  }
  std::vector<std::string> dns;
  std::vector<std::string> ip;
  for (const std::string& n : names) (is_address(n) ? ip : dns).push_back(n);
  Certificates c;
  c.not_after = now + kCertificateYears * kYearSeconds;
  GBX_ASSIGN(crypto::ServerCertificate issued,
             crypto::issue_server_certificate(ca, server, dns, ip, now - 86'400, c.not_after));
  c.ca = std::move(issued.ca_der);
  c.server = std::move(issued.server_der);
  c.names = std::move(names);
  GBX_TRY(write_file_atomic(path, as_bytes(canonical(to_json(c))), 0600));
  return c;
}

class DirectoryShelf final : public OutputShelf {
 public:
  explicit DirectoryShelf(std::unique_ptr<storage::ObjectStore> store) : store_(std::move(store)) {}
  Status put(const std::string& name, ByteView content) override {
    const Status s = store_->put(name, content);
    // names are hashes of the content
    return !s.ok() && s.reason() == Reason::kAlreadyExists ? ok_status() : s;
  }
  Result<Bytes> get(const std::string& name) override { return store_->get_all(name, 256U << 20); }

 private:
  std::unique_ptr<storage::ObjectStore> store_;
};

struct ReadyLine {
  std::string https;
  std::string nodes;
  std::string ca;
  std::string node_key;
  bool operator_enrolled = false;
  std::string broker_trouble;  // why the broker does not go on; empty: nothing known
  template <class F>
  void fields(F& f) {
    f("https", https);
    f("nodes", nodes);
    f("ca", ca);
    f("nodeKey", node_key);
    f("operator", operator_enrolled);
    f("brokerTrouble", broker_trouble);
  }
};

}  // namespace

Result<crypto::PublicKey> plane_key(const std::string& state_dir, Random& random) {
  GBX_ASSIGN(crypto::SigningKey key, load_node_key(state_dir, random));
  return key.public_key();
}

struct PlaneServer::Parts {
  const Clock& clock;
  Random& random;
  const Logger& log;
  ServeOptions options;
  std::unique_ptr<SqliteStore> store;
  std::unique_ptr<DirectoryShelf> shelf;
  std::unique_ptr<storage::DirectoryStore> objects;
  std::unique_ptr<Core> core;
  std::optional<crypto::SigningKey> node_key;
  std::unique_ptr<BrokerLink> broker;
  std::unique_ptr<BrokerProbe> probe;
  std::unique_ptr<EffectDispatcher> effects;
  std::unique_ptr<PlaneApi> api;
  std::unique_ptr<api::Dispatcher<PlaneApi>> routes;
  std::unique_ptr<NodeEndpoint> nodes;
  std::unique_ptr<http::Server> https;
  Certificates certificates;
  bool operator_enrolled = false;  // at start

  std::string path(const std::string& name) const { return options.state_dir + "/" + name; }

  Status open_state() {
    GBX_TRY(make_dirs(options.state_dir, 0700));
    GBX_ASSIGN(store, SqliteStore::open(path("plane.db")));
    GBX_ASSIGN(auto results, storage::DirectoryStore::open(path("results")));
    shelf = std::make_unique<DirectoryShelf>(std::move(results));
    GBX_ASSIGN(objects, storage::DirectoryStore::open(options.objects_dir));
    GBX_ASSIGN(std::string text, read_text_file(options.set_file, 1U << 20));
    CoreConfig config;
    auto set = from_json_text<records::SetChain>(text);
    if (!set.ok()) return set.error().at(options.set_file);
    config.set = std::move(*set);
    config.set_id = config.set.charter.set_id();
    config.lease_seconds = options.lease_seconds;
    GBX_ASSIGN(core, Core::create(*store, *shelf, clock, std::move(config)));
    for (const NodeKey& n : options.nodes) {
      Status s = core->enrol_node(n.name, n.key);
      if (!s.ok() && s.reason() != Reason::kAlreadyExists) return s.error().at("--node " + n.name);
    }
    return first_invites();
  }

  // How the first operator comes in, and on one machine the first owners and consumers; all others
  // are invited by an operator.
  Status first_invites() {
    GBX_ASSIGN(operator_enrolled, core->operator_enrolled());
    const std::int64_t until = clock.now().seconds() + kFirstInviteDays * 86'400;
    GBX_ASSIGN(const std::string first, first_operator_token());
    if (!operator_enrolled) GBX_TRY(core->keep_invite({{Role::kOperator}, 1, until}, first));
    if (!options.invites) return ok_status();
    const api::InviteRequest people{
        {Role::kOwner, Role::kConsumer, Role::kReviewer}, kPeopleInviteUses, until};
    const Status s = core->invite({{}, {Role::kOperator}}, people, options.invites->people);
    // known from before a restart: its uses stay counted
    return s.reason() == Reason::kConflict ? ok_status() : s;
  }
  Result<std::string> first_operator_token() {
    if (options.invites) return options.invites->operators;
    const std::string file = path("operator-invite");
    if (operator_enrolled) {
      GBX_TRY(remove_tree(file));
      return std::string();
    }
    if (path_exists(file)) return read_text_file(file, 256);
    const std::string token = to_hex(random.fixed<32>());
    GBX_TRY(write_file_atomic(file, as_bytes(token), 0600));
    return token;
  }

  // Counts tell when a run ends, which its consumer hears at the slot only: so not everybody sees
  // them.
  Result<Hash32> metrics_token_hash() {
    const std::string file = path("metrics-token");
    if (!path_exists(file)) {
      GBX_TRY(write_file_atomic(file, as_bytes(to_hex(random.fixed<32>())), 0600));
    }
    GBX_ASSIGN(std::string token, read_text_file(file, 256));
    // an operator's own
    while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.pop_back();
    if (token.size() < 32) {
      return fail(Reason::kBadValue, file)
          .with("at least 32 characters", std::to_string(token.size()));
    }
    return crypto::sha256(as_bytes(token));
  }

  Status connect() {
    GBX_ASSIGN(node_key, load_node_key(options.state_dir, random));
    BrokerLinkOptions link{&clock, options.broker, &*node_key, core->set_keys().tls, core.get()};
    broker = std::make_unique<BrokerLink>(std::move(link));
    // Once before anybody can ask whether the plane is ready. Without a broker it starts all the
    // same.
    const Status there = broker->probe(random.fixed<32>());
    if (!there.ok()) log.error("broker-unreachable", there.error());
    probe = std::make_unique<BrokerProbe>(*broker, random, options.probe_ms);
    effects = std::make_unique<EffectDispatcher>(*core, *broker, clock, log);
    NodeEndpointOptions endpoint;
    endpoint.listen = options.node_listen;
    GBX_ASSIGN(nodes, NodeEndpoint::start(endpoint, *core, *node_key, clock, log));
    return ok_status();
  }

  Status serve() {
    GBX_ASSIGN(crypto::SigningKey ca,
               load_key(path("ca.key"), crypto::SignatureAlgorithm::kEcdsaP256, random));
    GBX_ASSIGN(crypto::SigningKey key,
               load_key(path("https.key"), crypto::SignatureAlgorithm::kEcdsaP256, random));
    std::vector<std::string> names = {"localhost", "127.0.0.1"};
    for (const std::string& n : options.names) names.push_back(n);
    const std::string& host = options.listen.host;
    if (host != "0.0.0.0" && host != "::" &&
        std::find(names.begin(), names.end(), host) == names.end()) {
      names.push_back(host);
    }
    GBX_ASSIGN(certificates, gbx::plane::certificates(path("certificates.json"), ca, key, names,
                                                      clock.now().seconds()));
    ApiOptions api_options;
    api_options.ca = to_base64url(certificates.ca);
    api_options.shares = options.shares;
    api = std::make_unique<PlaneApi>(*core, *broker, *objects, clock, random, api_options);
    GBX_ASSIGN(const Hash32 metrics_token, metrics_token_hash());
    routes = std::make_unique<api::Dispatcher<PlaneApi>>(
        PlaneApi::routes(), *api, [this](const http::Request& r) { return api->authenticate(r); },
        metrics_token);
    GBX_TRY(routes->router().check());
    http::ServerOptions o;
    o.bind_address = options.listen.host;
    o.port = options.listen.port;
    o.certificate_der = certificates.server;
    o.key_pkcs8_der = key.pkcs8_der(SecretAccess{});
    o.limits.call_threads = 16;  // 12 of them may wait for a job's next step
    o.limits.transfer_threads = 16;
    o.planner = routes->planner();
    o.log = &log;
    GBX_ASSIGN(https, http::Server::start(std::move(o), routes->handler()));
    api->set_stats([this] { return https->stats(); });
    effects->start();
    return ok_status();
  }

  void stop() {
    // The API first: nothing new comes in. What is in the outbox stays there for the next start.
    if (https) https->stop();
    if (nodes) nodes->stop();
    if (effects) effects->stop();
    probe.reset();
  }
};

PlaneServer::PlaneServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
PlaneServer::~PlaneServer() { stop(); }
void PlaneServer::stop() { parts_->stop(); }

Result<std::unique_ptr<PlaneServer>> PlaneServer::start(const ServeOptions& options,
                                                        const Clock& clock, Random& random,
                                                        const Logger& log) {
  std::unique_ptr<Parts> parts(new Parts{
      clock, random, log, options, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}});
  std::unique_ptr<PlaneServer> server(new PlaneServer(std::move(parts)));
  GBX_TRY(server->parts_->open_state());
  GBX_TRY(server->parts_->connect());
  GBX_TRY(server->parts_->serve());
  return server;
}

Json PlaneServer::ready() const {
  channel::TcpAddress https = parts_->options.listen;
  https.port = parts_->https->port();
  channel::TcpAddress nodes = parts_->options.node_listen;
  nodes.port = parts_->nodes->port();
  const ReadyLine line{https.text(),
                       nodes.text(),
                       to_base64url(parts_->certificates.ca),
                       parts_->node_key->public_key().text(),
                       parts_->operator_enrolled,
                       parts_->broker->trouble()};
  return to_json(line);
}

}  // namespace gbx::plane
