//! The backend is away, comes back, says no, or wants a pause.

use std::time::Duration;

use hookward::clock::UnixMillis;

use crate::harness::{
    Act, Client, Event, Folder, Gateway, NOW, Queueing, Refusing, SECRET, Upstream, amount, bare, request,
};

const SECOND: Duration = Duration::from_secs(1);

async fn send(gateway: &Gateway, event: &Event) -> u16 {
    request(gateway.address, &event.bytes()).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_was_away_gets_everything_exactly_as_sent() {
    // An order that was paid during a deployment would never be shipped.
    let (folder, refusing) = (Folder::new(), Refusing::new());
    let conf = Queueing::in_folder(&folder)
        .upstream("app", refusing.address, "breaker_failures: 2, breaker_pause: 10s")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let events: Vec<Event> = (0..20).map(|n| Event::of("github", &n.to_string())).collect();
    for event in &events {
        let answer = request(gateway.address, &event.bytes()).await;
        assert_eq!((answer.status, answer.text()), (200, ""));
    }
    let upstream = refusing.recovers();
    gateway
        .passing(SECOND, "every event to arrive", || upstream.count() >= 20)
        .await;
    gateway.comes_to("delivered", 20).await;
    let mut seen = upstream.seen();
    assert_eq!(seen.len(), 20, "nothing twice");
    for event in &events {
        let at = seen.iter().position(|request| request.body == event.body).unwrap();
        let request = seen.swap_remove(at);
        for (name, value) in &event.headers {
            assert_eq!(request.header(name), Some(value.as_str()), "{name}");
        }
        assert_eq!(request.header("x-hookward-route"), Some("github"));
        assert_eq!(request.header("x-hookward-verified"), Some("verified"));
        assert!(request.header("x-hookward-event-id").unwrap().starts_with("queue-"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_numbered_and_the_event_keeps_its_id() {
    // A backend that cannot tell a repeat from a new event books it twice.
    let folder = Folder::new();
    let upstream = Upstream::status(|n| if n < 3 { 500 } else { 200 }).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("stripe", "stripe", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    assert_eq!(send(&gateway, &Event::of("stripe", "evt_1")).await, 200);
    gateway
        .passing(SECOND, "the fourth attempt", || upstream.count() == 4)
        .await;
    gateway.comes_to("delivered", 1).await;
    let seen = upstream.seen();
    let numbers: Vec<_> = seen
        .iter()
        .map(|request| request.header("x-hookward-attempt"))
        .collect();
    assert_eq!(numbers, [Some("1"), Some("2"), Some("3"), Some("4")]);
    let mut ids: Vec<_> = seen
        .iter()
        .map(|request| request.header("x-hookward-event-id"))
        .collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let outcome = |outcome: &str| {
        format!("hookward_delivery_attempts_total{{destination=\"app\",outcome=\"{outcome}\",route=\"stripe\"}}")
    };
    assert_eq!(gateway.metric(&outcome("retried")), 3.0);
    assert_eq!(gateway.metric(&outcome("delivered")), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_answer_ends_an_event_at_once() {
    // An event that its backend will never take would be sent for days.
    let folder = Folder::new();
    let upstream = Upstream::status(|n| if n == 0 { 410 } else { 422 }).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "concurrency: 1")
        .route("github", "github", "app", "retry: { final_statuses: [422] }");
    let gateway = Gateway::start(&conf.yaml()).await;
    for n in 0..2 {
        assert_eq!(send(&gateway, &Event::of("github", &n.to_string())).await, 200);
    }
    let page = gateway.listed("state=dead", 2).await;
    assert_eq!(upstream.count(), 2);
    assert_eq!(page["deliveries"][0]["attempts"], 1);
    let shown = gateway
        .desk("GET", &format!("/api/events/{}?body=true", page["deliveries"][0]["id"]))
        .await;
    let attempt = &shown["deliveries"][0]["history"][0];
    assert_eq!(attempt["error"], "the answer 422 is final");
    assert_eq!(attempt["status"], 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_pause_gets_it() {
    // A backend that says it is overloaded would be asked again within the second, by every event.
    let folder = Folder::new();
    let upstream = Upstream::answering(|n, _| match n {
        0 => b"HTTP/1.1 429 X\r\nRetry-After: 100\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => bare(200),
    })
    .await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "retry: { schedule: [1s] }");
    let gateway = Gateway::start(&conf.yaml()).await;
    assert_eq!(send(&gateway, &Event::of("github", "0")).await, 200);
    gateway.comes_to("waiting", 1).await;
    // A second event does not go either: the pause is the upstream's.
    assert_eq!(send(&gateway, &Event::of("github", "1")).await, 200);
    for _ in 0..99 {
        gateway.clock.advance(SECOND);
        tokio::task::yield_now().await;
    }
    assert_eq!(gateway.lying("delivered").await, 0);
    assert_eq!(upstream.count(), 1);
    gateway
        .passing(Duration::from_millis(500), "both events", || upstream.count() == 3)
        .await;
    gateway.comes_to("delivered", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_fails_for_ever_is_kept_as_a_dead_letter() {
    // It would be tried until the end of days, or forgotten.
    let folder = Folder::new();
    let upstream = Upstream::status(|_| 500).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "retry: { schedule: [1s, 2s, 4s] }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let event = Event::of("github", "0");
    assert_eq!(send(&gateway, &event).await, 200);
    gateway.passing(SECOND, "four attempts", || upstream.count() == 4).await;
    gateway.comes_to("dead", 1).await;
    gateway.clock.advance(Duration::from_secs(30 * 24 * 3600));
    let page = gateway.listed("state=dead", 1).await;
    let shown = gateway
        .desk("GET", &format!("/api/events/{}?body=true", page["deliveries"][0]["id"]))
        .await;
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD
        .decode(shown["body_base64"].as_str().unwrap())
        .unwrap();
    assert_eq!(body, event.body);
    assert_eq!(shown["deliveries"][0]["history"].as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_the_rate_is_held() {
    // The backend that has just come up would be broken again by everything that waited for it.
    let (folder, refusing) = (Folder::new(), Refusing::new());
    let conf = Queueing::in_folder(&folder)
        .upstream(
            "app",
            refusing.address,
            "rate: 10/s, breaker_failures: 1, breaker_pause: 5s",
        )
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut client = Client::connect(gateway.address).await;
    for n in 0..200 {
        client.send(&Event::of("github", &n.to_string()).bytes()).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let upstream = refusing.recovers();
    gateway
        .passing(SECOND, "the first event", || upstream.count() > 0)
        .await;
    let before = upstream.count();
    for _ in 0..50 {
        gateway.clock.advance(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Ten a second for five seconds, and the one that was under way when we looked.
    assert!(
        upstream.count() <= before + 51,
        "{} in five seconds",
        upstream.count() - before
    );
    gateway
        .passing(Duration::from_millis(100), "every event", || upstream.count() >= 200)
        .await;
    gateway.comes_to("delivered", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schedule_survives_a_restart() {
    // A restart would send everything that waits at once, or never again.
    let folder = Folder::new();
    let upstream = Upstream::status(|n| if n == 0 { 500 } else { 200 }).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "retry: { schedule: [20m] }");
    let mut gateway = Gateway::start(&conf.yaml()).await;
    let event = Event::of("github", "0");
    assert_eq!(send(&gateway, &event).await, 200);
    gateway.listed("state=waiting", 1).await;
    let due = |page: &serde_json::Value| page["deliveries"][0]["next_at"].as_str().unwrap().to_owned();
    let before = due(&gateway.desk("GET", "/api/events").await);
    gateway.stopping().await.unwrap();
    let gateway = Gateway::start(&conf.yaml()).await;
    assert_eq!(due(&gateway.desk("GET", "/api/events").await), before);
    assert_eq!(upstream.count(), 1);
    // The provider's repeat of an event that was answered is known, too.
    assert_eq!(send(&gateway, &event).await, 200);
    gateway
        .passing(SECOND, "the second attempt", || upstream.count() == 2)
        .await;
    gateway.comes_to("delivered", 1).await;
    assert_eq!(upstream.seen()[1].header("x-hookward-attempt"), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_wall_clock_delays_nothing() {
    // A machine whose clock is set back by an hour would keep every retry for an hour.
    let folder = Folder::new();
    let upstream = Upstream::status(|n| if n == 0 { 500 } else { 200 }).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("github", "github", "app", "retry: { schedule: [1s] }");
    let gateway = Gateway::start(&conf.yaml()).await;
    assert_eq!(send(&gateway, &Event::of("github", "0")).await, 200);
    gateway.listed("state=waiting", 1).await;
    gateway.clock.set_wall(UnixMillis(NOW.0 - 3_600_000));
    gateway.clock.advance(SECOND);
    gateway.comes_to("delivered", 1).await;
    assert_eq!(upstream.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn poisonous_events_block_nobody() {
    // A hundred events that make their backend stumble would stop the deliveries of everybody else.
    let folder = Folder::new();
    let upstream = Upstream::answering(|_, request| match request.body.ends_with(b"poison") {
        true => bare(500),
        false => bare(200),
    })
    .await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "concurrency: 2, breaker_failures: 1")
        .route("github", "github", "app", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    for n in 0..amount("HOOKWARD_POISONOUS", 100) {
        let mut poison = Event::of("github", &n.to_string());
        poison.body.extend_from_slice(b"poison");
        assert_eq!(send(&gateway, &poison.sign("github", "", NOW, SECRET)).await, 200);
    }
    assert_eq!(send(&gateway, &Event::of("github", "good")).await, 200);
    gateway.comes_to("delivered", 1).await;
    assert_eq!(gateway.lying("dead").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_at_the_end_is_finished_or_comes_again() {
    // A deployment of the gateway would lose what its backend had not answered yet, or deliver all of it twice.
    let folder = Folder::new();
    let upstream = Upstream::acting(|n, _| {
        if n < 2 {
            Act::Hold(bare(200))
        } else {
            Act::Answer(bare(200))
        }
    })
    .await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "concurrency: 2")
        .route("github", "github", "app", "");
    let yaml = format!("drain: 500ms\n{}", conf.yaml());
    let mut gateway = Gateway::start(&yaml).await;
    for n in 0..3 {
        assert_eq!(send(&gateway, &Event::of("github", &n.to_string())).await, 200);
    }
    upstream.reached(2).await;
    let stopping = gateway.stopping();
    // One is answered in time, one is not, one was never tried.
    upstream.release(1);
    stopping.await.unwrap();
    let gateway = Gateway::start(&yaml).await;
    gateway.comes_to("delivered", 3).await;
    assert_eq!(upstream.count(), 4);
    let seen = upstream.seen();
    let mut attempts: Vec<_> = seen
        .iter()
        .map(|request| request.header("x-hookward-attempt").unwrap())
        .collect();
    attempts.sort_unstable();
    assert_eq!(attempts, ["1", "1", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_moves_what_waits_and_forgets_nothing() {
    // A backend that moved would never get what was accepted before; a destination that is gone for a day would lose it.
    let folder = Folder::new();
    let (old, new) = (Refusing::new(), Upstream::ok().await);
    let conf = |upstream| Queueing::in_folder(&folder).upstream("app", upstream, "breaker_failures: 1");
    let route = |conf: Queueing| conf.route("github", "github", "app", "");
    let gateway = Gateway::start(&route(conf(old.address)).yaml()).await;
    assert_eq!(send(&gateway, &Event::of("github", "0")).await, 200);
    gateway.listed("state=waiting", 1).await;
    let without = conf(old.address).fan("other", "github", "upstream: app", "");
    gateway.reload(&without.yaml());
    gateway.clock.advance(Duration::from_secs(60));
    assert_eq!(
        gateway.listed("route=github", 1).await["deliveries"][0]["state"],
        "waiting"
    );
    gateway.reload(&route(conf(new.address)).yaml());
    gateway.passing(SECOND, "the event", || new.count() == 1).await;
    gateway.comes_to("delivered", 1).await;
}
