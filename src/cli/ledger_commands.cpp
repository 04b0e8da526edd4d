// ledger: what jobs have cost an asset, and what may still leave.
#include "base/log.h"
#include "base/os.h"
#include "cli/catalogue.h"
#include "cli/commands.h"
#include "cli/ledger.h"
#include "cli/output.h"
#include "policy/rows.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMostAssets = 200;  // asked for without a name

struct Named {
  std::string name;
  Ledger ledger;
};

Result<Named> fetch(Session& s, const api::AssetView& v) {
  GBX_ASSIGN(Keys * keys, s.keys());
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  LedgerQuestion q{v.record.body.asset_id, v.record.body.owner_id, std::nullopt};
  if (q.owner_id != keys->id) q.consumer = keys->id;
  GBX_ASSIGN(Ledger l,
             fetch_ledger(set, q, s.random(), [plane](const auto& r) { return plane->ledger(r); }));
  return Named{v.record.body.name, std::move(l)};
}

// One version of each asset: the user's own, and those that the user's jobs have cost something.
Result<std::vector<Named>> fetch_all(Session& s) {
  GBX_ASSIGN(Keys * keys, s.keys());
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  Plane::AssetFilter filter;
  filter.delisted = true;
  GBX_ASSIGN(std::vector<api::AssetView> all, plane->assets(filter));
  std::map<Id16, const api::AssetView*> newest;
  for (const auto& v : all) {
    if (!verify_asset_view(set, v).ok()) continue;
    const api::AssetView*& known = newest[v.record.body.asset_id];
    if (known == nullptr || known->record.body.version < v.record.body.version) known = &v;
  }
  if (newest.size() > kMostAssets) {
    return fail(Reason::kTooLarge, "assets here")
        .with("at most " + std::to_string(kMostAssets), std::to_string(newest.size()))
        .hint("name one: glovebox ledger show NAME");
  }
  std::vector<Named> out;
  for (const auto& [id, v] : newest) {
    GBX_ASSIGN(Named n, fetch(s, *v));
    if (v->record.body.owner_id == keys->id || n.ledger.head.count > 0) out.push_back(std::move(n));
  }
  return out;
}

Result<std::vector<Named>> asked_for(Session& s, const Invocation& in) {
  if (!in.has("asset")) return fetch_all(s);
  GBX_ASSIGN(const api::AssetView v, resolve_asset(s, in.text("asset"), Listed::kAll));
  GBX_ASSIGN(Named n, fetch(s, v));
  std::vector<Named> out;
  out.push_back(std::move(n));
  return out;
}

Status ledger_show(Session& s, const Invocation& in) {
  if (in.has("svg") && !in.has("asset")) {
    return fail(Reason::kUsage, "--svg")
        .with("one asset: glovebox ledger show NAME --svg FILE", "all of them");
  }
  if (in.has("svg")) GBX_TRY(may_write(in, "svg"));
  GBX_ASSIGN(const std::vector<Named> all, asked_for(s, in));
  JsonArray items;
  std::string text;
  for (const auto& n : all) {
    Json j = ledger_json(n.ledger);
    j["name"] = n.name;
    items.push_back(std::move(j));
    text += (text.empty() ? "" : "\n") + ledger_text(n.ledger, n.name);
  }
  if (in.has("svg")) {
    const std::string title = "free bits of " + printable(all[0].name) + ", added up";
    const std::string picture = svg(series_of(all[0].ledger, 200), title);
    GBX_TRY(write_file_atomic(in.text("svg"), as_bytes(picture), 0644));
    text += "\nwrote " + in.text("svg") + "\n";
  }
  Json j;
  j["items"] = Json(std::move(items));
  s.print(j, text.empty() ? "no assets of yours, and none that your jobs have used\n" : text);
  return ok_status();
}

Status ledger_limits(Session& s, const Invocation& in) {
  GBX_ASSIGN(const std::vector<Named> all, asked_for(s, in));
  JsonArray items;
  JsonArray rows;
  for (const auto& n : all) {
    Json j = limits_json(n.ledger);
    j["name"] = n.name;
    const records::LedgerStatement& h = n.ledger.head;
    Json row;
    row["name"] = printable(n.name);
    row["whose"] = h.consumer ? "your own part" : "yours";
    row["clear"] = std::to_string(h.limits.auto_clear_free_bits);
    row["period"] = std::to_string(h.limits.period_free_bits) + " in " +
                    std::to_string(h.limits.period_days) + " days";
    row["total"] = std::to_string(h.limits.total_free_bits);
    row["spent"] = std::to_string(h.total_free_bits);
    row["left"] = std::to_string(*j.find("left")->integer());
    const std::string rows_left = policy::equivalent_rows(*j.find("left")->integer(), h.row_bits);
    row["rows"] = rows_left.empty() ? "-" : rows_left;
    items.push_back(std::move(j));
    rows.push_back(std::move(row));
  }
  Json j;
  j["items"] = Json(std::move(items));
  s.print(j, table({{"ASSET", "name"},
                    {"WHOSE", "whose"},
                    {"CLEARED ALONE", "clear"},
                    {"EACH CONSUMER", "period"},
                    {"ALL", "total"},
                    {"SPENT", "spent"},
                    {"LEFT", "left"},
                    {"AS ROWS", "rows"}},
                   rows, "no assets of yours, and none that your jobs have used"));
  return ok_status();
}

}  // namespace

void add_ledger(CommandTree& t) {
  Argument asset = positional("asset", "NAME, NAME@VERSION, OWNER/NAME or the version id");
  asset.required = false;
  t.add({"ledger", "what jobs have told about an asset, in bits", "", {}, {}, {}, {}, {}});
  t.add("ledger",
        {"show",
         "bits by consumer and over time",
         "The broker's signed statement, whose entries must add up. An owner sees all jobs on an "
         "asset (all its versions together), a consumer the own ones. Reserved is what a job may "
         "tell at most; the other states are final. Free bits are those that the code could "
         "choose, among them exit class, duration, decision and attempts; verified bits were "
         "computed by the gate.",
         {asset},
         {option("svg", "FILE", "write the plot there, too", ArgKind::kFile),
          flag("force", "replace the file")},
         {{"glovebox ledger show wdbc", "who has had how much of it"}},
         ledger_show,
         {}});
  t.add("ledger",
        {"limits",
         "what the policies allow, and what is left",
         "By the newest policy of each asset's newest version. What is left is for all consumers "
         "together where the asset is yours, and else yours in the running period.",
         {asset},
         {},
         {},
         ledger_limits,
         {}});
}

}  // namespace gbx::cli
