#!/usr/bin/python3
"""Reads Glovebox assets. Written from docs/formats/asset-v1.md alone, so that page and C++ code check each other.

  reader.py vectors DIRECTORY     hold this reader to the vectors
  reader.py list STORE RECORD.json VERSION_ID KEY_HEX
"""
import hashlib
import hmac
import json
import os
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

WORD = b"gbx1"
WORD8 = WORD.ljust(8, b"\0")
CHUNK, SEALED, PAGE, SEGMENT = 65536, 65552, 4096, 1024
DATA, MANIFEST, LIST = 1, 2, 3
FILE, DIRECTORY = 1, 2


class Refused(Exception):
    def __init__(self, reason, what=""):
        super().__init__(f"{reason}: {what}")
        self.reason = reason


def check(condition, reason, what=""):
    if not condition:
        raise Refused(reason, what)


def label(name):
    return WORD + b"/" + name


def sha256(data):
    return hashlib.sha256(data).digest()


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def expand(prk, info, length):
    return HKDFExpand(algorithm=hashes.SHA256(), length=length, info=info).derive(prk)


def aead_open(suite, key, nonce, aad, sealed):
    check(suite in (1, 2), "bad-suite")
    try:
        return (AESGCM if suite == 1 else ChaCha20Poly1305)(key).decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise Refused("bad-tag") from None


def padme(n):
    if n < 2:
        return n
    e = n.bit_length() - 1
    s = e.bit_length()
    if e <= s:
        return n
    mask = (1 << (e - s)) - 1
    return (n + mask) & ~mask


def canonical(value):
    """RFC 8785 for what records hold: objects with ASCII keys, strings, integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def version_id(record):
    return sha256(b"gbx/1/version-record\0" + canonical(record))


def commitment(key, asset_id):
    return mac(key, b"gbx/1/commit\0" + asset_id)


# Key derivation, nonces and associated data, each by the formula of the page.
def page_key(dk, asset_id, object_id, epoch):
    return expand(dk, label(b"page") + asset_id + object_id + struct.pack("<I", epoch), 32)


def page_aad(asset_id, object_id, slot, epoch, level, suite):
    return WORD8 + asset_id + object_id + struct.pack("<IIBB", slot, epoch, level, suite) + bytes(13) + b"\2"


def page_nonce(slot):
    return bytes(7) + struct.pack("<I", slot) + b"\0"


def file_keys(asset_id, suite, file_id, content_version, secret):
    context = WORD8 + asset_id + file_id + struct.pack("<QBB", content_version, suite, 16) + bytes(14)
    both = expand(secret, label(b"file") + sha256(context), 64)
    return both[:32], both[32:]


def segment_key(k_file, segment):
    return expand(k_file, label(b"seg") + struct.pack("<I", segment), 32)


def chunk_nonce(in_segment, last):
    return bytes(7) + struct.pack("<IB", in_segment, last)


def chunk_aad(asset_id, file_id, content_version, index, length, last, suite):
    return WORD8 + asset_id + file_id + struct.pack("<QQIBBBB", content_version, index, length, last, suite, 16, 1)


def content_check(secret, plaintext):
    return mac(expand(secret, label(b"check"), 32), sha256(plaintext))


class MemoryStore:
    def __init__(self, objects):
        self.objects = objects

    def size(self, name):
        check(name in self.objects, "not-found", name)
        return len(self.objects[name])

    def get(self, name, offset, length):
        check(name in self.objects, "not-found", name)
        part = self.objects[name][offset:offset + length]
        check(len(part) == length, "truncated", name)
        return part


class DirectoryStore:
    def __init__(self, root):
        self.paths = {name: os.path.join(at, name) for at, _, names in os.walk(root) for name in names}

    def size(self, name):
        check(name in self.paths, "not-found", name)
        return os.path.getsize(self.paths[name])

    def get(self, name, offset, length):
        check(name in self.paths, "not-found", name)
        with open(self.paths[name], "rb") as f:
            f.seek(offset)
            part = f.read(length)
        check(len(part) == length, "truncated", name)
        return part


def check_record(r):
    check(r["format"] == WORD.decode(), "bad-version", r["format"])
    check(r["suite"] in (1, 2), "bad-suite")
    ranges = (0 <= r["rootLevel"] <= 15 and 0 <= r["rootPage"] <= 0xFFFF and 1 <= r["keyEpoch"] <= 1000000
              and r["version"] >= 1 and r["objectCount"] >= 1)
    check(ranges, "bad-structure", "record")
    check((r["version"] == 1) == (r["prev"] == "00" * 32), "bad-structure", "prev")


def check_header(header, kind, suite, epoch, asset_id, object_id):
    check(header[:8] == WORD8, "bad-magic")
    check(header[8] in (DATA, MANIFEST, LIST), "bad-structure")
    check(header[9] in (1, 2), "bad-suite")
    check(header[10] == 16 and header[11] == 0 and header[48:64] == bytes(16), "bad-structure")
    check(header[8] == kind, "bad-structure")
    check(header[9] == suite, "bad-suite")
    check(header[16:32] == asset_id, "wrong-asset")
    check(header[32:48] == object_id, "bad-structure")
    check(struct.unpack("<I", header[12:16])[0] == epoch, "wrong-version")


def verify(store, r):
    """Integrity without the key."""
    check_record(r)
    asset_id, name = bytes.fromhex(r["assetId"]), r["objectsHash"][:32]
    check(store.size(name) == 96 + 64 * r["objectCount"], "bad-structure", "list size")
    data = store.get(name, 0, store.size(name))
    check_header(data[:64], LIST, r["suite"], 0, asset_id, bytes(16))
    root, count = data[64:80], struct.unpack("<Q", data[80:88])[0]
    check(data[88:96] == bytes(8) and count == r["objectCount"], "bad-structure", "list head")
    entries, before, total = [], None, 0
    for at in range(96, len(data), 64):
        object_id, size, digest, kind = struct.unpack("<16sQ32sB7x", data[at:at + 64])
        check(kind in (DATA, MANIFEST) and data[at + 57:at + 64] == bytes(7) and size >= 64, "bad-structure", "list entry")
        check(before is None or before < object_id, "bad-structure", "list order")
        before, total = object_id, total + size
        entries.append((object_id, size, digest, kind))
    check(sha256(data).hex() == r["objectsHash"], "bad-hash", "list")
    check(any(e[0] == root and e[3] == MANIFEST for e in entries), "bad-structure", "root object")
    check(total == r["ciphertextBytes"], "bad-structure", "sum")
    for object_id, size, digest, kind in entries:
        check(store.size(object_id.hex()) == size, "bad-structure", "object size")
        content = store.get(object_id.hex(), 0, size)
        check_header(content[:64], kind, r["suite"], r["keyEpoch"] if kind == MANIFEST else 0, asset_id, object_id)
        check(sha256(content) == digest, "bad-hash", object_id.hex())


class Reader:
    def __init__(self, store, record, expected_id, dk):
        check_record(record)
        check(version_id(record) == expected_id, "wrong-version", "record")
        self.store, self.dk, self.suite, self.epoch = store, dk, record["suite"], record["keyEpoch"]
        self.asset_id = bytes.fromhex(record["assetId"])
        check(commitment(dk, self.asset_id).hex() == record["commitDk"], "bad-commitment", "dataset key")
        head = self.get(record["objectsHash"][:32], 0, 96)
        check_header(head[:64], LIST, self.suite, 0, self.asset_id, bytes(16))
        check(head[88:96] == bytes(8), "bad-structure")
        check(struct.unpack("<Q", head[80:88])[0] == record["objectCount"], "bad-structure")
        self.root = (head[64:80], record["rootPage"], bytes.fromhex(record["rootHash"]))
        self.root_level = record["rootLevel"]
        totals = self.find(b"\0")
        check(totals is not None, "bad-structure", "totals")
        check(len(totals) == 32, "truncated" if len(totals) < 32 else "trailing-bytes")
        self.next_ino, self.files, self.directories, self.bytes = struct.unpack("<QQQQ", totals)

    def get(self, name, offset, length):
        try:
            return self.store.get(name, offset, length)
        except Refused as e:
            raise Refused("unavailable" if e.reason == "not-found" else e.reason, name) from None

    def load(self, ref, level):
        object_id, slot, digest = ref
        sealed = self.get(object_id.hex(), 64 + PAGE * slot, PAGE)
        check(sha256(sealed) == digest, "bad-hash", "page")
        check_header(self.get(object_id.hex(), 0, 64), MANIFEST, self.suite, self.epoch, self.asset_id, object_id)
        plain = aead_open(self.suite, page_key(self.dk, self.asset_id, object_id, self.epoch), page_nonce(slot),
                          page_aad(self.asset_id, object_id, slot, self.epoch, level, self.suite), sealed)
        check(plain[0] == level and plain[1] == 0, "bad-structure", "page head")
        count, at, entries = struct.unpack("<H", plain[2:4])[0], 4, []
        check(count > 0, "bad-structure", "empty page")
        for _ in range(count):
            check(at + 4 <= len(plain), "truncated", "page entry")
            key_size, value_size = struct.unpack("<HH", plain[at:at + 4])
            check(at + 4 + key_size + value_size <= len(plain), "truncated", "page entry")
            key = plain[at + 4:at + 4 + key_size]
            value = plain[at + 4 + key_size:at + 4 + key_size + value_size]
            check(key_size > 0 and (level == 0 or value_size == 52), "bad-structure", "page entry")
            check(not entries or entries[-1][0] < key, "bad-structure", "page order")
            entries.append((key, value))
            at += 4 + key_size + value_size
        check(plain[at:] == bytes(len(plain) - at), "bad-structure", "page fill")
        return entries

    def leaf(self, key):
        """The leaf that would hold `key`, and the least key of the next one."""
        ref, above = self.root, None
        for level in range(self.root_level, 0, -1):
            entries = self.load(ref, level)
            i = max([n for n, e in enumerate(entries) if e[0] <= key], default=0)
            if i + 1 < len(entries):
                above = entries[i + 1][0]
            value = entries[i][1]
            ref = (value[:16], struct.unpack("<I", value[16:20])[0], value[20:])
        return self.load(ref, 0), above

    def floor(self, key):
        entries, _ = self.leaf(key)
        return max((e for e in entries if e[0] <= key), key=lambda e: e[0], default=None)

    def find(self, key):
        hit = self.floor(key)
        return hit[1] if hit and hit[0] == key else None

    def inode(self, ino):
        value = self.find(b"\1" + struct.pack(">Q", ino))
        check(value is not None, "not-found", f"inode {ino}")
        check(len(value) >= 32, "truncated", "inode")
        kind, executable, zero, nsec, sec, parent, size = struct.unpack("<BBHIqQQ", value[:32])
        check(kind in (FILE, DIRECTORY) and executable <= 1 and zero == 0, "bad-structure", "inode")
        check(nsec < 10**9 and size <= 1 << 44, "bad-structure", "inode")
        n = {"ino": ino, "type": kind, "executable": executable, "mtime": (sec, nsec), "parent": parent, "size": size}
        if kind == DIRECTORY:
            check(size == 0, "bad-structure", "directory size")
            check(len(value) == 32, "trailing-bytes", "inode")
            return n
        check(len(value) >= 156, "truncated", "inode")
        n["file_id"], n["version"], n["secret"], n["commit"], n["check"], n["extents"] = struct.unpack(
            "<16sQ32s32s32sI", value[32:156])
        check((n["extents"] == 0) == (size == 0), "bad-structure", "extents")
        if n["extents"] == 1:
            check(len(value) >= 180, "truncated", "inode")
            n["extent"] = self.extent(value[156:180], 0)
            check(n["extent"][3] == -(-size // CHUNK), "bad-structure", "extent")
        check(len(value) == (180 if n["extents"] == 1 else 156), "trailing-bytes", "inode")
        return n

    @staticmethod
    def extent(value, first):
        check(len(value) >= 24, "truncated", "extent")
        check(len(value) == 24, "trailing-bytes", "extent")
        object_id, offset, chunks = struct.unpack("<16sII", value)
        check(offset >= 64 and chunks >= 1, "bad-structure", "extent")
        return first, object_id, offset, chunks

    def extent_of(self, n, chunk):
        if "extent" in n:
            return n["extent"]
        prefix = b"\3" + struct.pack(">Q", n["ino"])
        hit = self.floor(prefix + struct.pack(">Q", chunk))
        check(hit is not None and len(hit[0]) == 17 and hit[0][:9] == prefix, "bad-structure", "extent missing")
        e = self.extent(hit[1], struct.unpack(">Q", hit[0][9:])[0])
        check(chunk - e[0] < e[3], "bad-structure", "extent missing")
        return e

    def entries(self, directory):
        prefix = b"\2" + struct.pack(">Q", directory)
        key = prefix
        while key is not None:
            page, above = self.leaf(key)
            for k, value in page:
                if k < key:
                    continue
                if not k.startswith(prefix):
                    return
                name = k[9:]
                check(1 <= len(name) <= 255 and b"/" not in name and b"\0" not in name and name not in (b".", b".."),
                      "bad-structure", "name")
                check(len(value) >= 9, "truncated", "entry")
                ino, kind = struct.unpack("<QB", value[:9])
                check(ino > 1 and kind in (FILE, DIRECTORY), "bad-structure", "entry")
                check(len(value) == 9, "trailing-bytes", "entry")
                yield name, ino, kind
            key = above

    def child(self, directory, ino, kind):
        try:
            n = self.inode(ino)
        except Refused as e:
            raise Refused("bad-structure" if e.reason == "not-found" else e.reason) from None
        check(n["type"] == kind and n["parent"] == directory, "bad-structure", "entry and inode")
        return n

    def read(self, n):
        k_file, k_commit = file_keys(self.asset_id, self.suite, n["file_id"], n["version"], n["secret"])
        check(k_commit == n["commit"], "bad-commitment", "file")
        chunks, out = -(-n["size"] // CHUNK), []
        for i in range(chunks):
            first, object_id, offset, _ = self.extent_of(n, i)
            check_header(self.get(object_id.hex(), 0, 64), DATA, self.suite, 0, self.asset_id, object_id)
            last = 1 if i == chunks - 1 else 0
            length = n["size"] - i * CHUNK if last else CHUNK
            sealed = self.get(object_id.hex(), offset + (i - first) * SEALED, length + 16)
            out.append(aead_open(self.suite, segment_key(k_file, i // SEGMENT), chunk_nonce(i % SEGMENT, last),
                                 chunk_aad(self.asset_id, n["file_id"], n["version"], i, length, last, self.suite), sealed))
        plain = b"".join(out)
        check(content_check(n["secret"], plain) == n["check"], "bad-hash", "content check")
        return plain

    def tree(self):
        """Path (bytes) to content; directories end in '/'."""
        root = self.inode(1)
        check(root["type"] == DIRECTORY and root["parent"] == 1, "bad-structure", "root")
        out, waiting = {}, [(1, b"")]
        while waiting:
            directory, prefix = waiting.pop(0)
            for name, ino, kind in self.entries(directory):
                n = self.child(directory, ino, kind)
                if kind == DIRECTORY:
                    out[prefix + name + b"/"] = b""
                    waiting.append((ino, prefix + name + b"/"))
                else:
                    out[prefix + name] = self.read(n)
        return out


# --- vectors ---
def unbase64(text):
    import base64
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def reason_of(action):
    try:
        action()
        return "ok"
    except Refused as e:
        return e.reason


def mutate(objects, record, key, changes, versions):
    objects, record, keep_id = {n: bytearray(o) for n, o in objects.items()}, dict(record), False
    for c in changes:
        op = c["op"]
        if op == "flip":
            objects[c["object"]][c["offset"]] ^= c["mask"]
        elif op == "truncate":
            del objects[c["object"]][c["size"]:]
        elif op == "extend":
            objects[c["object"]] += bytes(c["bytes"])
        elif op == "remove":
            del objects[c["object"]]
        elif op == "swap":
            objects[c["a"]], objects[c["b"]] = objects[c["b"]], objects[c["a"]]
        elif op == "swap-ranges":
            o, a, b, n = objects[c["object"]], c["a"], c["b"], c["length"]
            o[a:a + n], o[b:b + n] = o[b:b + n], o[a:a + n]
        elif op == "record":
            record[c["field"]] = c["value"]
            keep_id = c["keepId"]
        elif op == "use-record":
            record, keep_id = dict(versions[c["version"]]["record"]), True
        elif op == "key":
            key = bytes.fromhex(c["hex"])
        else:
            raise SystemExit(f"unknown change {op}")
    return {n: bytes(o) for n, o in objects.items()}, record, key, keep_id


def check_primitives(v):
    h = bytes.fromhex
    for n, expected in v["padme"]:
        assert padme(n) == expected, n
    d = v["derivations"]
    dk, asset, obj, fid, secret = h(d["dk"]), h(d["assetId"]), h(d["objectId"]), h(d["fileId"]), h(d["fileSecret"])
    assert commitment(dk, asset) == h(d["commitDk"])
    assert page_key(dk, asset, obj, d["epoch"]) == h(d["pageKey"])
    assert page_nonce(d["slot"]) == h(d["pageNonce"])
    assert page_aad(asset, obj, d["slot"], d["epoch"], d["level"], d["suite"]) == h(d["pageAad"])
    k_file, k_commit = file_keys(asset, d["suite"], fid, d["contentVersion"], secret)
    assert (k_file, k_commit) == (h(d["fileKey"]), h(d["fileCommit"]))
    assert segment_key(k_file, d["segment"]) == h(d["segmentKey"])
    assert chunk_nonce(d["chunkInSegment"], 1) == h(d["chunkNonce"])
    assert chunk_aad(asset, fid, d["contentVersion"], d["chunk"], d["plainLength"], 1, d["suite"]) == h(d["chunkAad"])
    assert content_check(secret, d["plaintext"].encode()) == h(d["contentCheck"])
    plain = aead_open(d["suite"], h(d["segmentKey"]), h(d["chunkNonce"]), h(d["chunkAad"]), h(d["sealed"]))
    assert plain == d["plaintext"].encode()


def check_asset(v):
    objects = {n: unbase64(o) for n, o in v["objects"].items()}
    for version in v["versions"]:
        record, vid, key = version["record"], bytes.fromhex(version["versionId"]), bytes.fromhex(version["key"])
        assert version_id(record) == vid
        store = MemoryStore(objects)
        verify(store, record)
        reader = Reader(store, record, vid, key)
        expected = {unbase64(path): bytes.fromhex(digest) for path, digest in version["files"].items()}
        got = {path: b"" if path.endswith(b"/") else sha256(content) for path, content in reader.tree().items()}
        assert got == expected, (got, expected)


def check_refusal(directory, v):
    with open(os.path.join(directory, v["base"])) as f:
        base = json.load(f)
    objects = {n: unbase64(o) for n, o in base["objects"].items()}
    start = base["versions"][v.get("version", 0)]
    objects, record, key, keep_id = mutate(objects, start["record"], bytes.fromhex(start["key"]), v["changes"],
                                              base["versions"])
    store = MemoryStore(objects)
    vid = bytes.fromhex(start["versionId"]) if keep_id else version_id(record)
    keyless = reason_of(lambda: verify(store, record))
    reading = reason_of(lambda: Reader(store, record, vid, key).tree())
    assert (keyless, reading) == (v["keyless"], v["reading"]), f"{v['name']}: {keyless}, {reading}"


def run_vectors(directory):
    counts = {"primitives": 0, "asset": 0, "refusal": 0}
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name)) as f:
            document = json.load(f)
        kind = document["vectors"]
        if kind == "primitives":
            check_primitives(document)
            counts[kind] += 1
        elif kind == "asset":
            check_asset(document)
            counts[kind] += 1
        elif kind == "base":
            continue  # material of refusals
        elif kind == "refusals":
            for v in document["cases"]:
                check_refusal(directory, v)
                counts["refusal"] += 1
        else:
            raise SystemExit(f"{name}: unknown vectors {kind}")
    assert counts["primitives"] >= 1 and counts["asset"] >= 3 and counts["refusal"] >= 30, counts
    print(f"asset vectors: {counts['primitives']} primitives, {counts['asset']} assets, {counts['refusal']} refusals")


def main(argv):
    if len(argv) == 3 and argv[1] == "vectors":
        run_vectors(argv[2])
    elif len(argv) == 6 and argv[1] == "list":
        with open(argv[3]) as f:
            record = json.load(f)
        store = DirectoryStore(argv[2])
        verify(store, record)
        for path, content in sorted(Reader(store, record, bytes.fromhex(argv[4]), bytes.fromhex(argv[5])).tree().items()):
            print(f"{sha256(content).hex()}  {len(content):>12}  {path.decode(errors='backslashreplace')}")
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv)
