#!/usr/bin/env python3
"""Measures the release binary of Hookward beside what else people put in front of a backend, in one run.

Every proxy has one worker on core 0; load generator and upstream share core 1. Cycles are interleaved, so that a change
of the machine's mood meets everybody, and ratios are taken inside a cycle. See README.md in this folder.
"""

import argparse
import datetime
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import children
import report
import systems
from systems import LOAD_CORE, PROXY_CORE, SECRET, UPSTREAM, System

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# In the order they are run: ten thousand idle connections leave hardly a port to those that follow.
PHASES = ("paired", "latency", "crowd", "idle", "syscalls")
USUAL = ("paired", "latency", "idle")
CROWDS = (32, 128, 512, 2000)  # connections of the crowd phase
RATE = 2000  # requests per second of the latency phase
SETTINGS = {
    "quick": {"cycles": 2, "window": 0.3, "latency_cycles": 1, "latency_windows": 4, "idle": [1000],
              "crowd_cycles": 1},
    "full": {"cycles": 12, "window": 0.5, "latency_cycles": 3, "latency_windows": 16, "idle": [1000, 10000],
             "crowd_cycles": 4},
}


def main():
    options = parse_options()
    if options.report:
        print(report.render(read_records(options.report)))
        return 0
    missing = systems.missing_packages()
    if missing:
        print(f"missing, so some systems are left out: apt-get install {' '.join(missing)}", file=sys.stderr)
    if options.check_tools:
        return 1 if missing else 0
    if not {PROXY_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        sys.exit(f"cores {PROXY_CORE} and {LOAD_CORE} are needed: one for the proxy, one for load and upstream")
    children.RUN.mkdir(exist_ok=True)
    tools, hookwards = build(options)
    measured = [system for system in systems.all_systems(tools, hookwards)
                if not set(system.needs) & set(missing)
                and (not options.only or any(part in system.name for part in options.only))]
    if not measured:
        sys.exit("no system to measure")
    bench = Bench(options, tools, measured)
    bench.run()
    print(report.render(bench.records))
    print(f"raw results: {bench.path}", file=sys.stderr)
    return 1 if bench.faults else 0


def parse_options():
    parser = argparse.ArgumentParser(description="CPU, throughput, latency and memory of webhook proxies, side by side")
    parser.add_argument("mode", nargs="?", choices=list(SETTINGS), default="quick")
    parser.add_argument("--only", type=comma_list, default=[], help="parts of names: hookward,nginx,haproxy,pingora")
    parser.add_argument("--sizes", type=comma_list, default=["1", "10", "100"], help="body lengths in KiB")
    parser.add_argument("--phases", type=comma_list, default=list(USUAL), help="of " + ",".join(PHASES))
    parser.add_argument("--cycles", type=int, help="interleaved cycles of the paired phase")
    parser.add_argument("--minutes", type=float, default=30, help="no new cycle begins after this long")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=PATH",
                        help="another hookward binary to compare")
    parser.add_argument("--no-build", action="store_true", help="measure what was built before")
    parser.add_argument("--check-tools", action="store_true", help="name missing Debian packages and stop")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print the tables of earlier results and stop")
    options = parser.parse_args()
    unknown = set(options.phases) - set(PHASES)
    if unknown or not all(size.isdigit() and 1 <= int(size) <= 100 for size in options.sizes):
        parser.error(f"phases are {', '.join(PHASES)}; sizes are whole KiB from 1 to 100")
    options.sizes = [int(size) for size in options.sizes]
    return options


def comma_list(text):
    return [part for part in text.split(",") if part]


def build(options):
    """The folder with this benchmark's tools, and the hookward binaries by name."""
    try:
        tools = cargo_build(HERE, options)
    except RuntimeError as error:
        sys.exit(f"the tools of the benchmark: {error}")
    hookwards = {}
    try:
        hookwards["hookward"] = (cargo_build(ROOT, options) / "hookward").resolve(strict=True)
    except (RuntimeError, OSError) as error:
        print(f"the other systems are measured without hookward: {error}", file=sys.stderr)
    for pair in options.also:
        name, _, path = pair.partition("=")
        hookwards[f"hookward-{name}"] = Path(path).resolve(strict=True)
    return tools, hookwards


def cargo_build(folder, options):
    """The folder of the release binaries. After a failed build an old binary must not be measured as the new one."""
    metadata = output(["cargo", "metadata", "--no-deps", "--format-version=1"], cwd=folder)
    if not metadata:
        raise RuntimeError(f"cargo finds nothing to build in {folder}")
    if not options.no_build:
        built = subprocess.run(["cargo", "build", "--release", "--locked", "--bins"], cwd=folder, stdout=sys.stderr)
        if built.returncode != 0:
            raise RuntimeError(f"the build in {folder} failed")
    return Path(json.loads(metadata)["target_directory"]) / "release"


def output(argv, cwd=None):
    """What a command prints, standard error too; empty when it cannot be run."""
    try:
        return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60).stdout
    except OSError:
        return ""


class Bench:
    """One run over the systems. Every figure becomes a record, in memory and as a line of JSON."""

    def __init__(self, options, tools, measured):
        self.options, self.tools, self.systems = options, tools, measured
        self.settings = SETTINGS[options.mode]
        self.began = datetime.datetime.now(datetime.timezone.utc)
        self.deadline = time.monotonic() + options.minutes * 60
        self.path = children.RUN / f"{self.began:%Y%m%d-%H%M%S}-{options.mode}.jsonl"
        self.records, self.faults, self.upstream = [], 0, None
        # No two runs of the load generator share a seed, so no body is ever sent twice.
        self.seed = time.time_ns() // 1000 << 12
        # The order of a cycle is random but not different from one run to the next.
        self.random = random.Random(1)

    def run(self):
        self.record("machine", **machine(self.began, self.options.mode, self.systems))
        self.upstream = children.start([self.tools / "upstream", UPSTREAM], core=LOAD_CORE, log="upstream.log")
        children.wait_until_listening(self.upstream, UPSTREAM)
        for phase in PHASES:
            if phase in self.options.phases:
                getattr(self, phase)()
        children.stop(self.upstream)

    def record(self, kind, **values):
        self.records.append({"kind": kind, **values})
        with open(self.path, "a") as file:
            file.write(json.dumps(self.records[-1]) + "\n")

    def fault(self, text):
        """Something that makes the figures doubtful: the run goes on, its exit status tells."""
        self.faults += 1
        self.record("fault", text=text)
        print(f"fault: {text}", file=sys.stderr, flush=True)

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    # The phases.

    def paired(self):
        """CPU per request, throughput and latency under full load."""
        works = [(size, False) for size in self.options.sizes] + ([(1, True)] if 1 in self.options.sizes else [])
        up = self.start_all()
        for cycle in range(self.options.cycles or self.settings["cycles"]):
            if time.monotonic() > self.deadline:
                break
            for size, forged in works:
                for system in self.shuffled(one for one in up if one.verifies or not forged):
                    self.cell("paired", system, cycle, size, forged, "--window", self.settings["window"])
            self.say(f"paired: cycle {cycle + 1} done")
        self.stop_all(up)

    def latency(self):
        """Latency at a rate that everybody can carry, counted from when a request was due."""
        up = self.start_all()
        direct = System("direct", "no proxy at all", UPSTREAM, verifies=False)
        for cycle in range(self.settings["latency_cycles"]):
            if time.monotonic() > self.deadline:
                break
            for system in self.shuffled([direct, *up]):
                self.cell("latency", system, cycle, 1, False, "--rate", RATE, "--connections", 64, "--window", 0.5,
                          "--clean-windows", self.settings["latency_windows"],
                          "--windows-max", self.settings["latency_windows"] * 3 // 2, "--steal-ms", 0)
            self.say(f"latency: cycle {cycle + 1} done")
        self.stop_all(up)

    def idle(self):
        """Memory of open connections after one answered webhook each."""
        for system in self.systems:
            for connections in self.settings["idle"]:
                self.attempt(system, lambda: self.idle_cell(system, connections))
            self.say(f"idle: {system.name} done")

    def crowd(self):
        """Requests per second with more connections, and with a second core for what is not the network's thread."""
        up = self.start_all()
        for cores in ({PROXY_CORE}, {PROXY_CORE, LOAD_CORE}):
            for system in up:
                children.move(system.pids(), cores)
            for cycle in range(self.settings["crowd_cycles"]):
                for connections in CROWDS:
                    for system in self.shuffled(up):
                        self.cell("crowd", system, cycle, 1, False, "--window", 1, "--connections", connections,
                                  "--reset", connections=connections, cores=len(cores))
                self.say(f"crowd: cycle {cycle + 1} on {len(cores)} done")
        self.stop_all(up)

    def syscalls(self):
        """System calls per request, which do not depend on the machine's mood."""
        if not shutil.which("strace"):
            self.say("syscalls: strace is not installed")
            return
        for system in self.systems:
            self.attempt(system, lambda: self.syscalls_cell(system))
            self.say(f"syscalls: {system.name} done")

    # Their parts.

    def start_all(self):
        up = []
        for system in self.systems:
            try:
                system.start()
                self.check_answers(system)
                up.append(system)
            except (OSError, RuntimeError) as error:
                system.stop()
                self.fault(f"{system.name} is left out: {error} (see {children.RUN.name}/{system.name}.log)")
        return up

    def stop_all(self, up):
        for system in up:
            self.check_outcomes(system)
            system.stop()

    def attempt(self, system, measure):
        """One measurement with a process of its own."""
        if time.monotonic() > self.deadline:
            return
        try:
            system.start()
            measure()
            self.check_outcomes(system)
        except (OSError, RuntimeError, ValueError) as error:
            self.fault(f"{system.name}: {error}")
        finally:
            system.stop()

    def shuffled(self, some):
        some = list(some)
        self.random.shuffle(some)
        return some

    def check_answers(self, system):
        """Nobody is measured who lets a forgery through or refuses what is genuine."""
        for forged in [False, True]:
            expected = 401 if forged and system.verifies else 200
            for size in (1, 100):
                status = int(self.loadgen("one", *self.target(system, size, forged), watch=()))
                if status != expected:
                    kind = "forged" if forged else "valid"
                    raise RuntimeError(f"answers a {kind} webhook of {size} KiB with {status} instead of {expected}")

    def check_outcomes(self, system):
        """Whether the replay guard answered repeats, by its own account: then the load would be at fault."""
        if not system.admin:
            return
        try:
            outcomes = system.outcomes()
        except OSError as error:
            return self.fault(f"{system.name}: no metrics: {error}")
        self.record("outcomes", system=system.name, outcomes=outcomes)
        wanted = "queued" if system.data else "forwarded"
        if not outcomes.get(wanted) or outcomes.get("duplicate"):
            self.fault(f"{system.name}: metrics speak of other than {wanted}, unique webhooks: {outcomes}")

    def target(self, system, size, forged):
        self.seed += 1
        forge = ["--forge"] if forged else []
        return ["--port", system.port, "--body-bytes", size * 1024, "--seed", self.seed, *forge]

    def cell(self, kind, system, cycle, size, forged, *plan, **setting):
        plan = [*self.target(system, size, forged), "--expect", 401 if forged else 200, *plan]
        watch = {"load": "self", "upstream": self.upstream.pid}
        if system.child:
            watch["proxy"] = ",".join(str(pid) for pid in system.pids())
        try:
            figures = json.loads(self.loadgen("run", *plan, watch=watch.items()))
        except (RuntimeError, ValueError) as error:
            return self.fault(f"{system.name}: {error}")
        owed_after = self.settle(system)
        ours_ms, wall_ms = sum(figures["cpu_ms"].values()), figures["seconds"] * 1000
        if figures["unexpected"]:
            self.fault(f"{system.name}: unexpected answers: {figures['statuses']}")
        self.record(kind, system=system.name, label=system.label, cycle=cycle, size=size, forged=forged, **setting,
                    **figures,
                    **({"owed_after": owed_after} if system.data else {}),
                    cpu_us=round(figures["cpu_ms"].get("proxy", 0) * 1000 / max(1, figures["answers"]), 3),
                    load_core=round((figures["cpu_ms"]["load"] + figures["cpu_ms"]["upstream"]) / wall_ms, 3),
                    foreign=round(max(0, figures["machine_busy_ms"] - ours_ms) / (os.cpu_count() * wall_ms), 3))

    def settle(self, system):
        """Waits until what was queued is delivered, so that nobody else's cell has to carry it; how much it was."""
        first = owed = system.owed()
        patience = time.monotonic() + 120
        while owed:
            if time.monotonic() > patience:
                self.fault(f"{system.name}: {owed} events are not delivered")
                break
            time.sleep(0.05)
            owed = system.owed()
        return first

    def idle_cell(self, system, connections):
        time.sleep(0.7)  # until whatever it does after its start is done
        before = children.memory_kib(system.pids())
        argv = [self.tools / "loadgen", "idle", *self.target(system, 1, False), "--connections", connections]
        holder = children.start(argv, core=LOAD_CORE, log="loadgen.log", env={"SECRET": SECRET},
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if holder.stdout.readline().strip() != "ready":
                raise RuntimeError(f"{connections} connections could not be opened")
            time.sleep(1)  # until freed memory has been given back
            after = children.memory_kib(system.pids())
            still_open = int(holder.communicate(timeout=30)[0])
        finally:
            children.stop(holder)
        self.record("idle", system=system.name, label=system.label, connections=connections, open=still_open,
                    rss_before_kib=before[0], pss_before_kib=before[1], rss_kib=after[0], pss_kib=after[1])

    def syscalls_cell(self, system):
        table = children.RUN / "strace.txt"
        pids = [part for pid in system.pids() for part in ("-p", pid)]
        tracer = children.start(["strace", "-f", "-c", "-o", table, *pids], core=LOAD_CORE, log="strace.log")
        try:
            time.sleep(1)  # until it is attached to every thread
            plan = ["--warm", 0, "--window", 2, "--windows-max", 1]
            figures = json.loads(self.loadgen("run", *self.target(system, 1, False), *plan, watch=()))
        finally:
            children.stop(tracer, signal.SIGINT)
        rows = [line.split() for line in table.read_text().splitlines()]
        calls = {row[-1]: int(row[3]) for row in rows if len(row) >= 5 and row[3].isdigit() and row[-1] != "total"}
        per_request = {name: round(count / figures["answers"], 2) for name, count in calls.items()}
        self.record("syscalls", system=system.name, label=system.label, answers=figures["answers"],
                    per_request={name: count for name, count in per_request.items() if count >= 0.02},
                    total=round(sum(calls.values()) / figures["answers"], 2))

    def loadgen(self, mode, *arguments, watch):
        watched = [part for name, pids in watch for part in ("--watch", f"{name}={pids}")]
        child = children.start([self.tools / "loadgen", mode, *arguments, *watched], core=LOAD_CORE, log="loadgen.log",
                               env={"SECRET": SECRET}, stdout=subprocess.PIPE, text=True)
        try:
            text = child.communicate(timeout=90)[0]
        except subprocess.TimeoutExpired:
            raise RuntimeError("the load generator did not end in time") from None
        finally:
            children.stop(child)
        if child.returncode != 0:
            raise RuntimeError((children.RUN / "loadgen.log").read_text().strip()[-500:])
        return text


def machine(began, mode, measured):
    """What the figures depend on, so that nobody has to guess later."""
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    lock = (HERE / "Cargo.lock").read_text()
    versions = {"pingora": lock.split('name = "pingora-core"\nversion = "', 1)[1].split('"', 1)[0]}
    versions.update(system.version() for system in measured if system.name != "pingora")
    commit = output(["git", "describe", "--always", "--dirty"], cwd=ROOT).strip()
    return {"date": f"{began:%Y-%m-%d %H:%M} UTC", "mode": mode, "cpu": cpu, "cores": os.cpu_count(),
            "kernel": platform.release(), "rustc": output(["rustc", "--version"]).strip(), "commit": commit,
            "versions": versions}


def read_records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
