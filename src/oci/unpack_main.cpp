// glovebox-unpack: unpacks one image in a confined process without keys (confine.h says how it is
// confined).
//   descriptors  3: the layout directory · 4: the empty target directory · 5: where the result goes
//   arguments    expected digest, uid base, then the limits of UnpackLimits in their order
// Writes one JSON object (result_to_json) and exits 0 when it could be written, whatever it says.
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <string_view>

#include "base/inner_program.h"
#include "base/os.h"
#include "oci/confine.h"
#include "oci/oci.h"

namespace {

using namespace gbx;

constexpr int kLayoutFd = 3;
constexpr int kTargetFd = 4;
constexpr int kResultFd = 5;

Result<std::uint64_t> number(std::string_view text) {
  std::uint64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc{} || end != text.data() + text.size()) {
    return fail(Reason::kUsage, "not a number: " + std::string(text));
  }
  return v;
}

Result<oci::UnpackOptions> parse_arguments(int argc, char** argv) {
  if (argc != 9) {
    return fail(Reason::kUsage, "glovebox-unpack is started by other programs of Glovebox");
  }
  oci::UnpackOptions o;
  o.expected_digest = argv[1];
  GBX_ASSIGN(const std::uint64_t uid_base, number(argv[2]));
  if (uid_base > UINT32_MAX) return fail(Reason::kUsage, "uid base is out of range");
  o.uid_base = static_cast<std::uint32_t>(uid_base);
  GBX_ASSIGN(o.limits.max_layers, number(argv[3]));
  GBX_ASSIGN(o.limits.max_entries, number(argv[4]));
  GBX_ASSIGN(o.limits.max_bytes, number(argv[5]));
  GBX_ASSIGN(o.limits.max_ratio, number(argv[6]));
  GBX_ASSIGN(o.limits.ratio_floor, number(argv[7]));
  GBX_ASSIGN(o.limits.max_depth, number(argv[8]));
  if (o.limits.max_ratio == 0) return fail(Reason::kUsage, "the ratio is zero");
  return o;
}

Result<oci::UnpackedImage> run(int argc, char** argv) {
  GBX_TRY(harden_process());
  GBX_ASSIGN(oci::UnpackOptions options, parse_arguments(argc, argv));
  options.hash = false;  // the parent would not believe it
  GBX_TRY(oci::confine({kLayoutFd, kTargetFd, options.limits.max_bytes}));
  return oci::unpack(kLayoutFd, kTargetFd, options);
}

}  // namespace

#if defined(__SANITIZE_ADDRESS__)
// The leak check traces its own process, which a confined one cannot.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

int main(int argc, char** argv) {
  int status = 0;
  const char* what = "glovebox-unpack unpacks one container image; the agent starts it";
  if (answered_person(argc, argv, what, &status)) return status;
  const std::string text = oci::result_to_json(run(argc, argv));
  if (!write_all(kResultFd, as_bytes(text)).ok()) {
    (void)!write(2, "glovebox-unpack: no result descriptor\n", 38);
    return 1;
  }
  return 0;
}
