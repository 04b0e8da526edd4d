// The gate's judgement, in one process: reads the output folder, runs every analyser, reckons the
// charge and builds the release channel. `glovebox-gate` calls this behind its confinement; spawn.h
// is how an agent asks for it.
#pragma once

#include <optional>
#include <span>

#include "gate/analysers.h"
#include "gate/release.h"

namespace gbx::gate {

struct Evaluation {
  GateResult result;
  std::optional<ReleaseChannel> channel;  // absent when rejected
};

class Gate {
 public:
  // Never throws: whatever goes wrong inside holds.
  static Evaluation evaluate(const GateRequest& request, const Confinement& confinement,
                             std::span<const NamedAnalyser> analysers = all_analysers());

 private:
  static void judge(GateView& view, std::span<const NamedAnalyser> analysers, GateResult& result);
  static Status build(const GateView& view, Evaluation& out);
};

// The decision that facts allow. Shared with the agent's check of the gate's answer.
Recommendation recommend(const GateRequest& request, const std::vector<AnalyserResult>& analysers,
                         std::int64_t score);
RuleStatus worst_status(const std::vector<AnalyserResult>& analysers);
// A failure of this rule rejects; of the others it holds.
bool hard_rule(RuleId rule);
// The answer for a gate that gave none: hold, no content.
GateResult held_result(const GateRequest& request, GateReason why);

// What travels on the gate's output: magic, then two length-prefixed parts (docs/gate.md).
Bytes encode_answer(const Evaluation& evaluation);
struct Answer {
  GateResult result;
  Bytes bundle;
};
Result<Answer> decode_answer(ByteView bytes);
inline constexpr std::size_t kMaxResultJson = 16U << 20;

}  // namespace gbx::gate
