// GCC 12 destroys temporaries inside a co_await expression twice: only named objects stand there.
#include "plane/http/server.h"

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>

#include <array>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "plane/http/pool.h"
#include "plane/http/target.h"

namespace gbx::plane::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using tcp = asio::ip::tcp;
using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using Parser = bhttp::request_parser<bhttp::empty_body>;
template <class T>
using Co = asio::awaitable<T>;

constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

const char* status_text(int status) {
  const boost::core::string_view text =
      bhttp::obsolete_reason(bhttp::int_to_status(static_cast<unsigned>(status)));
  return text.data();
}

struct Counters {
  std::atomic<std::uint64_t> refused{0}, handshakes_failed{0}, requests{0}, shed{0}, answers_4xx{0},
      answers_5xx{0};
};

// One address, or the /64 that one IPv6 host commands.
std::string peer_group(const asio::ip::address& a) {
  if (a.is_v4()) return a.to_string();
  const auto raw = a.to_v6().to_bytes();
  return to_hex(ByteView(raw.data(), 8));
}

// The deadline that a transfer earns by its progress.
class Pace {
 public:
  // `crowd`: those who wait while this transfer has what they wait for; null: nobody ever does.
  explicit Pace(const Limits& limits, const WorkPool* crowd = nullptr)
      : limits_(limits), crowd_(crowd), start_(SteadyClock::now()) {}
  void moved(std::size_t n) { bytes_ += n; }
  // Time that the peer did not cause.
  void excuse(SteadyClock::duration d) { start_ += d; }
  SteadyClock::time_point deadline() const {
    auto paced = after(limits_.body_grace_ms, limits_.body_bytes_per_second);
    if (crowd_ != nullptr && crowd_->queued() > 0) {
      paced = std::min(paced, after(limits_.crowded_grace_ms, limits_.crowded_bytes_per_second));
    }
    return std::min(paced, SteadyClock::now() + milliseconds(limits_.idle_timeout_ms));
  }

 private:
  SteadyClock::time_point after(std::int64_t grace_ms, std::uint64_t bytes_per_second) const {
    const auto earned =
        static_cast<std::int64_t>(bytes_ / std::max<std::uint64_t>(1, bytes_per_second / 1000 + 1));
    return start_ + milliseconds(grace_ms + earned);
  }

  const Limits& limits_;
  const WorkPool* const crowd_;
  SteadyClock::time_point start_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

struct Session;

struct Server::Core {
  Core(ServerOptions o, Handler h)
      : options(std::move(o)),
        handler(std::move(h)),
        ssl(asio::ssl::context::tls_server),
        acceptor(io),
        calls("api-call", options.limits.call_threads, options.limits.call_queue),
        transfers("api-transfer", options.limits.transfer_threads, options.limits.transfer_queue) {}

  ServerOptions options;
  Handler handler;
  std::atomic<std::uint64_t> buffered{0};  // outlives `io`, whose pending work may hold jobs
  asio::io_context io;
  asio::ssl::context ssl;
  tcp::acceptor acceptor;
  std::uint16_t port = 0;
  WorkPool calls;
  WorkPool transfers;
  std::vector<std::thread> io_threads;
  Counters counters;
  std::atomic<bool> stopping{false};
  std::atomic<std::uint64_t> next_session{1};

  std::mutex mutex;
  std::condition_variable emptied;
  std::set<Session*> sessions;                  // guarded by mutex
  std::map<std::string, std::size_t> per_peer;  // guarded by mutex: places taken
  // guarded by mutex: `sessions` but those that gave way
  std::size_t places = 0;
  bool stopped = false;  // guarded by mutex

  bool admit(Session* s);
  bool give_way(const std::string* group);  // mutex is held; a null group: anybody's
  void free_place(const Session& s);        // mutex is held
  void leave(Session* s);
  bool reserve(std::uint64_t n) {
    if (buffered.fetch_add(n) + n <= options.limits.buffered_bytes) return true;
    buffered.fetch_sub(n);
    return false;
  }
};
using Core = Server::Core;

// One connection. Everything but `core` runs on its strand.
struct Session : std::enable_shared_from_this<Session> {
  Session(Server::Core& c, tcp::socket socket, const asio::ip::address& address)
      : core(c),
        stream(std::move(socket), c.ssl),
        event(stream.get_executor()),
        buffer(c.options.limits.header_bytes + c.options.limits.chunk_bytes),
        peer(address.to_string()),
        group(peer_group(address)),
        number(c.next_session.fetch_add(1)) {}

  Server::Core& core;
  asio::ssl::stream<beast::tcp_stream> stream;
  asio::steady_timer event;  // cancelled to wake the coroutine
  beast::flat_buffer buffer;
  const std::string peer;
  const std::string group;
  const std::uint64_t number;
  std::uint64_t requests = 0;
  bool idle = true;  // nothing of a request has come
  bool close = false;
  bool cut = false;                  // the server is stopping and waits no longer
  std::uint64_t unread = 0;          // bytes of the current body still on the wire
  std::uint64_t strange = 0;         // requests of callers that are not known
  std::atomic<bool> known{false};    // a caller of this connection is
  std::atomic<bool> working{false};  // a handler is at work
  bool gave_way = false;             // guarded by core.mutex

  beast::tcp_stream& tcp_layer() { return stream.next_layer(); }
  void wake() { event.cancel(); }
};
using SessionPtr = std::shared_ptr<Session>;

bool Core::admit(Session* s) {
  const std::lock_guard lock(mutex);
  if (stopping) return false;
  const auto mine = per_peer.find(s->group);
  const bool group_full =
      mine != per_peer.end() && mine->second >= options.limits.connections_per_peer;
  if (group_full && !give_way(&s->group)) return false;
  if (places >= options.limits.connections && !give_way(nullptr)) return false;
  ++per_peer[s->group];
  ++places;
  sessions.insert(s);
  return true;
}

bool Core::give_way(const std::string* group) {
  Session* oldest = nullptr;
  for (Session* s : sessions) {
    if (s->gave_way || s->known || s->working || (group != nullptr && s->group != *group)) continue;
    if (oldest == nullptr || s->number < oldest->number) oldest = s;
  }
  const SessionPtr s = oldest == nullptr ? nullptr : oldest->weak_from_this().lock();
  if (!s) return false;
  s->gave_way = true;
  free_place(*s);
  asio::post(s->stream.get_executor(), [s] {
    s->cut = true;
    s->tcp_layer().close();
    s->wake();
  });
  return true;
}

void Core::free_place(const Session& s) {
  const auto it = per_peer.find(s.group);
  if (--it->second == 0) per_peer.erase(it);
  --places;
}

void Core::leave(Session* s) {
  const std::lock_guard lock(mutex);
  if (sessions.erase(s) == 0) return;
  if (!s->gave_way) free_place(*s);
  if (sessions.empty()) emptied.notify_all();
}

namespace {

// ---------------------------------------------------------------- writing

Co<bool> write_bytes(Session& s, ByteView bytes, Pace& pace) {
  while (!bytes.empty()) {
    const std::size_t n = std::min(bytes.size(), s.core.options.limits.chunk_bytes);
    const auto piece = asio::buffer(bytes.data(), n);
    const auto deadline = pace.deadline();
    s.tcp_layer().expires_at(deadline);
    auto [ec, sent] = co_await asio::async_write(s.stream, piece, kTuple);
    if (ec) co_return false;
    pace.moved(sent);
    bytes = bytes.subspan(n);
  }
  co_return true;
}

bool header_safe(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c != 0x7f; });
}

std::string head_of(const Response& r, const Request& request, bool close) {
  std::string head = "HTTP/1.1 " + std::to_string(r.status) + " " + status_text(r.status) + "\r\n";
  const auto line = [&head](const std::string& name, const std::string& value) {
    if (header_safe(name) && header_safe(value)) head += name + ": " + value + "\r\n";
  };
  line("content-type", r.content_type);
  line("cache-control", "no-store");
  line("x-content-type-options", "nosniff");
  if (!request.id.empty()) line("glovebox-request-id", request.id);
  for (const auto& [name, value] : r.headers) line(name, value);
  if (!r.source) {
    line("content-length", std::to_string(r.body.size()));
  } else if (r.source_length) {
    line("content-length", std::to_string(*r.source_length));
  } else {
    line("transfer-encoding", "chunked");
  }
  if (close) line("connection", "close");
  return head + "\r\n";
}

// A request on its way through a pool thread and back. The pool's side holds it by shared_ptr, so
// that nothing dangles when the connection gives up first.
struct Job {
  explicit Job(Core& c) : core(c) {}
  ~Job() { release_body(); }
  // Only while no handler is at work on the request.
  void release_body() {
    request.body = Bytes();
    core.buffered.fetch_sub(reserved);
    reserved = 0;
  }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  Core& core;
  Request request;
  Response made;                   // the handler's, until `done`
  Response response;               // the one that is sent
  std::shared_ptr<BodyPipe> pipe;  // when the body streams
  Bytes piece;                     // of a streamed answer
  std::size_t piece_size = 0;
  Status piece_status = ok_status();
  bool done = false;           // on the strand
  bool abandoned = false;      // on the strand
  std::uint64_t reserved = 0;  // of the body budget
};
using JobPtr = std::shared_ptr<Job>;

void finish_on_strand(const SessionPtr& session, const JobPtr& job) {
  asio::post(session->stream.get_executor(), [session, job] {
    job->done = true;
    session->wake();
  });
}

// Waits on the strand until the job is done; false when that took longer than the limit.
Co<bool> wait_done(Session& s, Job& job) {
  const auto deadline = SteadyClock::now() + milliseconds(s.core.options.limits.handler_timeout_ms);
  while (!job.done) {
    if (s.cut || SteadyClock::now() >= deadline) co_return false;
    s.event.expires_at(deadline);
    auto [ec] = co_await s.event.async_wait(kTuple);
    (void)ec;  // cancelled or due: the loop looks again
  }
  co_return true;
}

void make_piece(Job& job) {
  try {
    const Result<std::size_t> n = job.response.source(job.piece);
    if (!n.ok()) {
      job.piece_status = Status(n.error());
    } else if (*n > job.piece.size()) {
      job.piece_status = Status(fail(Reason::kInternal, "a source gave more than was asked"));
    } else {
      job.piece_size = *n;
    }
  } catch (const std::exception&) {
    job.piece_status = Status(fail(Reason::kInternal, "a source threw"));
  }
}

// The next piece of a download, made on a pool thread.
Co<bool> pull(Session& s, const JobPtr& job) {
  job->done = false;
  SessionPtr self = s.shared_from_this();
  WorkPool::Work work = [self, job] {
    make_piece(*job);
    finish_on_strand(self, job);
  };
  if (!s.core.transfers.post_continuation(std::move(work))) co_return false;
  Job& waited = *job;
  bool in_time = co_await wait_done(s, waited);
  co_return in_time && job->piece_status.ok();
}

Co<bool> write_source(Session& s, const JobPtr& job) {
  Pace pace(s.core.options.limits);
  const bool chunked = !job->response.source_length.has_value();
  std::uint64_t left = job->response.source_length.value_or(0);
  job->piece.resize(s.core.options.limits.chunk_bytes);
  for (;;) {
    const auto before = SteadyClock::now();
    bool pulled = co_await pull(s, job);
    if (!pulled) co_return false;
    pace.excuse(SteadyClock::now() - before);
    const std::size_t n = job->piece_size;
    if (!chunked && n > left) co_return false;
    left -= chunked ? 0 : n;
    Bytes out;
    if (chunked) {
      std::array<char, 24> size_line{};
      std::snprintf(size_line.data(), size_line.size(), "%zx\r\n", n);
      append(out, as_bytes(size_line.data()));
    }
    append(out, ByteView(job->piece).first(n));
    if (chunked) append(out, as_bytes("\r\n"));
    ByteView view(out);
    bool written = co_await write_bytes(s, view, pace);
    if (!written) co_return false;
    if (n == 0) co_return chunked || left == 0;
    if (!chunked && left == 0) co_return true;
  }
}

// False when the connection is of no more use.
Co<bool> write_response(Session& s, const JobPtr& job) {
  const Response& r = job->response;
  if (r.status >= 500) ++s.core.counters.answers_5xx;
  if (r.status >= 400 && r.status < 500) ++s.core.counters.answers_4xx;
  const std::string head = head_of(r, job->request, s.close);
  const bool no_body = job->request.method == "HEAD";
  Bytes out = to_bytes(as_bytes(head));
  if (!r.source && !no_body) append(out, r.body);
  Pace pace(s.core.options.limits);
  ByteView view(out);
  bool ok = co_await write_bytes(s, view, pace);
  if (ok && r.source && !no_body) ok = co_await write_source(s, job);
  co_return ok && !s.close;
}

// ---------------------------------------------------------------- reading

// Some bytes of the current body; 0 when the peer is gone or too slow.
Co<std::size_t> read_body(Session& s, MutableByteView out, Pace& pace) {
  const std::size_t want = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), s.unread));
  std::size_t n = std::min(want, s.buffer.size());
  if (n > 0) {
    std::memcpy(out.data(), s.buffer.data().data(), n);
    s.buffer.consume(n);
  } else {
    const auto deadline = pace.deadline();
    s.tcp_layer().expires_at(deadline);
    const auto space = asio::buffer(out.data(), want);
    auto [ec, got] = co_await s.stream.async_read_some(space, kTuple);
    if (ec) co_return 0;
    n = got;
  }
  s.unread -= n;
  pace.moved(n);
  co_return n;
}

Co<Status> read_whole_body(Session& s, Job& job) {
  const std::size_t step = s.core.options.limits.chunk_bytes;
  Pace pace(s.core.options.limits);
  Bytes& body = job.request.body;
  while (s.unread > 0) {
    const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(step, s.unread));
    const std::size_t at = body.size();
    if (!s.core.reserve(n)) {
      ++s.core.counters.shed;
      co_return fail(Reason::kUnavailable, "too many requests with large bodies at once")
          .hint("repeat in a second");
    }
    job.reserved += n;
    body.resize(at + n);
    const MutableByteView space(body.data() + at, n);
    std::size_t got = co_await read_body(s, space, pace);
    body.resize(at + got);
    s.core.buffered.fetch_sub(n - got);
    job.reserved -= n - got;
    if (got == 0) {
      s.close = true;
      co_return fail(Reason::kTimedOut, "body of the request did not arrive")
          .hint("send it faster");
    }
  }
  co_return ok_status();
}

// Feeds the pipe of a streamed upload until the body is in or the handler has answered.
Co<void> pump(Session& s, const JobPtr& job) {
  Pace pace(s.core.options.limits, &s.core.transfers);
  while (s.unread > 0 && !job->done) {
    const auto before = SteadyClock::now();
    const auto deadline = before + milliseconds(s.core.options.limits.handler_timeout_ms);
    while (job->pipe->full() && !job->done && !s.cut && SteadyClock::now() < deadline) {
      s.event.expires_at(deadline);
      auto [ec] = co_await s.event.async_wait(kTuple);
      (void)ec;
    }
    pace.excuse(SteadyClock::now() - before);
    if (job->done || job->pipe->full()) co_return;
    Bytes chunk(s.core.options.limits.chunk_bytes);
    const MutableByteView space(chunk);
    std::size_t got = co_await read_body(s, space, pace);
    if (got == 0) {
      s.close = true;
      job->pipe->fail_with(
          fail(Reason::kConnectionClosed, "the upload broke off").hint("send it again"));
      co_return;
    }
    chunk.resize(got);
    job->pipe->push(std::move(chunk));
  }
  if (s.unread == 0) job->pipe->finish();
}

// After an early answer the peer may still be sending; closing at once would make its kernel drop
// the answer.
Co<void> linger(Session& s) {
  const auto deadline = SteadyClock::now() + milliseconds(s.core.options.limits.linger_ms);
  Bytes sink(s.core.options.limits.chunk_bytes);
  const auto space = asio::buffer(sink);
  while (SteadyClock::now() < deadline) {
    s.tcp_layer().expires_at(deadline);
    auto [ec, n] = co_await s.stream.async_read_some(space, kTuple);
    if (ec || n == 0) co_return;
  }
}

// ---------------------------------------------------------------- one request

Status copy_fields(const Parser& parser, Request* out) {
  for (const auto& field : parser.get()) {
    std::string name(field.name_string());
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    std::string value(field.value());
    if (!valid_utf8(value)) return fail(Reason::kUsage, "header is not UTF-8");
    if (!out->headers.emplace(std::move(name), std::move(value)).second) {
      return fail(Reason::kUsage,
                  "header given twice: " + printable(std::string(field.name_string()), 64));
    }
  }
  return ok_status();
}

// Fills `out` from a parsed header, or says why not. `status` is set where the reason alone does
// not give it.
Status build_request(const Parser& parser, Request* out, int* status) {
  const auto& message = parser.get();
  out->method = std::string(message.method_string());
  out->target = std::string(message.target());
  if (message.version() != 11) {
    *status = 505;
    return fail(Reason::kUsage, "only HTTP/1.1 is spoken here");
  }
  GBX_TRY(copy_fields(parser, out));
  if (!out->headers.contains("host")) return fail(Reason::kUsage, "header host is missing");
  if (parser.chunked() || out->headers.contains("transfer-encoding")) {
    *status = 411;
    return fail(Reason::kUsage, "bodies need a content-length");
  }
  if (out->headers.contains("upgrade")) {
    return fail(Reason::kUsage, "protocol upgrades are not offered");
  }
  const boost::optional<std::uint64_t> length = parser.content_length();
  out->content_length = length ? *length : 0;
  GBX_ASSIGN(Target target, parse_target(out->target));
  out->path = std::move(target.path);
  out->query = std::move(target.query);
  return ok_status();
}

BodyPlan plan_for(Core& core, const Request& request) {
  BodyPlan plan;
  plan.max_bytes = core.options.limits.json_body_bytes;
  if (core.options.planner) plan = core.options.planner(request);
  if (!plan.refuse && request.content_length > plan.max_bytes) {
    plan.refuse = error_response(fail(Reason::kTooLarge, "body of the request")
                                     .with("at most " + std::to_string(plan.max_bytes) + " bytes",
                                           std::to_string(request.content_length) + " bytes"));
  }
  return plan;
}

Response call_handler(const Core& core, const Request& request) {
  try {
    return core.handler(request);
  } catch (const std::exception& e) {
    return error_response(fail(Reason::kInternal, std::string("the handler threw: ") + e.what()));
  } catch (...) {
    return error_response(fail(Reason::kInternal, "the handler threw"));
  }
}

Response busy() {
  return error_response(
      fail(Reason::kUnavailable, "the service is busy").hint("repeat in a second"));
}

bool post_handler(Session& s, const JobPtr& job) {
  SessionPtr self = s.shared_from_this();
  WorkPool& pool = job->pipe ? s.core.transfers : s.core.calls;
  const bool posted = pool.try_post([self, job] {
    job->made = call_handler(self->core, job->request);
    finish_on_strand(self, job);
  });
  if (posted) return true;
  ++s.core.counters.shed;
  job->response = busy();
  return false;
}

// Runs the handler, feeding it a streamed body meanwhile. The answer is in job->response.
Co<void> run_handler(Session& s, const JobPtr& job) {
  s.working = true;
  if (!post_handler(s, job)) {
    s.working = false;
    co_return;
  }
  if (job->pipe) co_await pump(s, job);
  Job& waited = *job;
  bool in_time = co_await wait_done(s, waited);
  s.working = false;
  if (in_time) {
    job->response = std::move(job->made);
    if (job->response.known_caller) s.known = true;
    co_return;
  }
  job->abandoned = true;  // the handler may still be at work on `request` and `made`
  job->response = busy();
  if (job->pipe) job->pipe->fail_with(fail(Reason::kTimedOut, "request"));
  s.close = true;
}

Co<bool> send_continue(Session& s, const Request& request) {
  const auto expect = request.headers.find("expect");
  if (expect == request.headers.end() || s.buffer.size() > 0) co_return true;
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  Pace pace(s.core.options.limits);
  ByteView view = as_bytes(kContinue);
  bool ok = co_await write_bytes(s, view, pace);
  co_return ok;
}

// From a good header to job->response; false when there is nobody left to answer.
Co<bool> answer(Session& s, const JobPtr& job) {
  Request& request = job->request;
  BodyPlan plan = plan_for(s.core, request);
  if (plan.refuse) {
    job->response = std::move(*plan.refuse);
    co_return true;
  }
  if (s.unread > 0) {
    bool ok = co_await send_continue(s, request);
    if (!ok) co_return false;
  }
  if (plan.streaming) {
    SessionPtr self = s.shared_from_this();
    job->pipe = std::make_shared<BodyPipe>(
        s.core.options.limits.pipe_bytes,
        s.core.options.limits.idle_timeout_ms + s.core.options.limits.body_grace_ms,
        [self] { asio::post(self->stream.get_executor(), [self] { self->wake(); }); });
    request.stream = job->pipe;
  } else {
    Job& filled = *job;
    Status body = co_await read_whole_body(s, filled);
    if (!body.ok()) {
      job->response = error_response(body.error(), body.reason() == Reason::kTimedOut ? 408 : 0);
      co_return true;
    }
  }
  co_await run_handler(s, job);
  co_return true;
}

void log_request(const Session& s, const Job& job, SteadyClock::time_point start) {
  if (s.core.options.log == nullptr) return;
  const auto took = std::chrono::duration_cast<milliseconds>(SteadyClock::now() - start).count();
  s.core.options.log->info("request", {{"id", Json(job.request.id)},
                                       {"peer", Json(s.peer)},
                                       {"method", Json(printable(job.request.method, 16))},
                                       {"target", Json(printable(job.request.target, 256))},
                                       {"status", Json(job.response.status)},
                                       {"ms", Json(static_cast<std::int64_t>(took))}});
  if (job.response.hidden) {
    s.core.options.log->error("request-failed", *job.response.hidden,
                              {{"id", Json(job.request.id)}});
  }
  if (!job.piece_status.ok()) {
    s.core.options.log->error("download-failed", job.piece_status.error(),
                              {{"id", Json(job.request.id)}});
  }
}

// ---------------------------------------------------------------- one connection

Co<bool> read_header(Session& s, Parser& parser, boost::system::error_code& error) {
  const Limits& limits = s.core.options.limits;
  s.idle = s.buffer.size() == 0;
  if (s.idle) {
    if (s.core.stopping) co_return false;
    const milliseconds wait(s.number != 0 && s.requests > 0 ? limits.idle_timeout_ms
                                                            : limits.header_timeout_ms);
    s.tcp_layer().expires_after(wait);
    const auto space = s.buffer.prepare(4096);
    auto [ec, n] = co_await s.stream.async_read_some(space, kTuple);
    if (ec) co_return false;
    s.buffer.commit(n);
    s.idle = false;
  }
  const milliseconds whole(limits.header_timeout_ms);
  s.tcp_layer().expires_after(whole);
  auto [ec, n] = co_await bhttp::async_read_header(s.stream, s.buffer, parser, kTuple);
  (void)n;
  error = ec;
  co_return true;
}

// The answer to a header that did not parse, or nothing when the peer is gone.
std::optional<Response> bad_header_response(const boost::system::error_code& ec) {
  if (ec == bhttp::error::header_limit || ec == bhttp::error::buffer_overflow) {
    return error_response(fail(Reason::kTooLarge, "header of the request"), 431);
  }
  if (ec == beast::error::timeout || ec == bhttp::error::end_of_stream ||
      ec == bhttp::error::partial_message) {
    return std::nullopt;
  }
  if (ec.category() == bhttp::make_error_code(bhttp::error::bad_method).category()) {
    return error_response(fail(Reason::kUsage, "this is not HTTP/1.1: " + ec.message()));
  }
  return std::nullopt;
}

Co<bool> serve_request(Session& s) {
  const Limits& limits = s.core.options.limits;
  Parser parser;
  parser.header_limit(static_cast<std::uint32_t>(limits.header_bytes));
  parser.body_limit(boost::none);  // the plan of the route decides
  boost::system::error_code ec;
  bool here = co_await read_header(s, parser, ec);
  if (!here) co_return false;
  const auto start = SteadyClock::now();
  JobPtr job = std::make_shared<Job>(s.core);
  job->request.peer = s.peer;
  job->request.id = std::to_string(s.number) + "-" + std::to_string(++s.requests);
  ++s.core.counters.requests;
  if (ec) {
    std::optional<Response> bad = bad_header_response(ec);
    if (!bad) co_return false;
    job->response = std::move(*bad);
    s.close = true;
  } else {
    s.close =
        !parser.keep_alive() || s.requests >= limits.requests_per_connection || s.core.stopping;
    int status = 0;
    const Status built = build_request(parser, &job->request, &status);
    s.unread = job->request.content_length;
    if (!built.ok()) {
      job->response = error_response(built.error(), status);
      s.close = true;
    } else {
      bool answered = co_await answer(s, job);
      if (!answered) co_return false;
    }
  }
  const bool early = s.unread > 0 || ec;
  const bool enough =
      !job->response.known_caller && ++s.strange >= limits.strange_requests_per_connection;
  if (early || enough || s.core.stopping) s.close = true;
  if (!job->abandoned) job->release_body();
  bool again = co_await write_response(s, job);
  log_request(s, *job, start);
  if (early) co_await linger(s);
  co_return again;
}

Co<void> run_session(SessionPtr session) {
  Session& s = *session;
  const milliseconds wait(s.core.options.limits.header_timeout_ms);
  s.tcp_layer().expires_after(wait);
  constexpr auto kSide = asio::ssl::stream_base::server;
  auto [ec] = co_await s.stream.async_handshake(kSide, kTuple);
  if (ec) {
    ++s.core.counters.handshakes_failed;
    co_return;
  }
  for (bool again = true; again;) {
    again = co_await serve_request(s);
  }
  s.idle = false;
  const milliseconds last(1000);
  s.tcp_layer().expires_after(last);
  auto [end] = co_await s.stream.async_shutdown(kTuple);
  (void)end;  // the peer may be gone
}

Co<void> accept_loop(Core& core) {
  asio::steady_timer pause(core.io);
  while (!core.stopping) {
    tcp::socket socket(asio::make_strand(core.io));
    auto [ec] = co_await core.acceptor.async_accept(socket, kTuple);
    if (ec == asio::error::operation_aborted || core.stopping) co_return;
    if (ec) {  // out of descriptors, most likely: let some close
      const milliseconds wait(50);
      pause.expires_after(wait);
      auto [waited] = co_await pause.async_wait(kTuple);
      (void)waited;
      continue;
    }
    boost::system::error_code ignored;
    const tcp::endpoint remote = socket.remote_endpoint(ignored);
    if (ignored) continue;
    socket.set_option(tcp::no_delay(true), ignored);
    SessionPtr session = std::make_shared<Session>(core, std::move(socket), remote.address());
    if (!core.admit(session.get())) {
      ++core.counters.refused;
      continue;  // closes it
    }
    asio::co_spawn(session->stream.get_executor(), run_session(session),
                   [session](std::exception_ptr) {
                     session->tcp_layer().close();
                     session->core.leave(session.get());
                   });
  }
}

// ---------------------------------------------------------------- start

Status use_certificates(SSL_CTX* ctx, const ServerOptions& o) {
  const auto refuse = [](const char* what) { return Status(fail(Reason::kCrypto, what)); };
  if (SSL_CTX_use_certificate_ASN1(ctx, static_cast<int>(o.certificate_der.size()),
                                   o.certificate_der.data()) != 1) {
    return refuse("server certificate");
  }
  for (const Bytes& der : o.chain_der) {
    const std::uint8_t* p = der.data();
    X509* x = d2i_X509(nullptr, &p, static_cast<long>(der.size()));
    if (x == nullptr) return refuse("certificate chain");
    if (SSL_CTX_add0_chain_cert(ctx, x) != 1) {
      X509_free(x);
      return refuse("certificate chain");
    }
  }
  const ByteView key = o.key_pkcs8_der.view(SecretAccess{});
  const std::uint8_t* p = key.data();
  EVP_PKEY* pkey = d2i_AutoPrivateKey(nullptr, &p, static_cast<long>(key.size()));
  if (pkey == nullptr) return refuse("server key");
  const int used = SSL_CTX_use_PrivateKey(ctx, pkey);
  EVP_PKEY_free(pkey);
  if (used != 1 || SSL_CTX_check_private_key(ctx) != 1) {
    return refuse("server key does not fit the certificate");
  }
  return ok_status();
}

// TLS 1.3 alone; no resumption, no early data, no renegotiation, so every connection is a fresh
// handshake.
Status set_up_tls(SSL_CTX* ctx, const ServerOptions& o) {
  if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_num_tickets(ctx, 0) != 1 || SSL_CTX_set_max_early_data(ctx, 0) != 1 ||
      SSL_CTX_set_ciphersuites(
          ctx, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256") != 1) {
    return fail(Reason::kCrypto, "TLS set-up");
  }
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  return use_certificates(ctx, o);
}

Status open_acceptor(Core& core) {
  boost::system::error_code ec;
  const asio::ip::address address = asio::ip::make_address(core.options.bind_address, ec);
  if (ec) {
    return fail(Reason::kUsage, "listen address")
        .with("an IP address", printable(core.options.bind_address, 64));
  }
  const tcp::endpoint endpoint(address, core.options.port);
  core.acceptor.open(endpoint.protocol(), ec);
  if (!ec) core.acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec) core.acceptor.bind(endpoint, ec);
  if (!ec) core.acceptor.listen(asio::socket_base::max_listen_connections, ec);
  if (ec) {
    const bool no_such = ec == boost::system::errc::address_not_available;
    return fail(Reason::kIo, "listen on " + core.options.bind_address + " port " +
                                 std::to_string(core.options.port) + ": " + ec.message())
        .hint(no_such ? "choose an address of this machine, or 0.0.0.0"
                      : "choose another port, or stop what uses it");
  }
  core.port = core.acceptor.local_endpoint(ec).port();
  return ok_status();
}

}  // namespace

Server::Server(std::unique_ptr<Core> core) : core_(std::move(core)) {}
Server::~Server() { stop(); }
std::uint16_t Server::port() const { return core_->port; }

Result<std::unique_ptr<Server>> Server::start(ServerOptions options, Handler handler) {
  auto core = std::make_unique<Core>(std::move(options), std::move(handler));
  GBX_TRY(set_up_tls(core->ssl.native_handle(), core->options));
  GBX_TRY(open_acceptor(*core));
  asio::co_spawn(core->io, accept_loop(*core), [](std::exception_ptr) {});
  for (std::size_t i = 0; i < core->options.limits.io_threads; ++i) {
    Core* c = core.get();
    core->io_threads.emplace_back([c] { c->io.run(); });
    pthread_setname_np(core->io_threads.back().native_handle(),
                       ("api-io-" + std::to_string(i)).c_str());
  }
  return std::unique_ptr<Server>(new Server(std::move(core)));
}

ServerStats Server::stats() const {
  ServerStats out;
  {
    const std::lock_guard lock(core_->mutex);
    out.connections_open = core_->places;
  }
  out.connections_refused = core_->counters.refused;
  out.handshakes_failed = core_->counters.handshakes_failed;
  out.requests = core_->counters.requests;
  out.requests_shed = core_->counters.shed;
  out.answers_4xx = core_->counters.answers_4xx;
  out.answers_5xx = core_->counters.answers_5xx;
  return out;
}

namespace {

// Each on its own strand. `all`: also those in the middle of a request.
void close_sessions(Core& core, bool all) {
  const std::lock_guard lock(core.mutex);
  for (Session* session : core.sessions) {
    const SessionPtr s = session->weak_from_this().lock();
    if (!s) continue;
    asio::post(s->stream.get_executor(), [s, all] {
      if (!all && !s->idle) return;
      s->cut = all;
      s->tcp_layer().close();
      s->wake();
    });
  }
}

}  // namespace

void Server::stop() {
  Core& core = *core_;
  {
    const std::lock_guard lock(core.mutex);
    if (core.stopped) return;
    core.stopped = true;
  }
  core.stopping = true;
  asio::post(core.io, [&core] {
    boost::system::error_code ignored;
    core.acceptor.close(ignored);
  });
  close_sessions(core, false);
  const auto empty = [&core] { return core.sessions.empty(); };
  const milliseconds grace(core.options.limits.stop_grace_ms);
  {
    std::unique_lock lock(core.mutex);
    core.emptied.wait_for(lock, grace, empty);
  }
  close_sessions(core, true);
  core.calls.stop();
  core.transfers.stop();
  {
    std::unique_lock lock(core.mutex);
    core.emptied.wait_for(lock, grace, empty);
  }
  core.io.stop();
  for (std::thread& t : core.io_threads) t.join();
  // The posted close may never have run; a port left open would swallow connections until the
  // server is destroyed.
  boost::system::error_code ignored;
  core.acceptor.close(ignored);
}

}  // namespace gbx::plane::http
