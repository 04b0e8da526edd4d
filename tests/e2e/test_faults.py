"""Real processes under faults: each program killed at each message of a job's life, streams that are cut, slow, doubled and reordered, nodes that vanish,
disks that are full, clocks that jump. Every day a part of the matrix runs; with GBX_FAULTS=all the whole (`scripts/deep faults`).
"""
import os
import signal
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults  # noqa: E402
import harness as h  # noqa: E402

FAKETIME = "/usr/lib/%s-linux-gnu/faketime/libfaketimeMT.so.1" % os.uname().machine
FULL = os.environ.get("GBX_FAULTS") == "all"
cluster = h.Shared(faults.Cluster)
setUpModule, tearDownModule = cluster.hooks()


class Faults(unittest.TestCase):
    def setUp(self):
        self.ends = {}
        for relay in cluster.relays.values():
            relay.trap(0, None)
            relay.delay, relay.spoil = 0.0, None

    def job(self, name, seconds=90, **how):
        """A job to its end, and nothing of it left on the machine."""
        job = cluster.submit(name, **how)
        self.ends[job] = cluster.ended(job, seconds)
        cluster.leaves_nothing(job)
        return self.ends[job]

    def all_is_well(self):
        wrong = cluster.judge(self.ends)
        self.assertEqual(wrong, [], cluster.tail())

    # A seal that the broker has and an output that nobody has any more: after 300 s the job says so.
    def completes(self, end, sealed_may_be_lost=False):
        if sealed_may_be_lost and end["state"] == "Expired":
            self.assertEqual(end["outcome"]["reason"], "lost", end)
            return
        self.assertEqual(end["state"], "Completed", (end, cluster.tail()))

    def at_each(self, link, few, most, what, attempts=None):
        """One job for each n: `what` happens when the n-th message of that link has arrived and was not passed on."""
        happened = 0
        for n in range(1, most + 1) if FULL else few:
            fired = threading.Event()

            def now():
                what()
                fired.set()
            cluster.relays[link].trap(n, now)
            name = "%s-%s-%d" % (self.id().rsplit(".", 1)[1].replace("_", "-")[5:40], link, n)
            with self.subTest(name):
                end = self.job(name, 400 if FULL else 90)
                self.completes(end, sealed_may_be_lost=FULL and attempts is None)
                if attempts:
                    self.assertEqual(len(end["environments"]), attempts, end)
            happened += fired.is_set()
            cluster.relays[link].trap(0, None)
        self.assertGreater(happened, len(few) // 2)
        self.all_is_well()


class Killed(Faults):
    """With one attempt where nothing of the attempt died."""

    def test_broker_asked_by_the_plane(self):
        self.at_each("plane-broker", (2, 6), 14, cluster.programs["broker"].kill)

    def test_broker_asked_by_an_agent(self):
        self.at_each("agent-broker", (4, 8, 11), 16, cluster.programs["broker"].kill, attempts=1)

    def test_plane_asking_the_broker(self):
        self.at_each("plane-broker", (3, 5), 14, cluster.programs["plane"].kill)

    def test_plane_told_by_a_node(self):
        self.at_each("node-plane", (4, 9, 15), 32, cluster.programs["plane"].kill)

    def test_node(self):
        self.at_each("node-plane", (7,), 32, cluster.programs["node"].kill)

    def kill_part(self, name):
        for pid in cluster.part(name):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # with another one

    def test_agents_privileged_half(self):
        self.at_each("agent-broker", (8,), 16, lambda: self.kill_part("glovebox-agent run"))

    def test_agents_worker(self):
        self.at_each("agent-broker", (9,), 16, lambda: self.kill_part("glovebox-agent worker"))

    def test_decryptfs(self):
        self.ambushed("glovebox-decryptfs", "Completed", "")

    def test_sandbox(self):
        self.ambushed("glovebox-sandbox", "Completed", "")

    def test_gate(self):
        self.ambushed("glovebox-gate", "Rejected", "rejected")

    def test_unpack(self):
        self.ambushed("glovebox-unpack", "Failed", "image-refused")

    def ambushed(self, program, *expected):
        """Killed as it starts: its attempt is tried again, or ends with a reason; an output that no gate has seen is not released."""
        trap = faults.Ambush(cluster.programs["node"].process.pid, os.path.join(cluster.bin, program))
        try:
            end = self.job("ambushed-" + program)
        finally:
            trap.over = True
            trap.join()
        self.assertTrue(trap.hit)
        self.assertEqual((end["state"], end["outcome"]["reason"]), expected, end)
        self.all_is_well()


class Streams(Faults):
    def test_cut(self):
        for link, few, most in (("plane-broker", (4,), 14), ("agent-broker", (6, 12), 16), ("node-plane", (8, 14), 32)):
            self.at_each(link, few, most, cluster.relays[link].cut, attempts=1)

    def test_slow(self):
        for relay in cluster.relays.values():
            relay.delay = 0.1
        end = self.job("slow")
        self.completes(end)
        self.assertEqual(len(end["environments"]), 1, end)
        self.all_is_well()

    def once(self, link, n, change):
        """`change` makes of the n-th and the next chunk what is sent instead."""
        relay, seen = cluster.relays[link], []

        def spoil(chunk):
            seen.append(chunk)
            return change(seen, n) if len(seen) in (n, n + 1) else chunk
        relay.spoil = spoil

    # Below TLS: the stream ends, whatever it carried is asked for again over another one.
    def test_doubled(self):
        for link in cluster.relays:
            self.once(link, 5, lambda seen, n: seen[-1] * 2 if len(seen) == n else seen[-1])
            end = self.job("doubled-" + link)
            self.completes(end)
            cluster.relays[link].spoil = None
        self.all_is_well()

    def test_reordered(self):
        for link in cluster.relays:
            self.once(link, 5, lambda seen, n: b"" if len(seen) == n else seen[n] + seen[n - 1])
            end = self.job("reordered-" + link)
            self.completes(end)
            cluster.relays[link].spoil = None
        self.all_is_well()


class Nodes(Faults):
    def test_one_that_comes_back_after_its_lease_hands_its_output_in(self):
        node = cluster.programs["node"]

        def freeze():
            node.kill(signal.SIGSTOP)
            threading.Timer(8, node.kill, [signal.SIGCONT]).start()
        cluster.relays["agent-broker"].trap(8, freeze)
        end = self.job("frozen")
        self.completes(end)
        self.all_is_well()

    def test_one_that_vanishes_for_good_leaves_a_job_that_ends_with_a_reason(self):
        node = cluster.programs["node"]

        def vanish():
            node.wanted = False
            node.kill()
        cluster.relays["agent-broker"].trap(8, vanish)
        job = cluster.submit("vanished", queue=5)
        try:
            self.ends[job] = cluster.ended(job)
            self.assertEqual((self.ends[job]["state"], self.ends[job]["outcome"]["reason"]), ("Expired", "timed-out"), self.ends[job])
        finally:
            node.start()
        cluster.leaves_nothing(job)
        self.completes(self.job("after-it"))
        self.all_is_well()


class CommandLine(Faults):
    def test_killed_while_it_waits_and_while_it_fetches(self):
        spec = cluster.spec("cli")
        command = [os.path.join(h.BIN, "glovebox"), "--home", cluster.me.home, "-o", "json"]
        waiting = subprocess.Popen([*command, "job", "submit", spec, "--wait", "--idempotency-key", "cli"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        waiting.kill()
        waiting.wait()
        end = self.job("cli")
        self.completes(end)
        for n in range(40 if FULL else 8):
            out = os.path.join(cluster.dir, "fetched-%d" % n)
            fetching = subprocess.Popen([*command, "job", "result", end["jobId"], "--out", out], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
            time.sleep(0.005 * n * (1 if FULL else 5))
            fetching.kill()
            fetching.wait()
            self.assertIn(os.listdir(out) if os.path.isdir(out) else [], ([], ["metrics.json"]))
            cluster.me.run("job", "result", end["jobId"], "--out", out, "--force")
            with open(os.path.join(out, "metrics.json"), encoding="utf-8") as f:
                self.assertEqual(f.read(), '{"ok":1}\n')
            self.assertEqual(os.listdir(out), ["metrics.json"])
        self.all_is_well()

    def test_killed_while_it_publishes(self):
        folder = os.path.join(cluster.dir, "larger")
        os.makedirs(folder)
        for n in range(20):
            with open(os.path.join(folder, "%d.bin" % n), "wb") as f:
                f.write(os.urandom(1 << 19))
        policy = os.path.join(cluster.dir, "nothing.yaml")
        words = ["asset", "publish", folder, "--name", "larger", "--kind", "dataset", "--policy", policy]
        for n in range(30 if FULL else 5):
            publishing = subprocess.Popen([os.path.join(h.BIN, "glovebox"), "--home", cluster.owner.home, "-o", "json", *words],
                                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.01 * n * (1 if FULL else 6))
            publishing.kill()
            publishing.wait()
        cluster.owner.run(*words)
        cluster.owner.run("asset", "verify", "larger")


class Disk(Faults):
    def full_while_a_job_runs(self, name, folder, user):
        with cluster.small_disk(name, folder, user) as ballast:
            for n in (range(1, 13) if FULL else (5,)):
                def fill():
                    ballast.fill()
                    threading.Timer(2, ballast.empty).start()
                cluster.relays["plane-broker"].trap(n, fill)
                self.completes(self.job("full-%s-%d" % (name, n)))
                ballast.empty()
        self.all_is_well()

    def test_of_the_broker(self):
        self.full_while_a_job_runs("broker", "broker", faults.UID_BASE + 1)

    def test_of_the_plane(self):
        self.full_while_a_job_runs("plane", "plane", faults.UID_BASE + 2)


class Clocks(Faults):
    """Wall clocks of single programs, set by libfaketime; what they measure by the monotonic clock stays. A cluster of its own."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="gbx-clocks-", dir="/tmp")
        os.chmod(cls.dir, 0o755)
        cls.outer = cluster._made
        for name in ("broker", "plane", "node"):
            cls.set(name, 0)
        cluster._made = faults.Cluster(wrap={name: [
            "/usr/bin/env", "LD_PRELOAD=" + FAKETIME, "FAKETIME_TIMESTAMP_FILE=" + os.path.join(cls.dir, name), "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1"] for name in ("broker", "plane", "node")})

    @classmethod
    def tearDownClass(cls):
        cluster._made.close()
        cluster._made = cls.outer
        shutil.rmtree(cls.dir)

    @classmethod
    def set(cls, name, seconds):
        with open(os.path.join(cls.dir, name + ".new"), "w", encoding="ascii") as f:
            f.write("%+d" % seconds)
        os.chmod(f.name, 0o644)
        os.rename(f.name, os.path.join(cls.dir, name))

    def jumps(self, name, seconds, link="agent-broker", few=(5,), most=12):
        """While a job runs the clock is wrong, and then right again: nobody has lost patience."""
        for n in range(1, most + 1) if FULL else few:
            def wrong():
                self.set(name, seconds)
                threading.Timer(2, self.set, [name, 0]).start()
            cluster.relays[link].trap(n, wrong)
            cluster.relays[link].delay = 0.3  # so that it is wrong for a while of this job
            end = self.job("%s-%d-%d" % (name, seconds, n))
            self.completes(end)
            self.assertEqual(len(end["environments"]), 1, end)
            self.set(name, 0)
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
        for seconds in (-3600, 15):
            self.jumps("broker", seconds)


if __name__ == "__main__":
    unittest.main()
