//! Floods of frames, in small: each ends by the gateway's own doing or stands still, beside events that are served, and
//! leaves nothing behind. `tests/long/edge.py h2` has them for minutes, with memory and latency.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, field, frame, genuine,
    pair,
};
use crate::harness::{Client, Conf, Event, Gateway, Upstream, until};

const PRIORITY: u8 = 2;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// Bytes after which a flood has said enough.
const ENOUGH: usize = 4 << 20;

struct Flood {
    name: &'static str,
    /// Whether its sender reads what it is answered.
    reads: bool,
    first: Vec<u8>,
    /// The n-th of its pieces.
    piece: Piece,
}

type Piece = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

fn flood(name: &'static str, reads: bool, first: Vec<u8>, piece: Piece) -> Flood {
    Flood {
        name,
        reads,
        first,
        piece,
    }
}

fn head(on: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, on, &block(&genuine()))
}

/// Streams that clients may open, from the number of a piece.
fn stream(n: u32) -> u32 {
    n * 2 + 1
}

fn floods() -> Vec<Flood> {
    let begun = |streams: u32| (0..streams).flat_map(|n| head(stream(n), 0)).collect::<Vec<_>>();
    let mut bomb = vec![0x40];
    bomb.extend(&field(&pair("x-bomb", "b".repeat(3900)))[1..]);
    let bomb = [block(&genuine()), bomb].concat();
    let spent = [block(&genuine()), vec![0xbe; 12_000]].concat();
    let piece = (0..100)
        .flat_map(|n| field(&pair(format!("x-{n:06}"), "y".repeat(100))))
        .collect::<Vec<_>>();
    vec![
        flood(
            "streams that are cancelled",
            true,
            vec![],
            Box::new(|n| {
                [
                    head(stream(n), 0),
                    frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes()),
                ]
                .concat()
            }),
        ),
        flood(
            "streams that the gateway must cancel",
            true,
            vec![],
            Box::new(|n| [head(stream(n), 0), frame(WINDOW_UPDATE, 0, stream(n), &[0; 4])].concat()),
        ),
        flood(
            "a head without an end",
            true,
            frame(HEADERS, 0, 1, &block(&genuine())),
            Box::new(move |_| frame(CONTINUATION, 0, 1, &piece)),
        ),
        flood(
            "a head of nothing without an end",
            true,
            frame(HEADERS, 0, 1, &block(&genuine())),
            Box::new(|_| frame(CONTINUATION, 0, 1, b"").repeat(100)),
        ),
        flood(
            "bodies of nothing",
            true,
            begun(50),
            Box::new(|n| frame(DATA, 0, stream(n % 50), b"")),
        ),
        flood(
            "large fields by reference",
            true,
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb),
            Box::new(move |n| frame(HEADERS, END_HEADERS | END_STREAM, stream(n + 1), &spent)),
        ),
        flood(
            "settings",
            false,
            vec![],
            Box::new(|_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100)),
        ),
        flood(
            "pings",
            false,
            vec![],
            Box::new(|_| frame(PING, 0, 0, b"12345678").repeat(100)),
        ),
        flood(
            "priorities",
            false,
            vec![],
            Box::new(|n| frame(PRIORITY, 0, stream(n % 1000), &[0, 0, 0, 2, 9]).repeat(10)),
        ),
    ]
}

/// Sends a flood until it is over, reading what comes on the way where `reads` says so; tells whether the other side
/// ended it.
async fn send(address: SocketAddr, flood: &Flood) -> bool {
    let Flood {
        reads, first, piece, ..
    } = flood;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let reader = reads.then(|| {
        tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while matches!(reading.read(&mut buffer).await, Ok(1..)) {}
        })
    });
    let mut sent = 0;
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, b""), first].concat();
    let pieces = std::iter::once(begun).chain((0..).map(piece));
    for piece in pieces {
        if sent > ENOUGH {
            break;
        }
        sent += piece.len();
        match tokio::time::timeout(Duration::from_secs(3), writing.write_all(&piece)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return true,
            // It reads no more from somebody who does not read either.
            Err(_) => break,
        }
    }
    if let Some(reader) = reader
        && tokio::time::timeout(Duration::from_secs(3), reader).await.is_ok()
    {
        return true;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_end_and_leave_nothing_behind() {
    // One connection of HTTP/2 that costs its sender nothing must not cost us memory without bound, nor anybody else an
    // event.
    let upstream = Upstream::ok().await;
    let conf = Conf::to(upstream.address)
        .top("client: { body_timeout: 2s }")
        .route("github", "replay: off, limits: { rate: 100000/s, burst: 100000 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut honest = Client::connect(gateway.address).await;
    let mut events = 0;
    for flood in floods() {
        let sending = send(gateway.address, &flood);
        tokio::pin!(sending);
        let ended = loop {
            tokio::select! {
                ended = &mut sending => break ended,
                () = tokio::time::sleep(Duration::from_millis(5)) => {
                    honest.send(&Event::of("github", "1").bytes()).await;
                    assert_eq!(honest.answer().await.status, 200, "beside {}", flood.name);
                    events += 1;
                }
            }
        };
        assert!(ended, "{} was borne", flood.name);
        until(&format!("{} to be over", flood.name), || {
            gateway.metric("hookward_open_connections") <= 1.0
        })
        .await;
        gateway.idle().await;
        assert_eq!(
            gateway.metric("hookward_in_flight{route=\"github\"}"),
            0.0,
            "{}",
            flood.name
        );
        assert_eq!(gateway.metric("hookward_buffered_bytes"), 0.0, "{}", flood.name);
    }
    assert_eq!(upstream.count(), events, "a flood became events");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_makes_room_for_are_given_up() {
    // A hundred streams whose window stays shut would hold a hundred answers, and their places, for ever.
    let upstream = Upstream::answering(|_, _| {
        let length = 200_000;
        [
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes(),
            vec![b'x'; length],
        ]
        .concat()
    })
    .await;
    let conf = Conf::to(upstream.address).route("github", "replay: off, limits: { in_flight: 50 }");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut bytes = [PREFACE, &shut].concat();
    for n in 0..40 {
        bytes.extend(
            [
                head(self::stream(n), 0),
                frame(DATA, END_STREAM, self::stream(n), super::frames::BODY),
            ]
            .concat(),
        );
    }
    stream.write_all(&bytes).await.unwrap();
    upstream.reached(40).await;
    let mut honest = Client::connect(gateway.address).await;
    honest.send(&Event::of("github", "1").bytes()).await;
    assert_eq!(honest.answer().await.status, 200);
    drop(stream);
    gateway.idle().await;
    assert_eq!(gateway.metric("hookward_in_flight{route=\"github\"}"), 0.0);
}
