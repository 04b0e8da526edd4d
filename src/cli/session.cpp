#include "cli/session.h"

#include <termios.h>
#include <unistd.h>

#include <cstdio>

#include "base/log.h"
#include "base/new_file.h"
#include "base/os.h"
#include "cli/interrupt.h"

namespace gbx::cli {

namespace {

constexpr SecretAccess kAccess{};
constexpr std::size_t kMinPassphrase = 8;  // as the broker's
constexpr std::size_t kMaxPassphrase = 1024;

// Reads a line from the terminal without showing it.
class NoEcho {
 public:
  NoEcho() {
    if (tcgetattr(STDIN_FILENO, &old_) != 0) return;
    guard_.emplace("\n", &old_);  // Ctrl-C at the question: the terminal must not stay silent
    struct termios quiet = old_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    set_ = tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet) == 0;
  }
  ~NoEcho() {
    if (set_) tcsetattr(STDIN_FILENO, TCSAFLUSH, &old_);
  }
  NoEcho(const NoEcho&) = delete;
  NoEcho& operator=(const NoEcho&) = delete;
  bool set() const { return set_; }

 private:
  struct termios old_ {};
  std::optional<Interruptible> guard_;
  bool set_ = false;
};

// One line, byte by byte into locked memory, so that no stream buffer keeps a copy.
Result<Passphrase> read_secret_line(int fd) {
  SecretBuffer buffer(kMaxPassphrase);
  MutableByteView out = buffer.writable(kAccess);
  std::size_t n = 0;
  for (;;) {
    std::uint8_t c = 0;
    const ssize_t got = read(fd, &c, 1);
    if (got < 0) return io_error("passphrase", errno);
    if (got == 0 || c == '\n') break;
    if (c == '\r') continue;
    if (n == out.size()) return fail(Reason::kUsage, "passphrase is longer than 1024 bytes");
    out[n++] = c;
  }
  if (n == 0) return fail(Reason::kUsage, "the passphrase is empty");
  return Passphrase::copy_of(out.first(n));
}
Result<Passphrase> ask_secret(const std::string& question) {
  // before the question: who answers at once must not be shown, nor flushed away
  const NoEcho quiet;
  if (!quiet.set()) {
    return fail(Reason::kIo, "the terminal cannot hide what is typed")
        .hint("use --passphrase-file");
  }
  std::fprintf(stderr, "%s: ", question.c_str());
  std::fflush(stderr);
  auto line = read_secret_line(STDIN_FILENO);
  std::fputc('\n', stderr);
  return line;
}

}  // namespace

Session::Session(SessionOptions o, const Clock& clock, Random& random)
    : clock_(clock),
      random_(random),
      home_(std::move(o.home)),
      format_(o.format),
      passphrase_file_(std::move(o.passphrase_file)),
      self_(std::move(o.self)),
      interactive_(isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1),
      live_(isatty(STDERR_FILENO) == 1 && o.format == Format::kTable) {}

void Session::print(const Json& value, const std::string& text) {
  std::string out = render(format_, value, text);
  if (!out.empty() && out.back() != '\n') out += "\n";
  if (const auto next = out.find("\nNext: ");
      format_ == Format::kTable && next != std::string::npos) {
    out = out.substr(0, next) + self_.rewrite(out.substr(next));
  }
  Status s = write_out(out);
  if (!s.ok()) output_ = std::move(s);
}
void Session::note(const std::string& line) const {
  if (format_ == Format::kTable) std::fprintf(stderr, "%s\n", line.c_str());
}

void Session::status_line(const std::string& line) {
  if (!live_) return;
  std::fprintf(stderr, "\r%s\033[K", line.c_str());
  std::fflush(stderr);
  status_width_ = line.size();
}
void Session::clear_status_line() {
  if (!live_ || status_width_ == 0) return;
  std::fprintf(stderr, "\r\033[K");
  std::fflush(stderr);
  status_width_ = 0;
}

Result<std::string> Session::ask(const std::string& question) const {
  if (!interactive_) {
    return fail(Reason::kUsage, "nobody can be asked")
        .with("an answer to: " + question, "no terminal");
  }
  std::fprintf(stderr, "%s ", question.c_str());
  std::fflush(stderr);
  std::string line;
  for (;;) {
    const int c = std::fgetc(stdin);
    if (c == EOF && line.empty()) return fail(Reason::kUsage, "no answer");
    if (c == EOF || c == '\n' || line.size() > 4096) break;
    line += static_cast<char>(c);
  }
  return line;
}
Result<bool> Session::confirm(const std::string& question) const {
  GBX_ASSIGN(std::string answer, ask(question + " [yes/no]"));
  return answer == "yes" || answer == "y";
}

Result<Passphrase> Session::passphrase(const std::string& why) {
  if (!passphrase_) {
    if (!passphrase_file_.empty()) {
      auto file = read_file(passphrase_file_, kMaxPassphrase);
      if (!file.ok()) return file.error().at("--passphrase-file");
      Bytes content = std::move(*file);
      std::size_t n = 0;
      while (n < content.size() && content[n] != '\n' && content[n] != '\r') ++n;
      if (n > 0) passphrase_ = Passphrase::copy_of(ByteView(content).first(n));
      cleanse(content);
      if (n == 0) return fail(Reason::kUsage, "the passphrase is empty").at(passphrase_file_);
    } else if (interactive_) {
      GBX_ASSIGN(passphrase_, ask_secret(why));
    } else {
      return fail(Reason::kWrongPassphrase, "this key is protected by a passphrase")
          .hint("add --passphrase-file FILE");
    }
  }
  return passphrase_->clone();
}

Result<std::optional<Passphrase>> Session::new_passphrase(bool wanted) {
  std::optional<Passphrase> out;
  if (!wanted && passphrase_file_.empty()) return out;
  if (!interactive_ && passphrase_file_.empty() && !passphrase_) {
    return fail(Reason::kUsage, "--passphrase")
        .with("a terminal to ask for the new passphrase on", "none")
        .hint("write it into a file that only you can read, and add --passphrase-file FILE");
  }
  GBX_ASSIGN(Passphrase first, passphrase("new passphrase"));
  if (passphrase_file_.empty()) {
    GBX_ASSIGN(Passphrase again, ask_secret("the same again"));
    if (!(first == again)) return fail(Reason::kUsage, "the two passphrases differ");
  }
  const std::size_t size = first.view(kAccess).size();
  if (size < kMinPassphrase) {
    return fail(Reason::kUsage, "the new passphrase")
        .with("at least " + std::to_string(kMinPassphrase) + " bytes",
              std::to_string(size) + " bytes");
  }
  out = std::move(first);
  return out;
}

Result<crypto::SigningKey> Session::read_signing_key(const std::string& path) {
  GBX_ASSIGN(SecretBuffer raw, read_key_file(path, KeyKind::kSigning,
                                             [this](const auto& w) { return passphrase(w); }));
  return crypto::SigningKey::from_private(crypto::SignatureAlgorithm::kEd25519,
                                          Secret<SigningKeyTag>::adopt(std::move(raw)));
}

Status Session::hold_rotation() {
  if (rotation_.valid()) return ok_status();
  GBX_ASSIGN(rotation_, home_.lock("rotation"));
  return ok_status();
}

Status Session::settle_rotation(const std::string& current) {
  if (!path_exists(home_.next_signing_key())) return ok_status();
  GBX_ASSIGN(const crypto::SigningKey next, read_signing_key(home_.next_signing_key()));
  if (next.public_key().text() != current) return ok_status();
  if (rename(home_.next_signing_key().c_str(), home_.signing_key().c_str()) != 0) {
    return io_error(home_.signing_key(), errno);
  }
  return ok_status();
}

Result<Keys*> Session::keys() {
  if (keys_) return &*keys_;
  Keys k;
  GBX_ASSIGN(k.file, home_.identity());
  k.id = k.file.chain.id();
  const auto& rotations = k.file.chain.rotations;
  const std::string current =
      rotations.empty() ? k.file.chain.identity.genesis_key : rotations.back().body.new_key;
  auto key = read_signing_key(home_.signing_key());
  if ((!key.ok() || key->public_key().text() != current) && path_exists(home_.next_signing_key())) {
    const bool held = rotation_.valid();
    GBX_TRY(hold_rotation());
    const Status settled = settle_rotation(current);
    if (!held) rotation_.reset();
    if (!settled.ok()) return settled.error();
    key = read_signing_key(home_.signing_key());
  }
  const std::string lost = "lost? glovebox identity rotate --recovery makes a new one";
  // Of the key itself: a mistyped --passphrase-file must lead nobody to a new key.
  if (!key.ok()) return path_exists(home_.signing_key()) ? key.error() : key.error().hint(lost);
  if (key->public_key().text() != current) {
    return fail(Reason::kChainBroken, "the signing key is not the identity's")
        .with(current, key->public_key().text())
        .hint(lost);
  }
  k.signing = std::make_unique<crypto::SigningKey>(std::move(*key));
  keys_ = std::move(k);
  return &*keys_;
}

Result<crypto::HpkeKeyPair> Session::result_key(bool recovery) {
  const std::string path = recovery ? home_.recovery_result_key() : home_.result_key();
  GBX_ASSIGN(SecretBuffer raw,
             read_key_file(path, KeyKind::kHpke, [this](const auto& w) { return passphrase(w); }));
  return crypto::HpkeKeyPair::from_private(HpkePrivate::adopt(std::move(raw)));
}

std::optional<Passphrase> Session::same_protection() const {
  std::optional<Passphrase> out;
  if (passphrase_) out = passphrase_->clone();
  return out;
}
Status Session::store_dataset_key(const Id16& asset_id, std::int64_t version,
                                  const DatasetKey& key) {
  GBX_TRY(home_.make("keys/assets"));
  const std::optional<Passphrase> phrase = same_protection();
  return write_key_file(home_.dataset_key(asset_id, version), KeyKind::kDataset, key.view(kAccess),
                        kAccess, phrase ? &*phrase : nullptr, random_, write_new_file);
}
Result<DatasetKey> Session::dataset_key(const Id16& asset_id, std::int64_t version) {
  auto raw = read_key_file(home_.dataset_key(asset_id, version), KeyKind::kDataset,
                           [this](const auto& w) { return passphrase(w); });
  if (!raw.ok()) return raw.error();
  return DatasetKey::adopt(std::move(*raw));
}

Result<records::SetChain::Keys> accept_chain(const Home& home, Context& context,
                                             const records::SetChain& chain) {
  auto verified = chain.verify(context.set_id);
  if (verified.reason() == Reason::kWrongSet) {
    return fail(Reason::kBrokerUntrusted,
                "the keys behind this address are not of the pinned key set")
        .with(verified.error().expected, verified.error().actual)
        .hint(
            "compare the set id with what the operator gave you on a way that the plane does not "
            "control");
  }
  if (!verified.ok()) return verified.error();
  records::SetChain::Keys keys = std::move(*verified);
  if (keys.epoch < context.epoch) {
    return fail(Reason::kBrokerUntrusted, "the key set went back to older keys")
        .with("epoch " + std::to_string(context.epoch), "epoch " + std::to_string(keys.epoch))
        .hint("ask the operator; somebody may have restored an old copy");
  }
  if (keys.epoch > context.epoch) {
    context.epoch = keys.epoch;
    GBX_TRY(home.save(context));
  }
  return keys;
}

Result<Context*> Session::context() {
  if (!context_) {
    GBX_ASSIGN(context_, home_.context());
  }
  return &*context_;
}

Result<Plane*> Session::plane() {
  GBX_TRY(context());
  GBX_TRY(home_.identity());
  return public_plane();
}
Result<Plane*> Session::public_plane() {
  if (plane_) return plane_.get();
  const crypto::SigningKey* key = nullptr;
  Hash32 id{};
  if (path_exists(home_.file("identity.json"))) {
    GBX_ASSIGN(Keys * k, keys());
    key = k->signing.get();
    id = k->id;
  }
  GBX_ASSIGN(plane_, connect_as(id, key));
  return plane_.get();
}

Result<std::unique_ptr<Plane>> Session::connect_as(const Hash32& identity,
                                                   const crypto::SigningKey* key) {
  GBX_ASSIGN(Context * c, context());
  http::ClientOptions o;
  o.host = c->host;
  o.port = static_cast<std::uint16_t>(c->port);
  o.ca_der = c->ca;
  o.signing_key = key;
  o.identity = identity;
  o.set_id = c->set_id;
  return Plane::connect(std::move(o), clock_, random_);
}

Result<records::SetChain::Keys> Session::set() {
  if (!set_) {
    GBX_ASSIGN(Plane * p, public_plane());
    GBX_ASSIGN(api::InfoView info, p->info());
    GBX_ASSIGN(Context * c, context());
    GBX_ASSIGN(set_, accept_chain(home_, *c, info.set));
  }
  return *set_;
}

}  // namespace gbx::cli
