"""The sample study and the images: run with `/usr/bin/python3 -m unittest discover -s tests/study -v`.

Needs python3-numpy, python3-yaml, gcc, and a Debian mirror the first time (the data is kept afterwards). The study's
image is built and compared as well when STUDY_IMAGE=1, as that takes some 25 s.
"""
import csv
import gzip
import hashlib
import importlib.util
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

import yaml

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLE = os.path.join(TOP, "examples", "breast-cancer")
COUNTS = os.path.join(TOP, "examples", "cell-counts")
sys.dont_write_bytecode = True


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load("reference_auc", os.path.join(EXAMPLE, "reference_auc.py"))
oci = load("oci_layout", os.path.join(TOP, "scripts", "oci-layout.py"))


def significant(number):
    """How many significant digits a whole number has."""
    return len(str(abs(number)).rstrip("0"))


def alphabet(kind):
    """How many values a declared column or field can take."""
    if kind["type"] == "text":
        return len(kind["enum"])
    if kind["type"] == "integer":
        return kind["maximum"] - kind["minimum"] + 1
    unit = 10 ** kind["scale"]
    return sum(significant(v) <= kind["digits"] for v in range(kind["minimum"] * unit, kind["maximum"] * unit + 1))


def bits(schema):
    if "fields" in schema:
        return sum(math.log2(alphabet(f)) for f in schema["fields"])
    return math.log2(schema["maxRows"] + 1) + schema["maxRows"] * sum(math.log2(alphabet(c)) for c in schema["columns"])


class Study(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        subprocess.run([os.path.join(EXAMPLE, "get-data"), cls.dir], check=True, stderr=subprocess.DEVNULL)
        cls.data = os.path.join(cls.dir, "breast_cancer.csv")
        cls.out = os.path.join(cls.dir, "out")
        os.mkdir(cls.out)
        start = time.monotonic()
        cls.run_study(cls.out)
        cls.seconds = time.monotonic() - start
        with open(os.path.join(EXAMPLE, "job.yaml"), encoding="ascii") as f:
            cls.job = yaml.safe_load(f)

    @classmethod
    def run_study(cls, out, data=None):
        env = {"PATH": "/usr/bin", "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.run(["/usr/bin/python3", os.path.join(EXAMPLE, "study.py"), "--data", data or cls.data, "--out", out],
                              check=data is None, env=env, capture_output=True, text=True)

    def output(self, name, out=None):
        with open(os.path.join(out or self.out, name), encoding="ascii", newline="") as f:
            return f.read()

    def test_auc_equals_the_reference(self):
        auc = json.loads(self.output("metrics.json"))["auc"]
        self.assertEqual(f"{auc:.3f}", f"{reference.reference_auc(self.data):.3f}")

    def test_fast(self):
        self.assertLess(self.seconds, 3.0)

    def test_two_runs_write_the_same_bytes(self):
        again = os.path.join(self.dir, "again")
        os.mkdir(again)
        self.run_study(again)
        for name in os.listdir(self.out):
            self.assertEqual(self.output(name), self.output(name, again))

    def test_outputs_fit_their_schemas(self):
        outputs = {o["path"]: o for o in self.job["spec"]["outputs"]}
        self.assertEqual(sorted(outputs), sorted(os.listdir(self.out)))
        for path, declared in outputs.items():
            text, schema = self.output(path), declared["schema"]
            self.assertLessEqual(len(text), declared["maxBytes"])
            if declared["type"] == "metrics":
                values = json.loads(text, parse_float=str, parse_int=str)
                self.assertEqual(sorted(values), sorted(f["name"] for f in schema["fields"]))
                for field in schema["fields"]:
                    self.check(field, values[field["name"]])
            else:
                rows = list(csv.DictReader(io.StringIO(text)))
                self.assertLessEqual(len(rows), schema["maxRows"])
                for row in rows:
                    self.assertEqual(list(row), [c["name"] for c in schema["columns"]])
                    for column in schema["columns"]:
                        self.check(column, row[column["name"]])

    def check(self, kind, text):
        if kind["type"] == "text":
            return self.assertIn(text, kind["enum"])
        value = float(text)
        self.assertTrue(kind["minimum"] <= value <= kind["maximum"], (kind["name"], text))
        if kind["type"] == "integer":
            return self.assertRegex(text, r"^-?\d+$")
        self.assertNotIn("e", text)
        whole = round(value * 10 ** kind["scale"])
        self.assertAlmostEqual(whole / 10 ** kind["scale"], value, places=9)
        self.assertLessEqual(significant(whole), kind["digits"])

    def test_outputs_fit_the_free_bits(self):
        total = sum(bits(o["schema"]) for o in self.job["spec"]["outputs"])
        self.assertLess(total, 2048)
        self.assertAlmostEqual(total, 961, delta=1)  # the figure that job.yaml states

    def test_job_holds_no_fraction(self):
        def walk(value):
            self.assertNotIsInstance(value, float)
            for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
                walk(inner)
        walk(self.job)

    def test_refuses_broken_data_without_quoting_it(self):
        for name, row in {"label": "1,2,secret\n", "missing": "nan,1,M\n", "text": "secret,1,M\n"}.items():
            path = os.path.join(self.dir, name + ".csv")
            with open(path, "w", encoding="ascii") as f:
                f.write("a,b,diagnosis\n" + "1,2,M\n2,1,B\n" * 9 + row)
            ran = self.run_study(self.out + "-none", data=path)
            self.assertNotEqual(ran.returncode, 0)
            self.assertEqual(ran.stderr, "study: ValueError\n")


class Counts(unittest.TestCase):
    """The second study writes the very table that its recipe says."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        subprocess.run([os.path.join(EXAMPLE, "get-data"), cls.dir], check=True, stderr=subprocess.DEVNULL)
        with open(os.path.join(COUNTS, "job.yaml"), encoding="ascii") as f:
            cls.spec = yaml.safe_load(f)["spec"]
        cls.schema = cls.spec["outputs"][0]["schema"]

    def run_study(self, data):
        return subprocess.run(["/usr/bin/python3", "-I", os.path.join(COUNTS, "study.py"), "--data", data, "--out", self.dir],
                              capture_output=True, text=True, check=False)

    def expected(self):
        """By the recipe alone, in integers: radii have at most three decimals."""
        recipe = self.schema["recipe"]
        sizes = next(c["enum"] for c in self.schema["columns"] if c["name"] == "size")
        cuts = [int(c) * 1000 for c in recipe["groupBy"][1]["cuts"]]
        people = {}
        with open(os.path.join(self.dir, recipe["file"]), encoding="ascii", newline="") as f:
            for row in csv.DictReader(f):
                thousandths = round(float(row["radius_mean"]) * 1000)
                cell = row["diagnosis"], sizes[sum(thousandths >= c for c in cuts)]
                people.setdefault(cell, set()).add(row["patient"])
        return people, recipe["roundTo"]

    def test_writes_the_table_of_its_recipe(self):
        self.assertEqual(self.run_study(os.path.join(self.dir, "patients.csv")).returncode, 0)
        people, base = self.expected()
        with open(os.path.join(self.dir, "cells.csv"), encoding="ascii", newline="") as f:
            written = {(r["diagnosis"], r["size"]): int(r["patients"]) for r in csv.DictReader(f)}
        self.assertEqual(written, {cell: (len(who) + base // 2) // base * base for cell, who in people.items()})
        self.assertEqual(len(written), self.schema["maxRows"])
        self.assertEqual(sum(len(who) for who in people.values()), 569)
        self.assertGreaterEqual(min(len(who) for who in people.values()), 10)

    def test_patients_are_the_rows_of_the_data(self):
        with open(os.path.join(self.dir, "patients.csv"), encoding="ascii", newline="") as f:
            patients = list(csv.DictReader(f))
        with open(os.path.join(self.dir, "breast_cancer.csv"), encoding="ascii", newline="") as f:
            rows = list(csv.DictReader(f))
        self.assertEqual([(p["diagnosis"], p["radius_mean"]) for p in patients], [(r["diagnosis"], r["radius_mean"]) for r in rows])
        self.assertEqual([p["patient"] for p in patients], [str(n + 1) for n in range(len(rows))])

    def test_refuses_broken_data_without_quoting_it(self):
        path = os.path.join(self.dir, "bad.csv")
        for row in ("1,secret,15\n", "1,M,secret\n"):
            with open(path, "w", encoding="ascii") as f:
                f.write("patient,diagnosis,radius_mean\n" + row)
            ran = self.run_study(path)
            self.assertNotEqual(ran.returncode, 0)
            self.assertRegex(ran.stderr, r"^cell counts: (KeyError|ValueError)\n$")


class Layout(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)

    def tree(self, name, reverse=False):
        """A small tree; made in another order, at another time, by another umask, it must give the same image."""
        root = os.path.join(self.dir, name)
        os.makedirs(os.path.join(root, "opt", "x" * 90, "y" * 90))
        os.makedirs(os.path.join(root, "empty"))
        files = [("opt/a", b"a\n"), ("opt/b", b"b" * 70000), (f"opt/{'x' * 90}/{'y' * 90}/{'z' * 120}", b"long"),
                 ("opt/run", b"#!\n"), ("umläut", b"")]
        for path, data in reversed(files) if reverse else files:
            with open(os.path.join(root, path), "wb") as f:
                f.write(data)
            os.utime(os.path.join(root, path), (7, 7) if reverse else (9, 9))
        os.chmod(os.path.join(root, "opt/a"), 0o600 if reverse else 0o664)
        os.chmod(os.path.join(root, "opt/run"), 0o755)
        os.symlink("a", os.path.join(root, "opt/link"))
        return root

    def write(self, tree, out, **more):
        return oci.write_layout(tree, os.path.join(self.dir, out), entrypoint=["/opt/run"], epoch=1735689600, **more)

    def blob(self, out, digest):
        algorithm, name = digest.split(":")
        with open(os.path.join(self.dir, out, "blobs", algorithm, name), "rb") as f:
            data = f.read()
        self.assertEqual(hashlib.sha256(data).hexdigest(), name)
        return data

    def test_same_tree_same_digest(self):
        one, two = self.write(self.tree("1"), "one"), self.write(self.tree("2", reverse=True), "two")
        self.assertEqual(one, two)
        for folder, _, files in os.walk(os.path.join(self.dir, "one")):
            for name in files:
                path = os.path.join(folder, name)
                with open(path, "rb") as a, open(path.replace("/one", "/two"), "rb") as b:
                    self.assertEqual(a.read(), b.read(), name)
        self.assertEqual(self.write(os.path.join(self.dir, "1"), "one"), one)  # over an older layout

    def test_other_byte_other_digest(self):
        root = self.tree("1")
        before = self.write(root, "out")
        with open(os.path.join(root, "opt/a"), "ab") as f:
            f.write(b"!")
        self.assertNotEqual(self.write(root, "out"), before)

    def test_every_blob_is_what_its_descriptor_says(self):
        digest = self.write(self.tree("1"), "out", env=["A=b"])
        with open(os.path.join(self.dir, "out", "index.json"), "rb") as f:
            index = json.load(f)
        self.assertEqual([m["digest"] for m in index["manifests"]], [digest])
        manifest = json.loads(self.blob("out", digest))
        config = json.loads(self.blob("out", manifest["config"]["digest"]))
        layer = self.blob("out", manifest["layers"][0]["digest"])
        self.assertEqual(len(layer), manifest["layers"][0]["size"])
        with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as tar:
            members = tar.getmembers()
        self.assertEqual([m.name for m in members], sorted((m.name for m in members), key=os.fsencode))
        self.assertEqual({(m.uid, m.gid, m.mtime) for m in members}, {(0, 0, 1735689600)})
        self.assertEqual({m.type for m in members}, {tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE})
        self.assertEqual(config["config"]["Entrypoint"], ["/opt/run"])
        self.assertEqual(config["config"]["Env"], ["A=b"])
        self.assertEqual(config["rootfs"]["diff_ids"], ["sha256:" + hashlib.sha256(gzip.decompress(layer)).hexdigest()])

    def test_refuses_what_an_image_must_not_hold(self):
        def fifo(path):
            os.mkfifo(path)

        def setuid(path):
            open(path, "wb").close()
            os.chmod(path, 0o4755)

        for make, name, reason in ((fifo, "pipe", "neither"), (setuid, "su", "setuid"), (fifo, ".wh.x", "delete")):
            root = self.tree(name)
            make(os.path.join(root, name))
            with self.assertRaisesRegex(oci.LayoutError, reason):
                self.write(root, name + "-out")
            self.assertFalse(os.path.exists(os.path.join(self.dir, name + "-out")))

    def test_replaces_only_a_layout(self):
        keep = os.path.join(self.dir, "keep")
        os.mkdir(keep)
        with open(os.path.join(keep, "thesis"), "w", encoding="ascii") as f:
            f.write("x")
        with self.assertRaisesRegex(oci.LayoutError, "not an OCI layout"):
            self.write(self.tree("1"), "keep")
        self.assertTrue(os.path.exists(os.path.join(keep, "thesis")))


class Images(unittest.TestCase):
    def build(self, script, cache, out):
        ran = subprocess.run([os.path.join(TOP, "scripts", script), out], env=dict(os.environ, GBX_CACHE=cache),
                             check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.assertRegex(ran.stdout, r"^sha256:[0-9a-f]{64}\n$")
        return ran.stdout

    def same_from_two_caches(self, script):
        with tempfile.TemporaryDirectory() as tmp:
            digests = {self.build(script, f"{tmp}/cache{i}", f"{tmp}/out") for i in (1, 2, 2)}
            self.assertEqual(len(digests), 1)

    def test_noop_is_deterministic(self):
        self.same_from_two_caches("make-noop-image")

    @unittest.skipUnless(os.environ.get("STUDY_IMAGE") == "1", "STUDY_IMAGE=1 builds the study's image twice")
    def test_study_is_deterministic(self):
        self.same_from_two_caches("make-study-image")


if __name__ == "__main__":
    unittest.main()
