"""A job in a machine of its own: attested, run, its output released, and nothing left of it. SIMULATED here."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

UID_BASE = 1936100000
world = h.Shared(lambda: h.World(UID_BASE, environment="vm"))
setUpModule, tearDownModule = world.hooks()
# It counts what it sees of the machine and of the data.
SCRIPT = """
import json, os
rows = sum(1 for _ in open("/data/open/patients.csv")) - 1
json.dump({"rows": rows, "uid": os.getuid(), "interfaces": len(os.listdir("/proc/net/dev_snmp6")) if os.path.exists("/proc/net/dev_snmp6") else 0},
          open("/out/m.json", "w"))
"""


class Machines(unittest.TestCase):
    def finish(self, spec):
        job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
        world.engineer.run("job", "wait", job, timeout=600)
        return world.engineer.run("job", "get", job)

    def test_a_job_runs_in_a_machine_of_its_own(self):
        spec = h.job_spec("machine", [h.PYTHON, "-c", SCRIPT], [h.metrics("rows", "uid", "interfaces", maximum=100000)],
                          ["open"], run=300, environment="vm")
        job = self.finish(spec)
        self.assertEqual(job["state"], "Completed", json.dumps(job)[:2000] + world.up.tail())
        out = os.path.join(world.up.dir, "result")
        world.engineer.run("job", "result", job["jobId"], "--out", out)
        with open(os.path.join(out, "m.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), {"rows": 569, "uid": 1000, "interfaces": 0})
        receipt = os.path.join(world.up.dir, "receipt.json")
        world.engineer.run("receipt", "get", job["jobId"], "--out", receipt, "--force")
        report = world.engineer.run("receipt", "verify", receipt)
        self.assertTrue(report["valid"])
        self.assertIn("SIMULATED TEE " + world.up.facts["simRoot"], report["protection"])
        self.assertIn(world.up.facts["release"], report["protection"])
        ids = range(UID_BASE + 100, UID_BASE + 100 + 140000)
        mine = [c for _, _, uid, c, _ in h.processes() if uid in ids or ("glovebox-simtee launch" in c and world.up.dir in c)]
        self.assertEqual(mine, [])
        self.assertEqual(os.listdir(os.path.join(world.up.state, "environments")), [])
