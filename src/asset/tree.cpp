#include "asset/tree.h"

namespace gbx::asset {

Result<TreeReader::Leaf> TreeReader::leaf_for(ByteView key) {
  PageRef ref = root_.ref;
  Leaf leaf;
  for (int level = root_.level; level > 0; --level) {
    GBX_ASSIGN(const auto page, pages_.load(ref, level));
    std::size_t i = page->floor(key);
    // below every key: the leftmost leaf, which will not hold it either
    if (i == page->size()) i = 0;
    if (i + 1 < page->size()) leaf.next = to_bytes(page->key(i + 1));
    GBX_ASSIGN(ref, parse_page_ref(page->value(i)));
  }
  GBX_ASSIGN(leaf.page, pages_.load(ref, 0));
  return leaf;
}

Result<std::optional<TreeReader::Hit>> TreeReader::floor(ByteView key) {
  GBX_ASSIGN(Leaf leaf, leaf_for(key));
  const std::size_t i = leaf.page->floor(key);
  if (i == leaf.page->size()) return std::optional<Hit>();
  return std::optional<Hit>(Hit{std::move(leaf.page), i});
}

Result<std::optional<TreeReader::Hit>> TreeReader::find(ByteView key) {
  GBX_ASSIGN(auto hit, floor(key));
  if (!hit || compare_keys(hit->key(), key) != 0) return std::optional<Hit>();
  return hit;
}

Status TreeReader::scan(ByteView from,
                        const std::function<Result<bool>(ByteView, ByteView)>& each) {
  Bytes start = to_bytes(from);
  for (;;) {
    GBX_ASSIGN(const Leaf leaf, leaf_for(start));
    for (std::size_t i = 0; i < leaf.page->size(); ++i) {
      if (compare_keys(leaf.page->key(i), start) < 0) continue;
      GBX_ASSIGN(const bool more, each(leaf.page->key(i), leaf.page->value(i)));
      if (!more) return ok_status();
    }
    if (!leaf.next) return ok_status();
    if (compare_keys(*leaf.next, start) <= 0) {
      return fail(Reason::kBadStructure, "manifest keys do not ascend");
    }
    start = *leaf.next;
  }
}

Status PageWriter::open_object() {
  const Id16 id = p_.random.fixed<16>();
  GBX_TRY(p_.on_start(id));
  key_ = page_key(p_.key, p_.asset_id, id, p_.epoch);
  slot_ = 0;
  GBX_ASSIGN(object_, ObjectBuilder::create(
                          p_.store, {ObjectKind::kManifest, p_.suite, p_.epoch, p_.asset_id, id},
                          p_.object_size));
  return ok_status();
}

// (key, nonce) never repeats: the key belongs to this object's random id, and a slot is written
// once.
Result<PageRef> PageWriter::write(int level, Bytes plaintext) {
  if (object_ && !object_->fits(kPageSize)) {
    GBX_ASSIGN(const ObjectEntry done, object_->finish(false, p_.random));
    object_.reset();
    GBX_TRY(p_.on_finish(done));
  }
  if (!object_) GBX_TRY(open_object());
  const Bytes aad = page_aad(p_.asset_id, object_->id(), slot_, p_.epoch, level, p_.suite);
  auto sealed = crypto::aead_seal(p_.suite, key_, page_nonce(slot_), aad, plaintext);
  cleanse(plaintext);
  if (!sealed.ok()) return sealed.error();
  GBX_TRY(object_->add(*sealed));
  return PageRef{object_->id(), slot_++, crypto::sha256(*sealed)};
}

Status PageWriter::finish() {
  if (!object_) return ok_status();
  GBX_ASSIGN(const ObjectEntry done, object_->finish(true, p_.random));
  object_.reset();
  return p_.on_finish(done);
}

Status TreeBuilder::flush(std::size_t index) {
  const int level = base_ + static_cast<int>(index);
  if (level > kMaxLevel) return fail(Reason::kTooLarge, "manifest is too deep");
  GBX_ASSIGN(const PageRef ref, writer_.write(level, levels_[index].page.finish()));
  Level& l = levels_[index];
  // The first page of a level is held back: were it the only one, it would be the root and need no
  // parent.
  if (l.written++ > 0) GBX_TRY(add_at(index + 1, levels_[index].last_key, levels_[index].last_ref));
  levels_[index].last_ref = encode_page_ref(ref);
  levels_[index].last_key = levels_[index].first_key;
  return ok_status();
}

Status TreeBuilder::add_at(std::size_t index, ByteView key, ByteView value) {
  const Bytes key_copy = to_bytes(key);  // levels_ may move, and key may lie in it
  const Bytes value_copy = to_bytes(value);
  if (index == levels_.size()) {
    levels_.push_back(Level{PageEncoder(base_ + static_cast<int>(index)), {}, 0, {}, {}});
  }
  if (!levels_[index].page.add(key_copy, value_copy)) {
    GBX_TRY(flush(index));
    if (!levels_[index].page.add(key_copy, value_copy)) {
      return fail(Reason::kTooLarge, "manifest entry");
    }
    levels_[index].first_key = key_copy;
  } else if (levels_[index].first_key.empty()) {
    levels_[index].first_key = key_copy;
  }
  return ok_status();
}

Result<TreeRoot> TreeBuilder::finish() {
  for (std::size_t i = 0; i < levels_.size(); ++i) {
    if (!levels_[i].page.empty()) GBX_TRY(flush(i));
    if (levels_[i].written > 1) {
      GBX_TRY(add_at(i + 1, levels_[i].last_key, levels_[i].last_ref));
      continue;
    }
    GBX_ASSIGN(PageRef ref, parse_page_ref(levels_[i].last_ref));
    return TreeRoot{ref, base_ + static_cast<int>(i)};
  }
  return fail(Reason::kInternal, "a tree without entries");
}

namespace {

using ChangeIterator = TreeChanges::const_iterator;

// Packs entries of one level into pages and collects the parents' entries.
class Packer {
 public:
  Packer(PageWriter& writer, int level, std::vector<TreeEntry>& parents)
      : writer_(writer), level_(level), page_(level), parents_(parents) {}
  Status add(ByteView key, ByteView value) {
    if (page_.empty()) first_ = to_bytes(key);
    if (page_.add(key, value)) return ok_status();
    GBX_TRY(flush());
    first_ = to_bytes(key);
    return page_.add(key, value) ? ok_status() : Status(fail(Reason::kTooLarge, "manifest entry"));
  }
  Status flush() {
    if (page_.empty()) return ok_status();
    GBX_ASSIGN(const PageRef ref, writer_.write(level_, page_.finish()));
    parents_.push_back({first_, encode_page_ref(ref)});
    return ok_status();
  }

 private:
  PageWriter& writer_;
  const int level_;
  PageEncoder page_;
  Bytes first_;
  std::vector<TreeEntry>& parents_;
};

struct Change {
  PageStore& pages;
  PageWriter& writer;

  Status leaf(const Page& page, ChangeIterator from, ChangeIterator to,
              std::vector<TreeEntry>& parents) {
    Packer packer(writer, 0, parents);
    for (std::size_t i = 0; i < page.size(); ++i) {
      for (; from != to && compare_keys(from->first, page.key(i)) < 0; ++from) {
        if (from->second) GBX_TRY(packer.add(from->first, *from->second));
      }
      if (from != to && compare_keys(from->first, page.key(i)) == 0) {
        if (from->second) GBX_TRY(packer.add(from->first, *from->second));
        ++from;
        continue;
      }
      GBX_TRY(packer.add(page.key(i), page.value(i)));
    }
    for (; from != to; ++from) {
      if (from->second) GBX_TRY(packer.add(from->first, *from->second));
    }
    return packer.flush();
  }

  // Recursion ends after at most kMaxLevel steps: each goes down one level.
  Status node(const PageRef& ref, int level, ChangeIterator from, ChangeIterator to,
              std::vector<TreeEntry>& parents) {
    GBX_ASSIGN(const auto page, pages.load(ref, level));
    if (level == 0) return leaf(*page, from, to, parents);
    Packer packer(writer, level, parents);
    std::vector<TreeEntry> children;
    for (std::size_t i = 0; i < page->size(); ++i) {
      ChangeIterator end = to;
      if (i + 1 < page->size()) {
        for (end = from; end != to && compare_keys(end->first, page->key(i + 1)) < 0;) ++end;
      }
      if (from == end) {
        GBX_TRY(packer.add(page->key(i), page->value(i)));
        continue;
      }
      GBX_ASSIGN(const PageRef child, parse_page_ref(page->value(i)));
      children.clear();
      GBX_TRY(node(child, level - 1, from, end, children));
      for (const TreeEntry& e : children) GBX_TRY(packer.add(e.key, e.value));
      from = end;
    }
    return packer.flush();
  }
};

}  // namespace

Result<TreeRoot> apply_changes(PageStore& pages, const TreeRoot& old, const TreeChanges& changes,
                               PageWriter& writer) {
  if (changes.empty()) return old;
  std::vector<TreeEntry> entries;
  GBX_TRY(
      (Change{pages, writer}.node(old.ref, old.level, changes.begin(), changes.end(), entries)));
  if (entries.empty()) return fail(Reason::kInternal, "a tree without entries");
  if (entries.size() == 1) {
    GBX_ASSIGN(const PageRef ref, parse_page_ref(entries[0].value));
    return TreeRoot{ref, old.level};
  }
  TreeBuilder upper(writer, old.level + 1);
  for (const TreeEntry& e : entries) GBX_TRY(upper.add(e.key, e.value));
  return upper.finish();
}

}  // namespace gbx::asset
