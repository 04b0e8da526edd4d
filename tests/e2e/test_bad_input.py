"""Every argument of every command with what nobody should give it. The commands are those of docs/cli.md, which is made from the command
tree, so that a new one is tried without a word here: a clear error with a reason code and the next step, nothing written, nothing hung."""
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # starts no job that runs

IMAGE = "sha256:" + "a" * 64
SECTION = re.compile(r"^##+ `glovebox ([a-z -]+)`$")
ROW = re.compile(r"^\| `(--[a-z-]+|[A-Z]+)(?: ([A-Z:=]+))?` \| (.*) \|$")
# Headings and rows by the look of them alone: each must be one of the above.
LIKE_SECTION = re.compile(r"^#.*`glovebox ")
LIKE_ROW = re.compile(r"^\| `[-A-Z]")
NUMBERS = ("-1", "0x10", "1.5", "", "99999999999999999999", "1 ", "٣")
TEXTS = ("", "\x1b[31mred\x07", "x" * 100_000, "../../etc/passwd", "a\nb", "\u202eexe.txt", b"\xff\xfe")
# What a placeholder stands for; all others are texts.
FILES = ("FILE", "WHAT")
FOLDERS = ("DIR", "SOURCE", "LAYOUT")
INTEGERS = ("N", "SECONDS")
# A service that would run until it is stopped is tried with what it cannot take for good.
RUNS_ON = ("up",)
# What no command needs to refuse, and why: (how the arguments begin, whether the rest is such).
NO_MISTAKE = {
    "asset list": [(["--name"], lambda value: True)],                       # nothing has such a name
    "identity enrol": [(["--invite-file"], lambda value: True)],            # it is enrolled, and the token is not looked at
    "ledger limits": [([], lambda *rest: not rest)],                        # of all assets
    "ledger show": [([], lambda *rest: not rest)],
    "policy new": [(["--data"], lambda value: value.endswith("/given/data")),  # a folder with a CSV file
                   (["--purpose"], lambda value: value == "../../etc/passwd")],  # odd words, but words
}
up = h.Shared(h.Installation)
setUpModule, tearDownModule = up.hooks()


def commands():
    """(words, [(argument, placeholder, required)]) of every command that does something."""
    with open(os.path.join(h.ROOT, "docs/cli.md"), encoding="utf-8") as f:
        lines = f.read().split("\n")
    out, words = [], None
    for line in lines:
        section = SECTION.match(line)
        if section:
            words = section.group(1).split()
        elif LIKE_SECTION.match(line):
            raise ValueError("a heading that is not understood: " + line)
        if words and line.startswith("glovebox " + " ".join(words)) and (not out or out[-1][0] != words):
            out.append((words, []))
        row = ROW.match(line)
        if row and out and out[-1][0] == words:
            name, placeholder, meaning = row.groups()
            out[-1][1].append((name, placeholder or ("" if name.startswith("--") else name), "(required)" in meaning or name.isupper()))
        elif words and LIKE_ROW.match(line):
            raise ValueError("an argument that is not understood: " + line)
    return out


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.owner = h.Person(up, "owner", ["owner", "consumer", "reviewer"])
        d = os.path.join(up.dir, "given")
        os.makedirs(os.path.join(d, "data"))
        cls.policy = cls.owner.policy(os.path.join(d, "policy.yaml"), "dataset", IMAGE, up.facts["nodeKey"], cls.owner.id, ["/bin/true"])
        with open(os.path.join(d, "data", "rows.csv"), "w", encoding="utf-8") as f:
            f.write("a\n1\n")
        cls.owner.run("asset", "publish", os.path.join(d, "data"), "--name", "rows", "--policy", cls.policy)
        cls.spec = h.write_json(os.path.join(d, "job.json"), h.job_spec("x", ["/bin/true"], [h.metrics("n")], ["rows"]))
        cls.good = {"FILE": cls.policy, "DIR": os.path.join(d, "new"), "SOURCE": os.path.join(d, "data"), "LAYOUT": os.path.join(d, "data"),
                    "NAME": "other", "ASSET": "rows", "ID": "9" * 64, "SETID": "9" * 64, "N": "1", "SECONDS": "1", "WHAT": "rows",
                    "HOST:PORT": "127.0.0.1:1", "ROLE": "owner", "KEY": "ed25519:" + "9" * 64, "SHELL": "bash"}
        cls.files = cls.bad_files(d)
        cls.cwd = os.path.join(d, "cwd")
        os.makedirs(cls.cwd)

    @staticmethod
    def bad_files(d):
        def write(name, content):
            path = os.path.join(d, name)
            with open(path, "wb") as f:
                f.write(content)
            return path
        out = [os.path.join(d, "not-there"), os.path.join(d, "data"), os.path.join(d, "policy.yaml", "below"), "/dev/zero",
               write("empty", b""), write("noise", bytes(range(256)) * 300), write("deep", b"[" * 100_000), write("latin", b"name: \xe9\xe8"),
               write("twice", b'{"apiVersion": "glovebox/v1", "apiVersion": "glovebox/v1"}'), write("anchors", b"a: &a [1]\nb: *a\n"),
               write("escapes", b'{"\x1b[31m": 1}'), write("null", b"null"), write("list", b"[]"), write("float", b'{"apiVersion": 1.5}')]
        for name, make in (("pipe", os.mkfifo), ("loop", lambda p: os.symlink(p, p)), ("socket", lambda p: os.mknod(p, 0o140600))):
            make(os.path.join(d, name))
            out.append(os.path.join(d, name))
        with open(os.path.join(d, "huge"), "wb") as f:
            f.truncate(1 << 33)
        return [*out, os.path.join(d, "huge")]

    def values(self, words, argument, placeholder):
        if placeholder in INTEGERS:
            return NUMBERS
        if argument in ("--out", "--dir", "--svg"):  # what is there already is not written over
            return [p for p in self.files if not os.path.isdir(p) and os.path.lexists(p)]
        if placeholder == "SOURCE":  # any bytes are good ones
            return [p for p in self.files if not os.path.isfile(p) and not os.path.isdir(p)]
        if placeholder in FILES:  # a pipe is read to its end, for a shell makes one for <(command)
            return [p for p in self.files if not p.endswith("/pipe")]
        return self.files if placeholder in FOLDERS else TEXTS

    def cases(self):
        for words, arguments in commands():
            yield words, ["--no-such-option"]
            required = [a for a in arguments if a[2]]
            for name, placeholder, _ in arguments:
                if not placeholder or (words[0] in RUNS_ON and placeholder not in INTEGERS):
                    continue
                for value in self.values(words, name, placeholder):
                    line = []
                    for other, kind, _ in required:
                        if other != name:
                            line += ([other] if other.startswith("--") else []) + [self.value_for(words, kind)]
                    yield words, line + ([name] if name.startswith("--") else []) + ([] if name.startswith("--") else ["--"]) + [value]
            if required:
                yield words, []

    def value_for(self, words, placeholder):
        if placeholder == "FILE" and words[0] == "job":
            return self.spec
        return self.good.get(placeholder, "x")

    def tree(self):
        found = {}
        for root in (self.owner.home, self.cwd, os.path.dirname(self.policy)):
            for folder, folders, files in os.walk(root):
                for name in folders + files:
                    path = os.path.join(folder, name)
                    s = os.lstat(path)
                    found[path] = (s.st_mode, s.st_size if name in files else 0)
                    if os.path.isfile(path) and s.st_size < 1 << 20:
                        with open(path, "rb") as f:
                            found[path] += (f.read(),)
        return found

    @staticmethod
    def may_succeed(words, args):
        return any(args[:len(start)] == start and good(*args[len(start):]) for start, good in NO_MISTAKE.get(" ".join(words), []))

    def told(self, words, args):
        """What is wrong with how a command answers; empty: nothing."""
        line = [os.path.join(h.BIN, "glovebox"), "--home", self.owner.home, "-o", "json", *words, *args]
        shown = "%s %s" % (" ".join(words), [a[:40] for a in args])
        try:
            done = subprocess.run(line, capture_output=True, stdin=subprocess.DEVNULL, cwd=self.cwd, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return shown + ": hangs"
        if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", done.stdout + done.stderr) or b"\xe2\x80\xae" in done.stdout + done.stderr:
            return shown + ": a control character is passed on"
        if done.returncode == h.OK:
            return "" if self.may_succeed(words, args) else shown + ": succeeds"
        if done.returncode <= h.INTERNAL:
            return "%s: status %d\n%s" % (shown, done.returncode, done.stderr[-600:])
        try:
            text = done.stderr.decode()
            error = json.loads(text[text.index("{\n"):])["error"]
        except (ValueError, KeyError):
            return "%s: no error in JSON\n%s" % (shown, done.stderr[-600:])
        lacks = [k for k in ("reason", "what", "next") if not error.get(k)]
        if lacks or (done.stdout and words not in (["receipt", "verify"], ["doctor"])):  # which answer with verdicts
            return "%s: lacks %s, says %s\n%s" % (shown, lacks, done.stdout[:200], text[-600:])
        return ""

    def test_every_argument_of_every_command(self):
        cases = list(self.cases())
        with open(os.path.join(h.ROOT, "docs/cli.md"), encoding="utf-8") as f:
            named = set(re.findall(r"^#.*`glovebox ([^`]+)`", f.read(), re.M))
        groups = {n for n in named if any(other.startswith(n + " ") for other in named)}
        self.assertEqual({" ".join(words) for words, _ in cases}, named - groups)
        before = self.tree()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            wrong = [w for w in pool.map(lambda c: self.told(*c), cases) if w]
        self.assertFalse(wrong, "%d of %d:\n%s" % (len(wrong), len(cases), "\n".join(wrong)))
        after = self.tree()
        changed = [p for p in {**before, **after} if before.get(p) != after.get(p)]
        self.assertFalse(changed, "\n".join(changed))
        self.assertEqual([a["name"] for a in self.owner.run("asset", "list")["items"]], ["rows"])


if __name__ == "__main__":
    unittest.main()
