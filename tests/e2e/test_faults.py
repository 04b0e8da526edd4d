"""Real processes under faults: each program killed at messages of a job's life, streams that are cut, slow, silent, doubled and reordered, nodes that
vanish, disks that are full or slow (clocks that jump: test_clocks.py). Every kind of fault in every run, at messages that chance picks and GBX_FAULTS_SEED
repeats; with GBX_FAULTS=all at every message (`scripts/deep faults`).
"""
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults  # noqa: E402
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # each program alone: faults.py starts a node without machines

FULL = faults.FULL
cluster = h.Shared(faults.Cluster)
setUpModule, tearDownModule = cluster.hooks()


class Faults(faults.Case):
    cluster = cluster


class Killed(Faults):
    """With one attempt where nothing of the attempt died. What holds an output that is sealed takes it along, and 300 s later the job says that it is
    lost: that is waited for where all messages are tried."""

    def test_broker_asked_by_the_plane(self):
        self.at_each("plane-broker", 2, 14, cluster.programs["broker"].kill)

    def test_broker_asked_by_an_agent(self):
        self.at_each("agent-broker", 2, 16, cluster.programs["broker"].kill, attempts=1)

    def test_plane_asking_the_broker(self):
        self.at_each("plane-broker", 2, 14, cluster.programs["plane"].kill)

    def test_plane_told_by_a_node(self):
        self.at_each("node-plane", 2, 32, cluster.programs["plane"].kill)

    def test_node(self):
        self.at_each("node-plane", 1, 32, cluster.programs["node"].kill, until=8)

    def kill_part(self, name):
        found = cluster.part(name)
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # with another one
        return found

    def test_agents_privileged_half(self):
        self.at_each("agent-broker", 1, 16, lambda: self.kill_part("glovebox-agent run"), until=9)

    def test_agents_worker(self):
        self.at_each("agent-broker", 1, 16, lambda: self.kill_part("glovebox-agent worker"), until=9)

    def test_decryptfs(self):
        self.ambushed("glovebox-decryptfs", ("Completed", ""))

    def test_sandbox(self):
        self.ambushed("glovebox-sandbox", ("Completed", ""))

    def test_gate(self):
        self.ambushed("glovebox-gate", ("Failed", "output-invalid"))

    def test_unpack(self):
        self.ambushed("glovebox-unpack", ("Completed", ""))

    def ambushed(self, program, expected):
        """Killed as it starts: its attempt is tried again, or ends with a reason; an output that no gate has seen is not released. Then at a system
        call of all that it makes in an undisturbed job: at one that chance picks, or at sixteen from the first to the last. Whoever has said
        everything by then is not missed."""
        end, _ = self.in_ambush(program, 0)
        self.assertEqual((end["state"], end["outcome"]["reason"]), expected, end)
        _, trap = self.in_ambush(program, 1 << 30)
        if trap.refused:
            self.skipTest("nobody may trace here: killed at the first instruction alone")
        total = trap.calls
        self.assertGreater(total, 16)
        # By chance once, and again where that job needed fewer calls.
        picked = [faults.chance(self.id()).randrange(1, most + 1) for most in (total, total // 2, total // 4)]
        hits = 0
        for at in range(1, total + 1, -(-total // 16)) if FULL else picked:
            if hits and not FULL:
                break
            with self.subTest(at=at, of=total):
                end, trap = self.in_ambush(program, at)
                self.assertIn((end["state"], end["outcome"]["reason"]), (expected, ("Completed", "")), end)
                hits += trap.hit
        self.assertGreater(hits, 8 if FULL else 0)
        self.all_is_well()

    def in_ambush(self, program, at):
        trap = faults.Ambush(cluster.programs["node"].process.pid, os.path.join(cluster.bin, program), at)
        try:
            end = self.job("ambushed-%s-%d" % (program, at))
        finally:
            trap.over = True
            trap.join()
        self.assertTrue(trap.hit or at > 0)
        self.struck += trap.hit
        return end, trap


class Streams(Faults):
    def test_cut(self):
        for link, most in (("plane-broker", 14), ("agent-broker", 16), ("node-plane", 32)):
            self.at_each(link, 1, most, cluster.relays[link].cut, attempts=1)

    def test_slow(self):
        for relay in cluster.relays.values():
            relay.delay = 0.1
        end = self.job("slow")
        self.completes(end)
        for link, relay in cluster.relays.items():
            self.assertGreater(relay.count, 0, link)
            self.struck += relay.count
        self.assertEqual(len(end["environments"]), 1, end)
        self.all_is_well()

    def once(self, link, change, each=FULL):
        """A job in which `change` makes of the n-th and the next chunk what is sent instead: of any that chance picks, or of each."""
        most = 12
        for n in range(1, most) if each else [faults.chance(self.id() + link).randrange(1, most)]:
            with self.subTest(link=link, n=n):
                self.once_at(link, n, change)

    def once_at(self, link, n, change):
        relay, seen = cluster.relays[link], []

        def spoil(chunk):
            seen.append(chunk)
            return change(seen, n) if len(seen) in (n, n + 1) else chunk
        relay.spoil = spoil
        self.completes(self.job("%s-%s-%d" % (self._testMethodName[5:], link, n)))
        relay.spoil = None
        self.assertGreater(len(seen), n)
        self.struck += 1

    # Below TLS: the stream ends, whatever it carried is asked for again over another one.
    def test_doubled(self):
        for link in cluster.relays:
            self.once(link, lambda seen, n: seen[-1] * 2 if len(seen) == n else seen[-1])
        self.all_is_well()

    def test_reordered(self):
        for link in cluster.relays:
            self.once(link, lambda seen, n: seen[-1][len(seen[-1]) // 2:] + seen[-1][:len(seen[-1]) // 2] if len(seen) == n else seen[-1])
        self.all_is_well()

    # One message is held back, and nothing tells that it will not come: it comes behind the next one, which is sent when patience has ended.
    def test_silent(self):
        links = sorted(cluster.relays)
        for link in links if FULL else [faults.chance(self.id()).choice(links)]:
            self.once(link, lambda seen, n: b"" if len(seen) == n else seen[n] + seen[n - 1], each=False)
        self.all_is_well()


class Nodes(Faults):
    def test_one_that_comes_back_after_its_lease_hands_its_output_in(self):
        node = cluster.programs["node"]

        def freeze():
            self.struck += node.kill(signal.SIGSTOP)
            threading.Timer(6.5, node.kill, [signal.SIGCONT]).start()
        cluster.relays["agent-broker"].trap(8, freeze)
        end = self.job("frozen")
        self.completes(end)
        self.all_is_well()

    def test_one_that_vanishes_for_good_leaves_a_job_that_ends_with_a_reason(self):
        node = cluster.programs["node"]

        def vanish():
            node.wanted = False
            self.struck += node.kill()
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
        self.struck += waiting.wait() == -signal.SIGKILL
        end = self.job("cli")
        self.completes(end)
        for n in range(40 if FULL else 8):
            out = os.path.join(cluster.dir, "fetched-%d" % n)
            fetching = subprocess.Popen([*command, "job", "result", end["jobId"], "--out", out], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
            time.sleep(0.005 * n * (1 if FULL else 5))
            fetching.kill()
            self.struck += fetching.wait() == -signal.SIGKILL
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
            self.struck += publishing.wait() == -signal.SIGKILL
        self.assertGreater(self.struck, 0)
        cluster.owner.run(*words)
        cluster.owner.run("asset", "verify", "larger")


class FullHome(Faults):
    """A person's folder on a disk that is full, or full after the first pages of what a command writes."""
    ROOM = 1 << 20
    PAGE = 4096

    def setUp(self):
        super().setUp()
        self.home = os.path.join(cluster.dir, "home-" + self._testMethodName)
        os.makedirs(self.home)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%d,mode=0700" % self.ROOM, "tmpfs", self.home], check=True)
        self.addCleanup(subprocess.run, ["umount", self.home], check=True)
        self.ballast = faults.Ballast(os.path.join(self.home, "ballast"))
        self.person = h.Person(cluster.up, self._testMethodName, ["owner", "consumer"])

    def files(self):
        """Everything in the folder with what it holds, but for locks, which stay and hold nothing."""
        found = {}
        for folder, _, names in os.walk(self.home):
            for path in (os.path.join(folder, n) for n in names):
                if path == self.ballast.path or (path.endswith(".lock") and os.path.getsize(path) == 0):
                    continue
                with open(path, "rb") as f:
                    found[os.path.relpath(path, self.home)] = hashlib.sha256(f.read()).hexdigest()
        return found

    def each_room(self, words, struck=1):
        """The command with less room than it needs, and then with enough."""
        failed = 0
        for pages in range(8) if FULL else [0, faults.chance(self.id()).randint(1, 3)]:
            before = self.files()
            self.ballast.fill()
            os.truncate(self.ballast.path, os.path.getsize(self.ballast.path) - pages * self.PAGE)
            try:
                self.person.run(*words)
            except h.CommandFailed as e:
                failed += 1
                self.assertEqual((e.code, e.reason), (h.INFRASTRUCTURE, "io"), e)
                self.assertIn("No space left on device", e.err)
                if pages == 0:
                    self.assertEqual(self.files(), before)
            self.ballast.empty()
            self.person.run(*words)
            self.assertEqual([f for f in self.files() if ".tmp" in f or ".new" in f], [])
        self.assertGreaterEqual(failed, struck)

    def test_rotate(self):
        self.each_room(["identity", "rotate"])
        self.person.run("asset", "list")

    def test_publish(self):
        policy = self.person.policy(os.path.join(cluster.dir, "full-home.yaml"), "dataset", cluster.digest, cluster.facts["nodeKey"], cluster.me.id)
        folder = os.path.join(cluster.dir, "nothing")
        self.each_room(["asset", "publish", folder, "--name", "full-home", "--kind", "dataset", "--policy", policy])
        self.person.run("asset", "verify", "full-home")


class Disk(Faults):
    def said_since(self, size):
        with open(cluster.log.name, encoding="utf-8", errors="replace") as f:
            f.seek(size)
            return f.read()

    def full_while_a_job_runs(self, name, folder, user):
        with cluster.small_disk(name, folder, user) as ballast:
            left = list(range(1, 13 if FULL else 10))
            if not FULL:
                faults.chance(self.id()).shuffle(left)
            while left and (FULL or not self.struck):
                n = left.pop(0)

                def fill():
                    ballast.fill()
                    threading.Timer(2, ballast.empty).start()
                before = os.path.getsize(cluster.log.name)
                cluster.relays["plane-broker"].trap(n, fill)
                self.completes(self.job("full-%s-%d" % (name, n)))
                self.struck += "disk is full" in self.said_since(before)
                ballast.empty()
        self.all_is_well()

    def test_of_the_broker(self):
        self.full_while_a_job_runs("broker", "broker", faults.UID_BASE + 1)

    def test_of_the_plane(self):
        self.full_while_a_job_runs("plane", "plane", faults.UID_BASE + 2)

    def test_of_the_node(self):
        """No attempt finds a place for its environment: the job ends and says why, and with room the next one is as ever."""
        with cluster.small_disk("node", "environments", 0, inodes=200) as ballast:
            self.completes(self.job("node-begins"))  # by then it has cleared what it found in its folder
            ballast.fill()
            job = cluster.submit("full-node")
            end = self.ends[job] = cluster.ended(job)
            ballast.empty()
            for said in [end["outcome"]["what"]] + [e["detail"] for e in end["environments"]]:
                self.assertIn("No space left on device", said)
            self.assertEqual((end["state"], end["outcome"]["reason"], len(end["environments"])), ("Failed", "io", 3), end)
            self.struck += 1
            cluster.leaves_nothing(job)
            self.completes(self.job("node-with-room"))
        self.all_is_well()

    def test_slow(self):
        """Whatever broker and plane keep waits for their disk."""
        slow = []
        for name in ("broker", "plane"):
            slow.append(faults.SlowDisk(cluster.programs[name], 1.0 if FULL else 0.1, os.path.join(cluster.dir, "slow-" + name)))
            self.addCleanup(slow[-1].close)
        end = self.job("slow-disk", 240)
        self.completes(end)
        self.assertEqual(len(end["environments"]), 1, end)
        for disk in slow:
            disk.close()
            self.assertGreaterEqual(disk.struck(), 5)
            self.struck += 1
        self.all_is_well()


if __name__ == "__main__":
    unittest.main()
