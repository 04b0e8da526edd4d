// Guest releases: what boots in confidential VMs, measured and signed, so that policies can name it
// and anybody with the same files computes the same. Talks to nobody.
#include "attest/sim/events.h"
#include "base/bytes.h"
#include "base/os.h"
#include "base/printable.h"
#include "base/version.h"
#include "cli/commands.h"
#include "cli/measured_files.h"
#include "cli/session.h"
#include "crypto/key_file.h"
#include "records/machine.h"
#include "records/release.h"
#include "vm/launch.h"
#include "vm/measure/measure.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMaxFile = std::size_t{1} << 30;
constexpr std::size_t kMaxRelease = std::size_t{1} << 20;
constexpr std::int64_t kGiB = std::int64_t{1} << 30;

using Release = records::Signed<records::GuestRelease>;

struct Guest {
  Bytes firmware;
  // Of builds that measure what they boot on that platform; empty: guest/build was not asked for
  // them.
  Bytes firmware_tdx;
  Bytes firmware_snp;
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

// Empty where there is no such file.
Result<Bytes> optional_file(const std::string& path) {
  if (!path_exists(path)) return Bytes{};
  return read_file(path, vm::measure::kMaxFirmwareSize);
}

Result<Guest> read_guest(const std::string& dir) {
  Guest g;
  GBX_ASSIGN(g.firmware, read_file(dir + "/firmware.fd", kMaxFile));
  GBX_ASSIGN(g.firmware_tdx, optional_file(dir + "/firmware-tdx.fd"));
  GBX_ASSIGN(g.firmware_snp, optional_file(dir + "/firmware-snp.fd"));
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
       {ByteView(g.firmware), ByteView(g.firmware_tdx), ByteView(g.firmware_snp),
        ByteView(g.kernel), ByteView(g.initrd), as_bytes(g.cmdline)}) {
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

vm::measure::LaunchFiles launch_files(const Guest& g, const Bytes& firmware) {
  return {firmware, g.kernel, g.initrd, {}};
}

// The digest depends on the number of processors and their type, which is the one that machines are
// started with; not on memory.
Result<records::PlatformMeasurements> measure_snp(const Guest& g) {
  records::PlatformMeasurements out;
  out.technology = records::Technology::kSnp;
  const auto files = launch_files(g, g.firmware_snp);
  vm::measure::LaunchPlan plan;
  plan.technology = out.technology;
  plan.cmdline = g.cmdline;
  plan.vcpu_type = vm::cpu_model(vm::Platform::kSnp);
  for (const std::int64_t cpus : records::kMachineCpus) {
    plan.cpus = cpus;
    plan.memory_bytes = kGiB;
    GBX_ASSIGN(const auto measured, vm::measure::measure_launch(files, plan));
    for (const std::int64_t gib : records::kMachineGiB) {
      out.machines.push_back({cpus, gib * kGiB, measured.platform.machines.front().measurement});
    }
  }
  return out;
}

// Of the sizes whose ACPI tables are there: `acpi`/CPUS-MEMORYGiB, each as guest/acpi-tables writes
// it.
Result<records::PlatformMeasurements> measure_tdx(const Guest& g, const std::string& acpi) {
  records::PlatformMeasurements out;
  out.technology = records::Technology::kTdx;
  auto files = launch_files(g, g.firmware_tdx);
  vm::measure::LaunchPlan plan;
  plan.technology = out.technology;
  plan.cmdline = g.cmdline;
  for (const std::int64_t cpus : records::kMachineCpus) {
    for (const std::int64_t gib : records::kMachineGiB) {
      const std::string size = std::to_string(cpus) + "-" + std::to_string(gib) + "GiB";
      const std::string folder = acpi + "/" + size;
      if (!path_exists(folder)) continue;
      GBX_ASSIGN(files.acpi, read_acpi_tables(folder));
      plan.cpus = cpus;
      plan.memory_bytes = gib * kGiB;
      auto measured = vm::measure::measure_launch(files, plan);
      if (!measured.ok()) return measured.error().at(size);
      out.parts = measured->platform.parts;
      out.machines.push_back(measured->platform.machines.front());
    }
  }
  if (!out.machines.empty()) return out;
  return fail(Reason::kNotFound, "--acpi " + acpi)
      .with("folders named by sizes that releases list, as 2-2GiB", "none")
      .hint("guest/acpi-tables 2 2GiB --firmware firmware-tdx.fd --phys-bits 46 --out " + acpi +
            "/2-2GiB");
}

// A platform that was named and cannot be measured is an error, not left out.
Status measure_platforms(const Guest& g, const Invocation& in,
                         std::vector<records::PlatformMeasurements>& out) {
  GBX_ASSIGN(auto sim, measure_sim(g));
  out.push_back(std::move(sim));
  if (in.has("acpi")) {
    if (g.firmware_tdx.empty()) {
      return fail(Reason::kNotFound, "firmware-tdx.fd").hint("guest/build --platforms tdx");
    }
    GBX_ASSIGN(auto tdx, measure_tdx(g, in.text("acpi")));
    out.push_back(std::move(tdx));
  }
  if (!g.firmware_snp.empty()) {
    auto snp = measure_snp(g);
    if (!snp.ok()) return snp.error().at("firmware-snp.fd");
    out.push_back(std::move(*snp));
  }
  return ok_status();
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
  if (!guest->firmware_tdx.empty()) {
    r.files.push_back(file_of("firmware-tdx", guest->firmware_tdx));
  }
  if (!guest->firmware_snp.empty()) {
    r.files.push_back(file_of("firmware-snp", guest->firmware_snp));
  }
  r.lock = crypto::sha256(guest->lock);
  r.source = in.has("source") ? in.text("source") : "glovebox " + std::string(version());
  GBX_TRY(measure_platforms(*guest, in, r.platforms));
  GBX_ASSIGN(const Release release, records::sign(records::SetId{}, std::move(r), key));
  GBX_TRY(write_file_atomic(in.text("out"), as_bytes(canonical(to_json(release)) + "\n"), 0644));
  Json j;
  j["name"] = release.body.name;
  j["signer"] = release.key;
  s.print(j, "Release " + release.body.name + ", signed by " + release.key + "\n");
  return ok_status();
}

// What a release says, once its signature holds; whether its signer is one to believe, the charter
// says.
Status release_show(Session& s, const Invocation& in) {
  GBX_ASSIGN(const std::string text, read_text_file(in.text("file"), kMaxRelease));
  auto read = from_json_text<records::Signed<records::GuestRelease>>(text);
  if (!read.ok()) return read.error().at(in.text("file"));
  const Release release = std::move(*read);
  GBX_ASSIGN(const auto signer, crypto::PublicKey::from_text(release.key));
  GBX_TRY(release.verify(records::SetId{}, signer));
  const auto& r = release.body;
  std::string shown = "Release " + printable(r.name) + ", svn " + std::to_string(r.svn) +
                      "\n  signed by  " + release.key + "\n  source     " + printable(r.source) +
                      "\n  cmdline    " + printable_whole(r.cmdline) + "\n";
  for (const auto& f : r.files) {
    shown += "  " + printable(f.name) + "  sha256:" + to_hex(f.sha256) + ", " +
             std::to_string(f.size_bytes) + " bytes\n";
  }
  for (const auto& p : r.platforms) {
    const bool sim = p.technology == records::Technology::kSim;
    shown += std::string(enum_name(p.technology)) +
             (sim ? ": SIMULATED" : ": UNTESTED ON HARDWARE") + ", " +
             std::to_string(p.machines.size()) + " sizes\n";
    if (p.parts) {
      shown += "  MRTD   " + to_hex(p.parts->firmware) + "\n  RTMR1  " + to_hex(p.parts->rtmr1) +
               "\n  RTMR2  " + to_hex(p.parts->rtmr2) + "\n";
    }
    for (const auto& m : p.machines) {
      shown += "  " + std::to_string(m.cpus) + " processors, " +
               human_bytes(static_cast<std::uint64_t>(m.memory_bytes)) + "  " +
               to_hex(m.measurement) + "\n";
    }
  }
  s.print(to_json(release), shown);
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
       "Nothing is started.\n\n"
       "SEV-SNP is measured where firmware-snp.fd is among the files, TDX where --acpi has tables "
       "for firmware-tdx.fd: guest/build --platforms tdx,sev-snp makes both. UNTESTED ON HARDWARE.",
       {},
       {required(option("guest", "DIR", "folder that guest/build wrote", ArgKind::kDirectory)),
        required(option("key", "FILE", "private key file (glovebox release key)", ArgKind::kFile)),
        required(option("out", "FILE", "the signed release", ArgKind::kFile)),
        option("acpi", "DIR",
               "ACPI tables for TDX: DIR/2-2GiB and the like, each made by guest/acpi-tables",
               ArgKind::kDirectory),
        option("source", "TEXT", "what it was built from, for auditors"),
        flag("force", "replace the file")},
       {{"glovebox release make --guest build/guest --key release.key --out release.json",
         "sign what was built"}},
       release_make,
       {}});
  t.add("release", {"show",
                    "print a release whose signature holds",
                    "Every file, and every measurement of every platform and size. Whether its "
                    "signer may sign releases is what an installation's charter says.",
                    {positional("file", "the signed release", ArgKind::kFile)},
                    {},
                    {{"glovebox release show release.json", "what owners would allow"}},
                    release_show,
                    {}});
}

}  // namespace gbx::cli
