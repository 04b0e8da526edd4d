#include "cli/http/client.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <time.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>

#include "base/log.h"
#include "base/os.h"
#include "crypto/crypto.h"
#include "httpsig/error_body.h"
#include "httpsig/request_signing.h"

namespace gbx::cli::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;
using Stream = asio::ssl::stream<beast::tcp_stream>;
using Parser = bhttp::response_parser<bhttp::buffer_body>;

constexpr std::size_t kChunk = 64U << 10;
constexpr std::uint32_t kMaxHeader = 32U << 10;

// What is sent as the body: memory, or a descriptor.
struct Outgoing {
  ByteView memory;
  int fd = -1;
  std::uint64_t size = 0;
  Hash32 hash{};
  Progress progress;
};

// How one try ended.
struct Outcome {
  Result<Reply> reply = Error(Reason::kInternal, "no attempt");
  bool sent = false;       // the server may have seen the request
  bool transport = false;  // failed below HTTP
  bool delivered = false;  // the sink has got bytes
  bool trust = false;      // the server is the wrong one
  std::int64_t retry_after_ms = 0;
};

bool header_safe(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c != 0x7f; });
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

Error transport_error(const error_code& ec, const std::string& what) {
  if (ec == beast::error::timeout) {
    return fail(Reason::kUnavailable, what + ": no answer in time")
        .hint("try again; is the service overloaded?");
  }
  return fail(Reason::kConnectionClosed, what + ": " + ec.message()).hint("try again");
}

bool is_idempotent(const Call& call) {
  return call.method != "POST" ? call.method != "PATCH" : call.headers.contains("idempotency-key");
}

void really_sleep(std::int64_t ms) {
  timespec t{ms / 1000, ms % 1000 * 1'000'000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) {
  }
}

Result<Hash32> hash_of_descriptor(int fd, std::uint64_t size) {
  crypto::Sha256 hash;
  Bytes chunk(kChunk);
  for (std::uint64_t at = 0; at < size;) {
    const std::size_t n =
        static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), size - at));
    GBX_TRY(pread_exact(fd, MutableByteView(chunk).first(n), at));
    hash.update(ByteView(chunk).first(n));
    at += n;
  }
  return hash.finish();
}

}  // namespace

struct Client::Impl {
  Impl(ClientOptions o, const Clock& c, Random& r)
      : options(std::move(o)), clock(c), random(r), ssl(asio::ssl::context::tls_client) {}

  ClientOptions options;
  const Clock& clock;
  Random& random;
  asio::io_context io{1};
  asio::ssl::context ssl;
  std::unique_ptr<Stream> stream;
  beast::flat_buffer buffer;
  std::uint64_t connections = 0;

  Status set_up_tls();
  Status connect(Outcome* outcome);
  Status handshake(Outcome* outcome);
  bool still_open();
  void drop() {
    stream.reset();
    buffer.clear();
  }
  Result<std::string> head_of(const Call& call, const Outgoing& out);
  Status write_all_of(ByteView bytes);
  Status write_body(const Outgoing& out);
  Result<Reply> read_reply(Outcome* outcome, bool head_only, const Sink* sink,
                           std::uint64_t max_bytes, const Progress& progress);
  Status read_body(Parser& parser, Outcome* outcome, Reply* reply, const Sink* sink,
                   std::uint64_t max_bytes, const Progress& progress);
  Outcome attempt(const Call& call, const Outgoing& out, const Sink* sink, std::uint64_t max_bytes,
                  const Progress& progress);
  Result<Reply> run(const Call& call, const Outgoing& out, const Sink* sink,
                    std::uint64_t max_bytes, const Progress& progress);
  std::int64_t backoff(int tried, const Outcome& outcome);

  // Starts an operation and runs until it is over: the stream's own timer bounds it.
  template <class Start>
  error_code complete(Start start) {
    error_code result = asio::error::operation_aborted;
    start([&result](const error_code& ec, auto&&...) { result = ec; });
    io.restart();
    io.run();
    return result;
  }
};

Status Client::Impl::set_up_tls() {
  SSL_CTX* ctx = ssl.native_handle();
  const std::uint8_t* p = options.ca_der.data();
  X509* ca = d2i_X509(nullptr, &p, static_cast<long>(options.ca_der.size()));
  if (ca == nullptr) {
    ERR_clear_error();
    return fail(Reason::kBadEncoding, "CA certificate of the service")
        .hint("run `glovebox init` again");
  }
  const int added = X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca);
  X509_free(ca);
  if (added != 1 || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1) {
    return fail(Reason::kCrypto, "TLS set-up");
  }
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  return ok_status();
}

Status Client::Impl::handshake(Outcome* outcome) {
  SSL* handle = stream->native_handle();
  error_code not_ip;
  (void)asio::ip::make_address(options.host, not_ip);
  X509_VERIFY_PARAM* param = SSL_get0_param(handle);
  X509_VERIFY_PARAM_set_hostflags(
      param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  const int named =
      not_ip ? X509_VERIFY_PARAM_set1_host(param, options.host.c_str(), options.host.size())
             : X509_VERIFY_PARAM_set1_ip_asc(param, options.host.c_str());
  if (named != 1) {
    return fail(Reason::kUsage, "host of the service")
        .with("a DNS name or an IP address", printable(options.host, 64));
  }
  if (not_ip && SSL_set_tlsext_host_name(handle, options.host.c_str()) != 1) {
    return fail(Reason::kUsage, "host of the service");
  }
  const error_code ec = complete(
      [this](auto done) { stream->async_handshake(asio::ssl::stream_base::client, done); });
  const long verdict = SSL_get_verify_result(handle);
  if (verdict != X509_V_OK) {
    outcome->trust = true;
    return fail(Reason::kPlaneUntrusted, "certificate of the service")
        .with("issued by the pinned CA for " + printable(options.host, 64),
              X509_verify_cert_error_string(verdict))
        .hint(
            "compare the address and the certificate's file with what the operator gave you: "
            "glovebox init");
  }
  if (ec) return transport_error(ec, "TLS handshake with " + printable(options.host, 64));
  return ok_status();
}

Status Client::Impl::connect(Outcome* outcome) {
  const std::string place = printable(options.host, 64) + " port " + std::to_string(options.port);
  tcp::resolver resolver(io);
  error_code ec;
  const auto found = resolver.resolve(options.host, std::to_string(options.port), ec);
  if (ec) {
    return fail(Reason::kUnavailable, "look up " + place + ": " + ec.message())
        .hint("check the address: glovebox init");
  }
  stream = std::make_unique<Stream>(io, ssl);
  buffer.clear();
  beast::tcp_stream& layer = stream->next_layer();
  layer.expires_after(milliseconds(options.connect_timeout_ms));
  ec = complete([&](auto done) { layer.async_connect(found, done); });
  if (ec) {
    drop();
    return fail(Reason::kUnavailable, "connect to " + place + ": " + ec.message())
        .hint("is the service running? `glovebox doctor`");
  }
  error_code ignored;
  layer.socket().set_option(tcp::no_delay(true), ignored);
  ++connections;
  Status shaken = handshake(outcome);
  if (!shaken.ok()) drop();
  return shaken;
}

// A connection that the server has closed meanwhile, or on which it said something unasked, is not
// used again.
bool Client::Impl::still_open() {
  if (!stream) return false;
  std::uint8_t byte = 0;
  const ssize_t n =
      recv(stream->next_layer().socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

Result<std::string> Client::Impl::head_of(const Call& call, const Outgoing& out) {
  const bool v6 = options.host.find(':') != std::string::npos;
  std::string head = call.method + " " + call.target + " HTTP/1.1\r\n";
  httpsig::HeaderList list;
  list.emplace_back(
      "host", (v6 ? "[" + options.host + "]" : options.host) + ":" + std::to_string(options.port));
  list.emplace_back("user-agent", "glovebox");
  list.emplace_back("accept", "application/json, application/octet-stream");
  if (out.size > 0) list.emplace_back("content-type", call.content_type);
  if (out.size > 0 || call.method == "POST" || call.method == "PUT") {
    list.emplace_back("content-length", std::to_string(out.size));
  }
  for (const auto& [name, value] : call.headers) list.emplace_back(name, value);
  if (options.signing_key != nullptr) {
    GBX_ASSIGN(const httpsig::HeaderList signed_headers,
               httpsig::sign_request({options.set_id, call.method, call.target}, out.hash,
                                     options.identity, *options.signing_key, clock.now().seconds(),
                                     random));
    list.insert(list.end(), signed_headers.begin(), signed_headers.end());
  }
  if (call.target.empty() || call.target[0] != '/' || call.target.find(' ') != std::string::npos ||
      !header_safe(call.target)) {
    return fail(Reason::kUsage, "request target");
  }
  for (const auto& [name, value] : list) {
    if (!header_safe(name) || !header_safe(value)) {
      return fail(Reason::kUsage, "header " + printable(name, 32));
    }
    head += name + ": " + value + "\r\n";
  }
  return head + "\r\n";
}

Status Client::Impl::write_all_of(ByteView bytes) {
  stream->next_layer().expires_after(milliseconds(options.progress_timeout_ms));
  const error_code ec = complete([&](auto done) {
    asio::async_write(*stream, asio::buffer(bytes.data(), bytes.size()), done);
  });
  if (ec) return transport_error(ec, "sending the request");
  return ok_status();
}

Status Client::Impl::write_body(const Outgoing& out) {
  Bytes chunk;
  if (out.fd >= 0) chunk.resize(kChunk);
  for (std::uint64_t at = 0; at < out.size;) {
    const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(kChunk, out.size - at));
    ByteView piece;
    if (out.fd >= 0) {
      GBX_TRY(pread_exact(out.fd, MutableByteView(chunk).first(n), at));
      piece = ByteView(chunk).first(n);
    } else {
      piece = out.memory.subspan(static_cast<std::size_t>(at), n);
    }
    GBX_TRY(write_all_of(piece));
    at += n;
    if (out.progress) out.progress(at, out.size);
  }
  return ok_status();
}

Status Client::Impl::read_body(Parser& parser, Outcome* outcome, Reply* reply, const Sink* sink,
                               std::uint64_t max_bytes, const Progress& progress) {
  Bytes chunk(kChunk);
  std::uint64_t total = 0;
  const boost::optional<std::uint64_t> announced = parser.content_length();
  while (!parser.is_done()) {
    parser.get().body().data = chunk.data();
    parser.get().body().size = chunk.size();
    stream->next_layer().expires_after(milliseconds(options.progress_timeout_ms));
    error_code ec = complete([&](auto done) { bhttp::async_read(*stream, buffer, parser, done); });
    if (ec == bhttp::error::need_buffer) ec = {};
    if (ec) return transport_error(ec, "reading the answer");
    const std::size_t n = chunk.size() - parser.get().body().size;
    total += n;
    if (total > max_bytes) {
      return fail(Reason::kTooLarge, "answer of the service")
          .with("at most " + std::to_string(max_bytes) + " bytes", "more");
    }
    const ByteView got = ByteView(chunk).first(n);
    if (sink != nullptr && n > 0) {
      outcome->delivered = true;
      GBX_TRY((*sink)(got));
      if (progress) progress(total, announced ? *announced : 0);
    } else {
      append(reply->body, got);
    }
  }
  return ok_status();
}

Result<Reply> Client::Impl::read_reply(Outcome* outcome, bool head_only, const Sink* sink,
                                       std::uint64_t max_bytes, const Progress& progress) {
  for (int informational = 0; informational < 4; ++informational) {
    Parser parser;
    parser.header_limit(kMaxHeader);
    parser.body_limit(boost::none);  // read_body counts
    parser.skip(head_only);
    stream->next_layer().expires_after(milliseconds(options.response_timeout_ms));
    const error_code ec =
        complete([&](auto done) { bhttp::async_read_header(*stream, buffer, parser, done); });
    if (ec) {
      outcome->transport = true;
      return transport_error(ec, "waiting for the answer");
    }
    Reply reply;
    reply.status = static_cast<int>(parser.get().result_int());
    if (reply.status == 100) continue;
    for (const auto& f : parser.get()) {
      reply.headers[lower(std::string_view(f.name_string()))] = std::string(f.value());
    }
    const bool good = reply.status >= 200 && reply.status < 300;
    const Status body = read_body(parser, outcome, &reply, good ? sink : nullptr,
                                  good ? max_bytes : kChunk, progress);
    if (!body.ok()) {
      outcome->transport =
          body.reason() == Reason::kConnectionClosed || body.reason() == Reason::kUnavailable;
      return body.error();
    }
    if (!parser.keep_alive()) drop();
    return reply;
  }
  return fail(Reason::kBadJson, "the service sent no final answer");
}

Outcome Client::Impl::attempt(const Call& call, const Outgoing& out, const Sink* sink,
                              std::uint64_t max_bytes, const Progress& progress) {
  Outcome outcome;
  if (!still_open()) {
    drop();
    const Status connected = connect(&outcome);
    if (!connected.ok()) {
      outcome.transport = true;
      outcome.reply = connected.error();
      return outcome;
    }
  }
  Result<std::string> head = head_of(call, out);
  if (!head.ok()) {
    outcome.reply = head.error();
    return outcome;
  }
  outcome.sent = true;
  Status written = write_all_of(as_bytes(*head));
  if (written.ok()) written = write_body(out);
  if (!written.ok() && written.reason() != Reason::kConnectionClosed) {
    drop();
    outcome.transport = written.reason() == Reason::kUnavailable;
    outcome.reply = written.error();
    return outcome;
  }
  // A server that refuses early closes its side: its answer may be there although writing failed.
  outcome.reply = read_reply(&outcome, call.method == "HEAD", sink, max_bytes, progress);
  if (!outcome.reply.ok() || !written.ok()) drop();
  return outcome;
}

std::int64_t Client::Impl::backoff(int tried, const Outcome& outcome) {
  const std::int64_t base = std::min<std::int64_t>(2000, options.backoff_ms << std::min(tried, 10));
  const auto jitter = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(base) + 1));
  return std::max(base / 2 + jitter / 2, outcome.retry_after_ms);
}

namespace {

// The error of an answer that is not 2xx.
Error error_of(const Reply& reply) {
  std::optional<Error> told = httpsig::error_from_json_text(as_text(reply.body));
  // How a job ended is told in good answers: here the call itself, or the plane's to the broker,
  // took too long.
  if (told && told->reason == Reason::kTimedOut) {
    told->reason = Reason::kUnavailable;
    if (told->next.empty()) told->hint("try again; is the service overloaded?");
  }
  if (told) return *told;
  return fail(Reason::kUnavailable,
              "the service answered " + std::to_string(reply.status) + " without an error body")
      .hint("is this address a Glovebox service?");
}

std::int64_t retry_after_of(const Reply& reply) {
  const auto it = reply.headers.find("retry-after");
  if (it == reply.headers.end() || it->second.empty() || it->second.size() > 4) return 0;
  std::int64_t seconds = 0;
  for (const char c : it->second) {
    if (c < '0' || c > '9') return 0;
    seconds = seconds * 10 + (c - '0');
  }
  return std::min<std::int64_t>(seconds, 10) * 1000;
}

}  // namespace

Result<Reply> Client::Impl::run(const Call& call, const Outgoing& out, const Sink* sink,
                                std::uint64_t max_bytes, const Progress& progress) {
  for (int tried = 0;; ++tried) {
    Outcome outcome = attempt(call, out, sink, max_bytes, progress);
    bool again = false;
    if (outcome.reply.ok()) {
      if (outcome.reply->status >= 200 && outcome.reply->status < 300) {
        return std::move(outcome.reply);
      }
      // 503 and 429 come before anything was done, so that even a plain POST may be repeated only
      // where it is safe.
      again = (outcome.reply->status == 503 || outcome.reply->status == 429) && is_idempotent(call);
      outcome.retry_after_ms = retry_after_of(*outcome.reply);
    } else {
      again = outcome.transport && !outcome.trust && !outcome.delivered &&
              (!outcome.sent || is_idempotent(call));
    }
    if (!again || tried + 1 >= options.attempts) {
      if (outcome.reply.ok()) return error_of(*outcome.reply);
      return outcome.reply.error();
    }
    const std::int64_t ms = backoff(tried, outcome);
    if (options.sleep) {
      options.sleep(ms);
    } else {
      really_sleep(ms);
    }
  }
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::~Client() = default;

Result<std::unique_ptr<Client>> Client::create(ClientOptions options, const Clock& clock,
                                               Random& random) {
  auto impl = std::make_unique<Impl>(std::move(options), clock, random);
  GBX_TRY(impl->set_up_tls());
  return std::unique_ptr<Client>(new Client(std::move(impl)));
}

std::uint64_t Client::connections_made() const { return impl_->connections; }

Result<Reply> Client::send(const Call& call) {
  Outgoing out;
  out.memory = call.body;
  out.size = call.body.size();
  out.hash = crypto::sha256(call.body);
  return impl_->run(call, out, nullptr, impl_->options.max_body_bytes, {});
}

Result<Json> Client::json(const std::string& method, const std::string& target,
                          const std::optional<Json>& body, const std::string& idempotency_key) {
  Call call;
  call.method = method;
  call.target = target;
  if (body) call.body = to_bytes(as_bytes(canonical(*body)));
  if (!idempotency_key.empty()) call.headers["idempotency-key"] = idempotency_key;
  GBX_ASSIGN(const Reply reply, send(call));
  JsonLimits limits;
  limits.max_bytes = static_cast<std::size_t>(impl_->options.max_body_bytes);
  const std::string_view text = reply.body.empty() ? std::string_view("null") : as_text(reply.body);
  return parse_json(text, limits);
}

Result<Reply> Client::upload(const std::string& target, int fd, std::uint64_t size,
                             std::optional<Hash32> sha256, Progress progress) {
  Outgoing out;
  out.fd = fd;
  out.size = size;
  out.progress = std::move(progress);
  if (sha256) {
    out.hash = *sha256;
  } else {
    GBX_ASSIGN(out.hash, hash_of_descriptor(fd, size));
  }
  Call call;
  call.method = "PUT";
  call.target = target;
  call.content_type = "application/octet-stream";
  return impl_->run(call, out, nullptr, impl_->options.max_body_bytes, {});
}

Result<std::uint64_t> Client::download(const std::string& target, const Sink& sink,
                                       std::uint64_t max_bytes, Progress progress) {
  std::uint64_t total = 0;
  const Sink counted = [&](ByteView bytes) -> Status {
    total += bytes.size();
    return sink(bytes);
  };
  Outgoing out;
  out.hash = crypto::sha256(ByteView());
  Call call;
  call.target = target;
  GBX_TRY(impl_->run(call, out, &counted, max_bytes, progress));
  return total;
}

std::string percent_encode(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.' || c == '~';
    if (plain) {
      out.push_back(c);
    } else {
      const auto u = static_cast<unsigned char>(c);
      out += {'%', kHex[u >> 4U], kHex[u & 15U]};
    }
  }
  return out;
}

}  // namespace gbx::cli::http
