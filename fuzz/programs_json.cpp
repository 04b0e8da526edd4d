// JSON text of the API, and of programs that have read hostile bytes.
#include "fuzz/document_readers.h"
#include "fuzz/program_documents.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const gbx::fuzz::DocumentReaders readers = [] {
    gbx::fuzz::DocumentReaders all;
    gbx::fuzz::every_api_document(all);
    gbx::fuzz::every_program_document(all);
    return all;
  }();
  readers.read(gbx::as_text(gbx::ByteView(data, size)));
  return 0;
}
