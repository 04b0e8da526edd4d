// Core: which nodes could run a job. Sizes are chosen by consumers and contain their containers, so
// what a node lends is the bound: for one job, and for all that live on the node at a time.
#include <algorithm>

#include "base/printable.h"
#include "plane/core/core.h"
#include "records/machine.h"

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

bool listed(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const auto& w : words) out += (out.empty() ? "" : ", ") + w;
  return out.empty() ? "none" : out;
}

// What a node says that it is, for a person who looks for what it lacks.
std::string described(const std::vector<records::NodePlatform>& platforms,
                      const std::string& none_name) {
  std::vector<std::string> words;
  for (const auto& p : platforms) {
    std::string one = "technology " + std::string(enum_name(p.technology));
    one += p.technology == records::Technology::kNone
               ? ", node " + none_name
               : ", release " + p.release + ", root " + p.root;
    words.push_back(std::move(one));
  }
  return printable(joined(words), 400);
}

std::vector<std::string> names_of(const std::vector<records::Technology>& technologies) {
  std::vector<std::string> out;
  for (const records::Technology t : technologies) out.emplace_back(enum_name(t));
  return out;
}

// One platform of this node that the job asks for and every policy allows; else what is lacking.
Status platform_fits(const records::NodeInfo& info, const std::string& none_name,
                     const records::SpecTee& tee,
                     const std::vector<std::vector<records::PlatformRule>>& rules) {
  const auto platforms = platforms_of(info);
  const std::string has = described(platforms, none_name);
  bool of_technology = false;
  bool of_release = false;
  for (const records::NodePlatform& p : platforms) {
    if (std::count(tee.any_of.begin(), tee.any_of.end(), p.technology) == 0) continue;
    of_technology = true;
    const bool none = p.technology == records::Technology::kNone;
    if (!none && !tee.releases.empty() && !listed(tee.releases, p.release)) continue;
    of_release = true;
    const auto allows = [&](const records::PlatformRule& rule) {
      return platform_allowed(rule, p, none_name);
    };
    const bool allowed = std::all_of(rules.begin(), rules.end(), [&](const auto& of_one) {
      return std::any_of(of_one.begin(), of_one.end(), allows);
    });
    if (allowed) return ok_status();
  }
  if (!of_technology) {
    return fail(Reason::kNoCapacity, "no node has a technology of spec.tee.anyOf")
        .with(joined(names_of(tee.any_of)), has);
  }
  if (!of_release) {
    return fail(Reason::kNoCapacity, "no node runs a release of spec.tee.releases")
        .with(printable(joined(tee.releases), 400), has);
  }
  return fail(Reason::kNoCapacity, "no node is one that the job and every policy allow")
      .with("a technology, root and release that every policy allows", has);
}

// Of a node that gives each attempt a machine of its own.
std::optional<records::Technology> machine_technology(const records::NodeInfo& info) {
  for (const records::Technology t : info.technologies) {
    if (t != records::Technology::kNone) return t;
  }
  return std::nullopt;
}

}  // namespace

// Only a size that is too large has a next step: what is not meant for a node is nothing to change
// in the spec.
Status Core::fits(const records::NodeInfo& info, const std::string& key, const Need& need) {
  const auto& c = need.controls;
  const std::string root = none_root(key);
  if (root.empty()) return fail(Reason::kNoCapacity, "a node whose key can be read");
  GBX_TRY(platform_fits(info, root, need.tee, need.rules));
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
  if (!machine_technology(info)) return ok_status();
  const std::int64_t taken = taken_bytes(info, need);
  if (taken < 1 || taken > info.memory_bytes) {
    return fail(Reason::kNoCapacity, "spec.resources: memory of the machine that this job needs")
        .with(
            "at most " + mebibytes(info.memory_bytes) + ", with what its own kernel and QEMU take",
            taken < 1 ? "more than any machine has" : mebibytes(taken))
        .hint(kLess);
  }
  return ok_status();
}

std::int64_t Core::taken_bytes(const records::NodeInfo& info, const Need& need) {
  const auto technology = machine_technology(info);
  if (!technology) return need.controls.footprint_bytes();
  const std::int64_t machine = records::machine_bytes(
      *technology, records::machine_need(need.controls, need.ciphertext_bytes));
  return machine == 0 ? 0 : machine + records::kMachineOverheadBytes;
}

// By its plan where it has one. What is read ahead only counts where there are machines, and is
// looked up only then.
Result<Core::Need> Core::planned_need(const records::NodeInfo& info, const JobBody& body) {
  const auto& submission = body.submission.submission.body;
  Need need;
  need.tee = submission.spec.spec.tee;
  if (!body.plan) {
    GBX_ASSIGN(need.controls, records::controls_of(submission.spec.spec));
    return need;
  }
  need.controls = body.plan->body.controls;
  need.rules = {body.plan->body.tee};
  if (!machine_technology(info) || need.controls.access != records::Access::kPrefetch) return need;
  for (const auto& binding : submission.assets) {
    GBX_ASSIGN(const api::AssetView view, asset(binding.version_id));
    need.ciphertext_bytes += view.record.body.ciphertext_bytes;  // each at most 2^53
  }
  return need;
}

Result<Core::Need> Core::need_of(const records::Submission& submission) {
  const auto& spec = submission.spec.spec;
  Need need;
  GBX_ASSIGN(need.controls, records::controls_of(spec));
  // Whether anything is read ahead, the plan will say.
  need.controls.access = records::Access::kDirect;
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
Result<std::int64_t> Core::memory_of(const records::NodeInfo& info,
                                     const std::vector<Machine>& environments) {
  std::int64_t bytes = 0;
  for (const Machine& env : environments) {
    GBX_ASSIGN(const EnvironmentBody e, from_json<EnvironmentBody>(env.body));
    GBX_ASSIGN(const Machine job, need_machine(job_machine(e.job_id), "job"));
    GBX_ASSIGN(const JobBody body, from_json<JobBody>(job.body));
    GBX_ASSIGN(const Need need, planned_need(info, body));
    bytes += taken_bytes(info, need);  // at most 1024 times 2 TiB
  }
  return bytes;
}

}  // namespace gbx::plane
