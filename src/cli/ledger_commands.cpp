// ledger: what jobs have cost an asset, and what may still leave.
#include <algorithm>
#include <functional>
#include <map>

#include "base/figures.h"
#include "base/log.h"
#include "base/os.h"
#include "cli/catalogue.h"
#include "cli/commands.h"
#include "cli/ledger.h"
#include "cli/output.h"
#include "cli/wording.h"
#include "policy/rows.h"

namespace gbx::cli {

namespace {

constexpr std::size_t kMostOthers = 200;  // assets of others that are asked about without a name

// What could be read, and what could not and why.
template <class T>
struct Found {
  struct One {
    std::string name;
    T value;
  };
  struct Bad {
    std::string name;
    Error why;
  };
  std::vector<One> good;
  std::vector<Bad> bad;
  std::size_t not_asked = 0;

  void take(const std::string& name, Result<std::optional<T>> r) {
    if (!r.ok()) {
      bad.push_back({name, r.error()});
    } else if (*r) {
      good.push_back({name, std::move(**r)});
    }
  }
  // For programs and people alike: nothing is left out silently.
  void tell(Json& j, std::string& text) const {
    JsonArray refused;
    for (const Bad& b : bad) {
      Json one;
      one["name"] = b.name;
      one["reason"] = reason_code(b.why.reason);
      one["what"] = printable(b.why.what, 500);
      refused.push_back(std::move(one));
      text += "\nNOT SHOWN: " + printable(b.name) + ": " + printable(b.why.line(), 2000) + "\n";
    }
    j["refused"] = Json(std::move(refused));
    j["notAsked"] = static_cast<std::int64_t>(not_asked);
    if (not_asked == 0) return;
    text += "\nnot asked about: " + grouped(static_cast<std::int64_t>(not_asked)) +
            " assets of others; name one: glovebox ledger show NAME\n";
  }
  Status end() const {
    if (bad.empty()) return ok_status();
    const std::string which =
        bad.size() == 1 ? "one asset" : grouped(static_cast<std::int64_t>(bad.size())) + " assets";
    Error e = bad[0].why;
    return e.at("the ledger of " + printable(bad[0].name) + " (" + which + " not shown)");
  }
};

template <class T>
using Read = std::function<Result<T>(const records::SetChain::Keys&, const LedgerQuestion&, Random&,
                                     const AskLedger&)>;

LedgerQuestion question_of(const api::AssetView& v, const Hash32& self) {
  LedgerQuestion q{v.record.body.asset_id, v.record.body.owner_id, std::nullopt};
  if (q.owner_id != self) q.consumer = self;
  return q;
}

// Of another's asset nothing where no job of the user's has cost it anything.
template <class T>
Result<std::optional<T>> read_one(Session& s, const api::AssetView& v, bool named,
                                  const Read<T>& read) {
  GBX_ASSIGN(Keys * keys, s.keys());
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  const LedgerQuestion q = question_of(v, keys->id);
  const AskLedger ask = [plane](const auto& r) { return plane->ledger(r); };
  if (q.consumer && !named) {
    GBX_ASSIGN(const records::LedgerStatement head, fetch_head(set, q, s.random(), ask));
    if (head.count == 0) return std::optional<T>();
  }
  GBX_ASSIGN(T value, read(set, q, s.random(), ask));
  return std::optional<T>(std::move(value));
}

// One version of each asset, the newest that holds; `bad`: assets of which none does.
std::vector<api::AssetView> newest_of(const records::SetChain::Keys& set,
                                      const std::vector<api::AssetView>& all,
                                      std::map<Id16, std::pair<std::string, Error>>& bad) {
  std::map<Id16, const api::AssetView*> newest;
  for (const auto& v : all) {
    const Id16& id = v.record.body.asset_id;
    const Status holds = verify_asset_view(set, v);
    if (!holds.ok()) {
      bad.emplace(id, std::pair(v.record.body.name, holds.error()));
      continue;
    }
    const api::AssetView*& known = newest[id];
    if (known == nullptr || known->record.body.version < v.record.body.version) known = &v;
  }
  std::vector<api::AssetView> out;
  for (const auto& [id, v] : newest) out.push_back(*v);
  return out;
}

// The user's own assets, all of them, and those of others that the user's jobs have cost something.
template <class T>
Result<Found<T>> read_all(Session& s, const Read<T>& read) {
  GBX_ASSIGN(Keys * keys, s.keys());
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(records::SetChain::Keys set, s.set());
  Plane::AssetFilter filter;
  filter.delisted = true;
  filter.owner = to_hex(keys->id);
  GBX_ASSIGN(const std::vector<api::AssetView> own, plane->assets(filter));
  filter.owner.clear();
  GBX_ASSIGN(std::vector<api::AssetView> others, plane->assets(filter));
  std::erase_if(others, [&](const auto& v) { return v.record.body.owner_id == keys->id; });
  std::map<Id16, std::pair<std::string, Error>> bad;
  Found<T> out;
  for (const auto& v : newest_of(set, own, bad)) {
    out.take(v.record.body.name, read_one<T>(s, v, false, read));
  }
  std::size_t asked = 0;
  for (const auto& v : newest_of(set, others, bad)) {
    if (asked++ < kMostOthers) {
      out.take(v.record.body.name, read_one<T>(s, v, false, read));
    } else {
      ++out.not_asked;
    }
  }
  for (auto& [id, why] : bad) out.bad.push_back({why.first, std::move(why.second)});
  return out;
}

template <class T>
Result<Found<T>> asked_for(Session& s, const Invocation& in, const Read<T>& read) {
  if (!in.has("asset")) return read_all<T>(s, read);
  GBX_ASSIGN(const api::AssetView v, resolve_asset(s, in.text("asset"), Listed::kAll));
  GBX_ASSIGN(std::optional<T> value, read_one<T>(s, v, true, read));
  Found<T> out;
  out.take(v.record.body.name, std::move(value));
  return out;
}

Status ledger_show(Session& s, const Invocation& in) {
  if (in.has("svg") && !in.has("asset")) {
    return fail(Reason::kUsage, "--svg")
        .with("one asset: glovebox ledger show NAME --svg FILE", "all of them");
  }
  if (in.has("force") && !in.has("svg")) {
    return fail(Reason::kUsage, "--force").with("--svg FILE, which it lets replace", "no --svg");
  }
  if (in.has("svg")) GBX_TRY(may_write(in, "svg"));
  const Read<Ledger> whole = [](const auto& set, const auto& q, auto& random, const auto& ask) {
    return fetch_ledger(set, q, random, ask);
  };
  GBX_ASSIGN(const Found<Ledger> all, asked_for<Ledger>(s, in, whole));
  JsonArray items;
  std::string text;
  for (const auto& n : all.good) {
    Json j = ledger_json(n.value);
    j["name"] = n.name;
    items.push_back(std::move(j));
    text += (text.empty() ? "" : "\n") + ledger_text(n.value, n.name);
  }
  if (in.has("svg")) {
    const auto& one = all.good.at(0);
    const std::string title = "free bits of " + printable(one.name) + ", added up";
    const std::string picture = svg(series_of(one.value, 200), title);
    GBX_TRY(write_file_atomic(in.text("svg"), as_bytes(picture), 0644));
    text += "\nwrote " + in.text("svg") + "\n";
  }
  Json j;
  j["items"] = Json(std::move(items));
  if (text.empty() && all.bad.empty()) {
    text = "no assets of yours, and none that your jobs have used\n";
  }
  all.tell(j, text);
  s.print(j, text);
  return all.end();
}

Status ledger_limits(Session& s, const Invocation& in) {
  GBX_ASSIGN(const Found<records::LedgerStatement> all,
             asked_for<records::LedgerStatement>(s, in, fetch_head));
  JsonArray items;
  JsonArray rows;
  for (const auto& n : all.good) {
    const records::LedgerStatement& h = n.value;
    Json j = limits_json(h);
    j["name"] = n.name;
    Json row;
    row["name"] = printable(n.name);
    row["whose"] = h.consumer ? "your own part" : "yours";
    row["clear"] = grouped(h.limits.auto_clear_free_bits);
    row["period"] =
        grouped(h.limits.period_free_bits) + " in " + counted(h.limits.period_days, "day");
    row["total"] = grouped(h.limits.total_free_bits);
    row["spent"] = grouped(h.total_free_bits);
    row["left"] = grouped(*j.find("left")->integer());
    const std::string rows_left = policy::equivalent_rows(*j.find("left")->integer(), h.row_bits);
    row["rows"] = rows_left.empty() ? "-" : rows_left;
    items.push_back(std::move(j));
    rows.push_back(std::move(row));
  }
  Json j;
  j["items"] = Json(std::move(items));
  std::string text;
  if (!rows.empty() || all.bad.empty()) {
    text = table({{"ASSET", "name"},
                  {"WHOSE", "whose"},
                  {"CLEARED ALONE", "clear"},
                  {"EACH CONSUMER", "period"},
                  {"ALL", "total"},
                  {"SPENT", "spent"},
                  {"LEFT", "left"},
                  {"AS ROWS", "rows"}},
                 rows, "no assets of yours, and none that your jobs have used");
  }
  all.tell(j, text);
  s.print(j, text);
  return all.end();
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
