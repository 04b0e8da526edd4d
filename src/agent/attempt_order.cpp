#include "agent/attempt_order.h"

namespace gbx::agent {

namespace {

Stage after(Operation op, Stage before) {
  switch (op) {
    case Operation::kQuote:
      return before;
    case Operation::kUnpack:
      return Stage::kUnpacked;
    case Operation::kMount:
      return Stage::kMounted;
    case Operation::kRun:
      return Stage::kRan;
    case Operation::kGate:
      return Stage::kJudged;
    case Operation::kDestroy: {
      const bool in_order = before == Stage::kJudged || before == Stage::kDestroyed;
      return in_order ? Stage::kDestroyed : Stage::kFailed;
    }
  }
  return Stage::kFailed;
}

bool follows(Stage stage, Operation next) {
  switch (next) {
    case Operation::kQuote:  // each new connection to the broker needs one
      return stage != Stage::kFailed;
    case Operation::kUnpack:
      return stage == Stage::kNothing;
    case Operation::kMount:
      return stage == Stage::kUnpacked || stage == Stage::kMounted;
    case Operation::kRun:
      return stage == Stage::kMounted;
    case Operation::kGate:
      return stage == Stage::kRan;
    case Operation::kDestroy:  // of what there is, also when that is nothing any more
      return true;
  }
  return false;
}

}  // namespace

Status AttemptOrder::admit(Operation next) const {
  if (!follows(stage_, next)) {
    return fail(Reason::kWrongState, "operation of the attempt")
        .with("what may follow " + std::string(enum_name(stage_)), std::string(enum_name(next)))
        .hint("report it: an agent's worker keeps the order unless it was taken over");
  }
  if (next == Operation::kMount && inputs_ == kMostInputs) {
    return fail(Reason::kTooLarge, "inputs of the attempt")
        .with("at most " + std::to_string(kMostInputs), "one more");
  }
  return ok_status();
}

void AttemptOrder::done(Operation op) {
  stage_ = after(op, stage_);
  if (op == Operation::kMount) ++inputs_;
}

}  // namespace gbx::agent
