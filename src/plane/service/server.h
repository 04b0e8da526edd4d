// Everything of the plane's program put together: store, core, broker link, dispatcher, node
// endpoint, HTTPS. Tests start it in their own process; main() adds arguments and signals.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fields.h"
#include "base/log.h"
#include "channel/net.h"
#include "channel/shares.h"
#include "crypto/keys.h"

namespace gbx::plane {

struct NodeKey {
  std::string name;
  std::string key;  // public key text
};
// Tokens that whoever starts the plane made and keeps; the plane itself keeps their hashes.
struct FirstInvites {
  std::string operators;  // lets the first operator in, once, while there is none
  std::string people;     // lets a few owners, consumers and reviewers in; a new one for each start
  template <class F>
  void fields(F& f) {
    f("operator", operators, Bound{32, 128});
    f("people", people, Bound{32, 128});
  }
};
struct ServeOptions {
  std::string state_dir;
  channel::TcpAddress listen;
  channel::TcpAddress node_listen;
  channel::TcpAddress broker;
  std::string set_file;  // SetChain as JSON
  std::string objects_dir;
  std::vector<NodeKey> nodes;      // enrolled at start
  std::vector<std::string> names;  // more names and addresses for the server's certificate
  std::int64_t lease_seconds = 30;
  channel::ShareLimits shares;    // of one identity over HTTPS
  std::int64_t probe_ms = 2'000;  // how often the broker is asked whether it is there
  // Absent: the token of the first operator is made here and lies in the state folder until one is
  // enrolled.
  std::optional<FirstInvites> invites;
};

// What the plane proves to nodes and to the broker, made in `state_dir` on first use: the broker is
// started with it.
Result<crypto::PublicKey> plane_key(const std::string& state_dir, Random& random);

class PlaneServer {
 public:
  // `clock`, `log` outlive the server. Errors say which part could not start.
  static Result<std::unique_ptr<PlaneServer>> start(const ServeOptions& options, const Clock& clock,
                                                    Random& random, const Logger& log);
  ~PlaneServer();
  // For whoever started the program: {"https","nodes","ca","nodeKey","operator"}; the last says
  // whether an operator is enrolled.
  Json ready() const;
  void stop();

 private:
  struct Parts;
  explicit PlaneServer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace gbx::plane
