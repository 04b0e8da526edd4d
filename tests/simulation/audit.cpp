#include "audit.h"

#include <map>
#include <set>

#include "broker/entries.h"
#include "policy/testing.h"

namespace gbx::simulation {

using namespace broker;
using testing::must;

namespace {

struct JobLine {
  std::int64_t attempts = 0;
  std::set<std::int64_t> dead;
  std::set<std::int64_t> attested;
  std::map<std::int64_t, std::int64_t> keys;  // attempt -> last stage
  bool cancelled = false;
  bool sealed = false;
  bool decided = false;
  bool live(std::int64_t attempt) const {
    return attempt == attempts && dead.count(attempt) == 0 && !cancelled;
  }
};

class Audit {
 public:
  std::string take(const LogEntry& e) {
    if (e.kind == CredentialEntry::kKind) {
      return credential(must(from_json<CredentialEntry>(e.body)).credential.body);
    }
    if (e.kind == TombstoneEntry::kKind) return tombstone(must(from_json<TombstoneEntry>(e.body)));
    if (e.kind == AttestEntry::kKind) return attest(must(from_json<AttestEntry>(e.body)));
    if (e.kind == Key1Entry::kKind || e.kind == Key2Entry::kKind) {
      return key(must(from_json<KeyEntry>(e.body)).request.body,
                 e.kind == Key1Entry::kKind ? 1 : 2);
    }
    if (e.kind == SealEntry::kKind) {
      return seal(must(from_json<SealEntry>(e.body)).seal.statement.body.manifest.context);
    }
    if (e.kind == ReleaseEntry::kKind) {
      return release(jobs_[must(from_json<ReleaseEntry>(e.body)).job_id]);
    }
    if (e.kind == CancelEntry::kKind) {
      jobs_[must(from_json<CancelEntry>(e.body)).request.cancel.body.job_id].cancelled = true;
    }
    return {};
  }

 private:
  std::string credential(const records::Credential& c) {
    JobLine& job = jobs_[c.job_id];
    if (job.cancelled || job.sealed) return "log: a credential for a job that needs none";
    if (c.attempt != job.attempts + 1) return "log: attempts out of order";
    if (job.attempts > 0 && job.dead.count(job.attempts) == 0) {
      return "log: a credential with its forerunner alive";
    }
    job.attempts = c.attempt;
    return {};
  }
  std::string tombstone(const TombstoneEntry& t) {
    jobs_[t.job_id].dead.insert(t.attempt);
    return {};
  }
  std::string attest(const AttestEntry& a) {
    JobLine& job = jobs_[a.job_id];
    if (!job.live(a.attempt)) return "log: evidence of an attempt that is over";
    return job.attested.insert(a.attempt).second ? "" : "log: two agents for one attempt";
  }
  std::string key(const records::KeyRequest& r, std::int64_t stage) {
    JobLine& job = jobs_[r.job_id];
    if (!job.live(r.attempt)) return "log: a key for an attempt that is over";
    if (job.sealed) return "log: a key for a job that has its output";
    if (job.attested.count(r.attempt) == 0) return "log: a key without evidence";
    if (job.keys[r.attempt] + 1 != stage) return "log: stages of keys out of order";
    job.keys[r.attempt] = stage;
    return {};
  }
  std::string seal(const records::SealContext& c) {
    JobLine& job = jobs_[c.job_id];
    if (!job.live(c.attempt)) return "log: a seal of an attempt that is over";
    if (job.sealed) return "log: two seals";
    if (job.keys[c.attempt] != 2) return "log: a seal without keys";
    job.sealed = true;
    return {};
  }
  static std::string release(JobLine& job) {
    if (!job.sealed) return "log: a decision without a seal";
    if (job.decided) return "log: two decisions";
    job.decided = true;
    return {};
  }
  std::map<Hash32, JobLine> jobs_;
};

}  // namespace

std::string audit_log(const LogStore& log) {
  Audit audit;
  const std::uint64_t size = must(log.size());
  for (std::uint64_t i = 0; i < size; ++i) {
    const std::string bad = audit.take(must(from_json_text<LogEntry>(must(log.entry(i)).entry)));
    if (!bad.empty()) return bad + " (entry " + std::to_string(i) + ")";
  }
  return {};
}

}  // namespace gbx::simulation
