"""The guides' commands, word for word, in the order in which two people and an auditor would give them.

Every `sh` block of the three guides is run exactly once, in a shell of the person whom the guide is for, against a fresh
installation. Words in capitals are what the guides ask the reader to fill in. One thing is not word for word: decisions
fall at once instead of on the quarter of an hour.
"""
import os
import re
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

GUIDES = {"owner": "docs/guide-owner.md", "consumer": "docs/guide-consumer.md", "auditor": "docs/guide-auditor.md"}
# Who gives which block when: guide, its section, and how many of that section's blocks.
SCHEDULE = [("consumer", "1", 1), ("consumer", "2", 1), ("owner", "1", 1), ("owner", "2", 1), ("owner", "3", 1), ("owner", "4", 1),
            ("owner", "5", 1), ("consumer", "2", 1), ("consumer", "3", 2), ("consumer", "4", 1), ("auditor", "1", 2),
            ("auditor", "2", 1), ("owner", "6", 2)]
HEX = r"\b[0-9a-f]{64}\b"
# What a reader copies from the screen: (guide, section, how often it was run) -> word, pattern.
COPIED = {("consumer", "1"): ("ENGINEER", HEX), ("consumer", "2"): ("DIGEST", "sha256:[0-9a-f]{64}"),
          ("owner", "1"): ("HOSPITAL", HEX), ("owner", "2"): ("NODE", HEX), ("consumer", "3"): ("JOB", HEX)}


def blocks(path, language="sh"):
    """(number of the section, text) of every block in that language."""
    found = []
    section = ""
    with open(os.path.join(h.ROOT, path), encoding="utf-8") as f:
        lines = iter(f.read().splitlines())
    for line in lines:
        heading = re.match(r"## (\d+)?", line)
        if heading:
            section = heading.group(1) or ""
        if line == "```" + language:
            text = []
            for inner in lines:
                if inner == "```":
                    break
                text.append(inner)
            found.append((section, "\n".join(text)))
    return found


def run_block(case, folder, words, text):
    """Gives one block in that home; what the shell wrote."""
    for word, value in words.items():
        text = re.sub(r"\b%s\b" % word, value, text)
    case.assertIsNone(re.search(r"\b[A-Z]{3,}\b", text), "a word that nobody explained: " + text)
    env = {"PATH": h.BIN + ":/usr/bin:/bin", "HOME": folder}
    done = subprocess.run(["/bin/bash", "-euo", "pipefail", "-c", text], cwd=folder, env=env, timeout=300,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    case.assertEqual(done.returncode, 0, "a block failed in %s:\n%s\n%s" % (folder, text, done.stdout))
    return done.stdout


class Guides(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.layout, _ = h.image("study-image")
        cls.up = h.Installation()
        facts = cls.up.facts
        cls.words = {"ADDRESS": facts["plane"], "CA": facts["ca"], "SETID": facts["setId"]}
        if facts["simRoot"]:  # as the operator tells them
            cls.words.update(SIMROOT=facts["simRoot"], RELEASE=facts["release"])
        operator = h.Person(cls.up, "operator", ["operator"], facts["operatorInvite"])
        cls.invites = {person: facts["invite"] for person in GUIDES}
        cls.invites["auditor"] = os.path.join(cls.up.dir, "auditor-invite")
        operator.run("identity", "invite", "--role", "auditor", "--out", cls.invites["auditor"])
        cls.folders = {}
        for person in GUIDES:
            folder = cls.folders[person] = os.path.join(cls.up.dir, person)
            os.makedirs(os.path.join(folder, "offline"))
        subprocess.run([os.path.join(h.ROOT, "examples/breast-cancer/get-data"), os.path.join(cls.folders["owner"], "data")],
                       check=True, stdout=subprocess.DEVNULL)
        os.symlink(cls.layout, os.path.join(cls.folders["consumer"], "study-image"))
        shutil.copy(os.path.join(h.ROOT, "examples/breast-cancer/job.yaml"), cls.folders["consumer"])

    @classmethod
    def tearDownClass(cls):
        cls.up.close()

    def give(self, person, text):
        """Runs one block as that person; what the shell wrote."""
        words = dict(self.words, OFFLINE=os.path.join(self.folders[person], "offline"), INVITE=self.invites[person])
        text = text.replace("--release-slot 900", "--release-slot 0")
        if self.up.environment == "local":  # what the guides say of nodes without machines
            text = text.replace("--allow-sim SIMROOT --release RELEASE", "--allow-none-node NODE")
        return run_block(self, self.folders[person], words, text)

    def copy_words(self, person, section, output):
        word, pattern = COPIED.get((person, section), (None, None))
        if word is None or word in self.words:
            return
        found = [text for text in re.findall(pattern, output) if text not in self.words.values()]
        self.assertTrue(found, "%s is not on the screen:\n%s" % (word, output))
        self.words[word] = found[0]

    def test_every_block_in_order(self):
        waiting = {person: blocks(path) for person, path in GUIDES.items()}
        said = {}
        for person, section, count in SCHEDULE:
            for _ in range(count):
                index = next(i for i, b in enumerate(waiting[person]) if b[0] == section)
                text = waiting[person].pop(index)[1]
                if person == "auditor" and section == "1":
                    shutil.copy(os.path.join(self.folders["consumer"], "receipt.json"), self.folders[person])
                output = self.give(person, text)
                said[person, section] = said.get((person, section), "") + output
                if not (person == "consumer" and section == "3" and "JOB" not in self.words and "submit" not in text):
                    self.copy_words(person, section, output)
        self.assertEqual({p: b for p, b in waiting.items() if b}, {}, "blocks that no step of the schedule runs")
        self.assertNotIn("NO JOB CAN RUN", said["owner", "3"] + said["consumer", "2"])
        self.assertIn("paging", said["consumer", "3"])  # what only the receipt can name for certain
        self.assertTrue(os.path.exists(os.path.join(self.folders["consumer"], "results", "metrics.json")))
        self.assertIn("VALID", said["auditor", "1"])
        self.assertIn("revoked wdbc@1", said["owner", "6"])

    def test_the_reference_pages_examples_are_valid(self):
        folder = self.folders["auditor"]
        for page, name, command in (("docs/jobspec.md", "spec.yaml", "job validate"), ("docs/policy.md", "p.yaml", "policy explain")):
            found = blocks(page, "yaml")
            self.assertEqual(len(found), 1, page)
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                f.write(found[0][1])
            output = self.give("auditor", "glovebox %s %s" % (command, name))
            self.assertNotIn("NO JOB", output)

    def test_an_installation_is_whole(self):
        """`cmake --install`: every program beside the others, with manual pages and completions."""
        target = os.path.join(self.up.dir, "installed")
        subprocess.run(["cmake", "--install", os.path.dirname(h.BIN), "--prefix", "/usr"], check=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, DESTDIR=target))
        programs = {name for name in os.listdir(h.BIN) if re.fullmatch("glovebox(-[a-z]+)?", name)}
        self.assertGreater(len(programs), 8)
        self.assertEqual(set(os.listdir(os.path.join(target, "usr/bin"))), programs)
        done = subprocess.run(["glovebox", "--version"], stdout=subprocess.PIPE, text=True, check=True,
                              env={"PATH": os.path.join(target, "usr/bin"), "HOME": target})
        self.assertRegex(done.stdout, "^glovebox [0-9]")
        for page in ("man/man1/glovebox-job-submit.1", "bash-completion/completions/glovebox", "zsh/vendor-completions/_glovebox",
                     "fish/vendor_completions.d/glovebox.fish"):
            self.assertGreater(os.path.getsize(os.path.join(target, "usr/share", page)), 400, page)

    def test_a_policy_that_says_nothing_says_so(self):
        """What a reader gets who leaves the weakening words out: told at once, not by a job that waits for ever."""
        folder = self.folders["auditor"]
        text = 'glovebox policy new --yes --purpose "x" --out nothing.yaml --force\nglovebox policy explain nothing.yaml\n'
        done = subprocess.run(["/bin/bash", "-euc", text], cwd=folder, env={"PATH": h.BIN + ":/usr/bin:/bin", "HOME": folder},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
        self.assertIn("warning: no job can run under it: tee:", done.stdout)
        self.assertIn("NO JOB CAN RUN under this policy", done.stdout)
        for member in ("images:", "commands:", "tee:", "custody:", "rollback:"):
            self.assertIn("! " + member, done.stdout)


if __name__ == "__main__":
    unittest.main()
