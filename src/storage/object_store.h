// Where ciphertext lives: immutable objects under short names. A store is trusted with availability
// only: whoever reads checks every byte (src/asset), so a store may lie, lose or swap without harm
// beyond an error. An object appears whole, at commit(), or not at all. All functions of a store
// are thread-safe; a writer belongs to one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace gbx::storage {

// Streams one new object. Destroyed without commit(), it leaves nothing behind.
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  virtual Status write(ByteView bytes) = 0;
  // Makes the object durable and visible under its name. kAlreadyExists when the name is taken.
  // Once.
  virtual Status commit() = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;
  // kBadValue for a name that valid_object_name() refuses.
  virtual Result<std::unique_ptr<ObjectWriter>> create(const std::string& name) = 0;
  // Fills `out` from `offset`. kNotFound, kTruncated when the object ends before.
  virtual Status get(const std::string& name, std::uint64_t offset, MutableByteView out) = 0;
  // The same bytes as a view, in memory that nobody else can change: of the store's own where it
  // has such memory, else of `scratch`, which grows as needed. It lasts as long as both.
  virtual Result<ByteView> view(const std::string& name, std::uint64_t offset, std::size_t size,
                                Bytes& scratch);
  virtual Result<std::uint64_t> size(const std::string& name) = 0;
  // Calls `each` with every name in no particular order; stops at the first failure and returns it.
  virtual Status list(const std::function<Status(const std::string&)>& each) = 0;
  // kNotFound when there is no such object.
  virtual Status remove(const std::string& name) = 0;

  Status put(const std::string& name, ByteView content);
  // The whole object; kTooLarge beyond `limit` bytes.
  Result<Bytes> get_all(const std::string& name, std::size_t limit);
};

// 1 to 64 of [0-9a-z._-], beginning with a letter or digit: safe as a file name, an S3 key and a
// URL part.
bool valid_object_name(std::string_view name);
Status check_object_name(std::string_view name);  // kBadValue

}  // namespace gbx::storage
