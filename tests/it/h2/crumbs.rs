//! Bodies that come in crumbs: frames of a byte or two, each of which costs us what a large one costs.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame, genuine};
use crate::harness::{Client, Conf, Event, Gateway, Upstream, sign_github, until};

const PING: u8 = 6;
const ACK: u8 = 1;

/// The head of an event with this `body`.
fn head(on: u32, body: &[u8]) -> Vec<u8> {
    let mut fields = genuine();
    fields.truncate(5);
    fields.push(super::frames::pair("x-hub-signature-256", sign_github(body)));
    frame(HEADERS, END_HEADERS, on, &block(&fields))
}

/// A connection of HTTP/2 of which each piece is waited for.
struct Wire(TcpStream);

impl Wire {
    async fn connect(address: SocketAddr) -> Wire {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let begun = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
        stream.write_all(&begun).await.unwrap();
        Wire(stream)
    }

    /// Sends frames and waits until they were looked at; how many answers had begun by then, `None` when the connection
    /// ended instead.
    async fn send(&mut self, frames: &[u8]) -> Option<usize> {
        let sent = [frames, &frame(PING, 0, 0, b"12345678")].concat();
        self.0.write_all(&sent).await.ok()?;
        let mut answers = 0;
        loop {
            let [a, b, c, kind, flags, ..] = self.frame().await?;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            answers += usize::from(kind == HEADERS);
            if (kind, flags) == (PING, ACK) {
                return Some(answers);
            }
        }
    }

    async fn frame(&mut self) -> Option<[u8; 9]> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        Some(head)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_bodies_by_the_byte_is_sent_away_by_name() {
    // Sixteen hundred frames fit into one read, and everybody on the thread waits until they are taken apart; a sender
    // who keeps below what piles up unread was borne for ever.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "replay: off").yaml()).await;
    let mut wire = Wire::connect(gateway.address).await;
    let body = [b'x'; 1000];
    let begun = [head(1, &body), head(3, &body)].concat();
    assert_eq!(wire.send(&begun).await, Some(0));
    let mut sent = 0;
    while sent < 600 && wire.send(&frame(DATA, 0, 1, b"x")).await.is_some() {
        sent += 1;
    }
    assert_eq!(sent, 256);
    gateway.idle().await;
    for line in gateway.lines(2).await {
        assert_eq!(
            (&line["route"], &line["reason"]),
            (&"github".into(), &"bad_framing".into())
        );
    }
    until("the end to be counted", || {
        gateway.metric("hookward_connections_turned_away_total{reason=\"flood\"}") == 1.0
    })
    .await;
    let mut honest = Client::connect(gateway.address).await;
    honest.send(&Event::of("github", "1").bytes()).await;
    assert_eq!(honest.answer().await.status, 200);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pile_of_crumbs_is_not_taken_apart() {
    // A connection that is ended only after its pile was looked at has cost what it was meant to cost.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&Conf::to(upstream.address).route("github", "replay: off").yaml()).await;
    let mut wire = Wire::connect(gateway.address).await;
    let pile = [head(1, b""), frame(DATA, 0, 1, b"x").repeat(1000)].concat();
    assert_eq!(wire.send(&pile).await, None);
    gateway.idle().await;
    assert_eq!(gateway.metric("hookward_buffered_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn short_bodies_without_number_are_no_crumbs() {
    // A connection that carries thousands of events, each with a short body and its end in a frame of its own, is what
    // libraries make of ordinary traffic.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address).route("github", "replay: off, limits: { rate: 100000/s, burst: 100000 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut wire = Wire::connect(gateway.address).await;
    let mut answers = 0;
    for n in 0..500 {
        let on = n * 2 + 1;
        let event = [
            head(on, b"{}"),
            frame(DATA, 0, on, b"{}"),
            frame(DATA, END_STREAM, on, b""),
        ];
        // The h2 crate ends a connection at its hundredth empty frame that ends nothing; these end their streams.
        answers += wire.send(&event.concat()).await.expect("the connection lives");
    }
    while answers < 500 {
        answers += wire.send(b"").await.expect("the connection lives");
    }
    assert_eq!(upstream.count(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crumbs_of_a_proxy_are_borne() {
    // A proxy hands on what its clients send as it comes: one of them would end the connection of all.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address)
        .top("client: { trusted_proxies: [127.0.0.1] }")
        .route("github", "replay: off");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut wire = Wire::connect(gateway.address).await;
    let body = [b'x'; 600];
    assert_eq!(wire.send(&head(1, &body)).await, Some(0));
    for _ in 1..600 {
        assert_eq!(wire.send(&frame(DATA, 0, 1, b"x")).await, Some(0));
    }
    let mut answers = wire.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    while answers == Some(0) {
        answers = wire.send(b"").await;
    }
    assert_eq!(answers, Some(1));
    assert_eq!(upstream.seen()[0].body, body);
}
