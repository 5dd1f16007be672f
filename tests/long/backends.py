"""Applications behind the gateway that a benchmark has no use for.

`large PORT` answers 128 KiB, or HOOKWARD_LONG_LARGE bytes, to everything: for clients that do not read. `slow PORT` does one thing
at a time in five milliseconds, 200 a second, for events that come faster.
"""

import asyncio
import os
import sys

LARGE = bytes(int(os.environ.get("HOOKWARD_LONG_LARGE", 1 << 17)))
SLOW_SECONDS = 0.005


def answer(body):
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def serve(reader, writer, respond):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if length:
                await reader.readexactly(int(length[0].split(b":")[1]))
            writer.write(await respond())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def main():
    large, turn = answer(LARGE), asyncio.Lock()

    async def at_once():
        return large

    async def in_turn():
        async with turn:
            await asyncio.sleep(SLOW_SECONDS)
            return answer(b"ok")

    kind, port = sys.argv[1:]
    respond = {"large": at_once, "slow": in_turn}[kind]
    server = await asyncio.start_server(lambda r, w: serve(r, w, respond), "127.0.0.1", int(port), backlog=4096)
    await server.serve_forever()


asyncio.run(main())
