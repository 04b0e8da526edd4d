#include "cli/shown.h"

#include <algorithm>

#include "base/os.h"
#include "cli/catalogue.h"
#include "crypto/crypto.h"

namespace gbx::cli {

namespace {

constexpr std::int64_t kMostShown = 2000;  // as many as a list shows
constexpr std::size_t kMaxFile = 1U << 20;

struct ShownFile {
  std::vector<ShownOutput> outputs;  // the latest last
  template <class F>
  void fields(F& f) {
    f("outputs", outputs, Bound{0, kMostShown});
  }
};

std::string file_of(const Home& home, const records::SetId& set_id, const Hash32& reviewer) {
  const Hash32 whose = crypto::sha256(concat({set_id, reviewer}));
  return home.file("shown/" + to_hex(whose).substr(0, 24) + ".json");
}

}  // namespace

ShownOutputs::ShownOutputs(const Home& home, const records::SetId& set_id, const Hash32& reviewer)
    : home_(home), path_(file_of(home, set_id, reviewer)) {}

Result<std::vector<ShownOutput>> ShownOutputs::all(std::int64_t now) const {
  std::vector<ShownOutput> out;
  if (!path_exists(path_)) return out;
  GBX_ASSIGN(const std::string text, read_text_file(path_, kMaxFile));
  auto file = from_json_text<ShownFile>(text);
  if (!file.ok()) {
    return file.error().at(path_).hint("remove it, and look at the outputs again");
  }
  out = std::move(file->outputs);
  std::erase_if(out, [now](const auto& o) { return o.expires < now; });
  return out;
}

Status ShownOutputs::add(const ShownOutput& shown, std::int64_t now) const {
  // Another command of this reviewer may be showing another output.
  GBX_ASSIGN(const Fd lock, home_.lock("shown"));
  ShownFile file;
  GBX_ASSIGN(file.outputs, all(now));
  std::erase_if(file.outputs, [&](const auto& o) { return o.job_id == shown.job_id; });
  if (file.outputs.size() == static_cast<std::size_t>(kMostShown)) {
    file.outputs.erase(file.outputs.begin());
  }
  file.outputs.push_back(shown);
  GBX_TRY(home_.make("shown"));
  return write_file_atomic(path_, as_bytes(canonical(to_json(file))), 0600);
}

Result<Hash32> choose_shown(const std::string& prefix, const std::vector<ShownOutput>& shown) {
  std::vector<Hash32> ids;
  for (const auto& o : shown) ids.push_back(o.job_id);
  auto id = choose_id(prefix, ids, "", "");
  if (id.reason() != Reason::kNotFound) return id;
  return fail(Reason::kUsage, "nothing that begins with " + prefix + " was shown here")
      .with("an output that you looked at on this machine, or all 64 digits", prefix)
      .hint("look at it first: glovebox review show " + prefix);
}

Status check_shown(const ShownOutput& now, const std::vector<ShownOutput>& shown) {
  const auto before = std::find_if(shown.begin(), shown.end(),
                                   [&](const auto& o) { return o.job_id == now.job_id; });
  if (before == shown.end() || before->manifest == now.manifest) return ok_status();
  return fail(Reason::kBadHash, "this is not the output that you were shown")
      .with(to_hex(before->manifest), to_hex(now.manifest))
      .hint("nothing was ruled; tell the operator, and look again: glovebox review show " +
            to_hex(now.job_id));
}

}  // namespace gbx::cli
