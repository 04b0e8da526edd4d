// Objects of an S3 bucket, read by ranges: what a machine's volume reads its ciphertext from where
// no directory has it (docs/s3.md). The service is trusted with availability only, like every
// store; an answer that is not exactly what was asked for is refused, and nothing that it does
// makes a call outlast its patience. Thread-safe. libcurl stays behind this header.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/seams.h"
#include "storage/object_store.h"
#include "storage/s3/answer.h"
#include "storage/s3/signing.h"

namespace gbx::storage {

inline constexpr std::size_t kMaxS3ConfigBytes = 16U << 10;
inline constexpr int kS3Attempts = 4;

struct S3Place {
  std::string bucket;
  std::string prefix;  // empty, or ends with a slash
};
// "s3://bucket/prefix". kUsage for what is none, or has characters that S3 keys would need encoded.
Result<S3Place> s3_place(std::string_view text);

struct S3Options {
  std::string endpoint;  // https://host[:port]; http:// for an address of this machine only
  S3Credentials credentials;
  S3Place place;
  std::string ca_file;  // PEM; empty: those of the system
  // A whole call, with everything that is tried again; and how long so little may come that it
  // counts as nothing (1 KiB/s).
  std::int64_t patience_ms = 60'000;
  std::int64_t stall_ms = 10'000;
  std::int64_t first_pause_ms = 200;  // doubles with each further try
};
// The file of --s3-config: lines `name = value` with endpoint, region, access-key, secret-key and,
// where wanted, ca-file. Only its owner may read it. kBadValue, kMissingField, kDuplicateKey,
// kUnknownField; and those of read_private_file().
Result<S3Options> s3_options(const std::string& config_file, S3Place place);
// The content of such a file.
Result<S3Options> parse_s3_config(ByteView content);

class S3Store final : public ObjectStore {
 public:
  // `clock` outlives it.
  static Result<std::unique_ptr<S3Store>> open(S3Options options, const Clock& clock);
  ~S3Store() override;

  // Besides the errors of every store: kUnavailable when the service does not answer in time, is
  // too busy or refuses our key; kBadStructure for an answer that is not what was asked for.
  Status get(const std::string& name, std::uint64_t offset, MutableByteView out) override;
  Result<std::uint64_t> size(const std::string& name) override;
  // kUnsupported: it is read only; objects get there by the service's own tools.
  Result<std::unique_ptr<ObjectWriter>> create(const std::string& name) override;
  Status list(const std::function<Status(const std::string&)>& each) override;
  Status remove(const std::string& name) override;

 private:
  class Handle;
  S3Store(S3Options options, const Clock& clock);
  struct Tried {
    Status status;
    bool again = false;  // another try may end otherwise
  };
  S3Request request_of(const std::string& name, const S3Answer& answer) const;
  Tried try_once(const std::string& name, S3Answer& answer, std::int64_t left_ms);
  std::unique_ptr<Handle> take_handle();
  void give_back(std::unique_ptr<Handle> handle);
  Status perform(const std::string& name, S3Answer& answer);

  const S3Options options_;
  const Clock& clock_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Handle>> idle_;  // guarded by mutex_; their connections stay open
};

// A directory, or s3://bucket/prefix with the file that says how to reach it. kUsage for one
// without the other.
Result<std::unique_ptr<ObjectStore>> open_objects(const std::string& where,
                                                  const std::string& s3_config, const Clock& clock);
bool is_s3(std::string_view where);

}  // namespace gbx::storage
