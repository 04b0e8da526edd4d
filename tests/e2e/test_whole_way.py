"""The whole way with real processes: the real study on the real data, and what must be refused, each with its reason."""
import copy
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

PYTHON = h.PYTHON
STUDY = h.STUDY
UID_BASE = 1948100000  # of the second installation
world = h.Shared(h.World)
setUpModule, tearDownModule = world.hooks()


class Case(unittest.TestCase):
    def refused(self, reason, status, who, *args):
        with self.assertRaises(h.CommandFailed) as caught:
            who.run(*args)
        self.assertEqual((caught.exception.reason, caught.exception.code), (reason, status), caught.exception)
        return caught.exception

    def finish(self, spec):
        """Submits and waits; the job as it ended."""
        job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
        try:
            world.engineer.run("job", "wait", job, timeout=200)
        except h.CommandFailed:
            pass
        return world.engineer.run("job", "get", job)

    def receipt(self, job):
        path = os.path.join(world.up.dir, "receipt-%s.json" % job["jobId"][:8])
        world.engineer.run("receipt", "get", job["jobId"], "--out", path, "--force")
        return path

    def verdict(self, job):
        with open(self.receipt(job), encoding="utf-8") as f:
            return json.load(f)["runStatement"]["body"]["manifest"]["context"]["verdict"]

    def result(self, job):
        out = os.path.join(world.up.dir, "result-" + job["jobId"][:8])
        world.engineer.run("job", "result", job["jobId"], "--out", out)
        return out

    def probe(self, name, script, *names, **options):
        """Runs Python in the container, which writes its numbers to m.json; returns them."""
        spec = h.job_spec(name, [PYTHON, "-c", script], [h.metrics(*names)], ["open"], **options)
        job = self.finish(spec)
        self.assertEqual(job["state"], "Completed", job)
        with open(os.path.join(self.result(job), "m.json"), encoding="utf-8") as f:
            return json.load(f)


class TheStudy(Case):
    def test_auc_is_the_one_computed_outside(self):
        with open(os.path.join(h.ROOT, "examples/breast-cancer/job.yaml"), encoding="utf-8") as f:
            text = f.read()
        begin = text.index("purpose:")
        text = text[:begin] + "purpose: " + json.dumps(h.PURPOSE) + text[text.index("\n", begin):]
        path = os.path.join(world.up.dir, "study.yaml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        world.engineer.run("job", "plan", path)
        job = world.engineer.run("job", "submit", path)["jobId"]
        world.engineer.run("job", "wait", job, timeout=200)
        got = world.engineer.run("job", "get", job)
        self.assertEqual(got["state"], "Completed", got)
        out = self.result(got)
        with open(os.path.join(out, "metrics.json"), encoding="utf-8") as f:
            auc = json.load(f)["auc"]
        reference = subprocess.run([PYTHON, os.path.join(h.ROOT, "examples/breast-cancer/reference_auc.py"),
                                    os.path.join(world.data, "breast_cancer.csv")], capture_output=True, text=True, check=True)
        value = float(reference.stdout.split()[-1])
        self.assertAlmostEqual(auc, value, delta=0.0006)
        with open(os.path.join(out, "coefficients.csv"), encoding="utf-8") as f:
            self.assertEqual(len(f.read().split()), 32)

        receipt = os.path.join(out, "receipt.json")
        world.engineer.run("receipt", "get", job, "--out", receipt)
        world.stranger.run("receipt", "verify", receipt, "--set", world.up.facts["setId"])
        with open(receipt, encoding="utf-8") as f:
            text = f.read()
        forged = json.loads(text)
        forged["plan"]["body"]["gate"]["autoClearFreeBits"] += 1
        unproved = json.loads(text)
        del unproved["evidence"]["node"]
        bad = os.path.join(out, "forged.json")
        h.write_json(bad, forged)
        self.refused("bad-signature", h.INTEGRITY, world.stranger, "receipt", "verify", bad, "--set", world.up.facts["setId"])
        h.write_json(bad, unproved)
        with self.assertRaises(h.CommandFailed) as caught:
            world.stranger.run("receipt", "verify", bad, "--set", world.up.facts["setId"])
        self.assertEqual(caught.exception.code, h.ATTESTATION, caught.exception.err)
        self.refused("wrong-set", h.INTEGRITY, world.stranger, "receipt", "verify", receipt, "--set", "00" * 32)

    def test_image_named_by_its_digest(self):
        write = [PYTHON, "-c", "open('/out/m.json','w').write('{\"ok\":1}')"]
        spec = h.job_spec("by-digest", write, [h.metrics("ok")], ["open"])
        spec["spec"]["image"] = {"ref": "registry.example:5000/study@" + world.digest}
        world.engineer.run("job", "plan", world.spec(spec))
        job = self.finish(spec)
        self.assertEqual(job["state"], "Completed", job)
        spec["spec"]["image"] = {"ref": "study-image@sha256:" + "0" * 64}
        self.refused("not-found", h.USAGE, world.engineer, "job", "submit", world.spec(spec))
        spec["spec"]["image"] = {"ref": "study-image"}
        self.refused("bad-value", h.USAGE, world.engineer, "job", "validate", world.spec(spec))

    def test_same_idempotency_key_same_job(self):
        spec = world.spec(h.job_spec("once", [PYTHON, "-c", "open('/out/m.json','w').write('{\"ok\":1}')"], [h.metrics("ok")], ["open"]))
        first = world.engineer.run("job", "submit", spec, "--idempotency-key", "k1")
        second = world.engineer.run("job", "submit", spec, "--idempotency-key", "k1")
        self.assertEqual(first["jobId"], second["jobId"])


class Leases(Case):
    def test_a_lease_is_found_behind_those_that_are_used_up(self):
        for _ in range(6):
            world.hospital.run("lease", "grant", "--asset", "open", "--consumer", world.stranger.id)
        spec = world.spec(h.job_spec("leased", [PYTHON, "-c", "open('/out/m.json','w').write('{\"ok\":1}')"],
                                     [h.metrics("ok")], ["open"]))
        for _ in range(6):
            job = world.stranger.run("job", "submit", spec, "--wait", timeout=200)
            self.assertEqual(job["state"], "Completed", job)
        self.refused("lease-exhausted", h.DENIED, world.stranger, "job", "plan", spec)


class Refusals(Case):
    def base(self, **change):
        spec = h.job_spec("refused", STUDY, [h.metrics("ok")], ["wdbc"])
        spec["spec"].update(change)
        return world.spec(spec)

    def plan_denied(self, reason, spec, who=None):
        with self.assertRaises(h.CommandFailed) as caught:
            (who or world.engineer).run("job", "plan", spec)
        self.assertEqual(caught.exception.code, h.DENIED, caught.exception)
        checks = json.loads(caught.exception.out)["checks"]
        self.assertIn(reason, [c["reason"] for c in checks])
        self.assertTrue(all("ownerId" not in c for c in checks if c["asset"] == "job"), checks)
        self.assertNotIn("job plan", json.loads(caught.exception.err)["error"]["next"])  # that would be a circle
        return next(c for c in checks if c["reason"] == reason)

    def test_people_see_first_what_they_can_act_on(self):
        def said(*words):
            done = subprocess.run([os.path.join(h.BIN, "glovebox"), "--home", world.engineer.home, "job", "plan", *words],
                                  capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, h.DENIED, done)
            return done.stdout
        spec = self.base(purpose="something else")
        few, every = said(spec), said(spec, "--all")
        self.assertIn("purpose-not-allowed", few)
        self.assertEqual(set(re.findall(r" (DENIED|allowed) ", few)), {"DENIED"}, few)
        passed = re.search(r"([0-9]+) of [0-9]+ checks passed \(--all", few)
        self.assertEqual(len(re.findall(r" allowed ", every)), int(passed.group(1)), every)

    def test_other_purpose(self):
        self.plan_denied("purpose-not-allowed", self.base(purpose="marketing"))

    def test_other_command(self):
        self.plan_denied("command-not-allowed", self.base(command=[PYTHON, "-c", "print(1)"]))

    def test_no_lease(self):
        check = self.plan_denied("lease-missing", self.base(), world.stranger)
        self.assertEqual(check["actual"], "none")
        self.assertNotIn("--help", check["next"])

    def test_technology_that_no_policy_allows(self):
        self.plan_denied("tee-not-allowed", self.base(tee={"anyOf": ["tdx"], "releases": []}))

    def test_submission_is_denied_too(self):
        self.refused("purpose-not-allowed", h.DENIED, world.engineer, "job", "submit", self.base(purpose="marketing"), "--wait")

    def test_wrong_role(self):
        policy = os.path.join(world.up.dir, "wdbc.yaml")
        self.refused("wrong-role", h.DENIED, world.stranger, "asset", "publish", world.data, "--name", "mine", "--kind", "dataset",
                     "--policy", policy)

    def test_unknown_field(self):
        spec = h.job_spec("typo", STUDY, [h.metrics("ok")], ["wdbc"])
        spec["spec"]["resorces"] = {}
        self.refused("unknown-field", h.USAGE, world.engineer, "job", "validate", world.spec(spec))

    def test_unknown_asset(self):
        spec = h.job_spec("nothing", STUDY, [h.metrics("ok")], ["no-such-asset"])
        self.refused("not-found", h.USAGE, world.engineer, "job", "plan", world.spec(spec))


class Hostile(Case):
    def test_no_way_out_but_out(self):
        script = """
import json, os, socket, ctypes
r = {}
def attempt(name, action):  # 0: it worked; else why not
    try:
        action()
        r[name] = 0
    except OSError as e:
        r[name] = e.errno
attempt('inet', lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
attempt('inet6', lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
attempt('procsys', lambda: open('/proc/sys/kernel/core_pattern', 'w'))
attempt('root', lambda: open('/x', 'w'))
attempt('data', lambda: open('/data/open/x', 'w'))
attempt('uid', lambda: os.setuid(0))
libc = ctypes.CDLL(None, use_errno=True)
def traceme():  # nobody's rights are in the way of this one: only the filter is
    if libc.ptrace(0, 0, 0, 0) != 0: raise OSError(ctypes.get_errno(), 'ptrace')
attempt('traceme', traceme)
# Of anybody: the agent and everything else of the host among them.
r['attached'] = len([p for p in range(1, 70000) if p != os.getpid() and libc.ptrace(16, p, 0, 0) == 0])
r['others'] = len([p for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()])
attempt('wrote', lambda: open('/out/control', 'w').close())  # what is allowed works: the attempts are real
os.unlink('/out/control')
attempt('sys', lambda: os.listdir('/sys/kernel'))
r['uidzero'] = 1 if os.getuid() == 0 else 0
json.dump(r, open('/out/m.json', 'w'))
"""
        denied = {"inet": errno.EPERM, "inet6": errno.EPERM, "procsys": errno.ENOENT, "root": errno.EROFS, "data": errno.EROFS,
                  "uid": errno.EPERM, "traceme": errno.EPERM, "sys": errno.ENOENT}
        absent = {"attached": 0, "others": 0, "uidzero": 0, "wrote": 0}
        got = self.probe("no-way-out", script, *denied, *absent)
        self.assertEqual(got, {**denied, **absent})

    def test_fork_bomb_stays_inside(self):
        script = """
import os, json, signal, time
n = 0
try:
    while n < 5000:
        if os.fork() == 0:
            time.sleep(100); os._exit(0)
        n += 1
except OSError:
    pass
json.dump({'forks': n}, open('/out/m.json', 'w'))
"""
        tight, loose = (self.probe("fork-bomb", script, "forks", pids=n, run=30)["forks"] for n in (64, 96))
        self.assertLess(tight, 64)
        self.assertGreater(tight, 48)
        self.assertEqual(loose - tight, 32)  # the job's own bound is what stopped it, and nothing else

    def test_filling_out_and_logs(self):
        script = """
import json, sys
n = 0
try:
    with open('/out/big', 'wb') as f:
        for n in range(1000):
            f.write(b'x' * (1 << 20)); f.flush()
except OSError:
    pass
import os
os.unlink('/out/big')
for _ in range(20000):
    sys.stdout.write('y' * 1000)
json.dump({'mib': n}, open('/out/m.json', 'w'))
"""
        spec = h.job_spec("fill", [PYTHON, "-c", script], [h.metrics("mib")], ["open"])
        spec["spec"]["logs"] = {"visibility": "consumer", "maxBytes": 256}
        job = self.finish(spec)
        self.assertEqual(job["state"], "Completed", job)  # 20 MB of log neither stop it nor fill anything
        out = self.result(job)
        with open(os.path.join(out, "m.json"), encoding="utf-8") as f:
            mib = json.load(f)["mib"]
        self.assertLess(mib, 16)
        self.assertGreater(mib, 4)
        with open(os.path.join(out, "job.log"), encoding="utf-8") as f:
            self.assertEqual(f.read(), "y" * 256)

    def failed(self, job, reason):
        self.assertEqual((job["state"], job["outcome"]["reason"]), ("Failed", reason), job)

    def test_memory_exhaustion_ends_the_job_only(self):
        job = self.finish(h.job_spec("hog", [PYTHON, "-c", "x = [bytearray(1 << 20) for _ in range(3 << 10)]; print(len(x))"], [h.metrics("ok")], ["open"]))
        self.failed(job, "out-of-memory")
        after = self.finish(h.job_spec("after-the-hog", [PYTHON, "-c", "open('/out/m.json','w').write('{\"ok\":1}')"],
                                       [h.metrics("ok")], ["open"]))
        self.assertEqual(after["state"], "Completed", after)

    def test_a_run_ends_at_its_time(self):
        spec = h.job_spec("slow", [PYTHON, "-c", "import time; time.sleep(60)"], [h.metrics("ok")], ["open"], run=2)
        # Who waits no longer hears nothing of a failed job.
        said = self.refused("unavailable", h.INFRASTRUCTURE, world.engineer, "job", "submit", world.spec(spec), "--wait", "--timeout", "1")
        job = re.search("job wait ([0-9a-f]{16})", said.err).group(1)
        ended = self.refused("timed-out", h.FAILED, world.engineer, "job", "wait", job)
        self.assertNotIn("(expected", json.loads(ended.err)["error"]["what"])
        self.failed(world.engineer.run("job", "get", job), "timed-out")

    def test_a_failed_job_gives_its_author_its_logs(self):
        spec = h.job_spec("wrong", [PYTHON, "-c", "print('what went wrong'); raise SystemExit(3)"], [h.metrics("ok")], ["open"])
        spec["spec"]["logs"] = {"visibility": "consumer", "maxBytes": 256}
        job = self.finish(spec)
        self.failed(job, "job-failed")
        logs = world.engineer.run("job", "logs", job["jobId"])
        self.assertEqual((logs["exitClass"], logs["log"].strip()), ("failed", "what went wrong"))

    def test_copied_input_is_not_released(self):
        script = """
import csv
rows = list(csv.DictReader(open('/data/open/breast_cancer.csv')))[:40]
with open('/out/t.csv', 'w') as f:
    f.write('a,b,c,d\\n')
    for r in rows:
        f.write(','.join([r['radius_mean'] if 'radius_mean' in r else list(r.values())[0]] + list(r.values())[1:4]) + '\\n')
"""
        columns = [{"name": n, "type": "decimal", "minimum": 0, "maximum": 10000, "digits": 6, "scale": 4} for n in "abcd"]
        out = {"name": "t", "path": "t.csv", "type": "table", "maxBytes": 65536, "schema": {"columns": columns, "maxRows": 40}}
        job = self.finish(h.job_spec("copy", [PYTHON, "-c", script], [out], ["open"]))
        self.assertEqual(job["state"], "Rejected", job)
        verdict = self.verdict(job)
        self.assertEqual((verdict["recommendation"], verdict["cause"]), ("reject", "copies-inputs"))
        self.assertEqual(job["outcome"]["reason"], "rejected")

    def test_a_rejection_says_nothing_that_the_container_chose(self):
        # Which row is wrong would be a message; the receipt of a rejected job is its author's.
        out = {"name": "t", "path": "t.csv", "type": "table", "maxBytes": 65536,
               "schema": {"columns": [{"name": "a", "type": "integer", "minimum": 0, "maximum": 1}], "maxRows": 5000}}
        said = []
        for row in (3, 1119):
            script = "open('/out/t.csv','w').write('a\\n' + '1\\n' * %d + '7\\n')" % row
            job = self.finish(h.job_spec("channel", [PYTHON, "-c", script], [out], ["open"]))
            self.assertEqual(job["state"], "Rejected", job)
            with open(self.receipt(job), encoding="utf-8") as f:
                whole = json.load(f)
            context = whole["runStatement"]["body"]["manifest"]["context"]
            verdict = context["verdict"]
            self.assertEqual(sorted(verdict), ["cause", "charge", "durationBucket", "exitClass", "recommendation"])
            self.assertEqual(verdict["cause"], "malformed")
            self.assertEqual(context["outputs"], [])
            said.append({k: v for k, v in verdict.items() if k != "durationBucket"})
        self.assertEqual(said[0], said[1])

    def test_a_run_may_take_longer_than_its_start(self):
        script = "import time; time.sleep(8); open('/out/m.json','w').write('{\"ok\":1}')"
        spec = h.job_spec("long", [PYTHON, "-c", script], [h.metrics("ok")], ["open"])
        if h.ENVIRONMENT == "local":  # a machine alone takes longer than that to boot
            spec["spec"]["timeouts"]["start"] = 5
        job = self.finish(spec)
        self.assertEqual(job["state"], "Completed", job)

    def test_opaque_output_is_never_released_without_a_reviewer(self):
        out = {"name": "blob", "path": "blob.bin", "type": "opaque", "maxBytes": 64}
        spec = h.job_spec("opaque", [PYTHON, "-c", "open('/out/blob.bin','wb').write(b'x')"], [out], ["open"])
        planned = world.engineer.run("job", "plan", world.spec(spec))
        self.assertTrue(planned["allowed"], planned)
        self.assertEqual([(c["asset"], c["reason"]) for c in planned["checks"] if c["check"] == "clearance"],
                         [("job", "opaque-output"), ("job", "no-reviewer")])
        job = self.finish(spec)
        self.assertEqual(job["state"], "Rejected", job)
        with open(self.receipt(job), encoding="utf-8") as f:
            receipt = json.load(f)
        self.assertEqual(receipt["runStatement"]["body"]["manifest"]["context"]["verdict"]["recommendation"], "hold")
        self.assertEqual(receipt["release"]["body"]["reasons"], ["no-reviewer"])
        self.refused("rejected", h.DENIED, world.engineer, "job", "result", job["jobId"], "--out", os.path.join(world.up.dir, "blob"))


class Ciphertext(Case):
    def test_changed_byte_is_found_and_never_computed_on(self):
        objects = os.path.join(world.up.state, "objects")
        names = []
        for root, _, files in os.walk(objects):
            names += [os.path.join(root, f) for f in files]
        world.hospital.run("asset", "verify", "wdbc")
        # The dataset's own objects are among these; each is spoiled in turn in one byte.
        found = 0
        for name in names:
            size = os.path.getsize(name)
            if size < 4096:
                continue
            with open(name, "r+b") as f:
                f.seek(size // 2)
                byte = f.read(1)
                f.seek(size // 2)
                f.write(bytes([byte[0] ^ 1]))
            try:
                world.hospital.run("asset", "verify", "wdbc")
            except h.CommandFailed as e:
                self.assertEqual(e.code, h.INTEGRITY, e)
                found += 1
                job = self.finish(h.job_spec("spoiled", STUDY, [h.metrics("ok")], ["wdbc"]))
                self.assertEqual(job["state"], "Failed", job)
                self.assertIn(job["outcome"]["reason"], ("bad-tag", "bad-hash"), job)
            with open(name, "r+b") as f:
                f.seek(size // 2)
                f.write(byte)
        self.assertGreaterEqual(found, 2)
        world.hospital.run("asset", "verify", "wdbc")


class Access(Case):
    """How the host is kept from seeing which blocks a job reads, on a machine with a memory of the test's choosing."""
    MEMINFO = "MemTotal: 8388608 kB\nMemFree: 1048576 kB\nMemAvailable: 1048576 kB\n"

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="gbx-e2e-meminfo-", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, folder)
        meminfo = os.path.join(folder, "meminfo")
        with open(meminfo, "w", encoding="utf-8") as f:
            f.write(cls.MEMINFO)
        # On the host: a machine has the memory that it was given, whatever the host says.
        cls.up = h.Installation(UID_BASE, environment="local", inside=["unshare", "-m", "sh", "-c", 'mount --bind "$0" /proc/meminfo && exec "$@"', meminfo])
        cls.addClassCleanup(cls.up.close)
        layout, digest = h.image("study-image")
        cls.person = h.Person(cls.up, "both", ["owner", "consumer"])
        data = os.path.join(cls.up.dir, "data")
        os.mkdir(data)
        with open(os.path.join(data, "numbers.csv"), "w", encoding="utf-8") as f:
            f.write("n\n" + "7\n" * 1000)
        for access in ("prefetch", "direct"):
            policies = {}
            for kind in ("dataset", "image"):
                path = os.path.join(cls.up.dir, "%s-%s.yaml" % (kind, access))
                policies[kind] = cls.person.policy(path, kind, digest, cls.up.facts["nodeKey"], cls.person.id,
                                                   extra=["--consumer", cls.person.id, "--no-lease"])
                with open(path, encoding="utf-8") as f:
                    text = f.read()
                assert "\n  access: prefetch\n" in text, text
                with open(path, "w", encoding="utf-8") as f:
                    f.write(text.replace("\n  access: prefetch\n", "\n  access: %s\n" % access))
            cls.person.run("asset", "publish", data, "--name", access, "--kind", "dataset", "--policy", policies["dataset"])
            cls.person.run("image", "import", layout, "--name", "image-" + access, "--policy", policies["image"])

    def job(self, dataset, image, memory):
        script = "open('/out/m.json','w').write('{\"ok\":%%d}' %% len(open('/data/%s/numbers.csv').readlines()))" % dataset
        spec = h.job_spec("access", [PYTHON, "-c", script], [h.metrics("ok", maximum=5000)], [dataset], memory=memory, environment="local")
        spec["spec"]["image"]["asset"] = "image-" + image
        path = h.write_json(os.path.join(self.up.dir, "spec.json"), spec)
        planned = self.person.run("job", "plan", path)["plan"]
        job = self.person.run("job", "submit", path)["jobId"]
        try:
            self.person.run("job", "wait", job, timeout=200)
        except h.CommandFailed:
            pass
        return planned, self.person.run("job", "get", job)

    def completed(self, access, *args):
        planned, job = self.job(*args)
        self.assertEqual(job["state"], "Completed", job)
        self.assertEqual(planned["controls"]["access"], access)
        path = os.path.join(self.up.dir, "receipt.json")
        self.person.run("receipt", "get", job["jobId"], "--out", path, "--force")
        self.person.run("receipt", "verify", path, "--set", self.up.facts["setId"])
        with open(path, encoding="utf-8") as f:
            statement = json.load(f)["runStatement"]["body"]
        self.assertEqual(statement["controls"]["access"], access)
        self.assertEqual("access-pattern" in statement["residualChannels"], access == "direct", statement)

    def test_prefetch_unless_every_owner_says_otherwise(self):
        self.completed("prefetch", "prefetch", "prefetch", "256MiB")
        self.completed("prefetch", "direct", "prefetch", "256MiB")
        self.completed("direct", "direct", "direct", "256MiB")

    def test_what_exceeds_the_memory_is_refused(self):
        # 1 GiB is free, and the container takes all but 8 MiB of it: the image and the dataset do not fit beside it.
        planned, job = self.job("prefetch", "prefetch", "1000MiB")
        self.assertEqual(planned["controls"]["access"], "prefetch")
        self.assertEqual((job["state"], job["outcome"]["reason"]), ("Failed", "too-large"), job)
        self.completed("direct", "direct", "direct", "1000MiB")


class LostKey(Case):
    """Keys are lost or known to others; the recovery folder makes new ones, and the old ones sign nothing more."""

    def lose(self, person):
        """A copy of the home as a thief has it; then the owner's own key is gone."""
        thief = copy.copy(person)
        thief.home = person.home + "-stolen"
        shutil.copytree(person.home, thief.home)
        shutil.rmtree(os.path.join(thief.home, "recovery"))
        os.unlink(os.path.join(person.home, "keys", "signing.key"))
        return thief

    def test_a_consumer_and_an_owner_go_on(self):
        node = world.up.facts["nodeKey"]
        owner = h.Person(world.up, "registry", ["owner"])
        consumer = h.Person(world.up, "analyst", ["consumer"])
        policy = owner.policy(os.path.join(world.up.dir, "registry.yaml"), "dataset", world.digest, node, world.engineer.id)
        owner.run("asset", "publish", world.data, "--name", "lost", "--kind", "dataset", "--policy", policy)
        image = world.engineer.policy(os.path.join(world.up.dir, "image2.yaml"), "image", world.digest, node, owner.id,
                                      extra=["--consumer", consumer.id, "--no-lease"])
        layout, _ = h.image("study-image")
        world.engineer.run("image", "import", layout, "--name", "lost-image", "--policy", image)
        owner.run("lease", "grant", "--asset", "lost", "--consumer", consumer.id, "--jobs", "5", "--days", "1")
        spec = h.job_spec("lost", [PYTHON, "-c", "open('/out/m.json','w').write('{\"ok\":7}')"], [h.metrics("ok")], ["lost"])
        spec["spec"]["image"]["asset"] = "lost-image"
        spec = h.write_json(os.path.join(world.up.dir, "lost.json"), spec)
        consumer.run("job", "plan", spec)

        thief_of_owner = self.lose(owner)
        thief = self.lose(consumer)
        self.refused("not-found", h.USAGE, consumer, "job", "list")
        self.refused("not-found", h.USAGE, consumer, "identity", "rotate")
        for person in (owner, consumer):
            person.run("identity", "rotate", "--recovery")
            self.assertEqual(person.run("identity", "show")["rotations"], 1)
        self.refused("unauthenticated", h.DENIED, thief, "job", "plan", spec)
        self.refused("unauthenticated", h.DENIED, thief_of_owner, "asset", "publish", world.data, "--name", "lost", "--kind", "dataset",
                     "--policy", policy)
        # The lease is of the key that was lost; a new one, and the job runs to its end.
        with self.assertRaises(h.CommandFailed) as caught:
            consumer.run("job", "plan", spec)
        self.assertIn("the lease is signed neither by the owner's present key nor by an issuer", caught.exception.out)
        owner.run("lease", "grant", "--asset", "lost", "--consumer", consumer.id, "--jobs", "5", "--days", "1")
        job = consumer.run("job", "submit", spec)["jobId"]
        consumer.run("job", "wait", job, timeout=200)
        out = os.path.join(world.up.dir, "lost-result")
        consumer.run("job", "result", job, "--out", out)
        with open(os.path.join(out, "m.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f), {"ok": 7})
        receipt = os.path.join(world.up.dir, "lost-receipt.json")
        consumer.run("receipt", "get", job, "--out", receipt)
        consumer.run("receipt", "verify", receipt, "--set", world.up.facts["setId"])
        # The next version is published with the new key, and the old version's policy renewed.
        owner.run("policy", "sign", "lost", "--policy", policy)
        owner.run("asset", "publish", world.data, "--name", "lost", "--kind", "dataset", "--policy", policy)


class Restart(Case):
    def test_everything_resumes(self):
        before = world.engineer.run("job", "list")["items"]
        world.up.stop()
        world.up.start()
        for person in (world.hospital, world.engineer, world.stranger):
            person.run("init", "--plane", world.up.facts["plane"], "--ca", world.up.facts["ca"], "--set", world.up.facts["setId"], "--force")
        after = world.engineer.run("job", "list")["items"]
        self.assertEqual([j["jobId"] for j in before], [j["jobId"] for j in after])
        got = self.probe("after", "open('/out/m.json','w').write('{\"ok\":7}')", "ok")
        self.assertEqual(got, {"ok": 7})


if __name__ == "__main__":
    unittest.main()
