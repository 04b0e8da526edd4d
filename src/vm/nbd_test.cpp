// The volume's server against libnbd's own programs, and against clients that keep to nothing.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <map>
#include <thread>

#include "base/secret.h"
#include "vm/testing.h"

namespace gbx::vm::testing {
namespace {

// --- libnbd ---

// A socket in a folder; every connection has a server of its own, until this ends.
class Listening {
 public:
  explicit Listening(std::shared_ptr<VolumeSource> source)
      : source_(std::move(source)), socket_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, path().c_str(), sizeof address.sun_path - 1);
    // SAFETY: the address as the C interface wants it.
    EXPECT_EQ(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(socket_.get(), 8), 0);
    thread_ = std::thread([this] { run(); });
  }
  ~Listening() {
    (void)shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }
  std::string path() const { return folder_.path + "/nbd"; }
  std::string uri(const std::string& name = "") const {
    return "nbd+unix:///" + name + "?socket=" + path();
  }

 private:
  void run() {
    std::vector<std::unique_ptr<NbdServer>> servers;
    for (;;) {
      Fd client(accept(socket_.get(), nullptr, nullptr));
      if (!client.valid()) return;
      servers.push_back(NbdServer::start(std::move(client), source_).value());
    }
  }
  const std::shared_ptr<VolumeSource> source_;
  Folder folder_;
  Fd socket_;
  std::thread thread_;
};

RunOutput run(std::vector<std::string> argv) {
  ProcessOptions p;
  p.argv = std::move(argv);
  auto out = run_command(p, std::size_t{64} << 20);
  EXPECT_TRUE(out.ok()) << out.error().line();
  return out.ok() ? *out : RunOutput{};
}

#define NEEDS_LIBNBD() \
  if (!path_exists("/usr/bin/nbdinfo")) GTEST_SKIP() << "libnbd is not installed"

TEST(Nbd, LibnbdSeesOneReadOnlyExport) {
  NEEDS_LIBNBD();
  const Listening l(std::make_shared<PatternVolume>(std::uint64_t{1} << 44));
  const RunOutput size = run({"/usr/bin/nbdinfo", "--size", l.uri()});
  EXPECT_EQ(size.out, "17592186044416\n") << size.err;
  const auto exit_code = [&](std::vector<std::string> argv) {
    argv.insert(argv.begin(), "/usr/bin/nbdinfo");
    return run(std::move(argv)).status.code;
  };
  EXPECT_EQ(exit_code({"--is", "read-only", l.uri("volume")}), 0);
  EXPECT_EQ(exit_code({"--can", "flush", l.uri("volume")}), 0);
  for (const char* no : {"trim", "zero", "fua", "multi-conn", "cache", "df", "fast-zero"}) {
    EXPECT_EQ(exit_code({"--can", no, l.uri("volume")}), 2) << no;
  }
  EXPECT_EQ(exit_code({"--is", "tls", l.uri()}), 2);
  EXPECT_NE(exit_code({"--size", l.uri("other")}), 0);
  const RunOutput list = run({"/usr/bin/nbdinfo", "--list", l.uri()});
  EXPECT_EQ(list.status.code, 0) << list.err;
  EXPECT_NE(list.out.find("export=\"volume\""), std::string::npos) << list.out;
}

TEST(Nbd, LibnbdCopiesEveryByte) {
  NEEDS_LIBNBD();
  // No multiple of anything.
  constexpr std::uint64_t kSize = (33U << 20) + 77;
  const Listening l(std::make_shared<PatternVolume>(kSize));
  const Folder folder;
  for (const std::vector<std::string>& how :
       {std::vector<std::string>{"--request-size=33554432", "--requests=4"},
        {"--request-size=4096", "--requests=64"},
        {"--synchronous"}}) {
    const std::string to = folder.path + "/copy";
    std::vector<std::string> argv = {"/usr/bin/nbdcopy"};
    argv.insert(argv.end(), how.begin(), how.end());
    argv.insert(argv.end(), {l.uri("volume"), to});
    const RunOutput copied = run(argv);
    ASSERT_EQ(copied.status.code, 0) << copied.err;
    const Bytes bytes = read_file(to, std::size_t{64} << 20).value();
    ASSERT_EQ(bytes.size(), kSize);
    for (std::uint64_t i = 0; i < kSize; ++i) ASSERT_EQ(bytes[i], byte_at(i)) << i;
    ASSERT_TRUE(remove_tree(to).ok());
  }
  const RunOutput write = run({"/usr/bin/nbdcopy", "/etc/os-release", l.uri("volume")});
  EXPECT_NE(write.status.code, 0);
}

// --- by hand ---

Bytes be(std::uint64_t value, int bytes) {
  Bytes out;
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  return out;
}
Bytes option(std::uint32_t number, ByteView data = {}) {
  const Bytes size = be(data.size(), 4);
  return concat({as_bytes("IHAVEOPT"), be(number, 4), size, data});
}
Bytes go(const std::string& name) {
  return option(7, concat({be(name.size(), 4), as_bytes(name), be(0, 2)}));
}
Bytes request(std::uint16_t command, std::uint64_t offset, std::uint32_t size,
              std::uint16_t flags = 0, std::uint64_t cookie = 0x1122334455667788) {
  return concat(
      {be(0x25609513, 4), be(flags, 2), be(command, 2), be(cookie, 8), be(offset, 8), be(size, 4)});
}
const Bytes kHello = be(3, 4);

// A client of our own on one end of a socket pair.
class Client {
 public:
  // `said` is there before the server is, so that no patience is tried by a slow test.
  explicit Client(std::shared_ptr<VolumeSource> source, int stall_ms = kNbdStallMs,
                  ByteView said = {}) {
    auto pair = make_socket_pair().value();
    fd = std::move(pair.first);
    say(said);
    server = NbdServer::start(std::move(pair.second), std::move(source), stall_ms).value();
  }
  void say(ByteView bytes) { EXPECT_TRUE(write_all(fd.get(), bytes).ok()); }
  // Less than asked for when the server has closed.
  Bytes hear(std::size_t n) {
    Bytes out(n);
    std::size_t have = 0;
    while (have < n) {
      const ssize_t got = ::read(fd.get(), out.data() + have, n - have);
      if (got <= 0) break;
      have += static_cast<std::size_t>(got);
    }
    out.resize(have);
    return out;
  }
  void greet() {
    EXPECT_EQ(hear(18), concat({as_bytes("NBDMAGICIHAVEOPT"), be(3, 2)}));
    say(kHello);
  }
  // Into transmission.
  void open() {
    greet();
    say(go("volume"));
    // NBD_INFO_EXPORT, then the acknowledgement.
    EXPECT_EQ(hear(20 + 12 + 20).size(), 52u);
  }
  std::uint32_t option_reply() {
    const Bytes header = hear(20);
    if (header.size() != 20) return 0;
    const auto at = [&](std::size_t i) {
      return std::uint32_t{header[i]} << 24 | std::uint32_t{header[i + 1]} << 16 |
             std::uint32_t{header[i + 2]} << 8 | header[i + 3];
    };
    (void)hear(at(16));
    return at(12);
  }
  // The error of a simple reply; -1 when there is none.
  int error() {
    const Bytes header = hear(16);
    if (header.size() != 16) return -1;
    EXPECT_EQ(Bytes(header.begin(), header.begin() + 4), be(0x67446698, 4));
    EXPECT_EQ(Bytes(header.begin() + 8, header.end()), be(0x1122334455667788, 8));
    return header[7];
  }

  Fd fd;
  std::unique_ptr<NbdServer> server;
};

constexpr std::uint64_t kSmall = 1 << 20;
std::shared_ptr<PatternVolume> small() { return std::make_shared<PatternVolume>(kSmall); }

// Sends all this and closes; how the server ended.
Reason end_after(ByteView bytes) {
  Client c(small());
  c.say(bytes);
  (void)shutdown(c.fd.get(), SHUT_WR);
  (void)c.hear(1 << 20);
  const Status ended = c.server->wait();
  return ended.ok() ? Reason::kUninitialised : ended.reason();
}

TEST(Nbd, ReadsWithinTheVolumeAreAnswered) {
  Client c(small());
  c.open();
  for (const auto& [offset, size] : std::map<std::uint64_t, std::uint32_t>{
           {0, 1}, {1, 4095}, {4096, 65536}, {kSmall - 1, 1}, {77, kSmall - 77}}) {
    c.say(request(0, offset, size));
    ASSERT_EQ(c.error(), 0);
    const Bytes data = c.hear(size);
    ASSERT_EQ(data.size(), size);
    for (std::uint32_t i = 0; i < size; ++i) ASSERT_EQ(data[i], byte_at(offset + i));
  }
  c.say(request(3, 0, 0));
  EXPECT_EQ(c.error(), 0);
  c.say(request(2, 0, 0));
  EXPECT_TRUE(c.server->wait().ok());
  EXPECT_EQ(c.hear(1).size(), 0u);
}

TEST(Nbd, RequestsMayComeTogetherAndAreAnsweredInTheirOrder) {
  Client c(small());
  c.open();
  Bytes all;
  for (std::uint32_t i = 0; i < 100; ++i) append(all, request(0, i * 512, 512, 0, i));
  c.say(all);
  for (std::uint32_t i = 0; i < 100; ++i) {
    ASSERT_EQ(c.hear(16), concat({be(0x67446698, 4), be(0, 4), be(i, 8)}));
    ASSERT_EQ(c.hear(512)[0], byte_at(i * 512));
  }
}

TEST(Nbd, WritesAreRefusedAndReadsBeyondTheEndToo) {
  constexpr int kPermission = 1;
  constexpr int kInvalid = 22;
  Client c(small());
  c.open();
  c.say(concat({request(1, 0, 100'000), Bytes(100'000, 7)}));
  EXPECT_EQ(c.error(), kPermission);
  for (const std::uint16_t command : {std::uint16_t{4}, std::uint16_t{6}}) {  // trim, write zeroes
    c.say(request(command, 0, 4096));
    EXPECT_EQ(c.error(), kPermission) << command;
  }
  const std::uint64_t top = ~std::uint64_t{0};
  for (const Bytes& bad :
       {request(0, kSmall, 1), request(0, kSmall - 1, 2), request(0, top, 1), request(0, top, ~0U),
        request(0, 0, (32U << 20) + 1), request(0, 0, 0), request(0, 0, 1, 1), request(5, 0, 512),
        request(7, 0, 512), request(99, 0, 0), request(3, 1, 0), request(3, 0, 1)}) {
    c.say(bad);
    EXPECT_EQ(c.error(), kInvalid) << to_hex(bad);
  }
  c.say(request(0, 5, 1));
  EXPECT_EQ(c.error(), 0) << "and it goes on";
  EXPECT_EQ(c.hear(1)[0], byte_at(5));
  // Within the volume, and too much at once.
  Client large(std::make_shared<PatternVolume>(std::uint64_t{64} << 20));
  large.open();
  large.say(request(0, 0, (32U << 20) + 1));
  EXPECT_EQ(large.error(), kInvalid);
}

TEST(Nbd, AReadThatFailsIsAnErrorAndTheNextIsAnswered) {
  auto volume = small();
  volume->broken_at = 10'000;
  Client c(volume);
  c.open();
  c.say(request(0, 8192, 4096));
  EXPECT_EQ(c.error(), 5);
  c.say(request(0, 4096, 4096));
  EXPECT_EQ(c.error(), 0);
  EXPECT_EQ(c.hear(4096).size(), 4096u);
}

TEST(Nbd, OptionsThatAreNotOursAreRefusedAndTheRestGoesOn) {
  constexpr std::uint32_t kUnsupported = 0x80000001;
  constexpr std::uint32_t kInvalid = 0x80000003;
  constexpr std::uint32_t kUnknown = 0x80000006;
  Client c(small());
  c.greet();
  for (const std::uint32_t number : {5U, 8U, 9U, 10U, 11U, 0U, 77U}) {
    c.say(option(number));
    EXPECT_EQ(c.option_reply(), kUnsupported) << number;
  }
  c.say(option(3, as_bytes("x")));
  EXPECT_EQ(c.option_reply(), kInvalid);
  c.say(option(7, as_bytes("x")));
  EXPECT_EQ(c.option_reply(), kInvalid);
  c.say(option(7, concat({be(1000, 4), as_bytes("volume"), be(0, 2)})));
  EXPECT_EQ(c.option_reply(), kInvalid) << "a name longer than the option";
  c.say(option(7, concat({be(6, 4), as_bytes("volume"), be(0, 2), be(0, 1)})));
  EXPECT_EQ(c.option_reply(), kInvalid) << "trailing bytes";
  c.say(option(6, concat({be(3, 4), as_bytes("vol"), be(0, 2)})));
  EXPECT_EQ(c.option_reply(), kUnknown);
  // Its size is asked for, and no more: that is not yet transmission.
  c.say(option(6, concat({be(0, 4), be(2, 2), be(3, 2), be(0, 2)})));
  EXPECT_EQ(c.option_reply(), 3u);
  EXPECT_EQ(c.option_reply(), 3u);
  EXPECT_EQ(c.option_reply(), 1u);
  c.say(option(2));
  EXPECT_EQ(c.option_reply(), 1u);
  EXPECT_TRUE(c.server->wait().ok());
}

TEST(Nbd, TheOldWayToNameAnExportWorksWithAndWithoutZeroes) {
  for (const std::uint32_t flags : {1U, 3U}) {
    Client c(small());
    EXPECT_EQ(c.hear(18).size(), 18u);
    c.say(concat({be(flags, 4), option(1, as_bytes("volume"))}));
    EXPECT_EQ(c.hear(10), concat({be(kSmall, 8), be(7, 2)}));
    if (flags == 1) {
      EXPECT_EQ(c.hear(124), Bytes(124));
    }
    c.say(request(0, 9, 1));
    EXPECT_EQ(c.error(), 0);
    EXPECT_EQ(c.hear(1)[0], byte_at(9));
  }
}

TEST(Nbd, AClientThatKeepsToNothingIsLeft) {
  const Bytes hello = kHello;
  EXPECT_EQ(end_after({}), Reason::kConnectionClosed);
  EXPECT_EQ(end_after(be(0, 4)), Reason::kBadValue);
  EXPECT_EQ(end_after(be(2, 4)), Reason::kBadValue);
  EXPECT_EQ(end_after(be(7, 4)), Reason::kBadValue);
  EXPECT_EQ(end_after(concat({hello, as_bytes("IHAVEOPX"), be(0, 8)})), Reason::kBadMagic);
  EXPECT_EQ(end_after(concat({hello, as_bytes("IHAVEOPT"), be(7, 4), be(8193, 4)})),
            Reason::kTooLarge);
  EXPECT_EQ(end_after(concat({hello, as_bytes("IHAVEOPT"), be(7, 4), be(~0U, 4)})),
            Reason::kTooLarge);
  EXPECT_EQ(end_after(concat({hello, option(1, as_bytes("other"))})), Reason::kNotFound);
  Bytes many = hello;
  for (int i = 0; i < kMaxNbdOptions; ++i) append(many, option(5));
  EXPECT_EQ(end_after(many), Reason::kTooLarge);
  EXPECT_EQ(end_after(concat({hello, go("volume"), Bytes(28)})), Reason::kBadMagic);
  EXPECT_EQ(end_after(concat({hello, go("volume"), request(1, 0, (32U << 20) + 1)})),
            Reason::kTooLarge);
  // Whoever goes between two requests has ended; in the middle of one too, as far as we see.
  EXPECT_EQ(end_after(concat({hello, go("volume")})), Reason::kUninitialised);
  EXPECT_EQ(end_after(concat({hello, go("volume"), request(1, 0, 10)})), Reason::kConnectionClosed);
}

TEST(Nbd, AClientThatStopsInTheMiddleIsLeftAndOneThatIsQuietIsNot) {
  const Bytes opened = concat({kHello, go("volume")});
  Client half(small(), 1, concat({opened, ByteView(request(0, 0, 512)).first(10)}));
  EXPECT_EQ(half.server->wait().reason(), Reason::kTimedOut);
  // An answer that it does not take, larger than what a socket holds.
  Client deaf(std::make_shared<PatternVolume>(std::uint64_t{64} << 20), 1,
              concat({opened, request(0, 0, 32U << 20)}));
  EXPECT_EQ(deaf.server->wait().reason(), Reason::kTimedOut);
  Client quiet(small(), 1, opened);
  EXPECT_EQ(quiet.hear(18 + 52).size(), 70u);
  // Longer than its patience in the middle: the machine just reads nothing.
  pollfd p{quiet.fd.get(), POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 10), 0);
  quiet.say(request(0, 3, 1));
  EXPECT_EQ(quiet.error(), 0);
}

TEST(Nbd, StopEndsItWhateverItsClientDoes) {
  for (int state = 0; state < 4; ++state) {
    Client c(std::make_shared<PatternVolume>(std::uint64_t{64} << 20));
    if (state > 0) c.open();
    if (state == 2) c.say(ByteView(request(0, 0, 512)).first(10));
    if (state == 3) c.say(request(0, 0, 32U << 20));
    EXPECT_TRUE(c.server->stop().ok());
    (void)c.hear(std::size_t{64} << 20);
    EXPECT_EQ(c.hear(1).size(), 0u) << "its end is closed";
  }
}

// Storage that is dead: a read begins and does not come back.
class StuckVolume final : public VolumeSource {
 public:
  StuckVolume() : pipe_(make_pipe().value()), begun_(make_pipe().value()) {}
  std::uint64_t size() const override { return kSmall; }
  Status read(std::uint64_t, MutableByteView) override {
    begun_.second.reset();
    Bytes one(1);
    return pread_or_wait(one);
  }
  // Waits until a read has begun, and lets it come back.
  void begun() const { EXPECT_EQ(poll_in(begun_.first.get()), 1); }
  void let_go() { pipe_.second.reset(); }

 private:
  Status pread_or_wait(Bytes& one) const {
    return ::read(pipe_.first.get(), one.data(), 1) == 0 ? fail(Reason::kIo, "dead") : Status();
  }
  static int poll_in(int fd) {
    pollfd p{fd, POLLIN, 0};
    return poll(&p, 1, 60'000);
  }
  std::pair<Fd, Fd> pipe_;
  std::pair<Fd, Fd> begun_;
};

TEST(Nbd, StopDoesNotWaitForStorageThatIsDead) {
  const auto stuck = std::make_shared<StuckVolume>();
  Client c(stuck);
  c.open();
  c.say(request(0, 0, 512));
  stuck->begun();
  const Status stopped = c.server->stop(1);
  EXPECT_EQ(stopped.reason(), Reason::kTimedOut);
  EXPECT_EQ(c.hear(1).size(), 0u) << "its end is closed all the same";
  // Whoever asks again is not kept either, and the read has all it needs when it comes back.
  EXPECT_TRUE(c.server->stop(1).ok());
  c.server.reset();
  stuck->let_go();
  while (stuck.use_count() > 1) std::this_thread::yield();
}

}  // namespace
}  // namespace gbx::vm::testing
