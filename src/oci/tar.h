// A strict tar reader for hostile input: ustar and GNU headers, pax records, GNU long names.
// Internal to src/oci. Accepted: directories, regular files, hard links, symbolic links. Refused,
// each with its own words: bad checksums, devices, fifos, sparse and unknown types, absolute paths,
// "..", "." or empty components, NULs, base-256 or signed numbers, unknown or repeated pax keys,
// global pax headers, non-zero padding, a missing end, anything after the end.
#pragma once

#include <optional>
#include <string>

#include "oci/source.h"

namespace gbx::oci {

enum class TarType { kFile, kDirectory, kHardLink, kSymlink };

struct TarEntry {
  TarType type = TarType::kFile;
  std::string path;  // relative, normalised; empty: the root itself
  std::string link;  // hard link: normalised like path; symbolic link: as it is
  std::uint64_t size = 0;
  std::uint32_t mode = 0;  // the low twelve bits
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::int64_t mtime = 0;
  std::uint64_t xattrs = 0;  // extended attributes that the entry carries
};

struct TarLimits {
  std::uint64_t max_entries = 400'000;
  std::uint64_t max_depth = 100;
};

class TarReader {
 public:
  TarReader(Source& source, TarLimits limits) : source_(source), limits_(limits) {}
  // The next entry, or nothing at a proper end, up to which every byte was read. What is left of
  // the previous entry's content is skipped. Every error is kImageRefused or the source's own.
  Result<std::optional<TarEntry>> next();
  // Content of the current entry; 0 at its end.
  Result<std::size_t> read(MutableByteView out);
  std::uint64_t entries() const { return entries_; }

 private:
  struct Pending {  // what pax and GNU headers say about the entry that follows
    std::optional<std::string> path;
    std::optional<std::string> link;
    std::optional<std::uint64_t> size;
    std::uint64_t xattrs = 0;
    bool any = false;
  };
  using Block = FixedBytes<512>;
  Result<bool> read_block(Block& block);  // false at the end of the source
  Status skip_content();
  Status check_end();
  Result<Bytes> meta_content(std::uint64_t size);
  Status read_pax(std::uint64_t size, Pending& pending);
  Status pax_record(std::string_view key, std::string_view value, Pending& pending);
  Status read_gnu_name(char kind, std::uint64_t size, Pending& pending);
  Result<TarEntry> make_entry(const Block& block, Pending& pending);

  Source& source_;
  TarLimits limits_;
  std::uint64_t left_ = 0;     // content of the current entry not yet read
  std::uint64_t padding_ = 0;  // after it
  std::uint64_t entries_ = 0;
  bool ended_ = false;
};

// Normalises a path of a tar: no leading "./", no trailing "/". kImageRefused as listed above.
Result<std::string> tar_path(std::string_view raw, std::uint64_t max_depth);

}  // namespace gbx::oci
