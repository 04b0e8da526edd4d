// What large documents of one identity cost the others: the work and the memory of one page of a
// list, what programs can read of it, bytes of a day, and a row that cannot be read.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/os.h"
#include "broker/testing.h"
#include "plane/core/page.h"
#include "plane/core/testing.h"
#include "plane/store/sqlite_store.h"
#include "records/value_limits.h"

namespace gbx::plane {
namespace {

using namespace records;
using testing::must;

// Remembers the largest answer and what was looked at since it was last asked.
class MeasuredStore final : public machines::Store {
 public:
  explicit MeasuredStore(std::unique_ptr<machines::Store> inner) : inner_(std::move(inner)) {}
  Status commit(const machines::Transaction& t) override { return inner_->commit(t); }
  Result<std::optional<Machine>> machine(const std::string& id) override {
    return inner_->machine(id);
  }
  Result<std::vector<Machine>> machines(const machines::MachineQuery& q) override {
    return measured(inner_->machines(q));
  }
  Result<std::int64_t> count(const machines::MachineQuery& q) override { return inner_->count(q); }
  Result<std::vector<machines::TransitionRow>> history(const std::string& m, std::int64_t a,
                                                       std::size_t l) override {
    return inner_->history(m, a, l);
  }
  Result<std::optional<machines::Record>> record(const std::string& k,
                                                 const std::string& i) override {
    return inner_->record(k, i);
  }
  Result<std::vector<machines::Record>> records(const machines::RecordQuery& q) override {
    return measured(inner_->records(q));
  }
  Result<std::vector<machines::Effect>> due(std::int64_t now, std::size_t l) override {
    return inner_->due(now, l);
  }
  Result<std::optional<std::int64_t>> next_due_ms() override { return inner_->next_due_ms(); }

  std::size_t rows = 0;
  std::size_t largest = 0;  // bytes of one answer's documents

 private:
  template <class Rows>
  Rows measured(Rows found) {
    if (!found.ok()) return found;
    std::size_t bytes = 0;
    for (const auto& row : *found) bytes += canonical(row.body).size();
    rows += found->size();
    largest = std::max(largest, bytes);
    return found;
  }
  std::unique_ptr<machines::Store> inner_;
};

class Sizes : public ::testing::Test {
 protected:
  Sizes() {
    std::string name = "/tmp/gbx-sizes-XXXXXX";
    directory_ = mkdtemp(name.data());
    must(b.start());
    store = std::make_unique<MeasuredStore>(must(SqliteStore::open(directory_ + "/plane.db")));
    config.set = b.set.chain;
    config.set_id = b.set.id();
    start();
  }
  ~Sizes() override {
    core.reset();
    store.reset();
    (void)remove_tree(directory_);
  }
  void start() { core = must(Core::create(*store, shelf, b.clock, config)); }
  plane::Caller consumer() { return {b.consumer.id(), {Role::kConsumer}}; }
  void populate() {
    must(testing::enrol(*core, b.owner.chain, b.owner.key.public_key(), "owner", Role::kOwner));
    must(testing::enrol(*core, b.consumer.chain, b.consumer.key.public_key(), "consumer",
                        Role::kConsumer));
    for (const testing::Asset* a : {&b.data, &b.image}) {
      const Publish p = testing::make_publish(b.set, *a, b.random);
      must(core->accept_publish(p, must(b.call<Signed<PublishAck>>(method::kPublish, p))));
    }
    must(core->enrol_node("n", b.node.public_key().text()));
    must(core->register_node(b.node.public_key(), {"n",
                                                   b.node.public_key().text(),
                                                   {Technology::kNone},
                                                   8,
                                                   std::int64_t{8} << 30,
                                                   1,
                                                   "test",
                                                   kMaxPids,
                                                   {}}));
  }
  // As large as the broker takes them: of bytes, or of values.
  SignedSubmission large(bool values) {
    SignedSubmission s = b.submission();
    SpecOutput& first = s.submission.body.spec.spec.outputs[0];
    const std::size_t most = static_cast<std::size_t>(values ? kMaxSchemaValues - 2 : 1);
    Json text = Json(std::string(values ? 0 : 120'000, 'x'));
    Json fields = values ? Json(JsonArray(most, Json(JsonArray{}))) : text;
    first.schema = Json();
    (*first.schema)["x"] = fields;
    const SpecOutput copied = first;
    for (int i = 1; i < 4; ++i) {
      SpecOutput next = copied;
      next.name += std::to_string(i);
      next.path += std::to_string(i);
      s.submission.body.spec.spec.outputs.push_back(next);
    }
    s.leases.clear();  // so that the broker denies it
    s.submission.body.leases.clear();
    s.submission.body.not_after = b.clock.now().seconds() + 10'000;
    testing::resign(s, b.set.id(), b.consumer);
    must(s.submission.body.validate());
    return s;
  }
  // Stored, as submit() stores it, as often as that: what signing takes is not the point here.
  void store_jobs(const SignedSubmission& s, int count, const char* state = "Denied") {
    JobBody body;
    body.submission = s;
    const Json json = to_json(body);
    for (int i = 0; i < count;) {
      machines::Transaction t;
      for (const int end = std::min(count, i + 10); i < end; ++i) {
        Machine m;
        m.id = "job/" + to_hex(b.random.fixed<32>());
        m.kind = "job";
        m.owner = to_hex(s.submission.body.consumer_id);
        m.body = json;
        machines::add_begin(t, m, state, {}, b.clock.now().ms + i);
      }
      must(store->commit(t));
    }
  }

  testing::BrokerWorld b{1};
  CoreConfig config;
  MemoryShelf shelf;
  std::unique_ptr<MeasuredStore> store;
  std::unique_ptr<Core> core;

 private:
  std::string directory_;
};

TEST_F(Sizes, APageOfJobsLooksAtBoundedDocumentsAndTheNextGoesOn) {
  store_jobs(large(false), 60);
  const auto all = [&](const Core::JobFilter& filter, std::size_t limit, std::size_t* most_rows) {
    std::size_t found = 0;
    Page page{"", limit};
    do {
      store->rows = 0;
      const api::JobList list = must(core->jobs(consumer(), filter, page));
      *most_rows = std::max(*most_rows, store->rows);
      found += list.items.size();
      EXPECT_LE(list.items.size(), limit);
      EXPECT_NE(list.next, page.cursor);
      page.cursor = list.next;
    } while (!page.cursor.empty());
    return found;
  };
  std::size_t rows = 0;
  EXPECT_EQ(all({}, 1'000, &rows), 60U);
  EXPECT_LE(store->largest, kLookBytes + kMaxRequestBytes);
  // What nothing matches is looked for in pieces too.
  rows = 0;
  EXPECT_EQ(all({"Revoked", std::nullopt, std::nullopt}, 1, &rows), 0U);
  EXPECT_LT(rows, 20U);
  EXPECT_LE(store->largest, kLookBytes + kMaxRequestBytes);
}

// "VmHWM:    1234 kB" of this process, in bytes.
std::int64_t memory_of(const std::string& field) {
  const std::string text = must(read_text_file("/proc/self/status", 1 << 16));
  return std::strtoll(text.c_str() + text.find(field + ":") + field.size() + 1, nullptr, 10) * 1024;
}

TEST_F(Sizes, APageOfAThousandLargestJobsTakesLittleMemory) {
  store_jobs(large(false), 150);  // 70 MiB of text
  store_jobs(large(true), 850);   // 16,000 values each
  const pid_t pid = fork();       // the peak is a process's own
  if (pid == 0) {
    const std::int64_t before = memory_of("VmRSS");
    const bool listed = core->jobs(consumer(), {}, {"", 1'000}).ok();
    const std::int64_t rise = memory_of("VmHWM") - before;
    if (rise >= (48 << 20)) fprintf(stderr, "%lld MiB\n", static_cast<long long>(rise >> 20));
    _exit(listed && rise < (48 << 20) ? 0 : 1);
  }
  int status = -1;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(Sizes, BytesOfADayAreCountedWhateverBecomesOfTheJobs) {
  const auto size = [&](const SignedSubmission& s) {
    return static_cast<std::int64_t>(canonical(to_json(s)).size());
  };
  std::vector<SignedSubmission> fat;
  for (int i = 0; i < 3; ++i) fat.push_back(large(false));
  config.quotas.job_bytes_per_day = 2 * size(fat[0]) + size(b.submission());
  start();
  populate();
  must(core->submit(consumer(), fat[0], std::nullopt));
  must(core->submit(consumer(), fat[1], std::nullopt));
  const auto refused = core->submit(consumer(), fat[2], std::nullopt);
  EXPECT_EQ(refused.reason(), Reason::kQuotaExceeded);
  EXPECT_EQ(refused.error().what, "bytes of submissions per day");
  must(core->submit(consumer(), b.submission(), std::nullopt));
  b.clock.advance(86'400'000);
  fat[2] = large(false);
  must(core->submit(consumer(), fat[2], std::nullopt));
}

TEST_F(Sizes, BytesOfADaysPublicationsAreCounted) {
  populate();
  testing::next_policy(b.data);
  b.data.policy.clauses.purposes.assign(64, std::string(190, 'p'));
  const Publish large = testing::make_publish(b.set, b.data, b.random);
  const auto check = [&] { return core->check_publish({b.owner.id(), {Role::kOwner}}, large); };
  EXPECT_TRUE(check().ok());
  // Room for this one alone: data and image took of it today.
  config.quotas.publication_bytes_per_day =
      static_cast<std::int64_t>(canonical(to_json(large)).size());
  start();
  EXPECT_EQ(check().reason(), Reason::kQuotaExceeded);
  EXPECT_EQ(check().error().what, "bytes of publications and renewals per day");
  b.clock.advance(86'400'000);
  EXPECT_TRUE(check().ok());
  must(core->accept_publish(large, must(b.call<Signed<PublishAck>>(method::kPublish, large))));
  testing::next_policy(b.data);
  const Publish next = testing::make_publish(b.set, b.data, b.random);
  EXPECT_EQ(core->check_publish({b.owner.id(), {Role::kOwner}}, next).reason(),
            Reason::kQuotaExceeded);
}

TEST_F(Sizes, ACatalogueOfTheLargestPoliciesIsReadByEverybody) {
  populate();
  const auto asset = *must(store->record("asset", to_hex(b.data.version_id())));
  const auto policy =
      *must(store->record("policy", to_hex(must(from_json<AssetBody>(asset.body)).policy_hash)));
  PolicyBody fat = must(from_json<PolicyBody>(policy.body));
  Clauses& clauses = fat.policy.body.clauses;
  while (value_count(to_json(clauses)) + 258 < static_cast<std::size_t>(kMaxClausesValues)) {
    clauses.commands.push_back({std::vector<std::string>(250), {}});
  }
  machines::Transaction t;
  for (int i = 0; i < 200; ++i) {
    const std::string id = to_hex(b.random.fixed<32>());
    AssetBody body = must(from_json<AssetBody>(asset.body));
    body.policy_hash = b.random.fixed<32>();
    t.records.push_back({0, {"asset", id, asset.owner, asset.name, 1 + i, 0, to_json(body)}});
    t.records.push_back({0,
                         {"policy", to_hex(body.policy_hash), to_hex(b.data.version_id()), "",
                          2 + i, 0, to_json(fat)}});
  }
  must(store->commit(t));
  const auto entries = [&](const auto& ask) {
    std::size_t found = 0;
    Page page{"", 200};
    do {
      const auto list = ask(page);
      EXPECT_TRUE(parse_json(canonical(to_json(list)), {.max_bytes = kPageBytes}).ok());
      found += list.items.size();
      page.cursor = list.next;
    } while (!page.cursor.empty());
    return found;
  };
  EXPECT_EQ(entries([&](const Page& p) { return must(core->assets({}, p)); }), 202U);
  EXPECT_EQ(entries([&](const Page& p) { return must(core->policies(b.data.version_id(), p)); }),
            201U);
  EXPECT_LE(store->largest, kLookBytes + kMaxPolicyBytes);
}

TEST_F(Sizes, AnOwnersBeginningAndAnImagesDigestNarrowTheCatalogue) {
  populate();
  const auto names = [&](const std::string& owner, const std::string& digest) {
    Core::AssetFilter filter;
    if (!owner.empty()) filter.owner = owner;
    if (!digest.empty()) filter.digest = digest;
    std::vector<std::string> out;
    for (const auto& v : must(core->assets(filter, {})).items) out.push_back(v.record.body.name);
    std::sort(out.begin(), out.end());
    return out;
  };
  const std::string owner = to_hex(b.owner.id());
  const std::vector<std::string> both = names("", "");
  ASSERT_EQ(both.size(), 2U);
  EXPECT_EQ(names(owner, ""), both);
  EXPECT_EQ(names(owner.substr(0, 6), ""), both);
  EXPECT_EQ(names(to_hex(b.consumer.id()).substr(0, 6), "").size(), 0U);
  EXPECT_EQ(names("", b.image.record.content_digest),
            std::vector<std::string>{b.image.record.name});
  EXPECT_EQ(names("", "sha256:" + std::string(64, '0')).size(), 0U);
}

// One row that cannot be read keeps no other deadline, hold or silence from being seen.
TEST_F(Sizes, ARowThatCannotBeReadStopsNoOther) {
  populate();
  const auto broken = [&](const char* kind, std::int64_t deadline, bool live) {
    Machine m;
    m.id = std::string(kind) + "/" + to_hex(b.random.fixed<32>());
    m.kind = kind;
    m.live = live;
    m.deadline_ms = deadline;
    machines::Transaction t;
    machines::add_begin(t, m, m.kind == "job" ? "Submitted" : "Requested", {}, 1);
    must(store->commit(t));
  };
  // More than a page of them, and before all others.
  for (int i = 0; i < 120; ++i) broken("job", 1, true);
  for (int i = 0; i < 120; ++i) broken("env", 1, true);
  const Hash32 late = must(core->submit(consumer(), b.submission(), std::nullopt)).job_id;
  Machine held;
  held.id = "job/" + to_hex(b.random.fixed<32>());
  held.kind = "job";
  held.deadline_ms = b.clock.now().ms + 1'000;
  machines::Transaction t;
  machines::add_begin(t, held, "Failed", {}, 1);
  t.machines[0].machine.live = false;
  must(store->commit(t));
  b.clock.advance(86'400'000);
  core->was_away();
  b.clock.advance(config.lease_seconds * 1000);
  EXPECT_FALSE(core->tick().ok()) << "nobody would learn of it";
  EXPECT_EQ(must(core->job(consumer(), late)).state, "Expired");
  EXPECT_EQ(must(store->machine(held.id))->deadline_ms, 0);
}

}  // namespace
}  // namespace gbx::plane
