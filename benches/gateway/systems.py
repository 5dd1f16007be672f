"""What is measured: each system with its configuration, all on one core with one worker, all on 127.0.0.1.

The rivals get the configuration an expert would give them, without access log or metrics; Hookward runs complete.
"""

import base64
import re
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import children

HERE = Path(__file__).resolve().parent
SECRET = "a-secret-of-the-benchmark-only-32"
UPSTREAM = 9100
PROXY_CORE, LOAD_CORE = 0, 1
LUA_MODULES = Path("/usr/lib/nginx/modules")

# What a Debian machine needs for the rivals: package, and the file that shows it is there.
PACKAGES = {
    "nginx-light": shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"),
    "libnginx-mod-http-lua": LUA_MODULES / "ngx_http_lua_module.so",
    "lua-resty-core": Path("/usr/share/lua/5.1/resty/core.lua"),
    "lua-resty-lrucache": Path("/usr/share/lua/5.1/resty/lrucache.lua"),
    "haproxy": shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"),
}


def missing_packages():
    return [name for name, sign in PACKAGES.items() if not sign or not Path(sign).exists()]


@dataclass
class System:
    """One proxy. `needs` are packages without which it is left out."""

    name: str
    label: str
    port: int
    argv: list = field(default_factory=list)
    verifies: bool = True
    needs: tuple = ()
    env: dict = field(default_factory=dict)
    admin: int = 0
    data: Path = None
    child: object = None

    def start(self):
        if children.is_taken(self.port):
            raise RuntimeError(f"port {self.port} is taken by another process")
        if self.data:
            shutil.rmtree(self.data, ignore_errors=True)
        self.child = children.start(self.argv, core=PROXY_CORE, log=f"{self.name}.log",
                                    env={"SECRET": SECRET, **self.env})
        children.wait_until_listening(self.child, self.port)

    def stop(self):
        if self.child:
            children.stop(self.child)
            self.child = None
        if self.data:
            shutil.rmtree(self.data, ignore_errors=True)

    def pids(self):
        return children.family(self.child.pid)

    def version(self):
        """Name of the program, or of the build of ours, and what it says its version is."""
        shown = subprocess.run([self.argv[0], "--version" if self.admin else "-v"], capture_output=True, text=True)
        found = re.search(r"\d+\.\d+\S*", shown.stdout + shown.stderr)
        return self.name if self.admin else Path(self.argv[0]).name, found[0] if found else "unknown"

    def owed(self):
        """Events that were answered and not delivered yet."""
        if not self.data:
            return 0
        waits = re.compile(r'^hookward_queue_deliveries\{.*state="(?:pending|waiting|leased)".*\} (\S+)$', re.MULTILINE)
        return int(sum(float(value) for value in waits.findall(self.metrics())))

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def outcomes(self):
        """Webhooks by outcome, from the gateway's own metrics; nothing for the others."""
        if not self.admin:
            return {}
        text = self.metrics()
        sums = {}
        for labels, value in re.findall(r"^hookward_requests_total\{(.*)\} (\S+)$", text, re.MULTILINE):
            outcome = re.search(r'outcome="([^"]*)"', labels)
            if outcome:
                sums[outcome[1]] = sums.get(outcome[1], 0) + int(float(value))
        return sums


def _written(template, name, **values):
    text = (HERE / "conf" / template).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    path = children.RUN / name
    path.write_text(text)
    return path


def hookward(binary, port, admin, name="hookward", queues=False):
    """With `queues`, an answer means that the event is on disk, and its delivery is a part of what is measured."""
    data = children.RUN / f"{name}.data" if queues else None
    file = _written("hookward.yaml.in", f"{name}.yaml", PORT=port, ADMIN=admin, UPSTREAM=UPSTREAM,
                    DELIVER="queue" if queues else "forward", DATA=f"data: {{ dir: {data} }}" if queues else "")
    label = "hookward, queued" if name == "hookward-queue" else name
    return System(name, label, port, [binary, "run", file], admin=admin, data=data)


def nginx(port, lua):
    name = "nginx-lua" if lua else "nginx"
    folder = children.RUN / name
    folder.mkdir(exist_ok=True)
    load = http = server = ""
    if lua:
        modules = ("ndk_http_module", "ngx_http_lua_module")
        load = "".join(f"load_module {LUA_MODULES}/{module}.so;\n" for module in modules)
        http = (f'lua_package_path "{HERE}/conf/?.lua;/usr/share/lua/5.1/?.lua;;";\n'
                '  init_by_lua_block { require "verify" }')
        server = 'access_by_lua_block { require("verify").access() }'
    file = _written("nginx.conf.in", f"{name}/nginx.conf", RUN=folder, LOAD=load, HTTP=http, SERVER=server,
                    UPSTREAM=UPSTREAM, PORT=port)
    needs = ("nginx-light", *(("libnginx-mod-http-lua", "lua-resty-core", "lua-resty-lrucache") if lua else ()))
    return System(name, "nginx + Lua HMAC" if lua else "nginx, no check", port,
                  [PACKAGES["nginx-light"], "-p", folder, "-c", file], verifies=lua, needs=needs)


def haproxy(port):
    file = _written("haproxy.cfg.in", "haproxy.cfg", PORT=port, UPSTREAM=UPSTREAM,
                    SECRET_BASE64=base64.b64encode(SECRET.encode()).decode())
    # Its buffers are as long as the longest body. Without this glibc may give each of them back to the system after every
    # request and take it again for the next one, or may not, as the heap happens to lie: a fifth of its time.
    keep = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
    return System("haproxy", "HAProxy HMAC", port, [PACKAGES["haproxy"], "-db", "-f", file], needs=("haproxy",), env=keep)


def pingora(tools, port):
    return System("pingora", "bare Pingora, no check", port,
                  [tools / "pingora-bare", f"127.0.0.1:{port}", f"127.0.0.1:{UPSTREAM}"], verifies=False)


def all_systems(tools, hookwards):
    """`hookwards`: name -> binary; several builds can be compared in one run."""
    ours = [hookward(binary, 9110 + 2 * i, 9111 + 2 * i, name) for i, (name, binary) in enumerate(hookwards.items())]
    if "hookward" in hookwards:
        ours.append(hookward(hookwards["hookward"], 9130, 9131, "hookward-queue", queues=True))
    rivals = [nginx(9101, lua=True), haproxy(9102), pingora(tools, 9103), nginx(9104, lua=False)]
    return ours + rivals
