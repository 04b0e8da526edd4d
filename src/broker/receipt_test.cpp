#include <gtest/gtest.h>

#include <set>

#include "broker/testing.h"
#include "policy/receipt_verify.h"

namespace gbx::broker {
namespace {

using namespace gbx::records;  // NOLINT
using gbx::testing::BrokerWorld;
using gbx::testing::clean_verdict;
using gbx::testing::kNow;
using gbx::testing::must;
using policy::ClaimState;
using policy::verify_receipt;

Receipt receipt_of(BrokerWorld& w, const BrokerWorld::Run& run) {
  Receipt r = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
  r.destroyed = must(sign(w.set.id(), DestroyedClaim{run.job_id(), 1, kNow, {}}, w.node));
  return r;
}
Receipt released(BrokerWorld& w) {
  w.start_and_publish();
  const auto run = w.run_until_sealed(w.submission());
  must(w.judge(run.job_id()));
  return receipt_of(w, run);
}
Receipt held_and_released(BrokerWorld& w) {
  w.start_and_publish();
  GateVerdict v = clean_verdict();
  v.recommendation = Recommendation::kHold;
  const auto run = w.run_until_sealed(w.submission(), v);
  const Judgement held = must(w.judge(run.job_id()));
  for (const auto& p : run.plan.body.policies) {
    must(w.rule(w.reviewer, held.hold_notice->body, p.policy_hash, RulingDecision::kApprove));
  }
  return receipt_of(w, run);
}

TEST(ReceiptVerify, AReleasedJob) {
  BrokerWorld w(11);
  const Receipt r = released(w);
  const auto report = verify_receipt(r, w.set.id(), {kNow + 5, w.capacity});
  EXPECT_TRUE(report.valid) << report.first_failure().line();
  EXPECT_EQ(report.decision, "release");
  EXPECT_EQ(report.protection.substr(0, 6), "NO TEE");
  EXPECT_NE(std::find(report.residual_channels.begin(), report.residual_channels.end(),
                      "host-reads-memory"),
            report.residual_channels.end());
  // Without the gate's reckoning the charge is the set's word.
  EXPECT_TRUE(verify_receipt(r, w.set.id()).valid);
  EXPECT_EQ(verify_receipt(r, Hash32{1}).first_failure().reason, Reason::kWrongSet);
  EXPECT_FALSE(verify_receipt(r, w.set.id(), kNow - 5).valid);
}

TEST(ReceiptVerify, TheTreeNamesAssetsAndSaysWhosePolicy) {
  BrokerWorld w(16);
  const Receipt r = released(w);
  std::string tree;
  for (const auto& group : verify_receipt(r, w.set.id()).checks) {
    for (const auto& part : group.parts) tree += part.claim + "\n";
  }
  for (const auto& v : r.versions) {
    const std::string name = v.body.name + "@1";
    EXPECT_NE(tree.find(name + " and its policy are signed by the owner of "), std::string::npos)
        << tree;
    EXPECT_NE(tree.find("the plan rests on this policy of " + name + "\n"), std::string::npos)
        << tree;
    EXPECT_NE(tree.find("the policy of " + name + " had not expired\n"), std::string::npos) << tree;
  }
  EXPECT_NE(tree.find("signed by the consumer ("), std::string::npos) << tree;
  EXPECT_NE(tree.find("lease of "), std::string::npos) << tree;
}

TEST(ReceiptVerify, SaysWhatIsOnlyClaimed) {
  BrokerWorld w(12);
  Receipt r = released(w);
  const auto says = [&](const std::string& words) {
    const auto report = verify_receipt(r, w.set.id());
    return std::any_of(report.claims.begin(), report.claims.end(),
                       [&](const auto& c) { return c.find(words) != std::string::npos; });
  };
  EXPECT_TRUE(says("the environment was destroyed: the node's word"));
  EXPECT_TRUE(says("NO TEE"));
  EXPECT_TRUE(says("whoever runs the broker could"));
  EXPECT_TRUE(says("access: prefetch: every asset was read whole"));
  r.destroyed.reset();
  EXPECT_TRUE(says("the environment may still be there: NO destruction claim"));
  EXPECT_TRUE(verify_receipt(r, w.set.id()).valid);
}

TEST(ReceiptVerify, AHeldJobAndARejectedOne) {
  BrokerWorld w(13);
  const Receipt r = held_and_released(w);
  auto report = verify_receipt(r, w.set.id());
  EXPECT_TRUE(report.valid) << report.first_failure().line();
  const std::string reserved = "the charge was reserved before the data keys left: leaf " +
                               to_hex(r.hold_notice->body.ledger_entry).substr(0, 16);
  EXPECT_TRUE(std::any_of(report.claims.begin(), report.claims.end(),
                          [&](const auto& c) { return c.rfind(reserved, 0) == 0; }));
  // Fewer rulings than the statement names.
  Receipt fewer = r;
  fewer.rulings.pop_back();
  EXPECT_FALSE(verify_receipt(fewer, w.set.id()).valid);
  Receipt unheld = r;
  unheld.hold_notice.reset();
  EXPECT_FALSE(verify_receipt(unheld, w.set.id()).valid);

  const auto run =
      w.run_until_sealed(w.submission(), gbx::testing::rejection(GateCause::kMalformed));
  must(w.judge(run.job_id()));
  report = verify_receipt(receipt_of(w, run), w.set.id());
  EXPECT_TRUE(report.valid) << report.first_failure().line();
  EXPECT_EQ(report.decision, "reject");
}

// Changes a JSON document in one place: another leaf, an item or a member less, an item twice, two
// items that change places. `visit` sees every variant with the path of what is not as it was.
template <class Visit>
void each_mutation(Json& root, Json& at, const std::string& path, const Visit& visit) {
  const auto with = [&](Json other, const std::string& which = "") {
    std::swap(at, other);
    visit(root, path + which);
    std::swap(at, other);
  };
  if (JsonObject* o = at.object()) {
    for (auto& [k, v] : *o) each_mutation(root, v, path + "." + k, visit);
    const JsonObject whole = *o;
    for (const auto& [k, v] : whole) {
      JsonObject fewer = whole;
      fewer.erase(k);
      with(Json(std::move(fewer)), "." + k + " is not there");
    }
  } else if (JsonArray* a = at.array()) {
    for (std::size_t i = 0; i < a->size(); ++i) {
      each_mutation(root, (*a)[i], path + "[" + std::to_string(i) + "]", visit);
    }
    for (std::size_t i = 0; i < a->size(); ++i) {
      JsonArray fewer = *a;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      with(Json(std::move(fewer)), "[" + std::to_string(i) + "] is not there");
      JsonArray doubled = *a;
      doubled.insert(doubled.begin() + static_cast<std::ptrdiff_t>(i), (*a)[i]);
      with(Json(std::move(doubled)), "[" + std::to_string(i) + "] is there twice");
      for (std::size_t other = 0; other < i; ++other) {
        if ((*a)[i] == (*a)[other]) continue;
        JsonArray swapped = *a;
        std::swap(swapped[i], swapped[other]);
        with(Json(std::move(swapped)),
             "[" + std::to_string(i) + "] changes places with " + std::to_string(other));
      }
    }
  } else if (const std::string* s = at.string()) {
    std::string other = *s;
    // One character in the middle, of its own kind, so that most variants still parse.
    if (other.empty()) {
      with(Json("x"));
    } else {
      char& c = other[other.size() / 2];
      c = c == 'a' ? 'b' : c == '0' ? '1' : c >= '1' && c <= '9' ? '0' : 'a';
      with(Json(other));
    }
  } else if (const std::int64_t* n = at.integer()) {
    with(Json(*n + 1));
    with(Json(*n - 1));
  } else if (const bool* b = at.boolean()) {
    with(Json(!*b));
  }
}

// What a receipt may lose without becoming false, and why.
bool justified(const std::string& path) {
  static const std::set<std::string> kAllowed = {
      // The node's word comes after the decision: a receipt may be fetched before it, and then says
      // that it holds none.
      "$.destroyed is not there",
  };
  return kAllowed.count(path) != 0;
}

void expect_every_mutation_fails(const Receipt& receipt, const SetId& pinned) {
  ASSERT_TRUE(verify_receipt(receipt, pinned).valid);
  Json root = to_json(receipt);
  std::size_t tried = 0;
  std::size_t parsed = 0;
  each_mutation(root, root, "$", [&](const Json& variant, const std::string& path) {
    ++tried;
    auto r = from_json<Receipt>(variant);
    if (!r.ok()) return;
    ++parsed;
    if (!verify_receipt(*r, pinned).valid) return;
    EXPECT_TRUE(justified(path)) << path;
  });
  EXPECT_GT(tried, 600u);
  EXPECT_GT(parsed, 400u);
}

TEST(ReceiptVerify, EveryMutationOfAReleaseFails) {
  BrokerWorld w(14);
  expect_every_mutation_fails(released(w), w.set.id());
}
TEST(ReceiptVerify, EveryMutationOfAHeldReleaseFails) {
  BrokerWorld w(15);
  expect_every_mutation_fails(held_and_released(w), w.set.id());
}

}  // namespace
}  // namespace gbx::broker
