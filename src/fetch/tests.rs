//! The fetcher against a publisher on loopback.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::publisher::{Names, Publisher, authority};
use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::observe::Metrics;
use crate::observe::metrics::Build;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

/// A short time to wait, where waiting is what is tested.
const SHORT: Duration = Duration::from_millis(300);

struct Bench {
    fetcher: Fetcher,
    clock: ManualClock,
    metrics: Metrics,
}

fn bench(world: World) -> Bench {
    let build = Build {
        version: "",
        revision: "",
    };
    let (clock, metrics) = (ManualClock::at(NOW), Metrics::new(build, &[]));
    Bench {
        fetcher: Fetcher::new(world, &Connector::new(), metrics.fetches(), clock.clock()),
        clock,
        metrics,
    }
}

impl Bench {
    async fn fetch(&self, source: &KeySource) -> Result<Arc<FetchedKey>, FetchError> {
        // An allowance of its own: what is tested is something else.
        self.fetcher.fetch(source, &Allowance::default()).await
    }

    fn counted(&self, result: &str) -> usize {
        let start = format!("hookward_key_fetches_total{{result=\"{result}\"}} ");
        let text = self.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap().parse().unwrap()
    }
}

fn certificate(name: &str) -> KeySource {
    KeySource::certificate(PinnedUrl::fixed(&format!("https://keys.example/{name}.pem")).unwrap())
}

fn key_set(kid: &str) -> KeySource {
    KeySource::key_set(
        PinnedUrl::fixed("https://keys.example/jwks").unwrap(),
        Some(kid.to_owned()),
    )
}

fn pem() -> String {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let params = CertificateParams::new(["signer.example".to_owned()]).unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn bare(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_key_is_asked_for_once_and_plainly() {
    // What a fetch tells about us, and how often, is in the hands of whoever writes forgeries.
    let pem = pem();
    let publisher = Publisher::answering(move |_| ok(&pem)).await;
    let bench = bench(publisher.world());
    for _ in 0..3 {
        bench.fetch(&certificate("a")).await.unwrap();
    }
    let heads = publisher.seen.heads.lock().clone();
    let agent = concat!("hookward/", env!("CARGO_PKG_VERSION"));
    let expected = format!(
        "GET /a.pem HTTP/1.1\r\nHost: keys.example\r\nUser-Agent: {agent}\r\nAccept: */*\r\nAccept-Encoding: \
         identity\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(heads, [expected]);
    assert_eq!((publisher.contacts(), bench.counted("ok")), (1, 1));
    bench.clock.advance(cache::FRESH);
    bench.fetch(&certificate("a")).await.unwrap();
    assert_eq!((publisher.contacts(), bench.counted("ok")), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_for_one_address_is_one_exchange() {
    // A hundred thousand forgeries must not become a hundred thousand requests in our name.
    let pem = pem();
    let publisher = Publisher::answering(move |target| match target {
        "/good.pem" => ok(&pem),
        "/gone.pem" => bare(404),
        "/broken.pem" => bare(500),
        _ => ok("no certificate"),
    })
    .await;
    let bench = bench(publisher.world());
    let cases = [
        ("good", Ok(()), cache::FRESH),
        ("gone", Err(FetchError::Absent), cache::ABSENT),
        ("broken", Err(FetchError::Unreachable), cache::UNREACHABLE),
        ("none", Err(FetchError::Refused), cache::ABSENT),
    ];
    for (name, expected, lifetime) in cases {
        let source = certificate(name);
        for round in 1..=2 {
            let before = publisher.contacts();
            for _ in 0..100_000 / 8 {
                assert_eq!(bench.fetch(&source).await.map(drop), expected, "{name}");
            }
            assert_eq!(publisher.contacts() - before, 1, "{name} in round {round}");
            bench.clock.advance(lifetime);
        }
    }
}

#[tokio::test]
async fn a_flood_of_addresses_ends_with_the_allowance_and_spares_good_keys() {
    // Forgeries name as many certificates as they like: each name that costs an exchange is a request that we send for
    // them, and each that costs memory pushes something out.
    let pem = pem();
    let publisher = Publisher::answering(move |target| match target {
        "/good.pem" => ok(&pem),
        _ => bare(404),
    })
    .await;
    let bench = bench(publisher.world());
    let (ours, other) = (Allowance::default(), Allowance::default());
    bench.fetcher.fetch(&certificate("good"), &ours).await.unwrap();
    for minute in 0..40 {
        let before = publisher.contacts();
        let mut absent = 0;
        for name in 0..100 {
            let source = certificate(&format!("{minute}-{name}"));
            match bench.fetcher.fetch(&source, &ours).await {
                Err(FetchError::Absent) => absent += 1,
                Err(FetchError::Unreachable) => {}
                wrong => panic!("{wrong:?}"),
            }
        }
        let allowed = if minute == 0 { 9 } else { 10 };
        assert_eq!((absent, publisher.contacts() - before), (allowed, allowed));
        bench.clock.advance(ALLOWANCE_TIME);
    }
    assert_eq!(bench.counted("limited"), 40 * 100 - 399);
    let before = publisher.contacts();
    for allowance in [&ours, &other] {
        bench.fetcher.fetch(&certificate("good"), allowance).await.unwrap();
    }
    assert_eq!(publisher.contacts(), before);
}

#[tokio::test]
async fn room_is_bounded_and_failures_make_way() {
    // A cache that grows with forgeries ends the process; one that drops keys for them ends verification.
    let pem = pem();
    let publisher = Publisher::answering(move |target| match target.contains("good") {
        true => ok(&pem),
        false => bare(404),
    })
    .await;
    let bench = bench(publisher.world());
    bench.fetch(&certificate("good")).await.unwrap();
    for name in 0..cache::ENTRIES_MAX * 2 {
        let source = certificate(&format!("x{name}"));
        assert_eq!(bench.fetch(&source).await.err(), Some(FetchError::Absent));
    }
    let before = publisher.contacts();
    bench.fetch(&certificate("good")).await.unwrap();
    assert_eq!(publisher.contacts(), before);
}

#[tokio::test]
async fn requests_that_want_the_same_key_wait_for_one_exchange() {
    // A rotation makes every event want the new key at once; and the first to want it may go away.
    let (pem, gate) = (pem(), Arc::new(Semaphore::new(0)));
    let held = Arc::clone(&gate);
    let publisher = Publisher::called("keys.example", 2999, move |_, mut wire| {
        let (pem, held) = (pem.clone(), Arc::clone(&held));
        async move {
            held.acquire().await.unwrap().forget();
            let _ = wire.write_all(&ok(&pem)).await;
        }
    })
    .await;
    let bench = bench(publisher.world());
    let source = certificate("a");
    let mut first = Box::pin(bench.fetch(&source));
    assert!(futures_poll(&mut first).await.is_none());
    let rest: Vec<_> = (0..100)
        .map(|_| {
            let (fetcher, source) = (bench.fetcher.clone(), source.clone());
            tokio::spawn(async move { fetcher.fetch(&source, &Allowance::default()).await.map(drop) })
        })
        .collect();
    drop(first);
    gate.add_permits(1);
    for waiting in rest {
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }
    assert_eq!(publisher.contacts(), 1);
}

/// The outcome of `future`, if it has one at once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn what_an_answer_means_is_what_its_status_says() {
    // A redirect that is followed leads where nobody has pinned; an outage that is taken for "no such key" makes the
    // provider give its events up.
    let publisher = Publisher::answering(|target| {
        let status: u16 = target[1..].trim_end_matches(".pem").parse().unwrap();
        let more = "Location: https://keys.example/200.pem\r\nContent-Length: 0";
        format!("HTTP/1.1 {status} Status\r\n{more}\r\n\r\n").into_bytes()
    })
    .await;
    let bench = bench(publisher.world());
    let refused = [200, 201, 202, 204, 206, 300, 301, 302, 303, 304, 307, 308, 399];
    let absent = [400, 401, 403, 404, 405, 410, 418, 451];
    let unreachable = [408, 425, 429, 500, 502, 503, 504, 599];
    let cases = refused.map(|status| (status, FetchError::Refused)).into_iter();
    let cases = cases.chain(absent.map(|status| (status, FetchError::Absent)));
    let cases = cases.chain(unreachable.map(|status| (status, FetchError::Unreachable)));
    for (number, (status, expected)) in cases.enumerate() {
        let source = certificate(&status.to_string());
        assert_eq!(bench.fetch(&source).await.err(), Some(expected), "{status}");
        assert_eq!(publisher.contacts(), number + 1, "{status}");
    }
}

#[tokio::test]
async fn an_answer_has_bounds() {
    // The publisher, or who has taken its place, must not fill our memory or give its answer in a form that two readers
    // read differently.
    let big = "x".repeat(64 * 1024 + 1);
    let publisher = Publisher::answering(move |target| match target {
        "/length.pem" => ok(&big),
        "/chunked.pem" => format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{big}\r\n0\r\n\r\n",
            big.len()
        )
        .into(),
        "/closed.pem" => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{big}").into_bytes(),
        "/zipped.pem" => b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx".to_vec(),
        "/coded.pem" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_vec(),
        "/cut.pem" => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx".to_vec(),
        "/hints.pem" => b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/hinting.pem" => b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100),
        "/noise.pem" => b"\0\0\0\0\r\n\r\n".to_vec(),
        _ => Vec::new(),
    })
    .await;
    let bench = bench(publisher.world().within(Duration::from_secs(20)));
    let cases = [
        ("length", FetchError::Refused),
        ("chunked", FetchError::Refused),
        ("closed", FetchError::Refused),
        ("zipped", FetchError::Refused),
        ("coded", FetchError::Refused),
        ("hints", FetchError::Absent),
        ("hinting", FetchError::Unreachable),
        ("cut", FetchError::Unreachable),
        ("noise", FetchError::Unreachable),
        ("nothing", FetchError::Unreachable),
    ];
    for (name, expected) in cases {
        assert_eq!(bench.fetch(&certificate(name)).await.err(), Some(expected), "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_drips_is_not_waited_for() {
    // Each waiting request holds a place of its route: a publisher that answers a byte a second stops the route.
    let publisher = Publisher::called("keys.example", 2999, |target, mut wire| async move {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n".as_slice();
        let sent = if target == "/silent.pem" { b"".as_slice() } else { head };
        let _ = wire.write_all(sent).await;
        let mut every = tokio::time::interval(Duration::from_millis(20));
        while target == "/drips.pem" && wire.write_all(b"x").await.is_ok() && wire.flush().await.is_ok() {
            every.tick().await;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let bench = bench(publisher.world().within(SHORT));
    for name in ["silent", "stops", "drips"] {
        assert_eq!(
            bench.fetch(&certificate(name)).await.err(),
            Some(FetchError::Unreachable),
            "{name}"
        );
    }
    assert_eq!(bench.counted("unreachable"), 3);
}

#[tokio::test]
async fn only_the_pinned_name_under_a_trusted_authority_is_asked() {
    // Whoever can bend the way to a publisher must not become the publisher.
    let answer = |_: String, mut wire: super::publisher::Wire| async move {
        let _ = wire.write_all(&bare(404)).await;
    };
    let right = Publisher::called("keys.example", 2999, answer).await;
    assert_eq!(
        bench(right.world()).fetch(&certificate("a")).await.err(),
        Some(FetchError::Absent)
    );
    let stranger = World {
        authorities: Some(vec![authority().der().to_vec()]),
        ..right.world()
    };
    let none = World {
        authorities: None,
        ..right.world()
    };
    let other = Publisher::called("other.example", 2999, answer).await;
    let wildcard = Publisher::called("*.keys.example", 2999, answer).await;
    let expired = Publisher::called("keys.example", 2020, answer).await;
    let worlds = [stranger, none, other.world(), wildcard.world(), expired.world()];
    for (number, world) in worlds.into_iter().enumerate() {
        let outcome = bench(world).fetch(&certificate("a")).await;
        assert_eq!(outcome.err(), Some(FetchError::Unreachable), "{number}");
    }
    for publisher in [&other, &wildcard, &expired] {
        assert_eq!((publisher.contacts(), publisher.seen.heads.lock().len()), (1, 0));
    }
    assert_eq!(right.seen.heads.lock().len(), 1);
}

#[tokio::test]
async fn inside_addresses_are_not_contacted() {
    // A name that resolves to our own network makes the gateway the burglar's hand.
    let publisher = Publisher::answering(|_| bare(404)).await;
    let (here, port) = (publisher.address, publisher.address.port());
    let public: SocketAddr = "52.94.5.1:443".parse().unwrap();
    let answers = [
        vec![here],
        vec![SocketAddr::new(here.ip(), 443)],
        vec![SocketAddr::new("10.0.0.1".parse().unwrap(), 443)],
        vec![SocketAddr::new("169.254.169.254".parse().unwrap(), 443)],
        vec![SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), 443)],
        vec![SocketAddr::new("64:ff9b::7f00:1".parse().unwrap(), 443)],
        vec![SocketAddr::new(public.ip(), port)],
        // One inside address among public ones: nobody of them is asked.
        vec![public, here],
        vec![here, public],
        Vec::new(),
    ];
    for answer in answers {
        let told = format!("{answer:?}");
        let bench = bench(World::resolved_by(Names::always(answer)));
        let outcome = bench.fetch(&certificate("a")).await;
        assert_eq!(outcome.err(), Some(FetchError::Unreachable), "{told}");
    }
    assert_eq!(publisher.contacts(), 0);
}

#[tokio::test]
async fn a_second_answer_of_the_name_server_changes_nothing() {
    // Rebinding: the address that was judged and the address that is connected to are the same or the judging is vain.
    let pem = pem();
    let good = Publisher::answering(move |_| ok(&pem)).await;
    let trap = Publisher::answering(|_| bare(404)).await;
    let names = Names::in_turn(vec![vec![good.address], vec![trap.address]]);
    let bench = bench(good.world_resolved_by(Arc::clone(&names)));
    bench.fetch(&certificate("a")).await.unwrap();
    assert_eq!(names.asked.load(Ordering::SeqCst), 1);
    assert_eq!((good.contacts(), trap.contacts()), (1, 0));
}

#[tokio::test]
async fn a_dead_address_is_passed_over() {
    // Large names have several addresses, and one of them is always down.
    let pem = pem();
    let publisher = Publisher::answering(move |_| ok(&pem)).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = listener.local_addr().unwrap();
    drop(listener);
    let names = Names::always(vec![dead, publisher.address]);
    let bench = bench(publisher.world_resolved_by(names));
    bench.fetch(&certificate("a")).await.unwrap();
    let nobody = Names::always(vec![dead]);
    let without = super::tests::bench(publisher.world_resolved_by(nobody));
    let outcome = without.fetch(&certificate("a")).await;
    assert_eq!(outcome.err(), Some(FetchError::Unreachable));
}

#[tokio::test]
async fn keys_outlive_an_outage_of_their_publisher_for_a_day() {
    // An hour without the key server must not be an hour without webhooks.
    let (pem, up) = (pem(), Arc::new(Mutex::new(true)));
    let is_up = Arc::clone(&up);
    let publisher = Publisher::answering(move |_| match *is_up.lock() {
        true => ok(&pem),
        false => bare(503),
    })
    .await;
    let bench = bench(publisher.world());
    let source = certificate("a");
    bench.fetch(&source).await.unwrap();
    *up.lock() = false;
    bench.clock.advance(cache::FRESH);
    for contacts in 2..5 {
        bench.fetch(&source).await.unwrap();
        bench.fetch(&source).await.unwrap();
        assert_eq!(
            publisher.contacts(),
            contacts,
            "a failing server is left alone for a while"
        );
        bench.clock.advance(cache::UNREACHABLE);
    }
    bench.clock.advance(cache::USABLE - cache::FRESH);
    assert_eq!(bench.fetch(&source).await.err(), Some(FetchError::Unreachable));
    *up.lock() = true;
    bench.clock.advance(cache::UNREACHABLE);
    bench.fetch(&source).await.unwrap();
}

#[tokio::test]
async fn a_key_that_a_set_lacks_is_looked_for_once_a_minute() {
    // Providers add keys and sign with them at once; forgers name keys that nobody has, as often as they like.
    let jwk = |kid: &str| {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}"#)
    };
    let kids = Arc::new(Mutex::new(vec!["a"]));
    let published = Arc::clone(&kids);
    let publisher = Publisher::answering(move |_| {
        let keys: Vec<_> = published.lock().iter().map(|kid| jwk(kid)).collect();
        ok(&format!("{{\"keys\":[{}]}}", keys.join(",")))
    })
    .await;
    let bench = bench(publisher.world());
    bench.fetch(&key_set("a")).await.unwrap();
    for _ in 0..1000 {
        assert_eq!(bench.fetch(&key_set("b")).await.err(), Some(FetchError::Absent));
    }
    assert_eq!(publisher.contacts(), 1);
    kids.lock().push("b");
    bench.clock.advance(cache::LACKING);
    for kid in ["b", "a", "b"] {
        bench.fetch(&key_set(kid)).await.unwrap();
    }
    assert_eq!(publisher.contacts(), 2);
    assert_eq!(bench.fetch(&key_set("c")).await.err(), Some(FetchError::Absent));
    assert_eq!(publisher.contacts(), 2);
}

#[tokio::test]
async fn a_new_key_is_not_missing_while_its_set_is_out_of_reach() {
    // "No such key" is final; a provider that has just rotated would give its events up over a hiccup.
    let up = Arc::new(Mutex::new(true));
    let is_up = Arc::clone(&up);
    let key = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let publisher = Publisher::answering(move |_| match *is_up.lock() {
        true => ok(&format!("{{\"keys\":[{key}]}}")),
        false => bare(503),
    })
    .await;
    let bench = bench(publisher.world());
    bench.fetch(&key_set("a")).await.unwrap();
    *up.lock() = false;
    bench.clock.advance(cache::LACKING);
    for _ in 0..100 {
        assert_eq!(bench.fetch(&key_set("b")).await.err(), Some(FetchError::Unreachable));
        bench.fetch(&key_set("a")).await.unwrap();
    }
    assert_eq!(publisher.contacts(), 2);
    *up.lock() = true;
    bench.clock.advance(cache::UNREACHABLE);
    assert_eq!(bench.fetch(&key_set("b")).await.err(), Some(FetchError::Absent));
}

#[tokio::test]
async fn forgeries_cannot_keep_a_good_key_from_being_refreshed() {
    // Otherwise a day of forgeries ends with a key that has expired and cannot be replaced.
    let pem = pem();
    let publisher = Publisher::answering(move |target| match target {
        "/good.pem" => ok(&pem),
        _ => bare(404),
    })
    .await;
    let bench = bench(publisher.world());
    let allowance = Allowance::default();
    bench.fetcher.fetch(&certificate("good"), &allowance).await.unwrap();
    for _ in 0..30 {
        bench.clock.advance(cache::FRESH);
        for name in 0..20 {
            let _ = bench.fetcher.fetch(&certificate(&format!("x{name}")), &allowance).await;
        }
        let before = publisher.contacts();
        bench.fetcher.fetch(&certificate("good"), &allowance).await.unwrap();
        assert_eq!(publisher.contacts() - before, 1);
    }
}

#[test]
fn a_fetch_ends_with_the_runtime() {
    // Regression: a flight that was dropped while it was begun waited for the lock of who began it, and the process
    // did not end.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let bench = bench(World::resolved_by(Names::always(Vec::new())));
    let handle = runtime.handle().clone();
    runtime.shutdown_timeout(Duration::from_secs(20));
    let _entered = handle.enter();
    let source = certificate("a");
    let mut fetched = std::pin::pin!(bench.fetch(&source));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(outcome) = fetched.as_mut().poll(&mut context) else {
        panic!("nobody is left to wait for");
    };
    assert_eq!(outcome.err(), Some(FetchError::Unreachable));
}

#[tokio::test]
async fn a_visit_is_one_request_that_counts() {
    // Confirmations that are retried without end subscribe us to nothing and cost the publisher.
    let publisher = Publisher::answering(|target| match target.starts_with("/?Action=ConfirmSubscription&") {
        true => ok("<ok/>"),
        false => bare(403),
    })
    .await;
    let bench = bench(publisher.world());
    let allowance = Allowance::default();
    let right = PinnedUrl::fixed("https://keys.example/?Action=ConfirmSubscription&Token=abc").unwrap();
    let wrong = PinnedUrl::fixed("https://keys.example/?Action=Unsubscribe").unwrap();
    assert_eq!(bench.fetcher.visit(&right, &allowance).await, Ok(()));
    assert_eq!(bench.fetcher.visit(&wrong, &allowance).await, Err(FetchError::Absent));
    for _ in 2..10 {
        assert_eq!(bench.fetcher.visit(&right, &allowance).await, Ok(()));
    }
    assert_eq!(
        bench.fetcher.visit(&right, &allowance).await,
        Err(FetchError::Unreachable)
    );
    assert_eq!(publisher.contacts(), 10);
}
