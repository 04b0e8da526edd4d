// Runs a fuzz target over every file of a seed corpus. An empty corpus is a failure, and so is a
// seed called NAME_full, NAME_least or NAME_signed that its reader does not accept.
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "base/os.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {
bool names_a_document(const std::string& seed) {
  return seed.ends_with("_full") || seed.ends_with("_least") || seed.ends_with("_signed");
}
}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
    return 2;
  }
  int seeds = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1], error)) {
    const auto input = gbx::read_file(entry.path().string(), 1U << 24);
    if (!input.ok()) {
      std::fprintf(stderr, "%s\n", input.error().line().c_str());
      return 1;
    }
    gbx::fuzz::document_accepted = false;
    LLVMFuzzerTestOneInput(input->data(), input->size());
    if (names_a_document(entry.path().filename()) && !gbx::fuzz::document_accepted) {
      std::fprintf(stderr,
                   "%s is no document of its kind any more: scripts/fuzz --seeds writes it anew\n",
                   entry.path().c_str());
      return 1;
    }
    ++seeds;
  }
  std::printf("%d seeds\n", seeds);
  return seeds > 0 ? 0 : 1;
}
