#include "oci/source.h"

#include <errno.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>

#include "base/os.h"

namespace gbx::oci {

Result<std::size_t> MemorySource::read(MutableByteView out) {
  const std::size_t n = std::min(out.size(), bytes_.size());
  if (n > 0) std::memcpy(out.data(), bytes_.data(), n);
  bytes_ = bytes_.subspan(n);
  return n;
}

Result<std::size_t> FileSource::read(MutableByteView out) {
  const std::uint64_t want = std::min<std::uint64_t>(out.size(), size_ - done_);
  if (want == 0) return std::size_t{0};
  ssize_t n = 0;
  while ((n = ::read(fd_, out.data(), static_cast<std::size_t>(want))) < 0 && errno == EINTR) {
  }
  if (n < 0) return io_error("read of a blob", errno);
  if (n == 0) return fail(Reason::kImageRefused, "a blob ends before the size in its descriptor");
  const auto got = static_cast<std::size_t>(n);
  hash_.update(out.first(got));
  done_ += got;
  return got;
}

Result<Hash32> FileSource::finish() {
  Bytes rest(1U << 17);
  for (;;) {
    GBX_ASSIGN(const std::size_t n, read(rest));
    if (n == 0) return hash_.finish();
  }
}

struct GunzipSource::State {
  z_stream z{};
  Bytes in = Bytes(1U << 17);
  bool ready = false;
  bool input_ended = false;
  bool member_ended = false;  // between members
  bool any_member = false;
};

GunzipSource::GunzipSource(Source& packed) : packed_(packed), state_(std::make_unique<State>()) {
  state_->ready = inflateInit2(&state_->z, 16 + MAX_WBITS) == Z_OK;  // 16: gzip framing only
}
GunzipSource::~GunzipSource() {
  if (state_->ready) inflateEnd(&state_->z);
}

Status GunzipSource::refill() {
  State& s = *state_;
  if (s.z.avail_in > 0 || s.input_ended) return ok_status();
  GBX_ASSIGN(const std::size_t n, packed_.read(s.in));
  s.input_ended = n == 0;
  s.z.next_in = s.in.data();
  s.z.avail_in = static_cast<uInt>(n);
  return ok_status();
}

Result<std::size_t> GunzipSource::read(MutableByteView out) {
  State& s = *state_;
  if (!s.ready) return fail(Reason::kInternal, "zlib could not start");
  if (out.empty()) return std::size_t{0};
  const auto room = static_cast<uInt>(std::min<std::size_t>(out.size(), 1U << 20));
  for (;;) {
    GBX_TRY(refill());
    if (s.input_ended && s.z.avail_in == 0) {
      if (s.member_ended) return std::size_t{0};
      return fail(Reason::kImageRefused,
                  s.any_member ? "gzip data is truncated" : "a gzip layer is empty");
    }
    if (s.member_ended) {
      if (inflateReset(&s.z) != Z_OK) return fail(Reason::kInternal, "zlib could not reset");
      s.member_ended = false;
    }
    s.any_member = true;
    s.z.next_out = out.data();
    s.z.avail_out = room;
    const int rc = inflate(&s.z, Z_NO_FLUSH);
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) {
      return fail(Reason::kImageRefused, "gzip data is damaged or followed by garbage");
    }
    s.member_ended = rc == Z_STREAM_END;
    const std::size_t got = room - s.z.avail_out;
    if (got > 0) return got;
  }
}

Result<std::size_t> MeteredSource::read(MutableByteView out) {
  GBX_ASSIGN(const std::size_t n, inner_.read(out));
  passed_ += n;
  if (passed_ > bounds_.max_bytes) {
    return fail(Reason::kImageRefused, "the image unpacks to too many bytes")
        .with("at most " + std::to_string(bounds_.max_bytes) + " more in this layer", "more");
  }
  if (passed_ > bounds_.ratio_floor && passed_ / bounds_.max_ratio > bounds_.stored_bytes) {
    return fail(Reason::kImageRefused, "a layer expands too much")
        .with("at most " + std::to_string(bounds_.max_ratio) + ":1 past " +
                  std::to_string(bounds_.ratio_floor) + " bytes",
              "more");
  }
  hash_.update(out.first(n));
  return n;
}

}  // namespace gbx::oci
