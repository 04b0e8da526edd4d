// Runs a fuzz target over every file of a seed corpus. An empty corpus is a failure.
#include <cstdint>
#include <cstdio>
#include <filesystem>

#include "base/os.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

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
    LLVMFuzzerTestOneInput(input->data(), input->size());
    ++seeds;
  }
  std::printf("%d seeds\n", seeds);
  return seeds > 0 ? 0 : 1;
}
