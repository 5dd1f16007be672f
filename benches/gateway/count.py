#!/usr/bin/env python3
"""Counts what a request costs the release binary in instructions and allocations, by valgrind's callgrind.

Neither depends on what else the machine does, so a few percent more than before are a change of the program. The binary
runs twice with different numbers of requests; the difference between both runs, divided, is one request. Head, body and
answer are what `bench.py` measures in time.

    python3 benches/gateway/count.py [--binary PATH]           prints the table
    python3 benches/gateway/count.py --check                   exits with 1 when a figure is above counts.json
    python3 benches/gateway/count.py --write                   writes what was counted to counts.json
    python3 benches/gateway/count.py --profile valid-1         leaves callgrind's file of one work for callgrind_annotate
"""

import argparse
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COUNTS = HERE / "counts.json"
SECRET = "a-secret-of-the-benchmark-only-32"
# Name, bytes of the body, forged, routes of other providers beside the one that is asked.
WORKS = [("valid-1", 1024, False, 0), ("valid-10", 10 * 1024, False, 0), ("valid-100", 100 * 1024, False, 0),
         ("forged-1", 1024, True, 0), ("valid-1-of-1000", 1024, False, 999)]
FEW, MANY = 200, 700  # requests of the two runs; the first ones pay for caches and growing tables
ALLOWANCE = 0.05
ALLOCATORS = ("mi_malloc", "mi_malloc_aligned", "mi_zalloc", "mi_zalloc_aligned", "mi_realloc", "mi_realloc_aligned")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n"
CONFIGURATION = """\
listen: [127.0.0.1:{port}]
admin: off
threads: 1
watch: off
log: {{ level: warn }}
limits: {{ client_rate: 10000000/s, client_burst: 1000000 }}
upstreams:
  app: {{ servers: [127.0.0.1:{upstream}] }}
routes:
  - name: github
    path: /webhooks/github
    provider: github
    secrets: [{{ env: SECRET }}]
    upstream: app
    limits: {{ rate: 10000000/s, burst: 1000000 }}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "target" / "release" / "hookward")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--profile", metavar="WORK")
    options = parser.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("valgrind is needed: apt-get install valgrind")
    upstream = serve()
    if options.profile:
        work = next(work for work in WORKS if work[0] == options.profile)
        print(run(options.binary, upstream, work, MANY)[2])
        return 0
    counted = {work[0]: count(options.binary, upstream, work) for work in WORKS}
    known = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    worse = False
    print(f"{'work':<15} {'instructions':>13} {'known':>9} {'allocations':>12} {'known':>6}")
    for name, figures in counted.items():
        before = known.get(name, {"instructions": 0, "allocations": 0})
        print(f"{name:<15} {figures['instructions']:>13,} {before['instructions']:>9,}"
              f" {figures['allocations']:>12} {before['allocations']:>6}")
        worse |= figures["instructions"] > before["instructions"] * (1 + ALLOWANCE)
        worse |= figures["allocations"] > before["allocations"] + 1
    if options.write:
        COUNTS.write_text(json.dumps(counted, indent=2) + "\n")
    if options.check and worse:
        print("a request costs more than counts.json says")
    return int(options.check and worse)


def count(binary, upstream, work):
    """Instructions and allocations of one request."""
    few, many = run(binary, upstream, work, FEW), run(binary, upstream, work, MANY)
    each = MANY - FEW
    return {"instructions": round((many[0] - few[0]) / each), "allocations": round((many[1] - few[1]) / each, 1)}


def run(binary, upstream, work, requests):
    """Instructions and allocations of a whole run, and the file that has them by function."""
    name, length, forged, others = work
    folder = Path(tempfile.mkdtemp(prefix="hookward-count-"))
    port = free_port()
    (folder / "hookward.yaml").write_text(CONFIGURATION.format(port=port, upstream=upstream) + routes(binary, others))
    out = folder / "callgrind.out"
    log = open(folder / "log", "wb")
    process = subprocess.Popen(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--", binary, "run", folder / "hookward.yaml"],
        env={**os.environ, "SECRET": SECRET}, stdout=log, stderr=log)
    try:
        connection = connect(port, process)
        for number in range(requests):
            status = exchange(connection, request(number, length, forged))
            if status != (401 if forged else 200):
                raise RuntimeError(f"{name}: a webhook was answered with {status}")
        connection.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    text = out.read_text()
    instructions = int(re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)[1])
    return instructions, allocations(text), out


def routes(binary, count):
    """So many routes more, of every provider that is content with a plain secret, one after the other."""
    if not count:
        return ""
    shown = subprocess.run([binary, "providers"], capture_output=True, text=True, check=True).stdout
    names = [line.split()[0] for line in shown.splitlines()]
    route = "  - {{ name: r{0}, path: /webhooks/r{0}, provider: {1}, secrets: [{{ env: SECRET }}], upstream: app }}\n".format
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        # The first route is the one that is asked.
        file.write(CONFIGURATION.format(port=1, upstream=2) + "".join(map(route, range(len(names)), names)))
        file.flush()
        checked = subprocess.run([binary, "check", file.name], env={**os.environ, "SECRET": SECRET},
                                 capture_output=True, text=True)
    unfit = {int(number) - 1 for number in re.findall(r"routes\[(\d+)\]", checked.stdout + checked.stderr)}
    fit = [name for number, name in enumerate(names) if number not in unfit]
    return "".join(route(number, fit[number % len(fit)]) for number in range(count))


def allocations(text):
    """How often the allocator was asked for memory, by callgrind's account of calls."""
    names = {}
    calls, callee = 0, None
    for line in text.splitlines():
        if line.startswith("cfn="):
            number, _, name = line[4:].partition(" ")
            if name:
                names[number] = name
            callee = names.get(number, "")
        elif line.startswith("fn="):
            number, _, name = line[3:].partition(" ")
            if name:
                names[number] = name
        elif line.startswith("calls=") and callee in ALLOCATORS:
            calls += int(line[6:].split()[0])
    return calls


def request(number, length, forged):
    """A genuine webhook with a body that was never sent before, or one whose signature is another's."""
    body = f'{{"number":{number},"padding":"'.encode()
    body += b"x" * (length - len(body) - 2) + b'"}'
    signature = hmac.new(SECRET.encode(), b"other" if forged else body, hashlib.sha256).hexdigest()
    head = ("POST /webhooks/github HTTP/1.1\r\nHost: hooks.example.com\r\nUser-Agent: GitHub-Hookshot/044aadd\r\n"
            f"Content-Length: {len(body)}\r\nAccept: */*\r\nContent-Type: application/json\r\n"
            f"X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-{number:012x}\r\nX-GitHub-Event: push\r\n"
            "X-GitHub-Hook-ID: 292430182\r\nX-GitHub-Hook-Installation-Target-ID: 79929171\r\n"
            f"X-GitHub-Hook-Installation-Target-Type: repository\r\nX-Hub-Signature-256: sha256={signature}\r\n\r\n")
    return head.encode() + body


def exchange(connection, sent):
    connection.sendall(sent)
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError("the gateway closed the connection")
        head += piece
    head, _, body = head.partition(b"\r\n\r\n")
    left = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) - len(body)
    while left > 0:
        left -= len(connection.recv(65536))
    return int(head[9:12])


def connect(port, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise RuntimeError("the gateway did not start")


def serve():
    """A backend that reads each event and answers 200; returns its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                piece = connection.recv(262144)
                if not piece:
                    return
                data += piece
            head, _, data = data.partition(b"\r\n\r\n")
            left = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
            while len(data) < left:
                data += connection.recv(262144)
            data = data[left:]
            connection.sendall(ANSWER)

    def accept():
        while True:
            threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
