"""What a running job survives: its broker killed while its container runs, its broker hanging or its plane away when it ends.
And the largest result that may travel."""
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # looks for the container among the host's processes

world = h.Shared(h.World)
setUpModule, tearDownModule = world.hooks()


def programs(name):
    """Process ids of the installation's program of that name."""
    return [p[0] for p in h.processes() if p[1] == world.up.up.pid and p[3].split(" ")[0].endswith("/" + name)]


def connections(pid, port):
    """Local ports of that process's TCP connections to that port of 127.0.0.1."""
    sockets = set()
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            sockets.add(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
        except OSError:
            pass  # closed meanwhile
    with open("/proc/net/tcp", encoding="ascii") as f:
        lines = [line.split() for line in f][1:]
    return {w[1] for w in lines if w[2] == "0100007F:%04X" % port and "socket:[%s]" % w[9] in sockets}


class Restarts(unittest.TestCase):
    def submit(self, seconds, outputs=None):
        script = "import time; time.sleep(%d); open('/out/m.json','w').write('{\"ok\":1}')  # %s" % (seconds, self.id())
        spec = h.job_spec("restarts", [h.PYTHON, "-c", script], outputs or [h.metrics("ok")], ["open"], run=120)
        return world.engineer.run("job", "submit", world.spec(spec))["jobId"]

    def until(self, job, good, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            try:
                got = world.engineer.run("job", "get", job)
            except h.CommandFailed as e:  # the plane is away
                self.assertEqual(e.code, h.INFRASTRUCTURE, e)
                got = None
            if got and good(got):
                return got
            self.assertLess(time.monotonic(), deadline, (got, world.up.tail()[-3000:]))
            time.sleep(0.1)

    def wait(self, good, seconds=60):
        deadline = time.monotonic() + seconds
        while not good():
            self.assertLess(time.monotonic(), deadline, world.up.tail()[-3000:])
            time.sleep(0.1)

    def container(self):
        return any(p[3].startswith(h.PYTHON + " -c import time;") and self.id() in p[3] for p in h.processes())

    def runs(self, job):
        self.working(job)
        self.wait(self.container)

    def working(self, job):
        self.until(job, lambda j: j["environments"] and j["environments"][-1]["state"] == "Working")

    def completes(self, job):
        got = self.until(job, lambda j: j["state"] in ("Completed", "Failed", "Rejected", "Cancelled"), 90)
        self.assertEqual((got["state"], len(got["environments"])), ("Completed", 1), (got, world.up.tail()[-3000:]))
        return got

    def only(self, name):
        pids = programs(name)
        self.assertEqual(len(pids), 1, name)
        return pids[0]

    def test_the_broker_killed_while_the_container_runs(self):
        job = self.submit(5)
        self.runs(job)
        os.kill(self.only("glovebox-broker"), signal.SIGKILL)
        self.assertTrue(self.container())
        self.completes(job)

    def test_the_broker_hangs_while_the_container_ends(self):
        job = self.submit(5)
        self.runs(job)
        broker, node = self.only("glovebox-broker"), self.only("glovebox-node")
        words = [p[3] for p in h.processes() if p[0] == node][0].split(" ")
        port = int(words[words.index("--broker") + 1].rsplit(":", 1)[1])
        os.kill(broker, signal.SIGSTOP)  # it takes connections and data, and says nothing
        try:
            first = connections(node, port)
            self.assertEqual(len(first), 1)
            self.wait(lambda: not self.container())

            def another():
                now = connections(node, port)
                return now and not now & first
            self.wait(another, 120)
        finally:
            os.kill(broker, signal.SIGCONT)
        self.completes(job)

    def test_the_plane_away_while_the_container_ends(self):
        job = self.submit(5)
        self.runs(job)
        os.kill(world.up.up.pid, signal.SIGSTOP)  # who would start it again at once
        try:
            os.kill(self.only("glovebox-plane"), signal.SIGKILL)
            self.assertTrue(self.container())
            self.wait(lambda: not self.container())
        finally:
            os.kill(world.up.up.pid, signal.SIGCONT)
        self.completes(job)

    def test_the_largest_result_travels_and_a_larger_one_is_refused_at_once(self):
        fixed = 8 + 4 + 7 + 512 + 7 + len("m.json") + 7 + 3  # docs/gate.md: what a bundle holds beside one output
        output = dict(h.metrics("ok"), maxBytes=(16 << 20) - fixed)
        job = self.submit(0, [output])
        self.completes(job)
        folder = os.path.join(world.up.dir, "result")
        world.engineer.run("job", "result", job, "--out", folder)
        with open(os.path.join(folder, "m.json"), encoding="utf-8") as f:
            self.assertEqual(f.read(), '{"ok":1}\n')
        output["maxBytes"] += 1
        spec = h.job_spec("larger", [h.PYTHON, "-c", "pass"], [output], ["open"])
        for verb in ("validate", "plan", "submit"):
            with self.assertRaises(h.CommandFailed) as refused:
                world.engineer.run("job", verb, world.spec(spec))
            self.assertEqual((refused.exception.code, refused.exception.reason), (h.USAGE, "bad-value"), verb)
            self.assertIn("at most 16777216 bytes", refused.exception.err)


if __name__ == "__main__":
    unittest.main()
