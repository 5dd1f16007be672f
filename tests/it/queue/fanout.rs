//! One event for several places, each with a state of its own; and events that must keep their order.

use std::time::Duration;

use crate::harness::{Act, Event, Folder, Gateway, NOW, Queueing, Refusing, SECRET, Upstream, bare, request};

const SECOND: Duration = Duration::from_secs(1);

/// An event with this body.
fn event(body: &str) -> Event {
    let body = body.as_bytes().to_vec();
    Event {
        body,
        ..Event::of("stripe", "x")
    }
    .sign("stripe", "x", NOW, SECRET)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_destination_gets_what_it_wants_and_waits_for_nobody() {
    // A dead mailing list would keep the invoices from the accounts.
    let folder = Folder::new();
    let (accounts, mail, dead) = (Upstream::ok().await, Upstream::ok().await, Refusing::new());
    let conf = Queueing::in_folder(&folder)
        .upstream("accounts", accounts.address, "")
        .upstream("mail", mail.address, "")
        .upstream("dead", dead.address, "")
        .fan(
            "stripe",
            "stripe",
            "destinations: [{ upstream: accounts, types: [invoice.paid], forward_path: /invoices }, \
             { upstream: mail, types: [\"customer.*\"] }, { upstream: dead, name: archive }]",
            "",
        );
    let gateway = Gateway::start(&conf.yaml()).await;
    for (n, kind) in ["invoice.paid", "customer.created", "invoice.voided"]
        .iter()
        .enumerate()
    {
        let event = event(&format!("{{\"id\":\"evt_{n}\",\"type\":\"{kind}\"}}"));
        assert_eq!(request(gateway.address, &event.bytes()).await.status, 200);
    }
    gateway.comes_to("delivered", 2).await;
    assert_eq!(accounts.seen().len(), 1);
    let seen = &accounts.seen()[0];
    assert!(seen.head.starts_with("POST /invoices HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("x-hookward-event-type"), Some("invoice.paid"));
    assert_eq!(mail.seen()[0].header("x-hookward-event-type"), Some("customer.created"));
    let page = gateway.desk("GET", "/api/events?destination=archive").await;
    assert_eq!(page["deliveries"].as_array().unwrap().len(), 3);
    let archive = dead.recovers();
    gateway.passing(SECOND, "the archive", || archive.count() >= 3).await;
    gateway.comes_to("delivered", 5).await;
    assert_eq!((accounts.count(), mail.count(), archive.count()), (1, 1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_customer_stay_in_order() {
    // "cancelled" would overtake "created" while the latter waits for its second attempt.
    let folder = Folder::new();
    let upstream = Upstream::acting(|n, _| Act::Answer(bare(if n % 3 == 0 { 500 } else { 200 }))).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "")
        .route("stripe", "stripe", "app", "order_by: customer");
    let gateway = Gateway::start(&conf.yaml()).await;
    for n in 0..30 {
        let customer = ["a", "b", "c"][n % 3];
        let event = event(&format!("{{\"id\":\"evt_{n}\",\"customer\":\"{customer}\",\"n\":{n}}}"));
        assert_eq!(request(gateway.address, &event.bytes()).await.status, 200);
    }
    let taken = || {
        let seen = upstream.seen();
        let taken = seen.iter().enumerate().filter(|(at, _)| at % 3 != 0);
        let bodies = taken.map(|(_, request)| serde_json::from_slice(&request.body).unwrap());
        bodies.collect::<Vec<serde_json::Value>>()
    };
    gateway.passing(SECOND, "every event", || taken().len() >= 30).await;
    gateway.comes_to("delivered", 30).await;
    for customer in ["a", "b", "c"] {
        let taken = taken();
        let of_one = taken.iter().filter(|event| event["customer"] == customer);
        let order: Vec<u64> = of_one.map(|event| event["n"].as_u64().unwrap()).collect();
        assert!(order.is_sorted() && order.len() == 10, "{customer}: {order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_and_one_slow_destination_among_fifty_slow_nobody_down() {
    // The whole company would wait for the backend of one team.
    let folder = Folder::new();
    let (dead, slow) = (Refusing::new(), Upstream::holding(|_| 200).await);
    let mut conf = Queueing::in_folder(&folder)
        .upstream("dead", dead.address, "")
        .upstream("slow", slow.address, "concurrency: 2")
        .route("dead", "github", "dead", "")
        .route("slow", "github", "slow", "");
    let mut others = Vec::new();
    for n in 0..48 {
        let upstream = Upstream::ok().await;
        conf = conf.upstream(&format!("u{n}"), upstream.address, "").route(
            &format!("r{n}"),
            "github",
            &format!("u{n}"),
            "",
        );
        others.push(upstream);
    }
    let gateway = Gateway::start(&conf.yaml()).await;
    let routes = ["dead".to_owned(), "slow".to_owned()].into_iter();
    let routes: Vec<String> = routes.chain((0..48).map(|n| format!("r{n}"))).collect();
    for n in 0..10 {
        for route in &routes {
            let event = Event::of("github", &n.to_string()).to(&format!("/webhooks/{route}"));
            assert_eq!(request(gateway.address, &event.bytes()).await.status, 200);
        }
    }
    // No time passes: whoever had to wait for the dead or the slow one would never get its events.
    gateway.comes_to("delivered", 480).await;
    assert!(others.iter().all(|upstream| upstream.count() == 10));
    slow.reached(2).await;
    assert_eq!(slow.count(), 2, "no more at a time than configured");
    slow.release(100);
    gateway.comes_to("delivered", 490).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_usable_order_key_waits_for_nobody() {
    // A provider leaves a member out, or sends a megabyte of it: all such events would wait behind one another.
    let folder = Folder::new();
    let upstream = Upstream::holding(|_| 200).await;
    let conf = Queueing::in_folder(&folder)
        .upstream("app", upstream.address, "concurrency: 32")
        .route("stripe", "stripe", "app", "order_by: data.customer");
    let gateway = Gateway::start(&conf.yaml()).await;
    let huge = format!("\"{}\"", "x".repeat(100_000));
    let unusable = ["null", "{}", "[1]", "true", "1.5", huge.as_str()];
    let mut bodies: Vec<String> = unusable
        .iter()
        .map(|key| format!("\"data\":{{\"customer\":{key}}}"))
        .collect();
    bodies.extend(["\"data\":7", "\"other\":1"].map(str::to_owned));
    let count = bodies.len() * 2;
    // Those that have one, as text and as a number, are in order.
    bodies.push("\"data\":{\"customer\":\"7\"}".to_owned());
    for (n, body) in bodies.iter().chain(&bodies).enumerate() {
        let event = event(&format!("{{\"id\":\"evt_{n}\",{body}}}"));
        assert_eq!(request(gateway.address, &event.bytes()).await.status, 200, "{n}");
    }
    let number = event("{\"id\":\"evt_number\",\"data\":{\"customer\":7}}");
    assert_eq!(request(gateway.address, &number.bytes()).await.status, 200);
    gateway.comes_to("leased", count as u64 + 1).await;
    assert_eq!(gateway.lying("blocked").await, 2);
    upstream.release(100);
    gateway.comes_to("delivered", count as u64 + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_order_key_leaves_what_waits_in_its_order() {
    // After a change of the configuration a customer's events overtake each other, or wait for ever.
    let folder = Folder::new();
    let upstream = Upstream::holding(|_| 200).await;
    let conf = |key: &str| {
        Queueing::in_folder(&folder)
            .upstream("app", upstream.address, "")
            .route("stripe", "stripe", "app", key)
            .yaml()
    };
    let gateway = Gateway::start(&conf("order_by: customer")).await;
    let send = async |id: &str, customer: &str, account: &str| {
        let body = format!("{{\"id\":\"{id}\",\"customer\":\"{customer}\",\"account\":\"{account}\"}}");
        assert_eq!(request(gateway.address, &event(&body).bytes()).await.status, 200);
    };
    send("evt_1", "a", "x").await;
    send("evt_2", "a", "y").await;
    gateway.comes_to("leased", 1).await;
    gateway.reload(&conf("order_by: account"));
    send("evt_3", "a", "x").await;
    send("evt_4", "b", "x").await;
    gateway.comes_to("leased", 2).await;
    assert_eq!(gateway.lying("blocked").await, 2);
    gateway.reload(&conf(""));
    send("evt_5", "a", "x").await;
    gateway.comes_to("leased", 3).await;
    upstream.release(100);
    gateway.comes_to("delivered", 5).await;
    let seen = upstream.seen();
    let at = |id: &str| {
        let id = format!("\"{id}\"");
        let has = |body: &[u8]| String::from_utf8_lossy(body).contains(&id);
        seen.iter().position(|request| has(&request.body)).unwrap()
    };
    assert!(at("evt_1") < at("evt_2") && at("evt_3") < at("evt_4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_none_goes_where_everything_goes() {
    // A sender's megabyte in place of a type fills logs and metrics, or slips past a filter by its beginning.
    let folder = Folder::new();
    let (all, some) = (Upstream::ok().await, Upstream::ok().await);
    let conf = Queueing::in_folder(&folder)
        .upstream("all", all.address, "")
        .upstream("some", some.address, "")
        .fan(
            "stripe",
            "stripe",
            "destinations: [{ upstream: all }, { upstream: some, types: [\"x*\"] }]",
            "",
        );
    let gateway = Gateway::start(&conf.yaml()).await;
    let usable = format!("\"{}\"", "x".repeat(512));
    let (long, huge) = (usable.replacen('x', "xx", 1), format!("\"{}\"", "x".repeat(500_000)));
    for (n, kind) in [usable.as_str(), &long, &huge, "7", "null", "\"\"", "{}", "\"yx\""]
        .iter()
        .enumerate()
    {
        let event = event(&format!("{{\"id\":\"evt_{n}\",\"type\":{kind}}}"));
        assert_eq!(request(gateway.address, &event.bytes()).await.status, 200, "{n}");
    }
    gateway.comes_to("delivered", 9).await;
    assert_eq!((all.count(), some.count()), (8, 1));
    let seen = all.seen();
    let longest = seen
        .iter()
        .filter_map(|request| request.header("x-hookward-event-type"));
    assert_eq!(longest.map(str::len).max(), Some(512));
}
