#include "channel/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>

namespace gbx::channel {
namespace {

constexpr std::size_t kPiece = 64U << 10;       // encrypted at once before it is sent
constexpr long kMaxCertificateBytes = 8 << 10;  // ours have a few hundred

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Ctx = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;
using Ssl = std::unique_ptr<SSL, Deleter<SSL_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;

Error setup_error(const char* what) {
  ERR_clear_error();
  return fail(Reason::kCrypto, std::string("TLS set-up: ") + what);
}

// What the peer's fatal alert means (RFC 8446 section 6.2). OpenSSL adds 1000 to the alert's
// number.
Error alert_error(int alert) {
  const Error closed =
      fail(Reason::kConnectionClosed, "the peer ended TLS with alert " + std::to_string(alert));
  switch (alert) {
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_CERTIFICATE_REVOKED:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
    case SSL_AD_UNKNOWN_CA:
    case SSL_AD_ACCESS_DENIED:
    case TLS13_AD_CERTIFICATE_REQUIRED:
      return fail(Reason::kUnauthenticated, "the peer does not accept this side's key");
    case SSL_AD_PROTOCOL_VERSION:
      return fail(Reason::kBadVersion, "TLS").with("TLS 1.3", "the peer refuses it");
    default:
      return closed;
  }
}

// Drains OpenSSL's queue into one error. `record` is the reason for what is wrong with received
// records.
Error tls_error(Reason record) {
  const unsigned long first = ERR_get_error();
  ERR_clear_error();
  const int reason = ERR_GET_REASON(first);
  if (ERR_GET_LIB(first) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET) {
    return alert_error(reason - SSL_AD_REASON_OFFSET);
  }
  const char* text = ERR_reason_error_string(first);
  const std::string what = std::string("TLS: ") + (text != nullptr ? text : "failure");
  switch (reason) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_WRONG_SSL_VERSION:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_UNKNOWN_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
      return fail(Reason::kBadVersion, what).with("TLS 1.3", "another protocol");
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return fail(Reason::kUnauthenticated, "the peer proved no key");
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
    case SSL_R_BAD_RECORD_TYPE:
      return fail(Reason::kBadTag, what);
    default:
      return fail(record, what);
  }
}

Result<PrivateKey> private_key(const crypto::SigningKey& key) {
  const SecretBuffer der = key.pkcs8_der(SecretAccess{});
  const ByteView view = der.view(SecretAccess{});
  const unsigned char* at = view.data();
  PrivateKey k(d2i_AutoPrivateKey(nullptr, &at, static_cast<long>(view.size())));
  if (k == nullptr) return setup_error("private key");
  return k;
}

Status use_key(SSL_CTX* ctx, const crypto::SigningKey& key) {
  GBX_ASSIGN(const Bytes certificate, crypto::self_signed_certificate(key));
  GBX_ASSIGN(const PrivateKey own, private_key(key));
  if (SSL_CTX_use_certificate_ASN1(ctx, static_cast<int>(certificate.size()), certificate.data()) !=
          1 ||
      SSL_CTX_use_PrivateKey(ctx, own.get()) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
    return setup_error("certificate");
  }
  return ok_status();
}

// Everything that could be negotiated is fixed here, whatever the machine's openssl.cnf says.
Status restrict(SSL_CTX* ctx) {
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // Middlebox compatibility adds bytes that no signature covers.
  SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_MIDDLEBOX_COMPAT | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_max_cert_list(ctx, kMaxCertificateBytes);
  const bool ok = SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
                  SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
                  SSL_CTX_set_num_tickets(ctx, 0) == 1 && SSL_CTX_set_max_early_data(ctx, 0) == 1 &&
                  SSL_CTX_set_ciphersuites(ctx, "TLS_AES_256_GCM_SHA384") == 1 &&
                  SSL_CTX_set1_groups_list(ctx, "X25519") == 1 &&
                  SSL_CTX_set1_sigalgs_list(ctx, "ed25519:ecdsa_secp256r1_sha256") == 1 &&
                  SSL_CTX_set1_client_sigalgs_list(ctx, "ed25519:ecdsa_secp256r1_sha256") == 1;
  return ok ? ok_status() : Status(setup_error("parameters"));
}

Result<crypto::PublicKey> key_of(X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  if (size <= 0) return setup_error("peer certificate");
  auto key = crypto::certificate_public_key(ByteView(der, static_cast<std::size_t>(size)));
  OPENSSL_free(der);
  return key;
}

}  // namespace

PeerPolicy PeerPolicy::pin(std::vector<crypto::PublicKey> keys, Reason reason) {
  PeerPolicy p(Kind::kCheck);
  p.check_ = [keys = std::move(keys), reason](const crypto::PublicKey& key) -> Status {
    if (std::ranges::find(keys, key) != keys.end()) return ok_status();
    std::string expected;
    for (const auto& k : keys) expected += (expected.empty() ? "" : " or ") + k.text();
    return fail(reason, "the peer proved another key").with(expected, key.text());
  };
  return p;
}

PeerPolicy PeerPolicy::check(Check check) {
  PeerPolicy p(Kind::kCheck);
  p.check_ = std::move(check);
  return p;
}

Status PeerPolicy::accepts(const crypto::PublicKey& key) const {
  switch (kind_) {
    case Kind::kCheck:
      if (check_) return check_(key);
      break;
    case Kind::kAnyKey:
    case Kind::kOptional:
      return ok_status();
    case Kind::kDeny:
    case Kind::kAnonymous:
      break;
  }
  return fail(Reason::kUnauthenticated, "no peer is accepted here");
}

struct TlsChannel::Impl {
  Impl(ByteStream& s, const TlsOptions& options) : stream(s), policy(options.peer) {}

  static int verify(X509_STORE_CTX* store, void* self) {
    return static_cast<Impl*>(self)->verify_peer(store);
  }
  // Instead of a chain: is this key the one we want? That the peer holds it is proved by its
  // CertificateVerify.
  int verify_peer(X509_STORE_CTX* store) {
    X509* certificate = X509_STORE_CTX_get0_cert(store);
    auto key = certificate != nullptr ? key_of(certificate) : Result<crypto::PublicKey>();
    Status verdict = key.ok() ? policy.accepts(*key) : Status(key.error());
    if (verdict.ok()) {
      peer = *key;
      X509_STORE_CTX_set_error(store, X509_V_OK);
      return 1;
    }
    refused = verdict.error();
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
    return 0;
  }

  Status setup(const TlsOptions& options, bool is_server);
  Status handshake(Deadline deadline);
  Status flush(Deadline deadline);
  Status feed(Deadline deadline);
  Error failed(Error e) {
    failure = e;
    return e;
  }

  ByteStream& stream;
  const PeerPolicy policy;
  Ctx ctx;
  Ssl ssl;
  BIO* in = nullptr;  // owned by ssl, as is out
  BIO* out = nullptr;
  std::optional<crypto::PublicKey> peer;
  std::optional<Error> refused;
  std::optional<Error> failure;
  bool finished = false;
};

Status TlsChannel::Impl::setup(const TlsOptions& options, bool is_server) {
  ERR_clear_error();
  ctx.reset(SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method()));
  if (ctx == nullptr) return setup_error("context");
  GBX_TRY(restrict(ctx.get()));
  if (options.key != nullptr) GBX_TRY(use_key(ctx.get(), *options.key));
  int mode = SSL_VERIFY_NONE;
  if (policy.asks_for_key()) mode = SSL_VERIFY_PEER;
  if (policy.requires_key()) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_verify(ctx.get(), mode, nullptr);
  SSL_CTX_set_cert_verify_callback(ctx.get(), &Impl::verify, this);
  ssl.reset(SSL_new(ctx.get()));
  in = BIO_new(BIO_s_mem());
  out = BIO_new(BIO_s_mem());
  if (ssl == nullptr || in == nullptr || out == nullptr) {
    BIO_free(in);
    BIO_free(out);
    return setup_error("connection");
  }
  BIO_set_mem_eof_return(in, -1);
  SSL_set_bio(ssl.get(), in, out);
  if (is_server) {
    SSL_set_accept_state(ssl.get());
  } else {
    SSL_set_connect_state(ssl.get());
  }
  return ok_status();
}

// Sends what OpenSSL has written.
Status TlsChannel::Impl::flush(Deadline deadline) {
  Bytes piece(kPiece + 1024);
  for (;;) {
    std::size_t n = 0;
    if (BIO_ctrl_pending(out) == 0 || BIO_read_ex(out, piece.data(), piece.size(), &n) != 1) {
      return ok_status();
    }
    GBX_TRY(stream.write_all(ByteView(piece).first(n), deadline));
  }
}

// Receives some bytes for OpenSSL to read.
Status TlsChannel::Impl::feed(Deadline deadline) {
  Bytes piece(17U << 10);
  GBX_ASSIGN(const std::size_t n, stream.read(piece, deadline));
  if (n == 0) return fail(Reason::kTruncated, "the stream ended without TLS's close_notify");
  std::size_t written = 0;
  if (BIO_write_ex(in, piece.data(), n, &written) != 1 || written != n) {
    return setup_error("buffer");
  }
  return ok_status();
}

Status TlsChannel::Impl::handshake(Deadline deadline) {
  for (;;) {
    ERR_clear_error();
    const int r = SSL_do_handshake(ssl.get());
    const int what = SSL_get_error(ssl.get(), r);
    if (r != 1 && what != SSL_ERROR_WANT_READ) {
      const Error e = refused ? *refused : tls_error(Reason::kBadStructure);
      (void)flush(deadline);  // the alert that tells the peer why; the error is already known
      ERR_clear_error();
      return e;
    }
    GBX_TRY(flush(deadline));
    if (r == 1) break;
    GBX_TRY(feed(deadline));
  }
  if (SSL_version(ssl.get()) != TLS1_3_VERSION) {
    return fail(Reason::kBadVersion, "TLS").with("TLS 1.3", "another version");
  }
  if (policy.requires_key() && !peer) {
    return fail(Reason::kUnauthenticated, "the peer proved no key");
  }
  return ok_status();
}

TlsChannel::TlsChannel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsChannel::TlsChannel(TlsChannel&&) noexcept = default;
TlsChannel& TlsChannel::operator=(TlsChannel&&) noexcept = default;
TlsChannel::~TlsChannel() = default;

Result<TlsChannel> TlsChannel::client(ByteStream& stream, const TlsOptions& options) {
  return open(stream, options, false);
}
Result<TlsChannel> TlsChannel::server(ByteStream& stream, const TlsOptions& options) {
  return open(stream, options, true);
}

Result<TlsChannel> TlsChannel::open(ByteStream& stream, const TlsOptions& options, bool is_server) {
  if (options.clock == nullptr) return fail(Reason::kInternal, "TLS without a clock");
  if (is_server && options.key == nullptr) {
    return fail(Reason::kInternal, "TLS server without a key");
  }
  if (!is_server && !options.peer.requires_key()) {
    return fail(Reason::kInternal, "TLS client without a rule for the server's key");
  }
  auto impl = std::make_unique<Impl>(stream, options);
  GBX_TRY(impl->setup(options, is_server));
  GBX_TRY(impl->handshake(Deadline::after_ms(*options.clock, options.handshake_ms)));
  return TlsChannel(std::move(impl));
}

const std::optional<crypto::PublicKey>& TlsChannel::peer_key() const { return impl_->peer; }

Result<Hash32> TlsChannel::exporter(std::string_view label, ByteView context) const {
  Hash32 out{};
  if (SSL_export_keying_material(impl_->ssl.get(), out.data(), out.size(), label.data(),
                                 label.size(), context.data(), context.size(), 1) != 1) {
    return setup_error("exporter");
  }
  return out;
}

Result<std::size_t> TlsChannel::read(MutableByteView out, Deadline deadline) {
  if (out.empty()) return fail(Reason::kInternal, "read into nothing");
  if (impl_->failure) return *impl_->failure;
  for (;;) {
    ERR_clear_error();
    std::size_t n = 0;
    const int r = SSL_read_ex(impl_->ssl.get(), out.data(), out.size(), &n);
    const int what = SSL_get_error(impl_->ssl.get(), r);
    if (r == 1) return n;
    if (what == SSL_ERROR_ZERO_RETURN) return std::size_t{0};
    if (what != SSL_ERROR_WANT_READ) {
      const Error e = impl_->failed(tls_error(Reason::kBadTag));
      (void)impl_->flush(deadline);
      return e;
    }
    Status s = impl_->flush(deadline);  // answers to key updates
    if (!s.ok()) return impl_->failed(s.error());
    s = impl_->feed(deadline);
    // Nothing is lost by waiting too short for bytes; everything else ends the channel.
    if (!s.ok()) return s.reason() == Reason::kTimedOut ? s.error() : impl_->failed(s.error());
  }
}

Status TlsChannel::write_all(ByteView bytes, Deadline deadline) {
  if (impl_->failure) return *impl_->failure;
  if (impl_->finished) return fail(Reason::kInternal, "write after finish");
  while (!bytes.empty()) {
    const ByteView piece = bytes.first(std::min(bytes.size(), kPiece));
    ERR_clear_error();
    std::size_t n = 0;
    if (SSL_write_ex(impl_->ssl.get(), piece.data(), piece.size(), &n) != 1 || n == 0) {
      return impl_->failed(tls_error(Reason::kBadStructure));
    }
    bytes = bytes.subspan(n);
    Status s = impl_->flush(deadline);
    if (!s.ok()) return impl_->failed(s.error());
  }
  return ok_status();
}

Status TlsChannel::finish(Deadline deadline) {
  if (impl_->finished) return ok_status();
  if (impl_->failure) return *impl_->failure;
  impl_->finished = true;
  ERR_clear_error();
  if (SSL_shutdown(impl_->ssl.get()) < 0) return impl_->failed(tls_error(Reason::kBadStructure));
  Status s = impl_->flush(deadline);
  return s.ok() ? s : Status(impl_->failed(s.error()));
}

void TlsChannel::close() { impl_->stream.close(); }

}  // namespace gbx::channel
