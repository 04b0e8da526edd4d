#include "cli/home.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "base/os.h"
#include "base/private_file.h"
#include "crypto/crypto.h"

namespace gbx::cli {

namespace {

constexpr SecretAccess kAccess{};
constexpr std::string_view kKeyMagic = "gbx-key/1";
constexpr std::size_t kKeySize = 32;
constexpr std::size_t kSaltSize = 16;
constexpr std::uint8_t kUnchecked = 0;  // in the clear, as it was written before there was a check
constexpr std::uint8_t kScrypt = 1;
constexpr std::uint8_t kClear = 2;
constexpr std::uint8_t kScryptLog2 = 15;
constexpr std::size_t kMaxSetting = 1U << 20;
constexpr const char* kPutBack = "put it back there from your copy: nobody else has this key";

template <class T>
Result<T> read_setting(const std::string& path, const char* what, const char* next) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) {
    if (errno != ENOENT) return io_error(path, errno);  // it may be there: only not for us
    return fail(Reason::kNotFound, what).with(path, "no such file").hint(next);
  }
  GBX_ASSIGN(std::string text, read_text_file(path, kMaxSetting));
  Result<T> value = from_json_text<T>(text);
  if (!value.ok()) return value.error().at(path);
  return value;
}
Status write_setting(const Home& home, const std::string& path, const Json& value) {
  GBX_TRY(home.make());
  return write_file_atomic(path, as_bytes(pretty(value) + "\n"), 0600);
}

Error key_error(Reason reason, const std::string& path, std::string what) {
  return fail(reason, std::move(what)).at(path);
}

// Of all bytes of the file before it.
Hash32 key_check(ByteView content) { return crypto::labelled_hash("gbx/1/key-file", content); }

Result<Bytes> read_private(const std::string& path) {
  auto content = read_private_file(path, 4096);
  if (!content.ok() && content.reason() == Reason::kNotFound) content.error().hint(kPutBack);
  return content;
}

crypto::ScryptParameters scrypt_parameters() {
  crypto::ScryptParameters p;
  p.n = std::uint64_t{1} << kScryptLog2;
  return p;
}

}  // namespace

Status write_key_file(const std::string& path, KeyKind kind, ByteView key, SecretAccess,
                      const Passphrase* passphrase, Random& random, FileWriter write) {
  if (key.size() != kKeySize) return fail(Reason::kInternal, "key of wrong length");
  ByteWriter w;
  w.text(kKeyMagic).u8(static_cast<std::uint8_t>(kind));
  if (passphrase == nullptr) {
    w.u8(kClear).raw(key);
    // So that a damaged key is no other key: its owner would sign with one that nobody knows.
    const Hash32 check = key_check(w.bytes());
    w.raw(check);
  } else {
    const Bytes salt = to_bytes(random.fixed<kSaltSize>());
    w.u8(kScrypt).u8(kScryptLog2).raw(salt);
    GBX_ASSIGN(AeadKey sealing, crypto::scrypt(*passphrase, salt, scrypt_parameters()));
    // The salt is fresh, so the derived key seals this one message: the nonce may be fixed.
    const Bytes header = w.bytes();
    GBX_ASSIGN(Bytes sealed, crypto::seal_once(sealing.view(kAccess), kAccess, header, key));
    w.raw(sealed);
  }
  Bytes content = w.take();
  Status s = write(path, content, 0600);
  cleanse(content);
  return s;
}

namespace {

Result<SecretBuffer> parse_key_file(const std::string& path, KeyKind kind,
                                    const PassphraseSource& ask, Bytes& content) {
  ByteReader r(content);
  const auto secret = [&](ByteView v) {
    SecretBuffer b(v.size());
    std::memcpy(b.writable(kAccess).data(), v.data(), v.size());
    return b;
  };
  const auto magic = r.take(kKeyMagic.size());
  if (!magic.ok() || as_text(*magic) != kKeyMagic) {
    return fail(Reason::kBadMagic, "this is no key file");
  }
  GBX_ASSIGN(const std::uint8_t found_kind, r.u8());
  if (found_kind != static_cast<std::uint8_t>(kind)) {
    return fail(Reason::kBadStructure, "key of another kind");
  }
  GBX_ASSIGN(const std::uint8_t protection, r.u8());
  if (protection == kClear || protection == kUnchecked) {
    GBX_ASSIGN(ByteView key, r.take(kKeySize));
    const std::size_t checked = r.position();
    if (protection == kUnchecked) {
      GBX_TRY(r.finish());
      return secret(key);
    }
    GBX_ASSIGN(ByteView check, r.take(Hash32{}.size()));
    GBX_TRY(r.finish());
    if (!constant_time_equal(key_check(ByteView(content).first(checked)), check)) {
      return fail(Reason::kBadHash, "a byte of this key file was changed");
    }
    return secret(key);
  }
  GBX_ASSIGN(const std::uint8_t log2, r.u8());
  if (protection != kScrypt || log2 != kScryptLog2) {
    return fail(Reason::kBadStructure, "unknown protection of a key");
  }
  GBX_ASSIGN(ByteView salt, r.take(kSaltSize));
  const std::size_t header = r.position();
  GBX_ASSIGN(ByteView sealed, r.take(kKeySize + crypto::kAeadTagSize));
  GBX_TRY(r.finish());
  GBX_ASSIGN(Passphrase passphrase, ask("passphrase for " + path));
  GBX_ASSIGN(AeadKey opening, crypto::scrypt(passphrase, salt, scrypt_parameters()));
  auto plain =
      crypto::open_once(opening.view(kAccess), kAccess, ByteView(content).first(header), sealed);
  if (!plain.ok()) {
    return key_error(Reason::kWrongPassphrase, path, "the passphrase does not open this key");
  }
  SecretBuffer out = secret(*plain);
  cleanse(*plain);
  return out;
}

}  // namespace

Result<SecretBuffer> read_key_file(const std::string& path, KeyKind kind,
                                   const PassphraseSource& ask) {
  GBX_ASSIGN(Bytes content, read_private(path));
  auto key = parse_key_file(path, kind, ask, content);
  cleanse(content);
  if (key.ok()) return key;
  const Reason why = key.reason();
  const bool damaged = why == Reason::kBadMagic || why == Reason::kBadStructure ||
                       why == Reason::kTruncated || why == Reason::kTrailingBytes ||
                       why == Reason::kBadHash;
  return damaged ? key.error().at(path).hint(kPutBack) : key.error();
}

Result<Context> Home::context() const {
  return read_setting<Context>(file("context.json"), "this machine does not know a Glovebox yet",
                               "glovebox init --plane HOST:PORT --ca FILE --set SETID");
}
Status Home::save(const Context& c) const {
  return write_setting(*this, file("context.json"), to_json(c));
}
Result<IdentityFile> Home::identity() const {
  return read_setting<IdentityFile>(
      file("identity.json"), "you have no identity here",
      "glovebox identity create --name NAME --role owner,consumer --invite-file FILE");
}
Status Home::save(const IdentityFile& i) const {
  return write_setting(*this, file("identity.json"), to_json(i));
}
std::string Home::dataset_key(const Id16& asset_id, std::int64_t version) const {
  return file("keys/assets/" + to_hex(asset_id) + "-" + std::to_string(version) + ".key");
}
Status Home::make(const std::string& below) const {
  GBX_TRY(make_dirs(path_, 0700));
  return below.empty() ? ok_status() : make_dirs(file(below), 0700);
}
Result<Fd> Home::lock(const std::string& name, std::int64_t wait_ms) const {
  constexpr int kPauseMs = 10;
  GBX_TRY(make());
  const std::string path = file(name + ".lock");
  Fd held(open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!held.valid()) return io_error(path, errno);
  for (std::int64_t waited = 0; flock(held.get(), LOCK_EX | LOCK_NB) != 0; waited += kPauseMs) {
    if (errno != EWOULDBLOCK && errno != EINTR) return io_error(path, errno);
    if (waited >= wait_ms) {
      return fail(Reason::kConflict, "another command is at work on this home")
          .with(path + " held by nobody", "held for " + std::to_string(wait_ms) + " ms")
          .hint("nothing was changed; wait for the other command, and give this one again");
    }
    poll(nullptr, 0, kPauseMs);
  }
  return held;
}

Result<std::string> home_path(const std::string& option) {
  if (!option.empty()) return option;
  const char* own = std::getenv("GLOVEBOX_HOME");
  if (own != nullptr && *own != '\0') return std::string(own);
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home == '/') return std::string(home) + "/.glovebox";
  return fail(Reason::kUsage, "where keys and settings lie")
      .with("--home, GLOVEBOX_HOME or HOME", "none of them");
}

Result<Bytes> parse_certificate(ByteView file) {
  const std::string_view text = as_text(file);
  static constexpr std::string_view kBegin = "-----BEGIN CERTIFICATE-----";
  static constexpr std::string_view kEnd = "-----END CERTIFICATE-----";
  const auto begin = text.find(kBegin);
  if (begin == std::string_view::npos) {
    GBX_TRY(crypto::certificate_public_key(file));
    return to_bytes(file);
  }
  const auto end = text.find(kEnd, begin);
  if (end == std::string_view::npos) {
    return fail(Reason::kBadEncoding, "certificate without an end");
  }
  if (text.find(kBegin, end) != std::string_view::npos) {
    return fail(Reason::kBadValue, "certificates").with("one", "several");
  }
  std::string base64;
  for (const char c : text.substr(begin + kBegin.size(), end - begin - kBegin.size())) {
    if (c == '\n' || c == '\r' || c == ' ' || c == '=') continue;
    base64 += c == '+' ? '-' : c == '/' ? '_' : c;
  }
  GBX_ASSIGN(Bytes der, from_base64url(base64));
  GBX_TRY(crypto::certificate_public_key(der));
  return der;
}

Result<Address> parse_address(const std::string& text, PortZero zero) {
  std::string_view rest = text;
  if (rest.rfind("https://", 0) == 0) rest.remove_prefix(8);
  if (!rest.empty() && rest.back() == '/') rest.remove_suffix(1);
  const Error bad = fail(Reason::kUsage, "address").with("HOST:PORT", text.substr(0, 200));
  const auto colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad;
  const std::string_view port = rest.substr(colon + 1);
  std::string_view host = rest.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad;
  }
  if (port.empty() || port.size() > 5 ||
      port.find_first_not_of("0123456789") != std::string_view::npos) {
    return bad;
  }
  if (host.find_first_of("/@? \t") != std::string_view::npos || host.size() > 255) return bad;
  const int number = std::stoi(std::string(port));
  if (number < (zero == PortZero::kAllowed ? 0 : 1) || number > 65535) return bad;
  return Address{std::string(host), static_cast<std::uint16_t>(number)};
}

}  // namespace gbx::cli
