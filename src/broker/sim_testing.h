// A simulated platform beside a broker of the tests: a genuine SimPlatform with a root of its own,
// a release that the set's charter stands for, owners who allow exactly that. Not part of any
// program.
#pragma once

#include "attest/sim/testing.h"
#include "attest/verifier.h"
#include "broker/testing.h"

namespace gbx::testing {

class SimSide {
 public:
  // Before the broker starts. `w` must outlive it and is not moved.
  explicit SimSide(BrokerWorld& w) : w_(w) {
    w.evidence_check = attest::verify_evidence;
    w.set.chain.charter.release_signers = {forge.release_key.public_key().text()};
    w.set.chain.epoch = must(records::sign(w.set.id(), w.set.chain.epoch.body, w.set.set_key));
    for (Asset* a : {&w.data, &w.image}) a->policy.clauses.tee = {rule()};
    w.technology = records::Technology::kSim;
    w.prove = [this](records::AttestRequest& r, const records::ReportData& report) {
      r.evidence = evidence(report);
    };
  }
  records::PlatformRule rule() const {
    records::PlatformRule r;
    r.technology = records::Technology::kSim;
    r.root = "sim:" + to_hex(forge.platform.root().fingerprint());
    r.releases = {forge.release.name};
    return r;
  }
  records::Signed<records::GuestRelease> release() const {
    return must(records::sign({}, forge.release, forge.release_key));
  }
  // What the platform measured of the machine that `forge` describes, started for this set.
  attest::sim::SimMeasurement measured() const {
    attest::sim::SimMeasurement m = attest::sim::sim_events(forge.launch).measured;
    m.launch_config = records::hash_of(w_.launch());
    return m;
  }
  Bytes event_log() const { return attest::sim::sim_events(forge.launch).log; }
  records::Evidence evidence(const records::ReportData& report) {
    forge.config = config.value_or(w_.launch());
    forge.report = report;
    return forge.make();
  }

  attest::testing::Forge forge;  // a test changes what boots, the platform, the release
  // that the machine was started with; without one, this set's
  std::optional<records::LaunchConfig> config;

 private:
  BrokerWorld& w_;
};

}  // namespace gbx::testing
