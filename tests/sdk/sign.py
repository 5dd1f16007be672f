"""Signs bodies as providers do, with their own code: sign.py PROVIDER SECRET TIMESTAMP URL.

Standard input has one body a line, in base64. Standard output gets one JSON object a line: the headers of each, and
the body where the provider's code makes it or has to put the signature into it.
"""

import base64
import hashlib
import hmac
import json
import sys
from datetime import datetime, timezone
from urllib.parse import urlencode

import Adyen.util
import braintree
import nacl.signing
import razorpay
import slack_sdk.signature
import standardwebhooks
import stripe
import svix
import twilio.request_validator
from hubspot.utils.signature import Signature as HubSpot


def sign_stripe(call, body):
    header = stripe.WebhookSignature.generate_signature_header(body.decode(), call.secret, call.timestamp)
    return {"Stripe-Signature": header}


def sign_slack(call, body):
    verifier = slack_sdk.signature.SignatureVerifier(call.secret)
    signature = verifier.generate_signature(timestamp=str(call.timestamp), body=body)
    return {"X-Slack-Request-Timestamp": str(call.timestamp), "X-Slack-Signature": signature}


def sign_standard_webhooks(call, body):
    moment = datetime.fromtimestamp(call.timestamp, tz=timezone.utc)
    signature = standardwebhooks.Webhook(call.secret).sign(call.id, moment, body.decode())
    return {"webhook-id": call.id, "webhook-timestamp": str(call.timestamp), "webhook-signature": signature}


def sign_svix(call, body):
    moment = datetime.fromtimestamp(call.timestamp, tz=timezone.utc)
    signature = svix.Webhook(call.secret).sign(call.id, moment, body.decode())
    return {"svix-id": call.id, "svix-timestamp": str(call.timestamp), "svix-signature": signature}


def sign_discord(call, body):
    """The library that Discord's documentation verifies with; the secret is the seed of the key pair."""
    timestamp = str(call.timestamp)
    signed = nacl.signing.SigningKey(bytes.fromhex(call.secret)).sign(timestamp.encode() + body)
    return {"X-Signature-Ed25519": signed.signature.hex(), "X-Signature-Timestamp": timestamp}


def sign_adyen_header(call, body):
    return {"HmacSignature": Adyen.util.generate_payload_sig(body, call.secret).decode(), "Protocol": "HmacSHA256"}


def sign_adyen(call, body):
    """Puts the signature into a notification of two items; the body is only told apart by it."""
    items = []
    for number in range(2):
        item = {
            "pspReference": f"{call.id}-{number}",
            "merchantAccountCode": "naïve-shop",
            "merchantReference": hashlib.sha256(body).hexdigest(),
            "amount": {"value": 1130, "currency": "EUR"},
            "eventCode": "AUTHORISATION",
            "success": "true",
        }
        signature = Adyen.util.generate_notification_sig(item, call.secret).decode()
        item["additionalData"] = {"hmacSignature": signature}
        items.append({"NotificationRequestItem": item})
    return {"Content-Type": "application/json"}, json.dumps({"live": "false", "notificationItems": items}).encode()


def sign_braintree(call, body):
    gateway = braintree.BraintreeGateway(
        braintree.Configuration(braintree.Environment.Sandbox, "merchant", "public_key_1", call.secret)
    )
    form = gateway.webhook_testing.sample_notification(braintree.WebhookNotification.Kind.SubscriptionWentPastDue, call.id)
    return {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode()


def sign_twilio(call, body):
    """A form with what is easily sorted or escaped in another way."""
    fields = {"Reason": call.id, "ReasonConferenceEnded": "a b+c&d=é", "Body": hashlib.sha256(body).hexdigest(), "Empty": ""}
    signature = twilio.request_validator.RequestValidator(call.secret).compute_signature(call.url, fields)
    headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
    return headers, urlencode(fields).encode()


def sign_hubspot_v3(call, body):
    milliseconds = str(call.timestamp * 1000)
    signature = HubSpot.get_signature(call.secret, body.decode(), "v3", call.url, "POST", milliseconds)
    return {"X-HubSpot-Signature-v3": signature, "X-HubSpot-Request-Timestamp": milliseconds}


def sign_hubspot_v2(call, body):
    signature = HubSpot.get_signature(call.secret, body.decode(), "v2", call.url, "POST")
    return {"X-HubSpot-Signature": signature, "X-HubSpot-Signature-Version": "v2"}


def sign_razorpay(call, body):
    """Razorpay's library only checks, so what is signed here is shown to it first."""
    signature = hmac.new(call.secret.encode(), body, hashlib.sha256).hexdigest()
    razorpay.Client().utility.verify_webhook_signature(body.decode(), signature, call.secret)
    return {"X-Razorpay-Signature": signature}


SENDERS = {
    "adyen": sign_adyen,
    "adyen-header": sign_adyen_header,
    "braintree": sign_braintree,
    "discord": sign_discord,
    "hubspot-v2": sign_hubspot_v2,
    "hubspot-v3": sign_hubspot_v3,
    "razorpay": sign_razorpay,
    "slack": sign_slack,
    "standard-webhooks": sign_standard_webhooks,
    "stripe": sign_stripe,
    "svix": sign_svix,
    "twilio": sign_twilio,
}


class Call:
    """What a body is signed with."""

    def __init__(self, number, secret, timestamp, url):
        self.id = f"msg_{number}"
        self.secret = secret
        self.timestamp = int(timestamp)
        self.url = url


def main():
    _, provider, secret, timestamp, url = sys.argv
    for number, line in enumerate(sys.stdin):
        signed = SENDERS[provider](Call(number, secret, timestamp, url), base64.b64decode(line))
        headers, body = signed if isinstance(signed, tuple) else (signed, None)
        made = {"headers": headers}
        if body is not None:
            made["body"] = base64.b64encode(body).decode()
        print(json.dumps(made))


main()
