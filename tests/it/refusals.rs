//! Every refusal there is, by a real request: its status, its words, its line in the log, and what becomes of the
//! connection. A reason that no request can cause is a promise that nobody has seen kept.

use std::collections::HashSet;
use std::time::Duration;

use hookward::clock::UnixMillis;
use hookward::gateway::{Connection, Reason};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::harness::process::TestFile;
use crate::harness::{
    Act, Authority, Client, Conf, Event, Folder, Gateway, NOW, Queueing, Refusing, SECRET, Sns, Tls, Upstream, bare,
    request, sns_event, sns_message, until,
};

/// An hour after the gateway has started: the secret of one route has expired.
const LATER: UnixMillis = UnixMillis(NOW.0 + 3_600_000);

fn event(id: impl std::fmt::Display) -> Event {
    Event::signed_at("github", &id.to_string(), LATER)
}

/// An event of a provider that signs the time, too.
fn stamped(at: UnixMillis) -> Event {
    Event::signed_at("stripe", "1", at)
}

/// A genuine event with a body of this length.
fn sized(bytes: usize) -> Event {
    let body = vec![b'x'; bytes];
    Event { body, ..event(0) }.sign("github", "", LATER, SECRET)
}

/// The reasons met so far.
struct Tour(HashSet<Reason>);

impl Tour {
    /// Sends `bytes` on a connection of their own and meets `reason`.
    async fn send(&mut self, gateway: &Gateway, reason: Reason, bytes: &[u8]) {
        let mut client = Client::connect(gateway.address).await;
        client.send(bytes).await;
        self.meet(gateway, reason, &mut client).await;
    }

    /// What `client` is answered next is `reason`, as the table has it.
    async fn meet<S>(&mut self, gateway: &Gateway, reason: Reason, client: &mut Client<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let row = reason.row();
        let answer = client.answer().await;
        let words = match reason.stage() {
            "verify" => "unauthorized\n".to_owned(),
            _ => format!("{}\n", reason.word()),
        };
        assert_eq!((answer.status, answer.text()), (row.status, &*words), "{reason:?}");
        let comes_back = [429, 503].contains(&row.status);
        assert_eq!(answer.header("retry-after").is_some(), comes_back, "{reason:?}");
        let kept = row.connection == Connection::Keep;
        let connection = answer.header("connection").unwrap();
        assert_eq!(connection.eq_ignore_ascii_case("keep-alive"), kept, "{reason:?}");
        if kept {
            client.send(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.answer().await.status, 404, "the next request after {reason:?}");
        } else {
            assert!(client.closes().await, "{reason:?}");
        }
        let told = || {
            let lines = gateway.logged();
            let of_it = |line: &&serde_json::Value| line["reason"] == reason.word() && line["stage"] == reason.stage();
            lines.iter().find(of_it).map(|line| line["status"].as_u64())
        };
        until(&format!("the log tells of {reason:?}"), || told().is_some()).await;
        assert_eq!(told().unwrap(), Some(u64::from(row.status)), "{reason:?}");
        self.0.insert(reason);
    }

    /// What needs no more than one request.
    async fn single_requests(&mut self, gateway: &Gateway) {
        let text = String::from_utf8(event(1).bytes()).unwrap();
        let signature = "X-Hub-Signature-256";
        let twice = event(1).with(signature, event(1).value(signature));
        let partial = &event(1).bytes()[..event(1).head().len() + 20];
        let mut unreadable = event(1);
        unreadable.set(signature, "sha256=?");
        let cases = [
            (Reason::BadFraming, text.replacen(": ", " : ", 1).into_bytes()),
            (Reason::AmbiguousHeader, twice.bytes()),
            (Reason::HeadTooLarge, event(1).with("X-Pad", &"x".repeat(5000)).bytes()),
            (Reason::NoRoute, event(1).to("/somewhere").bytes()),
            (Reason::Method, text.replacen("POST", "PUT", 1).into_bytes()),
            (Reason::AmbiguousPath, event(1).to("/webhooks/./github").bytes()),
            (Reason::Address, event(1).to("/webhooks/elsewhere").bytes()),
            (Reason::BodyTooLarge, sized(40 * 1024).bytes()),
            (Reason::Encoded, event(1).with("Content-Encoding", "br").bytes()),
            (Reason::Missing, event(1).without(signature).bytes()),
            (Reason::Malformed, unreadable.bytes()),
            (Reason::Stale, stamped(UnixMillis(LATER.0 - 301_000)).bytes()),
            (
                Reason::Mismatch,
                Event {
                    body: b"{}".to_vec(),
                    ..event(1)
                }
                .bytes(),
            ),
            (Reason::UnknownKey, event(1).to("/webhooks/expired").bytes()),
            (Reason::UpstreamDown, event(2).with("X-Act", "reset").bytes()),
        ];
        for (reason, bytes) in cases {
            self.send(gateway, reason, &bytes).await;
        }
        let mut client = Client::connect(gateway.address).await;
        client.send(partial).await;
        client.finish_sending().await;
        self.meet(gateway, Reason::Truncated, &mut client).await;
    }

    /// What needs no more than waiting, which this gateway does not do for long.
    /// Fills a data directory until nothing more fits.
    async fn no_room(&mut self) {
        let (folder, away) = (Folder::new(), Refusing::new());
        let conf = Queueing::in_folder(&folder)
            .upstream("app", away.address, "")
            .route("github", "github", "app", "")
            .data("bytes: 2MiB");
        let gateway = Gateway::start(&conf.yaml()).await;
        for n in 0..64_u8 {
            let body = vec![n; 200_000];
            let event = Event { body, ..event(0) }.sign("github", "", LATER, SECRET);
            let answer = request(gateway.address, &event.bytes()).await;
            if answer.status != 200 {
                break;
            }
        }
        let event = Event {
            body: vec![255; 200_000],
            ..event(0)
        }
        .sign("github", "", LATER, SECRET);
        self.send(&gateway, Reason::QueueDown, &event.bytes()).await;
    }

    async fn slow_requests(&mut self, hasty: &Gateway) {
        let cases = [
            (Reason::HeadTooSlow, event(1).head()[..50].to_vec()),
            (Reason::BodyTooSlow, event(1).head()),
            (Reason::UpstreamTimeout, event(3).with("X-Act", "sleep").bytes()),
        ];
        for (reason, bytes) in cases {
            self.send(hasty, reason, &bytes).await;
        }
    }

    /// What needs a provider that publishes its key, and does not.
    async fn published_keys(&mut self, conf: &Conf) {
        let sns = Sns::start().await;
        let gateway = Gateway::start_in(sns.world(), &Sns::route(conf.clone(), "confirm: true").yaml()).await;
        let event = |kind: &str, id: &str| sns_event(sns_message(kind, id)).bytes();
        sns.answers(503);
        self.send(&gateway, Reason::KeyDown, &event("Notification", "1")).await;
        sns.answers(200);
        gateway.clock.advance(Duration::from_secs(5));
        let mut client = Client::connect(gateway.address).await;
        client.send(&event("Notification", "1")).await;
        assert_eq!(client.answer().await.status, 200);
        sns.answers(503);
        self.send(&gateway, Reason::ConfirmDown, &event("SubscriptionConfirmation", "2"))
            .await;
    }

    /// What needs a listener that asks for certificates.
    async fn certificates(&mut self, conf: &Conf) {
        let authority = Authority::new();
        let ca = TestFile::new("ca.pem", authority.pem());
        let [certificate, key] = ["pem", "key"].map(|extension| ca.beside(&format!("own.{extension}")));
        authority.issue("hooks.test").write(&certificate, &key);
        let listen = format!(
            "{{ address: 127.0.0.1:0, tls: {{ certificates: [{{ certificate: {certificate:?}, key: {key:?} }}], \
             client_ca: {:?} }} }}",
            ca.name()
        );
        let conf = conf.clone().route_called(
            "certified",
            &format!("provider: github, secrets: [{{ value: {SECRET} }}]"),
            "client_certificate: { names: [sender.test] }",
        );
        let gateway = Gateway::listening(&listen, &conf.yaml()).await;
        let tls = Tls::trusting(&authority, None);
        let mut client = Client::over(tls.connect(gateway.address, "hooks.test").await);
        client.send(&event(1).to("/webhooks/certified").bytes()).await;
        self.meet(&gateway, Reason::Certificate, &mut client).await;
    }

    /// What needs a bound on requests at the same time that one request fills.
    async fn one_at_a_time(&mut self, conf: &Conf) {
        for (bound, reason) in [
            ("client_in_flight: 1", Reason::ClientBusy),
            ("in_flight: 1", Reason::Overload),
        ] {
            let limits = format!("client_rate: 100000/s, client_burst: 100000, {bound}");
            let gateway = Gateway::start(&conf.clone().limits(&limits).yaml()).await;
            let mut first = Client::connect(gateway.address).await;
            first.send(&event(reason as usize).head()).await;
            until("the first one to be on its way", || {
                gateway.metric("hookward_in_flight{route=\"github\"}") == 1.0
            })
            .await;
            self.send(&gateway, reason, &event(1).bytes()).await;
            first.send(&event(reason as usize).body).await;
            assert_eq!(first.answer().await.status, 200);
        }
    }

    /// What needs another request to be in the way.
    async fn crowded(&mut self, gateway: &Gateway, upstream: &Upstream) {
        let mut first = Client::connect(gateway.address).await;
        let before = upstream.count();
        first
            .send(&event(4).to("/webhooks/narrow").with("X-Act", "hold").bytes())
            .await;
        upstream.reached(before + 1).await;
        self.send(gateway, Reason::Busy, &event(5).to("/webhooks/narrow").bytes())
            .await;
        upstream.release(1);
        assert_eq!(first.answer().await.status, 200);

        first.send(&sized(30 * 1024).bytes()[..28 * 1024]).await;
        until("most of the memory is taken", || {
            gateway.metric("hookward_buffered_bytes") > 20_000.0
        })
        .await;
        self.send(gateway, Reason::Memory, &sized(20 * 1024).bytes()).await;
        first.send(&sized(30 * 1024).bytes()[28 * 1024..]).await;
        assert_eq!(first.answer().await.status, 200);

        let before = upstream.count();
        first.send(&event(6).with("X-Act", "hold").bytes()).await;
        upstream.reached(before + 1).await;
        self.send(gateway, Reason::InFlight, &event(6).bytes()).await;
        upstream.release(1);
        assert_eq!(first.answer().await.status, 200);

        first.send(&event(7).to("/webhooks/rare").bytes()).await;
        assert_eq!(first.answer().await.status, 200);
        self.send(gateway, Reason::RouteRate, &event(8).to("/webhooks/rare").bytes())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_is_met_by_a_real_request() {
    // The table in the README is what operators write alerts by and what providers are told to expect.
    let upstream = Upstream::acting(|_, request| match request.header("x-act") {
        Some("reset") => Act::Reset,
        Some("sleep") => Act::Silence,
        Some("hold") => Act::Hold(bare(200)),
        _ => Act::Answer(bare(200)),
    })
    .await;
    let of = |name: &str, secret: &str| format!("{name}, secrets: [{{ value: {SECRET}{secret} }}]");
    let conf = Conf::to(upstream.address)
        .limits("client_rate: 100000/s, client_burst: 100000, memory: 32KiB")
        .top("client: { head_bytes: 4KiB }")
        .top("drain: 100ms")
        .route("github", "limits: { body: 32KiB }, replay: { wait: 100ms }")
        .route("stripe", "limits: { body: 32KiB }")
        .route_called(
            "narrow",
            &of("provider: github", ""),
            "limits: { body: 32KiB, in_flight: 1 }",
        )
        .route_called(
            "elsewhere",
            &of("provider: github", ""),
            "limits: { body: 32KiB }, allow: { networks: [192.0.2.0/24] }",
        )
        .route_called(
            "rare",
            &of("provider: github", ""),
            "limits: { body: 32KiB, rate: 1/h, burst: 1 }",
        )
        .route_called(
            "expired",
            &of("provider: github", ", until: 2023-11-14T23:00:00Z"),
            "limits: { body: 32KiB }",
        );
    let mut tour = Tour(HashSet::new());

    let mut gateway = Gateway::start(&conf.yaml()).await;
    gateway.clock.advance(Duration::from_secs(3600));
    tour.single_requests(&gateway).await;
    tour.crowded(&gateway, &upstream).await;
    gateway.idle().await;
    for route in ["github", "stripe", "narrow", "rare", "expired"] {
        let in_flight = format!("hookward_in_flight{{route=\"{route}\"}}");
        assert_eq!(gateway.metric(&in_flight), 0.0, "{route}");
    }
    assert_eq!(gateway.metric("hookward_buffered_bytes"), 0.0);

    let before = upstream.count();
    let mut last = Client::connect(gateway.address).await;
    last.send(&event(9).with("X-Act", "hold").bytes()).await;
    upstream.reached(before + 1).await;
    gateway.stopping().await.unwrap();
    tour.meet(&gateway, Reason::Draining, &mut last).await;

    let small = Conf::to(upstream.address).route("github", "");
    let hasty = small
        .clone()
        .app("timeout: 300ms")
        .top("client: { head_timeout: 300ms, body_timeout: 300ms }");
    tour.slow_requests(&Gateway::start(&hasty.yaml()).await).await;
    tour.published_keys(&small).await;
    tour.certificates(&small).await;
    tour.one_at_a_time(&small).await;
    let full = Gateway::start(&small.clone().top("replay: { entries: 1 }").yaml()).await;
    tour.no_room().await;
    let rated = Gateway::start(&small.limits("client_rate: 1/m, client_burst: 1").yaml()).await;
    for (gateway, reason) in [(&full, Reason::StoreDown), (&rated, Reason::ClientRate)] {
        let mut first = Client::connect(gateway.address).await;
        first.send(&event(10).bytes()).await;
        assert_eq!(first.answer().await.status, 200);
        tour.send(gateway, reason, &event(11).bytes()).await;
    }

    let missed: Vec<_> = Reason::ALL.iter().filter(|reason| !tour.0.contains(reason)).collect();
    assert!(missed.is_empty(), "no request caused {missed:?}");
}
