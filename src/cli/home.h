// The user's folder: which installation is meant (context) and the user's own keys. Everything in
// it is the user's; what it trusts is what the user pinned at `init`. Files with keys have mode
// 0600 and are refused when others can read them.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/os.h"
#include "records/identity.h"

namespace gbx::cli {

struct Context {
  std::string host;
  std::int64_t port = 0;
  Bytes ca;                 // DER of the one authority that may certify the plane
  records::SetId set_id{};  // pinned by the user out of band
  std::int64_t epoch = 0;   // highest epoch of the set's keys seen: older ones are refused
  template <class F>
  void fields(F& f) {
    f("host", host, Bound{1, 255});
    f("port", port, Bound{1, 65535});
    f("ca", ca, Bound{16, 8192});
    f("setId", set_id);
    f("epoch", epoch);
  }
};

// Public half of an identity, as stored and shown.
struct IdentityFile {
  std::string name;
  std::vector<std::string> roles;
  records::IdentityChain chain;
  std::string result_key;           // HPKE: results are sealed to it …
  std::string recovery_result_key;  // … and to it
  template <class F>
  void fields(F& f) {
    f("name", name, Bound{1, 63});
    f("roles", roles, Bound{0, 6});
    f("chain", chain);
    f("resultKey", result_key, Bound{1, 256});
    f("recoveryResultKey", recovery_result_key, Bound{1, 256});
  }
};

enum class KeyKind : std::uint8_t { kSigning = 1, kHpke = 2, kDataset = 3 };
using PassphraseSource = std::function<Result<Passphrase>(const std::string& why)>;

// A key file: "gbx-key/1", kind, and the 32 bytes, in clear with a hash against damage, or sealed
// under a passphrase with scrypt. `write` puts it in its place: write_new_file() where no other key
// may lose it.
using FileWriter = Status (*)(const std::string& path, ByteView content, mode_t mode);
Status write_key_file(const std::string& path, KeyKind kind, ByteView key, SecretAccess,
                      const Passphrase* passphrase, Random& random,
                      FileWriter write = write_file_atomic);
// Errors: kNotFound, kIo (readable by others), kBadMagic, kBadStructure, kTruncated,
// kTrailingBytes, kBadHash (a byte was changed), kWrongPassphrase.
Result<SecretBuffer> read_key_file(const std::string& path, KeyKind kind,
                                   const PassphraseSource& ask);

class Home {
 public:
  explicit Home(std::string path) : path_(std::move(path)) {}
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // kNotFound with the command that mends it.
  Result<Context> context() const;
  Status save(const Context& context) const;
  Result<IdentityFile> identity() const;
  Status save(const IdentityFile& identity) const;
  std::string signing_key() const { return file("keys/signing.key"); }
  // of a rotation under way
  std::string next_signing_key() const { return file("keys/signing.next.key"); }
  std::string result_key() const { return file("keys/result.key"); }
  std::string recovery_signing_key() const { return file("recovery/signing.key"); }
  std::string recovery_result_key() const { return file("recovery/result.key"); }
  // Of the owner: opens one version of an asset.
  std::string dataset_key(const Id16& asset_id, std::int64_t version) const;
  // Makes the folder and `below` with mode 0700.
  Status make(const std::string& below = {}) const;
  // Held while what `name` says is read and written again, so that of two commands at once none
  // writes over the other's; let go with the descriptor, however the program ends. kConflict:
  // another command holds it for longer than `wait_ms`.
  Result<Fd> lock(const std::string& name, std::int64_t wait_ms = kLockWaitMs) const;
  static constexpr std::int64_t kLockWaitMs = 10'000;

 private:
  std::string path_;
};

// --home, else $GLOVEBOX_HOME, else ~/.glovebox.
Result<std::string> home_path(const std::string& option);
// One certificate, PEM or DER.
Result<Bytes> parse_certificate(ByteView file);
// "https://host:port", "host:port", "[::1]:port".
struct Address {
  std::string host;
  std::uint16_t port = 0;
};
// Clients cannot reach port 0; what listens may ask for any port with it.
enum class PortZero { kRefused, kAllowed };
Result<Address> parse_address(const std::string& text, PortZero zero = PortZero::kRefused);

}  // namespace gbx::cli
