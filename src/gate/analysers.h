// The analysers: each looks at everything that the gate read and answers with closed codes and
// positions, never with plaintext. An analyser that cannot do its work says error, which holds the
// output.
#pragma once

#include <span>
#include <vector>

#include "gate/canonical.h"
#include "gate/cells.h"
#include "gate/folder.h"

namespace gbx::gate {

struct OutputView {
  LoadedFile file;
  Canonical canonical;
  bool bounded = false;  // the declaration bounds what it can carry
  Schema schema;         // empty where it is none
  // Where a recipe explains the table: what the gate computed, and whether the container's table is
  // that one. Only then does its content leave, for it is charged as verified.
  std::optional<Explained> explained;
  RecomputedTable table;
  bool verified = false;
};
struct GateView {
  const GateRequest& request;
  Status scan = Status(fail(Reason::kUninitialised));  // reading the output folder
  std::vector<StructureFinding> findings;
  std::vector<OutputView> outputs;  // one per declaration; empty when the run was not ok
  Bytes log;                        // what would reach the consumer
  int near_copy_percent = 0;        // set by the copies analyser, for the score
};
// Reads outputs and logs and canonicalises them.
GateView load_view(const GateRequest& request);

using Analyser = std::vector<AnalyserResult> (*)(GateView& view);
std::vector<AnalyserResult> analyse_structure(GateView& view);
std::vector<AnalyserResult> analyse_format(GateView& view);
// Computes the tables; the three after it judge what it found.
std::vector<AnalyserResult> analyse_recipe(GateView& view);
std::vector<AnalyserResult> analyse_cells(GateView& view);
std::vector<AnalyserResult> analyse_groups(GateView& view);
std::vector<AnalyserResult> analyse_differences(GateView& view);
std::vector<AnalyserResult> analyse_copies(GateView& view);
std::vector<AnalyserResult> analyse_opaque(GateView& view);
std::vector<AnalyserResult> analyse_capacity(GateView& view);
std::vector<AnalyserResult> analyse_logs(GateView& view);

struct NamedAnalyser {
  RuleId rule;
  Analyser run;
};
std::span<const NamedAnalyser> all_analysers();

}  // namespace gbx::gate
