#include "agent/ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "records/limits.h"

namespace gbx::agent {

namespace {
// What comes of a submission is smaller than the submission's message, and everything else smaller
// than that.
constexpr std::size_t kMaxPacket = std::size_t{2} * records::kMaxRequestBytes;
}  // namespace

Result<std::pair<Fd, Fd>> make_packet_pair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return io_error("socketpair", errno);
  }
  std::pair<Fd, Fd> pair{Fd(fds[0]), Fd(fds[1])};
  const int size = 2 * static_cast<int>(kMaxPacket);
  for (int fd : fds) {
    // The kernel's default may be smaller than a launch bundle; failing here shows as a failed send
    // there.
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
  }
  return pair;
}

Status send_packet(int socket, const Json& body, int fd) {
  const std::string text = canonical(body);
  if (text.size() > kMaxPacket) return fail(Reason::kTooLarge, "packet between the agent's halves");
  iovec iov{const_cast<char*>(text.data()), text.size()};
  msghdr msg{};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    msg.msg_control = control;
    msg.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    // SAFETY: the control buffer has room for one descriptor.
    std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  for (;;) {
    const ssize_t n = sendmsg(socket, &msg, MSG_NOSIGNAL);
    if (n >= 0) return ok_status();
    if (errno != EINTR) return io_error("sendmsg", errno);
  }
}

Result<std::optional<Packet>> receive_packet(int socket) {
  std::string text(kMaxPacket, '\0');
  iovec iov{text.data(), text.size()};
  msghdr msg{};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4)] = {};
  msg.msg_control = control;
  msg.msg_controllen = sizeof control;
  ssize_t n = 0;
  while ((n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  if (n < 0) return io_error("recvmsg", errno);
  if (n == 0) return std::optional<Packet>();
  Packet p;
  for (cmsghdr* c = CMSG_FIRSTHDR(&msg); c != nullptr; c = CMSG_NXTHDR(&msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      // SAFETY: the kernel wrote `count` descriptors behind the header.
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      p.fd = Fd(fd);  // of several, the last is kept and the others closed
    }
  }
  if ((msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return fail(Reason::kTooLarge, "packet between the agent's halves");
  }
  text.resize(static_cast<std::size_t>(n));
  GBX_ASSIGN(p.body, parse_json(text));
  return std::optional<Packet>(std::move(p));
}

Result<Packet> call(int socket, std::string_view operation, Json body, int fd) {
  Json request;
  request["op"] = operation;
  request["body"] = std::move(body);
  GBX_TRY(send_packet(socket, request, fd));
  GBX_ASSIGN(auto reply, receive_packet(socket));
  if (!reply) return fail(Reason::kConnectionClosed, "the agent's other half has ended");
  if (const Json* e = reply->body.find("error")) {
    Error err(Reason::kInternal, "malformed error");
    if (const Json* r = e->find("reason"); r != nullptr && r->string() != nullptr) {
      (void)reason_from_code(*r->string(), &err.reason);
    }
    if (const Json* w = e->find("what"); w != nullptr && w->string() != nullptr) {
      err.what = *w->string();
    }
    return err;
  }
  const Json* b = reply->body.find("body");
  if (b == nullptr) return fail(Reason::kBadStructure, "answer without a body");
  Packet out;
  out.body = *b;
  out.fd = std::move(reply->fd);
  return out;
}

Result<Fd> pipe_with(ByteView content) {
  if (content.size() > 4096) return fail(Reason::kTooLarge, "pipe content");
  GBX_ASSIGN(auto p, make_pipe());
  GBX_TRY(write_all(p.second.get(), content));
  return std::move(p.first);
}

Result<Fd> memory_file(ByteView content) {
  Fd fd(memfd_create("gbx", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return io_error("memfd_create", errno);
  GBX_TRY(write_all(fd.get(), content));
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return io_error("seal", errno);
  }
  if (lseek(fd.get(), 0, SEEK_SET) != 0) return io_error("lseek", errno);
  return fd;
}

}  // namespace gbx::agent
