//! An event that was taken: its repeats get the first answer for as long as it is remembered.

use std::time::Duration;

use hookward::clock::UnixMillis;

use super::{later, send};
use crate::harness::{Client, Conf, Event, Gateway, NOW, SECRET, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_of_a_taken_event_gets_the_first_status_and_goes_nowhere() {
    // A provider that lost our answer sends the event again; the customer would be charged twice.
    const STATUSES: [u16; 5] = [200, 201, 202, 204, 299];
    let upstream = Upstream::status(|n| STATUSES[n]).await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "").yaml()).await;
    for (n, status) in STATUSES.into_iter().enumerate() {
        let event = Event::of("github", &format!("{n}"));
        for _ in 0..3 {
            assert_eq!(send(&gateway, &event).await.status, status);
        }
        assert_eq!(upstream.count(), n + 1, "{status}");
    }
    let lines = gateway.lines(15).await;
    let duplicates = lines.iter().filter(|line| line["outcome"] == "duplicate");
    assert_eq!(duplicates.count(), 10);
    assert_eq!(
        gateway.metric("hookward_replays_total{result=\"done\",route=\"github\"}"),
        10.0
    );
    assert_eq!(gateway.metric("hookward_replay_entries"), 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_204_has_no_length() {
    // RFC 9110 section 8.6 forbids it, and a client that believes the header waits for a body on a shared connection.
    let upstream = Upstream::status(|_| 204).await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "").yaml()).await;
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..3 {
        client.send(&Event::of("github", "1").bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("content-length")), (204, None));
        assert_eq!(answer.header("transfer-encoding"), None);
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_remembered_for_as_long_as_the_route_says() {
    // Forgotten early, a captured request is delivered again; never forgotten, the store fills up for good.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(
        &Conf::to(upstream.address)
            .route("github", "replay: { keep: 1h }")
            .yaml(),
    )
    .await;
    let event = Event::of("github", "1");
    let timeline = [(0, 1), (1, 1), (3_598, 1), (1, 1), (5, 2), (3_595, 2)];
    for (seconds, forwarded) in timeline {
        gateway.clock.advance(Duration::from_secs(seconds));
        assert_eq!(send(&gateway, &event).await.status, 200);
        assert_eq!(upstream.count(), forwarded, "after {seconds} more seconds");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_repeat_is_fresh_when_its_event_is_forgotten() {
    // The shortest window that the configuration allows ends in the very millisecond in which a request that was
    // signed ahead of our clock stops to be fresh; whoever captured it could replay it then.
    let upstream = Upstream::ok().await;
    let stamped = ["slack", "standard-webhooks", "stripe"];
    let conf = stamped.iter().fold(Conf::to(upstream.address), |conf, provider| {
        conf.route(provider, "tolerance: 5m, replay: { keep: 10m }")
    });
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut events: Vec<Event> = stamped
        .map(|provider| Event::signed_at(provider, "1", later(300)))
        .into();
    // A slash command: no id, so its signed bytes are what is remembered.
    let command = Event {
        body: b"command=/deploy&text=now".to_vec(),
        ..Event::of("slack", "1")
    };
    events.push(command.sign("slack", "", later(300), SECRET));
    for event in &events {
        assert_eq!(send(&gateway, event).await.status, 200);
    }
    let mut elapsed = 0;
    for (at_ms, status) in [
        (1, 200),
        (300_000, 200),
        (599_999, 200),
        (600_000, 200),
        (600_001, 401),
        (900_000, 401),
    ] {
        gateway.clock.advance(Duration::from_millis(at_ms - elapsed));
        elapsed = at_ms;
        for event in &events {
            assert_eq!(
                send(&gateway, event).await.status,
                status,
                "{} at {at_ms} ms",
                event.path
            );
        }
    }
    assert_eq!(upstream.count(), events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_wall_clock_forgets_nothing() {
    // An operator or NTP sets the clock; every event of the last day could be replayed at that moment.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "").yaml()).await;
    let event = Event::of("github", "1");
    assert_eq!(send(&gateway, &event).await.status, 200);
    for step in [1_i64, -1, 300, -300, 3_600, -3_600, 86_400, -86_400] {
        gateway
            .clock
            .set_wall(UnixMillis(NOW.0.saturating_add_signed(step * 1000)));
        assert_eq!(send(&gateway, &event).await.status, 200, "{step} s");
        assert_eq!(upstream.count(), 1, "{step} s");
    }
}
