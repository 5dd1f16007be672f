"""How backends in Python find the path of a target: each line of the input, every way."""

import json
import posixpath
import sys
from urllib.parse import unquote, unquote_plus, urljoin, urlsplit

from yarl import URL


def tries(read, target):
    try:
        return read(target)
    except ValueError:
        return ""


READINGS = [
    lambda t: urlsplit(t).path,
    lambda t: unquote(urlsplit(t).path),
    lambda t: posixpath.normpath(unquote(urlsplit(t).path)),
    lambda t: posixpath.normpath(unquote(t.split("?")[0])),
    lambda t: posixpath.normpath(unquote(unquote(t.split("?")[0]))),
    lambda t: posixpath.normpath(unquote_plus(t.split("?")[0])),
    lambda t: urlsplit(urljoin("http://localhost/", t)).path,
    lambda t: urlsplit(urljoin("http://localhost/", t.lstrip("/"))).path,
    lambda t: URL(t, encoded=False).path,
    lambda t: URL("http://localhost").join(URL(t, encoded=True)).path,
    lambda t: unquote(t.split("?")[0]).split(";")[0].replace("//", "/"),
    lambda t: unquote(t.split("?")[0]).split("\0")[0].strip(),
]

for line in sys.stdin:
    target = line.rstrip("\n")
    sys.stdout.write(" ".join(json.dumps(tries(read, target)) for read in READINGS) + "\n")
