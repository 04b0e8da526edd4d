#include "broker/core.h"

#include <gtest/gtest.h>

#include "broker/testing.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::kNow;

using gbx::testing::make_asset;
using gbx::testing::make_publish;
using gbx::testing::make_submission;
using gbx::testing::must;
using gbx::testing::next_policy;

TEST(Broker, AWholeJob) {
  BrokerWorld w(1);
  w.start_and_publish();
  auto run = w.run_until_sealed(w.submission());
  // The agent opens what it was sent: the image key first, then the data key.
  auto image = open_key_bundle(run.agent.hpke, run.keys[0].context, run.keys[0].sealed);
  auto data = open_key_bundle(run.agent.hpke, run.keys[1].context, run.keys[1].sealed);
  ASSERT_TRUE(image.ok() && data.ok());
  ASSERT_EQ(image->size(), 1u);
  ASSERT_EQ(data->size(), 1u);
  EXPECT_TRUE((*image)[0].key == w.image.key);
  EXPECT_TRUE((*data)[0].key == w.data.key);
  EXPECT_EQ((*data)[0].version_id, w.data.version_id());
  // Released at once: the policies' slot is 0.
  auto j = w.judge(run.job_id());
  ASSERT_TRUE(j.ok()) << j.error().line();
  ASSERT_EQ(j->state, JudgementState::kReleased);
  ASSERT_EQ(j->release->outer_keys.size(), 1u);
  auto plain = open_result(w.consumer.hpke, 0, run.sealed.seal.statement.body.manifest, run.sealed.output, j->release->outer_keys[0]);
  ASSERT_TRUE(plain.ok()) << plain.error().line();
  EXPECT_EQ(as_text(plain->view(SecretAccess{})), "the checked output");
  EXPECT_TRUE(j->release->statement.verify(w.set.id(), w.set.signing.public_key()).ok());
  EXPECT_EQ(j->release->statement.body.charges.size(), 2u);  // data and image
  EXPECT_EQ(j->release->statement.body.charges[0].free_bits, 200);
  // Asking again gives the same bytes, also after a restart.
  const std::string first = canonical(to_json(*j));
  EXPECT_EQ(canonical(to_json(*w.judge(run.job_id()))), first);
  const std::string before = canonical(w.core->state().snapshot());
  ASSERT_TRUE(w.start().ok());
  EXPECT_EQ(canonical(to_json(*w.judge(run.job_id()))), first);
  Json after = w.core->state().snapshot();
  EXPECT_EQ(*after.find("boots")->integer(), 2);
  after["boots"] = 1;
  EXPECT_EQ(canonical(after), before);
  auto receipt = w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()});
  ASSERT_TRUE(receipt.ok()) << receipt.error().line();
}

}  // namespace
}  // namespace gbx::broker
