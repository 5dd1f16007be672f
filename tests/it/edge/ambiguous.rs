//! Headers that a verdict depends on, twice or next to a look-alike. The gateway would judge one of them and the
//! backend might read the other, so neither is judged.

use hookward::providers::builtin;

use crate::harness::{Conf, Event, Gateway, PROVIDERS, Upstream, request};

/// Ways in which one header can be made ambiguous, below.
const WAYS: usize = 47;

async fn gateway(upstream: &Upstream) -> Gateway {
    let conf = Conf::to(upstream.address);
    let conf = PROVIDERS
        .iter()
        .fold(conf, |conf, provider| conf.route(provider, "replay: off"));
    Gateway::start(&conf.yaml()).await
}

/// What a verdict depends on in a request of this provider.
fn security_headers(provider: &str) -> Vec<String> {
    let scheme = &builtin().find(provider).unwrap().scheme;
    scheme.security_headers().iter().map(ToString::to_string).collect()
}

/// Names that some servers take for `name`.
fn look_alikes(name: &str) -> [String; 5] {
    let (one, other) = name.split_once('-').unwrap();
    [
        name.replace('-', "_"),
        format!("{one}_{other}"),
        name.replace('-', "_").to_uppercase(),
        name.replace('-', "."),
        format!("{one}~{other}"),
    ]
}

/// `genuine` with one header made ambiguous, in every way.
fn ambiguities(genuine: &Event, name: &str) -> Vec<Event> {
    let value = genuine.value(name).to_owned();
    let mut beside = vec![
        (name.to_owned(), value.clone()),
        (name.to_uppercase(), value.clone()),
        (name.to_owned(), "0".into()),
        (name.to_owned(), String::new()),
    ];
    for look_alike in look_alikes(name) {
        beside.push((look_alike.clone(), value.clone()));
        beside.push((look_alike, String::new()));
    }
    let at = genuine
        .headers
        .iter()
        .position(|(n, _)| n.eq_ignore_ascii_case(name))
        .unwrap();
    let mut made = Vec::new();
    for second in beside {
        for place in [0, at + 1, genuine.headers.len()] {
            let mut ambiguous = genuine.clone();
            ambiguous.headers.insert(place, second.clone());
            made.push(ambiguous);
        }
    }
    // The look-alike alone.
    for look_alike in look_alikes(name) {
        let mut alone = genuine.clone();
        alone.headers[at].0 = look_alike;
        made.push(alone);
    }
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn a_security_header_occurs_once_and_has_no_look_alike() {
    // The gateway verifies the first signature, the backend's library reads the last, or the one whose name becomes
    // the same CGI variable: a captured signature next to a forged one would satisfy both.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream).await;
    let mut count = 0;
    for provider in PROVIDERS {
        let genuine = Event::of(provider, "1");
        let names = security_headers(provider);
        for ambiguous in names.iter().flat_map(|name| ambiguities(&genuine, name)) {
            let answer = request(gateway.address, &ambiguous.bytes()).await;
            let what = &ambiguous.headers;
            assert_eq!((answer.status, answer.text()), (400, "ambiguous_header\n"), "{what:?}");
            assert_eq!(answer.header("connection"), Some("close"), "{what:?}");
        }
        count += names.len() * WAYS;
        gateway.lines(count).await;
        let series = format!(
            "hookward_requests_total{{outcome=\"refused\",provider=\"{provider}\",\
             reason=\"head/ambiguous_header\",route=\"{provider}\"}}"
        );
        assert_eq!(gateway.metric(&series), (names.len() * WAYS) as f64, "{provider}");
    }
    let lines = gateway.lines(count).await;
    let refused = |line: &serde_json::Value| line["stage"] == "head" && line["reason"] == "ambiguous_header";
    assert!(lines.iter().all(refused));
    assert_eq!((count, lines.len()), (8 * WAYS, count));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_headers_unambiguous_are_proof() {
    // If these failed, the refusals above would prove nothing.
    let upstream = Upstream::ok().await;
    let gateway = gateway(&upstream).await;
    for provider in PROVIDERS {
        let event = Event::of(provider, "1").with("x_unrelated_header", "1");
        let event = event.with("x-unrelated", "1").with("x-unrelated", "2");
        assert_eq!(request(gateway.address, &event.bytes()).await.status, 200, "{provider}");
    }
    assert_eq!(upstream.seen().len(), PROVIDERS.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_one_type() {
    // A signed form would be verified as one here, and read as JSON by a backend that takes the other header.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream).await;
    for name in ["Content-Type", "content-type", "Content_Type", "CONTENT.TYPE"] {
        let mut event = Event::of("github", "1");
        event
            .headers
            .retain(|(name, _)| !name.eq_ignore_ascii_case("content-type"));
        event.headers.push(("Content-Type".into(), "application/json".into()));
        event
            .headers
            .push((name.into(), "application/x-www-form-urlencoded".into()));
        let answer = request(gateway.address, &event.bytes()).await;
        assert_eq!((answer.status, answer.text()), (400, "ambiguous_header\n"), "{name}");
    }
}
