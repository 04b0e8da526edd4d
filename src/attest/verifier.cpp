#include "attest/verifier.h"

#include "attest/sim/verifier.h"
#include "attest/tdx/verifier.h"
#include "attest/tdx/verify.h"

namespace gbx::attest {

namespace {

// The node vouches for the agent with its own key; nothing is measured.
class NoneVerifier final : public Verifier {
 public:
  records::Technology technology() const override { return records::Technology::kNone; }
  Result<records::Verdict> verify(const records::Evidence& evidence,
                                  const Expected& expected) const override {
    return records::verify_none(expected.set_id, evidence, expected.report.digest(),
                                expected.launch);
  }
};

}  // namespace

Verifiers Verifiers::standard() {
  Verifiers out;
  out.add(std::make_unique<NoneVerifier>());
  out.add(std::make_unique<sim::SimVerifier>());
  out.add(std::make_unique<tdx::TdxVerifier>(tdx::intel_root()));
  return out;
}

void Verifiers::add(std::unique_ptr<Verifier> verifier) {
  verifiers_.push_back(std::move(verifier));
}

Result<records::Verdict> Verifiers::verify(const records::Evidence& evidence,
                                           const Expected& expected) const {
  for (const auto& v : verifiers_) {
    if (v->technology() == evidence.technology) return v->verify(evidence, expected);
  }
  return fail(Reason::kEvidenceRejected, "no verifier for this technology")
      .with("none, sim or tdx", std::string(enum_name(evidence.technology)));
}

Result<records::Verdict> verify_evidence(const records::Evidence& evidence,
                                         const Expected& expected) {
  static const Verifiers kStandard = Verifiers::standard();
  return kStandard.verify(evidence, expected);
}

}  // namespace gbx::attest
