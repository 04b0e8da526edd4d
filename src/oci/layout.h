// Reading blobs of an image layout by digest. Internal to src/oci.
#pragma once

#include "base/os.h"
#include "oci/oci.h"

namespace gbx::oci {

// Opens blobs/sha256/<hex> beneath the layout: a regular file of exactly that size, reached through
// no link.
Result<Fd> open_blob(int layout_fd, const std::string& digest, std::uint64_t size);
// The hash in "sha256:<64 hex digits>"; any other algorithm or form is kImageRefused.
Result<Hash32> digest_hash(std::string_view digest);

// Is the blob that `digest` names there, and is it what it names? Hashed only: nothing of it is
// parsed. Errors: kImageDigestMismatch.
Status check_manifest_digest(int layout_fd, const std::string& digest);

// From untrusted JSON; exposed for fuzzing. `manifest` must be what `digest` names.
struct Manifest {
  std::string config_digest;
  std::uint64_t config_size = 0;
  std::vector<Layer> layers;
};
Result<Manifest> parse_manifest(std::string_view text);
// Fills entrypoint, cmd, env, workdir and the diff ids of `image.layers`.
Status parse_config(std::string_view text, ImageInfo& image);

}  // namespace gbx::oci
