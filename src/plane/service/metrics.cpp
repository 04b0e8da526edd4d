#include "plane/service/metrics.h"

#include <prometheus/gauge.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace gbx::plane {

struct Metrics::Families {
  std::mutex mutex;  // one rendering at a time, so that a scrape is of one moment
  prometheus::Registry registry;
  prometheus::Family<prometheus::Gauge>& gauge(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge().Name("glovebox_plane_" + name).Help(help).Register(registry);
  }
  prometheus::Family<prometheus::Gauge>& jobs = gauge("jobs", "Jobs by state.");
  prometheus::Family<prometheus::Gauge>& environments =
      gauge("environments", "Live environments by state.");
  prometheus::Gauge& nodes = gauge("nodes_alive", "Nodes within their lease.").Add({});
  prometheus::Gauge& effects = gauge("outbox_due", "Effects that are due, at most 1000.").Add({});
  prometheus::Gauge& watched =
      gauge("attempts_watched", "Live attempts, handed out or missing at their node.").Add({});
  prometheus::Gauge& broker =
      gauge("broker_connected", "1 while the channel to the broker stands.").Add({});
  prometheus::Gauge& open = gauge("http_connections_open", "Open HTTPS connections.").Add({});
  prometheus::Family<prometheus::Gauge>& http =
      gauge("http_events", "Totals of the HTTPS server since its start.");
};

Metrics::Metrics() : families_(std::make_unique<Families>()) {}
Metrics::~Metrics() = default;

Result<std::string> Metrics::render(Core& core, bool broker_connected) {
  GBX_ASSIGN(Core::Numbers n, core.numbers());
  Families& f = *families_;
  const std::lock_guard lock(f.mutex);
  for (const auto& [state, count] : n.jobs) {
    f.jobs.Add({{"state", state}}).Set(static_cast<double>(count));
  }
  for (const auto& [state, count] : n.environments) {
    f.environments.Add({{"state", state}}).Set(static_cast<double>(count));
  }
  f.nodes.Set(static_cast<double>(n.nodes_alive));
  f.effects.Set(static_cast<double>(n.effects_due));
  f.watched.Set(static_cast<double>(n.attempts_watched));
  f.broker.Set(broker_connected ? 1 : 0);
  if (stats_) {
    const http::ServerStats s = stats_();
    f.open.Set(static_cast<double>(s.connections_open));
    const std::pair<const char*, std::uint64_t> totals[] = {
        {"connections-refused", s.connections_refused},
        {"handshakes-failed", s.handshakes_failed},
        {"requests", s.requests},
        {"requests-shed", s.requests_shed},
        {"answers-4xx", s.answers_4xx},
        {"answers-5xx", s.answers_5xx}};
    for (const auto& [name, value] : totals) {
      f.http.Add({{"event", name}}).Set(static_cast<double>(value));
    }
  }
  return prometheus::TextSerializer().Serialize(f.registry.Collect());
}

}  // namespace gbx::plane
