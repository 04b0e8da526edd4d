// Text from outside, made such that what is seen is what there is.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace gbx {

// Characters that move a terminal, end a line, turn the direction of reading, or are not seen at
// all: controls, what Unicode 15 has as Default_Ignorable_Code_Point (DerivedCoreProperties.txt),
// line and paragraph separators, annotation marks, and the two noncharacters of the first plane.
// All of them but line feeds become what `escape` makes of them. `utf8` is valid.
std::string escape_unprintable(std::string_view utf8,
                               const std::function<std::string(char32_t)>& escape);

// For a terminal or a one-line message: the bytes of such characters become \x…, valid UTF-8
// whatever came in, at most `limit` bytes and the rest of one escape.
std::string printable(std::string_view text, std::size_t limit = 200);
// The same with nothing cut off: for what somebody decides by.
std::string printable_whole(std::string_view text);

// JSON of the same value whose strings hold such characters as \u…. alone. Line feeds, which stand
// between values only, stay. `json` is valid.
std::string printable_json(std::string_view json);

}  // namespace gbx
