"""Signs bodies as vendors do, with the vendors' own code: sign.py PROVIDER SECRET TIMESTAMP.

Standard input has one body a line, in base64; standard output gets the headers of each, one JSON object a line.
"""

import base64
import json
import sys
from datetime import datetime, timezone

import slack_sdk.signature
import standardwebhooks
import stripe


def stripe_headers(secret, timestamp, number, body):
    return {"Stripe-Signature": stripe.WebhookSignature.generate_signature_header(body, secret, timestamp)}


def slack_headers(secret, timestamp, number, body):
    signature = slack_sdk.signature.SignatureVerifier(secret).generate_signature(timestamp=str(timestamp), body=body)
    return {"X-Slack-Request-Timestamp": str(timestamp), "X-Slack-Signature": signature}


def standard_webhooks_headers(secret, timestamp, number, body):
    name = f"msg_{number}"
    moment = datetime.fromtimestamp(timestamp, tz=timezone.utc)
    signature = standardwebhooks.Webhook(secret).sign(name, moment, body)
    return {"webhook-id": name, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


SENDERS = {"stripe": stripe_headers, "slack": slack_headers, "standard-webhooks": standard_webhooks_headers}


def main():
    _, provider, secret, timestamp = sys.argv
    for number, line in enumerate(sys.stdin):
        body = base64.b64decode(line).decode()
        print(json.dumps(SENDERS[provider](secret, int(timestamp), number, body)))


main()
