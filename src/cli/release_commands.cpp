// Guest releases: what boots in confidential VMs, measured and signed, so that policies can name it
// and anybody with the same files computes the same. Talks to nobody.
#include "attest/sim/events.h"
#include "base/bytes.h"
#include "base/os.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "crypto/key_file.h"
#include "records/machine.h"
#include "vm/measure/measure.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMaxFile = std::size_t{1} << 30;
constexpr std::size_t kMaxRelease = std::size_t{1} << 20;
constexpr std::int64_t kGiB = std::int64_t{1} << 30;

using Release = records::Signed<records::GuestRelease>;

struct Guest {
  Bytes firmware;
  Bytes kernel;
  Bytes initrd;
  Bytes lock;
  std::string cmdline;
};

Result<std::string> one_line(const std::string& path) {
  GBX_ASSIGN(std::string text, read_text_file(path, 4096));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

Result<Guest> read_guest(const std::string& dir) {
  Guest g;
  GBX_ASSIGN(g.firmware, read_file(dir + "/firmware.fd", kMaxFile));
  GBX_ASSIGN(g.kernel, read_file(dir + "/kernel", kMaxFile));
  GBX_ASSIGN(g.initrd, read_file(dir + "/initrd", kMaxFile));
  GBX_ASSIGN(g.lock, read_file(dir + "/lock", kMaxRelease));
  GBX_ASSIGN(g.cmdline, one_line(dir + "/cmdline"));
  return g;
}

// What a guest is called is a hash of all of it and of its lock, each with its length before it, as
// guest/build names it: the same files have the same name whoever measures them, and no file says
// what others are called. Half a SHA-256: two guests of one name take 2^64 tries to find.
std::string name_of(const Guest& g) {
  ByteWriter all;
  for (const ByteView part :
       {ByteView(g.firmware), ByteView(g.kernel), ByteView(g.initrd), as_bytes(g.cmdline)}) {
    all.u64(part.size()).raw(part);
  }
  all.raw(g.lock);
  return "glovebox-guest-" + to_hex(crypto::sha256(all.bytes())).substr(0, 32);
}

records::ReleaseFile file_of(const std::string& name, ByteView content) {
  return {name, crypto::sha256(content), static_cast<std::int64_t>(content.size())};
}

Result<records::PlatformMeasurements> measure_sim(const Guest& g) {
  records::PlatformMeasurements out;
  out.technology = records::Technology::kSim;
  attest::sim::SimLaunch launch;
  launch.firmware = crypto::sha384(g.firmware);
  launch.kernel = crypto::sha384(g.kernel);
  launch.initrd = crypto::sha384(g.initrd);
  launch.cmdline = g.cmdline;
  for (const std::int64_t cpus : records::kMachineCpus) {
    for (const std::int64_t gib : records::kMachineGiB) {
      GBX_ASSIGN(launch.machine, vm::measure::machine_description(cpus, gib * kGiB));
      const attest::sim::SimEvents events = attest::sim::sim_events(launch);
      out.parts = events.parts;
      out.machines.push_back({cpus, gib * kGiB, events.measured.rtmr[0]});
    }
  }
  return out;
}

// A mistyped name is not to become a signer.
Result<crypto::SigningKey> signer(Session& s, const Invocation& in, bool fresh) {
  const std::string path = in.text("key");
  if (!fresh && !path_exists(path)) {
    return fail(Reason::kNotFound, path).hint("glovebox release key --new makes a key");
  }
  return crypto::signing_key_file(path, s.random());
}

Status release_key(Session& s, const Invocation& in) {
  GBX_ASSIGN(const auto key, signer(s, in, in.has("new")));
  Json j;
  j["key"] = key.public_key().text();
  s.print(j, key.public_key().text() + "\n");
  return ok_status();
}

Status release_make(Session& s, const Invocation& in) {
  GBX_TRY(may_write(in, "out"));
  const std::string dir = in.text("guest");
  auto guest = read_guest(dir);
  if (!guest.ok()) return guest.error().hint("guest/build makes it");
  GBX_ASSIGN(const auto key, signer(s, in, false));
  records::GuestRelease r;
  r.name = name_of(*guest);
  r.cmdline = guest->cmdline;
  r.files = {file_of("firmware", guest->firmware), file_of("kernel", guest->kernel),
             file_of("initrd", guest->initrd)};
  r.lock = crypto::sha256(guest->lock);
  r.source = in.has("source") ? in.text("source") : "glovebox " + std::string(version());
  GBX_ASSIGN(auto sim, measure_sim(*guest));
  r.platforms.push_back(std::move(sim));
  GBX_ASSIGN(const Release release, records::sign(records::SetId{}, std::move(r), key));
  GBX_TRY(write_file_atomic(in.text("out"), as_bytes(canonical(to_json(release)) + "\n"), 0644));
  Json j;
  j["name"] = release.body.name;
  j["signer"] = release.key;
  s.print(j, "Release " + release.body.name + ", signed by " + release.key + "\n");
  return ok_status();
}

}  // namespace

void add_releases(CommandTree& t) {
  t.add({"release", "what boots in confidential VMs", "", {}, {}, {}, {}, {}});
  t.add("release", {"key",
                    "print the public key that signs releases",
                    "A charter names it: `glovebox-broker init --release-signer`.",
                    {},
                    {required(option("key", "FILE", "private key file", ArgKind::kFile)),
                     flag("new", "make the file when it is not there")},
                    {{"glovebox release key --key release.key --new", "before a key set is made"}},
                    release_key,
                    {}});
  t.add(
      "release",
      {"make",
       "measure a guest and sign what was measured",
       "Reads what guest/build made and computes what each platform will measure of it, for every "
       "size of machine. Its name is a hash of the files; the file `name` among them is not read. "
       "Nothing is started.",
       {},
       {required(option("guest", "DIR", "folder that guest/build wrote", ArgKind::kDirectory)),
        required(option("key", "FILE", "private key file (glovebox release key)", ArgKind::kFile)),
        required(option("out", "FILE", "the signed release", ArgKind::kFile)),
        option("source", "TEXT", "what it was built from, for auditors"),
        flag("force", "replace the file")},
       {{"glovebox release make --guest build/guest --key release.key --out release.json",
         "sign what was built"}},
       release_make,
       {}});
}

}  // namespace gbx::cli
