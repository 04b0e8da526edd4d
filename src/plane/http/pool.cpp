#include "plane/http/pool.h"

#include <pthread.h>

#include <algorithm>
#include <cstring>

namespace gbx::plane::http {

WorkPool::WorkPool(const std::string& name, std::size_t threads, std::size_t max_queued)
    : max_queued_(max_queued) {
  for (std::size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { run(); });
    pthread_setname_np(threads_.back().native_handle(),
                       (name.substr(0, 12) + "-" + std::to_string(i % 100)).c_str());
  }
}

bool WorkPool::try_post(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || queue_.size() >= max_queued_) return false;
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
  return true;
}

bool WorkPool::post_continuation(Work work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
  return true;
}

void WorkPool::stop() {
  std::deque<Work> dropped;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    dropped.swap(queue_);
  }
  wake_.notify_all();
  for (std::thread& t : threads_) {
    if (t.joinable()) t.join();
  }
}

std::size_t WorkPool::queued() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

void WorkPool::run() {
  for (;;) {
    Work work;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

Result<std::size_t> BodyPipe::read(MutableByteView out) {
  if (out.empty()) return fail(Reason::kInternal, "read of a body into nothing");
  bool now_has_room = false;
  std::size_t n = 0;
  {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return !chunks_.empty() || end_.has_value(); };
    if (!wake_.wait_for(lock, std::chrono::milliseconds(read_timeout_ms_), ready)) {
      return fail(Reason::kTimedOut, "body of the request");
    }
    if (chunks_.empty()) {
      if (!end_->ok()) return end_->error();
      return std::size_t{0};
    }
    const bool was_full = held_ >= capacity_;
    Bytes& front = chunks_.front();
    n = std::min(out.size(), front.size() - offset_);
    std::memcpy(out.data(), front.data() + offset_, n);
    offset_ += n;
    held_ -= n;
    if (offset_ == front.size()) {
      chunks_.pop_front();
      offset_ = 0;
    }
    now_has_room = was_full && held_ < capacity_;
  }
  if (now_has_room && on_room_) on_room_();
  return n;
}

bool BodyPipe::full() const {
  const std::lock_guard lock(mutex_);
  return held_ >= capacity_;
}

void BodyPipe::push(Bytes chunk) {
  if (chunk.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    if (end_) return;
    held_ += chunk.size();
    chunks_.push_back(std::move(chunk));
  }
  wake_.notify_one();
}

void BodyPipe::finish() {
  {
    const std::lock_guard lock(mutex_);
    if (!end_) end_ = ok_status();
  }
  wake_.notify_one();
}

void BodyPipe::fail_with(Error e) {
  {
    const std::lock_guard lock(mutex_);
    if (!end_) end_ = Status(std::move(e));
  }
  wake_.notify_one();
}

}  // namespace gbx::plane::http
