// Looks for inputs inside outputs. The output, the small side, is indexed; the inputs are streamed
// once in memory that does not depend on their size. It finds honest mistakes and lazy attackers,
// never a keyed cipher: the security boundary is the capacity of the declared schema
// (docs/gate.md). Not thread-safe.
//
// Three views:
//   bytes    windows of 24 letters and digits, case and delimiters ignored, raw, reversed, base64
//   or hex (nested thrice);
//            any shared run of `guaranteed_run()` such characters is found unless it is common or
//            unsurprising
//   rows     numbers of one output row that stand together in one input row
//   columns  numbers of one output column that occur in the inputs far more often than their
//   neighbours do
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "gate/canonical.h"

namespace gbx::gate {

struct CopyFinding {
  std::size_t output = 0;
  GateReason reason = GateReason::kCopiedBytes;
  std::int64_t row = -1;
  std::int64_t column = -1;
};

class CopyDetector {
 public:
  CopyDetector();
  ~CopyDetector();
  CopyDetector(const CopyDetector&) = delete;
  CopyDetector& operator=(const CopyDetector&) = delete;

  // The output side, first. `digits_only` drops letters: a typed file's letters are words that its
  // schema names.
  void add_bytes(std::size_t output, ByteView bytes, bool digits_only);
  // Numbers of a file without a schema: lines and the place in the line stand for rows and columns.
  void add_lines(std::size_t output, ByteView bytes);
  void add_cells(std::size_t output, const std::vector<Cell>& cells);
  void prepare();  // once, between the two sides
  std::size_t guaranteed_run() const;

  // The input side.
  void begin_file();
  void feed(ByteView bytes);
  void end_file();

  // At most 16 findings. Error: kTooLarge when the outputs decode to more than the detector looks
  // at.
  Result<std::vector<CopyFinding>> finish();
  // After finish: how near the nearest miss came, in percent of the threshold (100 and more: a
  // finding).
  int nearest_percent() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Standard and URL base64 and hex, as runs inside `text`: every decoding that is at least 24 bytes
// long.
std::vector<Bytes> decoded_runs(ByteView text);

}  // namespace gbx::gate
