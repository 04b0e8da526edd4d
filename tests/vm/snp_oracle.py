#!/usr/bin/python3
"""The launch digest of an SEV-SNP guest as IBM's sev-snp-measure computes it: the oracle of SnpOracle.*.

Usage: snp_oracle.py FIRMWARE VCPU-TYPE VCPUS FEATURES [KERNEL INITRD CMDLINE] | --types | --version
Exit status 77 where sev-snp-measure is not installed: scripts/setup test puts the pinned one into build/peers.
"""
import json
import os
import sys

PEERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "peers", "sev-snp-measure")
sys.path.insert(0, PEERS)
sys.dont_write_bytecode = True

try:
    from sevsnpmeasure import guest, vcpu_types
    from sevsnpmeasure.sev_mode import SevMode
except ImportError:
    sys.exit(77)


def main(arguments):
    if arguments == ["--version"]:
        return
    if arguments == ["--types"]:
        print(json.dumps(vcpu_types.CPU_SIGS))
        return
    firmware, kind, count, features = arguments[:4]
    kernel, initrd, cmdline = arguments[4:7] if len(arguments) == 7 else (None, None, None)
    digest = guest.calc_launch_digest(SevMode.SEV_SNP, int(count), vcpu_types.CPU_SIGS[kind], firmware, kernel,
                                      initrd, cmdline, int(features))
    print(digest.hex())


if __name__ == "__main__":
    main(sys.argv[1:])
