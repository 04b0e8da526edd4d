// TLS 1.3 over any byte stream, between peers that know each other's keys: no certificate
// authorities, no names, no resumption, no tickets, no early data; TLS_AES_256_GCM_SHA384 and
// X25519 only. Certificates are self-signed wrappings of a signing key. Streams are untrusted. One
// thread at a time; close() from any.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "channel/stream.h"
#include "crypto/keys.h"

namespace gbx::channel {

// Whom to talk to. Denies unless made otherwise.
class PeerPolicy {
 public:
  using Check = std::function<Status(const crypto::PublicKey&)>;
  PeerPolicy() = default;
  // The peer proves one of these keys; else the handshake fails with `reason`.
  static PeerPolicy pin(std::vector<crypto::PublicKey> keys,
                        Reason reason = Reason::kUnauthenticated);
  // The peer proves a key that `check` accepts; else the handshake fails with its error.
  // Thread-safe `check`.
  static PeerPolicy check(Check check);
  // The peer proves some key; the caller compares peer_key() before it trusts anything.
  static PeerPolicy any_key() { return PeerPolicy(Kind::kAnyKey); }
  // Server only: the client proves no key and is asked for none.
  static PeerPolicy anonymous() { return PeerPolicy(Kind::kAnonymous); }
  // Server only: the client may prove a key; peer_key() is empty where it did not.
  static PeerPolicy any_key_or_none() { return PeerPolicy(Kind::kOptional); }

  bool asks_for_key() const { return kind_ != Kind::kAnonymous; }
  bool requires_key() const { return kind_ != Kind::kAnonymous && kind_ != Kind::kOptional; }
  Status accepts(const crypto::PublicKey& key) const;

 private:
  enum class Kind { kDeny, kCheck, kAnyKey, kAnonymous, kOptional };
  explicit PeerPolicy(Kind kind) : kind_(kind) {}
  Kind kind_ = Kind::kDeny;
  Check check_;
};

struct TlsOptions {
  const Clock* clock = nullptr;  // required
  // own identity: required of servers; used during the handshake only
  const crypto::SigningKey* key = nullptr;
  PeerPolicy peer;
  std::int64_t handshake_ms = 10'000;
};

class TlsChannel final : public ByteStream {
 public:
  // `stream` must outlive the channel, which does not own it. Errors: what the policy said;
  // kUnauthenticated when the peer refused this side's key or proved none; kBadVersion;
  // kBadStructure; kTimedOut; kTruncated; stream errors. In TLS 1.3 a client is done before the
  // server has looked at its key: a server's refusal reaches it on first read.
  static Result<TlsChannel> client(ByteStream& stream, const TlsOptions& options);
  static Result<TlsChannel> server(ByteStream& stream, const TlsOptions& options);
  TlsChannel(TlsChannel&&) noexcept;
  TlsChannel& operator=(TlsChannel&&) noexcept;
  ~TlsChannel() override;

  const std::optional<crypto::PublicKey>& peer_key() const;
  // RFC 8446 section 7.5; the label starts with "EXPORTER-". The same on both ends, different on
  // every connection.
  Result<Hash32> exporter(std::string_view label, ByteView context) const;

  // 0 only after the peer's close_notify; kTruncated when the stream ended without; kBadTag for a
  // record that is not genuine. After an error every call fails.
  Result<std::size_t> read(MutableByteView out, Deadline deadline) override;
  Status write_all(ByteView bytes, Deadline deadline) override;
  Status finish(Deadline deadline) override;  // sends close_notify
  void close() override;                      // closes the stream below, without close_notify

 private:
  struct Impl;
  explicit TlsChannel(std::unique_ptr<Impl> impl);
  static Result<TlsChannel> open(ByteStream& stream, const TlsOptions& options, bool is_server);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gbx::channel
