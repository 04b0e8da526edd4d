// The bytes of the asset format as a hostile store or publisher may write them: what a parser
// accepts, its encoder writes.
#include "asset/format.h"
#include "fuzz/fuzz.h"

namespace {

using namespace gbx;
using namespace gbx::fuzz;
using namespace gbx::asset;

template <class Parsed, class Encode>
void same(const Result<Parsed>& parsed, ByteView bytes, Encode encode) {
  if (!parsed.ok()) return;
  require(equal(encode(*parsed), bytes));
}

void list_head(ByteView bytes) {
  // The asset's id is what the reader expects: take it from where the header keeps it.
  const auto header =
      bytes.size() >= kHeaderSize ? parse_header(bytes.first(kHeaderSize)) : Result<ObjectHeader>();
  if (!header.ok()) return;
  const auto head = parse_list_head(bytes, header->suite, header->asset_id);
  same(head, bytes, [&](const ListHead& h) {
    return encode_list_head(header->suite, header->asset_id, h.root_object, h.count);
  });
}

void extent(ByteView bytes) {
  ByteReader r(bytes);
  const auto first = r.u64();
  if (!first.ok()) return;
  const ByteView value = bytes.subspan(r.position());
  same(parse_extent(value, *first), value, encode_extent);
}

void page(ByteView bytes) {
  if (bytes.empty()) return;
  const int level = bytes[0] % (kMaxLevel + 1);
  Bytes plain = to_bytes(bytes);
  plain.resize(kPagePlain);  // short inputs get the zeros that a page ends with
  const auto parsed = Page::parse(std::move(plain), level);
  if (!parsed.ok()) return;
  const Page& p = **parsed;
  require(p.level() == level && p.size() > 0);
  for (std::size_t i = 0; i < p.size(); ++i) {
    require(!p.key(i).empty());
    require(i == 0 || compare_keys(p.key(i - 1), p.key(i)) < 0);
    if (level > 0) {
      same(parse_page_ref(p.value(i)), p.value(i), encode_page_ref);
    } else {
      same(parse_inode(p.value(i)), p.value(i), encode_inode);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const Input in = input_of(data, size, 9);
  switch (in.choice) {
    case 0:
      same(parse_header(in.bytes), in.bytes, encode_header);
      break;
    case 1:
      list_head(in.bytes);
      break;
    case 2:
      same(parse_list_entry(in.bytes), in.bytes, encode_list_entry);
      break;
    case 3:
      same(parse_inode(in.bytes), in.bytes, encode_inode);
      break;
    case 4:
      same(parse_dirent(in.bytes), in.bytes, encode_dirent);
      break;
    case 5:
      extent(in.bytes);
      break;
    case 6:
      same(parse_meta(in.bytes), in.bytes, encode_meta);
      break;
    case 7:
      same(parse_page_ref(in.bytes), in.bytes, encode_page_ref);
      break;
    default:
      page(in.bytes);
      break;
  }
  return 0;
}
