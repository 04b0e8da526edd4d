#!/usr/bin/python3
"""Checks of the source tree that a compiler does not make. Each rule has a reason; a violation prints its place.

A negative self-test runs first: every rule must fire on a small bad example, so that no rule rots in silence.
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# folder -> the folders whose headers it may include; the same lists stand in the CMake link lists.
ALLOWED = {
    "base": set(),
    "crypto": {"base"},
    "httpsig": {"base", "crypto"},
    "records": {"base", "crypto"},
    "machines": {"base", "crypto", "records"},
    "channel": {"base", "crypto", "records"},
    "translog": {"base", "crypto", "records"},
    "lease": {"base", "crypto", "records"},
    "policy": {"base", "crypto", "records", "lease", "translog"},
    "storage": {"base", "crypto"},
    "asset": {"base", "crypto", "records", "storage"},
    "decryptfs": {"base", "crypto", "records", "storage", "asset"},
    "oci": {"base", "crypto", "records"},
    "sandbox": {"base", "crypto", "records"},
    "gate": {"base", "crypto", "records", "asset"},
}
MIDDLE = {"base", "crypto", "records", "httpsig", "machines", "channel", "translog", "lease", "policy", "storage",
          "asset", "decryptfs", "oci", "sandbox", "gate"}
for program in ("broker", "plane", "node", "agent", "cli"):
    ALLOWED[program] = MIDDLE

# Direct calls that must go through the seams (base/seams.h, base/os.h), and the files that implement them.
BANNED = [
    (re.compile(r"\bstd::random_device\b|\bstd::mt19937|\bsrand\s*\(|[^_\w.>:]rand\s*\(\s*\)"), "randomness comes from Random (base/seams.h)"),
    (re.compile(r"\bsystem_clock::now|[^\w.>:]time\s*\(\s*(NULL|nullptr|0)\s*\)|\bgettimeofday\s*\("), "time comes from Clock (base/seams.h)"),
    (re.compile(r"\bgetrandom\s*\(|\bRAND_bytes\s*\("), "randomness comes from Random (base/seams.h)"),
    (re.compile(r"[^\w.>:]system\s*\(|\bpopen\s*\("), "processes start through spawn() (base/os.h)"),
    (re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"), "finish it, or say so in the issue"),
]
ALLOW_FILES = {"src/base/seams.cpp", "src/base/os.cpp"}
# GCC 12 destroys these temporaries twice.
CO_AWAIT = re.compile(r"co_await[^;]*(\[[&=\w, ]+\]\s*[({]|[A-Z]\w+\{)")
HEAVY = re.compile(r'#include\s*[<"](boost/(beast|asio/ssl)|openssl/ssl)')
INCLUDE = re.compile(r'#include\s*"([a-z]+)/([^"]*)"')
# The types of the plane's HTTPS API are what its one client outside tests, the command line, reads and writes.
EXCEPTIONS = {("cli", "plane", "api/types.h")}


def source_files():
    out = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "src", "fuzz", "bench", "tests"],
                         check=True, capture_output=True, text=True).stdout.split("\n")
    return [f for f in out if f.endswith((".cpp", ".h", ".c")) and os.path.exists(os.path.join(ROOT, f))]


def check_file(path, text):
    """Yields (line number, message) for one file."""
    parts = path.split("/")
    folder = parts[1] if parts[0] == "src" and len(parts) > 2 else None
    is_test = "_test" in parts[-1] or parts[0] in ("tests", "bench", "fuzz") or "testing" in parts[-1]
    if path.endswith(".h") and parts[0] == "src":
        if "#pragma once" not in text:
            yield 1, "header without #pragma once"
        if not text.startswith("//"):
            yield 1, "a header opens with what it is for"
    for number, line in enumerate(text.split("\n"), 1):
        code = line.split("//")[0] if "://" not in line else line
        if len(line) > 160:
            yield number, "line of %d columns" % len(line)
        if line.rstrip() != line:
            yield number, "trailing white space"
        match = INCLUDE.search(line)
        if match and folder in ALLOWED and not is_test:
            other = match.group(1)
            excepted = (folder, other, match.group(2)) in EXCEPTIONS
            if other != folder and other in ALLOWED and other not in ALLOWED[folder] and not excepted:
                yield number, "%s may not include %s (docs/architecture.md)" % (folder, other)
        if parts[0] == "src" and not is_test and path not in ALLOW_FILES:
            for pattern, why in BANNED:
                target = line if "TODO" in pattern.pattern else code
                if pattern.search(target):
                    yield number, why
        if CO_AWAIT.search(code):
            yield number, "only named objects inside a co_await expression (GCC 12)"


def self_test():
    bad = {
        "src/base/x.h": "int x;\n",
        "src/base/a.cpp": '#include "crypto/crypto.h"\n',
        "src/gate/b.cpp": "int f() { return rand(); }\n",
        "src/gate/c.cpp": "auto t = std::chrono::system_clock::now();\n",
        "src/gate/d.cpp": "// TO" + "DO later\n",
        "src/gate/e.cpp": "co_await f(Options{1});\n",
        "src/gate/f.cpp": "co_await f([this] { return 1; });\n",
        "src/gate/g.cpp": "int x; \n",
        "src/gate/h.cpp": "int r = system(\"ls\");\n",
        "src/gate/i.cpp": "x" * 161 + "\n",
    }
    for path, text in bad.items():
        if not list(check_file(path, text)):
            sys.exit("tidy self-test: no rule fires on %s" % path)


def main():
    self_test()
    problems = []
    heavy = []
    files = source_files()
    for path in files:
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            text = f.read()
        problems += ["%s:%d: %s" % (path, n, m) for n, m in check_file(path, text)]
        if HEAVY.search(text):
            heavy.append(path)
    if len(heavy) > 6:
        problems.append("Beast or SSL headers in more than six translation units: " + " ".join(heavy))
    for p in problems:
        print(p)
    print("tidy: %d files, %d problems" % (len(files), len(problems)))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
