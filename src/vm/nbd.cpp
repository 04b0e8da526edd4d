#include "vm/nbd.h"

#include <algorithm>

#include "vm/launch.h"

namespace gbx::vm {

namespace {

// Names and numbers of doc/proto.md.
constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // "NBDMAGIC"
constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
constexpr std::uint64_t kOptionReplyMagic = 0x3e889045565a9;
constexpr std::uint32_t kRequestMagic = 0x25609513;
constexpr std::uint32_t kReplyMagic = 0x67446698;
constexpr std::uint16_t kFixedNewstyle = 1;
constexpr std::uint16_t kNoZeroes = 2;
constexpr std::uint16_t kHasFlags = 1;
constexpr std::uint16_t kReadOnly = 2;
constexpr std::uint16_t kSendFlush = 4;

constexpr std::uint32_t kOptExportName = 1;
constexpr std::uint32_t kOptAbort = 2;
constexpr std::uint32_t kOptList = 3;
constexpr std::uint32_t kOptInfo = 6;
constexpr std::uint32_t kOptGo = 7;

constexpr std::uint32_t kRepAck = 1;
constexpr std::uint32_t kRepServer = 2;
constexpr std::uint32_t kRepInfo = 3;
constexpr std::uint32_t kRepErrUnsupported = 0x80000001;
constexpr std::uint32_t kRepErrInvalid = 0x80000003;
constexpr std::uint32_t kRepErrUnknown = 0x80000006;

constexpr std::uint16_t kInfoExport = 0;
constexpr std::uint16_t kInfoBlockSize = 3;

constexpr std::uint16_t kCmdRead = 0;
constexpr std::uint16_t kCmdWrite = 1;
constexpr std::uint16_t kCmdDisconnect = 2;
constexpr std::uint16_t kCmdFlush = 3;
constexpr std::uint16_t kCmdTrim = 4;
constexpr std::uint16_t kCmdWriteZeroes = 6;

constexpr std::uint32_t kNoError = 0;
constexpr std::uint32_t kNotPermitted = 1;
constexpr std::uint32_t kIoError = 5;
constexpr std::uint32_t kInvalid = 22;

constexpr std::size_t kReplyHeader = 16;
constexpr std::size_t kPiece = 65536;  // of a refused write, read and forgotten

// NBD is big-endian; ByteReader and ByteWriter are not.
class NbdReader {
 public:
  explicit NbdReader(ByteView view) : r_(view) {}
  Result<std::uint16_t> u16() {
    GBX_ASSIGN(const std::uint16_t v, r_.u16());
    return __builtin_bswap16(v);
  }
  Result<std::uint32_t> u32() {
    GBX_ASSIGN(const std::uint32_t v, r_.u32());
    return __builtin_bswap32(v);
  }
  Result<std::uint64_t> u64() {
    GBX_ASSIGN(const std::uint64_t v, r_.u64());
    return __builtin_bswap64(v);
  }
  Result<ByteView> take(std::size_t n) { return r_.take(n); }
  Status finish() const { return r_.finish(); }

 private:
  ByteReader r_;
};
class NbdWriter {
 public:
  NbdWriter& u16(std::uint16_t v) { return w_.u16(__builtin_bswap16(v)), *this; }
  NbdWriter& u32(std::uint32_t v) { return w_.u32(__builtin_bswap32(v)), *this; }
  NbdWriter& u64(std::uint64_t v) { return w_.u64(__builtin_bswap64(v)), *this; }
  NbdWriter& raw(ByteView v) { return w_.raw(v), *this; }
  NbdWriter& zeros(std::size_t n) { return w_.zeros(n), *this; }
  const Bytes& bytes() const { return w_.bytes(); }

 private:
  ByteWriter w_;
};

bool our_export(ByteView name) { return name.empty() || as_text(name) == kVolumeExport; }

enum class Next { kMoreOptions, kTransmission, kEnd };

class Session {
 public:
  Session(NbdPeer& peer, VolumeSource& source) : peer_(peer), source_(source) {}

  Status serve() {
    GBX_ASSIGN(const Next next, handshake());
    if (next == Next::kEnd) return ok_status();
    for (;;) {
      std::uint8_t header[28];
      const Status read = peer_.read(header, NbdPeer::Wait::kForTheNext);
      // Whoever stops between two requests has ended as well as one who says so.
      if (!read.ok() && read.reason() == Reason::kConnectionClosed) return ok_status();
      GBX_TRY(read);
      GBX_ASSIGN(const bool more, request(header));
      if (!more) return ok_status();
    }
  }

 private:
  Result<Next> handshake() {
    GBX_TRY(peer_.write(
        NbdWriter().u64(kInitMagic).u64(kOptionMagic).u16(kFixedNewstyle | kNoZeroes).bytes()));
    std::uint8_t raw[4];
    GBX_TRY(read(raw));
    GBX_ASSIGN(const std::uint32_t flags, NbdReader(raw).u32());
    if ((flags & kFixedNewstyle) == 0 ||
        (flags & ~std::uint32_t{kFixedNewstyle | kNoZeroes}) != 0) {
      return fail(Reason::kBadValue, "flags of the volume's client")
          .with("1 or 3", std::to_string(flags));
    }
    zeroes_ = (flags & kNoZeroes) == 0;
    for (int i = 0; i < kMaxNbdOptions; ++i) {
      GBX_ASSIGN(const Next next, option());
      if (next != Next::kMoreOptions) return next;
    }
    return fail(Reason::kTooLarge, "options of the volume's client")
        .with("at most " + std::to_string(kMaxNbdOptions), "more");
  }

  Result<Next> option() {
    std::uint8_t header[16];
    GBX_TRY(read(header));
    NbdReader r(header);
    GBX_ASSIGN(const std::uint64_t magic, r.u64());
    GBX_ASSIGN(const std::uint32_t option, r.u32());
    GBX_ASSIGN(const std::uint32_t size, r.u32());
    if (magic != kOptionMagic) return fail(Reason::kBadMagic, "an option of the volume's client");
    if (size > kMaxNbdOptionBytes) {
      return fail(Reason::kTooLarge, "an option of the volume's client")
          .with("at most " + std::to_string(kMaxNbdOptionBytes) + " bytes", std::to_string(size));
    }
    Bytes data(size);
    GBX_TRY(read(data));
    switch (option) {
      case kOptExportName:
        return export_name(data);
      case kOptAbort:
        GBX_TRY(reply(option, kRepAck, {}));
        return Next::kEnd;
      case kOptList:
        return list(option, data);
      case kOptInfo:
      case kOptGo:
        return go(option, data);
      default:
        // TLS, structured replies, contexts: nothing of it is ours.
        GBX_TRY(reply(option, kRepErrUnsupported, {}));
        return Next::kMoreOptions;
    }
  }

  // It has no answer but the export itself, or the end.
  Result<Next> export_name(ByteView name) {
    if (!our_export(name)) return fail(Reason::kNotFound, "the volume that the client names");
    NbdWriter w;
    w.u64(source_.size()).u16(flags());
    if (zeroes_) w.zeros(124);
    GBX_TRY(peer_.write(w.bytes()));
    return Next::kTransmission;
  }

  Result<Next> list(std::uint32_t option, ByteView data) {
    if (!data.empty()) {
      GBX_TRY(reply(option, kRepErrInvalid, {}));
      return Next::kMoreOptions;
    }
    NbdWriter w;
    w.u32(static_cast<std::uint32_t>(kVolumeExport.size())).raw(as_bytes(kVolumeExport));
    GBX_TRY(reply(option, kRepServer, w.bytes()));
    GBX_TRY(reply(option, kRepAck, {}));
    return Next::kMoreOptions;
  }

  struct Question {
    bool ours = false;
    bool block_size = false;
  };
  static Result<Question> parse_question(ByteView data) {
    NbdReader r(data);
    GBX_ASSIGN(const std::uint32_t size, r.u32());
    GBX_ASSIGN(const ByteView name, r.take(size));
    GBX_ASSIGN(const std::uint16_t count, r.u16());
    Question q;
    q.ours = our_export(name);
    for (std::uint16_t i = 0; i < count; ++i) {
      GBX_ASSIGN(const std::uint16_t info, r.u16());
      q.block_size = q.block_size || info == kInfoBlockSize;
    }
    GBX_TRY(r.finish());
    return q;
  }

  Result<Next> go(std::uint32_t option, ByteView data) {
    const auto question = parse_question(data);
    if (!question.ok() || !question->ours) {
      GBX_TRY(reply(option, question.ok() ? kRepErrUnknown : kRepErrInvalid, {}));
      return Next::kMoreOptions;
    }
    if (question->block_size) {
      NbdWriter w;
      w.u16(kInfoBlockSize).u32(1).u32(4096).u32(static_cast<std::uint32_t>(kMaxNbdRequest));
      GBX_TRY(reply(option, kRepInfo, w.bytes()));
    }
    NbdWriter w;
    w.u16(kInfoExport).u64(source_.size()).u16(flags());
    GBX_TRY(reply(option, kRepInfo, w.bytes()));
    GBX_TRY(reply(option, kRepAck, {}));
    return option == kOptGo ? Next::kTransmission : Next::kMoreOptions;
  }

  // False: the client ends.
  Result<bool> request(ByteView header) {
    NbdReader r(header);
    GBX_ASSIGN(const std::uint32_t magic, r.u32());
    GBX_ASSIGN(const std::uint16_t command_flags, r.u16());
    GBX_ASSIGN(const std::uint16_t command, r.u16());
    GBX_ASSIGN(const std::uint64_t cookie, r.u64());
    GBX_ASSIGN(const std::uint64_t offset, r.u64());
    GBX_ASSIGN(const std::uint32_t size, r.u32());
    if (magic != kRequestMagic) return fail(Reason::kBadMagic, "a request of the volume's client");
    if (command == kCmdDisconnect) return false;
    if (command == kCmdWrite) {
      GBX_TRY(forget(size));
      GBX_TRY(answer(cookie, kNotPermitted));
    } else if (command == kCmdTrim || command == kCmdWriteZeroes) {
      GBX_TRY(answer(cookie, kNotPermitted));
    } else if (command == kCmdFlush && command_flags == 0 && offset == 0 && size == 0) {
      GBX_TRY(answer(cookie, kNoError));
    } else if (command == kCmdRead && command_flags == 0) {
      GBX_TRY(answer_read(cookie, offset, size));
    } else {
      GBX_TRY(answer(cookie, kInvalid));
    }
    return true;
  }

  Status answer_read(std::uint64_t cookie, std::uint64_t offset, std::uint32_t size) {
    const std::uint64_t end = source_.size();
    if (size == 0 || size > kMaxNbdRequest || offset > end || size > end - offset) {
      return answer(cookie, kInvalid);
    }
    // Header and data leave together; the buffer stays for the next.
    if (reply_.size() < kReplyHeader + size) reply_.resize(kReplyHeader + size);
    const MutableByteView whole = MutableByteView(reply_).first(kReplyHeader + size);
    const Status read = source_.read(offset, whole.subspan(kReplyHeader));
    if (!read.ok()) return answer(cookie, kIoError);
    const NbdWriter header = NbdWriter().u32(kReplyMagic).u32(kNoError).u64(cookie);
    std::copy(header.bytes().begin(), header.bytes().end(), whole.begin());
    return peer_.write(whole);
  }

  Status answer(std::uint64_t cookie, std::uint32_t error) {
    return peer_.write(NbdWriter().u32(kReplyMagic).u32(error).u64(cookie).bytes());
  }

  // The bytes of a write come whether we want them or not.
  Status forget(std::uint32_t size) {
    if (size > kMaxNbdRequest) {
      return fail(Reason::kTooLarge, "a write of the volume's client")
          .with("at most " + std::to_string(kMaxNbdRequest) + " bytes", std::to_string(size));
    }
    Bytes piece(std::min<std::size_t>(size, kPiece));
    for (std::size_t left = size; left > 0;) {
      const std::size_t n = std::min(left, piece.size());
      GBX_TRY(read(MutableByteView(piece).first(n)));
      left -= n;
    }
    return ok_status();
  }

  Status reply(std::uint32_t option, std::uint32_t type, ByteView data) {
    NbdWriter w;
    w.u64(kOptionReplyMagic).u32(option).u32(type);
    w.u32(static_cast<std::uint32_t>(data.size())).raw(data);
    return peer_.write(w.bytes());
  }

  static std::uint16_t flags() { return kHasFlags | kReadOnly | kSendFlush; }
  Status read(MutableByteView out) { return peer_.read(out, NbdPeer::Wait::kInTheMiddle); }

  NbdPeer& peer_;
  VolumeSource& source_;
  bool zeroes_ = true;
  Bytes reply_;
};

}  // namespace

Status serve_nbd(NbdPeer& peer, VolumeSource& source) { return Session(peer, source).serve(); }

}  // namespace gbx::vm
