// Release policies as people write them.
#include "cli/policy_file.h"

#include <gtest/gtest.h>

#include "base/seams.h"
#include "crypto/keys.h"
#include "policy/policy.h"

namespace gbx::cli {
namespace {

const std::string kNode(64, 'a');
const std::string kHead =
    "apiVersion: glovebox/v1\nkind: ReleasePolicy\nclauses:\n  notAfter: 2027-01-31\n";

TEST(PolicyFile, WhatIsNotSaidIsNotAllowed) {
  const auto file = parse_policy(kHead);
  ASSERT_TRUE(file.ok()) << file.error().line();
  EXPECT_FALSE(file->kind);
  const records::Clauses* c = &file->clauses;
  EXPECT_TRUE(c->lease_required);
  EXPECT_TRUE(c->consumers.empty() && c->purposes.empty() && c->images.empty() &&
              c->commands.empty() && c->tee.empty());
  EXPECT_TRUE(c->custody.empty() && c->join_assets.empty() && c->join_owners.empty() &&
              c->reviewers.empty());
  EXPECT_FALSE(c->any_command);
  EXPECT_EQ(c->rollback, "witnessed");
  EXPECT_EQ(c->gate.release_slot_seconds, 900);
  EXPECT_EQ(c->gate.logs, records::LogVisibility::kNone);
  EXPECT_EQ(std::count(c->gate.output_types.begin(), c->gate.output_types.end(),
                       records::OutputType::kOpaque),
            0);
  EXPECT_EQ(c->not_after, 1801353600);
  EXPECT_TRUE(warnings(*c, records::AssetKind::kDataset).empty());
  EXPECT_EQ(exposure(*c, records::AssetKind::kDataset), "");
}

TEST(PolicyFile, DangerIsAllowedByNameAndNamedBack) {
  const auto file =
      parse_policy(kHead + "  tee: [{technology: none, node: " + kNode +
                   "}]\n  custody: [operator]\n  rollback: unprotected\n"
                   "  anyCommand: true\n  leaseRequired: false\n  gate: {releaseSlotSeconds: 0}\n");
  ASSERT_TRUE(file.ok()) << file.error().line();
  const records::Clauses* c = &file->clauses;
  ASSERT_EQ(c->tee.size(), 1U);
  EXPECT_EQ(c->tee[0].root, "none:" + kNode);
  EXPECT_EQ(c->gate.release_slot_seconds, 0);
  EXPECT_EQ(c->gate.auto_clear_free_bits, 2048);  // the rest of the gate keeps its values
  const auto w = warnings(*c, records::AssetKind::kDataset);
  ASSERT_EQ(w.size(), 5U);
  EXPECT_EQ(w[0].substr(0, 6), "NO TEE");
  EXPECT_EQ(exposure(*c, records::AssetKind::kDataset),
            "NO TEE on node aaaaaaaaaaaaaaaa…, custody operator, rollback unprotected, any "
            "command, anybody may submit");
  // Which code may read the data is for the data's policies to say, so an image's policy raises no
  // alarm about it.
  for (const auto& line : warnings(*c, records::AssetKind::kImage)) {
    EXPECT_EQ(line.find("anyCommand"), std::string::npos);
  }
}

TEST(PolicyFile, MistakesAreRefusedWithTheirPlace) {
  struct Case {
    std::string text;
    Reason reason;
    const char* what;
  };
  const Case cases[] = {
      {"apiVersion: glovebox/v1\nkind: ReleasePolicy\nclauses: {}\n", Reason::kMissingField,
       "clauses.notAfter"},
      {"apiVersion: glovebox/v2\nkind: ReleasePolicy\nclauses: {}\n", Reason::kBadValue,
       "apiVersion"},
      {"apiVersion: glovebox/v1\nkind: Policy\nclauses: {}\n", Reason::kBadValue, "kind"},
      {"apiVersion: glovebox/v1\nkind: ReleasePolicy\nclauses: []\n", Reason::kBadValue, "clauses"},
      {kHead + "for: dog\n", Reason::kBadValue, "for"},
      {kHead + "extra: 1\n", Reason::kUnknownField, "extra"},
      {kHead + "  leaseRequird: false\n", Reason::kUnknownField, "clauses.leaseRequird"},
      {kHead + "  gate: {holdscore: 1}\n", Reason::kUnknownField, "clauses.gate.holdscore"},
      {kHead + "  gate: {outputTypes: [pictures]}\n", Reason::kBadValue,
       "clauses.gate.outputTypes"},
      {kHead + "  rollback: none\n", Reason::kBadValue, "clauses.rollback"},
      {kHead + "  tee: [{technology: none}]\n", Reason::kBadValue, "clauses.tee[0].root"},
      {kHead + "  tee: [{technology: sim, root: \"none:" + kNode + "\"}]\n", Reason::kBadValue,
       "clauses.tee[0].root"},
      {kHead + "  tee: [{technology: tdx, node: " + kNode + "}]\n", Reason::kBadValue,
       "clauses.tee[0].node"},
      {kHead + "  tee: [{technology: none, node: abc}]\n", Reason::kBadValue,
       "clauses.tee[0].node"},
      {kHead + "  images: [{}]\n", Reason::kMissingField, "clauses.images[0]"},
      {kHead + "  custody: [anybody]\n", Reason::kBadValue, "clauses.custody"},
      {kHead + "  attempts: 0\n", Reason::kBadValue, "clauses.attempts"},
      {"apiVersion: glovebox/v1\nkind: ReleasePolicy\nclauses: {notAfter: tomorrow}\n",
       Reason::kBadValue, "clauses.notAfter"},
      {kHead + "  attempts: 1\n  attempts: 100\n", Reason::kDuplicateKey, "attempts"},
  };
  for (const auto& c : cases) {
    const auto r = parse_policy(c.text);
    ASSERT_FALSE(r.ok()) << c.text;
    EXPECT_EQ(r.reason(), c.reason) << r.error().line();
    EXPECT_NE(r.error().what.find(c.what), std::string::npos) << r.error().line();
  }
}

TEST(PolicyFile, ReadsBackEveryDraftThatItWrites) {
  PolicyDraft d;
  d.consumers = {std::string(64, 'b')};
  d.lease_required = false;
  d.purposes = {"a \"quoted\" purpose: with # and ü", "*"};
  d.image_digests = {"sha256:" + std::string(64, 'c')};
  SeededRandom random(1);
  d.image_signers = {crypto::SigningKey::generate(crypto::SignatureAlgorithm::kEd25519, random)
                         ->public_key()
                         .text()};
  d.commands = {{"/bin/x", "--a=b c", "yes"}, {"/bin/y"}};
  d.none_nodes = {kNode};
  d.join_assets = {std::string(32, 'e')};
  d.join_owners = {std::string(64, 'f')};
  d.custody = {"operator"};
  d.rollback = "unprotected";
  d.output_types = {"table", "opaque"};
  d.release_slot = 0;
  d.attempts = 3;
  d.free_bits = 99;
  d.logs = "consumer";
  d.log_bytes = 4096;
  d.not_after = "2027-01-31T12:00:00Z";
  d.tables = {{"visits.csv", "patient"}, {"a \"b\".csv", "who"}};
  d.row_bits = 117;
  const auto file = parse_policy(write_policy(d));
  ASSERT_TRUE(file.ok()) << file.error().line() << "\n" << write_policy(d);
  EXPECT_EQ(file->kind, records::AssetKind::kDataset);
  const records::Clauses* c = &file->clauses;
  EXPECT_EQ(c->consumers.size(), 1U);
  EXPECT_FALSE(c->lease_required);
  EXPECT_EQ(c->purposes, d.purposes);
  ASSERT_EQ(c->images.size(), 2U);
  EXPECT_EQ(c->images[0].digest, d.image_digests[0]);
  EXPECT_EQ(c->images[1].signer, d.image_signers[0]);
  ASSERT_EQ(c->commands.size(), 2U);
  EXPECT_EQ(c->commands[0].argv, d.commands[0]);
  EXPECT_EQ(c->tee[0].root, "none:" + kNode);
  EXPECT_EQ(c->gate.output_types.size(), 2U);
  EXPECT_EQ(c->gate.release_slot_seconds, 0);
  EXPECT_EQ(c->gate.auto_clear_free_bits, 99);
  EXPECT_EQ(c->gate.log_bytes, 4096);
  EXPECT_EQ(c->attempts, 3);
  EXPECT_EQ(c->not_after, 1801396800);
  ASSERT_TRUE(c->tables && c->tables->size() == 2);
  EXPECT_EQ((*c->tables)[1].file, "a \"b\".csv");
  EXPECT_EQ((*c->tables)[1].subject, "who");
  EXPECT_EQ(c->row_bits, 117);
  EXPECT_EQ(c->gate.cell_subjects, 10);
  d.tables[1].file = "visits.csv";  // of whom would a row be?
  EXPECT_EQ(parse_policy(write_policy(d)).error().what, "clauses.tables[1].file");
  d.tables[1].file = "others.csv";
  std::string text = write_policy(d);
  const auto at = text.find("subject: \"who\"}");
  ASSERT_NE(at, std::string::npos) << text;
  const auto with = [&](const std::string& zeros) {
    return parse_policy(std::string(text).insert(at + 14, ", structuralZeros: " + zeros));
  };
  const auto zeros = with("[{columns: [sex, pregnant], words: [m, \"yes\"]}]");
  ASSERT_TRUE(zeros.ok()) << zeros.error().line();
  EXPECT_EQ((*zeros->clauses.tables)[1].structural_zeros->front().words[1], "yes");
  EXPECT_EQ(with("[{columns: [sex, pregnant], words: [m]}]").error().what,
            "clauses.tables[1].structuralZeros[0].words");
  EXPECT_EQ(with("[{columns: [sex], words: [\"\\u202e\"]}]").reason(), Reason::kBadValue);
  d.tables[1] = {"others.csv", "a\x1b[2Jb"};
  EXPECT_EQ(parse_policy(write_policy(d)).reason(), Reason::kBadValue);
  PolicyDraft empty;
  empty.rollback = "witnessed";
  empty.not_after = "2027-01-31";
  EXPECT_TRUE(parse_policy(write_policy(empty)).ok());
  empty.kind = records::AssetKind::kImage;
  empty.join_owners = {std::string(64, 'f')};
  const auto image = parse_policy(write_policy(empty));
  ASSERT_TRUE(image.ok()) << image.error().line();
  EXPECT_EQ(image->clauses.join_owners.size(), 1U);
  EXPECT_TRUE(check_kind(*image, records::AssetKind::kImage).ok());
  EXPECT_EQ(check_kind(*image, records::AssetKind::kDataset).reason(), Reason::kConflict);
  EXPECT_TRUE(check_kind(*file, records::AssetKind::kDataset).ok());
  EXPECT_EQ(check_kind(*file, records::AssetKind::kModel).reason(), Reason::kConflict);
  EXPECT_EQ(check_kind(*file, records::AssetKind::kImage).reason(), Reason::kConflict);
  // Every sentence of the explanation comes from something that the file said.
  records::Policy p;
  p.clauses = *c;
  std::string all;
  for (const auto& line : policy::explain_policy(p, records::AssetKind::kDataset)) {
    all += line + "\n";
  }
  for (const char* part : {"NO TEE", "/bin/x", "sha256:ccc", "4,096 bytes of logs"}) {
    EXPECT_NE(all.find(part), std::string::npos) << part << "\n" << all;
  }
}

}  // namespace
}  // namespace gbx::cli
