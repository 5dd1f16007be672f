"""Records of a run -> the tables of the README, in Markdown.

A cell that was disturbed, by the hypervisor or by other processes, is left out as long as enough quiet ones remain;
when they do not, everything is used and marked. Ratios are taken inside a cycle, between cells measured within seconds.
"""

import statistics
from collections import defaultdict

QUIET_CELLS_MIN = 3
FOREIGN_MAX = 0.05  # share of the machine that other processes may use
CORE_FULL = 0.95
MARK = " †"


def render(records):
    parts = [_head(records)]
    parts += [table for table in (_paired(records), _latency(records), _idle(records), _crowd(records),
                              _syscalls(records)) if table]
    faults = [record["text"] for record in records if record["kind"] == "fault"]
    if faults:
        parts.append("**Not fit for publication:**\n\n" + "\n".join(f"- {text}" for text in faults))
    return "\n\n".join(parts) + "\n"


def _head(records):
    machine = next(record for record in records if record["kind"] == "machine")
    versions = ", ".join(f"{name} {text}" for name, text in machine["versions"].items())
    commit = f", commit {machine['commit']}" if machine["commit"] else ""
    return (f"{machine['date']}{commit}, {machine['mode']} run. {machine['cores']} cores of {machine['cpu']}, "
            f"Linux {machine['kernel']}, {machine['rustc']}. {versions}.")


def _paired(records):
    cells = [record for record in records if record["kind"] == "paired"]
    if not cells:
        return ""
    labels = _labels(cells)
    base, *others = labels
    works = {}
    for cell in cells:
        works.setdefault((cell["forged"], cell["size"]), defaultdict(dict))[cell["system"]][cell["cycle"]] = cell
    cpu, ratio, load = [], [], []
    for (forged, size), by_system in sorted(works.items()):
        name = f"{'forged' if forged else 'valid'} {size} KiB"
        cpu.append([name] + [_spread([cell["cpu_us"] for cell in quiet], "{:.1f}") + mark
                             for quiet, mark in (_quiet(by_system.get(system, {}).values()) for system in labels)])
        ratio.append([name] + [_ratio(by_system.get(base, {}), by_system.get(system, {})) for system in others])
        load.append([name] + [_throughput(by_system.get(system, {}).values()) for system in labels])
    cycles = len({cell["cycle"] for cell in cells})
    heads = list(labels.values())
    return "\n\n".join([
        f"CPU microseconds per request of the proxy process, median [min–max] of {cycles} cycles:",
        _table(["", *heads], cpu),
        f"{labels[base]} ÷ the others, CPU per request inside the same cycle, median [min–max]:",
        _table(["", *heads[1:]], ratio),
        "Requests per second at 32 connections, and p50 / p99 in milliseconds "
        "(‡: the load's core was full, the proxy's was not):",
        _table(["", *heads], load),
        "† fewer than three undisturbed cycles: all are used.",
    ])


def _latency(records):
    cells = [record for record in records if record["kind"] == "latency"]
    rows = []
    for system, label in _labels(cells).items():
        quiet, mark = _quiet([cell for cell in cells if cell["system"] == system])
        keys = ("p50_us", "p99_us", "p999_us")
        rows.append([label + mark] + [_spread([cell[key] for cell in quiet], "{:.0f}") for key in keys])
    title = ("Latency at 2,000 requests per second, 1 KiB valid, in microseconds from when a request was due, "
             "median [min–max]:")
    return f"{title}\n\n" + _table(["", "p50", "p99", "p99.9"], rows) if rows else ""


def _idle(records):
    cells = [record for record in records if record["kind"] == "idle"]
    counts = sorted({cell["connections"] for cell in cells})
    rows = []
    for system, label in _labels(cells).items():
        mine = {cell["connections"]: cell for cell in cells if cell["system"] == system}
        start = statistics.median(cell["rss_before_kib"] for cell in mine.values())
        rows.append([label, f"{start / 1024:.1f}"] + [_connections(mine.get(count)) for count in counts])
    heads = ["", "RSS at start, MiB", *(f"{count:,} connections: RSS, MiB (KiB each)" for count in counts)]
    title = "Memory with idle keep-alive connections, after one answered webhook on each:"
    return f"{title}\n\n" + _table(heads, rows) if rows else ""


def _connections(cell):
    if not cell:
        return "–"
    each = (cell["rss_kib"] - cell["rss_before_kib"]) / cell["connections"]
    closed = cell["connections"] - cell["open"]
    return f"{cell['rss_kib'] / 1024:.1f} ({each:.1f})" + (f", {closed:,} closed" if closed else "")


def _crowd(records):
    cells = [record for record in records if record["kind"] == "crowd"]
    labels = _labels(cells)
    works = {}
    for cell in cells:
        works.setdefault((cell["cores"], cell["connections"]), defaultdict(dict))[cell["system"]][cell["cycle"]] = cell
    rows = []
    for (cores, connections), by_system in sorted(works.items()):
        row = [f"{cores}", f"{connections}"] + [_throughput(by_system[system].values()) for system in labels]
        base = by_system[next(iter(labels))]
        row += [_ratio(by_system[system], base, "per_second") for system in list(labels)[1:]]
        rows.append(row)
    others = [f"{label} ÷ {next(iter(labels.values()))}" for label in list(labels.values())[1:]]
    title = ("Requests per second, 1 KiB valid, and p50 / p99 in milliseconds, one thread for the network; ratio of the rates "
             "inside the same cycle:")
    heads = ["cores", "connections", *labels.values(), *others]
    return f"{title}\n\n" + _table(heads, rows) if rows else ""


def _syscalls(records):
    cells = [record for record in records if record["kind"] == "syscalls"]
    rows = []
    for cell in cells:
        calls = sorted(cell["per_request"].items(), key=lambda call: -call[1])[:6]
        rows.append([cell["label"], f"{cell['total']:.1f}", ", ".join(f"{name} {count:.2g}" for name, count in calls)])
    return "System calls per request, 1 KiB valid:\n\n" + _table(["", "all", "most frequent"], rows) if rows else ""


def _labels(cells):
    """Name -> label in the order of the systems; cycles are shuffled, so the order has to come from somewhere else."""
    labels = {cell["system"]: cell["label"] for cell in cells}
    order = ["hookward", "nginx-lua", "haproxy", "pingora", "nginx", "direct"]
    place = {name: order.index("hookward" if name.startswith("hookward") else name) for name in labels}
    return {name: labels[name] for name in sorted(labels, key=lambda name: (place[name], name))}


def _is_quiet(cell):
    return cell["clean"] >= 1 and cell["foreign"] <= FOREIGN_MAX and not cell["unexpected"]


def _quiet(cells):
    cells = list(cells)
    quiet = [cell for cell in cells if _is_quiet(cell)]
    enough = len(quiet) >= QUIET_CELLS_MIN
    return (quiet, "") if enough or not cells else (cells, MARK)


def _ratio(base, other, of="cpu_us"):
    both = [cycle for cycle in base if cycle in other]
    quiet = [cycle for cycle in both if _is_quiet(base[cycle]) and _is_quiet(other[cycle])]
    used, mark = (quiet, "") if len(quiet) >= QUIET_CELLS_MIN else (both, MARK if both else "")
    ratios = [base[cycle][of] / other[cycle][of] for cycle in used if other[cycle][of]]
    return _spread(ratios, "{:.2f}") + mark


def _throughput(cells):
    quiet, mark = _quiet(cells)
    if not quiet:
        return "–"
    keys = ("per_second", "p50_us", "p99_us", "load_core")
    middle = {key: statistics.median(cell[key] for cell in quiet) for key in keys}
    proxy_core = statistics.median(cell["cpu_us"] * cell["per_second"] / 1e6 for cell in quiet)
    full = " ‡" if proxy_core < CORE_FULL <= middle["load_core"] else ""
    return f"{middle['per_second']:,.0f}, {middle['p50_us'] / 1e3:.2f} / {middle['p99_us'] / 1e3:.2f}{full}{mark}"


def _spread(values, form):
    if not values:
        return "–"
    return f"{form.format(statistics.median(values))} [{form.format(min(values))}–{form.format(max(values))}]"


def _table(heads, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [heads, *rows]]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])
