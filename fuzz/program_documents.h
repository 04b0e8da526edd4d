// The API in both directions, and what programs tell each other on one machine: some of them have
// read hostile bytes before they speak.
// tests/tidy/tidy.py holds these lists against what the source reads, so that none is forgotten.
// Each document has seeds in fuzz/corpus.
#pragma once

#include "agent/operations.h"
#include "attest/sim/service.h"
#include "decryptfs/decryptfs.h"
#include "gate/recipe.h"
#include "plane/api/types.h"
#include "sandbox/supervise.h"

#define GBX_DOCUMENT(type) f.template add<type>(#type)

namespace gbx::fuzz {

template <class F>
void every_api_document(F& f) {
  GBX_DOCUMENT(plane::api::InfoView);
  GBX_DOCUMENT(plane::api::HealthView);
  GBX_DOCUMENT(plane::api::ReadinessView);
  GBX_DOCUMENT(plane::api::EnrolRequest);
  GBX_DOCUMENT(plane::api::IdentityView);
  GBX_DOCUMENT(plane::api::IdentityList);
  GBX_DOCUMENT(plane::api::InviteRequest);
  GBX_DOCUMENT(plane::api::InviteView);
  GBX_DOCUMENT(plane::api::AssetList);
  GBX_DOCUMENT(plane::api::PolicyList);
  GBX_DOCUMENT(plane::api::LeaseList);
  GBX_DOCUMENT(plane::api::ObjectView);
  GBX_DOCUMENT(plane::api::JobView);
  GBX_DOCUMENT(plane::api::JobList);
  GBX_DOCUMENT(plane::api::JobEvents);
  GBX_DOCUMENT(plane::api::JobDetail);
  GBX_DOCUMENT(plane::api::JobResult);
  GBX_DOCUMENT(plane::api::NodeEnrolRequest);
  GBX_DOCUMENT(plane::api::NodeView);
  GBX_DOCUMENT(plane::api::NodeList);
  GBX_DOCUMENT(plane::api::ReviewDetail);
  GBX_DOCUMENT(plane::api::ReviewList);
  GBX_DOCUMENT(plane::api::AssetView);
  GBX_DOCUMENT(plane::api::PolicyView);
  GBX_DOCUMENT(plane::api::LeaseView);
  GBX_DOCUMENT(plane::api::ReviewView);
}

template <class F>
void every_program_document(F& f) {
  GBX_DOCUMENT(gate::GateRequest);
  GBX_DOCUMENT(gate::GateResult);
  GBX_DOCUMENT(gate::OutputDeclaration);
  GBX_DOCUMENT(gate::Recipe);
  GBX_DOCUMENT(agent::QuoteReply);
  GBX_DOCUMENT(agent::QuoteRequest);
  GBX_DOCUMENT(agent::UnpackRequest);
  GBX_DOCUMENT(agent::UnpackReply);
  GBX_DOCUMENT(agent::MountRequest);
  GBX_DOCUMENT(agent::MountReply);
  GBX_DOCUMENT(agent::RunRequest);
  GBX_DOCUMENT(agent::RunReply);
  GBX_DOCUMENT(agent::GateReply);
  GBX_DOCUMENT(agent::DestroyReply);
  GBX_DOCUMENT(sandbox::ContainerSpec);
  GBX_DOCUMENT(sandbox::Report);
  GBX_DOCUMENT(decryptfs::ServeRequest);
  GBX_DOCUMENT(decryptfs::AuditEvent);
  GBX_DOCUMENT(attest::sim::TeeQuoteRequest);
  GBX_DOCUMENT(attest::sim::TeeQuoteReply);
}

#undef GBX_DOCUMENT

}  // namespace gbx::fuzz
