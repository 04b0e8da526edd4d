"""What a person at a terminal meets: questions that hide what is typed, and Ctrl-C."""
import os
import pty
import select
import signal
import sys
import tempfile
import termios
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness as h  # noqa: E402

RUNS_WITH = ("local",)  # starts no job that runs


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, *args):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(args[0], list(args))

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if not ready:
            return False
        try:
            piece = os.read(self.fd, 4096)
        except OSError:
            return False
        self.seen += piece
        return bool(piece)

    def await_text(self, text, seconds=30):
        end = time.monotonic() + seconds
        while text not in self.seen:
            if time.monotonic() > end:
                raise AssertionError("no %r in %r" % (text, self.seen))
            self.read(0.2)

    def echoes(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def type(self, text):
        os.write(self.fd, text)

    def wait(self):
        while self.read(5):
            pass
        _, status = os.waitpid(self.pid, 0)
        return status


class Passphrase(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="gbx-terminal-")
        self.addCleanup(self.dir.cleanup)
        home = os.path.join(self.dir.name, "home")
        self.terminal = Terminal(os.path.join(h.BIN, "glovebox"), "--home", home, "identity", "create", "--name", "anna",
                                 "--offline", "--passphrase")
        self.terminal.await_text(b"new passphrase: ")
        self.home = home

    def test_ctrl_c_leaves_a_terminal_that_shows_what_is_typed(self):
        t = self.terminal
        self.assertFalse(t.echoes())
        t.type(b"half a secr")
        t.type(b"\x03")
        status = None
        deadline = time.monotonic() + 30
        while status is None and time.monotonic() < deadline:
            t.read(0.1)
            pid, ended = os.waitpid(t.pid, os.WNOHANG)
            status = ended if pid else None
        self.assertIsNotNone(status, "it did not end")
        self.assertTrue(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT, status)
        self.assertTrue(t.echoes())
        self.assertNotIn(b"secr", t.seen)
        self.assertFalse(os.path.exists(os.path.join(self.home, "identity.json")))

    def test_what_is_typed_is_not_shown(self):
        t = self.terminal
        t.type(b"correct horse\n")
        t.await_text(b"the same again: ")
        t.type(b"correct horse\n")
        self.assertEqual(t.wait(), 0, t.seen)
        self.assertNotIn(b"horse", t.seen)
        self.assertTrue(os.path.exists(os.path.join(self.home, "identity.json")))


if __name__ == "__main__":
    unittest.main()
