//! The first step: judging the raw head of a request.

#![expect(missing_docs, reason = "the macro makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hookward::gateway::frame;

/// What GitHub sends.
const HEAD: &[u8] = b"POST /webhooks/github HTTP/1.1\r\n\
    Host: hooks.example.com\r\n\
    User-Agent: GitHub-Hookshot/044aadd\r\n\
    Content-Length: 1024\r\n\
    Accept: */*\r\n\
    Content-Type: application/json\r\n\
    X-GitHub-Delivery: 72d3162e-cc78-11e3-81ab-4c9367dc0958\r\n\
    X-GitHub-Event: push\r\n\
    X-GitHub-Hook-ID: 292430182\r\n\
    X-GitHub-Hook-Installation-Target-ID: 79929171\r\n\
    X-GitHub-Hook-Installation-Target-Type: repository\r\n\
    X-Hub-Signature-256: sha256=d57c68ca6f92289e6987922ff26938930f6e66a2d161ef06abdf1859230aa23c\r\n\r\n";

fn head(criterion: &mut Criterion) {
    assert!(frame(HEAD).is_ok());
    criterion.bench_function("head/github", |b| b.iter(|| frame(black_box(HEAD))));
}

criterion_group!(benches, head);
criterion_main!(benches);
