// The folder of `glovebox up`, which root owns, and the folders of the services in it, each owned
// by its own user id. A service may be taken over: whatever lies in its folder is hostile input.
// Root follows no link there, reads only regular files of that service, and never changes the owner
// of what it did not open itself. One process at a time: the folder is locked while this object
// lives.
#pragma once

#include <optional>
#include <string>

#include "base/os.h"
#include "records/set.h"

namespace gbx::cli {

class UpState {
 public:
  // Who, beside root, may own the folders above: whoever called sudo is root when they like.
  struct Trusted {
    uid_t user = 0;
    gid_t group = 0;
  };
  // Makes the folder when it is not there. kConflict while another `glovebox up` runs on it, when
  // it is somebody else's, and when somebody else could replace it.
  static Result<UpState> open(const std::string& wanted, const Trusted& trusted);
  const std::string& path() const { return path_; }  // absolute, without links
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // The owner of a folder in it; nothing when it is not there or root's.
  Result<std::optional<uid_t>> owner_of(const std::string& name) const;
  // Makes `name` or takes it over from root; kConflict when it belongs to another user id or is no
  // folder.
  Status folder(const std::string& name, uid_t owner, mode_t mode) const;
  // Of a regular file that `owner` wrote into its folder `folder`.
  Result<Bytes> read_of(const std::string& folder, const std::string& name, uid_t owner,
                        std::size_t limit) const;
  // Whether `folder` is there and has this name in it; an error when it is no folder.
  Result<bool> has(const std::string& folder, const std::string& name) const;
  // A file of root's in the folder itself; appears whole.
  Status write(const std::string& name, const std::string& text, mode_t mode,
               uid_t owner = 0) const;
  Status remove(const std::string& name) const;

 private:
  UpState() = default;
  Result<Fd> open_folder(const std::string& name) const;
  std::string path_;
  Fd dir_;
  Fd lock_;
};

// The broker's key set as it may be published: read as a set's chain, held against its own id,
// written anew.
Result<std::string> publishable_set(ByteView file, const std::string& set_id);

// Who signs releases for the key set in this file; nobody for one that was made without. What it
// says is not held against its id: publishable_set() does that.
Result<std::vector<std::string>> release_signers(ByteView file);

// Where clients reach what is bound to `bound`: by the first of the names for the certificate; a
// wildcard address is reached by this machine's loopback when there is no name.
Result<std::string> reachable(const std::string& bound, const std::vector<std::string>& names);

}  // namespace gbx::cli
