// Custody `operator`: the set's private keys in one file under a passphrase. Whoever has both can
// read every dataset key, and receipts say so. Bytes of the file are in docs/broker.md.
#pragma once

#include <string>

#include "records/set.h"

namespace gbx::broker {

struct SetKeys {
  crypto::SigningKey set_key;  // signs epoch keys and successors; not needed in daily work
  crypto::SigningKey signing;
  crypto::SigningKey tls;
  crypto::HpkeKeyPair kek;
  records::SetChain chain;
};

inline constexpr crypto::ScryptParameters kPassphraseCost{1U << 17, 8, 1};  // 128 MiB, about 0.4 s

// New keys and a new charter. Custody operator, no witnesses. The signers of guest releases are
// part of it, so whoever pins the set knows them, and none can be added later.
Result<SetKeys> make_set_keys(Random& random, std::vector<std::string> release_signers = {});

Result<Bytes> seal_keys(const SetKeys& keys, const Passphrase& passphrase,
                        crypto::ScryptParameters cost, Random& random);
// Also checks that the keys are those of `chain`. Errors: kBadMagic, kBadVersion, kTruncated,
// kTrailingBytes, kBadValue (a cost out of range), kWrongPassphrase (or the file was changed: the
// two cannot be told apart), kWrongSet.
Result<SetKeys> open_keys(ByteView file, const records::SetChain& chain,
                          const Passphrase& passphrase);

// DIR/keys.sealed and DIR/set.json. kAlreadyExists when there is a set.
Result<records::SetChain> init_state(const std::string& dir, const Passphrase& passphrase,
                                     Random& random,
                                     crypto::ScryptParameters cost = kPassphraseCost,
                                     const std::vector<std::string>& release_signers = {});
Result<SetKeys> load_state(const std::string& dir, const Passphrase& passphrase);

// All of `fd` up to its end, without a final newline; at least 8 bytes, at most 1024.
Result<Passphrase> read_passphrase(int fd);

}  // namespace gbx::broker
