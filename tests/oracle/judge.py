"""A second opinion on signatures: judges requests by what a provider's file says, with Python's own hmac and hashlib.

One JSON object a line on standard input: `scheme` as in conf/providers, `secrets`, `settings`, `url`, `target`, `method`,
`headers`, `body` in base64, `now` in milliseconds. One line of output each: `yes`, `no`, or `unknown` for a scheme that
is not judged here (public keys, tokens of JWT, native verifiers). Written from docs/schemes.md; more lenient than the
gateway about spellings, never about what is signed.
"""

import base64
import email.utils
import hashlib
import hmac
import json
import re
import sys
from datetime import datetime, timezone
from urllib.parse import unquote_to_bytes

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def pairs_of(text):
    """The fields of a form or a query, decoded, in order."""
    pairs = []
    for field in text.split(b"&"):
        if field:
            name, _, value = field.partition(b"=")
            pairs.append(tuple(unquote_to_bytes(part.replace(b"+", b" ")) for part in (name, value)))
    return pairs


def as_text(value):
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, Number):
        return value.text.encode()
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    raise LookupError("no scalar")


class Number:
    """A number as it was written."""

    def __init__(self, text):
        self.text = text


class Request:
    def __init__(self, line):
        self.scheme = line["scheme"]
        self.secrets = [secret.encode() for secret in line["secrets"]]
        self.settings = line["settings"]
        self.url = line["url"]
        self.target = line["target"]
        self.method = line["method"]
        self.headers = [(name.lower(), value.encode("latin-1")) for name, value in line["headers"]]
        self.body = base64.b64decode(line["body"])
        self.now = line["now"] / 1000

    def header(self, name):
        values = {value.strip() for own, value in self.headers if own == name.lower()}
        if len(values) != 1:
            raise LookupError(name)
        return values.pop()

    def query(self, name):
        _, _, query = self.target.partition("?")
        return self.one(pairs_of(query.encode()), name)

    def form(self, name):
        return self.one(pairs_of(self.body), name)

    @staticmethod
    def one(pairs, name):
        values = [value for own, value in pairs if own == name.encode()]
        if len(values) != 1:
            raise LookupError(name)
        return values[0]

    def json(self, path):
        value = json.loads(self.body, parse_int=Number, parse_float=Number)
        for name in path.split("."):
            if not isinstance(value, dict):
                raise LookupError(path)
            value = value.get(name)
        if isinstance(value, (dict, list)):
            raise LookupError(path)
        return value

    def at(self, place):
        """The value at a place of the scheme."""
        for kind, read in (("header", self.header), ("query", self.query), ("form", self.form)):
            if kind in place:
                return read(place[kind])
        if "json" in place:
            return as_text(self.json(place["json"]))
        raise LookupError(place)

    def signatures(self):
        """What may be a signature, each with the fields beside it."""
        place = self.scheme["signature"]
        values = []
        if "headers" in place or "{n}" in place.get("header", ""):
            names = place.get("headers") or [place["header"].replace("{n}", str(n)) for n in range(1, 17)]
            for name in names:
                try:
                    values.append(self.header(name))
                except LookupError:
                    pass
        else:
            values.append(self.at(place))
        for value in values:
            yield from self.entries(place, value)

    @staticmethod
    def entries(place, value):
        form = place.get("format", "plain")
        if form == "plain":
            prefix = place.get("prefix", "").encode()
            if value.startswith(prefix):
                yield value[len(prefix) :], {}
            return
        separator = place["separator"].encode()
        if form == "list":
            for entry in value.split(separator):
                yield entry.strip(), {}
        elif form == "positional":
            first, *entries = value.split(separator)
            for entry in entries:
                yield entry.strip(), {None: first.strip()}
        else:
            groups = value.split(place["group"].encode()) if "group" in place else [value]
            for group in groups:
                fields = {}
                signatures = []
                for entry in group.split(separator):
                    name, _, text = entry.strip().partition(place.get("assign", "=").encode())
                    name = name.decode("latin-1")
                    fields[name] = text
                    if name in place["fields"]:
                        signatures.append(text)
                for signature in signatures:
                    yield signature, fields

    def stamp(self, fields):
        """The text of the signed time."""
        timestamp = self.scheme.get("timestamp")
        if timestamp is None:
            return None
        if timestamp.get("first"):
            return fields[None]
        if "field" in timestamp:
            return fields[timestamp["field"]]
        return self.at(timestamp)

    def is_fresh(self, stamp):
        timestamp = self.scheme.get("timestamp")
        if timestamp is None or timestamp["tolerance"] in ("off", False):
            return True
        number, unit = re.fullmatch(r"(\d+)([a-z]+)", timestamp["tolerance"]).groups()
        return abs(self.now - seconds(stamp.decode(), timestamp["unit"])) <= int(number) * SECONDS[unit]

    def part(self, name, stamp, fields, secret):
        kind, _, argument = name.partition(":")
        url, _, query = self.url.partition("?")
        simple = {
            "body": lambda: self.body,
            "body_sha256": lambda: hashlib.sha256(self.body).hexdigest().encode(),
            "timestamp": lambda: stamp,
            "id": lambda: self.header(self.scheme["id"]["header"]),
            "url": lambda: self.url.encode(),
            "url_base": lambda: url.encode(),
            "path": lambda: re.sub(r"^https?://[^/?]*", "", self.url).encode(),
            "method": lambda: self.method.encode(),
            "secret": lambda: secret,
            "sorted_form": lambda: b"".join(name + value for name, value in sorted(set(pairs_of(self.body)))),
            "setting": lambda: self.settings[argument].encode(),
            "header": lambda: self.header(argument),
            "query": lambda: self.query(argument),
            "query_lower": lambda: self.query(argument).lower(),
            "field": lambda: fields[argument],
            "json": lambda: as_text(self.json(argument)),
            "form": lambda: self.form(argument),
        }
        try:
            return simple[kind]()
        except LookupError:
            # A member or field that is not there is empty; everything else has to be there.
            if kind in ("json", "form"):
                return b""
            raise

    def message(self, stamp, fields, secret):
        text = self.scheme["message"]
        out = b""
        for token in re.findall(r"\{\{|\}\}|\[\[|\]\]|\[[^\]]*\]|\{[^}]*\}|\\n|[^{}\[\]\\]+|\\", text):
            if token in ("{{", "}}", "[[", "]]"):
                out += token[0].encode()
            elif token[0] == "[":
                out += self.optional(token[1:-1], stamp, fields, secret)
            elif token[0] == "{":
                out += self.part(token[1:-1], stamp, fields, secret)
            else:
                out += token.replace("\\n", "\n").encode()
        return out

    def optional(self, piece, stamp, fields, secret):
        """A piece that is there only when the value in it is: `[id:{query:id};]`, or `[id:{query:id}]`."""
        before, name, after = re.fullmatch(r"([^{]*)\{([^}]*)\}(.*)", piece).groups()
        try:
            value = self.part(name, stamp, fields, secret)
        except LookupError:
            return b""
        return before.encode() + value + after.encode() if value else b""

    def key(self, secret):
        form = self.scheme.get("key", "utf8")
        if form == "utf8":
            return secret
        if form == "hex":
            return bytes.fromhex(secret.decode())
        if form == "whsec":
            secret = secret.removeprefix(b"v1,").removeprefix(b"whsec_")
        return base64.b64decode(secret, validate=True)

    def judge(self):
        algorithm = self.scheme.get("algorithm", "")
        if algorithm in ("token", "basic"):
            return self.judge_token(algorithm)
        digest = algorithm.removeprefix("hmac-")
        if digest not in hashlib.algorithms_available or "message" not in self.scheme:
            return "unknown"
        for name, value in self.scheme.get("require", {}).items():
            if self.header(name) != value.encode():
                return "no"
        encoding = self.scheme["signature"]["encoding"]
        for signature, fields in self.signatures():
            try:
                presented = decoded(signature, encoding)
                stamp = self.stamp(fields)
                for secret in self.secrets:
                    key = self.key(secret)
                    signed = self.message(stamp, fields, secret)
                    right = (
                        hmac.new(key, signed, digest).digest()
                        if algorithm.startswith("hmac-")
                        else hashlib.new(digest, signed).digest()
                    )
                    if presented == right and self.is_fresh(stamp):
                        return "yes"
            except (LookupError, ValueError):
                continue
        return "no"


    def judge_token(self, algorithm):
        place = self.scheme.get("signature", {"header": "Authorization"})
        if "[]" in place.get("json", ""):
            return "unknown"
        presented = self.at(place)
        if algorithm == "basic":
            word, _, presented = presented.partition(b" ")
            if word.lower() != b"basic":
                return "no"
            presented = base64.b64decode(presented)
        prefix = place.get("prefix", "").encode()
        right = any(presented == prefix + secret for secret in self.secrets)
        return "yes" if right else "no"


def decoded(text, encoding):
    if encoding == "hex":
        return bytes.fromhex(text.decode())
    if encoding == "hex-in-base64":
        return bytes.fromhex(base64.b64decode(text).decode())
    if encoding == "base64url":
        return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    return base64.b64decode(text)


def seconds(text, unit):
    if unit in ("s", "ms", "us"):
        return int(text) / {"s": 1, "ms": 1000, "us": 1_000_000}[unit]
    if unit == "http-date":
        return email.utils.parsedate_to_datetime(text).timestamp()
    # Python knows no more than six digits of a second.
    text = re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00")
    moment = datetime.fromisoformat(text)
    if unit == "datetime":
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


for line in sys.stdin:
    try:
        verdict = Request(json.loads(line)).judge()
    except (LookupError, ValueError):
        verdict = "no"
    print(verdict)
