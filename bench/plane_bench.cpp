// bench-plane DIR STORED JOBS CLIENTS: the plane's core over SQLite in DIR that holds STORED ended
// jobs, and the broker's core over its own log; JOBS jobs go from submission to receipt, one after
// another, and then as many again of CLIENTS at once, to CLIENTS nodes' places. Prints microseconds
// of each measurement, and what was done in how long at once, as JSON. No sockets: what is measured
// is deciding and keeping. What only an environment does (running, sealing) is done by a fake agent
// and not counted one by one; at once it is part of the time. Beside them two limits of this
// machine: one transaction of the same bytes in an empty SQLite file with the same durability, and
// bare signature checks, of which each of the broker's answers says how many it made.
#include <openssl/evp.h>
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <thread>

#include "base/os.h"
#include "broker/testing.h"
#include "plane/core/bodies.h"
#include "plane/core/core.h"
#include "plane/core/testing.h"
#include "plane/store/sqlite_store.h"
#include "plane_fill.h"

// Every signature check of the program comes by here: the linker puts it before OpenSSL's
// (bench/CMakeLists.txt).
std::atomic<std::int64_t> signature_checks{0};  // NOLINT: the linker knows no object to hold it
extern "C" {
// NOLINTBEGIN: the linker's names
int __real_EVP_DigestVerify(EVP_MD_CTX* ctx, const unsigned char* signature, size_t signature_size,
                            const unsigned char* message, size_t message_size);
int __wrap_EVP_DigestVerify(EVP_MD_CTX* ctx, const unsigned char* signature, size_t signature_size,
                            const unsigned char* message, size_t message_size) {
  ++signature_checks;
  return __real_EVP_DigestVerify(ctx, signature, signature_size, message, message_size);
}
// NOLINTEND
}

namespace {

using namespace gbx;
using testing::must;

class Samples {
 public:
  template <class F>
  auto timed(const std::string& what, F&& f) {
    const Stopwatch watch(*this, what);
    return f();
  }
  template <class F>
  void at_once(const std::string& what, F&& f) {
    const auto began = Steady::now();
    f();
    at_once_[what] =
        std::chrono::duration_cast<std::chrono::microseconds>(Steady::now() - began).count();
  }
  void print(std::int64_t stored, std::uint64_t bytes) const {
    Json out;
    out["stored"] = stored;
    out["databaseBytes"] = static_cast<std::int64_t>(bytes);
    for (const auto& [what, us] : us_) {
      JsonArray list;
      for (const std::int64_t v : us) list.emplace_back(v);
      out["us"][what] = Json(std::move(list));
      out["signatureChecks"][what] = checks_.at(what);
    }
    for (const auto& [what, us] : at_once_) out["atOnceUs"][what] = us;
    std::printf("%s\n", canonical(out).c_str());
  }

 private:
  using Steady = std::chrono::steady_clock;
  struct Stopwatch {
    Stopwatch(Samples& samples, std::string what) : samples_(samples), what_(std::move(what)) {}
    ~Stopwatch() {
      const auto took =
          std::chrono::duration_cast<std::chrono::microseconds>(Steady::now() - began_);
      samples_.us_[what_].push_back(took.count());
      samples_.checks_[what_] += signature_checks - checks_before_;
    }
    Samples& samples_;
    const std::string what_;
    const std::int64_t checks_before_ = signature_checks;
    const Steady::time_point began_ = Steady::now();
  };
  std::map<std::string, std::vector<std::int64_t>> us_;
  std::map<std::string, std::int64_t> checks_;  // signatures, in all of its measurements
  std::map<std::string, std::int64_t> at_once_;
};

// The limit: one durable INSERT of so many bytes.
class BareStore {
 public:
  explicit BareStore(const std::string& path) {
    run(sqlite3_open(path.c_str(), &db_));
    for (const char* sql : {"PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL",
                            "CREATE TABLE bare (id INTEGER PRIMARY KEY, body TEXT NOT NULL)"}) {
      run(sqlite3_exec(db_, sql, nullptr, nullptr, nullptr));
    }
    run(sqlite3_prepare_v2(db_, "INSERT INTO bare (body) VALUES (?)", -1, &insert_, nullptr));
  }
  ~BareStore() {
    sqlite3_finalize(insert_);
    sqlite3_close(db_);
  }
  BareStore(const BareStore&) = delete;
  BareStore& operator=(const BareStore&) = delete;
  void insert(const std::string& body) {
    run(sqlite3_bind_text(insert_, 1, body.data(), static_cast<int>(body.size()), SQLITE_STATIC));
    if (sqlite3_step(insert_) != SQLITE_DONE) run(SQLITE_ERROR);
    run(sqlite3_reset(insert_));
  }

 private:
  static void run(int status) {
    if (status == SQLITE_OK) return;
    std::fprintf(stderr, "bench-plane: SQLite: %s\n", sqlite3_errstr(status));
    std::exit(1);
  }
  sqlite3* db_ = nullptr;
  sqlite3_stmt* insert_ = nullptr;
};

class Bench {
 public:
  explicit Bench(const std::string& directory)
      : directory_(directory),
        log_(must(broker::open_sqlite_store(directory + "/log.db"))),
        b_(1, log_.get()),
        bare_(directory + "/bare.db") {
    for (testing::Asset* a : {&b_.data, &b_.image}) {
      a->policy.clauses.gate.period_free_bits = std::int64_t{1} << 39;
      a->policy.clauses.gate.total_free_bits = std::int64_t{1} << 39;
    }
    b_.awake = broker::Awake{};  // as the program keeps them, not as tests do
    must(b_.start());
    open_plane();
    for (const auto& [who, role] : {std::pair(&b_.owner, plane::Role::kOwner),
                                    std::pair(&b_.consumer, plane::Role::kConsumer)}) {
      must(testing::enrol(*core_, who->chain, who->key.public_key(), std::string(enum_name(role)),
                          role));
    }
    for (const testing::Asset* a : {&b_.data, &b_.image}) {
      const auto publish = testing::make_publish(b_.set, *a, b_.random);
      must(core_->accept_publish(publish, must(b_.call<records::Signed<records::PublishAck>>(
                                              records::method::kPublish, publish))));
    }
    must(core_->enrol_node("n", node().text()));
    register_node();
  }

  // A job from submission to receipt; measured when `samples` is there.
  Hash32 job(Samples& samples) {
    const auto s = b_.submission();
    const auto id = samples.timed(
        "submit", [&] { return must(core_->submit(consumer(), s, std::nullopt)).job_id; });
    samples.timed("authorise", [&] { pump(samples); });
    samples.timed("place", [&] {
      if (!must(core_->poll(node()))) pump(samples);
    });
    const auto work = must(core_->poll(node()));
    if (!work) {
      std::fprintf(stderr, "bench-plane: no work\n");
      std::exit(1);
    }
    const records::OutputUpload upload = agent(samples, *work);
    samples.timed("output", [&] { must(core_->output(node(), upload)); });
    const auto claim = destroyed(upload);
    samples.timed("destroyed", [&] { must(core_->destroyed(node(), claim)); });
    samples.timed("judge and receipt", [&] { pump(samples); });
    const auto view = samples.timed("one job", [&] { return must(core_->job(consumer(), id)); });
    if (view.state != "Completed") {
      std::fprintf(stderr, "bench-plane: the job is %s\n", view.state.c_str());
      std::exit(1);
    }
    samples.timed("metrics", [&] { must(core_->numbers()); });
    // It takes as long as ten of the others.
    if (listed_++ % 10 == 0) {
      samples.timed("newest 50", [&] { must(core_->jobs(consumer(), {}, {{}, 50})); });
    }
    const std::string body = canonical(must(store_->machine(plane::job_machine(id)))->body);
    samples.timed("bare transaction", [&] { bare_.insert(body); });
    samples.timed("bare signature checks", [&] { check_signatures(s); });
    b_.clock.advance(1'000);
    return id;
  }

  // As many jobs, from so many clients at once, accepted; and then brought to their end by as many
  // places of a node. The broker takes one question at a time, as its program does.
  void at_once(Samples& samples, std::size_t jobs, std::size_t clients) {
    std::vector<records::SignedSubmission> submissions;
    for (std::size_t i = 0; i < jobs; ++i) submissions.push_back(b_.submission());
    std::atomic<std::size_t> next{0};
    samples.at_once("accept", [&] {
      each_of(clients, [&] {
        for (std::size_t i = next++; i < jobs; i = next++) {
          must(core_->submit(consumer(), submissions[i], std::nullopt));
        }
      });
    });
    const std::int64_t all = completed() + static_cast<std::int64_t>(jobs);
    std::atomic<bool> done{false};
    samples.at_once("complete", [&] {
      std::thread dispatcher([&] {
        pump_until(all);
        done = true;
      });
      each_of(clients, [&] { work_until(done); });
      dispatcher.join();
    });
  }

  // Copies of an ended job until `stored` are there.
  void fill(const Hash32& like, std::int64_t stored) {
    const machines::Machine ended = *must(store_->machine(plane::job_machine(like)));
    const auto body = must(from_json<plane::JobBody>(ended.body));
    close_plane();
    bench::fill_plane(directory_ + "/plane.db", body.submission.submission.body, stored - 1,
                      b_.random);
    open_plane();
    register_node();
    if (must(core_->numbers()).jobs.at("Completed") != stored) {
      std::fprintf(stderr, "bench-plane: not all were stored\n");
      std::exit(1);
    }
  }
  std::uint64_t bytes() const { return std::filesystem::file_size(directory_ + "/plane.db"); }

 private:
  void open_plane() {
    plane::CoreConfig config;
    config.set = b_.set.chain;
    config.set_id = b_.set.id();
    config.quotas.live_jobs = config.quotas.jobs_per_day = std::int64_t{1} << 40;
    store_ = must(plane::SqliteStore::open(directory_ + "/plane.db"));
    core_ = must(plane::Core::create(*store_, shelf_, b_.clock, config));
  }
  void close_plane() {
    core_.reset();
    store_.reset();
  }
  void register_node() {
    must(core_->register_node(node(), {"n",
                                       node().text(),
                                       {records::Technology::kNone},
                                       8,
                                       std::int64_t{8} << 30,
                                       1,
                                       "bench",
                                       records::kMaxPids,
                                       {}}));
  }
  plane::Caller consumer() const { return {b_.consumer.id(), {plane::Role::kConsumer}}; }
  crypto::PublicKey node() const { return b_.node.public_key(); }

  template <class F>
  static void each_of(std::size_t threads, F&& work) {
    std::vector<std::thread> all;
    for (std::size_t i = 0; i < threads; ++i) all.emplace_back(work);
    for (auto& t : all) t.join();
  }
  std::int64_t completed() {
    const auto jobs = must(core_->numbers()).jobs;
    const auto found = jobs.find("Completed");
    return found == jobs.end() ? 0 : found->second;
  }
  // What the dispatcher of the plane does.
  void pump_until(std::int64_t all_completed) {
    Samples uncounted;
    while (completed() < all_completed) {
      const std::uint64_t seen = core_->version();
      pump(uncounted);
      if (must(core_->due(1)).empty() && completed() < all_completed) core_->wait(seen, 100);
    }
  }
  // What one place of the node does.
  void work_until(const std::atomic<bool>& done) {
    Samples uncounted;
    while (!done) {
      const std::uint64_t seen = core_->version();
      const auto work = must(core_->poll(node()));
      if (!work) {
        core_->wait(seen, 100);
        continue;
      }
      const auto [upload, claim] = [&] {
        const std::lock_guard lock(broker_);
        records::OutputUpload done_work = agent(uncounted, *work);
        auto gone = destroyed(done_work);
        return std::pair(std::move(done_work), std::move(gone));
      }();
      must(core_->output(node(), upload));
      must(core_->destroyed(node(), claim));
    }
  }
  void pump(Samples& samples) {
    for (int i = 0; i < 50; ++i) {
      const auto due = must(core_->due(32));
      if (due.empty()) return;
      for (const auto& effect : due) {
        const auto call = must(core_->prepare(effect));
        if (!call) continue;
        const auto reply = [&] {
          const std::lock_guard lock(broker_);
          return samples.timed("broker: " + call->method, [&] {
            return b_.core->handle(call->method, call->body, b_.plane(), b_.clock.now());
          });
        }();
        must(core_->finish(effect, reply));
      }
    }
  }
  records::Signed<records::DestroyedClaim> destroyed(const records::OutputUpload& upload) {
    return must(records::sign(
        b_.set.id(),
        records::DestroyedClaim{upload.job_id, upload.attempt, b_.clock.now().seconds(), {}},
        b_.node));
  }
  records::OutputUpload agent(Samples& samples, const records::LaunchBundle& work) {
    testing::FakeAgent agent = testing::make_agent(b_.random);
    const auto connection = b_.connect(agent);
    const Hash32 evidence = samples.timed(
        "broker: attest", [&] { return must(b_.attest(agent, work.credential, connection)); });
    for (std::int64_t stage = 1; stage <= 2; ++stage) {
      samples.timed("broker: key", [&] {
        must(b_.key(agent, work.credential.body, evidence, stage, connection));
      });
    }
    const auto sealed =
        b_.make_seal(agent, work.submission, work.plan, 1, evidence, testing::clean_verdict());
    const auto ack =
        samples.timed("broker: seal", [&] { return must(b_.seal(sealed.seal, connection)); });
    return {work.credential.body.job_id, 1, ack, sealed.output};
  }
  // Of one authorisation: the submission, its lease, and record and policy of both assets.
  void check_signatures(const records::SignedSubmission& s) {
    const auto check = [&](const auto& record, const crypto::PublicKey& key) {
      must(record.verify(b_.set.id(), key));
    };
    check(s.submission, b_.consumer.key.public_key());
    for (const auto& lease : s.leases) check(lease, b_.owner.key.public_key());
    if (!signed_.empty()) {
      for (const auto& p : signed_) {
        check(p.record, b_.owner.key.public_key());
        check(p.policy, b_.owner.key.public_key());
      }
      return;
    }
    for (const testing::Asset* a : {&b_.data, &b_.image}) {
      signed_.push_back(testing::make_publish(b_.set, *a, b_.random));
    }
  }
  const std::string directory_;
  std::unique_ptr<broker::LogStore> log_;
  testing::BrokerWorld b_;
  std::unique_ptr<plane::SqliteStore> store_;
  plane::MemoryShelf shelf_;
  std::unique_ptr<plane::Core> core_;
  BareStore bare_;
  std::vector<records::Publish> signed_;
  std::size_t listed_ = 0;
  std::mutex broker_;  // b_, where several threads are at work
};

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t stored = argc == 5 ? std::atoll(argv[2]) : 0;
  const std::int64_t jobs = argc == 5 ? std::atoll(argv[3]) : 0;
  const std::int64_t clients = argc == 5 ? std::atoll(argv[4]) : 0;
  if (stored < 1 || jobs < 1 || clients < 1 || clients > 64) {
    std::fprintf(stderr, "usage: %s DIR STORED JOBS CLIENTS\n", argv[0]);
    return 2;
  }
  Bench bench(argv[1]);
  Samples warm;
  const Hash32 first = bench.job(warm);
  bench.fill(first, stored);
  Samples samples;
  for (std::int64_t i = 0; i < jobs; ++i) bench.job(samples);
  bench.at_once(samples, static_cast<std::size_t>(jobs), static_cast<std::size_t>(clients));
  samples.print(stored, bench.bytes());
  return 0;
}
