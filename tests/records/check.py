#!/usr/bin/env python3
"""Checks tests/records/vectors.json with nothing but docs/protocol.md and docs/formats/records-v1.md: no code of ours.

Usage: check.py [vectors.json [records-v1.md]]. Exit status 0 when everything holds.
Three parts: every record's canonical bytes, hash, message and signature; every record's member names against the page;
and the receipt, from its pinned set id to the place of its decision in the log.
"""
import base64
import copy
import hashlib
import json
import os
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

HERE = os.path.dirname(os.path.abspath(__file__))
P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
UNBOUND = {"agent-keys", "charter", "evidence", "guest-release", "identity", "launch-config", "seal-context", "version-record"}


class Wrong(Exception):
    pass


def require(holds, what):
    if not holds:
        raise Wrong(what)


# ---- RFC 8785, for objects, lists, strings, integers, true and false ----
def text(s):
    out = '"'
    for c in s:
        short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(c)
        out += short or ("\\u%04x" % ord(c) if ord(c) < 0x20 else c)
    return out + '"'


def jcs(v):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, int):
        require(abs(v) <= 2**53 - 1, "an integer out of range")
        return str(v)
    if isinstance(v, str):
        return text(v)
    if isinstance(v, list):
        return "[" + ",".join(jcs(e) for e in v) + "]"
    require(isinstance(v, dict), "a value that no record has: %r" % (v,))
    names = sorted(v, key=lambda n: n.encode("utf-16-be"))
    return "{" + ",".join(text(n) + ":" + jcs(v[n]) for n in names) + "}"


def sha256(data):
    return hashlib.sha256(data).digest()


def labelled(label, body):
    return label.encode() + b"\0" + jcs(body).encode()


def record_hash(kind, body):
    return sha256(labelled("gbx/1/" + kind, body)).hex()


def message(kind, body, set_id):
    bound = b"" if kind in UNBOUND else bytes.fromhex(set_id)
    return b"gbx/1/" + kind.encode() + b"\0" + bound + jcs(body).encode()


def base64url(s):
    require(re.fullmatch("[A-Za-z0-9_-]*", s), "base64url")
    return base64.urlsafe_b64decode(s + "=" * (-len(s) % 4))


def verify(key, data, signature):
    suite, _, raw = key.partition(":")
    raw = bytes.fromhex(raw)
    require(len(signature) == 64, "a signature of %d bytes" % len(signature))
    try:
        if suite == "ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
        else:
            require(suite == "p256" and len(raw) == 65, "suite " + suite)
            point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            require(s <= P256_ORDER // 2, "the higher s")
            point.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise Wrong("signature by " + key)


# ---- every record ----
def check_record(v, set_id, keys):
    kind, body = v["type"], v["body"]
    require(jcs(body) == v["canonical"], "canonical bytes")
    require(record_hash(kind, body) == v["hash"], "hash")
    data = message(kind, body, set_id)
    require(data.hex() == v["messagePrefix"] + v["canonical"].encode().hex(), "signed message")
    key = keys[v["signer"]]
    signature = base64url(v["signature"])
    verify(key["public"], data, signature)
    if key["public"].startswith("ed25519:"):
        private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key["private"]))
        require(private.sign(data) == signature, "Ed25519 has one signature")


def check_refused(v, vectors):
    """Another signature of one of the records: its bytes verify where forms are not told apart, and it must not count."""
    of = [r for r in vectors["records"] if r["name"] == v["record"]][0]
    other = dict(of, signature=v["signature"])
    require(v["reason"] == "bad-signature" and other != of, v["name"])
    try:
        check_record(other, vectors["setId"], vectors["keys"])
    except Wrong:
        return
    raise Wrong(v["name"] + " counts")


def check_derived(d, records):
    submission = [v for v in records if v["name"] == "submission-full"][0]["body"]
    require(sha256(labelled("gbx/1/job", submission)).hex() == d["jobId"], "jobId")
    require(jcs(d["reportData"]) == d["reportDataCanonical"], "report data")
    require(hashlib.sha512(jcs(d["reportData"]).encode()).hexdigest() == d["reportDataDigest"], "digest of report data")
    leaf = sha256(b"\0" + bytes.fromhex(d["leafSalt"]) + d["leafEntry"].encode()).hex()
    require(leaf == d["leaf"], "leaf of the log")


# ---- names, against the page ----
def read_page(path):
    """{record or part: {member: (optional, part or None)}} from the page's tables of records and parts."""
    out = {}
    section = ""
    for line in open(path, encoding="utf-8"):
        section = line.strip() if line.startswith("## ") else section
        if section not in ("## Records", "## Parts"):
            continue
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        name = re.fullmatch("`([A-Za-z-]+)`", cells[0])
        if not line.startswith("| `") or not name:
            continue
        members = {}
        for m in re.finditer(r"`([A-Za-z0-9]+)(\?)?`(?: \(([A-Za-z-]+)\))?", cells[-1]):
            require(m.group(1) not in members, "%s names %s twice" % (name.group(1), m.group(1)))
            members[m.group(1)] = (m.group(2) == "?", m.group(3))
        require(members and name.group(1) not in out, "the row of " + name.group(1))
        out[name.group(1)] = members
    return out


def check_types(path, records):
    """Each type of the page's first table has a vector, and the table says whether the set id is in its message."""
    unbound, types = set(), set()
    for line in open(path, encoding="utf-8"):
        row = re.match(r"\| `([a-z-]+)` \| (yes|no) \|", line)
        if row:
            types.add(row.group(1))
            unbound |= {row.group(1)} if row.group(2) == "no" else set()
    require(unbound == UNBOUND, "set id, of %s" % sorted(unbound ^ UNBOUND))
    held = {v["type"] for v in records}
    require(types == held, "the page or the vectors alone have %s" % sorted(types ^ held))


class Names:
    def __init__(self, page):
        self.page = page
        self.met = set()

    def check(self, part, body, at):
        if part == "signed":
            raise Wrong("a signed part needs its record's name")
        members = self.page.get(part)
        require(members is not None, "%s: the page has no %s" % (at, part))
        require(isinstance(body, dict), at + " is no object")
        for name in body:
            require(name in members, "%s: the page knows no member %s of %s" % (at, name, part))
        for name, (optional, inner) in members.items():
            require(optional or name in body, "%s: %s has no member %s" % (at, part, name))
            if name not in body:
                continue
            self.met.add((part, name))
            values = body[name] if isinstance(body[name], list) else [body[name]]
            for v in values if inner else []:
                self.check_inner(inner, v, at + "." + name)
            require(inner or not any(isinstance(v, dict) for v in values) or name in ("schema", "env", "labels", "logEntry"),
                    "%s: the page does not say what %s consists of" % (at, name))

    def check_inner(self, inner, v, at):
        if not inner.startswith("signed-"):
            return self.check(inner, v, at)
        kind = inner[len("signed-"):]
        require(set(v) == {"type", "body", "key", "signature"} and v["type"] == kind, at + " is no signed " + kind)
        self.check(kind, v["body"], at)

    def finish(self):
        all_names = {(part, name) for part, members in self.page.items() for name in members}
        require(not all_names - self.met, "the page names what no vector has: %s" % sorted(all_names - self.met))


# ---- the receipt ----
class Receipt:
    def __init__(self, r, set_id):
        self.r = r
        self.set_id = set_id

    def signed(self, record, kind, key, what):
        require(record["type"] == kind, what + ": type")
        require(record["key"] == key, what + " is signed by another key")
        verify(key, message(kind, record["body"], self.set_id), base64url(record["signature"]))

    def check(self):
        require(self.r["format"] == "gbx-receipt/1", "format of the receipt")
        self.check_set()
        self.check_order()
        self.check_owners()
        self.check_plan()
        self.check_environment()
        self.check_run()
        self.check_review()
        self.check_release()
        return self.job_id

    def check_set(self):
        s = self.r["set"]
        require(record_hash("charter", s["charter"]) == self.set_id, "set id")
        key = s["charter"]["genesisSetKey"]
        for i, successor in enumerate(s["successors"]):
            require(successor["body"]["serial"] == i + 1, "order of set keys")
            self.signed(successor, "set-key-successor", key, "successor")
            key = successor["body"]["newSetKey"]
        self.signed(s["epoch"], "epoch-keys", key, "epoch keys")
        self.set_key, self.set_signs = key, s["epoch"]["body"]["signing"]

    def check_order(self):
        """Each list in its one order, each entry once, and no key after the last one that signed here."""
        ids = [record_hash("identity", c["identity"]) for c in self.r["identities"]]
        require(ids == sorted(set(ids)), "order of identities")
        signers = {s["key"] for name in ("versions", "policies", "beacons", "leases", "rulings") for s in self.r[name]}
        signers.add(self.r["submission"]["key"])
        for chain in self.r["identities"]:
            require(not chain["rotations"] or chain["rotations"][-1]["body"]["newKey"] in signers, "a key that signed nothing")
        named = self.r["submission"]["body"]["leases"]
        places = [named.index(lease["body"]["leaseId"]) for lease in self.r["leases"]]
        require(places == sorted(set(places)), "order of leases")

    def keys_of(self, identity_id):
        """Every key that an identity ever signed with, the newest last."""
        for chain in self.r["identities"]:
            if record_hash("identity", chain["identity"]) != identity_id:
                continue
            keys = [chain["identity"]["genesisKey"]]
            for i, rotation in enumerate(chain["rotations"]):
                body = rotation["body"]
                require(body["serial"] == i + 1 and body["identityId"] == identity_id, "order of rotations")
                require(rotation["key"] in (keys[-1], chain["identity"]["recoveryKey"]), "a rotation by another key")
                self.signed(rotation, "rotation", rotation["key"], "rotation")
                keys.append(body["newKey"])
            return keys
        raise Wrong("no identity " + identity_id)

    def by_identity(self, record, kind, identity_id):
        require(record["key"] in self.keys_of(identity_id), kind + " by somebody else")
        self.signed(record, kind, record["key"], kind)

    def check_owners(self):
        self.policy_hashes = []
        require(len(self.r["versions"]) == len(self.r["policies"]), "one record for each policy")
        for version, policy in zip(self.r["versions"], self.r["policies"]):
            p = policy["body"]
            self.by_identity(version, "version-record", p["ownerId"])
            self.by_identity(policy, "policy", p["ownerId"])
            require(p["assetVersionId"] == record_hash("version-record", version["body"]), "policy of another version")
            require(p["commitDk"] == version["body"]["commitDk"], "commitment to the dataset key")
            self.policy_hashes.append(record_hash("policy", p))
        for beacon in self.r["beacons"]:
            self.by_identity(beacon, "owner-beacon", beacon["body"]["ownerId"])
            require(beacon["body"]["policyHash"] in self.policy_hashes, "a beacon for another policy")
        for lease in self.r["leases"]:
            self.by_identity(lease, "lease", self.r["policies"][0]["body"]["ownerId"])
            require(lease["body"]["leaseId"] in self.r["submission"]["body"]["leases"], "a lease that was not named")

    def check_plan(self):
        submission, plan, credential = self.r["submission"], self.r["plan"], self.r["credential"]
        self.by_identity(submission, "submission", submission["body"]["consumerId"])
        self.job_id = sha256(labelled("gbx/1/job", submission["body"])).hex()
        self.signed(plan, "run-plan", self.set_signs, "plan")
        require(plan["body"]["jobId"] == self.job_id, "job of the plan")
        require([p["policyHash"] for p in plan["body"]["policies"]] == self.policy_hashes, "policies of the plan")
        self.plan_hash = record_hash("run-plan", plan["body"])
        self.signed(credential, "credential", self.set_signs, "credential")
        c = credential["body"]
        require(c["jobId"] == self.job_id and c["planHash"] == self.plan_hash, "credential")

    def check_environment(self):
        r = self.r
        node = r["evidence"]["node"]
        launch = {"setId": self.set_id, "setKey": self.set_key}
        report = {"label": "gbx/1/report-data", "setId": self.set_id, "nonce": r["nonce"], "jobId": self.job_id,
                  "attempt": r["credential"]["body"]["attempt"], "planHash": self.plan_hash, "exporter": r["exporter"],
                  "credential": record_hash("credential", r["credential"]["body"]),
                  "agentKeys": record_hash("agent-keys", r["agentKeys"])}
        require(node["body"]["reportData"] == hashlib.sha512(jcs(report).encode()).hexdigest(), "report data")
        require(r["evidence"]["launchConfig"] == launch, "launch configuration")
        require(node["body"]["launchConfig"] == record_hash("launch-config", launch), "hash of the launch configuration")
        self.signed(node, "node-introduction", node["key"], "introduction")

    def check_run(self):
        statement, ack = self.r["runStatement"], self.r["sealAck"]
        self.signed(statement, "run-statement", self.r["agentKeys"]["sig"], "run statement")
        self.manifest = statement["body"]["manifest"]
        context = self.manifest["context"]
        require(context["jobId"] == self.job_id and context["planHash"] == self.plan_hash, "context")
        require(statement["body"]["evidence"] == record_hash("evidence", self.r["evidence"]), "evidence of the run")
        self.manifest_hash = record_hash("output-manifest", self.manifest)
        self.signed(ack, "seal-ack", self.set_signs, "acknowledgement")
        require(ack["body"]["manifest"] == self.manifest_hash, "acknowledgement of another output")
        require(all(ack["body"][k] == context[k] for k in ("jobId", "attempt")), "acknowledgement of another attempt")

    def check_review(self):
        notice = self.r["holdNotice"]
        self.signed(notice, "hold-notice", self.set_signs, "hold notice")
        require(notice["body"]["manifest"] == self.manifest_hash, "notice about another output")
        require(notice["body"]["policyHashes"] == self.policy_hashes, "policies of the notice")
        for ruling in self.r["rulings"]:
            require(ruling["body"]["holdNotice"] == record_hash("hold-notice", notice["body"]), "ruling on another notice")
            require(ruling["body"]["manifest"] == self.manifest_hash, "ruling on another output")
            reviewers = {x["key"]: x["identityId"] for x in self.r["plan"]["body"]["reviewers"]}
            require(ruling["key"] in reviewers, "ruling by a stranger")
            self.by_identity(ruling, "ruling", reviewers[ruling["key"]])

    def check_release(self):
        release, destroyed = self.r["release"], self.r["destroyed"]
        self.signed(release, "release-statement", self.set_signs, "release")
        s = release["body"]
        require(s["jobId"] == self.job_id and s["manifest"] == self.manifest_hash, "release of another run")
        require(s["runStatement"] == record_hash("run-statement", self.r["runStatement"]["body"]), "run of the release")
        require(s["verdict"] == self.manifest["context"]["verdict"], "verdict")
        require(s["rulings"] == [record_hash("ruling", x["body"]) for x in self.r["rulings"]], "rulings")
        body = {n: s[n] for n in ("jobId", "runStatement", "manifest", "verdict", "decision", "reasons", "rulings", "charges")}
        body["holdNotice"] = record_hash("hold-notice", self.r["holdNotice"]["body"])
        entry = {"kind": "release", "time": s["time"], "body": body}
        require(entry == self.r["logEntry"], "log entry")
        self.check_log(entry, s["inclusion"])
        self.signed(destroyed, "destroyed-claim", self.r["evidence"]["node"]["key"], "destruction")
        require(destroyed["body"]["jobId"] == self.job_id, "destruction of another job")

    def check_log(self, entry, proof):
        """RFC 9162, section 2.1.3.2."""
        h = sha256(b"\0" + bytes.fromhex(proof["leafSalt"]) + jcs(entry).encode())
        fn, sn = proof["leafIndex"], proof["treeSize"] - 1
        require(0 <= fn <= sn, "leaf index")
        for step in proof["path"]:
            require(sn != 0, "path too long")
            if fn & 1 or fn == sn:
                h = sha256(b"\1" + bytes.fromhex(step) + h)
                while not fn & 1 and fn != 0:
                    fn, sn = fn >> 1, sn >> 1
            else:
                h = sha256(b"\1" + h + bytes.fromhex(step))
            fn, sn = fn >> 1, sn >> 1
        require(sn == 0 and h.hex() == proof["root"], "root")
        e = self.r["brokerEvidence"]
        self.signed(e, "broker-evidence", self.set_signs, "broker evidence")
        require((e["body"]["treeSize"], e["body"]["treeRoot"]) == (proof["treeSize"], proof["root"]), "another tree")
        require(e["body"]["nonce"] == self.job_id, "nonce of the broker's evidence")
        for c in self.r["cosignatures"]:
            require(c["key"] in self.r["set"]["charter"]["witnesses"], "not a witness")
            self.signed(c, "cosignature", c["key"], "cosignature")
            require((c["body"]["treeSize"], c["body"]["treeRoot"]) == (proof["treeSize"], proof["root"]), "cosigned tree")


def check(vectors, page):
    require(vectors["format"] == "gbx-record-vectors/1", "format")
    names = Names(page)
    for v in vectors["records"]:
        try:
            check_record(v, vectors["setId"], vectors["keys"])
            names.check(v["type"], v["body"], v["name"])
        except Wrong as e:
            raise Wrong("%s: %s" % (v["name"], e))
    require(vectors["refused"], "no signature that must be refused")
    for v in vectors["refused"]:
        check_refused(v, vectors)
    check_derived(vectors["derived"], vectors["records"])
    names.check("report-data", vectors["derived"]["reportData"], "reportData")
    receipt = vectors["receipt"]
    require(sha256(jcs(receipt).encode()).hex() == vectors["receiptSha256"], "hash of the receipt")
    require(Receipt(receipt, vectors["receiptSetId"]).check() == vectors["receiptJobId"], "job of the receipt")
    names.check("receipt", receipt, "receipt")
    names.finish()
    return len(vectors["records"])


def leaves(v, path=()):
    if isinstance(v, dict):
        for name in v:
            yield from leaves(v[name], path + (name,))
    elif isinstance(v, list):
        for i, e in enumerate(v):
            yield from leaves(e, path + (i,))
    else:
        yield path


def other_than(v):
    if isinstance(v, bool):
        return not v
    if isinstance(v, int):
        return v + 1
    middle = len(v) // 2
    return v[:middle] + ("0" if v[middle:middle + 1] != "0" else "1") + v[middle + 1:]


def check_that_it_refuses(vectors, page):
    """Every leaf of the receipt changed once, and one member of each record renamed: all of it must be noticed."""
    receipt = copy.deepcopy(vectors["receipt"])
    tried = 0
    for path in list(leaves(receipt)):
        at = receipt
        for step in path[:-1]:
            at = at[step]
        old = at[path[-1]]
        at[path[-1]] = other_than(old)
        try:
            Receipt(receipt, vectors["receiptSetId"]).check()
        except (Wrong, ValueError):
            tried += 1
        else:
            raise Wrong("%s was changed and nobody noticed" % ".".join(map(str, path)))
        at[path[-1]] = old
    require(tried > 300, "too few leaves")
    for name in ("identities", "versions", "policies", "leases", "rulings"):
        whole = vectors["receipt"][name]
        doubled, moved = whole + whole[-1:], whole[::-1]
        fewer = [whole[1:]] * (name != "leases")  # that one was needed is for who judges the policies
        for other in [doubled] + fewer + [moved] * (moved != whole):
            receipt[name] = other
            try:
                Receipt(receipt, vectors["receiptSetId"]).check()
            except (Wrong, ValueError):
                continue
            raise Wrong("%s: an entry was doubled, moved or left out and nobody noticed" % name)
        receipt[name] = whole
    for i, v in enumerate(vectors["records"]):
        other = copy.deepcopy(v)
        member = sorted(other["body"])[i % len(other["body"])]
        other["body"][member + "X"] = other["body"].pop(member)
        for refused in (lambda: check_record(other, vectors["setId"], vectors["keys"]),
                        lambda: Names(page).check(other["type"], other["body"], other["name"])):
            try:
                refused()
            except Wrong:
                continue
            raise Wrong("%s: %s was renamed and nobody noticed" % (v["name"], member))


def unique(pairs):
    require(len(dict(pairs)) == len(pairs), "a member twice")
    return dict(pairs)


def no_float(s):
    raise Wrong("a number that is no integer: " + s)


def main():
    root = os.path.dirname(os.path.dirname(HERE))
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "vectors.json")
    page = sys.argv[2] if len(sys.argv) > 2 else os.path.join(root, "docs", "formats", "records-v1.md")
    try:
        with open(path, encoding="utf-8") as f:
            vectors = json.load(f, object_pairs_hook=unique, parse_float=no_float, parse_constant=no_float)
        rows = read_page(page)
        check_types(page, vectors["records"])
        count = check(vectors, rows)
        check_that_it_refuses(vectors, rows)
    except Wrong as e:
        print("FAILED: %s" % e)
        return 1
    print("%d records, one receipt: canonical bytes, hashes, messages, signatures and names hold" % count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
