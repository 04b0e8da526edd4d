"""Runs the suite. Without arguments every module, each in a process of its own and two at a time: most of their time they wait, and each has an
installation, folders and ports of its own. With arguments what unittest's discovery makes of them, in this process. Prints the seconds of each class.
"""
import collections
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# Those that take longest begin first, so that none of them ends alone.
LONGEST = ["test_machine_faults.py", "test_faults.py", "test_machines.py", "test_up.py", "test_whole_way.py", "test_ending.py", "test_restarts.py", "test_clocks.py"]


class Timed(unittest.TextTestResult):
    """Counts the time from one test's end to the next one's, so that what a class or module sets up is its first test's."""

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        self.seconds, self.last = collections.Counter(), time.monotonic()

    def stopTest(self, test):
        super().stopTest(test)
        now = time.monotonic()
        self.seconds["%s.%s" % (type(test).__module__, type(test).__name__)] += now - self.last
        self.last = now


def runs_here(module):
    """Whether a module belongs to this run of the suite: it names the values of GBX_E2E_ENVIRONMENT with which it runs, where these are not all (RUNS_WITH)."""
    with open(os.path.join(HERE, module), encoding="utf-8") as f:
        said = re.search(r'^RUNS_WITH = \((.*)\)', f.read(), re.M)
    return not said or '"%s"' % os.environ.get("GBX_E2E_ENVIRONMENT", "local") in said.group(1)


def here(words):
    runner = unittest.TextTestRunner(verbosity=2, resultclass=Timed)
    done = unittest.main(module=None, argv=["tests/e2e", "discover", "-s", HERE, *words], testRunner=runner, exit=False).result
    for name, seconds in done.seconds.most_common():
        print("seconds %7.1f  %s" % (seconds, name))
    for test, why in done.skipped:
        print("tests/e2e: skipped, but must run here: %s: %s" % (test.id(), why), file=sys.stderr)
    return done.testsRun > 0 and done.wasSuccessful() and not done.skipped


def prepare():
    """What modules would otherwise make at the same time, in one place."""
    sys.path.insert(0, HERE)
    import harness  # noqa: E402
    for name in ("study-image", "noop-image"):
        os.environ[harness.digest_of(name)] = harness.image(name)[1]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([os.path.join(ROOT, "examples/breast-cancer/get-data"), folder], check=True, stdout=subprocess.DEVNULL)


class Lanes:
    def __init__(self, modules):
        self.left = collections.deque(modules)
        self.lock = threading.Lock()
        self.failed, self.lines = [], []

    def run(self, lanes):
        threads = [threading.Thread(target=self._lane) for _ in range(lanes)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def _lane(self):
        while True:
            with self.lock:
                if not self.left:
                    return
                module = self.left.popleft()
            began = time.monotonic()
            done = subprocess.run([sys.executable, os.path.abspath(__file__), "-p", module], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  encoding="utf-8", errors="replace", check=False)
            with self.lock:
                print("== %s: %.0f s\n%s" % (module, time.monotonic() - began, done.stdout), flush=True)
                self.lines += [line for line in done.stdout.split("\n") if line.startswith("seconds ")]
                if done.returncode != 0:
                    self.failed.append(module)


def main(words):
    if words:
        return 0 if here(words) else 1
    prepare()
    print("tests/e2e: jobs run %s" % ("in machines" if os.environ.get("GBX_E2E_ENVIRONMENT") == "vm" else "on this host"), flush=True)
    modules = sorted((f for f in os.listdir(HERE) if f.startswith("test_") and f.endswith(".py") and runs_here(f)),
                     key=lambda f: LONGEST.index(f) if f in LONGEST else len(LONGEST))
    began = time.monotonic()
    lanes = Lanes(modules)
    lanes.run(int(os.environ.get("GBX_E2E_LANES", "2")))
    print("\n".join(sorted(lanes.lines, reverse=True)))
    print("tests/e2e: %d modules in %.0f s; failed: %s" % (len(modules), time.monotonic() - began, " ".join(lanes.failed) or "none"))
    return 1 if lanes.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
