//! What operators see and do while the gateway runs.

use std::time::Duration;

use serde_json::json;

use crate::harness::{API_SECRET, Event, Folder, Gateway, Queueing, Refusing, Upstream, api, request, until};

const SECOND: Duration = Duration::from_secs(1);

async fn send(gateway: &Gateway, n: usize) {
    let event = Event::of("github", &n.to_string());
    assert_eq!(request(gateway.address, &event.bytes()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_the_secret_sees_or_changes_anything() {
    // Whoever reaches the admin listener could read customers' events, or purge them.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    for target in [
        "/api/events",
        "/api/queue",
        "/api/routes",
        "/api/events/1",
        "/api/nothing",
    ] {
        let (status, said) = api(gateway.admin, "GET", target, "not-the-secret-of-tests").await;
        assert_eq!((status, said), (401, json!({ "error": "unauthorized" })), "{target}");
    }
    let closed = conf
        .yaml()
        .replace(&format!("api: {{ secrets: [{{ value: {API_SECRET} }}] }}\n"), "");
    gateway.reload(&closed);
    assert_eq!(api(gateway.admin, "GET", "/api/events", API_SECRET).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_delivered_again_once() {
    // A redrive that is repeated, or that meets events that are on their way, would deliver twice.
    let folder = Folder::new();
    let upstream = Upstream::status(|n| if n < 3 { 410 } else { 200 }).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    for n in 0..3 {
        send(&gateway, n).await;
    }
    gateway.comes_to("dead", 3).await;
    let (status, said) = api(gateway.admin, "POST", "/api/events/retry", API_SECRET).await;
    assert_eq!(status, 400, "everything has to be asked for: {said}");
    let done = gateway.desk("POST", "/api/events/retry?state=dead&route=github").await;
    assert_eq!(done["changed"], 3);
    gateway.comes_to("delivered", 3).await;
    let again = gateway.desk("POST", "/api/events/retry?state=dead&route=github").await;
    assert_eq!(again["changed"], 0);
    assert_eq!(upstream.count(), 6);
    let purged = gateway.desk("POST", "/api/events/purge?route=github").await;
    assert_eq!(purged["changed"], 3);
    assert_eq!(gateway.desk("GET", "/api/events").await["deliveries"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_route_accepts_and_delivers_later() {
    // During a migration of the backend events would be lost, or delivered into the middle of it.
    let (folder, upstream) = (Folder::new(), Upstream::ok().await);
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "")
        .route("other", "github", "app", "");
    let mut gateway = Gateway::start(&conf.yaml()).await;
    gateway.desk("POST", "/api/routes/github/pause").await;
    assert_eq!(
        api(gateway.admin, "POST", "/api/routes/none/pause", API_SECRET).await.0,
        404
    );
    let routes = gateway.desk("GET", "/api/routes").await;
    let expected = json!([{ "route": "github", "paused": true }, { "route": "other", "paused": false }]);
    assert_eq!(routes["routes"], expected);
    send(&gateway, 0).await;
    let other = Event::of("github", "1").to("/webhooks/other");
    assert_eq!(request(gateway.address, &other.bytes()).await.status, 200);
    gateway.comes_to("delivered", 1).await;
    assert_eq!(gateway.lying("pending").await, 1);
    // A reload is no resume.
    gateway.reload(&conf.yaml());
    gateway.clock.advance(SECOND);
    assert_eq!(gateway.lying("pending").await, 1);
    // Nor is a restart.
    gateway.stopping().await.unwrap();
    let gateway = Gateway::start(&conf.yaml()).await;
    assert_eq!(gateway.desk("GET", "/api/routes").await["routes"], expected);
    assert_eq!((gateway.lying("pending").await, upstream.count()), (1, 1));
    gateway.desk("POST", "/api/routes/github/resume").await;
    gateway.comes_to("delivered", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_event_is_not_delivered() {
    // An operator who stops an event would see it delivered all the same.
    let (folder, refusing) = (Folder::new(), Refusing::new());
    let conf = Queueing::in_folder(&folder)
        .upstream("app", refusing.address, "")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    send(&gateway, 0).await;
    send(&gateway, 1).await;
    let page = gateway.listed("state=waiting", 2).await;
    let id = &page["deliveries"][0]["id"];
    assert_eq!(
        gateway.desk("POST", &format!("/api/events/{id}/cancel")).await["changed"],
        1
    );
    let upstream = refusing.recovers();
    gateway
        .passing(SECOND, "the other event", || upstream.count() > 0)
        .await;
    gateway.comes_to("delivered", 1).await;
    gateway.clock.advance(Duration::from_secs(3600));
    assert_eq!((gateway.lying("cancelled").await, upstream.count()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_what_waits_and_why() {
    // Nobody would be woken by a queue that grows through the night.
    let (folder, refusing) = (Folder::new(), Refusing::new());
    let conf = Queueing::in_folder(&folder)
        .upstream("app", refusing.address, "breaker_failures: 1, breaker_pause: 10s")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    send(&gateway, 0).await;
    gateway.comes_to("waiting", 1).await;
    gateway.clock.advance(Duration::from_secs(7));
    let scrape = || async {
        let answer = request(gateway.admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
        answer.text().to_owned()
    };
    let text = scrape().await;
    let lane = "destination=\"app\",route=\"github\",state=\"waiting\"";
    for line in [
        format!("hookward_queue_deliveries{{{lane}}} 1"),
        format!("hookward_queue_oldest_seconds{{{lane}}} 7"),
        "hookward_breaker_state{upstream=\"app\"} 2".to_owned(),
        "hookward_route_paused{route=\"github\"} 0".to_owned(),
        "hookward_queue_writable 1".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    until("a commit to be counted", || {
        gateway.metric("hookward_queue_commit_seconds_count") > 0.0
    })
    .await;
    let outcome = "hookward_requests_total{outcome=\"queued\",provider=\"github\",reason=\"-\",route=\"github\"}";
    assert_eq!(gateway.metric(outcome), 1.0);
}
