"""An output that nobody rules on, with real processes: the broker's clock jumps past the end of the hold, and the hold is a rejection."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402
import test_clocks  # noqa: E402

RUNS_WITH = ("local",)  # as test_clocks.py

# Its broker's time never falls again, so it is nobody else's; nor are its ids.
cluster = h.Shared(lambda: test_clocks.Cluster(ids=20_000_000))
setUpModule, tearDownModule = cluster.hooks()


class Holds(unittest.TestCase):
    def ask_anna(self):
        """New policies for what the cluster has published: she looks at everything that leaves the owner's data."""
        anna = h.Person(cluster.up, "anna", ["reviewer"])
        card = h.write_json(os.path.join(cluster.dir, "anna.json"), anna.run("identity", "show"))
        for who, other, name, kind, extra in (
                (cluster.me, cluster.owner, "noop", "image", ["--may-preview", card]),
                (cluster.owner, cluster.me, "nothing", "dataset", ["--reviewer", card, "--free-bits", "0"])):
            path = who.policy(os.path.join(cluster.dir, name + "-reviewed.yaml"), kind, cluster.digest, cluster.facts["nodeKey"], other.id,
                              extra=["--consumer", cluster.me.id, "--no-lease", *extra])
            who.run("policy", "sign", name, "--policy", path)
        return anna

    def test_what_nobody_ruled_on_in_two_weeks_is_rejected(self):
        anna = self.ask_anna()
        job = cluster.submit("held", attempts=1)
        deadline = time.monotonic() + 60
        while job not in [i["jobId"] for i in anna.run("review", "list")["items"]]:
            self.assertLess(time.monotonic(), deadline, cluster.tail())
            time.sleep(0.1)
        budget, = [p["budget"] for p in anna.run("review", "show", job)["policies"] if p["mine"]]
        self.assertEqual((budget["period"]["before"], budget["total"]["before"]), (0, 0))
        # The broker alone decides what time it is; the plane asks it once a minute.
        cluster.set("broker", 14 * 86400 + 60)
        end = cluster.ended(job, 150)
        self.assertEqual((end["state"], end["outcome"]["reason"], end["outcome"]["actual"]), ("Rejected", "rejected", "hold-expired"), end)
        self.assertEqual(anna.run("review", "list")["items"], [])
        for command in (("show", job), ("approve", job, "--yes")):
            with self.assertRaises(h.CommandFailed) as caught:
                anna.run("review", *command)
            self.assertEqual(caught.exception.reason, "wrong-state")
        entry, = cluster.owner.run("ledger", "show", "nothing")["items"][0]["entries"]
        self.assertEqual((entry["state"], entry["freeBits"]), ("rejected", 8))


if __name__ == "__main__":
    unittest.main()
