"""The life of a published asset with real processes: interrupted, resumed, followed by a next version, offered no more."""
import os
import random
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # starts no job

IMAGE = "sha256:" + "a" * 64
MIB = 1 << 20
up = h.Shared(h.Installation)
setUpModule, tearDownModule = up.hooks()


def write(folder, name, size, seed):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(random.Random(seed).randbytes(size))


class Assets(unittest.TestCase):
    def setUp(self):
        self.name = "-".join(self.id().rsplit(".", 1)[1].split("_")[1:3])
        self.owner = h.Person(up, self.name, ["owner", "consumer"])
        self.file = self.owner.policy(os.path.join(up.dir, self.name + ".yaml"), "dataset", IMAGE, up.facts["nodeKey"],
                                      self.owner.id, ["/bin/true"])
        self.folder = os.path.join(up.dir, "data-" + self.name)
        self.arguments = ["asset", "publish", self.folder, "--name", self.name, "--policy", self.file]

    def refused(self, reason, status, *args):
        with self.assertRaises(h.CommandFailed) as caught:
            self.owner.run(*args)
        self.assertEqual((caught.exception.reason, caught.exception.code), (reason, status), caught.exception)

    def stored(self):
        """The whole objects on the plane's disk: path, bytes."""
        found = {}
        for folder, below, files in os.walk(os.path.join(up.state, "objects")):
            if "incoming" in below:
                below.remove("incoming")
            for f in files:
                found[os.path.join(folder, f)] = os.path.getsize(os.path.join(folder, f))
        return found

    def whole(self, name, version, files, size):
        seen = self.owner.run("asset", "verify", "%s@%d" % (name, version), "--with-key")
        self.assertEqual((seen["files"], seen["bytes"], seen["withKey"]), (files, size, True))
        return seen["objects"]

    def test_an_interrupted_publication_goes_on(self):
        files, size = 21, 20 * MIB  # seven objects of 64 MiB; each holds a whole file, so each that was stored can serve
        for n in range(files):
            write(self.folder, "part-%02d" % n, size, n)
        before = set(self.stored())
        command = [os.path.join(h.BIN, "glovebox"), "--home", self.owner.home, *self.arguments]
        for number in (signal.SIGKILL, signal.SIGINT):
            begun = set(self.stored())
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            while process.poll() is None and len(set(self.stored()) - begun) < 2:
                time.sleep(0.005)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
            self.assertEqual(process.returncode, -number, "it ended before it was interrupted: " + said)
            if number == signal.SIGINT:
                self.assertIn("Give the same command to go on", said)
        self.assertEqual(self.owner.run("asset", "list", "--mine")["items"], [])
        self.assertEqual(self.owner.run(*self.arguments)["version"], 1)
        objects = self.whole(self.name, 1, files, files * size)
        # Begun anew, four objects would serve nobody; an interruption may cost the one that was on its way.
        of_no_use = len(set(self.stored()) - before) - objects - 1  # 1: the list of the objects
        self.assertLessEqual(of_no_use, 2)
        self.assertEqual(os.listdir(os.path.join(self.owner.home, "publish")), [])

    def test_next_versions_share_what_is_unchanged(self):
        write(self.folder, "large", 24 * MIB, 1)
        write(self.folder, "small", 1000, 2)
        first = self.owner.run(*self.arguments)
        before = self.stored()
        write(self.folder, "small", 2000, 3)
        second = self.owner.run(*self.arguments)
        self.assertEqual((first["version"], second["version"]), (1, 2))
        self.assertEqual(first["assetId"], second["assetId"])
        self.assertNotEqual(first["versionId"], second["versionId"])
        after = self.stored()
        grown = sum(size for path, size in after.items() if path not in before)
        self.assertTrue(0 < grown < 8 * MIB, grown)
        self.whole(self.name, 1, 2, 24 * MIB + 1000)
        self.whole(self.name, 2, 2, 24 * MIB + 2000)
        # The name alone is the newest.
        self.assertEqual(self.owner.run("asset", "show", self.name)["versionId"], second["versionId"])

    def test_delisted_is_offered_no_more(self):
        write(self.folder, "rows", 1000, 1)
        self.owner.run(*self.arguments)
        write(self.folder, "rows", 1000, 2)
        self.owner.run(*self.arguments)
        stranger = h.Person(up, "stranger", ["owner"])
        with self.assertRaises(h.CommandFailed) as caught:
            stranger.run("asset", "delist", self.name)
        self.assertEqual((caught.exception.reason, caught.exception.code), ("wrong-owner", h.DENIED))
        self.owner.run("asset", "delist", self.name)
        self.assertEqual([a["version"] for a in self.owner.run("asset", "list", "--mine")["items"]], [1])
        self.assertEqual(self.owner.run("asset", "show", self.name + "@2")["delisted"], True)
        self.whole(self.name, 2, 1, 1000)
        spec = h.job_spec("x", ["/bin/true"], [h.metrics("n")], [self.name])
        spec["spec"]["inputs"][0]["asset"] = self.name + "@2"
        self.refused("not-found", h.USAGE, "job", "plan", h.write_json(os.path.join(up.dir, "delisted.json"), spec))
        # Versions go on where they stopped.
        self.assertEqual(self.owner.run(*self.arguments)["version"], 3)


if __name__ == "__main__":
    unittest.main()
