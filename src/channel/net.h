// Sockets: listening, connecting, and a server that gives each connection a thread, up to a limit.
// Addresses come from the operator's configuration, connections from anybody.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "channel/stream.h"

namespace gbx::channel {

struct TcpAddress {
  std::string host = "127.0.0.1";  // a literal IPv4 or IPv6 address, or a name (resolving it may outlast a deadline)
  std::uint16_t port = 0;
  // "host:port" or "[v6]:port".
  static Result<TcpAddress> from_text(std::string_view text);
  std::string text() const;
};

struct Listener {
  Fd fd;
  std::uint16_t port = 0;  // of TCP: the one that was given out when 0 was asked for
  std::string path;        // of a Unix socket
};
Result<Listener> listen_tcp(const TcpAddress& address);
// Replaces a socket that nobody listens on any more; kAlreadyExists for any other file or a live server.
Result<Listener> listen_unix(const std::string& path, mode_t mode);
// kUnavailable when nobody listens, kTimedOut.
Result<std::unique_ptr<FdStream>> connect_tcp(const TcpAddress& address, Deadline deadline);
Result<std::unique_ptr<FdStream>> connect_unix(const std::string& path, Deadline deadline);
// The user at the other end of a Unix socket.
Result<uid_t> peer_uid(const FdStream& stream);

// Accepts until stop(); each connection runs `handler` on its own thread, at most `max_connections` at once; further
// ones are closed at once. The handler sets its own deadlines. stop() (also by the destructor) closes every stream and
// returns when all handlers have returned; it must not be called from a handler.
class ConnectionServer {
 public:
  using Handler = std::function<void(FdStream&)>;
  static Result<std::unique_ptr<ConnectionServer>> start(Listener listener, std::size_t max_connections, Handler handler);
  ~ConnectionServer();
  std::uint16_t port() const { return listener_.port; }
  std::size_t active() const;
  std::uint64_t refused() const { return refused_; }
  void stop();

 private:
  struct Connection {
    std::unique_ptr<FdStream> stream;
    std::thread thread;
    bool done = false;  // guarded by mutex_
  };
  ConnectionServer(Listener listener, Fd wake, std::size_t max_connections, Handler handler);
  void accept_loop();
  void admit(Fd fd);
  void reap();

  // Constant after construction.
  Listener listener_;
  Fd wake_;
  const std::size_t max_connections_;
  const Handler handler_;
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::list<Connection> connections_;  // guarded by mutex_
  std::thread acceptor_;
};

}  // namespace gbx::channel
