#include "channel/rpc.h"

#include <gtest/gtest.h>

#include <thread>

namespace gbx::channel {
namespace {

const SystemClock kClock;
Deadline in_ms(std::int64_t ms) { return Deadline::after_ms(kClock, ms); }

Json number(std::int64_t n) { return Json(n); }

Result<Json> test_methods(std::string_view method, const Json& body) {
  if (method == "echo") return body;
  if (method == "deny") {
    return fail(Reason::kLeaseExpired, "lease \x1b[31m of\nbob")
        .with("a", "b")
        .hint("ask for another lease");
  }
  if (method == "large") return Json(std::string(2000, 'x'));
  return fail(Reason::kNotFound, "method " + std::string(method));
}

// A server on the other end of a pipe, for the life of a test.
struct Server {
  explicit Server(ServeLimits limits = {}) {
    auto ends = make_memory_pipe();
    near = std::move(ends.first);
    far = std::move(ends.second);
    thread = std::thread([this, limits] {
      result = serve(*far, test_methods, limits, kClock);
      far->close();
    });
  }
  ~Server() { stop(); }
  void stop() {
    near->close();
    if (thread.joinable()) thread.join();
  }
  std::unique_ptr<ByteStream> near, far;
  std::thread thread;
  Status result;
};

TEST(Rpc, CallsAndTypedErrors) {
  Server server;
  RpcClient client(*server.near, kClock);
  for (std::int64_t i = 0; i < 100; ++i) {
    Json body;
    body["n"] = number(i);
    EXPECT_EQ(client.call("echo", body, 10'000).value(), body);
  }
  EXPECT_TRUE(client.call("echo", Json(), 10'000).value().is_null());
  auto denied = client.call("deny", Json(), 10'000);
  EXPECT_EQ(denied.reason(), Reason::kLeaseExpired);
  EXPECT_EQ(denied.error().expected, "a");
  EXPECT_EQ(denied.error().actual, "b");
  EXPECT_EQ(denied.error().next, "ask for another lease");
  EXPECT_EQ(denied.error().what.find('\x1b'), std::string::npos);
  EXPECT_EQ(denied.error().what.find('\n'), std::string::npos);
  EXPECT_FALSE(client.broken());
  EXPECT_EQ(client.call("nothing", Json(), 10'000).reason(), Reason::kNotFound);
  ASSERT_TRUE(server.near->finish(in_ms(1000)).ok());
  server.thread.join();
  EXPECT_TRUE(server.result.ok());
}

TEST(Rpc, ServerLimits) {
  ServeLimits limits;
  limits.max_frames = 2;
  {
    Server server(limits);
    RpcClient client(*server.near, kClock);
    EXPECT_TRUE(client.call("echo", Json(), 10'000).ok());
    EXPECT_TRUE(client.call("echo", Json(), 10'000).ok());
    EXPECT_EQ(client.call("echo", Json(), 10'000).reason(), Reason::kRateLimited);
    server.thread.join();
    EXPECT_EQ(server.result.reason(), Reason::kRateLimited);
    EXPECT_EQ(client.call("echo", Json(), 10'000).reason(), Reason::kConnectionClosed);
  }
  limits = {};
  limits.max_bytes = 100;
  {
    Server server(limits);
    RpcClient client(*server.near, kClock);
    EXPECT_EQ(client.call("echo", Json(std::string(200, 'x')), 10'000).reason(),
              Reason::kRateLimited);
  }
  limits = {};
  limits.max_frame_bytes = 1000;
  {
    Server server(limits);
    RpcClient client(*server.near, kClock);
    // An answer that does not fit is an answer all the same.
    EXPECT_EQ(client.call("large", Json(), 10'000).reason(), Reason::kTooLarge);
    EXPECT_TRUE(client.call("echo", Json(), 10'000).ok());
    EXPECT_EQ(client.call("echo", Json(std::string(2000, 'x')), 10'000).reason(),
              Reason::kConnectionClosed);
    server.thread.join();
    EXPECT_EQ(server.result.reason(), Reason::kTooLarge);
  }
  {
    Server server;
    RpcClient client(*server.near, kClock, 1000);
    // What would not travel is not begun: the connection is as good as before.
    EXPECT_EQ(client.call("echo", Json(std::string(2000, 'x')), 10'000).reason(),
              Reason::kTooLarge);
    EXPECT_FALSE(client.broken());
    EXPECT_TRUE(client.call("echo", Json(), 10'000).ok());
  }
  limits = {};
  limits.idle_ms = 30;
  Server server(limits);
  server.thread.join();
  EXPECT_EQ(server.result.reason(), Reason::kTimedOut);
}

TEST(Rpc, ASlowFrameMeetsItsDeadline) {
  ServeLimits limits;
  limits.idle_ms = 40;
  limits.frame_ms = 40;
  Server server(limits);
  ASSERT_TRUE(server.near->write_all(Bytes{100, 0, 0, 0, '{'}, in_ms(1000)).ok());
  server.thread.join();
  EXPECT_EQ(server.result.reason(), Reason::kTimedOut);
}

Reason server_says(ByteView raw) {
  Server server;
  EXPECT_TRUE(server.near->write_all(raw, in_ms(10'000)).ok());
  EXPECT_TRUE(server.near->finish(in_ms(1000)).ok());
  server.thread.join();
  return server.result.ok() ? Reason::kUninitialised : server.result.reason();
}
Bytes framed(std::string_view text) { return ByteWriter().bytes32(as_bytes(text)).take(); }

TEST(Rpc, MalformedRequestsEndTheConnection) {
  EXPECT_EQ(server_says(framed(R"({"body":null,"id":1,"method":"echo"})")),
            Reason::kUninitialised);  // well-formed
  EXPECT_EQ(server_says(framed(R"({"id":1,"body":null,"method":"echo"})")),
            Reason::kBadEncoding);  // not canonical
  EXPECT_EQ(server_says(framed(R"({"body":null,"id":1,"method":"echo"} )")), Reason::kBadEncoding);
  EXPECT_EQ(server_says(framed(R"({"body":null,"id":1,"method":"echo","x":1})")),
            Reason::kUnknownField);
  EXPECT_EQ(server_says(framed(R"({"id":1,"method":"echo"})")), Reason::kMissingField);
  EXPECT_EQ(server_says(framed(R"({"body":null,"id":0,"method":"echo"})")), Reason::kBadValue);
  EXPECT_EQ(server_says(framed(R"({"body":null,"id":1,"method":""})")), Reason::kBadValue);
  EXPECT_EQ(server_says(framed("{")), Reason::kBadJson);
  EXPECT_EQ(server_says(framed("")), Reason::kBadJson);
  EXPECT_EQ(server_says(Bytes{1, 0, 0}), Reason::kTruncated);
  EXPECT_EQ(server_says(Bytes{5, 0, 0, 0, '{'}), Reason::kTruncated);
  EXPECT_EQ(server_says(Bytes{1, 0, 0, 1}), Reason::kTooLarge);  // 16 MiB + 1, nothing behind it
  EXPECT_EQ(server_says(Bytes{0xFF, 0xFF, 0xFF, 0xFF}), Reason::kTooLarge);
}

Reason client_says(std::string_view answer) {
  auto [near, far] = make_memory_pipe();
  EXPECT_TRUE(far->write_all(framed(answer), in_ms(1000)).ok());
  RpcClient client(*near, kClock);
  auto r = client.call("echo", Json(), 10'000);
  if (r.ok()) return Reason::kUninitialised;
  const Reason first = r.reason();
  if (client.broken()) {
    EXPECT_EQ(client.call("echo", Json(), 10'000).reason(), Reason::kConnectionClosed);
  }
  return first;
}

TEST(Rpc, MalformedAnswersBreakTheClient) {
  EXPECT_EQ(client_says(R"({"body":7,"id":1})"), Reason::kUninitialised);
  EXPECT_EQ(client_says(R"({"body":7,"id":2})"), Reason::kBadStructure);
  EXPECT_EQ(client_says(R"({"id":1})"), Reason::kBadStructure);
  EXPECT_EQ(
      client_says(
          R"({"body":7,"error":{"actual":"","expected":"","next":"","reason":"held","what":""},"id":1})"),
      Reason::kBadStructure);
  EXPECT_EQ(
      client_says(
          R"({"error":{"actual":"","expected":"","next":"","reason":"held","what":""},"id":1})"),
      Reason::kHeld);
  EXPECT_EQ(
      client_says(
          R"({"error":{"actual":"","expected":"","next":"","reason":"fine","what":""},"id":1})"),
      Reason::kBadStructure);
  EXPECT_EQ(client_says(R"({"error":{},"id":1})"), Reason::kMissingField);
}

TEST(Rpc, ATimeoutBreaksTheClient) {
  auto [near, far] = make_memory_pipe();
  RpcClient client(*near, kClock);
  EXPECT_EQ(client.call("echo", Json(), 30).reason(), Reason::kTimedOut);
  EXPECT_TRUE(client.broken());
  EXPECT_EQ(client.call("echo", Json(), 30).reason(), Reason::kConnectionClosed);
}

TEST(Frames, RawFramesOfEverySizeClass) {
  for (const std::size_t size : {0UL, 1UL, 65'535UL, 65'536UL, 65'537UL, 1'000'000UL}) {
    auto [a, b] = make_memory_pipe(1 << 12);
    Bytes body(size);
    SeededRandom(size).fill(body);
    std::thread writer([&body, &end = *a] {
      EXPECT_TRUE(write_frame(end, body, kMaxFrameBytes, in_ms(20'000)).ok());
    });
    EXPECT_EQ(read_one_frame(*b, size, in_ms(20'000)).value(), body);
    writer.join();
    EXPECT_EQ(write_frame(*a, Bytes(11), 10, in_ms(1000)).reason(), Reason::kTooLarge);
  }
  auto [a, b] = make_memory_pipe();
  ASSERT_TRUE(a->finish(in_ms(1000)).ok());
  EXPECT_EQ(read_one_frame(*b, 10, in_ms(1000)).reason(), Reason::kConnectionClosed);
}

TEST(Errors, SurviveTheWire) {
  const Error e = fail(Reason::kBadTag, "chunk 3").with("x", "y").hint("z");
  const Error back = error_from_json(error_to_json(e));
  EXPECT_EQ(back.line(), e.line());
  EXPECT_EQ(back.next, e.next);
  EXPECT_EQ(error_from_json(Json(3)).reason, Reason::kBadStructure);
  // However long the texts are, what is sent can be read.
  for (std::size_t pad = 0; pad < 8; ++pad) {
    std::string text(1016 + pad, 'a');
    for (int i = 0; i < 10; ++i) text += "\u20ac\u202e\n";
    const Error cut =
        error_from_json(parse_json(canonical(error_to_json(fail(Reason::kHeld, text)))).value());
    EXPECT_EQ(cut.reason, Reason::kHeld) << pad;
    EXPECT_TRUE(valid_utf8(cut.what));
    EXPECT_GE(cut.what.size(), 1016U);
  }
}

}  // namespace
}  // namespace gbx::channel
