//! Every built-in provider through one running gateway: what `hookward sign` signs is accepted, and nothing changed is.
//!
//! One configuration with a route for each of them, as `hookward providers NAME` shows it. Providers whose signatures
//! need a private key that only they have, or a key that they publish, are tested where those are made.

use std::fmt::Write as _;

use hookward::clock::UnixMillis;
use hookward::providers::{Provider, builtin};
use hookward::secret::Secret;
use hookward::signature::{
    Draft, KeyedSecret, PublicUrl, Settings, Signed, Strength, Verifier, VerifierOptions, sign_request,
};

use crate::harness::{Client, Gateway, NOW, Upstream};

/// Secrets in every form that providers show them in; the first that fits is a route's.
const SECRETS: [&str; 5] = [
    "an-example-of-a-secret-of-some-length",
    "5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e",
    "whsec_ZGVtby1zZWNyZXQtZG8tbm90LXVzZS1pbi1wcm9kdWN0aW9u",
    "ZGVtby1zZWNyZXQtZG8tbm90LXVzZS1pbi1wcm9kdWN0aW9u",
    "hookward:an-example-of-a-password",
];

/// A provider's sample, signed.
struct Event {
    provider: &'static Provider,
    secret: &'static str,
    head: String,
    body: Vec<u8>,
}

fn public_url(provider: &Provider) -> PublicUrl {
    PublicUrl::parse(&format!("https://hooks.example.com/webhooks/{}", provider.id)).unwrap()
}

fn settings(provider: &Provider) -> Settings {
    let mut settings = Settings::default();
    for name in provider.settings.keys() {
        settings
            .insert(name, Secret::new(format!("value-of-{name}")).unwrap())
            .unwrap();
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
        id: "msg_a1b2c3d4e5f6a1b2c3d4e5f6",
        now: NOW,
    };
    let fits = |secret: &&&'static str| {
        let keyed = KeyedSecret {
            id: "key".into(),
            secret: Secret::new(**secret).unwrap(),
            until: None,
        };
        let options = VerifierOptions {
            public_url: Some(url.clone()),
            settings: settings.clone(),
            ..VerifierOptions::default()
        };
        Verifier::new(provider.scheme.clone(), vec![keyed], options).is_ok()
    };
    let secret = SECRETS.iter().find(fits)?;
    let signed = sign_of(provider, secret, &draft)?;
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

/// Ids of a fixed length are cut to it; the schemes that want them say so.
fn sign_of(provider: &Provider, secret: &str, draft: &Draft<'_>) -> Option<Signed> {
    let secret = Secret::new(secret).unwrap();
    let ids = [
        draft.id,
        "0b7c2a9e-4c53-4f0e-9d55-5f4e1a6f2c11",
        "1234567890",
        "a1b2c3d4e5f6a1b2c3d4e5f6",
    ];
    let signed = |id| sign_request(&provider.scheme, &secret, &Draft { id, ..*draft }).ok();
    ids.into_iter().find_map(signed)
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
        write!(yaml, "secrets: [{{ value: \"{secret}\" }}]").unwrap();
        if provider.scheme.needs_public_url() || provider.handshakes.use_url() {
            write!(yaml, ", public_url: \"{}\"", public_url(provider).as_str()).unwrap();
        }
        let named: Vec<_> = provider
            .settings
            .keys()
            .map(|name| format!("{name}: value-of-{name}"))
            .collect();
        if !named.is_empty() {
            write!(yaml, ", settings: {{ {} }}", named.join(", ")).unwrap();
        }
        // What a provider asks for is never shorter than its own.
        if provider
            .scheme
            .tolerance()
            .is_some_and(|tolerance| tolerance.as_secs() * 2 > 24 * 3600)
        {
            yaml.push_str(", replay: { keep: 10d }");
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
    assert!(
        events.len() >= 230,
        "{} of {} were signed",
        events.len(),
        builtin().ids().len()
    );
}
