// How backends in JavaScript find the path of a target: each line of the input, every way.
import { createInterface } from "node:readline";
import { posix } from "node:path";
import { parse } from "node:url";

const tries = (read) => { try { return read(); } catch { return ""; } };

for await (const target of createInterface({ input: process.stdin })) {
  const readings = [
    () => new URL(target, "http://localhost").pathname,
    () => new URL("http://localhost" + target).pathname,
    () => decodeURIComponent(new URL(target, "http://localhost").pathname),
    () => decodeURIComponent(new URL("http://localhost" + target).pathname),
    () => parse(target).pathname,
    () => parse(target, false, true).pathname,
    () => posix.normalize(decodeURIComponent(target.split("?")[0])),
    () => posix.normalize(decodeURIComponent(decodeURIComponent(target.split("?")[0]))),
    () => decodeURI(target.split(/[?#;]/)[0]).replace(/\/+/g, "/"),
  ];
  process.stdout.write(readings.map(tries).map((path) => JSON.stringify(path ?? "")).join(" ") + "\n");
}
