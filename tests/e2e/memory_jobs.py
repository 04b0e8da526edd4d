"""Memory stays flat over many jobs: real programs run GBX_MEMORY_JOBS jobs (default 10,000) that do nothing, and what plane, broker and node hold of
their own, and how many descriptors and threads, must not grow with them. `scripts/deep memory` runs it.

Grown is the median of the last tenth of the samples less that of the second tenth (the first one warms up). What may grow: nothing with the plane and
the node, whose state lies in files; with the broker what it must never forget of a job (its id, where its entries lie, its lines in the ledgers).
Allowances are for allocators, which move in steps of megabytes."""
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

JOBS = int(os.environ.get("GBX_MEMORY_JOBS", "10000"))
AT_A_TIME = 3  # so that the node never waits for a submission
JOBS_EACH = 1500  # of one consumer: a day's quota is 2,000
ALLOWANCE = 6 << 20
PER_JOB = {"glovebox-plane": 256, "glovebox-node": 256, "glovebox-broker": 1000}  # bytes of memory
PER_JOB_ON_DISK = 200_000
DESCRIPTORS = 16
REPORT = os.environ.get("GBX_MEMORY_REPORT")


def spec(number):
    job = h.job_spec("memory-%d" % number, ["/bin/noop"], [h.metrics("ok", maximum=1)], ["nothing"], memory="64MiB")
    job["spec"]["image"]["asset"] = "noop"
    job["spec"]["outputs"][0]["path"] = "metrics.json"
    job["spec"]["timeouts"] = {"queue": 3600, "start": 600, "run": 600}  # a busy machine is no finding
    return job


class Sample:
    def __init__(self, pids):
        self.of = {name: self._process(pid) for name, pid in pids.items()}

    def __str__(self):
        return ", ".join("%s %.1f MiB" % (name, memory / (1 << 20)) for name, (memory, _, _) in self.of.items())

    @staticmethod
    def _process(pid):
        """Private memory in bytes (in and out of swap), descriptors, threads."""
        with open("/proc/%d/status" % pid, encoding="ascii") as f:
            status = dict(line.split(":", 1) for line in f)
        kib = sum(int(status[key].split()[0]) for key in ("RssAnon", "RssShmem", "VmSwap"))
        return kib << 10, len(os.listdir("/proc/%d/fd" % pid)), int(status["Threads"])


class Memory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        layout, digest = h.image("noop-image")
        cls.up = h.Installation()
        cls.me = h.Person(cls.up, "memory", ["owner", "consumer"])
        cls.consumers = [cls.me] + [h.Person(cls.up, "memory-%d" % i, ["consumer"]) for i in range(1, max(AT_A_TIME, -(-JOBS // JOBS_EACH)))]
        folder = os.path.join(cls.up.dir, "nothing")
        os.makedirs(folder)
        with open(os.path.join(folder, "empty.csv"), "w", encoding="utf-8") as f:
            f.write("a\n1\n")
        for name, kind in (("noop", "image"), ("nothing", "dataset")):
            path = os.path.join(cls.up.dir, name + ".yaml")
            cls.me.policy(path, kind, digest, cls.up.facts["nodeKey"], cls.me.id,
                          extra=[*(word for c in cls.consumers for word in ("--consumer", c.id)), "--no-lease", "--free-bits", "4096"])
            cls.never_spent(path)
            if kind == "image":
                cls.me.run("image", "import", layout, "--name", name, "--policy", path)
            else:
                cls.me.run("asset", "publish", folder, "--name", name, "--kind", kind, "--policy", path)

    @staticmethod
    def never_spent(path):
        """So many jobs would use up any usual budget."""
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for member, usual in (("periodFreeBits", "16384"), ("totalFreeBits", "131072")):
            assert "%s: %s\n" % (member, usual) in text, text
            text = text.replace("%s: %s\n" % (member, usual), "%s: 1000000000\n" % member)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    @classmethod
    def tearDownClass(cls):
        cls.up.close()

    def pids(self):
        mine = {}
        for pid, parent, _, command, _ in h.processes():
            name = os.path.basename(command.split(" ")[0])
            if parent == self.up.up.pid and name in PER_JOB:
                mine[name] = pid
        self.assertEqual(set(mine), set(PER_JOB))
        return mine

    def disk(self):
        out = subprocess.run(["du", "-sb", *(os.path.join(self.up.state, d) for d in sorted(os.listdir(self.up.state)))],
                             stdout=subprocess.PIPE, text=True, check=False).stdout
        return {os.path.basename(path): int(size) for size, path in (line.split("\t") for line in out.splitlines())}

    def work(self, todo, failures):
        while not failures:
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            path = h.write_json(os.path.join(self.up.dir, "job-%d.json" % threading.get_ident()), spec(number))
            try:
                self.consumers[number % len(self.consumers)].run("job", "submit", path, "--wait", timeout=3600)
            except (h.CommandFailed, subprocess.TimeoutExpired) as e:
                if getattr(e, "reason", None) == "rate-limited":  # its share is used up for a second; what it had begun goes on
                    todo.put(number)
                    continue
                failures.append("job %d: %s" % (number, e))

    def run_jobs(self, count, sample):
        todo, failures, taken = queue.Queue(), [], []
        for number in range(count):
            todo.put(number)
        workers = [threading.Thread(target=self.work, args=(todo, failures)) for _ in range(AT_A_TIME)]
        for w in workers:
            w.start()
        step = max(1, count // 100)
        while any(w.is_alive() for w in workers):
            done = count - todo.qsize()
            if done // step >= len(taken):
                taken.append((done, sample()))
                if len(taken) % 10 == 1:
                    print("  %d of %d jobs: %s" % (done, count, taken[-1][1]), file=sys.stderr, flush=True)
            time.sleep(0.2)
        self.assertEqual(failures, [], self.up.tail())
        taken.append((count, sample()))
        return taken

    def test_flat_over_many_jobs(self):
        self.assertGreaterEqual(JOBS, 100, "too few to tell growth from warming up")
        pids = self.pids()
        before = self.disk()
        began = time.monotonic()
        samples = self.run_jobs(JOBS, lambda: Sample(pids))
        seconds = time.monotonic() - began
        self.assertEqual(self.pids(), pids, "a program was started again")
        tenth = max(1, len(samples) // 10)
        early, late = samples[tenth:2 * tenth], samples[-tenth:]
        jobs = statistics.median(n for n, _ in late) - statistics.median(n for n, _ in early)
        report = {"jobs": JOBS, "seconds": round(seconds), "jobsPerSecond": round(JOBS / seconds, 2), "programs": {}, "disk": {}}
        too_much = []
        for name, allowed in PER_JOB.items():
            def middle(part, index, name=name):
                return statistics.median(s.of[name][index] for _, s in part)
            grown = middle(late, 0) - middle(early, 0)
            limit = ALLOWANCE + allowed * jobs
            more = [middle(late, i) - middle(early, i) for i in (1, 2)]
            report["programs"][name] = {"earlyMiB": round(middle(early, 0) / (1 << 20), 1), "lateMiB": round(middle(late, 0) / (1 << 20), 1),
                                        "tenthsMiB": [round(middle(samples[i * tenth:(i + 1) * tenth], 0) / (1 << 20), 2) for i in range(10)],
                                        "bytesPerJob": round(grown / jobs), "allowedMiB": round(limit / (1 << 20), 1),
                                        "descriptors": more[0], "threads": more[1]}
            if grown > limit:
                too_much.append("%s grew by %d bytes in %d jobs, allowed are %d" % (name, grown, jobs, limit))
            if max(more) > DESCRIPTORS:
                too_much.append("%s: %+d descriptors, %+d threads" % (name, *more))
        for name, size in self.disk().items():
            per_job = (size - before.get(name, 0)) / JOBS
            report["disk"][name] = round(per_job)
        if sum(report["disk"].values()) > PER_JOB_ON_DISK:
            too_much.append("on the disk: %s" % report["disk"])
        print(json.dumps(report, indent=1), file=sys.stderr)
        if REPORT:
            h.write_json(REPORT, report)
        self.assertEqual(too_much, [])


if __name__ == "__main__":
    unittest.main()
