// Reading folders that hostile code filled: by descriptor, beneath a root, never following a link,
// never blocking on a FIFO, never expanding a sparse file. Nothing here trusts a name, a size or a
// type before the kernel has confirmed it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "gate/records.h"

namespace gbx::gate {

struct FolderEntry {
  std::string name;
  std::uint32_t mode = 0;
  std::uint64_t links = 0;
  std::uint64_t size = 0;
};
// Calls `visit` for each entry of an open directory until it returns false.
Status for_each_entry(int dir_fd, const std::function<bool(const FolderEntry&)>& visit);

struct StructureFinding {
  GateReason reason = GateReason::kUnreadable;
  std::string output;  // the declared name, or empty for what nobody declared
};
struct LoadedFile {
  bool found = false;
  Bytes bytes;
};
struct LoadedFolder {
  std::vector<LoadedFile> files;  // one per declaration, same order
  std::vector<StructureFinding> findings;
};
inline constexpr std::size_t kMaxFindings = 16;
// Reads the declared files and reports everything else that lies there; stops at kMaxFindings. An
// Error means that the folder itself could not be read.
Result<LoadedFolder> load_outputs(int out_fd, const std::vector<OutputDeclaration>& outputs,
                                  std::int64_t max_bytes);

// Feeds every regular file beneath `dir_fd`, in chunks. Links and special files are passed over.
struct FileSink {
  std::function<void()> begin;
  std::function<void(ByteView)> data;
  std::function<void()> end;
};
Status stream_files(int dir_fd, const FileSink& sink);
// The same of one file beneath it; kNotFound when it is not a regular file.
Status stream_file(int dir_fd, const std::string& path, const std::function<void(ByteView)>& data);

}  // namespace gbx::gate
