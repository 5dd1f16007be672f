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

/// Lines that make the header of a proof, the host, the length or the type say two things, in place of the one that
/// is there (`{name}: {value}`).
const WRITTEN_TWICE: [&str; 15] = [
    "{name}: {value}\r\n{name}: {value}",
    "{name}: {value}\r\n{name}: 1",
    "{name}: 1\r\n{name}: {value}",
    "{name}: {value}, {value}",
    "{name}: {value},",
    "{name}: ,{value}",
    "{name}:\r\n {value}",
    "{name}: {value}\r\n 1",
    "{name}:\r\n{name}: {value}",
    "{name}: {value}\r\n{name}:",
    "{folded}: {value}\r\n{name}: {value}",
    "{name}: {value}\r\n{folded}: 1",
    "{name} : {value}",
    " {name}: {value}",
    "{name}\0: {value}",
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_verdict_stands_on_is_written_twice() {
    // Of two values, one is judged and the other one read.
    let upstream = Upstream::unreachable().await;
    let gateway = gateway(&upstream).await;
    let mut count = 0;
    for provider in PROVIDERS {
        let genuine = String::from_utf8(
            Event::of(provider, "1")
                .with("Content-Type", "application/json")
                .bytes(),
        )
        .unwrap();
        // Some providers' events have a type of their own already.
        let genuine = genuine.replacen(
            "content-type: application/json\r\n",
            "",
            genuine.matches("ontent-").count().saturating_sub(2),
        );
        let names = security_headers(provider)
            .into_iter()
            .chain(["Host", "Content-Length", "Content-Type"].map(String::from));
        for name in names {
            let at = genuine
                .to_ascii_lowercase()
                .find(&format!("\r\n{}: ", name.to_ascii_lowercase()))
                .unwrap()
                + 2;
            let line = genuine[at..].split("\r\n").next().unwrap();
            let value = line.split_once(": ").unwrap().1;
            for way in WRITTEN_TWICE {
                let lines = way
                    .replace("{name}", &name)
                    .replace("{value}", value)
                    .replace("{folded}", &name.replace('-', "_"));
                // A list of types is one value that nobody takes for two, and some signatures come in lists.
                let listed = way.contains("},") || way.contains(": ,");
                let same = (name == "Host" && way.contains("{folded}"))
                    || (matches!(&*name, "Content-Type" | "webhook-signature") && listed);
                if same {
                    continue;
                }
                count += 1;
                let spoilt = [&genuine[..at], &lines, &genuine[at + line.len()..]].concat();
                let status = request(gateway.address, spoilt.as_bytes()).await.status;
                // A list in one line is one value, and no signature.
                assert!(status == 400 || (listed && status == 401), "{status} {spoilt}");
            }
        }
    }
    assert!(count >= 300, "{count}");
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
