// What is signed, what travels between programs, and the entries of the broker's log.
// tests/tidy/tidy.py holds these lists against what the source reads, so that none is forgotten.
// Each document has seeds in fuzz/corpus.
#pragma once

#include "broker/entries.h"
#include "records/held_ledger.h"

#define GBX_DOCUMENT(type) f.template add<type>(#type)

namespace gbx::fuzz {

template <class F>
void every_record(F& f) {
  GBX_DOCUMENT(records::AgentEnd);
  GBX_DOCUMENT(records::AgentKeys);
  GBX_DOCUMENT(records::AttestReply);
  GBX_DOCUMENT(records::AttestRequest);
  GBX_DOCUMENT(records::BeaconAck);
  GBX_DOCUMENT(records::BeaconRequest);
  GBX_DOCUMENT(records::BrokerEvidence);
  GBX_DOCUMENT(records::BrokerStream);
  GBX_DOCUMENT(records::Cancel);
  GBX_DOCUMENT(records::CancelRequest);
  GBX_DOCUMENT(records::Charter);
  GBX_DOCUMENT(records::Clauses);
  GBX_DOCUMENT(records::Cosignature);
  GBX_DOCUMENT(records::Credential);
  GBX_DOCUMENT(records::CredentialRequest);
  GBX_DOCUMENT(records::DeletedClaim);
  GBX_DOCUMENT(records::DestroyedClaim);
  GBX_DOCUMENT(records::Empty);
  GBX_DOCUMENT(records::EpochKeys);
  GBX_DOCUMENT(records::Evidence);
  GBX_DOCUMENT(records::Explanation);
  GBX_DOCUMENT(records::GateReview);
  GBX_DOCUMENT(records::Heartbeat);
  GBX_DOCUMENT(records::GuestRelease);
  GBX_DOCUMENT(records::HeldLedgerRequest);
  GBX_DOCUMENT(records::HeldLedgerStatement);
  GBX_DOCUMENT(records::HelloReply);
  GBX_DOCUMENT(records::HoldNotice);
  GBX_DOCUMENT(records::Identity);
  GBX_DOCUMENT(records::IdentityChain);
  GBX_DOCUMENT(records::InfoReply);
  GBX_DOCUMENT(records::InfoRequest);
  GBX_DOCUMENT(records::IntroduceRequest);
  GBX_DOCUMENT(records::JobRequest);
  GBX_DOCUMENT(records::JobSpec);
  GBX_DOCUMENT(records::Judgement);
  GBX_DOCUMENT(records::KeyContext);
  GBX_DOCUMENT(records::KeyReply);
  GBX_DOCUMENT(records::KeyRequest);
  GBX_DOCUMENT(records::LaunchBundle);
  GBX_DOCUMENT(records::LaunchConfig);
  GBX_DOCUMENT(records::Lease);
  GBX_DOCUMENT(records::LedgerRequest);
  GBX_DOCUMENT(records::LedgerStatement);
  GBX_DOCUMENT(records::LogHead);
  GBX_DOCUMENT(records::NodeInfo);
  GBX_DOCUMENT(records::NodeIntroduction);
  GBX_DOCUMENT(records::NodeLease);
  GBX_DOCUMENT(records::OutputManifest);
  GBX_DOCUMENT(records::OutputUpload);
  GBX_DOCUMENT(records::OwnerBeacon);
  GBX_DOCUMENT(records::PhaseReply);
  GBX_DOCUMENT(records::PhaseReport);
  GBX_DOCUMENT(records::Policy);
  GBX_DOCUMENT(records::PollReply);
  GBX_DOCUMENT(records::PollRequest);
  GBX_DOCUMENT(records::Publish);
  GBX_DOCUMENT(records::PublishAck);
  GBX_DOCUMENT(records::Receipt);
  GBX_DOCUMENT(records::ReleaseReply);
  GBX_DOCUMENT(records::ReleaseStatement);
  GBX_DOCUMENT(records::ResumeRequest);
  GBX_DOCUMENT(records::RotateRequest);
  GBX_DOCUMENT(records::Rotation);
  GBX_DOCUMENT(records::Ruling);
  GBX_DOCUMENT(records::RulingRequest);
  GBX_DOCUMENT(records::RunPlan);
  GBX_DOCUMENT(records::RunStatement);
  GBX_DOCUMENT(records::Seal);
  GBX_DOCUMENT(records::SealAck);
  GBX_DOCUMENT(records::SealContext);
  GBX_DOCUMENT(records::SealedOutput);
  GBX_DOCUMENT(records::SetChain);
  GBX_DOCUMENT(records::SetKeySuccessor);
  GBX_DOCUMENT(records::SignedSubmission);
  GBX_DOCUMENT(records::Submission);
  GBX_DOCUMENT(records::VersionRecord);
}

template <class F>
void every_log_entry(F& f) {
  GBX_DOCUMENT(broker::LogEntry);
  GBX_DOCUMENT(broker::BootEntry);
  GBX_DOCUMENT(broker::PublishEntry);
  GBX_DOCUMENT(broker::RotateEntry);
  GBX_DOCUMENT(broker::AuthoriseEntry);
  GBX_DOCUMENT(broker::LeaseUseEntry);
  GBX_DOCUMENT(broker::CredentialEntry);
  GBX_DOCUMENT(broker::TombstoneEntry);
  GBX_DOCUMENT(broker::AttestEntry);
  GBX_DOCUMENT(broker::Key1Entry);
  GBX_DOCUMENT(broker::Key2Entry);
  GBX_DOCUMENT(broker::SealEntry);
  GBX_DOCUMENT(broker::JudgeEntry);
  GBX_DOCUMENT(broker::HoldEntry);
  GBX_DOCUMENT(broker::RulingEntry);
  GBX_DOCUMENT(broker::ReleaseEntry);
  GBX_DOCUMENT(broker::DeliverEntry);
  GBX_DOCUMENT(broker::BeaconEntry);
  GBX_DOCUMENT(broker::CancelEntry);
}

#undef GBX_DOCUMENT

}  // namespace gbx::fuzz
