// Reads the JSON documents of a list. An input is a name of the list, a line feed and a document.
#pragma once

#include <map>
#include <string_view>

#include "base/fields.h"
#include "fuzz/fuzz.h"
#include "records/signed.h"

namespace gbx::fuzz {

// What is accepted is written again byte for byte, and what checks itself does so without harm.
template <class Record>
void read_document(const Json& json) {
  const auto record = from_json<Record>(json);
  if (!record.ok()) return;
  document_accepted = true;
  require(canonical(to_json(*record)) == canonical(json));
  if constexpr (requires { record->validate(); }) (void)record->validate();
}

class DocumentReaders {
 public:
  template <class Record>
  void add(std::string_view name) {
    readers_[name] = [](const Json& json) {
      read_document<Record>(json);
      if constexpr (requires { Record::kType; }) read_document<records::Signed<Record>>(json);
    };
  }
  // The document as such is checked under any name.
  void read(std::string_view input) const {
    const std::size_t end = std::min(input.find('\n'), input.size());
    const std::string_view text = input.substr(std::min(end + 1, input.size()));
    const auto json = parse_json(text);
    if (!json.ok()) return;
    // JSON has no place for a NUL: what follows one would be hidden
    require(text.find('\0') == std::string_view::npos);
    require_json_round_trip(*json);
    const auto pretty_again = parse_json(pretty(*json));
    require(pretty_again.ok() && *pretty_again == *json);
    const auto reader = readers_.find(input.substr(0, end));
    if (reader != readers_.end()) reader->second(*json);
  }

 private:
  std::map<std::string_view, void (*)(const Json&)> readers_;
};

}  // namespace gbx::fuzz
