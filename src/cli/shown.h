// What `review show` opened for this home's reviewer: which job, and which bytes of it. A ruling
// that nobody looks at in the same command is about these alone, whatever the plane lists by then.
// The file is the user's own.
#pragma once

#include <vector>

#include "cli/home.h"

namespace gbx::cli {

struct ShownOutput {
  Hash32 job_id{};
  Hash32 manifest{};         // of the output that was opened
  std::int64_t expires = 0;  // of its hold: nobody rules on it afterwards
  template <class F>
  void fields(F& f) {
    f("jobId", job_id);
    f("manifest", manifest);
    f("expires", expires, Bound{0, kMaxJsonInteger});
  }
};
// Of one reviewer at one installation.
class ShownOutputs {
 public:
  ShownOutputs(const Home& home, const records::SetId& set_id, const Hash32& reviewer);
  // Those whose hold lasts. Errors: of a file that is none of ours, with what to do.
  Result<std::vector<ShownOutput>> all(std::int64_t now) const;
  // The latest counts for a job; kept from here on, whatever happens to this machine.
  Status add(const ShownOutput& shown, std::int64_t now) const;

 private:
  const Home& home_;
  const std::string path_;
};

// The one whose id begins with `prefix`. kUsage: none was shown; kConflict: several.
Result<Hash32> choose_shown(const std::string& prefix, const std::vector<ShownOutput>& shown);
// kBadHash when other bytes of this job were shown. What was shown on another machine is not known
// here: there the whole job id says which output is meant, for a job has one.
Status check_shown(const ShownOutput& now, const std::vector<ShownOutput>& shown);

}  // namespace gbx::cli
