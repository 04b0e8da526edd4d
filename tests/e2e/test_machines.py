"""A job in a machine of its own: attested, run, its output released, and nothing left of it. SIMULATED here."""
import json
import os
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # once, beside the modules whose jobs run on this host: its own run in machines either way

UID_BASE = h.own_uid_base()
world = h.Shared(lambda: h.World(UID_BASE, environment="vm"))
setUpModule, tearDownModule = world.hooks()
# It counts what it sees of the network, of itself and of the data. A file that is not there ends it: nothing is no answer.
NETWORK = """
def network():
    names = [line.split(":")[0].strip() for line in list(open("/proc/self/net/dev"))[2:]]
    routes = [line.split()[0] for line in list(open("/proc/self/net/route"))[1:]]
    return {"loopback": names.count("lo"), "interfaces": len(names) - names.count("lo"), "routes": len(routes)}
"""
SCRIPT = NETWORK + """
import json, os
rows = sum(1 for _ in open("/data/open/patients.csv")) - 1
json.dump({"rows": rows, "uid": os.getuid(), **network()}, open("/out/m.json", "w"))
"""


class Machines(unittest.TestCase):
    def test_the_question_after_the_network_sees_what_there_is(self):
        # As a control: asked here, it counts what the kernel lists elsewhere.
        found = {}
        exec(NETWORK, found)
        self.assertEqual(found["network"]()["interfaces"], len(set(os.listdir("/sys/class/net")) - {"lo"}))

    def finish(self, spec):
        job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
        world.engineer.run("job", "wait", job, timeout=600)
        return world.engineer.run("job", "get", job)

    def test_a_job_runs_in_a_machine_of_its_own(self):
        spec = h.job_spec("machine", [h.PYTHON, "-c", SCRIPT], [h.metrics("rows", "uid", "loopback", "interfaces", "routes", maximum=100000)],
                          ["open"], run=300, environment="vm")
        job = self.finish(spec)
        self.assertEqual(job["state"], "Completed", json.dumps(job)[:2000] + world.up.tail())
        out = os.path.join(world.up.dir, "result")
        world.engineer.run("job", "result", job["jobId"], "--out", out)
        with open(os.path.join(out, "m.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), {"rows": 569, "uid": 1000, "loopback": 1, "interfaces": 0, "routes": 0})
        receipt = os.path.join(world.up.dir, "receipt.json")
        world.engineer.run("receipt", "get", job["jobId"], "--out", receipt, "--force")
        report = world.engineer.run("receipt", "verify", receipt)
        self.assertTrue(report["valid"])
        self.assertIn("SIMULATED TEE " + world.up.facts["simRoot"], report["protection"])
        self.assertIn(world.up.facts["release"], report["protection"])
        self.assertEqual(left(), [])


# It holds what it read, says nothing, and waits to be stopped.
HOLD = "import time; held = open('/data/open/patients.csv').read(); time.sleep(3600)"


def machines():
    """(pid, parent) of each QEMU of this installation."""
    simtees = {p[0] for p in h.processes() if "glovebox-simtee launch" in p[3] and world.up.state in p[3]}
    return [(pid, parent) for pid, parent, _, command, _ in h.processes() if parent in simtees and "qemu" in command]


def status_of(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def memory_has(pid, secret):
    """Whether the memory of a process holds these bytes, as root of the host reads it."""
    with open("/proc/%d/maps" % pid, encoding="utf-8") as f:
        regions = [line.split(None, 2) for line in f]
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as memory:
        for region, rights, _ in regions:
            if "r" not in rights:
                continue
            at, end = (int(n, 16) for n in region.split("-"))
            kept = b""
            while at < end:
                try:
                    memory.seek(at)
                    block = memory.read(min(end - at, 1 << 24))
                except (OSError, ValueError, OverflowError):
                    break  # no memory behind it
                if not block:
                    break
                if secret in kept + block:
                    return True
                kept, at = block[-len(secret):], at + len(block)
    return False


class WhileItRuns(unittest.TestCase):
    """One machine that works until it is stopped, looked at from its host."""

    def setUp(self):
        spec = h.job_spec("held", [h.PYTHON, "-c", HOLD], [h.metrics("n")], ["open"], run=3600, environment="vm")
        self.job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
        deadline = time.monotonic() + 240
        while True:
            got = world.engineer.run("job", "get", self.job)
            if any(e["state"] == "Working" for e in got["environments"]):
                break
            if got["ended"] or time.monotonic() > deadline:
                raise AssertionError(json.dumps(got)[:2000] + world.up.tail())
            time.sleep(0.5)
        (self.qemu, self.simtee), = machines()
        with open(os.path.join(world.data, "patients.csv"), "rb") as f:
            self.secret = f.read().splitlines()[300]

    def test_a_machine_as_its_host_sees_it(self):
        """In this order: the last part ends it."""
        with self.subTest("QEMU has nothing of its host"):
            self.qemu_has_nothing_of_its_host()
        with self.subTest("neither has rights"):
            self.neither_has_rights()
        with self.subTest("the host's root finds the data in its memory, and nowhere after its end"):
            self.the_data_is_in_its_memory_and_nowhere_after_its_end()

    def qemu_has_nothing_of_its_host(self):
        self.assertEqual(set(os.listdir("/proc/%d/root" % self.qemu)) - {"lib32", "libx32", "lib64"}, {"bin", "dev", "etc", "lib", "proc", "usr"})
        self.assertEqual(set(os.listdir("/proc/%d/root/dev" % self.qemu)) - {"kvm"}, {"null", "urandom"})
        self.assertLessEqual(set(os.listdir("/proc/%d/root/etc" % self.qemu)), {"ld.so.cache", "alternatives"})
        for kind in ("net", "mnt", "ipc", "uts"):
            spaces = {os.readlink("/proc/%s/ns/%s" % (p, kind)) for p in (self.qemu, self.simtee)}
            self.assertEqual(len(spaces), 1, kind)
            self.assertNotIn(os.readlink("/proc/self/ns/" + kind), spaces)
        with open("/proc/%d/net/dev" % self.qemu, encoding="ascii") as f:
            self.assertEqual([line.split(":")[0].strip() for line in f if ":" in line], ["lo"])

    def neither_has_rights(self):
        for pid, uid, capabilities in ((self.qemu, UID_BASE + 100, 0), (self.simtee, UID_BASE + 101, 1 << 5)):  # CAP_KILL
            status = status_of(pid)
            self.assertEqual(status["Uid"].split(), [str(uid)] * 4)
            self.assertEqual(status["Gid"].split(), [str(uid)] * 4)
            self.assertEqual(status.get("Groups", "").split(), [])
            self.assertEqual({int(status[c], 16) for c in ("CapEff", "CapPrm")}, {capabilities})
            self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))

    def the_data_is_in_its_memory_and_nowhere_after_its_end(self):
        # It works before its program has read anything.
        deadline = time.monotonic() + 240
        while not memory_has(self.qemu, self.secret):
            self.assertLess(time.monotonic(), deadline, "emulation hides nothing from the host: it must be there")
        self.assertFalse(memory_has(self.simtee, self.secret))
        world.engineer.run("job", "cancel", self.job)
        while not world.engineer.run("job", "get", self.job)["ended"]:
            time.sleep(0.2)
        self.assert_nothing_left()
        # Plane, broker and node, which had their hands on it only sealed.
        for pid, _, _, command, _ in h.processes():
            if world.up.state in command:
                self.assertFalse(memory_has(pid, self.secret), command)
        for folder in (world.up.state, "/dev/shm"):
            found = subprocess.run(["grep", "-rlaF", self.secret.decode(), folder], capture_output=True, text=True, check=False).stdout
            self.assertEqual(found, "")

    def assert_nothing_left(self):
        deadline = time.monotonic() + 60
        while left():
            self.assertLess(time.monotonic(), deadline, str(left()))
            time.sleep(0.2)


def left():
    """What there is of machines of this installation on this host."""
    ids = range(UID_BASE + 100, UID_BASE + 100 + 140000)
    found = [p[:4] for p in h.processes() if p[2] in ids or ("glovebox-simtee launch" in p[3] and world.up.state in p[3])]
    return found + os.listdir(os.path.join(world.up.state, "environments"))
