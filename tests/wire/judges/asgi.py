"""For uvicorn: reads each request to its end, says what it understood, and answers with the target."""

import sys


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    length = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    sys.stdout.write(f"{scope['method']} {target.decode('latin-1')} 200 {length}\n")
    sys.stdout.flush()
    headers = [(b"content-length", str(len(target)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": target})
