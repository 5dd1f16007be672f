//! TLS on the listeners: which certificate, what is spoken behind it, and what never gets that far.

use bytes::Bytes;
use http::Request;
use tokio_rustls::rustls::HandshakeKind;

use crate::harness::process::TestFile;
use crate::harness::{Authority, Client, Conf, Event, Gateway, H2, Identity, NOW, SECRET, Tls, Upstream, until};

/// A gateway's side of TLS on disk.
struct Listening {
    /// An entry of `listen`.
    listen: String,
    _files: TestFile,
}

/// A listener with these certificates; `more` is more of `tls`, in which `CA` is the file of `clients`.
fn listening(identities: &[&Identity], clients: Option<&Authority>, more: &str) -> Listening {
    let ca = TestFile::new("ca.pem", clients.map(Authority::pem).unwrap_or_default());
    let mut pairs = Vec::new();
    for (n, identity) in identities.iter().enumerate() {
        let [certificate, key] = ["pem", "key"].map(|extension| ca.beside(&format!("{n}.{extension}")));
        identity.write(&certificate, &key);
        pairs.push(format!("{{ certificate: {certificate:?}, key: {key:?} }}"));
    }
    let more = more.replace("CA", ca.name());
    Listening {
        listen: format!(
            "{{ address: 127.0.0.1:0, tls: {{ certificates: [{}], {more} }} }}",
            pairs.join(", ")
        ),
        _files: ca,
    }
}

/// A gateway at `hooks.test` that passes everything else through, and whom to trust for it.
async fn gateway(upstream: &Upstream, client: &str) -> (Gateway, Authority) {
    let authority = Authority::new();
    let listening = listening(&[&authority.issue("hooks.test")], None, "");
    (
        Gateway::listening(&listening.listen, &conf(upstream, client)).await,
        authority,
    )
}

fn conf(upstream: &Upstream, client: &str) -> String {
    let conf = Conf::to(upstream.address).top("passthrough: app");
    conf.top(&format!("client: {{ {client} }}"))
        .route("github", "replay: off")
        .yaml()
}

const PAGE: &[u8] = b"GET /page HTTP/1.1\r\nHost: hooks.test\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_name_chooses_the_certificate() {
    // A second domain behind the same address would show the first one's certificate, and every sender would leave.
    let upstream = Upstream::ok().await;
    let authority = Authority::new();
    let [first, second] = ["hooks.test", "*.second.test"].map(|name| authority.issue(name));
    let listening = listening(&[&first, &second], None, "");
    let gateway = Gateway::listening(&listening.listen, &conf(&upstream, "")).await;
    for version in [2, 3] {
        let tls = Tls::trusting(&authority, Some(version));
        for (name, shown) in [("hooks.test", &first), ("a.second.test", &second)] {
            let stream = tls.connect(gateway.address, name).await;
            let chain = stream.get_ref().1.peer_certificates().unwrap();
            assert_eq!(chain[0], shown.der(), "{name}");
            let mut client = Client::over(stream);
            client.send(&Event::of("github", name).bytes()).await;
            assert_eq!(client.answer().await.status, 200, "{name}");
        }
        for name in ["stranger.test", "127.0.0.1"] {
            let stream = Client::connect(gateway.address).await.into_stream();
            let told = tls.over(stream, name).await.unwrap_err().to_string();
            // The first certificate: the client looks for its name in there and leaves by itself.
            assert!(
                told.contains("not valid for name") && told.contains("hooks.test"),
                "{told}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_are_spoken_and_the_upstream_hears_of_tls() {
    // Applications that redirect http to https would send every request around in circles.
    let upstream = Upstream::ok().await;
    let (gateway, authority) = gateway(&upstream, "").await;
    let tls = Tls::trusting(&authority, None);
    let stream = tls
        .clone()
        .alpn("http/1.1")
        .connect(gateway.address, "hooks.test")
        .await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut http1 = Client::over(stream);
    for bytes in [&Event::of("github", "1").bytes()[..], PAGE] {
        http1.send(bytes).await;
        let answer = http1.answer().await;
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
    let stream = tls.alpn("h2").connect(gateway.address, "hooks.test").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut http2 = H2::over(stream).await;
    for request in [over_h2(&Event::of("github", "2")), page()] {
        let answer = http2.ask(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, &b"ok"[..]));
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 4);
    for request in seen {
        assert_eq!(request.header("x-forwarded-proto"), Some("https"), "{}", request.head);
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"), "{}", request.head);
    }
    assert_eq!(gateway.metric("hookward_tls_handshakes_total"), 2.0);
}

fn over_h2(event: &Event) -> Request<Bytes> {
    let mut request = Request::post(format!("https://hooks.test{}", event.path));
    for (name, value) in &event.headers {
        request = request.header(name, value);
    }
    request.body(event.body.clone().into()).unwrap()
}

fn page() -> Request<Bytes> {
    Request::get("https://hooks.test/page").body(Bytes::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_megabytes_go_through_both_ways() {
    // Records of TLS end where they like; a byte lost between two of them breaks a signature, or a download.
    let page: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let answer = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len()).as_bytes(),
        &page,
    ]
    .concat();
    let upstream = Upstream::answering(move |_, _| answer.clone()).await;
    let (gateway, authority) = gateway(&upstream, "").await;
    let tls = Tls::trusting(&authority, None);
    let mut client = Client::over(tls.connect(gateway.address, "hooks.test").await);
    let head = format!(
        "POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        page.len()
    );
    client.send(&[head.as_bytes(), &page].concat()).await;
    assert!(client.answer().await.body == page, "another page than was sent");
    assert!(upstream.seen()[0].body == page, "another body than was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_of_today_gets_nothing_through() {
    // Plain requests on a TLS port would be events in the clear; TLS 1.1 is as good as that.
    let upstream = Upstream::unreachable().await;
    let (gateway, _) = gateway(&upstream, "").await;
    let mut client = Client::connect(gateway.address).await;
    client.send(&Event::of("github", "1").bytes()).await;
    let told = client.rest().await;
    assert!(!told.starts_with(b"HTTP"), "{}", told.escape_ascii());
    let mut client = Client::connect(gateway.address).await;
    client.send(&hello_of_tls_1_1()).await;
    let told = client.rest().await;
    // A fatal alert: protocol_version.
    assert!(
        told.starts_with(b"\x15\x03") && told.ends_with(b"\x02\x46"),
        "{}",
        told.escape_ascii()
    );
    turned_away(&gateway, "handshake", 2.0).await;
    assert_eq!(gateway.metric("hookward_tls_handshakes_total"), 0.0);
}

/// A ClientHello that knows nothing newer than 1.1: two suites of its time, no extensions that name versions.
fn hello_of_tls_1_1() -> Vec<u8> {
    // signature_algorithms and supported_groups, so that nothing else is missing.
    let extensions = [
        0, 13, 0, 4, 0, 2, 4, 1, // rsa_pkcs1_sha256
        0, 10, 0, 4, 0, 2, 0, 23, // secp256r1
    ];
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x14, 0xc0, 0x13, 1, 0, 0, extensions.len() as u8]);
    hello.extend(extensions);
    let body = u8::try_from(hello.len()).unwrap();
    [&[22, 3, 1, 0, body + 4, 1, 0, 0, body], &hello[..]].concat()
}

/// Waits until so many connections were turned away for `reason`.
async fn turned_away(gateway: &Gateway, reason: &str, count: f64) {
    let series = format!("hookward_connections_turned_away_total{{reason=\"{reason}\"}}");
    until(&series, || gateway.metric(&series) >= count).await;
    assert_eq!(gateway.metric(&series), count, "{series}");
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_come_are_gone_when_a_head_would_be() {
    // Connections that say nothing, or half a hello, would hold their places for ever.
    let upstream = Upstream::unreachable().await;
    let (gateway, _) = gateway(&upstream, "head_timeout: 200ms").await;
    let mut silent = Client::connect(gateway.address).await;
    let mut half = Client::connect(gateway.address).await;
    half.send(&hello_of_tls_1_1()[..20]).await;
    assert!(silent.closes().await && half.closes().await);
    turned_away(&gateway, "too_slow", 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_after_the_handshake_is_ended_too() {
    // A client that agrees on HTTP/2 and then says nothing, or half of its preface, would hold its place for ever.
    let upstream = Upstream::unreachable().await;
    let (gateway, authority) = gateway(&upstream, "head_timeout: 1500ms").await;
    let tls = Tls::trusting(&authority, None);
    let address = gateway.address;
    let said = async |protocol: &str, bytes: &[u8]| {
        let stream = tls.clone().alpn(protocol).connect(address, "hooks.test").await;
        let mut client = Client::over(stream);
        client.send(bytes).await;
        client.rest().await
    };
    let (http2, http1, half) = tokio::join!(
        said("h2", b""),
        said("http/1.1", b""),
        said("h2", b"PRI * HTTP/2.0\r\n\r\nSM")
    );
    assert_eq!((http2, http1), (Vec::new(), Vec::new()));
    assert!(half.starts_with(b"HTTP/1.1 408 "), "{}", half.escape_ascii());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_with_a_farewell() {
    // Without it nobody can tell an answer that ended from one that somebody cut off on the way.
    let upstream = Upstream::ok().await;
    let (gateway, authority) = gateway(&upstream, "head_timeout: 1500ms, idle_timeout: 200ms").await;
    let tls = Tls::trusting(&authority, None);
    let ends = async |bytes: &[u8], status: Option<u16>| {
        let mut client = Client::over(tls.connect(gateway.address, "hooks.test").await);
        client.send(bytes).await;
        if let Some(status) = status {
            assert_eq!(client.answer().await.status, status);
        }
        assert!(client.ends_in_order().await, "{}", bytes.escape_ascii());
    };
    tokio::join!(
        ends(PAGE, Some(200)),
        ends(b"GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Some(200)),
        ends(b"GET /half", Some(408)),
        ends(b"", None),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_that_was_not_agreed_on_is_no_way_around_the_judge() {
    // What follows the preface would be read by another parser than the one that judges heads.
    let upstream = Upstream::unreachable().await;
    let (gateway, authority) = gateway(&upstream, "").await;
    let tls = Tls::trusting(&authority, None);
    for tls in [tls.clone(), tls.alpn("http/1.1")] {
        let mut client = Client::over(tls.connect(gateway.address, "hooks.test").await);
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        client.send(PAGE).await;
        assert_eq!(client.answer().await.status, 400);
        client.rest().await;
    }
    let lines = gateway.lines(2).await;
    assert!(lines.iter().all(|line| line["stage"] == "head"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_resume() {
    // Providers connect anew for each event; without tickets every one of them costs a signature.
    let upstream = Upstream::ok().await;
    let (gateway, authority) = gateway(&upstream, "").await;
    for version in [2, 3] {
        let tls = Tls::trusting(&authority, Some(version));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut client = Client::over(tls.connect(gateway.address, "hooks.test").await);
            kinds.push(client.stream().get_ref().1.handshake_kind().unwrap());
            // Tickets of 1.3 come after the handshake, before the answer.
            client.send(PAGE).await;
            assert_eq!(client.answer().await.status, 200);
        }
        assert_eq!(kinds[1], HandshakeKind::Resumed, "1.{version}");
        assert_ne!(kinds[0], HandshakeKind::Resumed, "1.{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_clients_are_asked_for_as_configured() {
    // Mutual TLS that lets a foreign certificate in proves nothing; one that is asked for and missing is up to the file.
    let upstream = Upstream::ok().await;
    let (authority, clients) = (Authority::new(), Authority::new());
    let server = authority.issue("hooks.test");
    let (own, foreign) = (clients.issue("sender.test"), Authority::new().issue("sender.test"));
    for (more, expected) in [
        ("client_ca: CA", [true, true, false]),
        ("client_ca: CA, client_required: true", [false, true, false]),
    ] {
        let listening = listening(&[&server], Some(&clients), more);
        let gateway = Gateway::listening(&listening.listen, &conf(&upstream, "")).await;
        let mut refused = 0.0;
        for version in [2, 3] {
            for (own, expected) in [None, Some(&own), Some(&foreign)].into_iter().zip(expected) {
                let tls = Tls::with(&authority, Some(version), own);
                let stream = Client::connect(gateway.address).await.into_stream();
                let answered = match tls.over(stream, "hooks.test").await {
                    // In 1.3 the client is done before the server has looked at its certificate.
                    Ok(stream) => {
                        let mut client = Client::over(stream);
                        client.send(&Event::of("github", "1").bytes()).await;
                        client.whole_answer().await.is_some_and(|answer| answer.status == 200)
                    }
                    Err(_) => false,
                };
                assert_eq!(
                    answered,
                    expected,
                    "{more}, 1.{version}, {:?}",
                    own.map(|own| &own.certificate)
                );
                refused += f64::from(u8::from(!expected));
            }
        }
        turned_away(&gateway, "handshake", refused).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_strain_everybody_has_his_turn() {
    // Whoever lines up waits for bytes that the system announces; what TLS has decrypted already is announced by nobody.
    let upstream = Upstream::ok().await;
    let authority = Authority::new();
    let listening = listening(&[&authority.issue("hooks.test")], None, "");
    let conf = Conf::to(upstream.address).limits("client_rate: 100000/s, client_burst: 100000");
    let gateway = Gateway::listening(
        &listening.listen,
        &conf.route("github", "limits: { rate: 100000/s, burst: 100000 }").yaml(),
    )
    .await;
    gateway.strain().await;
    let tls = Tls::trusting(&authority, None);
    let asking: Vec<_> = (0..40)
        .map(|client| {
            let (tls, address) = (tls.clone(), gateway.address);
            tokio::spawn(async move {
                let mut http1 = Client::over(tls.clone().connect(address, "hooks.test").await);
                let mut http2 = H2::over(tls.alpn("h2").connect(address, "hooks.test").await).await;
                for n in 0..5 {
                    let event = long(&format!("{client} {n} over HTTP/1"));
                    http1.send(&event.head()).await;
                    http1.send(&event.body).await;
                    assert_eq!(http1.answer().await.status, 200);
                    let event = long(&format!("{client} {n} over HTTP/2"));
                    assert_eq!(http2.ask(over_h2(&event)).await.unwrap().status(), 200);
                }
            })
        })
        .collect();
    for asking in asking {
        asking.await.unwrap();
    }
    assert_eq!(upstream.count(), 400);
}

/// An event that takes more than one window of HTTP/2, and several records of TLS.
fn long(id: &str) -> Event {
    let mut event = Event::of("github", id);
    event.body = id.repeat(100_000 / id.len()).into_bytes();
    event.sign("github", id, NOW, SECRET)
}
