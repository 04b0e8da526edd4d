// A strict JSON reader for hostile bytes that keeps numbers as text: base/json.h refuses fractions,
// and results are full of them. RFC 8259 and no more: no duplicate keys, no byte order mark, no
// lone surrogates, bounded depth and size.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "gate/records.h"

namespace gbx::gate {

enum class JsonKind { kNull, kTrue, kFalse, kNumber, kString, kArray, kObject };

struct JsonText {
  JsonKind kind = JsonKind::kNull;
  std::string text;                // kNumber: as written; kString: decoded
  std::vector<std::string> keys;   // kObject, beside children
  std::vector<JsonText> children;  // kArray, kObject
};

struct JsonTextLimits {
  std::size_t max_depth = 16;
  std::size_t max_values = 500'000;
};
struct JsonTextFile {
  GateReason failure = GateReason::kBadJson;  // kNone when the value was read
  JsonText value;
};
// Failures: kBadEncoding, kBadJson, kDuplicateKey, kNotANumber (NaN, Infinity).
JsonTextFile parse_json_text(ByteView bytes, JsonTextLimits limits = {});

}  // namespace gbx::gate
