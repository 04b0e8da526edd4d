// The one shape of every error that the HTTPS API returns:
// {"reason","what","expected","actual","next"}. Shared by the server that writes it and the client
// that reads it; what a client reads is untrusted.
#pragma once

#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace gbx::httpsig {

// All five members are always there; empty text where there is nothing to say.
Json error_to_json(const Error& error);
// Text is cut to bounds and control characters are escaped, so that it can be shown. An unknown
// reason code becomes kInternal and is named in `what`. Empty when this is no error body at all.
std::optional<Error> error_from_json_text(std::string_view text);

}  // namespace gbx::httpsig
