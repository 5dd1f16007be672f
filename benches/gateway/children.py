"""The processes a run starts: pinned to a core, logged into a file, stopped by process id.

Nothing outlives the run: `bench.py` stops everything when it ends, is interrupted or terminated.
"""

import atexit
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RUN = Path(__file__).resolve().parent / "run"
# As wide as five digits of connections on two sides need; less where the system does not allow it.
FILES_MAX = 65536
START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 15

_children = []


def start(argv, *, core, log, env=None, **pipes):
    """Starts `argv` on `core`; what it prints goes to run/`log`, except standard output when a pipe takes it."""
    def before_exec():
        os.sched_setaffinity(0, {core})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))

    with open(RUN / log, "wb") as output:
        streams = {"stdin": subprocess.DEVNULL, "stdout": output, **pipes}
        child = subprocess.Popen([str(part) for part in argv], preexec_fn=before_exec, start_new_session=True,
                                 stderr=output, env={**os.environ, **(env or {})}, **streams)
    _children.append(child)
    return child


def stop(child, how=signal.SIGTERM):
    """Asks the process to end, waits, insists."""
    if child.poll() is None:
        child.send_signal(how)
        try:
            child.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child in _children:
        _children.remove(child)


def move(pids, cores):
    """Lets every thread of the processes run on `cores`, and those that they start from there on."""
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cores)


def wait_until_listening(child, port):
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"ended with {child.returncode} instead of listening on port {port}")
        if is_taken(port):
            return
        time.sleep(0.05)
    raise RuntimeError(f"does not listen on port {port} after {START_SECONDS_MAX} s")


def is_taken(port):
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def family(pid):
    """The process and all its descendants: nginx works in children, others in threads."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue  # it ended meanwhile
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found


def memory_kib(pids):
    """Resident memory of the processes together: as `ps` counts it, and with shared pages counted once."""
    sums = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, *rest = line.split()
            if name in sums:
                sums[name] += int(rest[0])
    return sums["Rss:"], sums["Pss:"]


@atexit.register
def _stop_all():
    for child in reversed(list(_children)):
        stop(child)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
