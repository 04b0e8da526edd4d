// fuzz-make-seeds FOLDER: writes seeds of the formats that nobody writes by hand (scripts/fuzz
// --seeds). Everything comes from fixed bytes, so the same source writes the same seeds.
#include <algorithm>
#include <cstdio>

#include "asset/format.h"
#include "asset/journal.h"
#include "attest/sim/events.h"
#include "base/os.h"
#include "broker/receipt_testing.h"
#include "fuzz/program_documents.h"
#include "fuzz/record_documents.h"
#include "fuzz/tree_input.h"
#include "gate/gate.h"
#include "httpsig/request_signing.h"
#include "oci/oci.h"
#include "records/messages.h"
#include "vm/measure/testing.h"

namespace {

using namespace gbx;

// Gives every member the least value that its bound allows; optional members and lists when `full`.
struct Filler {
  bool full = false;
  template <class T>
  void operator()(const char*, T& v, Bound b = {}) {
    fill(v, b);
  }
  template <class T>
  void fill(T& v, Bound b) {
    const auto least =
        static_cast<std::size_t>(std::max<std::int64_t>(b.min, full && b.max > 0 ? 1 : 0));
    if constexpr (fields_detail::is_optional<T>) {
      if (full) fill(v.emplace(), b);
    } else if constexpr (fields_detail::is_vector<T> && !std::is_same_v<T, Bytes>) {
      v.resize(least);
      for (auto& e : v) fill(e, Bound{});
    } else if constexpr (fields_detail::is_map<T>) {
      for (std::size_t i = 0; i < least; ++i) fill(v["m" + std::to_string(i)], Bound{});
    } else if constexpr (std::is_same_v<T, std::string>) {
      v.assign(least, 'a');
    } else if constexpr (std::is_same_v<T, Bytes>) {
      v.assign(least, 7);
    } else if constexpr (fields_detail::is_fixed<T>) {
      v.fill(0xab);
    } else if constexpr (std::is_same_v<T, std::int64_t>) {
      v = std::max<std::int64_t>(b.min, full ? std::min<std::int64_t>(b.max, 5) : 0);
    } else if constexpr (std::is_same_v<T, Json>) {
      v = Json(JsonObject{});
    } else if constexpr (std::is_same_v<T, bool> || std::is_enum_v<T>) {
      v = T{};
    } else {
      v.fields(*this);
    }
  }
};

class Seeds {
 public:
  explicit Seeds(std::string root) : root_(std::move(root)) {}
  void add(const std::string& target, const std::string& name, char choice, ByteView bytes) {
    Bytes all;
    if (choice != 0) all.push_back(static_cast<std::uint8_t>(choice));
    append(all, bytes);
    const std::string folder = root_ + "/" + target;
    Status s = make_dirs(folder, 0755);
    if (s.ok()) s = write_file_atomic(folder + "/" + name, all, 0644);
    if (!s.ok()) {
      std::fprintf(stderr, "%s\n", s.error().line().c_str());
      std::exit(1);
    }
  }
  // What the lists of documents are called with.
  template <class Record>
  void add(const std::string& name) {
    for (const bool full : {false, true}) document<Record>(name, full ? "_full" : "_least", full);
    if constexpr (requires { Record::kType; }) {
      document<records::Signed<Record>>(name, "_signed", true);
    }
  }
  const std::string& root() const { return root_; }
  void documents_of(std::string target) { documents_ = std::move(target); }

 private:
  template <class Record>
  void document(const std::string& name, const char* form, bool full) {
    Record r;
    Filler filler{full};
    r.fields(filler);
    const std::string text = canonical(to_json(r));
    if (const auto read = from_json_text<Record>(text); !read.ok()) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), read.error().line().c_str());
      std::exit(1);
    }
    const std::string file = name.substr(name.rfind(':') + 1) + form;
    add(documents_, file, 0, as_bytes(name + "\n" + text));
  }

  std::string root_;
  std::string documents_;
};

void document_seeds(Seeds& s) {
  s.documents_of("records_json");
  fuzz::every_record(s);
  fuzz::every_log_entry(s);
  s.documents_of("programs_json");
  fuzz::every_api_document(s);
  fuzz::every_program_document(s);
}

void key_seeds(Seeds& s) {
  SeededRandom random(1);
  for (const auto algorithm :
       {crypto::SignatureAlgorithm::kEd25519, crypto::SignatureAlgorithm::kEcdsaP256}) {
    const auto key = crypto::SigningKey::generate(algorithm, random).value();
    const std::string name = algorithm == crypto::SignatureAlgorithm::kEd25519 ? "ed25519" : "p256";
    s.add("keys", name + "_text", '0', as_bytes(key.public_key().text()));
    s.add("keys", name + "_spki", '1', key.public_key().spki_der());
    s.add("keys", name + "_certificate", '3', crypto::self_signed_certificate(key).value());
    const Bytes signature = key.sign(as_bytes("gbx fuzz")).value();
    s.add("keys", name + "_signature", '4',
          concat({as_bytes(key.public_key().text() + "\n"), signature}));
  }
  s.add("keys", "x25519_text", '2',
        as_bytes(crypto::HpkeKeyPair::generate(random)->public_key().text()));
}

asset::Inode sample_file(const Id16& asset_id, std::uint64_t size) {
  asset::Inode inode;
  inode.type = asset::NodeType::kFile;
  inode.parent = asset::kRootIno;
  inode.size = size;
  inode.mtime_s = 1'600'000'000;
  asset::FileContent c;
  c.file_id.fill(9);
  c.secret.bytes.fill(3);
  c.commit = asset::file_keys(asset_id, crypto::AeadSuite::kAes256Gcm, c.file_id, c.content_version,
                              c.secret)
                 .commit;
  c.extent_count = 1;
  c.extent = asset::Extent{0, Id16{4}, asset::kHeaderSize,
                           static_cast<std::uint32_t>(asset::chunk_count(size))};
  inode.content = c;
  return inode;
}

void asset_seeds(Seeds& s) {
  using namespace asset;
  Id16 object{};
  object.fill(4);
  ObjectHeader header;
  header.asset_id = fuzz::kTreeAsset;
  header.object_id = object;
  s.add("asset_format", "header_data", '0', encode_header(header));
  header.kind = ObjectKind::kManifest;
  header.epoch = 1;
  s.add("asset_format", "header_manifest", '0', encode_header(header));
  s.add("asset_format", "list_head", '1',
        encode_list_head(crypto::AeadSuite::kAes256Gcm, fuzz::kTreeAsset, object, 3));
  s.add("asset_format", "list_entry", '2',
        encode_list_entry({object, 4096, Hash32{1}, ObjectKind::kData}));
  s.add("asset_format", "inode_directory", '3', encode_inode(Inode{}));
  s.add("asset_format", "inode_file", '3', encode_inode(sample_file(fuzz::kTreeAsset, 100'000)));
  s.add("asset_format", "dirent", '4', encode_dirent({2, NodeType::kFile}));
  Bytes extent(8);
  append(extent, encode_extent({0, object, kHeaderSize, 2}));
  s.add("asset_format", "extent", '5', extent);
  s.add("asset_format", "meta", '6', encode_meta({3, 1, 1, 100'000}));
  s.add("asset_format", "page_ref", '7', encode_page_ref({object, 5, Hash32{2}}));
  PageEncoder page(0);
  page.add(meta_key(), encode_meta({3, 1, 1, 100'000}));
  page.add(inode_key(1), encode_inode(Inode{}));
  page.add(inode_key(2), encode_inode(sample_file(fuzz::kTreeAsset, 100'000)));
  Bytes plain = page.finish();
  while (plain.size() > 1 && plain.back() == 0) plain.pop_back();
  s.add("asset_format", "page_leaf", '8', plain);
}

struct Entry {
  Bytes key, value;
};
std::vector<Entry> sample_tree() {
  using namespace asset;
  Inode root;
  root.parent = kRootIno;
  Inode below;
  below.parent = kRootIno;
  Inode many = sample_file(fuzz::kTreeAsset, 5 << 16);
  many.parent = 3;
  many.content->extent_count = 2;
  many.content->extent.reset();
  std::vector<Entry> all = {
      {meta_key(), encode_meta({5, 2, 2, 100'000})},
      {inode_key(1), encode_inode(root)},
      {inode_key(2), encode_inode(sample_file(fuzz::kTreeAsset, 100'000))},
      {inode_key(3), encode_inode(below)},
      {inode_key(4), encode_inode(many)},
      {dirent_key(1, "file"), encode_dirent({2, NodeType::kFile})},
      {dirent_key(1, "folder"), encode_dirent({3, NodeType::kDirectory})},
      {dirent_key(3, "many"), encode_dirent({4, NodeType::kFile})},
      {extent_key(4, 0), encode_extent({0, Id16{4}, kHeaderSize, 2})},
      {extent_key(4, 2), encode_extent({2, Id16{5}, kHeaderSize, 3})},
  };
  std::sort(all.begin(), all.end(),
            [](const Entry& a, const Entry& b) { return asset::compare_keys(a.key, b.key) < 0; });
  return all;
}

void leaf(ByteWriter& out, std::span<const Entry> entries) {
  out.u8(0).u8(static_cast<std::uint8_t>(entries.size()));
  for (const Entry& e : entries) {
    out.u8(static_cast<std::uint8_t>(e.key.size())).raw(e.key);
    out.u8(static_cast<std::uint8_t>(e.value.size())).raw(e.value);
  }
}

void tree_seeds(Seeds& s) {
  const std::vector<Entry> all = sample_tree();
  ByteWriter one;
  leaf(one, all);
  s.add("asset_tree", "one_leaf", 0, one.bytes());
  ByteWriter three;
  const auto view = std::span(all);
  const std::array parts = {view.first(4), view.subspan(4, 3), view.subspan(7)};
  for (const auto& part : parts) leaf(three, part);
  three.u8(1).u8(3);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Bytes& key = parts[i].front().key;
    three.u8(static_cast<std::uint8_t>(key.size())).raw(key).u8(static_cast<std::uint8_t>(i));
  }
  s.add("asset_tree", "three_leaves", 0, three.bytes());
}

void oci_seeds(Seeds& s) {
  oci::UnpackedImage image;
  image.image.manifest_digest = image.image.config_digest = "sha256:" + std::string(64, 'a');
  image.image.layers.resize(1);
  image.image.layers[0].digest = image.image.layers[0].diff_id = image.image.manifest_digest;
  image.image.env = {"PATH=/bin"};
  s.add("oci_json", "result", '2', as_bytes(oci::result_to_json(image)));
  s.add("oci_json", "result_refused", '2',
        as_bytes(oci::result_to_json(
            Result<oci::UnpackedImage>(fail(Reason::kImageRefused, "a device")))));
}

void gate_seeds(Seeds& s) {
  using namespace gate;
  Bundle bundle;
  bundle.status.jobId = "job";
  bundle.entries.push_back({EntryKind::kOutput, "a.csv", to_bytes(as_bytes("x,y\n1,2\n"))});
  bundle.entries.push_back({EntryKind::kLog, "log", to_bytes(as_bytes("hello\n"))});
  Bytes bytes = encode_bundle(bundle, kMinBundleBytes).value();
  while (bytes.back() == 0) bytes.pop_back();
  s.add("gate_bundle", "bundle", '1', bytes);
  GateRequest request;
  Filler filler{true};
  request.fields(filler);
  request.outFd = 6;
  request.logs.fd = 7;
  Evaluation held;
  held.result = held_result(request, GateReason::kGateTimedOut);
  s.add("gate_bundle", "answer_held", '2', encode_answer(held));
  s.add("gate_bundle", "request", '3', as_bytes(canonical(to_json(request))));
}

void quote_seeds(Seeds& s) {
  SeededRandom random(6);
  const auto platform = attest::sim::SimPlatform::create(random).value();
  attest::tdx::Quote quote;
  quote.body.mrtd.fill(1);
  quote.body.report_data.fill(2);
  s.add("tdx_quote", "v4_full", '0', attest::tdx::serialize(platform.sign(quote).value()));
  quote.header.version = 5;
  const Bytes five = attest::tdx::serialize(platform.sign(quote).value());
  s.add("tdx_quote", "v5_padded_full", '1', concat({five, Bytes(8, 0)}));
  quote.body_15.emplace();
  s.add("tdx_quote", "v5_15_full", '0', attest::tdx::serialize(platform.sign(quote).value()));
  quote.pck_chain.clear();
  s.add("tdx_quote", "no_chain_full", '0', attest::tdx::serialize(quote));
  s.add("tdx_quote", "own_full", '2', attest::tdx::serialize(quote));
  s.add("tdx_quote", "own_snp_full", '2', Bytes(1184, 3));
  attest::sim::SimLaunch launch;
  launch.machine = R"({"cpus":2})";
  launch.cmdline = "console=ttyS0";
  const Bytes log = attest::sim::sim_events(launch).log;
  s.add("tdx_event_log", "sim_full", '0', log);
  s.add("tdx_event_log", "ones_full", '1', concat({log, Bytes(40, 0xff)}));
  s.add("tdx_event_log", "zeros_full", '1', concat({log, Bytes(40, 0)}));
}

void http_seeds(Seeds& s) {
  SeededRandom random(2);
  const auto key =
      crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random).value();
  const httpsig::RequestLine line{Hash32{3}, "POST", "/v1/jobs?limit=10"};
  const auto headers =
      httpsig::sign_request(line, Hash32{1}, Hash32{2}, key, 1'700'000'000, random).value();
  std::string text = line.method + " " + line.target + "\n";
  for (const auto& [name, value] : headers) text += name + ": " + value + "\n";
  s.add("http_signing", "signed_request", '0', as_bytes(text));
}

// The logs of a job that was released, of one that was held and ruled on, of a cancelled one, and
// of an owner's beacon.
void log_seeds(Seeds& s) {
  using namespace testing;
  const auto save = [&s](const std::string& name, const broker::MemoryStore& store) {
    std::string text;
    for (std::uint64_t i = 0; i < must(store.size()); ++i) {
      text += must(store.entry(i)).entry + "\n";
    }
    s.add("broker_log", name, 0, as_bytes(text));
  };
  for (const bool held : {false, true}) {
    broker::MemoryStore store;
    BrokerWorld w(80, &store);
    w.start_and_publish();
    records::GateVerdict verdict = clean_verdict();
    if (held) verdict.recommendation = records::Recommendation::kHold;
    const auto run = w.run_until_sealed(w.submission(), verdict);
    const auto judged = must(w.judge(run.job_id()));
    for (const auto& p : run.plan.body.policies) {
      if (!held) break;
      must(w.rule(w.reviewer, judged.hold_notice->body, p.policy_hash,
                  records::RulingDecision::kApprove));
    }
    save(held ? "held" : "released", store);
  }
  broker::MemoryStore store;
  BrokerWorld w(81, &store);
  w.start_and_publish();
  const auto run = w.run_until_attested(w.submission());
  const records::Cancel cancel{run.job_id(), w.consumer.id(), kNow};
  must(w.call<records::Empty>(
      records::method::kCancel,
      records::CancelRequest{w.consumer.chain,
                             must(records::sign(w.set.id(), cancel, w.consumer.key))}));
  save("cancelled", store);
}

void receipt_seeds(Seeds& s) {
  using testing::Ending;
  for (const auto& [name, ending] :
       {std::pair("released", Ending::kReleased), std::pair("held", Ending::kHeldAndReleased),
        std::pair("rejected", Ending::kRejected)}) {
    const testing::ReceiptForge forge(ending);
    s.add("receipt", name, 0, as_bytes(canonical(to_json(forge.receipt))));
  }
}

void sealed_seeds(Seeds& s) {
  records::GateReview review;
  Filler filler{true};
  review.fields(filler);
  ByteWriter plain;
  plain.bytes32(as_bytes(canonical(to_json(review)))).raw(Bytes(16, 0));
  s.add("sealed_plain", "review", '0', plain.bytes());
  s.add("sealed_plain", "two_keys", '1', Bytes(128, 7));
  for (const char choice : {'0', '1'}) {
    ByteWriter proof;
    proof.u64(1).u64(5).raw(Bytes(96, 3));
    s.add("log_proofs", choice == '0' ? "any_inclusion" : "any_consistency", choice, proof.bytes());
  }
  s.add("log_proofs", "changed_inclusion", '2', Bytes{5, 20, 1, 2, 3});
  s.add("log_proofs", "changed_consistency", '3', Bytes{5, 20, 1, 2, 3});
}

void journal_seeds(Seeds& s) {
  SeededRandom random(3);
  const DatasetKey key = DatasetKey::copy_of(Bytes(32, 5));
  const std::string path = s.root() + "/.journal";
  asset::JournalWriter journal =
      asset::JournalWriter::create(path, key, fuzz::kTreeAsset, random).value();
  asset::JournalEntry entry;
  entry.seq = 1;
  Status written = journal.entry(entry);
  entry.seq = 2;
  entry.parent_seq = 1;
  entry.path = "file";
  entry.inode = sample_file(fuzz::kTreeAsset, 100'000);
  entry.extents = {asset::Extent{0, Id16{4}, asset::kHeaderSize, 2}};
  if (written.ok()) written = journal.entry(entry);
  if (written.ok()) written = journal.started(Id16{4});
  if (written.ok()) written = journal.done({Id16{4}, 4096, Hash32{1}, asset::ObjectKind::kData});
  s.add("asset_journal", "four_frames", 0, read_file(path, 1U << 20).value());
  std::remove(path.c_str());
}

void measure_seeds(Seeds& s) {
  using namespace vm::measure::testing;
  s.add("vm_measure", "firmware", '0', FirmwareMaker().build());
  s.add("vm_measure", "firmware_without_hashes", '0', FirmwareMaker::without_hashes().build());
  KernelMaker kernel;
  s.add("vm_measure", "kernel", '1', kernel.build());
  kernel.certificates = 0x200;
  s.add("vm_measure", "kernel_with_certificates", '1', kernel.build());
  ByteWriter script;
  for (const std::uint32_t command : {1U, 3U, 0U}) {
    constexpr std::string_view kFile = "etc/acpi/rsdp";
    script.u32(command).text(kFile).zeros(124 - kFile.size());
  }
  s.add("vm_measure", "acpi", '2', ByteWriter().bytes32(script.bytes()).text("RSD PTR ").bytes());
  s.add("vm_measure", "volume", '3', compressed_volume());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  Seeds seeds(argv[1]);
  document_seeds(seeds);
  log_seeds(seeds);
  receipt_seeds(seeds);
  sealed_seeds(seeds);
  journal_seeds(seeds);
  key_seeds(seeds);
  asset_seeds(seeds);
  tree_seeds(seeds);
  oci_seeds(seeds);
  gate_seeds(seeds);
  http_seeds(seeds);
  quote_seeds(seeds);
  measure_seeds(seeds);
  return 0;
}
