// bench-publish SOURCE STORE STATE INFO: publishes SOURCE once into the directory store STORE and
// prints how long that took as JSON; INFO gets what bench-mount needs. The same call that `glovebox
// asset publish` makes, with the same syncing.
#include <cstdio>

#include "asset/publish.h"
#include "base/os.h"
#include "base/seams.h"
#include "bench_asset.h"
#include "storage/directory_store.h"

namespace {

using namespace gbx;

Status run(const std::string& source, const std::string& store_path, const std::string& state,
           const std::string& info) {
  const SystemClock clock;
  SystemRandom random;
  GBX_ASSIGN(const auto store, storage::DirectoryStore::open(store_path));
  asset::PublishOptions options;
  options.source = source;
  options.state_dir = state;
  options.name = "bench";
  const std::int64_t began = clock.steady_ms();
  GBX_ASSIGN(const asset::PublishResult result, asset::publish(std::move(options), *store, random));
  GBX_TRY(remove_tree(state));
  const std::int64_t took = clock.steady_ms() - began;
  const bench::PublishedAsset published{result.record, to_bytes(result.key.view(SecretAccess{}))};
  GBX_TRY(write_file_atomic(info, as_bytes(canonical(to_json(published))), 0600));
  std::printf("{\"ms\":%lld,\"bytes\":%llu,\"files\":%llu,\"objects\":%llu}\n",
              static_cast<long long>(took), static_cast<unsigned long long>(result.bytes),
              static_cast<unsigned long long>(result.files),
              static_cast<unsigned long long>(result.objects_written));
  return ok_status();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: %s SOURCE STORE STATE INFO\n", argv[0]);
    return 2;
  }
  const Status status = run(argv[1], argv[2], argv[3], argv[4]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.error().line().c_str());
  return status.ok() ? 0 : 1;
}
