// S3 by its published vectors, and against servers that answer with everything but what was asked.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <atomic>

#include "base/os.h"
#include "channel/net.h"
#include "crypto/crypto.h"
#include "storage/s3/s3_store.h"

namespace gbx::storage {
namespace {

S3Credentials published() {
  return {"AKIAIOSFODNN7EXAMPLE",
          S3SecretKey::copy_of(as_bytes("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")), "us-east-1"};
}
std::string signature(const std::string& method, const std::string& path, const std::string& query,
                      std::map<std::string, std::string> more, const std::string& body) {
  S3Request r{method, path, query, std::move(more), to_hex(crypto::sha256(as_bytes(body)))};
  r.headers["host"] = "examplebucket.s3.amazonaws.com";
  r.headers["x-amz-date"] = s3_time({1'369'353'600'000});
  r.headers["x-amz-content-sha256"] = r.payload_hash;
  const std::string text = s3_authorization(r, published());
  EXPECT_EQ(text.rfind("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
                       "aws4_request,SignedHeaders=",
                       0),
            0U)
      << text;
  return text.substr(text.find("Signature=") + 10);
}

// Amazon S3 API reference, "Signature calculations for the Authorization header": its examples.
TEST(S3Signing, AgreesWithTheFourPublishedExamples) {
  EXPECT_EQ(s3_time({1'369'353'600'000}), "20130524T000000Z");
  EXPECT_EQ(signature("GET", "/test.txt", "", {{"range", "bytes=0-9"}}, ""),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
  EXPECT_EQ(signature("PUT", "/test%24file.text", "",
                      {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                       {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                      "Welcome to Amazon S3."),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
  EXPECT_EQ(signature("GET", "/", "lifecycle=", {}, ""),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(signature("GET", "/", "max-keys=2&prefix=J", {}, ""),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

// A server of this test: each request gets the next answer, the last one again and again.
class Server {
 public:
  // What it says; `endless` is sent until the client has gone, and `hang` waits for that.
  struct Answer {
    std::string text;
    std::string endless;
    bool hang = false;
  };
  explicit Server(std::vector<Answer> answers) : answers_(std::move(answers)) {
    auto listener = channel::listen_tcp({"127.0.0.1", 0}).value();
    server_ =
        channel::ConnectionServer::start(std::move(listener), 8, [this](channel::FdStream& s) {
          serve(s);
        }).value();
  }
  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }
  int requests() const { return requests_; }
  std::string last() {
    const std::lock_guard lock(mutex_);
    return last_;
  }

 private:
  void serve(channel::FdStream& s) {
    const SystemClock clock;
    const auto soon = [&clock] { return channel::Deadline::after_ms(clock, 30'000); };
    for (;;) {
      std::string head;
      while (head.find("\r\n\r\n") == std::string::npos) {
        Bytes buffer(4096);
        const auto n = s.read(buffer, soon());
        if (!n.ok() || *n == 0) return;
        head += as_text(ByteView(buffer).first(*n));
      }
      const auto number = static_cast<std::size_t>(requests_++);
      {
        const std::lock_guard lock(mutex_);
        last_ = head;
      }
      const Answer& a = answers_[std::min(number, answers_.size() - 1)];
      if (!s.write_all(as_bytes(a.text), soon()).ok()) return;
      while (!a.endless.empty()) {
        if (!s.write_all(as_bytes(a.endless), soon()).ok()) return;
      }
      if (a.hang) {
        Bytes buffer(1);
        (void)s.read(buffer, soon());
        return;
      }
      if (a.text.find("close") != std::string::npos) return;
    }
  }
  const std::vector<Answer> answers_;
  std::atomic<int> requests_{0};
  std::mutex mutex_;
  std::string last_;  // guarded by mutex_
  std::unique_ptr<channel::ConnectionServer> server_;
};

S3Options options_of(const Server& server) {
  S3Options o;
  o.endpoint = server.endpoint();
  o.credentials = published();
  o.place = {"bucket", "ward/"};
  o.patience_ms = 20'000;
  o.stall_ms = 1000;
  o.first_pause_ms = 1;
  return o;
}
std::string part(const std::string& range, const std::string& body) {
  return "HTTP/1.1 206 Partial Content\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\nContent-Range: bytes " + range + "\r\n\r\n" + body;
}
Server::Answer plain(const std::string& status) {
  return {"HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n", "", false};
}

class S3 : public ::testing::Test {
 protected:
  // Reads bytes 10 to 13 of an object.
  Status read(const Server& server, std::int64_t patience_ms = 20'000) {
    S3Options o = options_of(server);
    o.patience_ms = patience_ms;
    store_ = S3Store::open(std::move(o), clock_).value();
    got_.assign(4, 0);
    return store_->get("object-1", 10, got_);
  }
  const SystemClock clock_;
  std::unique_ptr<S3Store> store_;
  Bytes got_;
};

TEST_F(S3, ReadsARangeWithASignedRequest) {
  Server server({{part("10-13/100", "abcd"), "", false}});
  ASSERT_TRUE(read(server).ok());
  EXPECT_EQ(as_text(got_), "abcd");
  const std::string head = server.last();
  EXPECT_EQ(head.rfind("GET /bucket/ward/object-1 HTTP/1.1\r\n", 0), 0U) << head;
  for (const char* line : {"\r\nrange: bytes=10-13\r\n",
                           "SignedHeaders=host;range;x-amz-content-"
                           "sha256;x-amz-date,"}) {
    EXPECT_NE(head.find(line), std::string::npos) << head;
  }
  EXPECT_EQ(head.find("EXAMPLEKEY"), std::string::npos);
  // A whole page of requests over one connection.
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(store_->get("object-1", 10, got_).ok());
  EXPECT_EQ(server.requests(), 6);
}

TEST_F(S3, TellsWhatIsNotThere) {
  Server gone({plain("404 Not Found")});
  EXPECT_EQ(read(gone).reason(), Reason::kNotFound);
  EXPECT_EQ(store_->size("object-1").reason(), Reason::kNotFound);
  Server beyond({plain("416 Range Not Satisfiable")});
  EXPECT_EQ(read(beyond).reason(), Reason::kTruncated);
  Server shorter({{part("10-11/12", "ab"), "", false}});
  EXPECT_EQ(read(shorter).reason(), Reason::kTruncated);
  Server sized({{"HTTP/1.1 200 OK\r\nContent-Length: 12345678901\r\n\r\n", "", false}});
  store_ = S3Store::open(options_of(sized), clock_).value();
  EXPECT_EQ(store_->size("object-1").value(), 12'345'678'901U);
  EXPECT_NE(sized.last().find("HEAD /bucket/ward/object-1"), std::string::npos);
  EXPECT_EQ(store_->size("../x").reason(), Reason::kBadValue);
  EXPECT_EQ(store_->get("A", 0, got_).reason(), Reason::kBadValue);
  EXPECT_EQ(store_->create("x").reason(), Reason::kUnsupported);
  EXPECT_EQ(store_->get("x", ~std::uint64_t{0}, got_).reason(), Reason::kTruncated);
}

TEST_F(S3, RefusesEveryAnswerThatIsNotTheRange) {
  const std::string many = "HTTP/1.1 206 x\r\nContent-Range: bytes 10-13/100\r\n";
  struct Case {
    const char* what;
    Server::Answer answer;
  };
  const Case cases[] = {
      {"another range", {part("11-14/100", "abcd"), "", false}},
      {"a longer range", {part("10-14/100", "abcde"), "", false}},
      {"a shorter one, of a longer object", {part("10-12/100", "abc"), "", false}},
      {"the end of an object that goes on", {part("10-13/12", "abcd"), "", false}},
      {"no numbers", {part("10-x/100", "abcd"), "", false}},
      {"a huge number", {part("10-13/99999999999999999999999", "abcd"), "", false}},
      {"an unknown length", {part("10-13/*", "abcd"), "", false}},
      {"no range", {"HTTP/1.1 206 x\r\nContent-Length: 4\r\n\r\nabcd", "", false}},
      {"two ranges",
       {many + "Content-Range: bytes 0-3/100\r\nContent-Length: 4\r\n\r\nabcd", "", false}},
      {"less than it says", {many + "Content-Length: 3\r\n\r\nabc", "", false}},
      {"more than it says", {many + "Content-Length: 6\r\n\r\nabcdef", "", false}},
      {"a body without an end", {many + "\r\n", std::string(65536, 'x'), false}},
      {"headers without an end", {many, "x-more: " + std::string(1000, 'x') + "\r\n", false}},
      {"interim answers without an end", {"", "HTTP/1.1 100 Continue\r\n\r\n", false}},
      {"the whole object", {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd", "", false}},
      {"an endless refusal", {"HTTP/1.1 404 x\r\n\r\n", std::string(65536, 'x'), false}}};
  for (const Case& c : cases) {
    Server server({c.answer});
    const Status s = read(server);
    EXPECT_EQ(s.reason(), Reason::kBadStructure) << c.what << ": " << s.error().line();
    EXPECT_EQ(server.requests(), 1) << c.what;  // a liar is not asked again
  }
}

TEST_F(S3, RefusesASizeThatIsNone) {
  for (const char* head : {"HTTP/1.1 200 OK\r\n\r\n",
                           "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
                           "Content-Length: 2\r\n\r\n"}) {
    Server server({{std::string(head), "", false}});
    store_ = S3Store::open(options_of(server), clock_).value();
    EXPECT_FALSE(store_->size("object-1").ok()) << head;
  }
}

TEST_F(S3, ABusyStoreIsAskedAgainAndNotForEver) {
  Server late({plain("503 Slow Down"),
               plain("500 Internal"),
               plain("429 Too Many"),
               {part("10-13/100", "abcd"), "", false}});
  EXPECT_TRUE(read(late).ok());
  EXPECT_EQ(late.requests(), 4);
  Server never({plain("503 Slow Down")});
  EXPECT_EQ(read(never).reason(), Reason::kUnavailable);
  EXPECT_EQ(never.requests(), kS3Attempts);
  Server cut({{"HTTP/1.1 206 x\r\nContent-Range: bytes 10-13/100\r\nContent-Length: 4\r\n"
               "Connection: close\r\n\r\nab",
               "", false},
              {part("10-13/100", "abcd"), "", false}});
  EXPECT_TRUE(read(cut).ok());
  EXPECT_EQ(as_text(got_), "abcd");
}

TEST_F(S3, RefusalsAreNotRepeatedNorFollowed) {
  for (const char* status : {"403 Forbidden", "401 Unauthorized", "400 Bad Request"}) {
    Server server({plain(status)});
    const Status s = read(server);
    EXPECT_EQ(s.reason(), Reason::kUnavailable) << status;
    EXPECT_NE(s.error().next, "") << status;
    const bool key = std::string_view(status).starts_with("40") && status[2] != '0';
    EXPECT_EQ(s.error().next.find("clock") != std::string::npos, key) << status;
    EXPECT_EQ(server.requests(), 1) << status;
    EXPECT_EQ(s.error().line().find("EXAMPLEKEY"), std::string::npos);
  }
  Server other({{part("10-13/100", "abcd"), "", false}});
  Server moved({{"HTTP/1.1 307 Temporary Redirect\r\nLocation: " + other.endpoint() +
                     "/bucket/ward/object-1\r\nContent-Length: 0\r\n\r\n",
                 "", false}});
  EXPECT_EQ(read(moved).reason(), Reason::kUnavailable);
  EXPECT_EQ(other.requests(), 0);
}

TEST_F(S3, AStoreThatStopsIsLeft) {
  const std::string begun =
      "HTTP/1.1 206 x\r\nContent-Range: bytes 10-13/100\r\n"
      "Content-Length: 4\r\n\r\nab";
  for (const std::string& text : {std::string(), std::string("HTTP/1.1 206"), begun}) {
    Server server({{text, "", true}});
    const Status s = read(server, 500);
    EXPECT_EQ(s.reason(), Reason::kUnavailable) << text;
  }
  // Nobody listens.
  S3Options o;
  {
    Server server({plain("404 x")});
    o = options_of(server);
  }
  store_ = S3Store::open(std::move(o), clock_).value();
  EXPECT_EQ(store_->get("object-1", 10, got_).reason(), Reason::kUnavailable);
}

TEST(S3Config, TakesWhatIsMeantAndNothingElse) {
  const std::string good =
      "# of the ward\nendpoint = https://s3.eu-central-1.amazonaws.com\nregion = eu-central-1\n"
      "access-key = AKIA1\nsecret-key = a/b+c=\n";
  const auto o = parse_s3_config(as_bytes(good));
  ASSERT_TRUE(o.ok()) << o.error().line();
  EXPECT_EQ(o->credentials.region, "eu-central-1");
  EXPECT_EQ(as_text(o->credentials.secret_key.view(SecretAccess{})), "a/b+c=");
  struct Case {
    std::string from, to;
    Reason reason;
  };
  const Case cases[] = {{"https://", "http://", Reason::kBadValue},
                        {"https://", "ftp://", Reason::kBadValue},
                        {"https://", "https://user@", Reason::kBadValue},
                        {"amazonaws.com", "amazonaws.com/x", Reason::kBadValue},
                        {"https://s3.eu-central-1.amazonaws.com", "https://", Reason::kBadValue},
                        {"region = eu-central-1", "region = eu/1", Reason::kBadValue},
                        {"AKIA1", "AK\x01", Reason::kBadValue},
                        {"AKIA1", "", Reason::kBadValue},
                        {"region = eu-central-1\n", "", Reason::kMissingField},
                        {"secret-key = a/b+c=\n", "", Reason::kMissingField},
                        {"# of the ward", "region = x", Reason::kDuplicateKey},
                        {"# of the ward", "proxy = x", Reason::kUnknownField},
                        {"# of the ward", "EXAMPLEKEY", Reason::kBadValue}};
  for (const Case& c : cases) {
    std::string text = good;
    text.replace(text.find(c.from), c.from.size(), c.to);
    const auto bad = parse_s3_config(as_bytes(text));
    EXPECT_EQ(bad.reason(), c.reason) << c.to << ": " << bad.error().line();
    EXPECT_EQ(bad.error().line().find("EXAMPLEKEY"), std::string::npos);
  }
}

TEST(S3Config, PlacesAreNamesThatNeedNoEncoding) {
  const auto place = s3_place("s3://bucket.x/ward-3/Data_1/");
  ASSERT_TRUE(place.ok());
  EXPECT_EQ(place->bucket, "bucket.x");
  EXPECT_EQ(place->prefix, "ward-3/Data_1/");
  EXPECT_EQ(s3_place("s3://bucket")->prefix, "");
  for (const char* bad : {"s3://", "s3://ab", "s3://Bucket", "s3://bucket/a b", "s3://bucket/../x",
                          "s3://bucket/a//b", "s3://buc?ket/x", "s3://bucket/%2e", "/dir", "s3:/x",
                          "s3://bucket/./x", "s3://buc..ket"}) {
    EXPECT_EQ(s3_place(bad).reason(), Reason::kUsage) << bad;
  }
}

TEST(S3Config, IsAPrivateFile) {
  char name[] = "/tmp/gbx-s3-XXXXXX";
  const std::string dir = mkdtemp(name);
  const std::string path = dir + "/s3";
  const std::string text =
      "endpoint = https://s3\nregion = x\naccess-key = AK\nsecret-key = EXAMPLEKEY\n";
  ASSERT_TRUE(write_file_atomic(path, as_bytes(text), 0600).ok());
  const SystemClock clock;
  EXPECT_TRUE(open_objects("s3://bucket/x", path, clock).ok());
  EXPECT_EQ(open_objects("s3://bucket/x", "", clock).reason(), Reason::kUsage);
  EXPECT_EQ(open_objects(dir + "/objects", path, clock).reason(), Reason::kUsage);
  EXPECT_TRUE(open_objects(dir + "/objects", "", clock).ok());
  const std::string most = text + "#" + std::string(kMaxS3ConfigBytes - text.size() - 1, 'x');
  ASSERT_TRUE(write_file_atomic(path, as_bytes(most), 0600).ok());
  EXPECT_TRUE(open_objects("s3://bucket/x", path, clock).ok());
  ASSERT_TRUE(write_file_atomic(path, as_bytes(most + "x"), 0600).ok());
  EXPECT_EQ(open_objects("s3://bucket/x", path, clock).reason(), Reason::kTooLarge);
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  EXPECT_EQ(open_objects("s3://bucket/x", path, clock).reason(), Reason::kIo);
  ASSERT_TRUE(remove_tree(dir).ok());
}

}  // namespace
}  // namespace gbx::storage
