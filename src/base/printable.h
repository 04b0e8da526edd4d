// Text from outside, made such that what is seen is what there is.
#pragma once

#include <string>
#include <string_view>

namespace gbx {

struct CodePoint {
  char32_t value = 0;
  std::size_t size = 1;  // bytes
};
// The character that begins at `i` of valid UTF-8.
CodePoint code_point_at(std::string_view utf8, std::size_t i);

// Characters that move a terminal, end a line, turn the direction of reading, or are not seen at
// all: controls, what Unicode 15 has as Default_Ignorable_Code_Point (DerivedCoreProperties.txt),
// line and paragraph separators, annotation marks, and the two noncharacters of the first plane.
bool unprintable(char32_t point);

// For a terminal or a one-line message: the bytes of such characters become \x…, valid UTF-8
// whatever came in, at most `limit` bytes and the rest of one escape.
std::string printable(std::string_view text, std::size_t limit = 200);
// The same with nothing cut off: for what somebody decides by.
std::string printable_whole(std::string_view text);

// JSON of the same value whose strings hold such characters as \u…. alone. Line feeds, which stand
// between values only, stay. `json` is valid.
std::string printable_json(std::string_view json);

}  // namespace gbx
