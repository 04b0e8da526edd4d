// A bounded pool of named threads for the synchronous handlers, and the bounded pipe through which
// a streamed body reaches one of them. Both are thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "plane/http/message.h"

namespace gbx::plane::http {

class WorkPool {
 public:
  using Work = std::function<void()>;
  // Names are cut to the kernel's 15 characters.
  WorkPool(const std::string& name, std::size_t threads, std::size_t max_queued);
  ~WorkPool() { stop(); }
  WorkPool(const WorkPool&) = delete;
  WorkPool& operator=(const WorkPool&) = delete;
  // False when the queue is full or the pool is stopping; `work` is dropped then.
  bool try_post(Work work);
  // For the next piece of something admitted before: its number is bounded by the connections, not
  // by the queue.
  bool post_continuation(Work work);
  // Finishes what runs, drops what waits. Idempotent; not to be called from the pool's own threads.
  void stop();
  std::size_t queued() const;

 private:
  void run();

  const std::size_t max_queued_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Work> queue_;  // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::vector<std::thread> threads_;
};

// One writer (the connection, which never blocks) and one reader (a handler, which does).
class BodyPipe final : public BodyReader {
 public:
  // `on_room` is called from the reader's thread when the pipe has room again.
  BodyPipe(std::size_t capacity, std::int64_t read_timeout_ms, std::function<void()> on_room)
      : capacity_(capacity), read_timeout_ms_(read_timeout_ms), on_room_(std::move(on_room)) {}

  Result<std::size_t> read(MutableByteView out) override;

  bool full() const;
  void push(Bytes chunk);
  void finish();            // the whole body is in
  void fail_with(Error e);  // the reader gets what is left, then the error

 private:
  const std::size_t capacity_;
  const std::int64_t read_timeout_ms_;
  const std::function<void()> on_room_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Bytes> chunks_;   // guarded by mutex_
  std::size_t offset_ = 0;     // guarded by mutex_: into chunks_.front()
  std::size_t held_ = 0;       // guarded by mutex_
  std::optional<Status> end_;  // guarded by mutex_
};

}  // namespace gbx::plane::http
