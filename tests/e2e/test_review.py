"""Held outputs, from the hold to what their reviewers let out: two owners, three reviewers, and a consumer whom an owner also
named as a reviewer."""
import json
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402
import test_guides  # noqa: E402
from test_terminal import Terminal  # noqa: E402

SCRIPT = "import json; json.dump({'sum': 42}, open('/out/m.json', 'w'))"
CHARGED = 8 + 10  # control channel; a number from 0 to 1,000
CODE_BITS = 4


def tallies(item):
    return [(p["approved"], p["needed"]) for p in item["policies"]]


class Desk:
    """hospital: data, two of three reviewers; lab: image, one reviewer, who also reviews for the hospital."""

    def __init__(self):
        layout, self.digest = h.image("study-image")
        self.up = h.Installation()
        self.hospital, self.lab = (h.Person(self.up, n, ["owner"]) for n in ("hospital", "lab"))
        self.engineer = h.Person(self.up, "engineer", ["consumer", "reviewer"])
        self.reviewers = [h.Person(self.up, n, ["reviewer"]) for n in ("anna", "ben", "cleo")]
        self.outsider = h.Person(self.up, "outsider", ["reviewer"])
        everybody = self.reviewers + [self.engineer]
        folder = os.path.join(self.up.dir, "data")
        os.mkdir(folder)
        with open(os.path.join(folder, "numbers.csv"), "w", encoding="utf-8") as f:
            f.write("1\n2\n3\n")
        data = self.policy(self.hospital, "dataset", self.lab.id, everybody, 2, [])
        self.hospital.run("asset", "publish", folder, "--name", "data", "--kind", "dataset", "--policy", data)
        image = self.policy(self.lab, "image", self.hospital.id, self.reviewers[:1], 1, everybody[1:])
        self.lab.run("image", "import", layout, "--name", "study-image", "--policy", image)
        self.hospital.run("lease", "grant", "--asset", "data", "--consumer", self.engineer.id, "--jobs", "50", "--days", "1")
        self.lab.run("lease", "grant", "--asset", "study-image", "--consumer", self.engineer.id, "--jobs", "50", "--days", "1")

    def policy(self, owner, kind, join, reviewers, needed, may_preview):
        path = os.path.join(self.up.dir, kind + ".yaml")
        named = []
        for option, people in (("--reviewer", reviewers), ("--may-preview", may_preview)):
            for p in people:
                card = os.path.join(self.up.dir, "card-" + p.id)
                named += [option, h.write_json(card, p.run("identity", "show"))]
        # everything that leaves is held: no free bit goes without a person
        owner.policy(path, kind, self.digest, self.up.facts["nodeKey"], join,
                     extra=["--free-bits", "0", "--reviewers-needed", str(needed), *named])
        if kind == "dataset":
            with open(path, "a", encoding="utf-8") as f:
                f.write("  rowBits: 116\n")
        return path

    def close(self):
        self.up.close()


world = h.Shared(Desk)
setUpModule, tearDownModule = world.hooks()


class Review(unittest.TestCase):
    def held(self):
        spec = h.job_spec("held", [h.PYTHON, "-c", SCRIPT], [h.metrics("sum")], ["data"])
        job = world.engineer.run("job", "submit", h.write_json(os.path.join(world.up.dir, "spec.json"), spec))["jobId"]
        with self.assertRaises(h.CommandFailed) as caught:
            world.engineer.run("job", "wait", job)
        self.assertEqual(caught.exception.code, h.HELD, caught.exception)
        return job

    def refused(self, reason, status, person, *args):
        with self.assertRaises(h.CommandFailed) as caught:
            person.run(*args)
        self.assertEqual((caught.exception.reason, caught.exception.code), (reason, status), caught.exception)
        return json.loads(caught.exception.err)["error"]

    def receipt(self, job):
        path = os.path.join(world.up.dir, "receipt.json")
        world.engineer.run("receipt", "get", job, "--out", path, "--force")
        world.engineer.run("receipt", "verify", path, "--set", world.up.facts["setId"])
        with open(path, encoding="utf-8") as f:
            return json.load(f)

    def test_two_of_three_and_the_other_owners_one_approve(self):
        anna, ben, cleo = world.reviewers
        job = self.held()
        for person in world.reviewers:
            (line,) = [i for i in person.run("review", "list")["items"] if i["jobId"] == job]
            self.assertEqual(line["reasons"], ["free-bits", "gate-holds"])
            self.assertEqual((line["freeBits"], tallies(line), line["you"]), (CHARGED, [(0, 2), (0, 1)], "asked"))
            self.assertTrue(14 * 86400 - 600 < line["secondsLeft"] <= 14 * 86400, line["secondsLeft"])
        out = os.path.join(world.up.dir, "look")
        shown = anna.run("review", "show", job[:12], "--out", out)
        self.assertEqual(shown["purpose"], h.PURPOSE)
        for policy in shown["policies"]:
            for sums in (policy["budget"]["period"], policy["budget"]["total"]):
                self.assertEqual((policy["budget"]["release"], sums["after"] - sums["before"]), (CHARGED, CHARGED))
        self.assertEqual(shown["command"], [h.PYTHON, "-c", SCRIPT])
        self.assertEqual([f["path"] for f in shown["files"]], ["m.json"])
        with open(os.path.join(out, "m.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), {"sum": 42})
        # nobody can be asked here, so nothing is signed unless that was said
        self.refused("usage", h.USAGE, anna, "review", "approve", job)
        done = anna.run("review", "approve", job, "--yes")
        self.assertEqual((done["rulings"], done["state"]), (2, "held"))
        # the same again changes nothing, and a ruling stands
        self.assertEqual(anna.run("review", "approve", job, "--yes")["rulings"], 0)
        self.refused("conflict", h.USAGE, anna, "review", "reject", job, "--yes")
        self.assertEqual(cleo.run("review", "reject", job, "--yes")["state"], "held")
        (line,) = [i for i in ben.run("review", "list")["items"] if i["jobId"] == job]
        self.assertEqual((tallies(line), line["you"]), ([(1, 2), (1, 1)], "asked"))
        self.assertEqual(ben.run("review", "approve", job, "--yes")["state"], "released")
        world.engineer.run("job", "wait", job)
        result = os.path.join(world.up.dir, "result")
        world.engineer.run("job", "result", job, "--out", result, "--force")
        with open(os.path.join(result, "m.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), {"sum": 42})
        receipt = self.receipt(job)
        self.assertEqual(sorted(r["body"]["decision"] for r in receipt["rulings"]), ["approve", "approve", "approve", "reject"])
        self.assertEqual({c["freeBits"] for c in receipt["release"]["body"]["charges"]}, {CHARGED})
        # over: on no list, and nothing to open or to rule on
        for person in world.reviewers:
            self.assertNotIn(job, [i["jobId"] for i in person.run("review", "list")["items"]])
        self.refused("wrong-state", h.DENIED, cleo, "review", "show", job)
        self.refused("wrong-state", h.DENIED, cleo, "review", "approve", job, "--yes")

    def test_a_rejection_releases_nothing(self):
        anna = world.reviewers[0]
        job = self.held()
        self.assertEqual(anna.run("review", "reject", job, "--owner", world.lab.id[:8], "--yes")["state"], "rejected")
        with self.assertRaises(h.CommandFailed) as caught:
            world.engineer.run("job", "wait", job)
        self.assertEqual(caught.exception.code, h.DENIED)
        self.assertEqual(self.receipt(job)["release"]["body"]["reasons"], ["reviewers-declined"])
        self.refused("rejected", h.DENIED, world.engineer, "job", "result", job, "--out", os.path.join(world.up.dir, "none"))

    def test_the_consumer_reads_what_to_change_in_codes(self):
        anna = world.reviewers[0]
        job = self.held()
        self.refused("usage", h.USAGE, anna, "review", "request-changes", job, "--yes")
        self.refused("usage", h.USAGE, anna, "review", "request-changes", job, "--yes", "--reason", "row 17 is Mrs Smith")
        done = anna.run("review", "request-changes", job, "--yes", "--owner", world.lab.id[:8], "--reason", "too-detailed",
                        "--reason", "not-rounded")
        self.assertEqual(done["state"], "rejected")
        with self.assertRaises(h.CommandFailed) as caught:
            world.engineer.run("job", "wait", job)
        error = json.loads(caught.exception.err)["error"]
        self.assertIn("reviewers-declined, too-detailed, not-rounded", error["actual"])
        self.assertIn("not-rounded: round counts", error["next"])
        charges = self.receipt(job)["release"]["body"]["charges"]
        self.assertEqual({c["freeBits"] for c in charges}, {8 + 2 * CODE_BITS})

    def test_nobody_else_sees_it_and_nobody_reviews_their_own(self):
        job = self.held()
        self.assertEqual(world.outsider.run("review", "list")["items"], [])
        nobody = self.refused("not-found", h.USAGE, world.outsider, "review", "show", "0" * 64)
        for verb in (("show",), ("approve", "--yes"), ("reject", "--yes")):
            self.assertEqual(self.refused("not-found", h.USAGE, world.outsider, "review", verb[0], job, *verb[1:]), nobody)
        self.assertEqual(world.engineer.run("review", "list")["items"], [])
        for verb in (("show",), ("approve", "--yes")):
            said = self.refused("wrong-role", h.DENIED, world.engineer, "review", verb[0], job, *verb[1:])
            self.assertIn("nobody reviews an output of their own job", said["what"])
        self.refused("wrong-role", h.DENIED, world.hospital, "review", "list")
        self.assertEqual(world.reviewers[0].run("review", "reject", job, "--yes")["state"], "rejected")

    def test_on_a_terminal_the_output_is_shown_and_the_answer_counts(self):
        anna = world.reviewers[0]
        job = self.held()
        for answer, status, rulings in ((b"no", h.USAGE, [(0, 2), (0, 1)]), (b"yes", h.OK, [(1, 2), (1, 1)])):
            t = Terminal(os.path.join(h.BIN, "glovebox"), "--home", anna.home, "review", "approve", job)
            t.await_text(b"approve this output under 2 policies? [yes/no]")
            self.assertIn(b'| {"sum":42}', t.seen)
            t.type(answer + b"\n")
            self.assertEqual(os.waitstatus_to_exitcode(t.wait()), status, t.seen)
            (line,) = [i for i in anna.run("review", "list")["items"] if i["jobId"] == job]
            self.assertEqual(tallies(line), rulings)
        for person in world.reviewers[1:]:
            last = person.run("review", "reject", job, "--yes")["state"]
        self.assertEqual(last, "rejected")

    def test_other_bytes_are_neither_shown_nor_ruled_on(self):
        anna = world.reviewers[0]
        job = self.held()
        kept = os.path.join(world.up.state, "plane", "results")
        name = max((os.path.join(folder, f) for folder, _, files in os.walk(kept) for f in files), key=os.path.getmtime)
        with open(name, "r+b") as f:
            whole = f.read()
            at = whole.index(b'"ciphertext":"') + 100
            f.seek(at)
            f.write(b"A" if whole[at:at + 1] != b"A" else b"B")
        for verb in (("show",), ("approve", "--yes"), ("reject", "--yes")):
            self.refused("bad-hash", h.INTEGRITY, anna, "review", verb[0], job, *verb[1:])
        with open(name, "wb") as f:
            f.write(whole)
        (line,) = [i for i in anna.run("review", "list")["items"] if i["jobId"] == job]
        self.assertEqual(tallies(line), [(0, 2), (0, 1)], "nothing was signed")
        self.assertEqual(anna.run("review", "reject", job, "--yes")["state"], "rejected")


class Guide(unittest.TestCase):
    """The reviewers' guide, word for word: an owner who names its reader, and two jobs of an engineer who owns the image."""

    def setUp(self):
        layout, digest = h.image("study-image")
        self.up = h.Installation()
        self.addCleanup(self.up.close)
        self.hospital = h.Person(self.up, "hospital", ["owner"])
        self.engineer = h.Person(self.up, "engineer", ["owner", "consumer"])
        self.folder = os.path.join(self.up.dir, "reader")
        os.makedirs(os.path.join(self.folder, "offline"))
        facts = self.up.facts
        self.words = {"ADDRESS": facts["plane"], "CA": facts["ca"], "SETID": facts["setId"], "INVITE": facts["invite"],
                      "OFFLINE": os.path.join(self.folder, "offline")}
        self.layout, self.digest = layout, digest

    def publish(self):
        card = os.path.join(self.folder, "reviewer.json")
        data = os.path.join(self.up.dir, "data")
        os.mkdir(data)
        h.write_json(os.path.join(data, "rows.json"), [1, 2, 3])
        node = self.up.facts["nodeKey"]
        policy = self.hospital.policy(os.path.join(self.up.dir, "data.yaml"), "dataset", self.digest, node, self.engineer.id,
                                      extra=["--free-bits", "0", "--reviewer", card, "--consumer", self.engineer.id, "--no-lease"])
        self.hospital.run("asset", "publish", data, "--name", "data", "--kind", "dataset", "--policy", policy)
        policy = self.engineer.policy(os.path.join(self.up.dir, "image.yaml"), "image", self.digest, node, self.hospital.id,
                                      extra=["--consumer", self.engineer.id, "--no-lease"])
        self.engineer.run("image", "import", self.layout, "--name", "study-image", "--policy", policy)

    def held(self):
        spec = h.job_spec("held", [h.PYTHON, "-c", SCRIPT], [h.metrics("sum")], ["data"])
        job = self.engineer.run("job", "submit", h.write_json(os.path.join(self.up.dir, "spec.json"), spec))["jobId"]
        with self.assertRaises(h.CommandFailed) as caught:
            self.engineer.run("job", "wait", job)
        self.assertEqual(caught.exception.code, h.HELD, caught.exception)
        return job

    def test_every_block_in_order(self):
        steps = test_guides.blocks("docs/guide-reviewer.md")
        self.assertEqual([section for section, _ in steps], ["1", "2", "3", "4", "4"])
        said = [test_guides.run_block(self, self.folder, self.words, steps[0][1])]
        self.publish()
        self.words.update(JOB=self.held(), OTHER=self.held())
        said += [test_guides.run_block(self, self.folder, self.words, text) for _, text in steps[1:]]
        for line in said[1].splitlines()[1:]:
            self.assertIn("waits for you", line)
        # What the guide prints as an example is what the program prints: the same words begin its lines.
        shown = [b for section, b in test_guides.blocks("docs/guide-reviewer.md", "") if section == "3"]
        for line in shown[0].splitlines():
            self.assertIn(line.split(" ")[0] if line[:1] != " " else line.split()[0], said[2])
        with open(os.path.join(self.folder, "look", "m.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), {"sum": 42})
        self.assertIn("released", said[3])
        self.assertIn("rejected", said[4])
        self.assertEqual(self.engineer.run("job", "get", self.words["JOB"])["state"], "Completed")
        told = self.engineer.run("job", "get", self.words["OTHER"])
        self.assertEqual((told["state"], told["outcome"]["actual"]), ("Rejected", "reviewers-declined, too-detailed, not-rounded"))


class GuideText(unittest.TestCase):
    def test_the_guide_names_every_code(self):
        with open(os.path.join(h.ROOT, "docs/guide-reviewer.md"), encoding="utf-8") as f:
            text = f.read()
        help_text = subprocess.run([os.path.join(h.BIN, "glovebox"), "review", "reject", "--help"], stdout=subprocess.PIPE,
                                   text=True, check=True).stdout
        codes = re.findall(r"(?m)^([a-z]+(?:-[a-z]+)*): [a-z]", help_text.split("goes through the owner.")[1])
        self.assertEqual(len(codes), 13, help_text)
        self.assertEqual(re.findall(r"(?m)^\| `([a-z-]+)` \| [a-z]", text.split("## When")[0])[-13:], codes)


if __name__ == "__main__":
    unittest.main()
