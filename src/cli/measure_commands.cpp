// measure: what a platform will show of a guest, from the files alone.
#include <charconv>

#include "base/os.h"
#include "base/printable.h"
#include "cli/commands.h"
#include "cli/measured_files.h"
#include "cli/session.h"
#include "crypto/crypto.h"
#include "vm/measure/measure.h"

namespace gbx::cli {

Result<vm::measure::AcpiTables> read_acpi_tables(const std::string& folder) {
  vm::measure::AcpiTables out;
  struct Place {
    const char* file;
    Bytes* into;
  };
  for (const Place& p :
       {Place{"table-loader", &out.loader}, Place{"rsdp", &out.files["etc/acpi/rsdp"]},
        Place{"tables", &out.files["etc/acpi/tables"]}}) {
    auto content = read_file(folder + "/" + p.file, vm::measure::kMaxAcpiSize);
    if (!content.ok()) return content.error().at("--acpi");
    *p.into = std::move(*content);
  }
  return out;
}

namespace {

namespace m = vm::measure;
using records::Technology;

// "2GiB", "2048MiB", "2147483648".
Result<std::int64_t> memory_size(const std::string& text) {
  const Error bad = fail(Reason::kUsage, "--memory")
                        .with("a size as 2GiB, 2048MiB or 2147483648", printable(text, 64));
  std::int64_t n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  const std::string unit(static_cast<const char*>(end), text.data() + text.size());
  const int shift = unit.empty() ? 0 : unit == "MiB" ? 20 : unit == "GiB" ? 30 : -1;
  if (error != std::errc{} || n < 1 || shift < 0 || n > (std::int64_t{1} << 60 >> shift)) {
    return bad;
  }
  return n << shift;
}

Result<std::uint64_t> features(const std::string& text) {
  std::uint64_t n = 0;
  const std::string_view digits = std::string_view(text).substr(text.rfind("0x", 0) == 0 ? 2 : 0);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), n, digits == text ? 10 : 16);
  if (error != std::errc{} || end != digits.data() + digits.size() || (n & m::kSnpActive) == 0) {
    return fail(Reason::kUsage, "--guest-features")
        .with("a number with bit 0 (SNPActive) set, as 1 or 0x21", printable(text, 64));
  }
  return n;
}

Result<Bytes> file_of(const Invocation& in, const std::string& option, std::size_t limit) {
  auto content = read_file(in.text(option), limit);
  if (!content.ok()) return content.error().at("--" + option);
  if (content->empty()) {
    return fail(Reason::kBadValue, "--" + option + ": " + in.text(option))
        .with("a file with content", "an empty file");
  }
  return content;
}

Result<m::AcpiTables> acpi_of(const Invocation& in) {
  if (!in.has("acpi")) {
    return fail(Reason::kUsage, "--acpi is missing")
        .with(
            "a folder with table-loader, rsdp and tables, as the QEMU that will run the guest "
            "makes them",
            "nothing")
        .hint("guest/acpi-tables CPUS MEMORY --out DIR asks the QEMU that is installed");
  }
  return read_acpi_tables(in.text("acpi"));
}

Result<m::LaunchPlan> plan_of(const Invocation& in) {
  m::LaunchPlan p;
  p.technology = in.text("technology") == "tdx"       ? Technology::kTdx
                 : in.text("technology") == "sev-snp" ? Technology::kSnp
                                                      : Technology::kSim;
  p.cmdline = in.text("cmdline");
  GBX_ASSIGN(p.cpus, in.integer("cpus", 1, {1, 1'000'000}));
  GBX_ASSIGN(p.memory_bytes, memory_size(in.text("memory")));
  if (in.has("vcpu-type")) p.vcpu_type = in.text("vcpu-type");
  if (in.has("guest-features")) {
    GBX_ASSIGN(p.guest_features, features(in.text("guest-features")));
  }
  if (in.text("kernel-header") == "patched") p.hand_over = m::KernelHandOver::kPatched;
  struct Only {
    const char* option;
    Technology technology;
  };
  for (const Only& o :
       {Only{"acpi", Technology::kTdx}, Only{"kernel-header", Technology::kTdx},
        Only{"vcpu-type", Technology::kSnp}, Only{"guest-features", Technology::kSnp}}) {
    if (!in.has(o.option) || p.technology == o.technology) continue;
    return fail(Reason::kUsage, std::string("--") + o.option)
        .with("only with --technology " + std::string(enum_name(o.technology)),
              in.text("technology"));
  }
  return p;
}

Json files_json(const m::LaunchFiles& files) {
  JsonArray out;
  const auto add = [&out](const char* name, const Bytes& content) {
    out.push_back(to_json(records::ReleaseFile{name, crypto::sha256(content),
                                               static_cast<std::int64_t>(content.size())}));
  };
  add("firmware", files.firmware);
  add("kernel", files.kernel);
  add("initrd", files.initrd);
  return Json(std::move(out));
}

std::string shown(const m::LaunchMeasurement& measured, const m::LaunchPlan& plan) {
  const bool sim = plan.technology == Technology::kSim;
  std::string text = std::string(enum_name(plan.technology)) + ", " + std::to_string(plan.cpus) +
                     " processors, " + human_bytes(static_cast<std::uint64_t>(plan.memory_bytes)) +
                     (sim ? ": SIMULATED\n" : ": UNTESTED ON HARDWARE\n");
  for (const auto& r : measured.registers) {
    text += r.name + "  " + to_hex(r.value) + "\n";
    for (const auto& s : r.steps) {
      text += "  " + to_hex(s.digest) + "  " + s.what +
              (s.input.empty() ? "" : "  (from " + s.input + ")") + "\n";
    }
  }
  return text;
}

Status measure(Session& s, const Invocation& in) {
  GBX_ASSIGN(const m::LaunchPlan plan, plan_of(in));
  m::LaunchFiles files;
  GBX_ASSIGN(files.firmware, file_of(in, "firmware", m::kMaxFirmwareSize));
  GBX_ASSIGN(files.kernel, file_of(in, "kernel", m::kMaxKernelSize));
  GBX_ASSIGN(files.initrd, file_of(in, "initrd", m::kMaxInitrdSize));
  if (plan.technology == Technology::kTdx) {
    GBX_ASSIGN(files.acpi, acpi_of(in));
  }
  GBX_ASSIGN(const m::LaunchMeasurement measured, m::measure_launch(files, plan));
  Json j;
  j["technology"] = enum_name(plan.technology);
  j["cpus"] = plan.cpus;
  j["memoryBytes"] = plan.memory_bytes;
  j["cmdline"] = plan.cmdline;
  j["testedOnHardware"] = false;
  JsonArray registers;
  for (const auto& r : measured.registers) {
    Json one;
    one["name"] = r.name;
    one["value"] = to_hex(r.value);
    JsonArray steps;
    for (const auto& step : r.steps) {
      Json line;
      line["what"] = step.what;
      line["input"] = step.input;
      line["digest"] = to_hex(step.digest);
      steps.push_back(std::move(line));
    }
    one["steps"] = Json(std::move(steps));
    registers.push_back(std::move(one));
  }
  j["registers"] = Json(std::move(registers));
  j["files"] = files_json(files);
  j["platform"] = to_json(measured.platform);
  s.print(j, shown(measured, plan));
  return ok_status();
}

Argument choice(Argument a, std::vector<std::string> choices) {
  a.kind = ArgKind::kChoice;
  a.choices = std::move(choices);
  return a;
}

}  // namespace

void add_measure(CommandTree& t) {
  Argument header = choice(option("kernel-header", "HOW", "tdx: patched by QEMU before 10.2"),
                           {"as-file", "patched"});
  header.standard = "as-file";
  Argument type = option("vcpu-type", "TYPE", "sev-snp: processor type of QEMU");
  type.standard = "EPYC-v4";
  Argument features_option = option("guest-features", "NUMBER", "sev-snp: SEV_FEATURES of a VMSA");
  features_option.standard = "1";
  t.add(
      {"measure",
       "compute what a platform will show of a guest, without starting it",
       "The registers that evidence of a guest with these files and this size shows, with each "
       "step and the input that decides it; docs/measure.md explains them. Firmware that would "
       "not measure what it boots is refused. UNTESTED ON HARDWARE: no launch was compared with "
       "evidence of a real TDX or SEV-SNP machine.",
       {},
       {required(choice(option("technology", "NAME", "whose evidence"), {"tdx", "sev-snp", "sim"})),
        required(option("firmware", "FILE", "OVMF image, as for -bios", ArgKind::kFile)),
        required(option("kernel", "FILE", "bzImage", ArgKind::kFile)),
        required(option("initrd", "FILE", "initial file system", ArgKind::kFile)),
        required(option("cmdline", "TEXT", "command line of the kernel")),
        required(option("cpus", "N", "processors of the machine", ArgKind::kInteger)),
        required(option("memory", "SIZE", "memory of the machine, as 2GiB")),
        option("acpi", "DIR", "tdx: ACPI tables of that QEMU and machine (guest/acpi-tables)",
               ArgKind::kDirectory),
        std::move(header), std::move(type), std::move(features_option)},
       {{"glovebox measure --technology sim --firmware OVMF.fd --kernel vmlinuz --initrd initrd "
         "--cmdline \"$(cat guest/cmdline)\" --cpus 2 --memory 2GiB -o json",
         "one size of a guest release"}},
       measure,
       {}});
}

}  // namespace gbx::cli
