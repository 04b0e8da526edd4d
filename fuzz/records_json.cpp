// JSON text to records as they arrive from strangers.
#include "fuzz/document_readers.h"
#include "fuzz/record_documents.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const gbx::fuzz::DocumentReaders readers = [] {
    gbx::fuzz::DocumentReaders all;
    gbx::fuzz::every_record(all);
    gbx::fuzz::every_log_entry(all);
    return all;
  }();
  readers.read(gbx::as_text(gbx::ByteView(data, size)));
  return 0;
}
