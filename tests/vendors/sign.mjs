// Signs bodies as GitHub does, with its own code: sign.mjs SECRET.
//
// Standard input has one body a line, in base64; standard output gets the headers of each, one JSON object a line.

import { createInterface } from "node:readline";

import { sign } from "@octokit/webhooks-methods";

const secret = process.argv[1];
for await (const line of createInterface({ input: process.stdin })) {
  const body = Buffer.from(line, "base64").toString();
  console.log(JSON.stringify({ "X-Hub-Signature-256": await sign(secret, body) }));
}
