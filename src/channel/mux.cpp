#include "channel/mux.h"

#include <algorithm>
#include <cstdlib>

#include "base/threads.h"

namespace gbx::channel {
namespace {

// Data frames are cut smaller than allowed, so that a bulk transfer delays the other streams less.
constexpr std::size_t kPiece = 16U << 10;
// Credit is told when this much has been read, to save frames.
constexpr std::uint32_t kCreditStep = kMuxWindow / 4;
// How long the receiver sleeps at once. It wakes for bytes and for close(); this only bounds the
// wait.
constexpr std::int64_t kReceiveMs = 60'000;

Error protocol_error(const char* what, std::size_t stream) {
  return fail(Reason::kBadStructure,
              std::string("mux: ") + what + " on stream " + std::to_string(stream));
}

}  // namespace

FixedBytes<kMuxHeaderSize> encode_mux_header(const MuxFrame& frame) {
  ByteWriter w;
  w.u8(static_cast<std::uint8_t>(static_cast<unsigned>(frame.kind) << 6 | frame.stream));
  w.u32(frame.size);
  FixedBytes<kMuxHeaderSize> out{};
  std::copy(w.bytes().begin(), w.bytes().end(), out.begin());
  return out;
}

Result<MuxFrame> decode_mux_header(const FixedBytes<kMuxHeaderSize>& header, std::size_t streams) {
  ByteReader reader(header);
  GBX_ASSIGN(const std::uint8_t first, reader.u8());
  MuxFrame f;
  GBX_ASSIGN(f.size, reader.u32());
  f.stream = first & 0x3F;
  if (f.stream >= streams) return protocol_error("unknown stream:", f.stream);
  bool size_ok = false;
  switch (first >> 6) {
    case 0:
      f.kind = MuxFrame::Kind::kData;
      size_ok = f.size >= 1 && f.size <= kMuxMaxPayload;
      break;
    case 1:
      f.kind = MuxFrame::Kind::kEnd;
      size_ok = f.size == 0;
      break;
    case 2:
      f.kind = MuxFrame::Kind::kCredit;
      size_ok = f.size == 4;
      break;
    default:
      return protocol_error("unknown kind of frame", f.stream);
  }
  if (!size_ok) return protocol_error("length that its kind of frame does not have", f.stream);
  return f;
}

Mux::Mux(ByteStream& below, const Clock& clock, MuxOptions options)
    : below_(below), clock_(clock), options_(options) {
  // a mistake in the program
  if (options_.streams == 0 || options_.streams > kMuxMaxStreams) std::abort();
  for (std::size_t i = 0; i < options_.streams; ++i) {
    streams_.push_back(std::unique_ptr<MuxStream>(new MuxStream(*this, i)));
  }
  auto receiver = start_thread([this] { receive_loop(); });
  if (receiver.ok()) {
    receiver_ = std::move(*receiver);
  } else {
    fail_all(receiver.error());  // every stream says so
  }
}

Mux::~Mux() {
  close();
  if (receiver_.joinable()) receiver_.join();
}

Result<MuxStream*> Mux::fresh(std::size_t number) {
  if (number >= streams_.size()) return fail(Reason::kBadValue, "mux: number of a stream");
  const std::lock_guard lock(mutex_);
  MuxStream& s = *streams_[number];
  if (s.ended_ != s.peer_ended_) {
    return fail(Reason::kWrongState, "mux: a stream that one side has not ended");
  }
  if (!s.ended_) return &s;
  s.received_ = BoundedBuffer(kMuxWindow);
  s.owed_credit_ = 0;
  s.peer_credit_ = s.credit_ = kMuxWindow;
  s.peer_ended_ = s.ended_ = s.closed_ = false;
  return &s;
}

void Mux::close() { fail_all(fail(Reason::kConnectionClosed, "the mux was closed on this side")); }

void Mux::fail_all(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (state_.ok()) state_ = error;  // the first error is the cause
    changed_.notify_all();
  }
  below_.close();
}

Status Mux::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

Status Mux::wait_end(Deadline deadline) const {
  std::unique_lock lock(mutex_);
  if (!deadline.wait(changed_, lock, [&] { return !state_.ok(); })) {
    return fail(Reason::kTimedOut, "the mux still runs");
  }
  return state_;
}

void Mux::receive_loop() {
  for (;;) {
    Status s = receive_one();
    if (!s.ok()) {
      fail_all(s.error());
      return;
    }
  }
}

// Fills `out`, waiting as long as the mux lives: how long silence may last is for those who read
// the streams to say.
Status Mux::read_below(MutableByteView out, bool* at_end) {
  std::size_t done = 0;
  while (done < out.size()) {
    auto n = below_.read(out.subspan(done), Deadline::after_ms(clock_, kReceiveMs));
    if (!n.ok() && n.reason() == Reason::kTimedOut) continue;
    if (!n.ok()) return n.error();
    if (*n == 0) {
      if (done == 0 && at_end != nullptr) {
        *at_end = true;
        return ok_status();
      }
      return fail(Reason::kTruncated, "mux: the stream ended within a frame");
    }
    done += *n;
  }
  return ok_status();
}

Status Mux::receive_one() {
  FixedBytes<kMuxHeaderSize> header{};
  bool at_end = false;
  GBX_TRY(read_below(header, &at_end));
  if (at_end) return fail(Reason::kConnectionClosed, "mux: the peer ended the stream");
  GBX_ASSIGN(const MuxFrame frame, decode_mux_header(header, options_.streams));
  GBX_TRY(accept_header(frame));
  return receive_payload(frame);
}

// Everything that can be refused is refused before the payload is read.
Status Mux::accept_header(const MuxFrame& frame) {
  const std::lock_guard lock(mutex_);
  MuxStream& s = *streams_[frame.stream];
  switch (frame.kind) {
    case MuxFrame::Kind::kData:
      if (s.peer_ended_) return protocol_error("data after the end", frame.stream);
      if (frame.size > s.peer_credit_) return protocol_error("more data than credit", frame.stream);
      s.peer_credit_ -= frame.size;
      return ok_status();
    case MuxFrame::Kind::kEnd:
      if (s.peer_ended_) return protocol_error("second end", frame.stream);
      s.peer_ended_ = true;
      changed_.notify_all();
      return ok_status();
    case MuxFrame::Kind::kCredit:
      return ok_status();
  }
  return protocol_error("unknown kind of frame", frame.stream);
}

Status Mux::receive_payload(const MuxFrame& frame) {
  Bytes payload(frame.size);
  GBX_TRY(read_below(payload, nullptr));
  const std::lock_guard lock(mutex_);
  MuxStream& s = *streams_[frame.stream];
  if (frame.kind == MuxFrame::Kind::kData) {
    // Bytes for a stream given up here are dropped and never credited: the peer stops at its
    // window.
    if (!s.closed_ && s.received_.write(payload) != payload.size()) {
      return protocol_error("no room", frame.stream);
    }
  } else if (frame.kind == MuxFrame::Kind::kCredit) {
    ByteReader reader(payload);
    GBX_ASSIGN(const std::uint32_t more, reader.u32());
    if (more == 0 || more > kMuxWindow - s.credit_) {
      return protocol_error("credit for bytes that were not sent", frame.stream);
    }
    s.credit_ += more;
  }
  changed_.notify_all();
  return ok_status();
}

// One frame, in turn. A failure here may have cut a frame in two, so it ends the mux.
Status Mux::send_frame(std::unique_lock<std::mutex>& lock, const MuxFrame& frame,
                       ByteView payload) {
  const std::uint64_t ticket = next_ticket_++;
  // Each turn before this one is bounded by write_ms, or ends the mux.
  changed_.wait(lock, [&] { return serving_ == ticket || !state_.ok(); });
  if (!state_.ok()) {
    Status s = state_;
    lock.unlock();
    return s;
  }
  lock.unlock();
  Status s = below_.write_all(concat({encode_mux_header(frame), payload}),
                              Deadline::after_ms(clock_, options_.write_ms));
  if (!s.ok()) {
    fail_all(s.error());
    return s;
  }
  const std::lock_guard again(mutex_);
  ++serving_;
  changed_.notify_all();
  return s;
}

Status Mux::end_stream(MuxStream& s) {
  std::unique_lock lock(mutex_);
  if (s.ended_) return ok_status();
  s.ended_ = true;
  changed_.notify_all();
  return send_frame(lock, {MuxFrame::Kind::kEnd, s.number_, 0}, {});
}

Result<std::size_t> MuxStream::read(MutableByteView out, Deadline deadline) {
  if (out.empty()) return fail(Reason::kInternal, "read into nothing");
  std::unique_lock lock(mux_.mutex_);
  const bool ready = deadline.wait(mux_.changed_, lock, [&] {
    return closed_ || received_.size() > 0 || peer_ended_ || !mux_.state_.ok();
  });
  if (closed_) return fail(Reason::kConnectionClosed, "the stream was closed on this side");
  const std::size_t n = received_.read(out);  // what came before an error is still read
  if (n == 0) {
    if (peer_ended_) return std::size_t{0};
    if (!mux_.state_.ok()) return mux_.state_.error();
    if (!ready) return fail(Reason::kTimedOut, "read");
  }
  owed_credit_ += static_cast<std::uint32_t>(n);
  if (owed_credit_ < kCreditStep || peer_ended_ || !mux_.state_.ok()) return n;
  ByteWriter credit;
  credit.u32(owed_credit_);
  peer_credit_ += owed_credit_;
  owed_credit_ = 0;
  // A failure has ended the mux; the bytes at hand are good all the same, and the next call says
  // it.
  (void)mux_.send_frame(lock, {MuxFrame::Kind::kCredit, number_, 4}, credit.bytes());
  return n;
}

Status MuxStream::write_all(ByteView bytes, Deadline deadline) {
  while (!bytes.empty()) {
    std::unique_lock lock(mux_.mutex_);
    if (ended_) return fail(Reason::kConnectionClosed, "write after the end of a mux stream");
    const bool ready = deadline.wait(mux_.changed_, lock,
                                     [&] { return ended_ || credit_ > 0 || !mux_.state_.ok(); });
    if (!mux_.state_.ok()) return mux_.state_;
    if (ended_) return fail(Reason::kConnectionClosed, "the stream was closed on this side");
    if (!ready) return fail(Reason::kTimedOut, "write");
    const std::size_t n = std::min({bytes.size(), kPiece, static_cast<std::size_t>(credit_)});
    credit_ -= static_cast<std::uint32_t>(n);
    GBX_TRY(mux_.send_frame(lock, {MuxFrame::Kind::kData, number_, static_cast<std::uint32_t>(n)},
                            bytes.first(n)));
    bytes = bytes.subspan(n);
  }
  return ok_status();
}

Status MuxStream::finish(Deadline) { return mux_.end_stream(*this); }

void MuxStream::close() {
  {
    const std::lock_guard lock(mux_.mutex_);
    closed_ = true;
    mux_.changed_.notify_all();
  }
  // The peer must not wait for bytes that will not come; a failure has ended the mux, which says
  // the same.
  (void)mux_.end_stream(*this);
}

}  // namespace gbx::channel
