"""Tables by recipe with real processes: released as verified bits when the gate finds them in the inputs, refused when
not, and what is no such table stays free bits."""
import copy
import csv
import json
import os
import sys
import unittest

import yaml

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

EXAMPLE = os.path.join(h.ROOT, "examples/cell-counts/job.yaml")
COUNT = [h.PYTHON, "/opt/study/cell_counts.py"]
CELLS = {("B", "small"): 245, ("B", "medium"): 100, ("B", "large"): 15,
         ("M", "small"): 10, ("M", "medium"): 40, ("M", "large"): 160}
CONTROL = 8
UNCHANGED = object()


class World(h.World):
    """Beside what every module has: `counted`, whose owner lets recipes read patients.csv; any command may run on it."""

    def __init__(self):
        super().__init__()
        extra = [*h.LOOSE, "--table", "patients.csv=patient"]
        policy = self.hospital.policy(os.path.join(self.up.dir, "counted.yaml"), "dataset", self.digest,
                                      self.up.facts["nodeKey"], self.engineer.id, None, extra)
        self.hospital.run("asset", "publish", self.data, "--name", "counted", "--kind", "dataset", "--policy", policy)
        self.hospital.run("lease", "grant", "--asset", "counted", "--consumer", self.engineer.id, "--jobs", "50", "--days", "1")
        with open(EXAMPLE, encoding="utf-8") as f:
            self.example = yaml.safe_load(f)


world = h.Shared(World)
setUpModule, tearDownModule = world.hooks()


class Cells(unittest.TestCase):
    def spec(self, command=None, asset="counted", recipe=UNCHANGED):
        spec = copy.deepcopy(world.example)
        body = spec["spec"]
        body["purpose"] = h.PURPOSE
        body["inputs"][0]["asset"] = asset
        if command:
            body["command"] = [h.PYTHON, "-c", command]
        schema = body["outputs"][0]["schema"]
        if recipe is None:
            del schema["recipe"]
        elif recipe is not UNCHANGED:
            schema["recipe"].update(recipe)
        return spec

    def plan(self, spec):
        """(free bits of the output, verified bits) as planned."""
        charge = world.engineer.run("job", "plan", world.spec(spec))["plan"]["charges"][0]
        return charge["freeBits"] - CONTROL, charge["verifiedBits"]

    def run_job(self, spec):
        job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
        try:
            world.engineer.run("job", "wait", job, timeout=200)
        except h.CommandFailed:
            pass
        receipt = os.path.join(world.up.dir, "receipt-%s.json" % job[:8])
        world.engineer.run("receipt", "get", job, "--out", receipt)
        world.stranger.run("receipt", "verify", receipt, "--set", world.up.facts["setId"])
        with open(receipt, encoding="utf-8") as f:
            signed = json.load(f)
        return world.engineer.run("job", "get", job), signed["release"]["body"]

    def table(self, job):
        out = os.path.join(world.up.dir, "result-" + job["jobId"][:8])
        world.engineer.run("job", "result", job["jobId"], "--out", out)
        with open(os.path.join(out, "cells.csv"), encoding="ascii", newline="") as f:
            return {(r["diagnosis"], r["size"]): int(r["patients"]) for r in csv.DictReader(f)}

    def rejected(self, spec, reason):
        job, release = self.run_job(spec)
        self.assertEqual(job["state"], "Rejected", job)
        self.assertEqual(release["reasons"], [reason])
        self.assertEqual((release["charges"][0]["freeBits"], release["charges"][0]["verifiedBits"]), (CONTROL, 0))

    # What the study writes but for one cell.
    WRITE = ("import sys; sys.argv = ['x']; sys.path.insert(0, '/opt/study'); import cell_counts; cell_counts.main(); "
             "p = '/out/cells.csv'; s = open(p).read(); open(p, 'w').write(%s)")

    def test_the_table_that_the_inputs_give_is_released_as_verified_bits(self):
        spec = self.spec()
        free, verified = self.plan(spec)
        self.assertEqual(free, 0)
        self.assertGreater(verified, 6 * 9)
        job, release = self.run_job(spec)
        self.assertEqual(job["state"], "Completed", job)
        self.assertEqual(self.table(job), CELLS)
        for charge in release["charges"]:
            self.assertEqual((charge["freeBits"], charge["verifiedBits"]), (CONTROL, verified))

    def test_one_altered_cell_is_rejected(self):
        self.rejected(self.spec(self.WRITE % "s.replace('M,small,10', 'M,small,500')"), "output-malformed")
        self.rejected(self.spec(self.WRITE % "s.replace('B,large,15', 'B,large,20')"), "output-malformed")

    def test_small_cells_are_counted_on_the_inputs(self):
        # Below 12 there are six malignant cases; whatever is printed of them, they are six.
        cuts = {"groupBy": [{"name": "diagnosis", "column": "diagnosis"},
                            {"name": "size", "column": "radius_mean", "cuts": ["12", "15"]}]}
        honest = self.WRITE.replace("cell_counts.main()",
                                    "f = cell_counts.Fraction; cell_counts.SIZES = (('small', None), ('medium', f(12)), ('large', f(15))); cell_counts.main()")
        self.rejected(self.spec(honest % "s", recipe=cuts), "output-malformed")
        self.rejected(self.spec(honest % "s.replace('M,small,5', 'M,small,500')", recipe=cuts), "output-malformed")

    def test_without_a_recipe_or_the_owners_word_all_bits_are_free_and_nothing_holds(self):
        invented = self.WRITE % "s.replace('M,small,10', 'M,small,3')"
        for spec in (self.spec(invented, recipe=None), self.spec(invented, asset="open")):
            free, verified = self.plan(spec)
            self.assertEqual(verified, 0)
            self.assertGreater(free, 6 * 9)
            job, release = self.run_job(spec)
            self.assertEqual(job["state"], "Completed", job)
            self.assertEqual(self.table(job), {**CELLS, ("M", "small"): 3})
            self.assertEqual((release["charges"][0]["freeBits"], release["charges"][0]["verifiedBits"]), (CONTROL + free, 0))

    def test_recipes_that_mean_nothing_are_refused_before_anything_runs(self):
        for recipe, where in (({"input": "others"}, "recipe.input"), ({"roundTo": 0}, "recipe.roundTo"),
                              ({"file": 7}, "recipe.file")):
            with self.assertRaises(h.CommandFailed) as caught:
                world.engineer.run("job", "submit", world.spec(self.spec(recipe=recipe)))
            self.assertEqual(caught.exception.reason, "bad-value", caught.exception)
            self.assertIn(where, caught.exception.err)
        # The patient's number is for counting only; who the patient is, the owner says, so the broker denies it.
        one = self.spec(recipe={"filter": [{"column": "patient", "is": "differs", "value": "17"}]})
        with self.assertRaises(h.CommandFailed) as caught:
            world.engineer.run("job", "plan", world.spec(one))
        denied = [c for c in json.loads(caught.exception.out)["checks"] if not c["allowed"]]
        self.assertEqual([(c["check"], c["reason"]) for c in denied], [("capacity", "bad-value")])
        self.assertEqual(denied[0]["actual"], "patient")


if __name__ == "__main__":
    unittest.main()
