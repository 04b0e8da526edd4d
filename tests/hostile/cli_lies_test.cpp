// The plane lies to people: in each answer that a command of theirs reads, over the real client and
// a real HTTPS server. Commands are recorded once against a genuine plane and broker; then each
// runs again and again, every time with one lie in one answer. A command that is lied to ends with
// a reason: it has printed no answer, written no file and sent nothing that it would not have sent
// anyhow. Or the lie is in a member that cli_lies.txt lists, with the reason why it harms nobody.
// Every command is here, or asks the plane nothing.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <sstream>

#include "capacity/capacity.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "cli/testing.h"
#include "lies.h"
#include "oci/testing.h"
#include "plane/http/server.h"
#include "plane/plane_world.h"
#include "plane/service/api.h"
#include "storage/memory_store.h"
#include "vm/measure/testing.h"

namespace gbx::cli {
namespace {

namespace fs = std::filesystem;
namespace server = gbx::plane::http;
using gbx::testing::must;
using gbx::testing::Person;
using hostile::Choice;
using hostile::Harmless;
using hostile::Lie;
using hostile::Pool;

// ---- the genuine plane ----

class WorldBroker final : public plane::Broker {
 public:
  explicit WorldBroker(gbx::testing::BrokerWorld& b) : b_(b) {}
  Result<Json> call(std::string_view method, const Json& body) override {
    return b_.core->handle(method, body, b_.plane(), b_.clock.now());
  }
  bool connected() const override { return true; }
  std::string trouble() const override { return ""; }

 private:
  gbx::testing::BrokerWorld& b_;
};

struct Jobs {
  std::string released, held, waiting;  // ids
  std::array<std::string, 2> alike;     // held; their ids begin with the same four digits
};

// A plane with two assets, a job that is released, one that is held and one that waits.
struct Genuine {
  Genuine() : p(false, 5), broker(p.b) {
    p.b.capacity = capacity::of_spec;
    must(p.b.start());
    name(p.b.data, "wdbc");
    name(p.b.image, "study-image");
    p.b.data.policy.clauses.row_bits = 116;
    p.b.data.policy.clauses.fresh_for_seconds = 86'400;
    p.populate();
    p.enrol(p.b.reviewer, "reviewer", plane::Role::kReviewer);
    p.enrol(boss, "boss", plane::Role::kOperator);
    p.enrol(turner, "turner", plane::Role::kConsumer);
    must(p.core->keep_invite({{plane::Role::kConsumer}, 1, kEver}, "to-come"));
    must(p.core->keep_invite({{plane::Role::kAuditor}, 1, kEver}, "to-look"));
    must(p.core->add_lease(p.owner(), lease()));
    jobs.released = run(gbx::testing::clean_verdict());
    jobs.held = run(doubtful());
    jobs.alike = two_that_begin_alike();
    jobs.waiting = to_hex(p.submit());
    p.pump();
    plane::ApiOptions o;
    o.shares = {.burst = 100'000, .per_second = 1'000};
    api.emplace(*p.core, broker, objects, p.b.clock, p.b.random, o);
    routes.emplace(plane::PlaneApi::routes(), *api,
                   [this](const server::Request& r) { return api->authenticate(r); });
  }
  static void name(gbx::testing::Asset& a, const std::string& name) {
    a.record.name = name;
    a.policy.asset_version_id = a.record.id();
  }
  // With a recovery key as `identity create` makes it.
  static Person with_own_recovery_key(Random& random) {
    Person out = gbx::testing::make_person(random);
    out.recovery = must(crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random));
    out.chain.identity.recovery_key = out.recovery.public_key().text();
    return out;
  }
  records::Signed<records::Lease> lease() {
    return gbx::testing::make_lease(p.b.set.id(), p.b.data, p.b.consumer, 5, p.b.random);
  }
  static records::GateVerdict doubtful() {
    auto v = gbx::testing::clean_verdict();
    v.recommendation = records::Recommendation::kHold;
    return v;
  }
  std::string run(const records::GateVerdict& verdict) { return run(p.b.submission(), verdict); }
  // A consumer chooses nonces until two of his jobs begin with the same four digits.
  std::array<std::string, 2> two_that_begin_alike() {
    std::map<std::string, records::SignedSubmission> made;
    for (;;) {
      auto s = p.b.submission();
      const std::string id = to_hex(s.submission.body.job_id());
      const auto [alike, fresh] = made.emplace(id.substr(0, 4), s);
      if (!fresh) return {run(alike->second, doubtful()), run(s, doubtful())};
    }
  }
  std::string run(const records::SignedSubmission& submission, records::GateVerdict verdict) {
    verdict.charge.free_bits =
        must(capacity::of_spec(submission.submission.body.spec.spec, {})).free_bits;
    const Hash32 id = p.submit(submission);
    p.pump();
    const auto work = p.take();
    const auto job = gbx::testing::seal_a_job(p.b, submission, verdict);
    must(p.core->phase(p.node(), p.phase(*work, records::EnvironmentPhase::kWorking)));
    must(p.core->output(p.node(), {id, 1, job.ack, job.output}));
    must(p.core->destroyed(p.node(), p.claim(*work)));
    p.pump();
    return to_hex(id);
  }
  plane::Plane p;
  static constexpr std::int64_t kEver = 4'000'000'000;
  Person boss = gbx::testing::make_person(p.b.random);
  Person turner = with_own_recovery_key(p.b.random);  // who changes his key
  WorldBroker broker;
  storage::MemoryStore objects;
  Jobs jobs;
  std::optional<plane::PlaneApi> api;
  std::optional<plane::api::Dispatcher<plane::PlaneApi>> routes;
};

// ---- what a command did ----

struct Exchange {
  std::string method, target;
  int status = 200;
  std::string sent;
  Bytes body;
  // "GET /v1/jobs/*/detail": the same for all ids.
  std::string route() const {
    std::string out = method + " ", part;
    for (const char c : target.substr(0, target.find('?')) + "/") {
      if (c != '/') {
        part += c;
        continue;
      }
      const bool id = part.size() >= 32;
      out += (part.empty() ? "" : "/") + (id ? std::string("*") : part);
      part.clear();
    }
    return out;
  }
  bool changes() const { return method != "GET"; }
};

struct Outcome {
  Status status = ok_status();
  std::string printed;
  std::string noted;                   // on standard error
  std::map<std::string, Bytes> files;  // that were asked for, by name
  std::map<std::string, Bytes> keys;   // of the home, afterwards
  std::map<std::string, Bytes> home;   // what else is in it
  std::vector<std::string> sent;       // what changes something
};

// Standard output and error of a command, for as long as it lives.
class Captured {
 public:
  Captured() : file_(memfd_create("out", MFD_CLOEXEC)), notes_(memfd_create("err", MFD_CLOEXEC)) {
    std::fflush(stdout);
    std::fflush(stderr);
    out_ = Fd(dup(STDOUT_FILENO));
    err_ = Fd(dup(STDERR_FILENO));
    dup2(file_.get(), STDOUT_FILENO);
    dup2(notes_.get(), STDERR_FILENO);
  }
  std::pair<std::string, std::string> end() {
    std::fflush(stderr);
    dup2(out_.get(), STDOUT_FILENO);
    dup2(err_.get(), STDERR_FILENO);
    return {text_of(file_), text_of(notes_)};
  }

 private:
  static std::string text_of(const Fd& file) {
    lseek(file.get(), 0, SEEK_SET);
    const Bytes all = must(read_all(file.get(), 64U << 20));
    return std::string(as_text(all));
  }
  Fd file_, notes_, out_, err_;
};

// All plain files below a folder, by their names in it.
std::map<std::string, Bytes> files_below(const std::string& folder) {
  std::map<std::string, Bytes> out;
  if (!fs::exists(folder)) return out;
  for (const auto& e : fs::recursive_directory_iterator(folder)) {
    if (!e.is_regular_file()) continue;
    out[e.path().string().substr(folder.size())] = must(read_file(e.path().string(), 16U << 20));
  }
  return out;
}

// ---- commands over a server that says what it is told to ----

struct Told {
  std::string who;  // whose home
  std::vector<std::string> words;
  std::size_t most = 120;  // lies
  bool kept = false;       // what it changes in its home is there for the next command
  // "job submit"
  std::string command() const {
    static const std::set<std::string> kNoGroup{"init", "doctor", "measure", "completion", "man"};
    return kNoGroup.contains(words[0]) ? words[0] : words[0] + " " + words[1];
  }
  std::string text() const {
    std::string out = who;
    for (const auto& w : words) out += " " + w;
    return out;
  }
};

// The bytes of an upload, as a streaming route gets them.
class Sent final : public server::BodyReader {
 public:
  explicit Sent(Bytes all) : all_(std::move(all)) {}
  Result<std::size_t> read(MutableByteView out) override {
    const std::size_t n = std::min(out.size(), all_.size() - at_);
    std::memcpy(out.data(), all_.data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  const Bytes all_;
  std::size_t at_ = 0;
};

class Desk {
 public:
  Desk() {
    char name[] = "/tmp/gbx-lies-XXXXXX";
    dir_ = mkdtemp(name);
    start();
    make_home("consumer", genuine.p.b.consumer, {"consumer"});
    make_home("owner", genuine.p.b.owner, {"owner"});
    make_home("reviewer", genuine.p.b.reviewer, {"reviewer"});
    make_home("boss", genuine.boss, {"operator"});
    make_home("turner", genuine.turner, {"consumer"});
    const Home turner(dir_ + "/turner");
    must(turner.make("recovery"));
    constexpr SecretAccess kAccess{};
    must(write_key_file(turner.recovery_signing_key(), KeyKind::kSigning,
                        genuine.turner.recovery.private_bytes(kAccess).view(kAccess), kAccess,
                        nullptr, genuine.p.b.random));
    must(Home(dir_ + "/nobody").make());
    pin("newcomer");
    Session owner({Format::kTable, dir_ + "/owner", "", {}}, genuine.p.b.clock, genuine.p.b.random);
    for (const auto* a : {&genuine.p.b.data, &genuine.p.b.image}) {
      must(owner.store_dataset_key(a->record.asset_id, a->record.version, a->key));
    }
    auto spec = gbx::testing::make_spec(true);
    spec.spec.inputs[0].asset = "wdbc";
    must(write_file_atomic(dir_ + "/job.json", as_bytes(canonical(to_json(spec))), 0600));
    put("policy.yaml",
        "apiVersion: glovebox/v1\nkind: ReleasePolicy\nclauses:\n  notAfter: 2040-01-31\n");
    put("rows/a.csv", "1\n2\n");
    put("rows/b/c.csv", std::string(100'000, '7'));
    put("to-come", "to-come\n");
    put("to-look", "to-look\n");
    oci::testing::Layout layout(dir_ + "/layout");
    const Bytes tar = oci::testing::Tar().file("program", "#!/bin/sh\n", 0755).finish();
    layout.stored_layer(tar, tar, false);
    layout.write();
  }
  ~Desk() {
    server_.reset();
    (void)remove_tree(dir_);
  }

  // Runs it in a copy of its home, or in the home of the command before; `answer` gives the
  // answers.
  using Answer = std::function<Exchange(std::size_t nth, const Exchange& request)>;
  enum class Start { kAfresh, kGoesOn };
  Outcome run(const Told& told, std::uint64_t seed, const Answer& answer,
              Start start = Start::kAfresh) {
    const std::string here = dir_ + "/run";
    if (start == Start::kAfresh) {
      must(remove_tree(here));
      fs::create_directory(here);
      fs::copy(dir_ + "/" + told.who, here + "/home", fs::copy_options::recursive);
    }
    Outcome out;
    {
      const std::lock_guard lock(mutex_);
      answer_ = answer;
      asked_ = 0;
      sent_ = &out.sent;
    }
    std::vector<std::string> words;
    for (std::string w : told.words) {
      for (const auto& [mark, text] : std::map<std::string, std::string>{
               {"{dir}", dir_}, {"{out}", here + "/out"}, {"{home}", here + "/home"}}) {
        if (const auto at = w.find(mark); at != std::string::npos) {
          w.replace(at, mark.size(), text);
        }
      }
      words.push_back(std::move(w));
    }
    SeededRandom random(seed);
    const auto parsed = must(parse_command_line(tree_, words));
    Captured captured;
    {
      Session session({Format::kTable, here + "/home", "", {}}, genuine.p.b.clock, random);
      out.status = parsed.command->run(session, parsed.invocation);
    }
    std::tie(out.printed, out.noted) = captured.end();
    for (auto& [path, content] : files_below(here)) {
      if (path.rfind("/out", 0) == 0) out.files[path] = std::move(content);
    }
    out.keys = files_below(here + "/home/keys");
    for (auto& [path, content] : files_below(here + "/home")) {
      if (path.rfind("/keys/", 0) != 0) out.home[path] = std::move(content);
    }
    return out;
  }
  // The home of the last command, until it becomes that person's.
  void hold_home() { fs::rename(dir_ + "/run/home", dir_ + "/held"); }
  void keep_home(const std::string& who) {
    must(remove_tree(dir_ + "/" + who));
    fs::rename(dir_ + "/held", dir_ + "/" + who);
  }
  // As they were before any command.
  std::map<std::string, Bytes> keys_of(const std::string& who) const {
    return files_below(dir_ + "/" + who + "/keys");
  }
  // A file that commands find at "{dir}/NAME".
  void put(const std::string& name, const std::string& text) {
    const std::string path = dir_ + "/" + name;
    must(make_dirs(path.substr(0, path.rfind('/')), 0700));
    must(write_file_atomic(path, as_bytes(text), 0600));
  }
  // Somebody's, between commands.
  std::string home_of(const std::string& who) const { return dir_ + "/" + who; }
  // Of the command that ran last.
  std::string home() const { return dir_ + "/run/home"; }
  Genuine genuine;

 private:
  void pin(const std::string& name) {
    const Home home(dir_ + "/" + name);
    must(home.make("keys"));
    must(home.save(Context{"127.0.0.1", server_->port(), ca_, genuine.p.b.set.id(),
                           genuine.p.b.set.chain.epoch.body.epoch}));
  }
  void make_home(const std::string& name, const Person& who, std::vector<std::string> roles) {
    const Home home(dir_ + "/" + name);
    pin(name);
    must(home.save(IdentityFile{name, std::move(roles), who.chain, who.hpke.public_key().text(),
                                who.hpke.public_key().text()}));
    constexpr SecretAccess kAccess{};
    must(write_key_file(home.signing_key(), KeyKind::kSigning,
                        who.key.private_bytes(kAccess).view(kAccess), kAccess, nullptr,
                        genuine.p.b.random));
    must(write_key_file(home.result_key(), KeyKind::kHpke, who.hpke.private_key().view(kAccess),
                        kAccess, nullptr, genuine.p.b.random));
  }
  void start() {
    using crypto::SignatureAlgorithm;
    Random& random = genuine.p.b.random;
    const auto ca = must(crypto::SigningKey::generate(SignatureAlgorithm::kEcdsaP256, random));
    const auto key = must(crypto::SigningKey::generate(SignatureAlgorithm::kEcdsaP256, random));
    const std::int64_t now = SystemClock().now().seconds();
    const auto issued = must(
        crypto::issue_server_certificate(ca, key, {}, {"127.0.0.1"}, now - 86'400, now + 86'400));
    ca_ = issued.ca_der;
    must(write_file_atomic(dir_ + "/ca.der", ca_, 0600));
    server::ServerOptions o;
    o.certificate_der = issued.server_der;
    o.key_pkcs8_der = key.pkcs8_der(SecretAccess{});
    server_ =
        must(server::Server::start(std::move(o), [this](const auto& r) { return handle(r); }));
  }
  server::Response handle(const server::Request& r) {
    const std::lock_guard lock(mutex_);
    Exchange request{r.method, r.target, 200, std::string(as_text(r.body)), {}};
    if (request.changes()) sent_->push_back(r.method + " " + r.target + " " + request.sent);
    request_ = &r;
    const Exchange e = answer_(asked_++, request);
    server::Response out;
    out.status = e.status;
    out.body = e.body;
    out.known_caller = true;
    return out;
  }

 public:
  // The genuine plane's answer to the request that is being answered.
  Exchange truth(const Exchange& request) {
    server::Request asked = *request_;
    if (request.method == "PUT") asked.stream = std::make_shared<Sent>(asked.body);
    asked.content_length = asked.body.size();
    const auto reply = genuine.routes->handle(asked);
    Exchange e = request;
    e.status = reply.status;
    e.body = reply.body;
    if (reply.source) {
      e.body.resize(reply.source_length.value());
      for (std::size_t at = 0; at < e.body.size();) {
        at += must(reply.source(MutableByteView(e.body).subspan(at)));
      }
    }
    return e;
  }
  // A refusal, in the form that the plane gives it.
  static Exchange refusal(const Exchange& request, Reason reason) {
    const auto refused = server::error_response(fail(reason, "said the plane"));
    Exchange e = request;
    e.status = refused.status;
    e.body = refused.body;
    return e;
  }
  std::uint16_t port() const { return server_->port(); }
  const CommandTree& tree() const { return tree_; }

 private:
  std::string dir_;
  Bytes ca_;
  const CommandTree tree_ = make_tree();
  std::mutex mutex_;
  Answer answer_;                             // guarded by mutex_
  std::size_t asked_ = 0;                     // guarded by mutex_
  std::vector<std::string>* sent_ = nullptr;  // guarded by mutex_
  const server::Request* request_ = nullptr;  // guarded by mutex_
  std::unique_ptr<server::Server> server_;
};

// ---- telling lies ----

// How far a lie may reach that was taken.
enum class Reach {
  kNothing,  // everything is as with the truth
  kShown,    // what is printed differs: the plane's word, and shown as such
  kFewer,    // something that the plane withheld is missing in what is sent
  kFile,     // or in a file
};
// A line of cli_lies.txt.
struct Excuse {
  Reach reach = Reach::kNothing;
  std::string command, place;  // "*" at its end: all that begins so
};
std::vector<Excuse> read_excuses() {
  const char* root = std::getenv("GBX_SOURCE_DIR");
  const std::string file =
      std::string(root == nullptr ? "." : root) + "/tests/hostile/cli_lies.txt";
  std::istringstream in(must(read_text_file(file, 1U << 20)));
  std::vector<Excuse> out;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::vector<std::string> parts;
    for (std::string w; std::getline(words, w, '|');) {
      parts.push_back(w.substr(w.find_first_not_of(' '),
                               w.find_last_not_of(' ') + 1 - w.find_first_not_of(' ')));
    }
    if (parts.size() != 4) throw std::runtime_error(file + ": " + line);
    const Reach reach = parts[0] == "shown"   ? Reach::kShown
                        : parts[0] == "fewer" ? Reach::kFewer
                        : parts[0] == "file"  ? Reach::kFile
                                              : Reach::kNothing;
    out.push_back({reach, parts[1], parts[2]});
  }
  return out;
}
const std::vector<Excuse>& excuses() {
  static const std::vector<Excuse> kAll = read_excuses();
  return kAll;
}
bool begins(const std::string& text, const std::string& pattern) {
  if (pattern.empty()) return true;
  if (pattern.back() != '*') return text == pattern;
  return text.compare(0, pattern.size() - 1, pattern, 0, pattern.size() - 1) == 0;
}

class CliLies : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { desk_ = new Desk; }
  static void TearDownTestSuite() {
    delete desk_;
    desk_ = nullptr;
    std::printf("%zu lies\n", told_);
    if (!Choice().all()) return;
    for (std::size_t i = 0; i < excuses().size(); ++i) {
      if (used_.count(i) == 0) {
        std::printf("nothing was taken: %s, %s\n", excuses()[i].command.c_str(),
                    excuses()[i].place.c_str());
      }
    }
  }

  struct Plan {
    std::size_t nth;
    Lie lie;
  };
  // Bytes that are no message: of an object.
  static std::vector<Lie> lies_about_bytes(const Bytes& all) {
    std::vector<Lie> out;
    const std::string text(as_text(all));
    for (const std::size_t at : {std::size_t{0}, text.size() / 2, text.size() - 1}) {
      std::string other = text;
      other[at] = static_cast<char>(other[at] ^ 1);
      out.push_back({"bytes", "changed at " + std::to_string(at), Json(), std::move(other)});
    }
    out.push_back({"length", "cut off", Json(), text.substr(0, text.size() - 1)});
    out.push_back({"length", "longer", Json(), text + '\0'});
    out.push_back({"length", "nothing", Json(), ""});
    return out;
  }
  std::vector<Plan> plans_for(const std::vector<Exchange>& genuine, Choice& choice) const {
    std::vector<Plan> plans;
    for (std::size_t n = 0; n < genuine.size(); ++n) {
      const auto j = parse_json(as_text(genuine[n].body), {64U << 20, 64, 1'000'000});
      const auto lies = j.ok()                    ? lies_about(pool_, *j)
                        : genuine[n].body.empty() ? std::vector<Lie>()
                                                  : lies_about_bytes(genuine[n].body);
      for (auto& l : choice.some(lies, 1)) plans.push_back({n, std::move(l)});
    }
    return plans;
  }
  // So many of them: of every member one before of any a second, which ones the seed says.
  static std::vector<Plan> spread(std::vector<Plan> plans, const std::vector<Exchange>& genuine,
                                  std::size_t most, SeededRandom random) {
    for (std::size_t i = plans.size(); i > 1; --i) {
      std::swap(plans[i - 1], plans[static_cast<std::size_t>(random.below(i))]);
    }
    std::map<std::string, std::size_t> met;
    std::vector<std::pair<std::size_t, std::size_t>> order;
    for (std::size_t i = 0; i < plans.size(); ++i) {
      order.emplace_back(met[genuine[plans[i].nth].route() + " " + plans[i].lie.place()]++, i);
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Plan> out;
    for (std::size_t i = 0; i < std::min(most, order.size()); ++i) {
      out.push_back(std::move(plans[order[i].second]));
    }
    return out;
  }

  // Tells it at most told.most lies of those that GBX_LIES names.
  void lie(const Told& told) {
    // Of its own for each command: no plane takes a nonce twice.
    const Hash32 named = crypto::sha256(as_bytes(told.text()));
    const std::uint64_t seed = named[0] + 256U * named[1] + 65'536U * named[2];
    std::vector<Exchange> genuine;
    const Outcome truth = desk_->run(told, seed, [&](std::size_t, const Exchange& request) {
      genuine.push_back(desk_->truth(request));
      return genuine.back();
    });
    ASSERT_TRUE(truth.status.ok()) << told.text() << truth.status.error().line();
    ASSERT_FALSE(truth.printed.empty() || genuine.empty()) << told.text();
    if (told.kept) desk_->hold_home();
    for (const auto& e : genuine) {
      if (const auto j = parse_json(as_text(e.body)); j.ok()) pool_.collect(*j);
    }
    Choice choice;
    std::vector<Plan> plans = plans_for(genuine, choice);
    const std::size_t all = plans.size();
    if (!choice.all()) {
      const Hash32 which = crypto::sha256(as_bytes(told.text() + " " + choice.text()));
      plans = spread(std::move(plans), genuine, told.most,
                     SeededRandom(which[0] + 256U * which[1] + 65'536U * which[2]));
    }
    for (const auto& plan : plans) {
      const Outcome lied = desk_->run(told, seed, [&](std::size_t n, const Exchange& request) {
        return replay(genuine, n, request, plan.nth, plan.lie);
      });
      judge(told, genuine[plan.nth].route(), plan.lie, truth, lied);
    }
    told_ += plans.size();
    report(told, choice, plans.size(), all);
    if (told.kept) desk_->keep_home(told.who);
  }

 private:
  static Exchange replay(const std::vector<Exchange>& genuine, std::size_t n,
                         const Exchange& request, std::size_t lied_at, const Lie& lie) {
    if (n < genuine.size() && genuine[n].target == request.target) {
      Exchange e = genuine[n];
      if (n == lied_at) e.body = to_bytes(as_bytes(lie.text));
      return e;
    }
    for (const auto& e : genuine) {
      if (e.target == request.target && e.method == request.method) return e;
    }
    return Desk::refusal(request, Reason::kNotFound);
  }

  // Nothing; or an overview without what does not hold, which names it and has nothing else in it
  // than with the truth.
  static bool is_less(const std::string& printed, const std::string& truth) {
    if (printed.empty()) return true;
    const auto lines = [](const std::string& text) {
      std::set<std::string> out;  // without the blanks that make columns
      std::istringstream in(text);
      for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string one;
        for (std::string w; words >> w;) one += w + " ";
        out.insert(one);
      }
      return out;
    };
    const std::set<std::string> known = lines(truth);
    bool named = false;
    for (const std::string& line : lines(printed)) {
      const bool not_shown = line.rfind("NOT SHOWN: ", 0) == 0;
      named = named || not_shown;
      if (!not_shown && !line.empty() && known.count(line) == 0) return false;
    }
    return named;
  }

  void judge(const Told& told, const std::string& route, const Lie& lie, const Outcome& truth,
             const Outcome& lied) {
    const std::string what = told.command() + ", " + route + ": " + lie.what();
    for (const auto& [name, key] : desk_->keys_of(told.who)) {
      const auto kept = lied.keys.find(name);
      EXPECT_TRUE(kept != lied.keys.end() && kept->second == key) << what << " loses " << name;
    }
    for (const std::string* shown : {&lied.printed, &lied.noted}) {
      std::istringstream lines(*shown);
      for (std::string line; std::getline(lines, line);) {
        EXPECT_EQ(printable_whole(line), line) << what << " draws";
      }
    }
    // These tell what they heard, and then fail: `doctor`, and a job's end that is none to want.
    const bool tells = told.command() == "doctor" || told.command() == "job wait";
    const bool as_far = lied.sent.size() <= truth.sent.size() &&
                        std::equal(lied.sent.begin(), lied.sent.end(), truth.sent.begin());
    if (!lied.status.ok()) {
      ++refused_[lied.status.reason()];
      EXPECT_NE(exit_class(lied.status.reason()), ExitClass::kInternal)
          << what << lied.status.error().line();
      // Done as with the truth, and said; what failed came after it.
      const bool done = lied.sent == truth.sent && lied.printed == truth.printed;
      const bool less = done || is_less(lied.printed, truth.printed);
      if (!less && tells) excuse(told, route + " " + lie.place(), Reach::kShown, what);
      EXPECT_TRUE(less || tells) << what << lied.status.error().line() << lied.printed;
      EXPECT_TRUE(lied.files.empty()) << what;
      if (!as_far) excuse(told, route + " " + lie.place(), Reach::kFewer, what);
      return;
    }
    // A list is shown without what does not verify, and says so.
    if (lied.noted.find("do not verify and are left out") != std::string::npos) {
      EXPECT_EQ(lied.sent, truth.sent) << what;
      EXPECT_EQ(lied.files, truth.files) << what;
      return;
    }
    const bool files = lied.files != truth.files || lied.home != truth.home;
    const Reach reach = files                           ? Reach::kFile
                        : lied.sent != truth.sent       ? Reach::kFewer
                        : lied.printed != truth.printed ? Reach::kShown
                                                        : Reach::kNothing;
    excuse(told, route + " " + lie.place(), reach, what);
  }
  void excuse(const Told& told, const std::string& place, Reach reach, const std::string& what) {
    const std::string command = told.command();
    for (std::size_t i = 0; i < excuses().size(); ++i) {
      const Excuse& e = excuses()[i];
      if (begins(command, e.command) && begins(place, e.place) && reach <= e.reach) {
        used_.insert(i);
        return;
      }
    }
    const char* words[] = {"nothing", "shown", "sent", "file"};
    taken_[place + " [" + words[static_cast<int>(reach)] + "]"] = what;
  }
  void report(const Told& told, const Choice& choice, std::size_t tried, std::size_t all) {
    std::printf("%s: %zu lies of %zu (GBX_LIES=%s)", told.command().c_str(), tried, all,
                choice.text().c_str());
    for (const auto& [reason, n] : refused_) {
      std::printf(", %d %s", n, std::string(reason_code(reason)).c_str());
    }
    std::printf("\n");
    for (const auto& [place, what] : taken_) ADD_FAILURE() << "taken: " << place << "  " << what;
    refused_.clear();
    taken_.clear();
  }

  std::map<Reason, int> refused_;
  std::map<std::string, std::string> taken_;
  static inline Desk* desk_ = nullptr;
  static inline Pool pool_;
  static inline std::size_t told_ = 0;
  static inline std::set<std::size_t> used_;

 protected:
  static const Jobs& jobs() { return desk_->genuine.jobs; }
  static gbx::testing::BrokerWorld& world() { return desk_->genuine.p.b; }
  static Desk& desk() { return *desk_; }

  // ---- what people do, in the order in which they do it ----
  using List = std::vector<Told>;
  static List newcomers() {
    return {
        {"nobody",
         {"init", "--plane", "127.0.0.1:" + std::to_string(desk().port()), "--ca", "{dir}/ca.der",
          "--set", to_hex(world().set.id())}},
        {"newcomer",
         {"identity", "create", "--name", "newcomer", "--invite-file", "{dir}/to-come"}},
        {"turner", {"identity", "enrol", "--role", "auditor", "--invite-file", "{dir}/to-look"}},
        {"turner", {"identity", "rotate"}},
        // Its home knows nothing of the rotation before, as if a thief had made it.
        {"turner", {"identity", "rotate", "--recovery"}, 300},
        {"consumer", {"doctor"}}};
  }
  static List consumers() {
    return {{"consumer", {"asset", "show", "wdbc"}, 500},
            {"consumer", {"job", "get", jobs().released}},
            {"consumer", {"job", "wait", jobs().released}},
            {"consumer", {"job", "list"}},
            {"consumer", {"job", "describe", jobs().released}},
            {"consumer", {"job", "result", jobs().released, "--out", "{out}"}, 400},
            {"consumer", {"job", "logs", jobs().released}},
            {"consumer", {"receipt", "get", jobs().released, "--out", "{out}"}, 300},
            {"consumer", {"ledger", "show", "wdbc"}},
            {"consumer", {"ledger", "limits"}},
            {"consumer", {"lease", "list"}},
            {"consumer", {"policy", "explain", "wdbc", "--with", "study-image"}},
            {"consumer", {"job", "plan", "{dir}/job.json"}},
            {"consumer", {"job", "cancel", jobs().waiting}},
            {"consumer", {"job", "submit", "{dir}/job.json"}}};
  }
  static List reviewers() {
    return {{"reviewer", {"review", "list"}},
            {"reviewer", {"review", "show", jobs().held, "--out", "{out}"}, 400},
            {"reviewer", {"review", "reject", jobs().held, "--yes", "--reason", "small-cells"}},
            {"reviewer", {"review", "approve", jobs().alike[0], "--yes"}},
            {"reviewer",
             {"review", "request-changes", jobs().alike[1], "--yes", "--reason", "too-detailed"},
             60}};
  }
  static List owners() {
    const std::string consumer = to_hex(world().consumer.id());
    return {{"owner", {"asset", "list"}, 200},
            {"owner", {"image", "sign", "study-image"}},
            {"owner",
             {"image", "import", "{dir}/layout", "--name", "other-image", "--policy",
              "{dir}/policy.yaml"}},
            {"owner", {"ledger", "show", "wdbc", "--svg", "{out}"}},
            {"owner", {"lease", "grant", "--asset", "wdbc", "--consumer", consumer}},
            {"owner", {"policy", "beacon", "wdbc"}},
            {"owner", {"policy", "sign", "wdbc", "--renew"}, 300},
            {"owner",
             {"asset", "publish", "{dir}/rows", "--name", "rows", "--policy", "{dir}/policy.yaml"},
             200,
             true},
            {"owner", {"asset", "verify", "rows"}},
            {"owner", {"asset", "verify", "rows", "--with-key"}, 60},
            {"owner", {"policy", "sign", "rows", "--policy", "{dir}/policy.yaml"}, 60},
            {"owner", {"policy", "sign", "rows", "--revoke"}, 60},
            {"owner", {"policy", "sign", "rows", "--reinstate"}, 60},
            {"owner", {"asset", "delist", "wdbc"}}};
  }
  static List operators() {
    return {
        {"boss", {"node", "list"}},
        {"boss",
         {"node", "enrol", "--name", "other", "--key", world().consumer.key.public_key().text()}},
        {"boss", {"identity", "invite", "--role", "auditor", "--out", "{out}"}}};
  }
  // What asks the plane nothing, whatever it says.
  static List offline() {
    return {{"owner", {"identity", "show"}},
            {"owner", {"image", "inspect", "{dir}/layout"}},
            {"owner", {"policy", "new", "--yes", "--purpose", "x", "--out", "{out}"}},
            {"consumer", {"job", "validate", "{dir}/job.json"}},
            {"consumer", {"job", "schema"}},
            {"consumer", {"receipt", "verify", "{dir}/receipt.json"}},
            {"consumer",
             {"measure", "--technology", "sim", "--firmware", "{dir}/kernel", "--kernel",
              "{dir}/kernel", "--initrd", "{dir}/kernel", "--cmdline", "quiet", "--cpus", "1",
              "--memory", "2GiB"}},
            {"consumer", {"release", "key", "--key", "{dir}/release.key", "--new"}},
            {"consumer",
             {"release", "make", "--guest", "{dir}", "--key", "{dir}/release.key", "--out",
              "{dir}/release.json"}},
            {"consumer", {"release", "show", "{dir}/release.json"}},
            {"consumer", {"completion", "bash"}},
            {"consumer", {"man", "--dir", "{out}"}}};
  }
};

TEST_F(CliLies, ToNewcomers) {
  for (const auto& told : newcomers()) lie(told);
}
TEST_F(CliLies, ToConsumers) {
  for (const auto& told : consumers()) lie(told);
}
TEST_F(CliLies, ToReviewers) {
  for (const auto& told : reviewers()) lie(told);
}
TEST_F(CliLies, ToOwners) {
  for (const auto& told : owners()) lie(told);
}
TEST_F(CliLies, ToOperators) {
  for (const auto& told : operators()) lie(told);
}

void leaves(const Command& command, const std::string& name, std::set<std::string>* out) {
  if (command.run) out->insert(name);
  const std::string before = name.empty() ? name : name + " ";
  for (const auto& c : command.children) leaves(c, before + c.name, out);
}

// A new command is lied to, or shown to ask nobody.
TEST_F(CliLies, EveryCommandIsLiedToOrAsksNobody) {
  std::set<std::string> met;
  for (const auto& list : {newcomers(), consumers(), reviewers(), owners(), operators()}) {
    for (const auto& told : list) met.insert(told.command());
  }
  desk().put("receipt.json", canonical(to_json(must(desk().genuine.p.core->receipt(
                                 {world().consumer.id(), {plane::Role::kConsumer}},
                                 must(fixed_from_hex<32>(jobs().released)))))));
  desk().put("kernel", std::string(as_text(vm::measure::testing::KernelMaker().build())));
  for (const char* part : {"firmware.fd", "initrd", "cmdline", "lock", "name"}) {
    desk().put(part, part);
  }
  for (const auto& told : offline()) {
    std::size_t asked = 0;
    const Outcome out = desk().run(told, 1, [&](std::size_t, const Exchange& e) {
      ++asked;
      return Desk::refusal(e, Reason::kNotFound);
    });
    EXPECT_TRUE(out.status.ok()) << told.text() << out.status.error().line();
    EXPECT_EQ(asked, 0U) << told.text();
    EXPECT_TRUE(met.insert(told.command()).second) << told.command() << " is lied to as well";
  }
  std::set<std::string> all;
  leaves(desk().tree().root(), "", &all);
  all.erase("up");  // starts the programs of an installation, and is no client of any
  for (const auto& name : all) EXPECT_TRUE(met.contains(name)) << name << " is told no lies";
  for (const auto& name : met) EXPECT_TRUE(all.contains(name)) << name << " is no command";
}

// ---- lies over several commands ----

// An owner who publishes one version after the other, in one home.
class Publishing : public CliLies {
 protected:
  void SetUp() override {
    keys_ = publish("genuine", genuine()).keys;
    keys_ = publish("genuine, too", genuine()).keys;
    ASSERT_EQ(keys_.size(), desk().keys_of("owner").size() + 2);
  }
  static Desk::Answer genuine() {
    return [](std::size_t, const Exchange& e) { return desk().truth(e); };
  }
  // The newest version is not in what the plane lists.
  static Desk::Answer without_version(std::int64_t version) {
    return [version](std::size_t, const Exchange& e) {
      Exchange answer = desk().truth(e);
      if (e.route() != "GET /v1/assets") return answer;
      Json j = must(parse_json(as_text(answer.body)));
      auto* items = j["items"].array();
      std::erase_if(*items,
                    [&](Json& v) { return *v["record"]["body"]["version"].integer() == version; });
      answer.body = to_bytes(as_bytes(canonical(j)));
      return answer;
    };
  }
  // Refused; what was sent is done all the same.
  static Desk::Answer refuses(const std::string& route, Reason reason) {
    return [route, reason](std::size_t, const Exchange& e) {
      const Exchange answer = desk().truth(e);
      return begins(e.route(), route) ? Desk::refusal(e, reason) : answer;
    };
  }
  Outcome publish(const std::string& content, const Desk::Answer& answer) {
    desk().put("data/rows", content);
    const Told told{
        "owner",
        {"asset", "publish", "{dir}/data", "--name", name_, "--policy", "{dir}/policy.yaml"}};
    const auto start = keys_.empty() ? Desk::Start::kAfresh : Desk::Start::kGoesOn;
    return desk().run(told, ++seed_, answer, start);
  }
  // Every key of before is as it was; so many are new.
  void expect_kept(const Outcome& out, std::size_t more) {
    for (const auto& [name, key] : keys_) {
      const auto kept = out.keys.find(name);
      EXPECT_TRUE(kept != out.keys.end() && kept->second == key) << name << " is lost";
    }
    EXPECT_EQ(out.keys.size(), keys_.size() + more);
    keys_ = out.keys;
  }
  static bool sent_to(const Outcome& out, const std::string& what) {
    return std::any_of(out.sent.begin(), out.sent.end(),
                       [&](const auto& line) { return line.rfind(what, 0) == 0; });
  }

  std::map<std::string, Bytes> keys_;
  const std::string name_ = "rows-" + std::to_string(seed_);  // of this test alone
  static inline std::uint64_t seed_ = 1'000'000;              // no plane takes a nonce twice
};

TEST_F(Publishing, AVersionThatThePlaneHidesKeepsItsKey) {
  for (const auto& answer : {without_version(2), without_version(2)}) {
    const Outcome lied = publish("the next", answer);
    EXPECT_EQ(lied.status.reason(), Reason::kConflict) << lied.status.error().line();
    EXPECT_NE(lied.status.error().next.find("-2.key"), std::string::npos);
    EXPECT_TRUE(lied.sent.empty()) << lied.sent.front();
    expect_kept(lied, 0);
  }
  const Outcome honest = publish("the next", genuine());
  EXPECT_TRUE(honest.status.ok()) << honest.status.error().line();
  expect_kept(honest, 1);
}

// Nor is the version before it signed for, or taken for all that there is to revoke.
TEST_F(Publishing, AVersionThatThePlaneHidesIsNotForgotten) {
  const auto policy = [this](const std::string& what) {
    return Told{"owner", {"policy", "sign", name_, what}};
  };
  const Outcome renewed =
      desk().run(policy("--renew"), ++seed_, without_version(2), Desk::Start::kGoesOn);
  EXPECT_EQ(renewed.status.reason(), Reason::kWrongVersion) << renewed.status.error().line();
  EXPECT_NE(renewed.status.error().next.find(name_ + "@1"), std::string::npos);
  EXPECT_TRUE(renewed.sent.empty());
  const Outcome revoked =
      desk().run(policy("--revoke"), ++seed_, without_version(2), Desk::Start::kGoesOn);
  EXPECT_EQ(revoked.status.reason(), Reason::kWrongVersion) << revoked.status.error().line();
  EXPECT_EQ(revoked.sent.size(), 1U) << "the one that it showed";
  const Outcome honest = desk().run(policy("--revoke"), ++seed_, genuine(), Desk::Start::kGoesOn);
  EXPECT_TRUE(honest.status.ok()) << honest.status.error().line();
}

// The broker has the version, and the plane says that it was refused.
TEST_F(Publishing, WhatWasSentKeepsItsKeyWhateverThePlaneAnswers) {
  for (const Reason reason :
       {Reason::kConflict, Reason::kAlreadyExists, Reason::kWrongOwner, Reason::kWrongVersion,
        Reason::kWrongRole, Reason::kUnauthenticated, Reason::kBadValue, Reason::kNotFound,
        Reason::kPolicyMismatch, Reason::kQuotaExceeded}) {
    const std::string text(reason_code(reason));
    const Outcome lied = publish(text, refuses("POST /v1/assets", reason));
    EXPECT_EQ(lied.status.reason(), reason) << lied.status.error().line();
    EXPECT_TRUE(sent_to(lied, "POST /v1/assets"));
    expect_kept(lied, 1);
    const Outcome honest = publish(text, genuine());
    EXPECT_TRUE(honest.status.ok()) << text << " " << honest.status.error().line();
    const bool forgotten = reason == Reason::kConflict || reason == Reason::kAlreadyExists ||
                           reason == Reason::kWrongOwner;
    expect_kept(honest, forgotten ? 1 : 0);  // begun anew, as the next version; or gone on with
  }
}

// Begun and not finished: it waits for a plane that shows what it builds on, and then goes on.
TEST_F(Publishing, WhatWasBegunIsKeptWhileThePlaneHidesTheVersionBefore) {
  const Outcome begun = publish("begun", refuses("PUT /v1/objects*", Reason::kQuotaExceeded));
  EXPECT_EQ(begun.status.reason(), Reason::kQuotaExceeded) << begun.status.error().line();
  expect_kept(begun, 1);
  const Outcome lied = publish("begun", without_version(2));
  EXPECT_EQ(lied.status.reason(), Reason::kConflict) << lied.status.error().line();
  expect_kept(lied, 0);
  const Outcome honest = publish("begun", genuine());
  EXPECT_TRUE(honest.status.ok()) << honest.status.error().line();
  expect_kept(honest, 0);
}

// An earlier release did not say which key is its own: nothing is guessed, and the way on is told.
TEST_F(Publishing, WhatAnEarlierReleaseBeganIsNamedWithTheWayOn) {
  EXPECT_FALSE(publish("begun", refuses("PUT /v1/objects*", Reason::kQuotaExceeded)).status.ok());
  const auto begun = fs::directory_iterator(desk().home() + "/publish")->path();
  const std::string pending = begun / "pending.json";
  Json j = must(parse_json(must(read_text_file(pending, 4096))));
  ASSERT_EQ(j.object()->erase("commitDk"), 1U);
  must(write_file_atomic(pending, as_bytes(canonical(j)), 0600));
  keys_ = files_below(desk().home() + "/keys");

  const Outcome refused = publish("begun", genuine());
  EXPECT_EQ(refused.status.reason(), Reason::kMissingField) << refused.status.error().line();
  for (const std::string& part : {pending, std::string("commitDk")}) {
    EXPECT_NE(refused.status.error().what.find(part), std::string::npos)
        << refused.status.error().line();
  }
  EXPECT_NE(refused.status.error().next.find("move " + begun.string()), std::string::npos);
  EXPECT_TRUE(refused.sent.empty()) << refused.sent.front();
  expect_kept(refused, 0);
  // The hint's way: its own key stands in the way, and is named in its turn.
  fs::rename(begun, desk().home() + "/elsewhere");
  const Outcome taken = publish("begun", genuine());
  EXPECT_EQ(taken.status.reason(), Reason::kConflict) << taken.status.error().line();
  EXPECT_NE(taken.status.error().next.find("-3.key"), std::string::npos);
  expect_kept(taken, 0);
  const auto own = std::find_if(keys_.begin(), keys_.end(),
                                [](const auto& k) { return k.first.ends_with("-3.key"); });
  ASSERT_NE(own, keys_.end());
  fs::rename(desk().home() + "/keys" + own->first, desk().home() + "/old.key");
  EXPECT_TRUE(publish("begun", genuine()).status.ok());
}

// Nothing was signed yet: the key of what nobody can have goes, and that one alone.
TEST_F(Publishing, WhatWasRefusedAtOnceLeavesNoKey) {
  for (const Reason reason : {Reason::kWrongRole, Reason::kConflict, Reason::kUnauthenticated}) {
    const Outcome lied = publish("refused", refuses("PUT /v1/objects*", reason));
    EXPECT_EQ(lied.status.reason(), reason) << lied.status.error().line();
    EXPECT_FALSE(sent_to(lied, "POST /v1/assets"));
    expect_kept(lied, 0);
  }
}

// Somebody whose signing key a thief has, and who has the recovery key.
class Turning : public CliLies {
 protected:
  void SetUp() override {
    const std::string invite = "invite-" + owner_;
    desk().put(invite, invite + "\n");
    must(desk().genuine.p.core->keep_invite(
        {{plane::Role::kConsumer, plane::Role::kOwner}, 1, Genuine::kEver}, invite));
    const Outcome made = desk().run({"newcomer",
                                     {"identity", "create", "--name", owner_, "--role",
                                      "consumer,owner", "--invite-file", "{dir}/" + invite}},
                                    ++seed_, genuine());
    ASSERT_TRUE(made.status.ok()) << made.status.error().line();
    desk().hold_home();
    desk().keep_home(owner_);
    fs::copy(desk().home_of(owner_), desk().home_of(thief_), fs::copy_options::recursive);
    fs::remove_all(desk().home_of(thief_) + "/recovery");
  }
  static Desk::Answer genuine() {
    return [](std::size_t, const Exchange& e) { return desk().truth(e); };
  }
  // Publications come as far as to the broker, and are unknown to the plane; or not even there.
  static Desk::Answer no_answer_to_publications(bool at_broker) {
    return [at_broker](std::size_t, const Exchange& e) {
      if (e.route() != "POST /v1/assets") return desk().truth(e);
      if (at_broker) {
        const auto answer =
            world().core->handle(records::method::kPublish, must(parse_json(e.sent)),
                                 world().plane(), world().clock.now());
        if (!answer.ok()) return Desk::refusal(e, answer.reason());
      }
      return Desk::refusal(e, Reason::kUnavailable);
    };
  }
  // How many publications differ.
  static std::size_t publications(const Outcome& out) {
    std::set<std::string> all;
    for (const auto& line : out.sent) {
      if (line.rfind("POST /v1/assets ", 0) == 0) all.insert(line);
    }
    return all.size();
  }
  // Gets no answer; then the key changes.
  std::size_t unanswered(const std::vector<std::string>& words, bool at_broker) const {
    const Outcome out = run(owner_, words, no_answer_to_publications(at_broker));
    EXPECT_EQ(out.status.reason(), Reason::kUnavailable) << out.status.error().line();
    const Outcome rotated = run(owner_, {"identity", "rotate"});
    EXPECT_TRUE(rotated.status.ok()) << rotated.status.error().line();
    return publications(out);
  }
  void expect_acknowledged(const std::vector<std::string>& words, std::size_t sent) const {
    const Outcome out = run(owner_, words);
    EXPECT_TRUE(out.status.ok()) << out.status.error().line();
    EXPECT_EQ(publications(out), sent);
    EXPECT_TRUE(fs::is_empty(desk().home_of(owner_) + "/publish"));
  }
  std::vector<std::string> publish() const {
    desk().put("turned/rows", owner_);
    return {"asset", "publish", "{dir}/turned", "--name", owner_, "--policy", "{dir}/policy.yaml"};
  }
  std::vector<std::string> policy(const std::string& what) const {
    return {"policy", "sign", owner_, what};
  }
  // Of what changes something: done, but the answer is lost; or not even that.
  static Desk::Answer cut(bool done) {
    return [done](std::size_t, const Exchange& e) {
      if (!e.changes()) return desk().truth(e);
      if (done) desk().truth(e);
      return Desk::refusal(e, Reason::kUnavailable);
    };
  }
  // The rotations of whoever asks, changed.
  static Desk::Answer shows(const std::function<void(JsonArray&)>& change) {
    return [change](std::size_t, const Exchange& e) {
      Exchange answer = desk().truth(e);
      if (e.route() != "GET /v1/identities/*") return answer;
      Json j = must(parse_json(as_text(answer.body)));
      change(*j["chain"]["rotations"].array());
      answer.body = to_bytes(as_bytes(canonical(j)));
      return answer;
    };
  }
  static Outcome run(const std::string& who, std::vector<std::string> words,
                     const Desk::Answer& answer = genuine()) {
    Outcome out = desk().run({who, std::move(words)}, ++seed_, answer);
    desk().hold_home();
    desk().keep_home(who);
    return out;
  }
  Outcome recover(const Desk::Answer& answer = genuine()) const {
    return run(owner_, {"identity", "rotate", "--recovery"}, answer);
  }
  // The plane, and so the broker, take the owner's signature and not the thief's.
  void expect_own(const Outcome& recovered, std::size_t rotations) const {
    ASSERT_TRUE(recovered.status.ok()) << recovered.status.error().line();
    const std::string text = "(rotation " + std::to_string(rotations) + ")";
    EXPECT_NE(recovered.printed.find(text), std::string::npos) << recovered.printed;
    const Outcome asked = run(owner_, {"job", "list"});
    EXPECT_TRUE(asked.status.ok()) << asked.status.error().line();
    EXPECT_EQ(asked.home.count("/rotation.json"), 0U);
    for (const auto& words : {std::vector<std::string>{"job", "list"}, {"identity", "rotate"}}) {
      EXPECT_EQ(run(thief_, words).status.reason(), Reason::kUnauthenticated) << words[0];
    }
  }
  Bytes next_key() const {
    return must(read_file(Home(desk().home_of(owner_)).next_signing_key(), 4096));
  }
  static bool has(const Outcome& out, const Bytes& key) {
    return std::any_of(out.keys.begin(), out.keys.end(),
                       [&](const auto& k) { return k.second == key; });
  }

  static inline std::uint64_t seed_ = 3'000'000;  // no plane takes a nonce twice
  const std::string owner_ = "turn-" + std::to_string(seed_), thief_ = owner_ + "-thief";
};

TEST_F(Turning, AThiefWhoRotatesFirstIsDrivenOut) {
  ASSERT_TRUE(run(thief_, {"identity", "rotate"}).status.ok());
  for (const auto& words : {std::vector<std::string>{"job", "list"}, {"identity", "rotate"}}) {
    const Outcome locked = run(owner_, words);
    EXPECT_EQ(locked.status.reason(), Reason::kUnauthenticated);
    EXPECT_NE(locked.status.error().next.find("identity rotate --recovery"), std::string::npos)
        << locked.status.error().line();
  }
  // What was begun with the old key was beaten; its key stays all the same.
  const Bytes begun = next_key();
  const Outcome recovered = recover();
  EXPECT_TRUE(has(recovered, begun));
  EXPECT_NE(recovered.noted.find("1 of the identity's rotations"), std::string::npos);
  expect_own(recovered, 2);
  expect_own(recover(), 3);
}

// The rotation was taken and its answer lost, or it never came: then the owner goes on with the
// recovery key, with and without what an earlier hint had removed.
TEST_F(Turning, TheRecoveryKeyGoesOnFromARotationWithoutAnAnswer) {
  std::size_t rotations = 0;
  for (const bool done : {true, false}) {
    ASSERT_EQ(run(owner_, {"identity", "rotate"}, cut(done)).status.reason(), Reason::kUnavailable);
    const Bytes begun = next_key();
    const Outcome recovered = recover();
    EXPECT_EQ(recovered.noted, "");
    expect_own(recovered, rotations += 2);
    EXPECT_TRUE(has(recovered, begun)) << "it was the identity's for a moment";
  }
  ASSERT_EQ(run(owner_, {"identity", "rotate"}, cut(true)).status.reason(), Reason::kUnavailable);
  const Bytes in_use = next_key();
  ASSERT_TRUE(fs::remove(desk().home_of(owner_) + "/rotation.json"));
  const Outcome again = run(owner_, {"identity", "rotate"});
  EXPECT_EQ(again.status.reason(), Reason::kUnauthenticated) << again.status.error().line();
  EXPECT_TRUE(has(again, in_use)) << "the key in use is written over";
  expect_own(recover(), rotations + 2);
}

TEST_F(Turning, ARotationByTheRecoveryKeyGoesOnAsItWasBegun) {
  ASSERT_EQ(recover(cut(true)).status.reason(), Reason::kUnavailable);
  const Outcome other = run(owner_, {"identity", "rotate"});
  EXPECT_EQ(other.status.reason(), Reason::kConflict) << other.status.error().line();
  EXPECT_NE(other.status.error().next.find("rotate --recovery"), std::string::npos);
  EXPECT_EQ(other.status.error().next.find("remove"), std::string::npos);
  expect_own(recover(), 1);
  // A thief of the key before this one comes first.
  ASSERT_EQ(recover(cut(false)).status.reason(), Reason::kUnavailable);
  fs::remove_all(desk().home_of(thief_));
  fs::copy(desk().home_of(owner_), desk().home_of(thief_), fs::copy_options::recursive);
  fs::remove_all(desk().home_of(thief_) + "/recovery");
  fs::remove(desk().home_of(thief_) + "/rotation.json");
  ASSERT_TRUE(run(thief_, {"identity", "rotate"}).status.ok());
  expect_own(recover(), 3);
}

// Other rotations than those that are known here, or that nobody signed: nothing is signed on them.
TEST_F(Turning, ThePlaneAddsNoRotationAndTakesNoneBack) {
  ASSERT_TRUE(run(owner_, {"identity", "rotate"}).status.ok());
  ASSERT_TRUE(run(owner_, {"job", "list"}).status.ok());
  const auto keys = files_below(desk().home_of(owner_) + "/keys");
  const auto forged = [](JsonArray& rotations) {
    Json next = rotations.back();
    next["body"]["serial"] = 2;
    rotations.push_back(next);
  };
  for (const auto& [what, answer, reason] :
       {std::tuple("none", shows([](JsonArray& r) { r.clear(); }), Reason::kChainBroken),
        std::tuple("forged", shows(forged), Reason::kBadSignature)}) {
    const Outcome lied = recover(answer);
    EXPECT_EQ(lied.status.reason(), reason) << what << lied.status.error().line();
    EXPECT_TRUE(lied.sent.empty()) << what;
    EXPECT_EQ(lied.keys, keys) << what;
    EXPECT_EQ(lied.home.count("/rotation.json"), 0U) << what;
  }
  // A rotation that it kept back for a while is no loss for good.
  ASSERT_EQ(recover(cut(true)).status.reason(), Reason::kUnavailable);
  const Outcome early = recover([](std::size_t n, const Exchange& e) {
    return e.changes() ? Desk::refusal(e, Reason::kChainBroken)
                       : shows([](JsonArray& r) { r.pop_back(); })(n, e);
  });
  EXPECT_EQ(early.status.reason(), Reason::kChainBroken) << early.status.error().line();
  expect_own(recover(), 2);
}

// A revocation, or any policy, that came nowhere before the key changed is signed with the new one;
// and one that the broker has is acknowledged as it was sent, for its proof is about those bytes.
TEST_F(Turning, ARevocationIsSentAfterARotation) {
  expect_acknowledged(publish(), 1);
  EXPECT_EQ(unanswered(policy("--revoke"), false), 1U);
  expect_acknowledged(policy("--revoke"), 2);
  EXPECT_EQ(unanswered(policy("--reinstate"), true), 1U);
  expect_acknowledged(policy("--reinstate"), 1);
  // Nowhere, then signed anew and only at the broker, and the key changes again.
  EXPECT_EQ(unanswered(policy("--revoke"), false), 1U);
  EXPECT_EQ(unanswered(policy("--revoke"), true), 2U);
  expect_acknowledged(policy("--revoke"), 2);
  // Another policy instead of one that never came.
  EXPECT_EQ(unanswered(policy("--reinstate"), false), 1U);
  desk().put("other.yaml",
             "apiVersion: glovebox/v1\nkind: ReleasePolicy\nclauses:\n  notAfter: 2041-01-31\n");
  expect_acknowledged({"policy", "sign", owner_, "--reinstate", "--policy", "{dir}/other.yaml"}, 1);
}

TEST_F(Turning, APublicationIsSentAfterARotation) {
  for (const bool at_broker : {false, true}) {
    EXPECT_EQ(unanswered(publish(), at_broker), 1U);
    expect_acknowledged(publish(), at_broker ? 1 : 2);
  }
  EXPECT_EQ(unanswered(publish(), false), 1U);
  EXPECT_EQ(unanswered(publish(), true), 2U);
  expect_acknowledged(publish(), 2);
}

// The broker has it, and the plane says that its key does not stand: nothing that is needed for the
// proof is lost by that.
TEST_F(Turning, AFalseWordAboutAKeyLosesNoProof) {
  expect_acknowledged(publish(), 1);
  EXPECT_EQ(unanswered(policy("--revoke"), true), 1U);
  const Outcome lied = run(owner_, policy("--revoke"), [](std::size_t, const Exchange& e) {
    return e.changes() ? Desk::refusal(e, Reason::kChainBroken) : desk().truth(e);
  });
  EXPECT_EQ(lied.status.reason(), Reason::kChainBroken) << lied.status.error().line();
  EXPECT_EQ(publications(lied), 2U);
  expect_acknowledged(policy("--revoke"), 1);
}

// A reviewer for whom the plane lists one job, and another that begins alike a moment later.
class Alike : public CliLies {
 protected:
  static Desk::Answer lists(const std::string& job) {
    return [job](std::size_t, const Exchange& e) {
      Exchange answer = desk().truth(e);
      if (e.route() != "GET /v1/reviews") return answer;
      Json j = must(parse_json(as_text(answer.body)));
      std::erase_if(*j["items"].array(), [&](Json& v) { return *v["jobId"].string() != job; });
      answer.body = to_bytes(as_bytes(canonical(j)));
      return answer;
    };
  }
  static Outcome review(const std::vector<std::string>& words, const Desk::Answer& answer,
                        Desk::Start start) {
    std::vector<std::string> all{"review"};
    all.insert(all.end(), words.begin(), words.end());
    return desk().run({"reviewer", all}, ++seed_, answer, start);
  }
  std::string beginning() const { return harmless_.substr(0, 4); }
  static bool ruled(const Outcome& out, const std::string& job) {
    return std::any_of(out.sent.begin(), out.sent.end(), [&](const auto& line) {
      return line.find("/v1/reviews/" + job) != std::string::npos;
    });
  }
  const std::string harmless_ = jobs().alike[0], other_ = jobs().alike[1];
  static inline std::uint64_t seed_ = 2'000'000;  // no plane takes a nonce twice
};

TEST_F(Alike, ARulingIsOnTheJobThatWasShown) {
  ASSERT_EQ(other_.substr(0, 4), beginning());
  ASSERT_NE(other_, harmless_);
  // Not shown here: only the whole id names it.
  for (const auto& digits : {beginning(), other_.substr(0, 16), other_.substr(0, 63)}) {
    const auto out = review({"reject", digits, "--yes"}, lists(other_), Desk::Start::kAfresh);
    EXPECT_EQ(out.status.reason(), Reason::kUsage) << digits;
    EXPECT_TRUE(out.sent.empty()) << digits;
  }
  // Shown both, four digits name neither.
  for (const auto& job : {harmless_, other_}) {
    ASSERT_TRUE(review({"show", job}, lists(other_),
                       job == harmless_ ? Desk::Start::kAfresh : Desk::Start::kGoesOn)
                    .status.ok());
  }
  const auto both = review({"reject", beginning(), "--yes"}, lists(other_), Desk::Start::kGoesOn);
  EXPECT_EQ(both.status.reason(), Reason::kConflict);
  EXPECT_TRUE(both.sent.empty());
  // Shown: it is the one, whatever the plane lists.
  const auto shown = review({"show", beginning()}, lists(harmless_), Desk::Start::kAfresh);
  ASSERT_TRUE(shown.status.ok()) << shown.status.error().line();
  EXPECT_NE(shown.printed.find("job       " + harmless_), std::string::npos);
  EXPECT_NE(shown.printed.find("review approve " + harmless_), std::string::npos);
  for (const std::string verb : {"approve", "reject"}) {
    const auto lied = review(
        {verb, beginning(), "--yes"},
        [&](std::size_t n, const Exchange& e) {
          // Nor does it get the one that was shown.
          return e.target == "/v1/reviews/" + harmless_ ? Desk::refusal(e, Reason::kNotFound)
                                                        : lists(other_)(n, e);
        },
        Desk::Start::kGoesOn);
    EXPECT_EQ(lied.status.reason(), Reason::kNotFound);
    EXPECT_TRUE(lied.sent.empty()) << verb;
  }
  const auto ruled_on =
      review({"approve", beginning(), "--yes"}, lists(other_), Desk::Start::kGoesOn);
  ASSERT_TRUE(ruled_on.status.ok()) << ruled_on.status.error().line();
  EXPECT_TRUE(ruled(ruled_on, harmless_));
  EXPECT_FALSE(ruled(ruled_on, other_));
  EXPECT_NE(ruled_on.printed.find(harmless_), std::string::npos);
  const auto output = shown.printed.find("output    ");
  ASSERT_NE(output, std::string::npos);
  EXPECT_NE(ruled_on.printed.find("output  " + shown.printed.substr(output + 10, 64)),
            std::string::npos)
      << ruled_on.printed;
  // The other one by its whole id: nobody can make two of these.
  const auto whole = review({"reject", other_, "--yes"}, lists(harmless_), Desk::Start::kAfresh);
  ASSERT_TRUE(whole.status.ok()) << whole.status.error().line();
  EXPECT_TRUE(ruled(whole, other_));
}

}  // namespace
}  // namespace gbx::cli
