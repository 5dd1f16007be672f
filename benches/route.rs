//! The second step: finding the route, among one and among a thousand; and knowing that there is none.

#![expect(missing_docs, reason = "the macro makes a public function")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use hookward::clock::Clock;
use hookward::config::plan_text;
use hookward::gateway::{Guard, Rules};
use hookward::observe::AccessLog;

fn rules(routes: usize) -> Arc<Rules> {
    let each = (0..routes).map(|n| {
        format!(
            "  - {{ name: r{n}, path: /webhooks/r{n}, provider: github, secrets: [{{ value: secret-for-the-benchmark }}], \
             upstream: app }}\n"
        )
    });
    let text = format!(
        "listen: [127.0.0.1:0]\nupstreams: {{ app: {{ servers: [127.0.0.1:3000] }} }}\nroutes:\n{}",
        each.collect::<String>()
    );
    let clock = Clock::system();
    let (plan, problems) = plan_text("bench.yaml", &text, clock.wall());
    let guard: Arc<Guard> = plan
        .unwrap_or_else(|| panic!("{problems}"))
        .guard(clock, AccessLog::off())
        .unwrap();
    guard.rules()
}

fn route(criterion: &mut Criterion) {
    for routes in [1, 1000] {
        let rules = rules(routes);
        let mut find = |name: &str, target: &str, expected: bool| {
            assert_eq!(rules.concerns(target), expected);
            criterion.bench_function(&format!("route/{name}/{routes}"), |b| {
                b.iter(|| rules.concerns(black_box(target)));
            });
        };
        find("found", "/webhooks/r0?x=1", true);
        find("ambiguous", "/webhooks//r0", true);
        find("none", "/some/other/page", false);
    }
}

criterion_group!(benches, route);
criterion_main!(benches);
