//! `hookward explain`: every mistake that people make is found, and no secret is told.

use base64::Engine as _;
use hookward::clock::UnixMillis;
use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::signature::{self, Draft, PublicUrl, Settings};

use crate::harness::process::{Ended, TestFile, hookward};

const SECRET: &str = "an-example-of-a-secret";
const OTHER: &str = "another-example-of-a-secret";
const AT: &str = "1700000000";
const BODY: &str = r#"{"a":[1,"é"],"b":{}}"#;

/// A route for each provider, both with their own secret.
const CONFIGURATION: &str = r#"
listen: [127.0.0.1:1]
upstreams: { app: { servers: [127.0.0.1:1] } }
routes:
  - { name: github, path: /in/github, provider: github, secrets: [{ value: an-example-of-a-secret, id: live }], upstream: app }
  - { name: stripe, path: /in/stripe, provider: stripe, secrets: [{ value: another-example-of-a-secret, id: test }], upstream: app }
"#;

/// A request of `provider` as somebody captured it: signed over `signed`, kept with `body`.
fn capture(provider: &str, secret: &[u8], signed: &str, body: &str) -> String {
    let scheme = builtin().find(provider).unwrap().scheme.clone();
    let secret = Secret::new(secret).unwrap();
    let now = UnixMillis::from_seconds(AT.parse().unwrap());
    let signed = signature::sign(&scheme, &secret, "msg_1", now, signed.as_bytes()).unwrap();
    let signed: String = signed
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!("POST /in/{provider} HTTP/1.1\r\nHost: gateway.test\r\n{signed}\r\n{body}")
}

fn base64_of(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A request that signs the URL, which its sender knows as `url`.
fn square(url: &str, body: &str) -> String {
    let scheme = builtin().find("square").unwrap().scheme.clone();
    let draft = Draft {
        method: "POST",
        target: "/",
        headers: &http::HeaderMap::new(),
        body: body.as_bytes(),
        public_url: Some(&PublicUrl::parse(url).unwrap()),
        settings: &Settings::default(),
        id: "1",
        now: UnixMillis(0),
    };
    let signed = signature::sign_request(&scheme, &Secret::new(SECRET).unwrap(), &draft).unwrap();
    let (name, value) = &signed.headers[0];
    format!("POST /in/square HTTP/1.1\r\nHost: gateway.test\r\n{name}: {value}\r\n\r\n{body}")
}

/// What is said of a captured request, by a provider and a secret.
async fn explained(captured: &str, provider: &str, secret: &str, more: &[&str]) -> Ended {
    let captured = TestFile::new("captured.http", captured);
    let secret = TestFile::new("secret", secret);
    let mut args = vec![
        "explain",
        captured.name(),
        "--provider",
        provider,
        "--secret-file",
        secret.name(),
    ];
    args.extend(if more.contains(&"--at") { &[][..] } else { &["--at", AT] });
    args.extend(more);
    hookward(&args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mistake_is_named_first() {
    // Somebody with a failing webhook at 3 a.m. would look for it in the wrong place.
    let good = |body| capture("github", SECRET.as_bytes(), BODY, body);
    let (github, stripe) = (good(BODY), capture("stripe", SECRET.as_bytes(), BODY, BODY));
    let signed_with = |secret: &[u8]| capture("github", secret, BODY, BODY);
    let written_again = r#"{"a": [1, "\u00e9"], "b": {}}"#;
    let header_of = |signed: &str| capture("github", SECRET.as_bytes(), signed, "");
    let square = |url: &str| square(url, BODY);
    let standard = |key: &[u8]| capture("standard-webhooks", key, BODY, BODY);
    let cases: [(String, &str, &str, &str); 27] = [
        (good(&format!("{BODY}\n")), "github", SECRET, "got a newline"),
        (
            good("{\n  \"a\": [\n    1,\n    \"é\"\n  ],\n  \"b\": {}\n}"),
            "github",
            SECRET,
            "compact",
        ),
        (good(written_again), "github", SECRET, "compact"),
        (good(""), "github", SECRET, "none of the configured secrets"),
        (
            capture("github", SECRET.as_bytes(), "", BODY),
            "github",
            SECRET,
            "an empty one was signed",
        ),
        (github.clone(), "github", OTHER, "none of the configured secrets"),
        (
            github.clone(),
            "github",
            " an-example-of-a-secret ",
            "white space around",
        ),
        (github.clone(), "github", "\"an-example-of-a-secret\"", "in quotes"),
        (
            signed_with(&[7; 24]),
            "github",
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH",
            "decodes its base64",
        ),
        (
            signed_with(&[7; 24]),
            "github",
            "070707070707070707070707070707070707070707070707",
            "decodes its hexadecimal",
        ),
        (
            signed_with(b"whsec_abcdefghijkl"),
            "github",
            "abcdefghijkl",
            "lacks the prefix whsec_",
        ),
        (
            github.replace("x-hub-", "HTTP_X_Hub_"),
            "github",
            SECRET,
            "x-hub-signature-256 arrived as http_x_hub_signature-256",
        ),
        (github.replace("sha256=", ""), "github", SECRET, "lost a prefix"),
        (
            github.replace("x-hub-signature-256", "x-else"),
            "github",
            SECRET,
            "has no x-hub-signature-256",
        ),
        (stripe.clone(), "github", SECRET, "those of stripe"),
        (stripe.replace("v1=", "v2="), "stripe", SECRET, "not written as"),
        (
            good(BODY.trim_end_matches('}')),
            "github",
            SECRET,
            "none of the configured secrets signed this body",
        ),
        (
            header_of(&format!("{BODY}\n")) + BODY,
            "github",
            SECRET,
            "lost the newline",
        ),
        (
            header_of(&format!("{BODY}\r\n")) + BODY,
            "github",
            SECRET,
            "lost the line end (CR LF)",
        ),
        // The text of the secret as the key.
        (
            standard(base64_of("whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH").as_bytes()),
            "standard-webhooks",
            "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH",
            "its text as it stands",
        ),
        (
            capture("stripe", &[7; 24], BODY, BODY),
            "stripe",
            "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH",
            "decodes its base64",
        ),
        (
            square("https://gateway.test/in/square/"),
            "square",
            SECRET,
            "a slash at the end of the URL",
        ),
        (
            square("https://gateway.test:443/in/square"),
            "square",
            SECRET,
            "the port 443 in the URL",
        ),
        (
            square("https://gateway.test/in/square?a=b").replace("/in/square HTTP", "/in/square?a=b HTTP"),
            "square",
            SECRET,
            "the query of the request",
        ),
        (
            square("http://gateway.test/in/square"),
            "square",
            SECRET,
            "another protocol",
        ),
        (
            square("https://other.test/in/square").replace("gateway.test", "other.test"),
            "square",
            SECRET,
            "another host",
        ),
        (
            github.replace("x-hub-signature-256", "x-forwarded-hub-signature-256"),
            "github",
            SECRET,
            "arrived as x-forwarded-hub-signature-256",
        ),
    ];
    for (captured, provider, secret, expected) in cases {
        let url = ["--public-url", "https://gateway.test/in/square"];
        let more = if provider == "square" { &url[..] } else { &[] };
        let ended = explained(&captured, provider, secret, more).await;
        let cause = ended
            .stdout
            .lines()
            .find(|line| line.starts_with("Cause: ") || line.starts_with("Most likely: "));
        assert!(
            cause.is_some_and(|cause| cause.contains(expected)),
            "{expected}: {}{}",
            ended.stdout,
            ended.stderr
        );
        assert_eq!(ended.code, Some(1));
        let told = [ended.stdout, ended.stderr].concat();
        assert!(
            !told.contains(secret.trim()) && !told.contains(SECRET),
            "no secret is told: {told}"
        );
    }
    let accepted = explained(&github, "github", SECRET, &[]).await;
    assert_eq!(
        (accepted.code, accepted.stdout.lines().next()),
        (Some(0), Some("github: accepted"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_told_by_how_much() {
    // "stale" alone does not say whether it is the network, the clock or the time zone.
    let stripe = capture("stripe", SECRET.as_bytes(), BODY, BODY);
    let table = [
        ("1700000400", "6 min 40 s before", "delivered late"),
        ("1699999400", "10 min 0 s after", "behind"),
        ("1700007201", "2 h 0 min before", "time zone"),
        ("1710000000", "115 days before", "--at"),
        ("2023-11-14T23:13:20Z", "60 min 0 s before", "time zone"),
    ];
    for (at, cause, fix) in table {
        let ended = explained(&stripe, "stripe", SECRET, &["--at", at]).await;
        assert!(
            ended.stdout.contains("stripe: stale"),
            "{at}: {}{}",
            ended.stdout,
            ended.stderr
        );
        assert!(
            ended.stdout.contains(cause) && ended.stdout.contains(fix),
            "{at}: {}",
            ended.stdout
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_another_unit_is_no_other_time_zone() {
    // Whoever counts milliseconds would be sent to set his clock by twenty thousand years.
    let scheme = &builtin().find("stripe").unwrap().scheme;
    let (secret, now) = (
        Secret::new(SECRET).unwrap(),
        UnixMillis::from_seconds(1_700_000_000_123),
    );
    let signed = signature::sign(scheme, &secret, "", now, BODY.as_bytes()).unwrap();
    let (name, value) = &signed[0];
    let captured = format!("POST /in HTTP/1.1\r\nHost: gateway.test\r\n{name}: {value}\r\n\r\n{BODY}");
    let ended = explained(&captured, "stripe", SECRET, &[]).await;
    assert!(ended.stdout.contains("milliseconds for seconds"), "{}", ended.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_was_compressed_is_looked_into() {
    // A proxy that compresses requests spoils every signature, and nobody looks for it there.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, BODY.as_bytes()).unwrap();
    let body = TestFile::new("body.gz", gzip.finish().unwrap());
    let signed = capture("github", SECRET.as_bytes(), BODY, "");
    let header = signed.lines().find(|line| line.starts_with("x-hub-")).unwrap();
    let pieces = [
        "explain",
        "--provider",
        "github",
        "--secret",
        SECRET,
        "-H",
        header,
        "--body",
        body.name(),
    ];
    let ended = hookward(&pieces).await;
    assert!(
        ended.stdout.contains("Cause: the body was compressed"),
        "{}",
        ended.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_shows_whose_secret_it_was() {
    // Two secrets that were exchanged look like two providers that went mad at once.
    let configuration = TestFile::new("hookward.yaml", CONFIGURATION);
    let exchanged = TestFile::new("exchanged.http", capture("github", OTHER.as_bytes(), BODY, BODY));
    let of = |file: &TestFile, more: &[&str]| {
        let args = [
            &["explain", file.name(), "--config", configuration.name(), "--at", AT],
            more,
        ]
        .concat();
        let args: Vec<_> = args.into_iter().map(str::to_owned).collect();
        async move { hookward(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let ended = of(&exchanged, &[]).await;
    assert!(
        ended.stdout.contains("signed with secret \"test\" of route stripe"),
        "{}{}",
        ended.stdout,
        ended.stderr
    );

    let expired = CONFIGURATION.replace("id: live", "id: live, until: 2023-01-01T00:00:00Z");
    let expired = TestFile::new("expired.yaml", &expired);
    let late = TestFile::new("late.http", capture("github", SECRET.as_bytes(), BODY, BODY));
    let ended = hookward(&["explain", late.name(), "--config", expired.name(), "--at", AT]).await;
    assert!(
        ended.stdout.contains("\"live\", whose `until` has passed"),
        "{}{}",
        ended.stdout,
        ended.stderr
    );

    let json = of(&exchanged, &["--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&json["route"], &json["verdict"]),
        (&"github".into(), &"mismatch".into())
    );
    assert_eq!(json["findings"][0]["certain"], true);

    let lost = TestFile::new("lost.http", "POST /elsewhere HTTP/1.1\r\n\r\n{}");
    let nowhere = of(&lost, &[]).await;
    assert!(
        nowhere.stderr.contains("no_route") && nowhere.stderr.contains("github (/in/github)"),
        "{}",
        nowhere.stderr
    );
    let chosen = of(&lost, &["--route", "stripe"]).await;
    assert!(
        chosen.stdout.contains("route stripe (stripe): missing"),
        "{}",
        chosen.stdout
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_be_given_in_pieces() {
    // Not everybody has a file: logs show headers, and the body is in an attachment.
    let body = TestFile::new("body.json", BODY);
    let signed = capture("github", SECRET.as_bytes(), BODY, "");
    let header = signed.lines().find(|line| line.starts_with("x-hub-")).unwrap();
    let pieces = [
        "--provider",
        "github",
        "--secret",
        SECRET,
        "-H",
        header,
        "--body",
        body.name(),
    ];
    let ended = hookward(&[&["explain"], &pieces[..]].concat()).await;
    assert_eq!(
        (ended.code, ended.stdout.lines().next()),
        (Some(0), Some("github: accepted")),
        "{}",
        ended.stderr
    );

    let har = format!(
        r#"{{"log":{{"entries":[{{"request":{{"method":"POST","url":"https://h.example/in","headers":[{{"name":"X-Hub-Signature-256","value":"{}"}}],"postData":{{"text":{}}}}}}}]}}}}"#,
        header.split_once(' ').unwrap().1,
        serde_json::to_string(BODY).unwrap()
    );
    assert!(explained(&har, "github", SECRET, &[]).await.stdout.contains("accepted"));
    for usage in [
        &["explain"][..],
        &["explain", body.name()],
        &["explain", "--provider", "github"],
    ] {
        assert_eq!(hookward(usage).await.code, Some(2), "{usage:?}");
    }
}
