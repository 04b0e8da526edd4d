#include "storage/object_store.h"

namespace gbx::storage {

bool valid_object_name(std::string_view name) {
  if (name.empty() || name.size() > 64) return false;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z');
    const bool mark = c == '.' || c == '_' || c == '-';
    if (!plain && (i == 0 || !mark)) return false;
  }
  return true;
}

Status check_object_name(std::string_view name) {
  if (valid_object_name(name)) return ok_status();
  return fail(Reason::kBadValue, "object name")
      .with("1 to 64 of [0-9a-z._-]", std::to_string(name.size()) + " bytes");
}

Status ObjectStore::put(const std::string& name, ByteView content) {
  GBX_ASSIGN(auto writer, create(name));
  GBX_TRY(writer->write(content));
  return writer->commit();
}

Result<ByteView> ObjectStore::view(const std::string& name, std::uint64_t offset, std::size_t bytes,
                                   Bytes& scratch) {
  if (scratch.size() < bytes) scratch.resize(bytes);
  GBX_TRY(get(name, offset, MutableByteView(scratch).first(bytes)));
  return ByteView(scratch).first(bytes);
}

Result<Bytes> ObjectStore::get_all(const std::string& name, std::size_t limit) {
  GBX_ASSIGN(const std::uint64_t bytes, size(name));
  if (bytes > limit) {
    return fail(Reason::kTooLarge, "object " + name)
        .with("at most " + std::to_string(limit) + " bytes", std::to_string(bytes));
  }
  Bytes out(static_cast<std::size_t>(bytes));
  GBX_TRY(get(name, 0, out));
  return out;
}

}  // namespace gbx::storage
