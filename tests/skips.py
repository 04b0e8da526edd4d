#!/usr/bin/python3
"""Fails when a GoogleTest of the last ctest run was skipped that must run here. Usage: tests/skips.py BUILD-DIRECTORY

As root, with /dev/fuse, crun, QEMU with its firmware, libnbd's programs, and the published evidence (GBX_VECTORS), on a plain build nothing may be skipped.
Where one of these or memfd_secret(2) is missing, or in a sanitized build, the skips that give exactly that as their reason are right, and
are printed.
"""
import ctypes
import os
import re
import shutil
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NOTHING = r"(?!)"  # matches no reason
SKIPPED = re.compile(r"^\[  SKIPPED \] (\S+) \(\d+ ms\)$")


def skipped_tests(log):
    """Yields (test, reason) of each test that was skipped."""
    reason = None
    for line in log.split("\n"):
        if line.startswith("[ RUN      ]"):
            reason = None
        elif line.endswith(": Skipped"):
            reason = []
        elif match := SKIPPED.match(line):
            yield match.group(1), " ".join(reason or ["without a reason"])
            reason = None
        elif reason is not None and line.strip():
            reason.append(line.strip())


def hides_secrets():
    """Whether the kernel has memfd_secret(2), of which Python knows no name."""
    descriptor = ctypes.CDLL(None).syscall(447, 0)
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


def allowed_here(sanitized):
    allowed = [NOTHING]
    if sanitized:
        allowed.append(r"\bsanitizers?\b")
    if os.geteuid() != 0:
        allowed.append(r"\broot\b")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        allowed.append(r"/dev/fuse\b")
    if shutil.which("crun") is None:
        allowed.append(r"\bcrun is not installed\b")
    if shutil.which("qemu-system-x86_64") is None or not os.path.exists("/usr/share/ovmf/OVMF.fd"):
        allowed.append(r"\bQEMU is not installed\b")
    if not os.path.isdir(os.path.join(ROOT, "build/peers/sev-snp-measure")):
        allowed.append(r"\bsev-snp-measure is not installed\b")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        allowed.append(r"/dev/kvm\b")
    if not os.environ.get("GBX_GUEST_KERNEL") and not os.path.exists("build/guest/kernel"):
        allowed.append(r"\bthe guest is not built\b")
    if not os.environ.get("GBX_SNP_FIRMWARE") and not os.path.exists("build/guest/firmware-snp.fd"):
        allowed.append(r"\bthe guest is not built for sev-snp\b")
    if not hides_secrets():
        allowed.append(r"\bthe kernel has no memfd_secret\b")
    if shutil.which("nbdinfo") is None:
        allowed.append(r"\blibnbd is not installed\b")
    vectors = os.environ.get("GBX_VECTORS") or os.path.join(ROOT, "../shared/vectors")
    if not os.path.isdir(os.path.join(vectors, "attestation")):
        allowed.append(r"\bGBX_VECTORS\b")
    return re.compile("|".join(allowed))


def unexcused(log, allowed):
    return [(test, reason) for test, reason in skipped_tests(log) if not allowed.search(reason)]


def self_test():
    log = ("[ RUN      ] A.NeedsRoot\na.cpp:1: Skipped\nneeds root to mount\n\n[  SKIPPED ] A.NeedsRoot (0 ms)\n"
           "[ RUN      ] B.Quiet\nb.cpp:2: Skipped\n\n[  SKIPPED ] B.Quiet (1 ms)\n"
           "[ RUN      ] C.Runs\n[       OK ] C.Runs (0 ms)\n"
           "[ RUN      ] D.Lazy\nd.cpp:3: Skipped\nnot today\n\n[  SKIPPED ] D.Lazy (2 ms)\n[  SKIPPED ] D.Lazy\n")
    late = [("B.Quiet", "without a reason"), ("D.Lazy", "not today")]
    for excuse, found in ((r"\broot\b", late), (NOTHING, [("A.NeedsRoot", "needs root to mount")] + late)):
        if unexcused(log, re.compile(excuse)) != found:
            sys.exit("skips: self-test: %r: %s" % (excuse, unexcused(log, re.compile(excuse))))


def main():
    self_test()
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n")[0])
    build = sys.argv[1]
    with open(os.path.join(build, "Testing/Temporary/LastTest.log"), encoding="utf-8", errors="replace") as f:
        log = f.read()
    if "[  PASSED  ]" not in log:
        sys.exit("skips: the log of the last run holds no GoogleTest")
    with open(os.path.join(build, "CMakeCache.txt"), encoding="utf-8") as f:
        sanitized = re.search(r"^GBX_(SANITIZE|TSAN):\w+=(ON|TRUE|1)$", f.read(), re.M) is not None
    every = list(skipped_tests(log))
    bad = unexcused(log, allowed_here(sanitized))
    for test, reason in every:
        print("skipped%s: %s: %s" % (" but must run here" if (test, reason) in bad else "", test, reason))
    print("skips: %d tests skipped, %d of them without excuse" % (len(every), len(bad)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
