// Sockets: listening, connecting, and a server that gives each connection a thread, up to a limit.
// Addresses come from the operator's configuration, connections from anybody.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/seams.h"
#include "channel/stream.h"

namespace gbx::channel {

struct TcpAddress {
  // a literal IPv4 or IPv6 address, or a name (resolving it may outlast a deadline)
  std::string host = "127.0.0.1";
  std::uint16_t port = 0;
  // "host:port" or "[v6]:port".
  static Result<TcpAddress> from_text(std::string_view text);
  std::string text() const;
};

struct Listener {
  Fd fd;
  std::uint16_t port = 0;  // the one that was given out when 0 was asked for
};
Result<Listener> listen_tcp(const TcpAddress& address);
// kUnavailable when nobody listens, kTimedOut.
Result<std::unique_ptr<FdStream>> connect_tcp(const TcpAddress& address, Deadline deadline);

// Connections of strangers: peers of whom nothing is known but that they connected. They get few
// places, for a short time, and give way to newer ones, so that nobody keeps others out by holding
// connections. Which one gives way is chance: were it the oldest, whoever connects fast enough
// would push out every newcomer before he has said who he is.
struct StrangerLimits {
  const Clock* clock = nullptr;
  std::size_t most = 64;
  std::int64_t longest_ms = 30'000;
};

// Accepts until stop(); each connection runs `handler` on its own thread, at most `max_connections`
// at once; further ones are closed at once. The handler sets its own deadlines. stop() (also by the
// destructor) closes every stream and returns when all handlers have returned; it must not be
// called from a handler.
class ConnectionServer {
 public:
  using Handler = std::function<void(FdStream&)>;
  static Result<std::unique_ptr<ConnectionServer>> start(Listener listener,
                                                         std::size_t max_connections,
                                                         Handler handler);
  // As above, but every peer is a stranger until its handler calls `known`. When strangers have all
  // their places, one of them is cut off for the next.
  using Known = std::function<void()>;
  using CautiousHandler = std::function<void(FdStream&, const Known& known)>;
  static Result<std::unique_ptr<ConnectionServer>> start(Listener listener,
                                                         std::size_t max_connections,
                                                         StrangerLimits strangers,
                                                         CautiousHandler handler);
  ~ConnectionServer();
  std::uint16_t port() const { return listener_.port; }
  std::size_t active() const;
  std::uint64_t refused() const { return refused_; }
  void stop();

 private:
  struct Connection {
    std::unique_ptr<FdStream> stream;
    std::thread thread;
    std::int64_t since_ms = 0;
    bool known = true;  // guarded by mutex_, like the next two
    bool cut = false;
    bool done = false;
  };
  ConnectionServer(Listener listener, Fd wake, std::size_t max_connections,
                   std::optional<StrangerLimits> strangers, CautiousHandler handler);
  static Result<std::unique_ptr<ConnectionServer>> run(Listener listener,
                                                       std::size_t max_connections,
                                                       std::optional<StrangerLimits> strangers,
                                                       CautiousHandler handler);
  void accept_loop();
  void admit(Fd fd);
  void make_room();  // mutex_ is held
  void cut_overdue();
  void reap();

  // Constant after construction.
  Listener listener_;
  Fd wake_;
  const std::size_t max_connections_;
  const std::optional<StrangerLimits> strangers_;  // empty: everybody is known
  const CautiousHandler handler_;
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::list<Connection> connections_;  // guarded by mutex_
  SystemRandom random_;                // guarded by mutex_: who gives way
  std::thread acceptor_;
};

}  // namespace gbx::channel
