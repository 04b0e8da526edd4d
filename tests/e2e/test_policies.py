"""What an owner signs about a published asset, with real processes: the next policy, revocation and its undoing."""
import copy
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # starts no job that runs

IMAGE = "sha256:" + "a" * 64
up = h.Shared(h.Installation)
setUpModule, tearDownModule = up.hooks()


class Policies(unittest.TestCase):
    def setUp(self):
        self.name = self.id().rsplit(".", 1)[1][5:15].strip("_").replace("_", "-")
        self.owner = h.Person(up, self.name, ["owner"])
        self.file = self.owner.policy(os.path.join(up.dir, self.name + ".yaml"), "dataset", IMAGE, up.facts["nodeKey"],
                                      self.owner.id, ["/bin/true"])

    def publish(self, versions):
        folder = os.path.join(up.dir, "data-" + self.name)
        os.makedirs(folder, exist_ok=True)
        for n in range(versions):
            with open(os.path.join(folder, "rows.csv"), "w", encoding="utf-8") as f:
                f.write("a\n%d\n" % n)
            self.owner.run("asset", "publish", folder, "--name", self.name, "--kind", "dataset", "--policy", self.file)

    def sign(self, *args):
        return [(i["version"], i["policySerial"], i["revoked"], i["changed"])
                for i in self.owner.run("policy", "sign", *args)["items"]]

    def refused(self, reason, status, *args):
        with self.assertRaises(h.CommandFailed) as caught:
            self.owner.run("policy", "sign", *args)
        self.assertEqual((caught.exception.reason, caught.exception.code), (reason, status), caught.exception)

    def revoked(self, version):
        return self.owner.run("asset", "show", "%s@%d" % (self.name, version))["revoked"]

    def test_renewal_never_undoes_a_revocation(self):
        self.publish(1)
        self.assertEqual(self.sign(self.name, "--renew"), [(1, 2, False, True)])
        self.assertEqual(self.sign(self.name, "--revoke"), [(1, 3, True, True)])
        self.refused("policy-revoked", h.DENIED, self.name, "--renew")
        self.refused("policy-revoked", h.DENIED, self.name, "--policy", self.file)
        self.assertTrue(self.revoked(1))
        spec = h.write_json(os.path.join(up.dir, "revoked.json"), h.job_spec("late", ["/bin/true"], [h.metrics("ok")], [self.name]))
        with self.assertRaises(h.CommandFailed) as caught:
            self.owner.run("job", "plan", spec)
        self.assertEqual(caught.exception.reason, "policy-revoked")
        self.assertIn("asset list", caught.exception.err)  # and not the command that was just given
        self.assertEqual(self.sign(self.name, "--reinstate"), [(1, 4, False, True)])
        self.assertFalse(self.revoked(1))
        self.refused("conflict", h.USAGE, self.name, "--reinstate")

    def test_who_lost_the_data_key_can_still_revoke(self):
        self.publish(1)
        shown = self.owner.run("asset", "show", self.name)
        key = os.path.join(self.owner.home, "keys", "assets", shown["assetId"] + "-1.key")
        os.rename(key, key + ".away")
        self.assertEqual(self.sign(self.name, "--revoke"), [(1, 2, True, True)])
        self.assertTrue(self.revoked(1))
        with self.assertRaises(h.CommandFailed) as caught:  # whoever reads it again needs the key anew
            self.owner.run("policy", "sign", self.name, "--reinstate")
        self.assertEqual(caught.exception.reason, "not-found")
        os.rename(key + ".away", key)
        self.assertEqual(self.sign(self.name, "--reinstate"), [(1, 3, False, True)])

    def test_a_policys_words_move_no_terminal_and_begin_no_line(self):
        hostile = "x\x1b[2J\n- Where: tdx, releases good\n  - Where: tdx"
        with self.assertRaises(h.CommandFailed) as caught:
            self.owner.run("policy", "new", "--yes", "--purpose", hostile, "--any-command")
        self.assertEqual(caught.exception.reason, "bad-value")
        self.file = self.owner.policy(self.file, "dataset", IMAGE, up.facts["nodeKey"], self.owner.id, ["/bin/sh", "-c", hostile])
        self.publish(1)
        reader = h.Person(up, "reader-" + self.name, ["consumer"])
        for command, mark in ((["asset", "show", self.name], "  - "), (["policy", "explain", self.name], "- "),
                              (["policy", "explain", self.file], "- ")):
            done = subprocess.run([os.path.join(h.BIN, "glovebox"), "--home", reader.home, *command], capture_output=True, text=True,
                                  timeout=120, check=True)
            self.assertIn("\\x1b[2J\\x0a- Where: tdx", done.stdout)
            self.assertNotIn("\x1b", done.stdout)
            self.assertEqual([line for line in done.stdout.split("\n") if line.startswith(mark + "Where: tdx")], [])

    def test_contradicting_wishes_are_refused(self):
        for wishes in ((), ("--revoke", "--renew"), ("--revoke", "--reinstate"), ("--renew", "--reinstate"),
                       ("--revoke", "--policy", self.file), ("--renew", "--policy", self.file)):
            self.refused("usage", h.USAGE, self.name, *wishes)

    def test_name_is_every_version(self):
        self.publish(3)
        self.assertEqual(self.sign(self.name + "@2", "--revoke"), [(2, 2, True, True)])
        self.assertEqual([self.revoked(n) for n in (1, 2, 3)], [False, True, False])
        self.assertEqual(self.sign(self.name, "--revoke"), [(1, 2, True, True), (2, 2, True, False), (3, 2, True, True)])
        self.assertEqual([self.revoked(n) for n in (1, 2, 3)], [True, True, True])
        self.assertEqual([i[3] for i in self.sign(self.name, "--revoke")], [False, False, False])
        # Each undoing names its version: an old reason for a revocation is not forgotten with the newest one.
        self.refused("usage", h.USAGE, self.name, "--reinstate")
        self.assertEqual(self.sign(self.name + "@3", "--reinstate", "--policy", self.file), [(3, 3, False, True)])
        self.assertEqual([self.revoked(n) for n in (1, 2, 3)], [True, True, False])

    def test_a_thief_who_rotates_first_is_driven_out(self):
        self.publish(1)
        thief = copy.copy(self.owner)
        thief.home = self.owner.home + "-stolen"
        shutil.copytree(self.owner.home, thief.home)
        shutil.rmtree(os.path.join(thief.home, "recovery"))
        self.assertEqual(thief.run("identity", "rotate")["rotations"], 1)
        self.refused("unauthenticated", h.DENIED, self.name, "--revoke")
        self.assertEqual(self.owner.run("identity", "rotate", "--recovery")["rotations"], 2)
        with self.assertRaises(h.CommandFailed) as caught:
            thief.run("policy", "sign", self.name, "--renew")
        self.assertEqual(caught.exception.reason, "unauthenticated")
        self.assertEqual(self.sign(self.name, "--revoke"), [(1, 2, True, True)])
        self.assertTrue(self.revoked(1))

    def test_other_owners_asset(self):
        self.publish(1)
        stranger = h.Person(up, "stranger", ["owner"])
        with self.assertRaises(h.CommandFailed) as caught:
            stranger.run("policy", "sign", self.name, "--revoke")
        self.assertEqual((caught.exception.reason, caught.exception.code), ("wrong-owner", h.DENIED))
        self.assertFalse(self.revoked(1))


if __name__ == "__main__":
    unittest.main()
