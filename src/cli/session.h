// What one run of a command works with: where to print, the user's folder and keys, and the
// connection to the plane. Opened lazily, so that offline commands need nothing. Everything that
// comes from the plane is untrusted.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/seams.h"
#include "cli/home.h"
#include "cli/output.h"
#include "cli/plane.h"

namespace gbx::cli {

// The user's keys, open.
struct Keys {
  IdentityFile file;
  Hash32 id{};
  std::unique_ptr<crypto::SigningKey> signing;
};

struct SessionOptions {
  Format format = Format::kTable;
  std::string home;
  std::string passphrase_file;
  Self self;
};

class Session {
 public:
  Session(SessionOptions options, const Clock& clock, Random& random);
  const Clock& clock() const { return clock_; }
  Random& random() { return random_; }
  const Home& home() const { return home_; }
  Format format() const { return format_; }
  std::int64_t now() const { return clock_.now().seconds(); }

  // ---- printing ----
  // The command's answer, on standard output: `text` in table format, else `value`.
  void print(const Json& value, const std::string& text);
  // kIo when not everything that was printed reached its place: then the command has failed.
  const Status& output_status() const { return output_; }
  // The exit status when the command fails, where it is not that of the error's reason: a job that
  // was denied is denied, whatever the reason.
  void exit_as(ExitClass c) { exit_ = c; }
  std::optional<ExitClass> exit_as() const { return exit_; }
  // A command of this program for the user to paste.
  std::string command(const std::vector<std::string>& words) const { return self_.command(words); }
  // A remark for people, on standard error; never part of the answer. Silent in JSON and YAML,
  // where standard error holds an error object or nothing: what a program should know is part of
  // the answer.
  void note(const std::string& line) const;
  bool interactive() const { return interactive_; }  // a person can be asked
  bool live_display() const { return live_; }        // standard error is a terminal
  // A line that the next one replaces; only on a terminal.
  void status_line(const std::string& line);
  void clear_status_line();
  // Reads one line; kUsage where nobody can be asked.
  Result<std::string> ask(const std::string& question) const;
  Result<bool> confirm(const std::string& question) const;

  // ---- keys ----
  // The passphrase of protected keys: from --passphrase-file, else asked for, once.
  Result<Passphrase> passphrase(const std::string& why);
  // A new passphrase when one was given or `wanted`; none otherwise.
  Result<std::optional<Passphrase>> new_passphrase(bool wanted);
  // Finishes a rotation that stopped between its two last steps.
  Result<Keys*> keys();
  // Until the command ends no other one rotates the key of this home, or moves it.
  Status hold_rotation();
  // The key of a rotation that holds goes to its place, if it still lies where the rotation left
  // it: nothing may be written there before. `current` is what the identity names.
  Status settle_rotation(const std::string& current);
  Result<crypto::SigningKey> next_signing_key() {
    return read_signing_key(home_.next_signing_key());
  }
  Result<crypto::SigningKey> recovery_signing_key() {
    return read_signing_key(home_.recovery_signing_key());
  }
  Result<crypto::HpkeKeyPair> result_key(bool recovery);
  // Protects a new key like the keys that were opened.
  std::optional<Passphrase> same_protection() const;
  // kAlreadyExists: no key of a version takes the place of another.
  Status store_dataset_key(const Id16& asset_id, std::int64_t version, const DatasetKey& key);
  Result<DatasetKey> dataset_key(const Id16& asset_id, std::int64_t version);

  // ---- the installation ----
  Result<Context*> context();
  // With the user's identity, which signs every request. kNotFound where there is none.
  Result<Plane*> plane();
  // Signed only when there is an identity: for what anybody may ask.
  Result<Plane*> public_plane();
  // With another key than the session's, which outlives the connection.
  Result<std::unique_ptr<Plane>> connect_as(const Hash32& identity, const crypto::SigningKey* key);
  // The set's chain as the plane gives it, verified against the pin.
  Result<records::SetChain::Keys> set();

 private:
  Result<crypto::SigningKey> read_signing_key(const std::string& path);
  const Clock& clock_;
  Random& random_;
  const Home home_;
  const Format format_;
  const std::string passphrase_file_;
  const Self self_;
  Status output_ = ok_status();
  std::optional<ExitClass> exit_;
  bool interactive_ = false;
  bool live_ = false;
  std::size_t status_width_ = 0;
  std::optional<Passphrase> passphrase_;
  std::optional<Keys> keys_;
  Fd rotation_;  // the lock
  std::optional<Context> context_;
  std::unique_ptr<Plane> plane_;
  std::optional<records::SetChain::Keys> set_;
};

// Verifies the chain against the context's pin and never goes back to an older epoch; saves a newer
// one.
Result<records::SetChain::Keys> accept_chain(const Home& home, Context& context,
                                             const records::SetChain& chain);

}  // namespace gbx::cli
