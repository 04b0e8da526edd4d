"""No program of Glovebox leaves a core dump, nor may others of its account look into it: each is asked while it runs."""
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # every program of the host

NOBODY = 65534
UID_BASE = 1_210_000_000
PROGRAMS = {name for name in os.listdir(h.BIN) if name.split("-")[0] == "glovebox"}
# Held at their first input when they are started alone; all others run in an installation with a job.
ALONE = {"glovebox-node", "glovebox-gate", "glovebox-decryptfs", "glovebox-sandbox", "glovebox-unpack", "glovebox-agent",
         "glovebox-simtee"}
BEFORE = resource.getrlimit(resource.RLIMIT_CORE)


def allowing_dumps():
    """Whoever starts the programs allows dumps of any size."""
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return h.World(UID_BASE)


world = h.Shared(allowing_dumps)
setUpModule, tearDownModule = world.hooks()


def program(pid):
    try:
        return os.path.basename(os.readlink("/proc/%d/exe" % pid))
    except OSError:
        return ""


def dumps(pid):
    """What is wrong with a process; empty: it leaves no dump."""
    with open("/proc/%d/limits" % pid, encoding="ascii") as f:
        limit = next(line.split()[4:6] for line in f if line.startswith("Max core file size"))
    with open("/proc/%d/status" % pid, encoding="ascii", errors="replace") as f:
        uid = next(int(line.split()[1]) for line in f if line.startswith("Uid:"))
    wrong = [] if limit == ["0", "0"] else ["core limit %s" % limit]
    # proc(5): what belongs to a process that is not dumpable belongs to root. Of root's own there is nothing to see.
    if uid != 0 and os.stat("/proc/%d/limits" % pid).st_uid != 0:
        wrong.append("dumpable")
    return wrong


def full_pipe():
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    return read, write


class CoreDumps(unittest.TestCase):
    @classmethod
    def tearDownClass(cls):
        resource.setrlimit(resource.RLIMIT_CORE, BEFORE)

    def test_the_question_finds_who_dumps(self):
        with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=[]) as cat:
            self.assertEqual(dumps(cat.pid), ["core limit ['unlimited', 'unlimited']", "dumpable"])

    def held(self, argv, descriptors):
        """A program of nobody's that waits; `descriptors` maps its numbers to ours."""
        def place():
            taken = [(n, os.dup2(fd, 100 + n)) for n, fd in descriptors.items()]
            for n, fd in taken:
                os.dup2(fd, n)
        # Nobody cannot enter everybody's checkout.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        os.chmod(folder, 0o755)
        copy = shutil.copy(os.path.join(h.BIN, argv[0]), folder)
        os.chmod(copy, 0o755)
        return subprocess.Popen([copy, *argv[1:]], preexec_fn=place, close_fds=False, user=NOBODY,
                                group=NOBODY, extra_groups=[], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def test_each_program_that_others_start(self):
        silent, _keep = os.pipe()
        pipes = [full_pipe() for _ in range(3)]
        audit, report, result = (write for _, write in pipes)
        ours, theirs = socket.socketpair()
        packets, packets_theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs, packets, packets_theirs):
            self.addCleanup(end.close)
        plane = socket.create_server(("127.0.0.1", 0))  # which never answers
        self.addCleanup(plane.close)
        with tempfile.TemporaryDirectory() as d:
            os.chmod(d, 0o700)
            os.chown(d, NOBODY, NOBODY)
            key = subprocess.run([os.path.join(h.BIN, "glovebox-node"), "key", "--new", "--key", os.path.join(d, "plane")],
                                 capture_output=True, text=True, check=True).stdout.strip()
            at = "127.0.0.1:%d" % plane.getsockname()[1]
            folder = os.open(d, os.O_RDONLY)
            os.mkfifo(d + "/firmware")  # nobody writes into it
            subprocess.run([os.path.join(h.BIN, "glovebox-simtee"), "root", "--new", "--key", d + "/root"], stdout=subprocess.DEVNULL, check=True)
            for path in (d + "/firmware", d + "/root"):
                os.chown(path, NOBODY, NOBODY)
            held = {
                "glovebox-node": (["glovebox-node", "serve", "--name", "n", "--plane", at, "--plane-key", key, "--broker", at,
                                   "--key", d + "/key", "--objects", d, "--state", d + "/state", "--uid-base",
                                   str(UID_BASE + 10_000_000)], {}),
                "glovebox-gate": (["glovebox-gate"], {0: silent}),
                "glovebox-decryptfs": (["glovebox-decryptfs"], {3: folder, 4: silent, 5: folder, 6: silent, 7: audit}),
                "glovebox-sandbox": (["glovebox-sandbox"], {3: silent, 4: folder, 5: report, 8: silent}),
                "glovebox-unpack": (["glovebox-unpack", "sha256:" + "a" * 64, "1600000000", *["1"] * 6], {3: folder, 4: folder, 5: result}),
                "glovebox-simtee": (["glovebox-simtee", "launch", "--key", d + "/root", "--firmware", d + "/firmware", "--kernel", "/k",
                                     "--initrd", "/i", "--command-line", "x", "--cpus", "1", "--memory", "1073741824",
                                     "--launch-config", "0" * 64, "--firmware-sha256", "0" * 64, "--kernel-sha256", "0" * 64,
                                     "--initrd-sha256", "0" * 64, "--uid", str(UID_BASE + 20_000_000), "--node-fd", "3", "--life", "60",
                                     "--control-fd", "4", "--volume-fd", "5"], {3: theirs.fileno()}),
                "glovebox-agent": (["glovebox-agent", "worker"], {3: theirs.fileno(), 4: packets_theirs.fileno()}),
            }
            self.assertEqual(set(held), ALONE)
            for name, (argv, descriptors) in held.items():
                with self.subTest(name):
                    process = self.held(argv, descriptors)
                    try:
                        deadline = time.monotonic() + 20
                        while program(process.pid) != name or dumps(process.pid):
                            self.assertIsNone(process.poll(), "it does not wait")
                            self.assertLess(time.monotonic(), deadline, dumps(process.pid))
                            time.sleep(0.01)
                    finally:
                        process.kill()
                        process.wait()

    def test_every_program_of_an_installation_at_work(self):
        spec = h.job_spec("dumps", [h.PYTHON, "-c", "import time; time.sleep(600)"], [h.metrics("ok")], ["open"], run=900)
        job = world.engineer.run("job", "submit", world.spec(spec))["jobId"]
        try:
            deadline = time.monotonic() + 60
            while True:
                tree, everything = {world.up.up.pid}, h.processes()
                while more := {p[0] for p in everything if p[1] in tree} - tree:
                    tree |= more
                if any("time.sleep(600)" in p[3] and not program(p[0]).startswith("glovebox") for p in everything if p[0] in tree):
                    break
                self.assertLess(time.monotonic(), deadline, world.up.tail())
                time.sleep(0.05)
            seen = {program(pid) for pid in tree} & PROGRAMS
            self.assertEqual(seen | ALONE, PROGRAMS)
            for pid in tree:
                wrong = dumps(pid)
                if not program(pid).startswith("glovebox"):  # the runtime and the container: of these the limit alone
                    wrong = [w for w in wrong if w != "dumpable"]
                self.assertEqual(wrong, [], program(pid))
        finally:
            world.engineer.run("job", "cancel", job)


if __name__ == "__main__":
    unittest.main()
