// Between the agent's two halves: the worker (own uid, holds keys, speaks to the broker) and its
// privileged parent (mounts, runs, kills; sees no key but those in transit to DecryptFS as a pipe).
// Messages are JSON over a SOCK_SEQPACKET pair, at most 1 MiB, each with at most one descriptor.
// Both ends are measured code, but hostile bytes may have taken the worker over: the privileged
// half parses strictly and believes nothing (docs/decisions/0004). One thread per end.
#pragma once

#include <optional>
#include <utility>

#include "base/fields.h"
#include "base/os.h"

namespace gbx::agent {

struct Packet {
  Json body;
  Fd fd;  // invalid when none came
};

Result<std::pair<Fd, Fd>> make_packet_pair();
Status send_packet(int socket, const Json& body, int fd = -1);
// Empty when the other half has gone.
Result<std::optional<Packet>> receive_packet(int socket);

// One request and its answer. The answer's error is returned as the error.
Result<Packet> call(int socket, std::string_view operation, Json body, int fd = -1);

// A pipe whose read end holds `content` (at most a page, so that writing never blocks).
Result<Fd> pipe_with(ByteView content);
// Anonymous memory file holding `content`, sealed against change.
Result<Fd> memory_file(ByteView content);

}  // namespace gbx::agent
