//! The price of a verdict: `begin`, `update`, `finish` over one body.
//!
//! GitHub stands for a MAC over the body alone, Stripe for one with a parsed header and a timestamp, Standard Webhooks
//! for one with an id as well. A forged request costs the same as a real one, by design, so `missing` has to be as
//! slow as `github`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use hookward::clock::UnixMillis;
use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::signature::{Head, KeyedSecret, Verifier, VerifierOptions, sign};
use http::{HeaderMap, Method};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    verify(&mut criterion);
    criterion.final_summary();
}

fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    for kib in [1, 10, 100] {
        let body = vec![b'x'; kib * 1024];
        group.throughput(Throughput::Bytes(body.len() as u64));
        for id in ["github", "stripe", "standard-webhooks"] {
            let (verifier, headers) = signed(id, &body);
            assert!(verdict(&verifier, &headers, &body));
            let name = BenchmarkId::new(id, format!("{kib}KiB"));
            group.bench_function(name, |b| {
                b.iter(|| verdict(&verifier, black_box(&headers), black_box(&body)))
            });
        }
        let (verifier, _) = signed("github", &body);
        let nothing = HeaderMap::new();
        assert!(!verdict(&verifier, &nothing, &body));
        let name = BenchmarkId::new("missing", format!("{kib}KiB"));
        group.bench_function(name, |b| {
            b.iter(|| verdict(&verifier, black_box(&nothing), black_box(&body)))
        });
    }
    group.finish();
}

fn signed(provider: &str, body: &[u8]) -> (Verifier, HeaderMap) {
    let provider = builtin().find(provider).expect("a preset");
    let secret = Secret::new(SECRET).expect("a secret");
    let mut headers = HeaderMap::new();
    for (name, value) in sign(&provider.scheme, &secret, "msg_1", NOW, body).expect("signed") {
        headers.insert(name, value.try_into().expect("a header"));
    }
    let keyed = KeyedSecret {
        id: "bench".into(),
        secret,
        until: None,
    };
    let scheme = Arc::clone(&provider.scheme);
    let verifier = Verifier::new(scheme, vec![keyed], VerifierOptions::default()).expect("a verifier");
    (verifier, headers)
}

fn verdict(verifier: &Verifier, headers: &HeaderMap, body: &[u8]) -> bool {
    let head = Head {
        method: &Method::POST,
        target: "/webhooks",
        headers,
    };
    let mut check = verifier.begin(head, NOW);
    check.update(body);
    check.finish(body).is_ok()
}
