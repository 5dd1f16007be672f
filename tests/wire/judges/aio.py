"""aiohttp's own server: reads each request to its end, says what it understood, and answers with the target."""

import sys

from aiohttp import web


async def answer(request):
    body = await request.read()
    target = request.raw_path if hasattr(request, "raw_path") else request.path_qs
    sys.stdout.write(f"{request.method} {target} 200 {len(body)}\n")
    sys.stdout.flush()
    return web.Response(text=target)


app = web.Application(client_max_size=1 << 24)
app.router.add_route("*", "/{tail:.*}", answer)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, keepalive_timeout=60)
