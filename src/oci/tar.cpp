#include "oci/tar.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/log.h"

namespace gbx::oci {
namespace {

constexpr std::size_t kBlock = 512;
constexpr std::uint64_t kMaxMeta = 256U << 10;      // one pax header or long name
constexpr std::uint64_t kMaxMetaHeaders = 4;        // before one entry
constexpr std::uint64_t kMaxEndPadding = 4U << 20;  // zeros after the end mark
constexpr std::size_t kMaxPath = 4095;              // PATH_MAX without its NUL
constexpr std::size_t kMaxName = 255;               // NAME_MAX
constexpr std::uint64_t kMaxFile = std::uint64_t{1} << 40;
constexpr std::uint32_t kIds = 65536;

Error refuse(std::string what) { return fail(Reason::kImageRefused, "tar: " + std::move(what)); }

std::string_view field(const FixedBytes<512>& block, std::size_t offset, std::size_t size) {
  return as_text(ByteView(block).subspan(offset, size));
}
// Up to the first NUL.
std::string_view text(std::string_view f) { return f.substr(0, f.find('\0')); }

// Octal digits, spaces before, spaces and NULs after. An empty field is 0, as GNU tar writes for
// unused ones.
Result<std::uint64_t> octal(std::string_view f, const char* name) {
  if ((static_cast<unsigned char>(f[0]) & 0x80U) != 0) {
    return refuse(std::string(name) + " is a base-256 number");
  }
  std::size_t i = 0;
  while (i < f.size() && f[i] == ' ') ++i;
  std::uint64_t v = 0;
  while (i < f.size() && f[i] >= '0' && f[i] <= '7') {
    v = v * 8 + static_cast<std::uint64_t>(f[i++] - '0');
  }
  while (i < f.size() && (f[i] == ' ' || f[i] == '\0')) ++i;
  if (i != f.size()) return refuse(std::string(name) + " is not an octal number");
  return v;  // at most 12 digits: no overflow
}

Result<std::uint64_t> decimal(std::string_view f, const char* name) {
  if (f.empty() || f.size() > 18 || (f.size() > 1 && f[0] == '0')) {
    return refuse(std::string(name) + " is not a number");
  }
  std::uint64_t v = 0;
  for (const char c : f) {
    if (c < '0' || c > '9') return refuse(std::string(name) + " is not a number");
    v = v * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return v;
}

bool all_zero(ByteView b) {
  return std::all_of(b.begin(), b.end(), [](std::uint8_t x) { return x == 0; });
}

Status check_checksum(const FixedBytes<512>& block) {
  GBX_ASSIGN(const std::uint64_t stated, octal(field(block, 148, 8), "checksum"));
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) {
    sum += (i >= 148 && i < 156) ? std::uint8_t{' '} : block[i];
  }
  if (sum != stated) {
    return refuse("bad header checksum").with(std::to_string(sum), std::to_string(stated));
  }
  return ok_status();
}

enum class Magic { kUstar, kGnu };
Result<Magic> check_magic(const FixedBytes<512>& block) {
  const std::string_view magic = field(block, 257, 8);
  if (magic == std::string_view("ustar\00000", 8)) return Magic::kUstar;
  if (magic == std::string_view("ustar  \0", 8)) return Magic::kGnu;
  return refuse("neither ustar nor GNU format");
}

Result<TarType> entry_type(char flag) {
  switch (flag) {
    case '0':
    case '\0':
      return TarType::kFile;
    case '1':
      return TarType::kHardLink;
    case '2':
      return TarType::kSymlink;
    case '5':
      return TarType::kDirectory;
    case '3':
      return refuse("a character device");
    case '4':
      return refuse("a block device");
    case '6':
      return refuse("a fifo");
    case 'S':
      return refuse("a sparse file");
    case 'g':
      return refuse("a global pax header");
    default:
      return refuse("an entry of unknown type '" + printable(std::string(1, flag)) + "'");
  }
}

}  // namespace

Result<std::string> tar_path(std::string_view raw, std::uint64_t max_depth) {
  const std::string shown = printable(raw);
  if (raw.empty()) return refuse("an empty path");
  if (raw.find('\0') != std::string_view::npos) return refuse("a NUL in a path");
  if (raw.front() == '/') return refuse("absolute path " + shown);
  if (raw == "." || raw == "./") return std::string();
  if (raw.substr(0, 2) == "./") raw.remove_prefix(2);
  if (raw.empty()) return refuse("an empty path component in " + shown);
  if (raw.back() == '/') raw.remove_suffix(1);
  if (raw.size() > kMaxPath) {
    return refuse("a path longer than " + std::to_string(kMaxPath) + " bytes");
  }
  std::uint64_t depth = 0;
  for (std::size_t start = 0; start <= raw.size();) {
    const std::size_t end = std::min(raw.find('/', start), raw.size());
    const std::string_view part = raw.substr(start, end - start);
    if (part.empty()) return refuse("an empty path component in " + shown);
    if (part == "..") return refuse("\"..\" in path " + shown);
    if (part == ".") return refuse("\".\" in path " + shown);
    if (part.size() > kMaxName) return refuse("a name longer than 255 bytes in " + shown);
    if (++depth > max_depth) {
      return refuse("a path deeper than " + std::to_string(max_depth) + " directories");
    }
    start = end + 1;
  }
  return std::string(raw);
}

Result<bool> TarReader::read_block(Block& block) {
  std::size_t have = 0;
  while (have < kBlock) {
    GBX_ASSIGN(const std::size_t n, source_.read(MutableByteView(block).subspan(have)));
    if (n == 0) {
      if (have == 0) return false;
      return refuse("truncated in the middle of a block");
    }
    have += n;
  }
  return true;
}

Result<std::size_t> TarReader::read(MutableByteView out) {
  const std::uint64_t want = std::min<std::uint64_t>(out.size(), left_);
  if (want == 0) return std::size_t{0};
  GBX_ASSIGN(const std::size_t n, source_.read(out.first(static_cast<std::size_t>(want))));
  if (n == 0) return refuse("truncated in the middle of a file");
  left_ -= n;
  return n;
}

Status TarReader::skip_content() {
  Bytes scratch(left_ > 0 ? 65536 : 0);
  while (left_ > 0) GBX_TRY(read(scratch));
  FixedBytes<kBlock> pad{};
  while (padding_ > 0) {
    const MutableByteView want = MutableByteView(pad).first(static_cast<std::size_t>(padding_));
    GBX_ASSIGN(const std::size_t n, source_.read(want));
    if (n == 0) return refuse("truncated after a file");
    if (!all_zero(ByteView(pad).first(n))) return refuse("padding after a file is not zero");
    padding_ -= n;
  }
  return ok_status();
}

// The first zero block was read: a second must follow, then only zeros.
Status TarReader::check_end() {
  Block block{};
  GBX_ASSIGN(bool more, read_block(block));
  if (!more) return refuse("the end mark is truncated");
  if (!all_zero(block)) return refuse("a zero block inside the archive");
  std::uint64_t padding = 0;
  for (;;) {
    GBX_ASSIGN(more, read_block(block));
    if (!more) break;
    if (!all_zero(block)) return refuse("garbage after the end");
    padding += kBlock;
    if (padding > kMaxEndPadding) return refuse("too much padding after the end");
  }
  ended_ = true;
  return ok_status();
}

Result<Bytes> TarReader::meta_content(std::uint64_t size) {
  if (size == 0 || size > kMaxMeta) {
    return refuse("an extended header of a strange size")
        .with("1 to " + std::to_string(kMaxMeta), std::to_string(size));
  }
  left_ = size;
  padding_ = (kBlock - size % kBlock) % kBlock;
  Bytes out(static_cast<std::size_t>(size));
  std::size_t have = 0;
  while (have < out.size()) {
    GBX_ASSIGN(const std::size_t n, read(MutableByteView(out).subspan(have)));
    have += n;
  }
  GBX_TRY(skip_content());
  return out;
}

Status TarReader::pax_record(std::string_view key, std::string_view value, Pending& pending) {
  static constexpr std::array kIgnored = {"mtime", "atime",   "ctime",
                                          "uid",   "gid",     "uname",
                                          "gname", "comment", "LIBARCHIVE.creationtime"};
  if (key == "path") {
    if (pending.path) return refuse("two names for one entry");
    pending.path = std::string(value);
  } else if (key == "linkpath") {
    if (pending.link) return refuse("two link names for one entry");
    pending.link = std::string(value);
  } else if (key == "size") {
    GBX_ASSIGN(const std::uint64_t size, decimal(value, "pax size"));
    pending.size = size;
  } else if (key.substr(0, 13) == "SCHILY.xattr." || key.substr(0, 17) == "LIBARCHIVE.xattr.") {
    ++pending.xattrs;
  } else if (std::find(kIgnored.begin(), kIgnored.end(), key) == kIgnored.end()) {
    return refuse("pax key " + printable(key, 64) + " is not known");
  }
  return ok_status();
}

Status TarReader::read_pax(std::uint64_t size, Pending& pending) {
  GBX_ASSIGN(const Bytes content, meta_content(size));
  std::string_view rest = as_text(content);
  std::set<std::string, std::less<>> seen;
  while (!rest.empty()) {
    const std::size_t space = rest.find(' ');
    if (space == std::string_view::npos || space > 7) {
      return refuse("a pax record without a length");
    }
    GBX_ASSIGN(const std::uint64_t length, decimal(rest.substr(0, space), "pax length"));
    if (length > rest.size() || length < space + 4) return refuse("a pax record of a wrong length");
    const std::string_view record =
        rest.substr(space + 1, static_cast<std::size_t>(length) - space - 1);
    const std::size_t equals = record.find('=');
    if (record.back() != '\n' || equals == std::string_view::npos || equals == 0) {
      return refuse("a malformed pax record");
    }
    const std::string_view key = record.substr(0, equals);
    const std::string_view value = record.substr(equals + 1, record.size() - equals - 2);
    if (!seen.emplace(key).second) {
      return refuse("pax key " + printable(key, 64) + " appears twice");
    }
    GBX_TRY(pax_record(key, value, pending));
    rest.remove_prefix(static_cast<std::size_t>(length));
  }
  return ok_status();
}

Status TarReader::read_gnu_name(char kind, std::uint64_t size, Pending& pending) {
  GBX_ASSIGN(const Bytes content, meta_content(size));
  std::string_view name = as_text(content);
  if (name.back() == '\0') name.remove_suffix(1);
  std::optional<std::string>& slot = kind == 'L' ? pending.path : pending.link;
  if (slot) return refuse(kind == 'L' ? "two names for one entry" : "two link names for one entry");
  slot = std::string(name);
  return ok_status();
}

Result<TarEntry> TarReader::make_entry(const Block& block, Pending& pending) {
  TarEntry e;
  GBX_ASSIGN(const Magic magic, check_magic(block));
  GBX_ASSIGN(e.type, entry_type(static_cast<char>(block[156])));
  std::string raw(text(field(block, 0, 100)));
  const std::string_view prefix =
      magic == Magic::kUstar ? text(field(block, 345, 155)) : std::string_view();
  if (!prefix.empty()) raw = std::string(prefix) + "/" + raw;
  if (pending.path) raw = *pending.path;
  GBX_ASSIGN(e.path, tar_path(raw, limits_.max_depth));
  if (!raw.empty() && raw.back() == '/' && e.type != TarType::kDirectory) {
    return refuse("a path that ends in \"/\" but is no directory: " + printable(raw));
  }
  if (e.path.empty() && e.type != TarType::kDirectory) return refuse("the root is not a directory");
  e.link = pending.link ? *pending.link : std::string(text(field(block, 157, 100)));
  if (e.type == TarType::kHardLink) {
    auto link = tar_path(e.link, limits_.max_depth);
    if (!link.ok()) return link.error().at("hard link " + printable(e.path));
    e.link = *link;
  } else if (e.type == TarType::kSymlink) {
    if (e.link.empty() || e.link.size() > kMaxPath || e.link.find('\0') != std::string::npos) {
      return refuse("symbolic link " + printable(e.path) + " has no proper target");
    }
  }
  GBX_ASSIGN(const std::uint64_t mode, octal(field(block, 100, 8), "mode"));
  e.mode = static_cast<std::uint32_t>(mode & 07777U);
  GBX_ASSIGN(const std::uint64_t uid, octal(field(block, 108, 8), "uid"));
  GBX_ASSIGN(const std::uint64_t gid, octal(field(block, 116, 8), "gid"));
  if (uid >= kIds || gid >= kIds) return refuse("an owner above 65535: " + printable(e.path));
  e.uid = static_cast<std::uint32_t>(uid);
  e.gid = static_cast<std::uint32_t>(gid);
  GBX_ASSIGN(const std::uint64_t mtime, octal(field(block, 136, 12), "mtime"));
  e.mtime = static_cast<std::int64_t>(mtime);
  GBX_ASSIGN(e.size, octal(field(block, 124, 12), "size"));
  if (pending.size) e.size = *pending.size;
  if (e.size > kMaxFile) return refuse("a file larger than 1 TiB: " + printable(e.path));
  if (e.type != TarType::kFile && e.size != 0) {
    return refuse("content where there can be none: " + printable(e.path));
  }
  e.xattrs = pending.xattrs;
  return e;
}

Result<std::optional<TarEntry>> TarReader::next() {
  if (ended_) return std::optional<TarEntry>();
  GBX_TRY(skip_content());
  Pending pending;
  for (std::uint64_t headers = 0;; ++headers) {
    Block block{};
    GBX_ASSIGN(const bool more, read_block(block));
    if (!more) return refuse("truncated: no end mark");
    if (all_zero(block)) {
      if (pending.any) return refuse("an extended header without an entry");
      GBX_TRY(check_end());
      return std::optional<TarEntry>();
    }
    GBX_TRY(check_checksum(block));
    const char flag = static_cast<char>(block[156]);
    if (flag != 'x' && flag != 'L' && flag != 'K') {
      if (++entries_ > limits_.max_entries) {
        return refuse("more than " + std::to_string(limits_.max_entries) + " entries");
      }
      GBX_ASSIGN(TarEntry entry, make_entry(block, pending));
      left_ = entry.size;
      padding_ = (kBlock - entry.size % kBlock) % kBlock;
      return std::optional<TarEntry>(std::move(entry));
    }
    if (headers >= kMaxMetaHeaders) return refuse("too many extended headers before one entry");
    GBX_TRY(check_magic(block));
    GBX_ASSIGN(const std::uint64_t size, octal(field(block, 124, 12), "size"));
    pending.any = true;
    if (flag == 'x') {
      GBX_TRY(read_pax(size, pending));
    } else {
      GBX_TRY(read_gnu_name(flag, size, pending));
    }
  }
}

}  // namespace gbx::oci
