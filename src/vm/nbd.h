// The server's side of the NBD protocol, over one peer that it does not trust: fixed newstyle
// handshake, one read-only export, simple replies, requests answered one after the other
// (github.com/NetworkBlockDevice/nbd, doc/proto.md). No threads and no descriptors here, so that it
// can be fuzzed; nbd_server.h has those.
#pragma once

#include "base/bytes.h"

namespace gbx::vm {

// What a volume consists of. Used by one thread.
class VolumeSource {
 public:
  virtual ~VolumeSource() = default;
  // Never changes.
  virtual std::uint64_t size() const = 0;
  // Fills `out`; the caller stays within size(). A failure is an I/O error to the machine.
  virtual Status read(std::uint64_t offset, MutableByteView out) = 0;
};

// The other end. kConnectionClosed when it has gone, or we are to end; kTimedOut when it stopped
// in the middle of something.
class NbdPeer {
 public:
  virtual ~NbdPeer() = default;
  enum class Wait { kInTheMiddle, kForTheNext };
  // Fills `out`. kForTheNext: may wait as long as the peer likes for the first byte.
  virtual Status read(MutableByteView out, Wait wait) = 0;
  virtual Status write(ByteView bytes) = 0;
};

inline constexpr std::size_t kMaxNbdRequest = 32U << 20;
inline constexpr std::size_t kMaxNbdOptionBytes = 8192;
inline constexpr int kMaxNbdOptions = 32;

// Until the peer says that it ends, or goes. Errors: what it did against the protocol (kBadMagic,
// kBadValue, kTooLarge), or why it could not be heard (kTimedOut, kIo).
Status serve_nbd(NbdPeer& peer, VolumeSource& source);

}  // namespace gbx::vm
