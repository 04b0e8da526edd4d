"""Several owners in one job: a dataset, a model and an image of three owners, and a consumer who owns none of them."""
import json
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402
from test_terminal import Terminal  # noqa: E402

COMMAND = [h.PYTHON, "-c", """
import json
rows = open('/data/data/numbers.csv').read().split()
weight = int(open('/data/model/weight').read())
json.dump({'sum': weight * sum(map(int, rows))}, open('/out/m.json', 'w'))
"""]
CHARGED = 8 + 17  # control channel; a number from 0 to 100,000


class Three:
    """hospital: data, lab: model, vendor: image, engineer: computes."""

    def __init__(self):
        layout, self.digest = h.image("study-image")
        self.up = h.Installation()
        self.hospital, self.lab, self.vendor = (h.Person(self.up, n, ["owner"]) for n in ("hospital", "lab", "vendor"))
        self.engineer = h.Person(self.up, "engineer", ["consumer"])
        self.owners = {"data": self.hospital, "model": self.lab, "tool": self.vendor}
        for name, file, text in (("data", "numbers.csv", "1\n2\n3\n4\n"), ("model", "weight", "100")):
            folder = os.path.join(self.up.dir, name)
            os.mkdir(folder)
            with open(os.path.join(folder, file), "w", encoding="utf-8") as f:
                f.write(text)
        for name in self.owners:
            policy = self.policy(name)
            if name == "tool":
                self.vendor.run("image", "import", layout, "--name", name, "--policy", policy)
            else:
                self.owners[name].run("asset", "publish", os.path.join(self.up.dir, name), "--name", name, "--kind",
                                      "dataset" if name == "data" else "model", "--policy", policy)
            self.owners[name].run("lease", "grant", "--asset", name, "--consumer", self.engineer.id, "--jobs", "50", "--days", "1")

    def policy(self, name, *extra, join=("data", "model", "tool"), command=None, slot=0):
        kind = {"data": "dataset", "model": "model", "tool": "image"}[name]
        args = ["policy", "new", "--yes", "--kind", kind, "--purpose", h.PURPOSE, "--image-digest", self.digest,
                *self.owners[name].where(self.up.facts["nodeKey"]), "--custody", "operator", "--rollback", "unprotected",
                "--release-slot", str(slot), "--days", "2", "--force", "--out", os.path.join(self.up.dir, name + ".yaml"), *extra]
        for other in join:
            if other not in (name, "tool"):
                args += ["--join-owner", self.owners[other].id]
        if kind != "image":
            args += ["--command", json.dumps(command or COMMAND)]
        self.owners[name].run(*args)
        return args[args.index("--out") + 1]

    def sign(self, name, *args, **kwargs):
        self.owners[name].run("policy", "sign", name, "--policy", self.policy(name, *args, **kwargs))

    def close(self):
        self.up.close()


world = h.Shared(Three)
setUpModule, tearDownModule = world.hooks()


class Owners(unittest.TestCase):
    def spec(self, **changes):
        spec = h.job_spec("three-owners", COMMAND, [h.metrics("sum", maximum=100000)], ["data", "model"])
        spec["spec"]["image"] = {"asset": "tool"}
        spec["spec"].update(changes)
        return h.write_json(os.path.join(world.up.dir, "spec.json"), spec)

    def denied(self, path):
        """{(check, asset, owner): reason} of what denies."""
        with self.assertRaises(h.CommandFailed) as caught:
            world.engineer.run("job", "plan", path)
        self.assertEqual(caught.exception.code, h.DENIED, caught.exception)
        checks = json.loads(caught.exception.out)["checks"]
        return {(c["check"], c["asset"], c.get("ownerId", "")): c["reason"] for c in checks if not c["allowed"]}

    def test_three_owners_agree_and_each_is_charged(self):
        path = self.spec()
        planned = world.engineer.run("job", "plan", path)["plan"]
        owners = {p.id for p in world.owners.values()}
        self.assertEqual({p["ownerId"] for p in planned["policies"]}, owners)
        job = world.engineer.run("job", "submit", path)["jobId"]
        world.engineer.run("job", "wait", job, timeout=200)
        out = os.path.join(world.up.dir, "result")
        world.engineer.run("job", "result", job, "--out", out)
        with open(os.path.join(out, "m.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), {"sum": 1000})
        receipt = os.path.join(world.up.dir, "receipt.json")
        world.engineer.run("receipt", "get", job, "--out", receipt, "--force")
        world.engineer.run("receipt", "verify", receipt, "--set", world.up.facts["setId"])
        with open(receipt, encoding="utf-8") as f:
            charges = json.load(f)["release"]["body"]["charges"]
        self.assertEqual({c["ownerId"]: c["freeBits"] for c in charges}, {o: CHARGED for o in owners})

    def test_one_owner_who_does_not_name_another_denies(self):
        self.addCleanup(world.sign, "model")
        world.sign("model", join=("tool",))
        self.assertEqual(self.denied(self.spec()), {("join", "model", world.lab.id): "join-not-allowed"})
        self.addCleanup(world.sign, "tool")
        world.sign("tool", join=("model",))
        self.assertEqual(self.denied(self.spec()), {("join", "model", world.lab.id): "join-not-allowed",
                                                    ("join", "image", world.vendor.id): "join-not-allowed"})

    def test_command_args_and_env_are_held_by_each(self):
        stranger = COMMAND + ["--verbose"]
        self.assertEqual(self.denied(self.spec(command=COMMAND, args=["--verbose"])),
                         {("command", "data", world.hospital.id): "command-not-allowed",
                          ("command", "model", world.lab.id): "command-not-allowed"})
        self.addCleanup(world.sign, "data")
        world.sign("data", command=stranger)
        self.assertEqual(self.denied(self.spec(command=COMMAND, args=["--verbose"])),
                         {("command", "model", world.lab.id): "command-not-allowed"})
        world.sign("data")
        self.assertEqual(set(self.denied(self.spec(env={"LD_PRELOAD": "/data/data/numbers.csv"})).values()), {"command-not-allowed"})

    def test_the_strictest_value_counts(self):
        self.addCleanup(world.sign, "model")
        world.sign("model", "--free-bits", "9", slot=60)
        planned = world.engineer.run("job", "plan", self.spec())
        self.assertEqual((planned["plan"]["gate"]["autoClearFreeBits"], planned["plan"]["gate"]["releaseSlotSeconds"]), (9, 60))
        said = [c for c in planned["checks"] if c["check"] == "clearance" and c["reason"] == "free-bits"]
        self.assertEqual([c["asset"] for c in said], ["model"], planned["checks"])

    def test_what_cannot_be_merged_shows_each_owners_side(self):
        self.addCleanup(world.sign, "data")
        self.addCleanup(world.sign, "model")
        world.sign("data", slot=86399)
        world.sign("model", slot=86398)
        self.assertEqual(self.denied(self.spec()),
                         {("merge", "job", ""): "policy-unmergeable",
                          ("merge", "data", world.hospital.id): "policy-unmergeable",
                          ("merge", "model", world.lab.id): "policy-unmergeable",
                          ("merge", "image", world.vendor.id): "policy-unmergeable"})
        together = world.engineer.run("policy", "explain", "data", "--with", "model", "--with", "tool")
        self.assertEqual(len(together["obstacles"]), 1, together)
        self.assertIn("releaseSlotSeconds 86398", together["obstacles"][0])

    def test_one_owner_revokes_while_the_container_runs(self):
        """Keys left already; what is asked again before the release is whether every owner still stands by it."""
        slow = [h.PYTHON, "-c", "import time; time.sleep(8); open('/out/m.json', 'w').write('{\"sum\": 1}')"]
        for name in ("data", "model"):
            self.addCleanup(world.sign, name)
            world.sign(name, command=slow)
        job = world.engineer.run("job", "submit", self.spec(command=slow))["jobId"]
        deadline = time.monotonic() + h.START_S
        while [e["state"] for e in world.engineer.run("job", "get", job)["environments"]] != ["Working"]:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        world.lab.run("policy", "sign", "model", "--revoke")
        self.addCleanup(world.lab.run, "policy", "sign", "model", "--reinstate")
        with self.assertRaises(h.CommandFailed) as caught:
            world.engineer.run("job", "wait", job, timeout=100)
        self.assertEqual(caught.exception.code, h.DENIED, caught.exception)
        self.assertEqual(world.engineer.run("job", "get", job)["state"], "Revoked")
        self.assertIn("policy-revoked", caught.exception.err)
        with self.assertRaises(h.CommandFailed) as caught:
            world.engineer.run("job", "plan", self.spec(command=slow))
        self.assertEqual((caught.exception.code, caught.exception.reason), (h.DENIED, "policy-revoked"))

    def test_explained_together(self):
        together = world.engineer.run("policy", "explain", "data", "--with", "model", "--with", "tool")
        self.assertEqual(together["obstacles"], [])
        self.assertTrue(any("count against data, model, tool" in line for line in together["together"]), together)
        for again in (["data"], ["model", "model"]):
            with self.assertRaises(h.CommandFailed) as caught:
                world.engineer.run("policy", "explain", "data", *[word for name in again for word in ("--with", name)])
            self.assertEqual((caught.exception.code, caught.exception.reason), (h.USAGE, "usage"), again)


class Interview(unittest.TestCase):
    """A person at a terminal is asked in plain words, and what was not said is not allowed."""

    def talk(self, path, answers):
        t = Terminal(os.path.join(h.BIN, "glovebox"), "--home", os.path.join(world.up.dir, "home-hospital"), "policy", "new",
                     "--force", "--out", path)
        for question, answer in answers:
            t.await_text(question)
            if answer is None:
                continue
            t.seen = b""
            t.type(answer + b"\n")
        self.assertEqual(t.wait(), 0, t.seen)
        return world.hospital.run("policy", "explain", path)

    def setUp(self):
        self.data = os.path.join(world.up.dir, "measured")
        os.makedirs(self.data, exist_ok=True)
        with open(os.path.join(self.data, "visits.csv"), "w", encoding="utf-8") as f:
            f.write("patient,sugar\n" + "".join("%d,%d\n" % (i % 97, i * i % 89) for i in range(1000)))
        self.cards = []
        for person in (world.lab, world.engineer, world.vendor):
            card = os.path.join(world.up.dir, "card-" + person.id)
            self.cards.append(h.write_json(card, person.run("identity", "show")).encode())

    def answers(self, yes):
        return [(b"dataset, model or image", b""), (b"For which purpose", b"research"), (b"more?", b""),
                (b"without a lease", b""), (b"Which image", world.digest.encode()), (b"more?", b""),
                (b"Which command line", b"/usr/bin/python3 /opt/study/study.py"), (b"more?", b""),
                (b"in the same job", world.lab.id.encode()), (b"more?", b""),
                (b"SIMULATED TEE" if world.up.facts["simRoot"] else b"NO TEE", yes), (b"CUSTODY", yes), (b"ROLLBACK", yes),
                (b"In which folder here", self.data.encode() + b"-mistyped"), (b"In which folder here", self.data.encode()),
                (b"visits.csv: a row holds about", None),
                (b"the gate itself count", b"visits.csv"), (b"the gate itself count", b"visits.csv=patient"), (b"more?", b""), (b"whom the rows are about", b"12"),
                (b"bits of such tables", b"0"),
                (b"rules on it", self.cards[0]), (b"more?", self.cards[0]), (b"each reviewer once", None), (b"more?", self.cards[1]), (b"more?", b""),
                (b"another owner of the same job", self.cards[2]), (b"more?", b""), (b"of these 2 must approve", b"3"), (b"of these 2 must approve", b"2"),
                (b"How many bits", b"512"), (b"how many days", b"")]

    def test_every_question_answered_makes_a_policy_that_allows_a_job(self):
        path = os.path.join(world.up.dir, "asked.yaml")
        said = self.talk(path, self.answers(b"yes"))
        clauses = said["clauses"]
        self.assertEqual(said["deadEnds"], [])
        self.assertEqual((clauses["purposes"], clauses["custody"], clauses["rollback"], clauses["gate"]["autoClearFreeBits"]),
                         (["research"], ["operator"], "unprotected", 512))
        self.assertEqual(clauses["commands"], [{"argv": ["/usr/bin/python3", "/opt/study/study.py"], "env": []}])
        self.assertEqual(clauses["joinOwners"], [world.lab.id])
        self.assertEqual([r["identityId"] for r in clauses["reviewers"]], [world.lab.id, world.engineer.id])
        self.assertEqual([r["identityId"] for r in clauses["mayPreview"]], [world.lab.id, world.engineer.id, world.vendor.id])
        self.assertEqual((clauses["reviewersNeeded"], clauses["tables"]), (2, [{"file": "visits.csv", "subject": "patient"}]))
        self.assertEqual((clauses["gate"]["cellSubjects"], clauses["gate"]["autoClearVerifiedBits"]), (12, 0))
        self.assertGreater(clauses["rowBits"], 0)
        self.assertEqual(clauses["tee"][0]["root"], "none:" + world.up.facts["nodeKey"])

    def test_what_is_not_agreed_to_by_name_is_not_allowed(self):
        path = os.path.join(world.up.dir, "refused.yaml")
        said = self.talk(path, self.answers(b"no"))
        clauses = said["clauses"]
        self.assertEqual((clauses["tee"], clauses["custody"], clauses["rollback"]), ([], [], "witnessed"))
        self.assertEqual(len(said["deadEnds"]), 3, said)


if __name__ == "__main__":
    unittest.main()
