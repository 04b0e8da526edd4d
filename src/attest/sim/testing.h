// Evidence of the simulated platform for tests of this folder and of those above it: one that
// passes, and any that differs in what a test names. Not part of any program.
#pragma once

#include "attest/sim/events.h"
#include "attest/verifier.h"

namespace gbx::attest::testing {

// Everything that evidence is made of; a test changes members and calls make().
struct Forge {
  SeededRandom random{41};
  sim::SimPlatform platform = sim::SimPlatform::create(random).value();
  crypto::SigningKey release_key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random).value();
  sim::SimLaunch launch;          // what boots
  records::GuestRelease release;  // what was to boot
  crypto::SigningKey* signer = &release_key;
  records::LaunchConfig config;  // that the environment was given
  records::ReportData report;    // that the agent asked a quote for
  tdx::TdBody body;              // attributes and the like; registers are filled in
  bool with_log = true;
  Expected expected;

  Forge() {
    launch.firmware.fill(1);
    launch.machine =
        R"({"cpus":2,"devices":["virtio-blk","virtio-serial"],"memoryBytes":2147483648})";
    launch.kernel.fill(2);
    launch.cmdline = "console=hvc0 panic=-1";
    launch.initrd.fill(3);
    release.name = "guest-1";
    release.svn = 7;
    release.cmdline = launch.cmdline;
    release.files = {{"firmware", {}, 1}, {"initrd", {}, 1}, {"kernel", {}, 1}};
    release.source = "test";
    release.platforms = {measured(launch)};
    expected.charter.genesis_set_key = release_key.public_key().text();
    expected.charter.release_signers = {release_key.public_key().text()};
    expected.charter.minimum_svn = 5;
    expected.charter.technologies = {records::Technology::kNone};
    expected.set_id = expected.charter.set_id();
    expected.launch = config = {expected.set_id, release_key.public_key().text()};
    report.set_id = expected.set_id;
    report.nonce = random.fixed<32>();
    report.job_id = random.fixed<32>();
    report.attempt = 2;
    report.credential = random.fixed<32>();
    report.plan_hash = random.fixed<32>();
    report.agent_keys = random.fixed<32>();
    report.exporter = random.fixed<32>();
    expected.report = report;
    expected.now_seconds = 1'800'000'000;
  }

  static records::PlatformMeasurements measured(const sim::SimLaunch& l) {
    const sim::SimEvents events = sim::sim_events(l);
    records::PlatformMeasurements p;
    p.technology = records::Technology::kSim;
    p.parts = events.parts;
    p.machines = {{.cpus = 1, .memory_bytes = 1 << 30, .measurement = {}},
                  {.cpus = 2, .memory_bytes = 1LL << 31, .measurement = events.measured.rtmr[0]}};
    return p;
  }
  Bytes signed_release() const {
    return to_bytes(as_bytes(canonical(to_json(records::sign({}, release, *signer).value()))));
  }
  tdx::Quote quote(const sim::SimEvents& events) const {
    tdx::Quote q;
    q.body = body;
    q.body.mrtd = events.measured.mrtd;
    q.body.rtmr = events.measured.rtmr;
    const Hash32 hash = hash_of(config);
    std::copy(hash.begin(), hash.end(), q.body.mr_config_id.begin());
    q.body.report_data = report.digest();
    return platform.sign(q).value();
  }
  records::Evidence make(const sim::SimEvents& events) const {
    records::Evidence e;
    e.technology = records::Technology::kSim;
    e.quote = tdx::serialize(quote(events));
    e.collateral.push_back({std::string(kReleaseCollateral), signed_release()});
    if (with_log) e.collateral.push_back({std::string(kEventLogCollateral), events.log});
    e.launch_config = config;
    e.release = release.name;
    e.report_data = report;
    return e;
  }
  records::Evidence make() const { return make(sim::sim_events(launch)); }
};

}  // namespace gbx::attest::testing
