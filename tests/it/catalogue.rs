//! Every built-in provider through one running gateway: what `hookward sign` signs is accepted, and nothing changed is.
//!
//! One configuration with a route for each of them, as `hookward providers NAME` shows it; private keys are those of the
//! tests. Providers that publish their keys are tested where those are made.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hookward::clock::UnixMillis;
use hookward::providers::{Provider, builtin};
use hookward::secret::Secret;
use hookward::signature::{
    Draft, Head, KeyedSecret, PublicUrl, Settings, Signed, Strength, Verifier, VerifierOptions, fitting_id,
    sign_request,
};
use serde_json::json;

use crate::harness::{Client, Gateway, NOW, Upstream};

/// Secrets in every form that providers show them in.
const SECRETS: [&str; 5] = [
    "an-example-of-a-secret-of-some-length",
    "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e",
    "whsec_ZGVtby1zZWNyZXQtZG8tbm90LXVzZS1pbi1wcm9kdWN0aW9u",
    "ZGVtby1zZWNyZXQtZG8tbm90LXVzZS1pbi1wcm9kdWN0aW9u",
    "hookward:an-example-of-a-password",
];

/// Private keys with their public halves.
const PAIRS: [(&str, &str); 3] = [
    (
        include_str!("../keys/ed25519.pem"),
        include_str!("../keys/ed25519.pub.pem"),
    ),
    (include_str!("../keys/p256.pem"), include_str!("../keys/p256.pub.pem")),
    (
        include_str!("../keys/rsa2048.pem"),
        include_str!("../keys/rsa2048.pub.pem"),
    ),
];

/// Nobody but these can sign for them: the gateway takes their keys from where they publish them.
const PUBLISHED: [&str; 7] = [
    "aws-sns",
    "constant-contact",
    "fireblocks",
    "google-pubsub",
    "kinde",
    "neon-auth",
    "paypal",
];

/// What signs, and what verifies: the same, or a public key in every form that operators are shown one in. The first of
/// them that fits is a route's.
fn keys() -> Vec<(String, String)> {
    let mut keys: Vec<_> = SECRETS.map(|secret| (secret.to_owned(), secret.to_owned())).to_vec();
    for (private, public) in PAIRS {
        let text: String = public.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(text).unwrap();
        let tail = |bytes: usize| &der[der.len() - bytes..];
        let (last, url) = (tail(32), |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes));
        let jwk = match der.len() {
            44 => json!({ "kty": "OKP", "crv": "Ed25519", "x": url(last) }),
            91 => json!({ "kty": "EC", "crv": "P-256", "x": url(&tail(64)[..32]), "y": url(last) }),
            // Behind the modulus stand the five bytes of its exponent.
            _ => json!({ "kty": "RSA", "n": url(&tail(261)[..256]), "e": "AQAB" }),
        };
        let spellings = [
            public.to_owned(),
            STANDARD.encode(&der),
            hex::encode(last),
            STANDARD.encode(last),
            url(last),
            jwk.to_string(),
        ];
        keys.extend(spellings.map(|spelling| (private.to_owned(), spelling)));
    }
    keys
}

/// A provider's sample, signed.
struct Event {
    provider: &'static Provider,
    /// What the route has.
    secret: String,
    head: String,
    body: Vec<u8>,
}

fn public_url(provider: &Provider) -> PublicUrl {
    PublicUrl::parse(&format!("https://hooks.example.com/webhooks/{}", provider.id)).unwrap()
}

fn value_of(setting: &str) -> String {
    match setting {
        // The app's own URL, which that of a route is below.
        "base_url" => "https://hooks.example.com".to_owned(),
        other => format!("value-of-{other}"),
    }
}

fn settings(provider: &Provider) -> Settings {
    let mut settings = Settings::default();
    for name in provider.settings.keys() {
        settings.insert(name, Secret::new(value_of(name)).unwrap()).unwrap();
    }
    settings
}

/// The sample as the provider would send it; `None` when nobody but the provider can sign.
fn event(provider: &'static Provider) -> Option<Event> {
    let (url, settings) = (public_url(provider), settings(provider));
    let sample = provider.sample("a1b2c3d4e5f6", NOW);
    let headers = sample
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.parse().unwrap()));
    let headers: http::HeaderMap = headers.collect();
    let draft = Draft {
        method: "POST",
        target: url.path_and_query(),
        headers: &headers,
        body: &sample.body,
        public_url: Some(&url),
        settings: &settings,
        id: &fitting_id(&provider.scheme, "msg_a1b2c3d4e5f6a1b2c3d4e5f6"),
        now: NOW,
    };
    let verifies = |key: &str, signed: &Signed| {
        let keyed = KeyedSecret {
            id: "key".into(),
            secret: Secret::new(key).unwrap(),
            until: None,
        };
        let options = VerifierOptions {
            public_url: Some(url.clone()),
            settings: settings.clone(),
            ..VerifierOptions::default()
        };
        let verifier = Verifier::new(provider.scheme.clone(), vec![keyed], options).ok();
        verifier.is_some_and(|verifier| is_accepted(&verifier, &draft, signed))
    };
    let (signed, secret) = keys().into_iter().find_map(|(signs, key)| {
        let signed = sign_request(&provider.scheme, &Secret::new(signs).unwrap(), &draft).ok()?;
        verifies(&key, &signed).then_some((signed, key))
    })?;
    let path = format!("/webhooks/{}", provider.id);
    let target = signed
        .query
        .as_ref()
        .map_or(path.clone(), |query| format!("{path}?{query}"));
    let mut head = format!("POST {target} HTTP/1.1\r\nHost: gateway.test\r\n");
    for (name, value) in &headers {
        if !signed.headers.iter().any(|(own, _)| own == name) {
            write!(head, "{name}: {}\r\n", value.to_str().unwrap()).unwrap();
        }
    }
    for (name, value) in &signed.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    Some(Event {
        provider,
        secret,
        head,
        body: signed.body.unwrap_or_else(|| sample.body.to_vec()),
    })
}

fn is_accepted(verifier: &Verifier, draft: &Draft<'_>, signed: &Signed) -> bool {
    let mut headers = draft.headers.clone();
    for (name, value) in &signed.headers {
        headers.insert(name, value.parse().unwrap());
    }
    let path = draft.target.split('?').next().unwrap();
    let target = signed.query.as_ref().map(|query| format!("{path}?{query}"));
    let head = Head {
        method: &draft.method.parse().unwrap(),
        target: target.as_deref().unwrap_or(draft.target),
        headers: &headers,
    };
    let body = signed.body.as_deref().unwrap_or(draft.body);
    let mut check = verifier.begin(head, NOW);
    check.update(body);
    check.finish(body).is_ok()
}

fn yaml(events: &[Event], upstream: &Upstream) -> String {
    let mut yaml = format!(
        "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n",
        upstream.address
    );
    for Event { provider, secret, .. } in events {
        let id = &provider.id;
        write!(
            yaml,
            "  - {{ name: {id}, path: /webhooks/{id}, provider: {id}, upstream: app, "
        )
        .unwrap();
        write!(yaml, "secrets: [{{ value: {secret:?} }}]").unwrap();
        if provider.scheme.needs_public_url() || provider.handshakes.use_url() {
            write!(yaml, ", public_url: \"{}\"", public_url(provider).as_str()).unwrap();
        }
        let named: Vec<_> = provider
            .settings
            .keys()
            .map(|name| format!("{name}: {:?}", value_of(name)))
            .collect();
        if !named.is_empty() {
            write!(yaml, ", settings: {{ {} }}", named.join(", ")).unwrap();
        }
        yaml.push_str(" }\n");
    }
    yaml
}

async fn send(client: &mut Client, event: &Event, body: &[u8]) -> u16 {
    let head = format!("{}Content-Length: {}\r\n\r\n", event.head, body.len());
    client.send(&[head.as_bytes(), body].concat()).await;
    client.answer().await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_that_can_be_signed_is_accepted_and_only_unchanged() {
    // Somebody would configure a provider of the list and get nothing but refusals.
    let providers = builtin().iter().map(|provider| &**provider);
    let events: Vec<_> = providers.filter_map(event).collect();
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&yaml(&events, &upstream)).await;
    gateway.clock.set_wall(UnixMillis(NOW.0));
    let mut client = Client::connect(gateway.address).await;
    let mut wrong = Vec::new();
    for event in &events {
        let mut changed = event.body.clone();
        if event.provider.scheme.strength() == Strength::Verified
            && let Some(last) = changed.last_mut()
        {
            *last ^= 1;
            let refused = send(&mut client, event, &changed).await;
            if refused != 401 {
                wrong.push(format!("{}: {refused} for a changed body", event.provider.id));
            }
        }
        let accepted = send(&mut client, event, &event.body).await;
        if accepted != 200 {
            wrong.push(format!("{}: {accepted}\n{}", event.provider.id, event.head));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let signed: BTreeSet<_> = events.iter().map(|event| event.provider.id.as_str()).collect();
    let not_signed: Vec<_> = builtin().ids().filter(|id| !signed.contains(id)).collect();
    assert_eq!(not_signed, PUBLISHED);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_changed_bodies_end_at_the_gateway() {
    // One body that the proof does not cover, of one provider, is enough.
    const CHANGES: usize = 20_000;
    let providers = builtin().iter().map(|provider| &**provider);
    let bound = |event: &Event| event.provider.scheme.strength() == Strength::Verified;
    let events: Vec<_> = providers.filter_map(event).filter(bound).collect();
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&yaml(&events, &upstream)).await;
    gateway.clock.set_wall(UnixMillis(NOW.0));
    let mut client = Client::connect(gateway.address).await;
    let mut wrong = Vec::new();
    for turn in 0..CHANGES {
        let event = &events[turn % events.len()];
        let mut body = event.body.clone();
        let at = (turn / events.len() * 7 + turn) % body.len();
        match turn / events.len() % 5 {
            0 => body[at] ^= 1 << (turn % 8),
            1 => drop(body.remove(at)),
            2 => body.insert(at, b'0'),
            3 => body.truncate(at),
            _ => body.extend_from_slice(&event.body[at..]),
        }
        let status = send(&mut client, event, &body).await;
        if status != 401 {
            wrong.push(format!("{}: {status} for change {turn}", event.provider.id));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(gateway.metric("hookward_replay_entries"), 0.0);
}
