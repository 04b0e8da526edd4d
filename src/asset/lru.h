// A bounded map of shared values, least recently used out first. Thread-safe.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace gbx::asset {

template <class Key, class Value, class Hasher>
class Lru {
 public:
  explicit Lru(std::size_t capacity) : capacity_(capacity) {}
  std::shared_ptr<Value> find(const Key& key) {
    const std::lock_guard lock(mutex_);
    const auto it = index_.find(key);
    if (it == index_.end()) return nullptr;
    order_.splice(order_.begin(), order_, it->second);
    return it->second->second;
  }
  // The value that is kept: another thread may have been first.
  std::shared_ptr<Value> insert(const Key& key, std::shared_ptr<Value> value) {
    const std::lock_guard lock(mutex_);
    const auto it = index_.find(key);
    if (it != index_.end()) return it->second->second;
    order_.emplace_front(key, value);
    index_.emplace(key, order_.begin());
    if (order_.size() > capacity_) {
      index_.erase(order_.back().first);
      order_.pop_back();
    }
    return value;
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    index_.clear();
    order_.clear();
  }

 private:
  using Item = std::pair<Key, std::shared_ptr<Value>>;
  const std::size_t capacity_;
  std::mutex mutex_;
  std::list<Item> order_;                                                      // guarded by mutex_
  std::unordered_map<Key, typename std::list<Item>::iterator, Hasher> index_;  // guarded by mutex_
};

// For keys that are random or hashes already: their first eight bytes.
struct FirstBytes {
  template <std::size_t N>
  std::size_t operator()(const std::array<std::uint8_t, N>& a) const {
    std::size_t h = 0;
    std::memcpy(&h, a.data(), sizeof h);
    return h;
  }
};

}  // namespace gbx::asset
