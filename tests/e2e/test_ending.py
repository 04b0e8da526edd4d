"""How environments end when nobody waits for them: cancelled, killed with their node, killed with everything. In each case
nothing of them may be left: no process, mount, cgroup or folder."""
import json
import os
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # what is left on the host; of machines: test_machines.py

UID_BASE = 1_200_000_000  # nobody else's: processes are found by it
FIRST_AGENT = 100         # docs/architecture.md: user ids on one machine
PER_SLOT = 140_000
world = h.Shared(lambda: h.World(UID_BASE))
setUpModule, tearDownModule = world.hooks()


def cgroups(job):
    """Directories of the job's containers and agents, in every hierarchy."""
    found = []
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as f:
        points = [line.split()[1] for line in f if line.split()[2] in ("cgroup", "cgroup2")]
    for point in points:
        found += [os.path.join(point, d) for d in os.listdir(point) if d.startswith("glovebox-") and job[:16] in d]
    return sorted(set(found))


def traces(job):
    """What there is of the job's environments on this machine, by kind."""
    environments = os.path.join(world.up.state, "environments")
    everything = h.processes()
    first = UID_BASE + FIRST_AGENT
    return {
        "process": [(p[0], p[3]) for p in everything if first <= p[2] < first + PER_SLOT or environments + "/" in p[3]],
        "mount": [p[0] for p in everything if environments + "/" in p[4] or "glovebox-gbx-" + job[:16] in p[4]],
        "cgroup": cgroups(job),
        "folder": os.listdir(environments),
    }


def descendants(root):
    tree, grown = {root}, True
    everything = h.processes()
    while grown:
        more = {p[0] for p in everything if p[1] in tree} - tree
        tree |= more
        grown = bool(more)
    return tree


def kill_all(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # its parent's death was its own


class Ending(unittest.TestCase):
    def begin(self, script, attempts=1):
        """A job whose container runs; every kind of trace is there, or the test could find nothing."""
        spec = h.job_spec("ending", [h.PYTHON, "-c", script], [h.metrics("ok")], ["open"], run=900)
        spec["spec"]["attempts"] = attempts
        job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
        self.until(job, lambda j: j["environments"] and j["environments"][-1]["state"] == "Working")
        deadline = time.monotonic() + 30
        while not any("glovebox-gbx-" in c for c in cgroups(job)) or not any(script in p[3] for p in h.processes()):
            self.assertLess(time.monotonic(), deadline, world.up.tail())
            time.sleep(0.05)
        there = traces(job)
        for kind, what in there.items():
            self.assertTrue(what, kind)
        return job

    def until(self, job, good, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            got = world.engineer.run("job", "get", job)
            if good(got):
                return got
            self.assertLess(time.monotonic(), deadline, (got, world.up.tail()[-2000:]))
            time.sleep(0.1)

    def gone(self, job, seconds):
        deadline = time.monotonic() + seconds
        while any(traces(job).values()):
            self.assertLess(time.monotonic(), deadline, (traces(job), world.up.tail()[-2000:]))
            time.sleep(0.1)

    def test_cancel_ends_a_running_container_at_once(self):
        job = self.begin("import time; time.sleep(600)")
        began = time.monotonic()
        world.engineer.run("job", "cancel", job)
        got = self.until(job, lambda j: j["environments"][-1]["state"] not in ("Working", "Sealed"), 10)
        self.assertEqual((got["state"], got["environments"][-1]["state"], got["environments"][-1]["reason"]),
                         ("Cancelled", "Destroyed", "job-cancelled"), got)
        self.gone(job, 2)
        self.assertLess(time.monotonic() - began, 10)
        # The claim of destruction names nothing left behind, and the node takes the next job.
        self.until(job, lambda j: j["environments"][-1]["destroyedClaim"], 5)
        after = self.begin("import time; time.sleep(600)")
        operator = h.Person(world.up, "operator", ["operator"], world.up.facts["operatorInvite"])
        operator.run("job", "cancel", after)
        self.gone(after, 10)
        outcome = world.engineer.run("job", "get", after)["outcome"]
        self.assertEqual((outcome["reason"], outcome["what"]),
                         ("job-cancelled", f"cancelled by the operator operator ({operator.id})"))

    def failed(self, change):
        spec = h.job_spec("failing", [h.PYTHON, "-c", "pass"], [h.metrics("ok")], ["open"])
        change(spec["spec"])
        job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
        got = self.until(job, lambda j: j["state"] in ("Failed", "Completed", "Rejected"))
        self.gone(job, 10)
        return got

    def test_an_image_gets_the_memory_that_its_job_asked_for(self):
        def less(spec):
            spec["resources"]["image"] = "1MiB"
        got = self.failed(less)
        self.assertEqual((got["state"], got["outcome"]["reason"]), ("Failed", "image-refused"), got)

    def test_a_command_that_the_image_does_not_hold_is_named(self):
        def mistyped(spec):
            spec["command"] = ["/bin/nope"]
        got = self.failed(mistyped)
        self.assertEqual((got["state"], got["outcome"]["reason"]), ("Failed", "not-found"), got)
        for word in ("spec.command[0]", "an executable file in the image", "/bin/nope"):
            self.assertIn(word, got["outcome"]["what"], got)

    def test_after_data_was_opened_a_failure_is_a_reason_and_no_text(self):
        def nothing_there(spec):
            spec["command"] = ["/data/open/no-such-program"]
        got = self.failed(nothing_there)
        self.assertEqual((got["state"], got["outcome"]["reason"]), ("Failed", "sandbox-setup"), got)
        self.assertNotIn("no-such-program", json.dumps(got["outcome"]) + json.dumps(got["environments"]))
        described = subprocess.run([os.path.join(h.BIN, "glovebox"), "--home", world.engineer.home, "job", "describe", got["jobId"]],
                                   capture_output=True, text=True, timeout=60, check=True).stdout
        self.assertRegex(described, r", sandbox-setup(,|\n)")

    def test_a_container_that_ignores_every_signal_is_cancelled_too(self):
        job = self.begin("import signal, time\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n"
                         "  except (OSError, ValueError): pass\nwhile True: time.sleep(600)")
        world.engineer.run("job", "cancel", job)
        self.until(job, lambda j: j["environments"][-1]["state"] == "Destroyed", 10)
        self.gone(job, 2)

    def test_killed_node_and_agent_leave_nothing(self):
        job = self.begin("import time; time.sleep(600)")
        # The node's children first, lest they clear up: that is the agent's whole tree, with the container.
        node = [p[0] for p in h.processes() if "glovebox-node" in p[3] and world.up.state in p[3]]
        self.assertEqual(len(node), 1)
        kill_all([p for p in descendants(node[0]) if p != node[0]] + node)
        self.gone(job, 15)  # `up` starts the node again
        got = self.until(job, lambda j: j["state"] != "Running", 60)
        self.assertEqual((got["state"], got["outcome"]["reason"]), ("Failed", "lost"), got)

    def test_everything_killed_and_started_again_retries(self):
        job = self.begin("import time; time.sleep(6); open('/out/m.json','w').write('{\"ok\":1}')", attempts=2)
        tree = descendants(world.up.up.pid)
        self.assertGreater(len(tree), 8, tree)
        kill_all(sorted(tree, reverse=True))
        world.up.up.wait()
        self.assertTrue(traces(job)["folder"])
        world.up.start()
        for person in (world.hospital, world.engineer, world.stranger):
            person.run("init", "--plane", world.up.facts["plane"], "--ca", world.up.facts["ca"], "--set", world.up.facts["setId"], "--force")
        # Nothing of the first attempt is there when the second begins.
        first = "%s-1" % job[:16]
        deadline = time.monotonic() + 15
        while any(first in c for c in cgroups(job)) or first in os.listdir(os.path.join(world.up.state, "environments")):
            self.assertLess(time.monotonic(), deadline, world.up.tail())
            time.sleep(0.1)
        got = self.until(job, lambda j: j["state"] not in ("Running", "Authorized", "Reviewing"), 90)
        self.assertEqual(got["state"], "Completed", got)
        self.assertEqual([e["state"] for e in got["environments"]][0], "Lost", got)
        self.assertEqual(len(got["environments"]), 2, got)
        self.gone(job, 10)


if __name__ == "__main__":
    unittest.main()
