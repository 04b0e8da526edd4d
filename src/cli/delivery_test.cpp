// A result as its consumer takes it: a genuine one from a real broker opens; every lie of plane,
// node or storage is refused.
#include "cli/delivery.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/os.h"
#include "capacity/capacity.h"
#include "cli/testing.h"

namespace gbx::cli {
namespace {

using gbx::testing::BrokerWorld;
using gbx::testing::must;

using gbx::testing::Content;

// One job, released.
struct Released {
  explicit Released(const std::function<void(Content&)>& change = {}) {
    world.start_and_publish();
    auto job = gbx::testing::seal_a_job(world, gbx::testing::clean_verdict(), change);
    const auto judged = must(world.judge(job.run.job_id()));
    input.emplace(
        DeliveryInput{must(world.set.chain.verify(world.set.id())),
                      job.run.job_id(),
                      world.consumer.key.public_key(),
                      job.run.submission,
                      must(world.call<records::Receipt>(records::method::kReceipt,
                                                        records::JobRequest{job.run.job_id()})),
                      {job.output, *judged.release, job.statement},
                      world.capacity});
  }
  Result<Delivered> open() { return open_delivery(*input, world.consumer.hpke); }
  BrokerWorld world{31};
  std::optional<DeliveryInput> input;
};

// The reservation of a plan, reckoned from the spec, is the charge that the gate makes of the same
// job.
TEST(GateCapacity, IsWhatTheGateCharges) {
  records::SpecBody spec = gbx::testing::make_spec(true).spec;
  gate::GateRequest request;
  request.exitClass = gate::RunExit::kOk;
  for (const auto& o : spec.outputs) request.outputs.push_back(must(capacity::declaration_of(o)));
  request.logs.visibility = gate::LogVisibility::kConsumer;
  for (const std::int64_t log_bytes : {0, 1, 4000}) {
    spec.logs = {log_bytes == 0 ? records::LogVisibility::kNone : records::LogVisibility::kConsumer,
                 log_bytes};
    request.logs.maxBytes = log_bytes;
    request.policy.maxConsumerLogBytes = log_bytes;
    EXPECT_EQ(must(capacity::of_spec(spec, {})).free_bits,
              must(gate::release_charge(request)).freeBits)
        << log_bytes;
  }
}

TEST(Delivery, AGenuineResultOpens) {
  Released r;
  const auto d = r.open();
  ASSERT_TRUE(d.ok()) << d.error().line();
  ASSERT_EQ(d->files.size(), 1U);
  EXPECT_EQ(d->files[0].path, "metrics.json");
  EXPECT_EQ(as_text(d->files[0].content), "{\"auc\":\"0.99\"}");
  ASSERT_TRUE(d->log.has_value());
  EXPECT_EQ(as_text(*d->log), "hello\n");
  EXPECT_EQ(d->status.exitClass, gate::RunExit::kOk);
}

TEST(Delivery, EveryLieOfThePlaneIsNamed) {
  Released r;
  const auto with = [&](const std::function<void(DeliveryInput&)>& change) {
    DeliveryInput in = *r.input;
    change(in);
    const auto d = open_delivery(in, r.world.consumer.hpke);
    return d.ok() ? Reason::kUninitialised : d.reason();
  };
  EXPECT_EQ(with([](auto& in) { in.job_id[0] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(with([](auto& in) { in.submission.submission.body.spec.spec.purpose += "!"; }),
            Reason::kBadHash);
  EXPECT_EQ(with([](auto& in) { in.submission.submission.signature[0] ^= 1; }),
            Reason::kBadSignature);
  EXPECT_EQ(with([&](auto& in) { in.consumer_key = r.world.owner.key.public_key(); }),
            Reason::kBadSignature);
  EXPECT_EQ(with([](auto& in) { in.result.release.statement.body.time += 1; }),
            Reason::kBadSignature);
  EXPECT_EQ(with([&](auto& in) {
              in.result.release.statement = must(records::sign(
                  r.world.set.id(), in.result.release.statement.body, r.world.owner.key));
            }),
            Reason::kBadSignature);
  EXPECT_EQ(with([](auto& in) { in.result.run_statement.body.runtime = "another"; }),
            Reason::kBadHash);
  EXPECT_EQ(with([](auto& in) { in.receipt.run_statement.signature[0] ^= 1; }),
            Reason::kBadSignature);
  EXPECT_EQ(with([](auto& in) { in.receipt.plan.signature[0] ^= 1; }), Reason::kBadSignature);
  EXPECT_EQ(with([](auto& in) { in.receipt.log_entry["time"] = 1; }), Reason::kBadStructure);
  EXPECT_EQ(with([](auto& in) { in.receipt.release.body.inclusion.path.push_back(Hash32{1}); }),
            Reason::kBadHash);
  EXPECT_EQ(with([](auto& in) { in.result.output.ciphertext[20] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(with([](auto& in) { in.result.output.wrapped_content[0][5] ^= 1; }), Reason::kBadHash);
  EXPECT_EQ(with([](auto& in) { in.result.release.outer_keys[0][40] ^= 1; }), Reason::kBadTag);
  EXPECT_EQ(with([](auto& in) { in.result.release.outer_keys.clear(); }), Reason::kWrongRecipient);
  EXPECT_EQ(open_delivery(*r.input, r.world.owner.hpke).reason(), Reason::kWrongRecipient);
}

TEST(Delivery, ARejectedJobOpensNothing) {
  Released r;
  auto body = r.input->result.release.statement.body;
  body.decision = records::ReleaseDecision::kReject;
  r.input->result.release.statement =
      must(records::sign(r.world.set.id(), body, r.world.set.signing));
  EXPECT_EQ(r.open().reason(), Reason::kRejected);
}

// What the outputs can carry is reckoned here again: a broker that planned another charge signed a
// plan of nothing.
TEST(Delivery, APlanWithAnotherChargeThanItsOutputsHaveIsRefused) {
  Released r;
  ASSERT_TRUE(verify_delivery(*r.input).ok());
  r.input->capacity = [&](const records::SpecBody& spec,
                          const policy::InputTables& tables) -> Result<policy::JobBits> {
    GBX_ASSIGN(policy::JobBits bits, r.world.capacity(spec, tables));
    ++bits.free_bits;
    return bits;
  };
  EXPECT_EQ(r.open().reason(), Reason::kPlanMismatch);
}

TEST(Delivery, ContentThatTheManifestDoesNotNameIsRefused) {
  const auto with = [](const std::function<void(Content&)>& change) {
    Released r(change);
    const auto d = r.open();
    return d.ok() ? Reason::kUninitialised : d.reason();
  };
  EXPECT_EQ(with([](Content& c) { c.bundle.entries[0].content.push_back('x'); }), Reason::kBadHash);
  EXPECT_EQ(with([](Content& c) { c.bundle.entries[0].name = "other.json"; }),
            Reason::kBadStructure);
  EXPECT_EQ(with([](Content& c) { c.bundle.entries.erase(c.bundle.entries.begin()); }),
            Reason::kBadStructure);
  EXPECT_EQ(with([](Content& c) { c.digests[0].name = "else"; }), Reason::kBadHash);
  EXPECT_EQ(with([](Content& c) { c.bundle.status.jobId = std::string(64, 'a'); }),
            Reason::kBadHash);
  EXPECT_EQ(with([](Content& c) { c.bundle.status.attempt = 2; }), Reason::kBadHash);
}

TEST(Delivery, FilesAppearWholeAndReplaceNothing) {
  char name[] = "/tmp/gbx-out-XXXXXX";
  const std::string dir = mkdtemp(name);
  Delivered d;
  d.files = {{"a.csv", to_bytes(as_bytes("1"))}, {"deep/b.json", to_bytes(as_bytes("2"))}};
  d.log = to_bytes(as_bytes("3"));
  const std::string out = dir + "/out";
  ASSERT_TRUE(write_files(out, d, false).ok());
  EXPECT_EQ(must(read_text_file(out + "/deep/b.json", 10)), "2");
  EXPECT_EQ(must(read_text_file(out + "/job.log", 10)), "3");
  d.files[0].content = to_bytes(as_bytes("new"));
  // Results are for whoever fetched them.
  struct stat st {};
  ASSERT_EQ(stat(out.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700U);
  ASSERT_EQ(stat((out + "/" + d.files[0].path).c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
  EXPECT_EQ(write_files(out, d, false).reason(), Reason::kAlreadyExists);
  EXPECT_EQ(must(read_text_file(out + "/a.csv", 10)), "1");
  ASSERT_TRUE(write_files(out, d, true).ok());
  EXPECT_EQ(must(read_text_file(out + "/a.csv", 10)), "new");
  d.files.push_back({"job.log", {}});
  EXPECT_EQ(write_files(dir + "/other", d, false).reason(), Reason::kConflict);
  EXPECT_FALSE(path_exists(dir + "/other"));
  (void)remove_tree(dir);
}

}  // namespace
}  // namespace gbx::cli
