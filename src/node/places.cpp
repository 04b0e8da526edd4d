#include "node/places.h"

#include <dirent.h>
#include <errno.h>
#include <sys/file.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "sandbox/sandbox.h"

namespace gbx::node {

PlaceNames names_of(const std::string& attempt) { return {"agent-" + attempt, "gbx-" + attempt}; }

namespace {

constexpr std::int64_t kOrderlyEndMs = 8'000;

Residue clear_attempt(const std::string& state_dir, const std::string& attempt) {
  Residue residue;
  const PlaceNames names = names_of(attempt);
  // The enclosure first: nobody is left then who could start the container anew.
  for (const auto& id : {names.enclosure, names.container}) {
    const Status s = sandbox::clear_residue(id);
    if (!s.ok()) residue.lines.push_back(id + ": " + s.error().what);
  }
  residue.processes = !residue.lines.empty();
  if (residue.processes) return residue;
  const Status removed = remove_tree(state_dir + "/" + attempt);
  if (!removed.ok()) residue.lines.push_back("attempt folder: " + removed.error().what);
  return residue;
}

Result<std::vector<std::string>> folders_in(const std::string& path) {
  DIR* d = opendir(path.c_str());
  if (d == nullptr) return io_error(path, errno);
  std::vector<std::string> out;
  while (const dirent* e = readdir(d)) {
    const std::string name(e->d_name);
    const bool ours = std::all_of(name.begin(), name.end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
    });
    if (ours) out.push_back(name);
  }
  closedir(d);
  return out;
}

}  // namespace

// A node that is just being killed gets a moment.
Status Places::lock_folder() const {
  for (int i = 0; flock(folder_.get(), LOCK_EX | LOCK_NB) != 0; ++i) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return io_error("lock of " + state_dir_, errno);
    }
    if (i >= 50) return fail(Reason::kWrongState, "another node uses " + state_dir_);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return ok_status();
}

Result<std::vector<std::string>> Places::clear() {
  GBX_ASSIGN(folder_, open_dir(state_dir_));
  GBX_TRY(lock_folder());
  GBX_ASSIGN(const auto attempts, folders_in(state_dir_));
  for (const auto& attempt : attempts) {
    const auto left = clear_attempt(state_dir_, attempt).lines;
    if (left.empty()) continue;
    return fail(Reason::kSandboxSetup,
                "what an earlier life of this node left behind withstands: " + attempt + ": " +
                    left[0])
        .hint("end it by hand, or restart this machine");
  }
  return attempts;
}

Result<Place> Places::take(const std::string& attempt) {
  if (!folder_.valid()) return fail(Reason::kWrongState, "start before clear");
  Place place{attempt, 0};
  if (path_exists(folder(place))) {
    return fail(Reason::kWrongState, "this attempt has an environment here");
  }
  GBX_ASSIGN(place.slot, slots_.take());
  const Status made = make_dirs(folder(place), 0711);
  if (made.ok()) return place;
  slots_.give_back(place.slot);
  return made.error();
}

Residue Places::give_back(const Place& place) {
  Residue residue = clear_attempt(state_dir_, place.attempt);
  if (residue.lines.empty()) slots_.give_back(place.slot);
  return residue;
}

Residue Places::end(const Place& place, channel::ByteStream& stream, Process& program) {
  stream.close();
  auto ended = program.wait(kOrderlyEndMs);
  if (!ended.ok() || !ended->has_value()) program.kill_and_reap();
  return give_back(place);
}

}  // namespace gbx::node
