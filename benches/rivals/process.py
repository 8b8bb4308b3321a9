"""A command whose lines are read as they come, and which is ended when it goes on for too long."""

import os
import queue
import resource
import subprocess
import tempfile
import threading


class Failed(Exception):
    """A command that did not do what it was asked for, with its reason."""


class TooLong(Exception):
    """A command that said nothing for longer than it was given."""


def memory_limit():
    """Nine tenths of what is free: a command that wants more fails, and not the machine."""
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    return free * 1024 * 9 // 10


class Process:
    """Runs from where it is made to the end of its `with`."""

    def __init__(self, command, environment):
        limit = memory_limit()
        self.errors = tempfile.TemporaryFile()
        self.child = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env=os.environ | environment, stdin=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.reader.join()
        self.child.stdout.close()
        self.errors.close()

    def _read(self):
        for line in self.child.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def line(self, timeout):
        """The next line of JSON, or nothing at its end."""
        while True:
            try:
                line = self.lines.get(timeout=timeout)
            except queue.Empty:
                raise TooLong from None
            if line is None or line.startswith("{"):
                return line

    def peak_rss_kb(self):
        """The most memory that was resident until now."""
        try:
            with open(f"/proc/{self.child.pid}/status", encoding="ascii") as file:
                return next((int(line.split()[1]) for line in file if line.startswith("VmHWM")), None)
        except OSError:
            return None

    def check(self):
        """Waits for the end. Raises Failed with the last line it complained with."""
        code = self.child.wait()
        if code == 0:
            return
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors.read().decode(errors="replace").splitlines()]
        lines = [line for line in lines if line and not line.startswith(("note:", "stack backtrace"))]
        how = f"signal {-code}" if code < 0 else f"code {code}"
        raise Failed(f"{lines[-1][:160]} ({how})" if lines else f"ended with {how}")
