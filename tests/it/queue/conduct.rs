//! What providers and backends are shown: answers, repeats, signatures.

use std::time::Duration;

use hookward::clock::UnixMillis;
use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::signature::{Head, KeyedSecret, Verifier, VerifierOptions};

use crate::harness::{Event, Folder, Gateway, Queueing, Recorded, Upstream, request};

/// What test gateways sign with.
const RESIGN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Whether the three headers prove the body at this time.
fn is_signed(request: &Recorded, now: UnixMillis) -> bool {
    let keyed = KeyedSecret {
        id: "a".into(),
        secret: Secret::new(RESIGN).unwrap(),
        until: None,
    };
    let scheme = builtin().find("standard-webhooks").unwrap().scheme.clone();
    let verifier = Verifier::new(scheme, vec![keyed], VerifierOptions::default()).unwrap();
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        assert_eq!(request.count(name), 1, "{name}");
        headers.insert(name, request.header(name).unwrap().parse().unwrap());
    }
    let head = Head {
        method: &http::Method::POST,
        target: "/",
        headers: &headers,
    };
    let mut check = verifier.begin(head, now);
    check.update(&request.body);
    check.finish(&request.body).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_and_not_queued_again() {
    // A provider that missed our answer sends the event again; the backend would get it twice.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("stripe", "stripe", "app", "");
    let mut gateway = Gateway::start(&conf.yaml()).await;
    for _ in 0..3 {
        let answer = request(gateway.address, &Event::of("stripe", "evt_1").bytes()).await;
        assert_eq!((answer.status, answer.text()), (200, ""));
    }
    gateway.comes_to("delivered", 1).await;
    gateway.stopping().await.unwrap();
    let gateway = Gateway::start(&conf.yaml()).await;
    assert_eq!(
        request(gateway.address, &Event::of("stripe", "evt_1").bytes())
            .await
            .status,
        200
    );
    assert_eq!(
        request(gateway.address, &Event::of("stripe", "evt_2").bytes())
            .await
            .status,
        200
    );
    gateway.comes_to("delivered", 2).await;
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_signed_afresh_under_one_id() {
    // A backend that checks the time would refuse every attempt after the first five minutes.
    let folder = Folder::new();
    let upstream = Upstream::status(|n| if n == 0 { 500 } else { 200 }).await;
    let resign = format!("resign: {{ secrets: [{{ value: {RESIGN} }}] }}, retry: {{ schedule: [20m] }}");
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", &resign);
    let gateway = Gateway::start(&conf.yaml()).await;
    let event = Event::of("github", "0")
        .with("webhook-id", "forged")
        .with("Webhook_Signature", "v1,x");
    assert_eq!(request(gateway.address, &event.bytes()).await.status, 200);
    gateway.comes_to("waiting", 1).await;
    let first_at = hookward::clock::UnixMillis(crate::harness::NOW.0);
    gateway
        .passing(Duration::from_secs(1), "the second attempt", || upstream.count() == 2)
        .await;
    let seen = upstream.seen();
    assert!(is_signed(&seen[0], first_at));
    let stamp: u64 = seen[1].header("webhook-timestamp").unwrap().parse().unwrap();
    assert!(is_signed(&seen[1], UnixMillis::from_seconds(stamp)));
    assert!(stamp > first_at.seconds());
    assert_eq!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
    assert!(seen.iter().all(|request| request.count("webhook_signature") == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_events_are_signed_too() {
    // A backend that checks one scheme for all would have to know which routes queue.
    let upstream = Upstream::ok().await;
    let extra = format!("resign: {{ secrets: [{{ value: {RESIGN} }}] }}");
    let yaml = crate::harness::route_yaml(upstream.address, &extra);
    let gateway = Gateway::start(&yaml).await;
    for _ in 0..2 {
        request(gateway.address, &Event::of("github", "1").bytes()).await;
    }
    assert_eq!(
        request(gateway.address, &Event::of("github", "2").bytes()).await.status,
        200
    );
    let seen = upstream.seen();
    assert!(seen.iter().all(|request| is_signed(request, crate::harness::NOW)));
    assert_ne!(seen[0].header("webhook-id"), seen[1].header("webhook-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgery_is_not_queued() {
    // Anybody could fill the disk.
    let (folder, upstream) = (Folder::new(), Upstream::unreachable().await);
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut forged = Event::of("github", "0");
    forged.body.push(b' ');
    assert_eq!(request(gateway.address, &forged.bytes()).await.status, 401);
    let queue = gateway.desk("GET", "/api/queue").await;
    let lanes = queue["lanes"].as_array().unwrap();
    assert!(lanes.iter().all(|lane| lane["deliveries"] == 0), "{queue}");
}
