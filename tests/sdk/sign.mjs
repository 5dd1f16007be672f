// Signs bodies as providers do, with their own code: sign.mjs PROVIDER SECRET TIMESTAMP URL.
//
// Standard input has one body a line, in base64. Standard output gets one JSON object a line: the headers of each, and
// the body where the provider's code wants one of its own. Where a library only checks, what is signed here is shown
// to it first: it must say yes.

import { createHash, createHmac } from "node:crypto";
import { createInterface } from "node:readline";

const [provider, secret, seconds, url] = process.argv.slice(1);
const milliseconds = Number(seconds) * 1000;

// The libraries that look at the clock see the time of the test.
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) {
    super(...(given.length === 0 ? [milliseconds] : given));
  }
  static now() {
    return milliseconds;
  }
};

const hmac = (body, encoding, algorithm = "sha256") => createHmac(algorithm, secret).update(body).digest(encoding);

function agreed(yes) {
  if (!yes) throw new Error(`${provider}: its own library refuses what was signed`);
}

const senders = {
  async contentful() {
    const { signRequest } = await import("@contentful/node-apps-toolkit");
    return (body) => {
      const path = new URL(url).pathname;
      const headers = { "Content-Type": "application/json", "X-Contentful-Topic": "ContentManagement.Entry.publish" };
      const request = { method: "POST", path, headers, body: body.toString() };
      return { headers: { ...headers, ...signRequest(secret, request, milliseconds) } };
    };
  },

  async github() {
    const { sign } = await import("@octokit/webhooks-methods");
    return async (body) => ({ headers: { "X-Hub-Signature-256": await sign(secret, body.toString()) } });
  },

  async line() {
    const { validateSignature } = await import("@line/bot-sdk");
    return (body) => {
      const signature = hmac(body, "base64");
      agreed(validateSignature(body, secret, signature));
      return { headers: { "X-Line-Signature": signature } };
    };
  },

  async livekit() {
    const { AccessToken } = await import("livekit-server-sdk");
    return async (body) => {
      const token = new AccessToken("APIkey0123456789", secret, { ttl: 60 });
      token.sha256 = createHash("sha256").update(body).digest("base64");
      return { headers: { Authorization: await token.toJwt(), "Content-Type": "application/webhook+json" } };
    };
  },

  async paddle() {
    const { Paddle } = await import("@paddle/paddle-node-sdk");
    const { webhooks } = new Paddle("key");
    return async (body) => {
      const header = `ts=${seconds};h1=${hmac(`${seconds}:${body}`, "hex")}`;
      agreed(await webhooks.isSignatureValid(body.toString(), secret, header));
      return { headers: { "Paddle-Signature": header } };
    };
  },

  async "plivo-v2"() {
    const { default: plivo } = await import("plivo");
    return (_body, number) => {
      const nonce = String(12345678901234567890n + BigInt(number));
      const signature = hmac(url + nonce, "base64");
      agreed(plivo.validateSignature(url, nonce, signature, secret));
      return { headers: { "X-Plivo-Signature-V2": signature, "X-Plivo-Signature-V2-Nonce": nonce } };
    };
  },

  async sanity() {
    const { encodeSignatureHeader, SIGNATURE_HEADER_NAME } = await import("@sanity/webhook");
    return async (body) => ({
      headers: { [SIGNATURE_HEADER_NAME]: await encodeSignatureHeader(body.toString(), milliseconds, secret) },
    });
  },

  async shopify() {
    await import("@shopify/shopify-api/adapters/node");
    const { shopifyApi, ApiVersion } = await import("@shopify/shopify-api");
    const shopify = shopifyApi({
      apiKey: "key",
      apiSecretKey: secret,
      apiVersion: Object.values(ApiVersion)[0],
      hostName: "hooks.example.com",
      isEmbeddedApp: true,
      logger: { log: () => {} },
    });
    return async (body, number) => {
      const headers = {
        "X-Shopify-Hmac-Sha256": hmac(body, "base64"),
        "X-Shopify-Topic": "orders/create",
        "X-Shopify-API-Version": "2026-10",
        "X-Shopify-Shop-Domain": "shop.myshopify.com",
        "X-Shopify-Webhook-Id": `id-${number}`,
      };
      const rawRequest = { method: "POST", url, headers };
      const checked = await shopify.webhooks.validate({ rawBody: body.toString(), rawRequest, rawResponse: {} });
      agreed(checked.valid);
      return { headers };
    };
  },

  // WorkOS's library parses the body and writes it again, so that only what JSON.stringify writes passes it.
  async workos() {
    const { WorkOS } = await import("@workos-inc/node");
    const { webhooks } = new WorkOS("key");
    return async (body, number) => {
      const event = { id: `event_${number}`, event: "user.created", data: { text: body.toString() } };
      const text = JSON.stringify(event);
      const header = `t=${milliseconds}, v1=${hmac(`${milliseconds}.${text}`, "hex")}`;
      agreed(await webhooks.verifyHeader({ payload: event, sigHeader: header, secret }));
      return { headers: { "WorkOS-Signature": header }, body: Buffer.from(text).toString("base64") };
    };
  },
};

const sign = await senders[provider]();
let number = 0;
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await sign(Buffer.from(line, "base64"), number++)));
}
