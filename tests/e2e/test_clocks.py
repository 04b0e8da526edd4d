"""Real processes whose wall clocks jump while a job runs: nobody loses patience, and the job ends as if nothing had been. As in test_faults.py chance
picks when, and GBX_FAULTS=all tries every message.
"""
import os
import shutil
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults  # noqa: E402
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # each program alone, with a clock of its own: faults.py starts a node without machines

FAKETIME = "/usr/lib/%s-linux-gnu/faketime/libfaketimeMT.so.1" % os.uname().machine


class Cluster(faults.Cluster):
    """Wall clocks of single programs are set by libfaketime; what they measure by the monotonic clock stays."""

    def __init__(self, ids=10_000_000):
        self.clocks = tempfile.mkdtemp(prefix="gbx-clocks-", dir="/tmp")
        os.chmod(self.clocks, 0o755)
        names = ("broker", "plane", "node")
        for name in names:
            self.set(name, 0)
        # Ids of its own: test_faults.py may run at the same time.
        super().__init__(uid_base=faults.UID_BASE + ids, wrap={name: [
            "/usr/bin/env", "LD_PRELOAD=" + FAKETIME, "FAKETIME_TIMESTAMP_FILE=" + os.path.join(self.clocks, name), "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1"] for name in names})

    def close(self):
        super().close()
        shutil.rmtree(self.clocks)

    def set(self, name, seconds):
        with open(os.path.join(self.clocks, name + ".new"), "w", encoding="ascii") as f:
            f.write("%+d" % seconds)
        os.chmod(f.name, 0o644)
        os.rename(f.name, os.path.join(self.clocks, name))


cluster = h.Shared(Cluster)
setUpModule, tearDownModule = cluster.hooks()


class Clocks(faults.Case):
    cluster = cluster

    def jumps(self, name, seconds, link="agent-broker", most=12):
        """While a job runs the clock is wrong, and then right again: nobody has lost patience."""
        for n in range(1, most + 1) if faults.FULL else [faults.chance(self.id() + str(seconds)).randint(1, 8)]:
            def wrong():
                cluster.set(name, seconds)
                self.struck += 1
                threading.Timer(2, cluster.set, [name, 0]).start()
            cluster.relays[link].trap(n, wrong)
            cluster.relays[link].delay = 0.3  # so that it is wrong for a while of this job
            end = self.job("%s-%d-%d" % (name, seconds, n))
            self.completes(end)
            self.assertEqual(len(end["environments"]), 1, end)
            cluster.set(name, 0)
        deadline = time.monotonic() + 30
        for job in self.ends:
            while not cluster.receipt_holds(job):
                self.assertLess(time.monotonic(), deadline, "the receipt never holds")
        self.all_is_well()

    def test_of_the_plane(self):
        for seconds in (3 * 86400, -3 * 86400):
            self.jumps("plane", seconds)

    def test_of_the_node(self):
        for seconds in (3600, -3600):
            self.jumps("node", seconds)

    def test_of_the_broker(self):
        # Its time never falls: set forward, it stays there until time has caught up, and so long no receipt is of the past.
        for seconds in (-3600, 15 if faults.FULL else 8):
            self.jumps("broker", seconds)


if __name__ == "__main__":
    unittest.main()
