//! Events under keys that the provider publishes: proven by a fetched certificate, and by nothing that a message says
//! about where to fetch from.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Answer, Client, Conf, Event, Gateway, Sns, TOPIC, Upstream, sns_event, sns_message, unsigned_sns_event,
};

const URLS: &str = include_str!("../published/urls.txt");

fn conf(upstream: &Upstream, keys: &str) -> Conf {
    Sns::route(Conf::to(upstream.address), keys)
}

struct Street {
    sns: Sns,
    upstream: Upstream,
    gateway: Gateway,
}

impl Street {
    async fn with(keys: &str) -> Street {
        let (sns, upstream) = (Sns::start().await, Upstream::ok().await);
        let gateway = Gateway::start_in(sns.world(), &conf(&upstream, keys).yaml()).await;
        Street { sns, upstream, gateway }
    }

    async fn send(&self, event: &Event) -> Answer {
        let mut client = Client::connect(self.gateway.address).await;
        client.send(&event.bytes()).await;
        client.answer().await
    }

    fn fetched(&self, result: &str) -> f64 {
        self.gateway
            .metric(&format!("hookward_key_fetches_total{{result=\"{result}\"}}"))
    }
}

fn notification(id: &str) -> Event {
    sns_event(sns_message("Notification", id))
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_proven_by_a_certificate_that_is_fetched_once() {
    // Without it SNS is a provider that only the backend can check; with a fetch for each message AWS is our upstream.
    let street = Street::with("").await;
    for id in 0..20 {
        let event = notification(&format!("id-{id}"));
        assert_eq!(street.send(&event).await.status, 200);
    }
    assert_eq!(street.sns.asked(), ["/SimpleNotificationService-abc.pem"]);
    assert_eq!(street.fetched("ok"), 1.0);
    let seen = street.upstream.seen();
    assert_eq!(seen.len(), 20);
    assert_eq!(seen[0].header("x-hookward-event-id"), Some("id-0"));
    assert_eq!(seen[0].header("x-hookward-verified"), Some("authenticated"));
    assert_eq!(seen[0].body, notification("id-0").body);
    assert_eq!(street.send(&notification("id-0")).await.status, 200);
    assert_eq!(street.upstream.count(), 20, "a repeat is recognised by its signed id");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_address_in_a_message_makes_the_gateway_call_anybody() {
    // Every one of these addresses has once made a verifier fetch a forger's certificate, or would make ours do so.
    let street = Street::with("").await;
    let mut client = Client::connect(street.gateway.address).await;
    let mut tried = 0;
    for line in URLS.lines().filter(|line| line.starts_with('"')) {
        let url: Value = serde_json::from_str(line).unwrap();
        for kind in ["Notification", "SubscriptionConfirmation"] {
            let mut message = sns_message(kind, "id");
            message["SigningCertURL"] = url.clone();
            client.send(&sns_event(message).bytes()).await;
            assert_eq!(client.answer().await.status, 401, "{url}");
            tried += 1;
        }
    }
    assert!(tried >= 600, "{tried}");
    assert_eq!(street.sns.contacts(), (0, 0));
    assert_eq!(street.upstream.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_that_name_the_right_address_share_one_fetch() {
    // A flood of forgeries must not become a flood in our name; nor may it teach where it failed.
    let street = Street::with("").await;
    let mut client = Client::connect(street.gateway.address).await;
    let mut message = sns_message("Notification", "id");
    message["Signature"] = json!("AAAA");
    let forged = unsigned_sns_event(&message);
    for _ in 0..2000 {
        client.send(&forged.bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (401, "unauthorized\n"));
    }
    assert_eq!(street.sns.contacts(), (1, 1));
    assert_eq!(street.send(&notification("id")).await.status, 200);
    assert_eq!(street.sns.contacts(), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_refused_without_a_key_is() {
    // Whoever can make us fetch with a message that could never pass has a lever on somebody else's server.
    let street = Street::with("").await;
    let changed = |name: &str, value: &str| {
        let mut message = sns_message("Notification", "id");
        message[name] = json!(value);
        sns_event(message)
    };
    let mut unsigned = sns_message("Notification", "id");
    let cases = [
        (unsigned_sns_event(&unsigned), "missing"),
        (unsigned_sns_event(&json!({})), "malformed"),
        (changed("Timestamp", "2023-11-14T20:13:19.000Z"), "stale"),
        (changed("Timestamp", "2023-11-15T00:13:21.000Z"), "stale"),
        (
            changed("TopicArn", "arn:aws:sns:us-west-2:123456789012:Other"),
            "unknown_key",
        ),
        (changed("SignatureVersion", "3"), "malformed"),
        (changed("Type", "Other"), "malformed"),
    ];
    for (number, (event, reason)) in cases.into_iter().enumerate() {
        assert_eq!(street.send(&event).await.status, 401, "{reason}");
        let lines = street.gateway.lines(number + 1).await;
        assert_eq!(lines[number]["reason"], reason);
    }
    unsigned["Signature"] = json!("?");
    assert_eq!(street.send(&unsigned_sns_event(&unsigned)).await.status, 401);
    assert_eq!(street.sns.contacts(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_key_is_out_of_reach_the_provider_is_asked_to_come_back() {
    // SNS gives an event up on a 401 and repeats it on a 503: an outage of the certificate must not lose events.
    let street = Street::with("").await;
    street.sns.answers(503);
    let event = notification("id");
    let answer = street.send(&event).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(street.gateway.lines(1).await[0]["reason"], "key_down");
    street.sns.answers(200);
    assert_eq!(
        street.send(&event).await.status,
        503,
        "a server that fails is left alone for a moment"
    );
    street.gateway.clock.advance(Duration::from_secs(5));
    assert_eq!(street.send(&event).await.status, 200);
    assert_eq!((street.upstream.count(), street.sns.contacts().1), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_published_proves_nothing() {
    // Anything but "no" here is an invitation to try names.
    let street = Street::with("").await;
    let mut message = sns_message("Notification", "id");
    message["SigningCertURL"] = json!("https://sns.us-west-2.amazonaws.com/SimpleNotificationService-gone.pem");
    let answer = street.send(&sns_event(message)).await;
    assert_eq!((answer.status, answer.text()), (401, "unauthorized\n"));
    assert_eq!(street.gateway.lines(1).await[0]["reason"], "unknown_key");
    assert_eq!(street.fetched("absent"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_confirmed_where_the_route_says_so() {
    // Subscribed by hand at three in the morning, or not at all; and never at an address out of the message.
    let street = Street::with("confirm: true").await;
    let question = sns_event(sns_message("SubscriptionConfirmation", "q"));
    let answer = street.send(&question).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let confirmation = format!("/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc123");
    assert_eq!(
        street.sns.asked(),
        ["/SimpleNotificationService-abc.pem", &confirmation]
    );
    assert_eq!(street.upstream.count(), 0);
    assert_eq!(street.gateway.lines(1).await[0]["outcome"], "replied");

    let unsubscribed = sns_event(sns_message("UnsubscribeConfirmation", "u"));
    assert_eq!(street.send(&unsubscribed).await.status, 200);
    assert_eq!(street.upstream.count(), 1, "that is news for the upstream");
    let mut forged = sns_message("SubscriptionConfirmation", "f");
    forged["Signature"] = json!("AAAA");
    assert_eq!(street.send(&unsigned_sns_event(&forged)).await.status, 401);
    assert_eq!(street.sns.asked().len(), 2);

    street.sns.answers(500);
    let answer = street
        .send(&sns_event(sns_message("SubscriptionConfirmation", "r")))
        .await;
    assert_eq!((answer.status, answer.text()), (503, "confirm_down\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_the_upstreams_business_otherwise() {
    // Who has not asked for it must not find himself subscribed.
    let street = Street::with("").await;
    let question = sns_event(sns_message("SubscriptionConfirmation", "q"));
    assert_eq!(street.send(&question).await.status, 200);
    assert_eq!(street.upstream.seen()[0].body, question.body);
    assert_eq!(street.sns.asked(), ["/SimpleNotificationService-abc.pem"]);
}

#[tokio::test]
async fn consent_that_nobody_asks_for_stops_the_start() {
    // An operator who writes it believes that something is confirmed.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address);
    assert!(
        Gateway::try_start(&conf.clone().route("github", "").yaml())
            .await
            .is_some()
    );
    assert!(
        Gateway::try_start(&conf.route("github", "confirm: true").yaml())
            .await
            .is_none()
    );
}
