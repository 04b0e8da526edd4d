// Fixtures for tests of what people fetch: one job of a broker in memory, sealed with a bundle of
// the gate's own making. Not part of any program.
#pragma once

#include <functional>

#include "broker/testing.h"
#include "gate/records.h"
#include "gate/release.h"
#include "gate/schema.h"

namespace gbx::testing {

struct Content {
  gate::Bundle bundle;
  Hash32 salt{};
  std::vector<records::OutputDigest> digests;
};
struct SealedJob {
  BrokerWorld::Run run;
  records::SealedOutput output;
  records::Signed<records::RunStatement> statement;
  records::Signed<records::SealAck> ack;
};

inline Content make_content(const Hash32& job_id, Random& random) {
  Content c;
  c.salt = random.fixed<32>();
  c.bundle.status = {to_hex(job_id), 1, gate::RunExit::kOk, 0};
  c.bundle.entries.push_back(
      {gate::EntryKind::kOutput, "metrics.json", to_bytes(as_bytes("{\"auc\":\"0.99\"}"))});
  c.bundle.entries.push_back({gate::EntryKind::kLog, "log", to_bytes(as_bytes("hello\n"))});
  c.digests.push_back(
      {"metrics", gate::output_digest(c.salt, "metrics", c.bundle.entries[0].content), 16});
  return c;
}

// From submission to seal; the assets of `world` are published. `change` may break the content.
inline SealedJob seal_a_job(BrokerWorld& world, const records::SignedSubmission& submission,
                            const records::GateVerdict& verdict,
                            const std::function<void(Content&)>& change = {}) {
  SealedJob job{world.run_until_attested(submission), {}, {}, {}};
  auto& run = job.run;
  for (std::int64_t stage = 1; stage <= 2; ++stage) {
    must(world.key(run.agent, run.credential.body, run.evidence, stage, run.connection));
  }
  Content c = make_content(run.job_id(), world.random);
  if (change) change(c);
  records::ResultInput in;
  in.job_id = run.job_id();
  in.plan_hash = run.plan.hash();
  in.outputs = c.digests;
  in.verdict = verdict;
  const Bytes plain = concat({c.salt, must(gate::encode_bundle(c.bundle, 4096))});
  in.bundle = plain;
  in.review.score = 60;
  in.review.score_reasons = {{"text-output", 60}};
  for (const auto& k : run.submission.submission.body.result_keys) {
    in.result_keys.push_back(must(crypto::HpkePublicKey::from_text(k.hpke)));
  }
  for (const auto& r : run.plan.body.reviewers) {
    in.reviewers.push_back(must(crypto::HpkePublicKey::from_text(r.hpke)));
  }
  auto sealed = must(records::seal_result(in, world.set.kek.public_key(), world.random));
  records::RunStatement st;
  st.manifest = sealed.manifest;
  st.evidence = run.evidence;
  st.controls = run.plan.body.controls;
  st.runtime = "crun 1.8";
  st.image_digest = kImageDigest;
  st.unpacked_root_hash = Hash32{7};
  st.residual_channels = run.plan.body.residual_channels;
  job.statement = must(records::sign(world.set.id(), st, run.agent.sig));
  job.ack = must(world.seal({job.statement, sealed.release_keys}, run.connection));
  job.output = std::move(sealed.output);
  return job;
}
inline SealedJob seal_a_job(BrokerWorld& world, const records::GateVerdict& verdict,
                            const std::function<void(Content&)>& change = {}) {
  return seal_a_job(world, world.submission(), verdict, change);
}

}  // namespace gbx::testing
