"""For gunicorn: reads each request to its end, says what it understood, and answers with the target."""

import sys


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    sys.stdout.write(f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} 200 {len(body)}\n")
    sys.stdout.flush()
    answer = environ["RAW_URI"].encode("latin-1")
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
