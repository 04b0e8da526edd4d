"""`glovebox up` itself: one at a time, its passphrase, its folders, its address, and how people come in."""
import json
import os
import shutil
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # starts no job

GLOVEBOX = os.path.join(h.BIN, "glovebox")


def up(*args, timeout=60):
    """One `up` that is expected not to start: exit status and its error."""
    done = subprocess.run([GLOVEBOX, "-o", "json", "up", *args], capture_output=True, text=True, timeout=timeout, check=False)
    error = json.loads(done.stderr[done.stderr.rindex('{\n  "error"'):])["error"] if done.returncode else None
    return done.returncode, error


class Up(unittest.TestCase):
    def setUp(self):
        self.world = h.Installation()
        self.addCleanup(self.world.close)

    def path(self, name):
        return os.path.join(self.world.state, name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as f:
            return f.read()

    def test_one_at_a_time(self):
        code, error = up("--state", self.world.state, "--listen", "127.0.0.1:0")
        self.assertEqual((code, error["reason"]), (h.USAGE, "conflict"))
        self.assertIn("already running", error["what"])
        self.assertEqual(error["actual"], "process %d" % self.world.up.pid)
        h.Person(self.world, "anna", ["owner"])  # and the first one goes on

    def test_wrong_words_touch_nothing(self):
        nowhere = os.path.join(self.world.dir, "nowhere")
        for words in (["--listen", "nope"], ["--uid-base", "12"], ["--slots", "0"], ["--name", "a b"]):
            code, error = up("--state", nowhere, *words)
            self.assertEqual(code, h.USAGE, (words, error))
            self.assertTrue(error["next"], words)
        self.assertFalse(os.path.exists(nowhere))

    def test_a_key_set_that_cannot_be_made_has_its_own_reason(self):
        short = os.path.join(self.world.dir, "short")
        with open(short, "w", encoding="utf-8") as f:
            f.write("short\n")
        code, error = up("--state", os.path.join(self.world.dir, "new"), "--passphrase-file", short)
        self.assertEqual((code, error["reason"], error["actual"]), (h.USAGE, "bad-value", "5"))
        self.assertIn("broker init", error["what"])

    def test_an_address_of_another_machine(self):
        code, error = up("--state", os.path.join(self.world.dir, "new"), "--listen", "192.0.2.1:7443", "--uid-base", "1900000000")
        self.assertEqual((code, error["reason"]), (h.INFRASTRUCTURE, "io"))
        self.assertIn("address of this machine", error["next"])

    def test_a_part_that_is_missing_is_never_made_anew(self):
        self.world.stop()
        for name in ("plane", "objects", "broker", "node"):
            os.rename(self.path(name), self.path("elsewhere"))
            code, error = up("--state", self.world.state, "--listen", "127.0.0.1:0")
            self.assertEqual((code, error["reason"]), (h.USAGE, "not-found"), name)
            self.assertTrue(error["expected"].startswith(name + "/"), error)
            self.assertFalse(os.path.exists(self.path(name)), name)
            os.rename(self.path("elsewhere"), self.path(name))
        self.world.start()

    def test_keys_of_machines_are_parts_of_an_installation(self):
        self.world.stop()
        for name in ("release.key", "simtee.key"):
            os.rename(self.path("node/" + name), self.path("elsewhere"))
            code, error = up("--state", self.world.state, "--listen", "127.0.0.1:0")
            self.assertEqual((code, error["reason"], error["expected"]), (h.USAGE, "not-found", "node/" + name))
            self.assertFalse(os.path.exists(self.path("node/" + name)), "made anew")
            os.rename(self.path("elsewhere"), self.path("node/" + name))
        with open(self.path("node/release.key"), "r+b") as f:
            real = f.read()
            f.seek(0)
            f.write(os.urandom(32))
        code, error = up("--state", self.world.state, "--listen", "127.0.0.1:0")
        self.assertEqual((code, error["reason"]), (h.USAGE, "conflict"), error)
        self.assertIn("release.key", error["what"])
        with open(self.path("node/release.key"), "wb") as f:
            f.write(real)
        self.world.start()

    def test_one_start_elsewhere_is_not_where_the_next_one_runs(self):
        self.assertEqual(self.world.facts["usualEnvironment"], "local")
        self.world.stop()
        # As one that was made with machines left it.
        h.write_json(self.path("installation.json"), {**self.world.facts, "usualEnvironment": "vm"})
        self.world.start(keeps=True)  # with --environment local
        self.assertEqual((self.world.facts["usualEnvironment"], self.world.facts["release"]), ("vm", ""))
        self.world.stop()
        code, error = up("--state", self.world.state, "--listen", "127.0.0.1:0", "--guest", os.path.join(self.world.dir, "none"))
        self.assertEqual((code, error["reason"]), (h.USAGE, "not-found"), "it wants its machines again")
        self.assertIn("--environment local", error["next"])

    def test_a_set_without_a_release_signer_has_no_machines(self):
        self.world.stop()
        self.world.environment = "local"
        broker = os.stat(self.path("broker")).st_uid
        shutil.rmtree(self.world.state)
        os.mkdir(self.world.state)
        os.mkdir(self.path("broker"))
        with open(self.path("broker-passphrase"), "w", encoding="ascii") as f:
            f.write("a" * 64 + "\n")
        with open(self.path("broker-passphrase"), "rb") as f:
            subprocess.run([os.path.join(h.BIN, "glovebox-broker"), "init", "--state", self.path("broker"), "--passphrase-fd", "0"],
                           stdin=f, stdout=subprocess.DEVNULL, check=True)
        for folder, _, files in os.walk(self.path("broker")):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, broker, broker)
        guest = os.path.join(self.world.dir, "guest")
        os.mkdir(guest)
        for name in ("firmware.fd", "kernel", "initrd", "cmdline", "lock"):
            h.write_json(os.path.join(guest, name), name)
        code, error = up("--state", self.world.state, "--listen", "127.0.0.1:0", "--environment", "vm", "--guest", guest)
        self.assertEqual((code, error["reason"]), (h.USAGE, "conflict"), error)
        self.assertIn("release signer", error["what"])
        self.assertIn("--environment local", error["next"])
        self.assertFalse(os.path.exists(self.path("plane/plane.db")))
        for _ in range(2):  # as it was, and again
            self.world.start()
            h.Person(self.world, "anna", ["owner"])
            self.world.stop()
            self.assertFalse(os.path.exists(self.path("node/release.key")))
            shutil.rmtree(os.path.join(self.world.dir, "home-anna"))

    def test_ids_of_somebody_else(self):
        # This account's own subordinate ids, in a mount namespace of the test's own.
        script = 'mount -t tmpfs none /mnt && cp /etc/subuid /mnt/subuid && echo "dora:2000000100:5" >>/mnt/subuid && ' \
                 'mount --bind /mnt/subuid /etc/subuid && exec "$@"'
        if not os.path.exists("/etc/subuid"):
            self.skipTest("this machine has no /etc/subuid to lay something over")
        done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", GLOVEBOX, "-o", "json", "up", "--state",
                               os.path.join(self.world.dir, "other"), "--listen", "127.0.0.1:0"],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, h.USAGE, done.stderr)
        error = json.loads(done.stderr)["error"]
        self.assertIn("2000000100 to 2000000104 to dora", error["actual"])
        self.assertIn("--uid-base", error["next"])

    def test_the_passphrase_may_lie_elsewhere_and_is_never_made_anew(self):
        person = h.Person(self.world, "anna", ["owner"])
        self.world.stop()
        elsewhere = os.path.join(self.world.dir, "kept")
        shutil.move(self.path("broker-passphrase"), elsewhere)
        code, error = up("--state", self.world.state, "--listen", "127.0.0.1:0")
        self.assertEqual((code, error["reason"]), (h.USAGE, "not-found"), error)
        self.assertIn("--passphrase-file", error["next"])
        self.assertFalse(os.path.exists(self.path("broker-passphrase")))
        self.world.start("--passphrase-file", elsewhere)
        self.assertFalse(os.path.exists(self.path("broker-passphrase")))
        person.run("init", "--plane", self.world.facts["plane"], "--ca", self.world.facts["ca"], "--set", self.world.facts["setId"])
        code, error = up("--state", os.path.join(self.world.dir, "new"), "--passphrase-file", "/no/such/file")
        self.assertEqual((code, error["reason"]), (h.USAGE, "not-found"), error)

    def test_root_follows_no_link_of_a_service(self):
        before = self.read("set.json")
        self.world.stop()
        secret = os.path.join(self.world.dir, "secret")
        h.write_json(secret, {"root": "only"})
        os.chmod(secret, 0o600)
        inside = self.path("broker/set.json")
        owner = os.stat(inside).st_uid
        os.rename(inside, inside + ".real")
        for target in (secret, "set.json.real"):
            os.symlink(target, inside)
            os.lchown(inside, owner, owner)
            code, _ = up("--state", self.world.state, "--listen", "127.0.0.1:0")
            self.assertNotEqual(code, h.OK)
            self.assertEqual(self.read("set.json"), before)
            os.unlink(inside)
        os.rename(inside + ".real", inside)
        # A service's folder that is a link.
        os.rename(self.path("plane"), self.path("plane.real"))
        os.symlink(self.world.dir, self.path("plane"))
        code, error = up("--state", self.world.state, "--listen", "127.0.0.1:0")
        self.assertEqual((code, error["reason"]), (h.USAGE, "conflict"))
        self.assertEqual(os.stat(self.world.dir).st_uid, 0)
        os.unlink(self.path("plane"))
        os.rename(self.path("plane.real"), self.path("plane"))
        self.world.start()
        self.assertEqual(self.read("set.json"), before)

    def test_other_machines_reach_it_by_name(self):
        self.world.stop()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.world.start("--listen", "0.0.0.0:%d" % port)
        self.assertEqual(self.world.facts["plane"], "127.0.0.1:%d" % port)
        h.Person(self.world, "near", ["consumer"])
        self.world.stop()
        name = socket.gethostname()
        try:
            socket.getaddrinfo(name, port)
        except socket.gaierror:
            name = "localhost"  # a machine whose own name nobody looks up
        self.world.start("--listen", "0.0.0.0:%d" % port, "--name", name, "--name", "127.0.0.2")
        self.assertEqual(self.world.facts["plane"], "%s:%d" % (name, port))
        self.world.says("glovebox init --plane %s:%d " % (name, port))
        h.Person(self.world, "far", ["consumer"])  # by name
        self.world.facts["plane"] = "127.0.0.2:%d" % port
        h.Person(self.world, "other", ["consumer"])  # by the second address
        self.world.facts["plane"] = "127.0.0.3:%d" % port
        with self.assertRaises(h.CommandFailed) as caught:
            h.Person(self.world, "wrong", ["consumer"])  # the certificate does not name it
        self.assertEqual(caught.exception.code, h.ATTESTATION, caught.exception)

    def test_people_come_in_by_invites_only(self):
        facts = self.world.facts
        for name in ("invite", "operator-invite", "broker-passphrase"):
            st = os.stat(self.path(name))
            self.assertEqual((st.st_mode & 0o777, st.st_uid), (0o600, 0), name)
        with self.assertRaises(h.CommandFailed) as caught:
            h.Person(self.world, "eve", ["operator"])
        self.assertEqual((caught.exception.reason, caught.exception.code), ("wrong-role", h.DENIED))
        boss = h.Person(self.world, "boss", ["operator"], facts["operatorInvite"])
        with self.assertRaises(h.CommandFailed) as caught:
            h.Person(self.world, "second", ["operator"], facts["operatorInvite"])
        self.assertEqual((caught.exception.reason, caught.exception.code), ("quota-exceeded", h.DENIED))
        token = os.path.join(self.world.dir, "token")
        answer = boss.run("identity", "invite", "--role", "auditor", "--uses", "1", "--days", "2", "--out", token)
        self.assertEqual(answer["file"], token)
        with open(token, encoding="ascii") as f:
            self.assertNotIn(f.read().strip(), json.dumps(answer))
        self.assertEqual(os.stat(token).st_mode & 0o777, 0o600)
        with self.assertRaises(h.CommandFailed) as caught:
            boss.run("identity", "invite", "--role", "auditor", "--out", token)
        self.assertEqual(caught.exception.reason, "already-exists")
        h.Person(self.world, "auditor", ["auditor"], token)
        with self.assertRaises(h.CommandFailed) as caught:
            h.Person(self.world, "another", ["auditor"], token)
        self.assertEqual(caught.exception.reason, "quota-exceeded")
        # The token of the first operator is gone once there is one; the other is new at every start.
        old = self.read("invite")
        self.world.stop()
        self.world.start()
        self.assertEqual(self.world.facts["operatorInvite"], "")
        self.assertFalse(os.path.exists(self.path("operator-invite")))
        self.assertNotEqual(self.read("invite"), old)


if __name__ == "__main__":
    unittest.main()
