// What commands print for people of records that others wrote, apart from the commands that fetch
// them. Whatever stands in a record: no line but ours begins, and no terminal is moved.
#pragma once

#include "cli/plane.h"
#include "policy/receipt_verify.h"

namespace gbx::cli {

// job plan; `every` lists the checks that passed, too.
std::string plan_text(const records::Explanation& explanation, bool every);
// job describe, but for the events
std::string detail_text(const api::JobDetail& detail);
std::string report_text(const policy::ReceiptReport& report);  // receipt verify
// policy explain and asset show: one item of a list each.
std::string policy_lines(const records::Policy& policy, records::AssetKind kind,
                         const std::string& mark);

}  // namespace gbx::cli
