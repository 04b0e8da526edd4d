// Several byte streams over one untrusted byte stream, between the agent and its node. The peer may
// send anything.
//
// Frame: u8 kind << 6 | stream, u32 length (little-endian), payload of that length.
//   kind 0 data     1 .. 65,536 bytes, never more than the receiver has credited
//   kind 1 end      no payload; the sender sends no more on this stream; once, until Mux::fresh()
//   kind 2 credit   u32: bytes taken out of the receiver's buffer; 1 to what was sent
// Each direction of each stream starts with kMuxWindow bytes of credit, so a receiver always has
// room for what may come, a reader who is slow stops only his own stream, and nothing waits for the
// other end's application to read. Any other frame is an error that ends all streams. Secrecy and
// integrity come from TLS inside a stream.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "channel/stream.h"

namespace gbx::channel {

inline constexpr std::size_t kMuxMaxPayload = 64U << 10;
inline constexpr std::uint32_t kMuxWindow = 256U << 10;
inline constexpr std::size_t kMuxMaxStreams = 64;
inline constexpr std::size_t kMuxStreams = 16;  // that an agent and its node have

// What streams are for. JSON frames (write_json, read_json, RpcClient, serve)
inline constexpr std::size_t kMuxControl = 0;
// opaque bytes of TLS, relayed by the node. Each connection starts with Mux::fresh()
inline constexpr std::size_t kMuxBroker = 1;

struct MuxFrame {
  enum class Kind : std::uint8_t { kData = 0, kEnd = 1, kCredit = 2 };
  Kind kind = Kind::kData;
  std::size_t stream = 0;
  std::uint32_t size = 0;
};
inline constexpr std::size_t kMuxHeaderSize = 5;
FixedBytes<kMuxHeaderSize> encode_mux_header(const MuxFrame& frame);
// kBadStructure for an unknown kind, a stream at or beyond `streams`, and a length that the kind
// does not have.
Result<MuxFrame> decode_mux_header(const FixedBytes<kMuxHeaderSize>& header, std::size_t streams);

class Mux;

// One logical stream. One thread may read while another writes. finish() ends this direction;
// close() gives up both: what still arrives is dropped. Both send a frame, which takes at most
// MuxOptions::write_ms. Valid as long as its Mux.
class MuxStream final : public ByteStream {
 public:
  Result<std::size_t> read(MutableByteView out, Deadline deadline) override;
  Status write_all(ByteView bytes, Deadline deadline) override;
  Status finish(Deadline deadline) override;
  void close() override;

 private:
  friend class Mux;
  MuxStream(Mux& mux, std::size_t number) : mux_(mux), number_(number), received_(kMuxWindow) {}

  Mux& mux_;
  const std::size_t number_;
  // Guarded by mux_.mutex_.
  BoundedBuffer received_;
  std::uint32_t owed_credit_ = 0;           // taken out of received_, not yet told to the peer
  std::uint32_t peer_credit_ = kMuxWindow;  // what the peer may still send
  std::uint32_t credit_ = kMuxWindow;       // what this side may still send
  bool peer_ended_ = false;
  bool ended_ = false;
  bool closed_ = false;
};

struct MuxOptions {
  std::size_t streams = kMuxStreams;  // numbers 0 .. streams-1 exist; both ends say the same
  std::int64_t write_ms = 60'000;     // for the stream below to take one frame
};

class Mux {
 public:
  // `below` and `clock` must outlive the Mux. Starts a thread that receives.
  Mux(ByteStream& below, const Clock& clock, MuxOptions options = {});
  ~Mux();  // close(), and waits for the thread
  Mux(const Mux&) = delete;
  Mux& operator=(const Mux&) = delete;
  MuxStream& stream(std::size_t number) { return *streams_.at(number); }
  // The same for a new conversation: never used, or ended by both sides, and then it starts anew;
  // kWrongState otherwise, kBadValue for a number that does not exist. No frame of the conversation
  // before may still be on its way, so: one side ends it and asks, on another stream, for a new
  // one; the other ends it too, calls this and answers; the first one calls this and is the first
  // to send. Nobody else may be using the stream.
  Result<MuxStream*> fresh(std::size_t number);
  // Ends all streams and closes the stream below. From any thread.
  void close();
  // Ok while it works; otherwise why it ended: what the peer did wrong, or kConnectionClosed.
  Status state() const;
  // Waits for the end, at most until the deadline (kTimedOut); then what state() says.
  Status wait_end(Deadline deadline) const;

 private:
  friend class MuxStream;
  void receive_loop();
  Status receive_one();
  Status receive_payload(const MuxFrame& frame);
  Status accept_header(const MuxFrame& frame);
  Status read_below(MutableByteView out, bool* at_end);
  // `lock` holds mutex_ and comes back unlocked: frames leave in the order in which callers had the
  // lock.
  Status send_frame(std::unique_lock<std::mutex>& lock, const MuxFrame& frame, ByteView payload);
  Status end_stream(MuxStream& s);
  void fail_all(const Error& error);

  // Constant after construction.
  ByteStream& below_;
  const Clock& clock_;
  const MuxOptions options_;
  std::vector<std::unique_ptr<MuxStream>> streams_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  Status state_ = ok_status();     // guarded by mutex_
  std::uint64_t next_ticket_ = 0;  // guarded by mutex_: whose turn it is to write below,
  std::uint64_t serving_ = 0;      // in the order of asking, so no stream starves another
  std::thread receiver_;
};

}  // namespace gbx::channel
