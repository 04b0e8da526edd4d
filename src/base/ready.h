// What a service writes to its ready descriptor when it cannot serve, so that whoever started it
// can say why: one line of JSON, {"error": {"reason", "what", "expected", "actual", "next"}}. The
// reader takes it for a child's word.
#pragma once

#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace gbx {

// Nothing is said where `fd` is negative, nor where the other side has gone.
void tell_failure(int fd, const Error& error);
// Empty when the text says something else.
std::optional<Error> told_failure(std::string_view text);

}  // namespace gbx
