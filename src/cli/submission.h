// From a job spec to what the consumer signs: names become version ids, the image a digest, and
// leases are chosen.
#pragma once

#include <string>

#include "cli/session.h"

namespace gbx::cli {

// YAML or JSON, strict, and the checks that a schema cannot say. `what` of an error is the path of
// the member.
Result<records::JobSpec> parse_job_spec(std::string_view text);
Result<records::JobSpec> read_job_spec(const std::string& path);

struct SignedJob {
  records::SignedSubmission submission;
  std::vector<api::AssetView> assets;  // of the bindings, in their order; verified
  Hash32 job_id{};
};
// Asks the plane for assets and leases and verifies both.
Result<SignedJob> sign_job(Session& session, records::JobSpec spec);

}  // namespace gbx::cli
