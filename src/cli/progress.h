// Progress of long transfers: a bar on a terminal, else a line at the start and at each tenth.
// Silent in JSON and YAML.
#pragma once

#include <string>

#include "cli/session.h"

namespace gbx::cli {

class Progress {
 public:
  Progress(Session& session, std::string title) : session_(session), title_(std::move(title)) {}
  ~Progress() { end(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void show(std::uint64_t done, std::uint64_t total);
  void end();

 private:
  Session& session_;
  const std::string title_;
  std::uint64_t tenth_ = 11;  // last tenth that was printed; 11: none
  std::int64_t last_ms_ = -1000;
  bool drawn_ = false;
};

}  // namespace gbx::cli
