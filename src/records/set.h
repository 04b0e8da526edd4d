// A key set: the broker as owners know it. setId = hash of the charter, pinned by people out of
// band.
#pragma once

#include "records/identity.h"
#include "records/limits.h"

namespace gbx::records {

enum class Custody { kOperator, kTee };
std::span<const EnumName<Custody>> enum_names(Custody);

// Limits of the set's log.
inline constexpr std::int64_t kMaxTreeSize = std::int64_t{1} << 52;
inline constexpr std::int64_t kMaxTreePath = 54;  // no path in such a tree is longer

// How an environment is protected. `none` and `sim` protect nothing from the host; policies must
// name them.
enum class Technology { kNone, kSim, kTdx, kSnp, kSgx, kCca, kNitro, kTrustZone };
std::span<const EnumName<Technology>> enum_names(Technology);

struct Charter {
  static constexpr std::string_view kType = "charter";
  static constexpr bool kBindsSet = false;
  std::string genesis_set_key;
  Hash32 salt{};
  std::vector<std::string> release_signers;  // who signs guest and broker releases
  std::int64_t minimum_svn = 0;
  std::vector<Technology> technologies;  // that the broker itself may run in
  Custody custody = Custody::kOperator;
  std::vector<std::string> witnesses;
  std::int64_t witness_threshold = 0;
  std::vector<std::string> custodians;
  template <class F>
  void fields(F& f) {
    f("genesisSetKey", genesis_set_key, Bound{1, 256});
    f("salt", salt);
    f("releaseSigners", release_signers, Bound{0, 16, 256});
    f("minimumSvn", minimum_svn);
    f("technologies", technologies, Bound{1, 8});
    f("custody", custody);
    f("witnesses", witnesses, Bound{0, 32, 256});
    f("witnessThreshold", witness_threshold, Bound{0, 32});
    f("custodians", custodians, Bound{0, 32, 256});
  }
  SetId set_id() const { return hash_of(*this); }
};

// Signed by its predecessor.
struct SetKeySuccessor {
  static constexpr std::string_view kType = "set-key-successor";
  static constexpr bool kBindsSet = true;
  std::int64_t serial = 0;
  std::string new_set_key;
  template <class F>
  void fields(F& f) {
    f("serial", serial, Bound{1, 1'000'000});
    f("newSetKey", new_set_key, Bound{1, 256});
  }
};

// The keys of daily work, signed by the set key: S_set of the protocol is a signature by `signing`.
struct EpochKeys {
  static constexpr std::string_view kType = "epoch-keys";
  static constexpr bool kBindsSet = true;
  std::int64_t epoch = 0;
  std::string kek;      // HPKE public key that dataset keys and release keys are wrapped to
  std::string signing;  // public key
  std::string tls;      // public key of the broker's TLS certificate
  template <class F>
  void fields(F& f) {
    f("epoch", epoch, Bound{1, kMaxEpoch});
    f("kek", kek, Bound{1, 256});
    f("signing", signing, Bound{1, 256});
    f("tls", tls, Bound{1, 256});
  }
};

// Everything that leads from a pinned setId to the keys in use.
struct SetChain {
  Charter charter;
  std::vector<Signed<SetKeySuccessor>> successors;
  Signed<EpochKeys> epoch;
  template <class F>
  void fields(F& f) {
    f("charter", charter);
    f("successors", successors, Bound{0, 64});
    f("epoch", epoch);
  }
  struct Keys {
    SetId set_id{};
    std::int64_t epoch = 0;
    crypto::PublicKey set_key;
    crypto::HpkePublicKey kek;
    crypto::PublicKey signing;
    crypto::PublicKey tls;
  };
  // Errors: kWrongSet, kChainBroken, kBadSignature.
  Result<Keys> verify(const SetId& pinned) const;
};

// What a verifier needs besides a quote, years later and offline: certificates, revocation lists,
// statements about the platform's state. Signed by the platform's vendor, so it does not matter who
// brings it.
struct Collateral {
  std::string kind;  // "pck-chain", "tcb-info", "vcek", …: the names of the technology's verifier
  Bytes data;
  template <class F>
  void fields(F& f) {
    f("kind", kind, Bound{1, 64});
    f("data", data, Bound{1, 65536});
  }
};
// Hardware evidence of the broker itself; its report data binds {setId, setKey, kek, epoch, nonce}.
struct BrokerQuote {
  Technology technology = Technology::kNone;
  std::string release;  // name of the broker's release
  Bytes quote;          // as the platform made it
  std::vector<Collateral> collateral;
  template <class F>
  void fields(F& f) {
    f("technology", technology);
    f("release", release, Bound{1, 64});
    f("quote", quote, Bound{1, 65536});
    f("collateral", collateral, Bound{0, 16});
  }
};
// Answer to a nonce of the owner's CLI before it wraps a key (message 0). With custody `operator`
// there is no TEE evidence: the signature proves possession of the set's keys and nothing about
// where they are.
struct BrokerEvidence {
  static constexpr std::string_view kType = "broker-evidence";
  static constexpr bool kBindsSet = true;
  std::string set_key;
  std::string kek;
  std::int64_t epoch = 0;
  Nonce32 nonce{};
  Custody custody = Custody::kOperator;
  std::int64_t time = 0;
  std::int64_t tree_size = 0;
  Hash32 tree_root{};
  std::optional<BrokerQuote> quote;  // absent with custody `operator`
  template <class F>
  void fields(F& f) {
    f("setKey", set_key, Bound{1, 256});
    f("kek", kek, Bound{1, 256});
    f("epoch", epoch, Bound{0, kMaxEpoch});
    f("nonce", nonce);
    f("custody", custody);
    f("time", time);
    f("treeSize", tree_size, Bound{0, kMaxTreeSize});
    f("treeRoot", tree_root);
    f("quote", quote);
  }
};
// A witness of the charter has seen the set's log at this size with this root, grown from all that
// it saw before. Signed by the witness; the root is that of the BrokerEvidence beside it. No set
// has witnesses yet.
struct Cosignature {
  static constexpr std::string_view kType = "cosignature";
  static constexpr bool kBindsSet = true;
  std::int64_t epoch = 0;
  std::int64_t tree_size = 0;
  Hash32 tree_root{};
  std::int64_t time = 0;  // the witness's clock; the set's time is the median of them
  template <class F>
  void fields(F& f) {
    f("epoch", epoch, Bound{1, kMaxEpoch});
    f("treeSize", tree_size, Bound{1, kMaxTreeSize});
    f("treeRoot", tree_root);
    f("time", time);
  }
};

// The log as it stood after an answer: the plane keeps the newest and shows it at the next start,
// so that a broker whose log is older, or another one, does not go on. For the plane alone: others
// would see when a run ends.
struct LogHead {
  static constexpr std::string_view kType = "log-head";
  static constexpr bool kBindsSet = true;
  std::int64_t epoch = 0;
  std::int64_t tree_size = 0;
  Hash32 tree_root{};
  std::int64_t time = 0;
  template <class F>
  void fields(F& f) {
    f("epoch", epoch, Bound{1, kMaxEpoch});
    f("treeSize", tree_size, Bound{1, kMaxTreeSize});
    f("treeRoot", tree_root);
    f("time", time);
  }
};

// RFC 6962 inclusion of one log entry; the leaf is SHA-256(0x00 ‖ salt ‖ entry). translog proves
// and verifies it.
struct Inclusion {
  std::int64_t leaf_index = 0;
  std::int64_t tree_size = 0;
  Hash32 leaf_salt{};
  std::vector<Hash32> path;  // from the leaf upwards
  Hash32 root{};
  bool operator==(const Inclusion&) const = default;
  template <class F>
  void fields(F& f) {
    f("leafIndex", leaf_index, Bound{0, kMaxTreeSize - 1});
    f("treeSize", tree_size, Bound{1, kMaxTreeSize});
    f("leafSalt", leaf_salt);
    f("path", path, Bound{0, kMaxTreePath});
    f("root", root);
  }
};

}  // namespace gbx::records
