#!/usr/bin/env python3
"""The long tier of the edge: abuse of every kind beside honest traffic, against the release binary.

    python3 tests/long/edge.py [CASE ...] [--seconds N]

Builds what it needs. Each case prints one JSON object a line, with what was measured and which of its bars were `missed`;
the exit code tells whether any was. What counts on a machine that is not alone are ratios inside one case: honest traffic
beside the attack and without it. `slow` needs slowhttptest (Debian's package of that name).
"""

import argparse
import concurrent.futures
import datetime
import hashlib
import hmac
import itertools
import json
import os
import random
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import time
from pathlib import Path

import floods
import stand
from stand import ATTACKER, HERE, LOAD_CORE, PATH, PORT, TLS, Stand, children

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def report(name, figures, **bars):
    """Prints one line. A bar is a pair: whether it holds, and what it demands."""
    missed = [demand for holds, demand in bars.values() if not holds]
    line = {"case": name, **figures, "bars": [demand for _, demand in bars.values()], "missed": missed}
    print(json.dumps(line), flush=True)
    return not missed


def until(holds, seconds):
    """Waits for `holds`; how long it took, or None when it did not come."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if holds():
            return round(time.monotonic() - began, 1)
        time.sleep(0.1)
    return None


@case
def slow(bench, seconds=120, only=None):
    """slowhttptest with 4,000 connections: slow heads, slow bodies, slow reading."""
    if not shutil.which("slowhttptest"):
        sys.exit("slowhttptest is missing: apt-get install slowhttptest")
    url = f"http://127.0.0.1:{PORT}"
    modes = {
        "head": ["-H", "-t", "POST", "-i", "5", "-x", "32", "-u", url + PATH],
        "body": ["-B", "-t", "POST", "-i", "5", "-x", "32", "-s", "65536", "-u", url + PATH],
        "read": ["-X", "-w", "1", "-y", "16", "-z", "4", "-n", "5", "-k", "1", "-u", url + "/large"],
    }
    # As shipped, one address has 1000 connections; and with a door that is wide open for it.
    doors = {"one client as shipped": "connections: 9000",
             "4000 let in": "connections: 9000, connections_each: 5000"}
    # In parts: on its way through the descriptors of thousands of connections a process holds its core, on which the load is
    # as well, for longer than what is to be measured.
    parts = 8
    good = True
    for door, client in doors.items():
        for mode, arguments in modes.items():
            if only and mode not in only and door not in only:
                continue
            bench.start(client=client, keep_log=True)
            waves = []

            def attack():
                end = time.monotonic() + seconds
                while (left := end - time.monotonic()) > 3:
                    began = time.monotonic()
                    argv = ["slowhttptest", "-c", 4000 // parts, "-r", 1000 // parts, "-l", int(left), "-p", 3, *arguments]
                    tools = [children.start(argv, core=LOAD_CORE, log=f"long-slowhttptest-{part}.log") for part in range(parts)]
                    for tool in tools:
                        tool.wait()
                        children.stop(tool)
                    waves.append(round(time.monotonic() - began, 1))

            with bench.watched() as seen:
                # In bytes, so that the watching itself is not what fills the log.
                figures = bench.beside(seconds, attack)
            gone = until(lambda: bench.metric("hookward_open_connections") <= 2, 45)
            times = figures.pop("times")
            own = [bench.own_p99_us(since, to) for since, to in itertools.pairwise(times)]
            figures.update(own_p99_us=own, mode=mode, door=door, waves=len(waves), wave_seconds_max=max(waves), **seen,
                           closed_after_seconds=gone,
                           turned_away=bench.metric("hookward_connections_turned_away_total"))
            good &= report("slow", figures,
                           errors=(not figures["honest_errors"], "no honest error"),
                           p99=(figures["p99_ratio"] <= 2, "p99 at most doubled"),
                           closed=(gone is not None, "all closed by the deadlines"))
    return good


@case
def h2(bench, seconds=60, only=None):
    """Floods of frames, from eight connections each."""
    good = True
    for kind in floods.KINDS:
        if only and kind not in only:
            continue
        bench.start()
        rss = bench.rss_kib()
        said = []

        def attack():
            argv = [sys.executable, HERE / "floods.py", kind, "--port", PORT, "--from", ATTACKER, "--seconds", seconds]
            tool = children.start(argv, core=LOAD_CORE, log="long-flood.log", stdout=subprocess.PIPE, text=True)
            said.append(json.loads(tool.communicate(timeout=seconds + 60)[0]))
            children.stop(tool)

        with bench.watched() as seen:
            figures = bench.beside(seconds, attack)
        figures.pop("times")
        grown = (seen["rss_kib"] - rss) / 1024
        figures.update(kind=kind, attack=said[0], rss_growth_mib=round(grown, 1), alive=bench.gateway.poll() is None)
        good &= report("h2", figures,
                       alive=(figures["alive"], "no crash"),
                       errors=(not figures["honest_errors"], "no honest error"),
                       memory=(grown <= 128, "memory grows by at most 128 MiB"),
                       p99=(figures["p99_ratio"] <= 5, "p99 at most five times"))
    return good


@case
def limiter(bench, seconds=60):
    """Rates at ten times what they let through; and one client that claims to be a million."""
    good = True
    rates = {
        "client_rate": ({"limits": "client_rate: 200/s, client_burst: 400"}, []),
        "route_rate": ({"route": "rate: 200/s, burst: 400, in_flight: 100000"}, []),
        "client_rate, spoofed": ({"limits": "client_rate: 200/s, client_burst: 400"}, ["--spoof"]),
    }
    for name, (changes, more) in rates.items():
        bench.start(**changes)
        figures = bench.figures(bench.load(seconds, rate=2000, connections=32, more=more))
        admitted = figures["statuses"].get("200", 0) / figures["seconds"]
        good &= report("limiter", {"limit": name, "offered": figures["answers"], "statuses": figures["statuses"],
                                   "admitted_per_second": round(admitted, 2)},
                       exact=(abs(admitted - 200) <= 2, "within 1 % of 200/s"),
                       others=(set(figures["statuses"]) <= {"200", "429"}, "200 or 429"))
    bench.start(limits="client_rate: 100/s, client_burst: 200")
    rss, answers, admitted, spent = bench.rss_kib(), 0, 0, 0.0
    while answers < 1_000_000:
        figures = bench.figures(bench.load(10, connections=32, more=["--spoof"]))
        # The half second before each window admits, too.
        answers += figures["answers"]
        admitted += figures["statuses"].get("200", 0)
        spent += figures["seconds"]
    grown = (bench.rss_kib() - rss) / 1024
    good &= report("limiter", {"limit": "client_rate, 1e6 claimed clients", "answers": answers, "admitted": admitted,
                               "seconds": round(spent, 1), "rss_growth_mib": round(grown, 1)},
                   one=(admitted <= 100 * spent * 1.01 + 200, "limited as one client"),
                   memory=(grown <= 64, "memory grows by at most 64 MiB"))
    return good


@case
def forged(bench, seconds=60):
    """Ten forgeries beside each genuine event, from another client whom no rate holds back."""
    bench.start()
    genuine, flood = 800, 8000
    alone = bench.honest(seconds / 2, genuine)
    child = bench.load(seconds, rate=genuine)
    attack = bench.load(seconds, rate=flood, connections=64, origin=ATTACKER, forged=True, first=False)
    beside, forgeries = bench.figures(child), bench.figures(attack)
    share = beside["statuses"].get("200", 0) / beside["seconds"] / (alone["statuses"]["200"] / alone["seconds"])
    entries = bench.metric("hookward_replay_entries")
    taken = bench.metric('hookward_verified_total')
    return report("forged", {
        "genuine_per_second": [round(alone["per_second"], 1), round(beside["per_second"], 1)],
        "forged_per_second": round(forgeries["per_second"], 1), "forged_statuses": forgeries["statuses"],
        "p99_ms": [round(one["p99_us"] / 1e3, 2) for one in (alone, beside)], "honest_errors": beside["unexpected"],
        "goodput_share": round(share, 4), "replay_entries": entries, "verified": taken},
        goodput=(share >= 0.9, "verified goodput at least 90 % of what it is alone"),
        flood=(forgeries["per_second"] >= 0.9 * flood, "the flood was ten times the genuine traffic"),
        refused=(set(forgeries["statuses"]) == {"401"}, "no forgery accepted"),
        memory=(entries == taken, "no forgery in the memory of events"))


@case
def overload(bench, seconds=30, only=None):
    """Three times what the backend can do; and three times what the gateway can do with one core."""
    many = {"route": "rate: 1000000/s, burst: 1000000", "client": "connections: 9000, connections_each: 9000"}
    proxied = {**many, "client": f"connections: 9000, connections_each: 9000, trusted_proxies: [{stand.HONEST}]"}
    # The places of a route are as shipped. The load has a core as well, and is behind all the time: every connection has a
    # request that waits.
    kinds = {
        "backend": ({"upstream": "slow", **many}, [], 2000),
        "gateway": (many, [], 2000),
        "gateway, behind a proxy": (proxied, ["--spoof"], 2000),
        "gateway, connections anew": (many, ["--requests-each", "1", "--reset"], 2000),
        "gateway, HTTP/2": (many, ["--http2"], 2000),
        # As proxies speak it: as many requests at a time, on few connections.
        "gateway, HTTP/2 of a proxy": (proxied, ["--spoof", "--http2", "--streams", "24"], 84),
    }
    good = True
    for kind, (changes, more, connections) in kinds.items():
        if only and kind not in only:
            continue
        bench.start(**changes)
        good &= overloaded(bench, kind, seconds, more, connections)
    return good


def overloaded(bench, what, seconds, more, connections):
    # Before and after: a shared machine is a tenth faster in one minute than in the next.
    peaks = [peak_of(bench, more)]
    cpu = bench.cpu_seconds()
    over = bench.figures(bench.load(seconds, rate=3 * peaks[0], connections=connections, more=more))
    cpu = (bench.cpu_seconds() - cpu) / over["seconds"]
    peaks.append(peak_of(bench, more))
    peak = statistics.mean(peaks)
    good = over["statuses"].get("200", 0) / over["seconds"]
    return report("overload", {
        "of": what, "peaks_per_second": [round(one) for one in peaks], "offered_per_second": round(3 * peaks[0]),
        "statuses": over["statuses"],
        "answers_per_second": round(over["per_second"]), "unsent": over["behind"], "cores": round(cpu, 2),
        "broken": over["statuses"].get("0", 0), "reconnects": over["reconnects"],
        "goodput_per_second": round(good), "share_of_peak": round(good / peak, 3),
        "p50_ms": round(over["p50_us"] / 1e3, 1), "p99_ms": round(over["p99_us"] / 1e3, 1),
        "late_p99_ms": round(over["late_p99_us"] / 1e3, 2)},
        goodput=(good >= 0.8 * peak, "goodput at least 80 % of the peak"),
        shed=(set(over["statuses"]) <= {"200", "429", "503"}, "the rest 429 or 503"))


def peak_of(bench, more):
    """The most events a second, with few connections."""
    return max(bench.figures(bench.load(4, connections=n, more=more))["statuses"].get("200", 0) / 4 for n in (8, 16, 32))


@case
def descriptors(bench, seconds=20):
    """256 descriptors, and a thousand connections that want some."""
    bench.start(prefix=["prlimit", "--nofile=256:256"], client="connections: 9000")
    calm = bench.honest(5, rate=50)
    held = []
    began_cpu, began = bench.cpu_seconds(), time.monotonic()
    for _ in range(1000):
        stream = socket.socket()
        stream.bind((ATTACKER, 0))
        stream.connect(("127.0.0.1", PORT))
        held.append(stream)
    # While those that were let in wait for their deadline.
    served, files, lines = serves(bench), bench.files(), bench.metrics().count("\n")
    time.sleep(seconds)
    cpu = (bench.cpu_seconds() - began_cpu) / (time.monotonic() - began)
    for stream in held:
        stream.close()
    recovered = until(lambda: serves(bench), 20)
    after = bench.honest(5, rate=50)
    return report("descriptors", {
        "others_served": served, "files_beside": files, "cores_beside": round(cpu, 3), "metrics_lines_beside": lines,
        "turned_away": bench.metric("hookward_connections_turned_away_total"),
        "recovered_seconds": recovered, "errors": [calm["unexpected"], after["unexpected"]],
        "alive": bench.gateway.poll() is None},
        alive=(bench.gateway.poll() is None, "no crash"),
        spin=(cpu < 0.5, "no spinning"),
        metrics=(lines > 10, "operators are answered meanwhile"),
        others=(served, "another client is served meanwhile"),
        recovery=(recovered is not None and recovered <= 5, "recovery within 5 s"),
        errors=(not after["unexpected"], "no error afterwards"))


def serves(bench):
    bench.seed += 1
    argv = [str(part) for part in (bench.loadgen, "one", "--port", PORT, "--path", PATH, "--seed", bench.seed)]
    ended = subprocess.run(argv, env={**os.environ, "SECRET": stand.SECRET}, capture_output=True, text=True)
    return ended.stdout.strip() == "200"


@case
def soak(bench, seconds=1200):
    """Half of what the gateway can do, on connections that come and go, under a configuration that is read again all the time."""
    # Events are forgotten after two minutes, so that the memory of them comes to its size and stays there.
    keep = "2m"
    bench.start(keep=keep)
    peak = bench.figures(bench.load(6, connections=32))["per_second"]
    files = bench.files()
    # A connection lives for 100 requests; another twenty clients connect and say nothing, or leave in the middle.
    child = bench.load(seconds, rate=peak / 2, connections=32, more=["--requests-each", "100"])
    began_cpu, samples, reloads, end = bench.cpu_seconds(), [], 0, time.monotonic() + seconds
    while time.monotonic() < end and child.poll() is None:
        bench.write(keep=keep, route=f"rate: 1000000/s, burst: {1000000 + reloads}, in_flight: 100000")
        bench.gateway.send_signal(signal.SIGHUP)
        reloads += 1
        for n in range(20):
            with socket.socket() as stream:
                stream.connect(("127.0.0.1", PORT))
                stream.send((b"", b"POST ", b"POST /hooks/gh HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")[n % 3])
        time.sleep(2)
        # Some 130 bytes each.
        events_kib = bench.metric("hookward_replay_entries") * 130 / 1024
        samples.append((seconds - (end - time.monotonic()), bench.rss_kib(), events_kib, bench.files()))
    cpu = bench.cpu_seconds() - began_cpu
    figures = bench.figures(child)
    done = bench.metric("hookward_config_reloads_total")
    half = [sample for sample in samples if sample[0] > seconds / 2]
    slope = fitted([(at, rss - events) for at, rss, events, _ in half]) * 3600 / 1024
    first, middle, last = samples[0], samples[len(samples) // 2], samples[-1]
    return report("soak", {
        "seconds": round(figures["seconds"]), "peak_per_second": round(peak), "answers": figures["answers"],
        "errors": figures["unexpected"], "statuses": figures["statuses"], "reconnects": figures["reconnects"],
        "reloads": done, "p99_ms": round(figures["p99_us"] / 1e3, 2), "max_ms": round(figures["max_us"] / 1e3, 2),
        "late_p99_ms": round(figures["late_p99_us"] / 1e3, 2),
        "cpu_share": round(cpu / seconds, 3), "rss_mib": [round(one[1] / 1024, 1) for one in (first, middle, last)],
        "of_it_events_mib": round(last[2] / 1024, 1), "slope_mib_per_hour_without_events": round(slope, 1),
        "files": [files, middle[3], last[3]]},
        errors=(not figures["unexpected"], "no error"),
        reloads=(done >= reloads - 1, "every reload took place"),
        memory=(last[1] - last[2] < 128 * 1024 and slope < 64, "memory flat"),
        files=(last[3] <= samples[len(samples) // 4][3] + 16, "descriptors flat"))


def fitted(points):
    """The slope of the line through the points."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


@case
def labels(bench, seconds=0, count=1_000_000):
    """A million random paths, ids and hosts: what operators scrape must not grow by them."""
    bench.start()
    before, rss = bench.metrics().count("\n"), bench.rss_kib()
    began = time.monotonic()
    share = count // 8
    with concurrent.futures.ProcessPoolExecutor(8) as pool:
        statuses = {}
        for one in pool.map(scatter, [share] * 8):
            for status, times in one.items():
                statuses[status] = statuses.get(status, 0) + times
    after = bench.metrics().count("\n")
    return report("labels", {
        "requests": sum(statuses.values()), "statuses": statuses, "seconds": round(time.monotonic() - began),
        "metrics_lines": [before, after], "rss_growth_mib": round((bench.rss_kib() - rss) / 1024, 1)},
        all=(sum(statuses.values()) == 8 * share, "every request answered"),
        bounded=(after - before < 200, "no series by what a stranger sends"),
        memory=(bench.rss_kib() - rss < 64 * 1024, "memory flat"))


def scatter(count):
    """Sends `count` requests of which no two are alike; how often which status came."""
    chance, statuses = random.Random(os.urandom(8)), {}
    stream, left = None, 0
    for _ in range(count):
        if not left:
            # A connection takes 100,000 requests.
            stream, left = socket.create_connection(("127.0.0.1", PORT)), 50_000
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left -= 1
        word = "%016x" % chance.getrandbits(64)
        # Forgeries, and spellings that are refused.
        path = PATH if chance.random() < 0.5 else f"{PATH}/%2e%2e/gh/%2e?{word}"
        stream.sendall(f"POST {path} HTTP/1.1\r\nHost: {word}.test\r\nUser-Agent: {word}\r\n"
                       f"X-GitHub-Event: {word}\r\nX-GitHub-Delivery: {word}\r\nContent-Length: 0\r\n"
                       f"X-Hub-Signature-256: sha256={word * 4}\r\nX-{word}: {word}\r\n\r\n".encode())
        # Refusals are short: one packet.
        status = stream.recv(4096).split(b" ", 2)[1].decode()
        statuses[status] = statuses.get(status, 0) + 1
    return statuses


@case
def uniform(bench, seconds=0, count=8000):
    """Everything that a signature can lack is refused with the same bytes, and after the same time."""
    expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    bench.start(expires=f"{expires:%Y-%m-%dT%H:%M:%SZ}")
    time.sleep(6)
    good = True
    for size in (1024, 65536):
        body = b"x" * size
        requests = {kind: spoilt(kind, body) for kind in ("missing", "malformed", "stale", "mismatch", "unknown_key")}
        times, answers = {kind: [] for kind in requests}, {kind: set() for kind in requests}
        with socket.create_connection(("127.0.0.1", PORT)) as stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # In turn, so that every change of the machine's mood meets all of them.
            for _ in range(count if size < 4096 else count // 4):
                for kind, request in requests.items():
                    began = time.perf_counter()
                    stream.sendall(request)
                    answer = stream.recv(4096)
                    times[kind].append(time.perf_counter() - began)
                    lines = answer.split(b"\r\n")
                    answers[kind].add(b"\r\n".join(line for line in lines if not line.lower().startswith(b"date:")))
        medians = {kind: statistics.median(each) * 1e6 for kind, each in times.items()}
        spread = max(medians.values()) / min(medians.values())
        refused = bench.metrics()
        met = [kind for kind in requests if f'reason="verify/{kind}"' in refused]
        good &= report("uniform", {"body": size, "median_us": {kind: round(at, 1) for kind, at in medians.items()},
                                   "slowest_to_fastest": round(spread, 3), "reasons_met": met},
                       bytes=(len(set.union(*answers.values())) == 1, "the same bytes"),
                       met=(len(met) == 5, "all five reasons met"),
                       time=(spread <= 1.1, "medians within 10 %"))
    return good


def spoilt(kind, body):
    now = int(time.time())
    at = now - 3600 if kind == "stale" else now
    key = stand.SECRET if kind in ("stale", "unknown_key") else "not the secret"
    mac = hmac.new(key.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    value = {"malformed": f"t={at},v1={mac[:-1]}", "missing": ""}.get(kind, f"t={at},v1={mac}")
    path = "/hooks/expired" if kind == "unknown_key" else "/hooks/stripe"
    # A header of another name where there is none, so that all are of one length.
    name = "Xtripe-Signature" if kind == "missing" else "Stripe-Signature"
    value = value or f"t={at},v1={mac}"
    return (f"POST {path} HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


@case
def idle(bench, seconds=3, count=1000):
    """Memory of connections that lie idle after one answered webhook each, plain and with TLS."""
    folder = children.RUN / "long-tls"
    folder.mkdir(exist_ok=True)
    certificate, key = folder / "crt.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost"],
                   check=True, capture_output=True)
    tls = f", {{ address: 127.0.0.1:{TLS}, tls: {{ certificates: [{{ certificate: {certificate}, key: {key} }}] }} }}"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for kind, port in (("plain", PORT), ("tls", TLS)):
        bench.start(client="connections: 9000, connections_each: 9000", more_listen=tls)
        hold(1, port, context if kind == "tls" else None)
        time.sleep(1)
        before = bench.rss_kib()
        held = hold(count, port, context if kind == "tls" else None)
        time.sleep(seconds)
        after = bench.rss_kib()
        report("idle", {"kind": kind, "connections": len(held), "open": bench.metric("hookward_open_connections"),
                        "rss_mib": [round(before / 1024, 1), round(after / 1024, 1)],
                        "kib_each": round((after - before) / len(held), 1)})
        del held
    return True


def hold(count, port, context):
    held = []
    for _ in range(count):
        stream = socket.create_connection(("127.0.0.1", port))
        if context:
            stream = context.wrap_socket(stream)
        # Refused for want of a signature: it walks as far as a body goes.
        stream.sendall(b"POST /hooks/gh HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        stream.recv(4096)
        held.append(stream)
    return held


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[], help="all when none is named")
    parser.add_argument("--seconds", type=float, help="another length of each attack")
    parser.add_argument("--flood", action="append", choices=floods.KINDS, help="of `h2`, this one alone")
    parser.add_argument("--only", action="append", help="of `overload` and `slow`, this kind alone")
    parser.add_argument("--binaries", help="gateway,loadgen,upstream that were built before")
    options = parser.parse_args()
    binaries = [Path(path) for path in options.binaries.split(",")] if options.binaries else stand.built()
    print(json.dumps({"began": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC", "cores": os.cpu_count(),
                      "load_average": os.getloadavg()[0], "binary": str(binaries[0].name)}), flush=True)
    good = True
    with Stand(*binaries) as bench:
        for name in options.cases or CASES:
            more = {"seconds": options.seconds} if options.seconds else {}
            if name == "h2" and options.flood:
                more["only"] = options.flood
            if name in ("overload", "slow") and options.only:
                more["only"] = options.only
            good &= bool(CASES[name](bench, **more))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
