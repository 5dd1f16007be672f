//! Offers to leave HTTP on the path of a webhook. Nobody there takes one up; who reads the connection's next bytes as
//! the other protocol, and who as the next request, must not be a question.

use crate::harness::{Client, Gateway, Upstream, github, request, route_yaml};

/// Lines of a head that offer another protocol.
const OFFERS: [&str; 9] = [
    "Upgrade: websocket\r\nConnection: Upgrade",
    "Connection: Upgrade\r\nUpgrade: WebSocket",
    "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings",
    "Upgrade: TLS/1.0, HTTP/1.1\r\nConnection: Upgrade",
    "UPGRADE: h2c\r\nConnection: keep-alive, upgrade",
    "upgrade: x",
    "Upgrade:",
    "Upgrade: h2c\r\nConnection: close",
    "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade",
];

fn offering(offer: &str, number: usize) -> Vec<u8> {
    let genuine = String::from_utf8(github(format!("{{\"n\":{number}}}").as_bytes())).unwrap();
    genuine
        .replacen("Content-Type", &format!("{offer}\r\nContent-Type"), 1)
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_another_protocol_is_refused() {
    // Whoever in front takes the answer for a tunnel passes everything after it through unseen.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    for (number, offer) in OFFERS.into_iter().enumerate() {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let event = String::from_utf8(offering(offer, number)).unwrap();
            let event = event.replacen("HTTP/1.1", version, 1).into_bytes();
            let mut client = Client::connect(gateway.address).await;
            client.send(&[event, github(b"{\"hidden\":1}")].concat()).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, answer.text()), (400, "bad_framing\n"), "{offer}");
            assert_eq!(answer.header("connection"), Some("close"), "{offer}");
            assert!(client.ends_in_order().await, "{offer}");
        }
    }
    let lines = gateway.lines(OFFERS.len() * 2).await;
    assert_eq!(lines.len(), OFFERS.len() * 2);
    let told = |line: &serde_json::Value| line["reason"] == "bad_framing" && line["route"] == "github";
    assert!(lines.iter().all(told), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_ignore_offers() {
    // Java's own client makes one with every request over plain HTTP: its events would be lost.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "ignore_upgrade: true")).await;
    for (number, offer) in OFFERS.into_iter().enumerate() {
        let mut client = Client::connect(gateway.address).await;
        client.send(&offering(offer, number)).await;
        assert_eq!(client.any_answer().await.status, 200, "{offer}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.body, format!("{{\"n\":{number}}}").into_bytes());
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(seen.count(name), 0, "{offer}");
        }
    }
    assert_eq!(upstream.count(), OFFERS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_offer_does_not_close_other_routes_or_the_application() {
    // WebSockets of the application go through the same gateway.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&format!("{}passthrough: app\n", route_yaml(upstream.address, ""))).await;
    for offer in OFFERS {
        let page = format!("GET /page HTTP/1.1\r\nHost: a\r\n{offer}\r\n\r\n");
        assert_eq!(request(gateway.address, page.as_bytes()).await.status, 200, "{offer}");
    }
}
