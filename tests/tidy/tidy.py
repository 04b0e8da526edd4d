#!/usr/bin/python3
"""Checks of the source tree that a compiler does not make. Each rule has a reason; a violation prints its place.

A negative self-test runs first: every rule must fire on a small bad example, so that no rule rots in silence.
"""
import os
import re
import shutil
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
    "attest": {"base", "crypto", "records", "channel"},
    "translog": {"base", "crypto", "records"},
    "lease": {"base", "crypto", "records"},
    "policy": {"base", "crypto", "records", "lease", "translog"},
    "storage": {"base", "crypto"},
    "asset": {"base", "crypto", "records", "storage"},
    "vm": {"base", "crypto", "records", "attest", "storage", "asset"},
    "decryptfs": {"base", "crypto", "records", "storage", "asset"},
    "oci": {"base", "crypto", "records"},
    "sandbox": {"base", "crypto", "records"},
    "gate": {"base", "crypto", "records", "asset"},
    "capacity": {"base", "crypto", "records", "policy", "gate"},
}
MIDDLE = {"base", "crypto", "records", "httpsig", "machines", "channel", "attest", "translog", "lease", "policy", "storage",
          "asset", "vm", "decryptfs", "oci", "sandbox", "gate", "capacity"}
for program in ("broker", "plane", "node", "agent", "simtee", "cli"):
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


def is_test_code(path):
    return not path.startswith("src/") or "_test" in path or "testing" in path


def check_file(path, text):
    """Yields (line number, message) for one file."""
    parts = path.split("/")
    folder = parts[1] if parts[0] == "src" and len(parts) > 2 else None
    is_test = is_test_code(path)
    if path.endswith(".h") and parts[0] == "src":
        if "#pragma once" not in text:
            yield 1, "header without #pragma once"
        if not text.startswith("//"):
            yield 1, "a header opens with what it is for"
    for number, line in enumerate(text.split("\n"), 1):
        code = line.split("//")[0] if "://" not in line else line
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


# ---- the form of the text ----
RAW_STRING = re.compile(r'R"(\w*)\(.*?\)\1"', re.S)
STRING = re.compile(r'"(?:\\.|[^"\\])*"')
COLUMNS = 100  # strings may pass it: clang-format breaks them where it can
LINES = 70     # of a function; one closed list may be longer and says so above
OPENS = re.compile(r"^( {0,4})(?![ /}#])\S.*\{$")
NO_FUNCTION = re.compile(r"^\s*(namespace|class|struct|enum|union|if|for|while|switch|do|return|extern)\b")
BARE = re.compile(r"^\s*(\} )?(else )?(if|for|while)( constexpr)? \(.*\)$|^\s*(\} )?else$")


def without_strings(text):
    """The same lines; what stands in string literals is gone."""
    text = RAW_STRING.sub(lambda m: '""' + "\n" * m.group(0).count("\n"), text)
    return [STRING.sub('""', line) for line in text.split("\n")]


def check_form(path, text):
    lines = without_strings(text)
    is_test = is_test_code(path)
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS:
            yield number, "line of %d columns" % len(line)
        code = line.split("//")[0].rstrip()
        if BARE.match(code) and not lines[number - 2].endswith("\\") and code.count("(") == code.count(")"):
            yield number, "a body on a line of its own has braces"
        opens = OPENS.match(line)
        head = "".join(lines[max(0, number - 5):number])
        if is_test or not opens or NO_FUNCTION.match(line) or "=" in line.split("(")[0] or "(" not in head:
            continue
        end = next((n for n in range(number, len(lines)) if lines[n].startswith(opens.group(1) + "}")), len(lines))
        if end - number + 2 > LINES and "more than %d lines" % LINES not in lines[number - 2]:
            yield number, "function of %d lines" % (end - number + 2)


def check_format(files, fix):
    """clang-format's own words about every file."""
    tool = "clang-format-14"
    if not shutil.which(tool):
        yield "%s is not installed: scripts/setup test" % tool
        return
    if fix:
        subprocess.run([tool, "-i"] + files, cwd=ROOT, check=True)
        return
    out = subprocess.run([tool, "--dry-run", "--Werror"] + files, cwd=ROOT, capture_output=True, text=True)
    places = re.findall(r"^(\S+:\d+):\d+: error:", out.stderr, re.M)
    yield from ("%s: not as clang-format has it (scripts/lint --fix)" % place for place in places)
    if out.returncode != 0 and not places:
        yield "%s: %s" % (tool, out.stderr.strip()[:500])


# ---- what the documents say that tests enforce ----
CITING = ("docs/threat-model.md", "docs/specification.md", "docs/hostile.md")
MACRO = re.compile(r"^(?:TYPED_)?(?:TEST|TEST_F|TEST_P|RC_GTEST_PROP|RC_GTEST_FIXTURE_PROP)\(\s*(\w+),\s*(\w+)", re.M)
CLASS = re.compile(r"^class (\w+)\(", re.M)
METHOD = re.compile(r"^    def (test_\w+)\(", re.M)
TARGET = re.compile(r"^gbx_test\((\w+)", re.M)


def known_tests(files):
    """Names that documents may cite, from (path, text) pairs: Suite, Suite.Test, targets, classes of tests/e2e."""
    names = set()
    for path, text in files:
        if path.endswith("CMakeLists.txt"):
            names.update(TARGET.findall(text))
        elif path.startswith("tests/e2e/") and path.endswith(".py"):
            for body in re.split(r"^(?=class )", text, flags=re.M):
                for name in CLASS.findall(body):
                    names.update(["e2e " + name] + ["e2e %s.%s" % (name, method) for method in METHOD.findall(body)])
        else:
            for suite, test in MACRO.findall(text):
                names.update([suite, suite + "." + test])
    return names


def check_citations(path, text, names, exists):
    """Every `Suite.Test`, `Suite.*`, e2e `Class`, `some_test` and test file that a document cites is there."""
    for number, line in enumerate(text.split("\n"), 1):
        end_to_end = 0  # behind "e2e" a list of its classes may follow
        for match in re.finditer(r"`([^`]+)`", line):
            word = match.group(1)
            between = line[end_to_end:match.start()]
            after_e2e = re.search(r"e2e $", between) or (end_to_end and re.fullmatch(r",? ?(and )?", between))
            end_to_end = match.end() if after_e2e else 0
            if re.fullmatch(r"[A-Z]\w*\.(\*|\w+)", word) or (after_e2e and re.fullmatch(r"[A-Z]\w*", word)):
                bare = word[:-2] if word.endswith(".*") else word
                if bare not in names and "e2e " + bare not in names:
                    yield number, "%s cites a test that is not there: %s" % (path, word)
            elif re.fullmatch(r"[a-z_]+_test", word) and word not in names:
                yield number, "%s cites a test that is not there: %s" % (path, word)
            elif re.fullmatch(r"(tests|src)/[\w/.-]+|\w+_test\.cpp", word) and not exists(word):
                yield number, "%s cites a file that is not there: %s" % (path, word)


def test_sources():
    out = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "src", "tests"],
                         check=True, capture_output=True, text=True).stdout.split("\n")
    paths = sorted({p for p in out if p and os.path.exists(os.path.join(ROOT, p))})
    for path in paths:
        wanted = path.endswith(("CMakeLists.txt", ".cpp", ".h")) or (path.startswith("tests/e2e/") and path.endswith(".py"))
        if wanted:
            with open(os.path.join(ROOT, path), encoding="utf-8") as f:
                yield path, f.read()


def citations():
    sources = list(test_sources())
    files = {os.path.basename(path) for path, _ in sources}
    names = known_tests(sources)
    for path in CITING:
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            text = f.read()
        found = check_citations(path, text, names, lambda word: word in files or os.path.exists(os.path.join(ROOT, word)))
        yield from ("%s:%d: %s" % (path, n, m) for n, m in found)


def citations_self_test():
    names = known_tests([("src/a_test.cpp", "TEST(Suite, One) {\nTEST_P(Many, Two) {\n"), ("src/CMakeLists.txt", "gbx_test(a_test\n"),
                         ("tests/e2e/test_a.py", "class Way(Case):\n    def test_x(self):\n")])
    good = "`Suite.One`, `Many.*`, `a_test`, e2e `Way`, `Way.test_x`; `src/a.cpp`, `Sealed`"
    if list(check_citations("d", good, names, lambda w: True)):
        sys.exit("tidy self-test: a citation that holds is refused")
    for bad in ("`Suite.Two`", "`None.*`", "e2e `Suit`", "e2e `Way`, `Sealed`", "e2e `Way.test_y`", "`b_test`", "`tests/none`", "`b_test.cpp`"):
        if not list(check_citations("d", bad, names, lambda w: False)):
            sys.exit("tidy self-test: no rule fires on the citation %s" % bad)


# ---- what a reader of the formats has to know ----
LABEL = re.compile(r'"((?:EXPORTER-)?gbx(?:-\w+)?/1(?:/[a-z-]+)?)(?:\\0)?"')
LABELS_PAGE = "docs/formats/records-v1.md"


def check_labels(path, text, page):
    """Every label that is hashed, signed or sealed with stands on the page of the formats."""
    for number, line in enumerate(text.split("\n"), 1):
        for label in LABEL.findall(line.split("//")[0]):
            if "`%s`" % label not in page:
                yield number, "%s names no label %s" % (LABELS_PAGE, label)


def labels(files):
    with open(os.path.join(ROOT, LABELS_PAGE), encoding="utf-8") as f:
        page = f.read()
    for path in files:
        if path.startswith("src/") and "_test" not in path and "testing" not in path:
            with open(os.path.join(ROOT, path), encoding="utf-8") as f:
                found = check_labels(path, f.read(), page)
            yield from ("%s:%d: %s" % (path, n, m) for n, m in found)


def labels_self_test():
    page = "`gbx/1/a`, `gbx-key/1`"
    if list(check_labels("x", 'f("gbx/1/a"); g("gbx-key/1"); h("gbx/1/a\\0");', page)):
        sys.exit("tidy self-test: a label that is named is refused")
    for bad in ('"gbx/1/b"', '"EXPORTER-gbx/1/a"', '"gbx-other/1"', '"gbx/1/b\\0"'):
        if not list(check_labels("x", bad, page)):
            sys.exit("tidy self-test: no rule fires on the label %s" % bad)


# ---- the page of limits ----
LIMITS_PAGE = "docs/limits.md"
LIMIT_ROW = re.compile(r"^\|(?:[^|]*\|){2} *([\d,]+)((?: \w+)*) *\|.*`([\w/.]+):([\w.]+)` *\|$")
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "TiB": 1 << 40, "s": 1, "min": 60, "h": 3600}
NUMBER = re.compile(r"[\d'][\d'UL]*(?:\s*(?:<<|\*)\s*[\d'][\d'UL]*)*")


def constants(text, name):
    """The values that `name` is given; `a.b`: member b of a braced a."""
    owner, _, member = name.rpartition(".")
    if owner:
        braced = re.findall(r"\b%s\{[^}]*\}" % re.escape(owner), text)
        text = "".join(braced) + "".join(re.findall(r"\b%s\.(%s = .*\n)" % (re.escape(owner), re.escape(member)), text))
    text = re.sub(r"std::u?int64_t\{(\d+)\}", r"\1", text)
    for found in re.finditer(r"(?<![\w.]\.)\b%s = (%s)" % (re.escape(member), NUMBER.pattern), text):
        terms = re.split(r"\s*(<<|\*)\s*", re.sub("['UL]", "", found.group(1)))
        value = int(terms[0])
        for operator, term in zip(terms[1::2], terms[2::2]):
            value = value << int(term) if operator == "<<" else value * int(term)
        yield value


def check_limits(page, read):
    """Each row's value is the constant's that it names; a row of a table that names none is no row of limits."""
    for number, line in enumerate(page.split("\n"), 1):
        if not line.startswith("|") or line.startswith(("|--", "| of |")):
            continue
        row = LIMIT_ROW.match(line)
        if not row:
            yield number, "a row without a value or the constant that says so"
            continue
        value, unit, path, name = row.groups()
        factor = UNITS.get(unit.split()[0], 1) if unit else 1
        if name.endswith(("_ms", "Ms")):
            factor *= 1000
        found = list(constants(read(path), name))
        if int(value.replace(",", "")) * factor not in found[:1]:
            yield number, "%s:%s is %s" % (path, name, found[0] if found else "not there")


def limits():
    def read(path):
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            return f.read()
    yield from ("%s:%d: %s" % (LIMITS_PAGE, n, m) for n, m in check_limits(read(LIMITS_PAGE), read))


def limits_self_test():
    source = "int most = 1'000;\nsize_t bytes = 16U << 10;\nx wait_ms = 10'000;\nL requests{.burst = 7, .most = 3};\nlimits.frames = 16;\n"
    rows = {"| a | b | %s | c | `f:%s` |" % r: r for r in
            (("1,000", "most"), ("16 KiB", "bytes"), ("10 s", "wait_ms"), ("3", "requests.most"), ("7", "requests.burst"),
             ("16", "limits.frames"))}
    if list(check_limits("\n".join(rows), lambda path: source)):
        sys.exit("tidy self-test: a limit that holds is refused")
    for bad in ("| a | b | 999 | c | `f:most` |", "| a | b | 16 MiB | c | `f:bytes` |", "| a | b | 10 | c | `f:gone` |",
                "| a | b | many | c | `f:most` |", "| a | b | 3 | c | `f:requests.burst` |"):
        if not list(check_limits(bad, lambda path: source)):
            sys.exit("tidy self-test: no rule fires on the limit %s" % bad)


# ---- what reads strangers' bytes ----
# Who reads bytes or JSON by hand -> the fuzz target that runs it, or why there is none.
READERS = {
    "src/cli/up_environment.cpp": "one member of a file of root's own, that up itself wrote",
    "src/agent/ipc.cpp": "whole packets, of a worker that may be hostile: TakenOver.*; the documents inside: programs_json",
    "src/asset/format.cpp": "asset_format", "src/asset/journal.cpp": "asset_journal",
    "src/attest/appraise.cpp": "records_json", "src/attest/attester.cpp": "tdx_quote", "src/attest/tdx/event_log.cpp": "tdx_event_log", "src/attest/tdx/quote.cpp": "tdx_quote",
    "src/base/fields.h": "records_json", "src/base/json_count.h": "records_json", "src/records/value_limits.h": "records_json",
    "src/base/json.cpp": "records_json", "src/base/json.h": "records_json",
    "src/broker/custody.cpp": "nothing is read before the tag of the passphrase's key holds",
    "src/broker/log.cpp": "broker_log",
    "src/channel/mux.cpp": "channel_frames", "src/channel/rpc.cpp": "channel_frames",
    "src/cli/home.cpp": "cli_files", "src/cli/policy_commands.cpp": "cli_files", "src/cli/policy_interview.cpp": "cli_files",
    "src/cli/http/client.cpp": "programs_json", "src/cli/yaml.cpp": "yaml",
    "src/gate/gate.cpp": "gate_bundle", "src/gate/release.cpp": "gate_bundle",
    "src/oci/layout.cpp": "oci_json",
    "src/plane/store/sqlite_store.cpp": "what the plane wrote itself, as records that it read before",
    "src/records/sealing.cpp": "sealed_plain",
    "src/storage/volume_format.cpp": "volume",
    "src/vm/nbd.cpp": "nbd",
    "src/vm/qemu.cpp": "options that this program made itself",
    "src/vm/measure/boot_volume.cpp": "vm_measure", "src/vm/measure/linux_image.cpp": "vm_measure",
    "src/vm/measure/ovmf.cpp": "vm_measure", "src/vm/measure/tdx.cpp": "vm_measure",
    "src/sandbox/controls.cpp": "the configuration that the sandbox wrote itself",
}
# Records that no stranger writes, and why.
OWN_RECORDS = {
    "Request": "channel_frames", "Response": "channel_frames", "WireError": "channel_frames", "ErrorBody": "http_signing",
    "BundleStatus": "gate_bundle", "PolicyDocument": "cli_files", "Clauses": "cli_files",
    "KeyEntry": "as its two kinds", "Head": "the plane's own store", "Ready": "a child's, started by `up`",
    "FirstInvites": "the operator's file",
}
OWN_FOLDERS = {  # records of these files stay within one program and its own folder
    "src/plane/core/bodies.h", "src/plane/service/server.cpp", "src/plane/main.cpp", "src/plane/core/core.cpp",
    "src/cli/home.cpp", "src/cli/home.h", "src/cli/up.cpp", "src/cli/publishing.cpp", "src/cli/setup_commands.cpp", "src/cli/shown.cpp",
    "src/base/ready.cpp", "src/oci/confined.cpp",
}
READS_BYTES = re.compile(r"\bByteReader\b|\bparse_json\(")
READS_RECORD = re.compile(r"\b(?:from_json|from_json_text|read_json_body)<((?:[\w:]+)(?:<[\w:]+>)?)>\(")
METHOD_LINE = re.compile(r"(?:^// (.*)\n)?^inline constexpr std::string_view k\w+ = \"[\w.-]+\";(?: *// (.*))?", re.M)
DOCUMENT = re.compile(r"^  GBX_DOCUMENT\(([\w:]+)\)", re.M)


def bare(name):
    """`records::Signed<records::Lease>` is read as `Lease` is."""
    inside = re.fullmatch(r"(?:\w+::)*Signed<(.*)>", name)
    return (inside.group(1) if inside else name).rpartition("::")[2]


def records_read(path, text):
    """(line, record) for each record that a file reads, or that a signed record or a method of it is."""
    for number, line in enumerate(text.split("\n"), 1):
        for name in READS_RECORD.findall(line.split("//")[0]):
            yield number, bare(name)
    for match in re.finditer(r"^struct (\w+)[^{]*\{\n  static constexpr std::string_view k(?:Type|Kind) =", text, re.M):
        yield text[:match.start()].count("\n") + 1, match.group(1)
    for match in METHOD_LINE.finditer(text) if path.endswith(".h") and "namespace method {" in text else ():
        said = " ".join(part for part in match.groups() if part and "->" in part)
        for name in re.findall(r"\b[A-Z]\w+[a-z](?:<\w+>)?", said):
            yield text[:match.end()].count("\n") + 1, bare(name)


def check_readers(path, text, targets, documents, own):
    if READS_BYTES.search(text) and path not in ("src/base/bytes.h", "src/base/bytes.cpp"):
        reader = READERS.get(path)
        if reader is None:
            yield 1, "reads bytes or JSON: name its fuzz target in tests/tidy/tidy.py (READERS)"
        elif " " not in reader and reader not in targets:
            yield 1, "its fuzz target %s is not in fuzz/CMakeLists.txt" % reader
    for number, name in records_read(path, text):
        if len(name) > 1 and name not in documents and name not in own and name not in ("Reply", "Record", "Body"):
            yield number, "%s is read and in no list of fuzz/*_documents.h" % name


def readers(files):
    def read(path):
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            return f.read()
    targets = set(re.findall(r"^gbx_fuzz\((\w+)", read("fuzz/CMakeLists.txt"), re.M))
    documents = {bare(name) for page in ("fuzz/record_documents.h", "fuzz/program_documents.h") for name in DOCUMENT.findall(read(page))}
    own = set(OWN_RECORDS).union(*(re.findall(r"^ *struct (\w+)", read(p), re.M) for p in OWN_FOLDERS))
    for path in files:
        if path.startswith("src/") and not is_test_code(path):
            yield from ("%s:%d: %s" % (path, n, m) for n, m in check_readers(path, read(path), targets, documents, own))
    for name in documents:
        found = [f for f in os.listdir(os.path.join(ROOT, "fuzz/corpus/records_json")) + os.listdir(os.path.join(ROOT, "fuzz/corpus/programs_json"))
                 if f == name + "_full"]
        if not found:
            yield "fuzz/corpus: no seed of %s (scripts/fuzz --seeds)" % name


def readers_self_test():
    method = 'namespace method {\n// Ask -> Signed<Answer>; idempotent\ninline constexpr std::string_view kAsk = "x.ask-more";\n}\n'
    good = {"src/asset/journal.cpp": "ByteReader r(x);", "src/a.cpp": "from_json<records::Signed<api::Known>>(x)", "src/records/any.h": method}
    for path, text in good.items():
        if list(check_readers(path, text, {"asset_journal"}, {"Known", "Ask", "Answer"}, set())):
            sys.exit("tidy self-test: a reader that is fuzzed is refused: " + path)
    bad = {"src/new.cpp": "ByteReader r(x);", "src/asset/journal.cpp": "parse_json(x)", "src/a.cpp": "from_json_text<records::Unknown>(x)",
           "src/b.h": 'struct New {\n  static constexpr std::string_view kType = "new";\n', "src/records/any.h": method}
    for path, text in bad.items():
        if not list(check_readers(path, text, set(), {"Ask"}, set())):
            sys.exit("tidy self-test: no rule fires on the reader " + path)


def self_test():
    citations_self_test()
    labels_self_test()
    limits_self_test()
    readers_self_test()
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
        "src/gate/i.cpp": "x" * 101 + "\n",
        "src/gate/j.cpp": "int f() {\n" + "  g();\n" * 69 + "}\n",
        "src/gate/k.cpp": "  if (a)\n    b();\n",
    }
    for path, text in bad.items():
        if not list(check_file(path, text)) + list(check_form(path, text)):
            sys.exit("tidy self-test: no rule fires on %s" % path)
    good = '  f("%s");\nconst char* t = R"(\nif (x)\n  y\n)";\nint f() {\n%s}\n' % ("x" * 101, "  g();\n" * 68)
    if list(check_form("src/gate/l.cpp", good)):
        sys.exit("tidy self-test: good form is refused")


def main():
    self_test()
    problems = []
    heavy = []
    files = source_files()
    problems += check_format(files, "--fix" in sys.argv[1:])
    for path in files:
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            text = f.read()
        problems += ["%s:%d: %s" % (path, n, m) for check in (check_file, check_form) for n, m in check(path, text)]
        if HEAVY.search(text):
            heavy.append(path)
    problems += citations()
    problems += labels(files)
    problems += limits()
    problems += readers(files)
    if len(heavy) > 6:
        problems.append("Beast or SSL headers in more than six translation units: " + " ".join(heavy))
    for p in problems:
        print(p)
    print("tidy: %d files, %d problems" % (len(files), len(problems)))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
