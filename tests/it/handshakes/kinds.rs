//! Every kind of question that providers ask, as they ask it, and the answer that each of them accepts.

use std::net::SocketAddr;

use super::{Asking, Question};
use crate::harness::{Gateway, Upstream, until};

/// Who asks, the label in the log, the question, and status and body of the right answer.
type Case = (Asking, &'static str, Question, u16, &'static str);

fn asking(name: &'static str, keys: &'static str) -> Asking {
    Asking { name, keys, route: "" }
}

/// Questions that come unsigned, by design.
fn unsigned() -> Vec<Case> {
    let told = |name, keys, route| Asking { name, keys, route };
    let hub = "?hub.mode=subscribe&hub.verify_token=vt&hub.challenge=1158201444";
    let get_challenge = "handshake: [{ when: [{ method: GET }, { query: challenge, present: true }], verify: none, \
                         answer: { text: \"{query:challenge}\" } }]";
    let hook_head = "handshake: [{ when: { method: HEAD }, verify: none, answer: { status: 200 } }]";
    vec![
        (
            told(
                "meta",
                "settings: { verify_token: as typed into the dashboard }, handshake: [{ when: [{ method: GET }, \
                 { query: hub.mode, equals: subscribe }], verify: { query: hub.verify_token, setting: verify_token }, \
                 answer: { text: \"{query:hub.challenge}\" } }]",
                "settings: { verify_token: vt }",
            ),
            "hub.mode",
            Question::get(hub),
            200,
            "1158201444",
        ),
        (
            told(
                "strava",
                "settings: { verify_token: as given when subscribing }, handshake: [{ when: [{ method: GET }, \
                 { query: hub.mode, equals: subscribe }], verify: { query: hub.verify_token, setting: verify_token }, \
                 answer: { json: { hub.challenge: \"{query:hub.challenge}\" } } }]",
                "settings: { verify_token: vt }",
            ),
            "hub.mode",
            Question::get(hub),
            200,
            r#"{"hub.challenge":"1158201444"}"#,
        ),
        (
            asking(
                "x",
                "handshake: [{ when: [{ method: GET }, { query: crc_token, present: true }], verify: none, compute: \
                 { algorithm: hmac-sha256, message: \"{query:crc_token}\", encoding: base64 }, answer: { json: \
                 { response_token: \"sha256={computed}\" } } }]",
            ),
            "crc_token",
            Question::get("?crc_token=foo"),
            200,
            r#"{"response_token":"sha256=O/XDgO/jNZe76xxji0n2bU9vsb70B9PimEEQXtWvrCc="}"#,
        ),
        (
            asking(
                "linkedin",
                "handshake: [{ when: [{ method: GET }, { query: challengeCode, present: true }], verify: none, compute: \
                 { algorithm: hmac-sha256, message: \"{query:challengeCode}\", encoding: hex }, answer: { json: \
                 { challengeCode: \"{query:challengeCode}\", challengeResponse: \"{computed}\" } } }]",
            ),
            "challengeCode",
            Question::get("?challengeCode=foo"),
            200,
            r#"{"challengeCode":"foo","challengeResponse":"3bf5c380efe33597bbeb1c638b49f66d4f6fb1bef407d3e29841105ed5afac27"}"#,
        ),
        (
            told(
                "ebay",
                "settings: { verification_token: as typed into the portal }, handshake: [{ when: [{ method: GET }, \
                 { query: challenge_code, present: true }], verify: none, compute: { algorithm: sha256, message: \
                 \"{query:challenge_code}{setting:verification_token}{url}\", encoding: hex }, answer: { json: \
                 { challengeResponse: \"{computed}\" } } }]",
                "settings: { verification_token: 71745723-d031-455c-bfa5-f90d11b4f20a }, public_url: \
                 \"https://hooks.example.com/ebay\"",
            ),
            "challenge_code",
            Question::get("?challenge_code=71745723-d031-455c-bfa5-f90d11b4f20a"),
            200,
            r#"{"challengeResponse":"b0cb85db424f4b439a1167ef6e2b241818bd1d4bfb25da0a1c98af456a44911f"}"#,
        ),
        (
            asking(
                "microsoft-graph",
                "handshake: [{ when: [{ method: POST }, { query: validationToken, present: true }], verify: none, \
                 answer: { text: \"{query:validationToken}\" } }]",
            ),
            "validationToken",
            Question {
                query: "?validationToken=Validation%3a+Testing+client+Request-Id%3a+25460e7d".to_owned(),
                ..Question::post("")
            },
            200,
            "Validation: Testing client Request-Id: 25460e7d",
        ),
        (
            asking(
                "sharepoint",
                "handshake: [{ when: [{ method: POST }, { query: validationtoken, present: true }], verify: none, \
                 answer: { text: \"{query:validationtoken}\" } }]",
            ),
            "validationtoken",
            Question {
                query: "?validationtoken=261e2323-2a7c-4e6a-9e2b-9d1e5c2b4f10".to_owned(),
                ..Question::post("ignored")
            },
            200,
            "261e2323-2a7c-4e6a-9e2b-9d1e5c2b4f10",
        ),
        (
            asking("dropbox", get_challenge),
            "challenge",
            Question::get("?challenge=abc-1"),
            200,
            "abc-1",
        ),
        (
            asking("adobe", get_challenge),
            "challenge",
            Question::get("?challenge=b87"),
            200,
            "b87",
        ),
        (
            asking("nylas", get_challenge),
            "challenge",
            Question::get("?challenge=x9"),
            200,
            "x9",
        ),
        (
            asking(
                "okta",
                "handshake: [{ when: [{ method: GET }, { header: X-Okta-Verification-Challenge, present: true }], \
                 verify: none, answer: { json: { verification: \"{header:X-Okta-Verification-Challenge}\" } } }]",
            ),
            "x-okta-verification-challenge",
            Question::get("").with("X-Okta-Verification-Challenge", "abc123"),
            200,
            r#"{"verification":"abc123"}"#,
        ),
        (
            asking(
                "ringcentral",
                "handshake: [{ when: { header: Validation-Token, present: true }, verify: none, \
                 answer: { headers: { Validation-Token: \"{header:Validation-Token}\" } } }]",
            ),
            "validation-token",
            Question::post("").with("Validation-Token", "4f2e-a"),
            200,
            "",
        ),
        (
            asking(
                "monday",
                "handshake: [{ when: { json: challenge, present: true }, verify: none, \
                 answer: { json: { challenge: \"{json:challenge}\" } } }]",
            ),
            "challenge",
            Question::post(r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#),
            200,
            r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#,
        ),
        (
            asking(
                "smartcar",
                "handshake: [{ when: { json: eventType, equals: VERIFY }, verify: none, compute: { algorithm: \
                 hmac-sha256, message: \"{json:data.challenge}\", encoding: hex }, answer: { json: { challenge: \
                 \"{computed}\" } } }]",
            ),
            "eventType",
            Question::post(r#"{"eventType":"VERIFY","data":{"challenge":"foo"}}"#),
            200,
            r#"{"challenge":"3bf5c380efe33597bbeb1c638b49f66d4f6fb1bef407d3e29841105ed5afac27"}"#,
        ),
        (asking("trello", hook_head), "head", Question::new("HEAD", ""), 200, ""),
        (
            asking("mandrill", hook_head),
            "head",
            Question::new("HEAD", ""),
            200,
            "",
        ),
        (
            asking(
                "exact-online",
                "handshake: [{ when: { body: empty }, verify: none, answer: { empty: true } }]",
            ),
            "empty",
            Question::post(""),
            200,
            "",
        ),
        (
            asking(
                "cloud-events",
                "handshake: [{ when: [{ method: OPTIONS }, { header: WebHook-Request-Origin, present: true }], verify: \
                 none, answer: { headers: { WebHook-Allowed-Origin: \"{header:WebHook-Request-Origin}\" } } }]",
            ),
            "webhook-request-origin",
            Question::new("OPTIONS", "").with("WebHook-Request-Origin", "eventgrid.azure.net"),
            200,
            "",
        ),
    ]
}

/// Questions that are signed like events.
fn signed() -> Vec<Case> {
    vec![
        (
            asking(
                "zoom",
                "handshake: [{ when: { json: event, equals: endpoint.url_validation }, compute: { algorithm: \
                 hmac-sha256, message: \"{json:payload.plainToken}\", encoding: hex }, answer: { json: { plainToken: \
                 \"{json:payload.plainToken}\", encryptedToken: \"{computed}\" } } }]",
            ),
            "event",
            Question::post(r#"{"event":"endpoint.url_validation","payload":{"plainToken":"foo"},"event_ts":1}"#),
            200,
            r#"{"encryptedToken":"3bf5c380efe33597bbeb1c638b49f66d4f6fb1bef407d3e29841105ed5afac27","plainToken":"foo"}"#,
        ),
        (
            asking(
                "twitch",
                "handshake: [{ when: { header: Twitch-Eventsub-Message-Type, equals: webhook_callback_verification }, \
                 answer: { text: \"{json:challenge}\" } }]",
            ),
            "twitch-eventsub-message-type",
            Question::post(r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo"}"#)
                .with("Twitch-Eventsub-Message-Type", "webhook_callback_verification"),
            200,
            "pogchamp-kappa-360noscope-vohiyo",
        ),
        (
            asking(
                "discord",
                "handshake: [{ when: { json: type, equals: 1 }, answer: { json: { type: 1 } } }]",
            ),
            "type",
            Question::post(r#"{"application_id":"1","type":1,"version":1}"#),
            200,
            r#"{"type":1}"#,
        ),
        (
            asking(
                "discord-events",
                "handshake: [{ when: { json: type, equals: 0 }, answer: { status: 204 } }]",
            ),
            "type",
            Question::post(r#"{"version":1,"application_id":"1","type":0}"#),
            204,
            "",
        ),
        (
            asking(
                "xero",
                "handshake: [{ when: [{ json: entropy, present: true }, { json: lastEventSequence, equals: 0 }], \
                 answer: { empty: true } }]",
            ),
            "entropy",
            Question::post(r#"{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"S0m3r4nd0mt3xt"}"#),
            200,
            "",
        ),
        (
            asking(
                "tebex",
                "handshake: [{ when: { json: type, equals: validation.webhook }, answer: { json: { id: \"{json:id}\" } } }]",
            ),
            "type",
            Question::post(r#"{"id":"f6f4","type":"validation.webhook","date":"2022","subject":{}}"#),
            200,
            r#"{"id":"f6f4"}"#,
        ),
        (
            asking(
                "woocommerce",
                "handshake: [{ when: { form: webhook_id, present: true }, answer: { empty: true } }]",
            ),
            "webhook_id",
            Question::post("webhook_id=7"),
            200,
            "",
        ),
    ]
}

async fn gateway(cases: &[Case], upstream: SocketAddr) -> Gateway {
    let all: Vec<Asking> = cases.iter().map(|case| case.0).collect();
    Gateway::start(&Asking::conf(&all, upstream).yaml()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_questions_are_answered_as_each_provider_expects() {
    // The provider does not register the address, or disables it within the hour.
    let upstream = Upstream::unreachable().await;
    let cases = unsigned();
    let gateway = gateway(&cases, upstream.address).await;
    for (n, (asking, label, question, status, body)) in cases.iter().enumerate() {
        let name = asking.name;
        let answer = question.ask(gateway.address, name).await;
        assert_eq!((answer.status, answer.text()), (*status, *body), "{name}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{name}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
        let json = body.starts_with('{');
        let kind = if json {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        };
        assert_eq!(answer.header("content-type"), Some(kind), "{name}");
        let line = &gateway.lines(n + 1).await[n];
        assert_eq!(
            (&line["outcome"], &line["handshake"]),
            (&"replied".into(), &(*label).into()),
            "{name}"
        );
        let counted = format!("hookward_handshakes_total{{handshake=\"{label}\",route=\"{name}\"}}");
        assert_eq!(gateway.metric(&counted), 1.0, "{name}");
    }
    for (name, header, value) in [
        ("ringcentral", "validation-token", "4f2e-a"),
        ("cloud-events", "webhook-allowed-origin", "eventgrid.azure.net"),
    ] {
        let case = cases.iter().find(|case| case.0.name == name).unwrap();
        let answer = case.2.ask(gateway.address, name).await;
        assert_eq!(answer.header(header), Some(value));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_questions_are_answered_under_their_signature_alone() {
    // A forged question that is answered tells a scanner which provider speaks here, and reflects what it likes.
    let upstream = Upstream::unreachable().await;
    let cases = signed();
    let gateway = gateway(&cases, upstream.address).await;
    for (asking, label, question, status, body) in &cases {
        let name = asking.name;
        let answer = question.clone().signed().ask(gateway.address, name).await;
        assert_eq!((answer.status, answer.text()), (*status, *body), "{name}");
        let unsigned = question.ask(gateway.address, name).await;
        let forged = question
            .clone()
            .signed_with("another-secret-than-theirs")
            .ask(gateway.address, name)
            .await;
        let both = [unsigned, forged].map(|answer| (answer.status, answer.body));
        assert_eq!(
            both,
            [(401, b"unauthorized\n".to_vec()), (401, b"unauthorized\n".to_vec())],
            "{name}"
        );
        let counted = format!("hookward_handshakes_total{{handshake=\"{label}\",route=\"{name}\"}}");
        // Counted once the answer is out, which its reader may have before.
        until(name, || gateway.metric(&counted) == 1.0).await;
    }
    // Connections end in any order.
    let lines = gateway.lines(cases.len() * 3).await;
    let outcomes = |outcome: &str| lines.iter().filter(|line| line["outcome"] == outcome).count();
    assert_eq!(
        (outcomes("replied"), outcomes("refused")),
        (cases.len(), cases.len() * 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_beside_every_handshake() {
    // A handshake that takes an event for itself loses it, and nobody notices.
    let upstream = Upstream::ok().await;
    let cases: Vec<Case> = unsigned().into_iter().chain(signed()).collect();
    let gateway = gateway(&cases, upstream.address).await;
    let event = Question::post(r#"{"type":"event","id":"evt_1","data":{"challenge":"x"}}"#).signed();
    for (asking, ..) in &cases {
        let answer = event.ask(gateway.address, asking.name).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "{}", asking.name);
    }
    assert_eq!(upstream.seen().len(), cases.len());
}
