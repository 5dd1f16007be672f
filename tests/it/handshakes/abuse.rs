//! What strangers get out of handshakes: nothing that the provider's own protocol does not give everybody.

use bytes::Bytes;
use http::Request;

use super::{Asking, Question};
use crate::harness::{Client, Gateway, H2, Upstream};

const CHALLENGE: Asking = Asking {
    name: "dropbox",
    keys: "handshake: [{ when: [{ method: GET }, { query: challenge, present: true }], verify: none, \
           answer: { text: \"{query:challenge}\" } }, { when: [{ method: GET }, { header: x-ask, present: true }], \
           verify: none, answer: { headers: { x-answer: \"{header:x-ask}\" } } }]",
    route: "",
};

const HUB: Asking = Asking {
    name: "meta",
    keys: "settings: { verify_token: as typed into the dashboard }, handshake: [{ when: [{ method: GET }, \
           { query: hub.mode, equals: subscribe }], verify: { query: hub.verify_token, setting: verify_token }, \
           answer: { text: \"{query:hub.challenge}\" } }]",
    route: "settings: { verify_token: vt }",
};

const CRC: Asking = Asking {
    name: "x",
    keys: "handshake: [{ when: [{ method: GET }, { query: crc_token, present: true }], verify: none, compute: \
           { algorithm: hmac-sha256, message: \"{query:crc_token}\", encoding: hex }, answer: { text: \"{computed}\" } }]",
    route: "",
};

const PLAIN: Asking = Asking {
    name: "plain",
    keys: "name: asks nothing",
    route: "",
};

async fn gateway(all: &[Asking]) -> (Gateway, Upstream) {
    let upstream = Upstream::ok().await;
    let gateway = Gateway::start(&Asking::conf(all, upstream.address).yaml()).await;
    (gateway, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_printable_text_is_sent_back() {
    // A line break would write a header of its own, markup would run as the application's.
    let (gateway, upstream) = gateway(&[CHALLENGE]).await;
    let spoilt = [
        "%0d%0aset-cookie:%20a=b",
        "a%0ab",
        "%00",
        "%1b[2J",
        "<script>alert(1)</script>",
        "%3Cscript%3E",
        "%3c!--",
        "caf%C3%A9",
        "%E2%80%AE",
        "%C0%AF",
        "%",
        "",
    ];
    for challenge in spoilt {
        let answer = Question::get(&format!("?challenge={challenge}"))
            .ask(gateway.address, "dropbox")
            .await;
        // Some of them are no request line either.
        assert!(matches!(answer.status, 400 | 405), "{challenge}: {}", answer.status);
        assert!(
            !answer.text().contains("alert") && answer.header("set-cookie").is_none(),
            "{challenge}"
        );
    }
    for (bytes, status) in [(4096, 200), (4097, 405)] {
        let query = format!("?challenge={}", "a".repeat(bytes));
        let answer = Question::get(&query).ask(gateway.address, "dropbox").await;
        assert_eq!(answer.status, status, "{bytes} bytes");
    }
    for value in ["<b>", "caf\u{e9}", "a\tb"] {
        let answer = Question::get("")
            .with("x-ask", value)
            .ask(gateway.address, "dropbox")
            .await;
        assert_eq!((answer.status, answer.header("x-answer")), (405, None), "{value}");
    }
    let answer = Question::get("?challenge=%22%26%27")
        .ask(gateway.address, "dropbox")
        .await;
    assert_eq!((answer.status, answer.text()), (200, "\"&'"));
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_is_refused_as_ever() {
    // A GET that reaches the application is one that nothing was proven about.
    let (gateway, upstream) = gateway(&[CHALLENGE, HUB, PLAIN]).await;
    let questions = [
        ("dropbox", Question::get(""), 405),
        ("dropbox", Question::get("?challenge=a&challenge=b"), 405),
        ("dropbox", Question::get("?Challenge=a"), 405),
        ("dropbox", Question::new("HEAD", "?challenge=a"), 405),
        ("dropbox", Question::new("PUT", "?challenge=a"), 405),
        ("dropbox", Question::new("OPTIONS", "?challenge=a"), 405),
        (
            "dropbox",
            Question {
                query: "?challenge=a".to_owned(),
                ..Question::post("")
            },
            401,
        ),
        (
            "meta",
            Question::get("?hub.mode=unsubscribe&hub.verify_token=vt&hub.challenge=1"),
            405,
        ),
        ("meta", Question::get("?hub.mode=subscribe&hub.verify_token=vt"), 405),
        (
            "plain",
            Question::get("?challenge=a&hub.mode=subscribe&hub.verify_token=vt&hub.challenge=1"),
            405,
        ),
        (
            "plain",
            Question {
                query: "?validationToken=a".to_owned(),
                ..Question::post("")
            },
            401,
        ),
        (
            "plain",
            Question::post(r#"{"challenge":"x","type":"url_verification"}"#),
            401,
        ),
        (
            "plain",
            Question::post("").with("X-Hook-Secret", "b537207f20cbfa02357cf448134da559"),
            401,
        ),
    ];
    for (route, question, status) in questions {
        let answer = question.ask(gateway.address, route).await;
        assert_eq!(answer.status, status, "{route} {} {}", question.method, question.query);
        assert!(
            answer.header("x-hook-secret").is_none() && !answer.text().contains("hub"),
            "{route}"
        );
    }
    assert_eq!(upstream.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_verify_token_is_a_failed_proof() {
    // The answer would tell whether the token is nearly right, or whether the provider is set up at all.
    let (gateway, _upstream) = gateway(&[HUB]).await;
    let tokens = [
        "",
        "&hub.verify_token=",
        "&hub.verify_token=v",
        "&hub.verify_token=vT",
        "&hub.verify_token=vtt",
    ];
    for (n, token) in tokens.iter().enumerate() {
        let question = Question::get(&format!("?hub.mode=subscribe&hub.challenge=1{token}"));
        let answer = question.ask(gateway.address, "meta").await;
        assert_eq!((answer.status, answer.text()), (401, "unauthorized\n"), "{token}");
        let line = &gateway.lines(n + 1).await[n];
        assert_eq!(
            (&line["stage"], &line["reason"]),
            (&"verify".into(), &"mismatch".into())
        );
        assert!(line["handshake"].is_null() && !line.to_string().contains("verify_token"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_can_be_signed_by_asking() {
    // The challenge's answer is a signature: asked with an event as its challenge, it signs the event.
    let (gateway, upstream) = gateway(&[CRC]).await;
    let event = r#"{"type":"payout","to":"me"}"#;
    let encoded: String = event.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = Question::get(&format!("?crc_token={encoded}"))
        .ask(gateway.address, "x")
        .await;
    assert_eq!((answer.status, answer.text()), (405, "method\n"));
    // What is lent is no event's signature either, however plain the event is.
    for word in ["12345", "true", "a=b"] {
        let question = Question::get(&format!("?crc_token={}", word.replace('=', "%3d")));
        let signature = question.ask(gateway.address, "x").await;
        assert_eq!(signature.status, 200);
        let answer = Question::post(word)
            .with("x-sig", signature.text())
            .ask(gateway.address, "x")
            .await;
        assert_eq!((answer.status, answer.text()), (401, "unauthorized\n"), "{word}");
    }
    let answer = Question::post(event).signed().ask(gateway.address, "x").await;
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.seen().len(), 1);
}

async fn gateway_of(all: &[Asking], upstream: &Upstream) -> Gateway {
    Gateway::start(&Asking::conf(all, upstream.address).yaml()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_limited_like_anything_else() {
    // Whoever asks without end would have the gateway hash without end.
    let upstream = Upstream::ok().await;
    let conf = Asking::conf(&[CRC], upstream.address).limits("client_rate: 1/h, client_burst: 3");
    let gateway = Gateway::start(&conf.yaml()).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(Question::get("?crc_token=a").ask(gateway.address, "x").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_questions_spend_nothing_of_the_provider() {
    // A flood of challenges would have the provider's own events refused.
    let upstream = Upstream::ok().await;
    let hurried = Asking {
        route: "limits: { rate: 1/h, burst: 1 }",
        ..CHALLENGE
    };
    let gateway = gateway_of(&[hurried], &upstream).await;
    for _ in 0..5 {
        assert_eq!(
            Question::get("?challenge=a")
                .ask(gateway.address, "dropbox")
                .await
                .status,
            200
        );
    }
    let event = Question::post("{}").signed();
    assert_eq!(event.ask(gateway.address, "dropbox").await.status, 200);
    let another = Question::post("{ }").signed();
    assert_eq!(another.ask(gateway.address, "dropbox").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_serves_on_after_a_question() {
    // Providers ask and deliver on one connection; a length that is off would lose the next event.
    let (gateway, upstream) = gateway(&[CHALLENGE, HUB]).await;
    let mut client = Client::connect(gateway.address).await;
    let with_body = Question {
        body: "ignored".to_owned(),
        ..Question::get("?challenge=b")
    };
    let rounds = [
        (Question::get("?challenge=a"), "dropbox", 200),
        (with_body, "dropbox", 200),
        (Question::post("{}").signed(), "dropbox", 200),
        (Question::get("?hub.mode=subscribe&hub.challenge=1"), "meta", 401),
        (Question::get(""), "dropbox", 405),
        (Question::get("?challenge=c"), "dropbox", 200),
    ];
    for (question, route, status) in rounds {
        client.send(&question.bytes(route)).await;
        assert_eq!(
            client.answer().await.status,
            status,
            "{} {}",
            question.method,
            question.query
        );
    }
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_makes_no_difference() {
    // A provider that speaks HTTP/2 would find nobody there.
    let (gateway, upstream) = gateway(&[CHALLENGE]).await;
    let mut client = H2::connect(gateway.address).await;
    for (method, query, status, body) in [
        ("GET", "?challenge=a+b", 200, "a b"),
        ("GET", "?challenge=%0a", 405, "method\n"),
        ("GET", "", 405, "method\n"),
        ("POST", "?challenge=a", 401, "unauthorized\n"),
    ] {
        let uri = format!("http://gateway.test/webhooks/dropbox{query}");
        let request = Request::builder().method(method).uri(uri).body(Bytes::new()).unwrap();
        let answer = client.ask(request).await.unwrap();
        let told = std::str::from_utf8(answer.body()).unwrap();
        assert_eq!((answer.status().as_u16(), told), (status, body), "{method} {query}");
    }
    assert_eq!(upstream.seen().len(), 0);
}
