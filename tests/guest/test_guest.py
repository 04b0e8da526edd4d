"""The guest of a confidential VM: built twice, looked into, booted, and refused where its machine is another.

Usage: python3 -m unittest discover -s tests/guest     (needs build/dev/bin, Debian's mirror or a filled cache, QEMU)
"""
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = os.path.join(ROOT, "build/dev/bin")
GUEST = os.path.join(ROOT, "build/guest")
CACHE = os.path.join(os.path.expanduser("~"), ".cache/glovebox/packages")
PARTS = ("firmware.fd", "kernel", "initrd", "cmdline", "lock", "name")
# A machine that works takes half a minute at most to come up, also beside two others.
PATIENCE_S = 240


def build(out, *arguments):
    return subprocess.run([os.path.join(ROOT, "guest/build"), "--programs", PROGRAMS, "--out", out, *arguments],
                          capture_output=True, text=True)


def setUpModule():
    run = build(GUEST, "--relock-if-gone")
    if run.returncode != 0:
        raise RuntimeError("guest/build: " + run.stderr)
    sys.stderr.write(run.stderr)


def content(folder, part):
    with open(os.path.join(folder, part), "rb") as f:
        return f.read()


def archive_entries(data):
    """(name, mode, uid, gid, time, bytes) of each entry of a newc archive."""
    at = 0
    while True:
        assert data[at:at + 6] == b"070701", "no entry at %d" % at
        fields = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        name = data[at + 110:at + 110 + fields[11] - 1].decode()
        body = at + 110 + fields[11]
        body += -body % 4
        if name == "TRAILER!!!":
            return
        yield name, fields[1], fields[2], fields[3], fields[5], data[body:body + fields[6]]
        at = body + fields[6]
        at += -at % 4


class Built(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def test_two_builds_give_the_same_bytes(self):
        lock = os.path.join(GUEST, "lock")
        again = build(self.folder, "--lock", lock)
        self.assertEqual(again.returncode, 0, again.stderr)
        for part in PARTS:
            self.assertEqual(content(GUEST, part), content(self.folder, part), part)

    def test_another_program_is_another_release(self):
        programs = os.path.join(self.folder, "bin")
        os.makedirs(programs)
        for name in ("agent", "decryptfs", "unpack", "sandbox", "gate"):
            shutil.copy(os.path.join(PROGRAMS, "glovebox-" + name), programs)
        # Another genuine program in its place: the archive differs in nothing else.
        shutil.copy(os.path.join(PROGRAMS, "glovebox-unpack"), os.path.join(programs, "glovebox-gate"))
        run = subprocess.run([os.path.join(ROOT, "guest/build"), "--programs", programs, "--lock",
                              os.path.join(GUEST, "lock"), "--out", self.folder + "/out"], capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertNotEqual(content(GUEST, "name"), content(self.folder + "/out", "name"))

    def lock_without(self, start, end):
        """A lock whose package of that line the mirror no longer has, and no cache."""
        lock = os.path.join(self.folder, "lock")
        with open(lock, "w", encoding="ascii") as f:
            for line in content(GUEST, "lock").decode().splitlines():
                if line.startswith(start):
                    line = line.replace(line.split()[2], "0" * 64).replace(end, "_gone.deb")
                f.write(line + "\n")
        return lock

    def test_a_package_that_is_gone_stops_the_build_and_says_what_to_do(self):
        lock = self.lock_without("zlib1g ", "_amd64.deb")
        run = build(self.folder + "/out", "--lock", lock)
        self.assertEqual(run.returncode, 1)
        self.assertIn("zlib1g", run.stderr)
        self.assertIn("guest/relock", run.stderr)
        self.assertFalse(os.path.exists(self.folder + "/out/name"))

    def test_a_build_that_fails_leaves_the_guest_that_was_there(self):
        # No room for it: the small parts would be written before the large one fails.
        place = os.path.join(self.folder, "small")
        os.makedirs(place)
        script = 'mount -t tmpfs -o size=16m none "$1" && mkdir "$1/guest" && cd "$1/guest" && ' \
                 'for p in firmware.fd kernel initrd cmdline lock name; do echo old >$p; done && ' \
                 '{ "$2" --programs "$3" --lock "$4" --out "$1/guest" && exit 9; cat "$1"/guest/*; ls "$1"; }'
        run = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", place, os.path.join(ROOT, "guest/build"), PROGRAMS,
                              os.path.join(GUEST, "lock")], capture_output=True, text=True)
        self.assertEqual((run.returncode, run.stdout), (0, "old\n" * len(PARTS) + "guest\n"), run.stderr)

    def test_a_folder_with_other_things_is_not_replaced(self):
        with open(os.path.join(self.folder, "thesis"), "w", encoding="ascii") as f:
            f.write("mine")
        run = build(self.folder)
        self.assertEqual((run.returncode, os.listdir(self.folder)), (1, ["thesis"]), run.stderr)
        self.assertIn("thesis", run.stderr)

    def test_a_release_is_named_by_its_content_and_by_nothing_beside_it(self):
        copy, key = os.path.join(self.folder, "guest"), os.path.join(self.folder, "key")
        shutil.copytree(GUEST, copy)
        with open(os.path.join(copy, "name"), "w", encoding="ascii") as f:
            f.write("glovebox-guest-" + "0" * 32 + "\n")

        def glovebox(*words):
            return json.loads(subprocess.run([os.path.join(PROGRAMS, "glovebox"), "--home", self.folder, "-o", "json", "release", *words, "--key", key],
                                             check=True, capture_output=True, text=True).stdout)
        glovebox("key", "--new")

        def name():
            return glovebox("make", "--guest", copy, "--out", os.path.join(self.folder, "release"), "--force")["name"]
        self.assertEqual(name() + "\n", content(GUEST, "name").decode())
        seen = {name()}
        for part in PARTS[:-1]:  # any part changed is another name
            with open(os.path.join(copy, part), "ab") as f:
                f.write(b"#")
            seen.add(name())
        self.assertEqual(len(seen), len(PARTS), seen)

    def test_an_unknown_platform_stops_it_before_anything_is_fetched(self):
        run = build(self.folder + "/out", "--platforms", "tdx,nitro", "--cache", self.folder + "/cache")
        self.assertEqual(run.returncode, 1)
        self.assertIn("nitro", run.stderr)
        self.assertFalse(os.path.exists(self.folder + "/cache"))

    def test_firmware_that_nobody_asked_for_may_be_gone(self):
        lock = self.lock_without("ovmf-amdsev@", "_all.deb")
        asked = build(self.folder + "/asked", "--lock", lock, "--platforms", "sev-snp")
        self.assertEqual(asked.returncode, 1)
        self.assertIn("ovmf-amdsev@forky", asked.stderr)
        self.assertIn("guest/relock", asked.stderr)
        plain = build(self.folder + "/plain", "--lock", lock)
        self.assertEqual(plain.returncode, 0, plain.stderr)
        self.assertFalse(os.path.exists(self.folder + "/plain/firmware-snp.fd"))

    def mirror(self, recipe):
        """Writes a mirror of the guest's own Debian from the packages that GUEST was built of, and a recipe that knows only it."""
        mirror = os.path.join(self.folder, "mirror")
        os.makedirs(mirror)
        index = ""
        for line in content(GUEST, "lock").decode().splitlines():
            if line.startswith("#") or "@" in line.split()[0]:
                continue
            name, version, digest, size, _ = line.split()
            os.symlink(os.path.join(CACHE, digest + ".deb"), os.path.join(mirror, digest + ".deb"))
            fields = "Version: %s\nMaintainer: test\nDescription: test\n" % version
            if name.startswith("linux-image-"):
                index += "Package: linux-image-6.12-cloud-amd64\nArchitecture: amd64\nDepends: %s (= %s)\nFilename: ./none.deb\n" \
                         "Size: 1\nSHA256: %s\n%s\n" % (name, version, "0" * 64, fields)
            index += "Package: %s\nArchitecture: amd64\nFilename: ./%s.deb\nSize: %s\nSHA256: %s\n%s\n" % (name, digest, size, digest, fields)
        with open(os.path.join(mirror, "Packages"), "w", encoding="ascii") as f:
            f.write(index)
        with open(os.path.join(mirror, "Release"), "w", encoding="ascii") as f:
            f.write("Date: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n %s %d Packages\n" % (hashlib.sha256(index.encode()).hexdigest(), len(index)))
        shutil.copytree(os.path.join(ROOT, "guest"), recipe)
        for name, place in (("sources.list", mirror), ("sources.trixie.list", "/nowhere"), ("sources.forky.list", "/nowhere")):
            with open(os.path.join(recipe, name), "w", encoding="ascii") as f:
                f.write("deb [trusted=yes] file:%s ./\n" % place)

    def old_lock(self):
        """A lock whose zlib1g and ovmf-amdsev no mirror has any more."""
        lock = os.path.join(self.folder, "lock")
        with open(lock, "w", encoding="ascii") as f:
            for line in content(GUEST, "lock").decode().splitlines():
                if line.startswith(("zlib1g ", "ovmf-amdsev@")):
                    name, _, _, size, _ = line.split()
                    line = "  ".join((name, "0.1", "0" * 64, size, "file:/nowhere/gone.deb"))
                f.write(line + "\n")
        return lock

    def test_a_package_that_is_gone_is_replaced_where_that_was_asked_for_and_nothing_else_is(self):
        recipe, out = os.path.join(self.folder, "guest"), os.path.join(self.folder, "out")
        self.mirror(recipe)
        words = [os.path.join(recipe, "build"), "--programs", PROGRAMS, "--out", out, "--lock", self.old_lock(), "--cache",
                 os.path.join(self.folder, "cache"), "--relock-if-gone"]
        run = subprocess.run(words, capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("zlib1g", run.stderr)
        self.assertIn("zlib1g", run.stdout)

        def table(text):
            return {line.split()[0]: line.split()[1:4] for line in text.splitlines() if not line.startswith("#")}
        before, after = table(content(GUEST, "lock").decode()), table(content(out, "lock").decode())
        # Firmware of another Debian, which this build does not use, stays as it was.
        self.assertEqual((after.pop("ovmf-amdsev@forky")[0], before.pop("ovmf-amdsev@forky")[0] != "0.1"), ("0.1", True))
        self.assertEqual(after, before)
        self.assertEqual(content(out, "initrd"), content(GUEST, "initrd"))
        self.assertNotEqual(content(out, "name"), content(GUEST, "name"))

        # Asked for, it is looked for at its mirror, and what that says is told in words.
        run = subprocess.run([*words, "--platforms", "sev-snp"], capture_output=True, text=True)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("ovmf-amdsev@forky", run.stderr)
        self.assertIn("/nowhere", run.stderr)
        self.assertIn("next: ", run.stderr)
        self.assertNotIn("Traceback", run.stderr)

    def test_a_package_with_other_bytes_is_never_used(self):
        cache = os.path.join(self.folder, "cache")
        os.makedirs(cache)
        line = next(s for s in content(GUEST, "lock").decode().splitlines() if s.startswith("zlib1g "))
        planted = os.path.join(cache, line.split()[2] + ".deb")
        with open(planted, "wb") as f:
            f.write(b"!<arch>\nanother package")
        lock = os.path.join(self.folder, "lock")
        with open(lock, "w", encoding="ascii") as f:
            f.write(line.replace("http://deb.debian.org", "http://127.0.0.1:9") + "\n")
        run = build(self.folder + "/out", "--lock", lock, "--cache", cache)
        self.assertEqual(run.returncode, 1)
        self.assertIn("zlib1g", run.stderr)

    def test_it_holds_what_the_list_says_and_nothing_else(self):
        entries = list(archive_entries(content(GUEST, "initrd")))
        listed = set()
        with open(os.path.join(ROOT, "guest/files"), encoding="ascii") as f:
            for line in f:
                if line.strip() and not line.startswith("#"):
                    listed.add(os.path.basename(line.split()[1]))
        for name, mode, uid, gid, time, data in entries:
            self.assertEqual((uid, gid, time), (0, 0, 0), name)
            self.assertEqual(mode & 0o6022, 0, name + " is set-id or can be written by others") \
                if mode & 0o170000 != 0o120000 else None
            if mode & 0o170000 != 0o100000:
                continue
            base = os.path.basename(name)
            of_a_module = name.startswith("usr/lib/glovebox/modules/") and data.startswith(b"\x7fELF")
            of_a_profile = name.startswith("usr/lib/glovebox/apparmor/")
            self.assertTrue(base in listed or of_a_module or of_a_profile, name + " is in no list")
        names = {os.path.basename(e[0]) for e in entries}
        for unwanted in ("sh", "bash", "dash", "busybox", "sshd", "agetty", "getty", "login", "modprobe", "systemd"):
            self.assertNotIn(unwanted, names)


class Machine:
    """A VM as the node starts it under emulation, with this test in the node's place."""

    def __init__(self, cmdline=None, more=(), tee=True):
        self.control, theirs = socket.socketpair()
        self.control.settimeout(PATIENCE_S)
        # What plays the platform: it is there, and says nothing.
        self.tee, its = socket.socketpair()
        # The words are those of src/vm, whose golden tests say what a machine is.
        arguments = [
            os.path.join(PROGRAMS, "guest-machine"), "--firmware", GUEST + "/firmware.fd", "--kernel", GUEST + "/kernel",
            "--initrd", GUEST + "/initrd", "--command-line", cmdline or content(GUEST, "cmdline").decode(),
            "--control-fd", str(theirs.fileno()), *(["--tee-fd", str(its.fileno())] if tee else []), "--", *more]
        self.process = subprocess.Popen(arguments, pass_fds=[theirs.fileno(), its.fileno()], stderr=subprocess.PIPE, text=True)
        theirs.close()
        its.close()

    def close(self):
        self.control.close()
        self.tee.close()
        self.process.kill()
        self.process.communicate()

    def receive(self, size):
        data = b""
        while len(data) < size:
            more = self.control.recv(size - len(data))
            if not more:
                raise EOFError("the machine ended after %r" % data)
            data += more
        return data

    def request(self):
        """The first call on the control stream of the mux: kind and stream, length, and the call's own length."""
        payload = b""
        while len(payload) < 4 or len(payload) < 4 + struct.unpack("<I", payload[:4])[0]:
            kind, size = struct.unpack("<BI", self.receive(5))
            self.assert_control(kind)
            payload += self.receive(size)
        return json.loads(payload[4:])

    @staticmethod
    def assert_control(kind):
        assert kind == 0, "a frame of kind and stream %d" % kind

    def ended(self):
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


class Booted(unittest.TestCase):
    def machine(self, **options):
        m = Machine(**options)
        self.addCleanup(m.close)
        return m

    def test_the_agent_asks_for_its_job_and_ends_with_its_node(self):
        m = self.machine()
        self.assertEqual(m.request()["method"], "launch")
        m.control.close()
        self.assertEqual(m.ended(), 0)

    def refused(self, reason, **options):
        m = self.machine(**options)
        said = m.request()
        self.assertEqual((said["method"], said["body"]["sealed"], said["body"]["reason"]), ("end", False, reason))
        m.control.close()
        self.assertEqual(m.ended(), 0)
        return said["body"]["detail"]

    def test_a_machine_without_a_platform_has_no_agent(self):
        self.assertIn("org.glovebox.tee", self.refused("unexpected-device", tee=False))

    def test_a_network_card_is_refused(self):
        self.assertIn("1af4:1041", self.refused("unexpected-device", more=(
            "-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,romfile=,netdev=n,disable-legacy=on,iommu_platform=on")))

    def test_a_port_more_is_refused(self):
        # The bus of a machine as it is started has no room for it: QEMU would end before the guest could refuse anything.
        self.assertIn("org.qemu.guest_agent.0", self.refused("unexpected-device", more=(
            "-set", "device.serial.max_ports=4", "-chardev", "null,id=more", "-device", "virtserialport,chardev=more,name=org.qemu.guest_agent.0")))

    def test_memory_that_can_be_plugged_in_is_refused(self):
        self.assertIn("SRAT", self.refused("unexpected-device", more=("-m", "size=1024M,slots=2,maxmem=4G")))

    def test_shared_memory_is_refused(self):
        self.assertIn("1af4:1110", self.refused("unexpected-device", more=(
            "-object", "memory-backend-ram,id=shared,size=1M,share=on", "-device", "ivshmem-plain,memdev=shared")))

    def test_a_kernel_that_is_not_locked_down_is_refused(self):
        line = content(GUEST, "cmdline").decode().replace("lockdown=confidentiality ", "")
        self.assertIn("lockdown", self.refused("cmdline-mismatch", cmdline=line))


if __name__ == "__main__":
    unittest.main()
