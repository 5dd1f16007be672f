"""The gateway under test with its backend, honest traffic beside it, and what can be read of it from outside.

Two cores: the gateway has the first, everything else the second. Where the system allows it (root), gateway, backend and
honest traffic are scheduled before everything else on the machine: an attacker has machines of its own, and what its
processes, or other work, take of this one is not the gateway's doing.
"""

import contextlib
import datetime
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BENCH = ROOT / "benches" / "gateway"
sys.path.insert(0, str(BENCH))
import children  # noqa: E402  the processes of the benchmark: pinned, and ended with us

SECRET = "a-secret-of-the-long-tier-only-32"
HONEST, ATTACKER = "127.0.0.9", "127.0.0.66"
# Another `HOOKWARD_LONG_PORT` lets two runs go on beside each other.
PORT = int(os.environ.get("HOOKWARD_LONG_PORT", 9310))
ADMIN, UPSTREAM, LARGE, SLOW, TLS = range(PORT + 1, PORT + 6)
GATEWAY_CORE, LOAD_CORE = 0, 1
PATH = "/hooks/gh"
FIRST = ("chrt", "--rr", "10") if os.geteuid() == 0 else ()
# The backend comes before the load on their core: a load that is behind all the time would leave it nothing, and it is the
# gateway whose limits are asked for.
BACKEND_FIRST = ("chrt", "--rr", "11") if os.geteuid() == 0 else ()

CONF = """\
listen: [127.0.0.1:{PORT}{more_listen}]
admin: 127.0.0.1:{ADMIN}
threads: 1
log: {{ format: json, access: true, level: warn }}
limits: {{ {limits} }}
client: {{ {client} }}
replay: {{ entries: 5000000 }}
upstreams:
  app: {{ servers: [127.0.0.1:{UPSTREAM}] }}
  large: {{ servers: [127.0.0.1:{LARGE}] }}
  slow: {{ servers: [127.0.0.1:{SLOW}] }}
routes:
  - name: github
    path: {PATH}
    provider: github
    secrets: [{{ env: SECRET }}]
    upstream: {upstream}
    limits: {{ {route} }}
    replay: {{ keep: {keep} }}
  - name: stripe
    path: /hooks/stripe
    provider: stripe
    secrets: [{{ env: SECRET }}]
    upstream: app
    limits: {{ {route} }}
  - name: expired
    path: /hooks/expired
    provider: stripe
    secrets: [{{ env: SECRET, until: {expires} }}]
    upstream: app
    limits: {{ {route} }}
passthrough: {passthrough}
"""
NO_LIMITS = {
    "limits": "client_rate: 1000000/s, client_burst: 1000000",
    "client": "connections: 9000",
    "route": "rate: 1000000/s, burst: 1000000, in_flight: 100000",
    "passthrough": "large",
    "keep": "24h",
    "upstream": "app",
    "expires": "2099-01-01T00:00:00Z",
    "more_listen": "",
}


def built(*profile):
    """Builds the release binaries, whose paths it returns: the gateway, the load, the backend."""
    environment = {**os.environ, "CARGO_TERM_COLOR": "never"}
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=ROOT, env=environment, check=True)
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "-p", "loadgen", "-p", "upstream"],
                   cwd=BENCH, env=environment, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    tools = Path(os.environ.get("CARGO_TARGET_DIR", BENCH / "target"))
    return target / "release" / "hookward", tools / "release" / "loadgen", tools / "release" / "upstream"


class Stand:
    """Everything that runs during one case. Ended with the `with` that it was made for."""

    def __init__(self, gateway, loadgen, upstream):
        self.binary, self.loadgen, self.upstream_binary = gateway, loadgen, upstream
        self.seed = PORT << 40 | int(time.time()) << 8
        self.conf = children.RUN / f"long-{PORT}.yaml"
        self.access = children.RUN / f"long-{PORT}-access.log"
        self.gateway = None
        self.backends = []
        # What goes before the commands of gateway and honest traffic.
        self.first = FIRST

    def __enter__(self):
        children.RUN.mkdir(exist_ok=True)
        # As many connections as we hold for attackers, and their other ends.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.backends = [
            children.start([*BACKEND_FIRST, self.upstream_binary, UPSTREAM], core=LOAD_CORE, log=f"long-{PORT}-upstream.log"),
            children.start([sys.executable, HERE / "backends.py", "slow", SLOW], core=LOAD_CORE, log=f"long-{PORT}-slow.log"),
            # Of what attackers ask for, not of the honest: with them, after everybody else.
            children.start([sys.executable, HERE / "backends.py", "large", LARGE], core=LOAD_CORE, log=f"long-{PORT}-large.log"),
        ]
        for child, port in zip(self.backends, (UPSTREAM, SLOW, LARGE)):
            children.wait_until_listening(child, port)
        return self

    def __exit__(self, *_):
        self.stop()
        for child in self.backends:
            children.stop(child)

    def start(self, prefix=(), keep_log=False, **changes):
        """Starts the gateway with `changes` to a configuration without limits; `prefix` is a command around it."""
        self.stop()
        self.write(**changes)
        for port in (PORT, ADMIN):
            if children.is_taken(port):
                raise RuntimeError(f"port {port} is taken by another process")
        argv = [*self.first, *prefix, self.binary, "run", self.conf]
        with open(self.access if keep_log else os.devnull, "wb") as access:
            self.gateway = children.start(argv, core=GATEWAY_CORE, log=f"long-{PORT}.log", env={"SECRET": SECRET},
                                          stdout=access)
        children.wait_until_listening(self.gateway, PORT)
        children.wait_until_listening(self.gateway, ADMIN)

    def write(self, **changes):
        values = {**NO_LIMITS, **{key: text for key, text in changes.items()}}
        text = CONF.format(PORT=PORT, ADMIN=ADMIN, UPSTREAM=UPSTREAM, LARGE=LARGE, SLOW=SLOW, PATH=PATH, **values)
        self.conf.write_text(text)

    def stop(self):
        if self.gateway:
            children.stop(self.gateway)
            self.gateway = None

    # What can be read.

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name):
        """The sum over all series of one name."""
        lines = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", self.metrics(), re.MULTILINE)
        return sum(map(float, lines))

    def rss_kib(self):
        return children.memory_kib([self.gateway.pid])[0]

    def files(self):
        return len(os.listdir(f"/proc/{self.gateway.pid}/fd"))

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.gateway.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def own_p99_us(self, since, until):
        """What the gateway itself took for honest events between two times, waiting for the backend not counted."""
        took = []
        with open(self.access) as lines:
            for line in lines:
                # The last one may not be whole.
                if f'"client":"{HONEST}"' in line and line.endswith("}\n"):
                    said = json.loads(line)
                    if since <= datetime.datetime.fromisoformat(said["time"]).timestamp() <= until:
                        took.append(said["total_us"] - said.get("upstream_us", 0))
        return sorted(took)[len(took) * 99 // 100] if took else None

    @contextlib.contextmanager
    def watched(self, every=0.25):
        """The most memory, connections and descriptors that were seen while the block ran."""
        seen = {"rss_kib": self.rss_kib(), "connections": 0, "files": self.files()}
        done = threading.Event()

        def look():
            while not done.wait(every):
                with contextlib.suppress(OSError):
                    seen["rss_kib"] = max(seen["rss_kib"], self.rss_kib())
                    seen["files"] = max(seen["files"], self.files())
                    seen["connections"] = max(seen["connections"], self.metric("hookward_open_connections"))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield seen
        finally:
            done.set()
            watcher.join()

    # Traffic.

    def load(self, seconds, *, rate=0, connections=16, origin=HONEST, forged=False, first=True, more=()):
        """Starts webhooks for `seconds`; `figures` of it are what came of them."""
        self.seed += 1
        argv = [*(self.first if first else ()), self.loadgen, "run", "--port", PORT, "--path", PATH, "--seed", self.seed,
                "--from", origin, "--rate", rate, "--connections", connections, "--warm", 0.5, "--window", seconds,
                "--windows-max", 1, "--expect", 401 if forged else 200, *(["--forge"] if forged else []), *more]
        return children.start(argv, core=LOAD_CORE, log=f"long-{PORT}-load.log", env={"SECRET": SECRET},
                              stdout=subprocess.PIPE, text=True)

    @staticmethod
    def figures(child, timeout=3600):
        text = child.communicate(timeout=timeout)[0]
        children.stop(child)
        if child.returncode != 0:
            said = (children.RUN / f"long-{PORT}-load.log").read_text().strip()
            raise RuntimeError(f"the load failed: {said[-400:]}")
        return json.loads(text)

    def honest(self, seconds, rate=500):
        return self.figures(self.load(seconds, rate=rate))

    def beside(self, seconds, attack, rate=500, calm=None):
        """Honest traffic alone, beside `attack()` which takes `seconds`, and alone again."""
        calm = calm or max(4, seconds / 4)
        times = [time.time()]
        before = self.honest(calm, rate)
        times.append(time.time())
        child = self.load(seconds, rate=rate)
        attack()
        during = self.figures(child)
        times.append(time.time())
        after = self.honest(calm, rate)
        times.append(time.time())
        calm_us = (before["p99_us"] + after["p99_us"]) / 2
        return {
            "honest": during["answers"], "honest_errors": during["unexpected"],
            "honest_reconnects": during["reconnects"],
            "p50_ms": round(during["p50_us"] / 1e3, 2), "p99_ms": round(during["p99_us"] / 1e3, 2),
            "p99_calm_ms": [round(one["p99_us"] / 1e3, 2) for one in (before, after)],
            "p99_ratio": round(during["p99_us"] / calm_us, 2),
            # The load's own, which is on one core with the attack.
            "late_p99_ms": round(during["late_p99_us"] / 1e3, 2),
            "times": times,
        }
