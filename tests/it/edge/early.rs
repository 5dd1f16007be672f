//! Refusals before the end of the body. What is left of the body must never be read as a request, and the sender must
//! see the status and not a reset.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Act, Client, Gateway, Upstream, bare, github, request, route_yaml, until};

/// How the body of the refused request is sent; there is a genuine request in it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Body {
    /// With a length, small enough to be read away.
    Small,
    /// With a length, too large to be read away.
    Large,
    /// In chunks, so nobody knows how much is left.
    Chunked,
    /// Announced, and sent although nobody asked for it.
    Expect,
    /// In HTTP/1.0, whose connections end with their first answer.
    Old,
}

const BODIES: [Body; 5] = [Body::Small, Body::Large, Body::Chunked, Body::Expect, Body::Old];

/// A refusal, and a request that meets it.
struct Case {
    status: u16,
    reason: &'static str,
    /// More of the configuration: limits of the process, then keys of the route.
    limits: &'static str,
    route: &'static str,
    start: &'static str,
    headers: &'static str,
    /// Whether the connection is kept once the body has been read away.
    keeps: bool,
    /// The refusal comes after the whole body, so its size and framing do not matter.
    after_body: bool,
}

const PLAIN: Case = Case {
    status: 0,
    reason: "",
    limits: "client_rate: 100000/s, client_burst: 100000",
    route: "",
    start: "POST /webhooks/github",
    headers: "",
    keeps: true,
    after_body: false,
};

const CASES: &[Case] = &[
    Case {
        status: 404,
        reason: "no_route",
        start: "POST /nowhere",
        ..PLAIN
    },
    Case {
        status: 405,
        reason: "method",
        start: "GET /webhooks/github",
        ..PLAIN
    },
    Case {
        status: 400,
        reason: "ambiguous_path",
        start: "POST /webhooks//github",
        ..PLAIN
    },
    Case {
        status: 400,
        reason: "ambiguous_header",
        headers: "X-Hub-Signature-256: a\r\nX-Hub-Signature-256: b\r\n",
        keeps: false,
        ..PLAIN
    },
    Case {
        status: 429,
        reason: "client_rate",
        limits: "client_rate: 1/h, client_burst: 1",
        ..PLAIN
    },
    Case {
        status: 429,
        reason: "client_busy",
        limits: "client_rate: 100000/s, client_burst: 100000, client_in_flight: 1",
        ..PLAIN
    },
    Case {
        status: 503,
        reason: "overload",
        limits: "client_rate: 100000/s, client_burst: 100000, in_flight: 1",
        ..PLAIN
    },
    Case {
        status: 503,
        reason: "busy",
        route: "limits: { in_flight: 1 }",
        ..PLAIN
    },
    Case {
        status: 503,
        reason: "memory",
        limits: "client_rate: 100000/s, client_burst: 100000, memory: 500000",
        route: "limits: { body: 500000 }",
        ..PLAIN
    },
    Case {
        status: 413,
        reason: "too_large",
        route: "limits: { body: 64 }",
        keeps: false,
        ..PLAIN
    },
    Case {
        status: 415,
        reason: "encoded",
        headers: "Content-Encoding: gzip\r\n",
        keeps: false,
        ..PLAIN
    },
    Case {
        status: 401,
        reason: "missing",
        after_body: true,
        ..PLAIN
    },
    Case {
        status: 401,
        reason: "mismatch",
        headers: "X-Hub-Signature-256: sha256=0000000000000000000000000000000000000000000000000000000000000000\r\n",
        after_body: true,
        ..PLAIN
    },
];

impl Case {
    /// The request on the wire.
    fn request(&self, body: Body, hidden: &[u8]) -> Vec<u8> {
        let version = if body == Body::Old { "1.0" } else { "1.1" };
        let filler = if body == Body::Large { 400_000 } else { 0 };
        let length = hidden.len() + filler;
        let framing = match body {
            Body::Chunked => "Transfer-Encoding: chunked".to_owned(),
            Body::Expect => format!("Expect: 100-continue\r\nContent-Length: {length}"),
            _ => format!("Content-Length: {length}"),
        };
        let head = format!(
            "{} HTTP/{version}\r\nHost: a\r\n{}{framing}\r\n\r\n",
            self.start, self.headers
        );
        let mut bytes = head.into_bytes();
        if body == Body::Chunked {
            bytes.extend_from_slice(format!("{length:x}\r\n").as_bytes());
        }
        // Twice, so that one stands at the beginning of whatever is read on its own.
        bytes.extend_from_slice(hidden);
        bytes.extend(
            std::iter::repeat_n(hidden, filler.div_ceil(hidden.len()))
                .flatten()
                .take(filler),
        );
        if body == Body::Chunked {
            bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        }
        bytes
    }

    fn is_kept(&self, body: Body) -> bool {
        match body {
            Body::Old => false,
            Body::Small => self.keeps,
            // Memory is asked for when a piece is there, and this body comes in one.
            Body::Expect => self.keeps && (self.after_body || self.reason == "memory"),
            Body::Large | Body::Chunked => self.keeps && self.after_body,
        }
    }
}

/// A genuine event that no other is equal to.
fn fresh() -> Vec<u8> {
    fresh_of(16)
}

/// A genuine event with `bytes` bytes of body.
fn fresh_of(bytes: usize) -> Vec<u8> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let start = format!("{{\"n\":{n}");
    let space = " ".repeat(bytes - start.len() - 1);
    github(format!("{start}{space}}}").as_bytes())
}

/// Brings a gateway to the point where it refuses, and back.
struct Scene {
    gateway: Gateway,
    upstream: Upstream,
    /// Somebody who takes a place and keeps it.
    occupant: Option<Client>,
}

impl Scene {
    async fn set(case: &Case) -> Scene {
        let upstream = Upstream::acting(|_, request| match request.header("x-act") {
            Some("hold") => Act::Hold(bare(200)),
            _ => Act::Answer(bare(200)),
        })
        .await;
        let yaml = route_yaml(upstream.address, case.route);
        let yaml = yaml.split_once('\n').unwrap().1;
        let gateway = Gateway::start(&format!("limits: {{ {} }}\n{yaml}", case.limits)).await;
        Scene {
            gateway,
            upstream,
            occupant: None,
        }
    }

    async fn refuses(&mut self, case: &Case) {
        if case.reason == "client_rate" {
            self.gateway.clock.advance(Duration::from_secs(3600));
            assert_eq!(request(self.gateway.address, &fresh()).await.status, 200);
        }
        let occupied = match case.reason {
            "busy" | "client_busy" | "overload" => 16,
            "memory" => 500_000,
            _ => return,
        };
        // Whoever was answered last gives its place back a moment later.
        self.reaches("hookward_in_flight{route=\"github\"}", 0.0).await;
        let request = fresh_of(occupied);
        let mut client = Client::connect(self.gateway.address).await;
        if case.reason == "busy" {
            // A route's places are for what is proven.
            let text = String::from_utf8(request).unwrap();
            let before = self.upstream.count();
            client
                .send(text.replacen("\r\n", "\r\nX-Act: hold\r\n", 1).as_bytes())
                .await;
            self.upstream.reached(before + 1).await;
        } else {
            client.send(&request[..request.len() - 1]).await;
            self.reaches("hookward_buffered_bytes", occupied as f64 - 1.0).await;
        }
        self.occupant = Some(client);
    }

    async fn accepts(&mut self, case: &Case) {
        if case.reason == "client_rate" {
            self.gateway.clock.advance(Duration::from_secs(3600));
        }
        if let Some(mut client) = self.occupant.take() {
            match case.reason {
                "busy" => self.upstream.release(1),
                _ => drop(client.send(b"}").await),
            }
            assert_eq!(client.answer().await.status, 200);
            self.reaches("hookward_in_flight{route=\"github\"}", 0.0).await;
        }
    }

    async fn reaches(&self, series: &str, value: f64) {
        let what = format!("{series} to be {value}");
        until(&what, || self.gateway.metric(series) == value).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_hidden_in_a_refused_body_is_never_executed() {
    // The classic: a proxy answers early, goes on reading at the wrong byte, and takes the inside of one request for
    // the next one, which then passes for somebody else's.
    for case in CASES {
        let mut scene = Scene::set(case).await;
        for body in BODIES {
            let what = format!("{} {} {body:?}", case.status, case.reason);
            scene.refuses(case).await;
            let before = scene.upstream.seen().len();
            let hidden = fresh();
            let mut client = Client::connect(scene.gateway.address).await;
            client.send(&case.request(body, &hidden)).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, case.status, "{what}");
            let kept = case.is_kept(body);
            let connection = if kept { "keep-alive" } else { "close" };
            assert_eq!(answer.header("connection"), Some(connection), "{what}");
            scene.accepts(case).await;
            let accepted = scene.upstream.seen().len();
            if kept {
                client.send(&fresh()).await;
                assert_eq!(client.answer().await.status, 200, "{what}: the next request");
            } else {
                assert!(client.ends_in_order().await, "{what}");
            }
            let seen = scene.upstream.seen();
            assert_eq!(seen.len() - accepted, usize::from(kept), "{what}");
            assert!(
                seen[before..].iter().all(|seen| !hidden.ends_with(&seen.body)),
                "{what}"
            );
        }
        let lines = scene.gateway.lines(BODIES.len() + scene.upstream.seen().len()).await;
        let refused: Vec<_> = lines.iter().filter(|line| line["outcome"] == "refused").collect();
        assert_eq!(refused.len(), BODIES.len(), "{}", case.reason);
        assert!(
            refused.iter().all(|line| line["reason"] == case.reason),
            "{}",
            case.reason
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_arrives_although_the_upload_goes_on() {
    // Most clients send everything before they read. One that is reset instead sees a network error, retries for days,
    // and nobody learns that the event was too large.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let megabytes = vec![b'x'; 4 << 20];
    for (start, status) in [
        ("POST /nowhere", 404),
        ("POST /webhooks/github", 413),
        ("PUT /webhooks/github", 405),
    ] {
        for chunked in [false, true] {
            let framing = match chunked {
                true => "Transfer-Encoding: chunked".to_owned(),
                false => format!("Content-Length: {}", megabytes.len()),
            };
            let mut client = Client::connect(gateway.address).await;
            client
                .send(format!("{start} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes())
                .await;
            let mut taken = true;
            for piece in megabytes.chunks(1 << 20) {
                if chunked {
                    taken &= client.send(format!("{:x}\r\n", piece.len()).as_bytes()).await;
                }
                taken &= client.send(piece).await;
                if chunked {
                    taken &= client.send(b"\r\n").await;
                }
            }
            if chunked {
                taken &= client.send(b"0\r\n\r\n").await;
            }
            let what = format!("{start} chunked: {chunked}");
            assert!(taken, "{what}: reset while sending");
            let answer = client.answer().await;
            assert_eq!(
                (answer.status, answer.header("connection")),
                (status, Some("close")),
                "{what}"
            );
            assert!(client.ends_in_order().await, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_stops_uploading_is_cut_off() {
    // Reading a refused body away is a courtesy with an end.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&route_yaml(upstream.address, "")).await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let chunk = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
    let cut_off = async { while client.send(&chunk).await {} };
    tokio::time::timeout(Duration::from_secs(20), cut_off)
        .await
        .expect("still being read");
    assert_eq!(gateway.lines(1).await[0]["reason"], "no_route");
}
