// Names of files that a job writes, as every program that meets one must have them. One rule, so
// that what a spec may say is what the gate takes. Input is untrusted.
#pragma once

#include <string_view>

namespace gbx {

// [A-Za-z0-9_-][A-Za-z0-9._-]*, at most 64 bytes.
bool plain_name(std::string_view name);
// One to 8 plain names with '/' between them.
bool plain_path(std::string_view path);

}  // namespace gbx
