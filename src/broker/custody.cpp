#include "broker/custody.h"

#include <unistd.h>

#include <cerrno>

#include "base/os.h"
#include "broker/store.h"

namespace gbx::broker {
namespace {

constexpr SecretAccess kAccess{};
constexpr std::string_view kMagic = "GBXKEYS";
constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kKeyCount = 4;
constexpr std::size_t kPlainSize = kKeyCount * 32;
constexpr auto kAlgorithm = crypto::SignatureAlgorithm::kEd25519;
// What a file may ask of this machine: 1 GiB at most.
constexpr std::uint64_t kMaxCost = 1U << 20;

Bytes header(crypto::ScryptParameters cost, ByteView salt, ByteView nonce) {
  ByteWriter w;
  w.text(kMagic)
      .u8(kVersion)
      .u64(cost.n)
      .u32(static_cast<std::uint32_t>(cost.r))
      .u32(static_cast<std::uint32_t>(cost.p));
  w.raw(salt).raw(nonce);
  return w.take();
}

Status check_cost(crypto::ScryptParameters c) {
  const bool power = c.n >= 2 && (c.n & (c.n - 1)) == 0;
  if (!power || c.n > kMaxCost || c.r < 1 || c.r > 8 || c.p < 1 || c.p > 4) {
    return fail(Reason::kBadValue, "cost of the passphrase")
        .with("n a power of two up to 2^20, r up to 8, p up to 4", std::to_string(c.n));
  }
  return ok_status();
}

}  // namespace

Result<SetKeys> make_set_keys(Random& random, std::vector<std::string> release_signers) {
  GBX_ASSIGN(crypto::SigningKey set_key, crypto::SigningKey::generate(kAlgorithm, random));
  GBX_ASSIGN(crypto::SigningKey signing, crypto::SigningKey::generate(kAlgorithm, random));
  GBX_ASSIGN(crypto::SigningKey tls, crypto::SigningKey::generate(kAlgorithm, random));
  GBX_ASSIGN(crypto::HpkeKeyPair kek, crypto::HpkeKeyPair::generate(random));
  records::SetChain chain;
  chain.charter.genesis_set_key = set_key.public_key().text();
  chain.charter.salt = random.fixed<32>();
  for (const auto& signer : release_signers) GBX_TRY(crypto::PublicKey::from_text(signer));
  chain.charter.release_signers = std::move(release_signers);
  chain.charter.technologies = {records::Technology::kNone};
  chain.charter.custody = records::Custody::kOperator;
  const records::EpochKeys epoch{1, kek.public_key().text(), signing.public_key().text(),
                                 tls.public_key().text()};
  GBX_ASSIGN(chain.epoch, records::sign(chain.charter.set_id(), epoch, set_key));
  return SetKeys{std::move(set_key), std::move(signing), std::move(tls), std::move(kek),
                 std::move(chain)};
}

Result<Bytes> seal_keys(const SetKeys& keys, const Passphrase& passphrase,
                        crypto::ScryptParameters cost, Random& random) {
  GBX_TRY(check_cost(cost));
  const auto salt = random.fixed<32>();
  const auto nonce = random.fixed<crypto::kAeadNonceSize>();
  GBX_ASSIGN(AeadKey key, crypto::scrypt(passphrase, salt, cost));
  SecretBuffer plain(kPlainSize);
  std::size_t at = 0;
  const auto put = [&](ByteView v) {
    std::memcpy(plain.writable(kAccess).data() + at, v.data(), 32);
    at += 32;
  };
  for (const auto* k : {&keys.set_key, &keys.signing, &keys.tls}) {
    if (k->public_key().algorithm() != kAlgorithm) {
      return fail(Reason::kBadSuite, "a key of the set").with("ed25519", k->public_key().text());
    }
    put(k->private_bytes(kAccess).view(kAccess));
  }
  put(keys.kek.private_key().view(kAccess));
  // Salt and nonce are fresh, so no (key, nonce) pair comes twice.
  const Bytes head = header(cost, salt, nonce);
  GBX_ASSIGN(Bytes sealed, crypto::aead_seal(crypto::AeadSuite::kAes256Gcm, key, nonce, head,
                                             plain.view(kAccess)));
  return concat({head, sealed});
}

Result<SetKeys> open_keys(ByteView file, const records::SetChain& chain,
                          const Passphrase& passphrase) {
  ByteReader r(file);
  GBX_ASSIGN(ByteView magic, r.take(kMagic.size()));
  if (as_text(magic) != kMagic) return fail(Reason::kBadMagic, "file of the set's keys");
  GBX_ASSIGN(std::uint8_t version, r.u8());
  if (version != kVersion) {
    return fail(Reason::kBadVersion, "file of the set's keys").with("1", std::to_string(version));
  }
  crypto::ScryptParameters cost;
  GBX_ASSIGN(cost.n, r.u64());
  GBX_ASSIGN(cost.r, r.u32());
  GBX_ASSIGN(cost.p, r.u32());
  GBX_TRY(check_cost(cost));
  GBX_ASSIGN(auto salt, r.fixed<32>());
  GBX_ASSIGN(auto nonce, r.fixed<crypto::kAeadNonceSize>());
  GBX_ASSIGN(ByteView sealed, r.take(kPlainSize + crypto::kAeadTagSize));
  GBX_TRY(r.finish());
  GBX_ASSIGN(AeadKey key, crypto::scrypt(passphrase, salt, cost));
  auto opened = crypto::aead_open(crypto::AeadSuite::kAes256Gcm, key, nonce,
                                  header(cost, salt, nonce), sealed);
  if (!opened.ok()) {
    return fail(Reason::kWrongPassphrase, "the passphrase does not open the set's keys");
  }
  Bytes plain = std::move(*opened);
  const auto at = [&](std::size_t i) { return ByteView(plain).subspan(i * 32, 32); };
  const auto signing_key = [&](std::size_t i) {
    return crypto::SigningKey::from_private(kAlgorithm, Secret<SigningKeyTag>::copy_of(at(i)));
  };
  auto set_key = signing_key(0);
  auto signing = signing_key(1);
  auto tls = signing_key(2);
  auto kek = crypto::HpkeKeyPair::from_private(HpkePrivate::copy_of(at(3)));
  cleanse(plain);
  for (const auto* k : {&set_key, &signing, &tls}) {
    if (!k->ok()) return k->error();
  }
  if (!kek.ok()) return kek.error();
  GBX_ASSIGN(records::SetChain::Keys names, chain.verify(chain.charter.set_id()));
  if (!(names.set_key == set_key->public_key()) || !(names.signing == signing->public_key()) ||
      !(names.tls == tls->public_key()) || !(names.kek == kek->public_key())) {
    return fail(Reason::kWrongSet, "keys.sealed and set.json are of different sets");
  }
  return SetKeys{std::move(*set_key), std::move(*signing), std::move(*tls), std::move(*kek), chain};
}

Result<records::SetChain> init_state(const std::string& dir, const Passphrase& passphrase,
                                     Random& random, crypto::ScryptParameters cost,
                                     const std::vector<std::string>& release_signers) {
  GBX_TRY(make_dirs(dir, 0700));
  if (path_exists(dir + "/set.json")) {
    return fail(Reason::kAlreadyExists, "there is a set in " + dir);
  }
  {
    GBX_ASSIGN(const std::unique_ptr<LogStore> log,
               open_sqlite_store(dir + "/log.db", LogFile::kCreate));
    GBX_ASSIGN(const std::uint64_t entries, log->size());
    if (entries > 0) {
      return fail(Reason::kAlreadyExists,
                  dir + " holds the log of a set that has lost its set.json")
          .hint(
              "restore set.json and keys.sealed from a backup; new keys would open nothing of the "
              "old set");
    }
  }
  GBX_ASSIGN(SetKeys keys, make_set_keys(random, release_signers));
  GBX_ASSIGN(Bytes sealed, seal_keys(keys, passphrase, cost, random));
  // set.json is written last: without it, and with an empty log, there is no set, and a second try
  // may replace the keys.
  GBX_TRY(write_file_atomic(dir + "/keys.sealed", sealed, 0600));
  GBX_TRY(write_file_atomic(dir + "/set.json", as_bytes(canonical(to_json(keys.chain))), 0644));
  return keys.chain;
}

Result<SetKeys> load_state(const std::string& dir, const Passphrase& passphrase) {
  GBX_ASSIGN(std::string text, read_text_file(dir + "/set.json", 1U << 20));
  GBX_ASSIGN(records::SetChain chain, from_json_text<records::SetChain>(text));
  GBX_ASSIGN(Bytes sealed, read_file(dir + "/keys.sealed", 4096));
  return open_keys(sealed, chain, passphrase);
}

Result<Passphrase> read_passphrase(int fd) {
  SecretBuffer buffer(1025);
  MutableByteView room = buffer.writable(kAccess);
  std::size_t size = 0;
  while (size < room.size()) {
    const ssize_t n = ::read(fd, room.data() + size, room.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return io_error("read the passphrase", errno);
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  if (size > 0 && room[size - 1] == '\n') --size;
  if (size < 8 || size > 1024) {
    return fail(Reason::kBadValue, "passphrase").with("8 to 1024 bytes", std::to_string(size));
  }
  return Passphrase::copy_of(room.first(size));
}

}  // namespace gbx::broker
