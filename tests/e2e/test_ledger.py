"""What an owner and a consumer see of the leak ledger, and signs of life for a policy that wants them."""
import os
import sys
import time
import unittest
from xml.etree import ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402
world = h.Shared(h.World)
setUpModule, tearDownModule = world.hooks()


def run_job(asset, code="0"):
    script = "open('/out/m.json','w').write('{\"ok\":1}'); raise SystemExit(%s)" % code
    spec = h.job_spec("ledger", [h.PYTHON, "-c", script], [h.metrics("ok")], [asset])
    job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
    deadline = time.monotonic() + 120
    while True:
        got = world.engineer.run("job", "get", job)
        if got["state"] in ("Completed", "Failed", "Rejected", "Denied"):
            return job, got
        assert time.monotonic() < deadline, (got, world.up.tail())
        time.sleep(0.2)


class Ledgers(unittest.TestCase):
    def test_owner_and_consumer_see_what_a_job_told(self):
        before = world.hospital.run("ledger", "show", "open")["items"][0]
        self.assertEqual((before["spentFreeBits"], before["left"]), (0, before["totalFreeBits"]))
        job, got = run_job("open")
        self.assertEqual(got["state"], "Completed", got)
        item = world.hospital.run("ledger", "show", "open")["items"][0]
        self.assertEqual([e["jobId"] for e in item["entries"]], [job])
        entry = item["entries"][0]
        self.assertEqual((entry["state"], entry["consumerId"]), ("released", world.engineer.id))
        self.assertGreaterEqual(entry["freeBits"], 8)
        self.assertEqual(item["spentFreeBits"], entry["freeBits"])
        self.assertEqual(item["left"], item["totalFreeBits"] - entry["freeBits"])
        self.assertEqual(item["consumers"][0]["periodFreeBits"], entry["freeBits"])
        self.assertEqual(item["plot"]["freeBits"][-1], entry["freeBits"])
        own = world.engineer.run("ledger", "show", "open")["items"][0]
        self.assertTrue(own["own"])
        self.assertEqual(own["spentFreeBits"], entry["freeBits"])
        self.assertEqual(world.stranger.run("ledger", "show", "open")["items"][0]["entries"], [])
        limits = world.hospital.run("ledger", "limits")
        self.assertEqual((limits["refused"], limits["notAsked"]), ([], 0))
        names = {i["name"]: i for i in limits["items"]}
        self.assertEqual(names["open"]["left"], item["left"])
        self.assertEqual((names["wdbc"]["autoClearFreeBits"], names["wdbc"]["periodFreeBits"]), (2048, 16384))

    def test_a_picture(self):
        path = os.path.join(world.up.dir, "drawn.yaml")
        world.hospital.policy(path, "dataset", world.digest, world.up.facts["nodeKey"], world.engineer.id, None, h.LOOSE)
        world.hospital.run("asset", "publish", world.data, "--name", "drawn", "--kind", "dataset", "--policy", path)
        world.hospital.run("lease", "grant", "--asset", "drawn", "--consumer", world.engineer.id, "--jobs", "9", "--days", "1")
        path = os.path.join(world.up.dir, "plot.svg")

        def drawn():
            item = world.hospital.run("ledger", "show", "drawn", "--svg", path, "--force")["items"][0]
            root = ElementTree.parse(path).getroot()
            self.assertEqual(root.get("role"), "img")
            said = {e.tag.split("}")[1]: e.text for e in root if e.tag.endswith(("title", "desc"))}
            return item, said["desc"], [e.text for e in root if e.tag.endswith("}text")], root
        item, said, words, _ = drawn()
        limit = "limit {:,}".format(item["totalFreeBits"])
        self.assertIn("No job has cost this asset anything yet.", words)
        self.assertIn(limit, words)
        for _ in range(2):
            self.assertEqual(run_job("drawn")[1]["state"], "Completed")
        item, said, words, root = drawn()
        spent = "{:,}".format(sum(e["freeBits"] for e in item["entries"]))
        self.assertEqual(len(item["entries"]), 2)
        self.assertIn(spent, words)
        self.assertIn("rise to %s from " % spent, said)
        self.assertTrue([w for w in words if w.startswith(limit)], words)
        line = next(e for e in root if e.tag.endswith("polyline")).get("points").split()
        heights = [int(point.split(",")[1]) for point in line]
        self.assertEqual(heights, sorted(heights, reverse=True), "it only rises")
        self.assertLess(heights[-1], heights[0])
        with self.assertRaises(h.CommandFailed) as refused:
            world.hospital.run("ledger", "show", "drawn", "--force")
        self.assertEqual((refused.exception.code, refused.exception.reason), (h.USAGE, "usage"))
        with self.assertRaises(h.CommandFailed) as refused:
            world.hospital.run("ledger", "show", "--svg", path)
        self.assertEqual((refused.exception.code, refused.exception.reason), (h.USAGE, "usage"))
        for command in (("ledger", "show", "nobody-has-this"), ("ledger", "limits", "nobody-has-this")):
            with self.assertRaises(h.CommandFailed) as refused:
                world.hospital.run(*command)
            self.assertEqual(refused.exception.reason, "not-found")


class Freshness(unittest.TestCase):
    def test_a_policy_that_nobody_confirms_gives_nothing(self):
        fresh = 12
        path = os.path.join(world.up.dir, "fresh.yaml")
        world.hospital.policy(path, "dataset", world.digest, world.up.facts["nodeKey"], world.engineer.id, None, h.LOOSE)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        self.assertIn("freshForSeconds: 0", text)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text.replace("freshForSeconds: 0", "freshForSeconds: %d" % fresh))
        world.hospital.run("asset", "publish", world.data, "--name", "fresh", "--kind", "dataset", "--policy", path)
        world.hospital.run("lease", "grant", "--asset", "fresh", "--consumer", world.engineer.id, "--jobs", "9", "--days", "1")
        self.assertEqual(world.hospital.run("asset", "show", "fresh")["freshness"]["by"], "publication")
        deadline = time.monotonic() + 60
        while world.hospital.run("policy", "explain", "fresh")["freshness"]["fresh"]:
            self.assertLess(time.monotonic(), deadline)
        _, got = run_job("fresh")
        self.assertEqual(got["state"], "Denied", got)
        self.assertIn("policy-not-fresh", str(got))
        sent = world.hospital.run("policy", "beacon", "fresh")["items"]
        self.assertEqual([(i["name"], i["policySerial"]) for i in sent], [("fresh", 1)])
        self.assertTrue(world.hospital.run("asset", "show", "fresh")["freshness"]["fresh"])
        spec = h.job_spec("ledger", [h.PYTHON, "-c", "pass"], [h.metrics("ok")], ["fresh"])
        self.assertTrue(world.engineer.run("job", "plan", world.spec(spec))["allowed"])
        for who, what, reason in ((world.hospital, "open", "wrong-state"), (world.engineer, "fresh", "wrong-owner"),
                                  (world.hospital, "nothing", "not-found")):
            with self.assertRaises(h.CommandFailed) as refused:
                who.run("policy", "beacon", what)
            self.assertEqual(refused.exception.reason, reason)


if __name__ == "__main__":
    unittest.main()
