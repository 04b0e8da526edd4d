// The one way an attempt goes, as the privileged half sees it: unpack, mount each input, run once,
// judge once, destroy. The worker that asks may have been taken over, so the order is kept here and
// not believed. A quote says what this machine is and gives nothing away, so it is had at any time
// but after a failure: a worker whose link to the broker breaks attests again, also when the output
// is sealed and everything else is gone. Pure; one thread.
#pragma once

#include <span>

#include "agent/operations.h"

namespace gbx::agent {

enum class Operation { kQuote, kUnpack, kMount, kRun, kGate, kDestroy };
inline std::span<const EnumName<Operation>> enum_names(Operation) {
  static constexpr EnumName<Operation> k[] = {{Operation::kQuote, operation::kQuote.data()},
                                              {Operation::kUnpack, operation::kUnpack.data()},
                                              {Operation::kMount, operation::kMount.data()},
                                              {Operation::kRun, operation::kRun.data()},
                                              {Operation::kGate, operation::kGate.data()},
                                              {Operation::kDestroy, operation::kDestroy.data()}};
  return k;
}

// What was done last. kDestroyed is the end of an attempt whose output was judged; kFailed is any
// other end.
enum class Stage { kNothing, kUnpacked, kMounted, kRan, kJudged, kDestroyed, kFailed };
inline std::span<const EnumName<Stage>> enum_names(Stage) {
  static constexpr EnumName<Stage> k[] = {
      {Stage::kNothing, "nothing"}, {Stage::kUnpacked, "unpack"}, {Stage::kMounted, "mount"},
      {Stage::kRan, "run"},         {Stage::kJudged, "gate"},     {Stage::kDestroyed, "destroy"},
      {Stage::kFailed, "a failure"}};
  return k;
}

// What one job may have beside its image.
inline constexpr std::int64_t kMostInputs = records::kMaxAssets - 1;

class AttemptOrder {
 public:
  // kWrongState where `next` may not follow what was done; kTooLarge for one input too many.
  Status admit(Operation next) const;
  void done(Operation op);
  // Whatever went wrong: only kDestroy is admitted from here.
  void end() { stage_ = Stage::kFailed; }
  bool ended() const { return stage_ == Stage::kDestroyed || stage_ == Stage::kFailed; }

 private:
  Stage stage_ = Stage::kNothing;
  std::int64_t inputs_ = 0;
};

}  // namespace gbx::agent
