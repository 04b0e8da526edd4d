"""What a newcomer trips over, with real processes: mistakes are told before anything happens, and by the right name."""
import json
import os
import re
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # starts no job that runs

IMAGE = "sha256:" + "a" * 64
NOBODY = "9" * 64
up = h.Shared(h.Installation)
setUpModule, tearDownModule = up.hooks()


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.owner = h.Person(up, "owner", ["owner", "consumer"])
        cls.file = cls.owner.policy(os.path.join(up.dir, "policy.yaml"), "dataset", IMAGE, up.facts["nodeKey"], cls.owner.id,
                                    ["/bin/true"])
        cls.folder = os.path.join(up.dir, "data")
        os.makedirs(cls.folder)
        with open(os.path.join(cls.folder, "rows.csv"), "w", encoding="utf-8") as f:
            f.write("a\n1\n")
        cls.owner.run("asset", "publish", cls.folder, "--name", "rows", "--policy", cls.file)

    def refused(self, person, reason, status, *args):
        with self.assertRaises(h.CommandFailed) as caught:
            person.run(*args)
        self.assertEqual((caught.exception.reason, caught.exception.code), (reason, status), caught.exception)
        return json.loads(caught.exception.err)["error"]

    def text(self, person, *args):
        """What a person sees: standard output and standard error."""
        done = subprocess.run([os.path.join(h.BIN, "glovebox"), "--home", person.home, *args], capture_output=True, text=True,
                              timeout=120, check=False)
        return done.stdout, done.stderr

    def pending(self):
        return os.listdir(os.path.join(self.owner.home, "publish"))

    def test_a_mistake_in_the_options_submits_nothing(self):
        spec = h.write_json(os.path.join(up.dir, "job.json"), h.job_spec("x", ["/bin/true"], [h.metrics("n")], ["rows"]))
        self.assertEqual(self.refused(self.owner, "usage", h.USAGE, "job", "submit", spec, "--wait", "--timeout", "0")["what"],
                         "--timeout")
        self.assertEqual(self.owner.run("job", "list")["items"], [])

    def test_an_invite_says_how_it_is_used(self):
        operator = h.Person(up, "operator", ["operator"], up.facts["operatorInvite"])
        token = os.path.join(up.dir, "auditor-token")
        out, _ = self.text(operator, "identity", "invite", "--role", "auditor", "--out", token)
        said = re.search(r"glovebox identity create --name NAME (--role \S+) --invite-file FILE", out)
        self.assertTrue(said, out)
        auditor = h.Person(up, "auditor", ["auditor"], token)
        self.assertEqual(auditor.run("identity", "show")["roles"], said.group(1).split()[1].split(","))
        operator.run("identity", "invite", "--role", "auditor,owner", "--out", token, "--force")
        other = os.path.join(up.dir, "home-other")
        auditor.home = other
        auditor.run("init", "--plane", up.facts["plane"], "--ca", up.facts["ca"], "--set", up.facts["setId"])
        error = self.refused(auditor, "wrong-role", h.DENIED, "identity", "create", "--name", "x", "--invite-file", token)
        self.assertEqual(sorted(error["expected"].split(",")), ["auditor", "owner"])

        # Who is enrolled and needs another role: every error on the way names the command that leads there.
        error = self.refused(self.owner, "wrong-role", h.DENIED, "identity", "invite", "--role", "auditor", "--out", token + "-2")
        self.assertIn("identity enrol --role operator", error["next"])
        error = self.refused(operator, "already-exists", h.USAGE, "identity", "create", "--name", "x", "--role", "owner")
        self.assertIn("identity enrol --role owner --invite-file", error["next"])
        made = operator.run("identity", "enrol", "--role", "owner", "--invite-file", token)
        self.assertEqual(sorted(made["roles"]), ["operator", "owner"])
        self.assertEqual(operator.run("identity", "show")["roles"], made["roles"])

    def test_a_policy_is_for_the_kind_that_it_names(self):
        self.refused(self.owner, "conflict", h.USAGE, "asset", "publish", self.folder, "--name", "weights", "--kind", "model",
                     "--policy", self.file)

    def test_what_is_refused_leaves_nothing(self):
        model = self.owner.policy(os.path.join(up.dir, "model.yaml"), "model", IMAGE, up.facts["nodeKey"], self.owner.id, ["/bin/true"])
        self.refused(self.owner, "conflict", h.USAGE, "asset", "publish", self.folder, "--name", "rows", "--kind", "model",
                     "--policy", model)
        self.assertEqual(self.pending(), [])
        empty = os.path.join(up.dir, "empty", "below")
        os.makedirs(empty)
        error = self.refused(self.owner, "bad-value", h.USAGE, "asset", "publish", os.path.dirname(empty), "--name", "nothing",
                             "--policy", self.file)
        self.assertEqual(error["actual"], "no file in it")
        self.assertEqual(self.pending(), [])
        self.assertEqual([a["name"] for a in self.owner.run("asset", "list")["items"]], ["rows"])

    def test_a_lease_for_nobody_is_told(self):
        made = self.owner.run("lease", "grant", "--asset", "rows", "--consumer", NOBODY)
        self.assertIn(NOBODY, made["warnings"][0])
        self.assertEqual(self.owner.run("lease", "grant", "--asset", "rows", "--consumer", self.owner.id)["warnings"], [])
        self.assertEqual({lease["asset"] for lease in self.owner.run("lease", "list")["items"]}, {"rows"})

    def test_what_is_shown_is_in_the_words_of_people(self):
        self.assertRegex(self.text(self.owner, "asset", "show", "rows")[0], r"size: +[0-9.]+ (B|KiB) encrypted")
        self.assertIn("Everybody needs a lease", self.text(self.owner, "policy", "explain", self.file)[0])

    def test_anothers_key_is_not_looked_for(self):
        stranger = h.Person(up, "stranger", ["owner"])
        self.refused(stranger, "wrong-owner", h.DENIED, "asset", "verify", "rows", "--with-key")

    def test_an_asset_that_is_no_image_is_a_wrong_name(self):
        self.refused(self.owner, "bad-value", h.USAGE, "image", "sign", "rows")

    def test_programs_that_nobody_calls_say_what_they_are(self):
        for name in ("gate", "sandbox", "decryptfs", "unpack"):
            program = os.path.join(h.BIN, "glovebox-" + name)
            done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=20, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""), name)
            self.assertRegex(done.stdout, "^glovebox-%s .*agent starts it" % name)

    def test_up_tells_why_a_program_did_not_start(self):
        """In JSON too: the cause is in up's own error, not in a line above it."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            error = self.up_fails("--listen", "127.0.0.1:" + port)
            self.assertEqual(error["reason"], "io")
            self.assertIn("port " + port, error["what"])
            self.assertIn("another port", error["next"])
        wrong = os.path.join(up.dir, "wrong-passphrase")
        with open(wrong, "w", encoding="utf-8") as f:
            f.write("wrong passphrase\n")
        error = self.up_fails("--passphrase-file", wrong)
        self.assertEqual(error["reason"], "wrong-passphrase")
        self.assertIn("broker", error["what"])

    def up_fails(self, *args):
        command = [os.path.join(h.BIN, "glovebox"), "-o", "json", "up", "--state", os.path.join(up.dir, "other-state"),
                   "--uid-base", "1900000000", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        self.assertNotEqual(done.returncode, 0)
        return json.loads(done.stderr[done.stderr.index('{\n'):])["error"]


if __name__ == "__main__":
    unittest.main()
