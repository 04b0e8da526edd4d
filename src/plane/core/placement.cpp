// Core: which nodes could run a job. Sizes are chosen by consumers and contain their containers, so
// what a node lends is the bound: for one job, and for all that live on the node at a time.
#include <algorithm>

#include "plane/core/core.h"

namespace gbx::plane {

using machines::Record;

namespace {

constexpr char kLess[] = "ask for less, or ask the operator for a larger node";

std::string mebibytes(std::int64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// "none:…" of a node's own key: how policies name a node without a TEE.
std::string none_root(const std::string& key) {
  const auto parsed = crypto::PublicKey::from_text(key);
  return parsed.ok() ? "none:" + to_hex(parsed->fingerprint()) : std::string();
}

// `none` is known by the node's key alone; of others the node says which root and release it has,
// and the broker will see whether that is so.
bool platform_allowed(const records::PlatformRule& rule, const records::NodePlatform& p,
                      const std::string& none_name) {
  if (rule.technology != p.technology) return false;
  if (p.technology == records::Technology::kNone) return rule.root == none_name;
  return (rule.root.empty() || rule.root == p.root) &&
         std::count(rule.releases.begin(), rule.releases.end(), p.release) > 0;
}

std::vector<records::NodePlatform> platforms_of(const records::NodeInfo& info) {
  std::vector<records::NodePlatform> out;
  for (const records::Technology t : info.technologies) {
    if (t == records::Technology::kNone) out.push_back({t, {}, {}});
  }
  if (info.platforms) out.insert(out.end(), info.platforms->begin(), info.platforms->end());
  return out;
}

// One platform of this node that the job asks for and every policy allows.
bool platform_fits(const records::NodeInfo& info, const std::string& none_name,
                   const records::SpecTee& tee,
                   const std::vector<std::vector<records::PlatformRule>>& rules) {
  const auto platforms = platforms_of(info);
  return std::any_of(platforms.begin(), platforms.end(), [&](const records::NodePlatform& p) {
    if (std::count(tee.any_of.begin(), tee.any_of.end(), p.technology) == 0) return false;
    const bool named = p.technology == records::Technology::kNone || tee.releases.empty() ||
                       std::count(tee.releases.begin(), tee.releases.end(), p.release) > 0;
    return named && std::all_of(rules.begin(), rules.end(), [&](const auto& of_one) {
             return std::any_of(of_one.begin(), of_one.end(),
                                [&](const records::PlatformRule& rule) {
                                  return platform_allowed(rule, p, none_name);
                                });
           });
  });
}

}  // namespace

// Only a size that is too large has a next step: what is not meant for a node is nothing to change
// in the spec.
Status Core::fits(const records::NodeInfo& info, const std::string& key, const Need& need) {
  const auto& c = need.controls;
  const std::string root = none_root(key);
  if (root.empty() || !platform_fits(info, root, need.tee, need.rules)) {
    return fail(Reason::kNoCapacity, "no node is one that the job and every policy allow")
        .with("an allowed technology and node", root);
  }
  if (c.cpu < 1 || c.cpu > info.cpu) {
    return fail(Reason::kNoCapacity, "spec.resources.cpu")
        .with("at most " + std::to_string(info.cpu), std::to_string(c.cpu))
        .hint(kLess);
  }
  const std::int64_t pids = info.pids.value_or(0);
  if (c.pids < 1 || c.pids > pids) {
    return fail(Reason::kNoCapacity, "spec.sandbox.pids")
        .with("at most " + std::to_string(pids), std::to_string(c.pids))
        .hint(kLess);
  }
  if (c.memory_bytes < 1 || c.footprint_bytes() > info.memory_bytes) {
    return fail(Reason::kNoCapacity, "spec.resources: memory, scratch and image together")
        .with("at most " + mebibytes(info.memory_bytes), mebibytes(c.footprint_bytes()))
        .hint(kLess);
  }
  return ok_status();
}

Result<Core::Need> Core::need_of(const records::Submission& submission) {
  const auto& spec = submission.spec.spec;
  Need need;
  GBX_ASSIGN(need.controls, records::controls_of(spec));
  need.tee = spec.tee;
  for (const auto& binding : submission.assets) {
    GBX_ASSIGN(const api::AssetView view, asset(binding.version_id));
    need.rules.push_back(view.policy.body.clauses.tee);
  }
  return need;
}

Result<records::PlanCheck> Core::judge_placement(const records::Submission& submission) {
  GBX_ASSIGN(const Need need, need_of(submission));
  machines::RecordQuery q;
  q.kind = "node";
  q.limit = 1000;
  GBX_ASSIGN(const std::vector<Record> rows, store_.records(q));
  records::PlanCheck line;
  line.check = "placement";
  line.asset = "job";
  line.allowed = true;
  Error why;
  bool silent = false;
  for (const Record& row : rows) {
    GBX_ASSIGN(const NodeBody body, from_json<NodeBody>(row.body));
    if (!body.info) continue;
    const Status fit = fits(*body.info, row.id, need);
    if (!fit.ok()) {
      // A size that is too large says more than a node that is not meant.
      if (why.reason == Reason::kUninitialised || !fit.error().next.empty()) why = fit.error();
      continue;
    }
    const auto seen = last_seen_ms_.find(row.id);
    if (seen != last_seen_ms_.end() && alive(seen->second)) {
      line.what = "node " + body.name + " can run it";
      return line;
    }
    silent = true;
  }
  if (silent || why.reason == Reason::kUninitialised) {
    line.reason = std::string(reason_code(Reason::kUnavailable));
    line.what = silent ? "the nodes that could run it do not answer now: it would wait for one, as "
                         "long as spec.timeouts.queue says"
                       : "no node has registered yet: it would wait for one, as long as "
                         "spec.timeouts.queue says";
    line.next = "ask the operator to start a node";
    return line;
  }
  line.allowed = false;
  line.reason = std::string(reason_code(why.reason));
  line.what = why.what;
  line.expected = why.expected;
  line.actual = why.actual;
  line.next =
      why.next.empty() ? "glovebox node list; ask the operator for a node that can" : why.next;
  return line;
}

Result<records::PlanCheck> Core::placement(const records::Submission& submission) {
  const Lock lock(mutex_);
  return judge_placement(submission);
}

// What these environments were promised; a job that is over still counts until its environment is.
Result<std::int64_t> Core::memory_of(const std::vector<Machine>& environments) {
  std::int64_t bytes = 0;
  for (const Machine& env : environments) {
    GBX_ASSIGN(const EnvironmentBody e, from_json<EnvironmentBody>(env.body));
    GBX_ASSIGN(const Machine job, need_machine(job_machine(e.job_id), "job"));
    GBX_ASSIGN(const JobBody body, from_json<JobBody>(job.body));
    GBX_ASSIGN(const records::PlanControls c,
               records::controls_of(body.submission.submission.body.spec.spec));
    bytes += c.footprint_bytes();  // at most 1024 times 2 TiB
  }
  return bytes;
}

}  // namespace gbx::plane
