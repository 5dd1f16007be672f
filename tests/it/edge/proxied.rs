//! PROXY protocol: load balancers that say for whom they connect, over plain TCP and before TLS.

use tokio::net::TcpStream;

use crate::harness::process::TestFile;
use crate::harness::{Authority, Client, Conf, Event, Gateway, Tls, Upstream, until};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 12345 443\r\n";

/// The same client by version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x01\x30\x39\x01\xbb";

const V1_SIX: &[u8] = b"PROXY TCP6 2001:db8::9 2001:db8::1 12345 443\r\n";

/// A gateway that believes load balancers at 127.0.0.1, over plain TCP or TLS; `limits` are the process's.
async fn gateway(upstream: &Upstream, tls: &str, limits: &str) -> Gateway {
    let listen = format!("{{ address: 127.0.0.1:0, proxy_protocol: [127.0.0.1] {tls} }}");
    let conf = Conf::to(upstream.address).limits(limits).route("github", "replay: off");
    Gateway::listening(&listen, &conf.yaml()).await
}

const UNLIMITED: &str = "client_rate: 100000/s, client_burst: 100000";

async fn turned_away(gateway: &Gateway, reason: &str, count: f64) {
    let series = format!("hookward_connections_turned_away_total{{reason=\"{reason}\"}}");
    until(&series, || gateway.metric(&series) >= count).await;
    assert_eq!(gateway.metric(&series), count, "{series}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_named_client_is_the_one_in_the_log_and_upstream() {
    // Behind a load balancer everybody would be one client: the load balancer.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", UNLIMITED).await;
    let event = Event::of("github", "1").bytes();
    let headers = [V1, V2, V1_SIX, b"PROXY UNKNOWN\r\n"];
    let clients = ["192.0.2.7", "192.0.2.7", "2001:db8::9", "127.0.0.1"];
    for (n, (header, expected)) in headers.into_iter().zip(clients).enumerate() {
        let mut client = Client::connect(gateway.address).await;
        client.send(&[header, &event].concat()).await;
        assert_eq!(client.answer().await.status, 200);
        // The next request of the connection is the same client's.
        client.send(&event).await;
        assert_eq!(client.answer().await.status, 200);
        let lines = gateway.lines(2 * n + 2).await;
        for (line, seen) in lines.iter().zip(upstream.seen()).skip(2 * n) {
            assert_eq!(line["client"], expected);
            assert_eq!(seen.header("x-forwarded-for"), Some(expected));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_may_come_byte_by_byte() {
    // A segment that ends in the middle of the header would shut out whoever is behind it.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", UNLIMITED).await;
    let event = Event::of("github", "1").bytes();
    for header in [V1, V2] {
        let mut client = Client::connect(gateway.address).await;
        for byte in header.iter().chain(&event) {
            client.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.answer().await.status, 200);
    }
    assert!(gateway.lines(2).await.iter().all(|line| line["client"] == "192.0.2.7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_comes_before_tls() {
    // Read with it, the first bytes of the handshake would be lost; read behind it, a client could bring its own.
    let upstream = Upstream::ok().await;
    let authority = Authority::new();
    let file = TestFile::new("server.pem", "");
    let key = file.beside("server.key");
    authority.issue("hooks.test").write(file.path(), &key);
    let tls = format!(
        ", tls: {{ certificates: [{{ certificate: {:?}, key: {key:?} }}] }}",
        file.path()
    );
    let gateway = gateway(&upstream, &tls, UNLIMITED).await;
    let client = Tls::trusting(&authority, None);
    for header in [V1, V2] {
        let mut plain = Client::connect(gateway.address).await;
        plain.send(header).await;
        let stream = client.over(plain.into_stream(), "hooks.test").await.unwrap();
        let mut client = Client::over(stream);
        client.send(&Event::of("github", "1").bytes()).await;
        assert_eq!(client.answer().await.status, 200);
    }
    assert!(gateway.lines(2).await.iter().all(|line| line["client"] == "192.0.2.7"));
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    assert!(client.over(stream, "hooks.test").await.is_err(), "no header");
    turned_away(&gateway, "proxy_header", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_listed_or_says_nothing_is_not_let_in() {
    // A stranger that may write the header chooses whose limits are charged; a guess would let him leave it out.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream, "", UNLIMITED).await;
    let event = Event::of("github", "1").bytes();
    let mut stranger = Client::connect_from("127.0.0.2", gateway.address).await;
    stranger.send(&[V1, &event].concat()).await;
    assert_eq!(stranger.rest().await, b"");
    turned_away(&gateway, "stranger", 1.0).await;
    let broken = [
        event.clone(),
        [b"PROXY TCP4 192.0.2.777 192.0.2.1 1 443\r\n", &event[..]].concat(),
        [&V2[..12], b"\x21\x31\0\0", &event].concat(),
    ];
    for bytes in &broken {
        let mut client = Client::connect(gateway.address).await;
        client.send(bytes).await;
        assert_eq!(client.rest().await, b"", "{}", bytes.escape_ascii());
    }
    turned_away(&gateway, "proxy_header", broken.len() as f64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_named_client_is_the_one_that_is_limited() {
    // One noisy sender behind a load balancer would shut out every other.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream, "", "client_rate: 1/h, client_burst: 1").await;
    let event = Event::of("github", "1").bytes();
    let mut statuses = Vec::new();
    for header in [V1, V2, V1_SIX, V1_SIX, b"PROXY UNKNOWN\r\n"] {
        let mut client = Client::connect(gateway.address).await;
        client.send(&[header, &event].concat()).await;
        statuses.push(client.answer().await.status);
    }
    assert_eq!(statuses, [200, 429, 200, 429, 200]);
}
