#!/usr/bin/python3
"""Writes seeds without any code of ours: usage fuzz/hand_seeds.py FOLDER (scripts/fuzz --seeds calls it)."""
import base64
import gzip
import io
import json
import os
import struct
import sys
import tarfile

DIGEST = "sha256:" + "ab" * 32
COLUMNS = [{"name": "word", "type": "text", "enum": ["a", "b"]}, {"name": "n", "type": "integer", "minimum": 0, "maximum": 99},
           {"name": "x", "type": "decimal", "minimum": -10, "maximum": 10, "digits": 3, "scale": 3}]


def put(root, target, name, content, choice=""):
    os.makedirs(os.path.join(root, target), exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    with open(os.path.join(root, target, name), "wb") as f:
        f.write(choice.encode() + content)


def tar(fmt, odd=False):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as t:
        for name, kind, link, data in [("bin", tarfile.DIRTYPE, "", b""), ("bin/sh", tarfile.REGTYPE, "", b"#!"),
                                       ("bin/hard", tarfile.LNKTYPE, "bin/sh", b""), ("bin/soft", tarfile.SYMTYPE, "../sh", b""),
                                       ("long/" + "n" * 120, tarfile.REGTYPE, "", b"x")]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode, info.mtime = kind, link, len(data), 0o755, 1600000000
            t.addfile(info, io.BytesIO(data))
        if odd:
            info = tarfile.TarInfo("../escape")
            info.type = tarfile.CHRTYPE
            t.addfile(info)
    # One block of zeros more than the two that end it is all that a seed needs of tar's padding.
    data = out.getvalue().rstrip(b"\0")
    return data + b"\0" * (-len(data) % 512 + 1024)


def tars(root):
    put(root, "oci_tar", "ustar_odd", tar(tarfile.GNU_FORMAT, odd=True), "0")
    put(root, "oci_tar", "gnu", tar(tarfile.GNU_FORMAT), "0")
    put(root, "oci_tar", "pax", tar(tarfile.PAX_FORMAT), "1")
    put(root, "oci_tar", "pax_gzip", gzip.compress(tar(tarfile.PAX_FORMAT), mtime=0), "2")
    put(root, "oci_tar", "empty", b"\0" * 1024, "0")


def images(root):
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 10}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 5}, "layers": [layer]}
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
              "config": {"Entrypoint": ["/bin/sh"], "Cmd": ["-c"], "Env": ["PATH=/bin"], "WorkingDir": "/"}}
    put(root, "oci_json", "manifest", json.dumps(manifest), "0")
    put(root, "oci_json", "config", "1" + json.dumps(config), "1")
    put(root, "oci_json", "config_user", "1" + json.dumps({**config, "config": {"User": "0", "Env": [1]}}), "1")


def gate(root):
    put(root, "gate_text", "csv", 'a,b\n1,"x,""y"\n2,é\n', "0")
    put(root, "gate_text", "csv_crlf", "a,b\r\n1,2\r\n", "0")
    put(root, "gate_text", "json", '{"a":[1,2.5e-3,null,true,"\\u00e9\\ud83d\\ude00"],"b":{}}', "1")
    put(root, "gate_text", "json_nan", '{"a":NaN}', "1")
    put(root, "gate_text", "decimal", "-12.0450e-3", "2")
    put(root, "gate_text", "decimal_long", "0." + "9" * 30 + "E+20", "2")
    table = {"name": "t", "path": "t.csv", "type": "table", "maxBytes": 4096, "schema": {"maxRows": 5, "columns": COLUMNS}}
    put(root, "gate_text", "table", json.dumps(table) + "\nword,n,x\nb,3,1.23456\na,10,-0.5\n", "3")
    metrics = {"name": "m", "path": "m.json", "type": "metrics", "maxBytes": 4096, "schema": {"fields": COLUMNS[1:]}}
    put(root, "gate_text", "metrics", json.dumps(metrics) + '\n{"x": 0.12345, "n": 7}', "3")
    text = {"name": "l", "path": "l.txt", "type": "text", "maxBytes": 64, "schema": {"maxLines": 3, "enum": ["yes", "no"]}}
    put(root, "gate_text", "text", json.dumps(text) + "\nyes\nno\n", "3")
    recipe = {"input": "i", "file": "f", "filter": [{"column": "x", "is": "at-least", "value": "-5"}],
              "groupBy": [{"name": "word", "column": "x", "cuts": ["0.5"]}], "roundTo": 2,
              "measures": [{"name": "n", "of": "subjects"}, {"name": "x", "of": "mean", "column": "x"}]}
    table["schema"] = {**table["schema"], "recipe": recipe}
    people = "who,x,site\n" + "".join("p%d,%s,a\n" % (i % 7, x) for i, x in enumerate(["1", "0.25", "-6", "-1.5e0", "3", "0"]))
    put(root, "gate_recipe", "mean", json.dumps(table) + "\n" + people, "0")
    put(root, "gate_recipe", "crlf_quotes", json.dumps(table) + "\n" + people.replace("\n", "\r\n").replace(",a", ',"a,""b"'), "0")
    put(root, "gate_recipe", "nan", json.dumps(table) + "\n" + people + "p8,NaN,a\n", "0")
    counts = {**recipe, "groupBy": [{"name": "word", "column": "site"}], "structuralZeros": [{"words": ["b"]}],
              "measures": [{"name": "n", "of": "rows"}, {"name": "x", "of": "sum", "column": "x"}]}
    table["schema"] = {**table["schema"], "recipe": counts}
    put(root, "gate_recipe", "structural_zero", json.dumps(table) + "\n" + people, "0")
    put(root, "gate_recipe", "zero_occurs", json.dumps(table) + "\n" + people + "p9,2,b\n", "0")
    table["schema"] = {**table["schema"], "recipe": {**counts, "measures": counts["measures"][:1]}}
    put(root, "gate_recipe", "column_without_measure", json.dumps(table) + "\n" + people, "0")


def http(root):
    put(root, "http_target", "query", "/v1/jobs/7f?limit=10&after=a%20b")
    put(root, "http_target", "escapes", "/v1/%C3%A9/%7e")
    put(root, "http_target", "dots", "/v1/%2e%2e/x")
    put(root, "http_target", "root", "/")
    error = {"reason": "not-found", "what": "job", "expected": "", "actual": "", "next": "list jobs"}
    put(root, "http_signing", "error_body", json.dumps(error), "1")
    put(root, "http_signing", "error_unknown", json.dumps({**error, "reason": "new-reason", "what": "a\u0007b\u00e9"}), "1")
    put(root, "http_signing", "unsigned_request", "GET /v1/jobs\nglovebox-time: 1700000000\n", "0")


def yaml(root):
    put(root, "yaml", "spec", "apiVersion: glovebox/v1\nspec:\n  args: [a, 'it''s', \"x\\ty\"]\n  env: {}\n  n: -12\n  on: \"yes\"\n"
        "  list:\n    - {a: 1}\n    - - nested\n      - null\n  text: |\n    two\n    lines\n")
    put(root, "yaml", "json", '{"a": [1, "x", true, null], "b": {"c": ""}}')
    put(root, "yaml", "anchor", "a: &x 1\nb: *x\n")
    put(root, "yaml", "duplicate", "a: 1\na: 2\n")
    put(root, "yaml", "tag", "a: !!binary aGk=\n")
    put(root, "yaml", "odd_strings", "a: ' x '\nb: \"0x1\"\nc: \"1_000\"\nd: \"2024-01-01\"\ne: \"\\u0085\\u2028\"\n'? ': '- x'\n")


def records(root):
    put(root, "records_json", "numbers", '{"a":9007199254740991,"b":-0,"c":[],"\\ud83d\\ude00":1,"\\uffff":2}', "records::Submission\n")
    put(root, "records_json", "duplicate", '{"a":1,"a":2}', "records::Submission\n")


ASSET, OBJECT, WORD, BUNDLE = bytes(range(1, 17)), b"\4" * 16, b"gbx1", b"GBXOUT1\n"


def keyed(kind, *numbers):
    return bytes([kind]) + b"".join(struct.pack(">Q", n) for n in numbers)


def assets(root):
    """The bytes of docs/formats/asset-v1.md; asset_tree reads what fuzz/tree_input.h describes."""
    def header(kind, epoch, name):
        return WORD + b"\0" * (8 - len(WORD)) + struct.pack("<BBBBI", kind, 1, 16, 0, epoch) + ASSET + name + b"\0" * 16

    extent = OBJECT + struct.pack("<II", 64, 2)
    folder = struct.pack("<BBHIQQQ", 2, 0, 0, 0, 1600000000, 1, 0)
    small = struct.pack("<BBHIQQQ", 1, 1, 0, 5, 1600000000, 1, 100000) + b"\t" * 16 + struct.pack("<Q", 1) + b"\3" * 96 + struct.pack("<I", 1)
    large = struct.pack("<BBHIQQQ", 1, 0, 0, 5, 1600000000, 3, 5 << 16) + b"\x08" * 16 + struct.pack("<Q", 1) + b"\3" * 96 + struct.pack("<I", 2)
    meta = struct.pack("<QQQQ", 5, 2, 2, 100000)
    put(root, "asset_format", "header_data", header(1, 0, OBJECT), "0")
    put(root, "asset_format", "header_manifest", header(2, 1, OBJECT), "0")
    put(root, "asset_format", "list_head", header(3, 0, b"\0" * 16) + OBJECT + struct.pack("<QQ", 3, 0), "1")
    put(root, "asset_format", "list_entry", OBJECT + struct.pack("<Q", 4096) + b"\1" * 32 + b"\1" + b"\0" * 7, "2")
    put(root, "asset_format", "inode_directory", folder, "3")
    put(root, "asset_format", "inode_file", small + extent, "3")
    put(root, "asset_format", "dirent", struct.pack("<QB", 2, 1), "4")
    put(root, "asset_format", "extent", b"\0" * 8 + extent, "5")
    put(root, "asset_format", "meta", meta, "6")
    put(root, "asset_format", "page_ref", OBJECT + struct.pack("<I", 5) + b"\2" * 32, "7")

    entries = sorted([(b"\0", meta), (keyed(1, 1), folder), (keyed(1, 2), small + extent), (keyed(1, 3), folder), (keyed(1, 4), large),
                      (keyed(2, 1) + b"file", struct.pack("<QB", 2, 1)), (keyed(2, 1) + b"folder", struct.pack("<QB", 3, 2)),
                      (keyed(2, 3) + b"many", struct.pack("<QB", 4, 1)), (keyed(3, 4, 0), extent), (keyed(3, 4, 2), extent)])
    page = struct.pack("<BBH", 0, 0, len(entries)) + b"".join(struct.pack("<HH", len(k), len(v)) + k + v for k, v in entries)
    put(root, "asset_format", "page_leaf", page, "8")

    def leaf(part):
        return bytes([0, len(part)]) + b"".join(bytes([len(k)]) + k + bytes([len(v)]) + v for k, v in part)

    put(root, "asset_tree", "one_leaf", leaf(entries))
    parts = [entries[:4], entries[4:7], entries[7:]]
    above = bytes([1, 3]) + b"".join(bytes([len(p[0][0])]) + p[0][0] + bytes([i]) for i, p in enumerate(parts))
    put(root, "asset_tree", "three_leaves", b"".join(leaf(p) for p in parts) + above)


def keys(root):
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography import x509
    import datetime
    der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "glovebox")])
    first = ed25519.Ed25519PrivateKey.from_private_bytes(b"\7" * 32)
    second = ec.derive_private_key(7, ec.SECP256R1())
    raw = first.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    point = second.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    for word, key, public, digest in (("ed25519", first, raw, None), ("p256", second, point, hashes.SHA256())):
        text = word + ":" + public.hex()
        put(root, "keys", word + "_text", text, "0")
        put(root, "keys", word + "_spki", key.public_key().public_bytes(*der), "1")
        put(root, "keys", word + "_signature", text + "\n" + "x" * 64, "4")
        builder = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
                   .not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(datetime.datetime(2040, 1, 1)))
        certificate = os.path.join(root, "keys", word + "_certificate")
        if word == "ed25519" or not os.path.exists(certificate):  # an ECDSA signature differs each time
            put(root, "keys", word + "_certificate", builder.sign(key, digest).public_bytes(serialization.Encoding.DER), "3")
    put(root, "keys", "x25519_text", "x25519:" + raw.hex(), "2")


def nbd(root):
    """Requests of a volume's client, as doc/proto.md of NBD has them."""
    def option(number, data=b""):
        return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data

    def request(command, offset=0, size=0, flags=0):
        return struct.pack(">IHHQQI", 0x25609513, flags, command, 7, offset, size)

    def go(name, *infos):
        return struct.pack(">I", len(name)) + name + struct.pack(">H", len(infos)) + b"".join(struct.pack(">H", i) for i in infos)

    hello = struct.pack(">I", 3)
    into = hello + option(8) + option(7, go(b"volume", 3))
    put(root, "nbd", "reads", into + request(0, 0, 512) + request(0, 4096, 4096) + request(0, (1 << 20) - 7, 7) + request(2))
    put(root, "nbd", "old_name", struct.pack(">I", 1) + option(1, b"volume") + request(0, 9, 1))
    put(root, "nbd", "options", hello + option(3) + option(5) + option(9, b"x") + option(6, go(b"", 0, 3)) + option(6, go(b"other")) + option(2))
    put(root, "nbd", "writes", into + request(1, 0, 9) + b"x" * 9 + request(4, 0, 512) + request(6, 0, 512) + request(3) + request(7, 0, 512))
    put(root, "nbd", "beyond", into + request(0, 1 << 20, 1) + request(0, (1 << 64) - 1, 2) + request(0, 0, (1 << 32) - 1) + request(0, 0, 1, 1))
    put(root, "nbd", "name_too_long", hello + option(7, struct.pack(">I", 99) + b"volume" + b"\0\0"))


def volume(root):
    """Head and index of docs/formats/volume-v1.md."""
    def front(objects, size=1 << 44, version=1):
        index, free = b"", 4096 + -(-80 * len(objects) // 4096) * 4096
        for name, length in objects:
            index += name.encode().ljust(64, b"\0") + struct.pack("<QQ", free, length)
            free += -(-length // 4096) * 4096
        head = b"GBXVOLUM" + struct.pack("<IIQ", version, len(objects), size)
        return head.ljust(4096, b"\0") + index.ljust(-(-len(index) // 4096) * 4096, b"\0")

    put(root, "volume", "three", front([("a", 0), ("b" * 64, 5000), ("c.1_2-3", 1)]))
    put(root, "volume", "empty", front([]))
    put(root, "volume", "full", front([("a", 4096)], 12288))
    put(root, "volume", "doubled", front([("a", 1), ("a", 1)]))
    put(root, "volume", "beyond", front([("a", 8192)], 12288))
    put(root, "volume", "version", front([("a", 1)], version=2))


def words(root):
    policy = """apiVersion: glovebox/v1
kind: Policy
for: dataset
clauses:
  consumers: []
  purposes: [study]
  images: [{digest: "%s"}]
  commands: [{argv: [/bin/true]}]
""" % DIGEST
    put(root, "cli_files", "policy", policy, "0")
    with open(os.path.join(root, "keys", "ed25519_certificate"), "rb") as f:
        der = f.read()[1:]
    pem = base64.encodebytes(der).decode()
    put(root, "cli_files", "certificate_der", der, "1")
    put(root, "cli_files", "certificate_pem", "-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n" % pem, "1")
    for name, text in (("address", "https://plane.example:8443/"), ("address_v6", "[::1]:8443"), ("address_bare", "::1:8443")):
        put(root, "cli_files", name, text, "2")
    for name, text in (("date", "2027-01-31"), ("date_time", "2027-01-31T00:00:00Z"), ("date_none", "2027-02-30")):
        put(root, "cli_files", name, text, "3")
    for name, text in (("first", "0.a"), ("number", "1700000000000.ab/cd"), ("zeros", "007.x"), ("no_dot", "17"), ("no_number", ".x")):
        put(root, "plane_cursor", name, text)


def bundles(root):
    status = json.dumps({"attempt": 1, "durationBucket": 0, "exitClass": "ok", "jobId": "job"}, separators=(",", ":"), sort_keys=True)

    def entry(kind, name, content):
        return struct.pack("<BH", kind, len(name)) + name.encode() + struct.pack("<I", len(content)) + content.encode()

    put(root, "gate_bundle", "bundle", BUNDLE + struct.pack("<I", 3) + entry(0, "status", status) + entry(1, "a.csv", "x,y\n1,2\n") +
        entry(2, "log", "hello\n"), "1")
    zero = "00" * 32
    result = {"version": 1, "jobId": "job", "attempt": 1, "requestDigest": zero, "policyHash": zero, "bundleDigest": zero, "verdict": "error",
              "analysers": [{"rule": "gate", "status": "error", "reason": "gate-timed-out", "evidence": []}],
              "charge": {"freeBits": 8, "verifiedBits": 0, "zcdpMicro": 0, "code": "control-1"}, "score": 100, "scoreReasons": [],
              "manifest": [], "releaseRecords": [], "exitClass": "killed", "durationBucket": 0, "recommendation": "hold",
              "confinement": {"noNewPrivs": True, "seccomp": True, "landlockAbi": 0}}
    text = json.dumps(result).encode()
    put(root, "gate_bundle", "answer_held", b"GBXGATE1" + struct.pack("<I", len(text)) + text + b"\0" * 8, "2")
    table = {"name": "t", "path": "t.csv", "type": "table", "maxBytes": 4096, "schema": {"maxRows": 5, "columns": COLUMNS}}
    request = {"version": 1, "jobId": "job", "attempt": 1, "planHash": zero, "purpose": "", "imageDigest": "", "salt": zero, "outputs": [table],
               "inputs": [{"name": "i", "mount": "/data/i", "versionId": "", "fd": 4}], "outFd": 3, "exitClass": "ok", "durationSeconds": 3,
               "policy": {"autoClearFreeBits": 2048, "autoClearVerifiedBits": 0, "maxOutputBytes": 1000, "maxRows": 10, "maxConsumerLogBytes": 0,
                          "scoreThreshold": 60, "allowedTypes": ["table"], "copyCheck": True},
               "logs": {"visibility": "none", "maxBytes": 0}}
    put(root, "gate_bundle", "request", json.dumps(request), "3")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: hand_seeds.py FOLDER")
    for write in (tars, images, gate, http, yaml, records, assets, keys, nbd, volume, words, bundles):
        write(sys.argv[1])
