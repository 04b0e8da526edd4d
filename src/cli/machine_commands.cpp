// node
#include "base/log.h"
#include "cli/commands.h"
#include "cli/session.h"

namespace gbx::cli {

namespace {

// The number by which a policy allows technology none on this node.
std::string key_hash(const std::string& key) {
  auto k = crypto::PublicKey::from_text(key);
  return k.ok() ? to_hex(k->fingerprint()) : std::string("-");
}

Status node_list(Session& s, const Invocation&) {
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_ASSIGN(std::vector<api::NodeView> nodes, plane->nodes());
  JsonArray rows;
  JsonArray shown;
  std::string allows;
  for (const auto& n : nodes) {
    Json j;
    j["name"] = n.name;
    j["key"] = n.key;
    j["keyHash"] = key_hash(n.key);
    // Only operators and auditors are told of these.
    j["alive"] = n.alive ? Json(*n.alive) : Json();
    j["running"] = n.running ? Json(*n.running) : Json();
    j["lastSeen"] =
        n.last_seen_ms.value_or(0) == 0 ? Json() : Json(format_time(*n.last_seen_ms / 1000));
    JsonArray technologies;
    if (n.info) {
      for (const auto t : n.info->technologies) technologies.push_back(Json(enum_name(t)));
      j["cpu"] = n.info->cpu;
      j["memoryBytes"] = n.info->memory_bytes;
      j["slots"] = n.info->slots;
      j["version"] = n.info->version;
    }
    j["technologies"] = Json(std::move(technologies));
    JsonArray platforms;
    for (const auto& p :
         n.info&& n.info->platforms ? *n.info->platforms : std::vector<records::NodePlatform>{}) {
      platforms.push_back(to_json(p));
      if (p.technology != records::Technology::kSim) continue;
      allows += "Policies allow the SIMULATED machines of " + printable(n.name, 63) +
                " with --allow-sim " + printable(p.root, 80) + " --release " +
                printable(p.release, 64) + "\n";
    }
    j["platforms"] = Json(std::move(platforms));
    rows.push_back(j);
    j["alive"] = n.alive.value_or(false) ? "yes" : "no";
    std::string tee;
    for (const auto t : n.info ? n.info->technologies : std::vector<records::Technology>{}) {
      const bool none = t == records::Technology::kNone;
      tee +=
          (tee.empty() ? "" : ",") + (none                             ? "NO TEE"
                                      : t == records::Technology::kSim ? "SIMULATED"
                                                                       : std::string(enum_name(t)));
    }
    j["tee"] = tee;
    j["memory"] = n.info ? human_bytes(static_cast<std::uint64_t>(
                               std::max<std::int64_t>(0, n.info->memory_bytes)))
                         : "-";
    shown.push_back(std::move(j));
  }
  Json j;
  j["items"] = Json(std::move(rows));
  const bool told = std::any_of(nodes.begin(), nodes.end(), [](const auto& n) { return n.alive; });
  std::vector<Column> columns{{"NAME", "name"}};
  if (told) columns.push_back({"ALIVE", "alive"});
  columns.insert(columns.end(), {{"TEE", "tee"}, {"CPU", "cpu"}, {"MEMORY", "memory"}});
  if (told) columns.push_back({"RUNNING", "running"});
  columns.push_back({"KEY HASH", "keyHash"});
  s.print(j, table(columns, shown, "no nodes") + allows);
  return ok_status();
}

Status node_enrol(Session& s, const Invocation& in) {
  const std::string name = in.text("name");
  auto key = crypto::PublicKey::from_text(in.text("key"));
  if (!key.ok()) {
    return fail(Reason::kUsage, "--key")
        .with("a public key, as `glovebox-node key` prints it", printable(in.text("key"), 80));
  }
  GBX_ASSIGN(Plane * plane, s.plane());
  GBX_TRY(plane->enrol_node({name, key->text()}));
  Json j;
  j["name"] = name;
  j["key"] = key->text();
  j["keyHash"] = to_hex(key->fingerprint());
  s.print(j, "enrolled " + printable(name) + "\n  key hash  " + to_hex(key->fingerprint()) +
                 "\nNext: start it with `glovebox-node serve` (docs/node.md)\n");
  return ok_status();
}

}  // namespace

void add_machines(CommandTree& t) {
  t.add({"node", "machines that run jobs", "", {}, {}, {}, {}, {}});
  t.add("node", {"list",
                 "nodes, what they offer, and the hashes of their keys",
                 "A policy allows technology none by the hash of a node's key.",
                 {},
                 {},
                 {},
                 node_list,
                 {}});
  t.add("node", {"enrol",
                 "let a machine lend itself (operators)",
                 "A node is known by its key, which `glovebox-node key` prints on that machine. "
                 "Owners' policies then name the hash of this key.",
                 {},
                 {required(option("name", "NAME", "how it is listed")),
                  required(option("key", "KEY", "its public key"))},
                 {{"glovebox node enrol --name lab-2 --key ed25519:5f0c…", "a second machine"}},
                 node_enrol,
                 {}});
}

}  // namespace gbx::cli
