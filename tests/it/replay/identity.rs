//! What makes two requests the same event: what is signed, and nothing that anybody may change.

use super::{every_provider, send};
use crate::harness::{Conf, Event, Gateway, NOW, PROVIDERS, SECRET, Upstream, secret_of};

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_headers_do_not_make_an_event_new() {
    // GitHub's delivery id is not signed: with it as the key, one captured push is delivered as often as one likes.
    let upstream = Upstream::ok().await;
    let conf = every_provider(Conf::to(upstream.address), "limits: { rate: 100000/s, burst: 100000 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let signed = [
        "x-hub-signature-256",
        "x-shopify-hmac-sha256",
        "x-slack-signature",
        "x-slack-request-timestamp",
        "stripe-signature",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ];
    let mut tried = 0;
    for (n, provider) in PROVIDERS.into_iter().enumerate() {
        let captured = Event::of(provider, "1")
            .with("X-Request-Id", "1")
            .with("User-Agent", "other");
        assert_eq!(send(&gateway, &captured).await.status, 200);
        let labels: Vec<String> = captured.headers.iter().map(|(name, _)| name.clone()).collect();
        let labels = labels
            .iter()
            .filter(|name| !signed.contains(&name.to_ascii_lowercase().as_str()));
        for name in labels {
            let value = captured.value(name).to_owned();
            let mut changed = captured.clone();
            changed.set(name, "f00d");
            let variants = [
                captured.clone().without(name),
                changed,
                captured.clone().with(name, &value),
                captured.clone().with(name, "f00d"),
                captured
                    .clone()
                    .with("X-GitHub-Delivery", "f00d")
                    .with("Idempotency-Key", "f00d"),
            ];
            for (which, variant) in variants.iter().enumerate() {
                // Two types of one body are no request at all.
                let ambiguous = name.eq_ignore_ascii_case("content-type") && (2..4).contains(&which);
                assert_eq!(
                    send(&gateway, variant).await.status,
                    if ambiguous { 400 } else { 200 },
                    "{provider}, {name}, variant {which}"
                );
                tried += 1;
            }
        }
        assert_eq!(upstream.count(), n + 1, "{provider}");
    }
    assert!(tried >= 80, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stripped_signature_does_not_make_an_event_new() {
    // While a secret is rolled, requests carry one signature for each; a captured one can be sent without either.
    const OLD: &str = "the-old-secret-of-the-route";
    const WHSEC_OLD: &str = "whsec_dGhlLW9sZC1zZWNyZXQtb2YtdGhlLXJvdXRl";
    let upstream = Upstream::ok().await;
    let both = |new: &str, old: &str| format!("secrets: [{{ value: \"{new}\" }}, {{ value: \"{old}\" }}]");
    let schemes = "schemes: { house: { scheme: { algorithm: hmac-sha256, key: utf8, message: \"{body}\", \
                   signature: { header: x-house, format: list, separator: \" \", encoding: hex } } } }";
    let conf = Conf::to(upstream.address)
        .top(schemes)
        .route_called("stripe", &format!("provider: stripe, {}", both(SECRET, OLD)), "")
        .route_called(
            "standard-webhooks",
            &format!(
                "provider: standard-webhooks, {}",
                both(secret_of("standard-webhooks"), WHSEC_OLD)
            ),
            "",
        )
        .route_called("house", &format!("scheme: house, {}", both(SECRET, OLD)), "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let pair = |provider: &str, old: &str| {
        let signed = |secret| Event::signed_with(provider, "1", NOW, secret);
        (signed(secret_of(provider)), signed(old))
    };
    let mut sets: Vec<[Event; 4]> = Vec::new();
    for (provider, header, separator, old) in [
        ("stripe", "stripe-signature", ",", OLD),
        ("standard-webhooks", "webhook-signature", " ", WHSEC_OLD),
    ] {
        let (new, old) = pair(provider, old);
        let old_value = old.value(header).rsplit(separator).next().unwrap();
        let old_value = if provider == "stripe" {
            old_value
        } else {
            old.value(header)
        };
        let mut with_both = new.clone();
        with_both.set(header, &format!("{}{separator}{old_value}", new.value(header)));
        let mut padded = new.clone();
        padded.set(header, &format!("{}{separator}v9,x", new.value(header)));
        sets.push([with_both, old, new, padded]);
    }
    // Our own scheme signs no id: what is remembered are the signed bytes.
    let hex = |secret| Event::signed_with("github", "1", NOW, secret).value("x-hub-signature-256")[7..].to_owned();
    let house = |value: &str| Event::of("github", "1").to("/webhooks/house").with("x-house", value);
    let (new, old) = (hex(SECRET), hex(OLD));
    let swapped = format!("{old} {new}");
    sets.push([
        house(&format!("{new} {old}")),
        house(&new),
        house(&old),
        house(&swapped),
    ]);
    for (n, set) in sets.iter().enumerate() {
        for variant in set {
            let answer = send(&gateway, variant).await;
            assert_eq!(answer.status, 200, "{}: {:?}", variant.path, variant.headers);
        }
        assert_eq!(upstream.count(), n + 1, "{}", set[0].path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_does_not_make_an_event_new() {
    // The digest of a body-only event depends on the secret: an event taken under the old one, sent again after the
    // rotation, has to be found under the new one.
    const OLD: &str = "the-old-secret-of-the-route";
    const NEXT: &str = "the-next-secret-of-the-route";
    let upstream = Upstream::ok().await;
    let conf = |secrets: &[&str]| {
        let secrets: Vec<_> = secrets.iter().map(|secret| format!("{{ value: {secret} }}")).collect();
        let verified = format!("provider: github, secrets: [{}]", secrets.join(", "));
        Conf::to(upstream.address).route_called("github", &verified, "").yaml()
    };
    let gateway = Gateway::start(&conf(&[OLD, SECRET])).await;
    let signed = |secret| Event::signed_with("github", "1", NOW, secret);
    assert_eq!(send(&gateway, &signed(OLD)).await.status, 200);
    assert_eq!(send(&gateway, &signed(SECRET)).await.status, 200);
    gateway.reload(&conf(&[SECRET]));
    assert_eq!(send(&gateway, &signed(OLD)).await.status, 401);
    assert_eq!(send(&gateway, &signed(SECRET)).await.status, 200);
    gateway.reload(&conf(&[NEXT, SECRET]));
    assert_eq!(send(&gateway, &signed(SECRET)).await.status, 200);
    assert_eq!(send(&gateway, &signed(NEXT)).await.status, 200);
    assert_eq!(upstream.count(), 1);
}
