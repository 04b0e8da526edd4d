// Signs of life for policies with freshForSeconds: sending them, and saying how old the last one
// is.
#pragma once

#include <string>

#include "cli/catalogue.h"
#include "cli/tree.h"

namespace gbx::cli {

// How fresh a verified view's policy is, for people and as JSON; an empty text where its policy
// never asks.
struct Freshness {
  std::string text;  // one line, without a line's end
  Json json;         // null where the policy never asks
};
Freshness freshness(const api::AssetView& view, std::int64_t now);

// `policy beacon ASSET...`
Status policy_beacon(Session& session, const Invocation& in);

}  // namespace gbx::cli
