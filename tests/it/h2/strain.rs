//! Many requests at a time on few connections, when the gateway has more to do than its processors can.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{BODY, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, block, frame, genuine};
use crate::harness::{Conf, Gateway, Upstream, hold_thread};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_turn_is_for_one_request_of_however_many_that_came_with_it() {
    // Proxies have few connections with many requests on each: begun together, those of thirty connections are a thousand,
    // of which each finds its memory cold when its backend has answered, and which fill the places of their route. And
    // whoever brings fifty must not have fifty turns where his neighbours have one: a flood of streams would.
    for strained in [false, true] {
        let upstream = Upstream::holding(|_| 200).await;
        let conf = Conf::to(upstream.address).route(
            "github",
            "replay: off, limits: { rate: 1000/s, burst: 1000, in_flight: 1000 }",
        );
        let gateway = Gateway::start(&conf.yaml()).await;
        if strained {
            gateway.strain().await;
        }
        let mut connections = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(gateway.address).await.unwrap();
            let hello = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
            stream.write_all(&hello).await.unwrap();
            // What comes with the preface is read with it.
            stream.read_exact(&mut [0; 9]).await.unwrap();
            connections.push(stream);
        }
        let thread = hold_thread().await;
        for stream in &mut connections {
            let mut bytes = Vec::new();
            for n in 0..50 {
                bytes.extend(frame(HEADERS, END_HEADERS, 2 * n + 1, &block(&genuine())));
                bytes.extend(frame(DATA, END_STREAM, 2 * n + 1, BODY));
            }
            stream.write_all(&bytes).await.unwrap();
        }
        let most = gateway.most_begun("github", 100);
        let most_waiting = gateway.most_waiting("github", 100);
        drop(thread);
        upstream.reached(100).await;
        upstream.release(100);
        gateway.idle().await;
        let most = most.load(Ordering::Relaxed);
        assert_eq!(most <= 10, strained, "{most} at a time, strain: {strained}");
        // What waits is left with the system, but for what one read brings.
        let most_waiting = most_waiting.load(Ordering::Relaxed);
        assert_eq!(
            most_waiting <= 20,
            strained,
            "{most_waiting} read ahead, strain: {strained}"
        );
        assert!(gateway.lines(100).await.iter().all(|line| line["status"] == 200));
    }
}
