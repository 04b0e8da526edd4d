// What bench-publish leaves for bench-mount: the record and the dataset key, in clear. For
// benchmarks of made-up data only.
#pragma once

#include <string>

#include "records/asset.h"

namespace gbx::bench {

struct PublishedAsset {
  records::VersionRecord record;
  Bytes key;
  template <class F>
  void fields(F& f) {
    f("record", record);
    f("key", key, Bound{32, 32});
  }
};

}  // namespace gbx::bench
