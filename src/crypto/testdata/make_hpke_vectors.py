#!/usr/bin/env python3
"""Writes hpke.json: HPKE base mode, X25519 / HKDF-SHA256 / AES-256-GCM, sequence number 0.

An independent peer for src/crypto/hpke.cpp, written from RFC 9180 over Python's `cryptography`. The
first case is published: it is the entry with mode 0, kem 0x0020, kdf 0x0001, aead 0x0002 of the CFRG
test-vectors.json that goes with RFC 9180 (appendix A.1 prints only the AES-128-GCM variant). The script
stops unless it reproduces that entry byte for byte, so that the other cases stand on it.

    python3 make_hpke_vectors.py > hpke.json
"""
import hashlib
import hmac
import json

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEM = b"KEM" + bytes.fromhex("0020")
SUITE = b"HPKE" + bytes.fromhex("002000010002")
PUBLISHED = {
    "name": "cfrg-test-vectors",
    "info": "4f6465206f6e2061204772656369616e2055726e",
    "recipient_private": "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d",
    "recipient_public": "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c",
    "ephemeral_private": "179d4b53b6365c45b600c4163b61d95cbc2f4d9e36f1695558dce265ab8bab11",
    "aad": "436f756e742d30",
    "plaintext": "4265617574792069732074727574682c20747275746820626561757479",
    "sealed": "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256"
              "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be99319"
              "80a41de125a925cdad859d5b7a",
}
PUBLISHED_KEY = "f50b0609186798729ed0564b36ef2ef8044f1f9d05636874d1f46c819c7a669f"
PUBLISHED_NONCE = "151d9929e2449747889bc923"


def extract(suite, salt, label, ikm):
    return hmac.new(salt, b"HPKE-v1" + suite + label + ikm, hashlib.sha256).digest()


def expand(suite, prk, label, info, size):
    labeled = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    out, block = b"", b""
    counter = 1
    while len(out) < size:
        block = hmac.new(prk, block + labeled + bytes([counter]), hashlib.sha256).digest()
        out += block
        counter += 1
    return out[:size]


def schedule(ephemeral, recipient, info):
    enc = ephemeral.public_key().public_bytes_raw()
    dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    shared = expand(KEM, extract(KEM, b"", b"eae_prk", dh), b"shared_secret", enc + recipient, 32)
    context = b"\0" + extract(SUITE, b"", b"psk_id_hash", b"") + extract(SUITE, b"", b"info_hash", info)
    secret = extract(SUITE, shared, b"secret", b"")
    key = expand(SUITE, secret, b"key", context, 32)
    return enc, key, expand(SUITE, secret, b"base_nonce", context, 12)


def case(name, info, recipient_private, ephemeral_private, aad, plaintext):
    recipient = X25519PrivateKey.from_private_bytes(recipient_private)
    ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_private)
    public = recipient.public_key().public_bytes_raw()
    enc, key, nonce = schedule(ephemeral, public, info)
    values = {
        "info": info, "recipient_private": recipient_private, "recipient_public": public,
        "ephemeral_private": ephemeral_private, "aad": aad, "plaintext": plaintext,
        "sealed": enc + AESGCM(key).encrypt(nonce, plaintext, aad),
    }
    return {"name": name, **{k: v.hex() for k, v in values.items()}}, key, nonce


def derived(label):
    return hashlib.sha256(b"gbx/test/hpke/" + label.encode()).digest()


def main():
    inputs = [bytes.fromhex(PUBLISHED[k]) for k in
              ("info", "recipient_private", "ephemeral_private", "aad", "plaintext")]
    first, key, nonce = case(PUBLISHED["name"], *inputs)
    assert first == PUBLISHED and key.hex() == PUBLISHED_KEY and nonce.hex() == PUBLISHED_NONCE
    cases = [first]
    for name, info, aad, plaintext in [
        ("protocol-info", b"gbx/1/hpke", b"associated", derived("key")),
        ("empty-plaintext", b"gbx/1/hpke", b"associated", b""),
        ("empty-aad", b"gbx/1/hpke", b"", b"text"),
        ("empty-info", b"", b"associated", b"text"),
        ("all-empty", b"", b"", b""),
        ("long", b"i" * 300, b"a" * 1000, bytes(i % 251 for i in range(1000))),
    ]:
        cases.append(case(name, info, derived(name + "/r"), derived(name + "/e"), aad, plaintext)[0])
    print(json.dumps({"cases": cases}, indent=1))


main()
