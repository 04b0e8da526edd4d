#include "attest/tsm/attester.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <charconv>

#include "attest/rejected.h"
#include "attest/tdx/event_log.h"
#include "attest/verifier.h"
#include "base/os.h"

namespace gbx::attest::tsm {

namespace {

constexpr int kTries = 8;
constexpr std::size_t kMaxText = 64;
constexpr std::size_t kMaxCollateral = 64 * 1024;  // of one entry, as records have it

class ConfigfsReport final : public Report {
 public:
  explicit ConfigfsReport(Fd dir) : dir_(std::move(dir)) {}
  Result<Bytes> read(const std::string& attribute, std::size_t limit) override {
    auto fd = open_beneath(dir_.get(), attribute, O_RDONLY);
    if (!fd.ok()) return fd.error().at(attribute);
    auto bytes = read_all(fd->get(), limit);
    if (!bytes.ok()) return bytes.error().at(attribute);
    return bytes;
  }
  // The kernel takes a binary attribute when its file is closed, and has no way to say that it did
  // not: the generation tells.
  Status write(const std::string& attribute, ByteView value) override {
    auto fd = open_beneath(dir_.get(), attribute, O_WRONLY);
    if (!fd.ok()) return fd.error().at(attribute);
    Status s = write_all(fd->get(), value);
    return s.ok() ? s : Status(s.error().at(attribute));
  }

 private:
  const Fd dir_;
};

std::string trimmed(ByteView bytes) {
  std::string text(as_text(bytes));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

Result<records::Technology> technology_of(const std::string& provider) {
  if (provider == "tdx_guest") return records::Technology::kTdx;
  if (provider == "sev_guest") return records::Technology::kSnp;
  return fail(Reason::kUnsupported, "provider of quotes")
      .with("tdx_guest or sev_guest", provider)
      .hint("load the guest driver of the platform: tdx-guest or sev-guest");
}

Error no_provider() {
  return fail(Reason::kUnsupported, "no driver of a platform gives reports to configfs-tsm");
}

// The firmware's log explains refusals and decides nothing: where there is none, or none that can
// be read, evidence goes without.
void add_event_log(const std::string& path, Quoted& out) {
  const auto table = read_file(path, tdx::kMaxLogBytes);
  if (!table.ok()) return;
  const auto log = tdx::log_without_padding(*table);
  if (!log.ok() || log->size() > kMaxCollateral) return;
  out.collateral.push_back({std::string(kEventLogCollateral), to_bytes(*log)});
}

}  // namespace

Result<std::unique_ptr<Report>> open_report(const std::string& root, const std::string& name) {
  const std::string path = root + "/" + name;
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    // configfs-tsm without a provider, tsm_report_make_item() of the kernel
    if (errno == ENXIO) return no_provider();
    return io_error(path, errno)
        .hint("mount configfs and load the guest driver of the platform (tdx-guest, sev-guest)");
  }
  GBX_ASSIGN(Fd dir, open_dir(path));
  return std::unique_ptr<Report>(std::make_unique<ConfigfsReport>(std::move(dir)));
}

Result<std::unique_ptr<TsmAttester>> TsmAttester::create(std::unique_ptr<Report> report,
                                                         std::string event_log) {
  GBX_ASSIGN(const Bytes provider, report->read("provider", kMaxText));
  GBX_ASSIGN(const records::Technology technology, technology_of(trimmed(provider)));
  return std::unique_ptr<TsmAttester>(
      new TsmAttester(std::move(report), std::move(event_log), technology));
}

Result<std::uint64_t> TsmAttester::generation() {
  GBX_ASSIGN(const Bytes bytes, report_->read("generation", kMaxText));
  const std::string text = trimmed(bytes);
  std::uint64_t out = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, out);
  if (error != std::errc{} || at != end) {
    return fail(Reason::kBadValue, "generation of a report").with("a number", text);
  }
  return out;
}

Result<std::optional<Bytes>> TsmAttester::try_once(const FixedBytes<64>& report_data) {
  GBX_ASSIGN(const std::uint64_t before, generation());
  GBX_TRY(report_->write("inblob", report_data));
  auto quote = report_->read("outblob", tdx::kMaxQuoteBytes);
  GBX_ASSIGN(const std::uint64_t after, generation());
  // Every write counts one, and ours was one. Looked at first: the read fails, too, when somebody
  // writes meanwhile.
  if (after != before + 1) return std::optional<Bytes>();
  // The host's quoting service may be busy or away, which the driver says with several errors.
  if (!quote.ok()) return fail(Reason::kUnavailable, quote.error().line()).hint("ask again");
  return std::optional(std::move(*quote));
}

Result<Quoted> TsmAttester::quote(const FixedBytes<64>& report_data) {
  for (int i = 0; i < kTries; ++i) {
    GBX_ASSIGN(const std::optional<Bytes> raw, try_once(report_data));
    if (!raw) continue;
    Quoted out;
    out.quote = *raw;
    if (technology_ == records::Technology::kTdx) {
      const auto exact = tdx::without_padding(*raw);
      if (!exact.ok()) return rejected("own quote", exact.error());
      out.quote = to_bytes(*exact);
      add_event_log(event_log_, out);
    }
    GBX_TRY(check_own_quote(technology_, out.quote, report_data));
    return out;
  }
  return fail(Reason::kUnavailable, "another program writes to this guest's report all the time")
      .with("its own quote after " + std::to_string(kTries) + " tries", "none")
      .hint("nothing but the agent may use configfs-tsm in a guest");
}

}  // namespace gbx::attest::tsm
