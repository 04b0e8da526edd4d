// The simulated platform: its root is one per installation and stays.
#include "attest/sim/platform.h"

#include <sys/stat.h>
#include <unistd.h>

#include "attest/tdx/verify.h"
#include "attest/testing.h"
#include "crypto/certificates.h"

namespace gbx::attest::sim {
namespace {

using testing::fails_with;

class SimPlatformTest : public ::testing::Test {
 protected:
  SimPlatformTest() {
    char name[] = "/tmp/gbx-sim-XXXXXX";
    dir_ = ::mkdtemp(name);
    path_ = dir_ + "/sim-root.key";
  }
  ~SimPlatformTest() override { EXPECT_TRUE(remove_tree(dir_).ok()); }
  std::string dir_, path_;
  SeededRandom random_{1};
};

TEST_F(SimPlatformTest, TheRootIsKeptAndTheRestIsNew) {
  const auto first = SimPlatform::create(random_).value();
  ASSERT_TRUE(first.save(path_).ok());
  const auto second = SimPlatform::load(path_, random_);
  ASSERT_TRUE(second.ok()) << second.error().line();
  EXPECT_EQ(first.root(), second->root());
  const Bytes one = first.quote({}, {}).value(), two = second->quote({}, {}).value();
  for (const Bytes& bytes : {one, two}) {
    const auto q = tdx::parse_quote(bytes).value();
    EXPECT_TRUE(tdx::verify_signatures(q, {first.root().fingerprint(), 0}).ok());
  }
  EXPECT_NE(tdx::parse_quote(one)->attestation_key, tdx::parse_quote(two)->attestation_key);
  EXPECT_NE(SimPlatform::create(random_)->root(), first.root());
}

TEST_F(SimPlatformTest, TheRootsFileIsPrivateAndNeverWrittenOver) {
  const auto first = SimPlatform::create(random_).value();
  EXPECT_TRUE(fails_with(SimPlatform::load(path_, random_), Reason::kNotFound));
  ASSERT_TRUE(first.save(path_).ok());
  EXPECT_TRUE(fails_with(SimPlatform::create(random_)->save(path_), Reason::kAlreadyExists));
  EXPECT_EQ(SimPlatform::load(path_, random_)->root(), first.root());
  ASSERT_EQ(::chmod(path_.c_str(), 0644), 0);
  EXPECT_TRUE(fails_with(SimPlatform::load(path_, random_), Reason::kIo));
  for (const std::size_t n : {0U, 31U, 33U}) {
    ASSERT_TRUE(write_file_atomic(path_, Bytes(n, 1), 0600).ok());
    EXPECT_FALSE(SimPlatform::load(path_, random_).ok()) << n;
  }
  ASSERT_TRUE(write_file_atomic(path_, Bytes(32, 0), 0600).ok());
  EXPECT_TRUE(fails_with(SimPlatform::load(path_, random_), Reason::kBadValue));
}

TEST_F(SimPlatformTest, EveryCertificateSaysThatItIsSimulated) {
  const auto q = tdx::parse_quote(SimPlatform::create(random_)->quote({}, {}).value()).value();
  const auto chain = crypto::certificates_of_pem(as_text(q.pck_chain)).value();
  ASSERT_EQ(chain.size(), 3U);
  for (const Bytes& der : chain) {
    const std::string_view text = as_text(der);
    std::size_t count = 0;
    for (std::size_t at = text.find("SIMULATED"); at != std::string_view::npos;
         at = text.find("SIMULATED", at + 1)) {
      ++count;
    }
    EXPECT_EQ(count, 2U) << "in subject and issuer";
  }
}

}  // namespace
}  // namespace gbx::attest::sim
