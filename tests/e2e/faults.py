"""An installation whose programs a test starts, kills and starts again one by one, with relays between them that cut, delay and count; and
what must be true of it after everything settled: every job ended once, no key twice, nothing charged twice, nothing left behind, no file half-written.
"""
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import random
import select
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

UID_BASE = 1_300_000_000  # nobody else's: processes are found by it
FIRST_AGENT = 100         # docs/architecture.md: user ids on one machine
PER_SLOT = 140_000
FULL = os.environ.get("GBX_FAULTS") == "all"
SEED = os.environ.get("GBX_FAULTS_SEED") or str(random.SystemRandom().randrange(1 << 32))
ENDS = ("Completed", "Denied", "Failed", "Rejected", "Cancelled", "Expired", "Revoked")


def chance(what):
    """Which fault is injected where, unless all are: another one at every run, the same under GBX_FAULTS_SEED whatever else runs."""
    return random.Random("%s %s" % (SEED, what))


class Relay:
    """Passes TCP connections on to `target`, on a port of its own. `trap(n, work)` runs `work` when the n-th chunk of either direction (counted from
    then on, over all connections) has arrived and was not passed on yet; `delay` holds every chunk back; `spoil` is asked what to send instead
    of a chunk; `cut()` ends all connections and says how many."""

    def __init__(self, target):
        self.target = target
        self.delay = 0.0
        self.spoil = None
        self.count = 0
        self._trap = None
        self._lock = threading.Lock()
        self._open = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def trap(self, n, work):
        with self._lock:
            self.count = 0
            self._trap = (n, work) if n else None

    def cut(self):
        with self._lock:
            doomed = list(self._open)
        for s in doomed:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other end was first
        return len(doomed)

    def close(self):
        self._listener.close()
        self.cut()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                host, port = self.target.rsplit(":", 1)
                server = socket.create_connection((host, int(port)), timeout=10)
                server.settimeout(None)
            except OSError:
                client.close()  # nobody there, as without the relay
                continue
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source, sink):
        try:
            while True:
                chunk = source.recv(1 << 16)
                if not chunk:
                    break
                self._passing()
                if self.delay:
                    time.sleep(self.delay)
                spoil = self.spoil
                sink.sendall(spoil(chunk) if spoil else chunk)
        except OSError:
            pass  # cut, or one end died
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        with self._lock:
            self._open -= {source, sink}
        source.close()

    def _passing(self):
        with self._lock:
            self.count += 1
            if self._trap is None or self.count < self._trap[0]:
                return
            work, self._trap = self._trap[1], None
        work()


class Ambush(threading.Thread):
    """Kills the next process below this installation's node that executes the program, before its first instruction: fanotify holds it there until
    it has been answered. Or as it begins its `at`-th system call; `calls` is how many it then had begun. `refused`: nobody may trace here."""
    SEIZE, INTERRUPT, SYSCALL, SYSGOOD, WALL = 0x4206, 0x4207, 24, 1, 0x40000000
    CLASS_CONTENT, CLOEXEC, ADD, OPEN_EXEC_PERM, ALLOW = 4, 1, 1, 0x40000, 1
    EVENT = struct.Struct("IBBHQii")
    AT_FDCWD = -100

    def __init__(self, node, program, at=0):
        super().__init__(daemon=True)
        self.node, self.at, self.calls, self.hit, self.refused, self.over = node, at, 0, False, False, False
        libc = self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.fanotify_init(self.CLASS_CONTENT | self.CLOEXEC, os.O_RDONLY)
        if self.fd < 0 or libc.fanotify_mark(self.fd, self.ADD, ctypes.c_uint64(self.OPEN_EXEC_PERM), self.AT_FDCWD,
                                             program.encode()) != 0:
            raise OSError(ctypes.get_errno(), "fanotify", program)
        self.start()

    def run(self):
        while not self.over:
            if not select.select([self.fd], [], [], 0.1)[0]:
                continue
            events = os.read(self.fd, 4096)
            for at in range(0, len(events), self.EVENT.size):
                *_, opened, pid = self.EVENT.unpack_from(events, at)
                mine = not self.hit and self.calls == 0 and self.ours(pid)
                if mine and self.at == 0:
                    os.kill(pid, signal.SIGKILL)
                    self.hit = True
                os.write(self.fd, struct.pack("iI", opened, self.ALLOW))
                os.close(opened)
                if mine and self.at > 0:
                    self.follow(pid)
        os.close(self.fd)

    def ptrace(self, request, pid, data=0):
        return self.libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(0), ctypes.c_void_p(data)) == 0

    def follow(self, pid):
        """To its `at`-th system call, or its end. It is seized when it executes, so that it may have gone a few instructions alone."""
        if not self.ptrace(self.SEIZE, pid, self.SYSGOOD):
            self.refused = ctypes.get_errno() == errno.EPERM
            return
        self.ptrace(self.INTERRUPT, pid)
        entered = False
        while True:
            try:
                _, status = os.waitpid(pid, self.WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                return
            sig = os.WSTOPSIG(status)
            if sig == signal.SIGTRAP | 0x80:
                entered = not entered
                self.calls += entered
                if self.calls == self.at:
                    os.kill(pid, signal.SIGKILL)
                    self.hit = True
                    os.waitpid(pid, self.WALL)
                    return
            own = sig == signal.SIGTRAP | 0x80 or status >> 16 != 0  # a stop of the tracer's making, no signal of the program's
            self.ptrace(self.SYSCALL, pid, 0 if own else sig)

    def ours(self, pid):
        while pid > 1 and pid != self.node:
            with open("/proc/%d/status" % pid, encoding="ascii", errors="replace") as f:
                pid = next(int(line.split()[1]) for line in f if line.startswith("PPid:"))
        return pid == self.node


class SlowDisk:
    """Whatever a process, or a thread of it, syncs takes so many seconds longer from now until close(): what the program is told is as ever.
    strace stops it at each of these calls, so nothing of the program is another one; SkipTest where nobody may trace."""

    def __init__(self, program, seconds, log):
        self.path = log
        self.tracer = subprocess.Popen(["strace", "-f", "-p", str(program.process.pid), "-o", log, "-e", "trace=fsync,fdatasync",
                                        "-e", "inject=fsync,fdatasync:delay_enter=%d" % (1_000_000 * seconds)],
                                       stderr=subprocess.PIPE, text=True)
        said = self.tracer.stderr.readline()
        if "attached" not in said:
            self.close()
            raise unittest.SkipTest("a slow disk needs ptrace: " + said.strip())

    def close(self):
        if self.tracer.poll() is None:
            self.tracer.terminate()
            self.tracer.communicate()

    def struck(self):
        """Syncs that were held up."""
        with open(self.path, encoding="utf-8", errors="replace") as f:
            return sum("(DELAYED)" in line for line in f)


class Ballast:
    """Takes all room of a file system, and with `files` at most so many names."""

    def __init__(self, path, files=0):
        self.path = path
        self.files = files

    def fill(self):
        with open(self.path, "wb", buffering=0) as f:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        f.write(b"\0" * size)
                except OSError:
                    pass  # full
        try:
            for n in range(self.files):
                os.mkdir("%s.%d" % (self.path, n))
        except OSError:
            pass  # full

    def empty(self):
        if os.path.exists(self.path):
            os.unlink(self.path)
        for n in range(self.files):
            if os.path.exists("%s.%d" % (self.path, n)):
                os.rmdir("%s.%d" % (self.path, n))


class Program:
    """One of the three services. A keeper starts it again when it ends, like `up`, but for ever and at once."""

    def __init__(self, name, command, user, log, ready=False, passphrase=None):
        self.name, self.command, self.user, self.ready, self.passphrase = name, command, user, ready, passphrase
        self.log = log
        self.process = None
        self.starts = 0
        self.wanted = False
        self.lock = threading.Lock()

    def start(self):
        with self.lock:
            self.wanted = True
            self._spawn()

    def _spawn(self):
        keep, words, read_end = [], list(self.command), None
        if self.passphrase:
            read, write = os.pipe()
            os.write(write, self.passphrase)
            os.close(write)
            keep.append(read)
            words += ["--passphrase-fd", str(read)]
        if self.ready:
            read_end, write = os.pipe()
            keep.append(write)
            words += ["--ready-fd", str(write)]
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log, pass_fds=keep, start_new_session=True,
                                        user=self.user, group=self.user, extra_groups=[] if self.user else None)
        self.starts += 1
        for fd in keep:
            os.close(fd)
        if read_end is not None:
            with os.fdopen(read_end, "rb") as f:
                f.read()  # ready, or dead already: then the keeper tries again

    def keep(self):
        with self.lock:
            if self.wanted and self.process.poll() is not None:
                self._spawn()

    def kill(self, sig=signal.SIGKILL):
        """Whether there was one."""
        there = self.process.poll() is None
        self.process.send_signal(sig)
        return there

    def stop(self, seconds=30):
        with self.lock:
            self.wanted = False
            if self.process is None or self.process.poll() is not None:
                return
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Cluster:
    """Made by `glovebox up`, which is then stopped; from then on each program runs alone. `wrap` maps a program's name to words before its own."""

    def __init__(self, lease_seconds=5, wrap=None, uid_base=UID_BASE, environment="local"):
        print("GBX_FAULTS_SEED=" + SEED, file=sys.stderr)
        layout, self.digest = h.image("noop-image")
        self.uid_base = uid_base
        self.environment = environment
        self.up = h.Installation(uid_base, environment=environment)
        self.dir, self.state, self.facts = self.up.dir, self.up.state, self.up.facts
        self.owner = h.Person(self.up, "owner", ["owner"])
        self.me = h.Person(self.up, "me", ["owner", "consumer"])
        self._publish(layout)
        self.up.stop()
        self.log = open(os.path.join(self.dir, "programs.log"), "ab")
        self.bin = os.path.join(self.dir, "bin")
        self._bring_programs()
        self._configure(lease_seconds, wrap or {})
        self._keeping = True
        for p in self.programs.values():
            p.start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _bring_programs(self):
        """Services are started here under their own accounts, which need not be able to enter the folder that was built in."""
        os.makedirs(self.bin)
        for name in os.listdir(h.BIN):
            if name.startswith("glovebox"):
                shutil.copy2(os.path.join(h.BIN, name), self.bin)

    def _publish(self, layout):
        folder = os.path.join(self.dir, "nothing")
        os.makedirs(folder)
        with open(os.path.join(folder, "empty.csv"), "w", encoding="utf-8") as f:
            f.write("a\n1\n")
        for who, other, name, kind in ((self.me, self.owner, "noop", "image"), (self.owner, self.me, "nothing", "dataset")):
            policy = who.policy(os.path.join(self.dir, name + ".yaml"), kind, self.digest, self.facts["nodeKey"], other.id,
                                extra=["--consumer", self.me.id, "--no-lease", "--free-bits", "65536", "--attempts", "3"])
            if kind == "image":
                who.run("image", "import", layout, "--name", name, "--policy", policy)
            else:
                who.run("asset", "publish", folder, "--name", name, "--kind", kind, "--policy", policy)

    def _key(self, program, *words):
        return subprocess.run([os.path.join(self.bin, program), "key", *words], stdout=subprocess.PIPE, text=True, check=True,
                              user=self.uid_base + 2 if program == "glovebox-plane" else 0,
                              group=self.uid_base + 2 if program == "glovebox-plane" else 0).stdout.split("\n")[0]

    def _configure(self, lease_seconds, wrap):
        d = lambda name: os.path.join(self.state, name)  # noqa: E731
        with open(d("broker-passphrase"), "rb") as f:
            passphrase = f.read()
        plane_key, node_key = self._key("glovebox-plane", "--state", d("plane")), self._key("glovebox-node", "--key", d("node/key"))
        self.relays = {"plane-broker": Relay(self.facts["broker"]), "agent-broker": Relay(self.facts["broker"]),
                       "node-plane": Relay(self.facts["nodes"])}
        via = {name: r.address for name, r in self.relays.items()}
        words = {
            "broker": ["serve", "--state", d("broker"), "--listen", self.facts["broker"], "--plane", plane_key],
            "plane": ["serve", "--state", d("plane"), "--listen", self.facts["plane"], "--node-listen", self.facts["nodes"],
                      "--broker", via["plane-broker"], "--set", d("set.json"), "--objects", d("objects"), "--node", "local=" + node_key,
                      "--lease-seconds", str(lease_seconds)],
            "node": ["serve", "--name", "local", "--plane", via["node-plane"], "--plane-key", self.facts["nodesKey"],
                     "--broker", via["agent-broker"], "--key", d("node/key"), "--objects", d("objects"), "--state", d("environments"),
                     "--slots", "1", "--uid-base", str(self.uid_base + FIRST_AGENT)],
        }
        if self.environment == "vm":
            words["node"] += ["--environment", "vm", "--guest", h.GUEST, "--release", d("node/release.json"), "--simtee-key", d("node/simtee.key")]
        users = {"broker": self.uid_base + 1, "plane": self.uid_base + 2, "node": 0}
        self.programs = {
            name: Program(name, [*wrap.get(name, []), os.path.join(self.bin, "glovebox-" + name), *words[name]], users[name], self.log,
                          ready=name != "node", passphrase=passphrase if name == "broker" else None)
            for name in ("broker", "plane", "node")}

    def _keep(self):
        while self._keeping:
            for p in self.programs.values():
                p.keep()
            time.sleep(0.05)

    def close(self):
        self._keeping = False
        self._keeper.join()
        for name in ("node", "plane", "broker"):
            self.programs[name].stop()
        for r in self.relays.values():
            r.close()
        self.log.close()
        self.up.close()

    def tail(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()[-5000:]

    @contextlib.contextmanager
    def small_disk(self, name, folder, user, room=16 << 20, inodes=0):
        """That program's folder on a file system of its own with so much room left (a log of SQLite's alone takes 4 MiB), and where it is said for so many files: fill() takes it all,
        empty() gives it back."""
        program, path, aside = self.programs[name], os.path.join(self.state, folder), os.path.join(self.dir, "aside-" + folder)

        def move(source, target):
            subprocess.run(["cp", "-a", source + "/.", target], check=True)
        program.stop()
        shutil.copytree(path, aside)
        used = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(path) for f in files)
        options = "size=%d,mode=0700,uid=%d,gid=%d" % (2 * used + room, user, user) + (",nr_inodes=%d" % inodes if inodes else "")
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
        try:
            subprocess.run(["cp", "-a", aside + "/.", path], check=True)
            for d, names, files in os.walk(path):
                for f in [d] + [os.path.join(d, n) for n in names + files]:
                    os.chown(f, user, user)
            program.start()
            yield Ballast(os.path.join(path, "ballast"), inodes)
        finally:
            program.stop()
            shutil.rmtree(aside)
            os.makedirs(aside)
            move(path, aside)
            subprocess.run(["umount", path], check=True)
            shutil.rmtree(path)
            os.makedirs(path, mode=0o700)
            move(aside, path)
            for d, names, files in os.walk(path):
                for f in [d] + [os.path.join(d, n) for n in names + files]:
                    os.chown(f, user, user)
            program.start()

    # ---- jobs ----

    def spec(self, name, attempts=3, queue=120, start=None):
        start = start or (240 if self.environment == "vm" else 60)
        spec = h.job_spec(name, ["/bin/noop"], [dict(h.metrics("ok"), path="metrics.json")], ["nothing"], memory="64MiB",
                          environment=self.environment)
        spec["spec"]["image"]["asset"] = "noop"
        spec["spec"]["attempts"] = attempts
        spec["spec"]["timeouts"] = {"queue": queue, "start": start, "run": 60}
        return h.write_json(os.path.join(self.dir, name + ".json"), spec)

    def patiently(self, *args, seconds=60):
        """The command again while it finds nobody there: what a person would do."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.me.run(*args)
            except h.CommandFailed as e:
                # or the plane's clock is wrong for the moment, and it takes no signed request
                if (e.code != h.INFRASTRUCTURE and e.reason != "expired") or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def submit(self, name, **how):
        # One key for all tries: a lost answer does not make a second job.
        return self.patiently("job", "submit", self.spec(name, **how), "--idempotency-key", name)["jobId"]

    def ended(self, job, seconds=90):
        deadline = time.monotonic() + seconds
        while True:
            got = self.patiently("job", "get", job)
            if got["state"] in ENDS:
                return got
            if time.monotonic() > deadline:
                raise AssertionError("job is stuck: %s\n%s" % (got, self.tail()))
            time.sleep(0.1)

    # ---- what must be true ----

    def traces(self, job):
        """What there is of the job's environments on this machine."""
        environments = os.path.join(self.state, "environments")
        everything = h.processes()
        first = self.uid_base + FIRST_AGENT
        found = [("process", p[0], p[3]) for p in everything if first <= p[2] < first + PER_SLOT or environments + "/" in p[3]
                 or ("glovebox-simtee launch" in p[3] and self.state in p[3])]
        found += [("mount", p[0]) for p in everything if environments + "/" in p[4] or "glovebox-gbx-" + job[:16] in p[4]]
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as f:
            points = [line.split()[1] for line in f if line.split()[2] in ("cgroup", "cgroup2")]
        found += [("cgroup", d) for point in points for d in os.listdir(point) if d.startswith("glovebox-") and job[:16] in d]
        return found + [("folder", d) for d in os.listdir(environments)]

    def part(self, name):
        """Process ids of that program in the environments."""
        environments = os.path.join(self.state, "environments") + "/"
        tree = {p[0] for p in h.processes() if environments in p[3]}
        everything = h.processes()
        while True:
            more = {p[0] for p in everything if p[1] in tree} - tree
            if not more:
                return [p[0] for p in everything if p[0] in tree and name in p[3]]
            tree |= more

    def leaves_nothing(self, job, seconds=30):
        deadline = time.monotonic() + seconds
        while self.traces(job):
            if time.monotonic() > deadline:
                raise AssertionError("left behind: %s\n%s" % (self.traces(job), self.tail()))
            time.sleep(0.1)

    def broker_log(self):
        """(kind, body) of the broker's entries; the broker is stopped meanwhile, for its log is its own."""
        broker = self.programs["broker"]
        broker.stop()
        try:
            log = sqlite3.connect("file:%s?mode=ro" % os.path.join(self.state, "broker", "log.db"), uri=True)
            try:
                rows = [json.loads(r[0]) for r in log.execute("SELECT entry FROM entry ORDER BY seq")]
            finally:
                log.close()
        finally:
            broker.start()
        return [(e["kind"], e["body"]) for e in rows]

    def judge(self, ends):
        """Everything that must hold of jobs that have ended (id -> answer of `job get`); a list of what does not."""
        log = self.broker_log()
        wrong = self._files()
        owed = {job: charges_due(job, log) for job in ends}
        for job, end in ends.items():
            mine = [(k, b) for k, b in log if job in json.dumps(b)]
            wrong += ["%s: %s" % (end["name"], w) for w in self._judge(job, end, mine) + owed[job][1]]
        return wrong + self._ledgers({job: lines for job, (lines, _) in owed.items()}, log)

    def _ledgers(self, owed, log):
        """What each owner is shown is what these jobs owe, no more, and adds up over all jobs of the log."""
        wrong = []
        for who, name in ((self.owner, "nothing"), (self.me, "noop")):
            item = self._shown(who, name)
            account = (who.id, item["assetId"])
            entries = {}
            for e in item["entries"]:
                entries.setdefault(e["jobId"], []).append((e["state"], e["freeBits"]))
            for job, lines in owed.items():
                due = [lines[account]] if account in lines else []
                if entries.get(job, []) != due:
                    wrong.append("ledger of %s shows %s for %s, due is %s" % (name, entries.get(job), job, due))
            everything = [charges_due(job, log)[0].get(account) for job in {b["plan"]["body"]["jobId"] for k, b in log if k == "authorise"}]
            total = sum(line[1] for line in everything if line)
            if (item["spentFreeBits"], item["jobs"]) != (total, sum(line is not None for line in everything)):
                wrong.append("ledger of %s adds up to %d bits of %d jobs, due are %d" % (name, item["spentFreeBits"], item["jobs"], total))
        return wrong

    def _shown(self, who, name, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            try:
                return who.run("ledger", "show", name)["items"][0]
            except h.CommandFailed as e:
                if e.code != h.INFRASTRUCTURE or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _judge(self, job, end, entries):
        wrong = []
        kinds = [k for k, _ in entries]
        for kind in ("seal", "release"):
            if kinds.count(kind) > 1:
                wrong.append("%d %s entries" % (kinds.count(kind), kind))
        stages = [(k, b["request"]["body"]["attempt"]) for k, b in entries if k in ("key1", "key2")]
        wrong += ["a second %s of attempt %d" % s for s in set(stages) if stages.count(s) > 1]
        if end["state"] == "Completed":
            wrong += self._result(job, entries)
        elif not end["outcome"]["reason"]:
            wrong.append("ended as %s without a reason" % end["state"])
        return wrong

    def _result(self, job, entries):
        wrong = []
        out = os.path.join(self.dir, "result-" + job[:16])
        if not os.path.exists(out):
            self.patiently("job", "result", job, "--out", out)
        with open(os.path.join(out, "metrics.json"), encoding="utf-8") as f:
            if f.read() != '{"ok":1}\n':
                wrong.append("another result")
        if not self.receipt_holds(job):
            wrong.append("its receipt does not hold")
        release = [b for k, b in entries if k == "release"]
        with open(os.path.join(self.dir, "receipt-%s.json" % job[:16]), encoding="utf-8") as f:
            told = json.load(f)["release"]["body"]["charges"]
        if len(release) != 1 or told != release[0]["charges"]:
            wrong.append("its receipt tells other charges than were made: %s, %s" % (told, release))
        return wrong

    def receipt_holds(self, job):
        receipt = os.path.join(self.dir, "receipt-%s.json" % job[:16])
        if not os.path.exists(receipt):
            self.patiently("receipt", "get", job, "--out", receipt)
        try:
            self.me.run("receipt", "verify", receipt, "--set", self.facts["setId"])
        except h.CommandFailed as e:
            if e.code != h.INTEGRITY:
                raise
            return False
        return True

    def _files(self):
        """Whatever has the name of a sealed output is whole."""
        wrong = []
        for folder, _, names in os.walk(os.path.join(self.state, "plane", "results")):
            for name in names:
                with open(os.path.join(folder, name), "rb") as f:
                    content = hashlib.sha256(f.read()).hexdigest()
                if len(name) == 64 and content != name:
                    wrong.append("half-written: " + os.path.join(folder, name))
        return wrong


END_BITS, REASON_BITS = 8, 4  # docs/gate.md: how a job ended; one reason of a reviewer


def charges_due(job, log):
    """((owner, asset) -> (state, free bits)) of what that job owes by the entries of the broker's log, and what in them is wrong: every owner is
    charged once, for the whole amount, whenever the data keys left; nobody where they never did."""
    due, wrong, amount = {}, [], 0
    plan, attempts, reasons, gate, cancelled = None, 0, 0, None, False

    def charge(state, charges, bits, what):
        accounts = [(c["ownerId"], c["assetId"]) for c in charges]
        if sorted(accounts) != sorted((c["ownerId"], c["assetId"]) for c in plan["charges"]) or len(set(accounts)) != len(accounts):
            wrong.append("%s charges %s" % (what, accounts))
        wrong.extend("%s charges %d bits where %d are due" % (what, c["freeBits"], bits) for c in charges if c["freeBits"] != bits)
        due.update({account: (state, bits) for account in accounts})

    for kind, body in log:
        if kind == "authorise" and body["plan"]["body"]["jobId"] == job:
            plan = body["plan"]["body"]
            amount = plan["charges"][0]["freeBits"]
            owners = {p["ownerId"] for p in plan["policies"]}
            if {c["ownerId"] for c in plan["charges"]} != owners or len(plan["charges"]) != len(plan["policies"]):
                wrong.append("planned charges of others than its owners: %s" % plan["charges"])
        elif kind == "key2" and body["request"]["body"]["jobId"] == job:
            attempts += 1
            charge("reserved", body["reserved"], amount, kind)
        elif kind == "seal" and body["seal"]["statement"]["body"]["manifest"]["context"]["jobId"] == job:
            gate = body["seal"]["statement"]["body"]["manifest"]["context"]["verdict"]["charge"]["freeBits"]
        elif kind == "ruling" and body["jobId"] == job:
            reasons += len(body["request"]["ruling"]["body"]["reasons"])
        elif kind == "cancel" and body["request"]["cancel"]["body"]["jobId"] == job:
            cancelled = True
            if attempts:
                charge("cancelled", body["charges"], END_BITS + attempts_bits(attempts) + reasons * REASON_BITS, kind)
            elif body["charges"]:
                wrong.append("a cancellation charges for a job that had no data")
        elif kind == "release" and body["jobId"] == job:
            bits = END_BITS + attempts_bits(attempts) + reasons * REASON_BITS
            released = body["decision"] == "release"
            charge("cancelled" if cancelled else "released" if released else "rejected", body["charges"],
                   bits + gate - END_BITS if released else bits, kind)
    return due, wrong


def attempts_bits(attempts):
    """Which of so many it was; their owners ask for no slots."""
    return (attempts - 1).bit_length()


class Case(unittest.TestCase):
    """With `cluster`, a Cluster that all tests of a module share. Each test counts in `struck` where its fault met something: one that met nothing
    has tried nothing."""
    patience = 90  # seconds for a job, whose attempts may be several

    def setUp(self):
        self.ends = {}
        self.struck = 0
        for relay in self.cluster.relays.values():
            relay.trap(0, None)
            relay.delay, relay.spoil = 0.0, None

    def job(self, name, seconds=None, **how):
        """A job to its end, and nothing of it left on the machine."""
        seconds = seconds or self.patience
        began = time.monotonic()
        job = self.cluster.submit(name, **how)
        self.ends[job] = self.cluster.ended(job, seconds)
        self.cluster.leaves_nothing(job)
        if FULL:
            print("%s: %s, %d attempts, %.1f s" % (name, self.ends[job]["state"], len(self.ends[job]["environments"]), time.monotonic() - began),
                  file=sys.stderr)
        return self.ends[job]

    def all_is_well(self):
        self.assertGreater(self.struck, 0, "the fault struck nothing")
        wrong = self.cluster.judge(self.ends)
        self.assertEqual(wrong, [], self.cluster.tail())

    # A seal that the broker has and an output that nobody has any more: after 300 s the job says so.
    def completes(self, end, sealed_may_be_lost=False):
        if sealed_may_be_lost and end["state"] == "Expired":
            self.assertEqual(end["outcome"]["reason"], "lost", end)
            return
        self.assertEqual(end["state"], "Completed", (end, self.cluster.tail()))

    def at_each(self, link, few, most, what, attempts=None, until=None):
        """One job for each n: `what` happens when the n-th message of that link has arrived and was not passed on, and says whether it met anything.
        `few` of the first `until` unless all of the first `most`."""
        left = list(range(1, most + 1))
        if not FULL:
            left = left[:until]
            chance(self.id() + link).shuffle(left)
        happened = 0
        while left and (FULL or happened < few):
            n = left.pop(0)
            fired = threading.Event()

            def now():
                self.struck += bool(what())
                fired.set()
            self.cluster.relays[link].trap(n, now)
            name = "%s-%s-%d" % (self.id().rsplit(".", 1)[1].replace("_", "-")[5:40], link, n)
            with self.subTest(name):
                end = self.job(name, 400 if FULL else None)
                self.completes(end, sealed_may_be_lost=FULL and attempts is None)
                if attempts:
                    self.assertEqual(len(end["environments"]), attempts, end)
            happened += fired.is_set()
            self.cluster.relays[link].trap(0, None)
            if not fired.is_set():  # nor would any after it
                left = [other for other in left if other < n]
        self.assertGreaterEqual(happened, few)
        self.assertGreaterEqual(self.struck, few)
        self.all_is_well()
