// OCI images for Glovebox: reading an image layout, verifying every blob, and unpacking its layers
// into a rootfs. Everything here is untrusted input: the layout is verified by digest, but its
// author may be hostile, so every path, size and count is checked. Unpacking belongs in
// unpack_confined(), which does it in a keyless child. Descriptors are borrowed. Functions keep no
// state and may run on any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace gbx::oci {

struct Layer {
  std::string media_type;
  std::string digest;   // of the blob as it is stored: "sha256:" and 64 hex digits
  std::string diff_id;  // of the tar inside
  std::uint64_t size = 0;
  bool gzip = false;
};

struct ImageInfo {
  std::string manifest_digest;  // the identity of the image: "sha256:…"
  std::string config_digest;
  std::vector<Layer> layers;  // lowest first
  std::vector<std::string> entrypoint;
  std::vector<std::string> cmd;
  std::vector<std::string> env;  // "NAME=value"
  std::string workdir;
  std::uint64_t blob_bytes = 0;  // config and layers together, as stored
};

struct UnpackLimits {
  std::uint64_t max_layers = 64;
  std::uint64_t max_entries = 400'000;                // tar entries over all layers
  std::uint64_t max_bytes = std::uint64_t{16} << 30;  // unpacked tar bytes over all layers
  // unpacked : stored, for layers that unpack to more than
  std::uint64_t max_ratio = 100;
  std::uint64_t ratio_floor = std::uint64_t{1} << 30;  // this many bytes
  std::uint64_t max_depth = 100;                       // components of a path
};

struct UnpackOptions {
  // refused before anything is unpacked when the layout holds another image
  std::string expected_digest;
  // container id n becomes host id uid_base + n; ids in a tar stay below 65536
  std::uint32_t uid_base = 0;
  UnpackLimits limits;
  bool hash = true;  // reckon root_hash; unpack_confined() does it itself
};

struct UnpackedImage {
  ImageInfo image;
  Hash32 root_hash{};  // unpackedRootHash of the protocol: hash_tree() of the result
  std::uint64_t entries = 0;
  std::uint64_t bytes = 0;           // file content that was written
  std::uint64_t stripped_setid = 0;  // files and directories that lost setuid or setgid
  // extended attributes, file capabilities among them, that were not applied
  std::uint64_t dropped_xattrs = 0;
};

// Reads oci-layout, index.json, manifest and config, and verifies all but the layers' content,
// whose sizes are checked. Errors: kImageRefused with the check that failed, kImageDigestMismatch
// for a blob that is not its digest.
Result<ImageInfo> inspect(int layout_fd);
Result<ImageInfo> inspect(const std::string& layout_path);

// Unpacks into the empty directory target_fd, in this process. Whatever is written before an error
// stays there, for the caller to remove. Needs CAP_CHOWN, CAP_FOWNER and CAP_DAC_OVERRIDE when
// uid_base is not 0. What tar entries may be is listed in tar.h; setuid and setgid bits are
// stripped, extended attributes dropped, devices, fifos and sockets refused. Nothing is reached
// through a symbolic link: all paths resolve with openat2.
Result<UnpackedImage> unpack(int layout_fd, int target_fd, const UnpackOptions& options);

// The same in `glovebox-unpack` (beside the running program, or GBX_BIN_DIR in tests via
// `program`): a child without keys that holds three capabilities, sees two directories and can call
// some forty system calls. What it reports is not believed: the manifest's bytes are held against
// the digest here before it starts, and the tree is hashed after it is dead. Neither parses the
// image; of `image` only manifest_digest is filled in.
struct ConfinedOptions {
  std::string program;  // empty: program_dir()/glovebox-unpack
  std::int64_t timeout_ms = 600'000;
};
Result<UnpackedImage> unpack_confined(int layout_fd, int target_fd, const UnpackOptions& options,
                                      const ConfinedOptions& confined = {});

// SHA-256 over a canonical listing of a tree. With u32/u64 little-endian and strings as u32 length
// + bytes:
//   "gbx/1/rootfs\0", then for each entry below the directory, sorted by the bytes of its path:
//   path, u8 'd' | 'f' | 'l', u32 mode (permission and sticky bits; links: 0), then
//   f: u64 size, SHA-256 of the content · l: target · d: nothing;
// and at last u64 number of entries. Owners and times are left out: they depend on the machine.
// kImageRefused for anything but directories, files and links.
Result<Hash32> hash_tree(int dir_fd);

// JSON between glovebox-unpack and its parent; exposed for the program and its tests.
std::string result_to_json(const Result<UnpackedImage>& result);
Result<UnpackedImage> result_from_json(std::string_view text);

}  // namespace gbx::oci
