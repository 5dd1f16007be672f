//! Challenges are answered at the edge, and only for those who have signed them.

use crate::harness::{Client, Gateway, NOW, Recorded, SECRET, Upstream};
use hookward::providers::builtin;
use hookward::secret::Secret;
use hookward::signature;

fn config(upstream: &Upstream) -> String {
    format!(
        "limits: {{ client_rate: 100000/s, client_burst: 100000 }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         routes:\n  - name: slack\n    path: /slack\n    provider: slack\n    \
         secrets: [{{ value: {SECRET} }}]\n    upstream: app\n",
        upstream.address
    )
}

/// A Slack request; `forged` flips a byte after it was signed.
fn slack(body: &str, forged: bool) -> Vec<u8> {
    let provider = builtin().find("slack").unwrap();
    let secret = Secret::new(SECRET).unwrap();
    let mut lines = String::new();
    for (name, value) in signature::sign(&provider.scheme, &secret, "", NOW, body.as_bytes()).unwrap() {
        lines.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = if forged {
        body.replacen("challenge", "Challenge", 1)
    } else {
        body.to_owned()
    };
    let start = "POST /slack HTTP/1.1\r\nHost: gateway.test\r\nContent-Type: application/json";
    format!("{start}\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_challenge_is_answered_here_and_a_forged_one_is_not() {
    // The address of an app cannot be set without the answer; answered to strangers it reflects whatever they like.
    let upstream = Upstream::unreachable().await;
    let gateway = Gateway::start(&config(&upstream)).await;
    let mut client = Client::connect(gateway.address).await;
    let challenge =
        r#"{"token":"t","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
    // Asked again it is answered again: it is no event that could be a repeat.
    for _ in 0..2 {
        client.send(&slack(challenge, false)).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P")
        );
        assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    client.send(&slack(challenge, true)).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (401, "unauthorized\n"));

    let lines = gateway.lines(3).await;
    let story: Vec<_> = lines
        .iter()
        .map(|line| (line["outcome"].as_str().unwrap(), line["reason"].as_str()))
        .collect();
    assert_eq!(
        story,
        [("replied", None), ("replied", None), ("refused", Some("mismatch"))]
    );
    let replied = r#"hookward_requests_total{outcome="replied",provider="slack",reason="-",route="slack"}"#;
    assert_eq!(
        (gateway.metric(replied), gateway.metric("hookward_replay_entries")),
        (2.0, 0.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_challenge_is_an_event() {
    // An event that is answered at the edge is lost.
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&config(&upstream)).await;
    let bodies = [
        r#"{"type":"event_callback","event_id":"Ev1","challenge":"x"}"#,
        r#"{"type":"url_verification","event_id":"Ev2"}"#,
        r#"{"type":"url_verification","event_id":"Ev3","challenge":{"x":1}}"#,
        r#"{"event":{"type":"url_verification"},"event_id":"Ev4","challenge":"x"}"#,
        r#"{"type":["url_verification"],"event_id":"Ev5","challenge":"x"}"#,
    ];
    let mut client = Client::connect(gateway.address).await;
    for body in bodies {
        client.send(&slack(body, false)).await;
        assert_eq!(client.answer().await.text(), "ok", "{body}");
    }
    let seen = upstream.seen();
    let bodies_seen: Vec<_> = seen
        .iter()
        .map(|seen| std::str::from_utf8(&seen.body).unwrap())
        .collect();
    assert_eq!(bodies_seen, bodies);
    let ids: Vec<_> = seen
        .iter()
        .map(|seen: &Recorded| seen.header("x-hookward-event-id").unwrap())
        .collect();
    assert_eq!(ids, ["Ev1", "Ev2", "Ev3", "Ev4", "Ev5"]);
}
