// YAML in its JSON subset: mappings with string keys, sequences, plain and quoted scalars. Anchors,
// aliases, tags, duplicate keys, several documents, floats and depth beyond 32 are refused, so that
// a spec means the same in YAML and in JSON. Input is the user's own file, treated as untrusted.
#pragma once

#include <string_view>

#include "base/json.h"

namespace gbx::cli {

// Plain scalars: true, false, null, integers; everything else is a string, except what YAML 1.1
// readers would take for something else (yes, no, on, off, ~, 0x…, 1_000, dates stay strings;
// floats and octals are refused).
Result<Json> parse_yaml(std::string_view text);
// JSON when the first character is '{' or '[', else YAML.
Result<Json> parse_document(std::string_view text);
// Block style, strings quoted where needed.
std::string to_yaml(const Json& value);

}  // namespace gbx::cli
