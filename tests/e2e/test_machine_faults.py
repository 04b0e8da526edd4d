"""Jobs in machines under faults: QEMU, simtee and each service killed while a job's machine boots, attests, loads, works and seals, a QEMU that stands
still, a disk that is full. Whatever happens, the job ends in a named state, and no machine, process, folder or cgroup of it is left. SIMULATED here.
At a message that chance picks and GBX_FAULTS_SEED repeats; with GBX_FAULTS=all at every one."""
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults  # noqa: E402
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # once, beside the modules whose jobs run on this host: its own run in machines either way

UID_BASE = h.own_uid_base()
cluster = h.Shared(lambda: faults.Cluster(uid_base=UID_BASE, environment="vm"))
setUpModule, tearDownModule = cluster.hooks()


def machine(name, sig):
    """Sends the signal to that program of the machines; which there were."""
    found = []
    for pid, _, uid, command, _ in h.processes():
        ours = UID_BASE + faults.FIRST_AGENT <= uid < UID_BASE + faults.FIRST_AGENT + faults.PER_SLOT
        if ours and name in command.split(" ")[0]:
            try:
                os.kill(pid, sig)
                found.append(pid)
            except ProcessLookupError:
                pass  # it ended meanwhile
    return found


class Machines(faults.Case):
    cluster = cluster
    patience = 400


class Killed(Machines):
    def test_qemu(self):
        self.at_each("agent-broker", 1, 16, lambda: machine("qemu", signal.SIGKILL), until=9)

    def test_simtee(self):
        self.at_each("agent-broker", 1, 16, lambda: machine("simtee", signal.SIGKILL), until=9)

    def test_node(self):
        self.at_each("agent-broker", 1, 16, cluster.programs["node"].kill, until=9)

    def test_broker(self):
        self.at_each("agent-broker", 1, 16, cluster.programs["broker"].kill, attempts=1)

    def test_plane(self):
        self.at_each("node-plane", 1, 32, cluster.programs["plane"].kill)

    def test_qemu_while_it_boots(self):
        """Nothing of the guest has spoken: that is a failed boot and no loss, and QEMU's signal is named."""
        job = cluster.submit("boot", attempts=1)
        deadline = time.monotonic() + self.patience
        while not machine("qemu", signal.SIGKILL):
            self.assertLess(time.monotonic(), deadline, cluster.tail())
            time.sleep(0.05)
        end = self.ends[job] = cluster.ended(job)
        self.assertEqual((end["state"], end["outcome"]["reason"]), ("Failed", "boot-failed"), end)
        self.assertIn("signal 9", str(end["outcome"]))
        cluster.leaves_nothing(job)


class Hung(Machines):
    def test_qemu_that_stands_still_is_ended_at_the_limit(self):
        def stop():
            self.struck += bool(machine("qemu", signal.SIGSTOP))
        relay = cluster.relays["agent-broker"]
        relay.trap(3, stop)
        # Long enough for the machine to come so far, and no longer: what stands still is waited for.
        job = cluster.submit("hung", attempts=1, start=100)
        end = self.ends[job] = cluster.ended(job, self.patience)
        self.assertEqual((end["state"], end["outcome"]["reason"]), ("Failed", "timed-out"), end)
        cluster.leaves_nothing(job)
        self.all_is_well()

    def test_simtee_that_stands_still_too(self):
        """A quote that does not come: the limit of the start ends the attempt, and what cannot end is killed."""
        def stop():
            self.struck += bool(machine("simtee", signal.SIGSTOP))
        cluster.relays["agent-broker"].trap(1, stop)
        job = cluster.submit("mute", attempts=1, start=100)
        end = self.ends[job] = cluster.ended(job, self.patience)
        self.assertEqual((end["state"], end["outcome"]["reason"]), ("Failed", "timed-out"), end)
        self.assertIn("spec.timeouts.start", end["outcome"]["what"])
        cluster.leaves_nothing(job)
        self.all_is_well()


class Full(Machines):
    def test_a_disk_that_is_full_fails_the_attempt_with_a_reason(self):
        with cluster.small_disk("node", "environments", 0, inodes=64) as ballast:
            # Not a name of an environment, which the node would clear away as it starts.
            ballast.path += ".full"
            ballast.fill()
            try:
                job = cluster.submit("full", attempts=1)
                end = self.ends[job] = cluster.ended(job, self.patience)
            finally:
                ballast.empty()
            self.assertEqual(end["state"], "Failed", end)
            self.assertIn(end["outcome"]["reason"], ("io", "sandbox-setup"), end)
            cluster.leaves_nothing(job)


if __name__ == "__main__":
    unittest.main()
