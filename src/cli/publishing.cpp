#include "cli/publishing.h"

#include <unistd.h>

#include <algorithm>

#include "asset/publish.h"
#include "base/log.h"
#include "base/os.h"
#include "cli/catalogue.h"
#include "cli/interrupt.h"
#include "cli/policy_file.h"
#include "cli/progress.h"
#include "policy/policy.h"
#include "records/sealing.h"

namespace gbx::cli {

namespace {

constexpr std::int64_t kMaxClockDifference = 300;  // seconds, for a remark only

// What an interrupted publication of one source under one name needs to go on; lies beside the
// publisher's journal.
struct Pending {
  Id16 asset_id{};
  std::int64_t version = 1;
  Hash32 commit_dk{};  // of the key that this publication made: any other is not its own
  template <class F>
  void fields(F& f) {
    f("assetId", asset_id);
    f("version", version, Bound{1, kMaxJsonInteger});
    f("commitDk", commit_dk);
  }
};

Result<std::string> absolute(const std::string& path) {
  char* real = realpath(path.c_str(), nullptr);
  if (real == nullptr && (errno == ENOENT || errno == ENOTDIR)) {
    return fail(Reason::kNotFound, "what to publish")
        .with("a folder or a file", printable(path) + ": nothing there")
        .hint("check the path: it is one on this machine");
  }
  if (real == nullptr) return io_error(printable(path), errno);
  std::string out(real);
  free(real);
  return out;
}

// One publication that was sent and has no answer yet, and under each key that its owner has had
// since, the oldest first: the broker may hold any of them, and proves it with those very bytes. It
// takes what an older key signed no more, so the last one is the present key's.
class Unanswered {
 public:
  explicit Unanswered(std::string path) : path_(std::move(path)) {}

  Result<std::optional<records::Publish>> first() const {
    if (!path_exists(path_)) return std::optional<records::Publish>();
    GBX_ASSIGN(records::Publish p, read(path_));
    return std::optional<records::Publish>(std::move(p));
  }
  // The last one first: what is left when this is interrupted begins at the first.
  Status forget() const {
    std::size_t n = 0;
    while (n < kMost && path_exists(at(n))) ++n;
    while (n > 0) GBX_TRY(remove_tree(at(--n)));
    return ok_status();
  }
  struct Acknowledged {
    records::Publish publish;
    records::Signed<records::PublishAck> ack;
  };
  // `sign` gives the same publication by `key`, the present one. Nothing is forgotten, not on a
  // chain-broken either, which may be a lie. The acknowledgement is not verified.
  template <class Sign>
  Result<Acknowledged> send(Plane& plane, const std::string& key, const Sign& sign) const {
    for (std::size_t n = 0; n < kMost; ++n) {
      records::Publish p;
      if (path_exists(at(n))) {
        GBX_ASSIGN(p, read(at(n)));
      } else {
        GBX_ASSIGN(p, sign());
        GBX_TRY(write_file_atomic(at(n), as_bytes(canonical(to_json(p))), 0600));
      }
      auto ack = plane.publish(p);
      if (ack.ok()) return Acknowledged{std::move(p), std::move(*ack)};
      // Its key stands no more; or the broker has another one of these.
      const bool next =
          ack.reason() == Reason::kChainBroken || ack.reason() == Reason::kPolicyStale;
      if (!next || p.policy.key == key) return ack.error();
    }
    return fail(Reason::kTooLarge, "keys under which this publication was sent")
        .with("at most " + std::to_string(kMost), "one more");
  }

 private:
  static constexpr std::size_t kMost = 65;  // the genesis key, and 64 rotations
  static Result<records::Publish> read(const std::string& path) {
    GBX_ASSIGN(const std::string text, read_text_file(path, 4U << 20));
    return from_json_text<records::Publish>(text);
  }
  std::string at(std::size_t n) const { return n == 0 ? path_ : path_ + "." + std::to_string(n); }
  const std::string path_;
};

class Publication {
 public:
  Publication(Session& session, PublishRequest request)
      : session_(session), r_(std::move(request)) {}

  Result<Published> run() {
    GBX_TRY(check_new_name(r_.name));
    GBX_ASSIGN(r_.source, absolute(r_.source));
    GBX_ASSIGN(plane_, session_.plane());
    GBX_ASSIGN(keys_, session_.keys());
    const Bytes place = concat({as_bytes(r_.name), as_bytes(std::string_view("\0", 1)),
                                as_bytes(r_.source), as_bytes(r_.content_digest), keys_->id});
    folder_ = "publish/" + to_hex(crypto::sha256(place)).substr(0, 24);
    // Before any work: a broker that we do not trust gets no key, and who is no owner publishes
    // nothing.
    GBX_TRY(check_broker(session_));
    GBX_TRY(check_role());
    const std::string said = session_.live_display() ? "\r\033[K" : "\n";
    const Interruptible guard(
        session_.format() == Format::kTable
            ? said + "stopped; what is finished is kept. Give the same command to go on\n"
            : std::string());
    auto out = go_on();
    if (out.ok()) GBX_TRY(remove_tree(file("")));
    // What was refused is not kept for ever.
    if (!out.ok() && refused_ && forget_) GBX_TRY(forget());
    (void)rmdir(file("").c_str());  // where nothing was begun; one that holds something stays
    return out;
  }

 private:
  Result<Published> go_on() {
    GBX_TRY(session_.home().make(folder_));
    GBX_TRY(decide_version());
    auto record = encrypt();
    if (!record.ok()) {
      judge(record.error());
      return record.error();
    }
    return announce(std::move(*record));
  }
  // The plane's word counts: roles may have changed since the identity was made here.
  Status check_role() {
    GBX_ASSIGN(const Json me, plane_->identity(keys_->id));
    const Json* roles = me.find("roles");
    const JsonArray* list = roles == nullptr ? nullptr : roles->array();
    std::string have;
    for (const Json& r : list == nullptr ? JsonArray{} : *list) {
      if (r == Json("owner")) return ok_status();
      if (r.string() != nullptr) have += (have.empty() ? "" : ", ") + printable(*r.string(), 32);
    }
    return fail(Reason::kWrongRole, "publishing").with("role owner", have.empty() ? "none" : have);
  }
  // Whether an error is a refusal for good, after which nothing is left to go on with: not when
  // somebody could not be reached, when there is no room, or when only the policy has to change.
  void judge(const Error& e) {
    const bool answered =
        exit_class(e.reason) == ExitClass::kDenied || exit_class(e.reason) == ExitClass::kUsage;
    refused_ = answered;
    forget_ = e.reason == Reason::kConflict || e.reason == Reason::kAlreadyExists ||
              e.reason == Reason::kWrongOwner || e.reason == Reason::kWrongVersion;
    // Who is refused, or cannot publish what the source holds, has announced nothing yet.
    if (e.reason == Reason::kWrongRole || e.reason == Reason::kUnauthenticated ||
        e.reason == Reason::kBadValue || e.reason == Reason::kNotFound) {
      forget_ = !finished();
    }
  }
  // A record is there to be signed: the broker may have taken it, whatever the plane answered.
  bool finished() const { return path_exists(file("state/record.json")); }
  std::string key_path() const {
    return session_.home().dataset_key(pending_.asset_id, pending_.version);
  }
  // The key file holds the key that this publication made.
  Result<bool> has_own_key() {
    GBX_ASSIGN(DatasetKey key, session_.dataset_key(pending_.asset_id, pending_.version));
    return records::dataset_key_commitment(pending_.asset_id, key) == pending_.commit_dk;
  }
  // The key goes only if nothing was ever signed for it and no other publication made it: on the
  // plane's word alone nobody loses what opens their data.
  Status forget() {
    if (pending_.asset_id != Id16{} && !finished()) {
      const auto own = has_own_key();
      if (own.ok() && *own) GBX_TRY(remove_tree(key_path()));
    }
    return remove_tree(file(""));
  }

  std::string file(const std::string& name) const {
    return session_.home().file(folder_ + (name.empty() ? "" : "/" + name));
  }

  // An earlier release kept no commitment: whose the key is that lies there cannot be told, so the
  // owner decides. No key goes with the folder: where one is in the way, key_is_taken() says so.
  Result<Pending> read_pending() const {
    const std::string path = file("pending.json");
    GBX_ASSIGN(const std::string text, read_text_file(path, 4096));
    auto pending = from_json_text<Pending>(text);
    if (pending.ok()) return pending;
    return pending.error().at(path).hint(
        "nothing was changed. It is of an earlier release, or damaged: end this publication with "
        "that release, or move " +
        file("") + " to another place and give the same command again, which begins anew");
  }
  // New asset, or the next version of the one that the owner has under this name.
  Status decide_version() {
    if (path_exists(file("pending.json"))) {
      GBX_ASSIGN(pending_, read_pending());
    }
    Plane::AssetFilter filter;
    filter.name = r_.name;
    filter.owner = to_hex(keys_->id);
    filter.delisted = true;  // versions go on where they stopped
    GBX_ASSIGN(std::vector<api::AssetView> mine, plane_->assets(filter));
    GBX_ASSIGN(records::SetChain::Keys set, session_.set());
    for (auto& v : mine) {
      if (v.record.body.owner_id != keys_->id || v.record.body.name != r_.name) continue;
      // Its own version, acknowledged in an answer that was lost.
      if (v.record.body.asset_id == pending_.asset_id &&
          v.record.body.version >= pending_.version) {
        continue;
      }
      if (previous_ && v.record.body.version <= previous_->record.body.version) continue;
      GBX_TRY(verify_asset_view(set, v));
      previous_ = std::move(v);
    }
    if (previous_ && previous_->record.body.kind != r_.kind) {
      return fail(Reason::kConflict, "you have another kind of asset under the name " + r_.name)
          .with(std::string(enum_name(previous_->record.body.kind)),
                std::string(enum_name(r_.kind)))
          .hint("use another --name");
    }
    const bool begun = pending_.asset_id != Id16{};
    if (!begun) {
      pending_.asset_id =
          previous_ ? previous_->record.body.asset_id : session_.random().fixed<16>();
      pending_.version = previous_ ? previous_->record.body.version + 1 : 1;
    }
    if (pending_.version > 1 && !(begun && finished())) {
      GBX_ASSIGN(before_, version_before());
    }
    return begun ? check_key() : make_key();
  }
  // Of a publication that goes on: killed before its key was there, it makes another.
  Status check_key() {
    const auto own = has_own_key();
    if (own.reason() == Reason::kNotFound && !finished()) return make_key();
    if (!own.ok()) return own.error();
    return *own ? ok_status() : Status(key_is_taken());
  }
  // The key is on the disk before anything is sealed under it, and what says whose it is before
  // the key.
  Status make_key() {
    // What lies there was sealed under another key, and serves nobody.
    GBX_TRY(remove_tree(file("")));
    GBX_TRY(session_.home().make(folder_));
    const auto key = session_.random().secret<DatasetKey>(32);
    pending_.commit_dk = records::dataset_key_commitment(pending_.asset_id, key);
    GBX_TRY(write_file_atomic(file("pending.json"), as_bytes(canonical(to_json(pending_))), 0600));
    const Status made = session_.store_dataset_key(pending_.asset_id, pending_.version, key);
    return made.reason() == Reason::kAlreadyExists ? Status(key_is_taken()) : made;
  }
  // Which version is next is the plane's word; which keys are here is not.
  Error key_is_taken() {
    refused_ = true;
    forget_ = !finished();
    const auto label = [this](std::int64_t n) { return r_.name + "@" + std::to_string(n); };
    return fail(Reason::kConflict, "the key of " + label(pending_.version) +
                                       " is here, and the plane shows no such version of yours")
        .with(label(pending_.version),
              previous_ ? label(previous_->record.body.version) + " as the newest" : "none")
        .hint(
            "nothing was changed. Was it published? Then the plane keeps it back, or went back "
            "to an old copy: ask its operator. Was it never? Then end its publication by the "
            "command that began it, or move " +
            key_path() + " to another place");
  }

  Result<records::VersionRecord> encrypt() {
    GBX_ASSIGN(auto finished, asset::finished_publication(file("state")));
    if (finished) return std::move(*finished);
    asset::PublishOptions o;
    o.source = r_.source;
    o.state_dir = file("state");
    o.owner_id = keys_->id;
    o.kind = r_.kind;
    o.name = r_.name;
    o.content_digest = r_.content_digest;
    o.asset_id = pending_.asset_id;
    GBX_ASSIGN(o.key, session_.dataset_key(pending_.asset_id, pending_.version));
    o.previous = std::move(before_);
    PlaneStore store(*plane_, session_.home().file("spool"));
    Progress bar(session_, "encrypt and upload " + r_.name);
    auto result =
        asset::publish(std::move(o), store, session_.random(),
                       [&](const asset::PublishProgress& p) { bar.show(p.bytes, p.bytes_total); });
    bar.end();
    if (!result.ok()) return result.error();
    files_ = result->files;
    bytes_ = result->bytes;
    return result->record;
  }

  // With its key: nothing can be shared with a version that does not open.
  Result<asset::PreviousVersion> version_before() {
    const std::int64_t version = pending_.version - 1;
    const std::int64_t shown = previous_ ? previous_->record.body.version : 0;
    if (shown != version) {
      return fail(Reason::kConflict, "the plane does not show the version before any more")
          .with("version " + std::to_string(version), "version " + std::to_string(shown))
          .hint("what was begun is kept, and can go on when it does; ask the plane's operator");
    }
    const std::string restore =
        "restore it to " + session_.home().dataset_key(pending_.asset_id, version);
    auto old = session_.dataset_key(pending_.asset_id, version);
    if (!old.ok()) return old.error().at("the key of the version before").hint(restore);
    const auto& record = previous_->record.body;
    if (records::dataset_key_commitment(record.asset_id, *old) != record.commit_dk) {
      return fail(Reason::kBadCommitment, "the key of the version before is another one")
          .hint("move it to another place, and " + restore);
    }
    return asset::PreviousVersion{record, std::move(*old)};
  }

  Result<Published> announce(records::VersionRecord record) {
    if (record.asset_id != pending_.asset_id || record.version != pending_.version) {
      refused_ = forget_ = true;
      return fail(Reason::kConflict, "the name was published meanwhile")
          .with("version " + std::to_string(pending_.version),
                "version " + std::to_string(record.version))
          .hint("publish again");
    }
    GBX_ASSIGN(BrokerCheck broker, check_broker(session_));
    const Unanswered sent(file("sent.json"));
    GBX_TRY(begin_to_send(sent, broker.keys, record));
    auto answer = sent.send(*plane_, keys_->signing->public_key().text(),
                            [&] { return sign_publish(broker.keys, record); });
    if (!answer.ok()) {
      judge(answer.error());
      if (refused_) GBX_TRY(write_file_atomic(file("refused"), {}, 0600));
      return answer.error();
    }
    auto& [p, ack] = *answer;
    GBX_TRY(verify_publish_ack(broker.keys, p, ack));
    return Published{std::move(p.record), std::move(p.policy), std::move(ack), files_, bytes_};
  }
  // What was sent is sent again as it was, for the broker's proof is about those very bytes; or a
  // new one under another policy, where that was refused. Of a refusal there is the plane's word
  // only: what it is about is kept until there is another.
  Status begin_to_send(const Unanswered& sent, const records::SetChain::Keys& set,
                       const records::VersionRecord& record) {
    GBX_ASSIGN(const std::optional<records::Publish> p, sent.first());
    if (!p) return ok_status();
    const bool same = p->record.body.id() == record.id() && p->policy.body.kek_epoch == set.epoch &&
                      to_json(p->policy.body.clauses) == to_json(r_.clauses);
    if (same) return ok_status();
    if (!path_exists(file("refused"))) {
      return fail(Reason::kConflict,
                  "an earlier publication with another policy was not acknowledged")
          .hint("publish with the earlier policy, then `glovebox policy sign`");
    }
    GBX_TRY(sent.forget());
    return remove_tree(file("refused"));
  }
  Result<records::Publish> sign_publish(const records::SetChain::Keys& set,
                                        records::VersionRecord record) {
    records::Publish p;
    p.owner = keys_->file.chain;
    records::Policy policy;
    policy.asset_version_id = record.id();
    policy.asset_id = record.asset_id;
    policy.owner_id = keys_->id;
    policy.kek_epoch = set.epoch;
    policy.commit_dk = record.commit_dk;
    policy.clauses = r_.clauses;
    GBX_ASSIGN(DatasetKey key, session_.dataset_key(record.asset_id, record.version));
    if (records::dataset_key_commitment(record.asset_id, key) != record.commit_dk) {
      return fail(Reason::kBadCommitment, "the kept key is not the one of this version");
    }
    GBX_ASSIGN(p.wrapped_key, records::wrap_dataset_key(set.kek, policy, key, session_.random()));
    GBX_ASSIGN(p.record, records::sign(set.set_id, std::move(record), *keys_->signing));
    GBX_ASSIGN(p.policy, records::sign(set.set_id, std::move(policy), *keys_->signing));
    return p;
  }

  Session& session_;
  PublishRequest r_;
  Keys* keys_ = nullptr;
  Plane* plane_ = nullptr;
  std::string folder_;
  Pending pending_;
  std::optional<api::AssetView> previous_;
  std::optional<asset::PreviousVersion> before_;  // the same, with its key
  std::uint64_t files_ = 0;
  std::uint64_t bytes_ = 0;
  bool refused_ = false;
  bool forget_ = false;
};

}  // namespace

Result<std::vector<std::string>> note_policy(Session& s, const records::Clauses& clauses,
                                             records::AssetKind kind) {
  GBX_TRY(check_in_force(clauses, s.now()));
  std::vector<std::string> all = warnings(clauses, kind);
  const std::string words = exposure(clauses, kind);
  if (!words.empty()) {
    s.note("note: this policy accepts " + words +
           " (`glovebox policy explain` says what that means)");
  }
  records::Policy p;
  p.clauses = clauses;
  for (const auto& reason : policy::dead_ends(p, kind, s.now())) {
    all.push_back("no job can run under it: " + reason);
    s.note("warning: " + all.back());
  }
  return all;
}

Result<BrokerCheck> verify_broker(const records::SetChain::Keys& set,
                                  const records::Signed<records::BrokerEvidence>& e,
                                  const Nonce32& nonce) {
  GBX_TRY(e.verify(set.set_id, set.signing));
  if (e.body.nonce != nonce) {
    return fail(Reason::kNonceMismatch, "the broker's evidence answers another question")
        .with(to_hex(nonce), to_hex(e.body.nonce));
  }
  if (e.body.set_key != set.set_key.text() || e.body.kek != set.kek.text() ||
      e.body.epoch != set.epoch) {
    return fail(Reason::kBrokerUntrusted,
                "the broker's evidence names other keys than the set's chain")
        .with("epoch " + std::to_string(set.epoch) + ", " + set.kek.text(),
              "epoch " + std::to_string(e.body.epoch) + ", " + e.body.kek);
  }
  return BrokerCheck{set, e.body};
}

Result<BrokerCheck> check_broker(Session& session) {
  GBX_ASSIGN(Plane * plane, session.plane());
  GBX_ASSIGN(Context * context, session.context());
  const Nonce32 nonce = session.random().fixed<32>();
  GBX_ASSIGN(records::InfoReply info, plane->broker(nonce));
  GBX_ASSIGN(records::SetChain::Keys set, accept_chain(session.home(), *context, info.set));
  GBX_ASSIGN(BrokerCheck check, verify_broker(set, info.evidence, nonce));
  const std::int64_t difference = check.evidence.time - session.now();
  if (difference > kMaxClockDifference || difference < -kMaxClockDifference) {
    session.note("note: this machine's clock and the broker's differ by " +
                 std::to_string(difference) + " s; the broker's counts");
  }
  return check;
}

Result<Published> publish_asset(Session& session, PublishRequest request) {
  return Publication(session, std::move(request)).run();
}

Result<Published> update_policy(Session& session, PolicyUpdate u) {
  GBX_ASSIGN(Keys * keys, session.keys());
  const records::VersionRecord& record = u.asset.record.body;
  if (record.owner_id != keys->id) {
    return fail(Reason::kWrongOwner, "a policy is signed by the asset's owner")
        .with(to_hex(record.owner_id), to_hex(keys->id));
  }
  const std::string label = version_label(u.asset);
  if (u.asset.policy.body.revoked && !u.revoked && !u.reinstate) {
    return fail(Reason::kPolicyRevoked)
        .with("a policy in force",
              "revoked by serial " + std::to_string(u.asset.policy.body.serial))
        .hint("to undo a revocation: glovebox policy sign " + label + " --reinstate");
  }
  GBX_ASSIGN(BrokerCheck broker, check_broker(session));
  GBX_TRY(session.home().make("publish"));
  const Unanswered sent(
      session.home().file("publish/policy-" + to_hex(u.asset.version_id).substr(0, 24) + ".json"));
  records::Policy policy = u.asset.policy.body;
  policy.prev = u.asset.policy.hash();
  ++policy.serial;
  policy.kek_epoch = broker.keys.epoch;
  policy.revoked = u.revoked;
  if (u.clauses) policy.clauses = std::move(*u.clauses);
  GBX_ASSIGN(const std::optional<records::Publish> begun, sent.first());
  if (begun && begun->policy.hash() != records::hash_of(policy)) GBX_TRY(sent.forget());
  const auto sign = [&]() -> Result<records::Publish> {
    records::Publish p;
    p.owner = keys->file.chain;
    p.record = u.asset.record;  // accepted: it stays good, whoever has signed it
    if (!policy.revoked) {      // who has lost the data key can still revoke
      GBX_ASSIGN(DatasetKey key, session.dataset_key(record.asset_id, record.version));
      GBX_ASSIGN(p.wrapped_key,
                 records::wrap_dataset_key(broker.keys.kek, policy, key, session.random()));
    }
    GBX_ASSIGN(p.policy, records::sign(broker.keys.set_id, policy, *keys->signing));
    return p;
  };
  GBX_ASSIGN(Plane * plane, session.plane());
  GBX_ASSIGN(auto answer, sent.send(*plane, keys->signing->public_key().text(), sign));
  const auto& [p, ack] = answer;
  GBX_TRY(verify_publish_ack(broker.keys, p, ack));
  GBX_TRY(sent.forget());
  return Published{p.record, p.policy, ack, 0, 0};
}

}  // namespace gbx::cli
