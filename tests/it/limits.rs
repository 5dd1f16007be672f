//! Limits: what anybody may take before proof, what a provider may take after it, and that everything is given back.

use std::time::Duration;

use crate::harness::{Act, Answer, Client, Conf, Event, Gateway, NOW, SECRET, Upstream, bare, request, until};

const GUESSED: &str = "guessed-by-a-stranger";

async fn send(gateway: &Gateway, event: &Event) -> Answer {
    request(gateway.address, &event.bytes()).await
}

fn event(id: impl std::fmt::Display) -> Event {
    Event::of("github", &id.to_string())
}

fn forged(id: impl std::fmt::Display) -> Event {
    Event::signed_with("github", &id.to_string(), NOW, GUESSED)
}

fn in_flight(gateway: &Gateway) -> f64 {
    gateway.metric("hookward_in_flight{route=\"github\"}")
}

fn buffered(gateway: &Gateway) -> f64 {
    gateway.metric("hookward_buffered_bytes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_its_rate_is_refused_before_its_body() {
    // Otherwise whoever knocks too often still makes us read, and hash, whatever he likes.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address)
        .limits("client_rate: 6/m, client_burst: 3")
        .route("github", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    for n in 0..3 {
        assert_eq!(send(&gateway, &event(n)).await.status, 200);
    }
    let mut client = Client::connect(gateway.address).await;
    client.send(&event(3).head()).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (429, "client_rate\n"));
    assert_eq!(answer.header("retry-after"), Some("10"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"client_rate\";q=6;w=60"));
    assert_eq!(answer.header("ratelimit"), Some("\"client_rate\";r=0;t=10"));
    let lines = gateway.lines(4).await;
    let refused = lines.iter().find(|line| line["reason"] == "client_rate").unwrap();
    assert_eq!(refused["bytes_in"], 0);
    // The body is read away, never taken for the next request.
    gateway.clock.advance(Duration::from_secs(10));
    client.send(&event(3).body).await;
    client.send(&event(3).bytes()).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(send(&gateway, &event(4)).await.status, 429, "one for each ten seconds");
    assert_eq!(upstream.count(), 4);
    gateway.idle().await;
    let hits = gateway.metric("hookward_limit_hits_total{limit=\"client_rate\",route=\"github\"}");
    assert_eq!(hits, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_have_budgets_of_their_own() {
    // One noisy address must not silence the provider.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address)
        .limits("client_rate: 1/s, client_burst: 5")
        .route("github", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    for n in 0..20 {
        let expected = if n < 5 { 401 } else { 429 };
        assert_eq!(send(&gateway, &forged(n)).await.status, expected, "{n}");
    }
    for n in 0..5 {
        let mut provider = Client::connect_from("127.0.0.2", gateway.address).await;
        provider.send(&event(n).bytes()).await;
        assert_eq!(provider.answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_choose_its_address() {
    // A limit that is keyed by a header that anybody writes is no limit.
    let upstream = Upstream::unreachable().await;
    let conf = Conf::to(upstream.address)
        .limits("client_rate: 1/s, client_burst: 5")
        .top("client: { trusted_proxies: [127.0.0.2, 10.0.0.0/8] }")
        .route("github", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let names = [
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "X_Forwarded_For",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Client-IP",
    ];
    let mut admitted = 0;
    for n in 0..70 {
        let name = names[n % names.len()];
        let value = if name == "Forwarded" {
            format!("for=192.0.2.{n}")
        } else {
            format!("192.0.2.{n}, 10.0.0.1")
        };
        let answer = send(&gateway, &forged(n).with(name, &value)).await;
        admitted += usize::from(answer.status == 401);
    }
    assert_eq!(admitted, 5);
    let lines = gateway.lines(70).await;
    assert!(lines.iter().all(|line| line["client"] == "127.0.0.1"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_speaks_for_its_clients() {
    // Read from the left, the list is whatever the client wrote; read too far, a proxy of ours is taken for a client.
    let upstream = Upstream::unreachable().await;
    let conf = Conf::to(upstream.address)
        .top("client: { trusted_proxies: [127.0.0.1, 10.0.0.0/8, 2001:db8:ffff::/48] }")
        .route("github", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let proxy = "127.0.0.1";
    let chains: [(&[&str], &str); 26] = [
        (&[], proxy),
        (&["192.0.2.1"], "192.0.2.1"),
        (&["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        (&["10.0.0.1, 192.0.2.1"], "192.0.2.1"),
        (&["127.0.0.1, 192.0.2.1"], "192.0.2.1"),
        (&["192.0.2.1, 10.0.0.7"], "192.0.2.1"),
        (&["192.0.2.1,10.0.0.7,10.200.1.1"], "192.0.2.1"),
        (&["203.0.113.9, 192.0.2.1, 10.1.2.3, 127.0.0.1"], "192.0.2.1"),
        (&["192.0.2.1 ,\t10.0.0.7"], "192.0.2.1"),
        (&["203.0.113.9", "192.0.2.1"], "192.0.2.1"),
        (&["203.0.113.9, 192.0.2.1", "10.0.0.1"], "192.0.2.1"),
        (&["192.0.2.1", "10.0.0.1, 10.0.0.2", "10.0.0.3"], "192.0.2.1"),
        (&["::ffff:192.0.2.1"], "192.0.2.1"),
        (&["192.0.2.1, ::ffff:10.0.0.7"], "192.0.2.1"),
        (&["2001:db8::1"], "2001:db8::1"),
        (&["2001:db8::1, 2001:db8:ffff::9"], "2001:db8::1"),
        // Nobody but proxies, or unreadable before the first stranger: the proxy itself is the client.
        (&["10.0.0.7"], proxy),
        (&["10.0.0.7, 127.0.0.1"], proxy),
        (&[""], proxy),
        (&["192.0.2.1,"], proxy),
        (&["192.0.2.1, unknown"], proxy),
        (&["192.0.2.1, 10.0.0.07"], proxy),
        (&["192.0.2.1", ""], proxy),
        (&["192.0.2.1:443"], proxy),
        (&["0x7f.1"], proxy),
        (&["for=192.0.2.1"], proxy),
    ];
    for (n, (lines, client)) in chains.into_iter().enumerate() {
        let request = lines
            .iter()
            .fold(forged(n), |event, line| event.with("X-Forwarded-For", line));
        assert_eq!(send(&gateway, &request).await.status, 401);
        assert_eq!(gateway.lines(n + 1).await[n]["client"], client, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_behind_a_trusted_proxy_are_limited_one_by_one() {
    // Limited as one, all customers of a load balancer share 100 requests a second.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address)
        .limits("client_rate: 1/s, client_burst: 2")
        .top("client: { trusted_proxies: [127.0.0.1] }")
        .route("github", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1"] {
        for n in 0..4 {
            let request = event(format!("{client}-{n}")).with("X-Forwarded-For", &format!("203.0.113.{n}, {client}"));
            assert_eq!(
                send(&gateway, &request).await.status,
                if n < 2 { 200 } else { 429 },
                "{client} {n}"
            );
        }
    }
    // A neighbour in the same /64 is the same subscriber, in the next one another.
    for (client, status) in [("2001:db8:0:1:ffff::9", 429), ("2001:db8:0:2::1", 200)] {
        assert_eq!(
            send(&gateway, &event(client).with("X-Forwarded-For", client))
                .await
                .status,
            status,
            "{client}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_do_not_spend_the_budget_of_a_route() {
    // Who can have the provider's own events refused by sending rubbish needs no secret at all.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address).route("github", "limits: { rate: 30/m, burst: 3 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    for n in 0..100 {
        assert_eq!(send(&gateway, &forged(n)).await.status, 401);
    }
    for n in 0..3 {
        assert_eq!(send(&gateway, &event(n)).await.status, 200);
    }
    let answer = send(&gateway, &event(3)).await;
    assert_eq!((answer.status, answer.text()), (429, "route_rate\n"));
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.header("ratelimit-policy"), Some("\"route_rate\";q=30;w=60"));
    assert_eq!(answer.header("ratelimit"), Some("\"route_rate\";r=0;t=2"));
    // A forger learns nothing about the budget, spent or not.
    assert_eq!(send(&gateway, &forged(3)).await.status, 401);
    gateway.clock.advance(Duration::from_secs(2));
    assert_eq!(send(&gateway, &event(3)).await.status, 200);
    assert_eq!((upstream.count(), gateway.metric("hookward_replay_entries")), (4, 4.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_under_overload_gets_exactly_its_rate() {
    // An operator sizes the backend by this number.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address).route("github", "limits: { rate: 5/s, burst: 10 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut admitted = 0;
    for n in 0..500 {
        // The clock may go on just while the gateway looks how far it is behind, and who was refused then is not heard on
        // the same connection until the clock has gone on for seconds.
        let mut client = Client::connect(gateway.address).await;
        client.send(&event(n).bytes()).await;
        admitted += usize::from(client.answer().await.status == 200);
        gateway.clock.advance(Duration::from_millis(20));
    }
    // Ten at once, and five for each of the ten seconds up to the last request.
    assert_eq!(admitted, 10 + 49);
    assert_eq!(upstream.count(), admitted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_route_refuses_and_the_next_one_does_not() {
    // A slow backend must not pile up requests without end, nor take the other routes with it.
    let upstream = Upstream::holding(|_| 200).await;
    let conf = Conf::to(upstream.address)
        .route("github", "limits: { in_flight: 2 }")
        .route("shopify", "");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut clients = [
        Client::connect(gateway.address).await,
        Client::connect(gateway.address).await,
    ];
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&event(n).bytes()).await;
        upstream.reached(n + 1).await;
    }
    let mut third = Client::connect(gateway.address).await;
    third.send(&event(2).head()).await;
    let answer = third.answer().await;
    assert_eq!((answer.status, answer.text()), (503, "busy\n"), "before its body");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let mut other = Client::connect(gateway.address).await;
    other.send(&Event::of("shopify", "1").bytes()).await;
    upstream.reached(3).await;
    upstream.release(4);
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert_eq!(other.answer().await.status, 200);
    until("the places to be given back", || in_flight(&gateway) == 0.0).await;
    assert_eq!(send(&gateway, &event(2)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_memory_are_bounded_over_all_routes() {
    // A hundred slow uploads, each within its own bound, are what takes a small machine down.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address)
        .limits("client_rate: 100000/s, client_burst: 100000, memory: 64KiB")
        .route("github", "limits: { body: 64KiB }")
        .route("shopify", "limits: { body: 64KiB }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let of = |provider: &str, fill: u8, bytes: usize| {
        let body = vec![fill; bytes];
        let event = Event {
            body,
            ..Event::of(provider, "1")
        };
        event.sign(provider, "", NOW, SECRET)
    };
    // What is announced holds nothing.
    let mut announced = Vec::new();
    for n in 0..20 {
        let mut client = Client::connect(gateway.address).await;
        client.send(&of("github", n, 64 * 1024).head()).await;
        announced.push(client);
    }
    until("the heads to be read", || in_flight(&gateway) == 20.0).await;
    assert_eq!(buffered(&gateway), 0.0);
    // What has arrived does.
    let slow = of("shopify", b'a', 60 * 1024);
    let mut client = Client::connect(gateway.address).await;
    client.send(&slow.bytes()[..slow.head().len() + 40 * 1024]).await;
    until("the first part to arrive", || buffered(&gateway) == 40.0 * 1024.0).await;
    let answer = send(&gateway, &of("github", b'b', 30 * 1024)).await;
    assert_eq!((answer.status, answer.text()), (503, "memory\n"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(
        send(&gateway, &of("github", b'c', 20 * 1024)).await.status,
        200,
        "what fits is taken"
    );
    client.send(&slow.bytes()[slow.head().len() + 40 * 1024..]).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(
        send(&gateway, &of("github", b'b', 30 * 1024)).await.status,
        200,
        "there is room again"
    );
    drop(announced);
    gateway.idle().await;
    assert_eq!((in_flight(&gateway), buffered(&gateway)), (0.0, 0.0));
}

/// How a request comes to its end.
enum End {
    /// Answered with this status.
    Status(u16),
    /// The client says that it sends no more, and is answered.
    HalfClosed(u16),
    /// The client leaves as soon as this many bytes of its body have arrived.
    LeavesAt(usize),
    /// The client leaves as soon as the upstream has its request.
    LeavesInFlight,
    /// The answer breaks off.
    BrokenOff,
}

/// The ways to end at a deadline, for a gateway whose deadlines are short.
fn slow_ends() -> Vec<(&'static str, Vec<u8>, End)> {
    vec![
        ("half a head", event("1").head()[..50].to_vec(), End::Status(408)),
        ("half a body", event("1").head(), End::Status(408)),
        (
            "a sleeping upstream",
            event("1").with("X-Act", "sleep").bytes(),
            End::Status(504),
        ),
    ]
}

/// Every other way for a request to end that needs no second request.
fn ends() -> Vec<(&'static str, Vec<u8>, End)> {
    use End::*;
    let good = |id: &str, act: &str| event(id).with("X-Act", act).bytes();
    let text = |event: &Event| String::from_utf8(event.bytes()).unwrap();
    let large = Event {
        body: vec![b'x'; 3000],
        ..event("large")
    };
    let challenge = Event {
        body: br#"{"type":"url_verification","challenge":"abc"}"#.to_vec(),
        ..Event::of("slack", "1")
    };
    let length = format!("Content-Length: {}\r\n", event("partial").body.len());
    let partial = event("partial").bytes();
    let partial = partial[..partial.len() - 100].to_vec();
    let arrived = event("partial").body.len() - 100;
    let expecting = event("partial").with("Expect", "100-continue").head();
    let header = "X-Hub-Signature-256";
    let twice = event("twice").with(header, event("twice").value(header));
    vec![
        ("a good one", good("good", ""), Status(200)),
        ("no route", event("1").to("/nowhere").bytes(), Status(404)),
        ("another path", event("1").to("/webhooks//github").bytes(), Status(400)),
        (
            "a GET",
            text(&event("1")).replacen("POST", "GET", 1).into_bytes(),
            Status(405),
        ),
        (
            "no length",
            text(&event("partial")).replacen(&length, "", 1).into_bytes(),
            Status(401),
        ),
        (
            "a bad head",
            text(&event("1")).replacen(": ", " : ", 1).into_bytes(),
            Status(400),
        ),
        ("two signatures", twice.bytes(), Status(400)),
        (
            "a large head",
            event("1").with("X-Pad", &"x".repeat(5000)).bytes(),
            Status(431),
        ),
        ("a large body", large.bytes(), Status(413)),
        (
            "a coded body",
            event("1").with("Content-Encoding", "gzip").bytes(),
            Status(415),
        ),
        ("an end in the body", partial.clone(), HalfClosed(400)),
        ("a forgery", forged("1").bytes(), Status(401)),
        ("no signature", event("1").without(header).bytes(), Status(401)),
        ("a repeat", good("good", ""), Status(200)),
        (
            "a challenge",
            challenge.sign("slack", "", NOW, SECRET).bytes(),
            Status(200),
        ),
        ("the upstream fails", good("500", "500"), Status(500)),
        ("the upstream resets", good("reset", "reset"), Status(502)),
        ("the upstream babbles", good("babble", "babble"), Status(502)),
        ("the upstream gives half", good("half", "half"), BrokenOff),
        ("the client leaves early", expecting, LeavesAt(0)),
        ("the client leaves in its body", partial, LeavesAt(arrived)),
        ("the client leaves in flight", good("leaves", "hold"), LeavesInFlight),
    ]
}

/// Lets one request after another come to its end and looks whether everything is free behind it.
async fn gives_back(conf: &Conf, upstream: &Upstream, ends: Vec<(&'static str, Vec<u8>, End)>) {
    let gateway = Gateway::start(&conf.yaml()).await;
    for (what, bytes, end) in ends {
        let before = upstream.count();
        let mut client = Client::connect(gateway.address).await;
        client.send(&bytes).await;
        match end {
            End::Status(status) => assert_eq!(client.answer().await.status, status, "{what}"),
            End::HalfClosed(status) => {
                client.finish_sending().await;
                assert_eq!(client.answer().await.status, status, "{what}");
            }
            End::LeavesAt(arrived) => {
                let held = || in_flight(&gateway) == 1.0 && buffered(&gateway) == arrived as f64;
                until(what, held).await;
            }
            End::LeavesInFlight => upstream.reached(before + 1).await,
            End::BrokenOff => {
                let all = client.rest().await;
                assert!(
                    all.starts_with(b"HTTP/1.1 200") && all.ends_with(b"half."),
                    "{what}: {all:?}"
                );
            }
        }
        drop(client);
        upstream.release(usize::from(matches!(end, End::LeavesInFlight)));
        gateway.idle().await;
        assert_eq!((in_flight(&gateway), buffered(&gateway)), (0.0, 0.0), "{what}");
        assert_eq!(send(&gateway, &event(what)).await.status, 200, "after {what}");
        gateway.idle().await;
    }
    let open = || gateway.metric("hookward_open_connections") == 0.0;
    until("every connection to be closed", open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_taken_is_given_back_however_a_request_ends() {
    // A place lost for each of some odd end closes the route for good, a day later.
    let upstream = Upstream::acting(|_, request| match request.header("x-act") {
        Some("500") => Act::Answer(bare(500)),
        Some("reset") => Act::Reset,
        Some("babble") => Act::Answer(b"HTTP/9 ???\r\n\r\n".to_vec()),
        Some("sleep") => Act::Silence,
        Some("hold") => Act::Hold(bare(200)),
        // No more than the half of it: the connection ends behind it.
        Some("half") => Act::Last(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.".to_vec()),
        _ => Act::Answer(bare(200)),
    })
    .await;
    let conf = Conf::to(upstream.address)
        .route("github", "limits: { in_flight: 1, body: 2KiB }")
        .route("slack", "limits: { in_flight: 1 }");
    gives_back(&conf.clone().top("client: { head_bytes: 4KiB }"), &upstream, ends()).await;
    let hasty = conf
        .app("timeout: 300ms")
        .top("client: { head_timeout: 300ms, body_timeout: 300ms }");
    gives_back(&hasty, &upstream, slow_ends()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_and_places_survive_a_reload() {
    // Otherwise every reload hands out a fresh burst, and a route that is full takes as many again.
    let upstream = Upstream::holding(|_| 200).await;
    let conf = |burst: u32| {
        Conf::to(upstream.address)
            .limits("client_rate: 1/s, client_burst: 6")
            .route(
                "github",
                &format!("limits: {{ rate: 1/s, burst: {burst}, in_flight: 1 }}"),
            )
            .yaml()
    };
    let gateway = Gateway::start(&conf(3)).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(&event(0).bytes()).await;
    upstream.reached(1).await;
    gateway.reload(&conf(3));
    assert_eq!(send(&gateway, &event(1)).await.status, 503, "the place is still taken");
    upstream.release(10);
    assert_eq!(first.answer().await.status, 200);
    gateway.idle().await;
    assert_eq!(send(&gateway, &event(1)).await.status, 200);
    gateway.reload(&conf(3));
    assert_eq!(send(&gateway, &event(2)).await.status, 200);
    gateway.idle().await;
    gateway.reload(&conf(3));
    let refused = send(&gateway, &event(3)).await;
    assert_eq!((refused.status, refused.text()), (429, "route_rate\n"));
    // A larger burst is a larger budget, not a new one: three of five are spent.
    gateway.reload(&conf(5));
    gateway.idle().await;
    assert_eq!(send(&gateway, &event(3)).await.status, 200);
    gateway.idle().await;
    let refused = send(&gateway, &event(4)).await;
    assert_eq!(
        (refused.status, refused.text()),
        (429, "client_rate\n"),
        "the client's six are spent, over all reloads"
    );
}
