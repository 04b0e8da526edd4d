"""An old copy of the broker's log put back: the broker ends, `up` says why, and the newest copy goes on."""
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # starts no job that runs

installation = h.Shared(h.Installation)
setUpModule, tearDownModule = installation.hooks()


class Rollback(unittest.TestCase):
    def log(self, *names):
        return os.path.join(installation.state, "broker", *names)

    def put(self, source, target):
        """As an operator would: the copy, with the owner that the file had."""
        was = os.stat(self.log("log.db"))
        for name in ("log.db-wal", "log.db-shm"):
            if os.path.exists(self.log(name)):
                os.unlink(self.log(name))
        shutil.copyfile(source, target)
        os.chown(target, was.st_uid, was.st_gid)
        os.chmod(target, 0o600)

    def doctor(self, person):
        try:
            return person.run("doctor")["checks"]
        except h.CommandFailed as e:
            import json
            return json.loads(e.out)["checks"]

    def test_an_old_log_is_refused_and_the_newest_goes_on(self):
        up = installation
        person = h.Person(up, "owner", ["owner"])
        person.run("identity", "rotate")
        up.stop()
        old, new = os.path.join(up.dir, "old.db"), os.path.join(up.dir, "new.db")
        shutil.copyfile(self.log("log.db"), old)
        up.start("--listen", up.facts["plane"])
        person.run("identity", "rotate")
        up.stop()
        shutil.copyfile(self.log("log.db"), new)

        self.put(old, self.log("log.db"))
        before = os.path.getsize(up.log.name)
        with self.assertRaises(RuntimeError):
            up.start("--listen", up.facts["plane"])
        self.assertEqual(up.up.wait(60), h.INTEGRITY)
        up.log.flush()
        with open(up.log.name, encoding="utf-8", errors="replace") as f:
            f.seek(before)
            said = f.read()
        self.assertIn("log-rolled-back", said)
        self.assertIn("put the newest", said)
        self.assertIn("glovebox-broker: log-rolled-back", said)

        self.put(new, self.log("log.db"))
        up.start("--listen", up.facts["plane"])
        person.run("identity", "rotate")
        checks = {c["check"]: c for c in self.doctor(person)}
        self.assertEqual(checks["broker"]["result"], "ok", checks["broker"])

        # While everything runs: the log is exchanged below a broker that is then killed.
        broker = [p[0] for p in h.processes() if p[1] == up.up.pid and "/glovebox-broker" in p[3].split(" ")[0]]
        self.assertEqual(len(broker), 1)
        subprocess.run(["kill", "-STOP", str(up.up.pid)], check=True)
        try:
            os.kill(broker[0], 9)
            for name in ("log.db-wal", "log.db-shm"):
                if os.path.exists(self.log(name)):
                    os.unlink(self.log(name))
            self.put(old, self.log("log.db"))
        finally:
            subprocess.run(["kill", "-CONT", str(up.up.pid)], check=True)
        self.assertEqual(up.up.wait(60), h.INFRASTRUCTURE)
        self.assertIn("its messages are above", up.tail())


if __name__ == "__main__":
    unittest.main()
