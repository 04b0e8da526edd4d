// bench-broker-start DIR JOBS: a broker's log in DIR with so many ended jobs, and what a start with
// it costs: milliseconds until it is read, hashed and folded, and the memory that it then has.
// Prints JSON. The jobs are copies of the entries of one, each under an id of its own, and in
// thousands they run at one time: the first entries of all, the second entries of all.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "broker/testing.h"
#include "translog/translog.h"

namespace {

using namespace gbx;
using testing::must;

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) {
    text.replace(at, what.size(), by);
  }
  return text;
}

std::int64_t resident_bytes() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * 4096;
}

class Filler {
 public:
  explicit Filler(broker::LogStore& store) : store_(store) {}
  // One job from submission to release, which the others are copies of.
  void first() {
    testing::BrokerWorld b(1, &store_);
    for (testing::Asset* a : {&b.data, &b.image}) {
      a->policy.clauses.gate.period_free_bits = std::int64_t{1} << 39;
      a->policy.clauses.gate.total_free_bits = std::int64_t{1} << 39;
    }
    b.start_and_publish();
    const std::uint64_t before = must(store_.size());
    const auto run = b.run_until_sealed(b.submission());
    must(b.judge(run.job_id()));
    id_ = to_hex(run.job_id());
    for (std::uint64_t i = before; i < must(store_.size()); ++i) {
      entries_.push_back(must(store_.entry(i)).entry);
    }
    frontier_ = must(translog::Frontier::load(store_, must(store_.size())));
  }
  void copy(std::int64_t jobs) {
    SeededRandom random(2);
    for (std::int64_t made = 1; made < jobs;) {
      std::vector<broker::StoredEntry> entries;
      std::vector<translog::Node> nodes;
      std::vector<std::string> ids;
      for (; made < jobs && ids.size() < 2'000; ++made) ids.push_back(to_hex(random.fixed<32>()));
      for (const std::string& text : entries_) {
        for (const std::string& id : ids) {
          entries.push_back({random.fixed<32>(), replaced(text, id_, id)});
          const auto& e = entries.back();
          const auto more = must(frontier_.append(translog::leaf_hash(e.salt, as_bytes(e.entry))));
          nodes.insert(nodes.end(), more.begin(), more.end());
        }
      }
      must(store_.append(must(store_.size()), entries, nodes));
    }
  }

 private:
  broker::LogStore& store_;
  std::string id_;
  std::vector<std::string> entries_;
  translog::Frontier frontier_;
};

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t jobs = argc == 3 ? std::atoll(argv[2]) : 0;
  if (jobs < 1) {
    std::fprintf(stderr, "usage: %s DIR JOBS\n", argv[0]);
    return 2;
  }
  const std::string path = std::string(argv[1]) + "/log.db";
  const auto store = must(broker::open_sqlite_store(path));
  {
    Filler filler(*store);
    filler.first();
    filler.copy(jobs);
  }
  const std::int64_t before = resident_bytes();
  const auto began = std::chrono::steady_clock::now();
  SeededRandom random(3);
  const auto log = must(broker::Log::open(*store, random));
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - began);
  const std::int64_t resident = resident_bytes() - before;
  Json out;
  out["jobs"] = jobs;
  out["entries"] = static_cast<std::int64_t>(log->size());
  out["fileBytes"] = static_cast<std::int64_t>(std::filesystem::file_size(path));
  out["startMs"] = static_cast<std::int64_t>(took.count());
  out["residentBytes"] = resident;
  std::printf("%s\n", canonical(out).c_str());
  return 0;
}
