"""One Glovebox installation of real processes for a test module, driven through the command line like a person would.

Needs root, FUSE and crun; `tests/e2e/run` says what is missing and fails, for in CI nothing may be missing.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("GBX_BIN_DIR", os.path.join(ROOT, "build", "dev", "bin"))

# Exit statuses of the command line (docs/cli.md).
OK, INTERNAL, USAGE, DENIED, ATTESTATION, HELD, INFRASTRUCTURE, INTEGRITY, FAILED = range(9)
PURPOSE = "test of the whole way"
PYTHON = "/usr/bin/python3"
STUDY = [PYTHON, "/opt/study/study.py"]
# What the hostile tests need an owner to allow.
LOOSE = ["--log-bytes", "256", "--free-bits", "4096", "--attempts", "2"]
LOOSE += [w for t in ("table", "json", "metrics", "text", "opaque") for w in ("--output-type", t)]


class CommandFailed(Exception):
    def __init__(self, args, code, out, err):
        super().__init__("%s: exit %d\n%s\n%s" % (" ".join(args), code, out, err))
        self.code = code
        self.out = out
        self.err = err

    @property
    def reason(self):
        try:
            return json.loads(self.err[self.err.index("{\n"):])["error"]["reason"]  # behind remarks for people
        except (ValueError, KeyError):
            return None


class Person:
    """A home folder with keys, and the commands of its owner."""

    def __init__(self, installation, name, roles, invite=None):
        self.facts = installation.facts
        self.home = os.path.join(installation.dir, "home-" + name)
        facts = installation.facts
        self.run("init", "--plane", facts["plane"], "--ca", facts["ca"], "--set", facts["setId"])
        self.id = self.run("identity", "create", "--name", name, "--role", ",".join(roles),
                           "--invite-file", invite or facts["invite"])["identityId"]

    def run(self, *args, timeout=120):
        """The answer as JSON; CommandFailed with status and reason otherwise."""
        command = [os.path.join(BIN, "glovebox"), "--home", self.home, "-o", "json", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode != 0:
            raise CommandFailed(args, done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def where(self, node):
        """Options of a policy that allows this installation's environments."""
        if self.facts["simRoot"]:
            return ["--allow-sim", self.facts["simRoot"], "--release", self.facts["release"]]
        return ["--allow-none-node", node]

    def policy(self, path, kind, image_digest, node, join, command=None, extra=()):
        args = ["policy", "new", "--yes", "--kind", kind, "--purpose", PURPOSE, "--image-digest", image_digest,
                *self.where(node), "--custody", "operator", "--rollback", "unprotected", "--join-owner", join,
                "--release-slot", "0", "--days", "2", "--force", "--out", path, *extra]
        args += ["--command", json.dumps(command)] if command else ["--any-command"]
        self.run(*args)
        return path


# Where jobs run: "local", or "vm" for a machine each, of the guest in build/guest (guest/build makes it).
ENVIRONMENT = os.environ.get("GBX_E2E_ENVIRONMENT", "local")
# A machine boots within it also beside three others, under emulation.
START_S = 240 if ENVIRONMENT == "vm" else 60
GUEST = os.path.join(ROOT, "build", "guest")


class Installation:
    def __init__(self, uid_base=None, inside=(), environment=ENVIRONMENT):
        """`inside` is the start of a command that runs `glovebox up`, in a place of the test's making."""
        self.uid_base = uid_base
        self.environment = environment
        self.inside = list(inside)
        self.dir = tempfile.mkdtemp(prefix="gbx-e2e-", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.state = os.path.join(self.dir, "state")
        self.log = open(os.path.join(self.dir, "up.log"), "wb")
        self.up = None
        self.start()

    def start(self, *args, keeps=False):
        """With `keeps` installation.json of the start before stays until it is written anew, as it does for a person."""
        done = os.path.join(self.state, "installation.json")
        before = self.written(done) if keeps else None
        if os.path.exists(done) and not keeps:
            os.unlink(done)
        command = [*self.inside, os.path.join(BIN, "glovebox"), "up", "--state", self.state,
                   *(() if "--listen" in args else ("--listen", "127.0.0.1:0")), *args]
        command += ["--environment", self.environment]
        if self.environment == "vm":
            command += ["--guest", GUEST]
        if self.uid_base:
            command += ["--uid-base", str(self.uid_base)]
        self.up = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while self.written(done) == before:
            if self.up.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("glovebox up did not start:\n" + self.tail())
            time.sleep(0.05)
        with open(done, encoding="utf-8") as f:
            self.facts = json.load(f)

    @staticmethod
    def written(path):
        """Which file it is: one that is written anew is another. None: there is none."""
        return (os.stat(path).st_ino, os.stat(path).st_mtime_ns) if os.path.exists(path) else None

    def tail(self):
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as f:
            return f.read()[-6000:]

    def says(self, text, seconds=30):
        """It is ready before it has said so."""
        deadline = time.monotonic() + seconds
        while text not in self.tail():
            if time.monotonic() > deadline:
                raise AssertionError("%r is not in\n%s" % (text, self.tail()))
            time.sleep(0.05)

    def stop(self):
        if self.up and self.up.poll() is None:
            self.up.send_signal(signal.SIGTERM)
            try:
                self.up.wait(60)
            except subprocess.TimeoutExpired:
                self.up.kill()
                self.up.wait()
        self.up = None

    def close(self):
        self.stop()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class World:
    """An installation with a hospital, an engineer, the study's image, and the dataset twice: `wdbc` for the study's
    command only, `open` for any command of the same image and for two attempts."""

    def __init__(self, uid_base=None, environment=ENVIRONMENT):
        layout, self.digest = image("study-image")
        self.up = Installation(uid_base, environment=environment)
        d = self.up.dir
        self.data = os.path.join(d, "data")
        subprocess.run([os.path.join(ROOT, "examples/breast-cancer/get-data"), self.data], check=True, stdout=subprocess.DEVNULL)
        self.hospital = Person(self.up, "hospital", ["owner"])
        self.engineer = Person(self.up, "engineer", ["owner", "consumer"])
        self.stranger = Person(self.up, "stranger", ["consumer"])
        node = self.up.facts["nodeKey"]
        for name, command, extra in (("wdbc", STUDY, ()), ("open", None, LOOSE)):
            policy = self.hospital.policy(os.path.join(d, name + ".yaml"), "dataset", self.digest, node, self.engineer.id, command, extra)
            self.hospital.run("asset", "publish", self.data, "--name", name, "--kind", "dataset", "--policy", policy)
            self.hospital.run("lease", "grant", "--asset", name, "--consumer", self.engineer.id, "--jobs", "50", "--days", "1")
        policy = self.engineer.policy(os.path.join(d, "image.yaml"), "image", self.digest, node, self.hospital.id,
                                      extra=[*LOOSE, "--consumer", self.engineer.id, "--consumer", self.stranger.id, "--no-lease"])
        self.engineer.run("image", "import", layout, "--name", "study-image", "--policy", policy)

    def close(self):
        self.up.close()

    def spec(self, value):
        return write_json(os.path.join(self.up.dir, "spec.json"), value)


def own_uid_base():
    """User ids for one run of one module: whatever has them is its own, also where the suite runs twice on this machine."""
    return 1_400_000_000 + random.SystemRandom().randrange(2000) * 200_000


def processes():
    """(pid, parent, uid, command line, mount table) of everything that runs."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/status" % pid, encoding="ascii", errors="replace") as f:
                status = dict(line.split(":", 1) for line in f if ":" in line)
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                command = f.read().replace(b"\0", b" ").decode(errors="replace")
            with open("/proc/%s/mountinfo" % pid, encoding="utf-8", errors="replace") as f:
                mounts = f.read()
        except (OSError, ValueError):
            continue  # it ended meanwhile
        if status["State"].split()[0] != "Z":
            found.append((int(pid), int(status["PPid"]), int(status["Uid"].split()[0]), command, mounts))
    return found


class Shared:
    """What all tests of a module share, made when the first begins. In the module:
    `world = h.Shared(h.World)` and `setUpModule, tearDownModule = world.hooks()`."""

    def __init__(self, make):
        self._make = make
        self._made = None

    def hooks(self):
        def begin():
            self._made = self._make()

        return begin, lambda: self._made.close()

    def __getattr__(self, name):
        return getattr(self._made, name)


def job_spec(name, command, outputs, inputs, env=None, run=60, memory="256MiB", scratch="16MiB", image="256MiB", pids=None, environment=ENVIRONMENT):
    sandbox = {} if pids is None else {"pids": pids}
    return {
        "apiVersion": "glovebox/v1", "kind": "PrivateJob", "metadata": {"name": name},
        "spec": {
            "purpose": PURPOSE, "image": {"asset": "study-image"}, "command": command, "args": [], "env": env or {},
            "inputs": [{"name": i, "asset": i, "mount": "/data/" + i} for i in inputs],
            "outputs": outputs,
            "resources": {"cpu": 1, "memory": memory, "scratch": scratch, "image": image, "gpu": 0},
            "tee": {"anyOf": ["sim" if environment == "vm" else "none"], "releases": []}, "sandbox": sandbox,
            "logs": {"visibility": "none", "maxBytes": 0}, "attempts": 1,
            "timeouts": {"queue": 60, "start": 240 if environment == "vm" else 60, "run": run},
        },
    }


def metrics(*names, maximum=1000):
    return {"name": "m", "path": "m.json", "type": "metrics", "maxBytes": 1024,
            "schema": {"fields": [{"name": n, "type": "integer", "minimum": 0, "maximum": maximum} for n in names]}}


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f)
    return path


def digest_of(script):
    """The variable that holds the digest of an image that was built already."""
    return "GBX_E2E_" + script.upper().replace("-", "_")


def image(script):
    """Builds (or takes from the cache) a sample image; returns its layout folder and digest. Whoever runs modules side by side has it built before
    (lanes.py): building touches files that another module may be reading."""
    target = os.path.join(ROOT, "build", "images", script)
    made = os.environ.get(digest_of(script))
    if made:
        return target, made
    os.makedirs(os.path.dirname(target), exist_ok=True)
    digest = subprocess.run([os.path.join(ROOT, "scripts", "make-" + script), target], stdout=subprocess.PIPE, text=True,
                            check=True).stdout.strip()
    return target, digest
