// A receipt with the keys of everybody who signs a part of it. A test changes one body, and all
// that hashes or signs it is made again: no signature refuses the lie, so the one check that is
// about it has to. Not part of any program.
#pragma once

#include <typeindex>

#include "broker/testing.h"
#include "translog/translog.h"

namespace gbx::testing {

// Made of a callable on a reference to Receipt (called before anything is made again), to a body,
// to a Signed body (called after it was signed), to the log's entry (Json) or to its Inclusion; it
// may take the index in the receipt's list too.
struct Change {
  template <class F>
  explicit Change(F f) : Change(std::move(f), &F::operator()) {}
  std::type_index type;
  std::function<void(void*, std::size_t)> apply;

 private:
  template <class F, class T>
  Change(F f, void (F::*)(T&) const)
      : type(typeid(T)), apply([f](void* v, std::size_t) { f(*static_cast<T*>(v)); }) {}
  template <class F, class T>
  Change(F f, void (F::*)(T&, std::size_t) const)
      : type(typeid(T)), apply([f](void* v, std::size_t i) { f(*static_cast<T*>(v), i); }) {}
};

enum class Ending { kReleased, kHeldAndReleased, kRejected };

class ReceiptForge {
 public:
  // `prepare` changes the world before anything is published.
  explicit ReceiptForge(Ending ending, const std::function<void(BrokerWorld&)>& prepare = {})
      : w(60) {
    using namespace records;  // NOLINT
    name_asset(w.data, "data");
    name_asset(w.image, "image");
    if (prepare) prepare(w);
    w.start_and_publish();
    GateVerdict v = clean_verdict();
    v.charge.free_bits = w.free_bits;
    if (ending == Ending::kHeldAndReleased) v.recommendation = Recommendation::kHold;
    if (ending == Ending::kRejected) v = rejection(GateCause::kMalformed);
    BrokerWorld::Run run = w.run_until_sealed(w.submission(), v);
    const Judgement j = must(w.judge(run.job_id()));
    for (const auto& p : run.plan.body.policies) {
      if (j.state == JudgementState::kHeld) {
        must(w.rule(w.reviewer, j.hold_notice->body, p.policy_hash, RulingDecision::kApprove));
      }
    }
    receipt = must(w.call<Receipt>(method::kReceipt, JobRequest{run.job_id()}));
    receipt.destroyed = must(sign(w.set.id(), DestroyedClaim{run.job_id(), 1, kNow, {}}, w.node));
    agent = std::move(run.agent);
  }

  template <class... F>
  records::Receipt with(F... changes) {
    changes_ = {Change(std::move(changes))...};
    records::Receipt r = receipt;
    visit(r);
    set_ = r.set.charter.set_id();
    make(r.set.epoch, w.set.set_key);
    make_owners_part(r);
    make_plan(r);
    make_run(r);
    make_review(r);
    make_release(r);
    return r;
  }

  BrokerWorld w;
  FakeAgent agent = make_agent(w.random);
  std::vector<crypto::SigningKey> witnesses;
  records::Receipt receipt;

 private:
  // A name of its own, so that a failed claim tells which asset it is about.
  static void name_asset(Asset& a, const std::string& name) {
    a.record.name = name;
    a.policy.asset_version_id = a.record.id();
  }
  template <class T>
  void visit(T& value, std::size_t index = 0) {
    for (const Change& c : changes_) {
      if (c.type == typeid(T)) c.apply(&value, index);
    }
  }
  template <class Body>
  void make(records::Signed<Body>& s, const crypto::SigningKey& key, std::size_t index = 0) {
    visit(s.body, index);
    s = must(records::sign(set_, s.body, key));
    visit(s, index);
  }
  void make_owners_part(records::Receipt& r) {
    for (std::size_t i = 0; i < r.versions.size(); ++i) make(r.versions[i], w.owner.key, i);
    for (std::size_t i = 0; i < r.policies.size(); ++i) {
      r.policies[i].body.asset_version_id = r.versions[i].hash();
      make(r.policies[i], w.owner.key, i);
    }
    for (std::size_t i = 0; i < r.beacons.size(); ++i) {
      r.beacons[i].body.owner_id = w.owner.id();
      r.beacons[i].body.asset_version_id = r.versions[0].hash();
      r.beacons[i].body.policy_hash = r.policies[0].hash();
      make(r.beacons[i], w.owner.key, i);
    }
    for (std::size_t i = 0; i < r.leases.size(); ++i) {
      r.leases[i].body.set_id = set_;
      make(r.leases[i], w.owner.key, i);
    }
  }
  void make_plan(records::Receipt& r) {
    for (std::size_t i = 0; i < r.versions.size(); ++i) {
      r.submission.body.assets[i].version_id = r.versions[i].hash();
    }
    make(r.submission, w.consumer.key);
    records::RunPlan& plan = r.plan.body;
    plan.job_id = r.submission.body.job_id();
    for (std::size_t i = 0; i < r.policies.size(); ++i) {
      const auto& p = r.policies[i];
      plan.policies[i] = {p.body.asset_version_id, p.body.owner_id, p.hash(), p.body.serial};
    }
    make(r.plan, w.set.signing);
    r.credential.body.job_id = r.submission.body.job_id();
    r.credential.body.plan_hash = r.plan.hash();
    make(r.credential, w.set.signing);
  }
  void make_run(records::Receipt& r) {
    using records::hash_of;
    const Hash32 job = r.submission.body.job_id();
    const std::int64_t attempt = r.credential.body.attempt;
    r.evidence.launch_config = {set_, w.set.set_key.public_key().text()};
    records::ReportData report{.set_id = set_,
                               .nonce = r.nonce,
                               .job_id = job,
                               .attempt = attempt,
                               .exporter = r.exporter};
    report.credential = r.credential.hash();
    report.plan_hash = r.plan.hash();
    report.agent_keys = hash_of(r.agent_keys);
    records::NodeIntroduction& intro = r.evidence.node->body;
    intro = {report.digest(), hash_of(r.evidence.launch_config), job, attempt, intro.time};
    make(*r.evidence.node, w.node);
    records::RunStatement& s = r.run_statement.body;
    s.manifest.context.job_id = job;
    s.manifest.context.attempt = attempt;
    s.manifest.context.plan_hash = r.plan.hash();
    s.evidence = hash_of(r.evidence);
    s.controls = r.plan.body.controls;
    make(r.run_statement, agent.sig);
    r.seal_ack.body.job_id = job;
    r.seal_ack.body.attempt = attempt;
    r.seal_ack.body.manifest = hash_of(s.manifest);
    make(r.seal_ack, w.set.signing);
    if (!r.destroyed) return;
    r.destroyed->body.job_id = job;
    r.destroyed->body.attempt = attempt;
    make(*r.destroyed, w.node);
  }
  void make_review(records::Receipt& r) {
    const records::OutputManifest& m = r.run_statement.body.manifest;
    records::HoldNotice notice{records::hash_of(m), m.context.ciphertext, {}, {}, 0};
    if (r.hold_notice) {
      for (const auto& p : r.policies) notice.policy_hashes.push_back(p.hash());
      notice.ledger_entry = r.hold_notice->body.ledger_entry;
      notice.expires = r.hold_notice->body.expires;
      r.hold_notice->body = notice;
      make(*r.hold_notice, w.set.signing);
      notice = r.hold_notice->body;
    }
    for (std::size_t i = 0; i < r.rulings.size(); ++i) {
      records::Ruling& ruling = r.rulings[i].body;
      ruling.hold_notice = records::hash_of(notice);
      ruling.manifest = notice.manifest;
      ruling.ciphertext = notice.ciphertext;
      for (std::size_t p = 0; p < r.policies.size(); ++p) {
        if (ruling.owner_policy_hash == receipt.policies[p].hash()) {
          ruling.owner_policy_hash = r.policies[p].hash();
        }
      }
      make(r.rulings[i], w.reviewer.key, i);
    }
  }
  // Statement, log entry, its place in a log of six entries, and what the broker says about that
  // log.
  void make_release(records::Receipt& r) {
    records::ReleaseStatement& s = r.release.body;
    s.job_id = r.submission.body.job_id();
    s.run_statement = r.run_statement.hash();
    s.manifest = records::hash_of(r.run_statement.body.manifest);
    s.verdict = r.run_statement.body.manifest.context.verdict;
    s.rulings.clear();
    for (const auto& ruling : r.rulings) s.rulings.push_back(ruling.hash());
    visit(s);
    broker::ReleaseEntry entry;
    entry.job_id = s.job_id;
    entry.run_statement = s.run_statement;
    entry.manifest = s.manifest;
    entry.verdict = s.verdict;
    entry.decision = s.decision;
    entry.reasons = s.reasons;
    if (r.hold_notice) entry.hold_notice = r.hold_notice->hash();
    entry.rulings = s.rulings;
    entry.charges = s.charges;
    r.log_entry = to_json(broker::make_entry(s.time, entry));
    translog::MemoryNodes nodes;
    translog::Frontier log;
    for (std::uint8_t i = 0; i < 5; ++i) nodes.put(must(log.append(Hash32{i})));
    const Hash32 salt = s.inclusion.leaf_salt;
    nodes.put(must(log.append(translog::leaf_hash(salt, as_bytes(canonical(r.log_entry))))));
    s.inclusion = must(translog::prove_inclusion(nodes, 5, 6, salt));
    visit(s.inclusion);
    visit(r.log_entry);
    r.release = must(records::sign(set_, s, w.set.signing));
    visit(r.release);

    records::BrokerEvidence& e = r.broker_evidence.body;
    e.nonce = s.job_id;
    e.custody = r.set.charter.custody;
    e.time = s.time;
    e.tree_size = s.inclusion.tree_size;
    e.tree_root = s.inclusion.root;
    make(r.broker_evidence, w.set.signing);
    for (std::size_t i = 0; i < r.cosignatures.size(); ++i) {
      r.cosignatures[i].body = {e.epoch, e.tree_size, e.tree_root, s.time};
      make(r.cosignatures[i], witnesses[i], i);
    }
  }

  records::SetId set_{};
  std::vector<Change> changes_;
};

}  // namespace gbx::testing
